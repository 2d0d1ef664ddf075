//! The page heap against a plain list of page states that is searched page by page.

use super::{CHUNK_PAGES, MAX_PAGES, PageHeap, PageId, PageRun};
use crate::heap::page_cache::PageCache;

/// Says with which seed a failed test can be repeated, also when an assertion inside the heap fails.
struct Seed(u64);

impl Drop for Seed {
    #[expect(
        clippy::print_stderr,
        reason = "a failed test has nowhere else to say it"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {:#x}", self.0);
        }
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        ((high * u64::from(bound)) >> 32) as u32
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }
}

/// One thing to do. A number that may be out of range is taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Op {
    Alloc {
        pages: u32,
        align_pages: u32,
    },
    /// Frees one allocated run.
    Free(u32),
    /// Frees only the upper part of a run that is longer than one page.
    FreePart(u32),
    Grow(u32),
    TakeCache,
    CacheAlloc {
        cache: u32,
        pages: u32,
    },
    GiveCache(u32),
}

/// The heap beside a model of it.
struct Pair {
    heap: PageHeap,
    /// One entry for each page: whether it is free.
    free: Vec<bool>,
    /// One past the highest page ever handed out.
    high: u32,
    runs: Vec<PageRun>,
    caches: Vec<PageCache>,
}

impl Pair {
    fn new(capacity: u32) -> Self {
        Self {
            heap: PageHeap::new(capacity),
            free: Vec::new(),
            high: 0,
            runs: Vec::new(),
            caches: Vec::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Alloc { pages, align_pages } => self.alloc(pages, align_pages),
            Op::Free(which) if !self.runs.is_empty() => {
                let run = self.runs.swap_remove(which as usize % self.runs.len());
                self.release(run);
            }
            Op::FreePart(which) if !self.runs.is_empty() => {
                let which = which as usize % self.runs.len();
                let run = &mut self.runs[which];
                if run.pages > 1 {
                    let keep = run.pages / 2;
                    let upper = PageRun {
                        at: PageId(run.at.0 + keep),
                        pages: run.pages - keep,
                        needs_zero: true,
                    };
                    run.pages = keep;
                    self.release(upper);
                }
            }
            Op::Grow(pages) => {
                let pages = pages.min(self.heap.capacity() - self.heap.top().0);
                self.heap.grow(pages);
                self.free.resize(self.free.len() + pages as usize, true);
            }
            Op::TakeCache => self.take_cache(),
            Op::CacheAlloc { cache, pages } if !self.caches.is_empty() => {
                let cache = cache as usize % self.caches.len();
                self.alloc_from(cache, pages);
            }
            Op::GiveCache(which) if !self.caches.is_empty() => {
                let cache = self.caches.swap_remove(which as usize % self.caches.len());
                for page in pages_of(&cache) {
                    self.free[page as usize] = true;
                }
                self.heap.give_cache(cache);
            }
            Op::Free(_) | Op::FreePart(_) | Op::CacheAlloc { .. } | Op::GiveCache(_) => {}
        }
        assert_eq!(self.heap.top().0 as usize, self.free.len());
    }

    /// The lowest aligned start of free pages, by looking at every page.
    fn first_fit(&self, pages: u32, align_pages: u32) -> Option<u32> {
        let mut start = 0;
        for (page, &free) in self.free.iter().enumerate() {
            let page = page as u32;
            if !free {
                start = (page + 1).next_multiple_of(align_pages);
            } else if page + 1 >= start + pages {
                return Some(start);
            }
        }
        None
    }

    fn alloc(&mut self, pages: u32, align_pages: u32) {
        let expected = self.first_fit(pages, align_pages).map(|at| PageRun {
            at: PageId(at),
            pages,
            needs_zero: at < self.high,
        });
        let got = self.heap.alloc(pages, align_pages);
        assert_eq!(got, expected, "alloc of {pages} at {align_pages}");
        if let Some(run) = got {
            self.free[run.at.0 as usize..][..pages as usize].fill(false);
            self.high = self.high.max(run.at.0 + pages);
            self.runs.push(run);
        }
    }

    fn release(&mut self, run: PageRun) {
        self.free[run.at.0 as usize..][..run.pages as usize].fill(true);
        self.heap.free(run.at, run.pages);
    }

    fn take_cache(&mut self) {
        let Some(first) = self.first_fit(1, 1) else {
            assert!(self.heap.take_cache().is_none(), "pages out of nowhere");
            return;
        };
        let base = first / 64 * 64;
        let cache = self.heap.take_cache().expect("a page is free");
        assert_eq!(cache.base, PageId(base));
        for page in base..base + 64 {
            let bit = 1 << (page - base);
            let free = self.free.get(page as usize).is_some_and(|&free| free);
            assert_eq!(cache.free & bit != 0, free, "page {page}");
            assert_eq!(
                cache.fresh & bit != 0,
                free && page >= self.high,
                "page {page}"
            );
        }
        for page in pages_of(&cache) {
            self.free[page as usize] = false;
            self.high = self.high.max(page + 1);
        }
        self.caches.push(cache);
    }

    fn alloc_from(&mut self, cache: usize, pages: u32) {
        let cache = &mut self.caches[cache];
        let (free, fresh) = (cache.free, cache.fresh);
        if let Some(run) = cache.alloc(pages) {
            let taken = ((1 << pages) - 1) << (run.at.0 - cache.base.0);
            assert_eq!((free & taken, cache.free), (taken, free & !taken));
            assert_eq!(run.needs_zero, fresh & taken != taken);
            self.runs.push(run);
        }
    }

    /// Compares everything there is to see.
    fn check(&self) {
        assert_eq!(self.heap.verify(), Ok(()));
        let mut from_runs = vec![false; self.free.len()];
        for (at, pages) in self.heap.free_runs() {
            from_runs[at.0 as usize..][..pages as usize].fill(true);
        }
        assert_eq!(from_runs, self.free, "free_runs");
        let free = self.free.iter().filter(|&&free| free).count() as u32;
        assert_eq!(self.heap.free_pages(), free);
        assert_eq!(self.heap.in_use_pages(), self.free.len() as u32 - free);
        for (page, &free) in self.free.iter().enumerate() {
            assert_eq!(self.heap.is_free(PageId(page as u32)), free, "page {page}");
        }
        assert!(!self.heap.is_free(self.heap.top()));
    }
}

fn pages_of(cache: &PageCache) -> impl Iterator<Item = u32> {
    let (base, free) = (cache.base.0, cache.free);
    (0..64)
        .filter(move |bit| free >> bit & 1 != 0)
        .map(move |bit| base + bit)
}

/// What a random run does.
struct Mix {
    capacity: u32,
    /// How far one growth goes at most.
    growth: u32,
    sizes: &'static [u32],
    aligns: &'static [u32],
    ops: u32,
    /// Everything is compared after every so many operations.
    check_every: u32,
}

impl Mix {
    fn run(&self, seed: u64) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let mut pair = Pair::new(self.capacity);
        let ops = if cfg!(miri) { 50 } else { self.ops };
        for step in 0..ops {
            // The pressure to allocate swells and ebbs, so that the heap is at times full and at times empty.
            let pressure = 3 + 4 * (step / 500 % 3);
            let op = match random.below(20) {
                0 => Op::Grow(random.below(self.growth) * random.below(2)),
                1 => Op::TakeCache,
                2 => Op::GiveCache(random.below(u32::MAX)),
                3 | 4 => Op::CacheAlloc {
                    cache: random.below(u32::MAX),
                    pages: 1 + random.below(16),
                },
                5 => Op::FreePart(random.below(u32::MAX)),
                draw if draw < 6 + pressure => {
                    let longest = random.of(self.sizes);
                    Op::Alloc {
                        pages: 1 + random.below(longest),
                        align_pages: random.of(self.aligns),
                    }
                }
                _ => Op::Free(random.below(u32::MAX)),
            };
            pair.apply(op);
            if step % self.check_every == 0 {
                pair.check();
            }
        }
        pair.check();
    }
}

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

/// A heap in which exactly the given pages are free.
fn with_free(top: u32, free: &[(u32, u32)]) -> PageHeap {
    let mut heap = PageHeap::new(top);
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
    let mut heap = PageHeap::new(MAX_PAGES);
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
fn pages_are_fresh_only_once() {
    let mut heap = PageHeap::new(1000);
    heap.grow(300);
    let fresh = |run: Option<PageRun>| run.map(|run| (run.at.0, !run.needs_zero));
    assert_eq!(fresh(heap.alloc(10, 1)), Some((0, true)));
    assert_eq!(fresh(heap.alloc(10, 1)), Some((10, true)));
    heap.free(PageId(10), 10);
    assert_eq!(fresh(heap.alloc(4, 1)), Some((10, false)));
    assert_eq!(
        fresh(heap.alloc(7, 1)),
        Some((14, false)),
        "one page is fresh, six are not"
    );
    assert_eq!(fresh(heap.alloc(279, 1)), Some((21, true)));
    heap.grow(100);
    assert_eq!(fresh(heap.alloc(100, 1)), Some((300, true)));
    heap.grow(100);
    let mut cache = heap.take_cache().unwrap();
    assert_eq!((cache.base, cache.free_pages()), (PageId(384), 48));
    assert_eq!(cache.fresh, cache.free);
    assert_eq!(fresh(cache.alloc(16)), Some((400, true)));
    heap.give_cache(cache);
    assert_eq!(
        fresh(heap.alloc(1, 1)),
        Some((416, false)),
        "it may have been written"
    );
    assert_eq!(heap.verify(), Ok(()));
}

#[test]
fn a_cache_takes_exactly_one_group_and_gives_back_the_rest() {
    let mut heap = with_free(4096, &[(200, 3), (210, 100), (400, 1)]);
    let mut cache = heap.take_cache().unwrap();
    assert_eq!((cache.base, cache.free_pages()), (PageId(192), 3 + 46));
    assert_eq!(cache.fresh, 0);
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
    let mut heap = PageHeap::new(MAX_PAGES);
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
