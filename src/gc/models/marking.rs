//! The end of marking: the last worker out, the next cycle's workers, and what still sits in a barrier buffer.
//! The real `WorkPool` and `World`; the rest stands for `Collector::work`, `Collector::mark_until_quiet`,
//! `Collector::mark_concurrently` and `Collector::try_end_marking`.

use std::sync::Arc;

use loom::thread;

use super::{CYCLE, Edge, Marks, Objects, attach, bit, objects, safepoint, state};
use crate::gc::state_word::Request;
use crate::gc::stopped::Stopped;
use crate::gc::work::WorkPool;
use crate::gc::world::{Patience, World};
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
    let Some(joined) = pool.join() else {
        return;
    };
    let mut late = Vec::new();
    while let Some(buf) = joined.take() {
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
    drop(joined);
    pool.put(late);
}

fn last_worker_out(gives: Gives) {
    explore(3, move |order| {
        let pool = open_pool();
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
        assert!(pool.close_if_quiet(|| true));
        assert!(pool.join().is_none(), "closed");
    });
}

/// A pool in which marking runs.
fn open_pool() -> Arc<WorkPool> {
    let pool = Arc::new(WorkPool::new());
    pool.begin(CYCLE, &Stopped::in_a_test());
    pool.open();
    pool
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

/// When the pool is closed.
#[derive(Clone, Copy, PartialEq)]
enum Closes {
    /// Where it is decided that marking is over.
    WithTheDecision,
    /// After it.
    AfterTheDecision,
}

/// What a worker must find while it marks: the number of the cycle, which changes only where nobody marks.
struct Cycles {
    pool: WorkPool,
    number: Plain<u32>,
}

impl Cycles {
    /// `Collector::run_worker`, once: it may come at any time.
    fn come_and_go(&self) {
        let joined = match self.pool.join_with_work() {
            Some((joined, _buf)) => joined,
            None => match self.pool.join() {
                Some(joined) => joined,
                None => return,
            },
        };
        let number = self.number.get();
        assert_eq!(joined.cycle(), number, "joined another cycle");
    }

    /// `Collector::run_cycle`.
    fn run_cycle(&self, cycle: u32, closes: Closes) {
        self.number.set(cycle);
        self.pool.begin(cycle, &Stopped::in_a_test());
        // A mutator's barrier.
        self.pool.put(vec![1]);
        self.pool.open();
        loop {
            while let Some((joined, _)) = self.pool.join_with_work() {
                assert_eq!(joined.cycle(), cycle);
            }
            let is_over = match closes {
                Closes::WithTheDecision => self.pool.close_if_quiet(|| true),
                Closes::AfterTheDecision => {
                    let is_over = self.pool.is_quiet();
                    if is_over {
                        self.pool.close();
                    }
                    is_over
                }
            };
            if is_over {
                break;
            }
            thread::yield_now();
        }
        self.pool.tell_closed();
    }
}

fn workers_over_two_cycles(closes: Closes) {
    explore(3, move |order| {
        let cycles = Arc::new(Cycles {
            pool: WorkPool::new(),
            number: Plain::new(0),
        });
        let (here, there) = (cycles.clone(), cycles);
        order.race(
            move || {
                here.come_and_go();
                here.come_and_go();
            },
            move || {
                there.run_cycle(CYCLE, closes);
                there.run_cycle(CYCLE + 1, closes);
            },
        );
    });
}

#[test]
fn loom_workers_over_two_cycles() {
    workers_over_two_cycles(Closes::WithTheDecision);
}

/// The number is read where it is written.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_pool_that_is_closed_after_the_decision_fails() {
    workers_over_two_cycles(Closes::AfterTheDecision);
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
    pool: Arc<WorkPool>,
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
        while let Some((_joined, buf)) = self.pool.join_with_work() {
            for object in buf {
                if object == MOVED {
                    self.shade(CHILD);
                }
            }
        }
    }

    fn mark(&self, looks_at: LooksAt) {
        let is_quiet = || looks_at == LooksAt::BuffersOnly || self.pool.is_quiet();
        let closed = || looks_at == LooksAt::BuffersOnly || self.pool.close_if_quiet(|| true);
        // The root job.
        self.shade(self.root.load());
        loop {
            self.drain();
            self.world.ask_handshake(|_| {
                self.flush();
            });
            self.world.wait_for_handshake(|_| Patience::Look);
            if !is_quiet() {
                continue;
            }
            let stopped = self
                .world
                .stop(Request::Stop, |_| Patience::Look)
                .expect("nobody is lost");
            let over = !self.flush() && closed();
            if over {
                self.marking.set(false);
            }
            self.world.withdraw_stop(stopped);
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
            pool: open_pool(),
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
