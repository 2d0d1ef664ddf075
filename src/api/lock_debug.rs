//! How `Debug` shows a lock and its guards.
//!
//! A lock shows its content, and the content may lead to other locks, and back. So the depth and
//! the number of the locks that one call shows are bounded.

use std::cell::Cell;
use std::fmt;

use crate::api::lock::{GcLock, ReadGuard, WriteGuard};
use crate::object::trace::Trace;
use crate::sys::thread::thread_local;

/// Exists while the `Debug` of a lock runs on this thread.
///
/// A graph of locks may have cycles, and exponentially many paths. So locks inside locks are shown
/// to a certain depth and up to a certain number, and `(..)` stands for the others.
struct Showing;

impl Showing {
    const DEPTH: u32 = 4;
    const LOCKS: u32 = 64;

    fn begin() -> Option<Self> {
        let (depth, locks) = SHOWING.with(Cell::get);
        if depth == Self::DEPTH || locks == Self::LOCKS {
            return None;
        }
        SHOWING.with(|s| s.set((depth + 1, locks + 1)));
        Some(Self)
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        let (depth, locks) = SHOWING.with(Cell::get);
        let left = if depth == 1 {
            (0, 0)
        } else {
            (depth - 1, locks)
        };
        SHOWING.with(|s| s.set(left));
    }
}

thread_local! {
    /// How many locks deep this thread shows values, and how many locks it has shown.
    static SHOWING: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

impl<T: Trace + fmt::Debug> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Trace + fmt::Debug> fmt::Debug for WriteGuard<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Trace + fmt::Debug> fmt::Debug for GcLock<T> {
    /// Shows the content, or `<locked>`. Because graphs have cycles, locks inside the content are
    /// shown four deep, and 64 in all; `(..)` stands for the others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(_showing) = Showing::begin() else {
            return f.write_str("GcLock(..)");
        };
        match self.try_read() {
            Some(content) => f.debug_tuple("GcLock").field(&&*content).finish(),
            None => f.write_str("GcLock(<locked>)"),
        }
    }
}
