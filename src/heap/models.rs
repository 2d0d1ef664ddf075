//! Loom models of this layer: the bits of one word, and a span between its mutator and the
//! sweepers.
//!
//! They run the real `BitTable` and the real `MHeap`, over a few pages. The class of the span is
//! the fixed one of 8 KiB or 4 KiB slots, so a span has one or two slots.

use std::sync::Arc;

use crate::base::addr::PAGE_SHIFT;
use crate::heap::bits::BitTable;
use crate::heap::dead::NoDrops;
use crate::heap::mcache::MCache;
use crate::heap::mheap::{MHeap, Options, Paint};
use crate::heap::size_class::{SizeClass, class_of};
use crate::heap::span::SweepState;
use crate::heap::span_class::ClassRef;
use crate::sys::model::explore;
use crate::sys::sync::{Ordering, yield_now};

const SLOT: usize = 4096;
const STRIDE: usize = 64;

/// One word of mark bits: a mutator blackens a run of slots and takes back what it did not use.
/// Meanwhile a marker marks older objects of the same word, and another marker marks one of them.
#[test]
fn loom_black_run_against_markers_in_one_word() {
    explore(3, |order| {
        let marks = Arc::new(BitTable::new(512).unwrap());
        let (one, two, three) = (marks.clone(), marks.clone(), marks.clone());
        let ((), first, second) = order.race3(
            move || {
                one.set_run(STRIDE, 4 * STRIDE, STRIDE);
                one.clear_run(2 * STRIDE, 4 * STRIDE, STRIDE);
            },
            move || two.set(0),
            move || three.set(0),
        );
        assert!(first ^ second, "an object is marked by one");
        let marked: Vec<_> = (0..5).filter(|slot| marks.test(slot * STRIDE)).collect();
        assert_eq!(marked, [0, 1]);
    });
}

/// The negative control: a run is blackened by a load and a store.
#[test]
#[should_panic(expected = "a mark is lost")]
fn loom_black_run_without_read_modify_write_fails() {
    use crate::sys::sync::AtomicU64;
    explore(2, |order| {
        let word = Arc::new(AtomicU64::new(0));
        let (here, there) = (word.clone(), word.clone());
        order.race(
            move || {
                // Relaxed (both): as in `BitTable::set_run`.
                let bits = here.load(Ordering::Relaxed);
                here.store(bits | 0b10, Ordering::Relaxed);
            },
            // Relaxed: as in `BitTable::set`.
            move || there.fetch_or(1, Ordering::Relaxed),
        );
        // Relaxed: both threads have ended.
        assert_eq!(word.load(Ordering::Relaxed), 0b11, "a mark is lost");
    });
}

/// A heap, and a mutator's cache with a cursor for slots of [`SLOT`] bytes.
struct Scene {
    heap: MHeap,
    cache: MCache,
    class: SizeClass,
}

// SAFETY: one thread of a model at a time uses the cache's cells: the thread that stands for its
// mutator.
unsafe impl Sync for Scene {}
// SAFETY: as above.
unsafe impl Send for Scene {}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            heap: MHeap::new(8 << PAGE_SHIFT, Options::default()).unwrap(),
            cache: MCache::new(),
            class: class_of(SLOT, 8).unwrap(),
        };
        assert_eq!(scene.class_ref().slots, 2);
        scene.with(&scene.cache);
        scene
    }

    fn class_ref(&self) -> ClassRef {
        self.heap.fixed_class(self.class)
    }

    /// Prepares `cache`.
    fn with(&self, cache: &MCache) {
        cache.fixed(self.class).class.set(Some(self.class_ref()));
    }

    /// Takes another run of free slots for `cache`. Returns the offset of the slot that is then
    /// taken.
    fn alloc(&self, cache: &MCache, paint: Paint) -> usize {
        let cursor = cache.fixed(self.class);
        if cursor.cur.get() == cursor.end.get() {
            let got = self.heap.refill(cache, cursor, paint);
            assert!(got.unwrap() >= SLOT);
        }
        let at = cursor.bump(SLOT).expect("a run has a slot");
        self.heap.offset_of(at).unwrap()
    }

    fn give_back(&self, paint: Paint) {
        self.heap.give_back(self.cache.fixed(self.class), paint);
    }

    /// Runs the background sweep of the span at `first_page`.
    fn sweep(&self, first_page: u32) {
        self.heap.sweep_span(first_page, &mut NoDrops);
    }

    /// Returns how many objects the sweeps of all threads have found dead.
    fn freed(&self) -> u64 {
        // Relaxed: all threads have ended.
        self.heap.freed_bytes.load(Ordering::Relaxed) / SLOT as u64
    }

    fn state(&self, first_page: u32) -> SweepState {
        self.heap
            .span(first_page)
            .sweep_gen
            .state(self.heap.generation())
    }

    /// Ends marking (the world is stopped), and the census as well.
    fn end_marking(&self) {
        self.heap.advance_generation();
        self.heap.open_sweep();
    }
}

fn page_of(offset: usize) -> u32 {
    (offset >> PAGE_SHIFT) as u32
}

/// A span has a live and a dead object. A mutator that looks for a slot and the background sweep
/// both want it. One of them sweeps it; the live object's slot is not handed out, and the dead
/// one's is handed out at most once.
#[test]
fn loom_refill_against_background_sweep() {
    explore(3, |order| {
        let scene = Arc::new(Scene::new());
        let live = scene.alloc(&scene.cache, Paint::White);
        let dead = scene.alloc(&scene.cache, Paint::White);
        let first_page = page_of(live);
        assert_eq!(page_of(dead), first_page);
        scene.give_back(Paint::White);
        scene.heap.mark.set(live);
        scene.end_marking();
        let (here, there) = (scene.clone(), scene.clone());
        let (got, ()) = order.race(
            move || here.alloc(&here.cache, Paint::White),
            move || {
                there.sweep(first_page);
                // This is the end of `Collector::sweep_all`.
                while there.heap.mutators_sweep() {
                    yield_now();
                }
                assert_ne!(
                    there.state(first_page),
                    SweepState::Sweeping,
                    "the sweep is over"
                );
            },
        );
        assert_eq!(scene.freed(), 1, "swept once");
        assert_ne!(got, live, "a live object's slot is handed out");
        let state = scene.state(first_page);
        assert_eq!(
            state == SweepState::Cached,
            page_of(got) == first_page,
            "{state:?}"
        );
        assert!(scene.heap.alloc.test(live) && !scene.heap.mark.test(live));
        scene.give_back(Paint::White);
        assert_eq!(scene.state(first_page), SweepState::Swept);
        assert_eq!(scene.heap.alloc.test(dead), got == dead);
    });
}

/// Two mutators look for a slot of the same class, and there is one unswept span: their slots
/// differ.
#[test]
fn loom_refill_against_refill() {
    explore(2, |order| {
        let scene = Arc::new(Scene::new());
        let live = scene.alloc(&scene.cache, Paint::White);
        scene.give_back(Paint::White);
        scene.heap.mark.set(live);
        scene.end_marking();
        let (here, there) = (scene.clone(), scene.clone());
        let (a, b) = order.race(
            move || here.alloc(&here.cache, Paint::White),
            move || {
                let cache = MCache::new();
                there.with(&cache);
                there.alloc(&cache, Paint::White)
            },
        );
        assert!(a != b && a != live && b != live, "{a:#x} {b:#x} {live:#x}");
    });
}

/// How a mutator adapts its cached span to a new generation.
#[derive(Clone, Copy, PartialEq)]
enum Flush {
    /// By `MHeap::give_back`.
    InOrder,
    /// Wrongly: the sweepers may take the span before its bits are right.
    UncachedFirst,
}

/// The generation changes while a mutator caches a span whose unused slot it has blackened. The
/// mutator gives the span back (`Collector::flush_cache`) while the background sweep passes by. The
/// span is swept once, then or later, and the unused slot is free afterwards.
fn generation_change_against_cached_span(flush: Flush) {
    explore(3, move |order| {
        let scene = Arc::new(Scene::new());
        let live = scene.alloc(&scene.cache, Paint::Black);
        let first_page = page_of(live);
        let unused = live + SLOT;
        assert!(scene.heap.mark.test(unused), "blackened");
        scene.heap.advance_generation();
        assert_eq!(scene.state(first_page), SweepState::CachedStale);
        scene.heap.open_sweep();
        let (here, there) = (scene.clone(), scene.clone());
        order.race(
            move || {
                if flush == Flush::UncachedFirst {
                    let span = here.heap.span(first_page);
                    span.sweep_gen.uncache(here.heap.generation());
                    here.heap.mark.clear_run(unused, unused + SLOT, SLOT);
                    here.heap.alloc.set_run(live, unused, SLOT);
                } else {
                    here.give_back(Paint::Black);
                }
            },
            move || there.sweep(first_page),
        );
        scene.sweep(first_page);
        assert_eq!(scene.state(first_page), SweepState::Swept);
        let alloc = [live, unused].map(|offset| scene.heap.alloc.test(offset));
        let mark = [live, unused].map(|offset| scene.heap.mark.test(offset));
        assert_eq!((alloc, mark), ([true, false], [false, false]), "wrong bits");
    });
}

#[test]
fn loom_generation_change_against_cached_span() {
    generation_change_against_cached_span(Flush::InOrder);
}

#[test]
#[should_panic(expected = "wrong bits")]
fn loom_span_uncached_before_its_bits_fails() {
    generation_change_against_cached_span(Flush::UncachedFirst);
}

/// The only object of a span is dead. The mutator takes the span, or the background sweep frees its
/// pages and the mutator gets a new span, perhaps of the same pages. [H4]
#[test]
fn loom_refill_against_the_sweep_of_a_dead_span() {
    explore(3, |order| {
        let scene = Arc::new(Scene::new());
        let dead = scene.alloc(&scene.cache, Paint::White);
        let first_page = page_of(dead);
        scene.give_back(Paint::White);
        scene.end_marking();
        let (here, there) = (scene.clone(), scene.clone());
        let (got, ()) = order.race(
            move || here.alloc(&here.cache, Paint::White),
            move || there.sweep(first_page),
        );
        assert_eq!(scene.freed(), 1, "swept once");
        assert_eq!(scene.state(page_of(got)), SweepState::Cached);
        let other = scene.state(first_page);
        assert!(
            page_of(got) == first_page || other == SweepState::Free,
            "{other:?}"
        );
        let in_spans = scene.heap.span_bytes.load(Ordering::Relaxed);
        assert_eq!(in_spans, 1 << PAGE_SHIFT);
        scene.give_back(Paint::White);
        assert!(scene.heap.alloc.test(got));
    });
}
