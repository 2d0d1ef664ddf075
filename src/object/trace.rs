//! The two traits of a heap type, and the tracer to which it reports its pointers.
//!
//! **Claim.** The collector finds every edge of a type that derives `Trace`, and no value can be
//! seen with a brand that outlives it.
//!
//! **How.** `Trace` reports the edges of a value, one after the other, to a `Tracer`. `Rebrand`
//! names the type that a value has with another brand, so that a mutator sees an object with its
//! own brand, and a root keeps it with the brand `'static`. The type checker proves both, field by
//! field (`object/questions.rs`).
//!
//! **Why the tracer is a buffer.** This layer does not know the mark bits, which are two layers
//! above. A tracer collects addresses in a bounded buffer, and hands it to the collector when it is
//! full (`Spill`). The write barrier uses a buffer of the same kind, so there is one way to shade
//! an object.

use std::fmt;

use crate::base::ptr_buf::PtrBuf;
use crate::object::counting::Counting;
use crate::object::questions::Brand;

/// A value whose `Gc` pointers can be found. The trait says: "every `Gc` inside is reported, and
/// the value may be shared between threads and traced while mutators run".
///
/// Use `#[derive(Trace)]`, which writes this trait and [`Rebrand`]. A hand-written implementation
/// is rarely needed.
///
/// # Safety
/// 1. [`trace`](Trace::trace) calls `trace` on every field that can hold a `Gc`, each time it is
///    called.
/// 2. Several threads may read the value at once, and any thread may drop it: every part of it is
///    `Send` and `Sync`, or one of this crate's cells.
/// 3. If a part can change through `&self` and can hold a `Gc`, it is one of this crate's cells
///    (`GcCell`, `GcOnce`, `GcLock`), because a marker reads it while mutators write it.
/// 4. [`NEEDS_TRACE`](Trace::NEEDS_TRACE) is `true` if the value can hold a `Gc`.
/// 5. `trace` allocates nothing on the heap, takes no lock that user code holds, and does not
///    unwind.
/// 6. If the value can hold a `Gc`, its own `Drop` does not follow one, because neighbours may be
///    gone when it runs.
/// 7. `count_external`, which is hidden, passes its argument to parts of the value, and to nothing
///    else.
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
    /// Whether a value of this type can hold a `Gc`. `false` means "noscan": its objects are marked
    /// and never traced.
    const NEEDS_TRACE: bool = true;

    /// Reports every `Gc` inside to `tracer`, by calling `trace` on the fields.
    fn trace(&self, tracer: &mut Tracer<'_>);

    /// Returns the bytes that this value owns outside the heap, including those that its items own:
    /// the buffer of a `Vec<String>` and those of its strings. O(items) if the items need a drop,
    /// otherwise O(1).
    ///
    /// The pacer counts these bytes towards the heap's goal and limit. The heap asks when an object
    /// is born and again when it is dropped, and the two answers must be equal. So a hand-written
    /// implementation must compute its answer from what does not change.
    ///
    /// For an `Arc` the size of its content counts, once for all objects that hold it; in a
    /// [`GcLock`](crate::GcLock) a share of it counts. For an owned [`Cow`](std::borrow::Cow) its
    /// text or its numbers count. What a `std` lock or an atomic holds does not count.
    /// [`External`](crate::External) counts what this function cannot see.
    fn external_bytes(&self) -> usize {
        0
    }

    /// Does what [`external_bytes`](Self::external_bytes) does, for the collector's books. An
    /// implementation passes `how` on to its parts.
    #[doc(hidden)]
    fn count_external(&self, how: &Counting<'_>) -> usize {
        let _ = how;
        self.external_bytes()
    }
}

/// The same type with its `'gc` lifetime replaced by `'b`.
///
/// `#[derive(Trace)]` implements it.
///
/// # Safety
/// 1. `To` is `Self` with one lifetime, the brand, replaced by `'b`, and nothing else changed: a
///    pointer to one may be cast to a pointer to the other.
/// 2. Every `Gc` and cell inside `Self` that carries the brand carries `'b` in `To`, and nothing
///    else changes. Every field of type `F` is itself a `Rebrand<'b>` whose `To` is the field's
///    type in `To`. A field without the brand does not change, and a function pointer is its own
///    rebranding.
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

    /// Derived code proves clause 2 here, field by field, to the type checker. Nobody calls this.
    #[doc(hidden)]
    fn __fields_are_rebranded(_: &Brand<'b>, _: &mut Self, _: &mut Self::To) {}
}

/// `T` with its brand replaced by `'b`.
pub type At<'b, T> = <T as Rebrand<'b>>::To;

/// A type that derives `Trace`: it can be rebranded to any lifetime.
pub trait Collect: for<'b> Rebrand<'b> {}

impl<T: for<'b> Rebrand<'b>> Collect for T {}

/// A value that carries the brand `'m` and no other. A mutator that is borrowed for `'m` may
/// allocate it.
///
/// Without this bound a value with the brand `'static` could be rooted and come back with a
/// mutator's brand; then what was stored through that brand could be read as `'static`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not carry the brand of the mutator that allocates it",
    note = "build the value from `Gc`s and cells of this mutator"
)]
pub trait BrandedBy<'m> {}

impl<'m, T: Rebrand<'m, To = T>> BrandedBy<'m> for T {}

/// What a `Gc` may point to: every sized [`Rebrand`] type, slices of such types, `str`, and the
/// trait objects that [`dyn_target!`](crate::dyn_target) names.
///
/// # Safety
/// The clauses of [`Rebrand`], for a type that need not be sized. Pointers to both have the same
/// metadata.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be rebranded behind a `Gc`",
    note = "for a trait object, name it once to `greywave::dyn_target!`"
)]
pub unsafe trait RebrandTarget<'b> {
    /// `Self` with its brand replaced by `'b`.
    type Target: ?Sized + 'b;

    /// Does what it does in [`Rebrand`].
    #[doc(hidden)]
    fn __fields_are_rebranded(_: &Brand<'b>, _: &mut Self, _: &mut Self::Target) {}
}

/// `T`, sized or not, with its brand replaced by `'b`.
pub type TargetAt<'b, T> = <T as RebrandTarget<'b>>::Target;

// SAFETY: this is what `Rebrand` promises, word for word.
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

/// Takes the addresses for which the buffer has no room. The collector implements it.
pub(crate) trait Spill {
    /// Empties `buf`.
    fn spill(&mut self, buf: &mut PtrBuf);
}

/// How a trace treats locks ([`GcLock`](crate::GcLock)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockView {
    /// Mutators run. The trace takes each lock for reading, without waiting, in this cycle.
    Concurrent { cycle: u32 },
    /// The trace looks into no lock.
    Shut,
    /// The caller has the value for itself, so nobody writes. The trace reads through every lock.
    Owned,
    /// The world is stopped, so no mutator of the heap goes on writing; one of another heap may. If
    /// `busy` is set, some mutators stand in the middle of a write, and the trace leaves out locks
    /// that are held for writing in this cycle. Only
    /// [`Standstill`](crate::gc::standstill::Standstill) makes this value.
    Stopped { cycle: u32, busy: bool },
}

/// The receiver of the pointers that a trace finds. The collector makes it; users cannot look
/// inside.
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

    /// Counts a lock or a frame that is not read, because a thread may be writing to it.
    pub(crate) fn leave_out(&mut self) {
        self.left_out = self.left_out.saturating_add(1);
    }

    /// Returns how many locks and frames were not read.
    pub(crate) fn left_out(&self) -> u32 {
        self.left_out
    }
}

impl fmt::Debug for Tracer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}
