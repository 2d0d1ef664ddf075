//! Assists: a mutator pays for what it allocates while marking runs, with marking.
//!
//! The currency is bytes. A mutator has an account of allocation it has paid for; when that is overdrawn it takes credit
//! that background workers have earned, else scans a piece itself, else, when the heap is at its goal and others have
//! all the work in hand, waits in a queue until they have earned its debt (Go runtime, `gcAssistAlloc` of `mgcmark.go`).
//! Below the goal a debt is simply carried on: the price rises as the room shrinks.
//!
//! It waits only while somebody else is in the middle of marking, and no marker ever waits for a mutator, so the wait
//! ends. Work that is queued is no reason to wait: it is taken. When nothing is left to mark, the collector's thread has to
//! see that and stop everybody, and it or one of those may need this mutator's processor: so that is waited for, too. But
//! not for long in one cycle: one of those may be waiting for a lock of this mutator. After that it allocates on, with its
//! debt, to its next safepoint ([`Request::Stall`]), and waits there for as long as it takes (`brake.rs`): the same loop,
//! with waits that are Blocked instead of Assisting and have no end of their own.
//!
//! Past the ceiling the credit that workers have earned counts for nothing any more: near the end of a cycle little is left
//! to mark, so a little work pays for much, and what is left over from the whole cycle would pay for more than there is
//! room for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::gc::collector::Collector;
use crate::gc::mark::Marker;
use crate::gc::mutator::{Local, MutatorState};
use crate::gc::spans;
use crate::gc::state_word::Request;
use crate::pace::assist::AssistRates;
use crate::sys::MODELLED;
use crate::sys::lock::{Condvar, Rank, Ranked};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::sys::thread;

/// Bytes that a mutator may allocate at the beginning of a cycle before it pays.
pub(crate) const FIRST_CREDIT: i64 = if MODELLED { 1 << 10 } else { 32 << 10 };
/// The most that an assist scans in one piece, in bytes: some 50 microseconds of small objects.
const PIECE: u64 = 32 << 10;
/// The most that a mutator may have paid in advance, in bytes of allocation.
const MAX_CREDIT: i64 = 256 << 10;
/// How long a mutator that is past the goal waits for the end of a cycle in which nothing is left to mark, in all.
const END_PATIENCE: Duration = Duration::from_millis(5);
/// How long a waiting mutator sleeps before it looks for itself whether anybody still marks.
const PATIENCE: Duration = Duration::from_millis(1);

/// How long a mutator at a safepoint waits for the end of marking before it looks for work again.
const ROUND: Duration = Duration::from_millis(10);
/// More rounds without a byte paid than a patience inside an allocation has room for.
const MANY_ROUNDS: u32 = 5000;

/// Where a mutator pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Inside an allocation: it may hold `Gc`s and locks.
    Allocation,
    /// It holds neither, or nobody may want them.
    Safepoint,
}

/// A mutator that waits for `work` bytes to be scanned.
#[derive(Debug)]
struct Waiter {
    work: u64,
    paid: AtomicBool,
    wake: Condvar,
}

/// Mutators that wait, first come first served.
#[derive(Debug)]
pub(crate) struct AssistQueue {
    queue: Ranked<VecDeque<Arc<Waiter>>>,
    /// A mirror of its length.
    len: AtomicUsize,
}

impl AssistQueue {
    pub(crate) fn new() -> Self {
        Self {
            queue: Ranked::new(Rank::Assists, VecDeque::new()),
            len: AtomicUsize::new(0),
        }
    }

    /// Pays waiting mutators with `work` bytes; returns what is left.
    fn pay(&self, mut work: u64) -> u64 {
        // Relaxed: who begins to wait now is paid by the next one.
        if self.len.load(Ordering::Relaxed) == 0 {
            return work;
        }
        let mut queue = self.queue.lock();
        while let Some(first) = queue.front()
            && first.work <= work
        {
            work -= first.work;
            // Relaxed: read under the same lock.
            first.paid.store(true, Ordering::Relaxed);
            first.wake.notify_all();
            queue.pop_front();
        }
        // Relaxed: a hint.
        self.len.store(queue.len(), Ordering::Relaxed);
        work
    }

    /// Nobody marks any more: everybody goes on.
    pub(crate) fn release_all(&self) {
        let queue = self.queue.lock();
        for waiter in queue.iter() {
            waiter.wake.notify_all();
        }
    }

    /// Waits until `work` bytes have been paid for, or nobody marks. Says which.
    fn wait(&self, work: u64, somebody_marks: impl Fn() -> bool) -> bool {
        let me = Arc::new(Waiter {
            work,
            paid: AtomicBool::new(false),
            wake: Condvar::new(),
        });
        let mut queue = self.queue.lock();
        queue.push_back(me.clone());
        // Relaxed (all below): under the lock, or a hint.
        self.len.store(queue.len(), Ordering::Relaxed);
        while !me.paid.load(Ordering::Relaxed) && somebody_marks() {
            queue.wait_on(&me.wake, PATIENCE);
        }
        let paid = me.paid.load(Ordering::Relaxed);
        if !paid {
            queue.retain(|w| !Arc::ptr_eq(w, &me));
            self.len.store(queue.len(), Ordering::Relaxed);
        }
        paid
    }
}

/// Takes up to `wanted` from `credit`.
fn take(credit: &AtomicU64, wanted: u64) -> u64 {
    // Relaxed (all): a figure.
    let mut there = credit.load(Ordering::Relaxed);
    loop {
        let got = there.min(wanted);
        if got == 0 {
            return 0;
        }
        match credit.compare_exchange_weak(there, there - got, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => return got,
            Err(now) => there = now,
        }
    }
}

impl Collector {
    /// A background worker has scanned `work` bytes.
    pub(crate) fn earn_credit(&self, work: u64) {
        if sabotage::is_on(Fault::CreditLost) {
            return;
        }
        let left = self.assists.pay(work);
        if left > 0 {
            // Relaxed: a figure.
            self.pacing.credit.fetch_add(left, Ordering::Relaxed);
        }
    }

    fn rates(&self) -> AssistRates {
        // Relaxed: a figure.
        let ratio = self.gauges.assist_ratio.load(Ordering::Relaxed);
        AssistRates::of_work_per_byte(f64::from_bits(ratio))
    }

    /// Pays for `bytes` that were just allocated. Marking runs, when this is called.
    pub(crate) fn pay_for(&self, mutator: &MutatorState, bytes: u64) {
        let local = &mutator.local;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        // Late in a cycle a little work pays for much, which may have been more than there was room for.
        let most = if self.has_room() { MAX_CREDIT } else { 0 };
        local
            .credit
            .set(local.credit.get().min(most).saturating_sub(bytes));
        self.settle(mutator, Place::Allocation);
    }

    /// At a safepoint: pays what is owed. Returns when it is paid, when the heap has room again, or when marking is over.
    pub(crate) fn pay_debt(&self, mutator: &MutatorState) {
        self.settle(mutator, Place::Safepoint);
    }

    fn settle(&self, mutator: &MutatorState, place: Place) {
        let local = &mutator.local;
        let mut idle_rounds = 0;
        while local.credit.get() < 0 && local.duty.marks() {
            // Nothing that it could pay for ends a cycle of a suspended heap.
            let in_vain = self.is_shut_down_for(place) || self.is_suspended();
            if self.pacing.is_limiting() || in_vain {
                local.credit.set(0);
                return;
            }
            let rates = self.rates();
            let owed = rates.assist(local.credit.get().unsigned_abs());
            let wanted = owed.work.min(PIECE);
            let mut done = if self.has_passed_ceiling() {
                0
            } else {
                take(&self.pacing.credit, wanted)
            };
            if done < wanted {
                match self.scan_piece(local, wanted - done) {
                    Some(scanned) => done += scanned,
                    None if done > 0 || self.has_room() => {}
                    None if self.wait_for_credit(mutator, wanted, place) => done = wanted,
                    None if self.wait_for_the_end(mutator, place) => {}
                    None => {
                        mutator.word.ask(Request::Stall);
                        return;
                    }
                }
            }
            if done > 0 {
                add_credit(local, rates.paid_by(done));
            } else {
                // It has slept: the processor is for those that it waits for.
                idle_rounds += 1;
                debug_assert!(
                    place == Place::Safepoint || idle_rounds < MANY_ROUNDS,
                    "a mutator that has to wait goes round and round"
                );
            }
            if self.has_room() {
                return;
            }
        }
    }

    /// Whether the heap goes and this is a place to notice it: an allocation is soon over anyway.
    fn is_shut_down_for(&self, place: Place) -> bool {
        place == Place::Safepoint && self.is_shut_down()
    }

    fn has_passed_ceiling(&self) -> bool {
        // Relaxed: a figure.
        self.is_past_ceiling(self.gauges.heap_live.load(Ordering::Relaxed))
    }

    /// Whether the heap is below its goal.
    fn has_room(&self) -> bool {
        // Relaxed (both): figures.
        self.gauges.heap_live.load(Ordering::Relaxed) < self.gauges.goal.load(Ordering::Relaxed)
            && !self.is_tight()
    }

    /// Scans about `work` bytes; `None` if nothing is queued.
    fn scan_piece(&self, local: &Local, work: u64) -> Option<u64> {
        let (joined, buf) = match self.pool.join_with_work() {
            Some((joined, buf)) => (joined, Some(buf)),
            None if self.root_jobs.are_left() => (self.pool.join()?, None),
            None => return None,
        };
        let before = thread::cpu_time_ns();
        let env = self.marks(&joined);
        let mut marker = local.marker.borrow_mut();
        let marker = marker.get_or_insert_with(|| Box::new(Marker::new()));
        match buf {
            Some(buf) => marker.load(buf),
            None => self.scan_roots(marker, env),
        }
        marker.drain(env, work);
        marker.give_all(&self.heap, &self.pool);
        let done = marker.take_done();
        self.count_marked(done);
        drop(joined);
        let spent = thread::cpu_time_ns().saturating_sub(before);
        // Relaxed: a figure.
        self.pacing.assist_ns.fetch_add(spent, Ordering::Relaxed);
        spans::assisted(done.scanned, spent);
        Some(done.scanned)
    }

    /// Waits until marking has ended, or there is something to mark again; inside an allocation false when this cycle's
    /// patience is used up.
    fn wait_for_the_end(&self, mutator: &MutatorState, place: Place) -> bool {
        let local = &mutator.local;
        if place == Place::Safepoint {
            self.blocked(mutator, || self.pool.wait_for_close(ROUND));
            return true;
        }
        let cycle = local.cycle.get();
        let (of, left) = local.patience.get();
        let left = if of == cycle { left } else { END_PATIENCE };
        if left.is_zero() {
            return false;
        }
        let left = self.assisting(mutator, || self.pool.wait_for_close(left));
        local.patience.set((cycle, left));
        true
    }

    /// Waits until workers have earned `work`, or nobody marks; says which.
    fn wait_for_credit(&self, mutator: &MutatorState, work: u64, place: Place) -> bool {
        // Not "while work is queued": the collector may be waiting for a mutator that waits for a lock of this one,
        // and then nobody else takes it.
        let wait = || {
            self.assists
                .wait(work, || self.pool.has_active() && !self.is_suspended())
        };
        match place {
            Place::Allocation => self.assisting(mutator, wait),
            Place::Safepoint => self.blocked(mutator, wait),
        }
    }

    /// Runs `wait` as a mutator that is Assisting.
    pub(crate) fn assisting<R>(&self, mutator: &MutatorState, wait: impl FnOnce() -> R) -> R {
        let out = self
            .world
            .assist(mutator, wait, &mut || self.catch_up(mutator));
        // Marking may have ended meanwhile.
        self.catch_up(mutator);
        out
    }
}

fn add_credit(local: &Local, bytes: u64) {
    let credit = local.credit.get().saturating_add_unsigned(bytes);
    local.credit.set(credit);
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sys::model::explore;

    /// What the waiter wants, and what is earned at a time.
    const WORK: u64 = 8;

    /// How a mutator that has waited for nothing goes.
    #[derive(Clone, Copy, PartialEq)]
    enum Goes {
        OffTheQueue,
        /// It stays in the queue, and is paid there.
        AsItIs,
    }

    /// `AssistQueue::wait`, whose loop ends at once.
    fn wait_and_stay(queue: &AssistQueue) -> bool {
        let me = Arc::new(Waiter {
            work: WORK,
            paid: AtomicBool::new(false),
            wake: Condvar::new(),
        });
        let mut waiters = queue.queue.lock();
        waiters.push_back(me.clone());
        // Relaxed (both): as in `wait`.
        queue.len.store(waiters.len(), Ordering::Relaxed);
        me.paid.load(Ordering::Relaxed)
    }

    /// One mutator waits; one worker earns while it marks, and once more when it is the last and has ended. What is
    /// earned is paid to who waits and learns of it, or left.
    fn waiter_against_payer(goes: Goes) {
        explore(3, move |order| {
            let scene = Arc::new((AssistQueue::new(), AtomicUsize::new(1)));
            let (here, there) = (scene.clone(), scene.clone());
            let (paid, left) = order.race(
                move || {
                    let (queue, active) = &*here;
                    match goes {
                        // Acquire: as under the pool's lock.
                        Goes::OffTheQueue => {
                            queue.wait(WORK, || active.load(Ordering::Acquire) != 0)
                        }
                        Goes::AsItIs => wait_and_stay(queue),
                    }
                },
                move || {
                    let (queue, active) = &*there;
                    let left = queue.pay(WORK);
                    // Release: as under the pool's lock.
                    active.store(0, Ordering::Release);
                    queue.release_all();
                    left + queue.pay(WORK)
                },
            );
            assert_eq!(u64::from(paid) * WORK + left, 2 * WORK, "credit was lost");
            assert!(scene.0.queue.lock().is_empty(), "somebody is left behind");
        });
    }

    #[test]
    fn loom_credit_goes_to_who_waits_or_is_left() {
        waiter_against_payer(Goes::OffTheQueue);
    }

    #[test]
    #[should_panic(expected = "credit was lost")]
    fn loom_waiter_that_goes_and_stays_in_the_queue_fails() {
        waiter_against_payer(Goes::AsItIs);
    }
}
