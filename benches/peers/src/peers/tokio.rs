//! tokio: its runtime of many threads, with its own channels or those of `async-channel`.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::measure::Error;
use crate::programs::sched::{Sched, Stops};

/// The runtime, and which channels its tasks use.
#[derive(Debug)]
pub struct Tokio<C>(PhantomData<C>);

/// Channels, which always have a buffer.
pub trait Channels: fmt::Debug + 'static {
    /// Sends.
    type Sender<T: Send + 'static>: Clone + Send + Sync + 'static;
    /// Receives.
    type Receiver<T: Send + 'static>: Send + 'static;
    /// A channel with room for so many.
    fn channel<T: Send + 'static>(room: usize) -> (Self::Sender<T>, Self::Receiver<T>);
    /// Sends to a channel that is not closed.
    fn send<T: Send + 'static>(to: &Self::Sender<T>, value: T) -> impl Future<Output = ()> + Send;
    /// Receives; none when all senders are gone.
    fn recv<T: Send + 'static>(
        from: &mut Self::Receiver<T>,
    ) -> impl Future<Output = Option<T>> + Send;
}

/// `tokio::sync::mpsc`.
#[derive(Debug)]
pub struct Mpsc;

impl Channels for Mpsc {
    type Sender<T: Send + 'static> = mpsc::Sender<T>;
    type Receiver<T: Send + 'static> = mpsc::Receiver<T>;

    fn channel<T: Send + 'static>(room: usize) -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
        mpsc::channel(room)
    }

    async fn send<T: Send + 'static>(to: &mpsc::Sender<T>, value: T) {
        assert!(to.send(value).await.is_ok(), "somebody receives");
    }

    async fn recv<T: Send + 'static>(from: &mut mpsc::Receiver<T>) -> Option<T> {
        from.recv().await
    }
}

/// `async_channel::bounded`.
#[derive(Debug)]
pub struct AsyncChannel;

impl Channels for AsyncChannel {
    type Sender<T: Send + 'static> = async_channel::Sender<T>;
    type Receiver<T: Send + 'static> = async_channel::Receiver<T>;

    fn channel<T: Send + 'static>(
        room: usize,
    ) -> (async_channel::Sender<T>, async_channel::Receiver<T>) {
        async_channel::bounded(room)
    }

    async fn send<T: Send + 'static>(to: &async_channel::Sender<T>, value: T) {
        assert!(to.send(value).await.is_ok(), "somebody receives");
    }

    async fn recv<T: Send + 'static>(from: &mut async_channel::Receiver<T>) -> Option<T> {
        from.recv().await.ok()
    }
}

impl<C: Channels> Sched for Tokio<C> {
    type Handle<T: Send + 'static> = JoinHandle<T>;
    type Sender<T: Send + 'static> = C::Sender<T>;
    type Receiver<T: Send + 'static> = C::Receiver<T>;
    type Gate = Arc<Semaphore>;

    const UNBUFFERED: bool = false;

    fn run<F>(workers: usize, main: F) -> Result<F::Output, Error>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(workers).enable_time().build()?;
        // As a task on a worker: `block_on` runs its own future on the calling thread, which
        // everything that it waits for would have to wake.
        Ok(runtime.block_on(async { tokio::spawn(main).await })?)
    }

    fn spawn<F>(future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(future)
    }

    async fn join<T: Send + 'static>(handle: JoinHandle<T>) -> T {
        handle.await.expect("the task does not panic")
    }

    fn channel<T: Send + 'static>(room: usize) -> (C::Sender<T>, C::Receiver<T>) {
        C::channel(room)
    }

    fn send<T: Send + 'static>(to: &C::Sender<T>, value: T) -> impl Future<Output = ()> + Send {
        C::send(to, value)
    }

    fn recv<T: Send + 'static>(
        from: &mut C::Receiver<T>,
    ) -> impl Future<Output = Option<T>> + Send {
        C::recv(from)
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }

    fn gate() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(0))
    }

    async fn pass(gate: Arc<Semaphore>) {
        // It is never given a permit; when it is closed, everybody gets an error.
        assert!(gate.acquire().await.is_err(), "there is no permit");
    }

    fn open(gate: Arc<Semaphore>) {
        gate.close();
    }

    async fn collect(_: usize) -> Option<Stops> {
        None
    }
}
