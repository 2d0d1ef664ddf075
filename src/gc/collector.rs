//! The collector of one heap: everything its threads and its mutators share.
//!
//! **Invariants**
//! - `[G1]` While marking runs, every object reachable when it began is marked, or grey, or reachable from a grey object
//!   through unmarked ones (Yuasa's snapshot; held by the deletion barrier).
//! - `[G2]` Every object allocated while marking runs is black: marked, and not scanned in this cycle.
//! - `[G3]` An object's plain fields are written before its address is first stored with Release, and never after.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as StdAtomicUsize;
use std::time::Duration;

use crate::gc::assist::AssistQueue;
use crate::gc::collecting::collecting_for;
use crate::gc::events::{EventSink, Figures};
use crate::gc::frames::FrameTable;
use crate::gc::heaps;
use crate::gc::late::{Asking, Dropping, LOOK_AT_DROPS, Overdue, TaskLists};
#[cfg(feature = "sched")]
use crate::gc::mutator::MutatorRef;
use crate::gc::mutator::{Local, MutatorState};
use crate::gc::pacing::Pacing;
use crate::gc::root_jobs::RootJobs;
use crate::gc::roots::RootTable;
use crate::gc::scavenger::Scavenger;
use crate::gc::seats::Seats;
use crate::gc::shared_bytes::SharedTable;
use crate::gc::trace::TraceSink;
use crate::gc::weak::WeakState;
use crate::gc::work::WorkPool;
use crate::gc::world::World;
use crate::heap::mheap::{MHeap, Paint};
use crate::sys::MODELLED;
use crate::sys::lock::{Condvar, Rank, Ranked, Unranked};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sys::thread::JoinHandle;

/// How a collector is to behave.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) gogc: Option<u32>,
    pub(crate) memory_limit: u64,
    /// Processors that marking may use when nothing else runs.
    pub(crate) processors: usize,
    /// A cycle begins when none has for this long.
    pub(crate) period: Duration,
    pub(crate) stress: bool,
    pub(crate) verify: bool,
    pub(crate) stop_the_world: bool,
    pub(crate) sink: Option<EventSink>,
    /// Troubles are not written to standard error.
    pub(crate) quiet: bool,
    /// Where a line for each cycle goes.
    pub(crate) trace: Option<TraceSink>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("gogc", &self.gogc)
            .field("memory_limit", &self.memory_limit)
            .field("processors", &self.processors)
            .finish_non_exhaustive()
    }
}

/// What mutators ask of the collector's thread.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Cycles begun and cycles whose sweep is done.
    pub(crate) begun: u64,
    pub(crate) done: u64,
    /// Run cycles until this many have begun.
    pub(crate) wanted: u64,
    /// The heap has reached its trigger.
    pub(crate) triggered: bool,
    /// How much memory should be kept has changed.
    pub(crate) scavenge: bool,
    pub(crate) shutdown: bool,
    /// The last handle went inside a drop: the collector's thread drops what is left.
    pub(crate) drop_everything: bool,
}

/// Bytes that decide when to collect.
#[derive(Debug)]
pub(crate) struct Gauges {
    /// Bytes of objects, as far as charged, and external bytes; without those that the last cycle found dead.
    pub(crate) heap_live: AtomicU64,
    /// External bytes of all that has not been dropped. As a signed number: who takes off may be told before who adds.
    external: AtomicU64,
    /// What the last cycle left alive, as far as is known.
    pub(crate) survived: AtomicU64,
    pub(crate) trigger: AtomicU64,
    pub(crate) goal: AtomicU64,
    /// Past this size whoever allocates had better wait.
    pub(crate) ceiling: AtomicU64,
    /// Bytes ever allocated.
    pub(crate) allocated: AtomicU64,
    /// While marking: bytes to scan per byte allocated, as f64 bits.
    pub(crate) assist_ratio: AtomicU64,
    /// While marking: done so far.
    pub(crate) marked: AtomicU64,
    pub(crate) scanned: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) drop_panics: AtomicU64,
    /// Locks and frames that the last verification has left out.
    pub(crate) left_out: AtomicU64,
}

/// The most that is counted of external bytes, and of what lives with them: more than any machine has, and little enough that
/// the bytes of a whole arena on top of it are a number.
const MOST_BYTES: u64 = 1 << 62;

impl Gauges {
    /// Adds `bytes` of objects to what lives; returns the sum. Who asks has made sure that so many could be had: all arenas
    /// together are shorter than what [`MOST_BYTES`] leaves.
    pub(crate) fn charge(&self, bytes: u64) -> u64 {
        // Relaxed (both): figures.
        self.allocated.fetch_add(bytes, Ordering::Relaxed);
        let before = self.heap_live.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes)
    }

    /// Adds `wanted` bytes to the external ones, or as many as there is room for: sizes that a user makes up have no bound,
    /// and a sum that has wrapped would read as none. Returns how many; who has them gives back just these.
    fn grant_external(&self, wanted: u64) -> i64 {
        let mut granted = 0;
        // Relaxed (both): a figure.
        let _ = self
            .external
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sum| {
                let sum = sum.cast_signed();
                let room = MOST_BYTES.cast_signed().saturating_sub(sum).max(0);
                granted = i64::try_from(wanted).unwrap_or(i64::MAX).min(room);
                Some((sum + granted).cast_unsigned())
            });
        granted
    }

    /// External bytes of all that has not been dropped.
    pub(crate) fn external(&self) -> u64 {
        // Relaxed: a figure.
        let sum = self.external.load(Ordering::Relaxed).cast_signed();
        u64::try_from(sum).unwrap_or(0)
    }

    pub(crate) fn change_external(&self, delta: i64) {
        // Relaxed: a figure.
        self.external
            .fetch_add(delta.cast_unsigned(), Ordering::Relaxed);
    }

    /// Never below zero: what it is set to at the end of marking is a guess. Never above [`MOST_BYTES`].
    pub(crate) fn change_live(&self, delta: i64) {
        // Relaxed (both): a figure.
        let _ = self
            .heap_live
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| {
                Some(live.saturating_add_signed(delta).min(MOST_BYTES))
            });
    }
}

/// Whether the mutator allocates black. [G2]
pub(crate) fn is_black(local: &Local) -> bool {
    local.duty.marks() && !sabotage::is_on(Fault::AllocateWhite)
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Collector {
    /// The number of the heap, unique in the process.
    pub(crate) id: usize,
    pub(crate) heap: MHeap,
    pub(crate) world: World,
    pub(crate) roots: RootTable,
    pub(crate) frames: FrameTable,
    pub(crate) pool: WorkPool,
    pub(crate) weak: WeakState,
    pub(crate) shared_bytes: SharedTable,
    pub(crate) uses_weak: AtomicU32,
    pub(crate) gauges: Gauges,
    pub(crate) pacing: Pacing,
    pub(crate) assists: AssistQueue,
    pub(crate) scavenger: Scavenger,
    pub(crate) settings: Settings,
    pub(crate) figures: Ranked<Figures>,
    pub(crate) mailbox: Ranked<Mailbox>,
    pub(crate) mail: Condvar,
    /// Held by whoever changes spans without being a mutator, and by the verifier.
    pub(crate) turnstile: Unranked<()>,
    pub(crate) root_jobs: RootJobs,
    /// Workers that mark just now (an estimate).
    pub(crate) active_workers: AtomicUsize,
    /// For Ps that mark.
    pub(crate) seats: Seats,
    /// Processor time of the worker that marks in slices, in this cycle, in nanoseconds.
    pub(crate) sliced_ns: AtomicU64,
    /// Pages below this one have not been looked at by mutators that sweep.
    pub(crate) sweep_down: AtomicU32,
    pub(crate) threads: Unranked<Vec<JoinHandle<()>>>,
    /// Who knows the names of Gs.
    pub(crate) tasks: TaskLists,
    pub(crate) asking: Asking,
    pub(crate) overdue: Overdue,
    pub(crate) dropping: Dropping,
}

impl Drop for Collector {
    fn drop(&mut self) {
        heaps::withdraw(self.id);
    }
}

static NEXT_ID: StdAtomicUsize = StdAtomicUsize::new(1);

impl Collector {
    /// A collector for `heap`, without threads.
    pub(crate) fn new(heap: MHeap, settings: Settings) -> Arc<Self> {
        // Relaxed: uniqueness is all.
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let pacing = Pacing::new(settings.gogc, settings.memory_limit, settings.processors);
        let plan = pacing.plan();
        let collector = Arc::new(Self {
            id,
            heap,
            world: World::new(),
            roots: RootTable::new(id),
            frames: FrameTable::new(),
            pool: WorkPool::new(),
            weak: WeakState::new(),
            shared_bytes: SharedTable::new(),
            uses_weak: AtomicU32::new(0),
            gauges: Gauges {
                heap_live: AtomicU64::new(0),
                external: AtomicU64::new(0),
                survived: AtomicU64::new(0),
                trigger: AtomicU64::new(plan.trigger),
                goal: AtomicU64::new(plan.goal),
                ceiling: AtomicU64::new(plan.ceiling),
                allocated: AtomicU64::new(0),
                assist_ratio: AtomicU64::new(0),
                marked: AtomicU64::new(0),
                scanned: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
                drop_panics: AtomicU64::new(0),
                left_out: AtomicU64::new(0),
            },
            pacing,
            assists: AssistQueue::new(),
            scavenger: Scavenger::new(),
            settings,
            figures: Ranked::new(Rank::Stats, Figures::new()),
            mailbox: Ranked::new(
                Rank::Mailbox,
                Mailbox {
                    begun: 0,
                    done: 0,
                    wanted: 0,
                    triggered: false,
                    scavenge: false,
                    shutdown: false,
                    drop_everything: false,
                },
            ),
            mail: Condvar::new(),
            turnstile: Unranked::new(()),
            root_jobs: RootJobs::new(),
            active_workers: AtomicUsize::new(0),
            seats: Seats::new(),
            sliced_ns: AtomicU64::new(0),
            sweep_down: AtomicU32::new(0),
            threads: Unranked::new(Vec::new()),
            tasks: TaskLists::new(),
            asking: Asking::new(),
            overdue: Overdue::new(),
            dropping: Dropping::new(),
        });
        heaps::enlist(&collector);
        collector
    }

    /// Counts cycles, and generations of the sweep, from there on, for tests of what happens when they begin anew.
    ///
    /// # Panics
    /// If a mutator is attached, or something was allocated.
    #[cfg(any(fuzzing, feature = "internals"))]
    pub(crate) fn count_from(&self, cycle: u32, generation: u64) {
        heaps::count_from(cycle);
        self.heap.count_generations_from(generation);
    }

    // ---- asking for cycles -----------------------------------------------------------------------------------

    /// Has the scavenger look again.
    pub(crate) fn wake_scavenger(&self) {
        self.mailbox.lock().scavenge = true;
        self.mail.notify_all();
    }

    /// Asks for a cycle, without waiting. Because of the heap's size only `brake.rs` asks.
    #[cold]
    pub(crate) fn ask_for_cycle(&self) {
        let mut mail = self.mailbox.lock();
        if !mail.triggered && !sabotage::is_on(Fault::TriggerLost) {
            mail.triggered = true;
            drop(mail);
            self.mail.notify_all();
        }
    }

    /// Asks for a cycle that begins after this call; returns its number. While the heap is suspended there is none, and the
    /// number is that of no cycle.
    pub(crate) fn want_cycle(&self) -> u64 {
        if self.look_for_lost() {
            return 0;
        }
        let mut mail = self.mailbox.lock();
        let number = mail.begun + 1;
        mail.wanted = mail.wanted.max(number);
        drop(mail);
        self.mail.notify_all();
        self.figures.lock().forced_cycles += 1;
        number
    }

    /// Waits until cycle `number`, its sweep included, is done, or there can be none.
    pub(crate) fn wait_for_cycle(&self, number: u64) {
        let look = if MODELLED {
            Duration::from_secs(1)
        } else {
            LOOK_AT_DROPS
        };
        let mut mail = self.mailbox.lock();
        while mail.done < number && !mail.shutdown && !self.is_suspended() {
            mail.wait_on(&self.mail, look);
            if mail.done < number {
                drop(mail);
                self.look_at_drop();
                mail = self.mailbox.lock();
            }
        }
    }

    /// Tells of a heap that is past twice its goal for long.
    #[inline]
    pub(crate) fn look_at_size(&self) {
        // Relaxed (both): figures.
        let live = self.gauges.heap_live.load(Ordering::Relaxed);
        if live / 2 > self.gauges.goal.load(Ordering::Relaxed) {
            self.note_past_goal();
        }
    }

    // ---- what a mutator does at a safepoint --------------------------------------------------------------------

    /// The action of a handshake, and of leaving a stop: hands the barrier's buffer over, turns the cache black when
    /// marking has begun, and gives it back when marking has ended. By the mutator's thread.
    pub(crate) fn catch_up(&self, mutator: &MutatorState) {
        let local = &mutator.local;
        if sabotage::is_on(Fault::BufferLostAtHandshake) {
            local.barrier.borrow_mut().clear();
        }
        self.flush_barrier(local);
        self.tell_external(local);
        if local.stale_cache.get() && !sabotage::is_on(Fault::StaleCacheKept) {
            self.flush_cache(local);
        }
        if is_black(local) && local.paint.get() == Paint::White {
            // [G2] what the cursors still hold is handed out black from now on.
            if !sabotage::is_on(Fault::CursorStaysWhite) {
                local.cache.for_each_cached(|c| self.heap.blacken_run(c));
            }
            local.paint.set(Paint::Black);
        }
    }

    /// The action of a handshake for a mutator that the collector holds: it does not allocate meanwhile, so its cache can
    /// go back, and the next stop has nothing to do for it.
    pub(crate) fn act_for_blocked(&self, mutator: &MutatorState) {
        let local = &mutator.local;
        if sabotage::is_on(Fault::BufferLostAtHandshake) {
            local.barrier.borrow_mut().clear();
        }
        self.flush_barrier(local);
        self.tell_external(local);
        self.flush_cache(local);
    }

    /// Gives every cursor's span back.
    pub(crate) fn flush_cache(&self, local: &Local) {
        local.stale_cache.set(false);
        let paint = local.paint.get();
        let mut unused = 0;
        local
            .cache
            .for_each_cached(|c| unused += self.heap.give_back(c, paint) as u64);
        if unused > 0 {
            self.uncharge(unused);
        }
        local.paint.set(if is_black(local) {
            Paint::Black
        } else {
            Paint::White
        });
    }

    pub(crate) fn uncharge(&self, bytes: u64) {
        self.gauges
            .change_live(-i64::try_from(bytes).unwrap_or(i64::MAX));
        // Relaxed: a figure.
        self.gauges.allocated.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts a change of bytes owned outside the heap, by anybody.
    pub(crate) fn add_external(&self, delta: i64) {
        if delta < 0 && collecting_for() == self.id {
            // In the drop of a dead object: of the user's code nothing else runs on that thread while the sweep does.
            self.note_freed_external(delta.unsigned_abs());
        } else {
            self.change_external(delta);
        }
    }

    /// Counts up to `wanted` more bytes owned outside the heap; returns how many.
    pub(crate) fn grant_external(&self, wanted: u64) -> u64 {
        let granted = self.gauges.grant_external(wanted);
        self.gauges.change_live(granted);
        granted.unsigned_abs()
    }

    fn change_external(&self, delta: i64) {
        self.gauges.change_external(delta);
        self.gauges.change_live(delta);
    }

    pub(crate) fn tell_external(&self, local: &Local) {
        let delta = local.external.replace(0);
        if delta != 0 && !sabotage::is_on(Fault::ExternalBytesLost) {
            self.change_external(delta);
        }
    }

    /// Takes a mutator off that is Blocked and that nobody enters any more: its buffers and spans go back as in a handshake
    /// in which the collector acts for it. It does not run for that, so it waits for no stop: the caller may be a thread that a
    /// stop waits for.
    ///
    /// Whoever acts for Blocked mutators, or looks at all of them in a stop, has the turnstile meanwhile.
    #[cfg(feature = "sched")]
    pub(crate) fn take_off_blocked(&self, mutator: MutatorRef) {
        // A drop on the collector's thread has the turn already.
        let turn = (collecting_for() != self.id).then(|| self.turnstile.lock());
        {
            // SAFETY: 1. registered until `unregister` below. 2. it is Blocked, the caller is the only one who could enter it,
            // and nobody claims it without the turnstile.
            let state = unsafe { mutator.get() };
            debug_assert!(
                state.word.is_blocked(),
                "a P's mutator goes between sections"
            );
            self.act_for_blocked(state);
            self.heap.give_back_pages(&state.local.cache);
            self.roots
                .give_back(&mut state.local.free_roots.borrow_mut());
        }
        self.world.unregister(mutator);
        drop(turn);
    }

    // ---- figures -----------------------------------------------------------------------------------------------

    /// Adds what a worker has done.
    pub(crate) fn count_marked(&self, done: crate::gc::mark::Done) {
        // Relaxed (both): summed up at the end of marking, when the workers' last hand-over orders them.
        self.gauges.marked.fetch_add(done.marked, Ordering::Relaxed);
        self.gauges
            .scanned
            .fetch_add(done.scanned, Ordering::Relaxed);
    }
}
