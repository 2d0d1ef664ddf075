//! The cycle: the collector's thread from one phase to the next.
//!
//! ```text
//! Off --stop 1--> Mark --(looks done: handshake)--> --stop 2--> Off: census, sweep
//!                  ^____________ something was flushed ____|
//! ```
//! Nothing in a stop depends on the size of the heap, or on the number of objects or roots: it is O(mutators).
//!
//! Only this file changes the phase.

use std::sync::Arc;
use std::time::Duration;

use crate::gc::collector::Collector;
use crate::gc::events::Event;
use crate::gc::mark::Marker;
use crate::gc::mutator::MutatorState;
use crate::gc::weak;
use crate::gc::worker::{ThreadHost, WorkerHost};
use crate::pace::goal::{CycleReport, assist_ratio};
use crate::sys::clock::Moment;
use crate::sys::sync::Ordering;
use crate::sys::thread;

/// How long the collector's thread waits for workers before it looks again.
const PATIENCE: Duration = Duration::from_micros(200);

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
    live_at_start: u64,
    pauses: Vec<(u64, u64)>,
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
        let threads = std::mem::take(&mut *self.threads.lock());
        for handle in threads {
            // A worker does not panic; if it did, there is nothing left to save here.
            let _ = handle.join();
        }
    }

    fn run(self: Arc<Self>) {
        let mut marker = Marker::new();
        let mut workers_started = false;
        while let Some(()) = self.wait_for_mail() {
            if !workers_started {
                workers_started = true;
                ThreadHost.start_workers(&self, self.settings.processors - 1);
            }
            self.run_cycle(&mut marker);
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

    fn wait_for_mail(&self) -> Option<()> {
        let mut mail = self.mailbox.lock();
        loop {
            if mail.shutdown {
                return None;
            }
            if mail.triggered || mail.wanted > mail.begun {
                mail.triggered = false;
                mail.begun += 1;
                return Some(());
            }
            mail.wait_on(&self.mail, Duration::from_secs(3600));
        }
    }

    /// The number of the running cycle, or of the last.
    pub(crate) fn cycle_number(&self) -> u32 {
        self.world.registry().cycle
    }

    pub(crate) fn is_marking(&self) -> bool {
        self.world.registry().marking
    }

    fn run_cycle(&self, marker: &mut Marker) {
        let mut timing = Timing {
            began: Moment::now(),
            live_at_start: 0,
            pauses: Vec::new(),
        };
        // Roots dropped without a mutator since the last cycle; left in their slots they would keep their objects once more.
        self.roots.collect_released();
        if self.settings.stop_the_world {
            self.stopped(&mut timing, |c, t| {
                c.begin_marking(t);
                c.pool.open();
                c.mark_until_quiet(marker);
                c.weak.try_terminate();
                c.try_end_marking(t);
            });
        } else {
            self.stopped(&mut timing, Self::begin_marking);
            // Not in the stop: the workers that this wakes would take the processor from it.
            self.pool.open();
            self.mark_concurrently(marker, &mut timing);
        }
        self.pool.close();
        // Whoever stalls may go on.
        self.mail.notify_all();
        let mark_ns = timing.began.elapsed_ns();
        self.after_marking();
        self.finish_figures(&timing, mark_ns);
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
            self.stopped(timing, |c, t| over = c.try_end_marking(t));
            if over {
                return;
            }
        }
    }

    /// Stops the world for `body`.
    fn stopped(&self, timing: &mut Timing, body: impl FnOnce(&Self, &mut Timing)) {
        let start = Moment::now();
        self.world.stop(|laggard| self.tell_laggard(laggard));
        let stopping = start.elapsed_ns();
        {
            let _turn = self.turnstile.lock();
            body(self, timing);
        }
        self.world.start();
        timing.pauses.push((start.elapsed_ns(), stopping));
    }

    fn handshake_all(&self) {
        {
            let turn = self.turnstile.lock();
            self.world
                .ask_handshake(|mutator| self.act_for_blocked(mutator));
            drop(turn);
        }
        self.world
            .wait_for_handshake(|laggard| self.tell_laggard(laggard));
    }

    /// Stop 1: Off -> Mark.
    fn begin_marking(&self, timing: &mut Timing) {
        let mut registry = self.world.registry();
        registry.cycle = registry.cycle.wrapping_add(1).max(1);
        registry.marking = true;
        for mutator in registry.iter() {
            mutator.local.marking.set(true);
            mutator.local.cycle.set(registry.cycle);
            mutator.local.credit.set(0);
        }
        let cycle = registry.cycle;
        drop(registry);
        self.weak.begin_marking();
        // Relaxed (all): the mutators see them when they leave the stop, the workers when they join.
        for (source, limit) in self.sources().iter().zip(&self.job_limits) {
            limit.store(source.begin(cycle), Ordering::Relaxed);
        }
        self.next_job.store(0, Ordering::Relaxed);
        self.gauges.marked.store(0, Ordering::Relaxed);
        self.gauges.scanned.store(0, Ordering::Relaxed);
        timing.live_at_start = self.object_bytes();
        self.revise_assist_ratio();
    }

    /// Marks with whoever joins until no work is queued and nobody is active.
    fn mark_until_quiet(&self, marker: &mut Marker) {
        loop {
            if self.pool.join() {
                self.work(0, marker);
                self.pool.leave();
            }
            self.revise_assist_ratio();
            if self.pool.is_quiet() && !self.has_root_jobs() {
                return;
            }
            self.pool.wait_for_change(PATIENCE);
        }
    }

    /// What allocations owe from now on: the work that is left, over the room that is left.
    fn revise_assist_ratio(&self) {
        let expected = self.last.lock().0.scanned;
        // Relaxed (all): figures.
        let done = self.gauges.scanned.load(Ordering::Relaxed);
        let live = self.gauges.heap_live.load(Ordering::Relaxed);
        let goal = self.gauges.goal.load(Ordering::Relaxed);
        let ratio = assist_ratio(expected.saturating_sub(done).max(done / 8), live, goal);
        self.gauges
            .assist_ratio
            .store(ratio.to_bits(), Ordering::Relaxed);
    }

    /// Stop 2: looks at every buffer and the queue again; if nothing is there, Mark -> Off. Says whether it is over.
    fn try_end_marking(&self, timing: &mut Timing) -> bool {
        let registry = self.world.registry();
        for mutator in registry.iter() {
            self.flush_barrier(&mutator.local);
        }
        drop(registry);
        if !self.pool.is_quiet() || self.weak.was_reset() {
            self.weak.begin_marking();
            return false;
        }
        if self.settings.verify {
            self.check_marks();
        }
        // Relaxed: the world is stopped. Without weak cells nobody is asked; those made from now on name what lives.
        if self.uses_weak.load(Ordering::Relaxed) != 0 {
            self.weak.declare_dead();
        } else {
            self.weak.idle();
        }
        let mut registry = self.world.registry();
        registry.marking = false;
        for mutator in registry.iter() {
            mutator.local.marking.set(false);
            // Mark bits are complete, so nobody may allocate from a span from before: each gives its own back on its way
            // out of the stop.
            mutator.local.stale_cache.set(true);
        }
        drop(registry);
        for source in self.sources() {
            source.end();
        }
        self.heap.advance_generation();
        // Relaxed: set before the first cell was published, and the world is stopped.
        if self.uses_weak.load(Ordering::Relaxed) == 0 {
            self.weak.idle();
            self.heap.set_sweep_open(true);
        }
        self.plan_next(timing);
        true
    }

    /// Bytes of slots handed out and not known to be dead.
    fn object_bytes(&self) -> u64 {
        // Relaxed (both): figures; the world is stopped.
        let live = self.gauges.heap_live.load(Ordering::Relaxed);
        live.saturating_sub(self.gauges.external.load(Ordering::Relaxed))
    }

    fn plan_next(&self, timing: &Timing) {
        // Relaxed (all): the world is stopped.
        let marked = self.gauges.marked.load(Ordering::Relaxed);
        let now = self.object_bytes();
        let grown = now.saturating_sub(timing.live_at_start);
        let external = self.gauges.external.load(Ordering::Relaxed);
        let live = marked + grown + external;
        let report = CycleReport {
            live,
            allocated_during_mark: grown,
            scanned: self.gauges.scanned.load(Ordering::Relaxed),
        };
        self.gauges.heap_live.store(live, Ordering::Relaxed);
        {
            let mut last = self.last.lock();
            // The runway: how far the heap grew past the trigger (or from the start of marking), or three quarters of
            // what was kept for the cycle before.
            let trigger = self
                .gauges
                .trigger
                .load(Ordering::Relaxed)
                .min(timing.live_at_start);
            *last = (report, now.saturating_sub(trigger).max(last.1 / 4 * 3));
        }
        self.replan();
    }

    /// From the end of marking to the end of the sweep.
    fn after_marking(&self) {
        // Every cached span from before is among the unswept ones after this.
        self.handshake_all();
        if !self.heap.sweep_is_open() {
            let turn = self.turnstile.lock();
            weak::census(&self.heap);
            drop(turn);
            self.weak.idle();
            self.heap.set_sweep_open(true);
        }
        self.sweep_all();
        self.frames.free_dead();
        self.roots.collect_released();
    }

    fn finish_figures(&self, timing: &Timing, mark_ns: u64) {
        // Relaxed (both): figures.
        let live_bytes = self.gauges.marked.load(Ordering::Relaxed);
        let goal_bytes = self.gauges.goal.load(Ordering::Relaxed);
        let cycle = {
            let mut figures = self.figures.lock();
            figures.cycles += 1;
            figures.live_bytes = live_bytes;
            figures.mark_ns = mark_ns;
            figures.total_mark_ns += mark_ns;
            for &(total, stopping) in &timing.pauses {
                figures.pauses.record(total);
                figures.stopping.record(stopping);
                figures.last_pause_ns = total;
            }
            figures.cycles
        };
        self.tell(&Event::CycleEnd {
            cycle,
            live_bytes,
            goal_bytes,
            mark_ns,
        });
    }

    /// Brings a mutator that goes away in line: its buffers and spans go back.
    pub(crate) fn strip(&self, mutator: &MutatorState) {
        self.catch_up(mutator);
        self.flush_cache(&mutator.local);
        self.heap.give_back_pages(&mutator.local.cache);
        self.roots
            .give_back(&mut mutator.local.free_roots.borrow_mut());
    }
}
