//! The collector's thread: it starts with the heap, waits for mail, runs cycles, and ends with the
//! last handle.

use std::sync::Arc;
use std::time::Duration;

use crate::gc::collecting::as_collecting_thread;
use crate::gc::collector::Collector;
use crate::gc::late::{LOOK, LOOK_AT_DROPS};
use crate::gc::lost::NAP;
use crate::gc::mark::Marker;
use crate::sys::MODELLED;
use crate::sys::clock::Moment;
use crate::sys::thread;

/// How soon a limit that is unmet is looked at again; and not before so many times as long as marking took.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_PART: u64 = 20;

impl Collector {
    /// Starts the collector's thread.
    ///
    /// # Errors
    /// What the OS says when it refuses a thread.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let shared = self.clone();
        let handle = thread::spawn("greywave-collect".to_owned(), move || {
            as_collecting_thread(shared.id, || shared.run())
        })?;
        self.threads.lock().push(handle);
        Ok(())
    }

    /// As [`shut_down`](Self::shut_down), from inside an object's drop on the collector's own thread.
    pub(crate) fn shut_down_from_inside(&self) {
        let mut mail = self.mailbox.lock();
        mail.shutdown = true;
        mail.drop_everything = true;
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.mailbox.lock().shutdown
    }

    /// Ends the collector's threads and waits for them; called once, when the last handle goes.
    pub(crate) fn shut_down(&self) {
        self.mailbox.lock().shutdown = true;
        self.mail.notify_all();
        self.pool.end();
        // The collector's thread starts the others in its first cycle, which may be now: once it has ended, none comes.
        loop {
            let threads = std::mem::take(&mut *self.threads.lock());
            if threads.is_empty() {
                return;
            }
            for handle in threads {
                self.wait_for_thread(&handle);
                // A worker does not panic; if it did, there is nothing left to save here.
                let _ = handle.join();
            }
        }
    }

    /// Waits until the thread has ended, or is about to; tells of a drop that keeps it.
    fn wait_for_thread(&self, handle: &thread::JoinHandle<()>) {
        let mut pause = Duration::from_micros(20);
        while !MODELLED && !thread::is_finished(handle) {
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK_AT_DROPS);
            self.look_at_drop();
        }
    }

    fn run(self: Arc<Self>) {
        let mut marker = Marker::new();
        let mut workers_started = false;
        while let Some(forced) = self.wait_for_mail() {
            if !workers_started {
                workers_started = true;
                self.start_workers(self.settings.processors - 1);
            }
            // One that was given up counts as done: who waits for it goes on.
            self.run_cycle(&mut marker, forced);
            let mut mail = self.mailbox.lock();
            mail.done = mail.begun;
            drop(mail);
            self.mail.notify_all();
        }
        if self.mailbox.lock().drop_everything {
            self.pool.end();
            self.drop_everything();
        }
    }

    /// Waits until a cycle is to run; says whether somebody asked for it. `None`: the heap goes.
    fn wait_for_mail(&self) -> Option<bool> {
        let since = Moment::now();
        let period = self.period();
        // When the scavenger's turn is, in time since then.
        let mut nap_ends = Duration::ZERO;
        loop {
            let now = Duration::from_nanos(since.elapsed_ns());
            let is_suspended = self.look_for_lost();
            // Of a mutator that has departed it is known in a moment whether it is dropped, or lost.
            let may_begin = !is_suspended && !self.world.has_departed();
            let mut mail = self.mailbox.lock();
            if mail.shutdown {
                return None;
            }
            // Go's `forcegcperiod`: what is garbage now should not stay for ever.
            mail.triggered |= now >= period;
            if may_begin && (mail.triggered || mail.wanted > mail.begun) {
                let forced = mail.wanted > mail.begun;
                mail.triggered = false;
                mail.begun += 1;
                return Some(forced);
            }
            if now >= nap_ends || std::mem::take(&mut mail.scavenge) {
                drop(mail);
                nap_ends = match self.scavenge_step() {
                    Some(ns) => now + Duration::from_nanos(ns),
                    // Nothing becomes free before the next cycle.
                    None => Duration::MAX,
                };
                continue;
            }
            let rest = if may_begin {
                period.min(nap_ends).saturating_sub(now)
            } else if is_suspended {
                nap_ends.saturating_sub(now).min(NAP)
            } else {
                LOOK
            };
            mail.wait_on(&self.mail, rest);
        }
    }

    /// When a cycle is to begin that nobody has asked for. Soon while the memory limit is unmet: a program that sheds load
    /// for it allocates little, and nothing else would tell it that it may stop.
    fn period(&self) -> Duration {
        let figures = self.figures.lock();
        if figures.unmet_limit.is_none() {
            return self.settings.period;
        }
        let rare = Duration::from_nanos(figures.mark_ns.saturating_mul(RETRY_PART));
        self.settings.period.min(rare.max(RETRY))
    }
}
