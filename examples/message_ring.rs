//! A ring of messages: one thread runs at full speed, and each new message replaces the oldest. How
//! long does an insert take at worst, while hundreds of MiB are marked beside it?
//!
//! ```text
//! cargo run --release --example message_ring
//! ```
//!
//! An insert is an allocation, a store of each word, a store into the ring and a safepoint. Its
//! time is measured from the end of the insert before it, so the time includes everything that
//! delays the thread: marking that the thread does itself, stops, page faults, other programs.
//!
//! At the end each place of the ring must hold, complete, the message that was put there last.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use greywave::{Gc, GcArray, GcCell, Heap, Mutator, Root, Trace};
use hdrhistogram::Histogram;

mod common;
use common::args::{self, Args};
use common::report::{self, Bytes, Nanos, say};

const USAGE: &str = "usage: message_ring [--messages N] [--bytes N] [--inserts N]
  --messages N  in the ring, 1 to 100000000 (default 200000)
  --bytes N     of a message, its stamp and length included, 24 to 16777216 (default 1024)
  --inserts N   in all, 1 to 10000000000 (default 2000000)";

/// The words of a message besides its content: the stamp, and the length that an array has.
const HEAD_WORDS: usize = 2;
/// Longer than this counts as this.
const LONGEST_NS: u64 = 100_000_000_000;

/// Its number, and words that are made from that.
type Message = GcArray<u64, u64>;

#[derive(Trace)]
struct Slot<'gc>(GcCell<'gc, Message>);

type Ring<'gc> = GcArray<(), Slot<'gc>>;

/// How to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) inserts: u64,
}

impl Options {
    fn words(self) -> usize {
        (self.bytes / size_of::<u64>()).saturating_sub(HEAD_WORDS)
    }
}

/// What the inserts took.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) time: Duration,
    pub(crate) inserts: Times,
    /// The same measurement of nothing.
    pub(crate) clock: Times,
}

/// Times of many short things, to three digits.
#[derive(Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    fn new() -> Result<Self, hdrhistogram::CreationError> {
        Histogram::new_with_bounds(1, LONGEST_NS, 3).map(Self)
    }

    fn record(&mut self, time: Duration) {
        self.0.saturating_record(Nanos::from(time).0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, quantile) in [
            ("p50", 0.5),
            ("p99", 0.99),
            ("p99.9", 0.999),
            ("p99.99", 0.9999),
        ] {
            let time = Nanos(self.0.value_at_quantile(quantile));
            write!(f, "{name} {time}, ")?;
        }
        write!(f, "max {}", Nanos(self.0.max()))
    }
}

fn main() -> ExitCode {
    args::main(USAGE, |args| {
        let options = parse(args)?;
        let heap = Heap::builder().build()?;
        let report = run(&heap, options)?;
        summary(&heap, options, &report);
        Ok(())
    })
}

fn parse(mut args: Args) -> Result<Options, Box<dyn Error>> {
    let options = Options {
        messages: args.number("--messages", 200_000, 1..=100_000_000)?,
        bytes: args.number("--bytes", 1024, 24..=16 << 20)?,
        inserts: args.number("--inserts", 2_000_000, 1..=10_000_000_000)?,
    };
    args.words(0..=0)?;
    Ok(options)
}

/// Does the inserts and checks the ring.
pub(crate) fn run(heap: &Heap, options: Options) -> Result<Report, Box<dyn Error>> {
    let mut m = heap.attach()?;
    let ring = m.root(m.alloc_array((), options.messages, |_| Slot(GcCell::null())));
    let mut inserts = Times::new()?;
    let clock = clock_cost()?;
    let start = Instant::now();
    let mut before = start;
    let mut at = 0;
    for number in 0..options.inserts {
        let slot = &ring.get(&m).items()[at];
        slot.0.set(&m, message(&m, number, options.words()));
        m.safepoint();
        at = if at + 1 == options.messages {
            0
        } else {
            at + 1
        };
        let now = Instant::now();
        inserts.record(now - before);
        before = now;
    }
    let time = start.elapsed();
    check(&m, &ring, options)?;
    Ok(Report {
        time,
        inserts,
        clock,
    })
}

fn message(m: &Mutator, number: u64, words: usize) -> Gc<'_, Message> {
    m.alloc_array(number, words, |_| filling(number))
}

/// What each word of a message's content is.
fn filling(number: u64) -> u64 {
    u64::from_ne_bytes([number as u8; 8])
}

/// Reads the clock and records, as between two inserts.
fn clock_cost() -> Result<Times, hdrhistogram::CreationError> {
    let mut times = Times::new()?;
    let mut before = Instant::now();
    for _ in 0..100_000 {
        let now = Instant::now();
        times.record(now - before);
        before = now;
    }
    Ok(times)
}

/// Each place has the last message that was put there.
fn check(m: &Mutator, ring: &Root<Ring<'static>>, options: Options) -> Result<(), String> {
    let ring = ring.get(m);
    let messages = options.messages as u64;
    for number in options.inserts.saturating_sub(messages)..options.inserts {
        let place = (number % messages) as usize;
        let Some(message) = ring.items()[place].0.get() else {
            return Err(format!("message {number} is missing"));
        };
        let whole = *message.header() == number
            && message.items().len() == options.words()
            && message.items().iter().all(|&word| word == filling(number));
        if !whole {
            return Err(format!(
                "message {number} is not what was written: its stamp is {}",
                message.header()
            ));
        }
    }
    Ok(())
}

fn summary(heap: &Heap, options: Options, report: &Report) {
    let inserted = report.inserts.count();
    say(format_args!(
        "{inserted} inserts into a ring of {} messages of {} in {}\n  \
           insert             {}\n  \
           of it the clock    {}\n{}",
        options.messages,
        Bytes(options.bytes as u64),
        Nanos::from(report.time),
        report.inserts,
        report.clock,
        report::collector(&heap.stats()),
    ));
}
