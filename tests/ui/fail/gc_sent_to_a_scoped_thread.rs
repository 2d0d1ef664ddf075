//! A `Gc` stays on its thread, in an object and out of it.
use greywave::{Gc, GcCell, Heap, Trace};

#[derive(Trace)]
struct Node<'gc> {
    next: GcCell<'gc, Node<'gc>>,
}

fn main() {
    let heap = Heap::new();
    let m = heap.attach().unwrap();

    let number = m.alloc(1);
    std::thread::scope(|scope| {
        scope.spawn(move || println!("{number}"));
    });

    let weak = Gc::downgrade(number, &m);
    std::thread::scope(|scope| {
        scope.spawn(move || drop(weak));
    });

    let node = Node {
        next: GcCell::null(),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| println!("{}", node.next.get().is_some()));
    });
}
