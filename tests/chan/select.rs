//! `select!`: which case is chosen, what is evaluated, what the syntax allows.

use std::cell::RefCell;
use std::future::{pending, ready};
use std::pin::pin;
use std::task::{Context, Poll};

use greywave::chan::SendError;
use greywave::{Receiver, Sender, chan, select};

use crate::executor::{CountingWaker, block_on, now, poll_once, yield_now};

fn nil_rx<'a>() -> Option<&'a Receiver<i32>> {
    None
}

fn nil_tx<'a>() -> Option<&'a Sender<i32>> {
    None
}

/// test/chan/select3.go, the cases that wait for ever.
#[test]
fn what_can_never_be_ready_waits_for_ever() {
    assert!(
        now(async {
            select! { _ = recv(nil_rx()) => () }
        })
        .is_none()
    );
    assert!(
        now(async {
            select! { _ = send(nil_tx(), 7) => () }
        })
        .is_none()
    );
    assert!(
        now(async {
            select! { _ = recv(nil_rx()) => (), _ = send(nil_tx(), 7) => () }
        })
        .is_none()
    );
    #[allow(unreachable_code, reason = "that is what is tested")]
    let empty = async {
        select! {}
    };
    assert!(now(empty).is_none());
    let (tx, rx) = chan::<i32>(0);
    assert!(
        now(async {
            select! { _ = recv(&rx) => (), _ = recv(nil_rx()) => () }
        })
        .is_none()
    );
    assert!(
        now(async {
            select! { _ = send(&tx, 1) => () }
        })
        .is_none()
    );
    // It does not meet itself.
    assert!(
        now(async {
            select! { _ = recv(&rx) => (), _ = send(&tx, 7) => () }
        })
        .is_none()
    );
    assert!(
        now(async {
            select! { _ = send(&tx, 7) => (), _ = recv(&rx) => () }
        })
        .is_none()
    );
    assert_eq!(
        (tx.try_send(3).is_err(), rx.try_recv().is_err()),
        (true, true)
    );
}

/// test/chan/select3.go, the cases that do not wait.
#[test]
fn what_is_ready_does_not_wait() {
    let (tx, rx) = chan::<i32>(10);
    // `default` when nothing is ready.
    assert_eq!(
        now(async {
            select! { _ = recv(nil_rx()) => 1, default => 2 }
        }),
        Some(2)
    );
    assert_eq!(
        now(async {
            select! { _ = send(nil_tx(), 7) => 1, default => 2 }
        }),
        Some(2)
    );
    assert_eq!(
        now(async {
            select! { default => 2, _ = recv(&rx) => 1 }
        }),
        Some(2)
    );
    assert_eq!(
        now(async {
            select! { default => 2 }
        }),
        Some(2)
    );
    // What is ready goes before `default`.
    assert_eq!(
        now(async {
            select! { r = send(&tx, 1) => r.is_ok(), default => false }
        }),
        Some(true)
    );
    assert_eq!(
        now(async {
            select! { v = recv(&rx) => v, default => None }
        }),
        Some(Some(1))
    );
    // A buffered send is free; so is a receive of what is there.
    assert_eq!(
        now(async {
            select! { r = send(&tx, 2) => r }
        }),
        Some(Ok(()))
    );
}

#[test]
fn a_closed_channel_is_ready() {
    let (tx, rx) = chan::<i32>(0);
    tx.close().unwrap();
    for _ in 0..10 {
        assert_eq!(
            now(async {
                select! { v = recv(&rx) => v }
            }),
            Some(None)
        );
        assert_eq!(
            now(async {
                select! { _ = recv(nil_rx()) => Ok(()), r = send(&tx, 4) => r }
            }),
            Some(Err(SendError(4)))
        );
    }
}

/// A select that waits ends with what happens first: a value, room, the end of a channel.
#[test]
fn what_happens_first_ends_the_wait() {
    let (tx_a, rx_a) = chan::<i32>(0);
    let (tx_b, rx_b) = chan::<i32>(0);
    let choose = || async {
        select! {
            v = recv(&rx_a) => format!("a {v:?}"),
            r = send(&tx_b, 5) => format!("b {r:?}"),
        }
    };
    for way in 0..3 {
        let mut waiting = pin!(choose());
        let (wakes, waker) = CountingWaker::new();
        let mut cx = Context::from_waker(&waker);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        let expected = match way {
            0 => {
                tx_a.try_send(1).unwrap();
                "a Some(1)"
            }
            1 => {
                assert_eq!(rx_b.try_recv(), Ok(5));
                "b Ok(())"
            }
            _ => {
                tx_a.close().unwrap();
                "a None"
            }
        };
        assert_eq!(wakes.count(), 1);
        // It is decided: nobody else can meet it.
        assert!(rx_b.try_recv().is_err());
        assert_eq!(
            waiting.as_mut().poll(&mut cx),
            Poll::Ready(expected.to_owned())
        );
        assert_eq!(wakes.count(), 1);
    }
    // From now on it need not wait.
    assert_eq!(now(choose()).as_deref(), Some("a None"));
}

/// test/chan/select.go and select5.go: every expression is evaluated once, in order, whatever is
/// chosen.
#[test]
fn expressions_are_evaluated_once_and_in_order() {
    let (tx, rx) = chan::<i32>(1);
    for chosen in 0..4 {
        let log = RefCell::new(Vec::new());
        let note = |name: &'static str| log.borrow_mut().push(name);
        let result = now(async {
            select! {
                _ = recv({ note("rx"); if chosen == 0 { Some(&rx) } else { None } }) => 0,
                _ = send({ note("tx"); if chosen == 1 { Some(&tx) } else { None } }, { note("value"); 1 }) => 1,
                _ = future({
                    note("future");
                    async { if chosen == 2 { } else { pending().await } }
                }) => 2,
                _ = recv({ note("last"); nil_rx() }) => 3,
                default => 3,
            }
        });
        // With nothing in the buffer case 0 is not ready.
        let expected = if chosen == 0 { 3 } else { chosen };
        assert_eq!(result, Some(expected));
        assert_eq!(log.into_inner(), ["rx", "tx", "value", "future", "last"]);
        let _ = rx.try_recv();
    }
}

/// test/chan/select.go: cases that are turned off one by one.
#[test]
fn a_case_can_be_turned_off() {
    let (tx_a, rx_a) = chan::<i32>(2);
    let (tx_b, rx_b) = chan::<i32>(2);
    for i in 0..2 {
        tx_a.try_send(i).unwrap();
        tx_b.try_send(10 + i).unwrap();
    }
    drop((tx_a, tx_b));
    let (mut a, mut b) = (Some(rx_a), Some(rx_b));
    let mut seen = Vec::new();
    block_on(async {
        while a.is_some() || b.is_some() {
            select! {
                v = recv(&a) => match v { Some(v) => seen.push(v), None => a = None },
                v = recv(b.as_ref()) => match v { Some(v) => seen.push(v), None => b = None },
            }
        }
    });
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 10, 11]);
}

/// test/chan/select8.go: `break`, and what else leaves a body.
#[test]
fn a_body_can_leave() {
    let (tx, rx) = chan::<i32>(4);
    let count = async |limit: i32| -> Result<i32, SendError<i32>> {
        let mut n = 0;
        let last = 'out: loop {
            select! {
                r = send(&tx, n) => { r?; n += 1; }
                default => break 'out n,
            }
            select! { _ = recv(nil_rx()) => (), default => {} }
            if n == limit {
                return Ok(-1);
            }
            for _ in 0..2 {
                select! { default => continue }
            }
        };
        Ok(last)
    };
    assert_eq!(now(count(2)), Some(Ok(-1)));
    assert_eq!(now(count(9)), Some(Ok(2)));
    drop(rx);
    assert_eq!(now(count(9)), Some(Err(SendError(0))));
}

/// test/chan/select7.go: a sender in each of its forms meets a receiver in each of its forms.
#[test]
fn every_form_of_send_meets_every_form_of_receive() {
    let (_one, nothing_comes) = chan::<i32>(0);
    let (nobody_takes, _other) = chan::<i32>(0);
    for sender in 0..3 {
        for receiver in 0..3 {
            let (tx, rx) = chan::<i32>(0);
            let send = async {
                match sender {
                    0 => tx.send(1).await,
                    1 => select! { r = send(&tx, 1) => r },
                    _ => select! { r = send(&tx, 1) => r, _ = recv(&nothing_comes) => Ok(()) },
                }
            };
            let recv = async {
                match receiver {
                    0 => rx.recv().await,
                    1 => select! { v = recv(&rx) => v },
                    _ => select! { v = recv(&rx) => v, _ = send(&nobody_takes, 2) => None },
                }
            };
            let (mut send, recv) = (pin!(send), pin!(recv));
            assert!(poll_once(send.as_mut()).is_pending());
            assert_eq!(poll_once(recv), Poll::Ready(Some(1)), "{sender} {receiver}");
            assert_eq!(poll_once(send), Poll::Ready(Ok(())));
        }
    }
}

/// TestSelectDuplicateChannel, and test/chan/select6.go (Go issue 2075): a channel listed twice,
/// and a select that leaves, do not take others out of the queue.
#[test]
fn a_select_that_leaves_takes_only_itself_along() {
    let (tx_a, rx_a) = chan::<i32>(0);
    let (tx_b, rx_b) = chan::<i32>(0);
    let choose = || async {
        select! {
            v = recv(&rx_a) => v,
            v = recv(&rx_a) => v,
            v = recv(&rx_b) => v,
        }
    };
    let mut first = Box::pin(rx_a.recv());
    let mut twice = Box::pin(choose());
    let mut last = Box::pin(rx_a.recv());
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(twice.as_mut()).is_pending());
    assert!(poll_once(last.as_mut()).is_pending());
    tx_b.try_send(2).unwrap();
    assert_eq!(poll_once(twice.as_mut()), Poll::Ready(Some(2)));
    drop(twice);
    tx_a.try_send(1).unwrap();
    tx_a.try_send(3).unwrap();
    assert!(tx_a.try_send(4).is_err());
    assert_eq!(poll_once(first.as_mut()), Poll::Ready(Some(1)));
    assert_eq!(poll_once(last.as_mut()), Poll::Ready(Some(3)));
    // The last in the queue leaves, and the one before it still hears.
    let mut stays = Box::pin(rx_a.recv());
    let mut leaves = Box::pin(choose());
    assert!(poll_once(stays.as_mut()).is_pending());
    assert!(poll_once(leaves.as_mut()).is_pending());
    drop(leaves);
    tx_a.try_send(5).unwrap();
    assert_eq!(poll_once(stays.as_mut()), Poll::Ready(Some(5)));
    assert!(tx_b.try_send(6).is_err());
}

#[test]
fn futures_are_cases() {
    let (tx, rx) = chan::<i32>(1);
    assert_eq!(
        now(async {
            select! { v = future(ready(3)) => v, _ = recv(&rx) => 0 }
        }),
        Some(3)
    );
    // A future that is not ready is kept, by reference.
    let mut slow = Box::pin(async {
        for _ in 0..3 {
            yield_now().await;
        }
        9
    });
    let mut values = Vec::new();
    block_on(async {
        tx.try_send(1).unwrap();
        loop {
            select! {
                v = recv(&rx) => values.extend(v),
                v = future(&mut slow) => { values.push(v); break }
            }
        }
    });
    assert_eq!(values.iter().sum::<i32>(), 10);
    // With `default` it is polled once.
    assert_eq!(
        now(async {
            select! { v = future(pending::<i32>()) => v, default => 4 }
        }),
        Some(4)
    );
}

/// A select that is polled because its future has something new has left its channels for that
/// while, and is back.
#[test]
fn a_select_with_a_future_comes_back_to_its_channels() {
    let (tx, rx) = chan::<i32>(0);
    let mut countdown = 5;
    let mut waiting = pin!(async {
        select! {
            v = recv(&rx) => v,
            _ = future(std::future::poll_fn(|_| {
                countdown -= 1;
                if countdown == 0 { Poll::Ready(()) } else { Poll::Pending }
            })) => None,
        }
    });
    let (wakes, waker) = CountingWaker::new();
    let mut cx = Context::from_waker(&waker);
    for _ in 0..3 {
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
    }
    tx.try_send(8).unwrap();
    assert_eq!(wakes.count(), 1);
    assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(Some(8)));
}

/// What is not chosen is dropped before the body runs.
#[test]
fn values_that_are_not_sent_are_dropped() {
    let value = std::sync::Arc::new(());
    let (tx, rx) = chan(1);
    let (full, _keep) = chan(0);
    now(async {
        select! {
            r = send(&tx, value.clone()) => r.unwrap(),
            _ = send(&full, value.clone()) => unreachable!(),
        }
        assert_eq!(std::sync::Arc::strong_count(&value), 2);
    })
    .unwrap();
    drop(rx);
}

/// TestPseudoRandomSend, TestSelectFairness: among ready cases each is as likely, whatever stands
/// between them.
#[test]
fn the_choice_is_fair() {
    const TRIALS: usize = 10_000;
    let ready: Vec<_> = (0..4)
        .map(|_| {
            let (tx, rx) = chan::<()>(1);
            drop(tx);
            rx
        })
        .collect();
    let (_open, never) = chan::<()>(0);
    let mut chosen = [0_usize; 4];
    block_on(async {
        for _ in 0..TRIALS {
            let case = select! {
                _ = recv(&ready[0]) => 0,
                _ = recv(&never) => unreachable!(),
                _ = recv(&never) => unreachable!(),
                _ = recv(&ready[1]) => 1,
                _ = recv(None::<&Receiver<()>>) => unreachable!(),
                _ = future(ready_future()) => 2,
                _ = recv(&ready[3]) => 3,
                _ = recv(&never) => unreachable!(),
            };
            chosen[case] += 1;
        }
    });
    // Binomial: 10 standard deviations.
    let expected = TRIALS as f64 / 4.0;
    let limit = 10.0 * (TRIALS as f64 * 0.25 * 0.75).sqrt();
    for count in chosen {
        assert!((count as f64 - expected).abs() < limit, "{chosen:?}");
    }
}

async fn ready_future() {}

/// TestPseudoRandomSend: a stream of two values from a select that could send either.
#[test]
fn a_select_sends_either_value() {
    for capacity in [0, 100] {
        let (tx, rx) = chan::<usize>(capacity);
        let mut seen = [0; 2];
        block_on(async {
            for _ in 0..200 {
                let mut waiting = pin!(rx.recv());
                let _ = poll_once(waiting.as_mut());
                select! { r = send(&tx, 0) => r.unwrap(), r = send(&tx, 1) => r.unwrap() }
                seen[waiting.await.unwrap()] += 1;
            }
        });
        assert!(seen[0] > 20 && seen[1] > 20, "{seen:?}");
    }
}
