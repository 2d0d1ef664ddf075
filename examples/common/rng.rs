//! Random numbers that are the same in every run with the same seed.

/// SplitMix64: one addition and a mix. Good enough to choose what to do next.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// A stream of its own for each `(seed, stream)`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream.wrapping_add(0x9E37_79B9_7F4A_7C15))))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `limit`, which is not zero. The bias of at most `limit / 2^32` does not
    /// matter here, so one multiplication does instead of a division.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        debug_assert!(limit > 0 && limit <= u32::MAX as usize);
        (((self.next() >> 32) * limit as u64) >> 32) as usize
    }
}

/// Spreads every bit of `value` over the whole word.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
