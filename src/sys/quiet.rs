//! User code on this crate's threads: a panic ends where the code was called.
//!
//! Destructors, wakers, sinks and the payloads of panics are user code, and each may panic. A
//! worker or the collector's thread calls them, and other threads wait for it, so the panic must
//! not go further. Nor may the panic be reported as a bug of this crate: the panic hook has printed
//! the user's message and its place, and nothing else needs to be said.
//!
//! **Invariant**
//! - `[D2]` Code that is not this crate's runs on a thread of this crate only inside [`contain`],
//!   [`drop_quietly`], a `KeptWaker` (`sched/wakers.rs`), or a `catch_unwind` whose payload goes to
//!   the user or to [`drop_quietly`]. A caught payload is a user's value: `let _ =` on the result
//!   of a `catch_unwind` would run its destructor outside every guard.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sys::MODELLED;

/// Runs `f`, a user's code, and returns its result; `None` if it panicked.
pub(crate) fn contain<R>(f: impl FnOnce() -> R) -> Option<R> {
    if MODELLED {
        return Some(f()); // each panic is the model's end
    }
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(out) => Some(out),
        Err(payload) => {
            drop_quietly(payload);
            None
        }
    }
}

/// Runs a user's code, and leaks the payload of its panic, as [`drop_quietly`] does. It is for code
/// that runs so often that a second guard, around the drop of that payload, would cost too much.
#[inline]
pub(crate) fn contain_and_leak(f: impl FnOnce()) {
    if MODELLED {
        return f();
    }
    // This is unwind safe: `f` touches nothing of this crate, or handles an unwind as on any other
    // thread.
    let outcome = catch_unwind(AssertUnwindSafe(f));
    let _leaked = outcome.map_err(ManuallyDrop::new);
}

/// Drops a user's value. The destructor may panic, and the payload of that panic may have a
/// destructor that panics too, and so on without end; so the first payload is leaked.
pub(crate) fn drop_quietly<T>(value: T) {
    contain_and_leak(move || drop(value));
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// Panics when it is dropped; the payload is such a value again.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 && !std::thread::panicking() {
                panic_any(Self(self.0 - 1));
            }
        }
    }

    #[test]
    fn payloads_of_payloads_end_here() {
        for depth in 0..4 {
            drop_quietly(Bomb(depth));
            assert_eq!(contain(|| panic_any(Bomb(depth))), None::<()>);
        }
        assert_eq!(contain(|| 7), Some(7));
    }
}
