//! Blocking calls: the M goes into the call, the P stays behind for somebody else.
//!
//! If there is work for the P it is handed on at once. Otherwise it is left Blocked: the M takes it back when a short call
//! ends, or the monitor gives it away (Go runtime, `entersyscall`, `handoffp`, `exitsyscall` of `proc.go`).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::sched::context;
use crate::sched::proc::{Proc, Status};
use crate::sched::shared::Shared;
use crate::sched::wait::WaitReason;
use crate::sched::wakers::{Fresh, KeptWaker, with_clone_if_needed};
use crate::sched::worker::Worker;
use crate::sys::lock::Brief;
use crate::sys::sync::Ordering;

/// Gs that wait for a thread, because there are as many as there may be. First in, first out: by ticket.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeMap<u64, Option<KeptWaker>>,
    last_ticket: u64,
}

/// What somebody in the line is told.
#[derive(Debug)]
enum Answer {
    /// There is room.
    Room,
    /// It waits, with this ticket.
    Waits(u64),
}

impl Line {
    /// Waits with the ticket that it has, or a new one. None: that needs a clone of its waker.
    fn wait(&mut self, ticket: Option<u64>, fresh: &mut Fresh<'_>) -> Option<Answer> {
        if let Some(ticket) = ticket
            && let Some(waker) = self.waiting.get_mut(&ticket)
        {
            return fresh.put_into(waker).then_some(Answer::Waits(ticket));
        }
        let mut waker = None;
        if !fresh.put_into(&mut waker) {
            return None;
        }
        // One that was called and came too late keeps its place before the others.
        let ticket = ticket.unwrap_or_else(|| {
            self.last_ticket += 1;
            self.last_ticket
        });
        self.waiting.insert(ticket, waker);
        Some(Answer::Waits(ticket))
    }
}

/// See [`Line`].
#[derive(Debug)]
pub(crate) struct CallQueue(Brief<Line>);

impl CallQueue {
    pub(crate) fn new() -> Self {
        Self(Brief::new(Line::default()))
    }

    /// Waits, with the ticket that it has or a new one, unless `reserve` finds room: `None`. Under the lock, so that a call
    /// that ends meanwhile either leaves its room to `reserve` or wakes who waits.
    fn wait_unless(
        &self,
        ticket: Option<u64>,
        cx: &Context<'_>,
        mut reserve: impl FnMut() -> bool,
    ) -> Option<u64> {
        // It may have come by itself, and still be in the line.
        let mut stale = None;
        let answer = with_clone_if_needed(cx.waker(), |fresh| {
            let mut line = self.0.lock();
            if reserve() {
                stale = ticket.and_then(|ticket| line.waiting.remove(&ticket));
                return Some(Answer::Room);
            }
            line.wait(ticket, fresh)
        });
        drop(stale);
        match answer {
            Answer::Room => None,
            Answer::Waits(ticket) => Some(ticket),
        }
    }

    /// Whoever has the ticket waits no more; if it had been called already, the next one is.
    fn leave(&self, ticket: u64) {
        let waker = self.0.lock().waiting.remove(&ticket);
        if waker.is_none() {
            self.wake_one();
        }
    }

    fn wake_one(&self) {
        let first = self.0.lock().waiting.pop_first();
        if let Some((_, Some(waker))) = first {
            waker.wake();
        }
    }
}

/// A worker inside a blocking call; dropping it is the way out, also for a panic.
///
/// Calls may be inside each other: what a call runs may go into a section of the heap, and block there. Only the outermost
/// gives a P away and takes one back, so a thread in a call never has one.
pub(crate) struct InCall<'a> {
    worker: &'a Worker,
    /// The P that was left Blocked.
    left: Option<usize>,
}

impl Worker {
    /// Gives the P away, as the module's head says. The call has been counted.
    pub(crate) fn enter_call(&self) -> InCall<'_> {
        self.forget_the_ended();
        self.calls.set(self.calls.get() + 1);
        self.note_in_call(true);
        let shared = self.shared();
        let left = self.let_go().filter(|&index| {
            let proc = &shared.procs[index];
            Proc::count(&proc.calls);
            // A hint; the monitor looks again.
            let has_work = !proc.queue.is_empty() || shared.roster.queued() > 0;
            if has_work {
                shared.start(index, false);
            } else {
                proc.set(Status::Blocked);
            }
            !has_work
        });
        InCall { worker: self, left }
    }
}

impl Drop for InCall<'_> {
    fn drop(&mut self) {
        let shared = self.worker.shared();
        // Relaxed: a count.
        shared.in_calls.fetch_sub(1, Ordering::Relaxed);
        let depth = self.worker.calls.get() - 1;
        self.worker.calls.set(depth);
        if depth > 0 {
            return shared.calls.wake_one();
        }
        self.worker.note_in_call(false);
        let back = self
            .left
            .filter(|&index| shared.procs[index].take_from_call())
            .or_else(|| shared.take_idle_proc());
        if let Some(index) = back {
            self.worker.take_over(index, false);
        }
        shared.calls.wake_one();
    }
}

/// The future of [`blocking`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited"]
pub struct Blocking<F, R> {
    call: Option<F>,
    result: Option<R>,
    /// Where it waits for a thread.
    waits: Option<(Arc<Shared>, u64)>,
}

// No part of it is pinned.
impl<F, R> Unpin for Blocking<F, R> {}

/// Runs `call`, which may wait for anything, without keeping other Gs from running.
///
/// It runs on this thread, in place; another thread goes on with the other Gs meanwhile. At most
/// [`max_threads`](crate::RuntimeBuilder::max_threads) threads exist; when as many calls are going on, the next one waits
/// for one to end. Outside a runtime it is a plain call. A panic of `call` comes out of the await.
///
/// # Examples
/// ```
/// use greywave::{Heap, Runtime, blocking};
///
/// let rt = Runtime::builder(&Heap::new()).procs(1).build()?;
/// let text = rt.block_on(async { blocking(|| std::fs::read_to_string("Cargo.toml")).await })?;
/// assert!(text?.contains("greywave"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn blocking<F, R>(call: F) -> Blocking<F, R>
where
    F: FnOnce() -> R,
{
    Blocking {
        call: Some(call),
        result: None,
        waits: None,
    }
}

impl<F: FnOnce() -> R, R> Future for Blocking<F, R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        if let Some(result) = self.result.take() {
            return Poll::Ready(result);
        }
        if context::should_yield(cx) {
            return Poll::Pending;
        }
        context::with_worker(|worker| {
            let Some(worker) = worker.filter(|w| w.has_proc()) else {
                let result = run(self.call.take());
                return Poll::Ready(result);
            };
            let shared = worker.shared();
            let ticket = self.waits.as_ref().map(|(_, ticket)| *ticket);
            let reserve = || shared.reserve_call();
            if let Some(ticket) = shared.calls.wait_unless(ticket, cx, reserve) {
                self.waits = Some((shared.clone(), ticket));
                context::note_wait(WaitReason::Thread, 0);
                return Poll::Pending;
            }
            self.waits = None;
            let in_call = worker.enter_call();
            let result = run(self.call.take());
            drop(in_call);
            if worker.has_proc() {
                return Poll::Ready(result);
            }
            // No P is free: this G waits for its turn, and the M goes to sleep.
            self.result = Some(result);
            context::note_wait(WaitReason::Blocking, 0);
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }
}

impl<F, R> Drop for Blocking<F, R> {
    fn drop(&mut self) {
        if let Some((shared, ticket)) = self.waits.take() {
            shared.calls.leave(ticket);
        }
    }
}

/// Runs `call` inside a section: the P goes on without this M meanwhile, with another mutator. The drop of `back` is the
/// way back into the section. It may wait for the end of a stop, so it comes before the M takes a P again, which would wait
/// with it; if no P is free then, the section ends without one.
pub(crate) fn without_proc<R>(call: impl FnOnce() -> R, back: impl Sized) -> R {
    /// Fields are dropped in this order, after a panic, too.
    struct WayBack<'a, B> {
        _back: B,
        _in_call: Option<InCall<'a>>,
    }
    context::with_worker(|worker| {
        let in_call = worker.map(|worker| {
            // Whether there is room or not: a section cannot wait for it.
            // Relaxed: a count.
            worker.shared().in_calls.fetch_add(1, Ordering::Relaxed);
            worker.enter_call()
        });
        let _way_back = WayBack {
            _back: back,
            _in_call: in_call,
        };
        call()
    })
}

fn run<F: FnOnce() -> R, R>(call: Option<F>) -> R {
    match call {
        Some(call) => call(),
        None => panic!("a blocking call was polled after its end"),
    }
}
