//! Heap graphs (`.hg`): `"HG1\0"`, the number of objects n and of edges m, then n sizes in bytes, n
//! degrees and m targets. All numbers have 32 bits and are little-endian. The edges are in the
//! order of their sources. Object 0 is the root, and every object is reachable from it.

use std::io::Read;

use super::decode::{DecodeError, Input, Problem};

const MAGIC: [u8; 4] = *b"HG1\0";
const HEADER_BYTES: u64 = 12;

/// A heap graph in memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    sizes: Vec<u32>,
    /// The edges of object `i` are `targets[starts[i]..starts[i + 1]]`.
    starts: Vec<u32>,
    targets: Vec<u32>,
}

impl Graph {
    /// Makes a graph from the size and the edges of each object.
    pub(crate) fn from_objects(objects: &[(u32, Vec<u32>)]) -> Self {
        let mut graph = Self {
            sizes: Vec::new(),
            starts: vec![0],
            targets: Vec::new(),
        };
        for (size, edges) in objects {
            graph.sizes.push(*size);
            graph.targets.extend(edges);
            graph.starts.push(graph.targets.len() as u32);
        }
        graph
    }

    /// Reads a whole graph, and checks that it is one.
    pub(crate) fn read(from: impl Read) -> Result<Self, DecodeError> {
        let mut input = Input::new(from);
        let magic = input.take("the header")?;
        if magic != MAGIC {
            return Err(DecodeError {
                offset: 0,
                problem: Problem::Magic(magic),
            });
        }
        let objects = u32::from_le_bytes(input.take("the header")?);
        let edges = u32::from_le_bytes(input.take("the header")?);
        if objects == 0 {
            return Err(DecodeError {
                offset: 4,
                problem: Problem::NoRoot,
            });
        }
        let sizes = words(&mut input, objects, "the sizes")?;
        let starts = starts(&mut input, objects, edges)?;
        let targets = words(&mut input, edges, "the targets")?;
        if input.byte()?.is_some() {
            let offset = input.offset() - 1;
            return Err(DecodeError {
                offset,
                problem: Problem::Trailing,
            });
        }
        let graph = Self {
            sizes,
            starts,
            targets,
        };
        graph.check()?;
        Ok(graph)
    }

    /// Every edge leads to an object, and every object is reached.
    fn check(&self) -> Result<(), DecodeError> {
        let objects = self.objects() as u32;
        if let Some(edge) = self.targets.iter().position(|target| *target >= objects) {
            let offset = HEADER_BYTES + 4 * (2 * u64::from(objects) + edge as u64);
            let target = self.targets[edge];
            return Err(DecodeError {
                offset,
                problem: Problem::Target { target, objects },
            });
        }
        if let Some(object) = self.reached().iter().position(|reached| !reached) {
            let offset = HEADER_BYTES + 4 * object as u64;
            let problem = Problem::Unreachable {
                object: object as u32,
            };
            return Err(DecodeError { offset, problem });
        }
        Ok(())
    }

    /// Which objects a walk from the root meets.
    fn reached(&self) -> Vec<bool> {
        let mut reached = vec![false; self.objects()];
        let mut open = vec![0];
        reached[0] = true;
        while let Some(object) = open.pop() {
            for &target in self.edges_of(object) {
                if !std::mem::replace(&mut reached[target as usize], true) {
                    open.push(target as usize);
                }
            }
        }
        reached
    }

    pub(crate) fn objects(&self) -> usize {
        self.sizes.len()
    }

    pub(crate) fn edges(&self) -> usize {
        self.targets.len()
    }

    pub(crate) fn degree(&self, object: usize) -> usize {
        (self.starts[object + 1] - self.starts[object]) as usize
    }

    /// The targets of the object's edges, in order.
    pub(crate) fn edges_of(&self, object: usize) -> &[u32] {
        &self.targets[self.starts[object] as usize..self.starts[object + 1] as usize]
    }

    /// Where edge number `edge` of the object leads to.
    pub(crate) fn edge_mut(&mut self, object: usize, edge: usize) -> &mut u32 {
        &mut self.targets[self.starts[object] as usize + edge]
    }

    pub(crate) fn size(&self, object: usize) -> usize {
        self.sizes[object] as usize
    }

    /// The bytes that the recorded program asked for, with room for the edges where it had
    /// less (V8 has 32-bit fields).
    pub(crate) fn payload_bytes(&self) -> u64 {
        (0..self.objects())
            .map(|it| self.size(it).max(8 * self.degree(it)) as u64)
            .sum()
    }

    /// The graph as a file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((self.objects() as u32).to_le_bytes());
        bytes.extend((self.edges() as u32).to_le_bytes());
        let degrees = (0..self.objects()).map(|it| self.degree(it) as u32);
        for word in self
            .sizes
            .iter()
            .copied()
            .chain(degrees)
            .chain(self.targets.iter().copied())
        {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }
}

/// Reads `count` words. The room for them grows as they come: a broken header must not ask
/// for gigabytes.
fn words<R: Read>(
    input: &mut Input<R>,
    count: u32,
    what: &'static str,
) -> Result<Vec<u32>, DecodeError> {
    let mut words = Vec::with_capacity(count.min(1 << 16) as usize);
    for _ in 0..count {
        words.push(u32::from_le_bytes(input.take(what)?));
    }
    words.shrink_to_fit();
    Ok(words)
}

/// Reads the degrees and sums them up: where each object's edges start, and the end.
fn starts<R: Read>(
    input: &mut Input<R>,
    objects: u32,
    edges: u32,
) -> Result<Vec<u32>, DecodeError> {
    let offset = input.offset();
    let mut starts = words(input, objects, "the degrees")?;
    let mut sum = 0_u64;
    for word in &mut starts {
        let degree = *word;
        // Truncates only in a graph that is refused below.
        *word = sum as u32;
        sum += u64::from(degree);
    }
    if sum != u64::from(edges) {
        return Err(DecodeError {
            offset,
            problem: Problem::DegreeSum { sum, edges },
        });
    }
    starts.push(edges);
    Ok(starts)
}
