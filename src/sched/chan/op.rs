//! One send or receive that may have to wait: a future with the waiter inside.
//!
//! A wait that was decided is seen without the lock: who decided it is done with the waiter.
//!
//! A receive that is dropped before it has seen its value gives the value back: the next waiting receiver has it, or else
//! it is the head of the buffer again. Nothing is lost, and it is still older than all that is in the buffer.
//! When several such receives are dropped, each value goes before those that came back earlier: what was dropped last is
//! received first.

use std::fmt;
use std::future::Future;
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::sched::chan::channel::{Channel, Outcome, Side, Waiter};
use crate::sched::chan::error::SendError;
use crate::sched::chan::party::{Kind, Me, Party, Progress};
use crate::sched::context;
use crate::sched::wait::WaitReason;
use crate::sched::wakers::KeptWaker;

/// A party of one waiter.
struct Op<'a, T> {
    channel: &'a Channel<T>,
    side: Side,
    party: Party,
    waiter: Waiter<T>,
    /// Others point into it.
    _pinned: PhantomPinned,
}

impl<'a, T> Op<'a, T> {
    fn new(channel: &'a Channel<T>, side: Side, value: Option<T>) -> Self {
        Self {
            channel,
            side,
            party: Party::new(Kind::Single),
            waiter: Waiter::new(value),
            _pinned: PhantomPinned,
        }
    }

    /// Ready when the operation is over; [`Outcome::Done`] says how to read the value.
    #[inline]
    fn poll(self: Pin<&Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.party.progress() {
            Progress::Decided(_) => {
                self.party.reset();
                return Poll::Ready(());
            }
            Progress::Waiting => return self.poll_again(cx),
            Progress::Idle => {}
        }
        if context::should_yield(cx) {
            return Poll::Pending;
        }
        // SAFETY: 1. Idle: in no queue.
        match unsafe { self.channel.attempt_for(self.side, &self.waiter) } {
            Outcome::Done => Poll::Ready(()),
            Outcome::NotReady | Outcome::Lost => self.poll_slow(cx),
        }
    }

    /// Enqueues, unless it is possible now.
    fn poll_slow(self: Pin<&Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_ref();
        // Cloned before the lock is taken: whose code that is nobody knows.
        let mut waker = Some(KeptWaker::of(cx.waker()));
        let arm = || {
            if let Some(waker) = waker.take() {
                // SAFETY: 1. this is the owner, and the party is Idle.
                unsafe { this.party.arm(waker) };
            }
        };
        let at = (&this.party, 0);
        // SAFETY: 1. the owner, by `arm`. 2. pinned; `drop` takes the waiter out.
        let outcome = unsafe {
            this.channel
                .attempt_or_enqueue(this.side, &this.waiter, at, Me::Unknown, arm)
        };
        if outcome == Outcome::Done {
            return Poll::Ready(());
        }
        self.note_wait();
        Poll::Pending
    }

    /// Somebody polls though the wait is not over, perhaps with another waker.
    #[cold]
    fn poll_again(self: Pin<&Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut fresh = None;
        loop {
            let mut stale = None;
            let decided = self.channel.locked(|| {
                if matches!(self.party.progress(), Progress::Decided(_)) {
                    return Some(true);
                }
                // SAFETY: 1. not decided, and this is the lock of its channel.
                if unsafe { self.party.will_wake(cx.waker()) } {
                    return Some(false);
                }
                let fresh = fresh.take()?;
                // SAFETY: 1. as above.
                stale = unsafe { self.party.replace_waker(fresh) };
                Some(false)
            });
            drop(stale);
            match decided {
                Some(true) => {
                    self.party.reset();
                    return Poll::Ready(());
                }
                Some(false) => {
                    self.note_wait();
                    return Poll::Pending;
                }
                None => fresh = Some(KeptWaker::of(cx.waker())),
            }
        }
    }

    fn note_wait(&self) {
        let reason = match self.side {
            Side::Send => WaitReason::ChanSend,
            Side::Recv => WaitReason::ChanRecv,
        };
        context::note_wait(reason, self.channel.address());
    }

    /// The value that is there when nobody else can touch it.
    #[inline]
    fn take(&self) -> Option<T> {
        // SAFETY: 1. called when the operation is over, or before it began.
        unsafe { self.waiter.take() }
    }
}

impl<T> Drop for Op<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.party.progress() != Progress::Idle {
            self.cancel();
        }
    }
}

impl<T> Op<'_, T> {
    #[cold]
    fn cancel(&mut self) {
        if self.party.progress() == Progress::Waiting {
            // SAFETY: 1. it went into that queue when its party was armed.
            unsafe { self.channel.dequeue(self.side, &self.waiter) };
        }
        // It is in no queue now. Meanwhile it may have been decided.
        if self.side == Side::Recv
            && let Some(value) = self.take()
        {
            self.channel.give_back(value);
        }
    }
}

/// A send that is under way: the future of [`Sender::send`](crate::sched::chan::Sender::send).
///
/// Dropped before it is ready it has sent nothing, unless a receiver has already taken the value.
#[must_use = "nothing is sent until it is polled"]
pub struct Send<'a, T> {
    op: Op<'a, T>,
}

impl<'a, T> Send<'a, T> {
    pub(super) fn new(channel: &'a Channel<T>, value: T) -> Self {
        Self {
            op: Op::new(channel, Side::Send, Some(value)),
        }
    }
}

impl<T> Future for Send<'_, T> {
    type Output = Result<(), SendError<T>>;

    /// # Panics
    /// When it was ready before.
    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: a field of what is pinned, which is never moved out.
        let op = unsafe { self.as_ref().map_unchecked(|this| &this.op) };
        if op.party.progress() == Progress::Idle {
            // SAFETY: 1. Idle: in no queue.
            let has_value = unsafe { op.waiter.is_full() };
            assert!(has_value, "a send was polled after it was ready");
        }
        op.poll(cx).map(|()| match op.take() {
            None => Ok(()),
            Some(value) => Err(SendError(value)),
        })
    }
}

impl<T> fmt::Debug for Send<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Send")
            .field("channel", &self.op.channel)
            .finish_non_exhaustive()
    }
}

/// A receive that is under way: the future of [`Receiver::recv`](crate::sched::chan::Receiver::recv).
///
/// Dropped before it is ready it loses nothing: a value that was handed to it already goes to the next receiver. Polled
/// after it was ready it receives once more.
#[must_use = "nothing is received until it is polled"]
pub struct Recv<'a, T> {
    op: Op<'a, T>,
}

impl<'a, T> Recv<'a, T> {
    pub(super) fn new(channel: &'a Channel<T>) -> Self {
        Self {
            op: Op::new(channel, Side::Recv, None),
        }
    }
}

impl<T> Future for Recv<'_, T> {
    type Output = Option<T>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        // SAFETY: a field of what is pinned, which is never moved out.
        let op = unsafe { self.as_ref().map_unchecked(|this| &this.op) };
        op.poll(cx).map(|()| op.take())
    }
}

impl<T> fmt::Debug for Recv<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recv")
            .field("channel", &self.op.channel)
            .finish_non_exhaustive()
    }
}

#[allow(dead_code, reason = "evaluated by the compiler only")]
const _: () = {
    const fn is_send<F: std::marker::Send>() {}
    is_send::<Send<'static, std::cell::Cell<u8>>>();
    is_send::<Recv<'static, std::cell::Cell<u8>>>();
};
