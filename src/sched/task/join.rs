//! The handle of a G: its result, its end.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::sched::context;
use crate::sched::shared::Shared;
use crate::sched::task::GRef;
use crate::sched::task::state::Wake;
use crate::sched::wait::WaitReason;
use crate::sched::wakers::KeptWaker;

/// The result of a G, to be awaited; dropping it lets the G go on by itself.
///
/// Awaiting gives the future's output, or a [`JoinError`] if it panicked or was aborted. May be awaited anywhere, by a G or
/// by any other executor.
///
/// # Panics
/// When it is polled again after it has given the result.
///
/// # Examples
/// ```
/// use greywave::{Heap, Runtime, go};
///
/// let rt = Runtime::builder(&Heap::new()).procs(2).build()?;
/// let sum = rt.block_on(async {
///     let parts: Vec<_> = (0..10).map(|i| go(async move { i * i })).collect();
///     let mut sum = 0;
///     for part in parts {
///         sum += part.await.expect("no panic");
///     }
///     sum
/// })?;
/// assert_eq!(sum, 285);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct JoinHandle<T> {
    g: GRef,
    output: PhantomData<fn() -> T>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(g: GRef) -> Self {
        Self {
            g,
            output: PhantomData,
        }
    }

    /// The address of the G, which is its alone while a handle is there.
    pub(crate) fn address(&self) -> usize {
        self.g.as_ptr().as_ptr().addr()
    }

    /// Has the G dropped at its next await instead of polled; awaiting the handle gives an error then. A G that is being
    /// polled ends at its next `.await` that waits. O(1).
    pub fn abort(&self) {
        abort(&self.g);
    }

    /// Whether the G has ended. O(1).
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.g.header().state.is_done()
    }
}

/// See [`JoinHandle::abort`].
pub(crate) fn abort(g: &GRef) {
    if g.header().state.abort() == Wake::Queue {
        // SAFETY: the abort has added a reference for the queue.
        Shared::schedule(unsafe { GRef::from_raw(g.as_ptr()) });
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if context::should_yield(cx) {
            return Poll::Pending;
        }
        let header = self.g.header();
        if !header.state.is_done() {
            let is_same = || {
                header.joiner.with(|joiner| {
                    // SAFETY: the handle writes it, nobody else.
                    unsafe { &*joiner }
                        .as_ref()
                        .is_some_and(|w| w.will_wake(cx.waker()))
                })
            };
            let waits = if header.state.has_joiner() && is_same() {
                true
            } else if header.state.has_joiner() && !header.state.clear_joiner() {
                false // it has ended
            } else {
                let waker = KeptWaker::of(cx.waker());
                header.joiner.with_mut(|joiner| {
                    // SAFETY: HAS_JOINER is clear: the place is the handle's.
                    unsafe { *joiner = Some(waker) };
                });
                header.state.set_joiner()
            };
            if waits {
                context::note_wait(WaitReason::Join, self.address());
                return Poll::Pending;
            }
        }
        let mut output: Option<Self::Output> = None;
        // SAFETY: DONE is set, the handle is the one that takes, and `output` is of its type.
        unsafe { (header.vtable.take_output)(self.g.as_ptr(), (&raw mut output).cast()) };
        match output {
            Some(output) => Poll::Ready(output),
            None => panic!("a JoinHandle was polled after it had given its result"),
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let header = self.g.header();
        if header.state.leave() {
            // SAFETY: DONE is set, and the handle has the output.
            unsafe { (header.vtable.drop_output)(self.g.as_ptr()) };
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("g", &self.g).finish()
    }
}

// SAFETY: the handle moves a `T` out, to whichever thread awaits it.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: by shared reference it only asks for the G's state.
unsafe impl<T: Send> Sync for JoinHandle<T> {}

/// Why a G has no result.
pub struct JoinError(Why);

enum Why {
    Cancelled,
    Panicked(Box<dyn Any + Send>),
}

// SAFETY: by shared reference nothing but a `str` inside the payload can be seen.
unsafe impl Sync for JoinError {}

impl JoinError {
    pub(crate) fn cancelled() -> Self {
        Self(Why::Cancelled)
    }

    pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self(Why::Panicked(payload))
    }

    /// Whether it was aborted, or dropped by a runtime that ended.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0, Why::Cancelled)
    }

    /// Whether it panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Why::Panicked(_))
    }

    /// What it panicked with, for `std::panic::resume_unwind`; `None` if it was aborted.
    #[must_use]
    pub fn into_panic(self) -> Option<Box<dyn Any + Send>> {
        match self.0 {
            Why::Panicked(payload) => Some(payload),
            Why::Cancelled => None,
        }
    }

    fn message(&self) -> Option<&str> {
        let Why::Panicked(payload) = &self.0 else {
            return None;
        };
        let text = payload.downcast_ref::<&str>().copied();
        text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0, self.message()) {
            (Why::Cancelled, _) => f.write_str("JoinError::Cancelled"),
            (_, Some(message)) => write!(f, "JoinError::Panicked({message:?})"),
            (_, None) => f.write_str("JoinError::Panicked"),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0, self.message()) {
            (Why::Cancelled, _) => f.write_str("the G was aborted"),
            (_, Some(message)) => write!(f, "the G panicked: {message}"),
            (_, None) => f.write_str("the G panicked"),
        }
    }
}

impl std::error::Error for JoinError {}
