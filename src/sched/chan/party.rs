//! Who waits on channels: a single send or receive, or a select with several.
//!
//! ```text
//!            arm                    try_claim                  decide
//!   Idle ----------> Waiting -------------------> Claimed ---------------> Decided(case)
//!     ^                 |  <---------------------    |
//!     +-----------------+         unclaim            |
//!     ^     withdraw                                 |
//!     +----------------------------------------------+  reset, by the owner, when it has seen the outcome
//! ```
//!
//! A party of one operation is in one queue, so the lock of that channel decides for it, and nobody needs a claim. A
//! select is in several queues under several locks. Whoever wants to end its wait claims it first, and only one can: a
//! select ends in one case. A claim is held for a few instructions; others wait for its end by looking again.
//!
//! A select that is registering is in some queues already when it meets another select in the next. Both must be had, or
//! neither: [`claim_with`] claims the one at the lower address first. A holder only ever waits for a claim at a
//! higher address, so such waits make no circle. Therefore whoever needs a second party looks for it before it claims its
//! own alone; a claim that is held is never followed by the search for another.
//!
//! While a claim is held no lock is taken and no waker runs: who holds that lock, or whatever the waker does, may be looking
//! for this claim. A claim is made under the lock of a channel and used up or given back under the same lock (or, by its
//! owner between two polls, under none). Debug builds end the process that breaks either rule (`sys/lock.rs`).
//!
//! **Invariants**
//! - `[E1]` The waker belongs to the owner while the party is Idle, to the holder of the claim while it is Claimed. For a
//!   party of one operation that is in a queue it belongs to the holder of the channel's lock.
//! - `[E2]` Who decides touches neither the party nor its waiters after `Decided` is stored: the owner may then free them.

use std::ptr::NonNull;
use std::task::Waker;

use crate::sched::wakers::KeptWaker;
use crate::sys::lock::{begin_claim, end_claim};
use crate::sys::sabotage::{Fault, is_on};
use crate::sys::sync::{AtomicU32, Ordering, UnsafeCell, spin_hint, yield_now};

const IDLE: u32 = 0;
const WAITING: u32 = 1;
const CLAIMED: u32 = 2;
/// Plus the number of the case.
const DECIDED: u32 = 3;

/// How often a claim is looked at before the thread is given up.
const LOOKS: u32 = 64;

/// In how many queues a party may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In one: its lock decides.
    Single,
    /// In several: a claim decides.
    Select,
}

/// Where a wait stands, as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Idle,
    Waiting,
    /// It ended in the case of this number.
    Decided(usize),
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Party {
    word: AtomicU32,
    kind: Kind,
    /// A model checker repeats what has happened, but not at the same addresses.
    #[cfg(any(loom, shuttle))]
    number: usize,
    waker: UnsafeCell<Option<KeptWaker>>,
}

impl Party {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            word: AtomicU32::new(IDLE),
            kind,
            #[cfg(any(loom, shuttle))]
            number: {
                use std::sync::atomic::AtomicUsize;
                static NUMBERS: AtomicUsize = AtomicUsize::new(0);
                NUMBERS.fetch_add(1, Ordering::Relaxed)
            },
            waker: UnsafeCell::new(None),
        }
    }

    /// Its place in the order in which claims are made.
    #[inline]
    fn rank(&self) -> usize {
        #[cfg(any(loom, shuttle))]
        return self.number;
        #[cfg(not(any(loom, shuttle)))]
        (&raw const *self).addr()
    }

    /// Where the wait stands. For the owner.
    #[inline]
    pub(super) fn progress(&self) -> Progress {
        // Acquire: sees what was handed over; pairs with the Release in `decide`.
        match self.word.load(Ordering::Acquire) {
            IDLE => Progress::Idle,
            WAITING | CLAIMED => Progress::Waiting,
            decided => Progress::Decided((decided - DECIDED) as usize),
        }
    }

    /// From now on others may end the wait, and wake `waker`.
    ///
    /// # Safety
    /// 1. The caller is the owner, and the party is Idle.
    pub(super) unsafe fn arm(&self, waker: KeptWaker) {
        // SAFETY: [E1] clause 1.
        self.waker.with_mut(|place| unsafe { *place = Some(waker) });
        // Release: publishes the waker; pairs with the Acquire in `try_claim`.
        self.word.store(WAITING, Ordering::Release);
    }

    /// As `arm`, with a clone of `waker` unless the one that is there wakes the same.
    ///
    /// # Safety
    /// 1. As for `arm`; no lock is held.
    pub(super) unsafe fn arm_again(&self, waker: &Waker) {
        // SAFETY: 1. [E1] clause 1.
        let stale = if unsafe { self.will_wake(waker) } {
            None
        } else {
            let fresh = KeptWaker::of(waker);
            // SAFETY: 1. as above.
            unsafe { self.replace_waker(fresh) }
        };
        // Somebody's code, and the party is nobody's but the owner's until the next line.
        drop(stale);
        // Release: as in `arm`.
        self.word.store(WAITING, Ordering::Release);
    }

    /// The owner has seen how its wait ended, or is in no queue any more.
    pub(super) fn reset(&self) {
        // Relaxed: the owner alone reads it until it arms the party again.
        self.word.store(IDLE, Ordering::Relaxed);
    }

    /// Takes the right to end the wait. False if it has ended, or the owner has withdrawn.
    ///
    /// The party of one operation is had without: its caller holds the lock of the channel in whose queue it is.
    pub(super) fn try_claim(&self) -> bool {
        if self.kind == Kind::Single {
            return true;
        }
        begin_claim(self.rank());
        let won = self.move_from_waiting(CLAIMED);
        if !won {
            end_claim(self.rank());
        }
        won
    }

    /// The owner of a select takes it out of the reach of others, to look around for itself. False if the wait has ended.
    pub(super) fn withdraw(&self) -> bool {
        self.move_from_waiting(IDLE)
    }

    fn move_from_waiting(&self, to: u32) -> bool {
        let mut looks = 0;
        loop {
            // Acquire: sees the waker; pairs with the Release in `arm`, `unclaim`. Relaxed on failure: nothing is read then.
            match self
                .word
                .compare_exchange_weak(WAITING, to, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(WAITING) => {}
                Err(CLAIMED) => look_again(&mut looks),
                Err(_) => return false,
            }
        }
    }

    /// Gives the claim back: the wait goes on.
    pub(super) fn unclaim(&self) {
        if self.kind == Kind::Select {
            // Release: as in `arm`.
            self.word.store(WAITING, Ordering::Release);
            end_claim(self.rank());
        }
    }

    /// Ends the wait in `case`, and gives the waker to be woken, once no lock is held.
    ///
    /// # Safety
    /// 1. The caller holds the claim, or for a single operation the lock of its channel.
    /// 2. It touches neither the party nor its waiters afterwards, unless it is the owner.
    pub(super) unsafe fn decide(&self, case: usize) -> Option<KeptWaker> {
        if self.kind == Kind::Select {
            end_claim(self.rank());
        }
        // SAFETY: [E1] clause 1.
        let waker = self.waker.with_mut(|place| unsafe { (*place).take() });
        // Release: publishes what was handed over; pairs with the Acquire in `progress`.
        self.word.store(DECIDED + case as u32, Ordering::Release);
        waker
    }

    /// Whether the waker wakes the same as `other`.
    ///
    /// # Safety
    /// 1. [E1] gives the waker to the caller.
    pub(super) unsafe fn will_wake(&self, other: &Waker) -> bool {
        // SAFETY: clause 1.
        let waker = self.waker.with(|place| unsafe { (*place).as_ref() });
        waker.is_some_and(|waker| waker.will_wake(other))
    }

    /// Puts `fresh` in the place of the waker, which is returned: its drop is somebody's code.
    ///
    /// # Safety
    /// 1. [E1] gives the waker to the caller.
    pub(super) unsafe fn replace_waker(&self, fresh: KeptWaker) -> Option<KeptWaker> {
        // SAFETY: clause 1.
        self.waker
            .with_mut(|place| unsafe { (*place).replace(fresh) })
    }
}

/// Waits a moment for the end of a claim.
fn look_again(looks: &mut u32) {
    *looks += 1;
    // The holder may have lost its processor.
    if *looks < LOOKS {
        spin_hint();
    } else {
        yield_now();
    }
}

/// On whose behalf a queue is searched.
#[derive(Clone, Copy, Debug)]
pub(super) enum Me<'a> {
    /// Nobody else can know of it.
    Unknown,
    /// It is in queues already: it must be claimed too, in one step with whomever it meets.
    InQueues(&'a Party),
}

/// How an attempt to claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Everything that was wanted.
    Won,
    /// Another has ended the caller's own wait.
    OwnLost,
    /// The other's wait is over; nothing is held.
    OtherLost,
}

impl Me<'_> {
    /// Whether `other` is this party: a select does not meet itself.
    #[inline]
    pub(super) fn is(self, other: NonNull<Party>) -> bool {
        match self {
            Self::Unknown => false,
            Self::InQueues(own) => NonNull::from(own) == other,
        }
    }

    /// Claims this party, if it needs that: nobody else is to be had after this.
    #[inline]
    pub(super) fn claim(self) -> bool {
        match self {
            Self::InQueues(own) => own.try_claim(),
            Self::Unknown => true,
        }
    }
}

/// Claims `other`, and `me` if it needs that: both or neither.
#[inline]
pub(super) fn claim_with(me: Me<'_>, other: &Party) -> Claim {
    let Me::InQueues(own) = me else {
        return if other.try_claim() {
            Claim::Won
        } else {
            Claim::OtherLost
        };
    };
    let own_is_first = own.rank() < other.rank() || is_on(Fault::ClaimsOutOfOrder);
    let (first, second) = if own_is_first {
        (own, other)
    } else {
        (other, own)
    };
    if !first.try_claim() {
        return if own_is_first {
            Claim::OwnLost
        } else {
            Claim::OtherLost
        };
    }
    if second.try_claim() {
        return Claim::Won;
    }
    first.unclaim();
    if own_is_first {
        Claim::OtherLost
    } else {
        Claim::OwnLost
    }
}
