//! Address space costs something where it is writable. What a heap has only reserved is in no core
//! dump, is not filled by `mlockall`, and counts for no limit on data. Two thousand heaps fit into
//! a process. If a limit is reached, the error names it, and the process has enough left to go on.
//!
//! Each test runs in a process of its own, under the limits in question. `faults_os.rs` refuses the
//! same calls one by one.

#![cfg(target_os = "linux")]

use std::process::Output;

use greywave::{Heap, Mutator, Root};

#[path = "stress/support.rs"]
mod support;

use support::{child, is_child, limited_child, text};

const MIB: u64 = 1 << 20;

/// Bytes of the mappings of this process that a core dump would hold: readable, private, and not
/// exempt.
fn dumpable() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux has it");
    let (mut sum, mut kib, mut counts) = (0, 0, false);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        match first {
            "Size:" => kib = second.parse().expect("KiB"),
            "VmFlags:" if counts && !line.split(' ').any(|flag| flag == "dd") => sum += kib << 10,
            _ if first.contains('-') => {
                counts = second.starts_with('r') && second.ends_with('p');
            }
            _ => {}
        }
    }
    sum
}

/// The mappings of this process.
fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    maps.lines().count()
}

/// A figure of `/proc/self/status`, in bytes.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words = line.expect("the figure").trim_start_matches(':');
    let kib = words.trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number") << 10
}

/// So many MiB that live.
fn fill(m: &Mutator, mib: u64) -> Vec<Root<[u64]>> {
    (0..mib)
        .map(|_| m.root(m.alloc_slice(1 << 17, |at| at as u64)))
        .collect()
}

/// A buffer of 64 MiB and a thread fit.
fn there_is_enough_to_live_on() {
    let mut buffer: Vec<u8> = Vec::new();
    let buffer = buffer.try_reserve_exact(64 << 20);
    assert!(buffer.is_ok(), "no buffer of 64 MiB: {buffer:?}");
    let thread = std::thread::Builder::new().spawn(|| ());
    thread.expect("a thread").join().expect("no panic");
}

fn succeeded(out: &Output) {
    assert!(out.status.success(), "{}", text(out));
}

#[test]
fn a_core_dump_has_what_is_used_and_growth_makes_no_more_mappings() {
    const NAME: &str = "a_core_dump_has_what_is_used_and_growth_makes_no_more_mappings";
    if !is_child(NAME) {
        return succeeded(&child(NAME, NAME, &[("MALLOC_ARENA_MAX", "1")]));
    }
    let before = dumpable();
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    m.collect();
    // The stacks of the heap's threads are among it.
    let empty = dumpable() - before;
    assert!(empty < 64 * MIB, "an empty heap: {} MiB", empty / MIB);
    let (before, mapped) = (mappings(), heap.stats().mapped_bytes);
    let kept = fill(&m, 200);
    let used = heap.stats().mapped_bytes - mapped;
    let grown = dumpable() - empty;
    assert!(
        grown < used + used / 4 + 64 * MIB,
        "{} MiB used, {} MiB more would be dumped",
        used / MIB,
        grown / MIB
    );
    let more = mappings().saturating_sub(before);
    assert!(more <= 4, "{more} more mappings for 200 MiB");
    assert_eq!(kept.len(), 200);
}

#[test]
fn two_thousand_heaps_live_in_one_process() {
    const NAME: &str = "two_thousand_heaps_live_in_one_process";
    if !is_child(NAME) {
        return succeeded(&child(NAME, NAME, &[]));
    }
    let mut heaps = Vec::new();
    for number in 0..2000_u64 {
        let heap = Heap::builder().workers(1).build();
        let heap = heap.unwrap_or_else(|error| panic!("heap {number}: {error}"));
        let m = heap.attach().expect("attached");
        let root = m.root(m.alloc(number));
        drop(m);
        heaps.push((heap, root));
    }
    there_is_enough_to_live_on();
    for (number, (heap, root)) in heaps.iter().enumerate().step_by(100) {
        let mut m = heap.attach().expect("attached");
        m.collect();
        assert_eq!(*root.get(&m), number as u64);
    }
    let first = heaps[0].0.stats().reserved_bytes;
    let last = heaps[1999].0.stats().reserved_bytes;
    assert!(first > last && last >= 256 * MIB, "{first} and {last}");
    // The address space of those that have gone is there again.
    drop(heaps);
    let heap = Heap::new();
    assert!(heap.stats().reserved_bytes > last);
}

#[test]
fn where_no_more_heaps_fit_the_error_says_so_and_the_process_lives() {
    const NAME: &str = "where_no_more_heaps_fit_the_error_says_so_and_the_process_lives";
    if !is_child(NAME) {
        return succeeded(&child(NAME, NAME, &[]));
    }
    let mut heaps = Vec::new();
    let error = loop {
        assert!(
            heaps.len() < 1000,
            "512 GiB each do not fit a thousand times"
        );
        match Heap::builder().reservation(512 << 30).build() {
            Ok(heap) => heaps.push(heap),
            Err(error) => break error.to_string(),
        }
    };
    assert!(
        error.contains("549755813888 bytes of address space"),
        "{error}"
    );
    assert!(error.contains("heaps of this process have"), "{error}");
    // Whoever does not insist on a size gets a heap that works.
    while heaps.len() < 1000
        && let Ok(heap) = Heap::builder().build()
    {
        heaps.push(heap);
    }
    there_is_enough_to_live_on();
    let heap = heaps.last().expect("some fit");
    let m = heap.attach().expect("attached");
    assert_eq!(fill(&m, 2).len(), 2);
}

#[test]
fn under_a_limit_of_address_space_heaps_take_a_part_of_it() {
    const NAME: &str = "under_a_limit_of_address_space_heaps_take_a_part_of_it";
    let sizes = [512_u64, 1024, 4096, 65_536];
    for mib in sizes {
        let what = format!("{mib} MiB");
        if is_child(&what) {
            let mut heaps = Vec::new();
            let error = loop {
                match Heap::builder().workers(1).build() {
                    Ok(heap) => heaps.push(heap),
                    Err(error) => break error.to_string(),
                }
                assert!(heaps.len() < 1000, "a limit bounds them");
            };
            let limit = format!("RLIMIT_AS is {} bytes", mib * MIB);
            assert!(error.contains(&limit), "{error}");
            assert!(!heaps.is_empty(), "{error}");
            if mib > 512 {
                there_is_enough_to_live_on();
            }
            let m = heaps[0].attach().expect("attached");
            assert_eq!(fill(&m, 2).len(), 2);
            // Of a gigabyte the first takes a fourth, not all.
            let first = heaps[0].stats().reserved_bytes;
            assert!(
                (mib * MIB / 8..mib * MIB * 3 / 4).contains(&first),
                "{first}"
            );
            return;
        }
    }
    if (0..4).any(|at| is_child(&format!("{} MiB", sizes[at]))) {
        return;
    }
    for mib in sizes {
        let out = limited_child(NAME, &format!("{mib} MiB"), "-v", mib << 10);
        succeeded(&out);
    }
}

#[test]
fn under_a_limit_of_data_an_allocation_fails_with_its_name_and_the_heap_lives() {
    const NAME: &str = "under_a_limit_of_data_an_allocation_fails_with_its_name_and_the_heap_lives";
    if !is_child(NAME) {
        // A heap of 256 GiB is made: what is only reserved is no data.
        return succeeded(&limited_child(NAME, NAME, "-d", 256 << 10));
    }
    let heap = Heap::builder()
        .gogc(None)
        .workers(1)
        .build()
        .expect("a heap");
    assert!(heap.stats().reserved_bytes > 1 << 30);
    let mut m = heap.attach().expect("attached");
    // The process needs some of it, too.
    let slack: Vec<u8> = vec![1; 16 << 20];
    let mut kept = Vec::new();
    let error = loop {
        match m.try_alloc_slice(1 << 17, |at| at as u64) {
            Ok(list) => kept.push(m.root(list)),
            Err(error) => break error.to_string(),
        }
    };
    drop(slack);
    assert!(error.contains("RLIMIT_DATA"), "{error}");
    assert!((50..256).contains(&kept.len()), "{} MiB", kept.len());
    kept.truncate(10);
    m.collect();
    kept.extend(fill(&m, 20));
    assert!(kept.iter().all(|list| list.get(&m)[1 << 16] == 1 << 16));
    m.collect();
    drop(m);
    heap.verify().expect("whole");
}

#[test]
fn locked_memory_is_what_is_used() {
    const NAME: &str = "locked_memory_is_what_is_used";
    if !is_child(NAME) {
        return succeeded(&child(NAME, NAME, &[]));
    }
    // SAFETY: a call without arguments in memory.
    if unsafe { libc::mlockall(libc::MCL_FUTURE) } != 0 {
        println!(
            "mlockall is not permitted here: {}",
            std::io::Error::last_os_error()
        );
        return;
    }
    let before = status("VmLck");
    let heap = match Heap::builder().reservation(1 << 30).workers(1).build() {
        Ok(heap) => heap,
        // Whoever is not privileged may lock a few MiB, and a reservation counts as locked.
        Err(error) => {
            assert!(error.to_string().contains("RLIMIT_MEMLOCK"), "{error}");
            return;
        }
    };
    let m = heap.attach().expect("attached");
    let kept = fill(&m, 4);
    assert!(status("VmLck") > before, "it is locked");
    let resident = status("VmRSS");
    assert!(resident < 256 * MIB, "{} MiB for 4", resident / MIB);
    assert_eq!(kept.len(), 4);
}
