//! Address space that is reserved first, and made usable piece by piece.
//!
//! A new [`Space`] is a private anonymous mapping that nobody may touch. [`Space::commit`] makes a
//! growing first part of it readable and writable. When a page there is first touched, it appears
//! zeroed.
//!
//! **Why it is not writable from the start.** The system expects that a writable mapping will be
//! used. Under strict overcommit (`vm.overcommit_memory=2`, which ignores `MAP_NORESERVE`) and
//! under `RLIMIT_DATA` all of it counts. A core dump is as large as the mapping; writing one of 256
//! GiB took 23 s. `mlockall(MCL_FUTURE)` fills it with memory, which took 9 s for 1 GiB. A mapping
//! that nobody may touch counts for none of these. The price is a system call for each piece that
//! is added, and that a read past the committed part ends the process, where it would otherwise
//! read zero.
//!
//! **Who maps.** A space that is needed as a whole is memory from the start ([`Space::whole`]): the
//! chunks of root slots, the bitmap of a verifier's walk. `memmap2` maps these, and everything on
//! systems without `mprotect`.
//!
//! `memmap2` cannot make a reservation, because all that it maps anonymously is writable at first.
//! Linux's default overcommit refuses 256 GiB by `map_anon` (ENOMEM), and `make_read_only` would
//! come too late. `no_reserve_swap` helps there, but under an `RLIMIT_DATA` of 256 MiB it is
//! refused. `map_copy_read_only` of `/dev/zero` counts for neither; but `mlockall(MCL_FUTURE)`
//! walks it (0.56 s for 4 GiB), and it needs a file that a sandbox may not have. So a reservation
//! is a call of `libc`.
//!
//! **Why a space is only two mappings.** For the kernel the committed part is one mapping and the
//! rest another, because it merges neighbours with equal rights. So a space costs two of the 65,530
//! mappings that a process may have by default, however often it grows.
//!
//! **Invariants**
//! - `[M1]` A space is at `start .. start + len` until it is dropped. Its first `committed` bytes
//!   are readable and writable, and zero where nobody has written. `committed` only rises.
//!
//! **Elsewhere.** Without `mmap`, and under Miri, the whole space is usable from the start. A
//! commit still counts there, so that the same mistakes are found.

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::sys::inject::{OsCall, is_refused};

/// The bytes of all spaces of the process.
static RESERVED: AtomicU64 = AtomicU64::new(0);

/// Returns the size of a page of the OS, in bytes.
pub(crate) fn os_page() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        #[cfg(unix)]
        // SAFETY: the call takes no pointer.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        #[cfg(not(unix))]
        let bytes = 4096;
        usize::try_from(bytes)
            .ok()
            .filter(|bytes| bytes.is_power_of_two())
            .unwrap_or(4096)
    })
}

/// What this crate requested from the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requested {
    /// Address space.
    Space,
    /// The right to use address space.
    Memory,
    /// Address space, with the right to use it.
    Mapping,
}

/// A request that the system has refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) requested: Requested,
    pub(crate) bytes: usize,
    pub(crate) why: io::Error,
}

impl Refused {
    pub(crate) fn space(bytes: usize, why: io::Error) -> Self {
        Self {
            requested: Requested::Space,
            bytes,
            why,
        }
    }

    fn mapping(bytes: usize, why: io::Error) -> Self {
        Self {
            requested: Requested::Mapping,
            bytes,
            why,
        }
    }
}

/// Names the limits that may be the cause, which the system does not do.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        match self.requested {
            Requested::Space => {
                write!(f, "{bytes} bytes of address space cannot be had; ")?;
                let ours = reserved();
                match address_limit() {
                    Some(limit) => write!(f, "RLIMIT_AS is {limit} bytes")?,
                    None => f.write_str("RLIMIT_AS is unlimited")?,
                }
                write!(f, ", heaps of this process have {ours}")?;
                // A locked mapping that is too large is refused with this code, whatever its
                // rights.
                if self.why.kind() == io::ErrorKind::WouldBlock {
                    f.write_str("; after mlockall(MCL_FUTURE) RLIMIT_MEMLOCK bounds it, too")?;
                }
                Ok(())
            }
            Requested::Mapping => {
                write!(f, "a mapping of {bytes} bytes cannot be had (")?;
                if let Some(limit) = address_limit() {
                    write!(f, "RLIMIT_AS is {limit} bytes, ")?;
                }
                f.write_str("RLIMIT_DATA, or vm.overcommit_memory=2 and its limit)")
            }
            Requested::Memory => write!(
                f,
                "the system refuses {bytes} bytes of memory (RLIMIT_DATA, or vm.overcommit_memory=2 and its limit)"
            ),
        }
    }
}

/// One contiguous range of address space, of which a first part may be used.
#[derive(Debug)]
pub(crate) struct Space {
    map: os::Map,
    len: usize,
    /// [M1] Relaxed everywhere: a thread that uses a place was told of it by a thread that has seen
    /// it committed.
    committed: AtomicUsize,
}

impl Space {
    /// Reserves `len` bytes, at least 1. None of them may be touched yet.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn reserve(len: usize) -> Result<Self, Refused> {
        if is_refused(OsCall::Map) {
            return Err(Refused::space(len, io::ErrorKind::OutOfMemory.into()));
        }
        let map = os::Map::reserve(len).map_err(|why| Refused::space(len, why))?;
        // Relaxed: statistics only.
        RESERVED.fetch_add(len as u64, Ordering::Relaxed);
        Ok(Self {
            map,
            len,
            committed: AtomicUsize::new(0),
        })
    }

    /// Maps `len` bytes, at least 1, all of which may be used.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn whole(len: usize) -> Result<Self, Refused> {
        if is_refused(OsCall::Map) || is_refused(OsCall::Commit) {
            return Err(Refused::mapping(len, io::ErrorKind::OutOfMemory.into()));
        }
        let map = os::Map::whole(len).map_err(|why| Refused::mapping(len, why))?;
        // Relaxed: statistics only.
        RESERVED.fetch_add(len as u64, Ordering::Relaxed);
        Ok(Self {
            map,
            len,
            committed: AtomicUsize::new(len),
        })
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.map.start()
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns how many bytes from the start may be used.
    pub(crate) fn committed(&self) -> usize {
        self.committed.load(Ordering::Relaxed)
    }

    /// Makes the first `bytes` usable, rounded up to whole pages of the system. Only one thread may
    /// call this at a time. It is a system call if they are not usable already.
    ///
    /// # Errors
    /// The system refuses, or `bytes` is past the end. What was usable before stays usable.
    pub(crate) fn commit(&self, bytes: usize) -> Result<(), Refused> {
        if bytes > self.len {
            return Err(Refused::space(bytes, io::ErrorKind::InvalidInput.into()));
        }
        let from = self.committed();
        let to = bytes.next_multiple_of(os_page()).min(self.len);
        if to <= from {
            return Ok(());
        }
        let granted = if is_refused(OsCall::Commit) {
            Err(io::ErrorKind::OutOfMemory.into())
        } else {
            self.map.commit(from, to - from)
        };
        granted.map_err(|why| Refused {
            requested: Requested::Memory,
            bytes: to - from,
            why,
        })?;
        self.committed.store(to, Ordering::Relaxed);
        Ok(())
    }

    /// Puts memory behind `from .. from + len` by one system call. The whole range is committed.
    ///
    /// The call is Linux's (madvise(2), `MADV_POPULATE_WRITE`, since 5.14). An older kernel refuses
    /// it once, and is not asked again.
    pub(crate) fn populate(&self, from: usize, len: usize) {
        debug_assert!(from + len <= self.committed());
        #[cfg(all(target_os = "linux", not(any(miri, loom, shuttle))))]
        {
            use std::sync::atomic::AtomicBool;
            static IS_UNKNOWN: AtomicBool = AtomicBool::new(false);
            // Relaxed (both): a hint.
            if IS_UNKNOWN.load(Ordering::Relaxed) {
                return;
            }
            let at = self.start().wrapping_add(from).cast();
            // SAFETY: [M1] a range of ours; the advice changes no byte of it.
            let refused = unsafe { libc::madvise(at, len, libc::MADV_POPULATE_WRITE) } != 0;
            if refused && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
                IS_UNKNOWN.store(true, Ordering::Relaxed);
            }
        }
        #[cfg(not(all(target_os = "linux", not(any(miri, loom, shuttle)))))]
        let _ = len;
    }

    /// Asks for huge pages in `from .. from + len`, all of it committed. If the system refuses,
    /// only speed is lost.
    pub(crate) fn want_huge_pages(&self, from: usize, len: usize) {
        debug_assert!(from + len <= self.committed());
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            let at = self.start().wrapping_add(from).cast();
            // SAFETY: [M1] the range is ours; the advice changes no byte of it.
            let _ = unsafe { libc::madvise(at, len, libc::MADV_HUGEPAGE) };
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        let _ = (from, len);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Relaxed: statistics only.
        RESERVED.fetch_sub(self.len as u64, Ordering::Relaxed);
    }
}

/// Returns the bytes of address space that the heaps of this process have, including their tables.
pub(crate) fn reserved() -> u64 {
    // Relaxed: statistics only.
    RESERVED.load(Ordering::Relaxed)
}

/// Checks whether `bytes` bytes of address space are available now.
///
/// # Errors
/// The system refuses.
pub(crate) fn is_left(bytes: usize) -> Result<(), Refused> {
    if cfg!(miri) {
        return Ok(()); // there is no address space but what the allocator gives
    }
    // This does not call `Space::reserve`: a test can make that fail, and it counts the space.
    os::Map::reserve(bytes)
        .map(drop)
        .map_err(|why| Refused::space(bytes, why))
}

/// Returns `RLIMIT_AS` in bytes, if there is such a limit.
pub(crate) fn address_limit() -> Option<u64> {
    #[cfg(all(unix, not(miri)))]
    {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: it writes to `limit`.
        let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
        #[allow(
            clippy::unnecessary_cast,
            reason = "the type is signed on some systems"
        )]
        let bytes = limit.rlim_cur as u64;
        (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some(bytes)
    }
    #[cfg(not(all(unix, not(miri))))]
    None
}

#[cfg(all(unix, not(miri)))]
mod os {
    use std::io;
    use std::ptr::NonNull;

    use memmap2::{MmapMut, MmapRaw};

    /// The system sets no swap space aside. Systems without the flag never do.
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    const NO_RESERVE: libc::c_int = libc::MAP_NORESERVE;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    const NO_RESERVE: libc::c_int = 0;

    /// What unmaps a mapping.
    #[derive(Debug)]
    enum Owner {
        /// This module does; the number is its bytes.
        Reserved(usize),
        Whole {
            #[allow(dead_code, reason = "its drop is what it is for")]
            map: MmapRaw,
        },
    }

    #[derive(Debug)]
    pub(super) struct Map {
        /// The start is stored here, so that an access need not ask the owner for it.
        start: NonNull<u8>,
        owner: Owner,
    }

    impl Map {
        pub(super) fn whole(len: usize) -> io::Result<Self> {
            let map: MmapRaw = MmapMut::map_anon(len)?.into();
            let start = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
            let owner = Owner::Whole { map };
            Ok(Self { start, owner })
        }

        pub(super) fn reserve(len: usize) -> io::Result<Self> {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON | NO_RESERVE;
            let nowhere = std::ptr::null_mut();
            // SAFETY: it is a new mapping at an address that the system chooses, so that it
            // overlaps nothing.
            let start = unsafe { libc::mmap(nowhere, len, libc::PROT_NONE, flags, -1, 0) };
            if start == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
            let owner = Owner::Reserved(len);
            Ok(Self { start, owner })
        }

        #[inline]
        pub(super) fn start(&self) -> *mut u8 {
            self.start.as_ptr()
        }

        pub(super) fn commit(&self, from: usize, len: usize) -> io::Result<()> {
            let at = self.start().wrapping_add(from).cast();
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: [M1] the range is ours; the call takes no right away.
            match unsafe { libc::mprotect(at, len, rights) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    impl Drop for Map {
        fn drop(&mut self) {
            let Owner::Reserved(len) = self.owner else {
                return;
            };
            // SAFETY: it came from `reserve`, and nobody has a reference into it any more.
            let freed = unsafe { libc::munmap(self.start().cast(), len) };
            debug_assert_eq!(freed, 0, "an own mapping can be taken back");
        }
    }

    // SAFETY: [M1] it is only bytes at an address; the owner decides who may touch which.
    unsafe impl Send for Map {}
    // SAFETY: as above.
    unsafe impl Sync for Map {}
}

#[cfg(all(not(unix), not(miri)))]
mod os {
    use std::io;

    use memmap2::{MmapMut, MmapRaw};

    #[derive(Debug)]
    pub(super) struct Map(MmapRaw);

    impl Map {
        pub(super) fn reserve(len: usize) -> io::Result<Self> {
            Self::whole(len)
        }

        pub(super) fn whole(len: usize) -> io::Result<Self> {
            Ok(Self(MmapMut::map_anon(len)?.into()))
        }

        pub(super) fn start(&self) -> *mut u8 {
            self.0.as_mut_ptr()
        }

        pub(super) fn commit(&self, _: usize, _: usize) -> io::Result<()> {
            Ok(())
        }
    }
}

/// Replaces a mapping where there is none: zeroed memory, which is allocated at once and so must be
/// small.
#[cfg(miri)]
mod os {
    use std::alloc::Layout;
    use std::io;
    use std::ptr::NonNull;

    const MOST: usize = 24 << 20;

    #[derive(Debug)]
    pub(super) struct Map {
        start: NonNull<u8>,
        layout: Layout,
    }

    impl Map {
        pub(super) fn whole(len: usize) -> io::Result<Self> {
            Self::reserve(len)
        }

        pub(super) fn reserve(len: usize) -> io::Result<Self> {
            if len > MOST {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            let layout = Layout::from_size_align(len, 4096).map_err(io::Error::other)?;
            // SAFETY: the callers ask for at least one byte.
            let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) });
            let start = start.ok_or(io::ErrorKind::OutOfMemory)?;
            Ok(Self { start, layout })
        }

        pub(super) fn start(&self) -> *mut u8 {
            self.start.as_ptr()
        }

        pub(super) fn commit(&self, _: usize, _: usize) -> io::Result<()> {
            Ok(())
        }
    }

    impl Drop for Map {
        fn drop(&mut self) {
            // SAFETY: it came from `reserve`, with this layout.
            unsafe { std::alloc::dealloc(self.start(), self.layout) };
        }
    }

    // SAFETY: [M1] it is only bytes; the owner decides who may touch which, as with a mapping.
    unsafe impl Send for Map {}
    // SAFETY: as above.
    unsafe impl Sync for Map {}
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn space(pages: usize) -> Space {
        Space::reserve(pages * os_page()).expect("address space")
    }

    #[test]
    fn what_is_committed_can_be_used_and_reads_as_zero() {
        let space = space(64);
        for pages in [1, 2, 2, 1, 64] {
            space.commit(pages * os_page()).expect("memory");
            let last = space.start().wrapping_add(space.committed() - 1);
            // SAFETY: [M1] the byte is committed, and nobody else uses it.
            assert!(unsafe { last.read() } <= 7);
            // SAFETY: as above.
            unsafe { last.write(7) };
        }
        assert_eq!(space.committed(), space.len());
        let first = space.start().wrapping_add(os_page() - 1);
        // SAFETY: as above.
        assert_eq!(unsafe { first.read() }, 7, "a commit changes no byte");
    }

    #[test]
    fn what_is_mapped_as_a_whole_can_be_used_at_once_and_reads_as_zero() {
        let space = Space::whole(64 * os_page()).expect("memory");
        assert_eq!(space.committed(), space.len());
        for at in [0, space.len() - 1] {
            let place = space.start().wrapping_add(at);
            // SAFETY: [M1] the byte is committed, and nobody else uses it.
            assert_eq!(unsafe { place.read() }, 0);
            // SAFETY: as above.
            unsafe { place.write(7) };
        }
        space.commit(space.len()).expect("it is there already");
        let error = Space::whole(isize::MAX as usize).expect_err("more than there is");
        assert!(
            error.to_string().contains("9223372036854775807 bytes"),
            "{error}"
        );
    }

    #[test]
    fn a_commit_is_rounded_up_to_a_page_of_the_system() {
        let space = space(8);
        space.commit(1).expect("memory");
        assert_eq!(space.committed(), os_page());
        space.commit(os_page() + 1).expect("memory");
        assert_eq!(space.committed(), 2 * os_page());
    }

    #[test]
    fn a_commit_past_the_end_is_refused_and_changes_nothing() {
        let space = space(1);
        assert!(space.commit(os_page() + 1).is_err());
        assert_eq!(space.committed(), 0);
    }

    /// The rights and the bytes of each of the kernel's mappings in a range: `rw` or `--`.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn rights(from: usize, len: usize) -> Vec<(String, usize)> {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
        let mut found = Vec::new();
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let (range, rights) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let (start, end) = range.split_once('-').expect("two addresses");
            let address = |text| usize::from_str_radix(text, 16).expect("an address");
            let (start, end) = (address(start).max(from), address(end).min(from + len));
            if start < end {
                found.push((rights[..2].to_owned(), end - start));
            }
        }
        found
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn only_what_is_committed_has_rights_and_growth_makes_no_more_mappings() {
        let (space, page) = (space(64), os_page());
        let rights = || rights(space.start().addr(), space.len());
        assert_eq!(rights(), [("--".to_owned(), 64 * page)]);
        for pages in 1..64 {
            space.commit(pages * page).expect("memory");
            // SAFETY: [M1] the byte is committed, and nobody else uses it.
            unsafe { space.start().wrapping_add(pages * page - 1).write(1) };
            let expected = [
                ("rw".to_owned(), pages * page),
                ("--".to_owned(), (64 - pages) * page),
            ];
            assert_eq!(rights(), expected);
        }
    }
}
