//! A bitmap with one bit for each granule (8 bytes) of the arena. The mark bits and the allocation
//! bits are such bitmaps.
//!
//! **Claim.** A pointer is marked by its address alone, without a division and without its span.
//!
//! Only the bit of the granule where a slot starts is ever set, so the address is the index. The
//! bits of a page are 16 whole words, so two spans never share a word.
//!
//! **Why not a byte for each slot.** Bits cost 1.6 % of the heap for marks and 1.6 % for
//! allocation, whatever the object size; bytes cost 6.3 % for objects of 16 bytes. A byte can be
//! set by a plain store, where a bit needs a locked `or`. But the marker pays for that once per
//! object, after a plain test, and it disappears behind the cache miss that marking a large heap
//! waits for. In a bare model of the marker (objects of 64 bytes, 1 GiB, prefetching), bytes took
//! 13.5, 12.7 and 6.5 ns an object on a random graph, a local graph and a tree; bits took 13.8,
//! 13.1 and 8.6. So the difference shows only where memory is not the limit.
//!
//! **Concurrency.** All markers share the mark words, and set bits by an atomic `or`. The owner of
//! the span owns its allocation words: the mutator that caches it, or the holder of a sweep claim.

use crate::base::addr::{BYTES_PER_WORD, GRANULE, GRANULE_SHIFT, GRANULES_PER_WORD};
use crate::sys::mem::Table;
use crate::sys::sabotage::{self, Fault};
use crate::sys::space::Refused;
use crate::sys::sync::{AtomicU64, Ordering};

/// One bit for each granule of the arena, by offset.
#[derive(Debug)]
pub(crate) struct BitTable {
    words: Table<AtomicU64>,
}

const fn word_of(offset: usize) -> usize {
    offset / BYTES_PER_WORD
}

const fn bit_of(offset: usize) -> u64 {
    1 << ((offset >> GRANULE_SHIFT) % GRANULES_PER_WORD)
}

/// A word of a [`BitTable`], by its index. It covers 512 bytes of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitWord(usize);

impl BitWord {
    /// Returns the word that has the bit of `offset`.
    #[inline(always)]
    pub(crate) fn of(offset: usize) -> Self {
        Self(word_of(offset))
    }

    /// Returns the bit of `offset`, which is in this word.
    #[inline(always)]
    pub(crate) fn bit(self, offset: usize) -> u64 {
        debug_assert_eq!(word_of(offset), self.0);
        bit_of(offset)
    }

    /// Returns the offset of the lowest bit of `bits`, which is not 0.
    #[inline(always)]
    pub(crate) fn first_offset(self, bits: u64) -> usize {
        self.0 * BYTES_PER_WORD + bits.trailing_zeros() as usize * GRANULE
    }
}

impl BitTable {
    /// Reserves address space for the bits of an arena of `bytes`. None of them may be used yet.
    ///
    /// # Errors
    /// The OS refuses.
    pub(crate) fn reserve(bytes: usize) -> Result<Self, Refused> {
        Ok(Self {
            words: Table::reserve(bytes / BYTES_PER_WORD)?,
        })
    }

    /// Makes the bits of the first `bytes` of the arena usable; the new ones are clear. Only one
    /// thread may call this at a time.
    ///
    /// # Errors
    /// The OS refuses; nothing has changed then.
    pub(crate) fn commit(&self, bytes: usize) -> Result<(), Refused> {
        self.words.commit(bytes / BYTES_PER_WORD)
    }

    /// Makes a clear bitmap for `bytes` of an arena, all of it usable.
    ///
    /// # Errors
    /// The OS refuses.
    pub(crate) fn new(bytes: usize) -> Result<Self, Refused> {
        Ok(Self {
            words: Table::new(bytes / BYTES_PER_WORD)?,
        })
    }

    #[inline]
    pub(crate) fn test(&self, offset: usize) -> bool {
        // Relaxed: a bit is only a hint here; the grey queue or the span's generation orders a
        // thread that must see it.
        self.words.get(word_of(offset)).load(Ordering::Relaxed) & bit_of(offset) != 0
    }

    /// Sets the bit. Returns true if this call set it.
    #[inline]
    pub(crate) fn set(&self, offset: usize) -> bool {
        let word = self.words.get(word_of(offset));
        let bit = bit_of(offset);
        // Relaxed: only the bit itself matters, and one caller wins. The object's content was
        // published before its address.
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Sets `bits` of a word. Returns those that this call set.
    #[inline(always)]
    pub(crate) fn set_bits(&self, word: BitWord, bits: u64) -> u64 {
        let word = self.words.get(word.0);
        // Relaxed: as in `set`.
        let seen = word.load(Ordering::Relaxed);
        let missing = bits & !seen;
        if missing == 0 {
            return 0;
        }
        if sabotage::is_on(Fault::MarkNotAtomic) {
            // Relaxed: as in `set`.
            word.store(seen | bits, Ordering::Relaxed);
            return missing;
        }
        // Relaxed: as in `set`.
        missing & !word.fetch_or(missing, Ordering::Relaxed)
    }

    /// Clears the bit.
    pub(crate) fn clear(&self, offset: usize) {
        // Relaxed: as in `set`.
        self.words
            .get(word_of(offset))
            .fetch_and(!bit_of(offset), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn prefetch(&self, offset: usize) {
        self.words.prefetch(word_of(offset));
    }

    /// Sets the bits of all slots of `stride` bytes that start in `from .. to`.
    pub(crate) fn set_run(&self, from: usize, to: usize, stride: usize) {
        self.for_masks(from, to, stride, |word, mask| {
            // Relaxed: as in `set`; other slots of the word may be marked at the same time.
            word.fetch_or(mask, Ordering::Relaxed);
        });
    }

    /// Clears the bits of all slots of `stride` bytes that start in `from .. to`.
    pub(crate) fn clear_run(&self, from: usize, to: usize, stride: usize) {
        self.for_masks(from, to, stride, |word, mask| {
            // Relaxed: as in `set`.
            word.fetch_and(!mask, Ordering::Relaxed);
        });
    }

    fn for_masks(&self, from: usize, to: usize, stride: usize, mut f: impl FnMut(&AtomicU64, u64)) {
        let mut at = from;
        while at < to {
            let index = word_of(at);
            let word_end = ((index + 1) * BYTES_PER_WORD).min(to);
            let mut mask = 0;
            while at < word_end {
                mask |= bit_of(at);
                at += stride;
            }
            f(self.words.get(index), mask);
        }
    }

    /// Returns the first offset in `from .. to` whose bit is set.
    pub(crate) fn next_set(&self, from: usize, to: usize) -> Option<usize> {
        if from >= to {
            return None;
        }
        let mut index = word_of(from);
        let last = word_of(to - 1);
        // Relaxed: the caller owns the span.
        let mut word = self.words.get(index).load(Ordering::Relaxed) & !(bit_of(from) - 1);
        loop {
            if word != 0 {
                let found = index * BYTES_PER_WORD + word.trailing_zeros() as usize * GRANULE;
                return (found < to).then_some(found);
            }
            if index == last {
                return None;
            }
            index += 1;
            // Relaxed: as above.
            word = self.words.get(index).load(Ordering::Relaxed);
        }
    }

    /// Returns how many bits are set in `from .. to`, both multiples of the bytes that a word
    /// covers.
    pub(crate) fn count(&self, from: usize, to: usize) -> usize {
        // Relaxed: the caller owns the span or the world is stopped.
        (word_of(from)..word_of(to))
            .map(|i| self.words.get(i).load(Ordering::Relaxed).count_ones() as usize)
            .sum()
    }

    /// Copies `from .. to` of `self` into `into`, and clears it in `self`. Returns the number of
    /// bits. The sweep of a span does this: its allocation bits become its mark bits.
    pub(crate) fn move_into(&self, into: &Self, from: usize, to: usize) -> usize {
        let mut bits = 0;
        for i in word_of(from)..word_of(to) {
            let source = self.words.get(i);
            // Relaxed: the caller holds the sweep claim, and marking has ended.
            let word = source.load(Ordering::Relaxed);
            bits += word.count_ones() as usize;
            // Relaxed: as above; releasing the claim publishes it.
            into.words.get(i).store(word, Ordering::Relaxed);
            if word != 0 && !sabotage::is_on(Fault::MarksKept) {
                // Relaxed: as above.
                source.store(0, Ordering::Relaxed);
            }
        }
        bits
    }

    /// Asks for huge pages behind the bits of the first `bytes` of the arena.
    pub(crate) fn want_huge_pages(&self, bytes: usize) {
        self.words.want_huge_pages(bytes / BYTES_PER_WORD);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn table() -> BitTable {
        BitTable::new(1 << 20).expect("a small table")
    }

    #[test]
    fn a_bit_is_won_once() {
        let t = table();
        assert!(t.set(4096));
        assert!(!t.set(4096));
        assert!(t.test(4096));
        assert!(!t.test(4104));
        t.clear(4096);
        assert!(!t.test(4096));
    }

    #[test]
    fn runs_of_every_stride_set_exactly_the_slot_starts() {
        for stride in [8, 16, 24, 40, 64, 104, 512, 520, 1000, 4096] {
            let t = table();
            let (from, slots) = (8192, 8192 * 2 / stride);
            let to = from + slots * stride;
            t.set_run(from, to, stride);
            for offset in (0..65536).step_by(8) {
                let want = offset >= from && offset < to && (offset - from) % stride == 0;
                assert_eq!(t.test(offset), want, "stride {stride} offset {offset}");
            }
            assert_eq!(t.count(0, 65536), slots);
            t.clear_run(from, to, stride);
            assert_eq!(t.count(0, 65536), 0);
        }
    }

    #[test]
    fn next_set_finds_the_first_and_stays_in_range() {
        let t = table();
        assert_eq!(t.next_set(0, 65536), None);
        t.set(8192 + 24);
        t.set(40000);
        assert_eq!(t.next_set(0, 65536), Some(8192 + 24));
        assert_eq!(t.next_set(8192 + 32, 65536), Some(40000));
        assert_eq!(t.next_set(8192 + 32, 40000), None);
        assert_eq!(t.next_set(40000, 40008), Some(40000));
        assert_eq!(t.next_set(7, 7), None);
    }

    #[test]
    fn move_into_copies_counts_and_clears() {
        let (marks, alloc) = (table(), table());
        marks.set(8192);
        marks.set(16376);
        marks.set(16384);
        alloc.set(9000 & !7);
        assert_eq!(marks.move_into(&alloc, 8192, 16384), 2);
        assert!(alloc.test(8192) && alloc.test(16376) && !alloc.test(9000 & !7));
        assert!(!marks.test(8192) && marks.test(16384));
    }
}
