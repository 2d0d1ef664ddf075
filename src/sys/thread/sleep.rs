//! Whether threads sleep until another thread wakes them. The search for deadlocks asks this.
//!
//! **Claim.** A thread sleeps for ever, as far as the OS can tell, if it is in a `futex` wait
//! **without a time limit** and has not run for a while. It waits for a lock, a condition, a
//! channel or a join.
//!
//! **Why.** Everything else may end by itself: the thread computes, sleeps for a time, waits for
//! input or a signal, or for a condition with a limit (`recv_timeout`, `park_timeout`,
//! `wait_timeout`, a pool's idle thread). After that it may do anything. Linux shows the system
//! call and its arguments (`/proc/self/task/*/syscall`, proc(5)).
//!
//! **Exception.** This crate's threads wait for work with limits that mean nothing: the collector
//! for a trigger, a worker for a P. Such a wait counts as one for ever. Each of these threads
//! registers itself by its number. A worker counts only while it waits for a P, because at other
//! times it runs user code, whose limits mean something.

use std::time::Duration;

pub(crate) use imp::{Ours, os_id, set_waits_for_work};

/// Whether every other thread of the process sleeps until a thread wakes it, and none has run for
/// `this_long`; false if the OS does not tell. The call takes that long.
pub(crate) fn others_sleep_for_ever(this_long: Duration) -> bool {
    stay_asleep(this_long, imp::others)
}

/// Does what [`others_sleep_for_ever`] does, for these threads only, by their numbers.
pub(crate) fn they_sleep_for_ever(this_long: Duration, threads: &[u32]) -> bool {
    stay_asleep(this_long, || imp::sleepers(threads.iter().copied()))
}

fn stay_asleep(this_long: Duration, look: impl Fn() -> Option<Vec<Sleeper>>) -> bool {
    let Some(before) = look() else {
        return false;
    };
    super::sleep(this_long);
    look().is_some_and(|after| after == before)
}

/// A thread that sleeps for ever: its number, and how long and how often it has run.
type Sleeper = (u32, String);

#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
mod imp {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Sleeper;
    use crate::sys::lock::Unranked;
    use crate::sys::os_thread::OsThread;

    /// This crate's threads: the number of each, and whether it waits for work.
    static OURS: Unranked<Vec<(u32, Arc<AtomicU8>)>> = Unranked::new(Vec::new());

    thread_local! {
        static MINE: RefCell<Option<Arc<AtomicU8>>> = const { RefCell::new(None) };
    }

    /// While this value lives, this thread is one of this crate's. It waits for work unless it says
    /// otherwise.
    pub(crate) struct Ours(u32);

    impl Ours {
        pub(crate) fn enter() -> Self {
            let (me, waits) = (os_id(), Arc::new(AtomicU8::new(1)));
            MINE.set(Some(waits.clone()));
            OURS.lock().push((me, waits));
            Self(me)
        }
    }

    impl Drop for Ours {
        fn drop(&mut self) {
            OURS.lock().retain(|(id, _)| *id != self.0);
        }
    }

    /// Records whether this thread, if it is one of this crate's, waits for work from now on.
    pub(crate) fn set_waits_for_work(waits: bool) {
        MINE.with_borrow(|mine| {
            if let Some(mine) = mine {
                // Relaxed: it serves a report, which looks twice.
                mine.store(u8::from(waits), Ordering::Relaxed);
            }
        });
    }

    /// Returns the number that the OS gives this thread.
    pub(crate) fn os_id() -> u32 {
        OsThread::current().to_raw()
    }

    /// Returns all threads of the process except this one; `None` if one of them does not sleep for
    /// ever.
    pub(super) fn others() -> Option<Vec<Sleeper>> {
        let me = os_id();
        let mut threads = Vec::new();
        for task in std::fs::read_dir("/proc/self/task").ok()? {
            let id = task.ok()?.file_name().to_str()?.parse().ok()?;
            if id != me {
                threads.push(id);
            }
        }
        threads.sort_unstable();
        sleepers(threads.into_iter())
    }

    /// Returns these threads; `None` if one of them does not sleep for ever.
    pub(super) fn sleepers(threads: impl Iterator<Item = u32>) -> Option<Vec<Sleeper>> {
        let ours = OURS.lock().clone();
        let for_work: Vec<u32> = ours
            .iter()
            // Relaxed: as in `set_waits_for_work`.
            .filter(|(_, waits)| waits.load(Ordering::Relaxed) != 0)
            .map(|(id, _)| *id)
            .collect();
        threads
            .map(|id| {
                let of_task =
                    |what| std::fs::read_to_string(format!("/proc/self/task/{id}/{what}")).ok();
                let wait = futex_wait(&of_task("syscall")?)?;
                let is_for_ever = wait == Limit::None || for_work.contains(&id);
                is_for_ever.then_some((id, of_task("schedstat")?))
            })
            .collect()
    }

    /// Whether a wait has a time limit.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Limit {
        None,
        Some,
    }

    /// Reads a line of `syscall` that shows a `futex` wait; `None` if it shows anything else.
    ///
    /// The line begins with the number of the call, and the arguments follow. It is "running" if
    /// the thread runs, and begins with -1 if the thread sleeps outside any call. The fourth
    /// argument of a wait is the address of its limit, or null.
    pub(super) fn futex_wait(line: &str) -> Option<Limit> {
        let mut words = line.split_whitespace();
        let number: libc::c_long = words.next()?.parse().ok()?;
        if number != libc::SYS_futex && number != libc::SYS_futex_waitv {
            return None;
        }
        let limit = words.nth(3)?.strip_prefix("0x")?;
        let is_null = limit.bytes().all(|digit| digit == b'0');
        Some(if is_null { Limit::None } else { Limit::Some })
    }
}

#[cfg(any(not(target_os = "linux"), loom, shuttle))]
mod imp {
    use super::Sleeper;

    pub(crate) struct Ours;

    #[cfg_attr(
        shuttle,
        allow(dead_code, reason = "the checker's threads are not the OS'")
    )]
    impl Ours {
        pub(crate) fn enter() -> Self {
            Self
        }
    }

    pub(crate) fn set_waits_for_work(_: bool) {}

    pub(crate) fn os_id() -> u32 {
        0
    }

    pub(super) fn others() -> Option<Vec<Sleeper>> {
        None
    }

    pub(super) fn sleepers(_: impl Iterator<Item = u32>) -> Option<Vec<Sleeper>> {
        None
    }
}

#[cfg(all(test, target_os = "linux", not(any(loom, shuttle))))]
#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "what users' threads do is watched"
)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{self as std_sync, Arc};

    use super::imp::{Limit, futex_wait, sleepers};
    use super::*;
    use crate::sys::lock::{Condvar, Unranked};

    #[test]
    fn a_line_is_read() {
        let line = |limit: &str| {
            let number = libc::SYS_futex;
            format!("{number} 0x7f1c 0x189 0x0 {limit} 0x0 0xffffffff 0x7ffd 0x7f1d\n")
        };
        assert_eq!(futex_wait(&line("0x0")), Some(Limit::None));
        assert_eq!(futex_wait(&line("0x7f1cd0")), Some(Limit::Some));
        let read = libc::SYS_read;
        for other in [
            "running\n".to_owned(),
            "-1 0x7ffd 0x7f1d\n".to_owned(),
            format!("{read} 0x0 0x7ffd 0x400 0x0 0x0 0x0 0x7ffd 0x7f1d\n"),
            String::new(),
        ] {
            assert_eq!(futex_wait(&other), None, "{other}");
        }
    }

    /// What threads wait for, in each of the ways.
    struct End {
        over: AtomicBool,
        std: (std_sync::Mutex<()>, std_sync::Condvar),
        ours: (Unranked<()>, Condvar),
    }

    /// Whether a thread in `wait`, which ends when `over` is set, counts as one that sleeps for
    /// ever.
    fn seen_in(wait: fn(&End, Receiver<()>)) -> bool {
        let end = Arc::new(End {
            over: AtomicBool::new(false),
            std: Default::default(),
            ours: (Unranked::new(()), Condvar::new()),
        });
        let (open, gate) = channel();
        let (tell, told) = channel();
        let there = end.clone();
        let thread = std::thread::spawn(move || {
            tell.send(os_id()).expect("the test waits");
            wait(&there, gate);
        });
        let id = told.recv().expect("the thread begins");
        // The thread is on its way until the OS shows that it sleeps in this call.
        let path = format!("/proc/self/task/{id}/syscall");
        while !std::fs::read_to_string(&path).is_ok_and(|line| futex_wait(&line).is_some()) {
            std::thread::yield_now();
        }
        let sleeps = sleepers(std::iter::once(id)).is_some();
        end.over.store(true, Ordering::SeqCst);
        drop(open);
        drop(end.std.0.lock());
        end.std.1.notify_all();
        drop(end.ours.0.lock());
        end.ours.1.notify_all();
        thread.thread().unpark();
        thread.join().expect("no panic");
        sleeps
    }

    /// Each way to wait for another thread, and the same with a limit, after which the thread may
    /// do anything.
    #[test]
    fn a_wait_with_a_limit_is_not_for_ever() {
        const LIMIT: Duration = Duration::from_secs(3600);
        type Wait = fn(&End, Receiver<()>);
        let waits: [(&str, Wait, Wait); 4] = [
            (
                "a channel",
                |_, gate| assert!(gate.recv().is_err()),
                |_, gate| assert!(gate.recv_timeout(LIMIT).is_err()),
            ),
            (
                "park",
                |end, _| {
                    while !end.over.load(Ordering::SeqCst) {
                        std::thread::park();
                    }
                },
                |end, _| {
                    while !end.over.load(Ordering::SeqCst) {
                        std::thread::park_timeout(LIMIT);
                    }
                },
            ),
            (
                "a condition of std's",
                |end, _| {
                    let held = end.std.0.lock().expect("no panic");
                    let over = |_: &mut ()| !end.over.load(Ordering::SeqCst);
                    drop(end.std.1.wait_while(held, over));
                },
                |end, _| {
                    let held = end.std.0.lock().expect("no panic");
                    let over = |_: &mut ()| !end.over.load(Ordering::SeqCst);
                    drop(end.std.1.wait_timeout_while(held, LIMIT, over));
                },
            ),
            (
                "a condition of parking_lot's",
                |end, _| {
                    let mut held = end.ours.0.lock();
                    while !end.over.load(Ordering::SeqCst) {
                        end.ours.1.wait(&mut held);
                    }
                },
                |end, _| {
                    let mut held = end.ours.0.lock();
                    while !end.over.load(Ordering::SeqCst) {
                        end.ours.1.wait_for(&mut held, LIMIT);
                    }
                },
            ),
        ];
        for (what, for_ever, with_a_limit) in waits {
            assert!(seen_in(for_ever), "{what}");
            assert!(!seen_in(with_a_limit), "{what}, with a limit");
        }
    }

    /// A thread of this crate that waits for work with a limit sleeps for ever; one that runs user
    /// code does not.
    #[test]
    fn a_limit_of_a_wait_for_work_means_nothing() {
        for is_ours in [true, false] {
            let sleeps = if is_ours {
                seen_in(|_, gate| {
                    let _ours = Ours::enter();
                    assert!(gate.recv_timeout(Duration::from_secs(3600)).is_err());
                })
            } else {
                seen_in(|_, gate| {
                    let _ours = Ours::enter();
                    set_waits_for_work(false);
                    assert!(gate.recv_timeout(Duration::from_secs(3600)).is_err());
                })
            };
            assert_eq!(sleeps, is_ours);
        }
    }
}
