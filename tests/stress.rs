//! Tests of trust: random programs on one heap are compared with a plain model. The races by which
//! collectors lose objects are run at random, and step by step. `tests/sabotage.rs` runs the same
//! programs against a collector that is broken on purpose.
//!
//! `GREYWAVE_STRESS_SECONDS=60 cargo test --release --test stress` runs for about that long;
//! `GREYWAVE_SEED` repeats a run.

use std::time::Duration;

#[path = "stress/directed.rs"]
mod directed;
#[path = "stress/endings.rs"]
mod endings;
#[path = "stress/graph.rs"]
mod graph;
#[path = "stress/nodes.rs"]
mod nodes;
#[path = "stress/pacing.rs"]
mod pacing;
#[cfg(feature = "sched")]
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
#[path = "stress/walks.rs"]
mod walks;

use graph::Mode;
use support::{duration, seed};

/// What one directed test runs for.
fn short() -> Duration {
    duration(Duration::from_millis(700), 0.06)
}

#[test]
fn random_graphs_equal_their_model() {
    graph::run(Mode::Plain, duration(Duration::from_secs(2), 0.2), seed());
}

#[test]
fn random_graphs_equal_their_model_verified_and_poisoned() {
    graph::run(
        Mode::Verified,
        duration(Duration::from_secs(2), 0.2),
        seed(),
    );
}

#[test]
fn random_graphs_equal_their_model_with_a_cycle_at_every_safepoint() {
    graph::run(
        Mode::Stressed,
        duration(Duration::from_secs(2), 0.2),
        seed(),
    );
}

#[test]
fn subtrees_change_places_while_marked() {
    directed::subtrees_change_places(short(), seed());
}

#[test]
fn roots_go_right_after_a_get() {
    directed::roots_go_after_a_get(short());
}

#[test]
fn frames_open_for_the_first_time_during_marking() {
    directed::frames_open_during_marking(short(), seed());
}

#[test]
fn locks_pass_their_content_on_while_marked() {
    directed::locks_pass_their_content_on(short(), seed());
}

#[test]
fn a_large_array_is_shuffled_while_marked() {
    directed::a_large_array_is_shuffled(short(), seed());
}

#[test]
fn edges_that_are_written_once_hold() {
    directed::late_edges_hold(short());
}

#[test]
fn new_objects_stay() {
    directed::new_objects_stay(short());
}

#[test]
fn threads_share_pages() {
    spans::threads_share_pages(short());
}

#[test]
fn neighbours_are_marked_by_two_workers() {
    endings::neighbours_are_marked_by_two_workers(short());
}

/// Programs that take no time of their own.
macro_rules! played {
    ($($module:ident: $($name:ident)+;)+) => {
        $($(
            #[test]
            fn $name() {
                $module::$name();
            }
        )+)+
    };
}

played! {
    staged:
        an_edge_is_cut_before_its_scan
        many_edges_are_cut_before_their_scan
        a_lock_is_emptied_before_its_scan
        a_thread_attaches_during_marking
        a_root_goes_before_its_scan
        all_roots_and_frames_are_scanned
        a_frame_is_opened_before_its_scan
        a_frame_goes_before_the_scan_of_another
        a_thread_holds_up_the_cycle_that_is_asked_for
        nobody_comes_back_in_a_stop;
    endings:
        an_edge_is_cut_after_the_last_handshake
        an_upgrade_comes_as_marking_ends
        an_upgrade_comes_after_marking
        weak_references_know_the_dead
        the_dead_of_one_slot_are_told_apart
        workers_are_waited_for
        a_worker_comes_late
        a_worker_comes_late_to_a_stopped_world
        waiting_allocations_are_paid
        assists_give_back_what_they_do_not_finish;
    spans:
        slots_are_used_again
        long_lists_are_scanned_to_the_end
        only_free_memory_goes_back
        lists_are_aligned
        lists_do_not_overlap
        a_large_object_in_the_middle_of_its_span
        the_dead_are_dropped_once
        external_bytes_add_up
        garbage_starts_cycles;
    pacing:
        buffers_of_the_dead_do_not_count
        garbage_waits_for_a_late_thread
        tries_under_a_lock_do_not_wait_for_its_waiters;
    walks:
        what_this_thread_writes_is_left_out
        threads_verify_in_the_middle_of_writes
        marks_are_verified_in_the_middle_of_writes;
}

#[cfg(feature = "internals")]
#[test]
fn roots_that_go_elsewhere_leave_no_slots_behind() {
    walks::roots_that_go_elsewhere_leave_no_slots_behind();
}

#[cfg(feature = "internals")]
#[test]
fn counters_begin_anew() {
    spans::counters_begin_anew();
}

#[cfg(feature = "sched")]
#[test]
fn an_aborted_g_undoes_what_it_did_in_the_heap() {
    scheduler::an_aborted_g_undoes_what_it_did_in_the_heap();
}

#[cfg(feature = "sched")]
#[test]
fn a_deadlock_comes_as_the_monitor_falls_asleep() {
    scheduler::a_deadlock_comes_as_the_monitor_falls_asleep();
}

#[cfg(feature = "sched")]
#[test]
fn the_last_timer_goes_outside() {
    scheduler::the_last_timer_goes_outside();
}

#[cfg(feature = "sched")]
#[test]
fn a_wait_for_a_socket_begins_outside() {
    scheduler::a_wait_for_a_socket_begins_outside();
}

#[cfg(feature = "sched")]
#[test]
fn a_deadlock_is_told_to_who_is_in_it() {
    scheduler::a_deadlock_is_told_to_who_is_in_it();
}

#[cfg(feature = "sched")]
#[test]
fn a_timer_of_another_runtime_ends_a_wait() {
    scheduler::a_timer_of_another_runtime_ends_a_wait();
}

#[cfg(feature = "sched")]
#[test]
fn no_g_touches_the_heap_in_a_stop() {
    staged::no_g_touches_the_heap_in_a_stop();
}
