//! Faults of a program, one by one: what was promised happens, and afterwards the heap is whole and
//! usable.
//!
//! `faults_memory.rs` tests memory that runs out. Forgotten roots and guards are also in
//! `frames_roots.rs`, drops in `drops.rs`, and refused calls in `errors.rs`.

#![allow(
    clippy::mem_forget,
    dead_code,
    reason = "what is forgotten is the subject of these tests, and some fields are there to be dropped"
)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greywave::{
    AttachError, Event, Frame, Gc, GcArray, GcCell, GcLock, Heap, HeapBuilder, HeapStats, Mutator,
    Rebrand, Root, Trace, Tracer,
};

#[path = "stress/support.rs"]
mod support;

use support::{Collecting, Counted, child, is_child, text, within};

const MINUTE: Duration = Duration::from_secs(60);

fn checked() -> HeapBuilder {
    Heap::builder().verify(true).poison(true)
}

fn heap() -> Heap {
    checked().build().expect("a heap")
}

/// The heap is whole, collects, and gives room again.
fn is_usable(heap: &Heap) {
    heap.verify().expect("whole");
    heap.collect();
    let mut m = heap.attach().expect("no mutator is left behind");
    let root = m.root(m.alloc_slice(1000, |i| i));
    m.collect();
    assert_eq!(root.get(&m)[999], 999);
    heap.verify().expect("whole");
}

#[derive(Trace)]
struct Node<'gc> {
    next: GcCell<'gc, Node<'gc>>,
    list: GcLock<Vec<Gc<'gc, Counted>>>,
    counted: Counted,
}

fn node<'m>(m: &'m Mutator, drops: &Arc<AtomicUsize>) -> Gc<'m, Node<'m>> {
    let counted = || Counted(drops.clone());
    m.alloc(Node {
        next: GcCell::null(),
        list: GcLock::new(vec![m.alloc(counted())]),
        counted: counted(),
    })
}

// ---- traces -------------------------------------------------------------------------------------

/// Breaks the contract: its trace panics.
struct Unsound(u8);

// SAFETY: none: clause 5 is broken, which is the point. No `Gc` is inside, so nothing dangles.
unsafe impl Trace for Unsound {
    fn trace(&self, _: &mut Tracer<'_>) {
        panic!("a trace must not panic");
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Unsound {
    type To = Self;
}

#[test]
fn a_trace_that_panics_ends_the_process_and_says_so() {
    const NAME: &str = "a_trace_that_panics_ends_the_process_and_says_so";
    let found_by = ["marking", "stopped", "frame"];
    for what in found_by {
        if is_child(what) {
            let heap = Heap::builder().stop_the_world(what == "stopped").build();
            let mut m = heap.expect("a heap").attach().expect("attached");
            let frame = (what == "frame").then(|| Frame::new(&m, Unsound(1)));
            let root = (what != "frame").then(|| m.root(m.alloc(Unsound(1))));
            m.collect();
            println!("still here: {}", frame.is_some() || root.is_some());
            return;
        }
    }
    if std::env::var_os("GREYWAVE_TEST_CHILD").is_some() {
        return;
    }
    for what in found_by {
        let output = child(NAME, what, &[]);
        let text = text(&output);
        assert!(
            !output.status.success() && !text.contains("still here"),
            "{text}"
        );
        assert!(text.contains("a trace must not panic"), "{text}");
        assert!(text.contains("greywave: fatal: a trace panicked"), "{text}");
    }
}

// ---- drops --------------------------------------------------------------------------------------

/// Panics in its drop, with a payload that panics in its own.
#[derive(Trace)]
struct Twice(Counted);

impl Drop for Twice {
    fn drop(&mut self) {
        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                panic!("and once more");
            }
        }
        panic_any(Payload);
    }
}

#[test]
fn a_panic_that_panics_when_it_is_looked_at_is_one_panic() {
    let drops = Arc::new(AtomicUsize::new(0));
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let heap = checked().on_event(move |event| {
        if let Event::DropPanic { message, .. } = event {
            sink.lock().expect("no panic").push(message.clone());
        }
    });
    let heap = heap.build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    for _ in 0..3 {
        let _ = m.alloc(Twice(Counted(drops.clone())));
    }
    m.collect();
    drop(m);
    assert_eq!(drops.load(Ordering::Relaxed), 3, "the parts are dropped");
    assert_eq!(*told.lock().expect("no panic"), ["(not a string)"; 3]);
    assert_eq!(heap.stats().drop_panics, 3);
    is_usable(&heap);
}

/// Panics in its drop, if it is told to.
#[derive(Trace)]
struct Fragile(bool, Counted);

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.0, "it breaks");
    }
}

#[test]
fn a_panic_in_one_item_leaves_no_other_undropped() {
    let drops = Arc::new(AtomicUsize::new(0));
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let fragile = |breaks| Fragile(breaks, Counted(drops.clone()));
    let mut made = 0;
    for len in [1, 2, 100, 5000] {
        for at in [0, len / 2, len - 1] {
            let _ = m.alloc_slice(len, |i| fragile(i == at));
            let _: Gc<'_, GcArray<u8, Fragile>> = m.alloc_array(1, len, |i| fragile(i == at));
            let boxed: Vec<_> = (0..len).map(|i| fragile(i == at)).collect();
            let _ = m.alloc(GcLock::new(boxed));
            made += 3 * len;
        }
    }
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), made);
    assert_eq!(
        (heap.stats().objects_dropped, heap.stats().drop_panics),
        (36, 36)
    );
    drop(m);
    is_usable(&heap);
}

#[test]
fn a_panic_in_a_header_leaves_no_item_undropped() {
    let drops = Arc::new(AtomicUsize::new(0));
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let fragile = |breaks| Fragile(breaks, Counted(drops.clone()));
    let array: Gc<'_, GcArray<Fragile, Fragile>> =
        m.alloc_array(fragile(true), 10, |_| fragile(false));
    assert_eq!(array.items().len(), 10);
    m.collect();
    assert_eq!(heap.stats().drop_panics, 1);
    assert_eq!(drops.load(Ordering::Relaxed), 11);
    drop(m);
    is_usable(&heap);
}

#[test]
fn panics_at_the_end_of_a_heap_do_not_stop_it() {
    let drops = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let heap = heap();
        let m = heap.attach().expect("attached");
        for i in 0..100 {
            let _kept = m.root(m.alloc(Fragile(i % 3 == 0, Counted(drops.clone()))));
        }
        drop((m, heap));
    }
    assert_eq!(drops.load(Ordering::Relaxed), 200);
}

/// Runs a function in its drop.
#[derive(Trace)]
struct Runs(#[trace(skip)] Option<Box<dyn FnOnce() + Send + Sync>>);

impl Drop for Runs {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run();
        }
    }
}

/// Runs `body` in the drop of an object of `heap`, on the collector's thread; returns how many
/// drops panicked.
fn in_a_drop(heap: &Heap, body: impl FnOnce() + Send + Sync + 'static) -> u64 {
    within(MINUTE, || {
        let before = heap.stats().drop_panics;
        let mut m = heap.attach().expect("attached");
        let _ = m.alloc(Runs(Some(Box::new(body))));
        m.collect();
        heap.stats().drop_panics - before
    })
}

#[test]
fn a_drop_may_look_at_another_heap_and_not_use_it() {
    let (here, other) = (heap(), heap());
    let there = other.clone();
    let panics = in_a_drop(&here, move || {
        assert_eq!(there.attach().err(), Some(AttachError::InDrop));
        there.verify().expect("whole");
        assert_eq!(there.stats().cycles, 0);
        assert!(catch_unwind(AssertUnwindSafe(|| there.collect())).is_err());
    });
    assert_eq!(panics, 0);
    is_usable(&here);
    is_usable(&other);
}

#[test]
fn a_drop_may_make_a_heap_and_be_the_end_of_another() {
    let drops = Arc::new(AtomicUsize::new(0));
    let (here, other) = (heap(), heap());
    {
        let m = other.attach().expect("attached");
        std::mem::forget(m.root(node(&m, &drops)));
    }
    let panics = in_a_drop(&here, move || {
        drop(other);
        let made = heap();
        assert_eq!(made.attach().err(), Some(AttachError::InDrop));
    });
    assert_eq!(panics, 0);
    assert_eq!(drops.load(Ordering::Relaxed), 2, "the other heap's objects");
    is_usable(&here);
}

#[test]
fn a_drop_may_wait_for_a_thread_that_allocates_a_little() {
    let heap = heap();
    let drops = Arc::new(AtomicUsize::new(0));
    let (there, counted) = (heap.clone(), drops.clone());
    let panics = in_a_drop(&heap, move || {
        let root = std::thread::spawn(move || {
            let mut m = there.attach().expect("a thread of its own");
            let root: Root<Node<'static>> = m.root(node(&m, &counted));
            m.safepoint();
            root
        });
        drop(root.join().expect("no panic"));
    });
    assert_eq!(panics, 0);
    heap.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 2);
    is_usable(&heap);
}

// ---- threads ------------------------------------------------------------------------------------

/// A thread that is attached, and about to die.
type LastWords = fn(&Heap, &Root<Node<'static>>, &Arc<AtomicUsize>);

const DEATHS: [(&str, LastWords); 5] = [
    ("with pointers in its hands", |heap, root, drops| {
        let m = heap.attach().expect("attached");
        let held = node(&m, drops);
        held.next.set(&m, root.get(&m));
        panic!("here");
    }),
    ("with a lock held for writing", |heap, root, drops| {
        let m = heap.attach().expect("attached");
        let node = root.get(&m);
        let mut list = node.list.write(&m);
        list.push(m.alloc(Counted(drops.clone())));
        panic!("here");
    }),
    ("with a frame open", |heap, root, drops| {
        let m = heap.attach().expect("attached");
        let mut frame: Frame<Vec<Gc<'static, Node<'static>>>> = Frame::new(&m, Vec::new());
        let mut open = frame.enter(&m);
        open.extend([root.get(&m), node(&m, drops)]);
        panic!("here");
    }),
    ("while it is blocked", |heap, _, drops| {
        let mut m = heap.attach().expect("attached");
        let _kept = m.root(node(&m, drops));
        m.blocking(|| panic!("here"));
    }),
    ("while it makes a slice", |heap, root, drops| {
        let m = heap.attach().expect("attached");
        let _ = m.alloc_slice(10, |i| {
            assert!(i < 7, "here");
            GcCell::new(Some(if i % 2 == 0 {
                root.get(&m)
            } else {
                node(&m, drops)
            }))
        });
    }),
];

#[test]
fn a_thread_that_dies_attached_leaves_all_as_it_was() {
    for (how, die) in DEATHS {
        let drops = Arc::new(AtomicUsize::new(0));
        let heap = heap();
        let root = {
            let m = heap.attach().expect("attached");
            m.root(node(&m, &drops))
        };
        within(MINUTE, || {
            let collecting = Collecting::new(&heap);
            for _ in 0..20 {
                let died = std::thread::scope(|s| s.spawn(|| die(&heap, &root, &drops)).join());
                assert!(died.is_err(), "{how}");
            }
            drop(collecting);
        });
        heap.collect();
        {
            let m = heap.attach().expect("attached");
            let node = root.get(&m);
            let kept = node.list.try_write(&m).map(|list| list.len());
            let pushed = if how.contains("a lock held") { 20 } else { 0 };
            assert_eq!(kept, Some(1 + pushed), "{how}: the lock is free");
        }
        drop(root);
        is_usable(&heap);
        assert_eq!(Arc::strong_count(&drops), 1, "{how}: nothing is lost");
    }
}

#[test]
fn a_mutator_a_root_and_a_frame_in_thread_locals_go_with_their_thread() {
    type Held = (
        Option<Mutator>,
        Option<Root<Node<'static>>>,
        Option<Frame<Option<Gc<'static, Counted>>>>,
    );
    thread_local! {
        static FIRST: RefCell<Option<Root<Node<'static>>>> = const { RefCell::new(None) };
        static HELD: RefCell<Held> = const { RefCell::new((None, None, None)) };
        static LAST: RefCell<Option<Root<Node<'static>>>> = const { RefCell::new(None) };
    }
    for forget in [false, true] {
        let drops = Arc::new(AtomicUsize::new(0));
        let heap = heap();
        within(MINUTE, || {
            std::thread::scope(|s| {
                s.spawn(|| {
                    let m = heap.attach().expect("attached");
                    let root = m.root(node(&m, &drops));
                    let counted = m.root(m.alloc(Counted(drops.clone())));
                    // Destructors run in the order of first use, or the reverse: one is on each
                    // side.
                    FIRST.set(Some(root.clone()));
                    let mut frame = Frame::new(&m, None);
                    *frame.enter(&m) = Some(counted.get(&m));
                    drop(counted);
                    if forget {
                        HELD.set((None, Some(root.clone()), Some(frame)));
                        LAST.set(Some(root));
                        std::mem::forget(m);
                    } else {
                        LAST.set(Some(root.clone()));
                        HELD.set((Some(m), Some(root), Some(frame)));
                    }
                });
            });
            // A scope does not wait for the destructors of its threads.
            let gone = |stats: &HeapStats| (stats.mutators, stats.lost_mutators);
            let expected = if forget { (1, 1) } else { (0, 0) };
            while gone(&heap.stats()) != expected {
                std::thread::yield_now();
            }
            heap.collect();
        });
        let dropped = if forget { 0 } else { 3 };
        assert_eq!(drops.load(Ordering::Relaxed), dropped, "forget: {forget}");
        is_usable(&heap);
    }
}

#[test]
fn a_process_may_exit_in_the_middle_of_everything() {
    const NAME: &str = "a_process_may_exit_in_the_middle_of_everything";
    if is_child("exit") {
        let heap = heap();
        let drops = Arc::new(AtomicUsize::new(0));
        let _collecting = Collecting::new(&heap);
        for _ in 0..2 {
            let (heap, drops) = (heap.clone(), drops.clone());
            std::thread::spawn(move || {
                let mut m = heap.attach().expect("attached");
                loop {
                    let _ = node(&m, &drops);
                    m.safepoint();
                }
            });
        }
        while drops.load(Ordering::Relaxed) < 1000 {
            std::thread::yield_now();
        }
        std::process::exit(7);
    }
    let output = child(NAME, "exit", &[]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert!(
        !text(&output).contains("greywave: fatal"),
        "{}",
        text(&output)
    );
}

// ---- what is forgotten --------------------------------------------------------------------------

#[test]
fn what_is_forgotten_keeps_what_it_kept_and_nothing_more() {
    let kept = Arc::new(AtomicUsize::new(0));
    let dead = Arc::new(AtomicUsize::new(0));
    {
        let heap = heap();
        let mut m = heap.attach().expect("attached");
        let counted =
            |m: &Mutator, drops: &Arc<AtomicUsize>| m.root(m.alloc(Counted(drops.clone())));
        // A root, a clone of one, and a frame.
        let root = counted(&m, &kept);
        std::mem::forget(root.clone());
        drop(root);
        let mut frame: Frame<Option<Gc<'static, Counted>>> = Frame::new(&m, None);
        *frame.enter(&m) = Some(counted(&m, &kept).get(&m));
        std::mem::forget(frame);
        // A weak root keeps nothing but its cell.
        let weak = m.root_weak(Gc::downgrade(counted(&m, &dead).get(&m), &m));
        std::mem::forget(weak.clone());
        // Bytes are counted for ever, the heap's handle is.
        std::mem::forget(m.external(5000));
        for _ in 0..3 {
            m.collect();
            assert_eq!(kept.load(Ordering::Relaxed), 0);
            assert_eq!(
                (dead.load(Ordering::Relaxed), weak.get(&m).is_none()),
                (1, true)
            );
            // Each of the two counters that stay is 24 bytes behind an `Arc`.
            assert_eq!(heap.stats().external_bytes, 5000 + 2 * 24);
        }
        drop(m);
        is_usable(&heap);
    }
    assert_eq!(kept.load(Ordering::Relaxed), 2, "with the heap");
}

#[test]
fn a_heap_whose_handle_is_forgotten_goes_on() {
    let drops = Arc::new(AtomicUsize::new(0));
    let heap = heap();
    std::mem::forget(heap.clone());
    {
        let m = heap.attach().expect("attached");
        let _ = node(&m, &drops);
    }
    is_usable(&heap);
    assert_eq!(drops.load(Ordering::Relaxed), 2);
    drop(heap);
}
