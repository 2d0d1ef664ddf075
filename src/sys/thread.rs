//! This crate's threads, and the number of processors.
//!
//! **Claim.** No thread waits for ever for a thread of this crate that has panicked, and the stacks
//! of these threads are as large as the main thread's.
//!
//! **How.** A panic on such a thread ends the process. User code on it runs inside a guard
//! (`sys/quiet.rs`), so the panic is one of this crate. [`stack_size`] says why the stacks are that
//! large. If the system has no room for such a stack, the thread gets a small one.

#[cfg(feature = "sched")]
mod sleep;

use std::io;
#[cfg(not(shuttle))]
use std::sync::Arc;
use std::sync::OnceLock;

#[cfg(shuttle)]
pub(crate) use shuttle::{thread::JoinHandle, thread_local};
#[cfg(not(shuttle))]
pub(crate) use std::{thread::JoinHandle, thread_local};

#[cfg(feature = "sched")]
pub(crate) use sleep::{os_id, others_sleep_for_ever, set_waits_for_work, they_sleep_for_ever};

use crate::sys::clock::Moment;
#[cfg(not(shuttle))]
use crate::sys::fatal::fatal;
#[cfg(not(shuttle))]
use crate::sys::inject::{OsCall, is_refused};
#[cfg(not(shuttle))]
use crate::sys::lock::Unranked;

/// Ends the process if a panic drops it.
#[cfg(not(shuttle))]
struct NoPanic;

#[cfg(not(shuttle))]
impl Drop for NoPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            fatal(
                "a thread of greywave's panicked (its message is above): a bug in greywave, or in an `unsafe impl`",
            );
        }
    }
}

/// The smallest stack of a thread of this crate where there is room for it, in bytes. It is what
/// Linux and macOS give the main thread.
#[cfg(not(shuttle))]
const MAIN_STACK: usize = 8 << 20;
/// The room for the frames that lie below user code on this crate's threads and not on the main
/// thread, in bytes.
#[cfg(not(shuttle))]
const STACK_MARGIN: usize = 1 << 20;
/// The size of a stack where address space is short, in bytes. It is what Rust gives a thread.
#[cfg(not(shuttle))]
const SMALL_STACK: usize = 2 << 20;

/// Returns the stack size of this crate's threads, in bytes.
///
/// These threads run the destructors and traces of users' objects, and those of a list of boxes
/// recurse. A user built such a list on a thread of the program, most often the main thread, and
/// what that thread can drop this crate must be able to drop. So the size is that of the main
/// thread (`RLIMIT_STACK`), or `RUST_MIN_STACK` if that is more. It is address space, of which only
/// the touched part becomes memory.
#[cfg(not(shuttle))]
fn stack_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let asked = std::env::var("RUST_MIN_STACK");
        let asked = asked.ok().and_then(|size| size.parse().ok()).unwrap_or(0);
        let main = main_stack().unwrap_or(MAIN_STACK);
        main.max(MAIN_STACK).max(asked).saturating_add(STACK_MARGIN)
    })
}

/// Returns the limit of the main thread's stack in bytes, if there is one.
#[cfg(all(unix, not(any(shuttle, miri))))]
fn main_stack() -> Option<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the answer.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) };
    let is_known = failed == 0 && limit.rlim_cur != libc::RLIM_INFINITY;
    is_known.then(|| usize::try_from(limit.rlim_cur).unwrap_or(MAIN_STACK))
}

#[cfg(all(any(not(unix), miri), not(shuttle)))]
fn main_stack() -> Option<usize> {
    None
}

/// Whether the address is in the used part of this thread's stack; `false` if the system does not
/// tell. Another thread reaches what is there only if it was given a pointer.
pub(crate) fn is_on_this_stack(address: usize) -> bool {
    // Stacks grow down on every system that tells where they are.
    let here = 0_u8;
    stack_end().is_some_and(|end| ((&raw const here).addr()..end).contains(&address))
}

/// Returns the highest address of this thread's stack, from which it grows down.
#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(any(loom, shuttle, miri))
))]
fn stack_end() -> Option<usize> {
    std::thread_local! {
        // For the main thread the system reads a file to answer, so the answer is kept.
        static END: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
    }
    fn ask() -> Option<usize> {
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: the call has no preconditions.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: this thread is alive, and there is room for the answer.
        let failed = unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) };
        if failed != 0 {
            return None;
        }
        let (mut lowest, mut size) = (std::ptr::null_mut(), 0);
        // SAFETY: the call above has initialised the attributes, and there is room for the answers.
        let failed = unsafe {
            libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size)
        };
        // SAFETY: the attributes are initialised, and not used again.
        unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
        (failed == 0).then(|| lowest.addr() + size)
    }
    END.get().or_else(|| {
        let end = ask();
        END.set(end);
        end
    })
}

/// Returns the highest address of this thread's stack, from which it grows down.
#[cfg(all(target_vendor = "apple", not(any(loom, shuttle, miri))))]
fn stack_end() -> Option<usize> {
    // SAFETY: the call has no preconditions.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: this thread is alive.
    let end = unsafe { libc::pthread_get_stackaddr_np(this) };
    Some(end.addr())
}

#[cfg(any(
    not(any(target_os = "linux", target_os = "android", target_vendor = "apple")),
    loom,
    shuttle,
    miri
))]
fn stack_end() -> Option<usize> {
    None
}

/// Starts a named thread. A panic on it ends the process, because whoever waits for its work would
/// wait for ever.
///
/// # Errors
/// The OS refuses.
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
    // The body is in a place from which both attempts can take it.
    let body = Arc::new(Unranked::new(Some(body)));
    let start = |stack: usize| {
        let body = body.clone();
        let builder = std::thread::Builder::new().name(name.clone());
        builder.stack_size(stack).spawn(move || {
            let _no_panic = NoPanic;
            #[cfg(feature = "sched")]
            let _ours = sleep::Ours::enter();
            let body = body.lock().take();
            if let Some(body) = body {
                body();
            }
        })
    };
    start(stack_size()).or_else(|_| start(SMALL_STACK))
}

/// Does the same in a model, which a panic ends.
#[cfg(shuttle)]
pub(crate) fn spawn(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    shuttle::thread::Builder::new().name(name).spawn(body)
}

/// Whether the thread has ended; false if the checker does not tell.
pub(crate) fn is_finished(thread: &JoinHandle<()>) -> bool {
    #[cfg(not(shuttle))]
    return thread.is_finished();
    #[cfg(shuttle)]
    {
        let _ = thread;
        false
    }
}

/// Sleeps for `time`. In a model it lets other threads run instead.
pub(crate) fn sleep(time: std::time::Duration) {
    #[cfg(not(shuttle))]
    std::thread::sleep(time);
    #[cfg(shuttle)]
    {
        let _ = time;
        shuttle::thread::yield_now();
    }
}

/// Returns the processor time of this thread so far, in nanoseconds; the wall time if the OS does
/// not tell.
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

/// Returns the number of processors that this process may use, at least 1.
pub(crate) fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}
