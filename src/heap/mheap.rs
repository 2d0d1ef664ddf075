//! The last tier of the allocator: the arena, its tables, and spans by their pages.
//!
//! A request comes from a mutator's cache ([`MHeap::refill`]). It gets the next run of the cached
//! span, or else a span of the class from its central set (swept first if need be), or else fresh
//! pages. What is not used comes back as spans, at the end of a cycle and when a mutator detaches
//! ([`MHeap::give_back`]).
//!
//! **Huge pages** are only requested if the user asks for them. A page fault that clears 2 MiB, or
//! compacts memory first, kept the stops of the example `tour` waiting for up to 8 ms; without huge
//! pages the longest stop was 0.18 ms. Marking 10 million random objects took 0.58 s with and 0.64
//! s without them.
//!
//! **Invariants**
//! - `[H1]` Page 0 is in no span, so offset 0 is no object.
//! - `[H2]` The page map: every page of a span maps to its first page and its class; every other
//!   page maps to no class.
//! - `[H3]` If a page is in no span, its allocation and mark bits are clear.
//! - `[H4]` A span is in one place: a cursor, a central list, large, or free.
//! - `[H5]` Pages below `top` are committed, in the arena and in each table [M3]. So the tables may
//!   be asked about an offset that comes from an object or a page; any other number must be
//!   compared with `top` first ([`MHeap::find_object`]).
//! - `[H6]` At most as many pages are in use as the hard limit allows, including those in mutators'
//!   page caches. A thread that takes pages from the page heap checks first, under its lock, that
//!   there is room for all that it may get.

use std::sync::atomic::{AtomicPtr, AtomicU32 as StdAtomicU32, AtomicU64 as StdAtomicU64};

use crate::base::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::heap::backing::Backing;
use crate::heap::bits::BitTable;
use crate::heap::pages::PageHeap;
use crate::heap::size_class::SizeClass;
use crate::heap::span::{HeapGen, Span};
use crate::heap::span_class::{ClassName, ClassRef, Classes, Kind, SpanClass, WEAK_CELL_SLOT};
use crate::object::type_info::TypeInfo;
use crate::sys::lock::{Rank, Ranked};
use crate::sys::mem::{Reservation, Table};
use crate::sys::sabotage::{self, Fault};
use crate::sys::space::{Refused, Requested, os_page};
use crate::sys::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

mod birth;
mod cursors;
mod page_map;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

/// The last part of what may be used is one part in this many.
pub(crate) const LAST_PART: u32 = 16;

/// How far ahead of its top the arena is committed: to a multiple of an eighth of itself, within
/// these numbers of pages (1 and 64 MiB). A call for each of the six spaces takes some
/// microseconds. Space that is committed and not used costs nothing, except under strict
/// overcommit.
const COMMIT_STEP: (u32, u32) = if crate::sys::MODELLED {
    (1, 1)
} else {
    (128, 8192)
};

/// The reservation or the hard limit is exhausted, or the system refuses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfPages;

/// Why the last request for pages failed, for the text of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// Objects may not fill more than this many bytes.
    Room(usize),
    /// The system refused this many bytes of memory when objects filled `of` bytes.
    Memory { bytes: u64, of: u64 },
}

/// How a heap treats its memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Whether freed slots are filled with [`POISON`](crate::heap::dead::POISON).
    pub(crate) poison: bool,
    /// Whether the arena asks for huge pages; see the head of this file.
    pub(crate) huge_pages: bool,
    /// The most bytes of pages in use; `u64::MAX` means no limit.
    pub(crate) hard_limit: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poison: false,
            huge_pages: false,
            hard_limit: u64::MAX,
        }
    }
}

/// The color of objects that are allocated: whether the mark bits of the slots are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    White,
    Black,
}

/// The heap's memory.
#[derive(Debug)]
pub(crate) struct MHeap {
    pub(super) arena: Reservation,
    base: usize,
    pub(crate) mark: BitTable,
    pub(crate) alloc: BitTable,
    class_of: Table<AtomicPtr<SpanClass>>,
    first_pages: Table<StdAtomicU32>,
    spans: Table<Span>,
    pub(super) pages: Ranked<PageHeap>,
    pub(super) backing: Backing,
    /// The number of pages that the page heap has ever handed out, for iteration.
    top: AtomicU32,
    classes: Ranked<Classes>,
    fixed: Box<[ClassRef]>,
    weak: ClassRef,
    /// Written while the world is stopped, at the end of marking.
    generation: AtomicU64,
    /// 0 while nobody may sweep: during marking, and during the census of weak references.
    sweep_open: AtomicU32,
    /// How many claims mutators are sweeping now.
    pub(super) sweeping: AtomicUsize,
    /// The bytes of pages in spans.
    pub(crate) span_bytes: AtomicU64,
    /// The bytes of slots that were ever found dead.
    pub(crate) freed_bytes: AtomicU64,
    /// The pages of spans that were swept since the end of marking.
    pub(crate) swept_pages: AtomicU64,
    pub(crate) poison: bool,
    huge_pages: bool,
    /// The most pages that may be in use, including page 0.
    most_pages: u32,
    /// How many bytes the system refused when the arena last had to grow; 0 if it did not refuse.
    refused: StdAtomicU64,
    /// A copy of [`PageHeap::in_use_pages`] that can be read without the lock.
    used_pages: AtomicU32,
}

impl MHeap {
    /// Makes a heap over a reservation of `bytes`.
    ///
    /// # Errors
    /// The OS refuses the reservation, a table for it, or the memory for their first pages.
    pub(crate) fn new(bytes: usize, options: Options) -> Result<Self, Refused> {
        let arena = Reservation::new(bytes)?;
        let pages = bytes / PAGE_SIZE;
        let mut classes = Classes::new();
        let fixed = (0..SizeClass::COUNT)
            .map(|c| classes.add(Kind::Object, SizeClass(c as u8).size(), None))
            .collect();
        let weak = classes.add(Kind::WeakCell, WEAK_CELL_SLOT, None);
        let capacity = u32::try_from(pages).map_err(|_| Refused {
            requested: Requested::Space,
            bytes,
            why: std::io::ErrorKind::OutOfMemory.into(),
        })?;
        let mut page_heap = PageHeap::new(capacity, (os_page() / PAGE_SIZE).max(1) as u32);
        // [H1]
        page_heap.grow(1);
        let _ = page_heap.alloc(1, 1);
        let this = Self {
            // The base is exposed because a slot that a cursor hands out becomes a pointer from its
            // address alone.
            base: arena.base().expose_provenance(),
            mark: BitTable::reserve(bytes)?,
            alloc: BitTable::reserve(bytes)?,
            class_of: Table::reserve(pages)?,
            first_pages: Table::reserve(pages)?,
            spans: Table::reserve(pages)?,
            pages: Ranked::new(Rank::Pages, page_heap),
            backing: Backing::new(),
            top: AtomicU32::new(1),
            classes: Ranked::new(Rank::Classes, classes),
            fixed,
            weak,
            generation: AtomicU64::new(HeapGen::FIRST.0),
            sweep_open: AtomicU32::new(1),
            sweeping: AtomicUsize::new(0),
            span_bytes: AtomicU64::new(0),
            freed_bytes: AtomicU64::new(0),
            swept_pages: AtomicU64::new(0),
            poison: options.poison,
            huge_pages: options.huge_pages,
            most_pages: u32::try_from(options.hard_limit.div_ceil(PAGE_SIZE as u64))
                .map_or(u32::MAX, |pages| pages.saturating_add(1)),
            refused: StdAtomicU64::new(0),
            used_pages: AtomicU32::new(1),
            arena,
        };
        this.commit_some(1)?;
        // Zero-sized objects are at offset 0: the offset is always marked, and is no object of a
        // span.
        this.mark.set(0);
        Ok(this)
    }

    /// Makes the first `pages` pages usable, in the arena and in each table [H5]. The caller holds
    /// the lock of the page heap.
    fn commit(&self, pages: u32) -> Result<(), Refused> {
        let bytes = (pages as usize) << PAGE_SHIFT;
        self.mark.commit(bytes)?;
        self.alloc.commit(bytes)?;
        self.class_of.commit(pages as usize)?;
        self.first_pages.commit(pages as usize)?;
        self.spans.commit(pages as usize)?;
        self.arena.commit(bytes)
    }

    /// Does the same, and commits some pages ahead if the system grants them.
    fn commit_some(&self, pages: u32) -> Result<(), Refused> {
        let most = (self.reserved() >> PAGE_SHIFT) as u32;
        let step = (pages / 8).clamp(COMMIT_STEP.0, COMMIT_STEP.1);
        let ahead = pages.next_multiple_of(step).min(most);
        if pages <= self.committed() {
            return Ok(());
        }
        match self.commit(ahead) {
            Err(_) if pages < ahead => self.commit(pages),
            answer => answer,
        }
    }

    /// Returns the bytes reserved.
    pub(crate) fn reserved(&self) -> usize {
        self.arena.len()
    }

    /// Returns how many pages of the arena are committed; those of the tables were committed
    /// before.
    fn committed(&self) -> u32 {
        (self.arena.committed() >> PAGE_SHIFT) as u32
    }

    /// Commits what the arena needs to grow from `top` by `most` pages, or by `least` if the system
    /// grants no more. Returns by how many. The caller holds the lock of the page heap.
    fn commit_for(&self, top: u32, least: u32, most: u32) -> Result<u32, OutOfPages> {
        let grown = match self.commit_some(top + most) {
            Ok(()) => Ok(most),
            Err(_) => self.commit_some(top + least).map(|()| least),
        };
        // Relaxed: statistics only.
        let refused = grown.as_ref().map_or_else(|r| r.bytes as u64, |_| 0);
        self.refused.store(refused, Ordering::Relaxed);
        grown.map_err(|_| OutOfPages)
    }

    // ---- generations ------------------------------------------------------------------------

    pub(crate) fn generation(&self) -> HeapGen {
        // Relaxed: it changes only while every mutator is stopped, and leaving the safepoint orders
        // it.
        HeapGen(self.generation.load(Ordering::Relaxed))
    }

    /// Sets the heap's generation to the first odd number from `least` on.
    ///
    /// # Panics
    /// If there is a span.
    #[cfg(any(fuzzing, feature = "internals"))]
    pub(crate) fn count_generations_from(&self, least: u64) {
        // Relaxed (both): there is no span yet.
        assert_eq!(
            self.span_bytes.load(Ordering::Relaxed),
            0,
            "there is a span"
        );
        self.generation.store(least | 1, Ordering::Relaxed);
    }

    /// Makes all swept spans unswept. The caller has stopped the world and finished the last sweep.
    pub(crate) fn advance_generation(&self) {
        let now = self.generation();
        let next = sabotage::pick(Fault::GenerationKept, now, now.next());
        // Relaxed: as in `generation`.
        self.generation.store(next.0, Ordering::Relaxed);
        self.swept_pages.store(0, Ordering::Relaxed);
        // Relaxed: the world is stopped.
        self.backing
            .note_peak(self.span_bytes.load(Ordering::Relaxed));
        self.close_sweep();
    }

    /// From now on spans may be swept.
    pub(crate) fn open_sweep(&self) {
        // Release: the census of weak references has ended before a mark bit is cleared; pairs with
        // `sweep_is_open`.
        self.sweep_open.store(1, Ordering::Release);
    }

    /// From now on no span may be swept. The world is stopped.
    fn close_sweep(&self) {
        // Release: as in `open_sweep`; leaving the stop orders it, too.
        self.sweep_open.store(0, Ordering::Release);
    }

    pub(crate) fn sweep_is_open(&self) -> bool {
        // Acquire: pairs with `open_sweep`.
        self.sweep_open.load(Ordering::Acquire) != 0
    }

    // ---- classes ----------------------------------------------------------------------------

    pub(crate) fn fixed_class(&self, class: SizeClass) -> ClassRef {
        self.fixed[usize::from(class.0)]
    }

    pub(crate) fn weak_class(&self) -> ClassRef {
        self.weak
    }

    /// Returns the class with this name, and makes it on first use.
    pub(crate) fn intern(
        &self,
        name: ClassName,
        kind: Kind,
        slot: usize,
        info: &'static TypeInfo,
    ) -> ClassRef {
        self.classes.lock().intern(name, kind, slot, info)
    }

    pub(crate) fn all_classes(&self) -> Vec<ClassRef> {
        self.classes.lock().iter().collect()
    }
}
