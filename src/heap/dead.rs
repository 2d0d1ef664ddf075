//! What the sweep does with dead objects: who drops them, and what their slots hold afterwards.

use crate::heap::span_class::ClassRef;
use crate::sys::fatal::fatal;

/// The byte that fills freed slots in poison mode. A pointer made of it is far outside user space.
pub(crate) const POISON: u8 = 0xDB;

/// The receiver of dead objects, which the collector implements.
pub(crate) trait DeadObjects {
    /// Drops the dead object at `at`, of `class`, in a slot of `slot` bytes, now.
    fn drop_object(&mut self, class: ClassRef, at: *mut u8, slot: usize);
}

/// The receiver of a mutator that sweeps during an allocation: it runs no user code.
#[derive(Debug)]
pub(crate) struct NoDrops;

impl DeadObjects for NoDrops {
    fn drop_object(&mut self, _: ClassRef, _: *mut u8, _: usize) {
        fatal("a mutator swept a span whose objects need a drop");
    }
}
