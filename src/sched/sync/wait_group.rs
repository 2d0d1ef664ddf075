//! Waiting for a number of tasks.
//!
//! **Invariant**
//! - `[X8]` WAITERS is set while the queue is not empty, and changes only under its lock. The step to a count of 0 with WAITERS
//!   set is made under that lock and takes everybody out: who comes after it waits for the next 0.

use std::fmt;
use std::future::Future;
use std::panic::RefUnwindSafe;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::queue::{Queue, Stage, Waiter};
use crate::sched::context::{note_wait, should_yield};
use crate::sched::wait::WaitReason;
use crate::sched::wakers::{KeptWaker, Wakers, with_clone_if_needed};
use crate::sys::lock::Brief;
use crate::sys::sync::{AtomicUsize, Ordering};

const WAITERS: usize = 1;
/// One that is counted; the count is above the bit.
const ONE: usize = 2;

/// A count of tasks that somebody waits for: those who wait go on when it comes down to 0.
///
/// A clone is another handle of the same group and is not counted; a [`WaitGroupGuard`] is. Count a task before it starts,
/// not as the first thing that it does: until then a wait may find 0. A group can be used again at any time: a wait that
/// has seen 0 stays over, whatever is added after that.
///
/// # Panics
/// [`done`](Self::done) panics with `negative WaitGroup counter` if nothing is counted, and changes nothing.
///
/// # Examples
/// ```
/// use greywave::{Heap, Runtime, WaitGroup, go};
///
/// let rt = Runtime::builder(&Heap::new()).procs(2).build()?;
/// rt.block_on(async {
///     let group = WaitGroup::new();
///     for _ in 0..4 {
///         let counted = group.guard();
///         go(async move {
///             // Work.
///             drop(counted);
///         });
///     }
///     group.wait().await;
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct WaitGroup(Arc<Group>);

#[derive(Debug)]
struct Group {
    state: AtomicUsize,
    line: Brief<Queue>,
}

// Nothing that panics leaves a group half changed.
impl RefUnwindSafe for Group {}

impl Default for Group {
    fn default() -> Self {
        Self {
            state: AtomicUsize::new(0),
            line: Brief::new(Queue::new()),
        }
    }
}

impl WaitGroup {
    /// A group that counts 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts `n` more.
    ///
    /// # Panics
    /// If the count does not fit into 31 bits, or 63 where addresses have 64.
    pub fn add(&self, n: usize) {
        let Some(more) = n.checked_mul(ONE) else {
            overflow()
        };
        let mut state = self.0.state.load(Ordering::Relaxed);
        loop {
            let Some(next) = state.checked_add(more) else {
                overflow()
            };
            // Relaxed: what the task will do is ordered by how it is started.
            match self.0.state.compare_exchange_weak(
                state,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
    }

    /// Counts one less. What this thread did before, those who wait will see.
    ///
    /// # Panics
    /// If the count is 0: `negative WaitGroup counter`.
    pub fn done(&self) {
        self.0.done();
    }

    /// Counts one more until the guard is dropped, be it by a panic.
    pub fn guard(&self) -> WaitGroupGuard {
        self.add(1);
        WaitGroupGuard(self.0.clone())
    }

    /// Waits until the count is 0. Dropping the future gives up.
    pub fn wait(&self) -> impl Future<Output = ()> {
        Wait {
            group: &self.0,
            waiter: Waiter::new(),
        }
    }
}

#[cold]
fn overflow() -> ! {
    panic!("WaitGroup counter overflows");
}

impl Group {
    fn done(&self) {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            assert!(state >= ONE, "negative WaitGroup counter");
            if state == ONE | WAITERS {
                return self.done_slow();
            }
            // Release: who sees 0 sees what was done before.
            match self.state.compare_exchange_weak(
                state,
                state - ONE,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
    }

    /// Perhaps the last one while somebody waits. [X8]
    #[cold]
    fn done_slow(&self) {
        let mut wakers = Wakers::new();
        let mut line = self.line.lock();
        let mut state = self.state.load(Ordering::Relaxed);
        let is_last = loop {
            assert!(state >= ONE, "negative WaitGroup counter");
            let is_last = state & !WAITERS == ONE;
            let next = if is_last { 0 } else { state - ONE };
            // Release as in `done`. Acquire: hands on, by the queue's lock, what all others did before theirs.
            match self
                .state
                .compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => break is_last,
                Err(now) => state = now,
            }
        };
        if is_last {
            line.grant_all(&mut wakers);
        }
        drop(line);
        drop(wakers);
    }

    /// Whether there is something to wait for; if so, sets WAITERS. The queue's lock is held.
    fn announce(&self, _: &mut Queue) -> bool {
        // Acquire: as in `Wait::poll`.
        let mut state = self.state.load(Ordering::Acquire);
        while state & !WAITERS != 0 {
            match self.state.compare_exchange_weak(
                state,
                state | WAITERS,
                Ordering::Relaxed,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.state.load(Ordering::Relaxed) / ONE;
        f.debug_struct("WaitGroup").field("count", &count).finish()
    }
}

/// Counts one in a [`WaitGroup`] until it is dropped; a clone counts one more.
#[must_use = "it is counted only until this is dropped"]
pub struct WaitGroupGuard(Arc<Group>);

impl Clone for WaitGroupGuard {
    fn clone(&self) -> Self {
        WaitGroup(self.0.clone()).guard()
    }
}

impl Drop for WaitGroupGuard {
    fn drop(&mut self) {
        self.0.done();
    }
}

impl fmt::Debug for WaitGroupGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGroupGuard").finish_non_exhaustive()
    }
}

/// The future of [`WaitGroup::wait`].
struct Wait<'a> {
    group: &'a Group,
    waiter: Waiter,
}

impl Wait<'_> {
    /// Joins, or looks what has become of the waiter: true if the wait is over.
    fn is_over(&self, cx: &Context<'_>) -> bool {
        if !self.waiter.has_joined() {
            let waker = KeptWaker::of(cx.waker());
            let mut line = self.group.line.lock();
            let waits = self.group.announce(&mut line);
            if waits {
                // SAFETY: [X2] it has not joined, it is pinned, and `drop` takes it out.
                unsafe { line.join(&self.waiter, waker) };
            }
            return !waits;
        }
        with_clone_if_needed(cx.waker(), |fresh| {
            let mut line = self.group.line.lock();
            // SAFETY: [X1] it has joined this queue.
            if unsafe { line.stage(&self.waiter) } != Stage::Queued {
                // SAFETY: [X1] as above.
                unsafe { line.leave(&self.waiter) };
                return Some(true);
            }
            // SAFETY: [X1] it has joined this queue, and was granted nothing.
            unsafe { line.wait_on(&self.waiter, fresh) }.then_some(false)
        })
    }
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.waiter.has_joined() {
            if should_yield(cx) {
                return Poll::Pending;
            }
            // Acquire: sees what everybody did before `done`.
            if self.group.state.load(Ordering::Acquire) & !WAITERS == 0 {
                return Poll::Ready(());
            }
        }
        if self.is_over(cx) {
            return Poll::Ready(());
        }
        note_wait(WaitReason::WaitGroup, ptr::from_ref(self.group).addr());
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.waiter.has_joined() {
            return;
        }
        let mut line = self.group.line.lock();
        // SAFETY: [X1] it has joined this queue.
        unsafe { line.leave(&self.waiter) };
        if line.is_empty() {
            // Relaxed: the bit says only that the queue is worth a look.
            self.group.state.fetch_and(!WAITERS, Ordering::Relaxed);
        }
    }
}
