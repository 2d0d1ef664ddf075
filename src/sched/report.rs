//! Who is there, what they wait for, and whether anybody can end that wait.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::gc::late::{Task, Tasks};
use crate::sched::shared::Shared;
use crate::sched::sysmon::SURE_AFTER;
use crate::sched::task::GRef;
use crate::sys::sync::Ordering;
use crate::sys::thread;

/// What a G does, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GInfo {
    /// The name given to [`go_named`](crate::go_named).
    pub name: Option<String>,
    /// Where it was spawned.
    pub spawned_at: &'static Location<'static>,
    /// How long ago that was; exact to a millisecond.
    pub age: Duration,
    /// What it does: "running", "runnable", or what it waits for.
    pub state: String,
}

impl fmt::Display for GInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("a G");
        write!(
            f,
            "{name}, spawned at {}, {:?} old: {}",
            self.spawned_at, self.age, self.state
        )
    }
}

/// Every G waits, and nothing can wake them.
///
/// The error of [`Runtime::block_on`](crate::Runtime::block_on).
#[derive(Clone, Debug)]
pub struct Deadlock {
    gs: Vec<GInfo>,
}

impl Deadlock {
    /// The Gs that wait.
    #[must_use]
    pub fn gs(&self) -> &[GInfo] {
        &self.gs
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 32;
        write!(f, "deadlock: all {} Gs wait for each other", self.gs.len())?;
        for g in self.gs.iter().take(SHOWN) {
            write!(f, "\n  {g}")?;
        }
        if self.gs.len() > SHOWN {
            write!(f, "\n  and {} more", self.gs.len() - SHOWN)?;
        }
        Ok(())
    }
}

impl std::error::Error for Deadlock {}

/// When a runtime looks for deadlocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadlockPolicy {
    /// When every other thread of the process waits for a lock or a condition, and none of them has run for 10 ms (Linux):
    /// one that sleeps, or waits for input, may be about to wake a G. Never on other systems.
    #[default]
    Auto,
    /// Always: no thread outside the runtime wakes a G.
    Always,
    /// Never.
    Never,
}

impl Tasks for Shared {
    fn describe(self: Arc<Self>, task: usize) -> Option<Task> {
        let found = self.registry.find(task, |g| Task {
            name: g.name.as_ref().map(ToString::to_string),
            spawned_at: g.spawned_at,
        });
        // Its last reference must not go on the collector's thread, which its mutators wait for as they leave the heap.
        if let Some(last) = Arc::into_inner(self) {
            let _ = thread::spawn("greywave-end".to_owned(), move || drop(last));
        }
        found
    }
}

impl Shared {
    fn info(&self, g: &GRef) -> GInfo {
        let header = g.header();
        let now = self.age_ms();
        let state = if header.state.is_waiting() {
            match header.waits_on() {
                Some(on) => format!("waits for {} ({on:#x})", header.wait_reason()),
                None => format!("waits for {}", header.wait_reason()),
            }
        } else if header.state.is_running() {
            "running".to_owned()
        } else {
            "runnable".to_owned()
        };
        GInfo {
            name: header.name.as_ref().map(ToString::to_string),
            spawned_at: header.spawned_at,
            age: Duration::from_millis(u64::from(now.wrapping_sub(header.born_ms))),
            state,
        }
    }

    /// All Gs that have not ended.
    pub(crate) fn dump(&self) -> Vec<GInfo> {
        self.registry.all().iter().map(|g| self.info(g)).collect()
    }

    /// Looks whether all Gs wait for each other, and tells those in `block_on`. Everybody is asleep. True if it may be
    /// so later: the threads outside have to be looked at again.
    pub(crate) fn report_deadlock(self: &Arc<Self>) -> bool {
        if self.deadlocks == DeadlockPolicy::Never || self.mains.lock().is_empty() {
            return false;
        }
        // Relaxed: a counter.
        let events = self.events.load(Ordering::Relaxed);
        if self.driver.has_timers() || self.driver.io_waiters() > 0 {
            return false;
        }
        let gs = self.registry.all();
        let is_stuck = |g: &GRef| {
            let header = g.header();
            // Each wait of ours holds one waker. One more is a stranger's. One reference is this report's.
            header.state.is_waiting()
                && header.wait_reason().needs_a_g()
                && header.state.wakers() <= header.waits() + 1
        };
        if gs.is_empty() || !gs.iter().all(is_stuck) {
            return false;
        }
        if self.deadlocks == DeadlockPolicy::Auto && !thread::others_sleep_on_locks(SURE_AFTER) {
            return true;
        }
        // Relaxed: as above.
        if self.events.load(Ordering::Relaxed) != events {
            return true;
        }
        let report = Deadlock {
            gs: gs.iter().map(|g| self.info(g)).collect(),
        };
        drop(gs);
        let mains: Vec<_> = self.mains.lock().clone();
        for main in mains {
            main.tell(report.clone());
        }
        false
    }
}
