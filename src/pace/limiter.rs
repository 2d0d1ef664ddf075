//! Bounds the processor time of collection when the memory limit is too low.
//!
//! **Claim.** Over the time of two full buckets, the collector gets about half of the processor
//! time.
//!
//! **Why.** If the live heap hardly fits under the limit, one cycle follows another, and assists do
//! most of the work.
//!
//! **How.** A bucket fills with the collector's processor time and drains with the program's (Go
//! runtime, `mgclimit.go`). When it is full, the limiter says that the collector should be limited:
//! no assists, and no release of memory for the sake of the limit. The heap then passes the limit
//! instead.
//!
//! The time of an idle processor counts for neither, even if the processor marks. A stop counts for
//! the collector, on all processors. The time until all mutators have stopped does not count,
//! because the program runs meanwhile: when it did, a thread with a safepoint each 300 ms filled
//! the bucket, and assists were turned off.
//!
//! **Invariant.** `fill <= capacity`. An empty bucket earns no credit, so an idle day does not pay
//! for a bad second.

use crate::pace::heap_goal::BACKGROUND_SHARE;

/// How much the bucket holds for each processor, in nanoseconds.
pub(crate) const CAPACITY_PER_PROCESSOR: u64 = 1_000_000_000;
/// The longest time that the limiter should go without an update, in nanoseconds.
pub(crate) const UPDATE_PERIOD: u64 = 10_000_000;

/// The bucket. All times are nanoseconds of one steady clock that the caller reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limiter {
    /// Processor nanoseconds.
    fill: u64,
    capacity: u64,
    /// Everything that ever did not fit.
    overflow: u64,
    limiting: bool,
    /// Whether background workers take their share.
    marking: bool,
    /// Whether the world is stopped, to begin or to end marking.
    stopped: bool,
    updated_at: u64,
    processors: u32,
    /// The processor nanoseconds of assists since the last update,
    assists: u64,
    /// and of processors that had nothing to do, or marked because of that.
    idle: u64,
}

impl Limiter {
    /// Makes an empty bucket at time `now`, for `processors` (0 counts as 1).
    pub(crate) fn new(now: u64, processors: u32) -> Self {
        let mut limiter = Self {
            fill: 0,
            capacity: 0,
            overflow: 0,
            limiting: false,
            marking: false,
            stopped: false,
            updated_at: now,
            processors: processors.max(1),
            assists: 0,
            idle: 0,
        };
        limiter.resize(now, processors);
        limiter
    }

    /// Whether the collector should be limited.
    pub(crate) fn is_limiting(&self) -> bool {
        self.limiting
    }

    /// Returns the processor nanoseconds in the bucket, at most [`Self::capacity`].
    #[cfg(test)]
    pub(crate) fn fill(&self) -> u64 {
        self.fill
    }

    /// Returns how many processor nanoseconds fit.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Returns by how many processor nanoseconds the collector has ever been over.
    #[cfg(test)]
    pub(crate) fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Counts an assist of `ns` for the next update.
    pub(crate) fn add_assist(&mut self, ns: u64) {
        self.assists = self.assists.saturating_add(ns);
    }

    /// Counts `ns` of a processor that had nothing to do, or that marked because of that, for the
    /// next update.
    pub(crate) fn add_idle(&mut self, ns: u64) {
        self.idle = self.idle.saturating_add(ns);
    }

    /// Returns the time of the last update.
    pub(crate) fn updated_at(&self) -> u64 {
        self.updated_at
    }

    /// Whether the last update was too long ago.
    pub(crate) fn needs_update(&self, now: u64) -> bool {
        now.saturating_sub(self.updated_at) > UPDATE_PERIOD
    }

    /// Accounts for the time up to `now`. If `now` is before the last update or during a stop,
    /// nothing changes.
    pub(crate) fn update(&mut self, now: u64) {
        if self.stopped || now < self.updated_at {
            return;
        }
        let mut window = self.processor_time(now);
        self.updated_at = now;
        let mut collector = std::mem::take(&mut self.assists);
        if self.marking {
            // The cast saturates.
            collector = collector.saturating_add((window as f64 * BACKGROUND_SHARE) as u64);
        }
        window = window.saturating_sub(std::mem::take(&mut self.idle));
        self.account(window.saturating_sub(collector), collector);
    }

    /// Begins a stop: the world has been stopped at `now`, and marking begins or ends, as `marking`
    /// says.
    pub(crate) fn begin_stop(&mut self, marking: bool, now: u64) {
        self.update(now);
        self.marking = marking;
        self.stopped = true;
    }

    /// Ends the stop that [`Self::begin_stop`] began: the world goes on at `now`.
    pub(crate) fn end_stop(&mut self, now: u64) {
        let stop = self.processor_time(now);
        self.updated_at = self.updated_at.max(now);
        self.account(0, stop);
        self.stopped = false;
    }

    /// Changes the number of processors to `processors` (0 counts as 1) at `now`. The bucket keeps
    /// what fits.
    pub(crate) fn resize(&mut self, now: u64, processors: u32) {
        self.update(now);
        self.processors = processors.max(1);
        self.capacity = u64::from(self.processors) * CAPACITY_PER_PROCESSOR;
        self.fill = self.fill.min(self.capacity);
        self.limiting = self.fill == self.capacity;
    }

    /// Returns the processor time between the last update and `now`.
    fn processor_time(&self, now: u64) -> u64 {
        now.saturating_sub(self.updated_at)
            .saturating_mul(u64::from(self.processors))
    }

    fn account(&mut self, program: u64, collector: u64) {
        if collector > program {
            let rise = collector - program;
            let room = self.capacity - self.fill;
            if rise >= room {
                self.overflow = self.overflow.saturating_add(rise - room);
                self.limiting = true;
            }
            self.fill += rise.min(room);
        } else if program > collector {
            self.fill = self.fill.saturating_sub(program - collector);
            self.limiting = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = CAPACITY_PER_PROCESSOR;
    const PROCESSORS: u32 = 14;
    const P: u64 = PROCESSORS as u64;

    /// A limiter and a clock.
    struct Script {
        limiter: Limiter,
        now: u64,
        /// The overflow of the rounds before.
        overflow: u64,
    }

    impl Script {
        fn after(&mut self, ns: u64) -> u64 {
            self.now += ns;
            self.now
        }

        /// Lets `ns` pass, in which assists take `share` of all processors.
        fn pass(&mut self, ns: u64, share: f64) {
            self.limiter.add_assist((share * (ns * P) as f64) as u64);
            let now = self.after(ns);
            self.limiter.update(now);
        }

        #[track_caller]
        fn expect(&self, fill: u64, limiting: bool, overflow: u64) {
            let l = &self.limiter;
            assert_eq!(
                (l.fill(), l.is_limiting(), l.overflow() - self.overflow),
                (fill, limiting, overflow)
            );
        }

        fn program_alone(&mut self) {
            for ns in [10 * MS, SECOND, 3600 * SECOND] {
                self.pass(ns, 0.0);
            }
            self.expect(0, false, 0);
            let half = self.after(UPDATE_PERIOD / 2);
            assert!(!self.limiter.needs_update(half));
            let more = self.after(UPDATE_PERIOD);
            assert!(self.limiter.needs_update(more));
            self.limiter.update(more);
            assert!(!self.limiter.needs_update(more));
        }

        fn begin_marking(&mut self) {
            let stop = 2 * MS + 1000;
            let now = self.after(109 * MS);
            self.limiter.begin_stop(true, now);
            let now = self.after(stop);
            self.limiter.end_stop(now);
            self.expect(stop * P, false, 0);
            // The collector takes a quarter, so half of the time that passes drains. It drains all
            // but one nanosecond for each processor.
            self.pass(2 * (stop - 1), 0.0);
            self.expect(P, false, 0);
            self.pass(2 * P * SECOND, 0.0);
            self.expect(0, false, 0);
        }

        fn fill_and_drain(&mut self) {
            let full = P * SECOND;
            self.pass(10 * MS, 0.25);
            self.expect(0, false, 0);
            self.pass(MS, 0.75);
            self.expect(P * MS, false, 0);
            self.pass(SECOND - MS, 0.75);
            self.expect(full, true, 0);
            self.pass(SECOND, 0.25);
            self.expect(full, true, 0);
            self.pass(SECOND, 0.0);
            self.expect(full / 2, false, 0);
            self.pass(SECOND, 0.75);
            self.expect(full, true, full / 2);
        }

        fn end_marking(&mut self) {
            let full = P * SECOND;
            self.limiter.add_assist((0.75 * (MS * P) as f64) as u64);
            let now = self.after(MS);
            self.limiter.begin_stop(false, now);
            self.expect(full, true, full / 2 + MS * P);
            let now = self.after(5 * MS);
            self.limiter.end_stop(now);
            self.expect(full, true, full / 2 + 6 * MS * P);
        }

        fn resize(&mut self) {
            let over = P * SECOND / 2 + 6 * MS * P;
            self.limiter.resize(self.now, PROCESSORS + 10);
            self.expect(P * SECOND, false, over);
            self.limiter.resize(self.now, PROCESSORS - 10);
            self.expect((P - 10) * SECOND, true, over);
            let now = self.after(P * SECOND);
            self.limiter.resize(now, PROCESSORS);
            self.overflow += over;
        }
    }

    /// Go's script (`mgclimit_test.go`). It runs twice, to see that nothing is left over.
    #[test]
    fn the_script() {
        let mut script = Script {
            limiter: Limiter::new(0, PROCESSORS),
            now: 0,
            overflow: 0,
        };
        for _ in 0..2 {
            assert_eq!(script.limiter.capacity(), P * SECOND);
            script.expect(0, false, 0);
            script.program_alone();
            script.begin_marking();
            script.fill_and_drain();
            script.end_marking();
            script.resize();
        }
    }

    #[test]
    fn idle_time_is_nobodys() {
        let mut limiter = Limiter::new(0, 4);
        limiter.begin_stop(true, 0);
        limiter.end_stop(10 * MS);
        let fill = limiter.fill();
        // Two processors are idle; the collector has half of the other two. The fill does not
        // change.
        limiter.add_idle(2 * MS);
        limiter.update(11 * MS);
        assert_eq!(limiter.fill(), fill);
    }

    #[test]
    fn time_that_runs_backwards_changes_nothing() {
        let mut limiter = Limiter::new(100, 4);
        limiter.add_assist(5);
        let before = limiter.clone();
        limiter.update(99);
        assert_eq!(limiter, before);
        assert!(!limiter.needs_update(0));
    }
}
