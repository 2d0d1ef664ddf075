//! The settings of a heap. A call on the builder overrides the environment, which overrides the
//! defaults.
//!
//! **Claim.** A value that cannot be read is never ignored: the error names the setting, the value,
//! and what is allowed.
//!
//! **How.** `build` reads the environment once, through a function that a test can replace. `read`
//! parses a variable, and refuses what it cannot parse.
//!
//! **The default reservation.** A large reservation costs nothing but address space, and a heap
//! that has one needs no other limit. But a process has 2^47 bytes of it, and may have many heaps
//! or an `RLIMIT_AS`. So each heap takes at most a part of what the others have left ([`SHARE`]).
//! If the system refuses that, the builder halves the size until it fits, and keeps it only if as
//! much again is left for the rest of the process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::api::error::ConfigError;
use crate::api::heap::Heap;
use crate::base::addr::PAGE_SIZE;
use crate::gc::collector::{Collector, Settings};
use crate::gc::events::{Event, EventSink};
use crate::gc::trace::{TraceSink, to_standard_error};
use crate::heap::mheap::{MHeap, Options};
use crate::sys::cgroup;
use crate::sys::mem::HUGE_PAGE;
use crate::sys::space::{self, Refused, Requested};
use crate::sys::thread;

/// The largest default reservation. It is address space only.
const DEFAULT_RESERVATION: usize = 256 << 30;
/// The smallest default reservation. A program that can do with less sets its own.
const MIN_DEFAULT: usize = 16 << 20;
/// The address space of a process, from which the builder computes how much is left: 47 bits on
/// x86-64 and on most other systems.
const ADDRESS_SPACE: u64 = 1 << 47;
/// A heap takes at most 1/`SHARE` of the address space that other heaps have left. So the first 250
/// heaps get 256 GiB each, the next 250 get half of that, and so on; heap number 2000 gets 2 GiB.
const SHARE: u64 = 256;
/// The address space that a new heap leaves to the rest of the process: the stack of its own
/// thread, the arenas of malloc (64 MiB a thread with glibc), and a reserve.
const TO_SPARE: u64 = 256 << 20;
/// The address space that a thread's stack may take.
const STACK: usize = 16 << 20;
/// The longest time without a cycle (Go's `forcegcperiod`).
const PERIOD: Duration = Duration::from_secs(120);
/// The smallest reservation.
const MIN_RESERVATION: usize = 2 << 20;
/// The largest: 2^26 pages.
const MAX_RESERVATION: usize = (1 << 26) * PAGE_SIZE;

/// Settings of a heap that is to be made.
///
/// A call here overrides the environment, which [`build`](Self::build) reads:
///
/// | variable | value | default |
/// |---|---|---|
/// | `GOGC` | growth in percent before the next cycle, or `off` | 100 |
/// | `GOMEMLIMIT` | bytes with or without a unit (`KiB`, `MiB`, `GiB`, `TiB`), `auto` ([`memory_limit_from_container`](HeapBuilder::memory_limit_from_container)), or `off` | off |
/// | `GOMAXPROCS` | the processors that the collector may use | all |
/// | `GREYWAVE` | comma list of `stress=1`, `verify=1`, `poison=1`, `hugepages=1`, `gcstoptheworld=1`, `gctrace=1`, `quiet=1` | none |
///
/// # Examples
/// ```
/// let heap = greywave::Heap::builder().gogc(Some(200)).reservation(1 << 30).build()?;
/// assert_eq!(heap.stats().reserved_bytes, 1 << 30);
/// # Ok::<(), greywave::ConfigError>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "nothing happens before `build`"]
pub struct HeapBuilder {
    gogc: Option<Option<u32>>,
    memory_limit: Option<u64>,
    reservation: Option<usize>,
    workers: Option<usize>,
    hard_limit: Option<u64>,
    period: Option<Duration>,
    stress: Option<bool>,
    verify: Option<bool>,
    poison: Option<bool>,
    huge_pages: Option<bool>,
    stop_the_world: Option<bool>,
    quiet: Option<bool>,
    sink: Option<EventSink>,
    trace: Option<TraceSink>,
}

impl fmt::Debug for HeapBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapBuilder")
            .field("gogc", &self.gogc)
            .field("memory_limit", &self.memory_limit)
            .field("reservation", &self.reservation)
            .field("workers", &self.workers)
            .field("hard_limit", &self.hard_limit)
            .field("period", &self.period)
            .field("stress", &self.stress)
            .field("verify", &self.verify)
            .field("poison", &self.poison)
            .field("huge_pages", &self.huge_pages)
            .field("stop_the_world", &self.stop_the_world)
            .field("quiet", &self.quiet)
            .finish_non_exhaustive()
    }
}

impl HeapBuilder {
    /// Sets the growth in percent: a cycle should end before the heap has grown by `percent` of
    /// what was live after the last cycle. `None` sets no such limit.
    ///
    /// A low value costs processor time, a high one costs memory. The default is 100: the heap may
    /// grow to twice what is live, and always to 4 MiB.
    pub fn gogc(mut self, percent: Option<u32>) -> Self {
        self.gogc = Some(percent);
        self
    }

    /// Sets a soft limit on the memory of the heap, in bytes. `u64::MAX` means no limit, which is
    /// the default.
    ///
    /// Near the limit cycles run more often, whatever `gogc` says.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Sets [`memory_limit`](Self::memory_limit) to nine tenths of the memory limit of the
    /// container that the process runs in (Linux cgroups, version 1 or 2). If the container has
    /// none, neither has the heap. The last tenth is for memory outside the heap.
    pub fn memory_limit_from_container(mut self) -> Self {
        self.memory_limit = Some(container_limit());
        self
    }

    /// Sets a hard limit on the pages that hold objects, in bytes, rounded up to whole pages of 8
    /// KiB. By default there is none.
    ///
    /// An allocation that would pass the limit fails as if the reservation were exhausted:
    /// `try_alloc` returns an error, and `alloc` ends the process with a message. The hard limit
    /// also serves as the soft limit, unless a lower one is set, so cycles run before the heap
    /// reaches it. No cycle can run inside an allocation. A caller that gets the error can reach a
    /// safepoint, or call [`collect`](crate::Mutator::collect), and try again.
    pub fn hard_limit(mut self, bytes: u64) -> Self {
        self.hard_limit = Some(bytes);
        self
    }

    /// Sets the longest time between cycles. When it is over a cycle begins, even if nothing was
    /// allocated. The default is 2 minutes.
    pub fn period(mut self, period: Duration) -> Self {
        self.period = Some(period);
        self
    }

    /// Sets the address space for objects, in bytes, from 2 MiB to 512 GiB, rounded up to 2 MiB. It
    /// is a hard limit on the heap.
    ///
    /// The default is 256 GiB. It is less if the process has many heaps (each takes at most a 256th
    /// of what is left), or if the process has a limit on its address space; the heap then takes at
    /// most half of what is left, and at least 16 MiB.
    ///
    /// Address space is not memory. Before objects need it, it is neither readable nor writable, is
    /// in no core dump, and counts for no limit but `RLIMIT_AS`. The heap commits it in steps of 1
    /// to 64 MiB.
    pub fn reservation(mut self, bytes: usize) -> Self {
        self.reservation = Some(bytes);
        self
    }

    /// Sets how many processors the collector may use, at least 1. By default it may use all that
    /// the process may use.
    pub fn workers(mut self, processors: usize) -> Self {
        self.workers = Some(processors);
        self
    }

    /// Runs a whole cycle at every safepoint, and requests one at every slow allocation. This is
    /// for tests; it is very slow.
    pub fn stress(mut self, on: bool) -> Self {
        self.stress = Some(on);
        self
    }

    /// After each marking, marks again in a simple way and compares. If an object was missed, the
    /// process ends with a report.
    pub fn verify(mut self, on: bool) -> Self {
        self.verify = Some(on);
        self
    }

    /// Fills freed slots with `0xDB`.
    pub fn poison(mut self, on: bool) -> Self {
        self.poison = Some(on);
        self
    }

    /// Asks the OS for huge pages behind large heaps (Linux: `madvise`). The default is not to ask.
    ///
    /// Huge pages make marking a heap of some hundred MiB up to a tenth faster. But the first
    /// allocation that touches a huge page can take milliseconds, because the kernel clears 2 MiB
    /// and may compact memory first.
    pub fn huge_pages(mut self, on: bool) -> Self {
        self.huge_pages = Some(on);
        self
    }

    /// Marks while the world is stopped. This tells whether a bug comes from concurrent marking.
    pub fn stop_the_world(mut self, on: bool) -> Self {
        self.stop_the_world = Some(on);
        self
    }

    /// Writes no warnings to standard error.
    ///
    /// By default the heap writes a line there when a thread has delayed the collector for 1 s, or
    /// when something else goes wrong that no returned error can report; it repeats the line after
    /// 2, 4, 8 .. s. If [`on_event`](Self::on_event) is set, its sink gets the events, and the heap
    /// writes no line.
    ///
    /// # Examples
    /// ```
    /// let heap = greywave::Heap::builder().quiet(true).build()?;
    /// # Ok::<(), greywave::ConfigError>(())
    /// ```
    pub fn quiet(mut self, on: bool) -> Self {
        self.quiet = Some(on);
        self
    }

    /// Calls `sink` with each [`Event`], on the collector's thread. `sink` must not wait for a
    /// mutator of this heap.
    ///
    /// # Examples
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use std::sync::Arc;
    ///
    /// let cycles = Arc::new(AtomicU64::new(0));
    /// let seen = cycles.clone();
    /// let heap = greywave::Heap::builder()
    ///     .on_event(move |event| {
    ///         if let greywave::Event::CycleEnd { cycle, .. } = event {
    ///             seen.store(*cycle, Ordering::Relaxed);
    ///         }
    ///     })
    ///     .build()?;
    /// heap.collect();
    /// assert!(cycles.load(Ordering::Relaxed) >= 1);
    /// # Ok::<(), greywave::ConfigError>(())
    /// ```
    pub fn on_event(mut self, sink: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.sink = Some(Arc::new(sink));
        self
    }

    /// Calls `sink` with a line of text for each cycle (without a line feed), on the collector's
    /// thread, whatever `GREYWAVE` says. It is the line that `gctrace=1` writes to standard error:
    ///
    /// ```text
    /// gc 7 @1.234s 2%: 0.021+4.2+0.010 ms clock, 0.042+0.13/2.1/0.000+0.019 ms cpu, 41->42->20 MB, 44 MB goal, 0 MB external, 2 P
    /// ```
    ///
    /// The fields are: the number of the cycle; the age of the heap; the share of all processors
    /// that marking has taken since then; the wall time of the first stop, of concurrent marking
    /// and of the other stops; the processor time of the first stop, of assists / background
    /// workers / workers on idle processors, and of the other stops; the heap when marking began,
    /// when it ended, and what was marked; the goal (`-` if there is none); the bytes that objects
    /// own outside the heap; the processors; and `(forced)` if a program requested the cycle.
    pub fn trace_to(mut self, sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.trace = Some(Arc::new(sink));
        self
    }

    /// Makes the heap.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting or a variable cannot be read, if there is not enough address
    /// space, or if the OS refuses the collector's thread.
    pub fn build(self) -> Result<Heap, ConfigError> {
        self.build_with(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    /// Does what [`build`](Self::build) does, with an environment that the caller supplies.
    pub(crate) fn build_with(
        self,
        var: impl Fn(&str) -> Option<String>,
    ) -> Result<Heap, ConfigError> {
        let debug = match var("GREYWAVE") {
            Some(list) => Debug::read(&list)?,
            None => Debug::default(),
        };
        let processors = match self.workers {
            Some(0) => {
                return Err(ConfigError::unreadable(
                    "workers",
                    "0",
                    "1 or more processors",
                ));
            }
            Some(n) => n,
            None => read(&var, "GOMAXPROCS", PROCESSORS_ALLOWED, processors_from)?
                .unwrap_or_else(thread::processors),
        };
        let gogc = match self.gogc {
            Some(gogc) => gogc,
            None => read(
                &var,
                "GOGC",
                "a number from 0 to 4294967295, or off",
                gogc_from,
            )?
            .unwrap_or(Some(100)),
        };
        let limit_allowed = "bytes, such as 1073741824, 512MiB or 2GiB, auto, or off";
        let memory_limit = match self.memory_limit {
            Some(limit) => limit,
            None => read(&var, "GOMEMLIMIT", limit_allowed, bytes_from)?.unwrap_or(u64::MAX),
        };
        let hard_limit = self.hard_limit.unwrap_or(u64::MAX);
        let settings = Settings {
            gogc,
            memory_limit: memory_limit.min(hard_limit),
            processors,
            period: self.period.unwrap_or(PERIOD),
            stress: self.stress.unwrap_or(debug.stress),
            verify: self.verify.unwrap_or(debug.verify),
            stop_the_world: self.stop_the_world.unwrap_or(debug.stop_the_world),
            quiet: self.quiet.unwrap_or(debug.quiet),
            sink: self.sink,
            trace: self.trace.or_else(|| debug.gctrace.then(to_standard_error)),
        };
        let options = Options {
            poison: self.poison.unwrap_or(debug.poison),
            huge_pages: self.huge_pages.unwrap_or(debug.huge_pages),
            hard_limit,
        };
        let heap = reserve(self.reservation, options)?;
        let collector = Collector::new(heap, settings);
        collector.start().map_err(|e| {
            let message = "the collector's thread cannot be started";
            // The system says "try again" whatever resource it lacks.
            match space::is_left(STACK) {
                Ok(()) => ConfigError::refused(message.to_owned(), e),
                Err(none) => {
                    ConfigError::refused(format!("{message}, for want of a stack: {none}"), e)
                }
            }
        })?;
        Ok(Heap::from_collector(collector))
    }
}

fn reserve(asked: Option<usize>, options: Options) -> Result<MHeap, ConfigError> {
    if let Some(bytes) = asked {
        if !(MIN_RESERVATION..=MAX_RESERVATION).contains(&bytes) {
            let allowed = format!("{MIN_RESERVATION} to {MAX_RESERVATION} bytes");
            return Err(ConfigError::unreadable(
                "reservation",
                &bytes.to_string(),
                &allowed,
            ));
        }
        let bytes = bytes.next_multiple_of(HUGE_PAGE);
        return reserve_and_spare(bytes, 0, options)
            .map_err(|e| refused(format!("a reservation of {bytes} bytes"), e));
    }
    let largest = default_reservation(space::reserved());
    let mut bytes = largest;
    loop {
        // A heap that cannot have the size it wanted takes at most half of what is left, because
        // the rest of the process will want some.
        let beside = if bytes < largest { bytes as u64 } else { 0 };
        match reserve_and_spare(bytes, beside, options) {
            Ok(heap) => return Ok(heap),
            Err(e) if e.requested == Requested::Memory || bytes / 2 < MIN_DEFAULT => {
                let what = format!("no reservation from {largest} down to {bytes} bytes");
                return Err(refused(what, e));
            }
            Err(_) => bytes /= 2,
        }
    }
}

/// The default reservation of a heap, if other heaps have `taken` bytes.
fn default_reservation(taken: u64) -> usize {
    let share = ADDRESS_SPACE.saturating_sub(taken) / SHARE;
    let power = share.checked_ilog2().map_or(0, |bits| 1_u64 << bits);
    (power as usize).clamp(MIN_DEFAULT, DEFAULT_RESERVATION)
}

/// Makes a heap of `bytes`, if the process keeps `beside` bytes of address space, and enough for
/// its other needs.
fn reserve_and_spare(bytes: usize, beside: u64, options: Options) -> Result<MHeap, Refused> {
    let heap = MHeap::new(bytes, options)?;
    // If the process has a tight limit, the reserve is a quarter of that limit.
    let to_spare = space::address_limit().map_or(TO_SPARE, |limit| TO_SPARE.min(limit / 4));
    space::is_left(to_spare.max(beside) as usize)?;
    Ok(heap)
}

fn refused(what: String, refused: Refused) -> ConfigError {
    let message = match refused.requested {
        Requested::Space => format!(
            "{what} of address space cannot be had with some to spare for the rest of the process: {refused}"
        ),
        Requested::Memory | Requested::Mapping => format!("{what} can be used: {refused}"),
    };
    ConfigError::refused(message, refused.why)
}

fn read<T>(
    var: impl Fn(&str) -> Option<String>,
    name: &str,
    allowed: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ConfigError> {
    match var(name) {
        None => Ok(None),
        Some(value) => match parse(value.trim()) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(ConfigError::unreadable(name, &value, allowed)),
        },
    }
}

const PROCESSORS_ALLOWED: &str = "a number from 1 to 4096";

fn gogc_from(value: &str) -> Option<Option<u32>> {
    if value == "off" {
        Some(None)
    } else {
        value.parse().ok().map(Some)
    }
}

/// How often the scheduler writes its trace line, and where to.
#[cfg(feature = "sched")]
pub(crate) fn scheduler_trace_from_environment()
-> Result<Option<(Duration, TraceSink)>, ConfigError> {
    let Some(list) = std::env::var_os("GREYWAVE") else {
        return Ok(None);
    };
    let every = Debug::read(&list.to_string_lossy())?.schedtrace;
    let every = Duration::from_millis(u64::from(every));
    Ok((!every.is_zero()).then(|| (every, to_standard_error())))
}

/// The value of `GOMAXPROCS`.
#[cfg(feature = "sched")]
pub(crate) fn processors_from_environment() -> Result<Option<usize>, ConfigError> {
    let var = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
    read(var, "GOMAXPROCS", PROCESSORS_ALLOWED, processors_from)
}

fn processors_from(value: &str) -> Option<usize> {
    value.parse().ok().filter(|n| (1..=4096).contains(n))
}

/// Nine tenths of the container's limit, or `u64::MAX` if the container has none.
fn container_limit() -> u64 {
    cgroup::memory_limit().map_or(u64::MAX, |limit| limit / 10 * 9)
}

fn bytes_from(value: &str) -> Option<u64> {
    match value {
        "off" => return Some(u64::MAX),
        "auto" => return Some(container_limit()),
        _ => {}
    }
    let units = [
        ("TiB", 40),
        ("GiB", 30),
        ("MiB", 20),
        ("KiB", 10),
        ("B", 0),
        ("", 0),
    ];
    let (number, shift) = units
        .iter()
        .find_map(|&(unit, shift)| value.strip_suffix(unit).map(|n| (n, shift)))?;
    let number: u64 = number.parse().ok()?;
    number.checked_mul(1 << shift)
}

/// The switches of `GREYWAVE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Debug {
    stress: bool,
    verify: bool,
    poison: bool,
    huge_pages: bool,
    stop_the_world: bool,
    gctrace: bool,
    quiet: bool,
    /// The scheduler writes a line each time so many milliseconds have passed; 0 means never.
    schedtrace: u32,
}

impl Debug {
    fn read(list: &str) -> Result<Self, ConfigError> {
        const ALLOWED: &str = "a comma list of stress, verify, poison, hugepages, gcstoptheworld, gctrace, quiet, each =0 or =1, and schedtrace=MILLISECONDS";
        let mut debug = Self::default();
        for item in list.split(',').map(str::trim).filter(|i| !i.is_empty()) {
            let refused = || ConfigError::unreadable("GREYWAVE", item, ALLOWED);
            let (name, value) = item.split_once('=').ok_or_else(refused)?;
            if name == "schedtrace" {
                debug.schedtrace = value.parse().map_err(|_| refused())?;
                continue;
            }
            let on = match value {
                "0" => false,
                "1" => true,
                _ => return Err(refused()),
            };
            match name {
                "stress" => debug.stress = on,
                "verify" => debug.verify = on,
                "poison" => debug.poison = on,
                "hugepages" => debug.huge_pages = on,
                "gctrace" => debug.gctrace = on,
                "quiet" => debug.quiet = on,
                "gcstoptheworld" => debug.stop_the_world = on,
                _ => return Err(refused()),
            }
        }
        Ok(debug)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn build(name: &str, value: &str) -> Result<Heap, ConfigError> {
        Heap::builder()
            .reservation(8 << 20)
            .build_with(|n| (n == name).then(|| value.to_owned()))
    }

    #[test]
    fn unreadable_variables_name_themselves_their_value_and_what_is_allowed() {
        for (name, value, part) in [
            ("GOGC", "many", "off"),
            ("GOGC", "-1", "number"),
            ("GOMEMLIMIT", "2 bananas", "MiB"),
            ("GOMEMLIMIT", "99999999999TiB", "MiB"),
            ("GOMAXPROCS", "0", "1 to 4096"),
            ("GREYWAVE", "stress=2", "=0 or =1"),
            ("GREYWAVE", "strss=1", "stress"),
            ("GREYWAVE", "verify", "verify"),
        ] {
            let message = build(name, value)
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default();
            assert!(
                message.contains(name) && message.contains(part),
                "{name}={value}: {message:?}"
            );
            let shown = value.split(',').next().unwrap_or_default();
            assert!(message.contains(shown), "{name}={value}: {message:?}");
        }
    }

    #[test]
    fn readable_variables_take_effect_and_a_call_wins() {
        let heap = build("GOGC", "off").expect("readable");
        assert_eq!(heap.set_gogc(Some(50)), None);
        let heap = build("GOMEMLIMIT", "64MiB").expect("readable");
        assert_eq!(heap.set_memory_limit(5), 64 << 20);
        let heap = Heap::builder()
            .gogc(Some(7))
            .reservation(8 << 20)
            .build_with(|n| (n == "GOGC").then(|| "nonsense".into()));
        assert_eq!(heap.expect("not read").set_gogc(None), Some(7));
    }

    #[test]
    fn the_more_heaps_there_are_the_less_a_new_one_reserves() {
        let mut taken = 0;
        let sizes: Vec<usize> = (0..2500)
            .map(|_| {
                let bytes = default_reservation(taken);
                // The heap's tables take another 28th.
                taken += bytes as u64 + bytes as u64 / 28;
                bytes
            })
            .collect();
        assert!(taken < ADDRESS_SPACE, "all of them fit");
        assert!(sizes.is_sorted_by(|a, b| a >= b));
        assert_eq!(sizes[..200], [DEFAULT_RESERVATION; 200]);
        assert!(sizes[2000] >= 1 << 30, "{}", sizes[2000]);
        assert_eq!(default_reservation(u64::MAX), MIN_DEFAULT);
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(bytes_from("123"), Some(123));
        assert_eq!(bytes_from("123B"), Some(123));
        assert_eq!(bytes_from("4KiB"), Some(4096));
        assert_eq!(bytes_from("2TiB"), Some(2 << 40));
        assert_eq!(bytes_from("off"), Some(u64::MAX));
        assert_eq!(bytes_from("4KB"), None);
        assert_eq!(bytes_from("GiB"), None);
    }

    #[test]
    fn reservations_out_of_range_are_refused_with_the_range() {
        for bytes in [0, 4096, usize::MAX] {
            let message = Heap::builder()
                .reservation(bytes)
                .build()
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default();
            assert!(
                message.contains(&bytes.to_string()) && message.contains("549755813888"),
                "{message:?}"
            );
        }
    }
}
