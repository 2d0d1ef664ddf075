//! Marking: shade an object, scan it, shade what it points to.
//!
//! Work goes in rounds, so that the processor fetches memory while other objects are scanned (the idea of Cher, Hosking
//! and Vijaykumar 2004, with batches instead of a queue: each step is a short loop over an array):
//!
//! ```text
//! round n:   stack --pop, fetch objects--> batch n + 1
//!            batch n (has arrived) --trace--> found
//!            ready (found in round n - 1; mark words have arrived) --test and set--> stack
//!            found --fetch mark words--> ready
//! ```
//!
//! A long list is scanned in pieces of about [`PIECE`] bytes, whole items each: a work item is an object's address, or an
//! address inside a large object that says which piece is next.
//!
//! **Invariants**
//! - `[K1]` A work item is the address of a marked, traced object, or of a piece of one.
//! - `[K2]` An object is put on the queue by whoever set its mark bit, and by nobody else.

use crate::base::addr::PAGE_SHIFT;
use crate::base::ptr_buf::PtrBuf;
use crate::gc::work::{Joined, WORK_BUF, WorkBuf, WorkPool};
use crate::heap::bits::BitWord;
use crate::heap::mheap::MHeap;
use crate::heap::span_class::{ClassRef, Kind};
use crate::object::trace::{LockView, Spill, Tracer};
use crate::object::type_info::{Items, TypeInfo};
use crate::sys::MODELLED;
use crate::sys::mem::prefetch;
use crate::sys::sabotage::{self, Fault};

/// Bytes of a large list scanned as one work item; about 20 to 100 microseconds of work.
const PIECE: usize = if MODELLED { 32 << 10 } else { 128 << 10 };
/// Objects in flight: enough to keep the memory system busy, few enough to stay in the first-level cache.
const BATCH: usize = if MODELLED { 2 } else { 32 };
/// Objects scanned between looks at the outside world.
const SHARE_EVERY: usize = if MODELLED { 2 } else { 64 };
/// The fewest objects worth giving to another worker.
const SHARE_MIN: usize = if MODELLED { 2 } else { 64 };

/// Objects whose memory is on its way.
#[derive(Debug)]
struct Batch {
    objects: [usize; BATCH],
    len: usize,
}

impl Batch {
    fn new() -> Box<Self> {
        Box::new(Self {
            objects: [0; BATCH],
            len: 0,
        })
    }

    fn as_slice(&self) -> &[usize] {
        &self.objects[..self.len]
    }
}

/// What marking works on, for a member of the pool; its cycle is the one that the member has joined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MarkEnv<'a> {
    heap: &'a MHeap,
    joined: &'a Joined<'a>,
}

impl<'a> MarkEnv<'a> {
    pub(crate) fn new(heap: &'a MHeap, joined: &'a Joined<'a>) -> Self {
        Self { heap, joined }
    }

    /// The number of the cycle.
    pub(crate) fn cycle(self) -> u32 {
        self.joined.cycle()
    }

    pub(crate) fn joined(self) -> &'a Joined<'a> {
        self.joined
    }

    fn locks(self) -> LockView {
        LockView::Concurrent {
            cycle: self.cycle(),
        }
    }
}

/// The queues of one worker.
#[derive(Debug)]
struct Core {
    stack: WorkBuf,
    /// The next batch: marked and not scanned, as the stack's.
    next: Box<Batch>,
    /// Found and not marked; their mark words are on their way.
    ready: PtrBuf,
    marked_bytes: u64,
}

/// One worker's part of the grey queue.
#[derive(Debug)]
pub(crate) struct Marker {
    found: PtrBuf,
    core: Core,
    /// Room for the batch that is being scanned.
    spare: Option<Box<Batch>>,
    scanned_bytes: u64,
}

/// Why a drain returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left here.
    Empty,
    /// The budget is used up.
    Budget,
}

/// What a worker has done since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Bytes of objects marked.
    pub(crate) marked: u64,
    /// Bytes of objects scanned.
    pub(crate) scanned: u64,
}

impl Core {
    /// Takes the next batch from the stack and fetches it.
    #[inline(always)]
    fn fetch_batch(&mut self) {
        let len = self.stack.len().min(BATCH);
        let rest = self.stack.len() - len;
        for (place, &object) in self.next.objects.iter_mut().zip(&self.stack[rest..]) {
            prefetch(std::ptr::without_provenance(object));
            *place = object;
        }
        self.next.len = len;
        self.stack.truncate(rest);
    }

    /// Marks what is ready, and makes what `found` holds ready.
    fn advance(&mut self, heap: &MHeap, found: &mut PtrBuf) {
        for &address in found.as_slice() {
            if let Some(offset) = heap.offset_of(address) {
                heap.mark.prefetch(offset);
            }
        }
        self.mark_ready(heap);
        std::mem::swap(found, &mut self.ready);
    }

    /// Marks what is ready; what was white and is traced goes on the stack.
    ///
    /// Objects that were allocated together point to one another, so neighbours in the buffer often share a mark word.
    /// They are marked by one locked instruction, which otherwise costs as much as the rest of marking a small object.
    fn mark_ready(&mut self, heap: &MHeap) {
        let Self {
            stack,
            ready,
            marked_bytes,
            ..
        } = self;
        let mut rest = ready.as_slice();
        while let [address, others @ ..] = rest {
            rest = others;
            let Some(offset) = heap.offset_of(*address) else {
                continue;
            };
            let word = BitWord::of(offset);
            let mut bits = word.bit(offset);
            while let [neighbour, others @ ..] = rest
                && let Some(offset) = heap.offset_of(*neighbour)
                && BitWord::of(offset) == word
            {
                bits |= word.bit(offset);
                rest = others;
            }
            let mut fresh = heap.mark.set_bits(word, bits);
            if fresh == 0 {
                continue;
            }
            // A word's bits are of one page, so of one span.
            let Some(class) = heap.class_at(offset) else {
                continue;
            };
            let slot = heap.slot_bytes(offset, class) as u64;
            if fresh == word.bit(offset) {
                *marked_bytes += slot;
                if class.scan {
                    // [K2]
                    stack.push(*address);
                }
                continue;
            }
            *marked_bytes += slot * u64::from(fresh.count_ones());
            while class.scan && fresh != 0 {
                // [K2]
                stack.push(heap.at(word.first_offset(fresh)).addr());
                fresh &= fresh - 1;
                if sabotage::is_on(Fault::NeighboursNotScanned) {
                    break;
                }
            }
        }
        ready.clear();
    }
}

/// Moves what a trace found on.
struct SpillTo<'a> {
    core: &'a mut Core,
    heap: &'a MHeap,
}

impl Spill for SpillTo<'_> {
    fn spill(&mut self, found: &mut PtrBuf) {
        self.core.advance(self.heap, found);
    }
}

impl Marker {
    pub(crate) fn new() -> Self {
        Self {
            found: PtrBuf::new(),
            core: Core {
                stack: Vec::with_capacity(WORK_BUF),
                next: Batch::new(),
                ready: PtrBuf::new(),
                marked_bytes: 0,
            },
            spare: None,
            scanned_bytes: 0,
        }
    }

    /// Adds the work of a shared buffer.
    pub(crate) fn load(&mut self, mut buf: WorkBuf) {
        if self.core.stack.is_empty() {
            self.core.stack = buf;
        } else {
            self.core.stack.append(&mut buf);
        }
    }

    /// What was done since the last call.
    pub(crate) fn take_done(&mut self) -> Done {
        Done {
            marked: std::mem::take(&mut self.core.marked_bytes),
            scanned: std::mem::take(&mut self.scanned_bytes),
        }
    }

    /// Shades what `report` reports (roots).
    pub(crate) fn shade_all(&mut self, env: MarkEnv<'_>, report: impl FnOnce(&mut Tracer<'_>)) {
        let mut spill = SpillTo {
            core: &mut self.core,
            heap: env.heap,
        };
        report(&mut Tracer::new(&mut self.found, &mut spill, env.locks()));
        self.core.advance(env.heap, &mut self.found);
    }

    /// Shades the addresses in `buf` and empties it. Nothing is scanned, so the caller need not be a member of the pool.
    pub(crate) fn shade_buffer(&mut self, heap: &MHeap, buf: &mut PtrBuf) {
        self.core.advance(heap, buf);
        self.core.mark_ready(heap);
    }

    /// Scans until nothing is left or about `budget` bytes have been scanned.
    pub(crate) fn drain(&mut self, env: MarkEnv<'_>, budget: u64) -> Drained {
        let mut batch = self.spare.take().unwrap_or_else(Batch::new);
        let drained = self.rounds(env, budget, &mut batch);
        self.spare = Some(batch);
        drained
    }

    fn rounds(&mut self, env: MarkEnv<'_>, budget: u64, batch: &mut Box<Batch>) -> Drained {
        let end = self.scanned_bytes.saturating_add(budget);
        let mut until_share = SHARE_EVERY;
        loop {
            if self.core.next.len == 0 {
                // A narrow graph, or the beginning: nothing to scan meanwhile.
                self.core.mark_ready(env.heap);
                self.core.fetch_batch();
                if self.core.next.len == 0 {
                    return Drained::Empty;
                }
            }
            std::mem::swap(batch, &mut self.core.next);
            self.core.fetch_batch();
            self.scan_batch(env, batch.as_slice());
            self.core.advance(env.heap, &mut self.found);
            until_share = until_share.saturating_sub(batch.len);
            if until_share == 0 || self.scanned_bytes >= end {
                until_share = SHARE_EVERY;
                self.share(env);
                if self.scanned_bytes >= end {
                    return Drained::Budget;
                }
            }
        }
    }

    /// Scans a batch: neighbours of one class by one call.
    fn scan_batch(&mut self, env: MarkEnv<'_>, batch: &[usize]) {
        let heap = env.heap;
        let class_of = |object| heap.offset_of(object).and_then(|o| heap.class_at(o));
        let mut rest = batch;
        while let Some(&first) = rest.first() {
            let class = class_of(first);
            let same = rest
                .iter()
                .position(|&o| class_of(o) != class)
                .unwrap_or(rest.len());
            let (run, others) = rest.split_at(same);
            rest = others;
            let Some(class) = class else { continue };
            let Some(info) = class.info else { continue };
            if class.kind == Kind::Large {
                // One piece is much work: the others of this batch wait for another round, where the budget is looked at.
                self.core.stack.extend_from_slice(&run[1..]);
                if let Some(offset) = heap.offset_of(first) {
                    self.scan_large(env, offset, class, info);
                }
                continue;
            }
            self.scanned_bytes += (class.slot * run.len()) as u64;
            let mut spill = SpillTo {
                core: &mut self.core,
                heap,
            };
            let mut tracer = Tracer::new(&mut self.found, &mut spill, env.locks());
            // SAFETY: [O1] [K1] the objects were published before their addresses were found, their spans' class names
            // their type, and `slot` is the size of their slots.
            unsafe { (info.trace_each)(run, heap.at(0), class.slot, &mut tracer) };
        }
    }

    #[cold]
    fn scan_large(&mut self, env: MarkEnv<'_>, offset: usize, class: ClassRef, info: &TypeInfo) {
        let heap = env.heap;
        let head = heap.first_page_of(offset);
        let start = ((head as usize) << PAGE_SHIFT) + heap.object_at(head);
        let slot = heap.slot_bytes(start, class);
        let at = heap.at(start);
        // SAFETY: [O1] [K1].
        let len_of = |items: &Items| unsafe { (items.len)(at, slot) };
        let work = info.items.as_ref().map(|items| (items, len_of(items)));
        let offset = sabotage::pick(Fault::PieceRounded, start + (offset - start) * 2, offset);
        let piece = work.map_or(0, |(items, _)| (offset - start) / stride(items));
        if let Some((items, len)) = work
            && let Some(next) = next_piece(items, len, piece)
            && !sabotage::is_on(Fault::PieceLost)
        {
            debug_assert!(next * stride(items) < slot);
            self.core
                .stack
                .push(heap.at(start + next * stride(items)).addr());
        }
        let mut spill = SpillTo {
            core: &mut self.core,
            heap,
        };
        let mut tracer = Tracer::new(&mut self.found, &mut spill, env.locks());
        match work {
            Some((items, len)) => {
                let (from, to) = piece_range(items, len, piece);
                self.scanned_bytes += ((to - from) * items.size) as u64;
                if piece == 0 {
                    // SAFETY: [O1] [K1].
                    unsafe { (info.trace_head)(at, &mut tracer) };
                }
                // SAFETY: [O1] [O2] [K1]: `to` is at most the length.
                unsafe { (items.trace)(at, from, to, &mut tracer) };
            }
            None => {
                self.scanned_bytes += slot as u64;
                // SAFETY: [O1] [K1].
                unsafe { (info.trace)(at, slot, &mut tracer) };
            }
        }
    }

    /// Gives the older half of the stack to the pool, if there is much of it or others are short of work. Little stays
    /// with a worker whose thread may lose its processor at any moment.
    fn share(&mut self, env: MarkEnv<'_>) {
        let len = self.core.stack.len();
        let pool = env.joined.pool();
        if len > WORK_BUF || len >= SHARE_MIN && pool.is_hungry() {
            let keep = self.core.stack.split_off(len - len / 2);
            pool.put(std::mem::replace(&mut self.core.stack, keep));
        }
    }

    /// Gives everything to the pool.
    pub(crate) fn give_all(&mut self, heap: &MHeap, pool: &WorkPool) {
        debug_assert!(self.found.is_empty(), "a trace is going on");
        self.core.mark_ready(heap);
        let Core { stack, next, .. } = &mut self.core;
        if sabotage::is_on(Fault::BatchLost) {
            next.len = 0;
        }
        stack.extend_from_slice(next.as_slice());
        next.len = 0;
        if !self.core.stack.is_empty() {
            pool.put(std::mem::take(&mut self.core.stack));
        }
    }

    /// Whether no grey object is in hand: what a marker kept beyond its cycle, the next one would take for marked.
    pub(crate) fn is_empty(&self) -> bool {
        let Core {
            stack, next, ready, ..
        } = &self.core;
        self.found.is_empty() && stack.is_empty() && next.len == 0 && ready.is_empty()
    }
}

/// Items in a piece.
fn per_piece(items: &Items) -> usize {
    (PIECE / items.size).max(1)
}

/// Bytes of a whole piece. Piece `n` begins at most this many bytes times `n` into the object, so that address names it.
fn stride(items: &Items) -> usize {
    per_piece(items) * items.size
}

/// Items `from .. to` of a list that are piece number `piece`.
fn piece_range(items: &Items, len: usize, piece: usize) -> (usize, usize) {
    let per_piece = per_piece(items);
    let from = (piece * per_piece).min(len);
    (from, (from + per_piece).min(len))
}

fn next_piece(items: &Items, len: usize, piece: usize) -> Option<usize> {
    let (_, to) = piece_range(items, len, piece);
    (to < len).then_some(piece + 1)
}
