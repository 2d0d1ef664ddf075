//! Address space: reserved first, made usable piece by piece.
//!
//! A [`Space`] is a private anonymous mapping that nobody may touch when it is new. [`Space::commit`] makes a longer and
//! longer part of it, from its start, readable and writable; pages appear there, zeroed, when they are first touched.
//!
//! **Why not writable from the start.** The system takes a writable mapping for memory that will be used. Under strict
//! overcommit (`vm.overcommit_memory=2`, which ignores `MAP_NORESERVE`) and under `RLIMIT_DATA` all of it counts; a
//! core dump has its size, and writing one of 256 GiB took 23 s; `mlockall(MCL_FUTURE)` fills it with memory: 9 s for
//! 1 GiB. What nobody may touch counts for none of them. The price is a call for each piece that is added,
//! and that reading past the committed part ends the process: before, it read as zero.
//!
//! **Who maps.** A space that is wanted as a whole is memory from the start ([`Space::whole`]): the chunks of root slots, the
//! bitmap of a verifier's walk. `memmap2` maps it, there as on systems without `mprotect`. A reservation it cannot make. All
//! that it maps anonymously is writable at first: 256 GiB by `map_anon` are refused (ENOMEM) by Linux's default overcommit and
//! with them `make_read_only`, which comes after; `no_reserve_swap` helps there, and is refused under an `RLIMIT_DATA` of 256 MiB.
//! `map_copy_read_only` of `/dev/zero` counts for neither; but `mlockall(MCL_FUTURE)` walks it (0.56 s for 4 GiB), and
//! it takes a file that a sandbox may not have. So a reservation is a call of `libc`.
//!
//! **Why the neighbours stay few.** The committed part is one mapping for the kernel and the rest another, because it
//! merges neighbours of equal rights; so a space costs two of the 65,530 that a process may have by default, however
//! often it grows.
//!
//! **Invariants**
//! - `[M1]` A space is at `start .. start + len` until it is dropped; its first `committed` bytes are readable and
//!   writable, and zero where nobody has written. `committed` only rises.
//!
//! **Elsewhere.** Where there is no `mmap`, and under Miri, all is usable from the start; a commit still counts, so that
//! the same mistakes are found.

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::sys::inject::{OsCall, is_refused};

/// Bytes of all spaces of the process.
static RESERVED: AtomicU64 = AtomicU64::new(0);

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

/// What the system was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Address space.
    Space,
    /// The right to use it.
    Memory,
    /// Both at once.
    Mapping,
}

/// What the system has refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) asked: Asked,
    pub(crate) bytes: usize,
    pub(crate) why: io::Error,
}

impl Refused {
    pub(crate) fn space(bytes: usize, why: io::Error) -> Self {
        Self {
            asked: Asked::Space,
            bytes,
            why,
        }
    }

    fn mapping(bytes: usize, why: io::Error) -> Self {
        Self {
            asked: Asked::Mapping,
            bytes,
            why,
        }
    }
}

/// What may be behind it: the limits that the system does not name.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        match self.asked {
            Asked::Space => {
                write!(f, "{bytes} bytes of address space cannot be had; ")?;
                let ours = reserved();
                match address_limit() {
                    Some(limit) => write!(f, "RLIMIT_AS is {limit} bytes")?,
                    None => f.write_str("RLIMIT_AS is unlimited")?,
                }
                write!(f, ", heaps of this process have {ours}")?;
                // A locked mapping that is too large is refused with this code, whatever its rights are.
                if self.why.kind() == io::ErrorKind::WouldBlock {
                    f.write_str("; after mlockall(MCL_FUTURE) RLIMIT_MEMLOCK bounds it, too")?;
                }
                Ok(())
            }
            Asked::Mapping => {
                write!(f, "a mapping of {bytes} bytes cannot be had (")?;
                if let Some(limit) = address_limit() {
                    write!(f, "RLIMIT_AS is {limit} bytes, ")?;
                }
                f.write_str("RLIMIT_DATA, or vm.overcommit_memory=2 and its limit)")
            }
            Asked::Memory => write!(
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
    /// [M1] Relaxed everywhere: whoever uses a place was told of it by somebody who has seen it committed.
    committed: AtomicUsize,
}

impl Space {
    /// Reserves `len` bytes, at least 1, none of which may be touched.
    ///
    /// # Errors
    /// What the system says when it refuses.
    pub(crate) fn reserve(len: usize) -> Result<Self, Refused> {
        if is_refused(OsCall::Map) {
            return Err(Refused::space(len, io::ErrorKind::OutOfMemory.into()));
        }
        let map = os::Map::reserve(len).map_err(|why| Refused::space(len, why))?;
        // Relaxed: a figure.
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
    /// What the system says when it refuses.
    pub(crate) fn whole(len: usize) -> Result<Self, Refused> {
        if is_refused(OsCall::Map) || is_refused(OsCall::Commit) {
            return Err(Refused::mapping(len, io::ErrorKind::OutOfMemory.into()));
        }
        let map = os::Map::whole(len).map_err(|why| Refused::mapping(len, why))?;
        // Relaxed: a figure.
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

    /// How many bytes from the start may be used.
    pub(crate) fn committed(&self) -> usize {
        self.committed.load(Ordering::Relaxed)
    }

    /// Makes the first `bytes` usable, rounded up to whole pages of the system. One call at a time; a system call,
    /// if they are not usable already.
    ///
    /// # Errors
    /// What the system says when it refuses, or that it is past the end. What could be used before can be used as before.
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
            asked: Asked::Memory,
            bytes: to - from,
            why,
        })?;
        self.committed.store(to, Ordering::Relaxed);
        Ok(())
    }

    /// Puts memory behind `from .. from + len` by one system call; all of it is committed. The call
    /// is Linux's (madvise(2), `MADV_POPULATE_WRITE`, since 5.14); an older kernel is asked once.
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

    /// Asks for huge pages in `from .. from + len`, all of it committed. A refusal costs speed only.
    pub(crate) fn want_huge_pages(&self, from: usize, len: usize) {
        debug_assert!(from + len <= self.committed());
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            let at = self.start().wrapping_add(from).cast();
            // SAFETY: [M1] a range of ours; the advice changes no byte of it.
            let _ = unsafe { libc::madvise(at, len, libc::MADV_HUGEPAGE) };
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        let _ = (from, len);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Relaxed: a figure.
        RESERVED.fetch_sub(self.len as u64, Ordering::Relaxed);
    }
}

/// Bytes of address space that heaps of this process have, tables included.
pub(crate) fn reserved() -> u64 {
    // Relaxed: a figure.
    RESERVED.load(Ordering::Relaxed)
}

/// Whether so many bytes of address space could be had just now.
///
/// # Errors
/// What the system says when it refuses.
pub(crate) fn is_left(bytes: usize) -> Result<(), Refused> {
    if cfg!(miri) {
        return Ok(()); // there is no address space but what the allocator gives
    }
    // Not `Space::reserve`: nothing that a test refuses, and nothing that counts.
    os::Map::reserve(bytes)
        .map(drop)
        .map_err(|why| Refused::space(bytes, why))
}

/// `RLIMIT_AS` in bytes, if there is such a limit.
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

    /// Nothing is set aside in swap space for it. Systems that do not have the flag set nothing aside.
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    const NO_RESERVE: libc::c_int = libc::MAP_NORESERVE;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    const NO_RESERVE: libc::c_int = 0;

    /// Who takes a mapping back.
    #[derive(Debug)]
    enum Owner {
        /// This module: so many bytes.
        Reserved(usize),
        Whole {
            #[allow(dead_code, reason = "its drop is what it is for")]
            map: MmapRaw,
        },
    }

    #[derive(Debug)]
    pub(super) struct Map {
        /// Beside the owner, so that nobody who looks for a value asks who that is.
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
            // SAFETY: a new mapping where the system likes it: no address that is in use.
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
            // SAFETY: [M1] a range of ours; it takes no right away from anybody.
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
            // SAFETY: from `reserve`, and nobody has a reference into it any more.
            let freed = unsafe { libc::munmap(self.start().cast(), len) };
            debug_assert_eq!(freed, 0, "an own mapping can be taken back");
        }
    }

    // SAFETY: [M1] bytes at an address; who may touch which is the owner's affair.
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

/// What stands for a mapping where there is none: zeroed memory, all of it there at once, so not much.
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
            // SAFETY: the callers ask for a byte at least.
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
            // SAFETY: from `reserve`, with that layout.
            unsafe { std::alloc::dealloc(self.start(), self.layout) };
        }
    }

    // SAFETY: [M1] bytes; who may touch which is the owner's affair, as with a mapping.
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
            // SAFETY: [M1] committed, and nobody else uses it.
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
            // SAFETY: [M1] committed, and nobody else uses it.
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

    /// The rights that the kernel has for each of its mappings in a range: `rw` or `--`, and their bytes.
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
            // SAFETY: [M1] committed, and nobody else uses it.
            unsafe { space.start().wrapping_add(pages * page - 1).write(1) };
            let expected = [
                ("rw".to_owned(), pages * page),
                ("--".to_owned(), (64 - pages) * page),
            ];
            assert_eq!(rights(), expected);
        }
    }
}
