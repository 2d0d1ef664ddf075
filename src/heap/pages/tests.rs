//! Tests of what the page heap promises, alone and against the model.

use super::hints::Effort;
use super::model::Mix;
use super::{CHUNK_PAGES, MAX_PAGES, PageHeap, PageId, PageRun};

#[test]
fn a_small_heap_agrees_with_the_model_after_every_operation() {
    let mix = Mix {
        capacity: 200,
        growth: 90,
        sizes: &[1, 2, 4, 16, 70],
        aligns: &[1, 1, 1, 2, 4, 16, 64, 128],
        ops: 20_000,
        check_every: 1,
    };
    for seed in 1..=4 {
        mix.run(seed);
    }
}

#[test]
fn a_heap_of_some_chunks_agrees_with_the_model() {
    let mix = Mix {
        capacity: 5 * CHUNK_PAGES - 37,
        growth: CHUNK_PAGES + 200,
        sizes: &[1, 1, 4, 16, 64, 65, 200, 511, 513, 1100],
        aligns: &[1, 1, 1, 1, 1, 2, 8, 32, 64, 256, 512, 1024],
        ops: 60_000,
        check_every: 16,
    };
    for seed in 11..=13 {
        mix.run(seed);
    }
}

#[test]
fn a_heap_of_three_levels_agrees_with_the_model() {
    let mix = Mix {
        capacity: 70 * CHUNK_PAGES + 3,
        growth: 20 * CHUNK_PAGES,
        sizes: &[1, 4, 16, 64, 1000, 5000, 9 * CHUNK_PAGES],
        aligns: &[1, 1, 1, 1, 4, 512, 4096],
        ops: 3_000,
        check_every: 50,
    };
    for seed in 21..=23 {
        mix.run(seed);
    }
}

#[test]
fn short_runs_in_a_crowded_heap_agree_with_the_model() {
    let mix = Mix {
        capacity: 3 * CHUNK_PAGES,
        growth: 3 * CHUNK_PAGES,
        sizes: &[1, 2, 4],
        aligns: &[1, 1, 1, 1, 1, 1, 2, 4],
        ops: 60_000,
        check_every: 64,
    };
    for seed in 31..=32 {
        mix.run(seed);
    }
}

/// Returns a heap in which exactly the given pages are free.
fn with_free(top: u32, free: &[(u32, u32)]) -> PageHeap {
    let mut heap = PageHeap::new(top, 1);
    heap.grow(top);
    heap.alloc(top, 1).unwrap();
    for &(at, pages) in free {
        heap.free(PageId(at), pages);
    }
    assert_eq!(heap.verify(), Ok(()));
    heap
}

fn start(run: Option<PageRun>) -> Option<u32> {
    run.map(|run| run.at.0)
}

#[test]
fn an_empty_heap_has_nothing() {
    let mut heap = PageHeap::new(MAX_PAGES, 1);
    assert_eq!(heap.verify(), Ok(()));
    assert_eq!(heap.alloc(1, 1), None);
    assert!(heap.take_cache().is_none());
    assert!(!heap.is_free(PageId(0)));
    assert_eq!((heap.top(), heap.capacity()), (PageId(0), MAX_PAGES));
    assert_eq!(heap.free_runs().count(), 0);
    assert_eq!(heap.metadata_bytes(), 0);
}

#[test]
fn runs_are_found_across_every_kind_of_boundary() {
    let top = 64 * CHUNK_PAGES;
    for boundary in [64, 512, 8 * 512, 16 * 512, 63 * 512] {
        for before in [1, 2, 63, 64] {
            for after in [1, 3, 64, 600] {
                let at = boundary - before;
                let pages = before + after;
                if at + pages > top {
                    continue;
                }
                let mut heap = with_free(top, &[(at, pages), (top - 1, 1)]);
                assert_eq!(heap.alloc(pages + 1, 1), None);
                assert_eq!(start(heap.alloc(pages, 1)), Some(at), "{before} + {after}");
                assert_eq!(heap.verify(), Ok(()));
                assert_eq!(start(heap.alloc(1, 1)), Some(top - 1));
                assert_eq!(heap.alloc(1, 1), None);
            }
        }
    }
}

#[test]
fn the_lowest_fit_wins_over_a_better_one() {
    let mut heap = with_free(2000, &[(10, 3), (500, 30), (700, 4), (1900, 100)]);
    assert_eq!(start(heap.alloc(4, 1)), Some(500));
    assert_eq!(start(heap.alloc(31, 1)), Some(1900));
    assert_eq!(start(heap.alloc(3, 1)), Some(10));
    assert_eq!(start(heap.alloc(3, 1)), Some(504));
}

#[test]
fn an_aligned_run_skips_runs_that_lie_badly() {
    let mut heap = with_free(8192, &[(1, 7), (65, 70), (1000, 600), (2500, 5000)]);
    assert_eq!(start(heap.alloc(8, 8)), Some(72));
    assert_eq!(start(heap.alloc(65, 64)), Some(1024));
    assert_eq!(start(heap.alloc(4, 4)), Some(4));
    assert_eq!(start(heap.alloc(1, 2048)), Some(4096));
    assert_eq!(start(heap.alloc(4096, 4096)), None);
    assert_eq!(heap.verify(), Ok(()));
}

#[test]
fn pages_that_were_never_touched_count_as_released() {
    let mut heap = PageHeap::new(1000, 1);
    heap.grow(300);
    let got = |run: Option<PageRun>| run.map(|run| (run.at.0, run.released));
    assert_eq!(got(heap.alloc(10, 1)), Some((0, 10)));
    assert_eq!(got(heap.alloc(10, 1)), Some((10, 10)));
    heap.free(PageId(10), 10);
    assert_eq!(got(heap.alloc(4, 1)), Some((10, 0)));
    let seven = heap.alloc(7, 1).expect("room");
    assert_eq!((seven.at.0, seven.released), (14, 1));
    assert!(seven.needs_zero, "six pages were used before");
    let rest = heap.alloc(279, 1).expect("room");
    assert_eq!((rest.at.0, rest.released), (21, 279));
    assert_eq!(rest.needs_zero, !crate::sys::mem::RELEASED_READS_ZERO);
    heap.grow(100);
    assert_eq!(got(heap.alloc(100, 1)), Some((300, 100)));
    heap.grow(100);
    let mut cache = heap.take_cache().unwrap();
    assert_eq!((cache.base, cache.free_pages()), (PageId(384), 48));
    assert_eq!(cache.released, cache.free);
    assert_eq!(got(cache.alloc(16)), Some((400, 16)));
    heap.give_cache(cache);
    assert_eq!(
        got(heap.alloc(1, 1)),
        Some((416, 1)),
        "a cache touches nothing"
    );
    assert_eq!(heap.verify(), Ok(()));
}

/// Takes and gives back until nothing more is taken. Returns the runs in order.
fn leave(heap: &mut PageHeap, most: u32, effort: Effort) -> Vec<(u32, u32)> {
    let mut runs = Vec::new();
    while let Some((at, pages)) = heap.take_idle(most, effort) {
        assert_eq!(heap.verify(), Ok(()));
        heap.finish_release(at, pages);
        runs.push((at.0, pages));
    }
    assert_eq!(heap.verify(), Ok(()));
    runs
}

#[test]
fn whole_groups_leave_first_then_the_highest_pages() {
    let free = [(300, 10), (512, 256), (770, 100), (1024, 300), (1600, 3)];
    let mut heap = with_free(2048, &free);
    let runs = leave(&mut heap, 64, Effort::Gentle);
    let expected = [
        (1024, 256), // whole
        (512, 256),
        (1280, 44), // from the top, 64 at a time
        (806, 64),
        (770, 36),
        (300, 10),
    ];
    assert_eq!(runs, expected, "a group with three free pages is left");
    assert_eq!(leave(&mut heap, 64, Effort::Forced), [(1600, 3)]);
    assert_eq!(heap.released_pages(), heap.free_pages());
    let run = heap.alloc(300, 1).unwrap();
    assert_eq!((run.at.0, run.released), (1024, 300));
    heap.free(run.at, 300);
    assert_eq!(
        leave(&mut heap, 300, Effort::Gentle),
        [(1024, 256), (1280, 44)]
    );
}

#[test]
fn what_was_left_in_a_dense_group_leaves_when_more_of_it_is_free() {
    let mut heap = with_free(1024, &[(100, 8)]);
    assert_eq!(leave(&mut heap, 64, Effort::Gentle), []);
    heap.free(PageId(200), 1);
    assert_eq!(leave(&mut heap, 64, Effort::Gentle), [(200, 1), (100, 8)]);
}

#[test]
fn what_the_system_refuses_is_not_offered_again_until_more_is_free_there() {
    let mut heap = with_free(1024, &[(10, 20), (900, 20)]);
    let refused = heap.take_idle(64, Effort::Forced);
    assert_eq!(refused, Some((PageId(900), 20)));
    assert_eq!(start(heap.alloc(20, 1)), Some(10), "leaving is not free");
    heap.free(PageId(10), 20);
    heap.cancel_release(PageId(900), 20);
    assert_eq!(leave(&mut heap, 64, Effort::Forced), [(10, 20)]);
    assert_eq!(heap.free_pages() - heap.released_pages(), 20);
    heap.free(PageId(600), 1);
    assert_eq!(leave(&mut heap, 64, Effort::Forced), [(900, 20), (600, 1)]);
}

#[test]
fn a_large_page_of_the_system_leaves_only_when_all_of_it_is_free() {
    let mut heap = PageHeap::new(512, 8);
    heap.grow(512);
    heap.alloc(512, 1).unwrap();
    for (at, pages) in [(3, 7), (17, 30), (100, 4)] {
        heap.free(PageId(at), pages);
    }
    assert_eq!(leave(&mut heap, 1, Effort::Forced), [(32, 8), (24, 8)]);
    assert_eq!(heap.released_pages(), 16);
}

#[test]
fn a_cache_takes_exactly_one_group_and_gives_back_the_rest() {
    let mut heap = with_free(4096, &[(200, 3), (210, 100), (400, 1)]);
    let mut cache = heap.take_cache().unwrap();
    assert_eq!((cache.base, cache.free_pages()), (PageId(192), 3 + 46));
    assert_eq!(cache.released, 0);
    assert_eq!(start(cache.alloc(4)), Some(210));
    assert_eq!(start(cache.alloc(2)), Some(200));
    // A page that was allocated from a cache is freed while the cache is still out.
    heap.free(PageId(200), 2);
    assert_eq!(heap.verify(), Ok(()));
    let second = heap.take_cache().unwrap();
    assert_eq!((second.base, second.free_pages()), (PageId(192), 2));
    heap.give_cache(cache);
    heap.give_cache(second);
    assert_eq!(heap.verify(), Ok(()));
    let runs: Vec<_> = heap.free_runs().map(|(at, pages)| (at.0, pages)).collect();
    assert_eq!(runs, [(200, 3), (214, 96), (400, 1)]);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "a page is freed twice")]
fn a_double_free_is_seen() {
    let mut heap = with_free(100, &[(40, 2)]);
    heap.free(PageId(38), 3);
}

#[test]
#[cfg(not(miri))] // Too many chunks to interpret.
fn the_largest_heap_works_and_is_small_before_it_grows() {
    let mut heap = PageHeap::new(MAX_PAGES, 1);
    heap.grow(1);
    assert!(heap.metadata_bytes() < 2048);
    heap.grow(MAX_PAGES - 1);
    assert_eq!(heap.verify(), Ok(()));
    assert_eq!(heap.alloc(MAX_PAGES + 1, 1), None);
    assert_eq!(heap.alloc(u32::MAX, 1), None);
    assert_eq!(start(heap.alloc(MAX_PAGES, MAX_PAGES)), Some(0));
    assert_eq!(heap.free_pages(), 0);
    heap.free(PageId(MAX_PAGES - 3), 2);
    assert_eq!(heap.alloc(1, 4), None);
    assert_eq!(start(heap.alloc(2, 1)), Some(MAX_PAGES - 3));
    heap.free(PageId(0), MAX_PAGES);
    assert_eq!(heap.verify(), Ok(()));
    assert_eq!(
        heap.free_runs().collect::<Vec<_>>(),
        [(PageId(0), MAX_PAGES)]
    );
}
