//! A lock whose waiters are futures.
//!
//! Normally a free lock goes to whoever comes first: an unlock calls the first waiter, and until that has run the lock is
//! open to others, which keeps it busy and cheap. A waiter that was called, found the lock taken, and has waited for
//! 1 ms, makes the lock starving: from then on each unlock hands the lock to the first waiter, and nobody else gets it,
//! until one gets it that has waited for less, or none is left. The rules and the limit are Go's (`internal/sync/mutex.go`).
//!
//! **Invariants**
//! - `[X3]` Who sets LOCKED, or is granted the lock by who held it, has the value for itself until it unlocks.
//! - `[X4]` WAITERS is set while the queue is not empty, and changes only under the lock of the queue. While it is set,
//!   LOCKED is cleared only under that lock. If the queue is not empty and LOCKED is clear, the first waiter has been called.
//! - `[X5]` While the lock is starving, both bits are set.

#[cfg(not(loom))]
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};

use super::queue::{Queue, Stage, Waiter};
use crate::sched::context::{note_wait, should_yield};
use crate::sched::wait::WaitReason;
use crate::sched::wakers::{KeptWaker, with_clone_if_needed};
#[cfg(not(loom))]
use crate::sys::clock::Moment;
use crate::sys::lock::Brief;
use crate::sys::sabotage::{Fault, is_on};
use crate::sys::sync::{AtomicU32, Ordering, UnsafeCell};

const LOCKED: u32 = 1;
const WAITERS: u32 = 2;

/// After how long a waiter makes the lock starving, in nanoseconds.
#[cfg(not(loom))]
const STARVING_NS: u64 = if cfg!(shuttle) { 20_000 } else { 1_000_000 };

/// A lock around a value, for tasks: to wait for it suspends the task and not its thread, and a guard may be held across an
/// `.await`.
///
/// A waiter that has been overtaken for 1 ms is the next one to get the lock, so nobody starves. The lock is not
/// reentrant: a task that locks it twice waits for itself. It is not poisoned by a panic: the guard unlocks, and the next one
/// finds the value as the panic left it. A forgotten guard keeps the lock held.
///
/// # Examples
/// ```
/// use greywave::{Heap, Mutex, Runtime, go};
///
/// static TOTAL: Mutex<u64> = Mutex::new(0);
///
/// let rt = Runtime::builder(&Heap::new()).procs(2).build()?;
/// rt.block_on(async {
///     let other = go(async {
///         *TOTAL.lock().await += 2;
///     });
///     *TOTAL.lock().await += 2;
///     other.await.expect("it does not panic");
///
///     let held = TOTAL.lock().await;
///     assert_eq!(*held, 4);
///     assert!(TOTAL.try_lock().is_none());
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Mutex<T> {
    state: AtomicU32,
    line: Brief<Line>,
    value: UnsafeCell<T>,
}

// SAFETY: [X3] the value goes from thread to thread, and two threads never have it at once.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// Those who wait.
#[derive(Debug)]
struct Line {
    waiters: Queue,
    /// The first has been called and has not come yet.
    called: bool,
    /// [X5]
    starving: bool,
}

impl Line {
    const fn new() -> Self {
        Self {
            waiters: Queue::new(),
            called: false,
            starving: false,
        }
    }

    /// Calls the first waiter, unless it has been.
    fn call(&mut self) -> Option<KeptWaker> {
        if self.called || self.waiters.is_empty() {
            return None;
        }
        self.called = true;
        self.waiters.call_first()
    }
}

impl<T> Mutex<T> {
    /// A free lock around `value`.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self {
            state: AtomicU32::new(0),
            line: Brief::new(Line::new()),
            value: UnsafeCell::new(value),
        }
    }

    /// A free lock around `value`; loom's parts cannot be made at compile time.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self {
            state: AtomicU32::new(0),
            line: Brief::new(Line::new()),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock, waiting until it is free.
    ///
    /// Dropping the future gives up the place in the line; if it had been given the lock already, the lock goes on to the
    /// next one.
    pub fn lock(&self) -> impl Future<Output = MutexGuard<'_, T>> {
        Lock {
            mutex: self,
            waiter: Waiter::new(),
            patience: Patience::new(),
        }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.try_acquire().then(|| MutexGuard::new(self))
    }

    /// The value, without locking: nobody else can hold the lock.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: `&mut self`: there is no guard.
        self.value.with_mut(|value| unsafe { &mut *value })
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Sets LOCKED if it is clear.
    #[inline]
    fn try_acquire(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & LOCKED == 0 {
            // Acquire: sees what the last holder wrote. [X3]
            match self.state.compare_exchange_weak(
                state,
                state | LOCKED,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Sets LOCKED if it is clear, and otherwise WAITERS, so that the holder will look at the queue. The queue's lock is held.
    fn acquire_or_announce(&self, _: &mut Line) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let bit = if state & LOCKED == 0 { LOCKED } else { WAITERS };
            // Acquire: as in `try_acquire`.
            match self.state.compare_exchange_weak(
                state,
                state | bit,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return bit == LOCKED,
                Err(now) => state = now,
            }
        }
    }

    /// Somebody has left the queue: the bit and the flag follow. [X4] [X5]
    fn note_departure(&self, line: &mut Line) {
        if line.waiters.is_empty() {
            line.starving = false;
            // Relaxed: the bit says only that the queue is worth a look.
            self.state.fetch_and(!WAITERS, Ordering::Relaxed);
        }
    }

    #[inline]
    fn unlock(&self) {
        // Release: the next holder sees what this one wrote. [X3]
        if self
            .state
            .compare_exchange(LOCKED, 0, Ordering::Release, Ordering::Relaxed)
            .is_err()
        {
            self.unlock_slow();
        }
    }

    #[cold]
    fn unlock_slow(&self) {
        let mut line = self.line.lock();
        let waker = if line.starving {
            let waker = line.waiters.grant_first();
            self.note_departure(&mut line);
            waker
        } else {
            // Release: as in `unlock`.
            self.state.fetch_and(!LOCKED, Ordering::Release);
            line.call()
        };
        let line = if is_on(Fault::WokenUnderLock) {
            Some(line)
        } else {
            drop(line);
            None
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        drop(line);
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Mutex");
        match self.try_lock() {
            Some(guard) => out.field("value", &*guard),
            None => out.field("value", &format_args!("<locked>")),
        };
        out.finish()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// Holds a [`Mutex`]; dropping this unlocks it, on any thread.
#[must_use = "the lock is free again as soon as this is dropped"]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Shared between threads only if the value may be.
    _value: PhantomData<&'a mut T>,
}

impl<'a, T> MutexGuard<'a, T> {
    fn new(mutex: &'a Mutex<T>) -> Self {
        Self {
            mutex,
            _value: PhantomData,
        }
    }

    /// The lock that `guard` holds.
    pub(super) fn mutex(guard: &Self) -> &'a Mutex<T> {
        guard.mutex
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: [X3]
        self.mutex.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: [X3]
        self.mutex.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.unlock();
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// How long a waiter has been waiting.
#[cfg(not(loom))]
#[derive(Debug)]
struct Patience(Cell<Option<Moment>>);

#[cfg(not(loom))]
impl Patience {
    const fn new() -> Self {
        Self(Cell::new(None))
    }

    fn begin(&self) {
        self.0.set(Some(Moment::now()));
    }

    fn is_over(&self) -> bool {
        self.0
            .get()
            .is_some_and(|since| since.elapsed_ns() >= STARVING_NS)
    }
}

/// A model has no clock: its waiters are patient until they were called in vain.
#[cfg(loom)]
#[derive(Debug)]
struct Patience;

#[cfg(loom)]
impl Patience {
    const fn new() -> Self {
        Self
    }

    fn begin(&self) {}

    fn is_over(&self) -> bool {
        true
    }
}

/// The future of [`Mutex::lock`].
struct Lock<'a, T> {
    mutex: &'a Mutex<T>,
    waiter: Waiter,
    patience: Patience,
}

impl<T> Lock<'_, T> {
    /// Joins the line unless the lock is free after all: true if it is held now.
    fn join(&self, cx: &Context<'_>) -> bool {
        let waker = KeptWaker::of(cx.waker());
        let mut line = self.mutex.line.lock();
        if self.mutex.acquire_or_announce(&mut line) {
            return true;
        }
        self.patience.begin();
        // SAFETY: [X2] it has not joined, it is pinned, and `drop` takes it out.
        unsafe { line.waiters.join(&self.waiter, waker) };
        false
    }

    /// Looks what has become of the waiter: true if the lock is held now.
    fn look(&self, cx: &Context<'_>) -> bool {
        with_clone_if_needed(cx.waker(), |fresh| {
            let mut line = self.mutex.line.lock();
            // SAFETY: [X1] it has joined this queue.
            let stage = unsafe { line.waiters.stage(&self.waiter) };
            let acquired = match stage {
                Stage::Granted | Stage::GrantedToAll => {
                    line.starving &= self.patience.is_over();
                    true
                }
                Stage::Called => {
                    line.called = false;
                    let acquired = self.mutex.try_acquire();
                    line.starving |= !acquired && self.patience.is_over();
                    acquired
                }
                Stage::Queued => false,
            };
            if acquired {
                // SAFETY: [X1] it has joined this queue.
                unsafe { line.waiters.leave(&self.waiter) };
                self.mutex.note_departure(&mut line);
                return Some(true);
            }
            // SAFETY: [X1] it has joined this queue, and was granted nothing.
            unsafe { line.waiters.wait_on(&self.waiter, fresh) }.then_some(false)
        })
    }
}

impl<'a, T> Future for Lock<'a, T> {
    type Output = MutexGuard<'a, T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mutex = self.mutex;
        let acquired = if self.waiter.has_joined() {
            self.look(cx)
        } else if should_yield(cx) {
            return Poll::Pending;
        } else {
            mutex.try_acquire() || self.join(cx)
        };
        if acquired {
            return Poll::Ready(MutexGuard::new(mutex));
        }
        note_wait(WaitReason::Mutex, ptr::from_ref(mutex).addr());
        Poll::Pending
    }
}

impl<T> Drop for Lock<'_, T> {
    fn drop(&mut self) {
        if !self.waiter.has_joined() {
            return;
        }
        let mut line = self.mutex.line.lock();
        // SAFETY: [X1] it has joined this queue.
        let stage = unsafe { line.waiters.leave(&self.waiter) };
        self.mutex.note_departure(&mut line);
        let mut waker = None;
        if stage == Stage::Called {
            line.called = false;
            // If it is held, its holder will call. [X4]
            if self.mutex.state.load(Ordering::Relaxed) & LOCKED == 0 {
                waker = line.call();
            }
        }
        drop(line);
        if matches!(stage, Stage::Granted | Stage::GrantedToAll) {
            self.mutex.unlock();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
