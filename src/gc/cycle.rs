//! The cycle: the collector's thread from one phase to the next.
//!
//! ```text
//! Off --stop 1--> Mark --(looks done: handshake)--> --stop 2--> Off: census, sweep
//!                  ^____________ something was flushed ____|
//! ```
//! Nothing in a stop depends on the size of the heap, or on the number of objects or roots: it is O(mutators).
//!
//! Only this file changes the phase.
//!
//! **Numbers of cycles** have 32 bits; after the last one comes 1, for 0 says "never". So a number comes round again after
//! 2^32 - 1 cycles, more than a year at a hundred a second. Who keeps one, and why an old one is never taken for the
//! running one:
//! - The pool and the records of mutators have the number of the running cycle, or of the last: stop 1 writes it.
//! - A lock or a frame has the number of the cycle in which it was last logged or scanned. Whatever is reachable is traced in
//!   every cycle, and then has that cycle's number; what is not is freed. One made since has 0, or the number of a cycle
//!   that ran when it was made or written. So when a cycle begins, all numbers there are the last one's, or 0. An exception is
//!   a lock whose write guard was forgotten, which keeps its number for ever; `lock_word.rs` is about it.
//! - A mutator's patience at the end of a cycle: an old one is time only.
//!
//! Cycles of the mailbox and of the statistics have 64 bits, as the heap's generation has; `heap/span.rs` is about those of
//! spans.

use std::sync::Arc;
use std::time::Duration;

use crate::gc::assist::FIRST_CREDIT;
use crate::gc::collector::Collector;
use crate::gc::events::{self, Event};
use crate::gc::late::{LOOK, LOOK_AT_DROPS};
use crate::gc::lost::NAP;
use crate::gc::mark::Marker;
#[cfg(feature = "sched")]
use crate::gc::mutator::MutatorRef;
use crate::gc::pacing::CycleSize;
use crate::gc::spans;
use crate::gc::state_word::Request;
use crate::gc::stopped::Stopped;
use crate::gc::trace::TraceLine;
use crate::gc::weak;
use crate::gc::worker::lose_processor;
use crate::gc::world::Phase;
use crate::pace::survival::MarkEnd;
use crate::sys::MODELLED;
use crate::sys::clock::Moment;
use crate::sys::quiet::contain;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::Ordering;
use crate::sys::thread::{self, thread_local};

/// How long the collector's thread waits for workers before it looks again.
const PATIENCE: Duration = Duration::from_micros(200);

/// How soon a limit that is unmet is looked at again; and not before so many times as long as marking took.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_PART: u64 = 20;

thread_local! {
    /// The number of the heap whose collector runs on this thread, or whose objects are being dropped on it; 0: none.
    static COLLECTING: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The number of the heap that this thread collects for, or 0.
pub(crate) fn collecting_for() -> usize {
    COLLECTING.with(std::cell::Cell::get)
}

/// Runs `f` as the collector's thread of heap `id` does.
pub(crate) fn as_collecting_thread<R>(id: usize, f: impl FnOnce() -> R) -> R {
    struct Reset(usize);
    impl Drop for Reset {
        fn drop(&mut self) {
            COLLECTING.with(|c| c.set(self.0));
        }
    }
    let _reset = Reset(COLLECTING.with(|c| c.replace(id)));
    f()
}

/// What a cycle measures.
struct Timing {
    began: Moment,
    /// The size of the heap at the first stop: objects, external bytes, and both.
    objects_at_start: u64,
    external_at_start: u64,
    heap_at_start: u64,
    pauses: Vec<(u64, u64)>,
    size: CycleSize,
    /// Somebody asked for this cycle.
    forced: bool,
}

impl Collector {
    /// Starts the collector's thread.
    ///
    /// # Errors
    /// What the OS says when it refuses a thread.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let shared = self.clone();
        let handle = thread::spawn("greywave-collect".to_owned(), move || {
            as_collecting_thread(shared.id, || shared.run())
        })?;
        self.threads.lock().push(handle);
        Ok(())
    }

    /// As [`shut_down`](Self::shut_down), from inside an object's drop on the collector's own thread.
    pub(crate) fn shut_down_from_inside(&self) {
        let mut mail = self.mailbox.lock();
        mail.shutdown = true;
        mail.drop_everything = true;
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.mailbox.lock().shutdown
    }

    /// Ends the collector's threads and waits for them; called once, when the last handle goes.
    pub(crate) fn shut_down(&self) {
        self.mailbox.lock().shutdown = true;
        self.mail.notify_all();
        self.pool.end();
        // The collector's thread starts the others in its first cycle, which may be now: once it has ended, none comes.
        loop {
            let threads = std::mem::take(&mut *self.threads.lock());
            if threads.is_empty() {
                return;
            }
            for handle in threads {
                self.wait_for_thread(&handle);
                // A worker does not panic; if it did, there is nothing left to save here.
                let _ = handle.join();
            }
        }
    }

    /// Waits until the thread has ended, or is about to; tells of a drop that keeps it.
    fn wait_for_thread(&self, handle: &thread::JoinHandle<()>) {
        let mut pause = Duration::from_micros(20);
        while !MODELLED && !thread::is_finished(handle) {
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK_AT_DROPS);
            self.look_at_drop();
        }
    }

    fn run(self: Arc<Self>) {
        let mut marker = Marker::new();
        let mut workers_started = false;
        while let Some(forced) = self.wait_for_mail() {
            if !workers_started {
                workers_started = true;
                self.start_workers(self.settings.processors - 1);
            }
            // One that was given up counts as done: who waits for it goes on.
            self.run_cycle(&mut marker, forced);
            let mut mail = self.mailbox.lock();
            mail.done = mail.begun;
            drop(mail);
            self.mail.notify_all();
        }
        if self.mailbox.lock().drop_everything {
            self.pool.end();
            self.drop_everything();
        }
    }

    /// Waits until a cycle is to run; says whether somebody asked for it. `None`: the heap goes.
    fn wait_for_mail(&self) -> Option<bool> {
        let since = Moment::now();
        let period = self.period();
        // When the scavenger's turn is, in time since then.
        let mut nap_ends = Duration::ZERO;
        loop {
            let now = Duration::from_nanos(since.elapsed_ns());
            let is_suspended = self.look_for_lost();
            // Of a mutator that has departed it is known in a moment whether it is dropped, or lost.
            let may_begin = !is_suspended && !self.world.has_departed();
            let mut mail = self.mailbox.lock();
            if mail.shutdown {
                return None;
            }
            // Go's `forcegcperiod`: what is garbage now should not stay for ever.
            mail.triggered |= now >= period;
            if may_begin && (mail.triggered || mail.wanted > mail.begun) {
                let forced = mail.wanted > mail.begun;
                mail.triggered = false;
                mail.begun += 1;
                return Some(forced);
            }
            if now >= nap_ends || std::mem::take(&mut mail.scavenge) {
                drop(mail);
                nap_ends = match self.scavenge_step() {
                    Some(ns) => now + Duration::from_nanos(ns),
                    // Nothing becomes free before the next cycle.
                    None => Duration::MAX,
                };
                continue;
            }
            let rest = if may_begin {
                period.min(nap_ends).saturating_sub(now)
            } else if is_suspended {
                nap_ends.saturating_sub(now).min(NAP)
            } else {
                LOOK
            };
            mail.wait_on(&self.mail, rest);
        }
    }

    /// When a cycle is to begin that nobody has asked for. Soon while the memory limit is unmet: a program that sheds load
    /// for it allocates little, and nothing else would tell it that it may stop.
    fn period(&self) -> Duration {
        let figures = self.figures.lock();
        if figures.unmet_limit.is_none() {
            return self.settings.period;
        }
        let rare = Duration::from_nanos(figures.mark_ns.saturating_mul(RETRY_PART));
        self.settings.period.min(rare.max(RETRY))
    }

    /// The number of the running cycle, or of the last.
    pub(crate) fn cycle_number(&self) -> u32 {
        self.world.phase().cycle
    }

    pub(crate) fn is_marking(&self) -> bool {
        self.world.phase().marks
    }

    /// Runs a cycle, or none if a mutator is lost before its first stop.
    fn run_cycle(&self, marker: &mut Marker, forced: bool) {
        let number = self.cycle_number().wrapping_add(1);
        let mark_phase = spans::phase("mark", number);
        let mut timing = Timing {
            began: Moment::now(),
            objects_at_start: 0,
            external_at_start: 0,
            heap_at_start: 0,
            pauses: Vec::new(),
            size: CycleSize::default(),
            forced,
        };
        // Roots dropped without a mutator since the last cycle; left in their slots they would keep their objects once more.
        self.roots.collect_released();
        if self.settings.stop_the_world {
            let did = self.stopped(Request::Stop, &mut timing, |c, stopped, t| {
                c.begin_marking(stopped, t);
                c.pool.open();
                loop {
                    c.mark_until_quiet(marker);
                    c.weak.try_terminate();
                    lose_processor(&[Fault::EndNotAwaited]);
                    // A worker may have come, and not be gone yet.
                    if c.try_end_marking(stopped, t) || sabotage::is_on(Fault::EndNotAwaited) {
                        break;
                    }
                }
            });
            if !did {
                return;
            }
        } else {
            if !self.stopped(Request::Stop, &mut timing, Self::begin_marking) {
                return;
            }
            // Not in the stop: the workers that this wakes would take the processor from it.
            self.pool.open();
            self.seats.open(self.pacing.workers);
            self.mark_concurrently(marker, &mut timing);
        }
        self.pool.tell_closed();
        self.seats.close();
        self.assists.release_all();
        let mark_ns = timing.began.elapsed_ns();
        mark_phase.end();
        let sweep_phase = spans::phase("sweep", number);
        self.after_marking();
        sweep_phase.end();
        self.finish_figures(&timing, mark_ns);
        // As in a sweep: what is dropped here is dropped under the turnstile.
        let _turn = self.turnstile.lock();
        events::note_cycle();
    }

    /// Marks until a second stop finds nothing left.
    fn mark_concurrently(&self, marker: &mut Marker, timing: &mut Timing) {
        loop {
            self.mark_until_quiet(marker);
            self.weak.try_terminate();
            self.handshake_all();
            if !self.pool.is_quiet() || self.weak.was_reset() {
                self.weak.begin_marking();
                continue;
            }
            let mut over = false;
            let did = self.stopped(Request::StopToEnd, timing, |c, stopped, t| {
                over = c.try_end_marking(stopped, t);
            });
            if over {
                return;
            }
            if !did {
                // Marking stays on until the mutator is dropped after all.
                self.wait_while_suspended();
                self.weak.begin_marking();
            }
        }
    }

    /// Stops the world for `body`. False if a mutator is lost that would have to stop: nothing is done then.
    fn stopped(
        &self,
        request: Request,
        timing: &mut Timing,
        body: impl FnOnce(&Self, &Stopped<'_>, &mut Timing),
    ) -> bool {
        let start = Moment::now();
        let mut watch = self.watch(request);
        let stopped = self.world.stop(request, |waited| {
            self.look_at_laggards(&mut watch, request, waited);
            self.patience(request)
        });
        self.end_watch(watch);
        let Some(stopped) = stopped else {
            return false;
        };
        let stopping = start.elapsed_ns();
        {
            let _turn = self.turnstile.lock();
            body(self, &stopped, timing);
        }
        self.world.withdraw_stop(stopped);
        // Those that it wakes may take this processor at once, and run.
        let pause = start.elapsed_ns();
        self.world.open_gate();
        timing.pauses.push((pause, stopping));
        spans::stopped(pause, stopping);
        self.pacing
            .note_stop(pause.saturating_sub(stopping), self.is_marking());
        true
    }

    fn handshake_all(&self) {
        {
            let turn = self.turnstile.lock();
            self.world
                .ask_handshake(|mutator| self.act_for_blocked(mutator));
            drop(turn);
        }
        let mut watch = self.watch(Request::Handshake);
        self.world.wait_for_handshake(|waited| {
            self.look_at_laggards(&mut watch, Request::Handshake, waited);
            self.patience(Request::Handshake)
        });
        self.end_watch(watch);
    }

    /// Stop 1: Off -> Mark.
    fn begin_marking(&self, stopped: &Stopped<'_>, timing: &mut Timing) {
        // Whoever has asked for this cycle on the way here has got it.
        self.mailbox.lock().triggered = false;
        let first = sabotage::pick(Fault::CycleZero, 0, 1);
        let cycle = self.cycle_number().wrapping_add(1).max(first);
        let phase = Phase { cycle, marks: true };
        self.world.change_phase(phase, stopped, |local| {
            local.duty.set_marks(true);
            local.cycle.set(cycle);
            local.credit.set(FIRST_CREDIT);
        });
        self.pool.begin(cycle, stopped);
        self.weak.begin_marking();
        self.root_jobs.begin(&self.roots, &self.frames, stopped);
        // Relaxed (all): mutators see them when they leave the stop, workers when they join.
        self.gauges.marked.store(0, Ordering::Relaxed);
        self.gauges.scanned.store(0, Ordering::Relaxed);
        timing.objects_at_start = self.object_bytes();
        timing.external_at_start = self.gauges.external();
        timing.heap_at_start = self.gauges.heap_live.load(Ordering::Relaxed);
        self.begin_pacing(stopped);
    }

    /// Marks with whoever joins until no work is queued and nobody is active.
    fn mark_until_quiet(&self, marker: &mut Marker) {
        loop {
            let may_mark = self.may_mark(0).is_some();
            let joined = may_mark.then(|| self.pool.join()).flatten();
            let worked = joined.is_some();
            if let Some(joined) = joined {
                self.work(0, marker, &joined);
            }
            self.revise_pace();
            if self.pool.is_quiet() && !self.root_jobs.are_left() {
                self.assists.release_all();
                return;
            }
            if worked {
                self.pool.wait_for_change(PATIENCE);
            } else {
                // This thread has had its share of the processors: the program's turn.
                self.pool.wait_for_quiet(PATIENCE);
            }
        }
    }

    /// Stop 2: looks at every buffer and the queue again; if nothing is there, Mark -> Off. Says whether it is over.
    #[must_use = "marking goes on if it is not over"]
    fn try_end_marking(&self, stopped: &Stopped<'_>, timing: &mut Timing) -> bool {
        let registry = self.world.registry();
        for mutator in registry.iter() {
            if !sabotage::is_on(Fault::BufferNotFlushedAtEnd) {
                self.flush_barrier(&mutator.local);
            }
        }
        drop(registry);
        // The decision, of all who have a say in it. From here on nobody joins, and no upgrade shades.
        if !self.pool.close_if_quiet(|| self.weak.declare_dead()) {
            self.weak.begin_marking();
            return false;
        }
        if self.settings.verify {
            self.check_marks(stopped);
        }
        let cycle = self.cycle_number();
        let phase = Phase {
            cycle,
            marks: false,
        };
        self.world.change_phase(phase, stopped, |local| {
            local.duty.set_marks(false);
            // Mark bits are complete, so nobody may allocate from a span from before: each gives
            // its own back on its way out of the stop.
            local.stale_cache.set(true);
        });
        self.root_jobs.end(&self.roots, &self.frames, stopped);
        self.heap.advance_generation();
        // Relaxed: set before the first cell was published, and the world is stopped. Without weak cells nobody is asked;
        // those made from now on name what lives.
        if self.uses_weak.load(Ordering::Relaxed) == 0 {
            self.weak.idle();
            self.heap.set_sweep_open(true);
        }
        self.plan_next(stopped, timing);
        true
    }

    /// Bytes of slots handed out and not known to be dead.
    fn object_bytes(&self) -> u64 {
        // Relaxed: a figure.
        let live = self.gauges.heap_live.load(Ordering::Relaxed);
        live.saturating_sub(self.gauges.external())
    }

    fn plan_next(&self, stopped: &Stopped<'_>, timing: &mut Timing) {
        let end = MarkEnd {
            objects_at_start: timing.objects_at_start,
            // Relaxed: markers have left the pool, whose lock orders it.
            marked: self.gauges.marked.load(Ordering::Relaxed),
            born: self.object_bytes().saturating_sub(timing.objects_at_start),
            external_at_start: timing.external_at_start,
            external: self.gauges.external(),
        };
        timing.size = self.end_pacing(timing.heap_at_start, end, stopped);
    }

    /// From the end of marking to the end of the sweep.
    fn after_marking(&self) {
        // Every cached span from before is among the unswept ones after this.
        self.handshake_all();
        if !self.heap.sweep_is_open() {
            let turn = self.turnstile.lock();
            if !sabotage::is_on(Fault::CensusSkipped) {
                weak::census(&self.heap, &self.weak);
            }
            drop(turn);
            self.weak.idle();
            self.heap.set_sweep_open(true);
        }
        self.sweep_all();
        self.end_sweep_pacing();
        self.frames.free_dead();
        self.roots.collect_released();
    }

    fn finish_figures(&self, timing: &Timing, mark_ns: u64) {
        let live_bytes = timing.size.marked;
        let goal_bytes = timing.size.goal;
        let (needed_bytes, limit_bytes) = self.needed_and_limit();
        let unmet = (needed_bytes >= limit_bytes).then_some((needed_bytes, limit_bytes));
        let was_unmet;
        let cycle = {
            let mut figures = self.figures.lock();
            was_unmet = std::mem::replace(&mut figures.unmet_limit, unmet).is_some();
            figures.cycles += 1;
            figures.live_bytes = live_bytes;
            figures.mark_ns = mark_ns;
            figures.total_mark_ns += mark_ns;
            let times = timing.size.times;
            figures.background_ns += times.background_ns;
            figures.assist_ns += times.assist_ns;
            figures.idle_ns += times.idle_ns;
            figures.total_taken_ns += times.background_ns + times.assist_ns;
            for &(total, stopping) in &timing.pauses {
                figures.pauses.record(total);
                figures.stopping.record(stopping);
                figures.last_pause_ns = total;
            }
            figures.cycles
        };
        self.write_trace(timing, cycle, mark_ns);
        if unmet.is_some() {
            self.tell(&Event::LimitUnmet {
                needed_bytes,
                limit_bytes,
                limiting: self.pacing.is_limiting(),
            });
        } else if was_unmet {
            self.tell(&Event::LimitMet {
                needed_bytes,
                limit_bytes,
            });
        }
        self.tell(&Event::CycleEnd {
            cycle,
            live_bytes,
            goal_bytes,
            mark_ns,
            trigger_bytes: timing.size.trigger,
            start_bytes: timing.size.heap_at_start,
            peak_bytes: timing.size.heap_at_end,
            background_ns: timing.size.times.background_ns,
            assist_ns: timing.size.times.assist_ns,
            idle_ns: timing.size.times.idle_ns,
            utilization: timing.size.times.share_taken(self.pacing.processors),
            limit_unmet: unmet.is_some(),
        });
    }

    fn write_trace(&self, timing: &Timing, cycle: u64, mark_ns: u64) {
        let Some(sink) = &self.settings.trace else {
            return;
        };
        let stops: u64 = timing.pauses.iter().map(|p| p.0).sum();
        let first = timing.pauses.first().map_or(0, |p| p.0);
        let size = timing.size;
        let line = TraceLine {
            cycle,
            age_ns: self.pacing.age_ns(),
            total_taken_ns: self.figures.lock().total_taken_ns,
            clock_ns: [first, mark_ns.saturating_sub(stops), stops - first],
            times: size.times,
            heap: [size.heap_at_start, size.heap_at_end, size.marked],
            goal: size.goal,
            external: self.gauges.external(),
            processors: self.pacing.processors,
            forced: timing.forced,
        };
        // [D2] The sink is user code.
        contain(|| sink(&line.to_string()));
    }

    /// Takes a mutator off that is Blocked and that nobody enters any more: its buffers and spans go back as in a handshake
    /// in which the collector acts for it. It does not run for that, so it waits for no stop: the caller may be a thread that a
    /// stop waits for.
    ///
    /// Whoever acts for Blocked mutators, or looks at all of them in a stop, has the turnstile meanwhile.
    #[cfg(feature = "sched")]
    pub(crate) fn take_off_blocked(&self, mutator: MutatorRef) {
        // A drop on the collector's thread has the turn already.
        let turn = (collecting_for() != self.id).then(|| self.turnstile.lock());
        {
            // SAFETY: 1. registered until `unregister` below. 2. it is Blocked, the caller is the only one who could enter it,
            // and nobody claims it without the turnstile.
            let state = unsafe { mutator.get() };
            debug_assert!(
                state.word.is_blocked(),
                "a P's mutator goes between sections"
            );
            self.act_for_blocked(state);
            self.heap.give_back_pages(&state.local.cache);
            self.roots
                .give_back(&mut state.local.free_roots.borrow_mut());
        }
        self.world.unregister(mutator);
        drop(turn);
    }
}
