//! Strings: one object for each text, found through a table that does not keep them alive.

use greywave::{Gc, GcLock, Mutator, Trace, Weak};

use crate::object::Text;

/// Parts of the table, each with a lock of its own.
const SHARDS: usize = 16;
/// Entries of a part at first.
const FIRST_LEN: usize = 64;

/// The table of strings.
#[derive(Debug, Trace)]
pub(crate) struct Strings<'gc> {
    shards: [GcLock<Shard<'gc>>; SHARDS],
}

#[derive(Debug, Trace)]
struct Entry<'gc> {
    hash: u64,
    text: Weak<'gc, Text>,
}

/// An open-addressed table. An entry whose string is dead stays until the table grows.
#[derive(Debug, Trace)]
struct Shard<'gc> {
    entries: Vec<Option<Entry<'gc>>>,
    used: usize,
}

impl<'gc> Strings<'gc> {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| {
                GcLock::new(Shard {
                    entries: (0..FIRST_LEN).map(|_| None).collect(),
                    used: 0,
                })
            }),
        }
    }

    /// The string with this text.
    pub(crate) fn intern(&self, m: &'gc Mutator, text: &[u8]) -> Gc<'gc, Text> {
        let hash = hash_of(text);
        let shard = &self.shards[(hash >> 60) as usize % SHARDS];
        if let Some(found) = shard.read().find(m, hash, text) {
            return found;
        }
        let mut shard = shard.write(m);
        if let Some(found) = shard.find(m, hash, text) {
            return found;
        }
        let new: Gc<'gc, Text> = m.alloc_array(hash, text.len(), |i| text[i]);
        shard.insert(m, hash, Gc::downgrade(new, m));
        new
    }
}

impl<'gc> Shard<'gc> {
    fn find(&self, m: &'gc Mutator, hash: u64, text: &[u8]) -> Option<Gc<'gc, Text>> {
        let mask = self.entries.len() - 1;
        let mut at = hash as usize & mask;
        while let Some(entry) = &self.entries[at] {
            if entry.hash == hash
                && let Some(found) = entry.text.upgrade(m)
                && found.items() == text
            {
                return Some(found);
            }
            at = (at + 1) & mask;
        }
        None
    }

    fn insert(&mut self, m: &'gc Mutator, hash: u64, text: Weak<'gc, Text>) {
        if self.used * 4 >= self.entries.len() * 3 {
            self.rebuild(m);
        }
        let mask = self.entries.len() - 1;
        let mut at = hash as usize & mask;
        while self.entries[at].is_some() {
            at = (at + 1) & mask;
        }
        self.entries[at] = Some(Entry { hash, text });
        self.used += 1;
    }

    /// Leaves the dead out, and makes the table fit the living.
    fn rebuild(&mut self, m: &'gc Mutator) {
        let old = std::mem::take(&mut self.entries);
        let living: Vec<_> = old
            .into_iter()
            .flatten()
            .filter(|entry| entry.text.upgrade(m).is_some())
            .collect();
        let len = ((living.len() + 1) * 2).next_power_of_two().max(FIRST_LEN);
        self.entries = (0..len).map(|_| None).collect();
        self.used = 0;
        for entry in living {
            self.insert(m, entry.hash, entry.text);
        }
    }
}

/// A quick hash: eight bytes at a time, rotate and multiply, with a final mix.
fn hash_of(text: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = text.len() as u64;
    let mut step = |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let mut words = text.chunks_exact(8);
    for word in &mut words {
        step(word.iter().fold(0, |all, &byte| all << 8 | u64::from(byte)));
    }
    step(
        words
            .remainder()
            .iter()
            .fold(0, |all, &byte| all << 8 | u64::from(byte)),
    );
    hash ^ hash >> 32
}

/// The text of a string.
pub(crate) fn text_of(text: Gc<'_, Text>) -> String {
    String::from_utf8_lossy(text.items()).into_owned()
}
