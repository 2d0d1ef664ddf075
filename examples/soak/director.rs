//! Changes the settings of the collector: limits, requested cycles, verifications. It also makes
//! other heaps, which end with everything in them.

use std::time::Duration;

use greywave::{Gc, GcCell, Heap, Mutator};

use crate::common::rng::Rng;
use crate::objects::Link;
use crate::shared::{Kind, Shared};

type LinkPtr<'gc> = Gc<'gc, Link<'gc>>;

/// A change every quarter of a second or so, until it is over.
pub(crate) fn run(shared: &Shared) -> Result<(), String> {
    let mut rng = Rng::new(shared.seed, 0);
    while !shared.is_over() {
        shared.sleep(Duration::from_millis(rng.below(500) as u64));
        change(shared, &mut rng)?;
        shared.count(Kind::Changes, 1);
    }
    shared.heap.set_gogc(Some(100));
    shared.heap.set_memory_limit(u64::MAX);
    Ok(())
}

fn change(shared: &Shared, rng: &mut Rng) -> Result<(), String> {
    let heap = &shared.heap;
    match rng.below(12) {
        0..4 => {
            heap.set_gogc(Some(20 + rng.below(300) as u32));
        }
        4..6 => {
            // From less than what lives, which cannot be kept, to three times that.
            let live = heap.stats().live_bytes.max(16 << 20);
            heap.set_memory_limit(live / 4 * (3 + rng.below(10) as u64));
        }
        6..8 => {
            heap.set_memory_limit(u64::MAX);
        }
        8 => heap.collect(),
        9 => {
            heap.release_free_memory();
        }
        10 => {
            heap.verify().map_err(|error| error.to_string())?;
            shared.count(Kind::Verified, 1);
        }
        _ => {
            another_heap(rng)?;
            shared.count(Kind::Heaps, 1);
        }
    }
    Ok(())
}

/// A heap of its own, with a ring in it that is alive when it ends.
fn another_heap(rng: &mut Rng) -> Result<(), String> {
    let heap = Heap::builder().reservation(256 << 20).workers(1);
    let heap = heap.build().map_err(|error| error.to_string())?;
    let m = heap.attach().map_err(|error| error.to_string())?;
    let len = 1 + rng.below(50_000) as u64;
    let last = link(&m, 0, None);
    let first = (1..len).fold(last, |next, number| link(&m, number, Some(next)));
    last.next.set(&m, first);
    let root = m.root(first);
    drop(m);
    heap.collect();
    heap.verify().map_err(|error| error.to_string())?;
    let m = heap.attach().map_err(|error| error.to_string())?;
    let mut at = root.get(&m);
    for step in 0..len {
        if at.number != len - 1 - step {
            return Err(format!("link {step} of a ring of {len} is {}", at.number));
        }
        at = at.next.get().ok_or("a ring has an end")?;
    }
    Ok(())
}

fn link<'m>(m: &'m Mutator, number: u64, next: Option<LinkPtr<'m>>) -> LinkPtr<'m> {
    m.alloc(Link {
        number,
        next: GcCell::new(next),
    })
}
