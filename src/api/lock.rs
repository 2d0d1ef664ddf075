//! `GcLock`: any Rust value that may change, inside the heap.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::api::lock_books::Books;
use crate::api::mutator::Mutator;
use crate::gc::lock_word::{LockWord, MarkView};
use crate::object::counting::{Counting, Purpose, external_bytes, outermost_bytes};
use crate::object::trace::{LockView, Rebrand, Trace, Tracer};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::UnsafeCell;

/// A reader-writer lock around any traceable value: a `Vec`, a `HashMap`, an enum.
///
/// The first write in a cycle reports the old content to the collector under the lock (snapshot at first write); after
/// that the content may change freely, so ordinary containers are safe while a marker runs. That first write costs
/// O(size of the content); keep a lock's content small, or split it. Waiting for the lock is not a safepoint.
///
/// A guard borrows the mutator, so no lock is held at a safepoint. A forgotten guard keeps the lock held, as with std.
///
/// # Examples
/// ```
/// use std::collections::HashMap;
/// use greywave::{Gc, GcLock, Heap, Trace};
///
/// #[derive(Trace)]
/// struct Table<'gc> {
///     rows: GcLock<HashMap<String, Gc<'gc, str>>>,
/// }
///
/// let heap = Heap::new();
/// let m = heap.attach()?;
/// let table = m.alloc(Table { rows: GcLock::new(HashMap::new()) });
/// table.rows.write(&m).insert("grey".into(), m.alloc_str("wave"));
/// assert_eq!(table.rows.read().get("grey").map(|s| s.len()), Some(4));
/// # Ok::<(), greywave::AttachError>(())
/// ```
pub struct GcLock<T> {
    word: LockWord,
    books: Books,
    value: UnsafeCell<T>,
    /// Neither `Send` nor `Sync`: it is shared only inside the heap, where `Trace` allows it.
    not_shared: PhantomData<*mut ()>,
}

impl<T: Trace> GcLock<T> {
    /// A free lock around `value`.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self {
            word: LockWord::new(),
            books: Books::new(),
            value: UnsafeCell::new(value),
            not_shared: PhantomData,
        }
    }

    /// A free lock around `value`; loom's parts cannot be made at compile time.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self {
            word: LockWord::new(),
            books: Books::new(),
            value: UnsafeCell::new(value),
            not_shared: PhantomData,
        }
    }

    /// Takes a share, waiting while a writer holds the lock.
    pub fn read(&self) -> ReadGuard<'_, T> {
        self.word.read();
        ReadGuard { lock: self }
    }

    /// Takes a share, unless a writer holds the lock.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        self.word.try_read().then(|| ReadGuard { lock: self })
    }

    /// Takes the lock, waiting while somebody holds it.
    pub fn write<'m>(&self, mu: &'m Mutator) -> WriteGuard<'_, 'm, T> {
        let logged = self.word.write(mu.local().cycle.get());
        self.guard(mu, logged)
    }

    /// Takes the lock if it is free.
    pub fn try_write<'m>(&self, mu: &'m Mutator) -> Option<WriteGuard<'_, 'm, T>> {
        let logged = self.word.try_write(mu.local().cycle.get())?;
        Some(self.guard(mu, logged))
    }

    /// The lock is held for writing; its content was last logged in cycle `logged`.
    #[inline]
    fn guard<'m>(&self, mu: &'m Mutator, logged: u32) -> WriteGuard<'_, 'm, T> {
        let local = mu.local();
        if T::NEEDS_TRACE
            && local.marking.get()
            && logged != local.cycle.get()
            && !sabotage::is_on(Fault::LockNotLogged)
        {
            self.log(mu);
        }
        let mut guard = WriteGuard {
            lock: self,
            mu,
            outermost_before: None,
        };
        // With the guard in hand: should a measure of the user's unwind, the lock is given back.
        if std::mem::needs_drop::<T>() && self.books.counted().is_some() {
            guard.outermost_before = Some(outermost_bytes(self.content()));
        }
        guard
    }

    /// [L2]
    #[cold]
    #[inline(never)]
    fn log(&self, mu: &Mutator) {
        mu.collector()
            .shade_all_later(mu.local(), |tracer| self.content().trace(tracer));
    }

    /// The content. Private: the caller holds the lock, or looks while nobody writes.
    #[inline]
    fn content(&self) -> &T {
        // SAFETY: [L1] held by the caller for as long as the reference is used.
        self.value.with(|value| unsafe { &*value })
    }

    /// Takes the value out of a lock that is not in the heap (yet).
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

/// Shared access to a [`GcLock`]'s content.
#[must_use = "the lock is given back at once otherwise"]
pub struct ReadGuard<'a, T: Trace> {
    lock: &'a GcLock<T>,
}

/// Exclusive access to a [`GcLock`]'s content.
///
/// When it goes, the change in bytes that the content owns outside the heap is told to the pacer. For a container whose
/// items own some (`Vec<String>`) the change of its own buffer is told at once; its items are visited once in as many writes
/// as a fifth of them, or when it has doubled. So a write stays O(1) on average.
#[must_use = "the lock is given back at once otherwise"]
pub struct WriteGuard<'a, 'm, T: Trace> {
    lock: &'a GcLock<T>,
    mu: &'m Mutator,
    /// What the outermost level of the content owned; nothing if no account is kept.
    outermost_before: Option<usize>,
}

impl<T: Trace> Deref for ReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.lock.content()
    }
}

impl<T: Trace> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.word.unlock_read();
    }
}

impl<T: Trace> Deref for WriteGuard<'_, '_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.lock.content()
    }
}

impl<T: Trace> DerefMut for WriteGuard<'_, '_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: [L1] this guard is the only holder, and markers see that the content has been logged.
        self.lock.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T: Trace> Drop for WriteGuard<'_, '_, T> {
    #[inline]
    fn drop(&mut self) {
        /// Gives the lock back, also when a measure of the user's unwinds.
        struct Unlock<'a>(&'a LockWord);
        impl Drop for Unlock<'_> {
            #[inline]
            fn drop(&mut self) {
                self.0.unlock_write();
            }
        }
        let _unlock = Unlock(&self.lock.word);
        if let Some(before) = self.outermost_before {
            let content = self.lock.content();
            let after = outermost_bytes(content);
            let all = || external_bytes(content);
            let delta = self.lock.books.change(before, after, all);
            if delta != 0 {
                self.mu.collector().note_external(self.mu.state(), delta);
            }
        }
    }
}

impl<T: Trace + fmt::Debug> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Trace + fmt::Debug> fmt::Debug for WriteGuard<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Trace + fmt::Debug> fmt::Debug for GcLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_read() {
            Some(content) => f.debug_tuple("GcLock").field(&&*content).finish(),
            None => f.write_str("GcLock(<locked>)"),
        }
    }
}

impl<T: Trace + Default> Default for GcLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

// SAFETY: 1. the content is visited, unless it has been logged in this cycle. 2. the lock makes it shareable. 3. [L1]
// [L2] a marker reads it under a share, or when nobody writes. 4. from the content. 5. the marker does not wait.
// 6. nothing of its own. 7. to the content.
unsafe impl<T: Trace> Trace for GcLock<T> {
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        if !T::NEEDS_TRACE {
            return;
        }
        match tracer.locks() {
            LockView::Stopped => self.content().trace(tracer),
            LockView::Concurrent { cycle } => match self.word.begin_mark(cycle) {
                MarkView::Logged => {}
                MarkView::Forgotten => self.content().trace(tracer),
                MarkView::Shared => {
                    self.content().trace(tracer);
                    self.word.finish_mark(cycle);
                }
            },
        }
    }

    fn external_bytes(&self) -> usize {
        external_bytes(self)
    }

    /// [O5]
    fn count_external(&self, how: &Counting<'_>) -> usize {
        if !std::mem::needs_drop::<T>() {
            return 0;
        }
        match how.purpose() {
            Purpose::Birth(_) => {
                // The allocator has the lock for itself; a guard that was forgotten before is no reference any more.
                let content = self.content();
                let all = content.count_external(&how.only_look());
                self.books.open(all, outermost_bytes(content))
            }
            Purpose::Death(_) => self.books.close(),
            // Anybody may ask, at any time, so the content is read under a share only.
            Purpose::Look | Purpose::Outermost => match self.books.counted() {
                Some(bytes) => bytes,
                None => (self.try_read()).map_or(0, |content| content.count_external(how)),
            },
        }
    }
}

// SAFETY: only the content's brand changes.
unsafe impl<'b, T: Rebrand<'b>> Rebrand<'b> for GcLock<T> {
    type To = GcLock<T::To>;
}
