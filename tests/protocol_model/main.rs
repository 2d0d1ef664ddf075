//! The protocol of a cycle, checked in every interleaving of a tiny heap.
//!
//! The model is written by hand after `src/gc` (`cycle`, `barrier`, `collector`, `weak`, `roots`),
//! and shares no code with the collector. It shows whether the protocol is right, and not whether
//! the code follows it. The loom models, the verifier and the stress tests check that.
//!
//! **What is modelled.** One cycle, from stop 1 to the end of the sweep. There are two mutators,
//! the collector's thread, one mark worker, and a thread without a mutator. Mutators load, store
//! with the deletion barrier, allocate (with a pointer in the new object), make and drop roots, and
//! upgrade a weak reference step by step. Their barrier buffers are handed over at any moment
//! (because a buffer of any size may be full), at the handshake and in stop 2. The worker scans
//! root slots and objects a field at a time. Mutators stop one by one, and lose their locals when
//! they stop.
//!
//! **The initial states.** Every heap that fits, every choice of roots, and every target of the
//! weak cell, as stop 1 leaves them. A cycle must end in such a state again, so what holds for one
//! cycle holds for all. The worker marks while marking runs, and at no other time: a worker that
//! marks is a member of the pool, and the decision that marking has ended closes the pool
//! (`gc/work.rs`; over two cycles: `loom_workers_over_two_cycles`, `shuttle_workers_over_cycles`).
//!
//! **What must hold.** No reachable object is swept, or condemned (unmarked when marking has
//! ended). The weak cell never names a freed object. What was unreachable at stop 1 is freed by the
//! end. Some thread can always go on.
//!
//! **What the search leaves out**, because it makes no difference:
//! - A mutator between two operations holds everything that it could have loaded since its last
//!   safepoint. A mutator that holds more can do more and keeps more alive, so the search misses no
//!   violation.
//! - Fields that nobody will ever read are null, and a buffer holds nothing that is marked.
//! - A store and its barrier are one step, except for the heap whose name says otherwise. The
//!   marker's read of a field and its mark are one step, too, if there is no weak reference that
//!   could see the difference.
//! - Two states are the same if renaming objects or mutators makes them equal.
//!
//! **What is not modelled:** the order of memory accesses (which loom covers), a second worker and
//! assists, how a stop is requested and answered (`gc/state_word.rs`), mutators that attach, detach
//! or block, frames, `GcLock`, slots of one span that share marks and sweep, new weak cells, drops.
//!
//! | heap | objects | fields | roots | states | with an object more |
//! |---|---|---|---|---|---|
//! | `stores_in_two_steps` | 2 | 1 | 2 | 247 542 | 32 610 876 |
//! | `three_objects` | 3 | 1 | 1 | 92 315 | 2 618 399 |
//! | `two_fields` | 2 | 2 | 1 | 38 240 | 7 052 524 |
//! | `foreign_drops` | 2 | 1 | 2 | 28 627 | 1 022 959 |
//! | `weak` | 2 | 1 | 1 | 605 438 | 36 843 301 |
//!
//! `GREYWAVE_MODEL_OBJECTS=1` adds an object to each heap (use `--release` and `--test-threads=1`;
//! a heap takes up to 3.5 GB and two minutes). A search looks at states on all processors. On one
//! processor 85 % of the time of `weak` is in that part; the distribution costs 8 % more processor
//! time than a search without it. With `--nocapture` the tests print the number of states, and the
//! negative controls print a shortest way to the violation.

mod collector;
mod explore;
mod model;
mod mutator;
mod state;

use explore::explore;
use model::{Change, Model};

/// Two objects of one field, two root slots, and no more.
const SMALL: Model = Model {
    objects: 2,
    fields: 1,
    roots: 2,
    weak: false,
    foreign_drops: false,
    split_stores: false,
    change: Change::Nothing,
};
/// The smallest heap in which a weak reference matters.
const WEAK: Model = Model {
    objects: 1,
    roots: 1,
    weak: true,
    ..SMALL
};

/// Nothing goes wrong in any state; there are `states`.
fn holds(model: Model, states: usize) {
    let more = std::env::var("GREYWAVE_MODEL_OBJECTS").map_or(0, |n| n.parse().expect("a number"));
    let objects = model.objects + more;
    let outcome = explore(&Model { objects, ..model });
    println!("{outcome}");
    assert!(outcome.violation.is_none(), "{outcome}");
    assert!(outcome.ends > 0, "no cycle ends");
    assert!(
        more > 0 || outcome.states == states,
        "{} states; the table at the top says {states}",
        outcome.states
    );
}

/// Something goes wrong with `change`: what `expected` says.
fn is_caught(change: Change, model: Model, expected: &str) {
    let outcome = explore(&Model { change, ..model });
    println!("{change:?}: {outcome}");
    let found = outcome.violation.as_deref().unwrap_or("nothing");
    assert!(found.starts_with(expected), "{change:?}: {outcome}");
}

/// The collector would free what is reachable.
fn loses_an_object(change: Change, model: Model) {
    is_caught(change, model, model::CONDEMNED);
}

#[test]
fn stores_in_two_steps() {
    let split_stores = true;
    holds(
        Model {
            split_stores,
            ..SMALL
        },
        247_542,
    );
}

#[test]
fn three_objects() {
    let (objects, roots) = (3, 1);
    holds(
        Model {
            objects,
            roots,
            ..SMALL
        },
        92_315,
    );
}

#[test]
fn two_fields() {
    let (fields, roots) = (2, 1);
    holds(
        Model {
            fields,
            roots,
            ..SMALL
        },
        38_240,
    );
}

#[test]
fn foreign_drops() {
    let foreign_drops = true;
    holds(
        Model {
            foreign_drops,
            ..SMALL
        },
        28_627,
    );
}

#[test]
fn weak() {
    holds(Model { objects: 2, ..WEAK }, 605_438);
}

/// What the protocol does beyond its need. The handshake keeps stop 2 short. Where the record falls
/// in a store matters only if a safepoint could come in between. An upgrade need not take
/// termination back: what it shades is in its mutator's buffer, and stop 2 looks there.
#[test]
fn four_differences_do_no_harm() {
    for (change, model) in [
        (Change::NoHandshake, SMALL),
        (Change::NoHandshake, WEAK),
        (Change::RecordAfterStore, SMALL),
        (Change::UpgradeShadesInTerm, WEAK),
        (Change::ResetNotLookedAt, WEAK),
    ] {
        let outcome = explore(&Model { change, ..model });
        println!("{change:?}: {outcome}");
        assert!(outcome.violation.is_none(), "{change:?}: {outcome}");
    }
}

#[test]
fn a_missing_deletion_barrier_is_caught() {
    loses_an_object(Change::NoDeletionBarrier, SMALL);
}

#[test]
fn a_root_dropped_without_the_barrier_is_caught() {
    loses_an_object(Change::NoRootBarrier, SMALL);
}

#[test]
fn a_record_of_what_the_store_left_is_caught() {
    loses_an_object(Change::RecordWhatIsThere, Model { roots: 1, ..SMALL });
}

#[test]
fn a_safepoint_between_the_store_and_its_record_is_caught() {
    loses_an_object(Change::SafepointBeforeRecord, Model { roots: 1, ..SMALL });
}

#[test]
fn roots_that_are_not_scanned_are_caught() {
    loses_an_object(Change::RootsNotScanned, SMALL);
}

#[test]
fn a_buffer_that_is_not_flushed_is_caught() {
    loses_an_object(Change::BufferNotFlushed, SMALL);
}

#[test]
fn white_allocation_during_marking_is_caught() {
    loses_an_object(Change::AllocateWhite, SMALL);
}

#[test]
fn locals_that_cross_stop_1_are_caught() {
    loses_an_object(Change::LocalsCrossStop1, SMALL);
}

#[test]
fn a_stop_2_that_does_not_look_again_is_caught() {
    loses_an_object(Change::NoSecondLook, SMALL);
}

#[test]
fn a_stop_2_that_looks_at_the_buffers_only_is_caught() {
    let three = Model {
        objects: 3,
        roots: 1,
        ..SMALL
    };
    loses_an_object(Change::QueueNotLookedAt, three);
}

#[test]
fn an_end_of_marking_without_a_stop_is_caught() {
    loses_an_object(Change::NoSecondStop, SMALL);
}

#[test]
fn a_sweep_one_generation_early_is_caught() {
    loses_an_object(Change::SweepTakesYoung, SMALL);
}

#[test]
fn a_foreign_drop_that_frees_at_once_is_caught() {
    let foreign_drops = true;
    loses_an_object(
        Change::ReleasedFreedAtOnce,
        Model {
            foreign_drops,
            ..SMALL
        },
    );
}

#[test]
fn an_upgrade_that_asks_nobody_is_caught() {
    loses_an_object(Change::UpgradeUnchecked, WEAK);
}

#[test]
fn an_upgrade_that_does_not_shade_is_caught() {
    loses_an_object(Change::UpgradeWithoutShade, WEAK);
}

#[test]
fn an_upgrade_that_reads_the_state_once_is_caught() {
    loses_an_object(Change::DeadNotReadAgain, WEAK);
}

#[test]
fn an_idle_state_before_the_census_is_caught() {
    loses_an_object(Change::IdleBeforeCensus, WEAK);
}

#[test]
fn a_weak_cell_that_is_not_cleared_is_caught() {
    is_caught(Change::NoCensus, WEAK, model::DANGLING);
}

#[test]
fn garbage_that_is_kept_is_caught() {
    is_caught(Change::EverythingMarked, SMALL, model::LEAKED);
}
