//! Addresses of the arena, and the page map, which leads from any address to its span, class and
//! object.
//!
//! What the map holds is [H2]; which pages it may be asked about is [H5].

use super::MHeap;
use crate::base::addr::PAGE_SHIFT;
use crate::heap::span::Span;
use crate::heap::span_class::{ClassRef, Kind};
use crate::sys::sync::Ordering;

impl MHeap {
    /// Returns the offset of an address in the arena; `None` for any other address, such as a
    /// zero-sized object's.
    #[inline(always)]
    pub(crate) fn offset_of(&self, address: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.base);
        (offset < self.arena.len()).then_some(offset)
    }

    /// Returns the pointer to an offset.
    #[inline(always)]
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        self.arena.base().wrapping_add(offset)
    }

    /// Returns the class of the span that holds `offset`, if there is one.
    #[inline(always)]
    pub(crate) fn class_at(&self, offset: usize) -> Option<ClassRef> {
        // Relaxed: a thread that holds a pointer into the span got it after the span was born, when
        // the object was published.
        let ptr = self
            .class_of
            .get(offset >> PAGE_SHIFT)
            .load(Ordering::Relaxed);
        // SAFETY: 1. `birth` stored it from a class of this heap, or it is null.
        unsafe { ClassRef::from_ptr(ptr) }
    }

    /// Returns the first page of the span that holds `offset`.
    pub(crate) fn first_page_of(&self, offset: usize) -> u32 {
        // Relaxed: as in `class_at`.
        self.first_pages
            .get(offset >> PAGE_SHIFT)
            .load(Ordering::Relaxed)
    }

    /// Returns the record of the span whose first page is `first_page`.
    pub(crate) fn span(&self, first_page: u32) -> &Span {
        self.spans.get(first_page as usize)
    }

    /// Finds the object that holds the byte at `address`. Returns its offset, its class, and the
    /// bytes from it to its slot's end.
    ///
    /// Any address is allowed. The slot may be free. O(1).
    pub(crate) fn find_object(&self, address: usize) -> Option<(usize, ClassRef, usize)> {
        let offset = self.offset_of(address)?;
        if offset >> PAGE_SHIFT >= self.top() as usize {
            return None; // [H5]
        }
        let class = self.class_at(offset)?;
        let first_page = self.first_page_of(offset);
        let start = (first_page as usize) << PAGE_SHIFT;
        if class.kind == Kind::Large {
            let object = start + self.object_at(first_page);
            let slot = self.slot_bytes(object, class);
            return (offset >= object && offset < object + slot).then_some((object, class, slot));
        }
        let index = class.slot_index(offset - start);
        (index < class.slots as usize).then(|| (start + index * class.slot, class, class.slot))
    }

    /// Returns how many bytes from the start of its span a large object is.
    pub(crate) fn object_at(&self, first_page: u32) -> usize {
        // Relaxed: it was written at the span's birth.
        self.span(first_page).object_at.load(Ordering::Relaxed) as usize
    }

    /// Returns the bytes from the object at `offset` to its slot's end.
    #[inline]
    pub(crate) fn slot_bytes(&self, offset: usize, class: ClassRef) -> usize {
        if class.kind != Kind::Large {
            return class.slot;
        }
        let first_page = self.first_page_of(offset);
        // Relaxed: it was written at the span's birth.
        let pages = self.span(first_page).pages.load(Ordering::Relaxed) as usize;
        ((first_page as usize + pages) << PAGE_SHIFT)
            - ((first_page as usize) << PAGE_SHIFT)
            - self.object_at(first_page)
    }

    /// Returns the end of the pages in which spans may be: `1 .. top`.
    pub(crate) fn top(&self) -> u32 {
        // Acquire: pairs with the Release in `birth`.
        self.top.load(Ordering::Acquire)
    }

    /// Whether the object at `offset` was allocated since the end of marking. While the sweep is
    /// not open, every older span awaits its sweep, and nobody allocates from it.
    pub(crate) fn is_young(&self, offset: usize) -> bool {
        let span = self.span(self.first_page_of(offset));
        !span.sweep_gen.state(self.generation()).awaits_sweep()
    }
}
