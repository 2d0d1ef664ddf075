//! GCBench, the collector benchmark by John Ellis and Pete Kovac, as Hans Boehm modified it. It
//! builds binary trees of several depths, from the root down and from the leaves up, while a
//! long-lived tree and a long-lived array of doubles stay in the heap.
//!
//! ```text
//! cargo run --release --example gcbench
//! ```
//!
//! Building from the root down stores into nodes that exist already. So the children are cells
//! here, and each store passes the write barrier. That is what `binary_trees` does not measure.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use greywave::{Gc, GcArray, GcCell, Heap, Mutator, Root, Trace};

mod common;
use common::args;
use common::report::{self, say};

const USAGE: &str = "usage: gcbench [--depth N]
  --depth N  depth of the long-lived tree and of the deepest others, 4 to 24 (default 16)";

/// The depth of the smallest trees.
const MIN_DEPTH: u32 = 4;
/// Doubles in the long-lived array.
const ARRAY_LEN: usize = 500_000;

#[derive(Trace)]
struct Node<'gc> {
    left: GcCell<'gc, Node<'gc>>,
    right: GcCell<'gc, Node<'gc>>,
    /// The original has two numbers in a node that nobody reads: they are there for its size.
    _i: i32,
    _j: i32,
}

type Doubles = GcArray<(), f64>;

fn leaf(m: &Mutator) -> Gc<'_, Node<'_>> {
    m.alloc(Node {
        left: GcCell::null(),
        right: GcCell::null(),
        _i: 0,
        _j: 0,
    })
}

/// Grows `depth` more levels under `node`.
fn populate<'m>(m: &'m Mutator, depth: u32, node: Gc<'m, Node<'m>>) {
    if depth == 0 {
        return;
    }
    let (left, right) = (leaf(m), leaf(m));
    node.left.set(m, left);
    node.right.set(m, right);
    populate(m, depth - 1, left);
    populate(m, depth - 1, right);
}

/// A full tree, made from its leaves.
fn make_tree(m: &Mutator, depth: u32) -> Gc<'_, Node<'_>> {
    if depth == 0 {
        return leaf(m);
    }
    let left = GcCell::new(Some(make_tree(m, depth - 1)));
    let right = GcCell::new(Some(make_tree(m, depth - 1)));
    m.alloc(Node {
        left,
        right,
        _i: 0,
        _j: 0,
    })
}

fn count(node: Gc<'_, Node<'_>>) -> u64 {
    let children = [&node.left, &node.right];
    1 + children
        .iter()
        .filter_map(|child| child.get())
        .map(count)
        .sum::<u64>()
}

/// The nodes of a full tree.
const fn nodes(depth: u32) -> u64 {
    (2 << depth) - 1
}

fn main() -> ExitCode {
    args::main(USAGE, |mut args| {
        let depth = args.number("--depth", 16, MIN_DEPTH..=24)?;
        args.words(0..=0)?;
        let heap = Heap::builder().build()?;
        run(&heap, depth, |line| say(line))?;
        say(report::collector(&heap.stats()));
        Ok(())
    })
}

/// Runs the whole benchmark and says each step's time through `say`.
pub(crate) fn run(
    heap: &Heap,
    depth: u32,
    mut say: impl FnMut(&str),
) -> Result<(), Box<dyn Error>> {
    let mut m = heap.attach()?;
    let start = Instant::now();

    let stretch_depth = depth + 2;
    say(&format!(
        "stretching memory with a tree of depth {stretch_depth}"
    ));
    expect_nodes(count(make_tree(&m, stretch_depth)), stretch_depth)?;
    m.safepoint();

    say(&format!("creating a long-lived tree of depth {depth}"));
    let tree = leaf(&m);
    populate(&m, depth, tree);
    let tree: Root<Node<'static>> = m.root(tree);
    m.safepoint();

    say(&format!(
        "creating a long-lived array of {ARRAY_LEN} doubles"
    ));
    let doubles: Root<Doubles> = m.root(m.alloc_array((), ARRAY_LEN, double));
    m.safepoint();

    for depth in (MIN_DEPTH..=depth).step_by(2) {
        construction(&mut m, depth, nodes(stretch_depth), &mut say);
    }

    // Both must have lived through all of it.
    expect_nodes(count(tree.get(&m)), depth)?;
    let doubles = doubles.get(&m);
    if let Some(at) = (0..ARRAY_LEN).find(|&at| doubles.items().get(at) != Some(&double(at))) {
        return Err(format!("the long-lived array has changed at {at}").into());
    }
    say(&format!(
        "completed in {:.0} ms",
        start.elapsed().as_secs_f64() * 1e3
    ));
    Ok(())
}

/// What the long-lived array holds: the first half is filled, as in the original.
fn double(at: usize) -> f64 {
    if (1..ARRAY_LEN / 2).contains(&at) {
        1.0 / at as f64
    } else {
        0.0
    }
}

/// Builds trees of one depth both ways: as many as have twice the nodes of the stretch tree.
fn construction(m: &mut Mutator, depth: u32, stretch_nodes: u64, say: &mut impl FnMut(&str)) {
    let trees = 2 * stretch_nodes / nodes(depth);
    say(&format!("creating {trees} trees of depth {depth}"));

    let start = Instant::now();
    for _ in 0..trees {
        populate(m, depth, leaf(m));
        m.safepoint();
    }
    say(&format!(
        "\ttop down took {:.0} ms",
        start.elapsed().as_secs_f64() * 1e3
    ));

    let start = Instant::now();
    for _ in 0..trees {
        make_tree(m, depth);
        m.safepoint();
    }
    say(&format!(
        "\tbottom up took {:.0} ms",
        start.elapsed().as_secs_f64() * 1e3
    ));
}

fn expect_nodes(count: u64, depth: u32) -> Result<(), String> {
    if count == nodes(depth) {
        return Ok(());
    }
    Err(format!(
        "a tree of depth {depth} has {count} nodes, not {}",
        nodes(depth)
    ))
}
