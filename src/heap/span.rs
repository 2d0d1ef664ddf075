//! A span: a run of pages that holds slots of one class, or one large object.
//!
//! The record of a span is at the index of its first page; the page map (in `mheap`) leads from any
//! page to it.
//!
//! The *sweep generation* says where a span stands in the cycle. The heap's own generation `g`
//! grows by 4 at each end of marking (after Go's `mspan.sweepgen`, which grows by 2):
//!
//! | span's generation | state | who may touch the allocation bits |
//! |---|---|---|
//! | 0 | free: no span here | – |
//! | g − 4 | unswept | the thread that claims it |
//! | g − 2 | being swept | the holder of [`SweepClaim`] |
//! | g | swept, in a central set or large | the holder of the central lock |
//! | g + 2 | cached since before this sweep (stale) | the mutator that caches it |
//! | g + 6 | cached | the mutator that caches it |
//!
//! The heap's generation is odd and has 64 bits, which no program uses up. A span stores its low 32
//! bits, which wrap after 2^30 cycles. All generations are odd, so no span is ever mistaken for a
//! free one. And a span never has an older generation than these, by [S3].
//!
//! **Invariants**
//! - `[S1]` Only this file writes a sweep generation.
//! - `[S2]` At most one thread holds a [`SweepClaim`] on a span. While it does, the span's bits and
//!   record belong to it.
//! - `[S3]` When the heap's generation changes, every span is swept or cached, because the sweep of
//!   the last cycle has ended.

use crate::sys::mem::ZeroValid;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU32, Ordering};

/// The heap's sweep generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeapGen(pub(crate) u64);

/// The difference between one generation and the next.
const STEP: u64 = 4;
/// The difference of a span's generation from the heap's, in each state.
const UNSWEPT: i32 = -4;
const SWEEPING: i32 = -2;
const SWEPT: i32 = 0;
const STALE: i32 = 2;
const CACHED: i32 = 6;
/// The generation where there is no span; those of spans are odd.
const FREE: u32 = 0;

impl HeapGen {
    pub(crate) const FIRST: Self = Self(STEP + 1);

    /// Returns the generation of the next cycle.
    pub(crate) fn next(self) -> Self {
        let next = self.0 + STEP;
        if sabotage::is_on(Fault::GenerationBeginsAnew) && next >> 32 != self.0 >> 32 {
            return Self::FIRST;
        }
        Self(next)
    }

    /// Returns the generation of a span in this state.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the low half is what a span has"
    )]
    fn of_span(self, state: i32) -> u32 {
        (self.0 as u32).wrapping_add_signed(state)
    }
}

/// Who holds a span when it is born.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A mutator caches it.
    Mutator,
    /// Nobody does: it is large, or goes to a central set.
    Nobody,
}

/// The state of a span; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SweepState {
    Free,
    Unswept,
    Sweeping,
    Swept,
    CachedStale,
    Cached,
    /// A generation that no span may have: the heap is broken.
    Impossible,
}

impl SweepState {
    /// Whether every object in the span was allocated before marking ended, and the span waits for
    /// its sweep.
    pub(crate) fn awaits_sweep(self) -> bool {
        matches!(self, Self::Unswept | Self::CachedStale)
    }
}

/// The sweep generation of one span.
#[derive(Debug)]
#[cfg_attr(any(test, loom, shuttle), derive(Default))]
pub(crate) struct SweepGen(AtomicU32);

impl SweepGen {
    #[cfg(any(test, loom))]
    pub(crate) fn unswept(heap: HeapGen) -> Self {
        Self(AtomicU32::new(heap.of_span(UNSWEPT)))
    }

    pub(crate) fn state(&self, heap: HeapGen) -> SweepState {
        // Acquire: pairs with the Release in `finish_sweep`, `cache` and `uncache`, and so sees
        // what they wrote.
        let span = self.0.load(Ordering::Acquire);
        if span == FREE {
            return SweepState::Free;
        }
        match span.wrapping_sub(heap.of_span(SWEPT)).cast_signed() {
            UNSWEPT => SweepState::Unswept,
            SWEEPING => SweepState::Sweeping,
            SWEPT => SweepState::Swept,
            STALE => SweepState::CachedStale,
            CACHED => SweepState::Cached,
            _ => SweepState::Impossible,
        }
    }

    /// Claims an unswept span for sweeping.
    pub(crate) fn try_claim(&self, heap: HeapGen) -> Option<SweepClaim<'_>> {
        if sabotage::is_on(Fault::ClaimNotExclusive) {
            let unswept = self.state(heap) == SweepState::Unswept;
            return unswept.then_some(SweepClaim { span: self, heap });
        }
        // AcqRel: sees the bits as the last owner left them (Release in `uncache`), and orders our
        // reads after the claim. Acquire on failure, too: a thread that finds the span claimed goes
        // on to wait for the sweeps of mutators, and has to see that the claimer is counted
        // (`MHeap::begin_sweeping`); with Relaxed `loom_refill_against_background_sweep` fails.
        self.0
            .compare_exchange(
                heap.of_span(UNSWEPT),
                heap.of_span(SWEEPING),
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .is_ok()
            .then_some(SweepClaim { span: self, heap })
    }

    /// Makes a new span, which is born swept.
    pub(crate) fn birth(&self, heap: HeapGen, holder: Holder) {
        let state = heap.of_span(match holder {
            Holder::Mutator => CACHED,
            Holder::Nobody => SWEPT,
        });
        // Release: publishes the record; pairs with the Acquire in `state`.
        self.0.store(state, Ordering::Release);
    }

    /// Swept -> cached, by the mutator that took the span from its central set.
    pub(crate) fn cache(&self, heap: HeapGen) {
        let cached = sabotage::pick(Fault::SweptWhileCached, UNSWEPT, CACHED);
        // Release: as in `birth`.
        self.0.store(heap.of_span(cached), Ordering::Release);
    }

    /// Cached -> swept, or stale -> unswept. Returns the old state. The mutator that caches the
    /// span calls this, or another thread while it holds that mutator.
    pub(crate) fn uncache(&self, heap: HeapGen) -> SweepState {
        let state = self.state(heap);
        let next = if state == SweepState::CachedStale {
            UNSWEPT
        } else {
            SWEPT
        };
        // Release: publishes the allocation bits; pairs with the Acquire in `try_claim` and
        // `state`.
        self.0.store(heap.of_span(next), Ordering::Release);
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
    /// Ends the sweep: the span is swept.
    pub(crate) fn finish_sweep(self) {
        // Release: publishes the new allocation bits; pairs with the Acquire in `state` and
        // `cache`'s caller.
        self.span
            .0
            .store(self.heap.of_span(SWEPT), Ordering::Release);
    }

    /// Ends the sweep: the span is swept, and goes straight to the caller's mcache.
    pub(crate) fn finish_cached(self) {
        // Release: as in `finish_sweep`.
        self.span
            .0
            .store(self.heap.of_span(CACHED), Ordering::Release);
    }

    /// Ends the sweep: nothing in the span is live, and there is no span here any more.
    pub(crate) fn finish_free(self) {
        // Release: as in `finish_sweep`.
        self.span.0.store(FREE, Ordering::Release);
    }
}

/// The record of a span, at the index of its first page. It is all zero if there is no span.
#[derive(Debug)]
#[cfg_attr(any(loom, shuttle), derive(Default))]
#[repr(C)]
pub(crate) struct Span {
    pub(crate) sweep_gen: SweepGen,
    /// The pages of the span. Written at birth.
    pub(crate) pages: AtomicU32,
    /// The bytes from the span's start to a large object. Written at birth.
    pub(crate) object_at: AtomicU32,
    /// 1 if every slot is allocated, whatever the allocation bits say. Written by the span's owner.
    pub(crate) all_allocated: AtomicU32,
}

// SAFETY: 1. zero is a valid value of each field. 2. there is nothing to drop. 3. the alignment is
// 4.
unsafe impl ZeroValid for Span {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn generations_name_the_states() {
        let g = HeapGen(13);
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
        assert_eq!(s.state(HeapGen(101)), SweepState::Impossible);
    }

    /// Where the 32 bits of a span start again, the table holds as elsewhere, and no span looks
    /// free.
    #[test]
    fn generations_of_spans_wrap() {
        let mut g = HeapGen((1 << 32) - 15);
        let (swept, cached) = (SweepGen::default(), SweepGen::default());
        swept.birth(g, Holder::Nobody);
        cached.birth(g, Holder::Mutator);
        while g.0 < (1 << 32) + 16 {
            assert_eq!(SweepGen::default().state(g), SweepState::Free, "{g:?}");
            assert_eq!(swept.state(g), SweepState::Swept, "{g:?}");
            assert_eq!(cached.state(g), SweepState::Cached, "{g:?}");
            g = g.next();
            assert_eq!(swept.state(g), SweepState::Unswept, "{g:?}");
            assert_eq!(cached.state(g), SweepState::CachedStale, "{g:?}");
            assert!(SweepGen::default().try_claim(g).is_none(), "{g:?}");
            swept.try_claim(g).expect("unswept").finish_sweep();
            assert_eq!(cached.uncache(g), SweepState::CachedStale);
            cached.try_claim(g).expect("unswept").finish_cached();
        }
    }
}

// `heap::models` models the sweep of real spans.
#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::sys::model::{Plain, explore};

    const NOW: HeapGen = HeapGen(13);

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
                span.0.store(NOW.of_span(SWEEPING), Ordering::Release);
                SweepClaim { span, heap: NOW }
            })
        });
    }
}
