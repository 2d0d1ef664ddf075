//! What a cycle leaves alive, if a part of it is known only after the sweep.
//!
//! **The problem.** Marking counts the bytes of the objects that it finds, but not what these own
//! outside the heap: `external_bytes` is user code, and a call for every live object would cost
//! more than marking. Only the sum over all objects is known, and what the sweep subtracts from it
//! when it drops the dead. So the live part is a guess at the end of marking, and a fact at the end
//! of the sweep. The plan is made from the guess, and corrected by the fact.
//!
//! **What was tried.** If the whole sum counts as live, the heap runs away: with a share `r` of
//! external bytes in a heap of garbage, the next goal is `r * (1 + GOGC / 100)` times this heap. At
//! GOGC 100 that grows without end from `r = 1/2` on. A program with 10 MB live, nine tenths of it
//! buffers, came to a goal of 2.7 GB.
//!
//! **The guess** is the share that survived the last cycle, which is a fact; before there was a
//! cycle, it is the share of the objects' own bytes that survived. External bytes that were added
//! while marking ran are live, as their objects are. The guess may be wrong whenever the program
//! changes what it does, so nothing but speed may depend on it:
//!
//! - If it is too low, the heap looks smaller than it is until the sweep has ended, and its goal is
//!   lower by more than that (the goal is `1 + GOGC / 100` times what is live). No cycle begins
//!   before the sweep has ended, and then both are corrected.
//! - If it is too high, the goal is too high until the sweep has ended. [`Remains::most`] bounds
//!   what is really held meanwhile, including dead objects and their buffers: a tenth above what
//!   was held when marking ended, or the new ceiling. A program that allocates faster than its dead
//!   objects are dropped waits there for the sweep.

/// What is held may grow by one part in this many while the sweep runs.
const GROWTH_PART: u64 = 10;

/// What is known when marking ends, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MarkEnd {
    /// The bytes of objects when marking began.
    pub(crate) objects_at_start: u64,
    /// The part of these that was marked.
    pub(crate) marked: u64,
    /// The bytes of objects that were allocated while marking ran.
    pub(crate) born: u64,
    /// The bytes outside the heap when marking began,
    pub(crate) external_at_start: u64,
    /// and now.
    pub(crate) external: u64,
}

/// What is live when marking ends, as far as it can be known, and what is dead and not yet freed.
/// In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    /// What is live, including external bytes.
    pub(crate) live: u64,
    /// The external bytes that the sweep is expected to free.
    pub(crate) dead_external: u64,
    /// The bytes of objects that the sweep will free.
    pub(crate) dead_objects: u64,
}

impl MarkEnd {
    /// Returns the external bytes that may belong to dead objects.
    fn old_external(&self) -> u64 {
        self.external.min(self.external_at_start)
    }

    /// Returns what is live, once the sweep has freed `freed` external bytes.
    pub(crate) fn live_after(&self, freed: u64) -> u64 {
        self.marked
            .saturating_add(self.born)
            .saturating_add(self.external.saturating_sub(freed))
    }
}

impl Remains {
    /// Returns everything that is held.
    pub(crate) fn held(&self) -> u64 {
        self.live
            .saturating_add(self.dead_external)
            .saturating_add(self.dead_objects)
    }

    /// Returns the most that should be held while the sweep runs. `ceiling` is that of the next
    /// cycle's plan; `limit` is what the memory limit allows for objects.
    pub(crate) fn most(&self, ceiling: u64, limit: u64) -> u64 {
        let held = self.held();
        let grown = held.saturating_add(held / GROWTH_PART).min(limit);
        grown.max(held).max(ceiling)
    }
}

/// The share of external bytes that survives a cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Survival {
    /// The share of the last cycle that had any, in `0.0 ..= 1.0`.
    last: Option<f64>,
}

impl Survival {
    /// Returns the best guess of what remains.
    pub(crate) fn expect(&self, end: &MarkEnd) -> Remains {
        let old = end.old_external();
        let by_objects = end.marked as f64 / end.objects_at_start.max(1) as f64;
        let share = self.last.unwrap_or(by_objects).clamp(0.0, 1.0);
        // The cast saturates.
        let survive = ((old as f64 * share) as u64).min(old);
        let dead_external = old - survive;
        Remains {
            live: end.live_after(dead_external),
            dead_external,
            dead_objects: end.objects_at_start.saturating_sub(end.marked),
        }
    }

    /// Records that the sweep after `end` has freed `freed` external bytes.
    pub(crate) fn note(&mut self, end: &MarkEnd, freed: u64) {
        let old = end.old_external();
        if old > 0 {
            self.last = Some(old.saturating_sub(freed) as f64 / old as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn half_dead() -> MarkEnd {
        MarkEnd {
            objects_at_start: 10 * MIB,
            marked: 5 * MIB,
            born: MIB,
            external_at_start: 40 * MIB,
            external: 44 * MIB,
        }
    }

    #[test]
    fn the_first_guess_goes_by_the_objects() {
        let remains = Survival::default().expect(&half_dead());
        // Half of the 40 MiB, and the 4 MiB that were added while marking ran.
        assert_eq!(remains.live, (5 + 1 + 20 + 4) * MIB);
        assert_eq!(remains.dead_external, 20 * MIB);
        assert_eq!(remains.dead_objects, 5 * MIB);
        assert_eq!(remains.held(), 55 * MIB);
    }

    #[test]
    fn later_guesses_go_by_what_the_sweep_freed() {
        let mut survival = Survival::default();
        let end = half_dead();
        survival.note(&end, 30 * MIB);
        let remains = survival.expect(&end);
        assert_eq!(remains.dead_external, 30 * MIB);
        assert_eq!(remains.live, end.live_after(30 * MIB));
        // There is nothing to learn from, and then more is freed than there was.
        survival.note(&MarkEnd::default(), 0);
        assert_eq!(survival.expect(&end), remains);
        survival.note(&end, 100 * MIB);
        assert_eq!(survival.expect(&end).live, 10 * MIB);
    }

    #[test]
    fn what_shrinks_while_marking_runs_is_not_taken_for_dead() {
        let end = MarkEnd {
            external: 10 * MIB,
            ..half_dead()
        };
        assert_eq!(Survival::default().expect(&end).dead_external, 5 * MIB);
        let none = MarkEnd {
            external: 0,
            ..half_dead()
        };
        assert_eq!(Survival::default().expect(&none).live, 6 * MIB);
    }

    #[test]
    fn what_is_held_has_a_bound_that_never_stands_in_the_way_of_the_plan() {
        let remains = Survival::default().expect(&half_dead());
        let tenth = 55 * MIB + 55 * MIB / 10;
        assert_eq!(remains.most(40 * MIB, u64::MAX), tenth);
        assert_eq!(remains.most(90 * MIB, u64::MAX), 90 * MIB);
        assert_eq!(remains.most(40 * MIB, 57 * MIB), 57 * MIB);
        assert_eq!(remains.most(40 * MIB, 50 * MIB), 55 * MIB, "what is there");
    }
}
