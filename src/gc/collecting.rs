//! For which heap this thread collects, or drops objects, just now.
//!
//! Code of the user that runs there (drops, sinks) must not wait for the collector, which is this
//! very thread, and must not take the turnstile again.

use std::cell::Cell;

use crate::sys::thread::thread_local;

thread_local! {
    /// The number of the heap whose collector runs on this thread, or whose objects are being dropped on it; 0: none.
    static COLLECTING: Cell<usize> = const { Cell::new(0) };
}

/// The number of the heap that this thread collects for, or 0.
pub(crate) fn collecting_for() -> usize {
    COLLECTING.with(Cell::get)
}

/// Runs `f` as the collector's thread of heap `id` does.
pub(crate) fn as_collecting_thread<R>(id: usize, f: impl FnOnce() -> R) -> R {
    struct Reset(usize);
    impl Drop for Reset {
        fn drop(&mut self) {
            COLLECTING.with(|c| c.set(self.0));
        }
    }
    let _reset = Reset(COLLECTING.with(|c| c.replace(id)));
    f()
}
