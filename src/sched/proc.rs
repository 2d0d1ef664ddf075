//! P: the right to run.
//!
//! **Invariant**
//! - `[J1]` A P is held by one M at a time, and only that M's thread touches the P's own part. It changes hands through the
//!   scheduler's lock, an M's parker, or the status.

use std::any::Any;

use crate::sched::runq::RunQueue;
use crate::sys::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering, UnsafeCell};

/// Whose a P is. Only the holder moves it, but for Blocked, which anybody may end by compare-and-exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    /// In the list of idle ones, or of spare ones.
    Idle = 0,
    /// An M runs Gs with it.
    Running = 1,
    /// Its M is in a blocking call; whoever takes it may run it.
    Blocked = 2,
}

/// What a P's M works with.
///
/// **Concurrency:** [J1].
#[derive(Debug)]
pub(crate) struct Own {
    /// The mutator of the heap, which the layer above has made: a `Box` of a type that it knows.
    pub(crate) host: Option<Box<dyn Any + Send>>,
}

/// See the module's head. On cache lines of its own (two, for processors fetch them in pairs): its holder writes to it all
/// the time.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Proc {
    pub(crate) index: usize,
    status: AtomicU8,
    pub(crate) queue: RunQueue,
    /// Time slices begun: a G that is next inherits the slice of the one before.
    pub(crate) slices: AtomicU32,
    /// Gs polled.
    pub(crate) polls: AtomicU64,
    /// Blocking calls begun.
    pub(crate) calls: AtomicU32,
    /// The G that runs is to make room.
    pub(crate) preempt: AtomicU8,
    /// Its G has run so long without making room that a spare P stands in.
    pub(crate) is_hogged: AtomicU8,
    /// The header of the G that runs, for reports; 0 if none.
    pub(crate) running: AtomicU64,
    own: UnsafeCell<Own>,
}

// SAFETY: [J1] `own` is handed from M to M with the P.
unsafe impl Send for Proc {}
// SAFETY: as above; everything else is atomic.
unsafe impl Sync for Proc {}

impl Proc {
    pub(crate) fn new(index: usize, host: Box<dyn Any + Send>) -> Self {
        Self {
            index,
            status: AtomicU8::new(Status::Idle as u8),
            queue: RunQueue::new(),
            slices: AtomicU32::new(0),
            polls: AtomicU64::new(0),
            calls: AtomicU32::new(0),
            preempt: AtomicU8::new(0),
            is_hogged: AtomicU8::new(0),
            running: AtomicU64::new(0),
            own: UnsafeCell::new(Own { host: Some(host) }),
        }
    }

    pub(crate) fn is(&self, status: Status) -> bool {
        // Relaxed: an estimate, or the holder's own.
        self.status.load(Ordering::Relaxed) == status as u8
    }

    /// By the holder.
    pub(crate) fn set(&self, status: Status) {
        // Release: gives the P away when the status is Blocked; pairs with the Acquire in `take_from_call`.
        self.status.store(status as u8, Ordering::Release);
    }

    /// Blocked -> Running: the P is the caller's. By the M that blocked, or by somebody who retakes it.
    pub(crate) fn take_from_call(&self) -> bool {
        // Acquire: pairs with the Release in `set`. Relaxed on failure: somebody else has it.
        self.status
            .compare_exchange(
                Status::Blocked as u8,
                Status::Running as u8,
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// What the holder works with.
    ///
    /// # Safety
    /// 1. [J1] The caller is the M that holds the P, and uses no other borrow of it meanwhile.
    #[allow(
        clippy::mut_from_ref,
        reason = "the holder of a P has its own part for itself, as with a lock"
    )]
    pub(crate) unsafe fn own(&self) -> &mut Own {
        // SAFETY: clause 1.
        self.own.with_mut(|own| unsafe { &mut *own })
    }

    pub(crate) fn count(counter: &AtomicU32) {
        // Relaxed (both): only the holder writes it; read for comparison.
        let n = counter.load(Ordering::Relaxed);
        counter.store(n.wrapping_add(1), Ordering::Relaxed);
    }
}
