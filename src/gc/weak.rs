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
//! | Dead | none: it will be cleared |
//!
//! **Invariants**
//! - `[V1]` Term → Dead and Dead → Idle happen only after every mutator has passed a safepoint since Term, and since the
//!   census; so an upgrade never sees two of these changes.

use crate::base::addr::PAGE_SHIFT;
use crate::heap::mheap::MHeap;
use crate::heap::span_class::Kind;
use crate::sys::sync::{AtomicU8, AtomicUsize, Ordering};

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

    /// Marking is over (world stopped).
    pub(crate) fn declare_dead(&self) {
        // Release: pairs with the Acquire in `decide`: the marks are complete.
        self.0.store(DEAD, Ordering::Release);
    }

    /// The census is over and every mutator has passed a safepoint.
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

    /// What an upgrade of a target is to do; `marked` tells whether it is marked now.
    pub(crate) fn decide(&self, marked: impl Fn() -> bool) -> Upgrade {
        loop {
            // Acquire: pairs with the Releases above.
            let state = self.0.load(Ordering::Acquire);
            if state == IDLE || marked() {
                return Upgrade::Strong;
            }
            match state {
                MARKING => return Upgrade::ShadeFirst,
                DEAD => return Upgrade::None,
                // AcqRel on success: the collector sees the reset and asks for our buffer again. Failure: try again.
                _ => {
                    let _ =
                        self.0
                            .compare_exchange(TERM, MARKING, Ordering::AcqRel, Ordering::Relaxed);
                }
            }
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
