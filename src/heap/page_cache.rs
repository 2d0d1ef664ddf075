//! A page cache: the free pages of one aligned group of 64, taken from the page heap at once.
//!
//! A mutator that holds one allocates short runs of pages without the lock of the page heap. It
//! comes from `PageHeap::take_cache`, is used up by `alloc`, and whatever is left goes back by
//! `PageHeap::give_cache`; pages that were allocated from it are freed to the page heap, never to
//! the cache.
//!
//! ```text
//! base            base + 63
//!  |0010 1110 ... 0111|  free       1 = in the cache; all else belongs to somebody else
//!  |0000 0010 ... 0101|  released   those of `free` with no memory behind them
//! ```
//!
//! **Invariants**
//! - [Q1] `base` is a multiple of 64, and the page heap holds every page of `free` to be in use.
//! - [Q2] `released` is a subset of `free`.
//!
//! **Concurrency.** Owned by one mutator, moved and never shared; it is not `Clone`, so no page can
//! be given back twice.

use crate::heap::run::{PageId, PageRun, low_bits, run_starts};

/// Free pages of one group of 64; a bit for each, the lowest bit for the lowest page.
#[derive(Debug)]
#[must_use = "the pages of a dropped cache are lost to the heap"]
pub(crate) struct PageCache {
    /// The first page of the group [Q1].
    pub(crate) base: PageId,
    /// The pages in this cache.
    pub(crate) free: u64,
    /// Those of `free` that have no memory behind them [Q2].
    pub(crate) released: u64,
}

impl PageCache {
    /// The most pages that a cache has.
    pub(crate) const GROUP: u32 = u64::BITS;
    /// The longest run that is worth asking a cache for; longer ones rarely exist in a group of 64.
    pub(crate) const MAX_PAGES: u32 = 16;

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
        Some(PageRun::new(self.base.0 + first, pages, released))
    }

    /// Whether no page is left.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.free == 0
    }

    /// How many pages are left.
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
}
