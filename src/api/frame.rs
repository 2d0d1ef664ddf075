//! `Frame`: a mutable rooted value that Rust code owns.

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

/// A mutable rooted value, such as the operand stack of a virtual machine. A frame keeps everything
/// in it alive.
///
/// `T` is written with the brand `'static`. [`enter`](Self::enter) opens the frame with a mutator's
/// brand. While it is open, the program changes the value with the value's own methods, and no
/// write barrier runs. A frame can be sent to another thread.
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
    /// The box, which the frame table frees.
    at: NonNull<FrameBox<T>>,
    collector: Arc<Collector>,
    owns: PhantomData<T>,
}

#[repr(C)]
struct FrameBox<T> {
    header: FrameHeader,
    value: T,
}

// SAFETY: only `enter` reaches the value, on a thread with a mutator of the heap; `Trace` makes its
// parts fit for any thread, and the `Gc`s in it are valid on each.
unsafe impl<T> Send for Frame<T> {}

impl<T> Frame<T>
where
    T: Collect + 'static,
{
    /// Roots `value`. If the process has several heaps, the call visits the whole value, O(value);
    /// otherwise it is O(1).
    ///
    /// # Panics
    /// If the value holds an object of another heap than `mu`, which is possible for a `Gc<'static,
    /// _>`.
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
        // SAFETY: the header is the first field of a box of this type; [F2] the caller has claimed
        // the scan.
        let value = unsafe { &raw const (*header.cast::<FrameBox<T>>().as_ptr()).value };
        // SAFETY: as above: nobody changes the value during this shared access.
        let value = unsafe { &*value };
        value.trace(tracer);
    }

    unsafe fn free(header: NonNull<FrameHeader>) {
        // SAFETY: [F1] the box of this type was leaked in `new` and is off the list.
        drop(unsafe { Box::from_raw(header.cast::<FrameBox<T>>().as_ptr()) });
    }

    /// Opens the frame. O(1), except that the first opening in a cycle while marking runs scans the
    /// content.
    ///
    /// # Panics
    /// If the frame belongs to another heap than `mu`.
    #[track_caller]
    #[inline]
    pub fn enter<'f, 'm>(&'f mut self, mu: &'m Mutator) -> FrameGuard<'f, 'm, T> {
        let header: NonNull<FrameHeader> = self.at.cast();
        // SAFETY: the box lives as long as the frame.
        mu.check_heap(unsafe { header.as_ref() }.heap());
        if mu.local().duty.marks() && !sabotage::is_on(Fault::FrameOpenedUnscanned) {
            scan_first(mu, header);
        }
        // SAFETY: the box lives as long as the frame.
        unsafe { header.as_ref() }.note_opening(mu.local().section.get());
        // SAFETY: as above; the expression only computes an address.
        let value = unsafe { &raw mut (*self.at.as_ptr()).value };
        FrameGuard {
            value: value.cast(),
            frame: PhantomData,
        }
    }
}

/// [G4] The frame will give its value out with a section's brand, whatever brand it came with.
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

/// An open [`Frame`]. The guard borrows the mutator, so the frame is closed at every safepoint.
#[must_use = "the frame is closed at once otherwise"]
pub struct FrameGuard<'f, 'm, T: Rebrand<'m>> {
    value: *mut At<'m, T>,
    frame: PhantomData<(&'f mut T, &'m Mutator)>,
}

impl<'m, T: Rebrand<'m>> Deref for FrameGuard<'_, 'm, T> {
    type Target = At<'m, T>;
    #[inline]
    fn deref(&self) -> &At<'m, T> {
        // SAFETY: [F2] the frame is open, and only this guard borrows it; by `Rebrand` the cast
        // changes only the brand.
        unsafe { &*self.value }
    }
}

impl<'m, T: Rebrand<'m>> DerefMut for FrameGuard<'_, 'm, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut At<'m, T> {
        // SAFETY: as in `deref`. If marking runs, the frame was scanned in this cycle, so changes
        // need no barrier.
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
