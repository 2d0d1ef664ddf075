//! Replays recorded allocation traces. Each `malloc` allocates a garbage-collected object of that
//! size, and each `free` forgets it. How much memory does a collector need where the recorded
//! program freed by hand?
//!
//! ```text
//! cargo run --release --example malloc_replay -- tests/data/sample.mt.zst
//! ```
//!
//! Each file has a thread, and all threads share one heap. The bytes of an object are a stamp of
//! its number and size, which is checked when the object is freed. If an object was collected too
//! early, or shares its memory with another, the stamp shows that. At the end the heap may contain
//! only what the traces did not free.
//!
//! The traces are decoded while they are replayed, so that memory holds little besides the heap.
//! Decoding takes up to 8 MiB for a large `.zst` file, and nothing for a plain `.mt` file.

use std::collections::HashMap;
use std::error::Error;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use greywave::{Frame, Gc, Heap, HeapStats, Mutator};

mod common;
use common::args;
use common::decode::{self, DecodeError, Problem};
use common::mt::{Event, Events};
use common::report::{self, Bytes, say};
use common::rng::mix;

const USAGE: &str = "usage: malloc_replay FILE... [--poll N]
  FILE      an allocation trace, .mt or .mt.zst; each has a thread of its own
  --poll N  events between two safepoints, 1 to 65536 (default 256)";

/// What the replay of one trace found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) events: u64,
    /// The most bytes that the trace had allocated and not freed at a time.
    pub(crate) peak_bytes: u64,
    /// The bytes and the objects that it never freed.
    pub(crate) left_bytes: u64,
    pub(crate) left_objects: u64,
    /// The time of the replay, without decoding.
    pub(crate) time: Duration,
}

/// What a whole run found.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) traces: Vec<(PathBuf, Report)>,
    /// At the end of the traces, before the collections that check what is left.
    pub(crate) stats: HeapStats,
    /// The memory of the process with the traces read and nothing replayed, and its peak
    /// afterwards.
    pub(crate) rss_before: Option<u64>,
    pub(crate) peak_rss: Option<u64>,
    /// The bytes that the last collection kept.
    pub(crate) live_bytes: u64,
}

fn main() -> ExitCode {
    args::main(USAGE, |mut args| {
        let poll = args.number("--poll", 256, 1..=65_536)?;
        let files = args
            .words(1..=256)?
            .into_iter()
            .map(PathBuf::from)
            .collect();
        let outcome = run(&Heap::builder().build()?, files, poll)?;
        print(&outcome);
        Ok(())
    })
}

/// Replays all the files at once.
pub(crate) fn run(heap: &Heap, files: Vec<PathBuf>, poll: usize) -> Result<Outcome, String> {
    // A file that cannot be opened is an error before the first event. The rest is read first, so
    // that the memory that is reported is that of the replay.
    let open = |path: PathBuf| match decode::open(&path).map(decode::in_memory) {
        Ok(input) => Ok((path, input)),
        Err(error) => Err(format!("{}: {error}", path.display())),
    };
    let opened: Vec<_> = files.into_iter().map(open).collect::<Result<_, _>>()?;
    let rss_before = report::rss();
    let replays: Vec<_> = thread::scope(|scope| {
        let spawn = |(path, input): (PathBuf, decode::InMemory)| {
            scope.spawn(move || match Replay::run(heap, input, poll) {
                Ok(replay) => Ok((path, replay)),
                Err(error) => Err(describe(&path, &*error)),
            })
        };
        let threads: Vec<_> = opened.into_iter().map(spawn).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|_| Err("a replay panicked".to_owned()))
        };
        threads.into_iter().map(join).collect::<Result<_, _>>()
    })?;

    let (stats, peak_rss) = (heap.stats(), report::peak_rss());
    // What was allocated while a cycle ran is kept by that cycle: the second one has it all.
    heap.collect();
    heap.collect();
    let live_bytes = heap.stats().live_bytes;
    let left = |count: fn(&Report) -> u64| replays.iter().map(|(_, it)| count(&it.report)).sum();
    let (bytes, objects) = (left(|it| it.left_bytes), left(|it| it.left_objects));
    let allowed = bytes..=with_rounding(bytes, objects);
    if !allowed.contains(&live_bytes) {
        let (low, high) = allowed.into_inner();
        return Err(format!(
            "{objects} objects of {bytes} bytes are left, for which the heap may keep {low} to \
             {high} bytes, but it keeps {live_bytes}"
        ));
    }
    let m = heap.attach().map_err(|error| error.to_string())?;
    let report = |(path, mut replay): (PathBuf, Replay)| match replay.check_all(&m) {
        Ok(()) => Ok((path, replay.report)),
        Err(error) => Err(describe(&path, &error)),
    };
    let traces = replays.into_iter().map(report).collect::<Result<_, _>>()?;
    Ok(Outcome {
        traces,
        stats,
        rss_before,
        peak_rss,
        live_bytes,
    })
}

/// The most that a heap may use for so many objects of so many bytes in all. A slot is larger
/// than its object by less than two words or an eighth of the slot, and the pages of a large
/// object, which has more than four, are larger by less than one page.
const fn with_rounding(bytes: u64, objects: u64) -> u64 {
    bytes + bytes / 4 + 16 * objects
}

fn describe(path: &Path, error: &dyn Error) -> String {
    let cause = error
        .source()
        .map_or_else(String::new, |cause| format!(": {cause}"));
    format!("{}: {error}{cause}", path.display())
}

/// The objects of a trace that live.
struct Replay {
    /// Each object in a slot, and the free slots in between.
    slots: Frame<Slots<'static>>,
    vacant: Vec<u32>,
    /// The slot of each object.
    slot_of: HashMap<u64, u32, BuildHasherDefault<ByNumber>>,
    allocated: u64,
    report: Report,
}

type Slots<'gc> = Vec<Option<Gc<'gc, [u8]>>>;

impl Replay {
    /// Replays a whole trace.
    fn run(
        heap: &Heap,
        input: impl Read,
        poll: usize,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut m = heap.attach()?;
        let mut events = Events::new(input);
        let mut this = Self::new(&m);
        let mut batch = Vec::with_capacity(poll);
        loop {
            batch.clear();
            while batch.len() < poll
                && let Some(event) = events.next().transpose()?
            {
                batch.push((event, events.event_offset()));
            }
            if batch.is_empty() {
                return Ok(this);
            }
            let start = Instant::now();
            this.replay(&m, &batch)?;
            m.safepoint();
            this.report.time += start.elapsed();
        }
    }

    fn new(m: &Mutator) -> Self {
        Self {
            slots: Frame::new(m, Vec::new()),
            vacant: Vec::new(),
            slot_of: HashMap::default(),
            allocated: 0,
            report: Report {
                events: 0,
                peak_bytes: 0,
                left_bytes: 0,
                left_objects: 0,
                time: Duration::ZERO,
            },
        }
    }

    /// Replays some events, each with its offset in the trace.
    fn replay(
        &mut self,
        m: &Mutator,
        events: &[(Event, u64)],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Self {
            slots,
            vacant,
            slot_of,
            allocated,
            report,
        } = self;
        let mut slots = slots.enter(m);
        for &(event, offset) in events {
            match event {
                Event::Alloc { size } => {
                    let object = *allocated;
                    *allocated += 1;
                    let bytes = m
                        .try_alloc_slice(size, stamp(object, size))
                        .map_err(|error| format!("object {object} of {size} bytes: {error}"))?;
                    let slot = vacant.pop().unwrap_or_else(|| {
                        slots.push(None);
                        slots.len() as u32 - 1
                    });
                    slots[slot as usize] = Some(bytes);
                    slot_of.insert(object, slot);
                    report.left_objects += 1;
                    report.left_bytes += size as u64;
                    report.peak_bytes = report.peak_bytes.max(report.left_bytes);
                }
                Event::Free { object } => {
                    let twice = DecodeError {
                        offset,
                        problem: Problem::FreedTwice { object },
                    };
                    let slot = slot_of.remove(&object).ok_or(twice)?;
                    let Some(bytes) = slots[slot as usize].take() else {
                        return Err(LostStamp { object, size: 0 }.into());
                    };
                    check_stamp(object, bytes.as_ref())?;
                    vacant.push(slot);
                    report.left_objects -= 1;
                    report.left_bytes -= bytes.len() as u64;
                }
            }
        }
        report.events += events.len() as u64;
        Ok(())
    }

    /// Checks the stamps of all that is left.
    fn check_all(&mut self, m: &Mutator) -> Result<(), LostStamp> {
        let slots = self.slots.enter(m);
        for (&object, &slot) in &self.slot_of {
            match slots[slot as usize] {
                Some(bytes) => check_stamp(object, bytes.as_ref())?,
                None => return Err(LostStamp { object, size: 0 }),
            }
        }
        Ok(())
    }
}

/// The bytes of an object: eight that no other object has, again and again.
fn stamp(object: u64, size: usize) -> impl Fn(usize) -> u8 {
    let word = stamp_word(object, size);
    move |at| word[at % 8]
}

fn stamp_word(object: u64, size: usize) -> [u8; 8] {
    mix(object ^ mix(size as u64)).to_le_bytes()
}

fn check_stamp(object: u64, bytes: &[u8]) -> Result<(), LostStamp> {
    let word = stamp_word(object, bytes.len());
    let mut words = bytes.chunks_exact(8);
    let whole = words.all(|found| found == word);
    if whole && word.starts_with(words.remainder()) {
        return Ok(());
    }
    Err(LostStamp {
        object,
        size: bytes.len(),
    })
}

/// An object whose bytes are not what was written: the collector's fault.
#[derive(Debug)]
struct LostStamp {
    object: u64,
    size: usize,
}

impl std::fmt::Display for LostStamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "object {} of {} bytes has lost its stamp",
            self.object, self.size
        )
    }
}

impl Error for LostStamp {}

/// Hashes object numbers, which need no protection from an attacker.
#[derive(Default)]
struct ByNumber(u64);

impl Hasher for ByNumber {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }
}

fn print(outcome: &Outcome) {
    let mut peak = 0;
    for (path, report) in &outcome.traces {
        peak += report.peak_bytes;
        say(format_args!(
            "{}: {} events, {:.1} ns each; at most {} allocated, {} in {} objects never freed",
            path.display(),
            report.events,
            report.time.as_nanos() as f64 / report.events.max(1) as f64,
            Bytes(report.peak_bytes),
            Bytes(report.left_bytes),
            report.left_objects,
        ));
    }
    say(format_args!(
        "  peak allocated     {} (the sum of the traces' peaks)",
        Bytes(peak)
    ));
    if let (Some(before), Some(after)) = (outcome.rss_before, outcome.peak_rss) {
        say(format_args!(
            "  peak memory        {}, {} more than at the start: {:.2} times the allocated",
            Bytes(after),
            Bytes(after.saturating_sub(before)),
            after.saturating_sub(before) as f64 / peak.max(1) as f64
        ));
    }
    say(format_args!(
        "  left in the heap   {} after two collections",
        Bytes(outcome.live_bytes)
    ));
    say(report::collector(&outcome.stats));
}
