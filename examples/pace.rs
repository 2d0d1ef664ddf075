//! How well the collector paces itself. Four programs run for a number of cycles, and each cycle is
//! compared with its goal. Four other programs outrun a collector on purpose, and are compared with
//! bounds (`pace/bounds.rs`). For each of these, a line gives the peak, the goal or limit, their
//! ratio, and `ok` or `over`.
//!
//! ```text
//! cargo run --release --example pace
//! cargo run --release --example pace -- step --cycles 300
//! cargo run --release --example pace -- external garbage neighbour limits
//! ```
//!
//! Two promises can be measured from outside. The heap should end each cycle near its goal: the
//! ratio of peak and goal should be at most 1.10. And marking should take a quarter of the
//! processors while it runs: this is the utilization. If a cycle broke the first promise, its trace
//! line is printed (`HeapBuilder::trace_to` explains it). The first cycles of a program are left
//! out, because the heap still grows then, and the pacer knows nothing about the program yet.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use greywave::{Event, Frame, Gc, GcCell, GcLock, Heap, Mutator, Root, Trace};

mod common;
use common::args::{self, Args};
use common::report::{Bytes, Nanos, memory, peak_rss, say};
use common::rng::Rng;

#[path = "pace/bounds.rs"]
pub(crate) mod bounds;

use bounds::{Amount, Program};

const USAGE: &str = "usage: pace [--cycles N] [--skip N] [--list N] [NAME..]
  NAME        tour: two threads edit a document; trees: two threads build binary trees;
              ring: one thread at full speed replaces messages of 1 KiB;
              step: one thread's rate of allocation changes;
              external, garbage, neighbour, limits: programs with bounds, which run for 512 MiB
              each (default: each in turn). The status is 1 if one of them is over
  --cycles N  to look at, 1 to 1000000 (default 100)
  --skip N    cycles first, 0 to 1000000 (default 20)
  --list 1    prints each cycle, not only those over the bound (default 0)";

/// The peak should be at most this part of the goal.
const BOUND: f64 = 1.10;

/// One cycle, as the collector told it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cycle {
    pub(crate) live: u64,
    pub(crate) start: u64,
    pub(crate) trigger: u64,
    pub(crate) peak: u64,
    pub(crate) goal: u64,
    pub(crate) mark_ns: u64,
    pub(crate) utilization: f64,
    /// Its trace line.
    pub(crate) line: String,
}

impl Cycle {
    pub(crate) fn ratio(&self) -> f64 {
        self.peak as f64 / self.goal as f64
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  peak/goal {:.3}  utilization {:4.1} %  start {} at trigger {}, peak {} of goal {}, live {}, marking {}\n    {}",
            self.ratio(),
            100.0 * self.utilization,
            Bytes(self.start),
            Bytes(self.trigger),
            Bytes(self.peak),
            Bytes(self.goal),
            Bytes(self.live),
            Nanos(self.mark_ns),
            self.line,
        )
    }
}

/// Collects what the heap tells of its cycles, and says when there have been enough.
#[derive(Debug, Default)]
pub(crate) struct Log {
    cycles: Mutex<Vec<Cycle>>,
    line: Mutex<String>,
    count: AtomicU64,
    enough: AtomicBool,
}

impl Log {
    /// A heap that writes here, for `wanted` cycles.
    pub(crate) fn heap(wanted: u64) -> Result<(Heap, Arc<Self>), greywave::ConfigError> {
        let log = Arc::new(Self::default());
        let (events, lines) = (log.clone(), log.clone());
        let heap = Heap::builder()
            // A cycle's line comes before its event, from the same thread.
            .trace_to(move |line| line.clone_into(&mut locked(&lines.line)))
            .on_event(move |event| events.take(event, wanted))
            .build()?;
        Ok((heap, log))
    }

    fn take(&self, event: &Event, wanted: u64) {
        let &Event::CycleEnd {
            live_bytes,
            goal_bytes,
            mark_ns,
            trigger_bytes,
            start_bytes,
            peak_bytes,
            utilization,
            ..
        } = event
        else {
            return;
        };
        locked(&self.cycles).push(Cycle {
            live: live_bytes,
            start: start_bytes,
            trigger: trigger_bytes,
            peak: peak_bytes,
            goal: goal_bytes,
            mark_ns,
            utilization,
            line: std::mem::take(&mut locked(&self.line)),
        });
        // Relaxed (both): a count, and a flag that is all that is shared.
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 >= wanted {
            self.enough.store(true, Ordering::Relaxed);
        }
    }

    fn is_enough(&self) -> bool {
        // Relaxed: see above.
        self.enough.load(Ordering::Relaxed)
    }

    fn cycles(&self) -> u64 {
        // Relaxed: see above.
        self.count.load(Ordering::Relaxed)
    }
}

/// A sink that panicked is reported by the heap; what it wrote is whole.
fn locked<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;
type Workload = fn(&Heap, &Log) -> Outcome;

const WORKLOADS: [(&str, Workload); 4] = [
    ("tour", tour),
    ("trees", trees),
    ("ring", ring),
    ("step", step),
];

fn main() -> ExitCode {
    args::main(USAGE, |args| {
        let options = parse(args)?;
        for (name, workload) in &options.workloads {
            let started = Instant::now();
            let cycles = run(*workload, (options.skip + options.cycles) as u64)?;
            say(format_args!(
                "{name}: {} in all, peak memory so far {}",
                Nanos::from(started.elapsed()),
                memory(peak_rss()),
            ));
            summary(cycles.get(options.skip..).unwrap_or_default(), options.list);
        }
        let mut over = Vec::new();
        for (name, program) in &options.programs {
            for verdict in program(AMOUNT).map_err(|error| error.to_string())? {
                say(&verdict);
                if !verdict.is_ok() {
                    over.push(*name);
                }
            }
        }
        if over.is_empty() {
            Ok(())
        } else {
            Err(format!("over their bounds: {}", over.join(", ")).into())
        }
    })
}

/// What the programs with bounds do.
const AMOUNT: Amount = Amount {
    bytes: 512 << 20,
    polls: 20,
};

/// How to run.
struct Options {
    workloads: Vec<(&'static str, Workload)>,
    programs: Vec<(&'static str, Program)>,
    cycles: usize,
    skip: usize,
    list: bool,
}

fn parse(mut args: Args) -> Result<Options, Box<dyn Error>> {
    let cycles = args.number("--cycles", 100, 1..=1_000_000)?;
    let skip = args.number("--skip", 20, 0..=1_000_000)?;
    let list = args.number("--list", 0, 0..=1)? == 1;
    let names = args.words(0..=WORKLOADS.len() + bounds::PROGRAMS.len())?;
    let mut workloads = Vec::new();
    let mut programs = Vec::new();
    for name in &names {
        let workload = WORKLOADS.iter().find(|(known, _)| known == name);
        let program = bounds::PROGRAMS.iter().find(|(known, _)| known == name);
        if workload.is_none() && program.is_none() {
            return Err(format!("{names:?}: a name is unknown").into());
        }
        workloads.extend(workload);
        programs.extend(program);
    }
    if names.is_empty() {
        workloads.extend(WORKLOADS);
        programs.extend(bounds::PROGRAMS);
    }
    Ok(Options {
        workloads,
        programs,
        cycles,
        skip,
        list,
    })
}

/// Runs a workload for so many cycles, and gives them.
pub(crate) fn run(workload: Workload, cycles: u64) -> Result<Vec<Cycle>, Box<dyn Error>> {
    let (heap, log) = Log::heap(cycles)?;
    workload(&heap, &log).map_err(|error| error.to_string())?;
    drop(heap);
    let mut seen = std::mem::take(&mut *locked(&log.cycles));
    seen.truncate(cycles as usize);
    Ok(seen)
}

fn summary(cycles: &[Cycle], list: bool) {
    let over = |cycle: &&Cycle| cycle.ratio() > BOUND;
    for cycle in cycles.iter().filter(|cycle| list || over(cycle)) {
        say(cycle);
    }
    let count = cycles.len();
    say(format_args!(
        "  {} of {count} cycles are over {BOUND:.2} of their goal",
        cycles.iter().filter(over).count(),
    ));
    spread("peak/goal", 1.0, cycles.iter().map(Cycle::ratio));
    spread(
        "utilization, %",
        100.0,
        cycles.iter().map(|it| it.utilization),
    );
}

/// The mean, the ends, and some of what is between.
fn spread(name: &str, unit: f64, values: impl Iterator<Item = f64>) {
    let mut values: Vec<f64> = values.map(|value| value * unit).collect();
    values.sort_by(f64::total_cmp);
    let count = values.len();
    if count == 0 {
        return;
    }
    // Nearest rank.
    let at = |percent: usize| values[(count * percent).div_ceil(100).max(1) - 1];
    let mean = values.iter().sum::<f64>() / count as f64;
    say(format_args!(
        "  {name:<15} mean {mean:.3}, least {:.3}, p10 {:.3}, p50 {:.3}, p90 {:.3}, p99 {:.3}, most {:.3}",
        at(0),
        at(10),
        at(50),
        at(90),
        at(99),
        at(100),
    ));
}

/// A text that replaces others.
#[derive(Trace)]
struct Text<'gc> {
    words: Gc<'gc, str>,
    before: GcCell<'gc, Text<'gc>>,
}

#[derive(Trace)]
struct Section<'gc>(GcLock<Vec<Gc<'gc, Text<'gc>>>>);

const TEXT: &str = "so long as nobody reads it, a text is a number of bytes and a pointer to them";
const SECTIONS: usize = 1000;
const TEXTS: usize = 100;

/// A text of any length, with the one before for undo; the one before that is garbage.
fn text<'m>(m: &'m Mutator, rng: &mut Rng, before: Option<Gc<'m, Text<'m>>>) -> Gc<'m, Text<'m>> {
    if let Some(before) = before {
        before.before.set(m, None);
    }
    m.alloc(Text {
        words: m.alloc_str(&TEXT[..rng.below(TEXT.len())]),
        before: GcCell::new(before),
    })
}

/// Two threads replace texts of a document behind locks.
fn tour(heap: &Heap, log: &Log) -> Outcome {
    let mut m = heap.attach()?;
    let mut rng = Rng::new(1, 0);
    let document: Root<[Gc<'static, Section<'static>>]> = {
        let section = |_| m.alloc(Section(GcLock::new(Vec::new())));
        m.root(m.alloc_slice(SECTIONS, section))
    };
    for number in 0..SECTIONS {
        {
            let section = document.get(&m)[number];
            let mut texts = section.0.write(&m);
            texts.extend((0..TEXTS).map(|_| text(&m, &mut rng, None)));
        }
        m.safepoint();
    }
    let edit = |stream| -> Outcome {
        let mut m = heap.attach()?;
        let mut rng = Rng::new(1, stream);
        while !log.is_enough() {
            {
                let section = document.get(&m)[rng.below(SECTIONS)];
                let at = rng.below(TEXTS);
                let before = section.0.read()[at];
                let new = text(&m, &mut rng, Some(before));
                section.0.write(&m)[at] = new;
            }
            m.safepoint();
        }
        Ok(())
    };
    m.blocking(|| on_two_threads(edit))
}

/// Runs `work(1)` and `work(2)`.
fn on_two_threads(work: impl Fn(u64) -> Outcome + Sync) -> Outcome {
    thread::scope(|scope| {
        let started = [1, 2].map(|number| {
            let work = &work;
            scope.spawn(move || work(number))
        });
        let ended = started.map(|thread| thread.join().map_err(|_| "a thread panicked")?);
        ended.into_iter().collect()
    })
}

#[derive(Trace)]
struct Tree<'gc>(Option<(Gc<'gc, Tree<'gc>>, Gc<'gc, Tree<'gc>>)>);

type Parts = Frame<Vec<Gc<'static, Tree<'static>>>>;

/// Trees up to this depth are built without a safepoint.
const PART_DEPTH: u32 = 10;

fn small_tree(m: &Mutator, depth: u32) -> Gc<'_, Tree<'_>> {
    let children = (depth > 0).then(|| (small_tree(m, depth - 1), small_tree(m, depth - 1)));
    m.alloc(Tree(children))
}

/// Leaves a tree on top of the parts.
fn push_tree(m: &mut Mutator, parts: &mut Parts, depth: u32) {
    if depth <= PART_DEPTH {
        parts.enter(m).push(small_tree(m, depth));
        m.safepoint();
        return;
    }
    push_tree(m, parts, depth - 1);
    push_tree(m, parts, depth - 1);
    let mut open = parts.enter(m);
    let right = open.pop();
    let children = open.pop().zip(right);
    open.push(m.alloc(Tree(children)));
}

/// Two threads build trees of depth 4 to 16 beside one of depth 20, which stays.
fn trees(heap: &Heap, log: &Log) -> Outcome {
    let mut m = heap.attach()?;
    let mut stays = Parts::new(&m, Vec::new());
    push_tree(&mut m, &mut stays, 20);
    let build = |_| -> Outcome {
        let mut m = heap.attach()?;
        let mut parts = Parts::new(&m, Vec::new());
        while !log.is_enough() {
            for depth in (4..=16).step_by(2) {
                // As much work for each depth.
                for _ in 0..1_u32 << (16 - depth) {
                    push_tree(&mut m, &mut parts, depth);
                    parts.enter(&m).clear();
                }
            }
        }
        Ok(())
    };
    m.blocking(|| on_two_threads(build))
}

#[derive(Trace)]
struct Message {
    words: [u64; 128],
}

#[derive(Trace)]
struct Slot<'gc>(GcCell<'gc, Message>);

const MESSAGES: usize = 50_000;

/// One thread puts messages into a ring.
fn ring(heap: &Heap, log: &Log) -> Outcome {
    let mut m = heap.attach()?;
    let ring = m.root(m.alloc_slice(MESSAGES, |_| Slot(GcCell::null())));
    for number in (0..MESSAGES as u64).cycle() {
        let message = m.alloc(Message {
            words: [number; 128],
        });
        ring.get(&m)[number as usize].0.set(&m, message);
        m.safepoint();
        if log.is_enough() {
            break;
        }
    }
    Ok(())
}

/// Short lists, of which a table holds the last ones.
#[derive(Trace)]
struct Link<'gc> {
    next: Option<Gc<'gc, Link<'gc>>>,
    data: [u64; 5],
}

#[derive(Trace)]
struct Place<'gc>(GcCell<'gc, Link<'gc>>);

const PLACES: usize = 100_000;
const LINKS: u64 = 8;
/// Cycles at one rate.
const STEP: u64 = 10;
/// How many times as long a round takes at the slow rate, about.
const SLOWER: u64 = 8;

/// One thread replaces lists, ten cycles at full speed and ten with work between.
fn step(heap: &Heap, log: &Log) -> Outcome {
    let mut m = heap.attach()?;
    let table = m.root(m.alloc_slice(PLACES, |_| Place(GcCell::null())));
    let mut rng = Rng::new(1, 0);
    while !log.is_enough() {
        {
            let link = |next, data| Some(m.alloc(Link { next, data }));
            let list = (0..LINKS).fold(None, |next, number| link(next, [number; 5]));
            table.get(&m)[rng.below(PLACES)].0.set(&m, list);
        }
        m.safepoint();
        if log.cycles() / STEP % 2 == 1 {
            for _ in 0..LINKS * SLOWER * 8 {
                std::hint::black_box(rng.next());
            }
        }
    }
    Ok(())
}
