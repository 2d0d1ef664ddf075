//! Mutable edges: `GcCell`, and `GcOnce`, which is written once.
//!
//! **Claim.** Safe code cannot change an edge past the write barrier, and a race on an edge is
//! memory-safe.
//!
//! **How.** The pointer is private. Each function that stores it takes the mutator, and calls
//! `before_store` (`gc/barrier.rs`) before the store [G1]. The pointer is an atomic: a store
//! releases and a load acquires, so a thread that loads it finds the object initialised [G3]. The
//! marker loads it in the same way.
//!
//! **Why it is invariant.** If an edge were covariant in its brand, safe code could shrink a
//! `GcCell<'static, T>` to a shorter brand, store a pointer of that brand in it, and read it back
//! as `'static`, past a safepoint.
//!
//! **Tried and dropped.** To exchange first and shade the old value afterwards, in `swap` and
//! `compare_exchange`: the collector may empty the buffer for the last time between the two.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::api::gc::Gc;
use crate::api::mutator::Mutator;
use crate::gc::barrier::{Change, before_store};
use crate::object::trace::{Rebrand, Trace, Tracer};
use crate::sys::sabotage::{self, Fault};

/// An edge, which the marker and other mutators read while its mutator writes to it.
struct Edge<'gc, T> {
    to: AtomicPtr<T>,
    /// The type is invariant in the brand and in `T`, because what one alias stores another loads.
    /// It is neither `Send` nor `Sync`.
    brand: PhantomData<(Cell<&'gc T>, *mut T)>,
}

impl<'gc, T> Edge<'gc, T> {
    const fn null() -> Self {
        Self {
            to: AtomicPtr::new(ptr::null_mut()),
            brand: PhantomData,
        }
    }

    fn new(to: Option<Gc<'gc, T>>) -> Self {
        Self {
            to: AtomicPtr::new(raw(to)),
            brand: PhantomData,
        }
    }

    #[inline(always)]
    fn load(&self) -> *mut T {
        // Acquire: pairs with the Release of the store; what the pointer addresses is initialised.
        self.to.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn get(&self) -> Option<Gc<'gc, T>> {
        gc(self.load())
    }

    /// Runs the write barrier: the edge is about to change from `old()` to `new`.
    #[inline(always)]
    #[track_caller]
    fn before_store(&self, mu: &Mutator, old: impl FnOnce() -> *mut T, new: *mut T) {
        before_store(
            mu.local(),
            || mu.collector(),
            || Change {
                at: (&raw const self.to).addr(),
                old: old().addr(),
                new: new.addr(),
            },
        );
    }
}

fn raw<T>(to: Option<Gc<'_, T>>) -> *mut T {
    to.map_or(ptr::null_mut(), |gc| {
        let _ = gc.address();
        gc.raw().as_ptr()
    })
}

fn gc<'gc, T>(at: *mut T) -> Option<Gc<'gc, T>> {
    // SAFETY: 1. 2. an edge of a live object holds null or a `Gc` of the same brand, and the edge
    // keeps that object alive.
    NonNull::new(at).map(|at| unsafe { Gc::from_raw(at) })
}

/// One mutable, nullable edge to another object.
///
/// Reads and writes are atomic (Acquire and Release), so a race is memory-safe: a reader gets one
/// of the values that were written. While marking runs, a write reports the old value to the
/// collector; at other times it costs a predicted branch more than a plain store.
///
/// # Examples
/// ```
/// use greywave::{GcCell, Heap, Trace};
///
/// #[derive(Trace)]
/// struct Person<'gc> {
///     friend: GcCell<'gc, Person<'gc>>,
/// }
///
/// let heap = Heap::new();
/// let m = heap.attach()?;
/// let a = m.alloc(Person { friend: GcCell::null() });
/// let b = m.alloc(Person { friend: GcCell::new(Some(a)) });
/// a.friend.set(&m, b);
/// assert!(a.friend.get().is_some_and(|f| f.ptr_eq(b)));
/// a.friend.set(&m, None);
/// assert!(a.friend.get().is_none());
/// # Ok::<(), greywave::AttachError>(())
/// ```
pub struct GcCell<'gc, T>(Edge<'gc, T>);

impl<'gc, T> GcCell<'gc, T> {
    /// Makes an edge that leads nowhere.
    #[must_use]
    pub const fn null() -> Self {
        Self(Edge::null())
    }

    /// Makes an edge to `to`, or one that leads nowhere.
    #[must_use]
    pub fn new(to: Option<Gc<'gc, T>>) -> Self {
        Self(Edge::new(to))
    }

    /// Returns the object that the edge leads to. O(1): one load.
    #[inline(always)]
    pub fn get(&self) -> Option<Gc<'gc, T>> {
        self.0.get()
    }

    /// Makes the edge lead to `to`, a `Gc` or `None`. O(1): one store, and the write barrier while
    /// marking runs.
    ///
    /// # Panics
    /// If this edge or `to` belongs to another heap than `mu`; the edge is then unchanged.
    #[inline(always)]
    #[track_caller]
    pub fn set(&self, mu: &Mutator, to: impl Into<Option<Gc<'gc, T>>>) {
        let to = raw(to.into());
        if sabotage::is_on(Fault::BarrierAfterStore) {
            // Release: as below.
            self.0.to.store(to, Ordering::Release);
        }
        // [G1] the barrier comes before the store.
        self.0.before_store(mu, || self.0.load(), to);
        // Release: publishes what `to` points to; pairs with the Acquire in `Edge::load`.
        self.0.to.store(to, Ordering::Release);
    }

    /// Makes the edge lead to `to`, and returns what it led to before. O(1), atomic.
    ///
    /// # Panics
    /// If this edge or `to` belongs to another heap than `mu`; the edge is then unchanged.
    #[track_caller]
    pub fn swap(&self, mu: &Mutator, to: impl Into<Option<Gc<'gc, T>>>) -> Option<Gc<'gc, T>> {
        let to = raw(to.into());
        let mut old = self.0.load();
        loop {
            // The barrier comes first: the collector may have emptied this buffer for the last time
            // before the exchange, and a pointer shaded after that would stay in it.
            self.0.before_store(mu, || old, to);
            // AcqRel: as in `set` and `get`. Acquire on failure: the value is shaded next.
            match self
                .0
                .to
                .compare_exchange_weak(old, to, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(old) => return gc(old),
                Err(now) => old = now,
            }
        }
    }

    /// Makes the edge lead to `new` if it leads to `current`; compares addresses. O(1), atomic.
    ///
    /// # Errors
    /// What the edge leads to, if that is not `current`.
    ///
    /// # Panics
    /// If this edge, `current` or `new` belongs to another heap than `mu`; the edge is then
    /// unchanged.
    #[track_caller]
    pub fn compare_exchange(
        &self,
        mu: &Mutator,
        current: Option<Gc<'gc, T>>,
        new: Option<Gc<'gc, T>>,
    ) -> Result<Option<Gc<'gc, T>>, Option<Gc<'gc, T>>> {
        let (current, new) = (raw(current), raw(new));
        // If the exchange fails, the barrier has shaded an object too many. That is harmless.
        self.0.before_store(mu, || current, new);
        // AcqRel: as in `set` and `get`. Acquire on failure: the caller gets the value.
        self.0
            .to
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            .map(gc)
            .map_err(gc)
    }
}

impl<T> Default for GcCell<'_, T> {
    fn default() -> Self {
        Self::null()
    }
}

/// An edge that is written at most once. It serves late initialisation and cycles of otherwise
/// immutable objects.
///
/// # Examples
/// ```
/// use greywave::{GcOnce, Heap, Trace};
///
/// #[derive(Trace)]
/// struct Class<'gc> {
///     name: &'static str,
///     meta: GcOnce<'gc, Class<'gc>>,
/// }
///
/// let heap = Heap::new();
/// let m = heap.attach()?;
/// let class = m.alloc(Class { name: "Class", meta: GcOnce::empty() });
/// assert!(class.meta.set(&m, class).is_ok());
/// assert!(class.meta.set(&m, class).is_err(), "written once");
/// assert_eq!(class.meta.get().map(|c| c.name), Some("Class"));
/// # Ok::<(), greywave::AttachError>(())
/// ```
pub struct GcOnce<'gc, T>(Edge<'gc, T>);

impl<'gc, T> GcOnce<'gc, T> {
    /// Makes an edge that has not been written.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Edge::null())
    }

    /// Returns the object that the edge leads to, if it has been written. O(1).
    #[inline(always)]
    pub fn get(&self) -> Option<Gc<'gc, T>> {
        self.0.get()
    }

    /// Writes the edge. O(1), atomic. The edge loses no old value, so nothing is shaded.
    ///
    /// # Errors
    /// `to`, if the edge was written before.
    ///
    /// # Panics
    /// If this edge or `to` belongs to another heap than `mu`; the edge is then unchanged.
    #[track_caller]
    pub fn set(&self, mu: &Mutator, to: Gc<'gc, T>) -> Result<(), Gc<'gc, T>> {
        let new = raw(Some(to));
        self.0.before_store(mu, ptr::null_mut, new);
        // Release: publishes what `to` points to; pairs with `Edge::load`. Relaxed on failure:
        // nothing is read.
        match self
            .0
            .to
            .compare_exchange(ptr::null_mut(), new, Ordering::Release, Ordering::Relaxed)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(to),
        }
    }
}

impl<T> Default for GcOnce<'_, T> {
    fn default() -> Self {
        Self::empty()
    }
}

macro_rules! edge_traits {
    ($($name:ident)*) => { $(
        // SAFETY: 1. the edge is reported. 2. 3. it is an atomic. 4. the constant is true. 5. 6. it
        // does nothing else.
        unsafe impl<T> Trace for $name<'_, T> {
            #[inline(always)]
            fn trace(&self, tracer: &mut Tracer<'_>) {
                let to = self.0.load();
                if !to.is_null() {
                    tracer.edge(to.addr());
                }
            }
        }

        // SAFETY: only the brand and what it brands change; both are invariant.
        unsafe impl<'b, T: Rebrand<'b>> Rebrand<'b> for $name<'_, T> {
            type To = $name<'b, T::To>;
        }

        impl<T> fmt::Debug for $name<'_, T> {
            /// Shows only whether the edge leads somewhere, because graphs have cycles.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))?;
                f.write_str(if self.0.load().is_null() { "(null)" } else { "(..)" })
            }
        }
    )* };
}

edge_traits! { GcCell GcOnce }
