//! Marking: shade an object, scan it, shade what it points to.
//!
//! Two first-in-first-out rings stand between finding a pointer and using it, so that the processor fetches memory while
//! other objects are scanned (Cher, Hosking and Vijaykumar 2004; OCaml 4.14 and 5 do the same):
//!
//! ```text
//! trace -> found (bounded) -> [ pending ring: mark word on its way ] -> test and set -> stack (LIFO)
//!                                                                                         |
//!            trace  <------------------ [ object ring: object on its way ] <--------------+
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
use crate::gc::work::{WORK_BUF, WorkBuf, WorkPool};
use crate::heap::mheap::MHeap;
use crate::heap::span_class::{ClassRef, Kind};
use crate::object::trace::{LockView, Spill, Tracer};
use crate::object::type_info::{Items, TypeInfo};
use crate::sys::mem::prefetch;

/// Bytes of a large list scanned as one work item; about 20 to 100 microseconds of work.
const PIECE: usize = 128 << 10;
/// Objects in flight before their mark word is tested, and before they are scanned.
const RING: usize = 64;
const PENDING_HIGH: usize = 32;
const PENDING_LOW: usize = 24;
const OBJECTS_HIGH: usize = 24;
/// Objects scanned between looks at the outside world.
const SHARE_EVERY: u32 = 64;
/// The fewest objects worth giving to another worker.
const SHARE_MIN: usize = 64;

/// A small first-in-first-out queue of addresses.
#[derive(Debug)]
struct Ring {
    items: Box<[usize; RING]>,
    head: usize,
    len: usize,
}

impl Ring {
    fn new() -> Self {
        Self {
            items: Box::new([0; RING]),
            head: 0,
            len: 0,
        }
    }

    #[inline(always)]
    fn push(&mut self, address: usize) {
        debug_assert!(self.len < RING);
        self.items[(self.head + self.len) % RING] = address;
        self.len += 1;
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let address = self.items[self.head];
        self.head = (self.head + 1) % RING;
        self.len -= 1;
        Some(address)
    }
}

/// What marking works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MarkEnv<'a> {
    pub(crate) heap: &'a MHeap,
    pub(crate) pool: &'a WorkPool,
    pub(crate) locks: LockView,
}

/// The queues of one worker.
#[derive(Debug)]
struct Core {
    stack: WorkBuf,
    pending: Ring,
    objects: Ring,
    marked_bytes: u64,
}

/// One worker's part of the grey queue.
#[derive(Debug)]
pub(crate) struct Marker {
    found: PtrBuf,
    core: Core,
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

/// Shades the object at `address`; returns its class if this call marked it.
#[inline(always)]
fn shade(heap: &MHeap, address: usize) -> Option<(usize, ClassRef)> {
    let offset = heap.offset_of(address)?;
    if !heap.mark.set(offset) {
        return None;
    }
    let class = heap.class_at(offset)?;
    Some((offset, class))
}

impl Core {
    #[inline(always)]
    fn test(&mut self, heap: &MHeap, address: usize) {
        if let Some((offset, class)) = shade(heap, address) {
            self.marked_bytes += heap.slot_bytes(offset, class) as u64;
            if class.scan {
                // [K2]
                self.stack.push(address);
            }
        }
    }

    #[inline(always)]
    fn find(&mut self, heap: &MHeap, address: usize) {
        if let Some(offset) = heap.offset_of(address) {
            heap.mark.prefetch(offset);
            if self.pending.len == PENDING_HIGH {
                while self.pending.len > PENDING_LOW {
                    if let Some(oldest) = self.pending.pop() {
                        self.test(heap, oldest);
                    }
                }
            }
            self.pending.push(address);
        }
    }

    fn test_all_pending(&mut self, heap: &MHeap) {
        while let Some(address) = self.pending.pop() {
            self.test(heap, address);
        }
    }
}

/// Moves what a trace found on to the pending ring.
struct SpillTo<'a> {
    core: &'a mut Core,
    heap: &'a MHeap,
}

impl Spill for SpillTo<'_> {
    fn spill(&mut self, found: &mut PtrBuf) {
        for &address in found.as_slice() {
            self.core.find(self.heap, address);
        }
        found.clear();
    }
}

impl Marker {
    pub(crate) fn new() -> Self {
        Self {
            found: PtrBuf::new(),
            core: Core {
                stack: Vec::with_capacity(WORK_BUF),
                pending: Ring::new(),
                objects: Ring::new(),
                marked_bytes: 0,
            },
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
        report(&mut Tracer::new(&mut self.found, &mut spill, env.locks));
        spill.spill(&mut self.found);
    }

    /// Shades the addresses in `buf` and empties it.
    pub(crate) fn shade_buffer(&mut self, env: MarkEnv<'_>, buf: &mut PtrBuf) {
        SpillTo {
            core: &mut self.core,
            heap: env.heap,
        }
        .spill(buf);
        self.core.test_all_pending(env.heap);
    }

    /// Scans until nothing is left or `budget` bytes have been scanned.
    pub(crate) fn drain(&mut self, env: MarkEnv<'_>, budget: u64) -> Drained {
        let end = self.scanned_bytes.saturating_add(budget);
        let mut until_share = SHARE_EVERY;
        loop {
            self.fetch_objects();
            let Some(object) = self.core.objects.pop() else {
                if self.core.pending.len == 0 {
                    return Drained::Empty;
                }
                self.core.test_all_pending(env.heap);
                continue;
            };
            self.scan(env, object);
            until_share -= 1;
            if until_share == 0 {
                until_share = SHARE_EVERY;
                self.share(env);
                if self.scanned_bytes >= end {
                    return Drained::Budget;
                }
            }
        }
    }

    #[inline(always)]
    fn fetch_objects(&mut self) {
        while self.core.objects.len < OBJECTS_HIGH {
            let Some(object) = self.core.stack.pop() else {
                return;
            };
            prefetch(std::ptr::without_provenance(object));
            self.core.objects.push(object);
        }
    }

    #[inline(always)]
    fn scan(&mut self, env: MarkEnv<'_>, object: usize) {
        let heap = env.heap;
        let Some(offset) = heap.offset_of(object) else {
            return;
        };
        let Some(class) = heap.class_at(offset) else {
            return;
        };
        let Some(info) = class.info else { return };
        if class.kind == Kind::Large {
            self.scan_large(env, offset, class, info);
            return;
        }
        self.scanned_bytes += class.slot as u64;
        let mut spill = SpillTo {
            core: &mut self.core,
            heap,
        };
        let mut tracer = Tracer::new(&mut self.found, &mut spill, env.locks);
        // SAFETY: [O1] [K1] the object was published before its address was found, its span's class names its type, and
        // `slot` is the size of its slot.
        unsafe { (info.trace)(heap.at(offset), class.slot, &mut tracer) };
        spill.spill(&mut self.found);
    }

    #[cold]
    fn scan_large(&mut self, env: MarkEnv<'_>, offset: usize, class: ClassRef, info: &TypeInfo) {
        let heap = env.heap;
        let head = heap.head_at(offset);
        let start = ((head as usize) << PAGE_SHIFT) + heap.object_at(head);
        let slot = heap.slot_bytes(start, class);
        let at = heap.at(start);
        // SAFETY: [O1] [K1].
        let len_of = |items: &Items| unsafe { (items.len)(at, slot) };
        let work = info.items.as_ref().map(|items| (items, len_of(items)));
        let piece = work.map_or(0, |(items, _)| (offset - start) / stride(items));
        if let Some((items, len)) = work
            && let Some(next) = next_piece(items, len, piece)
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
        let mut tracer = Tracer::new(&mut self.found, &mut spill, env.locks);
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
        spill.spill(&mut self.found);
    }

    /// Gives the older half of the stack to the pool, if there is much of it or others are short of work. Little stays
    /// with a worker whose thread may lose its processor at any moment.
    fn share(&mut self, env: MarkEnv<'_>) {
        let len = self.core.stack.len();
        if len > WORK_BUF || len >= SHARE_MIN && env.pool.is_hungry() {
            let keep = self.core.stack.split_off(len - len / 2);
            env.pool.put(std::mem::replace(&mut self.core.stack, keep));
        }
    }

    /// Gives everything to the pool.
    pub(crate) fn give_all(&mut self, env: MarkEnv<'_>) {
        self.core.test_all_pending(env.heap);
        while let Some(object) = self.core.objects.pop() {
            self.core.stack.push(object);
        }
        if !self.core.stack.is_empty() {
            env.pool.put(std::mem::take(&mut self.core.stack));
        }
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
