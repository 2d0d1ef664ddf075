//! Somebody else's code on our threads: its panics end where it was called.
//!
//! A destructor, a waker, a sink, the payload of a panic: each is a user's code, and each may panic. What calls it is a
//! worker or the collector's thread, which others wait for, so the panic must not go further. Nor may it be called a bug
//! of ours: the panic hook has printed the user's message and place, and that is all that is to be said.
//!
//! **Invariant**
//! - `[D2]` Code that is not this crate's runs on a thread of this crate's only inside [`contain`], [`drop_quietly`], a `KeptWaker` (`sched/wakers.rs`), or a
//!   `catch_unwind` whose payload goes to the user or to [`drop_quietly`]. A caught payload is a user's value: `let _ =` on
//!   the result of a `catch_unwind` would run its destructor outside of every guard.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sys::MODELLED;

/// What `f`, a user's code, returns; `None` if it panicked.
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

/// Runs a user's code; the payload of its panic is leaked, as for [`drop_quietly`]. For what runs so often
/// that a second guard, around the drop of that payload, is too much.
#[inline]
pub(crate) fn contain_and_leak(f: impl FnOnce()) {
    if MODELLED {
        return f();
    }
    // Unwind safe: it touches nothing of ours, or finds its own way as any other thread does.
    let outcome = catch_unwind(AssertUnwindSafe(f));
    let _leaked = outcome.map_err(ManuallyDrop::new);
}

/// Drops a user's value. The payload of a panic that comes out of that may have a destructor that panics, too, and so on
/// without an end: that payload is leaked.
pub(crate) fn drop_quietly<T>(value: T) {
    contain_and_leak(move || drop(value));
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// Panics when it is dropped, with such a value again.
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
