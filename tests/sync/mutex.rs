//! `Mutex`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use greywave::{Mutex, MutexGuard};

use crate::support::patience::Stopwatch;
use crate::support::{ByHand, Executor, block_on, give_up_after, yield_now};

fn is_send<T: Send>(_: &T) {}
fn is_sync<T: Sync>(_: &T) {}

#[test]
fn a_lock_its_future_and_its_guard_may_change_threads() {
    let mutex = Mutex::new(std::cell::Cell::new(1));
    is_sync(&mutex);
    is_send(&mutex.lock());
    let guard = mutex.try_lock().expect("free");
    is_send(&guard);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            guard.set(2);
            drop(guard);
        });
    });
    assert_eq!(mutex.try_lock().expect("free").get(), 2);
}

#[test]
fn the_value_is_reached_without_locking_by_its_owner() {
    let mut mutex = Mutex::from(1);
    *mutex.get_mut() += 1;
    assert_eq!(format!("{mutex:?}"), "Mutex { value: 2 }");
    let guard = mutex.try_lock().expect("free");
    assert_eq!(
        format!("{mutex:?} {guard:?}"),
        "Mutex { value: <locked> } 2"
    );
    drop(guard);
    assert_eq!(mutex.into_inner(), 2);
}

#[test]
fn a_held_lock_is_not_taken() {
    let mutex = Mutex::new(());
    let guard = mutex.try_lock().expect("free");
    assert!(mutex.try_lock().is_none());
    let mut waiter = ByHand::waiting(mutex.lock());
    drop(guard);
    assert_eq!(waiter.wakes(), 1);
    let guard = waiter.poll().expect("it was called");
    assert!(mutex.try_lock().is_none());
    drop(guard);
    assert!(mutex.try_lock().is_some());
}

#[test]
fn a_panic_unlocks_and_does_not_poison() {
    let mutex = Mutex::new(1);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut guard = mutex.try_lock().expect("free");
        *guard = 2;
        panic!("on purpose");
    }));
    assert!(outcome.is_err());
    assert_eq!(*mutex.try_lock().expect("free"), 2);
}

#[test]
fn many_tasks_lock_and_try() {
    let mutex = Arc::new(Mutex::new(0_u64));
    let inside = Arc::new(AtomicU32::new(0));
    let executor = Executor::new(4);
    for _ in 0..10 {
        let (mutex, inside) = (mutex.clone(), inside.clone());
        executor.spawn(async move {
            for i in 0..1000 {
                let guard = if i % 3 == 0 {
                    mutex.try_lock()
                } else {
                    Some(mutex.lock().await)
                };
                let Some(mut guard) = guard else { continue };
                assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                *guard += 1;
                if i % 7 == 0 {
                    yield_now().await;
                }
                assert_eq!(inside.fetch_sub(1, Ordering::Relaxed), 1);
            }
        });
    }
    executor.finish();
    assert!(*mutex.try_lock().expect("free") >= 6660);
}

/// Go's `TestMutexFairness`: one holds the lock most of the time, the other gets it ten times
/// nevertheless.
#[test]
fn who_takes_the_lock_again_and_again_does_not_keep_it() {
    let mutex = Arc::new(Mutex::new(()));
    let stop = Arc::new(AtomicBool::new(false));
    let turns = Arc::new(AtomicUsize::new(0));
    let (theirs, until, count) = (mutex.clone(), stop.clone(), turns.clone());
    let hog = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            let guard = block_on(theirs.lock());
            sleep(Duration::from_micros(100));
            drop(guard);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    for _ in 0..10 {
        sleep(Duration::from_micros(100));
        drop(block_on(mutex.lock()));
    }
    let turns = turns.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    hog.join().unwrap();
    // Whoever waits a millisecond is next: some ten turns of the other, and more where this thread
    // waits for a processor.
    assert!(turns < 50_000, "ten turns against {turns}");
}

/// Longer than a waiter's patience.
const LONG: Duration = Duration::from_millis(2);

/// `waiter` has been called, and finds that another one was faster, who then holds the lock.
fn overtaken<'a>(
    mutex: &'a Mutex<()>,
    held: MutexGuard<'a, ()>,
    waiter: &mut ByHand<'a, MutexGuard<'a, ()>>,
) -> MutexGuard<'a, ()> {
    drop(held);
    assert_eq!(waiter.wakes(), 1);
    let held = mutex.try_lock().expect("open until the waiter comes");
    assert!(waiter.poll().is_none());
    held
}

#[test]
fn a_waiter_that_was_overtaken_for_long_is_handed_the_lock() {
    let mutex = Mutex::new(());
    let held = mutex.try_lock().expect("free");
    let mut waiter = ByHand::waiting(mutex.lock());
    sleep(LONG);
    let held = overtaken(&mutex, held, &mut waiter);
    drop(held);
    assert!(mutex.try_lock().is_none(), "it is the waiter's");
    drop(waiter.poll().expect("it was handed over"));
    assert!(mutex.try_lock().is_some());
}

#[test]
fn a_starving_lock_goes_round_in_order_and_then_is_open_again() {
    let mutex = Mutex::new(());
    let held = mutex.try_lock().expect("free");
    let mut waiters: Vec<_> = (0..4).map(|_| ByHand::waiting(mutex.lock())).collect();
    sleep(LONG);
    let held = overtaken(&mutex, held, &mut waiters[0]);
    let came = Stopwatch::start();
    let mut late = ByHand::waiting(mutex.lock());
    drop(held);
    for waiter in &mut waiters {
        assert!(mutex.try_lock().is_none());
        assert!(late.poll().is_none());
        drop(waiter.poll().expect("in its turn"));
    }
    // The one that has not waited for long ends it.
    let mut last = ByHand::waiting(mutex.lock());
    let held = late.poll().expect("in its turn");
    let was_slow = came.has_run(Duration::from_millis(1));
    drop(held);
    let is_open = mutex.try_lock().is_some();
    assert!(is_open || was_slow);
    assert!(last.poll().is_some());
}

#[test]
fn an_early_waiter_is_only_called() {
    let mutex = Mutex::new(());
    let held = mutex.try_lock().expect("free");
    let mut waiters = [(); 2].map(|()| ByHand::waiting(mutex.lock()));
    drop(held);
    assert_eq!((waiters[0].wakes(), waiters[1].wakes()), (1, 0));
    // One call at a time, however often the lock goes by.
    for _ in 0..3 {
        drop(mutex.try_lock().expect("open"));
    }
    assert_eq!((waiters[0].wakes(), waiters[1].wakes()), (1, 0));
    assert!(waiters[1].poll().is_none(), "not its turn");
    drop(waiters[0].poll().expect("called"));
    assert_eq!(waiters[1].wakes(), 1);
    drop(waiters[1].poll().expect("called"));
}

#[test]
fn a_waiter_that_gives_up_passes_on_what_it_got() {
    let mutex = Mutex::new(());
    // Waiting.
    let held = mutex.try_lock().expect("free");
    let first = ByHand::waiting(mutex.lock());
    let mut second = ByHand::waiting(mutex.lock());
    drop(first);
    drop(held);
    drop(second.poll().expect("the only one"));

    // Called.
    let held = mutex.try_lock().expect("free");
    let first = ByHand::waiting(mutex.lock());
    let mut second = ByHand::waiting(mutex.lock());
    drop(held);
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    drop(first);
    assert_eq!(second.wakes(), 1);
    drop(second.poll().expect("called"));

    // Handed over.
    let held = mutex.try_lock().expect("free");
    let mut first = ByHand::waiting(mutex.lock());
    let mut second = ByHand::waiting(mutex.lock());
    sleep(LONG);
    drop(overtaken(&mutex, held, &mut first));
    drop(first);
    assert!(mutex.try_lock().is_none(), "the second has it");
    drop(second.poll().expect("handed over"));
    assert!(mutex.try_lock().is_some());
}

#[test]
fn the_last_waker_counts() {
    let mutex = Mutex::new(());
    let held = mutex.try_lock().expect("free");
    let mut waiter = ByHand::waiting(async { drop(mutex.lock().await) });
    waiter.poll();
    let moved = ByHand::waiting(async move {
        // Another task polls the same future from here on.
        waiter.poll();
        std::future::poll_fn(|cx| waiter.poll_as(cx)).await;
    });
    drop(held);
    assert_eq!(moved.wakes(), 1);
}

#[test]
fn waiters_that_give_up_lose_nobody() {
    let mutex = Arc::new(Mutex::new(0_u64));
    let executor = Executor::new(4);
    for task in 0..12_u32 {
        let mutex = mutex.clone();
        executor.spawn(async move {
            for i in 0..500 {
                let lock = mutex.lock();
                let guard = if task % 2 == 0 {
                    give_up_after(1 + (i + task) % 3, lock).await
                } else {
                    Some(lock.await)
                };
                if let Some(mut guard) = guard {
                    *guard += 1;
                    if i % 5 == 0 {
                        yield_now().await;
                    }
                }
            }
        });
    }
    executor.finish();
    assert!(*mutex.try_lock().expect("free") >= 3000);
}
