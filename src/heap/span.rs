//! A span: a run of pages that holds slots of one class, or one large object.
//!
//! The record of a span is at the index of its first page; `page map` (in `mheap`) leads from any page to it.
//!
//! The *sweep generation* says where a span stands in the cycle. The heap's own generation `g` grows by 2 at each end
//! of marking (after Go's `mspan.sweepgen`):
//!
//! | span's generation | state | who may touch the allocation bits |
//! |---|---|---|
//! | 0 | free: no span here | – |
//! | g − 2 | unswept | whoever claims it |
//! | g − 1 | being swept | the holder of [`SweepClaim`] |
//! | g | swept, in a central set or large | the central lock |
//! | g + 1 | cached since before this sweep (stale) | the mutator that caches it |
//! | g + 3 | cached | the mutator that caches it |
//!
//! **Invariants**
//! - `[S1]` Only this file writes a sweep generation.
//! - `[S2]` At most one thread holds a [`SweepClaim`] on a span; while it does, the span's bits and record are its own.

use crate::sys::mem::ZeroValid;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU32, Ordering};

/// The heap's sweep generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeapGen(pub(crate) u32);

impl HeapGen {
    /// The first one: far enough from 0, which means "free".
    pub(crate) const FIRST: Self = Self(4);

    /// The next cycle's; skips what a free span's 0 could be mistaken for.
    pub(crate) fn next(self) -> Self {
        let next = self.0.wrapping_add(2);
        if !(Self::FIRST.0..=u32::MAX - 4).contains(&next) {
            Self::FIRST
        } else {
            Self(next)
        }
    }
}

/// Where a span stands; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SweepState {
    Free,
    Unswept,
    Sweeping,
    Swept,
    CachedStale,
    Cached,
    /// None of the generations a span may have: a broken heap.
    Impossible,
}

impl SweepState {
    /// Whether every object in the span was allocated before marking ended, and the span waits for its sweep.
    pub(crate) fn awaits_sweep(self) -> bool {
        matches!(self, Self::Unswept | Self::CachedStale)
    }
}

/// The sweep generation of one span.
#[derive(Debug)]
#[cfg_attr(any(loom, shuttle), derive(Default))]
pub(crate) struct SweepGen(AtomicU32);

impl SweepGen {
    #[cfg(any(test, loom))]
    pub(crate) fn unswept(heap: HeapGen) -> Self {
        Self(AtomicU32::new(heap.0 - 2))
    }

    pub(crate) fn state(&self, heap: HeapGen) -> SweepState {
        // Acquire: pairs with the Release in `finish_sweep`, `cache` and `uncache`: what they wrote is seen.
        let span = self.0.load(Ordering::Acquire);
        if span == 0 {
            return SweepState::Free;
        }
        match span.wrapping_sub(heap.0).cast_signed() {
            -2 => SweepState::Unswept,
            -1 => SweepState::Sweeping,
            0 => SweepState::Swept,
            1 => SweepState::CachedStale,
            3 => SweepState::Cached,
            _ => SweepState::Impossible,
        }
    }

    /// Claims an unswept span for sweeping.
    pub(crate) fn try_claim(&self, heap: HeapGen) -> Option<SweepClaim<'_>> {
        if sabotage::is_on(Fault::ClaimNotExclusive) {
            let unswept = self.state(heap) == SweepState::Unswept;
            return unswept.then_some(SweepClaim { span: self, heap });
        }
        // AcqRel: sees the bits as the last owner left them (Release in `uncache`), and orders our reads after the
        // claim. Relaxed on failure: nothing is read then.
        self.0
            .compare_exchange(heap.0 - 2, heap.0 - 1, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
            .then_some(SweepClaim { span: self, heap })
    }

    /// A new span, born swept and cached by its maker.
    pub(crate) fn birth(&self, heap: HeapGen, cached: bool) {
        let state = if cached { heap.0 + 3 } else { heap.0 };
        // Release: publishes the record; pairs with the Acquire in `state`.
        self.0.store(state, Ordering::Release);
    }

    /// Swept -> cached, by the mutator that took the span from its central set.
    pub(crate) fn cache(&self, heap: HeapGen) {
        let cached = sabotage::pick(Fault::SweptWhileCached, heap.0 - 2, heap.0 + 3);
        // Release: as in `birth`.
        self.0.store(cached, Ordering::Release);
    }

    /// Cached -> swept, or stale -> unswept; says which. By the mutator that caches it (or for it, while it is held).
    pub(crate) fn uncache(&self, heap: HeapGen) -> SweepState {
        let state = self.state(heap);
        let next = if state == SweepState::CachedStale {
            heap.0 - 2
        } else {
            heap.0
        };
        // Release: publishes the allocation bits; pairs with the Acquire in `try_claim` and `state`.
        self.0.store(next, Ordering::Release);
        state
    }
}

/// The right to sweep one span.
#[must_use = "a claimed span stays unswept for everybody until it is finished or freed"]
#[derive(Debug)]
pub(crate) struct SweepClaim<'s> {
    span: &'s SweepGen,
    heap: HeapGen,
}

impl SweepClaim<'_> {
    /// The span is swept.
    pub(crate) fn finish_sweep(self) {
        // Release: publishes the new allocation bits; pairs with the Acquire in `state` and `cache`'s caller.
        self.span.0.store(self.heap.0, Ordering::Release);
    }

    /// The span is swept and goes straight to the caller's mcache.
    pub(crate) fn finish_cached(self) {
        // Release: as in `finish_sweep`.
        self.span.0.store(self.heap.0 + 3, Ordering::Release);
    }

    /// Nothing in the span lives: there is no span here any more.
    pub(crate) fn finish_free(self) {
        // Release: as in `finish_sweep`.
        self.span.0.store(0, Ordering::Release);
    }
}

/// The record of a span, at the index of its first page. All zero when there is none.
#[derive(Debug)]
#[cfg_attr(any(loom, shuttle), derive(Default))]
#[repr(C)]
pub(crate) struct Span {
    pub(crate) sweep_gen: SweepGen,
    /// Pages of the span. Written at birth.
    pub(crate) pages: AtomicU32,
    /// For a large object: bytes from the span's start to the object. Written at birth.
    pub(crate) object_at: AtomicU32,
    /// 1 when every slot is allocated whatever the allocation bits say. Written by the span's owner.
    pub(crate) all_allocated: AtomicU32,
}

// SAFETY: 1. zero is a valid value of each field. 2. nothing to drop. 3. aligned to 4.
unsafe impl ZeroValid for Span {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn generations_name_the_states() {
        let g = HeapGen(10);
        let s = SweepGen::unswept(g);
        assert_eq!(s.state(g), SweepState::Unswept);
        let claim = s.try_claim(g).expect("nobody else claims");
        assert_eq!(s.state(g), SweepState::Sweeping);
        assert!(s.try_claim(g).is_none());
        claim.finish_sweep();
        assert_eq!(s.state(g), SweepState::Swept);
        s.cache(g);
        assert_eq!(s.state(g), SweepState::Cached);
        assert_eq!(s.state(g.next()), SweepState::CachedStale);
        assert_eq!(s.uncache(g.next()), SweepState::CachedStale);
        assert_eq!(s.state(g.next()), SweepState::Unswept);
        assert_eq!(s.state(HeapGen(100)), SweepState::Impossible);
    }

    #[test]
    fn generations_wrap_past_free() {
        let mut g = HeapGen(u32::MAX - 9);
        for _ in 0..10 {
            g = g.next();
            assert!(
                g.0 >= 4 && g.0 < u32::MAX - 3 && g.0.is_multiple_of(2),
                "{g:?}"
            );
        }
    }
}

// The sweep of real spans is modelled in `heap::models`.
#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::sys::model::{Plain, explore};

    const NOW: HeapGen = HeapGen(10);

    /// Two sweepers; the span's bits are plain. Returns whether each one swept.
    fn two_sweepers(claim: fn(&SweepGen) -> Option<SweepClaim<'_>>) {
        explore(3, move |order| {
            let span = Arc::new((SweepGen::unswept(NOW), Plain::new(0)));
            let (here, there) = (span.clone(), span.clone());
            let sweep = move |(span, bits): &(SweepGen, Plain<u32>)| {
                let claim = claim(span)?;
                bits.set(bits.get() + 1);
                claim.finish_sweep();
                Some(())
            };
            let (a, b) = order.race(move || sweep(&here), move || sweep(&there));
            assert!(a.is_some() ^ b.is_some(), "exactly one thread sweeps");
            assert_eq!(span.0.state(NOW), SweepState::Swept);
            assert_eq!(span.1.get(), 1);
        });
    }

    #[test]
    fn loom_one_sweeper_claims_a_span() {
        two_sweepers(|span| span.try_claim(NOW));
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_claim_that_looks_and_stores_fails() {
        two_sweepers(|span| {
            (span.state(NOW) == SweepState::Unswept).then(|| {
                // Release: as in `finish_sweep`.
                span.0.store(NOW.0 - 1, Ordering::Release);
                SweepClaim { span, heap: NOW }
            })
        });
    }
}
