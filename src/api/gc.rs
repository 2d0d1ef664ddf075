//! `Gc`: the pointer.
//!
//! **Claim.** A `Gc` is as cheap as a reference, and safe code cannot use it after a safepoint.
//!
//! **How.** It is an address with the lifetime of the `&Mutator` that it came from. A safepoint
//! takes `&mut Mutator`, so no `Gc` is live there, and nothing has to scan machine stacks. It is
//! covariant, as a reference is, because nothing can be stored through it. It is neither `Send` nor
//! `Sync`, so that it stays on the thread of its mutator.
//!
//! Comparison uses values, as for `Box`, so that a `Gc` can be a key of a map. `ptr_eq` compares
//! addresses.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use crate::object::trace::{Rebrand, RebrandTarget, Trace, Tracer};

/// A pointer to an object in the heap. It is `Copy`, one word long (two for slices, `str` and trait
/// objects), and as cheap to follow as a reference.
///
/// It is valid while the [`Mutator`](crate::Mutator) that it came from is borrowed. To keep the
/// object longer, store the pointer in another object, or make a [`Root`](crate::Root).
///
/// Comparison, hashing and formatting use the object's value, as with `Box`. [`ptr_eq`](Gc::ptr_eq)
/// compares addresses.
#[allow(
    explicit_outlives_requirements,
    reason = "with the bound written out, `dyn Trait` in a field means `dyn Trait + 'gc`"
)]
pub struct Gc<'gc, T: ?Sized + 'gc> {
    at: NonNull<T>,
    /// The type is covariant in both parameters, as a reference is; `NonNull` makes it neither
    /// `Send` nor `Sync`.
    brand: PhantomData<&'gc T>,
}

impl<T: ?Sized> Clone for Gc<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Gc<'_, T> {}

impl<'gc, T: ?Sized> Gc<'gc, T> {
    /// Makes a pointer to the object at `at`.
    ///
    /// # Safety
    /// 1. `at` is the address of an initialised object of the thread's heap, or of a zero-sized
    ///    one.
    /// 2. The object is not freed during `'gc`: it is reachable or fresh, and `'gc` ends before the
    ///    mutator's next safepoint.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(at: NonNull<T>) -> Self {
        Self {
            at,
            brand: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) fn raw(self) -> NonNull<T> {
        self.at
    }

    /// Returns the object's address, for the marker.
    #[inline(always)]
    pub(crate) fn address(self) -> usize {
        self.at.as_ptr().cast::<u8>().expose_provenance()
    }

    /// Returns the object, with the lifetime of the pointer. O(1).
    ///
    /// # Examples
    /// ```
    /// # let heap = greywave::Heap::new();
    /// # let m = heap.attach().unwrap();
    /// let text: &str = m.alloc_str("grey").as_ref();
    /// assert_eq!(text, "grey");
    /// ```
    #[inline(always)]
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        reason = "it returns the longer lifetime, which `AsRef` cannot"
    )]
    pub fn as_ref(self) -> &'gc T {
        // SAFETY: by the clauses of `from_raw` the object lives for `'gc`. [G3] its plain fields do
        // not change, and its cells are atomics or locked.
        unsafe { self.at.as_ref() }
    }

    /// Returns whether both point to the same object. O(1).
    #[inline]
    #[must_use]
    pub fn ptr_eq(self, other: Self) -> bool {
        std::ptr::addr_eq(self.at.as_ptr(), other.at.as_ptr())
    }

    /// Returns the object's address, which never changes. O(1).
    #[inline]
    #[must_use]
    pub fn as_ptr(self) -> *const T {
        self.at.as_ptr()
    }

    /// Returns a pointer to the same object as another type; `view` must return its argument's
    /// address.
    #[doc(hidden)]
    pub fn unsize_with<U: ?Sized + 'gc>(self, view: impl FnOnce(&'gc T) -> &'gc U) -> Gc<'gc, U> {
        let seen = view(self.as_ref());
        assert!(
            std::ptr::addr_eq(seen, self.as_ptr()),
            "unsize! must not change the address"
        );
        // `seen` may cover less than the object: a `GcArray` that is viewed as itself covers only
        // its length. So the new pointer takes its metadata from `seen`, and its address and
        // provenance from the old pointer.
        let mut whole = NonNull::from(seen);
        let first_word = (&raw mut whole).cast::<NonNull<u8>>();
        // SAFETY: a pointer, thin or wide, has at least one word, and any word may be read as a
        // number.
        let address = unsafe { first_word.cast::<usize>().read() };
        assert!(
            address == self.at.as_ptr().cast::<u8>().addr(),
            "the first word of a pointer is its address"
        );
        // SAFETY: as above; the write stores the address that was there.
        unsafe { first_word.write(self.at.cast()) };
        // SAFETY: 1. it is the same object; the span knows its type, the pointer does not. 2. the
        // lifetime is the same.
        unsafe { Gc::from_raw(whole) }
    }
}

/// Turns a `Gc<T>` into a `Gc<dyn Trait>`. O(1).
///
/// # Examples
/// ```
/// use greywave::{Gc, Heap, Trace, unsize};
///
/// trait Shape {
///     fn area(&self) -> f64;
/// }
/// #[derive(Trace)]
/// struct Square(f64);
/// impl Shape for Square {
///     fn area(&self) -> f64 {
///         self.0 * self.0
///     }
/// }
///
/// let heap = Heap::new();
/// let m = heap.attach()?;
/// let shape: Gc<'_, dyn Shape> = unsize!(m.alloc(Square(3.0)) => dyn Shape);
/// assert_eq!(shape.area(), 9.0);
/// # Ok::<(), greywave::AttachError>(())
/// ```
#[macro_export]
macro_rules! unsize {
    ($gc:expr => $target:ty) => {
        $crate::Gc::unsize_with($gc, |object| -> &$target { object })
    };
}

/// Allows `Gc`s to a trait object to be rooted, and to be parameters of generic heap types.
///
/// The type of a trait object has no brand, so the object may hold `Gc`s of any brand; only the
/// pointer to it is rebranded. The trait must not have a lifetime parameter of its own.
///
/// # Examples
/// ```
/// use greywave::{Heap, Trace, dyn_target, unsize};
///
/// trait Shape {
///     fn area(&self) -> f64;
/// }
/// dyn_target!(dyn Shape);
/// #[derive(Trace)]
/// struct Square(f64);
/// impl Shape for Square {
///     fn area(&self) -> f64 {
///         self.0 * self.0
///     }
/// }
///
/// let heap = Heap::new();
/// let mut m = heap.attach()?;
/// let root = m.root(unsize!(m.alloc(Square(3.0)) => dyn Shape));
/// m.collect();
/// assert_eq!(root.get(&m).area(), 9.0);
/// # Ok::<(), greywave::AttachError>(())
/// ```
#[macro_export]
macro_rules! dyn_target {
    (dyn $name:path) => {
        // SAFETY: only the lifetime bound of the trait object changes, which is not part of its
        // layout or metadata.
        unsafe impl<'a, 'b> $crate::__private::RebrandTarget<'b> for dyn $name + 'a {
            type Target = dyn $name + 'b;
        }
    };
}

impl<T: ?Sized> Deref for Gc<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        Gc::as_ref(*self)
    }
}

impl<T: ?Sized> AsRef<T> for Gc<'_, T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized> Borrow<T> for Gc<'_, T> {
    fn borrow(&self) -> &T {
        self
    }
}

// SAFETY: 1. the pointer itself is reported. 2. 3. a pointer is shared by copying; the object keeps
// its own contract. 4. the constant is true. 5. 6. it does nothing else.
unsafe impl<T: ?Sized> Trace for Gc<'_, T> {
    #[inline(always)]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        tracer.edge(self.address());
    }
}

// SAFETY: only the brand, and what carries it, changes.
unsafe impl<'b, T> Rebrand<'b> for Gc<'_, T>
where
    T: ?Sized + RebrandTarget<'b>,
{
    type To = Gc<'b, T::Target>;
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Gc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for Gc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized> fmt::Pointer for Gc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Pointer::fmt(&self.at, f)
    }
}

impl<T: ?Sized + PartialEq> PartialEq for Gc<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: ?Sized + Eq> Eq for Gc<'_, T> {}

impl<T: ?Sized + PartialOrd> PartialOrd for Gc<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (**self).partial_cmp(&**other)
    }
}

impl<T: ?Sized + Ord> Ord for Gc<'_, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl<T: ?Sized + Hash> Hash for Gc<'_, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}
