//! Memory of Gs that have ended, kept for new ones.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::RefCell;
use std::ptr::NonNull;

/// Sizes are rounded up to a multiple of this, in bytes.
const STEP: usize = 64;
/// Larger Gs are not kept.
const CLASSES: usize = 16;
/// How many of each size an M keeps (Go keeps 64 of one size on each P).
const KEPT: usize = 64;

/// What one M keeps.
#[derive(Debug, Default)]
pub(crate) struct Memory(RefCell<[Vec<NonNull<u8>>; CLASSES]>);

/// What is really asked for, so that blocks of a class are alike.
fn rounded(layout: Layout) -> Layout {
    let size = layout.size().next_multiple_of(STEP);
    Layout::from_size_align(size, layout.align()).unwrap_or(layout)
}

fn class_of(layout: Layout) -> Option<usize> {
    let class = layout.size().div_ceil(STEP).checked_sub(1)?;
    (class < CLASSES && layout.align() <= 16).then_some(class)
}

/// The layout of a block of that class.
fn block(class: usize) -> Layout {
    const { assert!(STEP.is_power_of_two()) };
    // SAFETY: 16 is a power of two, and the size is small.
    unsafe { Layout::from_size_align_unchecked((class + 1) * STEP, 16) }
}

fn layout_of(layout: Layout) -> Layout {
    class_of(layout).map_or_else(|| rounded(layout), block)
}

/// New memory.
pub(crate) fn allocate(layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: a G has a header, so the size is not 0.
    NonNull::new(unsafe { alloc(layout_of(layout)) })
}

/// Back to the allocator.
pub(crate) fn release(at: NonNull<u8>, layout: Layout) {
    // SAFETY: from `allocate` or `Memory::take` with this layout, and nobody uses it.
    unsafe { dealloc(at.as_ptr(), layout_of(layout)) }
}

impl Memory {
    pub(crate) fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        if let Some(class) = class_of(layout)
            && let Some(at) = self.0.borrow_mut()[class].pop()
        {
            return Some(at);
        }
        allocate(layout)
    }

    pub(crate) fn give(&self, at: NonNull<u8>, layout: Layout) {
        if let Some(class) = class_of(layout) {
            let kept = &mut self.0.borrow_mut()[class];
            if kept.len() < KEPT {
                kept.push(at);
                return;
            }
        }
        release(at, layout);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for (class, kept) in self.0.get_mut().iter_mut().enumerate() {
            for at in kept.drain(..) {
                // SAFETY: blocks of that class, which nobody uses.
                unsafe { dealloc(at.as_ptr(), block(class)) };
            }
        }
    }
}
