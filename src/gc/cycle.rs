//! The cycle: the collector's thread from one phase to the next.
//!
//! ```text
//! Off --stop 1--> Mark --(looks done: handshake)--> --stop 2--> Off: census, sweep
//!                  ^____________ something was flushed ____|
//! ```
//! This file has the order of the steps; `cycle/steps.rs` the steps, and it alone changes the phase;
//! `cycle/thread.rs` the thread that runs cycles; `cycle/report.rs` what a cycle says of itself.
//!
//! **Numbers of cycles** have 32 bits; after the last one comes 1, for 0 says "never". All heaps take them from one counter,
//! and no two have the same at a time (`heaps.rs`). So a number comes round again after 2^32 cycles of the process, more than
//! a year at a hundred a second, and passes over the heap that has it still. Who keeps one, and why an old one is never taken
//! for the running one:
//! - The pool and the records of mutators have the number of the running cycle, or of the last: stop 1 writes it.
//! - A lock or a frame has the number of the cycle in which it was last logged or scanned. Whatever is reachable is traced in
//!   every cycle, and then has that cycle's number; what is not is freed. One made since has 0, or the number of a cycle
//!   that ran when it was made or written. So when a cycle begins, all numbers there are the last one's, or 0. There are
//!   two exceptions, `lock_word.rs` is about both: a lock whose write guard was forgotten keeps its number for ever, and one
//!   that another heap's mutator has written to has that heap's, and nothing in it that needs to be traced.
//! - A mutator's patience at the end of a cycle: an old one is time only.
//!
//! Cycles of the mailbox and of the statistics have 64 bits, as the heap's generation has; `heap/span.rs` is about those of
//! spans.

use std::time::Duration;

use crate::gc::collector::Collector;
use crate::gc::events;
use crate::gc::mark::Marker;
use crate::gc::pacing::CycleSize;
use crate::gc::spans;
use crate::gc::state_word::Request;
use crate::gc::weak;
use crate::gc::worker::lose_processor;
use crate::sys::clock::Moment;
use crate::sys::sabotage::{self, Fault};

mod report;
mod steps;
mod thread;

/// How long the collector's thread waits for workers before it looks again.
const PATIENCE: Duration = Duration::from_micros(200);

/// What a cycle measures.
struct Timing {
    began: Moment,
    /// The size of the heap at the first stop: objects, external bytes, and both.
    objects_at_start: u64,
    external_at_start: u64,
    heap_at_start: u64,
    pauses: Vec<(u64, u64)>,
    size: CycleSize,
    /// Somebody asked for this cycle.
    forced: bool,
}

impl Collector {
    /// Runs a cycle, or none if a mutator is lost before its first stop.
    fn run_cycle(&self, marker: &mut Marker, forced: bool) {
        let number = self.figures.lock().cycles + 1;
        let mark_phase = spans::phase("mark", number);
        let mut timing = Timing {
            began: Moment::now(),
            objects_at_start: 0,
            external_at_start: 0,
            heap_at_start: 0,
            pauses: Vec::new(),
            size: CycleSize::default(),
            forced,
        };
        // Roots dropped without a mutator since the last cycle; left in their slots they would keep their objects once more.
        self.roots.collect_released();
        if self.settings.stop_the_world {
            let did = self.stopped(Request::Stop, &mut timing, |c, stopped, t| {
                c.begin_marking(stopped, t);
                c.pool.open();
                loop {
                    c.mark_until_quiet(marker);
                    c.weak.try_terminate();
                    lose_processor(&[Fault::EndNotAwaited]);
                    // A worker may have come, and not be gone yet.
                    if c.try_end_marking(stopped, t) || sabotage::is_on(Fault::EndNotAwaited) {
                        break;
                    }
                }
            });
            if !did {
                return;
            }
        } else {
            if !self.stopped(Request::Stop, &mut timing, Self::begin_marking) {
                return;
            }
            // Not in the stop: the workers that this wakes would take the processor from it.
            self.pool.open();
            self.seats.open(self.pacing.workers);
            self.mark_concurrently(marker, &mut timing);
        }
        self.pool.tell_closed();
        self.seats.close();
        self.assists.release_all();
        let mark_ns = timing.began.elapsed_ns();
        mark_phase.end();
        let sweep_phase = spans::phase("sweep", number);
        self.after_marking();
        sweep_phase.end();
        self.finish_figures(&timing, mark_ns);
        // As in a sweep: what is dropped here is dropped under the turnstile.
        let _turn = self.turnstile.lock();
        events::note_cycle();
    }

    /// Marks until a second stop finds nothing left.
    fn mark_concurrently(&self, marker: &mut Marker, timing: &mut Timing) {
        loop {
            self.mark_until_quiet(marker);
            self.weak.try_terminate();
            self.handshake_all();
            if !self.pool.is_quiet() || self.weak.was_reset() {
                self.weak.begin_marking();
                continue;
            }
            let mut over = false;
            let did = self.stopped(Request::StopToEnd, timing, |c, stopped, t| {
                over = c.try_end_marking(stopped, t);
            });
            if over {
                return;
            }
            if !did {
                // Marking stays on until the mutator is dropped after all.
                self.wait_while_suspended();
                self.weak.begin_marking();
            }
        }
    }

    /// Marks with whoever joins until no work is queued and nobody is active.
    fn mark_until_quiet(&self, marker: &mut Marker) {
        loop {
            let may_mark = self.may_mark(0).is_some();
            let joined = may_mark.then(|| self.pool.join()).flatten();
            let worked = joined.is_some();
            if let Some(joined) = joined {
                self.work(0, marker, &joined);
            }
            self.revise_pace();
            if self.pool.is_quiet() && !self.root_jobs.are_left() {
                self.assists.release_all();
                return;
            }
            if worked {
                self.pool.wait_for_change(PATIENCE);
            } else {
                // This thread has had its share of the processors: the program's turn.
                self.pool.wait_for_quiet(PATIENCE);
            }
        }
    }

    /// From the end of marking to the end of the sweep.
    fn after_marking(&self) {
        // Every cached span from before is among the unswept ones after this.
        self.handshake_all();
        if !self.heap.sweep_is_open() {
            let turn = self.turnstile.lock();
            if !sabotage::is_on(Fault::CensusSkipped) {
                weak::census(&self.heap, &self.weak);
            }
            drop(turn);
            self.weak.idle();
            self.heap.open_sweep();
        }
        self.sweep_all();
        self.end_sweep_pacing();
        self.frames.free_dead();
        self.roots.collect_released();
    }
}
