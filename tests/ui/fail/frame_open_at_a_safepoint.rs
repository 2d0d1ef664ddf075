//! An open frame borrows the mutator, and so does what is inside.
use greywave::{Frame, Gc, Heap};

fn main() {
    let heap = Heap::new();
    let mut m = heap.attach().unwrap();
    let mut stack: Frame<Vec<Gc<'static, u32>>> = Frame::new(&m, Vec::new());

    let mut open = stack.enter(&m);
    m.safepoint();
    open.push(m.alloc(1));

    let mut kept: Vec<Gc<'static, u32>> = Vec::new();
    kept.append(&mut stack.enter(&m));
    m.safepoint();
}
