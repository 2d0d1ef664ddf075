//! The heap's units.
//!
//! An *offset* is a byte distance from the base of the heap's reservation. A *granule* is 8 bytes:
//! every slot starts on one, and the mark and allocation bitmaps have one bit for each.

/// log2 of the page size.
pub(crate) const PAGE_SHIFT: u32 = 13;
/// Bytes in one of the heap's pages (not the OS's).
pub(crate) const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// log2 of a granule.
pub(crate) const GRANULE_SHIFT: u32 = 3;
/// Bytes in a granule, and the smallest slot.
pub(crate) const GRANULE: usize = 1 << GRANULE_SHIFT;
/// Granules that one bitmap word covers.
pub(crate) const GRANULES_PER_WORD: usize = 64;
/// Bytes that one bitmap word covers.
pub(crate) const BYTES_PER_WORD: usize = GRANULES_PER_WORD * GRANULE;

/// The smallest number of pages that hold `bytes`.
pub(crate) const fn pages_for(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_SIZE)
}
