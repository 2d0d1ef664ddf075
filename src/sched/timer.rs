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
//! Memory follows how many timers there are, up and down. The entries are a list that halves. A slot cannot move, as
//! futures know its number; so slots come in chunks (`timer/slots.rs`), and a chunk without a timer is given back.
//!
//! **Concurrency**: everything is under the lock of the heap, except `next`, which is written under it and read by
//! anybody. Wakers are cloned, woken and dropped outside the lock (`wakers.rs`).

use std::task::Waker;

use crate::sched::timer::slots::Slots;
use crate::sched::wakers::{KeptWaker, Wakers, with_driver_clone_if_needed};
use crate::sys::MODELLED;
use crate::sys::lock::Brief;
use crate::sys::sync::{AtomicU64, Ordering};

mod slots;

pub(crate) use crate::sched::timer::slots::Key;

/// The deadline of nothing.
pub(crate) const NEVER: u64 = u64::MAX;

/// How many children a node of the heap has.
const ARITY: usize = 4;

/// Below this many cancelled timers a sweep is not worth it, and as many entries are kept when there are none.
const SMALL: usize = if MODELLED || cfg!(miri) { 4 } else { 256 };

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
    heap: Brief<Heap>,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU64::new(NEVER),
            heap: Brief::new(Heap::new()),
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

    /// Adds a timer that wakes `waker` at `when`; also returns the next deadline of the heap. None if that has been closed.
    pub(crate) fn insert(&self, when: u64, waker: KeptWaker) -> Option<(Key, u64)> {
        let mut heap = self.heap.lock();
        if heap.closed {
            return None;
        }
        let key = heap.insert(when, waker);
        Some((key, self.publish(&mut heap)))
    }

    /// Sees to it that the timer wakes `waker`; false if it has fired, or the heap has been closed.
    pub(crate) fn refresh(&self, key: Key, waker: &Waker) -> bool {
        with_driver_clone_if_needed(waker, |fresh| {
            let mut heap = self.heap.lock();
            let Some(place) = heap.slots.waker_of(key) else {
                return Some(false);
            };
            fresh.put_into(place).then_some(true)
        })
    }

    /// Nobody will run these timers any more: wakes everybody, and takes no more in.
    pub(crate) fn close(&self) {
        let mut woken = Wakers::new();
        let mut heap = self.heap.lock();
        heap.closed = true;
        for entry in std::mem::take(&mut heap.entries) {
            woken.add(heap.slots.release(entry.slot));
        }
        heap.cancelled = 0;
        self.publish(&mut heap);
        drop(heap);
        drop(woken);
    }

    /// Takes the timer out; false if it has fired.
    pub(crate) fn cancel(&self, key: Key) -> bool {
        let waker = {
            let mut heap = self.heap.lock();
            let waker = heap.cancel(key);
            if waker.is_some() {
                self.publish(&mut heap);
            }
            waker
        };
        waker.is_some()
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
            let mut batch = Wakers::new();
            let mut heap = self.heap.lock();
            while batch.len() < Wakers::FEW
                && let Some(waker) = heap.pop_due(now)
            {
                batch.add(Some(waker));
            }
            self.publish(&mut heap);
            drop(heap);
            woken += batch.len();
            drop(batch);
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

#[derive(Debug)]
struct Heap {
    entries: Vec<Entry>,
    slots: Slots,
    cancelled: usize,
    /// The runtime has ended.
    closed: bool,
}

impl Heap {
    const fn new() -> Self {
        Self {
            entries: Vec::new(),
            slots: Slots::new(),
            cancelled: 0,
            closed: false,
        }
    }

    fn insert(&mut self, when: u64, waker: KeptWaker) -> Key {
        let key = self.slots.fill(when, waker);
        self.push(Entry {
            when,
            slot: key.slot,
        });
        key
    }

    fn cancel(&mut self, key: Key) -> Option<KeptWaker> {
        let waker = self.slots.waker_of(key)?.take();
        self.cancelled += 1;
        waker
    }

    /// A later deadline is noted in the slot; an earlier one needs an entry, and so a slot, of its own.
    fn reset(&mut self, key: Key, when: u64) -> Option<Key> {
        self.slots.waker_of(key)?;
        let old = self.slots.when_mut(key.slot);
        if when >= *old {
            *old = when;
            return Some(key);
        }
        let waker = self.cancel(key)?;
        Some(self.insert(when, waker))
    }

    /// Takes the first timer out, if it is due. The top is exact only after `settle`.
    fn pop_due(&mut self, now: u64) -> Option<KeptWaker> {
        if self.settle() > now {
            return None;
        }
        let slot = self.pop()?;
        self.slots.release(slot)
    }

    /// Makes the top a timer that waits and is due when its entry says; returns that deadline.
    fn settle(&mut self) -> u64 {
        if self.cancelled >= SMALL && self.cancelled > self.entries.len() / 2 {
            self.sweep();
        }
        let mut first = NEVER;
        while let Some(&top) = self.entries.first() {
            match self.slots.deadline(top.slot) {
                None => {
                    self.pop();
                    self.slots.release(top.slot);
                    self.cancelled -= 1;
                }
                Some(when) if when > top.when => {
                    self.entries[0].when = when;
                    self.sift_down(0);
                }
                Some(when) => {
                    first = when;
                    break;
                }
            }
        }
        self.shrink();
        first
    }

    /// Takes all cancelled timers out.
    fn sweep(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain_mut(|entry| {
            let deadline = self.slots.deadline(entry.slot);
            match deadline {
                Some(when) => entry.when = when,
                None => drop(self.slots.release(entry.slot)),
            }
            deadline.is_some()
        });
        self.entries = entries;
        self.cancelled = 0;
        if self.entries.len() > 1 {
            for at in (0..=(self.entries.len() - 2) / ARITY).rev() {
                self.sift_down(at);
            }
        }
    }

    /// Gives the memory of a crowd back: at a quarter of what there is room for, half of that room. So the copy of what is left
    /// is paid for by those that have gone.
    #[inline]
    fn shrink(&mut self) {
        let room = self.entries.capacity();
        if room > SMALL && self.entries.len() <= room / 4 {
            self.entries.shrink_to((room / 2).max(SMALL));
        }
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

    impl Heap {
        /// Whether it holds no more memory than it keeps for a few.
        fn is_small(&self) -> bool {
            self.entries.capacity() <= 8 * SMALL && self.slots.room() <= 4 * SMALL
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

    fn insert(timers: &Timers, when: u64, count: &Arc<Count>) -> (Key, u64) {
        let waker = KeptWaker::of(&Waker::from(count.clone()));
        timers.insert(when, waker).expect("not closed")
    }

    fn insert_noop(timers: &Timers, when: u64) -> (Key, u64) {
        let waker = KeptWaker::of(Waker::noop());
        timers.insert(when, waker).expect("not closed")
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
                    let (key, next) = insert(&timers, when, &count);
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
        let (first, _) = insert_noop(&timers, 1);
        for when in 2..100_000 {
            let (key, next) = insert_noop(&timers, when);
            assert_eq!(next, 1);
            timers.cancel(key);
        }
        assert!(timers.heap.lock().entries.len() <= SMALL + 1);
        assert!(timers.heap.lock().slots.room() <= 2 * SMALL);
        timers.cancel(first);
        assert_eq!(timers.next(), NEVER);
    }

    #[test]
    fn the_memory_of_a_crowd_is_given_back() {
        let timers = Timers::new();
        for when in 0..10 * SMALL as u64 {
            insert_noop(&timers, when);
        }
        assert_eq!(timers.expire(NEVER - 1), 10 * SMALL);
        assert!(timers.heap.lock().is_small());
        let (key, _) = insert_noop(&timers, 7);
        assert!(timers.refresh(key, Waker::noop()));
    }

    /// Whichever of them stays, and whether the others fire or are cancelled.
    #[test]
    fn the_memory_of_a_crowd_is_given_back_though_one_stays() {
        const CROWD: usize = 40 * SMALL;
        for stays in [0, CROWD / 2, CROWD - 1] {
            for fire in [true, false] {
                let timers = Timers::new();
                let count = Arc::new(Count::default());
                let keys: Vec<Key> = (0..CROWD)
                    .map(|i| insert(&timers, if i == stays { 1000 } else { 10 }, &count).0)
                    .collect();
                if fire {
                    assert_eq!(timers.expire(10), CROWD - 1);
                } else {
                    let others = keys.iter().filter(|&&key| key != keys[stays]);
                    others.for_each(|&key| {
                        timers.cancel(key);
                    });
                }
                assert!(
                    timers.heap.lock().is_small(),
                    "{stays} stays, fired: {fire}"
                );
                assert_eq!(timers.next(), 1000);
                assert_eq!(timers.expire(1000), 1);
            }
        }
    }

    #[test]
    fn a_heap_that_is_closed_wakes_everybody_and_takes_nobody_in() {
        let timers = Timers::new();
        let count = Arc::new(Count::default());
        let keys = [50, 60, 70].map(|when| insert(&timers, when, &count).0);
        timers.cancel(keys[1]);
        timers.close();
        assert_eq!((count.get(), timers.next()), (2, NEVER));
        let waker = Waker::from(count.clone());
        for key in keys {
            assert!(!timers.refresh(key, &waker));
            assert!(matches!(timers.reset(key, 80), Moved::Gone));
            timers.cancel(key);
        }
        assert!(timers.insert(80, KeptWaker::of(&waker)).is_none());
        timers.close();
        assert_eq!((count.get(), timers.expire(100)), (2, 0));
    }

    /// A timer that is put off again and again stays one entry, and its old deadlines wake nobody.
    #[test]
    fn a_timer_that_is_put_off_stays_one_entry() {
        let timers = Timers::new();
        let count = Arc::new(Count::default());
        let (mut key, _) = insert(&timers, 10, &count);
        insert(&timers, 5, &count);
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
                insert_noop(&self.0, 500);
            }
        }
        impl Drop for Again {
            fn drop(&mut self) {
                insert_noop(&self.0, 400);
            }
        }
        fn insert_again(timers: &Arc<Timers>, when: u64) -> (Key, u64) {
            let waker = Waker::from(Arc::new(Again(timers.clone())));
            let kept = KeptWaker::of(&waker);
            // The clone is the only one that is left.
            drop(waker);
            timers.insert(when, kept).expect("not closed")
        }
        let timers = Arc::new(Timers::new());
        insert_again(&timers, 1);
        assert_eq!((timers.expire(1), timers.next()), (1, 400));
        let (key, _) = insert_again(&timers, 2);
        assert!(timers.refresh(key, Waker::noop()));
        timers.cancel(key);
        assert_eq!(timers.expire(400), 2);
    }
}
