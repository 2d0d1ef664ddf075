//! What a G leaves behind is dropped as part of that G: `with` works in the drops of its future and
//! output, however the G ends. A panic on the way costs nothing else.

use std::future::{Future, pending};
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use greywave::{DeadlockPolicy, Heap, JoinHandle, Root, Runtime, chan, go, sleep, with, yield_now};

use crate::common::{LONG, Stop, run, runtime, until};
use crate::support::within;

/// Takes something back in the heap when it is dropped.
struct Undo {
    what: Root<u64>,
    undone: Arc<AtomicUsize>,
}

impl Undo {
    fn new(undone: &Arc<AtomicUsize>) -> Self {
        Self {
            what: with(|m| m.root(m.alloc(5_u64))),
            undone: undone.clone(),
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        assert_eq!(with(|m| *self.what.get(m)), 5);
        self.undone.fetch_add(1, Ordering::Relaxed);
    }
}

/// A way for a G to end: what it does with its `Undo`, and what the test does with its handle.
type Way = (
    &'static str,
    fn(Undo) -> Pin<Box<dyn Future<Output = Option<Undo>> + Send>>,
    fn(JoinHandle<Option<Undo>>) -> Pin<Box<dyn Future<Output = ()> + Send>>,
);

const WAYS: &[Way] = &[
    (
        "it returns",
        |undo| {
            Box::pin(async {
                drop(undo);
                None
            })
        },
        |g| Box::pin(async { assert!(g.await.expect("no panic").is_none()) }),
    ),
    (
        "its output is taken",
        |undo| Box::pin(async { Some(undo) }),
        |g| Box::pin(async { drop(g.await.expect("no panic")) }),
    ),
    (
        "it panics",
        |undo| {
            Box::pin(async {
                let _undo = undo;
                panic!("on purpose")
            })
        },
        |g| Box::pin(async { assert!(g.await.is_err_and(|e| e.is_panic())) }),
    ),
    (
        "it is aborted while it waits",
        |undo| {
            Box::pin(async {
                let _undo = undo;
                pending().await
            })
        },
        |g| {
            Box::pin(async {
                sleep(Duration::from_millis(2)).await;
                g.abort();
                assert!(g.await.is_err_and(|e| e.is_cancelled()));
            })
        },
    ),
    (
        "it is aborted before it runs",
        |undo| {
            Box::pin(async {
                let _undo = undo;
                pending().await
            })
        },
        |g| {
            g.abort();
            Box::pin(async { assert!(g.await.is_err_and(|e| e.is_cancelled())) })
        },
    ),
    (
        "it is aborted while it runs",
        |undo| {
            Box::pin(async {
                let _undo = undo;
                loop {
                    yield_now().await;
                }
            })
        },
        |g| {
            Box::pin(async {
                sleep(Duration::from_millis(1)).await;
                g.abort();
                assert!(g.await.is_err_and(|e| e.is_cancelled()));
            })
        },
    ),
    (
        "nobody wants its output",
        |undo| Box::pin(async { Some(undo) }),
        |g| {
            drop(g);
            Box::pin(async {})
        },
    ),
    (
        "its output lies there when the handle goes",
        |undo| Box::pin(async { Some(undo) }),
        |g| {
            Box::pin(async move {
                until("the end", || g.is_finished()).await;
                drop(g);
            })
        },
    ),
];

#[test]
fn with_works_in_the_drops_of_a_g_that_ends() {
    run(2, async {
        for (name, future, after) in WAYS {
            let undone = Arc::new(AtomicUsize::new(0));
            let undo = Undo::new(&undone);
            // The parts of a G come to the same end, in a G that nobody polls again.
            after(go(future(undo))).await;
            until(name, || undone.load(Ordering::Relaxed) == 1).await;
        }
    });
}

#[test]
fn with_works_in_the_drops_of_gs_that_a_runtime_ends() {
    within(LONG, || {
        let undone = Arc::new(AtomicUsize::new(0));
        let rt = runtime(2);
        for waits in [false, true] {
            let (undone, stop) = (undone.clone(), Stop::default());
            let begun = stop.clone();
            drop(rt.go(async move {
                let _undo = Undo::new(&undone);
                begun.set();
                if !waits {
                    loop {
                        yield_now().await;
                    }
                }
                pending::<()>().await;
            }));
            while !stop.is_set() {
                std::thread::yield_now();
            }
        }
        rt.shutdown(LONG).expect("they await");
        assert_eq!(undone.load(Ordering::Relaxed), 2);

        // The main G of a deadlock.
        let rt = Runtime::builder(&Heap::new())
            .procs(1)
            .deadlocks(DeadlockPolicy::Always)
            .build()
            .expect("a runtime");
        let counted = undone.clone();
        let end = rt.block_on(async move {
            let _undo = Undo::new(&counted);
            let (_open, gate) = chan::<()>(0);
            gate.recv().await
        });
        assert!(end.is_err());
        assert_eq!(undone.load(Ordering::Relaxed), 3);
    });
}

/// Panics when it is dropped, with such a value again.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 && !std::thread::panicking() {
            panic_any(Self(self.0 - 1));
        }
    }
}

#[test]
fn drops_that_panic_cost_no_more_than_their_g() {
    run(1, async {
        // Alone, and on top of a panic of the G; with payloads that panic, too.
        for depth in 1..4 {
            drop(go(async move { Bomb(depth) }));
            let kept = go(async move {
                let _bomb = Bomb(depth);
                yield_now().await;
            });
            assert!(kept.await.is_err_and(|e| {
                let is_panic = e.is_panic();
                // What the G panicked with is ours now, and would panic here.
                let _leaked = std::mem::ManuallyDrop::new(e.into_panic());
                is_panic
            }));
            let aborted = go(async move {
                let _bomb = Bomb(depth);
                pending::<()>().await;
            });
            yield_now().await;
            aborted.abort();
            drop(aborted);
            drop(go(async move { panic_any(Bomb(depth)) }));
            // The future is ready, and panics when it is dropped afterwards.
            struct ReadyBomb(Bomb);
            impl Future for ReadyBomb {
                type Output = Bomb;
                fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Bomb> {
                    Poll::Ready(Bomb(self.0.0))
                }
            }
            drop(go(ReadyBomb(Bomb(depth))));
            yield_now().await;
            assert_eq!(go(async { 7 }).await.expect("the worker lives"), 7);
        }
    });
}

/// A waker of another executor, each of whose functions may panic.
struct Foreign {
    in_wake: bool,
    in_drop: bool,
}

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        assert!(!self.in_wake, "a user's waker");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if self.in_drop && !std::thread::panicking() {
            panic_any(Bomb(2));
        }
    }
}

#[test]
fn a_joiner_whose_waker_panics_costs_nobody_anything() {
    run(1, async {
        for (in_wake, in_drop, leaves) in [
            (true, false, false),
            (false, true, false),
            (true, true, false),
            (false, true, true),
        ] {
            let (open, gate) = chan::<()>(0);
            let mut g = go(async move { gate.recv().await });
            let waker = Waker::from(Arc::new(Foreign { in_wake, in_drop }));
            let is_pending = Pin::new(&mut g)
                .poll(&mut Context::from_waker(&waker))
                .is_pending();
            assert!(is_pending);
            drop(waker); // the G has the last one
            if leaves {
                drop(g);
                drop(open);
            } else {
                drop(open);
                until("the end", || g.is_finished()).await;
                drop(g);
            }
            yield_now().await;
            assert_eq!(go(async { 7 }).await.expect("the worker lives"), 7);
        }
    });
}
