//! Reports for people: sizes, times, the memory of the process, what the collector did.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use greywave::{HeapStats, PauseSummary};
use hdrhistogram::Histogram;

/// Writes a line to standard output. A reader who has seen enough (`| head`) is no error.
pub(crate) fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A number of bytes, shown in the largest unit that leaves a figure before the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            bytes @ 0..1024 => format!("{bytes} B"),
            bytes @ 1024..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
            bytes @ 0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
            bytes => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
        };
        f.pad(&text)
    }
}

/// A time in nanoseconds, shown in a unit of its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nanos(pub(crate) u64);

impl From<Duration> for Nanos {
    fn from(time: Duration) -> Self {
        Self(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            ns @ 0..1_000 => format!("{ns} ns"),
            ns @ 1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
            ns @ 1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
            ns => format!("{:.2} s", ns as f64 / 1e9),
        };
        f.pad(&text)
    }
}

/// How long many short things took, at three significant digits in constant space.
#[derive(Debug, Clone)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    /// Longer than this is recorded as this.
    const LONGEST_NS: u64 = 100_000_000_000;

    pub(crate) fn new() -> Self {
        match Histogram::new_with_bounds(1, Self::LONGEST_NS, 3) {
            Ok(histogram) => Self(histogram),
            Err(error) => unreachable!("the bounds are constants, and valid: {error}"),
        }
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(Nanos::from(time).0);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Both have the same bounds, so every value of one fits the other.
        debug_assert_eq!(self.0.high(), other.0.high());
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |quantile| Nanos(self.0.value_at_quantile(quantile));
        let (p50, p99, p999) = (at(0.50), at(0.99), at(0.999));
        write!(
            f,
            "p50 {p50}, p99 {p99}, p99.9 {p999}, max {}",
            Nanos(self.0.max())
        )
    }
}

/// A summary of pauses as one line.
pub(crate) fn pauses(of: &PauseSummary) -> String {
    let [p50, p90, p99, max] = [of.p50_ns, of.p90_ns, of.p99_ns, of.max_ns].map(Nanos);
    format!(
        "p50 {p50}, p90 {p90}, p99 {p99}, max {max} ({} of them)",
        of.count
    )
}

/// What the collector did, as lines under a common heading.
pub(crate) fn collector(stats: &HeapStats) -> String {
    let forced = stats.forced_cycles;
    format!(
        "  cycles             {} ({forced} forced), {} of marking\n  \
           stop-the-world     {}\n  \
           time to safepoint  {}\n  \
           heap               {} live after the last cycle, {} allocated in all\n  \
           peak memory        {}",
        stats.cycles,
        Nanos(stats.total_mark_ns),
        pauses(&stats.pauses),
        pauses(&stats.stopping),
        Bytes(stats.live_bytes),
        Bytes(stats.allocated_bytes),
        memory(peak_rss()),
    )
}

/// A figure of the operating system, which not every one gives.
pub(crate) fn memory(bytes: Option<u64>) -> String {
    bytes.map_or_else(
        || "not available on this system".to_owned(),
        |it| Bytes(it).to_string(),
    )
}

/// The most memory this process has had resident so far.
pub(crate) fn peak_rss() -> Option<u64> {
    status_field("VmHWM:")
}

/// The memory this process has resident now.
pub(crate) fn rss() -> Option<u64> {
    status_field("VmRSS:")
}

/// A size in `/proc/self/status`, which Linux gives in KiB.
fn status_field(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
