//! shuttle models of a whole scheduler: the real Ms, Ps, run queues, parkers and Gs, with channels and locks between them.
//! There is no monitor, which would make good what others forget.
//!
//! Gs that are lost, and Ms that sleep while there is work, show as a deadlock, or as a G that waits for ever. How often a
//! model runs, and how to repeat a failure: `sys/random_model.rs`.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::gc::collector::{Collector, Settings};
use crate::heap::mheap::{MHeap, Options};
use crate::sched::chan::{Receiver, Sender, chan};
use crate::sched::report::DeadlockPolicy;
use crate::sched::shared::{Plan, Shared};
use crate::sched::sync::{Mutex, WaitGroup};
use crate::select;
use crate::sys::lock::{Condvar, Unranked};
#[cfg(feature = "sabotage")]
use crate::sys::random_model::fails;
use crate::sys::random_model::{explore, random};
use crate::sys::sync::{AtomicUsize, Ordering, yield_now};

/// A runtime, and how many of its Gs are to end.
struct Scene {
    shared: Arc<Shared>,
    left: Unranked<usize>,
    changed: Condvar,
}

impl Scene {
    fn new(procs: usize) -> Arc<Self> {
        let settings = Settings {
            gogc: Some(100),
            memory_limit: u64::MAX,
            processors: procs,
            period: Duration::from_secs(3600),
            stress: false,
            verify: false,
            stop_the_world: false,
            quiet: true,
            sink: None,
            trace: None,
        };
        let heap = MHeap::new(16 << 10, Options::default()).expect("address space");
        let plan = Plan {
            procs,
            spares: 0,
            max_threads: 100,
            deadlocks: DeadlockPolicy::Auto,
            trace: None,
            make_host: Box::new(|| Box::new(())),
            collector: Collector::new(heap, settings),
        };
        Arc::new(Self {
            shared: Shared::new(plan).expect("a poller"),
            left: Unranked::new(0),
            changed: Condvar::new(),
        })
    }

    /// `Runtime::go`, of a G that is waited for.
    fn go(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        *self.left.lock() += 1;
        let scene = self.clone();
        let future = async move {
            future.await;
            scene.end_one();
        };
        // SAFETY: 1. 'static.
        drop(unsafe { self.shared.spawn(future, None, Location::caller()) });
    }

    fn end_one(&self) {
        let mut left = self.left.lock();
        *left -= 1;
        if *left == 0 {
            drop(left);
            self.changed.notify_all();
        }
    }

    /// Waits until every G has ended, and ends the runtime.
    fn finish(&self) {
        let mut left = self.left.lock();
        while *left > 0 {
            self.changed.wait_for(&mut left, Duration::MAX);
        }
        drop(left);
        self.shared
            .shut_down(Duration::MAX, &|| true)
            .expect("it may wait")
            .expect("all have ended");
    }
}

// ---- finding work, and going to sleep ------------------------------------------------------------------------------

/// A flag that a G waits for.
struct Flag {
    waker: Unranked<(bool, Option<Waker>)>,
}

impl Flag {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            waker: Unranked::new((false, None)),
        })
    }

    fn raise(&self) {
        let mut state = self.waker.lock();
        state.0 = true;
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|cx| {
            let mut state = self.waker.lock();
            if state.0 {
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A G that does not let go of its P until one that it has spawned has run: on another P, by another M.
fn parent(scene: &Arc<Scene>) -> impl Future<Output = ()> + Send + 'static {
    let scene = scene.clone();
    async move {
        let ran = Arc::new(AtomicUsize::new(0));
        let here = ran.clone();
        scene.go(async move { here.store(1, Ordering::Release) });
        while ran.load(Ordering::Acquire) == 0 {
            yield_now();
        }
    }
}

/// Parents on fewer Ps than there are, pairs of which one wakes the other, and Gs that make room; spawned on two threads
/// outside. `before` is what is done to the runtime first.
fn gs(before: fn(&Shared)) {
    let scene = Scene::new(4);
    before(&scene.shared);
    let there = scene.clone();
    let other = shuttle::thread::spawn(move || {
        for _ in 0..2 {
            there.go(parent(&there));
        }
    });
    for _ in 0..2 {
        let flag = Flag::new();
        let raised = flag.clone();
        scene.go(async move { flag.wait().await });
        scene.go(async move { raised.raise() });
    }
    scene.go(parent(&scene));
    other.join().expect("no panic");
    scene.finish();
}

#[test]
fn shuttle_gs_are_found_and_nobody_oversleeps() {
    explore(1200, || gs(|_| {}));
}

/// The negative control: a thread that counts as looking for work, and does not.
#[cfg(feature = "sabotage")]
#[test]
fn shuttle_gs_when_one_looks_for_ever_fails() {
    let deaf = |shared: &Shared| {
        shared.roster.begin_spinning();
    };
    fails(10, &["deadlock", "max_steps"], move || gs(deaf));
}

/// More than a ring holds: what is left over goes through the global queue, while others steal.
#[test]
fn shuttle_more_gs_than_a_ring_holds() {
    explore(800, || {
        let scene = Scene::new(4);
        let there = scene.clone();
        scene.go(async move {
            for _ in 0..3 {
                let again = there.clone();
                there.go(async move {
                    for _ in 0..6 {
                        again.go(async { yield_now() });
                    }
                });
            }
        });
        scene.finish();
    });
}

// ---- channels, locks and groups ------------------------------------------------------------------------------------

/// What the parties of a model share.
struct Parties {
    sums: Mutex<[u64; 2]>,
    group: WaitGroup,
}

/// Whether the parties take the lock.
#[derive(Clone, Copy, PartialEq)]
enum Locks {
    Yes,
    #[cfg(feature = "sabotage")]
    No,
}

impl Parties {
    async fn add(&self, which: usize, value: u64, unlocked: &[AtomicUsize; 2], locks: Locks) {
        if locks == Locks::Yes {
            let mut sums = self.sums.lock().await;
            sums[which] += value;
            return;
        }
        let sum = unlocked[which].load(Ordering::Relaxed);
        unlocked[which].store(sum + value as usize, Ordering::Relaxed);
    }
}

/// Sends `values`, to whichever channel takes them, until it is told to stop.
async fn produce(to: [Sender<u64>; 2], stop: Receiver<()>, values: std::ops::Range<u64>) -> u64 {
    let mut sent = 0;
    for value in values {
        let taken = select! {
            r = send(&to[0], value) => r.is_ok(),
            r = send(&to[1], value) => r.is_ok(),
            _ = recv(&stop) => false,
        };
        if !taken {
            break;
        }
        sent += value;
    }
    sent
}

/// Two producers, two consumers, and one that stops the producers at some time; at the end, what was sent was received.
fn parties(locks: Locks) {
    let scene = Scene::new(3);
    let parties = Arc::new(Parties {
        sums: Mutex::new([0; 2]),
        group: WaitGroup::new(),
    });
    let unlocked = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let channels = [chan(0), chan(1)];
    let (stopper, stop) = chan::<()>(0);
    parties.group.add(4);
    for number in 0..2 {
        let to = [channels[0].0.clone(), channels[1].0.clone()];
        let (stop, all, sums) = (stop.clone(), parties.clone(), unlocked.clone());
        scene.go(async move {
            let from = 1 + 10 * number;
            let sent = produce(to, stop, from..from + 3).await;
            all.add(0, sent, &sums, locks).await;
            all.group.done();
        });
    }
    let [(tx_a, a), (tx_b, b)] = channels;
    drop((tx_a, tx_b));
    for _ in 0..2 {
        let (a, b) = (a.clone(), b.clone());
        let (all, sums) = (parties.clone(), unlocked.clone());
        scene.go(async move {
            let mut open = [true; 2];
            while open != [false; 2] {
                let (which, got) = select! {
                    v = recv(open[0].then_some(&a)) => (0, v),
                    v = recv(open[1].then_some(&b)) => (1, v),
                };
                match got {
                    Some(value) => all.add(1, value, &sums, locks).await,
                    None => open[which] = false,
                }
            }
            all.group.done();
        });
    }
    scene.go(async move {
        if random(2) == 0 {
            let _ = stopper.close();
        }
    });
    let (all, seen) = (parties.clone(), unlocked.clone());
    scene.go(async move {
        all.group.wait().await;
        let [sent, received] = *all.sums.lock().await;
        // Told to the model's main thread: the panic of a G would only be the end of that G.
        seen[0].fetch_add(sent as usize, Ordering::Relaxed);
        seen[1].fetch_add(received as usize, Ordering::Relaxed);
    });
    scene.finish();
    let [sent, received] = unlocked.each_ref().map(|sum| sum.load(Ordering::Relaxed));
    assert_eq!(sent, received, "what was sent is what was received");
}

#[test]
fn shuttle_parties_of_two_channels() {
    explore(1000, || parties(Locks::Yes));
}

/// The negative control: the sums are not under the lock.
#[cfg(feature = "sabotage")]
#[test]
fn shuttle_parties_without_the_lock_fails() {
    fails(200, &["what was sent"], || parties(Locks::No));
}
