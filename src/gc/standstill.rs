//! Who may be in the middle of a write while somebody walks over the heap.
//!
//! Stops for the verifier and for the end of marking do not bring everybody to a safepoint. A mutator that waits inside an
//! allocation (Assisting), one that waits for its turn to verify (Looking), and the one whose thread verifies stand in
//! user code: they may hold `Gc`s, write guards and open frames, and be inside a method of the container behind them (a hash
//! table that is half moved, whose keys' `Hash` has called us). What they write is behind a `&mut`, so not even a walk that
//! only reads may look at it.
//!
//! So a walk that is no marker takes a [`Standstill`], which is made from the registry of a stopped world, and asks it:
//! - a lock that is held for writing in this cycle is not read ([`locks`](Standstill::locks));
//! - a frame that was opened since its opener's last safepoint is not read ([`may_be_open`](Standstill::may_be_open)). A
//!   guard of a frame has no drop, so that the borrow checker may end it early; a frame that was closed again therefore counts
//!   as open until its opener's next safepoint that stops or blocks.
//!
//! When everybody is at a safepoint nothing of this heap's is left out: a guard that says otherwise was forgotten. But a stop
//! of this heap does not stop another one's mutators, one of which may be writing to a lock outside the arena;
//! `lock_word.rs` is about that.
//!
//! Markers need none of this. They go by the scan of a frame before it is opened, and by the log of a lock; both hold
//! whatever the mutator is doing.
//!
//! What is left out is counted. Nothing else becomes a false report: a walk that does not see an edge demands less.

use crate::gc::stopped::StoppedToRead;
use crate::gc::world::World;
use crate::object::trace::LockView;
use crate::sys::sabotage::{self, Fault};

/// A stretch of a mutator's life between two safepoints: its number, and how many stretches came before. 0: none.
pub(crate) type Section = u64;

/// The first section of the mutator of that number.
pub(crate) fn first_section(mutator: u32) -> Section {
    Section::from(mutator) << 32
}

/// The section after `section`.
pub(crate) fn next_section(section: Section) -> Section {
    section & !Section::from(u32::MAX) | Section::from((section as u32).wrapping_add(1))
}

/// See the module's head. Good for the stop in which it was made.
#[derive(Debug)]
pub(crate) struct Standstill {
    cycle: u32,
    /// The sections in which mutators stand that are not at a safepoint.
    sections: Vec<Section>,
}

impl Standstill {
    /// Who of `world` may be in the middle of a write, though everybody is stopped.
    pub(crate) fn of(world: &World, _stopped: &StoppedToRead<'_>) -> Self {
        let cycle = world.phase().cycle;
        let registry = world.registry();
        let busy = registry.iter().filter(|m| !m.word.is_at_safepoint());
        Self {
            cycle,
            sections: busy.map(|m| m.local.section.get()).collect(),
        }
    }

    /// Everybody is at a safepoint.
    #[cfg(test)]
    pub(crate) fn complete() -> Self {
        Self {
            cycle: 0,
            sections: Vec::new(),
        }
    }

    /// How the walk treats locks.
    pub(crate) fn locks(&self) -> LockView {
        LockView::Stopped {
            cycle: self.cycle,
            busy: !self.sections.is_empty() && !sabotage::is_on(Fault::WrittenLockRead),
        }
    }

    /// Whether a frame that was last opened in `section` may be open.
    pub(crate) fn may_be_open(&self, section: Section) -> bool {
        self.sections.contains(&section) && !sabotage::is_on(Fault::OpenFrameRead)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn sections_of_a_mutator_come_one_after_another_and_stay_its_own() {
        let first = first_section(7);
        let second = next_section(first);
        assert_ne!(first, second);
        assert_eq!(next_section(first | 0xffff_ffff), first, "they wrap within");
        assert_ne!(next_section(first), next_section(first_section(8)));
        assert_ne!(first_section(1), 0);
    }

    #[test]
    fn a_frame_is_closed_when_nobody_stands_where_it_was_opened() {
        let standstill = Standstill {
            cycle: 3,
            sections: vec![first_section(1), first_section(2)],
        };
        assert!(standstill.may_be_open(first_section(2)));
        assert!(!standstill.may_be_open(next_section(first_section(2))));
        assert!(!standstill.may_be_open(0), "never opened");
        let locks = |cycle, busy| LockView::Stopped { cycle, busy };
        assert_eq!(standstill.locks(), locks(3, true));
        assert_eq!(Standstill::complete().locks(), locks(0, false));
    }
}
