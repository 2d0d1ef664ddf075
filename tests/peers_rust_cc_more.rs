//! The cases of rust-cc's tests of cleanups, of automatic collection, and of tangles, for this
//! collector. `peers.md` says which test follows which.

#![allow(dead_code, reason = "some fields are there to be traced or dropped")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use greywave::{Frame, Gc, GcArray, GcCell, GcLock, Heap, Mutator, Root, Trace};

#[path = "peers/common.rs"]
mod common;

use common::support::Counted;
use common::{churn_until, run, run_on};

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

type Cleanup = Box<dyn FnOnce() + Send + Sync>;

/// Runs a function once: when it is told to, or when its object is dropped.
#[derive(Clone, Default)]
struct Cleaner(Arc<Mutex<Option<Cleanup>>>);

impl Cleaner {
    fn new(cleanup: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(cleanup)))))
    }

    fn clean(&self) {
        let cleanup = self.0.lock().expect("no panic inside").take();
        if let Some(cleanup) = cleanup {
            cleanup();
        }
    }
}

/// An object with a cleaner, and a handle on the cleaner outside.
#[derive(Trace)]
struct ToClean(#[trace(skip)] Cleaner);

impl Drop for ToClean {
    fn drop(&mut self) {
        self.0.clean();
    }
}

fn counting() -> (Arc<AtomicUsize>, Cleaner) {
    let count = Arc::new(AtomicUsize::new(0));
    let cleaner = {
        let count = count.clone();
        Cleaner::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        })
    };
    (count, cleaner)
}

#[test]
fn a_cleanup_runs_at_the_death_of_its_object() {
    run(|m, _| {
        let (count, cleaner) = counting();
        let root = m.root(m.alloc(ToClean(cleaner.clone())));
        m.collect();
        assert_eq!(count.load(Ordering::Relaxed), 0);
        drop(root);
        m.collect();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        cleaner.clean();
        assert_eq!(count.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_cleanup_that_ran_before_does_not_run_again() {
    run(|m, _| {
        let (count, cleaner) = counting();
        let root = m.root(m.alloc(ToClean(cleaner.clone())));
        cleaner.clean();
        cleaner.clean();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        drop(root);
        m.collect();
        assert_eq!(
            (
                count.load(Ordering::Relaxed),
                m.heap().stats().objects_dropped
            ),
            (1, 1)
        );
    });
}

#[test]
fn a_cleanup_that_holds_a_root_to_its_own_object_keeps_it() {
    run(|m, _| {
        let cleaner = Cleaner::default();
        let ran = Arc::new(AtomicUsize::new(0));
        {
            let object = m.alloc(ToClean(cleaner.clone()));
            let (own, ran) = (m.root(object), ran.clone());
            *cleaner.0.lock().expect("no panic") = Some(Box::new(move || {
                drop(own);
                ran.fetch_add(1, Ordering::Relaxed);
            }));
        }
        for _ in 0..3 {
            m.collect();
            assert_eq!(
                m.heap().stats().objects_dropped,
                0,
                "a root is a root, wherever it is"
            );
        }
        cleaner.clean();
        m.collect();
        assert_eq!(
            (
                ran.load(Ordering::Relaxed),
                m.heap().stats().objects_dropped
            ),
            (1, 1)
        );
    });
}

#[test]
fn cleanups_that_panic_do_not_stop_the_others() {
    run(|m, _| {
        let (count, good) = counting();
        for i in 0..20 {
            let good = good.clone();
            let cleaner = Cleaner::new(move || {
                good.clean();
                assert!(i % 2 == 0, "cleanup {i} breaks");
            });
            std::hint::black_box(m.alloc(ToClean(cleaner)));
        }
        m.collect();
        let stats = m.heap().stats();
        assert_eq!((stats.objects_dropped, stats.drop_panics), (20, 10));
        assert_eq!(count.load(Ordering::Relaxed), 1);
    });
}

#[derive(Trace)]
struct Big<'gc> {
    inner: GcCell<'gc, Big<'gc>>,
    numbers: [i64; 4096],
    counted: Counted,
}

fn two_big<'m>(m: &'m Mutator, drops: &common::Drops) -> Gc<'m, Big<'m>> {
    let big = || {
        m.alloc(Big {
            inner: GcCell::null(),
            numbers: [7; 4096],
            counted: drops.one(),
        })
    };
    let (one, two) = (big(), big());
    one.inner.set(m, two);
    two.inner.set(m, one);
    one
}

#[test]
fn allocation_alone_collects_rings() {
    run_on(
        Heap::builder().gogc(Some(100)).build().expect("a heap"),
        |m, drops| {
            for _ in 0..1000 {
                assert_eq!(two_big(m, drops).numbers[4095], 7);
                m.safepoint();
            }
            let stats = m.heap().stats();
            assert!(stats.cycles > 0 && stats.forced_cycles == 0, "{stats:?}");
            // 1000 pairs are 64 MiB.
            churn_until(m, |_| drops.count() > 1000);
        },
    );
}

#[test]
fn switched_off_nothing_collects_until_it_is_asked_to() {
    let heap = Heap::builder()
        .gogc(None)
        .memory_limit(u64::MAX)
        .build()
        .expect("a heap");
    run_on(heap, |m, drops| {
        for _ in 0..1000 {
            two_big(m, drops);
            m.safepoint();
        }
        assert_eq!((m.heap().stats().cycles, drops.count()), (0, 0));
        m.collect();
        assert_eq!((m.heap().stats().cycles, drops.count()), (1, 2000));
        // Switched on again, it is as if it had always been.
        assert_eq!(m.heap().set_gogc(Some(100)), None);
        churn_until(m, |m| m.heap().stats().cycles > 1);
    });
}

#[test]
fn a_lower_percentage_means_more_cycles() {
    let cycles = |percent| {
        let mut cycles = 0;
        run_on(
            Heap::builder().gogc(Some(percent)).build().expect("a heap"),
            |m, _| {
                let kept = m.root(m.alloc_slice(8 << 20, |i| i as u8));
                m.collect();
                let before = m.heap().stats().cycles;
                while m.heap().stats().allocated_bytes < 72 << 20 {
                    for _ in 0..100 {
                        std::hint::black_box(m.alloc([0_u64; 64]));
                    }
                    m.safepoint();
                }
                cycles = m.heap().stats().cycles - before;
                assert_eq!(kept.get(m)[255], 255);
            },
        );
        cycles
    };
    let (few, many) = (cycles(400), cycles(20));
    assert!(few >= 1 && many > 2 * few, "{few} and {many}");
}

#[test]
fn a_tangle_of_types_lives_by_an_edge_from_outside() {
    #[derive(Trace)]
    struct A<'gc>(Gc<'gc, B<'gc>>, Counted);
    #[derive(Trace)]
    struct B<'gc>(Gc<'gc, C<'gc>>, Counted);
    #[derive(Trace)]
    struct C<'gc>(GcCell<'gc, A<'gc>>, GcCell<'gc, B<'gc>>, Counted);
    #[derive(Trace)]
    struct D<'gc>(Gc<'gc, C<'gc>>);
    run(|m, drops| {
        let (a, d): (Root<A<'static>>, Root<D<'static>>) = {
            let c = m.alloc(C(GcCell::null(), GcCell::null(), drops.one()));
            let b = m.alloc(B(c, drops.one()));
            let a = m.alloc(A(b, drops.one()));
            c.0.set(m, a);
            c.1.set(m, b);
            (m.root(a), m.root(m.alloc(D(c))))
        };
        drop(a);
        m.collect();
        assert_eq!(drops.count(), 0);
        let c = d.get(m).0;
        assert!(c.0.get().is_some_and(|a| a.0.0.ptr_eq(c)));
        drop(d);
        m.collect();
        assert_eq!(drops.count(), 3);
    });
}

#[test]
fn a_frame_saves_what_was_about_to_die() {
    run(|m, drops| {
        let mut saved: Frame<Option<Gc<'static, Circular<'static>>>> = Frame::new(m, None);
        let weak = {
            let (one, two) = (circular(m, drops.one()), circular(m, drops.one()));
            one.next.set(m, two);
            two.next.set(m, one);
            m.root_weak(Gc::downgrade(one, m))
        };
        {
            let one = weak.get(m);
            *saved.enter(m) = one;
        }
        m.collect();
        assert_eq!(drops.count(), 0);
        assert!(
            saved
                .enter(m)
                .is_some_and(|one| one.next.get().is_some_and(|two| !two.ptr_eq(one)))
        );
        *saved.enter(m) = None;
        m.collect();
        assert_eq!((drops.count(), weak.get(m).is_none()), (2, true));
    });
}

#[test]
fn parts_of_a_foreign_owner_are_dropped_once() {
    /// Outside the heap, with a root inside an object that another root keeps.
    struct Foreign {
        part: Mutex<Option<Root<GcLock<Vec<u8>>>>>,
    }
    #[derive(Trace)]
    struct Inside(#[trace(skip)] Arc<Foreign>, Counted);
    run(|m, drops| {
        let foreign = Arc::new(Foreign {
            part: Mutex::new(None),
        });
        let root = m.root(m.alloc(Inside(foreign.clone(), drops.one())));
        *foreign.part.lock().expect("no panic") = Some(m.root(m.alloc(GcLock::new(vec![1_u8]))));
        assert_eq!(
            (
                Arc::strong_count(&foreign),
                root.get(m).1.0.load(Ordering::Relaxed)
            ),
            (2, 0)
        );
        drop(root);
        m.collect();
        assert_eq!((Arc::strong_count(&foreign), drops.count()), (1, 1));
        let part = foreign
            .part
            .lock()
            .expect("no panic")
            .take()
            .expect("set above");
        assert_eq!(*part.get(m).read(), [1]);
        drop(part);
        m.collect();
        assert_eq!(m.heap().stats().live_bytes, 0);
    });
}

#[test]
fn a_box_in_the_ring_is_part_of_it() {
    #[derive(Trace)]
    struct Boxed<'gc>(GcLock<Option<Box<Gc<'gc, Boxed<'gc>>>>>, Counted);
    run(|m, drops| {
        {
            let boxed = m.alloc(Boxed(GcLock::new(None), drops.one()));
            *boxed.0.write(m) = Some(Box::new(boxed));
        }
        m.collect();
        assert_eq!(drops.count(), 1);
    });
}

macro_rules! rings_at {
    ($m:ident, $drops:ident: $($align:literal)*) => { $({
        #[derive(Trace)]
        #[repr(align($align))]
        struct Aligned<'gc>(GcCell<'gc, Aligned<'gc>>, Counted);
        let root: Root<Aligned<'static>> = {
            let ring = $m.alloc(Aligned(GcCell::null(), $drops.one()));
            ring.0.set($m, ring);
            $m.root(ring)
        };
        $m.collect();
        let dropped = $drops.count();
        assert!(root.get($m).0.get().is_some_and(|ring| ring.as_ptr().is_aligned()));
        drop(root);
        $m.collect();
        assert_eq!($drops.count(), dropped + 1, "alignment {}", $align);
    })* };
}

#[test]
fn rings_of_every_alignment_die() {
    run(|m, drops| {
        rings_at!(m, drops: 1 2 4 8 16 32 64 128 256 1024 8192);
    });
}

#[test]
fn fields_of_enums_and_structs_are_traced_unless_they_are_skipped() {
    #[derive(Trace)]
    struct Fields<'gc> {
        traced: Gc<'gc, Counted>,
        #[trace(skip)]
        skipped: Arc<Counted>,
    }
    #[derive(Trace)]
    enum Variants<'gc> {
        Both {
            traced: Gc<'gc, Counted>,
            #[trace(skip)]
            skipped: Arc<Counted>,
        },
        Skipped(#[trace(skip)] Arc<Counted>),
        Array(Gc<'gc, GcArray<Counted, ()>>),
    }
    run(|m, drops| {
        let skipped = Arc::new(drops.one());
        let root = {
            let traced = || m.alloc(drops.one());
            let skipped = || skipped.clone();
            let fields = m.alloc(Fields {
                traced: traced(),
                skipped: skipped(),
            });
            let variants = [
                Variants::Both {
                    traced: traced(),
                    skipped: skipped(),
                },
                Variants::Skipped(skipped()),
                Variants::Array(m.alloc_array(drops.one(), 0, |_| ())),
            ];
            m.root(m.alloc((fields, variants)))
        };
        m.collect();
        assert_eq!((drops.count(), Arc::strong_count(&skipped)), (0, 4));
        {
            let (fields, variants) = &*root.get(m);
            assert_eq!(fields.traced.0.load(Ordering::Relaxed), 0);
            assert!(Arc::ptr_eq(&fields.skipped, &skipped));
            let whole = variants.iter().all(|variant| match variant {
                Variants::Both {
                    traced,
                    skipped: at,
                } => Arc::ptr_eq(at, &skipped) && traced.0.load(Ordering::Relaxed) == 0,
                Variants::Skipped(at) => Arc::ptr_eq(at, &skipped),
                Variants::Array(array) => array.header().0.load(Ordering::Relaxed) == 0,
            });
            assert!(whole);
        }
        drop(root);
        m.collect();
        assert_eq!((drops.count(), Arc::strong_count(&skipped)), (3, 1));
    });
}
