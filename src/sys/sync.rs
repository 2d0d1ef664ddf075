//! Atomics and cells, from the standard library, from loom or from shuttle.
//!
//! A module that has a model imports from here. The checkers' atomics have no all-zero
//! representation, so in a model the tables of `sys::mem` are not zeroed OS memory. The page map
//! uses the standard atomics directly, because no model covers it.
//!
//! loom tries every interleaving of a few steps, and every value that the memory orderings allow.
//! shuttle tries random interleavings of many steps, and treats each access as sequentially
//! consistent: it finds bad orders of events, but never a missing Acquire. Its cells are the
//! standard library's, which it does not watch.

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence};

#[cfg(any(loom, shuttle))]
pub(crate) use crate::sys::checker::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence,
};

pub(crate) use std::sync::atomic::Ordering;

/// A cell whose accesses loom can check. The closures get a raw pointer that is valid during the
/// call.
#[cfg(not(loom))]
#[derive(Debug)]
#[repr(transparent)]
#[allow(
    clippy::disallowed_types,
    reason = "this is the facade the lint points to"
)]
pub(crate) struct UnsafeCell<T: ?Sized>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
#[allow(
    clippy::disallowed_types,
    reason = "this is the facade the lint points to"
)]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }

    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Tells the processor, or the checker, that this thread waits in a loop.
#[inline]
pub(crate) fn spin_hint() {
    #[cfg(any(loom, shuttle))]
    crate::sys::checker::thread::yield_now();
    #[cfg(not(any(loom, shuttle)))]
    std::hint::spin_loop();
}

/// Lets another thread run.
#[inline]
pub(crate) fn yield_now() {
    #[cfg(any(loom, shuttle))]
    crate::sys::checker::thread::yield_now();
    #[cfg(not(any(loom, shuttle)))]
    std::thread::yield_now();
}
