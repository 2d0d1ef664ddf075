//! G: a future, its header, and later its output, in one allocation.
//!
//! **Invariants**
//! - `[A4]` A [`GRef`] owns one reference of the count in the header, which keeps the allocation.
//! - `[A5]` The header is the first field of every [`Cell`](cell::Cell), so a pointer to it is a pointer to the cell; the
//!   vtable is that of the cell's type.
//! - `[A6]` The runtime outlives each of its Gs' places in the registry, and a G that is in a queue or about to be put
//!   there has one: the runtime keeps a reference to itself, which it gives up when its last thread ends and no G is left.

pub(crate) mod cell;
pub(crate) mod join;
pub(crate) mod state;
pub(crate) mod waker;

use std::fmt;
use std::panic::Location;
use std::ptr::NonNull;

use crate::sched::list::{Chained, Linked, Links, Next};
use crate::sched::shared::Shared;
use crate::sched::task::state::State;
use crate::sched::wait::WaitReason;
use crate::sched::wakers::KeptWaker;
use crate::sys::sync::{AtomicU32, AtomicU64, Ordering, UnsafeCell};

/// What is done with a G without knowing its type.
pub(crate) struct Vtable {
    /// Polls it: true if it has ended. RUNNING is set. [A1]
    pub(crate) poll: unsafe fn(NonNull<Header>) -> bool,
    /// Drops the future and stores that it was cancelled. RUNNING is set. [A1]
    pub(crate) cancel: unsafe fn(NonNull<Header>),
    /// Moves the output to the `Option<Result<T, JoinError>>` at the address. DONE is set, and the caller is the handle.
    pub(crate) take_output: unsafe fn(NonNull<Header>, *mut ()),
    /// Drops the output. DONE is set, and it is the caller's.
    pub(crate) drop_output: unsafe fn(NonNull<Header>),
    /// Frees the memory. [A3]
    pub(crate) free: unsafe fn(NonNull<Header>),
}

/// What every G has: 96 bytes, so that a small future and its output fit into two cache lines with it.
pub(crate) struct Header {
    pub(crate) state: State,
    vtable: &'static Vtable,
    /// [A6]
    pub(crate) shared: NonNull<Shared>,
    /// In the list of all Gs of its shard, under that list's lock.
    all: Links<Header>,
    /// In the global queue, under its lock; the queue's reference is what is in the chain.
    queue: Next<Queued>,
    pub(crate) spawned_at: &'static Location<'static>,
    /// Boxed twice: few have one.
    pub(crate) name: Option<Box<Box<str>>>,
    /// Even: what it waits on, an address, or 0. Odd: when it became runnable, in nanoseconds since the runtime was built,
    /// times 2, if it is one of the sample.
    note: AtomicU64,
    /// When it was spawned, in milliseconds since the runtime was built.
    pub(crate) born_ms: u32,
    /// In one word: the reason of the last wait that the last poll has noted, in 5 bits, and below them which list of all Gs
    /// it is in, which stays.
    noted: AtomicU32,
    /// The handle's waker. [A1]-like: written by the handle while HAS_JOINER is clear, read by whoever set DONE.
    joiner: UnsafeCell<Option<KeptWaker>>,
}

// SAFETY: 1. `all` is the only one.
unsafe impl Linked for Header {
    fn links(node: NonNull<Self>) -> NonNull<Links<Self>> {
        // SAFETY: inside the header.
        NonNull::from(unsafe { &(*node.as_ptr()).all })
    }
}

/// The parts of [`Header::noted`].
const SHARD: u32 = 0xff;
const REASON_SHIFT: u32 = 8;
const REASON: u32 = 0x1f << REASON_SHIFT;

const _: () = assert!(WaitReason::COUNT <= 32);

/// A G in the global queue.
#[repr(transparent)]
pub(crate) struct Queued(Header);

// SAFETY: 1. `queue` is the only one.
unsafe impl Chained for Queued {
    fn next(node: NonNull<Self>) -> NonNull<Next<Self>> {
        let header = node.as_ptr().cast::<Header>();
        // SAFETY: inside the header.
        NonNull::from(unsafe { &(*header).queue })
    }
}

impl Header {
    /// What a new G has noted.
    pub(crate) fn nothing_noted(shard: u8) -> AtomicU32 {
        AtomicU32::new(u32::from(shard) | (WaitReason::Unknown as u32) << REASON_SHIFT)
    }

    /// Which list of all Gs it is in.
    pub(crate) fn shard(&self) -> usize {
        // Relaxed: this part does not change.
        (self.noted.load(Ordering::Relaxed) & SHARD) as usize
    }

    pub(crate) fn set_wait(&self, reason: WaitReason, on: usize) {
        self.note.store(on as u64 & !1, Ordering::Relaxed);
        // Relaxed (all): read by reports, and by whoever has seen the G wait through its state.
        let noted = self.noted.load(Ordering::Relaxed);
        // A wait for a thread stays, whatever the same poll waits for besides: it decides whether calls are looked at.
        let thread = (WaitReason::Thread as u32) << REASON_SHIFT;
        let reason = if noted & REASON == thread {
            thread
        } else {
            (reason as u32) << REASON_SHIFT
        };
        self.noted
            .store(noted & !REASON | reason, Ordering::Relaxed);
    }

    /// It runs a blocking call, or does no more.
    pub(crate) fn set_in_call(&self, is_in: bool) {
        let reason = if is_in {
            WaitReason::Call
        } else {
            WaitReason::Unknown
        };
        // Relaxed (both): as above.
        let noted = self.noted.load(Ordering::Relaxed);
        let reason = (reason as u32) << REASON_SHIFT;
        self.noted
            .store(noted & !REASON | reason, Ordering::Relaxed);
    }

    fn clear_wait(&self) {
        // Relaxed (both): as above.
        let shard = self.noted.load(Ordering::Relaxed) & SHARD;
        let none = (WaitReason::Unknown as u32) << REASON_SHIFT;
        self.noted.store(shard | none, Ordering::Relaxed);
    }

    pub(crate) fn wait_reason(&self) -> WaitReason {
        // Relaxed: as above.
        let noted = self.noted.load(Ordering::Relaxed);
        WaitReason::of(((noted & REASON) >> REASON_SHIFT) as u8)
    }

    /// What it waits on, if the wait has named it.
    pub(crate) fn waits_on(&self) -> Option<usize> {
        // Relaxed: as above.
        let note = self.note.load(Ordering::Relaxed);
        (note != 0 && note & 1 == 0).then_some(note as usize)
    }

    /// It has become runnable at that time, and how long it takes to run is to be measured.
    pub(crate) fn sample(&self, runnable_at_ns: u64) {
        // Relaxed: the queue hands it on.
        self.note
            .store((runnable_at_ns << 1) | 1, Ordering::Relaxed);
    }

    /// When it became runnable, if it is one of the sample. Once.
    pub(crate) fn take_sample(&self) -> Option<u64> {
        // Relaxed (both): the queue has handed it on.
        let note = self.note.load(Ordering::Relaxed);
        if note & 1 == 0 {
            return None;
        }
        self.note.store(0, Ordering::Relaxed);
        Some(note >> 1)
    }
}

/// A reference to a G.
pub(crate) struct GRef(NonNull<Header>);

// SAFETY: [A4] the header is shared by atomics; the future inside is Send, as `spawn` demands, and [A1] hands it over.
unsafe impl Send for GRef {}
// SAFETY: as above.
unsafe impl Sync for GRef {}

impl GRef {
    /// Takes over a reference.
    ///
    /// # Safety
    /// 1. The caller owns one reference, and gives it up.
    pub(crate) unsafe fn from_raw(header: NonNull<Header>) -> Self {
        Self(header)
    }

    /// Gives the reference up to whoever calls [`from_raw`](Self::from_raw).
    pub(crate) fn into_raw(self) -> NonNull<Header> {
        let header = self.0;
        #[allow(clippy::mem_forget, reason = "the reference is handed over")]
        std::mem::forget(self);
        header
    }

    pub(crate) fn as_ptr(&self) -> NonNull<Header> {
        self.0
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: [A4].
        unsafe { self.0.as_ref() }
    }

    fn vtable(&self) -> &'static Vtable {
        self.header().vtable
    }

    /// Polls it; true if it has ended.
    ///
    /// # Safety
    /// 1. [A1] The caller has set RUNNING.
    pub(crate) unsafe fn poll(&self) -> bool {
        self.header().clear_wait();
        // SAFETY: [A5], clause 1.
        unsafe { (self.vtable().poll)(self.0) }
    }

    /// Drops its future.
    ///
    /// # Safety
    /// 1. [A1] The caller has set RUNNING.
    pub(crate) unsafe fn cancel(&self) {
        // SAFETY: [A5], clause 1.
        unsafe { (self.vtable().cancel)(self.0) }
    }

    /// The G has ended: DONE, and who waits for that is woken.
    pub(crate) fn end(&self) {
        let end = self.header().state.end();
        if end.unwanted {
            // SAFETY: [A5]; the handle is gone, so the output is ours.
            unsafe { (self.vtable().drop_output)(self.0) }
        } else if end.has_joiner {
            self.header().joiner.with(|joiner| {
                // SAFETY: HAS_JOINER was set when DONE was: the waker is ours to read, and nobody writes it any more.
                if let Some(waker) = unsafe { &*joiner } {
                    // [D2] any executor's.
                    waker.wake_by_ref();
                }
            });
        }
    }
}

impl Clone for GRef {
    fn clone(&self) -> Self {
        self.header().state.add_reference();
        Self(self.0)
    }
}

impl Drop for GRef {
    fn drop(&mut self) {
        if self.header().state.drop_reference() {
            // SAFETY: [A3] it was the last.
            unsafe { (self.vtable().free)(self.0) }
        }
    }
}

impl fmt::Debug for GRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header();
        f.debug_struct("G")
            .field("spawned_at", &format_args!("{}", header.spawned_at))
            .field("state", &header.state)
            .finish_non_exhaustive()
    }
}
