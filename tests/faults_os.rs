//! What the operating system can do to a heap and a runtime: it can refuse address space, threads,
//! or to take memory back, and its clock can jump. Each time the promised error is returned, or
//! everything goes on, and nothing is lost.
//!
//! Run it by `cargo test --features internals --test faults_os`. Here a switch refuses the right to
//! use memory; in `address_space.rs` limits of the system do. If the system grants more memory than
//! it has, which is its default, memory comes by page faults, and a system without memory ends the
//! process. `HeapBuilder::hard_limit` is a bound that is an error instead; see `faults_memory.rs`.

#![cfg(feature = "internals")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use greywave::internals::{OsCall, refuse, set_clock_ahead};
use greywave::{Gc, GcCell, Heap, Mutator, Root, Trace};

#[path = "stress/support.rs"]
mod support;

use support::{Counted, within};

const MINUTE: Duration = Duration::from_secs(60);
const ALL: u32 = u32::MAX;
const HOUR_NS: i64 = 3_600_000_000_000;

#[derive(Trace)]
struct Node<'gc> {
    next: GcCell<'gc, Node<'gc>>,
    counted: Counted,
}

/// The system as it is, for one test at a time; and again when the test ends.
struct System(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl System {
    fn mine() -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let this = Self(ONE.lock().unwrap_or_else(PoisonError::into_inner));
        Self::grant_all();
        this
    }

    fn grant_all() {
        for call in [OsCall::Map, OsCall::Release, OsCall::Thread, OsCall::Commit] {
            refuse(call, 0, 0);
        }
        set_clock_ahead(0);
    }
}

impl Drop for System {
    fn drop(&mut self) {
        Self::grant_all();
    }
}

fn small() -> greywave::HeapBuilder {
    Heap::builder()
        .reservation(64 << 20)
        .verify(true)
        .poison(true)
}

/// Objects live, die and are dropped once on this heap.
fn is_usable(heap: &Heap) {
    let drops = Arc::new(AtomicUsize::new(0));
    let mut m = heap.attach().expect("attached");
    let kept = ring(&m, 100, &drops);
    drop(ring(&m, 50, &drops));
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 50);
    let first = kept.get(&m);
    let all = std::iter::successors(Some(first), |node| {
        node.next.get().filter(|next| !next.ptr_eq(first))
    });
    assert_eq!(all.count(), 100);
    drop(kept);
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 150);
    drop(m);
    heap.verify().expect("whole");
}

/// Makes garbage until it has started so many cycles.
fn garbage_starts_cycles(heap: &Heap, cycles: u64) {
    let end = heap.stats().cycles + cycles;
    let mut m = heap.attach().expect("attached");
    while heap.stats().cycles < end {
        let _ = m.alloc_slice(1000, |_| GcCell::<Node<'_>>::null());
        m.safepoint();
    }
}

fn ring(m: &Mutator, len: usize, drops: &Arc<AtomicUsize>) -> Root<Node<'static>> {
    let last = node(m, None, drops);
    let mut first = last;
    for _ in 1..len {
        first = node(m, Some(first), drops);
    }
    last.next.set(m, first);
    m.root(first)
}

fn node<'m>(
    m: &'m Mutator,
    next: Option<Gc<'m, Node<'m>>>,
    drops: &Arc<AtomicUsize>,
) -> Gc<'m, Node<'m>> {
    let (next, counted) = (GcCell::new(next), Counted(drops.clone()));
    m.alloc(Node { next, counted })
}

/// Bytes of address space that the process has.
#[cfg(target_os = "linux")]
fn address_space() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = pages.split_whitespace().next().expect("the first one");
    pages.parse::<u64>().expect("a number") * 4096
}

#[test]
fn address_space_that_is_refused_at_each_mapping_in_turn() {
    let _system = System::mine();
    is_usable(&small().build().expect("a heap"));
    let before = address_space();
    let mut granted = 0;
    loop {
        refuse(OsCall::Map, granted, 1);
        match small().build() {
            Ok(_) => break,
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.contains("67108864 bytes of address space cannot be had")
                        && text.contains("RLIMIT_AS"),
                    "{text}"
                );
                let cause = std::error::Error::source(&error).expect("what the system said");
                assert!(!cause.to_string().is_empty());
            }
        }
        granted += 1;
    }
    assert!(
        granted >= 5,
        "an arena and its tables are {granted} mappings"
    );
    refuse(OsCall::Map, 0, 0);
    // The allocator of this thread may have grown; a mapping of the heap's would be 64 MiB.
    let grown = address_space().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes were not given back");
    is_usable(&small().build().expect("a heap"));
}

#[test]
fn without_a_size_of_its_own_a_heap_takes_what_it_can_get() {
    let _system = System::mine();
    let bytes = |refused| {
        refuse(OsCall::Map, 0, refused);
        let heap = Heap::builder().verify(true).build().expect("smaller");
        refuse(OsCall::Map, 0, 0);
        is_usable(&heap);
        heap.stats().reserved_bytes
    };
    let [all, half, eighth] = [0, 1, 3].map(bytes);
    assert_eq!((half, eighth), (all / 2, all / 8));
    refuse(OsCall::Map, 0, ALL);
    let error = Heap::builder().build().expect_err("nothing at all");
    let text = error.to_string();
    assert!(text.starts_with("no reservation from"), "{text}");
}

#[test]
fn memory_that_is_refused_at_each_commit_of_a_new_heap_in_turn() {
    let _system = System::mine();
    let before = address_space();
    let mut granted = 0;
    // What is refused is asked for once more, and exactly.
    loop {
        refuse(OsCall::Commit, granted, 2);
        match small().build() {
            Ok(heap) => {
                refuse(OsCall::Commit, 0, 0);
                is_usable(&heap);
                break;
            }
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.contains("of memory") && text.contains("RLIMIT_DATA"),
                    "{text}"
                );
            }
        }
        granted += 1;
    }
    assert!(granted >= 5, "an arena and its tables: {granted}");
    // Address space is not what is missing: nobody tries a smaller reservation.
    refuse(OsCall::Commit, 0, 2);
    let error = Heap::builder().build().expect_err("no memory");
    assert!(error.to_string().contains("RLIMIT_DATA"), "{error}");
    refuse(OsCall::Commit, 0, 0);
    let grown = address_space().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes were not given back");
}

#[test]
fn an_arena_that_may_not_grow_is_an_error_of_the_allocation_and_grows_when_it_may() {
    let _system = System::mine();
    for granted in [0, 1, 2, 3, 5, 6, 7] {
        // No check of each cycle: it takes memory of the system's, and ends the process for want of
        // it.
        let heap = small().verify(false).build().expect("a heap");
        let mut m = heap.attach().expect("attached");
        refuse(OsCall::Commit, granted, ALL);
        let mut kept = Vec::new();
        let error = loop {
            match m.try_alloc_slice(100_000, |at| at as u64) {
                Ok(list) => kept.push(m.root(list)),
                Err(error) => break error,
            }
        };
        let text = error.to_string();
        assert!(text.contains("the system refuses"), "{text}");
        assert!(text.contains("overcommit"), "{text}");
        // Whoever makes room goes on without the system.
        kept.truncate(kept.len() / 2);
        m.collect();
        let again = m.try_alloc_slice(50_000, |at| at as u64).expect("room");
        assert_eq!(again[49_999], 49_999);
        assert!(kept.iter().all(|list| list.get(&m)[99_999] == 99_999));
        refuse(OsCall::Commit, 0, 0);
        let more = m.try_alloc_slice(2_000_000, |at| at as u64);
        assert_eq!(more.expect("memory")[1000], 1000);
        drop(kept);
        m.collect();
        drop(m);
        heap.verify().expect("whole");
        is_usable(&heap);
    }
}

#[test]
fn a_limit_of_the_heap_is_not_taken_for_a_refusal_of_the_system() {
    let _system = System::mine();
    let heap = small().build().expect("a heap");
    let m = heap.attach().expect("attached");
    refuse(OsCall::Commit, 0, ALL);
    let error = m.try_alloc_slice(1 << 20, |_| 0_u64).expect_err("refused");
    assert!(error.to_string().contains("the system refuses"), "{error}");
    refuse(OsCall::Commit, 0, 0);
    let error = m
        .try_alloc_slice(1 << 24, |_| 0_u64)
        .expect_err("too large");
    assert!(error.to_string().contains("do not fit into"), "{error}");
}

#[test]
fn the_collectors_thread_is_refused() {
    let _system = System::mine();
    refuse(OsCall::Thread, 0, 1);
    let error = small().build().expect_err("no thread");
    let text = error.to_string();
    assert!(
        text.contains("the collector's thread cannot be started"),
        "{text}"
    );
    is_usable(&small().build().expect("a heap"));
}

#[test]
fn without_workers_the_collector_marks_alone() {
    let _system = System::mine();
    refuse(OsCall::Thread, 1, ALL);
    let heap = small().workers(4).build().expect("one thread is enough");
    within(MINUTE, || {
        is_usable(&heap);
        // Garbage starts cycles by itself, and assists help.
        garbage_starts_cycles(&heap, 3);
    });
}

#[test]
fn memory_that_cannot_be_given_back_stays_in_use() {
    let _system = System::mine();
    refuse(OsCall::Release, 0, ALL);
    let heap = small().build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let root = m.root(m.alloc_slice(1 << 20, |at| at as u64));
    drop(root);
    m.collect();
    drop(m);
    assert_eq!(heap.release_free_memory(), 0);
    assert!(heap.stats().free_bytes >= 8 << 20);
    is_usable(&heap);
    // What was refused once is asked for again.
    refuse(OsCall::Release, 0, 0);
    heap.release_free_memory();
    assert_eq!(heap.stats().free_bytes, 0);
    heap.verify().expect("whole");
    is_usable(&heap);
}

/// Cycles run while the clock jumps by `jumps` hours, one after the other.
fn collects_while_the_clock_jumps(jumps: &[i64]) {
    let heap = small().build().expect("a heap");
    within(MINUTE, || {
        for hours in jumps {
            set_clock_ahead(hours * HOUR_NS);
            is_usable(&heap);
            garbage_starts_cycles(&heap, 2);
        }
    });
    for metric in heap.stats().metrics() {
        assert!(metric.value.is_finite(), "{metric:?}");
    }
}

#[test]
fn the_clock_jumps_ahead_while_cycles_run() {
    let _system = System::mine();
    collects_while_the_clock_jumps(&[0, 1, 2, 24, 24 * 365]);
}

#[test]
fn the_clock_jumps_back_while_cycles_run() {
    let _system = System::mine();
    collects_while_the_clock_jumps(&[3, 2, 1, 0, -1]);
}

#[cfg(feature = "sched")]
mod runtimes {
    use greywave::{Runtime, blocking, go, sleep, with, yield_now};

    use super::*;
    use crate::support::{child, is_child, text};

    #[test]
    fn the_schedulers_thread_is_refused() {
        let _system = System::mine();
        let heap = small().build().expect("a heap");
        refuse(OsCall::Thread, 0, ALL);
        let error = Runtime::builder(&heap).build().expect_err("no thread");
        refuse(OsCall::Thread, 0, 0);
        let text = error.to_string();
        assert!(
            text.contains("the scheduler's thread cannot be started"),
            "{text}"
        );
        is_usable(&heap);
        let rt = Runtime::builder(&heap).build().expect("threads again");
        assert_eq!(rt.block_on(async { 7 }).expect("no deadlock"), 7);
    }

    #[test]
    fn one_thread_does_the_work_of_four_when_no_other_can_be_had() {
        let _system = System::mine();
        let heap = small().build().expect("a heap");
        // The monitor, and one for the Ps.
        refuse(OsCall::Thread, 2, ALL);
        let rt = Runtime::builder(&heap).procs(4).build().expect("a runtime");
        let sum = within(MINUTE, || {
            rt.block_on(async {
                let gs: Vec<_> = (0..100_u64)
                    .map(|number| {
                        go(async move {
                            yield_now().await;
                            if number % 10 == 0 {
                                blocking(|| std::thread::sleep(Duration::from_millis(1))).await;
                            }
                            with(|m| *m.alloc(number))
                        })
                    })
                    .collect();
                let mut sum = 0;
                for g in gs {
                    sum += g.await.expect("it ends");
                }
                sum
            })
        });
        assert_eq!(sum.expect("no deadlock"), 4950);
        rt.shutdown(MINUTE).expect("in time");
        is_usable(&heap);
    }

    #[test]
    fn a_runtime_without_any_thread_ends_the_process_and_says_so() {
        const NAME: &str = "runtimes::a_runtime_without_any_thread_ends_the_process_and_says_so";
        if is_child(NAME) {
            let heap = small().build().expect("a heap");
            refuse(OsCall::Thread, 1, ALL);
            let rt = Runtime::builder(&heap).build().expect("a runtime");
            let _ = rt.block_on(async { go(async {}).await });
            return;
        }
        let out = child(NAME, NAME, &[]);
        assert!(!out.status.success());
        let said = text(&out);
        assert!(
            said.contains("the first thread of a runtime cannot be started"),
            "{said}"
        );
    }

    #[test]
    fn who_sleeps_wakes_when_the_clock_has_jumped() {
        let _system = System::mine();
        let heap = small().build().expect("a heap");
        let rt = Runtime::builder(&heap).procs(2).build().expect("a runtime");
        within(MINUTE, || {
            let slept = rt.block_on(async {
                let sleeper = go(sleep(Duration::from_secs(1800)));
                yield_now().await;
                set_clock_ahead(HOUR_NS);
                sleeper.await.is_ok()
            });
            assert!(slept.expect("no deadlock"));
            // Back again: short sleeps still end, for they count from now.
            set_clock_ahead(0);
            let slept = rt.block_on(async { go(sleep(Duration::from_millis(1))).await.is_ok() });
            assert!(slept.expect("no deadlock"));
        });
        rt.shutdown(MINUTE).expect("in time");
    }
}
