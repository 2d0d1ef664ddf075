//! What the write barrier has to do for a mutator: one byte, which the fast half looks at.

use std::sync::atomic::{AtomicU8 as StdAtomicU8, Ordering};

/// The collector marks: what an edge loses is shaded.
const MARKS: u8 = 1;

/// Reasons for the slow half of the write barrier; mostly there is none.
///
/// An atomic of the standard library also in models: it is written where the mutator is held, or by
/// itself, so an interleaving of it with anything is one of the lock or word that holds it.
#[derive(Debug)]
pub(crate) struct Duty(StdAtomicU8);

impl Duty {
    pub(crate) const fn none() -> Self {
        Self(StdAtomicU8::new(0))
    }

    /// Whether there is a reason: the one look of the fast half.
    #[inline(always)]
    pub(crate) fn is_any(&self) -> bool {
        // Relaxed: by the mutator itself; see the writers.
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Whether marking runs, for this mutator.
    #[inline(always)]
    pub(crate) fn marks(&self) -> bool {
        // Relaxed: as above.
        self.0.load(Ordering::Relaxed) & MARKS != 0
    }

    /// Marking begins or ends for this mutator, which is stopped, or not yet registered.
    pub(crate) fn set_marks(&self, marks: bool) {
        self.set(MARKS, marks);
    }

    fn set(&self, reason: u8, holds: bool) {
        // Relaxed (both): the state word orders what is written in a stop.
        if holds {
            self.0.fetch_or(reason, Ordering::Relaxed);
        } else {
            self.0.fetch_and(!reason, Ordering::Relaxed);
        }
    }
}
