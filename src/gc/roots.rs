//! Roots: slots outside the heap that hold an object each.
//!
//! Slots live in blocks of one OS page; the block's header says which heap it belongs to. A mutator
//! takes free slots a batch at a time and keeps a stock of its own, so that making a root takes no
//! lock. A root may be dropped on any thread. On a thread with a mutator of this heap the slot goes
//! into that mutator's stock (with the deletion barrier, while marking runs). Elsewhere the slot is
//! *released*: it stays a root for the running cycle, and whoever next looks for free slots outside
//! marking collects it.
//!
//! | `target` | in its block's list | the slot is |
//! |---|---|---|
//! | 0 | no | free: in the table, or in a mutator's stock |
//! | an address | no | a root |
//! | an address | yes | released: still a root for a running cycle, then waiting to be collected |
//!
//! **What stays in proportion.** A stock that only its owner empties grows without end when roots
//! are made on one thread and dropped on another, so one of more than [`STOCK_MAX`] slots gives
//! [`BATCH`] back. A block all of whose slots are in the table is freed when nobody scans, so
//! memory and the root jobs of a cycle follow the roots that live (a block with one root is a
//! block), plus [`STOCK_MAX`] slots a mutator. The table keeps [`SPARE`] empty blocks. Whoever
//! looks for a free slot looks at all blocks for released ones, which costs their number; it does
//! so only after [`SLOTS_PER_LOOK`] slots a block have been handed out since the last look, so n
//! roots cost O(n).
//!
//! Roots may outlive their heap. The table then leaves its blocks to their roots: each block counts
//! how many are still to be released, and the last of them frees it.
//!
//! **Invariants**
//! - `[T1]` A block is alive while a slot of it is a root, released, or in a stock; while marking
//!   runs or somebody scans; and while the table has it. A release touches the block for the last
//!   time when it puts the slot on the block's list, and only a slot on the list is collected: so
//!   whoever finds all slots in the table is alone with the block.
//! - `[T2]` A slot's `refs` is the number of `Root` handles that share it, forgotten ones included;
//!   the last one to go frees or releases it. It stops at [`REFS_MAX`](handle::REFS_MAX): safe code
//!   can forget as many handles as it likes.
//! - `[T3]` A block's place in `Inner::blocks`, which root jobs go by, changes only while nobody
//!   scans.

use std::ptr::NonNull;

use self::block::{ALL_RELEASED, BlockRef, FIRST, FREE, ONE_RELEASED, ORPHAN, SLOTS};
use crate::base::crowd::shrink_after_crowd;
use crate::gc::stopped::Stopped;
use crate::object::trace::Tracer;
use crate::sys::MODELLED;
use crate::sys::fatal::fatal;
use crate::sys::lock::{Rank, Ranked};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::Ordering;

mod block;
mod handle;

pub(crate) use self::block::RootSlot;
pub(crate) use self::handle::RawRoot;

/// Slots that a mutator takes and gives back at a time.
const BATCH: usize = if MODELLED { 2 } else { 64 };
/// The most slots that a mutator's stock keeps. Twice the batch, so that who makes and drops a few
/// at the edge does not take the lock each time.
const STOCK_MAX: usize = 2 * BATCH;
/// Blocks without a root that the table keeps.
const SPARE: usize = if MODELLED { 0 } else { 4 };
/// For each block that is looked at for released slots this many slots have been handed out.
const SLOTS_PER_LOOK: usize = if MODELLED { 0 } else { 16 };
/// All root slots of a heap.
#[derive(Debug)]
pub(crate) struct RootTable {
    heap: usize,
    inner: Ranked<Inner>,
}

/// A set of a block's slots.
type Set = [u64; SLOTS.div_ceil(64)];

/// For how many blocks the table's lists keep room, however few there are.
const LISTED: usize = 64;

/// What the table knows of a block.
#[derive(Debug)]
struct Entry {
    block: BlockRef,
    /// Slots that are in the table: neither roots nor in a stock.
    free: Set,
    free_slots: usize,
    /// Where it is in the list that its number of free slots puts it in.
    listed_at: usize,
}

#[derive(Debug)]
struct Inner {
    /// Root jobs go by the place in it. [T3]
    blocks: Vec<Entry>,
    /// Places of blocks with some free slots, and of those with nothing else.
    partial: Vec<usize>,
    empty: Vec<usize>,
    /// Scans may be going on: marking runs.
    marking: bool,
    /// Verifiers that look at the roots just now.
    lookers: u32,
    /// Slots handed out since somebody last looked for released ones.
    handed_out: usize,
    /// Slots that are not in the table: roots, and what stocks keep.
    out: usize,
    /// Blocks that were looked at for released slots, ever.
    #[cfg(test)]
    looked_at: usize,
}

impl RootTable {
    pub(crate) fn new(heap: usize) -> Self {
        Self {
            heap,
            inner: Ranked::new(
                Rank::Roots,
                Inner {
                    blocks: Vec::new(),
                    partial: Vec::new(),
                    empty: Vec::new(),
                    marking: false,
                    lookers: 0,
                    out: 0,
                    handed_out: 0,
                    #[cfg(test)]
                    looked_at: 0,
                },
            ),
        }
    }

    /// A root on `target`, from the mutator's `stock`. `collect_released` is false while marking
    /// runs.
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
        let due = inner.handed_out >= SLOTS_PER_LOOK * inner.blocks.len();
        if inner.partial.is_empty() && inner.empty.is_empty() && collect_released && due {
            inner.collect_released();
        }
        if inner.partial.is_empty() && inner.empty.is_empty() {
            inner.add_block(self.heap);
        }
        inner.hand_out(stock);
        drop(inner);
        match stock.pop() {
            Some(slot) => slot,
            None => fatal("a fresh root block is empty"),
        }
    }

    /// Takes all of a mutator's stock back.
    pub(crate) fn give_back(&self, stock: &mut Vec<NonNull<RootSlot>>) {
        self.take_back(stock, usize::MAX);
    }

    /// Drops a root on the thread of the mutator that owns `stock`, which stays below
    /// [`STOCK_MAX`].
    pub(crate) fn free(&self, root: RawRoot, stock: &mut Vec<NonNull<RootSlot>>) {
        root.free_into(stock);
        if stock.len() > STOCK_MAX && !sabotage::is_on(Fault::RootStockKept) {
            self.shorten(stock);
        }
    }

    /// Takes a part of a mutator's stock back, which has more than [`STOCK_MAX`] slots.
    #[cold]
    #[inline(never)]
    fn shorten(&self, stock: &mut Vec<NonNull<RootSlot>>) {
        // The oldest: the others are still in the processor's cache.
        self.take_back(stock, BATCH);
    }

    fn take_back(&self, stock: &mut Vec<NonNull<RootSlot>>, most: usize) {
        let mut inner = self.inner.lock();
        for slot in stock.drain(..most.min(stock.len())) {
            inner.give(slot);
        }
        self.free_empty(inner);
    }

    /// Frees the slots of roots that were dropped on threads without a mutator, and blocks without
    /// roots. Not while marking runs.
    pub(crate) fn collect_released(&self) {
        let mut inner = self.inner.lock();
        inner.collect_released();
        self.free_empty(inner);
    }

    /// Frees what is empty, if nobody scans.
    fn free_empty(&self, mut inner: crate::sys::lock::Held<'_, Inner>) {
        let mut gone = Vec::new();
        while !inner.marking && inner.lookers == 0 && inner.empty.len() > SPARE {
            gone.push(inner.remove_empty());
        }
        drop(inner);
        // Outside the lock: it may take system calls.
        gone.into_iter().for_each(BlockRef::free);
    }

    /// Scans may begin. Returns the number of root jobs: one a block.
    pub(crate) fn begin_marking(&self, _stopped: &Stopped<'_>) -> usize {
        let mut inner = self.inner.lock();
        inner.marking = true;
        inner.blocks.len()
    }

    /// Nobody scans any more.
    pub(crate) fn end_marking(&self, _stopped: &Stopped<'_>) {
        self.inner.lock().marking = false;
    }

    /// Slots that are in use, or in a mutator's stock.
    pub(crate) fn slots_out(&self) -> usize {
        self.inner.lock().out
    }

    /// Blocks, whether they have roots or not.
    #[cfg(any(fuzzing, feature = "internals", test))]
    pub(crate) fn blocks(&self) -> usize {
        self.inner.lock().blocks.len()
    }

    /// Reports the roots of block `job`.
    pub(crate) fn scan(&self, job: usize, tracer: &mut Tracer<'_>) {
        let block = self.inner.lock().blocks.get(job).map(|entry| entry.block);
        if let Some(block) = block {
            // [T1] marking runs, so it stays.
            block.scan(tracer);
        }
    }

    /// Reports all roots, for a verifier.
    pub(crate) fn scan_all(&self, tracer: &mut Tracer<'_>) {
        let blocks: Vec<_> = {
            let mut inner = self.inner.lock();
            inner.lookers += 1;
            inner.blocks.iter().map(|entry| entry.block).collect()
        };
        for block in blocks {
            // [T1] this thread looks.
            block.scan(tracer);
        }
        let mut inner = self.inner.lock();
        inner.lookers -= 1;
        self.free_empty(inner);
    }

    /// Whether the table's lists agree with the slots; `stocks` is how many free ones mutators
    /// have.
    ///
    /// # Errors
    /// If slots are lost, or free and in use.
    pub(crate) fn verify(&self, stocks: usize) -> Result<(), String> {
        let inner = self.inner.lock();
        let total = inner.blocks.len() * SLOTS;
        // Relaxed: the world is stopped, but for drops on threads without a mutator, which do not
        // change the sum.
        let is_used = |slot: &RootSlot| slot.target.load(Ordering::Relaxed) != FREE;
        let slots = inner
            .blocks
            .iter()
            .flat_map(|entry| &entry.block.get().slots);
        let in_use = slots.filter(|slot| is_used(slot)).count();
        let listed: usize = inner.blocks.iter().map(|entry| entry.free_slots).sum();
        let free = listed + stocks;
        if in_use + free != total {
            return Err(format!(
                "root slots: {in_use} in use + {free} free != {total}"
            ));
        }
        for entry in &inner.blocks {
            let numbers = members(&entry.free);
            if numbers
                .clone()
                .any(|n| is_used(&entry.block.get().slots[n]))
            {
                return Err("a free root slot is in use".to_owned());
            }
            if numbers.count() != entry.free_slots {
                return Err("a block of root slots has lost count of its free ones".to_owned());
            }
        }
        Ok(())
    }
}

fn members(set: &Set) -> impl Iterator<Item = usize> + Clone + '_ {
    (0..SLOTS).filter(|n| set[n / 64] >> (n % 64) & 1 != 0)
}

impl Inner {
    fn list_of(&mut self, free_slots: usize) -> Option<&mut Vec<usize>> {
        match free_slots {
            0 => None,
            SLOTS => Some(&mut self.empty),
            _ => Some(&mut self.partial),
        }
    }

    /// Puts the block at `place` into its list.
    fn list(&mut self, place: usize) {
        let free_slots = self.blocks[place].free_slots;
        if let Some(list) = self.list_of(free_slots) {
            list.push(place);
            let at = list.len() - 1;
            self.blocks[place].listed_at = at;
        }
    }

    /// Takes the block at `place` out of its list.
    fn unlist(&mut self, place: usize) {
        let Entry {
            free_slots,
            listed_at,
            ..
        } = self.blocks[place];
        let Some(list) = self.list_of(free_slots) else {
            return;
        };
        list.swap_remove(listed_at);
        shrink_after_crowd(list, LISTED);
        if let Some(&moved) = list.get(listed_at) {
            self.blocks[moved].listed_at = listed_at;
        }
    }

    fn add_block(&mut self, heap: usize) {
        let block = BlockRef::new(heap);
        let place = self.blocks.len();
        // Relaxed: under the table's lock.
        block
            .get()
            .header
            .place
            .store(place as u32, Ordering::Relaxed);
        self.blocks.push(Entry {
            block,
            free: std::array::from_fn(|word| u64::MAX >> (64 - (SLOTS - word * 64).min(64))),
            free_slots: SLOTS,
            listed_at: 0,
        });
        self.list(place);
    }

    /// Takes an empty block out. [T3] Nobody scans.
    fn remove_empty(&mut self) -> BlockRef {
        let Some(&place) = self.empty.last() else {
            fatal("no root block is empty");
        };
        self.unlist(place);
        let last = self.blocks.len() - 1;
        if place != last {
            // The last one moves to its place.
            let (free_slots, listed_at) =
                (self.blocks[last].free_slots, self.blocks[last].listed_at);
            if let Some(list) = self.list_of(free_slots) {
                list[listed_at] = place;
            }
            // Relaxed: under the table's lock.
            self.blocks[last]
                .block
                .get()
                .header
                .place
                .store(place as u32, Ordering::Relaxed);
        }
        let block = self.blocks.swap_remove(place).block;
        shrink_after_crowd(&mut self.blocks, LISTED);
        block
    }

    /// Moves a batch of free slots to `stock`, or what there is.
    fn hand_out(&mut self, stock: &mut Vec<NonNull<RootSlot>>) {
        let before = stock.len();
        // Blocks with roots first, so that the others can go.
        while let left = BATCH - (stock.len() - before)
            && left > 0
            && let Some(&place) = self.partial.last().or(self.empty.last())
        {
            self.unlist(place);
            let entry = &mut self.blocks[place];
            // The stock is taken from its end: the lowest last.
            for (index, word) in entry.free.iter_mut().enumerate().rev() {
                while *word != 0 && entry.free_slots > 0 && stock.len() - before < BATCH {
                    let bit = 63 - word.leading_zeros() as usize;
                    *word &= !(1 << bit);
                    entry.free_slots -= 1;
                    stock.push(entry.block.slot(index * 64 + bit));
                }
            }
            self.list(place);
        }
        self.handed_out += stock.len() - before;
        self.out += stock.len() - before;
    }

    /// A free slot comes back.
    fn give(&mut self, slot: NonNull<RootSlot>) {
        // SAFETY: 1. [T1] a slot that was in a stock, or on its block's list.
        let block = unsafe { BlockRef::of(slot) };
        // Relaxed: under the table's lock.
        let place = block.get().header.place.load(Ordering::Relaxed) as usize;
        let number = block.number_of(slot);
        let entry = &mut self.blocks[place];
        debug_assert!(entry.block == block && entry.free[number / 64] >> (number % 64) & 1 == 0);
        entry.free[number / 64] |= 1 << (number % 64);
        self.out -= 1;
        // It changes its list with the first slot and with the last.
        if entry.free_slots == 0 || entry.free_slots == SLOTS - 1 {
            self.unlist(place);
            self.blocks[place].free_slots += 1;
            self.list(place);
        } else {
            entry.free_slots += 1;
        }
    }

    fn collect_released(&mut self) {
        self.handed_out = 0;
        #[cfg(test)]
        {
            self.looked_at += self.blocks.len();
        }
        for place in 0..self.blocks.len() {
            let block = self.blocks[place].block;
            let released = &block.get().header.released;
            // Relaxed: who comes later is collected later.
            if released.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // Acquire: pairs with the exchange in `release`, and those of the releases before it.
            let mut next = (released.swap(0, Ordering::Acquire) & FIRST) as usize;
            while let Some(number) = next.checked_sub(1) {
                let slot = &block.get().slots[number];
                // Relaxed (both): nobody else touches a released slot.
                next = slot.next.load(Ordering::Relaxed) as usize;
                slot.target.store(FREE, Ordering::Relaxed);
                self.give(NonNull::from(slot));
            }
        }
    }
}

impl Drop for RootTable {
    fn drop(&mut self) {
        let inner = self.inner.lock();
        for entry in &inner.blocks {
            let block = entry.block.get();
            // Relaxed: the count below is what orders the releases.
            let is_out = |slot: &&RootSlot| slot.target.load(Ordering::Relaxed) != FREE;
            let out = block.slots.iter().filter(is_out).count();
            // From now on the count goes to SLOTS: what was released before and what is still to
            // come is `out`.
            let add = ORPHAN + (SLOTS - out) as u64 * ONE_RELEASED;
            // AcqRel: as in `release`.
            let before = block.header.released.fetch_add(add, Ordering::AcqRel);
            if (before + add) & !FIRST == ALL_RELEASED {
                entry.block.free();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
