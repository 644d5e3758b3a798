//! A worker as the rest of the program sees it: it takes messages and counts its open connections.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use crate::proxy::accept::listener::{Listener, Scheme};
use crate::proxy::connection::client::Admission;

/// What a worker is told to do.
pub enum WorkerMessage {
    /// Accept connections from `listener`, and hand each of them to one of `workers`.
    Accept {
        listener: Listener,
        workers: Arc<[WorkerHandle]>,
        /// `proxy.max_connections`, over all workers.
        connections_max: usize,
    },
    /// Serve this connection.
    Serve(NewConnection),
    /// Wake every connection, so that each of them looks at what may end it.
    Wake,
    /// Accept no more, and drop this sender once that is so.
    StopAccepting(std::sync::mpsc::Sender<()>),
    /// Serve what is in flight, and end when the last connection is gone. Connections without a request are closed
    /// from `idle_until` on.
    Stop { idle_until: Instant },
    /// End what is in flight.
    Cut,
}

/// A connection as it was accepted.
pub struct NewConnection {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    /// The listener's address.
    pub local: SocketAddr,
    pub scheme: Scheme,
    pub admission: Admission,
}

/// Sends a worker messages from any thread.
pub struct WorkerHandle {
    messages: UnboundedSender<WorkerMessage>,
    open: OpenConnections,
    thread: Mutex<Option<JoinHandle<u64>>>,
}

impl WorkerHandle {
    /// The handle of the worker that reads `messages` on `thread`, and gives its connections back to `open`.
    pub fn new(messages: UnboundedSender<WorkerMessage>, open: OpenConnections, thread: JoinHandle<u64>) -> Self {
        WorkerHandle { messages, open, thread: Mutex::new(Some(thread)) }
    }

    /// How many client connections are open now, including those that the worker has not looked at yet.
    pub fn open(&self) -> usize {
        self.open.count()
    }

    /// Hands a connection over. It counts as open from now on, so that a burst is spread over the workers before any
    /// of them has run.
    pub fn serve(&self, connection: NewConnection) {
        self.open.add();
        if self.messages.send(WorkerMessage::Serve(connection)).is_err() {
            self.open.remove();
        }
    }

    /// Sends a message. A worker that has ended has nothing left to do with it.
    pub fn send(&self, message: WorkerMessage) {
        let _ = self.messages.send(message);
    }

    /// Waits for the worker's end and returns how many requests and tunnels its stop cut. A worker whose connections
    /// did not end is left behind, and the process ends with it.
    pub fn join(&self) -> u64 {
        let stuck = self.open();
        if stuck > 0 {
            tracing::error!(connections = stuck, "connections did not end when told to");
            return stuck as u64;
        }
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        thread.and_then(|thread| thread.join().ok()).unwrap_or(0)
    }
}

/// Counts a worker's open connections; every clone counts the same ones.
#[derive(Clone, Default)]
pub struct OpenConnections(Arc<AtomicUsize>);

/// A connection that the handle has counted as open, until this is dropped.
pub struct OpenGuard(OpenConnections);

impl OpenConnections {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Takes over the end of a connection that [`WorkerHandle::serve`] counted.
    pub fn guard(&self) -> OpenGuard {
        OpenGuard(self.clone())
    }

    fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn remove(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.remove();
    }
}
