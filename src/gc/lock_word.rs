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

use parking_lot_core::{DEFAULT_PARK_TOKEN, DEFAULT_UNPARK_TOKEN};

use crate::sys::sync::{AtomicU64, Ordering, spin_hint};

const WRITER: u64 = 1;
const PARKED: u64 = 2;
const READER: u64 = 4;
const READERS: u64 = (1 << 32) - READER;
const CYCLE_SHIFT: u32 = 32;
const SPINS: u32 = 60;

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
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64 as LoomU64;
    use loom::thread;

    use super::*;
    use crate::sys::sync::UnsafeCell;

    struct Content {
        word: LockWord,
        value: UnsafeCell<u64>,
    }
    unsafe impl Sync for Content {}
    unsafe impl Send for Content {}

    /// First write of a cycle against a marker: the old value (1) is always reported, by one of them, and nobody reads
    /// what the writer writes.
    #[test]
    fn loom_lock_first_write_against_marker() {
        loom::model(|| {
            let lock = Arc::new(Content {
                word: LockWord::new(),
                value: UnsafeCell::new(1),
            });
            let reported = Arc::new(LoomU64::new(0));
            let writer = {
                let (lock, reported) = (lock.clone(), reported.clone());
                thread::spawn(move || {
                    let Some(logged) = lock.word.try_write(1) else {
                        return false;
                    };
                    if logged != 1 {
                        // [L2] the log.
                        let old = lock.value.with(|v| unsafe { *v });
                        reported.fetch_or(old, Ordering::Relaxed);
                    }
                    lock.value.with_mut(|v| unsafe { *v = 2 });
                    lock.word.unlock_write();
                    true
                })
            };
            match lock.word.begin_mark(1) {
                MarkView::Shared => {
                    let seen = lock.value.with(|v| unsafe { *v });
                    reported.fetch_or(seen, Ordering::Relaxed);
                    lock.word.finish_mark(1);
                }
                MarkView::Logged => {}
                MarkView::Forgotten => panic!("nobody forgot"),
            }
            writer.join().unwrap();
            assert_eq!(
                reported.load(Ordering::Relaxed) & 1,
                1,
                "the old content is reported"
            );
        });
    }
}
