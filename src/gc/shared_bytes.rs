//! What objects of one heap share outside it, by address: how many of them hold it.
//!
//! This is the table of [O6] in `object/counting.rs`. An entry lives while an object that has been counted holds an `Arc`, which keeps the
//! address from being used for another one. Many mutators allocate at once, so the table is in parts, each under a lock
//! of its own. Nothing of the user's runs under one.

use std::collections::HashMap;

use crate::object::counting::SharedBytes;
use crate::sys::lock::{Rank, Ranked};

const PARTS: usize = 16;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct SharedTable {
    parts: [Ranked<HashMap<usize, usize>>; PARTS],
}

impl SharedTable {
    pub(crate) fn new() -> Self {
        Self {
            parts: std::array::from_fn(|_| Ranked::new(Rank::Shared, HashMap::new())),
        }
    }

    fn part(&self, address: usize) -> &Ranked<HashMap<usize, usize>> {
        // Whatever allocator the address is from, its lowest bits are 0, and its middle ones differ.
        &self.parts[(address >> 4 ^ address >> 12) % PARTS]
    }
}

impl SharedBytes for SharedTable {
    fn add_holder(&self, address: usize) -> bool {
        let mut part = self.part(address).lock();
        let holders = part.entry(address).or_insert(0);
        *holders += 1;
        *holders == 1
    }

    fn remove_holder(&self, address: usize) -> bool {
        let mut part = self.part(address).lock();
        let Some(holders) = part.get_mut(&address) else {
            return false; // never counted: its birth unwound
        };
        *holders -= 1;
        if *holders > 0 {
            return false;
        }
        part.remove(&address);
        // The table does not keep the size of its peak.
        if part.capacity() > 64 && part.len() < part.capacity() / 8 {
            let enough = part.len() * 2;
            part.shrink_to(enough);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_counted_by_address_and_the_table_shrinks() {
        let table = SharedTable::new();
        for address in (0..100_000).step_by(16) {
            assert!(table.add_holder(address));
            assert!(!table.add_holder(address));
        }
        for address in (0..100_000).step_by(16) {
            assert!(!table.remove_holder(address));
            assert!(table.remove_holder(address));
        }
        assert!(!table.remove_holder(16));
        let kept: usize = table.parts.iter().map(|part| part.lock().capacity()).sum();
        assert!(kept <= 64 * 2 * PARTS, "{kept}");
    }
}
