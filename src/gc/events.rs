//! What the collector tells its user, and its figures.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::gc::late::PendingRequest;

/// Something that happened in the heap; see [`HeapBuilder::on_event`](crate::HeapBuilder::on_event).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A mutator keeps the collector waiting: it has not reached a safepoint for over 10 ms. Told again each time that the
    /// wait has doubled. Without a sink, a line on standard error tells of it from 1 s on.
    #[non_exhaustive]
    SlowSafepoint {
        /// How long the collector has waited so far.
        waited: Duration,
        /// The name of the thread that uses the mutator just now, or its id.
        thread: String,
        /// The number by which the operating system knows that thread (Linux).
        os_thread: Option<u64>,
        /// Where [`Heap::attach`](crate::Heap::attach) was called; for a G, where it was spawned.
        attached_at: &'static Location<'static>,
        /// Whether it is a G, inside `with`.
        is_g: bool,
        /// The name of that G, if it has one.
        g: Option<String>,
        /// What the thread does.
        activity: ThreadActivity,
    },
    /// A thread waits for a [`GcLock`](crate::GcLock), and has waited for a second; told again each time that the wait has
    /// doubled. Without a sink, a line on standard error tells of it. Who holds the lock computes, or waits for this thread,
    /// or was forgotten.
    #[non_exhaustive]
    SlowLock {
        /// How long it has waited so far.
        waited: Duration,
        /// The name of the thread, or its id.
        thread: String,
        /// Whether it wants to write.
        writes: bool,
        /// Where it called `read` or `write`.
        at: &'static Location<'static>,
    },
    /// A thread has ended without dropping its mutator ([`std::mem::forget`], [`Box::leak`], a thread-local that is never
    /// destroyed). What such a mutator has given out may be in use anywhere and for ever, so the heap frees nothing from
    /// now on and runs no cycle; it grows up to its limits. If the mutator is dropped after all, by a later destructor
    /// of its thread, the heap collects again.
    #[non_exhaustive]
    MutatorLost {
        /// The name of the thread, or its id.
        thread: String,
        /// The number by which the operating system knew it (Linux).
        os_thread: Option<u64>,
        /// Where [`Heap::attach`](crate::Heap::attach) was called.
        attached_at: &'static Location<'static>,
    },
    /// The heap is past twice its goal, and no cycle has ended for over 1 s, because a mutator is lost, or late, or an
    /// object's `Drop` takes long. Told again each time that this has doubled.
    #[non_exhaustive]
    CycleOverdue {
        /// For how long.
        waited: Duration,
        /// The size of the heap, in bytes.
        heap_bytes: u64,
        /// The size at which the cycle should have ended, in bytes.
        goal_bytes: u64,
        /// The answer that the collector waits for, if it waits for mutators.
        pending: Option<PendingRequest>,
        /// How many mutators are lost; see [`MutatorLost`](Self::MutatorLost).
        lost_mutators: usize,
    },
    /// An object's `Drop` goes on for over a second, and somebody waits for the end of a cycle, for
    /// [`Heap::verify`](crate::Heap::verify) or for the end of the heap. Told again each time that this has doubled. Without
    /// a sink, a line on standard error tells of it. Such a `Drop` computes, or waits for a thread that may wait for the
    /// collector in turn, and then none of them ever goes on.
    #[non_exhaustive]
    SlowDrop {
        /// For how long it has been seen to go on.
        waited: Duration,
        /// The object's type.
        type_name: &'static str,
    },
    /// The end of a `Runtime`, by its drop or by `shutdown`, waits for its Gs or its threads, and has waited
    /// for a second; told again each time that the wait has doubled. Without a sink, a line on standard error tells of it.
    /// The Gs that are left compute without an `.await` that waits, or are in blocking calls.
    #[non_exhaustive]
    SlowShutdown {
        /// How long it has waited so far.
        waited: Duration,
        /// The Gs that have not ended, each as `GInfo` shows it; the first 32.
        gs: Vec<String>,
        /// How many Gs have not ended.
        left: usize,
        /// How many threads of the runtime have not ended.
        threads: usize,
    },
    /// The `Drop` of a dead object panicked; the panic was caught and the object counts as dropped.
    DropPanic {
        /// The object's type.
        type_name: &'static str,
        /// The panic's message, if it was a string.
        message: String,
    },
    /// More lives, or cannot be given back, than the memory limit leaves room for. Told after each cycle that finds it so.
    /// The program goes on, past the limit, with at most about half of its processor time spent on collection; this is
    /// the moment to shed load. [`LimitMet`](Self::LimitMet) says when to stop shedding. Until then cycles run without
    /// being asked for, one a second, or less often if marking would take more than a twentieth of the time, so that it
    /// comes also to a program that allocates nothing any more.
    LimitUnmet {
        /// Bytes that live or cannot be given back.
        needed_bytes: u64,
        /// The limit, in bytes.
        limit_bytes: u64,
        /// Whether collection takes so much time that it is being held back.
        limiting: bool,
    },
    /// The memory limit is met again, after cycles that found it unmet. Told once, before that cycle's
    /// [`CycleEnd`](Self::CycleEnd).
    LimitMet {
        /// Bytes that live or cannot be given back.
        needed_bytes: u64,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// A cycle is over, its sweep included.
    CycleEnd {
        /// The cycle's number, from 1.
        cycle: u64,
        /// Bytes that it marked: objects, without what they own outside the heap.
        live_bytes: u64,
        /// The heap size it should have ended at, in bytes.
        goal_bytes: u64,
        /// Wall time from its first stop to its last, in nanoseconds.
        mark_ns: u64,
        /// The size at which it should have started, in bytes.
        trigger_bytes: u64,
        /// The size of the heap when marking began, in bytes.
        start_bytes: u64,
        /// The size of the heap when marking ended, in bytes: what is dead and not yet swept included.
        peak_bytes: u64,
        /// Processor time of background workers that took it from the program, in nanoseconds.
        background_ns: u64,
        /// Processor time of assists, in nanoseconds.
        assist_ns: u64,
        /// Processor time of workers that used idle processors, in nanoseconds.
        idle_ns: u64,
        /// The share of all processors' time that marking took from the program while it ran, in `0.0 ..= 1.0`: background
        /// and assists.
        utilization: f64,
        /// Whether this cycle found that the memory limit cannot be met; then it told [`LimitUnmet`](Self::LimitUnmet), too.
        limit_unmet: bool,
    },
}

/// What the layers above do after each cycle of any heap.
#[cfg(feature = "sched")]
static AFTER_CYCLES: std::sync::OnceLock<fn()> = std::sync::OnceLock::new();

/// From now on `then` is called after each cycle of any heap, on its collector's thread, with no lock held and before whoever
/// asked for the cycle goes on. It runs users' drops, which count as drops of objects do: they may not wait. Once in a process.
#[cfg(feature = "sched")]
pub(crate) fn after_each_cycle(then: fn()) {
    // There is one caller, and it calls once.
    let _ = AFTER_CYCLES.set(then);
}

/// A cycle is over, its sweep included.
pub(crate) fn note_cycle() {
    #[cfg(feature = "sched")]
    if let Some(then) = AFTER_CYCLES.get() {
        then();
    }
}

impl Event {
    /// Whether it tells of a trouble, not of the ordinary course of things.
    pub(crate) fn is_trouble(&self) -> bool {
        !matches!(self, Self::CycleEnd { .. })
    }

    /// Whether it is written to standard error where nobody takes events. A panic has been told by the panic hook; what
    /// concerns the limit is for `stats`.
    pub(crate) fn has_a_line(&self) -> bool {
        matches!(
            self,
            Self::SlowSafepoint { .. }
                | Self::SlowLock { .. }
                | Self::MutatorLost { .. }
                | Self::CycleOverdue { .. }
                | Self::SlowDrop { .. }
                | Self::SlowShutdown { .. }
        )
    }
}

impl fmt::Display for Event {
    /// One line: who, since when, where, and what usually helps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlowSafepoint {
                waited,
                thread,
                os_thread,
                attached_at,
                is_g,
                g,
                activity,
            } => {
                write!(f, "the collector has waited {} for ", Seconds(*waited))?;
                match (is_g, g) {
                    (true, Some(name)) => {
                        write!(f, "the G \"{name}\", spawned at {attached_at}, on ")?
                    }
                    (true, None) => write!(f, "a G, spawned at {attached_at}, on ")?,
                    (false, _) => {}
                }
                write!(f, "thread \"{thread}\"")?;
                if let Some(number) = os_thread {
                    write!(f, " ({number})")?;
                }
                if !is_g {
                    write!(f, ", attached at {attached_at}")?;
                }
                write!(
                    f,
                    ", to reach a safepoint; every thread of the heap may have to wait for it. It {activity}. "
                )?;
                f.write_str(activity.remedy(*is_g))
            }
            Self::SlowLock {
                waited,
                thread,
                writes,
                at,
            } => {
                let call = if *writes { "write" } else { "read" };
                write!(
                    f,
                    "thread \"{thread}\" has waited {} in GcLock::{call} at {at}. Either another thread computes while it holds the \
                     lock, or it waits in turn for a lock of this thread, or a guard of the lock was forgotten",
                    Seconds(*waited)
                )
            }
            Self::MutatorLost {
                thread,
                os_thread,
                attached_at,
            } => {
                write!(f, "the thread \"{thread}\"")?;
                if let Some(number) = os_thread {
                    write!(f, " ({number})")?;
                }
                write!(
                    f,
                    " has ended without dropping the mutator that it attached at {attached_at}. What that mutator gave out may \
                     be in use for ever, so the heap frees nothing from now on and runs no cycle. Drop the mutator at the end \
                     of the thread, or use `Heap::with`, which cannot forget it"
                )
            }
            Self::CycleOverdue {
                waited,
                heap_bytes,
                goal_bytes,
                pending,
                lost_mutators,
            } => {
                write!(
                    f,
                    "the heap has {heap_bytes} bytes, more than twice its goal of {goal_bytes}, and no cycle has ended for {}: ",
                    Seconds(*waited)
                )?;
                match (lost_mutators, pending) {
                    (0, Some(pending)) => write!(
                        f,
                        "the collector waits for {} late mutators. Call `safepoint` in loops, and wrap what waits in the \
                         mutator's `blocking`",
                        pending.late
                    ),
                    (0, None) => f.write_str(
                        "the collector marks, or drops dead objects. Is there a `Drop`, or an event's sink, that takes long or \
                         waits?",
                    ),
                    (lost, _) => write!(
                        f,
                        "{lost} threads have ended without dropping their mutators, so nothing is collected any more. Drop \
                         each mutator at the end of its thread, or use `Heap::with`"
                    ),
                }
            }
            Self::SlowDrop { waited, type_name } => write!(
                f,
                "the drop of a {type_name} has kept the collector from going on for {}. If it waits for a thread, that thread may \
                 wait for the collector. Have the drop send what is to be done to a thread of its own",
                Seconds(*waited)
            ),
            Self::SlowShutdown {
                waited,
                gs,
                left,
                threads,
            } => {
                write!(
                    f,
                    "the end of a runtime has waited {} for {left} Gs and {threads} threads. Each of them ends at its next \
                     `.await` that waits, or when its blocking call returns",
                    Seconds(*waited)
                )?;
                for g in gs {
                    write!(f, "; {g}")?;
                }
                Ok(())
            }
            Self::DropPanic { type_name, message } => {
                write!(f, "the drop of a {type_name} panicked: {message}")
            }
            Self::LimitUnmet {
                needed_bytes,
                limit_bytes,
                ..
            } => write!(
                f,
                "the memory limit of {limit_bytes} bytes cannot be met: {needed_bytes} bytes live, or cannot be given back"
            ),
            Self::LimitMet {
                needed_bytes,
                limit_bytes,
            } => write!(
                f,
                "the memory limit of {limit_bytes} bytes is met again: {needed_bytes} bytes live, or cannot be given back"
            ),
            Self::CycleEnd {
                cycle, live_bytes, ..
            } => write!(f, "cycle {cycle} is over: {live_bytes} bytes live"),
        }
    }
}

/// What a thread that keeps others waiting does; see [`Event::SlowSafepoint`]. As far as the operating system tells: Linux.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThreadActivity {
    /// It runs, and does not poll: a `safepoint` is missing in a loop.
    Computes {
        /// Processor time that it has had ..
        on_processor: Duration,
        /// .. in this time.
        over: Duration,
    },
    /// It would run, and gets no processor: others have them. More threads than processors compute.
    WaitsForProcessor {
        /// Processor time that it has had ..
        on_processor: Duration,
        /// .. in this time.
        over: Duration,
    },
    /// It sleeps: what it waits for is to be wrapped in [`Mutator::blocking`](crate::Mutator::blocking).
    Sleeps {
        /// The system call that it sleeps in.
        call: String,
    },
    /// It has ended.
    Ended,
    /// The system does not tell.
    Unknown,
}

impl ThreadActivity {
    /// What usually helps.
    fn remedy(&self, is_g: bool) -> &'static str {
        match (self, is_g) {
            (Self::Computes { .. }, _) => {
                "Call `safepoint` in its loop, where no `Gc` is live, or end its stay in the heap"
            }
            (Self::WaitsForProcessor { .. }, _) => {
                "More threads compute than there are processors; nothing is wrong with this one"
            }
            (Self::Sleeps { .. }, true) => {
                "Wait outside `with`, or wrap what it waits for in the mutator's `blocking`; did it forget a lock's guard?"
            }
            (Self::Sleeps { .. }, false) => {
                "Wrap what it waits for in the mutator's `blocking` (also a join, a foreign lock, rayon's parallel \
                 iterators and scopes), or drop the mutator before; was a mutator or a lock's guard forgotten?"
            }
            (Self::Ended | Self::Unknown, _) => {
                "Call `safepoint` in loops, wrap what waits in the mutator's `blocking`, and drop the mutator at the end"
            }
        }
    }
}

impl fmt::Display for ThreadActivity {
    /// What "it" does, as the rest of a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |part: &Duration, of: &Duration| {
            (100.0 * part.as_secs_f64() / of.as_secs_f64().max(1e-9)).min(100.0)
        };
        match self {
            Self::Computes { on_processor, over } => {
                let share = share(on_processor, over);
                write!(f, "computes ({share:.0} % of the time on a processor)")
            }
            Self::WaitsForProcessor { on_processor, over } => {
                let share = share(on_processor, over);
                write!(
                    f,
                    "wants to run and waits for a processor (it had one {share:.0} % of the time)"
                )
            }
            Self::Sleeps { call } => write!(f, "sleeps in {call}"),
            Self::Ended => f.write_str("has ended"),
            Self::Unknown => f.write_str("does something that the system does not tell"),
        }
    }
}

/// A time as people say it.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= Duration::from_secs(1) {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        } else {
            write!(f, "{} ms", self.0.as_millis())
        }
    }
}

/// Takes events, on the collector's thread.
pub(crate) type EventSink = Arc<dyn Fn(&Event) + Send + Sync>;

/// A summary of pauses, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PauseSummary {
    /// How many there were.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90 % were not longer.
    pub p90_ns: u64,
    /// 99 % were not longer.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// A histogram of durations, in nanoseconds, to two digits.
#[derive(Clone)]
pub(crate) struct Pauses(Option<Histogram<u64>>);

impl Pauses {
    pub(crate) fn new() -> Self {
        // 1 ns to 1 hour; the bounds are constants that the crate accepts, so this is `Some`.
        Self(Histogram::new_with_bounds(1, 3_600_000_000_000, 2).ok())
    }

    pub(crate) fn record(&mut self, ns: u64) {
        if let Some(h) = &mut self.0 {
            h.saturating_record(ns.max(1));
        }
    }

    pub(crate) fn summary(&self) -> PauseSummary {
        let Some(h) = &self.0 else {
            return PauseSummary::default();
        };
        PauseSummary {
            count: h.len(),
            p50_ns: h.value_at_quantile(0.5),
            p90_ns: h.value_at_quantile(0.9),
            p99_ns: h.value_at_quantile(0.99),
            max_ns: h.max(),
        }
    }
}

impl fmt::Debug for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary().fmt(f)
    }
}

/// Figures that the collector's thread writes and anybody reads.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) cycles: u64,
    pub(crate) forced_cycles: u64,
    pub(crate) live_bytes: u64,
    pub(crate) mark_ns: u64,
    pub(crate) total_mark_ns: u64,
    /// Processor time of marking, in nanoseconds: see `Event::CycleEnd`.
    pub(crate) background_ns: u64,
    pub(crate) assist_ns: u64,
    pub(crate) idle_ns: u64,
    /// The sum of the first two.
    pub(crate) total_taken_ns: u64,
    /// Bytes needed and the limit, when the last cycle found that the limit cannot be met.
    pub(crate) unmet_limit: Option<(u64, u64)>,
    pub(crate) last_pause_ns: u64,
    pub(crate) pauses: Pauses,
    pub(crate) stopping: Pauses,
}

impl Figures {
    pub(crate) fn new() -> Self {
        Self {
            cycles: 0,
            forced_cycles: 0,
            live_bytes: 0,
            mark_ns: 0,
            total_mark_ns: 0,
            background_ns: 0,
            assist_ns: 0,
            idle_ns: 0,
            total_taken_ns: 0,
            unmet_limit: None,
            last_pause_ns: 0,
            pauses: Pauses::new(),
            stopping: Pauses::new(),
        }
    }
}
