//! What a cycle says of itself: statistics, the trace line, events.

use crate::gc::collector::Collector;
use crate::gc::cycle::Timing;
use crate::gc::events::Event;
use crate::gc::trace::TraceLine;
use crate::sys::quiet::contain;

impl Collector {
    pub(super) fn finish_figures(&self, timing: &Timing, mark_ns: u64) {
        let live_bytes = timing.size.marked;
        let goal_bytes = timing.size.goal;
        let (needed_bytes, limit_bytes) = self.needed_and_limit();
        let unmet = (needed_bytes >= limit_bytes).then_some((needed_bytes, limit_bytes));
        let was_unmet;
        let cycle = {
            let mut figures = self.figures.lock();
            was_unmet = std::mem::replace(&mut figures.unmet_limit, unmet).is_some();
            figures.cycles += 1;
            figures.live_bytes = live_bytes;
            figures.mark_ns = mark_ns;
            figures.total_mark_ns += mark_ns;
            let times = timing.size.times;
            figures.background_ns += times.background_ns;
            figures.assist_ns += times.assist_ns;
            figures.idle_ns += times.idle_ns;
            figures.total_taken_ns += times.background_ns + times.assist_ns;
            for &(total, stopping) in &timing.pauses {
                figures.pauses.record(total);
                figures.stopping.record(stopping);
                figures.last_pause_ns = total;
            }
            figures.cycles
        };
        self.write_trace(timing, cycle, mark_ns);
        if unmet.is_some() {
            self.tell(&Event::LimitUnmet {
                needed_bytes,
                limit_bytes,
                limiting: self.pacing.is_limiting(),
            });
        } else if was_unmet {
            self.tell(&Event::LimitMet {
                needed_bytes,
                limit_bytes,
            });
        }
        self.tell(&Event::CycleEnd {
            cycle,
            live_bytes,
            goal_bytes,
            mark_ns,
            trigger_bytes: timing.size.trigger,
            start_bytes: timing.size.heap_at_start,
            peak_bytes: timing.size.heap_at_end,
            background_ns: timing.size.times.background_ns,
            assist_ns: timing.size.times.assist_ns,
            idle_ns: timing.size.times.idle_ns,
            utilization: timing.size.times.share_taken(self.pacing.processors),
            limit_unmet: unmet.is_some(),
        });
    }

    fn write_trace(&self, timing: &Timing, cycle: u64, mark_ns: u64) {
        let Some(sink) = &self.settings.trace else {
            return;
        };
        let stops: u64 = timing.pauses.iter().map(|p| p.0).sum();
        let first = timing.pauses.first().map_or(0, |p| p.0);
        let size = timing.size;
        let line = TraceLine {
            cycle,
            age_ns: self.pacing.age_ns(),
            total_taken_ns: self.figures.lock().total_taken_ns,
            clock_ns: [first, mark_ns.saturating_sub(stops), stops - first],
            times: size.times,
            heap: [size.heap_at_start, size.heap_at_end, size.marked],
            goal: size.goal,
            external: self.gauges.external(),
            processors: self.pacing.processors,
            forced: timing.forced,
        };
        // [D2] The sink is user code.
        contain(|| sink(&line.to_string()));
    }
}
