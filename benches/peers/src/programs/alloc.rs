//! Short-lived objects: nanoseconds per allocation, over a given time.
//!
//! An object's address is stored once, and it is never used again: a collected peer leaves it as
//! garbage, a counted one and malloc free it at once.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::measure::{Error, Report};
use crate::peers;

/// Allocations between two safepoints, or what a peer has in their place.
pub const BATCH: u64 = 1000;

/// Batches between two looks at the clock.
const BATCHES_A_CLOCK: u64 = 64;

/// A memory manager that can run this program.
///
/// An object is `W` words of data, or a pointer (null) and `K` words.
pub trait Alloc {
    /// What the threads share, such as the heap.
    type Shared: Sync;

    /// Makes what is shared.
    fn shared() -> Self::Shared;

    /// One thread's allocations of objects without a pointer.
    fn noscan<const W: usize>(shared: &Self::Shared, run: &mut Run);

    /// One thread's allocations of objects whose first word is a pointer.
    fn scan<const K: usize>(shared: &Self::Shared, run: &mut Run);
}

/// The data of an object: its number, and zeros.
pub fn words<const W: usize>(number: u64) -> [u64; W] {
    let mut words = [0; W];
    words[0] = number;
    words
}

/// One thread's clock and count.
#[derive(Debug)]
pub struct Run {
    limit: Duration,
    start: Instant,
    batches: u64,
    took: Duration,
}

impl Run {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            start: Instant::now(),
            batches: 0,
            took: Duration::ZERO,
        }
    }

    /// True while another batch of [`BATCH`] allocations is wanted.
    #[inline]
    pub fn more(&mut self) -> bool {
        if self.batches.is_multiple_of(BATCHES_A_CLOCK) && !self.in_time() {
            return false;
        }
        self.batches += 1;
        true
    }

    #[cold]
    fn in_time(&mut self) -> bool {
        if self.batches == 0 {
            self.start = Instant::now(); // whatever the thread set up first is not counted
        }
        self.took = self.start.elapsed();
        self.took < self.limit
    }
}

/// The program.
pub fn run(
    peer: &str,
    size: &str,
    kind: &str,
    threads: &str,
    seconds: &str,
) -> Result<Report, Error> {
    match peer {
        "greywave" => on::<peers::grey::Plain>(size, kind, threads, seconds),
        "greywave-cell" => on::<peers::grey::IntoCell>(size, kind, threads, seconds),
        "gc-arena" => on::<peers::gc_arena::Peer>(size, kind, threads, seconds),
        "dumpster" => on::<peers::dumpster_sync::Peer>(size, kind, threads, seconds),
        "gc" => on::<peers::rust_gc::Peer>(size, kind, threads, seconds),
        "boa_gc" => on::<peers::boa::Peer>(size, kind, threads, seconds),
        "box" => on::<peers::boxed::Peer>(size, kind, threads, seconds),
        "arc" => on::<peers::arc::Peer>(size, kind, threads, seconds),
        _ => Err(format!("{peer} has no alloc program").into()),
    }
}

fn on<P: Alloc>(size: &str, kind: &str, threads: &str, seconds: &str) -> Result<Report, Error> {
    let body: fn(&P::Shared, &mut Run) = match (size, kind) {
        ("16", "noscan") => P::noscan::<2>,
        ("32", "noscan") => P::noscan::<4>,
        ("64", "noscan") => P::noscan::<8>,
        ("256", "noscan") => P::noscan::<32>,
        ("16", "scan") => P::scan::<1>,
        ("32", "scan") => P::scan::<3>,
        ("64", "scan") => P::scan::<7>,
        ("256", "scan") => P::scan::<31>,
        _ => return Err("a size is 16, 32, 64 or 256, a kind noscan or scan".into()),
    };
    let threads: usize = threads.parse()?;
    let limit = Duration::from_secs_f64(seconds.parse()?);

    let shared = P::shared();
    let together = Barrier::new(threads);
    let runs: Vec<Run> = thread::scope(|scope| {
        let spawn = || {
            scope.spawn(|| {
                let mut run = Run::new(limit);
                together.wait();
                body(&shared, &mut run);
                run
            })
        };
        let started: Vec<_> = (0..threads).map(|_| spawn()).collect();
        started
            .into_iter()
            .map(|thread| thread.join().expect("a worker panicked"))
            .collect()
    });
    let nanos: u128 = runs.iter().map(|run| run.took.as_nanos()).sum();
    let count: u64 = runs.iter().map(|run| run.batches * BATCH).sum();
    Ok(Report::nanos(nanos as f64 / count as f64))
}
