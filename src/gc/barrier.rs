//! The write barrier's slow half: what happens to the value that an edge is about to lose.
//!
//! ```text
//! set(edge, new):
//!     if marking:                    // own record, plain
//!         buffer.push(edge.load())   // Yuasa: shade what goes, before it goes
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
    /// The barrier: the object at `address` is about to lose an edge to it. Marking runs.
    #[cold]
    #[inline(never)]
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
            local.marking.get(),
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
        debug_assert!(local.marking.get(), "a barrier's buffer outside marking");
        let mut marker = local.marker.borrow_mut();
        let marker = marker.get_or_insert_with(|| Box::new(Marker::new()));
        marker.shade_buffer(&self.heap, buf);
        self.count_marked(marker.take_done());
        marker.give_all(&self.heap, &self.pool);
    }
}
