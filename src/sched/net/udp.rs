//! UDP.

use std::fmt;
use std::io;
use std::net::{self, SocketAddr, ToSocketAddrs};

use crate::sched::net::source::{Direction, Registered};
use crate::sched::net::{addresses, no_address};

/// A UDP socket. Dropping it closes it. Several Gs may send and receive at once; a datagram goes to one of them.
pub struct UdpSocket(Registered<net::UdpSocket>);

impl UdpSocket {
    /// A socket at the first address of `address` that can be had. Port 0 lets the OS choose one.
    ///
    /// # Errors
    /// What the OS says of the last address, or that there is none.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Self::from_std(net::UdpSocket::bind(address)?)
    }

    /// Takes a socket of the standard library over.
    ///
    /// # Errors
    /// What the OS says when it is told that the socket must not block.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub fn from_std(socket: net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(Registered::new(socket)))
    }

    /// Sets the peer of [`UdpSocket::send`] and [`UdpSocket::recv`], and hears nobody else from now on. Sends nothing.
    ///
    /// # Errors
    /// What the OS says of the last address, or that there is none.
    pub fn connect(&self, peer: impl ToSocketAddrs) -> io::Result<()> {
        self.0.socket().connect(peer)
    }

    /// Sends a datagram to the peer; returns its length.
    ///
    /// # Errors
    /// What the OS says: a datagram that is too long, a peer that is not set, or what an earlier datagram met.
    pub async fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        let send = |socket: &net::UdpSocket| socket.send(datagram);
        self.0.when(Direction::Write, send).await
    }

    /// Waits for a datagram of the peer; returns its length. What does not fit is lost.
    ///
    /// # Errors
    /// What the OS says.
    pub async fn recv(&self, into: &mut [u8]) -> io::Result<usize> {
        let recv = |socket: &net::UdpSocket| socket.recv(into);
        self.0.when(Direction::Read, recv).await
    }

    /// Sends a datagram to the first address of `to`; returns its length.
    ///
    /// # Errors
    /// What the OS says, or that there is no address.
    pub async fn send_to(&self, datagram: &[u8], to: impl ToSocketAddrs) -> io::Result<usize> {
        let to = *addresses(to)?.first().ok_or_else(no_address)?;
        let send = |socket: &net::UdpSocket| socket.send_to(datagram, to);
        self.0.when(Direction::Write, send).await
    }

    /// Waits for a datagram; returns its length and who it is from. What does not fit is lost.
    ///
    /// # Errors
    /// What the OS says.
    pub async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let recv = |socket: &net::UdpSocket| socket.recv_from(into);
        self.0.when(Direction::Read, recv).await
    }

    /// As [`UdpSocket::recv_from`], and leaves the datagram to be received again.
    ///
    /// # Errors
    /// What the OS says.
    pub async fn peek_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let peek = |socket: &net::UdpSocket| socket.peek_from(into);
        self.0.when(Direction::Read, peek).await
    }

    /// The address of this socket.
    ///
    /// # Errors
    /// What the OS says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket().local_addr()
    }

    /// The address of the peer.
    ///
    /// # Errors
    /// What the OS says: also if no peer is set.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket().peer_addr()
    }

    /// Allows datagrams to a broadcast address.
    ///
    /// # Errors
    /// What the OS says.
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.0.socket().set_broadcast(broadcast)
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
