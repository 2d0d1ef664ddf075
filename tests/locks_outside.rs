//! `GcLock`s that are not directly in an object: in a box, a list or a map that it owns, in another
//! lock, on a stack. With one heap in the process and with two, a thread that may wait does, and a
//! thread that would wait for itself gets a panic.

#![allow(
    clippy::mem_forget,
    reason = "what is forgotten is a subject of these tests"
)]

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use greywave::{Event, Gc, GcLock, Heap, Mutator, Root, Trace};

#[path = "stress/support.rs"]
mod support;

use support::within;

const LIMIT: Duration = Duration::from_secs(120);

/// How many heaps the process has is a subject of these tests, so they come one after another.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `test` in a process with one heap, and in one with two.
fn with_one_heap_and_with_two(test: impl Fn(&Heap) + Send + Sync + 'static) {
    let _alone = alone();
    within(LIMIT, move || {
        test(&Heap::new());
        let (heap, other) = (Heap::new(), Heap::new());
        let m = other.attach().expect("attached");
        let _number = m.alloc(1_u64);
        // It is attached to the other heap, and stays so.
        std::thread::scope(|s| {
            let tested = s.spawn(|| test(&heap));
            if let Err(payload) = tested.join() {
                resume_unwind(payload);
            }
        });
    });
}

type Numbers<'gc> = GcLock<Vec<Gc<'gc, u64>>>;

/// A lock in each place where an object may have one.
#[derive(Trace)]
struct Table<'gc> {
    own: Numbers<'gc>,
    boxed: Box<Numbers<'gc>>,
    shards: Vec<Numbers<'gc>>,
    by_name: HashMap<String, Numbers<'gc>>,
    inside: GcLock<Numbers<'gc>>,
    row: GcLock<Vec<Numbers<'gc>>>,
}

impl<'gc> Table<'gc> {
    fn new() -> Self {
        let boxed = || Box::new(Numbers::default());
        Self {
            own: Numbers::default(),
            boxed: boxed(),
            shards: vec![Numbers::default(), Numbers::default()],
            by_name: HashMap::from([("name".to_owned(), *boxed())]),
            inside: GcLock::default(),
            row: GcLock::new(vec![Numbers::default(), Numbers::default()]),
        }
    }

    /// Calls `with` with the lock in that place.
    fn with<R>(&self, place: &str, with: impl FnOnce(&Numbers<'gc>) -> R) -> R {
        match place {
            "own" => with(&self.own),
            "boxed" => with(&self.boxed),
            "shards" => with(&self.shards[1]),
            "by_name" => with(&self.by_name["name"]),
            "inside" => with(&self.inside.read()),
            "row" => with(&self.row.read()[1]),
            other => unreachable!("{other}"),
        }
    }
}

const PLACES: [&str; 6] = ["own", "boxed", "shards", "by_name", "inside", "row"];

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Held {
    No,
    ForReading,
    ForWriting,
}

const WAYS: [Held; 3] = [Held::No, Held::ForReading, Held::ForWriting];

/// What `body` panics with, if it does.
fn panic_of(body: impl FnOnce()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(body)).err()?;
    Some(match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&str>().expect("a text")).to_owned(),
    })
}

/// The tries say what there is, whoever holds the lock.
#[track_caller]
fn tries_are_right(lock: &Numbers<'_>, m: &Mutator, held: Held) {
    assert_eq!(
        lock.try_read().is_some(),
        held != Held::ForWriting,
        "{held:?}"
    );
    assert_eq!(lock.try_write(m).is_some(), held == Held::No, "{held:?}");
}

/// This thread holds the lock: it is let in, or told that it would wait for itself.
#[track_caller]
fn own_hold_is_told(lock: &Numbers<'_>, m: &Mutator, held: Held) {
    tries_are_right(lock, m, held);
    let told = [
        panic_of(|| drop(lock.read())),
        panic_of(|| drop(lock.write(m))),
    ];
    let expected = [held == Held::ForWriting, held != Held::No];
    assert_eq!(told.each_ref().map(Option::is_some), expected, "{held:?}");
    for told in told.into_iter().flatten() {
        assert!(told.contains("would wait for itself"), "{told}");
    }
}

#[test]
fn who_holds_a_lock_itself_is_told_wherever_it_is() {
    with_one_heap_and_with_two(|heap| {
        let mut m = heap.attach().expect("attached");
        for forgets in [false, true] {
            for held in WAYS {
                for place in PLACES {
                    m.safepoint();
                    let table = m.alloc(Table::new());
                    table.with(place, |lock| {
                        lock.write(&m).push(m.alloc(1));
                        let read = (held == Held::ForReading).then(|| lock.read());
                        let write = (held == Held::ForWriting).then(|| lock.write(&m));
                        if forgets {
                            std::mem::forget((read, write));
                            own_hold_is_told(lock, &m, held);
                        } else {
                            own_hold_is_told(lock, &m, held);
                            drop((read, write));
                            own_hold_is_told(lock, &m, Held::No);
                        }
                    });
                }
            }
        }
        collect_and_verify(heap, m);
    });
}

fn collect_and_verify(heap: &Heap, mut m: Mutator) {
    m.collect();
    drop(m);
    heap.verify().expect("whole");
}

#[test]
fn who_holds_a_lock_on_its_stack_is_told_after_a_safepoint_too() {
    with_one_heap_and_with_two(|heap| {
        let mut m = heap.attach().expect("attached");
        for forgets in [false, true] {
            for held in WAYS {
                let lock = GcLock::new(0_u64);
                let tries = |held: Held, m: &Mutator| {
                    assert_eq!(lock.try_read().is_some(), held != Held::ForWriting);
                    assert_eq!(lock.try_write(m).is_some(), held == Held::No);
                    let told = [
                        panic_of(|| drop(lock.read())),
                        panic_of(|| drop(lock.write(m))),
                    ];
                    let expected = [held == Held::ForWriting, held != Held::No];
                    // Elsewhere the system does not tell where a stack is, and this would wait.
                    assert_eq!(told.map(|told| told.is_some()), expected, "{held:?}");
                };
                let mut read = (held == Held::ForReading).then(|| lock.read());
                if held == Held::ForWriting {
                    // It borrows the mutator, so it cannot live over a safepoint.
                    let write = lock.write(&m);
                    tries(held, &m);
                    if forgets {
                        std::mem::forget(write);
                    }
                }
                if forgets {
                    std::mem::forget(read.take());
                }
                m.collect();
                m.safepoint();
                let still = if held == Held::ForWriting && !forgets {
                    Held::No
                } else {
                    held
                };
                if cfg!(target_os = "linux") {
                    tries(still, &m);
                }
                drop(read);
            }
        }
        collect_and_verify(heap, m);
    });
}

/// Another thread holds the lock of an object: whoever comes waits, and is not told anything.
#[test]
fn who_finds_another_threads_guard_waits_wherever_the_lock_is() {
    with_one_heap_and_with_two(|heap| {
        let root: Root<Table<'static>> = heap.with(|m| m.root(m.alloc(Table::new())));
        for place in PLACES {
            for held in [Held::ForReading, Held::ForWriting] {
                for writes in [false, true] {
                    one_waits_for_another(heap, &root, place, held, writes);
                }
            }
        }
        heap.collect();
        heap.verify().expect("whole");
    });
}

fn one_waits_for_another(
    heap: &Heap,
    root: &Root<Table<'static>>,
    place: &str,
    held: Held,
    writes: bool,
) {
    let (says, hears) = mpsc::channel();
    let (tried, may_go) = mpsc::channel();
    let is_inside = AtomicUsize::new(0);
    std::thread::scope(|s| {
        s.spawn({
            let is_inside = &is_inside;
            move || {
                heap.with(|m| {
                    root.get(m).with(place, |lock| {
                        let read = (held == Held::ForReading).then(|| lock.read());
                        let write = (held == Held::ForWriting).then(|| lock.write(m));
                        is_inside.store(1, Ordering::SeqCst);
                        says.send(()).expect("heard");
                        may_go.recv().expect("tried");
                        // Until the other one waits, as a rule.
                        std::thread::sleep(Duration::from_millis(5));
                        is_inside.store(0, Ordering::SeqCst);
                        if let Some(mut write) = write {
                            write.push(m.alloc(1));
                        }
                        drop(read);
                    });
                });
            }
        });
        hears.recv().expect("held");
        heap.with(|m| {
            root.get(m).with(place, |lock| {
                tries_are_right(lock, m, held);
                tried.send(()).expect("it waits for this");
                if writes {
                    let mut write = lock.write(m);
                    assert_eq!(is_inside.load(Ordering::SeqCst), 0, "{place} {held:?}");
                    write.push(m.alloc(2));
                } else {
                    let _read = lock.read();
                    let alone = held == Held::ForReading || is_inside.load(Ordering::SeqCst) == 0;
                    assert!(alone, "{place} {held:?}");
                }
            });
        });
    });
}

/// Guards of boxed locks are forgotten, and the boxes go; what has their memory next is another
/// object's lock, which another thread holds.
#[test]
fn forgotten_guards_of_boxes_make_nobody_panic_who_waits_for_another_thread() {
    with_one_heap_and_with_two(|heap| {
        let mut m = heap.attach().expect("attached");
        for round in 0..20 {
            for n in 0..40 {
                let table = m.alloc(Table::new());
                if (n + round) % 2 == 0 {
                    std::mem::forget((table.boxed.read(), table.shards[0].read()));
                } else {
                    std::mem::forget((table.boxed.write(&m), table.shards[0].write(&m)));
                }
            }
            m.collect();
            let root: Root<Table<'static>> = m.root(m.alloc(Table::new()));
            m.blocking(|| {
                for place in ["boxed", "shards"] {
                    one_waits_for_another(heap, &root, place, Held::ForWriting, round % 2 == 0);
                }
            });
        }
        collect_and_verify(heap, m);
    });
}

/// A guard was forgotten before the last safepoint. Nobody can be sure whose it was: whoever waits
/// is told of.
#[test]
fn a_wait_for_a_forgotten_guard_is_told_wherever_the_lock_is() {
    let _alone = alone();
    within(LIMIT, || {
        let (says, hears) = mpsc::channel();
        let says = Mutex::new(says);
        let heap = Heap::builder()
            .on_event(move |event| {
                if let Event::SlowLock { writes, .. } = event {
                    let _ = (says.lock().expect("no panic")).send(*writes);
                }
            })
            .build()
            .expect("a heap");
        let _other = Heap::new();
        let root: Root<Table<'static>> = heap.with(|m| m.root(m.alloc(Table::new())));
        heap.with(|m| {
            for place in PLACES {
                root.get(m)
                    .with(place, |lock| std::mem::forget(lock.write(m)));
            }
        });
        heap.collect();
        heap.verify().expect("what is forgotten is looked at");
        let heap = Arc::new(heap);
        for writes in [false, true] {
            for place in PLACES {
                heap.with(|m| {
                    root.get(m)
                        .with(place, |lock| tries_are_right(lock, m, Held::ForWriting));
                });
                // It waits for ever, with its mutator.
                let (heap, root) = (heap.clone(), root.clone());
                std::thread::spawn(move || {
                    heap.with(|m| {
                        root.get(m).with(place, |lock| {
                            if writes {
                                drop(lock.write(m));
                            } else {
                                drop(lock.read());
                            }
                        });
                    });
                });
            }
        }
        let told: Vec<bool> = (0..12).map(|_| hears.recv().expect("told")).collect();
        assert!(told.contains(&true) && told.contains(&false));
    });
}

/// With two heaps nobody's look through a lock's content keeps another thread out for nothing: of
/// threads that take turns each finds the lock free.
#[test]
fn a_second_heap_does_not_make_a_free_lock_look_taken() {
    with_one_heap_and_with_two(|heap| {
        let root: Root<Table<'static>> = heap.with(|m| {
            let table = Table::new();
            *table.boxed.write(m) = vec![m.alloc(1); 10_000];
            m.root(m.alloc(table))
        });
        let turn = Mutex::new(());
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for round in 0..200 {
                        // A marker may have a share, so none comes meanwhile.
                        let _turn = turn.lock().expect("no panic");
                        if round % 50 == 0 {
                            heap.collect();
                        }
                        heap.with(|m| {
                            let table = root.get(m);
                            assert!(table.boxed.try_write(m).is_some(), "round {round}");
                            assert!(table.boxed.try_read().is_some(), "round {round}");
                        });
                    }
                });
            }
        });
    });
}

/// Counts how often it is traced.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicUsize>);

// SAFETY: 1. 3. 6. no `Gc` inside. 2. an atomic in an `Arc`. 4. true, so that it is traced. 5. it
// adds.
unsafe impl Trace for Counted {
    fn trace(&self, _: &mut greywave::Tracer<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: no brand.
unsafe impl greywave::Rebrand<'_> for Counted {
    type To = Self;
}

/// With two heaps a content is looked through once in a cycle, not once a write.
#[test]
fn writes_of_a_cycle_look_once() {
    with_one_heap_and_with_two(|heap| {
        let counted = Counted::default();
        let looks = || counted.0.load(Ordering::SeqCst);
        let root: Root<Box<GcLock<Counted>>> =
            heap.with(|m| m.root(m.alloc(Box::new(GcLock::new(counted.clone())))));
        for _ in 0..3 {
            heap.with(|m| {
                let before = looks();
                for _ in 0..100 {
                    drop(root.get(m).write(m));
                    drop(root.get(m).try_write(m));
                }
                assert!(looks() <= before + 1, "{} looks", looks() - before);
            });
            heap.collect();
        }
    });
}

#[cfg(feature = "sched")]
mod channels {
    use greywave::GcChan;
    use greywave::chan::{TryRecvError, TrySendError};

    use super::*;

    #[derive(Trace)]
    struct Desk<'gc> {
        own: GcChan<'gc, u64>,
        boxed: Box<GcChan<'gc, u64>>,
        trays: Vec<GcChan<'gc, u64>>,
    }

    impl<'gc> Desk<'gc> {
        fn new(capacity: usize) -> Self {
            Self {
                own: GcChan::new(capacity),
                boxed: Box::new(GcChan::new(capacity)),
                trays: vec![GcChan::new(capacity)],
            }
        }

        fn all(&self) -> [&GcChan<'gc, u64>; 3] {
            [&self.own, &self.boxed, &self.trays[0]]
        }
    }

    /// Threads that send and receive at the same time wait for each other, wherever the channel is.
    #[test]
    fn threads_share_a_channel_wherever_it_is() {
        const ITEMS: u64 = 3000;
        const CAPACITY: usize = 4;
        with_one_heap_and_with_two(|heap| {
            let root: Root<Desk<'static>> = heap.with(|m| m.root(m.alloc(Desk::new(CAPACITY))));
            for which in 0..3 {
                let sum = AtomicUsize::new(0);
                std::thread::scope(|s| {
                    for _ in 0..2 {
                        s.spawn(|| {
                            let mut m = heap.attach().expect("attached");
                            let mut n = 0;
                            while n < ITEMS {
                                let item = m.alloc(n);
                                match root.get(&m).all()[which].try_send(&m, item) {
                                    Ok(()) => n += 1,
                                    Err(TrySendError::Full(_)) => std::thread::yield_now(),
                                    Err(other) => panic!("{other:?}"),
                                }
                                m.safepoint();
                            }
                        });
                        s.spawn(|| {
                            let mut m = heap.attach().expect("attached");
                            let mut got = 0;
                            while got < ITEMS {
                                match root.get(&m).all()[which].try_recv(&m) {
                                    Ok(item) => {
                                        sum.fetch_add(*item as usize, Ordering::SeqCst);
                                        got += 1;
                                    }
                                    Err(TryRecvError::Empty) => std::thread::yield_now(),
                                    Err(other) => panic!("{other:?}"),
                                }
                                m.safepoint();
                            }
                        });
                    }
                });
                let all = sum.load(Ordering::SeqCst) as u64;
                assert_eq!(all, ITEMS * (ITEMS - 1), "each number twice");
                heap.with(|m| {
                    let desk = root.get(m);
                    let channel = desk.all()[which];
                    assert!(channel.is_empty());
                    let sent = (0..).take_while(|n| channel.try_send(m, m.alloc(*n)).is_ok());
                    assert_eq!(sent.count(), CAPACITY, "no place was lost");
                });
            }
        });
    }
}
