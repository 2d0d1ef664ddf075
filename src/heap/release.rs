//! How free memory goes back to the system, and what the heap holds, in bytes.
//!
//! The arena's memory is in use (in spans), idle (free, and the system still has memory behind it)
//! or released. An allocation turns released pages into used ones; [`MHeap::release_some`] turns
//! idle pages into released ones. `gc/scavenger.rs` calls it in the background.
//!
//! An allocation calls it in two cases, which depend on bounds that the collector sets:
//!
//! - Its pages would take the heap over the memory limit.
//! - The arena grows for it, because the free pages are in holes that are too small, and the heap
//!   holds more than it is expected to use.
//!
//! It then gives back about as many bytes elsewhere as it needs, and not much more, so that no
//! thread waits long.
//!
//! An allocation that only takes released pages again releases none. The heap is then breathing,
//! and one page would be traded for another: that was three quarters of the 60,000 page faults in a
//! second of `binary_trees`.
//!
//! The counts are of what the heap requested from the system. With huge pages, or if the system's
//! pages are larger than ours, there may be more memory behind it.

use crate::base::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::heap::backing::HeapMemory;
use crate::heap::mheap::MHeap;
use crate::heap::pages::PageHeap;
use crate::heap::pages::hints::Effort;
use crate::heap::run::PageId;
use crate::pace::scavenge::{QUANTUM, before_mapping};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{Ordering, yield_now};

/// The most bytes beyond its own size that an allocation at the limit gives back, to bring the heap
/// below the limit again.
const MOST_EXTRA: u64 = 1 << 20;

#[cfg(greywave_asan)]
impl Drop for MHeap {
    /// Opens the addresses, which another mapping may get next.
    fn drop(&mut self) {
        crate::sys::shadow::open(self.at(0), (self.top() as usize) << PAGE_SHIFT);
    }
}

impl MHeap {
    /// Returns what the heap holds now. The values add up to the size of the arena and its tables,
    /// even while other threads allocate and release; but then they may be of different moments.
    /// O(1).
    pub(crate) fn memory(&self) -> HeapMemory {
        // Page 0 holds nothing [H1].
        let all = u64::from(self.top() - 1) << PAGE_SHIFT;
        // Relaxed (both): statistics only.
        let in_use = self.span_bytes.load(Ordering::Relaxed).min(all);
        let backed = self
            .backing
            .bytes
            .load(Ordering::Relaxed)
            .clamp(in_use, all);
        HeapMemory {
            in_use,
            idle: backed - in_use,
            released: all - backed,
            metadata: self.metadata_bytes(),
        }
    }

    /// Returns the bytes of the tables: two bitmaps (1/64 each) and three page tables (8 + 4 + 16
    /// bytes a page) for what the arena has grown to, and the page heap's own.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        let pages = u64::from(self.top());
        (pages << PAGE_SHIFT) / 32 + pages * 28 + self.pages.lock().metadata_bytes() as u64
    }

    /// Returns the bytes of spans when marking last ended.
    pub(crate) fn last_peak(&self) -> u64 {
        // Relaxed: statistics only.
        self.backing.peak.load(Ordering::Relaxed)
    }

    /// Sets the bounds that allocations keep to, in bytes; `u64::MAX` means none. `by_growth` is
    /// for the arena, `limit` for everything.
    pub(crate) fn set_bounds(&self, by_growth: u64, limit: u64) {
        // Relaxed (both): they are hints.
        self.backing.by_growth.store(by_growth, Ordering::Relaxed);
        self.backing.limit.store(limit, Ordering::Relaxed);
    }

    /// Gives idle memory back until it has released `most` bytes or a little more (at most 2 MiB,
    /// because it does not split what should stay whole), or until none is left. Returns the bytes.
    ///
    /// Each piece, of at most 2 MiB, takes one system call, and no lock is held meanwhile. What the
    /// system refuses stays.
    pub(crate) fn release_some(&self, most: u64, effort: Effort) -> u64 {
        let mut done = 0;
        while done < most {
            let Some(bytes) = self.release_piece(most - done, effort) else {
                break;
            };
            done += bytes;
        }
        done
    }

    /// Gives all idle memory back, even what the system refused before, and waits for what other
    /// threads are giving back. Returns the bytes that this call released.
    pub(crate) fn release_all(&self) -> u64 {
        self.pages.lock().search_all_again();
        let mut done = 0;
        loop {
            done += self.release_some(u64::MAX, Effort::Forced);
            if self.pages.lock().leaving_pages() == 0 {
                return done;
            }
            yield_now();
        }
    }

    /// Releases one piece by one system call. Returns its bytes, 0 if the system refused, or `None`
    /// if there is nothing to release.
    fn release_piece(&self, most: u64, effort: Effort) -> Option<u64> {
        let most = u32::try_from(most >> PAGE_SHIFT).unwrap_or(u32::MAX);
        let (at, pages) = self.pages.lock().take_idle(most, effort)?;
        let (from, len) = (
            (at.0 as usize) << PAGE_SHIFT,
            (pages as usize) << PAGE_SHIFT,
        );
        let from = sabotage::pick(Fault::UsedPageReleased, from - PAGE_SIZE, from);
        // SAFETY: 1. the pages are leaving: they are in no span and no page cache, and nobody gets
        // them before they are free again below.
        let released = unsafe { self.arena.release(from, len) };
        let mut heap = self.pages.lock();
        if !released {
            heap.cancel_release(at, pages);
            return Some(0);
        }
        heap.finish_release(at, pages);
        // Relaxed: statistics only.
        self.backing.bytes.fetch_sub(len as u64, Ordering::Relaxed);
        Some(len as u64)
    }

    /// Counts `pages` released pages that are about to be used; the arena has grown by `grown`
    /// pages for them. If a bound requires it, gives idle pages back first. At the limit these are
    /// what the heap is over, but at most 1 MiB more than is needed now; for growth they are not
    /// more than is needed now.
    #[cold]
    pub(super) fn back_pages(&self, pages: u32, grown: u32) {
        let wanted = u64::from(pages) << PAGE_SHIFT;
        // Relaxed (all): statistics only.
        let backed = self.backing.bytes.fetch_add(wanted, Ordering::Relaxed) + wanted;
        let limit = self.backing.limit.load(Ordering::Relaxed);
        if limit != u64::MAX {
            let over = before_mapping(0, backed + self.metadata_bytes(), limit);
            if over > 0 {
                // A larger amount than one page makes room for the next allocations, too.
                let bytes = over.max(QUANTUM).min(wanted + MOST_EXTRA);
                self.release_some(bytes, Effort::Forced);
                return;
            }
        }
        let grown = u64::from(grown) << PAGE_SHIFT;
        let by_growth = self.backing.by_growth.load(Ordering::Relaxed);
        let over = (backed - wanted + grown).saturating_sub(by_growth);
        self.release_some(over.min(grown), Effort::Gentle);
    }

    /// Checks the page allocator against `in_use`, which says for each page whether it is in a span
    /// or a page cache. Also checks its counts, of which `cached` are the released pages in page
    /// caches. No mutator runs.
    pub(crate) fn verify_pages(
        &self,
        cached: u32,
        mut in_use: impl FnMut(u32) -> bool,
    ) -> Result<(), String> {
        let heap = self.pages.lock();
        heap.verify().map_err(str::to_owned)?;
        self.verify_backed_bytes(&heap, cached)?;
        for page in 1..heap.top().0 {
            let (free, used) = (heap.is_free(PageId(page)), in_use(page));
            // A thread may be giving pages back now, even while the world is stopped.
            if free == used && (used || !heap.is_leaving(PageId(page))) {
                return Err(format!(
                    "page {page}: free = {free} in the page heap, in use = {used} by spans and caches"
                ));
            }
        }
        Ok(())
    }

    /// Checks the count of backed bytes against the page heap; `cached` counts the released pages
    /// in page caches.
    fn verify_backed_bytes(&self, heap: &PageHeap, cached: u32) -> Result<(), String> {
        let pages = heap.top().0 - 1 - heap.released_pages() - cached;
        // Relaxed: a thread that changes it holds the lock of the page heap, or is a mutator, and
        // mutators are stopped.
        let backed = self.backing.bytes.load(Ordering::Relaxed);
        if backed != u64::from(pages) << PAGE_SHIFT {
            return Err(format!(
                "{pages} pages are not released, but {backed} bytes count as backed"
            ));
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::heap::mcache::MCache;
    use crate::heap::mheap::Options;
    use crate::heap::size_class::class_of;
    use crate::heap::span::Holder;
    use crate::sys::mem::RELEASED_READS_ZERO;

    const MIB: u64 = 1 << 20;

    /// A heap, and what is in its spans: the first page and the number of pages of each.
    struct Scene {
        heap: MHeap,
        cache: MCache,
        spans: Vec<(u32, u32)>,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                heap: MHeap::new(256 << 20, Options::default()).expect("address space"),
                cache: MCache::new(),
                spans: Vec::new(),
            }
        }

        /// Adds a span of this many pages, and writes to each of them.
        fn add(&mut self, pages: u32) {
            let class = self.heap.fixed_class(class_of(64, 8).expect("a class"));
            let cache = Some(&self.cache);
            let first_page = self
                .heap
                .new_span(class, pages, 1, Holder::Mutator, cache)
                .expect("room");
            let (from, len) = (first_page as usize * PAGE_SIZE, pages as usize * PAGE_SIZE);
            // SAFETY: the span's own pages, which nobody else uses.
            unsafe { self.heap.at(from).write_bytes(7, len) };
            self.spans.push((first_page, pages));
            self.check();
        }

        /// Returns the bytes of the cache's pages that have memory behind them.
        fn ahead(&self) -> u64 {
            let cached = self.cache.pages.borrow();
            let pages = cached
                .as_ref()
                .map_or(0, |c| (c.free & !c.released).count_ones());
            u64::from(pages) << PAGE_SHIFT
        }

        fn remove(&mut self, index: usize) {
            let (first_page, pages) = self.spans.swap_remove(index);
            self.heap.free_pages(first_page, pages);
            self.check();
        }

        fn release(&self, most: u64, effort: Effort) -> u64 {
            let before = self.heap.memory();
            let bytes = self.heap.release_some(most, effort);
            self.check();
            let after = self.heap.memory();
            assert_eq!(before.idle - after.idle, bytes);
            assert_eq!(after.released - before.released, bytes);
            assert_eq!(before.in_use, after.in_use);
            bytes
        }

        /// Compares every count with every other.
        fn check(&self) {
            let memory = self.heap.memory();
            let pages: u32 = self.spans.iter().map(|span| span.1).sum();
            assert_eq!(memory.in_use, u64::from(pages) << PAGE_SHIFT);
            let all = u64::from(self.heap.top() - 1) << PAGE_SHIFT;
            assert_eq!(memory.backed() + memory.released, all);
            let cached = self.cache.pages.borrow();
            let (free, base) = cached.as_ref().map_or((0, 0), |c| (c.free, c.base.0));
            let released = cached.as_ref().map_or(0, |c| c.released.count_ones());
            let in_cache =
                |page: u32| (base..base + 64).contains(&page) && free >> (page - base) & 1 != 0;
            let in_span = |page: u32| {
                let mut spans = self.spans.iter();
                spans.any(|&(first_page, pages)| (first_page..first_page + pages).contains(&page))
            };
            let checked = self
                .heap
                .verify_pages(released, |page| in_span(page) || in_cache(page));
            assert_eq!(checked, Ok(()));
        }
    }

    #[test]
    fn memory_is_in_use_then_idle_then_released_then_in_use_again() {
        let mut scene = Scene::new();
        for pages in [1, 3, 600, 16, 1, 2, 40, 4] {
            scene.add(pages);
        }
        let ahead = scene.ahead();
        // The arena grew for the first page; the cache gave three, one and two before the last run.
        assert_eq!(ahead, 6 << PAGE_SHIFT);
        assert_eq!(scene.heap.memory().idle, ahead, "nothing was freed");
        let hole = scene.spans[2];
        scene.remove(2);
        assert_eq!(scene.heap.memory().idle, (600 << PAGE_SHIFT) + ahead);
        assert_eq!(
            scene.release(64 << 10, Effort::Gentle),
            2 * MIB,
            "a huge page goes as a whole"
        );
        assert_eq!(scene.release(64 << 10, Effort::Gentle), 64 << 10);
        assert_eq!(
            scene.release(u64::MAX, Effort::Forced),
            (600 - 256 - 8) << PAGE_SHIFT
        );
        assert_eq!(scene.release(u64::MAX, Effort::Forced), 0);
        scene.add(600);
        assert_eq!(scene.spans.last(), Some(&hole), "first fit");
    }

    #[test]
    fn released_pages_read_as_zero_where_the_system_promises_it() {
        let mut scene = Scene::new();
        scene.add(20);
        scene.add(1);
        scene.remove(0);
        scene.release(u64::MAX, Effort::Forced);
        let run = scene.heap.pages.lock().alloc(20, 1).expect("free pages");
        let at = scene.heap.at((run.at.0 as usize) << PAGE_SHIFT);
        // SAFETY: the pages were just taken, and nobody else uses them.
        let bytes = unsafe { std::slice::from_raw_parts(at, 20 << PAGE_SHIFT) };
        assert_eq!(run.needs_zero, !RELEASED_READS_ZERO);
        assert!(run.needs_zero || bytes.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn an_allocation_over_a_bound_gives_back_as_much_as_it_takes() {
        let mut scene = Scene::new();
        // There are holes of 40 pages between spans of 10.
        for _ in 0..64 {
            scene.add(40);
            scene.add(10);
        }
        (0..64).rev().for_each(|hole| scene.remove(hole * 2));
        let before = scene.heap.memory();
        scene.heap.set_bounds(0, u64::MAX);
        scene.add(60);
        assert_eq!(scene.heap.memory().idle, before.idle, "there was room");
        let before = scene.heap.memory();
        scene.heap.set_bounds(before.backed(), u64::MAX);
        scene.add(600);
        let after = scene.heap.memory();
        assert_eq!(after.backed(), before.backed(), "the arena grew");
        // At the limit it gives back what the heap is over, but only a bounded amount at a time.
        scene.heap.set_bounds(u64::MAX, after.mapped() - 10 * MIB);
        scene.add(60);
        let bounded = scene.heap.memory();
        assert_eq!(bounded.backed(), after.backed() - MIB);
        scene.heap.set_bounds(u64::MAX, bounded.mapped() + MIB);
        scene.add(60);
        assert_eq!(scene.heap.memory().idle, bounded.idle, "there is room");
    }

    #[test]
    fn a_full_heap_waits_for_pages_that_are_leaving() {
        let mut scene = Scene::new();
        let all = (256 << 20 >> PAGE_SHIFT) - 1;
        scene.add(all / 2);
        scene.add(all - all / 2);
        scene.remove(0);
        let (at, pages) = {
            let mut heap = scene.heap.pages.lock();
            heap.take_idle(u32::MAX, Effort::Forced)
                .expect("idle pages")
        };
        std::thread::scope(|scope| {
            let heap = &scene.heap;
            let allocation = scope.spawn(|| {
                let class = heap.fixed_class(class_of(64, 8).expect("a class"));
                heap.new_span(class, all / 2, 1, Holder::Mutator, None)
            });
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!allocation.is_finished());
            heap.pages.lock().cancel_release(at, pages);
            assert_eq!(allocation.join().expect("no panic"), Ok(1));
        });
    }

    #[test]
    fn a_page_that_is_counted_free_and_used_or_neither_is_reported() {
        let mut scene = Scene::new();
        // The run is too long for the page cache.
        scene.add(30);
        scene.add(20);
        scene.remove(0);
        let (used, top) = (31, scene.heap.top());
        let verify = |lie: u32| {
            let in_use = |page: u32| ((used..used + 20).contains(&page)) != (page == lie);
            scene.heap.verify_pages(0, in_use)
        };
        assert_eq!(verify(0), Ok(()));
        for free in [1, 30, used + 20, top - 1] {
            let report =
                format!("page {free}: free = true in the page heap, in use = true by spans");
            assert!(
                verify(free).is_err_and(|e| e.starts_with(&report)),
                "{free}"
            );
        }
        let report = format!("page {used}: free = false in the page heap, in use = false by");
        assert!(verify(used).is_err_and(|e| e.starts_with(&report)));
        // Pages that are just being given back are neither.
        let (at, pages) = {
            let mut heap = scene.heap.pages.lock();
            heap.take_idle(u32::MAX, Effort::Forced)
                .expect("idle pages")
        };
        assert_eq!(verify(0), Ok(()));
        scene.heap.pages.lock().cancel_release(at, pages);
    }

    #[test]
    fn bytes_that_are_backed_and_miscounted_are_reported() {
        let mut scene = Scene::new();
        scene.add(30);
        // Relaxed (both): there is one thread.
        scene.heap.backing.bytes.fetch_add(8, Ordering::Relaxed);
        let report = scene.heap.verify_pages(0, |page| (1..31).contains(&page));
        let expected = "30 pages are not released, but 245768 bytes count as backed";
        assert_eq!(report, Err(expected.to_owned()));
        scene.heap.backing.bytes.fetch_sub(8, Ordering::Relaxed);
        scene.check();
    }
}
