//! Objects of variable length: slices, `str`, and `GcArray`, which a thin pointer can address.
//!
//! **Claim.** The collector never traces or drops an item that was not made, whatever `f` does.
//!
//! **How.** The length of a list is in its slot, and is 0 until all items are written [O2]. `f` may
//! allocate, and so wait for the end of a cycle; and it may panic. Until the length is set,
//! `Written` owns the items that exist, and drops them if `f` panics. The layouts are in
//! `object/type_info.rs`.
//!
//! **Why `GcArray`.** A cell holds one word, and a pointer to a slice has two. So `GcArray` keeps
//! its length in the object, and `Gc<GcArray<H, T>>` is thin. It costs a load of the length, and
//! saves an interpreter the allocation of a `Vec`.

use std::alloc::Layout;
use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::api::error::AllocError;
use crate::api::gc::Gc;
use crate::api::mutator::{Mutator, out_of_memory};
use crate::gc::alloc::{Fresh, Wanted};
use crate::heap::size_class;
use crate::heap::span_class::ClassKey;
use crate::object::trace::{At, BrandedBy, Collect, Rebrand, Trace, Tracer};
use crate::object::type_info::{Array, Slice, TypeInfo};
use crate::sys::sabotage::{self, Fault};

/// A heap object of variable length behind a thin pointer: a header and `len` items.
///
/// The object holds the length (8 bytes), then the header, then the items. [`Mutator::alloc_array`]
/// makes it. Its pointer is one word, so it fits a [`GcCell`](crate::GcCell); the pointer to a
/// slice does not.
///
/// # Examples
/// ```
/// use greywave::{Gc, GcArray, GcCell, Heap, Trace};
///
/// #[derive(Trace)]
/// struct Field<'gc>(GcCell<'gc, Object<'gc>>);
/// type Object<'gc> = GcArray<u32, Field<'gc>>;
///
/// let heap = Heap::new();
/// let m = heap.attach()?;
/// let object: Gc<'_, Object<'_>> = m.alloc_array(7, 3, |_| Field(GcCell::null()));
/// object.items()[2].0.set(&m, object);
/// assert_eq!((*object.header(), object.items().len()), (7, 3));
/// # Ok::<(), greywave::AttachError>(())
/// ```
pub struct GcArray<H, T> {
    /// An array exists only behind a `Gc`; the header and the items follow it in memory.
    len: usize,
    content: PhantomData<(H, T)>,
    /// Only the heap may share an array between threads.
    not_shared: PhantomData<*mut ()>,
}

impl<'gc, H: Trace, T: Trace> Gc<'gc, GcArray<H, T>> {
    fn start(self) -> *const u8 {
        self.raw().as_ptr().cast_const().cast()
    }

    /// The header. O(1).
    #[inline]
    #[must_use]
    pub fn header(self) -> &'gc H {
        let head = self.start().wrapping_add(Array::<H, T>::HEAD).cast::<H>();
        // SAFETY: [O2] the header was initialised before the array was given out; it lives for
        // `'gc`.
        unsafe { &*head }
    }

    /// The items. O(1).
    #[inline]
    #[must_use]
    pub fn items(self) -> &'gc [T] {
        // SAFETY: 1. the pointer is to an array of this type.
        let len = unsafe { Array::<H, T>::len_at(self.start()) };
        let first = self.start().wrapping_add(Array::<H, T>::ITEMS).cast::<T>();
        // SAFETY: [O2] `len` items are initialised; they live for `'gc`.
        unsafe { std::slice::from_raw_parts(first, len) }
    }
}

impl<H, T> fmt::Debug for GcArray<H, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcArray")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

// SAFETY: an array is never moved out from behind its `Gc`, and its span's class traces it by
// `Array`'s functions; nobody calls this function. 4. the constant follows from `H` and `T`.
unsafe impl<H: Trace, T: Trace> Trace for GcArray<H, T> {
    const NEEDS_TRACE: bool = H::NEEDS_TRACE || T::NEEDS_TRACE;
    fn trace(&self, _: &mut Tracer<'_>) {}
}

// SAFETY: only the brands of the header and the items change.
unsafe impl<'b, H: Rebrand<'b>, T: Rebrand<'b>> Rebrand<'b> for GcArray<H, T> {
    type To = GcArray<H::To, T::To>;
}

/// The items written so far. They are dropped if making the next one panics.
struct Written<T> {
    first: *mut T,
    len: usize,
}

impl<T> Written<T> {
    /// Writes `len` items.
    ///
    /// # Safety
    /// 1. `first` points to room for `len` items, which nobody else uses.
    unsafe fn write_all(first: *mut T, len: usize, mut item: impl FnMut(usize) -> T) {
        let mut written = Self { first, len: 0 };
        for i in 0..len {
            let value = item(i);
            // SAFETY: clause 1.
            unsafe { first.wrapping_add(i).write(value) };
            written.len = i + 1;
        }
        // All items are written: from now on the object's own length counts them.
        written.len = 0;
    }
}

impl<T> Drop for Written<T> {
    fn drop(&mut self) {
        // SAFETY: `len` items were written; the object's own length is still 0, so nobody else
        // drops them.
        unsafe { std::ptr::slice_from_raw_parts_mut(self.first, self.len).drop_in_place() }
    }
}

impl Mutator {
    /// Allocates a slice of `len` items; `f(i)` makes item `i`.
    ///
    /// `f` may allocate. If it panics, the items made so far are dropped. If the items are traced
    /// or have a destructor, the object has one more word, which holds its length.
    ///
    /// # Panics
    /// If `f` panics. If the heap has no room, the process ends; see
    /// [`try_alloc_slice`](Self::try_alloc_slice).
    ///
    /// # Examples
    /// ```
    /// # let heap = greywave::Heap::new();
    /// # let m = heap.attach().unwrap();
    /// let squares = m.alloc_slice(10, |i| i * i);
    /// assert_eq!(squares[9], 81);
    /// ```
    pub fn alloc_slice<'m, T>(&'m self, len: usize, f: impl FnMut(usize) -> T) -> Gc<'m, [T]>
    where
        T: Collect + BrandedBy<'m>,
    {
        match self.try_alloc_slice(len, f) {
            Ok(gc) => gc,
            Err(error) => out_of_memory(&error),
        }
    }

    /// Does what [`alloc_slice`](Self::alloc_slice) does, but returns an error if the heap has no
    /// room. It does not call `f` then.
    ///
    /// # Errors
    /// [`AllocError`] if the heap has no room for the slice.
    pub fn try_alloc_slice<'m, T>(
        &'m self,
        len: usize,
        f: impl FnMut(usize) -> T,
    ) -> Result<Gc<'m, [T]>, AllocError<()>>
    where
        T: Collect + BrandedBy<'m>,
    {
        if len == 0 {
            let nothing = NonNull::slice_from_raw_parts(self.zst_ptr::<T>(), 0);
            // SAFETY: zero items need no object.
            return Ok(unsafe { Gc::from_raw(nothing) });
        }
        let layout = Slice::<T>::layout(len);
        let (at, fresh) = self.list_slot(
            layout,
            Slice::<T>::TYPED,
            Slice::<T>::INFO,
            TypeId::of::<[At<'static, T>]>(),
        )?;
        let first = at.cast::<T>();
        let len_word = Slice::<T>::TYPED.then(|| Slice::<T>::len_word(at, fresh.slot));
        if let Some(word) = len_word {
            // SAFETY: [O2] this is the slot's last word; no item is initialised yet.
            unsafe { word.write(0) };
        }
        // SAFETY: 1. the slot is fresh and has room for the layout.
        unsafe { Written::write_all(first, len, f) };
        if let Some(word) = len_word {
            // SAFETY: [O2] all items are initialised now.
            unsafe { word.write(len) };
        }
        let slice = NonNull::slice_from_raw_parts(self.non_null(first), len);
        // SAFETY: 1. the object is initialised. 2. it is fresh.
        let gc = unsafe { Gc::from_raw(slice) };
        self.note_external(self.count_birth::<[T]>(&gc));
        Ok(gc)
    }

    /// Allocates a copy of `text`.
    ///
    /// # Panics
    /// Never. If the heap has no room, the process ends; see
    /// [`try_alloc_str`](Self::try_alloc_str).
    #[must_use]
    pub fn alloc_str<'m>(&'m self, text: &str) -> Gc<'m, str> {
        match self.try_alloc_str(text) {
            Ok(gc) => gc,
            Err(error) => out_of_memory(&error),
        }
    }

    /// Does what [`alloc_str`](Self::alloc_str) does, but returns an error if the heap has no room.
    ///
    /// # Errors
    /// [`AllocError`] if the heap has no room for the text.
    pub fn try_alloc_str<'m>(&'m self, text: &str) -> Result<Gc<'m, str>, AllocError<()>> {
        let bytes = if text.is_empty() {
            NonNull::slice_from_raw_parts(self.zst_ptr::<u8>(), 0)
        } else {
            let (at, _) = self.list_slot(
                Layout::array::<u8>(text.len()).ok(),
                false,
                Slice::<u8>::INFO,
                TypeId::of::<[u8]>(),
            )?;
            // SAFETY: the slot is fresh and has room for the text.
            unsafe { at.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
            NonNull::slice_from_raw_parts(self.non_null(at), text.len())
        };
        let raw = bytes.as_ptr() as *mut str;
        // SAFETY: the pointer comes from one that is not null.
        let raw = unsafe { NonNull::new_unchecked(raw) };
        // SAFETY: 1. the object is initialised with UTF-8. 2. it is fresh.
        Ok(unsafe { Gc::from_raw(raw) })
    }

    /// Allocates a [`GcArray`]: `header`, and `len` items, of which `f(i)` makes item `i`.
    ///
    /// # Panics
    /// If `f` panics; the header and the items made so far are dropped. If the heap has no room,
    /// the process ends; see [`try_alloc_array`](Self::try_alloc_array).
    pub fn alloc_array<'m, H, T>(
        &'m self,
        header: H,
        len: usize,
        f: impl FnMut(usize) -> T,
    ) -> Gc<'m, GcArray<H, T>>
    where
        H: Collect + BrandedBy<'m>,
        T: Collect + BrandedBy<'m>,
    {
        match self.try_alloc_array(header, len, f) {
            Ok(gc) => gc,
            Err(error) => out_of_memory(&error.map(drop)),
        }
    }

    /// Does what [`alloc_array`](Self::alloc_array) does, but returns an error if the heap has no
    /// room. It does not call `f` then.
    ///
    /// # Errors
    /// [`AllocError`] with the header, if the heap has no room for the array.
    pub fn try_alloc_array<'m, H, T>(
        &'m self,
        header: H,
        len: usize,
        f: impl FnMut(usize) -> T,
    ) -> Result<Gc<'m, GcArray<H, T>>, AllocError<H>>
    where
        H: Collect + BrandedBy<'m>,
        T: Collect + BrandedBy<'m>,
    {
        // This call may unwind, so it comes before a slot is taken, as in `try_alloc`.
        let external = self.count_birth(&header);
        let at = match self.list_slot(
            Array::<H, T>::layout(len),
            Array::<H, T>::TYPED,
            Array::<H, T>::INFO,
            TypeId::of::<GcArray<At<'static, H>, At<'static, T>>>(),
        ) {
            Ok((at, _)) => at,
            Err(error) => {
                self.uncount_birth(&header);
                return Err(error.map(|()| header));
            }
        };
        let first = at.wrapping_add(Array::<H, T>::ITEMS).cast::<T>();
        // If `f` panics, the slot holds an array of no items; its header is dropped with the
        // object.
        // SAFETY: the place is inside the fresh slot, which nobody else has.
        unsafe {
            at.wrapping_add(Array::<H, T>::HEAD)
                .cast::<H>()
                .write(header)
        };
        // SAFETY: [O2] no item is initialised yet.
        unsafe { at.cast::<usize>().write(0) };
        self.note_external(external);
        // SAFETY: 1. the slot is fresh and has room for the layout.
        unsafe { Written::write_all(first, len, f) };
        // SAFETY: [O2] all items are initialised now.
        unsafe { at.cast::<usize>().write(len) };
        let array = self.non_null(at.cast::<GcArray<H, T>>());
        // SAFETY: 1. the object is initialised. 2. it is fresh.
        let gc = unsafe { Gc::from_raw(array) };
        self.note_external(self.count_birth(gc.items()));
        Ok(gc)
    }

    fn non_null<T>(&self, at: *mut T) -> NonNull<T> {
        NonNull::new(at).unwrap_or_else(|| self.zst_ptr())
    }

    /// Takes a fresh slot for a list with this layout.
    fn list_slot(
        &self,
        layout: Option<Layout>,
        typed: bool,
        info: &'static TypeInfo,
        id: TypeId,
    ) -> Result<(*mut u8, Fresh), AllocError<()>> {
        let Some(layout) = layout else {
            return Err(AllocError::new((), usize::MAX, self.no_room()));
        };
        let align = sabotage::pick(Fault::AlignmentIgnored, 8, layout.align());
        let size = sabotage::pick(
            Fault::SlotTooSmall,
            layout.size().saturating_sub(8),
            layout.size(),
        );
        if let Some(class) = size_class::class_of(size.max(1), align) {
            let cache = &self.local().cache;
            let hit = if typed {
                cache.bump_typed(ClassKey::list(info, class), class.size())
            } else {
                cache.fixed(class).bump(class.size())
            };
            if let Some(address) = hit {
                let fresh = Fresh {
                    address,
                    slot: class.size(),
                };
                return Ok((std::ptr::with_exposed_provenance_mut(address), fresh));
            }
        }
        let wanted = Wanted {
            info: typed.then_some((info, id)),
            size,
            align,
            exact: false,
        };
        match self.slot(wanted) {
            Some(fresh) => Ok((self.pointer_to(fresh), fresh)),
            None => Err(AllocError::new((), layout.size(), self.no_room())),
        }
    }
}
