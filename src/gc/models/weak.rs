//! Weak upgrades against the end of marking, the census and the sweep.
//! The real `WeakState`, `WeakCell` and `World`; the rest stands for `Weak::upgrade`, `Collector::mark_concurrently`,
//! `Collector::try_end_marking`, `Collector::after_marking` and `weak::census`.

use std::sync::Arc;

use super::{Marks, Objects, objects, register, state};
use crate::gc::state_word::Request;
use crate::gc::weak::{Upgrade, WeakCell, WeakState};
use crate::gc::world::{Patience, World};
use crate::sys::model::{Plain, explore};
use crate::sys::sync::{Ordering, fence};

/// The weak reference's target.
const TARGET: usize = 1;

/// What an upgrade does about the weak state.
#[derive(Clone, Copy, PartialEq)]
enum How {
    /// `WeakState::decide`.
    Decides,
    /// In Term the target is taken without putting the state back, and without shading it.
    IgnoresTerm,
}

struct Scene {
    world: World,
    weak: WeakState,
    marks: Marks,
    /// Two weak cells of the target.
    cells: [WeakCell; 2],
    /// The mutator's barrier buffer.
    buffer: Plain<u64>,
    /// The target's memory: written when it is swept.
    freed: Plain<bool>,
}

impl Scene {
    /// Marking runs, and has marked `marked`.
    fn new(marked: u64) -> Self {
        let weak = WeakState::new();
        weak.begin_marking();
        Self {
            world: World::new(),
            weak,
            marks: Marks::new(marked),
            cells: [WeakCell::new(TARGET, 0), WeakCell::new(TARGET, 0)],
            buffer: Plain::new(0),
            freed: Plain::new(false),
        }
    }

    /// `Weak::upgrade`; whether it gave the target out.
    fn upgrade(&self, how: How) -> bool {
        loop {
            let idle = self.weak.is_idle();
            if self.cells[0].target() == 0 {
                return false;
            }
            if idle {
                return true;
            }
            if how == How::IgnoresTerm && !self.weak.was_reset() {
                return true;
            }
            match self.weak.decide(|| self.marks.test(TARGET), || false) {
                Upgrade::Strong => return true,
                Upgrade::ShadeFirst => {
                    self.buffer.add(TARGET);
                    return true;
                }
                Upgrade::None => {
                    self.cells[0].note_death(self.weak.ended());
                    return false;
                }
                Upgrade::Again => {}
            }
        }
    }

    /// `Collector::flush_barrier`; the target has no edges, so marked is black.
    fn flush(&self) {
        for object in objects(self.buffer.take()) {
            self.marks.set(object);
        }
    }

    fn handshake(&self) {
        self.world.ask_handshake(|_| self.flush());
        self.world.wait_for_handshake(|_| Patience::Look);
    }

    fn try_end_marking(&self) -> bool {
        let stopped = self
            .world
            .stop(Request::Stop, |_| Patience::Look)
            .expect("nobody is lost");
        self.flush();
        let over = self.weak.declare_dead();
        if !over {
            self.weak.begin_marking();
        }
        self.world.withdraw_stop(stopped);
        self.world.open_gate();
        over
    }

    /// From where marking looks done to the sweep of the target.
    fn finish_cycle(&self) {
        loop {
            self.weak.try_terminate();
            self.handshake();
            if !self.weak.was_reset() && self.try_end_marking() {
                break;
            }
            self.weak.begin_marking();
        }
        // `weak::census`, then the sweep: no handshake between.
        if !self.marks.test(TARGET) {
            self.cells
                .iter()
                .for_each(|cell| cell.clear(self.weak.ended()));
        }
        self.weak.idle();
        fence(Ordering::Release);
        if self.marks.test(TARGET) {
            self.marks.clear(TARGET);
        } else {
            self.freed.set(true);
        }
    }
}

/// A mutator comes back from blocking at any time of the cycle's end and upgrades; `check` gets what it got.
fn upgrade_against_the_end(how: How, marked: u64, check: fn(&Scene, bool)) {
    explore(3, move |order| {
        let scene = Arc::new(Scene::new(marked));
        let mutator = register(&scene.world);
        let (here, there) = (scene.clone(), scene.clone());
        let (strong, ()) = order.race(
            move || {
                let world = &here.world;
                world.leave_blocked(state(mutator), &mut || here.flush());
                let strong = here.upgrade(how);
                if strong {
                    assert!(!here.freed.get(), "given out after it was freed");
                }
                world.enter_blocked(state(mutator), &mut || here.flush());
                strong
            },
            move || there.finish_cycle(),
        );
        check(&scene, strong);
        scene.world.unregister(mutator);
    });
}

/// A target that nothing else keeps: given out and kept, or not given out.
#[test]
fn loom_upgrade_against_the_end_of_marking() {
    upgrade_against_the_end(How::Decides, 0, |scene, strong| {
        assert!(!(strong && scene.freed.get()), "given out and freed");
    });
}

#[test]
#[should_panic(expected = "freed")]
fn loom_upgrade_that_ignores_term_fails() {
    upgrade_against_the_end(How::IgnoresTerm, 0, |scene, strong| {
        assert!(!(strong && scene.freed.get()), "given out and freed");
    });
}

/// A target that is alive is always given out.
#[test]
fn loom_upgrade_of_a_live_target() {
    upgrade_against_the_end(How::Decides, 1 << TARGET, |scene, strong| {
        assert!(!scene.freed.get());
        assert!(strong, "the upgrade of a live object failed");
    });
}

/// What says whether two cells are of one object.
type Same = fn(&WeakCell, &WeakCell) -> bool;

/// A mutator compares two cells of an object that dies meanwhile; then the slot is given to another object.
fn identity_against_the_end(same: Same) {
    explore(3, move |order| {
        let scene = Arc::new(Scene::new(0));
        let mutator = register(&scene.world);
        let (here, there) = (scene.clone(), scene.clone());
        order.race(
            move || {
                let world = &here.world;
                world.leave_blocked(state(mutator), &mut || here.flush());
                let strong = here.upgrade(How::Decides);
                let [one, two] = &here.cells;
                assert!(same(one, two), "one object, two identities");
                assert!(strong || one.is_dead(), "refused, and not dead");
                world.enter_blocked(state(mutator), &mut || here.flush());
            },
            move || there.finish_cycle(),
        );
        let [one, two] = &scene.cells;
        assert!(same(one, two), "one object, two identities");
        if scene.freed.get() {
            // The slot is given out again; that object dies in the next cycle.
            let later = WeakCell::new(TARGET, scene.weak.ended());
            assert!(
                !same(one, &later) && !same(&later, two),
                "two objects, one identity"
            );
            scene.weak.begin_marking();
            scene.weak.try_terminate();
            assert!(scene.weak.declare_dead());
            later.clear(scene.weak.ended());
            assert!(
                !same(one, &later) && !same(&later, two),
                "two objects, one identity"
            );
        }
        scene.world.unregister(mutator);
    });
}

#[test]
fn loom_identity_of_weak_references_against_the_census() {
    identity_against_the_end(WeakCell::is_of_the_object_of);
}

/// An address, and whether the object is dead, name no object.
#[test]
#[should_panic(expected = "identit")]
fn loom_identity_by_address_fails() {
    identity_against_the_end(|one, two| (one.target() == 0) == (two.target() == 0));
}
