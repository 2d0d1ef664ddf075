//! What the Ms of a runtime share: Ps, the global queue, who is idle, and who is woken for what.
//!
//! A wake-up is not lost: who makes work puts it into a queue, and then looks whether a P is idle; who goes idle puts its P
//! into the list, and then looks into all queues. Each has a sequentially consistent fence between the two, so one of them
//! sees the other:
//!
//! | makes work (`put_local`, `put_global`, then `wake_one`) | goes idle (`release_proc`, then `look_again`) |
//! |---|---|
//! | store the G | store idle, spinning |
//! | fence | fence |
//! | load idle, spinning | load the queues |

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
use crate::sched::list::Chain;
use crate::sched::machine::{Machine, NO_PROC};
use crate::sched::proc::{Proc, Status};
use crate::sched::registry::Registry;
use crate::sched::report::DeadlockPolicy;
use crate::sched::sysmon::Monitor;
use crate::sched::task::cell::{self, Birth};
use crate::sched::task::join::{self, JoinHandle};
use crate::sched::task::{GRef, Queued};
use crate::sched::worker;
use crate::sys::clock::{CoarseMoment, Moment};
use crate::sys::fatal::fatal_args;
use crate::sys::lock::{Condvar, Unranked};
use crate::sys::sync::{AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sys::thread::{self, JoinHandle as Thread};

/// Makes a mutator for a P; the layer above knows its type.
pub(crate) type MakeHost = Box<dyn Fn() -> Box<dyn Any + Send> + Send + Sync>;

/// Under the scheduler's lock.
#[derive(Debug)]
pub(crate) struct Idle {
    global: Chain<Queued>,
    pub(crate) procs: Vec<usize>,
    /// Ps that stand in for those whose G does not make room.
    pub(crate) spares: Vec<usize>,
    pub(crate) machines: Vec<Arc<Machine>>,
    /// Ms that exist.
    pub(crate) started: usize,
    next_id: u64,
    pub(crate) threads: Vec<Thread<()>>,
}

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
    pub(crate) idle: Unranked<Idle>,
    /// Mirrors of what is under the lock.
    pub(crate) idle_procs: AtomicUsize,
    pub(crate) global_len: AtomicUsize,
    /// Ms that look for work.
    pub(crate) spinning: AtomicUsize,
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
    /// Counts whatever may have made somebody runnable.
    pub(crate) events: AtomicU64,
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
    pub(crate) monitor: Unranked<Monitor>,
    pub(crate) monitor_wake: Condvar,
    pub(crate) monitor_sleeps: AtomicU8,
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
            .field("idle", &self.idle)
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
            idle: Unranked::new(Idle {
                global: Chain::new(),
                procs: (0..plan.procs).rev().collect(),
                spares: (plan.procs..all).rev().collect(),
                machines: Vec::new(),
                started: 0,
                next_id: 0,
                threads: Vec::new(),
            }),
            idle_procs: AtomicUsize::new(plan.procs),
            global_len: AtomicUsize::new(0),
            spinning: AtomicUsize::new(0),
            in_calls: AtomicUsize::new(0),
            standing_in: AtomicUsize::new(0),
            surplus: AtomicUsize::new(0),
            closing: AtomicU8::new(Closing::No as u8),
            driver,
            registry: Registry::new(shards, all),
            collector: plan.collector,
            epoch: Moment::now(),
            built_at: CoarseMoment::now(),
            max_threads: plan.max_threads,
            next_shard: AtomicUsize::new(0),
            events: AtomicU64::new(0),
            latency: Unranked::new(Pauses::new()),
            trace: plan.trace,
            spare_hosts: Unranked::new(Vec::new()),
            make_host: plan.make_host,
            calls: CallQueue::new(),
            mains: Unranked::new(Vec::new()),
            deadlocks: plan.deadlocks,
            monitor: Unranked::new(Monitor::default()),
            monitor_wake: Condvar::new(),
            monitor_sleeps: AtomicU8::new(0),
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
        let this = Arc::as_ptr(self);
        let shard = context::shard_of(this).unwrap_or_else(|| {
            // Relaxed: any will do.
            self.next_shard.fetch_add(1, Ordering::Relaxed)
        });
        let birth = Birth {
            shared: NonNull::from(&**self),
            spawned_at,
            name: name.map(|name| Box::new(name.into_boxed_str())),
            shard: (shard % self.registry.shards()) as u8,
            born_ms: self.age_ms(),
        };
        let (registered, queued, handle) = cell::new(future, birth);
        self.registry.add(registered);
        if self.is_closing(Closing::Gs) {
            join::abort(&queued);
        }
        context::with_worker_of(this, |here| match here {
            Some(worker) => worker.put_new(queued),
            None => {
                self.put_global(queued);
                self.wake_one();
            }
        });
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
        let mut idle = self.idle.lock();
        // SAFETY: 1. [A2] a runnable G is in one queue, once; kept by the reference. 2. the lock is held.
        unsafe { idle.global.push_back(g.into_raw().cast()) };
        self.note_global(&idle);
    }

    pub(crate) fn put_all_global(&self, gs: impl IntoIterator<Item = GRef>) {
        let mut idle = self.idle.lock();
        for g in gs {
            // SAFETY: as in `put_global`.
            unsafe { idle.global.push_back(g.into_raw().cast()) };
        }
        self.note_global(&idle);
    }

    fn note_global(&self, idle: &Idle) {
        // Relaxed: the fence in `wake_one` or the lock orders it.
        self.global_len.store(idle.global.len(), Ordering::Relaxed);
        // Relaxed: a counter.
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one to run and a share of the others for `proc`, whose holder the caller is; `most` with it.
    pub(crate) fn take_global(&self, proc: &Proc, most: usize) -> Option<GRef> {
        // Relaxed: an estimate; who must not miss anything has a fence before.
        if self.global_len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut idle = self.idle.lock();
        let len = idle.global.len();
        let count = (len / self.width + 1).min(len).min(most);
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            // SAFETY: the lock is held.
            if let Some(header) = unsafe { idle.global.pop_front() } {
                // SAFETY: the queue's reference.
                taken.push(unsafe { GRef::from_raw(header.cast()) });
            }
        }
        // Relaxed: as in `note_global`.
        self.global_len.store(idle.global.len(), Ordering::Relaxed);
        drop(idle);
        let mut taken = taken.into_iter();
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
        // SeqCst: see the module's head.
        fence(Ordering::SeqCst);
        // Relaxed (both): after the fence.
        if self.idle_procs.load(Ordering::Relaxed) == 0
            || self.spinning.load(Ordering::Relaxed) != 0
        {
            return;
        }
        // AcqRel: one waker at a time. Relaxed on failure: somebody looks.
        if self
            .spinning
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return;
        }
        if !self.start_idle_proc(true) {
            self.spinning.fetch_sub(1, Ordering::AcqRel);
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
        // Relaxed: the lock below decides.
        if self.idle_procs.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut idle = self.idle.lock();
        let index = idle.procs.pop()?;
        // Relaxed: under the lock.
        self.idle_procs.store(idle.procs.len(), Ordering::Relaxed);
        drop(idle);
        self.procs[index].set(Status::Running);
        self.wake_monitor();
        Some(index)
    }

    /// The P goes to the idle ones. By its holder, or by who has retaken it.
    pub(crate) fn put_idle_proc(&self, index: usize) {
        self.procs[index].set(Status::Idle);
        let mut idle = self.idle.lock();
        idle.procs.push(index);
        // Relaxed: the fence in `look_again` orders it against the queues.
        self.idle_procs.store(idle.procs.len(), Ordering::Relaxed);
    }

    /// Has some M run this P, which is the caller's to give.
    pub(crate) fn start(self: &Arc<Self>, index: usize, spinning: bool) {
        let mut idle = self.idle.lock();
        if let Some(machine) = idle.machines.pop() {
            drop(idle);
            machine.give(index, spinning);
            machine.unpark();
            return;
        }
        let id = idle.next_id;
        idle.next_id += 1;
        idle.started += 1;
        drop(idle);
        let machine = Arc::new(Machine::new());
        machine.give(index, spinning);
        let shared = self.clone();
        let body = move || worker::run(shared, machine);
        match thread::spawn(format!("greywave-m-{id}"), body) {
            Ok(thread) => {
                let mut idle = self.idle.lock();
                idle.threads.retain(|t| !thread::is_finished(t));
                idle.threads.push(thread);
            }
            Err(error) => self.without_a_thread(index, spinning, &error),
        }
    }

    /// The OS refuses a thread. The P is idle again, and whoever runs already does the work; if nobody does, that is the
    /// end.
    fn without_a_thread(&self, index: usize, spinning: bool, error: &std::io::Error) {
        self.put_idle_proc(index);
        if spinning {
            self.spinning.fetch_sub(1, Ordering::AcqRel);
        }
        let mut idle = self.idle.lock();
        idle.started -= 1;
        if idle.started == 0 {
            fatal_args(format_args!(
                "the first thread of a runtime cannot be started: {error}"
            ));
        }
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
            let mut idle = self.idle.lock();
            if self.is_closing(Closing::Ms) {
                return (NO_PROC, false);
            }
            idle.machines.push(machine.clone());
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
