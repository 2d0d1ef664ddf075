//! Looking for a G to run, in Go's order (runtime, `findRunnable` of `proc.go`).

use std::time::Duration;

use crate::gc::mark::Marker;
use crate::sched::context::random;
use crate::sched::machine::NO_PROC;
use crate::sched::proc::{Proc, Status};
use crate::sched::shared::Closing;
use crate::sched::task::GRef;
use crate::sched::worker::Worker;
use crate::sys::sync::{Ordering, spin_hint};

/// The global queue is looked at before the local one every so many rounds.
const GLOBAL_EVERY: u32 = 61;
/// Rounds over all Ps.
const STEAL_ROUNDS: usize = 4;
/// How long a thief waits before it takes what a running P would run next: that one is about to do it itself.
const NEXT_GRACE_SPINS: u32 = 60;
/// The most that is taken from the global queue at once.
const GLOBAL_BATCH: usize = 128;

impl Worker {
    /// The next G to run, and whether it inherits the time slice; sleeps until there is one. `None` at the end.
    pub(crate) fn find(&self) -> Option<(GRef, bool)> {
        loop {
            self.retire_surplus();
            if self.shared().is_closing(Closing::Ms) {
                return None;
            }
            if !self.has_proc() {
                self.forget_the_ended();
                let (index, spinning) = self.shared().stop_machine(&self.machine);
                self.take_over(index, spinning);
                if index == NO_PROC {
                    return None;
                }
                continue;
            }
            if self.shared().collector.seats.is_any_free() {
                self.mark_in_the_background();
            }
            if let Some(found) = self.find_here() {
                return Some(found);
            }
            if let Some(g) = self.find_elsewhere() {
                self.stop_spinning();
                return Some((g, false));
            }
            if self.mark_while_idle() {
                continue;
            }
            self.go_idle();
        }
    }

    /// Its own queue, timers and now and then the global queue.
    fn find_here(&self) -> Option<(GRef, bool)> {
        let proc = self.proc()?;
        let shared = self.shared();
        let round = self.round.get().wrapping_add(1);
        self.round.set(round);
        let driver = &shared.driver;
        if driver.next_timer_of(proc.index) != u64::MAX {
            driver.run_timers(proc.index, driver.now());
        }
        let found = self.take_own(proc, round);
        if found.is_some() {
            self.stop_spinning();
        }
        found
    }

    fn take_own(&self, proc: &Proc, round: u32) -> Option<(GRef, bool)> {
        if round.is_multiple_of(GLOBAL_EVERY)
            && let Some(g) = self.shared().take_global(proc, 1)
        {
            return Some((g, false));
        }
        // Relaxed: a hint. Who was to make room does not pass its slice on.
        if proc.preempt.load(Ordering::Relaxed) != 0 {
            if let Some(next) = proc.queue.take_next() {
                self.put_tail(next);
            }
        } else if let Some(g) = proc.queue.take_next() {
            return Some((g, true));
        }
        if let Some(g) = proc.queue.take() {
            return Some((g, false));
        }
        let g = self.shared().take_global(proc, GLOBAL_BATCH)?;
        Some((g, false))
    }

    /// Sockets, and other Ps.
    fn find_elsewhere(&self) -> Option<GRef> {
        let proc = self.proc()?;
        let shared = self.shared();
        if shared.driver.io_waiters() > 0
            && shared.driver.poll(Some(Duration::ZERO)).unwrap_or(0) > 0
        {
            let (g, _) = self.take_own(proc, 1)?;
            if !proc.queue.is_empty() {
                shared.wake_one();
            }
            return Some(g);
        }
        // At most half of the busy Ps' Ms look for work.
        let idle = shared.roster.idle();
        let busy = shared.width.saturating_sub(idle);
        if !self.is_spinning() {
            if 2 * shared.roster.spinning() >= busy {
                return None;
            }
            self.begin_spinning();
        }
        self.steal(proc)
    }

    fn steal(&self, proc: &Proc) -> Option<GRef> {
        let shared = self.shared();
        let count = shared.procs.len();
        for round in 0..STEAL_ROUNDS {
            let last = round + 1 == STEAL_ROUNDS;
            for index in order(count, random()) {
                let victim = &shared.procs[index];
                if index == proc.index {
                    continue;
                }
                if last
                    && self.run_timers_of(victim)
                    && let Some((g, _)) = self.take_own(proc, 1)
                {
                    return Some(g);
                }
                if victim.queue.is_empty() {
                    continue;
                }
                if last && victim.is(Status::Running) && victim.queue.has_next() {
                    for _ in 0..NEXT_GRACE_SPINS {
                        spin_hint();
                    }
                }
                if let Some(g) = victim.queue.steal_into(&proc.queue, last) {
                    return Some(g);
                }
            }
        }
        shared.take_global(proc, GLOBAL_BATCH)
    }

    /// Runs the expired timers of another P; true if that may have made work.
    fn run_timers_of(&self, victim: &Proc) -> bool {
        let driver = &self.shared().driver;
        let next = driver.next_timer_of(victim.index);
        if next == u64::MAX {
            return false;
        }
        let now = driver.now();
        next <= now && driver.run_timers(victim.index, now) > 0
    }

    /// It has found work: if it was the last that looked, another one is to look, for there may be more.
    fn stop_spinning(&self) {
        if self.end_spinning() {
            self.shared().wake_one();
        }
    }

    /// Gives the P up, looks once more, and sleeps: in the poller, or until it is given another P.
    fn go_idle(&self) {
        self.forget_the_ended();
        let shared = self.shared();
        let Some(index) = self.let_go() else { return };
        shared.procs[index].set(Status::Idle);
        shared.roster.give_up(index, self.forget_spinning());
        if self.has_missed_work() && self.take_idle() {
            self.begin_spinning();
            return;
        }
        self.sleep_in_poller();
    }

    fn has_missed_work(&self) -> bool {
        let shared = self.shared();
        shared.roster.queued() > 0
            || shared.is_closing(Closing::Ms)
            || shared.procs.iter().any(|p| !p.queue.is_empty())
            || shared.driver.next_timer() <= shared.driver.now()
    }

    fn take_idle(&self) -> bool {
        match self.shared().take_idle_proc() {
            Some(index) => {
                self.take_over(index, false);
                true
            }
            None => false,
        }
    }

    /// One M waits for sockets and timers, if there are any, and takes a P when it comes back.
    fn sleep_in_poller(&self) {
        let shared = self.shared();
        let driver = &shared.driver;
        let next = driver.next_timer();
        if next == u64::MAX && driver.io_waiters() == 0 {
            return;
        }
        let limit =
            (next != u64::MAX).then(|| Duration::from_nanos(next.saturating_sub(driver.now())));
        if driver.poll(limit).is_none() {
            return; // another M is there
        }
        // What the poll has woken is in the global queue: this M had no P.
        if self.take_idle() {
            self.begin_spinning();
        }
    }

    /// Marks for the collector, as one of its background workers, if one is wanted. The Gs of this P run elsewhere if that
    /// takes long.
    #[cold]
    fn mark_in_the_background(&self) {
        // Others would wait for what a spinning M finds.
        if self.is_spinning() {
            return;
        }
        let shared = self.shared();
        self.with_marker(|marker| {
            shared.collector.mark_in_a_seat(
                marker,
                || self.give_queue_away(),
                || !shared.is_closing(Closing::Ms),
            )
        });
    }

    fn give_queue_away(&self) {
        let Some(proc) = self.proc() else { return };
        let left: Vec<GRef> = proc.queue.take_all().collect();
        if !left.is_empty() {
            self.shared().put_all_global(left);
        }
        // A G that was preempted went there, and nobody was called, because this P was about to look. It is not.
        if self.shared().roster.queued() > 0 {
            self.shared().wake_one();
        }
    }

    /// Marks for the collector, for want of anything else; true if something was done.
    fn mark_while_idle(&self) -> bool {
        let collector = &self.shared().collector;
        if !collector.has_marking_for_the_idle() {
            return false;
        }
        self.with_marker(|marker| collector.mark_for_a_while(marker))
    }

    fn with_marker<R>(&self, mark: impl FnOnce(&mut Marker) -> R) -> R {
        let mut marker = self.marker.borrow_mut();
        mark(marker.get_or_insert_with(|| Box::new(Marker::new())))
    }
}

/// All numbers below `count`, once each, in an order that depends on `random`: steps of a size without a common divisor
/// with the count (Go runtime, `randomOrder` of `proc.go`).
fn order(count: usize, random: u64) -> impl Iterator<Item = usize> {
    let random = random as usize;
    let mut step = random / count % count + 1;
    while gcd(step, count) != 1 {
        step = step % count + 1;
    }
    let first = random % count;
    (0..count).scan(first, move |at, _| {
        let here = *at;
        *at = (here + step) % count;
        Some(here)
    })
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_order_visits_all_once() {
        for count in 1..40 {
            for random in 0..2 * (count * count) as u64 {
                let mut seen: Vec<usize> = order(count, random).collect();
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..count), "{count} with {random}");
            }
        }
    }
}
