//! Which idle pages go back to the system first, and how they do.
//!
//! A release has three steps, so that the lock of the page heap is free during the system call:
//! [`PageHeap::take_idle`] marks a run as leaving, `mheap` calls the system, and
//! [`PageHeap::finish_release`] or [`PageHeap::cancel_release`] makes the run free again.
//!
//! **The order.** Groups of 2 MiB that are wholly free go first, because the system may have put a
//! huge page behind one. After them the highest addresses go first, because first fit reuses low
//! ones.
//!
//! If a part of a huge page is given back, the program's translation cache loses the huge page, and
//! its memory may stay bound until the system splits it. So a group is not split while it is free.
//! Unless the release is forced, it is not touched while nearly all of it is in use either (Go
//! runtime, `mgcscavenge.go`).
//!
//! A search begins where the hints lead it: [I1] of `hints.rs`.
//!
//! **Concurrency.** This is part of the page heap, behind its lock.

use super::PageHeap;
use super::chunk::{CHUNK_PAGES, Chunk};
use super::hints::{Effort, GROUP_PAGES, Level};
use crate::heap::run::PageId;

impl PageHeap {
    /// Takes idle pages of one group out, to be given back: the highest run, in the order of the
    /// head. It takes at most `most` pages (0 counts as 1), from the run's upper end; but what is
    /// left idle of a wholly free group goes as a whole.
    ///
    /// The pages are leaving until [`finish_release`](Self::finish_release) or
    /// [`cancel_release`](Self::cancel_release).
    pub(crate) fn take_idle(&mut self, most: u32, effort: Effort) -> Option<(PageId, u32)> {
        let levels: &[Level] = match effort {
            Effort::Gentle => &[Level::Whole, Level::Sparse],
            Effort::Forced => &[Level::Whole, Level::Sparse, Level::Any],
        };
        let (start, end) = levels.iter().find_map(|&level| {
            let (start, end) = self.highest_idle(level)?;
            let most = match level {
                Level::Whole => GROUP_PAGES,
                _ => most.clamp(1, GROUP_PAGES).next_multiple_of(self.grain),
            };
            Some((start.max(end.saturating_sub(most)), end))
        })?;
        let pages = end - start;
        self.occupy(start, pages);
        self.mark_each(start, pages, Chunk::set_leaving);
        self.leaving += pages;
        Some((PageId(start), pages))
    }

    /// Makes what [`take_idle`](Self::take_idle) returned free and released: the system has taken
    /// its memory.
    pub(crate) fn finish_release(&mut self, at: PageId, pages: u32) {
        debug_assert!(self.is_leaving(at), "only leaving pages can be released");
        self.leaving -= pages;
        self.released += pages;
        self.vacate(at.0, pages);
    }

    /// Makes the pages idle again, because the system refused. Their chunk is not searched again
    /// before another page is freed there.
    pub(crate) fn cancel_release(&mut self, at: PageId, pages: u32) {
        debug_assert!(self.is_leaving(at), "only leaving pages can stay");
        self.leaving -= pages;
        self.mark_each(at.0, pages, Chunk::clear_leaving);
        self.vacate(at.0, pages);
        let chunk = (at.0 / CHUNK_PAGES) as usize;
        for level in [Level::Whole, Level::Sparse, Level::Any] {
            self.hints.clear(chunk, level);
        }
    }

    /// Makes all chunks searched again, even for what the system refused before. O(chunks).
    pub(crate) fn search_all_again(&mut self) {
        (0..self.levels[0].len()).for_each(|chunk| self.hint(chunk));
    }

    /// Returns the highest run of idle pages in a group that the level admits.
    fn highest_idle(&mut self, level: Level) -> Option<(u32, u32)> {
        while let Some(chunk) = self.hints.highest(level) {
            let base = chunk as u32 * CHUNK_PAGES;
            let found = [GROUP_PAGES, 0]
                .into_iter()
                .find_map(|group| idle_in_group(&self.chunks[chunk], group, level, self.grain));
            match found {
                Some((start, end)) => return Some((base + start, base + end)),
                None => self.hints.clear(chunk, level),
            }
        }
        None
    }
}

/// Returns the highest run of idle pages, cut to multiples of `grain`, in the group that starts at
/// page `group` of the chunk.
fn idle_in_group(chunk: &Chunk, group: u32, level: Level, grain: u32) -> Option<(u32, u32)> {
    if !level.admits(chunk.used_in(group, group + GROUP_PAGES)) {
        return None;
    }
    let mut end = group + GROUP_PAGES;
    loop {
        let run = chunk.highest_idle(group, end)?;
        let (from, to) = (run.start.next_multiple_of(grain), run.end / grain * grain);
        if from < to {
            return Some((from, to));
        }
        end = run.start;
    }
}
