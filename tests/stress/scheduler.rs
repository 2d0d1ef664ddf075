//! Programs against faults of the scheduler.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use greywave::net::UdpSocket;
use greywave::{DeadlockPolicy, Heap, Root, Runtime, Sleep, chan, go, sleep, with, yield_now};

use crate::support::{Watch, is_broken};

/// Takes back in the heap what its G did there.
struct Undo {
    entry: Root<u64>,
    undone: Arc<AtomicU64>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        let entry = with(|m| *self.entry.get(m));
        self.undone.fetch_add(entry, Ordering::Relaxed);
    }
}

/// The future of a G that is aborted is dropped as that G: `with` works in its drops.
pub(crate) fn an_aborted_g_undoes_what_it_did_in_the_heap() {
    let rt = Runtime::builder(&Heap::new())
        .procs(1)
        .build()
        .expect("a runtime");
    let undone = Arc::new(AtomicU64::new(0));
    let counted = undone.clone();
    let end = rt.block_on(async move {
        let g = go(async move {
            let _undo = Undo {
                entry: with(|m| m.root(m.alloc(3_u64))),
                undone: counted,
            };
            std::future::pending::<()>().await;
        });
        yield_now().await;
        g.abort();
        g.await.expect_err("it was aborted")
    });
    assert!(end.expect("no deadlock").is_cancelled());
    assert_eq!(undone.load(Ordering::Relaxed), 3);
}

/// Everybody waits for each other from some moment on while the monitor, which has seen nothing of
/// that, falls asleep.
pub(crate) fn a_deadlock_comes_as_the_monitor_falls_asleep() {
    for delay_ms in (0..180).step_by(12) {
        let waits = std::thread::spawn(move || {
            let rt = Runtime::builder(&Heap::new())
                .procs(1)
                .deadlocks(DeadlockPolicy::Always)
                .build()
                .expect("a runtime");
            std::thread::sleep(Duration::from_millis(delay_ms));
            let end = rt.block_on(async {
                let (_open, gate) = chan::<()>(0);
                gate.recv().await
            });
            assert!(end.is_err(), "nobody sends");
        });
        is_reported(&waits);
        waits.join().expect("no panic");
    }
}

/// Who is overslept hangs. With a fault in, that is known after seconds.
fn is_reported<T>(waits: &std::thread::JoinHandle<T>) {
    let watch = Watch::begin();
    let mut looks = 0;
    while !waits.is_finished() {
        watch.check("the report");
        assert!(looks < 5_000 || !is_broken(), "nobody has come");
        looks += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn watched(heap: &Heap, deadlocks: DeadlockPolicy) -> Runtime {
    Runtime::builder(heap)
        .procs(1)
        .deadlocks(deadlocks)
        .build()
        .expect("a runtime")
}

/// A sleep whose timer is there.
async fn begun(time: Duration) -> Sleep {
    let mut sleep = sleep(time);
    poll_fn(|cx| {
        assert!(Pin::new(&mut sleep).poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    sleep
}

/// Everybody waits for each other but for a timer, which a thread outside drops, early or late.
pub(crate) fn the_last_timer_goes_outside() {
    for delay_ms in (0..60).step_by(12) {
        let waits = std::thread::spawn(move || {
            let (give, take) = std::sync::mpsc::channel();
            let outside = std::thread::spawn(move || {
                let timer: Sleep = take.recv().expect("it comes");
                std::thread::sleep(Duration::from_millis(delay_ms));
                drop(timer);
            });
            let end = watched(&Heap::new(), DeadlockPolicy::Always).block_on(async move {
                give.send(begun(Duration::from_secs(3600)).await)
                    .expect("it waits");
                let (_open, gate) = chan::<()>(0);
                gate.recv().await
            });
            assert!(end.is_err(), "nobody sends");
            outside.join().expect("no panic");
        });
        is_reported(&waits);
        waits.join().expect("no panic");
    }
}

/// A G of one runtime waits for a socket of another one, in which nothing runs and nothing is
/// waited for: for a moment, or for so long that its monitor sleeps, too.
pub(crate) fn a_wait_for_a_socket_begins_outside() {
    for delay_ms in (0..60).step_by(12) {
        let waits = std::thread::spawn(move || {
            let heap = Heap::new();
            let [idle, other] = [(); 2].map(|()| watched(&heap, DeadlockPolicy::Never));
            let bind = async { UdpSocket::bind("127.0.0.1:0").expect("a socket") };
            let socket = idle.block_on(bind).expect("it does not wait");
            let address = socket.local_addr().expect("an address");
            std::thread::sleep(Duration::from_millis(delay_ms));
            let heard = other.block_on(async move {
                let mut buffer = [0; 8];
                let mut heard = pin!(socket.recv_from(&mut buffer));
                let mut waits = false;
                let heard = poll_fn(|cx| {
                    let heard = heard.as_mut().poll(cx);
                    if !std::mem::replace(&mut waits, true) {
                        assert!(heard.is_pending(), "nothing is sent");
                        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
                        sender.send_to(b"x", address).expect("it is sent");
                    }
                    // It is polled again when the socket's runtime wakes it, and not before.
                    heard
                });
                heard.await.map(|(len, _)| len)
            });
            assert!(matches!(heard, Ok(Ok(1))), "{heard:?}");
        });
        is_reported(&waits);
        waits.join().expect("no panic");
    }
}

/// One thread's G is stuck, again and again; another one's is not, and ends as it should.
pub(crate) fn a_deadlock_is_told_to_who_is_in_it() {
    let rt = Arc::new(watched(&Heap::new(), DeadlockPolicy::Always));
    let (open, gate) = chan::<()>(0);
    let reports = Arc::new(AtomicU64::new(0));
    let (stuck, theirs, counted) = (rt.clone(), gate.clone(), reports.clone());
    let stuck = std::thread::spawn(move || {
        while stuck.block_on(async { theirs.recv().await }).is_err() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let watch = Watch::begin();
    while reports.load(Ordering::Relaxed) < 20 {
        watch.check("reports");
        // Time to get stuck alone.
        std::thread::sleep(Duration::from_millis(25));
        let slow = rt.block_on(async {
            sleep(Duration::from_millis(20)).await;
            5
        });
        assert!(matches!(slow, Ok(5)), "it waits for time: {slow:?}");
    }
    drop(open);
    stuck.join().expect("no panic");
}

/// Another runtime's timer ends the wait, whatever else the same poll waits for.
pub(crate) fn a_timer_of_another_runtime_ends_a_wait() {
    let heap = Heap::new();
    let other = watched(&heap, DeadlockPolicy::Never);
    let rt = watched(&heap, DeadlockPolicy::Always);
    let mut timer = other
        .block_on(begun(Duration::from_millis(150)))
        .expect("it does not wait");
    let end = rt.block_on(async move {
        let (_open, gate) = chan::<()>(0);
        let mut wait = std::pin::pin!(gate.recv());
        poll_fn(|cx| {
            let is_over = Pin::new(&mut timer).poll(cx).is_ready();
            if is_over || wait.as_mut().poll(cx).is_ready() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    });
    assert!(end.is_ok(), "a timer ends it");
}
