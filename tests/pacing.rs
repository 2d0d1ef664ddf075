//! The heap keeps to its memory limit, goes on where it cannot, reacts at once to new settings, and
//! writes a line for each cycle. Tests look at a clock only to take samples.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use greywave::{Event, Frame, Gc, GcArray, GcCell, Heap, HeapBuilder, Mutator, Root, Trace};

#[path = "stress/support.rs"]
mod support;

use support::within;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// How far above the limit the mapped memory may get.
const SLACK: u64 = 16 * MIB;
/// Words of a chunk: 4 KiB with its length.
const WORDS: usize = 511;
const CHUNK: u64 = 4 * KIB;

type Chunk = GcArray<(), u64>;

#[derive(Trace)]
struct Place<'gc>(GcCell<'gc, Chunk>);

type Table<'gc> = [Place<'gc>];

fn build(builder: HeapBuilder) -> Heap {
    builder.build().expect("a heap")
}

fn chunk(m: &Mutator, number: u64) -> Gc<'_, Chunk> {
    m.alloc_array((), WORDS, |_| number)
}

/// Keeps `live` bytes in chunks, and replaces them in turn until `allocate` bytes have been
/// allocated.
fn replace(heap: &Heap, live: u64, allocate: u64) {
    let mut m = heap.attach().expect("attached");
    let places = live / CHUNK;
    let table: Root<Table<'static>> =
        m.root(m.alloc_slice(places as usize, |_| Place(GcCell::null())));
    for number in 0..allocate / CHUNK {
        let at = (number % places) as usize;
        table.get(&m)[at].0.set(&m, chunk(&m, number));
        m.safepoint();
    }
    let oldest = (allocate / CHUNK).saturating_sub(places);
    for place in table.get(&m).iter() {
        let chunk = place.0.get().expect("each place has been filled");
        let number = chunk.items()[0];
        assert!(number >= oldest, "chunk {number} was replaced");
        assert!(chunk.items().iter().all(|&word| word == number));
    }
}

/// The most memory that the heap had mapped, at looks while `work` ran on each of some threads.
fn most_mapped(heap: &Heap, threads: usize, work: impl Fn() + Sync) -> u64 {
    let over = AtomicBool::new(false);
    let look = || {
        let stats = heap.stats();
        stats.mapped_bytes.saturating_sub(stats.released_bytes) + stats.metadata_bytes
    };
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            // Relaxed: the flag is all that is shared.
            while !over.load(Ordering::Relaxed) {
                most = look().max(most);
                thread::sleep(Duration::from_millis(10));
            }
            look().max(most)
        });
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let ended: Vec<_> = started.into_iter().map(|thread| thread.join()).collect();
        over.store(true, Ordering::Relaxed);
        let most = watcher.join().expect("it only looks");
        for thread in ended {
            thread.expect("a thread's checks held");
        }
        most
    })
}

/// Five times the limit is allocated, and a good half of the limit stays.
fn the_limit_holds(threads: u64) {
    let limit = 64 * MIB;
    let heap = build(Heap::builder().gogc(None).memory_limit(limit));
    let (live, allocate) = (36 * MIB / threads, 5 * limit / threads);
    let most = most_mapped(&heap, threads as usize, || replace(&heap, live, allocate));
    assert!(
        most <= limit + SLACK,
        "{} KiB were mapped under a limit of {} KiB",
        most / KIB,
        limit / KIB
    );
    assert!(heap.stats().cycles > 0);
    heap.verify().expect("whole");
}

#[test]
fn the_limit_is_kept_by_one_thread() {
    within(Duration::from_secs(120), || the_limit_holds(1));
}

#[test]
fn the_limit_is_kept_by_several_threads() {
    within(Duration::from_secs(120), || the_limit_holds(3));
}

/// Threads that wait for an ordinary lock pass no safepoint, and who holds it allocates: past the
/// goal it waits for the end of marking, but not for those who wait for its lock.
#[test]
fn a_lock_may_be_held_while_the_heap_is_past_its_goal() {
    const TURNS: usize = 4000;
    let heap = build(Heap::builder().gogc(Some(10)));
    let lock = Mutex::new(0);
    let take_turns = || {
        let mut m = heap.attach().expect("attached");
        let kept: Vec<_> = (0..200).map(|n| m.root(chunk(&m, n))).collect();
        for _ in 0..TURNS / 4 {
            let mut turns = lock.lock().expect("no panic");
            for n in 0..50 {
                assert_eq!(chunk(&m, n).items()[0], n);
            }
            *turns += 1;
            drop(turns);
            m.safepoint();
        }
        drop(kept);
    };
    within(Duration::from_secs(60), || {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(take_turns);
            }
        });
    });
    assert_eq!(*lock.lock().expect("no panic"), TURNS);
    assert!(heap.stats().cycles > 3, "{:?}", heap.stats());
}

#[test]
fn a_program_that_keeps_more_than_the_limit_goes_on() {
    within(Duration::from_secs(120), || {
        let limit = 16 * MIB;
        let told = Arc::new(AtomicBool::new(false));
        let says_why = told.clone();
        let heap = build(
            Heap::builder()
                .gogc(None)
                .memory_limit(limit)
                .on_event(move |event| {
                    if let Event::LimitUnmet {
                        needed_bytes,
                        limit_bytes,
                        ..
                    } = event
                    {
                        assert!(needed_bytes > limit_bytes && *limit_bytes == limit);
                        // Relaxed: the flag is all that is shared.
                        says_why.store(true, Ordering::Relaxed);
                    }
                }),
        );
        replace(&heap, 20 * MIB, 28 * MIB);
        assert!(told.load(Ordering::Relaxed));
        heap.verify().expect("whole");
    });
}

#[test]
fn a_knob_returns_what_it_was_and_acts_at_once() {
    let heap = build(Heap::builder().gogc(Some(100)).memory_limit(u64::MAX));
    let mut m = heap.attach().expect("attached");
    let kept = m.root(m.alloc_slice(32, |_| Place(GcCell::null())));
    for place in kept.get(&m).iter() {
        let megabyte = m.alloc_array((), MIB as usize / 8, |_| 0);
        place.0.set(&m, megabyte);
    }
    m.collect();
    let goal = || heap.stats().goal_bytes;
    let live = heap.stats().live_bytes;
    assert!(live >= 32 * MIB);

    assert!(goal() >= 2 * live);
    assert_eq!(heap.set_gogc(Some(50)), Some(100));
    assert!((live + live / 2..2 * live).contains(&goal()));
    assert_eq!(heap.set_gogc(None), Some(50));
    assert_eq!(goal(), u64::MAX);

    assert_eq!(heap.set_memory_limit(64 * MIB), u64::MAX);
    assert!((live..=64 * MIB).contains(&goal()));
    assert_eq!(heap.set_memory_limit(u64::MAX), 64 * MIB);
    assert_eq!(goal(), u64::MAX);

    // A limit below what lives asks for a cycle; nobody else does.
    let cycles = heap.stats().cycles;
    assert_eq!(heap.set_memory_limit(16 * MIB), u64::MAX);
    within(Duration::from_secs(60), || {
        while heap.stats().cycles == cycles {
            m.safepoint();
        }
    });
    assert_eq!(heap.set_gogc(Some(7)), None);
}

#[test]
fn each_cycle_writes_a_line() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let heap = build(Heap::builder().trace_to(move |line| {
        let mut lines = sink.lock().expect("no test panics with the lock");
        lines.push(line.to_owned());
    }));
    replace(&heap, 4 * MIB, 40 * MIB);
    heap.collect();
    let cycles = heap.stats().cycles;
    drop(heap);
    let lines = lines.lock().expect("as above");
    assert!(lines.len() as u64 >= cycles && cycles >= 2);
    for (number, line) in (1..).zip(lines.iter()) {
        if let Err(what) = check_line(line, number) {
            panic!("{what}: {line}");
        }
    }
    assert!(lines.iter().any(|line| line.ends_with(" P (forced)")));
}

/// Reads `gc 7 @1.234s 2%: 0.021+4.2+0.010 ms clock, 0.042+0.13/2.1/0.000+0.019 ms cpu, 41->42->20
/// MB, 44 MB goal, 0 MB external, 2 P`; says which part cannot be read.
fn check_line(line: &str, number: u64) -> Result<(), &'static str> {
    let (head, body) = line.split_once(": ").ok_or("no head")?;
    let head: Vec<&str> = head.split(' ').collect();
    let [gc, cycle, at, percent] = head[..] else {
        return Err("the head has other parts");
    };
    if gc != "gc" || cycle.parse() != Ok(number) {
        return Err("another cycle");
    }
    let seconds = at.strip_prefix('@').and_then(|at| at.strip_suffix('s'));
    numbers(seconds, &[], 1).ok_or("the age")?;
    numbers(percent.strip_suffix('%'), &[], 1).ok_or("the share")?;

    let parts: Vec<&str> = body.split(", ").collect();
    let [clock, cpu, heap, goal, external, processors] = parts[..] else {
        return Err("the body has other parts");
    };
    numbers(clock.strip_suffix(" ms clock"), &["+"], 3).ok_or("the wall times")?;
    numbers(cpu.strip_suffix(" ms cpu"), &["+", "/"], 5).ok_or("the processor times")?;
    let heap = numbers(heap.strip_suffix(" MB"), &["->"], 3).ok_or("the sizes")?;
    if heap[0] > heap[1] || heap[2] > heap[1] {
        return Err("the sizes are not in order");
    }
    numbers(goal.strip_suffix(" MB goal"), &[], 1).ok_or("the goal")?;
    numbers(external.strip_suffix(" MB external"), &[], 1).ok_or("the external bytes")?;
    let processors = processors.strip_suffix(" (forced)").unwrap_or(processors);
    numbers(processors.strip_suffix(" P"), &[], 1).ok_or("the processors")?;
    Ok(())
}

/// So many numbers, none below zero, with one of the separators between each two.
fn numbers(text: Option<&str>, separators: &[&str], count: usize) -> Option<Vec<f64>> {
    let mut text = text?.to_owned();
    for separator in separators {
        text = text.replace(separator, " ");
    }
    let numbers: Vec<f64> = text
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let well_formed = numbers.len() == count && numbers.iter().all(|number| *number >= 0.0);
    well_formed.then_some(numbers)
}

/// Free slots between live ones are room for objects: with small objects that die at random places
/// a limit must not shrink to what lives.
#[test]
fn a_limit_leaves_room_between_small_objects() {
    let heap = Heap::builder()
        .gogc(None)
        .memory_limit(32 << 20)
        .build()
        .expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut kept: Frame<Vec<Gc<'static, [u8]>>> = Frame::new(&m, Vec::new());
    let size = |n: u64| 16 + (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 57) as usize;
    for n in 0..200_000_u64 {
        kept.enter(&m).push(m.alloc_slice(size(n), |_| 1));
        m.safepoint();
    }
    for n in 0..1_000_000_u64 {
        let place = n.wrapping_mul(0xD134_2543_DE82_EF95) % 200_000;
        kept.enter(&m)[place as usize] = m.alloc_slice(size(!n), |_| 2);
        m.safepoint();
    }
    let stats = heap.stats();
    let held = stats.mapped_bytes + stats.metadata_bytes;
    assert!(held <= 48 << 20, "{stats:?}");
    // 80 MB go through some 10 MB of room; a cycle for every few pages would be thousands.
    assert!(stats.cycles < 200, "{stats:?}");
}
