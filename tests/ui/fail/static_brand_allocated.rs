//! A value branded `'static` cannot be allocated: rooted, it would come back with a shorter brand, and what is stored
//! through the one would be read through the other.
use greywave::{Gc, GcCell, Heap};

fn main() {
    let heap = Heap::new();
    let mut m = heap.attach().unwrap();

    let cell: GcCell<'static, u32> = GcCell::null();
    let kept: Gc<'_, GcCell<'static, u32>> = m.alloc(cell);
    let root = m.root(kept);
    root.get(&m).set(&m, m.alloc(1));
    let out: Option<Gc<'static, u32>> = kept.get();
    m.safepoint();
    println!("{out:?}");
}
