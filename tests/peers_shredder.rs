//! The cases of shredder's tests, for this collector. `peers.md` says which test follows which.

#![allow(dead_code, reason = "some fields are there to be traced or dropped")]

use std::any::Any;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, RwLock};

use greywave::{Frame, Gc, GcCell, GcLock, Mutator, Root, Trace, dyn_target, unsize};

#[path = "peers/common.rs"]
mod common;

use common::support::{Counted, Random, within};
use common::{PATIENCE, heap, needs_trace, run};

#[derive(Trace)]
struct Node<'gc> {
    label: String,
    edges: GcLock<Vec<Gc<'gc, Node<'gc>>>>,
}

fn node<'m>(m: &'m Mutator, label: &str) -> Gc<'m, Node<'m>> {
    m.alloc(Node {
        label: label.to_owned(),
        edges: GcLock::new(Vec::new()),
    })
}

#[test]
fn a_large_random_graph_shrinks_as_its_roots_go() {
    const NODES: usize = 1 << 14;
    run(|m, _| {
        let mut nodes: Frame<Vec<Gc<'static, Node<'static>>>> = Frame::new(m, Vec::new());
        // The graph once more, as numbers.
        let mut edges: Vec<Vec<usize>> = vec![Vec::new(); NODES];
        let mut random = Random::new(0xCAFE);
        {
            let mut open = nodes.enter(m);
            open.extend((0..NODES).map(|i| node(m, &format!("{i:05}"))));
            for _ in 0..NODES {
                let (a, b) = (random.below(NODES), random.below(NODES));
                open[a].edges.write(m).push(open[b]);
                edges[a].push(b);
            }
        }
        for keep in (0..8).map(|i| NODES - 1 - i * NODES / 8) {
            nodes.enter(m).truncate(keep);
            m.collect();
            let mut reached = vec![false; NODES];
            let mut todo: Vec<usize> = (0..keep).collect();
            while let Some(at) = todo.pop() {
                if !std::mem::replace(&mut reached[at], true) {
                    todo.extend(&edges[at]);
                }
            }
            let live = reached.iter().filter(|reached| **reached).count();
            let stats = m.heap().stats();
            assert_eq!(stats.live_bytes, (live * size_of::<Node<'_>>()) as u64);
            assert_eq!(stats.objects_dropped, (NODES - live) as u64);
            assert!(
                nodes
                    .enter(m)
                    .iter()
                    .enumerate()
                    .all(|(i, n)| n.label == format!("{i:05}"))
            );
        }
    });
}

#[test]
fn one_number_is_one_allocation() {
    run(|m, _| {
        let root = m.root(m.alloc(7_u32));
        assert_eq!(*root.get(m), 7);
        m.collect();
        assert!(m.heap().stats().live_bytes >= 4);
        drop(root);
        m.collect();
        assert_eq!(m.heap().stats().live_bytes, 0);
    });
}

#[test]
fn one_node_with_a_label_is_dropped_with_its_text() {
    run(|m, _| {
        let root = m.root(node(m, "A"));
        m.collect();
        assert_eq!(root.get(m).label, "A");
        assert!(m.heap().stats().external_bytes >= 1);
        drop(root);
        m.collect();
        let stats = m.heap().stats();
        assert_eq!(
            (
                stats.live_bytes,
                stats.external_bytes,
                stats.objects_dropped
            ),
            (0, 0, 1)
        );
    });
}

#[test]
fn two_handles_are_one_allocation() {
    run(|m, _| {
        let one = m.root(node(m, "A"));
        m.collect();
        let live = m.heap().stats().live_bytes;
        let two = one.clone();
        m.collect();
        assert_eq!(m.heap().stats().live_bytes, live);
        assert_eq!((&*one.get(m).label, &*two.get(m).label), ("A", "A"));
        drop(one);
        m.collect();
        assert_eq!(m.heap().stats().live_bytes, live);
    });
}

#[test]
fn a_node_that_was_linked_to_itself_through_its_other_handle() {
    run(|m, _| {
        let one = m.root(node(m, "A"));
        let two = one.clone();
        two.get(m).edges.write(m).push(one.get(m));
        drop(one);
        m.collect();
        assert_eq!(two.get(m).edges.read()[0].label, "A");
        drop(two);
        m.collect();
        assert_eq!(m.heap().stats().live_bytes, 0);
    });
}

#[test]
fn what_a_locked_object_hides_is_found_though_the_lock_is_held() {
    let heap = heap();
    within(PATIENCE, || {
        let mut m = heap.attach().expect("attached");
        let root = {
            let (root, hidden) = (node(&m, "root"), node(&m, "hidden"));
            root.edges.write(&m).push(hidden);
            // Another that leads to it, and dies.
            node(&m, "hider").edges.write(&m).push(hidden);
            m.root(root)
        };
        m.collect();
        {
            let node = root.get(&m);
            let _held = node.edges.write(&m);
            // It looks through the lock: the walk of the verifier, with this thread in the middle
            // of a section.
            heap.verify().expect("whole");
        }
        m.collect();
        let live = heap.stats().live_bytes;
        assert_eq!(
            live,
            2 * size_of::<Node<'_>>() as u64,
            "two, without the hider"
        );
        assert_eq!(root.get(&m).edges.read()[0].label, "hidden");
        drop(root);
        m.collect();
        assert_eq!(heap.stats().live_bytes, 0);
    });
}

/// Says what happened to it.
struct Tracker(Arc<Mutex<&'static str>>);

impl Drop for Tracker {
    fn drop(&mut self) {
        *self.0.lock().expect("no panic") = "dropped";
    }
}

#[derive(Trace)]
struct Tracked(#[trace(skip)] Tracker);
#[derive(Trace)]
struct Undropped(#[trace(skip)] ManuallyDrop<Tracker>);

#[test]
fn a_drop_runs_unless_the_object_says_that_it_must_not() {
    let (dropped, kept) = (Arc::new(Mutex::new("none")), Arc::new(Mutex::new("none")));
    run(|m, _| {
        let roots = (
            m.root(m.alloc(Tracked(Tracker(dropped.clone())))),
            m.root(m.alloc(Undropped(ManuallyDrop::new(Tracker(kept.clone()))))),
        );
        m.collect();
        let text = |at: &Mutex<&'static str>| *at.lock().expect("no panic");
        assert_eq!((text(&dropped), text(&kept)), ("none", "none"));
        drop(roots);
        m.collect();
        assert_eq!((text(&dropped), text(&kept)), ("dropped", "none"));
        assert_eq!(m.heap().stats().objects_dropped, 1);
    });
    assert_eq!(Arc::strong_count(&kept), 2, "it was never dropped");
}

#[derive(Trace)]
struct Cell<'gc>(GcCell<'gc, u32>);

#[test]
fn a_cell_leads_to_what_was_stored_last_and_keeps_nothing_else() {
    run(|m, _| {
        let root = m.root(m.alloc(Cell(GcCell::new(Some(m.alloc(17))))));
        let read = |m: &Mutator| root.get(m).0.get().map(|number| *number);
        m.collect();
        assert_eq!(read(m), Some(17));
        let live = m.heap().stats().live_bytes;
        root.get(m).0.set(m, m.alloc(20));
        assert_eq!(read(m), Some(20));
        m.collect();
        assert_eq!((read(m), m.heap().stats().live_bytes), (Some(20), live));
        root.get(m).0.set(m, None);
        m.collect();
        assert_eq!((read(m), m.heap().stats().live_bytes < live), (None, true));
    });
}

#[derive(Trace)]
struct Peer<'gc>(GcCell<'gc, Peer<'gc>>, Counted);

#[test]
fn cells_that_lead_to_each_other_are_a_ring() {
    run(|m, drops| {
        let (a, b) = {
            let peer = || m.alloc(Peer(GcCell::null(), drops.one()));
            let (a, b) = (peer(), peer());
            a.0.set(m, b.0.swap(m, a).or(Some(b)));
            (m.root(a), m.root(b))
        };
        assert!(a.get(m).0.get().is_some_and(|peer| peer.ptr_eq(b.get(m))));
        assert!(b.get(m).0.get().is_some_and(|peer| peer.ptr_eq(a.get(m))));
        drop(a);
        m.collect();
        assert_eq!(drops.count(), 0);
        drop(b);
        m.collect();
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn an_exchange_compares_objects_and_not_values() {
    run(|m, _| {
        let root = m.root(m.alloc(Cell(GcCell::null())));
        {
            let cell = &root.get(m).0;
            let (one, same, two) = (m.alloc(123), m.alloc(123), m.alloc(1776));
            assert_eq!(one, same, "equal by value");
            cell.set(m, one);
            let old = cell.compare_exchange(m, Some(one), Some(two));
            assert!(old.is_ok_and(|old| old.is_some_and(|old| old.ptr_eq(one))));
            cell.set(m, one);
            let now = cell.compare_exchange(m, Some(same), Some(two));
            assert!(now.is_err_and(|now| now.is_some_and(|now| now.ptr_eq(one))));
            assert!(cell.compare_exchange(m, None, Some(two)).is_err());
            assert!(cell.get().is_some_and(|at| at.ptr_eq(one)));
        }
        m.collect();
        assert_eq!(root.get(m).0.get().map(|number| *number), Some(123));
    });
}

#[test]
fn an_exchange_with_nothing_works_both_ways() {
    run(|m, _| {
        let root = m.root(m.alloc(Cell(GcCell::null())));
        {
            let cell = &root.get(m).0;
            let one = m.alloc(1);
            assert!(
                cell.compare_exchange(m, Some(one), None)
                    .is_err_and(|now| now.is_none())
            );
            assert!(
                cell.compare_exchange(m, None, Some(one))
                    .is_ok_and(|old| old.is_none())
            );
            assert!(cell.compare_exchange(m, Some(one), None).is_ok());
            assert!(cell.swap(m, one).is_none());
        }
        m.collect();
        assert_eq!(root.get(m).0.swap(m, None).map(|number| *number), Some(1));
        m.collect();
        assert!(root.get(m).0.get().is_none());
    });
}

trait Super {
    fn as_any(&self) -> &dyn Any;
}
dyn_target!(dyn Super);

#[derive(Trace)]
struct Sub(u8);
#[derive(Trace)]
struct NotSub(u8);

impl Super for Sub {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[test]
fn a_trait_object_is_its_own_type_and_no_other() {
    run(|m, _| {
        let root: Root<dyn Super> = m.root(unsize!(m.alloc(Sub(3)) => dyn Super));
        m.collect();
        let object = root.get(m);
        assert_eq!(
            object.as_any().downcast_ref::<Sub>().map(|sub| sub.0),
            Some(3)
        );
        assert!(object.as_any().downcast_ref::<NotSub>().is_none());
    });
}

trait Expression {
    fn largest(&self) -> Option<i64>;
    fn longest(&self) -> Option<&str>;
}
dyn_target!(dyn Expression);

type Ex<'gc> = Gc<'gc, dyn Expression + 'gc>;

#[derive(Trace)]
struct Both<'gc>(Ex<'gc>, Ex<'gc>);
#[derive(Trace)]
struct Number(i64);
#[derive(Trace)]
struct Text(String);

impl Expression for Both<'_> {
    fn largest(&self) -> Option<i64> {
        self.0.largest().max(self.1.largest())
    }
    fn longest(&self) -> Option<&str> {
        [self.0.longest(), self.1.longest()]
            .into_iter()
            .flatten()
            .max_by_key(|text| text.len())
    }
}

impl Expression for Number {
    fn largest(&self) -> Option<i64> {
        Some(self.0)
    }
    fn longest(&self) -> Option<&str> {
        None
    }
}

impl Expression for Text {
    fn largest(&self) -> Option<i64> {
        None
    }
    fn longest(&self) -> Option<&str> {
        Some(&self.0)
    }
}

#[test]
fn a_tree_of_trait_objects_is_a_tree_of_objects() {
    fn both<'m>(m: &'m Mutator, a: Ex<'m>, b: Ex<'m>) -> Ex<'m> {
        unsize!(m.alloc(Both(a, b)) => dyn Expression)
    }
    run(|m, _| {
        let leaves: Vec<Root<dyn Expression>> = ["this", "this is longer", "this is the longest"]
            .into_iter()
            .enumerate()
            .flat_map(|(i, text)| {
                let number = m.alloc(Number(10_i64.pow(i as u32 + 1)));
                let text = m.alloc(Text(text.to_owned()));
                [
                    m.root(unsize!(number => dyn Expression)),
                    m.root(unsize!(text => dyn Expression)),
                ]
            })
            .collect();
        m.collect();
        let live = m.heap().stats().live_bytes;
        let root = {
            let at = |i: usize| leaves[i].get(m);
            let (numbers, texts) = (both(m, at(0), at(2)), both(m, at(1), at(3)));
            m.root(both(m, texts, numbers))
        };
        m.collect();
        assert_eq!(
            m.heap().stats().live_bytes,
            live + 3 * size_of::<Both<'_>>() as u64
        );
        assert_eq!(root.get(m).largest(), Some(100));
        assert_eq!(Gc::as_ref(root.get(m)).longest(), Some("this is longer"));
        drop(root);
        m.collect();
        assert_eq!(m.heap().stats().live_bytes, live, "the leaves are rooted");
        let mixed = {
            let at = |i: usize| leaves[i].get(m);
            let pairs = [
                both(m, at(0), at(1)),
                both(m, at(2), at(3)),
                both(m, at(4), at(5)),
            ];
            m.root(both(m, pairs[2], both(m, pairs[0], pairs[1])))
        };
        drop(leaves);
        m.collect();
        assert_eq!(mixed.get(m).largest(), Some(1000));
        assert_eq!(
            Gc::as_ref(mixed.get(m)).longest(),
            Some("this is the longest")
        );
    });
}

trait Colour {
    /// Appends the labels from here to the end of the list.
    fn labels(&self, list: &mut Vec<&'static str>);
}
dyn_target!(dyn Colour);

type Next<'gc> = GcLock<Option<Gc<'gc, dyn Colour + 'gc>>>;

macro_rules! colours {
    ($($name:ident $label:literal)*) => { $(
        #[derive(Trace)]
        struct $name<'gc>(Next<'gc>);
        impl<'gc> $name<'gc> {
            fn before(
                m: &'gc Mutator,
                next: Option<Gc<'gc, dyn Colour + 'gc>>,
            ) -> Option<Gc<'gc, dyn Colour + 'gc>> {
                Some(unsize!(m.alloc($name(GcLock::new(next))) => dyn Colour))
            }
        }
        impl Colour for $name<'_> {
            fn labels(&self, list: &mut Vec<&'static str>) {
                list.push($label);
                if let Some(next) = &*self.0.read() {
                    next.labels(list);
                }
            }
        }
    )* };
}

colours! { Blue "blue" Red "red" Green "green" Black "black" }

#[test]
fn a_list_through_trait_objects_of_several_types() {
    run(|m, _| {
        let root: Root<dyn Colour> = {
            let end = Blue::before(m, Red::before(m, Blue::before(m, None)));
            let middle = Black::before(m, Black::before(m, Green::before(m, end)));
            let start = Red::before(m, Blue::before(m, Green::before(m, middle)));
            m.root(Blue::before(m, start).expect("made"))
        };
        for _ in 0..2 {
            m.collect();
            assert_eq!(
                m.heap().stats().live_bytes,
                10 * size_of::<Blue<'_>>() as u64
            );
            let mut labels = Vec::new();
            root.get(m).labels(&mut labels);
            let want = [
                "blue", "red", "blue", "green", "black", "black", "green", "blue", "red", "blue",
            ];
            assert_eq!(labels, want);
        }
    });
}

#[test]
fn two_that_own_each_other_are_gone_when_the_heap_is() {
    let heap = heap();
    {
        let m = heap.attach().expect("attached");
        let (a, b) = (node(&m, "A"), node(&m, "B"));
        a.edges.write(&m).push(b);
        b.edges.write(&m).push(a);
    }
    heap.collect();
    assert_eq!(
        (heap.stats().live_bytes, heap.stats().objects_dropped),
        (0, 2)
    );
}

#[test]
fn plain_values_are_not_scanned() {
    assert!(!needs_trace::<(
        bool,
        char,
        u8,
        i16,
        u32,
        i64,
        u128,
        usize,
        f32,
        f64
    )>());
    assert!(!needs_trace::<(
        isize,
        i8,
        u16,
        i32,
        u64,
        i128,
        String,
        &'static str
    )>());
    assert!(!needs_trace::<Option<Vec<Box<str>>>>());
    assert!(!needs_trace::<(
        Mutex<u8>,
        RwLock<String>,
        Arc<Mutex<std::cell::Cell<u8>>>
    )>());
    assert!(needs_trace::<(u8, Vec<Option<Gc<'static, u8>>>)>());
    assert!(needs_trace::<GcLock<Option<Gc<'static, u8>>>>() && !needs_trace::<GcLock<u8>>());
}

#[test]
fn a_poisoned_lock_of_std_is_a_value_as_before() {
    run(|m, drops| {
        let root = m.root(m.alloc((Mutex::new(drops.one()), RwLock::new(drops.one()))));
        for _ in 0..2 {
            m.collect();
            assert_eq!(drops.count(), 0);
            let (mutex, lock) = &*root.get(m);
            let poison = catch_unwind(AssertUnwindSafe(|| {
                let _held = (mutex.lock(), lock.write());
                panic!("with both locks held");
            }));
            assert!(poison.is_err() && mutex.is_poisoned() && lock.is_poisoned());
        }
        drop(root);
        m.collect();
        assert_eq!((drops.count(), m.heap().stats().drop_panics), (2, 0));
    });
}

#[test]
fn a_panic_with_a_lock_held_gives_the_lock_back() {
    run(|m, _| {
        let root = m.root(m.alloc(GcLock::new(vec![m.alloc(1)])));
        let poison = catch_unwind(AssertUnwindSafe(|| {
            let lock = root.get(m);
            let mut open = lock.write(m);
            open.push(m.alloc(2));
            panic!("in the middle of a change");
        }));
        assert!(poison.is_err());
        m.collect();
        let lock = root.get(m);
        assert_eq!(
            lock.try_write(m).map(|open| open.iter().map(|n| **n).sum()),
            Some(3)
        );
    });
}

#[test]
fn many_read_or_one_writes() {
    run(|m, _| {
        let lock = m.alloc(GcLock::new(1));
        {
            let (one, two) = (lock.read(), lock.try_read().expect("readers share"));
            assert_eq!(*one + *two, 2);
            assert!(lock.try_write(m).is_none());
            drop(one);
            assert!(lock.try_write(m).is_none());
        }
        {
            let mut open = lock.try_write(m).expect("free");
            *open = 5;
            assert!(lock.try_read().is_none() && lock.try_write(m).is_none());
        }
        assert_eq!(lock.try_read().map(|open| *open), Some(5));
    });
}
