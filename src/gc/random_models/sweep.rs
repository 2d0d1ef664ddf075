//! Spans between allocators, the background sweep and the change of generations; and their pages between page caches, the
//! page heap and the scavenger. Marking is done by the model: it knows who lives, and sets the marks while the world is
//! stopped. So a cycle is short, and most of it is the sweep.

use std::collections::BTreeSet;

use super::*;
use crate::gc::state_word::Request;
use crate::gc::world::Patience;
use crate::heap::pages::hints::Effort;
use crate::sys::lock::Unranked;
use crate::sys::random_model::explore;
#[cfg(feature = "sabotage")]
use crate::sys::{random_model::fails_with, sabotage::Fault};

/// Eight slots in a span.
const SIZE: usize = 1024;

/// A collector without a thread of its own, and who lives.
struct Scene {
    collector: Arc<Collector>,
    /// Addresses of the objects that live, of all threads.
    live: Unranked<BTreeSet<usize>>,
}

impl Scene {
    fn new() -> Arc<Self> {
        let heap = MHeap::new(2 << 20, Options::default()).expect("address space");
        Arc::new(Self {
            collector: Collector::new(heap, settings(u64::MAX)),
            live: Unranked::new(BTreeSet::new()),
        })
    }

    fn alloc(&self, mutator: &Mutator) -> usize {
        let wanted = Wanted {
            info: None,
            size: SIZE,
            align: 8,
            exact: true,
        };
        let fresh = self.collector.alloc_slow(mutator.state(), wanted);
        let address = fresh.expect("room in the heap").address;
        let is_new = self.live.lock().insert(address);
        assert!(is_new, "the slot of an object that lives is handed out");
        let word: *mut usize = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: a fresh slot.
        unsafe { word.write(address) };
        address
    }

    /// An object has its memory still: a page that went to the system reads as zero.
    fn check(address: usize) {
        let word: *const usize = std::ptr::with_exposed_provenance(address);
        // SAFETY: the object lives, so nobody writes there.
        let there = unsafe { word.read() };
        assert_eq!(there, address, "the memory of an object that lives is gone");
    }

    /// The scavenger, and somebody who turns its knobs.
    fn scavenge(&self, turns: usize) {
        let heap = &self.collector.heap;
        for _ in 0..turns {
            let pages = 1 + random(24);
            let bytes = (pages * PAGE_SIZE) as u64;
            match random(4) {
                0 => heap.set_bounds(bytes, u64::MAX),
                1 => heap.set_bounds(u64::MAX, bytes),
                2 => {
                    heap.release_all();
                }
                _ => {
                    let effort = any(&[Effort::Gentle, Effort::Forced]);
                    heap.release_some(bytes, effort);
                }
            }
            yield_now();
        }
    }

    /// A thread that allocates, lets go, and sweeps as the pacer would have it.
    fn run(&self, turns: usize) {
        let mut mutator = Mutator::attach(&self.collector);
        let mut mine = Vec::new();
        for _ in 0..turns {
            for _ in 0..random(6) {
                mine.push(self.alloc(&mutator));
            }
            for _ in 0..random(4).min(mine.len()) {
                let dead = mine.swap_remove(random(mine.len()));
                Self::check(dead);
                self.live.lock().remove(&dead);
            }
            match random(6) {
                0 => self.collector.sweep_pages(2),
                1 => mutator.blocking(|_| shuttle::thread::yield_now()),
                2 => {
                    mutator.detach();
                    mutator = Mutator::attach(&self.collector);
                }
                _ => mutator.safepoint(),
            }
        }
        mutator.detach();
    }

    /// The end of a cycle, and its sweep: `Collector::try_end_marking` and `after_marking`.
    fn cycle(&self) {
        let (collector, heap) = (&self.collector, &self.collector.heap);
        let world = &collector.world;
        let stopped = world
            .stop(Request::Stop, |_| Patience::Look)
            .expect("nobody is lost");
        for &address in self.live.lock().iter() {
            heap.mark.set(heap.offset_of(address).expect("in the heap"));
        }
        for mutator in world.registry().iter() {
            mutator.local.stale_cache.set(true);
        }
        heap.advance_generation();
        heap.open_sweep();
        collector.sweep_down.store(heap.top(), Ordering::Relaxed);
        world.withdraw_stop(stopped);
        world.open_gate();
        world.ask_handshake(|mutator| collector.act_for_blocked(mutator));
        world.wait_for_handshake(|_| Patience::Look);
        collector.sweep_all();
    }

    /// Whose allocation bit is set; nobody caches a span.
    fn allocated(&self) -> BTreeSet<usize> {
        let heap = &self.collector.heap;
        let slots = (1..heap.top() as usize * PAGE_SIZE / SIZE).map(|slot| slot * SIZE);
        let allocated =
            slots.filter(|&slot| heap.class_at(slot).is_some() && heap.alloc.test(slot));
        allocated.map(|slot| heap.at(slot).addr()).collect()
    }
}

fn program(allocators: usize, turns: usize, cycles: usize, releases: usize) {
    let scene = Scene::new();
    let threads: Vec<_> = (0..allocators)
        .map(|_| {
            let scene = scene.clone();
            shuttle::thread::spawn(move || scene.run(turns))
        })
        .collect();
    let there = scene.clone();
    let sweeper = shuttle::thread::spawn(move || {
        for _ in 0..cycles {
            there.cycle();
        }
    });
    scene.scavenge(releases);
    for thread in threads {
        thread.join().expect("no panic");
    }
    sweeper.join().expect("no panic");
    scene.cycle();
    let (allocated, live) = (scene.allocated(), scene.live.lock());
    assert!(allocated == *live, "allocated is what lives");
    live.iter().copied().for_each(Scene::check);
    let heap = &scene.collector.heap;
    let in_use = |page: u32| heap.class_at(page as usize * PAGE_SIZE).is_some();
    assert_eq!(heap.verify_pages(0, in_use), Ok(()));
}

#[test]
fn shuttle_sweep_against_allocators() {
    explore(2000, || program(3, 5, 4, 0));
}

#[test]
fn shuttle_pages_between_allocators_and_the_scavenger() {
    explore(1000, || program(3, 5, 4, 12));
}

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_scavenger_with_faults_fails() {
    for fault in [
        Fault::UsedPageReleased,
        Fault::CachedPagesStayFree,
        Fault::PageMapNotCleared,
    ] {
        fails_with(fault, 4000, &[""], || program(3, 5, 4, 12));
    }
}

#[cfg(feature = "sabotage")]
#[test]
fn shuttle_sweep_with_faults_fails() {
    for fault in [
        Fault::ClaimNotExclusive,
        Fault::SweptWhileCached,
        Fault::StaleCacheKept,
        Fault::MarksKept,
        Fault::SweptLate,
        Fault::CachedPagesStayFree,
        Fault::GenerationKept,
    ] {
        // Whatever it breaks first: what is allocated, who has a span, or which pages are free.
        fails_with(fault, 4000, &[""], || program(3, 5, 4, 0));
    }
}
