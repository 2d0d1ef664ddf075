//! The word of a `GcLock`: a reader-writer lock that a marker can read through without waiting.
//!
//! ```text
//! | cycle (32) | readers (22) | markers (6) | forgotten | waiting | parked | writer |
//! ```
//! `cycle` is the cycle in which the content was last logged: traced by a marker, or by the first writer of the cycle,
//! under the lock, before it wrote. A write guard never spans a safepoint, so a lock that is held for writing with an older
//! cycle in it was forgotten: its guard is gone, nobody writes, and a marker may read through it. The marker that finds
//! that notes it (`forgotten`), for the day when the number of that cycle comes round again.
//!
//! A marker never waits for a mutator. It finds the lock
//! - forgotten, or held for writing since an older cycle: traced as if free;
//! - logged in this cycle (held or not): nothing to do, what the content was then has been reported;
//! - else free or shared: takes a marker's share, traces, and notes the cycle.
//!
//! **Who gets in.** Markers' shares are counted apart from readers', so that readers who forgot their guards leave markers
//! their room, and a marker is never refused. A writer that waits says so (`waiting`): from then on a new reader stays out,
//! or readers that overlap would keep the writer waiting for ever. One who holds a share of this very lock comes in
//! all the same, or it would wait for a writer that waits for it. The bit goes with the next writer that gets in, or leaves; when a
//! writer gives the lock back everybody has the same chance.
//!
//! **Who looks without being a marker.** The verifier walks while some mutators stand inside an allocation or a call of the
//! verifier, where they may hold guards. "Everybody is stopped" does not mean that nobody is in the middle of a write: a lock held for writing
//! *in this cycle* is not read ([`may_be_written`](LockWord::may_be_written)).
//!
//! **Invariants**
//! - `[L1]` While `writer` is set only the holder of the guard touches the content; while `readers` or `markers` is not zero
//!   nobody writes it.
//! - `[L2]` A writer that finds an older cycle while marking runs logs the old content before its guard is given out.
//! - `[L3]` No count runs into its neighbour: a reader is refused at [`READERS_MAX`] shares; a marker that finds all
//!   markers' shares taken waits for another marker, which waits for nobody.

use std::time::Duration;
#[cfg(not(any(loom, shuttle)))]
use std::time::Instant;

#[cfg(not(any(loom, shuttle)))]
use parking_lot_core::{DEFAULT_PARK_TOKEN, DEFAULT_UNPARK_TOKEN};

use crate::gc::held_locks::Kind;
use crate::gc::notice::FIRST;
use crate::sys::MODELLED;
use crate::sys::sync::{AtomicU64, Ordering, spin_hint};

const WRITER: u64 = 1;
const PARKED: u64 = 2;
/// A writer waits.
const WAITING: u64 = 4;
/// With `WRITER`: the guard was forgotten in an older cycle.
const FORGOTTEN: u64 = 8;
const MARKER: u64 = 1 << 4;
const MARKERS: u64 = 0x3f << 4;
const READER: u64 = 1 << 10;
/// The most read guards of a lock at a time, forgotten ones included.
pub(crate) const READERS_MAX: u64 = (1 << 22) - 1;
const READERS: u64 = READERS_MAX * READER;
/// What keeps a writer out.
const HELD: u64 = WRITER | READERS | MARKERS;
const CYCLE_SHIFT: u32 = 32;
const SPINS: u32 = if MODELLED { 0 } else { 60 };
/// After this time a wait is told, then after twice that time, and so on.
const LATE: Duration = FIRST;

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

/// What became of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Taken,
    /// A writer holds the lock, or waits for it.
    Refused,
    /// There are [`READERS_MAX`] shares.
    Full,
}

const fn cycle_of(word: u64) -> u32 {
    (word >> CYCLE_SHIFT) as u32
}

const fn with_cycle(word: u64, cycle: u32) -> u64 {
    word & (u32::MAX as u64) | (cycle as u64) << CYCLE_SHIFT
}

/// Takes back what a waiting writer has said, when the wait ends by a panic.
struct Waits<'a>(&'a LockWord);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        // Relaxed: who was kept out looks again. Other writers that wait say so again.
        self.0.0.fetch_and(!(WAITING | PARKED), Ordering::Relaxed);
        self.0.unpark();
    }
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

    /// Its address, which names the lock.
    #[inline]
    pub(crate) fn address(&self) -> usize {
        (&raw const self.0).addr()
    }

    /// Takes the lock for writing, if it is free; returns the cycle in which the content was last logged.
    #[inline]
    pub(crate) fn try_write(&self, cycle: u32) -> Option<u32> {
        // Relaxed: the compare-exchange acquires.
        let mut word = self.0.load(Ordering::Relaxed);
        while word & HELD == 0 {
            let next = with_cycle(word & !WAITING, cycle) | WRITER;
            // Acquire: pairs with the Releases of earlier holders. Relaxed on failure: looked at again.
            match self
                .0
                .compare_exchange(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Some(cycle_of(word)),
                Err(now) => word = now,
            }
        }
        None
    }

    /// As [`try_write`](Self::try_write), waiting for the lock. `watch` is called before the wait, with no time, and then after a
    /// second, two, four and so on.
    #[cold]
    pub(crate) fn wait_to_write(&self, cycle: u32, watch: &mut dyn FnMut(Duration)) -> u32 {
        self.wait_for(HELD, WAITING, || self.try_write(cycle), watch)
    }

    /// Gives the lock back.
    #[inline]
    pub(crate) fn unlock_write(&self) {
        // Release: publishes what was written; pairs with the Acquires of later holders.
        let before = self
            .0
            .fetch_and(!(WRITER | WAITING | PARKED), Ordering::Release);
        if before & PARKED != 0 {
            self.unpark();
        }
    }

    /// Takes a share, unless a writer holds the lock, or waits for it and `holds_a_share` of it is not true.
    #[inline]
    pub(crate) fn try_read(&self, holds_a_share: impl Fn() -> bool) -> Read {
        // Relaxed: the compare-exchange acquires.
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word & (WRITER | WAITING) != 0 && (word & WRITER != 0 || !holds_a_share()) {
                return Read::Refused;
            }
            if word & READERS == READERS {
                return Read::Full;
            }
            // Acquire: pairs with the Release of the last writer. Relaxed on failure: looked at again.
            match self.0.compare_exchange_weak(
                word,
                word + READER,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Read::Taken,
                Err(now) => word = now,
            }
        }
    }

    /// As [`try_read`](Self::try_read), waiting for the writer; never [`Read::Refused`]. `watch` as for
    /// [`wait_to_write`](Self::wait_to_write).
    #[cold]
    pub(crate) fn wait_to_read(
        &self,
        holds_a_share: impl Fn() -> bool,
        watch: &mut dyn FnMut(Duration),
    ) -> Read {
        let take = || {
            let read = self.try_read(&holds_a_share);
            (read != Read::Refused).then_some(read)
        };
        self.wait_for(WRITER | WAITING, 0, take, watch)
    }

    /// Gives a share back.
    #[inline]
    pub(crate) fn unlock_read(&self) {
        // Release: our reads come before the next writer's writes; pairs with the Acquire in `try_write`.
        let before = self.0.fetch_sub(READER, Ordering::Release);
        if before & HELD == READER && before & PARKED != 0 {
            self.wake_parked();
        }
    }

    /// Whether somebody who is no marker keeps out who wants that.
    pub(crate) fn keeps_out(&self, wanted: Kind) -> bool {
        // Relaxed: nothing is read.
        let word = self.0.load(Ordering::Relaxed);
        match wanted {
            Kind::Read => word & WRITER != 0,
            Kind::Write => word & (WRITER | READERS) != 0,
        }
    }

    /// Counts `guards` more read guards, as if they had been taken and forgotten: for tests.
    #[cfg(any(fuzzing, feature = "internals", test))]
    pub(crate) fn forget_readers(&self, guards: u32) {
        // Relaxed: a count.
        self.0
            .fetch_add(u64::from(guards) * READER, Ordering::Relaxed);
    }

    /// Whether a mutator may be changing the content, when the running or last cycle is `cycle` and some mutators are not at a
    /// safepoint. The caller has stopped them where they are.
    pub(crate) fn may_be_written(&self, cycle: u32) -> bool {
        // Relaxed: whoever set `writer` has been stopped since, and nobody sets it now.
        let word = self.0.load(Ordering::Relaxed);
        word & (WRITER | FORGOTTEN) == WRITER && cycle_of(word) == cycle
    }

    /// A marker of `cycle` looks; it never waits for a mutator.
    pub(crate) fn begin_mark(&self, cycle: u32) -> MarkView {
        // Relaxed: the compare-exchange acquires; what is forgotten was written in an older cycle.
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word & FORGOTTEN != 0 {
                return MarkView::Forgotten;
            }
            if cycle_of(word) == cycle {
                return MarkView::Logged;
            }
            let (next, view) = if word & WRITER != 0 {
                (word | FORGOTTEN, MarkView::Forgotten)
            } else if word & MARKERS == MARKERS {
                // [L3] Somebody is about to finish.
                spin_hint();
                word = self.0.load(Ordering::Relaxed);
                continue;
            } else {
                (word + MARKER, MarkView::Shared)
            };
            // Acquire: as in `try_read`. Relaxed on failure: looked at again.
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return view,
                Err(now) => word = now,
            }
        }
    }

    /// The marker has traced the content.
    pub(crate) fn finish_mark(&self, cycle: u32) {
        // Relaxed: only for the arithmetic.
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let next = with_cycle(word - MARKER, cycle);
            // Release: as in `unlock_read`. Relaxed on failure: tried again.
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & HELD == MARKER && word & PARKED != 0 {
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
            parking_lot_core::unpark_all(self.address(), DEFAULT_UNPARK_TOKEN);
        }
    }

    /// Waits until `take` takes; parks while any of `held` is set. Says `says` meanwhile.
    fn wait_for<R>(
        &self,
        held: u64,
        says: u64,
        take: impl Fn() -> Option<R>,
        watch: &mut dyn FnMut(Duration),
    ) -> R {
        for _ in 0..SPINS {
            if let Some(taken) = take() {
                return taken;
            }
            spin_hint();
        }
        watch(Duration::ZERO);
        let waits = Waits(self);
        let mut clock = LateClock::start();
        let taken = loop {
            if let Some(taken) = take() {
                break taken;
            }
            // Relaxed: the park validates.
            let word = self.0.load(Ordering::Relaxed);
            if word & held == 0 {
                continue;
            }
            // Relaxed: the holder reads the bits when it unlocks, in the order of this word.
            let wanted = word | PARKED | says;
            if word != wanted
                && self
                    .0
                    .compare_exchange(word, wanted, Ordering::Relaxed, Ordering::Relaxed)
                    .is_err()
            {
                continue;
            }
            self.park(held, says, &clock);
            if let Some(waited) = clock.late() {
                watch(waited);
            }
        };
        // The writer's bit went when it got in.
        #[allow(clippy::mem_forget, reason = "it has nothing to take back")]
        std::mem::forget(waits);
        taken
    }

    fn park(&self, held: u64, says: u64, clock: &LateClock) {
        let validate = || {
            // Relaxed: under the parking lot's lock for this key, which `unpark` takes after clearing the bits.
            let word = self.0.load(Ordering::Relaxed);
            word & (PARKED | says) == PARKED | says && word & held != 0
        };
        #[cfg(any(loom, shuttle))]
        {
            let _ = clock;
            modelled_lot::park(validate);
        }
        #[cfg(not(any(loom, shuttle)))]
        // SAFETY: the key is this word's address; the callbacks do not panic and do not call into the parking lot.
        unsafe {
            parking_lot_core::park(
                self.address(),
                validate,
                || {},
                |_, _| {},
                DEFAULT_PARK_TOKEN,
                Some(clock.next),
            );
        }
    }
}

/// When a wait is told the next time.
#[cfg(not(any(loom, shuttle)))]
struct LateClock {
    since: Instant,
    after: Duration,
    next: Instant,
}

#[cfg(not(any(loom, shuttle)))]
impl LateClock {
    fn start() -> Self {
        let since = Instant::now();
        Self {
            since,
            after: LATE,
            next: since + LATE,
        }
    }

    /// The time waited, if it is time to tell it.
    fn late(&mut self) -> Option<Duration> {
        if Instant::now() < self.next {
            return None;
        }
        let told = self.after;
        self.after *= 2;
        self.next = self.since + self.after;
        Some(told)
    }
}

/// In a model nothing is late.
#[cfg(any(loom, shuttle))]
struct LateClock;

#[cfg(any(loom, shuttle))]
impl LateClock {
    fn start() -> Self {
        Self
    }

    fn late(&mut self) -> Option<Duration> {
        let _ = LATE;
        None
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

    fn reads(word: &LockWord) -> bool {
        word.try_read(|| false) == Read::Taken
    }

    fn read(word: &LockWord) {
        if !reads(word) {
            assert_eq!(word.wait_to_read(|| false, &mut |_| ()), Read::Taken);
        }
    }

    fn write(word: &LockWord, cycle: u32) -> u32 {
        let taken = word.try_write(cycle);
        taken.unwrap_or_else(|| word.wait_to_write(cycle, &mut |_| ()))
    }

    fn flags(word: &LockWord) -> u64 {
        word.0.load(Ordering::Relaxed) & (WRITER | PARKED | WAITING | FORGOTTEN)
    }

    /// Waits until a thread has said that it waits to write.
    fn await_a_waiting_writer(word: &LockWord) {
        while flags(word) & (WAITING | PARKED) != WAITING | PARKED {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_reader_stays_out_while_a_writer_waits_unless_it_is_in_already() {
        let w = LockWord::new();
        read(&w);
        std::thread::scope(|s| {
            s.spawn(|| {
                write(&w, 1);
                w.unlock_write();
            });
            await_a_waiting_writer(&w);
            assert_eq!(w.try_read(|| false), Read::Refused);
            assert_eq!(w.try_read(|| true), Read::Taken);
            w.unlock_read();
            assert_eq!(
                w.begin_mark(5),
                MarkView::Shared,
                "a marker never stays out"
            );
            w.finish_mark(5);
            let late = s.spawn(|| {
                read(&w);
                w.unlock_read();
            });
            w.unlock_read();
            late.join().expect("the writer lets it in");
        });
        assert_eq!(flags(&w) & !PARKED, 0, "nobody waits any more");
        assert!(reads(&w));
    }

    #[test]
    fn readers_that_overlap_do_not_keep_a_writer_out() {
        let w = LockWord::new();
        let (written, reads) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    while !written.load(Ordering::Relaxed) {
                        read(&w);
                        reads.fetch_add(1, Ordering::Relaxed);
                        // Longer than a wake-up takes, so that there is always one of the four inside.
                        std::thread::sleep(Duration::from_millis(2));
                        w.unlock_read();
                    }
                });
            }
            while reads.load(Ordering::Relaxed) < 8 {
                std::thread::yield_now();
            }
            write(&w, 1);
            w.unlock_write();
            written.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_full_count_of_readers_leaves_markers_their_room() {
        let w = LockWord::new();
        w.forget_readers(READERS_MAX as u32 - 1);
        assert!(reads(&w));
        assert_eq!(w.try_read(|| true), Read::Full);
        assert_eq!(w.wait_to_read(|| true, &mut |_| ()), Read::Full);
        for _ in 0..MARKERS / MARKER {
            assert_eq!(w.begin_mark(7), MarkView::Shared);
            assert_eq!(w.try_write(7), None);
        }
        for _ in 0..MARKERS / MARKER {
            w.finish_mark(7);
            assert_eq!(w.try_write(7), None);
        }
        assert_eq!(w.begin_mark(7), MarkView::Logged);
        w.unlock_read();
        assert!(reads(&w));
        assert_eq!(flags(&w), 0, "no count has run into its neighbour");
    }

    #[test]
    fn what_is_forgotten_stays_so_when_its_cycle_comes_round_again() {
        let w = LockWord::new();
        assert_eq!(w.try_write(7), Some(0));
        assert!(w.may_be_written(7) && !w.may_be_written(8));
        assert_eq!(w.begin_mark(7), MarkView::Logged);
        assert_eq!(w.begin_mark(8), MarkView::Forgotten);
        assert_eq!(w.begin_mark(7), MarkView::Forgotten);
        assert!(!w.may_be_written(7));
        assert!(w.try_write(9).is_none() && !reads(&w));
    }

    #[test]
    fn a_writer_that_gives_up_lets_the_readers_in() {
        let w = LockWord::new();
        read(&w);
        let gave_up = std::panic::catch_unwind(|| {
            w.wait_to_write(1, &mut |waited| assert!(waited.is_zero(), "late"));
        });
        assert!(gave_up.is_err(), "after a second");
        assert!(reads(&w));
        w.unlock_read();
        w.unlock_read();
        assert_eq!(w.try_write(1), Some(0));
    }

    #[test]
    fn writers_exclude_readers_and_each_other() {
        let w = LockWord::new();
        assert_eq!(w.try_write(3), Some(0));
        assert!(!reads(&w) && w.try_write(3).is_none());
        w.unlock_write();
        assert!(reads(&w) && reads(&w));
        assert!(w.try_write(3).is_none());
        w.unlock_read();
        w.unlock_read();
        assert_eq!(w.try_write(4), Some(3), "the last logged cycle");
    }

    #[test]
    fn a_marker_sees_the_four_cases() {
        let w = LockWord::new();
        assert_eq!(w.begin_mark(5), MarkView::Shared);
        assert!(reads(&w) && w.try_write(5).is_none());
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
                            read(&w);
                            assert!(!inside.load(Ordering::Relaxed));
                            w.unlock_read();
                        } else {
                            write(&w, 1);
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

    const CYCLE: u32 = 2;
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
            let logged = self.write_lock();
            let mut report = 0;
            if logged != CYCLE && log == Log::BeforeItWrites {
                // [L2]
                report = self.value.get();
            }
            self.value.set(NEW);
            self.word.unlock_write();
            report
        }

        /// The slow path of `GcLock::write`.
        fn write_lock(&self) -> u32 {
            let taken = self.word.try_write(CYCLE);
            taken.unwrap_or_else(|| self.word.wait_to_write(CYCLE, &mut |_| ()))
        }

        fn read_lock(&self, holds_a_share: bool) {
            if self.word.try_read(|| holds_a_share) != Read::Taken {
                let read = self.word.wait_to_read(|| holds_a_share, &mut |_| ());
                assert_eq!(read, Read::Taken);
            }
        }

        fn read(&self) -> u64 {
            self.read_lock(false);
            let value = self.value.get();
            self.word.unlock_read();
            value
        }

        /// A thread that holds a share takes another one.
        fn read_twice(&self) -> [u64; 2] {
            self.read_lock(false);
            let first = self.value.get();
            self.read_lock(true);
            let second = self.value.get();
            self.word.unlock_read();
            self.word.unlock_read();
            [first, second]
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

    /// A reader comes twice while a writer waits, and another reader comes from outside: nobody waits for ever.
    #[test]
    fn loom_lock_reader_inside_against_a_waiting_writer() {
        explore(2, |order| {
            let lock = content();
            let (one, two, three) = (lock.clone(), lock.clone(), lock);
            let ([first, second], _, seen) = order.race3(
                move || one.read_twice(),
                move || two.write(Log::Never),
                move || three.read(),
            );
            assert_eq!(first, second, "nobody writes under a share");
            assert!(seen == OLD || seen == NEW);
        });
    }

    /// Readers have forgotten all the guards there may be. Two markers still have their shares, and a writer stays out.
    #[test]
    fn loom_lock_markers_at_a_full_count() {
        explore(2, |order| {
            let lock = content();
            lock.word.forget_readers(READERS_MAX as u32);
            let (one, two, three) = (lock.clone(), lock.clone(), lock.clone());
            let (a, b, wrote) = order.race3(
                move || one.mark(),
                move || two.mark(),
                move || three.word.try_write(CYCLE).is_some(),
            );
            assert!(!wrote, "beside read guards");
            assert_eq!((a | b) & OLD, OLD);
            assert_eq!(lock.word.try_read(|| true), Read::Full);
        });
    }

    /// Two markers of the next cycle find a guard that was forgotten in the last one.
    #[test]
    fn loom_lock_two_markers_of_a_forgotten_guard() {
        explore(3, |order| {
            let lock = content();
            assert_eq!(lock.word.try_write(CYCLE - 1), Some(0));
            let (one, two) = (lock.clone(), lock.clone());
            let (a, b) = order.race(
                move || one.word.begin_mark(CYCLE),
                move || two.word.begin_mark(CYCLE),
            );
            assert_eq!((a, b), (MarkView::Forgotten, MarkView::Forgotten));
            assert!(!lock.word.may_be_written(CYCLE) && !lock.word.may_be_written(CYCLE - 1));
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
                    here.write_lock();
                    // Release: as in `unlock_write`.
                    here.word.0.fetch_and(!WRITER, Ordering::Release);
                },
                move || there.read(),
            );
        });
    }
}
