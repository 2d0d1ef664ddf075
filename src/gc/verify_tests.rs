//! The verifier finds what is broken, and says so: each test breaks one invariant of a small heap.
//!
//! A collector without threads; its one mutator runs on the test's thread.

use std::any::TypeId;
use std::cell::RefCell;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use crate::base::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::gc::alloc::{Fresh, Wanted};
use crate::gc::collector::{Collector, Settings};
use crate::gc::frames::FrameHeader;
use crate::gc::mutator::{MutatorRef, MutatorState};
use crate::gc::roots::RawRoot;
use crate::gc::stopped::Stopped;
use crate::gc::weak::WeakCell;
use crate::heap::dead::POISON;
use crate::heap::mheap::{MHeap, Options};
use crate::heap::span::SweepState;
use crate::object::trace::{Trace, Tracer};
use crate::object::type_info::Sized_;
use crate::sys::sync::{AtomicUsize, Ordering};

/// An object with an edge that may lead anywhere.
#[derive(Debug)]
struct Node {
    edge: AtomicUsize,
    _more: u64,
}

// SAFETY: 1. the edge is reported. 2. 3. an atomic. 4. true. 5. 6. nothing else.
unsafe impl Trace for Node {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        // Relaxed: one thread.
        tracer.edge(self.edge.load(Ordering::Relaxed));
    }
}

/// An object with a span of its own.
struct Large {
    _words: [u64; 5_000],
}

// SAFETY: 1. to 6. it holds no `Gc`.
unsafe impl Trace for Large {
    const NEEDS_TRACE: bool = false;
    fn trace(&self, _: &mut Tracer<'_>) {}
}

/// A heap with one mutator.
struct Scene {
    collector: Arc<Collector>,
    me: MutatorRef,
    roots: RefCell<Vec<RawRoot>>,
}

impl Scene {
    fn new() -> Self {
        let options = Options {
            poison: true,
            ..Options::default()
        };
        let heap = MHeap::new(4 << 20, options).expect("address space");
        let settings = Settings {
            gogc: None,
            memory_limit: u64::MAX,
            processors: 1,
            period: Duration::MAX,
            stress: false,
            verify: true,
            stop_the_world: false,
            sink: None,
            quiet: true,
            trace: None,
        };
        let collector = Collector::new(heap, settings);
        let me = collector.world.register(Location::caller(), false);
        let scene = Self {
            collector,
            me,
            roots: RefCell::default(),
        };
        scene
            .collector
            .world
            .leave_blocked(scene.mutator(), &mut || {});
        scene
    }

    fn mutator(&self) -> &MutatorState {
        // SAFETY: 1. registered until the scene goes. 2. it runs, on this thread.
        unsafe { self.me.get() }
    }

    fn offset(&self, address: usize) -> usize {
        self.collector.heap.offset_of(address).expect("in the heap")
    }

    /// The first page of the span of `address`.
    fn head(&self, address: usize) -> u32 {
        self.collector.heap.first_page_of(self.offset(address))
    }

    fn slot<T: Trace + 'static>(&self) -> Fresh {
        let wanted = Wanted {
            info: Some((Sized_::<T>::INFO, TypeId::of::<T>())),
            size: size_of::<T>(),
            align: align_of::<T>(),
            exact: true,
        };
        self.collector
            .alloc_slow(self.mutator(), wanted)
            .expect("room")
    }

    /// The pointer to a slot.
    fn at<T>(&self, address: usize) -> *mut T {
        self.collector.heap.at(self.offset(address)).cast()
    }

    /// A node that leads to `edge`; its address.
    fn node(&self, edge: usize) -> usize {
        let address = self.slot::<Node>().address;
        let node = Node {
            edge: AtomicUsize::new(edge),
            _more: 0,
        };
        // SAFETY: a fresh slot of a node's size.
        unsafe { self.at::<Node>(address).write(node) };
        address
    }

    fn large(&self) -> usize {
        self.slot::<Large>().address
    }

    fn weak_cell(&self, target: usize) -> usize {
        let fresh = self.collector.alloc_weak_cell(self.mutator());
        let address = fresh.expect("room").address;
        let cell = WeakCell::new(target, 0);
        // SAFETY: a fresh slot of the weak cells' class.
        unsafe { self.at::<WeakCell>(address).write(cell) };
        address
    }

    /// Keeps the object at `address` as long as the scene lives.
    fn root(&self, address: usize) {
        let mut stock = self.mutator().local.free_roots.borrow_mut();
        let root = self.collector.roots.take(address, &mut stock, true);
        self.roots.borrow_mut().push(root);
    }

    /// Gives the mutator's spans back, as the end of marking does.
    fn flush(&self) {
        self.collector.flush_cache(&self.mutator().local);
    }

    fn verify(&self) -> Result<(), String> {
        self.collector.verify(Some(self.me))
    }

    /// The verifier's report ends in, or contains, each of these.
    #[track_caller]
    fn assert_reported(&self, parts: &[&str]) {
        let report = self.verify().expect_err("it is broken");
        for part in parts {
            assert!(report.contains(part), "{part:?} is not in {report:?}");
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.collector
            .world
            .enter_blocked(self.mutator(), &mut || {});
        self.flush();
        let mut stock = self.mutator().local.free_roots.borrow_mut();
        for root in self.roots.take() {
            root.free_into(&mut stock);
        }
        self.collector.roots.give_back(&mut stock);
        drop(stock);
        self.collector.world.unregister(self.me);
    }
}

#[test]
fn a_whole_heap_is_whole() {
    let scene = Scene::new();
    let (a, b) = (scene.node(0), scene.large());
    scene.root(scene.node(a));
    scene.root(b);
    scene.weak_cell(a);
    assert_eq!(scene.verify(), Ok(()));
    scene.flush();
    assert_eq!(scene.verify(), Ok(()));
}

// ---- where spans are ------------------------------------------------------------------------------------------------

#[test]
fn a_cached_span_that_counts_as_swept() {
    let scene = Scene::new();
    let head = scene.head(scene.node(0));
    let heap = &scene.collector.heap;
    assert_eq!(
        heap.span(head).sweep_gen.uncache(heap.generation()),
        SweepState::Cached
    );
    scene.assert_reported(&[
        &format!("the span at page {head} is cached by "),
        "a_cached_span_that_counts_as_swept",
        "but Swept",
    ]);
}

#[test]
fn a_span_in_two_cursors() {
    let scene = Scene::new();
    let head = scene.head(scene.node(0));
    scene.weak_cell(0);
    let cache = &scene.mutator().local.cache;
    cache.for_each_cached(|cursor| cursor.span.set(head));
    scene.assert_reported(&[&format!("the span at page {head} is cached twice")]);
    // Both would give it back.
    let mut first = true;
    cache.for_each_cached(|cursor| {
        if !std::mem::take(&mut first) {
            cursor.span.set(0);
        }
    });
}

#[test]
fn a_span_in_two_sets_or_in_a_set_and_a_cursor() {
    let scene = Scene::new();
    let address = scene.node(0);
    let head = scene.head(address);
    let heap = &scene.collector.heap;
    let class = heap.class_at(scene.offset(address)).expect("a span");
    let report = format!("the span at page {head} is in two places");
    class.central.lock(heap.generation()).partial.push(head);
    scene.assert_reported(&[&report]);
    class.central.lock(heap.generation()).partial.clear();
    assert_eq!(scene.verify(), Ok(()));
    scene.flush();
    class.central.lock(heap.generation()).full.push(head);
    scene.assert_reported(&[&report]);
}

#[test]
fn a_span_in_a_set_that_counts_as_cached() {
    let scene = Scene::new();
    let head = scene.head(scene.node(0));
    scene.flush();
    let heap = &scene.collector.heap;
    heap.span(head).sweep_gen.cache(heap.generation());
    scene.assert_reported(&[&format!(
        "the span at page {head} is in the partial set but Cached"
    )]);
}

#[test]
fn a_span_in_no_place() {
    let scene = Scene::new();
    let address = scene.node(0);
    let head = scene.head(address);
    scene.flush();
    let heap = &scene.collector.heap;
    let class = heap.class_at(scene.offset(address)).expect("a span");
    class.central.lock(heap.generation()).partial.clear();
    scene.assert_reported(&[
        "the span of ",
        "Node",
        &format!(" at page {head} is Swept and in no place"),
    ]);
}

#[test]
fn a_span_that_a_sweeper_has_left_half_swept() {
    let scene = Scene::new();
    let head = scene.head(scene.node(0));
    scene.flush();
    let heap = &scene.collector.heap;
    heap.advance_generation();
    let claim = heap.span(head).sweep_gen.try_claim(heap.generation());
    assert!(claim.is_some());
    scene.assert_reported(&[&format!("at page {head} is Sweeping and in no place")]);
}

// ---- pages ----------------------------------------------------------------------------------------------------------

#[test]
fn a_page_map_entry_is_left_over() {
    let scene = Scene::new();
    let head = scene.head(scene.large());
    let pages = &scene.collector.heap.span(head).pages;
    // Relaxed (all): one thread.
    let all = pages.load(Ordering::Relaxed);
    pages.store(all - 1, Ordering::Relaxed);
    scene.assert_reported(&[&format!(
        "page {} belongs to a span that does not begin at it",
        head + all - 1
    )]);
    pages.store(0, Ordering::Relaxed);
    scene.assert_reported(&[&format!(
        "page {head} belongs to a span that does not begin"
    )]);
    pages.store(all, Ordering::Relaxed);
    assert_eq!(scene.verify(), Ok(()));
}

#[test]
fn a_page_of_a_span_is_missing_in_the_page_map() {
    let scene = Scene::new();
    let head = scene.head(scene.large());
    let pages = &scene.collector.heap.span(head).pages;
    // Relaxed (both): one thread.
    let all = pages.load(Ordering::Relaxed);
    pages.store(all + 1, Ordering::Relaxed);
    scene.assert_reported(&[&format!(
        "page {} does not map to its span at page {head}",
        head + all
    )]);
}

#[test]
fn bytes_of_spans_are_miscounted() {
    let scene = Scene::new();
    scene.node(0);
    let heap = &scene.collector.heap;
    // Relaxed (all): one thread.
    let bytes = heap.span_bytes.load(Ordering::Relaxed);
    heap.span_bytes.store(bytes + 8, Ordering::Relaxed);
    scene.assert_reported(&[&format!(
        "{bytes} bytes are in spans, {} were counted",
        bytes + 8
    )]);
}

#[test]
fn a_free_page_has_bits() {
    let scene = Scene::new();
    scene.node(0);
    let heap = &scene.collector.heap;
    let page = heap.top() - 1;
    let at = ((page as usize) << PAGE_SHIFT) + PAGE_SIZE / 2;
    for bits in [&heap.alloc, &heap.mark] {
        bits.set(at);
        scene.assert_reported(&[&format!(
            "page {page} belongs to no span but has bits or a span's number"
        )]);
        bits.clear(at);
        assert_eq!(scene.verify(), Ok(()));
    }
}

// ---- slots ----------------------------------------------------------------------------------------------------------

#[test]
fn a_bit_is_inside_a_slot() {
    let scene = Scene::new();
    for address in [scene.node(0), scene.large()] {
        let (at, head) = (scene.offset(address), scene.head(address));
        let heap = &scene.collector.heap;
        for (bits, name) in [(&heap.alloc, "an allocation"), (&heap.mark, "a mark")] {
            bits.set(at + 8);
            scene.assert_reported(&[&format!(
                "{name} bit of the span at page {head} is inside a slot"
            )]);
            bits.clear(at + 8);
        }
    }
    assert_eq!(scene.verify(), Ok(()));
}

#[test]
fn a_bit_is_behind_the_last_slot() {
    let scene = Scene::new();
    // Slots of 24 bytes do not fill a page.
    let wanted = Wanted {
        info: None,
        size: 24,
        align: 8,
        exact: true,
    };
    let fresh = scene.collector.alloc_slow(scene.mutator(), wanted);
    let head = scene.head(fresh.expect("room").address);
    let heap = &scene.collector.heap;
    let class = heap.class_at((head as usize) << PAGE_SHIFT);
    let class = class.expect("a span");
    let end = ((head as usize) << PAGE_SHIFT) + class.slots as usize * class.slot;
    assert!(!end.is_multiple_of(PAGE_SIZE), "there is a rest");
    heap.mark.set(end);
    scene.assert_reported(&[&format!(
        "a mark bit of the span at page {head} is inside a slot"
    )]);
}

#[test]
fn a_free_slot_is_written_to() {
    let scene = Scene::new();
    let address = scene.node(0);
    let free = scene.offset(address) + 2 * size_of::<Node>();
    let last = free + size_of::<Node>() - 1;
    let at = scene.collector.heap.at(last);
    for flushed in [false, true] {
        if flushed {
            scene.flush();
        }
        // SAFETY: a byte of a free slot, which nobody else uses.
        unsafe { at.write(0) };
        scene.assert_reported(&[
            "a free slot of ",
            "Node",
            &format!("at offset {free:#x} was written to"),
        ]);
        // SAFETY: as above.
        unsafe { at.write(POISON) };
        assert_eq!(scene.verify(), Ok(()));
    }
}

// ---- edges ----------------------------------------------------------------------------------------------------------

#[test]
fn an_edge_leads_inside_a_slot() {
    let scene = Scene::new();
    let node = scene.node(0);
    let parent = scene.node(node + 8);
    scene.root(parent);
    scene.assert_reported(&[
        "an edge from an unmarked",
        &format!(
            "Node at offset {:#x} leads 8 bytes into",
            scene.offset(parent)
        ),
        "the slot of a ",
    ]);
    scene.collector.heap.mark.set(scene.offset(parent));
    scene.assert_reported(&["an edge from a marked"]);
}

#[test]
fn an_edge_leads_to_no_span() {
    let scene = Scene::new();
    scene.node(0);
    let heap = &scene.collector.heap;
    let page = (heap.top() - 1) as usize * PAGE_SIZE;
    scene.root(heap.at(page).addr());
    scene.assert_reported(&[&format!(
        "an edge from a Root leads to no span (offset {page:#x})"
    )]);
}

/// A frame's box.
#[repr(C)]
struct FrameBox {
    header: FrameHeader,
    edge: usize,
}

impl FrameBox {
    unsafe fn trace(header: NonNull<FrameHeader>, tracer: &mut Tracer<'_>) {
        // SAFETY: the header of a box of this type.
        tracer.edge(unsafe { header.cast::<Self>().as_ref() }.edge);
    }

    unsafe fn free(_: NonNull<FrameHeader>) {}
}

#[test]
fn an_edge_leads_to_a_free_slot() {
    let scene = Scene::new();
    let node = scene.node(0);
    let free = node + 2 * size_of::<Node>();
    let frame = FrameBox {
        header: FrameHeader::new(scene.collector.id, FrameBox::trace, FrameBox::free),
        edge: free,
    };
    let frames = &scene.collector.frames;
    let at = NonNull::from(&frame).cast();
    frames.add(at, 0);
    for flushed in [false, true] {
        if flushed {
            scene.flush();
        }
        scene.assert_reported(&[
            "a Frame leads to a free slot of ",
            &format!("Node at offset {:#x}", scene.offset(free)),
        ]);
    }
    frames.remove(at);
    assert_eq!(scene.verify(), Ok(()));
}

#[test]
fn an_edge_to_another_place_than_the_heap_is_not_followed() {
    let scene = Scene::new();
    scene.root(scene.node(8));
    assert_eq!(scene.verify(), Ok(()));
}

#[test]
fn a_reachable_object_is_unmarked_and_about_to_be_swept() {
    let scene = Scene::new();
    let child = scene.node(0);
    let parent = scene.node(child);
    scene.root(parent);
    scene.flush();
    let heap = &scene.collector.heap;
    heap.advance_generation();
    scene.assert_reported(&[
        &format!("Node at offset {:#x} (from a Root)", scene.offset(parent)),
        "is unmarked and about to be swept",
    ]);
    heap.mark.set(scene.offset(parent));
    scene.assert_reported(&[
        "a reachable ",
        &format!("Node at offset {:#x} (from a marked ", scene.offset(child)),
        "is unmarked and about to be swept",
    ]);
    heap.mark.set(scene.offset(child));
    assert_eq!(scene.verify(), Ok(()));
}

#[test]
fn an_object_that_marking_has_missed() {
    let scene = Scene::new();
    let child = scene.node(0);
    let parent = scene.node(child);
    scene.root(parent);
    let heap = &scene.collector.heap;
    heap.mark.set(scene.offset(parent));
    let report = scene
        .collector
        .compare_marks(&Stopped::in_a_test())
        .expect_err("one is missed");
    let place = format!("Node at offset {:#x} was not marked; ", scene.offset(child));
    assert!(report.contains(&place), "{report}");
    let parent = format!("Node at offset {:#x}", scene.offset(parent));
    assert!(report.contains("it is reached from a marked "), "{report}");
    assert!(report.ends_with(&parent), "{report}");
    heap.mark.set(scene.offset(child));
    assert_eq!(scene.collector.compare_marks(&Stopped::in_a_test()), Ok(()));
    heap.mark
        .clear_run(scene.offset(child), scene.offset(child) + 8, 8);
}

// ---- weak cells and roots -------------------------------------------------------------------------------------------

#[test]
fn a_weak_cell_names_a_free_slot() {
    let scene = Scene::new();
    let node = scene.node(0);
    let free = node + 2 * size_of::<Node>();
    let cell = scene.weak_cell(free);
    scene.assert_reported(&[
        "a weak cell names a free slot; an unmarked",
        &format!("at offset {:#x}", scene.offset(cell)),
    ]);
    // What lies in no span is no object, either.
    let nowhere = (scene.collector.heap.top() - 1) as usize * PAGE_SIZE;
    let target = |to| {
        // SAFETY: a weak cell of this heap, which nobody reads now.
        unsafe { scene.at::<WeakCell>(cell).write(WeakCell::new(to, 0)) };
    };
    target(scene.collector.heap.at(nowhere).addr());
    scene.assert_reported(&["a weak cell names a free slot"]);
    // A cell that is dead itself, and waits for its sweep, may name anything; and so it is while marking runs.
    scene.flush();
    scene.collector.weak.begin_marking();
    assert_eq!(scene.verify(), Ok(()));
    scene.collector.weak.idle();
    scene.collector.heap.advance_generation();
    assert_eq!(scene.verify(), Ok(()));
}

#[test]
fn a_root_slot_is_lost() {
    let scene = Scene::new();
    scene.root(scene.node(0));
    let stock = &scene.mutator().local.free_roots;
    let lost = stock.borrow_mut().pop();
    scene.assert_reported(&["root slots: 1 in use + ", " free != "]);
    stock.borrow_mut().extend(lost);
    assert_eq!(scene.verify(), Ok(()));
}
