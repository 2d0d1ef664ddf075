//! What the Ms of a runtime share: Ps, the global queue, who is idle, and who is woken for what. The protocol is in `idle.rs`.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::gc::collector::Collector;
use crate::gc::events::Pauses;
use crate::gc::late::Tasks;
use crate::gc::trace::TraceSink;
use crate::sched::block_on::Main;
use crate::sched::blocking::CallQueue;
use crate::sched::context;
use crate::sched::driver::Driver;
use crate::sched::idle::Roster;
use crate::sched::machine::{Machine, NO_PROC};
use crate::sched::proc::{Proc, Status};
use crate::sched::registry::Registry;
use crate::sched::report::DeadlockPolicy;
use crate::sched::task::cell::{self, Birth};
use crate::sched::task::join::{self, JoinHandle};
use crate::sched::task::{GRef, Queued};
use crate::sched::watch::Watch;
use crate::sched::worker::{self, Worker};
use crate::sys::clock::{CoarseMoment, Moment};
use crate::sys::fatal::fatal_args;
use crate::sys::lock::{Condvar, Unranked};
use crate::sys::sync::{AtomicU8, AtomicUsize, Ordering};
use crate::sys::thread;

/// Makes a mutator for a P; the layer above knows its type.
pub(crate) type MakeHost = Box<dyn Fn() -> Box<dyn Any + Send> + Send + Sync>;

/// How far the end of a runtime has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Closing {
    No = 0,
    /// New Gs are cancelled at once.
    Gs = 1,
    /// Ms end.
    Ms = 2,
}

/// Settings of a runtime.
pub(crate) struct Plan {
    pub(crate) procs: usize,
    pub(crate) spares: usize,
    pub(crate) max_threads: usize,
    pub(crate) deadlocks: DeadlockPolicy,
    pub(crate) trace: Option<(Duration, TraceSink)>,
    pub(crate) make_host: MakeHost,
    pub(crate) collector: Arc<Collector>,
}

/// See the module's head.
pub(crate) struct Shared {
    pub(crate) procs: Box<[Proc]>,
    /// How many Ps may run at once.
    pub(crate) width: usize,
    pub(crate) roster: Roster<Queued>,
    /// Ms inside blocking calls without a P.
    pub(crate) in_calls: AtomicUsize,
    /// Spare Ps that are not put aside.
    pub(crate) standing_in: AtomicUsize,
    /// Ps beyond `width` that run: the next one that is free is put aside.
    pub(crate) surplus: AtomicUsize,
    pub(crate) closing: AtomicU8,
    pub(crate) driver: Arc<Driver>,
    pub(crate) registry: Registry,
    pub(crate) collector: Arc<Collector>,
    pub(crate) epoch: Moment,
    built_at: CoarseMoment,
    pub(crate) max_threads: usize,
    next_shard: AtomicUsize,
    /// From runnable to running, of a sample.
    pub(crate) latency: Unranked<Pauses>,
    /// A line every so often, and where it goes.
    pub(crate) trace: Option<(Duration, TraceSink)>,
    spare_hosts: Unranked<Vec<Box<dyn Any + Send>>>,
    make_host: MakeHost,
    /// Gs that wait for a thread to block on.
    pub(crate) calls: CallQueue,
    /// Threads in `block_on`.
    pub(crate) mains: Unranked<Vec<Arc<Main>>>,
    pub(crate) deadlocks: DeadlockPolicy,
    /// The monitor's sleep.
    pub(crate) watch: Arc<Watch>,
    /// For whoever waits for the last G to end.
    pub(crate) ended: Unranked<()>,
    pub(crate) all_ended: Condvar,
    /// Whether the runtime holds a reference to itself. [A6]
    keeps_itself: AtomicU8,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("width", &self.width)
            .field("roster", &self.roster)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(plan: Plan) -> std::io::Result<Arc<Self>> {
        let all = plan.procs + plan.spares;
        let shards = (plan.procs * 4).next_power_of_two().clamp(4, 256);
        let driver = Arc::new(Driver::new(all)?);
        plan.collector.seats.add_host();
        let shared = Arc::new(Self {
            procs: (0..all)
                .map(|index| Proc::new(index, (plan.make_host)()))
                .collect(),
            width: plan.procs,
            roster: Roster::new(plan.procs, plan.spares),
            in_calls: AtomicUsize::new(0),
            standing_in: AtomicUsize::new(0),
            surplus: AtomicUsize::new(0),
            closing: AtomicU8::new(Closing::No as u8),
            watch: driver.watch.clone(),
            driver,
            registry: Registry::new(shards, all),
            collector: plan.collector,
            epoch: Moment::now(),
            built_at: CoarseMoment::now(),
            max_threads: plan.max_threads,
            next_shard: AtomicUsize::new(0),
            latency: Unranked::new(Pauses::new()),
            trace: plan.trace,
            spare_hosts: Unranked::new(Vec::new()),
            make_host: plan.make_host,
            calls: CallQueue::new(),
            mains: Unranked::new(Vec::new()),
            deadlocks: plan.deadlocks,

            ended: Unranked::new(()),
            all_ended: Condvar::new(),
            keeps_itself: AtomicU8::new(1),
        });
        let tasks: Weak<dyn Tasks> = Arc::<Self>::downgrade(&shared);
        shared.collector.tasks.add(tasks);
        // [A6] Given back by `let_itself_go`.
        #[allow(clippy::mem_forget, reason = "the runtime's reference to itself")]
        std::mem::forget(shared.clone());
        Ok(shared)
    }

    pub(crate) fn is_closing(&self, how_far: Closing) -> bool {
        // Acquire: pairs with the Release of who closes.
        self.closing.load(Ordering::Acquire) >= how_far as u8
    }

    // ---- Gs --------------------------------------------------------------------------------------------------

    /// Makes a G runnable.
    ///
    /// # Safety
    /// 1. What the future borrows outlives the G: it is `'static`, or the caller stays until the G has ended.
    pub(crate) unsafe fn spawn<F>(
        self: &Arc<Self>,
        future: F,
        name: Option<String>,
        spawned_at: &'static Location<'static>,
    ) -> JoinHandle<F::Output>
    where
        F: Future + Send,
        F::Output: Send,
    {
        // SAFETY: clause 1.
        context::with_worker(|here| unsafe { self.spawn_by(here, future, name, spawned_at) })
    }

    /// As [`spawn`](Self::spawn), for who knows which worker this thread is, if it is one, of whichever runtime: that is asked
    /// once for a G.
    ///
    /// # Safety
    /// 1. As [`spawn`](Self::spawn).
    #[inline]
    pub(crate) unsafe fn spawn_by<F>(
        self: &Arc<Self>,
        here: Option<&Worker>,
        future: F,
        name: Option<String>,
        spawned_at: &'static Location<'static>,
    ) -> JoinHandle<F::Output>
    where
        F: Future + Send,
        F::Output: Send,
    {
        let this = Arc::as_ptr(self);
        // One of this runtime's, and with a P.
        let ours = here.filter(|worker| worker.is_of(this));
        let ours = ours.and_then(|worker| Some((worker, worker.proc_index()?)));
        let shard = match ours {
            Some((_, proc_index)) => proc_index,
            // Relaxed: any will do.
            None => self.next_shard.fetch_add(1, Ordering::Relaxed),
        };
        let birth = Birth {
            // SAFETY: a pointer into an `Arc` is not null. Not made from `&**self`: from the copy in
            // the G's header references are counted, and the counts lie outside the `Shared`.
            shared: unsafe { NonNull::new_unchecked(this.cast_mut()) },
            spawned_at,
            name: name.map(|name| Box::new(name.into_boxed_str())),
            shard: self.registry.shard_at(shard),
            born_ms: self.age_ms(),
        };
        let (registered, queued, handle) = cell::new(future, birth, here);
        self.registry.add(registered);
        if self.is_closing(Closing::Gs) {
            join::abort(&queued);
        }
        match ours {
            Some((worker, _)) => worker.put_new(queued),
            None => {
                self.put_global(queued);
                self.wake_one();
            }
        }
        handle
    }

    /// Puts a G that was woken where it will run soon.
    pub(crate) fn schedule(g: GRef) {
        let shared = g.header().shared.as_ptr().cast_const();
        context::with_worker_of(shared, |here| match here {
            Some(worker) => worker.put_woken(g),
            None => {
                // SAFETY: [A6] the G is about to be queued, by us; from an `Arc`, as every `Shared` is.
                unsafe { Arc::increment_strong_count(shared) };
                // SAFETY: the count of the line above. It is kept for longer than the G, which may end at once.
                let shared = unsafe { Arc::from_raw(shared) };
                shared.put_global(g);
                shared.wake_one();
            }
        });
    }

    /// Milliseconds since the runtime was built, to some milliseconds.
    pub(crate) fn age_ms(&self) -> u32 {
        self.built_at.elapsed_ms()
    }

    /// The runtime's reference to itself goes, if it ends and no G is left. [A6]
    pub(crate) fn let_itself_go(self: &Arc<Self>) {
        // AcqRel: once.
        if self.is_closing(Closing::Ms)
            && self.registry.len() == 0
            && self.keeps_itself.swap(0, Ordering::AcqRel) != 0
        {
            // SAFETY: the reference that `new` has made.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(self)) };
        }
    }

    // ---- the global queue ------------------------------------------------------------------------------------

    pub(crate) fn put_global(&self, g: GRef) {
        self.put_all_global([g]);
    }

    pub(crate) fn put_all_global(&self, gs: impl IntoIterator<Item = GRef>) {
        let nodes = gs.into_iter().map(|g| g.into_raw().cast());
        // SAFETY: 1. [A2] a runnable G is in one queue, once; kept by the reference.
        unsafe { self.roster.push(nodes) };
        self.watch.note();
    }

    /// Takes one to run and a share of the others for `proc`, whose holder the caller is; `most` with it.
    pub(crate) fn take_global(&self, proc: &Proc, most: usize) -> Option<GRef> {
        let share = |len: usize| (len / self.width + 1).min(most);
        let taken = self.roster.pop(share).into_iter();
        // SAFETY: the queue's reference.
        let mut taken = taken.map(|header| unsafe { GRef::from_raw(header.cast()) });
        let first = taken.next();
        for g in taken {
            if let Err(half) = proc.queue.put(g) {
                self.put_all_global(half);
            }
        }
        first
    }

    // ---- Ps and Ms ---------------------------------------------------------------------------------------------

    /// Has somebody look for work, if a P is idle and nobody looks yet. After work was made.
    pub(crate) fn wake_one(self: &Arc<Self>) {
        if let Some(index) = self.roster.call_one() {
            self.note_running(index);
            self.start(index, true);
        }
    }

    /// Runs an idle P on some M; false if there is none.
    pub(crate) fn start_idle_proc(self: &Arc<Self>, spinning: bool) -> bool {
        match self.take_idle_proc() {
            Some(index) => {
                self.start(index, spinning);
                true
            }
            None => false,
        }
    }

    pub(crate) fn take_idle_proc(&self) -> Option<usize> {
        let index = self.roster.take_idle()?;
        self.note_running(index);
        Some(index)
    }

    /// The P was idle, and is the caller's now.
    fn note_running(&self, index: usize) {
        self.procs[index].set(Status::Running);
        self.watch.rouse();
    }

    /// The P goes to the idle ones, from who has retaken it: its holder looks again ([`Roster::give_up`]).
    pub(crate) fn put_idle_proc(&self, index: usize) {
        self.procs[index].set(Status::Idle);
        self.roster.put_idle(index);
    }

    /// Has some M run this P, which is the caller's to give.
    pub(crate) fn start(self: &Arc<Self>, index: usize, spinning: bool) {
        let mut lists = self.roster.lock();
        if let Some(machine) = lists.machines.pop() {
            drop(lists);
            machine.give(index, spinning);
            machine.unpark();
            return;
        }
        let id = lists.next_id;
        lists.next_id += 1;
        lists.started += 1;
        let machine = Arc::new(Machine::new());
        lists.all.push(machine.clone());
        drop(lists);
        machine.give(index, spinning);
        let (shared, here) = (self.clone(), machine.clone());
        let body = move || worker::run(shared, here);
        match thread::spawn(format!("greywave-m-{id}"), body) {
            Ok(thread) => {
                let mut lists = self.roster.lock();
                lists.threads.retain(|t| !thread::is_finished(t));
                lists.threads.push(thread);
            }
            Err(error) => self.without_a_thread(&machine, &error),
        }
    }

    /// The OS refuses a thread. The P is idle again, and an M that exists does the work: one that runs comes to it, and one
    /// that sleeps in the poller is woken. If there is none, that is the end.
    fn without_a_thread(&self, machine: &Arc<Machine>, error: &std::io::Error) {
        let (index, spinning) = machine.given();
        if !self.forget(machine) {
            fatal_args(format_args!(
                "the first thread of a runtime cannot be started: {error}"
            ));
        }
        self.procs[index].set(Status::Idle);
        self.roster.give_up(index, spinning);
        self.driver.break_poll();
    }

    /// That M is no more; false if it was the last.
    pub(crate) fn forget(&self, machine: &Arc<Machine>) -> bool {
        let mut lists = self.roster.lock();
        lists.all.retain(|other| !Arc::ptr_eq(other, machine));
        lists.started -= 1;
        lists.started > 0
    }

    /// Counts a blocking call in, if there may be a thread more for it: one call always may.
    pub(crate) fn reserve_call(&self) -> bool {
        // Relaxed (all): counts.
        let running = self.width + self.standing_in.load(Ordering::Relaxed);
        let most = self.max_threads.saturating_sub(running).max(1);
        self.in_calls
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < most).then_some(n + 1)
            })
            .is_ok()
    }

    /// The M goes to sleep until it is given a P; returns that, or [`NO_PROC`] at the end.
    pub(crate) fn stop_machine(&self, machine: &Arc<Machine>) -> (usize, bool) {
        {
            let mut lists = self.roster.lock();
            if self.is_closing(Closing::Ms) {
                return (NO_PROC, false);
            }
            lists.machines.push(machine.clone());
        }
        machine.park();
        machine.given()
    }

    // ---- mutators ----------------------------------------------------------------------------------------------

    /// A mutator for an M that has no P, or whose P goes on without it.
    pub(crate) fn take_host(&self) -> Box<dyn Any + Send> {
        let spare = self.spare_hosts.lock().pop();
        spare.unwrap_or_else(|| (self.make_host)())
    }

    pub(crate) fn give_host(&self, host: Box<dyn Any + Send>) {
        self.spare_hosts.lock().push(host);
    }

    pub(crate) fn take_spare_hosts(&self) -> Vec<Box<dyn Any + Send>> {
        std::mem::take(&mut *self.spare_hosts.lock())
    }
}
