//! The questions that derived code puts to the type checker.
//!
//! **Claim.** A user cannot replace these questions by others that ask nothing.
//!
//! **Why.** They are inherent functions of [`Tracer`] and [`Brand`], and these two types stand in
//! the signatures of the traits' own functions (`Trace::trace`, `Rebrand::__fields_are_rebranded`).
//! Derived code that implements the real traits must name the real types, whatever path the user
//! gave it, and an inherent function takes precedence over every trait's. A function of a module
//! could be replaced by another one of the same name.
//!
//! The names are long because a user reads them when the answer is no.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::object::trace::{Rebrand, RebrandTarget, Tracer};

/// Names the brand that a question is about. No brand is a part of another.
#[derive(Debug)]
pub struct Brand<'b>(PhantomData<Cell<&'b ()>>);

#[doc(hidden)]
impl<'b> Brand<'b> {
    /// Holds if a field of type `F` has type `To` when the type around it is rebranded to `'b`, and
    /// `To` is the rebranding of `F`. This makes a derived `Rebrand` true.
    ///
    /// It fails for a `Gc<'static, _>` in a field, which would keep its brand when its owner
    /// changes brand. It also fails for a function pointer that takes a `Gc<'gc, _>`, which would
    /// be called with a `Gc` of another brand.
    pub fn a_field_must_be_rebranded_with_its_type<F, To>(_: &mut F, _: &mut To)
    where
        F: ?Sized + Rebrand<'b, To = To>,
    {
    }

    /// Asks the same about the last field of a type that is never sized.
    pub fn a_tail_must_be_rebranded_with_its_type<F, To>(_: &mut F, _: &mut To)
    where
        F: ?Sized + RebrandTarget<'b, Target = To>,
        To: ?Sized,
    {
    }

    /// Holds if a type that the derive took for `PhantomData` by its name is one. It is empty
    /// before and after a rebranding.
    pub fn it_must_be_the_phantom_data_of_core<T: ?Sized, To: ?Sized>(
        _: &mut PhantomData<T>,
        _: &mut PhantomData<To>,
    ) {
    }

    /// Holds if a field has type `F` before and after a rebranding. The collector cannot change
    /// what a function takes.
    pub fn a_function_pointer_must_stay_as_it_is<F: Is<To>, To>(_: &mut F, _: &mut To) {}

    /// Holds if a field has type `F` before and after a rebranding, because a skipped field is not
    /// rebranded.
    pub fn a_skipped_field_must_stay_as_it_is<F, To>(_: &mut F, _: &mut To)
    where
        F: ?Sized + Is<To>,
        To: ?Sized,
    {
    }
}

#[doc(hidden)]
impl Tracer<'_> {
    /// Holds if a field of type `F` may be skipped: nothing in it is a `Gc`, which is neither
    /// `Send` nor `Sync`.
    #[inline(always)]
    pub fn a_skipped_field_must_be_send_sync_and_static<F: ?Sized + Send + Sync + 'static>(_: &F) {}

    /// Holds for every function pointer, and for nothing that holds a `Gc`. A field that is a
    /// function pointer by its text is not traced.
    #[inline(always)]
    pub fn a_function_pointer_must_be_send_and_sync<F: ?Sized + Send + Sync>(_: &F) {}

    /// Has no answer (E0283) for a type that implements `Drop`, because then there are two answers
    /// for `Answer`.
    ///
    /// The type's drop would run on a sweeper's thread, when the objects that it points to may be
    /// gone. Give the part that needs a drop a type of its own, which holds no `Gc`, and make it a
    /// field.
    #[inline(always)]
    pub fn a_type_that_may_hold_a_gc_must_not_implement_drop<T, Answer>()
    where
        T: ?Sized + HoldsGc_so_it_must_not_implement_Drop__drop_a_field_without_Gc_instead<Answer>,
    {
    }
}

/// `F: Is<To>` holds if both are the same type.
#[diagnostic::on_unimplemented(
    message = "the field of type `{Self}` would become `{To}`",
    note = "what is not traced is not rebranded: its type must not depend on the brand of a parameter that the type holds"
)]
pub trait Is<To: ?Sized> {}

impl<T: ?Sized> Is<T> for T {}

/// Implemented once for every type, and a second time for a type that implements `Drop`.
#[expect(
    non_camel_case_types,
    reason = "the compiler shows this name to a user: it is a sentence"
)]
pub trait HoldsGc_so_it_must_not_implement_Drop__drop_a_field_without_Gc_instead<Answer> {}

impl<T: ?Sized> HoldsGc_so_it_must_not_implement_Drop__drop_a_field_without_Gc_instead<()> for T {}

/// The second answer.
#[derive(Debug)]
pub struct ItImplementsDrop;

#[expect(
    drop_bounds,
    reason = "the question is whether `Drop` is implemented, not whether dropping does something"
)]
impl<T: ?Sized + Drop>
    HoldsGc_so_it_must_not_implement_Drop__drop_a_field_without_Gc_instead<ItImplementsDrop> for T
{
}
