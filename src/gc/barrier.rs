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
//!
//! **Invariants**
//! - `[G4]` Through a mutator only its own heap's edges change, and to its own heap's objects. So a
//!   heap's marker is told of whatever its objects lose, by mutators that its stops wait for.
//!
//! The types do not hold [G4]. A leaked mutator makes `Gc<'static, _>`s, whose use with any mutator of
//! the *same* heap is sound (`gc/lost.rs`); a trait object or a thread-local brings them to a thread
//! that uses a mutator of another heap. As long as the process has one heap there is nothing to ask.
//! When it has several, every mutator's `Duty` says so (`gc/heaps.rs`), and the slow half looks at
//! the edge's own address and at both values before anything is changed. An edge may be outside of all
//! arenas (in a `Box` that an object owns): then its values tell. What an operation reads besides
//! (a weak cell, an object to be rooted) goes through [`Collector::assert_own`], the content of a lock
//! through [`Collector::foreign_in`].
//!
//! An edge outside of all arenas that leads nowhere shows by neither its address nor its values whose
//! it is, so it takes any object. Who could store a heap's object in another heap's edge that way?
//! The edge has a brand that cannot be changed (cells are invariant in it), and what is stored has that
//! brand, too. A pointer that is used with a mutator of another heap is `'static`. There are two cases:
//!
//! - *The edge is still `'static`*. Then so is what it takes, and the heap of that has a leaked
//!   mutator: it ends no cycle that begins after the leak (`gc/lost.rs`). What a mutator of it stores
//!   is marked in the cycle that may still end, or younger: so it is never freed, though no marker of
//!   its heap sees the edge.
//! - *The edge has got a section's brand*. Only a `Root`, a `WeakRoot` and a `Frame` change the brand
//!   of what they give out: the whole of its type. Roots are asked for their heap, when they are made
//!   and when they are used. What is behind an object of the own heap came there with the brand that its
//!   mutator had: `alloc` and its relatives ask for it (`BrandedBy`), and an open frame or lock takes no
//!   other, if the type is invariant (`tests/ui/fail/static_brand_pushed.rs`). If that brand was
//!   `'static`, the first case holds: the mutator was a leaked one of this very heap. `Frame::new` alone takes a value that is branded `'static` from
//!   any mutator, and so it looks through the value ([`Collector::assert_all_own`]).
//!
//! One cycle may still end after the leak: the one that had begun before it. Whatever its heap had at its
//! first stop is marked, since nobody had a `'static` mutator by then that could hide anything.
//!
//! What is left is a pointer to another heap's object whose type is covariant: it may be *kept* in an
//! object, an open lock or an open frame. Nothing with its brand can be changed behind it. There it is
//! an address outside of the arena, which markers and verifiers pass over, and the mutator that gave
//! it out keeps the object.
//!
//! No safepoint falls between the push and the store, so whoever stops the world finds both done or neither.

use crate::base::ptr_buf::PtrBuf;
use crate::gc::collector::Collector;
use crate::gc::heaps;
use crate::gc::mark::Marker;
use crate::gc::mutator::Local;
use crate::object::trace::{LockView, Spill, Tracer};
use crate::sys::sabotage::{self, Fault};

/// An edge that is about to change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// Where it is.
    pub(crate) at: usize,
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

/// Looks at what a trace finds.
struct LookForForeign<'a> {
    collector: &'a Collector,
    found: Option<(usize, usize)>,
}

impl Spill for LookForForeign<'_> {
    fn spill(&mut self, buf: &mut PtrBuf) {
        for &address in buf.as_slice() {
            if self.found.is_none() {
                self.found = (self.collector.foreign(address)).map(|heap| (address, heap));
            }
        }
        buf.clear();
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
        if local.duty.checks() {
            self.assert_own(change.at);
            self.assert_own(change.old);
            self.assert_own(change.new);
        }
        if local.duty.marks() && change.old != 0 {
            self.shade_later(local, change.old);
        }
    }

    /// Panics if the address is in another heap's arena. [G4] Any address is allowed: of an object
    /// without a size, on a stack, 0.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn assert_own(&self, address: usize) {
        if let Some(heap) = self.foreign(address) {
            self.refuse(address, heap);
        }
    }

    /// The number of the other heap that the address is in.
    fn foreign(&self, address: usize) -> Option<usize> {
        if self.heap.offset_of(address).is_some() || sabotage::is_on(Fault::ForeignUnchecked) {
            return None;
        }
        heaps::heap_of(address)
    }

    #[allow(clippy::panic, reason = "documented where it can happen")]
    #[track_caller]
    fn refuse(&self, address: usize, heap: usize) -> ! {
        panic!(
            "an object of heap {heap} (at {address:#x}) was used with a mutator of heap {}: an object may be used with \
             mutators of its own heap only",
            self.id
        );
    }

    /// Looks at everything that `trace` finds, and into locks as `locks` says: an address in another
    /// heap's arena, and the number of that heap.
    pub(crate) fn foreign_in(
        &self,
        locks: LockView,
        trace: impl FnOnce(&mut Tracer<'_>),
    ) -> Option<(usize, usize)> {
        let mut look = LookForForeign {
            collector: self,
            found: None,
        };
        let mut buf = PtrBuf::new();
        trace(&mut Tracer::new(&mut buf, &mut look, locks));
        look.spill(&mut buf);
        look.found
    }

    /// Panics if `trace` finds something of another heap.
    #[track_caller]
    pub(crate) fn assert_all_own(&self, locks: LockView, trace: impl FnOnce(&mut Tracer<'_>)) {
        if let Some((address, heap)) = self.foreign_in(locks, trace) {
            self.refuse(address, heap);
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
