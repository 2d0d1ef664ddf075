//! Mutexes with an order: data lives inside [`Ranked`], and a thread takes locks in rising rank only.
//!
//! In debug builds a thread that takes a lock of a rank not above the ones it holds dies at once, so a deadlock that
//! would need an unlucky schedule is found by any run that takes both locks.

#[cfg(all(debug_assertions, not(loom)))]
use std::cell::RefCell;

#[cfg(not(any(loom, shuttle)))]
#[allow(
    clippy::disallowed_types,
    reason = "this is where the plain mutex is named"
)]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(any(loom, shuttle))]
pub(crate) use crate::sys::lock::modelled::{Condvar, Mutex, MutexGuard};
#[cfg(all(debug_assertions, not(loom)))]
use crate::sys::{fatal::fatal_args, thread::thread_local};

/// A lock outside the order: no ranked lock is held when it is taken, and user code may run under it.
#[allow(
    clippy::disallowed_types,
    reason = "this is where the plain mutex is named"
)]
pub(crate) type Unranked<T> = Mutex<T>;

/// The order of all locks, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The collector thread's mailbox.
    Mailbox,
    /// The list of mutators.
    Registry,
    /// The pacer.
    Pacer,
    /// Mutators that wait for credit.
    Assists,
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

#[cfg(all(debug_assertions, not(loom)))]
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
    #[cfg(not(loom))]
    pub(crate) const fn new(rank: Rank, value: T) -> Self {
        Self {
            rank,
            inner: Unranked::new(value),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new(rank: Rank, value: T) -> Self {
        Self {
            rank,
            inner: Mutex::new(value),
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
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn wait_on(&mut self, condvar: &Condvar, limit: std::time::Duration) {
        condvar.wait_for(&mut self.guard, limit);
    }

    /// In a model with loom the limit passes at once. With shuttle a short one does, and one of a second or more never.
    #[cfg(any(loom, shuttle))]
    pub(crate) fn wait_on(&mut self, condvar: &Condvar, limit: std::time::Duration) {
        if cfg!(loom) || limit < std::time::Duration::from_secs(1) {
            self.guard.step_aside();
        } else {
            condvar.wait_for(&mut self.guard, limit);
        }
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

// loom runs all threads of a model on one OS thread, which would be charged with the locks of all.
#[cfg(all(debug_assertions, not(loom)))]
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

#[cfg(all(debug_assertions, not(loom)))]
fn pop(rank: Rank) {
    let _ = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        if let Some(at) = held.iter().rposition(|&r| r == rank) {
            held.remove(at);
        }
    });
}

#[cfg(any(not(debug_assertions), loom))]
#[inline(always)]
fn push(_: Rank) {}

#[cfg(any(not(debug_assertions), loom))]
#[inline(always)]
fn pop(_: Rank) {}

/// parking_lot's interface over the checker's mutex and condition variable.
///
/// A wait for the condition variable never ends by its limit: in a model a wake-up that is lost is a deadlock.
#[cfg(any(loom, shuttle))]
mod modelled {
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    use crate::sys::checker::sync;
    use crate::sys::sync::yield_now;

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        guard: Option<sync::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        #[cfg(loom)]
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        #[cfg(shuttle)]
        pub(crate) const fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard {
                mutex: self,
                guard: self.0.lock().ok(),
            }
        }
    }

    impl<T> MutexGuard<'_, T> {
        /// Gives the lock back, lets others run, and takes it again: a wait that ends for no reason.
        pub(super) fn step_aside(&mut self) {
            self.guard = None;
            yield_now();
            self.guard = self.mutex.0.lock().ok();
        }
    }

    const HELD: &str = "the checker's mutex is not poisoned: a model ends with the first panic";

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            self.guard.as_ref().expect(HELD)
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.guard.as_mut().expect(HELD)
        }
    }

    #[derive(Debug)]
    pub(crate) struct Condvar(sync::Condvar);

    /// How a wait ended: never by its limit.
    pub(crate) struct WaitResult;

    impl WaitResult {
        pub(crate) fn timed_out(&self) -> bool {
            false
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(sync::Condvar::new())
        }

        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> WaitResult {
            guard.guard = guard.guard.take().and_then(|held| self.0.wait(held).ok());
            WaitResult
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

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
