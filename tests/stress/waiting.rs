//! Waiters in queues: what must hold if a future or a waker misbehaves. Each test runs on one
//! thread and is about one rule, which debug builds check wherever a thread passes.

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use greywave::{Mutex, chan, select};

use crate::foreign::{Foreign, Part, Wait, poll_with};

/// A select is dropped after its future has panicked: nothing of it is left in a queue.
pub(crate) fn a_select_whose_future_panics_leaves() {
    let (tx, rx) = chan::<[u64; 8]>(0);
    let receiver = rx.clone();
    let mut polls = 0;
    let panics = poll_fn(move |_| {
        polls += 1;
        if polls == 2 {
            // Without the hook, which would take it for the program's own end.
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        Poll::<()>::Pending
    });
    let mut select: Wait = Box::pin(async move {
        select! { _ = recv(&receiver) => {}, _ = future(panics) => {} }
    });
    assert_eq!(poll_with(&mut select, Waker::noop()), Some(Poll::Pending));
    assert_eq!(poll_with(&mut select, Waker::noop()), None);
    drop(select);
    assert!(tx.try_send([1; 8]).is_err(), "somebody was left behind");
}

/// A waker that a mutex wakes comes back to that mutex.
pub(crate) fn a_waker_comes_back_to_its_mutex() {
    let mutex: Arc<Mutex<u32>> = Arc::default();
    let held = mutex.try_lock().expect("it is free");
    let (foreign, waker) = Foreign::new();
    let theirs = mutex.clone();
    let mut wait: Wait = Box::pin(async move { *theirs.lock().await += 1 });
    assert_eq!(poll_with(&mut wait, &waker), Some(Poll::Pending));
    let theirs = mutex.clone();
    let mut other: Wait = Box::pin(async move { drop(theirs.lock().await) });
    assert_eq!(poll_with(&mut other, Waker::noop()), Some(Poll::Pending));
    foreign.on(Part::Wake, Box::new(move || drop(other)));
    drop(held);
    assert_eq!(foreign.done(), 1);
    assert_eq!(poll_with(&mut wait, Waker::noop()), Some(Poll::Ready(())));
}

/// A select that goes round its channels meets another one, at a lower or a higher address.
pub(crate) fn selects_claim_in_order() {
    for receiver in [0, 1] {
        let (tx, rx) = chan::<u32>(0);
        let wait = |receives: bool| {
            let (tx, rx) = (tx.clone(), rx.clone());
            async move {
                if receives {
                    select! { v = recv(&rx) => v, _ = future(pending::<()>()) => None }
                } else {
                    select! { r = send(&tx, 3) => r.err().map(|e| e.0), _ = future(pending::<()>()) => None }
                }
            }
        };
        // One allocation, which is leaked: one of the two is below the other.
        let places = Box::leak(Box::new([0, 1].map(|at| Some(wait(at == receiver)))));
        let [low, high] = places;
        let [low, high] = [low, high].map(|place| Pin::static_mut(place).as_pin_mut().unwrap());
        let (mut receives, mut sends) = if receiver == 0 {
            (low, high)
        } else {
            (high, low)
        };
        // It comes between the two rounds of the other's poll.
        let (foreign, waker) = Foreign::new();
        let (sent, is_sent) = std::sync::mpsc::channel();
        foreign.on(
            Part::Clone,
            Box::new(move || {
                let polled = sends.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert_eq!(polled, Poll::Pending);
                sent.send(sends).unwrap();
            }),
        );
        let polled = receives.as_mut().poll(&mut Context::from_waker(&waker));
        assert_eq!(polled, Poll::Ready(Some(3)));
        let mut sends = is_sent.recv().unwrap();
        let polled = sends.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(None));
    }
}
