//! What a thread knows of the worker it is: the only thread-local of this layer, read at its edge.

use std::task::Context;

use crate::sched::wait::WaitReason;

/// Says why the G that is being polled on this thread is about to return `Pending`, and on what: the address of the
/// channel, lock or timer, 0 if it has none. Outside a G nothing happens. A few instructions.
pub(crate) fn note_wait(reason: WaitReason, on: usize) {
    let _ = (reason, on);
}

/// Whether the G that is being polled has had its share and should make room: it has been woken, and its future is to
/// return `Pending`. Asked once by every operation that may succeed without waiting, before it does anything.
pub(crate) fn should_yield(cx: &mut Context<'_>) -> bool {
    let _ = cx;
    false
}

/// A random number, of a generator of this thread.
pub(crate) fn random() -> u64 {
    thread_local! {
        static STATE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }
    STATE.with(|state| {
        let mut x = state.get();
        if x == 0 {
            x = (&raw const *state).addr() as u64 | 1;
        }
        // Xorshift (Marsaglia 2003).
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x
    })
}
