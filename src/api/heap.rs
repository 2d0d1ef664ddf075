//! `Heap`, the handle to a heap.
//!
//! **Claim.** A heap ends when the program can no longer use it, and not before: with its last
//! `Heap` and its last `Mutator`. Every object that needs a drop is dropped then.
//!
//! **How.** Programs and mutators share a [`Handle`], and only the handle's drop ends the
//! collector. The collector's threads and frames share only the `Collector` behind it, so they do
//! not keep the heap going. If the last handle is dropped inside an object's destructor, the drop
//! runs on the collector's own thread, which cannot wait for itself: it ends when it has finished
//! the sweep.
//!
//! **The place of a mutator.** `attach` gives a mutator to the caller, who can leak it. `with`
//! keeps it in its own frame and lends it, so it is the form that programs should use.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::api::config::HeapBuilder;
use crate::api::current::current;
use crate::api::error::{AttachError, VerifyError};
use crate::api::mutator::Mutator;
use crate::api::stats::{HeapStats, SizeStats, UnmetLimit};
use crate::gc::collecting::{as_collecting_thread, collecting_for};
use crate::gc::collector::Collector;
use crate::sys::sync::{AtomicU64, Ordering};

/// A garbage-collected heap. The value is a shared handle, which is cheap to clone.
///
/// A thread allocates objects through a [`Mutator`]. [`with`](Heap::with) lends one to a closure,
/// and [`attach`](Heap::attach) gives one to a thread for as long as it likes. The heap ends when
/// the last handle and the last mutator are dropped; the destructors of all remaining objects run
/// then.
///
/// # Examples
/// ```
/// use greywave::Heap;
///
/// let heap = Heap::new();
/// let kept = heap.with(|m| {
///     let number = m.alloc(42_u64);
///     assert_eq!(*number, 42);
///     m.root(number)
/// });
/// heap.collect();
/// heap.with(|m| assert_eq!(*kept.get(m), 42));
/// ```
#[derive(Clone)]
pub struct Heap {
    handle: Arc<Handle>,
}

impl fmt::Debug for Heap {
    /// Shows the heap's number in this process, and its size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let collector = self.collector();
        // Relaxed (both): statistics only.
        let heap_bytes = collector.gauges.heap_live.load(Ordering::Relaxed);
        let goal_bytes = collector.gauges.goal.load(Ordering::Relaxed);
        f.debug_struct("Heap")
            .field("number", &collector.id)
            .field("heap_bytes", &heap_bytes)
            .field("goal_bytes", &goal_bytes)
            .finish_non_exhaustive()
    }
}

/// What handles and mutators share. Dropping the last one ends the collector.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) collector: Arc<Collector>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let collector = &self.collector;
        if collecting_for() == collector.id {
            // This drop runs inside an object's destructor, on the collector's own thread. That
            // thread finishes the sweep and drops the remaining objects itself.
            collector.shut_down_from_inside();
            return;
        }
        collector.shut_down();
        as_collecting_thread(collector.id, || collector.drop_everything());
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    /// Makes a heap with the settings of the environment; see [`HeapBuilder`].
    ///
    /// # Panics
    /// If [`HeapBuilder::build`] returns an error: a variable cannot be read, or there is no
    /// address space or no thread.
    #[must_use]
    #[track_caller]
    #[allow(
        clippy::panic,
        reason = "documented; `Heap::builder().build()` is the form that returns the error"
    )]
    pub fn new() -> Self {
        match Self::builder().build() {
            Ok(heap) => heap,
            Err(error) => panic!("the heap cannot be made: {error}"),
        }
    }

    /// Returns the settings for a new heap.
    pub fn builder() -> HeapBuilder {
        HeapBuilder::default()
    }

    pub(crate) fn from_collector(collector: Arc<Collector>) -> Self {
        Self {
            handle: Arc::new(Handle { collector }),
        }
    }

    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    fn collector(&self) -> &Arc<Collector> {
        &self.handle.collector
    }

    /// Runs `f` with a mutator of this heap. The call attaches this thread until `f` returns. If
    /// the thread has a mutator of this heap that is in [`blocking`](Mutator::blocking), the call
    /// lends that one.
    ///
    /// No pointer can leave `f`; a [`Root`](crate::Root) holds what is to live on. Unlike a mutator
    /// from [`attach`](Self::attach), this one cannot be forgotten or leaked. If `f` panics, the
    /// heap is left in order. The call waits while the world is stopped. It takes some hundred
    /// nanoseconds to attach, and some ten to lend. In a G, `greywave::with` costs less.
    ///
    /// # Panics
    /// If this thread would have two licences: it has a running mutator of this heap, or a mutator
    /// of another heap (which includes a G's `with`). Also inside an object's `Drop` on a
    /// collector's thread.
    ///
    /// # Examples
    /// ```
    /// use greywave::Heap;
    ///
    /// let heap = Heap::new();
    /// let text = heap.with(|m| m.root(m.alloc_str("kept")));
    /// // A thread that is attached and blocked gets its own mutator.
    /// let mut m = heap.attach()?;
    /// let length = m.blocking(|| heap.with(|m| text.get(m).len()));
    /// assert_eq!(length, 4);
    /// # Ok::<(), greywave::AttachError>(())
    /// ```
    ///
    /// A pointer cannot be returned:
    ///
    /// ```compile_fail
    /// let heap = greywave::Heap::new();
    /// let number = heap.with(|m| m.alloc(42));
    /// ```
    #[track_caller]
    #[allow(clippy::panic, reason = "documented")]
    pub fn with<R>(&self, f: impl FnOnce(&mut Mutator) -> R) -> R {
        assert!(
            collecting_for() == 0,
            "Heap::with was called inside an object's drop, which may not use a heap"
        );
        let Some(lent) = current() else {
            return f(&mut Mutator::attach(self, Location::caller()));
        };
        let at = lent.attached_at();
        if !std::ptr::eq(lent.collector, &raw const **self.collector()) {
            panic!(
                "Heap::with was called on a thread that has a mutator of another heap (from {at}): a thread has one at most"
            );
        }
        if lent.running {
            panic!(
                "Heap::with was called on a thread whose mutator (from {at}) runs: use that one, or call this in its `blocking`"
            );
        }
        Mutator::lend(self, lent, f)
    }

    /// Attaches this thread: gives it a mutator. Waits while the world is stopped.
    ///
    /// Drop the mutator before the thread ends; [`with`](Self::with) ensures that. A mutator that
    /// is forgotten or leaked is never detached, since what it gave out may stay in use for ever
    /// (`Box::leak` makes a `&'static Mutator`). While its thread lives, it is a thread without
    /// safepoints: the collector waits for it, and reports that. When the thread has ended, the
    /// heap frees nothing more and runs no cycle. Nothing hangs, and the heap grows up to its
    /// limits; see [`Event::MutatorLost`](crate::Event::MutatorLost) and
    /// [`HeapStats::lost_mutators`].
    ///
    /// # Errors
    /// [`AttachError::AlreadyAttached`] if the thread has a mutator, of any heap.
    /// [`AttachError::InDrop`] inside an object's `Drop` on a collector's thread.
    #[track_caller]
    pub fn attach(&self) -> Result<Mutator, AttachError> {
        if current().is_some() {
            return Err(AttachError::AlreadyAttached);
        }
        if collecting_for() != 0 {
            return Err(AttachError::InDrop);
        }
        Ok(Mutator::attach(self, Location::caller()))
    }

    /// Runs a whole cycle that begins after this call, with its sweep. It is for a thread that is
    /// not attached. If no cycle is possible because a mutator is lost
    /// ([`Event::MutatorLost`](crate::Event::MutatorLost)), it returns at once.
    ///
    /// # Panics
    /// If this thread is attached, because the cycle would wait for it; use [`Mutator::collect`].
    /// Also inside an object's `Drop` on a collector's thread.
    pub fn collect(&self) {
        assert!(
            !current().is_some_and(|c| c.running),
            "this thread is attached to a heap: use Mutator::collect"
        );
        assert!(collecting_for() == 0, "a drop cannot wait for a cycle");
        let number = self.collector().want_cycle();
        self.collector().wait_for_cycle(number);
    }

    /// Returns the statistics of this moment. Stops no thread. O(span classes).
    #[must_use]
    pub fn stats(&self) -> HeapStats {
        let collector = self.collector();
        // This finds mutators that have been lost since the last look, so that they are counted.
        collector.look_for_lost();
        let people = collector.world.head_count();
        let memory = collector.heap.memory();
        let figures = collector.figures.lock().clone();
        let knobs = collector.pacing.knobs();
        let g = &collector.gauges;
        // Relaxed (all): statistics only.
        let bytes = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        HeapStats {
            mutators: people.mutators,
            running_mutators: people.running,
            lost_mutators: people.lost,
            pending: collector.pending(),
            roots: collector
                .roots
                .slots_out()
                .saturating_sub(people.root_stocks) as u64,
            frames: collector.frames.len() as u64,
            cycles: figures.cycles,
            forced_cycles: figures.forced_cycles,
            live_bytes: figures.live_bytes,
            heap_bytes: bytes(&g.heap_live),
            goal_bytes: bytes(&g.goal),
            trigger_bytes: bytes(&g.trigger),
            memory_limit_bytes: knobs.limit,
            gogc: knobs.gogc,
            unmet_limit: figures
                .unmet_limit
                .map(|(needed_bytes, limit_bytes)| UnmetLimit {
                    needed_bytes,
                    limit_bytes,
                }),
            span_bytes: bytes(&collector.heap.span_bytes),
            free_bytes: memory.idle,
            released_bytes: memory.released,
            mapped_bytes: memory.backed(),
            metadata_bytes: memory.metadata,
            reserved_bytes: collector.heap.reserved() as u64,
            allocated_bytes: bytes(&g.allocated),
            freed_bytes: bytes(&collector.heap.freed_bytes),
            external_bytes: g.external(),
            objects_dropped: bytes(&g.dropped),
            drop_panics: bytes(&g.drop_panics),
            verify_left_out: bytes(&g.left_out),
            sweep_debt_bytes: collector.sweep_debt_bytes(),
            mark_time_ns: figures.mark_ns,
            total_mark_ns: figures.total_mark_ns,
            background_ns: figures.background_ns,
            assist_ns: figures.assist_ns,
            idle_ns: figures.idle_ns,
            limiting: collector.pacing.is_limiting(),
            last_pause_ns: figures.last_pause_ns,
            pauses: figures.pauses.summary(),
            stopping: figures.stopping.summary(),
            by_size: self.by_size(),
        }
    }

    fn by_size(&self) -> Vec<SizeStats> {
        let mut sizes: BTreeMap<usize, SizeStats> = BTreeMap::new();
        for class in self.collector().heap.all_classes() {
            let [
                allocated_objects,
                allocated_bytes,
                freed_objects,
                freed_bytes,
            ] = class.stats.read();
            if allocated_objects == 0 {
                continue;
            }
            let size = sizes.entry(class.slot).or_default();
            size.slot_bytes = class.slot;
            size.allocated_objects += allocated_objects;
            size.allocated_bytes += allocated_bytes;
            size.freed_objects += freed_objects;
            size.freed_bytes += freed_bytes;
        }
        sizes.into_values().collect()
    }

    /// Gives the memory behind all free pages back to the OS at once, and returns its size in
    /// bytes. O(free memory).
    ///
    /// Objects that died since the last cycle are not free yet, so call [`collect`](Self::collect)
    /// first. The background scavenger does the same slowly, and keeps the memory that the next
    /// cycle will need.
    pub fn release_free_memory(&self) -> u64 {
        self.collector().release_all_free()
    }

    /// Sets the growth in percent ([`HeapBuilder::gogc`]); `None` turns the limit off. The value
    /// takes effect at once. Returns the old value.
    pub fn set_gogc(&self, percent: Option<u32>) -> Option<u32> {
        self.collector().set_gogc(percent)
    }

    /// Sets the soft memory limit in bytes; `u64::MAX` means no limit. The value takes effect at
    /// once. Returns the old value.
    pub fn set_memory_limit(&self, bytes: u64) -> u64 {
        self.collector().set_limit(bytes)
    }

    /// Stops the world and checks the heap's invariants: the page map, span states, bitmaps, the
    /// page allocator, reachability, weak references, root slots. O(heap). It is for tests and
    /// debugging.
    ///
    /// If this thread is attached, its `Gc`s stay valid, but it must not hold a `GcLock` guard that
    /// another thread waits for.
    ///
    /// The verifier leaves out what a thread may be in the middle of writing. Such a thread is this
    /// one, or one that waits inside an allocation or for its turn to verify. What it may be
    /// writing is each [`GcLock`](crate::GcLock) that is held for writing, and each
    /// [`Frame`](crate::Frame) that was opened since the last safepoint at which its thread stopped
    /// or blocked. [`HeapStats::verify_left_out`](crate::HeapStats::verify_left_out) says how many
    /// were left out. None is, if nobody else is at work and the calling thread is not attached, or
    /// has just called [`Mutator::collect`](crate::Mutator::collect).
    ///
    /// # Errors
    /// The first broken invariant, in words. Or a message that the world cannot be stopped, because
    /// a thread ends that has not dropped its mutator, and that may still run.
    pub fn verify(&self) -> Result<(), VerifyError> {
        let me = current()
            .filter(|c| std::ptr::eq(c.collector, &raw const **self.collector()) && c.running);
        if collecting_for() == self.collector().id {
            return Err(VerifyError::new(
                "it cannot be verified from inside an object's drop".to_owned(),
            ));
        }
        self.collector()
            .verify(me.map(|c| c.mutator))
            .map_err(VerifyError::new)
    }
}
