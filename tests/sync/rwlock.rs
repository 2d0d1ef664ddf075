//! `RwLock`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use greywave::RwLock;

use crate::support::{ByHand, Executor, block_on, give_up_after, yield_now};

#[test]
fn readers_share_and_a_writer_does_not() {
    let mut lock = RwLock::new(1);
    *lock.get_mut() += 1;
    let one = lock.try_read().expect("free");
    let two = block_on(lock.read());
    assert_eq!(*one + *two, 4);
    assert!(lock.try_write().is_none());
    drop(one);
    assert!(lock.try_write().is_none());
    drop(two);
    let mut write = lock.try_write().expect("free");
    *write += 1;
    assert!(lock.try_read().is_none() && lock.try_write().is_none());
    assert_eq!(
        format!("{lock:?} {write:?}"),
        "RwLock { value: <locked> } 3"
    );
    drop(write);
    assert_eq!(format!("{lock:?}"), "RwLock { value: 3 }");
    assert_eq!(lock.into_inner(), 3);
}

/// Go's `TestParallelReaders`.
#[test]
fn all_readers_are_inside_at_once() {
    for count in [1, 3, 4] {
        let lock = Arc::new(RwLock::new(()));
        let inside = Arc::new(AtomicU32::new(0));
        let executor = Executor::new(4);
        for _ in 0..count {
            let (lock, inside) = (lock.clone(), inside.clone());
            executor.spawn(async move {
                let _share = lock.read().await;
                inside.fetch_add(1, Ordering::Relaxed);
                while inside.load(Ordering::Relaxed) < count {
                    yield_now().await;
                }
            });
        }
        executor.finish();
    }
}

/// Go's `HammerRWMutex`: a reader weighs 1 and a writer 10,000. `give_up`: half of them do not wait
/// to the end.
fn hammer(give_up: bool) {
    const WRITER: i32 = 10_000;
    let lock = Arc::new(RwLock::new(0_u64));
    let inside = Arc::new(AtomicI32::new(0));
    let executor = Executor::new(4);
    for task in 0..12_u32 {
        let (lock, inside) = (lock.clone(), inside.clone());
        executor.spawn(async move {
            for i in 0..500 {
                let polls = if give_up && (i + task) % 2 == 0 {
                    1 + i % 3
                } else {
                    u32::MAX
                };
                if task % 4 == 0 {
                    let Some(mut write) = give_up_after(polls, lock.write()).await else {
                        continue;
                    };
                    *write += 1;
                    assert_eq!(inside.fetch_add(WRITER, Ordering::Relaxed), 0);
                    yield_now().await;
                    assert_eq!(inside.fetch_sub(WRITER, Ordering::Relaxed), WRITER);
                } else {
                    let Some(_share) = give_up_after(polls, lock.read()).await else {
                        continue;
                    };
                    assert!(inside.fetch_add(1, Ordering::Relaxed) < WRITER);
                    yield_now().await;
                    assert!(inside.fetch_sub(1, Ordering::Relaxed) < WRITER);
                }
            }
        });
    }
    executor.finish();
    let written = *lock.try_write().expect("nobody has it");
    assert!(give_up || written == 1500, "{written}");
}

#[test]
fn many_readers_and_writers() {
    hammer(false);
}

#[test]
fn many_readers_and_writers_that_give_up() {
    hammer(true);
}

#[test]
fn a_waiting_writer_keeps_new_readers_out_and_lets_the_waiting_ones_in() {
    let lock = RwLock::new(());
    let reading = lock.try_read().expect("free");
    let mut writer = ByHand::waiting(lock.write());
    assert!(lock.try_read().is_none(), "a writer waits");
    let mut readers = [(); 2].map(|()| ByHand::waiting(lock.read()));
    let mut next_writer = ByHand::waiting(lock.write());

    drop(reading);
    assert_eq!((writer.wakes(), readers[0].wakes()), (1, 0));
    let writing = writer.poll().expect("its turn");

    drop(writing);
    assert_eq!(next_writer.wakes(), 0, "readers go first now");
    let shares = readers
        .each_mut()
        .map(|reader| reader.poll().expect("its turn"));
    assert!(lock.try_read().is_none(), "the next writer waits");

    let [one, two] = shares;
    drop(one);
    assert_eq!(next_writer.wakes(), 0);
    drop(two);
    drop(next_writer.poll().expect("its turn"));
    assert!(lock.try_write().is_some());
}

#[test]
fn a_writer_that_gives_up_lets_readers_in() {
    let lock = RwLock::new(());
    let reading = lock.try_read().expect("free");
    let writer = ByHand::waiting(lock.write());
    let mut reader = ByHand::waiting(lock.read());
    drop(writer);
    assert_eq!(reader.wakes(), 1);
    let share = reader.poll().expect("no writer waits");
    assert!(lock.try_read().is_some());
    drop((reading, share));
    assert!(lock.try_write().is_some());
}

#[test]
fn what_a_dropped_waiter_was_given_is_given_back() {
    let lock = RwLock::new(());
    let writing = lock.try_write().expect("free");
    let reader = ByHand::waiting(lock.read());
    let mut writer = ByHand::waiting(lock.write());
    drop(writing);
    assert!(lock.try_write().is_none());
    drop(reader);
    assert_eq!(writer.wakes(), 1);
    assert!(lock.try_read().is_none());
    assert!(writer.poll().is_some());
    let reading = lock.try_read().expect("free");
    let writer = ByHand::waiting(lock.write());
    drop(reading);
    drop(writer);
    assert!(lock.try_write().is_some());
}
