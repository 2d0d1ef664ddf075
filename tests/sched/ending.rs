//! A runtime ends at any time, whatever its Gs do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Heap, Mutator, blocking, chan, go, sleep, with, yield_now};

use crate::common::{Dropped, LONG, Stop, compute, is_whole, list, on, runtime};
use crate::support::within;

/// Gs of every kind, none of which will end by itself.
fn start_all_kinds(drops: &Arc<AtomicUsize>) -> usize {
    let (open, gate) = chan::<()>(0);
    let (to, from) = chan::<u64>(1);
    let mut started = 0;
    let mut start = |future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let dropped = Dropped(drops.clone());
        started += 1;
        go(async move {
            let _dropped = dropped;
            future.await;
        })
    };
    for number in 0..4 {
        let (gate, open) = (gate.clone(), open.clone());
        start(Box::pin(async move {
            gate.recv().await;
            drop(open);
        }));
        let (to, from) = (to.clone(), from.clone());
        start(Box::pin(
            async move { while to.send(number).await.is_ok() {} },
        ));
        start(Box::pin(
            async move { while from.recv().await.is_some() {} },
        ));
        start(Box::pin(sleep(Duration::from_secs(1_000))));
        start(Box::pin(async {
            loop {
                sleep(Duration::from_micros(50)).await
            }
        }));
        start(Box::pin(async {
            loop {
                yield_now().await
            }
        }));
        start(Box::pin(async {
            loop {
                blocking(|| std::thread::sleep(Duration::from_micros(100))).await
            }
        }));
        start(Box::pin(async {
            loop {
                compute(Duration::from_millis(2));
                yield_now().await;
            }
        }));
        // Longer than a time slice: a spare P stands in.
        start(Box::pin(async {
            loop {
                compute(Duration::from_millis(12));
                yield_now().await;
            }
        }));
        for _ in 0..10 {
            start(Box::pin(async {
                loop {
                    blocking(|| std::thread::sleep(Duration::from_millis(3))).await
                }
            }));
        }
        start(Box::pin(async {
            let mut roots = Vec::new();
            loop {
                roots.push(with(|m| list(m, 20)));
                roots.truncate(10);
                yield_now().await;
            }
        }));
        start(Box::pin(async {
            loop {
                with(Mutator::collect);
                sleep(Duration::from_millis(1)).await;
            }
        }));
        start(Box::pin(async {
            loop {
                go(async { yield_now().await }).await.ok();
            }
        }));
    }
    started
}

/// `GREYWAVE_ROUNDS` says how often.
#[test]
fn a_runtime_ends_whatever_its_gs_do() {
    let rounds = std::env::var("GREYWAVE_ROUNDS").map_or(40, |text| {
        text.parse().expect("GREYWAVE_ROUNDS is a number")
    });
    let heap = Heap::new();
    for round in 0..rounds {
        let drops = Arc::new(AtomicUsize::new(0));
        let counted = drops.clone();
        within(LONG, || {
            let rt = on(&heap, 1 + round as usize % 3);
            let started = rt.block_on(async move {
                let started = start_all_kinds(&counted);
                sleep(Duration::from_millis(round % 5)).await;
                started
            });
            let started = started.expect("no deadlock");
            rt.shutdown(LONG / 2).expect("every G lets go");
            assert_eq!(drops.load(Ordering::Relaxed), started, "round {round}");
        });
    }
    within(LONG, || {
        heap.collect();
        heap.verify().expect("a heap that is whole");
    });
    assert_eq!(heap.stats().live_bytes, 0, "what a G held is garbage");
}

#[test]
fn a_shutdown_names_who_does_not_let_go() {
    within(LONG, || {
        let rt = runtime(1);
        let (stop, begun) = (Stop::default(), Stop::default());
        let handle = rt.go({
            let (stop, begun) = (stop.clone(), begun.clone());
            async move {
                begun.set();
                while !stop.is_set() {
                    std::thread::yield_now();
                }
            }
        });
        while !begun.is_set() {
            std::thread::yield_now();
        }
        let error = rt
            .shutdown(Duration::from_millis(20))
            .expect_err("one runs");
        assert_eq!(error.left().len(), 1, "{error}");
        assert!(
            error.to_string().contains("tests/sched/ending.rs:"),
            "{error}"
        );
        stop.set();
        while !handle.is_finished() {
            std::thread::yield_now();
        }
    });
}

#[test]
fn runtimes_live_side_by_side() {
    within(LONG, || {
        let (heap, other_heap) = (Heap::new(), Heap::new());
        let (one, two, three) = (on(&heap, 2), on(&heap, 1), on(&other_heap, 2));
        let (to, from) = chan::<u64>(0);
        let sender = one.go(async move {
            for number in 0..1_000 {
                to.send(number).await.expect("the other one receives");
            }
        });
        let sum = two.block_on(async move {
            let mut sum = 0;
            while let Some(number) = from.recv().await {
                sum += number;
            }
            sum
        });
        assert_eq!(sum.expect("no deadlock"), 499_500);
        let joined = three.block_on(async move {
            sender.await.expect("no panic");
            with(|m| {
                let root = list(m, 10);
                is_whole(root.get(m), 10)
            })
        });
        assert!(joined.expect("no deadlock"));
    });
}
