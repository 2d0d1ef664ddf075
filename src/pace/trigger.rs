//! The heap size that begins a cycle.
//!
//! The trigger lies below the goal by the *runway*: the bytes that the program will allocate while
//! the background workers mark. It is bounded by shares of the way from `live` to the goal (Go
//! runtime, `trigger` of `mgcpacer.go`): it is not below 45/64, and not above 61/64 or 4 MiB below
//! the goal, whichever is higher.
//!
//! If the runway does not fit above the lower bound in cycle after cycle, the lower bound gives
//! way. The trigger then goes as low as the sustained runway needs, so that marking manages with
//! its share of the processors, and assists are left for surprises. A single odd cycle does not
//! lower it, because a cycle that begins early ends early, and that makes more cycles. Three bounds
//! stop it:
//!
//! - *deepest*, the most that the caller allows. What is allocated while marking runs counts as
//!   live afterwards, so a runway without a bound would be a heap without a bound;
//! - an eighth of the way from live to goal;
//! - 2 MiB past live, so that a small heap does not mark all the time.

/// The lower bound of a trigger, in 64ths of the way from live to goal.
const LOW_64THS: u64 = 45;
/// The upper bound, in the same unit.
const HIGH_64THS: u64 = 61;
/// A large heap may begin a cycle this close to its goal, in bytes.
const CLOSE: u64 = 4 << 20;
/// The lowest trigger of a program that outruns its collector is past live by the way from live to
/// goal divided by this number,
const DEEP_DIVISOR: u64 = 8;
/// and by at least these bytes, or by [`LOW_64THS`] of the way if that is less, so that a small
/// heap does not mark all the time.
const DEEP_BYTES: u64 = 2 << 20;

/// The bytes that are expected to be allocated while marking runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runway {
    /// If the program allocates as in its fastest recent cycle.
    pub(crate) peak: u64,
    /// If it allocates as it has done for more than a cycle; not above `peak`.
    pub(crate) sustained: u64,
}

/// Returns the trigger for a heap of `live` bytes that may grow to `goal`. `earliest` is a lower
/// bound that the sweep needs. Below 45/64 of the way the runway gets at most `deepest` bytes. The
/// result is in `live ..= goal`, and is `goal` if `live >= goal`.
pub(crate) fn trigger(live: u64, goal: u64, runway: Runway, earliest: u64, deepest: u64) -> u64 {
    if live >= goal {
        return goal;
    }
    let way = goal - live;
    // The division comes first: it cannot overflow, and gives the bytes that Go would compute.
    let low = (live + way / 64 * LOW_64THS).max(earliest);
    let high = (live + way / 64 * HIGH_64THS)
        .max(goal.saturating_sub(CLOSE))
        .max(low);
    let usual = goal.saturating_sub(runway.peak).clamp(low, high);
    let least = (way / DEEP_DIVISOR).max(DEEP_BYTES.min(way / 64 * LOW_64THS));
    let lowest = (live + least).max(earliest);
    let needed = goal
        .saturating_sub(runway.sustained.min(deepest))
        .max(lowest);
    usual.min(needed).min(goal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn both(bytes: u64) -> Runway {
        Runway {
            peak: bytes,
            sustained: bytes,
        }
    }

    #[test]
    fn the_runway_decides_between_the_bounds() {
        let (live, goal) = (64 * MIB, 128 * MIB);
        assert_eq!(trigger(live, goal, both(10 * MIB), 0, 0), 118 * MIB);
        assert_eq!(trigger(live, goal, both(40 * MIB), 0, 0), 109 * MIB);
        assert_eq!(trigger(live, goal, both(0), 0, 0), 125 * MIB);
        // 2^40 - 2^38 is far enough for the 4 MiB to count.
        let (live, goal) = (1 << 38, 1 << 40);
        assert_eq!(trigger(live, goal, both(0), 0, 0), goal - 4 * MIB);
    }

    #[test]
    fn a_sustained_runway_goes_below_the_lower_bound() {
        let (live, goal) = (64 * MIB, 128 * MIB);
        assert_eq!(trigger(live, goal, both(40 * MIB), 0, u64::MAX), 88 * MIB);
        assert_eq!(trigger(live, goal, both(100 * MIB), 0, u64::MAX), 72 * MIB);
        let surprise = Runway {
            peak: 40 * MIB,
            sustained: 5 * MIB,
        };
        assert_eq!(trigger(live, goal, surprise, 0, u64::MAX), 109 * MIB);
        // A small heap stays 2 MiB away, or at the bound.
        assert_eq!(
            trigger(4 * MIB, 8 * MIB, both(MIB << 9), 0, u64::MAX),
            6 * MIB
        );
        assert_eq!(
            trigger(0, 2 * MIB, both(MIB << 9), 0, u64::MAX),
            2 * MIB / 64 * 45
        );
    }

    #[test]
    fn the_sweep_has_a_say_and_live_comes_first() {
        let (live, goal) = (64 * MIB, 128 * MIB);
        assert_eq!(
            trigger(live, goal, both(goal), 100 * MIB, u64::MAX),
            100 * MIB
        );
        assert_eq!(trigger(live, goal, both(goal), 120 * MIB, 0), 120 * MIB);
        assert_eq!(trigger(live, live, both(0), 0, u64::MAX), live);
        assert_eq!(trigger(live, 10, both(0), 0, u64::MAX), 10);
    }
}
