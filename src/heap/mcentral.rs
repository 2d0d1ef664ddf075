//! The middle tier of the allocator: for each span class, the spans that no mutator caches.
//!
//! There are three lists. At the end of marking every swept span becomes unswept at once. The spans
//! are not moved then; each class turns its lists over when it is first used in the new generation.
//!
//! A list may have stale entries: spans that the background sweeper has swept or freed since. An
//! entry counts only if its span can be claimed, so a stale one is harmless. `unswept` is emptied
//! at the turn.

use crate::base::crowd::shrink_after_crowd;
use crate::heap::span::HeapGen;
use crate::sys::lock::{Held, Rank, Ranked};

/// The number of spans for which a list always keeps room.
const LISTED: usize = 256;

/// The span lists of one class.
#[derive(Debug)]
pub(crate) struct Central {
    sets: Ranked<Sets>,
}

/// The lists, which hold spans by their first pages.
#[derive(Debug)]
pub(crate) struct Sets {
    generation: u64,
    /// Swept spans with free slots.
    pub(crate) partial: Vec<u32>,
    /// Swept spans without a free slot.
    pub(crate) full: Vec<u32>,
    /// Spans to be swept; an entry may be stale.
    pub(crate) unswept: Vec<u32>,
}

impl Central {
    pub(crate) fn new() -> Self {
        let sets = Sets {
            generation: HeapGen::FIRST.0,
            partial: Vec::new(),
            full: Vec::new(),
            unswept: Vec::new(),
        };
        Self {
            sets: Ranked::new(Rank::Central, sets),
        }
    }

    /// Locks the lists, turned over to generation `now`.
    pub(crate) fn lock(&self, now: HeapGen) -> Held<'_, Sets> {
        let mut sets = self.sets.lock();
        if sets.generation != now.0 {
            sets.turn_over(now);
        }
        sets
    }
}

impl Sets {
    fn turn_over(&mut self, now: HeapGen) {
        let one_cycle_ago = HeapGen(self.generation).next() == now;
        self.generation = now.0;
        self.unswept.clear();
        // The lists shrink by what the last cycle has left in them; after they are emptied below,
        // they would lose all their room each time.
        shrink_after_crowd(&mut self.full, LISTED);
        shrink_after_crowd(&mut self.partial, LISTED);
        let Self {
            partial,
            full,
            unswept,
            ..
        } = self;
        if one_cycle_ago {
            // The partial spans come last, and so are popped first, because they surely have free
            // slots.
            unswept.append(full);
            unswept.append(partial);
        } else {
            // If a span of this class had survived a sweep, it would have been put into a list
            // then, and that would have turned the lists over. Nobody has turned them over, so all
            // these spans are gone, and their pages may belong to other spans.
            full.clear();
            partial.clear();
        }
        shrink_after_crowd(unswept, LISTED);
    }
}
