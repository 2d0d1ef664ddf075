//! What the collector tells its user, and its figures.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Something that happened in the heap; see [`HeapBuilder::on_event`](crate::HeapBuilder::on_event).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A mutator keeps a phase change waiting: it has not reached a safepoint for over 10 ms. Told again every 10 ms.
    SlowSafepoint {
        /// How long the collector has waited so far.
        waited: Duration,
        /// The name of the mutator's thread, or its id.
        thread: String,
        /// Where [`Heap::attach`](crate::Heap::attach) was called.
        attached_at: &'static Location<'static>,
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
    /// the moment to shed load.
    LimitUnmet {
        /// Bytes that live or cannot be given back.
        needed_bytes: u64,
        /// The limit, in bytes.
        limit_bytes: u64,
        /// Whether collection takes so much time that it is being held back.
        limiting: bool,
    },
    /// A cycle is over, its sweep included.
    CycleEnd {
        /// The cycle's number, from 1.
        cycle: u64,
        /// Bytes that it marked.
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
    },
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
