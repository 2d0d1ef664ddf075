//! The cases of rust-gc's tests, for this collector. `peers.md` says which test follows which.

#![allow(dead_code, reason = "some fields are there to be traced or dropped")]

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greywave::{
    Gc, GcCell, GcLock, Heap, Mutator, Rebrand, Root, Trace, Tracer, dyn_target, unsize,
};

#[path = "peers/common.rs"]
mod common;

use common::support::Counted;
use common::{needs_trace, run, run_on};

/// Counts how often it is traced.
#[derive(Clone)]
struct Watch(Arc<AtomicUsize>);

// SAFETY: 1. 3. 4. no `Gc` inside; it is traced all the same. 2. Send + Sync. 5. counts only. 6. no
// `Gc`.
unsafe impl Trace for Watch {
    fn trace(&self, _: &mut Tracer<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: 1. 2. no brand.
unsafe impl Rebrand<'_> for Watch {
    type To = Self;
}

impl Watch {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn traced(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// A heap that traces each object once a cycle: a verifying one does so twice.
fn plain() -> Heap {
    Heap::builder().verify(false).build().expect("a heap")
}

#[test]
fn a_live_object_is_traced_once_a_cycle_and_a_dead_one_never() {
    run_on(plain(), |m, _| {
        let (live, dead) = (Watch::new(), Watch::new());
        let root = m.root(m.alloc(live.clone()));
        std::hint::black_box(m.alloc(dead.clone()));
        for _ in 0..3 {
            m.collect();
            assert_eq!((live.traced(), dead.traced()), (1, 0));
        }
        drop(root);
        m.collect();
        assert_eq!(live.traced(), 0);
    });
}

#[derive(Trace)]
struct Ring<'gc> {
    watch: Watch,
    counted: Counted,
    next: GcCell<'gc, Ring<'gc>>,
}

#[test]
fn two_objects_in_a_ring_are_traced_once_each_and_die_together() {
    run_on(plain(), |m, drops| {
        let watches = [Watch::new(), Watch::new()];
        let root: Root<Ring<'static>> = {
            let first = m.alloc(Ring {
                watch: watches[0].clone(),
                counted: drops.one(),
                next: GcCell::null(),
            });
            let second = m.alloc(Ring {
                watch: watches[1].clone(),
                counted: drops.one(),
                next: GcCell::new(Some(first)),
            });
            m.root(second)
        };
        let traced = || watches.each_ref().map(Watch::traced);
        m.collect();
        assert_eq!(traced(), [1, 1]);
        {
            let second = root.get(m);
            let first = second.next.get().expect("the ring's other half");
            first.next.set(m, second);
        }
        m.collect();
        assert_eq!(traced(), [1, 1], "a ring has no end, its trace has");
        drop(root);
        m.collect();
        assert_eq!(traced(), [0, 0]);
        assert_eq!(drops.count(), 2);
    });
}

#[derive(Trace)]
struct Parents<'gc>([Gc<'gc, Watch>; 3], Watch, Watch);

#[test]
fn what_several_parents_and_roots_share_is_traced_once() {
    run_on(plain(), |m, _| {
        let (shared, parts) = (Watch::new(), Watch::new());
        let roots = {
            let child = m.alloc(shared.clone());
            let parent = || m.alloc(Parents([child; 3], parts.clone(), parts.clone()));
            (
                m.root(parent()),
                m.root(parent()),
                m.root(child),
                m.root(child),
            )
        };
        m.collect();
        assert_eq!(shared.traced(), 1);
        assert_eq!(parts.traced(), 4, "every part of both");
        drop(roots);
    });
}

#[derive(Trace)]
struct Locked<'gc> {
    watch: GcLock<Watch>,
    pair: GcLock<(u32, Gc<'gc, u32>)>,
}

#[test]
fn borrowed_or_not_a_lock_is_traced_while_it_lives() {
    run_on(plain(), |m, _| {
        let watch = Watch::new();
        let root = m.root(m.alloc(Locked {
            watch: GcLock::new(watch.clone()),
            pair: GcLock::new((0, m.alloc(1))),
        }));
        m.collect();
        assert_eq!(watch.traced(), 1);
        {
            let locked = root.get(m);
            let (one, two) = (locked.watch.read(), locked.watch.read());
            assert!(Arc::ptr_eq(&one.0, &two.0));
            assert!(locked.watch.try_write(m).is_none());
        }
        drop(root.get(m).watch.write(m));
        assert_eq!(watch.traced(), 0, "outside marking a writer logs nothing");
        m.collect();
        assert_eq!(watch.traced(), 1);
        drop(root);
        m.collect();
        assert_eq!(watch.traced(), 0);
    });
}

#[test]
fn a_part_of_locked_content_is_borrowed_for_writing() {
    fn first<'a>(pair: &'a mut (u32, Gc<'_, u32>)) -> &'a mut u32 {
        &mut pair.0
    }
    run(|m, _| {
        let root = m.root(m.alloc(Locked {
            watch: GcLock::new(Watch::new()),
            pair: GcLock::new((0, m.alloc(1))),
        }));
        *first(&mut root.get(m).pair.write(m)) = 2;
        m.collect();
        let locked = root.get(m);
        let pair = locked.pair.read();
        assert_eq!((pair.0, *pair.1), (2, 1));
    });
}

trait Foo {
    fn number(&self) -> i32;
}
dyn_target!(dyn Foo);

#[derive(Trace)]
struct Bar<'gc>(Gc<'gc, i32>);

impl Foo for Bar<'_> {
    fn number(&self) -> i32 {
        *self.0
    }
}

#[test]
fn an_object_and_its_trait_object_are_used_side_by_side() {
    fn use_it(foo: Gc<'_, dyn Foo>) -> i32 {
        foo.number()
    }
    run(|m, _| {
        let (bar, foo) = {
            let bar = m.alloc(Bar(m.alloc(10)));
            let foo = unsize!(bar => dyn Foo);
            assert_eq!(use_it(foo) + use_it(unsize!(bar => dyn Foo)), 20);
            (m.root(bar), m.root(foo))
        };
        drop(bar);
        m.collect();
        assert_eq!(use_it(foo.get(m)), 10, "the trait object alone keeps all");
    });
}

#[derive(Trace)]
struct Nothing;
#[derive(Trace)]
struct Number(u8);
#[derive(Trace)]
struct Points<'gc>(Gc<'gc, Number>);

#[test]
fn pointers_are_equal_by_object_however_they_are_reached() {
    run(|m, _| {
        let a = m.alloc(Number(1));
        let copy = a;
        assert!(a.ptr_eq(copy));
        let (b, bb) = (m.alloc(Points(copy)), m.alloc(Points(a)));
        assert!(a.ptr_eq(b.0) && b.0.ptr_eq(bb.0));
        let other = m.alloc(Number(1));
        let c = m.alloc(Points(other));
        assert!(other.ptr_eq(c.0));
        assert!(!a.ptr_eq(other) && !a.ptr_eq(c.0) && !b.0.ptr_eq(c.0) && !b.0.ptr_eq(other));
        let both = (m.root(a), m.root(b.0), m.root(other));
        assert!(both.0.ptr_eq(&both.1) && !both.0.ptr_eq(&both.2));
    });
}

#[test]
fn addresses_are_equal_as_pointers_are() {
    run(|m, _| {
        let root = {
            let a = m.alloc(Number(1));
            let (b, bb) = (m.alloc(Points(a)), m.alloc(Points(a)));
            assert!(std::ptr::eq(a.as_ptr(), b.0.as_ptr()));
            assert!(std::ptr::eq(b.0.as_ptr(), bb.0.as_ptr()));
            let other = m.alloc(Number(1));
            assert_ne!(a.as_ptr(), other.as_ptr());
            assert_eq!(format!("{a:p}"), format!("{:p}", a.as_ptr()));
            (m.root(b), m.root(other))
        };
        m.collect();
        assert_ne!(root.0.get(m).0.as_ptr(), root.1.get(m).as_ptr());
        assert_eq!((root.0.get(m).0.0, root.1.get(m).0), (1, 1));
    });
}

#[derive(Trace)]
struct Cyclic<'gc> {
    previous: GcCell<'gc, Cyclic<'gc>>,
    counted: Counted,
    name: u8,
}

#[test]
fn a_ring_that_a_vector_held_dies_with_the_vector() {
    run(|m, drops| {
        {
            let mut all: Vec<Gc<'_, Cyclic<'_>>> = Vec::new();
            for name in 0..4 {
                let previous = GcCell::new(all.last().copied());
                let counted = drops.one();
                all.push(m.alloc(Cyclic {
                    previous,
                    counted,
                    name,
                }));
            }
            all[0].previous.set(m, all[3]);
            let mut at = all[3];
            for name in [3, 2, 1, 0, 3] {
                assert_eq!(at.name, name);
                at = at.previous.get().expect("a ring");
            }
        }
        assert_eq!(drops.count(), 0);
        m.collect();
        assert_eq!(drops.count(), 4);
    });
}

#[test]
fn a_marker_for_a_type_without_values_is_an_object() {
    enum Uninhabited {}
    run(|m, _| {
        let roots = (
            m.root(m.alloc(PhantomData::<Uninhabited>)),
            m.root(m.alloc(PhantomData::<str>)),
            m.root(m.alloc((PhantomData::<*const u8>, 7_u8))),
        );
        m.collect();
        assert_eq!(*roots.0.get(m), PhantomData);
        assert_eq!(*roots.1.get(m), PhantomData);
        assert_eq!(roots.2.get(m).1, 7);
    });
}

#[test]
fn a_dead_object_drops_itself_and_then_its_parts_also_behind_a_box() {
    static ORDER: AtomicUsize = AtomicUsize::new(0);
    #[derive(Trace)]
    struct Inner;
    #[derive(Trace)]
    struct Outer(Inner);
    impl Drop for Inner {
        fn drop(&mut self) {
            assert_eq!(
                ORDER.fetch_add(1, Ordering::Relaxed) % 2,
                1,
                "after its owner"
            );
        }
    }
    impl Drop for Outer {
        fn drop(&mut self) {
            assert_eq!(
                ORDER.fetch_add(1, Ordering::Relaxed) % 2,
                0,
                "before its parts"
            );
        }
    }
    #[derive(Trace)]
    struct Boxed(#[trace(skip)] Box<dyn Send + Sync>);
    run(|m, _| {
        let root = m.root(m.alloc(Boxed(Box::new(Outer(Inner)))));
        std::hint::black_box(m.alloc(Outer(Inner)));
        m.collect();
        assert_eq!(ORDER.load(Ordering::Relaxed), 2);
        assert_eq!(size_of_val(&*root.get(m).0), 0);
        drop(root);
        m.collect();
        assert_eq!(ORDER.load(Ordering::Relaxed), 4);
        assert_eq!(m.heap().stats().drop_panics, 0);
    });
}

#[test]
fn values_that_come_out_of_a_box() {
    run(|m, drops| {
        let array: Box<[i32; 3]> = Box::new([1, 2, 3]);
        let array = m.root(m.alloc(*array));
        let boxed: Box<(Counted, u8)> = Box::new((drops.one(), 5));
        let moved = m.root(m.alloc(*boxed));
        m.collect();
        assert_eq!(*array.get(m), [1, 2, 3]);
        assert_eq!(moved.get(m).1, 5);
        assert_eq!(drops.count(), 0, "moved, not dropped");
        drop(moved);
        m.collect();
        assert_eq!(drops.count(), 1);
    });
}

impl Points<'_> {
    /// Stands for a method with the receiver `self: Gc<'gc, Self>`.
    fn wrapped<'m>(this: Gc<'m, Points<'m>>, m: &'m Mutator) -> Gc<'m, GcLock<Gc<'m, Points<'m>>>> {
        m.alloc(GcLock::new(this))
    }
}

#[test]
fn a_function_of_the_type_takes_the_pointer_to_itself() {
    run(|m, _| {
        let root = m.root(Points::wrapped(m.alloc(Points(m.alloc(Number(9)))), m));
        m.collect();
        assert_eq!(root.get(m).read().0.0, 9);
    });
}

#[test]
fn wide_integers_are_aligned_and_whole() {
    run(|m, _| {
        let signed: Vec<_> = (0..100).map(|i| m.root(m.alloc(i128::MIN + i))).collect();
        let unsigned: Vec<_> = (0..100).map(|i| m.root(m.alloc(u128::MAX - i))).collect();
        m.collect();
        for (i, (a, b)) in signed.iter().zip(&unsigned).enumerate() {
            assert!(a.get(m).as_ptr().is_aligned() && b.get(m).as_ptr().is_aligned());
            assert_eq!(*a.get(m), i128::MIN + i as i128);
            assert_eq!(*b.get(m), u128::MAX - i as u128);
        }
    });
}

#[test]
fn a_function_that_makes_something_foreign_is_no_edge_to_it() {
    struct NotTrace(*const u8);
    #[derive(Trace)]
    struct Thunk<T>(fn() -> T);
    run(|m, _| {
        assert!(!needs_trace::<Thunk<NotTrace>>());
        let root = m.root(m.alloc(Thunk(|| NotTrace(std::ptr::dangling()))));
        m.collect();
        assert!(!(root.get(m).0)().0.is_null());
    });
}

#[test]
fn boxes_of_slices_and_text_live_in_objects() {
    #[derive(Trace)]
    struct Boxes {
        numbers: Box<[u32]>,
        text: Box<str>,
        shared: Arc<str>,
    }
    run(|m, _| {
        let root = m.root(m.alloc(Boxes {
            numbers: Box::new([1, 2, 3]),
            text: "abc".into(),
            shared: "def".into(),
        }));
        m.collect();
        assert_eq!(
            m.heap().stats().external_bytes,
            12 + 3 + (2 * size_of::<usize>() as u64 + 3),
            "the shared text has two counts beside it"
        );
        let boxes = root.get(m);
        assert_eq!(
            (&*boxes.numbers, &*boxes.text, &*boxes.shared),
            (&[1, 2, 3][..], "abc", "def")
        );
        drop(root);
        m.collect();
        assert_eq!(m.heap().stats().external_bytes, 0);
    });
}

#[test]
fn a_box_of_a_slice_of_pointers_is_traced() {
    #[derive(Trace)]
    struct Boxed<'gc>(Box<[Gc<'gc, Counted>]>, Option<Box<Gc<'gc, Nothing>>>);
    run(|m, drops| {
        let root = {
            let items = (0..5).map(|_| m.alloc(drops.one())).collect();
            m.root(m.alloc(Boxed(items, Some(Box::new(m.alloc(Nothing))))))
        };
        m.collect();
        assert_eq!(
            (drops.count(), root.get(m).0.len(), root.get(m).1.is_some()),
            (0, 5, true)
        );
        drop(root);
        m.collect();
        assert_eq!(drops.count(), 5);
    });
}
