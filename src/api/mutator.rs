//! `Mutator`: a thread's licence to use the heap.
//!
//! **Claim.** A thread has at most one licence at each moment, and no `Gc` is live when it stops.
//!
//! **How.** A safepoint, a collection and a blocked section take `&mut Mutator`, and every `Gc`
//! borrows the mutator. The thread's `Current` (`current.rs`) names its mutator, so a second
//! `attach` or a nested `with` is refused. A mutator is the thread's own, a P's, or lent: a second
//! value for the thread's own mutator while that is blocked.
//!
//! **Allocation.** The fast path is inlined into the caller: a probe, and a move of a pointer
//! (`heap/mcache.rs`). A function that is not inlined takes over on a miss. What user code the
//! allocation has to run (a measure of the value) runs before a slot is taken, because it may
//! unwind, and a slot must not be left without a value.

use std::any::TypeId;
use std::marker::PhantomData;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::api::current::{self, Current};
use crate::api::error::AllocError;
use crate::api::gc::Gc;
use crate::api::heap::{Handle, Heap};
use crate::gc::alloc::{Fresh, MAX_SMALL, MAX_SMALL_ALIGN, Wanted, exact_slot};
use crate::gc::brake::NoRoom;
use crate::gc::collector::Collector;
use crate::gc::held_locks;
use crate::gc::mutator::{Local, MutatorRef, MutatorState};
use crate::gc::state_word::Request;
use crate::heap::size_class::{self, SizeClass};
use crate::heap::span_class::ClassKey;
use crate::object::counting::{Counting, Purpose};
use crate::object::trace::{At, BrandedBy, Collect, Trace};
use crate::object::type_info::{Sized_, TypeInfo};
use crate::sys::fatal::fatal_args;
#[cfg(feature = "sched")]
use crate::sys::os_thread::OsThread;
use crate::sys::sabotage::{self, Fault};

/// A thread's licence to use the heap. A thread has at most one.
///
/// A [`Gc`] is valid while the `&Mutator` that it came from is borrowed.
/// [`safepoint`](Self::safepoint), [`collect`](Self::collect) and [`blocking`](Self::blocking) take
/// `&mut self`, so no `Gc` can be live across them. What is to survive them is held by a
/// [`Root`](crate::Root) or a [`Frame`](crate::Frame), or is reachable from one.
///
/// A mutator that reaches no safepoint delays every collection, so call `safepoint` in loops. A
/// mutator that is never dropped ends collection for good; see [`Heap::attach`].
///
/// # Examples
/// ```
/// use greywave::{GcCell, Heap, Trace};
///
/// #[derive(Trace)]
/// struct Node<'gc> {
///     value: u32,
///     next: GcCell<'gc, Node<'gc>>,
/// }
///
/// let heap = Heap::new();
/// let mut m = heap.attach()?;
/// let first = {
///     let last = m.alloc(Node { value: 2, next: GcCell::null() });
///     let first = m.alloc(Node { value: 1, next: GcCell::new(Some(last)) });
///     last.next.set(&m, first); // a cycle
///     m.root(first)
/// };
/// m.safepoint();
/// let second = first.get(&m).next.get().expect("set above");
/// assert_eq!(second.value, 2);
/// # Ok::<(), greywave::AttachError>(())
/// ```
#[derive(Debug)]
pub struct Mutator {
    state: MutatorRef,
    heap: Heap,
    kind: Kind,
    /// The type is neither `Send` nor `Sync`.
    not_shared: PhantomData<*mut ()>,
}

/// Whose a mutator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The thread's own.
    Attached,
    /// A P's, on whichever thread the P is.
    #[cfg(feature = "sched")]
    OfProc,
    /// A second value for the mutator of this thread, which is Blocked before and after the life of
    /// this value.
    Lent,
}

impl Mutator {
    pub(crate) fn attach(heap: &Heap, attached_at: &'static Location<'static>) -> Self {
        let collector = &heap.handle().collector;
        let state = collector
            .world
            .register(attached_at, collector.settings.stress);
        current::set_current(Some(Current {
            mutator: state,
            collector: &raw const **collector,
            running: true,
            is_attached: true,
        }));
        current::watch_exit(collector, state);
        let mutator = Self {
            state,
            heap: heap.clone(),
            kind: Kind::Attached,
            not_shared: PhantomData,
        };
        mutator.enter();
        mutator
    }

    /// Makes a P's mutator. It is Blocked except during the sections of the Gs that run on the P,
    /// on whichever thread the P is.
    #[cfg(feature = "sched")]
    pub(crate) fn for_proc(heap: &Heap, built_at: &'static Location<'static>) -> Self {
        let collector = &heap.handle().collector;
        Self {
            state: collector
                .world
                .register_for_proc(built_at, collector.settings.stress),
            heap: heap.clone(),
            kind: Kind::OfProc,
            not_shared: PhantomData,
        }
    }

    /// Begins a section of the G at `task` on this thread.
    #[cfg(feature = "sched")]
    pub(crate) fn enter_section(&mut self, thread: OsThread, task: usize) {
        self.state().note_section(thread, task);
        self.enter();
        current::set_current(Some(Current {
            mutator: self.state,
            collector: &raw const **self.collector_arc(),
            running: true,
            is_attached: false,
        }));
        self.safepoint();
    }

    /// Ends the section.
    #[cfg(feature = "sched")]
    pub(crate) fn leave_section(&mut self) {
        let (collector, state) = (self.collector(), self.state());
        collector
            .world
            .enter_blocked(state, &mut || collector.catch_up(state));
    }

    /// Runs `f` with the mutator of this thread, which belongs to `heap` and is Blocked in
    /// [`blocking`](Self::blocking).
    ///
    /// The value that `blocking` has borrowed and the value that `f` gets share one record. The
    /// first cannot be used before `blocking` returns, so at each moment there is one licence. The
    /// two values cannot change places either: `f` can reach neither the first nor any other
    /// mutator, since a thread has only one.
    pub(crate) fn lend<R>(heap: &Heap, lent: Current, f: impl FnOnce(&mut Self) -> R) -> R {
        let mut mutator = Self {
            state: lent.mutator,
            heap: heap.clone(),
            kind: Kind::Lent,
            not_shared: PhantomData,
        };
        mutator.enter();
        current::set_running(true);
        // Dropping the value blocks the mutator again, even if `f` panics.
        f(&mut mutator)
    }

    /// Moves the mutator from Blocked to Running.
    fn enter(&self) {
        held_locks::clear();
        let (collector, state) = (self.collector(), self.state());
        collector
            .world
            .leave_blocked(state, &mut || collector.catch_up(state));
        collector.catch_up(state);
    }

    #[inline(always)]
    pub(crate) fn state(&self) -> &MutatorState {
        // SAFETY: 1. it is registered until `self` is dropped. 2. `self` is neither Send nor Sync,
        // so this is the mutator's thread; methods that may find it Blocked touch only the word.
        unsafe { self.state.get() }
    }

    #[inline(always)]
    pub(crate) fn local(&self) -> &Local {
        &self.state().local
    }

    #[inline(always)]
    pub(crate) fn collector(&self) -> &Collector {
        &self.handle().collector
    }

    /// Panics if the address is in another heap's arena. [G4]
    #[inline(always)]
    #[track_caller]
    pub(crate) fn assert_own(&self, address: usize) {
        if self.local().duty.checks() {
            self.collector().assert_own(address);
        }
    }

    #[cfg(feature = "sched")]
    fn collector_arc(&self) -> &Arc<Collector> {
        &self.handle().collector
    }

    fn handle(&self) -> &Arc<Handle> {
        self.heap.handle()
    }

    /// Returns the heap that this mutator belongs to. O(1).
    #[must_use]
    pub fn heap(&self) -> &Heap {
        &self.heap
    }

    // ---- safepoints -----------------------------------------------------------------------------

    /// A place where the collector may stop this thread.
    ///
    /// If nothing is requested, this is one relaxed load and a predicted branch. No `Gc` can be
    /// live across it, as the borrow checker proves:
    ///
    /// ```compile_fail,E0502
    /// # let heap = greywave::Heap::new();
    /// # let mut m = heap.attach().unwrap();
    /// let number = m.alloc(1);
    /// m.safepoint();
    /// println!("{number}");
    /// ```
    #[inline(always)]
    pub fn safepoint(&mut self) {
        if self.state().word.is_asked() {
            self.safepoint_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn safepoint_slow(&mut self) {
        self.stop_and_catch_up();
        if self.state().word.asked().has(Request::Stall) {
            self.state().word.withdraw(Request::Stall);
            // The P is not handed off: with another mutator on it, the next G would only grow the
            // heap further.
            self.collector().stall(self.state());
        }
        if self.collector().settings.stress {
            self.collect();
        }
    }

    fn stop_and_catch_up(&mut self) {
        held_locks::clear();
        let (collector, state) = (self.collector(), self.state());
        collector
            .world
            .stop_and_act(state, &mut || collector.catch_up(state));
        collector.catch_up(state);
    }

    /// Runs a whole cycle that begins after this call, and returns when its sweep is done.
    ///
    /// Objects that are unreachable at the call are gone afterwards, and their destructors have
    /// run. O(live heap). If no cycle is possible because a mutator is lost
    /// ([`Event::MutatorLost`](crate::Event::MutatorLost)), it returns at once.
    pub fn collect(&mut self) {
        let number = self.collector().want_cycle();
        let heap = self.heap.clone();
        self.blocking(|| heap.handle().collector.wait_for_cycle(number));
    }

    /// Runs `f` while this mutator is blocked: the collector does not wait for this thread
    /// meanwhile.
    ///
    /// Use it for anything that may wait: a system call, a lock, a join. `f` cannot use the heap.
    ///
    /// # Examples
    /// ```
    /// # let heap = greywave::Heap::new();
    /// # let mut m = heap.attach().unwrap();
    /// let read = m.blocking(|| std::fs::read("Cargo.toml"));
    /// ```
    pub fn blocking<R>(&mut self, f: impl FnOnce() -> R) -> R {
        /// Enters the heap again, even if `f` panics.
        struct Back<'a>(&'a Mutator);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.enter();
                current::set_running(true);
            }
        }
        let (collector, state) = (self.collector(), self.state());
        collector
            .world
            .enter_blocked(state, &mut || collector.catch_up(state));
        current::set_running(false);
        let back = Back(self);
        // A lent mutator is already inside a `blocking`, which has given the P away.
        #[cfg(feature = "sched")]
        if self.kind == Kind::OfProc {
            return crate::sched::blocking::without_proc(f, back);
        }
        let out = f();
        drop(back);
        out
    }

    // ---- allocation -----------------------------------------------------------------------------

    /// Moves `value` into the heap.
    ///
    /// If the mutator's cache has a slot, this takes a few instructions. An allocation is never a
    /// safepoint. While marking runs it may mark a little.
    ///
    /// The value's brand must be this mutator's ([`BrandedBy`](crate::BrandedBy)). A value with the
    /// brand `'static` could be rooted and come back with a mutator's brand; then what was stored
    /// through that brand could be read as `'static`.
    ///
    /// # Panics
    /// Never. If the reservation or the hard limit is exhausted, even after the running cycle has
    /// ended, the process is aborted with a message; [`try_alloc`](Self::try_alloc) returns an
    /// error instead. A thread that allocates past the heap's goal waits at its next safepoint.
    /// Between two safepoints only the limit stops it.
    #[inline(always)]
    pub fn alloc<'m, T>(&'m self, value: T) -> Gc<'m, T>
    where
        T: Collect + BrandedBy<'m>,
    {
        // This does not go through `try_alloc`. The error of that function holds the value, so the
        // compiler would build the value on the stack and copy it from there: 11 ns instead of 5
        // for four words.
        let external = self.count_birth(&value);
        match self.slot_for::<T>() {
            // SAFETY: as in `try_alloc`.
            Some(at) => unsafe { self.fill(at, value, external) },
            None => self.has_no_room_for(size_of::<T>()),
        }
    }

    /// Does what [`alloc`](Self::alloc) does, but returns an error if the heap has no room.
    ///
    /// # Errors
    /// [`AllocError`] with the value, if its bytes do not fit into the reservation or the hard
    /// limit, even after the running cycle has ended. The next safepoint waits for another cycle;
    /// after that a new attempt may succeed.
    #[inline(always)]
    pub fn try_alloc<'m, T>(&'m self, value: T) -> Result<Gc<'m, T>, AllocError<T>>
    where
        T: Collect + BrandedBy<'m>,
    {
        // This comes before a slot is taken: a user's implementation may unwind, and a slot must
        // not be left without a value.
        let external = self.count_birth(&value);
        let Some(at) = self.slot_for::<T>() else {
            if std::mem::needs_drop::<T>() {
                self.uncount_birth(&value);
            }
            return Err(AllocError::new(value, size_of::<T>(), self.no_room()));
        };
        // SAFETY: the slot is fresh and fits a `T`; `external` was counted just now.
        Ok(unsafe { self.fill(at, value, external) })
    }

    /// Takes a slot for a `T`.
    #[inline(always)]
    fn slot_for<T: Collect>(&self) -> Option<NonNull<T>> {
        match self.sized_slot::<T>() {
            Some(at) => Some(at),
            // The slow path gets the same copy of the constant that the fast path looks for; with
            // another copy the next allocation would miss again.
            None => self.sized_slot_slow::<T>(Sized_::<T>::INFO),
        }
    }

    /// Writes the value, which owns `external` bytes outside the heap, to `at`, which makes it an
    /// object.
    ///
    /// # Safety
    /// `at` is a fresh slot of this heap, of at least the size and alignment of `T`, which nobody
    /// else has.
    #[inline(always)]
    unsafe fn fill<'m, T>(&'m self, at: NonNull<T>, value: T, external: usize) -> Gc<'m, T> {
        // SAFETY: by the clause above.
        unsafe { at.write(value) };
        self.note_external(external);
        // SAFETY: the object is initialised and belongs to this heap; it is valid until the next
        // safepoint, and `'m` ends before that.
        unsafe { Gc::from_raw(at) }
    }

    #[cold]
    #[inline(never)]
    fn has_no_room_for(&self, bytes: usize) -> ! {
        out_of_memory(&AllocError::new((), bytes, self.no_room()))
    }

    /// Takes a slot for a `T` from the cache.
    #[inline(always)]
    fn sized_slot<T: Trace>(&self) -> Option<NonNull<T>> {
        let cache = &self.local().cache;
        let address = if const { Sized_::<T>::TYPED } {
            let slot = const { exact_slot(size_of::<T>(), align_of::<T>()) };
            cache.bump_typed(ClassKey::exact(Sized_::<T>::INFO), slot)
        } else {
            match const { plain_class::<T>() } {
                Some(class) => cache.fixed(class).bump(const { plain_slot::<T>() }),
                None => None,
            }
        };
        address.and_then(|a| NonNull::new(std::ptr::with_exposed_provenance_mut(a)))
    }

    #[cold]
    #[inline(never)]
    fn sized_slot_slow<T: Collect>(&self, info: &'static TypeInfo) -> Option<NonNull<T>> {
        if size_of::<T>() == 0 && !std::mem::needs_drop::<T>() {
            return Some(self.zst_ptr());
        }
        let info = Sized_::<T>::TYPED.then(|| (info, TypeId::of::<At<'static, T>>()));
        let wanted = Wanted {
            info,
            size: size_of::<T>(),
            align: align_of::<T>(),
            exact: true,
        };
        self.slot(wanted)
            .and_then(|fresh| NonNull::new(self.pointer_to(fresh).cast()))
    }

    /// The address of objects without a size: that of the arena, if that is aligned as they need,
    /// or else a dangling one.
    pub(crate) fn zst_ptr<T>(&self) -> NonNull<T> {
        let base =
            NonNull::new(self.collector().heap.at(0).cast::<T>()).unwrap_or(NonNull::dangling());
        if base.is_aligned() {
            base
        } else {
            NonNull::dangling()
        }
    }

    /// Says why an allocation found no room.
    #[cold]
    #[inline(never)]
    pub(crate) fn no_room(&self) -> NoRoom {
        self.collector().no_room(self.state())
    }

    /// Takes a slot on the slow path.
    pub(crate) fn slot(&self, wanted: Wanted) -> Option<Fresh> {
        self.collector().alloc_slow(self.state(), wanted).ok()
    }

    pub(crate) fn pointer_to(&self, fresh: Fresh) -> *mut u8 {
        let heap = &self.collector().heap;
        heap.at(heap.offset_of(fresh.address).unwrap_or(0))
    }

    /// Counts what a value owns outside the heap, when it is about to become an object or a part of
    /// one. The caller passes the result to [`note_external`](Self::note_external) once it is one.
    #[inline(always)]
    pub(crate) fn count_birth<T: ?Sized + Trace>(&self, value: &T) -> usize {
        if std::mem::needs_drop::<T>() {
            value.count_external(&Counting::new(Purpose::Birth(
                &self.collector().shared_bytes,
            )))
        } else {
            0
        }
    }

    /// Undoes [`count_birth`](Self::count_birth) for a value that found no room.
    #[cold]
    #[inline(never)]
    pub(crate) fn uncount_birth<T: ?Sized + Trace>(&self, value: &T) {
        if std::mem::needs_drop::<T>() {
            let shared = &self.collector().shared_bytes;
            value.count_external(&Counting::new(Purpose::Death(shared)));
        }
    }

    #[inline]
    pub(crate) fn note_external(&self, bytes: usize) {
        if bytes > 0 {
            self.collector()
                .note_external(self.state(), i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

impl Drop for Mutator {
    fn drop(&mut self) {
        match self.kind {
            Kind::Attached => {
                self.collector().detach(self.state);
                if !sabotage::is_on(Fault::CurrentLeftBehind) {
                    current::set_current(None);
                }
            }
            // The P ends and its mutator is Blocked. No thread has it.
            #[cfg(feature = "sched")]
            Kind::OfProc => self.collector().take_off_blocked(self.state),
            Kind::Lent => {
                let (collector, state) = (self.collector(), self.state());
                collector
                    .world
                    .enter_blocked(state, &mut || collector.catch_up(state));
                current::set_running(false);
            }
        }
    }
}

/// The size class of a type that is neither traced nor dropped; `None` for a zero-sized or large
/// type.
const fn plain_class<T>() -> Option<SizeClass> {
    if size_of::<T>() == 0 || size_of::<T>() > MAX_SMALL || align_of::<T>() > MAX_SMALL_ALIGN {
        return None;
    }
    size_class::class_of(size_of::<T>(), align_of::<T>())
}

const fn plain_slot<T>() -> usize {
    match plain_class::<T>() {
        Some(class) => class.size(),
        None => 0,
    }
}

/// Ends the process, because there is no value to return.
#[cold]
#[inline(never)]
pub(crate) fn out_of_memory<T>(error: &AllocError<T>) -> ! {
    fatal_args(format_args!("{error}"))
}
