//! When the monitor sleeps, and who wakes it.
//!
//! It sleeps while nothing can need it, for an hour if it must. What happens meanwhile is counted, and who counts looks
//! whether it sleeps:
//!
//! | something happens ([`rouse`](Watch::rouse)) | the monitor ([`sleep`](Watch::sleep)) |
//! |---|---|
//! | count it | say that it sleeps |
//! | fence | fence |
//! | load whether it sleeps; wake it | load the count: is it the one that it has looked at? |
//!
//! Of the two fences one is first, so either it is woken, or it sees the count and does not sleep. That holds for whatever
//! it looked at after it had read the count, however long that took: a look for a deadlock walks over all Gs, and what happens
//! in the middle of it is in the count. Both halves are needed. Without the fence on the left the two loads can both miss the
//! stores; without the comparison what happens between the look and the sleep is slept over.

use std::time::Duration;

use crate::sys::lock::{Condvar, Unranked};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU8, AtomicU64, Ordering, fence};
use crate::sys::thread;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Counts whatever may have made somebody runnable.
    events: AtomicU64,
    sleeps: AtomicU8,
    lock: Unranked<()>,
    wake: Condvar,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            events: AtomicU64::new(0),
            sleeps: AtomicU8::new(0),
            lock: Unranked::new(()),
            wake: Condvar::new(),
        }
    }

    /// How much has happened.
    pub(crate) fn events(&self) -> u64 {
        // Acquire: who has read the count sees what was counted; pairs with the Release in `note`. Else a look that comes after
        // could miss it, and the comparison would find nothing new.
        self.events.load(Ordering::Acquire)
    }

    /// Something has happened that only matters to who looks already.
    pub(crate) fn note(&self) {
        // Release: pairs with the Acquire in `events`.
        self.events.fetch_add(1, Ordering::Release);
    }

    /// Something has happened for which the monitor is needed.
    pub(crate) fn rouse(&self) {
        self.note();
        // SeqCst: see the module's head.
        fence(Ordering::SeqCst);
        self.wake_if_asleep();
    }

    fn wake_if_asleep(&self) {
        // Relaxed: after the fence.
        if self.sleeps.load(Ordering::Relaxed) != 0 {
            // It says so under the lock, and gives that up in its wait.
            drop(self.lock.lock());
            self.wake.notify_all();
        }
    }

    /// Sleeps until it is roused, for `limit` at most; not at all if more than `seen` has happened, or if it `is_needed`.
    /// By the monitor.
    pub(crate) fn sleep(&self, seen: u64, limit: Duration, is_needed: impl FnOnce() -> bool) {
        if sabotage::is_on(Fault::EventsSleptOver) {
            thread::sleep(Duration::from_millis(50));
        }
        let mut held = self.lock.lock();
        // Relaxed: before the fence.
        self.sleeps.store(1, Ordering::Relaxed);
        // SeqCst: see the module's head.
        fence(Ordering::SeqCst);
        let is_news = self.events() != seen && !sabotage::is_on(Fault::EventsSleptOver);
        if !is_news && !is_needed() {
            self.wake.wait_for(&mut held, limit);
        }
        // Relaxed: its own.
        self.sleeps.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, loom))]
mod models {
    use std::sync::Arc;
    use std::task::Waker;

    use super::*;
    use crate::sched::timer::{NEVER, Timers};
    use crate::sched::wakers::KeptWaker;
    use crate::sys::model::explore;
    use crate::sys::sync::AtomicUsize;

    /// The last P that is idle begins to run while the monitor, which has seen it idle, falls asleep. If the monitor
    /// oversleeps, it waits for ever, which ends the model.
    fn somebody_runs_while_it_falls_asleep(rouse: fn(&Watch)) {
        explore(3, move |order| {
            let watch = Arc::new(Watch::new());
            let idle = Arc::new(AtomicUsize::new(1));
            let (here, there) = (watch.clone(), watch);
            let (mine, theirs) = (idle.clone(), idle);
            order.race(
                move || {
                    // Relaxed (both): the fences order them.
                    while mine.load(Ordering::Relaxed) != 0 {
                        let seen = here.events();
                        here.sleep(seen, Duration::MAX, || mine.load(Ordering::Relaxed) == 0);
                    }
                },
                move || {
                    // Relaxed: as above.
                    theirs.store(0, Ordering::Relaxed);
                    rouse(&there);
                },
            );
        });
    }

    #[test]
    fn loom_somebody_runs_while_the_monitor_falls_asleep() {
        somebody_runs_while_it_falls_asleep(Watch::rouse);
    }

    /// The negative control: no fence between the count and the look at whether it sleeps.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_a_monitor_that_is_roused_without_a_fence_fails() {
        somebody_runs_while_it_falls_asleep(|watch| {
            watch.note();
            watch.wake_if_asleep();
        });
    }

    /// A G is woken, runs and waits for ever, all between the monitor's look and its sleep: everybody is idle again when it
    /// lies down, and yet it must look again.
    fn everything_happens_between_the_look_and_the_sleep(compares: bool) {
        explore(3, move |order| {
            let watch = Arc::new(Watch::new());
            let stuck = Arc::new(AtomicUsize::new(0));
            let (here, there) = (watch.clone(), watch);
            let (mine, theirs) = (stuck.clone(), stuck);
            order.race(
                move || {
                    loop {
                        let mut seen = here.events();
                        // Relaxed (both): the fences order them. The look for a deadlock.
                        if mine.load(Ordering::Relaxed) != 0 {
                            break;
                        }
                        if !compares {
                            seen = here.events();
                        }
                        here.sleep(seen, Duration::MAX, || false);
                    }
                },
                move || {
                    // Relaxed: as above. It ran, and waits for ever now.
                    theirs.store(1, Ordering::Relaxed);
                    there.rouse();
                },
            );
        });
    }

    #[test]
    fn loom_everything_happens_between_the_look_and_the_sleep() {
        everything_happens_between_the_look_and_the_sleep(true);
    }

    /// The negative control: the count is read after the look.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_a_monitor_that_counts_after_its_look_fails() {
        everything_happens_between_the_look_and_the_sleep(false);
    }

    /// The last timers of two Ps go on two threads, and wake nobody; as `Driver::cancel_timer`. The monitor has seen them, and
    /// falls asleep.
    fn the_last_timers_go(rouses: bool) {
        explore(2, move |order| {
            let watch = Arc::new(Watch::new());
            let heaps = Arc::new([Timers::new(), Timers::new()]);
            let keys = [0, 1].map(|heap| {
                let waker = KeptWaker::of_driver(Waker::noop());
                heaps[heap].insert(50, waker).expect("it is open").0
            });
            let go = |heap: usize| {
                let (watch, heaps, key) = (watch.clone(), heaps.clone(), keys[heap]);
                move || {
                    if heaps[heap].cancel(key) && heaps[heap].next() == NEVER && rouses {
                        watch.rouse();
                    }
                }
            };
            let (one, other) = (go(0), go(1));
            order.race3(one, other, move || {
                loop {
                    let seen = watch.events();
                    if heaps.iter().all(|timers| timers.next() == NEVER) {
                        break;
                    }
                    watch.sleep(seen, Duration::MAX, || false);
                }
            });
        });
    }

    #[test]
    fn loom_the_last_timers_go_while_the_monitor_falls_asleep() {
        the_last_timers_go(true);
    }

    /// The negative control: nobody is told.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_timers_that_go_without_a_word_fail() {
        the_last_timers_go(false);
    }
}
