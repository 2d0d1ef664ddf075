//! Drives the pacer: what it is told, when, and where its answers are kept for the mutators.
//!
//! The arithmetic is in `pace/`. It sits behind one lock that mutators never take: they read its answers from the
//! gauges, which are rewritten whenever an answer changes. A mutator that reads old figures collects, assists or sweeps
//! a little earlier or later.

use crate::base::addr::PAGE_SHIFT;
use crate::gc::collector::Collector;
use crate::gc::stopped::Stopped;
use crate::pace::assist::AssistRates;
use crate::pace::cons_mark::MarkTimes;
use crate::pace::heap_goal::{Knobs, MemoryFigures};
use crate::pace::limiter::Limiter;
use crate::pace::pacer::{CycleEnd, Pacer, Plan};
use crate::pace::survival::{MarkEnd, Remains, Survival};
use crate::pace::sweep_pace::SweepPace;
use crate::pace::workers::Workers;
use crate::sys::clock::Moment;
use crate::sys::lock::{Held, Rank, Ranked};
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU32, AtomicU64, Ordering};

/// The values that compute.
#[derive(Debug)]
struct State {
    pacer: Pacer,
    limiter: Limiter,
    /// Bytes of objects that may have to be scanned, when the running cycle began.
    heap_scan: u64,
    /// The goal of the last cycle, in bytes; 0 before the first.
    last_goal: u64,
    survival: Survival,
    /// How marking last ended.
    mark_end: MarkEnd,
}

/// What the collector is at, as far as it matters to those who allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Phase {
    /// No cycle runs, or none has come to its first stop: the trigger decides.
    Idle,
    Marking,
    /// From the end of marking to the end of the sweep.
    Sweeping,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Pacing {
    state: Ranked<State>,
    /// The background workers that this number of processors gets.
    pub(crate) workers: Workers,
    pub(crate) processors: u32,
    /// The limiter's clock starts here.
    epoch: Moment,
    /// The limiter says to leave the program alone.
    limiting: AtomicU32,
    /// When marking began, in nanoseconds since the epoch.
    mark_began: AtomicU64,
    /// Processor time spent on the running cycle, in nanoseconds: workers that take it from the program, ..
    pub(crate) background_ns: AtomicU64,
    /// .. mutators, ..
    pub(crate) assist_ns: AtomicU64,
    /// .. and workers that use what is idle.
    pub(crate) idle_ns: AtomicU64,
    /// Of the last two, what the limiter has been told.
    told: [AtomicU64; 2],
    /// Bytes that background workers have scanned and no assist has taken.
    pub(crate) credit: AtomicU64,
    /// Scannable bytes allocated since the last cycle began.
    pub(crate) scannable: AtomicU64,
    /// The pace of the sweep, as words.
    sweep: [AtomicU64; 3],
    /// Bytes of spans when marking ended.
    spans_to_sweep: AtomicU64,
    /// A [`Phase`].
    phase: AtomicU32,
    /// While the sweep runs: external bytes that are expected to be freed, and are not counted as live any more ..
    dead_external: AtomicU64,
    /// .. external bytes that it has freed so far ..
    freed_external: AtomicU64,
    /// .. what `MHeap::freed_bytes` will be when it is over ..
    freed_at_end: AtomicU64,
    /// .. the most that should be held meanwhile ..
    most_held: AtomicU64,
    /// .. and objects dropped so far. Any change is progress.
    pub(crate) drops: AtomicU64,
    /// The longest object of late, in bytes.
    pub(crate) longest: AtomicU64,
}

/// What a cycle was, for figures and traces. Bytes and nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CycleSize {
    pub(crate) heap_at_start: u64,
    pub(crate) heap_at_end: u64,
    pub(crate) marked: u64,
    pub(crate) goal: u64,
    pub(crate) trigger: u64,
    pub(crate) times: MarkTimes,
}

impl Pacing {
    pub(crate) fn new(gogc: Option<u32>, limit: u64, processors: usize) -> Self {
        let processors = u32::try_from(processors).unwrap_or(u32::MAX).max(1);
        let workers = Workers::split(processors);
        let knobs = Knobs {
            gogc,
            limit,
            background: workers.share(processors),
            ..Knobs::new(processors)
        };
        let zero = || AtomicU64::new(0);
        Self {
            state: Ranked::new(
                Rank::Pacer,
                State {
                    pacer: Pacer::new(knobs),
                    limiter: Limiter::new(0, processors),
                    heap_scan: 0,
                    last_goal: 0,
                    survival: Survival::default(),
                    mark_end: MarkEnd::default(),
                },
            ),
            workers,
            processors,
            epoch: Moment::now(),
            limiting: AtomicU32::new(0),
            mark_began: zero(),
            background_ns: zero(),
            assist_ns: zero(),
            idle_ns: zero(),
            told: [zero(), zero()],
            credit: zero(),
            scannable: zero(),
            sweep: [zero(), zero(), zero()],
            spans_to_sweep: zero(),
            phase: AtomicU32::new(Phase::Idle as u32),
            dead_external: zero(),
            freed_external: zero(),
            freed_at_end: zero(),
            most_held: zero(),
            drops: zero(),
            longest: zero(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        // Relaxed: advice. Whoever acts on an old phase asks for a cycle, or waits, a moment too early or too late.
        match self.phase.load(Ordering::Relaxed) {
            p if p == Phase::Marking as u32 => Phase::Marking,
            p if p == Phase::Sweeping as u32 => Phase::Sweeping,
            _ => Phase::Idle,
        }
    }

    fn set_phase(&self, phase: Phase) {
        // Relaxed: as above.
        self.phase.store(phase as u32, Ordering::Relaxed);
    }

    /// Whether collection takes so much time that assists should cease.
    pub(crate) fn is_limiting(&self) -> bool {
        // Relaxed: advice.
        self.limiting.load(Ordering::Relaxed) != 0
    }

    /// Age of the heap, in nanoseconds.
    pub(crate) fn age_ns(&self) -> u64 {
        self.epoch.elapsed_ns()
    }

    /// Nanoseconds since marking began.
    pub(crate) fn mark_elapsed_ns(&self) -> u64 {
        // Relaxed: written at a stop.
        let began = self.mark_began.load(Ordering::Relaxed);
        self.epoch.elapsed_ns().saturating_sub(began)
    }

    pub(crate) fn plan(&self) -> Plan {
        self.state.lock().pacer.plan()
    }

    /// The knobs, as set.
    pub(crate) fn knobs(&self) -> Knobs {
        self.state.lock().pacer.knobs()
    }

    /// Who has spent how much time on the running cycle.
    fn times(&self) -> MarkTimes {
        // Relaxed (all): figures.
        MarkTimes {
            duration_ns: self.mark_elapsed_ns(),
            background_ns: self.background_ns.load(Ordering::Relaxed),
            assist_ns: self.assist_ns.load(Ordering::Relaxed),
            idle_ns: self.idle_ns.load(Ordering::Relaxed),
        }
    }

    /// The pages that whoever allocates should sweep first, with the heap at `live` bytes.
    pub(crate) fn pages_due(&self, live: u64, swept: u64) -> u64 {
        // Relaxed (all): advice; three words of different moments make a bad figure once.
        if self.phase() != Phase::Sweeping {
            return 0;
        }
        let words = std::array::from_fn(|i| self.sweep[i].load(Ordering::Relaxed));
        SweepPace::from_words(words).pages_due(live, swept)
    }

    fn set_sweep(&self, pace: SweepPace) {
        for (place, word) in self.sweep.iter().zip(pace.to_words()) {
            // Relaxed: as in `pages_due`.
            place.store(word, Ordering::Relaxed);
        }
    }

    /// Lets the limiter account for the time up to now.
    fn update_limiter(&self, limiter: &mut Limiter) {
        // Relaxed (all): figures.
        let fresh = |total: &AtomicU64, told: &AtomicU64| {
            let total = total.load(Ordering::Relaxed);
            total.saturating_sub(told.swap(total, Ordering::Relaxed))
        };
        limiter.add_assist(fresh(&self.assist_ns, &self.told[0]));
        limiter.add_idle(fresh(&self.idle_ns, &self.told[1]));
        limiter.update(self.epoch.elapsed_ns());
        self.limiting
            .store(u32::from(limiter.is_limiting()), Ordering::Relaxed);
    }

    /// A stop that lasted `ns` is over; marking runs now, or does not. The time before everybody stood still does not
    /// count: the program ran then, and a thread that is late would make the limiter take the brake off.
    pub(crate) fn note_stop(&self, ns: u64, marking: bool) {
        let now = self.epoch.elapsed_ns();
        let mut state = self.state.lock();
        self.update_limiter(&mut state.limiter);
        state.limiter.begin_stop(marking, now.saturating_sub(ns));
        state.limiter.end_stop(now);
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Collector {
    /// What counts against the memory limit. Free slots of spans in use count as object memory: they are what the next
    /// objects go into. Where they do not serve, because other sizes are wanted, the heap passes its limit, and what is over
    /// comes off the goal.
    fn memory_figures(&self) -> MemoryFigures {
        let memory = self.heap.memory();
        let external = self.gauges.external();
        MemoryFigures {
            mapped: memory.mapped() + external,
            free: memory.idle,
            objects: memory.in_use + external,
        }
    }

    fn publish_plan(&self, plan: Plan) {
        // Relaxed (all): see the module's head.
        self.gauges.goal.store(plan.goal, Ordering::Relaxed);
        self.gauges.trigger.store(plan.trigger, Ordering::Relaxed);
        self.gauges.ceiling.store(plan.ceiling, Ordering::Relaxed);
    }

    fn publish_rates(&self, rates: AssistRates) {
        // Relaxed: as above.
        self.gauges
            .assist_ratio
            .store(rates.work_per_byte.to_bits(), Ordering::Relaxed);
    }

    /// Plans what is left of the cycle's growth, and what the scavenger may keep.
    fn plan_again(
        &self,
        mut state: Held<'_, State>,
        live: u64,
        sweep_done: bool,
        memory: MemoryFigures,
    ) {
        let plan = state.pacer.commit(live, sweep_done, memory);
        let (last_goal, limit) = (state.last_goal, state.pacer.knobs().limit);
        drop(state);
        self.publish_plan(plan);
        self.plan_scavenging(last_goal, limit);
    }

    /// Plans again after a change of a knob.
    pub(crate) fn change_knobs<R>(&self, change: impl FnOnce(&mut Knobs) -> R) -> R {
        let memory = self.memory_figures();
        // Relaxed: a figure.
        let live = self.gauges.heap_live.load(Ordering::Relaxed);
        let sweep_done = self.pacing.phase() != Phase::Sweeping;
        let mut state = self.pacing.state.lock();
        let mut knobs = state.pacer.knobs();
        let out = change(&mut knobs);
        state.pacer.set_knobs(knobs);
        self.plan_again(state, live, sweep_done, memory);
        self.wake_scavenger();
        self.ask_if_due();
        out
    }

    pub(crate) fn set_gogc(&self, percent: Option<u32>) -> Option<u32> {
        self.change_knobs(|k| std::mem::replace(&mut k.gogc, percent))
    }

    pub(crate) fn set_limit(&self, bytes: u64) -> u64 {
        self.change_knobs(|k| std::mem::replace(&mut k.limit, bytes))
    }

    /// A cycle begins.
    pub(crate) fn begin_pacing(&self, _stopped: &Stopped<'_>) {
        let memory = self.memory_figures();
        let pacing = &self.pacing;
        // Relaxed (all): the world is stopped.
        for counter in [
            &pacing.background_ns,
            &pacing.assist_ns,
            &pacing.idle_ns,
            &pacing.told[0],
            &pacing.told[1],
            &self.sliced_ns,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        pacing.credit.store(0, Ordering::Relaxed);
        pacing.set_phase(Phase::Marking);
        pacing
            .mark_began
            .store(pacing.epoch.elapsed_ns(), Ordering::Relaxed);
        let live = self.gauges.heap_live.load(Ordering::Relaxed);
        let born = pacing.scannable.swap(0, Ordering::Relaxed);
        let mut state = pacing.state.lock();
        state.heap_scan = state.pacer.scanned().saturating_add(born);
        let heap_scan = state.heap_scan;
        let rates = state.pacer.start_cycle(live, heap_scan, 0, memory);
        let plan = state.pacer.plan();
        drop(state);
        self.publish_rates(rates);
        self.publish_plan(plan);
    }

    /// What allocations owe from now on, and whether they owe at all.
    pub(crate) fn revise_pace(&self) {
        // Relaxed (both): figures.
        let live = self.gauges.heap_live.load(Ordering::Relaxed);
        let done = self.gauges.scanned.load(Ordering::Relaxed);
        let mut state = self.pacing.state.lock();
        let rates = state.pacer.revise(live, done, state.heap_scan);
        let now = self.pacing.epoch.elapsed_ns();
        if state.limiter.needs_update(now) {
            // Processors that neither the program nor a worker uses, this thread's left out: a mutator that waits for
            // credit is no program at work.
            let busy = self.world.running() + self.active_workers.load(Ordering::Relaxed) + 1;
            let idle = self.settings.processors.saturating_sub(busy) as u64;
            let since = now.saturating_sub(state.limiter.updated_at());
            state.limiter.add_idle(since.saturating_mul(idle));
            self.pacing.update_limiter(&mut state.limiter);
        }
        drop(state);
        self.publish_rates(rates);
    }

    /// Marking is over. Plans the next cycle.
    ///
    /// What of the external bytes lives is a guess until [`end_sweep_pacing`](Self::end_sweep_pacing); `heap_live` counts
    /// the rest as gone, as it does dead objects.
    pub(crate) fn end_pacing(
        &self,
        heap_at_start: u64,
        end: MarkEnd,
        _stopped: &Stopped<'_>,
    ) -> CycleSize {
        let memory = self.memory_figures();
        let pacing = &self.pacing;
        let mut state = pacing.state.lock();
        let mut remains = state.survival.expect(&end);
        if sabotage::is_on(Fault::DeadExternalLives) {
            remains.live = end.live_after(0);
            remains.dead_external = 0;
        }
        let live = remains.live;
        // Relaxed (all): the world is stopped.
        let heap_at_end = self.gauges.heap_live.swap(live, Ordering::Relaxed);
        let size = CycleSize {
            heap_at_start,
            heap_at_end,
            marked: self.gauges.marked.load(Ordering::Relaxed),
            goal: self.gauges.goal.load(Ordering::Relaxed),
            trigger: self.gauges.trigger.load(Ordering::Relaxed),
            times: pacing.times(),
        };
        self.sweep_down.store(self.heap.top(), Ordering::Relaxed);
        state.pacer.end_cycle(CycleEnd {
            heap_live: heap_at_end,
            heap_scanned: self.gauges.scanned.load(Ordering::Relaxed),
            roots_scanned: 0,
            times: size.times,
        });
        state.pacer.reset_live(live);
        state.last_goal = size.goal;
        state.mark_end = end;
        let plan = state.pacer.commit(live, false, memory);
        let most = remains.most(plan.ceiling, state.pacer.limit_goal());
        drop(state);
        self.begin_sweep_pacing(&remains, most);
        self.publish_plan(plan);
        let spans = self.heap.span_bytes.load(Ordering::Relaxed);
        pacing.spans_to_sweep.store(spans, Ordering::Relaxed);
        let pages = spans >> PAGE_SHIFT;
        pacing.set_sweep(SweepPace::new(live, plan.trigger, pages, 0));
        size
    }

    fn begin_sweep_pacing(&self, remains: &Remains, most: u64) {
        let pacing = &self.pacing;
        // Relaxed (all): the world is stopped.
        let freed = self.heap.freed_bytes.load(Ordering::Relaxed);
        for (place, value) in [
            (&pacing.dead_external, remains.dead_external),
            (&pacing.freed_external, 0),
            (
                &pacing.freed_at_end,
                freed.saturating_add(remains.dead_objects),
            ),
            (&pacing.most_held, most),
            // Halved, so that one long object is forgotten after some cycles.
            (&pacing.longest, pacing.longest.load(Ordering::Relaxed) / 2),
        ] {
            place.store(value, Ordering::Relaxed);
        }
        self.gauges.survived.store(remains.live, Ordering::Relaxed);
        pacing.set_phase(Phase::Sweeping);
    }

    /// The sweep has freed external bytes of a dead object. On the thread that sweeps.
    pub(crate) fn note_freed_external(&self, bytes: u64) {
        let pacing = &self.pacing;
        // Relaxed (all): one thread writes; others look at figures.
        pacing.freed_external.fetch_add(bytes, Ordering::Relaxed);
        let expected = pacing.dead_external.load(Ordering::Relaxed);
        let known = expected.min(bytes);
        pacing
            .dead_external
            .store(expected - known, Ordering::Relaxed);
        self.gauges.change_external(-signed(bytes));
        self.gauges.change_live(-signed(bytes - known));
    }

    /// Whether more is held, with `live` bytes counted as alive, than should be while the sweep runs.
    pub(crate) fn holds_too_much(&self, live: u64) -> bool {
        let pacing = &self.pacing;
        // Relaxed (all): figures.
        let freed = self.heap.freed_bytes.load(Ordering::Relaxed);
        let objects = pacing
            .freed_at_end
            .load(Ordering::Relaxed)
            .saturating_sub(freed);
        let external = pacing.dead_external.load(Ordering::Relaxed);
        live.saturating_add(objects).saturating_add(external)
            > pacing.most_held.load(Ordering::Relaxed)
    }

    /// The bytes needed and the memory limit. A limit that is not above what is needed leaves no room to allocate in: it is
    /// unmet.
    pub(crate) fn needed_and_limit(&self) -> (u64, u64) {
        let memory = self.memory_figures();
        let state = self.pacing.state.lock();
        let needed = state.pacer.marked().saturating_add(memory.other());
        (needed, state.pacer.knobs().limit)
    }

    /// Bytes of spans that are still to be swept.
    pub(crate) fn sweep_debt_bytes(&self) -> u64 {
        if self.pacing.phase() != Phase::Sweeping {
            return 0;
        }
        // Relaxed (both): figures.
        let swept = self.heap.swept_pages.load(Ordering::Relaxed) << PAGE_SHIFT;
        let spans = self.pacing.spans_to_sweep.load(Ordering::Relaxed);
        spans.saturating_sub(swept)
    }

    /// The sweep is over: what lives is known now, and the next cycle may begin as soon as it should.
    pub(crate) fn end_sweep_pacing(&self) {
        let memory = self.memory_figures();
        let pacing = &self.pacing;
        // Relaxed (all): the thread that sweeps writes them, which is this one.
        let freed = pacing.freed_external.load(Ordering::Relaxed);
        // What was expected to die and has not.
        let more = pacing.dead_external.swap(0, Ordering::Relaxed);
        self.gauges.change_live(signed(more));
        let live = self.gauges.heap_live.load(Ordering::Relaxed);
        let mut state = pacing.state.lock();
        let end = state.mark_end;
        state.survival.note(&end, freed);
        let survived = end.live_after(freed);
        self.gauges.survived.store(survived, Ordering::Relaxed);
        if !sabotage::is_on(Fault::DeadExternalLives) {
            state.pacer.reset_live(survived);
        }
        pacing.set_phase(Phase::Idle);
        self.plan_again(state, live, true, memory);
        self.ask_if_due();
    }
}
