//! The cases of bacon_rajan_cc's tests, for this collector. `peers.md` says which test follows
//! which.

#![allow(dead_code, reason = "some fields are there to be traced or dropped")]

use std::collections::{BTreeSet, HashMap, HashSet};

use greywave::{Gc, GcCell, GcLock, Mutator, Root, Trace, Weak, WeakRoot};

#[path = "peers/common.rs"]
mod common;

use common::run;
use common::support::Counted;

#[test]
fn a_copy_of_the_pointer_sees_the_same_content() {
    run(|m, _| {
        let (x, y) = {
            let x = m.alloc(GcLock::new(5));
            (m.root(x), m.root(x))
        };
        *x.get(m).write(m) = 20;
        m.collect();
        assert_eq!(*y.get(m).read(), 20);
    });
}

#[test]
fn a_number_and_its_copy_are_read_through_the_pointer() {
    run(|m, _| {
        let x = m.alloc(5);
        let y = x;
        assert_eq!((*x, *y, *x.as_ref()), (5, 5, 5));
    });
}

#[test]
fn a_box_in_an_object_is_freed_with_it() {
    run(|m, _| {
        let root = m.root(m.alloc(Box::new([5_u64; 100])));
        m.collect();
        assert_eq!((root.get(m)[99], m.heap().stats().external_bytes), (5, 800));
        drop(root);
        m.collect();
        let stats = m.heap().stats();
        assert_eq!((stats.external_bytes, stats.objects_dropped), (0, 1));
    });
}

#[test]
fn alive_and_dead_are_told_apart() {
    run(|m, _| {
        let (alive, dead) = (m.root(m.alloc(5)), m.root(m.alloc(5)));
        let weak = [&alive, &dead].map(|root| m.root_weak(Gc::downgrade(root.get(m), m)));
        drop(dead);
        assert!(
            weak.iter().all(|weak| weak.get(m).is_some()),
            "not looked for yet"
        );
        m.collect();
        assert!(weak[0].get(m).is_some() && weak[1].get(m).is_none());
    });
}

#[derive(Trace)]
struct Cycle<'gc>(GcLock<Option<Weak<'gc, Cycle<'gc>>>>, Counted);

#[test]
fn a_weak_edge_to_oneself_is_freed_once() {
    run(|m, drops| {
        {
            let object = m.alloc(Cycle(GcLock::new(None), drops.one()));
            *object.0.write(m) = Some(Gc::downgrade(object, m));
        }
        m.collect();
        m.collect();
        assert_eq!(drops.count(), 1);
        assert_eq!(m.heap().stats().live_bytes, 0);
    });
}

#[test]
fn roots_go_one_by_one_and_the_last_decides() {
    run(|m, drops| {
        let a = m.root(m.alloc(drops.one()));
        let weak = m.root_weak(Gc::downgrade(a.get(m), m));
        let b = m.root(weak.get(m).expect("alive"));
        assert!(a.ptr_eq(&b));
        drop(weak);
        drop(a);
        m.collect();
        let c = b.clone();
        drop(b);
        m.collect();
        assert_eq!(drops.count(), 0);
        drop(c);
        m.collect();
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn values_are_compared_hashed_and_shown_as_what_they_are() {
    run(|m, _| {
        let (a, b, c) = (m.alloc(75), m.alloc(75), m.alloc(76));
        assert_eq!(format!("{a:?} {a} {:?}", m.alloc_str("x")), "75 75 \"x\"");
        assert!(a == b && a != c && a < c && !a.ptr_eq(b));
        assert_eq!([a, b, c].into_iter().collect::<HashSet<_>>().len(), 2);
        assert_eq!(
            [c, b, a]
                .into_iter()
                .collect::<BTreeSet<_>>()
                .first()
                .map(|n| **n),
            Some(75)
        );
        // Found by value, without a pointer.
        let texts: HashSet<Gc<'_, str>> = [m.alloc_str("one"), m.alloc_str("two")].into();
        assert!(texts.contains("two") && !texts.contains("three"));
    });
}

#[test]
fn a_map_is_read_through_the_pointer() {
    run(|m, _| {
        let root = m.root(m.alloc(HashMap::from([("Foo".to_owned(), 4)])));
        m.collect();
        assert_eq!(root.get(m).get("Foo"), Some(&4));
        assert_eq!(root.get(m).get("Bar"), None);
    });
}

#[derive(Trace)]
struct List<'gc>(GcLock<Vec<Gc<'gc, List<'gc>>>>, Counted);

fn list<'m>(m: &'m Mutator, counted: Counted) -> Gc<'m, List<'m>> {
    m.alloc(List(GcLock::new(Vec::new()), counted))
}

#[test]
fn lists_that_hold_each_other_are_garbage() {
    run(|m, drops| {
        {
            let (a, b) = (list(m, drops.one()), list(m, drops.one()));
            a.0.write(m).push(b);
            b.0.write(m).push(a);
        }
        m.collect();
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn a_weak_root_is_kept_after_the_ring_that_it_led_into() {
    run(|m, drops| {
        let kept: WeakRoot<List<'static>> = {
            let a = list(m, drops.one());
            a.0.write(m).push(a);
            m.root_weak(Gc::downgrade(a, m))
        };
        m.collect();
        assert_eq!(drops.count(), 1);
        // Its object's slot is used again; it must not lead there.
        let others: Vec<_> = (0..1000).map(|_| m.root(list(m, drops.one()))).collect();
        assert!(kept.get(m).is_none());
        m.collect();
        assert!(kept.get(m).is_none());
        drop((others, kept));
    });
}

#[test]
fn a_pointer_to_a_pointer_leaves_nothing() {
    run(|m, _| {
        let (inner, outer): (Root<i32>, Root<Gc<'static, i32>>) = {
            let number = m.alloc(5);
            let pointer = m.alloc(number);
            drop(m.root(number));
            (m.root(number), m.root(pointer))
        };
        drop(inner);
        m.collect();
        assert_eq!(**outer.get(m), 5);
        drop(outer.clone());
        drop(outer);
        m.collect();
        assert_eq!(m.heap().stats().live_bytes, 0);
    });
}

#[derive(Trace)]
struct Step<'gc>(GcCell<'gc, Step<'gc>>, Counted);

#[test]
fn a_ring_that_was_scanned_while_alive_dies_when_it_is_cut_open() {
    run(|m, drops| {
        let root = {
            let step = || m.alloc(Step(GcCell::null(), drops.one()));
            let (x, y, z) = (step(), step(), step());
            x.0.set(m, y);
            y.0.set(m, z);
            z.0.set(m, x);
            m.root(x)
        };
        m.collect();
        assert_eq!(drops.count(), 0);
        root.get(m).0.set(m, None);
        m.collect();
        assert_eq!(drops.count(), 2, "all but the one that is rooted");
        drop(root);
        m.collect();
        assert_eq!(drops.count(), 3);
    });
}

#[derive(Trace)]
struct Env<'gc> {
    closures: Vec<Gc<'gc, Closure<'gc>>>,
    next: Option<Gc<'gc, Env<'gc>>>,
    counted: Counted,
}

#[derive(Trace)]
struct Closure<'gc>(GcCell<'gc, Env<'gc>>);

#[test]
fn a_ring_that_dies_leaves_what_the_living_share_with_it() {
    run(|m, drops| {
        let closure = |env| m.alloc(Closure(GcCell::new(env)));
        let (circular, live): (Root<Env<'static>>, Root<Env<'static>>) = {
            let base = m.alloc(Env {
                closures: vec![],
                next: None,
                counted: drops.one(),
            });
            let shared = m.alloc(Env {
                closures: vec![closure(Some(base))],
                next: Some(base),
                counted: drops.one(),
            });
            let circular = m.alloc(Env {
                closures: vec![closure(None)],
                next: Some(shared),
                counted: drops.one(),
            });
            circular.closures[0].0.set(m, circular);
            let live = m.alloc(Env {
                closures: vec![],
                next: Some(shared),
                counted: drops.one(),
            });
            (m.root(circular), m.root(live))
        };
        m.collect();
        assert_eq!(drops.count(), 0);
        drop(circular);
        m.collect();
        assert_eq!(drops.count(), 1);
        {
            let shared = live.get(m).next.expect("shared");
            assert_eq!(shared.closures.len(), 1);
            let base = shared.closures[0].0.get().expect("what it closes over");
            assert!(shared.next.is_some_and(|next| next.ptr_eq(base)));
        }
        drop(live);
        m.collect();
        assert_eq!(drops.count(), 4);
    });
}

#[test]
fn an_owner_that_knows_its_gadget_weakly() {
    #[derive(Trace)]
    struct Gadget<'gc>(Gc<'gc, Owner<'gc>>, Counted);
    #[derive(Trace)]
    struct Owner<'gc>(GcLock<Option<Weak<'gc, Gadget<'gc>>>>, Counted);
    run(|m, drops| {
        let (owner, gadget) = {
            let owner = m.alloc(Owner(GcLock::new(None), drops.one()));
            let gadget = m.alloc(Gadget(owner, drops.one()));
            *owner.0.write(m) = Some(Gc::downgrade(gadget, m));
            (m.root(owner), m.root(gadget))
        };
        m.collect();
        assert!(gadget.get(m).0.ptr_eq(owner.get(m)));
        drop(gadget);
        m.collect();
        assert_eq!(drops.count(), 1, "a weak edge keeps no gadget");
        assert!(
            owner
                .get(m)
                .0
                .read()
                .is_some_and(|weak| weak.upgrade(m).is_none())
        );
        drop(owner);
        m.collect();
        assert_eq!(drops.count(), 2);
    });
}
