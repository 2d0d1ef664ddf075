//! The parameters of the model: its size, its initial states, the variants of the protocol, what
//! must hold.

use std::fmt::Arguments;
use std::ops::RangeInclusive;

use crate::state::{
    FIELDS, MUTATORS, Mutator, OBJECTS, Object, Op, Phase, ROOTS, Set, State, WeakState, each,
    index, only,
};

/// One thing done differently. All but the four that do no harm take a protection away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    /// A store does not record what it overwrites.
    NoDeletionBarrier,
    /// A root is dropped and its object not recorded.
    NoRootBarrier,
    /// The store comes first, then the record of what was there.
    RecordAfterStore,
    /// As before, and a safepoint may come between the two.
    SafepointBeforeRecord,
    /// The store comes first, and what the field holds after it is recorded.
    RecordWhatIsThere,
    RootsNotScanned,
    /// A buffer is thrown away where it should be handed over.
    BufferNotFlushed,
    AllocateWhite,
    /// A mutator keeps a local over stop 1, and nobody scans it.
    LocalsCrossStop1,
    /// Stop 2 is asked for as soon as marking looks done.
    NoHandshake,
    /// Stop 2 looks neither at the buffers nor at the queue.
    NoSecondLook,
    /// Stop 2 hands the buffers over, and does not look at the queue after that.
    QueueNotLookedAt,
    /// Marking ends when the handshake has brought nothing, while mutators run.
    NoSecondStop,
    /// The generation moves when the sweep opens, so what was allocated since stop 2 is swept in
    /// this cycle.
    SweepTakesYoung,
    /// Marking marks all that is allocated.
    EverythingMarked,
    /// A root that is dropped on a foreign thread is freed there.
    ReleasedFreedAtOnce,
    /// An upgrade takes what the cell names.
    UpgradeUnchecked,
    /// An upgrade during marking does not shade its target.
    UpgradeWithoutShade,
    /// An upgrade shades in Term as it does in Marking, and leaves the state alone.
    UpgradeShadesInTerm,
    /// The collector does not ask whether an upgrade has taken Term back.
    ResetNotLookedAt,
    /// An upgrade that saw Dead believes the mark, though the sweep may have begun.
    DeadNotReadAgain,
    /// The weak state is Idle as soon as marking is over.
    IdleBeforeCensus,
    /// Nobody clears the weak cell.
    NoCensus,
}

pub(crate) const CONDEMNED: &str = "marking is over, and a reachable object is to be swept";
pub(crate) const DANGLING: &str = "the weak cell names a freed object";
pub(crate) const LEAKED: &str = "what was garbage at stop 1 is still there";

/// How much of everything there is, and what is different.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) objects: usize,
    pub(crate) fields: usize,
    pub(crate) roots: usize,
    /// Whether there is a weak cell, and mutators upgrade it.
    pub(crate) weak: bool,
    /// Whether roots are also dropped on a thread without a mutator.
    pub(crate) foreign_drops: bool,
    /// Whether a store and its barrier are two steps.
    pub(crate) split_stores: bool,
    pub(crate) change: Change,
}

/// Takes each possible step: what it is called, and the state after it.
pub(crate) type Emit<'a> = &'a mut dyn FnMut(Arguments<'_>, State);

impl Model {
    /// Calls `emit` with every step that anybody can take.
    pub(crate) fn steps(&self, state: &State, emit: Emit<'_>) {
        if self.is_over(state) {
            return;
        }
        let emit: Emit<'_> = &mut |label, mut after| {
            after.settle();
            emit(label, after);
        };
        self.collector_steps(state, emit);
        if state.is_marking() {
            self.marker_steps(state, emit);
        }
        for me in 0..MUTATORS {
            self.mutator_steps(state, me, emit);
        }
        if self.foreign_drops {
            self.foreign_steps(state, emit);
        }
    }

    pub(crate) fn is_over(&self, state: &State) -> bool {
        state.phase == Phase::End
    }

    // ---- where it begins ------------------------------------------------------------------------

    /// Every heap, with every choice of roots and weak target, as stop 1 leaves it: the barrier is
    /// on, every root slot is to be scanned, nothing is marked, and no mutator has a local.
    pub(crate) fn initial_states(&self) -> Vec<State> {
        let mut states = vec![self.empty()];
        // Objects are alike, so the allocated ones may as well be the first.
        vary(&mut states, 0..=self.objects as u8, |state, count| {
            state.allocated = (1 << count) - 1;
        });
        let values = 0..=self.objects as Object;
        for object in 0..self.objects {
            for field in 0..self.fields {
                vary(&mut states, values.clone(), |state, value| {
                    state.fields[object][field] = value;
                });
            }
        }
        for slot in 0..self.roots {
            vary(&mut states, values.clone(), |state, value| {
                state.roots[slot] = value;
            });
        }
        if self.weak {
            vary(&mut states, values.clone(), |state, value| {
                state.weak_target = value;
            });
        }
        if self.change == Change::LocalsCrossStop1 {
            vary(&mut states, values, |state, value| {
                state.mutators[0].locals = only(value);
            });
        }
        states.retain(is_sound);
        for state in &mut states {
            // An upgrade may bring back the weak cell's target, and what it leads to.
            let held = state.mutators[0].locals | only(state.weak_target);
            state.garbage = state.allocated & !state.reachable_from(held);
            if self.change == Change::EverythingMarked {
                state.shade(state.allocated);
            }
            state.settle();
        }
        states
    }

    /// A heap without objects, after stop 1.
    fn empty(&self) -> State {
        let mutator = Mutator {
            locals: 0,
            buffer: 0,
            op: Op::None,
            answered: false,
        };
        let scans_roots = self.change != Change::RootsNotScanned;
        State {
            phase: Phase::Mark,
            fields: [[0; FIELDS]; OBJECTS],
            allocated: 0,
            marked: 0,
            unswept: 0,
            roots: [0; ROOTS],
            released: 0,
            jobs: if scans_roots {
                (1 << self.roots) - 1
            } else {
                0
            },
            grey: 0,
            scanning: 0,
            next_field: 0,
            found: 0,
            weak_target: 0,
            weak_state: WeakState::Marking,
            mutators: [mutator; MUTATORS],
            garbage: 0,
        }
    }

    // ---- what must hold -------------------------------------------------------------------------

    /// What is wrong with this state, if anything.
    pub(crate) fn wrong(&self, state: &State) -> Option<&'static str> {
        if state.is_marking() {
            return None; // nothing has been freed, and nothing is condemned yet
        }
        let reachable = state.reachable();
        let condemned = state.unswept & !state.marked;
        if reachable & (condemned | !state.allocated) != 0 {
            return Some(CONDEMNED);
        }
        if only(state.weak_target) & !state.allocated != 0 {
            return Some(DANGLING);
        }
        if !self.is_over(state) {
            return None;
        }
        if state.garbage != 0 {
            return Some(LEAKED);
        }
        let [a, b] = &state.mutators;
        let rest = state.marked | state.unswept | state.grey | state.found | a.buffer | b.buffer;
        let is_idle = state.weak_state == WeakState::Idle;
        (rest != 0 || !is_idle || !is_sound(state)).then_some("the cycle leaves something behind")
    }

    // ---- for people -----------------------------------------------------------------------------

    /// The heap in one line.
    pub(crate) fn describe(&self, state: &State) -> String {
        let objects: Vec<String> = each(state.allocated)
            .map(|o| format!("{o} -> {:?}", &state.fields[index(o)][..self.fields]))
            .collect();
        let marked: Vec<Object> = each(state.marked).collect();
        format!(
            "objects {{{}}}, roots {:?}, weak cell {}, marked {marked:?}",
            objects.join(", "),
            &state.roots[..self.roots],
            state.weak_target
        )
    }
}

/// Puts one state for each of `values` in the place of each state.
fn vary(states: &mut Vec<State>, values: RangeInclusive<u8>, set: impl Fn(&mut State, u8)) {
    for state in std::mem::take(states) {
        for value in values.clone() {
            let mut state = state;
            set(&mut state, value);
            states.push(state);
        }
    }
}

/// Whether nothing but allocated objects is named, and nothing else has fields.
fn is_sound(state: &State) -> bool {
    let mut named: Set = only(state.weak_target) | state.mutators[0].locals;
    for root in state.roots {
        named |= only(root);
    }
    for (object, fields) in (1..).zip(&state.fields) {
        for &value in fields {
            named |= only(value);
            if value != 0 {
                named |= only(object);
            }
        }
    }
    named & !state.allocated == 0
}
