//! The waker of a G: a reference to it.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::task::{RawWaker, RawWakerVTable, Waker};

use crate::sched::shared::Shared;
use crate::sched::task::state::Wake;
use crate::sched::task::{GRef, Header};

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// A waker that borrows the reference of whoever polls.
pub(crate) fn borrowed(g: &GRef) -> ManuallyDrop<Waker> {
    let raw = RawWaker::new(g.as_ptr().as_ptr().cast_const().cast(), &VTABLE);
    // SAFETY: the functions below keep the contract of a waker: the data is a header, each waker but this one owns a
    // reference, and this one is not dropped.
    ManuallyDrop::new(unsafe { Waker::from_raw(raw) })
}

/// The reference behind a waker's data.
///
/// # Safety
/// 1. `data` is of a waker with this vtable, whose reference the caller takes over.
unsafe fn reference(data: *const ()) -> GRef {
    // SAFETY: a G's address is not null.
    let header = unsafe { NonNull::new_unchecked(data.cast_mut().cast::<Header>()) };
    // SAFETY: clause 1.
    unsafe { GRef::from_raw(header) }
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: the waker that is cloned has a reference; it keeps it.
    let g = ManuallyDrop::new(unsafe { reference(data) });
    g.header().state.add_reference();
    RawWaker::new(data, &VTABLE)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: the waker's reference is given to us.
    let g = unsafe { reference(data) };
    match g.header().state.wake() {
        Wake::Queue => Shared::schedule(g),
        // The count has been lowered already.
        Wake::Nothing => {
            let _ = g.into_raw();
        }
        Wake::Free => {
            g.header().state.add_reference();
            drop(g);
        }
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the waker keeps its reference.
    let g = ManuallyDrop::new(unsafe { reference(data) });
    if g.header().state.wake_by_ref() == Wake::Queue {
        // SAFETY: the wake has added a reference for the queue.
        Shared::schedule(unsafe { GRef::from_raw(g.as_ptr()) });
    }
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the waker's reference is given to us.
    drop(unsafe { reference(data) });
}
