//! What a program allocates while the collector is late.
//!
//! The cons/mark ratio says what is allocated while so many bytes are marked. A cycle takes longer
//! than its marking: the collector's thread wakes up, the stops and the handshakes wait for
//! mutators, workers wait for work, and on a busy machine for a processor. The time does not depend
//! on how much there is to mark, so a ratio says nothing of it; where next to nothing lives it is
//! the whole cycle, and a runway without it is no runway. (Go has none for it: a program that only
//! makes garbage passes its goal each time.)
//!
//! Measured in bytes, not in time: what came between the trigger and the first stop, and what came
//! while marking ran beyond what the ratio of this very cycle explains for workers that have their
//! share of the processors.

/// Cycles remembered.
const CYCLES: usize = 5;

/// Bytes by which the last cycles were late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    /// Newest first; 0 before there were that many cycles.
    recent: [u64; CYCLES],
}

impl Lag {
    /// Notes a cycle in which `before` bytes came between the trigger and the first stop, and
    /// `grown` while it marked, of which the work explains `explained`.
    pub(crate) fn note(&mut self, before: u64, grown: u64, explained: u64) {
        self.recent.rotate_right(1);
        self.recent[0] = before.saturating_add(grown.saturating_sub(explained));
    }

    /// The most of the cycles remembered.
    pub(crate) fn peak(&self) -> u64 {
        self.recent.into_iter().max().unwrap_or(0)
    }

    /// The second most: a single cycle that was late says nothing of the next.
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
