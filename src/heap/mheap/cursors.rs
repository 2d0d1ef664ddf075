//! Cursors: runs of free slots that go to a mutator's cache and come back.

use super::{MHeap, OutOfPages, Paint};
use crate::base::addr::PAGE_SHIFT;
use crate::heap::mcache::{Cursor, MCache, NO_SPAN};
use crate::heap::span::{Holder, SweepState};
use crate::heap::span_class::ClassRef;
use crate::sys::fatal::fatal;
use crate::sys::sync::Ordering;

/// How many unswept spans of its class a refill tries before it takes fresh pages. If all of them
/// are full, the time is lost: one or two microseconds each. Go tries 100, for at most 1 % of
/// space.
const SWEEP_BUDGET: usize = 20;

impl MHeap {
    /// Points `cursor` at another run of free slots of its class. Returns the bytes of the run.
    pub(crate) fn refill(
        &self,
        cache: &MCache,
        cursor: &Cursor,
        paint: Paint,
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
            let first_page = match self.span_from_central(class) {
                Some(first_page) => first_page,
                None => self.new_span(class, class.span_pages, 1, Holder::Mutator, Some(cache))?,
            };
            let start = self.at((first_page as usize) << PAGE_SHIFT).addr();
            cursor.span.set(first_page);
            cursor.cur.set(start);
            cursor.end.set(start);
        }
    }

    /// Moves the cursor to the next run of free slots of its span.
    fn next_run(&self, cursor: &Cursor, class: ClassRef, paint: Paint) -> Option<usize> {
        let first_page = cursor.span.get();
        let start = (first_page as usize) << PAGE_SHIFT;
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
            .stats
            .allocated(((to - from) / class.slot) as u64, class.slot as u64);
        Some(to - from)
    }

    /// Gives the cursor's span, which has no free slot left, back to the central set.
    fn retire_full(&self, cursor: &Cursor, class: ClassRef) {
        let first_page = cursor.span.replace(NO_SPAN);
        cursor.cur.set(0);
        cursor.end.set(0);
        // Relaxed: `uncache` publishes it.
        self.span(first_page)
            .all_allocated
            .store(1, Ordering::Relaxed);
        let now = self.generation();
        let mut sets = class.central.lock(now);
        match self.span(first_page).sweep_gen.uncache(now) {
            SweepState::CachedStale => sets.unswept.push(first_page),
            _ => sets.full.push(first_page),
        }
    }

    fn span_from_central(&self, class: ClassRef) -> Option<u32> {
        let now = self.generation();
        let sweep = self.sweep_is_open() && !class.drop;
        let mut budget = SWEEP_BUDGET;
        loop {
            let candidate = {
                let mut sets = class.central.lock(now);
                if let Some(first_page) = sets.partial.pop() {
                    self.span(first_page).sweep_gen.cache(now);
                    return Some(first_page);
                }
                if !sweep || budget == 0 {
                    return None;
                }
                sets.unswept.pop()?
            };
            budget -= 1;
            if self.sweep_for_cache(candidate, class) {
                return Some(candidate);
            }
        }
    }

    /// Takes the unused rest of a cursor's run back, and its span. `paint` is the color of the run.
    ///
    /// Returns the bytes that were not used.
    pub(crate) fn give_back(&self, cursor: &Cursor, paint: Paint) -> usize {
        let first_page = cursor.span.replace(NO_SPAN);
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
        let start = (first_page as usize) << PAGE_SHIFT;
        // [C2] All slots below `cur` are allocated.
        self.alloc.set_run(start, cur, class.slot);
        let now = self.generation();
        let mut sets = class.central.lock(now);
        match self.span(first_page).sweep_gen.uncache(now) {
            SweepState::CachedStale => sets.unswept.push(first_page),
            _ => sets.partial.push(first_page),
        }
        class
            .stats
            .not_used(((end - cur) / class.slot) as u64, class.slot as u64);
        end - cur
    }

    /// Sets the mark bits of a cursor's unused run: from now on the cursor allocates black.
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
}
