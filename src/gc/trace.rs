//! The line that `gctrace=1` writes for each cycle, in the manner of Go's.

use std::fmt;
use std::sync::Arc;

use crate::pace::cons_mark::MarkTimes;

/// Takes lines, without their end, on the collector's thread.
pub(crate) type TraceSink = Arc<dyn Fn(&str) + Send + Sync>;

/// The sink that writes to standard error.
pub(crate) fn to_standard_error() -> TraceSink {
    Arc::new(|line| {
        use std::io::Write;
        // Whoever closed standard error does not want to read it.
        let _ = writeln!(std::io::stderr(), "{line}");
    })
}

/// What a line says. Nanoseconds and bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceLine {
    /// The cycle's number, from 1.
    pub(crate) cycle: u64,
    /// Age of the heap when the cycle ended.
    pub(crate) age_ns: u64,
    /// Processor time that marking has taken from the program so far.
    pub(crate) total_taken_ns: u64,
    /// The first stop, what came between, the other stops.
    pub(crate) clock_ns: [u64; 3],
    pub(crate) times: MarkTimes,
    /// Heap when marking began, when it ended, and marked.
    pub(crate) heap: [u64; 3],
    pub(crate) goal: u64,
    pub(crate) external: u64,
    pub(crate) processors: u32,
    /// Somebody asked for the cycle.
    pub(crate) forced: bool,
}

/// Milliseconds to three significant digits, as far as they are there.
struct Ms(f64);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms >= 10.0 => write!(f, "{ms:.0}"),
            ms if ms >= 1.0 => write!(f, "{ms:.1}"),
            ms if ms >= 0.1 => write!(f, "{ms:.2}"),
            ms => write!(f, "{ms:.3}"),
        }
    }
}

fn ms(ns: u64) -> Ms {
    Ms(ns as f64 / 1e6)
}

/// MB as Go counts them, rounded to the nearest; a bound that is no bound is `-`.
struct Mb(u64);

impl fmt::Display for Mb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == u64::MAX {
            return f.write_str("-");
        }
        write!(f, "{}", (self.0 >> 20) + (self.0 >> 19 & 1))
    }
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = u64::from(self.processors);
        let available = (self.age_ns as f64 * p as f64).max(1.0);
        let percent = 100.0 * self.total_taken_ns as f64 / available;
        let [first, between, last] = self.clock_ns;
        let t = self.times;
        write!(
            f,
            "gc {} @{:.3}s {percent:.0}%: {}+{}+{} ms clock, {}+{}/{}/{}+{} ms cpu, ",
            self.cycle,
            self.age_ns as f64 / 1e9,
            ms(first),
            ms(between),
            ms(last),
            ms(first.saturating_mul(p)),
            ms(t.assist_ns),
            ms(t.background_ns),
            ms(t.idle_ns),
            ms(last.saturating_mul(p)),
        )?;
        let [start, end, marked] = self.heap;
        write!(
            f,
            "{}->{}->{} MB, {} MB goal, {} MB external, {p} P",
            Mb(start),
            Mb(end),
            Mb(marked),
            Mb(self.goal),
            Mb(self.external),
        )?;
        f.write_str(if self.forced { " (forced)" } else { "" })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_like_gos() {
        let line = TraceLine {
            cycle: 7,
            age_ns: 1_234_000_000,
            total_taken_ns: 49_360_000,
            clock_ns: [21_000, 4_250_000, 9_600],
            times: MarkTimes {
                duration_ns: 4_271_000,
                background_ns: 2_100_000,
                assist_ns: 130_000,
                idle_ns: 0,
            },
            heap: [41 << 20, 42 << 20, (20 << 20) + (1 << 19)],
            goal: 44 << 20,
            external: 0,
            processors: 2,
            forced: true,
        };
        assert_eq!(
            line.to_string(),
            "gc 7 @1.234s 2%: 0.021+4.2+0.010 ms clock, 0.042+0.13/2.1/0.000+0.019 ms cpu, \
             41->42->21 MB, 44 MB goal, 0 MB external, 2 P (forced)"
        );
        let unbounded = TraceLine {
            goal: u64::MAX,
            forced: false,
            ..line
        };
        assert!(
            unbounded
                .to_string()
                .ends_with("- MB goal, 0 MB external, 2 P")
        );
    }
}
