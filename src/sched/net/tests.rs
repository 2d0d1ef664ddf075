//! Sockets over the small executor of the driver's tests.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::panic::catch_unwind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::sched::context;
use crate::sched::driver::Driver;
use crate::sched::driver::tests::Pool;
use crate::sched::time::{sleep, timeout};

const HERE: &str = "127.0.0.1:0";
const MS: Duration = Duration::from_millis(1);

/// A listener on this machine, and where it listens.
fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(HERE).unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// Both ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let (listener, at) = listen();
    let near = TcpStream::connect(at).await.unwrap();
    let (far, from) = listener.accept().await.unwrap();
    assert_eq!(from, near.local_addr().unwrap());
    assert_eq!(near.peer_addr().unwrap(), far.local_addr().unwrap());
    (near, far)
}

/// Polls once, to see that `future` waits.
async fn waits<F: Future>(future: Pin<&mut F>) -> bool {
    let mut future = future;
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

/// What the byte at `at` of a big transfer is.
fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 11)) as u8
}

fn nothing_is_left(driver: &Driver) {
    assert_eq!((driver.source_count(), driver.io_waiters()), (0, 0));
}

#[test]
fn a_hundred_connections_echo() {
    let driver = Pool::run(3, |pool| async move {
        let (listener, at) = listen();
        let server = pool.spawn({
            let pool = pool.clone();
            async move {
                let mut echoes = Vec::new();
                for _ in 0..100 {
                    let (stream, _) = listener.accept().await.unwrap();
                    echoes.push(pool.spawn(async move {
                        let mut buffer = [0; 512];
                        loop {
                            match stream.read(&mut buffer).await.unwrap() {
                                0 => break,
                                n => stream.write_all(&buffer[..n]).await.unwrap(),
                            }
                        }
                    }));
                }
                for echo in echoes {
                    echo.await;
                }
            }
        });
        let clients: Vec<_> = (0..100u32)
            .map(|id| {
                pool.spawn(async move {
                    let stream = TcpStream::connect(at).await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    assert!(stream.nodelay().unwrap());
                    for round in 0..50u32 {
                        let sent = [id.to_le_bytes(), round.to_le_bytes()].concat();
                        stream.write_all(&sent).await.unwrap();
                        let mut back = [0; 8];
                        stream.read_exact(&mut back).await.unwrap();
                        assert_eq!(sent, back);
                    }
                })
            })
            .collect();
        for client in clients {
            client.await;
        }
        server.await;
        pool.driver.clone()
    });
    nothing_is_left(&driver);
}

/// Both ends send more than fits anywhere, and receive meanwhile, each by two tasks on one stream.
#[test]
fn a_big_transfer_goes_both_ways_at_once() {
    const SIZE: usize = 8 << 20;
    let driver = Pool::run(2, |pool| async move {
        let (near, far) = pair().await;
        let tasks: Vec<_> = [near, far]
            .into_iter()
            .flat_map(|stream| {
                let sender = Arc::new(stream);
                let receiver = sender.clone();
                let send = pool.spawn(async move {
                    let all: Vec<u8> = (0..SIZE).map(pattern).collect();
                    sender.write_all(&all).await.unwrap();
                    sender.shutdown(Shutdown::Write).unwrap();
                });
                let receive = pool.spawn(async move {
                    let mut all = vec![7];
                    assert_eq!(receiver.read_to_end(&mut all).await.unwrap(), SIZE);
                    let same = all[1..].iter().enumerate().all(|(at, &b)| b == pattern(at));
                    assert!(same && all[0] == 7);
                });
                [send, receive]
            })
            .collect();
        for task in tasks {
            task.await;
        }
        pool.driver.clone()
    });
    nothing_is_left(&driver);
}

#[test]
fn half_a_connection_closes() {
    let driver = Pool::run(2, |pool| async move {
        let (near, far) = pair().await;
        let server = pool.spawn(async move {
            let mut question = Vec::new();
            far.read_to_end(&mut question).await.unwrap();
            assert_eq!(far.read(&mut [0; 4]).await.unwrap(), 0);
            far.write_all(&question.repeat(2)).await.unwrap();
        });
        near.write_all(b"ping").await.unwrap();
        sleep(MS * 5).await;
        near.shutdown(Shutdown::Write).unwrap();
        assert!(near.write(b"more").await.is_err());
        let mut head = [0; 4];
        near.peek(&mut head).await.unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert_eq!((&head[..], &answer[..]), (&b"ping"[..], &b"pingping"[..]));
        server.await;
        let short = near.read_exact(&mut head).await.unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        pool.driver.clone()
    });
    nothing_is_left(&driver);
}

#[test]
fn a_connection_that_nobody_takes_is_an_error() {
    Pool::run(1, |_| async {
        // It has a port, and does not listen.
        let idle = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        idle.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        let at = idle.local_addr().unwrap().as_socket().unwrap();
        let refused = TcpStream::connect(at).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let nowhere = TcpStream::connect(&[][..]).await.unwrap_err();
        assert_eq!(nowhere.kind(), io::ErrorKind::InvalidInput);
        // The second address answers.
        let (listener, there) = listen();
        let stream = TcpStream::connect(&[at, there][..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), there);
        drop(listener);
    });
}

#[test]
fn several_wait_for_one_listener() {
    let driver = Pool::run(3, |pool| async move {
        let (listener, at) = listen();
        let listener = Arc::new(listener);
        let takers: Vec<_> = (0..20)
            .map(|_| {
                let listener = listener.clone();
                pool.spawn(async move {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.write_all(b"x").await.unwrap();
                })
            })
            .collect();
        // Some give up: nobody else misses a connection for it.
        for _ in 0..5 {
            assert!(timeout(MS, listener.accept()).await.is_err());
        }
        for _ in 0..20 {
            let stream = TcpStream::connect(at).await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
        }
        for taker in takers {
            taker.await;
        }
        drop(listener);
        pool.driver.clone()
    });
    nothing_is_left(&driver);
}

#[test]
fn datagrams_go_there_and_back() {
    let driver = Pool::run(2, |pool| async move {
        let server = UdpSocket::bind(HERE).unwrap();
        let at = server.local_addr().unwrap();
        let echo = pool.spawn(async move {
            let mut buffer = [0; 64];
            for _ in 0..100 {
                let (peeked, of) = server.peek_from(&mut buffer).await.unwrap();
                let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                assert_eq!((peeked, of), (length, from));
                server.send_to(&buffer[..length], from).await.unwrap();
            }
        });
        let client = UdpSocket::bind(HERE).unwrap();
        client.connect(at).unwrap();
        assert_eq!(client.peer_addr().unwrap(), at);
        for round in 0..100u64 {
            client.send(&round.to_le_bytes()).await.unwrap();
            let mut back = [0; 64];
            assert_eq!(client.recv(&mut back).await.unwrap(), 8);
            assert_eq!(back[..8], round.to_le_bytes());
        }
        echo.await;
        pool.driver.clone()
    });
    nothing_is_left(&driver);
}

/// What others write against: reading by one task, writing by another, in several buffers.
#[test]
fn the_traits_of_futures_io_work_by_reference() {
    let driver = Pool::run(2, |pool| async move {
        let (near, mut far) = pair().await;
        let near = Arc::new(near);
        let writer = pool.spawn({
            let near = near.clone();
            async move {
                sleep(MS * 5).await;
                let parts = [IoSlice::new(b"hel"), IoSlice::new(b"lo")];
                let sent = poll_fn(|cx| Pin::new(&mut &*near).poll_write_vectored(cx, &parts));
                assert_eq!(sent.await.unwrap(), 5);
                poll_fn(|cx| Pin::new(&mut &*near).poll_flush(cx))
                    .await
                    .unwrap();
                poll_fn(|cx| Pin::new(&mut &*near).poll_close(cx))
                    .await
                    .unwrap();
            }
        });
        let (mut a, mut b) = ([0; 2], [0; 8]);
        let mut parts = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        let read = poll_fn(|cx| Pin::new(&mut far).poll_read_vectored(cx, &mut parts));
        assert_eq!(read.await.unwrap(), 5);
        assert_eq!((&a, &b[..3]), (b"he", &b"llo"[..]));
        let end = poll_fn(|cx| Pin::new(&mut far).poll_read(cx, &mut b));
        assert_eq!(end.await.unwrap(), 0);
        let sent = poll_fn(|cx| Pin::new(&mut far).poll_write(cx, b"back"));
        assert_eq!(sent.await.unwrap(), 4);
        let read = poll_fn(|cx| Pin::new(&mut &*near).poll_read(cx, &mut b));
        assert_eq!((read.await.unwrap(), &b[..4]), (4, &b"back"[..]));
        writer.await;
        drop(near);
        // The peer is gone altogether.
        poll_fn(|cx| Pin::new(&mut far).poll_close(cx))
            .await
            .unwrap();
        pool.driver.clone()
    });
    nothing_is_left(&driver);
}

#[test]
fn who_gives_up_leaves_nothing_behind() {
    let driver = Pool::run(1, |pool| async move {
        let driver = &pool.driver;
        let (near, far) = pair().await;
        assert_eq!(driver.io_waiters(), 0);
        {
            let (mut first, mut second) = ([0; 1], [0; 1]);
            let mut first = pin!(near.read(&mut first));
            let mut second = pin!(near.read(&mut second));
            assert!(waits(first.as_mut()).await && waits(second.as_mut()).await);
            assert!(waits(first.as_mut()).await);
            assert_eq!(driver.io_waiters(), 2);
        }
        assert_eq!(driver.io_waiters(), 0);
        // The waker of one who polls by hand goes with the socket.
        let waits = poll_fn(|cx| {
            let mut byte = [0; 1];
            Poll::Ready(Pin::new(&mut &near).poll_read(cx, &mut byte).is_pending())
        });
        assert!(waits.await);
        assert_eq!(driver.io_waiters(), 1);
        drop(near);
        assert_eq!((driver.io_waiters(), driver.source_count()), (0, 1));
        drop(far);
        pool.driver.clone()
    });
    nothing_is_left(&driver);
}

/// Sockets close while the poller has events for them, and others get their numbers.
#[test]
fn sockets_that_come_and_go_leave_nothing_behind() {
    let driver = Pool::run(3, |pool| async move {
        let (listener, at) = listen();
        let listener = Arc::new(listener);
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let listener = listener.clone();
                pool.spawn(async move {
                    for round in 0..50 {
                        let near = TcpStream::connect(at).await.unwrap();
                        let (far, _) = listener.accept().await.unwrap();
                        near.write_all(b"some bytes").await.unwrap();
                        let mut buffer = [0; 4];
                        let limit = Duration::from_micros(round * 10);
                        let _ = timeout(limit, far.read_exact(&mut buffer)).await;
                        let _ = timeout(limit, far.read(&mut buffer)).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        drop(listener);
        pool.driver.clone()
    });
    nothing_is_left(&driver);
    assert!(!driver.has_timers());
}

/// A socket wakes who waits although another direction was told first, and is heard while the poller sleeps.
#[test]
fn the_other_direction_still_waits() {
    Pool::run(2, |pool| async move {
        let (near, far) = pair().await;
        let near = Arc::new(near);
        // Fills what there is between the two, so that writing waits too.
        let fill = {
            let near = near.clone();
            pool.spawn(async move { near.write_all(&vec![1; 16 << 20]).await.unwrap() })
        };
        let read = {
            let near = near.clone();
            pool.spawn(async move {
                let mut answer = [0; 6];
                near.read_exact(&mut answer).await.unwrap();
                answer
            })
        };
        sleep(MS * 20).await;
        for byte in b"answer" {
            far.write_all(&[*byte]).await.unwrap();
            sleep(MS).await;
        }
        assert_eq!(&read.await, b"answer");
        let mut rest = vec![0; 16 << 20];
        far.read_exact(&mut rest).await.unwrap();
        fill.await;
    });
}

#[test]
fn sockets_of_the_standard_library_can_be_taken_over() {
    Pool::run(1, |_| async {
        let listener = net::TcpListener::bind(HERE).unwrap();
        let at = listener.local_addr().unwrap();
        let peer = std::thread::scope(|scope| {
            let peer = scope.spawn(move || net::TcpStream::connect(at).unwrap());
            peer.join().unwrap()
        });
        let listener = TcpListener::from_std(listener).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"std").await.unwrap();
        let mut peer = peer;
        let mut read = [0; 3];
        peer.read_exact(&mut read).unwrap();
        peer.write_all(&read).unwrap();
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"std");
        let socket = net::UdpSocket::bind(HERE).unwrap();
        let socket = UdpSocket::from_std(socket).unwrap();
        socket.set_broadcast(true).unwrap();
        assert!(format!("{stream:?} {socket:?}").contains("127.0.0.1"));
    });
    let outside = catch_unwind(|| TcpListener::bind(HERE));
    let message = *outside.unwrap_err().downcast::<&str>().unwrap();
    assert!(message.contains("outside a runtime"), "{message}");
}

/// A socket may outlive its runtime's threads: it works as long as it need not wait.
#[test]
fn a_socket_that_nobody_polls_for_still_tries() {
    let driver = Arc::new(Driver::new(1).unwrap());
    context::set_driver(Some((driver.clone(), 0)));
    let socket = UdpSocket::bind(HERE).unwrap();
    context::set_driver(None);
    let at = socket.local_addr().unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let mut send = pin!(socket.send_to(b"self", at));
    assert!(send.as_mut().poll(&mut cx).is_ready());
    let mut buffer = [0; 8];
    {
        let mut recv = pin!(socket.recv(&mut buffer));
        assert!(matches!(recv.as_mut().poll(&mut cx), Poll::Ready(Ok(4))));
    }
    let mut recv = pin!(socket.recv(&mut buffer));
    assert!(recv.as_mut().poll(&mut cx).is_pending());
    assert_eq!(driver.poll(Some(Duration::ZERO)), Some(0));
    assert_eq!(driver.io_waiters(), 1);
}
