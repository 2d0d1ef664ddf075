//! Monotonic time.

use std::time::{Duration, Instant};

use crate::sys::inject::clock_ahead;

/// A moment that is exact to a few milliseconds, and takes a few nanoseconds to read.
#[cfg(feature = "sched")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoarseMoment(u64);

#[cfg(feature = "sched")]
impl CoarseMoment {
    pub(crate) fn now() -> Self {
        Self(coarse_ms())
    }

    /// Milliseconds from this moment to now; they start again from 0 after 49 days.
    pub(crate) fn elapsed_ms(self) -> u32 {
        coarse_ms().wrapping_sub(self.0) as u32
    }
}

#[cfg(all(feature = "sched", target_os = "linux", not(any(miri, loom, shuttle))))]
fn coarse_ms() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer. A kernel without this clock leaves it at 0.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    (time.tv_sec as u64)
        .wrapping_mul(1000)
        .wrapping_add(time.tv_nsec as u64 / 1_000_000)
}

#[cfg(all(
    feature = "sched",
    not(all(target_os = "linux", not(any(miri, loom, shuttle))))
))]
fn coarse_ms() -> u64 {
    static FIRST: std::sync::OnceLock<Moment> = std::sync::OnceLock::new();
    FIRST.get_or_init(Moment::first).elapsed_ns() / 1_000_000
}

#[cfg(not(shuttle))]
fn read() -> Instant {
    Instant::now()
}

/// The time of a model: each step takes a microsecond, so that a schedule is the same in each run.
#[cfg(shuttle)]
fn read() -> Instant {
    let steps = shuttle::current::context_switches();
    beginning() + Duration::from_micros(steps as u64)
}

/// The moment at which every model begins.
#[cfg(shuttle)]
fn beginning() -> Instant {
    static BEGINNING: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *BEGINNING.get_or_init(Instant::now)
}

/// Returns the current time.
#[inline]
pub(crate) fn now() -> Instant {
    let now = read();
    match clock_ahead() {
        0 => now,
        ahead => {
            let by = Duration::from_nanos(ahead.unsigned_abs());
            let jumped = if ahead > 0 {
                now.checked_add(by)
            } else {
                now.checked_sub(by)
            };
            jumped.unwrap_or(now)
        }
    }
}

/// A moment. Differences are in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(Instant);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(now())
    }

    /// Returns a moment before every other: now, or in a model its beginning.
    pub(crate) fn first() -> Self {
        #[cfg(not(shuttle))]
        return Self::now();
        #[cfg(shuttle)]
        Self(beginning())
    }

    /// Nanoseconds from this moment to now.
    pub(crate) fn elapsed_ns(self) -> u64 {
        let nanos = now().saturating_duration_since(self.0).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}
