//! Gives free memory back to the system, in the background.
//!
//! The collector's own thread does it while it has no cycle to run: a batch of about a millisecond, then sleep, so that
//! it takes 1 % of the processors. How much to keep, and the pace, are in `pace/scavenge.rs`; which pages, and how, in
//! `heap/release.rs`. Near the memory limit an allocation gives back at once what it needs itself.

use crate::gc::collector::Collector;
use crate::heap::pages::Effort;
use crate::pace::scavenge::{
    BATCH_NS, QUANTUM, RetainGoals, ScavengeInput, ScavengePace, time_worked,
};
use crate::sys::clock::Moment;
use crate::sys::lock::{Rank, Ranked};
use crate::sys::mem::os_page;
use crate::sys::sync::Ordering;

/// What the scavenger remembers.
#[derive(Debug)]
struct State {
    pace: ScavengePace,
    goals: RetainGoals,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Scavenger(Ranked<State>);

impl Scavenger {
    pub(crate) fn new() -> Self {
        Self(Ranked::new(
            Rank::Pacer,
            State {
                pace: ScavengePace::default(),
                goals: RetainGoals {
                    by_growth: u64::MAX,
                    by_limit: u64::MAX,
                },
            },
        ))
    }
}

impl Collector {
    /// Sets the bounds anew, after a cycle whose goal was `last_goal` (0: there was none), with `limit` as the memory
    /// limit.
    pub(crate) fn plan_scavenging(&self, last_goal: u64, limit: u64) {
        let memory = self.heap.memory();
        // Relaxed (both): figures.
        let external = self.gauges.external.load(Ordering::Relaxed);
        let heap_goal = self.gauges.goal.load(Ordering::Relaxed);
        let bounded = heap_goal != u64::MAX && last_goal != u64::MAX;
        let goals = RetainGoals::new(&ScavengeInput {
            heap_goal,
            last_heap_goal: if bounded { last_goal } else { 0 },
            last_in_use: memory.in_use,
            retained: memory.backed(),
            mapped: memory.mapped().saturating_add(external),
            limit,
            os_page: os_page() as u64,
        });
        self.scavenger.0.lock().goals = goals;
        let for_heap = if limit == u64::MAX {
            limit
        } else {
            limit.saturating_sub(external)
        };
        self.heap.set_bounds(goals.by_growth, for_heap);
    }

    /// Gives a batch of free memory back, if more is kept than should be; returns how long to sleep before the next, in
    /// nanoseconds. `None`: there is nothing to do.
    pub(crate) fn scavenge_step(&self) -> Option<u64> {
        let start = Moment::now();
        let mut done = 0;
        loop {
            let memory = self.heap.memory();
            // Relaxed: a figure.
            let external = self.gauges.external.load(Ordering::Relaxed);
            let mapped = memory.mapped().saturating_add(external);
            let goals = self.scavenger.0.lock().goals;
            if goals.are_met(memory.backed(), mapped) {
                break;
            }
            let effort = if mapped > goals.by_limit {
                Effort::Forced
            } else {
                Effort::Gentle
            };
            let released = self.heap.release_some(QUANTUM, effort);
            done += released;
            if released == 0 || start.elapsed_ns() >= BATCH_NS {
                break;
            }
        }
        if done == 0 {
            return None;
        }
        let worked = time_worked(done, start.elapsed_ns(), os_page() as u64);
        let mut state = self.scavenger.0.lock();
        let sleep = state.pace.sleep_ns(worked);
        state.pace.slept(worked, sleep, self.pacing.processors);
        Some(sleep)
    }

    /// Gives all free memory back; returns the bytes.
    pub(crate) fn release_all_free(&self) -> u64 {
        self.heap.release_some(u64::MAX, Effort::Forced)
    }
}
