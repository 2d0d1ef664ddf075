//! The heap verifier: with everybody stopped, every invariant that can be looked at.
//!
//! It looks with the turnstile in its hands, under which the collector drops objects, and a drop may wait for a thread that
//! stands. So nobody stands while the verifier waits for the turnstile for long: it lets them go on, and tries again.

use std::collections::HashMap;
use std::time::Duration;

use bitvec::vec::BitVec;

use crate::base::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::gc::check::From;
use crate::gc::collector::Collector;
use crate::gc::mutator::MutatorRef;
use crate::gc::standstill::Standstill;
use crate::gc::state_word::Request;
use crate::gc::stopped::StoppedToRead;
use crate::gc::weak::WeakCell;
use crate::heap::dead::POISON;
use crate::heap::page_cache::PageCache;
use crate::heap::span::SweepState;
use crate::heap::span_class::{ClassRef, Kind};
use crate::sys::lock::lock_within;
use crate::sys::shadow;
use crate::sys::sync::Ordering;
use crate::sys::thread;

/// How long the world stands for the turnstile, and how long it goes on until the next attempt.
const TURN: Duration = Duration::from_millis(20);

/// Where each span was found.
#[derive(Debug)]
struct Places {
    /// Spans in a mutator's cursor: the unused rest of its run, as offsets.
    cached: HashMap<u32, (usize, usize)>,
    /// First pages of spans in a central set.
    central: BitVec,
    /// Pages in a mutator's page cache.
    cached_pages: BitVec,
    /// How many of these have no memory behind them.
    cached_released: u32,
}

impl Places {
    /// Nothing was found yet, below page `top`.
    fn new(top: u32) -> Self {
        Self {
            cached: HashMap::new(),
            central: BitVec::repeat(false, top as usize),
            cached_pages: BitVec::repeat(false, top as usize),
            cached_released: 0,
        }
    }
}

impl Collector {
    /// Checks the whole heap; see [`Heap::verify`](crate::Heap::verify).
    ///
    /// # Errors
    /// The first broken invariant, in words.
    pub(crate) fn verify(&self, me: Option<MutatorRef>) -> Result<(), String> {
        let outcome = loop {
            self.look_for_lost();
            if let Some(why) = self.why_not_verified() {
                return Err(why);
            }
            let mut watch = self.watch(Request::StopToVerify);
            let stopped = self.world.stop_to_verify(me, |waited| {
                self.look_at_laggards(&mut watch, Request::StopToVerify, waited);
                self.patience(Request::StopToVerify)
            });
            self.end_watch(watch);
            let Some(stopped) = stopped else {
                // A mutator was lost after it had been asked: without it, or not at all.
                continue;
            };
            let turn = lock_within(&self.turnstile, TURN);
            let outcome = turn.map(|_turn| self.verify_stopped(&stopped));
            self.world.start_after_verify(stopped);
            if let Some(outcome) = outcome {
                break outcome;
            }
            self.look_at_drop();
            thread::sleep(TURN);
        };
        self.frames.free_dead();
        outcome
    }

    fn verify_stopped(&self, stopped: &StoppedToRead<'_>) -> Result<(), String> {
        let places = self.find_places()?;
        let spans = self.verify_spans(&places)?;
        self.verify_free_pages(&places)?;
        self.verify_reachable(&places, stopped)?;
        self.verify_weak(&places, &spans)?;
        let stocks = self
            .world
            .registry()
            .iter()
            .map(|m| m.local.free_roots.borrow().len())
            .sum();
        self.roots.verify(stocks)
    }

    fn find_places(&self) -> Result<Places, String> {
        let now = self.heap.generation();
        let mut places = Places::new(self.heap.top());
        for mutator in self.world.registry().iter() {
            let mut problem = None;
            mutator.local.cache.for_each_cached(|cursor| {
                let head = cursor.span.get();
                let to_offset = |a: usize| self.heap.offset_of(a).unwrap_or(0);
                let run = (to_offset(cursor.cur.get()), to_offset(cursor.end.get()));
                let state = self.heap.span(head).sweep_gen.state(now);
                if !matches!(state, SweepState::Cached | SweepState::CachedStale) {
                    problem = Some(format!(
                        "the span at page {head} is cached by {} but {state:?}",
                        mutator.thread_name()
                    ));
                }
                if places.cached.insert(head, run).is_some() {
                    problem = Some(format!("the span at page {head} is cached twice"));
                }
            });
            if let Some(problem) = problem {
                return Err(problem);
            }
            if let Some(pages) = &*mutator.local.cache.pages.borrow() {
                for i in (0..PageCache::GROUP).filter(|i| pages.free >> i & 1 != 0) {
                    places.cached_pages.set((pages.base.0 + i) as usize, true);
                }
                places.cached_released += pages.released.count_ones();
            }
        }
        for class in self.heap.all_classes() {
            let sets = class.central.lock(now);
            for (list, name) in [(&sets.partial, "partial"), (&sets.full, "full")] {
                for &head in list {
                    if places.central.replace(head as usize, true)
                        || places.cached.contains_key(&head)
                    {
                        return Err(format!("the span at page {head} is in two places"));
                    }
                    let state = self.heap.span(head).sweep_gen.state(now);
                    if state != SweepState::Swept {
                        return Err(format!(
                            "the span at page {head} is in the {name} set but {state:?}"
                        ));
                    }
                }
            }
        }
        Ok(places)
    }

    /// Checks every span by itself; returns them.
    fn verify_spans(&self, places: &Places) -> Result<Vec<(u32, ClassRef)>, String> {
        let now = self.heap.generation();
        let mut spans = Vec::new();
        let mut bytes = 0_u64;
        let mut page = 1;
        while page < self.heap.top() {
            let start = (page as usize) << PAGE_SHIFT;
            let Some(class) = self.heap.class_at(start) else {
                page += 1;
                continue;
            };
            // Relaxed: everybody is stopped.
            let pages = self.heap.span(page).pages.load(Ordering::Relaxed);
            if self.heap.first_page_of(start) != page || pages == 0 {
                return Err(format!(
                    "page {page} belongs to a span that does not begin at it or before it"
                ));
            }
            for other in page..page + pages {
                let at = (other as usize) << PAGE_SHIFT;
                if self.heap.first_page_of(at) != page || self.heap.class_at(at) != Some(class) {
                    return Err(format!(
                        "page {other} does not map to its span at page {page}"
                    ));
                }
            }
            let state = self.heap.span(page).sweep_gen.state(now);
            let placed = match state {
                SweepState::Cached | SweepState::CachedStale => places.cached.contains_key(&page),
                SweepState::Swept => class.kind == Kind::Large || places.central[page as usize],
                SweepState::Unswept => true,
                SweepState::Free | SweepState::Sweeping | SweepState::Impossible => false,
            };
            if !placed {
                return Err(format!(
                    "the span of {} at page {page} is {state:?} and in no place",
                    class.type_name()
                ));
            }
            self.verify_bits(page, pages, class)?;
            self.verify_poison(page, class, state, places)?;
            bytes += u64::from(pages) << PAGE_SHIFT;
            spans.push((page, class));
            page += pages;
        }
        // Relaxed: everybody is stopped.
        let counted = self.heap.span_bytes.load(Ordering::Relaxed);
        if counted != bytes {
            return Err(format!(
                "{bytes} bytes are in spans, {counted} were counted"
            ));
        }
        Ok(spans)
    }

    /// Allocation and mark bits sit on slot starts only.
    fn verify_bits(&self, head: u32, pages: u32, class: ClassRef) -> Result<(), String> {
        let start = (head as usize) << PAGE_SHIFT;
        let end = start + ((pages as usize) << PAGE_SHIFT);
        for (bits, name) in [
            (&self.heap.alloc, "an allocation"),
            (&self.heap.mark, "a mark"),
        ] {
            let mut at = start;
            while let Some(found) = bits.next_set(at, end) {
                let starts_slot = match class.kind {
                    Kind::Large => found == start + self.heap.object_at(head),
                    _ => {
                        (found - start).is_multiple_of(class.slot)
                            && (found - start) / class.slot < class.slots as usize
                    }
                };
                if !starts_slot {
                    return Err(format!(
                        "{name} bit of the span at page {head} is inside a slot"
                    ));
                }
                at = found + 8;
            }
        }
        Ok(())
    }

    /// In poison mode a free slot of a swept span is filled with the pattern.
    fn verify_poison(
        &self,
        head: u32,
        class: ClassRef,
        state: SweepState,
        places: &Places,
    ) -> Result<(), String> {
        if !self.heap.poison || state.awaits_sweep() || class.kind == Kind::Large {
            return Ok(());
        }
        let start = (head as usize) << PAGE_SHIFT;
        for slot in 0..class.slots as usize {
            let offset = start + slot * class.slot;
            if self.is_allocated(offset, class, places) {
                continue;
            }
            shadow::open(self.heap.at(offset), class.slot);
            // SAFETY: a slot of a live span, inside the arena; it is free and everybody is stopped.
            let bytes = unsafe { std::slice::from_raw_parts(self.heap.at(offset), class.slot) };
            if bytes.iter().any(|&b| b != POISON) {
                return Err(format!(
                    "a free slot of {} at offset {offset:#x} was written to",
                    class.type_name()
                ));
            }
            shadow::close(self.heap.at(offset), class.slot);
        }
        Ok(())
    }

    fn verify_free_pages(&self, places: &Places) -> Result<(), String> {
        for page in 1..self.heap.top() {
            let start = (page as usize) << PAGE_SHIFT;
            if self.heap.class_at(start).is_some() {
                continue;
            }
            let dirty = |bits: &crate::heap::bits::BitTable| {
                bits.next_set(start, start + PAGE_SIZE).is_some()
            };
            if self.heap.first_page_of(start) != 0
                || dirty(&self.heap.alloc)
                || dirty(&self.heap.mark)
            {
                return Err(format!(
                    "page {page} belongs to no span but has bits or a span's number"
                ));
            }
        }
        self.heap.verify_pages(places.cached_released, |page| {
            self.heap.class_at((page as usize) << PAGE_SHIFT).is_some()
                || places.cached_pages[page as usize]
        })
    }

    /// Whether the slot at `offset` holds an object, as far as its span's owner knows.
    fn is_allocated(&self, offset: usize, class: ClassRef, places: &Places) -> bool {
        if class.kind == Kind::Large {
            return true;
        }
        let head = self.heap.first_page_of(offset);
        if let Some(&(cur, end)) = places.cached.get(&head) {
            // [C2] below the cursor everything is allocated.
            return offset < cur || offset >= end && self.heap.alloc.test(offset);
        }
        // Relaxed: everybody is stopped.
        self.heap.span(head).all_allocated.load(Ordering::Relaxed) != 0
            || self.heap.alloc.test(offset)
    }

    fn verify_reachable(&self, places: &Places, stopped: &StoppedToRead<'_>) -> Result<(), String> {
        let now = self.heap.generation();
        let stopped_marking = !self.is_marking();
        let standstill = Standstill::of(&self.world, stopped);
        let left_out = self.walk_reachable(&standstill, |offset, class, from| {
            if !self.is_allocated(offset, class, places) {
                return Err(format!(
                    "{} leads to a free slot of {} at offset {offset:#x}",
                    self.name(from),
                    class.type_name()
                ));
            }
            let state = self.heap.span(self.heap.first_page_of(offset)).sweep_gen.state(now);
            let unswept = state.awaits_sweep();
            if stopped_marking && unswept && !self.heap.mark.test(offset) {
                return Err(format!(
                    "a reachable {} at offset {offset:#x} (from {}) is unmarked and about to be swept",
                    class.type_name(),
                    self.name(from)
                ));
            }
            Ok(())
        })?;
        self.note_left_out(left_out);
        Ok(())
    }

    fn verify_weak(&self, places: &Places, spans: &[(u32, ClassRef)]) -> Result<(), String> {
        if self.is_marking() || !self.weak.is_idle() {
            return Ok(()); // cleared after marking
        }
        let now = self.heap.generation();
        for &(head, class) in spans.iter().filter(|(_, c)| c.kind == Kind::WeakCell) {
            let unswept = self.heap.span(head).sweep_gen.state(now).awaits_sweep();
            for slot in 0..class.slots as usize {
                let offset = ((head as usize) << PAGE_SHIFT) + slot * class.slot;
                if !self.is_allocated(offset, class, places)
                    || unswept && !self.heap.mark.test(offset)
                {
                    continue;
                }
                let cell: *const WeakCell = self.heap.at(offset).cast_const().cast();
                // SAFETY: an allocated slot of the weak class holds a cell; cells are atomics.
                let cell = unsafe { &*cell };
                let target = cell.target();
                let Some(at) = self.heap.offset_of(target).filter(|&o| o != 0) else {
                    continue;
                };
                let live = self
                    .heap
                    .class_at(at)
                    .is_some_and(|c| self.is_allocated(at, c, places));
                if !live {
                    return Err(format!(
                        "a weak cell names a free slot; {}",
                        self.name(From::Object(offset))
                    ));
                }
            }
        }
        Ok(())
    }
}
