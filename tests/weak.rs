//! Weak references: they keep nothing alive, never give out a dead object, and tell which objects
//! are dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Gc, GcCell, GcLock, Heap, Root, Trace, Weak, WeakRoot};

#[path = "stress/support.rs"]
mod support;

use support::{Collecting, Counted, duration, mix, within};

#[derive(Trace)]
struct Node<'gc> {
    id: u64,
    check: u64,
    next: GcCell<'gc, Node<'gc>>,
}

impl Node<'_> {
    fn new(id: u64) -> Self {
        Self {
            id,
            check: mix(id),
            next: GcCell::null(),
        }
    }

    fn check(&self) {
        assert_eq!(self.check, mix(self.id), "an object's content is damaged");
    }
}

fn heap() -> Heap {
    Heap::builder()
        .verify(true)
        .poison(true)
        .build()
        .expect("a heap")
}

#[test]
fn a_weak_reference_keeps_nothing_and_knows_it() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let drops = Arc::new(AtomicUsize::new(0));
    let (root, weak, other) = {
        let object = m.alloc(Counted(drops.clone()));
        let other = m.alloc(Counted(drops.clone()));
        (
            m.root(object),
            m.root_weak(Gc::downgrade(object, &m)),
            m.root_weak(Gc::downgrade(other, &m)),
        )
    };
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert!(weak.get(&m).is_some() && other.get(&m).is_none());
    drop(root);
    m.collect();
    assert!(weak.get(&m).is_none());
    assert_eq!(drops.load(Ordering::Relaxed), 2);
    heap.verify().expect("whole");
}

#[derive(Trace)]
struct Parent<'gc> {
    child: GcCell<'gc, Child<'gc>>,
}

#[derive(Trace)]
struct Child<'gc> {
    parent: GcLock<Option<Weak<'gc, Parent<'gc>>>>,
    payload: u64,
}

#[test]
fn a_weak_edge_to_the_parent_breaks_no_cycle_and_makes_none() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let (parent, child) = {
        let child = m.alloc(Child {
            parent: GcLock::new(None),
            payload: 9,
        });
        let parent = m.alloc(Parent {
            child: GcCell::new(Some(child)),
        });
        *child.parent.write(&m) = Some(Gc::downgrade(parent, &m));
        (m.root(parent), m.root(child))
    };
    m.collect();
    {
        let up = child.get(&m).parent.read().and_then(|w| w.upgrade(&m));
        assert!(up.is_some_and(|p| p.ptr_eq(parent.get(&m))));
    }
    drop(parent);
    m.collect();
    assert!(
        child
            .get(&m)
            .parent
            .read()
            .is_some_and(|w| w.upgrade(&m).is_none())
    );
    assert_eq!(child.get(&m).payload, 9);
}

#[test]
fn every_kind_of_object_can_be_weakly_held() {
    trait Named {
        fn name(&self) -> u64;
    }
    impl Named for Node<'_> {
        fn name(&self) -> u64 {
            self.id
        }
    }
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let (roots, weak) = {
        let text = m.alloc_str("text");
        let slice = m.alloc_slice(10_000, |i| i as u64);
        let array = m.alloc_array(1_u8, 3, |i| i as u16);
        (
            (m.root(text), m.root(slice), m.root(array)),
            (
                m.root_weak(Gc::downgrade(text, &m)),
                m.root_weak(Gc::downgrade(slice, &m)),
                m.root_weak(Gc::downgrade(array, &m)),
            ),
        )
    };
    m.collect();
    assert_eq!(weak.0.get(&m).as_deref(), Some("text"));
    assert_eq!(weak.1.get(&m).map(|s| s[9_999]), Some(9_999));
    assert_eq!(weak.2.get(&m).map(|a| a.items()[2]), Some(2));
    {
        let object = greywave::unsize!(m.alloc(Node::new(5)) => dyn Named);
        let weak = Gc::downgrade(object, &m);
        assert_eq!(weak.upgrade(&m).map(|o| o.name()), Some(5));
    }
    drop(roots);
    m.collect();
    assert!(weak.0.get(&m).is_none() && weak.1.get(&m).is_none() && weak.2.get(&m).is_none());
}

#[test]
fn weak_references_are_equal_by_object_also_after_its_death() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let (a, b, c) = {
        let object = m.alloc(Node::new(1));
        let other = m.alloc(Node::new(2));
        (
            m.root_weak(Gc::downgrade(object, &m)),
            m.root_weak(Gc::downgrade(object, &m)),
            m.root_weak(Gc::downgrade(other, &m)),
        )
    };
    assert!(a.weak(&m).ptr_eq(b.weak(&m)) && !a.weak(&m).ptr_eq(c.weak(&m)));
    m.collect();
    assert!(a.weak(&m).ptr_eq(b.weak(&m)) && !a.weak(&m).ptr_eq(c.weak(&m)));
}

#[test]
fn zero_sized_objects_do_not_die() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let weak = m.root_weak(Gc::downgrade(m.alloc(()), &m));
    m.collect();
    m.collect();
    assert!(weak.get(&m).is_some());
}

/// An object that a thread has just made is in its hands, whatever the collector is at.
#[test]
fn a_new_object_upgrades_at_any_moment_of_a_cycle() {
    let heap = heap();
    let collecting = Collecting::new(&heap);
    within(Duration::from_secs(60), || {
        let mut m = heap.attach().expect("attached");
        let end = collecting.race(duration(Duration::from_secs(1), 0.05));
        let mut id = 0;
        while !end.is_over() {
            for _ in 0..200 {
                id += 1;
                let object = m.alloc(Node::new(id));
                let weak = Gc::downgrade(object, &m);
                let up = weak.upgrade(&m);
                assert!(
                    up.is_some_and(|u| u.ptr_eq(object)),
                    "object {id} is held here and was not upgraded, in cycle {}",
                    heap.stats().cycles
                );
            }
            m.safepoint();
        }
    });
    println!("{} cycles", collecting.cycles());
}

/// What an upgrade gives out lives on, also when it comes in the last moment of marking.
#[test]
fn what_is_upgraded_late_survives() {
    let heap = heap();
    let collecting = Collecting::new(&heap);
    let seconds = duration(Duration::from_secs(1), 0.05);
    let saved = AtomicUsize::new(0);
    within(seconds * 3 + Duration::from_secs(60), || {
        std::thread::scope(|s| {
            for t in 0..3_u64 {
                let (heap, saved) = (&heap, &saved);
                let end = collecting.race(seconds);
                s.spawn(move || {
                    let mut m = heap.attach().expect("attached");
                    let anchor: Root<Node<'static>> = m.root(m.alloc(Node::new(t)));
                    let mut id = t << 32;
                    while !end.is_over() {
                        id += 1;
                        // A chain that only a weak reference knows.
                        let weak: WeakRoot<Node<'static>> = {
                            let last = m.alloc(Node::new(id));
                            let first = m.alloc(Node::new(id));
                            first.next.set(&m, last);
                            m.root_weak(Gc::downgrade(first, &m))
                        };
                        for _ in 0..id % 40 {
                            m.safepoint();
                            std::hint::black_box(m.alloc(Node::new(0)));
                        }
                        let hit = match weak.get(&m) {
                            Some(first) => {
                                // Kept by a new object only, which a running cycle does not scan.
                                let fresh = m.alloc(Node::new(id));
                                fresh.next.set(&m, first);
                                anchor.get(&m).next.set(&m, fresh);
                                true
                            }
                            None => false,
                        };
                        m.safepoint();
                        if hit {
                            saved.fetch_add(1, Ordering::Relaxed);
                            for _ in 0..3 {
                                let mut at = anchor.get(&m).next.get();
                                let mut count = 0;
                                while let Some(node) = at {
                                    node.check();
                                    assert_eq!(node.id, id);
                                    count += 1;
                                    at = node.next.get();
                                }
                                assert_eq!(count, 3);
                                assert!(weak.get(&m).is_some(), "it is reachable");
                                m.safepoint();
                            }
                            anchor.get(&m).next.set(&m, None);
                        }
                    }
                });
            }
        });
    });
    assert!(saved.load(Ordering::Relaxed) > 100);
    println!("{} cycles", collecting.cycles());
    drop(collecting);
    heap.verify().expect("whole");
}

/// Several threads compare references to one object, in cells far from each other, while cycles
/// end.
#[test]
fn two_references_to_one_object_are_equal_also_while_it_dies() {
    const OBJECTS: usize = 20_000;
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let mut looks = 0;
    for round in 0..5 {
        let mut pairs = Vec::new();
        {
            let m = heap.attach().expect("attached");
            let all = (0..OBJECTS).map(|id| m.alloc(Node::new(id as u64)));
            let all: Vec<_> = all.collect();
            let weak = |node: &Gc<'_, Node<'_>>| m.root_weak(Gc::downgrade(*node, &m));
            let firsts: Vec<_> = all.iter().map(weak).collect();
            let seconds: Vec<_> = all.iter().map(weak).collect();
            pairs.extend(firsts.into_iter().zip(seconds));
        }
        let cycles = heap.stats().cycles;
        std::thread::scope(|s| {
            s.spawn(|| heap.collect());
            let mut m = heap.attach().expect("attached");
            while heap.stats().cycles == cycles {
                for (one, two) in pairs.iter().step_by(OBJECTS / 64) {
                    looks += 1;
                    let dead = two.is_dead(&m);
                    assert!(one.weak(&m).ptr_eq(two.weak(&m)), "round {round}");
                    // An upgrade of a living one would keep it, and the next one with it.
                    assert!(
                        !dead || one.get(&m).is_none(),
                        "round {round}: dead, and upgraded"
                    );
                }
                m.safepoint();
            }
        });
    }
    assert!(looks > 0);
}

/// A table that asks `is_dead` keeps nothing; one that upgrades, while marking runs, keeps what it
/// looks at.
#[test]
fn asking_whether_it_is_dead_keeps_nothing() {
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let (ended, m) = (heap.stats().cycles, heap.attach().expect("attached"));
    let weak = m.root_weak(Gc::downgrade(m.alloc(Node::new(1)), &m));
    drop(m);
    std::thread::scope(|s| {
        s.spawn(|| heap.collect());
        let mut m = heap.attach().expect("attached");
        // In one cycle, and no more: who is looked at all the time would never die otherwise.
        while heap.stats().cycles == ended {
            let _ = weak.is_dead(&m);
            m.safepoint();
        }
        assert!(weak.is_dead(&m));
        assert!(weak.get(&m).is_none());
    });
}

#[test]
fn values_without_a_size_are_one_object_that_does_not_die() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let one = m.root_weak(Gc::downgrade(m.alloc(()), &m));
    let two = m.root_weak(Gc::downgrade(m.alloc(()), &m));
    let [text, more] = ["", ""].map(|text| m.root_weak(Gc::downgrade(m.alloc_str(text), &m)));
    for _ in 0..3 {
        assert!(one.get(&m).is_some() && !one.is_dead(&m));
        assert!(one.weak(&m).ptr_eq(two.weak(&m)));
        assert!(text.get(&m).is_some() && text.weak(&m).ptr_eq(more.weak(&m)));
        m.collect();
    }
}
