//! `Frame`: a mutable rooted value owned by Rust code.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::api::mutator::Mutator;
use crate::gc::collector::Collector;
use crate::gc::frames::{FrameHeader, scan_before_open};
use crate::object::trace::{At, Collect, LockView, Rebrand, Trace, Tracer};
use crate::sys::sabotage::{self, Fault};

/// A mutable rooted value, such as a virtual machine's operand stack: everything it holds is alive.
///
/// `T` is written with the brand `'static`. [`enter`](Self::enter) opens it with a mutator's brand; while it is open,
/// pushing and popping are the value's own operations, without a barrier. It can be sent to another thread.
///
/// # Examples
/// ```
/// use greywave::{Frame, Gc, Heap};
///
/// let heap = Heap::new();
/// let mut m = heap.attach()?;
/// let mut stack: Frame<Vec<Gc<'static, u64>>> = Frame::new(&m, Vec::new());
/// for i in 0..100 {
///     {
///         let mut open = stack.enter(&m);
///         open.push(m.alloc(i));
///     }
///     m.safepoint();
/// }
/// m.collect();
/// assert_eq!(stack.enter(&m).iter().map(|n| **n).sum::<u64>(), 4950);
/// # Ok::<(), greywave::AttachError>(())
/// ```
pub struct Frame<T> {
    /// The box; freed by the frame table.
    at: NonNull<FrameBox<T>>,
    collector: Arc<Collector>,
    owns: PhantomData<T>,
}

#[repr(C)]
struct FrameBox<T> {
    header: FrameHeader,
    value: T,
}

// SAFETY: the value is reached through `enter` only, on a thread with a mutator of the heap; `Trace` makes its parts fit
// for any thread, and `Gc`s in it are valid on each.
unsafe impl<T> Send for Frame<T> {}

impl<T> Frame<T>
where
    T: Collect + 'static,
{
    /// Roots `value`. In a process with several heaps it is looked through, O(value); else O(1).
    ///
    /// # Panics
    /// If something in it is of another heap than `mu`: a `Gc<'static, _>` may be.
    #[must_use]
    #[track_caller]
    pub fn new(mu: &Mutator, value: T) -> Self {
        if T::NEEDS_TRACE && mu.local().duty.checks() && !sabotage::is_on(Fault::FrameOfForeign) {
            refuse_foreign(mu, &value);
        }
        let collector = mu.heap().handle().collector.clone();
        let header = FrameHeader::new(collector.id, Self::trace, Self::free);
        let at = NonNull::from(Box::leak(Box::new(FrameBox { header, value })));
        collector.frames.add(at.cast(), mu.local().cycle.get());
        Self {
            at,
            collector,
            owns: PhantomData,
        }
    }

    unsafe fn trace(header: NonNull<FrameHeader>, tracer: &mut Tracer<'_>) {
        // SAFETY: the header is the first field of a box of this type; [F2] the scan is claimed.
        let value = unsafe { &raw const (*header.cast::<FrameBox<T>>().as_ptr()).value };
        // SAFETY: as above: shared access while nobody changes it.
        let value = unsafe { &*value };
        value.trace(tracer);
    }

    unsafe fn free(header: NonNull<FrameHeader>) {
        // SAFETY: [F1] the box of this type was leaked in `new` and is off the list.
        drop(unsafe { Box::from_raw(header.cast::<FrameBox<T>>().as_ptr()) });
    }

    /// Opens the frame. O(1), but for the first time in a cycle while marking runs: then its content is scanned.
    ///
    /// # Panics
    /// If the frame belongs to another heap than `mu`.
    #[track_caller]
    #[inline]
    pub fn enter<'f, 'm>(&'f mut self, mu: &'m Mutator) -> FrameGuard<'f, 'm, T> {
        let header: NonNull<FrameHeader> = self.at.cast();
        // SAFETY: the box is alive while the frame is.
        mu.check_heap(unsafe { header.as_ref() }.heap());
        if mu.local().duty.marks() && !sabotage::is_on(Fault::FrameOpenedUnscanned) {
            scan_first(mu, header);
        }
        // SAFETY: the box is alive while the frame is.
        unsafe { header.as_ref() }.note_opening(mu.local().section.get());
        // SAFETY: as above; only a place is computed.
        let value = unsafe { &raw mut (*self.at.as_ptr()).value };
        FrameGuard {
            value: value.cast(),
            frame: PhantomData,
        }
    }
}

/// [G4] The frame gives its value out with a section's brand, whatever brand it came with.
#[cold]
#[inline(never)]
#[track_caller]
fn refuse_foreign<T: Trace>(mu: &Mutator, value: &T) {
    // The caller owns the value, so nobody writes to a lock in it.
    (mu.collector()).assert_all_own(LockView::Owned, |tracer| value.trace(tracer));
}

#[cold]
#[inline(never)]
fn scan_first(mu: &Mutator, header: NonNull<FrameHeader>) {
    let local = mu.local();
    // SAFETY: 1. the caller borrows the frame.
    mu.collector().shade_all_later(local, |tracer| unsafe {
        scan_before_open(header, local.cycle.get(), tracer)
    });
}

impl<T> Drop for Frame<T> {
    fn drop(&mut self) {
        self.collector.frames.remove(self.at.cast());
    }
}

impl<T> fmt::Debug for Frame<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").finish_non_exhaustive()
    }
}

/// An open [`Frame`]. It borrows the mutator, so the frame is closed at every safepoint.
#[must_use = "the frame is closed at once otherwise"]
pub struct FrameGuard<'f, 'm, T: Rebrand<'m>> {
    value: *mut At<'m, T>,
    frame: PhantomData<(&'f mut T, &'m Mutator)>,
}

impl<'m, T: Rebrand<'m>> Deref for FrameGuard<'_, 'm, T> {
    type Target = At<'m, T>;
    #[inline]
    fn deref(&self) -> &At<'m, T> {
        // SAFETY: [F2] the frame is open and borrowed by this guard alone; `Rebrand` makes the cast a change of brand.
        unsafe { &*self.value }
    }
}

impl<'m, T: Rebrand<'m>> DerefMut for FrameGuard<'_, 'm, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut At<'m, T> {
        // SAFETY: as in `deref`; scanned in this cycle if marking runs, so changes need no barrier.
        unsafe { &mut *self.value }
    }
}

impl<'m, T: Rebrand<'m>> fmt::Debug for FrameGuard<'_, 'm, T>
where
    At<'m, T>: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
