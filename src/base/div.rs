//! Exact division without a divide instruction, by a number that is known long before the dividend.
//!
//! A span keeps the `MagicDiv` of its slot size, by which one multiplication turns an address in
//! the span into a slot number. Marking does that for every pointer it meets. A hardware divide is
//! several times slower than a multiply, and is not pipelined on many CPUs.
//!
//! **Why it is exact.** For a divisor `d` keep `m = floor((2^64 - 1) / d)`, so `m * d = 2^64 - e`
//! with `1 <= e <= d`. Then `(n + 1) * m / 2^64 = (n + 1) / d - (n + 1) * e / (d * 2^64)`: a little
//! less than `(n + 1) / d`. Of the numbers with the quotient `q` the largest, `n = q * d + d - 1`,
//! gives a little less than `q + 1`; the smallest, `n = q * d`, gives `q + 1/d` less at most
//! `(n + 1) / 2^64`, which is at least `q` because `(n + 1) * d <= 2^64`. The floor is `q` for
//! both, and so for all between.
//!
//! **Invariants**
//! - [D1] `div(n) == n / d` for *every* `n: u32` and every `d` in `1..=u32::MAX`, so no range has
//!   to be remembered.
//!
//! **Concurrency.** The value is plain: it is copied and never changed.
//!
//! **Tried and dropped.** A 32-bit magic with a shift of 32 is exact only while `n * d < 2^32`: too
//! little for spans of 80 KiB with slots of 32 KiB. A 64-bit low multiply with a shift of 41 holds
//! for the slot sizes of today but has a range to guard, and costs a multiplication all the same.
//! Rounding `m` up saves the `n + 1`, but then 1 has no magic.

/// A divisor in prepared form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MagicDiv {
    magic: u64,
}

impl MagicDiv {
    /// Prepares division by `size`.
    ///
    /// # Panics
    /// If `size` is 0, as a division would.
    pub(crate) const fn new(size: u32) -> Self {
        Self {
            magic: u64::MAX / size as u64,
        }
    }

    /// Returns `n / size`, exactly [D1].
    #[inline]
    pub(crate) const fn div(self, n: u32) -> u32 {
        (((n as u128 + 1) * self.magic as u128) >> 64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::MagicDiv;

    /// `div` never falls as `n` rises, so being right on both sides of every multiple of the size
    /// below `limit` makes it right for every `n` below `limit`.
    fn check_all_below(size: u32, limit: u32) {
        let magic = MagicDiv::new(size);
        assert_eq!(magic.div(0), 0, "0 / {size}");
        let mut quotient = 0;
        let mut multiple = size;
        while multiple < limit {
            assert_eq!(magic.div(multiple - 1), quotient, "{multiple} - 1 / {size}");
            quotient += 1;
            assert_eq!(magic.div(multiple), quotient, "{multiple} / {size}");
            let Some(next) = multiple.checked_add(size) else {
                break;
            };
            multiple = next;
        }
    }

    #[test]
    fn exact_for_every_slot_size_and_every_offset_below_64_mib() {
        let (step, limit) = if cfg!(miri) {
            (4096, 1 << 16)
        } else {
            (8, 1 << 26)
        };
        for size in (8..=32 << 10).step_by(step) {
            check_all_below(size, limit);
        }
    }

    #[test]
    fn exact_over_all_of_u32_for_sizes_of_every_magnitude() {
        let sizes = (17..32).flat_map(|bits| {
            let power = 1_u32 << bits;
            [
                power - 1,
                power,
                power + 1,
                power + power / 3,
                power + power / 7 * 5,
            ]
        });
        for size in sizes.chain([u32::MAX - 1, u32::MAX]) {
            if !cfg!(miri) || size > 1 << 27 {
                check_all_below(size, u32::MAX);
            }
        }
    }

    #[test]
    fn exact_at_the_end_of_u32_for_small_sizes() {
        let top = if cfg!(miri) { 64 } else { 1 << 16 };
        for size in 1..=top {
            let magic = MagicDiv::new(size);
            for n in (u32::MAX - 2 * size..=u32::MAX).step_by((size as usize / 16).max(1)) {
                assert_eq!(magic.div(n), n / size, "{n} / {size}");
            }
            let last_multiple = u32::MAX / size * size;
            assert_eq!(magic.div(last_multiple), last_multiple / size);
            assert_eq!(magic.div(last_multiple - 1), (last_multiple - 1) / size);
        }
    }

    #[test]
    fn is_usable_in_a_const() {
        const BY_24: MagicDiv = MagicDiv::new(24);
        const SLOT: u32 = BY_24.div(24 * 341 + 23);
        assert_eq!(SLOT, 341);
    }
}
