//! The cost of a short-lived object: one allocation, with its share of the collections that it
//! causes.
//!
//! The address of each object goes to `black_box`, and the object is then garbage. "scan" means
//! that the collector would look inside the object: its first word is a pointer.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use greywave::{Gc, Heap, Mutator, Trace};

/// Allocations between two safepoints.
const BATCH: u64 = 1000;

#[derive(Trace)]
struct Noscan<const W: usize>([u64; W]);

#[derive(Trace)]
struct Scan<'gc, const K: usize>(Option<Gc<'gc, Scan<'gc, K>>>, [u64; K]);

fn words<const W: usize>(number: u64) -> [u64; W] {
    let mut words = [0; W];
    words[0] = number;
    words
}

fn noscan<const W: usize>(m: &Mutator, count: u64) {
    for i in 0..count {
        let object = m.alloc(Noscan::<W>(words(i)));
        black_box(&raw const object.0);
    }
}

fn scan<const K: usize>(m: &Mutator, count: u64) {
    for i in 0..count {
        let object = m.alloc(Scan::<K>(None, words(i)));
        black_box((&raw const object.0, &raw const object.1));
    }
}

/// `count` allocations on each of `threads` threads: the wall time of the slowest.
fn time(heap: &Heap, threads: usize, count: u64, allocate: fn(&Mutator, u64)) -> Duration {
    let together = Barrier::new(threads);
    let one = || {
        let mut m = heap.attach().expect("a new thread");
        m.blocking(|| together.wait());
        let start = Instant::now();
        let mut left = count;
        while left > 0 {
            let batch = left.min(BATCH);
            allocate(&m, batch);
            m.safepoint();
            left -= batch;
        }
        start.elapsed()
    };
    thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let times = started
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        times.max().unwrap_or_default()
    })
}

/// Allocates that many objects.
type Program = fn(&Mutator, u64);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let programs: [(&str, Program); 8] = [
        ("16 noscan", noscan::<2>),
        ("32 noscan", noscan::<4>),
        ("64 noscan", noscan::<8>),
        ("256 noscan", noscan::<32>),
        ("16 scan", scan::<1>),
        ("32 scan", scan::<3>),
        ("64 scan", scan::<7>),
        ("256 scan", scan::<31>),
    ];
    for threads in [1, 2] {
        let mut group = criterion.benchmark_group(format!("alloc, {threads} thread(s)"));
        group.throughput(Throughput::Elements(threads as u64));
        for (name, allocate) in programs {
            let heap = Heap::new();
            group.bench_function(name, |bench| {
                bench.iter_custom(|count| time(&heap, threads, count, allocate));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
