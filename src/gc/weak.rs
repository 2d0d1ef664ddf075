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
//! **Identity.** Two weak references are equal if they were made from one object, for ever. An address does not say so: a
//! slot is given to another object when its first one has died. But at most one object of a slot dies in a cycle, so an
//! address and the number of the cycle in which its object died name one object ([V4]), and no table of objects is
//! needed. A cell keeps the number of marking phases that had ended when it was made, and from its object's death on the
//! number of that death. Of a dead cell and one that is not cleared, of one address, the second is of the same object (and
//! the census has not come to it yet) if it was made before that death, and of a later object otherwise ([V5]).
//! (One cell an object was considered: a table to find it costs more than the cell, at each `downgrade`.)
//!
//! **Invariants**
//! - `[V1]` Term → Dead happens in a stop, so no upgrade sees both; by a compare-exchange, as a part of the decision
//!   that marking is over, so no upgrade that has put the state back is overlooked. Dead → Idle happens after the
//!   census and before any mark bit is cleared, perhaps in the middle of an upgrade.
//! - `[V2]` An upgrade reads the state before the target: after Idle, the target it reads is cleared if dead.
//! - `[V3]` While the state is Dead nothing is swept: marks are complete, and a span from before the end of marking is
//!   unswept, so what is in another span is young.
//! - `[V4]` A slot is given out again only after the census of the cycle in which its object died, so all cells of one
//!   object get the same number, and cells of two objects never do.
//! - `[V5]` A cell is made by who has a `Gc` of its object, and nobody has one of an object that died in cycle `n` from the
//!   end of marking of `n` on. So a cell's number at birth is less than that of its object's death, and at least that of
//!   any earlier object of the slot.

use crate::base::addr::PAGE_SHIFT;
use crate::heap::mheap::MHeap;
use crate::heap::span_class::Kind;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};

/// What a weak reference points to. Lives in the heap.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct WeakCell {
    /// The object's address; 0 once it is dead.
    target: AtomicUsize,
    /// While the object is not known to be dead: twice the number of marking phases that had ended when the cell was made.
    /// Then: twice the number of the one whose end declared it dead, plus 1.
    stamp: AtomicU64,
}

/// What a cell of a dead object has in its stamp.
const DEAD_BIT: u64 = 1;

impl WeakCell {
    /// A cell for the object at `target`, made after the end of `ended` marking phases.
    pub(crate) fn new(target: usize, ended: u64) -> Self {
        Self {
            target: AtomicUsize::new(target),
            stamp: AtomicU64::new(ended << 1),
        }
    }

    /// The object's address, or 0 if the cell has been cleared.
    #[inline]
    pub(crate) fn target(&self) -> usize {
        // Acquire: pairs with the Release in `clear`.
        self.target.load(Ordering::Acquire)
    }

    /// The object has died: the end of marking phase number `ended` said so.
    pub(crate) fn clear(&self, ended: u64) {
        self.note_death(ended);
        // Release: pairs with the Acquire in `target`.
        self.target.store(0, Ordering::Release);
    }

    /// What an upgrade that was refused tells the others before the census comes to the cell.
    pub(crate) fn note_death(&self, ended: u64) {
        // Relaxed: whoever writes here in this cycle writes the same. Who has a cell of the slot's next object has it after
        // the census, and so reads this.
        self.stamp.store(ended << 1 | DEAD_BIT, Ordering::Relaxed);
    }

    /// Whether the object is known to be dead.
    #[inline]
    pub(crate) fn is_dead(&self) -> bool {
        // Relaxed: once set it stays, and nothing is read on the strength of it.
        self.stamp.load(Ordering::Relaxed) & DEAD_BIT != 0
    }

    /// Whether two cells of objects at one address are of one object.
    pub(crate) fn is_of_the_object_of(&self, other: &Self) -> bool {
        if sabotage::is_on(Fault::WeakByAddress) {
            return self.is_dead() == other.is_dead();
        }
        // Relaxed (both): [V4] what matters was written before the later of the two cells was made.
        let one = self.stamp.load(Ordering::Relaxed);
        let two = other.stamp.load(Ordering::Relaxed);
        match (one & DEAD_BIT != 0, two & DEAD_BIT != 0) {
            // Neither slot has been given out again since.
            (false, false) => true,
            // [V4]
            (true, true) => one == two,
            // [V5]
            (true, false) => two >> 1 < one >> 1,
            (false, true) => one >> 1 < two >> 1,
        }
    }
}

const IDLE: u8 = 0;
const MARKING: u8 = 1;
const TERM: u8 = 2;
const DEAD: u8 = 3;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct WeakState {
    state: AtomicU8,
    /// Marking phases that have ended.
    ended: AtomicU64,
}

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
        Self {
            state: AtomicU8::new(IDLE),
            ended: AtomicU64::new(0),
        }
    }

    /// How many marking phases have ended: for a mutator that runs, or for the census.
    #[inline]
    pub(crate) fn ended(&self) -> u64 {
        // Relaxed: it changes in a stop.
        self.ended.load(Ordering::Relaxed)
    }

    /// Marking begins (world stopped).
    pub(crate) fn begin_marking(&self) {
        // Release: pairs with the Acquire in `decide`.
        self.state.store(MARKING, Ordering::Release);
    }

    /// Marking looks done.
    pub(crate) fn try_terminate(&self) {
        // Release: as above.
        self.state.store(TERM, Ordering::Release);
    }

    /// Whether an upgrade has put the state back since `try_terminate`.
    pub(crate) fn was_reset(&self) -> bool {
        // Acquire: pairs with the compare-exchange in `decide`.
        self.state.load(Ordering::Acquire) != TERM
    }

    /// Marking is over, unless an upgrade has put the state back since [`try_terminate`](Self::try_terminate): Term -> Dead.
    /// Says whether. A part of the decision that closes the work pool (world stopped).
    pub(crate) fn declare_dead(&self) -> bool {
        // Release: pairs with the Acquire in `decide`: the marks are complete. Relaxed on failure: marking goes on.
        let over = self
            .state
            .compare_exchange(TERM, DEAD, Ordering::Release, Ordering::Relaxed)
            .is_ok();
        if over {
            // Relaxed: in a stop.
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        over
    }

    /// The census is over; nothing has been swept yet.
    pub(crate) fn idle(&self) {
        // Release: pairs with the Acquire in `decide`: the dead are cleared.
        self.state.store(IDLE, Ordering::Release);
    }

    /// Whether nothing is going on. The state is read before the target, so an Idle seen here means a cleared target.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        // Acquire: pairs with `idle`.
        self.state.load(Ordering::Acquire) == IDLE
    }

    /// What an upgrade is to do with a target that it read after it saw the state not Idle. `marked` tells whether the
    /// target is marked now, `young` whether it was allocated since marking ended.
    pub(crate) fn decide(&self, marked: impl Fn() -> bool, young: impl Fn() -> bool) -> Upgrade {
        // Acquire: pairs with the Releases above.
        let state = self.state.load(Ordering::Acquire);
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
            .state
            .compare_exchange(TERM, MARKING, Ordering::AcqRel, Ordering::Relaxed);
        Upgrade::Again
    }

    /// [V3] `lives` was read while the state was Dead, or after the sweep had begun; which of the two shows only now.
    fn decide_dead(&self, lives: bool) -> Upgrade {
        // Acquire: if `lives` read what a sweep wrote, this fence and the Release fence of the sweep make Idle visible.
        fence(Ordering::Acquire);
        // Acquire: as above.
        match self.state.load(Ordering::Acquire) {
            DEAD if lives || sabotage::is_on(Fault::DeadUpgraded) => Upgrade::Strong,
            DEAD => Upgrade::None,
            _ => Upgrade::Again,
        }
    }
}

/// Clears the weak cells whose target did not survive; returns how many. Between mark termination and the sweep, when
/// no mutator's cache holds a span from before.
pub(crate) fn census(heap: &MHeap, weak: &WeakState) -> u64 {
    let mut cleared = 0;
    for page in 1..heap.top() {
        let start = (page as usize) << PAGE_SHIFT;
        let Some(class) = heap.class_at(start) else {
            continue;
        };
        if class.kind != Kind::WeakCell || heap.first_page_of(start) != page {
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
            let target = cell.target();
            if target != 0 && heap.offset_of(target).is_some_and(|o| !heap.mark.test(o)) {
                cell.clear(weak.ended());
                cleared += 1;
            }
        }
    }
    cleared
}
