//! Type parameters, const parameters, bounds, and associated types.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::hash::RandomState;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use greywave::{At, Collect, Gc, GcCell, Root, Trace, Weak};

use crate::{Leaf, keeps_its_leaves, needs_trace};

type L<'gc> = Gc<'gc, Leaf>;

#[derive(Trace)]
struct One<T>(T);
#[derive(Trace)]
struct Two<'gc, A, B = u8> {
    a: Vec<A>,
    b: Gc<'gc, B>,
}
#[derive(Trace)]
enum Either<A, B> {
    Left(A),
    Right { b: B },
}
#[derive(Trace)]
struct Bounded<T: Clone + Send, U>
where
    U: Display + From<T>,
    Vec<U>: Clone,
{
    t: T,
    u: U,
}
#[derive(Trace)]
struct Array<T, const N: usize = 3> {
    items: [T; N],
}
#[derive(Trace)]
struct MaybeUnsized<T: ?Sized> {
    tail: T,
}

/// What is pointed at need not be sized.
#[derive(Trace)]
struct Pointer<'gc, T: ?Sized> {
    to: Gc<'gc, T>,
    weak: Option<Weak<'gc, T>>,
}

#[test]
fn held_parameters() {
    assert!(!needs_trace::<One<u8>>());
    assert!(needs_trace::<One<L<'static>>>());
    assert!(!needs_trace::<One<One<Array<String, 7>>>>());
    assert!(needs_trace::<Array<Option<L<'static>>>>());
    assert!(!needs_trace::<Either<u8, String>>());
    assert!(needs_trace::<Either<u8, L<'static>>>());
    assert!(!needs_trace::<Bounded<u8, u32>>());
    assert!(!needs_trace::<MaybeUnsized<u8>>());
    const { assert!(!<MaybeUnsized<str>>::NEEDS_TRACE) };
    const { assert!(<MaybeUnsized<[L<'static>]>>::NEEDS_TRACE) };
    keeps_its_leaves(|m, leaf| {
        let two = Two {
            a: vec![One(leaf()), One(leaf())],
            b: m.alloc(Either::<u8, _>::Right { b: leaf() }),
        };
        Box::new(m.root(m.alloc((
            two,
            Array {
                items: [leaf(), leaf()],
            },
        ))))
    });
}

#[test]
fn unsized_parameters() {
    keeps_its_leaves(|m, leaf| {
        let leaf = leaf();
        let pointer = Pointer {
            to: leaf,
            weak: Some(leaf.downgrade(m)),
        };
        let text = Pointer {
            to: m.alloc_str("text"),
            weak: None,
        };
        Box::new(m.root(m.alloc((pointer, text))))
    });
    keeps_its_leaves(|m, leaf| {
        let to = m.alloc_slice(3, |_| leaf());
        Box::new(m.root(m.alloc(Pointer { to, weak: None })))
    });
}

/// What is generic over any heap type.
fn generic<'m, T: Collect + 'm>() -> bool {
    needs_trace::<One<T>>()
        && needs_trace::<Either<Vec<T>, u8>>()
        && needs_trace::<Array<One<T>, 9>>()
        && needs_trace::<Two<'m, T, T>>()
        && needs_trace::<WithPhantom<T>>()
}
#[derive(Trace)]
struct WithPhantom<T>(Option<T>, PhantomData<T>);

#[test]
fn generic_code_over_heap_types() {
    assert!(generic::<L<'static>>());
    assert!(!generic::<u8>());
}

/// What each type becomes: this compiles.
fn becomes<'b>(
    two: At<'b, Two<'static, L<'static>, Leaf>>,
    phantom: At<'b, WithPhantom<L<'static>>>,
    marker: At<'b, Marker<RefCell<u8>>>,
    branded: At<'b, BrandedMarker<'static, L<'static>>>,
) {
    let _: Two<'b, L<'b>, Leaf> = two;
    let _: WithPhantom<L<'b>> = phantom;
    let _: Marker<RefCell<u8>> = marker;
    let _: BrandedMarker<'b, L<'b>> = branded;
}

// Markers: a parameter that no field holds needs nothing.
#[derive(Trace)]
struct Marker<T>(PhantomData<T>);
#[derive(Trace)]
struct UnsizedMarker<T: ?Sized>(u8, PhantomData<T>);
#[derive(Trace)]
struct Thunk<T>(fn() -> T, fn(T) -> T);
#[derive(Trace)]
enum NeverMarker<T> {
    Never(PhantomData<T>, std::convert::Infallible),
}
#[derive(Trace)]
struct Tuples<T>(
    (PhantomData<T>, [PhantomData<T>; 2]),
    Option<PhantomData<T>>,
);
#[derive(Trace)]
struct Shared<T: Send + 'static> {
    arc: Arc<Mutex<T>>,
    lock: Mutex<T>,
    root: Root<u8>,
    still: Cow<'static, str>,
    name: &'static str,
}
/// The marker changes with the type because the bound says so.
#[derive(Trace)]
#[trace(bound = "T: Trace")]
struct BrandedMarker<'gc, T>(L<'gc>, PhantomData<T>);
/// `T: 'gc` follows from the reference, and is needed for what `T` becomes as well.
#[derive(Trace)]
struct Reference<'gc, T>(PhantomData<&'gc T>, T);
/// No more than itself: what a function takes has nothing to do with what the object holds.
#[derive(Trace)]
struct Hooks<'gc> {
    all: for<'a> fn(Gc<'a, Leaf>) -> Option<Gc<'a, Leaf>>,
    c: unsafe extern "C" fn(*const u8, i32) -> i32,
    leaf: L<'gc>,
}
/// `T` is held, so the function must not depend on its brand: it is one for types that have none.
#[derive(Trace)]
struct Lazy<T> {
    init: fn() -> T,
    each: for<'a> fn(&'a T) -> &'a T,
    other: Option<fn(T)>,
    value: Option<T>,
}

struct NotTrace(*const u8);

#[test]
fn markers() {
    assert!(!needs_trace::<Marker<NotTrace>>());
    assert!(!needs_trace::<UnsizedMarker<str>>());
    assert!(!needs_trace::<UnsizedMarker<dyn Display>>());
    assert!(!needs_trace::<Thunk<NotTrace>>());
    assert!(!needs_trace::<NeverMarker<NotTrace>>());
    assert!(!needs_trace::<Tuples<NotTrace>>());
    assert!(!needs_trace::<Shared<Vec<std::cell::Cell<u8>>>>());
    assert!(!needs_trace::<Lazy<String>>());
    assert!(needs_trace::<Reference<'static, L<'static>>>());
    assert!(needs_trace::<Hooks<'static>>());
    keeps_its_leaves(|m, leaf| {
        let hooks = Hooks {
            all: itself,
            c: abs,
            leaf: leaf(),
        };
        let reference = Reference(PhantomData, leaf());
        Box::new(m.root(m.alloc((
            hooks,
            reference,
            BrandedMarker::<L<'_>>(leaf(), PhantomData),
        ))))
    });
}

fn itself<'a>(leaf: Gc<'a, Leaf>) -> Option<Gc<'a, Leaf>> {
    Some(leaf)
}

unsafe extern "C" fn abs(_: *const u8, x: i32) -> i32 {
    x.abs()
}

// Associated types: the type is bounded, and not the parameter that it belongs to.
#[derive(Trace)]
struct Item<I: Iterator> {
    item: Option<I::Item>,
}
#[derive(Trace)]
struct Peeked<I>
where
    I: Iterator,
    I::Item: Clone,
{
    iter: I,
    peeked: Vec<<I as Iterator>::Item>,
}

/// A family of types, one for each brand.
trait Family {
    type Member<'gc>;
}
trait Branded<'gc> {
    type Member;
}
struct Leaves;
impl Family for Leaves {
    type Member<'gc> = L<'gc>;
}
impl<'gc> Branded<'gc> for Leaves {
    type Member = L<'gc>;
}
#[derive(Trace)]
struct OfFamily<'gc, F: Family> {
    members: Vec<F::Member<'gc>>,
    node: GcCell<'gc, Leaf>,
}
#[derive(Trace)]
struct OfBranded<'gc, F: Branded<'gc>> {
    members: Vec<<F as Branded<'gc>>::Member>,
    node: GcCell<'gc, Leaf>,
}

#[test]
fn associated_types() {
    assert!(
        needs_trace::<Item<std::vec::IntoIter<u8>>>(),
        "not known to be without"
    );
    assert!(needs_trace::<OfFamily<'static, Leaves>>());
    keeps_its_leaves(|m, leaf| {
        let of = OfFamily::<Leaves> {
            members: vec![leaf(), leaf()],
            node: GcCell::new(Some(leaf())),
        };
        Box::new(m.root(m.alloc(of)))
    });
    keeps_its_leaves(|m, leaf| {
        let of = OfBranded::<Leaves> {
            members: vec![leaf(), leaf()],
            node: GcCell::new(Some(leaf())),
        };
        Box::new(m.root(m.alloc(of)))
    });
}

fn family_becomes<'b>(
    of: At<'b, OfFamily<'static, Leaves>>,
    branded: At<'b, OfBranded<'static, Leaves>>,
) {
    let _: OfFamily<'b, Leaves> = of;
    let _: OfBranded<'b, Leaves> = branded;
}

// Bounds with lifetimes of their own.
#[derive(Trace)]
struct Function<F>
where
    for<'a> F: Fn(&'a str) -> &'a str,
{
    marker: PhantomData<F>,
}
#[derive(Trace)]
struct BrandedFunction<'gc, F: for<'a> Fn(&'a str, Gc<'gc, Leaf>) -> &'a str> {
    marker: PhantomData<F>,
    leaf: L<'gc>,
}
#[derive(Trace)]
struct Outlives<'gc, T>
where
    T: Clone + 'gc,
    Gc<'gc, T>: Copy,
    [T; 2]: Sized,
    Self: Sized,
{
    value: T,
    leaf: L<'gc>,
}

#[test]
fn bounds_with_lifetimes() {
    assert!(!needs_trace::<Function<fn(&str) -> &str>>());
    assert!(needs_trace::<Outlives<'static, Option<L<'static>>>>());
    keeps_its_leaves(|m, leaf| {
        Box::new(m.root(m.alloc(Outlives {
            value: Some(leaf()),
            leaf: leaf(),
        })))
    });
}

// The bounds are what the attribute says.
#[derive(Trace)]
#[trace(bound = "where K: Trace, V: Trace, S: Send + Sync + 'static,")]
struct Map<K, V, S>(HashMap<K, V, S>);
#[derive(Trace)]
#[trace(bound = "")]
struct Unbounded<T>(Vec<PhantomData<T>>);
/// `T` holds no `Gc`, which the bound says in full.
#[derive(Trace)]
#[trace(bound = "T: for<'a> greywave::Rebrand<'a, To = T>")]
struct Brandless<'gc, T>(L<'gc>, T);

#[test]
fn bounds_by_attribute() {
    assert!(needs_trace::<Map<u8, L<'static>, RandomState>>());
    assert!(!needs_trace::<Map<u8, u8, RandomState>>());
    assert!(!needs_trace::<Unbounded<NotTrace>>());
    keeps_its_leaves(|m, leaf| {
        let map = Map([(1, leaf()), (2, leaf())]
            .into_iter()
            .collect::<HashMap<_, _>>());
        Box::new(m.root(m.alloc((map, Brandless(leaf(), 5_u8)))))
    });
}
