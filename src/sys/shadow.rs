//! What AddressSanitizer knows about slots: nobody may touch a slot that is free or not handed out.
//!
//! The sanitizer sees a reservation as one block that is always valid. Under `--cfg greywave_asan`,
//! which `.ci/asan` sets, spans are poisoned when they are made, and slots are opened when they are
//! handed out and poisoned again when they are swept. So an access to a dead object, even one by
//! user code through a stale pointer, ends the process with a report. Without that setting these
//! functions are empty.
//!
//! The interface is `sanitizer/asan_interface.h` of LLVM's compiler-rt. Its granule is 8 bytes;
//! slots begin and end at multiples of 8.

/// Whether the sanitizer is informed.
pub(crate) const ON: bool = cfg!(greywave_asan);

#[cfg(greywave_asan)]
mod interface {
    use std::ffi::c_void;

    unsafe extern "C" {
        pub(super) fn __asan_poison_memory_region(at: *const c_void, bytes: usize);
        pub(super) fn __asan_unpoison_memory_region(at: *const c_void, bytes: usize);
    }
}

/// From now on nobody may touch `at .. at + bytes`.
#[inline(always)]
pub(crate) fn close(at: *const u8, bytes: usize) {
    #[cfg(greywave_asan)]
    // SAFETY: the call marks the sanitizer's own memory; any range is allowed.
    unsafe {
        interface::__asan_poison_memory_region(at.cast(), bytes);
    }
    let _ = (at, bytes);
}

/// From now on `at .. at + bytes` may be used.
#[inline(always)]
pub(crate) fn open(at: *const u8, bytes: usize) {
    #[cfg(greywave_asan)]
    // SAFETY: as in `close`.
    unsafe {
        interface::__asan_unpoison_memory_region(at.cast(), bytes);
    }
    let _ = (at, bytes);
}
