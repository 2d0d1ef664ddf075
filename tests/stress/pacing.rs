//! How far the heap grows: the plan after a cycle that found much dead, and who waits for a cycle
//! that is late.

#![allow(dead_code, reason = "each test program runs a part of these")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Frame, Gc, GcLock, Heap, Root, Trace};

use crate::stage::until_within;

const MIB: u64 = 1 << 20;

/// Garbage that owns ten times its size outside the heap: what its buffers took does not count for
/// the next goal.
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

/// A thread that comes to no safepoint keeps marking from ending; another one, past the goal, waits
/// for it at its own next safepoint. The first one polls as soon as the second has stood still for
/// several looks: on a busy machine it stands still for one when others have its processor.
pub(crate) fn garbage_waits_for_a_late_thread() {
    const ROUNDS: usize = 10;
    // Shorter, together, than a stall in which the collector makes no progress: then the other
    // thread goes on, a little at a time.
    const LOOKS: u32 = 3;
    const LINKS: usize = 200_000;
    // A whole collector stays within 1 MiB when it is alone, and within 3 on a busy machine, where
    // the late thread is late longer; a broken one goes on as far as it is let.
    const PAST_GOAL: u64 = 8 * MIB;
    const ENOUGH: u64 = 2 * PAST_GOAL;
    let heap = Heap::builder().gogc(Some(100)).build().expect("a heap");
    let (end, allocated) = (AtomicBool::new(false), AtomicUsize::new(0));
    // A list is marked link by link. Without it a whole cycle would fit into one safepoint of the
    // late thread on an idle machine, and the other one would never be met while marking runs.
    let list = {
        let mut m = heap.attach().expect("attached");
        let links = (0..LINKS).fold(None, |next, _| Some(m.alloc(Link(next, [0; 6]))));
        let list = m.root(links.expect("not empty"));
        // The goal follows from what lives.
        m.collect();
        list
    };
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
                if most > ENOUGH {
                    break;
                }
            }
            m.safepoint();
        }
        end.store(true, Ordering::SeqCst);
        // The other thread may be waiting for this one.
        drop(m);
        assert!(most <= PAST_GOAL, "{most} bytes past the goal");
    });
    drop(list);
}

#[derive(Trace)]
struct Link<'gc>(Option<Gc<'gc, Link<'gc>>>, [u64; 6]);

#[derive(Trace)]
struct Turn(GcLock<u64>);

/// Allocations that find no room fail at once when the running cycle waits for a thread that waits
/// for a lock of this one.
///
/// One thread asks for a cycle after the other, so that most allocations find one that runs.
/// Another one takes turns at the lock: it is late whenever it is not its turn. A try that waits
/// out its patience takes longer than the broken collector is given; with a whole one there is
/// nothing to wait for.
pub(crate) fn tries_under_a_lock_do_not_wait_for_its_waiters() {
    let tries = std::thread::spawn(try_under_a_lock);
    until_within(Duration::from_secs(5), "the end of all tries", || {
        tries.is_finished()
    });
    tries.join().expect("what it checks holds");
}

fn try_under_a_lock() {
    const ROUNDS: u64 = 60;
    const TRIES: usize = 8;
    let heap = Heap::builder().hard_limit(2 * MIB).gogc(None);
    let heap = heap.build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut kept: Frame<Vec<Gc<'static, [u8]>>> = Frame::new(&m, Vec::new());
    let turn: Root<Turn> = m.root(m.alloc(Turn(GcLock::new(0))));
    // As full of what lives as can be.
    for bytes in [32 << 10, 4 << 10, 1 << 10] {
        let mut failed = 0;
        while failed < 3 {
            match m.try_alloc_slice(bytes, |_| 1_u8) {
                Ok(object) => kept.enter(&m).push(object),
                Err(_) => {
                    failed += 1;
                    m.collect();
                }
            }
        }
    }
    let end = AtomicBool::new(false);
    let has_ended = || end.load(Ordering::SeqCst);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !has_ended() {
                heap.collect();
            }
        });
        s.spawn(|| {
            let mut m = heap.attach().expect("attached");
            while !has_ended() {
                *turn.get(&m).0.write(&m) += 1;
                m.safepoint();
            }
        });
        for round in 0..ROUNDS {
            {
                let lock = turn.get(&m);
                let mut turns = lock.0.write(&m);
                *turns += 1;
                for _ in 0..TRIES {
                    let got = m.try_alloc_slice(32 << 10, |_| 1_u8);
                    assert!(got.is_err(), "round {round}: everything lives");
                }
            }
            m.safepoint();
        }
        end.store(true, Ordering::SeqCst);
        m.blocking(|| ());
        drop(m);
    });
}
