//! The timers of one P: a heap of deadlines, and a slot with a waker for each.
//!
//! | a slot is | its waker | who points to it |
//! |---|---|---|
//! | waiting | there | one entry of the heap, and the key of a future |
//! | cancelled | gone | one entry of the heap |
//! | free | gone | the list of free slots |
//!
//! A cancelled timer keeps its slot and its entry until the entry comes to the top, or until half the heap is such
//! entries and all of them are swept out; so a cancel costs a lock and a store. A timer that is put off keeps its entry
//! too: the slot has the new deadline, and the entry moves when it comes to the top. The top itself is always exact, so
//! nobody wakes for a timer that is gone. (Four children to a node and lazy deletion are Go's, runtime, `time.go`.)
//!
//! **Concurrency**: everything is under the lock of the heap, except `next`, which is written under it and read by
//! anybody. Wakers are woken and dropped outside the lock.

use std::task::Waker;

use crate::sys::MODELLED;
use crate::sys::lock::Unranked;
use crate::sys::sync::{AtomicU64, Ordering};

/// The deadline of nothing.
pub(crate) const NEVER: u64 = u64::MAX;

/// How many children a node of the heap has.
const ARITY: usize = 4;

/// How many timers are woken for one time the lock is taken.
const BATCH: usize = 32;

/// Below this many cancelled timers a sweep is not worth it, and as many slots are kept when none is in use.
const SMALL: usize = if MODELLED || cfg!(miri) { 4 } else { 256 };

/// The end of the list of free slots.
const NO_SLOT: u32 = u32::MAX;

/// Names a timer. A key outlives its timer: tickets are not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    slot: u32,
    ticket: u64,
}

/// What a timer is now, after it was asked for by its key.
#[derive(Debug)]
pub(crate) enum Moved {
    /// It has fired already.
    Gone,
    /// It waits, under this key; the next deadline of the heap is `next`.
    Waiting { key: Key, next: u64 },
}

/// See the module's head. Alone in its cache lines: other Ps read `next` all the time.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Timers {
    /// The deadline at the top of the heap, [`NEVER`] if it is empty.
    next: AtomicU64,
    heap: Unranked<Heap>,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU64::new(NEVER),
            heap: Unranked::new(Heap::new()),
        }
    }

    /// The deadline of the first timer. One load.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        // Acquire: what was done before the timer was added is seen; pairs with `publish`.
        self.next.load(Ordering::Acquire)
    }

    fn publish(&self, heap: &mut Heap) -> u64 {
        let next = heap.settle();
        // Release: pairs with `next`.
        self.next.store(next, Ordering::Release);
        next
    }

    /// Adds a timer that wakes `waker` at `when`; also returns the next deadline of the heap.
    pub(crate) fn insert(&self, when: u64, waker: Waker) -> (Key, u64) {
        let mut heap = self.heap.lock();
        let key = heap.insert(when, waker);
        (key, self.publish(&mut heap))
    }

    /// Sees to it that the timer wakes `waker`; false if it has fired.
    pub(crate) fn refresh(&self, key: Key, waker: &Waker) -> bool {
        let old = {
            let mut heap = self.heap.lock();
            match heap.waker_of(key) {
                None => return false,
                Some(old) if old.will_wake(waker) => return true,
                Some(old) => std::mem::replace(old, waker.clone()),
            }
        };
        drop(old);
        true
    }

    /// Takes the timer out, if it has not fired.
    pub(crate) fn cancel(&self, key: Key) {
        let waker = {
            let mut heap = self.heap.lock();
            let waker = heap.cancel(key);
            if waker.is_some() {
                self.publish(&mut heap);
            }
            waker
        };
        drop(waker);
    }

    /// Gives the timer another deadline, if it has not fired.
    pub(crate) fn reset(&self, key: Key, when: u64) -> Moved {
        let mut heap = self.heap.lock();
        match heap.reset(key, when) {
            None => Moved::Gone,
            Some(key) => Moved::Waiting {
                key,
                next: self.publish(&mut heap),
            },
        }
    }

    /// Wakes everybody whose deadline is not after `now`; returns how many.
    pub(crate) fn expire(&self, now: u64) -> usize {
        let mut woken = 0;
        while self.next() <= now {
            let mut batch = [const { None }; BATCH];
            {
                let mut heap = self.heap.lock();
                for place in &mut batch {
                    *place = heap.pop_due(now);
                }
                self.publish(&mut heap);
            }
            for waker in batch.into_iter().flatten() {
                waker.wake();
                woken += 1;
            }
        }
        woken
    }
}

/// A node of the heap.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Not after the deadline that the slot has.
    when: u64,
    slot: u32,
}

/// See the module's head for its states.
#[derive(Debug)]
struct Slot {
    waker: Option<Waker>,
    /// The deadline; in a free slot, the number of the next free one.
    when: u64,
    /// Which timer of all that this heap had.
    ticket: u64,
}

#[derive(Debug)]
struct Heap {
    entries: Vec<Entry>,
    slots: Vec<Slot>,
    free: u32,
    cancelled: usize,
    tickets: u64,
}

impl Heap {
    const fn new() -> Self {
        Self {
            entries: Vec::new(),
            slots: Vec::new(),
            free: NO_SLOT,
            cancelled: 0,
            tickets: 0,
        }
    }

    fn insert(&mut self, when: u64, waker: Waker) -> Key {
        self.tickets += 1;
        let ticket = self.tickets;
        let filled = Slot {
            waker: Some(waker),
            when,
            ticket,
        };
        let slot = self.free;
        if let Some(place) = self.slots.get_mut(slot as usize) {
            self.free = place.when as u32;
            *place = filled;
            self.push(Entry { when, slot });
            return Key { slot, ticket };
        }
        // Memory ends before the numbers do: 2^32 slots are 128 GiB.
        let slot = self.slots.len() as u32;
        self.slots.push(filled);
        self.push(Entry { when, slot });
        Key { slot, ticket }
    }

    /// The waker of a timer that waits.
    fn waker_of(&mut self, key: Key) -> Option<&mut Waker> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        slot.waker.as_mut().filter(|_| slot.ticket == key.ticket)
    }

    fn cancel(&mut self, key: Key) -> Option<Waker> {
        self.waker_of(key)?;
        self.cancelled += 1;
        self.slots[key.slot as usize].waker.take()
    }

    /// A later deadline is noted in the slot; an earlier one needs an entry, and so a slot, of its own.
    fn reset(&mut self, key: Key, when: u64) -> Option<Key> {
        self.waker_of(key)?;
        let slot = &mut self.slots[key.slot as usize];
        if when >= slot.when {
            slot.when = when;
            return Some(key);
        }
        let waker = self.cancel(key)?;
        Some(self.insert(when, waker))
    }

    /// Takes the first timer out, if it is due. The top is exact only after `settle`.
    fn pop_due(&mut self, now: u64) -> Option<Waker> {
        if self.settle() > now {
            return None;
        }
        let slot = self.pop()?;
        let waker = self.slots[slot as usize].waker.take();
        self.release(slot);
        waker
    }

    /// Makes the top a timer that waits and is due when its entry says; returns that deadline.
    fn settle(&mut self) -> u64 {
        if self.cancelled >= SMALL && self.cancelled > self.entries.len() / 2 {
            self.sweep();
        }
        while let Some(&top) = self.entries.first() {
            let slot = &self.slots[top.slot as usize];
            if slot.waker.is_none() {
                self.pop();
                self.release(top.slot);
                self.cancelled -= 1;
            } else if slot.when > top.when {
                self.entries[0].when = slot.when;
                self.sift_down(0);
            } else {
                return top.when;
            }
        }
        self.shrink();
        NEVER
    }

    /// Takes all cancelled timers out.
    fn sweep(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain_mut(|entry| {
            let slot = &self.slots[entry.slot as usize];
            entry.when = slot.when;
            let waits = slot.waker.is_some();
            if !waits {
                self.release(entry.slot);
            }
            waits
        });
        self.entries = entries;
        self.cancelled = 0;
        if self.entries.len() > 1 {
            for at in (0..=(self.entries.len() - 2) / ARITY).rev() {
                self.sift_down(at);
            }
        }
    }

    /// Gives the memory of a crowd back, when nobody is left.
    fn shrink(&mut self) {
        if self.slots.len() > SMALL {
            self.entries = Vec::new();
            self.slots = Vec::new();
            self.free = NO_SLOT;
        }
    }

    fn release(&mut self, slot: u32) {
        self.slots[slot as usize].when = u64::from(self.free);
        self.free = slot;
    }

    fn push(&mut self, entry: Entry) {
        let mut at = self.entries.len();
        self.entries.push(entry);
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.entries[parent].when <= entry.when {
                break;
            }
            self.entries[at] = self.entries[parent];
            at = parent;
        }
        self.entries[at] = entry;
    }

    /// Takes the top out; returns its slot.
    fn pop(&mut self) -> Option<u32> {
        let top = *self.entries.first()?;
        self.entries.swap_remove(0);
        self.sift_down(0);
        Some(top.slot)
    }

    /// Moves the entry at `at` down to its place.
    fn sift_down(&mut self, mut at: usize) {
        let Some(&entry) = self.entries.get(at) else {
            return;
        };
        loop {
            let first = at * ARITY + 1;
            let last = (first + ARITY).min(self.entries.len());
            let Some(least) = (first..last).min_by_key(|&child| self.entries[child].when) else {
                break;
            };
            if self.entries[least].when >= entry.when {
                break;
            }
            self.entries[at] = self.entries[least];
            at = least;
        }
        self.entries[at] = entry;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            // Relaxed: one thread.
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            // Relaxed: one thread.
            self.0.load(Ordering::Relaxed)
        }
    }

    /// A generator of numbers that look random (splitmix64, Steele et al. 2014).
    fn next_random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Every operation at random, against an ordered set.
    #[test]
    fn the_heap_agrees_with_an_ordered_set() {
        for seed in 0..8 {
            let mut state = seed;
            let timers = Timers::new();
            let count = Arc::new(Count::default());
            // What waits: deadline and key; and keys that are gone.
            let mut model: BTreeSet<(u64, u64)> = BTreeSet::new();
            let mut keys: Vec<(u64, Key)> = Vec::new();
            let mut now = 0;
            let mut fired = 0;
            for step in 0..20_000 {
                // Phases in which the heap grows and phases in which it empties.
                let grows = step / 2000 % 2 == 0;
                let dice = next_random(&mut state) % 100;
                let some = next_random(&mut state) as usize;
                if dice < if grows { 60 } else { 10 } {
                    let when = now + next_random(&mut state) % 1000;
                    let (key, next) = timers.insert(when, count.clone().into());
                    model.insert((when, key.ticket));
                    keys.push((when, key));
                    assert_eq!(Some(next), model.first().map(|first| first.0));
                } else if dice < 75 && !keys.is_empty() {
                    let (when, key) = keys.swap_remove(some % keys.len());
                    timers.cancel(key);
                    model.remove(&(when, key.ticket));
                } else if dice < 90 && !keys.is_empty() {
                    let at = some % keys.len();
                    let (old, key) = keys[at];
                    let when = now + next_random(&mut state) % 1000;
                    let waits = model.remove(&(old, key.ticket));
                    match timers.reset(key, when) {
                        Moved::Gone => assert!(!waits),
                        Moved::Waiting { key, next } => {
                            assert!(waits);
                            model.insert((when, key.ticket));
                            keys[at] = (when, key);
                            assert_eq!(Some(next), model.first().map(|first| first.0));
                        }
                    }
                } else {
                    now += next_random(&mut state) % 50;
                    while model.first().is_some_and(|&(when, _)| when <= now) {
                        model.pop_first();
                        fired += 1;
                    }
                    timers.expire(now);
                }
                assert_eq!(count.get(), fired);
                let next = model.first().map_or(NEVER, |first| first.0);
                assert_eq!(timers.next(), next);
            }
            let waker = Waker::from(count.clone());
            for (when, key) in keys {
                let waits = model.contains(&(when, key.ticket));
                assert_eq!(timers.refresh(key, &waker), waits);
            }
        }
    }

    #[test]
    fn cancelled_timers_do_not_pile_up() {
        let timers = Timers::new();
        let (first, _) = timers.insert(1, Waker::noop().clone());
        for when in 2..100_000 {
            let (key, next) = timers.insert(when, Waker::noop().clone());
            assert_eq!(next, 1);
            timers.cancel(key);
        }
        assert!(timers.heap.lock().entries.len() <= SMALL + 1);
        assert!(timers.heap.lock().slots.len() <= SMALL + 1);
        timers.cancel(first);
        assert_eq!(timers.next(), NEVER);
    }

    #[test]
    fn the_memory_of_a_crowd_is_given_back() {
        let timers = Timers::new();
        for when in 0..10 * SMALL as u64 {
            timers.insert(when, Waker::noop().clone());
        }
        assert_eq!(timers.expire(NEVER - 1), 10 * SMALL);
        assert_eq!(timers.heap.lock().slots.capacity(), 0);
        let (key, _) = timers.insert(7, Waker::noop().clone());
        assert!(timers.refresh(key, Waker::noop()));
    }

    /// A timer that is put off again and again stays one entry, and its old deadlines wake nobody.
    #[test]
    fn a_timer_that_is_put_off_stays_one_entry() {
        let timers = Timers::new();
        let count = Arc::new(Count::default());
        let (mut key, _) = timers.insert(10, count.clone().into());
        timers.insert(5, count.clone().into());
        for when in 11..1000 {
            match timers.reset(key, when) {
                Moved::Waiting { key: now, next } => {
                    key = now;
                    assert_eq!(next, 5);
                }
                Moved::Gone => panic!("it has not fired"),
            }
        }
        assert_eq!(timers.heap.lock().entries.len(), 2);
        assert_eq!((timers.expire(998), timers.next()), (1, 999));
        assert_eq!((timers.expire(999), count.get()), (1, 2));
        assert!(matches!(timers.reset(key, 2000), Moved::Gone));
    }

    /// What a waker does may come back to the same heap.
    #[test]
    fn wakers_run_outside_the_lock() {
        struct Again(Arc<Timers>);
        impl Wake for Again {
            fn wake(self: Arc<Self>) {
                self.0.insert(500, Waker::noop().clone());
            }
        }
        impl Drop for Again {
            fn drop(&mut self) {
                self.0.insert(400, Waker::noop().clone());
            }
        }
        let timers = Arc::new(Timers::new());
        timers.insert(1, Arc::new(Again(timers.clone())).into());
        assert_eq!((timers.expire(1), timers.next()), (1, 400));
        let (key, _) = timers.insert(2, Arc::new(Again(timers.clone())).into());
        assert!(timers.refresh(key, Waker::noop()));
        timers.cancel(key);
        assert_eq!(timers.expire(400), 2);
    }
}
