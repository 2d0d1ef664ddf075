use greywave::{Gc, GcCell, GcChan, Mutator, Root, Trace, with};

#[derive(Trace)]
struct Node<'gc> {
    next: GcCell<'gc, Node<'gc>>,
}

type Nodes = Root<GcChan<'static, Node<'static>>>;

fn alloc<'m>(m: &'m Mutator) -> Gc<'m, Node<'m>> {
    m.alloc(Node {
        next: GcCell::null(),
    })
}

fn returned() {
    let node = with(|m| alloc(m));
    drop(node.next.get());
}

fn stored() {
    let mut kept = None;
    with(|m| kept = Some(alloc(m)));
    drop(kept);
}

async fn received(nodes: Nodes) {
    let node = nodes.recv(|_, node| node).await;
    drop(node);
}

async fn received_and_stored(nodes: Nodes) {
    let mut kept = None;
    nodes.recv(|_, node| kept = Some(node)).await;
    drop(kept);
}

fn sent_from_another_section(nodes: &Nodes) {
    with(|outer| {
        let _ = nodes.send(|_| alloc(outer));
    });
}

fn main() {}
