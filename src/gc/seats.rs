//! Seats: the places of background workers, for a scheduler's processors (Ps) to take.
//!
//! Where Gs run, marking takes turns with them on the same threads instead of competing for the processor: a P that comes by
//! takes a seat, marks, and gives it back (Go runtime, `findRunnableGCWorker` of `mgcpacer.go`). A dedicated one is kept
//! while there is work; on the one for slices a P marks one quantum between two Gs, until the slices have had their share.
//! The collector's own threads mark in the background only where no P has done so for a while: each may be with a G that
//! does not let go.
//!
//! A seat is given back before its holder leaves the pool, so all are back when marking ends.

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
    /// Runtimes whose Ps take seats.
    hosts: AtomicUsize,
}

/// One place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seat {
    Dedicated,
    Slices,
}

impl Seats {
    pub(crate) fn new() -> Self {
        Self {
            free: AtomicU32::new(0),
            last_ns: AtomicU64::new(0),
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
            self.free.store(free, Ordering::Relaxed);
        }
    }

    /// Marking is over.
    pub(crate) fn close(&self) {
        // Relaxed: a hint.
        self.free.store(0, Ordering::Relaxed);
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

    fn take(&self, slices_are_due: bool) -> Option<Seat> {
        let choose = |free: u32| {
            if !free.is_multiple_of(SLICES) {
                Some((free - 1, Seat::Dedicated))
            } else {
                (free >= SLICES && slices_are_due).then(|| (free - SLICES, Seat::Slices))
            }
        };
        // Relaxed (both): a count of places; nothing is handed over with it.
        let mut free = self.free.load(Ordering::Relaxed);
        loop {
            let (left, seat) = choose(free)?;
            match self
                .free
                .compare_exchange_weak(free, left, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Some(seat),
                Err(now) => free = now,
            }
        }
    }

    fn give(&self, seat: Seat) {
        let one = match seat {
            Seat::Dedicated => 1,
            Seat::Slices => SLICES,
        };
        // Relaxed: as above.
        self.free.fetch_add(one, Ordering::Relaxed);
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
        if !self.pool.seems_to_have_work() && !self.has_root_jobs() {
            return false;
        }
        let Some(seat) = self.seats.take(self.slice_is_due()) else {
            return false;
        };
        if !self.pool.join() {
            // Marking has ended, and closed the seats before or closes them after this: a seat too many is taken away.
            return false;
        }
        if seat == Seat::Dedicated {
            is_leaving();
        }
        let env = self.mark_env(self.cycle_number());
        let index = match seat {
            Seat::Dedicated => usize::MAX,
            Seat::Slices => self.pacing.workers.dedicated as usize,
        };
        let mut since = thread::cpu_time_ns();
        loop {
            let more = self.work_a_quantum(marker, env);
            self.account(index, Turn::Background, &mut since, marker);
            let now = self.pacing.mark_elapsed_ns();
            // Relaxed: a hint.
            self.seats.last_ns.store(now, Ordering::Relaxed);
            if seat == Seat::Slices || !more || !goes_on() {
                break;
            }
        }
        marker.give_all(env);
        self.account(index, Turn::Background, &mut since, marker);
        self.seats.give(seat);
        self.pool.leave();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(seats.take(false), Some(Seat::Dedicated));
        assert_eq!(seats.take(true), Some(Seat::Dedicated));
        assert_eq!(seats.take(false), None);
        assert_eq!(seats.take(true), Some(Seat::Slices));
        assert_eq!(seats.take(true), None);
        assert!(!seats.is_any_free());
        seats.give(Seat::Slices);
        seats.give(Seat::Dedicated);
        assert_eq!(seats.take(true), Some(Seat::Dedicated));
        seats.close();
        assert_eq!(seats.take(true), None);
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
