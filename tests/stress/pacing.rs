//! What the heap grows to: the plan after a cycle that found much dead, and who waits for a cycle that is late.

#![allow(dead_code, reason = "each test program runs a part of these")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greywave::Heap;

const MIB: u64 = 1 << 20;

/// Garbage that owns ten times its size outside the heap: what its buffers took does not count for the next goal.
pub(crate) fn buffers_of_the_dead_do_not_count() {
    let heap = Heap::builder().gogc(Some(100)).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    for number in 0..500_000 {
        black_box(m.alloc(vec![1_u8; 400]));
        if number % 100 == 0 {
            m.safepoint();
            let goal = heap.stats().goal_bytes;
            assert!(goal <= 32 * MIB, "nothing lives, and the goal is {goal}");
        }
    }
}

/// A thread that comes to no safepoint keeps marking from ending; another one, past the goal, waits for it at its own next
/// safepoint. The first one polls as soon as the second has stood still for several looks: on a busy machine it stands
/// still for one when others have its processor.
pub(crate) fn garbage_waits_for_a_late_thread() {
    const ROUNDS: usize = 10;
    const LOOKS: u32 = 5;
    let heap = Heap::builder().gogc(Some(100)).build().expect("a heap");
    let (end, allocated) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut m = heap.attach().expect("attached");
            while !end.load(Ordering::SeqCst) {
                for _ in 0..8 {
                    black_box(m.alloc_slice(1000, |i| i));
                }
                allocated.fetch_add(1, Ordering::SeqCst);
                m.safepoint();
            }
        });
        let mut m = heap.attach().expect("attached");
        let mut most = 0;
        for _ in 0..ROUNDS {
            let (mut before, mut still) = (usize::MAX, 0);
            loop {
                let now = allocated.load(Ordering::SeqCst);
                let moved = std::mem::replace(&mut before, now) != now;
                still = if moved { 0 } else { still + 1 };
                if still == LOOKS {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
                let stats = heap.stats();
                most = most.max(stats.heap_bytes.saturating_sub(stats.goal_bytes));
                if most > 16 * MIB {
                    break;
                }
            }
            m.safepoint();
        }
        end.store(true, Ordering::SeqCst);
        // The other thread may be waiting for this one.
        drop(m);
        assert!(most <= 3 * MIB, "{most} bytes past the goal");
    });
}
