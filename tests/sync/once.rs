//! `Once`.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use greywave::Once;

use crate::support::{ByHand, Executor, block_on, give_up_after, yield_now};

#[test]
fn one_initializer_runs_and_all_see_its_value() {
    for _ in 0..20 {
        let once = Arc::new(Once::new());
        let runs = Arc::new(AtomicU32::new(0));
        let executor = Executor::new(4);
        for task in 0..10 {
            let (once, runs) = (once.clone(), runs.clone());
            executor.spawn(async move {
                let make = || async {
                    runs.fetch_add(1, Ordering::Relaxed);
                    yield_now().await;
                    task.to_string()
                };
                let value = once.get_or_init(make).await;
                assert_eq!(Some(value), once.get());
            });
        }
        executor.finish();
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_cell_is_set_once() {
    let mut once = Once::new();
    assert_eq!(once.get(), None);
    assert_eq!(once.get_mut(), None);
    assert_eq!(once.set(1), Ok(()));
    assert_eq!(once.set(2), Err(2));
    assert_eq!(block_on(once.get_or_init(async || 3)), &1);
    assert_eq!(format!("{once:?}"), "Once(Some(1))");
    assert_eq!(once.get_mut(), Some(&mut 1));
    assert_eq!(once.into_inner(), Some(1));
    assert_eq!(Once::<u8>::default().into_inner(), None);
}

#[test]
fn a_set_does_not_wait_for_an_initializer() {
    let once = Once::new();
    let running = ByHand::waiting(once.get_or_init(pending::<i32>));
    assert_eq!(once.set(1), Err(1));
    drop(running);
    assert_eq!(once.set(2), Ok(()));
}

#[test]
fn a_failure_or_panic_leaves_the_cell_to_the_next() {
    let once = Once::new();
    let failed: Result<&i32, &str> = block_on(once.get_or_try_init(async || Err("no")));
    assert_eq!(failed, Err("no"));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        block_on(once.get_or_init(async || panic!("on purpose")));
    }));
    assert!(panicked.is_err());
    assert_eq!(once.get(), None);
    let made: Result<&i32, &str> = block_on(once.get_or_try_init(async || Ok(5)));
    assert_eq!(made, Ok(&5));
}

#[test]
fn a_dropped_initializer_hands_over_to_the_next_in_line() {
    let once = Once::new();
    let running = ByHand::waiting(once.get_or_init(pending));
    let gone = ByHand::waiting(once.get_or_init(|| async { 1 }));
    let granted = ByHand::waiting(once.get_or_init(|| async { 2 }));
    let mut next = ByHand::waiting(once.get_or_init(|| async { 3 }));
    let mut last = ByHand::waiting(once.get_or_init(|| async { 4 }));
    drop(gone);
    drop(running);
    assert_eq!((granted.wakes(), next.wakes(), last.wakes()), (1, 0, 0));
    drop(granted);
    assert_eq!((next.wakes(), last.wakes()), (1, 0));
    assert_eq!(next.poll(), Some(&3));
    assert_eq!(last.wakes(), 1);
    assert_eq!(last.poll(), Some(&3));
}

#[test]
fn initializers_that_give_up_lose_nobody() {
    for round in 0..50_u32 {
        let once = Arc::new(Once::new());
        let executor = Executor::new(4);
        for task in 0..8 {
            let once = once.clone();
            executor.spawn(async move {
                let make = || async {
                    for _ in 0..3 {
                        yield_now().await;
                    }
                    task
                };
                if task == 7 {
                    once.get_or_init(make).await;
                } else {
                    give_up_after(1 + (round + task) % 5, once.get_or_init(make)).await;
                }
            });
        }
        executor.finish();
        assert!(once.get().is_some());
    }
}

#[test]
fn the_value_is_dropped_with_the_cell() {
    let value = Arc::new(());
    let once = Once::new();
    assert!(once.set(value.clone()).is_ok());
    assert_eq!(Arc::strong_count(&value), 2);
    drop(once);
    assert_eq!(Arc::strong_count(&value), 1);
}
