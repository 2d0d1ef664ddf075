//! Faults that a test puts in on purpose, to see that tests catch them.
//!
//! With the feature `sabotage`, in debug builds only, a test can switch one fault on. Without it
//! every question is `false` at compile time, and the code behind it is gone. The file is in the
//! lowest layer because every layer above has places that can be broken.

/// Declares the faults, and the list of all of them.
macro_rules! faults {
    ($($(#[doc = $what:literal])+ $name:ident)+) => {
        /// A place where the collector or the scheduler can be broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        #[non_exhaustive]
        #[cfg_attr(
            not(feature = "sabotage"),
            allow(unreachable_pub, reason = "public through `internals` only")
        )]
        #[cfg_attr(
            not(feature = "sched"),
            allow(dead_code, reason = "the scheduler's faults are for its code only")
        )]
        pub enum Fault {
$($(#[doc = $what])+ $name,)+
        }

        #[cfg(feature = "sabotage")]
        impl Fault {
            /// Every fault there is.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

faults! {
    // The barrier.
    /// An edge that is overwritten during marking is not shaded.
    NoDeletionBarrier
    /// `GcCell::set` shades what the edge leads to after the store, which is the new object.
    BarrierAfterStore
    /// The first writer of a `GcLock` in a cycle does not report the old content.
    LockNotLogged
    /// A mutator that is attached while marking runs has its barrier off, and allocates white.
    AttachedWithoutBarrier
    /// A barrier buffer that is full is thrown away.
    FullBufferLost
    /// What a mutator's barrier buffer holds is thrown away at handshakes and at termination.
    BufferNotFlushed
    /// A handshake throws the buffer away; the stop that ends marking looks at what came after it.
    BufferLostAtHandshake
    /// The stop that ends marking does not look at the buffers.
    BufferNotFlushedAtEnd
    /// A mutator that is detached takes its buffer with it.
    BufferLostAtDetach

    /// Nobody checks whether an object belongs to the mutator's heap.
    ForeignUnchecked
    /// A lock that another heap's mutator writes to is taken for one whose guard was forgotten.
    ForeignWriterRead
    /// Mutators that are older than the second heap of the process do not learn of it.
    SecondHeapUntold
    /// A frame accepts objects of any heap.
    FrameOfForeign

    // Roots.
    /// No root is scanned.
    RootsNotScanned
    /// The last block of root slots is not scanned.
    RootBlockSkipped
    /// A root that is dropped on its mutator's thread does not shade its object.
    RootDroppedUnshaded
    /// A root that is dropped on another thread stops being a root at once.
    RootReleasedAtOnce
    /// A mutator keeps every free root slot that it gets.
    RootStockKept
    /// Workers scan no frames.
    FrameNotScanned
    /// A frame is opened before its scan.
    FrameOpenedUnscanned
    /// A frame that is dropped while marking runs leaves the list at once.
    FrameUnlistedWhileMarking
    /// A verifier reads a frame that a mutator may be writing to.
    OpenFrameRead
    /// A verifier reads the content of a lock that a mutator holds for writing.
    WrittenLockRead

    // What is allocated while marking runs.
    /// Objects allocated during marking are white.
    AllocateWhite
    /// The run of slots that a cursor holds when marking begins is handed out white.
    CursorStaysWhite

    // Marking.
    /// A mark bit is set by a load and a store.
    MarkNotAtomic
    /// Of a long list only the first piece is scanned.
    PieceLost
    /// The address inside a long list that names one of its pieces is taken for another piece's.
    PieceRounded
    /// Of neighbours that are marked by one instruction only the first is scanned.
    NeighboursNotScanned
    /// A marker that leaves with work in hand loses the batch that it has fetched.
    BatchLost
    /// Marking looks done while one worker is still at it.
    EndsOneWorkerEarly
    /// The stop that ends marking flushes the buffers, and does not look at the queue that they
    /// went to.
    QueueNotSeenAtEnd
    /// The end of marking is decided in the last stop, and the pool is closed some time after it.
    PoolClosedLate
    /// A worker joins the pool whether marking runs or not.
    JoinedWithoutCycle
    /// A worker that joins the pool gets the number of the cycle before.
    StaleCycle
    /// If the world is stopped for a whole cycle, a worker that comes last ends the stop before
    /// marking has ended.
    EndNotAwaited
    /// When the cycle numbers start again, one cycle has the number 0, which means "never"
    /// elsewhere.
    CycleZero
    /// What workers scan gives no credit to those who wait for it.
    CreditLost

    // Stops and handshakes.
    /// The mutator that was attached last is not asked to stop.
    MutatorForgotten
    /// A stop ignores mutators that are blocked or parked, so it does not keep them from coming
    /// back.
    BlockedForgotten
    /// A handshake counts as acknowledged by mutators that run and have not acted yet.
    HandshakeNotAwaited
    /// A handshake does nothing for mutators that are blocked.
    BlockedNotActedFor

    // The scheduler.
    /// The future of a G that is aborted is dropped as if no G ran.
    CancelledOutsideItsG
    /// Before it sleeps, the monitor does not check whether anything has happened since it looked
    /// for a deadlock; and it is slow to fall asleep.
    EventsSleptOver
    /// The monitor is not told that the last timer, or the last wait for a socket, is gone.
    LastWaitGoesUnheard
    /// A wait for a socket that begins on a thread of another runtime, or of none, wakes nobody.
    OutsideWaitUnheard
    /// A deadlock is reported to a thread that entered `block_on` some time after the look.
    BystandersTold
    /// A wait for another runtime's timer or socket counts as a wait for a G.
    DriverCountsAsLine

    // Mutators that are not dropped.
    /// The end of a thread detaches the mutator that it has not dropped.
    LostMutatorDetached
    /// The end of a thread with a mutator is not recorded.
    LossNotNoted
    /// A thread still names the mutator that it has dropped.
    CurrentLeftBehind

    // Weak references.
    /// Weak cells of dead objects are not cleared.
    CensusSkipped
    /// An upgrade in the last moment of marking does not report the object to the collector.
    UpgradeUntold
    /// An upgrade between the end of marking and the census returns a dead object.
    DeadUpgraded
    /// Weak references are equal if the addresses of their objects are.
    WeakByAddress

    // Sweep and spans.
    /// A span that a mutator takes from its central set counts as unswept, so it is swept while
    /// objects are allocated in it.
    SweptWhileCached
    /// The sweep of every other span waits for the next cycle.
    SweptLate
    /// The heap's generation stays as it is at the end of marking.
    GenerationKept
    /// When the generation has used up the 32 bits of a span, it starts again from the first one.
    GenerationBeginsAnew
    /// Spans that were cached before the end of marking are not given back.
    StaleCacheKept
    /// The sweep does not clear mark bits.
    MarksKept
    /// Two sweepers can claim one span.
    ClaimNotExclusive
    /// The sweep looks for a large object's mark where the span begins, and not where the object
    /// begins.
    LargeSweptByItsSpan
    /// A dead object is dropped twice.
    DroppedTwice
    /// Bytes that objects own outside the heap are not reported to the collector.
    ExternalBytesLost

    // Pages and slots.
    /// The page map still names a span after its pages were freed.
    PageMapNotCleared
    /// Only the first page of a span maps to it.
    OnlyFirstPageMapped
    /// The page heap also hands out pages that a mutator has cached.
    CachedPagesStayFree
    /// The page before a run of free pages is given back to the system with them.
    UsedPageReleased
    /// The search for a slot ignores alignment.
    AlignmentIgnored
    /// A list gets a slot that is eight bytes too small.
    SlotTooSmall
    /// The heap reaches its trigger and no cycle begins.
    TriggerLost

    // Those who wait.
    /// A select that is dropped after its future has panicked leaves its cases in the queues of
    /// their channels.
    CaseStaysInQueue
    /// A mutex wakes the next waiter before it has released the lock of its queue.
    WokenUnderLock
    /// A select claims itself before the other select that it meets, whichever comes first in the
    /// order of claims.
    ClaimsOutOfOrder

    // Pacing.
    /// The next plan counts external bytes of dead objects as alive.
    DeadExternalLives
    /// A mutator past its goal passes its safepoint without waiting for the cycle.
    StallEndsEarly
    /// Each allocation that would fail waits for the running cycle again, even if others wait for a
    /// lock of its thread.
    RescueWithoutEnd
}

/// The number of the fault that is on, from 1; 0 means none.
#[cfg(all(feature = "sabotage", not(shuttle)))]
mod active {
    use std::sync::atomic::{AtomicU32, Ordering};

    static ACTIVE: AtomicU32 = AtomicU32::new(0);

    pub(super) fn set(number: u32) {
        // Relaxed: it is called before the test begins.
        ACTIVE.store(number, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn get() -> u32 {
        // Relaxed: as above.
        ACTIVE.load(Ordering::Relaxed)
    }
}

/// The same for each model: all threads of a model are one OS thread, and no other model runs
/// there.
#[cfg(all(feature = "sabotage", shuttle))]
mod active {
    std::thread_local! {
        static ACTIVE: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }

    pub(super) fn set(number: u32) {
        ACTIVE.set(number);
    }

    pub(super) fn get() -> u32 {
        ACTIVE.get()
    }
}

#[cfg(all(feature = "sabotage", not(debug_assertions)))]
compile_error!(
    "the feature `sabotage` breaks the collector on purpose: it is for debug builds only"
);

/// Switches the fault on, in all heaps of the process.
#[cfg(feature = "sabotage")]
pub fn break_the_collector(fault: Fault) {
    active::set(fault as u32 + 1);
}

/// Whether the fault is on.
#[inline(always)]
pub(crate) fn is_on(fault: Fault) -> bool {
    #[cfg(feature = "sabotage")]
    {
        active::get() == fault as u32 + 1
    }
    #[cfg(not(feature = "sabotage"))]
    {
        let _ = fault;
        false
    }
}

/// Returns `broken` if the fault is on, otherwise `whole`.
#[inline(always)]
pub(crate) fn pick<T>(fault: Fault, broken: T, whole: T) -> T {
    if is_on(fault) { broken } else { whole }
}
