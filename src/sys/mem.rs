//! Address space: one big reservation for objects, and zeroed tables beside it.
//!
//! Both are private anonymous mappings without a swap reservation: pages appear, zeroed, when they are first touched.
//!
//! **Invariants**
//! - `[M1]` A mapping is at `base .. base + len`, readable and writable, until its owner is dropped.
//! - `[M2]` A [`Table`] has room for `len` values of `T`, and all-zero bytes are a valid `T` ([`ZeroValid`]).

use std::io;
#[cfg(not(any(loom, shuttle)))]
use std::marker::PhantomData;
use std::sync::OnceLock;

#[cfg(not(miri))]
use memmap2::{MmapOptions, MmapRaw as Mapping};

use crate::sys::inject::{OsCall, is_refused};

/// The alignment of a reservation's base: a huge page.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// One contiguous range of address space.
#[derive(Debug)]
pub(crate) struct Reservation {
    map: Mapping,
    skip: usize,
    len: usize,
}

impl Reservation {
    /// Reserves `len` bytes at a multiple of [`HUGE_PAGE`].
    ///
    /// # Errors
    /// What the OS says when it refuses.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let map = map_zeroed(
            len.checked_add(HUGE_PAGE)
                .ok_or(io::ErrorKind::OutOfMemory)?,
        )?;
        let start = map.as_mut_ptr().addr();
        let skip = start.next_multiple_of(HUGE_PAGE) - start;
        // Tagged words keep 48 bits of an address. User space ends below that unless a process asks for more.
        if (start + skip + len) as u64 > 1 << 48 {
            return Err(io::Error::other("the address space found is above 2^48"));
        }
        Ok(Self { map, skip, len })
    }

    pub(crate) fn base(&self) -> *mut u8 {
        // `skip` is below HUGE_PAGE and the mapping is HUGE_PAGE longer than `len`.
        self.map.as_mut_ptr().wrapping_add(self.skip)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Asks for huge pages in `from .. from + len` (bytes from the base). A refusal costs speed only.
    pub(crate) fn want_huge_pages(&self, from: usize, len: usize) {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            debug_assert!(from + len <= self.len);
            let _ = self
                .map
                .advise_range(memmap2::Advice::HugePage, self.skip + from, len);
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        let _ = (from, len);
    }

    /// Gives the memory behind `from .. from + len` (bytes from the base, multiples of [`os_page`]) back to the OS; false
    /// when the OS refuses. The addresses stay ours, and the next write to one brings memory again. What they read as
    /// until then: see [`RELEASED_READS_ZERO`].
    ///
    /// Not by `memmap2`: it rounds the start of an unaligned range down, to bytes that somebody else may be using, and
    /// does not look where the range ends. The system call refuses such a range.
    ///
    /// # Safety
    /// 1. Nobody else reads or writes the range during the call, and nobody needs what was in it.
    pub(crate) unsafe fn release(&self, from: usize, len: usize) -> bool {
        assert!(
            len <= self.len && from <= self.len - len,
            "a release stays inside the reservation"
        );
        match RELEASE {
            #[cfg(unix)]
            Some(advice) if !is_refused(OsCall::Release) => {
                let at = self.base().wrapping_add(from).cast();
                // SAFETY: [M1] inside the mapping, just checked; clause 1.
                unsafe { libc::madvise(at, len, advice) == 0 }
            }
            _ => false,
        }
    }
}

/// Whether memory that was given back reads as zero, as memory does that was never touched. Linux promises it for private
/// anonymous mappings (madvise(2), `MADV_DONTNEED`); others may keep the old content for a while.
pub(crate) const RELEASED_READS_ZERO: bool = cfg!(all(
    any(target_os = "linux", target_os = "android"),
    not(miri)
));

/// How memory goes back: at once on Linux; elsewhere when the OS needs some; `None`: not at all.
const RELEASE: Option<std::ffi::c_int> = {
    // Miri has no mappings.
    #[cfg(miri)]
    let advice = None;
    #[cfg(all(not(miri), any(target_os = "linux", target_os = "android")))]
    let advice = Some(libc::MADV_DONTNEED);
    #[cfg(all(
        not(miri),
        any(
            target_vendor = "apple",
            target_os = "freebsd",
            target_os = "netbsd",
            target_os = "openbsd",
            target_os = "dragonfly"
        )
    ))]
    let advice = Some(libc::MADV_FREE);
    #[cfg(not(any(
        miri,
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly"
    )))]
    let advice = None;
    advice
};

/// Bytes of a page of the OS.
pub(crate) fn os_page() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        #[cfg(unix)]
        // SAFETY: a question without arguments in memory.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        #[cfg(not(unix))]
        let bytes = 4096;
        usize::try_from(bytes)
            .ok()
            .filter(|bytes| bytes.is_power_of_two())
            .unwrap_or(4096)
    })
}

/// A type for which all-zero bytes are a value, and which is shared between threads.
///
/// # Safety
/// 1. All-zero bytes are a valid `Self`. 2. `Self` needs no drop. 3. Its alignment is at most 4096.
#[cfg(not(any(loom, shuttle)))]
pub(crate) unsafe trait ZeroValid: Sync {}

/// As in a normal build; the checkers' atomics have no all-zero representation, but a default value that stands for it.
///
/// # Safety
/// As in a normal build, but for clause 1.
#[cfg(any(loom, shuttle))]
pub(crate) unsafe trait ZeroValid: Sync + Default {}

// SAFETY: 1. zero is a value of every integer atomic. 2. atomics need no drop. 3. aligned to at most 8.
unsafe impl ZeroValid for std::sync::atomic::AtomicU64 {}
// SAFETY: as for `AtomicU64`.
unsafe impl ZeroValid for std::sync::atomic::AtomicU32 {}
// SAFETY: the null pointer is all zeroes on every target we support; the rest as for `AtomicU64`.
unsafe impl<T> ZeroValid for std::sync::atomic::AtomicPtr<T> {}
// SAFETY: a plain value.
#[cfg(any(loom, shuttle))]
unsafe impl ZeroValid for crate::sys::checker::sync::atomic::AtomicU64 {}

/// A fixed array of zero-initialised shared values, in memory that is touched only where it is used.
#[cfg(not(any(loom, shuttle)))]
#[derive(Debug)]
pub(crate) struct Table<T> {
    map: Mapping,
    len: usize,
    elements: PhantomData<T>,
}

#[cfg(not(any(loom, shuttle)))]
impl<T: ZeroValid> Table<T> {
    /// A table of `len` zeroed values.
    ///
    /// # Errors
    /// What the OS says when it refuses.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let bytes = len
            .checked_mul(size_of::<T>())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            map: map_zeroed(bytes.max(1))?,
            len,
            elements: PhantomData,
        })
    }

    /// The value at `index`. O(1).
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &T {
        assert!(index < self.len, "table index in range");
        // SAFETY: just checked.
        unsafe { self.get_unchecked(index) }
    }

    /// The value at `index`, which the caller has checked.
    ///
    /// # Safety
    /// 1. `index` is below the table's length.
    #[inline]
    pub(crate) unsafe fn get_unchecked(&self, index: usize) -> &T {
        let start: *const T = self.map.as_ptr().cast();
        // SAFETY: [M2] and clause 1: the element is inside the mapping.
        let at = unsafe { start.add(index) };
        // SAFETY: [M2] zeroed or written as a `T` since; shared access only, `T: Sync`.
        unsafe { &*at }
    }

    /// Asks the processor to fetch the value at `index`; any index is harmless.
    #[inline]
    pub(crate) fn prefetch(&self, index: usize) {
        prefetch(self.map.as_ptr().cast::<T>().wrapping_add(index).cast());
    }

    /// Asks for huge pages behind the first `len` values.
    pub(crate) fn want_huge_pages(&self, len: usize) {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            let bytes = (len.min(self.len) * size_of::<T>()) & !(4096 - 1);
            let _ = self.map.advise_range(memmap2::Advice::HugePage, 0, bytes);
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        let _ = len;
    }
}

/// The same over a boxed slice; a model's tables have a few hundred values at most.
#[cfg(any(loom, shuttle))]
#[derive(Debug)]
pub(crate) struct Table<T>(Box<[T]>);

#[cfg(any(loom, shuttle))]
impl<T: ZeroValid> Table<T> {
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        Ok(Self((0..len).map(|_| T::default()).collect()))
    }

    pub(crate) fn get(&self, index: usize) -> &T {
        &self.0[index]
    }

    pub(crate) fn prefetch(&self, _: usize) {}

    pub(crate) fn want_huge_pages(&self, _: usize) {}
}

/// Asks the processor to fetch the cache line at `at`; any address is harmless.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no effect on memory and does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

#[cfg(not(miri))]
fn map_zeroed(len: usize) -> io::Result<Mapping> {
    if is_refused(OsCall::Map) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    MmapOptions::new()
        .len(len)
        .no_reserve_swap()
        .map_anon()
        .map(Mapping::from)
}

#[cfg(miri)]
fn map_zeroed(len: usize) -> io::Result<Mapping> {
    Mapping::new(len)
}

/// What stands for a mapping where there is none: zeroed memory, all of it there at once, so not much.
#[cfg(miri)]
#[derive(Debug)]
struct Mapping {
    start: std::ptr::NonNull<u8>,
    layout: std::alloc::Layout,
}

#[cfg(miri)]
impl Mapping {
    const MOST: usize = 24 << 20;

    fn new(len: usize) -> io::Result<Self> {
        if len > Self::MOST {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let layout = std::alloc::Layout::from_size_align(len, 4096).map_err(io::Error::other)?;
        // SAFETY: the callers ask for a byte at least.
        let start = std::ptr::NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) });
        let start = start.ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, layout })
    }

    fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    fn as_mut_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

#[cfg(miri)]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: from `new`, with that layout.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

// SAFETY: [M1] bytes; who may touch which is the owner's affair, as with a mapping.
#[cfg(miri)]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[cfg(miri)]
unsafe impl Sync for Mapping {}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_reservation_is_aligned_and_writable_at_both_ends() {
        let r = Reservation::new(64 << 20).expect("64 MiB of address space");
        assert_eq!(r.base().addr() % HUGE_PAGE, 0);
        for at in [0, r.len() - 1] {
            let p = r.base().wrapping_add(at);
            // SAFETY: [M1] inside the mapping, which nobody else uses.
            unsafe { p.write(7) };
            // SAFETY: as above.
            assert_eq!(unsafe { p.read() }, 7);
        }
    }

    #[test]
    #[cfg(unix)]
    fn released_memory_can_be_used_again_and_its_neighbours_keep_theirs() {
        let r = Reservation::new(64 << 20).expect("64 MiB of address space");
        let page = os_page();
        let write = |at: usize| {
            // SAFETY: [M1] inside the mapping, which nobody else uses.
            unsafe { r.base().wrapping_add(at).write(7) }
        };
        // SAFETY: as above.
        let read = |at: usize| unsafe { r.base().wrapping_add(at).read() };
        (0..4 * page).for_each(write);
        // SAFETY: nobody else uses the mapping.
        let released = unsafe { r.release(page, 2 * page) };
        assert!(released || RELEASE.is_none());
        assert_eq!((read(page - 1), read(3 * page)), (7, 7));
        if RELEASED_READS_ZERO {
            assert_eq!((read(page), read(3 * page - 1)), (0, 0));
        }
        write(page);
        assert_eq!(read(page), 7);
        // SAFETY: as above.
        let unaligned = unsafe { r.release(1, page) };
        assert!(!unaligned, "it would take memory in use with it");
        assert_eq!(read(0), 7);
    }

    #[test]
    fn an_impossible_reservation_is_an_error() {
        assert!(Reservation::new(usize::MAX - 4096).is_err());
    }

    #[test]
    fn a_table_starts_zeroed_and_keeps_what_is_stored() {
        let t: Table<AtomicU64> = Table::new(100_000).expect("a table");
        assert_eq!(t.get(99_999).load(Ordering::Relaxed), 0);
        t.get(50_000).store(3, Ordering::Relaxed);
        assert_eq!(t.get(50_000).load(Ordering::Relaxed), 3);
    }

    #[test]
    #[should_panic(expected = "table index in range")]
    fn a_table_checks_its_bounds() {
        let t: Table<AtomicU64> = Table::new(4).expect("a table");
        let _ = t.get(4);
    }
}
