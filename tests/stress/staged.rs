//! Races of the program with marking, step by step: something that the marker has not seen is moved
//! to a place where it does not look.
//!
//! In each of them the marker waits at a gate. The object that leads to an item is behind the gate,
//! or its root has not been scanned. The item is taken from there, and a new object, which is
//! black, keeps it. Only the barrier, or the rule that the test is named after, tells the collector
//! about it.

#![allow(dead_code, reason = "each test program runs a part of these")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greywave::{Frame, Gc, GcCell, Heap, Rebrand, Root, Trace, Tracer};

use crate::directed::{Item, new_item};
use crate::stage::{Gated, ItemSlot, Stage, assert_kept, keep, until};

/// Roots that fill more than two blocks.
const MANY_ROOTS: u64 = 600;

/// The three ways in which an edge changes.
pub(crate) fn an_edge_is_cut_before_its_scan() {
    for way in 0..3 {
        let stage = Stage::new();
        let mut m = stage.attach();
        let gated: Root<Gated<'static>> = m.root(stage.gated(&m, 1));
        let cycle = stage.begin(&mut m);
        let kept = {
            let edge = &gated.get(&m).edge;
            let item = edge.get().expect("an item");
            match way {
                0 => edge.set(&m, None),
                1 => assert!(edge.swap(&m, None).is_some()),
                _ => assert!(edge.compare_exchange(&m, Some(item), None).is_ok()),
            }
            keep(&m, item)
        };
        cycle.end(&mut m);
        assert_kept(&stage, &mut m, &kept);
    }
}

/// More edges are cut than a barrier's buffer holds.
pub(crate) fn many_edges_are_cut_before_their_scan() {
    const N: usize = 2000;
    let stage = Stage::new();
    let mut m = stage.attach();
    let gated: Root<Gated<'static>> = {
        let gated = stage.gated(&m, 1);
        let many = m.alloc_array(0, N, |i| {
            ItemSlot(GcCell::new(Some(new_item(&m, i as u64))))
        });
        gated.many.set(&m, many);
        m.root(gated)
    };
    let cycle = stage.begin(&mut m);
    let kept: Vec<_> = {
        let many = gated.get(&m).many.get().expect("an array");
        let items = many.items().iter();
        items
            .map(|slot| keep(&m, slot.0.swap(&m, None).expect("an item")))
            .collect()
    };
    cycle.end(&mut m);
    for (i, kept) in kept.iter().enumerate() {
        let item = kept.get(&m).next.get().expect("it was kept");
        assert_eq!(item.check(), i as u64);
    }
    assert_kept(&stage, &mut m, &kept[0]);
}

/// The first writer of a lock in a cycle takes its content away.
pub(crate) fn a_lock_is_emptied_before_its_scan() {
    let stage = Stage::new();
    let mut m = stage.attach();
    let gated: Root<Gated<'static>> = m.root(stage.gated(&m, 1));
    let cycle = stage.begin(&mut m);
    let kept = {
        let item = gated.get(&m).lock.write(&m).pop().expect("an item");
        keep(&m, item)
    };
    cycle.end(&mut m);
    assert_kept(&stage, &mut m, &kept);
}

/// A thread comes when marking runs already, and cuts an edge.
pub(crate) fn a_thread_attaches_during_marking() {
    let stage = Stage::new();
    let mut m = stage.attach();
    let gated: Root<Gated<'static>> = m.root(stage.gated(&m, 1));
    let cycle = stage.begin(&mut m);
    let kept = std::thread::scope(|s| {
        let other = s.spawn(|| {
            let m = stage.attach();
            let item = gated.get(&m).edge.swap(&m, None).expect("an item");
            keep(&m, item)
        });
        other.join().expect("no panic")
    });
    cycle.end(&mut m);
    assert_kept(&stage, &mut m, &kept);
}

/// A root goes before its block is scanned, right after it has been read: on its own thread, or on
/// one without a mutator.
pub(crate) fn a_root_goes_before_its_scan() {
    for elsewhere in [false, true] {
        let stage = Stage::new();
        let mut m = stage.attach();
        // In the first block, which is scanned first, and leads to the gate.
        let _gated: Root<Gated<'static>> = m.root(stage.gated(&m, 1));
        let mut roots: Vec<Root<Item<'static>>> =
            (0..MANY_ROOTS).map(|id| m.root(new_item(&m, id))).collect();
        let cycle = stage.begin(&mut m);
        let kept = {
            let root = roots.pop().expect("one of many");
            let item = root.get(&m);
            if elsewhere {
                std::thread::spawn(move || drop(root))
                    .join()
                    .expect("no panic");
            } else {
                drop(root);
            }
            keep(&m, item)
        };
        cycle.end(&mut m);
        assert_kept(&stage, &mut m, &kept);
    }
}

/// Roots of several blocks, and a frame, are all that keeps their objects.
pub(crate) fn all_roots_and_frames_are_scanned() {
    let stage = Stage::new();
    let mut m = stage.attach();
    let roots: Vec<Root<Item<'static>>> =
        (0..MANY_ROOTS).map(|id| m.root(new_item(&m, id))).collect();
    let mut frame: Frame<Vec<Gc<'static, Item<'static>>>> = Frame::new(&m, Vec::new());
    frame.enter(&m).push(new_item(&m, 7));
    for _ in 0..2 {
        m.collect();
        for (id, root) in roots.iter().enumerate() {
            assert_eq!(root.get(&m).check(), id as u64);
        }
        assert_eq!(frame.enter(&m)[0].check(), 7);
    }
    stage.heap.verify().expect("whole");
}

/// A frame is opened before a worker has come to it, and emptied.
pub(crate) fn a_frame_is_opened_before_its_scan() {
    let stage = Stage::new();
    let mut m = stage.attach();
    let _gated: Root<Gated<'static>> = m.root(stage.gated(&m, 1));
    let mut frame: Frame<Vec<Gc<'static, Item<'static>>>> = Frame::new(&m, Vec::new());
    frame.enter(&m).push(new_item(&m, 7));
    let cycle = stage.begin(&mut m);
    let kept = {
        let item = frame.enter(&m).pop().expect("an item");
        keep(&m, item)
    };
    cycle.end(&mut m);
    assert_kept(&stage, &mut m, &kept);
}

/// A frame that has been scanned is dropped; the next one has not been.
pub(crate) fn a_frame_goes_before_the_scan_of_another() {
    let stage = Stage::new();
    let mut m = stage.attach();
    let mut first: Frame<Vec<Gc<'static, Gated<'static>>>> = Frame::new(&m, Vec::new());
    first.enter(&m).push(stage.gated(&m, 1));
    let mut second: Frame<Vec<Gc<'static, Item<'static>>>> = Frame::new(&m, Vec::new());
    second.enter(&m).push(new_item(&m, 7));
    let cycle = stage.begin(&mut m);
    drop(first);
    cycle.end(&mut m);
    assert_eq!(second.enter(&m)[0].check(), 7);
    stage.heap.verify().expect("whole");
}

/// What is taken out of the heap before a cycle begins is held by a thread until its next
/// safepoint.
pub(crate) fn a_thread_holds_up_the_cycle_that_is_asked_for() {
    let stage = Stage::new();
    let mut m = stage.attach();
    let gated: Root<Gated<'static>> = m.root(stage.gated(&m, 1));
    let cycle = {
        let edge = &gated.get(&m).edge;
        let item = edge.swap(&m, None).expect("an item");
        let cycle = stage.ask();
        until("a request", || m.safepoint_is_due() || stage.is_held());
        // It would not take a cycle that did not wait as long as this.
        std::thread::sleep(Duration::from_millis(20));
        edge.set(&m, item);
        assert!(!stage.is_held(), "marking began while this thread ran");
        cycle
    };
    until("the marker", || {
        m.safepoint();
        stage.is_held()
    });
    cycle.end(&mut m);
    assert_eq!(gated.get(&m).edge.get().map(|item| item.check()), Some(1));
    stage.heap.verify().expect("whole");
}

/// An object that takes long to look at in a stop, and says when that is; and whether it ever was
/// looked at.
#[derive(Clone, Debug, Default)]
struct Watched {
    in_stop: Arc<AtomicBool>,
    was_seen: Arc<AtomicBool>,
}

impl Watched {
    /// Begins a stop of some milliseconds and ends it, a few times from when the object is there.
    fn verify(&self, heap: &Heap) {
        let mut stops = 0;
        while stops < 20 {
            heap.verify().expect("whole");
            stops += usize::from(self.was_seen.load(Ordering::SeqCst));
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// In a section.
    fn assert_no_stop(&self) {
        assert!(!self.in_stop.load(Ordering::SeqCst), "a section in a stop");
    }
}

// SAFETY: 1. 3. 6. no `Gc` inside. 2. an atomic in an `Arc`. 4. true, so that it is traced. 5. it
// sleeps.
unsafe impl Trace for Watched {
    fn trace(&self, _: &mut Tracer<'_>) {
        self.in_stop.store(true, Ordering::SeqCst);
        self.was_seen.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(2));
        self.in_stop.store(false, Ordering::SeqCst);
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Watched {
    type To = Self;
}

/// A thread goes into calls and comes back while others stop the world.
pub(crate) fn nobody_comes_back_in_a_stop() {
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let watched = Watched::default();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut m = heap.attach().expect("attached");
            let kept = m.root(m.alloc(watched.clone()));
            while !done.load(Ordering::Relaxed) {
                m.blocking(|| std::thread::sleep(Duration::from_micros(50)));
                kept.get(&m).assert_no_stop();
            }
        });
        watched.verify(&heap);
        done.store(true, Ordering::Relaxed);
    });
}

/// Gs come and go to and from the heap, on Ps that are parked between, while others stop the world.
#[cfg(feature = "sched")]
pub(crate) fn no_g_touches_the_heap_in_a_stop() {
    use greywave::{Runtime, sleep, with};

    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let watched = Watched::default();
    let rt = Runtime::builder(&heap).procs(2).build().expect("a runtime");
    let done = Arc::new(AtomicBool::new(false));
    let handles: Vec<_> = (0..4)
        .map(|_| {
            let (watched, done) = (watched.clone(), done.clone());
            rt.go(async move {
                let kept = with(|m| m.root(m.alloc(watched.clone())));
                while !done.load(Ordering::Relaxed) {
                    with(|m| kept.get(m).assert_no_stop());
                    sleep(Duration::from_micros(50)).await;
                }
            })
        })
        .collect();
    watched.verify(&heap);
    done.store(true, Ordering::Relaxed);
    rt.block_on(async {
        for handle in handles {
            handle.await.expect("no section in a stop");
        }
    })
    .expect("no deadlock");
}
