//! The cases of zerogc's tests, for this collector. `peers.md` says which test follows which.

#![allow(dead_code, reason = "some fields are there to be traced or dropped")]

use std::marker::PhantomData;

use greywave::{Frame, Gc, GcArray, GcCell, GcLock, Mutator, Root, Trace};

#[path = "peers/common.rs"]
mod common;

use common::support::Counted;
use common::{needs_trace, run};

#[derive(Trace)]
struct Test<'gc> {
    value: i32,
    inner: Option<Gc<'gc, Test<'gc>>>,
}

#[test]
fn a_number_a_slice_and_a_struct() {
    run(|m, _| {
        let roots = (
            m.root(m.alloc(14)),
            m.root(m.alloc_slice(3, |i| b"foo"[i])),
            m.root(m.alloc(Test {
                value: 42,
                inner: None,
            })),
        );
        m.collect();
        assert_eq!((*roots.0.get(m), &*roots.1.get(m)), (14, &b"foo"[..]));
        let test = roots.2.get(m);
        assert_eq!((test.value, test.inner.is_none()), (42, true));
    });
}

/// Each level roots what it got, passes a safepoint, and hands down an object that holds it.
fn deeper(m: &mut Mutator, root: Root<Test<'static>>, levels: i32) -> i32 {
    m.safepoint();
    if levels == 0 {
        m.collect();
        return root.get(m).value;
    }
    let next = m.root(m.alloc(Test {
        value: levels,
        inner: Some(root.get(m)),
    }));
    drop(root);
    deeper(m, next, levels - 1)
}

#[test]
fn a_recursion_takes_its_roots_over_safepoints() {
    run(|m, _| {
        let first = m.root(m.alloc(Test {
            value: 18,
            inner: None,
        }));
        assert_eq!(deeper(m, first.clone(), 0), 18);
        assert_eq!(deeper(m, first.clone(), 100), 1);
        m.collect();
        assert_eq!(first.get(m).value, 18);
    });
}

#[test]
fn a_recursion_takes_its_values_over_safepoints_in_a_frame() {
    type Stack = Frame<Vec<Gc<'static, Test<'static>>>>;
    fn descend(m: &mut Mutator, stack: &mut Stack, levels: i32) {
        {
            let mut open = stack.enter(m);
            let inner = open.last().copied();
            open.push(m.alloc(Test {
                value: levels,
                inner,
            }));
        }
        m.collect();
        if levels > 0 {
            descend(m, stack, levels - 1);
        }
        let top = stack.enter(m).pop().expect("pushed above");
        assert_eq!(top.value, levels);
        assert_eq!(
            top.inner.map_or(-1, |inner| inner.value),
            if levels == 20 { -1 } else { levels + 1 }
        );
    }
    run(|m, _| {
        let mut stack = Stack::new(m, Vec::new());
        descend(m, &mut stack, 20);
        assert!(stack.enter(m).is_empty());
    });
}

fn shorter<'a, 'long: 'a, T: 'long>(gc: Gc<'long, T>) -> Gc<'a, T> {
    gc
}

fn shorter_brand<'a>(gc: Gc<'a, Variant<'static>>) -> Gc<'a, Variant<'a>> {
    gc
}

/// Only pointers, so it may be seen with a shorter brand.
#[derive(Trace, Clone, Copy)]
enum Variant<'gc> {
    First(Gc<'gc, Variant<'gc>>),
    Second(u32),
    Array(Gc<'gc, [Variant<'gc>]>),
}

#[test]
fn a_pointer_may_be_seen_as_one_that_lives_shorter() {
    run(|m, _| {
        let root = {
            let second = m.alloc(Variant::Second(32));
            let array = m.alloc_slice(2, |_| Variant::First(second));
            let first = m.alloc(Variant::First(m.alloc(Variant::Array(array))));
            assert!(shorter(first).ptr_eq(first));
            m.root(first)
        };
        let _ = shorter_brand;
        m.collect();
        let Variant::First(inner) = *root.get(m) else {
            panic!("another variant")
        };
        let Variant::Array(items) = *inner else {
            panic!("another variant")
        };
        for item in items.iter() {
            assert!(
                matches!(item, Variant::First(second) if matches!(**second, Variant::Second(32)))
            );
        }
    });
}

#[test]
fn an_array_pointer_is_thin_and_shortens() {
    run(|m, _| {
        let array = m.alloc_array((), 3, |i| [1_u32, 2, 5][i]);
        assert_eq!(shorter(array).items(), [1, 2, 5]);
        assert_eq!(size_of_val(&array), size_of::<usize>());
        let root: Root<GcArray<(), u32>> = m.root(array);
        m.collect();
        assert_eq!(root.get(m).items(), [1, 2, 5]);
    });
}

#[test]
fn values_without_pointers_are_known_to_have_none() {
    assert!(!needs_trace::<Option<i32>>());
    assert!(!needs_trace::<Option<(i32, char)>>());
    assert!(!needs_trace::<PhantomData<Gc<'static, i32>>>());
    assert!(!needs_trace::<&'static [u32]>());
    assert!(!needs_trace::<[Result<u8, String>; 4]>());
}

#[derive(Trace)]
struct Recursive<'gc> {
    inner: Option<Gc<'gc, Recursive<'gc>>>,
    tuple: Option<(Gc<'gc, Recursive<'gc>>, Gc<'gc, Option<i32>>)>,
    pair: (Option<Gc<'gc, Recursive<'gc>>>, Gc<'gc, char>),
    counted: Counted,
}

#[test]
fn values_with_pointers_are_known_to_have_them_and_all_are_found() {
    assert!(needs_trace::<Option<Gc<'static, i32>>>());
    assert!(needs_trace::<Option<(Gc<'static, i32>, char)>>());
    assert!(needs_trace::<Recursive<'static>>());
    assert!(needs_trace::<Gc<'static, Recursive<'static>>>());
    run(|m, drops| {
        let root = {
            let leaf = || {
                m.alloc(Recursive {
                    inner: None,
                    tuple: None,
                    pair: (None, m.alloc('l')),
                    counted: drops.one(),
                })
            };
            m.root(m.alloc(Recursive {
                inner: Some(leaf()),
                tuple: Some((leaf(), m.alloc(Some(4)))),
                pair: (Some(leaf()), m.alloc('r')),
                counted: drops.one(),
            }))
        };
        m.collect();
        assert_eq!(drops.count(), 0);
        {
            let top = root.get(m);
            let (leaf, number) = top.tuple.expect("set");
            assert_eq!((*leaf.pair.1, *number, *top.pair.1), ('l', Some(4), 'r'));
        }
        drop(root);
        m.collect();
        assert_eq!(drops.count(), 4);
    });
}

#[derive(Trace)]
struct Basic<'gc> {
    parent: Option<Gc<'gc, Basic<'gc>>>,
    children: GcLock<Vec<Gc<'gc, Basic<'gc>>>>,
    value: String,
    cell: GcCell<'gc, Basic<'gc>>,
}

#[derive(Trace, Clone, Copy)]
struct BasicCopy<'gc> {
    test: i32,
    basic: Option<Gc<'gc, Basic<'gc>>>,
}

#[derive(Trace, Clone, Copy)]
enum BasicEnum<'gc> {
    Unit,
    Tuple(i32),
    First {
        all: i32,
    },
    Second {
        you: Gc<'gc, String>,
        need: bool,
    },
    Third {
        is: (),
        love: Gc<'gc, BasicEnum<'gc>>,
    },
    Fifth(Gc<'gc, BasicEnum<'gc>>, Gc<'gc, Basic<'gc>>),
}

#[test]
fn a_type_is_dropped_if_a_part_of_it_is_and_copied_if_all_are() {
    fn is_copy<T: Copy>() {}
    is_copy::<BasicCopy<'_>>();
    is_copy::<BasicEnum<'_>>();
    is_copy::<Gc<'_, Basic<'_>>>();
    is_copy::<Option<Gc<'_, Basic<'_>>>>();
    assert!(needs_trace::<Basic<'static>>() && needs_trace::<BasicCopy<'static>>());
    assert!(std::mem::needs_drop::<Basic<'_>>() && !std::mem::needs_drop::<BasicCopy<'_>>());
    run(|m, _| {
        let basic = || Basic {
            parent: None,
            children: GcLock::new(Vec::new()),
            value: String::from("text"),
            cell: GcCell::null(),
        };
        for i in 0..100 {
            let at = m.alloc(basic());
            std::hint::black_box(m.alloc(BasicCopy {
                test: i,
                basic: Some(at),
            }));
        }
        m.collect();
        assert_eq!(
            m.heap().stats().objects_dropped,
            100,
            "those with text in them"
        );
    });
}

#[test]
fn every_variant_holds_what_it_points_to() {
    run(|m, _| {
        let root: Root<[BasicEnum<'static>]> = {
            let basic = m.alloc(Basic {
                parent: None,
                children: GcLock::new(Vec::new()),
                value: String::from("value"),
                cell: GcCell::null(),
            });
            basic.cell.set(m, basic);
            basic.children.write(m).push(basic);
            let you = m.alloc(String::from("you"));
            let love = m.alloc(BasicEnum::Second { you, need: true });
            let fifth = m.alloc(BasicEnum::Third { is: (), love });
            let all = [
                BasicEnum::Unit,
                BasicEnum::Tuple(1),
                BasicEnum::First { all: 2 },
                BasicEnum::Second { you, need: false },
                BasicEnum::Third { is: (), love },
                BasicEnum::Fifth(fifth, basic),
            ];
            m.root(m.alloc_slice(all.len(), |i| all[i]))
        };
        m.collect();
        let text = |variant: &BasicEnum<'_>| match variant {
            BasicEnum::Unit => "unit".to_owned(),
            BasicEnum::Tuple(n) | BasicEnum::First { all: n } => n.to_string(),
            BasicEnum::Second { you, need } => format!("{you} {need}"),
            BasicEnum::Third { is: (), love } => match **love {
                BasicEnum::Second { you, need } => format!("love {you} {need}"),
                _ => "another".to_owned(),
            },
            BasicEnum::Fifth(_, basic) => {
                let own = basic.children.read()[0];
                assert!(own.ptr_eq(*basic) && basic.cell.get().is_some_and(|at| at.ptr_eq(own)));
                own.value.clone()
            }
        };
        let texts: Vec<_> = root.get(m).iter().map(text).collect();
        assert_eq!(
            texts,
            ["unit", "1", "2", "you false", "love you true", "value"]
        );
    });
}

#[test]
fn a_parameter_that_no_field_holds_is_ignored() {
    struct NotTrace(std::cell::Cell<u8>);
    #[derive(Trace)]
    #[trace(bound = "")]
    struct Ignored<'gc, T> {
        gc: GcCell<'gc, Ignored<'gc, T>>,
        marker: PhantomData<fn() -> T>,
    }
    run(|m, _| {
        let root = {
            let gc = m.alloc(Ignored::<NotTrace> {
                gc: GcCell::null(),
                marker: PhantomData,
            });
            gc.gc.set(m, gc);
            m.root(gc)
        };
        m.collect();
        let gc = root.get(m);
        assert!(gc.gc.get().is_some_and(|own| own.ptr_eq(gc)));
    });
}
