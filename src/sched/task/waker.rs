//! The waker of a G: a reference to it.
//!
//! There are two kinds, each with a table of its own. An ordinary one is in anybody's hands. A kept
//! one is in a line of this crate's, inside a [`KeptWaker`](crate::sched::wakers::KeptWaker), which
//! gives nobody a reference to it; the G's state counts those (`state.rs`). A clone of either is an
//! ordinary one.

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::task::{RawWaker, RawWakerVTable, Waker};

use crate::sched::shared::Shared;
use crate::sched::task::state::Wake;
use crate::sched::task::{GRef, Header};

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);
static KEPT: RawWakerVTable = RawWakerVTable::new(clone, wake_kept, wake_by_ref, drop_kept);

fn is(waker: &Waker, table: &'static RawWakerVTable) -> bool {
    ptr::eq(waker.vtable(), table)
}

/// A kept clone of `waker`, if that is an ordinary one of a G.
#[inline]
pub(crate) fn kept(waker: &Waker) -> Option<Waker> {
    if !is(waker, &VTABLE) {
        return None;
    }
    // SAFETY: the waker has a reference; it keeps it.
    let g = ManuallyDrop::new(unsafe { reference(waker.data()) });
    g.header().state.add_kept_reference();
    // SAFETY: as in `borrowed`; the reference was added as a kept one, and this table gives up such.
    Some(unsafe { Waker::from_raw(RawWaker::new(waker.data(), &KEPT)) })
}

/// Whether `kept` is a kept waker of the G whose ordinary waker `other` is.
#[inline]
pub(crate) fn is_kept_of(kept: &Waker, other: &Waker) -> bool {
    kept.data() == other.data() && is(kept, &KEPT) && is(other, &VTABLE)
}

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
/// 1. `data` is of a waker with one of these tables, whose reference the caller takes over.
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
    let outcome = g.header().state.wake();
    act(g, outcome);
}

unsafe fn wake_kept(data: *const ()) {
    // SAFETY: the waker's reference is given to us.
    let g = unsafe { reference(data) };
    let outcome = g.header().state.wake_kept();
    act(g, outcome);
}

/// After a wake that has given up the waker's reference, which `g` is no more unless it is queued.
fn act(g: GRef, outcome: Wake) {
    match outcome {
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

unsafe fn drop_kept(data: *const ()) {
    // SAFETY: the waker's reference is given to us.
    let g = ManuallyDrop::new(unsafe { reference(data) });
    if g.header().state.drop_kept_reference() {
        g.header().state.add_reference();
        drop(ManuallyDrop::into_inner(g));
    }
}
