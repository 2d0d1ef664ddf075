//! The word of a `GcLock`: a reader-writer lock that a marker can read through without waiting.
//!
//! ```text
//! | cycle (32) | readers (30) | parked | writer |
//! ```
//! `cycle` is the cycle in which the content was last logged: traced by a marker, or by the first writer of the cycle,
//! under the lock, before it wrote. A guard never spans a safepoint, so a lock that is held for writing with an older
//! cycle in it was forgotten: its guard is gone, nobody writes, and a marker may read through it.
//!
//! A marker never waits. It finds the lock
//! - logged in this cycle (held or not): nothing to do, what the content was then has been reported;
//! - held for writing since an older cycle: forgotten, traced as if free;
//! - else free or shared: takes a share, traces, and notes the cycle.
//!
//! **Invariants**
//! - `[L1]` While `writer` is set only the holder of the guard touches the content; while `readers` is not zero nobody
//!   writes it.
//! - `[L2]` A writer that finds an older cycle while marking runs logs the old content before its guard is given out.

#[cfg(not(any(loom, shuttle)))]
use parking_lot_core::{DEFAULT_PARK_TOKEN, DEFAULT_UNPARK_TOKEN};

use crate::sys::MODELLED;
use crate::sys::sync::{AtomicU64, Ordering, spin_hint};

const WRITER: u64 = 1;
const PARKED: u64 = 2;
const READER: u64 = 4;
const READERS: u64 = (1 << 32) - READER;
const CYCLE_SHIFT: u32 = 32;
const SPINS: u32 = if MODELLED { 0 } else { 60 };

/// See the module's head.
#[derive(Debug)]
pub(crate) struct LockWord(AtomicU64);

/// What a marker may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkView {
    /// Already reported in this cycle.
    Logged,
    /// A share is held: trace, then `finish_mark`.
    Shared,
    /// Held by nobody who lives: trace.
    Forgotten,
}

const fn cycle_of(word: u64) -> u32 {
    (word >> CYCLE_SHIFT) as u32
}

const fn with_cycle(word: u64, cycle: u32) -> u64 {
    word & (u32::MAX as u64) | (cycle as u64) << CYCLE_SHIFT
}

impl LockWord {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes the lock for writing, if it is free; returns the cycle in which the content was last logged.
    #[inline]
    pub(crate) fn try_write(&self, cycle: u32) -> Option<u32> {
        // Relaxed: the compare-exchange acquires.
        let word = self.0.load(Ordering::Relaxed);
        if word & (WRITER | READERS) != 0 {
            return None;
        }
        let next = with_cycle(word, cycle) | WRITER;
        // Acquire: pairs with the Releases of earlier holders. Relaxed on failure: nothing is read.
        self.0
            .compare_exchange(word, next, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(cycle_of)
    }

    /// As [`try_write`](Self::try_write), waiting for the lock.
    #[inline]
    pub(crate) fn write(&self, cycle: u32) -> u32 {
        match self.try_write(cycle) {
            Some(logged) => logged,
            None => self.wait_for(WRITER | READERS, || self.try_write(cycle)),
        }
    }

    /// Gives the lock back.
    #[inline]
    pub(crate) fn unlock_write(&self) {
        // Release: publishes what was written; pairs with the Acquires of later holders.
        if self.0.fetch_and(!(WRITER | PARKED), Ordering::Release) & PARKED != 0 {
            self.unpark();
        }
    }

    /// Takes a share, unless a writer holds the lock.
    #[inline]
    pub(crate) fn try_read(&self) -> bool {
        // Relaxed: the compare-exchange acquires.
        let mut word = self.0.load(Ordering::Relaxed);
        while word & WRITER == 0 && word & READERS != READERS {
            // Acquire: pairs with the Release of the last writer. Relaxed on failure: looked at again.
            match self.0.compare_exchange_weak(
                word,
                word + READER,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// As [`try_read`](Self::try_read), waiting for the writer.
    #[inline]
    pub(crate) fn read(&self) {
        if !self.try_read() {
            self.wait_for(WRITER, || self.try_read().then_some(()));
        }
    }

    /// Gives a share back.
    #[inline]
    pub(crate) fn unlock_read(&self) {
        // Release: our reads come before the next writer's writes; pairs with the Acquire in `try_write`.
        let before = self.0.fetch_sub(READER, Ordering::Release);
        if before & READERS == READER && before & PARKED != 0 {
            self.wake_parked();
        }
    }

    /// A marker of `cycle` looks; it never waits.
    pub(crate) fn begin_mark(&self, cycle: u32) -> MarkView {
        // Relaxed: the compare-exchange acquires; what is forgotten was written in an older cycle.
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if cycle_of(word) == cycle {
                return MarkView::Logged;
            }
            if word & WRITER != 0 {
                return MarkView::Forgotten;
            }
            // Acquire: as in `try_read`. Relaxed on failure: looked at again.
            match self.0.compare_exchange_weak(
                word,
                word + READER,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return MarkView::Shared,
                Err(now) => word = now,
            }
        }
    }

    /// The marker has traced the content.
    pub(crate) fn finish_mark(&self, cycle: u32) {
        // Relaxed: only for the arithmetic.
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let next = with_cycle(word - READER, cycle);
            // Release: as in `unlock_read`. Relaxed on failure: tried again.
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & READERS == READER && word & PARKED != 0 {
            self.wake_parked();
        }
    }

    #[cold]
    fn wake_parked(&self) {
        // Relaxed: a wake-up; who takes the lock acquires.
        self.0.fetch_and(!PARKED, Ordering::Relaxed);
        self.unpark();
    }

    #[cfg(any(loom, shuttle))]
    fn unpark(&self) {
        modelled_lot::unpark_all();
    }

    #[cfg(not(any(loom, shuttle)))]
    fn unpark(&self) {
        // SAFETY: the key is the address of this word, which no other user of the parking lot has; the call back does
        // nothing.
        unsafe {
            parking_lot_core::unpark_all((&raw const self.0).addr(), DEFAULT_UNPARK_TOKEN);
        }
    }

    /// Waits until `take` takes; parks while any of `held` is set.
    #[cold]
    fn wait_for<R>(&self, held: u64, take: impl Fn() -> Option<R>) -> R {
        for _ in 0..SPINS {
            if let Some(taken) = take() {
                return taken;
            }
            spin_hint();
        }
        loop {
            if let Some(taken) = take() {
                return taken;
            }
            // Relaxed: the park validates.
            let word = self.0.load(Ordering::Relaxed);
            if word & held == 0 {
                continue;
            }
            // Relaxed: the holder reads the bit when it unlocks, in the order of this word.
            if word & PARKED == 0
                && self
                    .0
                    .compare_exchange(word, word | PARKED, Ordering::Relaxed, Ordering::Relaxed)
                    .is_err()
            {
                continue;
            }
            self.park(held);
        }
    }

    fn park(&self, held: u64) {
        let validate = || {
            // Relaxed: under the parking lot's lock for this key, which `unpark` takes after clearing the bit.
            let word = self.0.load(Ordering::Relaxed);
            word & PARKED != 0 && word & held != 0
        };
        #[cfg(any(loom, shuttle))]
        modelled_lot::park(validate);
        #[cfg(not(any(loom, shuttle)))]
        // SAFETY: the key is this word's address; the callbacks do not panic and do not call into the parking lot.
        unsafe {
            parking_lot_core::park(
                (&raw const self.0).addr(),
                validate,
                || {},
                |_, _| {},
                DEFAULT_PARK_TOKEN,
                None,
            );
        }
    }
}

/// The parking lot of a model: one queue for everybody.
#[cfg(any(loom, shuttle))]
mod modelled_lot {
    use std::time::Duration;

    use crate::sys::checker;
    use crate::sys::lock::{Condvar, Unranked};

    checker::lazy_static! {
        static ref LOT: (Unranked<()>, Condvar) = (Unranked::new(()), Condvar::new());
    }

    /// `parking_lot_core::park`.
    pub(super) fn park(validate: impl FnOnce() -> bool) {
        let mut queue = LOT.0.lock();
        if validate() {
            LOT.1.wait_for(&mut queue, Duration::ZERO);
        }
    }

    /// `parking_lot_core::unpark_all`.
    pub(super) fn unpark_all() {
        let _queue = LOT.0.lock();
        LOT.1.notify_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn writers_exclude_readers_and_each_other() {
        let w = LockWord::new();
        assert_eq!(w.try_write(3), Some(0));
        assert!(!w.try_read() && w.try_write(3).is_none());
        w.unlock_write();
        assert!(w.try_read() && w.try_read());
        assert!(w.try_write(3).is_none());
        w.unlock_read();
        w.unlock_read();
        assert_eq!(w.try_write(4), Some(3), "the last logged cycle");
    }

    #[test]
    fn a_marker_sees_the_four_cases() {
        let w = LockWord::new();
        assert_eq!(w.begin_mark(5), MarkView::Shared);
        assert!(w.try_read() && w.try_write(5).is_none());
        w.finish_mark(5);
        assert_eq!(w.begin_mark(5), MarkView::Logged);
        assert_eq!(w.begin_mark(6), MarkView::Shared);
        w.finish_mark(6);
        w.unlock_read();
        assert_eq!(w.try_write(7), Some(6));
        assert_eq!(w.begin_mark(7), MarkView::Logged, "the writer has logged");
        assert_eq!(
            w.begin_mark(8),
            MarkView::Forgotten,
            "no guard lives that long"
        );
    }

    #[test]
    fn waiting_writers_and_readers_get_their_turn() {
        let w = LockWord::new();
        let inside = AtomicBool::new(false);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for i in 0..2000 {
                        if i % 3 == 0 {
                            w.read();
                            assert!(!inside.load(Ordering::Relaxed));
                            w.unlock_read();
                        } else {
                            w.write(1);
                            assert!(!inside.swap(true, Ordering::Relaxed));
                            std::thread::yield_now();
                            inside.store(false, Ordering::Relaxed);
                            w.unlock_write();
                        }
                    }
                });
            }
        });
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::sys::model::{Plain, explore};

    const CYCLE: u32 = 1;
    const OLD: u64 = 1;
    const NEW: u64 = 2;

    /// A `GcLock` whose content is one edge.
    struct Content {
        word: LockWord,
        value: Plain<u64>,
    }

    fn content() -> Arc<Content> {
        Arc::new(Content {
            word: LockWord::new(),
            value: Plain::new(OLD),
        })
    }

    /// When the first writer of a cycle reports the old content.
    #[derive(Clone, Copy, PartialEq)]
    enum Log {
        BeforeItWrites,
        Never,
    }

    impl Content {
        /// `GcLock::write`, and a write; returns what was logged.
        fn write(&self, log: Log) -> u64 {
            let logged = self.word.write(CYCLE);
            let mut report = 0;
            if logged != CYCLE && log == Log::BeforeItWrites {
                // [L2]
                report = self.value.get();
            }
            self.value.set(NEW);
            self.word.unlock_write();
            report
        }

        fn read(&self) -> u64 {
            self.word.read();
            let value = self.value.get();
            self.word.unlock_read();
            value
        }

        /// `GcLock::trace`; returns what was reported.
        fn mark(&self) -> u64 {
            match self.word.begin_mark(CYCLE) {
                MarkView::Shared => {
                    let seen = self.value.get();
                    self.word.finish_mark(CYCLE);
                    seen
                }
                MarkView::Logged => 0,
                MarkView::Forgotten => panic!("nobody forgot"),
            }
        }
    }

    /// First write of a cycle against a marker: the old content is always reported, by one of them, and nobody reads
    /// what the writer writes.
    fn first_write_against_marker(log: Log) {
        explore(3, move |order| {
            let lock = content();
            let (here, there) = (lock.clone(), lock);
            let (a, b) = order.race(move || here.write(log), move || there.mark());
            assert_eq!((a | b) & OLD, OLD, "the old content is reported");
        });
    }

    #[test]
    fn loom_lock_first_write_against_marker() {
        first_write_against_marker(Log::BeforeItWrites);
    }

    #[test]
    #[should_panic(expected = "the old content is reported")]
    fn loom_lock_without_log_fails() {
        first_write_against_marker(Log::Never);
    }

    /// Two writers and a marker: whoever is first reports, and only then does the content change.
    #[test]
    fn loom_lock_two_writers_against_marker() {
        explore(2, |order| {
            let lock = content();
            let (one, two, three) = (lock.clone(), lock.clone(), lock);
            let (a, b, c) = order.race3(
                move || one.write(Log::BeforeItWrites),
                move || two.mark(),
                move || three.write(Log::BeforeItWrites),
            );
            assert_eq!((a | b | c) & OLD, OLD);
        });
    }

    /// Two markers (one of them a mutator that logs an outer lock) and a writer.
    #[test]
    fn loom_lock_write_against_two_markers() {
        explore(2, |order| {
            let lock = content();
            let (one, two, three) = (lock.clone(), lock.clone(), lock);
            let (a, b, c) = order.race3(
                move || one.mark(),
                move || two.write(Log::BeforeItWrites),
                move || three.mark(),
            );
            assert_eq!((a | b | c) & OLD, OLD);
        });
    }

    /// Whoever parks is woken: by a reader, a writer or a marker that leaves. A lost wake-up would be a deadlock.
    #[test]
    fn loom_lock_wakes_who_waits() {
        explore(2, |order| {
            let lock = content();
            let (one, two, three) = (lock.clone(), lock.clone(), lock.clone());
            let (seen, _, _) = order.race3(
                move || one.read(),
                move || two.write(Log::Never),
                move || three.write(Log::Never),
            );
            assert!(seen == OLD || seen == NEW);
            assert_eq!(lock.read(), NEW);
        });
    }

    #[test]
    fn loom_lock_marker_wakes_a_writer() {
        explore(2, |order| {
            let lock = content();
            let (one, two, three) = (lock.clone(), lock.clone(), lock);
            order.race3(
                move || one.mark(),
                move || two.write(Log::Never),
                move || three.read(),
            );
        });
    }

    /// The negative control: a writer that leaves without a look at `PARKED`.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_lock_without_wake_up_fails() {
        explore(2, |order| {
            let lock = content();
            let (here, there) = (lock.clone(), lock);
            order.race(
                move || {
                    here.word.write(CYCLE);
                    // Release: as in `unlock_write`.
                    here.word.0.fetch_and(!WRITER, Ordering::Release);
                },
                move || there.read(),
            );
        });
    }
}
