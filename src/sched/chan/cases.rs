//! The cases of a `select!`, one type each, and the list of them: nested pairs, so that nothing is allocated and every
//! case keeps its own type.
//!
//! A case is asked by its number, which is counted down along the list.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::sched::chan::channel::{Channel, Outcome, Ready, Side, Waiter};
use crate::sched::chan::error::SendError;
use crate::sched::chan::handle::{Receiver, Sender};
use crate::sched::chan::party::{Me, Party};
use crate::sys::sabotage::{Fault, is_on};

/// What became of the attempt to wait for a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits.
    Waits,
    /// It was possible at once; the party's wait is decided in this case.
    Done,
    /// Another case has been decided meanwhile.
    Lost,
}

/// The party of a select, for its cases.
#[derive(Clone, Copy, Debug)]
pub struct Chooser<'a> {
    pub(super) party: &'a Party,
    pub(super) case: usize,
}

/// One case.
///
/// # Safety
/// 1. What is in a queue of a channel is out of it after `leave`, and after `finish` of a case that was decided.
pub unsafe trait Case {
    /// What it gives when it is chosen.
    type Output;

    /// What this case depends on.
    const IS_FUTURE: bool;

    /// Carries the case out if that needs no waiting. Without a context nothing is polled.
    fn attempt(self: Pin<&mut Self>, cx: Option<&mut Context<'_>>) -> Option<Self::Output>;

    /// Waits for it, unless it is possible at once.
    fn enqueue(self: Pin<&mut Self>, chooser: Chooser<'_>) -> Enqueued;

    /// Its output, when it was decided or `enqueue` has carried it out.
    fn finish(self: Pin<&mut Self>) -> Option<Self::Output>;

    /// It is not chosen: waits no more. A value that was handed to it, unseen, goes on to another.
    fn leave(self: Pin<&mut Self>);

    /// Whether its channel has been as it is since the last attempt.
    fn is_unchanged(&self) -> bool;

    /// Whether it can ever be chosen.
    fn is_live(&self) -> bool;
}

/// A send or receive. It leaves its queue when it is dropped, if it went into one: by `enlisted` alone. [E3]
struct ChannelCase<'a, T> {
    /// None is never ready.
    channel: Option<&'a Channel<T>>,
    side: Side,
    waiter: Waiter<T>,
    /// Whether the waiter went into the queue.
    enlisted: Cell<bool>,
    /// What the last attempt saw.
    seen: Cell<Ready>,
    /// Others point into the waiter.
    _pinned: PhantomPinned,
}

impl<'a, T> ChannelCase<'a, T> {
    fn new(channel: Option<&'a Channel<T>>, side: Side, value: Option<T>) -> Self {
        Self {
            channel,
            side,
            waiter: Waiter::new(value),
            enlisted: Cell::new(false),
            seen: Cell::new(Ready::default()),
            _pinned: PhantomPinned,
        }
    }

    /// Whether it was possible, and is done.
    #[inline]
    fn attempt(&self) -> bool {
        let Some(channel) = self.channel else {
            return false;
        };
        self.seen.set(channel.ready());
        if !self.seen.get().is(self.side) {
            return false;
        }
        self.leave();
        // SAFETY: 1. in no queue, now at the latest.
        let outcome = unsafe { channel.attempt_for(self.side, &self.waiter) };
        if outcome != Outcome::Done {
            // It looked ready and was not: what that attempt has put right is no change.
            self.seen.set(channel.ready());
        }
        outcome == Outcome::Done
    }

    fn enqueue(&self, chooser: Chooser<'_>) -> Enqueued {
        let Some(channel) = self.channel else {
            return Enqueued::Waits;
        };
        let me = Me::InQueues(chooser.party);
        let at = (chooser.party, chooser.case);
        // SAFETY: 1. the owner, whose party is armed. 2. pinned; `leave` is called before it goes.
        let outcome = unsafe { channel.attempt_or_enqueue(self.side, &self.waiter, at, me, || ()) };
        match outcome {
            Outcome::Done => Enqueued::Done,
            Outcome::Lost => Enqueued::Lost,
            Outcome::NotReady => {
                self.enlisted.set(true);
                Enqueued::Waits
            }
        }
    }

    fn leave(&self) {
        if let Some(channel) = self.channel
            && self.enlisted.take()
        {
            // SAFETY: 1. it went into that queue by `enqueue`.
            unsafe { channel.dequeue(self.side, &self.waiter) };
        }
    }

    /// As `leave`, of a case that goes.
    #[inline]
    fn leave_for_good(&self) {
        if !is_on(Fault::CaseStaysInQueue) {
            self.leave();
        }
    }

    fn is_unchanged(&self) -> bool {
        self.channel
            .is_none_or(|channel| channel.ready() == self.seen.get())
    }

    /// The value of a case that was carried out, which took its waiter out of the queue.
    fn finish(&self) -> Option<T> {
        self.enlisted.set(false);
        self.take()
    }

    /// The value, of a case that is in no queue.
    #[inline]
    fn take(&self) -> Option<T> {
        // SAFETY: 1. as this function says.
        unsafe { self.waiter.take() }
    }
}

impl<T> Drop for ChannelCase<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.leave_for_good();
    }
}

/// `recv(receiver)`.
pub struct RecvCase<'a, T>(ChannelCase<'a, T>);

/// `send(sender, value)`.
pub struct SendCase<'a, T>(ChannelCase<'a, T>);

/// `future(future)`.
pub struct FutureCase<F>(F);

// SAFETY: 1. `leave` dequeues; a decided waiter was taken out.
unsafe impl<T> Case for RecvCase<'_, T> {
    type Output = Option<T>;
    const IS_FUTURE: bool = false;

    #[inline]
    fn attempt(self: Pin<&mut Self>, _: Option<&mut Context<'_>>) -> Option<Option<T>> {
        self.0.attempt().then(|| self.0.take())
    }

    fn enqueue(self: Pin<&mut Self>, chooser: Chooser<'_>) -> Enqueued {
        self.0.enqueue(chooser)
    }

    fn finish(self: Pin<&mut Self>) -> Option<Option<T>> {
        Some(self.0.finish())
    }

    fn leave(self: Pin<&mut Self>) {
        self.0.leave();
        if let Some(channel) = self.0.channel
            && let Some(value) = self.0.take()
        {
            channel.give_back(value);
        }
    }

    fn is_unchanged(&self) -> bool {
        self.0.is_unchanged()
    }

    fn is_live(&self) -> bool {
        self.0.channel.is_some()
    }
}

// SAFETY: 1. as for `RecvCase`.
unsafe impl<T> Case for SendCase<'_, T> {
    type Output = Result<(), SendError<T>>;
    const IS_FUTURE: bool = false;

    #[inline]
    fn attempt(self: Pin<&mut Self>, _: Option<&mut Context<'_>>) -> Option<Self::Output> {
        self.0.attempt().then(|| sent(self.0.take()))
    }

    fn enqueue(self: Pin<&mut Self>, chooser: Chooser<'_>) -> Enqueued {
        self.0.enqueue(chooser)
    }

    fn finish(self: Pin<&mut Self>) -> Option<Self::Output> {
        Some(sent(self.0.finish()))
    }

    fn leave(self: Pin<&mut Self>) {
        self.0.leave();
    }

    fn is_unchanged(&self) -> bool {
        self.0.is_unchanged()
    }

    fn is_live(&self) -> bool {
        self.0.channel.is_some()
    }
}

/// The result of a send that is over, and left this value.
fn sent<T>(left: Option<T>) -> Result<(), SendError<T>> {
    left.map_or(Ok(()), |value| Err(SendError(value)))
}

// SAFETY: 1. it is in no queue of a channel.
unsafe impl<F: Future> Case for FutureCase<F> {
    type Output = F::Output;
    const IS_FUTURE: bool = true;

    #[inline]
    fn attempt(self: Pin<&mut Self>, cx: Option<&mut Context<'_>>) -> Option<F::Output> {
        // SAFETY: the future is never moved out of what is pinned.
        let future = unsafe { self.map_unchecked_mut(|this| &mut this.0) };
        match future.poll(cx?) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn enqueue(self: Pin<&mut Self>, _: Chooser<'_>) -> Enqueued {
        Enqueued::Waits
    }

    fn finish(self: Pin<&mut Self>) -> Option<F::Output> {
        None
    }

    fn leave(self: Pin<&mut Self>) {}

    fn is_unchanged(&self) -> bool {
        true
    }

    fn is_live(&self) -> bool {
        true
    }
}

/// The output of a list of cases: of its head, or of the rest.
#[derive(Debug)]
pub enum Choice<A, B> {
    /// The first case was chosen.
    This(A),
    /// A later one was.
    Rest(B),
}

/// The output of no case.
#[derive(Debug)]
pub enum Never {}

/// A list of cases: `(first, (second, ()))`.
///
/// # Safety
/// 1. As for [`Case`], for each of them.
pub unsafe trait Cases {
    /// Which was chosen, and what it gave.
    type Output;

    /// How many there are.
    const COUNT: usize;

    /// Whether one of them is a future, which must be polled to get on.
    const HAS_FUTURES: bool;

    /// [`Case::attempt`] of the case of that number.
    fn attempt(
        self: Pin<&mut Self>,
        number: usize,
        cx: Option<&mut Context<'_>>,
    ) -> Option<Self::Output>;

    /// [`Case::enqueue`] of the case of that number.
    fn enqueue(self: Pin<&mut Self>, number: usize, chooser: Chooser<'_>) -> Enqueued;

    /// [`Case::finish`] of the case of that number.
    fn finish(self: Pin<&mut Self>, number: usize) -> Option<Self::Output>;

    /// [`Case::leave`] of all.
    fn leave(self: Pin<&mut Self>);

    /// [`Case::is_unchanged`] of all.
    fn is_unchanged(&self) -> bool;

    /// [`Case::is_live`] of any.
    fn is_live(&self) -> bool;
}

// SAFETY: 1. there is none.
unsafe impl Cases for () {
    type Output = Never;
    const COUNT: usize = 0;
    const HAS_FUTURES: bool = false;

    fn attempt(self: Pin<&mut Self>, _: usize, _: Option<&mut Context<'_>>) -> Option<Never> {
        None
    }

    fn enqueue(self: Pin<&mut Self>, _: usize, _: Chooser<'_>) -> Enqueued {
        Enqueued::Waits
    }

    fn finish(self: Pin<&mut Self>, _: usize) -> Option<Never> {
        None
    }

    fn leave(self: Pin<&mut Self>) {}

    fn is_unchanged(&self) -> bool {
        true
    }

    fn is_live(&self) -> bool {
        false
    }
}

/// Both halves of a pinned pair.
#[inline]
fn halves<A, B>(pair: Pin<&mut (A, B)>) -> (Pin<&mut A>, Pin<&mut B>) {
    // SAFETY: nothing is moved out.
    let (a, b) = unsafe { pair.get_unchecked_mut() };
    // SAFETY: each is pinned with the pair, which has no `Drop`.
    let a = unsafe { Pin::new_unchecked(a) };
    // SAFETY: as above.
    (a, unsafe { Pin::new_unchecked(b) })
}

// SAFETY: 1. by its halves.
unsafe impl<A: Case, B: Cases> Cases for (A, B) {
    type Output = Choice<A::Output, B::Output>;
    const COUNT: usize = 1 + B::COUNT;
    const HAS_FUTURES: bool = A::IS_FUTURE || B::HAS_FUTURES;

    #[inline]
    fn attempt(
        self: Pin<&mut Self>,
        number: usize,
        cx: Option<&mut Context<'_>>,
    ) -> Option<Self::Output> {
        let (head, rest) = halves(self);
        match number.checked_sub(1) {
            None => head.attempt(cx).map(Choice::This),
            Some(number) => rest.attempt(number, cx).map(Choice::Rest),
        }
    }

    #[inline]
    fn enqueue(self: Pin<&mut Self>, number: usize, chooser: Chooser<'_>) -> Enqueued {
        let (head, rest) = halves(self);
        match number.checked_sub(1) {
            None => head.enqueue(chooser),
            Some(number) => rest.enqueue(number, chooser),
        }
    }

    #[inline]
    fn finish(self: Pin<&mut Self>, number: usize) -> Option<Self::Output> {
        let (head, rest) = halves(self);
        match number.checked_sub(1) {
            None => head.finish().map(Choice::This),
            Some(number) => rest.finish(number).map(Choice::Rest),
        }
    }

    #[inline]
    fn leave(self: Pin<&mut Self>) {
        let (head, rest) = halves(self);
        head.leave();
        rest.leave();
    }

    #[inline]
    fn is_unchanged(&self) -> bool {
        self.0.is_unchanged() && self.1.is_unchanged()
    }

    fn is_live(&self) -> bool {
        self.0.is_live() || self.1.is_live()
    }
}

/// What `recv(..)` takes: `&Receiver`, `Option<&Receiver>`, `&Option<Receiver>`. None is never ready.
#[diagnostic::on_unimplemented(
    message = "`recv(..)` takes a `&Receiver<T>` or an `Option<&Receiver<T>>`, not `{Self}`"
)]
pub trait IntoReceiver<'a> {
    /// What is received.
    type Item: 'a;
    /// The receiver, if there is one.
    fn into_receiver(self) -> Option<&'a Receiver<Self::Item>>;
}

/// What `send(..)` takes: `&Sender`, `Option<&Sender>`, `&Option<Sender>`. None is never ready.
#[diagnostic::on_unimplemented(
    message = "`send(..)` takes a `&Sender<T>` or an `Option<&Sender<T>>`, not `{Self}`"
)]
pub trait IntoSender<'a> {
    /// What is sent.
    type Item: 'a;
    /// The sender, if there is one.
    fn into_sender(self) -> Option<&'a Sender<Self::Item>>;
}

macro_rules! into_handle {
    ($from:ty, $trait:ident, $method:ident, $handle:ident, $this:ident => $get:expr) => {
        impl<'a, T> $trait<'a> for $from {
            type Item = T;
            fn $method(self) -> Option<&'a $handle<T>> {
                let $this = self;
                $get
            }
        }
    };
}

into_handle!(&'a Receiver<T>, IntoReceiver, into_receiver, Receiver, this => Some(this));
into_handle!(Option<&'a Receiver<T>>, IntoReceiver, into_receiver, Receiver, this => this);
into_handle!(&'a Option<Receiver<T>>, IntoReceiver, into_receiver, Receiver, this => this.as_ref());
into_handle!(&'a Sender<T>, IntoSender, into_sender, Sender, this => Some(this));
into_handle!(Option<&'a Sender<T>>, IntoSender, into_sender, Sender, this => this);
into_handle!(&'a Option<Sender<T>>, IntoSender, into_sender, Sender, this => this.as_ref());

/// A case that receives.
#[inline]
pub fn recv<'a, R: IntoReceiver<'a>>(receiver: R) -> RecvCase<'a, R::Item> {
    let channel = receiver.into_receiver().map(Receiver::channel);
    RecvCase(ChannelCase::new(channel, Side::Recv, None))
}

/// A case that sends `value`.
#[inline]
pub fn send<'a, S: IntoSender<'a>>(sender: S, value: S::Item) -> SendCase<'a, S::Item> {
    let channel = sender.into_sender().map(Sender::channel);
    SendCase(ChannelCase::new(channel, Side::Send, Some(value)))
}

/// A case that waits for `future`.
#[inline]
pub fn future<F: Future>(future: F) -> FutureCase<F> {
    FutureCase(future)
}

impl<T> fmt::Debug for ChannelCase<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelCase")
            .field("side", &self.side)
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for RecvCase<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> fmt::Debug for SendCase<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<F> fmt::Debug for FutureCase<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FutureCase")
    }
}
