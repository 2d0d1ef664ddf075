//! The page heap: which pages of the arena are free, which of these have memory behind them, and
//! where the lowest run of free pages is that fits.
//!
//! `mheap` sends requests when it makes or frees a span, and gets a [`PageRun`]. The scavenger asks
//! for idle pages to give back to the system (`pages/idle.rs`). Nothing here touches the pages
//! themselves: a page is a number, which `mheap` turns into an address.
//!
//! ```text
//! level 3                      [summary]                         the root: one summary for all
//! level 2          [summary] [summary] ...                       each of 8 below
//! level 1     [summary] [summary] ...
//! level 0  [summary][summary] ...  one for each chunk            head ##### longest ##### tail
//! chunks   [512 bits][512 bits] ...  1 = in use, or above `top`; beside them 512: 1 = released
//! ```
//!
//! **Claim.** The first fit is found in O(log n).
//!
//! A summary holds three lengths: of the free run at the start of its pages, of the longest one,
//! and of the one at their end. The search visits the children of a node from left to right. It
//! sees a run that crosses from one child into the next as the tail of one and the head of the
//! other, and a `longest` that suffices tells it into which child to go down. First fit by address
//! keeps the upper end of the heap empty, so that it can be returned to the system, and packs
//! long-lived spans densely.
//!
//! A change recomputes the summaries above it, and stops at the first level where nothing changed.
//! In its own chunk a short run is accounted for by looking at the two ends of the free run around
//! it. Only taking from the longest run of a chunk scans the chunk again.
//!
//! **Invariants** ([`PageHeap::verify`] checks all of them)
//! - [P1] A bit is 0 exactly if the page is below `top` and free. Bits above `top` are 1, so no run
//!   extends beyond `top`.
//! - [P2] Every summary is that of its chunk, or of its children. There is no list of runs, so
//!   neighbours are always merged.
//! - [P3] `free` counts the zero bits, `released` and `leaving` the pages in those states.
//! - [P4] Every page below `first_free` is in use.
//! - [P5] The two bits of a page, used and released, mean: 00 idle (free, with memory behind it);
//!   01 released (free, given back or never touched); 10 in use, or above `top`; 11 leaving (taken
//!   out while the system takes its memory).
//! - [P6] The last node of a level may have fewer than 8 children. Its `tail`, and so the start of
//!   that run, is then meaningless. That is harmless, because nothing follows it. Adding a child
//!   recomputes the node.
//!
//! **Concurrency.** There is none: `mheap` keeps the page heap in a lock. Pages in a [`PageCache`]
//! count as in use here. The page heap takes memory in proportion to `top`: 142 bytes for 4 MiB.
//!
//! **Tried and dropped.** Recomputing a chunk's summary after each change: taking and giving back a
//! page took 150 ns instead of 20 (1 M pages, half of them in use at random). 4 or 16 children for
//! each node: they are as fast as 8. An exact answer to "aligned and lowest" in O(log n) does not
//! exist with these summaries: an aligned request tries all chunks that have a long enough run in a
//! wrong place.

use std::ops::Range;

use self::chunk::{CHUNK_PAGES, Chunk, Fit, Summary, WORD_PAGES, WORDS};
use self::hints::{GROUP_PAGES, Hints, Level};
use crate::heap::page_cache::PageCache;
use crate::heap::run::{PageId, PageRun};
use crate::sys::sabotage::{self, Fault};

mod chunk;
pub(crate) mod hints;
mod idle;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// The largest capacity of a page heap: 512 GiB.
pub(crate) const MAX_PAGES: u32 = 1 << 26;

/// The number of children of a node, as a power of two.
const FAN_SHIFT: u32 = 3;

/// The number of levels that `MAX_PAGES` needs, including level 0.
const LEVELS: usize = 7;

const _: () = assert!(CHUNK_PAGES << (FAN_SHIFT * (LEVELS as u32 - 1)) >= MAX_PAGES);

/// The free and used pages of an arena. See the head of this file.
#[derive(Debug)]
pub(crate) struct PageHeap {
    chunks: Vec<Chunk>,
    /// `levels[0]` has the summary of each chunk, and `levels[height]` has one summary of
    /// everything.
    levels: [Vec<Summary>; LEVELS],
    height: usize,
    top: u32,
    capacity: u32,
    free: u32,
    /// [P3]
    released: u32,
    /// [P3]
    leaving: u32,
    /// [P4] The search begins here.
    first_free: u32,
    /// Where idle pages may be.
    hints: Hints,
    /// Memory leaves in multiples of this many pages, because a page of the system may be larger
    /// than ours.
    grain: u32,
}

impl PageHeap {
    /// Makes an empty heap that may grow to `capacity` pages, at most [`MAX_PAGES`]. Memory leaves
    /// it in multiples of `grain` pages, a power of two up to 64.
    pub(crate) const fn new(capacity: u32, grain: u32) -> Self {
        debug_assert!(capacity <= MAX_PAGES);
        debug_assert!(grain.is_power_of_two() && grain <= WORD_PAGES);
        Self {
            chunks: Vec::new(),
            levels: [const { Vec::new() }; LEVELS],
            height: 0,
            top: 0,
            capacity,
            free: 0,
            released: 0,
            leaving: 0,
            first_free: 0,
            hints: Hints::NONE,
            grain,
        }
    }

    /// Adds `pages` released pages at the top. The caller keeps within the capacity.
    pub(crate) fn grow(&mut self, pages: u32) {
        debug_assert!(pages <= self.capacity - self.top);
        if pages == 0 {
            return;
        }
        let old_top = self.top;
        self.top += pages;
        let mut len = self.top.div_ceil(CHUNK_PAGES) as usize;
        self.chunks.resize(len, Chunk::USED);
        self.hints.resize(len);
        self.height = 0;
        self.levels[0].resize(len, Summary::NONE);
        while len > 1 {
            len = len.div_ceil(1 << FAN_SHIFT);
            self.height += 1;
            self.levels[self.height].resize(len, Summary::NONE);
        }
        self.mark_each(old_top, pages, Chunk::set_leaving);
        self.released += pages;
        self.vacate(old_top, pages);
    }

    /// Returns the page after the last page.
    pub(crate) const fn top(&self) -> PageId {
        PageId(self.top)
    }

    /// Returns how many pages there may be.
    pub(crate) const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Returns how many pages are free, idle or released.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) const fn free_pages(&self) -> u32 {
        self.free
    }

    /// Returns how many pages are released.
    pub(crate) const fn released_pages(&self) -> u32 {
        self.released
    }

    /// Returns how many pages are leaving. They are not free now, and will be soon.
    pub(crate) const fn leaving_pages(&self) -> u32 {
        self.leaving
    }

    /// Returns how many pages are allocated or in a page cache.
    pub(crate) const fn in_use_pages(&self) -> u32 {
        self.top - self.free - self.leaving
    }

    /// Takes the lowest run of `pages` (at least 1) free pages that starts at a multiple of
    /// `align_pages`, a power of two. O(log n) if `align_pages` is 1; otherwise, in the worst case,
    /// linear in the number of chunks that have such a long run.
    pub(crate) fn alloc(&mut self, pages: u32, align_pages: u32) -> Option<PageRun> {
        debug_assert!(pages > 0 && align_pages.is_power_of_two());
        let fit = Fit { pages, align_pages };
        let at = self.find(fit)?;
        let released = self.occupy(at, pages);
        if at == self.first_free || fit == Fit::ANY_PAGE {
            self.first_free = at + pages;
        }
        Some(PageRun::new(at, pages, released))
    }

    /// Makes `pages` (at least 1) pages from `at` idle. All of them are in use, but they need not
    /// be one run of `alloc`.
    pub(crate) fn free(&mut self, at: PageId, pages: u32) {
        debug_assert!(pages > 0 && pages <= self.top && at.0 <= self.top - pages);
        debug_assert!(
            self.next_page(at.0..at.0 + pages, PageState::Free)
                .is_none(),
            "a page is freed twice"
        );
        self.vacate(at.0, pages);
    }

    /// Takes all free pages of the lowest group of 64 that has any.
    pub(crate) fn take_cache(&mut self) -> Option<PageCache> {
        let base = self.find(Fit::ANY_PAGE)? / WORD_PAGES * WORD_PAGES;
        let (chunk, word) = word_of(base);
        let bits = &mut self.chunks[chunk];
        let free = !bits.used[word];
        let released = bits.released[word] & free;
        if !sabotage::is_on(Fault::CachedPagesStayFree) {
            bits.used[word] = u64::MAX;
        }
        bits.released[word] &= !free;
        self.free -= free.count_ones();
        self.released -= released.count_ones();
        self.refresh(chunk);
        // [P4] Lower groups have no free page, because this was the lowest group that had one.
        self.first_free = base + WORD_PAGES;
        Some(PageCache {
            base: PageId(base),
            free,
            released,
            given: 0,
        })
    }

    /// Takes back what is left of a cache.
    pub(crate) fn give_cache(&mut self, cache: PageCache) {
        if cache.is_empty() {
            return;
        }
        let (chunk, word) = word_of(cache.base.0);
        let bits = &mut self.chunks[chunk];
        debug_assert!(
            bits.used[word] & !bits.released[word] & cache.free == cache.free,
            "a page is freed twice"
        );
        bits.used[word] &= !cache.free;
        bits.released[word] |= cache.released;
        self.free += cache.free_pages();
        self.released += cache.released.count_ones();
        self.refresh(chunk);
        self.hint(chunk);
        let lowest = cache.base.0 + cache.free.trailing_zeros();
        self.first_free = self.first_free.min(lowest);
    }

    /// Whether the page exists and is free.
    pub(crate) fn is_free(&self, page: PageId) -> bool {
        let (chunk, word) = word_of(page.0);
        self.chunks
            .get(chunk)
            .is_some_and(|chunk| chunk.used[word] >> (page.0 % WORD_PAGES) & 1 == 0)
    }

    /// Whether the page exists and is leaving.
    pub(crate) fn is_leaving(&self, page: PageId) -> bool {
        let (chunk, word) = word_of(page.0);
        self.chunks.get(chunk).is_some_and(|chunk| {
            (chunk.used[word] & chunk.released[word]) >> (page.0 % WORD_PAGES) & 1 != 0
        })
    }

    /// Returns all free runs, each as long as possible, by rising address. Linear in the size of
    /// the heap.
    pub(crate) fn free_runs(&self) -> impl Iterator<Item = (PageId, u32)> {
        let mut from = self.first_free;
        std::iter::from_fn(move || {
            let start = self.next_page(from..self.top, PageState::Free)?;
            let end = self.next_page(start..self.top, PageState::Used);
            from = end.unwrap_or(self.top);
            Some((PageId(start), from - start))
        })
    }

    /// Returns the bytes that the heap itself occupies.
    pub(crate) fn metadata_bytes(&self) -> usize {
        let summaries: usize = self.levels.iter().map(Vec::capacity).sum();
        self.chunks.capacity() * size_of::<Chunk>()
            + summaries * size_of::<Summary>()
            + self.hints.metadata_bytes()
    }

    /// Checks every invariant of the head against the bitmap. Linear in the size of the heap.
    pub(crate) fn verify(&self) -> Result<(), &'static str> {
        let holds = |holds: bool, or: &'static str| if holds { Ok(()) } else { Err(or) };
        let mut nodes = self.top.div_ceil(CHUNK_PAGES) as usize;
        holds(self.top <= self.capacity, "top is above the capacity")?;
        holds(self.chunks.len() == nodes, "chunks do not reach to the top")?;
        for (level, summaries) in self.levels[..=self.height].iter().enumerate() {
            holds(summaries.len() == nodes, "a level has the wrong length")?;
            for (node, &summary) in summaries.iter().enumerate() {
                let actual = match level {
                    0 => self.chunks[node].summary(),
                    _ => merge(&self.levels[level - 1], level, node),
                };
                holds(summary == actual, "a summary is not that of its pages")?;
            }
            nodes = nodes.div_ceil(1 << FAN_SHIFT);
        }
        holds(self.levels[self.height].len() <= 1, "there is no root")?;
        let free = self.count(|used, _| !used);
        holds(free == self.free, "the count of free pages is off")?;
        let released = self.count(|used, released| released & !used);
        holds(
            released == self.released,
            "the count of released pages is off",
        )?;
        let leaving = self.count(|used, released| released & used);
        holds(
            leaving == self.leaving,
            "the count of leaving pages is off, or one is above the top",
        )?;
        let below = 0..self.first_free.min(self.top);
        let lower_free = self.next_page(below, PageState::Free);
        holds(lower_free.is_none(), "a page below first_free is free")?;
        let mut end_of_last = 0;
        let mut in_runs = 0;
        for (at, pages) in self.free_runs() {
            let apart = at.0 > end_of_last || (at.0 == 0 && end_of_last == 0);
            holds(apart && pages > 0, "two free runs touch")?;
            end_of_last = at.0 + pages;
            in_runs += pages;
        }
        holds(in_runs == free, "the free runs are not all the free pages")?;
        holds(end_of_last <= self.top, "a page above the top is free")
    }

    /// Returns how many bits are set in the results of `pick`, which gets the used and the released
    /// bits.
    fn count(&self, pick: impl Fn(u64, u64) -> u64) -> u32 {
        let bits = |(&used, &released): (&u64, &u64)| pick(used, released).count_ones();
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.used.iter().zip(&chunk.released).map(bits))
            .sum()
    }

    /// Returns the lowest start of a fitting run.
    fn find(&self, fit: Fit) -> Option<u32> {
        // Nothing below is free [P4], so a fit within the chunk of `first_free` is the lowest.
        let hint = (self.first_free / CHUNK_PAGES) as usize;
        if self.levels[0].get(hint)?.longest >= fit.pages {
            let base = hint as u32 * CHUNK_PAGES;
            let found = self.chunks[hint].first_fit(base, base, fit);
            if found.is_some() {
                return found;
            }
        }
        if self.levels[self.height].first()?.longest < fit.pages {
            return None;
        }
        self.search(self.height, 0, 0, fit)
    }

    /// Returns the lowest fit that starts at `open` or above and ends in the given node. The free
    /// run just before the node starts at `open`, which is the node's own start if there is no such
    /// run.
    fn search(&self, level: usize, node: usize, mut open: u32, fit: Fit) -> Option<u32> {
        if level == 0 {
            return self.chunks[node].first_fit(node as u32 * CHUNK_PAGES, open, fit);
        }
        let below = &self.levels[level - 1];
        let pages = pages_of_node(level - 1);
        let mut base = (node << FAN_SHIFT) as u32 * pages;
        for (child, summary) in below
            .iter()
            .enumerate()
            .skip(node << FAN_SHIFT)
            .take(1 << FAN_SHIFT)
        {
            let found = fit.first_in(open, base + summary.head);
            if found.is_some() {
                return found;
            }
            if summary.head < pages {
                if summary.longest >= fit.pages {
                    let found = self.search(level - 1, child, open, fit);
                    if found.is_some() {
                        return found;
                    }
                }
                open = base + pages - summary.tail;
            }
            base += pages;
        }
        None
    }

    /// Marks free pages used. Returns how many of them were released.
    fn occupy(&mut self, at: u32, pages: u32) -> u32 {
        self.free -= pages;
        let mut released = 0;
        let first = (at / CHUNK_PAGES) as usize;
        let (from, to) = (at % CHUNK_PAGES, at % CHUNK_PAGES + pages);
        if to > CHUNK_PAGES {
            self.for_each_chunk(at, pages, |chunk, from, to| {
                released += chunk.set_used(from, to);
            });
            self.released -= released;
            return released;
        }
        let chunk = &mut self.chunks[first];
        let summary = &mut self.levels[0][first];
        let before = *summary;
        let run = chunk.free_before(from) + pages + chunk.free_after(to);
        released = chunk.set_used(from, to);
        summary.head = before.head.min(from);
        summary.tail = before.tail.min(CHUNK_PAGES - to);
        if run == before.longest {
            summary.longest = chunk.longest_run();
        }
        if *summary != before {
            self.lift(first, first);
        }
        self.released -= released;
        released
    }

    /// Marks pages free: idle if they were in use, released if they were leaving (which the caller
    /// counts).
    fn vacate(&mut self, at: u32, pages: u32) {
        self.free += pages;
        self.first_free = self.first_free.min(at);
        let first = (at / CHUNK_PAGES) as usize;
        let (from, to) = (at % CHUNK_PAGES, at % CHUNK_PAGES + pages);
        if to > CHUNK_PAGES {
            self.for_each_chunk(at, pages, Chunk::set_free);
            let last = (at + pages - 1) / CHUNK_PAGES;
            return (first..=last as usize).for_each(|chunk| self.hint(chunk));
        }
        let chunk = &mut self.chunks[first];
        let summary = &mut self.levels[0][first];
        let before = *summary;
        chunk.set_free(from, to);
        let (start, end) = (from - chunk.free_before(from), to + chunk.free_after(to));
        summary.longest = before.longest.max(end - start);
        if start == 0 {
            summary.head = end;
        }
        if end == CHUNK_PAGES {
            summary.tail = end - start;
        }
        if *summary != before {
            self.lift(first, first);
        }
        self.hint(first);
    }

    /// Marks a run that crosses chunks, piece by piece, and recomputes the summaries above it once.
    #[cold]
    fn for_each_chunk(&mut self, at: u32, pages: u32, mut mark: impl FnMut(&mut Chunk, u32, u32)) {
        let first = (at / CHUNK_PAGES) as usize;
        let last = ((at + pages - 1) / CHUNK_PAGES) as usize;
        for chunk in first..=last {
            let base = chunk as u32 * CHUNK_PAGES;
            let from = at.max(base) - base;
            let to = (at + pages - base).min(CHUNK_PAGES);
            mark(&mut self.chunks[chunk], from, to);
            self.levels[0][chunk] = self.chunks[chunk].summary();
        }
        self.lift(first, last);
    }

    /// Calls `mark` with each chunk that has some of the pages, and with the part of them that it
    /// has. The caller counts the pages.
    fn mark_each(&mut self, at: u32, pages: u32, mark: fn(&mut Chunk, u32, u32)) {
        let end = at + pages;
        for chunk in at / CHUNK_PAGES..end.div_ceil(CHUNK_PAGES) {
            let base = chunk * CHUNK_PAGES;
            let (from, to) = (at.max(base) - base, (end - base).min(CHUNK_PAGES));
            mark(&mut self.chunks[chunk as usize], from, to);
        }
    }

    /// Records that pages of the chunk were freed.
    fn hint(&mut self, chunk: usize) {
        let strictest = if self.levels[0][chunk].longest >= GROUP_PAGES {
            Level::Whole
        } else {
            Level::Sparse
        };
        self.hints.set(chunk, strictest);
    }

    /// Recomputes the summary of one chunk from its bits, and the summaries above it.
    fn refresh(&mut self, chunk: usize) {
        let summary = self.chunks[chunk].summary();
        if self.levels[0][chunk] != summary {
            self.levels[0][chunk] = summary;
            self.lift(chunk, chunk);
        }
    }

    /// Recomputes the summaries above chunks `first..=last`, level by level, until nothing changes.
    fn lift(&mut self, mut first: usize, mut last: usize) {
        for level in 1..=self.height {
            first >>= FAN_SHIFT;
            last >>= FAN_SHIFT;
            let (below, here) = self.levels.split_at_mut(level);
            let mut changed = false;
            for (node, here) in (first..).zip(&mut here[0][first..=last]) {
                let summary = merge(&below[level - 1], level, node);
                changed |= *here != summary;
                *here = summary;
            }
            if !changed {
                break;
            }
        }
    }

    /// Returns the first of some pages, none above the top, that is in the given state.
    fn next_page(&self, pages: Range<u32>, state: PageState) -> Option<u32> {
        let mut at = pages.start;
        while at < pages.end {
            let (chunk, word) = word_of(at);
            let used = self.chunks[chunk].used[word];
            let wanted = match state {
                PageState::Free => !used,
                PageState::Used => used,
            };
            let here = wanted >> (at % WORD_PAGES);
            if here != 0 {
                return Some(at + here.trailing_zeros()).filter(|&found| found < pages.end);
            }
            at = (at / WORD_PAGES + 1) * WORD_PAGES;
        }
        None
    }
}

/// The state that [`PageHeap::next_page`] looks for.
#[derive(Clone, Copy)]
enum PageState {
    Free,
    Used,
}

/// Returns how many pages a node covers.
const fn pages_of_node(level: usize) -> u32 {
    CHUNK_PAGES << (FAN_SHIFT * level as u32)
}

/// Returns the chunk of a page, and the word in it.
const fn word_of(page: u32) -> (usize, usize) {
    let word = (page / WORD_PAGES) as usize;
    (word / WORDS, word % WORDS)
}

/// Returns the summary of a node above level 0, from the summaries of the level below.
fn merge(below: &[Summary], level: usize, node: usize) -> Summary {
    let pages = pages_of_node(level - 1);
    let end = below.len().min((node + 1) << FAN_SHIFT);
    let children = &below[node << FAN_SHIFT..end];
    let mut head = 0;
    let mut longest = 0;
    // The length of the free run that ends here, and whether all pages so far are free.
    let mut open = 0;
    let mut all_free = true;
    for child in children {
        longest = longest.max(open + child.head).max(child.longest);
        if child.head == pages {
            open += pages;
        } else {
            if all_free {
                head = open + child.head;
                all_free = false;
            }
            open = child.tail;
        }
    }
    if all_free {
        head = open;
    }
    Summary {
        head,
        longest,
        tail: open, // [P6]
    }
}
