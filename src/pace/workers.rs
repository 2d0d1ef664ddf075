//! How many workers mark in the background.
//!
//! They take a quarter of the processors' time, in whole workers where that fits: `processors / 4`,
//! rounded. If the rounding error is more than 30 %, fractional workers do the rest, each with a
//! share of a processor's time (Go runtime, `startCycle` of `mgcpacer.go`). So the total is exactly
//! a quarter if there are fractional workers, and within 30 % of it otherwise.

use crate::pace::heap_goal::BACKGROUND_SHARE;

/// The largest error of the rounding, as a part of the quarter.
const MAX_ERROR: f64 = 0.3;
/// By which factor a fractional worker may exceed its share before it stops.
const SLACK: f64 = 1.2;

/// The background workers of a cycle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Workers {
    /// The workers that have a processor to themselves while marking runs.
    pub(crate) dedicated: u32,
    /// The share of each processor's time that a fractional worker takes; 0 if there is none.
    pub(crate) fractional: f64,
}

impl Workers {
    /// Returns the workers for `processors` (0 counts as 1).
    pub(crate) fn split(processors: u32) -> Self {
        let all = f64::from(processors.max(1));
        let quarter = all * BACKGROUND_SHARE;
        let mut dedicated = (quarter + 0.5).floor();
        if (dedicated / quarter - 1.0).abs() <= MAX_ERROR {
            return Self {
                dedicated: dedicated as u32,
                fractional: 0.0,
            };
        }
        if dedicated > quarter {
            dedicated -= 1.0;
        }
        Self {
            dedicated: dedicated as u32,
            fractional: (quarter - dedicated) / all,
        }
    }

    /// Every processor marks: for a cycle that keeps the world stopped.
    #[cfg(test)]
    pub(crate) fn all(processors: u32) -> Self {
        Self {
            dedicated: processors.max(1),
            fractional: 0.0,
        }
    }

    /// Returns the share of all processors' time that these workers take, in `0.0 ..= 1.0`.
    pub(crate) fn share(&self, processors: u32) -> f64 {
        f64::from(self.dedicated) / f64::from(processors.max(1)) + self.fractional
    }

    /// Whether a fractional worker should stop, after `worked_ns` of marking on its processor in
    /// the `elapsed_ns` since the cycle began.
    pub(crate) fn fractional_is_over(&self, worked_ns: u64, elapsed_ns: u64) -> bool {
        worked_ns as f64 > SLACK * self.fractional * elapsed_ns as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_splits_of_small_machines() {
        let split = |p| {
            let w = Workers::split(p);
            (w.dedicated, (w.fractional * 10_000.0).round() as u32)
        };
        for p in 1..=3 {
            assert_eq!(split(p), (0, 2500), "{p}");
        }
        assert_eq!(split(4), (1, 0));
        assert_eq!(split(5), (1, 0));
        assert_eq!(split(6), (1, 833));
        assert_eq!(split(7), (2, 0));
        assert_eq!(split(8), (2, 0));
        assert_eq!(Workers::all(8).dedicated, 8);
        assert_eq!(Workers::split(0), Workers::split(1));
    }

    #[test]
    fn a_fractional_worker_ends_a_fifth_late() {
        let workers = Workers::split(2);
        assert!(!workers.fractional_is_over(300, 1000));
        assert!(workers.fractional_is_over(301, 1000));
    }
}
