//! All mutators: who they are, how they are stopped, and the handshake.
//!
//! A stop: under the registry's lock every mutator is asked; those found Running are counted and acknowledge when they
//! reach a safepoint; Blocked ones cannot leave. A handshake is a stop that does not wait: each mutator acts at its
//! next poll, and the collector acts for the Blocked ones.
//!
//! Two kinds of stop exist: for a phase change (by the collector's thread only), and to verify (by any thread, also an
//! attached one). They are counted apart.
//!
//! **Invariants**
//! - `[R1]` `pending` of a request is the number of mutators found Running that have not acknowledged, plus one while
//!   the asker is still asking. A stop that is given up acknowledges for those whose request it takes back unanswered.

use std::panic::Location;
use std::time::Duration;

use crate::base::crowd::shrink_after_crowd;
use crate::gc::assist::FIRST_CREDIT;
use crate::gc::heaps;
use crate::gc::late::{LOOK, Laggard};
use crate::gc::lost::{self, Departed};
use crate::gc::mutator::{Local, MutatorRef, MutatorState};
use crate::gc::standstill::first_section;
use crate::gc::state_word::{Asked, Found, Request, StateWord};
use crate::gc::stopped::{Stopped, StoppedToRead};
use crate::sys::MODELLED;
use crate::sys::clock::Moment;
use crate::sys::fatal::fatal;
use crate::sys::lock::{Condvar, Held, Rank, Ranked, Unranked};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU64, AtomicUsize, Ordering, spin_hint};

/// How long a stopped mutator spins before it parks: about as long as a short stop.
const SPINS: u32 = if MODELLED { 0 } else { 400 };
/// How often the collector looks before it sleeps: those that run answer at their next poll, and a processor that went
/// idle takes longer to come back than a stop should last.
const LOOKS: u32 = if MODELLED { 0 } else { 400 };
/// How long a stopped mutator sleeps before it looks for itself whether the stop is over.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// For how many mutators the registry keeps room, however few there are.
const LISTED: usize = 256;

/// The mutators and what is asked of them now.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) mutators: Vec<MutatorRef>,
    stopping: Option<Request>,
    verifying: bool,
    /// Mutators whose threads end, or have ended, and that were not dropped. [U3]
    pub(crate) departed: Vec<Departed>,
    /// The number that the last mutator got.
    last_mutator: u32,
}

impl Registry {
    fn is_lost(&self, mutator: MutatorRef) -> bool {
        self.departed.iter().any(|d| d.is(mutator) && d.is_lost())
    }

    /// All mutators.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &MutatorState> + '_ {
        // SAFETY: 1. registered, and the registry's lock is held while `self` is borrowed. 2. the callers' part.
        self.mutators.iter().map(|m| unsafe { m.get() })
    }
}

/// Acknowledgements that one kind of asker waits for.
#[derive(Debug)]
struct Pending {
    count: AtomicUsize,
    lock: Unranked<()>,
    zero: Condvar,
}

impl Pending {
    fn new() -> Self {
        Self {
            count: AtomicUsize::new(0),
            lock: Unranked::new(()),
            zero: Condvar::new(),
        }
    }

    fn add(&self) {
        // Relaxed: the asker's own count; the acknowledgement is the ordered part.
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes an acknowledgement back, if others are missing; else all are there, and it is too late.
    fn take_back(&self) -> bool {
        // Relaxed (both): as in `add`; the asker cannot see 0 before this mutator acknowledges again.
        let more = |count: usize| (count != 0).then_some(count + 1);
        self.count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn acknowledge(&self) {
        // AcqRel: releases the mutator's record to the asker, and gathers the other mutators' releases.
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            drop(self.lock.lock());
            self.zero.notify_all();
        }
    }

    fn is_zero(&self) -> bool {
        // Acquire: pairs with `acknowledge`.
        self.count.load(Ordering::Acquire) == 0
    }

    /// Waits for zero. Each time that its patience is at an end, and when it is woken because `is_in_doubt`, it asks `late`
    /// how to go on, with how long it has waited. False if that gave up.
    fn wait(
        &self,
        is_in_doubt: impl Fn() -> bool,
        mut late: impl FnMut(Duration) -> Patience,
    ) -> bool {
        let start = Moment::now();
        for _ in 0..LOOKS {
            if self.is_zero() {
                return true;
            }
            spin_hint();
        }
        let mut nap = LOOK;
        let mut is_late = false;
        loop {
            if is_late {
                // Without the lock: it tells the user.
                match late(Duration::from_nanos(start.elapsed_ns())) {
                    Patience::Look => nap = LOOK,
                    Patience::Nap(long) => nap = long,
                    Patience::GiveUp => return self.is_zero(),
                }
            }
            let mut guard = self.lock.lock();
            if self.is_zero() {
                return true;
            }
            // Under the lock, which `wake` takes: a doubt that comes after this look ends the sleep.
            if !is_late && is_in_doubt() {
                is_late = true;
                continue;
            }
            let is_over = self.zero.wait_for(&mut guard, nap).timed_out();
            is_late = is_over && !self.is_zero();
        }
    }

    /// Has who waits look again.
    fn wake(&self) {
        drop(self.lock.lock());
        self.zero.notify_all();
    }
}

/// How the asker of a stop or handshake goes on when answers are late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It looks again soon.
    Look,
    /// It looks again after that time, or when something has changed.
    Nap(Duration),
    /// It takes the request back.
    GiveUp,
}

/// Figures of the registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadCount {
    pub(crate) mutators: usize,
    pub(crate) running: usize,
    pub(crate) lost: usize,
    /// Free root slots that mutators keep.
    pub(crate) root_stocks: usize,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct World {
    registry: Ranked<Registry>,
    /// A [`Phase`], as one number. Written under the registry's lock, in a stop.
    phase: AtomicU64,
    stops: Pending,
    verify_stops: Pending,
    handshakes: Pending,
    gate: Unranked<()>,
    open: Condvar,
    /// Mutators that run user code, for the number of idle processors.
    running: AtomicUsize,
    /// Mutators that have departed, and those of them that are lost. [U3]
    departed: AtomicUsize,
    lost: AtomicUsize,
}

/// What the collector does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    /// The number of the running cycle, or of the last.
    pub(crate) cycle: u32,
    /// Marking runs: edges are recorded before they change, and objects are born black.
    pub(crate) marks: bool,
}

impl Phase {
    fn to_bits(self) -> u64 {
        u64::from(self.cycle) << 1 | u64::from(self.marks)
    }

    fn from_bits(bits: u64) -> Self {
        Self {
            cycle: (bits >> 1) as u32,
            marks: bits & 1 != 0,
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let registry = Registry {
            mutators: Vec::new(),
            stopping: None,
            verifying: false,
            departed: Vec::new(),
            last_mutator: 0,
        };
        Self {
            registry: Ranked::new(Rank::Registry, registry),
            phase: AtomicU64::new(0),
            stops: Pending::new(),
            verify_stops: Pending::new(),
            handshakes: Pending::new(),
            gate: Unranked::new(()),
            open: Condvar::new(),
            running: AtomicUsize::new(0),
            departed: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        }
    }

    /// Whether a mutator has departed: its thread ends and it was not dropped.
    #[inline]
    pub(crate) fn has_departed(&self) -> bool {
        // Relaxed: whoever sleeps is woken after the change, under a lock; a late look by others costs time only.
        self.departed.load(Ordering::Relaxed) != 0
    }

    /// Whether a mutator is lost.
    #[inline]
    pub(crate) fn has_lost(&self) -> bool {
        // Relaxed: as above.
        self.lost.load(Ordering::Relaxed) != 0
    }

    /// [U3] After a change of the list, under the registry's lock.
    pub(crate) fn count_departed(&self, departed: &[Departed]) {
        let (all, lost) = lost::counts(departed);
        // Relaxed (both): as above.
        self.departed.store(all, Ordering::Relaxed);
        self.lost.store(lost, Ordering::Relaxed);
    }

    /// Has those who wait for mutators look again: one has departed.
    pub(crate) fn wake_askers(&self) {
        for pending in [&self.stops, &self.verify_stops, &self.handshakes] {
            pending.wake();
        }
    }

    /// What the collector does now. O(1), no lock.
    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        // Acquire: pairs with the Release in `change_phase`: what was set up before marking is there.
        Phase::from_bits(self.phase.load(Ordering::Acquire))
    }

    /// From one phase to the next. `tell` is called for each mutator; who attaches later is born
    /// into the new phase.
    pub(crate) fn change_phase(
        &self,
        phase: Phase,
        _stopped: &Stopped<'_>,
        mut tell: impl FnMut(&Local),
    ) {
        let registry = self.registry.lock();
        // Release: pairs with the Acquire in `phase`.
        self.phase.store(phase.to_bits(), Ordering::Release);
        registry.iter().for_each(|mutator| tell(&mutator.local));
    }

    /// The number that the heap has before its first cycle. Nobody uses it yet.
    #[cfg_attr(any(loom, shuttle), allow(dead_code, reason = "a model's heap has 0"))]
    pub(crate) fn set_first_cycle(&self, cycle: u32) {
        let phase = Phase {
            cycle,
            marks: false,
        };
        // Release: as in `change_phase`.
        self.phase.store(phase.to_bits(), Ordering::Release);
    }

    pub(crate) fn registry(&self) -> Held<'_, Registry> {
        self.registry.lock()
    }

    /// Mutators that run just now (an estimate).
    pub(crate) fn running(&self) -> usize {
        // Relaxed: an estimate.
        self.running.load(Ordering::Relaxed)
    }

    /// How many mutators there are, and what they have.
    pub(crate) fn head_count(&self) -> HeadCount {
        let registry = self.registry.lock();
        let (_, lost) = lost::counts(&registry.departed);
        HeadCount {
            mutators: registry.mutators.len(),
            running: registry.iter().filter(|m| m.word.is_running()).count(),
            lost,
            root_stocks: registry.iter().map(MutatorState::root_stock).sum(),
        }
    }

    // ---- the mutator's side ----------------------------------------------------------------------------------

    /// Registers a mutator for this thread; it is Blocked, and enters by [`leave_blocked`](Self::leave_blocked).
    pub(crate) fn register(
        &self,
        attached_at: &'static Location<'static>,
        stress: bool,
    ) -> MutatorRef {
        self.register_as(attached_at, stress, MutatorState::new)
    }

    /// Registers a mutator that goes from thread to thread.
    #[cfg(feature = "sched")]
    pub(crate) fn register_for_proc(
        &self,
        built_at: &'static Location<'static>,
        stress: bool,
    ) -> MutatorRef {
        self.register_as(built_at, stress, MutatorState::of_nobody)
    }

    fn register_as(
        &self,
        attached_at: &'static Location<'static>,
        stress: bool,
        make: fn(StateWord, &'static Location<'static>) -> MutatorState,
    ) -> MutatorRef {
        let mut registry = self.registry.lock();
        let word = StateWord::attaching(registry.stopping, registry.verifying, stress);
        let state = make(word, attached_at);
        let phase = self.phase();
        let marking = phase.marks && !sabotage::is_on(Fault::AttachedWithoutBarrier);
        state.local.duty.set_marks(marking);
        state.local.duty.set_checks(heaps::are_several());
        state.local.cycle.set(phase.cycle);
        // Not 0. After 2^32 mutators numbers come again; a verifier may then leave out a frame that is closed.
        registry.last_mutator = registry.last_mutator.wrapping_add(1).max(1);
        state
            .local
            .section
            .set(first_section(registry.last_mutator));
        state.local.credit.set(FIRST_CREDIT);
        let mutator = MutatorRef(std::ptr::NonNull::from(Box::leak(Box::new(state))));
        registry.mutators.push(mutator);
        mutator
    }

    /// Takes a Blocked mutator off the list and frees its record. Says whether it had departed.
    pub(crate) fn unregister(&self, mutator: MutatorRef) -> bool {
        let mut registry = self.registry.lock();
        let Some(at) = registry.mutators.iter().position(|&m| m == mutator) else {
            fatal("a mutator was detached twice");
        };
        registry.mutators.swap_remove(at);
        shrink_after_crowd(&mut registry.mutators, LISTED);
        let departed = registry.departed.len();
        registry.departed.retain(|d| d.mutator != mutator);
        let had_departed = registry.departed.len() != departed;
        self.count_departed(&registry.departed);
        drop(registry);
        // SAFETY: leaked in `register`; off the registry now, so this is the last reference.
        drop(unsafe { Box::from_raw(mutator.0.as_ptr()) });
        had_departed
    }

    /// Runs until no stop is asked: the slow half of a safepoint. `act` is the handshake's action.
    pub(crate) fn stop_and_act(&self, mutator: &MutatorState, act: &mut dyn FnMut()) {
        // Before anybody can find it stopped.
        mutator.local.end_section();
        while let Some(asked) = mutator.word.try_stop() {
            // Relaxed: an estimate.
            self.running.fetch_sub(1, Ordering::Relaxed);
            self.acknowledge_stop(asked);
            self.wait_until(|| mutator.word.try_resume());
            // Relaxed: an estimate.
            self.running.fetch_add(1, Ordering::Relaxed);
        }
        self.act_if_asked(mutator, act);
    }

    fn acknowledge_stop(&self, asked: Asked) {
        if asked.has(Request::Stop) || asked.has(Request::StopToEnd) {
            self.stops.acknowledge();
        }
        if asked.has(Request::StopToVerify) {
            self.verify_stops.acknowledge();
        }
    }

    fn act_if_asked(&self, mutator: &MutatorState, act: &mut dyn FnMut()) {
        if mutator.word.asked().has(Request::Handshake) {
            act();
            mutator.word.withdraw(Request::Handshake);
            self.handshakes.acknowledge();
        }
    }

    /// Running -> Blocked; honours what is asked first.
    pub(crate) fn enter_blocked(&self, mutator: &MutatorState, act: &mut dyn FnMut()) {
        // As in `stop_and_act`.
        mutator.local.end_section();
        while !mutator.word.try_block() {
            self.stop_and_act(mutator, act);
        }
        // Relaxed: an estimate.
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Blocked -> Running, when no stop is asked.
    pub(crate) fn leave_blocked(&self, mutator: &MutatorState, act: &mut dyn FnMut()) {
        self.wait_until(|| mutator.word.try_unblock());
        // Relaxed: an estimate.
        self.running.fetch_add(1, Ordering::Relaxed);
        self.act_if_asked(mutator, act);
    }

    /// Running -> Assisting while `wait` runs. Marking or the sweep runs when this is called.
    pub(crate) fn assist<R>(
        &self,
        mutator: &MutatorState,
        wait: impl FnOnce() -> R,
        act: &mut dyn FnMut(),
    ) -> R {
        let asked = loop {
            match mutator.word.try_assist() {
                Some(asked) => break asked,
                None => self.act_if_asked(mutator, act),
            }
        };
        if asked.has(Request::StopToEnd) {
            self.stops.acknowledge();
        }
        if asked.has(Request::StopToVerify) {
            self.verify_stops.acknowledge();
        }
        // Relaxed: an estimate.
        self.running.fetch_sub(1, Ordering::Relaxed);
        let out = wait();
        self.wait_until(|| self.try_end_assist(mutator));
        // Relaxed: an estimate.
        self.running.fetch_add(1, Ordering::Relaxed);
        self.act_if_asked(mutator, act);
        out
    }

    /// Assisting -> Running. Against a stop only while that waits for others: one of them may be waiting for a lock that
    /// this mutator holds. It will stop at its next safepoint then.
    fn try_end_assist(&self, mutator: &MutatorState) -> bool {
        if mutator.word.try_end_assist() {
            return true;
        }
        let asked = mutator.word.asked();
        let stops = [
            (Request::StopToEnd, &self.stops),
            (Request::StopToVerify, &self.verify_stops),
        ];
        let mut taken_back = stops.map(|_| false);
        for (done, (request, pending)) in taken_back.iter_mut().zip(stops) {
            *done = asked.has(request) && pending.take_back();
        }
        let all = stops.iter().zip(taken_back);
        if all
            .clone()
            .all(|((request, _), back)| back == asked.has(*request))
            && mutator.word.try_end_assist_with(asked)
        {
            return true;
        }
        for ((_, pending), back) in all {
            if back {
                pending.acknowledge();
            }
        }
        false
    }

    fn wait_until(&self, mut done: impl FnMut() -> bool) {
        for _ in 0..SPINS {
            if done() {
                return;
            }
            spin_hint();
        }
        let mut gate = self.gate.lock();
        while !done() {
            self.open.wait_for(&mut gate, LOOK_AGAIN);
        }
    }

    // ---- the collector's side --------------------------------------------------------------------------------

    /// Asks every mutator to stop for a phase change ([`Request::Stop`] or [`Request::StopToEnd`]) and waits until all
    /// have. False if `late` gave up: then nothing is asked any more. Only the collector's thread.
    pub(crate) fn stop(
        &self,
        request: Request,
        late: impl FnMut(Duration) -> Patience,
    ) -> Option<Stopped<'_>> {
        self.stops.add();
        {
            let mut registry = self.registry.lock();
            registry.stopping = Some(request);
            self.ask_all(&registry, request, &self.stops, None);
        }
        self.stops.acknowledge();
        let all_stand = self.stops.wait(|| self.has_departed(), late);
        if !all_stand {
            self.give_up(request, &self.stops, |registry| registry.stopping = None);
            return None;
        }
        Some(Stopped::of(self))
    }

    /// Takes a stop back while some have not answered it, and lets the others go on.
    fn give_up(&self, request: Request, pending: &Pending, forget: impl FnOnce(&mut Registry)) {
        {
            let mut registry = self.registry.lock();
            forget(&mut registry);
            for mutator in registry.iter() {
                // [R1] Who has not answered will not; the others do so, or have.
                if mutator.word.withdraw_unanswered(request) {
                    pending.acknowledge();
                }
            }
        }
        self.open_gate();
        // Those that were about to answer: the next stop counts anew.
        pending.wait(|| false, |_| Patience::Look);
    }

    /// The stop is over: whoever looks may go on. [`open_gate`](Self::open_gate) wakes the others.
    pub(crate) fn withdraw_stop(&self, _stopped: Stopped<'_>) {
        {
            let mut registry = self.registry.lock();
            if let Some(request) = registry.stopping.take() {
                for mutator in registry.iter() {
                    mutator.word.withdraw(request);
                }
            }
        }
    }

    /// Stops everybody but `me`, to look at the heap; one verifier at a time. False if `late` gave up: then nobody is
    /// stopped.
    ///
    /// `me` may hold `Gc`s, so for a phase change it goes on counting as running; for another verifier, which only
    /// reads as well, it counts as stopped while it waits here.
    pub(crate) fn stop_to_verify(
        &self,
        me: Option<MutatorRef>,
        late: impl FnMut(Duration) -> Patience,
    ) -> Option<StoppedToRead<'_>> {
        while !self.try_become_verifier(me) {
            match me {
                None => self.wait_until(|| !self.registry.lock().verifying),
                Some(me) => {
                    // SAFETY: 1. it is this thread's own mutator. 2. only the word is used.
                    let word = &unsafe { me.get() }.word;
                    if word.look().has(Request::StopToVerify) {
                        self.verify_stops.acknowledge();
                    }
                    self.wait_until(|| word.try_unlook());
                }
            }
        }
        let all_stand = self.verify_stops.wait(|| self.has_departed(), late);
        if !all_stand {
            let request = Request::StopToVerify;
            self.give_up(request, &self.verify_stops, |registry| {
                registry.verifying = false;
            });
            // Another verifier may wait for its turn.
            self.open_gate();
            return None;
        }
        Some(StoppedToRead::of(self))
    }

    fn try_become_verifier(&self, me: Option<MutatorRef>) -> bool {
        let mut registry = self.registry.lock();
        if registry.verifying {
            return false;
        }
        registry.verifying = true;
        self.verify_stops.add();
        self.ask_all(&registry, Request::StopToVerify, &self.verify_stops, me);
        self.verify_stops.acknowledge();
        true
    }

    /// The counterpart of [`stop_to_verify`](Self::stop_to_verify).
    pub(crate) fn start_after_verify(&self, _stopped: StoppedToRead<'_>) {
        {
            let mut registry = self.registry.lock();
            registry.verifying = false;
            for mutator in registry.iter() {
                mutator.word.withdraw(Request::StopToVerify);
            }
        }
        self.open_gate();
    }

    /// Wakes mutators that wait for the end of a stop.
    pub(crate) fn open_gate(&self) {
        drop(self.gate.lock());
        self.open.notify_all();
    }

    fn ask_all(
        &self,
        registry: &Registry,
        request: Request,
        pending: &Pending,
        except: Option<MutatorRef>,
    ) {
        let forgotten = registry.mutators.last().copied();
        let forgotten = sabotage::pick(Fault::MutatorForgotten, forgotten, None);
        for &mutator in &registry.mutators {
            if Some(mutator) == except || Some(mutator) == forgotten {
                continue;
            }
            // Nobody runs it any more, and a verifier changes nothing.
            let is_still = |d: &Departed| d.is(mutator) && d.is_still();
            if request == Request::StopToVerify && registry.departed.iter().any(is_still) {
                continue;
            }
            // SAFETY: 1. registered, and the registry's lock is held. 2. only the word is used.
            let word = &unsafe { mutator.get() }.word;
            if sabotage::is_on(Fault::BlockedForgotten) && word.is_blocked() {
                continue;
            }
            // Before the question: the answer may come at once. [R1]
            pending.add();
            if word.ask(request) != Found::Running {
                pending.acknowledge();
            }
        }
    }

    /// How many mutators besides `me` somebody waits for.
    pub(crate) fn late(&self, me: &MutatorState) -> usize {
        let requests = [Request::Stop, Request::StopToEnd, Request::Handshake];
        let registry = self.registry.lock();
        registry
            .iter()
            .filter(|m| !std::ptr::eq(*m, me))
            .filter(|m| requests.iter().any(|&r| m.word.is_running_with(r)))
            .count()
    }

    /// Those that have not answered `request` yet, but for the lost ones.
    pub(crate) fn laggards(&self, request: Request) -> Vec<Laggard> {
        let registry = self.registry.lock();
        let late = |m: &&MutatorRef| {
            // SAFETY: 1. registered, and the registry's lock is held. 2. only the word is used.
            let state = unsafe { m.get() };
            state.word.is_running_with(request) && !registry.is_lost(**m)
        };
        let all = registry.mutators.iter().filter(late);
        all.map(|&mutator| {
            // SAFETY: 1. as above. 2. only what never changes, and atomics.
            let state = unsafe { mutator.get() };
            Laggard {
                mutator,
                os_thread: state.os_thread(),
                thread: state.thread_name(),
                attached_at: state.attached_at,
                task: state.task(),
            }
        })
        .collect()
    }

    /// Asks every mutator to act once; `act_for` is called for those the collector acts for. Then
    /// [`wait_for_handshake`](Self::wait_for_handshake).
    pub(crate) fn ask_handshake(&self, mut act_for: impl FnMut(&MutatorState)) {
        self.handshakes.add();
        {
            let registry = self.registry.lock();
            for mutator in registry.iter() {
                // [R1] before the question.
                self.handshakes.add();
                let found = mutator.word.ask(Request::Handshake);
                if found == Found::Blocked && mutator.word.try_claim() {
                    if !sabotage::is_on(Fault::BlockedNotActedFor) {
                        act_for(mutator);
                    }
                    mutator.word.release(Request::Handshake);
                    self.handshakes.acknowledge();
                }
            }
        }
        // Those who wanted to leave Blocked meanwhile wait at the gate for nothing but the claim.
        self.open_gate();
        self.handshakes.acknowledge();
    }

    /// Waits until every mutator has acted. It stops nobody, so it is not given up.
    pub(crate) fn wait_for_handshake(&self, mut late: impl FnMut(Duration) -> Patience) {
        if !sabotage::is_on(Fault::HandshakeNotAwaited) {
            while !self.handshakes.wait(|| self.has_departed(), &mut late) {}
        }
    }
}
