//! Frames: rooted values owned by Rust code, such as an operand stack.
//!
//! A frame's value sits in a box that the table lists. While marking runs, a frame is scanned once: by a worker, or by
//! whoever opens it first (scan before open). After that its content is black for the cycle, and changes without a
//! barrier. Outside marking, opening costs nothing: a scan cannot begin before the opener's mutator has passed a
//! safepoint, and a guard does not live that long. A guard that was forgotten changes nothing either: by the time of
//! the next cycle its borrow of the mutator is over.
//!
//! A verifier is no worker: it looks while mutators stand in the middle of their sections, perhaps with a frame open and half
//! written. Each opening notes its section ([`note_opening`](FrameHeader::note_opening), one store), and a verifier leaves out
//! the frames of sections in which somebody stands ([`Standstill`]).
//!
//! **Invariants**
//! - `[F1]` A box is on the list until its frame is dropped; while marking runs, or a verifier looks at all frames, it is
//!   only marked dead, and freed after.
//! - `[F2]` The value is read by a scan only between `claim` and `finish_scan`, and changed only by the opener when no scan
//!   is going on.
//! - `[F3]` The value is read by a verifier only if the frame was not opened in a section in which a mutator stands.

use std::ptr::NonNull;

use crate::base::crowd::shrink_after_crowd;
use crate::gc::standstill::{Section, Standstill};
use crate::gc::stopped::Stopped;
use crate::object::trace::Tracer;
use crate::sys::lock::{Rank, Ranked};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU64, AtomicUsize, Ordering, yield_now};

/// In `FrameHeader::scan`: a scan is going on.
const SCANNING: u64 = 1 << 32;

/// What the table knows of a frame's box. First in the box.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct FrameHeader {
    /// The cycle in which the value was last scanned, and [`SCANNING`].
    scan: AtomicU64,
    /// The section in which the frame was last opened.
    opened: AtomicU64,
    /// The frame's place on the list. Under the list's lock.
    place: AtomicUsize,
    heap: usize,
    trace: unsafe fn(NonNull<FrameHeader>, &mut Tracer<'_>),
    free: unsafe fn(NonNull<FrameHeader>),
}

/// Who scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The caller; it calls `finish_scan`.
    Mine,
    /// It has been done in this cycle.
    Done,
    /// Somebody else is at it.
    Busy,
}

impl FrameHeader {
    /// A header for a box that `trace` and `free` know.
    pub(crate) fn new(
        heap: usize,
        trace: unsafe fn(NonNull<Self>, &mut Tracer<'_>),
        free: unsafe fn(NonNull<Self>),
    ) -> Self {
        Self {
            scan: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            place: AtomicUsize::new(0),
            heap,
            trace,
            free,
        }
    }

    /// The number of the heap the frame belongs to.
    pub(crate) fn heap(&self) -> usize {
        self.heap
    }

    /// The frame is opened in `section`. [F3]
    #[inline]
    pub(crate) fn note_opening(&self, section: Section) {
        // Relaxed: who reads it has stopped the opener since.
        self.opened.store(section, Ordering::Relaxed);
    }

    fn may_be_open(&self, standstill: &Standstill) -> bool {
        // Relaxed: as above.
        standstill.may_be_open(self.opened.load(Ordering::Relaxed))
    }

    /// Claims the scan of `cycle`.
    pub(crate) fn claim(&self, cycle: u32) -> Claim {
        // Acquire: pairs with the Release in `finish_scan`.
        let mut word = self.scan.load(Ordering::Acquire);
        loop {
            if word & SCANNING != 0 {
                return Claim::Busy;
            }
            if word == u64::from(cycle) {
                return Claim::Done;
            }
            let next = u64::from(cycle) | SCANNING;
            // Acquire: what the last opener wrote is seen (its mutator's stop released it). Acquire on failure: looked at.
            match self
                .scan
                .compare_exchange(word, next, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => return Claim::Mine,
                Err(now) => word = now,
            }
        }
    }

    /// The scan of `cycle` is done; the value may change.
    pub(crate) fn finish_scan(&self, cycle: u32) {
        // Release: our reads of the value come before the opener's writes; pairs with the Acquire in `claim`.
        self.scan.store(u64::from(cycle), Ordering::Release);
    }
}

/// Makes sure that `frame` has been scanned in `cycle`, by this thread or another.
///
/// # Safety
/// 1. The frame is alive, and the caller may read its value.
pub(crate) unsafe fn scan_before_open(
    frame: NonNull<FrameHeader>,
    cycle: u32,
    tracer: &mut Tracer<'_>,
) {
    // SAFETY: clause 1.
    let header = unsafe { frame.as_ref() };
    loop {
        match header.claim(cycle) {
            Claim::Done => return,
            Claim::Busy => yield_now(),
            Claim::Mine => {
                // SAFETY: [F2] claimed.
                unsafe { (header.trace)(frame, tracer) };
                header.finish_scan(cycle);
                return;
            }
        }
    }
}

/// The list of frames.
#[derive(Debug)]
pub(crate) struct FrameTable {
    inner: Ranked<Inner>,
}

#[derive(Debug)]
struct Inner {
    frames: Vec<FrameRef>,
    marking: bool,
    /// Verifiers that look at the frames just now.
    lookers: u32,
    dead: Vec<FrameRef>,
}

/// For how many frames the list keeps room, however few there are.
const LISTED: usize = 1024;

/// A box on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameRef(NonNull<FrameHeader>);

// SAFETY: the value in the box is handed between threads by the rules of `[F1]` and `[F2]`; `Trace` makes it shareable.
unsafe impl Send for FrameRef {}

impl FrameTable {
    pub(crate) fn new() -> Self {
        Self {
            inner: Ranked::new(
                Rank::Frames,
                Inner {
                    frames: Vec::new(),
                    marking: false,
                    lookers: 0,
                    dead: Vec::new(),
                },
            ),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().frames.len()
    }

    /// Lists a frame. One that is made while marking runs counts as scanned in `cycle`. A `Gc` in it
    /// needs no scan: its maker has loaded it since its last stop, so the object was reachable when
    /// marking began [G1] or is black [G2].
    pub(crate) fn add(&self, frame: NonNull<FrameHeader>, cycle: u32) {
        let mut inner = self.inner.lock();
        // SAFETY: [F1] the box was just made by the caller.
        let header = unsafe { frame.as_ref() };
        if inner.marking {
            header.finish_scan(cycle);
        }
        // Relaxed: under the list's lock.
        header.place.store(inner.frames.len(), Ordering::Relaxed);
        inner.frames.push(FrameRef(frame));
    }

    /// The frame is dropped: freed now, or when nobody may be reading it any more.
    pub(crate) fn remove(&self, frame: NonNull<FrameHeader>) {
        {
            let mut inner = self.inner.lock();
            let marking = inner.marking && !sabotage::is_on(Fault::FrameUnlistedWhileMarking);
            if marking || inner.lookers > 0 {
                inner.dead.push(FrameRef(frame));
                return;
            }
            inner.unlist(FrameRef(frame));
        }
        // Outside the lock: the value's drop is user code.
        // SAFETY: [F1] off the list and dropped by its owner.
        unsafe { free(frame) }
    }

    /// Scans may begin. Returns the number of root jobs: one a frame.
    pub(crate) fn begin_marking(&self, _stopped: &Stopped<'_>) -> usize {
        let mut inner = self.inner.lock();
        inner.marking = true;
        inner.frames.len()
    }

    /// Nobody scans any more.
    pub(crate) fn end_marking(&self, _stopped: &Stopped<'_>) {
        self.inner.lock().marking = false;
    }

    /// Reports what frame `job` holds, unless somebody has done it in `cycle`.
    pub(crate) fn scan(&self, job: usize, cycle: u32, tracer: &mut Tracer<'_>) {
        if sabotage::is_on(Fault::FrameNotScanned) {
            return;
        }
        let Some(FrameRef(frame)) = self.inner.lock().frames.get(job).copied() else {
            return;
        };
        // SAFETY: [F1] marking runs, so the box stays.
        let header = unsafe { frame.as_ref() };
        // Busy: the opener reports it before its mutator's next safepoint, which marking waits for.
        if header.claim(cycle) == Claim::Mine {
            // SAFETY: [F2] claimed.
            unsafe { (header.trace)(frame, tracer) };
            header.finish_scan(cycle);
        }
    }

    /// Reports what every frame holds, with the world stopped, but for those that may be open. Then
    /// [`free_dead`](Self::free_dead), out of the stop: it runs user code.
    pub(crate) fn scan_all(&self, standstill: &Standstill, tracer: &mut Tracer<'_>) {
        let frames: Vec<_> = {
            let mut inner = self.inner.lock();
            inner.lookers += 1;
            inner.frames.clone()
        };
        for FrameRef(frame) in frames {
            // SAFETY: [F1] this thread looks, so what threads without a mutator drop meanwhile stays.
            let header = unsafe { frame.as_ref() };
            if header.may_be_open(standstill) {
                tracer.leave_out();
                continue;
            }
            // SAFETY: [F3] the world is stopped, and it is closed.
            unsafe { (header.trace)(frame, tracer) };
        }
        self.inner.lock().lookers -= 1;
    }

    /// Frees the frames that were dropped while somebody might have been reading them, if nobody does any more.
    pub(crate) fn free_dead(&self) {
        let dead = {
            let mut inner = self.inner.lock();
            if inner.marking || inner.lookers > 0 {
                return;
            }
            let dead = std::mem::take(&mut inner.dead);
            for &frame in &dead {
                inner.unlist(frame);
            }
            dead
        };
        for FrameRef(frame) in dead {
            // SAFETY: [F1] off the list; dropped by its owner.
            unsafe { free(frame) }
        }
    }
}

impl Inner {
    /// Takes a frame off the list, while nobody goes by the places on it. O(1): the last one moves to its place.
    fn unlist(&mut self, frame: FrameRef) {
        // Relaxed (both): under the list's lock.
        // SAFETY: [F1] it is on the list.
        let place = unsafe { frame.0.as_ref() }.place.load(Ordering::Relaxed);
        debug_assert_eq!(self.frames.get(place), Some(&frame));
        self.frames.swap_remove(place);
        shrink_after_crowd(&mut self.frames, LISTED);
        if let Some(moved) = self.frames.get(place) {
            // SAFETY: as above.
            unsafe { moved.0.as_ref() }
                .place
                .store(place, Ordering::Relaxed);
        }
    }
}

/// Frees a frame's box.
///
/// # Safety
/// 1. The box is off the list and its owner is gone.
unsafe fn free(frame: NonNull<FrameHeader>) {
    // SAFETY: clause 1.
    let free = unsafe { frame.as_ref() }.free;
    // SAFETY: clause 1; `free` was given for this box.
    unsafe { free(frame) }
}
