//! The one door to the inside, for benchmarks, fuzzing and tests of this crate. Not covered by semver.

#[cfg(feature = "sabotage")]
pub use crate::gc::sabotage::{Fault, break_the_collector};

use crate::heap::pages::{PageHeap, PageId};

/// The page allocator, by page numbers.
#[derive(Debug)]
pub struct PageAllocator(PageHeap);

impl PageAllocator {
    /// An allocator that can grow to `capacity` pages.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self(PageHeap::new(capacity))
    }

    /// Adds `pages` free pages at the top.
    pub fn grow(&mut self, pages: u32) {
        self.0.grow(pages);
    }

    /// The lowest run of `pages` free pages at a multiple of `align_pages`, now in use.
    pub fn alloc(&mut self, pages: u32, align_pages: u32) -> Option<u32> {
        self.0.alloc(pages, align_pages).map(|run| run.at.0)
    }

    /// Gives `pages` pages from `at` on back.
    pub fn free(&mut self, at: u32, pages: u32) {
        self.0.free(PageId(at), pages);
    }

    /// Free pages.
    #[must_use]
    pub fn free_pages(&self) -> u32 {
        self.0.free_pages()
    }

    /// Checks every invariant.
    ///
    /// # Errors
    /// The broken one.
    pub fn verify(&self) -> Result<(), &'static str> {
        self.0.verify()
    }
}
