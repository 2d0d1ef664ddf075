//! Ps mark for the collector: in the background between two Gs; a P that marks all the time gives
//! its Gs to others.

#![cfg(feature = "sched")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Heap, Rebrand, Root, Runtime, Trace, Tracer, blocking, chan, go, yield_now};

#[path = "support/patience.rs"]
mod patience;

use patience::{Watch, until};

/// Counts the objects that Ps have traced, and those that other threads have.
#[derive(Clone, Debug, Default)]
struct Tracers {
    ps: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
}

// SAFETY: 1. 3. 6. no `Gc` inside. 2. atomics in `Arc`s. 4. true, so that it is traced. 5. it asks
// for a name.
unsafe impl Trace for Tracers {
    fn trace(&self, _: &mut Tracer<'_>) {
        let thread = std::thread::current();
        let is_p = thread.name().is_some_and(|n| n.starts_with("greywave-m-"));
        let count = if is_p { &self.ps } else { &self.others };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Tracers {
    type To = Self;
}

/// Gs that leave no P idle, while the heap is collected until `is_enough`.
fn collect_among_busy_gs(heap: &Heap, procs: usize, is_enough: impl Fn() -> bool + Send + Sync) {
    let rt = Runtime::builder(heap).procs(procs).build().unwrap();
    let main = async {
        let stop = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..4 * procs)
            .map(|_| {
                let stop = stop.clone();
                go(async move {
                    let mut turns = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        turns += 1;
                        yield_now().await;
                    }
                    turns
                })
            })
            .collect();
        let watch = Watch::begin();
        while !is_enough() {
            watch.check("marking by a P");
            let heap = heap.clone();
            blocking(move || heap.collect()).await;
        }
        stop.store(true, Ordering::Relaxed);
        for g in busy {
            assert!(g.await.unwrap() > 0, "each G has had turns");
        }
    };
    rt.block_on(main).unwrap();
}

fn keep_many(heap: &Heap, tracers: &Tracers) -> Vec<Root<Tracers>> {
    let m = heap.attach().unwrap();
    (0..50_000)
        .map(|_| m.root(m.alloc(tracers.clone())))
        .collect()
}

#[test]
fn ps_mark_between_gs() {
    let heap = Heap::new();
    let tracers = Tracers::default();
    let kept = keep_many(&heap, &tracers);
    let ps = tracers.ps.clone();
    collect_among_busy_gs(&heap, 2, move || ps.load(Ordering::Relaxed) > 10_000);
    heap.verify().unwrap();
    drop(kept);
}

/// Without Gs, and without a runtime, marking is the threads' affair.
#[test]
fn threads_mark_where_no_p_does() {
    let heap = Heap::new();
    let tracers = Tracers::default();
    let kept = keep_many(&heap, &tracers);
    heap.collect();
    assert_eq!(tracers.ps.load(Ordering::Relaxed), 0);
    let alone = tracers.others.load(Ordering::Relaxed);
    assert!(alone >= kept.len(), "{alone}");
    // A G that never comes back to its P leaves no time for marking there.
    let rt = Runtime::builder(&heap).procs(1).build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let hog = {
        let stop = stop.clone();
        rt.go(async move {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        })
    };
    heap.collect();
    heap.collect();
    stop.store(true, Ordering::Relaxed);
    rt.block_on(hog).unwrap().unwrap();
    let all = tracers.ps.load(Ordering::Relaxed) + tracers.others.load(Ordering::Relaxed);
    assert!(all >= 3 * kept.len(), "{all}");
}

/// Holds the first P that traces one of these after it was armed, until it is opened.
#[derive(Clone, Debug, Default)]
struct Gate(Arc<AtomicU8>);

const OPEN: u8 = 0;
const ARMED: u8 = 1;
const HELD: u8 = 2;

// SAFETY: 1. 3. 6. no `Gc` inside. 2. an atomic in an `Arc`. 4. true, so that it is traced. 5. it
// waits for a thread that takes no lock of the collector meanwhile, and for a bounded time.
unsafe impl Trace for Gate {
    fn trace(&self, _: &mut Tracer<'_>) {
        let thread = std::thread::current();
        if !thread.name().is_some_and(|n| n.starts_with("greywave-m-")) {
            return;
        }
        let arrived = self
            .0
            .compare_exchange(ARMED, HELD, Ordering::SeqCst, Ordering::SeqCst);
        let watch = Watch::begin();
        while arrived.is_ok() && self.0.load(Ordering::SeqCst) == HELD && !watch.is_hopeless() {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Gate {
    type To = Self;
}

/// Of two Ps one marks, and does not come back for a long time: the Gs in its queue run on the
/// other.
#[test]
fn a_dedicated_worker_leaves_its_gs_to_others() {
    const GS: usize = 8;
    // With four processors one worker of a P's is dedicated, and there are none that mark in
    // slices.
    let heap = Heap::builder().workers(4).build().unwrap();
    let gate = Gate::default();
    let kept: Vec<Root<Gate>> = {
        let m = heap.attach().unwrap();
        (0..50_000).map(|_| m.root(m.alloc(gate.clone()))).collect()
    };
    let rt = Runtime::builder(&heap).procs(2).build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let turns: Arc<[AtomicU64; GS]> = Arc::default();
    // Each wakes another on the P that it is on itself, so none of them comes by the queue of all
    // Ps.
    let (mut ends, starts): (Vec<_>, Vec<_>) = (0..GS).map(|_| chan::<()>(1)).unzip();
    ends.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
    let gs: Vec<_> = starts
        .into_iter()
        .zip(ends)
        .enumerate()
        .map(|(index, (from, to))| {
            let (stop, turns) = (stop.clone(), turns.clone());
            rt.go(async move {
                while !stop.load(Ordering::Relaxed) {
                    turns[index].fetch_add(1, Ordering::Relaxed);
                    if to.send(()).await.is_err() || from.recv().await.is_none() {
                        return;
                    }
                }
            })
        })
        .collect();
    let collecting = {
        let (heap, stop) = (heap.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                heap.collect();
            }
        })
    };
    let read = || turns.each_ref().map(|turns| turns.load(Ordering::Relaxed));
    for round in 0..20 {
        until("a turn for each G", || read().iter().all(|&n| n > round));
        gate.0.store(ARMED, Ordering::SeqCst);
        until("a P that marks", || gate.0.load(Ordering::SeqCst) == HELD);
        let before = read();
        until("a turn for each G while a P marks", || {
            let now = read();
            before
                .iter()
                .zip(now)
                .all(|(before, now)| now > before + 10)
        });
        gate.0.store(OPEN, Ordering::SeqCst);
    }
    stop.store(true, Ordering::Relaxed);
    collecting.join().unwrap();
    for g in gs {
        rt.block_on(g).unwrap().unwrap();
    }
    heap.verify().unwrap();
    drop(kept);
}
