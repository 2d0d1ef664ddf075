//! Tests of the hard limit, with page caches.

use super::*;
use crate::heap::mcache::{Cursor, MCache};
use crate::heap::page_cache::PageCache;
use crate::heap::span::Holder;

const MIB: usize = 1 << 20;

/// Returns the bytes of pages in use, without page 0.
fn in_use(heap: &MHeap) -> usize {
    (heap.pages.lock().in_use_pages() as usize - 1) << PAGE_SHIFT
}

/// Mutators take pages in turn until none gets any. What their caches hold is within the limit,
/// too.
fn fill(limit: usize, mutators: usize) {
    let options = Options {
        hard_limit: limit as u64,
        ..Options::default()
    };
    let heap = MHeap::new(64 * MIB, options).expect("a heap");
    // There are free pages in all groups, so that a cache gets as many as possible.
    let all: Vec<u32> = (0..limit / PAGE_SIZE)
        .map(|_| new_page(&heap, None).expect("room"))
        .collect();
    assert_eq!(new_page(&heap, None), Err(OutOfPages));
    for first_page in all {
        heap.free_pages(first_page, 1);
    }
    let caches: Vec<MCache> = (0..mutators).map(|_| MCache::new()).collect();
    let cursors: Vec<&Cursor> = caches.iter().map(|c| c.fixed(SizeClass(0))).collect();
    for cursor in &cursors {
        cursor.class.set(Some(heap.fixed_class(SizeClass(0))));
    }
    let mut full = 0;
    while full < mutators {
        full = 0;
        for (cache, cursor) in caches.iter().zip(&cursors) {
            // The cursor's run is used up.
            cursor.cur.set(cursor.end.get());
            let got = heap.refill(cache, cursor, Paint::White);
            full += usize::from(got.is_err());
            assert!(
                in_use(&heap) <= limit,
                "{mutators} mutators: {} of {limit} bytes are in use",
                in_use(&heap)
            );
        }
    }
    // Only what other mutators keep is missing.
    for cache in &caches {
        heap.give_back_pages(cache);
    }
    while new_page(&heap, None).is_ok() {}
    assert_eq!(in_use(&heap), limit);
}

fn new_page(heap: &MHeap, cache: Option<&MCache>) -> Result<u32, OutOfPages> {
    heap.new_span(heap.fixed_class(SizeClass(0)), 1, 1, Holder::Nobody, cache)
}

#[test]
fn what_is_in_page_caches_is_within_the_hard_limit() {
    for groups in [1, 3, 8] {
        for more in [0, 3, 40] {
            for mutators in [1, 2, 7, 20] {
                let pages = groups * PageCache::GROUP as usize + more;
                fill(pages * PAGE_SIZE, mutators);
            }
        }
    }
}
