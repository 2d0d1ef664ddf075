//! All Gs that have not ended, in lists with a lock each.

use std::ptr::NonNull;

use crate::sched::list::List;
use crate::sched::task::{GRef, Header};
use crate::sys::lock::Unranked;
use crate::sys::sync::{AtomicUsize, Ordering};

/// See the module's head. A list holds one reference of each of its Gs.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: Box<[Shard]>,
}

/// A list on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Shard {
    list: Unranked<List<Header>>,
    /// A mirror of its length.
    len: AtomicUsize,
}

impl Registry {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards)
                .map(|_| Shard {
                    list: Unranked::new(List::new()),
                    len: AtomicUsize::new(0),
                })
                .collect(),
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    fn shard_of(&self, g: &GRef) -> &Shard {
        &self.shards[usize::from(g.header().shard)]
    }

    /// Takes a reference over.
    pub(crate) fn add(&self, g: GRef) {
        let shard = self.shard_of(&g);
        let mut list = shard.list.lock();
        // SAFETY: 1. a new G is in no list of all Gs; it is kept by its reference. 2. the lock is held.
        unsafe { list.push_back(g.into_raw()) };
        // Relaxed: a figure.
        shard.len.store(list.len(), Ordering::Relaxed);
    }

    /// Gives the reference back. The G has ended, and this is called once for it.
    pub(crate) fn remove(&self, g: &GRef) -> GRef {
        let shard = self.shard_of(g);
        let mut list = shard.list.lock();
        // SAFETY: 1. added when it was made, and removed once. The lock is held.
        unsafe { list.remove(g.as_ptr()) };
        // Relaxed: a figure.
        shard.len.store(list.len(), Ordering::Relaxed);
        drop(list);
        // SAFETY: the list's.
        unsafe { GRef::from_raw(g.as_ptr()) }
    }

    /// How many there are. O(shards).
    pub(crate) fn len(&self) -> usize {
        // Relaxed: a figure.
        let len = |shard: &Shard| shard.len.load(Ordering::Relaxed);
        self.shards.iter().map(len).sum()
    }

    /// References to all of them, for a report or the end. O(Gs); spawning in a shard waits while it is copied.
    pub(crate) fn all(&self) -> Vec<GRef> {
        let mut out = Vec::with_capacity(self.len());
        for shard in &self.shards {
            let list = shard.list.lock();
            let mut at: Option<NonNull<Header>> = list.first();
            while let Some(header) = at {
                // SAFETY: in the list, whose lock is held, so it has the list's reference.
                let of_list = std::mem::ManuallyDrop::new(unsafe { GRef::from_raw(header) });
                out.push(GRef::clone(&of_list));
                // SAFETY: as above.
                at = unsafe { list.next(header) };
            }
        }
        out
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // A G keeps its runtime, so nobody is left by now.
        debug_assert_eq!(self.len(), 0, "a G outlives its runtime");
    }
}
