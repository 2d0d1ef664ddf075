//! What is fine: everything between two safepoints, and roots and frames across them.
use greywave::{Frame, Gc, GcCell, GcLock, Heap, Root, Trace};

#[derive(Trace)]
struct Node<'gc> {
    next: GcCell<'gc, Node<'gc>>,
    names: GcLock<Vec<Gc<'gc, str>>>,
}

fn main() {
    let heap = Heap::new();
    let mut m = heap.attach().unwrap();

    let root: Root<Node<'static>> = {
        let node = m.alloc(Node {
            next: GcCell::null(),
            names: GcLock::new(Vec::new()),
        });
        let other = m.alloc(Node {
            next: GcCell::new(Some(node)),
            names: GcLock::new(Vec::new()),
        });
        node.next.set(&m, other);
        node.names.write(&m).push(m.alloc_str("name"));
        m.root(node)
    };
    m.safepoint();

    let mut stack: Frame<Vec<Gc<'static, Node<'static>>>> = Frame::new(&m, Vec::new());
    {
        let mut open = stack.enter(&m);
        open.push(root.get(&m));
        let popped = open.pop();
        open.extend(popped);
    }
    m.collect();
    let number = m.blocking(|| 1);
    assert_eq!(number, stack.enter(&m).len());

    let there = root.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let m = heap.attach().unwrap();
            assert_eq!(&*there.get(&m).names.read()[0], "name");
        });
    });
}
