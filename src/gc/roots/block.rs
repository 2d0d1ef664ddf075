//! A block of root slots: its layout, and its memory [T1].

use std::ptr::NonNull;

use crate::object::trace::Tracer;
use crate::sys::MODELLED;
use crate::sys::blocks::{self, BLOCK};
use crate::sys::fatal::fatal;
use crate::sys::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The target of a slot that is no root.
pub(super) const FREE: usize = 0;
/// Slots in a block; the header takes the room of two.
pub(super) const SLOTS: usize = if MODELLED {
    2
} else {
    BLOCK / size_of::<RootSlot>() - 2
};

/// One root.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RootSlot {
    pub(super) target: AtomicUsize,
    pub(super) refs: AtomicU32,
    /// The next slot on the block's list, if this one is released; see [`Header::released`].
    pub(super) next: AtomicU32,
}

/// The head of a block.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Header {
    pub(super) heap: usize,
    /// The list of released slots and their number, in one word, so that a release is one step.
    ///
    /// | orphan (1) | released slots (31) | number of the first one, from 1; 0: none (32) |
    ///
    /// With [`ORPHAN`] the count goes up to [`SLOTS`], then the block goes.
    pub(super) released: AtomicU64,
    /// The block's place in the table. Under the table's lock.
    pub(super) place: AtomicU32,
    _unused: u32,
    _unused_too: u64,
}

pub(super) const ORPHAN: u64 = 1 << 63;
pub(super) const ONE_RELEASED: u64 = 1 << 32;
pub(super) const FIRST: u64 = ONE_RELEASED - 1;
/// An orphan block whose last root has gone.
pub(super) const ALL_RELEASED: u64 = ORPHAN + SLOTS as u64 * ONE_RELEASED;

#[repr(C)]
pub(super) struct Block {
    pub(super) header: Header,
    pub(super) slots: [RootSlot; SLOTS],
}

// The checkers' atomics are larger than what they stand for.
const _: () = assert!(
    MODELLED || size_of::<Block>() == BLOCK && size_of::<Header>() == 2 * size_of::<RootSlot>()
);
const _: () = assert!(size_of::<Block>() <= BLOCK && align_of::<Block>() <= BLOCK);

impl Block {
    fn new(heap: usize) -> Self {
        Self {
            header: Header {
                heap,
                released: AtomicU64::new(0),
                place: AtomicU32::new(0),
                _unused: 0,
                _unused_too: 0,
            },
            slots: std::array::from_fn(|_| RootSlot {
                target: AtomicUsize::new(FREE),
                refs: AtomicU32::new(0),
                next: AtomicU32::new(0),
            }),
        }
    }
}

/// A shared pointer to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockRef(NonNull<Block>);

// SAFETY: a block is atomics and constants.
unsafe impl Send for BlockRef {}

impl BlockRef {
    pub(super) fn get(&self) -> &Block {
        // SAFETY: [T1] the callers are the table and slots that are not in it.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn new(heap: usize) -> Self {
        let Some(block) = blocks::take() else {
            fatal("no memory for a block of root slots");
        };
        let block = block.cast::<Block>();
        // SAFETY: fresh, large enough and aligned (asserted above), and nobody else has it.
        unsafe { block.write(Block::new(heap)) };
        Self(block)
    }

    /// The block of a slot.
    ///
    /// # Safety
    /// 1. The slot is one of a live block's.
    pub(super) unsafe fn of(slot: NonNull<RootSlot>) -> Self {
        let block = slot.as_ptr().map_addr(|a| a & !(BLOCK - 1)).cast::<Block>();
        // SAFETY: clause 1: blocks are BLOCK-aligned, so this is the slot's block, and not null.
        Self(unsafe { NonNull::new_unchecked(block) })
    }

    pub(super) fn slot(self, number: usize) -> NonNull<RootSlot> {
        NonNull::from(&self.get().slots[number])
    }

    /// The number of a slot of this block.
    pub(super) fn number_of(self, slot: NonNull<RootSlot>) -> usize {
        (slot.addr().get() - self.get().slots.as_ptr().addr()) / size_of::<RootSlot>()
    }

    pub(super) fn free(self) {
        // So that a model which uses the block after this is noticed.
        #[cfg(any(loom, shuttle))]
        // SAFETY: as below; atomics need no drop.
        unsafe {
            self.0.as_ptr().write_bytes(0xdb, 1)
        };
        // SAFETY: from `new`; [T1] nobody refers to it any more.
        unsafe { blocks::give(self.0.cast()) }
    }

    /// Reports its roots.
    pub(super) fn scan(self, tracer: &mut Tracer<'_>) {
        for slot in &self.get().slots {
            // Acquire: pairs with the Release in `take`: the object is initialised.
            let target = slot.target.load(Ordering::Acquire);
            if target != FREE {
                tracer.edge(target);
            }
        }
    }
}
