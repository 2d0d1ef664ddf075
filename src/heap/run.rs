//! A page, a run of pages that was handed out, and runs of ones in a word of page bits.

use crate::sys::mem::RELEASED_READS_ZERO;

/// A page, by its number from the start of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PageId(pub(crate) u32);

/// Pages that were handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRun {
    /// The first page.
    pub(crate) at: PageId,
    /// The number of pages.
    pub(crate) pages: u32,
    /// How many of them had no memory behind them. The first write to such a page makes the system
    /// provide memory.
    pub(crate) released: u32,
    /// Whether any of them may hold old bytes. If not, they all read as zero.
    pub(crate) needs_zero: bool,
}

impl PageRun {
    pub(crate) const fn new(at: u32, pages: u32, released: u32) -> Self {
        Self {
            at: PageId(at),
            pages,
            released,
            needs_zero: released < pages || !RELEASED_READS_ZERO,
        }
    }
}

/// Returns a word whose lowest `bits` bits, 1 to 64, are set.
#[inline]
pub(crate) const fn low_bits(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

/// Returns the bits of `free` at which a run of `pages` ones, 1 to 64, starts that also ends within
/// the word.
#[inline]
pub(crate) const fn run_starts(free: u64, pages: u32) -> u64 {
    // A bit of `starts` stands for a run of `length` ones from there. Two such runs that overlap or
    // touch make a longer one. The length doubles in each round but the last.
    let mut starts = free;
    let mut length = 1;
    while length < pages {
        let step = if length < pages - length {
            length
        } else {
            pages - length
        };
        starts &= starts >> step;
        length += step;
    }
    starts
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{low_bits, run_starts};

    pub(crate) fn starts_one_by_one(free: u64, pages: u32) -> u64 {
        (0..=64 - pages)
            .filter(|&at| (free >> at) & low_bits(pages) == low_bits(pages))
            .fold(0, |starts, at| starts | 1 << at)
    }

    pub(crate) fn words() -> impl Iterator<Item = u64> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let random = std::iter::from_fn(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            Some(state)
        });
        // Words with fewer ones, plain and with long runs of ones.
        let mixed = random
            .take(if cfg!(miri) { 5 } else { 500 })
            .flat_map(|word| {
                let gap = word.rotate_left(9) & word.rotate_left(21) & word.rotate_left(43);
                [word, word & word.rotate_left(7), !gap]
            });
        [0, 1, u64::MAX, 1 << 63, u64::MAX >> 1, u64::MAX << 1]
            .into_iter()
            .chain(mixed)
    }

    #[test]
    fn run_starts_agrees_with_looking_at_every_bit() {
        for free in words() {
            for pages in 1..=64 {
                assert_eq!(
                    run_starts(free, pages),
                    starts_one_by_one(free, pages),
                    "{free:#066b} {pages}"
                );
            }
        }
    }
}
