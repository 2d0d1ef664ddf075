//! Who is there, what they wait for, and whether anybody can end that wait.
//!
//! **When a G is stuck.** A G that waits is woken by a waker of its, and by nothing else. Each waker is either in a line of this
//! crate's, which another G would have to serve, or in a stranger's hands, which may use it. The G's state counts both
//! (`task/state.rs`). So a G is stuck when no stranger has a waker of its, and each G is. A stranger is whoever is no line:
//! another executor, a combinator that has made wakers of its own out of the G's, a timer or socket of whichever runtime.
//!
//! **What is told.**
//! - To nobody who is not stuck: who is in `block_on` is told if its G is one of those that were looked at.
//! - Nothing that is no longer so: nothing has happened from before the first look until after the last
//!   ([`Watch`](crate::sched::watch::Watch)).
//! - In the end: a look that finds a reason to wait comes again by itself ([`Look::Again`]), unless the end of the reason is an
//!   event ([`Look::Over`]). Of timers and sockets of this runtime that is so (`driver.rs`); what a stranger does is none.

use std::collections::HashSet;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::gc::late::{Task, Tasks};
use crate::sched::shared::Shared;
use crate::sched::sysmon::SURE_AFTER;
use crate::sched::task::GRef;
use crate::sched::wait::WaitReason;
use crate::sys::sabotage::{self, Fault};
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
    /// What it does: "running", "in a blocking call", "runnable", or what it waits for.
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
    /// When every other thread of the process waits for a lock or a condition without a time limit, and none of them has run
    /// for 10 ms (Linux): one that sleeps, waits for input, or waits with a limit, may be about to wake a G. That goes for
    /// threads in [`blocking`](crate::blocking) calls as well. Never on other systems. The harness of `cargo test` waits with a
    /// limit of a minute on its first thread, so a test that expects a report says [`Always`](Self::Always).
    #[default]
    Auto,
    /// Always: no thread outside the runtime wakes a G. Gs in [`blocking`](crate::blocking) calls count as waiting when other
    /// Gs wait for a thread ([`max_threads`](crate::RuntimeBuilder::max_threads)) and every call sleeps on a lock or a
    /// condition without a time limit (Linux); without that, what a call waits for may come from outside.
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
        } else if header.state.is_running() && header.wait_reason() == WaitReason::Call {
            "in a blocking call".to_owned()
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

    /// Looks whether all Gs wait for each other, and tells those in `block_on`. Every P is idle.
    ///
    /// See the module's head. A G that waits for a thread to block on is stuck while the threads that could be had are in
    /// calls. A G in a call waits for others if its thread sleeps for ever.
    pub(crate) fn report_deadlock(self: &Arc<Self>) -> Look {
        if self.deadlocks == DeadlockPolicy::Never || self.mains.lock().is_empty() {
            return Look::Over;
        }
        let events = self.watch.events();
        // Either is an event when it comes.
        if self.driver.has_timers() || self.driver.io_waiters() > 0 {
            return Look::Over;
        }
        let gs = self.registry.all();
        let (mut calls, mut lines) = (0, 0);
        for g in &gs {
            match self.stuck(g) {
                Stuck::No => return Look::Over,
                Stuck::Perhaps => return Look::Again,
                Stuck::Waits => {}
                Stuck::WaitsForAThread => lines += 1,
                Stuck::InACall => calls += 1,
            }
        }
        if gs.is_empty() {
            return Look::Over;
        }
        let threads = self.threads_in_calls();
        if threads.len() != calls {
            return Look::Again;
        }
        let is_sure = match self.deadlocks {
            DeadlockPolicy::Auto => thread::others_sleep_for_ever(SURE_AFTER),
            _ if calls == 0 => true,
            // Threads outside wake no G. They may end a call, if it is not for want of calls that it does not end.
            _ if lines == 0 => return Look::Over,
            _ => thread::they_sleep_for_ever(SURE_AFTER, &threads),
        };
        // One whose G is not among these has come since, and is no part of it. One that has not told its G yet may be.
        let mains: Vec<_> = self.mains.lock().clone();
        let among: HashSet<usize> = gs.iter().map(|g| g.as_ptr().as_ptr().addr()).collect();
        if !is_sure || mains.iter().any(|main| main.g() == 0) || self.watch.events() != events {
            return Look::Again;
        }
        let report = Deadlock {
            gs: gs.iter().map(|g| self.info(g)).collect(),
        };
        drop(gs);
        if sabotage::is_on(Fault::BystandersTold) {
            // Until there is one: the fault must be there to be found.
            let mut looks = 0;
            while looks < 200
                && self
                    .mains
                    .lock()
                    .iter()
                    .all(|main| among.contains(&main.g()))
            {
                thread::sleep(Duration::from_millis(1));
                looks += 1;
            }
            for main in &*self.mains.lock() {
                main.tell(report.clone());
            }
        }
        for main in mains {
            if among.contains(&main.g()) {
                main.tell(report.clone());
            }
        }
        Look::Over
    }

    fn stuck(&self, g: &GRef) -> Stuck {
        let header = g.header();
        let reason = header.wait_reason();
        if header.state.is_running() {
            return if reason == WaitReason::Call {
                Stuck::InACall
            } else {
                Stuck::No
            };
        }
        if !header.state.is_waiting() {
            return Stuck::No;
        }
        // Who may let go of it without a word. One reference is this report's.
        if header.state.strangers(1) > 0 {
            return Stuck::Perhaps;
        }
        if !reason.needs_a_waker() {
            return Stuck::No;
        }
        if reason == WaitReason::Thread {
            Stuck::WaitsForAThread
        } else {
            Stuck::Waits
        }
    }

    /// The threads of Ms that are in blocking calls, by the numbers that the OS has for them.
    fn threads_in_calls(&self) -> Vec<u32> {
        let lists = self.roster.lock();
        let in_calls = lists.all.iter().filter_map(|m| m.thread_in_call());
        in_calls.collect()
    }
}

/// What is to come after a look for a deadlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Another one, without anything having happened: threads outside have to be looked at again.
    Again,
    /// None before something happens.
    Over,
}

/// Whether a G waits for other Gs.
enum Stuck {
    No,
    /// A stranger may wake it.
    Perhaps,
    Waits,
    WaitsForAThread,
    /// If its thread sleeps for ever.
    InACall,
}
