//! A G that does not yield keeps no other G from running for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Heap, Runtime, blocking, go, sleep, with, yield_now};

use crate::common::{LONG, Stop, compute, is_whole, list, run, runtime};
use crate::support::patience::processor_time;
use crate::support::{Watch, within};

/// The processor time of hogs: it goes on only while they run, however busy the machine is.
#[derive(Clone, Default)]
struct Spent(Arc<AtomicU64>);

impl Spent {
    /// Runs a step of a hog.
    fn by(&self, step: impl FnOnce()) {
        let before = processor_time();
        step();
        let spent = (processor_time() - before).as_nanos() as u64;
        // Relaxed: a sum.
        self.0.fetch_add(spent, Ordering::Relaxed);
    }

    fn so_far(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// For how long hogs on every P compute, at most, while one timer of a millisecond is waited for:
/// the processor time of one of them. If nobody makes room, the timer never fires, and the watchdog
/// of `run` ends the test.
fn lateness(procs: usize, hog: impl Fn(&Stop, &Spent) + Copy + Send + 'static) -> Duration {
    run(procs, async move {
        let (stop, spent) = (Stop::default(), Spent::default());
        let hogs: Vec<_> = (0..procs)
            .map(|_| {
                let (stop, spent) = (stop.clone(), spent.clone());
                go(async move { hog(&stop, &spent) })
            })
            .collect();
        let mut latest = Duration::ZERO;
        for _ in 0..40 {
            let begin = spent.so_far();
            sleep(Duration::from_millis(1)).await;
            latest = latest.max(spent.so_far() - begin);
        }
        stop.set();
        for hog in hogs {
            hog.await.expect("no panic");
        }
        latest / procs as u32
    })
}

/// The least of three tries, or the first that will do: the monitor, too, waits for a processor.
fn least_lateness(procs: usize, hog: impl Fn(&Stop, &Spent) + Copy + Send + 'static) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..3 {
        least = least.min(lateness(procs, hog));
        if least < LATE {
            break;
        }
    }
    least
}

/// 50 slices. What is exact here, `sched hog` of the benchmarks measures.
const LATE: Duration = Duration::from_millis(500);

#[test]
fn a_timer_fires_while_a_g_computes_and_does_not_await() {
    for procs in [1, 2] {
        let late = least_lateness(procs, |stop, spent| {
            while !stop.is_set() {
                spent.by(|| compute(Duration::from_micros(100)));
            }
        });
        println!("{procs} procs: {late:?} of processor time at most");
        assert!(late < LATE, "{late:?}");
    }
}

#[test]
fn a_timer_fires_while_a_g_allocates_and_does_not_await() {
    for procs in [1, 2] {
        let late = least_lateness(procs, |stop, spent| {
            with(|m| {
                while !stop.is_set() {
                    spent.by(|| (0..20).for_each(|_| drop(list(m, 10))));
                    m.safepoint();
                }
            });
        });
        println!("{procs} procs: {late:?} of processor time at most");
        assert!(late < LATE, "{late:?}");
    }
}

/// Spare Ps come and go; whoever was looking for work with one is counted out.
#[test]
fn nobody_looks_for_work_when_all_is_quiet() {
    within(LONG, || {
        let rt = runtime(4);
        for round in 0..12_u64 {
            rt.block_on(async {
                let load: Vec<_> = (0..9)
                    .map(|_| {
                        go(async move {
                            compute(Duration::from_millis(11 + round % 3));
                            for _ in 0..30 {
                                let small = go(async { compute(Duration::from_micros(5)) });
                                sleep(Duration::from_micros(30)).await;
                                small.await.expect("no panic");
                            }
                        })
                    })
                    .collect();
                for g in load {
                    g.await.expect("no panic");
                }
            })
            .expect("no deadlock");
            let watch = Watch::begin();
            while rt.stats().spinning_threads > 0 {
                watch.check(&format!("rest: {:?}", rt.stats()));
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
}

#[test]
fn a_hog_lets_collections_through() {
    run(1, async {
        let stop = Stop::default();
        let hog = {
            let stop = stop.clone();
            // Not in `with`: it is no mutator.
            go(async move {
                while !stop.is_set() {
                    compute(Duration::from_micros(100));
                }
            })
        };
        let heap = with(|m| m.heap().clone());
        for _ in 0..3 {
            let heap = heap.clone();
            blocking(move || heap.collect()).await;
        }
        stop.set();
        hog.await.expect("no panic");
    });
}

#[test]
fn many_blocking_calls_do_not_keep_others_from_running() {
    const CALLS: usize = 10_000;
    within(LONG, || {
        let rt = Runtime::builder(&Heap::new())
            .procs(2)
            .max_threads(300)
            .build()
            .expect("a runtime");
        rt.block_on(async {
            let now = Arc::new(AtomicUsize::new(0));
            let most = Arc::new(AtomicUsize::new(0));
            let ticks = Arc::new(AtomicUsize::new(0));
            let calls: Vec<_> = (0..CALLS)
                .map(|_| {
                    let (now, most, ticks) = (now.clone(), most.clone(), ticks.clone());
                    go(blocking(move || {
                        most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(20));
                        // They stay until there are many, and until others have run beside them.
                        let watch = Watch::begin();
                        while most.load(Ordering::Relaxed) < 50
                            || ticks.load(Ordering::Relaxed) < 20
                        {
                            watch.check_or_abort("50 calls at once, and 20 ticks beside them,");
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        now.fetch_sub(1, Ordering::Relaxed);
                    }))
                })
                .collect();
            while calls.iter().any(|call| !call.is_finished()) {
                sleep(Duration::from_millis(1)).await;
                with(|m| drop(list(m, 10)));
                ticks.fetch_add(1, Ordering::Relaxed);
            }
            for call in calls {
                call.await.expect("no panic");
            }
            let most = most.load(Ordering::Relaxed);
            assert!((50..=300).contains(&most), "{most} calls at once");
        })
        .expect("no deadlock");
    });
}

/// Who waits for a thread and is aborted does not take the next one's turn along.
#[test]
fn an_aborted_g_leaves_the_line_for_a_thread() {
    for called in [false, true] {
        within(LONG, || {
            let rt = Runtime::builder(&Heap::new())
                .procs(1)
                .max_threads(2)
                .build()
                .expect("a runtime");
            rt.block_on(async move {
                let (begun, end) = (Stop::default(), Stop::default());
                let (now, until) = (begun.clone(), end.clone());
                let first = go(blocking(move || {
                    now.set();
                    while !until.is_set() {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }));
                while !begun.is_set() {
                    yield_now().await;
                }
                let second = go(blocking(|| 2));
                let third = go(blocking(|| 3));
                for _ in 0..10 {
                    yield_now().await;
                }
                if called {
                    end.set();
                    while !first.is_finished() {
                        std::hint::spin_loop();
                    }
                }
                second.abort();
                end.set();
                let second = second.await;
                assert!(called || second.is_err());
                assert_eq!(third.await.expect("its turn comes"), 3);
                first.await.expect("no panic");
            })
            .expect("no deadlock");
        });
    }
}

#[test]
fn a_blocking_call_in_a_section_lets_collections_and_others_through() {
    run(1, async {
        let other = go(async {
            for _ in 0..100 {
                yield_now().await;
            }
        });
        with(|m| {
            let root = list(m, 100);
            let heap = m.heap().clone();
            m.blocking(|| {
                heap.collect();
                let watch = Watch::begin();
                while !other.is_finished() {
                    watch.check("the P, which stays with this M,");
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            assert!(is_whole(root.get(m), 100));
        });
        other.await.expect("no panic");
    });
}
