//! What the sweep does with dead objects: whose code drops them, and what their slots hold after
//! it.

use crate::heap::span_class::ClassRef;
use crate::sys::fatal::fatal;

/// The byte that fills freed slots in poison mode: a poisoned pointer is far outside user space.
pub(crate) const POISON: u8 = 0xDB;

/// What happens to dead objects; the collector implements it.
pub(crate) trait DeadObjects {
    /// The object at `at`, of `class`, in a slot of `slot` bytes, is dead and is to be dropped,
    /// now.
    fn drop_object(&mut self, class: ClassRef, at: *mut u8, slot: usize);
}

/// For a mutator that sweeps on its way: it runs no user code.
#[derive(Debug)]
pub(crate) struct NoDrops;

impl DeadObjects for NoDrops {
    fn drop_object(&mut self, _: ClassRef, _: *mut u8, _: usize) {
        fatal("a mutator swept a span whose objects need a drop");
    }
}
