//! Roots: slots outside the heap that hold an object each.
//!
//! Slots live in blocks of one OS page; the block's header says which heap it belongs to. A mutator takes free slots a
//! batch at a time and keeps a stock of its own, so that making a root takes no lock. A root may be dropped on any
//! thread. On a thread with a mutator of this heap the slot goes back to that mutator's stock (with the deletion
//! barrier, while marking runs). Elsewhere the slot is *released*: it stays a root for the running cycle, and whoever
//! next looks for free slots outside marking collects it.
//!
//! | `target` | `released` | the slot is |
//! |---|---|---|
//! | 0 | 0 | free, in some stock |
//! | an address | 0 | a root |
//! | an address | 1 | released: still a root for a running cycle, then waiting to be collected |
//!
//! Roots may outlive their heap. The table then counts, in each block, how many drops are still to come, and the last
//! of them frees the block.
//!
//! **Invariants**
//! - `[T1]` A block is alive while its heap's table lives or a slot of it is a root or released.
//! - `[T2]` A slot's `refs` is the number of `Root` handles that share it; the last one to go frees or releases it.

use std::alloc::{Layout, handle_alloc_error};
#[cfg(not(loom))]
use std::alloc::{alloc, dealloc};
use std::ptr::NonNull;

#[cfg(loom)]
use loom::alloc::{alloc, dealloc};

use crate::object::trace::Tracer;
use crate::sys::MODELLED;
use crate::sys::lock::{Rank, Ranked};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU32, AtomicUsize, Ordering};

const FREE: usize = 0;
/// Size and alignment of a block.
const BLOCK: usize = 4096;
/// Slots in a block; the header takes the room of one.
const SLOTS: usize = if MODELLED {
    2
} else {
    BLOCK / size_of::<RootSlot>() - 1
};
/// Slots that a mutator takes at a time.
const BATCH: usize = 64;
/// In `Header::drops`: the heap's table is gone.
const ORPHAN: usize = 1 << 32;

/// One root.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RootSlot {
    target: AtomicUsize,
    refs: AtomicU32,
    released: AtomicU32,
}

/// The head of a block.
#[derive(Debug)]
#[repr(C)]
struct Header {
    heap: usize,
    /// Slots released and not collected; with [`ORPHAN`]: counts up to `ORPHAN + SLOTS`, then the block goes.
    drops: AtomicUsize,
}

#[repr(C)]
struct Block {
    header: Header,
    slots: [RootSlot; SLOTS],
}

// The checkers' atomics are larger than what they stand for.
const _: () = assert!(
    MODELLED || size_of::<Block>() == BLOCK && size_of::<Header>() == size_of::<RootSlot>()
);

impl Block {
    fn new(heap: usize) -> Self {
        Self {
            header: Header {
                heap,
                drops: AtomicUsize::new(0),
            },
            slots: std::array::from_fn(|_| RootSlot {
                target: AtomicUsize::new(FREE),
                refs: AtomicU32::new(0),
                released: AtomicU32::new(0),
            }),
        }
    }
}

/// A shared pointer to a block.
#[derive(Clone, Copy, Debug)]
struct BlockRef(NonNull<Block>);

// SAFETY: a block is atomics and a constant.
unsafe impl Send for BlockRef {}

impl BlockRef {
    fn get(&self) -> &Block {
        // SAFETY: [T1] the callers are the table and slots in use.
        unsafe { self.0.as_ref() }
    }

    fn layout() -> Layout {
        // A block is as large as it is aligned, so the slot's address masked is the block's.
        Layout::new::<Block>()
            .align_to(BLOCK)
            .unwrap_or(Layout::new::<Block>())
    }

    fn new(heap: usize) -> Self {
        // SAFETY: the layout's size is not zero.
        let raw = unsafe { alloc(Self::layout()) };
        let Some(block) = NonNull::new(raw.cast::<Block>()) else {
            handle_alloc_error(Self::layout())
        };
        // SAFETY: freshly allocated with a block's layout, and nobody else has it.
        unsafe { block.write(Block::new(heap)) };
        Self(block)
    }

    /// The block of a slot.
    ///
    /// # Safety
    /// 1. The slot is one of a live block's.
    unsafe fn of(slot: NonNull<RootSlot>) -> Self {
        let block = slot.as_ptr().map_addr(|a| a & !(BLOCK - 1)).cast::<Block>();
        // SAFETY: clause 1: blocks are BLOCK-aligned, so this is the slot's block, and not null.
        Self(unsafe { NonNull::new_unchecked(block) })
    }

    fn free(self) {
        // So that a model which uses the block after this is noticed.
        #[cfg(any(loom, shuttle))]
        // SAFETY: as below; atomics need no drop.
        unsafe {
            self.0.as_ptr().write_bytes(0xdb, 1)
        };
        // SAFETY: allocated in `new` with this layout; [T1] nobody refers to it any more.
        unsafe { dealloc(self.0.as_ptr().cast(), Self::layout()) }
    }
}

/// A root slot in use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawRoot(NonNull<RootSlot>);

// SAFETY: a slot is atomics; [T1] [T2].
unsafe impl Send for RawRoot {}
// SAFETY: as above.
unsafe impl Sync for RawRoot {}

impl RawRoot {
    fn slot(&self) -> &RootSlot {
        // SAFETY: [T1] the slot is a root while this handle lives.
        unsafe { self.0.as_ref() }
    }

    /// The number of the heap that the root belongs to.
    #[inline]
    pub(crate) fn heap(&self) -> usize {
        // SAFETY: 1. a slot in use.
        unsafe { BlockRef::of(self.0) }.get().header.heap
    }

    /// The object's address.
    #[inline]
    pub(crate) fn target(&self) -> usize {
        // Acquire: pairs with the Release in `take`: the object is initialised.
        self.slot().target.load(Ordering::Acquire)
    }

    /// Another handle on the same slot.
    pub(crate) fn share(&self) -> Self {
        // Relaxed: this handle keeps the count above zero, as in `Arc`.
        self.slot().refs.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }

    /// One handle goes; true if it was the last, and the slot is to be freed or released.
    fn unshare(&self) -> bool {
        // Acquire: if we are the only handle, what the others did to the slot came before.
        if self.slot().refs.load(Ordering::Acquire) == 1 {
            return true;
        }
        // AcqRel: as in `Arc`: the last one sees what the others did.
        self.slot().refs.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Drops the handle on a thread whose mutator owns `stock`; returns the object's address if the root is gone.
    pub(crate) fn free_into(self, stock: &mut Vec<NonNull<RootSlot>>) -> Option<usize> {
        if !self.unshare() {
            return None;
        }
        // Relaxed: the mutator's next stop orders it for the collector; a scan that runs now may see either value, and
        // the caller has shaded the target.
        let target = self.slot().target.swap(FREE, Ordering::Relaxed);
        stock.push(self.0);
        Some(target)
    }

    /// Drops the handle on any thread.
    pub(crate) fn release(self) {
        if !self.unshare() {
            return;
        }
        // SAFETY: 1. the slot is in use.
        let block = unsafe { BlockRef::of(self.0) };
        // The target stays: another handle's `get` may have just put it into some mutator's hands, and the scan of this
        // cycle may be still to come.
        if sabotage::is_on(Fault::RootReleasedAtOnce) {
            // Relaxed: as in `free_into`.
            self.slot().target.store(FREE, Ordering::Relaxed);
        }
        // Relaxed: published by the count below.
        self.slot().released.store(1, Ordering::Relaxed);
        // AcqRel: releases the slot to whoever collects it; gathers the other drops for the one that frees the block.
        let before = block.get().header.drops.fetch_add(1, Ordering::AcqRel);
        if before + 1 == ORPHAN + SLOTS {
            block.free();
        }
    }
}

/// All root slots of a heap.
#[derive(Debug)]
pub(crate) struct RootTable {
    heap: usize,
    inner: Ranked<Inner>,
}

#[derive(Debug)]
struct Inner {
    blocks: Vec<BlockRef>,
    /// Slots that nobody's stock has.
    free: Vec<FreeSlot>,
}

/// A free slot.
#[derive(Clone, Copy, Debug)]
struct FreeSlot(NonNull<RootSlot>);

// SAFETY: a slot is atomics.
unsafe impl Send for FreeSlot {}

impl RootTable {
    pub(crate) fn new(heap: usize) -> Self {
        Self {
            heap,
            inner: Ranked::new(
                Rank::Roots,
                Inner {
                    blocks: Vec::new(),
                    free: Vec::new(),
                },
            ),
        }
    }

    /// A root on `target`, from the mutator's `stock`. `collect_released` is false while marking runs.
    pub(crate) fn take(
        &self,
        target: usize,
        stock: &mut Vec<NonNull<RootSlot>>,
        collect_released: bool,
    ) -> RawRoot {
        let slot = match stock.pop() {
            Some(slot) => slot,
            None => self.refill(stock, collect_released),
        };
        // SAFETY: [T1] a free slot of a live table.
        let place = unsafe { slot.as_ref() };
        // Relaxed: the handle is not shared yet.
        place.refs.store(1, Ordering::Relaxed);
        // Release: publishes the object to the root scan; pairs with the Acquire in `scan`.
        place.target.store(target, Ordering::Release);
        RawRoot(slot)
    }

    #[cold]
    fn refill(
        &self,
        stock: &mut Vec<NonNull<RootSlot>>,
        collect_released: bool,
    ) -> NonNull<RootSlot> {
        let mut inner = self.inner.lock();
        if inner.free.is_empty() && collect_released {
            inner.collect_released();
        }
        if inner.free.is_empty() {
            let block = BlockRef::new(self.heap);
            inner
                .free
                .extend(block.get().slots.iter().map(|s| FreeSlot(NonNull::from(s))));
            inner.blocks.push(block);
        }
        let keep = inner.free.len().saturating_sub(BATCH);
        stock.extend(inner.free.drain(keep..).map(|s| s.0));
        drop(inner);
        match stock.pop() {
            Some(slot) => slot,
            None => crate::sys::fatal::fatal("a fresh root block is empty"),
        }
    }

    /// Takes a mutator's stock back.
    pub(crate) fn give_back(&self, stock: &mut Vec<NonNull<RootSlot>>) {
        self.inner.lock().free.extend(stock.drain(..).map(FreeSlot));
    }

    /// Frees the slots of roots that were dropped on threads without a mutator. Not while marking runs.
    pub(crate) fn collect_released(&self) {
        self.inner.lock().collect_released();
    }

    /// Root jobs now: one a block.
    pub(crate) fn jobs(&self) -> usize {
        self.inner.lock().blocks.len()
    }

    /// Reports the roots of block `job`.
    pub(crate) fn scan(&self, job: usize, tracer: &mut Tracer<'_>) {
        let Some(block) = self.inner.lock().blocks.get(job).copied() else {
            return;
        };
        for slot in &block.get().slots {
            // Acquire: pairs with the Release in `take`: the object is initialised.
            let target = slot.target.load(Ordering::Acquire);
            if target != FREE {
                tracer.edge(target);
            }
        }
    }

    /// The number of slots in use, released and free, for figures and the verifier; `Err` if they overlap.
    pub(crate) fn verify(&self, stocks: usize) -> Result<(), String> {
        let inner = self.inner.lock();
        let total = inner.blocks.len() * SLOTS;
        // Relaxed: the world is stopped, but for drops on threads without a mutator, which do not change the sum.
        let in_use = inner
            .blocks
            .iter()
            .flat_map(|b| &b.get().slots)
            .filter(|s| s.target.load(Ordering::Relaxed) != FREE)
            .count();
        let free = inner.free.len() + stocks;
        if in_use + free != total {
            return Err(format!(
                "root slots: {in_use} in use + {free} free != {total}"
            ));
        }
        // Relaxed: as above.
        if inner.free.iter().any(|s| unsafe_target(s.0) != FREE) {
            return Err("a free root slot is in use".to_owned());
        }
        Ok(())
    }
}

fn unsafe_target(slot: NonNull<RootSlot>) -> usize {
    // SAFETY: [T1] called for slots of a live table.
    let slot = unsafe { slot.as_ref() };
    // Relaxed: see `RootTable::verify`.
    slot.target.load(Ordering::Relaxed)
}

impl Inner {
    fn collect_released(&mut self) {
        for block in &self.blocks {
            let header = &block.get().header;
            // Acquire: pairs with the Release in `release`.
            let drops = header.drops.load(Ordering::Acquire);
            if drops == 0 {
                continue;
            }
            let mut collected = 0;
            for slot in &block.get().slots {
                // Relaxed: counted above, or by a later call.
                if collected < drops && slot.released.load(Ordering::Relaxed) == 1 {
                    // Relaxed (both): nobody else touches a released slot.
                    slot.released.store(0, Ordering::Relaxed);
                    slot.target.store(FREE, Ordering::Relaxed);
                    self.free.push(FreeSlot(NonNull::from(slot)));
                    collected += 1;
                }
            }
            // Relaxed: our own bookkeeping.
            header.drops.fetch_sub(collected, Ordering::Relaxed);
        }
    }
}

impl Drop for RootTable {
    fn drop(&mut self) {
        let inner = self.inner.lock();
        for block in &inner.blocks {
            // Relaxed: the count below is what orders the drops.
            let out = block
                .get()
                .slots
                .iter()
                .filter(|s| s.target.load(Ordering::Relaxed) != FREE)
                .count();
            // From now on `drops` counts to ORPHAN + SLOTS: what was released before and what is still to come is `out`.
            let add = ORPHAN + SLOTS - out;
            // AcqRel: as in `release`.
            let before = block.get().header.drops.fetch_add(add, Ordering::AcqRel);
            if before + add == ORPHAN + SLOTS {
                block.free();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::ptr_buf::PtrBuf;
    use crate::object::trace::{LockView, Spill};

    /// A few edges fit into the buffer.
    struct Nowhere;

    impl Spill for Nowhere {
        fn spill(&mut self, _: &mut PtrBuf) {
            unreachable!("the buffer is full");
        }
    }

    #[test]
    fn slots_are_reused() {
        let table = RootTable::new(7);
        let mut stock = Vec::new();
        for _ in 0..10_000 {
            let root = table.take(64, &mut stock, true);
            assert_eq!((root.target(), root.heap()), (64, 7));
            assert_eq!(root.free_into(&mut stock), Some(64));
        }
        assert_eq!(table.jobs(), 1);
        for _ in 0..10_000 {
            table.take(64, &mut stock, true).release();
        }
        assert_eq!(
            table.jobs(),
            1,
            "released slots are collected when the stock is empty"
        );
        assert!(table.verify(stock.len()).is_ok());
    }

    #[test]
    fn a_shared_slot_goes_with_its_last_handle() {
        let table = RootTable::new(7);
        let mut stock = Vec::new();
        let a = table.take(64, &mut stock, true);
        let b = a.share();
        assert_eq!(a.free_into(&mut stock), None);
        assert_eq!(b.target(), 64);
        assert_eq!(b.free_into(&mut stock), Some(64));
    }

    #[test]
    fn roots_outlive_their_table() {
        let mut stock = Vec::new();
        let table = RootTable::new(7);
        let roots: Vec<_> = (0..1000)
            .map(|i| table.take(64 + i * 8, &mut stock, true))
            .collect();
        let (early, late): (Vec<_>, Vec<_>) = roots.into_iter().partition(|r| r.target() % 16 == 0);
        early.into_iter().for_each(RawRoot::release);
        drop(table);
        assert!(late.iter().all(|r| r.heap() == 7));
        late.into_iter().for_each(RawRoot::release);
    }

    #[test]
    fn a_slot_that_is_lost_is_reported() {
        let table = RootTable::new(7);
        let mut stock = Vec::new();
        let root = table.take(64, &mut stock, true);
        let free = SLOTS - 1;
        assert_eq!(table.verify(stock.len()), Ok(()));
        assert_eq!(
            table.verify(stock.len() - 1),
            Err(format!(
                "root slots: 1 in use + {} free != {SLOTS}",
                free - 1
            ))
        );
        root.release();
        // Released, it is a root until it is collected.
        assert_eq!(table.verify(stock.len()), Ok(()));
        table.collect_released();
        assert_eq!(table.verify(stock.len()), Ok(()));
    }

    #[test]
    fn a_slot_that_is_free_and_in_use_is_reported() {
        let table = RootTable::new(7);
        let mut stock = Vec::new();
        let root = table.take(64, &mut stock, true);
        let lost = table.inner.lock().free.pop().expect("a batch leaves some");
        table.inner.lock().free.push(FreeSlot(root.0));
        assert_eq!(
            table.verify(stock.len()),
            Err("a free root slot is in use".to_owned())
        );
        table.inner.lock().free.pop();
        table.inner.lock().free.push(lost);
        assert_eq!(table.verify(stock.len()), Ok(()));
        root.release();
    }

    #[test]
    fn a_job_that_there_is_no_block_for_reports_nothing() {
        let table = RootTable::new(7);
        let mut stock = Vec::new();
        let roots = [64, 72].map(|target| table.take(target, &mut stock, true));
        let scan = |job| {
            let (mut buf, mut spill) = (PtrBuf::new(), Nowhere);
            table.scan(
                job,
                &mut Tracer::new(&mut buf, &mut spill, LockView::Stopped),
            );
            let mut found = buf.as_slice().to_vec();
            found.sort_unstable();
            found
        };
        assert_eq!(scan(0), [64, 72]);
        assert_eq!(scan(1), [0; 0]);
        roots.into_iter().for_each(RawRoot::release);
    }
}
