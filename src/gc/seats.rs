//! Seats: the places of background workers, for a scheduler's processors (Ps) to take.
//!
//! Where Gs run, marking takes turns with them on the same threads instead of competing for the processor: a P that comes by
//! takes a seat, marks, and gives it back (Go runtime, `findRunnableGCWorker` of `mgcpacer.go`). A dedicated one is kept
//! while there is work; on the one for slices a P marks one quantum between two Gs, until the slices have had their share.
//! The collector's own threads mark in the background only where no P has done so for a while: each may be with a G that
//! does not let go.
//!
//! A seat belongs to a cycle: only a member of the pool takes one, and it gives it back before it leaves, which the types
//! hold ([`Seat`] borrows [`Joined`]). The pool closes when nobody is a member, and seats are opened after it and closed
//! after it: so none is lost, none is given back to another cycle, and all are back when marking ends.

#![cfg_attr(
    not(feature = "sched"),
    allow(
        dead_code,
        unused_imports,
        reason = "without a scheduler nobody takes a seat"
    )
)]

use crate::gc::collector::Collector;
use crate::gc::mark::Marker;
use crate::gc::work::Joined;
use crate::gc::worker::Turn;
use crate::pace::workers::Workers;
use crate::sys::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sys::thread;

/// Ps that have not marked for so long are busy with other things, in nanoseconds.
const GRACE_NS: u64 = 1_000_000;
/// The seat for slices, beside the number of dedicated ones.
const SLICES: u32 = 1 << 16;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Seats {
    /// Free ones while marking runs: dedicated ones, plus [`SLICES`].
    free: AtomicU32,
    /// When a P last marked, in nanoseconds since marking began.
    last_ns: AtomicU64,
    /// How many there are in this cycle, as in `free`.
    opened: AtomicU32,
    /// Runtimes whose Ps take seats.
    hosts: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Dedicated,
    Slices,
}

/// One place, of a member of the pool; it is free again when this is dropped.
#[must_use = "it is given back at once otherwise"]
#[derive(Debug)]
struct Seat<'j> {
    seats: &'j Seats,
    place: Place,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let one = match self.place {
            Place::Dedicated => 1,
            Place::Slices => SLICES,
        };
        // Relaxed: a count of places; nothing is handed over with it.
        self.seats.free.fetch_add(one, Ordering::Relaxed);
    }
}

/// The place to take when `free` are, and what is free then.
fn choose(free: u32, slices_are_due: bool) -> Option<(u32, Place)> {
    if !free.is_multiple_of(SLICES) {
        Some((free - 1, Place::Dedicated))
    } else {
        (free >= SLICES && slices_are_due).then(|| (free - SLICES, Place::Slices))
    }
}

impl Seats {
    pub(crate) fn new() -> Self {
        Self {
            free: AtomicU32::new(0),
            last_ns: AtomicU64::new(0),
            opened: AtomicU32::new(0),
            hosts: AtomicUsize::new(0),
        }
    }

    pub(crate) fn add_host(&self) {
        // Relaxed: a hint for the next cycle.
        self.hosts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove_host(&self) {
        // Relaxed: as above; what is free is left to the threads.
        self.hosts.fetch_sub(1, Ordering::Relaxed);
    }

    /// Marking begins.
    pub(crate) fn open(&self, workers: Workers) {
        // Relaxed (all): hints; who takes a seat joins the pool, and that decides.
        self.last_ns.store(0, Ordering::Relaxed);
        if self.hosts.load(Ordering::Relaxed) > 0 {
            let slices = if workers.fractional > 0.0 { SLICES } else { 0 };
            let free = workers.dedicated.min(SLICES - 1) + slices;
            self.opened.store(free, Ordering::Relaxed);
            self.free.store(free, Ordering::Relaxed);
        }
    }

    /// Marking is over: the pool is closed.
    pub(crate) fn close(&self) {
        // Relaxed: only the collector's thread opens and closes.
        let opened = self.opened.swap(0, Ordering::Relaxed);
        // Relaxed: each member has given its seat back before it left the pool, whose lock orders that with this.
        let free = self.free.swap(0, Ordering::Relaxed);
        debug_assert_eq!(free, opened, "a seat was lost, or given back twice");
    }

    /// Whether background marking is for Ps to do, `elapsed_ns` after marking began.
    pub(crate) fn are_for_hosts(&self, elapsed_ns: u64) -> bool {
        // Relaxed (both): hints.
        self.hosts.load(Ordering::Relaxed) > 0
            && elapsed_ns < self.last_ns.load(Ordering::Relaxed) + GRACE_NS
    }

    /// Whether one is free. One load.
    #[inline]
    pub(crate) fn is_any_free(&self) -> bool {
        // Relaxed: a hint.
        self.free.load(Ordering::Relaxed) != 0
    }

    /// Whether there is one to take.
    fn can_take(&self, slices_are_due: bool) -> bool {
        // Relaxed: a hint.
        choose(self.free.load(Ordering::Relaxed), slices_are_due).is_some()
    }

    /// Takes one, for a member of the pool.
    fn take<'j>(&'j self, _: &'j Joined<'_>, slices_are_due: bool) -> Option<Seat<'j>> {
        // Relaxed (both): a count of places; nothing is handed over with it.
        let mut free = self.free.load(Ordering::Relaxed);
        loop {
            let (left, place) = choose(free, slices_are_due)?;
            match self
                .free
                .compare_exchange_weak(free, left, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Some(Seat { seats: self, place }),
                Err(now) => free = now,
            }
        }
    }
}

impl Collector {
    /// Takes a seat if one is free and there is something to mark, and marks: one quantum, or on a dedicated seat while
    /// `goes_on` and there is work. `is_leaving` is called before a dedicated one. Says whether anything was marked.
    #[cfg(feature = "sched")]
    pub(crate) fn mark_in_a_seat(
        &self,
        marker: &mut Marker,
        is_leaving: impl FnOnce(),
        goes_on: impl Fn() -> bool,
    ) -> bool {
        if !self.pool.seems_to_have_work() && !self.root_jobs.are_left() {
            return false;
        }
        let slices_are_due = self.slice_is_due();
        if !self.seats.can_take(slices_are_due) {
            return false;
        }
        let Some(joined) = self.pool.join() else {
            return false;
        };
        let Some(seat) = self.seats.take(&joined, slices_are_due) else {
            return false;
        };
        if seat.place == Place::Dedicated {
            is_leaving();
        }
        let env = self.marks(&joined);
        let index = match seat.place {
            Place::Dedicated => usize::MAX,
            Place::Slices => self.pacing.workers.dedicated as usize,
        };
        let mut since = thread::cpu_time_ns();
        loop {
            let more = self.work_a_quantum(marker, env);
            self.account(index, Turn::Background, &mut since, marker);
            let now = self.pacing.mark_elapsed_ns();
            // Relaxed: a hint.
            self.seats.last_ns.store(now, Ordering::Relaxed);
            if seat.place == Place::Slices || !more || !goes_on() {
                break;
            }
        }
        marker.give_all(&self.heap, &self.pool);
        self.account(index, Turn::Background, &mut since, marker);
        drop(seat);
        drop(joined);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::gc::stopped::Stopped;
    use crate::gc::work::WorkPool;

    /// A pool in which marking runs.
    fn open_pool() -> WorkPool {
        let pool = WorkPool::new();
        pool.begin(1, &Stopped::in_a_test());
        pool.open();
        pool
    }

    #[test]
    fn seats_are_taken_once_and_come_back() {
        let seats = Seats::new();
        let workers = Workers {
            dedicated: 2,
            fractional: 0.05,
        };
        seats.open(workers);
        assert!(!seats.is_any_free(), "nobody would take them");
        seats.add_host();
        seats.open(workers);
        let pool = open_pool();
        let joined = pool.join().expect("it is open");
        let take = |due| seats.take(&joined, due);
        let places = [take(false), take(true), take(false), take(true), take(true)];
        let names = places.each_ref().map(|s| s.as_ref().map(|s| s.place));
        let (dedicated, slices) = (Some(Place::Dedicated), Some(Place::Slices));
        assert_eq!(names, [dedicated, dedicated, None, slices, None]);
        assert!(!seats.is_any_free() && !seats.can_take(true));
        drop(places);
        assert_eq!(take(true).map(|s| s.place), dedicated);
        seats.close();
        assert!(take(true).is_none());
    }

    #[test]
    fn threads_wait_for_hosts_and_step_in() {
        let seats = Seats::new();
        seats.open(Workers::split(2));
        assert!(!seats.are_for_hosts(0), "there is none");
        seats.add_host();
        seats.open(Workers::split(2));
        assert!(seats.are_for_hosts(GRACE_NS - 1));
        assert!(!seats.are_for_hosts(GRACE_NS));
        seats.remove_host();
        assert!(!seats.are_for_hosts(0));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;
    use crate::gc::stopped::Stopped;
    use crate::gc::work::WorkPool;
    use crate::sys::model::explore;
    use crate::sys::sync::yield_now;

    /// When a P takes its seat.
    #[derive(Clone, Copy, PartialEq)]
    enum Takes {
        AsAMember,
        /// Before it has joined, and whether it joins or not.
        BeforeItJoins,
    }

    struct Scene {
        pool: WorkPool,
        seats: Seats,
    }

    impl Scene {
        /// `Collector::mark_in_a_seat`, of a P that may come at any time.
        fn mark_in_a_seat(&self, takes: Takes) {
            if !self.seats.can_take(true) {
                return;
            }
            if takes == Takes::BeforeItJoins {
                // Relaxed: as in `take`.
                self.seats.free.fetch_sub(SLICES, Ordering::Relaxed);
                let joined = self.pool.join();
                if joined.is_some() {
                    // Relaxed: as in the drop of a seat.
                    self.seats.free.fetch_add(SLICES, Ordering::Relaxed);
                }
                return;
            }
            let Some(joined) = self.pool.join() else {
                return;
            };
            let seat = self.seats.take(&joined, true);
            drop(seat);
        }

        fn run_cycle(&self, cycle: u32) {
            let workers = Workers {
                dedicated: 0,
                fractional: 0.25,
            };
            self.pool.begin(cycle, &Stopped::in_a_test());
            self.pool.open();
            self.seats.open(workers);
            while !self.pool.close_if_quiet(|| true) {
                yield_now();
            }
            self.seats.close();
        }
    }

    fn seats_over_two_cycles(takes: Takes) {
        explore(3, move |order| {
            let scene = Arc::new(Scene {
                pool: WorkPool::new(),
                seats: Seats::new(),
            });
            scene.seats.add_host();
            let (here, there) = (scene.clone(), scene);
            order.race(
                move || {
                    here.mark_in_a_seat(takes);
                    here.mark_in_a_seat(takes);
                },
                move || {
                    there.run_cycle(1);
                    there.run_cycle(2);
                },
            );
        });
    }

    #[test]
    fn loom_seats_come_back_before_marking_ends() {
        seats_over_two_cycles(Takes::AsAMember);
    }

    #[test]
    #[should_panic(expected = "a seat was lost")]
    fn loom_seat_that_is_taken_before_joining_fails() {
        seats_over_two_cycles(Takes::BeforeItJoins);
    }
}
