//! The word of a `GcLock`: a reader-writer lock that a marker can read through without waiting.
//!
//! ```text
//! | cycle (32) | readers (22) | markers (6) | forgotten | waiting | parked | writer |
//! ```
//! `cycle` is the cycle in which the content was last logged: traced by a marker, or by the first
//! writer of the cycle, under the lock, before it wrote. No two heaps have the same number at a
//! time (`gc/heaps.rs`), so it also says whose writer it was. A write guard never spans a safepoint
//! *of its own heap*, so a lock that is held for writing with a number that is no heap's any more
//! was forgotten: its guard is gone, nobody writes, and anybody may read through it. The marker
//! that finds that notes it (`forgotten`), for the day when the number of that cycle comes round
//! again.
//!
//! **Locks outside the arena** (in a `Box`, a `Vec` or a map that an object owns, on a stack).
//! Their addresses do not say whose they are, so a mutator of heap B may have one of A, as long as
//! nothing in it is A's ([G4]). A's stops do not stop B's mutators. Therefore
//! - a lock that is held for writing with another heap's number is left out, by A's markers and by
//!   its verifier: what was in it when B's writer came was looked at, and what B puts in is alive
//!   for ever (`gc/lost.rs`);
//! - whoever reads a free one takes a share, also while all of A is stopped;
//! - B's writer looks at the content *before* it is one: it takes the lock with a share of its own
//!   beside the writer's bit, and leaves the number as it is
//!   ([`try_write_to_look`](LockWord::try_write_to_look)). Markers still come in. A number that is
//!   B's own in this cycle says that this was done before, so there is one look for each lock and
//!   cycle.
//!
//! A marker never waits for a mutator. It finds the lock
//! - forgotten, or held for writing since an older cycle: traced as if free;
//! - logged in this cycle (held or not): nothing to do, what the content was then has been
//!   reported;
//! - held by another heap's writer: nothing to do, see above;
//! - else free or shared: takes a marker's share, traces, and notes the cycle.
//!
//! **Who gets in.** Markers' shares are counted apart from readers', so that readers who forgot
//! their guards leave markers their room, and a marker is never refused. A writer that waits says
//! so (`waiting`): from then on a new reader stays out, or readers that overlap would keep the
//! writer waiting for ever. One who holds a share of this very lock comes in all the same, or it
//! would wait for a writer that waits for it. The bit goes with the next writer that gets in, or
//! leaves; when a writer gives the lock back everybody has the same chance.
//!
//! **Who looks without being a marker.** The verifier walks while some mutators stand inside an
//! allocation or a call of the verifier, where they may hold guards. "Everybody is stopped" does
//! not mean that nobody is in the middle of a write, and it never speaks of other heaps: see
//! [`begin_look`](LockWord::begin_look).
//!
//! **Invariants**
//! - `[L1]` While `writer` is set and `readers` is zero only the holder of the guard touches the
//!   content; while `readers` or `markers` is not zero nobody writes it.
//! - `[L2]` A writer that finds an older cycle while marking runs logs the old content before its
//!   guard is given out.
//! - `[L3]` No count runs into its neighbour: a reader is refused at [`READERS_MAX`] shares; a
//!   marker that finds all markers' shares taken waits for another marker, which waits for nobody.
//! - `[L4]` Whoever looks at a lock takes no heap's guard for forgotten but one whose heap has had
//!   a stop since: a guard never spans a safepoint of its own heap, whatever the heap does that
//!   looks.

use std::time::Duration;

#[cfg(not(any(loom, shuttle)))]
use parking_lot_core::{DEFAULT_PARK_TOKEN, DEFAULT_UNPARK_TOKEN};

use self::parking::LateClock;
#[cfg(any(loom, shuttle))]
use self::parking::modelled_lot;
use crate::gc::held_locks::Kind;
use crate::sys::MODELLED;
use crate::sys::sync::{AtomicU64, Ordering, spin_hint};

mod parking;

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

/// See the module's head.
#[derive(Debug)]
pub(crate) struct LockWord(AtomicU64);

/// How a writer has the lock that looks at the content before it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// For writing: it was logged in this cycle, by this heap.
    Whole,
    /// Against other mutators only. It is to look, and then to say [`LockWord::has_looked`] or
    /// [`LockWord::unlock_look`].
    ToLook,
}

/// What a verifier may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookView {
    /// A share is held: look, then `finish_look`.
    Shared,
    /// Held by nobody who lives: look.
    Forgotten,
    /// Somebody may be writing it: leave it out.
    Written,
}

/// What a marker may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkView {
    /// Already reported in this cycle.
    Logged,
    /// A share is held: trace, then `finish_mark`.
    Shared,
    /// Held by nobody who lives: trace.
    Forgotten,
    /// Held by a writer of another heap, who may be writing: nothing of this heap's is in it.
    Foreign,
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

    /// Takes the lock for writing, if it is free; returns the cycle in which the content was last
    /// logged.
    #[inline]
    pub(crate) fn try_write(&self, cycle: u32) -> Option<u32> {
        // Relaxed: the compare-exchange acquires.
        let mut word = self.0.load(Ordering::Relaxed);
        while word & HELD == 0 {
            let next = with_cycle(word & !WAITING, cycle) | WRITER;
            // Acquire: pairs with the Releases of earlier holders. Relaxed on failure: looked at
            // again.
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

    /// As [`try_write`](Self::try_write), for a writer that has to look at the content first,
    /// unless the lock was logged in `cycle`, which is its heap's own number.
    pub(crate) fn try_write_to_look(&self, cycle: u32) -> Option<Taken> {
        // Relaxed: the compare-exchange acquires.
        let mut word = self.0.load(Ordering::Relaxed);
        while word & HELD == 0 {
            let (share, taken) = if cycle_of(word) == cycle {
                (0, Taken::Whole)
            } else {
                (READER, Taken::ToLook)
            };
            let next = word & !WAITING | WRITER | share;
            // Acquire: as in `try_write`. Relaxed on failure: looked at again.
            match self
                .0
                .compare_exchange(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Some(taken),
                Err(now) => word = now,
            }
        }
        None
    }

    /// After [`Taken::ToLook`]: the content may be written, and the lock is held for that from now
    /// on. Waits for markers, which wait for nobody. Returns the cycle in which the content was
    /// last logged.
    pub(crate) fn has_looked(&self, cycle: u32) -> u32 {
        // Relaxed: the compare-exchange acquires.
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word & MARKERS != 0 {
                spin_hint();
                word = self.0.load(Ordering::Relaxed);
                continue;
            }
            // Acquire: pairs with the Release of a marker that read beside us. Relaxed on failure:
            // tried again.
            match self.0.compare_exchange_weak(
                word,
                with_cycle(word - READER, cycle),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return cycle_of(word),
                Err(now) => word = now,
            }
        }
    }

    /// After [`Taken::ToLook`]: gives the lock back. Nothing has been written.
    pub(crate) fn unlock_look(&self) {
        // Release: our reads come before the next writer's writes.
        let before = self
            .0
            .fetch_and(!(WRITER | READERS | WAITING | PARKED), Ordering::Release);
        if before & PARKED != 0 {
            self.unpark();
        }
    }

    /// Takes the lock by `take`, one of the tries above, waiting for it. `watch` is called before
    /// the wait, with no time, and then after a second, two, four and so on.
    #[cold]
    pub(crate) fn wait_to_write<R>(
        &self,
        take: impl Fn() -> Option<R>,
        watch: &mut dyn FnMut(Duration),
    ) -> R {
        self.wait_for(HELD, WAITING, take, watch)
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

    /// Takes a share, unless a writer holds the lock, or waits for it and `holds_a_share` of it is
    /// not true.
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
            // Acquire: pairs with the Release of the last writer. Relaxed on failure: looked at
            // again.
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

    /// As [`try_read`](Self::try_read), waiting for the writer; never [`Read::Refused`]. `watch` as
    /// for [`wait_to_write`](Self::wait_to_write).
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
        // Release: our reads come before the next writer's writes; pairs with the Acquire in
        // `try_write`.
        let before = self.0.fetch_sub(READER, Ordering::Release);
        if before & HELD == READER && before & PARKED != 0 {
            self.wake_parked();
        }
    }

    /// Whether somebody may hold the lock so. If this thread does, nobody else can, so a note of it
    /// that finds `false` is of a guard that was forgotten, on a lock that is gone.
    pub(crate) fn may_be_held(&self, held: Kind) -> bool {
        // Relaxed: who holds it has seen to the bits itself.
        let word = self.0.load(Ordering::Relaxed);
        match held {
            Kind::Read => word & WRITER == 0 && word & READERS != 0,
            Kind::Write => word & WRITER != 0 && word & READERS == 0,
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

    /// Somebody looks who is no marker: all mutators of the heap are stopped, which has the number
    /// `cycle`; `busy`: some of them not at a safepoint. `is_anothers` says whether a number is
    /// another heap's now.
    pub(crate) fn begin_look(
        &self,
        cycle: u32,
        busy: bool,
        is_anothers: impl Fn(u32) -> bool,
    ) -> LookView {
        // Relaxed: the compare-exchange acquires; see below for what is forgotten.
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word & FORGOTTEN != 0 {
                return LookView::Forgotten;
            }
            if word & (WRITER | READERS) == WRITER {
                let number = cycle_of(word);
                if busy && number == cycle || number != cycle && is_anothers(number) {
                    return LookView::Written;
                }
                // The answer was given under the lock that the other heap takes to get its next
                // number, so it is not older than the word. Acquire: after the answer. The other
                // heap may have gone on meanwhile, and may have taken the lock anew, with another
                // number. If the word is as it was, it has been held ever since.
                let now = self.0.load(Ordering::Acquire);
                if now & (WRITER | READERS) == WRITER && cycle_of(now) == number {
                    return LookView::Forgotten;
                }
                word = now;
                continue;
            }
            if word & MARKERS == MARKERS {
                // [L3] Somebody is about to finish.
                spin_hint();
                word = self.0.load(Ordering::Relaxed);
                continue;
            }
            // Acquire: as in `try_read`. Relaxed on failure: looked at again.
            match self.0.compare_exchange_weak(
                word,
                word + MARKER,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return LookView::Shared,
                Err(now) => word = now,
            }
        }
    }

    /// After [`LookView::Shared`].
    pub(crate) fn finish_look(&self) {
        // Release: as in `unlock_read`.
        let before = self.0.fetch_sub(MARKER, Ordering::Release);
        if before & HELD == MARKER && before & PARKED != 0 {
            self.wake_parked();
        }
    }

    /// A marker of `cycle` looks; it never waits for a mutator. `is_anothers` says whether a number
    /// is another heap's now.
    pub(crate) fn begin_mark(&self, cycle: u32, is_anothers: impl Fn(u32) -> bool) -> MarkView {
        // Relaxed: the compare-exchange acquires; what is forgotten was written in an older cycle.
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word & FORGOTTEN != 0 {
                return MarkView::Forgotten;
            }
            if cycle_of(word) == cycle {
                return MarkView::Logged;
            }
            let (next, view) = if word & (WRITER | READERS) == WRITER {
                if is_anothers(cycle_of(word)) {
                    return MarkView::Foreign;
                }
                // [L4] If the word is still the same, the guard has outlived its number.
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
        // SAFETY: the key is the address of this word, which no other user of the parking lot has;
        // the call back does nothing.
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
            // Relaxed: under the parking lot's lock for this key, which `unpark` takes after
            // clearing the bits.
            let word = self.0.load(Ordering::Relaxed);
            word & (PARKED | says) == PARKED | says && word & held != 0
        };
        #[cfg(any(loom, shuttle))]
        {
            let _ = clock;
            modelled_lot::park(validate);
        }
        #[cfg(not(any(loom, shuttle)))]
        // SAFETY: the key is this word's address; the callbacks do not panic and do not call into
        // the parking lot.
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

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod models;
