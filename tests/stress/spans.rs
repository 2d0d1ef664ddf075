//! Objects of every size over several cycles: a live object keeps its slot and its content, a dead
//! one is dropped once, and the statistics agree.

#![allow(dead_code, reason = "each test program runs a part of these")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(feature = "internals")]
use greywave::Frame;
use greywave::{BrandedBy, Collect, Gc, GcLock, Heap, Mutator, Root, Trace};

use crate::stage::{checked, until_within};
use crate::support::{Collecting, Random, mix, within};

/// A list of words that follow from a number.
#[derive(Trace)]
struct Block<'gc> {
    id: u64,
    words: Gc<'gc, [u64]>,
    more: Gc<'gc, [Gc<'gc, str>]>,
}

fn block<'m>(m: &'m Mutator, id: u64, words: usize) -> Gc<'m, Block<'m>> {
    m.alloc(Block {
        id,
        words: m.alloc_slice(words, |i| mix(id + i as u64)),
        more: m.alloc_slice(words % 7, |i| m.alloc_str(&format!("{id:x}-{i}"))),
    })
}

fn check(block: Gc<'_, Block<'_>>) {
    for (i, word) in block.words.iter().enumerate() {
        assert_eq!(*word, mix(block.id + i as u64), "a list is damaged");
    }
    for (i, text) in block.more.iter().enumerate() {
        assert_eq!(&**text, format!("{:x}-{i}", block.id), "a text is damaged");
    }
}

/// The number of words of a block: mostly few, sometimes several pages, sometimes more than any
/// class.
fn size(random: &mut Random) -> usize {
    match random.below(40) {
        0 => 4000 + random.below(20_000),
        1..=4 => 200 + random.below(3000),
        _ => 1 + random.below(60),
    }
}

/// Half of what lives is replaced, `rounds` times, by `between`.
fn replace(
    m: &mut Mutator,
    random: &mut Random,
    rounds: usize,
    mut between: impl FnMut(&mut Mutator),
) {
    let mut kept: Vec<Root<Block<'static>>> = Vec::new();
    let mut id = random.next() >> 8;
    for _ in 0..rounds {
        while kept.len() < 400 {
            id += 1;
            let words = size(random);
            kept.push(m.root(block(m, id, words)));
        }
        kept.iter().for_each(|root| check(root.get(m)));
        between(m);
        kept.iter().for_each(|root| check(root.get(m)));
        kept.retain(|_| random.one_in(2));
        between(m);
    }
}

/// One thread; the heap is looked at before and after each cycle.
pub(crate) fn slots_are_used_again() {
    let heap = checked().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    replace(&mut m, &mut Random::new(1), 6, |m| {
        // First with the spans that are allocated from, then without.
        m.heap().verify().expect("whole");
        m.collect();
        m.heap().verify().expect("whole");
    });
}

/// What keeps the number of a cycle or of a generation.
#[cfg(feature = "internals")]
#[derive(Trace)]
struct Shelf<'gc> {
    blocks: GcLock<Vec<Gc<'gc, Block<'gc>>>>,
}

/// Numbers of cycles and generations of spans begin anew, in the same cycle and in different ones.
/// What was last touched before, and what is touched in each cycle, keeps what it leads to; what is
/// dead goes.
#[cfg(feature = "internals")]
pub(crate) fn counters_begin_anew() {
    // A generation is four.
    for generations_left in [3, 5] {
        let heap = checked().gogc(None).workers(2).build().expect("a heap");
        let generation = (1 << 32) - 4 * generations_left;
        greywave::internals::count_cycles_from(&heap, u32::MAX - 4, generation);
        let mut m = heap.attach().expect("attached");
        let mut random = Random::new(generations_left);
        let mut frame: Frame<Vec<Gc<'static, Block<'static>>>> = Frame::new(&m, Vec::new());
        let mut shelves: Vec<Root<Shelf<'static>>> = Vec::new();
        for round in 0..10 {
            let blocks = (0..8).map(|i| block(&m, i, size(&mut random))).collect();
            shelves.push(m.root(m.alloc(Shelf {
                blocks: GcLock::new(blocks),
            })));
            let in_frame = block(&m, round, size(&mut random));
            frame.enter(&m).push(in_frame);
            // Half of them are written to, each in its turn; the others never.
            let shelf = shelves[random.below(shelves.len()) / 2 * 2].get(&m);
            let new = block(&m, 100, size(&mut random));
            shelf.blocks.write(&m).push(new);
            let weak = m.root_weak(Gc::downgrade(block(&m, 7, 7), &m));
            m.collect();
            assert!(weak.get(&m).is_none(), "round {round}: it was dead");
            heap.verify().expect("whole");
            for shelf in &shelves {
                shelf.get(&m).blocks.read().iter().for_each(|b| check(*b));
            }
            frame.enter(&m).iter().for_each(|b| check(*b));
        }
    }
}

/// Several threads, which cache pages and spans and sweep for themselves, while cycles run one
/// after another.
pub(crate) fn threads_share_pages(time: Duration) {
    let heap = checked().workers(2).build().expect("a heap");
    within(time * 4 + Duration::from_secs(60), || {
        let collecting = Collecting::new(&heap);
        let end = collecting.race(time);
        std::thread::scope(|s| {
            for t in 0..3 {
                let (heap, end) = (&heap, end.clone());
                s.spawn(move || {
                    let mut m = heap.attach().expect("attached");
                    let mut random = Random::new(t);
                    while !end.is_over() {
                        replace(&mut m, &mut random, 3, |m| m.safepoint());
                        heap.verify().expect("whole");
                    }
                });
            }
        });
    });
    heap.verify().expect("whole");
}

/// Lists that are scanned in several pieces are scanned to their end.
pub(crate) fn long_lists_are_scanned_to_the_end() {
    const N: usize = 60_000;
    let heap = checked().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let root = m.root(m.alloc_slice(N, |i| m.alloc(i as u64)));
    for _ in 0..2 {
        m.collect();
        assert!(
            root.get(&m)
                .iter()
                .enumerate()
                .all(|(i, n)| **n == i as u64)
        );
    }
    heap.verify().expect("whole");
}

/// Memory that lies between objects goes back to the system; theirs does not.
pub(crate) fn only_free_memory_goes_back() {
    let heap = checked().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut kept: Vec<Root<Block<'static>>> = Vec::new();
    for id in 0..200 {
        kept.push(m.root(block(&m, id, 5000)));
    }
    let mut id = 0;
    kept.retain(|_| {
        id += 1;
        id % 2 == 0
    });
    m.collect();
    assert!(heap.release_free_memory() > 0);
    kept.iter().for_each(|root| check(root.get(&m)));
    heap.verify().expect("whole");
}

#[derive(Clone, Copy, Trace)]
#[repr(align(128))]
struct Aligned128([u64; 16]);

#[derive(Clone, Copy, Trace)]
#[repr(align(2048))]
struct Aligned2048([u64; 256]);

/// Lists whose items want more than the size classes have by themselves.
pub(crate) fn lists_are_aligned() {
    fn lists<T: Copy + Collect + for<'m> BrandedBy<'m>>(m: &Mutator, item: T) {
        for len in 1..30 {
            for _ in 0..5 {
                let list = m.alloc_slice(len, |_| item);
                let at = list.as_ptr().cast::<u8>();
                assert_eq!(at.align_offset(align_of::<T>()), 0, "a list of {len}");
            }
        }
    }
    let heap = checked().gogc(None).build().expect("a heap");
    let m = heap.attach().expect("attached");
    lists(&m, Aligned128([0; 16]));
    lists(&m, Aligned2048([0; 256]));
}

/// A list fills its slot, and no more than that.
pub(crate) fn lists_do_not_overlap() {
    let heap = checked().gogc(None).build().expect("a heap");
    let m = heap.attach().expect("attached");
    for len in 1..600 {
        let lists: Vec<_> = (0..5)
            .map(|n| m.alloc_slice(len, |i| mix(n + i as u64)))
            .collect();
        for (n, list) in lists.iter().enumerate() {
            let mut items = list.iter().enumerate();
            let whole = items.all(|(i, item)| *item == mix((n + i) as u64));
            assert!(whole, "a list of {len} is damaged");
        }
    }
}

#[derive(Trace)]
#[repr(align(4194304))]
struct Far;

/// A large object that does not begin where its span does.
pub(crate) fn a_large_object_in_the_middle_of_its_span() {
    // Values of this alignment need room on the stack, though they have no size.
    let thread = std::thread::Builder::new().stack_size(256 << 20);
    let body = || {
        let heap = checked().gogc(None).build().expect("a heap");
        let mut m = heap.attach().expect("attached");
        let root = m.root(m.alloc_array(Far, 1000, |i| i as u64));
        for _ in 0..3 {
            m.collect();
            heap.verify().expect("whole");
            let items = root.get(&m).items();
            assert!(items.iter().enumerate().all(|(i, n)| i as u64 == *n));
        }
        drop(root);
        m.collect();
        heap.verify().expect("whole");
    };
    let thread = thread.spawn(body).expect("a thread");
    thread.join().expect("no panic");
}

/// Counts its drops in a table by its number.
#[derive(Trace)]
struct Once {
    #[trace(skip)]
    drops: Arc<Vec<AtomicU64>>,
    number: usize,
}

impl Drop for Once {
    fn drop(&mut self) {
        let before = self.drops[self.number].fetch_add(1, Ordering::SeqCst);
        assert_eq!(before, 0, "it is dropped again");
    }
}

/// Each dead object is dropped in the cycle that finds it, once, and never again.
pub(crate) fn the_dead_are_dropped_once() {
    const N: usize = 1000;
    let drops: Arc<Vec<AtomicU64>> = Arc::new((0..N).map(|_| AtomicU64::new(0)).collect());
    let heap = checked().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut roots = Vec::new();
    for number in 0..N {
        let drops = drops.clone();
        roots.push(m.root(m.alloc(Once { drops, number })));
    }
    for round in 0..4 {
        roots.truncate(N / 4 * (3 - round));
        for _ in 0..2 {
            m.collect();
            for (number, count) in drops.iter().enumerate() {
                let expected = u64::from(number >= roots.len());
                assert_eq!(count.load(Ordering::SeqCst), expected, "object {number}");
            }
        }
    }
    assert_eq!(heap.stats().drop_panics, 0);
    heap.verify().expect("whole");
}

/// Bytes of containers inside objects count as long as the object lives.
pub(crate) fn external_bytes_add_up() {
    const BYTES: usize = 1 << 20;
    let heap = checked().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let root: Root<GcLock<Vec<u8>>> = m.root(m.alloc(GcLock::new(Vec::<u8>::new())));
    let external = |m: &mut Mutator| {
        m.collect();
        heap.stats().external_bytes
    };
    let empty = external(&mut m);
    root.get(&m).write(&m).reserve_exact(BYTES);
    assert_eq!(external(&mut m) - empty, BYTES as u64);
    root.get(&m).write(&m).push(1);
    root.get(&m).write(&m).reserve_exact(2 * BYTES - 1);
    assert_eq!(external(&mut m) - empty, 2 * BYTES as u64);
    drop(root);
    assert_eq!(external(&mut m), empty);
}

/// Garbage alone is enough for cycles to run.
pub(crate) fn garbage_starts_cycles() {
    let heap = Heap::builder().gogc(Some(100)).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    until_within(Duration::from_secs(5), "a cycle", || {
        for _ in 0..100 {
            std::hint::black_box(m.alloc_slice(1000, |i| i as u64));
        }
        m.safepoint();
        heap.stats().cycles > 0
    });
    assert_eq!(heap.stats().forced_cycles, 0);
}
