//! The cases of rust-cc's tests, for this collector. `peers.md` says which test follows which.

#![allow(dead_code, reason = "some fields are there to be traced or dropped")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use greywave::{
    Gc, GcCell, GcLock, GcOnce, Mutator, Root, Trace, Weak, WeakRoot, dyn_target, unsize,
};

#[path = "peers/common.rs"]
mod common;

use common::run;
use common::support::Counted;

#[test]
fn a_value_with_two_handles_is_dropped_after_the_second() {
    run(|m, drops| {
        let root = m.root(m.alloc((56, drops.one())));
        m.collect();
        assert_eq!(drops.count(), 0);
        let clone = root.clone();
        assert_eq!(clone.get(m).0, 56);
        drop(clone);
        m.collect();
        assert_eq!(drops.count(), 0);
        drop(root);
        m.collect();
        assert_eq!(drops.count(), 1);
        m.collect();
        assert_eq!(drops.count(), 1, "not once more");
    });
}

#[derive(Trace)]
struct Circular<'gc> {
    next: GcCell<'gc, Circular<'gc>>,
    counted: Counted,
}

fn circular<'m>(m: &'m Mutator, counted: Counted) -> Gc<'m, Circular<'m>> {
    m.alloc(Circular {
        next: GcCell::null(),
        counted,
    })
}

#[test]
fn a_pair_lives_while_either_is_rooted() {
    run(|m, drops| {
        let (one, two) = {
            let (one, two) = (circular(m, drops.one()), circular(m, drops.one()));
            one.next.set(m, two);
            two.next.set(m, one);
            (m.root(one), m.root(two))
        };
        m.collect();
        drop(one.clone());
        m.collect();
        assert_eq!(drops.count(), 0);
        drop(one);
        m.collect();
        assert_eq!(drops.count(), 0);
        drop(two);
        assert_eq!(drops.count(), 0, "a drop waits for a sweep");
        m.collect();
        assert_eq!(drops.count(), 2);
    });
}

trait Hello {
    fn hello(&self) -> u8;
}
dyn_target!(dyn Hello);

#[derive(Trace)]
struct Own<'gc>(u8, GcLock<Option<Gc<'gc, dyn Hello + 'gc>>>, Counted);

impl Hello for Own<'_> {
    fn hello(&self) -> u8 {
        self.0 + u8::from(self.1.read().is_some())
    }
}

#[test]
fn an_object_that_holds_itself_as_a_trait_object_is_called_kept_and_dropped() {
    run(|m, drops| {
        let root: Root<dyn Hello> = {
            let own = m.alloc(Own(5, GcLock::new(None), drops.one()));
            let erased: Gc<'_, dyn Hello> = unsize!(own => dyn Hello);
            *own.1.write(m) = Some(erased);
            m.root(erased)
        };
        let clone = root.clone();
        drop(root);
        m.collect();
        assert_eq!((clone.get(m).hello(), drops.count()), (6, 0));
        drop(clone);
        m.collect();
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn an_edge_to_oneself_that_is_written_once() {
    #[derive(Trace)]
    struct Cyclic<'gc>(GcOnce<'gc, Cyclic<'gc>>, Counted);
    run(|m, drops| {
        let root = {
            let cyclic = m.alloc(Cyclic(GcOnce::empty(), drops.one()));
            assert!(cyclic.0.get().is_none());
            assert!(cyclic.0.set(m, cyclic).is_ok());
            let other = m.alloc(Cyclic(GcOnce::empty(), drops.one()));
            let refused = cyclic.0.set(m, other).expect_err("written");
            assert!(refused.ptr_eq(other));
            m.root(cyclic)
        };
        m.collect();
        let cyclic = root.get(m);
        assert!(cyclic.0.get().is_some_and(|own| own.ptr_eq(cyclic)));
        assert_eq!(drops.count(), 1);
        drop(root);
        m.collect();
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn a_ring_can_be_walked_round_and_round() {
    run(|m, drops| {
        let root = {
            let (one, two) = (circular(m, drops.one()), circular(m, drops.one()));
            one.next.set(m, two);
            two.next.set(m, one);
            m.root(one)
        };
        for steps in [0, 1, 2, 7, 100] {
            m.collect();
            let mut at = root.get(m);
            for _ in 0..steps {
                at = at.next.get().expect("a ring");
            }
            assert_eq!(at.ptr_eq(root.get(m)), steps % 2 == 0);
        }
    });
}

#[test]
fn what_a_drop_sends_out_becomes_new_objects_elsewhere() {
    /// Sends its content to whoever listens.
    #[derive(Trace)]
    struct Sends(#[trace(skip)] std::sync::mpsc::Sender<String>, String);
    impl Drop for Sends {
        fn drop(&mut self) {
            self.0
                .send(std::mem::take(&mut self.1))
                .expect("somebody listens");
        }
    }
    run(|m, _| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut text = String::from("once");
        for _ in 0..5 {
            std::hint::black_box(m.alloc(Sends(sender.clone(), text + " more")));
            m.collect();
            text = receiver.try_recv().expect("dropped by the collection");
            assert!(receiver.try_recv().is_err());
        }
        assert_eq!(text, "once more more more more more");
    });
}

/// Says in its drop that it breaks, if it does.
#[derive(Trace)]
struct Breaks {
    breaks: bool,
    counted: Counted,
}

impl Drop for Breaks {
    fn drop(&mut self) {
        assert!(!self.breaks, "it breaks");
    }
}

#[derive(Trace)]
struct BreakingRing<'gc>(GcCell<'gc, BreakingRing<'gc>>, Breaks, Weak<'gc, Counted>);

#[test]
fn a_ring_whose_drops_panic_dies_and_so_does_what_is_weakly_known() {
    for breaks in [false, true] {
        run(|m, drops| {
            let (root, weak): (
                Root<BreakingRing<'static>>,
                [WeakRoot<BreakingRing<'static>>; 3],
            ) = {
                let ring = [0, 1, 2].map(|_| {
                    let part = Breaks {
                        breaks,
                        counted: drops.one(),
                    };
                    let weak = Gc::downgrade(m.alloc(drops.one()), m);
                    m.alloc(BreakingRing(GcCell::null(), part, weak))
                });
                for i in 0..3 {
                    ring[i].0.set(m, ring[(i + 1) % 3]);
                }
                (
                    m.root(ring[0]),
                    ring.map(|object| m.root_weak(Gc::downgrade(object, m))),
                )
            };
            m.collect();
            assert!(
                weak.iter()
                    .all(|weak| weak.get(m).is_some_and(|o| o.2.upgrade(m).is_none()))
            );
            drop(root);
            m.collect();
            assert!(weak.iter().all(|weak| weak.get(m).is_none()));
            // The parts after the one that panicked are dropped as well.
            assert_eq!(drops.count(), 6);
            assert_eq!(m.heap().stats().drop_panics, if breaks { 3 } else { 0 });
        });
    }
}

#[test]
fn weak_references_are_equal_by_object_and_do_not_count() {
    run(|m, _| {
        let root = m.root(m.alloc(0));
        let (one, two) = {
            let one = Gc::downgrade(root.get(m), m);
            let two = one;
            assert!(one.ptr_eq(two) && one.ptr_eq(Gc::downgrade(root.get(m), m)));
            assert!(!one.ptr_eq(Gc::downgrade(m.alloc(0), m)));
            assert!(two.upgrade(m).is_some_and(|up| up.ptr_eq(root.get(m))));
            (m.root_weak(one), m.root_weak(two))
        };
        m.collect();
        assert!(one.weak(m).ptr_eq(two.weak(m)) && one.get(m).is_some());
        drop(root);
        m.collect();
        let third = one.clone();
        assert!(one.get(m).is_none() && third.weak(m).ptr_eq(two.weak(m)));
    });
}

#[test]
fn an_object_outlives_all_its_weak_references() {
    run(|m, _| {
        let root = m.root(m.alloc(1));
        let live = |m: &Mutator| m.heap().stats().live_bytes;
        m.collect();
        let before = live(m);
        let weak: Vec<_> = (0..100)
            .map(|_| m.root_weak(Gc::downgrade(root.get(m), m)))
            .collect();
        m.collect();
        assert!(live(m) >= before + 100 * 16, "a cell each");
        drop(weak);
        m.collect();
        assert_eq!(live(m), before, "the cells are objects as others are");
        let again = m.root_weak(Gc::downgrade(root.get(m), m));
        assert_eq!(again.get(m).as_deref(), Some(&1));
    });
}

#[test]
fn a_weak_reference_that_nobody_takes_is_garbage_itself() {
    run(|m, drops| {
        for _ in 0..1000 {
            let object = m.alloc(drops.one());
            std::hint::black_box(Gc::downgrade(object, m));
            let ring = circular(m, drops.one());
            ring.next.set(m, ring);
            std::hint::black_box(Gc::downgrade(ring, m));
        }
        m.collect();
        assert_eq!(drops.count(), 2000);
        assert_eq!(m.heap().stats().live_bytes, 0);
    });
}

#[test]
fn a_panic_before_the_last_edge_is_set_leaves_ordinary_garbage() {
    run(|m, drops| {
        let mut saved: Vec<WeakRoot<Circular<'static>>> = Vec::new();
        for _ in 0..10 {
            let built = catch_unwind(AssertUnwindSafe(|| {
                let object = circular(m, drops.one());
                saved.push(m.root_weak(Gc::downgrade(object, m)));
                assert!(drops.count() == usize::MAX, "not built");
                object.next.set(m, object);
            }));
            assert!(built.is_err());
        }
        assert!(
            saved
                .iter()
                .all(|weak| weak.get(m).is_some_and(|o| o.next.get().is_none()))
        );
        m.collect();
        assert!(saved.iter().all(|weak| weak.get(m).is_none()));
        assert_eq!(drops.count(), 10);
    });
}

#[test]
fn a_weak_root_to_itself_goes_in_the_drop_of_its_object() {
    #[derive(Trace)]
    struct KnowsItself(#[trace(skip)] Mutex<Option<WeakRoot<KnowsItself>>>, Counted);
    run(|m, drops| {
        let (root, weak) = {
            let object = m.alloc(KnowsItself(Mutex::new(None), drops.one()));
            let weak = m.root_weak(Gc::downgrade(object, m));
            *object.0.lock().expect("no panic") = Some(weak.clone());
            (m.root(object), weak)
        };
        m.collect();
        assert!(
            weak.get(m)
                .is_some_and(|o| o.0.lock().is_ok_and(|own| own.is_some()))
        );
        drop(root);
        m.collect();
        assert!(weak.get(m).is_none());
        assert_eq!(drops.count(), 1);
        drop(weak);
        m.collect();
        assert_eq!(m.heap().stats().live_bytes, 0, "the cell has gone, too");
    });
}

#[test]
fn no_weak_reference_is_no_object() {
    #[derive(Trace)]
    struct May<'gc>(GcLock<Option<Weak<'gc, u32>>>);
    run(|m, _| {
        let root = m.root(m.alloc(May(GcLock::new(None))));
        m.collect();
        assert!(root.get(m).0.read().is_none());
        *root.get(m).0.write(m) = Some(Gc::downgrade(m.alloc(5), m));
        m.collect();
        assert!(
            root.get(m)
                .0
                .read()
                .is_some_and(|weak| weak.upgrade(m).is_none())
        );
    });
}

#[test]
fn an_unsized_object_is_known_weakly_as_what_it_was_and_as_a_trait_object() {
    run(|m, drops| {
        let root = m.root(m.alloc(Own(1, GcLock::new(None), drops.one())));
        let weak = m.root_weak(Gc::downgrade(root.get(m), m));
        let erased = m.root_weak(Gc::downgrade(unsize!(root.get(m) => dyn Hello), m));
        m.collect();
        assert_eq!(weak.get(m).map(|own| own.hello()), Some(1));
        assert_eq!(erased.get(m).map(|own| own.hello()), Some(1));
        drop(root);
        m.collect();
        assert!(weak.get(m).is_none() && erased.get(m).is_none());
    });
}
