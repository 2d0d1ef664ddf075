//! What `#[derive(Trace)]` promises: it traces every shape of type, field by field, and knows the
//! rebranded type; no name and no lint of the user's disturbs it.
//!
//! `tests/ui` contains what it refuses.
#![allow(
    dead_code,
    reason = "most fields are there to be traced, and most types to be compiled"
)]

mod containers;
mod hygiene;
mod parameters;
mod shapes;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greywave::{Collect, Gc, Heap, Mutator, Trace};

/// A leaf that says when it is dropped.
#[derive(Trace)]
struct Leaf {
    dropped: Arc<AtomicUsize>,
}

impl Drop for Leaf {
    fn drop(&mut self) {
        // Relaxed: read after a collection, which orders it.
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Builds an object that holds leaves, by a root, and checks that it keeps all of them, and only as
/// long as it is rooted.
fn keeps_its_leaves(
    build: impl for<'m> FnOnce(&'m Mutator, &dyn Fn() -> Gc<'m, Leaf>) -> Box<dyn Any>,
) {
    let heap = Heap::builder().verify(true).poison(true).build().unwrap();
    let mut m = heap.attach().unwrap();
    let made = AtomicUsize::new(0);
    let dropped = Arc::new(AtomicUsize::new(0));

    let root = build(&m, &|| {
        made.fetch_add(1, Ordering::Relaxed);
        m.alloc(Leaf {
            dropped: Arc::clone(&dropped),
        })
    });
    let made = made.load(Ordering::Relaxed);
    m.collect();
    assert_eq!(dropped.load(Ordering::Relaxed), 0, "a field was not traced");

    drop(root);
    m.collect();
    assert_eq!(
        dropped.load(Ordering::Relaxed),
        made,
        "something else holds a leaf"
    );
}

/// Whether `T` may be allocated, and is traced.
fn needs_trace<T: Collect>() -> bool {
    T::NEEDS_TRACE
}
