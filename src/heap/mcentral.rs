//! The middle tier: for each span class, the spans that no mutator caches.
//!
//! Three lists. At the end of marking every swept span becomes unswept at once; instead of moving
//! them then, each class turns its lists over when it is first asked in the new generation.
//!
//! A list may hold stale entries (spans that the background sweeper has swept or freed since); an
//! entry counts only if the span can be claimed, so it is harmless, and `unswept` is emptied at the
//! turn.

use crate::base::crowd::shrink_after_crowd;
use crate::heap::span::HeapGen;
use crate::sys::lock::{Held, Rank, Ranked};

/// For how many spans a list keeps room, however few are in it.
const LISTED: usize = 256;

/// The sets of one span class.
#[derive(Debug)]
pub(crate) struct Central {
    sets: Ranked<Sets>,
}

/// Spans by first page.
#[derive(Debug)]
pub(crate) struct Sets {
    generation: u64,
    /// Swept, with free slots.
    pub(crate) partial: Vec<u32>,
    /// Swept, no free slot.
    pub(crate) full: Vec<u32>,
    /// To be swept; may be stale.
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

    /// The sets, turned over to generation `now`.
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
        // By what the last cycle has left in them: emptied below, they would lose all of their room
        // each time.
        shrink_after_crowd(&mut self.full, LISTED);
        shrink_after_crowd(&mut self.partial, LISTED);
        let Self {
            partial,
            full,
            unswept,
            ..
        } = self;
        if one_cycle_ago {
            // Partial ones last, so that they are popped first: they have free slots for sure.
            unswept.append(full);
            unswept.append(partial);
        } else {
            // A span of this class that outlived a sweep was put into a list then, which turned
            // them over. Nobody has turned them over, so all of these are gone, and their pages may
            // be others' by now.
            full.clear();
            partial.clear();
        }
        shrink_after_crowd(unswept, LISTED);
    }
}
