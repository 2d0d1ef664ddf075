//! The page allocator against a plain list of page states: first fit, alignment, the summary tree,
//! and what may go back to the system.

#![no_main]

use arbitrary::Arbitrary;
use greywave::internals::PageAllocator;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Op {
    Grow(u16),
    /// Pages, log2 of the alignment.
    Alloc(u16, u8),
    /// Frees one of the live runs.
    Free(u16),
    /// Takes idle pages out, at most so many; forced or not.
    TakeIdle(u8, bool),
    /// Puts one of the runs taken out back; released or refused.
    PutBack(u16, bool),
    Verify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Idle,
    Released,
    Used,
    Leaving,
}

const CAPACITY: u32 = 1 << 14;
/// The pages of a huge page, and how many in use make it dense.
const GROUP: usize = 256;
const DENSE: usize = 248;

/// The allocator beside its model.
struct Pair {
    heap: PageAllocator,
    pages: Vec<Page>,
    live: Vec<(u32, u32)>,
    leaving: Vec<(u32, u32)>,
}

impl Pair {
    fn is_free(&self, page: usize) -> bool {
        matches!(self.pages[page], Page::Idle | Page::Released)
    }

    /// The lowest aligned place for `pages` free pages.
    fn first_fit(&self, pages: usize, align: usize) -> Option<usize> {
        (0..self.pages.len()).step_by(align).find(|&at| {
            at + pages <= self.pages.len() && (at..at + pages).all(|page| self.is_free(page))
        })
    }

    fn count(&self, wanted: Page) -> u32 {
        self.pages.iter().filter(|&&page| page == wanted).count() as u32
    }

    fn set(&mut self, (at, pages): (u32, u32), state: Page) {
        self.pages[at as usize..(at + pages) as usize].fill(state);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Grow(pages) => {
                let pages = u32::from(pages).min(CAPACITY - self.pages.len() as u32);
                if pages > 0 {
                    self.heap.grow(pages);
                    let top = self.pages.len() + pages as usize;
                    self.pages.resize(top, Page::Released);
                }
            }
            Op::Alloc(pages, align) => self.alloc(u32::from(pages % 1500) + 1, 1 << (align % 10)),
            Op::Free(which) if !self.live.is_empty() => {
                let run = self.live.swap_remove(usize::from(which) % self.live.len());
                self.heap.free(run.0, run.1);
                self.set(run, Page::Idle);
            }
            Op::TakeIdle(most, forced) => self.take_idle(u32::from(most), forced),
            Op::PutBack(which, released) if !self.leaving.is_empty() => {
                let which = usize::from(which) % self.leaving.len();
                let run = self.leaving.swap_remove(which);
                self.heap.put_back(run.0, run.1, released);
                self.set(run, if released { Page::Released } else { Page::Idle });
            }
            Op::Verify => self.heap.verify().expect("summary and bitmap agree"),
            Op::Free(_) | Op::PutBack(..) => {}
        }
    }

    fn alloc(&mut self, pages: u32, align: u32) {
        let want = self.first_fit(pages as usize, align as usize);
        let want = want.map(|at| {
            let run = &self.pages[at..at + pages as usize];
            let released = run.iter().filter(|&&page| page == Page::Released).count();
            (at as u32, released as u32)
        });
        let got = self.heap.alloc(pages, align);
        assert_eq!(got, want, "{pages} pages at a multiple of {align}");
        if let Some((at, _)) = got {
            self.set((at, pages), Page::Used);
            self.live.push((at, pages));
        }
    }

    /// Which run it should be is the unit tests' question; here: that it may leave.
    fn take_idle(&mut self, most: u32, forced: bool) {
        let Some(run) = self.heap.take_idle(most, forced) else {
            return;
        };
        let (at, end) = (run.0 as usize, (run.0 + run.1) as usize);
        assert!(self.pages[at..end].iter().all(|&page| page == Page::Idle));
        assert_eq!(at / GROUP, (end - 1) / GROUP, "one huge page at a time");
        let group = at / GROUP * GROUP..(at / GROUP + 1) * GROUP;
        let used = group
            .filter(|&page| page >= self.pages.len() || !self.is_free(page))
            .count();
        assert!(used == 0 || run.1 <= most.max(1));
        assert!(forced || used < DENSE);
        self.set(run, Page::Leaving);
        self.leaving.push(run);
    }
}

fuzz_target!(|ops: Vec<Op>| {
    let mut pair = Pair {
        heap: PageAllocator::new(CAPACITY),
        pages: Vec::new(),
        live: Vec::new(),
        leaving: Vec::new(),
    };
    for op in ops {
        pair.apply(op);
    }
    pair.heap.verify().expect("summary and bitmap agree");
    let released = pair.count(Page::Released);
    assert_eq!(pair.heap.released_pages(), released);
    assert_eq!(pair.heap.free_pages(), pair.count(Page::Idle) + released);
});
