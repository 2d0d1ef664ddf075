//! The results of Go's rule and of ours in the scenarios, which the head of `pacer.rs` cites.

use crate::pace::pacer::Rule;
use crate::pace::scenarios::{
    LIMIT, LIMIT_GOAL, MIB, Scenario, all, by_growth, by_limit, last, near, within,
};
use crate::pace::sim::{self, Outcome};

/// The cycle from which on the heap does not grow, counted from 0.
const GROWN: usize = 13;

/// The result of a rule in a scenario, over all seeds, from [`GROWN`] on.
struct Summary {
    /// The last cycle of the last seed.
    last: Outcome,
    /// The highest utilisation of a last cycle.
    utilisation: f64,
    /// The highest utilisation of any cycle.
    worst: f64,
    /// The smallest and the largest peak/goal.
    ratio: (f64, f64),
}

impl Summary {
    fn of(scenario: &Scenario, rule: Rule) -> Self {
        let runs = (0..scenario.seeds).map(|seed| sim::run(&scenario.program, rule, seed, |_| ()));
        let runs: Vec<_> = runs.collect();
        let cycles = || runs.iter().flat_map(|run| &run[GROWN..]);
        let ratios = cycles().map(Outcome::goal_ratio);
        Self {
            last: *last(&runs[runs.len() - 1]),
            utilisation: runs.iter().map(|r| last(r).utilisation).fold(0.0, f64::max),
            worst: cycles().map(|c| c.utilisation).fold(0.0, f64::max),
            ratio: ratios.fold((9.0, 0.0), |(low, high), r| (low.min(r), high.max(r))),
        }
    }
}

/// Utilisation (last, worst), peak/goal (smallest, largest), and the final live, trigger and goal
/// in MiB that Go's own test logs, where nothing depends on its random numbers.
const GO_RECORDED: [(&str, [f64; 4], [f64; 3]); 16] = [
    ("Steady", [0.25, 0.25, 1.0, 1.0], [19.92, 38.12, 39.88]),
    (
        "SteadyBigStacks",
        [0.25, 0.25, 1.0, 1.0],
        [74.7, 220.9, 277.4],
    ),
    (
        "SteadyBigGlobals",
        [0.25, 0.25, 1.0, 1.0],
        [74.7, 220.9, 277.4],
    ),
    ("StepAlloc", [0.25, 0.5, 1.0, 1.0], [23.44, 41.64, 46.91]),
    (
        "HeavyStepAlloc",
        [0.4564, 0.7857, 1.0, 1.0],
        [25.84, 44.04, 51.73],
    ),
    (
        "StepScannableFrac",
        [0.25, 0.25, 0.926, 1.087],
        [19.54, 37.73, 39.11],
    ),
    (
        "OscAlloc",
        [0.2749, 0.2749, 0.967, 1.0],
        [21.73, 39.93, 43.5],
    ),
    (
        "SmallHeapSlowAlloc",
        [0.25, 0.25, 0.96, 0.96],
        [0.56, 3.84, 4.0],
    ),
    (
        "MediumHeapSlowAlloc",
        [0.25, 0.25, 0.976, 0.976],
        [3.87, 7.59, 7.77],
    ),
    (
        "LargeHeapSlowAlloc",
        [0.25, 0.25, 0.999, 0.999],
        [3247.7, 6491.4, 6495.4],
    ),
    (
        "SteadyMemoryLimit",
        [0.25, 0.25, 1.0, 1.0],
        [19.92, 38.12, 39.88],
    ),
    (
        "SteadyMemoryLimitNoGCPercent",
        [0.25, 0.25, 0.995, 0.995],
        [19.92, 492.64, 496.64],
    ),
    (
        "ExceedMemoryLimit",
        [1.0, 1.0, 1.0, 1.0],
        [1120.31, 1120.31, 1120.31],
    ),
    (
        "ExceedMemoryLimitNoGCPercent",
        [1.0, 1.0, 1.0, 1.0],
        [1120.31, 1120.31, 1120.31],
    ),
    (
        "MaintainMemoryLimit",
        [0.25, 0.25, 1.0, 1.0],
        [373.33, 463.72, 496.64],
    ),
    (
        "MaintainMemoryLimitNoGCPercent",
        [0.25, 0.25, 1.0, 1.0],
        [373.33, 463.72, 496.64],
    ),
];

#[test]
fn gos_rule_comes_to_what_go_records() {
    let mut compared = 0;
    for s in all().filter(|s| s.seeds == 1) {
        let (_, shares, sizes) = GO_RECORDED.iter().find(|r| r.0 == s.name).unwrap();
        let sum = Summary::of(&s, Rule::Plain);
        let got = [sum.utilisation, sum.worst, sum.ratio.0, sum.ratio.1];
        for (got, recorded) in got.iter().zip(shares) {
            near(s.name, *got, *recorded, 0.0006);
        }
        let got = [sum.last.live, sum.last.trigger, sum.last.goal];
        for (got, recorded) in got.iter().zip(sizes) {
            near(s.name, *got as f64 / MIB as f64, *recorded, 0.051);
        }
        compared += 1;
    }
    assert_eq!(compared, GO_RECORDED.len());
}

/// Go's random numbers differ from ours, so its values are in the range of 20 seeds, or near it.
#[test]
fn gos_rule_comes_close_to_what_go_records_where_there_is_chance() {
    let summary = |name| Summary::of(&all().find(|s| s.name == name).unwrap(), Rule::Plain);
    let high = summary("HighGOGC");
    within("worst", high.worst, 0.25, 0.26);
    near("peak/goal", high.ratio.1, 1.289, 0.02);
    let jitter = summary("JitterAlloc");
    within("worst", jitter.worst, 0.262, 0.275);
    near("peak/goal", jitter.ratio.0, 0.975, 0.002);
    let heavy = summary("HeavyJitterAlloc");
    near("worst", heavy.worst, 0.454, 0.005);
    near("trigger", heavy.last.trigger_ratio(), 0.703, 0.001);
}

/// The utilisation of the last cycle and of the worst one, and the largest peak/goal: Go's rule,
/// then ours. This is the table of `pacer.rs`, which leaves out the scenarios that stay at 25 % and
/// within the goal under both rules.
const BEFORE_AND_AFTER: [(&str, [f64; 3], [f64; 3]); 8] = [
    ("StepAlloc", [0.250, 0.500, 1.000], [0.250, 0.250, 1.088]),
    (
        "HeavyStepAlloc",
        [0.456, 0.786, 1.000],
        [0.250, 0.529, 1.100],
    ),
    (
        "StepScannableFrac",
        [0.250, 0.250, 1.087],
        [0.250, 0.256, 1.083],
    ),
    ("HighGOGC", [0.255, 0.259, 1.297], [0.250, 0.255, 1.297]),
    ("OscAlloc", [0.275, 0.275, 1.000], [0.250, 0.250, 1.011]),
    ("JitterAlloc", [0.261, 0.270, 1.001], [0.250, 0.250, 1.014]),
    (
        "HeavyJitterAlloc",
        [0.456, 0.456, 1.001],
        [0.250, 0.251, 1.036],
    ),
    (
        "ExceedMemoryLimit",
        [1.000, 1.000, 1.000],
        [1.000, 1.000, 1.000],
    ),
];

#[test]
fn the_table_of_the_pacer_is_true() {
    for s in all() {
        let recorded = BEFORE_AND_AFTER
            .iter()
            .find(|row| row.0 == s.name || row.0.len() > 16 && s.name.starts_with(row.0))
            .map_or(([0.25, 0.25, 1.0], [0.25, 0.25, 1.0]), |row| (row.1, row.2));
        for (rule, recorded) in [(Rule::Plain, recorded.0), (Rule::Early, recorded.1)] {
            let sum = Summary::of(&s, rule);
            near(s.name, sum.utilisation, recorded[0], 0.0006);
            near(s.name, sum.worst, recorded[1], 0.0006);
            near(s.name, sum.ratio.1.max(1.0), recorded[2], 0.0006);
        }
    }
}

#[test]
fn sudden_and_heavy_allocation_needs_few_assists() {
    for s in all() {
        // Two cycles after the step, and everywhere if there is none.
        let skipped = match s.name {
            "HeavyStepAlloc" => 51..53,
            "ExceedMemoryLimit" | "ExceedMemoryLimitNoGCPercent" => continue,
            _ => 0..0,
        };
        for seed in 0..s.seeds {
            let run = sim::run(&s.program, Rule::Early, seed, |_| ());
            for (i, cycle) in run.iter().enumerate().skip(GROWN) {
                if !skipped.contains(&i) {
                    within(s.name, cycle.utilisation, 0.25, 0.30);
                }
            }
        }
    }
}

#[test]
fn the_heap_passes_its_ceiling_only_if_what_lives_has_grown() {
    for s in by_growth() {
        for seed in 0..s.seeds {
            sim::run(&s.program, Rule::Early, seed, peak_is_bounded);
        }
    }
}

/// The cycle before the last ended below its ceiling, or below the goal that its survivors made.
fn peak_is_bounded(c: &[Outcome]) {
    if let [.., before, after] = c {
        assert!(before.ceiling <= before.goal + before.goal / 10);
        let bound = before.ceiling.max(after.goal) + before.step;
        assert!(before.peak <= bound, "cycle {}: {before:?}", c.len() - 1);
    }
}

/// The limit is kept as long as the live heap leaves room; after that the heap exceeds it by at
/// most a megabyte.
#[test]
fn the_heap_stays_below_the_limit() {
    for s in by_limit() {
        sim::run(&s.program, Rule::Early, 0, |c| {
            let c = last(c);
            let most = if c.live < LIMIT_GOAL {
                LIMIT
            } else {
                c.live + MIB
            };
            assert!(c.peak <= most, "{}: {c:?}", s.name);
        });
    }
}
