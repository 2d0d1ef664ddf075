//! The account of a `GcLock`: the external bytes that are counted for its content. It is the
//! account of [O5] in `object/counting.rs`.
//!
//! The account is opened when the lock becomes part of an object, and closed when the object is
//! dropped. A lock that is not part of an object has no account: one on a stack, in a frame, or in
//! the content of another lock, which is measured as a whole.
//!
//! **Claim.** A write is O(1) on average, and the account is off by at most what the writes since
//! the last measure have changed inside items.
//!
//! **Why.** A write guard cannot know what its holder has changed: an item of a `Vec<String>` may
//! have grown. Measuring all items after each write would make a write O(size). So a guard measures
//! only the outermost level, which is O(1), and counts its change. All items are measured once the
//! writes since the last measure have paid for it. A write pays 1, and 1 more for each 128 bytes by
//! which the outermost level has changed. A measure costs 1 for each 128 bytes of the outermost
//! level, which are five strings. So a measure happens at the latest when the container has
//! doubled, or after as many writes as a fifth of its items; on average a write measures about five
//! items. At the end the account gives back exactly what it counted, so no error stays in the
//! heap's books.

use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of the outermost level that cost one payment.
const UNIT: usize = 128;

/// The account: the low 48 bits hold the bytes, the high 16 what must still be paid for the next
/// measure.
#[derive(Debug)]
pub(crate) struct Books(AtomicU64);

const CLOSED: u64 = u64::MAX;
const BYTES: u64 = (1 << 48) - 1;
/// The greatest price; it keeps an open account distinct from a closed one.
const PRICE: usize = u16::MAX as usize - 1;

impl Books {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(CLOSED))
    }

    /// Returns the bytes that are counted, or `None` if the account is closed.
    #[inline]
    pub(crate) fn counted(&self) -> Option<usize> {
        // Relaxed (here and below): statistics only. A thread that changes the account holds the
        // lock for writing, or has the object for itself.
        match self.0.load(Ordering::Relaxed) {
            CLOSED => None,
            open => Some((open & BYTES) as usize),
        }
    }

    fn set(&self, bytes: usize, to_pay: usize) {
        let bytes = (bytes as u64).min(BYTES);
        let to_pay = to_pay.min(PRICE) as u64;
        self.0.store(bytes | to_pay << 48, Ordering::Relaxed);
    }

    /// Opens the account with `bytes`, of which the outermost level has `outermost`. Returns what
    /// it holds.
    pub(crate) fn open(&self, bytes: usize, outermost: usize) -> usize {
        self.set(bytes, outermost / UNIT);
        self.counted().unwrap_or(0)
    }

    /// Closes the account and returns what it held.
    pub(crate) fn close(&self) -> usize {
        let counted = self.counted();
        self.0.store(CLOSED, Ordering::Relaxed);
        counted.unwrap_or(0)
    }

    /// Counts a write that changed the outermost level from `before` to `after`; `all` measures
    /// everything. Returns by how much the account has changed.
    #[inline]
    pub(crate) fn change(&self, before: usize, after: usize, all: impl FnOnce() -> usize) -> i64 {
        let word = self.0.load(Ordering::Relaxed);
        if word == CLOSED {
            return 0;
        }
        let (counted, to_pay) = ((word & BYTES) as usize, (word >> 48) as usize);
        let paid = 1 + after.abs_diff(before) / UNIT;
        if paid >= to_pay {
            self.set(all(), after / UNIT);
        } else if after >= before {
            self.set(counted.saturating_add(after - before), to_pay - paid);
        } else {
            self.set(counted.saturating_sub(before - after), to_pay - paid);
        }
        signed(self.counted().unwrap_or(0)) - signed(counted)
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_says_what_was_counted_and_no_more() {
        let books = Books::new();
        assert_eq!((books.counted(), books.change(0, 500, || 500)), (None, 0));
        assert_eq!(books.open(10_000, 1280), 10_000);
        // Ten payments are due.
        assert_eq!(books.change(1280, 1280, || unreachable!("not paid yet")), 0);
        assert_eq!(
            books.change(1280, 1408, || unreachable!("not paid yet")),
            128
        );
        assert_eq!(
            books.change(1408, 1280, || unreachable!("not paid yet")),
            -128
        );
        assert_eq!(books.change(1280, 2560, || 70_000), 60_000);
        assert_eq!((books.close(), books.counted()), (70_000, None));
    }

    #[test]
    fn measures_are_rare_beside_writes() {
        let books = Books::new();
        books.open(0, 0);
        let (mut visited, mut outermost) = (0, 0);
        let writes = 100_000;
        for write in 1..=writes {
            // The map of strings has one more entry each time.
            let before = std::mem::replace(&mut outermost, write * 25);
            books.change(before, outermost, || {
                visited += write;
                outermost + write * 8
            });
        }
        assert!(visited < 20 * writes, "{visited}");
        let counted = books.counted().unwrap_or(0);
        assert!(counted > outermost + writes * 4, "{counted}");
    }

    #[test]
    fn a_full_account_is_open() {
        let books = Books::new();
        assert_eq!(books.open(usize::MAX, usize::MAX), BYTES as usize);
        assert_eq!(books.close(), BYTES as usize);
    }
}
