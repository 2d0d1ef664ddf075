//! The heap's goal, the size that starts a cycle, and what an allocation owes while one runs.
//!
//! All sizes are bytes. `live` is what the last cycle marked.
//!
//! - goal (GOGC): `live + live * GOGC / 100`, at least `MIN_HEAP * GOGC / 100` (Go's `gcController.commit`).
//! - goal (memory limit): what the limit leaves after everything that is not object memory, less a headroom of 3 %
//!   (at least 1 MiB); never below `live` (Go's `memoryLimitHeapGoal`).
//! - trigger: the goal less the *runway*, the bytes that mutators are expected to allocate while marking runs, kept
//!   between half and 95 % of the way from `live` to the goal.
//! - assist ratio: bytes to scan per byte allocated, so that marking ends when the heap reaches its goal.

/// The goal of a heap in which almost nothing lives, at GOGC 100.
pub(crate) const MIN_HEAP: u64 = 4 << 20;

/// What one cycle showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CycleReport {
    /// Bytes marked, plus bytes allocated while marking ran.
    pub(crate) live: u64,
    /// Bytes allocated while marking ran.
    pub(crate) allocated_during_mark: u64,
    /// Bytes of traced objects scanned.
    pub(crate) scanned: u64,
}

/// The user's two knobs, and what counts against the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knobs {
    /// GOGC in percent; `None` is off.
    pub(crate) gogc: Option<u32>,
    /// Memory limit; `u64::MAX` is none.
    pub(crate) limit: u64,
    /// Bytes of the heap's memory that are not objects: tables, and slots of spans that hold none.
    pub(crate) overhead: u64,
}

/// When the next cycle starts and should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) goal: u64,
    pub(crate) trigger: u64,
}

/// The goal for a heap in which `live` bytes survived.
pub(crate) fn goal(live: u64, knobs: Knobs) -> u64 {
    let by_growth = match knobs.gogc {
        None => u64::MAX,
        Some(percent) => {
            let growth = u128::from(live) * u128::from(percent) / 100;
            let minimum = u128::from(MIN_HEAP) * u128::from(percent) / 100;
            clamp_u64((u128::from(live) + growth).max(minimum))
        }
    };
    by_growth.min(goal_by_limit(live, knobs))
}

fn goal_by_limit(live: u64, knobs: Knobs) -> u64 {
    if knobs.limit == u64::MAX {
        return u64::MAX;
    }
    let room = knobs.limit.saturating_sub(knobs.overhead);
    let headroom = (room / 100 * 3).max(1 << 20);
    room.saturating_sub(headroom).max(live)
}

/// The plan for the next cycle, from what the last few showed.
pub(crate) fn plan(report: CycleReport, runway: u64, knobs: Knobs) -> Plan {
    let goal = goal(report.live, knobs);
    let distance = goal.saturating_sub(report.live);
    let low = report.live + distance / 2;
    let high = report.live + distance / 64 * 61;
    let trigger = goal.saturating_sub(runway).clamp(low, high.max(low));
    Plan { goal, trigger }
}

/// Bytes to scan for each byte allocated, so that `work_left` is done when the heap has grown from `now` to `goal`.
pub(crate) fn assist_ratio(work_left: u64, now: u64, goal: u64) -> f64 {
    let runway = goal.saturating_sub(now).max(64 << 10);
    work_left as f64 / runway as f64
}

fn clamp_u64(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMIT: u64 = u64::MAX;

    fn knobs(gogc: Option<u32>, limit: u64) -> Knobs {
        Knobs {
            gogc,
            limit,
            overhead: 0,
        }
    }

    #[test]
    fn gogc_100_doubles_the_live_heap() {
        assert_eq!(goal(100 << 20, knobs(Some(100), NO_LIMIT)), 200 << 20);
        assert_eq!(goal(100 << 20, knobs(Some(50), NO_LIMIT)), 150 << 20);
    }

    #[test]
    fn a_small_heap_has_a_minimum_that_scales() {
        assert_eq!(goal(1000, knobs(Some(100), NO_LIMIT)), MIN_HEAP);
        assert_eq!(goal(1000, knobs(Some(200), NO_LIMIT)), 2 * MIN_HEAP);
    }

    #[test]
    fn off_means_the_limit_alone_decides() {
        assert_eq!(goal(5, knobs(None, NO_LIMIT)), u64::MAX);
        let g = goal(5, knobs(None, 100 << 20));
        assert!(g < 100 << 20 && g > 96 << 20);
        assert_eq!(
            goal(200 << 20, knobs(None, 100 << 20)),
            200 << 20,
            "never below live"
        );
    }

    #[test]
    fn the_trigger_lies_between_live_and_goal_at_every_extreme() {
        let sizes = [0, 1, 4095, MIN_HEAP, 1 << 40, u64::MAX / 2, u64::MAX];
        for live in sizes {
            for runway in sizes {
                for gogc in [None, Some(0), Some(1), Some(100), Some(u32::MAX)] {
                    for limit in sizes {
                        let report = CycleReport {
                            live,
                            allocated_during_mark: 0,
                            scanned: 0,
                        };
                        let p = plan(report, runway, knobs(gogc, limit));
                        assert!(p.goal >= live, "{live} {runway} {gogc:?} {limit}");
                        assert!(
                            p.trigger >= live && p.trigger <= p.goal,
                            "{live} {runway} {gogc:?} {limit} {p:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_assist_ratio_is_finite() {
        for work in [0, 1, u64::MAX] {
            for now in [0, 1, u64::MAX] {
                for goal in [0, 1, u64::MAX] {
                    assert!(assist_ratio(work, now, goal).is_finite());
                }
            }
        }
        assert!((assist_ratio(2 << 20, 0, 1 << 20) - 2.0).abs() < 1e-9);
    }
}
