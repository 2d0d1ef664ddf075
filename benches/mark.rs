//! A full collection, with mark and sweep, of a heap of 64-byte objects that are all alive.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use greywave::{Gc, GcCell, Heap, Mutator, Root, Trace};

#[derive(Trace)]
struct Object<'gc> {
    links: [GcCell<'gc, Object<'gc>>; 4],
    data: [u64; 4],
}

type Objects<'gc> = Vec<Gc<'gc, Object<'gc>>>;

fn objects(m: &Mutator, count: usize) -> Objects<'_> {
    let object = |i| Object {
        links: [const { GcCell::null() }; 4],
        data: [i as u64; 4],
    };
    (0..count).map(|i| m.alloc(object(i))).collect()
}

/// A balanced binary tree in the order of allocation: a node, its left subtree, its right one.
fn tree(m: &Mutator, count: usize) -> Root<Object<'static>> {
    let objects = objects(m, count);
    link_tree(m, &objects);
    m.root(objects[0])
}

fn link_tree<'gc>(m: &'gc Mutator, objects: &[Gc<'gc, Object<'gc>>]) {
    let (node, below) = objects.split_first().expect("called with at least one");
    let (left, right) = below.split_at(below.len().div_ceil(2));
    for (field, subtree) in [left, right].into_iter().enumerate() {
        if let Some(&child) = subtree.first() {
            node.links[field].set(m, child);
            link_tree(m, subtree);
        }
    }
}

/// Two fields make a binary tree of all objects in random order, two point anywhere.
fn random(m: &Mutator, count: usize) -> Root<Object<'static>> {
    let objects = objects(m, count);
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let mut order: Vec<usize> = (0..count).collect();
    (1..count)
        .rev()
        .for_each(|i| order.swap(i, random.below(i + 1)));
    for (i, &from) in order.iter().enumerate() {
        let from = objects[from];
        for (field, &child) in order.iter().skip(2 * i + 1).take(2).enumerate() {
            from.links[field].set(m, objects[child]);
        }
        from.links[2].set(m, objects[random.below(count)]);
        from.links[3].set(m, objects[random.below(count)]);
    }
    m.root(objects[order[0]])
}

/// A linked list in the order of allocation.
fn chain(m: &Mutator, count: usize) -> Root<Object<'static>> {
    let objects = objects(m, count);
    for pair in objects.windows(2) {
        pair[0].links[0].set(m, pair[1]);
    }
    m.root(objects[0])
}

struct Xorshift(u64);

/// Builds a graph of that many objects.
type Shape = fn(&Mutator, usize) -> Root<Object<'static>>;

impl Xorshift {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * limit as u128) >> 64) as usize
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let shapes: [(&str, Shape); 3] = [("tree", tree), ("random", random), ("chain", chain)];
    for count in [1_000_000, 10_000_000] {
        let mut group = criterion.benchmark_group(format!("mark {count} objects"));
        group.throughput(Throughput::Elements(count as u64));
        for (name, build) in shapes {
            // Built inside, so that a run that is filtered out costs nothing.
            let mut built = None;
            group.bench_function(name, |bench| {
                let (m, _root) = built.get_or_insert_with(|| {
                    let m = Heap::new().attach().expect("the only mutator here");
                    let root = build(&m, count);
                    (m, root)
                });
                bench.iter(|| m.collect());
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
