//! `WaitGroup`.

use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use greywave::WaitGroup;

use crate::support::{ByHand, Executor, block_on, yield_now};

/// Go's `testWaitGroup`: tasks wait for all, then all wait for the tasks; the groups are used
/// again.
#[test]
fn tasks_wait_for_all_and_all_for_the_tasks() {
    const TASKS: usize = 16;
    let (first, second) = (WaitGroup::new(), WaitGroup::new());
    for _ in 0..8 {
        let ended = Arc::new(AtomicU32::new(0));
        let executor = Executor::new(3);
        first.add(TASKS);
        second.add(TASKS);
        for _ in 0..TASKS {
            let (first, second, ended) = (first.clone(), second.clone(), ended.clone());
            executor.spawn(async move {
                first.done();
                second.wait().await;
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        block_on(first.wait());
        for _ in 0..TASKS {
            assert_eq!(ended.load(Ordering::Relaxed), 0, "released too soon");
            second.done();
        }
        executor.finish();
        assert_eq!(ended.load(Ordering::Relaxed), 16);
    }
}

#[test]
#[should_panic(expected = "negative WaitGroup counter")]
fn more_done_than_counted_panics() {
    let group = WaitGroup::new();
    group.add(1);
    group.done();
    group.done();
}

#[test]
fn a_misuse_leaves_the_count_as_it_was() {
    let group = WaitGroup::new();
    assert!(catch_unwind(|| group.done()).is_err());
    assert!(catch_unwind(|| group.add(usize::MAX)).is_err());
    group.add(1);
    assert!(catch_unwind(|| group.add(usize::MAX / 2)).is_err());
    assert_eq!(format!("{group:?}"), "WaitGroup { count: 1 }");
    group.done();
    assert!(ByHand::new(group.wait()).poll().is_some());
}

#[test]
fn a_wait_without_a_count_is_over() {
    let group = WaitGroup::new();
    assert!(ByHand::new(group.wait()).poll().is_some());
    group.add(0);
    assert!(ByHand::new(group.wait()).poll().is_some());
}

/// Go's `TestWaitGroupRace`.
#[test]
fn what_was_done_before_is_seen_by_who_waits() {
    let executor = Executor::new(2);
    for _ in 0..1000 {
        let group = WaitGroup::new();
        let count = Arc::new(AtomicU32::new(0));
        for _ in 0..2 {
            group.add(1);
            let (group, count) = (group.clone(), count.clone());
            executor.spawn(async move {
                count.fetch_add(1, Ordering::Relaxed);
                group.done();
            });
        }
        block_on(group.wait());
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
    executor.finish();
}

#[test]
fn a_guard_counts_until_it_is_dropped_and_a_clone_counts_again() {
    let group = WaitGroup::new();
    let guard = group.guard();
    let second = guard.clone();
    let mut wait = ByHand::waiting(group.wait());
    drop(guard);
    assert!(wait.poll().is_none());
    let outcome = catch_unwind(move || {
        let _second = second;
        panic!("on purpose");
    });
    assert!(outcome.is_err());
    assert_eq!(wait.wakes(), 1);
    assert!(wait.poll().is_some());
}

#[test]
fn a_wait_that_saw_zero_is_over_and_the_next_use_is_another() {
    let group = WaitGroup::new();
    group.add(1);
    let mut waits: Vec<_> = (0..20).map(|_| ByHand::waiting(group.wait())).collect();
    let dropped = waits.pop();
    drop(dropped);
    group.done();
    group.add(1);
    let mut next = ByHand::waiting(group.wait());
    for wait in &mut waits {
        assert_eq!(wait.wakes(), 1);
        assert!(wait.poll().is_some());
    }
    assert_eq!(next.wakes(), 0);
    drop(waits);
    assert!(next.poll().is_none());
    group.done();
    assert!(next.poll().is_some());
}

#[test]
fn many_uses_in_a_row() {
    let group = WaitGroup::new();
    let executor = Executor::new(3);
    for _ in 0..3 {
        let group = group.clone();
        executor.spawn(async move {
            for i in 0..1000 {
                let _counted = group.guard();
                if i % 3 == 0 {
                    yield_now().await;
                }
            }
        });
    }
    for _ in 0..4 {
        let group = group.clone();
        executor.spawn(async move {
            for _ in 0..200 {
                group.wait().await;
                yield_now().await;
            }
        });
    }
    executor.finish();
}
