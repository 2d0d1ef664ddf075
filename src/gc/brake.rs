//! The brake: when whoever allocates asks for a cycle, and where it waits for one.
//!
//! The rule: a program may always go on to its next safepoint, and past its bounds no further. The bounds are the plan's
//! ceiling; while the sweep runs also [`Remains::most`](crate::pace::survival::Remains::most), because dead objects and
//! their buffers take memory until they are dropped; and the pages of a hard limit or of the reservation.
//!
//! - *At a safepoint* a mutator past a bound waits (`stall`) until it has paid, or the cycle is over, however long that
//!   takes. It is Blocked, so nobody waits for it, and no `Gc` or `GcLock` of this thread is in the way.
//! - *Inside an allocation* the user may hold any lock, and somebody for whom the collector waits may want it. So a
//!   wait there has an end (`assist.rs`), and then the mutator asks itself to stall at its next safepoint
//!   ([`Request::Stall`]).
//! - *Before an allocation fails* for lack of room it waits for the running cycle, its sweep included
//!   (`wait_for_running_cycle`); a mutator has one patience for a cycle, however many of its allocations fail. It cannot wait for a cycle that has not begun: its own frames may hold `Gc`s, which only
//!   a safepoint proves gone. That is why the last part of a hard limit counts as a bound (`is_tight`): the cycle that is
//!   needed runs at the safepoint before.
//!
//! What the waits rest on, and what ends them:
//!
//! - While marking runs, only mutators that have not reached a safepoint can hold the end up, and the collector runs no
//!   code of the user's. Whoever waits for a stalled mutator from inside such a mutator waits for a stop as well, which
//!   is a bug in any program (`blocking` is for that); so this wait needs no limit.
//! - While the sweep runs, the collector drops objects, and a drop may want a lock that a stalled mutator holds over its
//!   safepoint. The same goes for the sinks of events. So there a wait ends when nothing has moved for [`STANDSTILL_NS`]:
//!   no page swept, no object dropped, no step of the cycle. An allocation that would fail waits longer
//!   ([`DROP_STANDSTILL_NS`]), and only while nobody is late.
//! - An allocation that would fail may be inside a lock that a late mutator wants. Of a `GcLock` that is known
//!   (`held_locks.rs`), and the wait ends at once; of any other lock it is not, and the patience for this cycle is the end.
//! - Each ends at the latest with the end of the cycle that ran when it began, or of the one that it asked for. A heap
//!   that is past its bounds after that is full of what lives, and a limit that leaves no room is no reason to stand still.
//! - None begins while the limiter says to leave the program alone.
//!
//! **One place asks.** Only `ask_if_due` and `look_at_growth` ask for a cycle because of the heap's size, and both look at
//! the phase: while marking runs the heap is past its trigger anyway, and while the sweep runs what lives is not known yet,
//! so the question would start a second cycle at once. The end of the sweep asks again.

use std::time::Duration;

use crate::gc::collector::Collector;
use crate::gc::heaps;
use crate::gc::held_locks;
use crate::gc::mutator::MutatorState;
use crate::gc::pacing::Phase;
use crate::gc::state_word::Request;
use crate::heap::mheap::{LAST_PART, Shortage};
use crate::sys::clock::Moment;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{Ordering, yield_now};

/// How long the collector may stand still before a mutator that waits for it goes on to its next safepoint, in
/// nanoseconds.
const STANDSTILL_NS: u64 = 100_000_000;
/// How long the allocations of a mutator that would fail wait for one cycle, in all: long enough for threads that come to a
/// safepoint every second, and an end for those that wait for a lock of this mutator which is not known to us.
const RESCUE: Duration = Duration::from_secs(10);
/// How long the sweep may stand still meanwhile, in nanoseconds: what it drops may want a lock of this mutator. Longer than
/// at a safepoint, because the allocation fails after it, and on a busy machine the collector may be without a processor.
const DROP_STANDSTILL_NS: u64 = 1_000_000_000;
/// A waiting mutator looks again after this long.
const PATIENCE: Duration = Duration::from_millis(1);

/// Why there was no room, for the report. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom {
    pub(crate) shortage: Shortage,
    /// Of objects that lived when the last cycle ended.
    pub(crate) live: u64,
    /// Owned by objects outside the heap.
    pub(crate) external: u64,
    pub(crate) cycles: u64,
    /// A cycle was running and has been waited for.
    pub(crate) waited: bool,
    /// Other mutators that a stop or a handshake waits for.
    pub(crate) late: usize,
    /// Nothing is collected any more, because a mutator is lost.
    pub(crate) is_suspended: bool,
}

/// What changes as the collector gets on.
type Progress = (u64, u64, Phase, u64, u64);

impl Collector {
    // ---- asking for cycles -----------------------------------------------------------------------------------

    /// Asks for a cycle if none runs and the heap has reached its trigger.
    pub(crate) fn ask_if_due(&self) {
        // Relaxed (both): figures.
        if self.pacing.phase() == Phase::Idle
            && self.gauges.heap_live.load(Ordering::Relaxed)
                >= self.gauges.trigger.load(Ordering::Relaxed)
        {
            self.ask_for_cycle();
        }
    }

    /// The heap has grown to `live` bytes, by this mutator, and marking does not run, as far as it knows: asks for a
    /// cycle past the trigger, sweeps where the sweep is late, and stalls at the next safepoint past the bounds.
    pub(crate) fn look_at_growth(&self, mutator: &MutatorState, live: u64) {
        // Relaxed: a figure.
        let due = live >= self.gauges.trigger.load(Ordering::Relaxed);
        match self.pacing.phase() {
            Phase::Idle if due || self.is_tight() => {
                self.ask_for_cycle();
                if self.is_past_ceiling(live) || self.is_tight() {
                    self.hold_up(mutator);
                }
            }
            // What needs no drop this mutator can free itself.
            Phase::Sweeping if self.holds_too_much(live) && !self.sweep_a_piece() => {
                self.hold_up(mutator);
            }
            Phase::Sweeping if self.is_past_ceiling(live) => self.hold_up(mutator),
            _ => {}
        }
    }

    /// The collector is late: it drops objects, or waits for this processor. This mutator stalls when it can. It makes room
    /// once, and not with every allocation: others may be waiting for a lock of it.
    fn hold_up(&self, mutator: &MutatorState) {
        if !mutator.word.asked().has(Request::Stall) && !self.is_suspended() {
            mutator.word.ask(Request::Stall);
            yield_now();
        }
    }

    /// Counts a change of external bytes made by a mutator; told to everybody in steps of 64 KiB.
    ///
    /// Never waits: whoever calls may have a slot that is not written yet, or a guard. What it owes it pays with its next
    /// allocation, or at its next safepoint.
    pub(crate) fn note_external(&self, mutator: &MutatorState, delta: i64) {
        let local = &mutator.local;
        let sum = local.external.get().saturating_add(delta);
        local.external.set(sum);
        if sum.unsigned_abs() >= 64 << 10 {
            self.tell_external(local);
            if sum > 0 {
                self.owe_external(mutator, sum);
            }
        }
    }

    /// The heap has grown by `bytes` of external memory, by this mutator.
    pub(crate) fn owe_external(&self, mutator: &MutatorState, bytes: i64) {
        let local = &mutator.local;
        // Relaxed: a figure.
        let live = self.gauges.heap_live.load(Ordering::Relaxed);
        if local.duty.marks() {
            local.credit.set(local.credit.get().saturating_sub(bytes));
            if self.is_past_ceiling(live) {
                mutator.word.ask(Request::Stall);
            }
        } else {
            self.look_at_growth(mutator, live);
        }
    }

    // ---- bounds ----------------------------------------------------------------------------------------------

    /// Whether `live` bytes are past the plan's ceiling, and the plan leaves any room at all.
    pub(crate) fn is_past_ceiling(&self, live: u64) -> bool {
        // Relaxed (both): figures.
        let ceiling = self.gauges.ceiling.load(Ordering::Relaxed);
        live > ceiling && ceiling > self.gauges.trigger.load(Ordering::Relaxed)
    }

    /// Whether the last part of what the heap may use has been reached, so that an allocation may fail before the
    /// ceiling is reached, and a cycle would find something. What was allocated since the last one has to be worth it, or a
    /// heap full of what lives would do nothing but collect.
    pub(crate) fn is_tight(&self) -> bool {
        // Relaxed: a figure.
        let longest = self.pacing.longest.load(Ordering::Relaxed);
        self.heap.is_in_last_part(longest) && self.is_worth_a_cycle(longest)
    }

    /// Whether enough has been allocated since the last cycle for another one: a quarter of what it is wanted for.
    fn is_worth_a_cycle(&self, longest: u64) -> bool {
        let last = self.heap.room() as u64 / u64::from(LAST_PART);
        // Relaxed (both): figures.
        let live = self.gauges.heap_live.load(Ordering::Relaxed);
        let survived = self.gauges.survived.load(Ordering::Relaxed);
        live.saturating_sub(survived) >= last.max(longest) / 4
    }

    fn is_past_bounds(&self) -> bool {
        // Relaxed: a figure.
        let live = self.gauges.heap_live.load(Ordering::Relaxed);
        self.is_past_ceiling(live)
            || self.is_tight()
            || (self.pacing.phase() == Phase::Sweeping && self.holds_too_much(live))
    }

    // ---- waiting ---------------------------------------------------------------------------------------------

    /// At a safepoint: waits as the module's head says.
    pub(crate) fn stall(&self, mutator: &MutatorState) {
        self.look_at_size();
        if sabotage::is_on(Fault::StallEndsEarly) {
            return;
        }
        if mutator.local.duty.marks() {
            self.pay_debt(mutator);
        }
        if !mutator.local.duty.marks() {
            self.blocked(mutator, || self.wait_below_bounds());
        }
    }

    /// Runs `wait` as a mutator that is Blocked.
    pub(crate) fn blocked<R>(&self, mutator: &MutatorState, wait: impl FnOnce() -> R) -> R {
        let act = &mut || self.catch_up(mutator);
        self.world.enter_blocked(mutator, act);
        let out = wait();
        self.world.leave_blocked(mutator, act);
        self.catch_up(mutator);
        out
    }

    /// Whether nobody should wait for a cycle, because none will come or none is wanted.
    pub(crate) fn is_waiting_vain(&self) -> bool {
        self.pacing.is_limiting() || self.is_shut_down() || self.is_suspended()
    }

    fn progress(&self, begun: u64, done: u64) -> Progress {
        // Relaxed (both): figures.
        let swept = self.heap.swept_pages.load(Ordering::Relaxed);
        let drops = self.pacing.drops.load(Ordering::Relaxed);
        (begun, done, self.pacing.phase(), swept, drops)
    }

    /// Waits until the heap is within its bounds, marking begins, the cycle is over that runs or is asked for, or the
    /// collector stands still. The mutator is Blocked.
    fn wait_below_bounds(&self) {
        let mut until = None;
        let mut last = None;
        let mut since = Moment::now();
        while self.is_past_bounds() && !self.is_waiting_vain() {
            let mut mail = self.mailbox.lock();
            let over = *until.get_or_insert(mail.begun + u64::from(mail.begun == mail.done));
            let now = self.progress(mail.begun, mail.done);
            if mail.done >= over || now.2 == Phase::Marking {
                return;
            }
            if last != Some(now) {
                last = Some(now);
                since = Moment::now();
            } else if since.elapsed_ns() >= STANDSTILL_NS {
                return;
            }
            if mail.begun == mail.done && !mail.triggered && !sabotage::is_on(Fault::TriggerLost) {
                mail.triggered = true;
                self.mail.notify_all();
            }
            mail.wait_on(&self.mail, PATIENCE);
        }
    }

    /// For an allocation that would fail: waits until the running cycle, its sweep included, is over. False if none runs,
    /// if it waits for this mutator itself, or if this mutator has waited for this cycle for long enough.
    pub(crate) fn wait_for_running_cycle(&self, mutator: &MutatorState) -> bool {
        let number = {
            let mail = self.mailbox.lock();
            if mail.begun == mail.done {
                return false;
            }
            mail.begun
        };
        let local = &mutator.local;
        let (of, left) = local.rescue.get();
        let is_new = of != number || sabotage::is_on(Fault::RescueWithoutEnd);
        let left = if is_new { RESCUE } else { left };
        if left.is_zero() {
            return false;
        }
        let (is_over, left) =
            self.assisting(mutator, || self.wait_for_end_of(number, mutator, left));
        local.rescue.set((number, left));
        is_over
    }

    /// Waits until cycle `number` is done, for at most `patience`. Says whether it is, and what is left of the patience.
    fn wait_for_end_of(
        &self,
        number: u64,
        mutator: &MutatorState,
        patience: Duration,
    ) -> (bool, Duration) {
        let start = Moment::now();
        let left = || patience.saturating_sub(Duration::from_nanos(start.elapsed_ns()));
        let (mut last, mut since) = (None, start);
        loop {
            let now = {
                let mut mail = self.mailbox.lock();
                if mail.done < number && last.is_some() {
                    mail.wait_on(&self.mail, PATIENCE);
                }
                if mail.done >= number {
                    return (true, left());
                }
                if mail.shutdown {
                    return (false, left());
                }
                self.progress(mail.begun, mail.done)
            };
            // A request that it has not seen, or another mutator that will not come before this one has failed.
            let late = self.world.late(mutator);
            if self.is_suspended()
                || mutator.word.asked().has(Request::Stop)
                || (late > 0 && self.is_waited_for_here())
            {
                return (false, left());
            }
            if last != Some(now) || late > 0 || now.2 == Phase::Marking {
                last = Some(now);
                since = Moment::now();
            } else if since.elapsed_ns() >= DROP_STANDSTILL_NS {
                return (false, Duration::ZERO);
            }
            if left().is_zero() {
                return (false, Duration::ZERO);
            }
        }
    }

    /// Whether another mutator waits for a `GcLock` that this thread holds.
    fn is_waited_for_here(&self) -> bool {
        // One that is in no arena is in a box of an object, as a rule of this heap.
        let is_of_this_heap =
            |lock: usize| self.heap.offset_of(lock).is_some() || heaps::heap_of(lock).is_none();
        !sabotage::is_on(Fault::RescueWithoutEnd) && held_locks::is_one_waited_for(is_of_this_heap)
    }

    /// Why there is no room for this mutator's allocation.
    pub(crate) fn no_room(&self, mutator: &MutatorState) -> NoRoom {
        let (live, cycles) = {
            let figures = self.figures.lock();
            (figures.live_bytes, figures.cycles)
        };
        NoRoom {
            shortage: self.heap.shortage(),
            live,
            external: self.gauges.external(),
            cycles,
            waited: mutator.local.rescued.replace(false),
            late: self.world.late(mutator),
            is_suspended: self.is_suspended(),
        }
    }
}
