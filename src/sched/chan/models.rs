//! Loom models of what several threads do with a channel at once. They run the real futures.
//!
//! A wake-up that is lost is a deadlock, which ends a model: [`wait`] polls only when it is woken.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Notify;

use crate::sched::chan::error::SendError;
use crate::sched::chan::handle::{Receiver, Sender, chan};
use crate::select;
use crate::sys::model::{Order, explore};

/// A waker that loom knows.
struct Notified(Notify);

impl Wake for Notified {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// Polls until it is ready, after each wake-up.
fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let woken = Arc::new(Notified(Notify::new()));
    let waker = Waker::from(woken.clone());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        woken.0.wait();
    }
}

/// Polls once, and drops what is not ready.
fn give_up<F: Future>(future: F) -> Option<F::Output> {
    match once(pin!(future)) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn two(capacity: usize) -> [(Sender<u32>, Receiver<u32>); 2] {
    [chan(capacity), chan(capacity)]
}

/// A hand-off against a receiver that gives up: the value is received, or comes back for the next.
#[test]
fn loom_chan_hand_off_against_cancel() {
    for capacity in [0, 1] {
        explore(2, move |order| {
            let (tx, rx) = chan(capacity);
            let (patient, rest) = (rx.clone(), rx.clone());
            let (_, first, second) = order.race3(
                move || wait(tx.send(7)),
                move || give_up(rx.recv()).flatten(),
                move || wait(patient.recv()),
            );
            // The sender is gone at the end, so a receiver that waits may be told of the end before the value is given back.
            let got = [first, second, rest.try_recv().ok()];
            assert_eq!(got.into_iter().flatten().sum::<u32>(), 7, "{got:?}");
        });
    }
}

/// The same with a sender that gives up: its value arrives or it does not, as it says.
#[test]
fn loom_chan_receive_against_a_cancelled_send() {
    explore(2, |order| {
        let (tx, rx) = chan(0);
        let value = Arc::new(());
        let there = value.clone();
        let (sent, got) = order.race(
            move || give_up(tx.send(there)),
            // The end comes when the sender is dropped.
            move || wait(rx.recv()),
        );
        if sent.is_some() {
            assert!(got.is_some());
        }
        drop((sent, got));
        assert_eq!(Arc::strong_count(&value), 1);
    });
}

/// Two senders, each to its own channel, and one select over both: one is received, the other not.
#[test]
fn loom_chan_select_has_one_winner() {
    explore(2, |order| {
        let [(tx_a, a), (tx_b, b)] = two(0);
        let ((sent_a, _tx_a), (sent_b, _tx_b), got) = order.race3(
            move || (give_up(tx_a.send(1)) == Some(Ok(())), tx_a),
            move || (give_up(tx_b.send(2)) == Some(Ok(())), tx_b),
            move || {
                give_up(async {
                    select! { v = recv(&a) => v, v = recv(&b) => v }
                })
                .flatten()
            },
        );
        match got {
            // The sender may not have seen it, as it gave up at once.
            Some(1) => assert!(!sent_b),
            Some(2) => assert!(!sent_a),
            // A select that gave up took nothing, or gave it back.
            _ => assert!(got.is_none()),
        }
    });
}

/// Both senders wait, so both channels must be emptied: a select, then a plain receive of the other.
#[test]
fn loom_chan_select_loses_no_sender() {
    explore(1, |order| {
        let [(tx_a, a), (tx_b, b)] = two(0);
        let (sent_a, sent_b, sum) = order.race3(
            move || wait(tx_a.send(1)),
            move || wait(tx_b.send(2)),
            move || {
                let first = wait(async {
                    select! { v = recv(&a) => v, v = recv(&b) => v }
                });
                let other = if first == Some(1) { &b } else { &a };
                first.unwrap() + wait(other.recv()).unwrap()
            },
        );
        assert_eq!((sent_a, sent_b, sum), (Ok(()), Ok(()), 3));
    });
}

/// Two selects over the same two channels, in opposite directions: they meet in one of them.
#[test]
fn loom_chan_select_meets_select() {
    explore(2, |order| {
        let [(tx_a, a), (tx_b, b)] = two(0);
        let (one, other) = order.race(
            move || {
                wait(async {
                    select! { r = send(&tx_a, 1) => r.map(|()| 1), v = recv(&b) => Ok(v.unwrap()) }
                })
            },
            move || {
                wait(async {
                    select! { r = send(&tx_b, 2) => r.map(|()| 2), v = recv(&a) => Ok(v.unwrap()) }
                })
            },
        );
        assert!(one == other && one.is_ok(), "{one:?} {other:?}");
    });
}

/// Two selects over two channels with a buffer, in opposite directions: a value that is taken lets in a sender that is itself
/// a select, which does the same in the other channel. A third drains the one and fills the other.
#[test]
fn loom_chan_selects_let_each_other_in() {
    explore(1, |order| {
        let [(tx_x, x), (tx_y, y)] = two(1);
        tx_x.try_send(1).unwrap();
        let (drain, fill) = (x.clone(), tx_y.clone());
        let exchange = |to: Sender<u32>, from: Receiver<u32>| {
            move || {
                wait(async {
                    select! { r = send(&to, 5) => r.is_ok(), v = recv(&from) => v.is_some() }
                });
                (to, from)
            }
        };
        // Whoever comes first gets what there is; that all of them go on is what this is about.
        drop(order.race3(exchange(tx_y, x), exchange(tx_x, y), move || {
            (drain.try_recv(), fill.try_send(2), drain, fill)
        }));
    });
}

/// Close against a send that waits, or is about to: it is received, or comes back.
#[test]
fn loom_chan_close_against_send() {
    for capacity in [0, 1] {
        explore(2, move |order| {
            let (tx, rx) = chan(capacity);
            let closer = tx.clone();
            let (sent, closed, got) = order.race3(
                move || wait(tx.send(7)),
                move || closer.close(),
                move || wait(rx.recv()),
            );
            assert_eq!(closed, Ok(()));
            match sent {
                Ok(()) => assert_eq!(got, Some(7)),
                Err(SendError(value)) => assert_eq!((value, got), (7, None)),
            }
        });
    }
}

/// Close by two, and a select that waits.
#[test]
fn loom_chan_close_against_close_and_select() {
    explore(2, |order| {
        let [(tx_a, a), (tx_b, b)] = two(0);
        let again = tx_a.clone();
        let (first, second, got) = order.race3(
            move || tx_a.close(),
            move || again.close(),
            move || {
                wait(async {
                    select! { v = recv(&a) => v, v = recv(&b) => v }
                })
            },
        );
        assert!(first.is_ok() != second.is_ok());
        assert_eq!(got, None);
        drop(tx_b);
    });
}

/// TestNonblockSelectRace: the second channel is filled before the first is emptied, so `default` is never right.
#[test]
fn loom_chan_default_was_right_at_one_moment() {
    explore(2, |order| {
        let [(tx_a, a), (tx_b, b)] = two(1);
        tx_a.try_send(1).unwrap();
        let (also_a, _also_b) = (a.clone(), b.clone());
        let (_, found) = order.race(
            move || {
                tx_b.try_send(2).unwrap();
                (also_a.try_recv(), tx_b)
            },
            move || {
                wait(async {
                    select! { v = recv(&a) => v, v = recv(&b) => v, default => None }
                })
            },
        );
        assert!(found.is_some());
    });
}

/// A select whose other case is a future withdraws while that is polled, and misses nothing.
#[test]
fn loom_chan_withdrawn_select_comes_back() {
    explore(2, |order| {
        let (tx, rx) = chan(0);
        let (sent, got) = order.race(
            move || wait(tx.send(7)),
            move || {
                let mut polls = 0;
                let mut waiting = pin!(async {
                    select! {
                        v = recv(&rx) => v,
                        _ = future(std::future::pending::<()>()) => None,
                    }
                });
                // Polled for no reason; then as it is woken.
                while polls < 2 {
                    polls += 1;
                    if let Poll::Ready(got) = once(waiting.as_mut()) {
                        return got;
                    }
                }
                wait(waiting)
            },
        );
        assert_eq!((sent, got), (Ok(()), Some(7)));
    });
}

/// The last sender goes while a receiver waits; the last receiver goes while a sender waits.
#[test]
fn loom_chan_last_handles() {
    explore(2, |order: Order| {
        let (tx, rx) = chan::<u32>(1);
        let second = tx.clone();
        let (_, _, got) = order.race3(
            move || drop(tx),
            move || second.try_send(3),
            move || (wait(rx.recv()), wait(rx.recv())),
        );
        assert_eq!(got, (Some(3), None));
    });
}
