//! Hints that say where idle pages may be, and which groups of pages a search may take from.
//!
//! **Claim.** A search reads one word for each 64 chunks. Apart from that it visits only chunks
//! with a hint, and each hint was set by a free, or by a request for all idle memory.
//!
//! **Invariants**
//! - [I1] A chunk with an idle page has a hint at each level at which something can be taken from
//!   it. The exception is a chunk whose idle pages were all looked at and not taken: they are in
//!   groups that are nearly all in use, or the system refused them. Such a chunk gets its hints
//!   back when the next page is freed there, and when all idle memory is requested. A search that
//!   follows a hint and finds nothing removes the hint.
//!
//! **Concurrency.** The hints are part of the page heap, behind its lock.

/// The pages of a group: a huge page of x86-64 and most other systems.
pub(super) const GROUP_PAGES: u32 = 256;

/// A group with this many pages in use is nearly full: 31 of 32.
pub(super) const DENSE: u32 = GROUP_PAGES / 32 * 31;

/// How hard a release tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// It leaves idle pages alone in groups that are nearly all in use.
    Gentle,
    /// It takes every idle page.
    Forced,
}

/// The groups that one search considers, the strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Groups that are wholly free.
    Whole,
    /// Groups that are not dense.
    Sparse,
    Any,
}

impl Level {
    /// Whether to look into a group that has `used` pages in use.
    pub(super) const fn admits(self, used: u32) -> bool {
        match self {
            Self::Whole => used == 0,
            Self::Sparse => used < DENSE,
            Self::Any => true,
        }
    }
}

/// For each level, a bit for each chunk: 1 = there may be idle pages [I1].
#[derive(Debug)]
pub(super) struct Hints(Vec<[u64; 3]>);

impl Hints {
    pub(super) const NONE: Self = Self(Vec::new());

    pub(super) fn resize(&mut self, chunks: usize) {
        self.0.resize(chunks.div_ceil(64), [0; 3]);
    }

    pub(super) fn metadata_bytes(&self) -> usize {
        self.0.capacity() * size_of::<[u64; 3]>()
    }

    /// Returns the highest chunk with a hint.
    pub(super) fn highest(&self, level: Level) -> Option<usize> {
        let word = self.0.iter().rposition(|word| word[level as usize] != 0)?;
        Some(word * 64 + self.0[word][level as usize].ilog2() as usize)
    }

    /// Gives the chunk hints at the level `strictest` and at each one that admits more.
    pub(super) fn set(&mut self, chunk: usize, strictest: Level) {
        let bit = 1 << (chunk % 64);
        for word in &mut self.0[chunk / 64][strictest as usize..] {
            *word |= bit;
        }
    }

    pub(super) fn clear(&mut self, chunk: usize, level: Level) {
        self.0[chunk / 64][level as usize] &= !(1 << (chunk % 64));
    }
}
