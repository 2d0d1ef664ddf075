//! Wakers of a foreign executor. A test decides what they do when they are cloned, woken or
//! dropped.

#![allow(dead_code, reason = "each test uses a part")]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

/// A future whose output nobody wants.
pub(crate) type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a waker is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Clone,
    Wake,
    Drop,
}

/// What it does then, once.
pub(crate) type Act = Box<dyn FnOnce() + Send>;

/// See the module's head. It lives for ever, so that its wakers are pointers to it.
#[derive(Default)]
pub(crate) struct Foreign {
    acts: [Mutex<Option<Act>>; 3],
    done: AtomicUsize,
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |at| {
        reached(at, Part::Clone);
        RawWaker::new(at, &VTABLE)
    },
    |at| reached(at, Part::Wake),
    |at| reached(at, Part::Wake),
    |at| reached(at, Part::Drop),
);

fn reached(at: *const (), part: Part) {
    // SAFETY: `Foreign::new` has leaked it.
    let foreign = unsafe { &*at.cast::<Foreign>() };
    let act = foreign.acts[part as usize].lock().unwrap().take();
    if let Some(act) = act {
        foreign.done.fetch_add(1, Ordering::SeqCst);
        act();
    }
}

impl Foreign {
    pub(crate) fn new() -> (&'static Self, Waker) {
        let foreign: &'static Self = Box::leak(Box::default());
        let at: *const Self = foreign;
        // SAFETY: the pointer is to something that lives for ever and is shared.
        (foreign, unsafe { Waker::new(at.cast(), &VTABLE) })
    }

    /// From now on that part of it does `act`, once.
    pub(crate) fn on(&self, part: Part, act: Act) {
        *self.acts[part as usize].lock().unwrap() = Some(act);
    }

    /// How many acts were done.
    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }
}

/// Polls once. None: the poll has panicked.
pub(crate) fn poll_with(wait: &mut Wait, waker: &Waker) -> Option<Poll<()>> {
    let poll = || wait.as_mut().poll(&mut Context::from_waker(waker));
    catch_unwind(AssertUnwindSafe(poll)).ok()
}
