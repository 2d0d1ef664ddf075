//! One big reservation for objects, and zeroed tables beside it.
//!
//! Both are spaces (`sys/space.rs`): address space of which a first part is committed and may be
//! used.
//!
//! **Invariants**
//! - `[M2]` A [`Table`] has room for `len` values of `T`, and all-zero bytes are a valid `T`
//!   ([`ZeroValid`]).
//! - `[M3]` Nobody asks a table for a value that is not committed. An index comes from an object,
//!   or from a page below the arena's top. The top rises only after the parts of the tables for it
//!   are committed (`heap/mheap.rs`).
//!
//! What was tried and dropped is in `sys/space.rs`.

#[cfg(not(any(loom, shuttle)))]
use std::marker::PhantomData;

use crate::sys::inject::{OsCall, is_refused};
use crate::sys::space::{Refused, Space, os_page};

/// The alignment of a reservation's base: a huge page.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// One contiguous range of address space.
#[derive(Debug)]
pub(crate) struct Reservation {
    space: Space,
    skip: usize,
    len: usize,
}

impl Reservation {
    /// Reserves `len` bytes at a multiple of [`HUGE_PAGE`]. None of them may be touched yet.
    ///
    /// # Errors
    /// The OS refuses.
    pub(crate) fn new(len: usize) -> Result<Self, Refused> {
        let all = len
            .checked_add(HUGE_PAGE)
            .ok_or_else(|| Refused::space(len, std::io::ErrorKind::OutOfMemory.into()))?;
        let space = Space::reserve(all)?;
        let start = space.start().addr();
        let skip = start.next_multiple_of(HUGE_PAGE) - start;
        // A tagged word keeps 48 bits of an address. User space ends below 2^48 unless a process
        // asks for more.
        if (start + skip + len) as u64 > 1 << 48 {
            let why = std::io::Error::other("the address space found is above 2^48");
            return Err(Refused::space(len, why));
        }
        Ok(Self { space, skip, len })
    }

    pub(crate) fn base(&self) -> *mut u8 {
        // `skip` is below HUGE_PAGE and the space is HUGE_PAGE longer than `len`.
        self.space.start().wrapping_add(self.skip)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes the first `bytes` usable. Only one thread may call this at a time.
    ///
    /// # Errors
    /// The OS refuses; nothing has changed then.
    pub(crate) fn commit(&self, bytes: usize) -> Result<(), Refused> {
        self.space.commit(self.skip + bytes)
    }

    /// Returns how many bytes from the base may be used.
    pub(crate) fn committed(&self) -> usize {
        self.space
            .committed()
            .saturating_sub(self.skip)
            .min(self.len)
    }

    /// Asks for huge pages in `from .. from + len` (bytes from the base, committed). If the OS
    /// refuses, only speed is lost.
    pub(crate) fn want_huge_pages(&self, from: usize, len: usize) {
        self.space.want_huge_pages(self.skip + from, len);
    }

    /// Puts memory behind `from .. from + len` (bytes from the base, multiples of [`os_page`],
    /// committed) by one system call, instead of a page fault for each page. If the OS cannot do
    /// that, the page faults bring the memory.
    pub(crate) fn populate(&self, from: usize, len: usize) {
        self.space.populate(self.skip + from, len);
    }

    /// Gives the memory behind `from .. from + len` (bytes from the base, multiples of [`os_page`])
    /// back to the OS. Returns false if the OS refuses. The addresses stay reserved, and the next
    /// write to one of them brings new memory. What they read as until then: see
    /// [`RELEASED_READS_ZERO`].
    ///
    /// The system call refuses a range that is not aligned.
    ///
    /// # Safety
    /// 1. Nobody else reads or writes the range during the call, and nobody needs its content.
    pub(crate) unsafe fn release(&self, from: usize, len: usize) -> bool {
        assert!(
            len <= self.len && from <= self.len - len,
            "a release stays inside the reservation"
        );
        // SAFETY: 1. [M1] the range is inside the space, as was just checked; clause 1.
        unsafe { release_pages(self.base().wrapping_add(from), len) }
    }
}

/// Does what [`Reservation::release`] does, for pages of any mapping of ours.
///
/// # Safety
/// 1. The range is part of a private anonymous mapping; nobody else reads or writes it during the
///    call, and nobody needs its content.
pub(crate) unsafe fn release_pages(at: *mut u8, len: usize) -> bool {
    match RELEASE {
        #[cfg(unix)]
        Some(advice) if !is_refused(OsCall::Release) => {
            // SAFETY: clause 1.
            unsafe { libc::madvise(at.cast(), len, advice) == 0 }
        }
        _ => false,
    }
}

/// Whether memory that was given back reads as zero, like memory that was never touched. Linux
/// promises that for private anonymous mappings (madvise(2), `MADV_DONTNEED`); other systems may
/// keep the old content for a while.
pub(crate) const RELEASED_READS_ZERO: bool = cfg!(all(
    any(target_os = "linux", target_os = "android"),
    not(miri)
));

/// How memory goes back: on Linux at once, elsewhere when the OS needs some; `None` means not at
/// all.
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

/// A type for which all-zero bytes are a value, and which threads may share.
///
/// # Safety
/// 1. All-zero bytes are a valid `Self`.
/// 2. `Self` needs no drop.
/// 3. Its alignment is at most 4096.
#[cfg(not(any(loom, shuttle)))]
pub(crate) unsafe trait ZeroValid: Sync {}

/// The same for a model. The checkers' atomics have no all-zero representation, so a default value
/// stands for it.
///
/// # Safety
/// The clauses of a normal build, without clause 1.
#[cfg(any(loom, shuttle))]
pub(crate) unsafe trait ZeroValid: Sync + Default {}

// SAFETY: 1. zero is a value of every integer atomic. 2. atomics need no drop. 3. its alignment is
// at most 8.
unsafe impl ZeroValid for std::sync::atomic::AtomicU64 {}
// SAFETY: as for `AtomicU64`.
unsafe impl ZeroValid for std::sync::atomic::AtomicU32 {}
// SAFETY: the null pointer is all zeroes on every supported target; the rest is as for `AtomicU64`.
unsafe impl<T> ZeroValid for std::sync::atomic::AtomicPtr<T> {}
// SAFETY: it is a plain value.
#[cfg(any(loom, shuttle))]
unsafe impl ZeroValid for crate::sys::checker::sync::atomic::AtomicU64 {}

/// A fixed array of zero-initialised shared values. Only the parts that are used take memory.
#[cfg(not(any(loom, shuttle)))]
#[derive(Debug)]
pub(crate) struct Table<T> {
    space: Space,
    len: usize,
    elements: PhantomData<T>,
}

#[cfg(not(any(loom, shuttle)))]
impl<T: ZeroValid> Table<T> {
    /// Reserves address space for a table of `len` values. None of them may be used yet.
    ///
    /// # Errors
    /// The OS refuses.
    pub(crate) fn reserve(len: usize) -> Result<Self, Refused> {
        Self::over(len, Space::reserve)
    }

    /// Makes a table of `len` values over a space of at least one byte, which `make` makes.
    fn over(len: usize, make: fn(usize) -> Result<Space, Refused>) -> Result<Self, Refused> {
        let bytes = len
            .checked_mul(size_of::<T>())
            .ok_or_else(|| Refused::space(usize::MAX, std::io::ErrorKind::OutOfMemory.into()))?;
        Ok(Self {
            space: make(bytes.max(1))?,
            len,
            elements: PhantomData,
        })
    }

    /// Makes the first `len` values usable; the new ones are zeroed. Only one thread may call this
    /// at a time.
    ///
    /// # Errors
    /// The OS refuses; nothing has changed then.
    pub(crate) fn commit(&self, len: usize) -> Result<(), Refused> {
        self.space.commit(len.saturating_mul(size_of::<T>()))
    }

    /// Makes a table of `len` zeroed values, all of which may be used.
    ///
    /// # Errors
    /// The OS refuses.
    pub(crate) fn new(len: usize) -> Result<Self, Refused> {
        Self::over(len, Space::whole)
    }

    /// Returns the value at `index`. O(1).
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &T {
        assert!(index < self.len, "table index in range");
        // SAFETY: it was just checked.
        unsafe { self.get_unchecked(index) }
    }

    /// Returns the value at `index`, which the caller has checked.
    ///
    /// # Safety
    /// 1. `index` is below the table's length.
    #[inline]
    pub(crate) unsafe fn get_unchecked(&self, index: usize) -> &T {
        debug_assert!(
            (index + 1) * size_of::<T>() <= self.space.committed(),
            "[M3] value {index} is not committed"
        );
        let start: *const T = self.space.start().cast_const().cast();
        // SAFETY: [M2] and clause 1: the element is inside the space.
        let at = unsafe { start.add(index) };
        // SAFETY: [M2] [M3] the bytes are zero, or were written as a `T`; access is shared, and `T:
        // Sync`.
        unsafe { &*at }
    }

    /// Asks the processor to fetch the value at `index`. Any index is harmless.
    #[inline]
    pub(crate) fn prefetch(&self, index: usize) {
        let start = self.space.start().cast_const();
        prefetch(start.cast::<T>().wrapping_add(index).cast());
    }

    /// Asks for huge pages behind the first `len` values, which are committed.
    pub(crate) fn want_huge_pages(&self, len: usize) {
        let bytes = (len.min(self.len) * size_of::<T>()) & !(os_page() - 1);
        self.space.want_huge_pages(0, bytes);
    }
}

/// The same over a boxed slice; the tables of a model have at most a few hundred values.
#[cfg(any(loom, shuttle))]
#[derive(Debug)]
pub(crate) struct Table<T>(Box<[T]>);

#[cfg(any(loom, shuttle))]
impl<T: ZeroValid> Table<T> {
    pub(crate) fn reserve(len: usize) -> Result<Self, Refused> {
        Self::new(len)
    }

    #[allow(clippy::unnecessary_wraps, reason = "as in a normal build")]
    pub(crate) fn commit(&self, _: usize) -> Result<(), Refused> {
        Ok(())
    }

    pub(crate) fn new(len: usize) -> Result<Self, Refused> {
        Ok(Self((0..len).map(|_| T::default()).collect()))
    }

    pub(crate) fn get(&self, index: usize) -> &T {
        &self.0[index]
    }

    pub(crate) fn prefetch(&self, _: usize) {}

    pub(crate) fn want_huge_pages(&self, _: usize) {}
}

/// Asks the processor to fetch the cache line at `at`. Any address is harmless.
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_reservation_is_aligned_and_writable_at_both_ends() {
        let r = Reservation::new(64 << 20).expect("64 MiB of address space");
        r.commit(r.len()).expect("memory");
        assert_eq!(r.base().addr() % HUGE_PAGE, 0);
        for at in [0, r.len() - 1] {
            let p = r.base().wrapping_add(at);
            // SAFETY: [M1] the byte is committed and inside the space, which nobody else uses.
            unsafe { p.write(7) };
            // SAFETY: as above.
            assert_eq!(unsafe { p.read() }, 7);
        }
    }

    /// The control is the part that was not requested. A kernel without the call has no memory
    /// there either.
    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn memory_is_behind_what_was_populated_and_behind_nothing_else() {
        let r = Reservation::new(8 << 20).expect("8 MiB of address space");
        r.commit(r.len()).expect("memory");
        let page = os_page();
        let are_there = |from: usize, pages: usize| {
            let mut there = vec![0_u8; pages];
            let at = r.base().wrapping_add(from).cast();
            // SAFETY: `there` has a byte for each page of the range, which is mapped [M1].
            let answer = unsafe { libc::mincore(at, pages * page, there.as_mut_ptr()) };
            assert_eq!(answer, 0);
            there.iter().filter(|&&is| is & 1 != 0).count()
        };
        assert_eq!(are_there(0, 64), 0);
        r.populate(8 * page, 16 * page);
        let all = are_there(8 * page, 16);
        let is_unknown = std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
        assert!(all == 16 || (is_unknown && all == 0), "{all} of 16 pages");
        assert_eq!((are_there(0, 8), are_there(24 * page, 40)), (0, 0));
        // SAFETY: [M1] committed, and inside the space, which nobody else uses.
        assert_eq!(unsafe { r.base().wrapping_add(8 * page).read() }, 0);
    }

    #[test]
    #[cfg(unix)]
    fn released_memory_can_be_used_again_and_its_neighbours_keep_theirs() {
        let r = Reservation::new(64 << 20).expect("64 MiB of address space");
        r.commit(1 << 20).expect("memory");
        let page = os_page();
        let write = |at: usize| {
            // SAFETY: [M1] the byte is committed and inside the space, which nobody else uses.
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
    #[cfg(all(debug_assertions, not(shuttle)))]
    #[should_panic(expected = "value 4096 is not committed")]
    fn a_value_that_is_not_committed_is_not_given() {
        let t: Table<AtomicU64> = Table::reserve(1 << 20).expect("a table");
        t.commit(4096).expect("memory");
        let _ = t.get(4095);
        let _ = t.get(os_page().max(4096 * 8) / 8);
    }

    #[test]
    #[should_panic(expected = "table index in range")]
    fn a_table_checks_its_bounds() {
        let t: Table<AtomicU64> = Table::new(4).expect("a table");
        let _ = t.get(4);
    }
}
