//! The crate by another name.
extern crate greywave as gw;

#[derive(gw::Trace)]
#[trace(crate = gw)]
struct Node<'gc, T> {
    next: gw::GcCell<'gc, Node<'gc, T>>,
    value: T,
}

fn main() {
    let heap = gw::Heap::new();
    let m = heap.attach().unwrap();
    let node = m.alloc(Node {
        next: gw::GcCell::null(),
        value: 1,
    });
    node.next.set(&m, node);
    assert_eq!(node.next.get().map(|node| node.value), Some(1));
}
