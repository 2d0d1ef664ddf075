//! Whole cycles over what is not an edge of a small object: locks, lists in several pieces, and frames. Objects go from
//! one to another. The world runs while they are marked, or is stopped.

use std::ptr::NonNull;

use super::*;
use crate::gc::frames::{FrameHeader, scan_before_open};
use crate::gc::lock_word::{LockWord, MarkView};
use crate::object::trace::LockView;
use crate::object::type_info::{Slice, TypeInfo};
use crate::sys::random_model::explore;
#[cfg(feature = "sabotage")]
use crate::sys::random_model::fails_with;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::UnsafeCell;

/// Edges of the one object that all have in common: a lock, and a list.
const LOCK: usize = 0;
const LIST: usize = 1;
/// Objects in a lock, and in a frame.
const INSIDE: usize = 2;
/// Two items are a piece of a list.
const ITEMS: usize = 4;

/// Edges that are written by one thread at a time.
struct Content(UnsafeCell<[usize; INSIDE]>);

impl Content {
    fn new() -> Self {
        Self(UnsafeCell::new([0; INSIDE]))
    }

    fn report(&self, tracer: &mut Tracer<'_>) {
        // SAFETY: as in `GcLock::trace` and `Frame::trace`, whose rules the callers keep.
        for edge in self.0.with(|content| unsafe { *content }) {
            tracer.edge(edge);
        }
    }

    fn swap(&self, place: usize, new: usize) -> usize {
        // SAFETY: the caller holds the lock, or has opened the frame.
        self.0
            .with_mut(|content| std::mem::replace(unsafe { &mut (*content)[place] }, new))
    }
}

/// `GcLock<[_; INSIDE]>`.
struct Locked {
    word: LockWord,
    content: Content,
}

// SAFETY: [L1] [L2].
unsafe impl Sync for Locked {}

// SAFETY: as `GcLock`.
unsafe impl Trace for Locked {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        let LockView::Concurrent { cycle } = tracer.locks() else {
            return self.content.report(tracer);
        };
        match self.word.begin_mark(cycle, |_| false) {
            MarkView::Logged | MarkView::Foreign => {}
            MarkView::Forgotten => unreachable!("no guard is forgotten here"),
            MarkView::Shared => {
                self.content.report(tracer);
                self.word.finish_mark(cycle);
            }
        }
    }
}

/// An item of a list: 16 KiB with an edge.
#[repr(C)]
struct Item {
    edge: AtomicUsize,
    bulk: [u64; 2 << 10],
}

// SAFETY: as for a node.
unsafe impl Trace for Item {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        // Acquire: as in `Edge::load` of `api::cell`.
        tracer.edge(self.edge.load(Ordering::Acquire));
    }
}

/// `Frame`'s box.
#[repr(C)]
struct FrameBox {
    header: FrameHeader,
    content: Content,
}

unsafe fn trace_frame(header: NonNull<FrameHeader>, tracer: &mut Tracer<'_>) {
    // SAFETY: the header is the first field of a box; [F2].
    unsafe { header.cast::<FrameBox>().as_ref() }
        .content
        .report(tracer);
}

unsafe fn free_frame(header: NonNull<FrameHeader>) {
    // SAFETY: [F1] leaked in `Mutator::frame`.
    drop(unsafe { Box::from_raw(header.cast::<FrameBox>().as_ptr()) });
}

/// An object of another kind than a node, at an address which leads to one.
fn at<'a, T>(address: usize) -> &'a T {
    // SAFETY: the callers have it from an edge of the object that all have in common, which is never cut.
    unsafe { &*std::ptr::with_exposed_provenance(address) }
}

/// Where an object may be.
#[derive(Clone, Copy)]
enum Place {
    Lock(usize),
    List(usize),
    Frame(usize),
}

fn any_place() -> Place {
    match random(3) {
        0 => Place::Lock(random(INSIDE)),
        1 => Place::List(random(ITEMS)),
        _ => Place::Frame(random(INSIDE)),
    }
}

impl Mutator {
    fn fresh(&self, info: &'static TypeInfo, id: TypeId, size: usize) -> usize {
        let wanted = Wanted {
            info: Some((info, id)),
            size,
            align: 8,
            exact: true,
        };
        let fresh = self.collector.alloc_slow(self.state(), wanted);
        fresh.expect("room in the heap").address
    }

    fn alloc_lock(&self) -> usize {
        let info = Sized_::<Locked>::INFO;
        let address = self.fresh(info, TypeId::of::<Locked>(), size_of::<Locked>());
        let new = Locked {
            word: LockWord::new(),
            content: Content::new(),
        };
        let to: *mut Locked = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: a fresh slot of its size.
        unsafe { to.write(new) };
        address
    }

    /// `Mutator::alloc_slice`, of a list of null edges.
    fn alloc_list(&self) -> usize {
        let layout = Slice::<Item>::layout(ITEMS).expect("it is small");
        let wanted = Wanted {
            info: Some((Slice::<Item>::INFO, TypeId::of::<[Item]>())),
            size: layout.size(),
            align: layout.align(),
            exact: false,
        };
        let fresh = self.collector.alloc_slow(self.state(), wanted);
        let fresh = fresh.expect("room in the heap");
        let to: *mut Item = std::ptr::with_exposed_provenance_mut(fresh.address);
        for i in 0..ITEMS {
            let item = to.wrapping_add(i);
            // SAFETY: a fresh slot for so many items.
            unsafe { (&raw mut (*item).edge).write(AtomicUsize::new(0)) };
            // SAFETY: as above.
            unsafe { (&raw mut (*item).bulk).write_bytes(0, 1) };
        }
        let len = Slice::<Item>::len_word(to.cast(), fresh.slot);
        // SAFETY: [O2] the slot's last word.
        unsafe { len.write(ITEMS) };
        fresh.address
    }

    /// `Frame::new`.
    fn frame(&self) -> NonNull<FrameBox> {
        let new = FrameBox {
            header: FrameHeader::new(self.collector.id, trace_frame, free_frame),
            content: Content::new(),
        };
        let frame = NonNull::from(Box::leak(Box::new(new)));
        let cycle = self.local().cycle.get();
        self.collector.frames.add(frame.cast(), cycle);
        frame
    }

    /// `Frame::enter`.
    fn open(&self, frame: NonNull<FrameBox>) -> &Content {
        let local = self.local();
        let cycle = local.cycle.get();
        if local.duty.marks() && !sabotage::is_on(Fault::FrameOpenedUnscanned) {
            // SAFETY: 1. the frame is this mutator's.
            (self.collector).shade_all_later(local, |t| unsafe {
                scan_before_open(frame.cast(), cycle, t)
            });
        }
        // SAFETY: alive until it is removed.
        &unsafe { frame.as_ref() }.content
    }

    /// `GcLock::write` and what is done under it.
    fn write<R>(&self, lock: usize, f: impl FnOnce(&Content) -> R) -> R {
        let Locked { word, content } = at(lock);
        let local = self.local();
        let cycle = local.cycle.get();
        let logged = loop {
            match word.try_write(cycle) {
                Some(logged) => break logged,
                None => yield_now(),
            }
        };
        if local.duty.marks() && logged != cycle && !sabotage::is_on(Fault::LockNotLogged) {
            (self.collector).shade_all_later(local, |tracer| content.report(tracer));
        }
        let out = f(content);
        word.unlock_write();
        out
    }

    /// `GcCell::swap`.
    fn swap_edge(&self, edge: &AtomicUsize, new: usize) -> usize {
        // Acquire (all): as in `GcCell`.
        let mut old = edge.load(Ordering::Acquire);
        loop {
            before_store(
                self.local(),
                || &*self.collector,
                || Change { at: 0, old, new },
            );
            match edge.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(old) => return old,
                Err(now) => old = now,
            }
        }
    }

    /// Puts `new` there, and takes what was there.
    fn swap(&self, place: Place, frame: NonNull<FrameBox>, new: usize) -> usize {
        let common = self.roots[0].target();
        match place {
            Place::Lock(i) => self.write(load(common, LOCK), |content| content.swap(i, new)),
            Place::Frame(i) => self.open(frame).swap(i, new),
            Place::List(i) => {
                let list = load(common, LIST);
                let item: &Item = at(list + i * size_of::<Item>());
                self.swap_edge(&item.edge, new)
            }
        }
    }
}

/// Objects go from place to place: into one, out of it, and into another one. What comes out last is let go.
fn move_some(mutator: &Mutator, frame: NonNull<FrameBox>) {
    let mut held = match random(3) {
        0 => mutator.alloc([0; EDGES]),
        _ => 0,
    };
    for _ in 0..=random(4) {
        held = mutator.swap(any_place(), frame, held);
        if held != 0 {
            node(held);
        }
    }
}

fn run(collector: &Arc<Collector>, shared: RawRoot, turns: usize) {
    let mut mutator = Mutator::attach(collector);
    mutator.roots.push(shared);
    let frame = mutator.frame();
    for _ in 0..turns {
        move_some(&mutator, frame);
        match random(8) {
            0 => mutator.collect(),
            1 => mutator.blocking(|_| yield_now()),
            _ => mutator.safepoint(),
        }
    }
    // `Drop` of the frame.
    collector.frames.remove(frame.cast());
    mutator.detach();
}

/// Mutators that move objects between a lock, a list and their frames, over several cycles.
fn program(mutators: usize, turns: usize, cycles: usize, stop_the_world: bool) {
    let collector = start_with(Settings {
        stop_the_world,
        ..settings(u64::MAX)
    });
    let mut first = Mutator::attach(&collector);
    let common = first.alloc_node::<0>([0; EDGES]);
    first.root(common);
    first.set(common, LOCK, first.alloc_lock());
    first.set(common, LIST, first.alloc_list());
    let frame = first.frame();
    for place in [Place::Lock(0), Place::List(ITEMS - 1), Place::Frame(0)] {
        let inside = first.alloc([0; EDGES]);
        first.swap(place, frame, inside);
    }
    let threads = (0..mutators)
        .map(|_| {
            let (collector, shared) = (collector.clone(), first.roots[0].share());
            shuttle::thread::spawn(move || run(&collector, shared, turns))
        })
        .collect();
    first.collect_beside(threads, cycles);
    for place in [Place::Lock(0), Place::List(ITEMS - 1), Place::Frame(0)] {
        let inside = first.swap(place, frame, 0);
        if inside != 0 {
            node(inside);
        }
    }
    first.collect();
    collector.frames.remove(frame.cast());
    first.detach();
    collector.shut_down();
}

/// Only the main thread, so that what a mutator does hides nothing: who marks in which cycle.
fn alone(cycles: usize, stop_the_world: bool) {
    program(0, 0, cycles, stop_the_world);
}

#[test]
fn shuttle_kinds_over_cycles() {
    explore(300, || program(2, 4, 3, false));
}

#[test]
fn shuttle_kinds_in_a_stopped_world() {
    explore(300, || program(2, 4, 3, true));
}

#[test]
fn shuttle_workers_over_cycles() {
    explore(600, || alone(4, false));
    explore(300, || alone(4, true));
}

/// What a worker says that marks where it must not.
#[cfg(feature = "sabotage")]
const LATE: &[&str] = &[
    "marks in cycle",
    "left something behind",
    "has not ended",
    "was not marked",
];

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_workers_with_a_broken_pool_fail() {
    for fault in [Fault::PoolClosedLate, Fault::StaleCycle] {
        fails_with(fault, 2000, LATE, || alone(4, false));
    }
}

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_workers_that_are_not_awaited_fail() {
    fails_with(Fault::EndsOneWorkerEarly, 2000, LATE, || alone(4, false));
}

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_stopped_world_that_does_not_await_its_end_fails() {
    fails_with(Fault::EndNotAwaited, 2000, LATE, || alone(4, true));
}

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_kinds_with_faults_fail() {
    for fault in [
        Fault::LockNotLogged,
        Fault::FrameOpenedUnscanned,
        Fault::FrameNotScanned,
        Fault::NoDeletionBarrier,
        Fault::PieceLost,
        Fault::PieceRounded,
    ] {
        fails_with(fault, 3000, LOST, || program(2, 4, 3, false));
    }
}
