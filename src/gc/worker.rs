//! Mark workers, and the threads that run them.
//!
//! The collector's own thread is worker 0. A quarter of the processors' time marks whatever the mutators do: whole
//! workers, and one that works in slices for the rest (`pace/workers.rs`). Where a scheduler's Ps do that (`seats.rs`), these
//! threads leave it to them. Beyond that, workers mark while processors are idle, that is while fewer mutators and workers
//! run than there are processors.

use std::sync::Arc;
use std::time::Duration;

use crate::gc::collector::Collector;
use crate::gc::lost::NAP;
use crate::gc::mark::{Drained, MarkEnv, Marker};
use crate::gc::work::Joined;
use crate::sys::MODELLED;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{Ordering, yield_now};
use crate::sys::thread;

/// Bytes scanned between looks at whether this worker should go on.
const QUANTUM: u64 = if MODELLED { 2 << 10 } else { 128 << 10 };
/// How long a worker waits for work before it looks at the world again.
const PATIENCE: Duration = Duration::from_micros(500);
const LONG_PATIENCE: Duration = Duration::from_secs(3600);

/// Why a worker marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The collector's share of the processors.
    Background,
    /// A processor has nothing else to do.
    Idle,
}

/// Where a thread may lose its processor: it does for 2 ms, if one of the faults is in that needs that to be seen.
pub(crate) fn lose_processor(faults: &[Fault]) {
    if faults.iter().any(|&fault| sabotage::is_on(fault)) {
        thread::sleep(Duration::from_millis(2));
    }
}

impl Collector {
    /// Whether worker `index` may mark now, and on whose time.
    pub(crate) fn may_mark(&self, index: usize) -> Option<Turn> {
        let workers = self.pacing.workers;
        let dedicated = workers.dedicated as usize;
        if self.settings.stop_the_world {
            return Some(Turn::Background);
        }
        let is_ours = !self.seats.are_for_hosts(self.pacing.mark_elapsed_ns());
        if index < dedicated && is_ours {
            return Some(Turn::Background);
        }
        if index == dedicated && is_ours && workers.fractional > 0.0 && self.slice_is_due() {
            return Some(Turn::Background);
        }
        // Relaxed: an estimate.
        let others = self.world.running() + self.active_workers.load(Ordering::Relaxed);
        (others < self.settings.processors).then_some(Turn::Idle)
    }

    /// Whether marking in slices has not had its share of the processors' time yet.
    pub(crate) fn slice_is_due(&self) -> bool {
        // Relaxed: an estimate.
        let sliced = self.sliced_ns.load(Ordering::Relaxed);
        let elapsed = self.pacing.mark_elapsed_ns();
        let elapsed = elapsed.saturating_mul(u64::from(self.pacing.processors));
        sliced == 0 || !self.pacing.workers.fractional_is_over(sliced, elapsed)
    }

    /// Makes up to `count` workers, each an OS thread, besides the collector's own.
    pub(crate) fn start_workers(self: &Arc<Self>, count: usize) {
        for index in 1..=count {
            let shared = self.clone();
            // A refusal costs speed only: the collector's own thread marks alone.
            if let Ok(handle) = thread::spawn(format!("greywave-mark-{index}"), move || {
                shared.run_worker(index)
            }) {
                self.threads.lock().push(handle);
            }
        }
    }

    fn run_worker(&self, index: usize) {
        let mut marker = Marker::new();
        loop {
            if self.is_shut_down() {
                return;
            }
            if !self.is_marking() {
                self.pool.wait_for_work(LONG_PATIENCE);
                continue;
            }
            if self.is_suspended() && !self.root_jobs.are_left() && !self.pool.wait_for_work(NAP) {
                // Marking is on for as long as the mutator is lost.
            } else if self.may_mark(index).is_none() {
                thread::sleep(PATIENCE);
            } else if (self.root_jobs.are_left() || self.pool.wait_for_work(PATIENCE))
                && self.may_mark(index).is_some()
                && let Some(joined) = self.join_late()
            {
                self.work(index, &mut marker, &joined);
            } else {
                // In the first stop there are root jobs, and nobody may join yet.
                yield_now();
            }
        }
    }

    /// A worker joins. It may lose its processor before and after, so it may come at any time, and find nothing.
    fn join_late(&self) -> Option<Joined<'_>> {
        lose_processor(&[
            Fault::PoolClosedLate,
            Fault::JoinedWithoutCycle,
            Fault::EndNotAwaited,
        ]);
        let joined = self.pool.join();
        lose_processor(&[Fault::EndNotAwaited]);
        joined
    }

    /// What a member of the pool marks with. [K3] is looked at.
    pub(crate) fn marks<'a>(&'a self, joined: &'a Joined<'a>) -> MarkEnv<'a> {
        self.check_cycle(joined.cycle());
        MarkEnv::new(&self.heap, joined)
    }

    /// [K3] Marking runs, in cycle `cycle`.
    fn check_cycle(&self, cycle: u32) {
        if cfg!(debug_assertions) {
            let now = self.world.phase();
            let is_right = now.marks && now.cycle == cycle;
            assert!(is_right, "marks in cycle {cycle}, but now it is {now:?}");
        }
    }

    /// Marks until nothing is left, or this worker is not wanted any more.
    pub(crate) fn work(&self, index: usize, marker: &mut Marker, joined: &Joined<'_>) {
        let env = self.marks(joined);
        let mut since = thread::cpu_time_ns();
        while let Some(turn) = self.may_mark(index) {
            let more = self.work_a_quantum(marker, env);
            self.account(index, turn, &mut since, marker);
            if !more {
                debug_assert!(marker.is_empty());
                return;
            }
            if index == 0 {
                self.revise_pace();
            }
        }
        marker.give_all(&self.heap, &self.pool);
        self.account(index, Turn::Idle, &mut since, marker);
    }

    /// Whether a P without work may mark.
    #[cfg(feature = "sched")]
    pub(crate) fn has_marking_for_the_idle(&self) -> bool {
        self.is_marking() && (self.root_jobs.are_left() || self.pool.has_work())
    }

    /// Marks for one quantum on a P without work; true if there was something to mark.
    #[cfg(feature = "sched")]
    pub(crate) fn mark_for_a_while(&self, marker: &mut Marker) -> bool {
        let Some(joined) = self.join_late() else {
            return false;
        };
        let mut since = thread::cpu_time_ns();
        let more = self.work_a_quantum(marker, self.marks(&joined));
        marker.give_all(&self.heap, &self.pool);
        self.account(usize::MAX, Turn::Idle, &mut since, marker);
        more
    }

    /// Does one root job, if any is left.
    pub(crate) fn scan_roots(&self, marker: &mut Marker, env: MarkEnv<'_>) {
        if let Some(job) = self.root_jobs.take()
            && !sabotage::is_on(Fault::RootsNotScanned)
        {
            marker.shade_all(env, |tracer| {
                job.scan(&self.roots, &self.frames, env.cycle(), tracer);
            });
        }
    }

    /// Marks a quantum, counted as active meanwhile; false if nothing is left.
    pub(crate) fn work_a_quantum(&self, marker: &mut Marker, env: MarkEnv<'_>) -> bool {
        // Relaxed (both): estimates.
        self.active_workers.fetch_add(1, Ordering::Relaxed);
        let more = self.mark_a_quantum(marker, env);
        self.active_workers.fetch_sub(1, Ordering::Relaxed);
        more
    }

    fn mark_a_quantum(&self, marker: &mut Marker, env: MarkEnv<'_>) -> bool {
        self.check_cycle(env.cycle());
        self.scan_roots(marker, env);
        if marker.drain(env, QUANTUM) == Drained::Budget || self.root_jobs.are_left() {
            return true;
        }
        match env.joined().take() {
            Some(buf) => {
                marker.load(buf);
                true
            }
            None => false,
        }
    }

    /// Books what a worker has done since `since`.
    pub(crate) fn account(&self, index: usize, turn: Turn, since: &mut u64, marker: &mut Marker) {
        let done = marker.take_done();
        self.count_marked(done);
        self.earn_credit(done.scanned);
        let now = thread::cpu_time_ns();
        let spent = now.saturating_sub(std::mem::replace(since, now));
        // Relaxed (all): figures.
        match turn {
            Turn::Background => &self.pacing.background_ns,
            Turn::Idle => &self.pacing.idle_ns,
        }
        .fetch_add(spent, Ordering::Relaxed);
        if turn == Turn::Background && index == self.pacing.workers.dedicated as usize {
            self.sliced_ns.fetch_add(spent, Ordering::Relaxed);
        }
    }
}
