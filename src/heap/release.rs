//! Free memory goes back to the system; and what the heap holds, in bytes.
//!
//! The arena's memory is in use (spans), idle (free, and the system still has memory behind it) or released. An
//! allocation turns released pages into used ones, [`MHeap::release_some`] idle ones into released ones. The background
//! does it by `gc/scavenger.rs`. An allocation does it for itself where its pages would take the heap over one of two
//! bounds, which the collector sets: first as much goes back elsewhere, and no more, so that nobody waits long.
//!
//! What is counted is what the heap asked the system for. With huge pages, or with pages of the system larger than
//! ours, more may be behind it than that.

use crate::base::addr::PAGE_SHIFT;
use crate::heap::mheap::MHeap;
use crate::heap::pages::{Effort, PageHeap};
use crate::pace::scavenge::{QUANTUM, before_mapping};
use crate::sys::sync::{AtomicU64, Ordering};

/// What an allocation at the limit gives back beyond its own size, at most, to bring the heap below the limit again.
const MOST_EXTRA: u64 = 1 << 20;

/// How much memory is behind the arena, and how much should be.
#[derive(Debug)]
pub(crate) struct Backing {
    /// Bytes of pages that are neither released nor untouched. Falls only under the lock of the page heap.
    bytes: AtomicU64,
    /// Past so many bytes an allocation that needs memory releases idle memory; `u64::MAX`: never.
    by_growth: AtomicU64,
    /// The same with the tables counted, and with more force: the memory limit.
    limit: AtomicU64,
}

impl Backing {
    /// Nothing is backed, and there are no bounds.
    pub(super) fn new() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            by_growth: AtomicU64::new(u64::MAX),
            limit: AtomicU64::new(u64::MAX),
        }
    }
}

/// What a heap holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeapMemory {
    /// In spans.
    pub(crate) in_use: u64,
    /// Free, with memory behind it; page caches included.
    pub(crate) idle: u64,
    /// Free, with no memory behind it: given back, or never touched since the arena grew.
    pub(crate) released: u64,
    /// Bitmaps and tables for all of these.
    pub(crate) metadata: u64,
}

impl HeapMemory {
    /// Memory of the arena that the system backs.
    pub(crate) const fn backed(&self) -> u64 {
        self.in_use + self.idle
    }

    /// The same with the tables: what counts against the memory limit.
    pub(crate) const fn mapped(&self) -> u64 {
        self.backed() + self.metadata
    }
}

impl MHeap {
    /// What the heap holds just now. The figures add up to the size of the arena and its tables, also while others
    /// allocate and release, but may then be of different moments. O(1).
    pub(crate) fn memory(&self) -> HeapMemory {
        // Page 0 holds nothing [H1].
        let all = u64::from(self.top() - 1) << PAGE_SHIFT;
        // Relaxed (both): figures.
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

    /// Bytes of tables: two bitmaps (1/64 each), three page tables (8 + 4 + 16 bytes a page) for what the arena has
    /// grown to, and the page heap's own.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        let pages = u64::from(self.top());
        (pages << PAGE_SHIFT) / 32 + pages * 28 + self.page_heap_bytes() as u64
    }

    /// Sets the bounds that allocations keep to, in bytes; `u64::MAX` is none. `by_growth` is for the arena, `limit` for
    /// everything.
    pub(crate) fn set_bounds(&self, by_growth: u64, limit: u64) {
        // Relaxed (both): figures.
        self.backing.by_growth.store(by_growth, Ordering::Relaxed);
        self.backing.limit.store(limit, Ordering::Relaxed);
    }

    /// Gives idle memory back until it is `most` bytes or a little more (it does not split what should stay whole, at
    /// most 2 MiB), or there is none left; returns the bytes.
    ///
    /// One system call a piece, of at most 2 MiB, and no lock is held meanwhile. What the system refuses is left.
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

    /// One system call; its bytes, or 0 if the system refused. `None`: there is nothing to release.
    fn release_piece(&self, most: u64, effort: Effort) -> Option<u64> {
        let most = u32::try_from(most >> PAGE_SHIFT).unwrap_or(u32::MAX);
        let (at, pages) = self.pages.lock().take_idle(most, effort)?;
        let (from, len) = (
            (at.0 as usize) << PAGE_SHIFT,
            (pages as usize) << PAGE_SHIFT,
        );
        // SAFETY: 1. the pages are leaving: no span and no page cache has them, and nobody gets them before they are
        // free again below.
        let released = unsafe { self.arena.release(from, len) };
        let mut heap = self.pages.lock();
        if !released {
            heap.cancel_release(at, pages);
            return Some(0);
        }
        heap.finish_release(at, pages);
        // Relaxed: a figure.
        self.backing.bytes.fetch_sub(len as u64, Ordering::Relaxed);
        Some(len as u64)
    }

    /// Counts `pages` released pages that are about to be used, and first gives idle ones back if a bound asks for it:
    /// at the limit what the heap is over, but at most 1 MiB more than is needed now; past the other as much as is needed.
    #[cold]
    pub(super) fn back_pages(&self, pages: u32) {
        let wanted = u64::from(pages) << PAGE_SHIFT;
        // Relaxed (all): figures.
        let backed = self.backing.bytes.fetch_add(wanted, Ordering::Relaxed) + wanted;
        let limit = self.backing.limit.load(Ordering::Relaxed);
        if limit != u64::MAX {
            let over = before_mapping(0, backed + self.metadata_bytes(), limit);
            if over > 0 {
                // Not page by page: the next allocations find room.
                let bytes = over.max(QUANTUM).min(wanted + MOST_EXTRA);
                self.release_some(bytes, Effort::Forced);
                return;
            }
        }
        if backed > self.backing.by_growth.load(Ordering::Relaxed) {
            self.release_some(wanted.max(QUANTUM), Effort::Gentle);
        }
    }

    /// Checks the count of backed bytes against the page heap; `cached`: the released pages in page caches.
    pub(super) fn verify_figures(&self, heap: &PageHeap, cached: u32) -> Result<(), String> {
        let pages = heap.top().0 - 1 - heap.released_pages() - cached;
        // Relaxed: whoever changes it holds the lock of the page heap, or is a mutator, and those are stopped.
        let backed = self.backing.bytes.load(Ordering::Relaxed);
        if backed != u64::from(pages) << PAGE_SHIFT {
            return Err(format!(
                "{pages} pages are not released, but {backed} bytes count as backed"
            ));
        }
        Ok(())
    }
}
