//! No guard of a `GcLock` is held at a safepoint.
use greywave::{GcLock, Heap};

fn main() {
    let heap = Heap::new();
    let mut m = heap.attach().unwrap();

    let lock = GcLock::new(vec![1]);
    let mut items = lock.write(&m);
    m.safepoint();
    items.push(2);
}
