//! Small programs of many Gs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use greywave::{Receiver, chan, select};

use crate::executor::{Pool, block_on, yield_now};

/// The end of TestChan: 100 numbers in order; then 4 producers and 4 consumers of the same numbers.
#[test]
fn numbers_arrive_in_order_and_as_often_as_they_were_sent() {
    let pool = Pool::new(4);
    for capacity in (0..200).step_by(13).chain([1, 2, 3]) {
        let (tx, rx) = chan(capacity);
        let sent = pool.go(async move {
            for i in 0..100 {
                tx.send(i).await.unwrap();
            }
        });
        block_on(async {
            for i in 0..100 {
                assert_eq!(rx.recv().await, Some(i));
            }
            sent.await;
            assert_eq!(rx.recv().await, None);
        });

        const PRODUCERS: usize = 4;
        const NUMBERS: usize = 200;
        let (tx, rx) = chan(capacity);
        let consumers: Vec<_> = (0..4)
            .map(|_| {
                let rx = rx.clone();
                pool.go(async move {
                    let mut seen = BTreeMap::new();
                    for _ in 0..NUMBERS {
                        *seen.entry(rx.recv().await.unwrap()).or_insert(0) += 1;
                    }
                    seen
                })
            })
            .collect();
        for _ in 0..PRODUCERS {
            let tx = tx.clone();
            pool.go(async move {
                for i in 0..NUMBERS {
                    tx.send(i).await.unwrap();
                }
            });
        }
        let mut all: BTreeMap<usize, usize> = BTreeMap::new();
        for consumer in consumers {
            for (number, times) in consumer.wait() {
                *all.entry(number).or_default() += times;
            }
        }
        assert!(all.len() == NUMBERS && all.values().all(|&times| times == PRODUCERS));
        assert_eq!((tx.len(), rx.len()), (0, 0));
    }
}

/// TestMultiConsumer: a sum over many workers, whose outputs one channel collects.
#[test]
fn many_consumers_share_the_work() {
    const WORKERS: u64 = 23;
    const ITEMS: u64 = 50_000;
    const PRIMES: [u64; 4] = [2, 3, 5, 7];
    let pool = Pool::new(4);
    let (work, jobs) = chan::<u64>(WORKERS as usize / 2);
    let (out, results) = chan::<u64>(WORKERS as usize);
    for i in 0..WORKERS {
        let (jobs, out) = (jobs.clone(), out.clone());
        pool.go(async move {
            while let Some(job) = jobs.recv().await {
                if PRIMES[i as usize % 4] == job {
                    yield_now().await;
                }
                out.send(job).await.unwrap();
            }
        });
    }
    drop((jobs, out));
    pool.go(async move {
        for i in 0..ITEMS {
            work.send(PRIMES[i as usize % 4]).await.unwrap();
        }
    });
    let (mut count, mut sum) = (0, 0);
    block_on(async {
        while let Some(result) = results.recv().await {
            count += 1;
            sum += result;
        }
    });
    let expected: u64 = (0..ITEMS).map(|i| PRIMES[i as usize % 4]).sum();
    assert_eq!((count, sum), (ITEMS, expected));
}

/// test/chan/fifo.go and test/chan/goroutines.go: a chain of Gs, each of which passes on what it
/// gets.
#[test]
fn a_long_chain_passes_values_on_in_order() {
    const LENGTH: usize = 10_000;
    let pool = Pool::new(3);
    let (first, mut last) = chan::<usize>(0);
    for _ in 0..LENGTH {
        let (tx, rx) = chan(0);
        let before = std::mem::replace(&mut last, rx);
        pool.go(async move {
            while let Some(value) = before.recv().await {
                tx.send(value + 1).await.unwrap();
            }
        });
    }
    let feeder = pool.go(async move {
        for i in 0..5 {
            first.send(i).await.unwrap();
        }
    });
    block_on(async {
        for i in 0..5 {
            assert_eq!(last.recv().await, Some(i + LENGTH));
        }
        assert_eq!(last.recv().await, None);
        feeder.await;
    });
}

/// test/chan/sieve1.go, and sieve2 with a buffer.
#[test]
fn a_chain_of_filters_finds_the_primes() {
    let pool = Arc::new(Pool::new(3));
    for capacity in [0, 1] {
        let (tx, numbers) = chan::<u32>(capacity);
        pool.go(async move {
            for i in 2.. {
                if tx.send(i).await.is_err() {
                    return;
                }
            }
        });
        let primes = block_on(async {
            let mut primes = Vec::new();
            let mut source = numbers;
            while primes.len() < 60 {
                let prime = source.recv().await.unwrap();
                primes.push(prime);
                let (tx, rx) = chan(capacity);
                let unfiltered = std::mem::replace(&mut source, rx);
                pool.go(async move {
                    while let Some(i) = unfiltered.recv().await {
                        if i % prime != 0 && tx.send(i).await.is_err() {
                            return;
                        }
                    }
                });
            }
            primes
        });
        assert_eq!(primes[..5], [2, 3, 5, 7, 11]);
        assert_eq!(primes[59], 281);
    }
}

/// A demand-driven network, as in test/chan/powser1.go: a series is asked for its next term, and
/// forks.
#[test]
fn series_are_computed_on_demand() {
    type Series = Receiver<i64>;
    fn series(pool: &Pool, f: impl Fn(i64) -> i64 + Send + 'static) -> Series {
        let (tx, rx) = chan(0);
        pool.go(async move {
            for i in 0.. {
                if tx.send(f(i)).await.is_err() {
                    return;
                }
            }
        });
        rx
    }
    fn add(pool: &Pool, a: Series, b: Series) -> Series {
        let (tx, rx) = chan(0);
        pool.go(async move {
            // Whichever term comes first, as the network of the original does.
            loop {
                let sum = select! {
                    x = recv(&a) => x.unwrap() + b.recv().await.unwrap(),
                    y = recv(&b) => y.unwrap() + a.recv().await.unwrap(),
                };
                if tx.send(sum).await.is_err() {
                    return;
                }
            }
        });
        rx
    }
    let pool = Pool::new(3);
    let mut total = series(&pool, |i| i);
    for _ in 0..30 {
        total = add(&pool, total, series(&pool, |i| i * i));
    }
    block_on(async {
        for i in 0..200 {
            assert_eq!(total.recv().await, Some(i + 30 * i * i));
        }
    });
}

/// TestChanSendBarrier and TestChanSendSelectBarrier: boxes go there and back, with other
/// allocations in between.
#[test]
fn boxes_survive_requests_and_responses() {
    const GS: usize = 50;
    const ROUNDS: u64 = 200;
    for by_select in [false, true] {
        let pool = Pool::new(4);
        let done: Vec<_> = (0..GS)
            .map(|_| {
                let (ask, asked) = chan::<Box<u64>>(0);
                let (answer, answered) = chan::<Box<u64>>(0);
                pool.go(async move {
                    while let Some(question) = asked.recv().await {
                        let reply = Box::new(*question + 1);
                        if by_select {
                            select! { sent = send(&answer, reply) => sent.unwrap() }
                        } else {
                            answer.send(reply).await.unwrap();
                        }
                    }
                });
                pool.go(async move {
                    for i in 0..ROUNDS {
                        let _garbage = vec![i; 33];
                        let got = if by_select {
                            select! { sent = send(&ask, Box::new(i)) => sent.unwrap() }
                            select! { got = recv(&answered) => got }
                        } else {
                            ask.send(Box::new(i)).await.unwrap();
                            answered.recv().await
                        };
                        assert_eq!(got, Some(Box::new(i + 1)));
                    }
                })
            })
            .collect();
        for end in done {
            end.wait();
        }
    }
}

/// A channel as a semaphore (BenchmarkChanSem), held by more Gs than it admits.
#[test]
fn a_buffer_counts_who_is_inside() {
    let pool = Pool::new(4);
    let (tx, rx) = chan(3);
    let inside = Arc::new(AtomicU64::new(0));
    let ends: Vec<_> = (0..40)
        .map(|_| {
            let (tx, rx, inside) = (tx.clone(), rx.clone(), inside.clone());
            pool.go(async move {
                for _ in 0..100 {
                    tx.send(()).await.unwrap();
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                    yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    rx.recv().await.unwrap();
                }
            })
        })
        .collect();
    for end in ends {
        end.wait();
    }
}
