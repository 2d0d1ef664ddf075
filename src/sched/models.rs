//! Models of the scheduler's races, for loom.

use std::sync::Arc;

use crate::gc::mutator::MutatorRef;
use crate::gc::state_word::Request;
use crate::gc::world::{Patience, World};
use crate::sched::proc::{Proc, Status};
use crate::sched::registry::Census;
use crate::sched::runq::{Item, RunQueue};
use crate::sched::task::state::{Begin, Pause, State, Wake};
use crate::sys::model::{Plain, explore};
use crate::sys::sync::{AtomicUsize, Ordering, fence};

impl Item for usize {
    fn into_address(self) -> usize {
        self
    }
    fn from_address(address: usize) -> Self {
        address
    }
}

// ---- a G's state ---------------------------------------------------------------------------------------------------

/// Something becomes ready, and the G is woken, while it is polled: either the poll sees it or the G is polled again.
fn woken_while_polled(pause: fn(&State) -> Pause) {
    explore(3, move |order| {
        let state = Arc::new(State::new());
        let ready = Arc::new(AtomicUsize::new(0));
        let (here, there) = (state.clone(), state);
        let (seen, said) = (ready.clone(), ready);
        let ((saw, after), wake) = order.race(
            move || {
                assert_eq!(here.begin(), Begin::Poll);
                // Relaxed: ordered by the state alone, as a future's own fields are.
                let saw = seen.load(Ordering::Relaxed);
                (saw, pause(&here))
            },
            move || {
                // Relaxed: as above.
                said.store(1, Ordering::Relaxed);
                there.wake_by_ref()
            },
        );
        let again = usize::from(after == Pause::Again) + usize::from(wake == Wake::Queue);
        assert!(again <= 1, "queued twice");
        assert!(saw == 1 || again == 1, "a wake-up is lost");
    });
}

#[test]
fn loom_wake_against_the_end_of_a_poll() {
    woken_while_polled(State::pause);
}

/// The negative control: the runner does not look at what happened meanwhile.
#[test]
#[should_panic(expected = "is lost")]
fn loom_wake_against_the_end_of_a_deaf_poll_fails() {
    woken_while_polled(|state| {
        state.pause();
        Pause::Waits
    });
}

/// Two wakers at once queue it once.
#[test]
fn loom_two_wakes_queue_once() {
    explore(3, |order| {
        let state = Arc::new(State::new());
        assert_eq!(state.begin(), Begin::Poll);
        assert_eq!(state.pause(), Pause::Waits);
        let (a, b) = (state.clone(), state.clone());
        // The second gives up a reference of its own.
        state.add_reference();
        let (first, second) = order.race(move || a.wake_by_ref(), move || b.wake());
        let queued = [first, second]
            .iter()
            .filter(|&&w| w == Wake::Queue)
            .count();
        assert_eq!(queued, 1, "{first:?} and {second:?}");
        assert_eq!(state.begin(), Begin::Poll);
    });
}

/// An abort against a poll that ends: the future is polled or dropped, never both, and never by two.
#[test]
fn loom_abort_against_a_poll() {
    explore(3, |order| {
        let state = Arc::new(State::new());
        let future = Arc::new(Plain::new(0));
        let (here, there) = (state.clone(), state.clone());
        let touched = future.clone();
        let (after, abort) = order.race(
            move || {
                let begin = here.begin();
                touched.set(1);
                match begin {
                    Begin::Cancel => Pause::Cancel,
                    Begin::Poll => here.pause(),
                }
            },
            move || there.abort(),
        );
        match (after, abort) {
            (Pause::Cancel, Wake::Nothing) => {}
            (Pause::Waits, Wake::Queue) => assert_eq!(state.begin(), Begin::Cancel),
            other => panic!("{other:?}"),
        }
        future.set(2);
    });
}

/// The handle leaves a waker while the G ends: it is woken, or the handle sees the end; and the waker's place is never
/// written and read at once.
#[test]
fn loom_join_against_the_end() {
    explore(3, |order| {
        let state = Arc::new(State::new());
        let place = Arc::new(Plain::new(0));
        let output = Arc::new(Plain::new(0));
        assert_eq!(state.begin(), Begin::Poll);
        let (runner, handle) = (state.clone(), state);
        let (read, write) = (place.clone(), place);
        let (stored, taken) = (output.clone(), output);
        let (woken, waits) = order.race(
            move || {
                stored.set(7);
                runner.end().has_joiner && read.get() == 1
            },
            move || {
                if !handle.is_done() {
                    write.set(1);
                    if handle.set_joiner() {
                        return true;
                    }
                }
                assert_eq!(taken.get(), 7);
                false
            },
        );
        assert_eq!(woken, waits, "who waits is woken, and nobody else");
    });
}

// ---- run queues ------------------------------------------------------------------------------------------------------

/// Everything that was put in comes out once, whoever takes.
#[test]
fn loom_owner_against_a_thief() {
    explore(3, |order| {
        let (from, to) = (
            Arc::new(RunQueue::<usize>::new()),
            Arc::new(RunQueue::<usize>::new()),
        );
        from.put(1).unwrap();
        from.put(2).unwrap();
        let (owner, victim, thief) = (from.clone(), from.clone(), to.clone());
        let (mut taken, stolen) = order.race(
            move || {
                let mut taken = Vec::new();
                taken.extend(owner.take());
                owner.put(3).unwrap();
                taken.extend(owner.put_next(4));
                taken.extend(owner.take());
                taken
            },
            move || victim.steal_into(&thief, true),
        );
        taken.extend(stolen);
        taken.extend(std::iter::from_fn(|| from.take_next()));
        taken.extend(std::iter::from_fn(|| from.take()));
        taken.extend(std::iter::from_fn(|| to.take()));
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3, 4]);
    });
}

/// The ring comes round while a thief reads: what it read is its own only if nobody was quicker.
#[test]
fn loom_a_ring_that_comes_round() {
    explore(3, |order| {
        let (from, to) = (
            Arc::new(RunQueue::<usize>::new()),
            Arc::new(RunQueue::<usize>::new()),
        );
        for number in 1..=3 {
            from.put(number).unwrap();
        }
        let (owner, victim, thief) = (from.clone(), from.clone(), to.clone());
        let (mut taken, stolen) = order.race(
            move || {
                let mut taken = Vec::new();
                for number in 4..=6 {
                    taken.extend(owner.take());
                    if let Err(half) = owner.put(number) {
                        taken.extend(half);
                    }
                }
                taken
            },
            move || victim.steal_into(&thief, false),
        );
        taken.extend(stolen);
        taken.extend(std::iter::from_fn(|| from.take()));
        taken.extend(std::iter::from_fn(|| to.take()));
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3, 4, 5, 6]);
    });
}

// ---- going idle -----------------------------------------------------------------------------------------------------

/// The table in the head of `shared.rs`: a G is made runnable while the last M goes idle.
fn idle_against_work(ordered: bool) {
    explore(3, move |order| {
        let queue = Arc::new(AtomicUsize::new(0));
        let idle = Arc::new(AtomicUsize::new(0));
        let (work, look) = (queue.clone(), queue);
        let (seen, put) = (idle.clone(), idle);
        let (woken, found) = order.race(
            move || {
                // Relaxed (both): the fence orders them, as in `wake_one`.
                work.store(1, Ordering::Relaxed);
                if ordered {
                    fence(Ordering::SeqCst);
                }
                seen.load(Ordering::Relaxed) != 0
            },
            move || {
                // Relaxed (both): as in `go_idle`.
                put.store(1, Ordering::Relaxed);
                if ordered {
                    fence(Ordering::SeqCst);
                }
                look.load(Ordering::Relaxed) != 0
            },
        );
        assert!(woken || found, "work is there and everybody sleeps");
    });
}

#[test]
fn loom_idle_against_work() {
    idle_against_work(true);
}

/// The negative control.
#[test]
#[should_panic(expected = "everybody sleeps")]
fn loom_idle_against_work_without_fences_fails() {
    idle_against_work(false);
}

// ---- a P that changes hands -------------------------------------------------------------------------------------------

/// A P is left Blocked; its M comes back while the monitor takes it away: one of them has it, and what the M did is there.
#[test]
fn loom_hand_off_against_the_way_back() {
    explore(3, |order| {
        let proc = Arc::new(Proc::new(0, Box::new(())));
        let own = Arc::new(Plain::new(0));
        own.set(1);
        proc.set(Status::Blocked);
        let (here, there) = (proc.clone(), proc);
        let (mine, theirs) = (own.clone(), own);
        let (back, taken) = order.race(
            move || {
                let back = here.take_from_call();
                if back {
                    mine.set(2);
                }
                back
            },
            move || {
                let taken = there.take_from_call();
                if taken {
                    theirs.set(3);
                }
                taken
            },
        );
        assert!(back != taken, "one of them");
    });
}

// ---- how many Gs there are --------------------------------------------------------------------------------------------

/// One G lives on; another is spawned on one thread and ends on another. Whoever counts meanwhile does not miss the one.
#[test]
fn loom_a_count_against_a_short_life() {
    explore(3, |order| {
        let census = Arc::new(Census::new(1, 1));
        census.add(0);
        let queue = Arc::new(AtomicUsize::new(0));
        let (spawner, runner, reader) = (census.clone(), census.clone(), census.clone());
        let (put, take) = (queue.clone(), queue);
        let ((), ended, seen) = order.race3(
            move || {
                spawner.add(0);
                // Release: a run queue.
                put.store(1, Ordering::Release);
            },
            move || {
                // Acquire: pairs with the Release.
                let taken = take.load(Ordering::Acquire) == 1;
                if taken {
                    runner.end(Some(0));
                }
                taken
            },
            move || reader.len(),
        );
        assert!((1..=2).contains(&seen), "{seen} Gs");
        assert_eq!(census.len(), if ended { 1 } else { 2 });
    });
}

// ---- a stop and a P that changes hands --------------------------------------------------------------------------------

/// A P, its mutator, and what only its holder touches; what is written while the world is stopped.
struct Handed {
    world: World,
    proc: Proc,
    mutator: MutatorRef,
    cache: Plain<u32>,
    phase: Plain<u32>,
}

// SAFETY: the mutator is used by the P's holder alone; loom watches the plain variables.
unsafe impl Send for Handed {}
// SAFETY: as above.
unsafe impl Sync for Handed {}

impl Handed {
    fn new() -> Arc<Self> {
        let world = World::new();
        let mutator = world.register(std::panic::Location::caller(), false);
        let proc = Proc::new(0, Box::new(()));
        proc.set(Status::Running);
        Arc::new(Self {
            world,
            proc,
            mutator,
            cache: Plain::new(0),
            phase: Plain::new(0),
        })
    }

    /// `with`, on whichever thread holds the P.
    fn section(&self) {
        // SAFETY: 1. unregistered last. 2. only its word is used.
        let state = unsafe { self.mutator.get() };
        self.world.leave_blocked(state, &mut || {});
        assert_eq!(self.phase.get() % 2, 0, "a section in a stop");
        self.cache.set(self.cache.get() + 1);
        self.world.enter_blocked(state, &mut || {});
    }

    /// `Collector::stopped`: the collector looks into every mutator.
    fn stop(&self) -> u32 {
        let stopped = self.world.stop(Request::Stop, |_| Patience::Look);
        let stopped = stopped.expect("nobody is lost");
        self.phase.set(self.phase.get() + 1);
        let cached = self.cache.get();
        self.phase.set(self.phase.get() + 1);
        self.world.withdraw_stop(stopped);
        self.world.open_gate();
        cached
    }
}

/// One M has a section, and goes into a blocking call; another takes the P over (or finds that its M took it back) and
/// has a section with the same mutator, while the world is stopped: the stop meets no section, and sees what each did.
fn stop_against_a_hand_over(stop: fn(&Handed) -> u32) {
    explore(2, move |order| {
        let handed = Handed::new();
        let (first, second, third) = (handed.clone(), handed.clone(), handed.clone());
        let ((), taken, cached) = order.race3(
            move || {
                first.section();
                first.proc.set(Status::Blocked);
                if first.proc.take_from_call() {
                    first.section();
                }
            },
            move || {
                let taken = second.proc.take_from_call();
                if taken {
                    second.section();
                }
                taken
            },
            move || stop(&third),
        );
        assert!(cached <= 2);
        assert_eq!(handed.cache.get(), 2, "taken: {taken}");
        handed.world.unregister(handed.mutator);
    });
}

#[test]
fn loom_stop_against_a_proc_that_is_handed_off() {
    stop_against_a_hand_over(Handed::stop);
}

/// The negative control: a stop that forgets the P's mutator, because no thread is attached with it.
#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn loom_stop_that_forgets_a_handed_proc_fails() {
    stop_against_a_hand_over(|handed| {
        handed.phase.set(handed.phase.get() + 1);
        loom::thread::yield_now();
        handed.phase.set(handed.phase.get() + 1);
        0
    });
}
