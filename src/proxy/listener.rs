//! Listeners: bound at the start, each accepted from in one thread that hands every connection to the worker with the
//! fewest.
//!
//! One queue and not one per worker (`SO_REUSEPORT`): a hash spreads few connections unevenly, and a worker that
//! ends takes the connections waiting in its queue with it. See `docs/decisions/0002`.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::worker::{Admission, Worker};

/// Connections that wait to be accepted at most; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Connections beyond `max_connections` that are answered 503 at the same time.
const REFUSED_MAX: usize = 128;

/// Pause after an accept that failed for want of file descriptors or memory: they do not come back in a microsecond.
const RETRY: Duration = Duration::from_millis(50);

/// Binds one address.
///
/// # Errors
/// As the system says it: the address is taken, or not ours to bind.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Accepted connections inherit both, which saves two system calls each.
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The accept loops: a thread for each listener.
pub struct Accepting {
    listeners: Vec<Arc<TcpListener>>,
    threads: Vec<JoinHandle<()>>,
}

impl Accepting {
    /// Starts to accept.
    ///
    /// # Errors
    /// A thread could not be made.
    pub fn start(listeners: Vec<TcpListener>, workers: &Arc<[Worker]>, connections_max: usize) -> io::Result<Self> {
        let mut accepting = Accepting { listeners: Vec::new(), threads: Vec::new() };
        for listener in listeners {
            let listener = Arc::new(listener);
            accepting.listeners.push(Arc::clone(&listener));
            let workers = Arc::clone(workers);
            let accept = move || accept_from(&listener, &workers, connections_max);
            accepting.threads.push(std::thread::Builder::new().name("accept".into()).spawn(accept)?);
        }
        Ok(accepting)
    }

    /// Closes the listeners: new connections are refused from here on.
    pub fn stop(self) {
        for listener in &self.listeners {
            // Ends the thread's accept with EINVAL; nothing else does without a second channel.
            let _ = SockRef::from(&**listener).shutdown(Shutdown::Both);
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn accept_from(listener: &TcpListener, workers: &[Worker], connections_max: usize) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => hand_over(stream, workers, connections_max),
            Err(error) if is_connections_own(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return, // stopped
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection; trying again");
                std::thread::sleep(RETRY);
            }
        }
    }
}

/// A connection that died before it was accepted is no trouble of ours.
fn is_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn hand_over(stream: TcpStream, workers: &[Worker], connections_max: usize) {
    let open: usize = workers.iter().map(Worker::open).sum();
    if stream.set_nonblocking(true).is_err() {
        return;
    }
    // Those that are told so are connections too: a flood of them is dropped without a word.
    let admission = match open.checked_sub(connections_max) {
        None => Admission::Welcome,
        Some(over) if over < REFUSED_MAX => Admission::Refused,
        Some(_) => return,
    };
    if let Some(worker) = workers.iter().min_by_key(|worker| worker.open()) {
        worker.serve(stream, admission);
    }
}
