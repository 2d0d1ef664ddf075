//! What objects own outside the heap: how it is measured, and how the books about it stay right.
//!
//! **Claim.** What the heap counts for an object at its birth, it takes away at its death. The heap
//! adds what an object owns when it is born, and subtracts what it owns when it is dropped; it
//! records nothing about an object in between. If the two numbers differed, the books would drift.
//! If they drifted down, the pacer would think that there is room; if they drifted up, it would
//! collect for nothing, for ever. So what is counted at death must not depend on what has happened
//! since birth:
//!
//! - `[O4]` A field of an object does not change. What it owns is measured at birth and again at
//!   death, by the same rule, item by item. (What changes inside an `Arc`, a `std` lock or an
//!   atomic is not counted.)
//! - `[O5]` The content of a lock changes. So a `GcLock` keeps an account: what was counted for it
//!   at birth, and what its write guards have counted since. At death the lock closes its account,
//!   and nobody looks at the content.
//! - `[O6]` All holders of an `Arc` own what it points to. If each holder counted it, a thousand
//!   objects that share a table of 10 MB would seem to own 10 GB. A share by the count of
//!   references at birth would be a different share at death. So the collector keeps a table of
//!   what is shared: the first holder that is born counts it, and the last one that dies gives it
//!   back. A small value is not worth an entry; each holder counts it. A lock has an account, which
//!   can be closed without the table, and which would have to report each write to the table. It
//!   counts its share: the size divided by the number of references at that moment. So if `n` locks
//!   with the same table are born one after another, they count it at most `1 + ln n` times, and
//!   each lock that is measured again counts less. (When each lock counted all of it, a thousand
//!   locks counted it a thousand times.)
//! - `[O7]` In a measure no user code runs, except for hand-written implementations of `Trace`.
//!   User code could answer differently each time, unwind between two parts that are recorded, or
//!   use the heap under the lock that is measured. So a measure asks the types of `std` through
//!   their own methods, and never through `Borrow`, `Deref`, `AsRef` or `Hash` of a parameter.
//!
//! **Bounds.** A measure follows ownership down to [`DEPTH`] levels, so that a list of a million
//! boxes does not overflow the stack of the thread that allocates its head. It visits items only if
//! their type needs a drop, because other items own nothing.
//! that need no drop there is nothing to ask.

use std::cell::Cell;
use std::mem::needs_drop;
use std::sync::Arc;

use crate::object::trace::Trace;

/// How many levels of ownership a measure follows: boxes in boxes, vectors in vectors.
const DEPTH: u32 = 64;

/// From this size on, what an `Arc` points to is counted once for all its holders.
pub(crate) const SHARED_FROM: usize = 256;

/// The table of [O6], which the collector implements.
pub(crate) trait SharedBytes {
    /// Records a holder of what is at `address`. Returns whether it is the first.
    fn add_holder(&self, address: usize) -> bool;
    /// Removes a holder. Returns whether it was the last.
    fn remove_holder(&self, address: usize) -> bool;
}

/// The purpose of a measure.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// Only to know. Nothing is recorded.
    Look,
    /// As `Look`, but without the items: what the outermost level owns, in O(1) for a container.
    Outermost,
    /// What a lock's account should hold: as `Look`, but only a share of what is shared. [O6]
    Account,
    /// The value is about to be an object, or a part of one.
    Birth(&'a dyn SharedBytes),
    /// The object is dead.
    Death(&'a dyn SharedBytes),
}

/// A measure of what a value owns outside the heap, which goes from part to part. The collector
/// makes it; users cannot look inside.
pub struct Counting<'a> {
    purpose: Purpose<'a>,
    depth: Cell<u32>,
}

impl std::fmt::Debug for Counting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counting").finish_non_exhaustive()
    }
}

impl<'a> Counting<'a> {
    #[inline]
    pub(crate) const fn new(purpose: Purpose<'a>) -> Self {
        Self {
            purpose,
            depth: Cell::new(0),
        }
    }

    #[inline]
    pub(crate) fn purpose(&self) -> Purpose<'a> {
        self.purpose
    }

    /// Returns the same measure, at the same depth, without recording; it is for the content of a
    /// lock.
    pub(crate) fn for_account(&self) -> Counting<'static> {
        Counting {
            purpose: Purpose::Account,
            depth: self.depth.clone(),
        }
    }

    /// Returns `own` plus what the items own.
    #[inline]
    pub(crate) fn with_items<'t, T: Trace + 't>(
        &self,
        own: usize,
        items: impl IntoIterator<Item = &'t T>,
    ) -> usize {
        if !needs_drop::<T>() {
            return own;
        }
        self.deeper(own, || self.of_each(items))
    }

    /// Returns `own` plus the result of `behind`, which measures what the owned values own.
    #[inline]
    pub(crate) fn deeper(&self, own: usize, behind: impl FnOnce() -> usize) -> usize {
        let depth = self.depth.get();
        if depth == DEPTH || matches!(self.purpose, Purpose::Outermost) {
            return own;
        }
        self.depth.set(depth + 1);
        let sum = own.saturating_add(behind());
        self.depth.set(depth);
        sum
    }

    /// Returns the sum of what the items own.
    #[inline]
    pub(crate) fn of_each<'t, T: Trace + 't>(
        &self,
        items: impl IntoIterator<Item = &'t T>,
    ) -> usize {
        if !needs_drop::<T>() {
            return 0;
        }
        let each = items.into_iter().map(|item| item.count_external(self));
        each.fold(0, usize::saturating_add)
    }

    /// Returns what an `Arc` to `shared` counts. [O6]
    pub(crate) fn shared<T: ?Sized>(&self, shared: &Arc<T>) -> usize {
        let bytes = size_of_val::<T>(shared) + 2 * size_of::<usize>();
        let address = || Arc::as_ptr(shared).cast::<u8>().addr();
        let counts = match self.purpose {
            _ if bytes < SHARED_FROM => true,
            Purpose::Look => true,
            Purpose::Outermost | Purpose::Account => {
                // The count may change meanwhile; this is only an estimate.
                return bytes.div_ceil(Arc::strong_count(shared).max(1));
            }
            Purpose::Birth(table) => table.add_holder(address()),
            Purpose::Death(table) => table.remove_holder(address()),
        };
        if counts { bytes } else { 0 }
    }
}

/// Returns what `value` owns outside the heap, including its items.
#[inline]
pub fn external_bytes<T: ?Sized + Trace>(value: &T) -> usize {
    value.count_external(&Counting::new(Purpose::Look))
}

/// Returns what a lock's account should hold for its content.
pub(crate) fn account_bytes<T: ?Sized + Trace>(content: &T) -> usize {
    content.count_external(&Counting::new(Purpose::Account))
}

/// Returns what the outermost level of `value` owns: O(1) for a container.
#[inline]
pub(crate) fn outermost_bytes<T: ?Sized + Trace>(value: &T) -> usize {
    value.count_external(&Counting::new(Purpose::Outermost))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table for one thread.
    #[derive(Default)]
    struct Holders(Cell<usize>);

    impl SharedBytes for Holders {
        fn add_holder(&self, _: usize) -> bool {
            self.0.replace(self.0.get() + 1) == 0
        }
        fn remove_holder(&self, _: usize) -> bool {
            self.0.set(self.0.get() - 1);
            self.0.get() == 0
        }
    }

    #[test]
    fn items_are_summed_up_and_the_outermost_level_is_known() {
        let nested = vec![vec![0_u8; 1000], Vec::with_capacity(24)];
        let outer = nested.capacity() * size_of::<Vec<u8>>();
        assert_eq!(external_bytes(&nested), outer + 1024);
        assert_eq!(outermost_bytes(&nested), outer);
        assert_eq!(outermost_bytes(&Some(vec![0_u8; 10])), 10);
        let boxed = Box::new(String::from("12345678"));
        assert_eq!(external_bytes(&boxed), size_of::<String>() + 8);
    }

    #[test]
    fn what_is_shared_is_counted_once_and_given_back_once() {
        let table = Holders::default();
        let large: Arc<[u8]> = vec![0; 4000].into();
        let birth = || large.count_external(&Counting::new(Purpose::Birth(&table)));
        let death = || large.count_external(&Counting::new(Purpose::Death(&table)));
        assert_eq!((birth(), birth(), birth()), (4016, 0, 0));
        assert_eq!((death(), death(), death()), (0, 0, 4016));
        assert_eq!((birth(), death()), (4016, 4016));
    }

    #[test]
    fn a_measure_ends_at_a_depth() {
        struct List(Option<Box<List>>);
        // SAFETY: the type holds no `Gc`, and is `Send + Sync`.
        unsafe impl Trace for List {
            const NEEDS_TRACE: bool = false;
            fn trace(&self, _: &mut crate::object::trace::Tracer<'_>) {}
            fn count_external(&self, how: &Counting<'_>) -> usize {
                self.0.count_external(how)
            }
        }
        impl Drop for List {
            fn drop(&mut self) {
                let mut rest = self.0.take();
                while let Some(mut next) = rest {
                    rest = next.0.take();
                }
            }
        }
        let mut list = List(None);
        for _ in 0..if cfg!(miri) { 1000 } else { 1_000_000 } {
            list = List(Some(Box::new(list)));
        }
        assert_eq!(
            external_bytes(&list),
            (DEPTH as usize + 1) * size_of::<List>()
        );
    }
}
