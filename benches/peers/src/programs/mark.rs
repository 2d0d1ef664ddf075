//! Full collections of a large graph of 64-byte objects: median wall time of one.
//!
//! The shapes are those of `go/mark.go`, link for link.

use std::time::{Duration, Instant};

use crate::measure::{Error, Report};
use crate::peers;

/// A memory manager that can run this program.
pub trait Mark {
    /// Builds the graph without collecting, collects once, and then as often as `clock` asks.
    /// An object is four pointers and four words of data, or as near to it as the peer allows.
    fn collections(graph: &Graph, clock: &mut Clock);
}

/// Times each collection.
#[derive(Debug)]
pub struct Clock {
    rounds: usize,
    times: Vec<Duration>,
}

impl Clock {
    pub(super) fn new(rounds: usize) -> Self {
        Self {
            rounds,
            times: Vec::new(),
        }
    }

    /// Times `collect` as often as was asked for. The first, uncounted one frees what building
    /// left behind, and warms up.
    pub fn time(&mut self, mut collect: impl FnMut()) {
        collect();
        for _ in 0..self.rounds {
            let start = Instant::now();
            collect();
            self.times.push(start.elapsed());
        }
    }

    pub(super) fn times(self) -> Vec<Duration> {
        self.times
    }
}

/// The program.
pub fn run(peer: &str, shape: &str, objects: &str, rounds: &str) -> Result<Report, Error> {
    let shape = match shape {
        "random" => Shape::Random,
        "random-roots" => Shape::RandomRoots,
        "tree" => Shape::Tree,
        "chain" => Shape::Chain,
        "chain-random" => Shape::ChainRandom,
        _ => return Err(format!("no shape {shape}").into()),
    };
    let graph = Graph {
        objects: objects.parse()?,
        shape,
    };
    let mut clock = Clock::new(rounds.parse()?);
    match (peer, shape) {
        ("greywave", _) => peers::grey::Plain::collections(&graph, &mut clock),
        ("gc-arena", _) => peers::gc_arena::Peer::collections(&graph, &mut clock),
        ("boa_gc", _) => peers::boa::Peer::collections(&graph, &mut clock),
        // It marks by recursion, and overflows the stack on every other shape.
        ("gc", Shape::Tree) => peers::rust_gc::Peer::collections(&graph, &mut clock),
        _ => return Err(format!("{peer} has no mark program of this shape").into()),
    }
    Ok(Report::collections(clock.times(), graph.objects))
}

/// How the objects, numbered in the order of their allocation, are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A binary tree in random order (so that all is reachable from one root) in the first two
    /// fields, any object in the other two.
    Random,
    /// Any object in the first two fields; the roots are an array of all objects in random order.
    RandomRoots,
    /// A balanced binary tree: a node, its left subtree, its right subtree.
    Tree,
    /// A linked list in the order of allocation.
    Chain,
    /// A linked list in random order.
    ChainRandom,
}

/// A graph to build.
#[derive(Clone, Copy, Debug)]
pub struct Graph {
    /// How many objects it has.
    pub objects: usize,
    shape: Shape,
}

impl Graph {
    /// Calls `set(from, field, to)` for each link, and gives the roots.
    pub fn link(&self, mut set: impl FnMut(usize, usize, usize)) -> Vec<u32> {
        let n = self.objects;
        let mut random = SplitMix(1);
        match self.shape {
            Shape::Random => {
                let p = random.permutation(n);
                for i in 0..n {
                    let from = p[i] as usize;
                    for field in 0..2 {
                        if let Some(&child) = p.get(2 * i + 1 + field) {
                            set(from, field, child as usize);
                        }
                    }
                    for field in 2..4 {
                        set(from, field, random.below(n));
                    }
                }
                vec![p[0]]
            }
            Shape::RandomRoots => {
                for from in 0..n {
                    for field in 0..2 {
                        set(from, field, random.below(n));
                    }
                }
                random.permutation(n)
            }
            Shape::Tree => {
                link_tree(&mut set, 0, n);
                vec![0]
            }
            Shape::Chain => {
                (1..n).for_each(|i| set(i - 1, 0, i));
                vec![0]
            }
            Shape::ChainRandom => {
                let p = random.permutation(n);
                p.windows(2)
                    .for_each(|pair| set(pair[0] as usize, 0, pair[1] as usize));
                vec![p[0]]
            }
        }
    }
}

fn link_tree(set: &mut impl FnMut(usize, usize, usize), low: usize, high: usize) {
    let middle = low + 1 + (high - low) / 2;
    if low + 1 < middle {
        set(low, 0, low + 1);
        link_tree(set, low + 1, middle);
    }
    if middle < high {
        set(low, 1, middle);
        link_tree(set, middle, high);
    }
}

/// SplitMix64.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut p: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            p.swap(i, self.below(i + 1));
        }
        p
    }
}
