//! The shared part of the grey queue: full work buffers, and who is still at work.
//!
//! A worker counts as active from before it takes a buffer until its own buffers are empty. So "no buffer, no active
//! worker" means that no grey object is left in the queue (one may still sit in a mutator's barrier buffer; the
//! handshake at termination is for those).
//!
//! One lock guards it all. It is taken once for hundreds of objects, and makes the end of marking a plain condition.
//!
//! A pool is closed, begun (the world is stopped for the first time in a cycle; work may be put), or open (workers may
//! join). Marking ends where [`close_if_quiet`](WorkPool::close_if_quiet) sees that nothing is left: it decides and
//! closes under one lock. If a worker could still join after the decision, it would mark with the number of a cycle that
//! is over, perhaps far into the next one, and take every `GcLock` for logged.
//!
//! **Who marks, and why only in the cycle that it believes to be in.** Objects are scanned by members only: a
//! [`MarkEnv`](crate::gc::mark::MarkEnv) is made from a [`Joined`], and takes the cycle from it.
//! - The threads of workers, the collector's own, Ps on seats and without work, and assists are members while they mark,
//!   and the cycle does not end under them: [K3].
//! - A mutator that opens a frame, or is the first to write to a lock in a cycle, reports what is in there to its
//!   barrier's buffer, and a mutator whose buffer is full marks what is in it. It is no member. But its `marking` and its
//!   `cycle` are written at stops only; it is Running, and comes to no safepoint in the middle of that.
//! - The collector's thread does the same for a mutator that it holds, in a handshake or a stop. It is the one that ends
//!   cycles. After the end of marking all buffers are empty, until the next stop 1.
//! - An upgrade of a weak reference and the drop of a root put an address into the buffer of a Running mutator. A root
//!   that is dropped without a mutator is not shaded; it stays a root until marking is over.
//!
//! **Invariants**
//! - `[K3]` While a [`Joined`] lives, marking runs, in the cycle that it names.
//! - `[K4]` Nothing is put while the pool is closed; when a cycle begins, the queue is empty.

use std::time::Duration;

use crate::base::crowd::shrink_after_crowd;
use crate::gc::stopped::Stopped;
use crate::sys::MODELLED;
use crate::sys::clock::Moment;
use crate::sys::fatal::fatal;
use crate::sys::lock::{Condvar, Rank, Ranked};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicUsize, Ordering};
use crate::sys::thread;

/// Objects in a shared buffer.
pub(crate) const WORK_BUF: usize = if MODELLED || cfg!(miri) { 4 } else { 512 };

/// How long a mutator waits for a pool to open before it looks for itself.
const BEGUN: Duration = Duration::from_millis(1);

/// For how many buffers the queue keeps room, however few are in it.
const LISTED: usize = 256;

/// Grey objects, by address.
pub(crate) type WorkBuf = Vec<usize>;

/// Where the pool is in the cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody marks.
    Closed,
    /// Work may be put; nobody may join yet.
    Begun,
    Open,
}

#[derive(Debug)]
struct Queue {
    full: Vec<WorkBuf>,
    active: usize,
    phase: Phase,
    /// The number of the cycle that has begun, or was last.
    cycle: u32,
    /// The heap goes: nobody waits any more.
    ended: bool,
}

impl Queue {
    fn is_quiet(&self) -> bool {
        self.full.is_empty() && self.active <= sabotage::pick(Fault::EndsOneWorkerEarly, 1, 0)
    }

    /// A buffer. The room for those of a crowd goes with them.
    fn pop(&mut self) -> Option<WorkBuf> {
        let buf = self.full.pop();
        shrink_after_crowd(&mut self.full, LISTED);
        buf
    }

    fn has_work(&self) -> bool {
        self.phase == Phase::Open && !self.full.is_empty()
    }
}

/// A place among those who mark, and the cycle that they mark in. Whoever has it has left when it is dropped, with nothing
/// in hand. [K3]
#[must_use = "it is left at once otherwise"]
#[derive(Debug)]
pub(crate) struct Joined<'p> {
    pool: &'p WorkPool,
    cycle: u32,
    /// Whether the thread was unwinding when it joined: an assist in a destructor.
    unwound: bool,
}

impl Joined<'_> {
    /// The number of the cycle.
    pub(crate) fn cycle(&self) -> u32 {
        self.cycle
    }

    pub(crate) fn pool(&self) -> &WorkPool {
        self.pool
    }

    /// Takes a buffer.
    pub(crate) fn take(&self) -> Option<WorkBuf> {
        self.pool.take()
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        // A member that unwinds out of a trace has work in hand. If it left, marking could end without that work, and
        // what lives would be freed before the process has ended. (In a model the panic is a failed assertion.)
        if !MODELLED && std::thread::panicking() && !self.unwound {
            fatal(
                "a trace panicked (its message is above): a bug in greywave, or in an `unsafe impl`",
            );
        }
        self.pool.leave();
    }
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
                    phase: Phase::Closed,
                    cycle: 0,
                    ended: false,
                },
            ),
            available: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            changed: Condvar::new(),
            quiet: Condvar::new(),
        }
    }

    /// Cycle number `cycle` begins.
    pub(crate) fn begin(&self, cycle: u32, _stopped: &Stopped<'_>) {
        let mut queue = self.queue.lock();
        debug_assert_eq!(queue.phase, Phase::Closed, "the last cycle has not ended");
        debug_assert!(
            queue.active == 0 && queue.full.is_empty(),
            "[K3] [K4] the last cycle has left something behind"
        );
        queue.phase = Phase::Begun;
        queue.cycle = cycle;
    }

    /// Workers may join.
    pub(crate) fn open(&self) {
        let mut queue = self.queue.lock();
        debug_assert_eq!(queue.phase, Phase::Begun);
        queue.phase = Phase::Open;
        drop(queue);
        self.changed.notify_all();
    }

    /// The end of marking: closes the pool if no buffer is queued, nobody is active, and `agreed` agrees, all at one moment.
    /// Says whether. Nobody is woken; see [`tell_closed`](Self::tell_closed).
    #[must_use = "marking goes on if it is not over"]
    pub(crate) fn close_if_quiet(&self, agreed: impl FnOnce() -> bool) -> bool {
        let mut queue = self.queue.lock();
        let is_over = (queue.is_quiet() || sabotage::is_on(Fault::QueueNotSeenAtEnd)) && agreed();
        if is_over && !sabotage::is_on(Fault::PoolClosedLate) {
            queue.phase = Phase::Closed;
        }
        is_over
    }

    /// Closes the pool whoever is in it, as if it were not a part of the decision.
    #[cfg(loom)]
    pub(crate) fn close(&self) {
        self.queue.lock().phase = Phase::Closed;
    }

    /// Wakes who waits for the end of marking. Not in the stop that ends it: they would take the processor from it.
    pub(crate) fn tell_closed(&self) {
        if sabotage::is_on(Fault::PoolClosedLate) {
            thread::sleep(Duration::from_millis(5));
            self.queue.lock().phase = Phase::Closed;
        }
        self.changed.notify_all();
    }

    /// Adds grey objects.
    pub(crate) fn put(&self, buf: WorkBuf) {
        if buf.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        debug_assert_ne!(queue.phase, Phase::Closed, "[K4] no cycle marks");
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
    pub(crate) fn join(&self) -> Option<Joined<'_>> {
        self.joined(&mut self.queue.lock())
    }

    fn joined(&self, queue: &mut Queue) -> Option<Joined<'_>> {
        if queue.phase != Phase::Open && !sabotage::is_on(Fault::JoinedWithoutCycle) {
            return None;
        }
        queue.active += 1;
        let last = queue.cycle.wrapping_sub(1);
        Some(Joined {
            pool: self,
            cycle: sabotage::pick(Fault::StaleCycle, last, queue.cycle),
            unwound: std::thread::panicking(),
        })
    }

    /// Joins and takes a buffer, if there is one.
    pub(crate) fn join_with_work(&self) -> Option<(Joined<'_>, WorkBuf)> {
        // Relaxed: a hint; an assist that comes too late has missed nothing.
        if self.available.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut queue = self.queue.lock();
        if queue.full.is_empty() {
            return None;
        }
        let joined = self.joined(&mut queue)?;
        let buf = queue.pop()?;
        // Relaxed: a hint.
        self.available.store(queue.full.len(), Ordering::Relaxed);
        Some((joined, buf))
    }

    /// Takes a buffer, for a member.
    fn take(&self) -> Option<WorkBuf> {
        // Relaxed: a hint; `leave` looks under the lock.
        if self.available.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut queue = self.queue.lock();
        let buf = queue.pop();
        // Relaxed: a hint.
        self.available.store(queue.full.len(), Ordering::Relaxed);
        buf
    }

    /// A member with nothing left goes.
    fn leave(&self) {
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
        self.queue.lock().has_work()
    }

    /// Whether somebody is active.
    pub(crate) fn has_active(&self) -> bool {
        self.queue.lock().active != 0
    }

    /// Whether no buffer is queued and nobody is active.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.lock().is_quiet()
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

    /// Waits until there is something to mark again, the pool opens or closes, or `limit` has passed. For mutators that are
    /// past the goal. Returns what is left of the limit.
    ///
    /// A closed pool is waited for no more. It is closed inside the stop that ends marking, so whoever finds it closed is
    /// held by that stop, and sees that marking is over when it is back. [`tell_closed`](Self::tell_closed) may have been
    /// before, and nobody would end the wait: a mutator that was the last to stand comes here that late.
    ///
    /// A pool that has begun opens soon, and tells; the time counts.
    pub(crate) fn wait_for_close(&self, limit: Duration) -> Duration {
        let start = Moment::now();
        let left = || limit.saturating_sub(Duration::from_nanos(start.elapsed_ns()));
        let mut queue = self.queue.lock();
        match queue.phase {
            Phase::Closed => return limit,
            Phase::Begun => {
                queue.wait_on(&self.changed, limit.min(BEGUN));
                return left();
            }
            Phase::Open => {}
        }
        while queue.phase == Phase::Open && queue.is_quiet() && !left().is_zero() {
            queue.wait_on(&self.changed, left());
        }
        left()
    }

    /// Waits for work: marking is open and a buffer is queued. False after [`end`](Self::end) or when `limit` has passed.
    pub(crate) fn wait_for_work(&self, limit: Duration) -> bool {
        let mut queue = self.queue.lock();
        if !queue.ended && !queue.has_work() {
            self.wait(&mut queue, limit);
        }
        queue.has_work()
    }

    fn wait(&self, queue: &mut crate::sys::lock::Held<'_, Queue>, limit: Duration) {
        // Relaxed: `put` may miss it by a moment; then the limit ends the wait.
        self.idle.fetch_add(1, Ordering::Relaxed);
        queue.wait_on(&self.changed, limit);
        // Relaxed: as above.
        self.idle.fetch_sub(1, Ordering::Relaxed);
    }

    /// Has everybody who waits look again.
    pub(crate) fn wake_all(&self) {
        drop(self.queue.lock());
        self.changed.notify_all();
    }

    /// The heap goes: wakes the workers that wait, and lets none wait again.
    pub(crate) fn end(&self) {
        // Under the lock: a worker that has just seen that it should go on would otherwise miss the wake-up.
        self.queue.lock().ended = true;
        self.changed.notify_all();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// Nobody has to tell: the mutator may have come too late for that.
    #[test]
    fn a_closed_pool_is_not_waited_for() {
        let pool = WorkPool::new();
        pool.begin(1, &Stopped::in_a_test());
        pool.open();
        assert!(pool.close_if_quiet(|| true));
        pool.tell_closed();
        let patience = Duration::from_secs(3600);
        assert_eq!(pool.wait_for_close(patience), patience);
    }

    /// A patience of some moments is used up in as many rounds: each of them sleeps.
    #[test]
    fn a_pool_that_has_begun_is_waited_for() {
        const MOMENTS: u32 = 5;
        let pool = WorkPool::new();
        pool.begin(1, &Stopped::in_a_test());
        let (mut left, mut rounds) = (BEGUN * MOMENTS, 0);
        while !left.is_zero() {
            left = pool.wait_for_close(left);
            rounds += 1;
        }
        assert!(rounds <= MOMENTS, "{rounds} rounds");
    }
}
