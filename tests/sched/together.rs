//! As many Gs run at once as there are processors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use greywave::{Heap, blocking, chan, go, sleep, with, yield_now};

use crate::common::{LONG, compute, is_whole, list, on, run, runtime, until};
use crate::support::{Watch, within};

/// Gs that can only end if all of them run at the same time: each waits for its turn without an
/// await.
async fn all_at_once(gs: u32) {
    let turn = Arc::new(AtomicU32::new(0));
    let handles: Vec<_> = (0..gs)
        .map(|number| {
            let turn = turn.clone();
            go(async move {
                for round in 0..3 {
                    let mine = round * gs + number;
                    while turn.load(Ordering::Acquire) != mine {
                        // For a machine with fewer processors than workers; the scheduler does not
                        // notice.
                        std::thread::yield_now();
                    }
                    turn.store(mine + 1, Ordering::Release);
                }
            })
        })
        .collect();
    for handle in handles {
        handle.await.expect("no panic");
    }
}

#[test]
fn as_many_gs_run_at_once_as_there_are_procs() {
    run(4, async {
        for _ in 0..10 {
            // The main G waits, so its P is free for the fourth.
            all_at_once(4).await;
        }
    });
}

#[test]
fn they_run_at_once_after_a_time_of_sleep_and_of_load() {
    run(4, async {
        for _ in 0..10 {
            // Everybody gets up and lies down.
            let load: Vec<_> = (0..64)
                .map(|_| go(async { compute(Duration::from_micros(20)) }))
                .collect();
            for handle in load {
                handle.await.expect("no panic");
            }
            sleep(Duration::from_millis(3)).await;
            all_at_once(4).await;
            // With a timer that will wake one of them.
            let timer = go(sleep(Duration::from_millis(1)));
            all_at_once(4).await;
            timer.await.expect("no panic");
        }
    });
}

#[test]
fn each_of_many_gs_runs_to_its_end_once() {
    const GS: usize = 100_000;
    let counts: Arc<Vec<AtomicU32>> = Arc::new((0..GS).map(|_| AtomicU32::new(0)).collect());
    let seen = counts.clone();
    run(3, async move {
        let (done, all) = chan::<usize>(16);
        // Started from several Gs, so that they are stolen and overflow.
        for part in 0..10 {
            let (counts, done) = (counts.clone(), done.clone());
            let _detached = go(async move {
                for g in (part..GS).step_by(10) {
                    let (counts, done) = (counts.clone(), done.clone());
                    let _detached = go(async move {
                        counts[g].fetch_add(1, Ordering::Relaxed);
                        if g % 100 == 0 {
                            yield_now().await;
                            done.send(g).await.expect("main receives");
                        }
                    });
                }
            });
        }
        drop(done);
        let mut sum = 0;
        while let Some(g) = all.recv().await {
            sum += g;
        }
        assert_eq!(sum, (0..GS).step_by(100).sum::<usize>());
        until("the end of all", || {
            counts
                .iter()
                .all(|count| count.load(Ordering::Relaxed) == 1)
        })
        .await;
    });
    assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
}

#[test]
fn a_thousand_procs() {
    let heap = Heap::new();
    within(LONG, || {
        let rt = on(&heap, 1024);
        assert_eq!(rt.procs(), 1024);
        let whole = rt.block_on(async {
            let handles: Vec<_> = (0..5_000)
                .map(|_| {
                    go(async {
                        let root = with(|m| list(m, 20));
                        yield_now().await;
                        with(|m| is_whole(root.get(m), 20))
                    })
                })
                .collect();
            let heap = with(|m| m.heap().clone());
            blocking(move || heap.collect()).await;
            let mut whole = 0;
            for handle in handles {
                whole += usize::from(handle.await.expect("no panic"));
            }
            whole
        });
        assert_eq!(whole.expect("no deadlock"), 5_000);
    });
    heap.verify().expect("a heap that is whole");
}

#[test]
fn a_runtime_says_how_many_gs_there_are() {
    within(LONG, || {
        let rt = runtime(2);
        assert!(rt.is_empty());
        let (open, gate) = chan::<()>(0);
        rt.block_on({
            let gate = gate.clone();
            async move {
                for _ in 0..100 {
                    let gate = gate.clone();
                    let _detached = go(async move { gate.recv().await });
                }
                yield_now().await;
            }
        })
        .expect("no deadlock");
        assert_eq!(rt.len(), 100);
        assert_eq!(rt.dump().len(), 100);
        drop(open);
        let watch = Watch::begin();
        while !rt.is_empty() {
            watch.check("the end of all Gs");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}
