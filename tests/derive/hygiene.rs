//! No name of the user's disturbs the derive, and no lint complains about what it writes.

/// The derive is found by another name, and its crate as well.
mod renamed {
    mod inner {
        pub(super) use ::greywave as gw;
    }
    use inner::gw;
    #[derive(gw::Trace)]
    #[trace(crate = inner::gw)]
    struct Plain<'gc>(gw::Gc<'gc, u8>);
    #[derive(gw::Trace)]
    #[trace(crate = self::inner::gw, bound = "T: gw::Trace")]
    struct Generic<T>(T);
    #[derive(gw::Trace)]
    #[trace(crate = crate::hygiene::renamed::inner::gw)]
    #[trace(bound = "T: gw::Trace")]
    enum Twice<T> {
        A(T),
    }
}

/// Names that code is likely to use, taken.
mod taken {
    #![expect(non_camel_case_types, reason = "the names are the point")]
    type Result = ();
    type Option = u8;
    type usize = ();
    type bool = ();
    struct Ok;
    struct Some;
    struct Box;
    mod core {}
    mod std {}
    mod greywave {}
    trait Trace {
        fn trace(&self);
        fn external_bytes(&self);
    }
    impl<T> Trace for T {
        fn trace(&self) {}
        fn external_bytes(&self) {}
    }
    #[derive(::greywave::Trace)]
    struct Named<'b, T, TTo, TTo_>(T, TTo, TTo_, ::greywave::Gc<'b, u8>);
    #[derive(::greywave::Trace)]
    struct Brands<'any_brand, any>(any, ::greywave::GcCell<'any_brand, u8>);
    #[derive(::greywave::Trace)]
    struct Traits<Trace, Tracer, Rebrand, greywave>(Trace, Tracer, Rebrand, greywave);
    #[derive(::greywave::Trace)]
    enum Variants<'gc> {
        Ok(u32),
        Err {
            tracer: u32,
            visitor: u8,
            __tracer: u8,
            __field0: u8,
            __sum: ::greywave::Gc<'gc, u8>,
        },
        Some,
        None,
    }
}

mod raw {
    use greywave::{Gc, Trace};
    #[derive(Trace)]
    struct Struct<'r#gc, r#T> {
        r#type: r#T,
        r#match: Gc<'gc, u8>,
        r#self_: Vec<T>,
    }
    #[expect(non_camel_case_types, reason = "keywords are the point")]
    #[derive(Trace)]
    enum r#enum<r#T> {
        r#fn { r#type: r#T },
        r#loop(T),
    }
}

mod from_macros {
    use greywave::{Gc, GcCell, Trace};
    use std::marker::PhantomData;

    macro_rules! with_fields {
        ($name:ident<$lt:lifetime, $($param:ident),*> $field:ident: $ty:ty) => {
            #[derive(Trace)]
            struct $name<$lt, $($param),*> {
                $field: $ty,
                own: Gc<$lt, u8>,
                from_here: $crate::hygiene::from_macros::Unit,
                marker: PhantomData<($($param,)*)>,
            }
        };
    }
    macro_rules! whole {
        ($($body:tt)*) => { #[derive(Trace)] $($body)* };
    }
    macro_rules! variants {
        ($name:ident { $($variant:ident($ty:ty)),* }) => {
            #[derive(Trace)]
            enum $name { $($variant($ty)),* }
        };
    }
    macro_rules! a_type {
        ($ty:ty) => { Vec<$ty> };
    }
    #[derive(Trace)]
    struct Unit;
    with_fields!(Made<'x, T, U> inner: Vec<T>);
    with_fields!(MadeOfFunction<'b, T> function: fn(T) -> T);
    whole!(
        struct Whole<'gc, T> {
            a: T,
            b: GcCell<'gc, Whole<'gc, T>>,
        }
    );
    variants!(Variants { A(u8), B(Vec<Box<a_type!(u32)>>) });
    #[derive(Trace)]
    struct TypeFromMacro<'gc, T> {
        branded: a_type!(Gc<'gc, T>),
        held: a_type!(T),
    }
}

mod around {
    use greywave::{Gc, Trace};

    #[derive(Trace, Debug, Clone, Default, PartialEq)]
    struct OtherDerives {
        #[cfg(not(test))]
        absent: std::rc::Rc<u8>,
        #[cfg(test)]
        present: u8,
        #[doc(hidden)]
        hidden: u8,
    }
    #[derive(Trace, Default)]
    #[doc(hidden)]
    enum Configured<'gc> {
        #[cfg(not(test))]
        Absent(std::rc::Rc<u8>),
        #[default]
        Present,
        Other(#[cfg(not(test))] std::rc::Rc<u8>, #[cfg(test)] Gc<'gc, u8>),
    }
    mod private {
        #[derive(greywave::Trace)]
        pub(super) struct Private;
    }
    #[derive(Trace)]
    pub(crate) struct PublicWithPrivateField {
        field: private::Private,
    }
    #[test]
    fn a_type_in_a_function() {
        #[derive(Trace)]
        struct Local<T>(T);
        assert!(!crate::needs_trace::<Local<u8>>());
    }
}

/// Every lint that the derive could trip, and no prelude.
mod strict {
    #![no_implicit_prelude]
    #![forbid(unsafe_code)]
    #![deny(
        warnings,
        missing_docs,
        missing_debug_implementations,
        rust_2018_idioms,
        single_use_lifetimes,
        unused_lifetimes,
        unused_qualifications,
        unreachable_pub,
        unnameable_types,
        non_local_definitions,
        deprecated,
        clippy::all,
        clippy::pedantic,
        clippy::nursery,
        clippy::multiple_unsafe_ops_per_block,
        clippy::undocumented_unsafe_blocks
    )]
    #![expect(
        clippy::use_self,
        reason = "these types are written as users write them"
    )]
    use ::greywave::{Gc, GcCell, Trace};
    use ::std::boxed::Box;
    use ::std::fmt::Display;
    use ::std::iter::Iterator;
    use ::std::marker::{PhantomData, Sized};
    use ::std::option::Option;
    use ::std::vec::Vec;

    #[derive(Trace)]
    struct Unit;
    #[derive(Trace)]
    struct One<'gc>(Gc<'gc, u8>);
    #[derive(Trace)]
    struct Node<'gc> {
        next: GcCell<'gc, Node<'gc>>,
        children: Vec<Node<'gc>>,
        parent: Option<Box<Node<'gc>>>,
    }
    #[derive(Trace)]
    struct Held<T: Display + ?Sized>(PhantomData<T>, T);
    #[derive(Trace)]
    struct Peeked<I: Iterator>
    where
        I::Item: Display,
    {
        iter: I,
        next: I::Item,
        #[trace(skip)]
        skipped: u8,
    }
    #[derive(Trace)]
    enum Never {}
    #[derive(Trace)]
    enum Either<'gc, A, const N: usize> {
        A(A, Gc<'gc, A>),
        B { array: [A; N], never: Never },
        C,
    }
    #[derive(Trace)]
    struct Deprecated {
        #[deprecated]
        old: u8,
        new: u8,
    }
    #[derive(Trace)]
    enum DeprecatedVariant {
        #[deprecated]
        Old(u8),
        New,
    }
    #[expect(non_camel_case_types, reason = "a lint that the derive would repeat")]
    #[derive(Trace)]
    struct lower<t>(t);
}
