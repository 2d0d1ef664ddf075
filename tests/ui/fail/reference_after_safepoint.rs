//! What was borrowed from an object is not usable after a safepoint.
use greywave::{Gc, Heap, Root};

fn main() {
    let heap = Heap::new();
    let mut m = heap.attach().unwrap();

    let number: &u32 = m.alloc(1).as_ref();
    m.safepoint();
    println!("{number}");

    let root: Root<String> = m.root(m.alloc(String::new()));
    let text: &str = Gc::as_ref(root.get(&m));
    m.safepoint();
    println!("{text}");
}
