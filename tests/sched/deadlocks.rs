//! Deadlocks are reported, and nothing else is taken for one.

use std::time::Duration;

use greywave::{DeadlockPolicy, Heap, Runtime, blocking, chan, go, go_named, sleep};

use crate::common::{LONG, runtime};
use crate::support::within;

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
