//! A `Gc` is not usable after a safepoint, whatever kind it is.
use greywave::Heap;

fn main() {
    let heap = Heap::new();
    let mut m = heap.attach().unwrap();

    let number = m.alloc(1);
    m.safepoint();
    println!("{number}");

    let text = m.alloc_str("text");
    m.collect();
    println!("{text}");

    let slice = m.alloc_slice(3, |n| n);
    m.blocking(|| println!("{slice:?}"));
}
