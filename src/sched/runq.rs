//! The run queue of a P: a ring of 256 that its owner fills, and everybody empties; and a place for the one to run next.
//!
//! The owner alone moves the tail; whoever takes moves the head by compare-and-exchange (Go runtime, `runqput`, `runqget`,
//! `runqgrab` of `proc.go`).
//!
//! **Invariants**
//! - `[U1]` Slots from head to tail (mod 256) hold references, which belong to the queue; the others hold nothing.
//! - `[U2]` A slot is overwritten only when the head is past it, so whoever moves the head over slots it has read got what
//!   was in them.

use std::ptr::NonNull;

use crate::sched::task::{GRef, Header};
use crate::sys::fatal::fatal;
use crate::sys::sync::{AtomicU32, AtomicUsize, Ordering};

/// Slots of the ring.
pub(crate) const RING: usize = if cfg!(loom) { 4 } else { 256 };

/// See the module's head.
#[derive(Debug)]
pub(crate) struct RunQueue {
    /// Moved by whoever takes.
    head: AtomicU32,
    /// Moved by the owner.
    tail: AtomicU32,
    /// Addresses of headers.
    ring: Box<[AtomicUsize]>,
    /// The address of the G to run next, or 0. Taken by exchange.
    next: AtomicUsize,
}

fn reference(address: usize) -> GRef {
    let Some(header) = NonNull::new(std::ptr::with_exposed_provenance_mut::<Header>(address))
    else {
        fatal("a run queue held a null")
    };
    // SAFETY: [U1] what was put in came from `into_raw`, and whoever calls this has taken it out.
    unsafe { GRef::from_raw(header) }
}

fn address(g: GRef) -> usize {
    g.into_raw().as_ptr().expose_provenance()
}

impl RunQueue {
    pub(crate) fn new() -> Self {
        Self {
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            ring: (0..RING).map(|_| AtomicUsize::new(0)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    fn slot(&self, at: u32) -> &AtomicUsize {
        &self.ring[at as usize % RING]
    }

    /// How many are in it, about.
    pub(crate) fn len(&self) -> usize {
        // Relaxed (both): an estimate.
        let head = self.head.load(Ordering::Relaxed);
        let tail = self.tail.load(Ordering::Relaxed);
        let next = usize::from(self.has_next());
        (tail.wrapping_sub(head) as usize).min(RING) + next
    }

    pub(crate) fn has_next(&self) -> bool {
        // Relaxed: an estimate.
        self.next.load(Ordering::Relaxed) != 0
    }

    /// Whether nothing is in it; never true while something is.
    pub(crate) fn is_empty(&self) -> bool {
        loop {
            // Acquire (all): pairs with `put`; read in this order, and the tail twice, because a G that is kicked from
            // `next` goes to the tail: it is seen in one place or the other (Go runtime, `runqempty`).
            let head = self.head.load(Ordering::Acquire);
            let tail = self.tail.load(Ordering::Acquire);
            let next = self.next.load(Ordering::Acquire);
            if tail == self.tail.load(Ordering::Acquire) {
                return head == tail && next == 0;
            }
        }
    }

    /// Makes `g` the next; returns the one that was. By the owner.
    pub(crate) fn put_next(&self, g: GRef) -> Option<GRef> {
        // AcqRel: publishes the G's header; takes over what another thread put there.
        let old = self.next.swap(address(g), Ordering::AcqRel);
        (old != 0).then(|| reference(old))
    }

    /// Takes the next one. By anybody.
    pub(crate) fn take_next(&self) -> Option<GRef> {
        // Relaxed: the swap below decides.
        if self.next.load(Ordering::Relaxed) == 0 {
            return None;
        }
        // AcqRel: pairs with `put_next`.
        let old = self.next.swap(0, Ordering::AcqRel);
        (old != 0).then(|| reference(old))
    }

    /// Puts `g` at the tail; `Err` with it and half of the queue if that is full. By the owner.
    pub(crate) fn put(&self, g: GRef) -> Result<(), Vec<GRef>> {
        loop {
            // Acquire: pairs with the takers' release of slots. [U2]
            let head = self.head.load(Ordering::Acquire);
            // Relaxed: the owner's own.
            let tail = self.tail.load(Ordering::Relaxed);
            if (tail.wrapping_sub(head) as usize) < RING {
                // Relaxed: published by the tail.
                self.slot(tail).store(address(g), Ordering::Relaxed);
                // Release: publishes the slot; pairs with the Acquire of takers.
                self.tail.store(tail.wrapping_add(1), Ordering::Release);
                return Ok(());
            }
            if let Some(mut half) = self.take_run(head, RING as u32 / 2) {
                half.push(g);
                return Err(half);
            }
        }
    }

    /// Takes `count` from `head` on, if nobody else was quicker. They are there.
    fn take_run(&self, head: u32, count: u32) -> Option<Vec<GRef>> {
        // Relaxed: [U2] the exchange below proves that they were not overwritten meanwhile.
        let addresses: Vec<usize> = (0..count)
            .map(|i| self.slot(head.wrapping_add(i)).load(Ordering::Relaxed))
            .collect();
        // Release: the slots have been read; pairs with the Acquire in `put`. Relaxed on failure: looked at again.
        self.head
            .compare_exchange(
                head,
                head.wrapping_add(count),
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .ok()?;
        Some(addresses.into_iter().map(reference).collect())
    }

    /// Takes the oldest. By the owner.
    pub(crate) fn take(&self) -> Option<GRef> {
        loop {
            // Acquire: pairs with the takers.
            let head = self.head.load(Ordering::Acquire);
            // Relaxed: the owner's own.
            let tail = self.tail.load(Ordering::Relaxed);
            if head == tail {
                return None;
            }
            // Relaxed: [U2] as in `take_run`.
            let at = self.slot(head).load(Ordering::Relaxed);
            // AcqRel: as in `take_run`. Relaxed on failure: looked at again.
            if self
                .head
                .compare_exchange(
                    head,
                    head.wrapping_add(1),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
            {
                return Some(reference(at));
            }
        }
    }

    /// Takes half of what is there, rounded up, for `to`, whose owner the caller is; one of them is returned at once. With
    /// `next`, the next one is taken when there is nothing else.
    pub(crate) fn steal_into(&self, to: &Self, next: bool) -> Option<GRef> {
        loop {
            // Acquire: pairs with other takers.
            let head = self.head.load(Ordering::Acquire);
            // Acquire: pairs with `put`, which published the slots.
            let tail = self.tail.load(Ordering::Acquire);
            let there = tail.wrapping_sub(head);
            let count = there - there / 2;
            if count == 0 {
                return if next { self.take_next() } else { None };
            }
            if count as usize > RING / 2 {
                continue; // head and tail are not of one moment
            }
            if let Some(mut taken) = self.take_run(head, count) {
                let last = taken.pop();
                for g in taken {
                    // At most half a ring goes into an empty one.
                    if to.put(g).is_err() {
                        fatal("a thief's run queue was full");
                    }
                }
                return last;
            }
        }
    }
}

impl Drop for RunQueue {
    fn drop(&mut self) {
        drop(self.take_next());
        while let Some(g) = self.take() {
            drop(g);
        }
    }
}
