//! The shared part of the grey queue: full work buffers, and who is still at work.
//!
//! A worker counts as active from before it takes a buffer until its own buffers are empty. So "no buffer, no active
//! worker" means that no grey object is left in the queue (one may still sit in a mutator's barrier buffer; the
//! handshake at termination is for those).
//!
//! One lock guards it all. It is taken once for hundreds of objects, and makes the end of marking a plain condition.

use std::time::Duration;

use crate::sys::MODELLED;
use crate::sys::clock::Moment;
use crate::sys::lock::{Condvar, Rank, Ranked};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicUsize, Ordering};

/// Objects in a shared buffer.
pub(crate) const WORK_BUF: usize = if MODELLED || cfg!(miri) { 4 } else { 512 };

/// Grey objects, by address.
pub(crate) type WorkBuf = Vec<usize>;

#[derive(Debug)]
struct Queue {
    full: Vec<WorkBuf>,
    active: usize,
    open: bool,
    /// The heap goes: nobody waits any more.
    ended: bool,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct WorkPool {
    queue: Ranked<Queue>,
    /// A mirror of `full.len()`, to look at without the lock.
    available: AtomicUsize,
    /// Workers that wait.
    idle: AtomicUsize,
    changed: Condvar,
    /// Told when nobody is active any more.
    quiet: Condvar,
}

impl WorkPool {
    pub(crate) fn new() -> Self {
        Self {
            queue: Ranked::new(
                Rank::Work,
                Queue {
                    full: Vec::new(),
                    active: 0,
                    open: false,
                    ended: false,
                },
            ),
            available: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            changed: Condvar::new(),
            quiet: Condvar::new(),
        }
    }

    /// Marking begins: workers may join.
    pub(crate) fn open(&self) {
        self.queue.lock().open = true;
        self.changed.notify_all();
    }

    /// Marking is over.
    pub(crate) fn close(&self) {
        self.queue.lock().open = false;
        self.changed.notify_all();
    }

    /// Adds grey objects.
    pub(crate) fn put(&self, buf: WorkBuf) {
        if buf.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        queue.full.push(buf);
        // Relaxed: a hint.
        self.available.store(queue.full.len(), Ordering::Relaxed);
        drop(queue);
        // Relaxed: a worker that starts to wait now looks at the queue under the lock first.
        if self.idle.load(Ordering::Relaxed) > 0 {
            self.changed.notify_one();
        }
    }

    /// Whether little is queued: then a worker with plenty gives some, for idle workers and for assists.
    #[inline]
    pub(crate) fn is_hungry(&self) -> bool {
        // Relaxed: a hint.
        self.available.load(Ordering::Relaxed) < 2
    }

    /// Whether work is queued, without the lock.
    #[cfg(feature = "sched")]
    pub(crate) fn seems_to_have_work(&self) -> bool {
        // Relaxed: a hint.
        self.available.load(Ordering::Relaxed) != 0
    }

    /// Joins the workers, if marking is open.
    pub(crate) fn join(&self) -> bool {
        let mut queue = self.queue.lock();
        if queue.open {
            queue.active += 1;
        }
        queue.open
    }

    /// Joins and takes a buffer, if there is one.
    pub(crate) fn join_with_work(&self) -> Option<WorkBuf> {
        // Relaxed: a hint; an assist that comes too late has missed nothing.
        if self.available.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut queue = self.queue.lock();
        let buf = queue.full.pop()?;
        // Relaxed: a hint.
        self.available.store(queue.full.len(), Ordering::Relaxed);
        queue.active += 1;
        Some(buf)
    }

    /// Takes a buffer; the caller is active.
    pub(crate) fn take(&self) -> Option<WorkBuf> {
        // Relaxed: a hint; `leave` looks under the lock.
        if self.available.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut queue = self.queue.lock();
        let buf = queue.full.pop();
        // Relaxed: a hint.
        self.available.store(queue.full.len(), Ordering::Relaxed);
        buf
    }

    /// A worker with nothing left goes.
    pub(crate) fn leave(&self) {
        let mut queue = self.queue.lock();
        queue.active -= 1;
        if queue.active == 0 {
            drop(queue);
            self.changed.notify_all();
            self.quiet.notify_all();
        }
    }

    /// Whether work is queued.
    #[cfg(feature = "sched")]
    pub(crate) fn has_work(&self) -> bool {
        let queue = self.queue.lock();
        queue.open && !queue.full.is_empty()
    }

    /// Whether somebody is active.
    pub(crate) fn has_active(&self) -> bool {
        self.queue.lock().active != 0
    }

    /// Whether no buffer is queued and nobody is active.
    pub(crate) fn is_quiet(&self) -> bool {
        let queue = self.queue.lock();
        queue.full.is_empty() && queue.active <= sabotage::pick(Fault::EndsOneWorkerEarly, 1, 0)
    }

    /// Waits until there is a buffer, or nobody is active, or `limit` has passed. For the collector's own thread.
    pub(crate) fn wait_for_change(&self, limit: Duration) {
        let mut queue = self.queue.lock();
        if !queue.full.is_empty() || queue.active == 0 {
            return;
        }
        self.wait(&mut queue, limit);
    }

    /// Waits until no buffer is queued and nobody is active, or about `limit` has passed. For the collector's own thread,
    /// when others mark.
    pub(crate) fn wait_for_quiet(&self, limit: Duration) {
        let mut queue = self.queue.lock();
        if !queue.full.is_empty() || queue.active != 0 {
            queue.wait_on(&self.quiet, limit);
        }
    }

    /// Waits until marking is closed, or there is something to mark again, or `limit` has passed. For mutators. Returns what
    /// is left of the limit.
    pub(crate) fn wait_for_close(&self, limit: Duration) -> Duration {
        let start = Moment::now();
        let mut queue = self.queue.lock();
        loop {
            let waited = Duration::from_nanos(start.elapsed_ns());
            let left = limit.saturating_sub(waited);
            let is_quiet = queue.full.is_empty() && queue.active == 0;
            if !queue.open || !is_quiet || left.is_zero() {
                return left;
            }
            queue.wait_on(&self.changed, left);
        }
    }

    /// Waits for work: marking is open and a buffer is queued. False after [`end`](Self::end) or when `limit` has passed.
    pub(crate) fn wait_for_work(&self, limit: Duration) -> bool {
        let mut queue = self.queue.lock();
        let has_work = queue.open && !queue.full.is_empty();
        if !queue.ended && !has_work {
            self.wait(&mut queue, limit);
        }
        queue.open && !queue.full.is_empty()
    }

    fn wait(&self, queue: &mut crate::sys::lock::Held<'_, Queue>, limit: Duration) {
        // Relaxed: `put` may miss it by a moment; then the limit ends the wait.
        self.idle.fetch_add(1, Ordering::Relaxed);
        queue.wait_on(&self.changed, limit);
        // Relaxed: as above.
        self.idle.fetch_sub(1, Ordering::Relaxed);
    }

    /// The heap goes: wakes the workers that wait, and lets none wait again.
    pub(crate) fn end(&self) {
        // Under the lock: a worker that has just seen that it should go on would otherwise miss the wake-up.
        self.queue.lock().ended = true;
        self.changed.notify_all();
    }
}
