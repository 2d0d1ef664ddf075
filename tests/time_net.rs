//! Time and sockets in a runtime: timers fire when they are due, even beside Gs that never rest,
//! and a socket that waits holds no thread.

#![cfg(feature = "sched")]

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greywave::net::{TcpListener, TcpStream, UdpSocket};
use greywave::{
    Heap, Runtime, after, blocking, go, interval, sleep, sleep_until, timeout, with, yield_now,
};

#[path = "stress/support.rs"]
mod support;

use support::within;

/// Much longer than anything here takes.
const LONG: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);
const MS: Duration = Duration::from_millis(1);
const HERE: &str = "127.0.0.1:0";

/// Runs `main` on so many processors, and the runtime's end, in bounded time.
fn run<F>(procs: usize, main: F) -> F::Output
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    within(LONG, move || {
        let runtime = Runtime::builder(&Heap::new())
            .procs(procs)
            .build()
            .expect("a runtime");
        runtime.block_on(main).expect("no deadlock")
    })
}

/// A listener on this machine, and where it listens.
fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(HERE).expect("a port");
    let at = listener.local_addr().expect("an address");
    (listener, at)
}

/// Sends back what comes, until the end.
async fn echo(stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}

#[test]
fn sleeps_take_as_long_as_they_should() {
    run(2, async {
        let start = Instant::now();
        sleep(Duration::ZERO).await;
        sleep_until(start).await;
        sleep(MS * 20).await;
        assert!(start.elapsed() >= MS * 20);
        sleep_until(start + MS * 40).await;
        assert!(start.elapsed() >= MS * 40);
        assert!(after(MS).await >= start + MS * 41);
    });
}

#[test]
fn many_sleep_at_once() {
    const COUNT: usize = 10_000;
    run(2, async {
        let woken = Arc::new(AtomicUsize::new(0));
        let sleepers: Vec<_> = (0..COUNT)
            .map(|i| {
                let woken = woken.clone();
                go(async move {
                    let pause = Duration::from_micros((i as u64).wrapping_mul(7919) % 100_000);
                    let start = Instant::now();
                    sleep(pause).await;
                    assert!(start.elapsed() >= pause);
                    // Relaxed: the handles order it.
                    woken.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        for sleeper in sleepers {
            sleeper.await.expect("no panic");
        }
        // Relaxed: as above.
        assert_eq!(woken.load(Ordering::Relaxed), COUNT);
    });
}

/// Go's TestTimerFairness: two Gs that never rest do not keep a timer from firing.
#[test]
fn busy_gs_do_not_hold_timers_up() {
    for procs in [1, 2] {
        run(procs, async {
            let stop = Arc::new(AtomicBool::new(false));
            let hogs = [(); 2].map(|()| {
                let stop = stop.clone();
                go(async move {
                    // Relaxed: the flag is all that is shared.
                    while !stop.load(Ordering::Relaxed) {
                        yield_now().await;
                    }
                })
            });
            let start = Instant::now();
            for _ in 0..5 {
                sleep(MS * 20).await;
            }
            assert!(start.elapsed() >= MS * 100);
            // Relaxed: as above.
            stop.store(true, Ordering::Relaxed);
            for hog in hogs {
                hog.await.expect("no panic");
            }
        });
    }
}

/// Go's TestTimerFairness2: the same, with Gs that go in and out of blocking calls.
#[test]
fn blocking_calls_do_not_hold_timers_up() {
    run(1, async {
        let stop = Arc::new(AtomicBool::new(false));
        let callers = [(); 2].map(|()| {
            let stop = stop.clone();
            go(async move {
                // Relaxed: the flag is all that is shared.
                while !stop.load(Ordering::Relaxed) {
                    blocking(|| std::thread::sleep(MS)).await;
                }
            })
        });
        sleep(MS * 20).await;
        // Relaxed: as above.
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.expect("no panic");
        }
    });
}

#[test]
fn a_timeout_ends_a_wait_and_leaves_nothing() {
    run(2, async {
        let start = Instant::now();
        assert!(timeout(MS * 10, sleep(HOUR)).await.is_err());
        assert!(start.elapsed() >= MS * 10);
        assert_eq!(timeout(HOUR, async { 7 }).await, Ok(7));
        for _ in 0..1000 {
            assert!(timeout(HOUR, yield_now()).await.is_ok());
        }
    });
}

#[test]
fn a_g_that_is_aborted_sleeps_no_more() {
    run(1, async {
        let sleeper = go(sleep(HOUR));
        yield_now().await;
        sleeper.abort();
        assert!(sleeper.await.is_err());
    });
}

#[test]
fn an_interval_ticks_on_its_grid() {
    run(2, async {
        let start = Instant::now();
        let mut ticks = interval(MS * 10);
        let first = ticks.tick().await;
        assert!(first >= start + MS * 10);
        for number in 1..5u32 {
            let due = ticks.tick().await - first;
            assert_eq!(due.as_nanos() % (MS * 10).as_nanos(), 0);
            assert!(due >= MS * 10 * number);
        }
    });
}

#[test]
fn a_hundred_connections_echo() {
    run(2, async {
        let (listener, at) = listen();
        let server = go(async move {
            for _ in 0..100 {
                let (stream, _) = listener.accept().await?;
                go(echo(stream));
            }
            io::Result::Ok(())
        });
        let clients: Vec<_> = (0..100u64)
            .map(|id| {
                go(async move {
                    let stream = TcpStream::connect(at).await?;
                    stream.set_nodelay(true)?;
                    for round in 0..20 {
                        let sent = (id << 32 | round).to_le_bytes();
                        stream.write_all(&sent).await?;
                        let mut back = [0; 8];
                        stream.read_exact(&mut back).await?;
                        assert_eq!(sent, back);
                    }
                    io::Result::Ok(())
                })
            })
            .collect();
        for client in clients {
            client.await.expect("no panic").expect("no error");
        }
        server.await.expect("no panic").expect("no error");
    });
}

/// Bytes that come from the heap and go to it, while it is collected.
#[test]
fn a_big_transfer_arrives_whole() {
    const SIZE: usize = 4 << 20;
    let heap = Heap::new();
    within(LONG, move || {
        let runtime = Runtime::builder(&heap).procs(2).build().expect("a runtime");
        let main = async {
            let (listener, at) = listen();
            let server = go(async move { echo(listener.accept().await?.0).await });
            let stream = Arc::new(TcpStream::connect(at).await.expect("it listens"));
            let sent: Arc<Vec<u8>> = Arc::new((0..SIZE).map(|at| (at * 31) as u8).collect());
            let writer = go({
                let (stream, sent) = (stream.clone(), sent.clone());
                async move {
                    stream.write_all(&sent).await?;
                    stream.shutdown(Shutdown::Write)
                }
            });
            let collects = go(async {
                for _ in 0..20 {
                    with(|m| m.collect());
                    sleep(MS).await;
                }
            });
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.expect("no error");
            assert!(back == *sent, "the echo differs");
            writer.await.expect("no panic").expect("no error");
            server.await.expect("no panic").expect("no error");
            collects.await.expect("no panic");
        };
        runtime.block_on(main).expect("no deadlock");
    });
}

#[test]
fn datagrams_arrive() {
    run(2, async {
        let server = UdpSocket::bind(HERE).expect("a port");
        let at = server.local_addr().expect("an address");
        let echo = go(async move {
            let mut buffer = [0; 64];
            let (length, from) = server.recv_from(&mut buffer).await?;
            server.send_to(&buffer[..length], from).await
        });
        let client = UdpSocket::bind(HERE).expect("a port");
        client.connect(at).expect("it has an address");
        client.send(b"hello").await.expect("no error");
        let mut buffer = [0; 64];
        let length = client.recv(&mut buffer).await.expect("no error");
        assert_eq!(&buffer[..length], b"hello");
        echo.await.expect("no panic").expect("no error");
    });
}

/// Go's NetpollDeadlock, and the like: who waits for the world outside is not in a deadlock.
#[test]
fn waiting_for_a_peer_is_no_deadlock() {
    run(1, async {
        let (listener, at) = listen();
        // The only other party is no G.
        let peer = std::thread::spawn(move || {
            std::thread::sleep(MS * 300);
            std::net::TcpStream::connect(at).map(drop)
        });
        let (stream, _) = listener.accept().await.expect("no error");
        assert_eq!(stream.read(&mut [0]).await.expect("no error"), 0);
        peer.join().expect("no panic").expect("no error");
    });
}

/// A runtime ends although Gs sleep and wait for sockets, and what they held is closed.
#[test]
fn a_runtime_ends_whatever_is_waited_for() {
    for _ in 0..20 {
        let listener = std::net::TcpListener::bind(HERE).expect("a port");
        let at = listener.local_addr().expect("an address");
        run(2, async move {
            let (here, _) = listen();
            go(async move { here.accept().await.map(drop) });
            go(sleep(HOUR));
            let stream = TcpStream::connect(at).await.expect("it listens");
            let waits = Arc::new(AtomicBool::new(false));
            go({
                let waits = waits.clone();
                async move {
                    // Relaxed: the flag is all that is shared.
                    waits.store(true, Ordering::Relaxed);
                    stream.read(&mut [0]).await.map(drop)
                }
            });
            // Relaxed: as above.
            while !waits.load(Ordering::Relaxed) {
                yield_now().await;
            }
        });
        let (mut stream, _) = listener.accept().expect("it has connected");
        let read = io::Read::read(&mut stream, &mut [0]).expect("it was closed in order");
        assert_eq!(read, 0);
    }
}

/// Polls once with a waker that nobody hears.
fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(future).poll(&mut cx).is_pending()
}

/// What a panic has said.
fn said(outcome: std::thread::Result<()>) -> String {
    let payload = outcome.expect_err("it panics");
    let text = payload.downcast_ref::<&str>().copied();
    text.map_or_else(
        || *payload.downcast::<String>().expect("a text"),
        str::to_owned,
    )
}

fn two_runtimes() -> [Runtime; 2] {
    let heap = Heap::new();
    [(); 2].map(|()| Runtime::builder(&heap).procs(1).build().expect("a runtime"))
}

/// A sleep is a moment, whichever runtime it was begun in, and whether that has ended before the
/// wait or ends during it.
#[test]
fn a_sleep_goes_on_when_its_runtime_has_ended() {
    for ends_first in [true, false] {
        within(LONG, move || {
            let [first, second] = two_runtimes();
            let (mut begun,) = first
                .block_on(async {
                    let mut begun = sleep(MS * 60);
                    assert!(is_pending(&mut begun));
                    (begun,)
                })
                .unwrap();
            let mut first = Some(first);
            if ends_first {
                first.take().unwrap().shutdown(LONG).unwrap();
            }
            let deadline = begun.deadline();
            let waits = Arc::new(AtomicBool::new(false));
            let says = waits.clone();
            let waiter = std::thread::spawn(move || {
                second.block_on(async move {
                    // Still in the heap of the first one, if that is there.
                    assert!(is_pending(&mut begun) || begun.is_elapsed());
                    says.store(true, Ordering::Release);
                    begun.await;
                    Instant::now()
                })
            });
            while !waits.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            if let Some(first) = first {
                first.shutdown(LONG).unwrap();
            }
            assert!(waiter.join().unwrap().unwrap() >= deadline);
        });
    }
}

#[test]
fn a_sleep_of_an_ended_runtime_says_so_where_nobody_would_run_it() {
    let [first, _] = two_runtimes();
    let (mut begun,) = first
        .block_on(async {
            let mut begun = sleep(HOUR);
            assert!(is_pending(&mut begun));
            (begun,)
        })
        .unwrap();
    first.shutdown(LONG).unwrap();
    let poll = std::panic::AssertUnwindSafe(|| {
        let _ = is_pending(&mut begun);
    });
    let text = said(std::panic::catch_unwind(poll));
    assert!(text.contains("outside a runtime"), "{text}");
    // It is as any other that does not wait.
    begun.reset(Duration::ZERO);
    assert!(!is_pending(&mut begun));
}

/// Whoever waits for a socket when its runtime ends is told, and so is whoever comes later. What
/// needs no waiting is done.
#[test]
fn sockets_of_an_ended_runtime_answer() {
    within(LONG, || {
        let [first, second] = two_runtimes();
        let (listener, ours, theirs, datagrams) = first
            .block_on(async {
                let (listener, at) = listen();
                let ours = TcpStream::connect(at).await.unwrap();
                let (theirs, _) = listener.accept().await.unwrap();
                (listener, ours, theirs, UdpSocket::bind(HERE).unwrap())
            })
            .unwrap();
        let listener = Arc::new(listener);
        let waits = Arc::new(AtomicBool::new(false));
        let (says, waits_there) = (waits.clone(), listener.clone());
        let late = second
            .block_on(async move {
                let waiter = go(async move {
                    let mut accept = Box::pin(waits_there.accept());
                    assert!(is_pending(&mut accept));
                    says.store(true, Ordering::Release);
                    accept.await.map(drop)
                });
                let end = go(async move {
                    while !waits.load(Ordering::Acquire) {
                        yield_now().await;
                    }
                    blocking(move || first.shutdown(LONG)).await.unwrap();
                });
                end.await.unwrap();
                let waited = waiter.await.unwrap();
                let mut buffer = [0; 4];
                let errors = [
                    waited.unwrap_err(),
                    listener.accept().await.map(drop).unwrap_err(),
                    ours.read(&mut buffer).await.unwrap_err(),
                    datagrams.recv_from(&mut buffer).await.unwrap_err(),
                ];
                for error in errors {
                    let text = error.to_string();
                    assert!(
                        text.contains("runtime in which this socket was made"),
                        "{text}"
                    );
                }
                // The bytes are there by the time that the other side has gone.
                theirs.write_all(b"grey").await.unwrap();
                drop(theirs);
                while ours.peek(&mut buffer).await.is_err() {
                    yield_now().await;
                }
                ours.read(&mut buffer).await.map(|n| buffer[..n].to_vec())
            })
            .unwrap();
        assert_eq!(late.unwrap(), b"grey");
    });
}

/// As many connections wait as the system allows; the standard library's limit is 128.
#[test]
fn a_listener_that_is_busy_keeps_its_callers() {
    let system = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    let most = system.map_or(300, |text| text.trim().parse().expect("a number"));
    let [runtime, _] = two_runtimes();
    let (_listener, at) = runtime.block_on(async { listen() }).unwrap();
    let callers: Vec<_> = (0..most.min(300))
        .map(|_| std::net::TcpStream::connect_timeout(&at, Duration::from_secs(20)))
        .collect();
    assert!(callers.iter().all(Result::is_ok));
}
