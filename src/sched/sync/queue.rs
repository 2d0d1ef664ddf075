//! Who waits for a lock, a count or an event: a list whose members live in the futures that wait.
//!
//! A waiter joins a queue. Then it is either called, which means that it may try again and keeps its place, or granted what
//! it waits for, which takes it out of the list. In the end it leaves.
//!
//! **Invariants**
//! - `[X1]` A waiter is used with one queue, the one that its future names. `joined` belongs to the future; everything else
//!   in the waiter is touched only under the lock around that queue.
//! - `[X2]` A waiter that has joined is pinned, and leaves before it is dropped: the drop of its future sees to that, by
//!   `joined` alone, whatever else has happened to the future. A waiter that is dropped in a line ends the process.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomPinned;
use std::mem::offset_of;
use std::ptr::NonNull;

use crate::sched::list::{Linked, Links, List};
use crate::sched::wakers::{Fresh, KeptWaker, Wakers};
use crate::sys::fatal::fatal;

/// How far a waiter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In the list.
    Queued,
    /// In the list, and woken to try for itself.
    Called,
    /// Out of the list: it has what it waits for.
    Granted,
    /// The same, with everybody else who waited.
    GrantedToAll,
}

/// One who waits. It is a field of a pinned future.
pub(super) struct Waiter {
    links: Links<Self>,
    stage: Cell<Stage>,
    /// Present while the stage is `Queued`.
    waker: Cell<Option<KeptWaker>>,
    joined: Cell<bool>,
    _pinned: PhantomPinned,
}

#[allow(
    clippy::non_send_fields_in_send_ty,
    reason = "the links point to waiters on other threads; the lock orders them"
)]
// SAFETY: [X1] links, stage and waker are touched under a lock, on whichever thread that is; a `Waker` is `Send`.
unsafe impl Send for Waiter {}

// SAFETY: 1. `links` is the only one.
unsafe impl Linked for Waiter {
    fn links(node: NonNull<Self>) -> NonNull<Links<Self>> {
        // SAFETY: inside the waiter.
        unsafe { node.byte_add(offset_of!(Self, links)) }.cast()
    }
}

impl Waiter {
    pub(super) const fn new() -> Self {
        Self {
            links: Links::new(),
            stage: Cell::new(Stage::Queued),
            waker: Cell::new(None),
            joined: Cell::new(false),
            _pinned: PhantomPinned,
        }
    }

    /// Whether it is in a queue, or was granted something and has not left yet.
    pub(super) fn has_joined(&self) -> bool {
        self.joined.get()
    }
}

impl Drop for Waiter {
    #[inline]
    fn drop(&mut self) {
        if self.joined.get() {
            // [X2] Others would go on to follow its links.
            fatal("a waiter of a lock is dropped while it stands in line");
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiter")
    }
}

/// The waiters of a primitive, first in, first out. It is inside a lock, so `&mut Queue` means that the lock is held.
#[derive(Debug)]
pub(super) struct Queue(List<Waiter>);

impl Queue {
    pub(super) const fn new() -> Self {
        Self(List::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts `waiter` at the end.
    ///
    /// # Safety
    /// 1. `waiter` has not joined a queue, is pinned, and leaves this queue before it is dropped.
    pub(super) unsafe fn join(&mut self, waiter: &Waiter, waker: KeptWaker) {
        waiter.joined.set(true);
        waiter.stage.set(Stage::Queued);
        // A waker of an earlier wait has been taken by whoever ended that wait, so nothing is dropped here.
        waiter.waker.set(Some(waker));
        // SAFETY: clause 1; `&mut self` is the lock.
        unsafe { self.0.push_back(NonNull::from(waiter)) };
    }

    /// How far `waiter` is.
    ///
    /// # Safety
    /// 1. `waiter` has joined this queue.
    pub(super) unsafe fn stage(&self, waiter: &Waiter) -> Stage {
        waiter.stage.get()
    }

    /// `waiter`, which is in the list, waits on with the waker of this poll. False: that needs a clone, which is made without
    /// the lock. Meanwhile the waiter may be called or granted, without being woken: its owner looks again.
    ///
    /// # Safety
    /// 1. `waiter` has joined this queue and has not been granted anything.
    #[must_use]
    pub(super) unsafe fn wait_on(&mut self, waiter: &Waiter, fresh: &mut Fresh<'_>) -> bool {
        waiter.stage.set(Stage::Queued);
        let mut waker = waiter.waker.take();
        let is_right = fresh.put_into(&mut waker);
        waiter.waker.set(waker);
        is_right
    }

    /// `waiter` is done here, whatever for. Its waker stays in it, to be dropped with it.
    ///
    /// # Safety
    /// 1. `waiter` has joined this queue.
    pub(super) unsafe fn leave(&mut self, waiter: &Waiter) -> Stage {
        waiter.joined.set(false);
        let stage = waiter.stage.get();
        if matches!(stage, Stage::Queued | Stage::Called) {
            // SAFETY: [X1] it is in this list; `&mut self` is the lock.
            unsafe { self.0.remove(NonNull::from(waiter)) };
        }
        stage
    }

    /// Tells the first to try for itself.
    pub(super) fn call_first(&mut self) -> Option<KeptWaker> {
        let first = self.0.first()?;
        // SAFETY: [X2] what is in the list lives; [X1] and `&mut self` is the lock.
        let first = unsafe { first.as_ref() };
        first.stage.set(Stage::Called);
        first.waker.take()
    }

    /// Grants the first what it waits for. `None` also if it has been woken already.
    pub(super) fn grant_first(&mut self) -> Option<KeptWaker> {
        self.grant(Stage::Granted)
    }

    /// Grants everybody what they wait for, and returns how many they were.
    pub(super) fn grant_all(&mut self, wakers: &mut Wakers) -> usize {
        let count = self.0.len();
        while !self.is_empty() {
            wakers.add(self.grant(Stage::GrantedToAll));
        }
        count
    }

    fn grant(&mut self, stage: Stage) -> Option<KeptWaker> {
        // SAFETY: `&mut self` is the lock.
        let first = unsafe { self.0.pop_front() }?;
        // SAFETY: [X2] it lives until it has left, for which it needs the lock; [X1].
        let first = unsafe { first.as_ref() };
        first.stage.set(stage);
        first.waker.take()
    }
}
