//! The write barrier: what happens before an edge changes. Every edge that may change goes through
//! [`before_store`], which knows the old value and the new one.
//!
//! ```text
//! set(edge, new):
//!     before_store(edge, old, new):
//!         if duty != 0:              // own record, one byte: see `Duty`
//!             buffer.push(old)       // Yuasa: shade what goes, before it goes
//!     edge.store(new, Release)       // publishes what `new` points to
//! ```
//! The deletion half is enough: at the first stop no mutator has a `Gc` in a Rust frame, roots and frames are scanned
//! before anybody can lose them, and what a mutator loads or allocates later is protected by the snapshot or black.
//! No safepoint falls between the push and the store, so whoever stops the world finds both done or neither.

use crate::base::ptr_buf::PtrBuf;
use crate::gc::collector::Collector;
use crate::gc::mark::Marker;
use crate::gc::mutator::Local;
use crate::object::trace::{LockView, Spill, Tracer};
use crate::sys::sabotage::{self, Fault};

/// An edge that is about to change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// What it leads to: an object's address, or 0.
    pub(crate) old: usize,
    /// What it will lead to, likewise. A barrier that deletes only does not ask for it.
    pub(crate) new: usize,
}

/// The write barrier's fast half: one load of the mutator's own record and a predicted branch.
#[inline(always)]
#[track_caller]
pub(crate) fn before_store<'a>(
    local: &Local,
    collector: impl FnOnce() -> &'a Collector,
    change: impl FnOnce() -> Change,
) {
    if local.duty.is_any() {
        collector().before_store_slow(local, change());
    }
}

/// Spills a mutator's full barrier buffer.
struct SpillBarrier<'a> {
    collector: &'a Collector,
    local: &'a Local,
}

impl Spill for SpillBarrier<'_> {
    fn spill(&mut self, buf: &mut PtrBuf) {
        self.collector.shade_buffer(self.local, buf);
    }
}

impl Collector {
    /// The slow half.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn before_store_slow(&self, local: &Local, change: Change) {
        if local.duty.marks() && change.old != 0 {
            self.shade_later(local, change.old);
        }
    }

    /// The object at `address` is about to lose a way to it. Marking runs.
    pub(crate) fn shade_later(&self, local: &Local, address: usize) {
        if sabotage::is_on(Fault::NoDeletionBarrier) {
            return;
        }
        let mut buf = local.barrier.borrow_mut();
        if buf.is_full() && sabotage::is_on(Fault::FullBufferLost) {
            buf.clear();
        }
        if buf.is_full() {
            self.shade_buffer(local, &mut buf);
        }
        buf.push(address);
    }

    /// Reports everything that `trace` finds to the barrier: a lock's old content, a frame before it is opened. The mutator
    /// is Running, and marking runs: the cycle that its record names cannot end meanwhile.
    pub(crate) fn shade_all_later(&self, local: &Local, trace: impl FnOnce(&mut Tracer<'_>)) {
        debug_assert!(
            local.duty.marks(),
            "a report to the barrier outside marking"
        );
        let cycle = local.cycle.get();
        let mut buf = local.barrier.borrow_mut();
        let mut spill = SpillBarrier {
            collector: self,
            local,
        };
        trace(&mut Tracer::new(
            &mut buf,
            &mut spill,
            LockView::Concurrent { cycle },
        ));
    }

    /// Shades what is in the mutator's buffer.
    pub(crate) fn flush_barrier(&self, local: &Local) {
        let mut buf = local.barrier.borrow_mut();
        if sabotage::is_on(Fault::BufferNotFlushed) {
            buf.clear();
        }
        if !buf.is_empty() {
            self.shade_buffer(local, &mut buf);
        }
    }

    fn shade_buffer(&self, local: &Local, buf: &mut PtrBuf) {
        debug_assert!(local.duty.marks(), "a barrier's buffer outside marking");
        let mut marker = local.marker.borrow_mut();
        let marker = marker.get_or_insert_with(|| Box::new(Marker::new()));
        marker.shade_buffer(&self.heap, buf);
        self.count_marked(marker.take_done());
        marker.give_all(&self.heap, &self.pool);
    }
}
