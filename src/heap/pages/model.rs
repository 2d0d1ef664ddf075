//! A model of the page heap: a plain list of page states that is searched page by page.

use super::hints::{DENSE, Effort, GROUP_PAGES};
use super::{CHUNK_PAGES, PageHeap, PageId, PageRun};
use crate::heap::page_cache::PageCache;

/// Says which seed repeats a failed test, even if an assertion inside the heap fails.
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

/// One operation. A number that may be out of range is taken modulo the number of choices.
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
    /// Takes idle pages out, at most this many.
    TakeIdle(u32, Effort),
    /// Puts one of the runs taken out back. The second number says whether the system has refused
    /// it.
    PutBack(u32, u32),
}

/// The state of a page of the model.
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

/// The heap, and a model of it.
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

    /// Returns how many of some pages are in the given state.
    fn count(&self, at: u32, pages: u32, state: State) -> u32 {
        let pages = &self.pages[at as usize..][..pages as usize];
        pages.iter().filter(|&&page| page == state).count() as u32
    }

    /// Returns the lowest aligned start of free pages, by looking at every page.
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

    /// Returns the run that should leave, by looking at every page of every group from the top.
    fn next_to_leave(&self, most: u32, effort: Effort) -> Option<(u32, u32)> {
        let most = most.max(1).next_multiple_of(self.grain);
        let dense = match effort {
            Effort::Gentle => DENSE,
            Effort::Forced => GROUP_PAGES + 1,
        };
        // For each preference: the pages in use must be fewer than the first number, and at most as
        // many pages as the second are taken.
        let sparse = DENSE.min(dense);
        for (fewer_than, most) in [(1, GROUP_PAGES), (sparse, most), (dense, most)] {
            let groups = (self.pages.len() as u32).div_ceil(GROUP_PAGES);
            for base in (0..groups).rev().map(|group| group * GROUP_PAGES) {
                let end = self.pages.len().min((base + GROUP_PAGES) as usize);
                if !self.pages[base as usize..end].contains(&State::Idle) {
                    continue;
                }
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

    /// Compares everything that can be seen.
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

    /// Lets every idle page leave. What was refused comes last, when it is freed once more.
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
            self.apply(Op::TakeIdle(41, Effort::Forced));
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

/// The parameters of a random run.
pub(super) struct Mix {
    pub(super) capacity: u32,
    /// The largest single growth.
    pub(super) growth: u32,
    pub(super) sizes: &'static [u32],
    pub(super) aligns: &'static [u32],
    pub(super) ops: u32,
    /// Everything is compared each time this many operations are done.
    pub(super) check_every: u32,
}

impl Mix {
    pub(super) fn run(&self, seed: u64) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let mut pair = Pair::new(self.capacity, [1, 1, 2, 8][seed as usize % 4]);
        let ops = if cfg!(miri) { 50 } else { self.ops };
        for step in 0..ops {
            // The pressure to allocate rises and falls, so that the heap is full at some times and
            // empty at others.
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
