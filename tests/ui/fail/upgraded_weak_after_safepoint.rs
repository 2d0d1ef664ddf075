//! A `Weak` and what it is upgraded to live no longer than a `Gc`.
use greywave::{Gc, Heap};

fn main() {
    let heap = Heap::new();
    let mut m = heap.attach().unwrap();

    let weak = Gc::downgrade(m.alloc(1), &m);
    m.safepoint();
    println!("{}", weak.upgrade(&m).is_some());
}
