//! Figures.

use crate::gc::events::PauseSummary;

/// Figures of a heap, taken without stopping anyone.
///
/// Counts that mutators keep are told in steps (about 8 KiB a mutator and span class), so they lag by that much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapStats {
    /// Cycles completed.
    pub cycles: u64,
    /// Cycles that somebody asked for by `collect`.
    pub forced_cycles: u64,
    /// Bytes of objects that the last cycle marked.
    pub live_bytes: u64,
    /// Bytes of objects allocated and not yet known to be dead, external bytes included; what the trigger looks at.
    pub heap_bytes: u64,
    /// The size at which the running or next cycle should end, in bytes; `u64::MAX` when nothing limits the heap.
    pub goal_bytes: u64,
    /// The size at which the next cycle starts, in bytes.
    pub trigger_bytes: u64,
    /// Bytes of pages in spans.
    pub span_bytes: u64,
    /// Bytes of pages mapped and free.
    pub free_bytes: u64,
    /// Bytes of pages ever used; the OS may hold less, never more.
    pub mapped_bytes: u64,
    /// Bytes of the bitmaps and page tables for what is mapped.
    pub metadata_bytes: u64,
    /// Bytes of address space reserved.
    pub reserved_bytes: u64,
    /// Bytes of slots ever handed out.
    pub allocated_bytes: u64,
    /// Bytes that objects own outside the heap, as far as known.
    pub external_bytes: u64,
    /// Objects whose `Drop` has run.
    pub objects_dropped: u64,
    /// Of these, how many panicked.
    pub drop_panics: u64,
    /// Wall time of the last marking, in nanoseconds.
    pub mark_time_ns: u64,
    /// Wall time of all markings, in nanoseconds.
    pub total_mark_ns: u64,
    /// The last stop of the world, in nanoseconds.
    pub last_pause_ns: u64,
    /// All stops, from the request to the restart.
    pub pauses: PauseSummary,
    /// All stops, from the request until the last mutator reached a safepoint.
    pub stopping: PauseSummary,
}
