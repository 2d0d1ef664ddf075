//! Futures that are dropped while they wait, polled when nothing has happened, or polled with
//! another waker.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use greywave::chan::TryRecvError;
use greywave::{chan, select};

use crate::executor::{CountingWaker, Pool, block_on, now, poll_once, yield_now};

#[test]
fn a_dropped_send_sends_nothing() {
    let value = Arc::new(());
    let (tx, rx) = chan(0);
    let mut send = Box::pin(tx.send(value.clone()));
    assert!(poll_once(send.as_mut()).is_pending());
    drop(send);
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(Arc::strong_count(&value), 1);
    // Dropped after the value was taken: it was sent.
    let mut send = Box::pin(tx.send(value.clone()));
    assert!(poll_once(send.as_mut()).is_pending());
    assert_eq!(rx.try_recv(), Ok(value.clone()));
    drop(send);
}

#[test]
fn a_dropped_receive_takes_nothing() {
    let (tx, rx) = chan(0);
    let mut first = Box::pin(rx.recv());
    let mut second = Box::pin(rx.recv());
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    drop(first);
    tx.try_send(1).unwrap();
    assert_eq!(poll_once(second.as_mut()), Poll::Ready(Some(1)));
    assert!(tx.try_send(2).is_err(), "nobody waits");
}

/// A value that was handed to a receive which is dropped unseen goes to the next that waits.
#[test]
fn an_unseen_value_goes_to_the_next_receiver() {
    for by_select in [false, true] {
        let (tx, rx) = chan(0);
        let (_open, never) = chan::<i32>(0);
        let receive = || async {
            if by_select {
                select! { v = recv(&rx) => v, v = recv(&never) => v }
            } else {
                rx.recv().await
            }
        };
        let mut dropped = Box::pin(receive());
        let mut next = pin!(receive());
        let (wakes, waker) = CountingWaker::new();
        let mut cx = Context::from_waker(&waker);
        assert!(poll_once(dropped.as_mut()).is_pending());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        tx.try_send(1).unwrap();
        assert_eq!(wakes.count(), 0);
        drop(dropped);
        assert_eq!(wakes.count(), 1);
        assert_eq!(next.as_mut().poll(&mut cx), Poll::Ready(Some(1)));
    }
}

/// Nobody waits: it is the head of the buffer, before everything that was sent later.
#[test]
fn an_unseen_value_is_the_head_of_the_buffer() {
    for capacity in [0, 2] {
        let (tx, rx) = chan(capacity);
        let mut dropped = Box::pin(rx.recv());
        assert!(poll_once(dropped.as_mut()).is_pending());
        tx.try_send(0).unwrap();
        for i in 1..=capacity {
            tx.try_send(i).unwrap();
        }
        let mut waiting = Box::pin(tx.send(capacity + 1));
        assert!(poll_once(waiting.as_mut()).is_pending());
        drop(dropped);
        assert_eq!(rx.len(), capacity + 1);
        assert!(tx.try_send(99).is_err());
        for i in 0..=capacity + 1 {
            assert_eq!(rx.try_recv(), Ok(i));
        }
        assert_eq!(poll_once(waiting.as_mut()), Poll::Ready(Ok(())));
        // On a closed channel as well.
        let mut dropped = Box::pin(rx.recv());
        assert!(poll_once(dropped.as_mut()).is_pending());
        tx.try_send(5).unwrap();
        tx.close().unwrap();
        drop(dropped);
        assert_eq!(
            (now(rx.recv()), now(rx.recv())),
            (Some(Some(5)), Some(None))
        );
    }
}

/// The waker of the last poll is woken, and only that one.
#[test]
fn the_last_waker_is_woken() {
    let (tx, rx) = chan(0);
    let (_open, never) = chan::<i32>(0);
    for by_select in [false, true] {
        let mut waiting = pin!(async {
            if by_select {
                select! { v = recv(&rx) => v, v = recv(&never) => v }
            } else {
                rx.recv().await
            }
        });
        let (old_wakes, old) = CountingWaker::new();
        let (new_wakes, new) = CountingWaker::new();
        for waker in [&old, &old, &new, &new] {
            let mut cx = Context::from_waker(waker);
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
        }
        // The test's, its clone, and what the wait holds.
        assert_eq!(
            (Arc::strong_count(&old_wakes), Arc::strong_count(&new_wakes)),
            (2, 3)
        );
        tx.try_send(1).unwrap();
        assert_eq!((old_wakes.count(), new_wakes.count()), (0, 1));
        assert_eq!(Arc::strong_count(&new_wakes), 2, "waking used it up");
        let mut cx = Context::from_waker(&old);
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(Some(1)));
    }
}

#[test]
#[should_panic(expected = "polled after it was ready")]
fn a_send_is_polled_to_its_end_once() {
    let (tx, _rx) = chan(1);
    let mut send = pin!(tx.send(1));
    assert_eq!(poll_once(send.as_mut()), Poll::Ready(Ok(())));
    let _ = poll_once(send);
}

/// Receives and sends are dropped at every moment, on several threads; every value arrives once.
#[test]
fn nothing_is_lost_or_doubled_by_drops() {
    const VALUES: u64 = 6_000;
    for capacity in [0, 1, 4] {
        let pool = Pool::new(4);
        let (tx, rx) = chan::<u64>(capacity);
        let (_open, never) = chan::<u64>(0);
        let sum = Arc::new(AtomicU64::new(0));
        let receivers: Vec<_> = (0..4)
            .map(|me| {
                let (rx, never, sum) = (rx.clone(), never.clone(), sum.clone());
                pool.go(async move {
                    loop {
                        // A wait that is given up after a moment, plainly or within a select.
                        let got = if me % 2 == 0 {
                            select! {
                                v = recv(&rx) => Some(v),
                                _ = recv(&never) => None,
                                _ = future(yield_now()) => None,
                            }
                        } else {
                            let mut recv = Box::pin(rx.recv());
                            select! {
                                v = future(&mut recv) => Some(v),
                                _ = future(yield_now()) => None,
                            }
                        };
                        match got {
                            Some(Some(value)) => _ = sum.fetch_add(value, Ordering::Relaxed),
                            Some(None) => return,
                            None => yield_now().await,
                        }
                    }
                })
            })
            .collect();
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let tx = tx.clone();
                pool.go(async move {
                    for i in 1..=VALUES {
                        // Given up, or sent; a value that was not sent comes back.
                        let mut value = Some(Arc::new(i));
                        while let Some(arc) = value.take() {
                            let keep = arc.clone();
                            let sent = select! {
                                r = send(&tx, *arc) => { r.unwrap(); true }
                                _ = future(yield_now()) => false,
                            };
                            if !sent {
                                value = Some(keep);
                            }
                        }
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.wait();
        }
        // A value that was handed over may still be on its way back from a receive that was
        // dropped.
        block_on(async {
            while sum.load(Ordering::Relaxed) < VALUES * (VALUES + 1) {
                yield_now().await;
            }
        });
        tx.close().unwrap();
        for receiver in receivers {
            receiver.wait();
        }
        assert_eq!(sum.load(Ordering::Relaxed), VALUES * (VALUES + 1));
    }
}

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Counts the allocations of each thread.
struct Counting;

// SAFETY: the system's allocator, with a counter of the thread beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) };
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Also test/chan/select2.go: a case that is never ready does not gather waiters.
#[test]
fn operations_allocate_nothing() {
    let (tx, rx) = chan::<u64>(1);
    let (_open, never) = chan::<u64>(0);
    let (to, from) = chan::<u64>(0);
    let before = ALLOCATIONS.get();
    block_on_here(async {
        for i in 0..10_000 {
            tx.send(i).await.unwrap();
            assert!(tx.try_send(i).is_err());
            select! { v = recv(&rx) => assert_eq!(v, Some(i)), _ = recv(&never) => () }
            let mut wait = pin!(async {
                select! { v = recv(&from) => v, v = recv(&never) => v }
            });
            assert!(poll_once(wait.as_mut()).is_pending());
            to.send(i).await.unwrap();
            assert_eq!(wait.await, Some(i));
            let mut send = pin!(to.send(i));
            assert!(poll_once(send.as_mut()).is_pending());
            assert_eq!(from.try_recv(), Ok(i));
            send.await.unwrap();
        }
    });
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

/// Without a waker of its own, which would be allocated.
fn block_on_here<F: Future<Output = ()>>(future: F) {
    assert!(now(future).is_some(), "nothing in it has to wait");
}
