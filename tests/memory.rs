//! Free memory goes back to the system: the tests read the resident memory that the system counts.

#![cfg(target_os = "linux")]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greywave::{Gc, GcCell, Heap, HeapStats, Mutator, Root, Trace};

#[path = "stress/support.rs"]
mod support;

use support::{Stretch, Watch, child, is_child, text};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What a heap makes resident besides objects and the tables that its figures tell: stacks and
/// buffers of its threads, and what the test and the C library allocate meanwhile. It was 0.4 MiB
/// at most.
const ALLOWANCE: u64 = MIB;

/// What one mutator's page cache holds at most.
const PAGE_CACHE: u64 = 512 * KIB;

/// Resident bytes of this process. Exact, unlike what `statm` says.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux tells");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("a line \"Rss: n kB\"")
        * KIB
}

/// Runs the body of a test in a process of its own, in which nothing else becomes resident.
fn alone(test: &str, body: impl FnOnce()) {
    if is_child(test) {
        return body();
    }
    let output = child(test, test, &[]);
    assert!(output.status.success(), "{}", text(&output));
}

fn heap() -> Heap {
    Heap::builder().gogc(Some(100)).build().expect("a heap")
}

type Block = Root<[u64]>;

/// An object of so many bytes, each of which is written.
fn block<'m>(m: &'m Mutator, bytes: u64) -> Gc<'m, [u64]> {
    m.alloc_slice((bytes / 8) as usize, |i| i as u64)
}

fn blocks(m: &Mutator, count: usize, bytes: u64) -> Vec<Block> {
    (0..count).map(|_| m.root(block(m, bytes))).collect()
}

/// Every second one of `count` blocks, with holes between them where the others were.
fn every_second(m: &mut Mutator, count: usize, bytes: u64) -> Vec<Block> {
    let mut kept = blocks(m, count, bytes);
    m.collect();
    let mut keep = false;
    kept.retain(|_| {
        keep = !keep;
        keep
    });
    m.collect();
    kept
}

fn is_whole(m: &Mutator, block: &Block) -> bool {
    let items = block.get(m);
    items.iter().enumerate().all(|(i, &item)| item == i as u64)
}

/// Polls until `done`; says at the end what `done` last saw.
fn wait_until(mut done: impl FnMut() -> Result<(), String>) {
    let watch = Watch::begin();
    while let Err(last) = done() {
        watch.check(&last);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The figures of a heap against each other.
fn adds_up(stats: &HeapStats) {
    assert!(stats.span_bytes + stats.free_bytes >= stats.mapped_bytes);
    assert!(stats.mapped_bytes + stats.released_bytes <= stats.reserved_bytes);
}

/// After Go's `TestPhysicalMemoryUtilization`: half of a heap dies in holes that the next object
/// cannot use.
#[test]
fn holes_go_back_when_something_large_does_not_fit_into_them() {
    alone(
        "holes_go_back_when_something_large_does_not_fit_into_them",
        || {
            let heap = heap();
            let before = resident();
            let mut m = heap.attach().expect("attached");
            let kept = every_second(&mut m, 512, 64 * KIB);
            let large = m.root(block(&m, 16 * MIB));
            let grown = resident() - before;
            let stats = heap.stats();
            adds_up(&stats);
            let in_use = stats.span_bytes;
            assert!((32 * MIB..33 * MIB).contains(&in_use), "{in_use} in use");
            let bound = in_use / 100 * 110 + ALLOWANCE;
            assert!(grown <= bound, "{grown} resident, {in_use} in use");
            assert!(is_whole(&m, &large));
            assert!(kept.iter().all(|block| is_whole(&m, block)));
            heap.verify().expect("whole");
        },
    );
}

#[test]
fn holes_are_used_before_the_heap_grows() {
    alone("holes_are_used_before_the_heap_grows", || {
        let heap = heap();
        let before = resident();
        let mut m = heap.attach().expect("attached");
        let mut kept = every_second(&mut m, 512, 64 * KIB);
        kept.extend(blocks(&m, 256, 64 * KIB));
        let grown = resident() - before;
        let in_use = heap.stats().span_bytes;
        let bound = in_use / 100 * 110 + ALLOWANCE;
        assert!(grown <= bound, "{grown} resident, {in_use} in use");
        assert!(kept.iter().all(|block| is_whole(&m, block)));
        heap.verify().expect("whole");
    });
}

#[test]
fn a_dropped_heap_of_objects_goes_back_on_demand() {
    alone("a_dropped_heap_of_objects_goes_back_on_demand", || {
        for bytes in [1000, 9000, 300 * KIB] {
            let heap = heap();
            let before = resident();
            let m = heap.attach().expect("attached");
            let count = 64 * MIB / bytes;
            let few = blocks(&m, 10, bytes);
            let rest = blocks(&m, count as usize, bytes);
            let full = resident() - before;
            assert!(full > 60 * MIB, "{full} resident with objects of {bytes}");
            drop((m, rest));
            heap.collect();
            let went = heap.release_free_memory();
            assert!(went > 0, "nothing went");
            let stats = heap.stats();
            adds_up(&stats);
            assert_eq!(stats.free_bytes, 0, "all that is free");
            let grown = resident() - before;
            // The roots' own table is not the heap's: 64 bytes at most for each.
            let bound = stats.span_bytes + stats.metadata_bytes + 64 * count + ALLOWANCE;
            assert!(grown <= bound, "{grown} resident, {stats:?}");
            heap.verify().expect("whole");
            let m = heap.attach().expect("attached");
            assert!(few.iter().all(|block| is_whole(&m, block)));
            // And it can be used again.
            assert!(blocks(&m, 1000, bytes).iter().all(|b| is_whole(&m, b)));
        }
    });
}

#[derive(Trace)]
struct Link<'gc> {
    next: GcCell<'gc, Link<'gc>>,
    value: u64,
}

/// Objects of 16 bytes, of which every thousandth lives: the spans stay, and nothing can go but
/// empty ones.
#[test]
fn small_objects_that_live_keep_their_spans() {
    alone("small_objects_that_live_keep_their_spans", || {
        let heap = heap();
        let before = resident();
        let mut m = heap.attach().expect("attached");
        let mut kept: Vec<Root<Link<'static>>> = Vec::new();
        for value in 0..2_000_000 {
            let next = GcCell::null();
            let link = m.alloc(Link { next, value });
            if value % 1000 == 0 && value < 1_000_000 {
                kept.push(m.root(link));
            }
            if value % 1000 == 999 {
                m.safepoint();
            }
        }
        drop(m);
        heap.collect();
        heap.release_free_memory();
        let stats = heap.stats();
        adds_up(&stats);
        assert_eq!(stats.free_bytes, 0);
        let grown = resident() - before;
        let bound = stats.span_bytes + stats.metadata_bytes + ALLOWANCE;
        assert!(grown <= bound, "{grown} resident, {stats:?}");
        m = heap.attach().expect("attached");
        for (i, link) in kept.iter().enumerate() {
            assert_eq!(link.get(&m).value, i as u64 * 1000);
            assert!(link.get(&m).next.get().is_none());
        }
        heap.verify().expect("whole");
    });
}

#[test]
fn a_heap_that_shrinks_gives_memory_back_in_the_background() {
    alone(
        "a_heap_that_shrinks_gives_memory_back_in_the_background",
        || {
            let heap = heap();
            let before = resident();
            let mut m = heap.attach().expect("attached");
            let mut all = blocks(&m, 3200, 64 * KIB);
            let full = resident() - before;
            assert!(full > 200 * MIB, "{full} resident");
            all.truncate(80);
            m.collect();
            wait_until(|| {
                let stats = heap.stats();
                // A tenth more than in use is kept on purpose, and small heaps keep to the least
                // goal.
                let kept = stats.span_bytes / 100 * 110 + PAGE_CACHE;
                let bound = kept + stats.metadata_bytes + ALLOWANCE;
                let grown = resident() - before;
                (grown <= bound)
                    .then_some(())
                    .ok_or_else(|| format!("{grown} resident, {stats:?}"))
            });
            let in_use = heap.stats().span_bytes;
            assert!(in_use < 6 * MIB, "{in_use} in use");
            heap.verify().expect("whole");
            assert!(all.iter().all(|block| is_whole(&m, block)));
        },
    );
}

/// Mutators allocate, and somebody verifies, while memory goes back as fast as it can.
#[test]
fn memory_goes_back_while_others_use_and_verify_the_heap() {
    let heap = Heap::builder()
        .reservation(256 << 20)
        .build()
        .expect("a heap");
    let stop = AtomicBool::new(false);
    let over = || stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for size in [40, 3000, 20_000, 200_000] {
            let heap = &heap;
            scope.spawn(move || {
                let mut m = heap.attach().expect("attached");
                let mut ring: Vec<Block> = Vec::new();
                let mut turn = 0;
                while !over() {
                    ring.extend(blocks(&m, 10, size));
                    m.safepoint();
                    if ring.len() as u64 * size > 4 * MIB {
                        turn += 1;
                        assert!(ring.iter().all(|block| is_whole(&m, block)));
                        ring.truncate(ring.len() / (1 + turn % 3));
                    }
                }
            });
        }
        let (stretch, watch) = (Stretch::of(Duration::from_secs(3)), Watch::begin());
        let mut went = 0;
        while !stretch.is_over() || went == 0 {
            watch.check("memory that goes back");
            heap.collect();
            went += heap.release_free_memory();
            heap.verify().expect("whole");
        }
        stop.store(true, Ordering::Relaxed);
    });
    heap.verify().expect("whole");
}

#[test]
fn at_the_limit_idle_memory_goes_back_before_more_is_used() {
    const LIMIT: u64 = 64 * MIB;
    alone(
        "at_the_limit_idle_memory_goes_back_before_more_is_used",
        || {
            for _ in 0..3 {
                let heap = Heap::builder().gogc(None).build().expect("a heap");
                let before = resident();
                let mut m = heap.attach().expect("attached");
                // 60 MiB of which three quarters become small holes, then 40 MiB that do not fit
                // into them.
                let mut n = 0;
                let mut small = blocks(&m, 60 * 64, 16 * KIB);
                small.retain(|_| {
                    n += 1;
                    n % 4 == 0
                });
                m.collect();
                heap.set_memory_limit(LIMIT);
                let large = m.root(block(&m, 40 * MIB));
                let grown = resident() - before;
                assert!(
                    grown <= LIMIT + ALLOWANCE,
                    "{grown} resident, {:?}",
                    heap.stats()
                );
                assert!(small.iter().all(|block| is_whole(&m, block)));
                assert!(is_whole(&m, &large));
                heap.verify().expect("whole");
            }
        },
    );
}
