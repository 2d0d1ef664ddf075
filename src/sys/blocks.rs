//! Blocks of 4 KiB, aligned to their size, which are taken and given back one by one.
//!
//! **Claim.** The memory that a burst of blocks has used goes back to the OS.
//!
//! **Why not malloc.** malloc aligns each block by leaving a gap beside it: when roots lived there,
//! a root slot took 40 bytes instead of 16. And malloc gives back only what lies at the top of its
//! heap, so one block that stays keeps all those below it.
//!
//! **How.** The pool maps chunks, and cuts the blocks from them, the lowest address first. A free
//! block keeps its memory as long as only a few do ([`KEPT`]); otherwise its page goes back at
//! once. If a chunk is entirely free and another has room, the pool unmaps the free one. One pool
//! serves all heaps, because a block may outlive its heap, and so that many small heaps share a few
//! chunks.
//!
//! On a system without mappings (in models, under Miri, outside Unix) each block is an allocation
//! of its own, so that leaks and uses after free are found there.

use std::ptr::NonNull;

/// The size and the alignment of a block, in bytes.
pub(crate) const BLOCK: usize = 4096;

/// Takes a fresh block. Its content is undefined.
pub(crate) fn take() -> Option<NonNull<u8>> {
    pool::take()
}

/// Gives a block back.
///
/// # Safety
/// 1. The block came from [`take`], and nobody uses it any more.
pub(crate) unsafe fn give(block: NonNull<u8>) {
    // SAFETY: clause 1.
    unsafe { pool::give(block) }
}

#[cfg(any(loom, shuttle, miri, not(unix)))]
mod pool {
    use std::alloc::Layout;
    #[cfg(not(loom))]
    use std::alloc::{alloc, dealloc};
    use std::ptr::NonNull;

    #[cfg(loom)]
    use loom::alloc::{alloc, dealloc};

    const LAYOUT: Layout = match Layout::from_size_align(super::BLOCK, super::BLOCK) {
        Ok(layout) => layout,
        Err(_) => Layout::new::<[u8; super::BLOCK]>(),
    };

    pub(super) fn take() -> Option<NonNull<u8>> {
        // SAFETY: the size is not zero.
        NonNull::new(unsafe { alloc(LAYOUT) })
    }

    /// # Safety
    /// 1. As [`give`](super::give).
    pub(super) unsafe fn give(block: NonNull<u8>) {
        // SAFETY: clause 1: `take` allocated it with this layout.
        unsafe { dealloc(block.as_ptr(), LAYOUT) }
    }
}

#[cfg(not(any(loom, shuttle, miri, not(unix))))]
mod pool {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ptr::NonNull;

    use super::BLOCK;
    use crate::sys::fatal::fatal;
    use crate::sys::lock::{Rank, Ranked};
    use crate::sys::mem::release_pages;
    use crate::sys::space::Space;

    /// The blocks in a chunk.
    pub(super) const BLOCKS: usize = 256;
    const CHUNK: usize = BLOCKS * BLOCK;
    /// How many free blocks keep their memory, in the whole process.
    pub(super) const KEPT: usize = 64;

    static POOL: Ranked<Pool> = Ranked::new(Rank::Blocks, Pool::new());

    pub(super) fn take() -> Option<NonNull<u8>> {
        POOL.lock().take()
    }

    /// # Safety
    /// 1. As [`give`](super::give).
    pub(super) unsafe fn give(block: NonNull<u8>) {
        POOL.lock().give(block.addr().get());
    }

    /// A set of a chunk's blocks.
    type Set = [u64; BLOCKS / 64];

    fn add(set: &mut Set, block: usize) {
        set[block / 64] |= 1 << (block % 64);
    }

    fn remove(set: &mut Set, block: usize) -> bool {
        let (word, bit) = (&mut set[block / 64], 1 << (block % 64));
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    fn first(set: &Set) -> Option<usize> {
        let word = set.iter().position(|&word| word != 0)?;
        Some(word * 64 + set[word].trailing_zeros() as usize)
    }

    #[derive(Debug)]
    struct Chunk {
        space: Space,
        free: Set,
        /// The free blocks that have memory behind them.
        kept: Set,
        free_blocks: usize,
    }

    impl Chunk {
        fn new() -> Option<Self> {
            let space = Space::whole(CHUNK + BLOCK).ok()?;
            Some(Self {
                space,
                free: [u64::MAX; BLOCKS / 64],
                kept: [0; BLOCKS / 64],
                free_blocks: BLOCKS,
            })
        }

        /// The address of the first block: the OS aligns to its own pages, which may be smaller.
        fn start(&self) -> *mut u8 {
            let at = self.space.start();
            at.wrapping_add(at.addr().next_multiple_of(BLOCK) - at.addr())
        }
    }

    /// All chunks, by the address of their first block.
    #[derive(Debug)]
    pub(super) struct Pool {
        chunks: BTreeMap<usize, Chunk>,
        with_room: BTreeSet<usize>,
        /// The number of free blocks with memory behind them, in all chunks.
        kept: usize,
    }

    impl Pool {
        pub(super) const fn new() -> Self {
            Self {
                chunks: BTreeMap::new(),
                with_room: BTreeSet::new(),
                kept: 0,
            }
        }

        pub(super) fn take(&mut self) -> Option<NonNull<u8>> {
            let at = match self.with_room.first() {
                Some(&at) => at,
                None => {
                    let chunk = Chunk::new()?;
                    let at = chunk.start().addr();
                    self.chunks.insert(at, chunk);
                    self.with_room.insert(at);
                    at
                }
            };
            let chunk = self.chunks.get_mut(&at)?;
            // A block that has memory comes first.
            let block = first(&chunk.kept).or_else(|| first(&chunk.free))?;
            remove(&mut chunk.free, block);
            self.kept -= usize::from(remove(&mut chunk.kept, block));
            chunk.free_blocks -= 1;
            if chunk.free_blocks == 0 {
                self.with_room.remove(&at);
            }
            NonNull::new(chunk.start().wrapping_add(block * BLOCK))
        }

        pub(super) fn give(&mut self, address: usize) {
            let Some((&at, chunk)) = self.chunks.range_mut(..=address).next_back() else {
                fatal("a block that is given back is in no chunk");
            };
            let block = (address - at) / BLOCK;
            debug_assert!(block < BLOCKS && address.is_multiple_of(BLOCK));
            add(&mut chunk.free, block);
            chunk.free_blocks += 1;
            self.with_room.insert(at);
            if chunk.free_blocks == BLOCKS && self.with_room.len() > 1 {
                self.kept -= chunk
                    .kept
                    .iter()
                    .map(|word| word.count_ones() as usize)
                    .sum::<usize>();
                self.with_room.remove(&at);
                // The chunk's mapping goes with it.
                self.chunks.remove(&at);
                return;
            }
            let start = chunk.start().wrapping_add(block * BLOCK);
            // SAFETY: 1. it is a free block of our mapping, and we hold the pool's lock.
            if self.kept < KEPT || !unsafe { release_pages(start, BLOCK) } {
                add(&mut chunk.kept, block);
                self.kept += 1;
            }
        }

        /// The number of chunks, of free blocks, and of free blocks with memory behind them.
        #[cfg(test)]
        pub(super) fn counts(&self) -> (usize, usize, usize) {
            let free = self.chunks.values().map(|chunk| chunk.free_blocks).sum();
            (self.chunks.len(), free, self.kept)
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle, miri, not(unix)))))]
mod tests {
    use super::pool::{BLOCKS, KEPT, Pool};
    use super::*;

    #[test]
    fn what_a_burst_has_taken_goes_back() {
        let mut pool = Pool::new();
        let count = 10 * BLOCKS;
        let mut blocks: Vec<_> = (0..count).map(|_| pool.take().expect("memory")).collect();
        assert_eq!(pool.counts(), (10, 0, 0));
        for (n, block) in blocks.iter().enumerate() {
            assert!(block.addr().get().is_multiple_of(BLOCK));
            // SAFETY: it was taken above, for us alone.
            unsafe { block.write_bytes(n as u8, BLOCK) };
        }
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), count, "no block is handed out twice");
        // One block stays, in the middle.
        let stays = blocks.swap_remove(count / 2);
        // SAFETY: it was taken above.
        let before = unsafe { stays.read() };
        for block in blocks {
            pool.give(block.addr().get());
        }
        let (chunks, free, kept) = pool.counts();
        assert!(chunks <= 2, "{chunks} chunks for one block");
        assert_eq!(free, chunks * BLOCKS - 1);
        assert!(kept <= KEPT, "{kept} free blocks keep their memory");
        // SAFETY: as above.
        let after = unsafe { stays.read() };
        assert_eq!(after, before, "what is in use is left alone");
        pool.give(stays.addr().get());
        assert_eq!(pool.counts().0, 1);
    }

    #[test]
    fn a_block_whose_page_went_back_can_be_taken_again() {
        let mut pool = Pool::new();
        for _ in 0..3 {
            let blocks: Vec<_> = (0..BLOCKS).map(|_| pool.take().expect("memory")).collect();
            for block in &blocks {
                // SAFETY: it was taken above, for us alone.
                unsafe { block.write_bytes(7, BLOCK) };
            }
            for block in blocks {
                let last = block.as_ptr().wrapping_add(BLOCK - 1);
                // SAFETY: as above; this is the last byte of the block.
                let last = unsafe { last.read() };
                assert_eq!(last, 7);
                pool.give(block.addr().get());
            }
            assert_eq!(pool.counts().0, 1, "the same chunk");
        }
    }
}
