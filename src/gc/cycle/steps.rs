//! The steps of a cycle: what happens in each stop, and the handshake between them.
//!
//! Nothing in a stop depends on the size of the heap, or on the number of objects or roots: it is
//! O(mutators). What may be done only in a stop takes the token of that stop.

use crate::gc::assist::FIRST_CREDIT;
use crate::gc::collector::Collector;
use crate::gc::cycle::Timing;
use crate::gc::heaps;
use crate::gc::spans;
use crate::gc::state_word::Request;
use crate::gc::stopped::Stopped;
use crate::gc::world::Phase;
use crate::pace::survival::MarkEnd;
use crate::sys::clock::Moment;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::Ordering;

impl Collector {
    /// The number of the running cycle, or of the last.
    pub(crate) fn cycle_number(&self) -> u32 {
        self.world.phase().cycle
    }

    pub(crate) fn is_marking(&self) -> bool {
        self.world.phase().marks
    }

    /// Stops the world for `body`. False if a mutator is lost that would have to stop: nothing is done then.
    pub(super) fn stopped(
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

    pub(super) fn handshake_all(&self) {
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
    pub(super) fn begin_marking(&self, stopped: &Stopped<'_>, timing: &mut Timing) {
        // Whoever has asked for this cycle on the way here has got it.
        self.mailbox.lock().triggered = false;
        let first = sabotage::pick(Fault::CycleZero, 0, 1);
        let cycle = heaps::next_number(self.id, self.cycle_number(), first);
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

    /// Stop 2: looks at every buffer and the queue again; if nothing is there, Mark -> Off. Says whether it is over.
    #[must_use = "marking goes on if it is not over"]
    pub(super) fn try_end_marking(&self, stopped: &Stopped<'_>, timing: &mut Timing) -> bool {
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
            self.heap.open_sweep();
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
}
