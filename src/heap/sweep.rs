//! The sweep of one span: dead objects are dropped, the mark bits become the allocation bits, and
//! the mark bits are cleared.
//!
//! If the objects of a span need no drop, the sweep works on the bitmaps alone, and touches no
//! object. The thread that holds the [`SweepClaim`] sweeps: the background sweeper, or a mutator
//! that looks for a free slot of that class. Objects that need a drop are left to the background
//! sweeper, so that no user code runs in the middle of an allocation.

use crate::base::addr::PAGE_SHIFT;
use crate::heap::dead::{DeadObjects, NoDrops, POISON};
use crate::heap::mheap::MHeap;
use crate::heap::span::{SweepClaim, SweepState};
use crate::heap::span_class::{ClassRef, Kind};
use crate::sys::fatal::fatal;
use crate::sys::sabotage::{self, Fault};
use crate::sys::shadow;
use crate::sys::sync::{AtomicUsize, Ordering, fence};

/// Exists while a mutator sweeps; it is made before the mutator claims a span. A thread that waits
/// for the end of the sweep waits until the last of these is dropped ([`MHeap::mutators_sweep`]).
#[derive(Debug)]
#[must_use = "the sweep counts as over when this is dropped"]
pub(crate) struct Sweeping<'a>(&'a AtomicUsize);

impl Drop for Sweeping<'_> {
    fn drop(&mut self) {
        // Release: the sweep has ended; pairs with the Acquire in `mutators_sweep`.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl MHeap {
    /// Sweeps the span at `first_page` if it is unswept. Returns true if this call swept it.
    pub(crate) fn sweep_span(&self, first_page: u32, dead: &mut dyn DeadObjects) -> bool {
        let now = self.generation();
        if self.span(first_page).sweep_gen.state(now) != SweepState::Unswept {
            return false;
        }
        let Some(claim) = self.span(first_page).sweep_gen.try_claim(now) else {
            return false;
        };
        // The claim makes the span ours, so the page map's entry for it is stable.
        let Some(class) = self.class_at((first_page as usize) << PAGE_SHIFT) else {
            return false;
        };
        match self.sweep_claimed(first_page, class, dead) {
            0 => self.free_span(first_page, claim),
            live if live == class.slots as usize => {
                if class.kind == Kind::Large {
                    claim.finish_sweep();
                } else {
                    let mut sets = class.central.lock(now);
                    claim.finish_sweep();
                    sets.full.push(first_page);
                }
            }
            _ => {
                let mut sets = class.central.lock(now);
                claim.finish_sweep();
                sets.partial.push(first_page);
            }
        }
        true
    }

    /// Records that this mutator sweeps until the result is dropped.
    pub(crate) fn begin_sweeping(&self) -> Sweeping<'_> {
        // Relaxed: a mutator that sweeps is not at a safepoint, for which the next cycle waits; the
        // count is only for those who wait for the end of the sweep. The Release in
        // `Sweeping::drop` shows them what was swept.
        self.sweeping.fetch_add(1, Ordering::Relaxed);
        Sweeping(&self.sweeping)
    }

    /// Whether a mutator sweeps now. The caller sees what the ones that have ended did.
    pub(crate) fn mutators_sweep(&self) -> bool {
        // Acquire: pairs with the Release in `Sweeping::drop`.
        self.sweeping.load(Ordering::Acquire) != 0
    }

    /// Sweeps the span at `first_page`, whose objects need no drop, for a mutator that needs a free
    /// slot of `class`. Returns true if the mutator now has the span cached.
    pub(crate) fn sweep_for_cache(&self, first_page: u32, class: ClassRef) -> bool {
        let _sweeping = self.begin_sweeping();
        let now = self.generation();
        let Some(claim) = self.span(first_page).sweep_gen.try_claim(now) else {
            return false;
        };
        // A stale entry can name a page that is another class's span by now, but such a span was
        // born swept.
        if self.class_at((first_page as usize) << PAGE_SHIFT) != Some(class) {
            fatal("an unswept set names a span of another class");
        }
        if self.sweep_claimed(first_page, class, &mut NoDrops) < class.slots as usize {
            claim.finish_cached();
            return true;
        }
        let mut sets = class.central.lock(now);
        claim.finish_sweep();
        sets.full.push(first_page);
        false
    }

    fn free_span(&self, first_page: u32, claim: SweepClaim<'_>) {
        // Relaxed: it was written at birth, and the span is ours.
        let pages = self.span(first_page).pages.load(Ordering::Relaxed);
        claim.finish_free();
        self.free_pages(first_page, pages);
    }

    /// Does the sweep, and returns the number of live objects. The caller holds the claim.
    fn sweep_claimed(&self, first_page: u32, class: ClassRef, dead: &mut dyn DeadObjects) -> usize {
        let span = self.span(first_page);
        let start = (first_page as usize) << PAGE_SHIFT;
        // Relaxed (both): [S2] the record is ours.
        let pages = span.pages.load(Ordering::Relaxed);
        let end = start + ((pages as usize) << PAGE_SHIFT);
        // Relaxed: statistics only.
        self.swept_pages
            .fetch_add(u64::from(pages), Ordering::Relaxed);
        let all = span.all_allocated.load(Ordering::Relaxed) != 0;
        if class.kind == Kind::Large {
            return self.sweep_large(start, end, class, dead);
        }
        let before = if all {
            class.slots as usize
        } else {
            self.alloc.count(start, end)
        };
        if class.drop || self.poison || shadow::ON {
            self.visit_dead(start, class, all, dead);
        }
        // Release: a thread that reads a mark bit which is cleared below, and then fences, sees
        // that the census has ended.
        fence(Ordering::Release);
        let live = self.mark.move_into(&self.alloc, start, end);
        // Relaxed: [S2] the record is ours.
        span.all_allocated.store(0, Ordering::Relaxed);
        self.note_freed(class, before.saturating_sub(live) as u64, class.slot as u64);
        live
    }

    fn visit_dead(&self, start: usize, class: ClassRef, all: bool, dead: &mut dyn DeadObjects) {
        for slot in 0..class.slots as usize {
            let offset = start + slot * class.slot;
            if self.mark.test(offset) {
                continue;
            }
            let at = self.at(offset);
            if class.drop && (all || self.alloc.test(offset)) {
                dead.drop_object(class, at, class.slot);
                if sabotage::is_on(Fault::DroppedTwice) {
                    dead.drop_object(class, at, class.slot);
                }
            }
            self.close_slot(at, class.slot);
        }
    }

    fn sweep_large(
        &self,
        start: usize,
        end: usize,
        class: ClassRef,
        dead: &mut dyn DeadObjects,
    ) -> usize {
        let offset = start + self.object_at((start >> PAGE_SHIFT) as u32);
        let marked_at = sabotage::pick(Fault::LargeSweptByItsSpan, start, offset);
        // Release: as for small objects. For a dead object the page map is cleared as well, which
        // an upgrade also reads.
        fence(Ordering::Release);
        if self.mark.test(marked_at) {
            self.mark.clear(offset);
            return 1;
        }
        if class.drop {
            dead.drop_object(class, self.at(offset), end - offset);
        }
        self.close_slot(self.at(offset), end - offset);
        self.note_freed(class, 1, (end - start) as u64);
        0
    }

    fn note_freed(&self, class: ClassRef, objects: u64, bytes_each: u64) {
        if objects > 0 {
            // Relaxed: statistics only.
            self.freed_bytes
                .fetch_add(objects * bytes_each, Ordering::Relaxed);
            class.stats.freed(objects, bytes_each);
        }
    }

    /// Calls `f` with each allocated slot of the span at `first_page`, which no mutator caches: its
    /// offset and bytes.
    pub(crate) fn for_each_allocated(
        &self,
        first_page: u32,
        class: ClassRef,
        mut f: impl FnMut(usize, usize),
    ) {
        let span = self.span(first_page);
        let start = (first_page as usize) << PAGE_SHIFT;
        if class.kind == Kind::Large {
            let offset = start + self.object_at(first_page);
            f(offset, self.slot_bytes(offset, class));
            return;
        }
        // Relaxed: the caller has the span to itself, or the world is stopped.
        let all = span.all_allocated.load(Ordering::Relaxed) != 0;
        for slot in 0..class.slots as usize {
            let offset = start + slot * class.slot;
            if all || self.alloc.test(offset) {
                f(offset, class.slot);
            }
        }
    }

    /// Closes a free slot, which nobody may touch. In poison mode it is filled first.
    fn close_slot(&self, at: *mut u8, bytes: usize) {
        if self.poison {
            shadow::open(at, bytes);
            // SAFETY: [S2] the slot is free and the caller has claimed its span, so nobody else
            // touches it.
            unsafe { at.write_bytes(POISON, bytes) };
        }
        shadow::close(at, bytes);
    }
}
