//! Every handle can be dropped everywhere, even while a collection waits for the thread that drops
//! it. If a runtime is dropped where its Gs would wait for the drop, the drop does not wait for
//! them.

use std::any::Any;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greywave::{Frame, Heap, Mutator, Runtime, Trace, blocking, chan, go, sleep, with, yield_now};

use crate::common::{Dropped, LONG, Stop, on, runtime};
use crate::support::within;

type Thing = Box<dyn Any + Send>;

/// One of each handle, the runtimes with Gs that go on and on in the heap, or wait for ever.
fn things(heap: &Heap) -> Vec<(&'static str, Thing)> {
    fn busy(heap: &Heap) -> Runtime {
        let rt = on(heap, 2);
        for _ in 0..3 {
            drop(rt.go(async {
                loop {
                    with(|m| {
                        m.alloc(1_u64);
                    });
                    yield_now().await;
                }
            }));
        }
        rt
    }
    let waiting = on(heap, 1);
    drop(waiting.go(std::future::pending::<()>()));
    let joined = on(heap, 1);
    let handle = joined.go(async { 7 });
    let (to, from) = chan::<u64>(1);
    to.try_send(3).expect("room");
    let m = heap.attach().expect("attached");
    let root = m.root(m.alloc(5_u64));
    let frame = Frame::new(&m, vec![1_u64]);
    let external = m.external(1 << 20);
    drop(m);
    vec![
        ("a busy runtime", Box::new(busy(heap)) as Thing),
        ("a runtime", Box::new(waiting)),
        ("a runtime without a G", Box::new(on(heap, 1))),
        ("a join handle", Box::new(handle)),
        ("its runtime", Box::new(joined)),
        ("a sender", Box::new(to)),
        ("a receiver", Box::new(from)),
        ("a heap", Box::new(heap.clone())),
        ("a root", Box::new(root)),
        ("a frame", Box::new(frame)),
        ("external bytes", Box::new(external)),
    ]
}

/// Drops what it has in its own drop: in the heap, that is on the collector's thread.
#[derive(Trace)]
struct Holder(#[trace(skip)] Mutex<Option<Thing>>);

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.lock().map(|mut thing| thing.take()));
    }
}

std::thread_local! {
    static LEFT: RefCell<Option<Thing>> = const { RefCell::new(None) };
}

/// Somebody collects; returns when a collection waits for this thread.
fn until_a_stop_waits(m: &Mutator, heap: &Heap) -> std::thread::JoinHandle<()> {
    let other = heap.clone();
    let collects = std::thread::spawn(move || other.collect());
    while !m.safepoint_is_due() {
        std::thread::yield_now();
    }
    collects
}

/// Where a thing is dropped.
type Place = (&'static str, fn(&Heap, Thing));

const PLACES: &[Place] = &[
    ("no mutator", |heap, thing| {
        let other = heap.clone();
        let collects = std::thread::spawn(move || other.collect());
        drop(thing);
        collects.join().expect("no panic");
    }),
    ("a running mutator", |heap, thing| {
        let m = heap.attach().expect("attached");
        let collects = until_a_stop_waits(&m, heap);
        drop(thing);
        drop(m);
        collects.join().expect("no panic");
    }),
    ("a blocked mutator", |heap, thing| {
        let mut m = heap.attach().expect("attached");
        let other = heap.clone();
        let collects = std::thread::spawn(move || other.collect());
        m.blocking(|| drop(thing));
        drop(m);
        collects.join().expect("no panic");
    }),
    ("a section", |heap, thing| {
        let there = heap.clone();
        let collects = in_g(heap, async move {
            with(|m| {
                let collects = until_a_stop_waits(m, &there);
                drop(thing);
                collects
            })
        });
        collects.join().expect("no panic");
    }),
    ("a G", |heap, thing| {
        in_g(heap, async move { drop(thing) });
    }),
    ("a blocking call", |heap, thing| {
        in_g(heap, async move { blocking(|| drop(thing)).await });
    }),
    ("a drop of an object", |heap, thing| {
        let mut m = heap.attach().expect("attached");
        m.alloc(Holder(Mutex::new(Some(thing))));
        m.collect();
    }),
    ("the end of a thread", |heap, thing| {
        let heap = heap.clone();
        let thread = std::thread::spawn(move || {
            LEFT.set(Some(thing));
            // Made later than the place above, it is gone before what is in there.
            drop(heap.attach().expect("attached"));
        });
        thread.join().expect("no panic");
    }),
];

/// What a G of a runtime of its own returns.
fn in_g<T: Send + 'static>(heap: &Heap, future: impl Future<Output = T> + Send + 'static) -> T {
    let rt = on(heap, 1);
    let g = rt.go(future);
    rt.block_on(g).expect("no deadlock").expect("no panic")
}

#[test]
fn every_handle_is_dropped_everywhere() {
    within(LONG, || {
        for (place, drop_in) in PLACES {
            let heap = Heap::new();
            for (what, thing) in things(&heap) {
                println!("{what} in: {place}");
                drop_in(&heap, thing);
            }
            heap.collect();
            heap.verify().expect("the heap is whole");
        }
    });
}

// ---- a runtime and its own Gs -------------------------------------------------------------------

/// Waits until what was dropped is counted.
fn until_dropped(drops: &AtomicUsize, count: usize) {
    while drops.load(Ordering::Relaxed) < count {
        std::thread::yield_now();
    }
}

/// The last handle goes in a G of the runtime: in its poll, in a section, in a blocking call, with
/// its output, or when it is aborted. The G goes on to its next await, and all Gs end.
#[test]
fn a_runtime_that_its_own_g_drops_ends_without_it() {
    type Body = fn(Arc<Runtime>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    const BODIES: &[Body] = &[
        |rt| Box::pin(async { drop(rt) }),
        |rt| Box::pin(async { with(|_| drop(rt)) }),
        |rt| Box::pin(async { blocking(|| drop(rt)).await }),
        |rt| {
            Box::pin(async {
                with(|m| m.blocking(|| drop(rt)));
            })
        },
        |rt| {
            Box::pin(async {
                let rt = Arc::into_inner(rt).expect("the last one");
                // Itself and its like are left, and named.
                let error = rt.shutdown(LONG).expect_err("this one runs");
                assert!(error.left().iter().any(|g| g.state == "running"), "{error}");
            })
        },
    ];
    within(LONG, || {
        for body in BODIES {
            let drops = Arc::new(AtomicUsize::new(0));
            let rt = Arc::new(runtime(2));
            let neighbour = Dropped(drops.clone());
            drop(rt.go(async move {
                let _neighbour = neighbour;
                std::future::pending::<()>().await;
            }));
            let (mine, counted) = (rt.clone(), drops.clone());
            let (has_gone, may_begin) = chan::<()>(0);
            drop(rt.go(async move {
                may_begin.recv().await;
                let dropped = Dropped(counted.clone());
                body(mine).await;
                // It goes on after the drop.
                drop(dropped);
                let _late = Dropped(counted);
                sleep(Duration::from_secs(1_000)).await;
            }));
            drop(rt);
            drop(has_gone);
            until_dropped(&drops, 3);
        }
    });
}

#[test]
fn a_runtime_that_goes_with_an_output_or_an_abort_ends() {
    within(LONG, || {
        for aborts in [false, true] {
            let drops = Arc::new(AtomicUsize::new(0));
            let rt = Arc::new(runtime(1));
            let (mine, dropped) = (rt.clone(), Dropped(drops.clone()));
            let begun = Stop::default();
            let begins = begun.clone();
            let (has_gone, may_end) = chan::<()>(0);
            let g = rt.go(async move {
                let all = (mine, dropped);
                begins.set();
                if aborts {
                    std::future::pending::<()>().await;
                }
                may_end.recv().await;
                all
            });
            while !begun.is_set() {
                std::thread::yield_now();
            }
            if aborts {
                g.abort();
            }
            drop(g);
            drop(rt);
            drop(has_gone);
            until_dropped(&drops, 1);
        }
    });
}

/// A collection waits for this thread from the middle of the shutdown on, and Gs wait for the
/// collection.
#[test]
fn a_shutdown_that_a_stop_overtakes_gives_way() {
    within(LONG, || {
        let heap = Heap::new();
        let rt = on(&heap, 2);
        let gate = Stop::default();
        let holds = gate.clone();
        let (begun, begins) = chan::<()>(0);
        // It does not let go before the stop is asked for, and wants the heap then.
        let g = rt.go(async move {
            begun.send(()).await.expect("the test waits");
            while !holds.is_set() {
                std::thread::yield_now();
            }
            with(|m| {
                m.alloc(1_u64);
            });
        });
        begins.blocking_recv().expect("it begins");
        let m = heap.attach().expect("attached");
        let other = heap.clone();
        let collects = std::thread::spawn(move || other.collect());
        let opens = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            gate.set();
        });
        let end = rt.shutdown(LONG);
        println!("{end:?}");
        drop(m);
        collects.join().expect("no panic");
        opens.join().expect("no panic");
        while !g.is_finished() {
            std::thread::yield_now();
        }
        heap.verify().expect("the heap is whole");
    });
}

/// The Gs of a runtime that was asked to end by one of its own can still start others, which end,
/// too.
#[test]
fn gs_that_are_started_in_an_end_end() {
    within(LONG, || {
        let drops = Arc::new(AtomicUsize::new(0));
        let rt = Arc::new(runtime(2));
        let (mine, counted) = (rt.clone(), drops.clone());
        let (has_gone, may_begin) = chan::<()>(0);
        drop(rt.go(async move {
            may_begin.recv().await;
            drop(mine);
            for _ in 0..10 {
                let dropped = Dropped(counted.clone());
                drop(go(async move {
                    let _dropped = dropped;
                    std::future::pending::<()>().await;
                }));
            }
        }));
        drop(rt);
        drop(has_gone);
        until_dropped(&drops, 10);
    });
}
