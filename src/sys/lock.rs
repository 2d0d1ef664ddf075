//! Mutexes with an order: data lives inside [`Ranked`], and a thread takes locks in rising rank only.
//!
//! In debug builds a thread that takes a lock of a rank not above the ones it holds dies at once, so a deadlock that
//! would need an unlucky schedule is found by any run that takes both locks.

#[cfg(debug_assertions)]
use std::cell::RefCell;

use parking_lot::MutexGuard;

/// A lock outside the order: no ranked lock is held when it is taken, and user code may run under it.
#[allow(
    clippy::disallowed_types,
    reason = "this is where the plain mutex is named"
)]
pub(crate) type Unranked<T> = parking_lot::Mutex<T>;

#[cfg(debug_assertions)]
use crate::sys::fatal::fatal_args;

/// The order of all locks, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The collector thread's mailbox.
    Mailbox,
    /// The list of mutators.
    Registry,
    /// The list of frames.
    Frames,
    /// The list of root blocks.
    Roots,
    /// Interning of span classes.
    Classes,
    /// Span sets of one span class.
    Central,
    /// The page heap.
    Pages,
    /// Full work buffers.
    Work,
    /// Figures.
    Stats,
}

#[cfg(debug_assertions)]
thread_local! {
    static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
}

/// A mutex around its data, with a place in the lock order.
#[derive(Debug)]
pub(crate) struct Ranked<T> {
    rank: Rank,
    inner: Unranked<T>,
}

impl<T> Ranked<T> {
    pub(crate) const fn new(rank: Rank, value: T) -> Self {
        Self {
            rank,
            inner: Unranked::new(value),
        }
    }

    /// Takes the lock, waiting for it.
    #[inline]
    pub(crate) fn lock(&self) -> Held<'_, T> {
        push(self.rank);
        Held {
            guard: self.inner.lock(),
            rank: self.rank,
        }
    }
}

/// The lock is held; dropping this releases it.
#[derive(Debug)]
pub(crate) struct Held<'a, T> {
    guard: MutexGuard<'a, T>,
    rank: Rank,
}

impl<T> Held<'_, T> {
    /// Waits on `condvar`, releasing the lock meanwhile.
    pub(crate) fn wait_on(&mut self, condvar: &parking_lot::Condvar, limit: std::time::Duration) {
        condvar.wait_for(&mut self.guard, limit);
    }
}

impl<T> std::ops::Deref for Held<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> std::ops::DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        pop(self.rank);
    }
}

#[cfg(debug_assertions)]
fn push(rank: Rank) {
    // A thread whose thread-locals are gone cannot be checked any more; its locks still work.
    let _ = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        if let Some(&top) = held.last()
            && top >= rank
        {
            fatal_args(format_args!(
                "lock order: {rank:?} taken while {top:?} is held"
            ));
        }
        held.push(rank);
    });
}

#[cfg(debug_assertions)]
fn pop(rank: Rank) {
    let _ = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        if let Some(at) = held.iter().rposition(|&r| r == rank) {
            held.remove(at);
        }
    });
}

#[cfg(not(debug_assertions))]
#[inline(always)]
fn push(_: Rank) {}

#[cfg(not(debug_assertions))]
#[inline(always)]
fn pop(_: Rank) {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn rising_ranks_are_taken_and_released() {
        let outer = Ranked::new(Rank::Registry, 1);
        let inner = Ranked::new(Rank::Pages, 2);
        {
            let a = outer.lock();
            let b = inner.lock();
            assert_eq!(*a + *b, 3);
        }
        let b = inner.lock();
        drop(b);
        let mut a = outer.lock();
        *a += 1;
        assert_eq!(*a, 2);
    }
}
