//! The end of a runtime: Gs are dropped, threads joined, mutators detached.
//!
//! Who ends a runtime waits for its Gs, and must not be what they wait for. Three threads are: one of the runtime's own, which
//! a G runs on that would have to end first; one that drops objects for a collector, which a G may be waiting for; and one
//! with a running mutator as soon as a stop waits for that, and Gs wait for the stop. None of them waits. It asks for the end,
//! and a thread that is made for it goes on ([`Shared::shut_down`], `Runtime::end`).
//!
//! Whoever waits here says so, and for whom, once it has waited for a second ([`Event::SlowShutdown`]): a G that computes
//! without an await looks like a program that hangs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::gc::events::Event;
use crate::gc::notice::{BackOff, FIRST};
use crate::sched::report::GInfo;
use crate::sched::shared::{Closing, Shared};
use crate::sched::task::join;
use crate::sys::clock::Moment;
use crate::sys::sync::Ordering;
use crate::sys::thread;

/// Gs did not end in time; their threads are left behind.
#[derive(Clone, Debug)]
pub struct ShutdownError {
    waited: Duration,
    left: Vec<GInfo>,
}

impl ShutdownError {
    pub(crate) fn new(waited: Duration, left: Vec<GInfo>) -> Self {
        Self { waited, left }
    }

    /// The Gs that are left: they run without an await, or are in a blocking call.
    #[must_use]
    pub fn left(&self) -> &[GInfo] {
        &self.left
    }
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} Gs had not ended after {:?}",
            self.left.len(),
            self.waited
        )?;
        for g in self.left.iter().take(32) {
            write!(f, "\n  {g}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ShutdownError {}

impl Shared {
    /// A G has ended: whoever waits for all of them looks.
    pub(crate) fn note_end(&self) {
        if self.is_closing(Closing::Gs) {
            drop(self.ended.lock());
            self.all_ended.notify_all();
        }
    }

    /// Drops every G, ends every M, detaches every P's mutator.
    ///
    /// `None` as soon as this thread `may_wait` no more: what it waits for would wait for it. The end has been asked for then,
    /// and another thread is to go on with it, from the beginning: each step is done once, or does nothing the second time.
    pub(crate) fn shut_down(
        self: &Arc<Self>,
        limit: Duration,
        may_wait: &dyn Fn() -> bool,
    ) -> Option<Result<(), ShutdownError>> {
        let start = Moment::now();
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        // AcqRel: pairs with the Acquire in `is_closing`.
        self.closing.fetch_max(Closing::Gs as u8, Ordering::AcqRel);
        let mut known = usize::MAX;
        let mut told = BackOff::new(FIRST);
        // A G that was being spawned meanwhile is found in the next round.
        while self.registry.len() > 0 && start.elapsed_ns() < limit_ns {
            if known != self.registry.len() {
                for g in self.registry.all() {
                    join::abort(&g);
                }
                known = self.registry.len();
            }
            self.tell_of_shutdown(start, &mut told);
            if !may_wait() {
                return None;
            }
            let mut ended = self.ended.lock();
            if self.registry.len() > 0 {
                self.all_ended
                    .wait_for(&mut ended, Duration::from_millis(2));
            }
        }
        // AcqRel: as above.
        let before = self.closing.swap(Closing::Ms as u8, Ordering::AcqRel);
        if before != Closing::Ms as u8 {
            self.collector.seats.remove_host();
        }
        // One that has just been counted out may not say so itself yet.
        let left = if self.registry.len() == 0 {
            Vec::new()
        } else {
            self.dump()
        };
        loop {
            self.unpark_all();
            if self.roster.lock().started == 0 || start.elapsed_ns() >= limit_ns {
                break;
            }
            self.tell_of_shutdown(start, &mut told);
            if !may_wait() {
                return None;
            }
            thread::sleep(Duration::from_micros(50));
        }
        if self.roster.lock().started > 0 || !left.is_empty() {
            let waited = Duration::from_nanos(start.elapsed_ns());
            return Some(Err(ShutdownError::new(waited, left)));
        }
        let threads = std::mem::take(&mut self.roster.lock().threads);
        for thread in threads {
            // A panic on an M ends the process before this.
            let _ = thread.join();
        }
        self.drop_leftovers();
        // Without a G there was no M that could.
        self.let_itself_go();
        Some(Ok(()))
    }

    /// Tells whom the end, which began at `start`, waits for, if that is due.
    fn tell_of_shutdown(&self, start: Moment, told: &mut BackOff) {
        const SHOWN: usize = 32;
        let waited = Duration::from_nanos(start.elapsed_ns());
        if !told.is_due(waited) {
            return;
        }
        let left = self.dump();
        self.collector.tell(&Event::SlowShutdown {
            waited,
            gs: left.iter().take(SHOWN).map(ToString::to_string).collect(),
            left: left.len(),
            threads: self.roster.lock().started,
        });
    }

    /// What is in queues has ended; mutators leave the heap.
    fn drop_leftovers(&self) {
        for proc in &self.procs {
            proc.queue.take_all().for_each(drop);
            // SAFETY: [J1] no M is left, so this thread holds every P.
            drop(unsafe { proc.own() }.host.take());
        }
        drop(self.take_spare_hosts());
    }
}
