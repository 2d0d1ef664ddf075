//! What an M does: find a G, run it, again.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::sched::context::Here;
use crate::sched::machine::{Machine, NO_PROC};
use crate::sched::memory::Memory;
use crate::sched::proc::{Own, Proc, Status};
use crate::sched::registry::Ended;
use crate::sched::shared::Shared;
use crate::sched::task::state::{Begin, Pause};
use crate::sched::task::{GRef, Header};
use crate::sched::wait::WaitReason;
use crate::sys::os_thread::OsThread;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicUsize, Ordering};

/// One wake-up in so many is timed.
const SAMPLE: u32 = 64;
/// How often in one poll of a G its operations are answered "not yet" because it is to make room. See [`Worker::is_to_make_room`].
const REFUSALS: u32 = 64;

/// An M's own side.
#[derive(Debug)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    /// The thread, for reports.
    pub(crate) os_thread: OsThread,
    pub(crate) machine: Arc<Machine>,
    /// The P that it holds.
    proc: Cell<Option<usize>>,
    /// The G whose code runs: its poll, or its end.
    running: Cell<Option<NonNull<Header>>>,
    /// How often that code has been refused.
    refusals: Cell<u32>,
    /// Blocking calls that this thread is in, one inside the other.
    pub(crate) calls: Cell<u32>,
    spinning: Cell<bool>,
    /// The last look at the global queue, the timers and the sockets, in rounds.
    pub(crate) round: Cell<u32>,
    /// Wake-ups until the next one whose latency is measured.
    until_sample: Cell<u32>,
    pub(crate) memory: Memory,
    ended: RefCell<Ended>,
    /// A marker for the collector, kept for the next time there is nothing else to do.
    pub(crate) marker: RefCell<Option<Box<crate::gc::mark::Marker>>>,
}

/// The body of an M's thread.
pub(crate) fn run(shared: Arc<Shared>, machine: Arc<Machine>) {
    let worker = Worker {
        shared,
        os_thread: OsThread::current(),
        machine,
        proc: Cell::new(None),
        running: Cell::new(None),
        refusals: Cell::new(0),
        calls: Cell::new(0),
        spinning: Cell::new(false),
        round: Cell::new(0),
        until_sample: Cell::new(SAMPLE),
        memory: Memory::default(),
        ended: RefCell::default(),
        marker: RefCell::new(None),
    };
    let here = Here::enter(&worker);
    worker.machine.note_thread();
    let (index, spinning) = worker.machine.given();
    worker.take_over(index, spinning);
    while let Some((g, inherits)) = worker.find() {
        worker.execute(g, inherits);
    }
    worker.forget_the_ended();
    drop(here);
    // Nobody counts on this M any more: its P, if it has one, stays with the runtime, which ends.
    if !worker.shared.forget(&worker.machine) {
        worker.shared.let_itself_go();
    }
}

impl Worker {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn is_of(&self, shared: *const Shared) -> bool {
        Arc::as_ptr(&self.shared) == shared
    }

    pub(crate) fn has_proc(&self) -> bool {
        self.proc.get().is_some()
    }

    pub(crate) fn proc_index(&self) -> Option<usize> {
        self.proc.get()
    }

    pub(crate) fn proc(&self) -> Option<&Proc> {
        self.proc.get().map(|index| &self.shared.procs[index])
    }

    /// The P that it was given is its own now.
    pub(crate) fn take_over(&self, index: usize, spinning: bool) {
        self.proc.set((index != NO_PROC).then_some(index));
        self.spinning.set(spinning);
    }

    /// Whether it looks for work, and is counted as one that does.
    pub(crate) fn is_spinning(&self) -> bool {
        self.spinning.get()
    }

    /// It looks for work from now on.
    pub(crate) fn begin_spinning(&self) {
        self.spinning.set(true);
        self.shared.roster.begin_spinning();
    }

    /// It looks no more, and who is told counts it out; false if it did not.
    pub(crate) fn forget_spinning(&self) -> bool {
        self.spinning.replace(false)
    }

    /// It looks no more; false if it did not. While one is counted nobody else is called.
    pub(crate) fn end_spinning(&self) -> bool {
        let did = self.spinning.replace(false);
        if did {
            self.shared.roster.end_spinning();
        }
        did
    }

    /// It holds no P any more; returns which.
    pub(crate) fn let_go(&self) -> Option<usize> {
        self.proc.take()
    }

    /// What its P has for its holder.
    #[allow(
        clippy::mut_from_ref,
        reason = "the worker is one thread's, and callers use it for a moment"
    )]
    pub(crate) fn own(&self) -> Option<&mut Own> {
        // SAFETY: [J1] this M holds the P; each caller is done with it before another asks.
        self.proc().map(|proc| unsafe { proc.own() })
    }

    pub(crate) fn note_wait(&self, reason: WaitReason, on: usize) {
        // Who polls inside a call is another executor, and what it waits for is not the G's wait.
        if let Some(header) = self.running.get().filter(|_| self.calls.get() == 0) {
            // SAFETY: set while the G's code runs, and whoever runs it keeps the G.
            unsafe { header.as_ref() }.set_wait(reason, on);
        }
    }

    /// The address of the G that is being polled; 0: none.
    pub(crate) fn running_address(&self) -> usize {
        self.running.get().map_or(0, |g| g.as_ptr().addr())
    }

    /// Its G goes into a blocking call, or comes back from it: for reports.
    pub(crate) fn note_in_call(&self, is_in: bool) {
        self.machine.set_in_call(is_in);
        if let Some(header) = self.running.get() {
            // SAFETY: set while the G's code runs, and whoever runs it keeps the G.
            unsafe { header.as_ref() }.set_in_call(is_in);
        }
    }

    /// Whether a G's code runs on this thread.
    pub(crate) fn is_in_g(&self) -> bool {
        self.running.get().is_some()
    }

    /// Whether the G whose code runs is to make room, or to end. The answer is a refusal, and counts as one.
    ///
    /// A G that awaits what is refused leaves its worker at once. Code that only looks (`now_or_never` in a loop, another
    /// executor inside the G's poll) does not, and refused for ever it would never see what is there. So a poll has
    /// [`REFUSALS`], and after them its operations go through: each is seen within a bounded number of polls, and the others
    /// have a spare P meanwhile, as beside any G that does not let go.
    pub(crate) fn is_to_make_room(&self) -> bool {
        let Some(header) = self.running.get() else {
            return false;
        };
        // SAFETY: set while the G's code runs, and whoever runs it keeps the G.
        let is_aborted = unsafe { header.as_ref() }.state.is_aborted();
        let is_asked = is_aborted
            || self.proc().is_none_or(|proc| {
                // Relaxed: a hint.
                proc.preempt.load(Ordering::Relaxed) != 0
            });
        is_asked && self.refuse()
    }

    #[cold]
    fn refuse(&self) -> bool {
        // In a call there is no P that others would wait for.
        if self.calls.get() > 0 {
            return false;
        }
        let refusals = self.refusals.get();
        self.refusals.set(refusals.saturating_add(1));
        refusals < REFUSALS
    }

    // ---- making work -------------------------------------------------------------------------------------------

    /// A new G runs next, and others may want to help.
    pub(crate) fn put_new(&self, g: GRef) {
        let Some(proc) = self.proc() else {
            self.shared.put_global(g);
            self.shared.wake_one();
            return;
        };
        if let Some(kicked) = proc.queue.put_next(g) {
            self.put_tail(kicked);
        }
        self.shared.wake_one();
    }

    /// A G that was woken runs next. Nobody is called for help if there is nothing else: this P will be free in a moment,
    /// and the monitor looks after one that is not.
    pub(crate) fn put_woken(&self, g: GRef) {
        self.sample(&g);
        let Some(proc) = self.proc() else {
            self.shared.put_global(g);
            self.shared.wake_one();
            return;
        };
        if let Some(kicked) = proc.queue.put_next(g) {
            self.put_tail(kicked);
            self.shared.wake_one();
        }
    }

    fn sample(&self, g: &GRef) {
        let left = self.until_sample.get() - 1;
        if left > 0 {
            return self.until_sample.set(left);
        }
        self.until_sample.set(SAMPLE);
        let now = self.shared.epoch.elapsed_ns().max(1);
        g.header().sample(now);
    }

    fn note_latency(&self, g: &GRef) {
        if let Some(since) = g.header().take_sample() {
            let waited = self.shared.epoch.elapsed_ns().saturating_sub(since);
            self.shared.latency.lock().record(waited);
        }
    }

    /// To the end of the queue.
    pub(crate) fn put_tail(&self, g: GRef) {
        let Some(proc) = self.proc() else {
            self.shared.put_global(g);
            self.shared.wake_one();
            return;
        };
        if let Err(half) = proc.queue.put(g) {
            self.shared.put_all_global(half);
        }
    }

    // ---- running -----------------------------------------------------------------------------------------------

    fn execute(&self, g: GRef, inherits: bool) {
        if let Some(proc) = self.proc() {
            if !inherits {
                Proc::count(&proc.slices);
                // Relaxed: the holder begins a slice.
                proc.preempt.store(0, Ordering::Relaxed);
            }
            // Relaxed (all): figures of the holder.
            let polls = proc.polls.load(Ordering::Relaxed);
            proc.polls.store(polls.wrapping_add(1), Ordering::Relaxed);
            proc.running
                .store(g.as_ptr().as_ptr().addr() as u64, Ordering::Relaxed);
        }
        self.note_latency(&g);
        self.poll(g);
        if let Some(proc) = self.proc() {
            // Relaxed: as above.
            proc.running.store(0, Ordering::Relaxed);
            self.after_hog(proc);
        }
    }

    /// Runs code of a G: `with`, `go` and waits work in it. Whatever is the G's runs in here, and only here: its poll, the
    /// drop of its future, and its end, in which its output may be dropped and its joiner's waker is called.
    fn as_g<R>(&self, g: &GRef, code: impl FnOnce() -> R) -> R {
        struct Back<'a>(&'a Worker, Option<NonNull<Header>>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.running.set(self.1);
            }
        }
        let _back = Back(self, self.running.replace(Some(g.as_ptr())));
        self.refusals.set(0);
        code()
    }

    fn cancel(&self, g: &GRef) {
        let here = !sabotage::is_on(Fault::CancelledOutsideItsG);
        // SAFETY: [A1] the callers have set RUNNING.
        let cancel = || unsafe { g.cancel() };
        if here { self.as_g(g, cancel) } else { cancel() }
    }

    fn poll(&self, g: GRef) {
        let state = &g.header().state;
        let ended = match state.begin() {
            // SAFETY: [A1] `begin` has set RUNNING.
            Begin::Poll => self.as_g(&g, || unsafe { g.poll() }),
            Begin::Cancel => {
                self.cancel(&g);
                true
            }
        };
        if !ended {
            match state.pause() {
                Pause::Waits => {
                    // The reference is counted down already.
                    let _ = g.into_raw();
                    return;
                }
                Pause::Again => return self.requeue(g),
                Pause::Cancel => self.cancel(&g), // RUNNING is still set
            }
        }
        {
            let mut ended = self.ended.borrow_mut();
            let registry = &self.shared.registry;
            registry.note_end(&g, self.proc_index(), &mut ended);
        }
        self.as_g(&g, || g.end());
        drop(g);
        if self.ended.borrow().is_full() {
            self.forget_the_ended();
        }
        self.shared.note_end();
    }

    /// Takes Gs that have ended here out of the lists of all.
    pub(crate) fn forget_the_ended(&self) {
        if !self.ended.borrow().is_empty() {
            // Outputs and names are dropped: user code, which may spawn; nothing ends before it is back.
            let mut ended = self.ended.take();
            self.shared.registry.remove_all(&mut ended);
            self.ended.replace(ended);
        }
    }

    /// It was woken while it ran, or made room.
    fn requeue(&self, g: GRef) {
        if self.is_out_of_time() {
            // As Go does: whoever was preempted goes behind everybody.
            self.shared.put_global(g);
            if !self.has_proc() {
                // This M does not look for work; a P may just have gone idle.
                self.shared.wake_one();
            }
        } else {
            self.put_tail(g);
        }
    }

    fn is_out_of_time(&self) -> bool {
        // Relaxed: a hint.
        self.proc()
            .is_none_or(|proc| proc.preempt.load(Ordering::Relaxed) != 0)
    }

    /// If a spare P stood in for this one, there is one too many now.
    fn after_hog(&self, proc: &Proc) {
        // Relaxed: the monitor's flag; the swap decides whose it is to count.
        if proc.is_hogged.load(Ordering::Relaxed) != 0
            && proc.is_hogged.swap(0, Ordering::AcqRel) != 0
        {
            // Relaxed: a count.
            self.shared.surplus.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts this P aside if there is one too many.
    pub(crate) fn retire_surplus(&self) {
        let surplus: &AtomicUsize = &self.shared.surplus;
        // Without a P there is nothing to put aside, and who has one is to find the count.
        // Relaxed (both): a count.
        if !self.has_proc()
            || surplus.load(Ordering::Relaxed) == 0
            || surplus
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_err()
        {
            return;
        }
        let Some(index) = self.let_go() else { return };
        self.end_spinning();
        let proc = &self.shared.procs[index];
        let left: Vec<GRef> = proc.queue.take_all().collect();
        proc.set(Status::Idle);
        self.shared.put_all_global(left);
        // Relaxed: a count.
        self.shared.standing_in.fetch_sub(1, Ordering::Relaxed);
        self.shared.roster.lock().spares.push(index);
        self.shared.wake_one();
    }
}
