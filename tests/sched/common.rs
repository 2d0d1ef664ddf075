//! What these tests share: runtimes, a flag, a list in the heap, a counter of drops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Gc, GcCell, Heap, Mutator, Root, Runtime, Trace, sleep};

use crate::support::{Stretch, Watch, within};

/// Much longer than anything here takes. Only watchdogs look at it.
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) fn runtime(procs: usize) -> Runtime {
    on(&Heap::new(), procs)
}

pub(crate) fn on(heap: &Heap, procs: usize) -> Runtime {
    Runtime::builder(heap)
        .procs(procs)
        .build()
        .expect("a runtime")
}

/// Runs `main` on so many processors, and the runtime's end, in bounded time.
pub(crate) fn run<F>(procs: usize, main: F) -> F::Output
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    within(LONG, || runtime(procs).block_on(main).expect("no deadlock"))
}

/// A flag that ends loops.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn set(&self) {
        // Relaxed: the flag is all that is shared.
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        // Relaxed: as above.
        self.0.load(Ordering::Relaxed)
    }
}

/// Computes for about that long, without a look at the scheduler.
pub(crate) fn compute(time: Duration) {
    let stretch = Stretch::of(time);
    while !stretch.is_over() {
        std::hint::spin_loop();
    }
}

/// Waits, as a G, until `done`.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let watch = Watch::begin();
    while !done() {
        watch.check(what);
        sleep(Duration::from_millis(1)).await;
    }
}

#[derive(Trace)]
pub(crate) struct Node<'gc> {
    pub(crate) number: u64,
    pub(crate) next: GcCell<'gc, Node<'gc>>,
    pub(crate) before: GcCell<'gc, Node<'gc>>,
}

/// A list whose neighbours know each other.
pub(crate) fn list(m: &Mutator, len: u64) -> Root<Node<'static>> {
    let node = |number| {
        m.alloc(Node {
            number,
            next: GcCell::null(),
            before: GcCell::null(),
        })
    };
    let mut first = node(len);
    for number in (0..len).rev() {
        let new = node(number);
        new.next.set(m, first);
        first.before.set(m, new);
        first = new;
    }
    m.root(first)
}

/// Whether it is as it was made.
pub(crate) fn is_whole(first: Gc<'_, Node<'_>>, len: u64) -> bool {
    let mut at = first;
    for number in 0..len {
        let Some(next) = at.next.get() else {
            return false;
        };
        let is_back = next
            .before
            .get()
            .is_some_and(|before| Gc::ptr_eq(before, at));
        if at.number != number || !is_back {
            return false;
        }
        at = next;
    }
    at.number == len && at.next.get().is_none()
}

/// Counts that it was dropped.
pub(crate) struct Dropped(pub(crate) Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
