//! The scavenger: free memory goes back to the system in the background.
//!
//! After a cycle the heap has more free pages than it will use before the next one ends. The collector's thread, while it
//! has no cycle to run, gives back what is over a tenth more than that, and what is over 95 % of the memory limit; a
//! batch of about a millisecond, then a sleep, for 1 % of the processors' time. When, how much and how fast is decided in
//! `pace/scavenge.rs`, which pages in `heap/pages/idle.rs`. What an allocation gives back is in `heap/release.rs`, by
//! the bounds that are set here.

use crate::gc::collector::Collector;
use crate::heap::pages::hints::Effort;
use crate::pace::scavenge::{
    BATCH_NS, QUANTUM, RetainGoals, ScavengeInput, ScavengePace, time_worked,
};
use crate::sys::clock::Moment;
use crate::sys::lock::{Rank, Ranked};
use crate::sys::space::os_page;
use crate::sys::sync::{AtomicU64, Ordering};

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Scavenger {
    /// The goal of the last cycle, in bytes; 0 before the first, and if there was none.
    last_goal: AtomicU64,
    limit: AtomicU64,
    rhythm: Ranked<Rhythm>,
}

/// Work and sleep.
#[derive(Debug, Default)]
struct Rhythm {
    pace: ScavengePace,
    /// The last batch, until its sleep is over.
    last: Option<Batch>,
}

/// A batch of work. Nanoseconds.
#[derive(Debug)]
struct Batch {
    ended: Moment,
    worked: u64,
    sleep: u64,
    /// There was more to do. If not, the sleep may be long, and nothing is learned from it.
    more: bool,
}

impl Scavenger {
    pub(crate) fn new() -> Self {
        Self {
            last_goal: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            rhythm: Ranked::new(Rank::Stats, Rhythm::default()),
        }
    }
}

impl Rhythm {
    /// What is left of the sleep after the last batch, in nanoseconds.
    fn rest(&mut self, processors: u32) -> Option<u64> {
        let batch = self.last.take()?;
        let slept = batch.ended.elapsed_ns();
        if slept < batch.sleep {
            let rest = batch.sleep - slept;
            self.last = Some(batch);
            return Some(rest);
        }
        if batch.more {
            self.pace.slept(batch.worked, slept, processors);
        }
        None
    }

    /// A batch is over; returns how long to sleep if there is more to do, in nanoseconds.
    fn end_batch(&mut self, worked: u64, more: bool) -> Option<u64> {
        if worked == 0 {
            return None;
        }
        let sleep = self.pace.sleep_ns(worked);
        self.last = Some(Batch {
            ended: Moment::now(),
            worked,
            sleep,
            more,
        });
        more.then_some(sleep)
    }
}

impl Collector {
    /// One step of the background release, of about a millisecond, or less when a cycle is wanted. Returns how long to
    /// sleep before the next, in nanoseconds; `None`: there is nothing to do before the next cycle ends or a knob
    /// changes. For the collector's thread, without a lock. Calling it too early does no harm.
    pub(crate) fn scavenge_step(&self) -> Option<u64> {
        let rest = self.scavenger.rhythm.lock().rest(self.pacing.processors);
        if rest.is_some() {
            return rest;
        }
        let (worked, more) = self.scavenge_batch();
        self.scavenger.rhythm.lock().end_batch(worked, more)
    }

    /// Gives everything free back that the page heap has; returns the bytes. Page caches of mutators keep theirs, up to
    /// 512 KiB each. Takes some 0.1 s a GiB; for a thread that nobody waits for.
    pub(crate) fn release_all_free(&self) -> u64 {
        self.heap.release_all()
    }

    /// Sets the bounds anew: after each cycle, `last_goal` being the goal that it had, and after each change of a knob.
    pub(crate) fn plan_scavenging(&self, last_goal: u64, limit: u64) {
        let last_goal = if last_goal == u64::MAX { 0 } else { last_goal };
        // Relaxed (both): figures.
        self.scavenger.last_goal.store(last_goal, Ordering::Relaxed);
        self.scavenger.limit.store(limit, Ordering::Relaxed);
        let for_heap = match limit {
            u64::MAX => u64::MAX,
            limit => limit.saturating_sub(self.gauges.external()),
        };
        self.heap
            .set_bounds(self.retain_goals().by_growth, for_heap);
    }

    fn retain_goals(&self) -> RetainGoals {
        // Relaxed (all): figures.
        RetainGoals::new(&ScavengeInput {
            heap_goal: self.gauges.goal.load(Ordering::Relaxed),
            last_heap_goal: self.scavenger.last_goal.load(Ordering::Relaxed),
            last_in_use: self.heap.last_peak(),
            // The bound holds for what the heap grows to, too, not only for what it holds now.
            retained: u64::MAX,
            mapped: self.mapped_bytes(),
            limit: self.scavenger.limit.load(Ordering::Relaxed),
            os_page: os_page() as u64,
        })
    }

    /// Everything that counts against the memory limit.
    fn mapped_bytes(&self) -> u64 {
        let external = self.gauges.external();
        self.heap.memory().mapped().saturating_add(external)
    }

    /// Releases for about a millisecond; returns the nanoseconds it took, and whether there is more to do.
    fn scavenge_batch(&self) -> (u64, bool) {
        let goals = self.retain_goals();
        let mut worked = 0;
        while worked < BATCH_NS && !self.has_mail() {
            let mapped = self.mapped_bytes();
            if goals.are_met(self.heap.memory().backed(), mapped) {
                return (worked, false);
            }
            let effort = if mapped > goals.by_limit {
                Effort::Forced
            } else {
                Effort::Gentle
            };
            let start = Moment::now();
            let bytes = self.heap.release_some(QUANTUM, effort);
            worked += time_worked(bytes, start.elapsed_ns(), os_page() as u64);
            if bytes == 0 {
                return (worked, false);
            }
        }
        (worked, true)
    }

    /// Whether the collector's thread has something better to do.
    fn has_mail(&self) -> bool {
        let mail = self.mailbox.lock();
        mail.shutdown || mail.triggered || mail.wanted > mail.begun
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_comes_too_early_waits_for_the_rest_of_the_sleep() {
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.rest(2), None);
        let sleep = rhythm.end_batch(BATCH_NS, true).expect("there is more");
        // A thousandth of the time at first.
        assert_eq!(sleep, 1000 * BATCH_NS);
        let rest = rhythm.rest(2).expect("not over");
        assert!(rest < sleep);
        assert!(rhythm.rest(2).expect("still not over") <= rest);
    }

    #[test]
    fn a_batch_that_finishes_asks_for_no_further_step() {
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.end_batch(0, false), None);
        assert_eq!(rhythm.rest(2), None, "no work, no sleep");
        assert_eq!(rhythm.end_batch(3 * BATCH_NS, false), None);
        assert!(
            rhythm.rest(2).is_some(),
            "the next cycle may bring more, and it has to wait too"
        );
    }
}
