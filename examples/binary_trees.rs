//! The binary-trees program of the Benchmarks Game. It builds full binary trees of many depths,
//! counts their nodes, and drops them. The program does nothing but allocate.
//!
//! ```text
//! cargo run --release --example binary_trees -- 21
//! ```
//!
//! A node is two plain pointers. Its children never change, so they need no cell. A small tree is
//! built from the leaves up, with its nodes in ordinary variables. A large tree is made of such
//! parts. The finished parts wait in a frame, so that there can be a safepoint after each: the
//! borrow checker has proved that no pointer is left in a variable there.

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use greywave::{Frame, Gc, Heap, Mutator, Root, Trace};

mod common;
use common::args::{self, Args, in_range};
use common::report::{self, say};

const USAGE: &str = "usage: binary_trees [DEPTH] [--threads N]
  DEPTH        of the long-lived tree, 0 to 32 (default 18)
  --threads N  worker threads, 1 to 256 (default 2)";

const MIN_DEPTH: u32 = 4;
/// Trees up to this depth (2,047 nodes, some 10 microseconds) are built without a safepoint.
const PART_DEPTH: u32 = 10;

#[derive(Trace)]
struct Tree<'gc> {
    children: Option<(Gc<'gc, Tree<'gc>>, Gc<'gc, Tree<'gc>>)>,
}

const _: () = assert!(
    size_of::<Tree<'static>>() == 16,
    "a node is two pointers: a pair without a null needs no word to say whether it is there"
);

/// A full tree: `2^(depth + 1) - 1` nodes.
fn bottom_up(m: &Mutator, depth: u32) -> Gc<'_, Tree<'_>> {
    let children = (depth > 0).then(|| (bottom_up(m, depth - 1), bottom_up(m, depth - 1)));
    m.alloc(Tree { children })
}

/// Counts the nodes.
fn check(tree: Gc<'_, Tree<'_>>) -> u64 {
    1 + tree
        .children
        .map_or(0, |(left, right)| check(left) + check(right))
}

/// Trees that wait to be joined or counted.
struct Parts(Frame<Vec<Gc<'static, Tree<'static>>>>);

impl Parts {
    fn new(m: &Mutator) -> Self {
        Self(Frame::new(m, Vec::new()))
    }

    /// Builds a full tree and leaves it on top.
    fn build(&mut self, m: &mut Mutator, depth: u32) {
        if depth <= PART_DEPTH {
            self.0.enter(m).push(bottom_up(m, depth));
            m.safepoint();
            return;
        }
        self.build(m, depth - 1);
        self.build(m, depth - 1);
        let mut parts = self.0.enter(m);
        let right = parts.pop();
        let children = parts.pop().zip(right);
        parts.push(m.alloc(Tree { children }));
    }

    /// Takes the tree on top, which is of that depth, and counts its nodes.
    fn count(&mut self, m: &mut Mutator, depth: u32) -> u64 {
        let Some(tree) = self.0.enter(m).pop() else {
            return 0;
        };
        if depth <= PART_DEPTH {
            let count = check(tree);
            m.safepoint();
            return count;
        }
        if let Some((left, right)) = tree.children {
            self.0.enter(m).extend([left, right]);
        }
        1 + self.count(m, depth - 1) + self.count(m, depth - 1)
    }

    /// Builds a full tree and counts its nodes.
    fn build_and_count(&mut self, m: &mut Mutator, depth: u32) -> u64 {
        self.build(m, depth);
        self.count(m, depth)
    }
}

/// The nodes of a full tree.
const fn nodes(depth: u32) -> u64 {
    (2 << depth) - 1
}

fn main() -> ExitCode {
    args::main(USAGE, |args| {
        let (depth, threads) = parse(args)?;
        let start = Instant::now();
        let heap = Heap::builder().build()?;
        for line in run(&heap, depth, threads)? {
            say(line);
        }
        summary(&heap, start);
        Ok(())
    })
}

fn parse(mut args: Args) -> Result<(u32, usize), Box<dyn Error>> {
    let threads = args.number("--threads", 2, 1..=256)?;
    let words = args.words(0..=1)?;
    let depth = words
        .first()
        .map_or(Ok(18), |depth| in_range("DEPTH", depth, &(0..=32)))?;
    Ok((depth, threads))
}

/// Runs the program; the lines that it prints.
pub(crate) fn run(heap: &Heap, depth: u32, threads: usize) -> Result<Vec<String>, Box<dyn Error>> {
    let max_depth = depth.max(MIN_DEPTH + 2);
    let mut m = heap.attach()?;
    let mut lines = Vec::new();

    let mut parts = Parts::new(&m);
    let stretch_depth = max_depth + 1;
    let count = parts.build_and_count(&mut m, stretch_depth);
    lines.push(format!(
        "stretch tree of depth {stretch_depth}\t check: {count}"
    ));

    parts.build(&mut m, max_depth);
    let long_lived: Root<Tree<'static>> = match parts.0.enter(&m).pop() {
        Some(tree) => m.root(tree),
        None => return Err("the long lived tree was not built".into()),
    };
    lines.extend(m.blocking(|| short_lived(heap, max_depth, threads))?);

    parts.0.enter(&m).push(long_lived.get(&m));
    let count = parts.count(&mut m, max_depth);
    lines.push(format!(
        "long lived tree of depth {max_depth}\t check: {count}"
    ));
    if count != nodes(max_depth) {
        return Err(format!(
            "the long lived tree has {count} nodes, not {}",
            nodes(max_depth)
        )
        .into());
    }
    Ok(lines)
}

/// Builds and drops trees of every second depth, each depth on whichever thread is free.
fn short_lived(heap: &Heap, max_depth: u32, threads: usize) -> Result<Vec<String>, Box<dyn Error>> {
    let depths: Vec<u32> = (MIN_DEPTH..=max_depth).step_by(2).collect();
    let next = AtomicU32::new(0);
    let work = || -> Result<Vec<(usize, String)>, String> {
        let mut m = heap.attach().map_err(|error| error.to_string())?;
        let mut lines = Vec::new();
        loop {
            // Relaxed: the number is all that is shared.
            let index = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(&depth) = depths.get(index) else {
                return Ok(lines);
            };
            lines.push((index, trees_of(&mut m, depth, max_depth)?));
        }
    };
    let mut lines = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            lines.extend(
                worker
                    .join()
                    .map_err(|_| "a worker panicked".to_owned())??,
            );
            Ok::<_, String>(())
        })
    })?;
    lines.sort_unstable();
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

/// Builds and drops as many trees of `depth` as make up the work of the deepest one.
fn trees_of(m: &mut Mutator, depth: u32, max_depth: u32) -> Result<String, String> {
    let trees = 1_u64 << (max_depth - depth + MIN_DEPTH);
    let mut parts = Parts::new(m);
    let mut count = 0;
    for _ in 0..trees {
        count += parts.build_and_count(m, depth);
    }
    if count != trees * nodes(depth) {
        return Err(format!("{trees} trees of depth {depth} had {count} nodes"));
    }
    Ok(format!("{trees}\t trees of depth {depth}\t check: {count}"))
}

/// What it took, apart from the result, so that outputs can be compared.
#[allow(clippy::print_stderr, reason = "the program's report")]
fn summary(heap: &Heap, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{seconds:.2} s\n{}", report::collector(&heap.stats()));
}
