//! Mutexes with an order: the data lives inside [`Ranked`], and a thread takes locks only in rising
//! rank.
//!
//! **Claim.** A deadlock among ranked locks is found by any run that takes both locks, not only by
//! an unlucky schedule.
//!
//! **How.** In debug builds a thread that takes a lock whose rank is not above the ranks it holds
//! ends the process at once.
//!
//! Debug builds hold two more rules in the same way, whatever the schedule:
//!
//! - While a thread holds a [`Brief`] lock, only code of this crate runs. Foreign code is a waker
//!   that is cloned, woken or dropped, or a user's value that is dropped. It might take the same
//!   lock, or wait for a thread that waits for that lock. [`assert_none_held`] stands before such
//!   code.
//! - A thread waits for a claim (`sched/chan/party.rs`) by trying again. It makes claims in rising
//!   order, and takes no lock while it has one, because the thread that holds the lock may be
//!   waiting for the claim.

#[cfg(all(debug_assertions, not(loom)))]
use std::cell::{Cell, RefCell};

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

/// A lock outside the order. A thread that takes it holds no ranked lock, and user code may run
/// under it.
#[allow(
    clippy::disallowed_types,
    reason = "this is where the plain mutex is named"
)]
pub(crate) type Unranked<T> = Mutex<T>;

/// Takes the lock if that is possible within `limit`. In a model the limit never passes.
pub(crate) fn lock_within<T>(
    lock: &Unranked<T>,
    limit: std::time::Duration,
) -> Option<MutexGuard<'_, T>> {
    #[cfg(not(any(loom, shuttle)))]
    return lock.try_lock_for(limit);
    #[cfg(any(loom, shuttle))]
    {
        let _ = limit;
        Some(lock.lock())
    }
}

/// A lock outside the order under which only code of this crate runs; see the head of this file.
#[derive(Debug)]
#[cfg_attr(not(feature = "sched"), allow(dead_code, reason = "the scheduler's"))]
pub(crate) struct Brief<T>(Unranked<T>);

#[cfg_attr(not(feature = "sched"), allow(dead_code, reason = "the scheduler's"))]
impl<T> Brief<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new(value: T) -> Self {
        Self(Unranked::new(value))
    }

    #[cfg(loom)]
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Takes the lock; waits for it.
    #[inline]
    pub(crate) fn lock(&self) -> BriefGuard<'_, T> {
        this_thread::enter_brief();
        BriefGuard(self.0.lock())
    }
}

/// Stands for a held [`Brief`] lock. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct BriefGuard<'a, T>(MutexGuard<'a, T>);

impl<T> std::ops::Deref for BriefGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> std::ops::DerefMut for BriefGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Drop for BriefGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        this_thread::leave_brief();
    }
}

/// Checks that foreign code may run, which `what` names. In debug builds the process ends if this
/// thread holds a [`Brief`] or [`Ranked`] lock, or a claim.
#[inline]
#[cfg_attr(not(feature = "sched"), allow(dead_code, reason = "the scheduler's"))]
pub(crate) fn assert_none_held(what: &str) {
    this_thread::assert_none_held(what);
}

/// Records that this thread has made the claim with this place in the order.
#[inline]
#[cfg_attr(not(feature = "sched"), allow(dead_code, reason = "the scheduler's"))]
pub(crate) fn begin_claim(place: usize) {
    this_thread::begin_claim(place);
}

/// Records that this thread has given the claim back, or has used it up.
#[inline]
#[cfg_attr(not(feature = "sched"), allow(dead_code, reason = "the scheduler's"))]
pub(crate) fn end_claim(place: usize) {
    this_thread::end_claim(place);
}

/// What a thread holds besides ranked locks.
#[cfg(all(debug_assertions, not(loom)))]
#[cfg_attr(not(feature = "sched"), allow(dead_code, reason = "the scheduler's"))]
mod this_thread {
    use super::{Cell, HELD, fatal_args, thread_local};

    thread_local! {
        static BRIEF: Cell<usize> = const { Cell::new(0) };
        static CLAIMS: Cell<Claims> = const { Cell::new(Claims::NONE) };
    }

    /// The places of a thread's claims, in the order in which it made them. A thread claims at most
    /// two selects at once, those that meet.
    #[derive(Clone, Copy)]
    struct Claims {
        first: Option<usize>,
        second: Option<usize>,
    }

    impl Claims {
        const NONE: Self = Self {
            first: None,
            second: None,
        };

        /// Whether this thread has claims. A thread whose thread-locals are gone cannot be checked,
        /// as with ranks.
        fn are_held() -> bool {
            CLAIMS
                .try_with(Cell::get)
                .is_ok_and(|claims| claims.first.is_some())
        }
    }

    pub(super) fn enter_brief() {
        if Claims::are_held() {
            fatal_args(format_args!("a lock is taken while a claim is held"));
        }
        let _ = BRIEF.try_with(|held| held.set(held.get() + 1));
    }

    pub(super) fn leave_brief() {
        let _ = BRIEF.try_with(|held| held.set(held.get() - 1));
    }

    pub(super) fn assert_none_held(what: &str) {
        let brief = BRIEF.try_with(Cell::get).unwrap_or(0);
        let ranked = HELD.try_with(|held| held.borrow().last().copied());
        if brief != 0 || Claims::are_held() {
            fatal_args(format_args!("{what} while a lock or claim is held"));
        }
        if let Ok(Some(rank)) = ranked {
            fatal_args(format_args!("{what} while {rank:?} is held"));
        }
    }

    pub(super) fn begin_claim(place: usize) {
        let _ = CLAIMS.try_with(|claims| {
            let held = claims.get();
            match (held.first, held.second) {
                (None, _) => claims.set(Claims {
                    first: Some(place),
                    second: None,
                }),
                (Some(first), None) if first < place => claims.set(Claims {
                    first: Some(first),
                    second: Some(place),
                }),
                _ => fatal_args(format_args!("claims are made out of order")),
            }
        });
    }

    pub(super) fn end_claim(place: usize) {
        let _ = CLAIMS.try_with(|claims| {
            let held = claims.get();
            claims.set(if held.second == Some(place) {
                Claims {
                    second: None,
                    ..held
                }
            } else {
                Claims {
                    first: held.second,
                    second: None,
                }
            });
        });
    }
}

#[cfg(any(not(debug_assertions), loom))]
#[cfg_attr(not(feature = "sched"), allow(dead_code, reason = "the scheduler's"))]
mod this_thread {
    #[inline(always)]
    pub(super) fn enter_brief() {}
    #[inline(always)]
    pub(super) fn leave_brief() {}
    #[inline(always)]
    pub(super) fn assert_none_held(_: &str) {}
    #[inline(always)]
    pub(super) fn begin_claim(_: usize) {}
    #[inline(always)]
    pub(super) fn end_claim(_: usize) {}
}

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
    /// The pool of blocks that hold root slots.
    Blocks,
    /// Interning of span classes.
    Classes,
    /// Span sets of one span class.
    Central,
    /// The page heap.
    Pages,
    /// Full work buffers.
    Work,
    /// What objects share outside the heap.
    Shared,
    /// Statistics.
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

    /// Takes the lock; waits for it.
    #[inline]
    pub(crate) fn lock(&self) -> Held<'_, T> {
        push(self.rank);
        Held {
            guard: self.inner.lock(),
            rank: self.rank,
        }
    }
}

/// Stands for a held lock. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct Held<'a, T> {
    guard: MutexGuard<'a, T>,
    rank: Rank,
}

impl<T> Held<'_, T> {
    /// Waits on `condvar`, and releases the lock meanwhile.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn wait_on(&mut self, condvar: &Condvar, limit: std::time::Duration) {
        condvar.wait_for(&mut self.guard, limit);
    }

    /// In a model under loom the limit passes at once. Under shuttle a short limit does, and a
    /// limit of a second or more never passes.
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

// loom runs all threads of a model on one OS thread, which would be charged with the locks of all
// of them.
#[cfg(all(debug_assertions, not(loom)))]
fn push(rank: Rank) {
    // A thread whose thread-locals are gone cannot be checked; its locks still work.
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

/// The interface of parking_lot over the checker's mutex and condition variable.
///
/// The limit of a wait on the condition variable never passes, so in a model a lost wake-up is a
/// deadlock.
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

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    impl<T> MutexGuard<'_, T> {
        /// Releases the lock, lets other threads run, and takes the lock again, like a spurious
        /// wake-up.
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

    /// How a wait ended, which is never by its limit.
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

    /// Locks and claims that were given back do not stop foreign code.
    #[test]
    fn foreign_code_runs_between_locks() {
        let brief = Brief::new(1);
        *brief.lock() += 1;
        begin_claim(1);
        begin_claim(2);
        end_claim(1);
        end_claim(2);
        assert_none_held("a test goes on");
        assert_eq!(*brief.lock(), 2);
    }
}
