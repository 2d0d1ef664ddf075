//! What is printed of a measurement, and how memory is read.

use std::fmt;
use std::time::Duration;

/// Why a program did not run: a bad argument, or a peer that has no such program.
pub type Error = Box<dyn std::error::Error>;

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

/// The high-water mark of this process's own resident memory. (`getrusage` would also count what
/// the parent had resident before exec.)
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
