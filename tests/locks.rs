//! `GcLock`: who waits for whom, how many may share it, and what `Debug` shows. With the feature
//! `internals` also the counts that safe code can raise and forget.

#![allow(
    clippy::mem_forget,
    reason = "what is forgotten is the subject of these tests"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Gc, GcLock, Heap, Rebrand, Root, Trace, Tracer};

#[path = "stress/support.rs"]
mod support;

use support::within;

const LIMIT: Duration = Duration::from_secs(120);

/// What `body` panics with.
fn panic_of<R>(body: impl FnOnce() -> R) -> String {
    let payload = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(_) => return "no panic".to_owned(),
        Err(payload) => payload,
    };
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&str>().expect("a text")).to_owned(),
    }
}

#[test]
fn a_thread_that_would_wait_for_itself_is_told() {
    within(LIMIT, || {
        let heap = Heap::new();
        let mut m = heap.attach().expect("attached");
        {
            let lock = m.alloc(GcLock::new(1));
            let told = {
                let _read = lock.read();
                let told = panic_of(|| drop(lock.write(&m)));
                assert!(lock.try_read().is_some(), "nobody waits any more");
                told
            };
            assert!(told.contains("holds the lock for reading"), "{told}");
            *lock.write(&m) += 1;
            let write = lock.write(&m);
            let told = panic_of(|| drop(lock.write(&m)));
            assert!(told.contains("holds the lock for writing"), "{told}");
            let told = panic_of(|| drop(lock.read()));
            assert!(told.contains("GcLock::read at tests/locks.rs"), "{told}");
            if cfg!(debug_assertions) {
                assert_eq!(told.matches("tests/locks.rs").count(), 2, "{told}");
            }
            drop(write);
            assert_eq!(*lock.read(), 2);
        }
        m.collect();
        heap.verify().expect("whole");
    });
}

#[test]
fn a_lock_on_the_stack_is_its_threads_own() {
    within(LIMIT, || {
        let heap = Heap::new();
        let mut m = heap.attach().expect("attached");
        let lock = GcLock::new(1);
        let read = lock.read();
        m.collect();
        m.safepoint();
        let told = panic_of(|| drop(lock.write(&m)));
        assert!(told.contains("would wait for itself"), "{told}");
        drop(read);
        std::mem::forget(lock.write(&m));
        let told = m.blocking(|| panic_of(|| drop(lock.read())));
        assert!(told.contains("would wait for itself"), "{told}");
    });
}

#[test]
fn forgotten_guards_make_nobody_panic_who_waits_for_another_thread() {
    within(LIMIT, || {
        let heap = Heap::new();
        let mut m = heap.attach().expect("attached");
        for round in 0..20 {
            // Slots of locks whose guards were forgotten are used again.
            for _ in 0..40 {
                let lock = m.alloc(GcLock::new(0_u64));
                if round % 2 == 0 {
                    std::mem::forget(lock.read());
                } else {
                    std::mem::forget(lock.write(&m));
                }
            }
            if round % 3 == 0 {
                m.collect();
            }
            let lock: Root<GcLock<u64>> = m.root(m.alloc(GcLock::new(0_u64)));
            let is_held = AtomicBool::new(false);
            std::thread::scope(|s| {
                s.spawn(|| {
                    let m = heap.attach().expect("attached");
                    let mut write = {
                        let write = lock.get(&m).as_ref().write(&m);
                        is_held.store(true, Ordering::SeqCst);
                        write
                    };
                    // Until the others wait for it, as a rule.
                    std::thread::sleep(Duration::from_millis(2));
                    *write += 1;
                });
                while !is_held.load(Ordering::SeqCst) {
                    m.safepoint();
                    std::thread::yield_now();
                }
                let read = *lock.get(&m).read();
                *lock.get(&m).write(&m) += read;
                assert_eq!(*lock.get(&m).read(), 2);
            });
        }
    });
}

#[test]
fn many_guards_are_given_back_in_any_order() {
    within(LIMIT, || {
        let heap = Heap::new();
        let m = heap.attach().expect("attached");
        let locks: Vec<_> = (0..100).map(|n| m.alloc(GcLock::new(n))).collect();
        for _ in 0..3 {
            let mut guards: Vec<_> = locks.iter().map(|lock| lock.read()).collect();
            for n in [99, 0, 50, 31, 32, 17] {
                drop(guards.swap_remove(n % guards.len()));
            }
            drop(guards);
        }
        for lock in &locks {
            *lock.write(&m) += 1;
        }
        let _write = locks[7].write(&m);
        let told = panic_of(|| drop(locks[7].read()));
        assert!(told.contains("for writing"), "{told}");
    });
}

#[test]
fn reads_nest_while_a_writer_waits() {
    within(LIMIT, || {
        let heap = Heap::new();
        let mut m = heap.attach().expect("attached");
        let lock: Root<GcLock<u64>> = m.root(m.alloc(GcLock::new(0_u64)));
        std::thread::scope(|s| {
            let writer;
            {
                let lock_here = lock.get(&m);
                let outer = lock_here.read();
                let (heap, lock) = (&heap, &lock);
                writer = s.spawn(move || {
                    let m = heap.attach().expect("attached");
                    *lock.get(&m).write(&m) = 1;
                });
                // As soon as the writer waits, new readers are refused.
                let other = s.spawn(move || {
                    let m = heap.attach().expect("attached");
                    while lock.get(&m).try_read().is_some() {
                        std::thread::yield_now();
                    }
                });
                while !other.is_finished() {
                    std::thread::yield_now();
                }
                for _ in 0..100 {
                    let inner = lock_here.read();
                    assert_eq!((*inner, *outer), (0, 0));
                }
            }
            m.blocking(|| writer.join()).expect("no panic");
            assert_eq!(*lock.get(&m).read(), 1);
        });
    });
}

#[test]
fn overlapping_readers_do_not_starve_a_writer() {
    within(LIMIT, || {
        let heap = Heap::new();
        let mut m = heap.attach().expect("attached");
        let lock: Root<GcLock<u64>> = m.root(m.alloc(GcLock::new(0_u64)));
        let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    let mut m = heap.attach().expect("attached");
                    while !done.load(Ordering::SeqCst) {
                        {
                            let lock = lock.get(&m);
                            let _read = lock.read();
                            reads.fetch_add(1, Ordering::SeqCst);
                            std::thread::sleep(Duration::from_millis(3));
                        }
                        m.safepoint();
                    }
                });
            }
            m.blocking(|| {
                while reads.load(Ordering::SeqCst) < 8 {
                    std::thread::yield_now();
                }
            });
            for _ in 0..5 {
                *lock.get(&m).write(&m) += 1;
                m.safepoint();
            }
            done.store(true, Ordering::SeqCst);
        });
        assert_eq!(*lock.get(&m).read(), 5);
    });
}

#[cfg(feature = "internals")]
#[test]
fn too_many_readers_are_refused_and_markers_are_not() {
    within(LIMIT, || {
        let heap = support::heap();
        let mut m = heap.attach().expect("attached");
        let lock: Root<GcLock<Vec<Gc<'static, u64>>>> = {
            let items: Vec<_> = (0..1000_u64).map(|n| m.alloc(n)).collect();
            m.root(m.alloc(GcLock::new(items)))
        };
        {
            let lock = lock.get(&m);
            greywave::internals::forget_reads(&lock, (1 << 22) - 2);
            std::mem::forget(lock.read());
            assert!(lock.try_read().is_none());
            let told = panic_of(|| drop(lock.read()));
            assert!(told.contains("too many readers: 4194303"), "{told}");
        }
        for _ in 0..3 {
            m.collect();
            assert!(lock.get(&m).try_write(&m).is_none());
        }
        heap.verify().expect("what the lock holds is alive");
    });
}

/// Whether [`Unasked`] panics.
static PANICS: AtomicBool = AtomicBool::new(true);

/// It cannot be asked.
struct Unasked;

// SAFETY: 1. to 6. it holds no `Gc`.
unsafe impl Trace for Unasked {
    const NEEDS_TRACE: bool = false;
    fn trace(&self, _: &mut Tracer<'_>) {}
    fn external_bytes(&self) -> usize {
        assert!(!PANICS.load(Ordering::SeqCst), "it cannot be asked");
        0
    }
}

impl Drop for Unasked {
    fn drop(&mut self) {}
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Unasked {
    type To = Self;
}

#[test]
fn a_lock_is_given_back_when_its_content_panics() {
    within(LIMIT, || {
        let heap = Heap::new();
        let m = heap.attach().expect("attached");
        let lock = m.alloc(GcLock::new(None));
        {
            let mut write = lock.write(&m);
            *write = Some(Unasked);
            let told = panic_of(move || drop(write));
            assert!(told.contains("cannot be asked"), "{told}");
        }
        let told = panic_of(|| drop(lock.write(&m)));
        assert!(told.contains("cannot be asked"), "{told}");
        assert!(lock.read().is_some());
        PANICS.store(false, Ordering::SeqCst);
    });
}

#[derive(Debug, Trace)]
struct Node<'gc> {
    name: u32,
    next: GcLock<Vec<Gc<'gc, Node<'gc>>>>,
}

#[test]
fn debug_through_locks_ends() {
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let nodes: Vec<_> = (0..1000)
        .map(|name| {
            m.alloc(Node {
                name,
                next: GcLock::new(Vec::new()),
            })
        })
        .collect();
    // A cycle of one.
    nodes[0].next.write(&m).push(nodes[0]);
    let shown = format!("{:?}", nodes[0]);
    assert_eq!(shown.matches("name: 0").count(), 5, "{shown}");
    assert!(shown.contains("GcLock(..)"), "{shown}");
    // Each leads to all.
    for node in &nodes[1..] {
        *node.next.write(&m) = nodes.clone();
    }
    assert!(format!("{:?}", nodes[1]).len() < 10_000_000);
    // The next one begins anew.
    assert_eq!(format!("{:?}", nodes[0]), shown);
    let nested = GcLock::new(vec![GcLock::new(1), GcLock::new(2)]);
    assert_eq!(format!("{nested:?}"), "GcLock([GcLock(1), GcLock(2)])");
    let _write = nested.write(&m);
    assert_eq!(format!("{nested:?}"), "GcLock(<locked>)");
}

#[cfg(feature = "internals")]
#[test]
fn a_root_with_too_many_clones_ends_the_process() {
    use greywave::internals::{forget_clones, forget_weak_clones};
    use support::{child, is_child, text};

    const NAME: &str = "a_root_with_too_many_clones_ends_the_process";
    for what in ["clones", "weak clones"] {
        if is_child(what) {
            let heap = Heap::new();
            let m = heap.attach().expect("attached");
            let object = m.alloc(42_u64);
            let (root, weak) = (m.root(object), m.root_weak(object.downgrade(&m)));
            forget_clones(&root, (1 << 29) - 3);
            forget_weak_clones(&weak, (1 << 29) - 3);
            drop((root.clone(), weak.clone()));
            println!("there is room for one more");
            if what == "clones" {
                std::mem::forget((root.clone(), root.clone()));
            } else {
                std::mem::forget((weak.clone(), weak.clone()));
            }
            println!("too many");
        }
        let output = child(NAME, what, &[]);
        let text = text(&output);
        assert!(text.contains("there is room for one more"), "{text}");
        assert!(
            !output.status.success() && !text.contains("too many\n"),
            "{text}"
        );
        assert!(
            text.contains("greywave: fatal: more than 536870911 handles"),
            "{text}"
        );
    }
}

#[cfg(feature = "sched")]
#[test]
fn a_channel_of_any_capacity_is_made_at_once() {
    use greywave::GcChan;
    use greywave::chan::{TryRecvError, TrySendError};
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let huge = m.alloc(GcChan::<u64>::new(usize::MAX));
    assert_eq!((huge.len(), huge.capacity()), (0, usize::MAX));
    let small = m.alloc(GcChan::<u64>::new(3));
    for round in 0..5 {
        for n in 0..3 {
            assert!(huge.try_send(&m, m.alloc(n)).is_ok());
            assert!(small.try_send(&m, m.alloc(n + round)).is_ok());
        }
        let refused = small.try_send(&m, m.alloc(9));
        assert!(matches!(refused, Err(TrySendError::Full(_))));
        for n in 0..3 {
            assert_eq!(huge.try_recv(&m).map(|n| *n).ok(), Some(n));
            assert_eq!(small.try_recv(&m).map(|n| *n).ok(), Some(n + round));
        }
        assert!(matches!(small.try_recv(&m), Err(TryRecvError::Empty)));
    }
    huge.close();
    assert!(matches!(
        huge.try_send(&m, m.alloc(1)),
        Err(TrySendError::Closed(_))
    ));
}
