//! Who is idle, what waits in the global queue, and who looks for work: the few variables by which nothing that was made
//! runnable is slept over.
//!
//! Who makes work puts it into a queue, and then looks whether a P is idle; who goes idle puts its P into the list, and then
//! looks into all queues. Each has a sequentially consistent fence between the two, so one of them sees the other:
//!
//! | makes work ([`push`](Roster::push) or a P's queue, then [`call_one`](Roster::call_one)) | goes idle ([`give_up`](Roster::give_up), then a look) |
//! |---|---|
//! | store the G | store idle, spinning |
//! | fence | fence |
//! | load idle, spinning | load the queues |
//!
//! Who makes work calls nobody while somebody looks for it already (`spinning`), and a caller counts itself as one who looks
//! until it has a P for the M that it wakes. If it finds none, somebody else took the last one, and it counts itself out
//! **under the lock**. Were it later, that P could run what is there, go idle and be seen in the list by a third party, which
//! still reads that somebody looks, and leaves its G where it is: a runnable G, every P idle, nobody comes. Under the lock the
//! count is down before any P is in the list again, and whoever sees the P (through the fences) sees the count.
//! Go lowers `nmspinning` in the same place (runtime, `wakep` of `proc.go`). The models at the end run this code.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::sched::list::{Chain, Chained};
use crate::sched::machine::Machine;
use crate::sys::lock::{MutexGuard, Unranked};
use crate::sys::sync::{AtomicUsize, Ordering, fence};
use crate::sys::thread::JoinHandle as Thread;

/// Under the scheduler's lock.
pub(crate) struct Lists<N> {
    global: Chain<N>,
    procs: Vec<usize>,
    /// Ps that stand in for those whose G does not make room.
    pub(crate) spares: Vec<usize>,
    /// Ms that sleep until they are given a P.
    pub(crate) machines: Vec<Arc<Machine>>,
    /// All Ms.
    pub(crate) all: Vec<Arc<Machine>>,
    /// Ms that exist, or are about to.
    pub(crate) started: usize,
    pub(crate) next_id: u64,
    pub(crate) threads: Vec<Thread<()>>,
}

/// See the module's head.
pub(crate) struct Roster<N> {
    lists: Unranked<Lists<N>>,
    /// Mirrors of what is under the lock: idle Ps, and Gs in the global queue.
    idle: AtomicUsize,
    queued: AtomicUsize,
    /// Ms that look for work, and callers that are about to wake one.
    spinning: AtomicUsize,
}

impl<N> fmt::Debug for Roster<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster")
            .field("idle", &self.idle)
            .field("queued", &self.queued)
            .field("spinning", &self.spinning)
            .finish_non_exhaustive()
    }
}

impl<N: Chained> Roster<N> {
    /// `procs` idle Ps, and `spares` behind them.
    pub(crate) fn new(procs: usize, spares: usize) -> Self {
        Self {
            lists: Unranked::new(Lists {
                global: Chain::new(),
                procs: (0..procs).rev().collect(),
                spares: (procs..procs + spares).rev().collect(),
                machines: Vec::new(),
                all: Vec::new(),
                started: 0,
                next_id: 0,
                threads: Vec::new(),
            }),
            idle: AtomicUsize::new(procs),
            queued: AtomicUsize::new(0),
            spinning: AtomicUsize::new(0),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Lists<N>> {
        self.lists.lock()
    }

    /// How many Ps are idle: an estimate, exact for who has come through a fence.
    pub(crate) fn idle(&self) -> usize {
        // Relaxed: as documented.
        self.idle.load(Ordering::Relaxed)
    }

    /// How many Gs are in the global queue: as [`idle`](Self::idle).
    pub(crate) fn queued(&self) -> usize {
        // Relaxed: as documented.
        self.queued.load(Ordering::Relaxed)
    }

    /// How many look for work: as [`idle`](Self::idle).
    pub(crate) fn spinning(&self) -> usize {
        // Relaxed: as documented.
        self.spinning.load(Ordering::Relaxed)
    }

    // ---- the global queue ------------------------------------------------------------------------------------

    /// Puts nodes at the end of the global queue.
    ///
    /// # Safety
    /// 1. Each is in no chain, and lives and stays where it is until it is taken out.
    pub(crate) unsafe fn push(&self, nodes: impl IntoIterator<Item = NonNull<N>>) {
        let mut lists = self.lists.lock();
        for node in nodes {
            // SAFETY: 1. clause 1. 2. the lock is held.
            unsafe { lists.global.push_back(node) };
        }
        // Relaxed: the fence in `call_one` or the lock orders it.
        self.queued.store(lists.global.len(), Ordering::Relaxed);
    }

    /// Takes the oldest nodes out: as many as `count` says for a queue of that length.
    pub(crate) fn pop(&self, count: impl FnOnce(usize) -> usize) -> Vec<NonNull<N>> {
        if self.queued() == 0 {
            return Vec::new();
        }
        let mut lists = self.lists.lock();
        let len = lists.global.len();
        let count = count(len).min(len);
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            // SAFETY: 1. the lock is held.
            taken.extend(unsafe { lists.global.pop_front() });
        }
        // Relaxed: as in `push`.
        self.queued.store(lists.global.len(), Ordering::Relaxed);
        taken
    }

    // ---- Ps ----------------------------------------------------------------------------------------------------

    /// After work was made: the P that somebody is to look for it with, if one is idle and nobody looks yet. Who looks is
    /// counted already.
    pub(crate) fn call_one(&self) -> Option<usize> {
        // SeqCst: see the module's head.
        fence(Ordering::SeqCst);
        if self.idle() == 0 || self.spinning() != 0 {
            return None;
        }
        // AcqRel: one caller at a time. Relaxed on failure: somebody looks.
        self.spinning
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        self.take_for_a_search()
    }

    /// The second half of [`call_one`](Self::call_one): a P, or the caller is counted out again.
    fn take_for_a_search(&self) -> Option<usize> {
        let mut lists = self.lists.lock();
        let taken = self.pop_idle(&mut lists);
        if taken.is_none() {
            self.end_spinning();
        }
        taken
    }

    fn pop_idle(&self, lists: &mut Lists<N>) -> Option<usize> {
        let index = lists.procs.pop()?;
        // Relaxed: under the lock.
        self.idle.store(lists.procs.len(), Ordering::Relaxed);
        Some(index)
    }

    /// An idle P, for who has something to run.
    pub(crate) fn take_idle(&self) -> Option<usize> {
        if self.idle() == 0 {
            return None;
        }
        self.pop_idle(&mut self.lists.lock())
    }

    /// The P goes to the idle ones, from somebody who has not looked for work with it.
    pub(crate) fn put_idle(&self, index: usize) {
        let mut lists = self.lists.lock();
        lists.procs.push(index);
        // Relaxed: the fence in `give_up` orders it against the queues.
        self.idle.store(lists.procs.len(), Ordering::Relaxed);
    }

    /// The P goes to the idle ones, from an M that found nothing. It looks into all queues once more after this.
    pub(crate) fn give_up(&self, index: usize, was_spinning: bool) {
        self.put_idle(index);
        if was_spinning {
            self.end_spinning();
        }
        // SeqCst: see the module's head.
        fence(Ordering::SeqCst);
    }

    /// One more looks for work.
    pub(crate) fn begin_spinning(&self) {
        // AcqRel: as in `call_one`.
        self.spinning.fetch_add(1, Ordering::AcqRel);
    }

    /// One looks no more.
    pub(crate) fn end_spinning(&self) {
        // AcqRel: as in `call_one`.
        self.spinning.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sched::list::Next;
    use crate::sys::model::explore;

    /// Stands for a G.
    struct Bead(Next<Self>);

    // SAFETY: 1. `0` is the only one.
    unsafe impl Chained for Bead {
        fn next(node: NonNull<Self>) -> NonNull<Next<Self>> {
            // SAFETY: inside the node.
            NonNull::from(unsafe { &(*node.as_ptr()).0 })
        }
    }

    /// One P, and threads that make work for it or run it.
    struct Scene {
        roster: Roster<Bead>,
        ran: AtomicUsize,
    }

    // SAFETY: beads are touched under the roster's lock.
    unsafe impl Send for Scene {}
    // SAFETY: as above.
    unsafe impl Sync for Scene {}

    impl Scene {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                roster: Roster::new(1, 0),
                ran: AtomicUsize::new(0),
            })
        }

        fn put(&self) {
            let bead = NonNull::from(Box::leak(Box::new(Bead(Next::new()))));
            // SAFETY: 1. new, and freed by who takes it out.
            unsafe { self.roster.push([bead]) };
        }

        fn make(&self) {
            self.put();
            self.wake_one();
        }

        fn wake_one(&self) {
            if let Some(index) = self.roster.call_one() {
                self.run(index, true);
            }
        }

        /// What an M does with a P, until it sleeps: `find`, `execute`, `go_idle`.
        fn run(&self, index: usize, mut spinning: bool) {
            loop {
                let found = self.roster.pop(|_| 1);
                for bead in found {
                    // SAFETY: of `put`, and taken out once.
                    drop(unsafe { Box::from_raw(bead.as_ptr()) });
                    if std::mem::take(&mut spinning) {
                        self.roster.end_spinning();
                        self.wake_one();
                    }
                    // Relaxed: a count, read at the end.
                    self.ran.fetch_add(1, Ordering::Relaxed);
                }
                if self.roster.queued() > 0 {
                    continue;
                }
                self.roster.give_up(index, std::mem::take(&mut spinning));
                if self.roster.queued() == 0 || self.roster.take_idle().is_none() {
                    return;
                }
                self.roster.begin_spinning();
                spinning = true;
            }
        }

        fn ran(&self) -> usize {
            // Relaxed: the threads have been joined.
            self.ran.load(Ordering::Relaxed)
        }
    }

    /// Two threads make a G each, while a third takes the P, as an M that comes back from a call does.
    #[test]
    fn loom_two_make_work_and_one_takes_the_proc() {
        explore(2, |order| {
            let scene = Scene::new();
            let (first, second, third) = (scene.clone(), scene.clone(), scene.clone());
            order.race3(
                move || first.make(),
                move || {
                    if let Some(index) = third.roster.take_idle() {
                        third.run(index, false);
                    }
                },
                move || second.make(),
            );
            assert_eq!(scene.ran(), 2, "a G is runnable and every P is idle");
        });
    }

    /// A caller counts as one who looks, and finds that the P is gone. Meanwhile the P runs what is there and goes idle, and
    /// another one makes work.
    fn a_caller_that_finds_no_proc(second_half: fn(&Roster<Bead>) -> Option<usize>) {
        explore(3, move |order| {
            let scene = Scene::new();
            scene.put();
            let index = scene.roster.take_idle().expect("one is idle");
            scene.roster.begin_spinning(); // the caller, between the two halves
            let (first, second, third) = (scene.clone(), scene.clone(), scene.clone());
            order.race3(
                move || {
                    if let Some(index) = second_half(&first.roster) {
                        first.run(index, true);
                    }
                },
                move || third.run(index, false),
                move || second.make(),
            );
            assert_eq!(scene.ran(), 2, "a G is runnable and every P is idle");
        });
    }

    #[test]
    fn loom_a_caller_that_finds_no_proc() {
        a_caller_that_finds_no_proc(Roster::take_for_a_search);
    }

    /// The negative control: the caller counts itself out when it has given the lock back.
    #[test]
    #[should_panic(expected = "every P is idle")]
    fn loom_a_caller_that_counts_itself_out_late_fails() {
        a_caller_that_finds_no_proc(|roster| {
            let taken = roster.take_idle();
            if taken.is_none() {
                roster.end_spinning();
            }
            taken
        });
    }
}
