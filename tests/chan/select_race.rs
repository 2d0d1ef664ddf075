//! Selects against each other on several threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greywave::{Receiver, Sender, chan, select};

use crate::executor::{Pool, block_on};

/// TestNonblockSelectRace, and TestNonblockSelectRace2 with a close: at every moment one of two
/// channels is ready, so `default` is never taken.
#[test]
fn default_is_not_taken_while_a_case_is_ready() {
    for close in [false, true] {
        let pool = Pool::new(1);
        let (jobs, todo) = chan::<(Receiver<i32>, Receiver<i32>)>(1);
        let (done, ends) = chan::<bool>(0);
        pool.go(async move {
            while let Some((a, b)) = todo.recv().await {
                let found = select! {
                    _ = recv(&a) => true,
                    _ = recv(&b) => true,
                    default => false,
                };
                done.send(found).await.unwrap();
            }
        });
        for _ in 0..20_000 {
            let (tx_a, a) = chan(1);
            let (tx_b, b) = chan(1);
            tx_a.try_send(1).unwrap();
            jobs.blocking_send((a.clone(), b)).unwrap();
            // Together with the other thread, as far as two threads are ever together.
            std::hint::spin_loop();
            if close {
                tx_b.close().unwrap();
            } else {
                tx_b.try_send(1).unwrap();
            }
            let _ = a.try_recv();
            assert_eq!(ends.blocking_recv(), Some(true));
        }
    }
}

/// TestSelfSelect: Gs that send to and receive from the same channel in one select; without a
/// buffer nobody receives what it sent itself.
#[test]
fn a_select_receives_only_from_others() {
    for capacity in [0, 10] {
        let pool = Pool::new(4);
        let (tx, rx) = chan::<usize>(capacity);
        let ends: Vec<_> = (0..2)
            .map(|me| {
                let (tx, rx) = (tx.clone(), rx.clone());
                pool.go(async move {
                    for i in 0..2000 {
                        if me == 0 || i % 2 == 0 {
                            select! {
                                r = send(&tx, me) => r.unwrap(),
                                v = recv(&rx) => assert!(capacity > 0 || v != Some(me)),
                            }
                        } else {
                            select! {
                                v = recv(&rx) => assert!(capacity > 0 || v != Some(me)),
                                r = send(&tx, me) => r.unwrap(),
                            }
                        }
                    }
                })
            })
            .collect();
        // One may be left alone by the end: somebody meets it.
        let helper = {
            let (tx, rx) = (tx.clone(), rx.clone());
            std::thread::spawn(move || {
                while !tx.is_closed() {
                    let _ = rx.try_recv();
                    let _ = tx.try_send(9);
                    std::thread::yield_now();
                }
            })
        };
        for end in ends {
            end.wait();
        }
        tx.close().unwrap();
        helper.join().unwrap();
    }
}

/// TestSelectStress: senders and receivers on four channels, by plain operations and by selects
/// that turn finished cases off.
#[test]
fn selects_and_plain_operations_together_lose_nothing() {
    const N: usize = 5_000;
    let pool = Pool::new(4);
    let (txs, rxs): (Vec<Sender<usize>>, Vec<Receiver<usize>>) =
        [0, 0, 2, 3].into_iter().map(chan).unzip();
    let (txs, rxs) = (Arc::new(txs), Arc::new(rxs));
    let mut ends = Vec::new();
    for k in 0..4 {
        let txs = txs.clone();
        ends.push(pool.go(async move {
            for _ in 0..N {
                txs[k].send(0).await.unwrap();
            }
        }));
        let rxs = rxs.clone();
        ends.push(pool.go(async move {
            for _ in 0..N {
                rxs[k].recv().await.unwrap();
            }
        }));
    }
    ends.push(pool.go(async move {
        let mut left = [N; 4];
        let on = |k: usize, left: &[usize; 4]| (left[k] > 0).then_some(k);
        while left != [0; 4] {
            let k = select! {
                r = send(on(3, &left).map(|k| &txs[k]), 0) => { r.unwrap(); 3 }
                r = send(on(2, &left).map(|k| &txs[k]), 0) => { r.unwrap(); 2 }
                r = send(on(0, &left).map(|k| &txs[k]), 0) => { r.unwrap(); 0 }
                r = send(on(1, &left).map(|k| &txs[k]), 0) => { r.unwrap(); 1 }
            };
            left[k] -= 1;
        }
    }));
    ends.push(pool.go(async move {
        let mut left = [N; 4];
        let on = |k: usize, left: &[usize; 4]| (left[k] > 0).then_some(k);
        while left != [0; 4] {
            let k = select! {
                v = recv(on(0, &left).map(|k| &rxs[k])) => { v.unwrap(); 0 }
                v = recv(on(1, &left).map(|k| &rxs[k])) => { v.unwrap(); 1 }
                v = recv(on(2, &left).map(|k| &rxs[k])) => { v.unwrap(); 2 }
                v = recv(on(3, &left).map(|k| &rxs[k])) => { v.unwrap(); 3 }
            };
            left[k] -= 1;
        }
    }));
    for end in ends {
        end.wait();
    }
}

/// test/chan/doubleselect.go: a select that could send each value over four channels sends it over
/// one.
#[test]
fn a_select_sends_its_value_once() {
    const VALUES: usize = 30_000;
    let pool = Pool::new(4);
    let (txs, rxs): (Vec<_>, Vec<_>) = (0..4).map(|_| chan::<usize>(0)).unzip();
    let (out, all) = chan::<usize>(0);
    pool.go(async move {
        for i in 0..VALUES {
            select! {
                r = send(&txs[0], i) => r.unwrap(),
                r = send(&txs[1], i) => r.unwrap(),
                r = send(&txs[2], i) => r.unwrap(),
                r = send(&txs[3], i) => r.unwrap(),
            }
        }
    });
    for rx in rxs {
        let out = out.clone();
        pool.go(async move {
            while let Some(value) = rx.recv().await {
                out.send(value).await.unwrap();
            }
        });
    }
    drop(out);
    let mut seen = vec![false; VALUES];
    block_on(async {
        while let Some(value) = all.recv().await {
            assert!(
                !std::mem::replace(&mut seen[value], true),
                "{value} came twice"
            );
        }
    });
    assert!(seen.into_iter().all(|seen| seen));
}

/// Two Gs that are both in selects over the same two channels, in opposite directions: each meeting
/// needs both.
#[test]
fn selects_meet_selects() {
    const ROUNDS: usize = 20_000;
    let pool = Pool::new(4);
    let (tx_a, rx_a) = chan::<usize>(0);
    let (tx_b, rx_b) = chan::<usize>(0);
    let balance = Arc::new(AtomicUsize::new(0));
    let (b1, b2) = (balance.clone(), balance.clone());
    let one = {
        let (tx_a, rx_b) = (tx_a.clone(), rx_b.clone());
        pool.go(async move {
            for i in 0..ROUNDS {
                select! {
                    r = send(&tx_a, i) => { r.unwrap(); b1.fetch_add(i, Ordering::Relaxed); }
                    v = recv(&rx_b) => { b1.fetch_sub(v.unwrap(), Ordering::Relaxed); }
                }
            }
        })
    };
    let two = pool.go(async move {
        for i in 0..ROUNDS {
            select! {
                r = send(&tx_b, i) => { r.unwrap(); b2.fetch_add(i, Ordering::Relaxed); }
                v = recv(&rx_a) => { b2.fetch_sub(v.unwrap(), Ordering::Relaxed); }
            }
        }
    });
    one.wait();
    two.wait();
    assert_eq!(balance.load(Ordering::Relaxed), 0);
}

/// BenchmarkChanPopular: many selects share one channel, and have one each for themselves.
#[test]
fn a_popular_channel_serves_all() {
    const GS: usize = 100;
    let pool = Pool::new(4);
    let (shared, popular) = chan::<()>(0);
    let mut own = Vec::new();
    let ends: Vec<_> = (0..GS)
        .map(|_| {
            let popular = popular.clone();
            let (tx, rx) = chan::<()>(0);
            own.push(tx);
            pool.go(async move {
                let mut got = 0;
                loop {
                    select! {
                        v = recv(&popular) => if v.is_none() { return got } else { got += 1 },
                        v = recv(&rx) => if v.is_some() { got += 1 } else { return got },
                    }
                }
            })
        })
        .collect();
    block_on(async {
        for round in 0..50 {
            for tx in &own {
                if round % 2 == 0 {
                    tx.send(()).await.unwrap();
                } else {
                    shared.send(()).await.unwrap();
                }
            }
        }
    });
    drop(shared);
    let got: usize = ends.into_iter().map(|end| end.wait()).sum();
    assert_eq!(got, 50 * GS);
    drop(own);
}
