//! Making room on purpose.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::sched::context;
use crate::sched::wait::WaitReason;

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited"]
pub struct Yield {
    has_yielded: bool,
}

/// Lets the other Gs that are ready run first. The G goes to the end of its P's queue.
///
/// # Examples
/// ```
/// use greywave::{Heap, Runtime, yield_now};
///
/// let rt = Runtime::builder(&Heap::new()).procs(1).build()?;
/// rt.block_on(async {
///     for _ in 0..3 {
///         yield_now().await;
///     }
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn yield_now() -> Yield {
    Yield { has_yielded: false }
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_yielded {
            return Poll::Ready(());
        }
        self.has_yielded = true;
        context::note_wait(WaitReason::Yield, 0);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
