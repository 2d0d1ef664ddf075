//! The test suite of the `loxcraft` crate, and our own programs, in four ways.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Case, check, loxcraft_cases, own_cases};
use greywave::Heap;
use lox::Dialect;

/// Both sets of programs, each in its dialect.
fn all() -> Vec<(Dialect, Vec<Case>)> {
    let mut all = vec![(Dialect::Book, own_cases())];
    all.extend(loxcraft_cases().map(|cases| (Dialect::Loxcraft, cases)));
    all
}

fn check_all(heap: &Heap) {
    for (dialect, cases) in all() {
        check(heap, dialect, &cases);
    }
}

#[test]
fn every_program_prints_what_it_says() {
    check_all(&Heap::builder().build().expect("a heap"));
}

#[test]
fn with_a_collection_at_every_safepoint() {
    let heap = Heap::builder()
        .stress(true)
        .verify(true)
        .poison(true)
        .build()
        .expect("a heap");
    check_all(&heap);
}

#[test]
fn with_a_marker_that_never_rests() {
    let heap = Heap::builder().poison(true).build().expect("a heap");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                heap.collect();
            }
        });
        check_all(&heap);
        over.store(true, Ordering::Relaxed);
    });
    heap.verify().expect("a whole heap");
}

#[test]
fn on_four_threads_over_one_heap() {
    let heap = Heap::builder().build().expect("a heap");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| check_all(&heap));
        }
    });
    heap.verify().expect("a whole heap");
}
