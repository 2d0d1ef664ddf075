//! What the collector knows about a type: how to trace, drop and measure its objects by their
//! addresses.
//!
//! **Claim.** An object needs no header. A span holds objects of one type (or of no type, if they
//! are noscan and have no drop), and the span's class names the [`TypeInfo`].
//!
//! There are three layouts:
//! ```text
//! sized      | T ........................ |
//! slice      | T T T T ..... | len (8 B) |  the length is the slot's last word, if it is needed
//! array      | len (8 B) | H | T T T .... |     GcArray<H, T>: thin pointer
//! ```
//!
//! **Invariants**
//! - `[O1]` A function of a `TypeInfo` gets the start of a slot that holds an initialised object of
//!   that type, and the number of bytes from there to the slot's end.
//! - `[O2]` The length word of a list is at most the number of initialised items. It is written
//!   before the object is published, and never changes.

use std::alloc::Layout;
use std::marker::PhantomData;

use crate::object::counting::Counting;
use crate::object::trace::{Trace, Tracer};

/// The functions of a list's items, by which a long list can be traced in pieces.
#[derive(Debug)]
pub(crate) struct Items {
    /// The bytes of an item, at least 1.
    pub(crate) size: usize,
    /// Returns the number of items of the object at the address, in a slot of so many bytes.
    pub(crate) len: unsafe fn(*const u8, usize) -> usize,
    /// Traces items `from .. to`.
    pub(crate) trace: unsafe fn(*const u8, usize, usize, &mut Tracer<'_>),
}

/// A type's functions, which take addresses.
#[derive(Debug)]
#[cfg_attr(
    not(debug_assertions),
    allow(
        dead_code,
        reason = "size and align are there to be different; debug builds compare them"
    )
)]
pub(crate) struct TypeInfo {
    pub(crate) name: fn() -> &'static str,
    /// The size and alignment of the type, or of an item and of the whole list. They keep the
    /// compiler from merging the constants of two types that differ in nothing else.
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) needs_trace: bool,
    /// Traces the whole object: address, bytes of the slot.
    pub(crate) trace: unsafe fn(*const u8, usize, &mut Tracer<'_>),
    /// Traces several whole objects: their addresses, a pointer into their arena, bytes of a slot.
    /// One call for many objects gives the compiler a loop over `trace` that it can optimise.
    pub(crate) trace_each: unsafe fn(&[usize], *const u8, usize, &mut Tracer<'_>),
    /// Traces what comes before the items, which is nothing for a plain slice.
    pub(crate) trace_head: unsafe fn(*const u8, &mut Tracer<'_>),
    pub(crate) items: Option<Items>,
    /// Drops the object: address, bytes of the slot. `None` if the type needs no drop.
    pub(crate) drop: Option<unsafe fn(*mut u8, usize)>,
    /// Returns the bytes owned outside the heap: address, bytes of the slot.
    pub(crate) external: unsafe fn(*const u8, usize, &Counting<'_>) -> usize,
}

/// How objects of a layout are traced, one or several at a time.
trait TraceObject {
    /// Traces the object at `at`, in a slot of `slot` bytes.
    unsafe fn trace(at: *const u8, slot: usize, tracer: &mut Tracer<'_>);

    /// Traces the objects at these addresses.
    unsafe fn trace_each(
        objects: &[usize],
        arena: *const u8,
        slot: usize,
        tracer: &mut Tracer<'_>,
    ) {
        for &address in objects {
            // SAFETY: [O1] holds for each object.
            unsafe { Self::trace(arena.with_addr(address), slot, tracer) }
        }
    }
}

/// The `TypeInfo` of a sized `T`.
#[derive(Debug)]
pub(crate) struct Sized_<T>(PhantomData<T>);

/// The `TypeInfo` of `[T]`.
#[derive(Debug)]
pub(crate) struct Slice<T>(PhantomData<T>);

/// The `TypeInfo` of `GcArray<H, T>`.
#[derive(Debug)]
pub(crate) struct Array<H, T>(PhantomData<(H, T)>);

const LEN_SIZE: usize = size_of::<usize>();

const fn round_up(n: usize, to: usize) -> usize {
    n.next_multiple_of(to)
}

impl<T: Trace> TraceObject for Sized_<T> {
    unsafe fn trace(at: *const u8, _slot: usize, tracer: &mut Tracer<'_>) {
        // SAFETY: [O1] a `T` lives at `at`; access is shared, as the trait allows while mutators
        // run.
        let object = unsafe { &*at.cast::<T>() };
        object.trace(tracer);
    }
}

impl<T: Trace> Sized_<T> {
    /// Whether objects of this type need a span class of their own.
    pub(crate) const TYPED: bool = T::NEEDS_TRACE || std::mem::needs_drop::<T>();

    pub(crate) const INFO: &'static TypeInfo = &TypeInfo {
        name: std::any::type_name::<T>,
        size: size_of::<T>(),
        align: align_of::<T>(),
        needs_trace: T::NEEDS_TRACE,
        trace: Self::trace,
        trace_each: Self::trace_each,
        trace_head: Self::trace_head,
        items: None,
        drop: if std::mem::needs_drop::<T>() {
            Some(Self::drop)
        } else {
            None
        },
        external: Self::external,
    };

    unsafe fn trace_head(at: *const u8, tracer: &mut Tracer<'_>) {
        // SAFETY: as in `trace`.
        unsafe { Self::trace(at, 0, tracer) }
    }

    unsafe fn drop(at: *mut u8, _slot: usize) {
        // SAFETY: [O1]; the sweeper calls this once, for an object that nobody can reach any more.
        unsafe { at.cast::<T>().drop_in_place() }
    }

    unsafe fn external(at: *const u8, _slot: usize, how: &Counting<'_>) -> usize {
        // SAFETY: [O1] a `T` lives at `at`.
        let object = unsafe { &*at.cast::<T>() };
        object.count_external(how)
    }
}

impl<T: Trace> TraceObject for Slice<T> {
    unsafe fn trace(at: *const u8, slot: usize, tracer: &mut Tracer<'_>) {
        // SAFETY: [O1].
        let len = unsafe { Self::len(at, slot) };
        // SAFETY: [O2] `len` items are initialised.
        unsafe { Self::trace_items(at, 0, len, tracer) }
    }
}

impl<T: Trace> Slice<T> {
    /// Whether slices of `T` need a span class of their own, and a length in the slot.
    pub(crate) const TYPED: bool = T::NEEDS_TRACE || std::mem::needs_drop::<T>();

    pub(crate) const INFO: &'static TypeInfo = &TypeInfo {
        name: std::any::type_name::<[T]>,
        size: size_of::<T>(),
        align: align_of::<T>(),
        needs_trace: T::NEEDS_TRACE,
        trace: Self::trace,
        trace_each: Self::trace_each,
        trace_head: Self::trace_head,
        // A list of items without a size cannot be cut into pieces, however long it is.
        items: if size_of::<T>() == 0 {
            None
        } else {
            Some(Items {
                size: size_of::<T>(),
                len: Self::len,
                trace: Self::trace_items,
            })
        },
        drop: if std::mem::needs_drop::<T>() {
            Some(Self::drop)
        } else {
            None
        },
        external: Self::external,
    };

    /// Returns the layout of a slot for `len` items: the items, and the length word if one is
    /// needed.
    pub(crate) fn layout(len: usize) -> Option<Layout> {
        let items = Layout::array::<T>(len).ok()?;
        if !Self::TYPED {
            return Some(items);
        }
        let size = round_up(items.size(), LEN_SIZE).checked_add(LEN_SIZE)?;
        Layout::from_size_align(size, items.align().max(LEN_SIZE)).ok()
    }

    /// Returns the address of the length of the slice at `at`, in a slot of `slot` bytes.
    pub(crate) fn len_word(at: *mut u8, slot: usize) -> *mut usize {
        at.wrapping_add(slot - LEN_SIZE).cast()
    }

    unsafe fn len(at: *const u8, slot: usize) -> usize {
        // SAFETY: [O1] [O2] the slot's last word is the length; a slot's address and
        // size are multiples of 8.
        unsafe { Self::len_word(at.cast_mut(), slot).read() }
    }

    unsafe fn trace_head(_at: *const u8, _tracer: &mut Tracer<'_>) {}

    unsafe fn trace_items(at: *const u8, from: usize, to: usize, tracer: &mut Tracer<'_>) {
        // SAFETY: [O2]; `to` is at most the length.
        unsafe { trace_items::<T>(at.cast(), from, to, tracer) }
    }

    unsafe fn drop(at: *mut u8, slot: usize) {
        // SAFETY: [O1].
        let len = unsafe { Self::len(at, slot) };
        // SAFETY: [O2]; the sweeper calls this once, for an object that nobody can reach any more.
        unsafe { std::ptr::slice_from_raw_parts_mut(at.cast::<T>(), len).drop_in_place() }
    }

    unsafe fn external(at: *const u8, slot: usize, how: &Counting<'_>) -> usize {
        // SAFETY: [O1].
        let len = unsafe { Self::len(at, slot) };
        // SAFETY: [O2].
        unsafe { external_of_items::<T>(at.cast(), len, how) }
    }
}

impl<H: Trace, T: Trace> TraceObject for Array<H, T> {
    unsafe fn trace(at: *const u8, _slot: usize, tracer: &mut Tracer<'_>) {
        // SAFETY: [O1].
        unsafe { Self::trace_head(at, tracer) };
        // SAFETY: [O1].
        let len = unsafe { Self::len_at(at) };
        // SAFETY: [O2].
        unsafe { Self::trace_items(at, 0, len, tracer) }
    }
}

impl<H: Trace, T: Trace> Array<H, T> {
    /// Whether arrays of this type need a span class of their own.
    pub(crate) const TYPED: bool = H::NEEDS_TRACE
        || T::NEEDS_TRACE
        || std::mem::needs_drop::<H>()
        || std::mem::needs_drop::<T>();

    /// The bytes from the object's start to its header.
    pub(crate) const HEAD: usize = round_up(LEN_SIZE, align_of::<H>());
    /// The bytes from the object's start to its first item.
    pub(crate) const ITEMS: usize = round_up(Self::HEAD + size_of::<H>(), align_of::<T>());

    pub(crate) const INFO: &'static TypeInfo = &TypeInfo {
        name: std::any::type_name::<(H, [T; 0])>,
        size: Self::ITEMS << 32 | size_of::<T>(),
        align: if align_of::<H>() > align_of::<T>() {
            align_of::<H>()
        } else {
            align_of::<T>()
        },
        needs_trace: H::NEEDS_TRACE || T::NEEDS_TRACE,
        trace: Self::trace,
        trace_each: Self::trace_each,
        trace_head: Self::trace_head,
        // A list of items without a size cannot be cut into pieces, however long it is.
        items: if size_of::<T>() == 0 {
            None
        } else {
            Some(Items {
                size: size_of::<T>(),
                len: Self::len,
                trace: Self::trace_items,
            })
        },
        drop: if std::mem::needs_drop::<H>() || std::mem::needs_drop::<T>() {
            Some(Self::drop)
        } else {
            None
        },
        external: Self::external,
    };

    /// Returns the layout of an array of `len` items.
    pub(crate) fn layout(len: usize) -> Option<Layout> {
        let items = Layout::array::<T>(len).ok()?;
        let size = Self::ITEMS.checked_add(items.size())?;
        let align = LEN_SIZE.max(align_of::<H>()).max(align_of::<T>());
        Layout::from_size_align(size, align).ok()
    }

    /// Returns the number of items.
    ///
    /// # Safety
    /// 1. An array of this type lives at `at`.
    #[inline]
    pub(crate) unsafe fn len_at(at: *const u8) -> usize {
        // SAFETY: [O2] the first word is the length.
        unsafe { at.cast::<usize>().read() }
    }

    unsafe fn len(at: *const u8, _slot: usize) -> usize {
        // SAFETY: [O1].
        unsafe { Self::len_at(at) }
    }

    unsafe fn trace_head(at: *const u8, tracer: &mut Tracer<'_>) {
        if H::NEEDS_TRACE {
            // SAFETY: [O1] the header lives HEAD bytes after the start.
            let head = unsafe { &*at.wrapping_add(Self::HEAD).cast::<H>() };
            head.trace(tracer);
        }
    }

    unsafe fn trace_items(at: *const u8, from: usize, to: usize, tracer: &mut Tracer<'_>) {
        if T::NEEDS_TRACE {
            let items = at.wrapping_add(Self::ITEMS);
            // SAFETY: [O2]; `to` is at most the length.
            unsafe { trace_items::<T>(items.cast(), from, to, tracer) }
        }
    }

    unsafe fn drop(at: *mut u8, _slot: usize) {
        // SAFETY: [O1].
        let len = unsafe { Self::len_at(at) };
        let items = at.wrapping_add(Self::ITEMS).cast::<T>();
        let head = at.wrapping_add(Self::HEAD).cast::<H>();
        // SAFETY: [O2]; the sweeper calls this once, for an object that nobody can reach any more.
        unsafe { std::ptr::slice_from_raw_parts_mut(items, len).drop_in_place() };
        // SAFETY: as above.
        unsafe { head.drop_in_place() }
    }

    unsafe fn external(at: *const u8, _slot: usize, how: &Counting<'_>) -> usize {
        // SAFETY: [O1] the header lives HEAD bytes after the start.
        let head = unsafe { &*at.wrapping_add(Self::HEAD).cast::<H>() };
        // SAFETY: [O1].
        let len = unsafe { Self::len_at(at) };
        let items = at.wrapping_add(Self::ITEMS).cast();
        // SAFETY: [O2].
        let items = unsafe { external_of_items::<T>(items, len, how) };
        head.count_external(how).saturating_add(items)
    }
}

/// Traces items `from .. to` of the list whose first item is at `first`.
///
/// # Safety
/// 1. Items `from .. to` are initialised.
#[inline]
unsafe fn trace_items<T: Trace>(first: *const T, from: usize, to: usize, tracer: &mut Tracer<'_>) {
    let start = first.wrapping_add(from);
    // SAFETY: clause 1; access is shared, as the trait allows while mutators run.
    for item in unsafe { std::slice::from_raw_parts(start, to - from) } {
        item.trace(tracer);
    }
}

/// Returns the sum of what `len` items own outside the heap.
///
/// # Safety
/// 1. The items are initialised.
unsafe fn external_of_items<T: Trace>(first: *const T, len: usize, how: &Counting<'_>) -> usize {
    // SAFETY: clause 1.
    let items = unsafe { std::slice::from_raw_parts(first, len) };
    items.count_external(how)
}
