//! shuttle models of selects that meet: they run the real futures, on threads of their own.
//!
//! loom's models (`models.rs`) have channels without a buffer, and selects that only send or only receive. What is here needs
//! more steps than loom has room for: a select is armed while its channels are filled and drained by a third, so that a value
//! that is taken lets in a sender that is itself a select in the other direction. Debug builds also watch the order of claims
//! and that no lock is taken under one (`sys/lock.rs`), so that half of such a meeting is enough to fail.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::sched::chan::handle::{Receiver, Sender, chan};
use crate::select;
use crate::sys::lock::{Condvar, Mutex};
#[cfg(feature = "sabotage")]
use crate::sys::random_model::fails_with;
use crate::sys::random_model::{explore, random};
#[cfg(feature = "sabotage")]
use crate::sys::sabotage::Fault;
use crate::sys::sync::yield_now;
use crate::sys::thread::{JoinHandle, spawn};

/// A waker that shuttle knows.
struct Notified {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Notified {
    fn wake(self: Arc<Self>) {
        *self.woken.lock() = true;
        self.changed.notify_all();
    }
}

/// Polls until it is ready, after each wake-up. A wake-up that is lost is a deadlock, which ends the model.
fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        // A waker of its own for each poll, so that the old one is always replaced.
        let notified = Arc::new(Notified {
            woken: Mutex::new(false),
            changed: Condvar::new(),
        });
        let waker = Waker::from(notified.clone());
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = notified.woken.lock();
        while !*woken {
            notified.changed.wait_for(&mut woken, Duration::MAX);
        }
    }
}

/// Pending once, and woken at once; then for ever.
fn stirs() -> impl Future<Output = ()> {
    let mut stirred = false;
    poll_fn(move |cx| {
        if !std::mem::replace(&mut stirred, true) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
}

fn start(body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    spawn("model".into(), body).expect("a thread")
}

type Ends = (Sender<u32>, Receiver<u32>);

/// Sends to one channel and receives from the other, whichever comes first, until either is closed or it has done enough.
fn exchange(to: &Sender<u32>, from: &Receiver<u32>, with_future: bool) {
    for round in 0..3 {
        let goes_on = wait(async {
            if with_future {
                select! {
                    r = send(to, round) => r.is_ok(),
                    v = recv(from) => v.is_some(),
                    _ = future(stirs()) => false,
                }
            } else {
                select! { r = send(to, round) => r.is_ok(), v = recv(from) => v.is_some() }
            }
        });
        if !goes_on {
            return;
        }
    }
}

/// Two exchange over two channels in opposite directions, while a third fills and drains, and closes both in the end.
fn opposite(capacity: usize) {
    let (x, y): (Ends, Ends) = (chan(capacity), chan(capacity));
    let (x2, y2) = (x.clone(), y.clone());
    let (x3, y3) = (x.clone(), y.clone());
    let with_future = random(2) == 0;
    let parties = [
        start(move || exchange(&y.0, &x.1, with_future)),
        start(move || exchange(&x2.0, &y2.1, with_future)),
        start(move || {
            for _ in 0..4 {
                let ends = if random(2) == 0 { &x3 } else { &y3 };
                if random(2) == 0 {
                    let _ = ends.0.try_send(9);
                } else {
                    let _ = ends.1.try_recv();
                }
                yield_now();
            }
            let _ = x3.0.close();
            let _ = y3.0.close();
        }),
    ];
    parties.map(|party| party.join().expect("it does not panic"));
}

#[test]
fn shuttle_selects_in_opposite_directions() {
    for capacity in [0, 1] {
        explore(1500, move || opposite(capacity));
    }
}

/// The negative control.
#[cfg(feature = "sabotage")]
#[test]
fn shuttle_selects_that_claim_out_of_order_fail() {
    let expected = &["claims are made out of order"];
    fails_with(Fault::ClaimsOutOfOrder, 1500, expected, || opposite(1));
}

/// Selects with both ends of one channel and a future, which are in its queues since an earlier poll when they meet.
#[test]
fn shuttle_selects_of_both_ends_and_a_future() {
    for capacity in [0, 1] {
        explore(1500, move || {
            let ends: Ends = chan(capacity);
            let (a, b, closer) = (ends.clone(), ends.clone(), ends);
            let parties = [
                start(move || exchange(&a.0, &a.1, true)),
                start(move || exchange(&b.0, &b.1, true)),
                start(move || {
                    let _ = closer.0.try_send(9);
                    let _ = closer.1.try_recv();
                    yield_now();
                    let _ = closer.0.close();
                }),
            ];
            parties.map(|party| party.join().expect("it does not panic"));
        });
    }
}

/// A channel with more waiters than are told of the end at once is closed while selects go round it.
#[test]
fn shuttle_close_with_many_waiters() {
    explore(1000, || {
        let ends: Ends = chan(0);
        let (a, b, closer, crowd) = (ends.clone(), ends.clone(), ends.clone(), ends);
        let parties = [
            start(move || exchange(&a.0, &a.1, true)),
            start(move || {
                let mut waiting: Vec<Pin<Box<_>>> =
                    (0..5).map(|_| Box::pin(crowd.1.recv())).collect();
                let mut cx = Context::from_waker(Waker::noop());
                waiting.retain_mut(|wait| wait.as_mut().poll(&mut cx).is_pending());
                exchange(&b.0, &b.1, true);
                // Some have a value, or were told; the others leave.
                drop(waiting);
            }),
            start(move || {
                yield_now();
                let _ = closer.0.close();
            }),
        ];
        parties.map(|party| party.join().expect("it does not panic"));
    });
}
