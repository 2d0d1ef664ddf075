//! The last tier: the arena, its tables, and spans by the page.
//!
//! A request comes from a mutator's cache ([`MHeap::refill`]): next run of the cached span, else a span of the class
//! from its central set (swept first if need be), else fresh pages. It goes back as spans: at the end of a cycle and
//! when a mutator detaches ([`MHeap::give_back`]).
//!
//! **Invariants**
//! - `[H1]` Page 0 holds no span, so offset 0 is no object.
//! - `[H2]` The page map: every page of a span maps to its first page and class; other pages to no class.
//! - `[H3]` A page's allocation and mark bits are clear when it belongs to no span.
//! - `[H4]` A span is in one place: a cursor, one central list, large, or free.
//! - `[H5]` Pages below `top` are committed, in the arena and in each table [M3]. So an offset that comes from an object or
//!   a page may be asked about; any other number must be compared with `top` first ([`MHeap::find_object`]).
//! - `[H6]` No more pages are in use than the hard limit allows, those in mutators' page caches included. Whoever takes
//!   pages from the page heap looks first, under its lock, whether there is room for all that it may get.

use std::sync::atomic::{AtomicPtr, AtomicU32 as StdAtomicU32, AtomicU64 as StdAtomicU64};

use crate::base::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::heap::bits::BitTable;
use crate::heap::mcache::{Cursor, MCache, NO_SPAN};
use crate::heap::page_cache::PageCache;
use crate::heap::pages::{PageHeap, PageId, PageRun};
use crate::heap::release::Backing;
use crate::heap::size_class::SizeClass;
use crate::heap::span::{HeapGen, Span, SweepState};
use crate::heap::span_class::{ClassName, ClassRef, Classes, Kind, SpanClass, WEAK_CELL_SLOT};
use crate::heap::sweep::{DeadObjects, POISON};
use crate::object::type_info::TypeInfo;
use crate::sys::fatal::fatal;
use crate::sys::lock::{Rank, Ranked};
use crate::sys::mem::{Reservation, Table, os_page};
use crate::sys::sabotage::{self, Fault};
use crate::sys::shadow;
use crate::sys::space::{Asked, Refused};
use crate::sys::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering, yield_now};

/// How the arena grows: at least this many pages at a time (4 MiB).
const GROW_PAGES: u32 = if crate::sys::MODELLED { 16 } else { 512 };
/// With [`Options::huge_pages`], from here on the arena asks for them; a small heap stays small.
const HUGE_FROM: usize = 32 << 20;
/// How many unswept spans of its class a refill looks at before it takes fresh pages. Where all of them are full this is
/// time without a result: a microsecond or two each. Go looks at 100, for at most 1 % of space.
const SWEEP_BUDGET: usize = 20;
/// Spans of fewer pages than this come from the mutator's page cache.
const CACHED_PAGES: u32 = 16;

/// How far ahead of its top the arena is committed: to a multiple of an eighth of itself, within these pages (1 and
/// 64 MiB). A call for each of the six spaces costs some microseconds; what is committed and not used costs nothing but
/// under strict overcommit.
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
    /// So many bytes are all that objects may fill.
    Room(usize),
    /// The system refused so many bytes of memory when objects filled `of` bytes.
    Memory { bytes: u64, of: u64 },
}

/// How a heap treats its memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Freed slots are filled with [`POISON`].
    pub(crate) poison: bool,
    /// The arena asks for huge pages. Off by default: the kernel zeroes 2 MiB, and may first compact memory, inside
    /// the page fault of some allocation, which costs milliseconds; marking gets at most a tenth faster.
    pub(crate) huge_pages: bool,
    /// The most bytes of pages in use; `u64::MAX` is no limit.
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

/// The last part of what may be used is one in so many.
pub(crate) const LAST_PART: u32 = 16;

/// Black or white: whether the mark bits of handed-out slots are set.
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
    head_of: Table<StdAtomicU32>,
    spans: Table<Span>,
    pub(super) pages: Ranked<PageHeap>,
    pub(super) backing: Backing,
    /// Pages ever handed out by the page heap, for iteration.
    top: AtomicU32,
    classes: Ranked<Classes>,
    fixed: Box<[ClassRef]>,
    weak: ClassRef,
    /// Written when the world is stopped, at the end of marking.
    generation: AtomicU64,
    /// 0 while nobody may sweep: marking, or the census of weak references.
    sweep_open: AtomicU32,
    /// Claims being swept by mutators just now.
    pub(crate) sweeping: AtomicUsize,
    /// Bytes of pages in spans.
    pub(crate) span_bytes: AtomicU64,
    /// Bytes of slots ever found dead.
    pub(crate) freed_bytes: AtomicU64,
    /// Pages of spans swept since the end of marking.
    pub(crate) swept_pages: AtomicU64,
    pub(crate) poison: bool,
    huge_pages: bool,
    /// The most pages that may be in use, page 0 included.
    most_pages: u32,
    /// Bytes that the system refused when the arena was to grow last; 0 if it did not.
    refused: StdAtomicU64,
    /// A mirror of [`PageHeap::in_use_pages`], to look at without the lock.
    used_pages: AtomicU32,
}

impl MHeap {
    /// A heap over a reservation of `bytes`.
    ///
    /// # Errors
    /// What the OS says when it refuses the reservation or a table for it, or the memory for their first pages.
    pub(crate) fn new(bytes: usize, options: Options) -> Result<Self, Refused> {
        let arena = Reservation::new(bytes)?;
        let pages = bytes / PAGE_SIZE;
        let mut classes = Classes::new();
        let fixed = (0..SizeClass::COUNT)
            .map(|c| classes.add(Kind::Object, SizeClass(c as u8).size(), None))
            .collect();
        let weak = classes.add(Kind::WeakCell, WEAK_CELL_SLOT, None);
        let capacity = u32::try_from(pages).map_err(|_| Refused {
            asked: Asked::Space,
            bytes,
            why: std::io::ErrorKind::OutOfMemory.into(),
        })?;
        let mut page_heap = PageHeap::new(capacity, (os_page() / PAGE_SIZE).max(1) as u32);
        // [H1]
        page_heap.grow(1);
        let _ = page_heap.alloc(1, 1);
        let this = Self {
            // Exposed: a slot that a cursor gives out becomes a pointer from its address alone.
            base: arena.base().expose_provenance(),
            mark: BitTable::reserve(bytes)?,
            alloc: BitTable::reserve(bytes)?,
            class_of: Table::reserve(pages)?,
            head_of: Table::reserve(pages)?,
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
        // Zero-sized objects live at offset 0: always marked, never an object of a span.
        this.mark.set(0);
        Ok(this)
    }

    /// Makes the first `pages` pages usable, in the arena and in each table [H5]. The caller holds the lock of the page
    /// heap.
    fn commit(&self, pages: u32) -> Result<(), Refused> {
        let bytes = (pages as usize) << PAGE_SHIFT;
        self.mark.commit(bytes)?;
        self.alloc.commit(bytes)?;
        self.class_of.commit(pages as usize)?;
        self.head_of.commit(pages as usize)?;
        self.spans.commit(pages as usize)?;
        self.arena.commit(bytes)
    }

    /// The same, and some pages ahead if the system grants them.
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

    /// Pages of the arena that are committed; those of the tables are before them.
    fn committed(&self) -> u32 {
        (self.arena.committed() >> PAGE_SHIFT) as u32
    }

    /// Why a request for pages failed just now.
    pub(crate) fn shortage(&self) -> Shortage {
        // Relaxed (both): figures.
        match self.refused.load(Ordering::Relaxed) {
            0 => Shortage::Room(self.room()),
            bytes => Shortage::Memory {
                bytes,
                of: self.span_bytes.load(Ordering::Relaxed),
            },
        }
    }

    // ---- addresses -------------------------------------------------------------------------------------------

    /// The offset of an address in the arena, or `None` for any other address (such as a zero-sized object's).
    #[inline(always)]
    pub(crate) fn offset_of(&self, address: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.base);
        (offset < self.arena.len()).then_some(offset)
    }

    /// The pointer to an offset.
    #[inline(always)]
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        self.arena.base().wrapping_add(offset)
    }

    /// Bytes that objects may fill: the reservation, or the hard limit if that is less.
    pub(crate) fn room(&self) -> usize {
        let limit = (self.most_pages as usize - 1).saturating_mul(PAGE_SIZE);
        self.reserved().min(limit)
    }

    /// Whether so many bytes fit when nothing else is there. If not, that is why they are refused.
    pub(crate) fn can_ever_hold(&self, size: usize, align: usize) -> bool {
        let fits = size <= self.room() && align <= self.room();
        if !fits {
            // Relaxed: for a report.
            self.refused.store(0, Ordering::Relaxed);
        }
        fits
    }

    /// Bytes reserved.
    pub(crate) fn reserved(&self) -> usize {
        self.arena.len()
    }

    /// The class of the span that holds `offset`, if any.
    #[inline(always)]
    pub(crate) fn class_at(&self, offset: usize) -> Option<ClassRef> {
        // Relaxed: whoever holds a pointer into the span got it after the span was born (publication of the object).
        let ptr = self
            .class_of
            .get(offset >> PAGE_SHIFT)
            .load(Ordering::Relaxed);
        // SAFETY: 1. stored by `birth` from a class of this heap, or null.
        unsafe { ClassRef::from_ptr(ptr) }
    }

    /// The first page of the span that holds `offset`.
    pub(crate) fn head_at(&self, offset: usize) -> u32 {
        // Relaxed: as in `class_at`.
        self.head_of
            .get(offset >> PAGE_SHIFT)
            .load(Ordering::Relaxed)
    }

    /// The record of the span whose first page is `head`.
    pub(crate) fn span(&self, head: u32) -> &Span {
        self.spans.get(head as usize)
    }

    /// Finds the object that holds the byte at `address`: its offset, class and the bytes from it to its slot's end.
    ///
    /// Any address is allowed; whether the slot is allocated is not asked. O(1).
    pub(crate) fn find_object(&self, address: usize) -> Option<(usize, ClassRef, usize)> {
        let offset = self.offset_of(address)?;
        if offset >> PAGE_SHIFT >= self.top() as usize {
            return None; // [H5]
        }
        let class = self.class_at(offset)?;
        let head = self.head_at(offset);
        let start = (head as usize) << PAGE_SHIFT;
        if class.kind == Kind::Large {
            let object = start + self.object_at(head);
            let slot = self.slot_bytes(object, class);
            return (offset >= object && offset < object + slot).then_some((object, class, slot));
        }
        let index = class.slot_index(offset - start);
        (index < class.slots as usize).then(|| (start + index * class.slot, class, class.slot))
    }

    /// For a large object's span: bytes from the span's start to the object.
    pub(crate) fn object_at(&self, head: u32) -> usize {
        // Relaxed: written at the span's birth.
        self.span(head).object_at.load(Ordering::Relaxed) as usize
    }

    /// Bytes from the object at `offset` to its slot's end.
    #[inline]
    pub(crate) fn slot_bytes(&self, offset: usize, class: ClassRef) -> usize {
        if class.kind != Kind::Large {
            return class.slot;
        }
        let head = self.head_at(offset);
        // Relaxed: written at the span's birth.
        let pages = self.span(head).pages.load(Ordering::Relaxed) as usize;
        ((head as usize + pages) << PAGE_SHIFT)
            - ((head as usize) << PAGE_SHIFT)
            - self.object_at(head)
    }

    /// Pages that spans may be found in: `1 .. top`.
    pub(crate) fn top(&self) -> u32 {
        // Acquire: pairs with the Release in `birth`.
        self.top.load(Ordering::Acquire)
    }

    // ---- generations -----------------------------------------------------------------------------------------

    /// Whether the object at `offset` was allocated since the end of marking. While no sweep is open, every span from
    /// before awaits its sweep, and nobody allocates from one.
    pub(crate) fn is_young(&self, offset: usize) -> bool {
        let span = self.span(self.head_at(offset));
        !span.sweep_gen.state(self.generation()).awaits_sweep()
    }

    pub(crate) fn generation(&self) -> HeapGen {
        // Relaxed: changes only while every mutator is stopped; leaving the safepoint orders it.
        HeapGen(self.generation.load(Ordering::Relaxed))
    }

    /// The heap's generation is the first odd number from `least` on.
    ///
    /// # Panics
    /// If there is a span.
    #[cfg(any(fuzzing, feature = "internals"))]
    pub(crate) fn count_generations_from(&self, least: u64) {
        // Relaxed (both): before the first span.
        assert_eq!(
            self.span_bytes.load(Ordering::Relaxed),
            0,
            "there is a span"
        );
        self.generation.store(least | 1, Ordering::Relaxed);
    }

    /// All swept spans become unswept. The caller has stopped the world and finished the last sweep.
    pub(crate) fn advance_generation(&self) {
        let now = self.generation();
        let next = sabotage::pick(Fault::GenerationKept, now, now.next());
        // Relaxed: as in `generation`.
        self.generation.store(next.0, Ordering::Relaxed);
        self.swept_pages.store(0, Ordering::Relaxed);
        self.note_peak();
        self.set_sweep_open(false);
    }

    pub(crate) fn set_sweep_open(&self, open: bool) {
        // Release: the census of weak references is over before a mark bit is cleared; pairs with `sweep_is_open`.
        self.sweep_open.store(u32::from(open), Ordering::Release);
    }

    pub(crate) fn sweep_is_open(&self) -> bool {
        // Acquire: pairs with `set_sweep_open`.
        self.sweep_open.load(Ordering::Acquire) != 0
    }

    // ---- classes ---------------------------------------------------------------------------------------------

    pub(crate) fn fixed_class(&self, class: SizeClass) -> ClassRef {
        self.fixed[usize::from(class.0)]
    }

    pub(crate) fn weak_class(&self) -> ClassRef {
        self.weak
    }

    /// The class of that name, made on first use.
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

    // ---- spans -----------------------------------------------------------------------------------------------

    /// Pages for a span of `class`, cached by the caller if `cached`.
    pub(crate) fn new_span(
        &self,
        class: ClassRef,
        pages: u32,
        align: u32,
        cached: bool,
        cache: Option<&MCache>,
    ) -> Result<u32, OutOfPages> {
        let (run, grown) = match cache {
            Some(cache) if pages < CACHED_PAGES && align == 1 => self.cached_pages(cache, pages)?,
            _ => self.take_pages(pages, align)?,
        };
        let head = run.at.0;
        if run.released > 0 {
            self.back_pages(run.released, grown);
        }
        let span = self.span(head);
        // Relaxed (all three): published by `birth`'s Release.
        span.pages.store(pages, Ordering::Relaxed);
        span.object_at.store(0, Ordering::Relaxed);
        span.all_allocated
            .store(u32::from(class.kind == Kind::Large), Ordering::Relaxed);
        for page in head..head + sabotage::pick(Fault::OnlyFirstPageMapped, 1, pages) {
            // Relaxed (both): published with the first object of the span.
            self.head_of
                .get(page as usize)
                .store(head, Ordering::Relaxed);
            self.class_of
                .get(page as usize)
                .store(class.as_ptr(), Ordering::Relaxed);
        }
        self.close_pages(head, pages);
        span.sweep_gen.birth(self.generation(), cached);
        // Relaxed: a figure.
        self.span_bytes
            .fetch_add(u64::from(pages) << PAGE_SHIFT, Ordering::Relaxed);
        Ok(head)
    }

    /// A run of pages, from the mutator's cache if it has one; and by how many pages the arena grew for it.
    fn cached_pages(&self, cache: &MCache, pages: u32) -> Result<(PageRun, u32), OutOfPages> {
        let mut slot = cache.pages.borrow_mut();
        if let Some(run) = slot.as_mut().and_then(|c| c.alloc(pages)) {
            return Ok((run, 0));
        }
        let mut heap = self.pages.lock();
        if let Some(old) = slot.take() {
            heap.give_cache(old);
        }
        // [H6] What a cache holds counts as in use, and there is room for a whole group of it. In the last part there are no
        // caches: what one mutator has in stock would be missing to the others.
        let most = self.most_used();
        let room = most.saturating_sub(heap.in_use_pages());
        if pages <= 4
            && room >= PageCache::GROUP + most / LAST_PART
            && let Some(mut fresh) = heap.take_cache()
        {
            match fresh.alloc(pages) {
                Some(run) => {
                    *slot = Some(fresh);
                    self.note_use(&heap);
                    return Ok((run, 0));
                }
                None => heap.give_cache(fresh),
            }
        }
        if let Ok(taken) = self.take_locked(&mut heap, pages, 1) {
            return Ok(taken);
        }
        drop(heap);
        self.take_pages(pages, 1)
    }

    fn take_pages(&self, pages: u32, align: u32) -> Result<(PageRun, u32), OutOfPages> {
        loop {
            let mut heap = self.pages.lock();
            let taken = self.take_locked(&mut heap, pages, align);
            // Pages that are on their way to the system are free again soon.
            if taken.is_ok() || heap.leaving_pages() == 0 {
                return taken;
            }
            drop(heap);
            yield_now();
        }
    }

    fn take_locked(
        &self,
        heap: &mut PageHeap,
        pages: u32,
        align: u32,
    ) -> Result<(PageRun, u32), OutOfPages> {
        if pages > self.most_pages.saturating_sub(heap.in_use_pages()) {
            // Relaxed: a figure.
            self.refused.store(0, Ordering::Relaxed);
            return Err(OutOfPages);
        }
        let mut grown = 0;
        loop {
            if let Some(run) = heap.alloc(pages, align) {
                self.note_use(heap);
                return Ok((run, grown));
            }
            let top = heap.top().0;
            let room = heap.capacity() - top;
            if room == 0 {
                // Relaxed: a figure.
                self.refused.store(0, Ordering::Relaxed);
                return Err(OutOfPages);
            }
            let least = pages.saturating_add(align - 1).min(room);
            let grow = self.commit_for(top, least, least.max(GROW_PAGES).min(room))?;
            heap.grow(grow);
            grown += grow;
            // Release: publishes the zeroed records of the new pages; pairs with `top`.
            self.top.store(heap.top().0, Ordering::Release);
            let (from, bytes) = ((top as usize) << PAGE_SHIFT, (grow as usize) << PAGE_SHIFT);
            if self.huge_pages && from >= HUGE_FROM {
                self.arena.want_huge_pages(from & !(PAGE_SIZE - 1), bytes);
                self.mark
                    .want_huge_pages((from + bytes) & !((256 << 20) - 1));
            }
        }
    }

    /// Commits what the arena needs to grow from `top` by `most` pages, or by `least` if the system grants no more; says by
    /// how many. The caller holds the lock of the page heap.
    fn commit_for(&self, top: u32, least: u32, most: u32) -> Result<u32, OutOfPages> {
        let grown = match self.commit_some(top + most) {
            Ok(()) => Ok(most),
            Err(_) => self.commit_some(top + least).map(|()| least),
        };
        // Relaxed: a figure.
        let refused = grown.as_ref().map_or_else(|r| r.bytes as u64, |_| 0);
        self.refused.store(refused, Ordering::Relaxed);
        grown.map_err(|_| OutOfPages)
    }

    /// A new span's slots are closed like freed ones.
    fn close_pages(&self, head: u32, pages: u32) {
        let (at, bytes) = (
            self.at((head as usize) << PAGE_SHIFT),
            (pages as usize) << PAGE_SHIFT,
        );
        if self.poison {
            shadow::open(at, bytes);
            // SAFETY: [H4] pages just taken from the page allocator, which nobody else has.
            unsafe { at.write_bytes(POISON, bytes) };
        }
        shadow::close(at, bytes);
    }

    /// Gives the pages of a dead span back. The caller holds the span's sweep claim and has cleared its bits.
    pub(crate) fn free_pages(&self, head: u32, pages: u32) {
        for page in head..head + sabotage::pick(Fault::PageMapNotCleared, 0, pages) {
            // Relaxed (both): nobody has a pointer into the span; its pages come back through the page lock.
            self.class_of
                .get(page as usize)
                .store(std::ptr::null_mut(), Ordering::Relaxed);
            self.head_of.get(page as usize).store(0, Ordering::Relaxed);
        }
        // Relaxed: a figure.
        self.span_bytes
            .fetch_sub(u64::from(pages) << PAGE_SHIFT, Ordering::Relaxed);
        let mut heap = self.pages.lock();
        heap.free(PageId(head), pages);
        self.note_use(&heap);
    }

    fn note_use(&self, heap: &PageHeap) {
        // Relaxed: a figure.
        self.used_pages
            .store(heap.in_use_pages(), Ordering::Relaxed);
    }

    /// Whether so many bytes more may find no room, or the last part of what may be used has been reached.
    pub(crate) fn is_in_last_part(&self, bytes: u64) -> bool {
        let most = self.most_used();
        let least = most / LAST_PART;
        let wanted = u32::try_from(bytes >> PAGE_SHIFT).unwrap_or(u32::MAX);
        // Relaxed: a figure.
        let used = self.used_pages.load(Ordering::Relaxed);
        used.saturating_add(least.max(wanted)) >= most
    }

    /// The most pages that can be in use, by the hard limit and by the reservation.
    fn most_used(&self) -> u32 {
        let reserved = u32::try_from(self.reserved() >> PAGE_SHIFT).unwrap_or(u32::MAX);
        self.most_pages.min(reserved)
    }

    // ---- cursors ---------------------------------------------------------------------------------------------

    /// Points `cursor` at another run of free slots of its class; returns the run's bytes.
    ///
    /// `dead` takes the objects of spans that are swept on the way.
    pub(crate) fn refill(
        &self,
        cache: &MCache,
        cursor: &Cursor,
        paint: Paint,
        dead: &mut dyn DeadObjects,
    ) -> Result<usize, OutOfPages> {
        let Some(class) = cursor.class.get() else {
            fatal("cursor without a class")
        };
        loop {
            if cursor.span.get() != NO_SPAN {
                if let Some(bytes) = self.next_run(cursor, class, paint) {
                    return Ok(bytes);
                }
                self.retire_full(cursor, class);
            }
            let head = match self.span_from_central(class, dead) {
                Some(head) => head,
                None => self.new_span(class, class.span_pages, 1, true, Some(cache))?,
            };
            let start = self.at((head as usize) << PAGE_SHIFT).addr();
            cursor.span.set(head);
            cursor.cur.set(start);
            cursor.end.set(start);
        }
    }

    /// Moves the cursor to the next run of free slots of its span.
    fn next_run(&self, cursor: &Cursor, class: ClassRef, paint: Paint) -> Option<usize> {
        let head = cursor.span.get();
        let start = (head as usize) << PAGE_SHIFT;
        let limit = start + class.slots as usize * class.slot;
        let mut from = cursor.end.get() - self.base;
        while from < limit && self.alloc.test(from) {
            from += class.slot;
        }
        if from >= limit {
            return None;
        }
        let to = self.alloc.next_set(from, limit).unwrap_or(limit);
        if paint == Paint::Black {
            self.mark.set_run(from, to, class.slot);
        }
        cursor.cur.set(self.base + from);
        cursor.end.set(self.base + to);
        class
            .figures
            .allocated(((to - from) / class.slot) as u64, class.slot as u64);
        Some(to - from)
    }

    /// The cursor's span has no free slot left: back to the central set.
    fn retire_full(&self, cursor: &Cursor, class: ClassRef) {
        let head = cursor.span.replace(NO_SPAN);
        cursor.cur.set(0);
        cursor.end.set(0);
        // Relaxed: published by `uncache`.
        self.span(head).all_allocated.store(1, Ordering::Relaxed);
        let now = self.generation();
        let mut sets = class.central.lock(now);
        match self.span(head).sweep_gen.uncache(now) {
            SweepState::CachedStale => sets.unswept.push(head),
            _ => sets.full.push(head),
        }
    }

    fn span_from_central(&self, class: ClassRef, dead: &mut dyn DeadObjects) -> Option<u32> {
        let now = self.generation();
        let sweep = self.sweep_is_open() && (!class.drop || dead.may_drop());
        let mut budget = SWEEP_BUDGET;
        loop {
            let candidate = {
                let mut sets = class.central.lock(now);
                if let Some(head) = sets.partial.pop() {
                    self.span(head).sweep_gen.cache(now);
                    return Some(head);
                }
                if !sweep || budget == 0 {
                    return None;
                }
                sets.unswept.pop()?
            };
            budget -= 1;
            if self.sweep_for_cache(candidate, class, dead) {
                return Some(candidate);
            }
        }
    }

    /// Takes the unused rest of a cursor's run, and its span, back. `paint` is how the run was handed out.
    ///
    /// Returns the bytes that were not used.
    pub(crate) fn give_back(&self, cursor: &Cursor, paint: Paint) -> usize {
        let head = cursor.span.replace(NO_SPAN);
        let Some(class) = cursor.class.get() else {
            fatal("cursor without a class")
        };
        let (cur, end) = (
            cursor.cur.replace(0) - self.base,
            cursor.end.replace(0) - self.base,
        );
        if paint == Paint::Black {
            self.mark.clear_run(cur, end, class.slot);
        }
        let start = (head as usize) << PAGE_SHIFT;
        // [C2] all below `cur` is allocated.
        self.alloc.set_run(start, cur, class.slot);
        let now = self.generation();
        let mut sets = class.central.lock(now);
        match self.span(head).sweep_gen.uncache(now) {
            SweepState::CachedStale => sets.unswept.push(head),
            _ => sets.partial.push(head),
        }
        class
            .figures
            .not_used(((end - cur) / class.slot) as u64, class.slot as u64);
        end - cur
    }

    /// Sets the mark bits of a cursor's unused run: from now on it allocates black.
    pub(crate) fn blacken_run(&self, cursor: &Cursor) {
        let Some(class) = cursor.class.get() else {
            fatal("cursor without a class")
        };
        self.mark.set_run(
            cursor.cur.get() - self.base,
            cursor.end.get() - self.base,
            class.slot,
        );
    }

    /// Gives a mutator's page cache back.
    pub(crate) fn give_back_pages(&self, cache: &MCache) {
        if let Some(pages) = cache.pages.borrow_mut().take() {
            let mut heap = self.pages.lock();
            heap.give_cache(pages);
            self.note_use(&heap);
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::heap::sweep::NoDrops;

    const MIB: usize = 1 << 20;

    /// Bytes of pages in use, page 0 left out.
    fn in_use(heap: &MHeap) -> usize {
        (heap.pages.lock().in_use_pages() as usize - 1) << PAGE_SHIFT
    }

    /// Mutators take pages in turn until none gets any: what is in their caches is within the limit, too.
    fn fill(limit: usize, mutators: usize) {
        let options = Options {
            hard_limit: limit as u64,
            ..Options::default()
        };
        let heap = MHeap::new(64 * MIB, options).expect("a heap");
        // Free pages in all groups: a cache gets as many as there can be.
        let all: Vec<u32> = (0..limit / PAGE_SIZE)
            .map(|_| new_page(&heap, None).expect("room"))
            .collect();
        assert_eq!(new_page(&heap, None), Err(OutOfPages));
        for head in all {
            heap.free_pages(head, 1);
        }
        let caches: Vec<MCache> = (0..mutators).map(|_| MCache::new()).collect();
        let cursors: Vec<&Cursor> = caches.iter().map(|c| c.fixed(SizeClass(0))).collect();
        for cursor in &cursors {
            cursor.class.set(Some(heap.fixed_class(SizeClass(0))));
        }
        let mut full = 0;
        while full < mutators {
            full = 0;
            for (cache, cursor) in caches.iter().zip(&cursors) {
                // The run that it has is used up.
                cursor.cur.set(cursor.end.get());
                let got = heap.refill(cache, cursor, Paint::White, &mut NoDrops);
                full += usize::from(got.is_err());
                assert!(
                    in_use(&heap) <= limit,
                    "{mutators} mutators: {} of {limit} bytes are in use",
                    in_use(&heap)
                );
            }
        }
        // Nothing but what others have in stock is missing.
        for cache in &caches {
            heap.give_back_pages(cache);
        }
        while new_page(&heap, None).is_ok() {}
        assert_eq!(in_use(&heap), limit);
    }

    fn new_page(heap: &MHeap, cache: Option<&MCache>) -> Result<u32, OutOfPages> {
        heap.new_span(heap.fixed_class(SizeClass(0)), 1, 1, false, cache)
    }

    #[test]
    fn what_is_in_page_caches_is_within_the_hard_limit() {
        for groups in [1, 3, 8] {
            for more in [0, 3, 40] {
                for mutators in [1, 2, 7, 20] {
                    let pages = groups * PageCache::GROUP as usize + more;
                    fill(pages * PAGE_SIZE, mutators);
                }
            }
        }
    }
}
