//! M: a thread that runs Gs while it holds a P.

use crate::sys::lock::{Condvar, Unranked};
use crate::sys::sync::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use crate::sys::thread;

/// Stands for "no P".
pub(crate) const NO_PROC: usize = usize::MAX;

/// What others know of an M.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The P that it is given when it wakes.
    given: AtomicUsize,
    /// It looks for work from the moment it wakes.
    is_spinning: AtomicU8,
    /// The number that the OS has for its thread; 0 before it runs.
    thread: AtomicU32,
    /// It is in a blocking call.
    in_call: AtomicU8,
    token: Unranked<bool>,
    wake: Condvar,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            given: AtomicUsize::new(NO_PROC),
            is_spinning: AtomicU8::new(0),
            thread: AtomicU32::new(0),
            in_call: AtomicU8::new(0),
            token: Unranked::new(false),
            wake: Condvar::new(),
        }
    }

    /// Gives it a P, before it starts or while it is parked.
    pub(crate) fn give(&self, index: usize, spinning: bool) {
        // Relaxed (both): published by the token, or by the start of the thread.
        self.given.store(index, Ordering::Relaxed);
        self.is_spinning
            .store(u8::from(spinning), Ordering::Relaxed);
    }

    /// What it was given.
    pub(crate) fn given(&self) -> (usize, bool) {
        // Relaxed (both): as above.
        let index = self.given.swap(NO_PROC, Ordering::Relaxed);
        (index, self.is_spinning.swap(0, Ordering::Relaxed) != 0)
    }

    /// This is its thread, which runs what users wrote.
    pub(crate) fn note_thread(&self) {
        thread::set_waits_for_work(false);
        // Relaxed: for a report.
        self.thread.store(thread::os_id(), Ordering::Relaxed);
    }

    /// It goes into a blocking call, or comes out of the outermost one.
    pub(crate) fn set_in_call(&self, is_in: bool) {
        // Relaxed: for a report, which looks at the thread itself afterwards.
        self.in_call.store(u8::from(is_in), Ordering::Relaxed);
    }

    /// The number of its thread, if it is in a blocking call.
    pub(crate) fn thread_in_call(&self) -> Option<u32> {
        // Relaxed (both): as above.
        let is_in = self.in_call.load(Ordering::Relaxed) != 0;
        is_in.then(|| self.thread.load(Ordering::Relaxed))
    }

    /// Sleeps until [`unpark`](Self::unpark). By its own thread.
    pub(crate) fn park(&self) {
        thread::set_waits_for_work(true);
        let mut token = self.token.lock();
        while !*token {
            // A limit only because the modelled lock has no wait without one.
            self.wake
                .wait_for(&mut token, std::time::Duration::from_secs(3600));
        }
        *token = false;
        drop(token);
        thread::set_waits_for_work(false);
    }

    /// Wakes it.
    pub(crate) fn unpark(&self) {
        *self.token.lock() = true;
        self.wake.notify_all();
    }
}
