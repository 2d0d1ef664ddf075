//! How much free memory to keep, how much to give back to the system, and how fast.
//!
//! There are two bounds, and each may require a release (Go runtime, `mgcscavenge.go`):
//!
//! - by growth: what the heap used last, scaled by how its goal has changed, plus a tenth. Before
//!   the first cycle there is no such bound.
//! - by limit: 95 % of the memory limit.
//!
//! The background scavenger uses at most 1 % of the processors' time. It works for about a
//! millisecond, and then sleeps for a time that a controller chooses (`pi.rs`). An allocation that
//! has to map memory releases at once what the bounds require.

use crate::pace::heap_goal::clamp_u64;
use crate::pace::pi::PiController;

/// What is kept in addition to what the heap will use, in percent.
const RETAIN_EXTRA_PERCENT: u128 = 10;
/// The part of the memory limit that the background scavenger aims at, in percent.
const LIMIT_PERCENT: u128 = 95;
/// The bytes to release between two readings of the clock.
pub(crate) const QUANTUM: u64 = 64 << 10;
/// The shortest time that a batch counts as, in nanoseconds, because a shorter sleep would not be
/// exact.
pub(crate) const BATCH_NS: u64 = 1_000_000;
/// The time that releasing one page of the system counts as if the clock says 0, in nanoseconds.
const NS_PER_OS_PAGE: u64 = 10_000;
/// The share of processor time that releasing may take.
const CPU_SHARE: f64 = 0.01;
/// The ratio of time worked to time slept, at first and after the controller has failed.
const CAREFUL_RATIO: f64 = 0.001;
/// How long the ratio then stays the same, in nanoseconds.
const COOLDOWN_NS: u64 = 5_000_000_000;

/// What the bounds are computed from, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScavengeInput {
    /// The goal of the next cycle.
    pub(crate) heap_goal: u64,
    /// The goal of the last cycle; 0 before the first.
    pub(crate) last_heap_goal: u64,
    /// The memory of objects in use when the last cycle ended.
    pub(crate) last_in_use: u64,
    /// The memory of the heap that the system backs, free or in use.
    pub(crate) retained: u64,
    /// The same, with everything that counts against the limit.
    pub(crate) mapped: u64,
    /// The memory limit; `u64::MAX` means none.
    pub(crate) limit: u64,
    /// The size of the system's page; 0 counts as 1.
    pub(crate) os_page: u64,
}

/// The bounds on what the heap keeps, in bytes; `u64::MAX` if there is nothing to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetainGoals {
    /// The bound on the memory of the heap.
    pub(crate) by_growth: u64,
    /// The bound on everything that counts against the limit.
    pub(crate) by_limit: u64,
}

impl RetainGoals {
    /// Returns the bounds until the next cycle.
    pub(crate) fn new(input: &ScavengeInput) -> Self {
        let by_limit = clamp_u64(u128::from(input.limit) * LIMIT_PERCENT / 100);
        let no_limit = input.limit == u64::MAX || input.mapped <= by_limit;
        Self {
            by_growth: retain_by_growth(input),
            by_limit: if no_limit { u64::MAX } else { by_limit },
        }
    }

    /// Whether the background scavenger has nothing to do.
    pub(crate) fn are_met(&self, retained: u64, mapped: u64) -> bool {
        retained <= self.by_growth && mapped <= self.by_limit
    }

    /// Returns the bytes to release before the heap grows by `growth` bytes: not more than that,
    /// and not more than the heap is over its bound.
    #[cfg(test)]
    pub(crate) fn before_growth(&self, growth: u64, retained: u64) -> u64 {
        let after = retained.saturating_add(growth);
        after.saturating_sub(self.by_growth).min(growth)
    }
}

fn retain_by_growth(input: &ScavengeInput) -> u64 {
    if input.last_heap_goal == 0 {
        return u64::MAX;
    }
    let moved = input.heap_goal as f64 / input.last_heap_goal as f64;
    // The cast saturates.
    let expected = (input.last_in_use as f64 * moved) as u64;
    let kept = u128::from(expected) * (100 + RETAIN_EXTRA_PERCENT) / 100;
    let page = u128::from(input.os_page.max(1));
    let kept = clamp_u64(kept.div_ceil(page) * page);
    // One page more or less is not worth a wake-up.
    if input.retained.saturating_sub(kept) < input.os_page.max(1) {
        return u64::MAX;
    }
    kept
}

/// Returns the bytes to release before `wanted` more bytes are backed, so that `mapped` stays
/// within the limit.
pub(crate) fn before_mapping(wanted: u64, mapped: u64, limit: u64) -> u64 {
    mapped.saturating_add(wanted).saturating_sub(limit)
}

/// Returns the time that a release of `bytes` counts as, if the clock says that it took `ns`.
pub(crate) fn time_worked(bytes: u64, ns: u64, os_page: u64) -> u64 {
    if ns != 0 {
        return ns;
    }
    (bytes / os_page.max(1)).saturating_mul(NS_PER_OS_PAGE)
}

/// Decides how long to sleep between batches.
#[derive(Clone, Debug)]
pub(crate) struct ScavengePace {
    /// The ratio of time worked to time slept.
    ratio: f64,
    controller: PiController,
    /// For how many more nanoseconds the controller is not asked.
    cooldown: u64,
}

impl Default for ScavengePace {
    fn default() -> Self {
        Self {
            ratio: CAREFUL_RATIO,
            controller: PiController::new(0.3375, 3.2e6, 1e9, 0.001, 1000.0),
            cooldown: 0,
        }
    }
}

impl ScavengePace {
    /// Returns how many nanoseconds to sleep after a batch that took `worked` nanoseconds.
    pub(crate) fn sleep_ns(&self, worked: u64) -> u64 {
        // The cast saturates.
        (worked.max(BATCH_NS) as f64 / self.ratio) as u64
    }

    /// Learns from a batch of `worked` nanoseconds and the sleep after it, on `processors` (0
    /// counts as 1).
    pub(crate) fn slept(&mut self, worked: u64, slept: u64, processors: u32) {
        let worked = worked.max(BATCH_NS);
        let period = worked.saturating_add(slept);
        if self.cooldown > 0 {
            self.cooldown = self.cooldown.saturating_sub(period);
            return;
        }
        let share = worked as f64 / (period as f64 * f64::from(processors.max(1)));
        match self.controller.next(share, CPU_SHARE, period as f64) {
            Some(ratio) => self.ratio = ratio,
            None => {
                self.ratio = CAREFUL_RATIO;
                self.cooldown = COOLDOWN_NS;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const OS_PAGE: u64 = 4096;

    const INPUT: ScavengeInput = ScavengeInput {
        heap_goal: 100 * MIB,
        last_heap_goal: 100 * MIB,
        last_in_use: 100 * MIB,
        retained: 200 * MIB,
        mapped: 220 * MIB,
        limit: u64::MAX,
        os_page: OS_PAGE,
    };

    #[test]
    fn a_tenth_more_than_the_heap_will_use_is_kept() {
        let goals = RetainGoals::new(&INPUT);
        assert_eq!(goals.by_growth, 110 * MIB);
        assert_eq!(goals.by_limit, u64::MAX);
        let shrinking = ScavengeInput {
            heap_goal: 50 * MIB,
            ..INPUT
        };
        assert_eq!(RetainGoals::new(&shrinking).by_growth, 55 * MIB);
        let first = ScavengeInput {
            last_heap_goal: 0,
            ..INPUT
        };
        assert_eq!(RetainGoals::new(&first).by_growth, u64::MAX);
        let close = ScavengeInput {
            retained: 110 * MIB + OS_PAGE - 1,
            ..INPUT
        };
        assert_eq!(RetainGoals::new(&close).by_growth, u64::MAX);
    }

    #[test]
    fn the_limit_is_kept_with_a_margin() {
        let goals = RetainGoals::new(&ScavengeInput {
            limit: 200 * MIB,
            ..INPUT
        });
        assert_eq!(goals.by_limit, 190 * MIB);
        assert!(!goals.are_met(100 * MIB, 191 * MIB));
        assert!(goals.are_met(100 * MIB, 190 * MIB));
        assert!(!goals.are_met(111 * MIB, 0));
        let far = RetainGoals::new(&ScavengeInput {
            limit: 400 * MIB,
            ..INPUT
        });
        assert_eq!(far.by_limit, u64::MAX);
    }

    #[test]
    fn an_allocation_releases_what_it_is_over() {
        assert_eq!(before_mapping(4 * MIB, 98 * MIB, 100 * MIB), 2 * MIB);
        assert_eq!(before_mapping(4 * MIB, 90 * MIB, 100 * MIB), 0);
        assert_eq!(before_mapping(u64::MAX, u64::MAX, u64::MAX), 0);
        let goals = RetainGoals::new(&INPUT);
        assert_eq!(goals.before_growth(4 * MIB, 100 * MIB), 0);
        assert_eq!(goals.before_growth(4 * MIB, 108 * MIB), 2 * MIB);
        assert_eq!(goals.before_growth(4 * MIB, 150 * MIB), 4 * MIB);
    }

    /// A scavenger over memory that takes 10 microseconds for each 4 KiB.
    #[derive(Default)]
    struct Script {
        pace: ScavengePace,
        available: u64,
        stop_at: u64,
        released: u64,
        worked: u64,
        slept: u64,
    }

    impl Script {
        fn release(&mut self) -> (u64, u64) {
            let bytes = QUANTUM.min(self.available);
            self.available -= bytes;
            (bytes, bytes.div_ceil(OS_PAGE) * NS_PER_OS_PAGE)
        }

        /// Works through one batch. Returns the bytes released and the time worked.
        fn batch(&mut self) -> (u64, u64) {
            let (mut released, mut worked) = (0, 0);
            while worked < BATCH_NS && self.available > self.stop_at {
                let (bytes, ns) = self.release();
                released += bytes;
                worked += time_worked(bytes, ns, OS_PAGE);
                if bytes < QUANTUM {
                    break;
                }
            }
            (released, worked)
        }

        /// Works until there is nothing to do.
        fn run(&mut self) {
            loop {
                let (released, worked) = self.batch();
                if released == 0 {
                    return;
                }
                let slept = self.pace.sleep_ns(worked);
                self.pace.slept(worked, slept, 1);
                self.released += released;
                self.worked += worked;
                self.slept += slept;
            }
        }

        /// Checks that of `available` bytes all but `stop_at` are released, in 0.5 to 1.5 % of the
        /// time.
        #[track_caller]
        fn releases(&mut self, available: u64, stop_at: u64, expected: u64) {
            (self.available, self.stop_at) = (available, stop_at);
            (self.released, self.worked, self.slept) = (0, 0, 0);
            self.run();
            assert_eq!(self.released, expected);
            let share = self.worked as f64 / (self.worked + self.slept) as f64;
            assert!((share - CPU_SHARE).abs() <= 0.005, "{share}");
        }
    }

    /// Follows Go's script (`TestScavenger`).
    #[test]
    fn the_script() {
        let mut script = Script::default();
        let all = 64 * MIB - 3 * OS_PAGE;
        script.releases(all, 0, all);
        // This wake-up finds nothing to do.
        script.run();
        assert_eq!(script.released, all);
        script.releases(all, 0, all);
        script.releases(all, MIB - 3 * OS_PAGE, 63 * MIB);
        script.releases(all, 0, all);
    }

    #[test]
    fn a_clock_that_stands_still_is_not_believed() {
        assert_eq!(time_worked(QUANTUM, 0, OS_PAGE), 160_000);
        assert_eq!(time_worked(QUANTUM, 7, OS_PAGE), 7);
    }
}
