//! The collector and the scheduler do not obstruct each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use greywave::{Heap, Mutator, Root, blocking, chan, go, sleep, with, yield_now};

use crate::common::{LONG, Node, Stop, is_whole, list, on, run, until};
use crate::support::{Collecting, Stretch, within};

/// Starts itself again and again.
fn respawn(
    stop: Stop,
    count: Arc<AtomicU64>,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        count.fetch_add(1, Ordering::Relaxed);
        if !stop.is_set() {
            let _detached = go(respawn(stop, count));
        }
    })
}

#[test]
fn stops_of_the_world_do_not_meet_in_a_deadlock() {
    run(4, async {
        let (stop, count) = (Stop::default(), Arc::new(AtomicU64::new(0)));
        let _detached = go(respawn(stop.clone(), count.clone()));
        let inside = go(async move {
            let (mut cycles, stretch) = (0, Stretch::of(Duration::from_secs(2)));
            while cycles < 1_000 && !(stretch.is_over() && cycles >= 10) {
                with(Mutator::collect);
                cycles += 1;
                yield_now().await;
            }
            cycles
        });
        let heap = with(|m| m.heap().clone());
        let outside = go(blocking(move || {
            let (mut cycles, stretch) = (0, Stretch::of(Duration::from_secs(2)));
            while cycles < 1_000 && !(stretch.is_over() && cycles >= 10) {
                heap.collect();
                cycles += 1;
            }
            cycles
        }));
        assert!(inside.await.expect("no panic") > 0);
        assert!(outside.await.expect("no panic") > 0);
        let before = count.load(Ordering::Relaxed);
        until("another G", || count.load(Ordering::Relaxed) > before).await;
        stop.set();
    });
}

#[test]
fn a_collection_ends_while_others_compute_and_write_files() {
    use std::io::Write;
    run(1, async {
        let stop = Stop::default();
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let stop = stop.clone();
                go(async move {
                    let mut null = std::fs::File::create("/dev/null").expect("it is there");
                    while !stop.is_set() {
                        null.write_all(b".").expect("it takes anything");
                        with(|m| drop(list(m, 10)));
                        yield_now().await;
                    }
                })
            })
            .collect();
        sleep(Duration::from_millis(10)).await;
        for _ in 0..3 {
            with(Mutator::collect);
        }
        stop.set();
        for writer in writers {
            writer.await.expect("no panic");
        }
    });
}

#[test]
fn who_allocates_gets_on_while_the_collector_never_rests() {
    let heap = Heap::builder().gogc(Some(1)).build().expect("a heap");
    within(LONG, || {
        on(&heap, 1).block_on(async {
            let stop = Stop::default();
            let counts: Arc<[AtomicU64; 3]> = Arc::default();
            let writers: Vec<_> = (0..3)
                .map(|number| {
                    let (stop, counts) = (stop.clone(), counts.clone());
                    go(async move {
                        while !stop.is_set() {
                            with(|m| {
                                let root = list(m, 100);
                                assert!(is_whole(root.get(m), 100));
                                m.safepoint();
                            });
                            counts[number].fetch_add(1, Ordering::Relaxed);
                            yield_now().await;
                        }
                    })
                })
                .collect();
            until("progress of all", || {
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) > 30)
            })
            .await;
            stop.set();
            for writer in writers {
                writer.await.expect("no panic");
            }
        })
    })
    .expect("no deadlock");
    assert!(heap.stats().cycles > 0);
}

#[test]
fn graphs_stay_whole_while_gs_move_from_worker_to_worker() {
    for build in [
        |b: greywave::HeapBuilder| b.verify(true).poison(true),
        |b: greywave::HeapBuilder| b.stress(true),
    ] {
        let heap = build(Heap::builder()).build().expect("a heap");
        within(LONG, || {
            let collecting = Collecting::new(&heap);
            on(&heap, 3)
                .block_on(async {
                    let (to, from) = chan::<Root<Node<'static>>>(4);
                    let race = collecting.race(Duration::from_millis(500));
                    let makers: Vec<_> = (0..8)
                        .map(|_| {
                            let (to, race) = (to.clone(), race.clone());
                            go(async move {
                                let mut lists = 0_u32;
                                while !race.is_over() {
                                    let root = with(|m| list(m, 30));
                                    yield_now().await;
                                    if lists.is_multiple_of(16) {
                                        sleep(Duration::from_micros(200)).await;
                                    }
                                    to.send(root).await.expect("somebody receives");
                                    lists += 1;
                                }
                                lists
                            })
                        })
                        .collect();
                    drop(to);
                    let lookers: Vec<_> = (0..4)
                        .map(|_| {
                            let from = from.clone();
                            go(async move {
                                let mut lists = 0;
                                while let Some(root) = from.recv().await {
                                    assert!(with(|m| is_whole(root.get(m), 30)));
                                    lists += 1;
                                }
                                lists
                            })
                        })
                        .collect();
                    let (mut made, mut seen) = (0, 0);
                    for maker in makers {
                        made += maker.await.expect("no panic");
                    }
                    for looker in lookers {
                        seen += looker.await.expect("every list is whole");
                    }
                    assert_eq!(made, seen);
                })
                .expect("no deadlock");
        });
        heap.verify().expect("a heap that is whole");
    }
}
