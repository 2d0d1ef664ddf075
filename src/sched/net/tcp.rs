//! TCP.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sched::net::source::{Direction, Registered};
use crate::sched::net::{addresses, no_address};

/// How much `read_to_end` reads before it lets others run.
const CHUNK: u64 = 64 << 10;

/// How many connections may wait to be accepted. The system cuts it down to its own limit (on Linux
/// `net.core.somaxconn`, 4096), which is what Go asks for; this is the most that older systems take.
const BACKLOG: i32 = 65_535;

/// A listening socket, with the options that the standard library sets.
fn listen(address: SocketAddr) -> io::Result<net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // So that a listener can come back at once. On Windows the option would let others take the address over.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket that accepts TCP connections. Dropping it closes it.
pub struct TcpListener(Registered<net::TcpListener>);

impl TcpListener {
    /// Listens at the first address of `address` that can be had. Port 0 lets the OS choose one.
    ///
    /// As many connections may wait to be accepted as the system allows. (Of the standard library's listeners, for
    /// [`from_std`](Self::from_std), 128 may.)
    ///
    /// # Errors
    /// What the OS says of the last address, or that there is none.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let mut last = no_address();
        for address in addresses(address)? {
            match listen(address) {
                Ok(listener) => return Self::from_std(listener),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes a listener of the standard library over.
    ///
    /// # Errors
    /// What the OS says when it is told that the socket must not block.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub fn from_std(listener: net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(Registered::new(listener)))
    }

    /// Waits for a connection; also returns who it is from. Several Gs may wait, and each connection goes to one.
    ///
    /// # Errors
    /// What the OS says. A peer that gave up while it waited is no error.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let accept = |listener: &net::TcpListener| match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                Err(io::ErrorKind::Interrupted.into())
            }
            result => result,
        };
        let (stream, from) = self.0.when(Direction::Read, accept).await?;
        Ok((TcpStream::from_std(stream)?, from))
    }

    /// The address that is listened at.
    ///
    /// # Errors
    /// What the OS says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket().local_addr()
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A TCP connection. Dropping it closes it.
///
/// Reading and writing are independent: one G may do one while another does the other, through a reference or an
/// [`Arc`](std::sync::Arc).
pub struct TcpStream(Registered<net::TcpStream>);

impl TcpStream {
    /// Connects to the first address of `address` that answers.
    ///
    /// # Errors
    /// What the OS says of the last address, or that there is none.
    ///
    /// # Panics
    /// If it is polled outside a runtime.
    pub async fn connect(address: impl ToSocketAddrs) -> io::Result<Self> {
        let mut failed = no_address();
        for address in addresses(address)? {
            match Self::connect_to(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect_to(address: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if !is_in_progress(&error) => return Err(error),
            _ => {}
        }
        let stream = Self(Registered::new(socket.into()));
        stream.0.when(Direction::Write, connected).await?;
        Ok(stream)
    }

    /// Takes a connection of the standard library over.
    ///
    /// # Errors
    /// What the OS says when it is told that the socket must not block.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub fn from_std(stream: net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(Registered::new(stream)))
    }

    /// Waits for bytes, and reads what there is, as far as it fits; 0 at the end of the stream.
    ///
    /// # Errors
    /// What the OS says.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let read = |mut stream: &net::TcpStream| stream.read(into);
        self.0.when(Direction::Read, read).await
    }

    /// As [`TcpStream::read`], and leaves the bytes to be read again.
    ///
    /// # Errors
    /// What the OS says.
    pub async fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        self.0
            .when(Direction::Read, |stream| stream.peek(into))
            .await
    }

    /// Fills `into`. If it is given up or fails, bytes have been read that nobody gets.
    ///
    /// # Errors
    /// What the OS says, or [`io::ErrorKind::UnexpectedEof`] if the stream ends before.
    pub async fn read_exact(&self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match self.read(into).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => into = &mut into[count..],
            }
        }
        Ok(())
    }

    /// Appends all that comes until the end of the stream; returns how much. If it is given up or fails, what was read
    /// until then is in `into`.
    ///
    /// # Errors
    /// What the OS says.
    pub async fn read_to_end(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        let start = into.len();
        loop {
            let mut before = into.len();
            let read = |stream: &net::TcpStream| {
                before = into.len();
                stream.take(CHUNK).read_to_end(into)
            };
            self.0.when(Direction::Read, read).await?;
            // Short of what it may take, it has seen the end.
            if ((into.len() - before) as u64) < CHUNK {
                return Ok(into.len() - start);
            }
        }
    }

    /// Waits until some of `from` can be sent, and returns how much was.
    ///
    /// # Errors
    /// What the OS says.
    pub async fn write(&self, from: &[u8]) -> io::Result<usize> {
        let write = |mut stream: &net::TcpStream| stream.write(from);
        self.0.when(Direction::Write, write).await
    }

    /// Sends all of `from`. If it is given up or fails, nobody knows how much was sent.
    ///
    /// # Errors
    /// What the OS says.
    pub async fn write_all(&self, mut from: &[u8]) -> io::Result<()> {
        while !from.is_empty() {
            match self.write(from).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => from = &from[count..],
            }
        }
        Ok(())
    }

    /// Ends one direction, or both. After the end of writing, the peer reads what was sent and then the end.
    ///
    /// # Errors
    /// What the OS says.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.socket().shutdown(how)
    }

    /// The address of this end.
    ///
    /// # Errors
    /// What the OS says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket().local_addr()
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// What the OS says.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket().peer_addr()
    }

    /// Whether small pieces are sent at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// What the OS says.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.0.socket().nodelay()
    }

    /// Sends small pieces at once (`TCP_NODELAY`), or lets them wait for more. Off at first, as in the standard library.
    ///
    /// # Errors
    /// What the OS says.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.socket().set_nodelay(nodelay)
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether an attempt to connect has begun.
fn is_in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EINPROGRESS) {
        return true;
    }
    // What Windows says; and a signal does not end the attempt.
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// How the attempt to connect has ended; that it would block if it has not.
fn connected(stream: &net::TcpStream) -> io::Result<()> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        result => result.map(|_| ()),
    }
}

impl AsyncRead for &TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = |mut stream: &net::TcpStream| stream.read(into);
        self.0.poll_when(Direction::Read, cx, read)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let read = |mut stream: &net::TcpStream| stream.read_vectored(into);
        self.0.poll_when(Direction::Read, cx, read)
    }
}

impl AsyncWrite for &TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = |mut stream: &net::TcpStream| stream.write(from);
        self.0.poll_when(Direction::Write, cx, write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = |mut stream: &net::TcpStream| stream.write_vectored(from);
        self.0.poll_when(Direction::Write, cx, write)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The OS sends what it has.
        Poll::Ready(Ok(()))
    }

    /// Ends writing; the connection closes when it is dropped.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.shutdown(Shutdown::Write) {
            // The peer has closed it already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read(cx, into)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read_vectored(cx, into)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, from)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write_vectored(cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_close(cx)
    }
}
