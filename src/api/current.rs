//! Which mutator this thread has.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::{Arc, OnceLock};

use crate::gc::collector::Collector;
use crate::gc::mutator::MutatorRef;
use crate::sys::thread::ExitKey;

/// This thread's mutator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current {
    pub(crate) mutator: MutatorRef,
    pub(crate) collector: *const Collector,
    /// Whether it runs; a blocked one's record is not the thread's to touch.
    pub(crate) running: bool,
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

/// This thread's mutator, if it has one.
pub(crate) fn current() -> Option<Current> {
    CURRENT.with(Cell::get)
}

pub(crate) fn set_current(current: Option<Current>) {
    CURRENT.with(|c| c.set(current));
}

/// Says that this thread's mutator runs, or is blocked.
pub(crate) fn set_running(running: bool) {
    CURRENT.with(|c| c.set(c.get().map(|current| Current { running, ..current })));
}

/// What is known at the end of a thread about a mutator that was forgotten or leaked.
struct ExitNote {
    mutator: MutatorRef,
    collector: Arc<Collector>,
}

fn exit_key() -> Option<&'static ExitKey> {
    static KEY: OnceLock<Option<ExitKey>> = OnceLock::new();
    KEY.get_or_init(|| ExitKey::new(at_exit)).as_ref()
}

/// From now on the end of this thread detaches the mutator, if nobody has before.
///
/// A `Gc<'static, _>` of a leaked mutator may be used until the last thread-local destructor has run; see [`ExitKey`].
pub(crate) fn watch_exit(mutator: MutatorRef, collector: &Arc<Collector>) -> *mut c_void {
    let note: *mut ExitNote = Box::into_raw(Box::new(ExitNote {
        mutator,
        collector: collector.clone(),
    }));
    // If the OS refuses, a forgotten mutator delays collection for ever: slow, and sound.
    let _ = exit_key().is_some_and(|key| key.set(note.cast()));
    note.cast()
}

/// The mutator is being detached in order.
///
/// # Safety
/// 1. `note` came from [`watch_exit`] on this thread, and this is the only call for it.
pub(crate) unsafe fn unwatch_exit(note: *mut c_void) {
    let _ = exit_key().is_some_and(|key| key.set(std::ptr::null_mut()));
    // SAFETY: clause 1, and the exit callback cannot see it any more.
    drop(unsafe { Box::from_raw(note.cast::<ExitNote>()) });
}

extern "C" fn at_exit(note: *mut c_void) {
    // SAFETY: set by `watch_exit` on this thread, and not taken back by `unwatch_exit`; the OS calls this once.
    let note = unsafe { Box::from_raw(note.cast::<ExitNote>()) };
    detach(&note.collector, note.mutator);
}

/// Takes this thread's running mutator off its heap.
pub(crate) fn detach(collector: &Collector, mutator: MutatorRef) {
    {
        // SAFETY: 1. registered until `unregister` below. 2. this is the mutator's own thread.
        let state = unsafe { mutator.get() };
        collector.strip(state);
        collector
            .world
            .enter_blocked(state, &mut || collector.catch_up(state));
    }
    collector.world.unregister(mutator);
}
