//! A channel: its buffer, its two queues of waiters, and what each operation does under its lock.
//!
//! Every operation takes the lock once, for tens of nanoseconds. Under it nobody's code runs: wakers and values leave it
//! and are woken and dropped outside (`wakers.rs`). No two channels are ever locked at once: a select visits its channels one by one,
//! and its [`Party`] says who ends it.
//!
//! Beside the lock is a word that says whether a send or a receive could succeed, for whoever only wants to look. It
//! changes with a version, so a select that saw no case ready can find out whether that was so at one moment:
//! if no word has changed when it has seen all, it was.
//!
//! **Invariants**
//! - `[E3]` A waiter in a queue, and its party, stay where they are. Before it frees them, their owner takes each waiter
//!   out of its queue, or sees that the wait was decided in its case, which took it out. That hangs on what the owner knows
//!   of the waiter, never on the state of the party, which others change; a waiter that is dropped in a queue ends the process.
//! - `[E4]` What is in a waiter's value belongs to its owner while the waiter is in no queue, and to the holder of the
//!   lock of its channel while it is in one; from `Decided` on to the owner.
//! - A buffer of up to [`AT_ONCE`] bytes is allocated with the channel. A larger one grows as it is filled, up to the capacity,
//!   and goes back to that size as the crowd goes (`base/crowd.rs`), whether or not it is ever empty.
//! - While a receiver waits that can be had, the buffer is empty; while such a sender waits, it is full.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::ptr::NonNull;

use crate::base::crowd::shrink_after_crowd;
use crate::sched::chan::party::{Claim, Me, Party, Progress, claim_with};
use crate::sched::list::{Linked, Links, List};
use crate::sched::wakers::{KeptWaker, Wakers};
use crate::sys::fatal::fatal;
use crate::sys::lock::Brief;
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

impl<T> Drop for Waiter<T> {
    #[inline]
    fn drop(&mut self) {
        // Its owner has left under the lock, or seen the outcome; so this is the last that was written.
        if self.queued.get() {
            // [E3] Others would go on to follow its links.
            fatal("a waiter of a channel is dropped while it is in a queue");
        }
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
    state: Brief<State<T>>,
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

/// How large a buffer is allocated with its channel, in bytes, and kept when it is empty.
const AT_ONCE: usize = 64 << 10;

impl<T> State<T> {
    /// As [`AT_ONCE`], in values; at least one.
    const KEPT: usize = match AT_ONCE.checked_div(size_of::<T>()) {
        None => usize::MAX,
        Some(0) => 1,
        Some(count) => count,
    };

    /// Puts `value` at the end of the buffer, for which there is room in the channel.
    #[inline]
    fn push(&mut self, value: T, capacity: usize) {
        if self.buffer.len() == self.buffer.capacity() {
            self.grow(capacity);
        }
        self.buffer.push_back(value);
    }

    /// Twice as large, but not larger than the channel.
    #[cold]
    fn grow(&mut self, capacity: usize) {
        let len = self.buffer.len();
        let more = capacity.saturating_sub(len).min(len.max(Self::KEPT));
        self.buffer.reserve_exact(more.max(1));
    }

    /// Takes the oldest value out of the buffer.
    #[inline]
    fn pop(&mut self) -> Option<T> {
        let value = self.buffer.pop_front();
        shrink_after_crowd(&mut self.buffer, Self::KEPT);
        value
    }

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
        wake: &mut Option<KeptWaker>,
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
        wake: &mut Option<KeptWaker>,
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
        if !me.claim() {
            return Outcome::Lost;
        }
        if let Some(value) = value.take() {
            self.push(value, capacity);
        }
        Outcome::Done
    }

    #[inline]
    fn recv(
        &mut self,
        into: &mut Option<T>,
        me: Me<'_>,
        capacity: usize,
        wake: &mut Option<KeptWaker>,
    ) -> Outcome {
        if !self.buffer.is_empty() {
            // The oldest waiting sender comes into the room that this makes. It is looked for before `me` is claimed alone.
            if !self.senders.is_empty() && self.buffer.len() <= capacity && !self.closed {
                match first_of(&mut self.senders, me) {
                    Some(Ok(sender)) => {
                        *into = self.buffer.pop_front();
                        let buffer = &mut self.buffer;
                        // SAFETY: [E4] it was in a queue of this channel, and the caller has the lock.
                        *wake = unsafe { exchange(sender, |from| buffer.extend(from.take())) };
                        return Outcome::Done;
                    }
                    Some(Err(OwnLost)) => return Outcome::Lost,
                    None => {}
                }
            }
            if !me.claim() {
                return Outcome::Lost;
            }
            *into = self.pop();
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

    /// Ends waits with the news that the channel is closed, as many as fit. True if there may be more.
    fn tell_closed(&mut self, batch: &mut Wakers) -> bool {
        for side in [Side::Recv, Side::Send] {
            loop {
                if batch.len() == Wakers::FEW {
                    return true;
                }
                let Some(Ok(waiter)) = first_of(self.queue(side), Me::Unknown) else {
                    break;
                };
                // SAFETY: as in `send`; the value stays: a sender gets it back, a receiver has none.
                batch.add(unsafe { exchange(waiter, |_| ()) });
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
    if me.claim() {
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
unsafe fn exchange<T>(
    node: NonNull<Waiter<T>>,
    hand: impl FnOnce(&Hand<'_, T>),
) -> Option<KeptWaker> {
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
    ///
    /// # Panics
    /// When so many values are more than `isize::MAX` bytes.
    #[track_caller]
    pub(crate) fn new(capacity: usize) -> Self {
        let size = size_of::<T>();
        assert!(
            size == 0 || capacity <= isize::MAX as usize / size,
            "the capacity of a channel is at most isize::MAX bytes: {capacity} values of {size} bytes are more"
        );
        Self::with_buffer(
            VecDeque::with_capacity(capacity.min(State::<T>::KEPT)),
            capacity,
        )
    }

    fn with_buffer(buffer: VecDeque<T>, capacity: usize) -> Self {
        let open = if capacity == 0 { 0 } else { Ready::SEND };
        Self {
            ready: AtomicU64::new(open),
            state: Brief::new(State {
                buffer,
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

    /// As `attempt`, for a caller that holds something which a waker's code may want: it wakes whom this returns later.
    pub(super) fn attempt_quietly(
        &self,
        side: Side,
        value: &mut Option<T>,
    ) -> (Outcome, Option<KeptWaker>) {
        let mut wake = None;
        let outcome =
            self.change(|state| state.attempt(side, value, Me::Unknown, self.capacity, &mut wake));
        (outcome, wake)
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
    /// A wait that was decided meanwhile is `Lost`, and goes into no queue. With [`Me::InQueues`], `Done` says that the wait of
    /// the caller's party is decided in this case, and the waiter is in no queue: both happen under the lock that made it
    /// possible, and before anybody's waker runs.
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
        let mut own = None;
        let outcome = self.change(|state| {
            let mut outcome = waiter.value.with_mut(|value| {
                // SAFETY: [E4] in a queue or not, this is its lock and its owner.
                state.attempt(side, unsafe { &mut *value }, me, self.capacity, &mut wake)
            });
            if outcome == Outcome::NotReady
                && let Me::InQueues(own) = me
                && matches!(own.progress(), Progress::Decided(_))
            {
                // Armed, and decided since: perhaps in this case, which was here since an earlier round, and under this lock.
                // Then the waiter was taken out for good, and its owner does not look for it any more.
                outcome = Outcome::Lost;
            }
            if outcome == Outcome::NotReady {
                arm();
                if !waiter.queued.replace(true) {
                    waiter.party.set(Some(NonNull::from(party)));
                    waiter.case.set(case);
                    // SAFETY: 1. it is in no queue; clause 2. 2. this is its lock.
                    unsafe { state.queue(side).push_back(NonNull::from(waiter)) };
                }
            } else if outcome == Outcome::Done
                && let Me::InQueues(_) = me
            {
                // It may be here since an earlier round.
                if waiter.queued.replace(false) {
                    // SAFETY: 1. it is in that queue, and this is its lock.
                    unsafe { state.queue(side).remove(NonNull::from(waiter)) };
                }
                // SAFETY: 1. `Done` comes with the claim. 2. the owner.
                own = unsafe { party.decide(case) };
            }
            outcome
        });
        drop(own);
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
        let mut batch = Wakers::new();
        loop {
            let more = self.change(|state| {
                state.closed = true;
                state.tell_closed(&mut batch)
            });
            batch.wake();
            if !more {
                return;
            }
        }
    }
}

impl Channel<()> {
    /// An open channel that is full. O(1).
    #[allow(clippy::uninit_vec, reason = "values without a size have no bytes")]
    pub(super) fn full(capacity: usize) -> Self {
        let mut tokens = Vec::new();
        // SAFETY: 1. a list of values without a size has room for any number of them. 2. they have no bytes.
        unsafe { tokens.set_len(capacity) };
        let channel = Self::with_buffer(tokens.into(), capacity);
        channel.change(|_| ());
        channel
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

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn send<T>(channel: &Channel<T>, value: T) -> bool {
        let mut value = Some(value);
        channel.attempt(Side::Send, &mut value) == Outcome::Done
    }

    fn recv<T>(channel: &Channel<T>) -> Option<T> {
        let mut value = None;
        channel.attempt(Side::Recv, &mut value);
        value
    }

    fn room<T>(channel: &Channel<T>) -> usize {
        channel.state.lock().buffer.capacity()
    }

    #[test]
    fn a_small_buffer_is_allocated_once() {
        for capacity in [1, 100, AT_ONCE / 8] {
            let channel = Channel::<u64>::new(capacity);
            for _ in 0..3 {
                assert!((0..capacity).all(|i| send(&channel, i as u64)));
                assert!(!send(&channel, 0));
                assert_eq!(room(&channel), capacity);
                assert!((0..capacity).all(|i| recv(&channel) == Some(i as u64)));
                assert_eq!(recv(&channel), None);
            }
        }
    }

    /// A queue that is never quite empty does not keep its peak, nor does it shrink and grow by turns.
    #[test]
    fn a_large_buffer_follows_its_content_also_when_one_value_stays() {
        const CROWD: usize = 10 * AT_ONCE;
        let channel = Channel::<u8>::new(1 << 45);
        assert!((0..=CROWD).all(|_| send(&channel, 1)));
        assert!((0..CROWD).all(|_| recv(&channel) == Some(1)));
        assert_eq!(channel.len(), 1);
        let kept = room(&channel);
        assert!(kept <= AT_ONCE, "{kept} places for one value");
        for _ in 0..1000 {
            assert!(send(&channel, 1) && recv(&channel) == Some(1));
            assert_eq!(room(&channel), kept);
        }
        // Values of which one is more than what is kept.
        let large = Channel::<[u8; 2 * AT_ONCE]>::new(64);
        assert!((0..64).all(|_| send(&large, [1; 2 * AT_ONCE])));
        assert!((0..62).all(|_| recv(&large).is_some()));
        assert!(room(&large) < 64 / 2, "{}", room(&large));
        assert!((0..2).all(|_| recv(&large).is_some()) && room(&large) <= 1);
    }

    /// Capacities that no memory has room for cost nothing, and a crowd takes its memory with it.
    #[test]
    fn a_large_buffer_follows_its_content() {
        const CROWD: usize = 10 * AT_ONCE;
        for capacity in [1 << 45, CROWD] {
            let channel = Channel::<u8>::new(capacity);
            assert!(room(&channel) <= AT_ONCE);
            for _ in 0..2 {
                assert!((0..CROWD).all(|i| send(&channel, i as u8)));
                assert_eq!(send(&channel, 0), capacity > CROWD);
                assert!(room(&channel) <= 2 * CROWD.min(capacity));
                assert!((0..CROWD).all(|i| recv(&channel) == Some(i as u8)));
                while recv(&channel).is_some() {}
                assert!(room(&channel) <= AT_ONCE);
            }
        }
        // Values without a size need no memory, however many there are.
        let tokens = Channel::full(usize::MAX);
        assert!(!send(&tokens, ()) && recv(&tokens).is_some() && send(&tokens, ()));
    }

    #[test]
    #[should_panic(expected = "capacity of a channel is at most isize::MAX bytes")]
    fn a_capacity_that_no_address_reaches_is_refused() {
        drop(Channel::<u64>::new(usize::MAX));
    }
}
