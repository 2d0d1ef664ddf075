//! `Runtime`, its builder, and the functions that a G calls.
//!
//! **Claim.** A G uses the heap only inside `with`, so a G that waits, and one that computes
//! outside `with`, delay no stop.
//!
//! **How.** Each P has a mutator, which is Blocked between two sections. `with` enters the heap
//! with it, and leaves it again even if the closure panics. That costs two compare-exchanges a
//! section. The future of a G is `Send`, and a `Gc` is not, so a G cannot keep a `Gc` across an
//! `.await`.
//!
//! **The end.** A runtime waits for its Gs, except where a G could be waiting for the thread that
//! ends it (`may_wait`). There a thread of its own ends the runtime.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::api::config::{processors_from_environment, scheduler_trace_from_environment};
use crate::api::current::{current, set_current};
use crate::api::error::ConfigError;
use crate::api::heap::Heap;
use crate::api::mutator::Mutator;
use crate::gc::collecting::collecting_for;
use crate::sched::context;
use crate::sched::report::{Deadlock, DeadlockPolicy, GInfo};
use crate::sched::shared::{Plan, Shared};
use crate::sched::shutdown::ShutdownError;
use crate::sched::stats::RuntimeStats;
use crate::sched::task::join::JoinHandle;
use crate::sched::worker::Worker;
use crate::sys::clock::Moment;
use crate::sys::lock::Unranked;
use crate::sys::thread::{self, JoinHandle as Thread};

/// The default for the most threads (Go's limit).
const MAX_THREADS: usize = 10_000;
/// How long dropping a runtime waits for its Gs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A P's mutator, which moves from thread to thread with the P.
struct Host(Mutator);

#[allow(
    clippy::non_send_fields_in_send_ty,
    reason = "what makes a mutator one thread's does not hold for a P's"
)]
// SAFETY: a P's mutator is Blocked whenever it changes threads, and the hand-over of the P orders
// what its threads do. A `Mutator` is otherwise not Send because its thread's `Current` names it;
// for a P's mutator `with` sets and clears that.
unsafe impl Send for Host {}

/// Runs Gs, which are futures that share a heap, on as many threads as there are processors.
///
/// [`go`] starts a G; [`Runtime::go`] does so from outside the runtime. A G uses the heap in
/// [`with`]. A G that waits costs the collector nothing, because it holds no pointer across an
/// `.await`. Dropping the runtime drops the remaining Gs, as [`shutdown`](Self::shutdown) with a
/// limit of 10 s does.
///
/// # Examples
/// ```
/// use greywave::{GcCell, Heap, Root, Runtime, Trace, go, with};
///
/// #[derive(Trace)]
/// struct Node<'gc> {
///     value: u64,
///     next: GcCell<'gc, Node<'gc>>,
/// }
///
/// let rt = Runtime::builder(&Heap::new()).procs(2).build()?;
/// let sum = rt.block_on(async {
///     let list: Root<Node<'static>> = with(|m| {
///         let last = m.alloc(Node { value: 2, next: GcCell::null() });
///         m.root(m.alloc(Node { value: 40, next: GcCell::new(Some(last)) }))
///     });
///     go(async move {
///         with(|m| {
///             let first = list.get(m);
///             first.value + first.next.get().map_or(0, |n| n.value)
///         })
///     })
///     .await
///     .expect("it does not panic")
/// })?;
/// assert_eq!(sum, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Runtime {
    shared: Arc<Shared>,
    heap: Heap,
    monitor: Unranked<Option<Thread<()>>>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("procs", &self.shared.width)
            .finish_non_exhaustive()
    }
}

/// Settings for a [`Runtime`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct RuntimeBuilder {
    heap: Heap,
    procs: Option<usize>,
    max_threads: usize,
    deadlocks: DeadlockPolicy,
}

impl RuntimeBuilder {
    /// Sets how many Gs run at once: 1 to 4096. The default is `GOMAXPROCS` from the environment,
    /// or else all processors.
    pub fn procs(mut self, count: usize) -> Self {
        self.procs = Some(count);
        self
    }

    /// Sets the most threads, including those in blocking calls. It is at least `procs` + 1; the
    /// default is 10,000.
    pub fn max_threads(mut self, count: usize) -> Self {
        self.max_threads = count;
        self
    }

    /// Sets when the runtime looks for deadlocks. The default is [`DeadlockPolicy::Auto`].
    pub fn deadlocks(mut self, policy: DeadlockPolicy) -> Self {
        self.deadlocks = policy;
        self
    }

    /// Starts the runtime.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting or `GOMAXPROCS` is out of range, or the OS refuses a thread or
    /// a poller.
    #[track_caller]
    pub fn build(self) -> Result<Runtime, ConfigError> {
        let procs = match self.procs {
            Some(count @ 1..=4096) => count,
            Some(count) => {
                return Err(ConfigError::unreadable(
                    "procs",
                    &count.to_string(),
                    "1 to 4096",
                ));
            }
            None => processors_from_environment()?.unwrap_or_else(thread::processors),
        };
        if self.max_threads <= procs {
            return Err(ConfigError::unreadable(
                "max_threads",
                &self.max_threads.to_string(),
                "more than the number of procs",
            ));
        }
        let (heap, built_at) = (self.heap.clone(), Location::caller());
        let plan = Plan {
            procs,
            spares: procs.clamp(4, 64),
            max_threads: self.max_threads,
            deadlocks: self.deadlocks,
            trace: scheduler_trace_from_environment()?,
            make_host: Box::new(move || Box::new(Host(Mutator::for_proc(&heap, built_at)))),
            collector: self.heap.handle().collector.clone(),
        };
        let shared = Shared::new(plan).map_err(|e| {
            ConfigError::refused("a poller for sockets cannot be had".to_owned(), e)
        })?;
        let watched = shared.clone();
        let monitor = thread::spawn("greywave-monitor".to_owned(), move || watched.run_monitor())
            .map_err(|e| {
            // There is no G yet that this could wait for.
            let _ = shared.shut_down(Duration::ZERO, &|| true);
            ConfigError::refused("the scheduler's thread cannot be started".to_owned(), e)
        })?;
        Ok(Runtime {
            shared,
            heap: self.heap,
            monitor: Unranked::new(Some(monitor)),
        })
    }
}

impl Runtime {
    /// Returns the settings for a runtime over `heap`.
    pub fn builder(heap: &Heap) -> RuntimeBuilder {
        RuntimeBuilder {
            heap: heap.clone(),
            procs: None,
            max_threads: MAX_THREADS,
            deadlocks: DeadlockPolicy::default(),
        }
    }

    /// Returns the heap that the Gs of this runtime use.
    #[must_use]
    pub fn heap(&self) -> &Heap {
        &self.heap
    }

    /// Returns how many Gs run at once.
    #[must_use]
    pub fn procs(&self) -> usize {
        self.shared.width
    }

    /// Runs `future` as a G, the main G, and waits for its output. Other Gs go on after it has
    /// ended.
    ///
    /// # Errors
    /// [`Deadlock`] if every G waits and nothing can wake one; see [`DeadlockPolicy`]. The main G
    /// is then dropped.
    ///
    /// # Panics
    /// If the main G panics, with the same payload. In a G, outside [`blocking`](crate::blocking).
    /// On a thread with a running mutator, because the collector would wait for it (use
    /// [`Mutator::blocking`]). If the runtime is shut down meanwhile.
    #[track_caller]
    #[allow(clippy::panic_in_result_fn, reason = "documented")]
    pub fn block_on<F>(&self, future: F) -> Result<F::Output, Deadlock>
    where
        F: Future + Send,
        F::Output: Send,
    {
        assert!(
            !context::holds_a_proc(),
            "block_on was called in a G: await the future, or wrap it in `blocking`"
        );
        assert!(
            current().is_none_or(|c| !c.running),
            "block_on was called by a running mutator: wrap it in Mutator::blocking"
        );
        self.shared.block_on(future, Location::caller())
    }

    /// Starts a G. Any thread may call this.
    #[track_caller]
    pub fn go<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // SAFETY: 1. the future is 'static.
        unsafe { self.shared.spawn(future, None, Location::caller()) }
    }

    /// Returns the number of Gs that have not ended. O(procs); stops no G.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.registry.len()
    }

    /// Returns whether every G has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns statistics: how many Gs run and wait, and how long a G waits for its turn. O(procs);
    /// stops no G.
    #[must_use]
    pub fn stats(&self) -> RuntimeStats {
        self.shared.stats()
    }

    /// Returns what every G does now. O(Gs). No G is stopped, so each entry shows a moment of its
    /// own.
    #[must_use]
    pub fn dump(&self) -> Vec<GInfo> {
        self.shared.dump()
    }

    /// Ends the runtime: drops each G at its next await, and joins the threads. Waits at most
    /// `limit` for Gs that run or are in blocking calls.
    ///
    /// The call does not wait if the Gs could be waiting for this thread: in a G of the runtime, in
    /// an object's destructor, and on a thread with a running mutator that a collection waits for.
    /// It then requests the end, which a separate thread carries out, and returns.
    ///
    /// # Errors
    /// [`ShutdownError`] names the Gs that had not ended in time; their threads end when they do.
    pub fn shutdown(self, limit: Duration) -> Result<(), ShutdownError> {
        self.end(limit)
    }

    fn end(&self, limit: Duration) -> Result<(), ShutdownError> {
        let Some(monitor) = self.monitor.lock().take() else {
            return Ok(()); // done before
        };
        let start = Moment::now();
        let Some(result) = self.shared.shut_down(limit, &|| self.may_wait()) else {
            let shared = self.shared.clone();
            let body = move || {
                // Gs that do not end are left behind, as when a runtime is dropped elsewhere.
                let _ = shared.shut_down(PATIENCE, &|| true);
                let _ = monitor.join();
            };
            // If no thread can be started, the Gs end all the same, and the runtime's threads sleep
            // on.
            let _ = thread::spawn("greywave-end".to_owned(), body);
            let left = self.shared.dump();
            if left.is_empty() {
                return Ok(());
            }
            let waited = Duration::from_nanos(start.elapsed_ns());
            return Err(ShutdownError::new(waited, left));
        };
        // The monitor sees that Ms are to end.
        let _ = monitor.join();
        result
    }

    /// Whether this thread may wait for Gs, because none of them can be waiting for it.
    fn may_wait(&self) -> bool {
        let is_waited_for = current().filter(|c| c.running).is_some_and(|c| {
            // SAFETY: 1. and 2. it is this thread's own mutator, and runs; only the word is used.
            let asked = unsafe { c.mutator.get() }.word.asked();
            asked.is_waited_for()
        });
        !is_waited_for && collecting_for() == 0 && !context::is_thread_of(Arc::as_ptr(&self.shared))
    }
}

impl Drop for Runtime {
    /// Does what [`shutdown`](Runtime::shutdown) does with a limit of 10 s. From 1 s on it reports
    /// which Gs it waits for ([`Event::SlowShutdown`](crate::Event::SlowShutdown)).
    fn drop(&mut self) {
        let _ = self.end(PATIENCE);
    }
}

/// Starts a G, and returns a handle to its result. A G may call this.
///
/// The future runs on any thread that is free, so it must be `Send`. So it cannot hold a
/// [`Gc`](crate::Gc) across an `.await`; therefore the collector has no work with a G that waits. A
/// panic is caught and given to the G that awaits the handle. The call takes some 100 nanoseconds.
///
/// # Panics
/// Outside a runtime; use [`Runtime::go`] there.
#[track_caller]
pub fn go<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    start(future, None, Location::caller())
}

/// Does what [`go`] does, for a G with a name, which reports of deadlocks and dumps show.
///
/// # Panics
/// Outside a runtime.
#[track_caller]
pub fn go_named<F>(name: impl Into<String>, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    start(future, Some(name.into()), Location::caller())
}

#[allow(clippy::panic, reason = "documented at `go`")]
fn start<F>(
    future: F,
    name: Option<String>,
    spawned_at: &'static Location<'static>,
) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    context::with_worker(|worker| {
        let Some(worker) = worker else {
            panic!("go was called outside a runtime, at {spawned_at}: use Runtime::go");
        };
        // SAFETY: 1. the future is 'static.
        unsafe {
            worker
                .shared()
                .spawn_by(Some(worker), future, name, spawned_at)
        }
    })
}

/// Gives a G access to the heap: runs `f` with the mutator of the P that the G runs on.
///
/// No pointer can leave `f`; a [`Root`](crate::Root) holds what is to live on. A long section must
/// call [`safepoint`](Mutator::safepoint), like any mutator. The call takes some 20 nanoseconds.
///
/// # Panics
/// Outside a G. Inside another section, or on a thread with a mutator of its own, because a thread
/// has at most one licence. If `f` panics, the section is left in order.
///
/// # Examples
/// A pointer cannot be held across an await:
///
/// ```compile_fail
/// use greywave::{Heap, Runtime, with, yield_now};
/// let rt = Runtime::builder(&Heap::new()).build().unwrap();
/// rt.block_on(async {
///     let number = with(|m| m.alloc(42));
///     yield_now().await;
///     println!("{number}");
/// });
/// ```
#[track_caller]
#[allow(clippy::panic, reason = "documented")]
pub fn with<R>(f: impl FnOnce(&mut Mutator) -> R) -> R {
    assert!(
        current().is_none(),
        "`with` inside a section, or on a thread with a mutator: a thread has one at most"
    );
    context::with_worker(|worker| {
        let Some(worker) = worker.filter(|w| w.is_in_g()) else {
            panic!("`with` was called outside a G");
        };
        let mut section = Section::enter(worker);
        f(section.mutator())
    })
}

/// A worker's stay in the heap. Dropping it ends the section.
struct Section<'a> {
    worker: &'a Worker,
    host: Option<Box<Host>>,
}

impl<'a> Section<'a> {
    fn enter(worker: &'a Worker) -> Self {
        let own = worker.own().and_then(|own| own.host.take());
        // If the M has no P, or the P's mutator is with an M in a blocking call, a spare mutator is
        // used.
        let host = own.unwrap_or_else(|| worker.shared().take_host());
        let mut host = host.downcast::<Host>().ok();
        if let Some(host) = &mut host {
            host.0
                .enter_section(worker.os_thread, worker.running_address());
        }
        Self { worker, host }
    }

    fn mutator(&mut self) -> &mut Mutator {
        match &mut self.host {
            Some(host) => &mut host.0,
            None => unreachable!("a host is what this module makes"),
        }
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let Some(mut host) = self.host.take() else {
            return;
        };
        host.0.leave_section();
        set_current(None);
        let host: Box<dyn Any + Send> = host;
        match self.worker.own() {
            Some(own) if own.host.is_none() => own.host = Some(host),
            _ => self.worker.shared().give_host(host),
        }
    }
}
