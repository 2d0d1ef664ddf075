//! Waiting for a condition on what a mutex guards.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::panic::RefUnwindSafe;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};

use super::mutex::MutexGuard;
use super::queue::{Queue, Stage, Waiter};
use crate::sched::context::note_wait;
use crate::sched::wait::WaitReason;
use crate::sched::wakers::{KeptWaker, Wakers, with_clone_if_needed};
use crate::sys::lock::Brief;

/// A place to wait until another task says that what a [`Mutex`](crate::Mutex) guards has changed.
///
/// A wait ends only by a notification that came after it began, never by itself. But others may have the lock before it:
/// look at the condition again, or let [`wait_while`](Self::wait_while) do that.
///
/// # Examples
/// ```
/// use std::sync::Arc;
///
/// use greywave::{Cond, Heap, Mutex, Runtime, go};
///
/// let rt = Runtime::builder(&Heap::new()).procs(2).build()?;
/// rt.block_on(async {
///     let jobs = Arc::new((Mutex::new(Vec::new()), Cond::new()));
///     let theirs = jobs.clone();
///     let worker = go(async move {
///         let (queue, filled) = &*theirs;
///         let mut queue = filled.wait_while(queue.lock().await, |queue| queue.is_empty()).await;
///         queue.pop()
///     });
///     jobs.0.lock().await.push("sweep");
///     jobs.1.notify_one();
///     assert_eq!(worker.await.expect("it does not panic"), Some("sweep"));
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cond {
    line: Brief<Queue>,
}

// Nothing that panics leaves it half changed.
impl RefUnwindSafe for Cond {}

impl Cond {
    /// A condition that nobody waits for.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            line: Brief::new(Queue::new()),
        }
    }

    /// A condition that nobody waits for; loom's parts cannot be made at compile time.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            line: Brief::new(Queue::new()),
        }
    }

    /// Unlocks `guard`, waits for a notification, and locks again. No notification is lost between the first two.
    ///
    /// Dropping the future leaves the lock unlocked, or unlocks it if it has not begun to wait; if it had been notified by
    /// [`notify_one`](Self::notify_one), the notification goes on to the next one.
    pub async fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mutex = MutexGuard::mutex(&guard);
        let mut notice = Wait {
            cond: self,
            waiter: Waiter::new(),
            guard: Cell::new(Some(guard)),
        }
        .await;
        let guard = mutex.lock().await;
        notice.goes_on = false;
        guard
    }

    /// Waits as long as `condition` is true of the value. On return it is false, and the lock is held.
    pub async fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while condition(&mut guard) {
            guard = self.wait(guard).await;
        }
        guard
    }

    /// Wakes the one that has been waiting longest, if any waits. The lock need not be held.
    pub fn notify_one(&self) {
        let waker = self.line.lock().grant_first();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes everybody who waits. The lock need not be held.
    pub fn notify_all(&self) {
        let mut wakers = Wakers::new();
        self.line.lock().grant_all(&mut wakers);
        drop(wakers);
    }
}

impl Default for Cond {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Cond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cond").finish_non_exhaustive()
    }
}

/// A notification that has arrived; dropped while it `goes_on`, it is for the next one.
struct Notice<'a> {
    cond: &'a Cond,
    goes_on: bool,
}

impl Drop for Notice<'_> {
    fn drop(&mut self) {
        if self.goes_on {
            self.cond.notify_one();
        }
    }
}

/// Unlocks, and waits for a notification.
struct Wait<'a, G> {
    cond: &'a Cond,
    waiter: Waiter,
    guard: Cell<Option<G>>,
}

impl<'a, G> Wait<'a, G> {
    fn look(&self, cx: &Context<'_>) -> Poll<Notice<'a>> {
        with_clone_if_needed(cx.waker(), |fresh| {
            let mut line = self.cond.line.lock();
            // SAFETY: [X1] it has joined this queue.
            if unsafe { line.stage(&self.waiter) } != Stage::Queued {
                // SAFETY: [X1] as above.
                let stage = unsafe { line.leave(&self.waiter) };
                return Some(Poll::Ready(Notice {
                    cond: self.cond,
                    goes_on: stage == Stage::Granted,
                }));
            }
            // SAFETY: [X1] it has joined this queue, and was granted nothing.
            unsafe { line.wait_on(&self.waiter, fresh) }.then_some(Poll::Pending)
        })
    }
}

impl<'a, G> Future for Wait<'a, G> {
    type Output = Notice<'a>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Notice<'a>> {
        if self.waiter.has_joined() {
            if let Poll::Ready(notice) = self.look(cx) {
                return Poll::Ready(notice);
            }
        } else {
            let waker = KeptWaker::of(cx.waker());
            // SAFETY: [X2] it has not joined, it is pinned, and `drop` takes it out.
            unsafe { self.cond.line.lock().join(&self.waiter, waker) };
            // Only now: who gets the lock after this finds the waiter.
            drop(self.guard.take());
        }
        note_wait(WaitReason::Cond, ptr::from_ref(self.cond).addr());
        Poll::Pending
    }
}

impl<G> Drop for Wait<'_, G> {
    fn drop(&mut self) {
        if !self.waiter.has_joined() {
            return;
        }
        // SAFETY: [X1] it has joined this queue.
        let stage = unsafe { self.cond.line.lock().leave(&self.waiter) };
        if stage == Stage::Granted {
            self.cond.notify_one();
        }
    }
}
