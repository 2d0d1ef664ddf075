//! Mutators that keep the collector waiting: who they are, what they do, and when that is told.
//!
//! A wait looks at them for the first time after [`LOOK`], and notes what processor time each has
//! used. When it tells of one later, the difference says whether the thread has run without
//! reaching a safepoint, or has got no processor, or sleeps.
//!
//! A P's mutator is used by one thread after the other. So its record names the thread and the G
//! of the section that goes on, not who made it; the G's name is asked of the runtime
//! ([`Tasks`]), by the address of the G, which cannot end inside the section.

use std::panic::Location;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::gc::collector::Collector;
use crate::gc::events::{Event, ThreadActivity};
use crate::gc::mutator::MutatorRef;
use crate::gc::notice::{BackOff, FIRST};
use crate::gc::state_word::Request;
use crate::heap::span_class::ClassRef;
use crate::sys::clock::Moment;
use crate::sys::lock::Unranked;
use crate::sys::os_thread::{OsThread, Seen};
use crate::sys::sync::{AtomicUsize, Ordering};

/// How long the collector waits for a mutator before it looks at what that does.
pub(crate) const LOOK: Duration = Duration::from_millis(5);
/// How often those who wait for the collector's thread look at what it drops.
pub(crate) const LOOK_AT_DROPS: Duration = Duration::from_millis(100);
/// The age at which a sink is told of a late mutator for the first time.
const EARLY: Duration = Duration::from_millis(10);
/// A thread that has run for so long since it was asked does not poll; another one may have had no
/// chance to.
const HAS_RUN: Duration = Duration::from_millis(10);

/// An answer that the collector, or a verifier, waits for; see [`HeapStats::pending`](crate::HeapStats::pending).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingRequest {
    /// What it has asked of all mutators.
    pub kind: RequestKind,
    /// How long ago.
    pub age: Duration,
    /// How many have not answered yet.
    pub late: usize,
}

/// What is asked of all mutators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestKind {
    /// To stop at a safepoint, for the beginning or the end of marking.
    Stop,
    /// To act once at a safepoint, and go on.
    Handshake,
    /// To stop for [`Heap::verify`](crate::Heap::verify).
    Verify,
}

/// A mutator that is late.
#[derive(Clone, Debug)]
pub(crate) struct Laggard {
    pub(crate) mutator: MutatorRef,
    pub(crate) os_thread: OsThread,
    pub(crate) thread: String,
    pub(crate) attached_at: &'static Location<'static>,
    /// The address of the G whose section it is in; 0: none.
    pub(crate) task: usize,
}

/// A task that computes in a section.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "sched"),
    allow(dead_code, reason = "without a scheduler there is none")
)]
pub(crate) struct Task {
    pub(crate) name: Option<String>,
    pub(crate) spawned_at: &'static Location<'static>,
}

/// Who knows tasks by their addresses: a runtime over the heap.
pub(crate) trait Tasks: Send + Sync {
    /// The task at that address, if it is one of this runtime's.
    fn describe(self: Arc<Self>, task: usize) -> Option<Task>;
}

/// The runtimes over a heap.
pub(crate) struct TaskLists(Unranked<Vec<Weak<dyn Tasks>>>);

impl std::fmt::Debug for TaskLists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskLists").finish_non_exhaustive()
    }
}

impl TaskLists {
    pub(crate) fn new() -> Self {
        Self(Unranked::new(Vec::new()))
    }

    #[cfg(feature = "sched")]
    pub(crate) fn add(&self, tasks: Weak<dyn Tasks>) {
        let mut all = self.0.lock();
        all.retain(|tasks| tasks.strong_count() > 0);
        all.push(tasks);
    }

    fn describe(&self, task: usize) -> Option<Task> {
        let all = self.0.lock().clone();
        all.iter()
            .filter_map(Weak::upgrade)
            .find_map(|tasks| tasks.describe(task))
    }
}

/// What one wait knows of those that it waits for.
#[derive(Debug)]
pub(crate) struct Watch {
    told: BackOff,
    first: Option<FirstLook>,
}

/// How long the wait had gone on, and the processor time of each late mutator then.
#[derive(Debug)]
struct FirstLook {
    waited: Duration,
    times: Vec<(MutatorRef, OsThread, Option<Duration>)>,
}

impl Watch {
    /// What the thread does, and has done since the first look.
    fn activity(&self, laggard: &Laggard, waited: Duration) -> ThreadActivity {
        let since = self.first.as_ref().map_or(waited, |first| first.waited);
        let then = self.first.as_ref().and_then(|first| {
            let is_this = |(mutator, thread, _): &&(MutatorRef, OsThread, _)| {
                (*mutator, *thread) == (laggard.mutator, laggard.os_thread)
            };
            first
                .times
                .iter()
                .find(is_this)
                .and_then(|(_, _, time)| *time)
        });
        let over = waited.saturating_sub(since);
        let on_processor = laggard
            .os_thread
            .cpu_time()
            .zip(then)
            .map(|(now, then)| now.saturating_sub(then));
        judge(laggard.os_thread.look(), on_processor, over)
    }
}

/// What a thread does that was `seen` so, and has had a processor for `on_processor` of the time `over`.
fn judge(seen: Seen, on_processor: Option<Duration>, over: Duration) -> ThreadActivity {
    match (seen, on_processor) {
        (Seen::Sleeps(call), _) => ThreadActivity::Sleeps { call },
        (Seen::Ended, _) => ThreadActivity::Ended,
        (Seen::Runs, Some(on_processor)) if on_processor < HAS_RUN.min(over / 2) => {
            ThreadActivity::WaitsForProcessor { on_processor, over }
        }
        (Seen::Runs, Some(on_processor)) => ThreadActivity::Computes { on_processor, over },
        (Seen::Runs, None) | (Seen::Unknown, _) => ThreadActivity::Unknown,
    }
}

/// What was asked last of all mutators, and when; `None` when it is answered.
#[derive(Debug)]
pub(crate) struct Asking(Unranked<Option<(Request, Moment)>>);

impl Asking {
    pub(crate) fn new() -> Self {
        Self(Unranked::new(None))
    }
}

/// How long the heap has been past twice its goal without the end of a cycle.
#[derive(Debug)]
pub(crate) struct Overdue(Unranked<Option<(u64, Moment, BackOff)>>);

impl Overdue {
    pub(crate) fn new() -> Self {
        Self(Unranked::new(None))
    }
}

/// The drop of a dead object that goes on, and since when it has been seen to.
///
/// It runs on the collector's thread, which cannot tell of itself. So those tell who wait for that thread: each looks from
/// time to time, and the first that finds it due tells.
#[derive(Debug)]
pub(crate) struct Dropping {
    /// The address of the object's class; 0: none is dropped just now. Written by the collector's thread.
    class: AtomicUsize,
    /// Which drop was seen first, by the count of drops, and when.
    seen: Unranked<Option<(u64, Moment, BackOff)>>,
}

impl Dropping {
    pub(crate) fn new() -> Self {
        Self {
            class: AtomicUsize::new(0),
            seen: Unranked::new(None),
        }
    }

    /// A drop of an object of that type begins. By the collector's thread, which counts it first.
    pub(crate) fn begin(&self, class: ClassRef) {
        // Relaxed: for reports; the address is only compared.
        self.class.store(class.as_ptr().addr(), Ordering::Relaxed);
    }

    /// It is over.
    pub(crate) fn end(&self) {
        // Relaxed: as above.
        self.class.store(0, Ordering::Relaxed);
    }
}

impl Collector {
    /// Looks whether the same drop goes on since an earlier look, and tells of it when that is due. By who waits for the
    /// collector's thread, without a lock.
    pub(crate) fn look_at_drop(&self) {
        // Relaxed (both): for reports.
        let drops = self.pacing.drops.load(Ordering::Relaxed);
        let class = self.dropping.class.load(Ordering::Relaxed);
        let mut seen = self.dropping.seen.lock();
        if class == 0 {
            *seen = None;
            return;
        }
        let (of, since, told) =
            seen.get_or_insert_with(|| (drops, Moment::now(), BackOff::new(FIRST)));
        if *of != drops {
            *seen = Some((drops, Moment::now(), BackOff::new(FIRST)));
            return;
        }
        let waited = Duration::from_nanos(since.elapsed_ns());
        if told.is_due(waited) {
            drop(seen);
            let all = self.heap.all_classes();
            let of = all.iter().find(|of| of.as_ptr().addr() == class);
            let type_name = of.map_or("an object", |of| of.type_name());
            self.tell(&Event::SlowDrop { waited, type_name });
        }
    }

    /// A watch over a wait for answers to `request` that begins now.
    pub(crate) fn watch(&self, request: Request) -> Watch {
        *self.asking.0.lock() = Some((request, Moment::now()));
        Watch {
            told: BackOff::new(self.first_telling(EARLY)),
            first: None,
        }
    }

    /// The wait is over.
    pub(crate) fn end_watch(&self, _: Watch) {
        *self.asking.0.lock() = None;
    }

    /// What is waited for.
    pub(crate) fn pending(&self) -> Option<PendingRequest> {
        let (request, since) = (*self.asking.0.lock())?;
        let kind = match request {
            Request::Handshake => RequestKind::Handshake,
            Request::StopToVerify => RequestKind::Verify,
            _ => RequestKind::Stop,
        };
        Some(PendingRequest {
            kind,
            age: Duration::from_nanos(since.elapsed_ns()),
            late: self.world.laggards(request).len(),
        })
    }

    /// The heap is past twice its goal: tells of it if no cycle has ended for too long. By a mutator.
    #[cold]
    pub(crate) fn note_past_goal(&self) {
        let cycles = self.figures.lock().cycles;
        let age = {
            let mut overdue = self.overdue.0.lock();
            let (of, since, told) =
                overdue.get_or_insert_with(|| (cycles, Moment::now(), BackOff::new(FIRST)));
            if *of != cycles {
                *overdue = None;
                return;
            }
            let age = Duration::from_nanos(since.elapsed_ns());
            if !told.is_due(age) {
                return;
            }
            age
        };
        // Relaxed (both): figures.
        let heap_bytes = self.gauges.heap_live.load(Ordering::Relaxed);
        let goal_bytes = self.gauges.goal.load(Ordering::Relaxed);
        if heap_bytes / 2 > goal_bytes {
            self.tell(&Event::CycleOverdue {
                waited: age,
                heap_bytes,
                goal_bytes,
                pending: self.pending(),
                lost_mutators: self.world.lost(false).len(),
            });
        }
    }

    /// Looks at those that the collector has waited for so long, for the answer to `request`, and tells
    /// of them when that is due.
    pub(crate) fn look_at_laggards(&self, watch: &mut Watch, request: Request, waited: Duration) {
        if watch.first.is_none() {
            let all = self.world.laggards(request).into_iter();
            let times = all.map(|l| (l.mutator, l.os_thread, l.os_thread.cpu_time()));
            watch.first = Some(FirstLook {
                waited,
                times: times.collect(),
            });
        } else if watch.told.is_due(waited) {
            for laggard in self.world.laggards(request) {
                self.tell_laggard(watch, request, laggard, waited);
            }
        }
    }

    fn tell_laggard(&self, watch: &Watch, request: Request, laggard: Laggard, waited: Duration) {
        let activity = watch.activity(&laggard, waited);
        let task = (laggard.task != 0)
            .then(|| self.tasks.describe(laggard.task))
            .flatten();
        // What was found out is of this section only if that still goes on: then the G at that address
        // is the one that it was.
        let is_same = |now: &Laggard| (now.mutator, now.task) == (laggard.mutator, laggard.task);
        if !self.world.laggards(request).iter().any(is_same) {
            return;
        }
        let attached_at = task.as_ref().map_or(laggard.attached_at, |t| t.spawned_at);
        self.tell(&Event::SlowSafepoint {
            waited,
            thread: laggard.thread,
            os_thread: laggard.os_thread.number(),
            attached_at,
            is_g: laggard.task != 0,
            g: task.and_then(|task| task.name),
            activity,
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_a_processor_is_told_from_one_that_does_not_poll() {
        let ms = Duration::from_millis;
        let what = |on, over| judge(Seen::Runs, Some(ms(on)), ms(over));
        let is_waiting = |a| matches!(a, ThreadActivity::WaitsForProcessor { .. });
        assert!(is_waiting(what(0, 5)), "it has had none");
        assert!(is_waiting(what(9, 5000)), "it has had next to none");
        assert!(!is_waiting(what(4, 5)), "it has had one all the time");
        assert!(
            !is_waiting(what(10, 5000)),
            "it has run for long enough to poll"
        );
        assert_eq!(judge(Seen::Runs, None, ms(5)), ThreadActivity::Unknown);
        assert_eq!(
            judge(Seen::Ended, Some(ms(9)), ms(9)),
            ThreadActivity::Ended
        );
    }
}
