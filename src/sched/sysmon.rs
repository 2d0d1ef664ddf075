//! The monitor: a thread without a P that takes Ps back from blocking calls, asks Gs that run too long to make room, looks
//! after forgotten timers and sockets, and notices when nothing can happen any more (Go runtime, `sysmon` of `proc.go`).

use std::sync::Arc;
use std::time::Duration;

use crate::sched::context::Home;
use crate::sched::machine::Machine;
use crate::sched::proc::{Proc, Status};
use crate::sched::report::Look;
use crate::sched::shared::{Closing, Shared};
use crate::sys::clock::Moment;
use crate::sys::quiet::contain;
use crate::sys::sync::Ordering;
use crate::sys::thread;

/// The shortest sleep between two rounds, and the longest.
const SHORTEST: Duration = Duration::from_micros(20);
const LONGEST: Duration = Duration::from_millis(2);
/// Rounds in which nothing was to be done before the sleep grows.
const PATIENT_ROUNDS: u32 = 50;
/// A time slice, in nanoseconds.
const SLICE_NS: u64 = 10_000_000;
/// A timer that is so late is nobody's, in nanoseconds.
const LATE_NS: u64 = 1_000_000;
/// How long everybody must have been asleep before that is called a deadlock.
pub(crate) const SURE_AFTER: Duration = Duration::from_millis(10);

/// The shortest time between two looks for a deadlock, and the longest, while threads outside have to be looked at again.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1600));
/// Until something happens.
const LONG: Duration = Duration::from_secs(3600);

/// When the monitor looks for a deadlock: the first time after [`SURE_AFTER`], and then as the last look says.
#[derive(Debug)]
struct Patience {
    /// What had happened when everybody fell asleep.
    events: u64,
    /// Since then, or since the last look, in nanoseconds.
    since: u64,
    wait: Duration,
}

impl Patience {
    fn new(events: u64, now: u64) -> Self {
        Self {
            events,
            since: now,
            wait: SURE_AFTER,
        }
    }

    fn is_over(&self, now: u64) -> bool {
        u128::from(now.saturating_sub(self.since)) >= self.wait.as_nanos()
    }

    fn note_look(&mut self, look: Look, now: u64) {
        self.since = now;
        self.wait = match look {
            Look::Again => (self.wait * 2).clamp(LOOKS.0, LOOKS.1),
            Look::Over => LONG,
        };
    }
}

/// What the monitor saw of a P the last time.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    slices: u32,
    polls: u64,
    calls: u32,
    /// Since when slices are the same, in nanoseconds.
    since: u64,
    /// Since when calls are the same.
    calls_since: u64,
    /// Since when polls are the same.
    polls_since: u64,
    was_blocked: bool,
}

impl Shared {
    fn are_procs_idle(&self) -> bool {
        // Relaxed: looked at again by who is to be sure.
        self.roster.idle() >= self.width + self.standing_in.load(Ordering::Relaxed)
    }

    fn is_all_idle(&self) -> bool {
        // Relaxed: as above.
        self.are_procs_idle() && self.in_calls.load(Ordering::Relaxed) == 0
    }

    /// The monitor's thread.
    pub(crate) fn run_monitor(self: &Arc<Self>) {
        let _home = Home::enter(self);
        let mut seen = vec![Seen::default(); self.procs.len()];
        let (mut sleep, mut idle_rounds) = (SHORTEST, 0);
        let mut traced = Moment::now();
        let mut patience = Patience::new(self.watch.events(), 0);
        while !self.is_closing(Closing::Ms) {
            if self.is_all_idle() {
                self.sleep_while_idle(&mut traced);
                (sleep, idle_rounds) = (SHORTEST, 0);
                continue;
            }
            thread::sleep(sleep.min(self.until_a_slice_ends(&seen)));
            self.trace_if_due(&mut traced);
            self.look_at_calls(&mut patience);
            if self.round(&mut seen) {
                (sleep, idle_rounds) = (SHORTEST, 0);
            } else {
                idle_rounds += 1;
                if idle_rounds > PATIENT_ROUNDS {
                    sleep = (sleep * 2).min(LONGEST);
                }
            }
        }
    }

    /// How long until the first of the running Gs has had its slice; [`LONGEST`] at most.
    fn until_a_slice_ends(&self, seen: &[Seen]) -> Duration {
        let now = self.epoch.elapsed_ns();
        let left = |(proc, seen): (&Proc, &Seen)| {
            // Relaxed: a hint.
            let is_watched = proc.is(Status::Running) && proc.preempt.load(Ordering::Relaxed) == 0;
            is_watched.then(|| (seen.since + SLICE_NS).saturating_sub(now))
        };
        let first = self.procs.iter().zip(seen).filter_map(left).min();
        let first = first.map_or(LONGEST, Duration::from_nanos);
        first.clamp(SHORTEST, LONGEST)
    }

    fn trace_if_due(&self, traced: &mut Moment) {
        if let Some((every, sink)) = &self.trace
            && u128::from(traced.elapsed_ns()) >= every.as_nanos()
        {
            *traced = Moment::now();
            contain(|| sink(&self.trace_line()));
        }
    }

    /// Sleeps until a P runs again; looks for a deadlock on the way.
    fn sleep_while_idle(self: &Arc<Self>, traced: &mut Moment) {
        let mut patience = Patience::new(self.watch.events(), self.epoch.elapsed_ns());
        loop {
            // Who begins to wait outside rouses this thread and nobody else.
            if self.driver.lacks_a_poller() {
                return self.wake_one();
            }
            let limit = self
                .trace
                .as_ref()
                .map_or(patience.wait, |(every, _)| patience.wait.min(*every));
            let is_needed = || !self.is_all_idle() || self.is_closing(Closing::Ms);
            self.watch.sleep(patience.events, limit, is_needed);
            self.trace_if_due(traced);
            if is_needed() || self.watch.events() != patience.events {
                return;
            }
            // Nobody should have left anything there. If somebody did, it runs now, and not in an hour.
            if self.roster.queued() > 0 {
                return self.wake_one();
            }
            let now = self.epoch.elapsed_ns();
            if patience.is_over(now) {
                patience.note_look(self.report_deadlock(), now);
            }
        }
    }

    /// Every P is idle, and Gs are in blocking calls: whether those calls wait for each other, too.
    fn look_at_calls(self: &Arc<Self>, patience: &mut Patience) {
        let (events, now) = (self.watch.events(), self.epoch.elapsed_ns());
        if events != patience.events || !self.are_procs_idle() {
            *patience = Patience::new(events, now);
        } else if patience.is_over(now) {
            patience.note_look(self.report_deadlock(), now);
        }
    }

    /// One look at every P; true if there was something to do.
    fn round(self: &Arc<Self>, seen: &mut [Seen]) -> bool {
        let now = self.epoch.elapsed_ns();
        let mut did = false;
        for (proc, seen) in self.procs.iter().zip(seen) {
            if proc.is(Status::Blocked) {
                did |= self.look_at_call(proc, seen, now);
            } else if proc.is(Status::Running) {
                did |= self.look_at_slice(proc, seen, now);
            }
        }
        let driver = &self.driver;
        if driver.next_timer() <= driver.now() || driver.io_waiters() > 0 {
            // Whoever is idle would wait for these in the poller; nobody is.
            if self.roster.idle() > 0 && !driver.is_blocked() {
                self.wake_one();
            } else if driver.io_waiters() > 0 {
                driver.poll(Some(Duration::ZERO));
            }
            self.run_late_timers();
        }
        did
    }

    /// Timers of a P that was put aside, or whose G does not let go: others run them only when they have nothing else to
    /// do, which may be never.
    fn run_late_timers(&self) {
        let now = self.driver.now();
        for proc in &self.procs {
            if self.driver.next_timer_of(proc.index) <= now.saturating_sub(LATE_NS) {
                self.driver.run_timers(proc.index, now);
            }
        }
    }

    /// A P whose M is in a call: given to somebody else if it is wanted, or after a slice.
    fn look_at_call(self: &Arc<Self>, proc: &Proc, seen: &mut Seen, now: u64) -> bool {
        // Its G may have gone from call to call for a slice, and never been met between two.
        Self::look_at_time(proc, seen, now);
        // Relaxed: written by the holder.
        let calls = proc.calls.load(Ordering::Relaxed);
        if !seen.was_blocked || calls != seen.calls {
            (seen.was_blocked, seen.calls, seen.calls_since) = (true, calls, now);
            return false;
        }
        let others_look = self.roster.spinning() > 0 || self.roster.idle() > 0;
        let has_work = !proc.queue.is_empty()
            || self.roster.queued() > 0
            || self.driver.next_timer_of(proc.index) <= self.driver.now();
        if !has_work && others_look && now.saturating_sub(seen.calls_since) < SLICE_NS {
            return false;
        }
        if !proc.take_from_call() {
            return false;
        }
        seen.was_blocked = false;
        if has_work {
            self.start(proc.index, false);
        } else {
            self.put_idle_proc(proc.index);
            self.wake_one();
        }
        true
    }

    /// Asks for room after a slice; returns how long the slice has been seen to last, in nanoseconds.
    fn look_at_time(proc: &Proc, seen: &mut Seen, now: u64) -> u64 {
        // Relaxed (both): written by the holder.
        let (slices, polls) = (
            proc.slices.load(Ordering::Relaxed),
            proc.polls.load(Ordering::Relaxed),
        );
        if polls != seen.polls {
            (seen.polls, seen.polls_since) = (polls, now);
        }
        if slices != seen.slices {
            (seen.slices, seen.since) = (slices, now);
        }
        // A clock that was set back, as that of a machine that moved, makes a slice begin anew.
        let lasts = now.saturating_sub(seen.since);
        if lasts >= SLICE_NS {
            // Relaxed: a hint.
            proc.preempt.store(1, Ordering::Relaxed);
        }
        lasts
    }

    /// A P that runs: asked to make room after a slice, and stood in for if it was a single poll.
    fn look_at_slice(self: &Arc<Self>, proc: &Proc, seen: &mut Seen, now: u64) -> bool {
        seen.was_blocked = false;
        let lasts = Self::look_at_time(proc, seen, now);
        if lasts > 0 && !proc.queue.is_empty() {
            // What waits here may run elsewhere.
            self.wake_one();
        }
        if lasts >= SLICE_NS
            && now.saturating_sub(seen.polls_since) >= SLICE_NS
            && proc.running.load(Ordering::Relaxed) != 0
            && proc.is_hogged.load(Ordering::Relaxed) == 0
        {
            self.stand_in_for(proc);
        }
        false
    }

    /// A spare P runs what the hog keeps from running.
    fn stand_in_for(self: &Arc<Self>, proc: &Proc) {
        if self.roster.idle() > 0 {
            // Not `wake_one`: who looks for work has had a whole slice to find this.
            if !proc.queue.is_empty() || self.roster.queued() > 0 {
                self.start_idle_proc(false);
            }
            return;
        }
        let spare = self.roster.lock().spares.pop();
        let Some(spare) = spare else { return };
        // Relaxed: a count.
        self.standing_in.fetch_add(1, Ordering::Relaxed);
        // AcqRel: pairs with the swap in `after_hog`.
        proc.is_hogged.swap(1, Ordering::AcqRel);
        self.procs[spare].set(Status::Running);
        self.start(spare, false);
    }

    /// Everybody who sleeps wakes up and looks around: the end has come.
    pub(crate) fn unpark_all(&self) {
        let machines: Vec<Arc<Machine>> = std::mem::take(&mut self.roster.lock().machines);
        for machine in machines {
            machine.unpark();
        }
        self.driver.close();
        self.watch.rouse();
    }
}
