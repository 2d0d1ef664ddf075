//! A thread as the operating system knows it: its number, how long it has run, and what it does
//! now.
//!
//! The answers serve reports only. After a thread has ended the system may give its number to
//! another, and `/proc` may be missing (on another system, in a sandbox); so every answer can be
//! "not known".

use std::time::Duration;

use crate::sys::quiet::contain;

std::thread_local! {
    /// The name that reports use for this thread.
    static NAME: String = {
        let thread = std::thread::current();
        let id = || format!("{:?}", thread.id());
        thread.name().map_or_else(id, str::to_owned)
    };
}

/// Returns the name of this thread, or its number if it has no name.
///
/// A thread may attach in its very last destructor, a pthread key's. `std` knows nothing of the
/// thread any more by then, and `thread::current` panics; so this function uses the system's name
/// for it.
pub(crate) fn name_of_this_thread() -> String {
    contain(|| NAME.try_with(String::clone).ok())
        .flatten()
        .or_else(|| OsThread::current().name())
        .unwrap_or_else(|| "a thread that ends".to_owned())
}

/// What a thread does at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It runs on a processor, or is ready to.
    Runs,
    /// It sleeps in the system call of this name.
    Sleeps(String),
    /// There is no such thread any more.
    Ended,
    /// The system does not tell.
    Unknown,
}

/// The number of a thread of this process; 0 on a system whose numbers this crate does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OsThread(u32);

impl OsThread {
    /// Returns this thread. The call is a system call.
    pub(crate) fn current() -> Self {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            // SAFETY: the call has no arguments and does not fail.
            let id = unsafe { libc::gettid() };
            Self(id.cast_unsigned())
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        Self(0)
    }

    /// Returns the number in a form for an atomic; 0 stands for no thread.
    pub(crate) fn to_raw(self) -> u32 {
        self.0
    }

    /// Does the reverse of [`to_raw`](Self::to_raw).
    pub(crate) fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// Returns the number that tools show.
    pub(crate) fn number(self) -> Option<u64> {
        (self.0 != 0).then_some(u64::from(self.0))
    }

    /// Returns the thread's name, of which the system keeps 15 bytes.
    pub(crate) fn name(self) -> Option<String> {
        let id = self.number()?;
        let name = std::fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?;
        Some(name.trim_end().to_owned())
    }

    /// Returns the processor time that the thread has used so far.
    pub(crate) fn cpu_time(self) -> Option<Duration> {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            let id = i32::try_from(self.0).ok().filter(|&id| id != 0)?;
            // The clock of one thread, as glibc's `pthread_getcpuclockid` makes it: two flags below
            // the inverted number.
            const CPUCLOCK_SCHED: i32 = 2;
            const CPUCLOCK_PERTHREAD_MASK: i32 = 4;
            let clock: libc::clockid_t = (!id << 3) | CPUCLOCK_SCHED | CPUCLOCK_PERTHREAD_MASK;
            let mut time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: `time` is a valid place for the answer. The call fails for a number that is
            // no thread's.
            let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
            if failed != 0 {
                return None;
            }
            let seconds = u64::try_from(time.tv_sec).ok()?;
            Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        None
    }

    /// Returns whether the thread has ended; `None` if the system does not tell. Another thread
    /// that got the same number counts as this one.
    pub(crate) fn has_ended(self) -> Option<bool> {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            let id = i32::try_from(self.0).ok().filter(|&id| id != 0)?;
            // SAFETY: the call has no arguments and does not fail.
            let process = unsafe { libc::getpid() };
            // SAFETY: signal 0 reaches nobody; the call only says whether the thread exists.
            let answer = unsafe { libc::syscall(libc::SYS_tgkill, process, id, 0) };
            let error = std::io::Error::last_os_error().raw_os_error();
            match (answer, error) {
                (0, _) => Some(false),
                (_, Some(libc::ESRCH)) => Some(true),
                _ => None,
            }
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        None
    }

    /// Returns what the thread does now. Reads files of `/proc`.
    pub(crate) fn look(self) -> Seen {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            if self.0 == 0 {
                return Seen::Unknown;
            }
            if self.has_ended() == Some(true) {
                return Seen::Ended;
            }
            linux::look(self.0)
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        Seen::Unknown
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod linux {
    use super::Seen;

    pub(super) fn look(id: u32) -> Seen {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/task/{id}/{name}"));
        // proc(5): the number, the name in parentheses (which may itself contain some), the state.
        let state = read("stat").ok().and_then(|stat| {
            let (_, rest) = stat.rsplit_once(')')?;
            rest.trim_start().chars().next()
        });
        match state {
            None => Seen::Unknown,
            Some('R') => Seen::Runs,
            Some('X' | 'Z') => Seen::Ended,
            Some('T' | 't') => Seen::Sleeps("a stop by a signal or a debugger".to_owned()),
            Some(_) => Seen::Sleeps(call(read("syscall").ok(), read("wchan").ok())),
        }
    }

    /// Returns the name of the call that the thread sleeps in, and the place in the kernel, as far
    /// as the system tells.
    fn call(syscall: Option<String>, wchan: Option<String>) -> String {
        let number = syscall
            .as_deref()
            .and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok());
        let name = number.map(|number| {
            let known = CALLS.iter().find(|(of, _)| *of == number);
            known.map_or_else(
                || format!("system call {number}"),
                |(_, name)| (*name).to_owned(),
            )
        });
        let place = wchan.filter(|place| !place.is_empty() && place != "0");
        match (name, place) {
            (Some(name), _) => name,
            (None, Some(place)) => format!("the kernel, at {place}"),
            (None, None) => "the kernel".to_owned(),
        }
    }

    /// The calls that threads wait in, by the names of their manual pages.
    const CALLS: &[(i64, &str)] = &[
        (libc::SYS_futex, "futex (a lock, a condition, a join)"),
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_readv, "readv"),
        (libc::SYS_writev, "writev"),
        (libc::SYS_pread64, "pread"),
        (libc::SYS_pwrite64, "pwrite"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_recvmsg, "recvmsg"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_sendmsg, "sendmsg"),
        (libc::SYS_accept, "accept"),
        (libc::SYS_accept4, "accept4"),
        (libc::SYS_connect, "connect"),
        (libc::SYS_ppoll, "ppoll"),
        (libc::SYS_pselect6, "pselect"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_nanosleep, "nanosleep"),
        (libc::SYS_clock_nanosleep, "clock_nanosleep"),
        (libc::SYS_wait4, "wait4"),
        (libc::SYS_waitid, "waitid"),
        (libc::SYS_flock, "flock"),
        (libc::SYS_fsync, "fsync"),
        (libc::SYS_fdatasync, "fdatasync"),
        (libc::SYS_openat, "openat"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_mmap, "mmap"),
        (libc::SYS_munmap, "munmap"),
        (libc::SYS_madvise, "madvise"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_poll, "poll"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_select, "select"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_epoll_wait, "epoll_wait"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_pause, "pause"),
    ];

    #[cfg(all(test, not(any(loom, shuttle))))]
    mod tests {
        use super::*;

        #[test]
        fn a_call_is_named_as_far_as_the_system_tells() {
            let call =
                |line: &str, wchan: &str| call(Some(line.to_owned()), Some(wchan.to_owned()));
            let futex = format!("{} 0x7f 0x80 0x2", libc::SYS_futex);
            assert!(call(&futex, "futex_wait").starts_with("futex"));
            assert_eq!(call("99999 0x0", "0"), "system call 99999");
            assert_eq!(call("running", "do_wait"), "the kernel, at do_wait");
            assert_eq!(super::call(None, None), "the kernel");
        }
    }
}

#[cfg(all(test, target_os = "linux", not(any(miri, loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_seen_to_run_to_sleep_and_to_end() {
        let me = OsThread::current();
        assert_eq!(me.look(), Seen::Runs);
        let before = me.cpu_time().expect("a clock");
        let mut sum = 0_u64;
        while me.cpu_time().expect("a clock") == before {
            sum = std::hint::black_box(sum + 1);
        }
        let (tell, told) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
        let thread = crate::sys::thread::spawn("seen".to_owned(), move || {
            tell.send(OsThread::current()).expect("heard");
            goes_on.recv().expect("told to go on");
        })
        .expect("a thread");
        let other = told.recv().expect("told");
        assert_ne!(other, me);
        assert_eq!(other.has_ended(), Some(false));
        // The thread is about to sleep in `recv`.
        while !matches!(other.look(), Seen::Sleeps(call) if call.starts_with("futex")) {
            std::thread::yield_now();
        }
        go_on.send(()).expect("heard");
        thread.join().expect("no panic");
        // The kernel releases the joiner a moment before it forgets the thread.
        while other.has_ended() != Some(true) {
            std::thread::yield_now();
        }
        assert_eq!(other.look(), Seen::Ended);
        assert_eq!(other.cpu_time(), None);
    }
}
