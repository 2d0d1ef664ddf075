//! Who waits for sockets, and who asks the OS for them: no wait is left without somebody who asks.
//!
//! A wait may begin on any thread: a socket of this runtime may be awaited by a G of another runtime, or by another
//! executor's task. All Ms may be asleep then, because there was nothing to poll for, and so may the monitor. So whoever
//! waits as the first one, without a P of this runtime, looks whether there is a poller, and rouses the monitor if not:
//!
//! | a wait begins outside ([`add`](Waits::add), then [`needs_a_call`](Waits::needs_a_call)) | an M falls asleep |
//! |---|---|
//! | count the wait | give the P up ([`give_up`](crate::sched::idle::Roster::give_up)), or the poller's role (drop of [`Turn`]) |
//! | fence | fence |
//! | load the role; if nobody sleeps in it, rouse the monitor | load the count, or the idle Ps; poll if there is a wait |
//!
//! Of the two fences one is first. If it is the M's, who waits sees that nobody has the role. If it is the other one, the M
//! sees the wait and becomes the poller, unless it finds the role taken. Who has that role comes back at some time, and then
//! looks for an idle P: past its own fence it sees the P that the M has given up, takes it, and goes the way of the M.
//! Without the fence at the end of the role it could miss that P, and both would sleep.
//!
//! The monitor is roused by [`Watch`](crate::sched::watch::Watch)'s pair. It has an M look for work if there is a wait, an
//! idle P and no poller ([`lacks_a_poller`](Waits::lacks_a_poller)), before it sleeps and as often as it looks around.
//!
//! A wait that begins on a thread with a P needs no call: that thread looks at the count when it gives the P up. A timer needs
//! none either. It is begun on a worker of its own runtime only. That has a P, or is in a blocking call, and then the monitor
//! looks around; a timer that others may move is there already, so there is a poller that sleeps no longer than it.
//! What a socket is waited for may change at any time: the OS takes that in while a poller sleeps.

use crate::sys::sync::{AtomicUsize, Ordering, fence, yield_now};

/// Nobody is the poller.
const FREE: usize = 0;
/// A thread asks the OS, and will be back at once.
pub(super) const LOOKS: usize = 1;
/// A thread sleeps in the OS, or is about to.
pub(super) const SLEEPS: usize = 2;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Waits {
    /// How many wakers sockets hold.
    count: AtomicUsize,
    /// What the poller does: [`FREE`], [`LOOKS`] or [`SLEEPS`].
    turn: AtomicUsize,
}

/// The role of the poller, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a AtomicUsize);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Release: pairs with `take_turn`.
        self.0.store(FREE, Ordering::Release);
        // SeqCst: see the module's head.
        fence(Ordering::SeqCst);
    }
}

impl Waits {
    pub(crate) fn new() -> Self {
        Self {
            count: AtomicUsize::new(0),
            turn: AtomicUsize::new(FREE),
        }
    }

    /// How many wakers wait for I/O.
    pub(crate) fn count(&self) -> usize {
        // Relaxed: exact for who has come through a fence.
        self.count.load(Ordering::Relaxed)
    }

    /// So many more; true if they are the first.
    pub(crate) fn add(&self, count: usize) -> bool {
        // Relaxed: the fence in `needs_a_call`, or in `give_up`, orders it.
        self.count.fetch_add(count, Ordering::Relaxed) == 0
    }

    /// So many fewer; true if they were the last.
    pub(crate) fn remove(&self, count: usize) -> bool {
        // Relaxed: a count; the monitor sees it through its events.
        count > 0 && self.count.fetch_sub(count, Ordering::Relaxed) == count
    }

    /// Whether a thread sleeps in the OS, or is about to.
    pub(crate) fn has_poller(&self) -> bool {
        // Relaxed: advice, or after a fence.
        self.turn.load(Ordering::Relaxed) == SLEEPS
    }

    /// After the first wait, by who has no P: whether the monitor has to hear of it.
    pub(crate) fn needs_a_call(&self) -> bool {
        // SeqCst: see the module's head.
        fence(Ordering::SeqCst);
        !self.has_poller()
    }

    /// Whether there is a wait and nobody in the OS. By the monitor, which goes to sleep on it.
    pub(crate) fn lacks_a_poller(&self) -> bool {
        if self.count() == 0 {
            return false;
        }
        // SeqCst: a poller that has left without a look at this wait came through its fence before this one.
        fence(Ordering::SeqCst);
        !self.has_poller()
    }

    /// Becomes the poller. None if another thread sleeps in the OS, or if another is there at all and this one only looks.
    pub(super) fn take_turn(&self, to: usize) -> Option<Turn<'_>> {
        loop {
            // Acquire: the poll before is over; pairs with the drop of `Turn`. Relaxed: a failure changes nothing.
            let taken = self
                .turn
                .compare_exchange(FREE, to, Ordering::Acquire, Ordering::Relaxed);
            match taken {
                Ok(_) => return Some(Turn(&self.turn)),
                // It does not stay; went this one away, then nobody would sleep in here.
                Err(LOOKS) if to == SLEEPS => yield_now(),
                Err(_) => return None,
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use std::mem::ManuallyDrop;
    use std::ptr::NonNull;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::sched::idle::Roster;
    use crate::sched::list::{Chained, Next};
    use crate::sched::watch::Watch;
    use crate::sys::model::explore;

    /// Stands for a G; there is none here.
    struct Bead(Next<Self>);

    // SAFETY: 1. `0` is the only one.
    unsafe impl Chained for Bead {
        fn next(node: NonNull<Self>) -> NonNull<Next<Self>> {
            // SAFETY: inside the node.
            NonNull::from(unsafe { &(*node.as_ptr()).0 })
        }
    }

    /// A runtime with one P.
    struct Scene {
        roster: Roster<Bead>,
        watch: Watch,
        waits: Waits,
        /// Somebody polls for the wait, and will not leave before it is over.
        polled: AtomicUsize,
    }

    // SAFETY: there is no bead.
    unsafe impl Send for Scene {}
    // SAFETY: as above.
    unsafe impl Sync for Scene {}

    impl Scene {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                roster: Roster::new(1, 0),
                watch: Watch::new(),
                waits: Waits::new(),
                polled: AtomicUsize::new(0),
            })
        }

        /// As `Driver::call_poller`.
        fn wait_outside(&self, rouses: bool) {
            if self.waits.add(1) && self.waits.needs_a_call() && rouses {
                self.watch.rouse();
            }
        }

        /// As `go_idle` and `sleep_in_poller` of `find.rs`.
        fn go_idle(&self, index: usize) {
            self.roster.give_up(index, false);
            if self.waits.count() == 0 {
                return;
            }
            if let Some(turn) = self.waits.take_turn(SLEEPS) {
                self.note_polled();
                // It sleeps there.
                let _stays = ManuallyDrop::new(turn);
            }
        }

        fn note_polled(&self) {
            // Relaxed: `rouse` publishes it.
            self.polled.store(1, Ordering::Relaxed);
            self.watch.rouse();
        }

        fn is_polled(&self) -> bool {
            // Relaxed: after `events`, or at the end.
            self.polled.load(Ordering::Relaxed) != 0
        }

        /// As `sleep_while_idle` of `sysmon.rs`. If it oversleeps the wait, it waits for ever, which ends the model.
        fn watch_until_polled(&self) {
            loop {
                let seen = self.watch.events();
                if self.is_polled() {
                    return;
                }
                if self.waits.lacks_a_poller()
                    && let Some(index) = self.roster.call_one()
                {
                    self.roster.end_spinning();
                    self.go_idle(index);
                    continue;
                }
                self.watch.sleep(seen, Duration::MAX, || false);
            }
        }
    }

    /// The last M falls asleep, and the monitor does, while a wait begins outside.
    fn a_wait_begins_outside(rouses: bool) {
        explore(2, move |order| {
            let scene = Scene::new();
            let index = scene.roster.take_idle().expect("one is idle");
            let (one, two, three) = (scene.clone(), scene.clone(), scene);
            order.race3(
                move || one.wait_outside(rouses),
                move || two.go_idle(index),
                move || three.watch_until_polled(),
            );
        });
    }

    #[test]
    fn loom_a_wait_begins_outside_as_all_fall_asleep() {
        a_wait_begins_outside(true);
    }

    /// The negative control: who waits calls nobody.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_a_wait_outside_that_calls_nobody_fails() {
        a_wait_begins_outside(false);
    }

    /// A poller comes back for something else, while another M gives the P up, and a wait begins outside. Nobody is roused
    /// if the poller is still seen, so either M has to find the wait.
    fn a_poller_comes_back(leave: fn(Turn<'_>)) {
        explore(3, move |order| {
            let scene = Scene::new();
            let index = scene.roster.take_idle().expect("one is idle");
            let turn = scene.waits.take_turn(SLEEPS).expect("nobody is there");
            let _stays = ManuallyDrop::new(turn);
            let (one, two, three) = (scene.clone(), scene.clone(), scene.clone());
            let (called, (), ()) = order.race3(
                move || one.waits.add(1) && one.waits.needs_a_call(),
                move || {
                    leave(Turn(&two.waits.turn));
                    if let Some(index) = two.roster.take_idle() {
                        two.go_idle(index);
                    }
                },
                move || three.go_idle(index),
            );
            assert!(called || scene.is_polled(), "nobody polls for a wait");
        });
    }

    #[test]
    fn loom_a_poller_comes_back_as_a_wait_begins_outside() {
        a_poller_comes_back(|turn| drop(turn));
    }

    /// The negative control: the role is given back without a fence.
    #[test]
    #[should_panic(expected = "nobody polls")]
    fn loom_a_poller_that_comes_back_without_a_fence_fails() {
        a_poller_comes_back(|turn| {
            turn.0.store(FREE, Ordering::Release);
            let _stays = ManuallyDrop::new(turn);
        });
    }
}
