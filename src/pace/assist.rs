//! What an allocation owes while marking runs.
//!
//! A thread pays for the bytes that it allocates by scanning bytes, at a rate that lets marking end
//! when the heap reaches the size aimed at. A thread that is in debt scans more than it owes, so
//! that it assists seldom; the surplus is credit for its later allocations. A thread may also pay
//! with what the background workers have scanned; the collector decides that.

/// The least work that is assumed to be left at the end of a cycle, in bytes, because some always
/// turns up.
const MIN_WORK_LEFT: u64 = 1000;
/// The least that one assist scans, in bytes.
const MIN_ASSIST: u64 = 64 << 10;

/// The price of an allocation. Both rates are finite and above 0; one is the inverse of the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AssistRates {
    /// The bytes to scan for each byte allocated.
    pub(crate) work_per_byte: f64,
    /// The bytes of allocation that one scanned byte pays for.
    pub(crate) bytes_per_work: f64,
}

/// One assist that a thread must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Assist {
    /// Bytes to scan.
    pub(crate) work: u64,
    /// The bytes of allocation that they pay for: the debt or more.
    pub(crate) pays: u64,
}

impl AssistRates {
    /// Returns the rates at which `work_left` bytes are scanned while `room` more bytes are
    /// allocated (0 counts as 1).
    pub(crate) fn new(work_left: u64, room: u64) -> Self {
        let work = work_left.max(MIN_WORK_LEFT) as f64;
        let room = room.max(1) as f64;
        Self {
            work_per_byte: work / room,
            bytes_per_work: room / work,
        }
    }

    /// Returns the rates for a price. A price that is not finite or not above 0 counts as the
    /// smallest price.
    pub(crate) fn of_work_per_byte(work_per_byte: f64) -> Self {
        let price = if work_per_byte.is_finite() {
            work_per_byte.max(f64::MIN_POSITIVE)
        } else {
            f64::MIN_POSITIVE
        };
        Self {
            work_per_byte: price,
            bytes_per_work: (1.0 / price).min(f64::MAX),
        }
    }

    /// Returns the assist of a thread that owes for `debt` bytes of allocation.
    pub(crate) fn assist(&self, debt: u64) -> Assist {
        // The casts saturate.
        let work = (self.work_per_byte * debt as f64) as u64;
        if work >= MIN_ASSIST {
            return Assist { work, pays: debt };
        }
        Assist {
            work: MIN_ASSIST,
            pays: ((self.bytes_per_work * MIN_ASSIST as f64) as u64).max(debt),
        }
    }

    /// Returns the bytes of allocation that `work` scanned bytes pay for, plus one, so that
    /// rounding leaves no debt.
    pub(crate) fn paid_by(&self, work: u64) -> u64 {
        ((self.bytes_per_work * work as f64) as u64).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_room_make_the_rates() {
        let rates = AssistRates::new(2 << 20, 1 << 20);
        assert_eq!(rates.work_per_byte, 2.0);
        assert_eq!(rates.bytes_per_work, 0.5);
        assert_eq!(AssistRates::new(0, 0).work_per_byte, 1000.0);
    }

    #[test]
    fn a_small_debt_pays_in_advance() {
        let rates = AssistRates::new(2 << 20, 1 << 20);
        let small = rates.assist(10);
        assert_eq!((small.work, small.pays), (64 << 10, 32 << 10));
        let large = rates.assist(1 << 20);
        assert_eq!((large.work, large.pays), (2 << 20, 1 << 20));
        assert_eq!(rates.paid_by(large.work), (1 << 20) + 1);
        assert_eq!(rates.paid_by(u64::MAX), (1 << 63) + 1);
    }
}
