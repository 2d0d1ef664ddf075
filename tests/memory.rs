//! Memory that is free goes back to the system, and nothing else does.
#![cfg(target_os = "linux")]

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use greywave::{Frame, Gc, Heap, Mutator};

/// The tests here look at the memory of the whole process: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const MIB: u64 = 1 << 20;

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = statm.split_whitespace().nth(1).expect("the second field");
    pages.parse::<u64>().expect("a number") * 4096
}

type Blocks = Frame<Vec<Gc<'static, [u8]>>>;

/// Allocates `count` blocks of `bytes`, each filled, and keeps them.
fn fill(m: &mut Mutator, blocks: &mut Blocks, count: usize, bytes: usize) {
    for i in 0..count {
        blocks.enter(m).push(m.alloc_slice(bytes, |_| i as u8));
        m.safepoint();
    }
}

fn check(m: &Mutator, blocks: &mut Blocks) {
    for block in blocks.enter(m).iter() {
        let first = block[0];
        assert!(block.iter().all(|&b| b == first), "a block has changed");
    }
}

#[test]
fn a_swiss_cheese_fits_into_what_it_uses() {
    let _one = ONE_AT_A_TIME.lock();
    const BLOCK: usize = 64 << 10;
    let heap = Heap::builder().build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut blocks = Blocks::new(&m, Vec::new());
    let before = resident();
    fill(&mut m, &mut blocks, 512, BLOCK);
    {
        let mut open = blocks.enter(&m);
        let mut keep = true;
        open.retain(|_| {
            keep = !keep;
            keep
        });
    }
    m.collect();
    m.collect();
    fill(&mut m, &mut blocks, 256, BLOCK);
    m.collect();
    check(&m, &mut blocks);
    heap.release_free_memory();
    let stats = heap.stats();
    assert!(stats.span_bytes >= 32 * MIB && stats.span_bytes < 33 * MIB);
    let grown = resident().saturating_sub(before);
    // 3 MiB: the collector's threads and tables, and what the process itself needs.
    let allowed = stats.span_bytes / 10 * 11 + 3 * MIB;
    assert!(grown <= allowed, "{grown} bytes for {stats:?}");
    heap.verify().expect("whole");
}

#[test]
fn a_heap_that_shrinks_gives_memory_back_by_itself() {
    let _one = ONE_AT_A_TIME.lock();
    let heap = Heap::builder().build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut blocks = Blocks::new(&m, Vec::new());
    let before = resident();
    fill(&mut m, &mut blocks, 1000, 200_000);
    let full = resident() - before;
    assert!(full >= 180 * MIB, "{full}");
    blocks.enter(&m).truncate(25);
    // The first cycle plans for a heap as large as before, the second knows better.
    m.collect();
    m.collect();
    let start = Instant::now();
    while resident().saturating_sub(before) > full / 4 {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{} of {full} bytes are still there: {:?}",
            resident() - before,
            heap.stats()
        );
        m.blocking(|| std::thread::sleep(Duration::from_millis(20)));
    }
    check(&m, &mut blocks);
    heap.verify().expect("whole");
}

#[test]
fn what_is_released_at_once_can_be_used_again() {
    let _one = ONE_AT_A_TIME.lock();
    let heap = Heap::builder().poison(true).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut blocks = Blocks::new(&m, Vec::new());
    let before = resident();
    for round in 0..3 {
        fill(&mut m, &mut blocks, 5000, 10_000);
        assert!(resident() - before > 40 * MIB);
        blocks.enter(&m).truncate(10);
        m.collect();
        let released = heap.release_free_memory();
        assert!(released > 10 * MIB, "round {round}: {released}");
        let left = resident().saturating_sub(before);
        assert!(left < 20 * MIB, "round {round}: {left} bytes are left");
        heap.verify().expect("whole");
        check(&m, &mut blocks);
        blocks.enter(&m).clear();
    }
    let stats = heap.stats();
    assert!(stats.released_bytes > 0);
}
