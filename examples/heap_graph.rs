//! Collects a recorded heap again and again, at rest and while a thread changes it.
//!
//! ```text
//! cargo run --release --example heap_graph -- tests/data/sample.hg.zst
//! ```
//!
//! Each recorded object becomes an array of cells: first one for each of its edges, then empty ones
//! up to its recorded size. With the word for its length it has `max(size, 8 + 8 * edges)` bytes,
//! rounded up to a word.
//!
//! The thread that changes the heap takes two random walks from the root and swaps the targets of
//! their last edges. So a part of the heap moves to another object, and for a moment nothing holds
//! it. If the edge was the only way to that part, the part is lost unless the collector's write
//! barrier works. Everything stays reachable, so the last collection has as much to do as the
//! first. The program makes the same changes to the graph in plain memory; at the end the heap must
//! equal that graph.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use greywave::{Frame, Gc, GcArray, GcCell, Heap, HeapStats, Mutator, Root, Trace};

mod common;
use common::args;
use common::decode;
use common::hg::Graph;
use common::report::{self, Bytes, Nanos, say};
use common::rng::Rng;

const USAGE: &str = "usage: heap_graph FILE [--cycles N] [--seed N]
  FILE        a heap graph, .hg or .hg.zst
  --cycles N  collections at rest, and as many while a thread changes the heap (default 20)
  --seed N    of the changes (default 1)";

/// Objects made or wired between two safepoints.
const BATCH: usize = 4096;
/// Steps of a walk, at most.
const WALK: usize = 48;

/// A recorded object.
type Object<'gc> = GcArray<(), Edge<'gc>>;

#[derive(Trace)]
struct Edge<'gc>(GcCell<'gc, Object<'gc>>);

/// How to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) cycles: usize,
    pub(crate) seed: u64,
}

/// What a run found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) objects: usize,
    pub(crate) edges: usize,
    pub(crate) payload_bytes: u64,
    pub(crate) span_bytes: u64,
    pub(crate) build: Duration,
    /// The median collection with the heap at rest.
    pub(crate) at_rest: Duration,
    /// The median collection while the heap was changed.
    pub(crate) in_motion: Duration,
    pub(crate) changes: u64,
    pub(crate) stats: HeapStats,
}

fn main() -> ExitCode {
    args::main(USAGE, |mut args| {
        let cycles = args.number("--cycles", 20, 1..=1_000_000)?;
        let seed = args.number("--seed", 1, 0..=u64::MAX)?;
        let path = args
            .words(1..=1)?
            .into_iter()
            .map(PathBuf::from)
            .next()
            .unwrap_or_default();
        let report = run(
            &Heap::builder().build()?,
            load(&path)?,
            Options { cycles, seed },
        )?;
        print(&report);
        Ok(())
    })
}

/// Reads a graph; the error names the file.
pub(crate) fn load(path: &Path) -> Result<Graph, String> {
    let bytes = |error| format!("{}: {error}", path.display());
    let input = decode::open(path).map_err(bytes)?;
    Graph::read(input).map_err(|error| {
        let cause = Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        format!("{}: {error}{cause}", path.display())
    })
}

/// Builds the graph in `heap`, collects it at rest and in motion, and compares the two.
pub(crate) fn run(heap: &Heap, graph: Graph, options: Options) -> Result<Report, Box<dyn Error>> {
    let (objects, edges) = (graph.objects(), graph.edges());
    let payload_bytes = graph.payload_bytes();
    let mut m = heap.attach()?;

    let start = Instant::now();
    let root = build(&mut m, &graph);
    let build = start.elapsed();

    // The first collection frees nothing but what building left; it is not measured.
    m.collect();
    let at_rest = median(&mut collections(&mut m, options.cycles));
    let span_bytes = heap.stats().span_bytes;

    let stop = AtomicBool::new(false);
    let (in_motion, changed) = thread::scope(|scope| {
        let changer = scope.spawn(|| Changer::run(heap, &root, graph, options.seed, &stop));
        let times = median(&mut collections(&mut m, options.cycles));
        // Relaxed: the flag is all that is shared.
        stop.store(true, Ordering::Relaxed);
        (times, m.blocking(|| changer.join()))
    });
    let changer = changed.map_err(|_| "the thread that changes the heap panicked")??;

    m.collect();
    let reached = compare(&m, &root, &changer.graph)?;
    if reached != objects {
        return Err(format!("{reached} of {objects} objects are left").into());
    }
    heap.verify()?;

    let (changes, stats) = (changer.changes, heap.stats());
    Ok(Report {
        objects,
        edges,
        payload_bytes,
        span_bytes,
        build,
        at_rest,
        in_motion,
        changes,
        stats,
    })
}

/// The cells of an object: one for each edge, and the rest of its size.
fn cells(graph: &Graph, object: usize) -> usize {
    graph
        .degree(object)
        .max(graph.size(object).div_ceil(8).saturating_sub(1))
}

/// Makes the objects, then leads their edges.
fn build(m: &mut Mutator, graph: &Graph) -> Root<Object<'static>> {
    // Edges lead forward and back, so every object is held here until all are there.
    let table: Vec<Gc<'static, Object<'static>>> = Vec::with_capacity(graph.objects());
    let mut table = Frame::new(m, table);
    for_batches(m, graph.objects(), |m, batch| {
        let mut table = table.enter(m);
        for object in batch {
            let empty = |_| Edge(GcCell::null());
            table.push(m.alloc_array((), cells(graph, object), empty));
        }
    });
    for_batches(m, graph.objects(), |m, batch| {
        let table = table.enter(m);
        for object in batch {
            for (edge, &target) in table[object].items().iter().zip(graph.edges_of(object)) {
                edge.0.set(m, table[target as usize]);
            }
        }
    });
    m.root(table.enter(m)[0])
}

/// Calls `step` for a part of `0..count` at a time, with a safepoint after each.
fn for_batches(
    m: &mut Mutator,
    count: usize,
    mut step: impl FnMut(&Mutator, std::ops::Range<usize>),
) {
    for first in (0..count).step_by(BATCH) {
        step(m, first..count.min(first + BATCH));
        m.safepoint();
    }
}

/// The time of each of so many collections.
fn collections(m: &mut Mutator, cycles: usize) -> Vec<Duration> {
    let collection = |_| {
        let start = Instant::now();
        m.collect();
        start.elapsed()
    };
    (0..cycles).map(collection).collect()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Changes the heap and its model alike.
struct Changer {
    graph: Graph,
    rng: Rng,
    changes: u64,
}

/// An object, and its number in the model.
#[derive(Clone, Copy)]
struct Numbered<'gc> {
    number: u32,
    object: Gc<'gc, Object<'gc>>,
}

/// One step of a walk: along this edge of this object.
#[derive(Clone, Copy)]
struct Step<'gc> {
    source: Numbered<'gc>,
    edge: usize,
}

impl PartialEq for Step<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.source.number, self.edge) == (other.source.number, other.edge)
    }
}

impl Changer {
    /// Changes the heap until `stop`.
    fn run(
        heap: &Heap,
        root: &Root<Object<'static>>,
        graph: Graph,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Self, String> {
        let mut m = heap.attach().map_err(|error| error.to_string())?;
        let mut this = Self {
            graph,
            rng: Rng::new(seed, 0),
            changes: 0,
        };
        // Relaxed: the flag is all that is shared.
        while !stop.load(Ordering::Relaxed) {
            this.swap(&m, root)?;
            m.safepoint();
        }
        Ok(this)
    }

    /// Takes two walks and swaps where their last edges lead.
    ///
    /// The walks may not have used these edges to come to their sources. Then both sources
    /// can still be reached as they were, so both targets can be reached along the edge
    /// that leads there now; and so can all that was reached through them.
    fn swap(&mut self, m: &Mutator, root: &Root<Object<'static>>) -> Result<(), String> {
        let (way, other_way) = (self.walk(m, root)?, self.walk(m, root)?);
        let (Some((last, way)), Some((other_last, other_way))) =
            (way.split_last(), other_way.split_last())
        else {
            return Ok(()); // the root has no edges
        };
        let used = |step| way.contains(step) || other_way.contains(step);
        if last == other_last || used(last) || used(other_last) {
            return Ok(());
        }
        let (target, other_target) = (self.follow(*last)?, self.follow(*other_last)?);
        self.lead(m, *last, other_target);
        self.lead(m, *other_last, target);
        self.changes += 1;
        Ok(())
    }

    fn lead<'m>(&mut self, m: &'m Mutator, step: Step<'m>, target: Numbered<'m>) {
        step.source.object.items()[step.edge]
            .0
            .set(m, target.object);
        *self.graph.edge_mut(step.source.number as usize, step.edge) = target.number;
    }

    /// Walks from the root along random edges, to an object without any or for some steps.
    fn walk<'m>(
        &mut self,
        m: &'m Mutator,
        root: &Root<Object<'static>>,
    ) -> Result<Vec<Step<'m>>, String> {
        let mut way = Vec::with_capacity(WALK);
        let mut source = Numbered {
            number: 0,
            object: root.get(m),
        };
        for _ in 0..=self.rng.below(WALK) {
            let degree = self.graph.degree(source.number as usize);
            if degree == 0 {
                break;
            }
            let step = Step {
                source,
                edge: self.rng.below(degree),
            };
            way.push(step);
            source = self.follow(step)?;
        }
        Ok(way)
    }

    /// The object at the other end, which must have the shape that the model gives it.
    fn follow<'m>(&self, Step { source, edge }: Step<'m>) -> Result<Numbered<'m>, String> {
        let number = self.graph.edges_of(source.number as usize)[edge];
        let name = || format!("edge {edge} of object {}", source.number);
        let cell = source
            .object
            .items()
            .get(edge)
            .ok_or_else(|| format!("{} is gone", name()))?;
        let object = cell.0.get().ok_or_else(|| format!("{} is empty", name()))?;
        let (found, expected) = (object.items().len(), cells(&self.graph, number as usize));
        if found != expected {
            let name = name();
            return Err(format!(
                "{name} leads to an object of {found} cells, but object {number} has {expected}"
            ));
        }
        Ok(Numbered { number, object })
    }
}

/// Walks the heap and the graph together. They must have the same shape: an object for each
/// object that the graph can reach, and no object for two. Gives the number of objects.
fn compare(m: &Mutator, root: &Root<Object<'static>>, graph: &Graph) -> Result<usize, String> {
    let mut objects: Vec<Option<Gc<'_, Object<'_>>>> = vec![None; graph.objects()];
    objects[0] = Some(root.get(m));
    let mut open = vec![0];
    let mut addresses = Vec::with_capacity(graph.objects());
    while let Some(number) = open.pop() {
        let Some(object) = objects[number] else {
            continue;
        };
        addresses.push(object.as_ptr().addr());
        let items = object.items();
        if items.len() != cells(graph, number) {
            return Err(format!("object {number} has {} cells", items.len()));
        }
        let (edges, filler) = items.split_at(graph.degree(number));
        for (at, (edge, &target)) in edges.iter().zip(graph.edges_of(number)).enumerate() {
            let name = || format!("edge {at} of object {number}");
            let found = edge.0.get().ok_or_else(|| format!("{} is empty", name()))?;
            match &mut objects[target as usize] {
                Some(known) if Gc::ptr_eq(*known, found) => {}
                Some(_) => return Err(format!("{} misses object {target}", name())),
                unknown => {
                    *unknown = Some(found);
                    open.push(target as usize);
                }
            }
        }
        if filler.iter().any(|cell| cell.0.get().is_some()) {
            return Err(format!("object {number} has an edge too many"));
        }
    }
    let reached = addresses.len();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.len() != reached {
        return Err(format!(
            "{reached} objects share {} addresses",
            addresses.len()
        ));
    }
    Ok(reached)
}

fn print(report: &Report) {
    let Report {
        objects,
        edges,
        payload_bytes,
        span_bytes,
        ..
    } = *report;
    let per_object = |time: Duration| time.as_nanos() as f64 / objects as f64;
    say(format_args!(
        "{objects} objects, {edges} edges, built in {}",
        Nanos::from(report.build)
    ));
    say(format_args!(
        "  memory             {} of spans for {} of payload: {:.3}",
        Bytes(span_bytes),
        Bytes(payload_bytes),
        span_bytes as f64 / payload_bytes as f64
    ));
    for (name, time) in [
        ("at rest  ", report.at_rest),
        ("in motion", report.in_motion),
    ] {
        say(format_args!(
            "  collect {name}  {} (median), {:.1} ns an object",
            Nanos::from(time),
            per_object(time)
        ));
    }
    say(format_args!(
        "  edges swapped      {} pairs",
        report.changes
    ));
    say(report::collector(&report.stats));
    say("the heap and the graph agree");
}
