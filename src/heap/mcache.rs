//! The first tier of the allocator: what one mutator allocates from, without a lock or an atomic
//! operation.
//!
//! **Claim.** An allocation that hits probes once, and moves a pointer.
//!
//! For each span class in use there is a cursor over a run of free slots: `cur += slot` while `cur
//! < end`. The cursors of the fixed classes are in an array by size class. Those of a type's
//! classes are in a small hash table by [`ClassKey`], which grows until its keys do not collide, so
//! that a hit needs one probe. Beyond [`COLLISION_FREE_BITS`] the table would grow too large, and a
//! key that collides takes the slow path.
//!
//! All fields are `Cell`s. The cache belongs to the thread that runs its mutator, or to the
//! collector while that holds the mutator stopped.
//!
//! **Invariants**
//! - `[C1]` The slots in `cur .. end` are free and uninitialised, and belong to this cache.
//! - `[C2]` The slots of the cursor's span below `cur` are allocated; for those from `end` on, the
//!   allocation bits tell.
//! - `[C3]` `first` points to `storage`, which only [`MCache::grow`] replaces, and which has `1 <<
//!   (64 - shift)` cursors.

use std::cell::{Cell, RefCell};

use crate::heap::page_cache::PageCache;
use crate::heap::size_class::SizeClass;
use crate::heap::span_class::{ClassKey, ClassRef};
use crate::sys::shadow;

/// Stands for no span.
pub(crate) const NO_SPAN: u32 = 0;

/// A run of free slots of one class.
#[derive(Debug)]
pub(crate) struct Cursor {
    key: Cell<u64>,
    /// The address of the next free slot.
    pub(crate) cur: Cell<usize>,
    /// The address after the run.
    pub(crate) end: Cell<usize>,
    pub(crate) class: Cell<Option<ClassRef>>,
    /// The first page of the span; [`NO_SPAN`] if there is none, because page 0 is never in a span.
    pub(crate) span: Cell<u32>,
}

impl Cursor {
    const fn empty() -> Self {
        Self {
            key: Cell::new(0),
            cur: Cell::new(0),
            end: Cell::new(0),
            class: Cell::new(None),
            span: Cell::new(NO_SPAN),
        }
    }

    /// Returns the next free slot. O(1).
    #[inline(always)]
    pub(crate) fn bump(&self, slot: usize) -> Option<usize> {
        let at = self.cur.get();
        if at == self.end.get() {
            return None;
        }
        self.cur.set(at + slot);
        shadow::open(std::ptr::without_provenance(at), slot);
        Some(at)
    }

    fn move_to(&self, other: &Self) {
        other.key.set(self.key.get());
        other.cur.set(self.cur.get());
        other.end.set(self.end.get());
        other.class.set(self.class.get());
        other.span.set(self.span.get());
    }
}

/// A mutator's allocation cache.
#[derive(Debug)]
pub(crate) struct MCache {
    fixed: Box<[Cursor]>,
    first: Cell<*const Cursor>,
    shift: Cell<u32>,
    storage: RefCell<Vec<Cursor>>,
    typed: Cell<usize>,
    /// Free pages for small spans, which were taken from the page heap together.
    pub(crate) pages: RefCell<Option<PageCache>>,
}

const FIRST_BITS: u32 = 5;
/// Up to this size the table grows until it has no collisions; beyond it, a lookup may probe.
const COLLISION_FREE_BITS: u32 = 12;

impl MCache {
    pub(crate) fn new() -> Self {
        let cache = Self {
            fixed: (0..SizeClass::COUNT).map(|_| Cursor::empty()).collect(),
            first: Cell::new(std::ptr::null()),
            shift: Cell::new(0),
            storage: RefCell::new(Vec::new()),
            typed: Cell::new(0),
            pages: RefCell::new(None),
        };
        cache.install((0..1 << FIRST_BITS).map(|_| Cursor::empty()).collect());
        cache
    }

    fn install(&self, table: Vec<Cursor>) {
        self.shift.set(64 - table.len().trailing_zeros());
        self.first.set(table.as_ptr());
        *self.storage.borrow_mut() = table;
    }

    /// Returns the cursor of a fixed size class.
    #[inline(always)]
    pub(crate) fn fixed(&self, class: SizeClass) -> &Cursor {
        &self.fixed[usize::from(class.0)]
    }

    #[inline(always)]
    fn slot_of(key: ClassKey, shift: u32) -> usize {
        // Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
        (key.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> shift) as usize
    }

    /// Returns the next free slot of `key`'s class, if the first probe finds its cursor and the run
    /// is not exhausted.
    #[inline(always)]
    pub(crate) fn bump_typed(&self, key: ClassKey, slot: usize) -> Option<usize> {
        let index = Self::slot_of(key, self.shift.get());
        // SAFETY: [C3] a hash that is shifted right by `shift` is below the table's length.
        let at = unsafe { self.first.get().add(index) };
        // SAFETY: [C3] the table is alive, and only shared references to its cursors exist.
        let cursor = unsafe { &*at };
        if cursor.key.get() == key.0 {
            cursor.bump(slot)
        } else {
            None
        }
    }

    /// Runs `f` with `key`'s cursor. If there is none, makes it, with `class`.
    pub(crate) fn with_typed<R>(
        &self,
        key: ClassKey,
        class: impl FnOnce() -> ClassRef,
        f: impl FnOnce(&Cursor) -> R,
    ) -> R {
        let index = match self.find(key) {
            Some(index) => index,
            None => self.insert(key, class()),
        };
        f(&self.storage.borrow()[index])
    }

    fn find(&self, key: ClassKey) -> Option<usize> {
        let table = self.storage.borrow();
        let mask = table.len() - 1;
        let mut index = Self::slot_of(key, self.shift.get());
        loop {
            match table[index].key.get() {
                k if k == key.0 => return Some(index),
                0 => return None,
                _ => index = (index + 1) & mask,
            }
        }
    }

    fn insert(&self, key: ClassKey, class: ClassRef) -> usize {
        loop {
            {
                let table = self.storage.borrow();
                let mask = table.len() - 1;
                let home = Self::slot_of(key, self.shift.get());
                let mut index = home;
                while table[index].key.get() != 0 {
                    index = (index + 1) & mask;
                }
                let crowded = self.typed.get() * 2 >= table.len();
                let collides = index != home && table.len() < 1 << COLLISION_FREE_BITS;
                if !crowded && !collides {
                    table[index].key.set(key.0);
                    table[index].class.set(Some(class));
                    self.typed.set(self.typed.get() + 1);
                    return index;
                }
            }
            self.grow();
        }
    }

    fn grow(&self) {
        let old = std::mem::take(&mut *self.storage.borrow_mut());
        let mut bits = old.len().trailing_zeros() + 1;
        let table = loop {
            match Self::rehash(&old, bits) {
                Some(table) => break table,
                None => bits += 1,
            }
        };
        self.install(table);
    }

    /// Returns the cursors in a table of `1 << bits` places; `None` if the table is small and has
    /// collisions.
    fn rehash(old: &[Cursor], bits: u32) -> Option<Vec<Cursor>> {
        let table: Vec<Cursor> = (0..1_usize << bits).map(|_| Cursor::empty()).collect();
        let mask = table.len() - 1;
        for cursor in old.iter().filter(|c| c.key.get() != 0) {
            let home = Self::slot_of(ClassKey(cursor.key.get()), 64 - bits);
            let mut index = home;
            while table[index].key.get() != 0 {
                index = (index + 1) & mask;
            }
            if index != home && bits < COLLISION_FREE_BITS {
                return None;
            }
            cursor.move_to(&table[index]);
        }
        Some(table)
    }

    /// Visits every cursor that has a span.
    pub(crate) fn for_each_cached(&self, mut f: impl FnMut(&Cursor)) {
        let table = self.storage.borrow();
        for cursor in self.fixed.iter().chain(table.iter()) {
            if cursor.span.get() != NO_SPAN {
                f(cursor);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::any::TypeId;

    use crate::heap::span_class::{ClassName, Classes, Kind};
    use crate::object::type_info::Sized_;

    #[test]
    fn many_types_each_keep_their_cursor() {
        let mut classes = Classes::new();
        let class = classes.intern(
            ClassName::Exact(TypeId::of::<u64>()),
            Kind::Object,
            16,
            Sized_::<u64>::INFO,
        );
        let cache = MCache::new();
        let types = if cfg!(miri) { 150 } else { 5000_u64 };
        for i in 1..types {
            let key = ClassKey(i << 12 | 0xff);
            cache.with_typed(
                key,
                || class,
                |c| {
                    assert_eq!(c.cur.get(), 0, "a new cursor is empty");
                    c.cur.set(i as usize * 16);
                    c.end.set(i as usize * 16 + 16);
                },
            );
        }
        for i in 1..types {
            let key = ClassKey(i << 12 | 0xff);
            cache.with_typed(
                key,
                || unreachable!("known by now"),
                |c| assert_eq!(c.cur.get(), i as usize * 16),
            );
            if i < 100 {
                // Beyond the collision-free size some keys need the slow path.
                let _ = cache.bump_typed(key, 16);
            }
        }
    }

    #[test]
    fn few_types_are_found_by_one_probe() {
        let mut classes = Classes::new();
        let class = classes.intern(
            ClassName::Exact(TypeId::of::<u64>()),
            Kind::Object,
            16,
            Sized_::<u64>::INFO,
        );
        let cache = MCache::new();
        let keys: Vec<_> = (1..60_u64)
            .map(|i| ClassKey((0x5555_0000 + i * 72) << 8 | 0xff))
            .collect();
        for &key in &keys {
            cache.with_typed(
                key,
                || class,
                |c| {
                    c.cur.set(64);
                    c.end.set(80);
                },
            );
        }
        for &key in &keys {
            assert_eq!(cache.bump_typed(key, 16), Some(64));
            assert_eq!(cache.bump_typed(key, 16), None);
        }
    }
}
