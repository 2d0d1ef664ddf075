//! Weak references: cells that name an object without keeping it, cleared when it dies.
//!
//! A weak cell is a small object of a span class of its own, so the collector can visit all of them after marking (the
//! census). The weak state says what an `upgrade` may do (after Fil-C's FUGC):
//!
//! | state | `upgrade` of an unmarked target |
//! |---|---|
//! | Idle | strong: what is dead has been cleared |
//! | Marking | shade it, strong |
//! | Term | the collector is about to declare marking over: back to Marking, and try again |
//! | Dead | none if it is from before: it will be cleared; strong if it was allocated since |
//!
//! **Invariants**
//! - `[V1]` Term → Dead happens in a stop, so no upgrade sees both; by a compare-exchange, as a part of the decision
//!   that marking is over, so no upgrade that has put the state back is overlooked. Dead → Idle happens after the
//!   census and before any mark bit is cleared, perhaps in the middle of an upgrade.
//! - `[V2]` An upgrade reads the state before the target: after Idle, the target it reads is cleared if dead.
//! - `[V3]` While the state is Dead nothing is swept: marks are complete, and a span from before the end of marking is
//!   unswept, so what is in another span is young.

use crate::base::addr::PAGE_SHIFT;
use crate::heap::mheap::MHeap;
use crate::heap::span_class::Kind;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU8, AtomicUsize, Ordering, fence};

/// What a weak reference points to. Lives in the heap.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct WeakCell {
    /// The object's address; 0 once it is dead.
    pub(crate) target: AtomicUsize,
}

const IDLE: u8 = 0;
const MARKING: u8 = 1;
const TERM: u8 = 2;
const DEAD: u8 = 3;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct WeakState(AtomicU8);

/// What an upgrade is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    Strong,
    ShadeFirst,
    None,
    /// Read state and target again.
    Again,
}

impl WeakState {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(IDLE))
    }

    /// Marking begins (world stopped).
    pub(crate) fn begin_marking(&self) {
        // Release: pairs with the Acquire in `decide`.
        self.0.store(MARKING, Ordering::Release);
    }

    /// Marking looks done.
    pub(crate) fn try_terminate(&self) {
        // Release: as above.
        self.0.store(TERM, Ordering::Release);
    }

    /// Whether an upgrade has put the state back since `try_terminate`.
    pub(crate) fn was_reset(&self) -> bool {
        // Acquire: pairs with the compare-exchange in `decide`.
        self.0.load(Ordering::Acquire) != TERM
    }

    /// Marking is over, unless an upgrade has put the state back since [`try_terminate`](Self::try_terminate): Term -> Dead.
    /// Says whether. A part of the decision that closes the work pool.
    pub(crate) fn declare_dead(&self) -> bool {
        // Release: pairs with the Acquire in `decide`: the marks are complete. Relaxed on failure: marking goes on.
        self.0
            .compare_exchange(TERM, DEAD, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// The census is over; nothing has been swept yet.
    pub(crate) fn idle(&self) {
        // Release: pairs with the Acquire in `decide`: the dead are cleared.
        self.0.store(IDLE, Ordering::Release);
    }

    /// Whether nothing is going on. The state is read before the target, so an Idle seen here means a cleared target.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        // Acquire: pairs with `idle`.
        self.0.load(Ordering::Acquire) == IDLE
    }

    /// What an upgrade is to do with a target that it read after it saw the state not Idle. `marked` tells whether the
    /// target is marked now, `young` whether it was allocated since marking ended.
    pub(crate) fn decide(&self, marked: impl Fn() -> bool, young: impl Fn() -> bool) -> Upgrade {
        // Acquire: pairs with the Releases above.
        let state = self.0.load(Ordering::Acquire);
        if state == IDLE {
            // The census may have come between: the target is to be read again.
            return Upgrade::Again;
        }
        if state == DEAD {
            return self.decide_dead(marked() || young());
        }
        if marked() || state == TERM && sabotage::is_on(Fault::UpgradeUntold) {
            return Upgrade::Strong;
        }
        if state == MARKING {
            return Upgrade::ShadeFirst;
        }
        // AcqRel on success: the collector sees the reset and asks for our buffer again. Failure: looked at again.
        let _ = self
            .0
            .compare_exchange(TERM, MARKING, Ordering::AcqRel, Ordering::Relaxed);
        Upgrade::Again
    }

    /// [V3] `lives` was read while the state was Dead, or after the sweep had begun; which of the two shows only now.
    fn decide_dead(&self, lives: bool) -> Upgrade {
        // Acquire: if `lives` read what a sweep wrote, this fence and the Release fence of the sweep make Idle visible.
        fence(Ordering::Acquire);
        // Acquire: as above.
        match self.0.load(Ordering::Acquire) {
            DEAD if lives || sabotage::is_on(Fault::DeadUpgraded) => Upgrade::Strong,
            DEAD => Upgrade::None,
            _ => Upgrade::Again,
        }
    }
}

/// Clears the weak cells whose target did not survive; returns how many. Between mark termination and the sweep, when
/// no mutator's cache holds a span from before.
pub(crate) fn census(heap: &MHeap) -> u64 {
    let mut cleared = 0;
    for page in 1..heap.top() {
        let start = (page as usize) << PAGE_SHIFT;
        let Some(class) = heap.class_at(start) else {
            continue;
        };
        if class.kind != Kind::WeakCell || heap.head_at(start) != page {
            continue;
        }
        for slot in 0..class.slots as usize {
            let offset = start + slot * class.slot;
            if !heap.mark.test(offset) {
                continue; // dead itself, free, or younger than the end of marking
            }
            let cell: *const WeakCell = heap.at(offset).cast_const().cast();
            // SAFETY: a marked slot of the weak class holds a cell; cells are atomics and shared.
            let cell = unsafe { &*cell };
            // Relaxed: written before the cell was published, then only here.
            let target = cell.target.load(Ordering::Relaxed);
            if target != 0 && heap.offset_of(target).is_some_and(|o| !heap.mark.test(o)) {
                // Release: pairs with the Acquire in `Weak::upgrade`.
                cell.target.store(0, Ordering::Release);
                cleared += 1;
            }
        }
    }
    cleared
}
