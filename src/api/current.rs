//! The mutator of this thread, and what the library records when the thread ends while it has one.
//!
//! **Claim.** At every moment, even in the last destructors of the thread, [`current`] returns a
//! registered mutator of this thread, or none. `attach` and the begin of a section set it; dropping
//! the mutator and the end of the section clear it. The end of the thread leaves it alone, because
//! a mutator that was not dropped stays registered (`gc/lost.rs`). So a `Root` that a destructor
//! drops after everything else still finds its record, and `attach` refuses a second licence.
//!
//! The cell has no destructor, so it can be read at any time. [`Farewell`] has a destructor, which
//! records that the mutator has departed. It may run before a user's thread-local that holds the
//! mutator; the mutator is then dropped after its departure.

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
    /// Whether the mutator runs. The thread must not touch the record of a blocked one.
    pub(crate) running: bool,
    /// Whether the mutator is the thread's own and not a P's.
    pub(crate) is_attached: bool,
}

impl Current {
    /// Where the mutator was attached, or where its runtime was built.
    pub(crate) fn attached_at(&self) -> &'static Location<'static> {
        // SAFETY: 1. see the head of this file. 2. the field never changes.
        unsafe { self.mutator.get() }.attached_at
    }
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
    static FAREWELL: Farewell = const { Farewell };
}

/// Returns this thread's mutator, if it has one.
pub(crate) fn current() -> Option<Current> {
    // On systems without native thread-locals the cell is gone at the end of a thread; this
    // function then returns none.
    CURRENT.try_with(Cell::get).unwrap_or(None)
}

pub(crate) fn set_current(current: Option<Current>) {
    let _ = CURRENT.try_with(|c| c.set(current));
}

/// Records whether this thread's mutator runs or is blocked.
pub(crate) fn set_running(running: bool) {
    set_current(current().map(|current| Current { running, ..current }));
}

/// Runs when the thread ends.
struct Farewell;

impl Drop for Farewell {
    fn drop(&mut self) {
        let Some(current) = current().filter(|c| c.is_attached) else {
            return;
        };
        // SAFETY: the mutator was not dropped, so its handle keeps the collector alive.
        let collector = unsafe { &*current.collector };
        if sabotage::is_on(Fault::LostMutatorDetached) {
            collector.detach(current.mutator);
            set_current(None);
        } else if !sabotage::is_on(Fault::LossNotNoted) {
            collector.note_departure(current.mutator);
        }
    }
}

/// Makes sure that the end of this thread is recorded if the thread has not dropped its mutator by
/// then.
pub(crate) fn watch_exit(collector: &Collector, mutator: MutatorRef) {
    let is_watched = FAREWELL.try_with(|_| ()).is_ok();
    // A mutator that is attached in a destructor after the farewell is not recorded at the end of
    // its thread. Where the system tells of ended threads, a wait for the mutator finds the end.
    // Elsewhere the mutator counts as departed from the beginning.
    if !is_watched && OsThread::current().has_ended().is_none() {
        collector.note_departure(mutator);
    }
}
