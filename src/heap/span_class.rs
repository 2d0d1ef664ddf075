//! Span classes: what all slots of a span have in common.
//!
//! **Claim.** An object needs no header: its page names the class, the class names the type, and
//! the same function traces all objects of a span. So an object is its fields. A node of two
//! pointers has 16 bytes (`examples/binary_trees.rs` asserts that); with a header it would have 24.
//! The price is that each type has pages of its own.
//!
//! Classes are interned. The fixed size classes (noscan, no drop) exist from the beginning, one for
//! each [`SizeClass`]. A type that is traced or dropped gets classes of its own when they are first
//! used: one of its exact size, and for its slices and arrays one for each size class.

use std::any::TypeId;
use std::collections::HashMap;
use std::ptr::NonNull;

use crate::base::div::MagicDiv;
use crate::heap::mcentral::Central;
use crate::heap::size_class::{self, SizeClass};
use crate::object::type_info::TypeInfo;
use crate::sys::MODELLED;
use crate::sys::sync::{AtomicU64, Ordering};

/// The slot of a weak cell, which is an atomic word; that of a model checker is larger.
pub(crate) const WEAK_CELL_SLOT: usize = if MODELLED { 256 } else { 16 };

/// The purpose of a class's slots, besides size and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For ordinary objects.
    Object,
    /// For the cells of weak references, all of which the collector visits after marking.
    WeakCell,
    /// For one object per span, of any size.
    Large,
}

/// A span class.
#[derive(Debug)]
pub(crate) struct SpanClass {
    pub(crate) kind: Kind,
    /// The bytes of a slot; 0 for large objects.
    pub(crate) slot: usize,
    pub(crate) span_pages: u32,
    pub(crate) slots: u32,
    divide: MagicDiv,
    /// `None` means noscan, without drop, and of no particular type.
    pub(crate) info: Option<&'static TypeInfo>,
    /// Whether objects are traced.
    pub(crate) scan: bool,
    /// Whether dead objects are dropped.
    pub(crate) drop: bool,
    pub(crate) central: Central,
    pub(crate) stats: ClassStats,
}

/// The objects that a class has ever handed out and found dead. Slots are handed out in whole runs.
#[derive(Debug)]
pub(crate) struct ClassStats {
    allocated: [AtomicU64; 2],
    freed: [AtomicU64; 2],
}

impl ClassStats {
    fn new() -> Self {
        let zero = || [AtomicU64::new(0), AtomicU64::new(0)];
        Self {
            allocated: zero(),
            freed: zero(),
        }
    }

    /// Counts `objects` of `bytes_each` that are handed out.
    pub(crate) fn allocated(&self, objects: u64, bytes_each: u64) {
        // Relaxed (both): statistics only.
        self.allocated[0].fetch_add(objects, Ordering::Relaxed);
        self.allocated[1].fetch_add(objects * bytes_each, Ordering::Relaxed);
    }

    /// Subtracts what was counted as handed out and was not used.
    pub(crate) fn not_used(&self, objects: u64, bytes_each: u64) {
        // Relaxed (both): statistics only.
        self.allocated[0].fetch_sub(objects, Ordering::Relaxed);
        self.allocated[1].fetch_sub(objects * bytes_each, Ordering::Relaxed);
    }

    /// Counts `objects` of `bytes_each` that were found dead.
    pub(crate) fn freed(&self, objects: u64, bytes_each: u64) {
        // Relaxed (both): statistics only.
        self.freed[0].fetch_add(objects, Ordering::Relaxed);
        self.freed[1].fetch_add(objects * bytes_each, Ordering::Relaxed);
    }

    /// Returns the objects and bytes handed out, and the objects and bytes found dead.
    pub(crate) fn read(&self) -> [u64; 4] {
        // Relaxed (all): statistics only.
        let [a, b] = &self.allocated;
        let [c, d] = &self.freed;
        [a, b, c, d].map(|n| n.load(Ordering::Relaxed))
    }
}

impl SpanClass {
    fn new(kind: Kind, slot: usize, info: Option<&'static TypeInfo>) -> Self {
        let small = kind != Kind::Large;
        let span_pages = if small {
            size_class::span_pages(slot)
        } else {
            0
        };
        let slots = if small { size_class::slots(slot) } else { 1 };
        Self {
            kind,
            slot: if small { slot } else { 0 },
            span_pages: span_pages as u32,
            slots: slots as u32,
            divide: MagicDiv::new(if small { slot as u32 } else { 1 }),
            info,
            scan: info.is_some_and(|i| i.needs_trace),
            drop: info.is_some_and(|i| i.drop.is_some()),
            central: Central::new(),
            stats: ClassStats::new(),
        }
    }

    /// Returns the index of the slot that holds byte `at` of a span.
    pub(crate) fn slot_index(&self, at: usize) -> usize {
        self.divide.div(at as u32) as usize
    }

    /// Returns the type's name, for reports.
    pub(crate) fn type_name(&self) -> &'static str {
        self.info.map_or("(bytes)", |i| (i.name)())
    }
}

/// A reference to a class of a heap.
///
/// [`Classes::intern`] makes classes, which live as long as the heap. Only structures of that heap
/// keep a `ClassRef`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassRef(NonNull<SpanClass>);

// SAFETY: it is a shared reference to a `SpanClass`, which is `Sync`.
unsafe impl Send for ClassRef {}
// SAFETY: as above.
unsafe impl Sync for ClassRef {}

impl ClassRef {
    pub(crate) fn as_ptr(self) -> *mut SpanClass {
        self.0.as_ptr()
    }

    /// Returns the class at `ptr`, or `None` for null.
    ///
    /// # Safety
    /// 1. `ptr` is null or came from [`as_ptr`](Self::as_ptr) of a class whose heap is alive.
    #[inline]
    pub(crate) unsafe fn from_ptr(ptr: *mut SpanClass) -> Option<Self> {
        NonNull::new(ptr).map(Self)
    }
}

impl std::ops::Deref for ClassRef {
    type Target = SpanClass;
    #[inline]
    fn deref(&self) -> &SpanClass {
        // SAFETY: it was made from a leaked box that `Classes` frees only with the heap; see the
        // type's contract.
        unsafe { self.0.as_ref() }
    }
}

/// Names a class in an mcache. The high bits hold the address of a `TypeInfo`, the low 8 bits the
/// layout.
///
/// One type may have several `TypeInfo`s, because the compiler may copy a constant for each unit of
/// code. A cache then has a cursor for each, and [`ClassName`] makes them one class. Two types that
/// share a `TypeInfo` agree in everything that it says, including size and alignment, so they may
/// share slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClassKey(pub(crate) u64);

impl ClassKey {
    /// The key of weak cells, which have no `TypeInfo`: no type has an odd small number.
    pub(crate) const WEAK: Self = Self(1);
    const EXACT: u64 = 0xff;

    /// Returns the key for objects of exactly this sized type.
    #[inline]
    pub(crate) fn exact(info: &'static TypeInfo) -> Self {
        Self::of(info, Self::EXACT)
    }

    /// Returns the key for slices or arrays of this type, in slots of this size class.
    #[inline]
    pub(crate) fn list(info: &'static TypeInfo, class: SizeClass) -> Self {
        Self::of(info, u64::from(class.0))
    }

    #[inline]
    fn of(info: &'static TypeInfo, layout: u64) -> Self {
        let address = std::ptr::from_ref(info).addr() as u64;
        Self(address << 8 | layout)
    }
}

/// Names a class in a heap: a type, and the layout of its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClassName {
    /// Objects of exactly this sized type.
    Exact(TypeId),
    /// Slices or arrays of this type, in slots of this size class.
    List(TypeId, SizeClass),
    /// Large objects of this type.
    Large(TypeId),
}

/// All classes of a heap.
#[derive(Debug)]
pub(crate) struct Classes {
    by_name: HashMap<ClassName, ClassRef>,
    all: Vec<ClassRef>,
}

impl Classes {
    pub(crate) fn new() -> Self {
        Self {
            by_name: HashMap::new(),
            all: Vec::new(),
        }
    }

    /// Returns the class with this name, and makes it on first use.
    pub(crate) fn intern(
        &mut self,
        name: ClassName,
        kind: Kind,
        slot: usize,
        info: &'static TypeInfo,
    ) -> ClassRef {
        if let Some(&class) = self.by_name.get(&name) {
            return class;
        }
        let class = self.add(kind, slot, Some(info));
        self.by_name.insert(name, class);
        class
    }

    /// Adds a class without a name.
    pub(crate) fn add(
        &mut self,
        kind: Kind,
        slot: usize,
        info: Option<&'static TypeInfo>,
    ) -> ClassRef {
        let class = ClassRef(NonNull::from(Box::leak(Box::new(SpanClass::new(
            kind, slot, info,
        )))));
        self.all.push(class);
        class
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = ClassRef> + '_ {
        self.all.iter().copied()
    }
}

impl Drop for Classes {
    fn drop(&mut self) {
        for class in &self.all {
            // SAFETY: it was leaked in `add`, and is freed only here, when the heap ends that owns
            // every `ClassRef`.
            drop(unsafe { Box::from_raw(class.as_ptr()) });
        }
    }
}
