//! `Cond`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use greywave::{Cond, Mutex, MutexGuard};

use crate::support::{ByHand, Executor, block_on, give_up_after, yield_now};

/// Waits, and lets go of the lock.
async fn wait(cond: &Cond, mutex: &Mutex<()>) {
    let guard = mutex.lock().await;
    let _guard = cond.wait(guard).await;
}

/// Go's `TestCondSignal` and `TestCondSignalGenerations`: one at a time, in order.
#[test]
fn a_notification_wakes_the_one_that_waits_longest() {
    let (mutex, cond) = (Mutex::new(()), Cond::new());
    cond.notify_one();
    let mut waits: Vec<_> = (0..10)
        .map(|_| ByHand::waiting(wait(&cond, &mutex)))
        .collect();
    for i in 0..waits.len() {
        cond.notify_one();
        let wakes: Vec<u32> = waits.iter().map(ByHand::wakes).collect();
        assert_eq!(wakes.iter().sum::<u32>() as usize, i + 1, "{wakes:?}");
        assert!(waits[i].poll().is_some());
    }
}

#[test]
fn everybody_is_woken_and_each_gets_the_lock() {
    let (mutex, cond) = (Mutex::new(()), Cond::new());
    let mut waits: Vec<_> = (0..20)
        .map(|_| ByHand::waiting(wait(&cond, &mutex)))
        .collect();
    let held = mutex.try_lock().expect("they let go of it");
    cond.notify_all();
    for wait in &mut waits {
        assert_eq!(wait.wakes(), 1);
        assert!(wait.poll().is_none(), "the lock is held");
    }
    let mut late = ByHand::waiting(wait(&cond, &mutex));
    drop(held);
    for wait in &mut waits {
        assert!(wait.poll().is_some());
    }
    assert!(late.poll().is_none(), "it came after the notification");
}

/// Go's `TestCondBroadcast`: rounds of one who notifies and many who wait.
#[test]
fn rounds_of_waiting_and_notifying_all() {
    const TASKS: u32 = 20;
    let both = Arc::new((Mutex::new(0_u32), Cond::new()));
    let arrived = Arc::new(AtomicU32::new(0));
    let executor = Executor::new(4);
    for _ in 0..TASKS {
        let (both, arrived) = (both.clone(), arrived.clone());
        executor.spawn(async move {
            for round in 1..=10 {
                let guard = both.0.lock().await;
                arrived.fetch_add(1, Ordering::Relaxed);
                drop(both.1.wait_while(guard, |now| *now < round).await);
            }
        });
    }
    let leader = both.clone();
    executor.spawn(async move {
        for round in 1..=10 {
            while arrived.load(Ordering::Relaxed) < round * TASKS {
                yield_now().await;
            }
            *leader.0.lock().await = round;
            leader.1.notify_all();
        }
    });
    executor.finish();
}

/// Go's `TestRace`: three tasks take turns by one value.
#[test]
fn turns() {
    let both = Arc::new((Mutex::new(0), Cond::new()));
    let executor = Executor::new(3);
    for me in 0..3 {
        let both = both.clone();
        executor.spawn(async move {
            for _ in 0..300 {
                let guard = both.0.lock().await;
                let mut turn = both.1.wait_while(guard, |turn| *turn % 3 != me).await;
                *turn += 1;
                both.1.notify_all();
            }
        });
    }
    executor.finish();
    assert_eq!(*both.0.try_lock().expect("free"), 900);
}

#[test]
fn who_gives_up_after_a_notification_passes_it_on() {
    let (mutex, cond) = (Mutex::new(()), Cond::new());
    let first = ByHand::waiting(wait(&cond, &mutex));
    let mut second = ByHand::waiting(wait(&cond, &mutex));
    cond.notify_one();
    drop(first);
    assert!(second.poll().is_some());

    // While it waits for the lock.
    let mut first = ByHand::waiting(wait(&cond, &mutex));
    let mut second = ByHand::waiting(wait(&cond, &mutex));
    let held = mutex.try_lock().expect("free");
    cond.notify_one();
    assert!(first.poll().is_none());
    drop(first);
    drop(held);
    assert!(second.poll().is_some());

    // A notification of all is for those who waited then.
    let first = ByHand::waiting(wait(&cond, &mutex));
    cond.notify_all();
    let mut later = ByHand::waiting(wait(&cond, &mutex));
    drop(first);
    assert!(later.poll().is_none());
}

#[test]
fn who_gives_up_without_a_notification_takes_none_with_it() {
    let (mutex, cond) = (Mutex::new(()), Cond::new());
    let first = ByHand::waiting(wait(&cond, &mutex));
    let mut second = ByHand::waiting(wait(&cond, &mutex));
    drop(first);
    cond.notify_one();
    assert!(second.poll().is_some());
}

#[test]
fn a_wait_that_never_began_unlocks() {
    let (mutex, cond) = (Mutex::new(()), Cond::default());
    let guard: MutexGuard<'_, ()> = block_on(mutex.lock());
    drop(cond.wait(guard));
    assert!(mutex.try_lock().is_some());
}

#[test]
fn items_are_handed_out_although_some_give_up() {
    let both = Arc::new((Mutex::new(0_u32), Cond::new()));
    let taken = Arc::new(AtomicU32::new(0));
    let executor = Executor::new(4);
    for task in 0..8_u32 {
        let (both, taken) = (both.clone(), taken.clone());
        executor.spawn(async move {
            let mut round = 0;
            while taken.load(Ordering::Relaxed) < 1000 {
                round += 1;
                let take = async {
                    let guard = both.0.lock().await;
                    let mut items = both.1.wait_while(guard, |items| *items == 0).await;
                    *items -= 1;
                };
                if give_up_after(1 + (task + round) % 4, take).await.is_some() {
                    taken.fetch_add(1, Ordering::Relaxed);
                }
                yield_now().await;
            }
        });
    }
    executor.spawn(async move {
        for _ in 0..1000 {
            *both.0.lock().await += 1;
            both.1.notify_one();
            yield_now().await;
        }
    });
    executor.finish();
    assert_eq!(taken.load(Ordering::Relaxed), 1000);
}
