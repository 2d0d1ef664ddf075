//! dumpster's `sync::Gc`: reference counts, and a search for cycles.

use dumpster::Trace;
use dumpster::sync::Gc;

super::owned::owned_programs!(Gc);

#[derive(Trace)]
struct Noscan<const W: usize>([u64; W]);

#[derive(Trace)]
struct Scan<const K: usize> {
    next: Option<Gc<Scan<K>>>,
    data: [u64; K],
}

#[derive(Trace)]
struct Node {
    children: Option<[Gc<Node>; 2]>,
}
