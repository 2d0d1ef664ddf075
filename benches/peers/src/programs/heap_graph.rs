//! Full collections of a recorded heap: median wall time of one.
//!
//! The file is the raw form of a `.hg` recording: `"HG1\0"`, u32 nodes, u32 edges, the size of
//! each node, the number of edges of each, the target of each edge; node 0 is the root.

use super::mark::Clock;
use crate::measure::{Error, Report};
use crate::peers;

/// A memory manager that can run this program.
pub trait HeapGraph {
    /// Builds the heap without collecting, collects once, and then as often as `clock` asks.
    fn collections(recording: &Recording, clock: &mut Clock);
}

/// A recorded heap.
#[derive(Debug)]
pub struct Recording {
    sizes: Vec<u32>,
    degrees: Vec<u32>,
    targets: Vec<u32>,
}

/// One recorded object.
#[derive(Debug)]
pub struct Node<'r> {
    /// Its size in words, at least one, and at least the number of its edges.
    pub words: usize,
    /// The objects that it points to.
    pub edges: &'r [u32],
}

impl Recording {
    fn read(path: &str) -> Result<Self, Error> {
        let bytes = std::fs::read(path)?;
        let Some(body) = bytes.strip_prefix(b"HG1\0") else {
            return Err(format!("{path} is not a raw heap graph").into());
        };
        let (words, _) = body.as_chunks::<4>();
        let mut words = words.iter().map(|&word| u32::from_le_bytes(word));
        let nodes = words.next().unwrap_or(0) as usize;
        let edges = words.next().unwrap_or(0) as usize;
        let mut take = |count| -> Vec<u32> { words.by_ref().take(count).collect() };
        let recording = Self {
            sizes: take(nodes),
            degrees: take(nodes),
            targets: take(edges),
        };
        match recording.targets.len() == edges && nodes > 0 {
            true => Ok(recording),
            false => Err(format!("{path} is cut short").into()),
        }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Whether there are none. (There is always the root.)
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// The objects, the root first.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        let mut targets = &self.targets[..];
        self.sizes
            .iter()
            .zip(&self.degrees)
            .map(move |(&size, &degree)| {
                let (edges, rest) = targets.split_at(degree as usize);
                targets = rest;
                Node {
                    words: (size as usize).div_ceil(8).max(edges.len()).max(1),
                    edges,
                }
            })
    }
}

/// The program.
pub fn run(peer: &str, file: &str, rounds: &str) -> Result<Report, Error> {
    let recording = Recording::read(file)?;
    let mut clock = Clock::new(rounds.parse()?);
    match peer {
        "greywave" => peers::grey::Plain::collections(&recording, &mut clock),
        "gc-arena" => peers::gc_arena::Peer::collections(&recording, &mut clock),
        _ => return Err(format!("{peer} has no heapgraph program").into()),
    }
    Ok(Report::collections(clock.times(), recording.len()))
}
