//! The books on memory: how much is behind the arena, how much should be, and what a heap holds.

use crate::sys::sync::{AtomicU64, Ordering};

/// How much memory is behind the arena, and how much should be.
#[derive(Debug)]
pub(crate) struct Backing {
    /// The bytes of pages that are neither released nor untouched. The value falls only under the
    /// lock of the page heap.
    pub(super) bytes: AtomicU64,
    /// If there are more bytes than this, growth of the arena releases idle memory; `u64::MAX`
    /// means never.
    pub(super) by_growth: AtomicU64,
    /// If there are more bytes than this, including tables, an allocation that needs memory
    /// releases idle memory. It is the memory limit.
    pub(super) limit: AtomicU64,
    /// The bytes of spans when marking last ended, before the sweep.
    pub(super) peak: AtomicU64,
}

impl Backing {
    /// Makes the books of a heap with no memory behind it and no bounds.
    pub(super) fn new() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            by_growth: AtomicU64::new(u64::MAX),
            limit: AtomicU64::new(u64::MAX),
            peak: AtomicU64::new(0),
        }
    }

    /// Records the bytes of all spans. Marking has ended and the sweep has not begun, so there are
    /// more spans than at any other time of the cycle.
    pub(super) fn note_peak(&self, bytes: u64) {
        // Relaxed: statistics only.
        self.peak.store(bytes, Ordering::Relaxed);
    }
}

/// What a heap holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeapMemory {
    /// In spans.
    pub(crate) in_use: u64,
    /// Free, with memory behind it. Page caches count here.
    pub(crate) idle: u64,
    /// Free, with no memory behind it: given back, or never touched since the arena grew.
    pub(crate) released: u64,
    /// In bitmaps and tables for all of these.
    pub(crate) metadata: u64,
}

impl HeapMemory {
    /// Returns the memory of the arena that the system backs.
    pub(crate) const fn backed(&self) -> u64 {
        self.in_use + self.idle
    }

    /// Returns the same plus the tables: what counts against the memory limit.
    pub(crate) const fn mapped(&self) -> u64 {
        self.backed() + self.metadata
    }
}
