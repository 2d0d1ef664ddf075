//! A cell on the stack is no way around the brand: neither one branded `'static`, nor a longer one seen as a shorter.
use greywave::{Gc, GcCell, GcOnce, Heap, Mutator};

fn main() {
    let heap = Heap::new();
    let mut m = heap.attach().unwrap();

    let cell: GcCell<'static, u32> = GcCell::null();
    cell.set(&m, m.alloc(1));
    m.safepoint();

    let once: GcOnce<'static, u32> = GcOnce::empty();
    let _ = once.set(&m, m.alloc(1));
    m.safepoint();
}

fn shortened<'long: 'short, 'short>(
    m: &'short Mutator,
    cell: &GcCell<'long, u32>,
    gc: Gc<'short, u32>,
) {
    let cell: &GcCell<'short, u32> = cell;
    cell.set(m, gc);
}
