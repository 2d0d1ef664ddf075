//! A heap under a memory limit, with growth switched off. How far above the limit does the heap
//! get, and what does it cost if more is live than fits?
//!
//! ```text
//! cargo run --release --example memory_limit
//! cargo run --release --example memory_limit -- --threads 4
//! cargo run --release --example memory_limit -- --live 300 --gib 2
//! ```
//!
//! The threads keep a number of MiB alive in tables, and replace the content by objects of 16 bytes
//! to 32 KiB until they have allocated a number of GiB. Another thread looks at the heap and at the
//! process each 10 ms, and keeps the largest values. The heap's memory is what it has mapped for
//! objects and not given back, plus its tables. The limit is kept if that memory stays below it, or
//! a little above.
//!
//! If more is live than the limit allows, the program must still go on, and the collector must
//! leave it about half of the processor.

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use greywave::{Event, Gc, GcArray, GcCell, Heap, Mutator, Root, Trace};

mod common;
use common::args::{self, Args};
use common::report::{self, Bytes, Nanos, say};
use common::rng::Rng;

const USAGE: &str =
    "usage: memory_limit [--limit MIB] [--live MIB] [--gib N] [--largest BYTES] [--threads N] [--seed N]
  --limit MIB  of the heap, 8 to 1048576 (default 256)
  --live MIB   that the threads keep, all together, 1 to 1048576 (default 150)
  --gib N      allocated in all, 1 to 1000000 (default 50)
  --largest BYTES  of an object, rounded down to a power of two, 32 to 1048576 (default 32768);
               small objects take long to mark, and their table takes memory too
  --threads N  1 to 256 (default 1)
  --seed N     of the sizes and places (default 1)";

const MIB: u64 = 1 << 20;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Chunks in a part of a table: what is replaced at once is never more than this.
const CHUNKS: usize = 256;
type Chunk = GcArray<(), u64>;

#[derive(Trace)]
struct Place<'gc>(GcCell<'gc, Chunk>);

type Part<'gc> = GcArray<(), Place<'gc>>;
type Table<'gc> = [Gc<'gc, Part<'gc>>];

/// How to run. Bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) limit: u64,
    pub(crate) live: u64,
    pub(crate) allocate: u64,
    pub(crate) largest: u64,
    pub(crate) threads: usize,
    pub(crate) seed: u64,
}

impl Options {
    /// The powers of two that a size may begin with.
    fn powers(self) -> u32 {
        (self.largest / 16).ilog2()
    }

    /// The mean of all sizes, in bytes: each power stands for sizes up to its double.
    fn mean_size(self) -> u64 {
        24 * ((1 << self.powers()) - 1) / u64::from(self.powers())
    }
}

/// The largest values that were seen, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Largest {
    pub(crate) looks: u64,
    /// What the heap has mapped, with its tables.
    pub(crate) heap: u64,
    /// What of it is used by objects.
    pub(crate) spans: u64,
    /// What the process has resident.
    pub(crate) resident: u64,
}

/// What a run was like.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) time: Duration,
    pub(crate) largest: Largest,
    pub(crate) told: Told,
    pub(crate) processors: usize,
}

/// What the heap told: sums over all cycles, in nanoseconds, and complaints.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    /// Processor time of marking: what it took from the program, ..
    pub(crate) background_ns: u64,
    pub(crate) assist_ns: u64,
    /// .. and what was idle.
    pub(crate) idle_ns: u64,
    /// Wall time of marking.
    pub(crate) mark_ns: u64,
    /// How often it was told that the limit is too low, ..
    pub(crate) unmet: u64,
    /// .. how often of these the collector was held back, ..
    pub(crate) limiting: u64,
    /// .. and how many bytes it needed, at most.
    pub(crate) needed: u64,
}

impl Told {
    fn take(&mut self, event: &Event) {
        match *event {
            Event::CycleEnd {
                background_ns,
                assist_ns,
                idle_ns,
                mark_ns,
                ..
            } => {
                self.background_ns += background_ns;
                self.assist_ns += assist_ns;
                self.idle_ns += idle_ns;
                self.mark_ns += mark_ns;
            }
            Event::LimitUnmet {
                needed_bytes,
                limiting,
                ..
            } => {
                self.unmet += 1;
                self.limiting += u64::from(limiting);
                self.needed = needed_bytes.max(self.needed);
            }
            _ => {}
        }
    }
}

fn main() -> ExitCode {
    args::main(USAGE, |args| {
        let options = parse(args)?;
        let (report, stats) = run(options)?;
        summary(options, &report);
        say(report::collector(&stats));
        Ok(())
    })
}

fn parse(mut args: Args) -> Result<Options, Box<dyn Error>> {
    let options = Options {
        limit: MIB * args.number("--limit", 256, 8..=1 << 20)?,
        live: MIB * args.number("--live", 150, 1..=1 << 20)?,
        allocate: 1024 * MIB * args.number("--gib", 50, 1..=1_000_000)?,
        largest: args.number("--largest", 32 << 10, 32..=MIB)?,
        threads: args.number("--threads", 1, 1..=256)?,
        seed: args.number("--seed", 1, 0..=u64::MAX)?,
    };
    args.words(0..=0)?;
    Ok(options)
}

/// Fills the tables and replaces what is in them, under the limit.
pub(crate) fn run(options: Options) -> Result<(Report, greywave::HeapStats), Box<dyn Error>> {
    let told = Arc::new(Mutex::new(Told::default()));
    let sums = told.clone();
    let heap = Heap::builder()
        .gogc(None)
        .memory_limit(options.limit)
        .on_event(move |event| locked(&sums).take(event))
        .build()?;
    let start = Instant::now();
    let over = AtomicBool::new(false);
    let (ended, largest) = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&heap, &over));
        let threads: Vec<_> = (0..options.threads)
            .map(|number| {
                let heap = &heap;
                scope.spawn(move || replace(heap, options, number as u64))
            })
            .collect();
        // All of them must have ended before the watcher is told.
        let ended: Vec<_> = threads
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        // Relaxed: the flag is all that is shared.
        over.store(true, Ordering::Relaxed);
        (ended, watcher.join())
    });
    for thread in ended {
        thread.map_err(|_| "a thread panicked")??;
    }
    let report = Report {
        time: start.elapsed(),
        largest: largest.map_err(|_| "the watching thread panicked")?,
        told: *locked(&told),
        processors: thread::available_parallelism()?.get(),
    };
    let stats = heap.stats();
    heap.verify()?;
    Ok((report, stats))
}

/// A sum that a panicking sink left is still a sum.
fn locked(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at the heap and the process until it is over.
fn watch(heap: &Heap, over: &AtomicBool) -> Largest {
    let mut largest = Largest::default();
    // Relaxed: the flag is all that is shared.
    while !over.load(Ordering::Relaxed) {
        let stats = heap.stats();
        largest.looks += 1;
        for (value, now) in [
            (
                &mut largest.heap,
                stats.mapped_bytes.saturating_sub(stats.released_bytes) + stats.metadata_bytes,
            ),
            (&mut largest.spans, stats.span_bytes),
            (&mut largest.resident, report::rss().unwrap_or(0)),
        ] {
            *value = now.max(*value);
        }
        thread::sleep(LOOK);
    }
    largest
}

/// One thread's share of the work.
fn replace(heap: &Heap, options: Options, number: u64) -> Result<(), String> {
    let mut m = heap.attach().map_err(|error| error.to_string())?;
    let mut rng = Rng::new(options.seed, number);
    let share = options.threads as u64;
    let parts = (options.live / share / options.mean_size()).div_ceil(CHUNKS as u64) as usize;
    let table: Root<Table<'static>> = {
        let part = |_| m.alloc_array((), CHUNKS, |_| Place(GcCell::null()));
        m.root(m.alloc_slice(parts, part))
    };
    // First one for each place, then in places at random.
    let mut allocated = 0;
    for at in 0.. {
        let (part, place) = match at / CHUNKS {
            part if part < parts => (part, at % CHUNKS),
            _ if allocated >= options.allocate / share => break,
            _ => (rng.below(parts), rng.below(CHUNKS)),
        };
        let size = size(&mut rng, options.powers());
        let chunk = chunk(&m, size);
        table.get(&m)[part].items()[place].0.set(&m, chunk);
        allocated += size;
        m.safepoint();
    }
    let whole = |place: &Place<'_>| place.0.get().is_some_and(is_whole);
    if table
        .get(&m)
        .iter()
        .all(|part| part.items().iter().all(whole))
    {
        return Ok(());
    }
    Err("a chunk is not what was written".to_owned())
}

/// 16 bytes to `16 << powers`, small ones as frequent as large ones.
fn size(rng: &mut Rng, powers: u32) -> u64 {
    let low = 16 << rng.below(powers as usize);
    low + rng.next() % low
}

/// Of so many bytes, the length included. Each word says how many there are.
fn chunk(m: &Mutator, size: u64) -> Gc<'_, Chunk> {
    let words = (size / 8 - 1) as usize;
    m.alloc_array((), words, |_| words as u64)
}

fn is_whole(chunk: Gc<'_, Chunk>) -> bool {
    let words = chunk.items();
    words.iter().all(|&word| word == words.len() as u64)
}

fn summary(options: Options, report: &Report) {
    let Largest {
        looks,
        heap,
        spans,
        resident,
    } = report.largest;
    let against = |bytes: u64| match bytes.checked_sub(options.limit) {
        None => format!("{} below the limit", Bytes(options.limit - bytes)),
        Some(over) => format!("{} OVER the limit", Bytes(over)),
    };
    say(format_args!(
        "{} kept by {} thread(s) under a limit of {}, {} allocated in {}",
        Bytes(options.live),
        options.threads,
        Bytes(options.limit),
        Bytes(options.allocate),
        Nanos::from(report.time),
    ));
    say(format_args!("the largest of {looks} looks:"));
    for (name, bytes) in [
        ("mapped and tables", heap),
        ("pages in use", spans),
        ("process, resident", resident),
    ] {
        say(format_args!(
            "  {name:<18} {}, {}",
            Bytes(bytes),
            against(bytes)
        ));
    }
    let told = report.told;
    let all = report.time.as_nanos() as f64 * report.processors as f64;
    let share = |ns: u64| 100.0 * ns as f64 / all;
    if told.unmet > 0 {
        say(format_args!(
            "after {} cycles the heap said that the limit cannot be met (at most {} needed); \
             after {} it was holding the collector back",
            told.unmet,
            Bytes(told.needed),
            told.limiting,
        ));
    }
    say(format_args!(
        "of {} processors' time: {:.1} % background marking, {:.1} % assists (together {:.1} %), {:.1} % idle marking;\n\
         marking ran for {:.1} % of the time",
        report.processors,
        share(told.background_ns),
        share(told.assist_ns),
        share(told.background_ns + told.assist_ns),
        share(told.idle_ns),
        share(told.mark_ns) * report.processors as f64,
    ));
}
