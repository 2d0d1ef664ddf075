//! Threads of our own, and the number of processors.

use std::io;
use std::sync::OnceLock;

#[cfg(shuttle)]
pub(crate) use shuttle::{thread::JoinHandle, thread_local};
#[cfg(not(shuttle))]
pub(crate) use std::{thread::JoinHandle, thread_local};

use crate::sys::clock::Moment;
#[cfg(not(shuttle))]
use crate::sys::fatal::fatal;
#[cfg(not(shuttle))]
use crate::sys::inject::{OsCall, is_refused};

/// Ends the process when it is dropped by a panic.
#[cfg(not(shuttle))]
struct NoPanic;

#[cfg(not(shuttle))]
impl Drop for NoPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            fatal(
                "a collector's thread panicked (its message is above): a bug in greywave, or in an `unsafe impl`",
            );
        }
    }
}

/// Starts a named thread. A panic on it ends the process: whoever waits for its work would wait for ever.
///
/// # Errors
/// What the OS says when it refuses.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the facade the lint points to"
)]
#[cfg(not(shuttle))]
pub(crate) fn spawn(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    if is_refused(OsCall::Thread) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    std::thread::Builder::new().name(name).spawn(move || {
        let _no_panic = NoPanic;
        body();
    })
}

/// As in a normal build; but a panic ends the model.
#[cfg(shuttle)]
pub(crate) fn spawn(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    shuttle::thread::Builder::new().name(name).spawn(body)
}

/// Whether the thread has ended; false where nobody tells.
#[cfg(feature = "sched")]
pub(crate) fn is_finished(thread: &JoinHandle<()>) -> bool {
    #[cfg(not(shuttle))]
    return thread.is_finished();
    #[cfg(shuttle)]
    {
        let _ = thread;
        false
    }
}

/// Sleeps for `time`; in a model others run.
pub(crate) fn sleep(time: std::time::Duration) {
    #[cfg(not(shuttle))]
    std::thread::sleep(time);
    #[cfg(shuttle)]
    {
        let _ = time;
        shuttle::thread::yield_now();
    }
}

/// The processor time of this thread so far, in nanoseconds; wall time where the OS does not tell.
pub(crate) fn cpu_time_ns() -> u64 {
    #[cfg(all(
        any(target_os = "linux", target_os = "macos"),
        not(any(miri, loom, shuttle))
    ))]
    {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is a valid place for the answer.
        if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } == 0 {
            return (time.tv_sec as u64)
                .saturating_mul(1_000_000_000)
                .saturating_add(time.tv_nsec as u64);
        }
    }
    static START: OnceLock<Moment> = OnceLock::new();
    START.get_or_init(Moment::first).elapsed_ns()
}

/// The number of processors this process may use; at least 1.
pub(crate) fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Whether every other thread of the process sleeps on a lock or a condition, and none has run for `this_long`; false
/// where the OS does not tell. Waits that long.
#[cfg(feature = "sched")]
pub(crate) fn others_sleep_on_locks(this_long: std::time::Duration) -> bool {
    #[cfg(target_os = "linux")]
    {
        let Some(before) = sleepers() else {
            return false;
        };
        sleep(this_long);
        sleepers().is_some_and(|after| after == before)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = this_long;
        false
    }
}

/// The threads of the process, this one left out, and how much each has run; `None` if one is awake, or sleeps for
/// another reason than a lock.
#[cfg(all(feature = "sched", target_os = "linux"))]
fn sleepers() -> Option<Vec<(std::ffi::OsString, String)>> {
    // SAFETY: it has no arguments and does not fail.
    let me = unsafe { libc::gettid() }.to_string();
    let mut out = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let task = task.ok()?;
        if *task.file_name() == *me {
            continue;
        }
        // proc(5): the number of the call that it sleeps in comes first; what it has run, and how often.
        let call = std::fs::read_to_string(task.path().join("syscall")).ok()?;
        let number: libc::c_long = call.split_whitespace().next()?.parse().ok()?;
        if number != libc::SYS_futex {
            return None;
        }
        let run = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        out.push((task.file_name(), run));
    }
    out.sort();
    Some(out)
}
