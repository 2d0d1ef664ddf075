//! The end of marking: the last worker out, and what still sits in a barrier buffer.
//! The real `WorkPool` and `World`; the rest stands for `Collector::work`, `Collector::mark_until_quiet`,
//! `Collector::mark_concurrently` and `Collector::try_end_marking`.

use std::sync::Arc;

use loom::thread;

use super::{Edge, Marks, Objects, attach, bit, objects, safepoint, state};
use crate::gc::state_word::Request;
use crate::gc::work::WorkPool;
use crate::gc::world::World;
use crate::sys::model::{Plain, explore};

/// When a worker hands on what it found.
#[derive(Clone, Copy, PartialEq)]
enum Gives {
    /// While it counts as active.
    BeforeItLeaves,
    AfterItHasLeft,
}

/// A chain of three objects, each found by scanning the one before, each handed over through the pool.
const LAST: usize = 3;

/// `Collector::work`: takes buffers until there are none; `scanned` is the worker's own set.
fn work(pool: &WorkPool, scanned: &Plain<u64>, gives: Gives) {
    if !pool.join() {
        return;
    }
    let mut late = Vec::new();
    while let Some(buf) = pool.take() {
        for object in buf {
            scanned.add(object);
            if object == LAST {
                continue;
            }
            match gives {
                Gives::BeforeItLeaves => pool.put(vec![object + 1]),
                Gives::AfterItHasLeft => late.push(object + 1),
            }
        }
    }
    pool.leave();
    pool.put(late);
}

fn last_worker_out(gives: Gives) {
    explore(3, move |order| {
        let pool = Arc::new(WorkPool::new());
        pool.open();
        pool.put(vec![1]);
        let sets = Arc::new([Plain::new(0), Plain::new(0)]);
        let (here, there) = (pool.clone(), pool.clone());
        let (here_sets, there_sets) = (sets.clone(), sets);
        order.race(
            move || work(&here, &here_sets[0], gives),
            move || {
                loop {
                    work(&there, &there_sets[1], gives);
                    if there.is_quiet() {
                        break;
                    }
                    thread::yield_now();
                }
                // The other one may still come and go; it finds nothing.
                let all = there_sets[0].get() | there_sets[1].get();
                assert_eq!(all, bit(1) | bit(2) | bit(3), "quiet with work left");
            },
        );
        pool.close();
        assert!(!pool.join(), "closed");
    });
}

#[test]
fn loom_last_worker_out_against_new_work() {
    last_worker_out(Gives::BeforeItLeaves);
}

#[test]
#[should_panic(expected = "quiet with work left")]
fn loom_worker_that_gives_after_it_left_fails() {
    last_worker_out(Gives::AfterItHasLeft);
}

/// What the test for the end of marking looks at.
#[derive(Clone, Copy, PartialEq)]
enum LooksAt {
    BuffersAndQueue,
    BuffersOnly,
}

/// The object that the mutator moves has a child, so that marking it is not enough.
const MOVED: usize = 2;
const CHILD: usize = 3;

/// A root's edge leads to MOVED, whose edge leads to CHILD; `black` is an edge of a black object.
struct Scene {
    world: World,
    pool: WorkPool,
    marks: Marks,
    root: Edge,
    black: Edge,
    /// The mutator's record.
    buffer: Plain<u64>,
    marking: Plain<bool>,
}

impl Scene {
    fn shade(&self, object: usize) {
        if object != 0 && self.marks.set(object) {
            self.pool.put(vec![object]);
        }
    }

    /// `Collector::flush_barrier`; says whether there was anything.
    fn flush(&self) -> bool {
        let found = self.buffer.take();
        objects(found).for_each(|object| self.shade(object));
        found != 0
    }

    /// `GcCell::set`.
    fn set(&self, edge: &Edge, to: usize) {
        if self.marking.get() {
            edge.set(&self.buffer, to);
        } else {
            edge.store(to);
        }
    }

    fn drain(&self) {
        while let Some(buf) = self.pool.join_with_work() {
            for object in buf {
                if object == MOVED {
                    self.shade(CHILD);
                }
            }
            self.pool.leave();
        }
    }

    fn mark(&self, looks_at: LooksAt) {
        let is_quiet = || looks_at == LooksAt::BuffersOnly || self.pool.is_quiet();
        // The root job.
        self.shade(self.root.load());
        loop {
            self.drain();
            self.world.ask_handshake(|_| {
                self.flush();
            });
            self.world.wait_for_handshake(|_| {});
            if !is_quiet() {
                continue;
            }
            self.world.stop(Request::Stop, |_| {});
            let over = !self.flush() && is_quiet();
            if over {
                self.marking.set(false);
            }
            self.world.withdraw_stop();
            self.world.open_gate();
            if over {
                return;
            }
        }
    }
}

fn flush_against_termination(looks_at: LooksAt) {
    explore(3, move |order| {
        let scene = Arc::new(Scene {
            world: World::new(),
            pool: WorkPool::new(),
            marks: Marks::new(0),
            root: Edge::new(MOVED),
            black: Edge::new(0),
            buffer: Plain::new(0),
            marking: Plain::new(true),
        });
        let mutator = attach(&scene.world);
        let (here, there) = (scene.clone(), scene.clone());
        order.race(
            move || {
                let flush = &mut || {
                    here.flush();
                };
                here.set(&here.black, here.root.load());
                here.set(&here.root, 0);
                safepoint(&here.world, mutator, flush);
                here.world.enter_blocked(state(mutator), flush);
            },
            move || {
                there.mark(looks_at);
                let marked = [MOVED, CHILD].map(|object| there.marks.test(object));
                assert_eq!(marked, [true, true], "reachable and not marked");
            },
        );
        assert_eq!(scene.buffer.get(), 0, "grey after the end of marking");
        scene.world.unregister(mutator);
    });
}

#[test]
fn loom_flush_against_termination() {
    flush_against_termination(LooksAt::BuffersAndQueue);
}

#[test]
#[should_panic(expected = "reachable and not marked")]
fn loom_termination_that_ignores_the_queue_fails() {
    flush_against_termination(LooksAt::BuffersOnly);
}
