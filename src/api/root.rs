//! `Root` and `WeakRoot`: owned handles that refer to an object across safepoints and threads.
//!
//! **Claim.** A root may be made, used and dropped in any order with cycles and with the end of its
//! heap. To make or drop one usually takes no lock.
//!
//! **How.** A root is a slot in a block of the root table (`gc/roots.rs`), and a block lives as
//! long as a handle uses it, so a root may outlive the heap. On a thread with a running mutator of
//! the heap, a drop shades the object while marking runs (the deletion barrier) and gives the slot
//! to the mutator's free list. On any other thread it only sets a flag; the slot stays a root until
//! the collector takes it back.
//!
//! `Root::get` compares the numbers of the two heaps, which replaces a generative brand, and gives
//! the address the brand of the mutator.
//!
//! **Tried and dropped.** A list of dropped roots that are freed after marking, without a barrier:
//! a loop that makes and drops roots then takes ever new slots, and a lock for each drop.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::api::current::current;
use crate::api::gc::Gc;
use crate::api::mutator::Mutator;
use crate::api::weak::Weak;
use crate::gc::roots::RawRoot;
use crate::object::trace::{Rebrand, RebrandTarget, TargetAt, Trace, Tracer};
use crate::sys::sabotage::{self, Fault};

/// Keeps an object alive until it is dropped. A root is `'static`, `Send`, `Sync` and `Clone`; its
/// clones share a slot.
///
/// To make or to drop a root takes no lock, except once in 64 times. A root may be dropped on any
/// thread, even one that is not attached, and even after its heap. The memory of root slots (16
/// bytes each, outside the heap) is given back after their roots are dropped.
///
/// A root that is forgotten keeps its object for ever.
///
/// # Examples
/// ```
/// use greywave::Heap;
///
/// let heap = Heap::new();
/// let root = {
///     let m = heap.attach()?;
///     m.root(m.alloc_str("shared"))
/// };
/// let there = { let (heap, root) = (heap.clone(), root.clone()); std::thread::spawn(move || {
///     let m = heap.attach().expect("a fresh thread");
///     root.get(&m).len()
/// })};
/// assert_eq!(there.join().expect("no panic"), 6);
/// # Ok::<(), greywave::AttachError>(())
/// ```
pub struct Root<T: ?Sized> {
    raw: ManuallyDrop<RawRoot>,
    at: NonNull<T>,
}

/// A weak reference that lives outside the heap. It is `'static`, `Send`, `Sync` and `Clone`.
///
/// See [`Mutator::root_weak`].
pub struct WeakRoot<T: ?Sized> {
    cell: Root<WeakAnchor>,
    at: NonNull<T>,
}

/// The type of the weak cell that a `WeakRoot` keeps.
#[derive(Debug)]
struct WeakAnchor;

// SAFETY: a root is a number in a table of atomics, and an address. The object is shareable by
// `Trace`'s contract, and only a mutator reaches it.
unsafe impl<T: ?Sized> Send for Root<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized> Sync for Root<T> {}
// SAFETY: as for `Root`.
unsafe impl<T: ?Sized> Send for WeakRoot<T> {}
// SAFETY: as for `Root`.
unsafe impl<T: ?Sized> Sync for WeakRoot<T> {}

/// Changes the brand in a pointer's type.
fn rebrand<'b, T: ?Sized + RebrandTarget<'b>>(at: NonNull<T>) -> NonNull<T::Target> {
    const { assert!(size_of::<NonNull<T>>() == size_of::<NonNull<T::Target>>()) };
    // SAFETY: by `RebrandTarget`'s contract only the brand of the type changes, and the metadata is
    // the same.
    unsafe { std::mem::transmute_copy::<NonNull<T>, NonNull<T::Target>>(&at) }
}

/// Does the reverse: removes a mutator's brand.
fn unbrand<T: ?Sized + RebrandTarget<'static>>(at: NonNull<T>) -> NonNull<T::Target> {
    rebrand::<T>(at)
}

impl Mutator {
    /// Keeps the object alive across safepoints. O(1), usually without a lock.
    ///
    /// # Panics
    /// If the object belongs to another heap, which is possible for a `Gc<'static, _>`.
    #[track_caller]
    pub fn root<'m, T>(&'m self, gc: Gc<'m, T>) -> Root<T::Target>
    where
        T: ?Sized + RebrandTarget<'static>,
    {
        Root {
            raw: ManuallyDrop::new(self.take_root(gc.address())),
            at: unbrand(gc.raw()),
        }
    }

    /// Keeps a weak reference across safepoints.
    ///
    /// # Panics
    /// If the reference belongs to another heap.
    #[track_caller]
    pub fn root_weak<'m, T>(&'m self, weak: Weak<'m, T>) -> WeakRoot<T::Target>
    where
        T: ?Sized + RebrandTarget<'static>,
    {
        let raw = self.take_root(weak.cell.as_ptr().expose_provenance());
        WeakRoot {
            cell: Root {
                raw: ManuallyDrop::new(raw),
                at: NonNull::dangling(),
            },
            at: unbrand(weak.at),
        }
    }

    #[track_caller]
    fn take_root(&self, address: usize) -> RawRoot {
        self.assert_own(address);
        let local = self.local();
        let mut stock = local.free_roots.borrow_mut();
        let root = self
            .collector()
            .roots
            .take(address, &mut stock, !local.duty.marks());
        self.state().note_root_stock(stock.len());
        root
    }

    #[track_caller]
    #[inline]
    fn assert_same_heap(&self, heap: usize) {
        assert!(
            heap == self.collector().id,
            "this root belongs to another heap than the mutator"
        );
    }

    /// Panics if `heap` is not this mutator's.
    #[track_caller]
    #[inline]
    pub(crate) fn check_heap(&self, heap: usize) {
        self.assert_same_heap(heap);
    }
}

impl<T: ?Sized> Root<T> {
    /// Returns the object. O(1): two loads.
    ///
    /// # Panics
    /// If the root belongs to another heap than `mu`.
    #[track_caller]
    #[inline]
    pub fn get<'m>(&self, mu: &'m Mutator) -> Gc<'m, TargetAt<'m, T>>
    where
        T: RebrandTarget<'m>,
    {
        mu.check_heap(self.raw.heap());
        // SAFETY: 1. the root's object belongs to this heap. 2. the root keeps it now; if the root
        // is dropped, the object stays until a cycle that begins after this mutator's next
        // safepoint.
        unsafe { Gc::from_raw(rebrand(self.at)) }
    }

    /// For [`internals`](crate::internals).
    #[cfg(any(fuzzing, feature = "internals"))]
    pub(crate) fn forget_clones(&self, clones: u32) {
        self.raw.forget_shares(clones);
    }

    /// Returns whether both keep the same object. O(1).
    #[must_use]
    pub fn ptr_eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(self.at.as_ptr(), other.at.as_ptr())
    }
}

impl<T: ?Sized> WeakRoot<T> {
    /// For [`internals`](crate::internals).
    #[cfg(any(fuzzing, feature = "internals"))]
    pub(crate) fn forget_clones(&self, clones: u32) {
        self.cell.forget_clones(clones);
    }

    /// Returns the object, if it is alive. O(1).
    ///
    /// # Panics
    /// If the root belongs to another heap than `mu`.
    #[track_caller]
    pub fn get<'m>(&self, mu: &'m Mutator) -> Option<Gc<'m, TargetAt<'m, T>>>
    where
        T: RebrandTarget<'m>,
    {
        self.weak(mu).upgrade(mu)
    }

    /// Returns whether the object is known to be dead, as [`Weak::is_dead`] does. O(1).
    ///
    /// # Panics
    /// If the root belongs to another heap than `mu`.
    #[track_caller]
    #[must_use]
    pub fn is_dead<'m>(&self, mu: &'m Mutator) -> bool
    where
        T: RebrandTarget<'m>,
    {
        self.weak(mu).is_dead()
    }

    /// Returns the weak reference itself.
    ///
    /// # Panics
    /// If the root belongs to another heap than `mu`.
    #[track_caller]
    pub fn weak<'m>(&self, mu: &'m Mutator) -> Weak<'m, TargetAt<'m, T>>
    where
        T: RebrandTarget<'m>,
    {
        mu.check_heap(self.cell.raw.heap());
        let cell = std::ptr::with_exposed_provenance_mut(self.cell.raw.target());
        let cell = NonNull::new(cell).unwrap_or(NonNull::dangling());
        // SAFETY: 1. the root keeps the cell, which was made for the object at `at`.
        unsafe { Weak::from_parts(cell, rebrand(self.at)) }
    }
}

impl<T: ?Sized> Clone for Root<T> {
    /// O(1): one atomic increment.
    ///
    /// # Panics
    /// Never. If one root has more than 2^29 - 1 clones, the process is aborted with a message, as
    /// with [`Arc`](std::sync::Arc). A program must have forgotten most of these clones
    /// (`mem::forget`).
    fn clone(&self) -> Self {
        Self {
            raw: ManuallyDrop::new(self.raw.share()),
            at: self.at,
        }
    }
}

impl<T: ?Sized> Clone for WeakRoot<T> {
    fn clone(&self) -> Self {
        Self {
            cell: self.cell.clone(),
            at: self.at,
        }
    }
}

impl<T: ?Sized> Drop for Root<T> {
    fn drop(&mut self) {
        // SAFETY: the value is taken once, here, and the field is not used again.
        let raw = unsafe { ManuallyDrop::take(&mut self.raw) };
        let here = current().filter(|c| c.running);
        let Some(here) = here else {
            return raw.release();
        };
        // SAFETY: this thread's mutator keeps its collector alive.
        let collector = unsafe { &*here.collector };
        if collector.id != raw.heap() {
            return raw.release();
        }
        // SAFETY: 1. it is this thread's mutator, which is registered. 2. it runs, on this thread.
        let state = unsafe { here.mutator.get() };
        let local = &state.local;
        // This is the deletion barrier: the root is about to lose its object.
        if local.duty.marks() && !sabotage::is_on(Fault::RootDroppedUnshaded) {
            collector.shade_later(local, raw.target());
        }
        let mut stock = local.free_roots.borrow_mut();
        collector.roots.free(raw, &mut stock);
        state.note_root_stock(stock.len());
    }
}

macro_rules! root_traits {
    ($($name:ident)*) => { $(
        // SAFETY: 1. 4. the root table reports the object, so the root itself holds no edge. 2. the
        // type is Send and Sync. 3. 5. 6. it does nothing of its own.
        unsafe impl<T: ?Sized + 'static> Trace for $name<T> {
            const NEEDS_TRACE: bool = false;
            fn trace(&self, _: &mut Tracer<'_>) {}
        }
        // SAFETY: the type has no brand.
        unsafe impl<T: ?Sized + 'static> Rebrand<'_> for $name<T> {
            type To = Self;
        }
        impl<T: ?Sized> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.at.as_ptr().cast::<u8>()).finish()
            }
        }
    )* };
}

root_traits! { Root WeakRoot }
