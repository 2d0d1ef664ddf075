//! Which heaps the process has, and whether there are several.
//!
//! **Claim.** Whoever can name an object of one heap while it uses a mutator of another finds that
//! mutator's barrier on ([`Duty::checks`](crate::gc::duty::Duty::checks)).
//!
//! An object of a heap is named after the heap was made. Before the second heap can be used, its
//! maker has switched the check on for every mutator there is, and a mutator that is registered
//! later asks [`are_several`] under its registry's lock: either the maker found it on the registry,
//! or it came after the maker and sees what that has written. A pointer comes from the maker's
//! thread to any other by something that synchronises, so the switch happens before it is there,
//! and a mutator's plain look at its own byte cannot miss it. No safepoint is needed: a mutator in
//! the middle of a section may get a pointer of a heap that is younger than the section.
//!
//! The heaps become fewer when the memory of one goes. Nobody names an object of it then.

use crate::gc::collector::Collector;
use std::sync::Arc;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use listed::{are_several, enlist, heap_of, withdraw};
#[cfg(any(loom, shuttle))]
pub(crate) use modelled::{are_several, enlist, heap_of, withdraw};

#[cfg(not(any(loom, shuttle)))]
mod listed {
    use std::sync::Weak;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{Arc, Collector};
    use crate::sys::lock::Unranked;
    use crate::sys::sabotage::{self, Fault};

    /// A heap, as the others know it.
    struct Listed {
        id: usize,
        arena: std::ops::Range<usize>,
        collector: Weak<Collector>,
    }

    /// Taken before a registry's lock. No code of users runs under it.
    static HEAPS: Unranked<Vec<Listed>> = Unranked::new(Vec::new());
    /// Whether the list has more than one. Written under its lock.
    static SEVERAL: AtomicBool = AtomicBool::new(false);

    /// Whether the process has more than one heap. Under a registry's lock: see the module's head.
    pub(crate) fn are_several() -> bool {
        // Relaxed: the registry's lock orders it against `tell_all`.
        SEVERAL.load(Ordering::Relaxed)
    }

    /// The heap has been made, and nobody uses it yet.
    pub(crate) fn enlist(collector: &Arc<Collector>) {
        let first = collector.heap.at(0).addr();
        let heap = Listed {
            id: collector.id,
            arena: first..first + collector.heap.reserved(),
            collector: Arc::downgrade(collector),
        };
        let mut heaps = HEAPS.lock();
        heaps.push(heap);
        let told = (heaps.len() == 2).then(|| tell_all(&heaps, true));
        drop(heaps);
        // Perhaps the last references.
        drop(told);
    }

    /// The heap's memory is about to go.
    pub(crate) fn withdraw(id: usize) {
        let mut heaps = HEAPS.lock();
        let before = heaps.len();
        heaps.retain(|heap| heap.id != id);
        let told = (before == 2 && heaps.len() == 1).then(|| tell_all(&heaps, false));
        drop(heaps);
        drop(told);
    }

    /// Tells every mutator of every heap whether there are several. Returns what it has looked at.
    fn tell_all(heaps: &[Listed], several: bool) -> Vec<Arc<Collector>> {
        // Relaxed: see `are_several`.
        SEVERAL.store(several, Ordering::Relaxed);
        let all: Vec<_> = (heaps.iter())
            .filter_map(|heap| heap.collector.upgrade())
            .collect();
        if several && sabotage::is_on(Fault::SecondHeapUntold) {
            return all;
        }
        for collector in &all {
            for mutator in collector.world.registry().iter() {
                mutator.local.duty.set_checks(several);
            }
        }
        all
    }

    /// The number of the heap whose arena the address is in. O(heaps), with a lock.
    pub(crate) fn heap_of(address: usize) -> Option<usize> {
        // No arena is there.
        if address == 0 {
            return None;
        }
        (HEAPS.lock().iter())
            .find(|heap| heap.arena.contains(&address))
            .map(|heap| heap.id)
    }
}

/// A model has one heap, and several models may run at a time.
#[cfg(any(loom, shuttle))]
mod modelled {
    use super::{Arc, Collector};

    pub(crate) fn are_several() -> bool {
        false
    }
    pub(crate) fn enlist(_: &Arc<Collector>) {}
    pub(crate) fn withdraw(_: usize) {}
    pub(crate) fn heap_of(_: usize) -> Option<usize> {
        None
    }
}
