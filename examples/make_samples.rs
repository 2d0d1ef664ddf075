//! Writes the small inputs in `tests/data`, so that the programs can be tried and tested without
//! recorded ones. The bytes are the same every time.
//!
//! ```text
//! cargo run --example make_samples
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod common;
use common::args;
use common::hg::Graph;
use common::mt::{self, Event};
use common::report::say;
use common::rng::Rng;

const USAGE: &str = "usage: make_samples [DIRECTORY]
  DIRECTORY  where sample.mt.zst and sample.hg.zst go (default: tests/data of this crate)";

const SEED: u64 = 1;

fn main() -> ExitCode {
    args::main(USAGE, |args| {
        let words = args.words(0..=1)?;
        let tests = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        write(&words.first().map_or_else(tests, PathBuf::from))
    })
}

fn write(directory: &Path) -> Result<(), Box<dyn Error>> {
    for (name, bytes) in [("sample.mt.zst", trace()), ("sample.hg.zst", graph())] {
        let path = directory.join(name);
        let packed = pack(&bytes)?;
        std::fs::write(&path, &packed).map_err(|error| format!("{}: {error}", path.display()))?;
        say(format_args!(
            "{}: {} bytes, {} packed",
            path.display(),
            bytes.len(),
            packed.len()
        ));
    }
    Ok(())
}

/// Compresses with a checksum, so that a flipped bit is found even where it could be data.
fn pack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut packer = zstd::Encoder::new(Vec::new(), 19)?;
    packer.include_checksum(true)?;
    packer.write_all(bytes)?;
    packer.finish()
}

/// A trace of 6,000 events: all the sizes near a word or a page, some large objects, lives
/// of every length, and a few objects that are never freed.
pub(crate) fn trace() -> Vec<u8> {
    const EDGES: [usize; 12] = [0, 1, 7, 8, 9, 15, 16, 17, 4095, 4096, 32_769, 100_000];
    let mut rng = Rng::new(SEED, 0);
    let mut live = Vec::new();
    let mut allocated = 0;
    let events = (0..6_000).map(|_| {
        // The more there is, the more often one goes: about 150 objects live at a time.
        if rng.below(300) < live.len() {
            let object = live.swap_remove(rng.below(live.len()));
            return Event::Free { object };
        }
        let size = match rng.below(32) {
            0 => EDGES[rng.below(EDGES.len())],
            1..4 => rng.below(3_000),
            _ => 8 * rng.below(24),
        };
        live.push(allocated);
        allocated += 1;
        Event::Alloc { size }
    });
    mt::encode(events)
}

/// A graph of 600 objects: cycles, edges to oneself, edges side by side, an object larger
/// than a size class with 5,000 edges, and objects of no size at all.
pub(crate) fn graph() -> Vec<u8> {
    const OBJECTS: usize = 600;
    const HUB: usize = 7;
    let mut rng = Rng::new(SEED, 1);
    let mut objects: Vec<(u32, Vec<u32>)> = Vec::new();
    for object in 0..OBJECTS {
        let degree = match object {
            HUB => 5_000,
            _ => rng.below(6),
        };
        let size = [0, 8 * degree, 8 * degree + rng.below(64)][rng.below(3)];
        // Most edges lead to a neighbour: the graph is deep, and its file is small.
        let near = |rng: &mut Rng| (object + rng.below(24)) % OBJECTS;
        let edges = (0..degree).map(|_| near(&mut rng) as u32).collect();
        objects.push((size as u32, edges));
    }
    // Everything hangs on the objects before it: so all of it is reachable.
    for object in 1..OBJECTS {
        let parent = object - 1 - rng.below(object.min(4));
        objects[parent].1.push(object as u32);
    }
    Graph::from_objects(&objects).encode()
}
