//! Programs that allocate faster than the collector frees keep to their bounds: the goal, a memory
//! limit, a hard limit.
//!
//! Everything is counted in bytes that the heap itself reports. No test looks at a clock, except to
//! keep a neighbour away from its safepoint for some time. Between the moment that the heap reaches
//! its bound and its next safepoint, a thread may allocate what it allocates between two
//! safepoints, and what its caches hold: half a MiB, here as in the rule.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use greywave::{Event, Frame, Gc, GcLock, Heap, HeapBuilder, Mutator, Root, Trace};

#[path = "stress/support.rs"]
mod support;

use support::{Stretch, within};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// What a running thread may add to any bound.
const PER_THREAD: u64 = 512 * KIB;
/// How far above a memory limit the mapped memory may get.
const SLACK: u64 = 16 * MIB;

fn build(builder: HeapBuilder) -> Heap {
    builder.build().expect("a heap")
}

/// What was seen of a heap at its safepoints, at most. Bytes.
#[derive(Default)]
struct Most {
    heap: AtomicU64,
    goal: AtomicU64,
    mapped: AtomicU64,
    /// The largest excess of a cycle's peak over its goal, in percent of the goal, allowances for
    /// threads taken off.
    excess: AtomicU64,
    cycles: AtomicU64,
}

impl Most {
    // Relaxed (all below): figures, read after the threads have ended.
    fn look(&self, heap: &Heap) {
        let stats = heap.stats();
        let mapped = stats.mapped_bytes + stats.metadata_bytes;
        self.heap.fetch_max(stats.heap_bytes, Ordering::Relaxed);
        self.goal.fetch_max(stats.goal_bytes, Ordering::Relaxed);
        self.mapped.fetch_max(mapped, Ordering::Relaxed);
    }

    fn sink(self: &Arc<Self>, threads: u64) -> impl Fn(&Event) + Send + Sync + 'static {
        let this = self.clone();
        move |event| {
            if let Event::CycleEnd {
                peak_bytes,
                goal_bytes,
                ..
            } = event
            {
                this.cycles.fetch_add(1, Ordering::Relaxed);
                let over = peak_bytes.saturating_sub(goal_bytes + threads * PER_THREAD);
                this.excess
                    .fetch_max(over * 100 / goal_bytes, Ordering::Relaxed);
            }
        }
    }

    /// Each cycle's peak was at most so many percent above its goal, and at least so many cycles
    /// ran.
    fn assert(&self, percent: u64, cycles: u64) {
        let excess = self.excess.load(Ordering::Relaxed);
        assert!(excess <= percent, "a cycle ended {excess} % past its goal");
        let ran = self.cycles.load(Ordering::Relaxed);
        assert!(ran >= cycles, "{ran} cycles");
    }

    fn heap(&self) -> u64 {
        self.heap.load(Ordering::Relaxed)
    }

    fn goal(&self) -> u64 {
        self.goal.load(Ordering::Relaxed)
    }

    fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }
}

// ---- external bytes -----------------------------------------------------------------------------

/// 240 bytes outside the heap, some 30 inside.
#[derive(Trace)]
struct Owns {
    bytes: Vec<u64>,
}

#[derive(Trace)]
struct Locked {
    bytes: GcLock<Vec<u64>>,
}

const KEPT: usize = 20_000;
/// What `KEPT` objects take, with what they own.
const KEPT_BYTES: u64 = KEPT as u64 * (240 + 40);

/// Ten generations of objects that own a buffer replace each other.
#[test]
fn garbage_that_owns_memory_does_not_count_for_the_next_goal() {
    let most = Arc::new(Most::default());
    let heap = build(Heap::builder().gogc(Some(100)).on_event(most.sink(1)));
    let mut m = heap.attach().expect("attached");
    let mut alive: Frame<Vec<Gc<'static, Owns>>> = Frame::new(&m, Vec::new());
    for number in 0..20 * KEPT {
        let owns = m.alloc(Owns { bytes: vec![1; 30] });
        let mut kept = alive.enter(&m);
        if kept.len() < KEPT {
            kept.push(owns);
        } else {
            kept[number % KEPT] = owns;
        }
        drop(kept);
        if number % 64 == 0 {
            m.safepoint();
            most.look(&heap);
        }
    }
    assert!(alive.enter(&m).iter().all(|o| o.bytes.len() == 30));
    most.assert(30, 5);
    // What lives doubles, and what came while marking ran: without the dead it stays near twice 5
    // MiB.
    assert!(most.goal() <= 4 * KEPT_BYTES, "{} MiB", most.goal() / MIB);
    let bound = most.goal() + most.goal() * 3 / 10 + PER_THREAD;
    assert!(most.heap() <= bound, "{} of {bound}", most.heap());
    drop(alive);
    m.collect();
    assert_eq!(heap.stats().external_bytes, 0);
}

/// The buffers of live objects are replaced in place, which no sweep has to find out.
#[test]
fn buffers_that_are_replaced_in_place_ask_for_no_second_cycle() {
    let early = Arc::new(AtomicU64::new(0));
    let most = Arc::new(Most::default());
    let (count, sink) = (early.clone(), most.sink(1));
    let heap = build(Heap::builder().gogc(Some(100)).on_event(move |event| {
        sink(event);
        if let Event::CycleEnd {
            start_bytes,
            trigger_bytes,
            ..
        } = event
        {
            // Relaxed: a figure.
            count.fetch_add(
                u64::from(start_bytes * 10 < trigger_bytes * 6),
                Ordering::Relaxed,
            );
        }
    }));
    let mut m = heap.attach().expect("attached");
    let mut alive: Frame<Vec<Gc<'static, Locked>>> = Frame::new(&m, Vec::new());
    for number in 0..20 * KEPT {
        let locked = m.alloc(Locked {
            bytes: GcLock::new(Vec::new()),
        });
        locked.bytes.write(&m).resize(31, 1);
        let mut kept = alive.enter(&m);
        if kept.len() < KEPT {
            kept.push(locked);
        } else {
            let at = number % KEPT;
            // Every other one is refilled instead of replaced.
            if number % 2 == 0 {
                *kept[at].bytes.write(&m) = vec![2; 31];
            } else {
                kept[at] = locked;
            }
        }
        drop(kept);
        if number % 64 == 0 {
            m.safepoint();
            most.look(&heap);
        }
    }
    drop(alive);
    most.assert(30, 5);
    assert!(most.goal() <= 4 * KEPT_BYTES, "{} MiB", most.goal() / MIB);
    // Relaxed (all): figures.
    let (early, cycles) = (
        early.load(Ordering::Relaxed),
        most.cycles.load(Ordering::Relaxed),
    );
    assert!(early * 5 <= cycles, "{early} of {cycles} began early");
}

// ---- more threads than processors ---------------------------------------------------------------

/// Allocates garbage, 9600 bytes between two safepoints, until `allocate` bytes are through or
/// `over` says so.
fn make_garbage(m: &mut Mutator, allocate: u64, most: &Most, over: impl Fn() -> bool) {
    for round in 0..allocate / 9600 {
        for n in 0..300_u64 {
            std::hint::black_box(m.alloc([n; 4]));
        }
        // Before the safepoint, where the heap is largest. Not each time: it costs more than the
        // allocations.
        if round % 8 == 0 {
            most.look(m.heap());
        }
        m.safepoint();
        if over() {
            return;
        }
    }
}

/// 4 MiB of words that live.
fn keep(m: &Mutator) -> Root<[u64]> {
    m.root(m.alloc_slice(4 * MIB as usize / 8, |i| i as u64))
}

fn garbage_of(threads: u64, builder: HeapBuilder) -> (Heap, Arc<Most>) {
    let most = Arc::new(Most::default());
    let heap = build(builder.on_event(most.sink(threads)));
    let kept = keep(&heap.attach().expect("attached"));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut m = heap.attach().expect("attached");
                make_garbage(&mut m, 96 * MIB / threads, &most, || false);
            });
        }
    });
    let m = heap.attach().expect("attached");
    assert!((0..).zip(kept.get(&m).iter()).all(|(i, &word)| i == word));
    drop((m, kept));
    (heap, most)
}

#[test]
fn threads_of_garbage_keep_to_the_goal() {
    for threads in [2, 4, 16] {
        let (_heap, most) = garbage_of(threads, Heap::builder().gogc(Some(100)));
        most.assert(10, 5);
        let bound = most.goal() + most.goal() / 10 + threads * PER_THREAD;
        assert!(
            most.heap() <= bound,
            "{threads} threads: {} of {bound}",
            most.heap()
        );
        // 4 MiB live. What comes while marking runs counts as live in the next plan; in three plans
        // it would be 32.
        assert!(most.goal() <= 24 * MIB, "a goal of {}", most.goal());
    }
}

#[test]
fn threads_of_garbage_keep_to_a_limit() {
    for threads in [2, 16] {
        let limit = 32 * MIB;
        let builder = Heap::builder().gogc(None).memory_limit(limit);
        let (_heap, most) = garbage_of(threads, builder);
        assert!(
            most.mapped() <= limit + SLACK,
            "{threads} threads: {} MiB mapped",
            most.mapped() / MIB
        );
    }
}

#[test]
fn threads_of_garbage_do_not_run_out_of_a_hard_limit() {
    for threads in [2, 16] {
        let limit = 32 * MIB;
        for gogc in [Some(100), None] {
            let builder = Heap::builder().gogc(gogc).hard_limit(limit);
            // An allocation that found no room would end the process.
            let (heap, _) = garbage_of(threads, builder);
            assert!(heap.stats().cycles > 0);
        }
    }
}

/// Objects too long for a span's slots, with a quarter of the limit alive, and of all lengths.
#[test]
fn long_garbage_does_not_run_out_of_a_hard_limit() {
    let heap = build(Heap::builder().hard_limit(32 * MIB));
    let mut m = heap.attach().expect("attached");
    let kept = m.root(m.alloc_slice(MIB as usize, |_| 1_u64));
    for n in 0..300_u64 {
        let words = 1 + (n * 37 % 64) * 2048;
        let long = m.alloc_slice(words as usize, |_| n);
        assert_eq!(long[words as usize - 1], n);
        m.safepoint();
    }
    assert_eq!(kept.get(&m).len(), MIB as usize);
}

// ---- a neighbour that is late -------------------------------------------------------------------

/// Runs `work` beside a thread that comes to a safepoint every 50 ms only.
fn beside_a_late_one(heap: &Heap, work: impl FnOnce(&dyn Fn() -> bool) + Send) {
    let (end, polls) = (AtomicBool::new(false), AtomicU64::new(0));
    // Relaxed (all): flags and counts.
    let has_ended = || end.load(Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut m = heap.attach().expect("attached");
            while !has_ended() {
                let stretch = Stretch::of(Duration::from_millis(50));
                while !stretch.is_over() && !has_ended() {
                    thread::yield_now();
                }
                m.safepoint();
                polls.fetch_add(1, Ordering::Relaxed);
            }
        });
        work(&|| polls.load(Ordering::Relaxed) >= 40);
        end.store(true, Ordering::Relaxed);
    });
}

#[test]
fn garbage_waits_for_a_neighbour_that_is_late() {
    let most = Arc::new(Most::default());
    let heap = build(Heap::builder().gogc(Some(100)).on_event(most.sink(2)));
    beside_a_late_one(&heap, |over| {
        let mut m = heap.attach().expect("attached");
        let kept = keep(&m);
        make_garbage(&mut m, u64::MAX, &most, over);
        drop(kept);
    });
    most.assert(10, 2);
    let bound = most.goal() + most.goal() / 10 + 2 * PER_THREAD;
    assert!(most.heap() <= bound, "{} of {bound}", most.heap());
}

#[test]
fn garbage_beside_a_late_neighbour_does_not_run_out_of_a_hard_limit() {
    let heap = build(Heap::builder().hard_limit(16 * MIB));
    let most = Most::default();
    beside_a_late_one(&heap, |over| {
        let mut m = heap.attach().expect("attached");
        let kept = keep(&m);
        make_garbage(&mut m, u64::MAX, &most, over);
        drop(kept);
    });
    assert!(heap.stats().cycles > 0);
}

/// A drop wants a lock that a thread holds over its safepoints, past the heap's bounds. The
/// thread's waits end.
#[test]
fn a_drop_may_want_a_lock_of_a_thread_that_stalls() {
    #[derive(Trace)]
    struct Wants {
        #[trace(skip)]
        lock: Arc<Mutex<u64>>,
        bytes: Vec<u8>,
    }
    impl Drop for Wants {
        fn drop(&mut self) {
            *self.lock.lock().expect("no panic") += self.bytes.len() as u64;
        }
    }
    within(Duration::from_secs(120), || {
        let heap = build(Heap::builder().gogc(Some(10)));
        let lock = Arc::new(Mutex::new(0));
        let mut m = heap.attach().expect("attached");
        for _ in 0..3 {
            for _ in 0..200 {
                m.alloc(Wants {
                    lock: lock.clone(),
                    bytes: vec![0; 10_000],
                });
            }
            let held = lock.lock().expect("no panic");
            for _ in 0..10 {
                for _ in 0..100 {
                    std::hint::black_box(m.alloc_slice(100, |i| i));
                }
                m.safepoint();
            }
            drop(held);
        }
    });
}

// ---- a limit that is unmet ----------------------------------------------------------------------

#[test]
fn whoever_sheds_load_is_told_when_to_stop() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let heap = build(
        Heap::builder()
            .gogc(None)
            .memory_limit(16 * MIB)
            .on_event(move |event| {
                let what = match event {
                    Event::LimitUnmet { .. } => "unmet",
                    Event::LimitMet {
                        needed_bytes,
                        limit_bytes,
                    } => {
                        assert!(needed_bytes < limit_bytes && *limit_bytes == 16 * MIB);
                        "met"
                    }
                    Event::CycleEnd {
                        limit_unmet: true, ..
                    } => "end, unmet",
                    Event::CycleEnd { .. } => "end",
                    _ => return,
                };
                sink.lock().expect("no panic").push(what);
            }),
    );
    let mut m = heap.attach().expect("attached");
    let kept = m.root(m.alloc_slice(20 * MIB as usize / 8, |_| 1_u64));
    m.collect();
    let events = || told.lock().expect("no panic").clone();
    assert!(
        events().ends_with(&["unmet", "end, unmet"]),
        "{:?}",
        events()
    );
    assert!(heap.stats().unmet_limit.is_some());
    // From here on nobody allocates, and nobody asks for a cycle.
    drop(kept);
    let forced = heap.stats().forced_cycles;
    within(Duration::from_secs(120), || {
        m.blocking(|| {
            while !events().contains(&"met") {
                thread::sleep(Duration::from_millis(10));
            }
        });
    });
    // The cycle's end comes after it, and it is told once.
    m.collect();
    let events = events();
    let met = events.iter().position(|e| *e == "met").expect("told");
    assert!(
        events[met..].iter().skip(1).all(|e| *e == "end"),
        "{events:?}"
    );
    assert_eq!(heap.stats().forced_cycles, forced + 1);
    assert!(heap.stats().unmet_limit.is_none());
}
