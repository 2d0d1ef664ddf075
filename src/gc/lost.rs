//! Mutators that were not dropped: forgotten or leaked ones whose threads have ended.
//!
//! **Claim.** What safe code can name through a mutator is not freed before that mutator is dropped
//! or passes a safepoint. `Box::leak` makes a `&'static Mutator`, whose `alloc` gives `&'static T`,
//! and that is `Send`: so the end of a thread must not detach its mutator. It did once, by a pthread
//! key's destructor, and other threads read freed objects.
//!
//! **The rule.** A record leaves the registry through the drop of its `Mutator` and in no other
//! way. Until then it is Running, nobody but its own thread touches it, and no stop or handshake is
//! complete without its answer. All safety rests on that; what follows only sees to it that nobody
//! hangs.
//!
//! | a mutator | is found out by | and then |
//! |---|---|---|
//! | *departs* | the destructor of a thread-local, on its thread (`api/current.rs`) | no cycle begins until it is dropped or lost; one that waits for it goes on waiting |
//! | is *lost* | whoever waits, or looks at figures: its thread has ended, or [`GRACE`] has passed | the heap is *suspended*: see below |
//! | *returns* | its drop | the heap collects again |
//!
//! The destructor of the thread-local often runs before that of a user's own, which holds the
//! mutator and drops it properly; until the thread has ended that is the likely course, so a
//! mutator that departs is still waited for.
//!
//! While the heap is suspended nothing waits for the lost mutator but the collector's own thread.
//! No cycle begins; a stop is taken back (`World::give_up`), and the threads that have answered it
//! go on; marking that cannot end stays on, and its handshake stays open, which stops nobody.
//! Whoever waits for a cycle, pays for what it allocates, or stalls, goes on at once. Memory grows
//! up to the heap's limits. The sweep of a cycle whose last stop the mutator has passed is
//! finished: what it can name was marked then, or is younger.
//!
//! A verifier only reads. So a lost mutator whose thread has ended counts as stopped for it; one whose
//! thread may still run ends the verification with an error.
//!
//! **Invariants**
//! - `[U3]` `Registry::departed` names registered mutators only; `World::departed` and `World::lost`
//!   count them, and those of them that are lost.

use std::panic::Location;
use std::time::Duration;

use crate::gc::collector::Collector;
use crate::gc::events::Event;
use crate::gc::mutator::{MutatorRef, MutatorState};
use crate::gc::state_word::Request;
use crate::gc::world::{Patience, World};
use crate::sys::MODELLED;
use crate::sys::clock::Moment;
use crate::sys::os_thread::OsThread;
use crate::sys::sabotage::{self, Fault};

/// How long a mutator whose thread ends is waited for, if the thread does not end: its last
/// destructors may wait for somebody who waits for the collector.
const GRACE: Duration = Duration::from_secs(1);
/// The same where the system does not tell whether a thread has ended.
const BLIND_GRACE: Duration = Duration::from_millis(250);
/// How often a suspended heap looks at its state when nobody wakes it.
pub(crate) const NAP: Duration = Duration::from_secs(1);

/// A mutator whose thread ends and that was not dropped.
#[derive(Debug)]
pub(crate) struct Departed {
    pub(crate) mutator: MutatorRef,
    since: Moment,
    is_lost: bool,
    /// The system says that its thread has ended.
    has_ended: bool,
}

impl Departed {
    /// One whose departure has just been noticed.
    fn now(mutator: MutatorRef) -> Self {
        Self {
            mutator,
            since: Moment::now(),
            is_lost: false,
            has_ended: false,
        }
    }

    pub(crate) fn is(&self, mutator: MutatorRef) -> bool {
        self.mutator == mutator
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether it is lost and cannot run any more.
    pub(crate) fn is_still(&self) -> bool {
        self.is_lost && self.has_ended
    }
}

/// Whose mutator it is, for reports.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) thread: String,
    os_thread: OsThread,
    pub(crate) attached_at: &'static Location<'static>,
}

impl Owner {
    fn of(state: &MutatorState) -> Self {
        Self {
            thread: state.thread_name(),
            os_thread: state.os_thread(),
            attached_at: state.attached_at,
        }
    }
}

/// Whether a mutator whose thread began to end `age` ago will not be dropped any more, as far as one
/// can tell.
fn is_given_up(thread_has_ended: Option<bool>, age: Duration) -> bool {
    match thread_has_ended {
        _ if MODELLED => true,
        Some(true) => true,
        Some(false) => age >= GRACE,
        None => age >= BLIND_GRACE,
    }
}

impl World {
    /// The thread of `mutator` ends, and has not dropped it.
    pub(crate) fn note_departure(&self, mutator: MutatorRef) {
        {
            let mut registry = self.registry();
            registry.departed.push(Departed::now(mutator));
            self.count_departed(&registry.departed);
        }
        self.wake_askers();
    }

    /// Takes those for lost that are; returns who is new among them.
    pub(crate) fn find_lost(&self) -> Vec<Owner> {
        let mut registry = self.registry();
        let mut found = Vec::new();
        for departed in registry.departed.iter_mut().filter(|d| !d.is_still()) {
            // SAFETY: 1. [U3] registered, and the registry's lock is held. 2. only what never
            // changes, and atomics.
            let state = unsafe { departed.mutator.get() };
            let age = Duration::from_nanos(departed.since.elapsed_ns());
            let has_ended = state.os_thread().has_ended();
            departed.has_ended = has_ended == Some(true);
            if !departed.is_lost && is_given_up(has_ended, age) {
                departed.is_lost = true;
                found.push(Owner::of(state));
            }
        }
        self.count_departed(&registry.departed);
        found
    }

    /// Of those that have not answered `request`, those whose threads have ended without anybody
    /// noticing depart now: mutators that were made by a destructor, at the very end of a thread.
    fn find_ended(&self, request: Request) {
        if sabotage::is_on(Fault::LossNotNoted) {
            return;
        }
        let ended: Vec<MutatorRef> = self
            .laggards(request)
            .into_iter()
            .filter(|l| l.task == 0 && l.os_thread.has_ended() == Some(true))
            .map(|l| l.mutator)
            .collect();
        if ended.is_empty() {
            return;
        }
        let mut registry = self.registry();
        for mutator in ended {
            let is_registered = registry.mutators.contains(&mutator);
            if is_registered && registry.departed.iter().all(|d| d.mutator != mutator) {
                registry.departed.push(Departed::now(mutator));
            }
        }
        self.count_departed(&registry.departed);
    }

    /// Whether a lost mutator has been asked, and so will be waited for in vain.
    fn is_lost_one_asked(&self, request: Request) -> bool {
        let registry = self.registry();
        // SAFETY: 1. [U3] as in `find_lost`. 2. only the word is used.
        let word = |d: &Departed| unsafe { d.mutator.get() }.word.is_running_with(request);
        registry.departed.iter().any(|d| d.is_lost && word(d))
    }

    /// Who is lost; `may_run`: and not known to have ended.
    pub(crate) fn lost(&self, may_run: bool) -> Vec<Owner> {
        let registry = self.registry();
        let lost = registry.departed.iter();
        let lost = lost.filter(|d| d.is_lost && !(may_run && d.has_ended));
        // SAFETY: 1. [U3] as in `find_lost`. 2. as there.
        lost.map(|d| Owner::of(unsafe { d.mutator.get() }))
            .collect()
    }
}

pub(crate) fn counts(departed: &[Departed]) -> (usize, usize) {
    let lost = departed.iter().filter(|d| d.is_lost).count();
    (departed.len(), lost)
}

impl Collector {
    /// The thread of `mutator`, which is attached, ends.
    pub(crate) fn note_departure(&self, mutator: MutatorRef) {
        self.world.note_departure(mutator);
        self.wake_for_lost();
    }

    /// Whoever waits for a cycle looks whether there will be one.
    fn wake_for_lost(&self) {
        drop(self.mailbox.lock());
        self.mail.notify_all();
    }

    /// Whether the heap is suspended: a mutator is lost, so no cycle begins or ends.
    #[inline]
    pub(crate) fn is_suspended(&self) -> bool {
        self.world.has_lost()
    }

    /// Looks for lost mutators, and tells of them; whether the heap is suspended.
    pub(crate) fn look_for_lost(&self) -> bool {
        if !self.world.has_departed() {
            return false;
        }
        let found = self.world.find_lost();
        if !found.is_empty() {
            self.wake_for_lost();
            self.pool.wake_all();
            self.assists.release_all();
        }
        for owner in found {
            self.tell(&Event::MutatorLost {
                thread: owner.thread,
                os_thread: owner.os_thread.number(),
                attached_at: owner.attached_at,
            });
        }
        self.is_suspended()
    }

    /// What a wait for answers to `request` does next, as far as lost mutators are concerned.
    /// A stop is given up; a handshake stops nobody, and goes on waiting.
    pub(crate) fn patience(&self, request: Request) -> Patience {
        self.world.find_ended(request);
        match (self.look_for_lost(), request) {
            (false, _) => Patience::Look,
            (true, Request::StopToVerify) if !self.world.is_lost_one_asked(request) => {
                Patience::Look
            }
            (true, Request::Handshake) => Patience::Nap(NAP),
            (true, _) => Patience::GiveUp,
        }
    }

    /// Why the world cannot be stopped even to look at it, if a lost mutator may still run.
    pub(crate) fn why_not_verified(&self) -> Option<String> {
        let all = self.world.lost(true);
        if all.is_empty() {
            return None;
        }
        let all = all.iter().map(|owner| {
            format!(
                "the thread \"{}\" ends without having dropped the mutator that it attached at {}",
                owner.thread, owner.attached_at
            )
        });
        let who = all.collect::<Vec<_>>().join("; ");
        Some(format!(
            "the heap cannot be stopped, and is not verified: {who}"
        ))
    }

    /// Waits until no mutator is lost. For the collector's thread, in the middle of a cycle.
    pub(crate) fn wait_while_suspended(&self) {
        let mut mail = self.mailbox.lock();
        while self.is_suspended() {
            mail.wait_on(&self.mail, NAP);
        }
    }

    /// Takes this thread's running mutator off its heap.
    pub(crate) fn detach(&self, mutator: MutatorRef) {
        {
            // SAFETY: 1. registered until `unregister` below. 2. this is the mutator's own thread.
            let state = unsafe { mutator.get() };
            self.strip(state);
            self.world
                .enter_blocked(state, &mut || self.catch_up(state));
        }
        if self.world.unregister(mutator) {
            // It had departed: whatever was put off goes on.
            self.wake_for_lost();
        }
    }

    /// Brings a mutator that goes away in line: its buffers and spans go back.
    fn strip(&self, mutator: &MutatorState) {
        if sabotage::is_on(Fault::BufferLostAtDetach) {
            mutator.local.barrier.borrow_mut().clear();
        }
        self.catch_up(mutator);
        self.flush_cache(&mutator.local);
        self.heap.give_back_pages(&mutator.local.cache);
        self.roots
            .give_back(&mut mutator.local.free_roots.borrow_mut());
    }
}
