//! Trust: random programs on one heap against a plain model, and the races that collectors lose objects by.
//!
//! `GREYWAVE_STRESS_SECONDS=60 cargo test --release --test stress` runs for about that long; `GREYWAVE_SEED` repeats a run.

use std::time::Duration;

#[path = "stress/directed.rs"]
mod directed;
#[path = "stress/graph.rs"]
mod graph;
#[path = "stress/nodes.rs"]
mod nodes;
#[path = "stress/support.rs"]
mod support;

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
