//! What AddressSanitizer is told about slots: one that is free, or not handed out yet, must not be touched.
//!
//! The sanitizer sees a reservation as one block that is always valid. Under `--cfg greywave_asan`, which `.ci/asan` sets,
//! spans are poisoned when they are born, slots are opened when they are handed out and poisoned again when they are swept;
//! so any access to a dead object, also one by user code through a stale pointer, ends the process with a report. Without
//! it these functions are empty.
//!
//! The interface is `sanitizer/asan_interface.h` of LLVM's compiler-rt. Its granule is 8 bytes; slots begin and end at
//! multiples of 8.

/// Whether the sanitizer is told.
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
    // SAFETY: it marks the sanitizer's own memory; any range may be given.
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
