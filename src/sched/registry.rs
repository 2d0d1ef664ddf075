//! All Gs that have not ended, in lists with a lock each.
//!
//! Ended ones are taken out many at a time, so that those who spawn and those who run seldom meet at a lock. How many there
//! are is counted apart, exactly: what was added to each list, less what has ended on each P. Each of these numbers only
//! grows, and a reader takes those that have ended first; so it may see too many, never too few.

use std::ptr::NonNull;

use crate::sched::list::List;
use crate::sched::task::{GRef, Header};
use crate::sys::lock::Brief;
use crate::sys::sync::{AtomicU64, Ordering};

/// See the module's head. A list holds one reference of each of its Gs.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: Box<[Shard]>,
    census: Census,
}

/// A list on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Shard {
    list: Brief<List<Header>>,
}

/// A number that one thread at a time adds to, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Count(AtomicU64);

impl Count {
    fn add_one(&self) {
        // Relaxed: nobody else writes it now.
        let before = self.0.load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `Census::len`.
        self.0.store(before + 1, Ordering::Release);
    }
}

/// How many there are.
#[derive(Debug)]
pub(crate) struct Census {
    /// For each list, Gs that were ever put in.
    added: Box<[Count]>,
    /// For each P, Gs that have ended on it; and for those that ended elsewhere.
    ended: Box<[Count]>,
}

impl Census {
    pub(crate) fn new(shards: usize, procs: usize) -> Self {
        let counts = |n| (0..n).map(|_| Count(AtomicU64::new(0))).collect();
        Self {
            added: counts(shards),
            ended: counts(procs + 1),
        }
    }

    /// By the holder of the list's lock.
    pub(crate) fn add(&self, shard: usize) {
        self.added[shard].add_one();
    }

    /// By the holder of `proc`, or anyone.
    pub(crate) fn end(&self, proc: Option<usize>) {
        match proc {
            Some(proc) => self.ended[proc].add_one(),
            None => {
                let elsewhere = &self.ended[self.ended.len() - 1].0;
                // Release: as in `add_one`.
                elsewhere.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// See the module's head.
    pub(crate) fn len(&self) -> usize {
        // Acquire (both): that a G was added is known to whoever ended it, so it is seen by whoever sees its end.
        let sum = |counts: &[Count]| -> u64 {
            let all = counts.iter().map(|count| count.0.load(Ordering::Acquire));
            all.sum()
        };
        let ended = sum(&self.ended);
        (sum(&self.added) - ended) as usize
    }
}

/// Gs that have ended on this thread and are still in their lists.
#[derive(Debug, Default)]
pub(crate) struct Ended(Vec<NonNull<Header>>);

impl Ended {
    /// So many are taken out at once.
    const MANY: usize = 64;

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= Self::MANY
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Registry {
    pub(crate) fn new(shards: usize, procs: usize) -> Self {
        debug_assert!(shards.is_power_of_two() && shards <= 256, "{shards} lists");
        let shard = || Shard {
            list: Brief::new(List::new()),
        };
        Self {
            shards: std::iter::repeat_with(shard).take(shards).collect(),
            census: Census::new(shards, procs),
        }
    }

    /// A list for a G, by any number: a P's index, or a count.
    pub(crate) fn shard_at(&self, number: usize) -> u8 {
        // There are as many as a power of two, and no more than that has room for.
        (number & (self.shards.len() - 1)) as u8
    }

    /// Takes a reference over.
    pub(crate) fn add(&self, g: GRef) {
        let shard = g.header().shard();
        let mut list = self.shards[shard].list.lock();
        // SAFETY: 1. a new G is in no list of all Gs; it is kept by its reference. 2. the lock is held.
        unsafe { list.push_back(g.into_raw()) };
        self.census.add(shard);
    }

    /// A G has ended, on `proc` if the caller holds one; it counts no more, and [`remove_all`](Self::remove_all) will take it
    /// out of its list. Once for each G.
    pub(crate) fn note_end(&self, g: &GRef, proc: Option<usize>, ended: &mut Ended) {
        self.census.end(proc);
        ended.0.push(g.as_ptr());
    }

    /// Takes those that have ended out of their lists, and gives the lists' references back. Each lock is taken once.
    pub(crate) fn remove_all(&self, ended: &mut Ended) {
        let mut gs = std::mem::take(&mut ended.0);
        while let Some(&first) = gs.first() {
            // SAFETY: the list's reference keeps it.
            let index = unsafe { first.as_ref() }.shard();
            let mut of_list = Vec::with_capacity(gs.len());
            {
                let mut list = self.shards[index].list.lock();
                gs.retain(|&header| {
                    // SAFETY: as above.
                    let is_here = unsafe { header.as_ref() }.shard() == index;
                    if is_here {
                        // SAFETY: 1. added when it was made, and removed once. The lock is held.
                        unsafe { list.remove(header) };
                        // SAFETY: the list's reference.
                        of_list.push(unsafe { GRef::from_raw(header) });
                    }
                    !is_here
                });
            }
            // Freed without the lock.
            drop(of_list);
        }
        ended.0 = gs;
    }

    /// How many there are. O(shards + Ps). May be more than there are if some end meanwhile, never less.
    pub(crate) fn len(&self) -> usize {
        self.census.len()
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
                if !of_list.header().state.is_done() {
                    out.push(GRef::clone(&of_list));
                }
                // SAFETY: as above.
                at = unsafe { list.next(header) };
            }
        }
        out
    }

    /// What `read` reads of the G at that address, if it is one of these. No reference is taken, so none is dropped here.
    pub(crate) fn find<R>(&self, address: usize, read: impl Fn(&Header) -> R) -> Option<R> {
        self.shards.iter().find_map(|shard| {
            let list = shard.list.lock();
            let mut at: Option<NonNull<Header>> = list.first();
            while let Some(header) = at {
                if header.as_ptr().addr() == address {
                    // SAFETY: in the list, whose lock is held, so the list's reference keeps it.
                    return Some(read(unsafe { header.as_ref() }));
                }
                // SAFETY: as above.
                at = unsafe { list.next(header) };
            }
            None
        })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // [A6]
        debug_assert_eq!(self.len(), 0, "a G outlives its runtime");
    }
}
