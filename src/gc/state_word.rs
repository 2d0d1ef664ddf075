//! One word per mutator: where it is, and what is asked of it.
//!
//! | state | meaning | who may touch the mutator's record |
//! |---|---|---|
//! | Running | executes user code | its thread |
//! | Blocked | in `blocking`, or being attached: counts as at a safepoint | nobody; after a claim, the claimer |
//! | Stopped | at a safepoint, waiting | the collector that asked |
//! | Claimed | Blocked or Assisting, and the collector acts for it | the claimer |
//! | Looking | in user code that waits to verify the heap: stopped for another verifier, Running for everybody else | its thread |
//! | Assisting | waits inside an allocation for marking to go on, or for the end of the sweep: Running for a stop that begins a cycle, Blocked for everybody else | nobody; after a claim, the claimer |
//!
//! A mutator that is Assisting may hold `Gc`s, so it must not be stopped where a cycle begins. It becomes Assisting only
//! while a cycle runs, and that cycle frees nothing of what it holds, which is marked or younger than the end of marking;
//! no other cycle begins before it is Running again. So everything else may happen to it.
//!
//! Requests are bits beside the state. Every change is a read-modify-write of this one word, so all changes are in one
//! order and nobody needs a fence: a request either sees Running, and the mutator will see the bit when it polls or
//! tries to change state; or it sees another state, and the mutator cannot get back to Running before it has looked.
//!
//! **Invariants**
//! - `[W1]` Only its own thread moves a mutator out of Running, and moves it back only while no stop is asked; or, out of
//!   Assisting, while the stop still waits for others and waits for this mutator from then on.
//! - `[W2]` Only the collector moves Blocked and Assisting to Claimed and back.

use crate::sys::sync::{AtomicU32, Ordering};

const STATE: u32 = 0b111;
const RUNNING: u32 = 0;
const BLOCKED: u32 = 1;
const STOPPED: u32 = 2;
const LOOKING: u32 = 4;
const ASSISTING: u32 = 5;
/// Added to Blocked or Assisting: claimed.
const CLAIM: u32 = 2;
const CLAIMED_BLOCKED: u32 = BLOCKED + CLAIM;

/// Something asked of a mutator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Request {
    /// Stop for a phase change, at a place where no `Gc` is held.
    Stop = 1 << 3,
    /// Stop for the verifier.
    StopToVerify = 1 << 4,
    /// Act once, then go on.
    Handshake = 1 << 5,
    /// Always set in stress mode: every poll takes the slow path.
    Stress = 1 << 6,
    /// Asked by the mutator of itself: the heap is past its goal, so it lets the collector catch up at its next poll.
    Stall = 1 << 7,
    /// Stop for the end of marking. `Gc`s may be held.
    StopToEnd = 1 << 8,
}

const STOPS: u32 = Request::Stop as u32 | Request::StopToVerify as u32 | Request::StopToEnd as u32;

/// Requests that nobody waits for.
const PATIENT: u32 = Request::Stress as u32 | Request::Stall as u32;

/// The requests that a mutator found when it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked(u32);

impl Asked {
    pub(crate) fn has(self, request: Request) -> bool {
        self.0 & request as u32 != 0
    }

    /// Whether somebody waits for the answer.
    #[cfg(feature = "sched")]
    pub(crate) fn is_waited_for(self) -> bool {
        self.0 & !PATIENT != 0
    }
}

/// Where a mutator was when something was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It will act at its next poll.
    Running,
    /// It waits at a safepoint; it will look again before it goes on.
    Stopped,
    /// It counts as stopped, and can be claimed.
    Blocked,
}

/// The word.
#[derive(Debug)]
pub(crate) struct StateWord(AtomicU32);

impl StateWord {
    /// A mutator that is being attached: Blocked, with the requests that are open.
    pub(crate) fn attaching(stop: Option<Request>, verify: bool, stress: bool) -> Self {
        let mut word = BLOCKED | stop.map_or(0, |request| request as u32);
        for (on, request) in [(verify, Request::StopToVerify), (stress, Request::Stress)] {
            if on {
                word |= request as u32;
            }
        }
        Self(AtomicU32::new(word))
    }

    /// Whether anything is asked. One relaxed load.
    #[inline(always)]
    pub(crate) fn is_asked(&self) -> bool {
        // Relaxed: a late look costs time only; the slow path reads again with Acquire.
        self.0.load(Ordering::Relaxed) != RUNNING
    }

    /// What is asked now.
    pub(crate) fn asked(&self) -> Asked {
        // Acquire: what the collector wrote before it asked is seen; pairs with `ask`.
        Asked(self.0.load(Ordering::Acquire) & !STATE)
    }

    /// Whether the mutator runs although `request` is open.
    pub(crate) fn is_running_with(&self, request: Request) -> bool {
        // Relaxed: for a report.
        let word = self.0.load(Ordering::Relaxed);
        matches!(word & STATE, RUNNING | LOOKING | ASSISTING) && word & request as u32 != 0
    }

    /// Whether the mutator ran user code a moment ago.
    pub(crate) fn is_running(&self) -> bool {
        // Relaxed: an estimate.
        self.0.load(Ordering::Relaxed) & STATE == RUNNING
    }

    /// Whether the mutator was Blocked a moment ago.
    pub(crate) fn is_blocked(&self) -> bool {
        // Relaxed: an estimate.
        self.0.load(Ordering::Relaxed) & STATE == BLOCKED
    }

    /// Whether the mutator is at a safepoint: it holds no `Gc`, no guard and no open frame. The caller has stopped it, for a
    /// phase change or to look.
    pub(crate) fn is_at_safepoint(&self) -> bool {
        // Acquire: what it wrote before it got there is seen; pairs with the Releases of the changes of state.
        matches!(
            self.0.load(Ordering::Acquire) & STATE,
            BLOCKED | STOPPED | CLAIMED_BLOCKED
        )
    }

    /// The collector asks. Says where the mutator was.
    pub(crate) fn ask(&self, request: Request) -> Found {
        // AcqRel: releases what the mutator needs to act; acquires what a Blocked or Stopped one wrote before.
        let old = self.0.fetch_or(request as u32, Ordering::AcqRel);
        match old & STATE {
            RUNNING => Found::Running,
            LOOKING if request == Request::StopToVerify => Found::Stopped,
            LOOKING => Found::Running,
            ASSISTING if request == Request::Stop => Found::Running,
            STOPPED => Found::Stopped,
            _ => Found::Blocked,
        }
    }

    /// Takes a request back (a stop is over, a handshake is done).
    pub(crate) fn withdraw(&self, request: Request) {
        // AcqRel: releases what the collector did meanwhile; pairs with the Acquire in `try_resume`, `try_unblock`.
        self.0.fetch_and(!(request as u32), Ordering::AcqRel);
    }

    /// Takes a stop back that others have not answered; true if this mutator has not either, and never will.
    pub(crate) fn withdraw_unanswered(&self, request: Request) -> bool {
        // AcqRel: as in `withdraw`.
        let old = self.0.fetch_and(!(request as u32), Ordering::AcqRel);
        // Those that `ask` finds Running answer by a change of state, in which they see the request; the others have
        // been counted when they were asked.
        let is_running = match old & STATE {
            RUNNING => true,
            LOOKING => request != Request::StopToVerify,
            ASSISTING => request == Request::Stop,
            _ => false,
        };
        is_running && old & request as u32 != 0
    }

    /// Running -> Stopped, if a stop is asked; returns what was asked at that moment, for the acknowledgement.
    pub(crate) fn try_stop(&self) -> Option<Asked> {
        // Acquire: as in `asked`.
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            if word & STOPS == 0 {
                return None;
            }
            debug_assert_eq!(word & STATE, RUNNING);
            // AcqRel: releases the mutator's record to the collector; pairs with its Acquire of the count of
            // acknowledgements. Acquire on failure: the new requests are looked at.
            match self
                .0
                .compare_exchange(word, word | STOPPED, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(Asked(word & !STATE)),
                Err(now) => word = now,
            }
        }
    }

    /// Stopped -> Running, if no stop is asked.
    pub(crate) fn try_resume(&self) -> bool {
        self.try_leave(STOPPED, STOPS)
    }

    /// Blocked -> Running, if no stop is asked and nobody acts for it.
    pub(crate) fn try_unblock(&self) -> bool {
        self.try_leave(BLOCKED, STOPS)
    }

    /// Assisting -> Running, if no stop is asked but one that waits for a safepoint, and nobody acts for it.
    pub(crate) fn try_end_assist(&self) -> bool {
        self.try_leave(ASSISTING, STOPS & !(Request::Stop as u32))
    }

    /// Assisting -> Running, if exactly `asked` is asked and nobody acts for it. [W1] The caller has seen to it that the
    /// stops among them wait for it.
    pub(crate) fn try_end_assist_with(&self, asked: Asked) -> bool {
        // AcqRel: as in `try_leave`. Relaxed on failure: the caller looks again.
        self.0
            .compare_exchange(
                asked.0 | ASSISTING,
                asked.0,
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    fn try_leave(&self, state: u32, unless: u32) -> bool {
        // Acquire: as in `asked`.
        let mut word = self.0.load(Ordering::Acquire);
        while word & unless == 0 && word & STATE == state {
            // AcqRel: acquires what the collector did to the record; pairs with `withdraw` and `release`.
            // Acquire on failure: looked at again.
            match self
                .0
                .compare_exchange(word, word & !STATE, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Running -> Assisting, unless a handshake is asked; returns what was asked at that moment: a stop to end marking, or
    /// to verify, is acknowledged by the caller.
    ///
    /// It must not go through Stopped: there the next cycle's first stop would find it.
    pub(crate) fn try_assist(&self) -> Option<Asked> {
        // Acquire: as in `asked`.
        let mut word = self.0.load(Ordering::Acquire);
        while word & Request::Handshake as u32 == 0 {
            // AcqRel: as in `try_stop`. Acquire on failure: looked at again.
            match self.0.compare_exchange(
                word,
                word | ASSISTING,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(Asked(word & !STATE)),
                Err(now) => word = now,
            }
        }
        None
    }

    /// Running -> Blocked, if nothing is asked that somebody waits for.
    pub(crate) fn try_block(&self) -> bool {
        // Acquire: as in `asked`.
        let mut word = self.0.load(Ordering::Acquire);
        while word & !PATIENT == RUNNING {
            // AcqRel: releases the mutator's record; pairs with the Acquire in `try_claim` and `ask`.
            // Acquire on failure: looked at again.
            match self
                .0
                .compare_exchange(word, word | BLOCKED, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Running -> Looking; returns what was asked at that moment: a stop to verify is acknowledged by the caller.
    pub(crate) fn look(&self) -> Asked {
        // AcqRel: as in `try_stop`.
        Asked(self.0.fetch_or(LOOKING, Ordering::AcqRel) & !STATE)
    }

    /// Looking -> Running, when no stop to verify is asked.
    pub(crate) fn try_unlook(&self) -> bool {
        // Acquire: as in `asked`.
        let mut word = self.0.load(Ordering::Acquire);
        while word & Request::StopToVerify as u32 == 0 {
            // AcqRel: as in `try_leave`. Acquire on failure: looked at again.
            match self
                .0
                .compare_exchange(word, word & !STATE, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Blocked or Assisting -> Claimed: the collector may act for the mutator until [`release`](Self::release).
    pub(crate) fn try_claim(&self) -> bool {
        // Acquire: as in `asked`.
        let mut word = self.0.load(Ordering::Acquire);
        while matches!(word & STATE, BLOCKED | ASSISTING) && word & Request::Handshake as u32 != 0 {
            // AcqRel: acquires the record (Release in `try_block`, `try_assist`). Acquire on failure: looked at again.
            match self
                .0
                .compare_exchange(word, word | CLAIM, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Claimed -> what it was before, with `request` done.
    pub(crate) fn release(&self, request: Request) {
        // AcqRel: releases the record to its owner; pairs with `try_unblock`.
        self.0
            .fetch_and(!(request as u32 | CLAIM), Ordering::AcqRel);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn running() -> StateWord {
        let word = StateWord::attaching(None, false, false);
        assert!(word.try_unblock());
        word
    }

    #[test]
    fn a_running_mutator_stops_and_resumes() {
        let word = running();
        assert!(!word.is_asked());
        assert!(word.try_stop().is_none(), "nobody asked");
        assert_eq!(word.ask(Request::Stop), Found::Running);
        assert!(word.is_asked());
        assert!(!word.try_block(), "a stop is to be honoured first");
        let asked = word.try_stop().expect("asked");
        assert!(asked.has(Request::Stop) && !asked.has(Request::StopToVerify));
        assert_eq!(word.ask(Request::StopToVerify), Found::Stopped);
        word.withdraw(Request::Stop);
        assert!(!word.try_resume(), "the verifier still looks");
        word.withdraw(Request::StopToVerify);
        assert!(word.try_resume());
        assert!(!word.is_asked());
    }

    #[test]
    fn a_blocked_mutator_is_acted_for() {
        let word = running();
        assert!(word.try_block());
        assert_eq!(word.ask(Request::Handshake), Found::Blocked);
        assert!(word.try_claim());
        assert!(!word.try_unblock(), "somebody acts for it");
        word.release(Request::Handshake);
        assert!(!word.asked().has(Request::Handshake));
        assert!(word.try_unblock());
    }

    #[test]
    fn an_assisting_mutator_is_stopped_for_the_end_of_marking_only() {
        let word = running();
        assert!(word.try_assist().is_some());
        assert_eq!(word.ask(Request::StopToEnd), Found::Blocked);
        assert!(!word.try_end_assist(), "marking ends");
        word.withdraw(Request::StopToEnd);
        assert_eq!(word.ask(Request::Handshake), Found::Blocked);
        assert!(word.try_claim());
        assert!(!word.try_end_assist(), "somebody acts for it");
        word.release(Request::Handshake);
        assert_eq!(word.ask(Request::Stop), Found::Running, "it may hold a Gc");
        assert!(!word.try_unblock() && !word.try_resume());
        assert!(word.try_end_assist());
        assert!(word.try_stop().is_some());
    }

    #[test]
    fn stress_stays_and_does_not_hinder() {
        let word = StateWord::attaching(None, false, true);
        assert!(word.try_unblock());
        assert!(word.is_asked());
        assert!(word.try_block() && word.try_unblock());
        assert!(word.asked().has(Request::Stress));
    }
}

// Stops, handshakes and verifiers as `World` does them are modelled in `gc::models`.
#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::sys::model::{Plain, explore};

    struct Scene {
        word: StateWord,
        /// Written while the world is stopped; odd in between.
        phase: Plain<u32>,
        acks: AtomicU32,
        /// How often the handshake's action has run.
        done: Plain<u32>,
    }

    fn scene() -> Arc<Scene> {
        Arc::new(Scene {
            word: StateWord::attaching(None, false, false),
            phase: Plain::new(0),
            acks: AtomicU32::new(0),
            done: Plain::new(0),
        })
    }

    impl Scene {
        fn poll(&self) {
            while self.word.try_stop().is_some() {
                // Release: as in `Pending::acknowledge`.
                self.acks.fetch_add(1, Ordering::Release);
                while !self.word.try_resume() {
                    thread::yield_now();
                }
            }
        }

        fn act(&self) {
            self.done.set(self.done.get() + 1);
        }
    }

    /// Stop against a poll: nobody runs inside the stop, and the acknowledgement comes exactly once.
    #[test]
    fn loom_stop_against_poll() {
        explore(3, |order| {
            let scene = scene();
            assert!(scene.word.try_unblock());
            let (here, there) = (scene.clone(), scene);
            order.race(
                move || {
                    for _ in 0..2 {
                        if here.word.is_asked() {
                            here.poll();
                        }
                        assert_eq!(here.phase.get() % 2, 0, "user code in a stop");
                    }
                    // The mutator goes away: it blocks for good, after honouring what is asked.
                    while !here.word.try_block() {
                        here.poll();
                    }
                },
                move || {
                    let expect = u32::from(there.word.ask(Request::Stop) == Found::Running);
                    // Acquire: as in `Pending::is_zero`.
                    while there.acks.load(Ordering::Acquire) < expect {
                        thread::yield_now();
                    }
                    there.phase.set(1);
                    there.phase.set(2);
                    there.word.withdraw(Request::Stop);
                    // Acquire: as above.
                    assert_eq!(there.acks.load(Ordering::Acquire), expect);
                },
            );
        });
    }

    /// A handshake against a return from blocking: the action runs once, by one of the two, or is still asked for.
    #[test]
    fn loom_handshake_against_unblock() {
        explore(3, |order| {
            let scene = scene();
            let (here, there) = (scene.clone(), scene.clone());
            let ((), acted_for) = order.race(
                move || {
                    while !here.word.try_unblock() {
                        thread::yield_now();
                    }
                    if here.word.asked().has(Request::Handshake) {
                        here.act();
                        here.word.withdraw(Request::Handshake);
                    }
                },
                move || {
                    let acts = there.word.ask(Request::Handshake) == Found::Blocked
                        && there.word.try_claim();
                    if acts {
                        there.act();
                        there.word.release(Request::Handshake);
                    }
                    acts
                },
            );
            let pending = scene.word.asked().has(Request::Handshake);
            assert_eq!(scene.done.get() + u32::from(pending), 1);
            assert!(!(acted_for && pending));
        });
    }
}
