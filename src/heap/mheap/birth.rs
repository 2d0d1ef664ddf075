//! The birth and death of spans. Their pages come from a mutator's page cache or from the page
//! heap, for which the arena grows, and they go back to the page heap.
//!
//! **Claim.** No more pages are in use than the hard limit allows [H6], and a request fails only if
//! it would pass the limit, if the system refuses memory, or if neither the free pages nor the rest
//! of the reservation have a run that is long enough.
//!
//! **How.** All pages are taken under the lock of the page heap. A mutator takes a page cache only
//! if a whole group fits below the limit. A request that finds nothing else waits for pages that
//! are on their way to the system, because they will be free soon. The arena grows in steps of 4
//! MiB, or by what the request needs if the system grants no more.

use super::{LAST_PART, MHeap, OutOfPages, Shortage};
use crate::base::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::heap::dead::POISON;
use crate::heap::mcache::MCache;
use crate::heap::page_cache::PageCache;
use crate::heap::pages::PageHeap;
use crate::heap::run::{PageId, PageRun};
use crate::heap::span::Holder;
use crate::heap::span_class::{ClassRef, Kind};
use crate::sys::sabotage::{self, Fault};
use crate::sys::shadow;
use crate::sys::sync::{Ordering, yield_now};

/// The arena grows by at least this many pages (4 MiB).
const GROW_PAGES: u32 = if crate::sys::MODELLED { 16 } else { 512 };
/// With [`Options::huge_pages`], the arena requests them from this size on; a small heap stays
/// small.
const HUGE_FROM: usize = 32 << 20;
/// Spans of fewer pages than this come from the mutator's page cache.
const CACHED_PAGES: u32 = 16;
/// A mutator takes a new page cache for a span of at most this many pages. A longer one is rarely
/// found in a group of 64, and would only exchange one cache for another.
const MAX_FOR_NEW_CACHE: u32 = 4;

impl MHeap {
    /// Takes pages for a span of `class`, which `holder` then holds.
    pub(crate) fn new_span(
        &self,
        class: ClassRef,
        pages: u32,
        align: u32,
        holder: Holder,
        cache: Option<&MCache>,
    ) -> Result<u32, OutOfPages> {
        let (run, grown) = match cache {
            Some(cache) if pages < CACHED_PAGES && align == 1 => self.cached_pages(cache, pages)?,
            _ => self.take_pages(pages, align)?,
        };
        let first_page = run.at.0;
        if run.released > 0 {
            self.put_memory_behind(&run, grown, cache);
        }
        let span = self.span(first_page);
        // Relaxed (all three): `birth`'s Release publishes them.
        span.pages.store(pages, Ordering::Relaxed);
        span.object_at.store(0, Ordering::Relaxed);
        span.all_allocated
            .store(u32::from(class.kind == Kind::Large), Ordering::Relaxed);
        for page in first_page..first_page + sabotage::pick(Fault::OnlyFirstPageMapped, 1, pages) {
            // Relaxed (both): publishing the span's first object publishes them.
            self.first_pages
                .get(page as usize)
                .store(first_page, Ordering::Relaxed);
            self.class_of
                .get(page as usize)
                .store(class.as_ptr(), Ordering::Relaxed);
        }
        self.close_pages(first_page, pages);
        span.sweep_gen.birth(self.generation(), holder);
        // Relaxed: statistics only.
        self.span_bytes
            .fetch_add(u64::from(pages) << PAGE_SHIFT, Ordering::Relaxed);
        Ok(first_page)
    }

    /// Counts the run's released pages as backed. The arena grew by `grown` pages for the run.
    ///
    /// If the run is short, a mutator is about to fill it. So the run gets its memory now, together
    /// with the pages that follow it in the mutator's cache. A long run gets its memory when it is
    /// written, because it may stay zero and untouched.
    #[cold]
    fn put_memory_behind(&self, run: &PageRun, grown: u32, cache: Option<&MCache>) {
        let Some(cache) = cache.filter(|_| run.pages < CACHED_PAGES) else {
            return self.back_pages(run.released, grown);
        };
        let ahead = match &mut *cache.pages.borrow_mut() {
            Some(pages) => pages.back_after(run),
            None => 0,
        };
        self.back_pages(run.released + ahead, grown);
        let from = (run.at.0 as usize) << PAGE_SHIFT;
        let len = ((run.pages + ahead) as usize) << PAGE_SHIFT;
        self.arena.populate(from, len);
    }

    /// Gives the pages of a dead span back. The caller holds the span's sweep claim, and has
    /// cleared its bits.
    pub(crate) fn free_pages(&self, first_page: u32, pages: u32) {
        for page in first_page..first_page + sabotage::pick(Fault::PageMapNotCleared, 0, pages) {
            // Relaxed (both): nobody has a pointer into the span; a thread that gets its pages
            // takes the page lock first.
            self.class_of
                .get(page as usize)
                .store(std::ptr::null_mut(), Ordering::Relaxed);
            self.first_pages
                .get(page as usize)
                .store(0, Ordering::Relaxed);
        }
        // Relaxed: statistics only.
        self.span_bytes
            .fetch_sub(u64::from(pages) << PAGE_SHIFT, Ordering::Relaxed);
        let mut heap = self.pages.lock();
        heap.free(PageId(first_page), pages);
        self.note_use(&heap);
    }

    /// Takes a run of pages, from the mutator's cache if it has one. Returns the run, and by how
    /// many pages the arena grew for it.
    fn cached_pages(&self, cache: &MCache, pages: u32) -> Result<(PageRun, u32), OutOfPages> {
        let mut slot = cache.pages.borrow_mut();
        if let Some(run) = slot.as_mut().and_then(|c| c.alloc(pages)) {
            return Ok((run, 0));
        }
        let mut heap = self.pages.lock();
        if let Some(old) = slot.take() {
            heap.give_cache(old);
        }
        // [H6] What a cache holds counts as in use, and here is room for a whole group. In the last
        // part of what may be used there are no caches, because the pages that one mutator keeps
        // would be missing for the others.
        let most = self.most_used();
        let room = most.saturating_sub(heap.in_use_pages());
        if pages <= MAX_FOR_NEW_CACHE
            && room >= PageCache::GROUP + most / LAST_PART
            && let Some(mut fresh) = heap.take_cache()
        {
            match fresh.alloc(pages) {
                Some(run) => {
                    *slot = Some(fresh);
                    self.note_use(&heap);
                    return Ok((run, 0));
                }
                None => heap.give_cache(fresh),
            }
        }
        if let Ok(taken) = self.take_locked(&mut heap, pages, 1) {
            return Ok(taken);
        }
        drop(heap);
        self.take_pages(pages, 1)
    }

    /// Gives a mutator's page cache back.
    pub(crate) fn give_back_pages(&self, cache: &MCache) {
        if let Some(pages) = cache.pages.borrow_mut().take() {
            let mut heap = self.pages.lock();
            heap.give_cache(pages);
            self.note_use(&heap);
        }
    }

    fn take_pages(&self, pages: u32, align: u32) -> Result<(PageRun, u32), OutOfPages> {
        loop {
            let mut heap = self.pages.lock();
            let taken = self.take_locked(&mut heap, pages, align);
            // Pages that are being given to the system will be free again soon.
            if taken.is_ok() || heap.leaving_pages() == 0 {
                return taken;
            }
            drop(heap);
            yield_now();
        }
    }

    fn take_locked(
        &self,
        heap: &mut PageHeap,
        pages: u32,
        align: u32,
    ) -> Result<(PageRun, u32), OutOfPages> {
        if pages > self.most_pages.saturating_sub(heap.in_use_pages()) {
            // Relaxed: statistics only.
            self.refused.store(0, Ordering::Relaxed);
            return Err(OutOfPages);
        }
        let mut grown = 0;
        loop {
            if let Some(run) = heap.alloc(pages, align) {
                self.note_use(heap);
                return Ok((run, grown));
            }
            let top = heap.top().0;
            let room = heap.capacity() - top;
            if room == 0 {
                // Relaxed: statistics only.
                self.refused.store(0, Ordering::Relaxed);
                return Err(OutOfPages);
            }
            let least = pages.saturating_add(align - 1).min(room);
            let grow = self.commit_for(top, least, least.max(GROW_PAGES).min(room))?;
            heap.grow(grow);
            grown += grow;
            // Release: publishes the zeroed records of the new pages; pairs with `top`.
            self.top.store(heap.top().0, Ordering::Release);
            let (from, bytes) = ((top as usize) << PAGE_SHIFT, (grow as usize) << PAGE_SHIFT);
            if self.huge_pages && from >= HUGE_FROM {
                self.arena.want_huge_pages(from & !(PAGE_SIZE - 1), bytes);
                self.mark
                    .want_huge_pages((from + bytes) & !((256 << 20) - 1));
            }
        }
    }

    /// Closes a new span's slots like freed ones.
    fn close_pages(&self, first_page: u32, pages: u32) {
        let (at, bytes) = (
            self.at((first_page as usize) << PAGE_SHIFT),
            (pages as usize) << PAGE_SHIFT,
        );
        if self.poison {
            shadow::open(at, bytes);
            // SAFETY: [H4] the pages were just taken from the page allocator, and nobody else has
            // them.
            unsafe { at.write_bytes(POISON, bytes) };
        }
        shadow::close(at, bytes);
    }

    fn note_use(&self, heap: &PageHeap) {
        // Relaxed: statistics only.
        self.used_pages
            .store(heap.in_use_pages(), Ordering::Relaxed);
    }

    /// Whether `bytes` more bytes may find no room, or the last part of what may be used has been
    /// reached.
    pub(crate) fn is_in_last_part(&self, bytes: u64) -> bool {
        let most = self.most_used();
        let least = most / LAST_PART;
        let wanted = u32::try_from(bytes >> PAGE_SHIFT).unwrap_or(u32::MAX);
        // Relaxed: statistics only.
        let used = self.used_pages.load(Ordering::Relaxed);
        used.saturating_add(least.max(wanted)) >= most
    }

    /// Returns the most pages that can be in use, by the hard limit and by the reservation.
    fn most_used(&self) -> u32 {
        let reserved = u32::try_from(self.reserved() >> PAGE_SHIFT).unwrap_or(u32::MAX);
        self.most_pages.min(reserved)
    }

    /// Returns the bytes that objects may fill: the reservation, or the hard limit if that is less.
    pub(crate) fn room(&self) -> usize {
        let limit = (self.most_pages as usize - 1).saturating_mul(PAGE_SIZE);
        self.reserved().min(limit)
    }

    /// Whether `size` bytes would fit into an empty heap. If not, that is the reason for the
    /// refusal.
    pub(crate) fn can_ever_hold(&self, size: usize, align: usize) -> bool {
        let fits = size <= self.room() && align <= self.room();
        if !fits {
            // Relaxed: it serves a report.
            self.refused.store(0, Ordering::Relaxed);
        }
        fits
    }

    /// Returns why the last request for pages failed.
    pub(crate) fn shortage(&self) -> Shortage {
        // Relaxed (both): statistics only.
        match self.refused.load(Ordering::Relaxed) {
            0 => Shortage::Room(self.room()),
            bytes => Shortage::Memory {
                bytes,
                of: self.span_bytes.load(Ordering::Relaxed),
            },
        }
    }
}
