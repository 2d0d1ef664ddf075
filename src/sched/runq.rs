//! The run queue of a P: a ring of 256 that its owner fills, and everybody empties; and a place for the one to run next.
//!
//! The owner alone moves the tail; whoever takes moves the head by compare-and-exchange (Go runtime, `runqput`, `runqget`,
//! `runqgrab` of `proc.go`).
//!
//! **Invariants**
//! - `[U1]` Slots from head to tail (mod 256) hold references, which belong to the queue; the others hold nothing.
//! - `[U2]` A slot is overwritten only when the head is past it, so whoever moves the head over slots it has read got what
//!   was in them.

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::sched::task::{GRef, Header};
use crate::sys::MODELLED;
use crate::sys::fatal::fatal;
use crate::sys::sync::{AtomicU32, AtomicUsize, Ordering};

/// Slots of the ring.
pub(crate) const RING: usize = if MODELLED { 4 } else { 256 };

/// What a slot holds: an address that stands for ownership.
pub(crate) trait Item: Sized {
    /// Gives the ownership to the address; not 0.
    fn into_address(self) -> usize;
    /// Takes the ownership back. [U1] Once for each `into_address`.
    fn from_address(address: usize) -> Self;
}

impl Item for GRef {
    fn into_address(self) -> usize {
        self.into_raw().as_ptr().expose_provenance()
    }

    fn from_address(address: usize) -> Self {
        let header = std::ptr::with_exposed_provenance_mut::<Header>(address);
        let Some(header) = NonNull::new(header) else {
            fatal("a run queue held a null")
        };
        // SAFETY: [U1] what was put in came from `into_raw`, and whoever calls this has taken it out.
        unsafe { Self::from_raw(header) }
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct RunQueue<T: Item = GRef> {
    item: PhantomData<T>,
    /// Moved by whoever takes.
    head: AtomicU32,
    /// Moved by the owner.
    tail: AtomicU32,
    /// Addresses of headers.
    ring: Box<[AtomicUsize]>,
    /// The address of the G to run next, or 0. Taken by exchange.
    next: AtomicUsize,
}

impl<T: Item> RunQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            item: PhantomData,
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
    pub(crate) fn put_next(&self, g: T) -> Option<T> {
        // AcqRel: publishes the G's header; takes over what another thread put there.
        let old = self.next.swap(g.into_address(), Ordering::AcqRel);
        (old != 0).then(|| T::from_address(old))
    }

    /// Takes the next one. By anybody.
    pub(crate) fn take_next(&self) -> Option<T> {
        // Relaxed: the swap below decides.
        if self.next.load(Ordering::Relaxed) == 0 {
            return None;
        }
        // AcqRel: pairs with `put_next`.
        let old = self.next.swap(0, Ordering::AcqRel);
        (old != 0).then(|| T::from_address(old))
    }

    /// Takes all that is in it, the next one first.
    pub(crate) fn take_all(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.take_next().or_else(|| self.take()))
    }

    /// Puts `g` at the tail; `Err` with it and half of the queue if that is full. By the owner.
    pub(crate) fn put(&self, g: T) -> Result<(), Vec<T>> {
        loop {
            // Acquire: pairs with the takers' release of slots. [U2]
            let head = self.head.load(Ordering::Acquire);
            // Relaxed: the owner's own.
            let tail = self.tail.load(Ordering::Relaxed);
            if (tail.wrapping_sub(head) as usize) < RING {
                // Relaxed: published by the tail.
                self.slot(tail).store(g.into_address(), Ordering::Relaxed);
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
    fn take_run(&self, head: u32, count: u32) -> Option<Vec<T>> {
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
        Some(addresses.into_iter().map(T::from_address).collect())
    }

    /// Takes the oldest. By the owner.
    pub(crate) fn take(&self) -> Option<T> {
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
                return Some(T::from_address(at));
            }
        }
    }

    /// Takes half of what is there, rounded up, for `to`, whose owner the caller is; one of them is returned at once. With
    /// `next`, the next one is taken when there is nothing else.
    pub(crate) fn steal_into(&self, to: &Self, next: bool) -> Option<T> {
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

impl<T: Item> Drop for RunQueue<T> {
    fn drop(&mut self) {
        drop(self.take_next());
        while let Some(g) = self.take() {
            drop(g);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    impl Item for usize {
        fn into_address(self) -> usize {
            self + 1
        }
        fn from_address(address: usize) -> Self {
            address - 1
        }
    }

    /// Go's TestSchedLocalQueue: first in, first out, for every length.
    #[test]
    fn the_ring_keeps_its_order_at_every_length() {
        let queue = RunQueue::<usize>::new();
        for len in 0..RING {
            for number in 0..len {
                queue.put(number).expect("there is room");
            }
            for number in 0..len {
                assert_eq!(queue.take(), Some(number));
            }
            assert!(queue.take().is_none() && queue.is_empty());
        }
    }

    /// Go's TestSchedLocalQueueSteal: half, rounded up, and each once.
    #[test]
    fn a_thief_takes_half_and_nothing_twice() {
        let (from, to) = (RunQueue::<usize>::new(), RunQueue::<usize>::new());
        for len in 0..RING {
            let mut seen = vec![0; len];
            for number in 0..len {
                from.put(number).expect("there is room");
            }
            let first = from.steal_into(&to, false);
            let rest = std::iter::from_fn(|| to.take());
            let taken: Vec<usize> = first.into_iter().chain(rest).collect();
            assert_eq!(taken.len(), len - len / 2);
            for number in taken.into_iter().chain(std::iter::from_fn(|| from.take())) {
                seen[number] += 1;
            }
            assert!(seen.iter().all(|&n| n == 1), "{seen:?}");
        }
    }

    #[test]
    fn a_full_ring_gives_half_away() {
        let queue = RunQueue::<usize>::new();
        for number in 0..RING {
            queue.put(number).expect("there is room");
        }
        let half = queue.put(RING).expect_err("it is full");
        let expected: Vec<usize> = (0..RING / 2).chain([RING]).collect();
        assert_eq!((half, queue.len()), (expected, RING / 2));
    }

    #[test]
    fn the_next_one_goes_first_and_is_stolen_last() {
        let (queue, thief) = (RunQueue::<usize>::new(), RunQueue::<usize>::new());
        assert!(queue.put_next(1).is_none());
        assert_eq!(queue.put_next(2), Some(1));
        assert!(queue.steal_into(&thief, false).is_none());
        queue.put(1).expect("there is room");
        assert_eq!(queue.steal_into(&thief, true), Some(1));
        assert_eq!(queue.steal_into(&thief, true), Some(2));
        assert!(queue.is_empty());
    }

    /// Go's TestSchedLocalQueueEmpty: never empty to a third while something moves from `next` to the ring.
    #[test]
    fn a_queue_with_one_in_it_never_looks_empty() {
        use std::sync::Barrier;
        let queue = RunQueue::<usize>::new();
        let (start, end) = (Barrier::new(2), Barrier::new(2));
        const ROUNDS: usize = 20_000;
        std::thread::scope(|s| {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    start.wait();
                    assert!(!queue.is_empty(), "it has one or two");
                    end.wait();
                }
            });
            for _ in 0..ROUNDS {
                queue.put_next(1);
                start.wait();
                if let Some(kicked) = queue.put_next(2) {
                    queue.put(kicked).expect("there is room");
                }
                end.wait();
                while queue.take_next().or_else(|| queue.take()).is_some() {}
            }
        });
    }
}
