//! Runs a pacer against a program that consists only of rates: bytes allocated and scanned per
//! processor time.
//!
//! It follows the harness of Go's pacer test (`mgcpacer_test.go`). There are 8 processors, and the
//! pacer revises every 500 microseconds. Between two revisions assists keep the ratio of bytes
//! scanned to bytes allocated exactly. There is no memory but that of objects.
//!
//! The programs run one after the other. All scenarios, with all seeds and under both rules, take
//! 60 ms in a debug build, so a pool of threads would gain nothing.

use crate::pace::cons_mark::MarkTimes;
use crate::pace::heap_goal::{BACKGROUND_SHARE, Knobs, MemoryFigures};
use crate::pace::pacer::{CycleEnd, Pacer, Rule};

pub(crate) const PROCESSORS: u32 = 8;
/// What is live in the first cycle.
const FIRST_LIVE: u64 = 256 << 10;
const STEP_NS: f64 = 500_000.0;
/// Converts KiB per processor-millisecond to bytes per step of all processors.
const PER_STEP: f64 = 1024.0 * 0.5 * PROCESSORS as f64;
/// The smallest rate; no rate is 0.
const MIN_RATE: f64 = 1e-4;

/// What a program does in one cycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Bytes allocated, in KiB per processor-millisecond of the program.
    pub(crate) alloc: f64,
    /// Bytes scanned, in KiB per processor-millisecond of marking.
    pub(crate) scan: f64,
    /// What is live, as a multiple of what was live a cycle before.
    pub(crate) growth: f64,
    /// The part of the heap that is scanned, from 0 to 1.
    pub(crate) scannable: f64,
    /// Bytes of stacks.
    pub(crate) stack: f64,
}

/// A program, cycle by cycle.
pub(crate) struct Program {
    pub(crate) gogc: Option<u32>,
    pub(crate) limit: u64,
    /// Bytes of globals.
    pub(crate) globals: u64,
    pub(crate) cycles: usize,
    /// The rates of a cycle, counted from 0.
    pub(crate) rates: fn(usize, &mut Random) -> Rates,
}

/// The result of one cycle, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) live: u64,
    pub(crate) trigger: u64,
    pub(crate) peak: u64,
    pub(crate) goal: u64,
    /// The size that the heap should pass only if the live heap has grown.
    pub(crate) ceiling: u64,
    /// The share of all processors that collected while marking ran.
    pub(crate) utilisation: f64,
    pub(crate) duration_ns: u64,
    /// What the program allocates between two revisions if it need not assist.
    pub(crate) step: u64,
}

impl Outcome {
    pub(crate) fn goal_ratio(&self) -> f64 {
        self.peak as f64 / self.goal as f64
    }

    /// Returns how far on the way from live to goal the cycle began.
    pub(crate) fn trigger_ratio(&self) -> f64 {
        (self.trigger - self.live) as f64 / (self.goal - self.live) as f64
    }

    pub(crate) fn runway(&self) -> u64 {
        self.goal - self.trigger
    }
}

/// Splitmix64: it is small, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number between `-most` and `most`.
    pub(crate) fn within(&mut self, most: f64) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (unit * 2.0 - 1.0) * most
    }
}

/// What is left to scan, in the order of scanning.
struct WorkLeft {
    globals: u64,
    stack: u64,
    heap: u64,
}

impl WorkLeft {
    fn total(&self) -> u64 {
        self.globals + self.stack + self.heap
    }

    /// Scans up to `bytes`, and returns what was scanned.
    fn scan(&mut self, bytes: u64) -> u64 {
        let mut left = bytes;
        for part in [&mut self.globals, &mut self.stack, &mut self.heap] {
            let done = left.min(*part);
            *part -= done;
            left -= done;
        }
        bytes - left
    }
}

/// The running cycle.
struct Cycle {
    rates: Rates,
    left: WorkLeft,
    heap_live: u64,
    heap_scan: u64,
    scanned: u64,
    /// What was born while marking ran.
    black: u64,
    assist_ns: u64,
    duration_ns: u64,
}

impl Cycle {
    /// Runs one step, or less if the work ends in it, with assists of `ratio` bytes scanned per
    /// byte allocated.
    fn step(&mut self, ratio: f64) {
        let Rates { alloc, scan, .. } = self.rates;
        let held = ratio * alloc / (ratio * alloc + scan);
        let utilisation = held.max(BACKGROUND_SHARE);
        let can_scan = (scan * PER_STEP * utilisation) as u64;
        let mut allocated = (alloc * PER_STEP * (1.0 - utilisation)) as u64;
        let mut elapsed = STEP_NS as u64;
        let scanned = self.left.scan(can_scan);
        if scanned < can_scan {
            elapsed = (scanned as f64 * STEP_NS / (scan * PER_STEP * utilisation)) as u64;
            let part = elapsed as f64 / STEP_NS;
            allocated = (alloc * PER_STEP * part * (1.0 - utilisation)) as u64;
        }
        let assists = utilisation - BACKGROUND_SHARE;
        self.scanned += scanned;
        self.heap_live += allocated;
        self.heap_scan += (allocated as f64 * self.rates.scannable) as u64;
        self.black += allocated;
        self.assist_ns += (elapsed as f64 * f64::from(PROCESSORS) * assists) as u64;
        self.duration_ns += elapsed;
    }

    fn utilisation(&self) -> f64 {
        let all = self.duration_ns as f64 * f64::from(PROCESSORS);
        self.assist_ns as f64 / all + BACKGROUND_SHARE
    }
}

/// Runs `program`, and passes the outcomes so far to `check` after each cycle.
pub(crate) fn run(
    program: &Program,
    rule: Rule,
    seed: u64,
    mut check: impl FnMut(&[Outcome]),
) -> Vec<Outcome> {
    let knobs = Knobs {
        gogc: program.gogc,
        limit: program.limit,
        ..Knobs::new(PROCESSORS)
    };
    let mut pacer = Pacer::with_rule(knobs, rule);
    let mut random = Random::new(seed);
    let mut outcomes = Vec::with_capacity(program.cycles);
    // What the last cycle scanned, and what was born in it.
    let (mut heap_scanned, mut black) = (0, 0);
    for i in 0..program.cycles {
        let rates = in_range((program.rates)(i, &mut random));
        let live = pacer.marked();
        let next_live = if i == 0 {
            FIRST_LIVE
        } else {
            ((live - black) as f64 * rates.growth) as u64
        };
        let start = pacer.plan().trigger.max(live);
        let roots = program.globals + rates.stack as u64;
        let heap_work = (next_live as f64 * rates.scannable) as u64;
        let mut cycle = Cycle {
            rates,
            left: WorkLeft {
                globals: program.globals,
                stack: rates.stack as u64,
                heap: heap_work,
            },
            heap_live: start,
            heap_scan: heap_scanned + ((start - live) as f64 * rates.scannable) as u64,
            scanned: 0,
            black: 0,
            assist_ns: 0,
            duration_ns: 0,
        };
        mark(&mut pacer, &mut cycle, roots);
        let plan = pacer.plan();
        outcomes.push(Outcome {
            live,
            trigger: start,
            peak: cycle.heap_live,
            goal: plan.goal,
            ceiling: plan.ceiling,
            utilisation: cycle.utilisation(),
            duration_ns: cycle.duration_ns,
            step: (rates.alloc * PER_STEP * (1.0 - BACKGROUND_SHARE)) as u64,
        });
        check(&outcomes);
        heap_scanned = heap_work;
        black = cycle.black;
        end(&mut pacer, &cycle, heap_work, roots, next_live + black);
    }
    outcomes
}

fn in_range(rates: Rates) -> Rates {
    Rates {
        alloc: rates.alloc.max(MIN_RATE),
        scan: rates.scan.max(MIN_RATE),
        growth: rates.growth.max(MIN_RATE),
        scannable: rates.scannable.clamp(0.0, 1.0),
        stack: ((rates.stack / 2048.0).floor() * 2048.0).max(0.0),
    }
}

/// Marks until nothing is left.
fn mark(pacer: &mut Pacer, cycle: &mut Cycle, roots: u64) {
    let memory = MemoryFigures::default();
    let mut rates = pacer.start_cycle(cycle.heap_live, cycle.heap_scan, roots, memory);
    while cycle.left.total() > 0 {
        cycle.step(rates.work_per_byte);
        rates = pacer.revise(cycle.heap_live, cycle.scanned, cycle.heap_scan);
    }
}

fn end(pacer: &mut Pacer, cycle: &Cycle, heap_scanned: u64, roots: u64, marked: u64) {
    pacer.end_cycle(CycleEnd {
        heap_live: cycle.heap_live,
        heap_scanned,
        roots_scanned: roots,
        times: MarkTimes {
            duration_ns: cycle.duration_ns,
            background_ns: cycle.duration_ns * u64::from(PROCESSORS) / 4,
            assist_ns: cycle.assist_ns,
            idle_ns: 0,
        },
    });
    pacer.reset_live(marked);
    pacer.commit(marked, false, MemoryFigures::default());
}
