//! Where idle pages may be: hints for the search, and what it may take.
//!
//! **Invariants**
//! - [I1] A chunk with an idle page has a hint, at the levels at which it has something to take;
//!   unless all there is was looked at and not taken: in groups nearly all in use, or refused by
//!   the system. It gets its hints back with the next page that is freed there, and when somebody
//!   asks for all that is idle. A hint where there is nothing is taken away by the search that it
//!   leads there. So a search visits, but for one word for 64 chunks, no more chunks than frees, or
//!   who asks for all, have led it to.
//!
//! **Concurrency.** Part of the page heap, behind its lock.

/// The pages of a group: a huge page of x86-64 and most others.
pub(super) const GROUP_PAGES: u32 = 256;

/// A group with as many pages in use is nearly full: 31 of 32.
pub(super) const DENSE: u32 = GROUP_PAGES / 32 * 31;

/// How hard a release tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Leaves alone what is idle in groups nearly all in use.
    Gentle,
    /// Takes whatever is idle.
    Forced,
}

/// The groups that one search looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Wholly free.
    Whole,
    /// Not dense.
    Sparse,
    Any,
}

impl Level {
    /// Whether to look into a group of which so many pages are in use.
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

    /// The highest chunk with a hint.
    pub(super) fn highest(&self, level: Level) -> Option<usize> {
        let word = self.0.iter().rposition(|word| word[level as usize] != 0)?;
        Some(word * 64 + self.0[word][level as usize].ilog2() as usize)
    }

    pub(super) fn set(&mut self, chunk: usize, whole: bool) {
        let word = &mut self.0[chunk / 64];
        let bit = 1 << (chunk % 64);
        word[Level::Whole as usize] |= bit * u64::from(whole);
        word[Level::Sparse as usize] |= bit;
        word[Level::Any as usize] |= bit;
    }

    pub(super) fn clear(&mut self, chunk: usize, level: Level) {
        self.0[chunk / 64][level as usize] &= !(1 << (chunk % 64));
    }
}
