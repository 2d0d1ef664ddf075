//! Drops: each dead object is dropped exactly once, whatever the drop does.

#![allow(
    clippy::mem_forget,
    reason = "objects that stay for ever are part of a test"
)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greywave::{Event, Frame, Gc, GcArray, GcLock, Heap, Root, Trace};

#[path = "stress/support.rs"]
mod support;

use support::patience::until;
use support::{Collecting, Counted, heap, within};

/// Notes its drop in a table with a byte an object.
#[derive(Trace)]
struct Noted {
    #[trace(skip)]
    table: Arc<Vec<AtomicU64>>,
    at: usize,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.table[self.at].fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_million_objects_are_dropped_once_each_also_those_alive_at_the_end() {
    const N: usize = 1_000_000;
    let table: Arc<Vec<AtomicU64>> = Arc::new((0..N).map(|_| AtomicU64::new(0)).collect());
    {
        let heap = Heap::new();
        let mut m = heap.attach().expect("attached");
        let mut frame: Frame<Vec<Gc<'static, Noted>>> = Frame::new(&m, Vec::new());
        let mut roots: Vec<Root<Noted>> = Vec::new();
        for at in 0..N {
            {
                let object = m.alloc(Noted {
                    table: table.clone(),
                    at,
                });
                if at % 10 == 0 {
                    frame.enter(&m).push(object);
                } else if at % 1001 == 0 {
                    roots.push(m.root(object));
                }
            }
            m.safepoint();
        }
        m.collect();
        let dropped = table
            .iter()
            .filter(|n| n.load(Ordering::Relaxed) > 0)
            .count();
        let alive = frame.enter(&m).len() + roots.len();
        assert_eq!(dropped + alive, N);
        assert_eq!(heap.stats().objects_dropped, dropped as u64);
        for object in frame.enter(&m).iter() {
            assert_eq!(table[object.at].load(Ordering::Relaxed), 0);
        }
    }
    assert!(
        table.iter().all(|n| n.load(Ordering::Relaxed) == 1),
        "once each, those alive at the end as well"
    );
}

#[test]
fn several_threads_make_garbage_that_is_dropped_once_each() {
    const EACH: usize = 40_000;
    let table: Arc<Vec<AtomicU64>> = Arc::new((0..4 * EACH).map(|_| AtomicU64::new(0)).collect());
    {
        let heap = heap();
        let collecting = Collecting::new(&heap);
        std::thread::scope(|s| {
            for t in 0..4 {
                let (heap, table) = (&heap, &table);
                s.spawn(move || {
                    let mut m = heap.attach().expect("attached");
                    let mut kept: Vec<Root<Noted>> = Vec::new();
                    for i in 0..EACH {
                        let table = table.clone();
                        let object = m.alloc(Noted {
                            table,
                            at: t * EACH + i,
                        });
                        if i % 100 == 0 {
                            kept.push(m.root(object));
                        }
                        m.safepoint();
                    }
                    for root in &kept {
                        let object = root.get(&m);
                        assert_eq!(object.table[object.at].load(Ordering::Relaxed), 0);
                    }
                });
            }
        });
        drop(collecting);
        heap.collect();
        heap.verify().expect("whole");
    }
    assert!(table.iter().all(|n| n.load(Ordering::Relaxed) == 1));
}

#[derive(Trace)]
struct Fragile {
    at: usize,
    #[trace(skip)]
    drops: Arc<AtomicUsize>,
}

impl Drop for Fragile {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
        assert!(
            !self.at.is_multiple_of(10),
            "object {} breaks in its drop",
            self.at
        );
    }
}

#[test]
fn a_panic_in_a_drop_is_caught_and_told_and_the_others_are_dropped() {
    let drops = Arc::new(AtomicUsize::new(0));
    let events: Arc<Mutex<Vec<(&'static str, String)>>> = Arc::default();
    let seen = events.clone();
    let heap = Heap::builder()
        .on_event(move |event| {
            if let Event::DropPanic { type_name, message } = event {
                seen.lock()
                    .expect("no panic")
                    .push((type_name, message.clone()));
            }
        })
        .build()
        .expect("a heap");
    let mut m = heap.attach().expect("attached");
    for at in 0..100 {
        let drops = drops.clone();
        let _ = m.alloc(Fragile { at, drops });
    }
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 100);
    assert_eq!(
        (heap.stats().objects_dropped, heap.stats().drop_panics),
        (100, 10)
    );
    let events = events.lock().expect("no panic");
    assert_eq!(events.len(), 10);
    assert!(
        events.iter().all(|(name, _)| name.ends_with("Fragile")),
        "{events:?}"
    );
    let mut told: Vec<_> = events.iter().map(|(_, message)| message.clone()).collect();
    told.sort();
    assert_eq!(told[1], "object 10 breaks in its drop");
    heap.verify().expect("whole");
}

#[test]
fn a_panic_while_a_list_is_made_drops_what_was_made() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let drops = Arc::new(AtomicUsize::new(0));
    for len in [10, 100_000] {
        drops.store(0, Ordering::Relaxed);
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let slice = m.alloc_slice(len, |i| {
                assert!(i < len - 3, "no more");
                Counted(drops.clone())
            });
            slice.len()
        }));
        assert!(made.is_err());
        assert_eq!(drops.load(Ordering::Relaxed), len - 3);
        m.collect();
        assert_eq!(drops.load(Ordering::Relaxed), len - 3, "not once more");
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let array = m.alloc_array(Counted(drops.clone()), len, |i| {
                assert!(i < 5, "no more");
                Counted(drops.clone())
            });
            array.items().len()
        }));
        assert!(made.is_err());
        m.collect();
        assert_eq!(
            drops.load(Ordering::Relaxed),
            len - 3 + 6,
            "five items and the header"
        );
    }
    heap.verify().expect("whole");
}

#[test]
fn what_objects_own_is_dropped_with_them() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let drops = Arc::new(AtomicUsize::new(0));
    let one = || Counted(drops.clone());
    {
        let slice = m.alloc_slice(7, |_| one());
        let array: Gc<'_, GcArray<Counted, Counted>> = m.alloc_array(one(), 5, |_| one());
        let lock = m.alloc(GcLock::new(vec![one(), one()]));
        lock.write(&m).pop();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(
            (slice.len(), array.items().len(), lock.read().len()),
            (7, 5, 1)
        );
    }
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 1 + 7 + 6 + 1);
    // Without a size, and with a drop.
    #[derive(Trace)]
    struct Nothing;
    static NOTHING: AtomicUsize = AtomicUsize::new(0);
    impl Drop for Nothing {
        fn drop(&mut self) {
            NOTHING.fetch_add(1, Ordering::Relaxed);
        }
    }
    let root = m.root(m.alloc(Nothing));
    let (two, three) = (
        m.alloc_slice(2, |_| Nothing).len(),
        m.alloc_slice(3, |_| Nothing).len(),
    );
    assert_eq!((two, three), (2, 3));
    m.collect();
    assert_eq!(NOTHING.load(Ordering::Relaxed), 5);
    drop(root);
    m.collect();
    assert_eq!(NOTHING.load(Ordering::Relaxed), 6);
    heap.verify().expect("whole");
}

/// Owns a handle and a root of its own heap.
#[derive(Trace)]
struct Keeper {
    #[trace(skip)]
    heap: Option<Heap>,
    #[trace(skip)]
    root: Option<Root<str>>,
    counted: Counted,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Long enough for the other handles to go.
        std::thread::sleep(Duration::from_millis(100));
        drop(self.root.take());
        drop(self.heap.take());
    }
}

#[test]
fn the_last_handle_and_a_root_may_go_inside_a_drop() {
    within(Duration::from_secs(60), || {
        let drops = Arc::new(AtomicUsize::new(0));
        let heap = heap();
        heap.set_gogc(None);
        {
            let m = heap.attach().expect("attached");
            let _ = m.alloc(Keeper {
                heap: Some(heap.clone()),
                root: Some(m.root(m.alloc_str("kept from outside"))),
                counted: Counted(drops.clone()),
            });
            for _ in 0..100 {
                std::mem::forget(m.root(m.alloc(Counted(drops.clone()))));
            }
            let _ = m.alloc_slice(2 << 20, |i| i);
        }
        // The heap is past its trigger: a cycle begins, for which nobody waits.
        heap.set_gogc(Some(100));
        drop(heap);
        until("the drop of all", || drops.load(Ordering::Relaxed) >= 101);
        assert_eq!(drops.load(Ordering::Relaxed), 101);
    });
}

#[test]
fn a_heap_handle_may_go_while_mutators_live() {
    let drops = Arc::new(AtomicUsize::new(0));
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    drop(heap);
    let root = m.root(m.alloc(Counted(drops.clone())));
    let _ = m.alloc(Counted(drops.clone()));
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert_eq!(root.get(&m).0.load(Ordering::Relaxed), 1);
    drop(m);
    assert_eq!(
        drops.load(Ordering::Relaxed),
        2,
        "the heap went with its last mutator"
    );
    drop(root);
}
