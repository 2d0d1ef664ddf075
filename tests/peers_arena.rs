//! The cases of gc-arena's tests, for this collector. `peers.md` says which test follows which.

#![allow(dead_code, reason = "some fields are there to be traced or dropped")]

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};

use greywave::{
    Frame, Gc, GcCell, GcLock, GcOnce, Heap, Root, Trace, Weak, WeakRoot, dyn_target, unsize,
};

#[path = "peers/common.rs"]
mod common;

use common::support::{Collecting, Counted, Random, within};
use common::{PATIENCE, checked, churn_until, needs_trace, run, run_on};

const MIB: u64 = 1 << 20;

#[derive(Trace)]
struct Holder<'gc> {
    number: Gc<'gc, i32>,
}

#[test]
fn a_rooted_struct_leads_to_its_number() {
    run(|m, _| {
        let root: Root<Holder<'static>> = m.root(m.alloc(Holder {
            number: m.alloc(-42),
        }));
        m.collect();
        assert_eq!(*root.get(m).number, -42);
    });
}

#[derive(Trace)]
struct Watched<'gc> {
    strong: GcLock<Option<Gc<'gc, Counted>>>,
    weak: Weak<'gc, Counted>,
}

#[test]
fn a_weak_reference_ends_some_time_after_the_last_edge() {
    run(|m, drops| {
        let root = {
            let object = m.alloc(drops.one());
            let weak = Gc::downgrade(object, m);
            assert!(weak.upgrade(m).is_some_and(|up| up.ptr_eq(object)));
            let strong = GcLock::new(Some(object));
            m.root(m.alloc(Watched { strong, weak }))
        };
        m.collect();
        {
            let watched = root.get(m);
            let object = watched.strong.read().expect("not taken yet");
            assert!(watched.weak.upgrade(m).is_some_and(|up| up.ptr_eq(object)));
            *watched.strong.write(m) = None;
        }
        // Nobody asks for a cycle: allocation does.
        let cycles = m.heap().stats().forced_cycles;
        churn_until(m, |m| root.get(m).weak.upgrade(m).is_none());
        churn_until(m, |_| drops.count() == 1);
        assert_eq!(m.heap().stats().forced_cycles, cycles);
    });
}

#[test]
fn a_slice_keeps_its_objects_until_another_takes_its_place() {
    run(|m, drops| {
        let mut frame: Frame<Option<Gc<'static, [Gc<'static, Counted>]>>> = Frame::new(m, None);
        *frame.enter(m) = Some(m.alloc_slice(10, |_| m.alloc(drops.one())));
        m.collect();
        assert_eq!(drops.alive(), 10);
        *frame.enter(m) = Some(m.alloc_slice(0, |_| m.alloc(drops.one())));
        m.collect();
        assert_eq!(drops.alive(), 0);
        assert_eq!(frame.enter(m).map(|slice| slice.len()), Some(0));
    });
}

type Pair<'gc> = (u64, Gc<'gc, Counted>);

#[derive(Trace)]
struct Table<'gc>(GcLock<HashMap<u64, Gc<'gc, Pair<'gc>>>>);

#[test]
fn a_map_that_changes_all_the_time_loses_and_keeps_the_right_objects() {
    run(|m, drops| {
        let root = m.root(m.alloc(Table(GcLock::new(HashMap::new()))));
        let mut random = Random::new(1);
        for round in 0..200 {
            {
                let table = root.get(m);
                let mut map = table.0.write(m);
                for _ in 0..20 {
                    let key = random.next() % 200;
                    if let Some(old) = map.insert(key, m.alloc((key, m.alloc(drops.one())))) {
                        assert_eq!(old.0, key);
                    }
                    let key = random.next() % 200;
                    if let Some(old) = map.remove(&key) {
                        assert_eq!(old.0, key);
                    }
                }
            }
            if round % 20 == 0 {
                m.collect();
            }
            m.safepoint();
        }
        m.collect();
        let table = root.get(m);
        let map = table.0.read();
        assert_eq!(drops.alive(), map.len());
        assert!(map.iter().all(|(key, pair)| *key == pair.0));
    });
}

#[derive(Trace)]
struct Bag<'gc>(GcLock<Vec<Gc<'gc, Counted>>>);

#[test]
fn a_full_bag_goes_with_its_heap() {
    let drops = common::Drops::default();
    {
        let heap = common::heap();
        let m = heap.attach().expect("attached");
        let bag = m.alloc(Bag(GcLock::new(Vec::new())));
        (bag.0.write(&m)).extend((0..100).map(|_| m.alloc(drops.one())));
        assert_eq!(drops.count(), 0);
    }
    assert_eq!(drops.count(), 100);
}

#[test]
fn a_bag_that_is_emptied_loses_all() {
    run(|m, drops| {
        let root = m.root(m.alloc(Bag(GcLock::new(Vec::new()))));
        (root.get(m).0.write(m)).extend((0..100).map(|_| m.alloc(drops.one())));
        m.collect();
        assert_eq!(drops.count(), 0);
        root.get(m).0.write(m).clear();
        m.collect();
        assert_eq!(drops.count(), 100);
    });
}

/// Says at which address it was dropped.
static DROPPED_AT: AtomicUsize = AtomicUsize::new(0);

macro_rules! dropped_in_place {
    ($m:ident: $($size:literal at $align:literal),*) => { $({
        #[derive(Trace)]
        #[repr(align($align))]
        struct Bytes([u8; $size]);
        #[derive(Trace)]
        struct Inner(Bytes);
        impl Drop for Inner {
            fn drop(&mut self) {
                assert!(self.0.0.iter().enumerate().all(|(i, byte)| *byte == i as u8));
                DROPPED_AT.store((&raw const *self).addr(), Ordering::Relaxed);
            }
        }
        let at = $m.alloc(Inner(Bytes(std::array::from_fn(|i| i as u8)))).as_ptr().addr();
        assert!(at.is_multiple_of($align));
        $m.collect();
        assert_eq!(DROPPED_AT.load(Ordering::Relaxed), at, "{} bytes at {}", $size, $align);
    })* };
}

#[test]
fn objects_are_dropped_where_they_were_made() {
    run(|m, _| {
        dropped_in_place!(m: 1 at 1, 2 at 1, 3 at 1, 2 at 2, 4 at 2, 4 at 4, 8 at 4, 8 at 8, 16 at 8,
            24 at 8, 16 at 16, 32 at 16, 32 at 32, 64 at 32, 96 at 32, 640 at 64, 40000 at 64);
    });
}

#[test]
fn only_what_may_hold_a_pointer_is_scanned() {
    #[derive(Trace)]
    enum Either<'gc> {
        Pointer(Gc<'gc, i32>),
        Number(i32),
    }
    #[derive(Trace)]
    enum Number {
        Number(i32),
    }
    assert!(needs_trace::<Holder<'static>>() && needs_trace::<Either<'static>>());
    assert!(!needs_trace::<Number>() && !needs_trace::<Counted>());
    assert!(needs_trace::<Option<Weak<'static, u8>>>());
}

#[derive(Trace)]
struct Numbers<'gc>(Vec<Gc<'gc, i32>>);

/// What a program works on moves into a larger whole, and keeps its parts.
#[derive(Trace)]
struct Larger<'gc> {
    numbers: Numbers<'gc>,
    chosen: Gc<'gc, i32>,
}

#[test]
fn a_rooted_value_moves_into_a_larger_one() {
    run(|m, _| {
        let mut first: Frame<Numbers<'static>> = Frame::new(m, Numbers(Vec::new()));
        first.enter(m).0.extend([m.alloc(42), m.alloc(69)]);
        m.collect();
        let mut second: Frame<Option<Larger<'static>>> = Frame::new(m, None);
        for chosen in [0, 1] {
            {
                let mut from = first.enter(m);
                let numbers = Numbers(std::mem::take(&mut from.0));
                let chosen = numbers.0[chosen];
                *second.enter(m) = Some(Larger { numbers, chosen });
            }
            m.collect();
            let mut open = second.enter(m);
            let larger = open.as_mut().expect("moved in");
            assert_eq!(*larger.chosen, [42, 69][chosen]);
            first.enter(m).0 = std::mem::take(&mut larger.numbers.0);
        }
        drop(second);
        m.collect();
        assert_eq!(*first.enter(m).0[0] + *first.enter(m).0[1], 111);
    });
}

#[test]
fn clones_of_roots_count_and_so_do_new_roots_to_the_same_object() {
    run(|m, drops| {
        let a = m.root(m.alloc(drops.one()));
        let b = m.root(m.alloc(drops.one()));
        m.collect();
        let (a_clone, b_clone) = (a.clone(), b.clone());
        let b_again = m.root(b.get(m));
        assert!(b_again.ptr_eq(&b) && !b_again.ptr_eq(&a));
        drop((a, b));
        m.collect();
        assert_eq!(drops.count(), 0);
        drop((a_clone, b_clone));
        m.collect();
        assert_eq!(drops.count(), 1, "one root more leads to the other");
        drop(b_again);
        m.collect();
        assert_eq!(drops.count(), 2);
    });
}

trait Shown: Display {}
impl Shown for String {}
dyn_target!(dyn Shown);

#[test]
fn weak_references_to_trait_objects_upgrade_to_them() {
    run(|m, _| {
        let (root, weak): (Root<String>, WeakRoot<dyn Shown>) = {
            let text = m.alloc(String::from("by its trait"));
            let shown: Gc<'_, dyn Shown> = unsize!(text => dyn Shown);
            assert_eq!(shown.as_ptr().addr(), text.as_ptr().addr());
            (m.root(text), m.root_weak(Gc::downgrade(shown, m)))
        };
        m.collect();
        assert_eq!(
            weak.get(m).map(|shown| shown.to_string()).as_deref(),
            Some("by its trait")
        );
        drop(root);
        m.collect();
        assert!(weak.get(m).is_none());
    });
}

#[test]
fn garbage_does_not_pile_up() {
    run_on(Heap::new(), |m, _| {
        m.heap().set_gogc(Some(100));
        let root = m.root(m.alloc_slice(32, |_| GcCell::new(Some(m.alloc(0_u64)))));
        for round in 0..1000_u64 {
            for (i, cell) in root.get(m).iter().enumerate() {
                cell.set(m, m.alloc(round * 32 + i as u64));
                std::hint::black_box(m.alloc_slice(100, |_| round));
            }
            m.safepoint();
        }
        let stats = m.heap().stats();
        assert!(
            stats.allocated_bytes > 24 * MIB && stats.cycles > 2,
            "{stats:?}"
        );
        assert!(stats.mapped_bytes < 16 * MIB, "{stats:?}");
        assert!(root.get(m).iter().enumerate().all(|(i, cell)| {
            cell.get()
                .is_some_and(|number| *number == 999 * 32 + i as u64)
        }));
    });
}

#[test]
fn an_object_keeps_its_address_and_its_content() {
    #[derive(Trace, Debug, PartialEq)]
    struct Mixed(u8, u32, u64);
    run(|m, _| {
        let root = m.root(m.alloc(Mixed(3, 4, 5)));
        let at = root.get(m).as_ptr().addr();
        for _ in 0..3 {
            for _ in 0..1000 {
                std::hint::black_box(m.alloc(Mixed(0, 0, 0)));
            }
            m.collect();
            assert_eq!(root.get(m).as_ptr().addr(), at);
            assert_eq!(*root.get(m), Mixed(3, 4, 5));
        }
    });
}

#[derive(Trace)]
struct Part<'gc> {
    back: GcCell<'gc, Whole<'gc>>,
    late: GcOnce<'gc, Whole<'gc>>,
}

#[derive(Trace)]
struct Whole<'gc> {
    number: GcLock<Gc<'gc, i32>>,
    part: Part<'gc>,
    counted: Counted,
}

#[test]
fn cells_of_a_part_are_edges_of_the_whole() {
    run(|m, drops| {
        let root = {
            let whole = m.alloc(Whole {
                number: GcLock::new(m.alloc(10)),
                part: Part {
                    back: GcCell::null(),
                    late: GcOnce::empty(),
                },
                counted: drops.one(),
            });
            assert!(whole.part.back.get().is_none() && whole.part.late.get().is_none());
            *whole.number.write(m) = m.alloc(42);
            whole.part.back.set(m, whole);
            assert!(whole.part.late.set(m, whole).is_ok());
            m.root(whole)
        };
        m.collect();
        let whole = root.get(m);
        assert_eq!(**whole.number.read(), 42);
        assert!(whole.part.back.get().is_some_and(|back| back.ptr_eq(whole)));
        assert!(whole.part.late.get().is_some_and(|late| late.ptr_eq(whole)));
        drop(root);
        m.collect();
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn no_cycle_begins_below_the_trigger_and_one_does_above() {
    run_on(Heap::new(), |m, _| {
        m.heap().set_gogc(Some(100));
        let _kept = m.root(m.alloc_slice(4 * MIB as usize, |_| 0_u8));
        m.collect();
        let before = m.heap().stats();
        let room = before.trigger_bytes - before.heap_bytes;
        assert!(room > MIB, "{before:?}");
        for _ in 0..room / 2 / 1024 {
            std::hint::black_box(m.alloc([0_u64; 128]));
            m.safepoint();
        }
        assert_eq!(m.heap().stats().cycles, before.cycles);
        churn_until(m, |m| m.heap().stats().cycles > before.cycles);
        assert!(m.heap().stats().allocated_bytes - before.allocated_bytes >= room * 9 / 10);
    });
}

#[test]
fn a_stopped_world_is_marked_as_well() {
    let heap = checked().stop_the_world(true).build().expect("a heap");
    run_on(heap, |m, drops| {
        let root = m.root(m.alloc(Bag(GcLock::new(Vec::new()))));
        for i in 1..=50 {
            (root.get(m).0.write(m)).push(m.alloc(drops.one()));
            std::hint::black_box(m.alloc(drops.one()));
            m.collect();
            assert_eq!((drops.alive(), drops.count()), (i, i));
        }
        assert_eq!(
            m.heap().stats().assist_ns,
            0,
            "there is nothing to assist with"
        );
    });
}

#[test]
fn what_is_upgraded_and_stored_in_time_lives_on_and_the_other_dies() {
    run(|m, drops| {
        let (root, saved, lost) = {
            let bag = m.root(m.alloc(Bag(GcLock::new(Vec::new()))));
            let weak = || m.root_weak(Gc::downgrade(m.alloc(drops.one()), m));
            (bag, weak(), weak())
        };
        {
            let object = saved.get(m).expect("no cycle so far");
            root.get(m).0.write(m).push(object);
        }
        m.collect();
        assert!(saved.get(m).is_some() && lost.get(m).is_none());
        assert_eq!(drops.count(), 1);
        root.get(m).0.write(m).clear();
        m.collect();
        assert!(saved.get(m).is_none());
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn what_only_the_dead_lead_to_dies_with_them() {
    type Outer<'gc> = (Gc<'gc, Counted>, Counted);
    run(|m, drops| {
        let (root, outer, inner): (
            Root<Outer<'static>>,
            WeakRoot<Outer<'static>>,
            WeakRoot<Counted>,
        ) = {
            let inner = m.alloc(drops.one());
            let outer = m.alloc((inner, drops.one()));
            let weak = (Gc::downgrade(outer, m), Gc::downgrade(inner, m));
            (m.root(outer), m.root_weak(weak.0), m.root_weak(weak.1))
        };
        m.collect();
        assert!(
            outer
                .get(m)
                .zip(inner.get(m))
                .is_some_and(|(o, i)| o.0.ptr_eq(i))
        );
        drop(root);
        m.collect();
        assert!(outer.get(m).is_none() && inner.get(m).is_none());
        assert_eq!(drops.count(), 2);
    });
}

#[derive(Trace)]
struct Adopter<'gc> {
    child: GcCell<'gc, Adopted<'gc>>,
    known: GcLock<Option<Weak<'gc, Adopted<'gc>>>>,
}

#[derive(Trace)]
struct Adopted<'gc> {
    number: u64,
    next: GcCell<'gc, Adopted<'gc>>,
}

fn adopted(m: &greywave::Mutator, number: u64) -> Gc<'_, Adopted<'_>> {
    m.alloc(Adopted {
        number,
        next: GcCell::null(),
    })
}

/// Adopts against a collector that never rests, until it has made some cycles.
fn adopting(mut adopt: impl FnMut(&mut greywave::Mutator, &Root<Adopter<'static>>, u64)) {
    let heap = common::heap();
    let collecting = Collecting::new(&heap);
    within(PATIENCE, || {
        let mut m = heap.attach().expect("attached");
        let root = m.root(m.alloc(Adopter {
            child: GcCell::null(),
            known: GcLock::new(None),
        }));
        let mut number = 0;
        while collecting.cycles() < 200 {
            number += 1;
            adopt(&mut m, &root, number);
            m.safepoint();
        }
    });
    drop(collecting);
    heap.verify().expect("whole");
}

#[test]
fn an_old_object_adopts_new_children_at_any_moment() {
    adopting(|m, root, number| {
        {
            let child = adopted(m, number);
            child.next.set(m, adopted(m, number));
            root.get(m).child.set(m, child);
        }
        for _ in 0..number % 7 {
            m.safepoint();
        }
        let child = root.get(m).child.get().expect("adopted");
        assert_eq!(child.number, number);
        assert_eq!(child.next.get().map(|next| next.number), Some(number));
    });
}

#[test]
fn an_old_object_knows_new_children_weakly_at_any_moment() {
    let mut gone = 0;
    adopting(|m, root, number| {
        *root.get(m).known.write(m) = Some(Gc::downgrade(adopted(m, number), m));
        for _ in 0..number % 7 {
            m.safepoint();
        }
        let known = *root.get(m).known.read();
        match known.and_then(|weak| weak.upgrade(m)) {
            Some(child) => assert_eq!(child.number, number),
            None => gone += 1,
        }
    });
    assert!(gone > 0, "nothing kept them");
}

#[test]
fn a_collection_leaves_no_sweep_behind() {
    run(|m, drops| {
        for round in 1..=5 {
            for _ in 0..5000 {
                std::hint::black_box(m.alloc(drops.one()));
            }
            let cycles = m.heap().stats().cycles;
            m.collect();
            let stats = m.heap().stats();
            assert_eq!(stats.sweep_debt_bytes, 0);
            assert!(stats.cycles > cycles);
            assert_eq!(drops.count(), 5000 * round);
        }
    });
}

trait Container<T> {
    fn first(&self) -> T;
}

dyn_target!(dyn Container<u64>);

#[derive(Trace)]
struct Stored<'gc>(Gc<'gc, [u64]>);

impl Container<u64> for Stored<'_> {
    fn first(&self) -> u64 {
        self.0[0]
    }
}

#[test]
fn a_trait_with_a_parameter_has_objects_and_they_are_traced() {
    run(|m, _| {
        let root: Root<dyn Container<u64>> = {
            let stored = m.alloc(Stored(m.alloc_slice(3, |i| 7 + i as u64)));
            m.root(unsize!(stored => dyn Container<u64>))
        };
        m.collect();
        std::hint::black_box(m.alloc_slice(3, |_| 0_u64));
        assert_eq!(root.get(m).first(), 7);
    });
}

#[test]
fn nothing_takes_no_room_at_any_alignment() {
    #[derive(Trace)]
    #[repr(align(8))]
    struct At8;
    #[derive(Trace)]
    #[repr(align(32))]
    struct At32;
    #[derive(Trace)]
    #[repr(align(4096))]
    struct At4096;
    run(|m, _| {
        let before = m.heap().stats().allocated_bytes;
        let roots: Vec<_> = (0..1000)
            .map(|_| {
                (
                    m.root(m.alloc(At8)),
                    m.root(m.alloc(At32)),
                    m.root(m.alloc(At4096)),
                )
            })
            .collect();
        m.collect();
        assert_eq!(m.heap().stats().allocated_bytes, before);
        for (a, b, c) in &roots {
            assert!(a.get(m).as_ptr().is_aligned());
            assert!(b.get(m).as_ptr().is_aligned());
            assert!(c.get(m).as_ptr().is_aligned());
        }
    });
}
