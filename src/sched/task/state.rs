//! The state of a G: one word of flags, a count of references, and how many of those are kept.
//!
//! A kept reference is a waker in a line of this crate's, which only another G of the runtime, or a
//! thread that says so, wakes. Any other waker is a stranger's, who may use it at any time: a timer,
//! a socket, another executor. So a G that waits is stuck once all of its wakers are kept ones
//! ([`State::strangers`]), whatever else it has polled, and in whichever poll. (The count of the
//! waits that the last poll had noted was tried in place of this. It misses the wakers of futures
//! that a G has polled earlier and still has, and then no deadlock of that G is ever seen.)
//!
//! Both counts change with one operation on one word. So nobody sees a reference without its kind,
//! and a wait costs no operation more than without the second count. The kept ones are at the top:
//! should there ever be more than there is room for, the count wraps without touching the others,
//! and the G is not taken for stuck.
//!
//! **Invariants**
//! - `[A1]` Who sets RUNNING (from a word without it) has the future for itself until it clears the flag or sets DONE.
//! - `[A2]` NOTIFIED is set while one reference is in a run queue, or is to be put there by whoever runs the G now. So a G
//!   is in at most one queue, once.
//! - `[A3]` The memory is freed by whoever takes the count to zero.
//!
//! The shape is that of tokio's task state (`runtime/task/state.rs`).

use std::fmt;

use crate::sys::sync::{AtomicU64, Ordering};

/// A thread polls the future.
const RUNNING: u64 = 1;
/// The future has ended and is gone.
const DONE: u64 = 1 << 1;
/// The G is to be polled.
const NOTIFIED: u64 = 1 << 2;
/// A join handle exists.
const JOINABLE: u64 = 1 << 3;
/// The join handle has left a waker, which belongs to whoever sets DONE.
const HAS_JOINER: u64 = 1 << 4;
/// The future is to be dropped instead of polled.
const ABORTED: u64 = 1 << 5;
/// One reference.
const ONE: u64 = 1 << 6;
/// All references.
const REFERENCES: u64 = ((1 << 32) - 1) * ONE;
/// That a reference is a kept one.
const KEPT: u64 = ONE << 32;
/// What a kept waker is: a reference, and that it is kept.
const ONE_KEPT: u64 = ONE + KEPT;

/// See the module's head.
pub(crate) struct State(AtomicU64);

/// What whoever takes a G from a queue is to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    Poll,
    /// It was aborted: drop the future.
    Cancel,
}

/// What comes after a poll that returned `Pending`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It waits; the runner's reference is gone.
    Waits,
    /// It was woken meanwhile: back into a queue, with the runner's reference.
    Again,
    /// It was aborted meanwhile: drop the future. RUNNING is still set.
    Cancel,
}

/// What comes after a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    Nothing,
    /// Into a queue, with the reference that the wake has.
    Queue,
    /// The reference was the last: free the memory.
    Free,
}

/// What comes after the end of a G.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The output is nobody's: drop it.
    pub(crate) unwanted: bool,
    /// There is a waker to wake.
    pub(crate) has_joiner: bool,
}

impl State {
    /// For a new G, which is about to be queued: references of the registry, the queue and the handle.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new((3 * ONE) | NOTIFIED | JOINABLE))
    }

    /// Replaces the word by `f` of it, until nobody has come between; `f`'s other half is returned.
    fn update<R>(&self, mut f: impl FnMut(u64) -> (u64, R)) -> R {
        // Acquire: pairs with the AcqRel below in whoever had the G before.
        let mut old = self.0.load(Ordering::Acquire);
        loop {
            let (new, out) = f(old);
            // Unchanged, but still to be released: a wake that finds NOTIFIED set tells the poll to come what it knows.
            // With a plain load the poll could miss it, and wait for ever.
            if new == old && new & NOTIFIED == 0 {
                return out;
            }
            // AcqRel: hands the future and what the waker's owner did from one holder to the next. Acquire on failure:
            // the word is looked at again.
            match self
                .0
                .compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return out,
                Err(now) => old = now,
            }
        }
    }

    /// By the holder of the queue's reference.
    pub(crate) fn begin(&self) -> Begin {
        self.update(|word| {
            debug_assert!(word & (RUNNING | DONE) == 0 && word & NOTIFIED != 0);
            let what = if word & ABORTED == 0 {
                Begin::Poll
            } else {
                Begin::Cancel
            };
            ((word & !NOTIFIED) | RUNNING, what)
        })
    }

    /// By the runner, after `Pending`.
    pub(crate) fn pause(&self) -> Pause {
        self.update(|word| {
            debug_assert!(word & RUNNING != 0 && word & DONE == 0);
            if word & ABORTED != 0 {
                return (word, Pause::Cancel);
            }
            if word & NOTIFIED != 0 {
                return (word & !RUNNING, Pause::Again);
            }
            debug_assert!(word & REFERENCES >= 2 * ONE, "the registry has one");
            ((word & !RUNNING) - ONE, Pause::Waits)
        })
    }

    /// By the runner: the future is gone and the output is stored.
    pub(crate) fn end(&self) -> End {
        self.update(|word| {
            debug_assert!(word & RUNNING != 0 && word & DONE == 0);
            let end = End {
                unwanted: word & JOINABLE == 0,
                has_joiner: word & HAS_JOINER != 0,
            };
            ((word & !(RUNNING | NOTIFIED)) | DONE, end)
        })
    }

    /// By a waker that keeps its reference.
    pub(crate) fn wake_by_ref(&self) -> Wake {
        self.update(|word| {
            if word & (DONE | NOTIFIED) != 0 {
                (word, Wake::Nothing)
            } else if word & RUNNING != 0 {
                (word | NOTIFIED, Wake::Nothing)
            } else {
                ((word | NOTIFIED) + ONE, Wake::Queue)
            }
        })
    }

    /// By a waker that gives its reference up.
    pub(crate) fn wake(&self) -> Wake {
        self.wake_and_leave(0)
    }

    /// As [`wake`](Self::wake), by a waker that was kept.
    pub(crate) fn wake_kept(&self) -> Wake {
        self.wake_and_leave(KEPT)
    }

    fn wake_and_leave(&self, kind: u64) -> Wake {
        self.update(|word| {
            // Wrapping: there may have been more than there is room for.
            let word = word.wrapping_sub(kind);
            if word & (DONE | NOTIFIED) == 0 && word & RUNNING == 0 {
                return (word | NOTIFIED, Wake::Queue);
            }
            let noted = if word & DONE == 0 { NOTIFIED } else { 0 };
            let new = (word | noted) - ONE;
            let what = if new & REFERENCES == 0 {
                Wake::Free
            } else {
                Wake::Nothing
            };
            (new, what)
        })
    }

    /// Asks for the end; the caller keeps its reference.
    pub(crate) fn abort(&self) -> Wake {
        self.update(|word| {
            if word & (DONE | ABORTED) != 0 {
                (word, Wake::Nothing)
            } else if word & (RUNNING | NOTIFIED) != 0 {
                (word | ABORTED, Wake::Nothing)
            } else {
                ((word | ABORTED | NOTIFIED) + ONE, Wake::Queue)
            }
        })
    }

    pub(crate) fn is_done(&self) -> bool {
        // Acquire: pairs with `end`, before which the output was stored.
        self.0.load(Ordering::Acquire) & DONE != 0
    }

    /// Whether the G waits: nobody polls it, and it is in no queue.
    pub(crate) fn is_waiting(&self) -> bool {
        // Acquire: pairs with `pause`, before which the reason was noted.
        self.0.load(Ordering::Acquire) & (RUNNING | NOTIFIED | DONE) == 0
    }

    pub(crate) fn is_aborted(&self) -> bool {
        // Relaxed: a hint; `pause` and `begin` decide.
        self.0.load(Ordering::Relaxed) & ABORTED != 0
    }

    pub(crate) fn is_running(&self) -> bool {
        // Relaxed: for reports.
        self.0.load(Ordering::Relaxed) & RUNNING != 0
    }

    /// Wakers in other hands than this crate's lines: every reference but those of the registry and
    /// of the handle, the kept ones, and `mine`, which are the caller's. The G waits.
    pub(crate) fn strangers(&self, mine: u64) -> u64 {
        // Relaxed: compared by whoever has found everybody asleep.
        let word = self.0.load(Ordering::Relaxed);
        let ours = 1 + u64::from(word & JOINABLE != 0) + mine + word / KEPT;
        ((word & REFERENCES) / ONE).saturating_sub(ours)
    }

    // ---- the join handle -------------------------------------------------------------------------------------

    /// Whether a waker is there. By the handle, which alone changes that before the end.
    pub(crate) fn has_joiner(&self) -> bool {
        // Relaxed: the handle's own flag.
        self.0.load(Ordering::Relaxed) & HAS_JOINER != 0
    }

    /// The waker is written: whoever ends the G may wake it. False if it has ended.
    pub(crate) fn set_joiner(&self) -> bool {
        self.update(|word| {
            if word & DONE != 0 {
                (word, false)
            } else {
                (word | HAS_JOINER, true)
            }
        })
    }

    /// Takes the waker back. False if the G has ended, and then it is not the handle's.
    pub(crate) fn clear_joiner(&self) -> bool {
        self.update(|word| {
            if word & DONE != 0 {
                (word, false)
            } else {
                (word & !HAS_JOINER, true)
            }
        })
    }

    /// The handle goes. True if the G has ended, and then the output is the handle's to drop.
    pub(crate) fn leave(&self) -> bool {
        self.update(|word| (word & !JOINABLE, word & DONE != 0))
    }

    // ---- references ------------------------------------------------------------------------------------------

    pub(crate) fn add_reference(&self) {
        self.add(ONE);
    }

    /// For a waker in a line of ours.
    pub(crate) fn add_kept_reference(&self) {
        self.add(ONE_KEPT);
    }

    #[inline]
    fn add(&self, what: u64) {
        // Relaxed: whoever clones has one, so the memory stays.
        let old = self.0.fetch_add(what, Ordering::Relaxed);
        // Half of what there is room for: the other half is for those that are just here, too.
        if old & REFERENCES > REFERENCES / 2 {
            crate::sys::fatal::fatal("a G has more than 2,147,483,647 wakers");
        }
    }

    /// True if it was the last.
    pub(crate) fn drop_reference(&self) -> bool {
        self.remove(ONE)
    }

    /// True if it was the last.
    pub(crate) fn drop_kept_reference(&self) -> bool {
        self.remove(ONE_KEPT)
    }

    #[inline]
    fn remove(&self, what: u64) -> bool {
        // AcqRel: releases what was done with this reference, and gathers what others did with theirs. [A3]
        self.0.fetch_sub(what, Ordering::AcqRel) & REFERENCES == ONE
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Relaxed: for people.
        let word = self.0.load(Ordering::Relaxed);
        let references = (word & REFERENCES) / ONE;
        write!(f, "State({:#b}, {references} references)", word % ONE)
    }
}
