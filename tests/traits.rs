//! The traits of the standard library on this crate's types: what `Debug` shows, what `Default` is,
//! how `Gc`s compare.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{
    AllocError, External, Frame, Gc, GcArray, GcCell, GcLock, GcOnce, Heap, HeapBuilder, Mutator,
    Rebrand, Root, Trace, Tracer, Weak, WeakRoot,
};

#[path = "stress/support.rs"]
mod support;

use support::{heap, within};

/// A node that may lead to itself.
#[derive(Debug, Trace)]
struct Node<'gc> {
    number: u32,
    next: GcCell<'gc, Node<'gc>>,
    first: GcOnce<'gc, Node<'gc>>,
    list: GcLock<Vec<Gc<'gc, str>>>,
}

fn node<'m>(m: &'m Mutator, number: u32) -> Gc<'m, Node<'m>> {
    m.alloc(Node {
        number,
        next: GcCell::default(),
        first: GcOnce::default(),
        list: GcLock::default(),
    })
}

#[test]
fn debug_of_an_object_ends_where_the_graph_goes_on() {
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let node = node(&m, 1);
    assert_eq!(
        format!("{node:?}"),
        "Node { number: 1, next: GcCell(null), first: GcOnce(null), list: GcLock([]) }"
    );
    node.next.set(&m, node);
    node.first.set(&m, node).expect("the first time");
    node.list.write(&m).push(m.alloc_str("a"));
    assert_eq!(
        format!("{node:?}"),
        "Node { number: 1, next: GcCell(..), first: GcOnce(..), list: GcLock([\"a\"]) }"
    );
}

#[test]
fn debug_of_a_lock_shows_its_content_unless_somebody_writes() {
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let lock = m.alloc(GcLock::new(vec![1, 2]));
    {
        let read = lock.read();
        assert_eq!(format!("{read:?} {lock:?}"), "[1, 2] GcLock([1, 2])");
    }
    let mut write = lock.write(&m);
    write.push(3);
    assert_eq!(format!("{write:?}"), "[1, 2, 3]");
    // It does not wait for the guard, which is this thread's own.
    let shown = within(Duration::from_secs(30), || format!("{lock:?}"));
    assert_eq!(shown, "GcLock(<locked>)");
    drop(write);
    assert_eq!(format!("{lock:?}"), "GcLock([1, 2, 3])");
    assert_eq!(GcLock::new(7).into_inner(), 7);
}

#[test]
fn debug_of_handles_does_not_look_into_the_heap() {
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let text = m.alloc_str("seven");
    let (root, weak) = (m.root(text), Gc::downgrade(text, &m));
    let weak_root = m.root_weak(weak);
    let at = format!("{:p}", text.as_ptr().cast::<u8>());
    assert_eq!(format!("{root:?}"), format!("Root({at})"));
    assert_eq!(format!("{weak_root:?}"), format!("WeakRoot({at})"));
    assert_eq!(format!("{weak:?}"), "(Weak)");
    let mut frame: Frame<Vec<u32>> = Frame::new(&m, vec![1]);
    assert_eq!(format!("{frame:?}"), "Frame { .. }");
    frame.enter(&m).push(2);
    assert_eq!(format!("{:?}", frame.enter(&m)), "[1, 2]");
    let array = m.alloc_array(7, 3, |i| i);
    assert_eq!(format!("{array:?}"), "GcArray { len: 3, .. }");
    let external: External = m.external(4096);
    assert_eq!(format!("{external:?}"), "External { bytes: 4096, .. }");
    // On a thread without a mutator as well.
    let elsewhere = std::thread::spawn(move || format!("{root:?}"));
    assert_eq!(elsewhere.join().expect("no panic"), format!("Root({at})"));
}

#[test]
fn debug_of_settings_shows_those_that_were_made() {
    let builder: HeapBuilder = Heap::builder()
        .gogc(Some(50))
        .memory_limit(1 << 20)
        .workers(3)
        .period(Duration::from_secs(7))
        .poison(true);
    let shown = format!("{builder:?}");
    for part in [
        "HeapBuilder { gogc: Some(Some(50)), memory_limit: Some(1048576), reservation: None, workers: Some(3)",
        "hard_limit: None, period: Some(7s)",
        "poison: Some(true)",
        "stop_the_world: None, quiet: None, ..",
    ] {
        assert!(shown.contains(part), "{part:?} is not in {shown:?}");
    }
}

/// Shows the tracer that it is given.
struct Curious(Arc<AtomicUsize>);

// SAFETY: 1. 3. 6. no `Gc` inside. 2. an atomic in an `Arc`. 4. true, so that it is traced. 5. it
// formats, and does not unwind unless the test fails.
unsafe impl Trace for Curious {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        assert_eq!(format!("{tracer:?}"), "Tracer { .. }");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Curious {
    type To = Self;
}

#[test]
fn a_tracer_and_a_whole_heap_can_be_shown() {
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    let traced = Arc::new(AtomicUsize::new(0));
    let root: Root<Curious> = m.root(m.alloc(Curious(traced.clone())));
    m.collect();
    assert!(traced.load(Ordering::Relaxed) > 0);
    // Without looking at objects, or waiting for anybody.
    let shown = format!("{heap:?}");
    assert!(
        shown.starts_with("Heap { number: ") && shown.contains("heap_bytes: ") && shown.len() < 100,
        "{shown}"
    );
    drop(root);
}

#[test]
fn default_is_a_heap_with_the_settings_of_the_environment() {
    let heap = Heap::default();
    let m = heap.attach().expect("attached");
    assert_eq!(*m.alloc(3), 3);
    assert_eq!(heap.stats().gogc, Heap::new().stats().gogc);
}

fn longest<T: AsRef<str>>(texts: &[T]) -> usize {
    texts
        .iter()
        .map(|text| text.as_ref().len())
        .max()
        .unwrap_or(0)
}

#[test]
fn gcs_compare_and_hash_by_content() {
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let words = ["pear", "fig", "apple", "fig", "cherry"];
    let texts: Vec<Gc<'_, str>> = words.iter().map(|word| m.alloc_str(word)).collect();
    let sorted: Vec<&str> = texts
        .iter()
        .copied()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(Gc::as_ref)
        .collect();
    assert_eq!(sorted, ["apple", "cherry", "fig", "pear"]);
    let hashed: HashSet<Gc<'_, str>> = texts.iter().copied().collect();
    assert!(hashed.len() == 4 && hashed.contains("apple") && !hashed.contains("plum"));
    assert_eq!(texts.iter().max().map(|text| &**text), Some("pear"));
    assert!(texts[1] == texts[3] && !Gc::ptr_eq(texts[1], texts[3]));
    assert!(texts[1] < texts[0]);
    assert_eq!(longest(&texts), 6);
}

fn twin<T: Clone>(value: &T) -> T {
    value.clone()
}

#[test]
fn clones_of_references_lead_to_the_same_object() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let weak_root: WeakRoot<u64> = {
        let number = m.alloc(7_u64);
        assert!(Gc::ptr_eq(twin(&number), number));
        let weak: Weak<'_, u64> = twin(&Gc::downgrade(number, &m));
        assert!(
            weak.upgrade(&m)
                .is_some_and(|same| Gc::ptr_eq(same, number))
        );
        twin(&m.root_weak(weak))
    };
    m.collect();
    assert!(weak_root.get(&m).is_none());
}

/// What holds handles to things outside its own edges, beside an edge.
#[derive(Trace)]
struct Holder<'gc> {
    edge: Gc<'gc, str>,
    root: Root<str>,
    weak_root: WeakRoot<str>,
    external: External,
}

#[test]
fn handles_inside_an_object_are_no_edges_and_go_with_it() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let holder: Root<Holder<'static>> = {
        let rooted = m.alloc_str("rooted");
        let weak = Gc::downgrade(m.alloc_str("weak"), &m);
        m.root(m.alloc(Holder {
            edge: m.alloc_str("edge"),
            root: m.root(rooted),
            weak_root: m.root_weak(weak),
            external: m.external(1 << 20),
        }))
    };
    for _ in 0..2 {
        m.collect();
        let holder = holder.get(&m);
        assert_eq!((&*holder.edge, &*holder.root.get(&m)), ("edge", "rooted"));
        assert!(holder.weak_root.get(&m).is_none());
        assert_eq!(
            holder.external.bytes(),
            heap.stats().external_bytes as usize
        );
    }
    drop(holder);
    m.collect();
    assert_eq!(heap.stats().external_bytes, 0);
    heap.verify().expect("whole");
}

#[test]
fn an_array_in_an_array_is_kept_by_its_edge() {
    type Inner = GcArray<u8, u64>;
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let outer: Root<GcArray<(), GcCell<'static, Inner>>> = m.root(m.alloc_array((), 100, |i| {
        GcCell::new(Some(m.alloc_array(i as u8, i, |j| (i * j) as u64)))
    }));
    m.collect();
    for (i, cell) in outer.get(&m).items().iter().enumerate() {
        let inner = cell.get().expect("an array");
        assert_eq!((usize::from(*inner.header()), inner.items().len()), (i, i));
        assert!(
            inner
                .items()
                .iter()
                .enumerate()
                .all(|(j, n)| *n == (i * j) as u64)
        );
    }
}

#[test]
fn an_error_of_an_allocation_says_how_much_and_hides_the_value() {
    let heap = Heap::builder()
        .reservation(2 << 20)
        .build()
        .expect("a heap");
    let m = heap.attach().expect("attached");
    let error: AllocError<()> = m
        .try_alloc_slice(4 << 20, |_| 0_u8)
        .map(|_| ())
        .expect_err("too much");
    assert_eq!(error.bytes(), 4 << 20);
    assert_eq!(
        format!("{error:?}"),
        "AllocError { bytes: 4194304, shortage: Room(2097152), .. }"
    );
}
