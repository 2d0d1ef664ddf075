//! Panics, aborts and outputs come back through handles.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Heap, Mutator, chan, go, sleep, with, yield_now};

use crate::common::{Dropped, LONG, Stop, is_whole, list, on, run, runtime, until};
use crate::support::within;

#[test]
fn a_panic_comes_back_through_the_handle() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = drops.clone();
    run(2, async move {
        for waits in [false, true] {
            let dropped = Dropped(counted.clone());
            let handle = go(async move {
                let _dropped = dropped;
                if waits {
                    sleep(Duration::from_millis(1)).await;
                }
                panic!("number {}", std::hint::black_box(7));
            });
            let error = handle.await.expect_err("it panics");
            assert!(error.is_panic() && !error.is_cancelled());
            assert_eq!(error.to_string(), "the G panicked: number 7");
            let payload = error.into_panic().expect("a panic");
            assert_eq!(
                payload.downcast_ref::<String>().map(String::as_str),
                Some("number 7")
            );
        }
        // Nobody looks at this one; the worker lives on.
        let _detached = go(async { panic!("unseen") });
        yield_now().await;
        assert_eq!(go(async { 1 }).await.expect("no panic"), 1);
    });
    assert_eq!(drops.load(Ordering::Relaxed), 2);
}

#[test]
fn a_panic_in_a_section_leaves_the_heap_to_the_next_g() {
    let heap = Heap::new();
    within(LONG, || {
        on(&heap, 1).block_on(async {
            let error = go(async {
                with(|m| {
                    let _garbage = list(m, 10);
                    panic!("in a section");
                })
            })
            .await
            .expect_err("it panics");
            assert!(error.is_panic());
            let root = with(|m| list(m, 10));
            with(Mutator::collect);
            assert!(with(|m| is_whole(root.get(m), 10)));
        })
    })
    .expect("no deadlock");
    heap.verify().expect("a heap that is whole");
}

#[test]
fn a_panic_of_the_main_g_comes_out_of_block_on() {
    within(LONG, || {
        let rt = runtime(2);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            rt.block_on(async {
                yield_now().await;
                panic!("main");
            })
        }));
        let payload = panicked.expect_err("it panics");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"main"));
        assert_eq!(rt.block_on(async { 3 }).expect("no deadlock"), 3);
    });
}

#[test]
fn an_aborted_g_is_dropped_where_it_waits() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = drops.clone();
    run(2, async move {
        let (_open, gate) = chan::<()>(0);
        let handles: Vec<_> = (0..100)
            .map(|_| {
                let (gate, dropped) = (gate.clone(), Dropped(counted.clone()));
                go(async move {
                    let _dropped = dropped;
                    gate.recv().await
                })
            })
            .collect();
        sleep(Duration::from_millis(5)).await;
        for handle in &handles {
            handle.abort();
            handle.abort();
        }
        for handle in handles {
            let error = handle.await.expect_err("it was aborted");
            assert!(error.is_cancelled(), "{error}");
        }
        assert_eq!(counted.load(Ordering::Relaxed), 100);

        // One that runs ends where it awaits next; one that has ended has its result.
        let (stop, begun) = (Stop::default(), Stop::default());
        let busy = {
            let (stop, begun, dropped) = (stop.clone(), begun.clone(), Dropped(counted.clone()));
            go(async move {
                let _dropped = dropped;
                begun.set();
                while !stop.is_set() {
                    std::thread::yield_now();
                }
                sleep(Duration::from_secs(1_000)).await;
            })
        };
        until("the start", || begun.is_set()).await;
        busy.abort();
        assert!(!busy.is_finished());
        stop.set();
        assert!(busy.await.expect_err("it was aborted").is_cancelled());
        let done = go(async { 5 });
        until("the end", || done.is_finished()).await;
        done.abort();
        assert_eq!(done.await.expect("it had ended"), 5);
    });
    assert_eq!(drops.load(Ordering::Relaxed), 101);
}

#[test]
fn a_g_goes_on_without_its_handle() {
    run(2, async {
        let (to, from) = chan(0);
        drop(go(async move {
            sleep(Duration::from_millis(2)).await;
            to.send(11).await.expect("main receives");
        }));
        assert_eq!(from.recv().await, Some(11));
    });
}

#[test]
fn an_output_that_nobody_takes_is_dropped() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = drops.clone();
    run(2, async move {
        for _ in 0..50 {
            let output = Dropped(counted.clone());
            drop(go(async move { output }));
            let output = Dropped(counted.clone());
            let handle = go(async move { output });
            until("the end", || handle.is_finished()).await;
            drop(handle);
        }
        until("all drops", || counted.load(Ordering::Relaxed) == 100).await;
    });
    assert_eq!(drops.load(Ordering::Relaxed), 100);
}
