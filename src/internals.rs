//! The one door to the inside, for benchmarks, fuzzing and tests of this crate. It is not covered
//! by semver.

pub use crate::sys::inject::{OsCall, refuse, set_clock_ahead};
#[cfg(feature = "sabotage")]
pub use crate::sys::sabotage::{Fault, break_the_collector};

use crate::api::heap::Heap;
use crate::api::lock::GcLock;
use crate::api::root::{Root, WeakRoot};
use crate::heap::pages::PageHeap;
use crate::heap::pages::hints::Effort;
use crate::heap::run::PageId;
use crate::object::trace::Trace;

/// Counts `clones` more handles of the root, as if they had been made and forgotten.
pub fn forget_clones<T: ?Sized>(root: &Root<T>, clones: u32) {
    root.forget_clones(clones);
}

/// Does what [`forget_clones`] does, for a weak root.
pub fn forget_weak_clones<T: ?Sized>(root: &WeakRoot<T>, clones: u32) {
    root.forget_clones(clones);
}

/// Counts `guards` more read guards of the lock, as if they had been taken and forgotten.
pub fn forget_reads<T: Trace>(lock: &GcLock<T>, guards: u32) {
    lock.forget_reads(guards);
}

/// Returns how many blocks of 4 KiB the heap's root slots take.
#[must_use]
pub fn root_blocks(heap: &Heap) -> usize {
    heap.handle().collector.roots.blocks()
}

/// Makes a fresh heap count its cycles from `cycle` on, and its sweep generations from `generation`
/// on. The number of a cycle has 32 bits, and so has the generation that a span keeps.
///
/// # Panics
/// If something was allocated, or a mutator is attached.
pub fn count_cycles_from(heap: &Heap, cycle: u32, generation: u64) {
    heap.handle().collector.count_from(cycle, generation);
}

/// The page allocator, by page numbers.
#[derive(Debug)]
pub struct PageAllocator(PageHeap);

impl PageAllocator {
    /// Makes an allocator that can grow to `capacity` pages.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self(PageHeap::new(capacity, 1))
    }

    /// Adds `pages` free pages at the top.
    pub fn grow(&mut self, pages: u32) {
        self.0.grow(pages);
    }

    /// Takes the lowest run of `pages` free pages at a multiple of `align_pages`. Returns its first
    /// page, and how many of its pages had no memory behind them.
    pub fn alloc(&mut self, pages: u32, align_pages: u32) -> Option<(u32, u32)> {
        let run = self.0.alloc(pages, align_pages)?;
        Some((run.at.0, run.released))
    }

    /// Takes a run of idle pages out, to be given back to the system. Returns the first page and
    /// how many they are: at most `most`, unless they are what is idle of a free huge page. With
    /// `forced` it also takes pages from groups that are nearly all in use.
    pub fn take_idle(&mut self, most: u32, forced: bool) -> Option<(u32, u32)> {
        let effort = if forced {
            Effort::Forced
        } else {
            Effort::Gentle
        };
        let (at, pages) = self.0.take_idle(most, effort)?;
        Some((at.0, pages))
    }

    /// Makes what `take_idle` returned free again: released, or still idle because the system
    /// refused.
    pub fn put_back(&mut self, at: u32, pages: u32, released: bool) {
        if released {
            self.0.finish_release(PageId(at), pages);
        } else {
            self.0.cancel_release(PageId(at), pages);
        }
    }

    /// Gives `pages` pages from `at` on back to the allocator.
    pub fn free(&mut self, at: u32, pages: u32) {
        self.0.free(PageId(at), pages);
    }

    /// Returns the number of free pages.
    #[must_use]
    pub fn free_pages(&self) -> u32 {
        self.0.free_pages()
    }

    /// Returns the number of free pages with no memory behind them.
    #[must_use]
    pub fn released_pages(&self) -> u32 {
        self.0.released_pages()
    }

    /// Checks every invariant.
    ///
    /// # Errors
    /// The first broken invariant.
    pub fn verify(&self) -> Result<(), &'static str> {
        self.0.verify()
    }
}
