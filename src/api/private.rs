//! The derive macro's door: what the code that `#[derive(Trace)]` writes needs to name. Nothing here is for people.
//!
//! Every item is a question to the type checker. The names are long because they are what a user reads when the answer
//! is no.

pub use core;
use core::cell::Cell;
use core::marker::PhantomData;

use crate::object::trace::Rebrand;
pub use crate::object::trace::RebrandTarget;

/// Implemented by `#[derive(Trace)]` for a type that may hold a `Gc`, so that a `Drop` implementation of that type is
/// an overlap (E0119).
///
/// Its drop would run on a sweeper's thread, when the objects that it points to may be gone. Give the part that needs a
/// drop a type of its own, which holds no `Gc`, and make it a field.
#[expect(
    non_camel_case_types,
    reason = "the compiler shows this name to a user: it is a sentence"
)]
pub trait HoldsGc_so_it_must_not_implement_Drop__drop_a_field_without_Gc_instead {}

#[expect(
    drop_bounds,
    reason = "the question is whether `Drop` is implemented, not whether dropping does something"
)]
impl<T: ?Sized + Drop> HoldsGc_so_it_must_not_implement_Drop__drop_a_field_without_Gc_instead
    for T
{
}

/// Says which brand is meant. No brand is a part of another.
#[derive(Debug)]
pub struct Brand<'b>(PhantomData<Cell<&'b ()>>);

/// Holds if a field of type `F` has type `To` when the type around it is rebranded to `'b`, and that is what `F` is
/// rebranded to: what makes a derived `Rebrand` true.
///
/// It fails for a `Gc<'static, _>` in a field, which would keep its brand when its owner changes brand, and for a
/// function pointer that takes a `Gc<'gc, _>`, which would be called with a `Gc` of another brand.
pub fn a_field_must_be_rebranded_with_its_type<'b, F, To>(_: &Brand<'b>, _: &mut F, _: &mut To)
where
    F: ?Sized + Rebrand<'b, To = To>,
{
}

/// [`a_field_must_be_rebranded_with_its_type`] for the last field of a type that is never sized.
pub fn a_tail_must_be_rebranded_with_its_type<'b, F, To>(_: &Brand<'b>, _: &mut F, _: &mut To)
where
    F: ?Sized + RebrandTarget<'b, Target = To>,
    To: ?Sized,
{
}

/// Holds if a field of type `F` may be skipped: nothing in it is a `Gc`, which is neither `Send` nor `Sync`.
pub fn a_skipped_field_must_be_send_sync_and_static<F: ?Sized + Send + Sync + 'static>(_: &mut F) {}

/// Holds if what the derive took for a `PhantomData` by its name is one.
pub fn it_must_be_the_phantom_data_of_core<T: ?Sized>(_: &mut PhantomData<T>) {}

/// Holds if a field is of type `F` before and after a rebranding. The collector cannot change what a function takes.
pub fn a_function_pointer_must_stay_as_it_is<F: Is<To>, To>(_: &mut F, _: &mut To) {}

/// `F: Is<To>` if they are one type.
#[diagnostic::on_unimplemented(
    message = "the function pointer `{Self}` would become `{To}`",
    note = "its type must not depend on the brand of a parameter that the type holds"
)]
pub trait Is<To: ?Sized> {}

impl<T: ?Sized> Is<T> for T {}
