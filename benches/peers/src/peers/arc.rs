//! `Arc`: malloc and free, and an atomic count.

use std::sync::Arc;

super::owned::owned_programs!(Arc);

struct Noscan<const W: usize>([u64; W]);

struct Scan<const K: usize> {
    next: Option<Arc<Scan<K>>>,
    data: [u64; K],
}

struct Node {
    children: Option<[Arc<Node>; 2]>,
}
