//! `GcLock`: a value inside the heap that may change in any way.
//!
//! **Claim.** Ordinary containers, such as a `Vec` of `Gc`s, may change while a marker runs, and
//! marking still finds the whole snapshot.
//!
//! **How.** The first writer in a cycle reports the old content while it holds the lock [L2]. After
//! that the content needs no barrier: what it had when marking began is marked, and what is added
//! could be reached before or is born black. A marker that comes to a lock reads it under a share,
//! or skips it if it was logged; it never waits. `gc/lock_word.rs` has the word of the lock and its
//! invariants, `lock_books.rs` what the content owns outside the heap, and `gc/held_locks.rs` which
//! locks a thread holds.
//!
//! **Tried and dropped.** A marker that meets a lock in use would note it and come back. That is
//! not needed, because the writer has logged the content.
//!
//! **The order in `write_guard` and in the guard's drop.** A measure of the content runs user code,
//! which may unwind. So the guard exists before the first measure, and the unlocking is itself a
//! value that is dropped.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::time::Duration;

use crate::api::current::current;
use crate::api::lock_books::Books;
use crate::api::mutator::Mutator;
use crate::gc::events::Event;
use crate::gc::heaps;
use crate::gc::held_locks::{self, Holding, Kind};
use crate::gc::lock_word::{LockWord, LookView, MarkView, READERS_MAX, Read, Taken};
use crate::gc::notice::tell_without_heap;
use crate::object::counting::{Counting, Purpose, account_bytes, external_bytes, outermost_bytes};
use crate::object::trace::{LockView, Rebrand, Trace, Tracer};
use crate::sys::os_thread::name_of_this_thread;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::UnsafeCell;
use crate::sys::thread::is_on_this_stack;

/// A reader-writer lock around any traceable value: a `Vec`, a `HashMap`, an enum.
///
/// The first write in a cycle reports the old content to the collector while it holds the lock (a
/// snapshot at first write). After that the content may change freely, so ordinary containers are
/// safe while a marker runs. That first write costs O(size of the content), so keep the content of
/// a lock small, or split it. Waiting for the lock is not a safepoint.
///
/// A guard borrows the mutator, so a thread holds no lock at a safepoint. A forgotten guard keeps
/// its lock, as with `std`.
///
/// **Waiting.**
///
/// - A thread would wait for itself if it writes where it reads or writes, or reads where it
///   writes. The lock panics if that is certain. It is certain for the last 32 guards that the
///   thread has taken since its last safepoint, and for a lock on the thread's stack.
/// - In all other cases the thread waits. That includes a lock that another thread's forgotten
///   guard holds, and a thread that waits for a lock of this one. A wait of a second is reported
///   ([`Event::SlowLock`](crate::Event::SlowLock)).
/// - A lock in a `Box`, a `Vec` or a map that an object owns is shared as the object is.
/// - A waiting writer keeps new readers out, so overlapping readers cannot starve it. A thread that
///   reads already may read once more. A thread that writes again and again has no advantage over
///   waiting threads but its speed.
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
    /// The lock is neither `Send` nor `Sync`: only the heap may share it, where `Trace` allows
    /// that.
    not_shared: PhantomData<*mut ()>,
}

impl<T: Trace> GcLock<T> {
    /// Makes a free lock around `value`.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self {
            word: LockWord::new(),
            books: Books::new(),
            value: UnsafeCell::new(value),
            not_shared: PhantomData,
        }
    }

    /// Makes a free lock around `value`; loom's parts cannot be made at compile time.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self {
            word: LockWord::new(),
            books: Books::new(),
            value: UnsafeCell::new(value),
            not_shared: PhantomData,
        }
    }

    /// Takes the lock for reading. Waits while a writer holds the lock or waits for it.
    ///
    /// A thread that already reads gets another guard even while a writer waits, so reads may nest.
    ///
    /// # Panics
    /// If this thread holds the lock for writing, because it would wait for itself. If 4,194,303
    /// read guards of this lock have not been given back; a program must have forgotten most of
    /// them.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> ReadGuard<'_, T> {
        let read = self.word.try_read(|| self.holds_a_share());
        if read != Read::Taken {
            self.wait_to_read(read);
        }
        self.read_guard()
    }

    /// Takes the lock for reading, unless a writer holds it or waits for it, or there are too many
    /// read guards (see [`read`](Self::read)).
    #[inline]
    #[track_caller]
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let read = self.word.try_read(|| self.holds_a_share());
        (read == Read::Taken).then(|| self.read_guard())
    }

    /// Takes the lock for writing. Waits while another thread holds it; new readers stay out
    /// meanwhile.
    ///
    /// If the process has several heaps, and the lock is not in the heap itself (it is in a `Box`
    /// or a `Vec` that an object owns, or on a stack), then the call visits the content once in a
    /// cycle to look for objects of another heap: O(size of the content).
    ///
    /// # Panics
    /// If this thread holds the lock, for reading or for writing, because it would wait for itself.
    /// If the lock or its content belongs to another heap than `mu`; the lock is then unchanged.
    #[inline]
    #[track_caller]
    pub fn write<'m>(&self, mu: &'m Mutator) -> WriteGuard<'_, 'm, T> {
        let logged = match self.take(mu) {
            Some(logged) => logged,
            None => self.wait_to_write(mu),
        };
        self.write_guard(mu, logged)
    }

    /// Takes the lock for writing, if it is free.
    ///
    /// # Panics
    /// If the lock or its content belongs to another heap than `mu`, as for [`write`](Self::write).
    #[inline]
    #[track_caller]
    pub fn try_write<'m>(&self, mu: &'m Mutator) -> Option<WriteGuard<'_, 'm, T>> {
        let logged = self.take(mu)?;
        Some(self.write_guard(mu, logged))
    }

    /// Takes the lock for writing, if it is free. Returns the cycle in which its content was last
    /// logged.
    #[inline(always)]
    #[track_caller]
    fn take(&self, mu: &Mutator) -> Option<u32> {
        if mu.local().duty.checks() {
            self.take_own(mu)
        } else {
            self.word.try_write(mu.local().cycle.get())
        }
    }

    /// Does what [`take`](Self::take) does, unless the lock belongs to another heap. [G4] The
    /// address of the lock shows its heap, or its content does. If neither leads to a heap, the
    /// mutators of every heap may have the lock.
    #[inline(never)]
    #[track_caller]
    fn take_own(&self, mu: &Mutator) -> Option<u32> {
        let cycle = mu.local().cycle.get();
        let address = self.word.address();
        mu.collector().assert_own(address);
        // The lock is in an object of this heap, so its content is this heap's.
        if !T::NEEDS_TRACE || mu.collector().heap.offset_of(address).is_some() {
            return self.word.try_write(cycle);
        }
        match self.word.try_write_to_look(cycle)? {
            Taken::Whole => Some(cycle),
            Taken::ToLook => {
                let check = OwnCheck(&self.word);
                (mu.collector())
                    .assert_all_own(LockView::Shut, |tracer| self.content().trace(tracer));
                Some(check.end(cycle))
            }
        }
    }

    /// Panics if the lock is in another heap's object.
    #[inline(always)]
    #[track_caller]
    #[cfg(feature = "sched")]
    pub(crate) fn assert_own(&self, mu: &Mutator) {
        mu.assert_own(self.word.address());
    }

    /// Makes the guard of a lock that was taken for reading.
    #[inline]
    #[track_caller]
    fn read_guard(&self) -> ReadGuard<'_, T> {
        held_locks::took(self.word.address(), Kind::Read);
        ReadGuard { lock: self }
    }

    /// Makes the guard of a lock that was taken for writing, whose content was last logged in cycle
    /// `logged`.
    #[inline]
    #[track_caller]
    fn write_guard<'m>(&self, mu: &'m Mutator, logged: u32) -> WriteGuard<'_, 'm, T> {
        held_locks::took(self.word.address(), Kind::Write);
        // The guard comes first: from here on, unwinding gives the lock back.
        let mut guard = WriteGuard {
            lock: self,
            mu,
            outermost_before: None,
        };
        let local = mu.local();
        if T::NEEDS_TRACE
            && local.duty.marks()
            && logged != local.cycle.get()
            && !sabotage::is_on(Fault::LockNotLogged)
        {
            self.log(mu);
        }
        // The guard exists by now: if a user's measure unwinds, the guard gives the lock back.
        if std::mem::needs_drop::<T>() && self.books.counted().is_some() {
            guard.outermost_before = Some(outermost_bytes(self.content()));
        }
        guard
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn wait_to_read(&self, first: Read) {
        let here = Location::caller();
        let mut waiting = None;
        let read = match first {
            Read::Refused => self
                .word
                .wait_to_read(|| self.holds_a_share(), &mut |waited| {
                    self.watch(Kind::Read, waited, here);
                    waiting.get_or_insert_with(|| held_locks::wait_for(self.word.address()));
                }),
            other => other,
        };
        assert!(
            read != Read::Full,
            "GcLock::read: too many readers: {READERS_MAX} read guards of this lock have not been given back"
        );
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn wait_to_write(&self, mu: &Mutator) -> u32 {
        let here = Location::caller();
        let mut waiting = None;
        let watch = &mut |waited| {
            self.watch(Kind::Write, waited, here);
            waiting.get_or_insert_with(|| held_locks::wait_for(self.word.address()));
        };
        self.word.wait_to_write(|| self.take(mu), watch)
    }

    /// Whether this thread reads, or may read, the lock.
    #[cold]
    fn holds_a_share(&self) -> bool {
        held_locks::holding(self.word.address()) != Holding::No
    }

    /// Watches a wait: this thread is about to wait for the lock, or has waited for `waited`.
    fn watch(&self, wanted: Kind, waited: Duration, here: &'static Location<'static>) {
        if waited.is_zero() {
            self.refuse_to_wait_for_itself(wanted, here);
        } else {
            report_late(wanted, waited, here);
        }
    }

    /// Panics if only this thread can give the lock back.
    fn refuse_to_wait_for_itself(&self, wanted: Kind, here: &'static Location<'static>) {
        let what = match wanted {
            Kind::Read => "read",
            Kind::Write => "write",
        };
        match held_locks::holding(self.word.address()) {
            Holding::Yes(held, since)
                if (wanted, held) != (Kind::Read, Kind::Read) && self.word.may_be_held(held) =>
            {
                let held = match held {
                    Kind::Read => "reading",
                    Kind::Write => "writing",
                };
                let since = since.map_or_else(String::new, |place| format!(" since {place}"));
                panic!(
                    "GcLock::{what} at {here}: this thread holds the lock for {held}{since}, so it would wait for itself"
                );
            }
            // The lock is not `Sync` and not in an object, so no other thread reaches it. That does
            // not follow for a lock elsewhere outside the heap, such as in a box that an object
            // owns.
            _ => assert!(
                !(self.word.keeps_out(wanted) && is_on_this_stack(self.word.address())),
                "GcLock::{what} at {here}: the lock is on this thread's stack, and so no other thread's, but a guard of it \
                 lives or was forgotten: this thread would wait for itself"
            ),
        }
    }

    /// [L2] Reports the content to the collector.
    #[cold]
    #[inline(never)]
    fn log(&self, mu: &Mutator) {
        mu.collector()
            .shade_all_later(mu.local(), |tracer| self.content().trace(tracer));
    }

    /// For [`internals`](crate::internals).
    #[cfg(any(fuzzing, feature = "internals"))]
    pub(crate) fn forget_reads(&self, guards: u32) {
        self.word.forget_readers(guards);
    }

    /// Returns the content. This is private: the caller holds the lock, or looks while nobody
    /// writes.
    #[inline]
    fn content(&self) -> &T {
        // SAFETY: [L1] the caller holds the lock for as long as it uses the reference.
        self.value.with(|value| unsafe { &*value })
    }

    /// Takes the value out of a lock that is not in the heap.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

/// Shared access to the content of a [`GcLock`].
#[must_use = "the lock is given back at once otherwise"]
pub struct ReadGuard<'a, T: Trace> {
    lock: &'a GcLock<T>,
}

/// Exclusive access to the content of a [`GcLock`].
///
/// When the guard is dropped, it reports to the pacer by how many bytes the content has changed
/// that it owns outside the heap. If the items of a container own bytes as well (`Vec<String>`),
/// the guard reports the change of the container's own buffer. It measures the items only when the
/// container has doubled, or after a number of writes that is a fifth of the number of items. So a
/// write is O(1) on average.
#[must_use = "the lock is given back at once otherwise"]
pub struct WriteGuard<'a, 'm, T: Trace> {
    lock: &'a GcLock<T>,
    mu: &'m Mutator,
    /// What the outermost level of the content owned; `None` if no account is open.
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
        held_locks::gave_back(self.lock.word.address(), Kind::Read);
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
        // SAFETY: [L1] this guard is the only holder, and markers see that the content has been
        // logged.
        self.lock.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T: Trace> Drop for WriteGuard<'_, '_, T> {
    #[inline]
    fn drop(&mut self) {
        // This gives the lock back even if a user's measure unwinds.
        let _unlock = Unlock(&self.lock.word);
        if let Some(before) = self.outermost_before {
            let content = self.lock.content();
            let after = outermost_bytes(content);
            let all = || account_bytes(content);
            let delta = self.lock.books.change(before, after, all);
            if delta != 0 {
                self.mu.collector().note_external(self.mu.state(), delta);
            }
        }
    }
}

/// Gives the lock back when it is dropped.
struct Unlock<'a>(&'a LockWord);

impl Drop for Unlock<'_> {
    #[inline]
    fn drop(&mut self) {
        held_locks::gave_back(self.0.address(), Kind::Write);
        self.0.unlock_write();
    }
}

/// A thread that looks whether it may write. Dropping this gives the lock back: it may not write,
/// or the look has unwound.
struct OwnCheck<'a>(&'a LockWord);

impl OwnCheck<'_> {
    /// The thread may write. Returns the cycle in which the content was last logged.
    #[allow(clippy::mem_forget, reason = "it has nothing but a reference")]
    fn end(self, cycle: u32) -> u32 {
        let word = self.0;
        std::mem::forget(self);
        word.has_looked(cycle)
    }
}

impl Drop for OwnCheck<'_> {
    fn drop(&mut self) {
        self.0.unlock_look();
    }
}

/// Reports that this thread has waited for a lock for `waited`.
fn report_late(wanted: Kind, waited: Duration, here: &'static Location<'static>) {
    let event = Event::SlowLock {
        waited,
        thread: name_of_this_thread(),
        writes: wanted == Kind::Write,
        at: here,
    };
    match current() {
        // SAFETY: this thread's mutator keeps its collector alive.
        Some(current) => unsafe { &*current.collector }.tell(&event),
        None => tell_without_heap(&event),
    }
}

impl<T: Trace + Default> Default for GcLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

// SAFETY: 1. the content is visited, unless it was logged in this cycle or a verifier leaves it
// out. 2. the lock makes it shareable. 3. [L1] [L2] [L4] a tracer reads the content under a share,
// or while nobody writes. 4. the constant is the content's. 5. the marker does not wait. 6. it does
// nothing of its own.
// 7. the content measures itself.
unsafe impl<T: Trace> Trace for GcLock<T> {
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        if !T::NEEDS_TRACE {
            return;
        }
        match tracer.locks() {
            LockView::Shut => {}
            // [L1] No guard lives beside the owner of the lock; a forgotten guard is no reference.
            LockView::Owned => self.content().trace(tracer),
            LockView::Stopped { cycle, busy } => {
                let is_anothers = |number| heaps::is_anothers(number, cycle);
                match self.word.begin_look(cycle, busy, is_anothers) {
                    LookView::Written => tracer.leave_out(),
                    LookView::Forgotten => self.content().trace(tracer),
                    LookView::Shared => {
                        self.content().trace(tracer);
                        self.word.finish_look();
                    }
                }
            }
            LockView::Concurrent { cycle } => {
                let is_anothers = |number| heaps::is_anothers(number, cycle);
                match self.word.begin_mark(cycle, is_anothers) {
                    MarkView::Logged | MarkView::Foreign => {}
                    MarkView::Forgotten => self.content().trace(tracer),
                    MarkView::Shared => {
                        self.content().trace(tracer);
                        self.word.finish_mark(cycle);
                    }
                }
            }
        }
    }

    fn external_bytes(&self) -> usize {
        external_bytes(self)
    }

    /// [O5] The account of the lock decides what is counted.
    fn count_external(&self, how: &Counting<'_>) -> usize {
        if !std::mem::needs_drop::<T>() {
            return 0;
        }
        match how.purpose() {
            Purpose::Birth(_) => {
                // The allocator has the lock for itself; a guard that was forgotten before is no
                // reference.
                let content = self.content();
                let all = content.count_external(&how.for_account());
                self.books.open(all, outermost_bytes(content))
            }
            Purpose::Death(_) => self.books.close(),
            // Any thread may ask at any time, so the content is read only under a share.
            Purpose::Look | Purpose::Outermost | Purpose::Account => match self.books.counted() {
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
