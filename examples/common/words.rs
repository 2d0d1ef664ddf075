//! Random texts, and a checksum that distinguishes them.

use std::sync::Arc;

use super::rng::{Rng, mix};

/// Makes texts: pieces of one long random string, so that a text costs its copy and not a
/// hundred random numbers.
#[derive(Debug)]
pub(crate) struct Words(String);

impl Words {
    const SHORTEST: usize = 40;
    const LONGEST: usize = 320;

    pub(crate) fn new(rng: &mut Rng) -> Self {
        let letter = |_| char::from(b" eeeeettaaoiinnsshrdlucm"[rng.below(24)]);
        Self((0..64 * Self::LONGEST).map(letter).collect())
    }

    /// The same for all who have the same seed.
    pub(crate) fn shared(seed: u64) -> Arc<Self> {
        Arc::new(Self::new(&mut Rng::new(seed, u64::MAX)))
    }

    /// The next text, of 40 to 320 letters.
    pub(crate) fn next(&self, rng: &mut Rng) -> &str {
        let len = Self::SHORTEST + rng.below(Self::LONGEST - Self::SHORTEST);
        let start = rng.below(self.0.len() - len);
        &self.0[start..start + len]
    }
}

/// A sum that differs for different texts, a word at a time.
pub(crate) fn checksum(text: &str) -> u64 {
    let mut chunks = text.as_bytes().chunks_exact(8);
    let mut sum = text.len() as u64;
    for chunk in chunks.by_ref() {
        sum = mix(sum ^ chunk.try_into().map_or(0, u64::from_le_bytes));
    }
    let rest = chunks.remainder().iter();
    rest.fold(sum, |sum, byte| mix(sum ^ u64::from(*byte)))
}
