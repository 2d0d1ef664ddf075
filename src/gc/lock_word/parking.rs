//! How a thread waits for a lock: when a wait is told, and where threads of a model park.

use std::time::Duration;
#[cfg(not(any(loom, shuttle)))]
use std::time::Instant;

use crate::gc::notice::FIRST;

/// After this time a wait is told, then after twice that time, and so on.
const LATE: Duration = FIRST;

/// When a wait is told the next time.
#[cfg(not(any(loom, shuttle)))]
pub(super) struct LateClock {
    since: Instant,
    after: Duration,
    pub(super) next: Instant,
}

#[cfg(not(any(loom, shuttle)))]
impl LateClock {
    pub(super) fn start() -> Self {
        let since = Instant::now();
        Self {
            since,
            after: LATE,
            next: since + LATE,
        }
    }

    /// The time waited, if it is time to tell it.
    pub(super) fn late(&mut self) -> Option<Duration> {
        if Instant::now() < self.next {
            return None;
        }
        let told = self.after;
        self.after *= 2;
        self.next = self.since + self.after;
        Some(told)
    }
}

/// In a model nothing is late.
#[cfg(any(loom, shuttle))]
pub(super) struct LateClock;

#[cfg(any(loom, shuttle))]
impl LateClock {
    pub(super) fn start() -> Self {
        Self
    }

    pub(super) fn late(&mut self) -> Option<Duration> {
        let _ = LATE;
        None
    }
}

/// The parking lot of a model: one queue for everybody.
#[cfg(any(loom, shuttle))]
pub(super) mod modelled_lot {
    use std::time::Duration;

    use crate::sys::checker;
    use crate::sys::lock::{Condvar, Unranked};

    checker::lazy_static! {
        static ref LOT: (Unranked<()>, Condvar) = (Unranked::new(()), Condvar::new());
    }

    /// `parking_lot_core::park`.
    pub(in crate::gc::lock_word) fn park(validate: impl FnOnce() -> bool) {
        let mut queue = LOT.0.lock();
        if validate() {
            LOT.1.wait_for(&mut queue, Duration::ZERO);
        }
    }

    /// `parking_lot_core::unpark_all`.
    pub(in crate::gc::lock_word) fn unpark_all() {
        let _queue = LOT.0.lock();
        LOT.1.notify_all();
    }
}
