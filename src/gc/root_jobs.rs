//! The roots of a cycle, cut into jobs that workers take one at a time.
//!
//! A job is a block of root slots, or a frame. How many there are is fixed in the stop that begins
//! marking: what comes later needs no scan, because a root that is made while marking runs shades
//! its target, and a frame that is opened then is scanned by its opener.
//!
//! **Concurrency.** Each number is handed out once, by `fetch_add`; the tables that the jobs name
//! are synchronised by themselves.

use crate::gc::frames::FrameTable;
use crate::gc::roots::RootTable;
use crate::gc::stopped::Stopped;
use crate::object::trace::Tracer;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicUsize, Ordering};

/// A piece of the roots.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RootJob {
    /// A block of root slots, by its place in the table.
    Block(usize),
    /// A frame, by its place in the list.
    Frame(usize),
}

impl RootJob {
    /// Reports the pointers of this piece. Concurrent with mutators.
    pub(crate) fn scan(
        self,
        roots: &RootTable,
        frames: &FrameTable,
        cycle: u32,
        tracer: &mut Tracer<'_>,
    ) {
        match self {
            Self::Block(job) => roots.scan(job, tracer),
            Self::Frame(job) => frames.scan(job, cycle, tracer),
        }
    }
}

/// The jobs of the running cycle.
#[derive(Debug)]
pub(crate) struct RootJobs {
    blocks: AtomicUsize,
    frames: AtomicUsize,
    /// The next to hand out; past the last one when none is left.
    next: AtomicUsize,
}

impl RootJobs {
    pub(crate) fn new() -> Self {
        Self {
            blocks: AtomicUsize::new(0),
            frames: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
        }
    }

    /// Marking begins: every block and every frame is a job.
    pub(crate) fn begin(&self, roots: &RootTable, frames: &FrameTable, stopped: &Stopped<'_>) {
        let blocks = roots.begin_marking(stopped);
        let blocks = sabotage::pick(Fault::RootBlockSkipped, blocks.saturating_sub(1), blocks);
        // Relaxed (all): mutators see them when they leave the stop, workers when they join.
        self.blocks.store(blocks, Ordering::Relaxed);
        self.frames
            .store(frames.begin_marking(stopped), Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
    }

    /// Marking is over.
    pub(crate) fn end(&self, roots: &RootTable, frames: &FrameTable, stopped: &Stopped<'_>) {
        roots.end_marking(stopped);
        frames.end_marking(stopped);
    }

    /// The next job. O(1), no lock.
    pub(crate) fn take(&self) -> Option<RootJob> {
        if !self.are_left() {
            return None;
        }
        // Relaxed: see the module's head.
        let job = self.next.fetch_add(1, Ordering::Relaxed);
        // Relaxed (both): written in the stop, before workers were let in.
        let blocks = self.blocks.load(Ordering::Relaxed);
        if job < blocks {
            return Some(RootJob::Block(job));
        }
        let job = job - blocks;
        (job < self.frames.load(Ordering::Relaxed)).then_some(RootJob::Frame(job))
    }

    /// Whether a job has not been handed out. O(1), no lock.
    pub(crate) fn are_left(&self) -> bool {
        // Relaxed (all): as above.
        let all = self.blocks.load(Ordering::Relaxed) + self.frames.load(Ordering::Relaxed);
        self.next.load(Ordering::Relaxed) < all
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_handed_out_once() {
        let jobs = RootJobs::new();
        assert!(jobs.take().is_none(), "before the first cycle");
        jobs.blocks.store(2, Ordering::Relaxed);
        jobs.frames.store(1, Ordering::Relaxed);
        assert!(matches!(jobs.take(), Some(RootJob::Block(0))));
        assert!(matches!(jobs.take(), Some(RootJob::Block(1))));
        assert!(jobs.are_left());
        assert!(matches!(jobs.take(), Some(RootJob::Frame(0))));
        assert!(!jobs.are_left());
        assert!(jobs.take().is_none());
    }
}
