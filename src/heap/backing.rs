//! The books on memory: how much is behind the arena, how much should be, and what a heap holds.

use crate::sys::sync::{AtomicU64, Ordering};

/// How much memory is behind the arena, and how much should be.
#[derive(Debug)]
pub(crate) struct Backing {
    /// Bytes of pages that are neither released nor untouched. Falls only under the lock of the
    /// page heap.
    pub(super) bytes: AtomicU64,
    /// Past so many bytes growth of the arena releases idle memory; `u64::MAX`: never.
    pub(super) by_growth: AtomicU64,
    /// Past so many bytes, tables included, whoever needs memory releases idle memory: the memory
    /// limit.
    pub(super) limit: AtomicU64,
    /// Bytes of spans when marking last ended, before the sweep.
    pub(super) peak: AtomicU64,
}

impl Backing {
    /// Nothing is backed, and there are no bounds.
    pub(super) fn new() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            by_growth: AtomicU64::new(u64::MAX),
            limit: AtomicU64::new(u64::MAX),
            peak: AtomicU64::new(0),
        }
    }

    /// Marking is over, and the sweep has not begun: the spans are as many as they get. They have
    /// `bytes`.
    pub(super) fn note_peak(&self, bytes: u64) {
        // Relaxed: a figure.
        self.peak.store(bytes, Ordering::Relaxed);
    }
}

/// What a heap holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeapMemory {
    /// In spans.
    pub(crate) in_use: u64,
    /// Free, with memory behind it; page caches included.
    pub(crate) idle: u64,
    /// Free, with no memory behind it: given back, or never touched since the arena grew.
    pub(crate) released: u64,
    /// Bitmaps and tables for all of these.
    pub(crate) metadata: u64,
}

impl HeapMemory {
    /// Memory of the arena that the system backs.
    pub(crate) const fn backed(&self) -> u64 {
        self.in_use + self.idle
    }

    /// The same with the tables: what counts against the memory limit.
    pub(crate) const fn mapped(&self) -> u64 {
        self.backed() + self.metadata
    }
}
