//! An attribute macro below the derive makes another type of what the derive has seen. Nothing of it may be left out.

use std::cell::{Cell, RefCell};

use greywave::{Gc, Trace};

#[derive(Trace)]
#[edits::becomes(struct FieldAdded<'gc> { seen: Gc<'gc, u8>, hidden: RefCell<Option<Gc<'gc, u8>>> })]
struct FieldAdded<'gc> {
    seen: Gc<'gc, u8>,
}

#[derive(Trace)]
#[edits::becomes(struct FieldAddedToTuple<'gc>(Gc<'gc, u8>, RefCell<Option<Gc<'gc, u8>>>);)]
struct FieldAddedToTuple<'gc>(Gc<'gc, u8>);

#[derive(Trace)]
#[edits::becomes(struct FieldAddedToUnit(RefCell<u8>);)]
struct FieldAddedToUnit;

#[derive(Trace)]
#[edits::becomes(enum FieldAddedToVariant<'gc> { One, Two(Gc<'gc, u8>, RefCell<Option<Gc<'gc, u8>>>) })]
enum FieldAddedToVariant<'gc> {
    One,
    Two(Gc<'gc, u8>),
}

#[derive(Trace)]
#[edits::becomes(enum FieldAddedToUnitVariant<'gc> { One(RefCell<u8>), Two(Gc<'gc, u8>) })]
enum FieldAddedToUnitVariant<'gc> {
    One,
    Two(Gc<'gc, u8>),
}

#[derive(Trace)]
#[edits::becomes(enum VariantAdded<'gc> { One(Gc<'gc, u8>), Two(RefCell<Option<Gc<'gc, u8>>>) })]
enum VariantAdded<'gc> {
    One(Gc<'gc, u8>),
}

#[derive(Trace)]
#[edits::becomes(struct FieldRemoved<'gc> { seen: Gc<'gc, u8> })]
struct FieldRemoved<'gc> {
    seen: Gc<'gc, u8>,
    more: u8,
}

#[derive(Trace)]
#[edits::becomes(struct TypeChanged<'gc> { seen: RefCell<Option<Gc<'gc, u8>>> })]
struct TypeChanged<'gc> {
    seen: Gc<'gc, u8>,
}

#[derive(Trace)]
#[edits::becomes(struct SkippedChanged<'gc> { seen: Gc<'gc, u8>, skipped: RefCell<Option<Gc<'gc, u8>>> })]
struct SkippedChanged<'gc> {
    seen: Gc<'gc, u8>,
    #[trace(skip)]
    skipped: u8,
}

#[derive(Trace)]
#[edits::becomes(struct FunctionChanged { function: Cell<u8> })]
struct FunctionChanged {
    function: fn() -> u8,
}

#[derive(Trace)]
#[edits::becomes(union MadeAUnion { seen: u8 })]
struct MadeAUnion {
    seen: u8,
}

#[derive(Trace)]
#[edits::becomes(#[repr(packed)] struct MadePacked<'gc> { small: u8, seen: Gc<'gc, u8> })]
struct MadePacked<'gc> {
    small: u8,
    seen: Gc<'gc, u8>,
}

#[derive(Trace)]
#[edits::becomes(struct ParameterAdded<'gc, T> { seen: Gc<'gc, T> })]
struct ParameterAdded<'gc> {
    seen: Gc<'gc, u8>,
}

#[derive(Trace)]
#[edits::becomes(struct BehindDeref<'gc> { inner: Inner<'gc>, hidden: RefCell<u8> })]
struct BehindDeref<'gc> {
    seen: Gc<'gc, u8>,
}
struct Inner<'gc> {
    seen: Gc<'gc, u8>,
}
impl<'gc> std::ops::Deref for BehindDeref<'gc> {
    type Target = Inner<'gc>;
    fn deref(&self) -> &Inner<'gc> {
        &self.inner
    }
}

#[derive(Trace)]
#[edits::becomes(struct PhantomChanged<'gc> { seen: Gc<'gc, u8>, phantom: RefCell<u8> })]
struct PhantomChanged<'gc> {
    seen: Gc<'gc, u8>,
    phantom: std::marker::PhantomData<u8>,
}

fn main() {}
