//! A handle on a root slot: shared, read, and dropped on any thread [T2].

use std::ptr::NonNull;

use super::block::{ALL_RELEASED, BlockRef, FIRST, FREE, ONE_RELEASED, RootSlot};
use crate::sys::fatal::fatal;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::Ordering;

/// The most handles of one root, which take 8 GiB. Far below the width, as in `Arc`: threads that
/// pass it at the same time are caught, too.
pub(super) const REFS_MAX: u32 = (1 << 29) - 1;

/// A root slot in use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawRoot(pub(super) NonNull<RootSlot>);

// SAFETY: a slot is atomics; [T1] [T2].
unsafe impl Send for RawRoot {}
// SAFETY: as above.
unsafe impl Sync for RawRoot {}

impl RawRoot {
    pub(super) fn slot(&self) -> &RootSlot {
        // SAFETY: [T1] the slot is a root while this handle lives.
        unsafe { self.0.as_ref() }
    }

    /// The number of the heap that the root belongs to.
    #[inline]
    pub(crate) fn heap(&self) -> usize {
        // SAFETY: 1. a slot in use.
        unsafe { BlockRef::of(self.0) }.get().header.heap
    }

    /// The object's address.
    #[inline]
    pub(crate) fn target(&self) -> usize {
        // Acquire: pairs with the Release in `take`: the object is initialised.
        self.slot().target.load(Ordering::Acquire)
    }

    /// Another handle on the same slot.
    pub(crate) fn share(&self) -> Self {
        // Relaxed: this handle keeps the count above zero, as in `Arc`.
        let before = self.slot().refs.fetch_add(1, Ordering::Relaxed);
        if before >= REFS_MAX {
            too_many_handles();
        }
        Self(self.0)
    }

    /// Counts `handles` more, as if they had been made by [`share`](Self::share) and forgotten: for
    /// tests.
    #[cfg(any(fuzzing, feature = "internals", test))]
    pub(crate) fn forget_shares(&self, handles: u32) {
        // Relaxed: as in `share`.
        self.slot().refs.fetch_add(handles, Ordering::Relaxed);
    }

    /// One handle goes; true if it was the last, and the slot is to be freed or released.
    fn unshare(&self) -> bool {
        // Acquire: if we are the only handle, what the others did to the slot came before.
        if self.slot().refs.load(Ordering::Acquire) == 1 {
            return true;
        }
        // AcqRel: as in `Arc`: the last one sees what the others did.
        self.slot().refs.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Drops the handle on a thread whose mutator owns `stock`; returns the object's address if the
    /// root is gone. Callers but tests go by [`RootTable::free`](super::RootTable::free).
    pub(crate) fn free_into(self, stock: &mut Vec<NonNull<RootSlot>>) -> Option<usize> {
        if !self.unshare() {
            return None;
        }
        // Relaxed: the mutator's next stop orders it for the collector; a scan that runs now may
        // see either value, and the caller has shaded the target.
        let target = self.slot().target.swap(FREE, Ordering::Relaxed);
        stock.push(self.0);
        Some(target)
    }

    /// Drops the handle on any thread.
    pub(crate) fn release(self) {
        if !self.unshare() {
            return;
        }
        // SAFETY: 1. the slot is in use.
        let block = unsafe { BlockRef::of(self.0) };
        // The target stays: another handle's `get` may have just put it into some mutator's hands,
        // and the scan of this cycle may be still to come.
        if sabotage::is_on(Fault::RootReleasedAtOnce) {
            // Relaxed: as in `free_into`.
            self.slot().target.store(FREE, Ordering::Relaxed);
        }
        let me = block.number_of(self.0) as u64 + 1;
        let released = &block.get().header.released;
        // Relaxed: the compare-exchange looks again.
        let mut word = released.load(Ordering::Relaxed);
        let after = loop {
            // Relaxed: published by the exchange.
            self.slot()
                .next
                .store((word & FIRST) as u32, Ordering::Relaxed);
            let next = ((word & !FIRST) + ONE_RELEASED) | me;
            // AcqRel: releases the slot to whoever collects it; gathers the other releases for the
            // one that frees the block. [T1] Nothing of the block is touched after it. Relaxed on
            // failure: looked at again.
            match released.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break next,
                Err(now) => word = now,
            }
        };
        if after & !FIRST == ALL_RELEASED {
            block.free();
        }
    }
}

#[cold]
fn too_many_handles() -> ! {
    fatal("more than 536870911 handles (clones, most of them forgotten) of one Root or WeakRoot")
}
