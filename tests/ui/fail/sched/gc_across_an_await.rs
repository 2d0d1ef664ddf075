use greywave::{GcCell, Heap, Runtime, Trace, go, yield_now};

#[derive(Trace)]
struct Node<'gc> {
    next: GcCell<'gc, Node<'gc>>,
}

async fn hold(heap: Heap) {
    let m = heap.attach().unwrap();
    let node = m.alloc(Node {
        next: GcCell::null(),
    });
    yield_now().await;
    drop(node.next.get());
}

fn main() {
    let heap = Heap::new();
    let rt = Runtime::builder(&heap).build().unwrap();
    let there = heap.clone();
    let _ = rt.block_on(async move {
        go(hold(there));
    });
    let _ = rt.block_on(hold(heap));
}
