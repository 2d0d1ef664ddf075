//! The allocation of a G, and what depends on the type of its future.

use std::alloc::{Layout, handle_alloc_error};
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use crate::sched::context;
use crate::sched::list::{Links, Next};
use crate::sched::memory;
use crate::sched::shared::Shared;
use crate::sched::task::join::{JoinError, JoinHandle};
use crate::sched::task::state::State;
use crate::sched::task::{GRef, Header, Vtable, waker};
use crate::sched::worker::Worker;
use crate::sys::quiet::{contain, drop_quietly};
use crate::sys::sync::{AtomicU64, UnsafeCell};

/// A future, then its output, then nothing.
enum Stage<F: Future> {
    Running(F),
    Ended(Result<F::Output, JoinError>),
    Gone,
}

/// See the module's head. [A5]
#[repr(C)]
pub(crate) struct Cell<F: Future> {
    header: Header,
    /// [A1] the runner's until DONE; then whoever has the output.
    stage: UnsafeCell<Stage<F>>,
}

/// Whose G it is, and what it is called.
pub(crate) struct Birth {
    /// From `Arc::as_ptr`: references are counted by it. [A6]
    pub(crate) shared: NonNull<Shared>,
    pub(crate) spawned_at: &'static Location<'static>,
    pub(crate) name: Option<Box<Box<str>>>,
    pub(crate) shard: u8,
    pub(crate) born_ms: u32,
}

/// Makes a G: the reference for the registry, the one for the queue, and the handle. Its memory is what an earlier one has left
/// with the worker that this thread is, or new.
#[inline]
pub(crate) fn new<F>(
    future: F,
    birth: Birth,
    here: Option<&Worker>,
) -> (GRef, GRef, JoinHandle<F::Output>)
where
    F: Future + Send,
    F::Output: Send,
{
    let cell = Cell {
        header: Header {
            state: State::new(),
            vtable: &Vtable {
                poll: poll::<F>,
                cancel: cancel::<F>,
                take_output: take_output::<F>,
                drop_output: drop_output::<F>,
                free: free::<F>,
            },
            shared: birth.shared,
            all: Links::new(),
            queue: Next::new(),
            spawned_at: birth.spawned_at,
            name: birth.name,
            note: AtomicU64::new(0),
            born_ms: birth.born_ms,
            noted: Header::nothing_noted(birth.shard),
            joiner: UnsafeCell::new(None),
        },
        stage: UnsafeCell::new(Stage::Running(future)),
    };
    let layout = Layout::new::<Cell<F>>();
    let memory = match here {
        Some(worker) => worker.memory.take(layout),
        None => memory::allocate(layout),
    };
    let Some(at) = memory else {
        handle_alloc_error(layout)
    };
    let at = at.cast::<Cell<F>>();
    // SAFETY: fresh memory of that layout.
    unsafe { at.write(cell) };
    let header = at.cast::<Header>();
    // SAFETY: a new state counts three references.
    let registered = unsafe { GRef::from_raw(header) };
    // SAFETY: the second.
    let queued = unsafe { GRef::from_raw(header) };
    // SAFETY: the third.
    let handle = JoinHandle::new(unsafe { GRef::from_raw(header) });
    (registered, queued, handle)
}

/// # Safety
/// 1. [A5] the header is a `Cell<F>`'s. 2. The caller has the stage for itself: it runs the G, or DONE is set and the
///    output is the caller's.
unsafe fn with_stage<F: Future, R>(
    header: NonNull<Header>,
    f: impl FnOnce(&mut Stage<F>) -> R,
) -> R {
    // SAFETY: clause 1: the cell is alive.
    let cell = unsafe { header.cast::<Cell<F>>().as_ref() };
    // SAFETY: clause 2.
    cell.stage.with_mut(|stage| f(unsafe { &mut *stage }))
}

/// Drops what is in the stage; a panic of a destructor is caught and told by the panic hook.
fn replace<F: Future>(stage: &mut Stage<F>, by: Stage<F>) -> Result<(), JoinError> {
    let old = &raw mut *stage;
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: valid; whatever happens, it is overwritten below without being dropped again.
        unsafe { old.drop_in_place() };
    }));
    // SAFETY: dropped above, even if that panicked half way.
    unsafe { old.write(by) };
    result.map_err(JoinError::panicked)
}

unsafe fn poll<F: Future>(header: NonNull<Header>) -> bool {
    // SAFETY: the runner has a reference, which it keeps meanwhile.
    let g = std::mem::ManuallyDrop::new(unsafe { GRef::from_raw(header) });
    let waker = waker::borrowed(&g);
    let mut cx = Context::from_waker(&waker);
    let poll = |stage: &mut Stage<F>| {
        let Stage::Running(future) = stage else {
            return true;
        };
        // SAFETY: the cell does not move until it is freed, and `replace` drops the future where it is.
        let future = unsafe { Pin::new_unchecked(future) };
        let output = match catch_unwind(AssertUnwindSafe(|| future.poll(&mut cx))) {
            Ok(Poll::Pending) => return false,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(JoinError::panicked(panic)),
        };
        let ended = match (output, replace(stage, Stage::Gone)) {
            (Ok(output), Err(panic)) => {
                drop_quietly(output);
                Err(panic)
            }
            (output, dropped) => {
                // [D2] the payload of a second panic.
                drop_quietly(dropped);
                output
            }
        };
        *stage = Stage::Ended(ended);
        true
    };
    // SAFETY: 1. by the vtable. 2. RUNNING is set.
    unsafe { with_stage::<F, _>(header, poll) }
}

unsafe fn cancel<F: Future>(header: NonNull<Header>) {
    let cancel = |stage: &mut Stage<F>| {
        let ended = match replace(stage, Stage::Gone) {
            Ok(()) => JoinError::cancelled(),
            Err(panic) => panic,
        };
        *stage = Stage::Ended(Err(ended));
    };
    // SAFETY: 1. by the vtable. 2. RUNNING is set.
    unsafe { with_stage::<F, _>(header, cancel) }
}

unsafe fn take_output<F: Future>(header: NonNull<Header>, to: *mut ()) {
    let take = |stage: &mut Stage<F>| match std::mem::replace(stage, Stage::Gone) {
        Stage::Ended(output) => Some(output),
        Stage::Running(_) | Stage::Gone => None,
    };
    // SAFETY: 1. by the vtable. 2. DONE is set, and the caller is the handle.
    let output = unsafe { with_stage::<F, _>(header, take) };
    // SAFETY: the handle's type is the future's output, and `to` is a place for it.
    unsafe {
        to.cast::<Option<Result<F::Output, JoinError>>>()
            .write(output)
    };
}

unsafe fn drop_output<F: Future>(header: NonNull<Header>) {
    // SAFETY: 1. by the vtable. 2. DONE is set, and the output is the caller's.
    unsafe {
        with_stage::<F, _>(header, |stage| {
            // [D2] the payload of a panic.
            drop_quietly(replace(stage, Stage::Gone));
        });
    }
}

unsafe fn free<F: Future>(header: NonNull<Header>) {
    let cell = header.cast::<Cell<F>>();
    // [D2] The waker of a handle that is gone goes with the cell, and it may be anybody's.
    // SAFETY: [A3] nobody else has a reference. The stage is Gone or Ended without a taker, the future is dropped.
    contain(|| unsafe { cell.drop_in_place() });
    context::give_memory(cell.cast(), Layout::new::<Cell<F>>());
}
