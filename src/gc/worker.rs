//! Mark workers, and the threads that run them.
//!
//! The collector's own thread is worker 0. A quarter of the processors (at least one worker) marks whatever the mutators
//! do; the other workers join while processors are idle, that is while fewer mutators run than there are processors.

use std::sync::Arc;
use std::time::Duration;

use crate::gc::collector::Collector;
use crate::gc::mark::{Drained, Marker};
use crate::gc::sabotage::{self, Fault};
use crate::sys::sync::Ordering;
use crate::sys::thread;

/// Bytes scanned between looks at whether this worker should go on.
const QUANTUM: u64 = 256 << 10;
/// How long a worker waits for work before it looks at the world again.
const PATIENCE: Duration = Duration::from_micros(500);
const LONG_PATIENCE: Duration = Duration::from_secs(3600);

/// Who provides threads for mark workers; the scheduler has a host of its own.
pub(crate) trait WorkerHost {
    /// Makes up to `count` workers besides the collector's own thread. Fewer is allowed.
    fn start_workers(&self, collector: &Arc<Collector>, count: usize);
}

/// One OS thread per worker.
#[derive(Debug)]
pub(crate) struct ThreadHost;

impl WorkerHost for ThreadHost {
    fn start_workers(&self, collector: &Arc<Collector>, count: usize) {
        for index in 1..=count {
            let shared = collector.clone();
            // A refusal costs speed only: the collector's own thread marks alone.
            if let Ok(handle) = thread::spawn(format!("greywave-mark-{index}"), move || {
                shared.run_worker(index)
            }) {
                collector.threads.lock().push(handle);
            }
        }
    }
}

impl Collector {
    /// Workers that may mark now: a quarter of the processors, and the idle ones.
    pub(crate) fn workers_allowed(&self) -> usize {
        let all = self.settings.processors;
        let dedicated = ((all + 2) / 4).max(1);
        dedicated.max(all.saturating_sub(self.world.running()))
    }

    fn run_worker(&self, index: usize) {
        let mut marker = Marker::new();
        loop {
            if self.is_shut_down() {
                return;
            }
            if index >= self.workers_allowed() {
                std::thread::sleep(PATIENCE);
            }
            let patience = if self.is_marking() {
                PATIENCE
            } else {
                LONG_PATIENCE
            };
            let allowed = index < self.workers_allowed();
            let has_work = allowed && self.has_root_jobs() || self.pool.wait_for_work(patience);
            if !has_work {
                continue;
            }
            if index < self.workers_allowed() && self.pool.join() {
                self.work(index, &mut marker);
                self.pool.leave();
            }
        }
    }

    /// Marks until nothing is left, or this worker is not wanted any more. The caller has joined.
    pub(crate) fn work(&self, index: usize, marker: &mut Marker) {
        let cycle = self.cycle_number();
        let env = self.mark_env(cycle);
        loop {
            while let Some((source, job)) = self.next_root_job() {
                if sabotage::is_on(Fault::RootsNotScanned) {
                    continue;
                }
                marker.shade_all(env, |tracer| {
                    self.sources()[source].scan(job, cycle, tracer)
                });
                if marker.drain(env, QUANTUM) == Drained::Budget {
                    break;
                }
            }
            let drained = marker.drain(env, QUANTUM);
            self.count_marked(marker.take_done());
            if index >= self.workers_allowed() {
                marker.give_all(env);
                return;
            }
            if drained == Drained::Empty && !self.has_root_jobs() {
                match self.pool.take() {
                    Some(buf) => marker.load(buf),
                    None => return,
                }
            }
        }
    }

    /// Takes the next root job: its source and its number there.
    fn next_root_job(&self) -> Option<(usize, usize)> {
        if !self.has_root_jobs() {
            return None;
        }
        // Relaxed: each number is handed out once; the tables are synchronised by themselves.
        let mut job = self.next_job.fetch_add(1, Ordering::Relaxed);
        for (source, limit) in self.job_limits.iter().enumerate() {
            // Relaxed: written while the world was stopped, before workers were let in.
            let limit = limit.load(Ordering::Relaxed);
            if job < limit {
                return Some((source, job));
            }
            job -= limit;
        }
        None
    }

    pub(crate) fn has_root_jobs(&self) -> bool {
        // Relaxed (both): as above.
        let all: usize = self
            .job_limits
            .iter()
            .map(|l| l.load(Ordering::Relaxed))
            .sum();
        self.next_job.load(Ordering::Relaxed) < all
    }
}
