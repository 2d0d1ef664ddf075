//! The slow half of an allocation: another run of slots, a large object, the charge, the trigger and the assist.

use std::any::TypeId;

use crate::base::addr::PAGE_SIZE;
use crate::gc::collector::{Collector, is_black};
use crate::gc::mutator::MutatorState;
use crate::gc::state_word::Request;
use crate::heap::mcache::Cursor;
use crate::heap::mheap::{OutOfPages, Paint};
use crate::heap::size_class::{self, SizeClass};
use crate::heap::span_class::{ClassKey, ClassName, Kind};
use crate::object::type_info::{Slice, TypeInfo};
use crate::sys::sync::Ordering;

/// An object larger than this, or aligned to more than a page, has a span of its own.
pub(crate) const MAX_SMALL: usize = SizeClass::MAX_SIZE;
/// The largest alignment of a small slot.
pub(crate) const MAX_SMALL_ALIGN: usize = PAGE_SIZE;

/// What is to be allocated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The type, for objects that are traced or dropped.
    pub(crate) info: Option<(&'static TypeInfo, TypeId)>,
    pub(crate) size: usize,
    pub(crate) align: usize,
    /// Slots of exactly `size` bytes (a sized type), or of a size class (a list).
    pub(crate) exact: bool,
}

/// A fresh slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh {
    pub(crate) address: usize,
    /// Bytes from there to the slot's end.
    pub(crate) slot: usize,
}

/// The slot size of a sized type of its own class.
pub(crate) const fn exact_slot(size: usize, align: usize) -> usize {
    let align = if align < 8 { 8 } else { align };
    let size = if size == 0 { 1 } else { size };
    size.next_multiple_of(align)
}

impl Collector {
    /// A slot for `wanted`: everything but the hit of a mutator's cache.
    ///
    /// # Errors
    /// [`OutOfPages`] when there is no room, also after sweeping and after the end of the running cycle.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_slow(
        &self,
        mutator: &MutatorState,
        wanted: Wanted,
    ) -> Result<Fresh, OutOfPages> {
        let got = match self.try_alloc_slow(mutator, wanted) {
            Ok(got) => Ok(got),
            Err(OutOfPages) => self.without_room(mutator, || self.try_alloc_slow(mutator, wanted)),
        };
        if self.settings.stress {
            self.ask_for_cycle();
        }
        got
    }

    /// What has to happen before `alloc`, which has found no room, fails: see `brake.rs`.
    #[cold]
    fn without_room(
        &self,
        mutator: &MutatorState,
        alloc: impl Fn() -> Result<Fresh, OutOfPages>,
    ) -> Result<Fresh, OutOfPages> {
        // Dead spans may still be unswept, and this mutator's own pages are of use to spans of any length.
        self.heap.give_back_pages(&mutator.local.cache);
        self.sweep_plain_spans();
        if let Ok(got) = alloc() {
            return Ok(got);
        }
        let waited = self.wait_for_running_cycle(mutator);
        mutator.local.rescued.set(waited);
        if waited {
            self.heap.give_back_pages(&mutator.local.cache);
            if let Ok(got) = alloc() {
                return Ok(got);
            }
        }
        // Whoever takes the error may try again after its next safepoint.
        self.ask_for_cycle();
        mutator.word.ask(Request::Stall);
        Err(OutOfPages)
    }

    fn try_alloc_slow(&self, mutator: &MutatorState, wanted: Wanted) -> Result<Fresh, OutOfPages> {
        let local = &mutator.local;
        if wanted.size > MAX_SMALL || wanted.align > MAX_SMALL_ALIGN {
            return self.alloc_large(mutator, wanted);
        }
        let Some((info, id)) = wanted.info else {
            let Some(class) = size_class::class_of(wanted.size.max(1), wanted.align) else {
                return self.alloc_large(mutator, wanted);
            };
            let cursor = local.cache.fixed(class);
            if cursor.class.get().is_none() {
                cursor.class.set(Some(self.heap.fixed_class(class)));
            }
            return self.slot_from(mutator, cursor);
        };
        let (key, name, slot) = if wanted.exact {
            (
                ClassKey::exact(info),
                ClassName::Exact(id),
                exact_slot(wanted.size, wanted.align),
            )
        } else {
            let Some(class) = size_class::class_of(wanted.size.max(1), wanted.align) else {
                return self.alloc_large(mutator, wanted);
            };
            (
                ClassKey::list(info, class),
                ClassName::List(id, class),
                class.size(),
            )
        };
        let intern = || self.heap.intern(name, Kind::Object, slot, info);
        local.cache.with_typed(key, intern, |cursor| {
            debug_assert!(
                cursor
                    .class
                    .get()
                    .and_then(|c| c.info)
                    .is_some_and(|i| (i.size, i.align) == (info.size, info.align)),
                "two types of different layout share a constant"
            );
            self.slot_from(mutator, cursor)
        })
    }

    /// A slot of the weak cells' class.
    pub(crate) fn alloc_weak_cell(&self, mutator: &MutatorState) -> Result<Fresh, OutOfPages> {
        // Relaxed: set before the first cell is published; the collector reads it while the world is stopped.
        self.uses_weak.store(1, Ordering::Relaxed);
        let class = self.heap.weak_class();
        let key = ClassKey::WEAK;
        let alloc = || {
            mutator
                .local
                .cache
                .with_typed(key, || class, |cursor| self.slot_from(mutator, cursor))
        };
        alloc().or_else(|OutOfPages| self.without_room(mutator, alloc))
    }

    fn slot_from(&self, mutator: &MutatorState, cursor: &Cursor) -> Result<Fresh, OutOfPages> {
        let slot = cursor.class.get().map_or(0, |c| c.slot);
        loop {
            if let Some(address) = cursor.bump(slot) {
                return Ok(Fresh { address, slot });
            }
            let local = &mutator.local;
            let bytes = self.heap.refill(&local.cache, cursor, local.paint.get())?;
            // May wait for the end of marking, which takes the cursor's span back: so look again.
            let scan = cursor.class.get().is_some_and(|c| c.scan);
            self.charge(mutator, scan, bytes as u64);
        }
    }

    fn alloc_large(&self, mutator: &MutatorState, wanted: Wanted) -> Result<Fresh, OutOfPages> {
        // Before it is counted anywhere: a length that a user makes up would be charged, owed, and remembered as one that is
        // still to come.
        if !self.heap.can_ever_hold(wanted.size, wanted.align) {
            return Err(OutOfPages);
        }
        let plain = (Slice::<u8>::INFO, TypeId::of::<[u8]>());
        let (info, id) = wanted.info.unwrap_or(plain);
        let class = self.heap.intern(ClassName::Large(id), Kind::Large, 0, info);
        // Before the object is there: this may wait for the end of marking.
        let bytes = wanted.size.next_multiple_of(PAGE_SIZE).max(PAGE_SIZE);
        // Relaxed: a figure.
        self.pacing
            .longest
            .fetch_max(bytes as u64, Ordering::Relaxed);
        self.charge(mutator, class.scan, bytes as u64);
        let paint = if is_black(&mutator.local) {
            Paint::Black
        } else {
            Paint::White
        };
        let large = match self
            .heap
            .alloc_large(class, wanted.size, wanted.align, paint)
        {
            Ok(large) => large,
            Err(error) => {
                self.uncharge(bytes as u64);
                return Err(error);
            }
        };
        // What its alignment takes on top.
        let extra = large.span_bytes.saturating_sub(bytes) as u64;
        self.gauges.charge(extra);
        Ok(Fresh {
            address: self.heap.at(large.offset).addr(),
            slot: large.slot,
        })
    }

    /// Charges `bytes` to the heap, asks for a cycle past the trigger, and pays: with marking while that runs, else with
    /// sweeping.
    fn charge(&self, mutator: &MutatorState, scan: bool, bytes: u64) {
        let live = self.gauges.charge(bytes);
        self.look_at_size();
        // Relaxed (both): figures.
        if scan {
            self.pacing.scannable.fetch_add(bytes, Ordering::Relaxed);
        }
        if mutator.local.duty.marks() {
            self.pay_for(mutator, bytes);
            return;
        }
        let swept = self.heap.swept_pages.load(Ordering::Relaxed);
        let due = self.pacing.pages_due(live, swept);
        if due > 0 {
            self.sweep_pages(due);
        }
        self.look_at_growth(mutator, live);
    }

    /// Sweeps everything that needs no drop, for a mutator that is out of memory.
    fn sweep_plain_spans(&self) {
        if !self.heap.sweep_is_open() {
            return;
        }
        for page in 1..self.heap.top() {
            self.sweep_plain(page);
        }
    }
}
