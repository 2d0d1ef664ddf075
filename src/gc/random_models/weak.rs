//! Weak references: several threads upgrade, store what they got, and let it go, while cycles end.

use super::*;
use crate::gc::weak::{Upgrade, WeakCell};
use crate::sys::random_model::explore;
#[cfg(feature = "sabotage")]
use crate::sys::{random_model::fails_with, sabotage::Fault};

/// Edges of the one object that all have in common: a weak cell, and what keeps its target now and then.
const CELL: usize = 0;
const STRONG: usize = 1;
/// Edges of a target: an object that it needs, and its own weak cell.
const PART: usize = 0;
const OWN_CELL: usize = 1;

/// The target of a weak cell.
fn target(cell: usize) -> usize {
    let cell: *const WeakCell = std::ptr::with_exposed_provenance(cell);
    // SAFETY: the callers hold the cell.
    unsafe { &*cell }.target()
}

impl Mutator {
    /// `Gc::try_downgrade`.
    fn downgrade(&self, to: usize) -> usize {
        let fresh = self.collector.alloc_weak_cell(self.state());
        let fresh = fresh.expect("room in the heap");
        assert!(fresh.slot >= size_of::<WeakCell>());
        let at: *mut WeakCell = std::ptr::with_exposed_provenance_mut(fresh.address);
        let cell = WeakCell::new(to, self.collector.weak.ended());
        // SAFETY: a fresh slot of a cell's size.
        unsafe { at.write(cell) };
        fresh.address
    }

    /// `Weak::upgrade`.
    fn upgrade(&self, cell: usize) -> Option<usize> {
        let collector = &self.collector;
        loop {
            let idle = collector.weak.is_idle();
            let target = target(cell);
            if target == 0 {
                return None;
            }
            if idle {
                return Some(target);
            }
            let heap = &collector.heap;
            let offset = heap.offset_of(target).expect("in the heap");
            let marked = || heap.mark.test(offset);
            let young = || heap.is_young(offset);
            match collector.weak.decide(marked, young) {
                Upgrade::Strong => return Some(target),
                Upgrade::ShadeFirst => {
                    collector.shade_later(self.local(), target);
                    return Some(target);
                }
                Upgrade::None => return None,
                Upgrade::Again => {}
            }
        }
    }

    /// A new target in the place of the old one, which nothing keeps but the weak cell.
    fn renew(&self, common: usize) {
        let part = self.alloc([0; EDGES]);
        let new = self.alloc([part, 0, 0]);
        let cell = self.downgrade(new);
        self.set(new, OWN_CELL, cell);
        self.set(common, CELL, cell);
    }
}

fn upgrade_and_store(mutator: &Mutator) {
    let common = mutator.roots[0].target();
    let strong = load(common, STRONG);
    if strong != 0 {
        let own = mutator.upgrade(load(strong, OWN_CELL));
        assert_eq!(own, Some(strong), "the upgrade of a live object failed");
    }
    match mutator.upgrade(load(common, CELL)) {
        Some(target) => {
            node(load(target, PART));
            match random(3) {
                0 => mutator.set(common, STRONG, target),
                1 => mutator.set(common, STRONG, 0),
                _ => {}
            }
            node(load(target, PART));
        }
        None => mutator.renew(common),
    }
}

/// Upgraders of one weak reference, and cycles one after the other.
fn program(upgraders: usize, turns: usize, cycles: usize) {
    let collector = start(u64::MAX);
    let mut first = Mutator::attach(&collector);
    let common = first.alloc([0; EDGES]);
    first.root(common);
    first.renew(common);
    let threads = (0..upgraders)
        .map(|_| {
            let (collector, shared) = (collector.clone(), first.roots[0].share());
            shuttle::thread::spawn(move || {
                let mut mutator = Mutator::attach(&collector);
                mutator.roots.push(shared);
                for _ in 0..turns {
                    upgrade_and_store(&mutator);
                    match random(4) {
                        0 => mutator.blocking(|_| shuttle::thread::yield_now()),
                        _ => mutator.safepoint(),
                    }
                }
                mutator.detach();
            })
        })
        .collect();
    first.collect_beside(threads, cycles);
    upgrade_and_store(&first);
    first.detach();
    collector.shut_down();
}

#[test]
fn shuttle_upgrades_against_the_ends_of_cycles() {
    explore(500, || program(3, 4, 2));
}

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_upgrades_with_faults_fail() {
    for fault in [
        Fault::CensusSkipped,
        Fault::UpgradeUntold,
        Fault::DeadUpgraded,
    ] {
        fails_with(fault, 4000, LOST, || program(3, 4, 2));
    }
}
