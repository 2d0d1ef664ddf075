//! The cases of dumpster's tests, for this collector. `peers.md` says which test follows which.

#![allow(dead_code, reason = "some fields are there to be traced or dropped")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greywave::{Frame, Gc, GcCell, GcLock, GcOnce, Heap, Mutator, Root, Trace, dyn_target, unsize};

#[path = "peers/common.rs"]
mod common;

use common::support::{Collecting, Counted, Random, within};
use common::{Drops, PATIENCE, churn_until, heap, run, run_on};

/// Points to any number of its kind.
#[derive(Trace)]
struct Multi<'gc> {
    to: GcLock<Vec<Gc<'gc, Multi<'gc>>>>,
    counted: Counted,
}

fn multi<'m>(m: &'m Mutator, drops: &Drops, to: &[Gc<'m, Multi<'m>>]) -> Gc<'m, Multi<'m>> {
    m.alloc(Multi {
        to: GcLock::new(to.to_vec()),
        counted: drops.one(),
    })
}

/// Drops the roots one after another; all objects die with the last.
fn die_with_the_last(m: &mut Mutator, drops: &Drops, roots: Vec<Root<Multi<'static>>>) {
    let all = drops.alive();
    m.collect();
    for root in roots {
        assert_eq!(drops.alive(), all);
        drop(root);
        m.collect();
    }
    assert_eq!(drops.alive(), 0);
}

#[test]
fn an_object_without_edges_dies_with_its_last_root() {
    run(|m, drops| {
        let root = m.root(multi(m, drops, &[]));
        let roots = vec![root.clone(), root.clone(), root];
        die_with_the_last(m, drops, roots);
    });
}

#[test]
fn an_object_with_an_edge_to_itself_dies_with_its_root() {
    run(|m, drops| {
        let root = {
            let object = multi(m, drops, &[]);
            object.to.write(m).push(object);
            m.root(object)
        };
        die_with_the_last(m, drops, vec![root]);
    });
}

#[test]
fn two_with_edges_to_each_other_die_with_the_second_root() {
    run(|m, drops| {
        let roots = {
            let one = multi(m, drops, &[]);
            let two = multi(m, drops, &[one]);
            one.to.write(m).push(two);
            vec![m.root(one), m.root(two)]
        };
        die_with_the_last(m, drops, roots);
    });
}

#[test]
fn two_with_edges_to_each_other_and_themselves_die_with_the_second_root() {
    run(|m, drops| {
        let roots = {
            let one = multi(m, drops, &[]);
            let two = multi(m, drops, &[one]);
            one.to.write(m).extend([one, two]);
            two.to.write(m).push(two);
            vec![m.root(two), m.root(one)]
        };
        die_with_the_last(m, drops, roots);
    });
}

#[test]
fn a_complete_graph_lives_by_any_of_its_objects() {
    run(|m, drops| {
        for keep in 0..4 {
            let mut roots: Vec<Root<Multi<'static>>> = Vec::new();
            for _ in 0..4 {
                let new = multi(m, drops, &[]);
                for old in &roots {
                    new.to.write(m).push(old.get(m));
                    old.get(m).to.write(m).push(new);
                }
                roots.push(m.root(new));
            }
            let kept = roots.swap_remove(keep);
            drop(roots);
            m.collect();
            assert_eq!(drops.alive(), 4);
            assert_eq!(kept.get(m).to.read().len(), 3);
            drop(kept);
            m.collect();
            assert_eq!(drops.alive(), 0);
        }
    });
}

#[test]
fn two_ways_round_a_ring_are_one_ring() {
    run(|m, drops| {
        let roots = {
            let bottom = multi(m, drops, &[]);
            let left = multi(m, drops, &[bottom]);
            let right = multi(m, drops, &[bottom]);
            let top = multi(m, drops, &[left, right]);
            bottom.to.write(m).push(top);
            [bottom, left, right, top]
                .map(|object| m.root(object))
                .into()
        };
        die_with_the_last(m, drops, roots);
    });
}

#[test]
fn an_edge_to_itself_goes_while_the_lock_is_held() {
    run(|m, drops| {
        let root = m.root(multi(m, drops, &[]));
        {
            let object = root.get(m);
            object.to.write(m).push(object);
            let mut open = object.to.write(m);
            let own = open.pop();
            assert!(own.is_some_and(|own| own.ptr_eq(object) && own.to.try_read().is_none()));
        }
        die_with_the_last(m, drops, vec![root]);
    });
}

#[test]
fn pointers_to_slices_have_two_words() {
    run(|m, _| {
        let slice: Gc<'_, [u8]> = m.alloc_slice(3, |_| 0);
        assert_eq!(slice.len(), 3);
        assert_eq!(size_of_val(&slice), 2 * size_of::<usize>());
        assert_eq!(size_of::<Gc<'_, [u8; 3]>>(), size_of::<usize>());
        assert_eq!(size_of::<Option<Gc<'_, [u8]>>>(), 2 * size_of::<usize>());
        assert_eq!(size_of::<Option<Gc<'_, u8>>>(), size_of::<usize>());
        let array = m.alloc([1_u8, 2, 3]);
        let seen: Gc<'_, [u8]> = unsize!(array => [u8]);
        assert_eq!(&*seen, [1, 2, 3]);
    });
}

#[test]
fn an_array_seen_as_a_slice_is_kept_by_that_view() {
    run(|m, drops| {
        let root: Root<[Gc<'static, Counted>]> = {
            let array = m.alloc([m.alloc(drops.one()), m.alloc(drops.one())]);
            m.root(unsize!(array => [Gc<'_, Counted>]))
        };
        m.collect();
        assert_eq!((root.get(m).len(), drops.count()), (2, 0));
        drop(root);
        m.collect();
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn copies_of_text_and_of_lists_of_text() {
    let list = [String::from("hello"), String::from("world")];
    run(|m, _| {
        let text = m.root(m.alloc_str(&list[0]));
        let copied = m.root(m.alloc_slice(2, |i| list[i].clone()));
        let mut moved = list.clone().into_iter();
        let moved = m.root(m.alloc_slice(2, |_| moved.next().expect("two")));
        m.collect();
        assert_eq!(&*text.get(m), "hello");
        assert_eq!(&*copied.get(m), list);
        assert_eq!(&*moved.get(m), list);
        assert_eq!(
            m.heap().stats().external_bytes,
            20,
            "the buffers of four strings"
        );
        drop((copied, moved));
        m.collect();
        assert_eq!(m.heap().stats().external_bytes, 0);
    });
}

#[test]
fn a_copy_that_panics_halfway_is_no_object() {
    run(|m, drops| {
        let made = catch_unwind(AssertUnwindSafe(|| {
            let items = ["a", "b", "c"];
            let copies = m.alloc_slice(3, |i| {
                assert!(items[i] != "c", "told you");
                (items[i].to_owned(), drops.one())
            });
            copies.len()
        }));
        let message = made.expect_err("it panicked");
        assert!(
            message
                .downcast_ref::<&str>()
                .is_some_and(|text| text.contains("told you"))
        );
        assert_eq!((drops.count(), drops.alive()), (2, 0), "dropped at once");
        m.collect();
        assert_eq!(m.heap().stats().external_bytes, 0);
    });
}

#[derive(Trace)]
struct Holder<'gc>(GcCell<'gc, u32>);

/// Gives a holder a number of its own, and the others keep theirs.
fn replace(m: &Mutator, holder: &Root<Holder<'static>>, add: u32) {
    let holder = holder.get(m);
    let old = holder.0.get().expect("always set");
    holder.0.set(m, m.alloc(*old + add));
}

#[test]
fn holders_of_one_object_get_their_own_and_leave_the_others() {
    run(|m, _| {
        let roots = {
            let shared = m.alloc(42);
            [0, 1, 2].map(|_| m.root(m.alloc(Holder(GcCell::new(Some(shared))))))
        };
        let read = |m: &Mutator| roots.each_ref().map(|r| r.get(m).0.get().map(|n| *n));
        replace(m, &roots[0], 1);
        m.collect();
        assert_eq!(read(m), [Some(43), Some(42), Some(42)]);
        let second = roots[1].get(m).0.get();
        assert!(
            second
                .zip(roots[2].get(m).0.get())
                .is_some_and(|(a, b)| a.ptr_eq(b))
        );
        replace(m, &roots[1], 2);
        replace(m, &roots[2], 3);
        m.collect();
        assert_eq!(read(m), [Some(43), Some(44), Some(45)]);
        assert!(
            m.heap().stats().live_bytes <= 3 * (8 + 8),
            "the first number is garbage"
        );
    });
}

#[derive(Trace)]
struct Once<'gc>(GcOnce<'gc, Once<'gc>>, Counted);

#[test]
fn an_object_that_is_told_about_itself_after_it_was_made() {
    run(|m, drops| {
        let root = {
            let plain = m.alloc(Once(GcOnce::empty(), drops.one()));
            let own = m.alloc(Once(GcOnce::empty(), drops.one()));
            assert!(own.0.set(m, own).is_ok());
            assert!(plain.0.get().is_none());
            m.root(own)
        };
        m.collect();
        assert_eq!(drops.count(), 1);
        assert!(
            root.get(m)
                .0
                .get()
                .is_some_and(|own| own.ptr_eq(root.get(m)))
        );
        drop(root);
        m.collect();
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn objects_that_a_drop_causes_are_collected_in_their_turn() {
    /// Asks, in its drop, for a successor with an edge to itself.
    #[derive(Trace)]
    struct Asks(#[trace(skip)] std::sync::mpsc::Sender<()>, Counted);
    impl Drop for Asks {
        fn drop(&mut self) {
            self.0.send(()).expect("the test listens");
        }
    }
    run(|m, drops| {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::hint::black_box(m.alloc(Asks(sender, drops.one())));
        m.collect();
        assert_eq!(drops.count(), 1);
        let asked = receiver.iter().count();
        assert_eq!(asked, 1);
        let ring = multi(m, drops, &[]);
        ring.to.write(m).push(ring);
        m.collect();
        assert_eq!(drops.count(), 2);
    });
}

trait Anything {}
impl<T: Send + Sync> Anything for T {}
dyn_target!(dyn Anything);

#[test]
fn a_trait_of_the_users_own_that_every_type_has() {
    run(|m, drops| {
        let (number, counted): (Root<dyn Anything>, Root<dyn Anything>) = (
            m.root(unsize!(m.alloc(5_i32) => dyn Anything)),
            m.root(unsize!(m.alloc(drops.one()) => dyn Anything)),
        );
        m.collect();
        assert_eq!((size_of_val(&*number.get(m)), drops.count()), (4, 0));
        drop(counted);
        m.collect();
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_slice_from_an_iterator() {
    run(|m, _| {
        let mut squares = (0_u64..100).map(|n| n * n);
        let root = m.root(m.alloc_slice(100, |_| squares.next().expect("a hundred")));
        m.collect();
        assert!(
            root.get(m)
                .iter()
                .zip(0..)
                .all(|(square, n)| *square == n * n)
        );
        assert!(squares.next().is_none());
    });
}

#[derive(Trace)]
struct Ab<'gc> {
    a: GcOnce<'gc, Ab<'gc>>,
    b: Option<Gc<'gc, Ab<'gc>>>,
    counted: Counted,
}

#[test]
fn a_slice_of_objects_that_point_to_themselves_and_each_other() {
    run(|m, drops| {
        let root = {
            let mut all: Vec<Gc<'_, Ab<'_>>> = Vec::new();
            for _ in 0..11 {
                let (a, b) = (GcOnce::empty(), all.last().copied());
                let ab = m.alloc(Ab {
                    a,
                    b,
                    counted: drops.one(),
                });
                assert!(ab.a.set(m, ab).is_ok());
                all.push(ab);
            }
            m.root(m.alloc_slice(11, |i| all[i]))
        };
        m.collect();
        let all = root.get(m);
        for i in 0..11 {
            assert!(all[i].a.get().is_some_and(|a| a.ptr_eq(all[i])));
            assert_eq!(all[i].b.is_some_and(|b| b.ptr_eq(all[i - 1])), i > 0);
        }
        drop(root);
        m.collect();
        assert_eq!(drops.count(), 11);
    });
}

#[test]
fn a_read_lock_that_is_held_stops_nothing_but_writers() {
    let heap = heap();
    within(PATIENCE, || {
        let mut m = heap.attach().expect("attached");
        let root = m.root(m.alloc(GcLock::new(7)));
        {
            let lock = root.get(&m);
            let _held = lock.read();
            // Others read it, and fail to write it, while it is held here.
            std::thread::scope(|s| {
                s.spawn(|| {
                    let m = heap.attach().expect("attached");
                    assert_eq!(*root.get(&m).read(), 7);
                    assert!(root.get(&m).try_write(&m).is_none());
                });
            });
        }
        *root.get(&m).write(&m) = 8;
        m.collect();
        assert_eq!(*root.get(&m).read(), 8);
    });
}

#[test]
fn rings_are_collected_some_time_when_nobody_asks() {
    run_on(
        Heap::builder().gogc(Some(100)).build().expect("a heap"),
        |m, drops| {
            {
                let one = multi(m, drops, &[]);
                let two = multi(m, drops, &[one]);
                one.to.write(m).push(two);
            }
            churn_until(m, |_| drops.count() == 2);
            assert_eq!(m.heap().stats().forced_cycles, 0);
        },
    );
}

/// An edge moves from an object that may not be marked yet to one that may be, back and forth, on
/// another thread than the one that reads it.
#[test]
fn an_edge_that_changes_hands_while_others_look() {
    #[derive(Trace)]
    struct Hands<'gc>([GcCell<'gc, Multi<'gc>>; 4]);
    let drops = Drops::default();
    {
        let heap = heap();
        let root = {
            let m = heap.attach().expect("attached");
            let hands = Hands(std::array::from_fn(|_| GcCell::null()));
            let far = multi(&m, &drops, &[multi(&m, &drops, &[])]);
            hands.0[0].set(&m, far);
            m.root(m.alloc(hands))
        };
        let collecting = Collecting::new(&heap);
        within(PATIENCE, || {
            std::thread::scope(|s| {
                for t in 0..2 {
                    let (heap, root, collecting) = (&heap, &root, &collecting);
                    s.spawn(move || {
                        let mut m = heap.attach().expect("attached");
                        let mut random = Random::new(t);
                        while collecting.cycles() < 150 {
                            {
                                let hands = root.get(&m);
                                let from = &hands.0[random.below(4)];
                                if let Some(held) = from.swap(&m, None) {
                                    assert_eq!(held.to.read().len(), 1);
                                    // Into a free hand; with two threads and one edge there is one.
                                    let to = &hands.0[random.below(4)];
                                    assert!(to.swap(&m, held).is_none());
                                }
                            }
                            m.safepoint();
                        }
                    });
                }
            });
        });
        drop(collecting);
        heap.collect();
        assert_eq!(drops.count(), 0, "it was in somebody's hand all the time");
        heap.verify().expect("whole");
    }
    assert_eq!(drops.count(), 2);
}

/// An object of the random graph.
#[derive(Trace)]
struct Alloc<'gc> {
    to: GcLock<Vec<Gc<'gc, Alloc<'gc>>>>,
    id: usize,
    detector: Detector,
}

/// Notes in a table that it was dropped.
#[derive(Trace)]
struct Detector {
    #[trace(skip)]
    table: Arc<[AtomicUsize]>,
    id: usize,
}

impl Drop for Detector {
    fn drop(&mut self) {
        self.table[self.id].fetch_add(1, Ordering::Relaxed);
    }
}

/// Random allocations, edges and handles on one thread; each thread has ids of its own.
fn random_program(
    m: &mut Mutator,
    ids: std::ops::Range<usize>,
    table: &Arc<[AtomicUsize]>,
    steps: usize,
) {
    let mut handles: Frame<Vec<Gc<'static, Alloc<'static>>>> = Frame::new(m, Vec::new());
    let mut random = Random::new(ids.start as u64);
    let mut next = ids.start;
    for _ in 0..steps {
        {
            let mut open = handles.enter(m);
            let count = open.len();
            match random.below(4) {
                0 | 1 if count == 0 || (random.one_in(2) && next < ids.end) => {
                    let detector = Detector {
                        table: table.clone(),
                        id: next,
                    };
                    let to = GcLock::new(Vec::new());
                    open.push(m.alloc(Alloc {
                        to,
                        id: next,
                        detector,
                    }));
                    next += 1;
                }
                _ if count == 0 => {}
                1 => {
                    let (from, to) = (open[random.below(count)], open[random.below(count)]);
                    from.to.write(m).push(to);
                }
                2 => {
                    open.swap_remove(random.below(count));
                }
                _ => {
                    let from = open[random.below(count)];
                    let mut edges = from.to.write(m);
                    if !edges.is_empty() {
                        let which = random.below(edges.len());
                        edges.swap_remove(which);
                    }
                }
            }
        }
        m.safepoint();
        if random.one_in(2000) {
            m.collect();
        }
    }
    m.collect();
    // What can be reached has not been dropped.
    let mut seen = vec![false; ids.len()];
    let open = handles.enter(m);
    let mut todo = open.clone();
    while let Some(at) = todo.pop() {
        if !std::mem::replace(&mut seen[at.id - ids.start], true) {
            assert_eq!(table[at.id].load(Ordering::Relaxed), 0);
            todo.extend(at.to.read().iter());
        }
    }
    drop(open);
    for (id, seen) in (ids.start..next).zip(seen) {
        assert_eq!(
            table[id].load(Ordering::Relaxed),
            usize::from(!seen),
            "object {id}"
        );
    }
    drop(handles);
    m.collect();
    for id in ids.start..next {
        assert_eq!(table[id].load(Ordering::Relaxed), 1, "object {id}");
    }
}

#[test]
fn a_random_program_drops_each_object_once_and_none_too_soon() {
    let table: Arc<[AtomicUsize]> = (0..100_000).map(|_| AtomicUsize::new(0)).collect();
    run(|m, _| random_program(m, 0..100_000, &table, 60_000));
}

#[test]
fn random_programs_side_by_side_drop_each_object_once_and_none_too_soon() {
    const EACH: usize = 10_000;
    let table: Arc<[AtomicUsize]> = (0..3 * EACH).map(|_| AtomicUsize::new(0)).collect();
    let heap = heap();
    within(2 * PATIENCE, || {
        std::thread::scope(|s| {
            for t in 0..3 {
                let (heap, table) = (&heap, &table);
                s.spawn(move || {
                    let mut m = heap.attach().expect("attached");
                    random_program(&mut m, t * EACH..(t + 1) * EACH, table, 15_000);
                });
            }
        });
    });
    heap.verify().expect("whole");
}
