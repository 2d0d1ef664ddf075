//! Addresses of the arena, and the page map: from any address to its span, class and object.
//!
//! What the map holds is [H2]; which pages may be asked about is [H5].

use super::MHeap;
use crate::base::addr::PAGE_SHIFT;
use crate::heap::span::Span;
use crate::heap::span_class::{ClassRef, Kind};
use crate::sys::sync::Ordering;

impl MHeap {
    /// The offset of an address in the arena, or `None` for any other address (such as a zero-sized
    /// object's).
    #[inline(always)]
    pub(crate) fn offset_of(&self, address: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.base);
        (offset < self.arena.len()).then_some(offset)
    }

    /// The pointer to an offset.
    #[inline(always)]
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        self.arena.base().wrapping_add(offset)
    }

    /// The class of the span that holds `offset`, if any.
    #[inline(always)]
    pub(crate) fn class_at(&self, offset: usize) -> Option<ClassRef> {
        // Relaxed: whoever holds a pointer into the span got it after the span was born
        // (publication of the object).
        let ptr = self
            .class_of
            .get(offset >> PAGE_SHIFT)
            .load(Ordering::Relaxed);
        // SAFETY: 1. stored by `birth` from a class of this heap, or null.
        unsafe { ClassRef::from_ptr(ptr) }
    }

    /// The first page of the span that holds `offset`.
    pub(crate) fn head_at(&self, offset: usize) -> u32 {
        // Relaxed: as in `class_at`.
        self.head_of
            .get(offset >> PAGE_SHIFT)
            .load(Ordering::Relaxed)
    }

    /// The record of the span whose first page is `head`.
    pub(crate) fn span(&self, head: u32) -> &Span {
        self.spans.get(head as usize)
    }

    /// Finds the object that holds the byte at `address`: its offset, class and the bytes from it
    /// to its slot's end.
    ///
    /// Any address is allowed; whether the slot is allocated is not asked. O(1).
    pub(crate) fn find_object(&self, address: usize) -> Option<(usize, ClassRef, usize)> {
        let offset = self.offset_of(address)?;
        if offset >> PAGE_SHIFT >= self.top() as usize {
            return None; // [H5]
        }
        let class = self.class_at(offset)?;
        let head = self.head_at(offset);
        let start = (head as usize) << PAGE_SHIFT;
        if class.kind == Kind::Large {
            let object = start + self.object_at(head);
            let slot = self.slot_bytes(object, class);
            return (offset >= object && offset < object + slot).then_some((object, class, slot));
        }
        let index = class.slot_index(offset - start);
        (index < class.slots as usize).then(|| (start + index * class.slot, class, class.slot))
    }

    /// For a large object's span: bytes from the span's start to the object.
    pub(crate) fn object_at(&self, head: u32) -> usize {
        // Relaxed: written at the span's birth.
        self.span(head).object_at.load(Ordering::Relaxed) as usize
    }

    /// Bytes from the object at `offset` to its slot's end.
    #[inline]
    pub(crate) fn slot_bytes(&self, offset: usize, class: ClassRef) -> usize {
        if class.kind != Kind::Large {
            return class.slot;
        }
        let head = self.head_at(offset);
        // Relaxed: written at the span's birth.
        let pages = self.span(head).pages.load(Ordering::Relaxed) as usize;
        ((head as usize + pages) << PAGE_SHIFT)
            - ((head as usize) << PAGE_SHIFT)
            - self.object_at(head)
    }

    /// Pages that spans may be found in: `1 .. top`.
    pub(crate) fn top(&self) -> u32 {
        // Acquire: pairs with the Release in `birth`.
        self.top.load(Ordering::Acquire)
    }

    /// Whether the object at `offset` was allocated since the end of marking. While no sweep is
    /// open, every span from before awaits its sweep, and nobody allocates from one.
    pub(crate) fn is_young(&self, offset: usize) -> bool {
        let span = self.span(self.head_at(offset));
        !span.sweep_gen.state(self.generation()).awaits_sweep()
    }
}
