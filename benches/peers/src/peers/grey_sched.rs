//! greywave's scheduler and channels.

use std::future::Future;
use std::time::Duration;

use greywave::{Heap, JoinHandle, Receiver, Runtime, Sender};

use crate::measure::Error;
use crate::programs::sched::{Sched, Stops};

/// The scheduler as a user writes for it.
#[derive(Debug)]
pub struct Greywave;

/// A channel on which nothing is sent: all who receive go on when it is closed.
#[derive(Clone, Debug)]
pub struct Gate {
    open: Sender<()>,
    pass: Receiver<()>,
}

impl Sched for Greywave {
    type Handle<T: Send + 'static> = JoinHandle<T>;
    type Sender<T: Send + 'static> = Sender<T>;
    type Receiver<T: Send + 'static> = Receiver<T>;
    type Gate = Gate;

    const UNBUFFERED: bool = true;

    fn run<F>(workers: usize, main: F) -> Result<F::Output, Error>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let runtime = Runtime::builder(&Heap::new()).procs(workers).build()?;
        Ok(runtime.block_on(main)?)
    }

    fn spawn<F>(future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        greywave::go(future)
    }

    async fn join<T: Send + 'static>(handle: JoinHandle<T>) -> T {
        handle.await.expect("the task does not panic")
    }

    fn channel<T: Send + 'static>(room: usize) -> (Sender<T>, Receiver<T>) {
        greywave::chan(room)
    }

    async fn send<T: Send + 'static>(to: &Sender<T>, value: T) {
        assert!(to.send(value).await.is_ok(), "somebody receives");
    }

    fn recv<T: Send + 'static>(from: &mut Receiver<T>) -> impl Future<Output = Option<T>> + Send {
        from.recv()
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        greywave::yield_now()
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send {
        greywave::sleep(time)
    }

    fn gate() -> Gate {
        let (open, pass) = greywave::chan(0);
        Gate { open, pass }
    }

    async fn pass(gate: Gate) {
        // Its own sender must not keep the channel open.
        let Gate { open, pass } = gate;
        drop(open);
        assert!(pass.recv().await.is_none(), "nothing is sent");
    }

    fn open(gate: Gate) {
        drop(gate.open);
    }

    async fn collect(rounds: usize) -> Option<Stops> {
        let heap = greywave::with(|m| m.heap().clone());
        let pauses = greywave::blocking(move || {
            for _ in 0..rounds {
                heap.collect();
            }
            heap.stats().pauses
        });
        let pauses = pauses.await;
        Some(Stops {
            p50: Duration::from_nanos(pauses.p50_ns),
            max: Duration::from_nanos(pauses.max_ns),
        })
    }
}
