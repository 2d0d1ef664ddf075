//! Sockets that wait without holding a thread.
//!
//! Every operation is tried at once, and waits only if the OS would. A socket belongs to the runtime in which it was made:
//! it is that runtime's poller that wakes who waits for it. Methods take `&self`, so a G may read while another writes, and
//! several may accept from one listener. An operation that is given up has done nothing, unless its documentation
//! says otherwise.
//!
//! [`TcpStream`] and `&TcpStream` also have the traits of the `futures-io` crate, for codecs and the like.
//!
//! A name is looked up on the thread that asks for it, which may take seconds: a G looks names up with
//! [`std::net::ToSocketAddrs`] where it may block, and hands the address over. Numeric addresses, also as text, take no time.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

mod source;
mod tcp;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
mod udp;

pub use crate::sched::net::tcp::{TcpListener, TcpStream};
pub use crate::sched::net::udp::UdpSocket;

/// What to try, in order.
fn addresses(of: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    Ok(of.to_socket_addrs()?.collect())
}

fn no_address() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the name stands for no address",
    )
}
