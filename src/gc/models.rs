//! Loom models of the protocols that span several files of this layer.
//!
//! A model calls the real functions where they run under loom: the state word, [`World`](crate::gc::world::World), the
//! root table, the frame table, the work pool, the weak state, the bitmaps. What would need objects in the arena or a
//! whole collector is stood for by a few lines that name what they stand for: an edge is a word, an object a number
//! below 64, its mark a bit of one word.
//!
//! The models of one word sit beside it (`state_word`, `lock_word`, `heap::span`, `heap::models`).
//!
//! Each property has, where it is cheap, a model in which its protection is left out; that one must fail, which shows
//! that the model can see the fault. A bound of two or three preemptions keeps each under some seconds; a greater bound
//! can be had from `LOOM_MAX_PREEMPTIONS`.

mod barrier;
mod frames;
mod handshake;
mod marking;
mod roots;
mod stop;
mod weak;

use std::panic::Location;
use std::sync::atomic::Ordering;

use loom::sync::atomic::{AtomicU64, AtomicUsize};

use crate::base::ptr_buf::PtrBuf;
use crate::gc::mutator::{MutatorRef, MutatorState};
use crate::gc::world::World;
use crate::object::trace::{LockView, Spill, Tracer};
use crate::sys::model::Plain;

/// The cycle that runs in every model.
const CYCLE: u32 = 1;

/// A set of objects.
trait Objects {
    fn add(&self, object: usize);
    fn take(&self) -> u64;
}

impl Objects for Plain<u64> {
    fn add(&self, object: usize) {
        self.set(self.get() | bit(object));
    }

    fn take(&self) -> u64 {
        let all = self.get();
        self.set(0);
        all
    }
}

/// The set of one object; of none for 0, the null edge.
fn bit(object: usize) -> u64 {
    if object == 0 { 0 } else { 1 << object }
}

fn objects(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let object = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (object < 64).then_some(object)
    })
}

/// A mutable edge: `api::cell::Edge`.
#[derive(Debug)]
struct Edge(AtomicUsize);

impl Edge {
    fn new(to: usize) -> Self {
        Self(AtomicUsize::new(to))
    }

    fn load(&self) -> usize {
        // Acquire: as in `Edge::load` of `api::cell`.
        self.0.load(Ordering::Acquire)
    }

    fn store(&self, to: usize) {
        // Release: as in `GcCell::set`.
        self.0.store(to, Ordering::Release);
    }

    /// `GcCell::set` while marking runs: what the edge loses is put into `buffer` first.
    fn set(&self, buffer: &Plain<u64>, to: usize) {
        buffer.add(self.load());
        self.store(to);
    }
}

/// Mark bits: `heap::bits::BitTable`, one word of it.
#[derive(Debug)]
struct Marks(AtomicU64);

impl Marks {
    fn new(marked: u64) -> Self {
        Self(AtomicU64::new(marked))
    }

    fn test(&self, object: usize) -> bool {
        // Relaxed: as in `BitTable::test`.
        self.0.load(Ordering::Relaxed) & bit(object) != 0
    }

    /// Marks; true if this call did it.
    fn set(&self, object: usize) -> bool {
        // Relaxed (both): as in `BitTable::set`.
        self.0.load(Ordering::Relaxed) & bit(object) == 0
            && self.0.fetch_or(bit(object), Ordering::Relaxed) & bit(object) == 0
    }

    /// The sweep of the object's span: the mark is used up.
    fn clear(&self, object: usize) {
        // Relaxed: as in `BitTable::move_into`.
        self.0.fetch_and(!bit(object), Ordering::Relaxed);
    }
}

/// The edges that `report` reports.
fn reported(report: impl FnOnce(&mut Tracer<'_>)) -> Vec<usize> {
    struct NoSpill;
    impl Spill for NoSpill {
        fn spill(&mut self, _: &mut PtrBuf) {
            panic!("a model reports a handful of edges");
        }
    }
    let mut buf = PtrBuf::new();
    let locks = LockView::Concurrent { cycle: CYCLE };
    report(&mut Tracer::new(&mut buf, &mut NoSpill, locks));
    buf.as_slice().to_vec()
}

/// A mutator of this thread, still Blocked.
fn register(world: &World) -> MutatorRef {
    world.register(Location::caller(), false)
}

fn state<'a>(mutator: MutatorRef) -> &'a MutatorState {
    // SAFETY: 1. each model unregisters its mutators last. 2. models use the word only.
    unsafe { mutator.get() }
}

/// A mutator that runs.
fn attach(world: &World) -> MutatorRef {
    let mutator = register(world);
    world.leave_blocked(state(mutator), &mut || {});
    mutator
}

/// `Mutator::safepoint`; `act` is what a handshake asks for.
fn safepoint(world: &World, mutator: MutatorRef, act: &mut dyn FnMut()) {
    let state = state(mutator);
    if state.word.is_asked() {
        world.stop_and_act(state, act);
    }
}
