//! Large, small, many, odd: the heap at its edges.

use std::time::Duration;

use greywave::{Gc, GcArray, GcCell, Heap, Trace};

#[path = "stress/support.rs"]
mod support;

use support::within;

fn heap() -> Heap {
    Heap::builder()
        .verify(true)
        .poison(true)
        .build()
        .expect("a heap")
}

#[derive(Trace)]
struct Leaf {
    value: u64,
}

#[derive(Trace)]
struct Wide<'gc, const N: usize>([GcCell<'gc, Leaf>; N]);

/// Items whose size does not divide the piece in which a long list is scanned.
fn long_lists<const N: usize>(heap: &Heap, len: usize) {
    let mut m = heap.attach().expect("attached");
    let root = {
        let list = m.alloc_slice(len, |_| Wide::<N>(std::array::from_fn(|_| GcCell::null())));
        for (i, item) in list.iter().enumerate() {
            item.0[0].set(&m, m.alloc(Leaf { value: i as u64 }));
            item.0[N - 1].set(&m, m.alloc(Leaf { value: i as u64 }));
        }
        m.root(list)
    };
    for _ in 0..2 {
        m.collect();
        for (i, item) in root.get(&m).iter().enumerate() {
            for edge in [&item.0[0], &item.0[N - 1]] {
                assert_eq!(edge.get().map(|l| l.value), Some(i as u64));
            }
        }
    }
    heap.verify().expect("whole");
}

#[test]
fn long_lists_of_items_of_any_size_are_scanned_whole() {
    let heap = heap();
    long_lists::<1>(&heap, 100_000);
    long_lists::<3>(&heap, 100_000);
    long_lists::<5000>(&heap, 45);
    long_lists::<8400>(&heap, 20);
    long_lists::<20_000>(&heap, 12);
}

#[test]
fn a_large_header_before_items_without_a_size() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    type Odd<'gc> = GcArray<Wide<'gc, 5000>, ()>;
    let root = {
        let header = Wide::<5000>(std::array::from_fn(|_| GcCell::null()));
        let array: Gc<'_, Odd<'_>> = m.alloc_array(header, 1_000_000, |_| ());
        array.header().0[4999].set(&m, m.alloc(Leaf { value: 3 }));
        m.root(array)
    };
    m.collect();
    let array = root.get(&m);
    assert_eq!(array.items().len(), 1_000_000);
    assert_eq!(array.header().0[4999].get().map(|l| l.value), Some(3));
}

/// The collector's threads end with the heap, whenever it goes.
#[test]
fn a_heap_that_goes_right_after_a_cycle_does_not_wait() {
    within(Duration::from_secs(60), || {
        for _ in 0..400 {
            let heap = Heap::builder()
                .workers(4)
                .reservation(8 << 20)
                .build()
                .expect("a heap");
            heap.collect();
        }
    });
}
