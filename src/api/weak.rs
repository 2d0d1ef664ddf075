//! Weak references.
//!
//! **Claim.** An upgrade never returns a dead object, and marking never misses an object that an
//! upgrade has returned.
//!
//! **How.** A weak reference is a pointer to a weak cell, a small object of its own that the
//! collector clears, and the address of the object. `upgrade` reads the weak state before the
//! cell's target [V2], and then decides by the state: `gc/weak.rs` has the table of states, and the
//! invariants. It loops if the state changed meanwhile.
//!
//! `ptr_eq` compares more than addresses, because a slot is given to another object when its object
//! has died [V4] [V5].

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::api::error::AllocError;
use crate::api::gc::Gc;
use crate::api::mutator::{Mutator, out_of_memory};
use crate::gc::weak::{Upgrade, WeakCell};
use crate::object::trace::{Rebrand, RebrandTarget, Trace, Tracer};

/// A reference that does not keep its object alive. It is `Copy` and two words long (three for
/// slices, `str` and trait objects).
///
/// [`ptr_eq`](Weak::ptr_eq) tells whether two references were made from the same object, even after
/// its death.
///
/// # Examples
/// ```
/// use greywave::{Gc, Heap};
///
/// let heap = Heap::new();
/// let mut m = heap.attach()?;
/// let (root, weak) = {
///     let object = m.alloc(String::from("short-lived"));
///     (m.root(object), m.root_weak(Gc::downgrade(object, &m)))
/// };
/// m.collect();
/// assert!(weak.get(&m).is_some());
/// drop(root);
/// m.collect();
/// assert!(weak.get(&m).is_none());
/// # Ok::<(), greywave::AttachError>(())
/// ```
#[allow(
    explicit_outlives_requirements,
    reason = "with the bound written out, `dyn Trait` in a field means `dyn Trait + 'gc`"
)]
pub struct Weak<'gc, T: ?Sized + 'gc> {
    pub(crate) cell: NonNull<WeakCell>,
    pub(crate) at: NonNull<T>,
    brand: PhantomData<&'gc T>,
}

impl<T: ?Sized> Clone for Weak<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Weak<'_, T> {}

impl<'gc, T: ?Sized> Gc<'gc, T> {
    /// Makes a weak reference to the object. Allocates a cell of 16 bytes.
    ///
    /// # Panics
    /// If the object belongs to another heap than `mu`.
    #[must_use]
    #[track_caller]
    pub fn downgrade(self, mu: &Mutator) -> Weak<'gc, T> {
        match self.try_downgrade(mu) {
            Ok(weak) => weak,
            Err(error) => out_of_memory(&error),
        }
    }

    /// Does what [`downgrade`](Self::downgrade) does, but returns an error if the heap has no room.
    ///
    /// # Errors
    /// [`AllocError`] if the heap has no room for the cell.
    ///
    /// # Panics
    /// As [`downgrade`](Self::downgrade).
    #[track_caller]
    pub fn try_downgrade(self, mu: &Mutator) -> Result<Weak<'gc, T>, AllocError<()>> {
        mu.assert_own(self.address());
        let collector = mu.collector();
        let Ok(fresh) = collector.alloc_weak_cell(mu.state()) else {
            return Err(AllocError::new((), size_of::<WeakCell>(), mu.no_room()));
        };
        let Some(cell) = NonNull::new(mu.pointer_to(fresh).cast::<WeakCell>()) else {
            return Err(AllocError::new((), size_of::<WeakCell>(), mu.no_room()));
        };
        // SAFETY: the slot is fresh, has 16 bytes, and its address is a multiple of 16.
        unsafe {
            cell.write(WeakCell::new(self.address(), collector.weak.ended()));
        };
        Ok(Weak {
            cell,
            at: self.raw(),
            brand: PhantomData,
        })
    }
}

impl<'gc, T: ?Sized> Weak<'gc, T> {
    /// Makes a weak reference through a cell that a root keeps.
    ///
    /// # Safety
    /// 1. `cell` is a live weak cell of the thread's heap, made for the object at `at`.
    pub(crate) unsafe fn from_parts(cell: NonNull<WeakCell>, at: NonNull<T>) -> Self {
        Self {
            cell,
            at,
            brand: PhantomData,
        }
    }

    /// Returns the object, if it is alive. O(1), no lock.
    ///
    /// # Panics
    /// If the reference belongs to another heap than `mu`.
    #[track_caller]
    pub fn upgrade(self, mu: &'gc Mutator) -> Option<Gc<'gc, T>> {
        mu.assert_own(self.cell.as_ptr().addr());
        let collector = mu.collector();
        let cell = self.cell();
        loop {
            let idle = collector.weak.is_idle();
            let target = cell.target();
            if target == 0 {
                return None;
            }
            if idle {
                break;
            }
            let heap = &collector.heap;
            let offset = heap.offset_of(target);
            let marked = || offset.is_none_or(|o| heap.mark.test(o));
            let young = || offset.is_none_or(|o| heap.is_young(o));
            match collector.weak.decide(marked, young) {
                Upgrade::Strong => break,
                Upgrade::ShadeFirst => {
                    collector.shade_later(mu.local(), target);
                    break;
                }
                Upgrade::None => {
                    cell.note_death(collector.weak.ended());
                    return None;
                }
                Upgrade::Again => {}
            }
        }
        // SAFETY: 1. the cell names the object it was made for. 2. the object is alive: it is
        // marked or shaded, or no cycle runs and the cell is not cleared. It is freed only after a
        // cycle that begins after this mutator's next safepoint.
        Some(unsafe { Gc::from_raw(self.at) })
    }

    /// Returns whether both were made from the same object, whether that is alive, dying or dead.
    /// O(1), no lock.
    ///
    /// References to two objects are never equal, even if the second object got the memory of the
    /// first. The exception is values without a size and without a destructor: `()`, empty slices
    /// and `""`. They have one address, as with [`Gc::ptr_eq`], and never die; weak references to
    /// any of them are equal.
    ///
    /// # Examples
    /// ```
    /// # use greywave::{Gc, Heap};
    /// # let heap = Heap::new();
    /// # let mut m = heap.attach().unwrap();
    /// let [one, again, other] = {
    ///     let (one, other) = (m.alloc(1_u64), m.alloc(1_u64));
    ///     [one, one, other].map(|object| m.root_weak(Gc::downgrade(object, &m)))
    /// };
    /// m.collect();
    /// assert!(one.weak(&m).ptr_eq(again.weak(&m)));
    /// assert!(!one.weak(&m).ptr_eq(other.weak(&m)));
    /// ```
    #[must_use]
    pub fn ptr_eq(self, other: Self) -> bool {
        std::ptr::addr_eq(self.at.as_ptr(), other.at.as_ptr())
            && self.cell().is_of_the_object_of(other.cell())
    }

    /// Returns whether the object is known to be dead. If it is, it stays so, and every
    /// [`upgrade`](Self::upgrade) returns `None`. O(1), no lock.
    ///
    /// Unlike an upgrade that succeeds, this call does not keep the object alive for the running
    /// cycle. A table of weak references that removes its dead entries should use it. An object
    /// that is unreachable is not known to be dead until a cycle has found that out.
    ///
    /// # Examples
    /// ```
    /// # use greywave::{Gc, Heap};
    /// # let heap = Heap::new();
    /// # let mut m = heap.attach().unwrap();
    /// let mut table = vec![{
    ///     let entry = m.alloc(String::from("an entry"));
    ///     m.root_weak(Gc::downgrade(entry, &m))
    /// }];
    /// m.collect();
    /// table.retain(|entry| !entry.weak(&m).is_dead());
    /// assert!(table.is_empty());
    /// ```
    #[must_use]
    pub fn is_dead(self) -> bool {
        self.cell().is_dead()
    }

    fn cell(&self) -> &WeakCell {
        // SAFETY: the cell is alive, because this reference, or the root it came from, keeps it.
        unsafe { self.cell.as_ref() }
    }
}

// SAFETY: 1. the cell is reported; the object is not, on purpose. 2. 3. it is a pointer, and cells
// are atomics. 4. the constant is true. 5. 6. it does nothing else.
unsafe impl<T: ?Sized> Trace for Weak<'_, T> {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        tracer.edge(self.cell.as_ptr().expose_provenance());
    }
}

// SAFETY: only the brand, and what carries it, changes.
unsafe impl<'b, T> Rebrand<'b> for Weak<'_, T>
where
    T: ?Sized + RebrandTarget<'b>,
{
    type To = Weak<'b, T::Target>;
}

impl<T: ?Sized> fmt::Debug for Weak<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(Weak)")
    }
}
