//! Refusals of the operating system and jumps of its clock, which tests ask for.
//!
//! Without the feature `internals` nothing is refused, the clock is the system's, and the functions
//! below are constants.

#[cfg(feature = "internals")]
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

/// The calls of the operating system that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "internals"),
    allow(
        unreachable_pub,
        reason = "`internals` gives it out, with the feature of that name"
    )
)]
pub enum OsCall {
    /// Mapping address space, for a reservation or a table.
    Map,
    /// Giving memory back.
    Release,
    /// Starting a thread.
    Thread,
    /// Making reserved address space usable.
    Commit,
}

/// How many calls still succeed, and how many fail after them.
#[cfg(feature = "internals")]
#[derive(Debug)]
struct Refusals {
    granted: AtomicU32,
    refused: AtomicU32,
}

#[cfg(feature = "internals")]
static REFUSALS: [Refusals; 4] = [const {
    Refusals {
        granted: AtomicU32::new(0),
        refused: AtomicU32::new(0),
    }
}; 4];

/// By how many nanoseconds the clock is ahead of the system's.
#[cfg(feature = "internals")]
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Lets the next `granted` calls of this kind succeed, and the `refused` calls after them fail, in
/// the whole process.
#[cfg(feature = "internals")]
pub fn refuse(call: OsCall, granted: u32, refused: u32) {
    let refusals = &REFUSALS[call as usize];
    // Relaxed (both): a test sets them before the code under test begins.
    refusals.granted.store(granted, Ordering::Relaxed);
    refusals.refused.store(refused, Ordering::Relaxed);
}

/// Sets the clock to the system's time plus `nanos` nanoseconds.
#[cfg(feature = "internals")]
pub fn set_clock_ahead(nanos: i64) {
    // Relaxed: it is only a time.
    AHEAD.store(nanos, Ordering::Relaxed);
}

/// Whether this call is refused.
pub(crate) fn is_refused(call: OsCall) -> bool {
    #[cfg(feature = "internals")]
    {
        let refusals = &REFUSALS[call as usize];
        let take = |left: &AtomicU32| {
            // Relaxed (both): they are only counts.
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
        };
        // Relaxed: usually nothing is refused, and then nothing is counted.
        refusals.refused.load(Ordering::Relaxed) > 0
            && !take(&refusals.granted)
            && take(&refusals.refused)
    }
    #[cfg(not(feature = "internals"))]
    {
        let _ = call;
        false
    }
}

/// By how many nanoseconds the clock is ahead.
#[inline]
pub(crate) fn clock_ahead() -> i64 {
    #[cfg(feature = "internals")]
    {
        // Relaxed: it is only a time.
        AHEAD.load(Ordering::Relaxed)
    }
    #[cfg(not(feature = "internals"))]
    {
        0
    }
}
