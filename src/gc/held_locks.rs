//! Which locks of `GcLock`s this thread holds: what a thread that is about to wait asks, so that it does not wait for
//! itself.
//!
//! Taking a guard notes the lock here and dropping it takes the note back, each a few instructions on the thread's own
//! memory. The list says "this thread" only when it is sure:
//! - A guard on a lock of an object (in the object itself, or in a box, a list or a map that it owns) ends before its thread's
//!   next safepoint, so at a safepoint that stops, and where a mutator comes back from elsewhere, all notes go ([`clear`]). A
//!   note of a forgotten guard is therefore right as long as it is there: nobody else gives that lock back, and its memory
//!   is not used for another object before the thread stops.
//! - A guard on a lock that no object owns may live on, without a note. If the lock is on the thread's stack, its address
//!   says that it is the thread's own (`api::lock`). In a box of the thread's nothing says so, and the thread waits and is
//!   told of: where the lock is says nothing, for what an object owns outside the heap is shared as the object is. To keep
//!   notes of locks outside the heap over safepoints was tried: the guard may have been forgotten, the lock dropped, and its
//!   memory be another object's lock by then.
//! - A note that does not agree with the lock's word is one of a lock that is gone ([`LockWord::may_be_held`]).
//! - Beyond [`NOTED`] locks a guard is counted, and not noted. Then the list does not know everything
//!   ([`Holding::Perhaps`]), and the wait is told on standard error instead of refused.
//!
//! [`LockWord::may_be_held`]: crate::gc::lock_word::LockWord::may_be_held
//!
//! **Who waits for this thread.** A thread that is about to sleep until it gets a lock says for which one ([`wait_for`]), in one
//! list for all heaps: it sleeps anyway, so the lock over the list costs it nothing. It takes no part in stops meanwhile, for it
//! may hold `Gc`s. Whoever waits for a cycle while it holds locks asks whether one of them is waited for
//! ([`is_one_waited_for`]): then that cycle waits for it.

use std::cell::Cell;
use std::panic::Location;

#[cfg(not(any(loom, shuttle)))]
use crate::sys::lock::Unranked;
use crate::sys::thread::thread_local;

/// Locks that are noted.
const NOTED: usize = 32;
/// In a note: for writing. Locks are aligned to more.
const WRITE: usize = 1;

struct Held {
    count: Cell<usize>,
    /// Guards that are held beside the noted ones.
    more: Cell<usize>,
    notes: [Cell<usize>; NOTED],
    #[cfg(debug_assertions)]
    places: [Cell<Option<&'static Location<'static>>>; NOTED],
}

thread_local! {
    static HELD: Held = const {
        Held {
            count: Cell::new(0),
            more: Cell::new(0),
            notes: [const { Cell::new(0) }; NOTED],
            #[cfg(debug_assertions)]
            places: [const { Cell::new(None) }; NOTED],
        }
    };
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

impl Kind {
    fn note(self, lock: usize) -> usize {
        match self {
            Self::Read => lock,
            Self::Write => lock | WRITE,
        }
    }
}

/// Whether this thread holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    No,
    /// It has more guards than are noted.
    Perhaps,
    /// Since where, if debug assertions are on.
    Yes(Kind, Option<&'static Location<'static>>),
}

/// This thread has taken the lock at address `lock`.
#[inline]
#[cfg_attr(debug_assertions, track_caller)]
pub(crate) fn took(lock: usize, kind: Kind) {
    #[cfg(debug_assertions)]
    let place = Location::caller();
    HELD.with(|held| {
        let count = held.count.get();
        match held.notes.get(count) {
            Some(note) => {
                note.set(kind.note(lock));
                #[cfg(debug_assertions)]
                held.places[count].set(Some(place));
                held.count.set(count + 1);
            }
            None => held.more.set(held.more.get() + 1),
        }
    });
}

/// This thread gives the lock back.
#[inline]
pub(crate) fn gave_back(lock: usize, kind: Kind) {
    HELD.with(|held| {
        let last = held.count.get().wrapping_sub(1);
        if held.notes.get(last).map(Cell::get) == Some(kind.note(lock)) {
            held.count.set(last);
        } else {
            forget(held, kind.note(lock));
        }
    });
}

/// The guard that goes is not the last that was taken.
#[cold]
#[inline(never)]
fn forget(held: &Held, note: usize) {
    let count = held.count.get();
    let at = held.notes[..count].iter().rposition(|n| n.get() == note);
    let Some(at) = at else {
        // It is one of those without a note, or older than the last `clear`.
        held.more.set(held.more.get().saturating_sub(1));
        return;
    };
    for later in at + 1..count {
        held.notes[later - 1].set(held.notes[later].get());
        #[cfg(debug_assertions)]
        held.places[later - 1].set(held.places[later].get());
    }
    held.count.set(count - 1);
}

/// This thread's mutator is at a safepoint: no guard on an object's lock is left.
#[inline]
pub(crate) fn clear() {
    HELD.with(|held| {
        held.count.set(0);
        held.more.set(0);
    });
}

/// Whether this thread holds the lock at address `lock`.
pub(crate) fn holding(lock: usize) -> Holding {
    HELD.with(|held| {
        let notes = held.notes[..held.count.get()].iter();
        let at = notes.map(Cell::get).position(|note| note & !WRITE == lock);
        match at {
            Some(at) => {
                let kind = if held.notes[at].get() & WRITE == 0 {
                    Kind::Read
                } else {
                    Kind::Write
                };
                #[cfg(debug_assertions)]
                let place = held.places[at].get();
                #[cfg(not(debug_assertions))]
                let place = None;
                Holding::Yes(kind, place)
            }
            None if held.more.get() > 0 => Holding::Perhaps,
            None => Holding::No,
        }
    })
}

/// Locks that threads sleep for, by address; once for each thread. Not in models: they have no static locks.
#[cfg(not(any(loom, shuttle)))]
static WAITED_FOR: Unranked<Vec<usize>> = Unranked::new(Vec::new());

/// A note that this thread sleeps until it gets a lock. It goes with this.
#[must_use = "the note goes at once otherwise"]
#[derive(Debug)]
pub(crate) struct Waiting(usize);

/// This thread is about to sleep until it gets the lock at address `lock`.
pub(crate) fn wait_for(lock: usize) -> Waiting {
    #[cfg(not(any(loom, shuttle)))]
    WAITED_FOR.lock().push(lock);
    Waiting(lock)
}

impl Drop for Waiting {
    fn drop(&mut self) {
        #[cfg(any(loom, shuttle))]
        let _ = self.0;
        #[cfg(not(any(loom, shuttle)))]
        {
            let mut all = WAITED_FOR.lock();
            if let Some(at) = all.iter().position(|lock| *lock == self.0) {
                all.swap_remove(at);
            }
        }
    }
}

/// Whether somebody sleeps for a lock that this thread holds and `counts` counts. It knows the last 32 locks.
pub(crate) fn is_one_waited_for(counts: impl Fn(usize) -> bool) -> bool {
    #[cfg(any(loom, shuttle))]
    {
        let _ = counts;
        false
    }
    #[cfg(not(any(loom, shuttle)))]
    HELD.with(|held| {
        let notes = &held.notes[..held.count.get()];
        if notes.is_empty() {
            return false;
        }
        let all = WAITED_FOR.lock();
        let mine = notes.iter().map(|note| note.get() & !WRITE);
        mine.filter(|lock| counts(*lock)).any(|l| all.contains(&l))
    })
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn kind_of(lock: usize) -> Option<Kind> {
        match holding(lock) {
            Holding::Yes(kind, _) => Some(kind),
            Holding::No | Holding::Perhaps => None,
        }
    }

    #[test]
    fn guards_go_in_any_order() {
        clear();
        took(8, Kind::Read);
        took(16, Kind::Write);
        took(8, Kind::Read);
        took(24, Kind::Read);
        assert_eq!(kind_of(16), Some(Kind::Write));
        gave_back(8, Kind::Read);
        assert_eq!(kind_of(8), Some(Kind::Read), "another guard of it is left");
        gave_back(16, Kind::Write);
        gave_back(8, Kind::Read);
        assert_eq!(holding(8), Holding::No);
        assert_eq!(holding(16), Holding::No);
        gave_back(24, Kind::Read);
        assert_eq!(holding(24), Holding::No);
        clear();
    }

    #[test]
    fn what_is_not_noted_is_not_denied() {
        clear();
        let locks = 8..8 + NOTED * 8 + 80;
        locks.clone().step_by(8).for_each(|n| took(n, Kind::Read));
        assert_eq!(kind_of(8), Some(Kind::Read));
        assert_eq!(holding(1 << 20), Holding::Perhaps);
        locks.step_by(8).for_each(|n| gave_back(n, Kind::Read));
        assert_eq!(holding(8), Holding::No);
        assert_eq!(holding(1 << 20), Holding::No);
    }

    #[test]
    fn a_thread_that_sleeps_for_a_lock_is_known_to_who_holds_it() {
        clear();
        // Numbers that are no lock's of another test.
        let (mine, other) = (usize::MAX - 127, usize::MAX - 63);
        took(mine, Kind::Write);
        let waits = wait_for(other);
        assert!(!is_one_waited_for(|_| true));
        let (first, second) = (wait_for(mine), wait_for(mine));
        drop(first);
        assert!(is_one_waited_for(|_| true));
        assert!(!is_one_waited_for(|lock| lock != mine));
        #[allow(clippy::disallowed_methods, reason = "a thread of a test")]
        let at_another = std::thread::spawn(|| is_one_waited_for(|_| true));
        assert!(!at_another.join().expect("no panic"));
        drop((second, waits));
        assert!(!is_one_waited_for(|_| true));
        gave_back(mine, Kind::Write);
    }

    #[test]
    fn a_safepoint_forgets() {
        clear();
        took(8, Kind::Write);
        clear();
        assert_eq!(holding(8), Holding::No);
        gave_back(8, Kind::Write);
        took(16, Kind::Read);
        assert_eq!(kind_of(16), Some(Kind::Read));
        gave_back(16, Kind::Read);
        assert_eq!(holding(16), Holding::No);
    }
}
