//! The wakers that this crate keeps, and the one way in which it runs their code.
//!
//! A waker is somebody's code three times: when it is cloned, when it is woken, when it is dropped.
//! Of a foreign executor that may be anything: it may drop another future that waits in the same
//! line, wait for a thread that waits for our lock, or panic. So
//!
//! - none of the three happens while this thread holds a lock or a claim of ours;
//! - a clone is made by whoever polls, before anything has changed. Its panic is the poll's;
//! - a panic of `wake` or of the drop ends there. The hook for panics has told of it. The others in
//!   the same line are still woken, and whoever sent, unlocked or looked at the clock goes on: that
//!   the other side's executor is broken is none of its business. (tokio lets the panic out to the
//!   one who wakes, who then has sent a value and does not know it.)
//!
//! **Whose it is.** A deadlock is told by the wakers of a G: as long as one is in a stranger's hands,
//! the G may be woken ([`report.rs`](crate::sched::report)). So whoever keeps a waker says where:
//! [`KeptWaker::of`] in a line that Gs wake, [`KeptWaker::of_driver`] where time or the OS wakes. The
//! first is counted in the G, the second is as good as a stranger's, and if it is in another
//! runtime's driver it is one.
//!
//! [`KeptWaker`] is the type of every waker in a table, list or line. Its clone, wake and drop
//! check the first rule in debug builds (`sys/lock.rs`), in any run that comes by. Under a lock one
//! can compare wakers, which is no code of theirs, put one in, and take one out.

use std::fmt;
use std::mem::ManuallyDrop;
use std::task::Waker;

use crate::sched::task::waker::{is_kept_of, kept};
use crate::sys::MODELLED;
use crate::sys::lock::assert_none_held;
use crate::sys::quiet::contain_and_leak;
use crate::sys::sabotage::{self, Fault};

/// A waker that waits to be woken; see the module's head.
pub(crate) struct KeptWaker(ManuallyDrop<Waker>);

impl KeptWaker {
    /// A clone of `waker`, for a line in which only Gs, and threads that wait as they do, wake. No
    /// lock is held.
    #[inline]
    pub(crate) fn of(waker: &Waker) -> Self {
        assert_none_held("a waker is cloned");
        let clone = kept(waker).unwrap_or_else(|| waker.clone());
        Self(ManuallyDrop::new(clone))
    }

    /// A clone of `waker`, for a driver, which wakes when time has passed or the OS says so. No lock
    /// is held.
    pub(crate) fn of_driver(waker: &Waker) -> Self {
        if sabotage::is_on(Fault::DriverCountsAsLine) {
            return Self::of(waker);
        }
        assert_none_held("a waker is cloned");
        Self(ManuallyDrop::new(waker.clone()))
    }

    /// Whether it wakes the same task as `other`, as far as that can be told.
    #[inline]
    pub(crate) fn will_wake(&self, other: &Waker) -> bool {
        is_kept_of(&self.0, other) || self.0.will_wake(other)
    }

    /// Wakes the task. No lock is held. Does not panic.
    #[inline]
    pub(crate) fn wake(self) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken once: `this` is not dropped, and not used after this line.
        let waker = unsafe { ManuallyDrop::take(&mut this.0) };
        contain_unlocked("a waker is woken", || waker.wake());
    }

    /// As [`wake`](Self::wake), where the waker has to stay.
    pub(crate) fn wake_by_ref(&self) {
        contain_unlocked("a waker is woken", || self.0.wake_by_ref());
    }
}

impl Drop for KeptWaker {
    #[inline]
    fn drop(&mut self) {
        contain_unlocked("a waker is dropped", || {
            // SAFETY: dropped once: this is the drop of the whole, and `wake` runs no such.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        });
    }
}

impl fmt::Debug for KeptWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptWaker")
    }
}

/// Runs foreign code, whose panic ends here. No lock is held.
#[inline]
fn contain_unlocked(what: &str, code: impl FnOnce()) {
    assert_none_held(what);
    contain_and_leak(code);
}

/// Whom to wake once the lock is free: filled under the lock, made before it is taken. Dropping
/// this wakes them, in the order in which they came.
#[derive(Debug)]
#[must_use = "they are woken when it is dropped, which is after the lock has been released"]
pub(crate) struct Wakers {
    few: [Option<KeptWaker>; Self::FEW],
    used: usize,
    more: Vec<KeptWaker>,
}

impl Wakers {
    /// So many need no memory of their own.
    pub(crate) const FEW: usize = if MODELLED { 2 } else { 16 };

    pub(crate) const fn new() -> Self {
        Self {
            few: [const { None }; Self::FEW],
            used: 0,
            more: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, waker: Option<KeptWaker>) {
        let Some(waker) = waker else { return };
        if let Some(place) = self.few.get_mut(self.used) {
            *place = Some(waker);
            self.used += 1;
        } else {
            self.more.push(waker);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.used + self.more.len()
    }

    /// Wakes them. The lock has been released.
    pub(crate) fn wake(&mut self) {
        for place in &mut self.few[..self.used] {
            if let Some(waker) = place.take() {
                waker.wake();
            }
        }
        self.used = 0;
        let mut more = std::mem::take(&mut self.more);
        more.drain(..).for_each(KeptWaker::wake);
        // The memory of a crowd goes with the crowd.
        if more.capacity() <= Self::FEW {
            self.more = more;
        }
    }
}

impl Drop for Wakers {
    #[inline]
    fn drop(&mut self) {
        if self.used > 0 {
            self.wake();
        }
    }
}

/// The waker of the task that polls, and a clone of it if one is needed.
#[derive(Debug)]
pub(crate) struct Fresh<'a> {
    of: &'a Waker,
    clone: Option<KeptWaker>,
    /// What the clone has replaced.
    stale: Option<KeptWaker>,
}

impl Fresh<'_> {
    /// Sees to it that `place` wakes the task. False: that needs a clone, which is made without the
    /// lock.
    #[must_use]
    pub(crate) fn put_into(&mut self, place: &mut Option<KeptWaker>) -> bool {
        if place.as_ref().is_some_and(|old| old.will_wake(self.of)) {
            return true;
        }
        let Some(clone) = self.clone.take() else {
            return false;
        };
        self.stale = place.replace(clone);
        true
    }
}

/// Calls `attempt` until it has an answer. `attempt` takes a lock and releases it before it returns;
/// None says that it needs a clone of `waker`, which is there at its next call.
pub(crate) fn with_clone_if_needed<R>(
    waker: &Waker,
    attempt: impl FnMut(&mut Fresh<'_>) -> Option<R>,
) -> R {
    with_clone(waker, KeptWaker::of, attempt)
}

/// As [`with_clone_if_needed`], for a driver ([`KeptWaker::of_driver`]).
pub(crate) fn with_driver_clone_if_needed<R>(
    waker: &Waker,
    attempt: impl FnMut(&mut Fresh<'_>) -> Option<R>,
) -> R {
    with_clone(waker, KeptWaker::of_driver, attempt)
}

#[inline]
fn with_clone<R>(
    waker: &Waker,
    keep: impl Fn(&Waker) -> KeptWaker,
    mut attempt: impl FnMut(&mut Fresh<'_>) -> Option<R>,
) -> R {
    let mut fresh = Fresh {
        of: waker,
        clone: None,
        stale: None,
    };
    loop {
        if let Some(answer) = attempt(&mut fresh) {
            return answer;
        }
        fresh.stale = None;
        fresh.clone = Some(keep(waker));
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Panics with itself when it is woken, and when it is dropped.
    struct Bad;

    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            std::panic::panic_any(Self);
        }
    }

    impl Drop for Bad {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("a waker is dropped");
            }
        }
    }

    #[test]
    fn the_others_are_woken_beside_one_that_panics() {
        let count = Arc::new(Count::default());
        let mut wakers = Wakers::new();
        for i in 0..3 * Wakers::FEW {
            let bad = i % 5 == 0;
            let waker = if bad {
                Waker::from(Arc::new(Bad))
            } else {
                Waker::from(count.clone())
            };
            wakers.add(Some(KeptWaker::of(&waker)));
            // The last one lives in the bag only.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(waker)));
        }
        drop(wakers);
        let bad = (3 * Wakers::FEW).div_ceil(5);
        assert_eq!(count.0.load(Ordering::Relaxed), 3 * Wakers::FEW - bad);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn a_drop_that_panics_ends_there() {
        let waker = Waker::from(Arc::new(Bad));
        let kept = KeptWaker::of(&waker);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(waker)));
        drop(kept);
    }

    #[test]
    fn a_clone_is_made_only_if_it_is_needed() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut place = None;
        for _ in 0..3 {
            with_clone_if_needed(&waker, |fresh| fresh.put_into(&mut place).then_some(()));
            assert_eq!(Arc::strong_count(&count), 3);
        }
        with_clone_if_needed(Waker::noop(), |fresh| {
            fresh.put_into(&mut place).then_some(())
        });
        assert_eq!(Arc::strong_count(&count), 2);
    }
}
