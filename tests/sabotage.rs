//! The tests of trust are worth something only if they fail when the collector is broken. Each
//! fault that can be put in must be caught, every time; without a fault the same programs pass.
//!
//! `cargo test --features sabotage --test sabotage -- --nocapture` prints which program catches
//! which fault, and how. Without the feature `sabotage` this file is empty.

#![cfg(feature = "sabotage")]

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use greywave::internals::{Fault, break_the_collector};

#[path = "stress/directed.rs"]
mod directed;
#[path = "stress/endings.rs"]
mod endings;
#[path = "support/foreign.rs"]
mod foreign;
#[path = "stress/graph.rs"]
mod graph;
#[path = "stress/lost.rs"]
mod lost;
#[path = "stress/nodes.rs"]
mod nodes;
#[path = "stress/pacing.rs"]
mod pacing;
#[path = "stress/scheduler.rs"]
mod scheduler;
#[path = "stress/spans.rs"]
mod spans;
#[path = "stress/stage.rs"]
mod stage;
#[path = "stress/staged.rs"]
mod staged;
#[path = "stress/support.rs"]
mod support;
#[path = "stress/two_heaps.rs"]
mod two_heaps;
#[path = "stress/waiting.rs"]
mod waiting;
#[path = "stress/walks.rs"]
mod walks;

use support::{PATIENCE, child_within, duration, is_child};

/// How often each fault must be caught.
const ROUNDS: usize = 3;
/// How often a round is tried. Where threads race, a program may meet the fault on one machine and
/// not on the next: what it missed is a column of the table. A protection that no program tests is
/// missed each time.
const TRIES: usize = 4;
/// What a program may take to catch a fault, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// What a timed program runs for when nothing is broken.
const SHORT: Duration = Duration::from_millis(700);

/// A test that runs against faults, and without: by name, and for about how long if it is timed.
type Program = (&'static str, fn(Duration));

macro_rules! plain {
    ($module:ident::$name:ident) => {
        (stringify!($name), |_| $module::$name())
    };
}

macro_rules! timed {
    ($module:ident::$name:ident $(, $seed:literal)?) => {
        (stringify!($name), |time| $module::$name(time $(, $seed)?))
    };
}

const PROGRAMS: &[Program] = &[
    plain!(staged::an_edge_is_cut_before_its_scan),
    plain!(staged::many_edges_are_cut_before_their_scan),
    plain!(staged::a_lock_is_emptied_before_its_scan),
    plain!(staged::a_thread_attaches_during_marking),
    plain!(staged::a_root_goes_before_its_scan),
    plain!(staged::all_roots_and_frames_are_scanned),
    plain!(staged::a_frame_is_opened_before_its_scan),
    plain!(staged::a_frame_goes_before_the_scan_of_another),
    plain!(staged::a_thread_holds_up_the_cycle_that_is_asked_for),
    plain!(staged::nobody_comes_back_in_a_stop),
    plain!(staged::no_g_touches_the_heap_in_a_stop),
    plain!(scheduler::an_aborted_g_undoes_what_it_did_in_the_heap),
    plain!(scheduler::a_deadlock_comes_as_the_monitor_falls_asleep),
    plain!(scheduler::the_last_timer_goes_outside),
    plain!(scheduler::a_wait_for_a_socket_begins_outside),
    plain!(scheduler::a_deadlock_is_told_to_who_is_in_it),
    plain!(scheduler::a_timer_of_another_runtime_ends_a_wait),
    plain!(endings::an_edge_is_cut_after_the_last_handshake),
    plain!(endings::an_upgrade_comes_as_marking_ends),
    plain!(endings::an_upgrade_comes_after_marking),
    plain!(endings::weak_references_know_the_dead),
    plain!(endings::the_dead_of_one_slot_are_told_apart),
    plain!(endings::workers_are_waited_for),
    plain!(endings::a_worker_comes_late),
    plain!(endings::a_worker_comes_late_to_a_stopped_world),
    timed!(endings::neighbours_are_marked_by_two_workers),
    plain!(endings::waiting_allocations_are_paid),
    plain!(endings::assists_give_back_what_they_do_not_finish),
    plain!(lost::what_a_leaked_mutator_gave_stays),
    plain!(lost::a_lost_mutator_is_counted),
    plain!(lost::a_thread_attaches_again_and_drops_roots_in_between),
    plain!(two_heaps::a_mutator_is_for_its_own_heap),
    plain!(two_heaps::a_mutator_knows_of_younger_heaps),
    plain!(two_heaps::a_frame_brings_no_foreign_object_into_a_section),
    plain!(two_heaps::another_heaps_writer_is_left_out),
    plain!(spans::slots_are_used_again),
    plain!(spans::counters_begin_anew),
    timed!(spans::threads_share_pages),
    plain!(spans::long_lists_are_scanned_to_the_end),
    plain!(spans::only_free_memory_goes_back),
    plain!(spans::lists_are_aligned),
    plain!(spans::lists_do_not_overlap),
    plain!(spans::a_large_object_in_the_middle_of_its_span),
    plain!(spans::the_dead_are_dropped_once),
    plain!(spans::external_bytes_add_up),
    plain!(spans::garbage_starts_cycles),
    plain!(waiting::a_select_whose_future_panics_leaves),
    plain!(waiting::a_waker_comes_back_to_its_mutex),
    plain!(waiting::selects_claim_in_order),
    plain!(pacing::buffers_of_the_dead_do_not_count),
    plain!(pacing::garbage_waits_for_a_late_thread),
    plain!(pacing::tries_under_a_lock_do_not_wait_for_its_waiters),
    plain!(walks::what_this_thread_writes_is_left_out),
    plain!(walks::threads_verify_in_the_middle_of_writes),
    plain!(walks::marks_are_verified_in_the_middle_of_writes),
    plain!(walks::roots_that_go_elsewhere_leave_no_slots_behind),
    timed!(directed::subtrees_change_places, 1),
    timed!(directed::new_objects_stay),
    timed!(directed::roots_go_after_a_get),
    timed!(directed::frames_open_during_marking, 1),
    timed!(directed::locks_pass_their_content_on, 1),
    timed!(directed::a_large_array_is_shuffled, 1),
    timed!(directed::late_edges_hold),
    ("random_graphs", |time| {
        graph::run(graph::Mode::Verified, time, 1)
    }),
];

/// Which program catches which fault.
const TABLE: &[(Fault, &str)] = &[
    (Fault::NoDeletionBarrier, "an_edge_is_cut_before_its_scan"),
    (Fault::BarrierAfterStore, "an_edge_is_cut_before_its_scan"),
    (Fault::LockNotLogged, "a_lock_is_emptied_before_its_scan"),
    (
        Fault::AttachedWithoutBarrier,
        "a_thread_attaches_during_marking",
    ),
    (
        Fault::FullBufferLost,
        "many_edges_are_cut_before_their_scan",
    ),
    (Fault::BufferNotFlushed, "an_edge_is_cut_before_its_scan"),
    (
        Fault::BufferLostAtHandshake,
        "an_edge_is_cut_before_its_scan",
    ),
    (
        Fault::BufferNotFlushedAtEnd,
        "an_edge_is_cut_after_the_last_handshake",
    ),
    (
        Fault::BufferLostAtDetach,
        "a_thread_attaches_during_marking",
    ),
    (Fault::ForeignUnchecked, "a_mutator_is_for_its_own_heap"),
    (Fault::SecondHeapUntold, "a_mutator_knows_of_younger_heaps"),
    (
        Fault::FrameOfForeign,
        "a_frame_brings_no_foreign_object_into_a_section",
    ),
    (Fault::ForeignWriterRead, "another_heaps_writer_is_left_out"),
    (Fault::RootsNotScanned, "all_roots_and_frames_are_scanned"),
    (Fault::RootBlockSkipped, "all_roots_and_frames_are_scanned"),
    (Fault::RootDroppedUnshaded, "a_root_goes_before_its_scan"),
    (Fault::RootReleasedAtOnce, "a_root_goes_before_its_scan"),
    (Fault::FrameNotScanned, "all_roots_and_frames_are_scanned"),
    (
        Fault::FrameOpenedUnscanned,
        "a_frame_is_opened_before_its_scan",
    ),
    (
        Fault::FrameUnlistedWhileMarking,
        "a_frame_goes_before_the_scan_of_another",
    ),
    (
        Fault::RootStockKept,
        "roots_that_go_elsewhere_leave_no_slots_behind",
    ),
    (
        Fault::OpenFrameRead,
        "marks_are_verified_in_the_middle_of_writes",
    ),
    (Fault::OpenFrameRead, "what_this_thread_writes_is_left_out"),
    (
        Fault::WrittenLockRead,
        "threads_verify_in_the_middle_of_writes",
    ),
    (
        Fault::WrittenLockRead,
        "what_this_thread_writes_is_left_out",
    ),
    (Fault::AllocateWhite, "an_edge_is_cut_before_its_scan"),
    (Fault::CursorStaysWhite, "an_edge_is_cut_before_its_scan"),
    (Fault::MarkNotAtomic, "neighbours_are_marked_by_two_workers"),
    (Fault::PieceLost, "long_lists_are_scanned_to_the_end"),
    (Fault::PieceRounded, "long_lists_are_scanned_to_the_end"),
    (
        Fault::NeighboursNotScanned,
        "assists_give_back_what_they_do_not_finish",
    ),
    (Fault::BatchLost, "subtrees_change_places"),
    (Fault::EndsOneWorkerEarly, "workers_are_waited_for"),
    (
        Fault::QueueNotSeenAtEnd,
        "an_edge_is_cut_after_the_last_handshake",
    ),
    (Fault::PoolClosedLate, "a_worker_comes_late"),
    (Fault::JoinedWithoutCycle, "a_worker_comes_late"),
    (Fault::StaleCycle, "a_worker_comes_late"),
    (
        Fault::EndNotAwaited,
        "a_worker_comes_late_to_a_stopped_world",
    ),
    (Fault::CycleZero, "counters_begin_anew"),
    (Fault::CreditLost, "waiting_allocations_are_paid"),
    (
        Fault::MutatorForgotten,
        "a_thread_holds_up_the_cycle_that_is_asked_for",
    ),
    (Fault::BlockedForgotten, "nobody_comes_back_in_a_stop"),
    (Fault::BlockedForgotten, "no_g_touches_the_heap_in_a_stop"),
    (Fault::HandshakeNotAwaited, "threads_share_pages"),
    (Fault::BlockedNotActedFor, "slots_are_used_again"),
    (
        Fault::CancelledOutsideItsG,
        "an_aborted_g_undoes_what_it_did_in_the_heap",
    ),
    (
        Fault::EventsSleptOver,
        "a_deadlock_comes_as_the_monitor_falls_asleep",
    ),
    (Fault::LastWaitGoesUnheard, "the_last_timer_goes_outside"),
    (
        Fault::OutsideWaitUnheard,
        "a_wait_for_a_socket_begins_outside",
    ),
    (Fault::BystandersTold, "a_deadlock_is_told_to_who_is_in_it"),
    (
        Fault::DriverCountsAsLine,
        "a_timer_of_another_runtime_ends_a_wait",
    ),
    (
        Fault::LostMutatorDetached,
        "what_a_leaked_mutator_gave_stays",
    ),
    (Fault::LossNotNoted, "a_lost_mutator_is_counted"),
    (
        Fault::CurrentLeftBehind,
        "a_thread_attaches_again_and_drops_roots_in_between",
    ),
    (Fault::CensusSkipped, "weak_references_know_the_dead"),
    (Fault::UpgradeUntold, "an_upgrade_comes_as_marking_ends"),
    (Fault::DeadUpgraded, "an_upgrade_comes_after_marking"),
    (Fault::WeakByAddress, "the_dead_of_one_slot_are_told_apart"),
    (Fault::SweptWhileCached, "slots_are_used_again"),
    (Fault::SweptLate, "slots_are_used_again"),
    (Fault::GenerationKept, "the_dead_are_dropped_once"),
    (Fault::GenerationBeginsAnew, "counters_begin_anew"),
    (Fault::StaleCacheKept, "threads_share_pages"),
    (Fault::MarksKept, "slots_are_used_again"),
    (Fault::ClaimNotExclusive, "threads_share_pages"),
    (
        Fault::LargeSweptByItsSpan,
        "a_large_object_in_the_middle_of_its_span",
    ),
    (Fault::DroppedTwice, "the_dead_are_dropped_once"),
    (Fault::ExternalBytesLost, "external_bytes_add_up"),
    (Fault::PageMapNotCleared, "slots_are_used_again"),
    (Fault::OnlyFirstPageMapped, "slots_are_used_again"),
    (Fault::CachedPagesStayFree, "threads_share_pages"),
    (Fault::UsedPageReleased, "only_free_memory_goes_back"),
    (Fault::AlignmentIgnored, "lists_are_aligned"),
    (Fault::SlotTooSmall, "lists_do_not_overlap"),
    (Fault::TriggerLost, "garbage_starts_cycles"),
    (
        Fault::CaseStaysInQueue,
        "a_select_whose_future_panics_leaves",
    ),
    (Fault::WokenUnderLock, "a_waker_comes_back_to_its_mutex"),
    (Fault::ClaimsOutOfOrder, "selects_claim_in_order"),
    (Fault::DeadExternalLives, "buffers_of_the_dead_do_not_count"),
    (Fault::StallEndsEarly, "garbage_waits_for_a_late_thread"),
    (
        Fault::RescueWithoutEnd,
        "tries_under_a_lock_do_not_wait_for_its_waiters",
    ),
];

/// Faults that other collectors know and this one cannot have, or has in another form.
const NOTES: &[&str] = &[
    "No insertion barrier: no mutator is grey, because roots and frames are scanned closed. What would be such a mutator \
     here: AttachedWithoutBarrier, FrameOpenedUnscanned, LockNotLogged, MutatorForgotten.",
    "A handshake that leaves the buffers alone costs time only, because the last stop looks at them too: so the buffer is \
     thrown away (BufferLostAtHandshake). The last stop is needed for what comes after a handshake (BufferNotFlushedAtEnd).",
    "A push after the exchange of a `swap` costs nothing while both are in one section and marking ends in a stop: so the \
     barrier reads the edge after the store (BarrierAfterStore).",
    "Edges and roots lead to the beginning of an object; the address inside one that the collector works with names a \
     piece of a long list (PieceRounded). A large object that is freed although an address in the middle of its span \
     leads to it: LargeSweptByItsSpan.",
    "MarkNotAtomic and ClaimNotExclusive are also seen by loom, under every interleaving: \
     loom_black_run_without_read_modify_write_fails, loom_claim_that_looks_and_stores_fails. Orders of memory that this \
     processor keeps by itself are seen by loom only.",
];

/// The body of the child processes: `fault/program`.
#[test]
fn broken_on_purpose() {
    for &(program, run) in PROGRAMS {
        for fault in Fault::ALL {
            if is_child(&format!("{fault:?}/{program}")) {
                // The first panic is the end, whatever a broken collector would do afterwards.
                let report = std::panic::take_hook();
                std::panic::set_hook(Box::new(move |info| {
                    report(info);
                    std::process::abort();
                }));
                break_the_collector(*fault);
                run(duration(LIMIT, 1.0));
                println!("nothing was found");
            }
        }
        if is_child(&format!("none/{program}")) {
            run(SHORT);
            println!("nothing was found");
        }
    }
}

/// What a broken program died of; `None` if it did not, or not of the fault.
fn verdict(status: Option<ExitStatus>, text: &str) -> Option<String> {
    if status?.success() || text.contains("nothing was found") {
        return None;
    }
    let mut lines = text.lines();
    let told = lines.find_map(|line| {
        if let Some(at) = line.find("greywave: fatal: ") {
            return Some(line[at + 17..].to_owned());
        }
        line.contains("panicked at")
            .then(|| format!("panic: {line}"))
    });
    let told = match told {
        Some(told) if told.starts_with("panic: ") => {
            format!("panic: {}", lines.next().unwrap_or_default())
        }
        Some(told) => told,
        None => format!("{}", status?),
    };
    Some(told.chars().take(110).collect())
}

/// How a fault was caught.
struct Caught {
    told: String,
    longest: Duration,
    misses: usize,
}

/// The fault is caught in every one of the rounds.
fn catch(fault: Fault, program: &str) -> Result<Caught, String> {
    let mut caught = Caught {
        told: String::new(),
        longest: Duration::ZERO,
        misses: 0,
    };
    for round in 0..ROUNDS {
        let mut tries = 0;
        loop {
            let start = Instant::now();
            let what = format!("{fault:?}/{program}");
            let (status, text) = child_within("broken_on_purpose", &what, PATIENCE);
            caught.longest = caught.longest.max(start.elapsed());
            if let Some(told) = verdict(status, &text) {
                caught.told = told;
                break;
            }
            caught.misses += 1;
            tries += 1;
            if tries == TRIES {
                return Err(format!("round {round}, {tries} tries, {status:?}: {text}"));
            }
        }
    }
    Ok(caught)
}

#[test]
fn every_fault_is_caught() {
    for fault in Fault::ALL {
        assert!(
            TABLE.iter().any(|row| row.0 == *fault),
            "{fault:?} is caught by nothing"
        );
    }
    let start = Instant::now();
    let mut missed = Vec::new();
    println!("| fault | caught by | misses | after (ms) | how |\n|---|---|---|---|---|");
    for (fault, program) in TABLE {
        match catch(*fault, program) {
            Ok(caught) => {
                let Caught {
                    told,
                    longest,
                    misses,
                } = caught;
                let ms = longest.as_millis();
                println!("| {fault:?} | {program} | {misses} | {ms} | {told} |");
            }
            Err(text) => {
                println!("| {fault:?} | NOT by {program} | | | |");
                missed.push(format!("{fault:?} was not caught by {program}: {text}"));
            }
        }
    }
    println!(
        "{} faults, {ROUNDS} rounds each, in {:?}",
        Fault::ALL.len(),
        start.elapsed()
    );
    NOTES.iter().for_each(|note| println!("- {note}"));
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn nothing_is_found_in_a_whole_collector() {
    for (program, _) in PROGRAMS {
        let (status, text) =
            child_within("broken_on_purpose", &format!("none/{program}"), PATIENCE);
        assert!(
            status.is_some_and(|s| s.success()) && text.contains("nothing was found"),
            "{program}, {status:?}: {text}"
        );
    }
}
