//! Binary trees: wall time of the well-known allocation benchmark, with its work split evenly
//! between the workers.

use std::thread;
use std::time::Instant;

use crate::measure::{Error, Report};
use crate::peers;

/// A memory manager that can run this program.
pub trait Trees {
    /// What the threads share, such as the heap.
    type Shared: Sync;

    /// Makes what is shared.
    fn shared() -> Self::Shared;

    /// Builds a tree of depth `depth + 1`, counts and drops it; builds one of depth `depth` and
    /// keeps it while `during` runs (which waits for other threads), then counts it as well.
    /// Gives the sum of the two counts.
    fn long_lived(shared: &Self::Shared, depth: u32, during: impl FnOnce() + Send) -> u64;

    /// Builds and counts one tree after another, of each depth that `jobs` gives.
    fn worker(shared: &Self::Shared, jobs: impl Iterator<Item = u32>) -> u64;
}

/// The program.
pub fn run(peer: &str, depth: &str, workers: &str) -> Result<Report, Error> {
    match peer {
        "greywave" => on::<peers::grey::Plain>(depth, workers),
        "gc-arena" => on::<peers::gc_arena::Peer>(depth, workers),
        "dumpster" => on::<peers::dumpster_sync::Peer>(depth, workers),
        "gc" => on::<peers::rust_gc::Peer>(depth, workers),
        "boa_gc" => on::<peers::boa::Peer>(depth, workers),
        "box" => on::<peers::boxed::Peer>(depth, workers),
        "arc" => on::<peers::arc::Peer>(depth, workers),
        _ => Err(format!("{peer} has no trees program").into()),
    }
}

fn on<P: Trees>(depth: &str, workers: &str) -> Result<Report, Error> {
    let max_depth: u32 = depth.parse()?;
    let workers: usize = workers.parse()?;

    let start = Instant::now();
    let shared = P::shared();
    let mut check = 0;
    let sum = &mut check;
    let kept = P::long_lived(&shared, max_depth, || {
        thread::scope(|scope| {
            let shared = &shared;
            let started: Vec<_> = (0..workers)
                .map(|w| {
                    scope.spawn(move || {
                        let jobs = (4..=max_depth).step_by(2).flat_map(|depth| {
                            let iterations = 1_usize << (max_depth - depth + 4);
                            (w..iterations).step_by(workers).map(move |_| depth)
                        });
                        P::worker(shared, jobs)
                    })
                })
                .collect();
            *sum = started
                .into_iter()
                .map(|thread| thread.join().expect("a worker panicked"))
                .sum();
        });
    });
    let check = check + kept;
    Ok(Report::millis(start.elapsed(), format!("check={check}")))
}
