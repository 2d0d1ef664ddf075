//! The output of a measurement, and how memory is read.

use std::fmt;
use std::time::Duration;

/// Why a program did not run: a bad argument, or a peer that has no such program.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// One measurement, printed as the line that `run.sh` reads.
#[derive(Debug)]
pub struct Report {
    value: f64,
    unit: &'static str,
    notes: String,
}

impl Report {
    /// Nanoseconds for one of something.
    pub fn nanos(value: f64) -> Self {
        Self {
            value,
            unit: "ns",
            notes: String::new(),
        }
    }

    /// Milliseconds for the whole.
    pub fn millis(took: Duration, notes: String) -> Self {
        Self {
            value: took.as_secs_f64() * 1e3,
            unit: "ms",
            notes,
        }
    }

    /// Bytes for one of something.
    pub fn bytes(value: f64, notes: String) -> Self {
        Self {
            value,
            unit: "B",
            notes,
        }
    }

    /// The longest of some stops, in microseconds, and how long a whole collection took.
    pub fn longest(p50: Duration, max: Duration, whole: Duration) -> Self {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let (p50, whole) = (micros(p50), whole.as_secs_f64() * 1e3);
        Self {
            value: micros(max),
            unit: "us",
            notes: format!("p50={p50:.3}us collection={whole:.3}ms"),
        }
    }

    /// How late timers were at worst, in microseconds.
    pub fn late(times: &Times) -> Self {
        let micros = |ns: u64| ns as f64 / 1e3;
        let (p50, p99) = (micros(times.quantile(0.5)), micros(times.quantile(0.99)));
        Self {
            value: micros(times.max()),
            unit: "us",
            notes: format!("p50={p50:.3}us p99={p99:.3}us"),
        }
    }

    /// The tail of many short things, in microseconds, and how long they took together.
    pub fn times(times: &Times, total: Duration) -> Self {
        let micros = |ns: u64| ns as f64 / 1e3;
        let (p50, max) = (micros(times.quantile(0.5)), micros(times.max()));
        let total = total.as_secs_f64() * 1e3;
        Self {
            value: micros(times.quantile(0.9999)),
            unit: "us",
            notes: format!("p50={p50:.3}us max={max:.3}us total={total:.3}ms"),
        }
    }

    /// The median of some collections of a heap of `objects` objects.
    pub fn collections(mut times: Vec<Duration>, objects: usize) -> Self {
        times.sort();
        let median = times[times.len() / 2];
        let each = median.as_nanos() as f64 / objects as f64;
        Self::millis(median, format!("ns/object={each:.2}"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.3} {} {} {}",
            self.value,
            self.unit,
            peak_kib(),
            self.notes
        )
    }
}

/// How many buckets a power of two has.
const BUCKETS: u64 = 64;

/// Counts durations to a part in [`BUCKETS`].
#[derive(Debug)]
pub struct Times {
    counts: Vec<u64>,
    max: u64,
}

impl Times {
    /// None yet.
    pub fn new() -> Self {
        Self {
            counts: vec![0; (BUCKETS * BUCKETS) as usize],
            max: 0,
        }
    }

    /// Counts one.
    #[inline]
    pub fn record(&mut self, took: Duration) {
        let ns = took.as_nanos() as u64;
        let exponent = u64::from((u64::BITS - ns.leading_zeros()).max(7) - 7);
        self.counts[(exponent * BUCKETS + (ns >> exponent)) as usize] += 1;
        self.max = self.max.max(ns);
    }

    /// The longest, in nanoseconds.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The least bound, in nanoseconds, that so large a part of them is not above.
    pub fn quantile(&self, part: f64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let mut below = 0;
        for (i, count) in (0..).zip(&self.counts) {
            below += count;
            if below as f64 >= part * total as f64 {
                let exponent = (i / BUCKETS).max(1) - 1;
                return ((i - exponent * BUCKETS + 1) << exponent) - 1;
            }
        }
        self.max
    }
}

impl Default for Times {
    fn default() -> Self {
        Self::new()
    }
}

/// The high-water mark of this process's own resident memory. (`getrusage` would also count what
/// the parent had resident before exec.)
fn peak_kib() -> u64 {
    status_kib("VmHWM:")
}

/// What this process has resident now.
pub fn resident_kib() -> u64 {
    status_kib("VmRSS:")
}

fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
