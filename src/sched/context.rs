//! What a thread knows of the worker it is: the only thread-local of this layer, read at its edge.

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::Context;

use crate::sched::driver::Driver;
use crate::sched::shared::Shared;
use crate::sched::wait::WaitReason;
use crate::sched::worker::Worker;
use crate::sys::thread::thread_local;

#[cfg(test)]
std::thread_local! {
    static TEST_DRIVER: std::cell::RefCell<Option<(Arc<Driver>, usize)>> =
        const { std::cell::RefCell::new(None) };
}

/// Gives this thread a driver without a runtime.
#[cfg(all(test, not(any(loom, shuttle))))]
pub(crate) fn set_driver(driver: Option<(Arc<Driver>, usize)>) {
    TEST_DRIVER.set(driver);
}

thread_local! {
    static WORKER: Cell<*const Worker> = const { Cell::new(ptr::null()) };
    /// Whose thread this is, also while it is [`Elsewhere`].
    static HOME: Cell<*const Shared> = const { Cell::new(ptr::null()) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// Says which worker this thread is, for as long as the guard lives.
pub(crate) struct Here(#[allow(dead_code, reason = "its drop is what it is for")] Home);

impl Here {
    pub(crate) fn enter(worker: &Worker) -> Self {
        WORKER.with(|w| w.set(&raw const *worker));
        Self(Home::enter(worker.shared()))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        WORKER.with(|w| w.set(ptr::null()));
    }
}

/// This thread is one of that runtime's for as long as the guard lives.
pub(crate) struct Home;

impl Home {
    pub(crate) fn enter(shared: &Arc<Shared>) -> Self {
        HOME.with(|home| home.set(Arc::as_ptr(shared)));
        Self
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        HOME.with(|home| home.set(ptr::null()));
    }
}

/// This thread is no worker while this lives: a worker in a blocking call waits for another runtime as any thread does.
pub(crate) struct Elsewhere(*const Worker);

impl Elsewhere {
    pub(crate) fn enter() -> Self {
        Self(WORKER.with(|w| w.replace(ptr::null())))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        WORKER.with(|w| w.set(self.0));
    }
}

/// Calls `f` with the worker that this thread is.
#[inline]
pub(crate) fn with_worker<R>(f: impl FnOnce(Option<&Worker>) -> R) -> R {
    // A thread whose thread-locals are gone is no worker.
    let worker = WORKER.try_with(Cell::get).unwrap_or(ptr::null());
    // SAFETY: set by `Here::enter` to a worker that outlives the guard, and only for this thread.
    f(unsafe { worker.as_ref() })
}

/// Calls `f` with the worker that this thread is, if it is one of `shared` and holds a P.
#[inline]
pub(crate) fn with_worker_of<R>(shared: *const Shared, f: impl FnOnce(Option<&Worker>) -> R) -> R {
    with_worker(|worker| f(worker.filter(|w| w.is_of(shared) && w.has_proc())))
}

/// Whether this thread is one of that runtime's, whatever it does just now.
pub(crate) fn is_thread_of(shared: *const Shared) -> bool {
    HOME.try_with(Cell::get)
        .is_ok_and(|home| ptr::eq(home, shared))
}

/// Whether this thread has a P, which others would wait for.
pub(crate) fn holds_a_proc() -> bool {
    with_worker(|worker| worker.is_some_and(Worker::has_proc))
}

/// Whether this thread has a P of the runtime whose driver that is.
pub(crate) fn holds_a_proc_beside(driver: &Driver) -> bool {
    with_worker(|worker| {
        worker.is_some_and(|w| ptr::eq(&raw const *w.shared().driver, driver) && w.has_proc())
    })
}

/// The driver of the runtime that this thread works for, and the P whose timers are the nearest.
pub(crate) fn driver() -> Option<(Arc<Driver>, usize)> {
    #[cfg(test)]
    if let Some(given) = TEST_DRIVER.with_borrow(Clone::clone) {
        return Some(given);
    }
    with_worker(|worker| {
        let worker = worker?;
        let driver = worker.shared().driver.clone();
        Some((driver, worker.proc_index().unwrap_or(0)))
    })
}

/// Says why the G that is being polled on this thread is about to return `Pending`, and on what: the address of the
/// channel, lock or timer, 0 if it has none. Outside a G nothing happens. A few instructions.
#[inline]
pub(crate) fn note_wait(reason: WaitReason, on: usize) {
    with_worker(|worker| {
        if let Some(worker) = worker {
            worker.note_wait(reason, on);
        }
    });
}

/// Whether the G that is being polled has had its share and should make room: it has been woken, and its future is to
/// return `Pending`. Asked once by every operation that may succeed without waiting, before it does anything.
///
/// Never true outside a G, nor inside a blocking call; and in one poll of a G not more than a fixed number of times, so that
/// who polls in a loop is let through ([`Worker::is_to_make_room`]).
#[inline]
pub(crate) fn should_yield(cx: &mut Context<'_>) -> bool {
    let should = with_worker(|worker| worker.is_some_and(Worker::is_to_make_room));
    if should {
        make_room(cx);
    }
    should
}

#[cold]
fn make_room(cx: &mut Context<'_>) {
    note_wait(WaitReason::Yield, 0);
    cx.waker().wake_by_ref();
}

/// Takes the memory of a G back: for another one, if this thread is a worker.
pub(crate) fn give_memory(at: NonNull<u8>, layout: Layout) {
    with_worker(|worker| match worker {
        Some(worker) => worker.memory.give(at, layout),
        None => super::memory::release(at, layout),
    });
}

/// A random number, of a generator of this thread.
pub(crate) fn random() -> u64 {
    RANDOM.with(|state| {
        let mut x = state.get();
        if x == 0 {
            x = seed(state) | 1;
        }
        // Xorshift (Marsaglia 2003).
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x
    })
}

/// What the numbers of this thread begin with.
#[cfg(not(shuttle))]
fn seed(state: &Cell<u64>) -> u64 {
    (&raw const *state).addr() as u64
}

/// In a model, a part of the schedule.
#[cfg(shuttle)]
fn seed(_: &Cell<u64>) -> u64 {
    shuttle::rand::RngCore::next_u64(&mut shuttle::rand::thread_rng())
}
