//! What a program allocates while the collector is late.
//!
//! **Why.** The cons/mark ratio says how much is allocated while so many bytes are marked. But a
//! cycle takes longer than its marking: the collector's thread wakes up, the stops and the
//! handshakes wait for mutators, workers wait for work, and on a busy machine they wait for a
//! processor. That time does not depend on how much there is to mark, so no ratio covers it. If
//! almost nothing is live, it is the whole cycle, and a runway without it is far too short. (Go has
//! no runway for it: a program that only makes garbage passes its goal in each cycle. Without this
//! part of the runway, threads of such a program waited here at the goal, and it took 1.7 times as
//! long.)
//!
//! **How.** The lag is measured in bytes and not in time. It is what was allocated between the
//! trigger and the first stop, plus what was allocated while marking ran beyond what the ratio of
//! that cycle explains for workers that have their share of the processors.

/// The number of cycles remembered.
const CYCLES: usize = 5;

/// By how many bytes the last cycles were late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    /// The bytes, newest first; 0 for cycles that have not been.
    recent: [u64; CYCLES],
}

impl Lag {
    /// Records a cycle. `before` bytes were allocated between the trigger and the first stop, and
    /// `grown` bytes while it marked, of which the work explains `explained`.
    pub(crate) fn note(&mut self, before: u64, grown: u64, explained: u64) {
        self.recent.rotate_right(1);
        self.recent[0] = before.saturating_add(grown.saturating_sub(explained));
    }

    /// Returns the largest value remembered.
    pub(crate) fn peak(&self) -> u64 {
        self.recent.into_iter().max().unwrap_or(0)
    }

    /// Returns the second largest value: a single cycle that was late predicts nothing.
    pub(crate) fn sustained(&self) -> u64 {
        let mut sorted = self.recent;
        sorted.sort_unstable();
        sorted[CYCLES - 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_work_explains_is_no_lag() {
        let mut lag = Lag::default();
        lag.note(0, 100, 100);
        lag.note(0, 100, 300);
        assert_eq!(lag, Lag::default());
        lag.note(7, 100, 40);
        assert_eq!((lag.peak(), lag.sustained()), (67, 0));
        lag.note(0, 50, 0);
        assert_eq!((lag.peak(), lag.sustained()), (67, 50));
        for _ in 0..CYCLES {
            lag.note(0, 1, 0);
        }
        assert_eq!((lag.peak(), lag.sustained()), (1, 1));
    }
}
