//! What the write barrier has to do for a mutator: one byte, which the fast half looks at.

use std::sync::atomic::{AtomicU8 as StdAtomicU8, Ordering};

/// The collector marks: what an edge loses is shaded.
const MARKS: u8 = 1;
/// The process has several heaps: what is changed, and what it is changed to, must be this heap's.
const CHECKS: u8 = 2;

/// Reasons for the slow half of the write barrier; mostly there is none.
///
/// An atomic of the standard library also in models: [`MARKS`] is written where the mutator is held,
/// so an interleaving of it with anything is one of the word or lock that holds it, and models have
/// one heap.
#[derive(Debug)]
pub(crate) struct Duty(StdAtomicU8);

impl Duty {
    pub(crate) const fn none() -> Self {
        Self(StdAtomicU8::new(0))
    }

    /// Whether there is a reason: the one look of the fast half.
    #[inline(always)]
    pub(crate) fn is_any(&self) -> bool {
        // Relaxed: whoever wrote it did so before this thread could need it; see the writers.
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Whether marking runs, for this mutator.
    #[inline(always)]
    pub(crate) fn marks(&self) -> bool {
        // Relaxed: as above.
        self.0.load(Ordering::Relaxed) & MARKS != 0
    }

    /// Whether there may be objects of other heaps.
    #[inline(always)]
    pub(crate) fn checks(&self) -> bool {
        // Relaxed: as above.
        self.0.load(Ordering::Relaxed) & CHECKS != 0
    }

    /// Marking begins or ends for this mutator, which is stopped, or not yet registered.
    pub(crate) fn set_marks(&self, marks: bool) {
        // Ordered by the state word, which holds the mutator.
        self.set(MARKS, marks);
    }

    /// There are several heaps from now on, or one. Under the registry's lock; the mutator may run.
    pub(crate) fn set_checks(&self, checks: bool) {
        // Ordered by whatever brings a pointer of the second heap here: `gc/heaps.rs`.
        self.set(CHECKS, checks);
    }

    fn set(&self, reason: u8, holds: bool) {
        // Relaxed (both): see the callers. One step, so that neither writer undoes the other's.
        if holds {
            self.0.fetch_or(reason, Ordering::Relaxed);
        } else {
            self.0.fetch_and(!reason, Ordering::Relaxed);
        }
    }
}
