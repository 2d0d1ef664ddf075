//! Whole cycles, against mutators that do everything that a mutator does.

use super::*;
use crate::sys::random_model::explore;
#[cfg(feature = "sabotage")]
use crate::sys::random_model::fails_with;
use crate::sys::sabotage::{self, Fault};

/// What mutators do between two safepoints: they have what their roots lead to, and what they find from there.
fn change_some_edges(mutator: &mut Mutator) {
    let mut held: Vec<usize> = mutator.roots.iter().map(RawRoot::target).collect();
    for _ in 0..=random(4) {
        let (from, edge) = (any(&held), random(EDGES));
        let there = load(from, edge);
        if there != 0 {
            node(there);
            held.push(there);
        }
        match random(4) {
            // An edge moves to another object, and is gone from where it was.
            0 => {
                mutator.set(any(&held), random(EDGES), there);
                mutator.set(from, edge, 0);
            }
            // A new object comes between.
            1 => {
                let new = mutator.alloc([there, any(&held), 0]);
                mutator.set(from, edge, new);
                held.push(new);
            }
            2 => mutator.set(from, edge, any(&held)),
            _ => {}
        }
    }
    if random(4) == 0 {
        mutator.root(any(&held));
    }
    if mutator.roots.len() > 1 && random(4) == 0 {
        // The first one is what all have in common.
        mutator.unroot(1 + random(mutator.roots.len() - 1));
    }
    for object in held {
        node(object);
    }
}

/// A thread: attaches, works, and goes, perhaps to come back.
fn run(collector: &Arc<Collector>, shared: RawRoot, turns: usize) {
    let mut mutator = Mutator::attach(collector);
    mutator.roots.push(shared);
    for _ in 0..turns {
        change_some_edges(&mut mutator);
        match random(8) {
            0 => mutator.collect(),
            1 => mutator.blocking(|_| shuttle::thread::yield_now()),
            2 => {
                let shared = mutator.roots[0].share();
                mutator.detach();
                mutator = Mutator::attach(collector);
                mutator.roots.push(shared);
            }
            _ => mutator.safepoint(),
        }
    }
    mutator.detach();
}

/// Mutators over one graph, with cycles as they and the main thread ask for them; the verifier looks at each.
fn program(mutators: usize, turns: usize, cycles: usize, limit: u64) {
    let collector = start(limit);
    let mut first = Mutator::attach(&collector);
    let leaves = [0; 3].map(|_| first.alloc([0; EDGES]));
    let top = first.alloc(leaves);
    first.root(top);
    let threads = (0..mutators)
        .map(|_| {
            let (collector, shared) = (collector.clone(), first.roots[0].share());
            shuttle::thread::spawn(move || run(&collector, shared, turns))
        })
        .collect();
    first.collect_beside(threads, cycles);
    first.collect();
    let top = first.roots[0].target();
    node(top);
    first.detach();
    collector.shut_down();
}

/// A thread that ends without dropping its mutator, which has given out an object that nothing else leads to; and which is
/// dropped by a later destructor. Stands for `api/current.rs`.
fn lose(collector: &Arc<Collector>, shared: RawRoot, turns: usize) {
    let mut mutator = Mutator::attach(collector);
    mutator.roots.push(shared);
    for _ in 0..random(turns) {
        change_some_edges(&mut mutator);
        mutator.safepoint();
    }
    let given = mutator.alloc([0; EDGES]);
    let stays = !sabotage::is_on(Fault::LostMutatorDetached);
    if stays {
        collector.note_departure(mutator.me);
    } else {
        collector.detach(mutator.me);
    }
    for _ in 0..10 * turns {
        shuttle::thread::yield_now();
        node(given);
    }
    if stays {
        change_some_edges(&mut mutator);
        mutator.detach();
    }
}

/// As [`program`], with one mutator that is lost and returns.
fn program_with_a_loss(mutators: usize, turns: usize, cycles: usize) {
    let collector = start(u64::MAX);
    let mut first = Mutator::attach(&collector);
    let top = first.alloc([0; EDGES]);
    first.root(top);
    let threads = (0..mutators)
        .map(|number| {
            let (collector, shared) = (collector.clone(), first.roots[0].share());
            shuttle::thread::spawn(move || match number {
                0 => lose(&collector, shared, turns),
                _ => run(&collector, shared, turns),
            })
        })
        .collect();
    first.collect_beside(threads, cycles);
    // Everybody is back: this is a whole cycle again.
    let before = collector.cycle_number();
    first.collect();
    assert!(collector.cycle_number() > before || sabotage::is_on(Fault::LostMutatorDetached));
    node(first.roots[0].target());
    first.detach();
    collector.shut_down();
}

#[test]
fn shuttle_cycles_against_a_mutator_that_is_lost() {
    explore(400, || program_with_a_loss(3, 4, 3));
}

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_a_lost_mutator_that_is_detached_fails() {
    let fault = Fault::LostMutatorDetached;
    fails_with(fault, 2000, LOST, || program_with_a_loss(3, 4, 3));
}

/// A limit that leaves no room: every allocation of a cycle pays, and waits for credit or for the end of marking.
const NO_ROOM: u64 = 64 << 10;

#[test]
fn shuttle_cycles_against_mutators() {
    explore(600, || program(3, 4, 2, u64::MAX));
}

#[test]
fn shuttle_many_cycles_against_mutators() {
    explore(300, || program(4, 6, 4, u64::MAX));
}

#[test]
fn shuttle_cycles_without_room() {
    explore(400, || program(3, 4, 2, NO_ROOM));
}

#[cfg(feature = "sabotage")]
fn fails_with_each(faults: &[Fault]) {
    for &fault in faults {
        fails_with(fault, 2000, LOST, || program(3, 4, 2, u64::MAX));
    }
}

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_cycles_with_a_broken_barrier_fail() {
    fails_with_each(&[
        Fault::NoDeletionBarrier,
        Fault::AttachedWithoutBarrier,
        Fault::FullBufferLost,
        Fault::BufferNotFlushed,
        Fault::BufferLostAtHandshake,
        Fault::BufferLostAtDetach,
    ]);
}

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_cycles_with_broken_roots_or_colours_fail() {
    fails_with_each(&[
        Fault::RootsNotScanned,
        Fault::RootBlockSkipped,
        Fault::AllocateWhite,
        Fault::CursorStaysWhite,
    ]);
}

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_cycles_with_broken_marking_fail() {
    fails_with_each(&[
        Fault::MarkNotAtomic,
        Fault::NeighboursNotScanned,
        Fault::EndsOneWorkerEarly,
    ]);
}

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_cycles_with_broken_stops_fail() {
    fails_with_each(&[
        Fault::MutatorForgotten,
        Fault::BlockedForgotten,
        Fault::HandshakeNotAwaited,
        Fault::BlockedNotActedFor,
        Fault::StaleCacheKept,
    ]);
}
