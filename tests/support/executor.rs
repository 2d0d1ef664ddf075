//! A small executor for tests of futures: threads, one queue, and hardly any fairness. A watchdog
//! ends a test that hangs.

#![allow(dead_code, reason = "each test uses a part")]

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use crate::patience::{PATIENCE, Watch};

/// Polls `future` on this thread until it is ready.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let watch = Watch::begin();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        watch.check("the output of a future");
        thread::park_timeout(PATIENCE);
    }
}

/// A waker that counts.
#[derive(Debug, Default)]
pub(crate) struct CountingWaker(AtomicUsize);

impl CountingWaker {
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let counter = Arc::new(Self::default());
        (counter.clone(), Waker::from(counter))
    }

    /// How often it was woken.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One poll, with a waker that does nothing.
pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// The output of a future that needs no waiting; None if it would have to wait.
pub(crate) fn now<F: Future>(future: F) -> Option<F::Output> {
    match poll_once(pin!(future)) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Lets others run.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    pool: Arc<Shared>,
    future: Mutex<Option<Boxed>>,
    queued: AtomicBool,
}

struct Shared {
    queue: Mutex<(VecDeque<Arc<Task>>, bool)>,
    work: Condvar,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            self.pool.queue.lock().unwrap().0.push_back(self.clone());
            self.pool.work.notify_one();
        }
    }
}

/// Threads that poll what [`go`](Self::go) is given.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::new((VecDeque::new(), false)),
            work: Condvar::new(),
        });
        let threads = (0..threads)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || work(&shared))
            })
            .collect();
        Self { shared, threads }
    }

    /// Runs `future` beside the others.
    pub(crate) fn go<F>(&self, future: F) -> Join<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let slot = Arc::new(Mutex::new((None, None::<Waker>)));
        let end = slot.clone();
        let body = async move {
            let output = Caught(Box::pin(future)).await;
            let waker = {
                let mut end = end.lock().unwrap();
                end.0 = Some(output);
                end.1.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        };
        let task = Arc::new(Task {
            pool: self.shared.clone(),
            future: Mutex::new(Some(Box::pin(body))),
            queued: AtomicBool::new(false),
        });
        Waker::from(task).wake();
        Join(slot)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue.lock().unwrap().1 = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        // Each without the lock: what a future holds may wake another when it is dropped.
        loop {
            let task = self.shared.queue.lock().unwrap().0.pop_front();
            match task {
                Some(task) => *task.future.lock().unwrap() = None,
                None => return,
            }
        }
    }
}

fn work(shared: &Shared) {
    loop {
        let task = {
            let mut queue = shared.queue.lock().unwrap();
            loop {
                if queue.1 {
                    return;
                }
                if let Some(task) = queue.0.pop_front() {
                    break task;
                }
                queue = shared.work.wait(queue).unwrap();
            }
        };
        task.queued.store(false, Ordering::SeqCst);
        let waker = Waker::from(task.clone());
        let mut future = task.future.lock().unwrap();
        if let Some(running) = future.as_mut()
            && running
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
        {
            *future = None;
        }
    }
}

type Outcome<T> = Result<T, Box<dyn Any + Send>>;

struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Future for Caught<F> {
    type Output = Outcome<F::Output>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

type Slot<T> = Arc<Mutex<(Option<Outcome<T>>, Option<Waker>)>>;

/// The end of a task; a panic in it comes out here.
pub(crate) struct Join<T>(Slot<T>);

impl<T> Future for Join<T> {
    type Output = T;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.lock().unwrap();
        match slot.0.take() {
            Some(Ok(output)) => Poll::Ready(output),
            Some(Err(panic)) => {
                drop(slot);
                resume_unwind(panic)
            }
            None => {
                slot.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Join<T> {
    /// Waits for it on this thread.
    pub(crate) fn wait(self) -> T {
        block_on(self)
    }
}
