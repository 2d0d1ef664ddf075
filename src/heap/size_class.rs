//! Size classes: the slots of objects whose types have no span class of their own, and the number
//! of pages of a span of any slot size.
//!
//! The allocator asks with a size and an alignment, and gets a [`SizeClass`]. It also asks
//! `span_pages`, usually at compile time, for the exact size of every Rust type.
//!
//! ```text
//! size          8 ..= 256   ..= 512   ..= 1024   ..= 32768
//! classes      every 8      16        32         MEDIUM: 52 sizes, all multiples of 64
//! lookup        |<------- BY_8 -------->|<- BY_64 ->|
//! ```
//!
//! **How `MEDIUM` was chosen.** A request costs the bytes of the span divided by the number of its
//! slots, so rounding and the tail of the span count together. The 52 sizes have the least mean
//! overhead among all multiples of 64 (requests are log-uniform: there are as many between 1 and 2
//! KiB as between 16 and 32 KiB), under three conditions:
//!
//! - No request costs more than with Go's table.
//! - No request is rounded up by more than 1/8 of its slot.
//! - The multiples of 8 KiB are there, for alignment.
//!
//! The mean overhead above 1 KiB is 4.2 %; Go has 7.2 % with 35 classes. More classes save less
//! than 0.1 % each, and each class is one more half-used span for every mutator. Above 20 KiB the
//! sizes get rarer, because spans of at most 10 pages have no more distinct costs: a slot between
//! 27,264 and 28,672 costs as much as one of 28,672.
//!
//! **How `span_pages` chooses.** The tail of a span is lost in every span; the unused slots are
//! lost once for each size in use. The span gets one more page if that lowers the tail by at least
//! 1/128 of the span, and in any case the tail is at most 1/8. Over all slot sizes (log-uniform)
//! 1.3 % is lost, in spans of 2.7 pages on average. Spans with the fewest pages whose tail is
//! at most 1/8 would lose 3.1 %, in 1.8 pages; spans with the least tail would lose 0.9 %, in 4.7
//! pages.
//!
//! **Invariants**
//! - [Z1] Sizes rise strictly, start at 8 and end at 32,768; all are multiples of 8.
//! - [Z2] `class_of(size, align)` is the smallest class with `class.size() >= size` whose size is a
//!   multiple of `align`. Spans start on a page (8 KiB), so every slot is aligned.
//! - [Z3] A span of `span_pages(s)` pages holds at least one slot, has at most 10 pages, and its
//!   tail is at most 1/8 of it.
//!
//! **Concurrency.** There are only constants.
//!
//! **Tried and dropped.** One byte for each multiple of 8 up to 32 KiB: that is one lookup fewer to
//! reason about, but 4 KiB of table instead of 626 bytes in the cache. 16 even steps for each
//! doubling: that needs no table, but 80 classes above 1 KiB do what 52 chosen ones do (4.3 %), and
//! some requests cost more than in Go, because even steps ignore pages.

use crate::base::addr::PAGE_SIZE;

/// The longest span of small objects, in pages.
const MAX_SPAN_PAGES: usize = 10;

/// The largest alignment that slots can have, because spans start on pages.
const MAX_ALIGN: usize = PAGE_SIZE;

/// The distance of the classes above [`FINE_LIMIT`], and their alignment.
const MEDIUM_STEP: usize = 64;

/// Up to this size the classes are at even steps.
const FINE_LIMIT: usize = 1024;

/// The number of classes up to [`FINE_LIMIT`]: 8 to 256 by 8, to 512 by 16, to 1024 by 32.
const FINE: usize = 32 + 16 + 16;

/// The classes above [`FINE_LIMIT`]; the head says where they come from.
#[rustfmt::skip]
const MEDIUM: [u16; 52] = [
     1088,  1152,  1216,  1280,  1408,  1536,  1664,  1792,  1920,  2048,
     2176,  2304,  2560,  2688,  2880,  3072,  3264,  3456,  3776,  4096,
     4352,  4672,  4864,  5120,  5440,  5824,  6144,  6528,  6784,  6976,
     7424,  8192,  9088,  9536,  9792, 10240, 10880, 11456, 12288, 13056,
    13632, 14336, 14720, 16384, 18432, 19072, 20480, 21824, 24576, 27264,
    28672, 32768,
];

/// The slot size of each class [Z1].
static SIZES: [u16; SizeClass::COUNT] = sizes();

/// The class of a size up to [`FINE_LIMIT`], by the size in units of 8 bytes, rounded up.
static BY_8: [u8; FINE_LIMIT / 8 + 1] = classes_by(8, 0);

/// The class of a size above [`FINE_LIMIT`], by the excess in units of [`MEDIUM_STEP`], rounded up.
static BY_64: [u8; (SizeClass::MAX_SIZE - FINE_LIMIT) / MEDIUM_STEP + 1] =
    classes_by(MEDIUM_STEP, FINE_LIMIT);

/// One of the fixed slot sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SizeClass(pub(crate) u8);

impl SizeClass {
    /// The number of classes; `SizeClass(i)` is valid for `i < COUNT`.
    pub(crate) const COUNT: usize = FINE + MEDIUM.len();

    /// The size of the last class; larger objects have spans of their own.
    pub(crate) const MAX_SIZE: usize = 32 << 10;

    /// Returns the size of a slot of this class, in bytes.
    #[inline]
    pub(crate) const fn size(self) -> usize {
        SIZES[self.0 as usize] as usize
    }
}

/// Returns the class for `size` bytes aligned to `align`, a power of two [Z2]. `None` for a size
/// above 32 KiB or an alignment above a page; such an object needs a span of its own.
#[inline]
pub(crate) const fn class_of(size: usize, align: usize) -> Option<SizeClass> {
    debug_assert!(align.is_power_of_two());
    if size > SizeClass::MAX_SIZE || align > MAX_ALIGN {
        return None;
    }
    if align <= 8 {
        return Some(lookup(size));
    }
    // The last size is a multiple of every alignment. So rounding up stays within the table, and
    // the search ends at that class at the latest. Up to an alignment of 64 the first class is the
    // right one.
    let mut class = lookup((size + align - 1) & !(align - 1));
    while class.size() & (align - 1) != 0 {
        class.0 += 1;
    }
    Some(class)
}

/// Returns how many pages a span of slots of `slot_size` bytes has [Z3]; `slot_size` is a multiple
/// of 8 in `8..=32768`.
pub(crate) const fn span_pages(slot_size: usize) -> usize {
    debug_assert!(slot_size >= 8 && slot_size <= SizeClass::MAX_SIZE);
    debug_assert!(slot_size.is_multiple_of(8));
    let mut best = slot_size.div_ceil(PAGE_SIZE);
    let mut pages = best + 1;
    while pages <= MAX_SPAN_PAGES {
        if is_better_span(slot_size, pages, best) {
            best = pages;
        }
        pages += 1;
    }
    best
}

/// Returns how many slots of `slot_size` bytes a span of `span_pages(slot_size)` pages holds.
pub(crate) const fn slots(slot_size: usize) -> usize {
    span_pages(slot_size) * PAGE_SIZE / slot_size
}

/// Returns the class of a size up to 32 KiB, without regard to alignment. Size 0 gets the first
/// class.
#[inline]
const fn lookup(size: usize) -> SizeClass {
    if size <= FINE_LIMIT {
        SizeClass(BY_8[size.div_ceil(8)])
    } else {
        SizeClass(BY_64[(size - FINE_LIMIT).div_ceil(MEDIUM_STEP)])
    }
}

/// Whether a span of `pages` is better than one of `best`, fewer, pages.
const fn is_better_span(slot_size: usize, pages: usize, best: usize) -> bool {
    const fn tail(slot_size: usize, pages: usize) -> usize {
        pages * PAGE_SIZE % slot_size
    }
    const fn is_within_limit(slot_size: usize, pages: usize) -> bool {
        tail(slot_size, pages) <= pages * PAGE_SIZE / 8
    }
    // The part of the span that is lost, in units of 1/128, plus one for each page: tail / 64p + p,
    // with the comparison multiplied out.
    const fn cost_times_pages(slot_size: usize, pages: usize) -> usize {
        tail(slot_size, pages) + PAGE_SIZE / 128 * pages * pages
    }
    is_within_limit(slot_size, pages)
        && (!is_within_limit(slot_size, best)
            || cost_times_pages(slot_size, pages) * best
                < cost_times_pages(slot_size, best) * pages)
}

/// Computes [`SIZES`].
const fn sizes() -> [u16; SizeClass::COUNT] {
    let mut all = [0; SizeClass::COUNT];
    let mut size = 0;
    let mut class = 0;
    while class < SizeClass::COUNT {
        size = match size {
            0..256 => size + 8,
            256..512 => size + 16,
            512..1024 => size + 32,
            _ => MEDIUM[class - FINE],
        };
        all[class] = size;
        class += 1;
    }
    all
}

/// Returns a lookup table: entry `i` is the smallest class of at least `base + i * step` bytes.
const fn classes_by<const N: usize>(step: usize, base: usize) -> [u8; N] {
    let sizes = sizes();
    let mut table = [0; N];
    let mut class = 0;
    let mut i = 0;
    while i < N {
        while (sizes[class] as usize) < base + i * step {
            class += 1;
        }
        table[i] = class as u8;
        i += 1;
    }
    table
}

// A request between two steps of a table is looked up at the upper one. That is right only if no
// class lies between them.
const _: () = {
    let mut class = 0;
    while class < SizeClass::COUNT {
        let size = SizeClass(class as u8).size();
        let step = if size <= FINE_LIMIT { 8 } else { MEDIUM_STEP };
        assert!(size.is_multiple_of(step), "a class is off its table's step");
        assert!(class == 0 || SizeClass(class as u8 - 1).size() < size);
        class += 1;
    }
    assert!(SizeClass(SizeClass::COUNT as u8 - 1).size() == SizeClass::MAX_SIZE);
    assert!(SizeClass::MAX_SIZE.is_multiple_of(MAX_ALIGN));
};

#[cfg(test)]
mod tests {
    use super::{FINE_LIMIT, MAX_SPAN_PAGES, PAGE_SIZE, SizeClass, class_of, slots, span_pages};

    /// Go 1.27.3: the table in the comment at the top of its generated `sizeclasses.go`: object
    /// size, bytes of a span, objects in it. The table leaves out what Go stores inside small
    /// spans, so it looks better than Go is.
    #[rustfmt::skip]
    const GO: [(usize, usize, usize); 67] = [
        (8, 8192, 1024), (16, 8192, 512), (24, 8192, 341), (32, 8192, 256), (48, 8192, 170),
        (64, 8192, 128), (80, 8192, 102), (96, 8192, 85), (112, 8192, 73), (128, 8192, 64),
        (144, 8192, 56), (160, 8192, 51), (176, 8192, 46), (192, 8192, 42), (208, 8192, 39),
        (224, 8192, 36), (240, 8192, 34), (256, 8192, 32), (288, 8192, 28), (320, 8192, 25),
        (352, 8192, 23), (384, 8192, 21), (416, 8192, 19), (448, 8192, 18), (480, 8192, 17),
        (512, 8192, 16), (576, 8192, 14), (640, 8192, 12), (704, 8192, 11), (768, 8192, 10),
        (896, 8192, 9), (1024, 8192, 8), (1152, 8192, 7), (1280, 8192, 6), (1408, 16384, 11),
        (1536, 8192, 5), (1792, 16384, 9), (2048, 8192, 4), (2304, 16384, 7), (2688, 8192, 3),
        (3072, 24576, 8), (3200, 16384, 5), (3456, 24576, 7), (4096, 8192, 2), (4864, 24576, 5),
        (5376, 16384, 3), (6144, 24576, 4), (6528, 32768, 5), (6784, 40960, 6), (6912, 49152, 7),
        (8192, 8192, 1), (9472, 57344, 6), (9728, 49152, 5), (10240, 40960, 4), (10880, 32768, 3),
        (12288, 24576, 2), (13568, 40960, 3), (14336, 57344, 4), (16384, 16384, 1), (18432, 73728, 4),
        (19072, 57344, 3), (20480, 40960, 2), (21760, 65536, 3), (24576, 24576, 1), (27264, 81920, 3),
        (28672, 57344, 2), (32768, 32768, 1),
    ];

    fn all() -> impl DoubleEndedIterator<Item = SizeClass> {
        (0..SizeClass::COUNT).map(|class| SizeClass(class as u8))
    }

    /// Whether `ours` costs no more than `go`; both are the bytes of a span and the slots in it.
    fn costs_at_most(ours: (usize, usize), go: (usize, usize)) -> bool {
        ours.0 * go.1 <= go.0 * ours.1
    }

    #[test]
    fn no_request_wastes_more_than_in_go() {
        for size in 1..=SizeClass::MAX_SIZE {
            let &(_, go_bytes, go_slots) = GO.iter().find(|row| row.0 >= size).unwrap();
            let slot = class_of(size, 1).unwrap().size();
            let ours = (span_pages(slot) * PAGE_SIZE, slots(slot));
            assert!(
                costs_at_most(ours, (go_bytes, go_slots)),
                "{size}: {ours:?} for slots of {slot}, Go {go_bytes} for {go_slots}"
            );
        }
    }

    #[test]
    fn the_mean_overhead_is_what_the_head_says() {
        let (mut ours, mut go, mut weights) = (0.0, 0.0, 0.0);
        for size in (FINE_LIMIT + 8..=SizeClass::MAX_SIZE).step_by(8) {
            let slot = class_of(size, 8).unwrap().size();
            let &(_, go_bytes, go_slots) = GO.iter().find(|row| row.0 >= size).unwrap();
            let weight = 1.0 / size as f64;
            let overhead =
                |bytes: usize, slots: usize| bytes as f64 / slots as f64 / size as f64 - 1.0;
            ours += weight * overhead(span_pages(slot) * PAGE_SIZE, slots(slot));
            go += weight * overhead(go_bytes, go_slots);
            weights += weight;
        }
        assert!(ours / weights < 0.042, "{}", ours / weights);
        assert!(go / weights > 0.071, "{}", go / weights);
    }

    #[test]
    fn class_of_is_the_smallest_that_fits_at_every_size_and_alignment() {
        let step = if cfg!(miri) { 1021 } else { 1 };
        for align in (0..=13).map(|bits| 1_usize << bits) {
            for size in (0..=SizeClass::MAX_SIZE).step_by(step) {
                let class = class_of(size, align).unwrap();
                assert!(class.size() >= size, "{size} align {align}");
                assert!(class.size().is_multiple_of(align), "{size} align {align}");
                let smaller = all()
                    .rev()
                    .skip_while(|&c| c >= class)
                    .take_while(|c| c.size() >= size);
                for smaller in smaller {
                    assert!(
                        !smaller.size().is_multiple_of(align),
                        "{size} align {align}: {smaller:?} would do"
                    );
                }
            }
        }
    }

    #[test]
    fn classes_rise_with_the_request() {
        for align in (0..=13).map(|bits| 1_usize << bits) {
            let mut last = class_of(0, align).unwrap();
            for size in (0..=SizeClass::MAX_SIZE).step_by(if cfg!(miri) { 509 } else { 1 }) {
                let class = class_of(size, align).unwrap();
                assert!(class >= last, "{size} align {align}");
                last = class;
            }
        }
    }

    #[test]
    fn rounding_takes_at_most_an_eighth_above_256() {
        for pair in all().collect::<Vec<_>>().windows(2) {
            let [below, class] = [pair[0].size(), pair[1].size()];
            if below >= 256 {
                assert!(8 * (class - below - 1) <= class, "{below} to {class}");
            }
        }
        for size in (8..=256).step_by(8) {
            assert_eq!(
                class_of(size, 8).unwrap().size(),
                size,
                "every multiple of 8"
            );
        }
    }

    #[test]
    fn no_medium_class_could_be_larger_in_its_span() {
        for class in all().filter(|class| class.size() > FINE_LIMIT) {
            let slot = class.size();
            let room = span_pages(slot) * PAGE_SIZE / slots(slot);
            assert!(room < slot + 64, "{slot} could be {room}");
        }
    }

    #[test]
    fn too_large_or_too_aligned_has_no_class() {
        assert_eq!(class_of(SizeClass::MAX_SIZE + 1, 1), None);
        assert_eq!(class_of(usize::MAX, 8), None);
        assert_eq!(class_of(8, 16 << 10), None);
        assert_eq!(class_of(0, 1), Some(SizeClass(0)));
        assert_eq!(class_of(1, 8192).unwrap().size(), 8192);
        assert_eq!(class_of(16385, 8192).unwrap().size(), 24576);
    }

    #[test]
    fn every_span_is_short_and_its_tail_small() {
        for slot in (8..=SizeClass::MAX_SIZE).step_by(8) {
            let bytes = span_pages(slot) * PAGE_SIZE;
            assert!((1..=MAX_SPAN_PAGES).contains(&span_pages(slot)), "{slot}");
            assert_eq!(slots(slot), bytes / slot, "{slot}");
            assert!(slots(slot) >= 1, "{slot}");
            assert!(8 * (bytes % slot) <= bytes, "{slot}: tail {}", bytes % slot);
        }
    }

    #[test]
    fn spans_waste_less_than_the_fewest_pages_under_an_eighth() {
        let tail = |slot: usize, pages: usize| {
            (pages * PAGE_SIZE % slot) as f64 / (pages * PAGE_SIZE) as f64
        };
        let (mut ours, mut plain) = (0.0, 0.0);
        for slot in (8..=SizeClass::MAX_SIZE).step_by(8) {
            let fewest = (slot.div_ceil(PAGE_SIZE)..=MAX_SPAN_PAGES)
                .find(|&pages| tail(slot, pages) <= 0.125)
                .unwrap();
            assert!(span_pages(slot) >= fewest, "{slot}");
            assert!(tail(slot, span_pages(slot)) <= tail(slot, fewest), "{slot}");
            ours += tail(slot, span_pages(slot)) / slot as f64;
            plain += tail(slot, fewest) / slot as f64;
        }
        assert!(ours < 0.45 * plain, "{ours} of {plain}");
    }

    #[test]
    fn is_usable_in_a_const() {
        const CLASS: Option<SizeClass> = class_of(100, 16);
        const PAGES: usize = span_pages(24);
        assert_eq!(CLASS.map(SizeClass::size), Some(112));
        assert_eq!((PAGES, slots(24)), (1, 341));
    }
}
