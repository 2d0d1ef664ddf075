//! The tests of trust are worth something only if they fail when the collector is broken: each fault that can be put in
//! must be caught, every time, and without a fault the same tests pass.
//!
//! Needs the feature `sabotage`; without it there is nothing here.

#![cfg(feature = "sabotage")]

use std::time::Duration;

use greywave::internals::{Fault, break_the_collector};

#[path = "stress/directed.rs"]
mod directed;
#[path = "stress/support.rs"]
mod support;

use support::{child, is_child, text};

const ROUNDS: usize = 5;

/// The directed tests that a fault runs against, in a child process. A fault ends them when it is found, mostly in the
/// first cycle; the time is for a busy machine.
fn programs(name: &str, broken: bool) {
    let short = Duration::from_millis(if broken { 20_000 } else { 1500 });
    match name {
        "exchange" => directed::subtrees_change_places(short, 1),
        "new" => directed::new_objects_stay(short),
        "roots" => directed::roots_go_after_a_get(short),
        _ => panic!("no program {name}"),
    }
}

/// The body of the child processes.
#[test]
fn broken_on_purpose() {
    for (fault_name, fault) in [
        ("none", None),
        ("barrier", Some(Fault::NoDeletionBarrier)),
        ("roots", Some(Fault::RootsNotScanned)),
        ("buffer", Some(Fault::BufferNotFlushed)),
        ("white", Some(Fault::AllocateWhite)),
    ] {
        for program in ["exchange", "new", "roots"] {
            if is_child(&format!("{fault_name}/{program}")) {
                if let Some(fault) = fault {
                    break_the_collector(fault);
                }
                programs(program, fault.is_some());
                println!("nothing was found");
            }
        }
    }
}

/// The fault is caught in every one of the rounds; prints by what.
fn is_caught(fault: &str, program: &str) {
    for round in 0..ROUNDS {
        let output = child("broken_on_purpose", &format!("{fault}/{program}"), &[]);
        let text = text(&output);
        let told = text
            .lines()
            .find_map(|l| l.find("greywave: fatal: verify").map(|at| &l[at..]));
        assert!(
            !output.status.success() && told.is_some(),
            "round {round}: {fault} was not caught by {program}:\n{text}"
        );
        println!(
            "{fault}, {program}, round {round}: {}",
            told.unwrap_or_default()
        );
    }
}

#[test]
fn nothing_is_found_in_a_whole_collector() {
    for program in ["exchange", "new", "roots"] {
        let output = child("broken_on_purpose", &format!("none/{program}"), &[]);
        assert!(
            output.status.success() && text(&output).contains("nothing was found"),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn a_missing_deletion_barrier_is_caught() {
    is_caught("barrier", "exchange");
}

#[test]
fn roots_that_are_not_scanned_are_caught() {
    is_caught("roots", "exchange");
    is_caught("roots", "new");
}

#[test]
fn a_buffer_that_is_not_flushed_is_caught() {
    is_caught("buffer", "exchange");
}

#[test]
fn white_allocation_during_marking_is_caught() {
    is_caught("white", "new");
}
