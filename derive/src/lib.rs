//! The derive macro of greywave. Use it as `greywave::Trace`, which documents it.
//!
//! A type goes through the files in this order. `input` reads it with its attributes (`attr`), and
//! refuses what no heap object can be. `bound` decides which parameters may hold a `Gc` (from what
//! `uses` sees in the fields), and which bounds they need before and after a `rebranding`. `expand`
//! writes the implementations. `diag` collects what was refused, so that a user sees all of it at
//! once.

mod attr;
mod bound;
mod diag;
mod expand;
mod input;
mod rebranding;
mod uses;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

use crate::diag::Diag;

/// Writes `Trace` and `Rebrand` for a type that lives in the garbage-collected heap.
///
/// The type may name one lifetime, that of the heap, which is `'gc` by convention. Every field must
/// implement `Trace` and `Rebrand`, and is traced.
///
/// # Parameters
/// - A type parameter that a field holds (`value: T`, `items: Vec<T>`, `next: Gc<'gc, T>`) gets the
///   bounds `T: Trace` and `T: Rebrand<'b>`.
/// - A parameter that appears only in `PhantomData<T>`, in a function pointer `fn() -> T`, or in a
///   type that holds no `Gc` (`Arc<T>`, `Root<T>`, a lock of `std`), gets no bound and does not
///   change. If `T` must change its brand with the type, write `#[trace(bound = "T: Trace")]`. A
///   typed index, `struct Id<T>(u32, PhantomData<T>)`, needs this if another type holds both a `T`
///   and an `Id<T>`.
/// - A field of an associated type, such as `I::Item`, bounds that type and not `I`.
/// - Const parameters, default parameters, `?Sized` and `where` clauses are allowed. The bounds of
///   the user are repeated for the rebranded parameters.
///
/// # On the type
/// - `#[trace(bound = "T: Trace, I::Item: Trace")]` replaces the bounds above. A parameter that it
///   does not bound by `Trace` does not change.
/// - `#[trace(crate = path)]` says where greywave is, if not at `::greywave`.
///
/// # On a field
/// - `#[trace(skip)]`: the field is not traced. It must be `Send + Sync + 'static`, so it cannot
///   hold a `Gc`. It need not implement `Trace`.
///
/// # What is refused
/// The derive refuses:
///
/// - two lifetimes;
/// - references other than `&'static`, and raw pointers;
/// - unions and `repr(packed)`;
/// - a function pointer that names the type's lifetime (`for<'a> fn(Gc<'a, T>)` is fine);
/// - a `Gc<'static, _>`, however it is hidden;
/// - a `Drop` implementation, if the type may hold a `Gc`, because the drop would run on a
///   sweeper's thread, when the object's neighbours are gone.
#[proc_macro_derive(Trace, attributes(trace))]
pub fn derive_trace(tokens: TokenStream) -> TokenStream {
    let input = parse_macro_input!(tokens as DeriveInput);
    let mut diag = Diag::default();
    let container = attr::Container::read(&input.attrs, &mut diag);
    let greywave = container.greywave.clone();
    let ours = input::Input::read(&input, container, &mut diag);
    let bounds = ours
        .as_ref()
        .map(|ours| (ours, bound::Bounds::of(ours, &mut diag)));
    match (bounds, diag.into_compile_errors()) {
        (Some((ours, bounds)), None) => expand::implementations(ours, &bounds).into(),
        (_, errors) => expand::refused(&input, &greywave, errors).into(),
    }
}
