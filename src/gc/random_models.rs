//! shuttle models of a whole collector: the protocols that are too large for loom.
//!
//! A model is a program. Everything that it calls is real: the collector's thread with its workers, stops, handshakes and
//! termination, assists, the sweep, allocation, roots; and every cycle verifies itself (`gc/check.rs`). Of the layer above,
//! which keeps the mutator in a thread-local of the OS, a few lines stand for it here, and name what they stand for.
//!
//! Each model is run again with faults of `sys/sabotage.rs`, and must fail then. How often, and how to repeat a failure:
//! `sys/random_model.rs`.

mod brake;
mod cycle;
mod kinds;
mod sweep;
mod weak;

use std::any::TypeId;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use shuttle::thread::JoinHandle;

use crate::base::addr::PAGE_SIZE;
use crate::gc::alloc::{Wanted, exact_slot};
use crate::gc::barrier::{Change, before_store};
use crate::gc::collector::{Collector, Settings};
use crate::gc::mutator::{Local, MutatorRef, MutatorState};
use crate::gc::roots::RawRoot;
use crate::gc::state_word::Request;
use crate::heap::mheap::{MHeap, Options};
use crate::heap::span_class::ClassKey;
use crate::object::trace::{Trace, Tracer};
use crate::object::type_info::Sized_;
use crate::sys::random_model::random;
use crate::sys::sync::{AtomicUsize, Ordering, yield_now};

/// What is said about an object that is lost: by the verifier, by a mutator that comes upon it, or by an atomic of the
/// checker that was poisoned.
#[cfg(feature = "sabotage")]
const LOST: &[&str] = &[
    "was not marked",
    "freed while it was reachable",
    "leads to no span",
    "bytes into the slot",
    "the upgrade of a live object failed",
    "borrowed",
];

/// What stands in an object that lives.
const SOUND: u64 = 0x6772_6579_7761_7665;
const EDGES: usize = 3;

/// An object. Two small ones share a word of mark bits; of those with a kilobyte of `BULK` a span has few.
#[repr(C)]
struct Node<const BULK: usize> {
    sound: u64,
    /// `GcCell`s; 0 is null.
    edges: [AtomicUsize; EDGES],
    bulk: [u64; BULK],
}

// SAFETY: 1. every edge is reported. 2. atomics and constants. 3. edges are written behind the barrier. 4. it has edges.
// 5. loads only. 6. no drop.
unsafe impl<const BULK: usize> Trace for Node<BULK> {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        for edge in &self.edges {
            // Acquire: as in `Edge::load` of `api::cell`.
            tracer.edge(edge.load(Ordering::Acquire));
        }
    }
}

/// The node at an address, which must be alive.
fn node<'a>(address: usize) -> &'a Node<0> {
    let at: *const Node<0> = std::ptr::with_exposed_provenance(address);
    // SAFETY: an address from an edge or a root. The memory is there until the heap goes; it is poisoned when it is free.
    let sound = unsafe { (&raw const (*at).sound).read_volatile() };
    assert_eq!(sound, SOUND, "freed while it was reachable");
    // SAFETY: as above, and it lives.
    unsafe { &*at }
}

/// The edge of a node that lives.
fn load(from: usize, edge: usize) -> usize {
    // Acquire: as in `Edge::load`.
    node(from).edges[edge].load(Ordering::Acquire)
}

/// Three processors, no cycle that nobody has asked for, and the verifier. `limit` is the memory limit, in bytes.
fn settings(limit: u64) -> Settings {
    Settings {
        gogc: Some(100),
        memory_limit: limit,
        processors: 3,
        period: Duration::from_secs(3600),
        stress: false,
        verify: true,
        stop_the_world: false,
        // A heap without room collects again and again; a schedule with priorities would let nobody else run.
        sink: Some(Arc::new(|_| yield_now())),
        quiet: true,
        trace: None,
    }
}

/// A collector with its thread.
fn start(limit: u64) -> Arc<Collector> {
    start_with(settings(limit))
}

fn start_with(settings: Settings) -> Arc<Collector> {
    let options = Options {
        poison: true,
        ..Options::default()
    };
    let heap = MHeap::new(2 << 20, options).expect("address space");
    let collector = Collector::new(heap, settings);
    collector.start().expect("a thread");
    collector
}

/// `api::mutator::Mutator`, with the roots that it keeps.
struct Mutator {
    collector: Arc<Collector>,
    me: MutatorRef,
    roots: Vec<RawRoot>,
}

impl Mutator {
    /// `Heap::attach`.
    fn attach(collector: &Arc<Collector>) -> Self {
        let mutator = Self {
            collector: collector.clone(),
            me: collector.world.register(Location::caller(), false),
            roots: Vec::new(),
        };
        mutator.come_back();
        mutator
    }

    fn state(&self) -> &MutatorState {
        // SAFETY: 1. registered until `detach`. 2. used by the model's thread that has it, while it runs.
        unsafe { self.me.get() }
    }

    fn local(&self) -> &Local {
        &self.state().local
    }

    /// `Mutator::enter`.
    fn come_back(&self) {
        let (collector, state) = (&self.collector, self.state());
        let catch_up = &mut || collector.catch_up(state);
        collector.world.leave_blocked(state, catch_up);
        collector.catch_up(state);
    }

    /// `Mutator::blocking`.
    fn blocking<R>(&self, f: impl FnOnce(&Arc<Collector>) -> R) -> R {
        let (collector, state) = (&self.collector, self.state());
        let catch_up = &mut || collector.catch_up(state);
        collector.world.enter_blocked(state, catch_up);
        let out = f(collector);
        self.come_back();
        out
    }

    /// `Mutator::safepoint`.
    fn safepoint(&self) {
        let (collector, state) = (&self.collector, self.state());
        if state.word.is_asked() {
            let catch_up = &mut || collector.catch_up(state);
            collector.world.stop_and_act(state, catch_up);
            collector.catch_up(state);
            if state.word.asked().has(Request::Stall) {
                state.word.withdraw(Request::Stall);
                collector.stall(state);
            }
        }
    }

    /// `Mutator::collect`.
    fn collect(&self) {
        let number = self.collector.want_cycle();
        self.blocking(|collector| collector.wait_for_cycle(number));
    }

    /// Asks for `cycles` while the threads run, and waits for those.
    fn collect_beside(&self, threads: Vec<JoinHandle<()>>, cycles: usize) {
        for _ in 0..cycles {
            self.collect();
        }
        self.blocking(|_| {
            for thread in threads {
                thread.join().expect("no panic");
            }
        });
    }

    /// A node with these edges, small or large.
    fn alloc(&self, edges: [usize; EDGES]) -> usize {
        if random(2) == 0 {
            self.alloc_node::<0>(edges)
        } else {
            self.alloc_node::<128>(edges)
        }
    }

    /// `Mutator::alloc`.
    fn alloc_node<const BULK: usize>(&self, edges: [usize; EDGES]) -> usize {
        let info = Sized_::<Node<BULK>>::INFO;
        let (size, align) = (size_of::<Node<BULK>>(), align_of::<Node<BULK>>());
        let hit = (self.local().cache).bump_typed(ClassKey::exact(info), exact_slot(size, align));
        let address = hit.unwrap_or_else(|| {
            let wanted = Wanted {
                info: Some((info, TypeId::of::<Node<BULK>>())),
                size,
                align,
                exact: true,
            };
            let fresh = self.collector.alloc_slow(self.state(), wanted);
            fresh.expect("room in the heap").address
        });
        let at: *mut Node<BULK> = std::ptr::with_exposed_provenance_mut(address);
        let new = Node {
            sound: SOUND,
            edges: edges.map(AtomicUsize::new),
            bulk: [0; BULK],
        };
        // SAFETY: a fresh slot of a node's size, which nobody else has.
        unsafe { at.write(new) };
        address
    }

    /// `GcCell::set`.
    fn set(&self, from: usize, edge: usize, to: usize) {
        let edge = &node(from).edges[edge];
        before_store(
            self.local(),
            || &*self.collector,
            || Change {
                at: 0,
                // Acquire: as in `Edge::load`.
                old: edge.load(Ordering::Acquire),
                new: to,
            },
        );
        // Release: as in `GcCell::set`.
        edge.store(to, Ordering::Release);
    }

    /// `Mutator::root`.
    fn root(&mut self, target: usize) {
        let root = {
            let local = self.local();
            let stock = &mut local.free_roots.borrow_mut();
            (self.collector.roots).take(target, stock, !local.duty.marks())
        };
        self.roots.push(root);
    }

    /// `Root::drop`, on the mutator's thread.
    fn unroot(&mut self, index: usize) {
        let root = self.roots.swap_remove(index);
        let local = self.local();
        if local.duty.marks() {
            self.collector.shade_later(local, root.target());
        }
        (self.collector.roots).free(root, &mut local.free_roots.borrow_mut());
    }

    /// `Drop` of the mutator; the roots are dropped as on a thread without one.
    fn detach(self) {
        self.collector.detach(self.me);
        self.roots.into_iter().for_each(RawRoot::release);
    }
}

/// One of `all`.
fn any<T: Copy>(all: &[T]) -> T {
    all[random(all.len())]
}
