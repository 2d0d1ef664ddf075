//! All of these between the Gs of a runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use greywave::{
    Cond, Context, DeadlockPolicy, Heap, Mutex, Once, Runtime, RwLock, WaitGroup, go, yield_now,
};

fn runtime(procs: usize) -> Runtime {
    let built = Runtime::builder(&Heap::new()).procs(procs).build();
    built.expect("a runtime")
}

#[derive(Default)]
struct Shared {
    count: Mutex<u64>,
    changed: Cond,
    table: RwLock<Vec<u64>>,
    name: Once<String>,
}

#[test]
fn gs_share_everything() {
    const GS: u64 = 100;
    let shared = Arc::new(Shared::default());
    let outcome = runtime(4).block_on(async {
        let group = WaitGroup::new();
        for g in 0..GS {
            let (shared, counted) = (shared.clone(), group.guard());
            go(async move {
                for i in 0..20 {
                    *shared.count.lock().await += 1;
                    shared.changed.notify_all();
                    let length = shared.table.read().await.len();
                    if i == g % 20 {
                        let mut table = shared.table.write().await;
                        assert!(table.len() >= length);
                        table.push(g);
                    }
                    let name = shared.name.get_or_init(async || {
                        yield_now().await;
                        "grey".to_owned()
                    });
                    assert_eq!(name.await, "grey");
                }
                drop(counted);
            });
        }
        let guard = shared.count.lock().await;
        let is_less = |count: &mut u64| *count < GS * 20;
        drop(shared.changed.wait_while(guard, is_less).await);
        group.wait().await;
        assert_eq!(shared.table.read().await.len() as u64, GS);
    });
    outcome.expect("no deadlock");
}

/// One P: a G that never has to wait makes room nevertheless, whatever it is that it never waits
/// for.
#[test]
fn a_g_that_gets_everything_at_once_makes_room() {
    for what in 0..6 {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let outcome = runtime(1).block_on(async move {
            let hog = go(async move {
                let shared = Shared::default();
                let (ended, cancel) = Context::background().with_cancel();
                cancel.cancel();
                let group = WaitGroup::new();
                while !stopped.load(Ordering::Relaxed) {
                    match what {
                        0 => drop(shared.count.lock().await),
                        1 => drop(shared.table.read().await),
                        2 => drop(shared.table.write().await),
                        3 => group.wait().await,
                        4 => {
                            shared.name.get_or_init(async || String::new()).await;
                        }
                        _ => {
                            ended.done().await;
                        }
                    }
                }
            });
            go(async move { stop.store(true, Ordering::Relaxed) });
            hog.await.expect("it does not panic");
        });
        outcome.expect("no deadlock");
    }
}

/// What nobody can end is reported, with what it waits for.
#[test]
fn a_wait_that_cannot_end_is_a_deadlock() {
    fn report(future: impl Future<Output = ()> + Send) -> String {
        // The thread of the harness waits with a limit, after which it might wake somebody.
        let rt = Runtime::builder(&Heap::new())
            .procs(2)
            .deadlocks(DeadlockPolicy::Always)
            .build()
            .expect("a runtime");
        let outcome = rt.block_on(future);
        outcome.expect_err("a deadlock").to_string()
    }
    let mutex = Mutex::new(());
    let lock_twice = async {
        let _held = mutex.lock().await;
        let _again = mutex.lock().await;
    };
    assert!(report(lock_twice).contains("a mutex"));
    let lock = RwLock::new(());
    let read_and_write = async {
        let _share = lock.read().await;
        let _all = lock.write().await;
    };
    assert!(report(read_and_write).contains("a lock to write"));
    let group = WaitGroup::new();
    group.add(1);
    assert!(report(group.wait()).contains("a wait group"));
    let cond = async {
        drop(Cond::new().wait(mutex.lock().await).await);
    };
    assert!(report(cond).contains("a condition"));
    let once = Once::<u32>::new();
    let own_value = async {
        once.get_or_init(async || *once.get_or_init(async || 1).await)
            .await;
    };
    assert!(report(own_value).contains("a once"));
    let endless = async {
        Context::background().done().await;
    };
    assert!(report(endless).contains("a context to end"));
}
