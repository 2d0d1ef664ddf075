//! The same programs on several memory managers, with one process for each measurement.
//!
//! [`programs`] defines what is measured, and drives the threads and the clock. Each file of
//! [`peers`] writes the programs for one memory manager. The Go side is in `go/`. `run.sh` builds
//! everything, runs it in turn, and prints the table.

#![allow(
    dead_code,
    reason = "what an object holds beside its pointers only takes room"
)]

use std::process::ExitCode;

pub mod measure;
pub mod peers;
pub mod programs;

const USAGE: &str = "usage:
  alloc PEER 16|32|64|256 noscan|scan THREADS SECONDS
  trees PEER DEPTH WORKERS
  mark PEER random|random-roots|tree|chain|chain-random OBJECTS ROUNDS
  heapgraph PEER RAW_FILE ROUNDS
  ring PEER MESSAGES INSERTS
  sched PEER spawn|spawn-each|skynet WORKERS TASKS
  sched PEER pingpong|chan WORKERS ROOM COUNT
  sched PEER ring WORKERS ROOM TASKS STEPS
  sched PEER yield WORKERS TASKS COUNT
  sched PEER idle WORKERS TASKS
  sched PEER stops WORKERS TASKS COLLECTIONS
  sched PEER hog WORKERS HOGS MILLIS";

/// Runs the program that the command line names and prints one line: value, unit, peak resident
/// memory in KiB, notes.
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let report = match args[..] {
        ["alloc", peer, size, kind, threads, seconds] => {
            programs::alloc::run(peer, size, kind, threads, seconds)
        }
        ["trees", peer, depth, workers] => programs::trees::run(peer, depth, workers),
        ["mark", peer, shape, objects, rounds] => programs::mark::run(peer, shape, objects, rounds),
        ["heapgraph", peer, file, rounds] => programs::heap_graph::run(peer, file, rounds),
        ["ring", peer, messages, inserts] => programs::ring::run(peer, messages, inserts),
        ["sched", peer, case, workers, ref counts @ ..] => {
            programs::sched::run(peer, case, workers, counts)
        }
        _ => Err("no such program".into()),
    };
    match report {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
