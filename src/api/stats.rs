//! The statistics of a heap.
//!
//! **Claim.** Reading them stops no thread, and takes time in proportion to the number of span
//! classes.
//!
//! **How.** Mutators keep counts of their own and add them to those of the heap when they take a
//! run of slots. So the values lag, and two of them may be of different moments.
//! `HeapStats::metrics` lists them under names that do not change: a field's name with the prefix
//! `greywave_`.

use std::fmt;

use crate::gc::events::PauseSummary;
use crate::gc::late::PendingRequest;

/// Statistics of a heap, read without stopping any thread.
///
/// Mutators report the counts that they keep in steps (about 8 KiB for each mutator and span
/// class), so the statistics lag by that much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapStats {
    /// The number of mutators: attached threads, and the processors of runtimes.
    pub mutators: usize,
    /// How many of the mutators run user code.
    pub running_mutators: usize,
    /// How many of the mutators are lost: their threads ended without dropping them. While there is
    /// one, nothing is collected.
    pub lost_mutators: usize,
    /// What the collector waits for now; `None` if it waits for nobody.
    pub pending: Option<PendingRequest>,
    /// Root slots in use: objects that [`Root`](crate::Root)s and [`WeakRoot`](crate::WeakRoot)s
    /// hold. Clones share a slot. Roots that were dropped on threads without a mutator count until
    /// the next cycle.
    pub roots: u64,
    /// The number of [`Frame`](crate::Frame)s.
    pub frames: u64,
    /// Cycles completed.
    pub cycles: u64,
    /// Cycles that were requested by `collect`.
    pub forced_cycles: u64,
    /// Bytes of the objects that the last cycle marked.
    pub live_bytes: u64,
    /// Bytes of objects that were allocated and are not known to be dead, with external bytes. The
    /// trigger is compared with this.
    pub heap_bytes: u64,
    /// The size at which the running or the next cycle should end, in bytes; `u64::MAX` if nothing
    /// limits the heap.
    pub goal_bytes: u64,
    /// The size at which the next cycle begins, in bytes.
    pub trigger_bytes: u64,
    /// The soft memory limit, in bytes; `u64::MAX` if there is none.
    pub memory_limit_bytes: u64,
    /// GOGC in percent; `None` if it is off.
    pub gogc: Option<u32>,
    /// Present while more is live than the memory limit leaves room for.
    pub unmet_limit: Option<UnmetLimit>,
    /// Bytes of pages in spans.
    pub span_bytes: u64,
    /// Bytes of free pages that have memory behind them.
    pub free_bytes: u64,
    /// Bytes of free pages that were given back to the OS or never touched.
    pub released_bytes: u64,
    /// Bytes of pages that have memory behind them, in spans or free. The OS may hold less, but
    /// never more.
    pub mapped_bytes: u64,
    /// Bytes of the bitmaps and page tables for what is mapped.
    pub metadata_bytes: u64,
    /// Bytes of the reserved address space.
    pub reserved_bytes: u64,
    /// Bytes of all slots that were ever handed out.
    pub allocated_bytes: u64,
    /// Bytes of all slots that were ever found dead and swept.
    pub freed_bytes: u64,
    /// Bytes that objects own outside the heap, as far as known.
    pub external_bytes: u64,
    /// Objects whose `Drop` has run.
    pub objects_dropped: u64,
    /// How many of these drops panicked.
    pub drop_panics: u64,
    /// The frames and locks that the last verification left out, because a thread might have been
    /// writing to them; see [`Heap::verify`](crate::Heap::verify).
    pub verify_left_out: u64,
    /// Bytes of spans that are still to be swept; 0 when the sweep is over.
    pub sweep_debt_bytes: u64,
    /// The wall time of the last marking, in nanoseconds.
    pub mark_time_ns: u64,
    /// The wall time of all markings, in nanoseconds.
    pub total_mark_ns: u64,
    /// The processor time that background workers have taken from the program, in nanoseconds.
    pub background_ns: u64,
    /// The processor time of assists, in nanoseconds.
    pub assist_ns: u64,
    /// The processor time of workers that used idle processors, in nanoseconds.
    pub idle_ns: u64,
    /// Whether collection takes so much time that the limiter has turned assists off.
    pub limiting: bool,
    /// The length of the last stop of the world, in nanoseconds.
    pub last_pause_ns: u64,
    /// The lengths of all stops, from the request to the restart.
    pub pauses: PauseSummary,
    /// How long all stops took from the request until the last mutator reached a safepoint.
    pub stopping: PauseSummary,
    /// Objects by size, smallest first, without the sizes that were never used.
    pub by_size: Vec<SizeStats>,
}

/// A memory limit that cannot be met; see [`HeapStats::unmet_limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmetLimit {
    /// The bytes that are live or cannot be given back.
    pub needed_bytes: u64,
    /// The limit, in bytes.
    pub limit_bytes: u64,
}

impl fmt::Display for UnmetLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "limit cannot be met: live {} bytes of {} bytes",
            self.needed_bytes, self.limit_bytes
        )
    }
}

/// Statistics of the objects of one slot size. A run of slots is counted when a mutator takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SizeStats {
    /// The bytes of a slot; 0 stands for large objects, whose sizes differ.
    pub slot_bytes: usize,
    /// Objects that were ever allocated.
    pub allocated_objects: u64,
    /// Bytes of these objects.
    pub allocated_bytes: u64,
    /// Objects that were ever found dead and swept.
    pub freed_objects: u64,
    /// Bytes of these objects.
    pub freed_bytes: u64,
}

/// Says how the value of a [`Metric`] changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
}

/// One statistic with its name, in the form that exporters need.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// The name, such as `greywave_live_bytes`: the field of [`HeapStats`], with the unit at its
    /// end.
    pub name: &'static str,
    /// Whether it is a counter or a gauge.
    pub kind: MetricKind,
    /// The value. Counts above 2^53 are rounded.
    pub value: f64,
}

impl HeapStats {
    /// Returns all statistics that are one number, in a fixed order, without the limits that are
    /// not set.
    ///
    /// # Examples
    /// This program writes the text format of Prometheus:
    /// ```
    /// # let heap = greywave::Heap::new();
    /// use std::fmt::Write;
    ///
    /// let mut page = String::new();
    /// for metric in heap.stats().metrics() {
    ///     let kind = format!("{:?}", metric.kind).to_lowercase();
    ///     writeln!(page, "# TYPE {} {kind}\n{} {}", metric.name, metric.name, metric.value).unwrap();
    /// }
    /// assert!(page.contains("greywave_cycles 0"));
    /// ```
    pub fn metrics(&self) -> impl Iterator<Item = Metric> + use<> {
        use MetricKind::{Counter, Gauge};
        let pending_ns = self.pending.map_or(0, |p| p.age.as_nanos() as u64);
        let all = [
            ("greywave_mutators", Gauge, self.mutators as u64),
            (
                "greywave_running_mutators",
                Gauge,
                self.running_mutators as u64,
            ),
            ("greywave_lost_mutators", Gauge, self.lost_mutators as u64),
            ("greywave_pending_ns", Gauge, pending_ns),
            ("greywave_roots", Gauge, self.roots),
            ("greywave_frames", Gauge, self.frames),
            ("greywave_cycles", Counter, self.cycles),
            ("greywave_forced_cycles", Counter, self.forced_cycles),
            ("greywave_live_bytes", Gauge, self.live_bytes),
            ("greywave_heap_bytes", Gauge, self.heap_bytes),
            ("greywave_goal_bytes", Gauge, self.goal_bytes),
            ("greywave_trigger_bytes", Gauge, self.trigger_bytes),
            (
                "greywave_memory_limit_bytes",
                Gauge,
                self.memory_limit_bytes,
            ),
            ("greywave_span_bytes", Gauge, self.span_bytes),
            ("greywave_free_bytes", Gauge, self.free_bytes),
            ("greywave_released_bytes", Gauge, self.released_bytes),
            ("greywave_mapped_bytes", Gauge, self.mapped_bytes),
            ("greywave_metadata_bytes", Gauge, self.metadata_bytes),
            ("greywave_reserved_bytes", Gauge, self.reserved_bytes),
            ("greywave_allocated_bytes", Counter, self.allocated_bytes),
            ("greywave_freed_bytes", Counter, self.freed_bytes),
            ("greywave_external_bytes", Gauge, self.external_bytes),
            ("greywave_objects_dropped", Counter, self.objects_dropped),
            ("greywave_drop_panics", Counter, self.drop_panics),
            ("greywave_verify_left_out", Gauge, self.verify_left_out),
            ("greywave_sweep_debt_bytes", Gauge, self.sweep_debt_bytes),
            ("greywave_mark_ns", Counter, self.total_mark_ns),
            ("greywave_background_ns", Counter, self.background_ns),
            ("greywave_assist_ns", Counter, self.assist_ns),
            ("greywave_idle_ns", Counter, self.idle_ns),
            ("greywave_limiting", Gauge, u64::from(self.limiting)),
            ("greywave_pauses", Counter, self.pauses.count),
            ("greywave_pause_p50_ns", Gauge, self.pauses.p50_ns),
            ("greywave_pause_p99_ns", Gauge, self.pauses.p99_ns),
            ("greywave_pause_max_ns", Gauge, self.pauses.max_ns),
            ("greywave_stopping_p99_ns", Gauge, self.stopping.p99_ns),
        ];
        all.into_iter()
            .filter(|&(_, _, value)| value != u64::MAX)
            .map(|(name, kind, value)| Metric {
                name,
                kind,
                value: value as f64,
            })
    }
}
