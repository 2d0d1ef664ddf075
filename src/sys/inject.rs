//! Refusals of the operating system and jumps of its clock, which a test asks for to see what happens then.
//!
//! Without the feature `internals` nothing is refused and the clock is the system's: the questions below are constants.

#[cfg(feature = "internals")]
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

/// What the operating system can be made to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "internals"),
    allow(
        unreachable_pub,
        reason = "`internals` gives it out, with the feature of that name"
    )
)]
pub enum OsCall {
    /// Address space, for a reservation or a table.
    Map,
    /// Taking memory back.
    Release,
    /// A thread.
    Thread,
    /// The right to use address space that was reserved.
    Commit,
}

/// Calls that are still to be granted, and how many are refused after them.
#[cfg(feature = "internals")]
#[derive(Debug)]
struct Plan {
    granted: AtomicU32,
    refused: AtomicU32,
}

#[cfg(feature = "internals")]
static PLANS: [Plan; 4] = [const {
    Plan {
        granted: AtomicU32::new(0),
        refused: AtomicU32::new(0),
    }
}; 4];

/// Nanoseconds by which the clock is ahead of the system's.
#[cfg(feature = "internals")]
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// From now on `granted` calls of that kind are let through and the `refused` ones after them are not, in the whole process.
#[cfg(feature = "internals")]
pub fn refuse(call: OsCall, granted: u32, refused: u32) {
    let plan = &PLANS[call as usize];
    // Relaxed (both): a test sets them before what it tests begins.
    plan.granted.store(granted, Ordering::Relaxed);
    plan.refused.store(refused, Ordering::Relaxed);
}

/// Sets the clock to the system's and so many nanoseconds more, or less.
#[cfg(feature = "internals")]
pub fn set_clock_ahead(nanos: i64) {
    // Relaxed: a time.
    AHEAD.store(nanos, Ordering::Relaxed);
}

/// Whether this call is refused.
pub(crate) fn is_refused(call: OsCall) -> bool {
    #[cfg(feature = "internals")]
    {
        let plan = &PLANS[call as usize];
        let take = |left: &AtomicU32| {
            // Relaxed (both): counts.
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
        };
        // Relaxed: mostly nothing is refused, and then nothing is counted.
        plan.refused.load(Ordering::Relaxed) > 0 && !take(&plan.granted) && take(&plan.refused)
    }
    #[cfg(not(feature = "internals"))]
    {
        let _ = call;
        false
    }
}

/// Nanoseconds by which the clock is ahead.
#[inline]
pub(crate) fn clock_ahead() -> i64 {
    #[cfg(feature = "internals")]
    {
        // Relaxed: a time.
        AHEAD.load(Ordering::Relaxed)
    }
    #[cfg(not(feature = "internals"))]
    {
        0
    }
}
