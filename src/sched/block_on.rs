//! A thread outside waits for a G.

use std::future::Future;
use std::panic::{Location, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::sched::context::Elsewhere;
use crate::sched::report::Deadlock;
use crate::sched::shared::Shared;
use crate::sys::lock::Unranked;
use crate::sys::sync::{AtomicUsize, Ordering};

/// A thread in `block_on`.
#[derive(Debug)]
pub(crate) struct Main {
    thread: Thread,
    /// The address of its G; 0 until that is known.
    g: AtomicUsize,
    deadlock: Unranked<Option<Deadlock>>,
}

impl Main {
    /// The address of its G, which does not end before this thread is off the list; 0 if that is not known yet.
    pub(crate) fn g(&self) -> usize {
        // Relaxed: an address to compare. Who finds 0 looks again.
        self.g.load(Ordering::Relaxed)
    }

    /// Ends its wait with this.
    pub(crate) fn tell(&self, deadlock: Deadlock) {
        *self.deadlock.lock() = Some(deadlock);
        self.thread.unpark();
    }
}

impl Wake for Main {
    fn wake(self: Arc<Self>) {
        self.thread.unpark();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.thread.unpark();
    }
}

/// Off the list of those who wait, whatever happens.
struct Listed<'a>(&'a Shared, Arc<Main>);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.mains.lock().retain(|m| !Arc::ptr_eq(m, &self.1));
    }
}

impl Shared {
    /// Runs `future` as a G until it has ended.
    pub(crate) fn block_on<F>(
        self: &Arc<Self>,
        future: F,
        called_at: &'static Location<'static>,
    ) -> Result<F::Output, Deadlock>
    where
        F: Future + Send,
        F::Output: Send,
    {
        let _elsewhere = Elsewhere::enter();
        let mut output = None;
        let result = {
            let place = &mut output;
            self.wait_for(
                async move {
                    *place = Some(future.await);
                },
                called_at,
            )
        };
        result.map(|()| output.unwrap_or_else(ended_without_output))
    }

    fn wait_for<F>(
        self: &Arc<Self>,
        future: F,
        called_at: &'static Location<'static>,
    ) -> Result<(), Deadlock>
    where
        F: Future<Output = ()> + Send,
    {
        let main = Arc::new(Main {
            thread: std::thread::current(),
            g: AtomicUsize::new(0),
            deadlock: Unranked::new(None),
        });
        self.mains.lock().push(main.clone());
        let _listed = Listed(self, main.clone());
        let waker = Waker::from(main.clone());
        let mut cx = Context::from_waker(&waker);
        let boxed: Pin<Box<dyn Future<Output = ()> + Send + '_>> = Box::pin(future);
        // SAFETY: 1. this function does not return, and does not unwind, before the G has ended, and a G that has ended has
        // dropped its future.
        let handle = unsafe { self.spawn(boxed, Some("main".to_owned()), called_at) };
        // Relaxed: as in `g`.
        main.g.store(handle.address(), Ordering::Relaxed);
        let mut handle = pin!(handle);
        let mut deadlock = None;
        loop {
            if let Poll::Ready(result) = handle.as_mut().poll(&mut cx) {
                return match (result, deadlock) {
                    (_, Some(deadlock)) => Err(deadlock),
                    (Ok(()), None) => Ok(()),
                    (Err(error), None) => match error.into_panic() {
                        Some(panic) => resume_unwind(panic),
                        None => Ok(()), // shut down
                    },
                };
            }
            if deadlock.is_none() {
                deadlock = main.deadlock.lock().take();
                if deadlock.is_some() {
                    handle.abort();
                    continue;
                }
            }
            std::thread::park();
        }
    }
}

#[cold]
#[allow(clippy::panic, reason = "documented at `Runtime::block_on`")]
fn ended_without_output<T>() -> T {
    panic!("the runtime was shut down while block_on was waiting")
}
