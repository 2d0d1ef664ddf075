//! Each way to wait: if it lasts for ever, it is reported; beside something that will end it, it is
//! not.
//!
//! A row is a future that waits for ever. Each future is tried in these settings: by itself; after
//! other waits that its G has polled and keeps; beside a timer; beside a timer of another runtime.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Cx, Poll, Wake, Waker};
use std::time::Duration;

use greywave::net::UdpSocket;
use greywave::{
    Cond, Context, DeadlockPolicy, GcChan, Heap, Mutex, Once, Runtime, RwLock, Sleep, WaitGroup,
    chan, go, select, sleep, timeout, with, yield_now,
};

use crate::common::LONG;
use crate::support::within;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Row = (&'static str, fn() -> Boxed<()>);

/// Until the other thing happens.
const SOON: Duration = Duration::from_millis(60);

fn runtime(heap: &Heap, deadlocks: DeadlockPolicy) -> Runtime {
    Runtime::builder(heap)
        .procs(2)
        .deadlocks(deadlocks)
        .build()
        .expect("a runtime")
}

/// Polls once, and goes on whatever the answer is.
async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) {
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// Both are polled; the first that is ready ends it.
async fn either<A: Future, B: Future>(one: A, other: B) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| {
        let is_one = one.as_mut().poll(cx).is_ready();
        if is_one || other.as_mut().poll(cx).is_ready() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

const ROWS: &[Row] = &[
    ("a receive", || {
        Box::pin(async {
            let (_open, gate) = chan::<()>(0);
            gate.recv().await;
        })
    }),
    ("a send", || {
        Box::pin(async {
            let (to, _open) = chan::<u8>(0);
            let _ = to.send(1).await;
        })
    }),
    ("a select", || {
        Box::pin(async {
            let ((_a, one), (_b, other)) = (chan::<u8>(1), chan::<u8>(0));
            select! { _ = recv(&one) => {}, _ = recv(&other) => {} }
        })
    }),
    ("a select over a future", || {
        Box::pin(async {
            let (_open, gate) = chan::<u8>(1);
            let (work, _handle) = Context::background().with_cancel();
            select! { _ = recv(&gate) => {}, _ = future(work.done()) => {} }
        })
    }),
    ("a mutex", || {
        Box::pin(async {
            let lock = Mutex::new(0);
            let _held = lock.lock().await;
            let _again = lock.lock().await;
        })
    }),
    ("a lock to read", || {
        Box::pin(async {
            let lock = RwLock::new(0);
            let _held = lock.write().await;
            let _again = lock.read().await;
        })
    }),
    ("a lock to write", || {
        Box::pin(async {
            let lock = RwLock::new(0);
            let _held = lock.read().await;
            let _again = lock.write().await;
        })
    }),
    ("a wait group", || {
        Box::pin(async {
            let group = WaitGroup::new();
            group.add(1);
            group.wait().await;
        })
    }),
    ("an initializer", || {
        Box::pin(async {
            let once = Once::<u8>::new();
            let (_open, gate) = chan::<u8>(0);
            let mut first =
                pin!(once.get_or_init(|| async { gate.recv().await.unwrap_or_default() }));
            poll_once(first.as_mut()).await;
            once.get_or_init(|| async { 1 }).await;
        })
    }),
    ("a condition", || {
        Box::pin(async {
            let (lock, cond) = (Mutex::new(0), Cond::new());
            let held = lock.lock().await;
            drop(cond.wait(held).await);
        })
    }),
    ("a context", || {
        Box::pin(async {
            let (work, _handle) = Context::background().with_cancel();
            work.done().await;
        })
    }),
    ("a G", || {
        Box::pin(async {
            let (open, gate) = chan::<()>(0);
            let g = go(async move { gate.recv().await });
            g.await.expect("no panic");
            drop(open);
        })
    }),
    ("a channel in the heap", || {
        Box::pin(async {
            let channel = with(|m| m.root(m.alloc(GcChan::<u64>::new(1))));
            channel.recv(|_, _| ()).await;
        })
    }),
];

/// The future of a sleep that has been polled in `rt`, so that the timer is there.
fn begun(rt: &Runtime, time: Duration) -> Sleep {
    let begun = async move {
        let mut sleep = sleep(time);
        poll_once(Pin::new(&mut sleep)).await;
        (sleep,)
    };
    rt.block_on(begun).expect("it does not wait").0
}

#[test]
fn each_wait_for_ever_is_reported() {
    within(LONG, || {
        for &(what, wait) in ROWS {
            let rt = runtime(&Heap::new(), DeadlockPolicy::Always);
            assert!(rt.block_on(wait()).is_err(), "{what}");
        }
    });
}

/// A G keeps each of the waits, which it has polled in a poll before: a loop around a `select`
/// does.
#[test]
fn waits_that_are_kept_hide_no_deadlock() {
    within(LONG, || {
        for &(what, wait) in ROWS {
            let rt = runtime(&Heap::new(), DeadlockPolicy::Always);
            let end = rt.block_on(async move {
                let mut kept = wait();
                poll_once(kept.as_mut()).await;
                yield_now().await;
                let (_open, gate) = chan::<()>(0);
                gate.recv().await
            });
            assert!(end.is_err(), "{what}");
        }
    });
}

#[test]
fn what_time_ends_is_not_reported() {
    within(LONG, || {
        for &(what, wait) in ROWS {
            let heap = Heap::new();
            let rt = runtime(&heap, DeadlockPolicy::Always);
            let end = rt.block_on(async move { timeout(SOON, wait()).await });
            assert!(end.is_ok_and(|end| end.is_err()), "{what}");
            for comes_first in [true, false] {
                let other = runtime(&heap, DeadlockPolicy::Never);
                let timer = begun(&other, SOON);
                let end = rt.block_on(async move {
                    if comes_first {
                        either(timer, wait()).await;
                    } else {
                        either(wait(), timer).await;
                    }
                });
                assert!(end.is_ok(), "{what}, with the other timer: {comes_first}");
            }
        }
    });
}

/// A socket of another runtime, whichever is polled last.
#[test]
fn a_socket_of_another_runtime_may_end_a_wait() {
    within(LONG, || {
        for comes_first in [true, false] {
            let heap = Heap::new();
            let rt = runtime(&heap, DeadlockPolicy::Always);
            let other = runtime(&heap, DeadlockPolicy::Never);
            let bind = async { UdpSocket::bind("127.0.0.1:0").expect("a socket") };
            let socket = other.block_on(bind).expect("it does not wait");
            let address = socket.local_addr().expect("an address");
            let sender = std::thread::spawn(move || {
                std::thread::sleep(SOON);
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
                socket.send_to(b"x", address).expect("it is sent");
            });
            let end = rt.block_on(async move {
                let (_open, gate) = chan::<u8>(0);
                let mut buffer = [0; 8];
                let heard = socket.recv_from(&mut buffer);
                if comes_first {
                    either(heard, gate.recv()).await;
                } else {
                    either(gate.recv(), heard).await;
                }
            });
            assert!(end.is_ok(), "first: {comes_first}");
            sender.join().expect("no panic");
        }
    });
}

/// Nothing runs in a socket's runtime, and nothing is waited for there, when somebody else begins
/// to wait: a G of another runtime, or a thread that polls by hand. Again and again, so that the
/// wait begins at each moment of falling asleep.
#[test]
fn a_socket_of_an_idle_runtime_ends_a_wait() {
    within(LONG, || {
        let heap = Heap::new();
        let rt = runtime(&heap, DeadlockPolicy::Always);
        for round in 0..60 {
            let idle = runtime(&heap, DeadlockPolicy::Always);
            let bind = async { UdpSocket::bind("127.0.0.1:0").expect("a socket") };
            let socket = idle.block_on(bind).expect("it does not wait");
            let address = socket.local_addr().expect("an address");
            std::thread::sleep(Duration::from_millis(round / 2));
            let heard = async move {
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
                heard.await.expect("it is heard").0
            };
            let len = if round % 2 == 0 {
                rt.block_on(heard).expect("it is no deadlock")
            } else {
                by_hand(heard)
            };
            assert_eq!(len, 1);
        }
    });
}

/// Polls on this thread, which is no runtime's.
fn by_hand<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Cx::from_waker(&waker)) {
            Poll::Ready(out) => return out,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// The wait for a socket goes, on a thread outside, and everybody else waits for each other
/// already.
#[test]
fn the_last_wait_for_a_socket_goes_outside() {
    within(LONG, || {
        let (give, take) = std::sync::mpsc::channel::<Boxed<()>>();
        let outside = std::thread::spawn(move || {
            let wait = take.recv().expect("it comes");
            // Long enough for a look.
            std::thread::sleep(3 * SOON);
            drop(wait);
        });
        let rt = runtime(&Heap::new(), DeadlockPolicy::Always);
        let end = rt.block_on(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let mut wait: Boxed<()> = Box::pin(async move {
                let mut buffer = [0; 8];
                let _ = socket.recv_from(&mut buffer).await;
            });
            poll_once(wait.as_mut()).await;
            give.send(wait).expect("it waits");
            let (_open, gate) = chan::<u8>(0);
            gate.recv().await
        });
        assert!(end.is_err());
        outside.join().expect("no panic");
    });
}

/// Gs of two runtimes wait at one lock, and each is told by its own.
#[test]
fn a_line_may_have_gs_of_several_runtimes() {
    within(LONG, || {
        let heap = Heap::new();
        let (open, gate) = chan::<u8>(0);
        let gate = Arc::new(gate);
        let threads = [(); 2].map(|()| {
            let (rt, gate) = (runtime(&heap, DeadlockPolicy::Always), gate.clone());
            std::thread::spawn(move || rt.block_on(async move { gate.recv().await }).is_err())
        });
        for thread in threads {
            assert!(thread.join().expect("no panic"));
        }
        drop(open);
    });
}
