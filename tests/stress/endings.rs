//! How marking ends, step by step: the handshake before the last stop, upgrades around it, workers
//! that are late; and what allocations pay meanwhile.

#![allow(dead_code, reason = "each test program runs a part of these")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Gc, GcCell, GcLock, Mutator, Root, Trace, WeakRoot};
use parking_lot::Mutex;

use crate::directed::{DEPTH, Item, grow, leaves, new_item, new_item_before};
use crate::stage::{
    Gate, Gated, Slow, Stage, Steps, assert_kept, checked, keep, until, until_within,
    wait_for_request,
};
use crate::support::{Random, Stretch};

/// Allocates as much as is free of charge while marking runs, and more: what is queued is marked on
/// this thread.
fn assist(m: &Mutator) {
    for _ in 0..64 {
        std::hint::black_box(m.alloc_slice(4000, |i| i as u8));
    }
}

/// An edge is cut by a thread that has acknowledged the handshake at the end of marking already.
///
/// What it cuts from was hidden in the buffer of a thread that acknowledges later, and is marked
/// and scanned before the last thread does: so the queue is empty when the handshake is over, and
/// one buffer is not.
pub(crate) fn an_edge_is_cut_after_the_last_handshake() {
    let stage = Stage::new();
    let mut m = stage.attach();
    let gated: Root<Gated<'static>> = {
        let gated = stage.gated(&m, 1);
        let first = gated.edge.get().expect("an item");
        first
            .next
            .set(&m, new_item_before(&m, 2, Some(new_item(&m, 3))));
        m.root(gated)
    };
    let steps = Steps::default();
    let hidden: Mutex<Option<Root<Item<'static>>>> = Mutex::new(None);
    let cycle = stage.begin(&mut m);
    let kept = std::thread::scope(|s| {
        let (stage, steps, hidden) = (&stage, &steps, &hidden);
        let early = s.spawn(move || {
            let mut m = stage.attach();
            steps.done(1);
            steps.wait_for(3);
            wait_for_request(&m);
            // The first handshake; from here on nobody asks this thread before the last stop.
            m.safepoint();
            let kept = {
                let keeper = hidden.lock().take().expect("it was hidden").get(&m);
                let first = keeper.next.get().expect("it was kept");
                let second = first.next.swap(&m, None).expect("two in a row");
                keep(&m, second)
            };
            steps.done(4);
            // Its buffer must not go with it before the stop.
            steps.pass(7, &mut m);
            kept
        });
        let late = s.spawn(move || {
            let mut m = stage.attach();
            steps.wait_for(1);
            {
                let item = gated.get(&m).edge.swap(&m, None).expect("an item");
                *hidden.lock() = Some(keep(&m, item));
            }
            steps.done(2);
            steps.wait_for(4);
            m.safepoint();
            assist(&m);
            steps.done(5);
            steps.pass(7, &mut m);
        });
        steps.wait_for(2);
        stage.open();
        steps.done(3);
        steps.wait_for(5);
        // This thread is the last to acknowledge.
        cycle.wait(&mut m);
        steps.done(7);
        late.join().expect("no panic");
        early.join().expect("no panic")
    });
    assert_kept(&stage, &mut m, &kept);
}

/// A weak reference is upgraded when marking looks done, and not before.
pub(crate) fn an_upgrade_comes_as_marking_ends() {
    let stage = Stage::new();
    let mut m = stage.attach();
    let _gated: Root<Gated<'static>> = m.root(stage.gated(&m, 1));
    let weak: WeakRoot<Item<'static>> = m.root_weak(Gc::downgrade(new_item(&m, 7), &m));
    let cycle = stage.begin(&mut m);
    stage.open();
    wait_for_request(&m);
    let kept = keep(&m, weak.get(&m).expect("no cycle has found it dead"));
    cycle.wait(&mut m);
    assert_kept(&stage, &mut m, &kept);
    assert!(weak.get(&m).is_some());
}

/// A weak reference is upgraded when marking has ended, before the dead are cleared and after.
pub(crate) fn an_upgrade_comes_after_marking() {
    for _ in 0..10 {
        let stage = Stage::new();
        let mut m = stage.attach();
        let _gated: Root<Gated<'static>> = m.root(stage.gated(&m, 1));
        let weak: WeakRoot<Item<'static>> = m.root_weak(Gc::downgrade(new_item(&m, 7), &m));
        let weak_of_living: WeakRoot<Item<'static>> = {
            let item = new_item(&m, 8);
            m.root_weak(Gc::downgrade(item, &m))
        };
        let _living = m.root(weak_of_living.get(&m).expect("no cycle ran"));
        let ready = AtomicUsize::new(0);
        // One mutator may acknowledge the handshake that comes next on its way out of the stop, but
        // hardly each of them.
        let end_it = |m: &mut Mutator| {
            ready.fetch_add(1, Ordering::SeqCst);
            until("the others", || ready.load(Ordering::SeqCst) == 4);
            stage.open();
            // The handshake, then the last stop: nothing is in a buffer.
            for _ in 0..2 {
                wait_for_request(m);
                m.safepoint();
            }
            for _ in 0..20 {
                assert!(weak.get(m).is_none(), "marking has found it dead");
                let living = weak_of_living.get(m).expect("it is rooted");
                assert_eq!(living.check(), 8);
                std::thread::sleep(Duration::from_micros(100));
            }
        };
        let cycle = stage.begin(&mut m);
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| end_it(&mut stage.attach()));
            }
            end_it(&mut m);
        });
        cycle.wait(&mut m);
        assert!(weak.get(&m).is_none());
        stage.heap.verify().expect("whole");
    }
}

/// What only a weak reference knows is dead after a cycle, and the reference knows it.
pub(crate) fn weak_references_know_the_dead() {
    let heap = checked().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut weak: Vec<WeakRoot<Item<'static>>> = Vec::new();
    for id in 0..100 {
        weak.push(m.root_weak(Gc::downgrade(new_item(&m, id), &m)));
    }
    let living: Vec<_> = weak
        .iter()
        .step_by(3)
        .map(|w| m.root(w.get(&m).expect("no cycle ran")))
        .collect();
    for _ in 0..2 {
        m.collect();
        heap.verify().expect("whole");
        for (id, weak) in weak.iter().enumerate() {
            let up = weak.get(&m).map(|item| item.check());
            assert_eq!(up, (id % 3 == 0).then_some(id as u64));
        }
    }
    drop(living);
}

/// Dead objects of one slot are not taken for one another.
pub(crate) fn the_dead_of_one_slot_are_told_apart() {
    let heap = checked().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut dead: Vec<(usize, WeakRoot<Item<'static>>)> = Vec::new();
    // More pages than a mutator keeps for itself: those that were freed come back.
    for id in 0..40_000 {
        {
            let item = new_item(&m, id);
            let weak = m.root_weak(Gc::downgrade(item, &m));
            dead.push((item.as_ptr().addr(), weak));
        }
        if id % 2000 == 1999 {
            m.collect();
        }
    }
    m.collect();
    dead.sort_by_key(|(address, _)| *address);
    let shared = |pair: &&[(usize, WeakRoot<Item<'static>>)]| pair[0].0 == pair[1].0;
    let pairs: Vec<_> = dead.windows(2).filter(shared).collect();
    assert!(!pairs.is_empty(), "no slot was used twice");
    for pair in pairs {
        let [(_, one), (_, two)] = pair else {
            unreachable!("windows of two");
        };
        assert!(one.is_dead(&m) && two.is_dead(&m));
        assert!(!one.weak(&m).ptr_eq(two.weak(&m)), "two objects are equal");
        assert!(one.weak(&m).ptr_eq(one.weak(&m)));
    }
}

#[derive(Trace)]
struct SlowTree<'gc> {
    slow: Slow,
    below: Gc<'gc, Item<'gc>>,
}

/// The items of many arrays, each of which is one piece of work; some of them take long.
fn forest<'m>(m: &'m Mutator) -> Gc<'m, [Gc<'m, [Gc<'m, SlowTree<'m>>]>]> {
    let tree = |m: &'m Mutator, i: usize| {
        let below = new_item(m, i as u64);
        below.next.set(m, new_item(m, i as u64));
        m.alloc(SlowTree { slow: Slow, below })
    };
    m.alloc_slice(300, |i| {
        m.alloc_slice(if i % 60 == 0 { 3 } else { 1 }, |_| tree(m, i))
    })
}

/// A mark worker is slower than the collector, and what it has in hand is found by nobody else.
pub(crate) fn workers_are_waited_for() {
    let heap = checked().gogc(None).workers(2).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let forest = m.root(forest(&m));
    for _ in 0..20 {
        m.collect();
    }
    for (i, trees) in forest.get(&m).iter().enumerate() {
        for tree in trees.iter() {
            let last = tree.below.next.get().expect("two in a row");
            assert_eq!((tree.below.check(), last.check()), (i as u64, i as u64));
        }
    }
    heap.verify().expect("whole");
}

#[derive(Trace)]
struct Locked<'gc> {
    items: GcLock<Vec<Gc<'gc, Item<'gc>>>>,
}

/// Workers come and go in cycle after cycle, some when marking has just ended. Each marks in the
/// cycle that it has joined, so what only the content of locks leads to stays.
pub(crate) fn a_worker_comes_late() {
    let heap = checked().gogc(None).workers(4).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let _forest = m.root(forest(&m));
    let locked = m.root(m.alloc_slice(64, |i| {
        let items = (0..4).map(|j| new_item(&m, i as u64 * 4 + j)).collect();
        m.alloc(Locked {
            items: GcLock::new(items),
        })
    }));
    for _ in 0..40 {
        m.collect();
        for (i, locked) in locked.get(&m).iter().enumerate() {
            for (j, item) in locked.items.read().iter().enumerate() {
                assert_eq!(item.check(), (i * 4 + j) as u64);
            }
        }
    }
    heap.verify().expect("whole");
}

/// With the world stopped for the whole of marking, too, a collection frees what was dead when it
/// was called, whoever comes when nothing is left to mark.
pub(crate) fn a_worker_comes_late_to_a_stopped_world() {
    let heap = checked().gogc(None).workers(4).stop_the_world(true);
    let heap = heap.build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let _forest = m.root(forest(&m));
    for cycle in 0..40 {
        let weak = m.root_weak(Gc::downgrade(new_item(&m, 7), &m));
        m.collect();
        assert!(weak.get(&m).is_none(), "collection {cycle} freed nothing");
    }
}

/// Two workers mark neighbours at the same time, again and again: each object is reached once, so a
/// lost mark is seen.
pub(crate) fn neighbours_are_marked_by_two_workers(time: Duration) {
    const N: usize = 60_000;
    let heap = checked().gogc(None).workers(2).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut random = Random::new(7);
    let root = {
        let mut pairs: Vec<_> = (0..N).map(|i| m.alloc(i as u64)).collect();
        for i in (1..N).rev() {
            pairs.swap(i, random.below(i + 1));
        }
        let bunches = m.alloc_slice(N / 60, |b| m.alloc_slice(60, |i| pairs[b * 60 + i]));
        m.root(bunches)
    };
    let end = Stretch::of(time);
    while !end.is_over() {
        m.collect();
    }
    let sum: u64 = root
        .get(&m)
        .iter()
        .flat_map(|b| b.iter())
        .map(|n| **n)
        .sum();
    assert_eq!(sum, (N * (N - 1) / 2) as u64);
}

#[derive(Trace)]
struct Pages<'gc> {
    gate: Gate,
    next: GcCell<'gc, Pages<'gc>>,
    bulk: Gc<'gc, [GcCell<'gc, Item<'gc>>]>,
}

/// A chain of `len` objects with much to scan, with a gate at each end.
fn chain<'m>(m: &'m Mutator, len: usize, gates: &[Gate; 2]) -> Gc<'m, Pages<'m>> {
    let link = |gate: &Gate, next| {
        m.alloc(Pages {
            gate: gate.clone(),
            next: GcCell::new(next),
            bulk: m.alloc_slice(1000, |_| GcCell::null()),
        })
    };
    let middle = Gate::new();
    let mut first = link(&gates[1], None);
    for _ in 2..len {
        first = link(&middle, Some(first));
    }
    link(&gates[0], Some(first))
}

/// An allocation past the goal waits for marking to get on, and is paid by what the collector scans
/// before marking ends.
pub(crate) fn waiting_allocations_are_paid() {
    let heap = checked()
        .gogc(Some(100))
        .workers(1)
        .build()
        .expect("a heap");
    let mut m = heap.attach().expect("attached");
    let gates = [Gate::new(), Gate::new()];
    let _chain = m.root(chain(&m, 2000, &gates));
    m.collect();
    m.collect();
    gates.iter().for_each(Gate::arm);
    let collecting = {
        let heap = heap.clone();
        std::thread::spawn(move || heap.collect())
    };
    until("the first gate", || {
        m.safepoint();
        gates[0].is_held()
    });
    let stats = heap.stats();
    let room = stats.goal_bytes.saturating_sub(stats.heap_bytes);
    let _past_the_goal = m.external(room as usize + (64 << 10));
    let (allocated, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    m.blocking(|| {
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut m = heap.attach().expect("attached");
                while !stop.load(Ordering::SeqCst) {
                    allocated.fetch_add(1, Ordering::SeqCst);
                    std::hint::black_box(new_item(&m, 0));
                    if m.safepoint_is_due() {
                        m.safepoint();
                    }
                }
            });
            let mut before = 0;
            until("the wait", || {
                std::thread::sleep(Duration::from_millis(20));
                let now = allocated.load(Ordering::SeqCst);
                now > 0 && std::mem::replace(&mut before, now) == now
            });
            gates[0].open();
            until("the second gate", || gates[1].is_held());
            until_within(Duration::from_secs(4), "the payment", || {
                allocated.load(Ordering::SeqCst) > before
            });
            gates[1].open();
            stop.store(true, Ordering::SeqCst);
        });
    });
    until("the end of the cycle", || {
        m.safepoint();
        collecting.is_finished()
    });
    collecting.join().expect("no panic");
}

/// A thread that allocates while a marker works does a part of the work, and leaves the rest to
/// others.
pub(crate) fn assists_give_back_what_they_do_not_finish() {
    let heap = checked().gogc(None).workers(1).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let trees: Vec<_> = (0..8).map(|_| m.root(grow(&m, DEPTH, &mut 0))).collect();
    let n = 1 << DEPTH;
    for _ in 0..10 {
        let collecting = {
            let heap = heap.clone();
            std::thread::spawn(move || heap.collect())
        };
        until("the end of the cycle", || {
            assist(&m);
            m.safepoint();
            collecting.is_finished()
        });
        collecting.join().expect("no panic");
        for tree in &trees {
            assert_eq!(leaves(tree.get(&m)), (n, n * (n + 1) / 2));
        }
    }
    heap.verify().expect("whole");
}
