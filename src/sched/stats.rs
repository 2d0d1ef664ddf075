//! Figures of a runtime, and the line of `schedtrace`.

use std::fmt::Write as _;

use crate::gc::events::PauseSummary;
use crate::sched::proc::{Proc, Status};
use crate::sched::shared::Shared;
use crate::sys::sync::Ordering;

/// Figures of a runtime, taken without stopping anybody: each is of a moment of its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RuntimeStats {
    /// How many Gs may run at once.
    pub procs: usize,
    /// Ps without anything to run.
    pub idle_procs: usize,
    /// Threads that run Gs, or are ready to.
    pub threads: usize,
    /// Those that sleep.
    pub idle_threads: usize,
    /// Those that look for work.
    pub spinning_threads: usize,
    /// Those in blocking calls.
    pub blocked_threads: usize,
    /// Gs that have not ended.
    pub gs: usize,
    /// Gs that are being polled.
    pub running: usize,
    /// Gs in run queues.
    pub runnable: usize,
    /// The rest: Gs that wait.
    pub waiting: usize,
    /// Gs in the global queue.
    pub global_queue: usize,
    /// Gs in the queue of each P.
    pub local_queues: Vec<usize>,
    /// Polls so far.
    pub polls: u64,
    /// From runnable to running, of one wake-up in 64, in nanoseconds.
    pub latency: PauseSummary,
}

impl Shared {
    pub(crate) fn stats(&self) -> RuntimeStats {
        let (threads, idle_threads) = {
            let lists = self.roster.lock();
            (lists.started, lists.machines.len())
        };
        // Relaxed (all): figures.
        let polls = |p: &Proc| p.polls.load(Ordering::Relaxed);
        let is_running = |p: &&Proc| p.running.load(Ordering::Relaxed) != 0;
        let global_queue = self.roster.queued();
        let local_queues: Vec<usize> = self.procs.iter().map(|p| p.queue.len()).collect();
        let runnable = global_queue + local_queues.iter().sum::<usize>();
        let running = self.procs.iter().filter(is_running).count();
        let gs = self.registry.len();
        RuntimeStats {
            procs: self.width,
            idle_procs: self.roster.idle(),
            threads,
            idle_threads,
            spinning_threads: self.roster.spinning(),
            blocked_threads: self.in_calls.load(Ordering::Relaxed),
            gs,
            running,
            runnable,
            waiting: gs.saturating_sub(running + runnable),
            global_queue,
            local_queues,
            polls: self.procs.iter().map(polls).sum(),
            latency: self.latency.lock().summary(),
        }
    }

    /// The line of `schedtrace`, with Go's fields (runtime, `schedtrace` of `proc.go`).
    pub(crate) fn trace_line(&self) -> String {
        let stats = self.stats();
        let mut line = format!(
            "SCHED {}ms: gomaxprocs={} idleprocs={} threads={} spinningthreads={} needspinning=0 idlethreads={} runqueue={} [",
            self.epoch.elapsed_ns() / 1_000_000,
            stats.procs,
            stats.idle_procs,
            stats.threads,
            stats.spinning_threads,
            stats.idle_threads,
            stats.global_queue,
        );
        for len in stats.local_queues.iter().take(self.width) {
            // Writing to a string does not fail.
            let _ = write!(line, " {len}");
        }
        line.push_str(" ] schedticks=[");
        for proc in self.procs.iter().take(self.width) {
            // Relaxed: a figure.
            let _ = write!(line, " {}", proc.slices.load(Ordering::Relaxed));
        }
        line.push_str(" ]");
        self.name_hogs(&mut line);
        line
    }

    /// Adds the Gs that keep their P without making room.
    fn name_hogs(&self, line: &mut String) {
        let hogs = self.procs.iter().filter(|p| {
            // Relaxed: a hint.
            p.is(Status::Running) && p.is_hogged.load(Ordering::Relaxed) != 0
        });
        if hogs.count() == 0 {
            return;
        }
        for g in self.dump() {
            if g.state == "running" {
                let _ = write!(line, "\n  runs on: {g}");
            }
        }
    }
}
