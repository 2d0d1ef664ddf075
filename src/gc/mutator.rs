//! The record of a mutator: plain data, which its thread uses while it runs and the collector while it is held.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use crate::base::ptr_buf::PtrBuf;
use crate::gc::duty::Duty;
use crate::gc::mark::Marker;
use crate::gc::roots::RootSlot;
use crate::gc::standstill::{Section, next_section};
use crate::gc::state_word::StateWord;
use crate::heap::mcache::MCache;
use crate::heap::mheap::Paint;
use crate::sys::os_thread::{OsThread, name_of_this_thread};

/// What the mutator's own thread works with.
///
/// Cells without locks. **Concurrency:** touched by the mutator's thread while it is Running; by the collector while the
/// mutator is Stopped or Claimed (the state word's Release and Acquire order the two).
#[derive(Debug)]
pub(crate) struct Local {
    /// What the write barrier has to do.
    pub(crate) duty: Duty,
    /// The number of the cycle that is running, or was last. Written at stops.
    pub(crate) cycle: Cell<u32>,
    /// The number of the stretch between two safepoints in which it is, which no other mutator has. Changed by the mutator
    /// itself, where it stops or blocks.
    pub(crate) section: Cell<Section>,
    pub(crate) cache: MCache,
    /// How the cache's cursors were filled.
    pub(crate) paint: Cell<Paint>,
    /// Marking has ended since the cache's spans were taken: they go back before anything is allocated. Written at
    /// stops.
    pub(crate) stale_cache: Cell<bool>,
    /// Addresses that the barrier has seen and nobody has shaded yet.
    pub(crate) barrier: RefCell<PtrBuf>,
    /// Free root slots.
    pub(crate) free_roots: RefCell<Vec<NonNull<RootSlot>>>,
    /// Bytes of allocation that this mutator has paid for by scanning and has not used; below 0 it
    /// owes for as many.
    pub(crate) credit: Cell<i64>,
    /// How much longer it waits for the end of that cycle.
    pub(crate) patience: Cell<(u32, Duration)>,
    /// How much longer it waits, inside allocations that find no room, for the end of that cycle.
    pub(crate) rescue: Cell<(u64, Duration)>,
    /// A marker for assists and full barrier buffers, kept for the next one.
    pub(crate) marker: RefCell<Option<Box<Marker>>>,
    /// Change of external bytes not yet told.
    pub(crate) external: Cell<i64>,
    /// Its last allocation that found no room has waited for a cycle. For the report.
    pub(crate) rescued: Cell<bool>,
}

/// A mutator as the collector sees it.
#[derive(Debug)]
pub(crate) struct MutatorState {
    pub(crate) word: StateWord,
    pub(crate) local: Local,
    /// Where it was attached, or its runtime built.
    pub(crate) attached_at: &'static Location<'static>,
    /// The name of the thread that attached it; a P's mutator has none of its own.
    pub(crate) thread: Option<String>,
    /// The thread that runs it, or ran it last; see `OsThread`. For reports.
    os_thread: AtomicU32,
    /// The address of the G whose section it is in, or was in last; 0: none. For reports.
    task: AtomicUsize,
    /// How many free root slots it keeps. For figures.
    root_stock: AtomicUsize,
}

/// A registered mutator.
///
/// The box behind it is freed only after it has been taken off the registry, under the registry's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MutatorRef(pub(crate) NonNull<MutatorState>);

// SAFETY: the record's plain parts are handed between threads by its state word; see `Local`.
unsafe impl Send for MutatorRef {}
// SAFETY: as above.
unsafe impl Sync for MutatorRef {}

impl MutatorRef {
    /// The record.
    ///
    /// # Safety
    /// 1. The mutator is still registered, and stays so while the reference lives. 2. `local` is touched only as its
    ///    rules say.
    pub(crate) unsafe fn get<'a>(self) -> &'a MutatorState {
        // SAFETY: clause 1: the box is alive.
        unsafe { self.0.as_ref() }
    }
}

impl MutatorState {
    /// The mutator of this thread.
    pub(crate) fn new(word: StateWord, attached_at: &'static Location<'static>) -> Self {
        Self {
            thread: Some(name_of_this_thread()),
            // Relaxed: for reports.
            os_thread: AtomicU32::new(OsThread::current().to_raw()),
            ..Self::of_nobody(word, attached_at)
        }
    }

    /// A mutator that goes from thread to thread.
    pub(crate) fn of_nobody(word: StateWord, attached_at: &'static Location<'static>) -> Self {
        Self {
            word,
            local: Local {
                duty: Duty::none(),
                cycle: Cell::new(0),
                section: Cell::new(0),
                cache: MCache::new(),
                paint: Cell::new(Paint::White),
                stale_cache: Cell::new(false),
                barrier: RefCell::new(PtrBuf::new()),
                free_roots: RefCell::new(Vec::new()),
                credit: Cell::new(0),
                patience: Cell::new((0, Duration::ZERO)),
                rescue: Cell::new((0, Duration::ZERO)),
                marker: RefCell::new(None),
                external: Cell::new(0),
                rescued: Cell::new(false),
            },
            attached_at,
            thread: None,
            os_thread: AtomicU32::new(0),
            task: AtomicUsize::new(0),
            root_stock: AtomicUsize::new(0),
        }
    }

    /// The G at `task` is about to use the mutator on `thread`.
    #[cfg(feature = "sched")]
    #[inline]
    pub(crate) fn note_section(&self, thread: OsThread, task: usize) {
        // Relaxed (both): for reports, which look again at the end whether they were of one moment.
        self.os_thread.store(thread.to_raw(), Ordering::Relaxed);
        self.task.store(task, Ordering::Relaxed);
    }

    /// It keeps so many free root slots now. By its thread.
    #[inline]
    pub(crate) fn note_root_stock(&self, slots: usize) {
        // Relaxed: a figure.
        self.root_stock.store(slots, Ordering::Relaxed);
    }

    /// How many free root slots it keeps.
    pub(crate) fn root_stock(&self) -> usize {
        // Relaxed: a figure.
        self.root_stock.load(Ordering::Relaxed)
    }

    /// The thread that runs it.
    pub(crate) fn os_thread(&self) -> OsThread {
        // Relaxed: as above.
        OsThread::from_raw(self.os_thread.load(Ordering::Relaxed))
    }

    /// The G whose section it is in; 0: none.
    pub(crate) fn task(&self) -> usize {
        // Relaxed: as above.
        self.task.load(Ordering::Relaxed)
    }

    /// A name for the thread that runs it.
    pub(crate) fn thread_name(&self) -> String {
        match &self.thread {
            Some(name) => name.clone(),
            None => {
                (self.os_thread().name()).unwrap_or_else(|| "a thread of the runtime".to_owned())
            }
        }
    }
}

impl Local {
    /// The mutator is at a safepoint: what it opened and took is closed and given back, or was forgotten.
    pub(crate) fn end_section(&self) {
        self.section.set(next_section(self.section.get()));
    }
}
