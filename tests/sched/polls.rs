//! An operation that is polled on a worker's thread gets through: inside a blocking call at once,
//! elsewhere after a number of polls, however long the G has had its processor, and whatever the
//! executor is.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use greywave::{
    Context, Mutex, Once, RwLock, WaitGroup, blocking, chan, go, interval, select, sleep, with,
    yield_now,
};

use crate::common::run;
use crate::executor;
use crate::support::Watch;

/// No poll is refused more often than this in a row.
const BOUND: usize = 1000;

type Ready = Pin<Box<dyn Future<Output = ()> + Send>>;
type Make = Box<dyn Fn() -> Ready + Send + Sync>;

/// Operations that can be over at the first poll, and how to make one: its name, and the operation.
fn operations() -> Vec<(&'static str, Make)> {
    fn op<F: Future<Output = ()> + Send + 'static>(
        make: impl Fn() -> F + Send + Sync + 'static,
    ) -> Make {
        Box::new(move || Box::pin(make()))
    }
    vec![
        (
            "recv",
            op(|| async {
                let (to, from) = chan(1);
                to.try_send(1).expect("room");
                assert_eq!(from.recv().await, Some(1));
            }),
        ),
        (
            "send",
            op(|| async {
                let (to, _from) = chan(1);
                to.send(1).await.expect("room");
            }),
        ),
        (
            "select",
            op(|| async {
                let (to, from) = chan(1);
                to.try_send(1).expect("room");
                select! {
                    got = recv(&from) => assert_eq!(got, Some(1)),
                }
            }),
        ),
        (
            "mutex",
            op(|| async {
                assert_eq!(*Mutex::new(3).lock().await, 3);
            }),
        ),
        (
            "read",
            op(|| async {
                assert_eq!(*RwLock::new(3).read().await, 3);
            }),
        ),
        (
            "write",
            op(|| async {
                assert_eq!(*RwLock::new(3).write().await, 3);
            }),
        ),
        ("wait group", op(|| async { WaitGroup::new().wait().await })),
        (
            "once",
            op(|| async {
                assert_eq!(*Once::new().get_or_init(async || 3).await, 3);
            }),
        ),
        (
            "context",
            op(|| async {
                let (context, cancel) = Context::background().with_cancel();
                cancel.cancel();
                context.done().await;
            }),
        ),
        ("sleep", op(|| sleep(Duration::ZERO))),
        (
            "interval",
            op(|| async {
                interval(Duration::from_nanos(1)).tick().await;
            }),
        ),
        ("yield", op(yield_now)),
        (
            "blocking",
            op(|| async { assert_eq!(blocking(|| 3).await, 3) }),
        ),
    ]
}

/// How many polls it takes, of one future.
fn polls_of(future: impl Future<Output = ()>) -> usize {
    let mut future = pin!(future);
    let mut cx = TaskContext::from_waker(Waker::noop());
    for polls in 1..=BOUND {
        if future.as_mut().poll(&mut cx).is_ready() {
            return polls;
        }
        std::thread::sleep(Duration::from_micros(if polls < 200 { 0 } else { 100 }));
    }
    panic!("not ready after {BOUND} polls");
}

/// Computes until an operation that could go on is refused: the G's slice is over.
fn until_refused() {
    let watch = Watch::begin();
    loop {
        let (to, from) = chan(1);
        to.try_send(1).expect("room");
        let future = pin!(from.recv());
        let mut cx = TaskContext::from_waker(Waker::noop());
        if future.poll(&mut cx).is_pending() {
            return;
        }
        watch.check("the end of its slice");
    }
}

/// In a blocking call nobody waits for this thread's P, so nothing is refused.
#[test]
fn a_blocking_call_polls_as_any_thread_does() {
    run(2, async {
        for (name, make) in operations() {
            let make = Arc::new(make);
            let (here, there) = (make.clone(), make);
            let ended = go(async { 4 });
            blocking(move || {
                executor::block_on(here());
                assert_eq!(executor::block_on(ended).expect("no panic"), 4);
            })
            .await;
            // The same in a section of the heap.
            go(async move { with(|m| m.blocking(|| executor::block_on(there()))) })
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    });
}

/// A G whose slice is over, or that is to end, and that does not let go: it polls the same future
/// again and again, or a new one each time, or runs another executor.
#[test]
fn who_polls_in_a_loop_gets_through() {
    run(2, async {
        for (name, make) in operations() {
            let make = Arc::new(make);
            let (first, second, third) = (make.clone(), make.clone(), make);
            let same = go(async move {
                until_refused();
                polls_of(first());
            });
            let new_ones = go(async move {
                until_refused();
                let cx = &mut TaskContext::from_waker(Waker::noop());
                let is_over = |_| second().as_mut().poll(cx) == Poll::Ready(());
                // What needs a second poll by its nature never gets one here.
                assert!(name == "yield" || (0..BOUND).any(is_over), "never seen");
            });
            let executes = go(async move {
                until_refused();
                executor::block_on(third());
            });
            for handle in [same, new_ones, executes] {
                handle
                    .await
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    });
}

#[test]
fn an_aborted_g_that_does_not_let_go_gets_through() {
    run(2, async {
        let (begun, may_go_on) = chan::<()>(0);
        let g = go(async move {
            executor::block_on(begun.send(())).expect("the test waits");
            std::thread::sleep(Duration::from_millis(20)); // it is aborted meanwhile
            for (_, make) in operations() {
                executor::block_on(make());
            }
            6
        });
        assert_eq!(may_go_on.recv().await, Some(()));
        g.abort();
        // It ends by itself, without an await.
        assert_eq!(g.await.expect("it has no await"), 6);
    });
}

/// `blocking_recv` outside of [`blocking`] keeps a processor, and yet it gets its value.
#[test]
fn a_blocking_receive_in_a_g_gets_its_value() {
    run(2, async {
        for inside in [false, true] {
            let (to, from) = chan::<u32>(0);
            let waits = go(async move {
                until_refused();
                if inside {
                    blocking(move || from.blocking_recv()).await
                } else {
                    from.blocking_recv()
                }
            });
            sleep(Duration::from_millis(5)).await;
            to.send(7).await.expect("it waits");
            assert_eq!(waits.await.expect("no panic"), Some(7));
        }
    });
}

/// A section in a blocking call may block, too: the thread has no P before the outer call is over,
/// and one P afterwards.
#[test]
fn calls_inside_calls_keep_every_processor() {
    run(2, async {
        let gs: Vec<_> = (0..8)
            .map(|_| {
                go(async {
                    for _ in 0..50 {
                        blocking(|| {
                            with(|m| m.blocking(with_no_processor));
                            with(|m| m.blocking(std::thread::yield_now));
                        })
                        .await;
                        yield_now().await;
                    }
                })
            })
            .collect();
        for g in gs {
            g.await.expect("no panic");
        }
        // Both processors are there: two Gs that wait for each other without an await.
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let waits: Vec<_> = (0..2)
            .map(|_| barrier.clone())
            .map(|barrier| {
                go(async move {
                    barrier.wait();
                })
            })
            .collect();
        for g in waits {
            g.await.expect("no panic");
        }
    });
}

fn with_no_processor() {
    executor::block_on(yield_now());
}
