//! Mutators, and a thread without one. [`State::settle`] does the loads.

use crate::model::{Change, Emit, Model};
use crate::state::{Object, Op, Phase, State, WeakState, each, index, only};

impl Model {
    pub(crate) fn mutator_steps(&self, state: &State, me: usize, emit: Emit<'_>) {
        if state.is_held(me) {
            return;
        }
        let op = state.mutators[me].op;
        if op == Op::None {
            self.safepoint(state, me, emit);
            self.full_buffer(state, me, emit);
            self.allocations(state, me, emit);
            self.stores(state, me, emit);
            self.root_changes(state, me, emit);
            if self.weak {
                self.begin_upgrade(*state, me, emit);
            }
            return;
        }
        self.go_on(state, me, emit);
        if self.change == Change::SafepointBeforeRecord && matches!(op, Op::Record { .. }) {
            self.safepoint(state, me, emit);
        }
    }

    /// Answers what is asked. No local survives it.
    fn safepoint(&self, state: &State, me: usize, emit: Emit<'_>) {
        if state.mutators[me].answered {
            return;
        }
        let mut after = *state;
        after.mutators[me].locals = 0;
        after.mutators[me].answered = true;
        if state.phase == Phase::Handshake {
            self.flush(&mut after, me);
            emit(
                format_args!("mutator {me}: hands its buffer over, in the handshake"),
                after,
            );
        } else if state.phase == Phase::Stopping {
            emit(format_args!("mutator {me}: stops"), after);
        }
    }

    fn full_buffer(&self, state: &State, me: usize, emit: Emit<'_>) {
        if state.mutators[me].buffer != 0 && state.is_marking() {
            let mut after = *state;
            self.flush(&mut after, me);
            emit(
                format_args!("mutator {me}: hands its buffer over, full"),
                after,
            );
        }
    }

    /// A new object may be born with a pointer in it. That is no store: there is no barrier.
    fn allocations(&self, state: &State, me: usize, emit: Emit<'_>) {
        let every = (1 << self.objects) - 1;
        let Some(object) = each(every & !state.allocated).next() else {
            return;
        };
        for value in null_and(each(state.mutators[me].locals)) {
            let mut after = *state;
            after.allocated |= only(object);
            after.fields[index(object)][0] = value;
            after.mutators[me].locals |= only(object);
            if state.is_marking() && self.change != Change::AllocateWhite {
                after.marked |= only(object);
            }
            emit(
                format_args!("mutator {me}: allocates {object}, pointing to {value}"),
                after,
            );
        }
    }

    fn stores(&self, state: &State, me: usize, emit: Emit<'_>) {
        let locals = each(state.mutators[me].locals);
        for holder in locals {
            for field in 0..self.fields {
                let old = state.fields[index(holder)][field];
                for value in null_and(locals).filter(|&value| value != old) {
                    self.store(state, me, (holder, field as u8), value, emit);
                }
            }
        }
    }

    /// `holder.field = value` with its barrier, or the first step of it.
    fn store(&self, state: &State, me: usize, place: (Object, u8), value: Object, emit: Emit<'_>) {
        let (holder, field) = place;
        let mut after = *state;
        let place = &mut after.fields[index(holder)][usize::from(field)];
        let old = std::mem::replace(place, value);
        let mutator = &mut after.mutators[me];
        if !state.is_marking() || self.change == Change::NoDeletionBarrier {
            emit(
                format_args!("mutator {me}: stores {value} in {holder}.{field}"),
                after,
            );
            return;
        }
        match self.change {
            Change::RecordAfterStore | Change::SafepointBeforeRecord => {
                mutator.op = Op::Record { old };
                emit(
                    format_args!("mutator {me}: stores {value} in {holder}.{field}"),
                    after,
                );
            }
            Change::RecordWhatIsThere => {
                mutator.op = Op::Record { old: value };
                emit(
                    format_args!("mutator {me}: stores {value} in {holder}.{field}"),
                    after,
                );
            }
            _ if self.split_stores => {
                mutator.buffer |= only(old);
                mutator.op = Op::Store {
                    holder,
                    field,
                    value,
                };
                after.fields = state.fields;
                emit(
                    format_args!("mutator {me}: records {old}, in {holder}.{field}"),
                    after,
                );
            }
            _ => {
                mutator.buffer |= only(old);
                emit(
                    format_args!("mutator {me}: records {old}, stores {value} in {holder}.{field}"),
                    after,
                );
            }
        }
    }

    fn root_changes(&self, state: &State, me: usize, emit: Emit<'_>) {
        for slot in 0..self.roots {
            let target = state.roots[slot];
            if target == 0 {
                for value in each(state.mutators[me].locals) {
                    let mut after = *state;
                    after.roots[slot] = value;
                    emit(
                        format_args!("mutator {me}: makes root {slot} of {value}"),
                        after,
                    );
                }
            } else if state.released & 1 << slot == 0 {
                // One step: nobody else changes a slot in use, so it makes no difference when
                // before that its object is recorded.
                let mut after = *state;
                if state.is_marking() && self.change != Change::NoRootBarrier {
                    after.mutators[me].buffer |= only(target);
                }
                after.roots[slot] = 0;
                emit(
                    format_args!("mutator {me}: drops root {slot}, of {target}"),
                    after,
                );
            }
        }
    }

    /// A thread without a mutator drops roots.
    pub(crate) fn foreign_steps(&self, state: &State, emit: Emit<'_>) {
        for slot in 0..self.roots {
            let target = state.roots[slot];
            if target != 0 && state.released & 1 << slot == 0 {
                let mut after = *state;
                if self.change == Change::ReleasedFreedAtOnce {
                    after.roots[slot] = 0;
                } else {
                    after.released |= 1 << slot;
                }
                emit(
                    format_args!("foreign thread: drops root {slot}, of {target}"),
                    after,
                );
            }
        }
    }

    /// The next step of what a mutator is in the middle of.
    fn go_on(&self, state: &State, me: usize, emit: Emit<'_>) {
        let mut after = *state;
        let mutator = &mut after.mutators[me];
        mutator.op = Op::None;
        match state.mutators[me].op {
            Op::None => {}
            Op::Store {
                holder,
                field,
                value,
            } => {
                after.fields[index(holder)][usize::from(field)] = value;
                emit(
                    format_args!("mutator {me}: stores {value} in {holder}.{field}"),
                    after,
                );
            }
            Op::Record { old } => {
                mutator.buffer |= only(old);
                emit(format_args!("mutator {me}: records {old}"), after);
            }
            Op::Asked { idle } => self.read_cell(after, me, idle, emit),
            Op::Read { target } => self.read_state(after, me, target, emit),
            Op::Saw { target, state } => self.read_mark(after, me, target, state, emit),
            Op::SawDead { target, lives } => self.read_dead(after, me, target, lives, emit),
            Op::Reset => self.reset(after, me, emit),
        }
    }

    // ---- `Weak::upgrade`: in `after` the mutator is done, unless a step says that it is not -----

    fn begin_upgrade(&self, mut after: State, me: usize, emit: Emit<'_>) {
        let idle = after.weak_state == WeakState::Idle;
        after.mutators[me].op = Op::Asked { idle };
        emit(
            format_args!(
                "mutator {me}: upgrades; the weak state is {:?}",
                after.weak_state
            ),
            after,
        );
    }

    fn read_cell(&self, mut after: State, me: usize, idle: bool, emit: Emit<'_>) {
        let target = after.weak_target;
        let mutator = &mut after.mutators[me];
        if idle || self.change == Change::UpgradeUnchecked {
            mutator.locals |= only(target);
            emit(
                format_args!("mutator {me}: takes {target} from the weak cell"),
                after,
            );
        } else {
            if target != 0 {
                mutator.op = Op::Read { target };
            }
            emit(
                format_args!("mutator {me}: reads {target} in the weak cell"),
                after,
            );
        }
    }

    fn read_state(&self, mut after: State, me: usize, target: Object, emit: Emit<'_>) {
        let state = after.weak_state;
        after.mutators[me].op = if state == WeakState::Idle {
            // The census may have come between: again.
            Op::Asked { idle: true }
        } else {
            Op::Saw { target, state }
        };
        emit(
            format_args!("mutator {me}: sees that the weak state is {state:?}"),
            after,
        );
    }

    fn read_mark(
        &self,
        mut after: State,
        me: usize,
        target: Object,
        saw: WeakState,
        emit: Emit<'_>,
    ) {
        let is_marked = after.marked & only(target) != 0;
        let is_young = after.unswept & only(target) == 0;
        let shades = saw == WeakState::Marking || self.change == Change::UpgradeShadesInTerm;
        let mutator = &mut after.mutators[me];
        if saw == WeakState::Dead {
            let lives = is_marked || is_young;
            mutator.op = Op::SawDead { target, lives };
            emit(
                format_args!("mutator {me}: sees that {target} lives: {lives}"),
                after,
            );
        } else if is_marked {
            mutator.locals |= only(target);
            emit(
                format_args!("mutator {me}: takes {target}, which is marked"),
                after,
            );
        } else if shades {
            mutator.locals |= only(target);
            if self.change != Change::UpgradeWithoutShade {
                mutator.buffer |= only(target);
            }
            emit(
                format_args!("mutator {me}: takes {target}, and records it"),
                after,
            );
        } else {
            mutator.op = Op::Reset;
            emit(
                format_args!("mutator {me}: sees that {target} is unmarked"),
                after,
            );
        }
    }

    fn read_dead(&self, mut after: State, me: usize, target: Object, lives: bool, emit: Emit<'_>) {
        let state = after.weak_state;
        let believes = state == WeakState::Dead || self.change == Change::DeadNotReadAgain;
        let mutator = &mut after.mutators[me];
        if !believes {
            let idle = state == WeakState::Idle;
            mutator.op = Op::Asked { idle };
            emit(
                format_args!("mutator {me}: sees that the weak state is {state:?}"),
                after,
            );
        } else if lives {
            mutator.locals |= only(target);
            emit(format_args!("mutator {me}: takes {target}"), after);
        } else {
            emit(format_args!("mutator {me}: takes nothing"), after);
        }
    }

    fn reset(&self, mut after: State, me: usize, emit: Emit<'_>) {
        if after.weak_state == WeakState::Term {
            after.weak_state = WeakState::Marking;
        }
        after.mutators[me].op = Op::Asked { idle: false };
        emit(
            format_args!("mutator {me}: takes termination back, and tries again"),
            after,
        );
    }
}

/// Null, and then the objects.
fn null_and(objects: impl Iterator<Item = Object>) -> impl Iterator<Item = Object> {
    std::iter::once(0).chain(objects)
}
