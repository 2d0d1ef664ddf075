//! The page heap against a plain list of page states that is searched page by page.

use super::idle::{DENSE, GROUP_PAGES};
use super::{CHUNK_PAGES, Effort, MAX_PAGES, PageHeap, PageId, PageRun};
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
    /// Takes idle pages out, at most so many.
    TakeIdle(u32, Effort),
    /// Puts one of the runs taken out back; the second number says whether the system has refused it.
    PutBack(u32, u32),
}

/// What a page of the model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Released,
    Used,
    Leaving,
}

impl State {
    fn is_free(self) -> bool {
        matches!(self, Self::Idle | Self::Released)
    }
}

/// The heap beside a model of it.
struct Pair {
    heap: PageHeap,
    grain: u32,
    /// One entry for each page.
    pages: Vec<State>,
    /// For each chunk, whether the system has refused some of it and nothing was freed there since.
    refused: Vec<bool>,
    runs: Vec<(u32, u32)>,
    caches: Vec<PageCache>,
    leaving: Vec<(u32, u32)>,
}

impl Pair {
    fn new(capacity: u32, grain: u32) -> Self {
        Self {
            heap: PageHeap::new(capacity, grain),
            grain,
            pages: Vec::new(),
            refused: vec![false; capacity.div_ceil(CHUNK_PAGES) as usize],
            runs: Vec::new(),
            caches: Vec::new(),
            leaving: Vec::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Alloc { pages, align_pages } => self.alloc(pages, align_pages),
            Op::Free(which) if !self.runs.is_empty() => {
                let (at, pages) = self.runs.swap_remove(which as usize % self.runs.len());
                self.set(at, pages, State::Idle);
                self.heap.free(PageId(at), pages);
            }
            Op::FreePart(which) if !self.runs.is_empty() => {
                let which = which as usize % self.runs.len();
                let (at, pages) = self.runs[which];
                if pages > 1 {
                    let keep = pages / 2;
                    self.runs[which] = (at, keep);
                    self.set(at + keep, pages - keep, State::Idle);
                    self.heap.free(PageId(at + keep), pages - keep);
                }
            }
            Op::Grow(pages) => {
                let pages = pages.min(self.heap.capacity() - self.heap.top().0);
                self.heap.grow(pages);
                let at = self.pages.len() as u32;
                self.pages.resize((at + pages) as usize, State::Released);
                self.set(at, pages, State::Released);
            }
            Op::TakeCache => self.take_cache(),
            Op::CacheAlloc { cache, pages } if !self.caches.is_empty() => {
                let cache = cache as usize % self.caches.len();
                self.alloc_from(cache, pages);
            }
            Op::GiveCache(which) if !self.caches.is_empty() => {
                let cache = self.caches.swap_remove(which as usize % self.caches.len());
                for page in pages_of(cache.base, cache.free) {
                    self.set(page, 1, State::Idle);
                }
                for page in pages_of(cache.base, cache.released) {
                    self.set(page, 1, State::Released);
                }
                self.heap.give_cache(cache);
            }
            Op::TakeIdle(most, effort) => self.take_idle(most, effort),
            Op::PutBack(which, refused) if !self.leaving.is_empty() => {
                let (at, pages) = self
                    .leaving
                    .swap_remove(which as usize % self.leaving.len());
                if refused % 8 == 0 {
                    self.set(at, pages, State::Idle);
                    self.heap.cancel_release(PageId(at), pages);
                    self.refused[(at / CHUNK_PAGES) as usize] = true;
                } else {
                    self.set(at, pages, State::Released);
                    self.heap.finish_release(PageId(at), pages);
                }
            }
            Op::Free(_)
            | Op::FreePart(_)
            | Op::CacheAlloc { .. }
            | Op::GiveCache(_)
            | Op::PutBack(..) => {}
        }
        assert_eq!(self.heap.top().0 as usize, self.pages.len());
    }

    fn set(&mut self, at: u32, pages: u32, state: State) {
        self.pages[at as usize..][..pages as usize].fill(state);
        if state.is_free() && pages > 0 {
            let (first, last) = (at / CHUNK_PAGES, (at + pages - 1) / CHUNK_PAGES);
            self.refused[first as usize..=last as usize].fill(false);
        }
    }

    /// How many of some pages are in the given state.
    fn count(&self, at: u32, pages: u32, state: State) -> u32 {
        let pages = &self.pages[at as usize..][..pages as usize];
        pages.iter().filter(|&&page| page == state).count() as u32
    }

    /// The lowest aligned start of free pages, by looking at every page.
    fn first_fit(&self, pages: u32, align_pages: u32) -> Option<u32> {
        let mut start = 0;
        for (page, state) in self.pages.iter().enumerate() {
            let page = page as u32;
            if !state.is_free() {
                start = (page + 1).next_multiple_of(align_pages);
            } else if page + 1 >= start + pages {
                return Some(start);
            }
        }
        None
    }

    fn alloc(&mut self, pages: u32, align_pages: u32) {
        let expected = self.first_fit(pages, align_pages).map(|at| {
            let released = self.count(at, pages, State::Released);
            PageRun::new(at, pages, released)
        });
        let got = self.heap.alloc(pages, align_pages);
        assert_eq!(got, expected, "alloc of {pages} at {align_pages}");
        if let Some(run) = got {
            self.set(run.at.0, pages, State::Used);
            self.runs.push((run.at.0, pages));
        }
    }

    /// The run that should leave, by looking at every page of every group from the top.
    fn next_to_leave(&self, most: u32, effort: Effort) -> Option<(u32, u32)> {
        let most = most.max(1).next_multiple_of(self.grain);
        let dense = match effort {
            Effort::Gentle => DENSE,
            Effort::Forced => GROUP_PAGES + 1,
        };
        // The groups of each preference: so many pages used at most, so many pages taken at most.
        let sparse = DENSE.min(dense);
        for (fewer_than, most) in [(1, GROUP_PAGES), (sparse, most), (dense, most)] {
            let groups = (self.pages.len() as u32).div_ceil(GROUP_PAGES);
            for base in (0..groups).rev().map(|group| group * GROUP_PAGES) {
                let state = |page: u32| self.pages.get(page as usize).copied();
                let group = base..base + GROUP_PAGES;
                let free = |&page: &u32| state(page).is_some_and(State::is_free);
                let used = GROUP_PAGES - group.clone().filter(free).count() as u32;
                if used >= fewer_than || self.refused[(base / CHUNK_PAGES) as usize] {
                    continue;
                }
                let is_idle = |grain: u32| {
                    (grain..grain + self.grain).all(|page| state(page) == Some(State::Idle))
                };
                let mut grains = group.step_by(self.grain as usize).rev();
                if let Some(last) = grains.find(|&grain| is_idle(grain)) {
                    let more = grains.take_while(|&grain| is_idle(grain)).count() as u32;
                    let pages = ((more + 1) * self.grain).min(most);
                    return Some((last + self.grain - pages, pages));
                }
            }
        }
        None
    }

    fn take_idle(&mut self, most: u32, effort: Effort) {
        let expected = self.next_to_leave(most, effort);
        let got = self.heap.take_idle(most, effort);
        let got = got.map(|(at, pages)| (at.0, pages));
        assert_eq!(got, expected, "{most} idle pages, {effort:?}");
        if let Some((at, pages)) = got {
            self.set(at, pages, State::Leaving);
            self.leaving.push((at, pages));
        }
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
            let state = self.pages.get(page as usize).copied();
            let free = state.is_some_and(State::is_free);
            assert_eq!(cache.free & bit != 0, free, "page {page}");
            let released = state == Some(State::Released);
            assert_eq!(cache.released & bit != 0, released, "page {page}");
        }
        for page in pages_of(cache.base, cache.free) {
            self.set(page, 1, State::Used);
        }
        self.caches.push(cache);
    }

    fn alloc_from(&mut self, cache: usize, pages: u32) {
        let cache = &mut self.caches[cache];
        let (free, released) = (cache.free, cache.released);
        if let Some(run) = cache.alloc(pages) {
            let taken = ((1 << pages) - 1) << (run.at.0 - cache.base.0);
            assert_eq!((free & taken, cache.free), (taken, free & !taken));
            assert_eq!(run.released, (released & taken).count_ones());
            self.runs.push((run.at.0, run.pages));
        }
    }

    /// Compares everything there is to see.
    fn check(&self) {
        assert_eq!(self.heap.verify(), Ok(()));
        let mut from_runs = vec![false; self.pages.len()];
        for (at, pages) in self.heap.free_runs() {
            from_runs[at.0 as usize..][..pages as usize].fill(true);
        }
        let free: Vec<bool> = self.pages.iter().map(|page| page.is_free()).collect();
        assert_eq!(from_runs, free, "free_runs");
        let count = |state| self.count(0, self.pages.len() as u32, state);
        let released = count(State::Released);
        assert_eq!(self.heap.free_pages(), count(State::Idle) + released);
        assert_eq!(self.heap.released_pages(), released);
        assert_eq!(self.heap.leaving_pages(), count(State::Leaving));
        assert_eq!(self.heap.in_use_pages(), count(State::Used));
        for (page, &state) in self.pages.iter().enumerate() {
            let id = PageId(page as u32);
            assert_eq!(self.heap.is_free(id), state.is_free(), "page {page}");
            let leaving = state == State::Leaving;
            assert_eq!(self.heap.is_leaving(id), leaving, "page {page}");
        }
        assert!(!self.heap.is_free(self.heap.top()));
        assert!(!self.heap.is_leaving(self.heap.top()));
    }

    /// Lets everything idle leave; what was refused comes last, when it is freed once more.
    fn release_all(&mut self) {
        while !self.leaving.is_empty() {
            self.apply(Op::PutBack(0, 1));
        }
        self.refused.fill(false);
        for page in 0..self.pages.len() as u32 {
            if self.pages[page as usize] == State::Idle {
                self.heap.hint((page / CHUNK_PAGES) as usize);
            }
        }
        let mut left = u32::MAX;
        while left > 0 {
            self.apply(Op::TakeIdle(7, Effort::Forced));
            left = self.leaving.len() as u32;
            self.apply(Op::PutBack(0, 1));
        }
        self.check();
        if self.grain == 1 {
            let free = self.heap.free_pages();
            assert_eq!(self.heap.released_pages(), free, "all of it is gone");
        }
    }
}

fn pages_of(base: PageId, bits: u64) -> impl Iterator<Item = u32> {
    (0..64)
        .filter(move |bit| bits >> bit & 1 != 0)
        .map(move |bit| base.0 + bit)
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
        let mut pair = Pair::new(self.capacity, [1, 1, 2, 8][seed as usize % 4]);
        let ops = if cfg!(miri) { 50 } else { self.ops };
        for step in 0..ops {
            // The pressure to allocate swells and ebbs, so that the heap is at times full and at times empty.
            let pressure = 3 + 4 * (step / 500 % 3);
            let op = match random.below(24) {
                0 => Op::Grow(random.below(self.growth) * random.below(2)),
                1 => Op::TakeCache,
                2 => Op::GiveCache(random.below(u32::MAX)),
                3 | 4 => Op::CacheAlloc {
                    cache: random.below(u32::MAX),
                    pages: 1 + random.below(16),
                },
                5 => Op::FreePart(random.below(u32::MAX)),
                20 | 21 => Op::TakeIdle(
                    random.below(100),
                    random.of(&[Effort::Gentle, Effort::Forced]),
                ),
                22 | 23 => Op::PutBack(random.below(u32::MAX), random.below(u32::MAX)),
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
        pair.release_all();
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

/// Takes and gives back until nothing more is taken; the runs in order.
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
