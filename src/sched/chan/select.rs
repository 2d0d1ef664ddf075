//! Waiting for the first of several cases.
//!
//! A poll goes round the cases in an order drawn anew, and carries out the first that needs no waiting: among those that
//! are ready each is as likely. If none is, the party is armed, and the cases are gone round once more: each is put into the queue of its channel,
//! unless it has become possible meanwhile. From the arming on anybody may end the wait, so this second round claims the
//! select's own party before it carries anything out.
//!
//! One channel is locked at a time. That is enough, because
//! - no case that is ready is missed: each is looked at and enqueued under the lock of its channel, and whoever makes it
//!   ready later takes that lock and finds the waiter;
//! - only one case is carried out: that needs the claim on the party, and it is given once (`party.rs`);
//! - with `default`, "none is ready" must have been true at one moment: the versions of the channels tell (`channel.rs`).
//!
//! A select with a future among its cases is polled when that future has something new. It withdraws from its channels
//! for that poll, as only one case may be carried out and a future that is ready cannot be put back. Its waiters
//! stay in their queues, and whoever meets one meanwhile puts it out; the second round puts it in again. So the party's
//! state does not tell whether anything is in a queue: that future may panic, and so may the clone of a waker. What goes in
//! leaves by its own knowledge (`ChannelCase`), on every way out.

use std::fmt;
use std::future::Future;
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::sched::chan::cases::{Cases, Chooser, Enqueued};
use crate::sched::chan::party::{Kind, Party, Progress};
use crate::sched::context;
use crate::sched::wait::WaitReason;
use crate::sched::wakers::KeptWaker;
use crate::sys::sabotage::{Fault, is_on};

/// The most cases of one select.
const MOST: usize = 64;

/// An order of the cases.
struct Order {
    numbers: [u8; MOST],
    count: usize,
}

impl Order {
    /// Any order of the numbers below `count`, each as likely.
    #[inline]
    fn random(count: usize) -> Self {
        let mut order = Self {
            numbers: [0; MOST],
            count,
        };
        let mut random = 0;
        for i in 1..count {
            // As many draws as one random number gives without a bias worth speaking of.
            // loom repeats what has happened, so there it is one order.
            if i % 8 == 1 && !cfg!(loom) {
                random = context::random();
            }
            // Inside-out shuffle (Fisher and Yates). The high half of the product is below i + 1, the low half is what is
            // left of the randomness.
            let product = u128::from(random) * (i as u128 + 1);
            random = product as u64;
            let place = (product >> 64) as usize;
            order.numbers[i] = order.numbers[place];
            order.numbers[place] = i as u8;
        }
        order
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.numbers
            .iter()
            .take(self.count)
            .map(|&number| usize::from(number))
    }
}

/// The future of a `select!` without `default`.
#[must_use = "nothing is selected until it is polled"]
pub struct Select<C: Cases> {
    cases: C,
    party: Party,
    /// Others point into it.
    _pinned: PhantomPinned,
}

/// Waits for the first of `cases`.
#[inline]
pub fn select<C: Cases>(cases: C) -> Select<C> {
    const { assert!(C::COUNT <= MOST, "a select has at most 64 cases") };
    Select {
        cases,
        party: Party::new(Kind::Select),
        _pinned: PhantomPinned,
    }
}

impl<C: Cases> Select<C> {
    #[inline]
    fn parts(self: Pin<&mut Self>) -> (Pin<&mut C>, &Party) {
        // SAFETY: nothing is moved out.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: pinned with the whole, whose `Drop` moves nothing.
        (unsafe { Pin::new_unchecked(&mut this.cases) }, &this.party)
    }

    /// The wait was decided in this case.
    fn finish(self: Pin<&mut Self>, number: usize) -> Poll<C::Output> {
        let (mut cases, party) = self.parts();
        party.reset();
        let output = cases.as_mut().finish(number);
        cases.leave();
        output.map_or(Poll::Pending, Poll::Ready)
    }

    /// Somebody polls though the wait is not over, perhaps with another waker.
    #[cold]
    fn poll_again(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let mut fresh = None;
        while self.party.try_claim() {
            // SAFETY: 1. claimed.
            let same = unsafe { self.party.will_wake(cx.waker()) };
            let mut stale = None;
            if !same && let Some(fresh) = fresh.take() {
                // SAFETY: 1. claimed.
                stale = unsafe { self.party.replace_waker(fresh) };
            } else if !same {
                // Not under the claim: whose code that is nobody knows.
                self.party.unclaim();
                fresh = Some(KeptWaker::of(cx.waker()));
                continue;
            }
            self.party.unclaim();
            drop(stale);
            self.note_wait();
            return Poll::Pending;
        }
        self.poll_decided()
    }

    /// Another has ended the wait, or is about to say so.
    fn poll_decided(self: Pin<&mut Self>) -> Poll<C::Output> {
        match self.party.progress() {
            Progress::Decided(number) => self.finish(number),
            Progress::Idle | Progress::Waiting => Poll::Pending,
        }
    }

    /// Waits for each case of `order`, unless one is possible.
    fn enqueue_all(self: Pin<&mut Self>, order: &Order, cx: &mut Context<'_>) -> Poll<C::Output> {
        // SAFETY: nothing is moved out.
        let this = unsafe { self.get_unchecked_mut() };
        let party = &this.party;
        // SAFETY: 1. the owner; Idle: never armed, or withdrawn.
        unsafe { party.arm_again(cx.waker()) };
        for number in order.iter() {
            // SAFETY: as in `parts`.
            let cases = unsafe { Pin::new_unchecked(&mut this.cases) };
            let chooser = Chooser {
                party,
                case: number,
            };
            match cases.enqueue(number, chooser) {
                Enqueued::Waits => {}
                Enqueued::Done | Enqueued::Lost => break,
            }
        }
        // SAFETY: pinned as it came.
        let this = unsafe { Pin::new_unchecked(this) };
        if let Progress::Decided(number) = this.party.progress() {
            return this.finish(number);
        }
        this.note_wait();
        Poll::Pending
    }

    fn note_wait(&self) {
        // What its futures wait for is told by the wakers that they hold.
        let reason = if self.cases.is_live() {
            WaitReason::Select
        } else {
            WaitReason::NilChan
        };
        context::note_wait(reason, 0);
    }
}

impl<C: Cases> Future for Select<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        match self.party.progress() {
            Progress::Decided(number) => return self.finish(number),
            Progress::Waiting if !C::HAS_FUTURES => return self.poll_again(cx),
            Progress::Waiting => {
                if !self.party.withdraw() {
                    return self.poll_decided();
                }
            }
            Progress::Idle => {
                if context::should_yield(cx) {
                    return Poll::Pending;
                }
            }
        }
        let order = Order::random(C::COUNT);
        let (mut cases, _) = self.as_mut().parts();
        for number in order.iter() {
            if let Some(output) = cases.as_mut().attempt(number, Some(&mut *cx)) {
                cases.leave();
                return Poll::Ready(output);
            }
        }
        self.enqueue_all(&order, cx)
    }
}

impl<C: Cases> Drop for Select<C> {
    #[inline]
    fn drop(&mut self) {
        if self.party.progress() != Progress::Idle {
            // Either nobody can end the wait any more, or somebody has: what was handed over is given back by `leave`.
            self.party.withdraw();
        } else if is_on(Fault::CaseStaysInQueue) {
            return;
        }
        // Idle or not: a poll that panicked has left its waiters where they were.
        // SAFETY: it was pinned when it was polled, and is not moved.
        unsafe { Pin::new_unchecked(&mut self.cases) }.leave();
    }
}

impl<C: Cases> fmt::Debug for Select<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select")
            .field("cases", &C::COUNT)
            .finish_non_exhaustive()
    }
}

/// The future of a `select!` with `default`: it does not wait, but makes room when its G has had its share.
#[must_use = "nothing is selected until it is polled"]
pub struct SelectNow<C: Cases>(C);

/// Carries out one of `cases` if one is ready.
#[inline]
pub fn select_now<C: Cases>(cases: C) -> SelectNow<C> {
    const { assert!(C::COUNT <= MOST, "a select has at most 64 cases") };
    SelectNow(cases)
}

impl<C: Cases> Future for SelectNow<C> {
    type Output = Option<C::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if context::should_yield(cx) {
            return Poll::Pending;
        }
        // SAFETY: a field of what is pinned, which is never moved out.
        let mut cases = unsafe { self.map_unchecked_mut(|this| &mut this.0) };
        let order = Order::random(C::COUNT);
        let mut cx = Some(cx);
        loop {
            for number in order.iter() {
                if let Some(output) = cases.as_mut().attempt(number, cx.as_deref_mut()) {
                    return Poll::Ready(Some(output));
                }
            }
            if cases.is_unchanged() {
                return Poll::Ready(None);
            }
            // A future is polled once: a moment ago it was not ready.
            cx = None;
        }
    }
}

impl<C: Cases> fmt::Debug for SelectNow<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelectNow")
            .field("cases", &C::COUNT)
            .finish_non_exhaustive()
    }
}
