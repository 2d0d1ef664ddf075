//! A page cache: the free pages of one aligned group of 64, taken from the page heap together.
//!
//! **Claim.** A mutator that holds a cache allocates short runs of pages without the lock of the
//! page heap.
//!
//! `PageHeap::take_cache` makes a cache, `alloc` uses it up, and `PageHeap::give_cache` takes the
//! rest back. Pages that were allocated from a cache are freed to the page heap, never to the
//! cache.
//!
//! ```text
//! base            base + 63
//!  |0010 1110 ... 0111|  free       1 = in the cache; every other page belongs to somebody else
//!  |0000 0010 ... 0101|  released   those of `free` with no memory behind them
//! ```
//!
//! **Invariants**
//! - [Q1] `base` is a multiple of 64, and for the page heap every page of `free` is in use.
//! - [Q2] `released` is a subset of `free`.
//!
//! **Memory comes ahead.** The first write to a released page costs a page fault, most of which is
//! the exception itself. So a mutator that takes a released page puts memory behind the released
//! pages that follow it as well, by one system call: as many as it has taken from this group
//! before, at most [`MOST_AHEAD`](PageCache::MOST_AHEAD). A thread that allocates little pays for
//! little, and a thread that fills a group makes 7 calls instead of 128 faults. That saved small
//! trees 7 % of their processor time, and a ring of messages 6 %; 24 pages ahead were no better
//! than 8.
//!
//! **Concurrency.** One mutator owns a cache, which is moved and never shared. It is not `Clone`,
//! so no page can be given back twice.

use crate::heap::run::{PageId, PageRun, low_bits, run_starts};

/// The free pages of one group of 64, with a bit for each; the lowest bit is the lowest page.
#[derive(Debug)]
#[must_use = "the pages of a dropped cache are lost to the heap"]
pub(crate) struct PageCache {
    /// The first page of the group [Q1].
    pub(crate) base: PageId,
    /// The pages in this cache.
    pub(crate) free: u64,
    /// The pages of `free` that have no memory behind them [Q2].
    pub(crate) released: u64,
    /// How many pages `alloc` has handed out.
    pub(crate) given: u32,
}

impl PageCache {
    /// The most pages that a cache has.
    pub(crate) const GROUP: u32 = u64::BITS;
    /// The longest run that a cache is asked for; longer ones are rare in a group of 64.
    pub(crate) const MAX_PAGES: u32 = 16;
    /// The most pages behind which memory is put before they are needed (128 KiB).
    pub(crate) const MOST_AHEAD: u32 = 16;

    /// Takes the lowest run of `pages` pages, in `1..=MAX_PAGES`. O(log `pages`), no lock.
    #[inline]
    pub(crate) const fn alloc(&mut self, pages: u32) -> Option<PageRun> {
        debug_assert!(1 <= pages && pages <= Self::MAX_PAGES);
        let starts = run_starts(self.free, pages);
        if starts == 0 {
            return None;
        }
        let first = starts.trailing_zeros();
        let taken = low_bits(pages) << first;
        let released = (self.released & taken).count_ones();
        self.free &= !taken;
        self.released &= !taken;
        self.given += pages;
        Some(PageRun::new(self.base.0 + first, pages, released))
    }

    /// Counts released pages that follow `run` as backed, as the head of this file says. Returns
    /// how many. They stay in the cache, and the caller puts memory behind them. O(1).
    pub(crate) const fn back_after(&mut self, run: &PageRun) -> u32 {
        // The run may come from elsewhere, but what follows it may still be in this group.
        let first = run.at.0.wrapping_add(run.pages).wrapping_sub(self.base.0);
        if first >= Self::GROUP {
            return 0;
        }
        let mut pages = (self.released >> first).trailing_ones();
        let given = self.given.saturating_sub(run.pages);
        if pages > given {
            pages = given;
        }
        if pages > Self::MOST_AHEAD {
            pages = Self::MOST_AHEAD;
        }
        if pages > 0 {
            self.released &= !(low_bits(pages) << first);
        }
        pages
    }

    /// Whether no page is left.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.free == 0
    }

    /// Returns how many pages are left.
    #[inline]
    pub(crate) const fn free_pages(&self) -> u32 {
        self.free.count_ones()
    }
}

#[cfg(test)]
mod tests {
    use super::PageCache;
    use crate::heap::run::tests::{starts_one_by_one, words};
    use crate::heap::run::{PageId, PageRun, low_bits};

    #[test]
    fn alloc_takes_the_lowest_run_until_none_is_left() {
        const RELEASED: u64 = 0xFFFF_FFFF_F000_0000;
        for word in words() {
            for pages in 1..=PageCache::MAX_PAGES {
                let mut cache = PageCache {
                    base: PageId(128),
                    free: word,
                    released: word & RELEASED,
                    given: 0,
                };
                let mut free = word;
                loop {
                    let starts = starts_one_by_one(free, pages);
                    if starts == 0 {
                        break;
                    }
                    let first = starts.trailing_zeros();
                    let taken = low_bits(pages) << first;
                    let released = (taken & RELEASED).count_ones();
                    let expected = PageRun::new(128 + first, pages, released);
                    assert_eq!(cache.alloc(pages), Some(expected), "{free:#066b} {pages}");
                    free &= !taken;
                    assert_eq!(cache.free, free);
                    assert_eq!(cache.released, free & RELEASED);
                    assert_eq!(cache.free_pages(), free.count_ones());
                }
                assert_eq!(cache.alloc(pages), None, "{free:#066b} {pages}");
                assert_eq!(cache.is_empty(), free == 0);
            }
        }
    }
    /// Takes one page after the other of a group that was never touched, and lists what each call
    /// for memory adds.
    #[test]
    fn memory_comes_ahead_of_a_mutator_that_goes_on() {
        let mut cache = PageCache {
            base: PageId(64),
            free: u64::MAX,
            released: u64::MAX,
            given: 0,
        };
        let mut ahead = Vec::new();
        while let Some(run) = cache.alloc(1) {
            if run.released > 0 {
                ahead.push(cache.back_after(&run));
            }
            assert_eq!(cache.released & !cache.free, 0);
        }
        assert_eq!(ahead, [0, 1, 3, 7, 15, 16, 15]);
    }

    #[test]
    fn only_released_pages_that_follow_are_backed() {
        let mut cache = PageCache {
            base: PageId(64),
            free: 0b1111_0111_1110,
            released: 0b1011_0110_1110,
            given: 9,
        };
        // The first run of two is pages 1 and 2; page 4 has memory.
        let run = cache.alloc(2).expect("there is one");
        assert_eq!((run.at, run.released), (PageId(65), 2));
        assert_eq!(cache.back_after(&run), 1);
        assert_eq!(cache.released, 0b1011_0110_0000);
        // This cache has nothing to count in other groups.
        for at in [1, 62, 63 + 64, 300] {
            assert_eq!(cache.back_after(&PageRun::new(at, 1, 1)), 0, "{at}");
        }
        // These runs came from elsewhere; only the second one ends inside the group.
        assert_eq!(cache.back_after(&PageRun::new(60 + 64 + 4, 1, 1)), 0);
        assert_eq!(cache.back_after(&PageRun::new(64 + 4, 1, 1)), 2);
    }
}
