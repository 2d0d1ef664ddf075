//! boa_gc: a heap for each thread, roots found by counting, marking by a queue.

use boa_gc::{Finalize, Gc, GcRefCell, Trace};

use crate::programs::mark::{Clock, Graph, Mark};

super::owned::owned_programs!(Gc);

#[derive(Trace, Finalize)]
struct Noscan<const W: usize>(#[unsafe_ignore_trace] [u64; W]);

#[derive(Trace, Finalize)]
struct Scan<const K: usize> {
    next: Option<Gc<Scan<K>>>,
    #[unsafe_ignore_trace]
    data: [u64; K],
}

#[derive(Trace, Finalize)]
struct Node {
    children: Option<[Gc<Node>; 2]>,
}

/// The cell's flag is the eighth word.
#[derive(Trace, Finalize)]
struct Object {
    links: GcRefCell<[Option<Gc<Object>>; 4]>,
    #[unsafe_ignore_trace]
    data: [u64; 3],
}

impl Mark for Peer {
    fn collections(graph: &Graph, clock: &mut Clock) {
        let object = |i| Object {
            links: GcRefCell::new([const { None }; 4]),
            data: words(i as u64),
        };
        let objects: Vec<Gc<Object>> = (0..graph.objects).map(|i| Gc::new(object(i))).collect();
        let roots = graph.link(|from, field, to| {
            objects[from].links.borrow_mut()[field] = Some(objects[to].clone());
        });
        let roots: Vec<Gc<Object>> = roots.iter().map(|&i| objects[i as usize].clone()).collect();
        drop(objects);
        clock.time(boa_gc::force_collect);
        black_box(roots);
    }
}
