//! What is popped out of a frame has the brand of the mutator that opened it.
use greywave::{Frame, Gc, Heap};

fn main() {
    let heap = Heap::new();
    let mut m = heap.attach().unwrap();
    let mut stack: Frame<Vec<Gc<'static, u32>>> = Frame::new(&m, Vec::new());

    let popped = stack.enter(&m).pop();
    m.safepoint();
    println!("{popped:?}");
}
