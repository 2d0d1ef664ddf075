//! Stops: nobody runs user code while the world is stopped, and what the collector writes then is seen afterwards.
//! Stands for `Collector::stopped`, `Collector::verify`, `Mutator::attach`, `Mutator::blocking`, `current::detach`.

use std::sync::Arc;

use super::{attach, register, safepoint, state};
use crate::gc::mutator::MutatorRef;
use crate::gc::state_word::Request;
use crate::gc::world::{Patience, World};
use crate::sys::model::{Plain, explore};

/// The world, and what is written only while it is stopped; odd in between.
struct Scene {
    world: World,
    phase: Plain<u32>,
    /// Stops where a cycle begins.
    begun: Plain<u32>,
}

impl Scene {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            world: World::new(),
            phase: Plain::new(0),
            begun: Plain::new(0),
        })
    }

    /// What a mutator does between safepoints.
    fn user_code(&self) {
        assert_eq!(self.phase.get() % 2, 0, "user code in a stop");
    }

    fn stop_and_start(&self) {
        self.stop_for(Request::Stop);
    }

    fn stop_for(&self, request: Request) {
        let stopped = self
            .world
            .stop(request, |_| Patience::Look)
            .expect("nobody is lost");
        self.phase.set(self.phase.get() + 1);
        if request == Request::Stop {
            self.begun.set(self.begun.get() + 1);
        }
        self.phase.set(self.phase.get() + 1);
        self.world.withdraw_stop(stopped);
        self.world.open_gate();
    }

    fn leave_blocked(&self, mutator: MutatorRef) {
        self.world.leave_blocked(state(mutator), &mut || {});
    }

    fn enter_blocked(&self, mutator: MutatorRef) {
        self.world.enter_blocked(state(mutator), &mut || {});
    }
}

/// A thread attaches, runs, and detaches, while the world is stopped and started.
#[test]
fn loom_stop_against_attach_and_detach() {
    explore(3, |order| {
        let scene = Scene::new();
        let (here, there) = (scene.clone(), scene);
        order.race(
            move || {
                let mutator = register(&here.world);
                here.leave_blocked(mutator);
                here.user_code();
                here.enter_blocked(mutator);
                here.world.unregister(mutator);
            },
            move || there.stop_and_start(),
        );
    });
}

/// A mutator blocks, comes back and polls, through two stops.
#[test]
fn loom_stop_against_blocking_and_return() {
    explore(3, |order| {
        let scene = Scene::new();
        let mutator = attach(&scene.world);
        let (here, there) = (scene.clone(), scene.clone());
        order.race(
            move || {
                here.user_code();
                here.enter_blocked(mutator);
                here.leave_blocked(mutator);
                here.user_code();
                safepoint(&here.world, mutator, &mut || {});
                here.user_code();
                here.enter_blocked(mutator);
            },
            move || {
                there.stop_and_start();
                there.stop_and_start();
            },
        );
        scene.world.unregister(mutator);
    });
}

/// A mutator waits inside an allocation while marking ends and the next cycle begins: the first may happen while it
/// waits, the second only at its next safepoint.
fn assisting(wait: fn(&Scene, MutatorRef)) {
    explore(3, move |order| {
        let scene = Scene::new();
        let mutator = attach(&scene.world);
        state(mutator).local.duty.set_marks(true);
        let (here, there) = (scene.clone(), scene.clone());
        order.race(
            move || {
                here.user_code();
                wait(&here, mutator);
                here.user_code();
                safepoint(&here.world, mutator, &mut || {});
                here.user_code();
                here.enter_blocked(mutator);
            },
            move || {
                there.stop_for(Request::StopToEnd);
                there.stop_for(Request::Stop);
            },
        );
        scene.world.unregister(mutator);
    });
}

#[test]
fn loom_stops_against_an_assist() {
    assisting(|scene, mutator| {
        let before = scene.begun.get();
        scene.world.assist(state(mutator), || {}, &mut || {});
        assert_eq!(
            scene.begun.get(),
            before,
            "a cycle begins while a Gc is held"
        );
    });
}

/// A mutator that holds a lock waits inside an allocation while marking is to end, and another waits for the lock and
/// passes no safepoint: the first one goes on, and the stop waits for both.
#[test]
fn loom_stop_against_an_assist_with_a_lock() {
    explore(2, |order| {
        let scene = Scene::new();
        let (holder, waiter) = (attach(&scene.world), attach(&scene.world));
        state(holder).local.duty.set_marks(true);
        let free = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let (unlock, lock) = (free.clone(), free);
        let (first, second, third) = (scene.clone(), scene.clone(), scene.clone());
        order.race3(
            move || {
                first.user_code();
                first.world.assist(state(holder), || {}, &mut || {});
                first.user_code();
                unlock.store(true, std::sync::atomic::Ordering::Release);
                first.enter_blocked(holder);
            },
            move || {
                while !lock.load(std::sync::atomic::Ordering::Acquire) {
                    loom::thread::yield_now();
                }
                second.user_code();
                second.enter_blocked(waiter);
            },
            move || third.stop_for(Request::StopToEnd),
        );
        scene.world.unregister(holder);
        scene.world.unregister(waiter);
    });
}

/// The negative control: it waits as if it held nothing.
#[test]
#[should_panic(expected = "begins while a Gc is held")]
fn loom_stops_against_an_assist_that_blocks_fails() {
    assisting(|scene, mutator| {
        let before = scene.begun.get();
        scene.enter_blocked(mutator);
        scene.leave_blocked(mutator);
        assert_eq!(
            scene.begun.get(),
            before,
            "a cycle begins while a Gc is held"
        );
    });
}

/// The negative control: the mutator goes on without asking its word.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_stop_against_a_deaf_mutator_fails() {
    explore(2, |order| {
        let scene = Scene::new();
        let mutator = register(&scene.world);
        let (here, there) = (scene.clone(), scene.clone());
        order.race(move || here.user_code(), move || there.stop_and_start());
        scene.world.unregister(mutator);
    });
}

/// What two verifiers and the collector share: each mutator's own variable, which its user code writes and the other's
/// verifier reads.
struct Verifiers {
    scene: Arc<Scene>,
    own: [Plain<u32>; 2],
}

impl Verifiers {
    /// User code, then a look at the whole heap, then user code again: `Collector::verify` on an attached thread.
    fn verify(&self, number: usize, mutator: MutatorRef) {
        self.own[number].set(1);
        let stopped = self
            .scene
            .world
            .stop_to_verify(Some(mutator), |_| Patience::Look)
            .expect("nobody is lost");
        let _ = self.own[1 - number].get();
        self.scene.user_code();
        self.scene.world.start_after_verify(stopped);
        self.scene.user_code();
        self.own[number].set(2);
        self.scene.enter_blocked(mutator);
    }
}

fn verifiers() -> (Arc<Verifiers>, [MutatorRef; 2]) {
    let scene = Scene::new();
    let mutators = [attach(&scene.world), attach(&scene.world)];
    let own = [Plain::new(0), Plain::new(0)];
    (Arc::new(Verifiers { scene, own }), mutators)
}

/// Two attached threads verify at the same time: one waits, looking, and counts as stopped for the other.
#[test]
fn loom_verifier_against_verifier() {
    explore(3, |order| {
        let (all, [a, b]) = verifiers();
        let (here, there) = (all.clone(), all.clone());
        order.race(move || here.verify(0, a), move || there.verify(1, b));
        all.scene.world.unregister(a);
        all.scene.world.unregister(b);
    });
}

/// The same with a stop for a phase change: a thread that waits to verify still runs for the collector.
#[test]
fn loom_verifiers_against_stop() {
    explore(2, |order| {
        let (all, [a, b]) = verifiers();
        let (one, two, three) = (all.clone(), all.clone(), all.clone());
        order.race3(
            move || one.verify(0, a),
            move || two.verify(1, b),
            move || three.scene.stop_and_start(),
        );
        all.scene.world.unregister(a);
        all.scene.world.unregister(b);
    });
}

/// What `Collector::patience` says to a stop.
fn give_up_if_lost(world: &World) -> Patience {
    world.find_lost();
    if world.has_lost() {
        Patience::GiveUp
    } else {
        Patience::Look
    }
}

/// A mutator departs, is lost, and is dropped after all, while another one polls and the world is to stop: nobody runs in
/// a stop that stands; one that is taken back lets the other go on; and the next one counts from the beginning.
#[test]
fn loom_stop_against_a_mutator_that_is_lost() {
    explore(2, |order| {
        let scene = Scene::new();
        let (lost, other) = (attach(&scene.world), attach(&scene.world));
        let (first, second, third) = (scene.clone(), scene.clone(), scene.clone());
        order.race3(
            move || {
                first.user_code();
                first.world.note_departure(lost);
                first.user_code();
                // Its `Mutator` is dropped by a later destructor.
                first.enter_blocked(lost);
                assert!(first.world.unregister(lost), "it had departed");
            },
            move || {
                second.user_code();
                safepoint(&second.world, other, &mut || {});
                second.user_code();
                second.enter_blocked(other);
            },
            move || {
                let world = &third.world;
                if let Some(stopped) = world.stop(Request::Stop, |_| give_up_if_lost(world)) {
                    third.phase.set(third.phase.get() + 1);
                    third.phase.set(third.phase.get() + 1);
                    world.withdraw_stop(stopped);
                    world.open_gate();
                }
            },
        );
        assert!(!scene.world.has_departed() && !scene.world.has_lost());
        scene.stop_and_start();
        scene.world.unregister(other);
    });
}

/// The same for a verifier, which stops the other one and gives up.
#[test]
fn loom_verifier_against_a_mutator_that_is_lost() {
    explore(2, |order| {
        let scene = Scene::new();
        let lost = attach(&scene.world);
        let (first, second) = (scene.clone(), scene.clone());
        order.race(
            move || {
                first.user_code();
                first.world.note_departure(lost);
                first.user_code();
                first.enter_blocked(lost);
                first.world.unregister(lost);
            },
            move || {
                let world = &second.world;
                if let Some(stopped) = world.stop_to_verify(None, |_| give_up_if_lost(world)) {
                    second.phase.set(second.phase.get() + 1);
                    second.phase.set(second.phase.get() + 1);
                    world.start_after_verify(stopped);
                }
            },
        );
        let stopped = scene.world.stop_to_verify(None, |_| Patience::Look);
        scene
            .world
            .start_after_verify(stopped.expect("nobody is lost"));
    });
}
