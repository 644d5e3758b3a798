//! Listeners: bound at the start; for each of them one worker accepts, and hands each connection to the worker with the
//! fewest.
//!
//! One queue and not one per worker (`SO_REUSEPORT`): a hash spreads few connections unevenly, and a worker that
//! ends takes the connections waiting in its queue with it. See `docs/decisions/0002`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::task::coop::consume_budget;

use crate::proxy::accept::worker::{Accepted, Admission, Worker};

/// Connections that wait to be accepted at most; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Connections beyond `max_connections` that are answered 503 at the same time.
const REFUSED_MAX: usize = 128;

/// Pause after an accept that failed for want of file descriptors or memory: they do not come back in a microsecond.
const RETRY: Duration = Duration::from_millis(50);

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP as it is.
    Http,
    /// HTTP over TLS.
    Https,
}

/// A bound address, and what is spoken there.
pub struct Listener {
    socket: TcpListener,
    scheme: Scheme,
}

/// Binds one address.
///
/// # Errors
/// As the system says it: the address is taken, or not ours to bind.
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

/// Takes over a socket that listens already: of the process before this one, or of systemd.
///
/// # Errors
/// As the system says it; the socket is none that connections come from.
pub fn adopt(socket: TcpListener, scheme: Scheme) -> io::Result<Listener> {
    let options = SockRef::from(&socket);
    options.set_tcp_nodelay(true)?;
    options.set_keepalive(true)?;
    options.set_nonblocking(true)?;
    options.listen(BACKLOG)?;
    Ok(Listener { socket, scheme })
}

impl Listener {
    /// The same socket once more, to hand over: it listens until this is closed as well.
    ///
    /// # Errors
    /// Too many files are open.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone().map(OwnedFd::from)
    }
}

/// Accepts from one listener until the task is aborted, which closes it: new connections are refused from there on.
pub async fn accept(listener: Listener, workers: Arc<[Worker]>, connections_max: usize) {
    let Listener { socket: listener, scheme } = listener;
    let local = listener.local_addr();
    // SAFETY: a TcpListener keeps its descriptor open until it is dropped, and `AsyncFd` drops it last.
    let listener = unsafe { AsyncFd::register(listener) };
    let (Ok(listener), Ok(local)) = (listener, local) else {
        return tracing::error!("a listener cannot be waited for: no connections are accepted on it");
    };
    loop {
        // In a flood there is always one more, and the worker has its requests too.
        consume_budget().await;
        let accepted = match listener.readable().await {
            Ok(mut ready) => match ready.try_io(|listener| listener.get_ref().accept()) {
                Ok(accepted) => accepted,
                Err(_would_block) => continue,
            },
            Err(error) => Err(error),
        };
        match accepted {
            Ok((stream, peer)) => {
                hand_over(|admission| Accepted { stream, peer, local, scheme, admission }, &workers, connections_max)
            }
            Err(error) if is_connections_own(&error) => {}
            Err(error) => {
                tracing::error!(%local, %error, "cannot accept a connection; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// A connection that died before it was accepted is no trouble of ours.
fn is_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn hand_over(accepted: impl FnOnce(Admission) -> Accepted, workers: &[Worker], connections_max: usize) {
    let open: usize = workers.iter().map(Worker::open).sum();
    // Those that are told so are connections too: a flood of them is dropped without a word.
    let admission = match open.checked_sub(connections_max) {
        None => Admission::Welcome,
        Some(over) if over < REFUSED_MAX => Admission::Refused,
        Some(_) => return,
    };
    let accepted = accepted(admission);
    if accepted.stream.set_nonblocking(true).is_err() {
        return;
    }
    if let Some(worker) = workers.iter().min_by_key(|worker| worker.open()) {
        worker.serve(accepted);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;

    use tokio::runtime::{Builder, LocalOptions};

    use crate::proxy::accept::listener::*;

    #[test]
    fn a_flood_of_connections_leaves_others_their_turn() {
        const MANY: usize = 300;
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let listener = bind(([127, 0, 0, 1], 0).into(), Scheme::Http).unwrap();
            let address = listener.socket.local_addr().unwrap();
            let clients: Vec<_> = (0..MANY).map(|_| TcpStream::connect(address).unwrap()).collect();
            clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
            // Without workers each is closed as soon as it is accepted.
            let accepted = || clients.iter().filter(|&client| matches!({ client }.read(&mut [0]), Ok(0))).count();
            tokio::task::spawn_local(accept(listener, Arc::new([]), MANY));
            let mut so_far = 0;
            while so_far == 0 {
                tokio::task::yield_now().await;
                so_far = accepted();
            }
            assert!(so_far < MANY, "all in one turn");
        });
    }
}
