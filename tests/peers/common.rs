//! What the tests that follow other collectors' tests share: a checked heap, and counted drops.

#![allow(
    dead_code,
    reason = "each test program brings its own copy and uses a part of it"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Heap, HeapBuilder, Mutator, Trace};

#[path = "../stress/support.rs"]
pub(crate) mod support;

use support::{Counted, within};

/// How long a test may take that waits for the collector to act on its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A heap that checks every marking and poisons what it frees.
pub(crate) fn checked() -> HeapBuilder {
    Heap::builder().verify(true).poison(true)
}

pub(crate) fn heap() -> Heap {
    checked().build().expect("a heap")
}

/// Makes values that count their drops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drops {
    made: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

impl Drops {
    pub(crate) fn one(&self) -> Counted {
        self.made.fetch_add(1, Ordering::Relaxed);
        Counted(self.dropped.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How many were made and are not dropped.
    pub(crate) fn alive(&self) -> usize {
        self.made.load(Ordering::Relaxed) - self.count()
    }
}

/// Runs `body` on a checked heap. Afterwards the heap is whole, and it drops the rest of what
/// `body` counts, once each.
pub(crate) fn run(body: impl FnOnce(&mut Mutator, &Drops)) {
    run_on(heap(), body);
}

/// As [`run`], on `heap`.
pub(crate) fn run_on(heap: Heap, body: impl FnOnce(&mut Mutator, &Drops)) {
    let drops = Drops::default();
    within(2 * PATIENCE, || {
        let mut m = heap.attach().expect("attached");
        body(&mut m, &drops);
        m.collect();
        heap.verify().expect("whole");
        drop(m);
        drop(heap);
    });
    assert_eq!(drops.alive(), 0, "the heap drops what is left in it");
}

/// Allocates garbage until `done`.
pub(crate) fn churn_until(m: &mut Mutator, mut done: impl FnMut(&Mutator) -> bool) {
    while !done(m) {
        for _ in 0..100 {
            std::hint::black_box(m.alloc([0_u64; 8]));
        }
        m.safepoint();
    }
}

/// Whether objects of type `T` are scanned; compiles only for what may be allocated.
pub(crate) fn needs_trace<T: greywave::Collect>() -> bool {
    <T as Trace>::NEEDS_TRACE
}
