//! Listening sockets: bound at the start, or taken over from another process.
//!
//! There is one queue of connections for all workers, and not one per worker (`SO_REUSEPORT`): a hash spreads few
//! connections unevenly, and a worker that ends takes the connections waiting in its queue with it. See
//! `docs/decisions/0002`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// How many connections may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Whether clients of a listener speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
}

/// A bound address, and what is spoken there.
pub struct Listener {
    pub(super) socket: TcpListener,
    pub(super) scheme: Scheme,
}

/// Binds one address.
///
/// # Errors
/// The system's: the address is taken, or may not be bound by this user.
pub fn bind(address: SocketAddr, scheme: Scheme) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Accepted connections inherit both, which saves two system calls each.
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Listener { socket: socket.into(), scheme })
}

/// Takes over a socket that listens already: the one of the process before this one, or one of systemd's.
///
/// # Errors
/// The system's: the socket is none that accepts connections.
pub fn adopt(socket: TcpListener, scheme: Scheme) -> io::Result<Listener> {
    let options = SockRef::from(&socket);
    options.set_tcp_nodelay(true)?;
    options.set_keepalive(true)?;
    options.set_nonblocking(true)?;
    options.listen(BACKLOG)?;
    Ok(Listener { socket, scheme })
}

impl Listener {
    /// Duplicates the socket, to hand it to another process. It listens until both copies are closed.
    ///
    /// # Errors
    /// Too many files are open.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone().map(OwnedFd::from)
    }
}
