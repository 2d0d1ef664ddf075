//! Threads of our own, the number of processors, and the true end of a thread.

use std::io;
use std::sync::OnceLock;

use crate::sys::clock::Moment;
use crate::sys::fatal::fatal;

/// Ends the process when it is dropped by a panic.
struct NoPanic;

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
pub(crate) fn spawn(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(move || {
        let _no_panic = NoPanic;
        body();
    })
}

/// The processor time of this thread so far, in nanoseconds; wall time where the OS does not tell.
pub(crate) fn cpu_time_ns() -> u64 {
    #[cfg(all(any(target_os = "linux", target_os = "macos"), not(any(miri, loom))))]
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
    START.get_or_init(Moment::now).elapsed_ns()
}

/// The number of processors this process may use; at least 1.
pub(crate) fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// A callback at the very end of a thread, after every Rust thread-local destructor has run.
///
/// A thread-local destructor is not late enough: another one may run after it and still read the heap through a
/// `Gc<'static, _>` (which a leaked `Mutator` gives). A pthread key's destructor runs after all of them, because glibc
/// and macOS run the destructors of `thread_local!` values first.
#[derive(Debug)]
pub(crate) struct ExitKey(#[cfg(unix)] libc::pthread_key_t);

impl ExitKey {
    /// A key that calls `callback(value)` for each thread that exits with a non-null value set.
    #[cfg(unix)]
    pub(crate) fn new(callback: extern "C" fn(*mut libc::c_void)) -> Option<Self> {
        let mut key = 0;
        let destructor = callback as unsafe extern "C" fn(*mut libc::c_void);
        // SAFETY: `key` is a valid place for the key, and the callback is a plain function that lives for ever.
        let failed = unsafe { libc::pthread_key_create(&raw mut key, Some(destructor)) };
        (failed == 0).then_some(Self(key))
    }

    /// Sets this thread's value; null means that nothing is called. False when the OS refuses.
    #[cfg(unix)]
    pub(crate) fn set(&self, value: *mut libc::c_void) -> bool {
        // SAFETY: the key came from pthread_key_create and is never deleted.
        unsafe { libc::pthread_setspecific(self.0, value) == 0 }
    }
}

/// Whether every thread of the process waits for a lock or a condition, this crate's own threads left out; false where
/// the OS does not tell.
pub(crate) fn others_wait_for_locks() -> bool {
    #[cfg(target_os = "linux")]
    {
        let waits = |task: std::fs::DirEntry| {
            let at = task.path();
            let name = std::fs::read_to_string(at.join("comm")).ok()?;
            if name.starts_with("greywave") {
                return Some(true);
            }
            // The number of the call that it sleeps in comes first (proc(5)).
            let call = std::fs::read_to_string(at.join("syscall")).ok()?;
            let number: libc::c_long = call.split_whitespace().next()?.parse().ok()?;
            Some(number == libc::SYS_futex)
        };
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
            return false;
        };
        tasks.into_iter().all(|task| {
            // A thread that is gone by now waits for nothing.
            task.ok()
                .is_some_and(|task| !task.path().exists() || waits(task) == Some(true))
        })
    }
    #[cfg(not(target_os = "linux"))]
    false
}
