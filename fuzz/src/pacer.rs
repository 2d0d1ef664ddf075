//! The pacer, told any figures in any order, and a program whose allocation, marking and survival
//! are any rates.

use arbitrary::Arbitrary;

use crate::Case;
use crate::pace::assist::AssistRates;
use crate::pace::cons_mark::MarkTimes;
use crate::pace::heap_goal::{Knobs, MemoryFigures, goal_by_limit};
use crate::pace::limiter::Limiter;
use crate::pace::pacer::{CycleEnd, Pacer, Plan};
use crate::pace::scavenge::{RetainGoals, ScavengeInput, ScavengePace, before_mapping};
use crate::pace::sweep_pace::SweepPace;
use crate::pace::workers::Workers;

/// A number of bytes or nanoseconds: small, everyday, or at the end of the range.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Size {
    /// As it is.
    Small(u16),
    /// In units of 4 KiB.
    Everyday(u32),
    /// So much below the largest.
    Huge(u8),
    /// Any.
    Any(u64),
}

impl Size {
    fn get(self) -> u64 {
        match self {
            Self::Small(n) => n.into(),
            Self::Everyday(n) => u64::from(n) << 12,
            Self::Huge(n) => u64::MAX - u64::from(n),
            Self::Any(n) => n,
        }
    }
}

/// One step of a program.
#[derive(Arbitrary, Clone, Debug)]
pub enum Op {
    /// Sets GOGC, the limit and the processors.
    Knobs(Option<u32>, Option<Size>, u32),
    /// Sets the memory figures: mapped, free, for objects.
    Memory(Size, Size, Size),
    /// Plans anew from the memory figures.
    Refresh,
    /// Plans anew, with so many bytes in the heap; the sweep is done or not.
    Commit(Size, bool),
    /// A cycle begins: heap, to scan, roots.
    Start(Size, Size, Size),
    /// Heap, scanned so far, to scan.
    Revise(Size, Size, Size),
    /// It ends: heap, scanned, duration, background, assists; and what it marked.
    End(Size, Size, Size, Size, Size, Size),
    /// A sweep is paced: heap, pages in use, swept, later.
    Sweep(Size, u32, u32, Size),
    /// The limiter of assists: which of its functions, a time or a duration.
    Limit(u8, Size),
    /// Scavenging: the figures, a growth.
    Scavenge([Size; 7], Size),
    /// A batch of it: worked, slept.
    Slept(Size, Size),
    /// Workers of so many processors.
    Workers(u32),
    /// So many cycles of a steady program: MiB that survive, KiB allocated and scanned per
    /// processor-millisecond.
    Steady(u8, u8, u16, u16),
}

/// See the module.
#[derive(Arbitrary, Clone, Debug)]
pub struct Program(pub Vec<Op>);

struct Paced {
    pacer: Pacer,
    memory: MemoryFigures,
    limiter: Limiter,
    scavenge: ScavengePace,
    marking: bool,
}

fn check_rates(rates: AssistRates) {
    for rate in [rates.work_per_byte, rates.bytes_per_work] {
        assert!(rate.is_finite() && rate > 0.0, "{rates:?}");
    }
    for debt in [0, 1, 4096, 1 << 30, u64::MAX] {
        let assist = rates.assist(debt);
        assert!(assist.pays >= debt, "{rates:?}: {assist:?} for {debt}");
        assert!(rates.paid_by(assist.work) > 0);
    }
}

impl Paced {
    fn check_plan(&self, plan: Plan) {
        let marked = self.pacer.marked();
        assert_eq!(plan, self.pacer.plan());
        assert!(marked <= plan.trigger, "{plan:?}, {marked} marked");
        assert!(
            plan.trigger <= plan.goal && plan.goal <= plan.ceiling,
            "{plan:?}"
        );
        // The limit that the plan was made for may have been another one than now.
        let most = goal_by_limit(marked, self.pacer.knobs().limit, self.memory);
        assert!(most.goal >= marked);
    }

    fn apply(&mut self, op: &Op) {
        let memory = self.memory;
        match *op {
            Op::Knobs(gogc, limit, processors) => {
                let limit = limit.map_or(u64::MAX, Size::get);
                self.pacer.set_knobs(Knobs {
                    gogc,
                    limit,
                    ..Knobs::new(processors)
                });
            }
            Op::Memory(mapped, free, objects) => {
                let (mapped, free, objects) = (mapped.get(), free.get(), objects.get());
                self.memory = MemoryFigures {
                    mapped,
                    free,
                    objects,
                };
            }
            Op::Refresh => {
                let plan = self.pacer.refresh(memory);
                self.check_plan(plan);
                self.check_ceiling(plan);
            }
            Op::Commit(live, sweep_done) => {
                let plan = self.pacer.commit(live.get(), sweep_done, memory);
                self.check_plan(plan);
                self.check_ceiling(plan);
            }
            Op::Start(live, work, roots) => {
                check_rates(
                    self.pacer
                        .start_cycle(live.get(), work.get(), roots.get(), memory),
                );
                self.check_plan(self.pacer.plan());
            }
            Op::Revise(live, done, work) => {
                check_rates(self.pacer.revise(live.get(), done.get(), work.get()));
            }
            Op::End(live, scanned, duration, background, assist, marked) => {
                self.pacer.end_cycle(CycleEnd {
                    heap_live: live.get(),
                    heap_scanned: scanned.get(),
                    roots_scanned: 0,
                    times: MarkTimes {
                        duration_ns: duration.get(),
                        background_ns: background.get(),
                        assist_ns: assist.get(),
                        idle_ns: 0,
                    },
                });
                self.pacer.reset_live(marked.get());
                let plan = self.pacer.commit(marked.get(), true, memory);
                self.check_plan(plan);
                self.check_ceiling(plan);
            }
            Op::Sweep(live, pages, swept, later) => self.check_sweep(live, pages, swept, later),
            Op::Limit(which, n) => self.limit(which, n.get()),
            Op::Scavenge(figures, growth) => check_scavenge(figures, growth.get()),
            Op::Slept(worked, slept) => {
                let (worked, slept) = (worked.get(), slept.get());
                assert!(self.scavenge.sleep_ns(worked) >= worked / 1001);
                self.scavenge
                    .slept(worked, slept, self.pacer.knobs().processors);
            }
            Op::Workers(processors) => {
                let workers = Workers::split(processors);
                let share = workers.share(processors);
                assert!((0.17..=0.33).contains(&share), "{share} of {processors}");
                assert!(workers.dedicated <= processors.max(1));
            }
            Op::Steady(cycles, survive, alloc, scan) => steady(cycles, survive, alloc, scan),
        }
    }

    /// What a plan was just made for holds.
    fn check_ceiling(&self, plan: Plan) {
        let most = goal_by_limit(self.pacer.marked(), self.pacer.knobs().limit, self.memory);
        assert!(plan.ceiling <= most.goal, "{plan:?}, {most:?}");
    }

    fn check_sweep(&self, live: Size, pages: u32, swept: u32, later: Size) {
        let (live, trigger) = (live.get(), self.pacer.plan().trigger);
        let (pages, swept) = (u64::from(pages), u64::from(swept));
        let pace = SweepPace::new(live, trigger, pages, swept);
        assert_eq!(pace.pages_due(live, swept), 0);
        let later = live.saturating_add(later.get());
        assert!(pace.pages_due(later, swept) <= pace.pages_due(u64::MAX, swept));
        let again = SweepPace::from_words(pace.to_words());
        assert_eq!(again.pages_due(later, swept), pace.pages_due(later, swept));
    }

    fn limit(&mut self, which: u8, n: u64) {
        let limiter = &mut self.limiter;
        match which % 6 {
            0 => limiter.update(n),
            1 => limiter.add_assist(n),
            2 => limiter.add_idle(n),
            3 => {
                self.marking = !self.marking;
                limiter.begin_stop(self.marking, n);
            }
            4 => limiter.end_stop(n),
            _ => limiter.resize(n, n as u32),
        }
        let at = limiter.updated_at();
        assert!(!limiter.needs_update(at));
    }
}

fn check_scavenge(figures: [Size; 7], growth: u64) {
    let [
        heap_goal,
        last_heap_goal,
        last_in_use,
        retained,
        mapped,
        limit,
        os_page,
    ] = figures.map(Size::get);
    let goals = RetainGoals::new(&ScavengeInput {
        heap_goal,
        last_heap_goal,
        last_in_use,
        retained,
        mapped,
        limit,
        os_page,
    });
    let after = before_mapping(growth, mapped, limit);
    assert!(mapped.saturating_add(growth).saturating_sub(after) <= limit);
    if goals.are_met(retained, mapped) {
        assert!(
            goals.are_met(retained / 2, mapped / 2),
            "less is met as well"
        );
    }
}

const PROCESSORS: u32 = 8;
const MIB: u64 = 1 << 20;

/// A program that does the same in every cycle: after some cycles marking is over below the
/// ceiling, and collection takes no more processors than the rates ask for.
fn steady(cycles: u8, survive: u8, alloc: u16, scan: u16) {
    let survive = (u64::from(survive) + 1) * MIB;
    let [alloc, scan] = [alloc, scan].map(|rate| f64::from(rate.max(1)) * 1024.0);
    let mut pacer = Pacer::new(Knobs::new(PROCESSORS));
    let memory = MemoryFigures::default();
    for cycle in 0..u64::from(cycles).min(40) {
        let start = pacer.plan().trigger;
        let mut heap = start.max(pacer.marked());
        let begun = heap;
        let mut rates = pacer.start_cycle(heap, survive, 0, memory);
        let (mut scanned, mut steps, mut assist_ns) = (0, 0_u64, 0_u64);
        while scanned < survive {
            // Half a millisecond of all processors, in which assists hold the ratio.
            let all = 0.5 * f64::from(PROCESSORS);
            let held = rates.work_per_byte * alloc / (rates.work_per_byte * alloc + scan);
            let share = held.clamp(0.25, 1.0);
            scanned += ((scan * all * share) as u64).max(1);
            heap += (alloc * all * (1.0 - share)) as u64;
            assist_ns += (500_000.0 * f64::from(PROCESSORS) * (share - 0.25)) as u64;
            steps += 1;
            rates = pacer.revise(heap, scanned.min(survive), heap);
            check_rates(rates);
            assert!(steps < 1 << 20, "marking ends");
        }
        let plan = pacer.plan();
        pacer.end_cycle(CycleEnd {
            heap_live: heap,
            heap_scanned: survive,
            roots_scanned: 0,
            times: MarkTimes {
                duration_ns: steps * 500_000,
                background_ns: steps * 500_000 * u64::from(PROCESSORS) / 4,
                assist_ns,
                idle_ns: 0,
            },
        });
        let marked = survive + (heap - begun);
        pacer.reset_live(marked);
        let next = pacer.commit(marked, true, memory);
        // The first cycles learn what the program is like. The room that a cycle always has is past
        // the ceiling, too.
        let step = (alloc * 0.5 * f64::from(PROCESSORS)) as u64;
        let bound = plan.ceiling.max(next.goal).max(begun) + (64 << 10) + step;
        assert!(
            cycle < 13 || heap <= bound,
            "cycle {cycle}: {heap} of {bound}, {plan:?}"
        );
    }
}

impl Case for Program {
    const MODULE: &'static str = "pacer";

    fn run(&self) {
        let mut paced = Paced {
            pacer: Pacer::new(Knobs::new(PROCESSORS)),
            memory: MemoryFigures::default(),
            limiter: Limiter::new(0, PROCESSORS),
            scavenge: ScavengePace::default(),
            marking: false,
        };
        for op in self.0.iter().take(200) {
            paced.apply(op);
        }
    }
}
