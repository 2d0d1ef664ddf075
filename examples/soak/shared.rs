//! What all parties share: the heap, the board, the clock, and the errors so far.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use greywave::{GcCell, GcLock, Heap, Root};

use crate::objects::{Board, LEDGER, locked};

/// Who does something; each must get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Threads,
    Gs,
    Channels,
    Rounds,
    Heaps,
    Changes,
    Verified,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Threads,
        Self::Gs,
        Self::Channels,
        Self::Rounds,
        Self::Heaps,
        Self::Changes,
        Self::Verified,
    ];

    /// What is counted.
    fn name(self) -> &'static str {
        match self {
            Self::Threads => "steps of threads",
            Self::Gs => "steps of Gs",
            Self::Channels => "items through channels",
            Self::Rounds => "runtimes",
            Self::Heaps => "other heaps",
            Self::Changes => "changes of limits",
            Self::Verified => "verifications",
        }
    }
}

/// How often each kind has done something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally([u64; Kind::ALL.len()]);

impl Tally {
    /// A kind that has done nothing since `before`.
    pub(crate) fn stuck_since(&self, before: &Self) -> Option<&'static str> {
        let counts = self.0.iter().zip(&before.0);
        let mut kinds = Kind::ALL.iter().zip(counts);
        kinds
            .find(|(_, (now, before))| now == before)
            .map(|(kind, _)| kind.name())
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] - before.0[at]))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, count)) in Kind::ALL.iter().zip(self.0).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {}", kind.name())?;
        }
        Ok(())
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) heap: Heap,
    pub(crate) seed: u64,
    pub(crate) board: Root<Board<'static>>,
    end: Instant,
    stop: AtomicBool,
    wrong: Mutex<Option<String>>,
    next_id: AtomicU64,
    next_party: AtomicU64,
    counts: [AtomicU64; Kind::ALL.len()],
}

impl Shared {
    /// For so long, with an empty board on the heap.
    pub(crate) fn new(
        heap: &Heap,
        seed: u64,
        time: Duration,
    ) -> Result<Self, greywave::AttachError> {
        let m = heap.attach()?;
        let shown = m.alloc_slice(200, |_| GcCell::null());
        let index = GcLock::default();
        Ok(Self {
            heap: heap.clone(),
            seed,
            board: m.root(m.alloc(Board { shown, index })),
            end: Instant::now() + time,
            stop: AtomicBool::new(false),
            wrong: Mutex::new(None),
            next_id: AtomicU64::new(1),
            next_party: AtomicU64::new(1),
            counts: Default::default(),
        })
    }

    pub(crate) fn new_id(&self) -> u64 {
        // Relaxed: numbers only.
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn new_party(&self) -> u64 {
        // Relaxed: numbers only.
        self.next_party.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn count(&self, kind: Kind, times: u64) {
        // Relaxed: figures.
        self.counts[kind as usize].fetch_add(times, Ordering::Relaxed);
    }

    pub(crate) fn tally(&self) -> Tally {
        // Relaxed: figures.
        Tally(std::array::from_fn(|at| {
            self.counts[at].load(Ordering::Relaxed)
        }))
    }

    pub(crate) fn is_over(&self) -> bool {
        // Relaxed: a flag, and nothing with it.
        self.stop.load(Ordering::Relaxed) || Instant::now() >= self.end
    }

    /// Sleeps, at most until it is over.
    pub(crate) fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_over() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20).min(time));
        }
    }

    /// Ends everything; the first error is kept.
    pub(crate) fn fail(&self, what: String) {
        locked(&self.wrong).get_or_insert(what);
        // Relaxed: as in `is_over`.
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The first error of anybody.
    pub(crate) fn wrong(&self) -> Option<String> {
        locked(&self.wrong).clone().or_else(|| LEDGER.wrong())
    }
}
