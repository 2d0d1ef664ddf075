//! The collector's thread, the sweep, and a mark worker.

use crate::model::{Change, Emit, Model};
use crate::state::{
    FIELDS, MUTATORS, Object, Op, Phase, ROOTS, State, WeakState, each, index, only,
};

impl Model {
    /// The collector's thread, after `gc/cycle.rs`.
    pub(crate) fn collector_steps(&self, state: &State, emit: Emit<'_>) {
        let all_answered = state.mutators.iter().all(|m| m.answered);
        match state.phase {
            Phase::Mark if state.is_quiet() => self.looks_done(*state, emit),
            Phase::Handshake if all_answered => self.after_handshake(*state, emit),
            Phase::Stopping if all_answered => self.stop_2(*state, emit),
            Phase::Stopped => self.look_again(*state, emit),
            Phase::Census => self.census(*state, emit),
            Phase::CensusDone => self.open_sweep(*state, emit),
            Phase::Sweep => self.sweep_steps(state, emit),
            _ => {}
        }
    }

    fn looks_done(&self, mut after: State, emit: Emit<'_>) {
        after.weak_state = WeakState::Term;
        if self.change == Change::NoHandshake {
            after.phase = Phase::Stopping;
            emit(
                format_args!("collector: marking looks done; asks for stop 2"),
                after,
            );
        } else {
            after.phase = Phase::Handshake;
            emit(
                format_args!("collector: marking looks done; asks for a handshake"),
                after,
            );
        }
    }

    fn after_handshake(&self, mut after: State, emit: Emit<'_>) {
        start(&mut after);
        if self.must_go_on(&after) {
            mark_on(&mut after);
            emit(
                format_args!("collector: there is more to do; marks on"),
                after,
            );
        } else if self.change == Change::NoSecondStop {
            self.end_marking(&mut after);
            emit(
                format_args!("collector: marking is over, without a stop"),
                after,
            );
        } else {
            after.phase = Phase::Stopping;
            emit(format_args!("collector: asks for stop 2"), after);
        }
    }

    fn stop_2(&self, mut after: State, emit: Emit<'_>) {
        if self.change == Change::NoSecondLook {
            start(&mut after);
            self.end_marking(&mut after);
            emit(
                format_args!("collector: stop 2; marking is over, starts the world"),
                after,
            );
            return;
        }
        for me in 0..MUTATORS {
            self.flush(&mut after, me);
        }
        after.phase = Phase::Stopped;
        emit(
            format_args!("collector: stop 2; hands the buffers over"),
            after,
        );
    }

    fn look_again(&self, mut after: State, emit: Emit<'_>) {
        start(&mut after);
        if self.must_go_on(&after) && self.change != Change::QueueNotLookedAt {
            mark_on(&mut after);
            emit(
                format_args!("collector: there is more to do; starts the world, marks on"),
                after,
            );
        } else {
            self.end_marking(&mut after);
            emit(
                format_args!("collector: marking is over; starts the world"),
                after,
            );
        }
    }

    fn must_go_on(&self, state: &State) -> bool {
        let was_reset = state.weak_state != WeakState::Term;
        !state.is_quiet() || was_reset && self.change != Change::ResetNotLookedAt
    }

    /// Barrier off, white allocation, and what there is now becomes the generation to sweep.
    fn end_marking(&self, after: &mut State) {
        let is_late = self.change == Change::SweepTakesYoung;
        after.unswept = if is_late { 0 } else { after.allocated };
        let is_early = self.change == Change::IdleBeforeCensus;
        after.weak_state = if is_early {
            WeakState::Idle
        } else {
            WeakState::Dead
        };
        after.phase = if self.weak {
            Phase::Census
        } else {
            Phase::CensusDone
        };
    }

    fn census(&self, mut after: State, emit: Emit<'_>) {
        after.phase = Phase::CensusDone;
        let dead = after.unswept & !after.marked & only(after.weak_target) != 0;
        if dead && self.change != Change::NoCensus {
            after.weak_target = 0;
            emit(format_args!("collector: clears the weak cell"), after);
        } else {
            emit(
                format_args!("collector: leaves the weak cell as it is"),
                after,
            );
        }
    }

    fn open_sweep(&self, mut after: State, emit: Emit<'_>) {
        after.weak_state = WeakState::Idle;
        after.phase = Phase::Sweep;
        if self.change == Change::SweepTakesYoung {
            after.unswept = after.allocated;
        }
        emit(format_args!("collector: opens the sweep"), after);
    }

    /// The sweep, an object at a time and in any order: whoever needs a slot sweeps.
    fn sweep_steps(&self, state: &State, emit: Emit<'_>) {
        for object in each(state.unswept) {
            let mut after = *state;
            after.unswept &= !only(object);
            if state.marked & only(object) != 0 {
                after.marked &= !only(object);
                emit(format_args!("sweep: keeps {object}"), after);
            } else {
                after.allocated &= !only(object);
                after.garbage &= !only(object);
                after.fields[index(object)] = [0; FIELDS];
                emit(format_args!("sweep: frees {object}"), after);
            }
        }
        // The next stop 1 waits for who is in the middle of something.
        if state.unswept == 0 && state.mutators.iter().all(|m| m.op == Op::None) {
            let mut after = *state;
            after.phase = Phase::End;
            for slot in 0..ROOTS {
                if state.released & 1 << slot != 0 {
                    after.roots[slot] = 0;
                }
            }
            after.released = 0;
            emit(format_args!("collector: the cycle is over"), after);
        }
    }

    /// A mark worker: root slots in their order, objects in any, a field at a time.
    pub(crate) fn marker_steps(&self, state: &State, emit: Emit<'_>) {
        for object in each(state.found) {
            let mut after = *state;
            after.found &= !only(object);
            after.shade(only(object));
            emit(format_args!("marker: shades {object}"), after);
        }
        if state.scanning != 0 {
            self.read_field(*state, state.scanning, state.next_field, emit);
            return;
        }
        if state.jobs != 0 {
            let slot = state.jobs.trailing_zeros();
            let value = state.roots[slot as usize];
            let mut after = *state;
            after.jobs &= !(1 << slot);
            self.find(&mut after, value);
            emit(format_args!("marker: finds {value} in root {slot}"), after);
        }
        for object in each(state.grey) {
            let mut after = *state;
            after.grey &= !only(object);
            self.read_field(after, object, 0, emit);
        }
    }

    fn read_field(&self, mut after: State, object: Object, field: u8, emit: Emit<'_>) {
        let value = after.fields[index(object)][usize::from(field)];
        self.find(&mut after, value);
        let is_last = usize::from(field) + 1 == self.fields;
        (after.scanning, after.next_field) = if is_last { (0, 0) } else { (object, field + 1) };
        emit(
            format_args!("marker: finds {value} in {object}.{field}"),
            after,
        );
    }

    /// A pointer stays in a ring before its mark is set. Only an upgrade could see that.
    fn find(&self, after: &mut State, value: Object) {
        if self.weak {
            after.found |= only(value);
        } else {
            after.shade(only(value));
        }
    }

    /// Hands a mutator's buffer over.
    pub(crate) fn flush(&self, after: &mut State, me: usize) {
        let buffer = std::mem::take(&mut after.mutators[me].buffer);
        if self.change != Change::BufferNotFlushed {
            after.shade(buffer);
        }
    }
}

/// The stop or handshake is over.
fn start(after: &mut State) {
    for mutator in &mut after.mutators {
        mutator.answered = false;
    }
}

fn mark_on(after: &mut State) {
    after.weak_state = WeakState::Marking;
    after.phase = Phase::Mark;
}
