//! Ways out of a select that nobody takes on purpose: a future panics, or a waker panics or comes
//! back. Whatever was in a queue has left it, and the next one in the queue is served.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use greywave::{Receiver, Sender, chan, select};

use crate::executor::{CountingWaker, now};
use crate::foreign::{Foreign, Part, Wait, poll_with};

/// A future that is polled so often before it panics.
fn panics_after(polls: usize) -> impl Future<Output = ()> + Send {
    let left = AtomicUsize::new(polls);
    poll_fn(move |_| {
        let before = left.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a future panics on purpose");
        Poll::Pending
    })
}

/// Panics when it is dropped.
struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("a future panics on purpose when it is dropped");
    }
}

/// Two channels, and one that waits in each queue of both behind whatever is tried.
struct Scene {
    a: (Sender<[u64; 8]>, Receiver<[u64; 8]>),
    b: (Sender<[u64; 8]>, Receiver<[u64; 8]>),
}

impl Scene {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            a: chan(0),
            b: chan(0),
        })
    }

    /// A select that receives, sends and waits for `future`, in the order that `order` says.
    fn select<F>(self: &Arc<Self>, order: usize, future: F) -> Wait
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        Box::pin(async move {
            match order {
                0 => select! {
                    _ = future(future) => {},
                    _ = recv(&this.a.1) => {},
                    _ = send(&this.b.0, [2; 8]) => {},
                },
                1 => select! {
                    _ = recv(&this.a.1) => {},
                    _ = future(future) => {},
                    _ = send(&this.b.0, [2; 8]) => {},
                },
                _ => select! {
                    _ = recv(&this.a.1) => {},
                    _ = send(&this.b.0, [2; 8]) => {},
                    _ = future(future) => {},
                },
            }
        })
    }

    /// Nobody waits; and then those who do are the next to be served, and are woken.
    fn assert_free(&self) {
        assert!(
            self.a.0.try_send([1; 8]).is_err(),
            "a receiver was left behind"
        );
        assert!(self.b.1.try_recv().is_err(), "a sender was left behind");
        let (woken, waker) = CountingWaker::new();
        let mut cx = Context::from_waker(&waker);
        let mut receive = Box::pin(self.a.1.recv());
        let mut send = Box::pin(self.b.0.send([4; 8]));
        assert!(receive.as_mut().poll(&mut cx).is_pending());
        assert!(send.as_mut().poll(&mut cx).is_pending());
        self.a.0.try_send([3; 8]).unwrap();
        assert_eq!(self.b.1.try_recv(), Ok([4; 8]));
        assert_eq!(woken.count(), 2);
        assert_eq!(receive.as_mut().poll(&mut cx), Poll::Ready(Some([3; 8])));
        assert!(send.as_mut().poll(&mut cx).is_ready());
    }
}

/// Each order of the cases, and the future panics at each poll, or in its drop.
#[test]
fn a_future_panics_in_a_select() {
    for order in 0..3 {
        for polls in 0..4 {
            let scene = Scene::new();
            let mut select = scene.select(order, panics_after(polls));
            for _ in 0..polls {
                assert_eq!(poll_with(&mut select, Waker::noop()), Some(Poll::Pending));
            }
            assert_eq!(poll_with(&mut select, Waker::noop()), None);
            drop(select);
            scene.assert_free();
        }
        for polls in 0..3 {
            let scene = Scene::new();
            let bad = PanicsInDrop;
            let mut select = scene.select(
                order,
                poll_fn(move |_| {
                    let _ = &bad;
                    Poll::Pending
                }),
            );
            for _ in 0..polls {
                assert_eq!(poll_with(&mut select, Waker::noop()), Some(Poll::Pending));
            }
            assert!(catch_unwind(AssertUnwindSafe(|| drop(select))).is_err());
            scene.assert_free();
        }
    }
}

/// A value that was handed to a select whose poll then panics goes on to the next.
#[test]
fn a_value_is_not_lost_with_a_select_that_panics() {
    let (tx, rx) = chan::<u32>(0);
    let receiver = rx.clone();
    let (foreign, waker) = Foreign::new();
    let mut select: Wait = Box::pin(async move {
        select! { _ = recv(&receiver) => {}, _ = future(panics_after(1)) => {} }
    });
    assert_eq!(poll_with(&mut select, &waker), Some(Poll::Pending));
    // While its future is polled it is in nobody's reach, and a waker that cannot be cloned is its
    // end.
    foreign.on(Part::Clone, Box::new(|| panic!("on purpose")));
    assert_eq!(poll_with(&mut select, Waker::noop()), None);
    let mut next = Box::pin(rx.recv());
    assert!(now(next.as_mut()).is_none());
    tx.try_send(7).unwrap();
    drop(select);
    assert_eq!(now(next.as_mut()), Some(Some(7)));
}

/// Two selects meet while one of them is going round its channels, whichever has the lower address,
/// by a hand-over or by room in a buffer.
#[test]
fn selects_meet_in_either_order() {
    for capacity in [0, 1] {
        for first in [0, 1] {
            let (x_tx, x) = chan::<u32>(capacity);
            let (y_tx, _y) = chan::<u32>(0);
            let (_z_tx, z) = chan::<u32>(0);
            // What waits is in one allocation, so that one is below the other.
            let mut places: Box<[Option<_>; 2]> = Box::new([None, None]);
            let wait = |receives: bool| {
                let (x_tx, x, y_tx, z) = (x_tx.clone(), x.clone(), y_tx.clone(), z.clone());
                async move {
                    if receives {
                        select! { v = recv(&x) => v, r = send(&y_tx, 5) => r.err().map(|e| e.0) }
                    } else {
                        select! { r = send(&x_tx, 3) => r.err().map(|e| e.0), v = recv(&z) => v }
                    }
                }
            };
            for (at, place) in places.iter_mut().enumerate() {
                *place = Some(wait(at == first));
            }
            let [low, high] = &mut *places;
            // SAFETY: they stay in the box until it is dropped.
            let low = unsafe { Pin::new_unchecked(low.as_mut().unwrap()) };
            // SAFETY: as above.
            let high = unsafe { Pin::new_unchecked(high.as_mut().unwrap()) };
            let (mut receiver, sender) = if first == 0 { (low, high) } else { (high, low) };
            // The sender comes when the receiver has looked round once, and has not queued
            // anywhere.
            let (foreign, waker) = Foreign::new();
            let (comes, came) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                let fills = x_tx.clone();
                let (go, wait) = std::sync::mpsc::channel::<()>();
                scope.spawn(move || {
                    let mut sender = sender;
                    wait.recv().unwrap();
                    if capacity == 1 {
                        fills.try_send(1).unwrap();
                    }
                    assert!(now(sender.as_mut()).is_none());
                    comes.send(()).unwrap();
                    // It is done, and what it had to say was taken.
                    wait.recv().unwrap();
                    assert_eq!(now(sender.as_mut()), Some(None));
                });
                let (again, is_there) = (go.clone(), came);
                foreign.on(
                    Part::Clone,
                    Box::new(move || {
                        again.send(()).unwrap();
                        is_there.recv().unwrap();
                    }),
                );
                let got = receiver.as_mut().poll(&mut Context::from_waker(&waker));
                assert_eq!(got, Poll::Ready(Some(if capacity == 1 { 1 } else { 3 })));
                go.send(()).unwrap();
            });
        }
    }
}

/// A select that is in both queues of a channel since an earlier poll finds somebody there in a
/// later one.
#[test]
fn a_select_of_both_ends_leaves_what_it_was_in() {
    for sends in [true, false] {
        let (tx, rx) = chan::<u32>(0);
        let (their_tx, their_rx) = (tx.clone(), rx.clone());
        let mut select: Wait = Box::pin(async move {
            select! {
                r = send(&their_tx, 1) => r.unwrap(),
                v = recv(&their_rx) => assert_eq!(v, Some(2)),
                _ = future(std::future::pending::<()>()) => {},
            }
        });
        assert_eq!(poll_with(&mut select, Waker::noop()), Some(Poll::Pending));
        let (foreign, waker) = Foreign::new();
        let (their_tx, their_rx) = (tx.clone(), rx.clone());
        let mut other: Wait = Box::pin(async move {
            if sends {
                their_tx.send(2).await.unwrap();
            } else {
                assert_eq!(their_rx.recv().await, Some(1));
            }
        });
        // It comes between the two rounds of the second poll.
        let (done, is_done) = std::sync::mpsc::channel();
        foreign.on(
            Part::Clone,
            Box::new(move || {
                let polled = poll_with(&mut other, Waker::noop());
                assert_eq!(polled, Some(Poll::Pending));
                done.send(other).unwrap();
            }),
        );
        assert_eq!(poll_with(&mut select, &waker), Some(Poll::Ready(())));
        let mut other = is_done.recv().unwrap();
        assert_eq!(poll_with(&mut other, Waker::noop()), Some(Poll::Ready(())));
        drop(select);
        assert!(tx.try_send(3).is_err() && rx.try_recv().is_err());
    }
}

/// Who is woken by a select looks for that select in another channel, in which it still is.
#[test]
fn a_waker_meets_the_select_that_wakes_it() {
    let (tx, rx) = chan::<u32>(0);
    let (other_tx, other_rx) = chan::<u32>(0);
    let (theirs, from_other) = (rx.clone(), other_rx.clone());
    let mut select: Wait = Box::pin(async move {
        select! {
            v = recv(&from_other) => assert_eq!(v, None, "the other one was first"),
            v = recv(&theirs) => assert_eq!(v, Some(1)),
            _ = future(std::future::pending::<()>()) => {},
        }
    });
    assert_eq!(poll_with(&mut select, Waker::noop()), Some(Poll::Pending));
    let (meets, its_waker) = Foreign::new();
    let (refused, was_refused) = std::sync::mpsc::channel();
    meets.on(
        Part::Wake,
        Box::new(move || refused.send(other_tx.try_send(2).is_err()).unwrap()),
    );
    let (comes, waker) = Foreign::new();
    let sender = tx.clone();
    let (sent, is_sent) = std::sync::mpsc::channel();
    comes.on(
        Part::Clone,
        Box::new(move || {
            let mut send: Wait = Box::pin(async move { sender.send(1).await.unwrap() });
            assert_eq!(poll_with(&mut send, &its_waker), Some(Poll::Pending));
            sent.send(send).unwrap();
        }),
    );
    assert_eq!(poll_with(&mut select, &waker), Some(Poll::Ready(())));
    assert_eq!(was_refused.recv(), Ok(true));
    let mut send = is_sent.recv().unwrap();
    assert_eq!(poll_with(&mut send, Waker::noop()), Some(Poll::Ready(())));
}
