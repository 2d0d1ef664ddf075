//! Simulated programs whose objects own memory outside the heap, which only the sweep frees. They
//! test the pacer together with `survival.rs`.
//!
//! A program is a share of external bytes, a GOGC, and a function that says how its live heap
//! changes. Between cycles it allocates up to the trigger. While marking runs it allocates a tenth
//! of what is live. While the sweep runs it allocates half as many bytes as the sweep frees, unless
//! the brake holds it. All sizes are proportional, so no clock is needed. Each program also runs
//! under the rule that counts all external bytes as live; this rule must fail in the known way: the
//! goal runs away.

use crate::pace::cons_mark::MarkTimes;
use crate::pace::heap_goal::{Knobs, MemoryFigures, goal_by_growth};
use crate::pace::pacer::{CycleEnd, Pacer, Plan};
use crate::pace::survival::{MarkEnd, Survival};

const MIB: u64 = 1 << 20;
const NONE: MemoryFigures = MemoryFigures {
    mapped: 0,
    free: 0,
    objects: 0,
};
const CYCLES: usize = 40;
/// The number of cycles before the guess has something to learn from.
const LEARNING: usize = 3;
/// The number of steps of a sweep.
const STEPS: u64 = 64;

/// Which external bytes count as live when marking ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Those that `survival.rs` says.
    Survivors,
    /// All that have not been dropped.
    All,
}

/// The bytes that are live in a cycle.
type Live = fn(usize) -> u64;

struct Program {
    /// The share of external bytes, in percent.
    external: u64,
    gogc: u32,
    live: Live,
}

/// The result of a cycle, in bytes.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// The heap when the cycle began.
    start: u64,
    /// The plan by which the cycle began, and the plan that it led to after the sweep.
    plan: Plan,
    next: Plan,
    /// What is live after the cycle, and what the next goal should be by the rule of growth.
    live: u64,
    right_goal: u64,
    /// The most that was held, from the begin of the cycle to the end of its sweep.
    peak: u64,
    /// The most that was counted as live while the sweep ran.
    counted: u64,
}

struct Heap {
    program: Program,
    rule: Rule,
    pacer: Pacer,
    survival: Survival,
    /// What is live, and what has been allocated since.
    size: u64,
}

impl Heap {
    fn new(program: Program, rule: Rule) -> Self {
        let knobs = Knobs {
            gogc: Some(program.gogc),
            ..Knobs::new(8)
        };
        Self {
            program,
            rule,
            pacer: Pacer::new(knobs),
            survival: Survival::default(),
            size: 0,
        }
    }

    fn outside(&self, bytes: u64) -> u64 {
        bytes * self.program.external / 100
    }

    fn inside(&self, bytes: u64) -> u64 {
        bytes - self.outside(bytes)
    }

    /// Allocates up to the trigger, marks, and sweeps.
    fn cycle(&mut self, number: usize) -> Outcome {
        let plan = self.pacer.plan();
        let start = self.size.max(plan.trigger);
        let survive = (self.program.live)(number).min(start);
        let born = survive / 10;
        self.pacer.start_cycle(start, self.inside(start), 0, NONE);
        let end = MarkEnd {
            objects_at_start: self.inside(start),
            marked: self.inside(survive),
            born: self.inside(born),
            external_at_start: self.outside(start),
            external: self.outside(start) + self.outside(born),
        };
        let mut remains = self.survival.expect(&end);
        if self.rule == Rule::All {
            remains.live = end.live_after(0);
            remains.dead_external = 0;
        }
        self.pacer.end_cycle(CycleEnd {
            heap_live: start + born,
            heap_scanned: self.inside(survive),
            roots_scanned: 0,
            times: MarkTimes {
                duration_ns: 1_000_000,
                background_ns: 2_000_000,
                ..MarkTimes::default()
            },
        });
        self.pacer.reset_live(remains.live);
        let guess = self.pacer.commit(remains.live, false, NONE);
        let most = remains.most(guess.ceiling, self.pacer.limit_goal());

        // The sweep. What is held does not depend on the guess.
        let dead = start - survive;
        let dead_outside = self.outside(start) - self.outside(survive);
        let (mut allocated, mut peak, mut counted) = (0, start + born, 0);
        for step in 1..=STEPS {
            let held = survive + born + allocated + (dead - dead * (step - 1) / STEPS);
            let freed_outside = dead_outside * (step - 1) / STEPS;
            // As the gauges count it: what is freed beyond the guess comes off what is counted as
            // live.
            let past_guess = freed_outside.saturating_sub(remains.dead_external);
            let live = remains.live + allocated - past_guess.min(remains.live);
            counted = live.max(counted);
            let waits = held > most || live > guess.ceiling;
            if !waits {
                allocated += dead / 2 / STEPS;
            }
            peak = peak.max(held);
        }
        self.survival.note(&end, dead_outside);
        let live = end.live_after(dead_outside);
        self.size = live + allocated;
        if self.rule == Rule::Survivors {
            self.pacer.reset_live(live);
        }
        let next = self.pacer.commit(self.size, true, NONE);
        Outcome {
            start,
            plan,
            next,
            live,
            right_goal: goal_by_growth(live, 0, Some(self.program.gogc)),
            peak,
            counted,
        }
    }
}

fn run(program: Program, rule: Rule) -> Vec<Outcome> {
    let mut heap = Heap::new(program, rule);
    (0..CYCLES).map(|number| heap.cycle(number)).collect()
}

fn steady(_: usize) -> u64 {
    20 * MIB
}

/// Grows by a third in each cycle, up to 200 MiB.
fn growing(cycle: usize) -> u64 {
    (0..cycle.min(CYCLES)).fold(5 * MIB, |live, _| (live + live / 3).min(200 * MIB))
}

/// Grows, and from the middle on shrinks by a quarter in each cycle, down to a megabyte.
fn shrinking(cycle: usize) -> u64 {
    let down = cycle.saturating_sub(CYCLES / 2);
    (0..down).fold(growing(cycle.min(CYCLES / 2)), |live, _| {
        (live - live / 4).max(MIB)
    })
}

fn programs() -> impl Iterator<Item = (String, Program)> {
    let kinds: [(&str, Live); 3] = [
        ("steady", steady),
        ("growing", growing),
        ("shrinking", shrinking),
    ];
    kinds.into_iter().flat_map(|(kind, live)| {
        [10, 50, 90, 99].into_iter().flat_map(move |external| {
            [50, 100, 400].into_iter().map(move |gogc| {
                let program = Program {
                    external,
                    gogc,
                    live,
                };
                (
                    format!("{kind}, {external} % outside, GOGC {gogc}"),
                    program,
                )
            })
        })
    })
}

#[test]
fn the_goal_follows_what_lives() {
    for (name, program) in programs() {
        for (number, c) in run(program, Rule::Survivors).iter().enumerate() {
            // The shares are rounded, by a few bytes each.
            assert!(
                c.next.goal.abs_diff(c.right_goal) <= 16,
                "{name}, cycle {number}: {c:?}"
            );
        }
    }
}

#[test]
fn the_heap_keeps_to_its_goal_while_the_dead_are_dropped() {
    for (name, program) in programs() {
        let outcomes = run(program, Rule::Survivors);
        for (number, pair) in outcomes.windows(2).enumerate().skip(LEARNING) {
            let (last, c) = (pair[0], pair[1]);
            // The goal is this cycle's or the next one's, because a heap that shrinks is still as
            // large as its old goal when its sweep begins.
            let goal = c.plan.goal.max(c.next.goal);
            let most = goal + goal * 3 / 10;
            assert!(c.peak <= most, "{name}, cycle {number}: {c:?}");
            // No cycle begins below its trigger, or before something has been allocated.
            assert!(
                c.start >= last.next.trigger,
                "{name}, cycle {number}: {c:?}"
            );
            assert!(c.start > last.live, "{name}, cycle {number}: {c:?}");
        }
    }
}

/// What is counted while the sweep runs stays near what is live, once the share is known.
#[test]
fn a_steady_program_is_guessed_right() {
    for gogc in [50, 100, 400] {
        let program = Program {
            external: 90,
            gogc,
            live: steady,
        };
        for c in run(program, Rule::Survivors).iter().skip(LEARNING) {
            assert!(c.counted <= c.next.ceiling, "GOGC {gogc}: {c:?}");
        }
    }
}

#[test]
fn counting_the_dead_lets_the_goal_run_away() {
    for (external, gogc) in [(90, 100), (99, 100), (50, 400)] {
        let program = || Program {
            external,
            gogc,
            live: steady,
        };
        let right = run(program(), Rule::Survivors)[CYCLES - 1].next.goal;
        let mut heap = Heap::new(program(), Rule::All);
        assert!(
            (0..CYCLES).any(|number| heap.cycle(number).next.goal > 10 * right),
            "{external} % outside, GOGC {gogc}"
        );
    }
}
