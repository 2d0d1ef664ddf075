//! The places where a task can wait. Each is made so that every visitor has to wait until the place
//! is freed.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Mutex as StdMutex, mpsc};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use greywave::net::{TcpListener, UdpSocket};
use greywave::{
    Cond, Context, Gc, GcChan, Mutex, Once, Root, RwLock, WaitGroup, blocking, chan, go, select,
    sleep, sleep_until, with, yield_now,
};

use crate::support::Wait;

/// A place, and how it is made. With true its first visitor is woken by time, where time is what is
/// waited for.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) make: fn(bool) -> Making,
}

type Making = Pin<Box<dyn Future<Output = Scene> + Send>>;
type Visit = Box<dyn Fn(usize) -> Wait + Send + Sync>;
type Free = StdMutex<Option<Box<dyn FnOnce() + Send>>>;
type Check = Box<dyn Fn() -> bool + Send + Sync>;

/// A place that is occupied.
pub(crate) struct Scene {
    visit: Visit,
    free: Free,
    /// Nobody waits here any more, as far as one can tell from outside.
    is_empty: Check,
}

impl Scene {
    fn new(
        visit: impl Fn(usize) -> Wait + Send + Sync + 'static,
        free: impl FnOnce() + Send + 'static,
        is_empty: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            visit: Box::new(visit),
            free: StdMutex::new(Some(Box::new(free))),
            is_empty: Box::new(is_empty),
        }
    }

    /// The visitor of that number, who has to wait.
    pub(crate) fn wait(&self, number: usize) -> Wait {
        (self.visit)(number)
    }

    /// Lets whoever waits in: the first, or all.
    pub(crate) fn free(&self) {
        let free = self.free.lock().unwrap().take();
        free.expect("it is freed once")();
    }

    pub(crate) fn is_empty(&self, case: &str) {
        assert!((self.is_empty)(), "{case}: somebody is left");
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

macro_rules! places {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const PLACES: &[Place] = &[$(Place {
            name: stringify!($name),
            make: |by_time| Box::pin($name(by_time)),
        }),+];
    };
}

places! {
    mutex, rwlock_read, rwlock_write, wait_group, once, cond, context, recv, send, select_recv, select_send,
    gc_recv, time, accept, receive,
    calls,
}

async fn mutex(_: bool) -> Scene {
    let mutex: &Mutex<u8> = leak(Mutex::new(0));
    let held = mutex.lock().await;
    Scene::new(
        |_| Box::pin(async { drop(mutex.lock().await) }),
        move || drop(held),
        || mutex.try_lock().is_some(),
    )
}

async fn rwlock_read(_: bool) -> Scene {
    let lock: &RwLock<u8> = leak(RwLock::new(0));
    let held = lock.write().await;
    Scene::new(
        |_| Box::pin(async { drop(lock.read().await) }),
        move || drop(held),
        || lock.try_write().is_some() && lock.try_read().is_some(),
    )
}

async fn rwlock_write(_: bool) -> Scene {
    let lock: &RwLock<u8> = leak(RwLock::new(0));
    let held = lock.read().await;
    Scene::new(
        |_| Box::pin(async { drop(lock.write().await) }),
        move || drop(held),
        || lock.try_write().is_some() && lock.try_read().is_some(),
    )
}

async fn wait_group(_: bool) -> Scene {
    let group: &WaitGroup = leak(WaitGroup::new());
    group.add(1);
    Scene::new(|_| Box::pin(group.wait()), || group.done(), || true)
}

async fn once(_: bool) -> Scene {
    let once: &Once<u8> = leak(Once::new());
    let mut first: Wait = Box::pin(async {
        once.get_or_init(pending).await;
    });
    poll_once(&mut first);
    Scene::new(
        move |_| {
            Box::pin(async {
                once.get_or_init(async || 1).await;
            })
        },
        // The initializer that runs is given up; the next one's turn comes.
        move || drop(first),
        || once.get() == Some(&1),
    )
}

async fn cond(_: bool) -> Scene {
    let (mutex, cond): &(Mutex<u8>, Cond) = leak((Mutex::new(0), Cond::new()));
    Scene::new(
        move |_| {
            Box::pin(async {
                drop(cond.wait(mutex.lock().await).await);
            })
        },
        || cond.notify_all(),
        || mutex.try_lock().is_some(),
    )
}

async fn context(_: bool) -> Scene {
    let (context, cancel) = Context::background().with_cancel();
    let context: &Context = leak(context);
    Scene::new(
        move |_| {
            Box::pin(async {
                context.done().await;
            })
        },
        move || cancel.cancel(),
        || context.err().is_some(),
    )
}

async fn recv(_: bool) -> Scene {
    let (tx, rx) = leak(chan::<u8>(0));
    Scene::new(
        move |_| {
            Box::pin(async {
                assert_eq!(rx.recv().await, Some(7));
            })
        },
        || tx.try_send(7).expect("somebody waits"),
        || tx.try_send(8).is_err(),
    )
}

async fn send(_: bool) -> Scene {
    let (tx, rx) = leak(chan::<u8>(1));
    tx.try_send(1).unwrap();
    Scene::new(
        move |_| {
            Box::pin(async {
                tx.send(2).await.expect("it is open");
            })
        },
        // Room for all.
        || (0..4).for_each(|_| assert!(rx.try_recv().is_ok() || rx.is_empty())),
        || {
            while rx.try_recv().is_ok() {}
            rx.is_empty()
        },
    )
}

async fn select_recv(_: bool) -> Scene {
    let (tx, rx) = leak(chan::<u8>(0));
    let (other_tx, other_rx) = leak(chan::<u8>(0));
    Scene::new(
        move |number| {
            Box::pin(async move {
                // With a future among the cases a later poll goes round all of them.
                if number == 2 {
                    select! { _ = recv(other_rx) => {}, v = recv(rx) => assert_eq!(v, Some(7)) }
                } else {
                    select! {
                        _ = recv(other_rx) => {},
                        v = recv(rx) => assert_eq!(v, Some(7)),
                        _ = future(pending::<()>()) => {},
                    }
                }
            })
        },
        || tx.try_send(7).expect("somebody waits"),
        || tx.try_send(8).is_err() && other_tx.try_send(8).is_err(),
    )
}

async fn select_send(_: bool) -> Scene {
    let (tx, rx) = leak(chan::<u8>(0));
    let (other_tx, other_rx) = leak(chan::<u8>(0));
    Scene::new(
        move |_| {
            Box::pin(async move {
                select! {
                    r = send(tx, 1) => r.expect("it is open"),
                    r = send(other_tx, 2) => r.expect("it is open"),
                }
            })
        },
        || {
            assert_eq!(rx.try_recv(), Ok(1));
            (0..3).for_each(|_| assert!(rx.try_recv().is_ok() || rx.is_empty()));
        },
        || rx.try_recv().is_err() && other_rx.try_recv().is_err(),
    )
}

async fn gc_recv(_: bool) -> Scene {
    let items: &Root<GcChan<'static, u64>> = leak(with(|m| {
        let items: Gc<'_, GcChan<'_, u64>> = m.alloc(GcChan::new(1));
        m.root(items)
    }));
    Scene::new(
        move |_| {
            Box::pin(async {
                assert_eq!(items.recv(|_, item| *item).await, Some(7));
            })
        },
        || {
            let sent = with(|m| items.get(m).try_send(m, m.alloc(7)).is_ok());
            assert!(sent, "there is room");
        },
        || with(|m| items.get(m).is_empty()),
    )
}

async fn time(by_time: bool) -> Scene {
    let due = Instant::now() + Duration::from_millis(30);
    Scene::new(
        move |number| match number {
            0 if by_time => Box::pin(sleep_until(due)),
            2 => Box::pin(async {
                // It has to wait, and not for long.
                yield_now().await;
                sleep(Duration::from_millis(2)).await;
            }),
            _ => Box::pin(sleep(Duration::from_secs(3600))),
        },
        || (),
        || true,
    )
}

async fn accept(_: bool) -> Scene {
    let listener: &TcpListener = leak(TcpListener::bind("127.0.0.1:0").unwrap());
    let at = listener.local_addr().unwrap();
    Scene::new(
        move |_| {
            Box::pin(async {
                listener.accept().await.unwrap();
            })
        },
        move || {
            for _ in 0..4 {
                let connection = std::net::TcpStream::connect(at).unwrap();
                std::mem::forget(connection);
            }
        },
        || true,
    )
}

async fn receive(_: bool) -> Scene {
    let socket: &UdpSocket = leak(UdpSocket::bind("127.0.0.1:0").unwrap());
    let at = socket.local_addr().unwrap();
    Scene::new(
        move |_| {
            Box::pin(async {
                let mut buffer = [0; 4];
                socket.recv_from(&mut buffer).await.unwrap();
            })
        },
        move || {
            let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            (0..4).for_each(|_| assert_eq!(from.send_to(&[1], at).unwrap(), 1));
        },
        || true,
    )
}

/// The line of blocking calls: the only spare thread of the runtime is in one.
async fn calls(_: bool) -> Scene {
    let (end, ended) = mpsc::channel::<()>();
    let (began, begins) = mpsc::channel::<()>();
    drop(go(blocking(move || {
        began.send(()).unwrap();
        ended.recv().ok()
    })));
    while begins.try_recv().is_err() {
        yield_now().await;
    }
    Scene::new(|_| Box::pin(blocking(|| ())), move || drop(end), || true)
}

fn poll_once(wait: &mut Wait) {
    let polled = wait
        .as_mut()
        .poll(&mut TaskContext::from_waker(Waker::noop()));
    assert_eq!(polled, Poll::Pending);
}
