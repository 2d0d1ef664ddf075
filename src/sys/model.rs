//! What every loom model needs: the way to explore it, and a plain variable that loom watches.

use loom::cell::UnsafeCell;
use loom::thread;

/// Explores `model` from both ends, with at most `preemptions` switches away from a thread that
/// could go on.
pub(crate) fn explore(preemptions: usize, model: impl Fn(Order) + Copy + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 10_000;
    for order in [Order::AsWritten, Order::Reversed] {
        builder.check(move || model(order));
    }
}

/// Which thread of a race runs first.
///
/// loom remembers only the last access to each variable. If a thread loads before it stores, its
/// own load hides that another thread loaded earlier, and loom never tries the load between or
/// after the two. If the race begins from the other end, the store comes before the load, and loom
/// finds the case. So each race is explored from both ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    AsWritten,
    Reversed,
}

impl Order {
    /// Runs both to their ends.
    pub(crate) fn race<A: 'static, B: 'static>(
        self,
        a: impl FnOnce() -> A + 'static,
        b: impl FnOnce() -> B + 'static,
    ) -> (A, B) {
        let (a, b) = match self {
            Self::AsWritten => {
                let a = thread::spawn(a);
                (a, thread::spawn(b))
            }
            Self::Reversed => {
                let b = thread::spawn(b);
                (thread::spawn(a), b)
            }
        };
        (a.join().unwrap(), b.join().unwrap())
    }

    /// Runs all three to their ends.
    pub(crate) fn race3<A: 'static, B: 'static, C: 'static>(
        self,
        a: impl FnOnce() -> A + 'static,
        b: impl FnOnce() -> B + 'static,
        c: impl FnOnce() -> C + 'static,
    ) -> (A, B, C) {
        let (a, b, c) = match self {
            Self::AsWritten => {
                let (a, b) = (thread::spawn(a), thread::spawn(b));
                (a, b, thread::spawn(c))
            }
            Self::Reversed => {
                let (c, b) = (thread::spawn(c), thread::spawn(b));
                (thread::spawn(a), b, c)
            }
        };
        (a.join().unwrap(), b.join().unwrap(), c.join().unwrap())
    }
}

/// A plain variable. loom ends the model if two accesses to it, one of them a write, are not
/// ordered.
#[derive(Debug)]
pub(crate) struct Plain<T>(UnsafeCell<T>);

// SAFETY: loom runs one thread at a time, and finds the accesses that would race.
unsafe impl<T: Send> Sync for Plain<T> {}

impl<T: Copy> Plain<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(crate) fn get(&self) -> T {
        // SAFETY: as for `Sync`; the value is copied, so no reference outlives the access.
        self.0.with(|value| unsafe { *value })
    }

    pub(crate) fn set(&self, new: T) {
        // SAFETY: as in `get`.
        self.0.with_mut(|value| unsafe { *value = new });
    }
}
