//! What objects own outside the heap: how it is measured, and how the books about it stay right.
//!
//! The collector adds what an object owns when it is born, and takes away what it owns when it is dropped. Nothing is
//! written down about an object in between, so both must be the same number, or the books drift: down, and the pacer
//! thinks that there is room; up, and it collects for nothing, for ever. So what is counted at death must not depend on what
//! happened since birth:
//!
//! - `[O4]` A field of an object does not change. What it owns is measured at birth and measured again at death, by the same
//!   rule, item by item. (What changes inside an `Arc`, a `std` lock or an atomic is not counted.)
//! - `[O5]` What a lock holds changes. So a `GcLock` keeps its own account: what was counted for it at birth, and what its
//!   write guards have counted since. At death the account is closed; the content is not looked at.
//! - `[O6]` What an `Arc` points to is owned by all who hold it. Counted for each holder, a thousand objects that share a
//!   table of 10 MB would seem to own 10 GB. By the count of references at birth, it would be another one at death. So
//!   the collector keeps a table of what is shared: the first holder in the heap that is born counts it, the last one that
//!   dies gives it back. Small things are not worth an entry: each holder counts them. A lock has an account, which
//!   needs no table to be closed, and would have to tell the table of each write. It counts its share: the size by
//!   the number of references at that moment. So `n` locks that are born one after another with the same table count it no more
//!   than `1 + ln n` times (of a thousand, each counted all of it), and each that is measured again less.
//! - `[O7]` No code of the user's runs in a measure, but implementations by hand. It could answer differently each time,
//!   unwind between two parts that are written down, or come back to the heap under the lock that is measured. So a measure asks
//!   std's own types by their own methods, and never through `Borrow`, `Deref`, `AsRef` or `Hash` of a parameter.
//!
//! A measure follows what is owned by what is owned, down to [`DEPTH`] levels, so that a list of a million boxes does not
//! overflow the stack of the thread that allocates its head. It visits items only where they can own something: of those
//! that need no drop there is nothing to ask.

use std::cell::Cell;
use std::mem::needs_drop;
use std::sync::Arc;

use crate::object::trace::Trace;

/// How many levels of ownership a measure follows: boxes in boxes, vectors in vectors.
const DEPTH: u32 = 64;

/// From this size on, what an `Arc` points to is counted once for all its holders.
pub(crate) const SHARED_FROM: usize = 256;

/// The table of [O6]; the collector implements it.
pub(crate) trait SharedBytes {
    /// Notes a holder of what is at `address`; whether it is the first.
    fn add_holder(&self, address: usize) -> bool;
    /// Forgets a holder; whether it was the last.
    fn remove_holder(&self, address: usize) -> bool;
}

/// What a measure is for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// To know. Nothing is written down.
    Look,
    /// As `Look`, but items are left out: what the outermost level owns, in O(1) for a container.
    Outermost,
    /// To know what a lock's account should hold: as `Look`, but of what is shared a share. [O6]
    Account,
    /// The value is about to be an object, or a part of one.
    Birth(&'a dyn SharedBytes),
    /// The object is dead.
    Death(&'a dyn SharedBytes),
}

/// A measure of what a value owns outside the heap, as it goes from part to part. Made by the collector, opaque to users.
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

    /// The same measure, at the same depth, that writes nothing down: for the content of a lock.
    pub(crate) fn for_account(&self) -> Counting<'static> {
        Counting {
            purpose: Purpose::Account,
            depth: self.depth.clone(),
        }
    }

    /// `own`, and what the items own.
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

    /// `own`, and what `behind` says that is owned by what is owned.
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

    /// The sum of what the items own.
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

    /// What an `Arc` of `shared` counts. [O6]
    pub(crate) fn shared<T: ?Sized>(&self, shared: &Arc<T>) -> usize {
        let bytes = size_of_val::<T>(shared) + 2 * size_of::<usize>();
        let address = || Arc::as_ptr(shared).cast::<u8>().addr();
        let counts = match self.purpose {
            _ if bytes < SHARED_FROM => true,
            Purpose::Look => true,
            Purpose::Outermost | Purpose::Account => {
                // A figure: others may come and go meanwhile.
                return bytes.div_ceil(Arc::strong_count(shared).max(1));
            }
            Purpose::Birth(table) => table.add_holder(address()),
            Purpose::Death(table) => table.remove_holder(address()),
        };
        if counts { bytes } else { 0 }
    }
}

/// What `value` owns outside the heap, items included.
#[inline]
pub fn external_bytes<T: ?Sized + Trace>(value: &T) -> usize {
    value.count_external(&Counting::new(Purpose::Look))
}

/// What a lock's account should hold for its content.
pub(crate) fn account_bytes<T: ?Sized + Trace>(content: &T) -> usize {
    content.count_external(&Counting::new(Purpose::Account))
}

/// What the outermost level of `value` owns: O(1) for a container.
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
        // SAFETY: no `Gc`; `Send + Sync`.
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
