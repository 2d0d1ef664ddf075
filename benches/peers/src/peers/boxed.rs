//! `Box`: malloc and free, no sharing.

super::owned::owned_programs!(Box);

struct Noscan<const W: usize>([u64; W]);

struct Scan<const K: usize> {
    next: Option<Box<Scan<K>>>,
    data: [u64; K],
}

struct Node {
    children: Option<[Box<Node>; 2]>,
}
