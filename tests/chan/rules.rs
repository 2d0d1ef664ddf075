//! One channel: what each operation does when it is open, full, empty, closed.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use greywave::chan::{AlreadyClosed, SendError, TryRecvError, TrySendError};
use greywave::{Receiver, Sender, chan, select};

use crate::executor::{Pool, block_on, now, poll_once};

/// Go's TestChan, up to the parts that need several Gs.
#[test]
fn a_channel_of_any_capacity_blocks_drains_and_closes() {
    for capacity in 0..200 {
        let (tx, rx) = chan::<usize>(capacity);
        assert_eq!((tx.len(), tx.capacity()), (0, capacity));
        assert!(now(rx.recv()).is_none(), "nothing to receive");
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        for i in 0..capacity {
            assert_eq!(now(tx.send(i)), Some(Ok(())));
        }
        assert_eq!((rx.len(), rx.capacity()), (capacity, capacity));
        assert!(now(tx.send(capacity)).is_none(), "no room");
        assert_eq!(tx.try_send(capacity), Err(TrySendError::Full(capacity)));
        assert_eq!(tx.close(), Ok(()));
        for i in 0..capacity {
            assert_eq!(rx.len(), capacity - i);
            assert_eq!(now(rx.recv()), Some(Some(i)));
        }
        for _ in 0..2 {
            assert_eq!(now(rx.recv()), Some(None));
            assert_eq!(rx.try_recv(), Err(TryRecvError::Closed));
        }
    }
}

#[test]
fn close_ends_the_wait_of_receivers() {
    for capacity in [0, 1, 10] {
        let (tx, rx) = chan::<u32>(capacity);
        let mut waiting: Vec<_> = (0..40).map(|_| Box::pin(rx.recv())).collect();
        for recv in &mut waiting {
            assert_eq!(poll_once(recv.as_mut()), Poll::Pending);
        }
        tx.close().unwrap();
        for recv in &mut waiting {
            assert_eq!(poll_once(recv.as_mut()), Poll::Ready(None));
        }
    }
}

#[test]
fn close_gives_waiting_senders_their_value_back() {
    let (tx, rx) = chan(1);
    tx.try_send(0).unwrap();
    let mut waiting: Vec<_> = (1..40).map(|i| Box::pin(tx.send(i))).collect();
    for send in &mut waiting {
        assert_eq!(poll_once(send.as_mut()), Poll::Pending);
    }
    tx.close().unwrap();
    // What was in the buffer is received; what waited was not sent.
    assert_eq!(rx.try_recv(), Ok(0));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Closed));
    for (send, i) in waiting.iter_mut().zip(1..) {
        assert_eq!(poll_once(send.as_mut()), Poll::Ready(Err(SendError(i))));
    }
}

/// The four ways to receive, as test/closedchan.go has them: each gives a value, None for the end,
/// or nothing.
async fn receive(rx: &Receiver<i32>, way: usize) -> Option<Option<i32>> {
    let (_open, never) = chan::<i32>(0);
    match way {
        0 => Some(rx.recv().await),
        1 => match rx.try_recv() {
            Ok(value) => Some(Some(value)),
            Err(TryRecvError::Closed) => Some(None),
            Err(TryRecvError::Empty) => None,
        },
        2 => select! { value = recv(rx) => Some(value), default => None },
        _ => select! {
            _ = recv(&never) => None,
            value = recv(rx) => Some(value),
            default => None,
        },
    }
}

/// The ways to send.
async fn send(tx: &Sender<i32>, way: usize) -> Result<(), i32> {
    let (_open, never) = chan::<i32>(0);
    match way {
        0 => tx.send(7).await.map_err(|SendError(value)| value),
        1 => tx.try_send(7).map_err(TrySendError::into_inner),
        2 => select! { sent = send(tx, 7) => sent.map_err(|e| e.0), default => Ok(()) },
        _ => select! {
            _ = recv(&never) => Ok(()),
            sent = send(tx, 7) => sent.map_err(|e| e.0),
        },
    }
}

/// test/closedchan.go.
#[test]
fn a_closed_channel_ends_receives_and_refuses_sends() {
    for capacity in [0, 2] {
        let (tx, rx) = chan::<i32>(capacity);
        tx.close().unwrap();
        for _ in 0..10 {
            for way in 0..4 {
                assert_eq!(block_on(receive(&rx, way)), Some(None), "way {way}");
                assert_eq!(block_on(send(&tx, way)), Err(7), "way {way}");
            }
        }
        assert!(tx.is_closed() && rx.is_closed() && rx.is_empty());
    }
    for way in 0..4 {
        let (tx, rx) = chan::<i32>(2);
        tx.try_send(5).unwrap();
        tx.close().unwrap();
        assert_eq!(block_on(receive(&rx, way)), Some(Some(5)), "way {way}");
        assert_eq!(block_on(receive(&rx, way)), Some(None), "way {way}");
    }
}

#[test]
fn a_second_close_is_an_error() {
    let (tx, rx) = chan::<u8>(0);
    let other = tx.clone();
    assert_eq!(tx.close(), Ok(()));
    assert_eq!(tx.close(), Err(AlreadyClosed));
    assert_eq!(other.close(), Err(AlreadyClosed));
    // That nobody receives any more closes it too, but nobody has called `close`.
    let (tx, gone) = chan::<u8>(0);
    drop((rx, gone));
    assert!(tx.is_closed());
    assert_eq!(tx.close(), Ok(()));
}

#[test]
fn the_last_sender_closes() {
    let (tx, rx) = chan(3);
    let second = tx.clone();
    tx.try_send(1).unwrap();
    drop(tx);
    assert_eq!(rx.try_recv(), Ok(1));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    let mut waiting = pin!(rx.recv());
    assert_eq!(poll_once(waiting.as_mut()), Poll::Pending);
    second.try_send(2).unwrap();
    drop(second);
    assert_eq!(poll_once(waiting.as_mut()), Poll::Ready(Some(2)));
    assert_eq!(now(rx.recv()), Some(None));
}

#[test]
fn the_last_receiver_makes_sends_fail_and_drops_what_is_left() {
    let value = Arc::new(());
    let (tx, rx) = chan(1);
    let second = rx.clone();
    tx.try_send(value.clone()).unwrap();
    let mut waiting = pin!(tx.send(value.clone()));
    assert!(poll_once(waiting.as_mut()).is_pending());
    drop(rx);
    assert!(!tx.is_closed());
    assert_eq!(Arc::strong_count(&value), 3);
    drop(second);
    assert_eq!(Arc::strong_count(&value), 2, "the buffer is empty");
    assert!(matches!(
        poll_once(waiting.as_mut()),
        Poll::Ready(Err(SendError(_)))
    ));
    assert_eq!(Arc::strong_count(&value), 1);
    assert!(matches!(tx.try_send(value), Err(TrySendError::Closed(_))));
}

/// What is left in a channel is dropped with it.
#[test]
fn every_value_is_dropped_once() {
    let value = Arc::new(());
    let (tx, rx) = chan(4);
    for _ in 0..4 {
        tx.try_send(value.clone()).unwrap();
    }
    let mut waiting = Box::pin(tx.send(value.clone()));
    assert!(poll_once(waiting.as_mut()).is_pending());
    assert!(rx.try_recv().is_ok());
    assert_eq!(
        Arc::strong_count(&value),
        5,
        "the waiting one is in the buffer"
    );
    drop(waiting);
    drop((tx, rx));
    assert_eq!(Arc::strong_count(&value), 1);
}

/// test/chan/nonblock.go: several types, with and without a buffer.
#[test]
fn trying_neither_waits_nor_loses() {
    fn check<T: Clone + PartialEq + std::fmt::Debug>(value: &T) {
        for capacity in [0, 1] {
            let (tx, rx) = chan::<T>(capacity);
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
            if capacity == 0 {
                assert_eq!(
                    tx.try_send(value.clone()),
                    Err(TrySendError::Full(value.clone()))
                );
                let mut recv = pin!(rx.recv());
                assert!(poll_once(recv.as_mut()).is_pending());
                assert_eq!(tx.try_send(value.clone()), Ok(()));
                assert_eq!(poll_once(recv.as_mut()), Poll::Ready(Some(value.clone())));
                let mut send = pin!(tx.send(value.clone()));
                assert!(poll_once(send.as_mut()).is_pending());
                assert_eq!(rx.try_recv().as_ref(), Ok(value));
                assert_eq!(poll_once(send.as_mut()), Poll::Ready(Ok(())));
            } else {
                assert_eq!(tx.try_send(value.clone()), Ok(()));
                assert_eq!(
                    tx.try_send(value.clone()),
                    Err(TrySendError::Full(value.clone()))
                );
                assert_eq!(rx.try_recv().as_ref(), Ok(value));
            }
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        }
    }
    check(&1_i32);
    check(&2_i64);
    check(&true);
    check(&"three".to_owned());
    check(&());
    check(&[7_u64; 100]);
}

/// test/chan/zerosize.go.
#[test]
fn values_without_size_are_counted() {
    let (tx, rx) = chan::<()>(3);
    for _ in 0..3 {
        tx.try_send(()).unwrap();
    }
    assert!(tx.try_send(()).is_err());
    assert_eq!(rx.len(), 3);
    drop(tx);
    assert_eq!((0..9).map_while(|_| rx.try_recv().ok()).count(), 3);
}

/// test/chan/fifo.go, without a buffer: who waits first is served first.
#[test]
fn waiters_are_served_in_their_order() {
    let (tx, rx) = chan(0);
    let mut sends: Vec<_> = (0..10).map(|i| Box::pin(tx.send(i))).collect();
    for send in &mut sends {
        assert!(poll_once(send.as_mut()).is_pending());
    }
    for i in 0..10 {
        assert_eq!(rx.try_recv(), Ok(i));
    }
    let mut recvs: Vec<_> = (0..10).map(|_| Box::pin(rx.recv())).collect();
    for recv in &mut recvs {
        assert!(poll_once(recv.as_mut()).is_pending());
    }
    for i in 0..10 {
        tx.try_send(i).unwrap();
    }
    for (recv, i) in recvs.iter_mut().zip(0..) {
        assert_eq!(poll_once(recv.as_mut()), Poll::Ready(Some(i)));
    }
}

/// A sender that waits gets the place behind the buffer, not before it.
#[test]
fn a_waiting_sender_is_let_in_behind_the_buffer() {
    let (tx, rx) = chan(2);
    tx.try_send(0).unwrap();
    tx.try_send(1).unwrap();
    let mut sends: Vec<_> = (2..5).map(|i| Box::pin(tx.send(i))).collect();
    for send in &mut sends {
        assert!(poll_once(send.as_mut()).is_pending());
    }
    for i in 0..5 {
        assert_eq!(rx.try_recv(), Ok(i));
        assert_eq!(rx.len(), 2.min(4 - i));
    }
}

#[test]
fn threads_wait_by_parking() {
    for capacity in [0, 1, 8] {
        let (tx, rx) = chan(capacity);
        let (back, answers) = chan(capacity);
        let there = thread::spawn(move || {
            while let Some(i) = rx.blocking_recv() {
                back.blocking_send(i + 1_u64).unwrap();
            }
        });
        for i in 0..2000 {
            tx.blocking_send(i).unwrap();
            assert_eq!(answers.blocking_recv(), Some(i + 1));
        }
        drop(tx);
        there.join().unwrap();
        assert_eq!(answers.blocking_recv(), None);
    }
    let (tx, rx) = chan(0);
    drop(rx);
    assert_eq!(tx.blocking_send(3), Err(SendError(3)));
}

/// TestNonblockRecvRace: a value is there, and the channel is being closed.
#[test]
fn a_value_is_seen_while_the_channel_is_closed() {
    let pool = Pool::new(2);
    for _ in 0..3000 {
        let (tx, rx) = chan(1);
        tx.try_send(1).unwrap();
        let received = pool.go(async move { rx.try_recv() });
        tx.close().unwrap();
        assert_eq!(received.wait(), Ok(1));
    }
}

#[test]
fn a_large_type_and_a_borrow_go_through() {
    let text = String::from("borrowed");
    let (tx, rx) = chan::<(&str, [u64; 64])>(0);
    block_on(async {
        let mut recv = pin!(rx.recv());
        assert!(poll_once(recv.as_mut()).is_pending());
        tx.send((&text, [3; 64])).await.unwrap();
        assert_eq!(recv.await, Some((text.as_str(), [3; 64])));
    });
}

#[test]
fn what_is_printed() {
    let (tx, rx) = chan(2);
    tx.try_send('x').unwrap();
    let channel = "Channel { len: 1, capacity: 2, closed: false, .. }";
    assert_eq!(
        format!("{tx:?} {rx:?}"),
        format!("Sender({channel}) Receiver({channel})")
    );
    drop(rx);
    let errors = [
        tx.try_send('y').unwrap_err().to_string(),
        block_on(tx.send('z')).unwrap_err().to_string(),
        TryRecvError::Empty.to_string(),
        AlreadyClosed.to_string(),
    ];
    assert_eq!(
        errors,
        [
            "send on a closed channel",
            "send on a closed channel",
            "the channel is empty",
            "the channel is closed already"
        ]
    );
}
