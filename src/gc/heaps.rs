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
//!
//! **Numbers.** A heap has the number of the cycle that it runs, or ran last, or one from its
//! beginning. No two heaps have the same at a time: all numbers come from one counter of 32 bits,
//! which passes over those that are in use, and over 0. So the number in a lock says whose writer
//! it was ([`is_anothers`]). A heap gets its next number while its mutators are stopped; until then
//! those of them that hold a lock have the number that is listed.

use std::sync::Arc;

use crate::gc::collector::Collector;

#[cfg(all(any(fuzzing, feature = "internals"), not(any(loom, shuttle))))]
pub(crate) use listed::count_from;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use listed::{are_several, enlist, heap_of, is_anothers, next_number, withdraw};
#[cfg(all(any(fuzzing, feature = "internals"), any(loom, shuttle)))]
pub(crate) use modelled::count_from;
#[cfg(any(loom, shuttle))]
pub(crate) use modelled::{are_several, enlist, heap_of, is_anothers, next_number, withdraw};

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

    /// Numbers of cycles.
    struct Numbers {
        last: u32,
        /// The heaps by their ids, and the number that each has now.
        now: Vec<(usize, u32)>,
    }

    impl Numbers {
        /// A number that no heap has; at the least `first`, when numbers begin anew.
        fn take(&mut self, first: u32) -> u32 {
            loop {
                self.last = self.last.wrapping_add(1).max(first);
                if self.now.iter().all(|(_, number)| *number != self.last) {
                    return self.last;
                }
            }
        }
    }

    /// No other lock is taken under it.
    static NUMBERS: Unranked<Numbers> = Unranked::new(Numbers {
        last: 0,
        now: Vec::new(),
    });

    /// The heap's mutators are stopped: it gets another number, which is returned. O(heaps), with a lock.
    pub(crate) fn next_number(id: usize, _before: u32, first: u32) -> u32 {
        let mut numbers = NUMBERS.lock();
        let next = numbers.take(first);
        numbers.now.retain(|(heap, _)| *heap != id);
        numbers.now.push((id, next));
        next
    }

    /// Whether it is the number of a heap other than the one that has `own`. O(heaps), with a lock.
    pub(crate) fn is_anothers(number: u32, own: u32) -> bool {
        number != own
            && !sabotage::is_on(Fault::ForeignWriterRead)
            && (NUMBERS.lock().now.iter()).any(|(_, now)| *now == number)
    }

    /// The next number that is given out is the one after `number`.
    #[cfg(any(fuzzing, feature = "internals"))]
    pub(crate) fn count_from(number: u32) {
        NUMBERS.lock().last = number;
    }

    /// Whether the list has more than one. Written under its lock.
    static SEVERAL: AtomicBool = AtomicBool::new(false);

    /// Whether the process has more than one heap. Under a registry's lock: see the module's head.
    pub(crate) fn are_several() -> bool {
        // Relaxed: the registry's lock orders it against `tell_all`.
        SEVERAL.load(Ordering::Relaxed)
    }

    /// The heap has been made, and nobody uses it yet.
    pub(crate) fn enlist(collector: &Arc<Collector>) {
        let number = next_number(collector.id, 0, 1);
        collector.world.set_first_cycle(number);
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
        NUMBERS.lock().now.retain(|(heap, _)| *heap != id);
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
    pub(crate) fn next_number(_: usize, before: u32, first: u32) -> u32 {
        before.wrapping_add(1).max(first)
    }
    pub(crate) fn is_anothers(_: u32, _: u32) -> bool {
        false
    }
    #[cfg(any(fuzzing, feature = "internals"))]
    pub(crate) fn count_from(_: u32) {}
}
