//! The clocks of the tests, in one place.
//!
//! **No test judges by wall time.** How long something takes depends on what else the machine does.
//! A test counts, compares with a control in the same run, or uses the processor clock of a thread.
//! All code that looks at the wall clock is here, and is one of these:
//!
//! - A watchdog ([`within`], [`until`], [`Watch`]) ends a test that hangs, with a message. It waits
//!   for at least [`PATIENCE`], which is thousands of times what anything here takes. It is no
//!   judgement: a late result is right.
//! - A stretch ([`Stretch`]) says how long a random test goes on, and so how much it tries. Its end
//!   proves nothing.
//! - A lower bound ([`Stopwatch`]): a sleep is not shorter than requested, however busy the machine
//!   is.
//!
//! `tests/no_wall_time.rs` checks the rule.

#![allow(
    dead_code,
    reason = "each test program brings its own copy and uses a part of it"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a watchdog waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Ends a wait that hangs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch(Instant);

impl Watch {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Panics if the wait for `what` hangs.
    pub(crate) fn check(self, what: &str) {
        assert!(!self.is_hopeless(), "{what} has not come: the test hangs");
    }

    /// As [`check`](Self::check), where a panic is not allowed.
    pub(crate) fn check_or_abort(self, what: &str) {
        if self.is_hopeless() {
            eprintln!("{what} has not come: the test hangs");
            std::process::abort();
        }
    }

    /// Whether it hangs.
    pub(crate) fn is_hopeless(self) -> bool {
        self.0.elapsed() > PATIENCE
    }
}

/// Waits, as a thread, until `done`.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let watch = Watch::begin();
    while !done() {
        watch.check(what);
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Runs `body`; a process that hangs is ended with a message, so that a deadlock is a failure and
/// not a silence. `limit` counts where it is longer than [`PATIENCE`].
pub(crate) fn within<R>(limit: Duration, body: impl FnOnce() -> R) -> R {
    let limit = limit.max(PATIENCE);
    let done = Arc::new(AtomicBool::new(false));
    let watch = {
        let done = done.clone();
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        std::thread::spawn(move || {
            let end = Instant::now() + limit;
            while !done.load(Ordering::Relaxed) {
                if Instant::now() >= end {
                    eprintln!("{name} is not done after {limit:?}: it hangs");
                    std::process::abort();
                }
                std::thread::park_timeout(Duration::from_millis(200));
            }
        })
    };
    struct Done(Arc<AtomicBool>, std::thread::Thread);
    impl Drop for Done {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
            self.1.unpark();
        }
    }
    let _done = Done(done, watch.thread().clone());
    body()
}

/// How long a random test goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch(Instant);

impl Stretch {
    pub(crate) fn of(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    pub(crate) fn is_over(self) -> bool {
        Instant::now() >= self.0
    }
}

/// For lower bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Whether so much time has gone by.
    pub(crate) fn has_run(self, time: Duration) -> bool {
        self.0.elapsed() >= time
    }
}

/// The processor time of this thread.
#[cfg(unix)]
pub(crate) fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes to `time`.
    let known = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(known, 0, "a thread has a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
