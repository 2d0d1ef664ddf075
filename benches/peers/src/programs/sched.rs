//! What a scheduler costs: starting tasks, handing values from one to another, taking turns, and
//! the memory and the latency that waiting and busy ones cost. Each program is written once, over
//! [`Sched`]; the Go side is `go/sched.go`.

use std::future::Future;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::measure::{Error, Report, Times, resident_kib};
use crate::peers::{grey_sched::Greywave, tokio};

/// A runtime with channels.
pub trait Sched: 'static {
    /// What is awaited for the result of a task.
    type Handle<T: Send + 'static>: Send;
    /// One end of a channel.
    type Sender<T: Send + 'static>: Clone + Send + Sync + 'static;
    /// The other end.
    type Receiver<T: Send + 'static>: Send + 'static;
    /// What many tasks wait at until it is opened.
    type Gate: Clone + Send + Sync + 'static;

    /// Whether a channel may have no buffer.
    const UNBUFFERED: bool;

    /// Runs `main` as a task on so many workers.
    fn run<F>(workers: usize, main: F) -> Result<F::Output, Error>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Starts a task.
    fn spawn<F>(future: F) -> Self::Handle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Waits for its end.
    fn join<T: Send + 'static>(handle: Self::Handle<T>) -> impl Future<Output = T> + Send;

    /// A channel with room for so many.
    fn channel<T: Send + 'static>(room: usize) -> (Self::Sender<T>, Self::Receiver<T>);

    /// Sends to a channel that is not closed.
    fn send<T: Send + 'static>(
        to: &Self::Sender<T>,
        value: T,
    ) -> impl Future<Output = ()> + Send;

    /// Receives; none when all senders are gone.
    fn recv<T: Send + 'static>(
        from: &mut Self::Receiver<T>,
    ) -> impl Future<Output = Option<T>> + Send;

    /// Lets the others run.
    fn yield_now() -> impl Future<Output = ()> + Send;

    /// Waits so long.
    fn sleep(time: Duration) -> impl Future<Output = ()> + Send;

    /// A closed gate.
    fn gate() -> Self::Gate;

    /// Waits until it is open.
    fn pass(gate: Self::Gate) -> impl Future<Output = ()> + Send;

    /// Lets everyone pass who waits.
    fn open(gate: Self::Gate);

    /// Collects the whole heap so often and says how long the stops of the world were; none where
    /// there is no collector.
    fn collect(rounds: usize) -> impl Future<Output = Option<Stops>> + Send;
}

/// Stops of the world.
#[derive(Clone, Copy, Debug)]
pub struct Stops {
    /// The median.
    pub p50: Duration,
    /// The longest.
    pub max: Duration,
}

/// The program: peer, what to do, workers, how many.
pub fn run(peer: &str, case: &str, workers: &str, counts: &[&str]) -> Result<Report, Error> {
    let workers = workers.parse()?;
    let counts = counts
        .iter()
        .map(|count| count.parse())
        .collect::<Result<Vec<usize>, _>>()?;
    match peer {
        "greywave" => on::<Greywave>(case, workers, &counts),
        "tokio" => on::<tokio::Tokio<tokio::Mpsc>>(case, workers, &counts),
        "tokio-async-channel" if is_about_channels(case) => {
            on::<tokio::Tokio<tokio::AsyncChannel>>(case, workers, &counts)
        }
        _ => Err(format!("{peer} has no such program").into()),
    }
}

/// Whether a second kind of channel makes a difference.
fn is_about_channels(case: &str) -> bool {
    ["pingpong", "ring", "chan", "skynet"].contains(&case)
}

fn on<S: Sched>(case: &str, workers: usize, counts: &[usize]) -> Result<Report, Error> {
    match (case, counts) {
        ("spawn", &[count]) => S::run(workers, spawn_all::<S>(count))?,
        ("spawn-each", &[count]) => S::run(workers, spawn_each::<S>(count))?,
        ("pingpong", &[room, count]) => S::run(workers, ping_pong::<S>(room, count))?,
        ("ring", &[room, tasks, count]) => S::run(workers, ring::<S>(room, tasks, count))?,
        ("chan", &[room, count]) => S::run(workers, one_to_one::<S>(room, count))?,
        ("skynet", &[leaves]) => S::run(workers, skynet::<S>(leaves))?,
        ("yield", &[tasks, count]) => S::run(workers, take_turns::<S>(tasks, count))?,
        ("idle", &[tasks]) => S::run(workers, idle::<S>(tasks))?,
        ("stops", &[tasks, rounds]) => S::run(workers, stops::<S>(tasks, rounds))?,
        ("hog", &[hogs, millis]) => S::run(workers, hog::<S>(hogs, millis))?,
        _ => Err("no such case".into()),
    }
}

/// Each of `count`, from the start.
fn each(start: Instant, count: usize) -> Report {
    Report::nanos(start.elapsed().as_nanos() as f64 / count as f64)
}

fn expect<T: PartialEq + std::fmt::Display>(what: &str, is: T, expected: T) -> Result<(), Error> {
    if is == expected {
        Ok(())
    } else {
        Err(format!("{what}: {is}, not {expected}").into())
    }
}

/// The sum of the numbers below `count`.
fn sum_below(count: usize) -> usize {
    count * (count - 1) / 2
}

/// Starts all, then joins all.
async fn spawn_all<S: Sched>(count: usize) -> Result<Report, Error> {
    let start = Instant::now();
    let handles: Vec<_> = (0..count)
        .map(|number| S::spawn(async move { black_box(number) }))
        .collect();
    let mut sum = 0;
    for handle in handles {
        sum += S::join(handle).await;
    }
    let report = each(start, count);
    expect("the sum of what they return", sum, sum_below(count))?;
    Ok(report)
}

/// Starts and joins, one after another.
async fn spawn_each<S: Sched>(count: usize) -> Result<Report, Error> {
    let start = Instant::now();
    let mut sum = 0;
    for number in 0..count {
        sum += S::join(S::spawn(async move { black_box(number) })).await;
    }
    let report = each(start, count);
    expect("the sum of what they return", sum, sum_below(count))?;
    Ok(report)
}

/// A channel with the least room that there is, if `room` is 0.
fn channel<S: Sched, T: Send + 'static>(room: usize) -> (S::Sender<T>, S::Receiver<T>) {
    S::channel(if S::UNBUFFERED { room } else { room.max(1) })
}

/// Two tasks, two channels: each of `count` is there and back.
async fn ping_pong<S: Sched>(room: usize, count: usize) -> Result<Report, Error> {
    let (ping, mut pinged) = channel::<S, usize>(room);
    let (pong, mut ponged) = channel::<S, usize>(room);
    let other = S::spawn(async move {
        while let Some(number) = S::recv(&mut pinged).await {
            S::send(&pong, number + 1).await;
        }
    });
    let start = Instant::now();
    let mut number = 0;
    for _ in 0..count {
        S::send(&ping, number).await;
        number = S::recv(&mut ponged).await.unwrap_or(usize::MAX);
    }
    let report = each(start, count);
    drop(ping);
    S::join(other).await;
    expect("rounds", number, count)?;
    Ok(report)
}

/// A number goes round; each of `count` is a step from one task to the next.
async fn ring<S: Sched>(room: usize, tasks: usize, count: usize) -> Result<Report, Error> {
    let (first, mut before) = channel::<S, usize>(room);
    let mut handles = Vec::new();
    for _ in 1..tasks {
        let (to, from) = channel::<S, usize>(room);
        let mut mine = std::mem::replace(&mut before, from);
        handles.push(S::spawn(async move {
            while let Some(number) = S::recv(&mut mine).await {
                S::send(&to, number + 1).await;
            }
        }));
    }
    let rounds = count / tasks;
    let start = Instant::now();
    let mut number = 0;
    for _ in 0..rounds {
        S::send(&first, number + 1).await;
        number = S::recv(&mut before).await.unwrap_or(usize::MAX);
    }
    let report = each(start, rounds * tasks);
    drop(first);
    for handle in handles {
        S::join(handle).await;
    }
    expect("steps", number, rounds * tasks)?;
    Ok(report)
}

/// One task sends, another receives.
async fn one_to_one<S: Sched>(room: usize, count: usize) -> Result<Report, Error> {
    let (to, mut from) = channel::<S, usize>(room);
    let start = Instant::now();
    let sender = S::spawn(async move {
        for number in 0..count {
            S::send(&to, number).await;
        }
    });
    let mut sum = 0;
    while let Some(number) = S::recv(&mut from).await {
        sum += number;
    }
    let report = each(start, count);
    S::join(sender).await;
    expect("the sum of what came", sum, sum_below(count))?;
    Ok(report)
}

/// Each task starts ten, down to so many leaves, and adds up what they send.
async fn skynet<S: Sched>(leaves: usize) -> Result<Report, Error> {
    let (to, mut from) = channel::<S, usize>(1);
    let start = Instant::now();
    drop(S::spawn(skynet_node::<S>(to, 0, leaves)));
    let sum = S::recv(&mut from).await.unwrap_or(usize::MAX);
    let report = Report::millis(start.elapsed(), String::new());
    expect("the sum of the leaves", sum, sum_below(leaves))?;
    Ok(report)
}

/// A box, because a future cannot contain itself.
fn skynet_node<S: Sched>(
    to: S::Sender<usize>,
    number: usize,
    leaves: usize,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let mut sum = number;
        if leaves > 1 {
            let (child_to, mut from) = channel::<S, usize>(10);
            for i in 0..10 {
                let below = leaves / 10;
                let child = skynet_node::<S>(child_to.clone(), number + i * below, below);
                drop(S::spawn(child));
            }
            sum = 0;
            for _ in 0..10 {
                sum += S::recv(&mut from).await.unwrap_or(usize::MAX / 20);
            }
        }
        S::send(&to, sum).await;
    })
}

/// So many tasks yield, `count` times in all.
async fn take_turns<S: Sched>(tasks: usize, count: usize) -> Result<Report, Error> {
    let turns = count / tasks;
    let start = Instant::now();
    let handles: Vec<_> = (0..tasks)
        .map(|_| {
            S::spawn(async move {
                let mut done = 0;
                for _ in 0..turns {
                    S::yield_now().await;
                    done = black_box(done + 1);
                }
                done
            })
        })
        .collect();
    let mut sum = 0;
    for handle in handles {
        sum += S::join(handle).await;
    }
    let report = each(start, turns * tasks);
    expect("turns", sum, turns * tasks)?;
    Ok(report)
}

/// Tasks that wait at a gate.
struct Waiting<S: Sched> {
    gate: S::Gate,
    ended: Arc<AtomicUsize>,
    tasks: usize,
}

impl<S: Sched> Waiting<S> {
    /// Starts them, and comes back when each of them waits.
    async fn start(tasks: usize) -> Self {
        let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = S::gate();
        for _ in 0..tasks {
            let (begun, ended, gate) = (begun.clone(), ended.clone(), gate.clone());
            drop(S::spawn(async move {
                begun.fetch_add(1, Ordering::Relaxed);
                S::pass(gate).await;
                ended.fetch_add(1, Ordering::Relaxed);
            }));
        }
        until::<S>(&begun, tasks).await;
        Self { gate, ended, tasks }
    }

    /// Lets them go, and comes back when they have ended.
    async fn end(self) {
        S::open(self.gate);
        until::<S>(&self.ended, self.tasks).await;
    }
}

/// Waits until a count is reached, and a little longer.
async fn until<S: Sched>(count: &AtomicUsize, wanted: usize) {
    while count.load(Ordering::Relaxed) < wanted {
        S::sleep(Duration::from_millis(1)).await;
    }
    S::sleep(Duration::from_millis(50)).await;
}

/// Resident memory for each task that waits.
async fn idle<S: Sched>(tasks: usize) -> Result<Report, Error> {
    let before = resident_kib();
    let start = Instant::now();
    let waiting = Waiting::<S>::start(tasks).await;
    let (after, begun) = (resident_kib(), start.elapsed());
    waiting.end().await;
    let notes = format!(
        "start={:.3}ms all={:.3}ms",
        begun.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3
    );
    let bytes = (after as f64 - before as f64) * 1024.0;
    Ok(Report::bytes(bytes / tasks as f64, notes))
}

/// The longest stop of whole collections, while tasks wait.
async fn stops<S: Sched>(tasks: usize, rounds: usize) -> Result<Report, Error> {
    let waiting = Waiting::<S>::start(tasks).await;
    let start = Instant::now();
    let stops = S::collect(rounds).await;
    let whole = start.elapsed() / rounds as u32;
    waiting.end().await;
    let Stops { p50, max } = stops.ok_or("this runtime has no collector")?;
    Ok(Report::longest(p50, max, whole))
}

/// How late a timer of a millisecond is at p99, while tasks compute without a pause.
async fn hog<S: Sched>(hogs: usize, millis: usize) -> Result<Report, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let handles: Vec<_> = (0..hogs)
        .map(|_| {
            let stop = stop.clone();
            let end = Instant::now() + Duration::from_millis(millis as u64);
            S::spawn(async move {
                let mut work = 1_u64;
                while !stop.load(Ordering::Relaxed) && Instant::now() < end {
                    for _ in 0..1000 {
                        work = black_box(work.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    }
                }
            })
        })
        .collect();
    let (tick, total) = (Duration::from_millis(1), Duration::from_millis(millis as u64));
    let start = Instant::now();
    let mut late = Times::new();
    while start.elapsed() < total {
        let begin = Instant::now();
        S::sleep(tick).await;
        late.record(begin.elapsed().saturating_sub(tick));
    }
    stop.store(true, Ordering::Relaxed);
    for handle in handles {
        S::join(handle).await;
    }
    Ok(Report::late(&late))
}
