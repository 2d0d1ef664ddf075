//! How fast the program allocates compared with how fast the collector marks, in each cycle.
//!
//! The cons/mark ratio is the number of bytes allocated per byte of mark work, where each is
//! divided by the processor time spent on it (Go runtime, `endCycle` of `mgcpacer.go`). It does not
//! depend on how the processors were divided, so a cycle with many assists predicts one without.

/// The number of cycles remembered.
const CYCLES: usize = 5;

/// The largest ratio that is assumed: 2^40 bytes are allocated while one byte is marked.
const MAX_RATIO: f64 = (1_u64 << 40) as f64;

/// The times that were spent while marking ran, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MarkTimes {
    /// The wall time from the end of the first stop to the end of marking.
    pub(crate) duration_ns: u64,
    /// The processor time that background workers took from the program.
    pub(crate) background_ns: u64,
    /// The processor time of assists.
    pub(crate) assist_ns: u64,
    /// The processor time of workers that ran because a processor had nothing else to do.
    pub(crate) idle_ns: u64,
}

impl MarkTimes {
    /// Returns the share of the time of `processors` that was taken from the program, in `0.0 ..=
    /// 1.0`.
    pub(crate) fn share_taken(&self, processors: u32) -> f64 {
        let all = self.duration_ns as f64 * f64::from(processors.max(1));
        if all <= 0.0 {
            return 0.0;
        }
        let taken = self.background_ns as f64 + self.assist_ns as f64;
        (taken / all).min(1.0)
    }
}

/// The ratios of the last cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ConsMark {
    /// The ratios, newest first; 0 for cycles that have not been. Each is in `0.0 ..= MAX_RATIO`.
    recent: [f64; CYCLES],
}

impl ConsMark {
    /// Records a cycle that marked `work` bytes (at least 1) while the program allocated
    /// `allocated` bytes (at least 1). A cycle that gives no ratio changes nothing. Returns the
    /// ratio.
    pub(crate) fn note(
        &mut self,
        allocated: u64,
        work: u64,
        times: MarkTimes,
        processors: u32,
    ) -> Option<f64> {
        if allocated == 0 || work == 0 {
            return None;
        }
        let all = times.duration_ns as f64 * f64::from(processors.max(1));
        if all <= 0.0 {
            return None;
        }
        let collecting = times.background_ns as f64 / all + times.assist_ns as f64 / all;
        let idle = times.idle_ns as f64 / all;
        let program = 1.0 - collecting;
        if program <= 0.0 {
            return None;
        }
        let ratio = (allocated as f64 * (collecting + idle)) / (work as f64 * program);
        self.recent.rotate_right(1);
        self.recent[0] = ratio.clamp(0.0, MAX_RATIO);
        Some(self.recent[0])
    }

    /// Returns the largest ratio remembered, because a start that is too early costs less than one
    /// that is too late.
    pub(crate) fn peak(&self) -> f64 {
        self.recent.iter().fold(0.0, |most, &r| f64::max(most, r))
    }

    /// Returns the second largest ratio: a single odd cycle does not count, and a change counts
    /// from its second cycle on.
    pub(crate) fn sustained(&self) -> f64 {
        let mut sorted = self.recent;
        sorted.sort_by(f64::total_cmp);
        sorted[CYCLES - 2]
    }
}

/// Returns the bytes that the program allocates while `share` of the processors marks `work` bytes,
/// at `ratio`.
pub(crate) fn runway(ratio: f64, work: u64, share: f64) -> u64 {
    // The cast saturates.
    (ratio * ((1.0 - share) / share) * work as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quarter(duration_ns: u64) -> MarkTimes {
        MarkTimes {
            duration_ns,
            background_ns: duration_ns * 2,
            assist_ns: 0,
            idle_ns: 0,
        }
    }

    #[test]
    fn the_ratio_predicts_the_same_cycle() {
        let mut ratios = ConsMark::default();
        ratios.note(3 << 20, 20 << 20, quarter(1_000_000), 8);
        let predicted = runway(ratios.peak(), 20 << 20, 0.25);
        assert!(predicted.abs_diff(3 << 20) <= 1);
    }

    #[test]
    fn a_single_odd_cycle_is_not_sustained() {
        let mut ratios = ConsMark::default();
        for _ in 0..3 {
            ratios.note(1 << 20, 16 << 20, quarter(1_000_000), 8);
        }
        let usual = ratios.sustained();
        ratios.note(50 << 20, 16 << 20, quarter(1_000_000), 8);
        assert_eq!(ratios.sustained(), usual);
        assert!(ratios.peak() > 49.0 * usual);
        ratios.note(50 << 20, 16 << 20, quarter(1_000_000), 8);
        assert!(ratios.sustained() > 49.0 * usual);
        for _ in 0..5 {
            ratios.note(1 << 20, 16 << 20, quarter(1_000_000), 8);
        }
        assert_eq!(ratios.peak(), usual);
    }

    #[test]
    fn a_cycle_that_says_nothing_changes_nothing() {
        let mut ratios = ConsMark::default();
        ratios.note(0, 1, quarter(1), 8);
        ratios.note(1, 0, quarter(1), 8);
        ratios.note(1, 1, MarkTimes::default(), 8);
        let all = MarkTimes {
            assist_ns: 6,
            ..quarter(1)
        };
        ratios.note(1, 1, all, 8);
        assert_eq!(ratios, ConsMark::default());
    }
}
