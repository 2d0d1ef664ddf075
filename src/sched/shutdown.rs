//! The end of a runtime: Gs are dropped, threads joined, mutators detached.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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

    /// Drops every G, ends every M, detaches every P's mutator. Once.
    pub(crate) fn shut_down(self: &Arc<Self>, limit: Duration) -> Result<(), ShutdownError> {
        let start = Moment::now();
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        // Release: pairs with the Acquire in `is_closing`.
        self.closing.store(Closing::Gs as u8, Ordering::Release);
        let mut known = usize::MAX;
        // A G that was being spawned meanwhile is found in the next round.
        while self.registry.len() > 0 && start.elapsed_ns() < limit_ns {
            if known != self.registry.len() {
                for g in self.registry.all() {
                    join::abort(&g);
                }
                known = self.registry.len();
            }
            let mut ended = self.ended.lock();
            if self.registry.len() > 0 {
                self.all_ended
                    .wait_for(&mut ended, Duration::from_millis(2));
            }
        }
        // Release: as above.
        self.closing.store(Closing::Ms as u8, Ordering::Release);
        self.collector.seats.remove_host();
        // One that has just been counted out may not say so itself yet.
        let left = if self.registry.len() == 0 {
            Vec::new()
        } else {
            self.dump()
        };
        loop {
            self.unpark_all();
            if self.idle.lock().started == 0 || start.elapsed_ns() >= limit_ns {
                break;
            }
            thread::sleep(Duration::from_micros(50));
        }
        if self.idle.lock().started > 0 || !left.is_empty() {
            let waited = Duration::from_nanos(start.elapsed_ns());
            return Err(ShutdownError { waited, left });
        }
        let threads = std::mem::take(&mut self.idle.lock().threads);
        for thread in threads {
            // A panic on an M ends the process before this.
            let _ = thread.join();
        }
        self.drop_leftovers();
        // Without a G there was no M that could.
        self.let_itself_go();
        Ok(())
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
