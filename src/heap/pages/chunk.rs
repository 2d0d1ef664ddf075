//! A chunk: the bits of 512 pages, their summary, and the search among them for a place or for idle
//! pages.
//!
//! Chunks are the leaves of the page heap's tree. To mark pages, `PageHeap` passes page numbers
//! that count from the start of the chunk. To search, it passes the number of the chunk's first
//! page. It gets numbers of the same kind back.
//!
//! **Invariants**
//! - [B1] `summary()` depends only on the bits; `head <= longest`, `tail <= longest`.
//! - [B2] `first_fit` returns the lowest place. A run that comes in from the chunk before starts
//!   lower than any run within, so it is tried first; the same holds from word to word.
//!
//! **Concurrency.** A chunk is part of the page heap, behind its lock.

use std::ops::Range;

use crate::heap::run::{low_bits, run_starts};

/// The pages of a word of the bitmap, and so of a page cache.
pub(super) const WORD_PAGES: u32 = 64;

/// The words of a chunk.
pub(super) const WORDS: usize = 8;

/// The pages of a chunk.
pub(super) const CHUNK_PAGES: u32 = WORD_PAGES * WORDS as u32;

/// A request for pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) pages: u32,
    pub(super) align_pages: u32,
}

impl Fit {
    pub(super) const ANY_PAGE: Self = Self {
        pages: 1,
        align_pages: 1,
    };

    /// Returns the lowest place in the free run `start..end`.
    pub(super) fn first_in(self, start: u32, end: u32) -> Option<u32> {
        let mask = self.align_pages - 1;
        let at = (start + mask) & !mask;
        (at + self.pages <= end).then_some(at)
    }

    /// Returns the places that lie wholly within a word of free bits. For alignments of a word and
    /// more it returns none: only the first page of the word could be a place, and a run from there
    /// belongs to the one that comes in [B2].
    fn starts_in(self, free: u64) -> u64 {
        /// The multiples of 1, 2, 4 ... 32.
        const ALIGNED: [u64; 6] = [
            u64::MAX,
            0x5555_5555_5555_5555,
            0x1111_1111_1111_1111,
            0x0101_0101_0101_0101,
            0x0001_0001_0001_0001,
            0x0000_0001_0000_0001,
        ];
        match ALIGNED.get(self.align_pages.trailing_zeros() as usize) {
            Some(aligned) if self.pages <= WORD_PAGES => run_starts(free, self.pages) & aligned,
            _ => 0,
        }
    }
}

/// The lengths of free runs among some pages: at their start, anywhere, and at their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) head: u32,
    pub(super) longest: u32,
    pub(super) tail: u32,
}

impl Summary {
    /// The summary of pages in use.
    pub(super) const NONE: Self = Self {
        head: 0,
        longest: 0,
        tail: 0,
    };
}

/// The bits of 512 pages. They take two cache lines, of which the search for a place reads the
/// first.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Chunk {
    /// 1 = in use, or above the top [P1].
    pub(super) used: [u64; WORDS],
    /// 1 = free with no memory behind it, or leaving [P5].
    pub(super) released: [u64; WORDS],
}

impl Chunk {
    pub(super) const USED: Self = Self {
        used: [u64::MAX; WORDS],
        released: [0; WORDS],
    };

    /// Returns the lowest fit that starts at `open` or above, for a chunk that starts at page
    /// `base`. A free run that ends just before the chunk begins at `open`; if there is none,
    /// `open` is `base` [B2].
    pub(super) fn first_fit(&self, base: u32, mut open: u32, fit: Fit) -> Option<u32> {
        let mut at = base;
        for used in self.used {
            let free = !used;
            if free != u64::MAX {
                let found = fit.first_in(open, at + free.trailing_ones());
                if found.is_some() {
                    return found;
                }
                let starts = fit.starts_in(free);
                if starts != 0 {
                    return Some(at + starts.trailing_zeros());
                }
                open = at + WORD_PAGES - free.leading_ones();
            }
            at += WORD_PAGES;
        }
        fit.first_in(open, at)
    }

    /// Computes the summary from the bits.
    pub(super) fn summary(&self) -> Summary {
        Summary {
            head: self.free_after(0),
            longest: self.longest_run(),
            tail: self.free_before(CHUNK_PAGES),
        }
    }

    /// Returns the length of the longest free run.
    pub(super) fn longest_run(&self) -> u32 {
        let mut longest = 0;
        let mut open = 0;
        for used in self.used {
            let free = !used;
            if free == u64::MAX {
                open += WORD_PAGES;
                continue;
            }
            longest = longest.max(open + free.trailing_ones());
            open = free.leading_ones();
            // A run with used pages on both sides is at most 62 long. Most words have no run that
            // is longer than the longest so far, and take one test.
            if longest < WORD_PAGES - 2 {
                let mut starts = run_starts(free, longest + 1);
                while starts != 0 {
                    longest += 1;
                    starts &= free >> longest;
                }
            }
        }
        longest.max(open)
    }

    /// Returns the length of the free run that ends just below `page`.
    pub(super) fn free_before(&self, page: u32) -> u32 {
        let (mut word, bit) = ((page / WORD_PAGES) as usize, page % WORD_PAGES);
        let mut run = 0;
        if bit > 0 {
            run = (self.used[word] << (WORD_PAGES - bit))
                .leading_zeros()
                .min(bit);
            if run < bit {
                return run;
            }
        }
        while word > 0 {
            word -= 1;
            let more = self.used[word].leading_zeros();
            run += more;
            if more < WORD_PAGES {
                break;
            }
        }
        run
    }

    /// Returns the length of the free run that starts at `page`.
    pub(super) fn free_after(&self, page: u32) -> u32 {
        let (mut word, bit) = ((page / WORD_PAGES) as usize, page % WORD_PAGES);
        let mut run = 0;
        if bit > 0 {
            let rest = WORD_PAGES - bit;
            run = (self.used[word] >> bit).trailing_zeros().min(rest);
            if run < rest {
                return run;
            }
            word += 1;
        }
        while word < WORDS {
            let more = self.used[word].trailing_zeros();
            run += more;
            if more < WORD_PAGES {
                break;
            }
            word += 1;
        }
        run
    }

    /// Marks the free pages `from..to` in use. Returns how many had no memory behind them.
    pub(super) fn set_used(&mut self, from: u32, to: u32) -> u32 {
        let mut released = 0;
        for (word, bits) in words_of(from, to) {
            self.used[word] |= bits;
            released += (self.released[word] & bits).count_ones();
            self.released[word] &= !bits;
        }
        released
    }

    /// Marks the pages `from..to` free: idle if they were in use, released if they were leaving.
    pub(super) fn set_free(&mut self, from: u32, to: u32) {
        for (word, bits) in words_of(from, to) {
            self.used[word] &= !bits;
        }
    }

    /// Marks the pages `from..to`, which are in use, as leaving.
    pub(super) fn set_leaving(&mut self, from: u32, to: u32) {
        for (word, bits) in words_of(from, to) {
            self.released[word] |= bits;
        }
    }

    /// Marks the pages `from..to`, which are leaving, as in use again.
    pub(super) fn clear_leaving(&mut self, from: u32, to: u32) {
        for (word, bits) in words_of(from, to) {
            self.released[word] &= !bits;
        }
    }

    /// Returns how many of the pages `from..to`, multiples of 64, are in use, leaving, or above the
    /// top.
    pub(super) fn used_in(&self, from: u32, to: u32) -> u32 {
        let words = (from / WORD_PAGES) as usize..(to / WORD_PAGES) as usize;
        self.used[words].iter().map(|word| word.count_ones()).sum()
    }

    /// Returns the highest run of idle pages, as long as possible, among `from..to`; `from` is a
    /// multiple of 64.
    pub(super) fn highest_idle(&self, from: u32, to: u32) -> Option<Range<u32>> {
        let first = (from / WORD_PAGES) as usize;
        let idle = |word: usize| {
            // It is at least 1, because the word has a page below `to`.
            let below = (to - word as u32 * WORD_PAGES).min(WORD_PAGES);
            !(self.used[word] | self.released[word]) & low_bits(below)
        };
        let mut word = (first..to.div_ceil(WORD_PAGES) as usize)
            .rev()
            .find(|&word| idle(word) != 0)?;
        let above = idle(word).leading_zeros();
        let end = (word as u32 + 1) * WORD_PAGES - above;
        let mut start = end - (idle(word) << above).leading_ones();
        while start == word as u32 * WORD_PAGES && word > first {
            word -= 1;
            start -= idle(word).leading_ones();
        }
        Some(start..end)
    }
}

/// Returns each word that has pages of `from..to`, and the bits of those pages.
fn words_of(from: u32, to: u32) -> impl Iterator<Item = (usize, u64)> {
    let mut at = from;
    std::iter::from_fn(move || {
        let bit = at % WORD_PAGES;
        let pages = (WORD_PAGES - bit).min(to - at);
        let word = (at / WORD_PAGES) as usize;
        at += pages;
        (pages > 0).then(|| (word, low_bits(pages) << bit))
    })
}
