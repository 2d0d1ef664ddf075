//! Which mutator this thread has, and what is noted when the thread ends with it.
//!
//! **Claim.** [`current`] names a mutator of this thread that is registered, or none, at every
//! moment, also in the last destructors of the thread. It is set when a mutator is attached or a
//! section begins, and taken back when the mutator is dropped or the section ends; the end of the
//! thread does not touch it, since a mutator that was not dropped stays registered
//! (`gc/lost.rs`). So a `Root` that a destructor drops after everything else still finds the record
//! that it is to use, and `attach` refuses a second licence.
//!
//! The cell has no destructor, so it can be read at any time. [`Farewell`] has one, which notes the
//! departure. It may run before a user's thread-local that holds the mutator, and drops it then.

use std::cell::Cell;
use std::panic::Location;

use crate::gc::collector::Collector;
use crate::gc::mutator::MutatorRef;
use crate::sys::os_thread::OsThread;
use crate::sys::sabotage::{self, Fault};

/// This thread's mutator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current {
    pub(crate) mutator: MutatorRef,
    pub(crate) collector: *const Collector,
    /// Whether it runs; a blocked one's record is not the thread's to touch.
    pub(crate) running: bool,
    /// Whether it is the thread's own, not a P's.
    pub(crate) is_attached: bool,
}

impl Current {
    /// Where it was attached, or its runtime built.
    pub(crate) fn attached_at(&self) -> &'static Location<'static> {
        // SAFETY: 1. see the module's head. 2. what never changes.
        unsafe { self.mutator.get() }.attached_at
    }
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
    static FAREWELL: Farewell = const { Farewell };
}

/// This thread's mutator, if it has one.
pub(crate) fn current() -> Option<Current> {
    // Where the system has no thread-locals of its own, the cell is gone at the end of a thread:
    // then nothing is known of a mutator.
    CURRENT.try_with(Cell::get).unwrap_or(None)
}

pub(crate) fn set_current(current: Option<Current>) {
    let _ = CURRENT.try_with(|c| c.set(current));
}

/// Says that this thread's mutator runs, or is blocked.
pub(crate) fn set_running(running: bool) {
    set_current(current().map(|current| Current { running, ..current }));
}

/// The thread ends.
struct Farewell;

impl Drop for Farewell {
    fn drop(&mut self) {
        let Some(current) = current().filter(|c| c.is_attached) else {
            return;
        };
        // SAFETY: the mutator was not dropped, so its handle keeps the collector.
        let collector = unsafe { &*current.collector };
        if sabotage::is_on(Fault::LostMutatorDetached) {
            collector.detach(current.mutator);
            set_current(None);
        } else if !sabotage::is_on(Fault::LossNotNoted) {
            collector.note_departure(current.mutator);
        }
    }
}

/// From now on the end of this thread is noted, if its mutator has not been dropped by then.
pub(crate) fn watch_exit(collector: &Collector, mutator: MutatorRef) {
    let is_watched = FAREWELL.try_with(|_| ()).is_ok();
    // In a destructor that runs after the farewell the end is not noted; waits find it out where the
    // system tells of ended threads. Elsewhere the mutator has departed from the beginning.
    if !is_watched && OsThread::current().has_ended().is_none() {
        collector.note_departure(mutator);
    }
}
