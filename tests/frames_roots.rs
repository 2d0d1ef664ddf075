//! Roots and frames: what keeps objects alive, from where, and how long.

#![allow(
    clippy::mem_forget,
    reason = "what is forgotten is the subject of these tests"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Frame, Gc, GcCell, GcLock, Heap, Rebrand, Root, Trace, Tracer};

#[path = "stress/support.rs"]
mod support;

use support::{Counted, Watch, heap, within};

#[test]
fn roots_go_from_any_thread_and_after_their_heap() {
    let drops = Arc::new(AtomicUsize::new(0));
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let mut roots: Vec<Root<Counted>> = (0..5000)
        .map(|_| m.root(m.alloc(Counted(drops.clone()))))
        .collect();
    let outside = roots.split_off(4000);
    let clones: Vec<_> = outside.iter().map(Root::clone).collect();
    std::thread::spawn(move || drop(outside))
        .join()
        .expect("no panic");
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 0, "the clones keep them");
    let blocked = m.blocking(|| {
        drop(clones);
        drops.load(Ordering::Relaxed)
    });
    assert_eq!(blocked, 0);
    m.collect();
    assert_eq!(
        drops.load(Ordering::Relaxed),
        1000,
        "one cycle is enough, wherever they went"
    );
    roots.truncate(2000);
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 3000);
    heap.verify().expect("whole");
    drop(m);
    drop(heap);
    assert_eq!(
        drops.load(Ordering::Relaxed),
        5000,
        "roots do not keep a heap"
    );
    // Their slots outlive the heap.
    let late = roots.clone();
    drop(roots);
    std::thread::spawn(move || drop(late))
        .join()
        .expect("no panic");
}

#[test]
fn root_slots_are_used_again() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let object = m.root(m.alloc(1_u64));
    for round in 0..200 {
        let roots: Vec<_> = (0..500).map(|_| m.root(object.get(&m))).collect();
        assert!(roots[round % 500].ptr_eq(&object));
        if round % 2 == 0 {
            drop(roots);
        } else {
            m.blocking(|| drop(roots));
        }
        if round % 50 == 0 {
            m.collect();
            heap.verify().expect("whole");
        }
    }
}

#[test]
fn a_forgotten_root_keeps_its_object() {
    let drops = Arc::new(AtomicUsize::new(0));
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    std::mem::forget(m.root(m.alloc(Counted(drops.clone()))));
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(m);
    drop(heap);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[derive(Trace)]
struct Holder<'gc> {
    items: GcLock<Vec<Gc<'gc, Counted>>>,
    last: GcCell<'gc, Counted>,
}

#[test]
fn forgotten_guards_do_not_make_the_collector_miss_what_they_guard() {
    let drops = Arc::new(AtomicUsize::new(0));
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let mut frame: Frame<Vec<Gc<'static, Counted>>> = Frame::new(&m, Vec::new());
    let root = m.root(m.alloc(Holder {
        items: GcLock::new(Vec::new()),
        last: GcCell::null(),
    }));
    let reader = m.root(m.alloc(Holder {
        items: GcLock::new(vec![m.alloc(Counted(drops.clone()))]),
        last: GcCell::null(),
    }));
    m.collect();
    {
        let mut open = frame.enter(&m);
        open.push(m.alloc(Counted(drops.clone())));
        let _never_closed = std::mem::ManuallyDrop::new(open);
        let holder = root.get(&m);
        let mut items = holder.items.write(&m);
        items.push(m.alloc(Counted(drops.clone())));
        std::mem::forget(items);
        std::mem::forget(reader.get(&m).items.read());
    }
    for _ in 0..4 {
        m.collect();
        heap.verify().expect("whole");
        assert_eq!(drops.load(Ordering::Relaxed), 0);
    }
    assert!(
        root.get(&m).items.try_read().is_none(),
        "still held, as with std"
    );
    assert!(root.get(&m).items.try_write(&m).is_none());
    assert!(reader.get(&m).items.try_write(&m).is_none());
    assert_eq!(reader.get(&m).items.read().len(), 1);
    assert!(root.get(&m).last.get().is_none());
    assert_eq!(frame.enter(&m).len(), 1, "a frame can be opened again");
    drop((root, reader, frame));
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 3);
}

#[test]
fn frames_travel_between_threads_and_outlive_their_heap() {
    let drops = Arc::new(AtomicUsize::new(0));
    let heap = heap();
    let mut frame: Frame<Vec<Gc<'static, Counted>>> = {
        let m = heap.attach().expect("attached");
        Frame::new(&m, Vec::new())
    };
    for n in 1..=5 {
        let heap = heap.clone();
        let drops = drops.clone();
        frame = std::thread::spawn(move || {
            let mut m = heap.attach().expect("attached");
            frame.enter(&m).push(m.alloc(Counted(drops)));
            m.collect();
            assert_eq!(frame.enter(&m).len(), n);
            frame
        })
        .join()
        .expect("no panic");
    }
    heap.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(heap);
    assert_eq!(drops.load(Ordering::Relaxed), 5);
    drop(frame);
}

/// A heap whose mutators were forgotten collects no more, breaks nothing, and keeps nobody waiting.
#[test]
fn threads_that_leak_or_forget_their_mutator_and_exit() {
    within(Duration::from_secs(60), || {
        let heap = heap();
        for leak in [false, true] {
            let heap = heap.clone();
            std::thread::spawn(move || {
                let m = heap.attach().expect("attached");
                let kept = m.root(m.alloc_str("kept"));
                if leak {
                    let m = Box::leak(Box::new(m));
                    assert_eq!(m.alloc_slice(3, |i| i).len(), 3);
                    assert_eq!(&*kept.get(m), "kept");
                } else {
                    std::mem::forget(m);
                }
                assert!(heap.attach().is_err(), "it is still attached");
                drop(kept);
            })
            .join()
            .expect("no panic");
        }
        heap.collect();
        let mut m = heap.attach().expect("attached");
        m.collect();
        heap.verify().expect("whole");
        assert_eq!(heap.stats().lost_mutators, 2);
    });
}

/// A value that is traced until its frame has gone, and knows whether it was dropped before that.
#[derive(Clone, Default)]
struct Traced(Arc<AtomicUsize>);

const TRACED: usize = 1;
const GONE: usize = 2;
const DROPPED: usize = 4;
/// It was dropped while it was read; or nobody has dropped the frame.
const TOO_EARLY: usize = 8;
/// The frame has been made.
const MADE: usize = 16;

// SAFETY: 1. 3. 6. no `Gc` inside. 2. an atomic in an `Arc`. 4. true, so that it is traced. 5. it
// waits for a thread that is not the collector's, and for a bounded time.
unsafe impl Trace for Traced {
    fn trace(&self, _: &mut Tracer<'_>) {
        // Where the process has several heaps, the frame's maker looks through the value, too.
        if self.0.load(Ordering::SeqCst) & MADE == 0 {
            return;
        }
        // The value itself may go meanwhile, if the collector is broken.
        let state = self.0.clone();
        state.fetch_or(TRACED, Ordering::SeqCst);
        let watch = Watch::begin();
        while state.load(Ordering::SeqCst) & GONE == 0 && !watch.is_hopeless() {
            std::thread::yield_now();
        }
        if state.load(Ordering::SeqCst) & (GONE | DROPPED) != GONE {
            state.fetch_or(TOO_EARLY, Ordering::SeqCst);
        }
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Traced {
    type To = Self;
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.0.fetch_or(DROPPED, Ordering::SeqCst);
    }
}

#[test]
fn a_frame_that_goes_while_the_heap_is_verified_is_freed_after() {
    for in_a_call in [false, true] {
        let heap = Heap::new();
        let state = Arc::new(AtomicUsize::new(0));
        let mut m = heap.attach().expect("attached");
        let frame = Frame::new(&m, Traced(state.clone()));
        state.fetch_or(MADE, Ordering::SeqCst);
        let drop_frame = || {
            while state.load(Ordering::SeqCst) & TRACED == 0 {
                std::thread::yield_now();
            }
            drop(frame);
            state.fetch_or(GONE, Ordering::SeqCst);
        };
        // Blocked before the verifier asks this thread to stop.
        let verify = || {
            std::thread::scope(|scope| {
                let verified = scope.spawn(|| heap.verify());
                if in_a_call {
                    drop_frame();
                } else {
                    scope.spawn(drop_frame).join().expect("no panic");
                }
                verified.join().expect("no panic").expect("whole");
            });
        };
        within(Duration::from_secs(60), || m.blocking(verify));
        assert_eq!(state.load(Ordering::SeqCst), MADE | TRACED | GONE | DROPPED);
    }
}
