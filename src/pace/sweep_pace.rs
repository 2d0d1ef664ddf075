//! How many pages to sweep for each byte allocated, so that the sweep ends before the next cycle.
//!
//! The remaining pages are spread over the bytes up to the trigger, minus 1 MiB (Go runtime,
//! `gcPaceSweeper` of `mgcpacer.go`). A thread that allocates sweeps until as many pages are done
//! as the heap's growth requires. The background sweeper is usually ahead of it.

/// The sweep should end this many bytes before the trigger.
const MARGIN: u64 = 1 << 20;
/// The shortest distance to the trigger that is assumed, in bytes: one page.
const MIN_WAY: u64 = 8 << 10;

/// The pace from one moment on. It is made after each cycle, and again when the trigger or the
/// number of pages in use has changed much.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SweepPace {
    /// The pages to sweep per byte allocated; 0 if none are left.
    pages_per_byte: f64,
    /// The size of the heap at that moment, in bytes.
    heap_live: u64,
    /// The pages swept before that moment.
    pages_swept: u64,
}

impl SweepPace {
    /// Returns the pace for a heap of `heap_live` bytes whose next cycle begins at `trigger`, with
    /// `pages_swept` of `pages_in_use` pages done.
    pub(crate) fn new(heap_live: u64, trigger: u64, pages_in_use: u64, pages_swept: u64) -> Self {
        let way = trigger.saturating_sub(heap_live).saturating_sub(MARGIN);
        let left = pages_in_use.saturating_sub(pages_swept);
        Self {
            pages_per_byte: left as f64 / way.max(MIN_WAY) as f64,
            heap_live,
            pages_swept,
        }
    }

    /// Returns the pace as three words, which can be kept in atomics.
    pub(crate) fn to_words(self) -> [u64; 3] {
        [
            self.pages_per_byte.to_bits(),
            self.heap_live,
            self.pages_swept,
        ]
    }

    /// Does the reverse of [`Self::to_words`].
    pub(crate) fn from_words(words: [u64; 3]) -> Self {
        Self {
            pages_per_byte: f64::from_bits(words[0]),
            heap_live: words[1],
            pages_swept: words[2],
        }
    }

    /// Returns the pages that are due when the heap is at `heap_live` bytes (including what is
    /// about to be allocated) and `pages_swept` pages are done. 0 means that nothing is due.
    pub(crate) fn pages_due(&self, heap_live: u64, pages_swept: u64) -> u64 {
        let grown = heap_live.saturating_sub(self.heap_live);
        // The cast saturates.
        let target = (self.pages_per_byte * grown as f64) as u64;
        target.saturating_sub(pages_swept.saturating_sub(self.pages_swept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_sweep_is_over_a_megabyte_before_the_trigger() {
        let pace = SweepPace::new(20 * MIB, 37 * MIB, 5000, 1000);
        assert_eq!(pace.pages_due(20 * MIB, 1000), 0);
        assert_eq!(pace.pages_due(28 * MIB, 1000), 2000);
        assert_eq!(pace.pages_due(28 * MIB, 2500), 500);
        assert_eq!(pace.pages_due(28 * MIB, 3100), 0);
        assert_eq!(pace.pages_due(36 * MIB, 1000), 4000);
    }

    #[test]
    fn a_trigger_that_is_near_makes_everything_due_at_once() {
        let pace = SweepPace::new(20 * MIB, 20 * MIB, 5000, 0);
        assert_eq!(pace.pages_due(20 * MIB + 8192, 0), 5000);
    }

    #[test]
    fn nothing_is_due_when_nothing_is_left() {
        let pace = SweepPace::new(20 * MIB, 30 * MIB, 100, 100);
        assert_eq!(pace.pages_due(u64::MAX, 100), 0);
        assert_eq!(SweepPace::default().pages_due(u64::MAX, 0), 0);
    }
}
