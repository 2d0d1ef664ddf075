//! Every shape of type.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, Sender};

use greywave::{At, Gc, GcCell, GcLock, GcOnce, Mutator, Trace};

use crate::{Leaf, keeps_its_leaves, needs_trace};

type L<'gc> = Gc<'gc, Leaf>;

#[derive(Trace)]
struct Unit;
#[derive(Trace)]
struct Empty();
#[derive(Trace)]
struct EmptyBraces {}
#[derive(Trace)]
enum Never {}

#[derive(Trace)]
struct Named<'gc> {
    one: L<'gc>,
    number: u32,
    many: Vec<L<'gc>>,
}
#[derive(Trace)]
struct Tuple<'gc>(L<'gc>, u8, Option<L<'gc>>);
#[derive(Trace)]
struct Braced<'gc> {
    only: Box<L<'gc>>,
}
#[derive(Trace)]
struct Nested<'gc> {
    named: Named<'gc>,
    tuples: [Tuple<'gc>; 2],
    both: (Box<Tuple<'gc>>, Option<Result<L<'gc>, String>>),
}

#[test]
fn structs() {
    keeps_its_leaves(|m, leaf| {
        let named = Named {
            one: leaf(),
            number: 1,
            many: vec![leaf(), leaf()],
        };
        Box::new(m.root(m.alloc(named)))
    });
    keeps_its_leaves(|m, leaf| Box::new(m.root(m.alloc(Tuple(leaf(), 2, Some(leaf()))))));
    keeps_its_leaves(|m, leaf| {
        Box::new(m.root(m.alloc(Braced {
            only: Box::new(leaf()),
        })))
    });
    keeps_its_leaves(|m, leaf| {
        let tuple = || Tuple(leaf(), 0, Some(leaf()));
        let named = Named {
            one: leaf(),
            number: 1,
            many: vec![leaf()],
        };
        let both = (Box::new(tuple()), Some(Ok(leaf())));
        Box::new(m.root(m.alloc(Nested {
            named,
            tuples: [tuple(), tuple()],
            both,
        })))
    });
}

#[test]
fn types_without_a_lifetime_are_not_traced() {
    assert!(!needs_trace::<Unit>());
    assert!(!needs_trace::<Empty>());
    assert!(!needs_trace::<EmptyBraces>());
    assert!(!needs_trace::<Never>());
    assert!(!needs_trace::<Tree>());
    assert!(needs_trace::<Named<'static>>());
    assert!(needs_trace::<Shape<'static>>());
}

#[derive(Trace)]
enum Shape<'gc> {
    Nothing,
    AlsoNothing(),
    One(L<'gc>),
    Pair(u8, L<'gc>, L<'gc>),
    Named {
        left: L<'gc>,
        middle: u8,
        right: Option<Box<Shape<'gc>>>,
    },
    Uninhabited(Never, L<'gc>),
}
#[derive(Trace)]
#[repr(u8)]
#[non_exhaustive]
enum Numbered<'gc> {
    One(L<'gc>) = 1,
    Nine = 9,
}
#[derive(Trace)]
#[repr(transparent)]
struct Transparent<'gc>(L<'gc>);

#[test]
fn enums() {
    keeps_its_leaves(|m, leaf| {
        let shapes = vec![
            Shape::Nothing,
            Shape::AlsoNothing(),
            Shape::One(leaf()),
            Shape::Pair(7, leaf(), leaf()),
            Shape::Named {
                left: leaf(),
                middle: 1,
                right: Some(Box::new(Shape::One(leaf()))),
            },
        ];
        Box::new(m.root(m.alloc(shapes)))
    });
    keeps_its_leaves(|m, leaf| {
        let numbered = (Numbered::One(leaf()), Numbered::Nine, Transparent(leaf()));
        Box::new(m.root(m.alloc(numbered)))
    });
}

type Sixteen<A, B> = (A, A, A, A, A, A, A, A, A, A, A, A, A, A, A, B);

/// Every kind of container between the object and what it holds.
#[derive(Trace)]
struct Containers<'gc> {
    deque: VecDeque<L<'gc>>,
    hash: HashMap<u32, L<'gc>>,
    tree: BTreeMap<String, (L<'gc>, [Option<L<'gc>>; 2])>,
    boxed: Box<[L<'gc>]>,
    twelve: (u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, L<'gc>),
    sixteen: Sixteen<u8, L<'gc>>,
    cell: GcCell<'gc, Leaf>,
    once: GcOnce<'gc, Leaf>,
    locked: GcLock<Vec<L<'gc>>>,
}

#[test]
fn containers() {
    keeps_its_leaves(|m, leaf| {
        let value = Containers {
            deque: [leaf(), leaf()].into(),
            hash: [(1, leaf()), (2, leaf())].into(),
            tree: [("key".to_owned(), (leaf(), [Some(leaf()), None]))].into(),
            boxed: Box::new([leaf()]),
            twelve: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, leaf()),
            sixteen: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, leaf()),
            cell: GcCell::new(Some(leaf())),
            once: GcOnce::empty(),
            locked: GcLock::new(vec![leaf()]),
        };
        let gc = m.alloc(value);
        assert!(gc.once.set(m, leaf()).is_ok());
        gc.locked.write(m).push(leaf());
        Box::new(m.root(gc))
    });
}

// Types that mention themselves: a constant computed from the fields would be a cycle.
#[derive(Trace)]
struct List<'gc> {
    here: L<'gc>,
    next: Option<Box<List<'gc>>>,
}
#[derive(Trace)]
struct Tree {
    children: Vec<Tree>,
    left: Option<Box<Self>>,
}
#[derive(Trace)]
struct Even<'gc> {
    odd: Option<Box<Odd<'gc>>>,
    through: Generic<Even<'gc>>,
    leaf: L<'gc>,
}
#[derive(Trace)]
struct Odd<'gc> {
    even: Option<Box<Even<'gc>>>,
    more: Vec<Odd<'gc>>,
    leaf: L<'gc>,
}
#[derive(Trace)]
struct Generic<T> {
    inside: Vec<Generic<T>>,
    value: Option<Box<T>>,
}
#[derive(Trace)]
struct Edge<'gc>(GcCell<'gc, Edge<'gc>>, L<'gc>, PhantomData<&'gc Edge<'gc>>);
/// Its own field is of another instance of itself. (Only the type is; a value would be of endlessly
/// many.)
#[derive(Trace)]
struct Polymorphic<T> {
    value: T,
    next: Option<Box<Polymorphic<(T, T)>>>,
}

#[test]
fn recursive_types() {
    keeps_its_leaves(|m, leaf| {
        let last = List {
            here: leaf(),
            next: None,
        };
        Box::new(m.root(m.alloc(List {
            here: leaf(),
            next: Some(Box::new(last)),
        })))
    });
    keeps_its_leaves(|m, leaf| {
        let even = |odd, value| Even {
            odd,
            through: Generic {
                inside: Vec::new(),
                value,
            },
            leaf: leaf(),
        };
        let inner = Odd {
            even: Some(Box::new(even(None, None))),
            more: Vec::new(),
            leaf: leaf(),
        };
        let odd = Odd {
            even: None,
            more: vec![inner],
            leaf: leaf(),
        };
        Box::new(m.root(m.alloc(even(Some(Box::new(odd)), Some(Box::new(even(None, None)))))))
    });
    keeps_its_leaves(|m, leaf| {
        let edge = || Edge(GcCell::null(), leaf(), PhantomData);
        let (first, second) = (m.alloc(edge()), m.alloc(edge()));
        first.0.set(m, second);
        second.0.set(m, first);
        Box::new(m.root(first))
    });
}

/// Skipped fields need no `Trace`; the others are traced all the same.
#[derive(Trace)]
struct Skipping<'gc, T> {
    #[trace(skip)]
    foreign: std::thread::Thread,
    leaf: L<'gc>,
    #[trace(skip)]
    channel: Sender<T>,
}
#[derive(Trace)]
enum SkippingEnum<'gc> {
    Named {
        #[trace(skip)]
        foreign: std::thread::Thread,
        leaf: L<'gc>,
    },
    Tuple(#[trace(skip)] std::thread::Thread, L<'gc>),
}

#[test]
fn skipped_fields() {
    let here = std::thread::current;
    keeps_its_leaves(|m, leaf| {
        let (channel, _): (Sender<u8>, Receiver<u8>) = std::sync::mpsc::channel();
        Box::new(m.root(m.alloc(Skipping {
            foreign: here(),
            leaf: leaf(),
            channel,
        })))
    });
    keeps_its_leaves(|m, leaf| {
        let named = SkippingEnum::Named {
            foreign: here(),
            leaf: leaf(),
        };
        Box::new(m.root(m.alloc((named, SkippingEnum::Tuple(here(), leaf())))))
    });
}

#[derive(Trace)]
struct Owner<'gc> {
    bytes: Vec<u8>,
    text: String,
    #[trace(skip)]
    skipped: Vec<u8>,
    leaf: Option<L<'gc>>,
    hook: fn(),
}
#[derive(Trace)]
enum OwnerEnum {
    Some { bytes: Vec<u8>, more: Box<[u32]> },
    None,
}

#[test]
fn external_bytes_are_those_of_the_traced_fields() {
    let owner = Owner {
        bytes: Vec::with_capacity(100),
        text: String::with_capacity(20),
        skipped: Vec::with_capacity(1000),
        leaf: None,
        hook: || (),
    };
    assert_eq!(owner.external_bytes(), 120);
    let some = OwnerEnum::Some {
        bytes: Vec::with_capacity(10),
        more: Box::new([0; 4]),
    };
    assert_eq!(some.external_bytes(), 26);
    assert_eq!(OwnerEnum::None.external_bytes(), 0);
    assert_eq!(Unit.external_bytes(), 0);
}

// A type that holds no `Gc` may have a `Drop`, and one that holds a `Gc` may have fields that do.
#[derive(Trace)]
struct Handle<T>(u32, PhantomData<T>);
impl<T> Drop for Handle<T> {
    fn drop(&mut self) {}
}
#[derive(Trace)]
struct HasHandle<'gc> {
    leaf: L<'gc>,
    handle: Handle<OnceCell<u8>>,
}

#[test]
fn drops_where_no_gc_is() {
    keeps_its_leaves(|m, leaf| {
        Box::new(m.root(m.alloc(HasHandle {
            leaf: leaf(),
            handle: Handle(1, PhantomData),
        })))
    });
}

// A struct whose tail is not sized is traced, and can be what a pointer points to.
#[derive(Trace)]
struct SliceTail<'gc, T> {
    head: L<'gc>,
    tail: [Gc<'gc, T>],
}
#[derive(Trace)]
struct StrTail {
    head: u8,
    tail: str,
}
#[derive(Trace)]
struct AnyTail<T: ?Sized> {
    head: u8,
    tail: T,
}

/// The rebranded type is the same type with another lifetime: this compiles.
fn becomes<'b>(
    named: At<'b, Named<'static>>,
    shape: At<'b, Shape<'static>>,
    generic: At<'b, Generic<Tuple<'static>>>,
    unit: At<'b, Unit>,
    tail: At<'b, AnyTail<Tuple<'static>>>,
) {
    let _: Named<'b> = named;
    let _: Shape<'b> = shape;
    let _: Generic<Tuple<'b>> = generic;
    let _: Unit = unit;
    let _: AnyTail<Tuple<'b>> = tail;
}

/// `self: Gc<'gc, Self>` is not a receiver on stable Rust; an associated function is as good.
impl<'gc> Edge<'gc> {
    fn follow(this: Gc<'gc, Self>) -> Option<Gc<'gc, Self>> {
        this.0.get()
    }
    fn link(this: Gc<'gc, Self>, m: &Mutator) {
        this.0.set(m, this);
    }
}
