//! The objects on the heap, and the ledger that knows which of them are alive.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use greywave::{Gc, GcCell, GcLock, Mutator, Trace};

use crate::common::rng::{Rng, mix};

/// Every node that was made and not dropped yet, by its number.
#[derive(Debug)]
pub(crate) struct Ledger {
    shards: [Mutex<HashSet<u64>>; 64],
    wrong: Mutex<Option<String>>,
}

/// The one of this process. A static, for a node that points to its ledger would be larger than
/// what it tests.
pub(crate) static LEDGER: LazyLock<Ledger> = LazyLock::new(|| Ledger {
    shards: std::array::from_fn(|_| Mutex::default()),
    wrong: Mutex::default(),
});

/// Locks it, also after a panic.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Sets and notes are whole after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    fn shard(&self, id: u64) -> MutexGuard<'_, HashSet<u64>> {
        locked(&self.shards[(id % 64) as usize])
    }

    fn born(&self, id: u64) {
        if !self.shard(id).insert(id) {
            self.note(format!("node {id} was made twice"));
        }
    }

    fn gone(&self, id: u64) {
        if !self.shard(id).remove(&id) {
            self.note(format!("node {id} was dropped, and was not alive"));
        }
    }

    fn note(&self, what: String) {
        locked(&self.wrong).get_or_insert(what);
    }

    /// The first thing that went wrong.
    pub(crate) fn wrong(&self) -> Option<String> {
        locked(&self.wrong).clone()
    }

    pub(crate) fn alive(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).len()).sum()
    }
}

/// Tells the ledger of its end. A field of its own: what holds a `Gc` has no `Drop`.
#[derive(Debug, Trace)]
struct Ticket(u64);

impl Drop for Ticket {
    fn drop(&mut self) {
        LEDGER.gone(self.0);
    }
}

/// A node of the graphs.
#[derive(Trace)]
pub(crate) struct Node<'gc> {
    pub(crate) id: u64,
    check: u64,
    /// Follow from the id.
    words: Gc<'gc, [u64]>,
    /// Known to the model of whoever owns the node.
    pub(crate) next: GcCell<'gc, Self>,
    /// A node of anybody.
    pub(crate) foreign: GcCell<'gc, Self>,
    /// Known to the model.
    pub(crate) list: GcLock<Vec<Gc<'gc, Self>>>,
    ticket: Ticket,
}

pub(crate) type NodePtr<'gc> = Gc<'gc, Node<'gc>>;

impl<'gc> Node<'gc> {
    /// A new one, of a random size.
    pub(crate) fn alloc(m: &'gc Mutator, id: u64, rng: &mut Rng) -> NodePtr<'gc> {
        let words = match rng.below(500) {
            0 => 5_000 + rng.below(10_000),
            at => at % 24,
        };
        let words = m.alloc_slice(words, |at| mix(id ^ at as u64));
        LEDGER.born(id);
        m.alloc(Self {
            id,
            check: mix(id),
            words,
            next: GcCell::null(),
            foreign: GcCell::null(),
            list: GcLock::default(),
            ticket: Ticket(id),
        })
    }

    /// Its number, if all that follows from it is whole.
    pub(crate) fn checked(&self) -> Result<u64, String> {
        let id = self.id;
        let words = &*self.words;
        let middle = words.len() / 2;
        let is_whole = |at: usize| {
            words
                .get(at)
                .is_none_or(|word| *word == mix(id ^ at as u64))
        };
        if self.check != mix(id) || self.ticket.0 != id || !is_whole(0) || !is_whole(middle) {
            return Err(format!("node {id} is damaged"));
        }
        Ok(id)
    }

    /// Lets go of all it leads to.
    pub(crate) fn clear(&self, m: &Mutator) {
        self.next.set(m, None);
        self.foreign.set(m, None);
        *self.list.write(m) = Vec::new();
    }
}

/// A table of nodes.
#[derive(Trace)]
pub(crate) struct Slots<'gc>(pub(crate) Gc<'gc, [GcCell<'gc, Node<'gc>>]>);

/// Large objects, each of words that follow from its first one.
#[derive(Trace)]
pub(crate) struct Heavy<'gc>(pub(crate) GcLock<Vec<Gc<'gc, [u64]>>>);

/// A large object: its seed, and words that follow from it.
pub(crate) fn heavy_words(m: &Mutator, len: usize, seed: u64) -> Gc<'_, [u64]> {
    m.alloc_slice(len, |at| if at == 0 { seed } else { mix(seed ^ at as u64) })
}

/// Looks at a word of each page.
pub(crate) fn check_heavy(words: &[u64]) -> Result<(), String> {
    let seed = words[0];
    let mut pages = words.iter().enumerate().skip(1).step_by(512);
    match pages.find(|(at, word)| **word != mix(seed ^ *at as u64)) {
        Some((at, _)) => Err(format!(
            "word {at} of a large object of {} is damaged",
            words.len()
        )),
        None => Ok(()),
    }
}

/// A link of a long chain.
#[derive(Trace)]
pub(crate) struct Link<'gc> {
    pub(crate) number: u64,
    pub(crate) next: GcCell<'gc, Self>,
}

/// Nodes that everybody shows everybody, and one index of all.
#[derive(Trace)]
pub(crate) struct Board<'gc> {
    pub(crate) shown: Gc<'gc, [GcCell<'gc, Node<'gc>>]>,
    pub(crate) index: GcLock<std::collections::HashMap<u64, NodePtr<'gc>>>,
}
