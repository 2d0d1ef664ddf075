//! The two traits a heap type has, and the tracer its pointers are reported to.

use std::fmt;

use crate::base::ptr_buf::PtrBuf;
use crate::object::counting::Counting;
use crate::object::questions::Brand;

/// A value whose `Gc` pointers can be found: "every `Gc` inside is reported, and the value may be shared between
/// threads and traced while mutators run".
///
/// Use `#[derive(Trace)]`; it writes this trait and [`Rebrand`]. A hand-written implementation is rarely needed.
///
/// # Safety
/// 1. [`trace`](Trace::trace) calls `trace` on every field that can hold a `Gc`, each time it is called.
/// 2. The value may be read from several threads at once and dropped on any thread: every part of it is `Send` and
///    `Sync`, or one of this crate's cells.
/// 3. A part that can change through `&self` and can hold a `Gc` is one of this crate's cells (`GcCell`, `GcOnce`,
///    `GcLock`): a marker reads it while mutators write it.
/// 4. [`NEEDS_TRACE`](Trace::NEEDS_TRACE) is `true` if the value can hold a `Gc`.
/// 5. `trace` allocates nothing on the heap, takes no lock that user code holds, and does not unwind.
/// 6. If the value can hold a `Gc`, its own `Drop` does not follow one: neighbours may be gone when it runs.
/// 7. `count_external`, which is hidden, hands what it is given to parts of the value, and to nothing else.
///
/// # Examples
/// ```
/// use greywave::{Gc, GcCell, Trace};
///
/// #[derive(Trace)]
/// struct Node<'gc> {
///     name: String,
///     next: GcCell<'gc, Node<'gc>>,
///     origin: Option<Gc<'gc, Node<'gc>>>,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot live in the garbage-collected heap",
    label = "this type does not implement `Trace`",
    note = "put `#[derive(Trace)]` on your own types",
    note = "instead of `Cell`, `RefCell`, `Rc` or a std lock around a `Gc`, use `GcCell`, `GcOnce` or `GcLock`: a marker thread reads objects while mutators write them",
    note = "a field of a foreign type that holds no `Gc` and is `Send + Sync + 'static` may be marked `#[trace(skip)]`"
)]
pub unsafe trait Trace {
    /// Whether a value of this type can hold a `Gc`. `false` means "noscan": marked, never traced.
    const NEEDS_TRACE: bool = true;

    /// Reports every `Gc` inside to `tracer`, by calling `trace` on the fields.
    fn trace(&self, tracer: &mut Tracer<'_>);

    /// Bytes that this value owns outside the heap, with those that its items own: the buffers of a `Vec<String>` and of its
    /// strings. O(items) if they need a drop, else O(1).
    ///
    /// The pacer counts them towards the heap's goal and limit. The heap asks once when an object is born, and once when it
    /// is dropped, and the two answers must be the same, so an implementation by hand answers by what does not change.
    /// Of what an `Arc` points to, its size counts, once for all objects that hold it (in a [`GcLock`](crate::GcLock) a share of it);
    /// of an owned [`Cow`](std::borrow::Cow) its text or numbers count; what a `std` lock or an atomic holds
    /// does not count. For what cannot be seen there is [`External`](crate::External).
    fn external_bytes(&self) -> usize {
        0
    }

    /// As [`external_bytes`](Self::external_bytes), for the collector's books. An implementation passes `how` on to its parts.
    #[doc(hidden)]
    fn count_external(&self, how: &Counting<'_>) -> usize {
        let _ = how;
        self.external_bytes()
    }
}

/// The same type with its `'gc` lifetime replaced by `'b`.
///
/// `#[derive(Trace)]` writes it.
///
/// # Safety
/// 1. `To` is `Self` with one lifetime, the brand, replaced by `'b`, and nothing else changed: a pointer to one may be
///    cast to a pointer to the other.
/// 2. Every `Gc` and cell inside `Self` that carries the brand carries `'b` in `To`, and nothing else changes: every field
///    of type `F` is itself a `Rebrand<'b>` whose `To` is the field's type in `To`; one without the brand does not change,
///    and function pointers rebrand to themselves.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be rebranded, so it cannot live in the garbage-collected heap",
    label = "this type does not implement `Rebrand`",
    note = "put `#[derive(Trace)]` on your own types; it writes `Rebrand` as well",
    note = "instead of `Cell`, `RefCell`, `Rc` or a std lock around a `Gc`, use `GcCell`, `GcOnce` or `GcLock`: a marker thread reads objects while mutators write them",
    note = "a field of a foreign type that holds no `Gc` and is `Send + Sync + 'static` may be marked `#[trace(skip)]`"
)]
pub unsafe trait Rebrand<'b>: Trace {
    /// `Self` with its brand replaced by `'b`.
    type To: Trace + 'b;

    /// Where derived code has the type checker prove clause 2, field by field. Never called.
    #[doc(hidden)]
    fn __fields_are_rebranded(_: &Brand<'b>, _: &mut Self, _: &mut Self::To) {}
}

/// `T` with its brand replaced by `'b`.
pub type At<'b, T> = <T as Rebrand<'b>>::To;

/// A type that `#[derive(Trace)]` was put on: it can be rebranded to any lifetime.
pub trait Collect: for<'b> Rebrand<'b> {}

impl<T: for<'b> Rebrand<'b>> Collect for T {}

/// A value that carries the brand `'m` and no other: what a mutator borrowed for `'m` may allocate.
///
/// A value branded `'static` could otherwise be rooted, come back branded with a mutator's lifetime, and give out as
/// `'static` what was stored through the other brand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not carry the brand of the mutator that allocates it",
    note = "build the value from `Gc`s and cells of this mutator"
)]
pub trait BrandedBy<'m> {}

impl<'m, T: Rebrand<'m, To = T>> BrandedBy<'m> for T {}

/// What a `Gc` may point to: every sized [`Rebrand`] type, slices of them, `str`, and trait objects named to
/// [`dyn_target!`](crate::dyn_target).
///
/// # Safety
/// As [`Rebrand`], for a type that need not be sized. Pointers to both have the same metadata.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be rebranded behind a `Gc`",
    note = "for a trait object, name it once to `greywave::dyn_target!`"
)]
pub unsafe trait RebrandTarget<'b> {
    /// `Self` with its brand replaced by `'b`.
    type Target: ?Sized + 'b;

    /// As in [`Rebrand`].
    #[doc(hidden)]
    fn __fields_are_rebranded(_: &Brand<'b>, _: &mut Self, _: &mut Self::Target) {}
}

/// `T`, sized or not, with its brand replaced by `'b`.
pub type TargetAt<'b, T> = <T as RebrandTarget<'b>>::Target;

// SAFETY: what `Rebrand` promises, word for word.
unsafe impl<'b, T: Rebrand<'b>> RebrandTarget<'b> for T {
    type Target = T::To;
}

// SAFETY: a slice of rebranded items has the same layout and length.
unsafe impl<'b, T: Rebrand<'b>> RebrandTarget<'b> for [T] {
    type Target = [T::To];
}

// SAFETY: `str` has no brand.
unsafe impl RebrandTarget<'_> for str {
    type Target = str;
}

/// Takes what does not fit in the buffer; the collector implements it.
pub(crate) trait Spill {
    /// Empties `buf`.
    fn spill(&mut self, buf: &mut PtrBuf);
}

/// How a trace treats locks ([`GcLock`](crate::GcLock)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockView {
    /// Mutators run: take each lock for reading, without waiting, in this cycle.
    Concurrent { cycle: u32 },
    /// Look into no lock.
    Shut,
    /// Whoever looks has the value for himself, so nobody writes: read through every lock.
    Owned,
    /// Everybody is stopped, so no mutator of the heap goes on writing; one of another heap may. With `busy` some stand in the
    /// middle of a write: leave out locks that are held for writing in this cycle. Made by
    /// [`Standstill`](crate::gc::standstill::Standstill) only.
    Stopped { cycle: u32, busy: bool },
}

/// Where a trace reports the pointers it finds. Made by the collector, opaque to users.
pub struct Tracer<'a> {
    buf: &'a mut PtrBuf,
    spill: &'a mut dyn Spill,
    locks: LockView,
    left_out: u32,
}

impl<'a> Tracer<'a> {
    pub(crate) fn new(buf: &'a mut PtrBuf, spill: &'a mut dyn Spill, locks: LockView) -> Self {
        Self {
            buf,
            spill,
            locks,
            left_out: 0,
        }
    }

    /// Reports an edge to the object at `address`.
    #[inline]
    pub(crate) fn edge(&mut self, address: usize) {
        if self.buf.is_full() {
            self.spill.spill(self.buf);
        }
        self.buf.push(address);
    }

    pub(crate) fn locks(&self) -> LockView {
        self.locks
    }

    /// A lock or a frame is not read, because somebody may be writing to it.
    pub(crate) fn leave_out(&mut self) {
        self.left_out = self.left_out.saturating_add(1);
    }

    /// How many locks and frames were not read.
    pub(crate) fn left_out(&self) -> u32 {
        self.left_out
    }
}

impl fmt::Debug for Tracer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}
