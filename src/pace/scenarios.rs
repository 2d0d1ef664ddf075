//! Programs that a pacer has to cope with: Go's 19 (`mgcpacer_test.go`), with what each requires of
//! every cycle.

use crate::pace::pacer::Rule;
use crate::pace::sim::{self, Outcome, Program, Random, Rates};

const KIB: f64 = 1024.0;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const LIMIT: u64 = 512 << 20;
/// What [`LIMIT`] leaves for objects.
pub(crate) const LIMIT_GOAL: u64 = 520_764_785;
const NO_LIMIT: u64 = u64::MAX;

/// A program and its requirements. `check` gets the outcomes up to some cycle and looks at the last
/// one.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) program: Program,
    /// How many seeds are worth running.
    pub(crate) seeds: u64,
    check: fn(&[Outcome]),
}

// ---- rates -------------------------------------------------------------------------------------

/// Returns 1 at first, and 0 from cycle `length` on.
fn falling(i: usize, length: usize) -> f64 {
    1.0 - i.min(length) as f64 / length as f64
}

/// A heap that doubles at first and stays the same from the 13th cycle on.
fn steady(alloc: f64, i: usize) -> Rates {
    Rates {
        alloc,
        scan: 1024.0,
        growth: 1.0 + falling(i, 12),
        scannable: 1.0,
        stack: 8.0 * KIB,
    }
}

/// A program that allocates little and scans less.
fn slow(growth: f64) -> Rates {
    Rates {
        alloc: 1.0,
        scan: 2048.0,
        growth,
        scannable: 0.01,
        stack: 8.0 * KIB,
    }
}

fn big_stacks(i: usize, _: &mut Random) -> Rates {
    Rates {
        stack: 2048.0 + 128.0 * KIB * KIB * (1.0 - falling(i, 8)),
        ..steady(132.0, i)
    }
}

fn scannable_step(i: usize, _: &mut Random) -> Rates {
    Rates {
        scannable: if i == 50 { 0.7 } else { 0.2 },
        ..steady(128.0, i)
    }
}

fn high_gogc(i: usize, random: &mut Random) -> Rates {
    let rates = steady(165.0 + random.within(7.0), i);
    let step = if i == 25 { 14.0 } else { 0.0 };
    Rates {
        growth: rates.growth + random.within(0.01) + step,
        ..rates
    }
}

fn jitter(alloc: f64, i: usize, random: &mut Random) -> Rates {
    let rates = steady(alloc + random.within(alloc / 10.0), i);
    Rates {
        growth: rates.growth + random.within(0.01),
        ..rates
    }
}

/// A growth that begins at `first` and falls to 1.
fn growing(first: f64, i: usize) -> Rates {
    Rates {
        growth: 1.0 + (first - 1.0) * falling(i, 12),
        ..steady(33.0, i)
    }
}

// ---- what is required --------------------------------------------------------------------------

#[track_caller]
pub(crate) fn near(what: &str, x: f64, expected: f64, error: f64) {
    within(what, x, expected - error, expected + error);
}

#[track_caller]
pub(crate) fn within(what: &str, x: f64, low: f64, high: f64) {
    assert!(
        (low..=high).contains(&x),
        "{what} {x} is not in {low} to {high}"
    );
}

pub(crate) fn last(c: &[Outcome]) -> &Outcome {
    &c[c.len() - 1]
}

/// Checks that the utilisation differs from that of the cycle before by at most `error`.
#[track_caller]
fn same_as_before(c: &[Outcome], error: f64) {
    near(
        "utilisation",
        last(c).utilisation,
        c[c.len() - 2].utilisation,
        error,
    );
}

#[track_caller]
fn at_goal(c: &[Outcome]) {
    within("peak/goal", last(c).goal_ratio(), 0.95, 1.05);
}

fn settled(c: &[Outcome]) {
    if c.len() >= 25 {
        near("utilisation", last(c).utilisation, 0.25, 0.005);
        same_as_before(c, 0.005);
        at_goal(c);
    }
}

fn settled_before_and_after(c: &[Outcome]) {
    if (25..50).contains(&c.len()) || c.len() >= 75 {
        same_as_before(c, 0.005);
        at_goal(c);
    }
}

fn high_gogc_holds(c: &[Outcome]) {
    if c.len() > 12 {
        // In the 26th cycle what is live has grown 15-fold; then only the next goal is a bound.
        let most = if c.len() == 26 { 15.0 } else { 1.05 };
        within("peak/goal", last(c).goal_ratio(), 0.90, most);
        near("utilisation", last(c).utilisation, 0.25, 0.28);
        same_as_before(c, 0.03);
    }
}

fn oscillation_holds(c: &[Outcome]) {
    if c.len() > 12 {
        at_goal(c);
        within("utilisation", last(c).utilisation, 0.25, 0.30);
    }
}

fn jitter_holds(c: &[Outcome]) {
    if c.len() > 12 {
        within("peak/goal", last(c).goal_ratio(), 0.95, 1.025);
        within("utilisation", last(c).utilisation, 0.25, 0.275);
    }
}

fn heavy_jitter_holds(c: &[Outcome]) {
    if c.len() > 13 {
        at_goal(c);
        same_as_before(c, 0.05);
        near("utilisation", last(c).utilisation, c[11].utilisation, 0.05);
    }
}

fn slow_utilisation(c: &[Outcome]) {
    if c.len() > 25 {
        near("utilisation", last(c).utilisation, 0.25, 0.005);
        same_as_before(c, 0.05);
        near("utilisation", last(c).utilisation, c[11].utilisation, 0.05);
    }
}

fn slow_holds(c: &[Outcome], from: usize) {
    if c.len() > from {
        within("peak/goal", last(c).goal_ratio(), 0.925, 1.025);
        within("trigger", last(c).trigger_ratio(), 0.925, 0.975);
    }
    slow_utilisation(c);
}

fn large_slow_holds(c: &[Outcome]) {
    if c.len() > 13 {
        at_goal(c);
        near(
            "runway",
            last(c).runway() as f64,
            4.0 * KIB * KIB,
            64.0 * KIB,
        );
    }
    slow_utilisation(c);
}

fn below_limit(c: &[Outcome]) {
    assert!(last(c).peak < LIMIT_GOAL);
    settled(c);
}

fn goal_is_limit(c: &[Outcome]) {
    assert_eq!(last(c).goal, LIMIT_GOAL);
    settled(c);
}

fn goal_comes_to_limit(c: &[Outcome]) {
    if c.len() > 12 {
        assert_eq!(last(c).goal, LIMIT_GOAL);
    }
    settled(c);
}

fn limit_exceeded(c: &[Outcome]) {
    if c.len() > 12 {
        assert_eq!(last(c).goal, last(c).live);
    }
    if c.len() >= 25 {
        near("utilisation", last(c).utilisation, 1.0, 0.005);
        same_as_before(c, 0.005);
    }
}

fn limit_exceeded_without_gogc(c: &[Outcome]) {
    if c.len() < 10 {
        assert_eq!(last(c).goal, LIMIT_GOAL);
    }
    limit_exceeded(c);
}

// ---- the scenarios -----------------------------------------------------------------------------

impl Scenario {
    fn new(
        name: &'static str,
        cycles: usize,
        rates: fn(usize, &mut Random) -> Rates,
        check: fn(&[Outcome]),
    ) -> Self {
        Self {
            name,
            program: Program {
                gogc: Some(100),
                limit: NO_LIMIT,
                globals: 32 << 10,
                cycles,
                rates,
            },
            seeds: 1,
            check,
        }
    }

    fn gogc(mut self, gogc: Option<u32>) -> Self {
        self.program.gogc = gogc;
        self
    }

    fn limit(mut self) -> Self {
        self.program.limit = LIMIT;
        self
    }

    fn globals(mut self, bytes: u64) -> Self {
        self.program.globals = bytes;
        self
    }

    fn random(mut self) -> Self {
        self.seeds = 20;
        self
    }
}

pub(crate) fn by_growth() -> Vec<Scenario> {
    vec![
        Scenario::new("Steady", 50, |i, _| steady(33.0, i), settled),
        Scenario::new("SteadyBigStacks", 50, big_stacks, settled),
        Scenario::new("SteadyBigGlobals", 50, |i, _| steady(132.0, i), settled).globals(128 * MIB),
        Scenario::new(
            "StepAlloc",
            100,
            |i, _| steady(if i < 51 { 33.0 } else { 99.0 }, i),
            settled_before_and_after,
        ),
        Scenario::new(
            "HeavyStepAlloc",
            100,
            |i, _| steady(if i < 51 { 33.0 } else { 363.0 }, i),
            settled_before_and_after,
        ),
        Scenario::new(
            "StepScannableFrac",
            100,
            scannable_step,
            settled_before_and_after,
        ),
        Scenario::new("HighGOGC", 50, high_gogc, high_gogc_holds)
            .gogc(Some(1500))
            .random(),
        Scenario::new(
            "OscAlloc",
            50,
            |i, _| {
                steady(
                    67.0 + 13.0 * (i as f64 / 4.0 * std::f64::consts::PI).sin(),
                    i,
                )
            },
            oscillation_holds,
        ),
        Scenario::new("JitterAlloc", 50, |i, r| jitter(132.0, i, r), jitter_holds).random(),
        Scenario::new(
            "HeavyJitterAlloc",
            50,
            |i, r| jitter(330.0, i, r),
            heavy_jitter_holds,
        )
        .random(),
        Scenario::new(
            "SmallHeapSlowAlloc",
            50,
            |i, _| slow(1.0 + falling(i, 3)),
            |c| slow_holds(c, 4),
        ),
        Scenario::new(
            "MediumHeapSlowAlloc",
            50,
            |i, _| slow(1.0 + falling(i, 8)),
            |c| slow_holds(c, 9),
        ),
        Scenario::new(
            "LargeHeapSlowAlloc",
            50,
            |i, _| slow(1.0 + 3.0 * falling(i, 12)),
            large_slow_holds,
        ),
    ]
}

pub(crate) fn by_limit() -> Vec<Scenario> {
    vec![
        Scenario::new("SteadyMemoryLimit", 50, |i, _| steady(33.0, i), below_limit).limit(),
        Scenario::new(
            "SteadyMemoryLimitNoGCPercent",
            50,
            |i, _| steady(33.0, i),
            goal_is_limit,
        )
        .limit()
        .gogc(None),
        Scenario::new(
            "ExceedMemoryLimit",
            50,
            |i, _| growing(3.5, i),
            limit_exceeded,
        )
        .limit(),
        Scenario::new(
            "ExceedMemoryLimitNoGCPercent",
            50,
            |i, _| growing(3.5, i),
            limit_exceeded_without_gogc,
        )
        .limit()
        .gogc(None),
        Scenario::new(
            "MaintainMemoryLimit",
            50,
            |i, _| growing(3.0, i),
            goal_comes_to_limit,
        )
        .limit(),
        Scenario::new(
            "MaintainMemoryLimitNoGCPercent",
            50,
            |i, _| growing(3.0, i),
            goal_is_limit,
        )
        .limit()
        .gogc(None),
    ]
}

pub(crate) fn all() -> impl Iterator<Item = Scenario> {
    by_growth().into_iter().chain(by_limit())
}

#[test]
fn every_scenario_holds_by_either_rule() {
    for rule in [Rule::Early, Rule::Plain] {
        for s in all() {
            for seed in 0..s.seeds {
                sim::run(&s.program, rule, seed, |c| {
                    let held = std::panic::catch_unwind(|| (s.check)(c));
                    assert!(
                        held.is_ok(),
                        "{} {rule:?} seed {seed} cycle {}",
                        s.name,
                        c.len()
                    );
                });
            }
        }
    }
}
