//! A stage for races that are run step by step: marking stops where a test wants it, and goes on
//! when the test says so.

#![allow(dead_code, reason = "each test program runs a part of these")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use greywave::{
    Gc, GcArray, GcCell, GcLock, Heap, HeapBuilder, Mutator, Rebrand, Root, Trace, Tracer,
};

use crate::directed::{Item, new_item, new_item_before};
use crate::support::{PATIENCE, Watch, is_broken};

/// How long a step may take before the test has failed.
const LONG: Duration = Duration::from_secs(20);

const OPEN: u8 = 0;
const ARMED: u8 = 1;
const HELD: u8 = 2;

/// Waits until `done`; a step that does not come is a failure.
pub(crate) fn until(what: &str, done: impl FnMut() -> bool) {
    until_within(LONG, what, done);
}

/// As [`until`]. A collector that is broken on purpose is given up after `limit`; a whole one has
/// the patience of a watchdog.
pub(crate) fn until_within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let limit = if is_broken() { limit } else { PATIENCE };
    let start = Instant::now();
    while !done() {
        let is_late = start.elapsed() >= limit;
        assert!(!is_late, "{what} has not come after {limit:?}");
        std::thread::sleep(Duration::from_micros(20));
    }
}

/// Where a marker waits: the first trace of an armed gate does not return before the gate is
/// opened.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<AtomicU8>);

impl Gate {
    /// An open gate.
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(OPEN)))
    }

    pub(crate) fn arm(&self) {
        self.0.store(ARMED, Ordering::SeqCst);
    }

    /// Whether a marker waits here.
    pub(crate) fn is_held(&self) -> bool {
        self.0.load(Ordering::SeqCst) == HELD
    }

    pub(crate) fn open(&self) {
        self.0.store(OPEN, Ordering::SeqCst);
    }
}

// SAFETY: 1. 3. 6. no `Gc` inside. 2. an atomic in an `Arc`. 4. true, so that it is traced. 5. it
// waits for a test that takes no lock of the collector meanwhile, and ends the process instead of
// unwinding.
unsafe impl Trace for Gate {
    fn trace(&self, _: &mut Tracer<'_>) {
        let arrived = self
            .0
            .compare_exchange(ARMED, HELD, Ordering::SeqCst, Ordering::SeqCst);
        if arrived.is_err() {
            return;
        }
        let watch = Watch::begin();
        while self.is_held() {
            watch.check_or_abort("the opening of a gate");
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Gate {
    type To = Self;
}

/// Makes mark workers slow, but not the collector's own thread, so that they are the last at work.
#[derive(Debug)]
pub(crate) struct Slow;

// SAFETY: as for `Gate`; it only sleeps.
unsafe impl Trace for Slow {
    fn trace(&self, _: &mut Tracer<'_>) {
        let thread = std::thread::current();
        if thread
            .name()
            .is_some_and(|n| n.starts_with("greywave-mark"))
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Slow {
    type To = Self;
}

/// An object that is traced up to its gate: what it leads to is found only after the gate is open.
#[derive(Trace)]
pub(crate) struct Gated<'gc> {
    gate: Gate,
    pub(crate) edge: GcCell<'gc, Item<'gc>>,
    pub(crate) lock: GcLock<Vec<Gc<'gc, Item<'gc>>>>,
    pub(crate) many: GcCell<'gc, GcArray<u64, ItemSlot<'gc>>>,
}

/// A slot of an array.
#[derive(Trace)]
pub(crate) struct ItemSlot<'gc>(pub(crate) GcCell<'gc, Item<'gc>>);

/// A heap whose cycles run when the test asks, with one thread that marks; a gate; and what it
/// guards.
pub(crate) struct Stage {
    pub(crate) heap: Heap,
    gate: Gate,
}

/// A cycle that runs on the stage.
pub(crate) struct Cycle<'a> {
    stage: &'a Stage,
    thread: JoinHandle<()>,
}

/// A builder for heaps that check every marking and fill what they free.
pub(crate) fn checked() -> HeapBuilder {
    Heap::builder().verify(true).poison(true).stress(false)
}

impl Stage {
    pub(crate) fn new() -> Self {
        let heap = checked().gogc(None).workers(1).build().expect("a heap");
        Self {
            heap,
            gate: Gate::new(),
        }
    }

    pub(crate) fn attach(&self) -> Mutator {
        self.heap.attach().expect("attached")
    }

    /// An object behind the gate that leads to item `id`, once by its edge and once by its lock.
    pub(crate) fn gated<'m>(&self, m: &'m Mutator, id: u64) -> Gc<'m, Gated<'m>> {
        let gated = m.alloc(Gated {
            gate: self.gate.clone(),
            edge: GcCell::new(Some(new_item(m, id))),
            lock: GcLock::new(Vec::new()),
            many: GcCell::null(),
        });
        gated.lock.write(m).push(new_item(m, id));
        gated
    }

    /// Begins a cycle; returns when the marker waits at the gate, with its roots scanned up to
    /// there.
    pub(crate) fn begin(&self, m: &mut Mutator) -> Cycle<'_> {
        let cycle = self.ask();
        until("the marker", || {
            m.safepoint();
            self.gate.is_held()
        });
        cycle
    }

    /// Asks for a cycle that stops at the gate.
    pub(crate) fn ask(&self) -> Cycle<'_> {
        self.gate.arm();
        let heap = self.heap.clone();
        Cycle {
            stage: self,
            thread: std::thread::spawn(move || heap.collect()),
        }
    }

    /// The gate, for objects of a test's own.
    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.gate.is_held()
    }

    pub(crate) fn open(&self) {
        self.gate.open();
    }
}

impl Cycle<'_> {
    /// Lets the cycle go on to its end.
    pub(crate) fn end(self, m: &mut Mutator) {
        self.stage.open();
        self.wait(m);
    }

    /// Waits for the cycle's end. The mutator runs meanwhile.
    pub(crate) fn wait(self, m: &mut Mutator) {
        until("the end of the cycle", || {
            m.safepoint();
            self.thread.is_finished()
        });
        self.thread.join().expect("no panic");
    }
}

/// Waits until the collector asks something of this mutator, which goes on without a safepoint.
pub(crate) fn wait_for_request(m: &Mutator) {
    until("a request", || m.safepoint_is_due());
}

/// Keeps `item` by an object that was made just now, which a running cycle does not scan.
pub(crate) fn keep<'m>(m: &'m Mutator, item: Gc<'m, Item<'m>>) -> Root<Item<'static>> {
    m.root(new_item_before(m, item.check(), Some(item)))
}

/// What [`keep`] kept is there, now and after another cycle.
pub(crate) fn assert_kept(stage: &Stage, m: &mut Mutator, kept: &Root<Item<'static>>) {
    for _ in 0..2 {
        {
            let keeper = kept.get(m);
            let item = keeper.next.get().expect("it was kept");
            assert_eq!(keeper.check(), item.check());
        }
        stage.heap.verify().expect("whole");
        m.collect();
    }
}

/// Threads that come to a step one after another.
#[derive(Debug, Default)]
pub(crate) struct Steps(AtomicUsize);

impl Steps {
    pub(crate) fn done(&self, step: usize) {
        self.0.store(step, Ordering::SeqCst);
    }

    /// Waits without a safepoint.
    pub(crate) fn wait_for(&self, step: usize) {
        until("the step before", || self.0.load(Ordering::SeqCst) >= step);
    }

    /// Passes safepoints until the step is done.
    pub(crate) fn pass(&self, step: usize, m: &mut Mutator) {
        until("the step before", || {
            m.safepoint();
            self.0.load(Ordering::SeqCst) >= step
        });
    }
}
