//! The background sweep, and drops.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::base::addr::PAGE_SHIFT;
use crate::gc::collector::Collector;
use crate::gc::events::Event;
use crate::heap::dead::{DeadObjects, NoDrops};
use crate::heap::span_class::ClassRef;
use crate::object::counting::{Counting, Purpose};
use crate::sys::quiet::drop_quietly;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{Ordering, yield_now};

/// Pages looked at for each turn at the turnstile.
const BATCH: u32 = 64;
/// Pages that one allocation sweeps at most (1 MiB: some 20 microseconds).
const SWEEP_PIECE: u64 = 128;

/// The background sweeper drops dead objects.
#[derive(Debug)]
pub(crate) struct Dropper<'a> {
    collector: &'a Collector,
    dropped: u64,
}

impl<'a> Dropper<'a> {
    pub(crate) fn new(collector: &'a Collector) -> Self {
        Self {
            collector,
            dropped: 0,
        }
    }
}

impl Drop for Dropper<'_> {
    fn drop(&mut self) {
        // Relaxed: a figure.
        self.collector
            .gauges
            .dropped
            .fetch_add(self.dropped, Ordering::Relaxed);
    }
}

impl DeadObjects for Dropper<'_> {
    fn drop_object(&mut self, class: ClassRef, at: *mut u8, slot: usize) {
        let Some(info) = class.info else { return };
        let Some(drop) = info.drop else { return };
        self.dropped += 1;
        // Relaxed: any change says that the sweep gets on; one thread writes.
        let drops = &self.collector.pacing.drops;
        drops.store(drops.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let how = Counting::new(Purpose::Death(&self.collector.shared_bytes));
        // An implementation by hand may unwind here as in its drop, and is not asked again.
        // SAFETY: [O1] a dead object of the class's type; nobody else reaches it.
        let external = catch_unwind(AssertUnwindSafe(|| unsafe {
            (info.external)(at, slot, &how)
        }));
        let (external, unwound) = match external {
            Ok(bytes) => (bytes, None),
            Err(panic) => (0, Some(panic)),
        };
        if external > 0 {
            self.collector.note_freed_external(external as u64);
        }
        self.collector.dropping.begin(class);
        // SAFETY: [O1], and the caller drops each dead object once.
        let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { drop(at, slot) }));
        self.collector.dropping.end();
        for panic in unwound.into_iter().chain(outcome.err()) {
            // Relaxed: a figure.
            self.collector
                .gauges
                .drop_panics
                .fetch_add(1, Ordering::Relaxed);
            let message = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "(not a string)".to_owned());
            // [D2]
            drop_quietly(panic);
            self.collector.tell(&Event::DropPanic {
                type_name: class.type_name(),
                message,
            });
        }
    }
}

impl Collector {
    /// Sweeps about `pages` pages, for a mutator that allocates faster than the background sweeper
    /// sweeps. From the top down, as the background sweeper comes from below; spans whose objects
    /// are dropped are left to it.
    pub(crate) fn sweep_pages(&self, pages: u64) {
        if !self.heap.sweep_is_open() {
            return;
        }
        let _sweeping = self.heap.begin_sweeping();
        // Relaxed (all): a figure; and each page is looked at once, but the claim decides who
        // sweeps it.
        let done = || self.heap.swept_pages.load(Ordering::Relaxed);
        let enough = done() + pages.min(SWEEP_PIECE);
        while done() < enough {
            let above = self.sweep_down.load(Ordering::Relaxed);
            let below = above.saturating_sub(BATCH);
            if above <= 1 {
                break;
            }
            if self
                .sweep_down
                .compare_exchange(above, below, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                for page in below.max(1)..above {
                    self.sweep_plain(page);
                }
            }
        }
    }

    /// Sweeps what one allocation sweeps at most; false if nothing is left that a mutator may
    /// sweep.
    pub(crate) fn sweep_a_piece(&self) -> bool {
        self.sweep_pages(SWEEP_PIECE);
        // Relaxed: a figure.
        self.heap.sweep_is_open() && self.sweep_down.load(Ordering::Relaxed) > 1
    }

    /// Sweeps the span at `page`, if one is there that is unswept and needs no drop.
    pub(crate) fn sweep_plain(&self, page: u32) {
        let class = self.heap.class_at((page as usize) << PAGE_SHIFT);
        if class.is_some_and(|c| !c.drop) {
            self.heap.sweep_span(page, &mut NoDrops);
        }
    }

    /// Sweeps every unswept span; returns when all are swept. On the collector's thread.
    pub(crate) fn sweep_all(&self) {
        let mut dropper = Dropper::new(self);
        let mut page = 1;
        while page < self.heap.top() {
            let turn = self.turnstile.lock();
            let end = page.saturating_add(BATCH).min(self.heap.top());
            while page < end {
                if page % 2 == 0 || !sabotage::is_on(Fault::SweptLate) {
                    self.heap.sweep_span(page, &mut dropper);
                }
                page += 1;
            }
            drop(turn);
        }
        while self.heap.mutators_sweep() {
            yield_now();
        }
    }

    /// Drops every object that needs it: the heap goes. No mutator and no collector thread is left.
    pub(crate) fn drop_everything(&self) {
        let mut dropper = Dropper::new(self);
        for head in 1..self.heap.top() {
            let start = (head as usize) << PAGE_SHIFT;
            let Some(class) = self.heap.class_at(start) else {
                continue;
            };
            if !class.drop || self.heap.first_page_of(start) != head {
                continue;
            }
            self.heap.for_each_allocated(head, class, |offset, slot| {
                dropper.drop_object(class, self.heap.at(offset), slot);
            });
        }
    }
}
