//! Deadlocks are reported, and nothing else is reported as one.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::time::Duration;

use greywave::{
    DeadlockPolicy, Heap, Runtime, Sender, blocking, chan, go, go_named, sleep, yield_now,
};

use crate::common::{LONG, runtime, until};
use crate::support::{child_within, is_child, within};

fn watched(procs: usize, max_threads: usize) -> Runtime {
    Runtime::builder(&Heap::new())
        .procs(procs)
        .max_threads(max_threads)
        .deadlocks(DeadlockPolicy::Always)
        .build()
        .expect("a runtime")
}

#[test]
fn a_deadlock_is_reported_with_names_and_places() {
    within(LONG, || {
        let rt = Runtime::builder(&Heap::new())
            .procs(2)
            .deadlocks(DeadlockPolicy::Always)
            .build()
            .expect("a runtime");
        let deadlock = rt
            .block_on(async {
                let (open, gate) = chan::<()>(0);
                let waiter = go_named("the waiter", async move { gate.recv().await });
                let result = waiter.await;
                drop(open);
                result.map(|_| ()).is_ok()
            })
            .expect_err("each waits for the other");
        let text = deadlock.to_string();
        println!("{text}");
        assert_eq!(deadlock.gs().len(), 2, "{text}");
        for part in [
            "deadlock",
            "the waiter",
            "tests/sched/deadlocks.rs:",
            "a channel to receive from",
            "another G to end",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        // What was stuck is gone, and the runtime is not.
        assert_eq!(
            rt.block_on(async { go(async { 4 }).await.expect("no panic") })
                .expect("no deadlock"),
            4
        );
    });
}

#[test]
fn what_time_or_another_thread_will_end_is_no_deadlock() {
    within(LONG, || {
        let rt = runtime(2);
        let late = rt.block_on(async {
            sleep(Duration::from_millis(300)).await;
            true
        });
        assert!(late.expect("a timer is set"));
        let (to, from) = chan::<u32>(0);
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            to.blocking_send(9)
        });
        let got = rt.block_on(async move { from.recv().await });
        assert_eq!(got.expect("a thread will send"), Some(9));
        sender.join().expect("no panic").expect("main receives");
        let called = rt.block_on(blocking(|| {
            std::thread::sleep(Duration::from_millis(300));
            1
        }));
        assert_eq!(called.expect("a call goes on"), 1);
    });
}

/// One G with many waits, each of which holds a waker of it; more than any count has room for.
#[test]
fn any_number_of_waits_is_a_deadlock() {
    within(LONG, || {
        for count in [1, 255, 256, 1000, 66_000] {
            let end = watched(1, 100).block_on(async move {
                let (_open, gate) = chan::<u8>(0);
                let mut waits: Vec<_> = (0..count).map(|_| Box::pin(gate.recv())).collect();
                poll_fn(|cx| {
                    for wait in &mut waits {
                        assert!(wait.as_mut().poll(cx).is_pending());
                    }
                    Poll::<()>::Pending
                })
                .await;
            });
            assert!(end.is_err(), "{count} waits");
        }
    });
}

/// Every thread that may be had sleeps in a call, for what a G would do that waits for a thread.
#[test]
fn calls_that_wait_for_a_call_are_a_deadlock() {
    within(LONG, || {
        let rt = watched(1, 3);
        let deadlock = rt
            .block_on(async {
                let begun = Arc::new(AtomicUsize::new(0));
                let (to, from) = mpsc::channel();
                let first = begun.clone();
                let waits = go(async move {
                    blocking(move || {
                        first.fetch_add(1, Ordering::Relaxed);
                        from.recv()
                    })
                    .await
                });
                let (_open, gate) = mpsc::channel::<()>();
                let second = begun.clone();
                let other = go(async move {
                    blocking(move || {
                        second.fetch_add(1, Ordering::Relaxed);
                        gate.recv()
                    })
                    .await
                });
                until("two calls", || begun.load(Ordering::Relaxed) == 2).await;
                blocking(move || to.send(1)).await.expect("it waits");
                drop(other);
                waits.await.expect("no panic").expect("sent")
            })
            .expect_err("there are two calls at most");
        let text = deadlock.to_string();
        assert!(text.contains("a thread for a blocking call"), "{text}");
        assert!(text.contains("in a blocking call"), "{text}");

        // The same calls where there is room for one more, and where one of them ends by itself.
        for (max_threads, limit) in [(4, None), (3, Some(Duration::from_millis(200)))] {
            let end = watched(1, max_threads).block_on(async move {
                let (to, from) = mpsc::channel();
                let waits = go(async move { blocking(move || from.recv()).await });
                let (_open, gate) = mpsc::channel::<()>();
                let other = go(async move {
                    blocking(move || match limit {
                        Some(limit) => assert!(gate.recv_timeout(limit).is_err()),
                        None => assert!(gate.try_recv().is_err()),
                    })
                    .await
                });
                sleep(Duration::from_millis(5)).await;
                blocking(move || to.send(1)).await.expect("it waits");
                other.await.expect("no panic");
                waits.await.expect("no panic").expect("sent")
            });
            assert_eq!(end.expect("no deadlock"), 1);
        }
    });
}

/// Somebody outside holds a waker, and lets go of it without a word.
#[test]
fn a_waker_that_is_let_go_of_wakes_nobody() {
    within(LONG, || {
        let (tell, told) = mpsc::channel::<Waker>();
        let stranger = std::thread::spawn(move || {
            let waker = told.recv().expect("it comes");
            std::thread::sleep(Duration::from_millis(150));
            drop(waker);
        });
        let end = watched(1, 100).block_on(async move {
            let (_open, gate) = chan::<u8>(0);
            let mut wait = pin!(gate.recv());
            poll_fn(|cx| {
                tell.send(cx.waker().clone()).expect("it waits");
                wait.as_mut().poll(cx).map(|_| ())
            })
            .await;
        });
        assert!(end.is_err());
        stranger.join().expect("no panic");
    });
}

/// A thread outside that waits with a limit, then sends.
type Outside = fn(Sender<u32>);

const LIMIT: Duration = Duration::from_millis(300);

/// Each way to wait with a limit. Afterwards the thread sends what the main G waits for.
const WITH_A_LIMIT: &[(&str, Outside)] = &[
    ("a channel", |to| {
        let (_open, gate) = mpsc::channel::<()>();
        assert!(gate.recv_timeout(LIMIT).is_err());
        to.blocking_send(9).expect("main waits");
    }),
    ("park", |to| {
        std::thread::park_timeout(LIMIT);
        to.blocking_send(9).expect("main waits");
    }),
    ("a condition", |to| {
        let (lock, condition) = (Mutex::new(()), Condvar::new());
        let held = lock.lock().expect("no panic");
        drop(condition.wait_timeout_while(held, LIMIT, |_| true));
        to.blocking_send(9).expect("main waits");
    }),
    ("sleep", |to| {
        std::thread::sleep(LIMIT);
        to.blocking_send(9).expect("main waits");
    }),
    ("a call", |to| {
        // In a blocking call of another runtime.
        let rt = runtime(1);
        let call = blocking(|| {
            let (_open, gate) = mpsc::channel::<()>();
            assert!(gate.recv_timeout(LIMIT).is_err());
        });
        rt.block_on(call).expect("no deadlock");
        to.blocking_send(9).expect("main waits");
    }),
    ("a G", |to| {
        let rt = runtime(1);
        rt.block_on(async move {
            sleep(LIMIT).await;
            to.send(9).await.expect("main waits");
        })
        .expect("no deadlock");
    }),
];

/// By default the other threads of the process are looked at; so each of these has a process of its
/// own, without the threads of the other tests, which wait with limits.
#[test]
fn threads_outside_are_told_apart() {
    const NAME: &str = "deadlocks::threads_outside_are_told_apart";
    for &(what, outside) in WITH_A_LIMIT {
        if is_child(what) {
            let (to, from) = chan::<u32>(0);
            let sender = std::thread::spawn(move || outside(to));
            let got = runtime(2).block_on(async move { from.recv().await });
            assert_eq!(got.expect("it may end by itself"), Some(9));
            sender.join().expect("no panic");
            println!("no deadlock");
            return;
        }
    }
    if is_child("for ever") {
        // A thread and another runtime, with nothing to do, and an own call that sleeps.
        let (_open, gate) = mpsc::channel::<()>();
        std::thread::spawn(move || gate.recv());
        let other = runtime(2);
        other.block_on(yield_now()).expect("no deadlock");
        let end = runtime(2).block_on(async {
            let (to, from) = mpsc::channel::<u8>();
            let call = go(async move { blocking(move || from.recv()).await });
            let got = call.await;
            drop(to);
            got.is_ok()
        });
        assert!(end.is_err(), "all wait for each other");
        println!("no deadlock, but for one");
        return;
    }
    if std::env::var_os("GREYWAVE_TEST_CHILD").is_some() {
        return;
    }
    let all = WITH_A_LIMIT.iter().map(|&(what, _)| what);
    for what in all.chain(["for ever"]) {
        let (status, text) = child_within(NAME, what, LONG);
        let ended = status.is_some_and(|status| status.success());
        assert!(ended && text.contains("no deadlock"), "{what}: {text}");
    }
}
