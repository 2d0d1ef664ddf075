//! Ps mark for the collector: in the background between two Gs, and a dedicated one gives its Gs to others.

#![cfg(feature = "sched")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greywave::{Heap, Rebrand, Root, Runtime, Trace, Tracer, blocking, go, yield_now};

/// Counts the objects that Ps have traced, and those that other threads have.
#[derive(Clone, Debug, Default)]
struct Tracers {
    ps: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
}

// SAFETY: 1. 3. 6. no `Gc` inside. 2. atomics in `Arc`s. 4. true, so that it is traced. 5. it asks for a name.
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
        let start = Instant::now();
        while !is_enough() {
            assert!(start.elapsed() < Duration::from_secs(60), "no P has marked");
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

/// Workers that have a P for themselves, as on larger machines.
#[test]
fn a_dedicated_worker_leaves_its_gs_to_others() {
    let heap = Heap::builder().workers(4).build().unwrap();
    let tracers = Tracers::default();
    let kept = keep_many(&heap, &tracers);
    let ps = tracers.ps.clone();
    collect_among_busy_gs(&heap, 4, move || ps.load(Ordering::Relaxed) > 100_000);
    heap.verify().unwrap();
    drop(kept);
}
