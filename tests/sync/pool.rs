//! `Pool`. The tests in `src/sched/sync/pool.rs` check that values are dropped after two
//! collections.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use greywave::Pool;

/// Go's `TestPool`: the first is kept for its thread, the others are a stack.
#[test]
fn what_was_put_comes_back_newest_first() {
    let pool = Pool::new(|| 0);
    assert_eq!(pool.try_get(), None);
    for i in 1..=5 {
        pool.put(i);
    }
    let got: Vec<i32> = (0..6).map(|_| pool.get()).collect();
    assert_eq!(got, [1, 5, 4, 3, 2, 0]);
}

/// Go's `TestPoolNew`.
#[test]
fn an_empty_pool_makes_one() {
    let made = AtomicU32::new(0);
    let pool = Pool::new(move || made.fetch_add(1, Ordering::Relaxed) + 1);
    assert_eq!((pool.get(), pool.get()), (1, 2));
    pool.put(42);
    assert_eq!((pool.get(), pool.get()), (42, 3));
}

#[test]
fn another_thread_takes_the_oldest_that_is_shared() {
    let pool = Pool::new(|| 0);
    for i in 1..=4 {
        pool.put(i);
    }
    // A thread of another shard finds 2, 3 and 4; one of this shard finds 1 as well.
    let got = std::thread::scope(|scope| {
        let thread = scope.spawn(|| (0..3).map(|_| pool.get()).collect::<HashSet<i32>>());
        thread.join().unwrap()
    });
    let rest: HashSet<i32> = std::iter::from_fn(|| pool.try_get()).collect();
    assert_eq!((got.len(), rest.len()), (3, 1));
    assert_eq!(got.union(&rest).count(), 4);
}

/// Go's `TestPoolStress`: nobody gets what another one has.
#[test]
fn an_object_is_in_one_place() {
    const OBJECTS: usize = 64;
    let pool = Pool::new(|| usize::MAX);
    (0..OBJECTS).for_each(|object| pool.put(object));
    let owned: [Mutex<()>; OBJECTS] = std::array::from_fn(|_| Mutex::new(()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let mine = [pool.get(), pool.get()];
                    for object in mine {
                        if let Some(place) = owned.get(object) {
                            drop(place.try_lock().expect("it is mine"));
                            pool.put(object);
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn what_is_left_is_dropped_with_the_pool() {
    let object = Arc::new(());
    let pool = Pool::new(|| Arc::new(()));
    for _ in 0..3 {
        pool.put(object.clone());
    }
    drop(pool);
    assert_eq!(Arc::strong_count(&object), 1);
}
