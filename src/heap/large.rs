//! Large objects, which are above the last size class, or aligned to more than a page. Each has a
//! span of its own.

use crate::base::addr::{PAGE_SHIFT, PAGE_SIZE, pages_for};
use crate::heap::mheap::{MHeap, OutOfPages, Paint};
use crate::heap::span::Holder;
use crate::heap::span_class::ClassRef;
use crate::sys::shadow;
use crate::sys::sync::Ordering;

/// A large object that was just allocated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LargeObject {
    /// The offset of the object in the arena.
    pub(crate) offset: usize,
    /// The bytes from there to the end of its span.
    pub(crate) slot: usize,
    /// The bytes of its span.
    pub(crate) span_bytes: usize,
}

impl MHeap {
    /// Allocates a span for one object of `class`, `size` bytes at a multiple of `align`.
    ///
    /// # Errors
    /// [`OutOfPages`] if the reservation is exhausted.
    pub(crate) fn alloc_large(
        &self,
        class: ClassRef,
        size: usize,
        align: usize,
        paint: Paint,
    ) -> Result<LargeObject, OutOfPages> {
        let pages = u32::try_from(pages_for(size.max(1))).map_err(|_| OutOfPages)?;
        let align_pages = u32::try_from(align.div_ceil(PAGE_SIZE)).map_err(|_| OutOfPages)?;
        // The arena's base is only aligned to a huge page. For a larger alignment the span is
        // longer, and the object is aligned inside it.
        let inside = align > crate::sys::mem::HUGE_PAGE;
        let (total, page_align) = if inside {
            (pages.checked_add(align_pages).ok_or(OutOfPages)?, 1)
        } else {
            (pages, align_pages)
        };
        let first_page = self.new_span(class, total, page_align, Holder::Nobody, None)?;
        let start = (first_page as usize) << PAGE_SHIFT;
        let offset = start + self.at(start).align_offset(align);
        // Relaxed: publishing the object publishes it.
        self.span(first_page)
            .object_at
            .store((offset - start) as u32, Ordering::Relaxed);
        if paint == Paint::Black {
            self.mark.set(offset);
        }
        let span_bytes = (total as usize) << PAGE_SHIFT;
        let slot = start + span_bytes - offset;
        shadow::open(self.at(offset), size);
        // [O2] This word is a list's length.
        shadow::open(self.at(offset + slot - 8), 8);
        class.stats.allocated(1, span_bytes as u64);
        Ok(LargeObject {
            offset,
            slot,
            span_bytes,
        })
    }
}
