//! A state of the model, and its encoding as a number.

/// An object's number, from 1; 0 is null.
pub(crate) type Object = u8;
/// A set of objects, or of root slots: bit `n` is object `n + 1`, or slot `n`.
pub(crate) type Set = u8;

pub(crate) const OBJECTS: usize = 4;
pub(crate) const FIELDS: usize = 2;
pub(crate) const ROOTS: usize = 2;
pub(crate) const MUTATORS: usize = 2;

/// The set with just this object; empty for null.
#[inline(always)]
pub(crate) fn only(object: Object) -> Set {
    (1 << object) >> 1
}

/// The place of an object in a table of objects.
pub(crate) fn index(object: Object) -> usize {
    usize::from(object) - 1
}

/// The objects of a set.
pub(crate) fn each(set: Set) -> Each {
    Each(set)
}

/// See [`each`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Each(Set);

impl Iterator for Each {
    type Item = Object;

    fn next(&mut self) -> Option<Object> {
        if self.0 == 0 {
            return None;
        }
        let index = self.0.trailing_zeros() as Object;
        self.0 &= self.0 - 1;
        Some(index + 1)
    }
}

/// Where the collector's thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Marking, until nothing is queued.
    Mark,
    /// The handshake at termination: every mutator hands its buffer over at its next safepoint.
    Handshake,
    /// Stop 2 has been asked for.
    Stopping,
    /// Stop 2: the buffers have been handed over, and the queue is looked at next.
    Stopped,
    /// Marking is over; the weak cell is looked at next.
    Census,
    /// The weak cell has been looked at; the weak state is still Dead.
    CensusDone,
    Sweep,
    /// The cycle is over.
    End,
}

/// What an upgrade may do; the states of `gc/weak.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeakState {
    Idle,
    Marking,
    Term,
    Dead,
}

/// What a mutator is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    None,
    /// The old value is recorded; `holder.field = value` comes next.
    Store {
        holder: Object,
        field: u8,
        value: Object,
    },
    /// Stored, and `old` is still to be recorded.
    Record {
        old: Object,
    },
    /// An upgrade has asked whether the weak state is Idle.
    Asked {
        idle: bool,
    },
    /// It has read the cell, which named `target`.
    Read {
        target: Object,
    },
    /// It has read the weak state again.
    Saw {
        target: Object,
        state: WeakState,
    },
    /// It saw Dead, and then whether the target lives.
    SawDead {
        target: Object,
        lives: bool,
    },
    /// It saw Term, and then that the target is not marked.
    Reset,
}

impl Op {
    /// The objects that it is about.
    fn objects(self) -> [Object; 2] {
        match self {
            Self::Store { holder, value, .. } => [holder, value],
            Self::Record { old } => [old, 0],
            Self::Read { target } | Self::Saw { target, .. } | Self::SawDead { target, .. } => {
                [target, 0]
            }
            Self::None | Self::Asked { .. } | Self::Reset => [0, 0],
        }
    }

    /// Everything else, in 6 bits.
    fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Store { field, .. } => 8 | field,
            Self::Record { .. } => 16,
            Self::Asked { idle } => 24 | u8::from(idle),
            Self::Read { .. } => 32,
            Self::Saw { state, .. } => 40 | state as u8,
            Self::SawDead { lives, .. } => 48 | u8::from(lives),
            Self::Reset => 56,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mutator {
    /// What it holds.
    pub(crate) locals: Set,
    /// The barrier's buffer.
    pub(crate) buffer: Set,
    pub(crate) op: Op,
    /// It has acted in this handshake, or is stopped.
    pub(crate) answered: bool,
}

impl Mutator {
    /// What names no object, in 7 bits.
    fn code(&self) -> u8 {
        self.op.code() << 1 | u8::from(self.answered)
    }

    /// What is the same whatever objects are called.
    fn rank(&self) -> (u8, u32, u32) {
        (
            self.code(),
            self.locals.count_ones(),
            self.buffer.count_ones(),
        )
    }
}

/// Everything there is at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) fields: [[Object; FIELDS]; OBJECTS],
    pub(crate) allocated: Set,
    pub(crate) marked: Set,
    /// Objects of the generation that is to be swept.
    pub(crate) unswept: Set,
    pub(crate) roots: [Object; ROOTS],
    /// Slots whose root was dropped on a thread without a mutator.
    pub(crate) released: Set,
    /// Slots that are still to be scanned.
    pub(crate) jobs: Set,
    pub(crate) grey: Set,
    /// The object being scanned, and the field that is read next.
    pub(crate) scanning: Object,
    pub(crate) next_field: u8,
    /// What the scan has found and not marked yet.
    pub(crate) found: Set,
    pub(crate) weak_target: Object,
    pub(crate) weak_state: WeakState,
    pub(crate) mutators: [Mutator; MUTATORS],
    /// Not part of the collector: what was unreachable at stop 1 and has not been freed.
    pub(crate) garbage: Set,
}

impl State {
    /// Everything reachable from roots and locals.
    pub(crate) fn reachable(&self) -> Set {
        self.reachable_from(self.mutators[0].locals | self.mutators[1].locals)
    }

    /// Everything reachable from roots and from `locals`.
    pub(crate) fn reachable_from(&self, locals: Set) -> Set {
        let mut todo = locals;
        for slot in 0..ROOTS {
            if self.released & 1 << slot == 0 {
                todo |= only(self.roots[slot]);
            }
        }
        let mut reached = 0;
        while todo != 0 {
            reached |= todo;
            let [first, second] = self.fields[todo.trailing_zeros() as usize];
            todo = todo & (todo - 1) | (only(first) | only(second)) & !reached;
        }
        reached
    }

    /// Nothing is queued, and the marker is not at work.
    pub(crate) fn is_quiet(&self) -> bool {
        self.jobs | self.grey | self.found | self.scanning == 0
    }

    /// Whether the barrier is on and new objects are black.
    pub(crate) fn is_marking(&self) -> bool {
        self.phase < Phase::Census
    }

    /// Whether this mutator is held by a stop.
    pub(crate) fn is_held(&self, me: usize) -> bool {
        self.mutators[me].answered && matches!(self.phase, Phase::Stopping | Phase::Stopped)
    }

    /// Marks and queues what is not marked.
    pub(crate) fn shade(&mut self, objects: Set) {
        self.grey |= objects & !self.marked;
        self.marked |= objects;
    }

    /// Lets mutators load what they can, and takes out what makes no difference; see the head of
    /// `main.rs`.
    pub(crate) fn settle(&mut self) {
        self.found &= !self.marked;
        let mut read = self.grey | self.found | only(self.scanning) | only(self.weak_target);
        for me in 0..MUTATORS {
            let mutator = self.mutators[me];
            if mutator.op == Op::None && !self.is_held(me) {
                self.mutators[me].locals = self.reachable_from(mutator.locals);
            }
            self.mutators[me].buffer &= !self.marked;
            let [first, second] = mutator.op.objects();
            read |= mutator.locals | mutator.buffer | only(first) | only(second);
        }
        if self.jobs & self.released != 0 {
            read |= only(self.roots[0]) | only(self.roots[1]);
        }
        for object in each(self.allocated & !self.reachable_from(read)) {
            self.fields[index(object)] = [0; FIELDS];
        }
    }

    /// The state as a number. States that differ only in what objects and mutators are called get
    /// the same one, if they are easily told to be so; two others never do.
    pub(crate) fn key(&self) -> u128 {
        let [a, b] = &self.mutators;
        let (a, b) = if a.rank() <= b.rank() { (a, b) } else { (b, a) };
        let lanes = self.lanes(a, b);
        let look = |index: usize| (lanes >> (LANE * index)) as u32 & ((1 << LANE) - 1);
        let looks = [look(0), look(1), look(2), look(3)];
        let order = descending(looks);
        let mut name = [0; OBJECTS + 1];
        for place in 0..OBJECTS {
            name[order[place] + 1] = place as u32 + 1;
        }
        let mut key = 0;
        for &old in &order {
            let [first, second] = self.fields[old];
            let names = name[usize::from(first)] << 3 | name[usize::from(second)];
            key = key << (LANE + 6) | u128::from(looks[old] << 6 | names);
        }
        for &(value, bits) in &[
            (a.code(), 7),
            (b.code(), 7),
            (self.released, 2),
            (self.jobs, 2),
            (self.next_field, 1),
            (self.weak_state as u8, 2),
            (self.phase as u8, 3),
        ] {
            key = key << bits | u128::from(value);
        }
        key
    }

    /// For each object, in a lane of its own: in which sets it is, and who names it.
    fn lanes(&self, a: &Mutator, b: &Mutator) -> u128 {
        // What is grey is marked, and what is found is not; so two bits tell all three.
        let marked = self.marked & !self.grey | self.found;
        let queued = self.grey | self.found;
        let ([w, x], [y, z]) = (a.op.objects(), b.op.objects());
        let sets: [Set; LANE] = [
            self.allocated,
            self.unswept,
            marked,
            queued,
            self.garbage,
            a.locals,
            a.buffer,
            b.locals,
            b.buffer,
            only(self.roots[0]),
            only(self.roots[1]),
            only(self.scanning),
            only(self.weak_target),
            only(w),
            only(x),
            only(y),
            only(z),
        ];
        let mut lanes = 0;
        for &set in &sets {
            lanes = lanes << 1 | SPREAD[usize::from(set)];
        }
        lanes
    }
}

/// Bits of a lane.
const LANE: usize = 17;

/// For each set: its bit `n` at the bottom of lane `n`.
const SPREAD: [u128; 1 << OBJECTS] = {
    let mut spread = [0; 1 << OBJECTS];
    let mut set = 0;
    while set < spread.len() {
        let mut object = 0;
        while object < OBJECTS {
            spread[set] |= (set as u128 >> object & 1) << (LANE * object);
            object += 1;
        }
        set += 1;
    }
    spread
};

/// The places of `looks`, the largest first.
fn descending(looks: [u32; OBJECTS]) -> [usize; OBJECTS] {
    let mut order = [0, 1, 2, 3];
    for end in 1..OBJECTS {
        let mut at = end;
        while at > 0 && looks[order[at - 1]] < looks[order[at]] {
            order.swap(at - 1, at);
            at -= 1;
        }
    }
    order
}
