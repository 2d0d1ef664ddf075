//! Values: one word each, on the operand stack and in the heap.

use greywave::{Gc, GcWord, Mutator, Trace, Word, WordKinds};

use crate::object::{Bound, Cell, Class, Closure, Foreign, Instance, Text};

/// The kinds of objects that a value may point to.
#[derive(Debug)]
pub(crate) struct Kinds;

impl WordKinds for Kinds {
    type List = (
        Text,
        Closure<'static>,
        Class<'static>,
        Instance<'static>,
        Bound<'static>,
        Foreign<'static>,
        Cell<'static>,
    );
}

const TEXT: usize = 0;
const CLOSURE: usize = 1;
const CLASS: usize = 2;
const INSTANCE: usize = 3;
const BOUND: usize = 4;
const FOREIGN: usize = 5;
/// The box of a captured variable: in registers and closures only.
const CELL: usize = 6;

/// A Lox value.
#[derive(Clone, Copy, Debug, Trace)]
pub(crate) struct Value<'gc>(Word<'gc, Kinds>);

macro_rules! kinds {
    ($($make:ident $get:ident $kind:ident $type:ty;)*) => { $(
        #[inline(always)]
        pub(crate) fn $make(object: Gc<'gc, $type>) -> Self {
            Self(Word::from_gc::<$kind>(object))
        }

        #[inline(always)]
        pub(crate) fn $get(self) -> Option<Gc<'gc, $type>> {
            self.0.as_gc::<$kind>()
        }
    )* };
}

impl<'gc> Value<'gc> {
    /// `nil`
    pub(crate) const NIL: Self = Self(Word::immediate(0));
    /// `false`
    pub(crate) const FALSE: Self = Self(Word::immediate(1));
    /// `true`
    pub(crate) const TRUE: Self = Self(Word::immediate(2));
    /// Nothing is here: an undefined global, a field that an object does not have.
    pub(crate) const UNDEFINED: Self = Self(Word::immediate(3));

    kinds! {
        text as_text TEXT Text;
        closure as_closure CLOSURE Closure<'gc>;
        class as_class CLASS Class<'gc>;
        instance as_instance INSTANCE Instance<'gc>;
        bound as_bound BOUND Bound<'gc>;
        foreign as_foreign FOREIGN Foreign<'gc>;
        cell as_cell CELL Cell<'gc>;
    }

    /// A number.
    #[inline(always)]
    pub(crate) fn number(number: f64) -> Self {
        Self(Word::number(number))
    }

    /// `true` or `false`
    #[inline(always)]
    pub(crate) fn bool(bool: bool) -> Self {
        Self(Word::immediate(1 + u32::from(bool)))
    }

    #[inline(always)]
    pub(crate) fn as_number(self) -> Option<f64> {
        self.0.as_number()
    }

    pub(crate) fn as_bool(self) -> Option<bool> {
        match self.0.as_immediate() {
            Some(1) => Some(false),
            Some(2) => Some(true),
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) fn is_nil(self) -> bool {
        self.0.is(Self::NIL.0)
    }

    #[inline(always)]
    pub(crate) fn is_undefined(self) -> bool {
        self.0.is(Self::UNDEFINED.0)
    }

    /// Whether a condition takes it for `false`.
    #[inline(always)]
    pub(crate) fn is_falsey(self) -> bool {
        self.0.is(Self::NIL.0) || self.0.is(Self::FALSE.0)
    }

    /// `==`
    #[inline(always)]
    pub(crate) fn equals(self, other: Self) -> bool {
        match (self.as_number(), other.as_number()) {
            (Some(a), Some(b)) => a == b,
            _ => self.0.is(other.0),
        }
    }
}

/// A place for a value in the heap.
#[derive(Debug, Trace)]
pub(crate) struct Slot<'gc>(GcWord<'gc, Kinds>);

impl<'gc> Slot<'gc> {
    #[inline(always)]
    pub(crate) fn new(value: Value<'gc>) -> Self {
        Self(GcWord::new(value.0))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> Value<'gc> {
        Value(self.0.get())
    }

    #[inline(always)]
    pub(crate) fn set(&self, m: &Mutator, value: Value<'gc>) {
        self.0.set(m, value.0);
    }
}
