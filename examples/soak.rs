//! A soak test that runs everything at once, for as long as you like: threads that come and go, Gs,
//! runtimes whose width changes, channels, containers that grow and shrink, weak references, drops,
//! large objects, limits that change, other heaps, and sometimes the verifier.
//!
//! ```text
//! cargo run --release --example soak -- --minutes 60 --seed 1
//! ```
//!
//! Each party compares what it reads with a plain model of its own data. A ledger outside the heap
//! knows which nodes are alive, and that each was dropped once. Every part must make progress in
//! each minute. At the end nothing may be left.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use greywave::{Heap, HeapStats};

mod common;
#[path = "soak/director.rs"]
mod director;
#[path = "soak/gs.rs"]
mod gs;
#[path = "soak/objects.rs"]
mod objects;
#[path = "soak/party.rs"]
mod party;
#[path = "soak/shared.rs"]
mod shared;

use common::args::{self, Args, UsageError};
use common::report::{self, Bytes, Nanos, say};
use objects::LEDGER;
use party::Party;
use shared::{Kind, Shared, Tally};

const USAGE: &str = "usage: soak [--minutes N | --seconds N] [--seed S] [--threads N]
  --minutes N   how long, 1 to 10080 (default 1)
  --seconds N   the same in seconds, for a short look
  --seed S      of all that is random (default: from the clock, and printed)
  --threads N   threads with parties beside the Gs, 1 to 64 (default 3)";

/// How often a line is printed, and everything must have got on.
const LINE: Duration = Duration::from_secs(60);

/// How to run.
#[derive(Clone, Copy, Debug)]
struct Options {
    time: Duration,
    seed: u64,
    threads: usize,
}

fn main() -> ExitCode {
    args::main(USAGE, |args| {
        let options = parse(args)?;
        say(format_args!("seed {}", options.seed));
        soak(options)
    })
}

fn parse(mut args: Args) -> Result<Options, Box<dyn Error>> {
    let clock = std::time::UNIX_EPOCH.elapsed()?.subsec_nanos();
    let minutes = args.number("--minutes", 0, 1..=10_080)?;
    let seconds = args.number("--seconds", 0, 1..=604_800)?;
    let seconds = match (minutes, seconds) {
        (0, 0) => 60,
        (0, seconds) => seconds,
        (minutes, 0) => 60 * minutes,
        _ => return Err(UsageError::new("--minutes and --seconds exclude each other").into()),
    };
    let options = Options {
        time: Duration::from_secs(seconds),
        seed: args.number("--seed", u64::from(clock), 0..=u64::MAX)?,
        threads: args.number("--threads", 3, 1..=64)?,
    };
    args.words(0..=0)?;
    Ok(options)
}

fn soak(options: Options) -> Result<(), Box<dyn Error>> {
    let heap = Heap::builder().build()?;
    let shared = Arc::new(Shared::new(&heap, options.seed, options.time)?);
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..options.threads {
            let shared = &shared;
            scope.spawn(move || guarded(shared, "a thread", || live(shared, number)));
        }
        scope.spawn(|| guarded(&shared, "a runtime", || gs::run(&shared)));
        scope.spawn(|| guarded(&shared, "the director", || director::run(&shared)));
        watch(&shared, start);
    });
    let tally = shared.tally();
    if let Some(wrong) = shared.wrong() {
        return Err(format!("seed {}: {wrong}", options.seed).into());
    }
    end(&heap, shared)?;
    say(format_args!("in all: {tally}"));
    say(report::collector(&heap.stats()));
    say("nothing was lost, nothing is left");
    Ok(())
}

/// Runs `body`; its error, or its panic, ends the soak.
fn guarded(shared: &Shared, who: &str, body: impl FnOnce() -> Result<(), String>) {
    let body = std::panic::AssertUnwindSafe(body);
    match std::panic::catch_unwind(body) {
        Ok(Ok(())) => {}
        Ok(Err(what)) => shared.fail(what),
        Err(_) => shared.fail(format!("{who} panicked")),
    }
}

/// Threads one after another: each is a party for a second or two. Its roots and its frame are
/// dropped here, where no mutator is.
fn live(shared: &Arc<Shared>, number: usize) -> Result<(), String> {
    while !shared.is_over() {
        let shared = shared.clone();
        let one = thread::Builder::new().name(format!("party {number}"));
        let one = one.spawn(move || {
            let mut m = shared.heap.attach().map_err(|error| error.to_string())?;
            let mut party = Party::new(&m, &shared);
            let until = Instant::now() + Duration::from_millis(500 + party.rng.below(2_000) as u64);
            while !shared.is_over() && Instant::now() < until {
                for _ in 0..100 {
                    party.step(&m)?;
                    m.safepoint();
                }
                shared.count(Kind::Threads, 100);
                match party.rng.below(200) {
                    0 => m.blocking(|| thread::sleep(Duration::from_millis(1))),
                    1 => {
                        // Away, and here again.
                        drop(m);
                        m = shared.heap.attach().map_err(|error| error.to_string())?;
                    }
                    2 => m.collect(),
                    _ => {}
                }
            }
            party.check_all(&m)?;
            Ok::<_, String>(party)
        });
        let one = one.map_err(|error| error.to_string())?;
        drop(one.join().map_err(|_| "a party panicked".to_owned())??);
    }
    Ok(())
}

/// Prints a line a minute; a kind that has done nothing in it ends the soak.
fn watch(shared: &Shared, start: Instant) {
    let (mut before, mut printed) = (Tally::default(), start);
    while !shared.is_over() {
        shared.sleep(Duration::from_secs(1));
        if LEDGER.wrong().is_some() {
            shared.fail("the ledger is wrong".to_owned());
        }
        if printed.elapsed() >= LINE {
            printed = Instant::now();
            let now = shared.tally();
            say(line(start, &now.since(&before), &shared.heap.stats()));
            if let Some(kind) = now.stuck_since(&before) {
                shared.fail(format!("no {kind} in a minute"));
            }
            before = now;
        }
    }
}

fn line(start: Instant, tally: &Tally, stats: &HeapStats) -> String {
    format!(
        "{:4.0} min  heap {} of {}, {} nodes, {} cycles, longest stop {}, memory {}\n          {tally}",
        start.elapsed().as_secs_f64() / 60.0,
        Bytes(stats.heap_bytes),
        Bytes(stats.goal_bytes),
        LEDGER.alive(),
        stats.cycles,
        Nanos(stats.pauses.max_ns),
        report::memory(report::rss()),
    )
}

/// Everybody has gone: nothing may be alive.
fn end(heap: &Heap, shared: Arc<Shared>) -> Result<(), Box<dyn Error>> {
    heap.verify()?;
    drop(shared);
    heap.collect();
    heap.collect();
    heap.verify()?;
    let (nodes, live) = (LEDGER.alive(), heap.stats().live_bytes);
    if nodes != 0 || live != 0 {
        return Err(format!("{nodes} nodes and {} are left", Bytes(live)).into());
    }
    if let Some(wrong) = LEDGER.wrong() {
        return Err(wrong.into());
    }
    Ok(())
}
