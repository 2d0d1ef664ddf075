//! The page allocator against a plain list of booleans: first fit, alignment, page caches, the summary tree.

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
    Verify,
}

const CAPACITY: u32 = 1 << 14;

/// The lowest aligned place for `pages` free pages.
fn first_fit(used: &[bool], pages: usize, align: usize) -> Option<usize> {
    (0..used.len())
        .step_by(align)
        .find(|&at| at + pages <= used.len() && used[at..at + pages].iter().all(|u| !u))
}

fuzz_target!(|ops: Vec<Op>| {
    let mut heap = PageAllocator::new(CAPACITY);
    let mut used: Vec<bool> = Vec::new();
    let mut live: Vec<(u32, u32)> = Vec::new();
    for op in ops {
        match op {
            Op::Grow(pages) => {
                let pages = u32::from(pages).min(CAPACITY - used.len() as u32);
                if pages > 0 {
                    heap.grow(pages);
                    used.resize(used.len() + pages as usize, false);
                }
            }
            Op::Alloc(pages, align) => {
                let (pages, align) = (u32::from(pages % 1500) + 1, 1_u32 << (align % 10));
                let want = first_fit(&used, pages as usize, align as usize);
                let got = heap.alloc(pages, align);
                assert_eq!(
                    got,
                    want.map(|at| at as u32),
                    "{pages} pages at a multiple of {align}"
                );
                if let Some(at) = got {
                    used[at as usize..(at + pages) as usize].fill(true);
                    live.push((at, pages));
                }
            }
            Op::Free(which) => {
                if !live.is_empty() {
                    let (at, pages) = live.swap_remove(usize::from(which) % live.len());
                    heap.free(at, pages);
                    used[at as usize..(at + pages) as usize].fill(false);
                }
            }
            Op::Verify => heap.verify().expect("summary and bitmap agree"),
        }
    }
    heap.verify().expect("summary and bitmap agree");
    assert_eq!(
        heap.free_pages() as usize,
        used.iter().filter(|u| !**u).count()
    );
});
