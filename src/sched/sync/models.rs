//! What the primitives promise, under every interleaving of two or three threads. A wake-up that is lost shows as a
//! deadlock, which loom reports.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};

use super::{Cond, Context, ContextError, Mutex, Once, RwLock, WaitGroup};
use crate::sys::model::{Order, Plain, explore};
use crate::sys::sync::{AtomicU32, Ordering};

struct Unpark(loom::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(mut future: Pin<&mut dyn Future<Output = T>>) -> T {
    let waker = Waker::from(Arc::new(Unpark(loom::thread::current())));
    let mut cx = task::Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        loom::thread::park();
    }
}

/// A future on its own, which may change threads.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Polls `future` once: it has to wait.
fn waits(future: &mut Task) {
    let mut cx = task::Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_pending());
}

fn run(mut task: Task) {
    block_on(task.as_mut());
}

/// One more, under the lock.
fn count(mutex: &Arc<Mutex<Plain<u32>>>) -> Task {
    let mutex = mutex.clone();
    Box::pin(async move {
        let value = mutex.lock().await;
        value.set(value.get() + 1);
    })
}

#[test]
fn loom_mutex_excludes_and_wakes() {
    explore(3, |order| {
        let mutex = Arc::new(Mutex::new(Plain::new(0)));
        let (one, two) = (mutex.clone(), mutex.clone());
        order.race(
            move || (0..2).for_each(|_| run(count(&one))),
            move || (0..2).for_each(|_| run(count(&two))),
        );
        let total = mutex.try_lock().expect("free").get();
        assert_eq!(total, 4);
    });
}

/// The lock is held, two wait. It is unlocked while the first gives up: the second gets it. If `starving`, it is handed over.
fn mutex_against_cancel(order: Order, starving: bool) {
    let mutex = Arc::new(Mutex::new(Plain::new(0)));
    let lock = |mutex: &Arc<Mutex<Plain<u32>>>| {
        // The guard outlives the borrow that it is made from.
        let mutex = mutex.clone();
        let mut guard: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let _guard = mutex.lock().await;
            pending::<()>().await;
        });
        waits(&mut guard);
        guard
    };
    let mut held = lock(&mutex);
    let (mut first, mut second) = (count(&mutex), count(&mutex));
    waits(&mut first);
    waits(&mut second);
    if starving {
        drop(held);
        held = lock(&mutex);
        waits(&mut first);
    }
    order.race3(move || drop(held), move || drop(first), move || run(second));
    let total = mutex.try_lock().expect("free").get();
    assert_eq!(total, 1);
}

#[test]
fn loom_mutex_call_against_cancel() {
    explore(3, |order| mutex_against_cancel(order, false));
}

#[test]
fn loom_mutex_hand_off_against_cancel() {
    explore(3, |order| mutex_against_cancel(order, true));
}

#[test]
fn loom_rwlock_writer_against_readers() {
    explore(3, |order| {
        let lock = Arc::new(RwLock::new((Plain::new(0), Plain::new(0))));
        let read = |lock: &Arc<RwLock<(Plain<u32>, Plain<u32>)>>| -> Task {
            let lock = lock.clone();
            Box::pin(async move {
                let pair = lock.read().await;
                assert_eq!(pair.0.get(), pair.1.get());
            })
        };
        let (one, two) = (read(&lock), read(&lock));
        let write: Task = Box::pin(async move {
            let pair = lock.write().await;
            pair.0.set(1);
            pair.1.set(1);
        });
        order.race3(move || run(one), move || run(write), move || run(two));
    });
}

/// A reader reads, a writer waits, and a reader behind it. The writer gives up while the lock is released.
#[test]
fn loom_rwlock_writer_gives_up() {
    explore(3, |order| {
        let lock = Arc::new(RwLock::new(()));
        let access = |write: bool, for_ever: bool| -> Task {
            let lock = lock.clone();
            Box::pin(async move {
                let guards = if write {
                    (None, Some(lock.write().await))
                } else {
                    (Some(lock.read().await), None)
                };
                if for_ever {
                    pending::<()>().await;
                }
                drop(guards);
            })
        };
        let (mut held, mut writer, mut reader) = (
            access(false, true),
            access(true, false),
            access(false, false),
        );
        waits(&mut held);
        waits(&mut writer);
        waits(&mut reader);
        order.race3(
            move || drop(held),
            move || drop(writer),
            move || run(reader),
        );
        assert!(lock.try_write().is_some());
    });
}

#[test]
fn loom_wait_group_wait_against_done() {
    explore(3, |order| {
        let group = WaitGroup::new();
        let done = [Arc::new(Plain::new(false)), Arc::new(Plain::new(false))];
        group.add(2);
        let finish = |index: usize| {
            let (group, done) = (group.clone(), done[index].clone());
            move || {
                done.set(true);
                group.done();
            }
        };
        let (one, two) = (finish(0), finish(1));
        let wait: Task = Box::pin(async move {
            group.wait().await;
            assert!(done.iter().all(|done| done.get()));
        });
        order.race3(one, two, move || run(wait));
    });
}

/// A group is used again while the wait for its first use is about to end. Who waits for the second use does not see the
/// end of the first as its own.
#[test]
fn loom_wait_group_used_again() {
    explore(3, |order| {
        let group = WaitGroup::new();
        group.add(1);
        let first = group.clone();
        let mut wait: Task = Box::pin(async move { first.wait().await });
        waits(&mut wait);
        let (last, again) = (group.clone(), group.clone());
        let second = Arc::new(Plain::new(false));
        let written = second.clone();
        order.race3(
            move || last.done(),
            move || {
                again.add(1);
                written.set(true);
                again.done();
            },
            move || run(wait),
        );
        assert!(second.get());
        let mut wait: Task = Box::pin(async move { group.wait().await });
        block_on(wait.as_mut());
    });
}

#[test]
fn loom_once_runs_one_initializer() {
    explore(3, |order| {
        let once = Arc::new(Once::new());
        let runs = Arc::new(AtomicU32::new(0));
        let get = |once: &Arc<Once<Plain<u32>>>| -> Task {
            let (once, runs) = (once.clone(), runs.clone());
            Box::pin(async move {
                let made = once.get_or_init(async || {
                    runs.fetch_add(1, Ordering::Relaxed);
                    Plain::new(7)
                });
                assert_eq!(made.await.get(), 7);
            })
        };
        let (one, two) = (get(&once), get(&once));
        order.race(move || run(one), move || run(two));
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    });
}

/// An initializer runs and two wait. It is dropped, and the first of those gives up: the second makes the value.
#[test]
fn loom_once_initializer_against_cancel() {
    explore(3, |order| {
        let once = Arc::new(Once::new());
        let get = |value: Option<u32>| -> Task {
            let once = once.clone();
            Box::pin(async move {
                let make = async || match value {
                    Some(value) => value,
                    None => pending().await,
                };
                once.get_or_init(make).await;
            })
        };
        let (mut running, mut first, mut second) = (get(None), get(Some(1)), get(Some(2)));
        waits(&mut running);
        waits(&mut first);
        waits(&mut second);
        order.race3(
            move || drop(running),
            move || drop(first),
            move || run(second),
        );
        assert_eq!(once.get(), Some(&2));
    });
}

/// A notification is sent while the first of two gives up: the second gets it, or the first had not been waiting any more.
#[test]
fn loom_cond_notification_against_cancel() {
    explore(3, |order| {
        let both = Arc::new((Mutex::new(()), Cond::new()));
        let wait = || -> Task {
            let both = both.clone();
            Box::pin(async move {
                let guard = both.0.lock().await;
                drop(both.1.wait(guard).await);
            })
        };
        let (mut first, mut second) = (wait(), wait());
        waits(&mut first);
        waits(&mut second);
        order.race3(
            move || both.1.notify_one(),
            move || drop(first),
            move || run(second),
        );
    });
}

#[test]
fn loom_cond_flag_is_seen() {
    explore(3, |order| {
        let both = Arc::new((Mutex::new(false), Cond::new()));
        let theirs = both.clone();
        let wait: Task = Box::pin(async move {
            let guard = theirs.0.lock().await;
            assert!(*theirs.1.wait_while(guard, |ready| !*ready).await);
        });
        let set: Task = Box::pin(async move {
            *both.0.lock().await = true;
            both.1.notify_one();
        });
        order.race(move || run(wait), move || run(set));
    });
}

/// A child is made and waited for while its parent is cancelled.
#[test]
fn loom_context_child_against_cancel() {
    explore(3, |order| {
        let (parent, cancel) = Context::background().with_cancel();
        let wait: Task = Box::pin(async move {
            let (child, handle) = parent.with_cancel();
            assert_eq!(child.done().await, ContextError::Cancelled);
            handle.disarm();
        });
        order.race(move || run(wait), move || cancel.cancel());
    });
}
