//! Handshakes: every mutator acts exactly once, whoever does it.
//! Stands for `Collector::handshake_all`, `Mutator::blocking`, `current::detach`.

use std::sync::Arc;

use super::{attach, register, safepoint, state};
use crate::gc::mutator::MutatorRef;
use crate::gc::world::{Patience, World};
use crate::sys::model::{Plain, explore};

/// The action is one more in the mutator's plain record.
struct Scene {
    world: World,
    acts: Plain<u32>,
}

impl Scene {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            world: World::new(),
            acts: Plain::new(0),
        })
    }

    fn act(&self) {
        self.acts.set(self.acts.get() + 1);
    }

    fn handshake(&self) {
        self.world.ask_handshake(|_| self.act());
        self.world.wait_for_handshake(|_| Patience::Look);
    }

    fn leave_blocked(&self, mutator: MutatorRef) {
        self.world.leave_blocked(state(mutator), &mut || self.act());
    }

    fn enter_blocked(&self, mutator: MutatorRef) {
        self.world.enter_blocked(state(mutator), &mut || self.act());
    }
}

/// A mutator comes back from blocking, runs, and blocks again, while the collector asks. Whether the collector acts for
/// it in the first or the second blocking, or it acts itself in between: once, and before the handshake is over.
#[test]
fn loom_handshake_against_a_mutator_that_blocks_again() {
    explore(3, |order| {
        let scene = Scene::new();
        let mutator = register(&scene.world);
        let (here, there) = (scene.clone(), scene.clone());
        order.race(
            move || {
                here.leave_blocked(mutator);
                here.enter_blocked(mutator);
            },
            move || {
                there.handshake();
                assert_eq!(there.acts.get(), 1, "each mutator acts once");
            },
        );
        assert_eq!(scene.acts.get(), 1, "and not again");
        scene.world.unregister(mutator);
    });
}

/// Two handshakes follow each other while a mutator polls: neither counts for the other.
#[test]
fn loom_two_handshakes_against_polls() {
    explore(3, |order| {
        let scene = Scene::new();
        let mutator = attach(&scene.world);
        let (here, there) = (scene.clone(), scene.clone());
        order.race(
            move || {
                safepoint(&here.world, mutator, &mut || here.act());
                here.enter_blocked(mutator);
            },
            move || {
                for round in 1..=2 {
                    there.handshake();
                    assert_eq!(there.acts.get(), round);
                }
            },
        );
        scene.world.unregister(mutator);
    });
}

/// A mutator attaches and detaches: it is in the handshake or it is not, but nobody waits for one that is gone.
#[test]
fn loom_handshake_against_attach_and_detach() {
    explore(3, |order| {
        let scene = Scene::new();
        let (here, there) = (scene.clone(), scene.clone());
        order.race(
            move || {
                let mutator = register(&here.world);
                here.leave_blocked(mutator);
                here.enter_blocked(mutator);
                here.world.unregister(mutator);
            },
            move || there.handshake(),
        );
        assert!(scene.acts.get() <= 1);
    });
}

/// A mutator is lost in the middle of a handshake, and dropped after all: the handshake stays open until then, and the
/// mutator acts in it, once, unless it was gone before it was asked.
#[test]
fn loom_handshake_against_a_mutator_that_is_lost() {
    explore(3, |order| {
        let scene = Scene::new();
        let lost = attach(&scene.world);
        let (here, there) = (scene.clone(), scene.clone());
        order.race(
            move || {
                here.world.note_departure(lost);
                here.enter_blocked(lost);
                here.world.unregister(lost);
            },
            move || {
                let world = &there.world;
                world.ask_handshake(|_| there.act());
                world.wait_for_handshake(|_| {
                    world.find_lost();
                    Patience::Nap(std::time::Duration::MAX)
                });
                assert!(there.acts.get() <= 1);
            },
        );
        assert!(!scene.world.has_lost());
    });
}

/// The negative control: the mutator comes back without looking whether somebody acts for it.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_handshake_without_the_claim_fails() {
    explore(2, |order| {
        let scene = Scene::new();
        let mutator = register(&scene.world);
        let (here, there) = (scene.clone(), scene.clone());
        // Its record is its own only while it runs.
        order.race(move || here.act(), move || there.handshake());
        scene.world.unregister(mutator);
    });
}
