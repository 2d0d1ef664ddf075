//! How large the heap may grow before the next cycle should have ended.
//!
//! There are two goals, and the smaller one applies (Go runtime, `mgcpacer.go`):
//!
//! - by growth (GOGC): `live + (live + roots) * GOGC / 100`, at least `MIN_HEAP * GOGC / 100`;
//! - by limit: what the memory limit leaves for objects, minus a headroom of 3 % (at least 1 MiB),
//!   and never below `live`.
//!
//! `live` is what the last cycle marked, including objects that were born while it ran. `roots` is
//! what the cycle scanned outside the heap.

/// The goal of a heap in which almost nothing is live, at GOGC 100, in bytes.
pub(crate) const MIN_HEAP: u64 = 4 << 20;

/// The share of the processors that marks in the background. Allocating threads assist only if more
/// is needed.
pub(crate) const BACKGROUND_SHARE: f64 = 0.25;

/// What stays free below the memory limit: this share of the goal, in percent,
const HEADROOM_PERCENT: u64 = 3;
/// and at least these bytes.
const MIN_HEADROOM: u64 = 1 << 20;

/// The settings of the user, and the size of the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Knobs {
    /// GOGC in percent; `None` means off.
    pub(crate) gogc: Option<u32>,
    /// The memory limit in bytes; `u64::MAX` means none.
    pub(crate) limit: u64,
    /// The processors that run the program, at least 1 (0 counts as 1).
    pub(crate) processors: u32,
    /// The share of the processors that marks in the background. It is [`BACKGROUND_SHARE`], unless
    /// the collector must round: one whole worker on two processors is 0.5. It is clamped to 0.01
    /// ..= 0.95.
    pub(crate) background: f64,
}

impl Knobs {
    /// Returns the settings with GOGC 100 and no limit.
    pub(crate) fn new(processors: u32) -> Self {
        Self {
            gogc: Some(100),
            limit: u64::MAX,
            processors,
            background: BACKGROUND_SHARE,
        }
    }

    /// Returns the background share, in its range.
    pub(crate) fn share(&self) -> f64 {
        if self.background.is_nan() {
            return BACKGROUND_SHARE;
        }
        self.background.clamp(0.01, 0.95)
    }
}

/// What counts against the memory limit, in bytes. If all fields are zero, only objects need
/// memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryFigures {
    /// The memory of the heap that the system backs: for objects, free and not given back, and
    /// tables.
    pub(crate) mapped: u64,
    /// The part of `mapped` that is free and may become memory for objects.
    pub(crate) free: u64,
    /// The part of `mapped` that holds objects, including dead ones until they are swept.
    pub(crate) objects: u64,
}

impl MemoryFigures {
    /// Returns what is neither for objects nor free: tables, and what the heap's owners keep
    /// outside it.
    pub(crate) fn other(&self) -> u64 {
        self.mapped
            .saturating_sub(self.free)
            .saturating_sub(self.objects)
    }
}

/// Returns the goal by growth alone; `u64::MAX` if GOGC is off.
pub(crate) fn goal_by_growth(live: u64, roots: u64, gogc: Option<u32>) -> u64 {
    let Some(percent) = gogc else {
        return u64::MAX;
    };
    let percent = u128::from(percent);
    let base = u128::from(live) + u128::from(roots);
    let grown = u128::from(live) + base * percent / 100;
    clamp_u64(grown.max(u128::from(MIN_HEAP) * percent / 100))
}

/// The goal by the memory limit alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitGoal {
    /// The heap size at which marking should have ended, in bytes; `u64::MAX` without a limit.
    pub(crate) goal: u64,
    /// The goal plus half of the headroom: the most for a cycle that finds more to mark than
    /// expected. The other half is for what the statistics miss.
    pub(crate) most: u64,
}

/// Returns the goal by the memory limit alone.
pub(crate) fn goal_by_limit(live: u64, limit: u64, memory: MemoryFigures) -> LimitGoal {
    if limit == u64::MAX {
        return LimitGoal {
            goal: u64::MAX,
            most: u64::MAX,
        };
    }
    // Both are subtracted: what is mapped for other purposes than objects, and what is already over
    // the limit.
    let other = memory.other();
    let over = memory.mapped.saturating_sub(limit);
    let room = limit.saturating_sub(other).saturating_sub(over);
    if room == 0 {
        return LimitGoal {
            goal: live,
            most: live,
        };
    }
    let headroom = (room / 100 * HEADROOM_PERCENT).max(MIN_HEADROOM);
    let below = room.saturating_sub(headroom).max(headroom);
    let half = (room.saturating_sub(below)) / 2;
    LimitGoal {
        goal: below.max(live),
        most: (below + half).max(live),
    }
}

/// Returns `n`, or `u64::MAX` if `n` is larger.
pub(crate) fn clamp_u64(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: MemoryFigures = MemoryFigures {
        mapped: 0,
        free: 0,
        objects: 0,
    };

    #[test]
    fn gogc_100_doubles_the_live_heap_and_counts_roots() {
        assert_eq!(goal_by_growth(100 << 20, 0, Some(100)), 200 << 20);
        assert_eq!(goal_by_growth(100 << 20, 0, Some(50)), 150 << 20);
        assert_eq!(goal_by_growth(100 << 20, 50 << 20, Some(100)), 250 << 20);
        assert_eq!(goal_by_growth(100 << 20, 0, Some(0)), 100 << 20);
        assert_eq!(goal_by_growth(5, 0, None), u64::MAX);
    }

    #[test]
    fn a_small_heap_has_a_minimum_that_scales() {
        assert_eq!(goal_by_growth(1000, 0, Some(100)), MIN_HEAP);
        assert_eq!(goal_by_growth(1000, 0, Some(200)), 2 * MIN_HEAP);
    }

    #[test]
    fn the_limit_leaves_three_percent() {
        assert_eq!(goal_by_limit(0, 512 << 20, NONE).goal, 520_764_785);
        assert_eq!(goal_by_limit(0, 512 << 20, NONE).most, 528_817_848);
        assert_eq!(goal_by_limit(0, u64::MAX, NONE).goal, u64::MAX);
        let live = 600 << 20;
        let over = goal_by_limit(live, 512 << 20, NONE);
        assert_eq!((over.goal, over.most), (live, live), "never below");
    }

    #[test]
    fn what_is_not_for_objects_comes_off_the_limit() {
        let memory = MemoryFigures {
            mapped: 300 << 20,
            free: 50 << 20,
            objects: 150 << 20,
        };
        // 100 MiB are tables: 412 MiB are left, minus 3 %.
        let room: u64 = 412 << 20;
        assert_eq!(
            goal_by_limit(0, 512 << 20, memory).goal,
            room - room / 100 * 3
        );
        // 44 MiB over the limit are subtracted once more.
        let room: u64 = (256 - 100 - 44) << 20;
        assert_eq!(
            goal_by_limit(0, 256 << 20, memory).goal,
            room - room / 100 * 3
        );
        let tables = MemoryFigures {
            mapped: 300 << 20,
            free: 0,
            objects: 0,
        };
        assert_eq!(goal_by_limit(7, 256 << 20, tables).goal, 7);
    }
}
