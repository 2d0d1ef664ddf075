//! A few threads that poll futures, and futures that are polled by hand.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

/// How long a test may wait for its tasks.
#[path = "../support/patience.rs"]
pub(crate) mod patience;

use patience::{PATIENCE, Watch};

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `future` on this thread; a watchdog ends what hangs.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let watch = Watch::begin();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        thread::park_timeout(PATIENCE);
        watch.check("the output of a future");
    }
}

type Future0 = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    future: Mutex<Option<Future0>>,
    is_queued: AtomicBool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<VecDeque<Arc<Task>>>,
    queued: Condvar,
    unfinished: AtomicUsize,
    panics: AtomicUsize,
    is_over: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            let shared = self.shared.clone();
            shared.queue.lock().unwrap().push_back(self);
            shared.queued.notify_one();
        }
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let mut queue = self.queue.lock().unwrap();
            let task = loop {
                if self.is_over.load(Ordering::Acquire) {
                    return;
                }
                match queue.pop_front() {
                    Some(task) => break task,
                    None => queue = self.queued.wait(queue).unwrap(),
                }
            };
            drop(queue);
            self.poll(&task);
        }
    }

    fn poll(&self, task: &Arc<Task>) {
        let mut future = task.future.lock().unwrap();
        task.is_queued.store(false, Ordering::Release);
        let Some(running) = future.as_mut() else {
            return;
        };
        let waker = Waker::from(task.clone());
        let mut cx = Context::from_waker(&waker);
        let poll = || running.as_mut().poll(&mut cx);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll));
        if matches!(outcome, Ok(Poll::Pending)) {
            return;
        }
        *future = None;
        self.panics
            .fetch_add(usize::from(outcome.is_err()), Ordering::Relaxed);
        self.unfinished.fetch_sub(1, Ordering::Release);
    }
}

/// Runs what is spawned on a few threads.
pub(crate) struct Executor {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Executor {
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let work = |_| {
            let shared = shared.clone();
            thread::spawn(move || shared.work())
        };
        let threads = (0..threads).map(work).collect();
        Self { shared, threads }
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.shared.unfinished.fetch_add(1, Ordering::Relaxed);
        let task = Arc::new(Task {
            future: Mutex::new(Some(Box::pin(future))),
            is_queued: AtomicBool::new(false),
            shared: self.shared.clone(),
        });
        task.wake();
    }

    /// Waits until all tasks have ended; none may have panicked.
    pub(crate) fn finish(self) {
        let watch = Watch::begin();
        while self.shared.unfinished.load(Ordering::Acquire) > 0 {
            let left = self.shared.unfinished.load(Ordering::Relaxed);
            watch.check(&format!("the end of {left} tasks"));
            thread::sleep(Duration::from_micros(200));
        }
        let panics = self.shared.panics.load(Ordering::Relaxed);
        assert_eq!(panics, 0, "tasks that panicked");
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        {
            let _queue = self.shared.queue.lock().unwrap();
            self.shared.is_over.store(true, Ordering::Release);
        }
        self.shared.queued.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.shared.queue.lock().unwrap().clear();
    }
}

#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A future that a test polls by hand, with a waker that counts.
pub(crate) struct ByHand<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    wakes: Arc<Count>,
}

impl<'a, T> ByHand<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self {
            future: Box::pin(future),
            wakes: Arc::default(),
        }
    }

    /// One that has begun to wait.
    pub(crate) fn waiting(future: impl Future<Output = T> + Send + 'a) -> Self {
        let mut by_hand = Self::new(future);
        assert!(by_hand.poll().is_none(), "it does not wait");
        by_hand
    }

    pub(crate) fn poll(&mut self) -> Option<T> {
        let waker = Waker::from(self.wakes.clone());
        let mut cx = Context::from_waker(&waker);
        match self.future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    /// Polls it for another task.
    pub(crate) fn poll_as(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        self.future.as_mut().poll(cx)
    }

    /// How often it was woken.
    pub(crate) fn wakes(&self) -> u32 {
        self.wakes.0.load(Ordering::Relaxed)
    }
}

/// Whoever polls this task comes back to it later.
pub(crate) async fn yield_now() {
    let mut has_yielded = false;
    std::future::poll_fn(|cx| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What `future` returns, or `None` if it was dropped because it was not ready in `polls` polls.
pub(crate) async fn give_up_after<F: Future>(polls: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        left = left.saturating_sub(1);
        if left == 0 {
            return Poll::Ready(None);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}
