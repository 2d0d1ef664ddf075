//! What a program pays for garbage collection besides allocation: stores into fields, safepoint
//! polls, roots, locks, frames.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::thread;
use std::time::Instant;

use criterion::{Criterion, Throughput};
use greywave::{Frame, Gc, GcArray, GcCell, GcLock, Heap, Mutator, Root, Trace};

/// Stores in one measured iteration: enough to hide the loop around them.
const STORES: usize = 1024;

/// Roots made and dropped between two collections, which recycle what dropped ones took.
const ROOTS: u64 = 10_000;

/// Objects in the heap of the benchmark that marks without end.
const LIVE: usize = 1_000_000;

#[derive(Trace)]
struct Edge<'gc>(GcCell<'gc, Node<'gc>>);

#[derive(Trace)]
struct Node<'gc> {
    next: Option<Gc<'gc, Node<'gc>>>,
    data: [u64; 7],
}

type Edges<'gc> = GcArray<(), Edge<'gc>>;

fn node<'gc>(m: &'gc Mutator, next: Option<Gc<'gc, Node<'gc>>>) -> Gc<'gc, Node<'gc>> {
    m.alloc(Node { next, data: [1; 7] })
}

fn edges(m: &Mutator) -> Gc<'_, Edges<'_>> {
    m.alloc_array((), STORES, |_| Edge(GcCell::null()))
}

/// Every cell is set to one of two objects, in turn.
fn store_all<'gc>(m: &'gc Mutator, edges: Gc<'gc, Edges<'gc>>, targets: [Gc<'gc, Node<'gc>>; 2]) {
    for (i, edge) in edges.items().iter().enumerate() {
        edge.0.set(m, targets[i % 2]);
    }
    black_box(edges.as_ptr());
}

fn stores(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store a pointer");
    group.throughput(Throughput::Elements(STORES as u64));

    let plain: Vec<AtomicPtr<u64>> = (0..STORES).map(|_| AtomicPtr::default()).collect();
    let (mut one, mut two) = (1_u64, 2_u64);
    let targets = black_box([&raw mut one, &raw mut two]);
    group.bench_function("plain release store", |bench| {
        bench.iter(|| {
            for (i, edge) in plain.iter().enumerate() {
                edge.store(targets[i % 2], Ordering::Release);
            }
            black_box(plain.as_ptr());
        });
    });

    let heap = Heap::new();
    let m = heap.attach().expect("the only mutator here");
    let (cells, targets) = (edges(&m), [node(&m, None), node(&m, None)]);
    group.bench_function("GcCell::set, idle", |bench| {
        bench.iter(|| store_all(&m, cells, black_box(targets)));
    });
    drop(m);

    stores_while_marking(&mut group, &heap);
    group.finish();
}

/// Another thread runs one cycle after another over a heap that takes a while to mark, so most
/// stores fall into a mark phase; each iteration polls once.
fn stores_while_marking(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    heap: &Heap,
) {
    let stop = AtomicBool::new(false);
    let mut m = heap.attach().expect("the only mutator here");
    let live: Root<Node<'static>> = {
        let chain = (1..LIVE).fold(node(&m, None), |next, _| node(&m, Some(next)));
        m.root(chain)
    };
    let targets = [m.root(node(&m, None)), m.root(node(&m, None))];
    let cells = m.root(edges(&m));
    thread::scope(|scope| {
        scope.spawn(|| {
            // Relaxed: only says when to leave.
            while !stop.load(Ordering::Relaxed) {
                heap.collect();
            }
        });
        group.bench_function("GcCell::set, marking, and a poll", |bench| {
            bench.iter(|| {
                store_all(&m, cells.get(&m), [targets[0].get(&m), targets[1].get(&m)]);
                m.safepoint();
            });
        });
        stop.store(true, Ordering::Relaxed);
        // The last cycle needs this thread to stop, or to say that it will not touch the heap.
        drop(m);
    });
    drop(live);
}

fn polls(criterion: &mut Criterion) {
    let heap = Heap::new();
    let mut m = heap.attach().expect("the only mutator here");
    let mut group = criterion.benchmark_group("poll");
    group.throughput(Throughput::Elements(STORES as u64));
    group.bench_function("no poll", |bench| {
        bench.iter(|| (0..STORES).for_each(|i| _ = black_box(i)));
    });
    group.bench_function("Mutator::safepoint", |bench| {
        bench.iter(|| {
            (0..STORES).for_each(|i| {
                black_box(i);
                m.safepoint();
            });
        });
    });
    group.finish();
}

fn roots(criterion: &mut Criterion) {
    let heap = Heap::new();
    let mut m = heap.attach().expect("the only mutator here");
    let kept: Root<Node<'static>> = m.root(node(&m, None));
    let mut group = criterion.benchmark_group("root");
    group.bench_function("make and drop", |bench| {
        bench.iter_custom(|count| {
            let mut took = std::time::Duration::ZERO;
            let mut left = count;
            while left > 0 {
                let batch = left.min(ROOTS);
                let object = kept.get(&m);
                let start = Instant::now();
                (0..batch).for_each(|_| drop(black_box(m.root(object))));
                took += start.elapsed();
                left -= batch;
                m.collect();
            }
            took
        });
    });
    group.bench_function("get", |bench| {
        bench.iter(|| black_box(black_box(&kept).get(&m)).as_ptr());
    });
    group.finish();
}

fn locks_and_frames(criterion: &mut Criterion) {
    let heap = Heap::new();
    let m = heap.attach().expect("the only mutator here");
    let mut group = criterion.benchmark_group("lock and frame");

    let lock = m.alloc(GcLock::new(vec![node(&m, None); 4]));
    group.bench_function("GcLock::read", |bench| {
        bench.iter(|| black_box(lock).read().len());
    });
    group.bench_function("GcLock::write", |bench| {
        bench.iter(|| black_box(lock).write(&m).swap(0, 1));
    });

    let mut frame: Frame<Vec<Gc<'static, Node<'static>>>> = Frame::new(&m, Vec::new());
    frame.enter(&m).push(node(&m, None));
    group.bench_function("Frame::enter", |bench| {
        bench.iter(|| black_box(&mut frame).enter(&m).len());
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    stores(&mut criterion);
    polls(&mut criterion);
    roots(&mut criterion);
    locks_and_frames(&mut criterion);
    criterion.final_summary();
}
