//! A value that is made when it is first asked for.
//!
//! **Invariant**
//! - `[X9]` The state changes under the lock of the queue. While it is RUNNING there is one [`Claim`], or one waiter that was
//!   granted it, and only its holder touches the value. Once it is READY the value is there and is only read.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};

use super::queue::{Queue, Stage, Waiter};
use crate::sched::context::{note_wait, should_yield};
use crate::sched::wait::WaitReason;
use crate::sched::wakers::{KeptWaker, Wakers, with_clone_if_needed};
use crate::sys::lock::Brief;
use crate::sys::sync::{AtomicU32, Ordering, UnsafeCell};

const EMPTY: u32 = 0;
const RUNNING: u32 = 1;
const READY: u32 = 2;

/// A cell that is filled once, by a task that may have to wait while it makes the value.
///
/// One initializer runs at a time, and those who come meanwhile wait for it. If it fails, panics, or its task is dropped,
/// the next one runs its own. (Go's `sync.Once` counts a panic as done; here there would be no value.) An initializer that
/// asks for the value of its own cell waits for itself.
///
/// # Examples
/// ```
/// use greywave::{Heap, Once, Runtime};
///
/// static NAME: Once<String> = Once::new();
///
/// let rt = Runtime::builder(&Heap::new()).procs(2).build()?;
/// rt.block_on(async {
///     assert_eq!(NAME.get(), None);
///     let name = NAME.get_or_init(async || "grey".to_owned()).await;
///     assert_eq!(name, "grey");
///     assert_eq!(NAME.set("wave".into()), Err("wave".into()));
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Once<T> {
    state: AtomicU32,
    line: Brief<Queue>,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: [X9] the value is written by one thread, then shared, and may be dropped on another.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    /// An empty cell.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            state: AtomicU32::new(EMPTY),
            line: Brief::new(Queue::new()),
            value: UnsafeCell::new(None),
        }
    }

    /// An empty cell; loom's parts cannot be made at compile time.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            state: AtomicU32::new(EMPTY),
            line: Brief::new(Queue::new()),
            value: UnsafeCell::new(None),
        }
    }

    /// The value, if it is there.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        // Acquire: sees the value. [X9]
        if self.state.load(Ordering::Acquire) != READY {
            return None;
        }
        // SAFETY: [X9] it is only read from now on.
        self.value.with(|value| unsafe { &*value }).as_ref()
    }

    /// The value; if it is not there, `init` makes it, or another task's initializer that was first.
    ///
    /// Dropping the future while its `init` runs hands over to the next one that waits.
    pub async fn get_or_init<F, Fut>(&self, init: F) -> &T
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = T>,
    {
        if let Some(claim) = self.claim().await {
            let value = init().await;
            claim.fulfil(value);
        }
        self.filled()
    }

    /// As [`get_or_init`](Self::get_or_init), for an initializer that may fail.
    ///
    /// # Errors
    /// What `init` returns; the cell stays empty, and the next one that waits runs its own initializer.
    pub async fn get_or_try_init<E, F, Fut>(&self, init: F) -> Result<&T, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        if let Some(claim) = self.claim().await {
            let value = init().await?;
            claim.fulfil(value);
        }
        Ok(self.filled())
    }

    /// Fills the cell.
    ///
    /// # Errors
    /// Gives `value` back if the cell is filled, or an initializer runs.
    pub fn set(&self, value: T) -> Result<(), T> {
        let line = self.line.lock();
        let is_empty = self.state.load(Ordering::Relaxed) == EMPTY;
        if is_empty {
            self.state.store(RUNNING, Ordering::Relaxed);
        }
        drop(line);
        if is_empty {
            Claim { once: self }.fulfil(value);
            Ok(())
        } else {
            Err(value)
        }
    }

    /// The value, if it is there, without synchronization: nobody else can use the cell.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: `&mut self`: there is no claim and no reference to the value.
        self.value.with_mut(|value| unsafe { &mut *value }).as_mut()
    }

    /// The value, if it is there.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    fn claim(&self) -> Claiming<'_, T> {
        Claiming {
            once: self,
            waiter: Waiter::new(),
        }
    }

    fn filled(&self) -> &T {
        match self.get() {
            Some(value) => value,
            None => unreachable!("no claim was given, or it was fulfilled"),
        }
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Once<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Once").field(&self.get()).finish()
    }
}

/// The right to fill the cell. Dropped without that, it goes to the next one.
struct Claim<'a, T> {
    once: &'a Once<T>,
}

impl<T> Claim<'_, T> {
    fn fulfil(self, value: T) {
        // SAFETY: [X9] this is the claim.
        self.once
            .value
            .with_mut(|slot| unsafe { *slot = Some(value) });
        let mut wakers = Wakers::new();
        let mut line = self.once.line.lock();
        // Release: who sees READY sees the value. [X9]
        self.once.state.store(READY, Ordering::Release);
        line.grant_all(&mut wakers);
        drop(line);
        drop(wakers);
    }
}

impl<T> Drop for Claim<'_, T> {
    fn drop(&mut self) {
        let mut line = self.once.line.lock();
        if self.once.state.load(Ordering::Relaxed) == READY {
            return;
        }
        if line.is_empty() {
            self.once.state.store(EMPTY, Ordering::Relaxed);
        }
        let next = line.grant_first();
        drop(line);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// Waits until the cell is filled, or this is the one to fill it.
struct Claiming<'a, T> {
    once: &'a Once<T>,
    waiter: Waiter,
}

impl<'a, T> Claiming<'a, T> {
    /// Claims or joins, or looks what has become of the waiter.
    fn look(&self, cx: &Context<'_>) -> Poll<Option<Claim<'a, T>>> {
        let once = self.once;
        if !self.waiter.has_joined() {
            let waker = KeptWaker::of(cx.waker());
            let mut line = once.line.lock();
            match once.state.load(Ordering::Relaxed) {
                READY => return Poll::Ready(None),
                EMPTY => {
                    once.state.store(RUNNING, Ordering::Relaxed);
                    return Poll::Ready(Some(Claim { once }));
                }
                // SAFETY: [X2] it has not joined, it is pinned, and `drop` takes it out.
                _ => unsafe { line.join(&self.waiter, waker) },
            }
            return Poll::Pending;
        }
        with_clone_if_needed(cx.waker(), |fresh| {
            let mut line = once.line.lock();
            // SAFETY: [X1] it has joined this queue.
            if unsafe { line.stage(&self.waiter) } != Stage::Queued {
                // SAFETY: [X1] as above.
                let stage = unsafe { line.leave(&self.waiter) };
                let claim = (stage == Stage::Granted).then(|| Claim { once });
                return Some(Poll::Ready(claim));
            }
            // SAFETY: [X1] it has joined this queue, and was granted nothing.
            unsafe { line.wait_on(&self.waiter, fresh) }.then_some(Poll::Pending)
        })
    }
}

impl<'a, T> Future for Claiming<'a, T> {
    type Output = Option<Claim<'a, T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.waiter.has_joined() {
            if should_yield(cx) {
                return Poll::Pending;
            }
            if self.once.get().is_some() {
                return Poll::Ready(None);
            }
        }
        let outcome = self.look(cx);
        if outcome.is_pending() {
            note_wait(WaitReason::Once, ptr::from_ref(self.once).addr());
        }
        outcome
    }
}

impl<T> Drop for Claiming<'_, T> {
    fn drop(&mut self) {
        if !self.waiter.has_joined() {
            return;
        }
        let mut line = self.once.line.lock();
        // SAFETY: [X1] it has joined this queue.
        let stage = unsafe { line.leave(&self.waiter) };
        drop(line);
        if stage == Stage::Granted {
            drop(Claim { once: self.once });
        }
    }
}
