//! A lock that many may share to read, or one holds to write, whose waiters are futures.
//!
//! Who can have the lock takes it by one exchange on the state. Who cannot joins a queue, and from then on everybody does:
//! the lock is handed from its holder to those in the queues. A reader that comes while a writer waits is behind that writer; a
//! writer that unlocks lets all readers in that wait at that moment. So readers and writers take turns, as with Go's
//! `sync.RWMutex`.
//!
//! **Invariants**
//! - `[X6]` While WRITER is set one writer has the value for itself; while the count of readers is not 0 it is only read.
//!   Never both.
//! - `[X7]` WAITERS is set while a queue is not empty, and changes only under the lock of the queues. While it is set, the
//!   state changes only under that lock, but for readers that leave.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};

use super::queue::{Queue, Stage, Waiter};
use crate::sched::context::{note_wait, should_yield};
use crate::sched::wait::WaitReason;
use crate::sched::wakers::{KeptWaker, Wakers, with_clone_if_needed};
use crate::sys::lock::Brief;
use crate::sys::sync::{AtomicUsize, Ordering, UnsafeCell};

const WRITER: usize = 1;
const WAITERS: usize = 2;
/// One reader; their count is above the two bits.
const READER: usize = 4;

/// A reader-writer lock around a value, for tasks: any number of readers, or one writer. Guards may be held across an
/// `.await`.
///
/// Neither side starves: a writer that waits keeps new readers out, and when it unlocks, the readers that wait go first.
/// Therefore a task that reads must not read a second time: if a writer came in between, both wait for ever. The lock is not
/// poisoned by a panic, and a forgotten guard keeps it held.
///
/// # Examples
/// ```
/// use greywave::{Heap, Runtime, RwLock};
///
/// let rt = Runtime::builder(&Heap::new()).procs(2).build()?;
/// rt.block_on(async {
///     let names = RwLock::new(vec!["p"]);
///     names.write().await.push("m");
///     let one = names.read().await;
///     let two = names.read().await;
///     assert_eq!((one.len(), two.len()), (2, 2));
///     assert!(names.try_write().is_none());
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RwLock<T> {
    word: Word,
    value: UnsafeCell<T>,
}

// SAFETY: [X6] writers have the value one after the other, on any thread; readers share it.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

/// The lock without its value.
#[derive(Debug)]
struct Word {
    state: AtomicUsize,
    lines: Brief<Lines>,
}

/// Those who wait.
#[derive(Debug)]
struct Lines {
    readers: Queue,
    writers: Queue,
}

/// To read or to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl Access {
    /// The state with this access in it, if the two go together. `in_line`: ignoring who waits.
    fn added_to(self, state: usize, in_line: bool) -> Option<usize> {
        if state & WAITERS != 0 && !in_line {
            return None;
        }
        match self {
            Self::Read if state & WRITER == 0 => state.checked_add(READER),
            Self::Write if state & !WAITERS == 0 => Some(state | WRITER),
            _ => None,
        }
    }
}

impl Lines {
    const fn new() -> Self {
        Self {
            readers: Queue::new(),
            writers: Queue::new(),
        }
    }

    fn of(&mut self, access: Access) -> &mut Queue {
        match access {
            Access::Read => &mut self.readers,
            Access::Write => &mut self.writers,
        }
    }

    fn are_empty(&self) -> bool {
        self.readers.is_empty() && self.writers.is_empty()
    }
}

impl Word {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            state: AtomicUsize::new(0),
            lines: Brief::new(Lines::new()),
        }
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self {
            state: AtomicUsize::new(0),
            lines: Brief::new(Lines::new()),
        }
    }

    /// Adds `access` to the state if it goes with what is there.
    #[inline]
    fn try_acquire(&self, access: Access) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while let Some(with_access) = access.added_to(state, false) {
            // Acquire: sees what writers wrote before. [X6]
            match self.state.compare_exchange_weak(
                state,
                with_access,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// As `try_acquire`; if that cannot be, sets WAITERS, so that who leaves will look at the queues. Their lock is held.
    fn acquire_or_announce(&self, access: Access, _: &mut Lines) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let with_access = access.added_to(state, false);
            // Acquire: as above.
            match self.state.compare_exchange_weak(
                state,
                with_access.unwrap_or(state | WAITERS),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return with_access.is_some(),
                Err(now) => state = now,
            }
        }
    }

    /// Lets in who can be: all readers if they go first or no writer waits, else a writer if nobody has the lock. [X7]
    fn admit(&self, lines: &mut Lines, readers_first: bool, wakers: &mut Wakers) {
        // Acquire: who is let in gets from here, by the lock of the queues, what those that left have written or read.
        let mut state = self.state.load(Ordering::Acquire);
        let mut change = 0;
        if state & WRITER == 0 && (readers_first || lines.writers.is_empty()) {
            change = lines.readers.grant_all(wakers) * READER;
            state += change;
        }
        if let Some(with_writer) = Access::Write.added_to(state, true)
            && !lines.writers.is_empty()
        {
            change += with_writer - state;
            wakers.add(lines.writers.grant_first());
        }
        if lines.are_empty() && state & WAITERS != 0 {
            change = change.wrapping_sub(WAITERS);
        }
        // Readers may have left meanwhile, so this adds the difference. Relaxed: what is let in synchronizes by the lock.
        self.state.fetch_add(change, Ordering::Relaxed);
    }

    #[inline]
    fn release(&self, access: Access) {
        match access {
            Access::Read => {
                // Release: the next writer comes after what this reader read. [X6]
                let before = self.state.fetch_sub(READER, Ordering::Release);
                if before == READER | WAITERS {
                    self.release_slow(Access::Read);
                }
            }
            Access::Write => {
                // Release: those who come next see what this one wrote. [X6]
                if self
                    .state
                    .compare_exchange(WRITER, 0, Ordering::Release, Ordering::Relaxed)
                    .is_err()
                {
                    self.release_slow(Access::Write);
                }
            }
        }
    }

    #[cold]
    fn release_slow(&self, access: Access) {
        let mut wakers = Wakers::new();
        let mut lines = self.lines.lock();
        if access == Access::Write {
            // Release: as in `release`.
            self.state.fetch_and(!WRITER, Ordering::Release);
        }
        self.admit(&mut lines, access == Access::Write, &mut wakers);
        drop(lines);
        drop(wakers);
    }
}

impl<T> RwLock<T> {
    /// A free lock around `value`.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self {
            word: Word::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// A free lock around `value`; loom's parts cannot be made at compile time.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self {
            word: Word::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes a share, waiting while a writer has the lock or waits for it.
    ///
    /// Dropping the future gives up the place in the line, and the share if it had been given already.
    pub fn read(&self) -> impl Future<Output = RwLockReadGuard<'_, T>> {
        let acquire = Acquire::new(&self.word, Access::Read);
        async move {
            acquire.await;
            RwLockReadGuard { lock: self }
        }
    }

    /// Takes the lock for itself, waiting while others have it.
    ///
    /// Dropping the future gives up the place in the line; if it had been given the lock already, the lock goes on to the
    /// next ones.
    pub fn write(&self) -> impl Future<Output = RwLockWriteGuard<'_, T>> {
        let acquire = Acquire::new(&self.word, Access::Write);
        async move {
            acquire.await;
            RwLockWriteGuard { lock: self }
        }
    }

    /// Takes a share, unless a writer has the lock or waits for it.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.word
            .try_acquire(Access::Read)
            .then(|| RwLockReadGuard { lock: self })
    }

    /// Takes the lock for itself if nobody has it.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.word
            .try_acquire(Access::Write)
            .then(|| RwLockWriteGuard { lock: self })
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
}

impl<T: fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("RwLock");
        match self.try_read() {
            Some(guard) => out.field("value", &*guard),
            None => out.field("value", &format_args!("<locked>")),
        };
        out.finish()
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// A share of a [`RwLock`]; dropping this gives it back, on any thread.
#[must_use = "the share is given back as soon as this is dropped"]
pub struct RwLockReadGuard<'a, T> {
    lock: &'a RwLock<T>,
}

/// Has a [`RwLock`] for itself; dropping this unlocks it, on any thread.
#[must_use = "the lock is free again as soon as this is dropped"]
pub struct RwLockWriteGuard<'a, T> {
    lock: &'a RwLock<T>,
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: [X6]
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: [X6]
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: [X6]
        self.lock.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.word.release(Access::Read);
    }
}

impl<T> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.word.release(Access::Write);
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Takes the lock, and does not release it.
struct Acquire<'a> {
    word: &'a Word,
    access: Access,
    waiter: Waiter,
}

impl<'a> Acquire<'a> {
    fn new(word: &'a Word, access: Access) -> Self {
        Self {
            word,
            access,
            waiter: Waiter::new(),
        }
    }

    /// Joins the line unless the lock can be had after all: true if it is held now.
    fn join(&self, cx: &Context<'_>) -> bool {
        let waker = KeptWaker::of(cx.waker());
        let mut lines = self.word.lines.lock();
        if self.word.acquire_or_announce(self.access, &mut lines) {
            return true;
        }
        // SAFETY: [X2] it has not joined, it is pinned, and `drop` takes it out.
        unsafe { lines.of(self.access).join(&self.waiter, waker) };
        false
    }

    /// Looks what has become of the waiter: true if the lock is held now.
    fn look(&self, cx: &Context<'_>) -> bool {
        with_clone_if_needed(cx.waker(), |fresh| {
            let mut lines = self.word.lines.lock();
            let line = lines.of(self.access);
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

impl Future for Acquire<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let acquired = if self.waiter.has_joined() {
            self.look(cx)
        } else if should_yield(cx) {
            return Poll::Pending;
        } else {
            self.word.try_acquire(self.access) || self.join(cx)
        };
        if acquired {
            return Poll::Ready(());
        }
        let reason = match self.access {
            Access::Read => WaitReason::RwLockRead,
            Access::Write => WaitReason::RwLockWrite,
        };
        note_wait(reason, ptr::from_ref(self.word).addr());
        Poll::Pending
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        if !self.waiter.has_joined() {
            return;
        }
        let mut wakers = Wakers::new();
        let mut lines = self.word.lines.lock();
        // SAFETY: [X1] it has joined this queue.
        let stage = unsafe { lines.of(self.access).leave(&self.waiter) };
        // A writer that gives up may have kept readers out.
        self.word.admit(&mut lines, false, &mut wakers);
        drop(lines);
        if stage != Stage::Queued {
            self.word.release(self.access);
        }
        drop(wakers);
    }
}
