//! Four programs that allocate faster than a collector frees, and the bounds that they must still
//! keep:
//!
//! - `external`: objects own ten times their size outside the heap; the objects are replaced, and
//!   what they own is replaced in place;
//! - `garbage`: 2 to 16 threads allocate at full speed, and nothing stays alive;
//! - `neighbour`: one such thread runs beside one that reaches a safepoint only each 300 ms;
//! - `limits`: 4 threads keep half of a memory limit, or of a hard limit, alive.
//!
//! The rule: a heap ends each cycle at 1.10 of its goal at most (1.30 if it counts bytes outside
//! the heap), plus 512 KiB for each running thread, which is what that thread allocates between two
//! safepoints and keeps in its caches. The heap passes a memory limit by at most 16 MiB, and its
//! objects never pass a hard limit. No allocation fails while there is garbage. Nothing here looks
//! at a clock: the bounds are in bytes.

use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use greywave::{Event, Frame, Gc, GcLock, Heap, HeapBuilder, Mutator, Root, Trace};

use super::Outcome;
use super::common::report::Bytes;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// What a running thread may add to a bound.
const PER_THREAD: u64 = 512 * KIB;
/// How far above a limit the memory of the heap may get.
const SLACK: u64 = 16 * MIB;

/// What the most was, and what it is held against.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    what: String,
    /// The largest excess there was: the size, ..
    pub(crate) peak: u64,
    /// .. the goal or the limit at that time, ..
    pub(crate) of: u64,
    /// .. and the most that is allowed then.
    allowed: u64,
    /// The largest goal there was.
    pub(crate) goal: u64,
    pub(crate) cycles: u64,
    /// Allocations that failed.
    pub(crate) refused: u64,
}

impl Verdict {
    pub(crate) fn is_ok(&self) -> bool {
        self.peak <= self.allowed && self.refused == 0 && self.cycles > 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: peak {} of {}, ratio {:.3}, allowed {}; {} cycles, goals up to {}, {} allocations failed: {}",
            self.what,
            Bytes(self.peak),
            Bytes(self.of),
            self.peak as f64 / self.of as f64,
            Bytes(self.allowed),
            self.cycles,
            Bytes(self.goal),
            self.refused,
            if self.is_ok() { "ok" } else { "over" },
        )
    }
}

/// What a bound is a part of.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// So many percent of the goal, and what the threads add.
    Goal(u64),
    /// A limit, for the memory that the heap has from the system.
    Limit(u64),
    /// A limit, for the pages of objects.
    Hard(u64),
}

/// Holds what is seen of a heap against a bound.
#[derive(Debug)]
struct Gauge {
    bound: Bound,
    threads: u64,
    /// The largest excess: a size, and the goal or limit then.
    worst: Mutex<Option<(u64, u64)>>,
    goal: AtomicU64,
    cycles: AtomicU64,
    refused: AtomicU64,
}

impl Gauge {
    /// A heap whose cycles are held against `bound`.
    fn heap(
        bound: Bound,
        threads: u64,
        builder: HeapBuilder,
    ) -> Result<(Heap, Arc<Self>), greywave::ConfigError> {
        let gauge = Arc::new(Self {
            bound,
            threads,
            worst: Mutex::new(None),
            goal: AtomicU64::new(0),
            cycles: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let sink = gauge.clone();
        let heap = builder
            .on_event(move |event| {
                if let Event::CycleEnd {
                    peak_bytes,
                    goal_bytes,
                    ..
                } = event
                {
                    // Relaxed (here and below): figures, read when the threads have ended.
                    sink.cycles.fetch_add(1, Ordering::Relaxed);
                    sink.goal.fetch_max(*goal_bytes, Ordering::Relaxed);
                    if let Bound::Goal(_) = sink.bound {
                        sink.note(*peak_bytes, *goal_bytes);
                    }
                }
            })
            .build()?;
        Ok((heap, gauge))
    }

    fn allowed(&self, of: u64) -> u64 {
        match self.bound {
            Bound::Goal(percent) => of * percent / 100 + self.threads * PER_THREAD,
            Bound::Limit(limit) => limit + SLACK,
            Bound::Hard(limit) => limit,
        }
    }

    fn note(&self, size: u64, of: u64) {
        let excess = |(size, of): (u64, u64)| i128::from(size) - i128::from(self.allowed(of));
        let mut worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        if worst.is_none_or(|before| excess((size, of)) > excess(before)) {
            *worst = Some((size, of));
        }
    }

    /// Looks at the heap, between two cycles too.
    fn look(&self, heap: &Heap) {
        let stats = heap.stats();
        match self.bound {
            Bound::Goal(_) => {
                // The goal falls when a cycle has found much dead; what is held falls with the
                // sweep.
                let goal = self.goal.fetch_max(stats.goal_bytes, Ordering::Relaxed);
                let size = stats.heap_bytes.max(stats.external_bytes);
                self.note(size, goal.max(stats.goal_bytes));
            }
            Bound::Limit(limit) => {
                let given_back = stats.released_bytes;
                let mapped = stats.mapped_bytes.saturating_sub(given_back);
                self.note(mapped + stats.metadata_bytes, limit);
            }
            Bound::Hard(limit) => self.note(stats.span_bytes, limit),
        }
    }

    fn verdict(&self, what: String) -> Verdict {
        let worst = *self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        let (peak, of) = worst.unwrap_or((0, 1));
        Verdict {
            what,
            peak,
            of,
            allowed: self.allowed(of),
            goal: self.goal.load(Ordering::Relaxed),
            cycles: self.cycles.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// How much a program does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    /// Bytes to allocate in all.
    pub(crate) bytes: u64,
    /// Safepoints of the neighbour that is late.
    pub(crate) polls: u64,
}

pub(crate) type Program = fn(Amount) -> Outcome<Vec<Verdict>>;

pub(crate) const PROGRAMS: [(&str, Program); 4] = [
    ("external", external),
    ("garbage", garbage),
    ("neighbour", neighbour),
    ("limits", limits),
];

// ---- external bytes ----------------------------------------------------------------------------

/// Some 30 bytes in the heap, 240 outside.
#[derive(Trace)]
struct Owner {
    words: GcLock<Vec<u64>>,
}

const OWNERS: u64 = 20_000;
const OWNED: u64 = 240;

fn words(number: u64) -> Vec<u64> {
    vec![number; OWNED as usize / 8]
}

/// One thread replaces objects that own memory, and the memory of others in place.
fn external(amount: Amount) -> Outcome<Vec<Verdict>> {
    let (heap, gauge) = Gauge::heap(Bound::Goal(130), 1, Heap::builder().gogc(Some(100)))?;
    let mut m = heap.attach()?;
    let mut owners: Frame<Vec<Gc<'static, Owner>>> = Frame::new(&m, Vec::new());
    for number in 0..amount.bytes / OWNED {
        {
            let mut owners = owners.enter(&m);
            let at = number % OWNERS;
            if number >= OWNERS && number % 2 == 0 {
                *owners[at as usize].words.write(&m) = words(number);
            } else {
                let words = GcLock::new(words(number));
                let owner = m.alloc(Owner { words });
                match owners.get_mut(at as usize) {
                    Some(place) => *place = owner,
                    None => owners.push(owner),
                }
            }
        }
        if number % 64 == 0 {
            gauge.look(&heap);
            m.safepoint();
        }
    }
    drop(owners);
    Ok(vec![gauge.verdict("external".to_owned())])
}

// ---- garbage -----------------------------------------------------------------------------------

/// Allocations between two safepoints, ..
const BATCH: u64 = 200;
/// .. and the size of each.
const OBJECT: u64 = 48;

/// Allocates garbage until `allocate` bytes are through, or `is_over` says so.
fn make_garbage(m: &mut Mutator, gauge: &Gauge, allocate: u64, is_over: impl Fn() -> bool) {
    for round in 0..allocate / (BATCH * OBJECT) {
        for number in 0..BATCH {
            let got = m.try_alloc([number; OBJECT as usize / 8]);
            if black_box(got).is_err() {
                gauge.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Where the heap is largest. Not each time: it costs more than the allocations.
        if round % 8 == 0 {
            gauge.look(m.heap());
        }
        m.safepoint();
        if is_over() {
            return;
        }
    }
}

/// Runs `threads` threads of garbage that allocate `bytes` in all.
fn garbage_on(heap: &Heap, gauge: &Gauge, threads: u64, bytes: u64) -> Outcome {
    thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Outcome {
                    let mut m = heap.attach()?;
                    make_garbage(&mut m, gauge, bytes / threads, || false);
                    Ok(())
                })
            })
            .collect();
        let mut ended = started.into_iter().map(|thread| thread.join());
        ended.try_for_each(|end| end.map_err(|_| "a thread panicked")?)
    })
}

fn garbage(amount: Amount) -> Outcome<Vec<Verdict>> {
    let on = |threads: u64| {
        let builder = Heap::builder().gogc(Some(100));
        let (heap, gauge) = Gauge::heap(Bound::Goal(110), threads, builder)?;
        garbage_on(&heap, &gauge, threads, amount.bytes)?;
        Ok(gauge.verdict(format!("garbage, {threads} threads")))
    };
    [2, 4, 8, 16].into_iter().map(on).collect()
}

// ---- a neighbour that is late ------------------------------------------------------------------

/// How rarely the neighbour comes to a safepoint.
const LATE: Duration = Duration::from_millis(300);

fn neighbour(amount: Amount) -> Outcome<Vec<Verdict>> {
    let builder = Heap::builder().gogc(Some(100));
    let (heap, gauge) = Gauge::heap(Bound::Goal(110), 2, builder)?;
    // Both attach before either begins; the neighbour does nothing but to be late.
    let mut m = heap.attach()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let neighbour = scope.spawn(|| -> Outcome {
            let mut m = heap.attach()?;
            for _ in 0..amount.polls {
                thread::sleep(LATE);
                m.safepoint();
            }
            is_over.store(true, Ordering::Relaxed);
            Ok(())
        });
        make_garbage(&mut m, &gauge, u64::MAX, || {
            is_over.load(Ordering::Relaxed) || neighbour.is_finished()
        });
        drop(m);
        neighbour.join().map_err(|_| "a thread panicked")?
    })?;
    Ok(vec![gauge.verdict("neighbour".to_owned())])
}

// ---- limits ------------------------------------------------------------------------------------

const LIMIT: u64 = 64 * MIB;
const LIMITED_THREADS: u64 = 4;

/// Words that live: a half of the limit.
fn keep(m: &Mutator) -> Root<[u64]> {
    m.root(m.alloc_slice(LIMIT as usize / 2 / 8, |number| number as u64))
}

fn limits(amount: Amount) -> Outcome<Vec<Verdict>> {
    let under = |what: &str, bound, builder: HeapBuilder| -> Outcome<Verdict> {
        let (heap, gauge) = Gauge::heap(bound, LIMITED_THREADS, builder)?;
        let kept = keep(&heap.attach()?);
        garbage_on(&heap, &gauge, LIMITED_THREADS, amount.bytes)?;
        let m = heap.attach()?;
        let is_whole = (0..)
            .zip(kept.get(&m).iter())
            .all(|(number, &word)| number == word);
        if !is_whole {
            return Err("what lives has changed".into());
        }
        drop((m, kept));
        Ok(gauge.verdict(format!("{what}, {LIMITED_THREADS} threads")))
    };
    let (any, hard) = (Heap::builder, || Heap::builder().hard_limit(LIMIT));
    Ok(vec![
        under(
            "memory limit",
            Bound::Limit(LIMIT),
            any().gogc(None).memory_limit(LIMIT),
        )?,
        under(
            "hard limit, GOGC off",
            Bound::Hard(LIMIT),
            hard().gogc(None),
        )?,
        under("hard limit, memory", Bound::Limit(LIMIT), hard().gogc(None))?,
        under(
            "hard limit, GOGC 100",
            Bound::Hard(LIMIT),
            hard().gogc(Some(100)),
        )?,
    ])
}
