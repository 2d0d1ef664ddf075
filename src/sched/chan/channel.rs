//! A channel: its buffer, its two queues of waiters, and what each operation does under its lock.
//!
//! Every operation takes the lock once, for tens of nanoseconds. Under it nobody's code runs: wakers and values leave it
//! and are woken and dropped outside. No two channels are ever locked at once: a select visits its channels one by one,
//! and its [`Party`] says who ends it.
//!
//! Beside the lock is a word that says whether a send or a receive could succeed, for whoever only wants to look. It
//! changes with a version, so a select that saw no case ready can find out whether that was so at one moment:
//! if no word has changed when it has seen all, it was.
//!
//! **Invariants**
//! - `[E3]` A waiter in a queue, and its party, stay where they are. Before it frees them, their owner takes each waiter
//!   out of its queue, or sees that the wait was decided in its case, which took it out.
//! - `[E4]` What is in a waiter's value belongs to its owner while the waiter is in no queue, and to the holder of the
//!   lock of its channel while it is in one; from `Decided` on to the owner.
//! - While a receiver waits that can be had, the buffer is empty; while such a sender waits, it is full.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::ptr::NonNull;
use std::task::Waker;

use crate::sched::chan::party::{Claim, Me, Party, claim_with};
use crate::sched::list::{Linked, Links, List};
use crate::sys::lock::Unranked;
use crate::sys::sync::{AtomicU64, AtomicUsize, Ordering, UnsafeCell};

/// What an operation wants of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Send,
    Recv,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is over. A send whose value is still there, or a receive without one, found the channel closed.
    Done,
    /// It would have to wait.
    NotReady,
    /// Meanwhile another has ended the wait of the select on whose behalf this was.
    Lost,
}

/// One place in one queue. It is inside the future that waits.
pub(super) struct Waiter<T> {
    links: Links<Self>,
    /// Whether it is in its queue. Under the lock of the channel.
    queued: Cell<bool>,
    /// The case of a select.
    case: Cell<usize>,
    /// Set when it goes into its queue.
    party: Cell<Option<NonNull<Party>>>,
    /// To be sent, or received.
    value: UnsafeCell<Option<T>>,
}

#[allow(
    clippy::non_send_fields_in_send_ty,
    reason = "the pointers are the reason for this impl"
)]
// SAFETY: [E3] [E4] what it points to lives as long as it is in a queue, and each field has one user at a time.
unsafe impl<T: Send> Send for Waiter<T> {}

// SAFETY: 1. `links` is the only one.
unsafe impl<T> Linked for Waiter<T> {
    fn links(node: NonNull<Self>) -> NonNull<Links<Self>> {
        // SAFETY: inside the node.
        unsafe { node.byte_add(std::mem::offset_of!(Self, links)) }.cast()
    }
}

impl<T> Waiter<T> {
    pub(super) fn new(value: Option<T>) -> Self {
        Self {
            links: Links::new(),
            queued: Cell::new(false),
            case: Cell::new(0),
            party: Cell::new(None),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the value out.
    ///
    /// # Safety
    /// 1. [E4] gives the value to the caller.
    #[inline]
    pub(super) unsafe fn take(&self) -> Option<T> {
        // SAFETY: clause 1.
        self.value.with_mut(|value| unsafe { (*value).take() })
    }

    /// Whether a value is there.
    ///
    /// # Safety
    /// 1. As for `take`.
    #[inline]
    pub(super) unsafe fn is_full(&self) -> bool {
        // SAFETY: clause 1.
        self.value.with(|value| unsafe { (*value).is_some() })
    }

    /// Puts a value in, or takes it away.
    ///
    /// # Safety
    /// 1. As for `take`; the value there is None, or `value` is.
    #[inline]
    unsafe fn set(&self, new: Option<T>) {
        // SAFETY: clause 1.
        self.value.with_mut(|value| unsafe { *value = new });
    }
}

impl<T> fmt::Debug for Waiter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("case", &self.case.get())
            .finish_non_exhaustive()
    }
}

/// What the lock guards.
pub(super) struct State<T> {
    buffer: VecDeque<T>,
    receivers: List<Waiter<T>>,
    senders: List<Waiter<T>>,
    /// Sends fail; receives take what is in the buffer.
    closed: bool,
    /// Somebody has called `close`.
    close_called: bool,
}

/// See the module's head.
pub(crate) struct Channel<T> {
    /// Bits of [`Ready`] and above them a version. Written under the lock.
    ready: AtomicU64,
    state: Unranked<State<T>>,
    capacity: usize,
    /// Handles that can send, and that can receive.
    pub(super) senders: AtomicUsize,
    pub(super) receivers: AtomicUsize,
}

/// Which operations could succeed, and when that last changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready(u64);

impl Ready {
    const SEND: u64 = 1;
    const RECV: u64 = 2;
    const CLOSED: u64 = 4;
    const BITS: u64 = 7;

    #[inline]
    pub(super) fn is(self, side: Side) -> bool {
        self.0
            & match side {
                Side::Send => Self::SEND,
                Side::Recv => Self::RECV,
            }
            != 0
    }

    pub(super) fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }
}

/// Up to so many are woken at once.
const BATCH: usize = 16;

/// Wakers that left a lock.
#[derive(Debug)]
struct WakeBatch {
    wakers: [Option<Waker>; BATCH],
    len: usize,
}

impl WakeBatch {
    fn new() -> Self {
        Self {
            wakers: [const { None }; BATCH],
            len: 0,
        }
    }

    fn wake_all(&mut self) {
        for waker in self.wakers.iter_mut().filter_map(Option::take) {
            waker.wake();
        }
        self.len = 0;
    }
}

impl<T> State<T> {
    fn queue(&mut self, side: Side) -> &mut List<Waiter<T>> {
        match side {
            Side::Send => &mut self.senders,
            Side::Recv => &mut self.receivers,
        }
    }

    #[inline]
    fn attempt(
        &mut self,
        side: Side,
        value: &mut Option<T>,
        me: Me<'_>,
        capacity: usize,
        wake: &mut Option<Waker>,
    ) -> Outcome {
        match side {
            Side::Send => self.send(value, me, capacity, wake),
            Side::Recv => self.recv(value, me, capacity, wake),
        }
    }

    #[inline]
    fn send(
        &mut self,
        value: &mut Option<T>,
        me: Me<'_>,
        capacity: usize,
        wake: &mut Option<Waker>,
    ) -> Outcome {
        if self.closed {
            return claimed(me);
        }
        if !self.receivers.is_empty() {
            match first_of(&mut self.receivers, me) {
                Some(Ok(receiver)) => {
                    // SAFETY: [E4] it was in a queue of this channel, and the caller has the lock.
                    *wake = unsafe { exchange(receiver, |into| into.set(value.take())) };
                    return Outcome::Done;
                }
                Some(Err(OwnLost)) => return Outcome::Lost,
                None => {}
            }
        }
        if self.buffer.len() >= capacity {
            return Outcome::NotReady;
        }
        if me.claim().is_none() {
            return Outcome::Lost;
        }
        self.buffer.extend(value.take());
        Outcome::Done
    }

    #[inline]
    fn recv(
        &mut self,
        into: &mut Option<T>,
        me: Me<'_>,
        capacity: usize,
        wake: &mut Option<Waker>,
    ) -> Outcome {
        if !self.buffer.is_empty() {
            let Some(me) = me.claim() else {
                return Outcome::Lost;
            };
            *into = self.buffer.pop_front();
            if !self.senders.is_empty() && self.buffer.len() < capacity {
                *wake = self.let_a_sender_in(me);
            }
            return Outcome::Done;
        }
        if self.closed {
            return claimed(me);
        }
        match first_of(&mut self.senders, me) {
            Some(Ok(sender)) => {
                // SAFETY: [E4] it was in a queue of this channel, and the caller has the lock.
                *wake = unsafe { exchange(sender, |from| *into = from.take()) };
                Outcome::Done
            }
            Some(Err(OwnLost)) => Outcome::Lost,
            None => Outcome::NotReady,
        }
    }

    /// There is room in the buffer: the oldest waiting sender may fill it.
    fn let_a_sender_in(&mut self, me: Me<'_>) -> Option<Waker> {
        if self.closed {
            return None;
        }
        let sender = first_of(&mut self.senders, me)?.ok()?;
        let buffer = &mut self.buffer;
        // SAFETY: [E4] it was in a queue of this channel, and the caller has the lock.
        unsafe { exchange(sender, |from| buffer.extend(from.take())) }
    }

    /// Ends waits with the news that the channel is closed, as many as fit. True if there may be more.
    fn tell_closed(&mut self, batch: &mut WakeBatch) -> bool {
        for side in [Side::Recv, Side::Send] {
            loop {
                if batch.len == BATCH {
                    return true;
                }
                let Some(Ok(waiter)) = first_of(self.queue(side), Me::Unknown) else {
                    break;
                };
                // SAFETY: as in `send`; the value stays: a sender gets it back, a receiver has none.
                batch.wakers[batch.len] = unsafe { exchange(waiter, |_| ()) };
                batch.len += 1;
            }
        }
        false
    }
}

/// The caller's own wait was ended by another.
#[derive(Debug)]
struct OwnLost;

/// An attempt ends without anybody else: it is done if the caller's own party can be had.
#[inline]
fn claimed(me: Me<'_>) -> Outcome {
    if me.claim().is_some() {
        Outcome::Done
    } else {
        Outcome::Lost
    }
}

/// Takes the first waiter out of `queue` that can be had, with a claim on it and on `me`. None: there is none.
///
/// A select whose wait has ended elsewhere, or that has withdrawn, leaves the queue on the way: it looks for itself.
fn first_of<T>(
    queue: &mut List<Waiter<T>>,
    me: Me<'_>,
) -> Option<Result<NonNull<Waiter<T>>, OwnLost>> {
    let mut next = queue.first();
    while let Some(node) = next {
        // SAFETY: 1. it is in this queue, whose lock the caller holds.
        next = unsafe { queue.next(node) };
        // SAFETY: [E3] it is in a queue.
        let waiter = unsafe { node.as_ref() };
        let Some(party) = waiter.party.get() else {
            continue;
        };
        if me.is(party) {
            continue;
        }
        // SAFETY: [E3] as above, and its party is beside it.
        match claim_with(me, unsafe { party.as_ref() }) {
            Claim::OwnLost => return Some(Err(OwnLost)),
            claim => {
                waiter.queued.set(false);
                // SAFETY: 1. as above.
                unsafe { queue.remove(node) };
                if claim == Claim::Won {
                    return Some(Ok(node));
                }
            }
        }
    }
    None
}

/// Hands over by `hand`, ends the wait, and gives the waker.
///
/// # Safety
/// 1. `node` was given by `first_of`, and the lock has been held since.
unsafe fn exchange<T>(node: NonNull<Waiter<T>>, hand: impl FnOnce(&Hand<'_, T>)) -> Option<Waker> {
    // SAFETY: [E3] its wait is not decided yet.
    let waiter = unsafe { node.as_ref() };
    hand(&Hand(waiter));
    let party = waiter.party.get()?;
    let case = waiter.case.get();
    // SAFETY: [E3] as above.
    let party = unsafe { party.as_ref() };
    // SAFETY: 1. claimed by `first_of`, under the lock. 2. this is the last of it.
    unsafe { party.decide(case) }
}

/// A waiter whose value may be touched: claimed, and under its lock.
struct Hand<'a, T>(&'a Waiter<T>);

impl<T> Hand<'_, T> {
    #[inline]
    fn set(&self, value: Option<T>) {
        // SAFETY: [E4] as this type says; a receiver has no value.
        unsafe { self.0.set(value) };
    }

    #[inline]
    fn take(&self) -> Option<T> {
        // SAFETY: [E4] as this type says.
        unsafe { self.0.take() }
    }
}

impl<T> Channel<T> {
    /// An open channel with one handle on each side.
    pub(crate) fn new(capacity: usize) -> Self {
        let open = if capacity == 0 { 0 } else { Ready::SEND };
        Self {
            ready: AtomicU64::new(open),
            state: Unranked::new(State {
                buffer: VecDeque::with_capacity(capacity),
                receivers: List::new(),
                senders: List::new(),
                closed: false,
                close_called: false,
            }),
            capacity,
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(1),
        }
    }

    /// Its address, to name it in a dump.
    pub(super) fn address(&self) -> usize {
        (&raw const *self).addr()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().buffer.len()
    }

    /// Which operations could succeed at this moment.
    #[inline]
    pub(super) fn ready(&self) -> Ready {
        // Acquire: two words that are seen unchanged twice were so at one moment, as each later read sees what came before
        // what an earlier one saw; pairs with the Release in `publish`.
        Ready(self.ready.load(Ordering::Acquire))
    }

    /// Says what the state allows. Under the lock.
    #[inline]
    fn publish(&self, state: &State<T>) {
        let mut bits = 0;
        if state.buffer.len() < self.capacity || !state.receivers.is_empty() {
            bits |= Ready::SEND;
        }
        if !state.buffer.is_empty() || !state.senders.is_empty() {
            bits |= Ready::RECV;
        }
        if state.closed {
            bits |= Ready::BITS;
        }
        // Relaxed: written under the lock only, which is held.
        let old = self.ready.load(Ordering::Relaxed);
        if old & Ready::BITS != bits {
            let next_version = (old | Ready::BITS) + 1;
            // Release: pairs with the Acquire in `ready`.
            self.ready.store(next_version | bits, Ordering::Release);
        }
    }

    /// Runs `change` under the lock.
    #[inline]
    fn change<R>(&self, change: impl FnOnce(&mut State<T>) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state);
        self.publish(&state);
        result
    }

    /// Sends `value`, or receives into it, if that needs no waiting.
    #[inline]
    pub(super) fn attempt(&self, side: Side, value: &mut Option<T>) -> Outcome {
        if !self.ready().is(side) {
            return Outcome::NotReady;
        }
        let mut wake = None;
        let outcome =
            self.change(|state| state.attempt(side, value, Me::Unknown, self.capacity, &mut wake));
        if let Some(waker) = wake {
            waker.wake();
        }
        outcome
    }

    /// `attempt` for a waiter that is in no queue.
    ///
    /// # Safety
    /// 1. The caller owns the waiter, which is in no queue.
    #[inline]
    pub(super) unsafe fn attempt_for(&self, side: Side, waiter: &Waiter<T>) -> Outcome {
        waiter.value.with_mut(|value| {
            // SAFETY: [E4] clause 1.
            self.attempt(side, unsafe { &mut *value })
        })
    }

    /// Does what `attempt` does for a party that is armed, or else puts `waiter` into its queue.
    ///
    /// After `Done` with [`Me::InQueues`] the caller holds the claim on its party.
    ///
    /// # Safety
    /// 1. The caller owns the waiter and the party, which is armed after the lock is taken (by `arm`) or before.
    /// 2. Both stay where they are until [E3] lets them go.
    pub(super) unsafe fn attempt_or_enqueue(
        &self,
        side: Side,
        waiter: &Waiter<T>,
        (party, case): (&Party, usize),
        me: Me<'_>,
        arm: impl FnOnce(),
    ) -> Outcome {
        let mut wake = None;
        let outcome = self.change(|state| {
            let outcome = waiter.value.with_mut(|value| {
                // SAFETY: [E4] in a queue or not, this is its lock and its owner.
                state.attempt(side, unsafe { &mut *value }, me, self.capacity, &mut wake)
            });
            if outcome == Outcome::NotReady {
                arm();
                if !waiter.queued.replace(true) {
                    waiter.party.set(Some(NonNull::from(party)));
                    waiter.case.set(case);
                    // SAFETY: 1. it is in no queue; clause 2. 2. this is its lock.
                    unsafe { state.queue(side).push_back(NonNull::from(waiter)) };
                }
            }
            outcome
        });
        if let Some(waker) = wake {
            waker.wake();
        }
        outcome
    }

    /// Takes `waiter` out of its queue, if it still is in it.
    ///
    /// # Safety
    /// 1. The caller owns the waiter, which went into that queue of this channel, if into any.
    pub(super) unsafe fn dequeue(&self, side: Side, waiter: &Waiter<T>) {
        self.change(|state| {
            if waiter.queued.replace(false) {
                // SAFETY: 1. it is in that queue, and this is its lock.
                unsafe { state.queue(side).remove(NonNull::from(waiter)) };
            }
        });
    }

    /// Runs `f` under the lock: for the party of one operation.
    pub(super) fn locked<R>(&self, f: impl FnOnce() -> R) -> R {
        let _held = self.state.lock();
        f()
    }

    /// A value was handed to a receiver that is gone: it goes to the next, or to the head of the buffer, which may then
    /// hold one more than its capacity.
    #[cold]
    pub(super) fn give_back(&self, value: T) {
        let mut value = Some(value);
        let waker = self.change(|state| {
            if let Some(Ok(receiver)) = first_of(&mut state.receivers, Me::Unknown) {
                // SAFETY: [E4] it was in a queue of this channel, and this is its lock.
                return unsafe { exchange(receiver, |into| into.set(value.take())) };
            }
            if let Some(value) = value.take() {
                state.buffer.push_front(value);
            }
            None
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Closes the channel because somebody said so. False if somebody had.
    pub(super) fn close(&self) -> bool {
        let first = !self.change(|state| std::mem::replace(&mut state.close_called, true));
        if first {
            self.shut();
        }
        first
    }

    /// Nobody can receive any more: sends fail, and what is in the buffer is dropped.
    #[cold]
    pub(super) fn abandon(&self) {
        self.shut();
        let rest = self.change(|state| std::mem::take(&mut state.buffer));
        drop(rest);
    }

    /// No sends from now on. Everybody who waits is told.
    #[cold]
    pub(super) fn shut(&self) {
        let mut batch = WakeBatch::new();
        loop {
            let more = self.change(|state| {
                state.closed = true;
                state.tell_closed(&mut batch)
            });
            batch.wake_all();
            if !more {
                return;
            }
        }
    }
}

impl<T> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .field("closed", &self.ready().is_closed())
            .finish_non_exhaustive()
    }
}
