//! One worker: a thread with a single-threaded runtime, its own connections, buffers and counters.
//!
//! Nothing is shared with another worker on a request's path, so a worker needs no locks and its connections no `Send`.
//! What connections borrow from their worker is below them, in [`context`](crate::proxy::context).

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::http1::version::ClientProtocol;
use crate::proxy::accept::connection_limit::ConnectionLimit;
use crate::proxy::accept::listener::Scheme;
use crate::proxy::accept::proxy_header::{self, HeaderError};
use crate::proxy::accept::worker_handle::{NewConnection, OpenConnections, OpenGuard, WorkerHandle, WorkerMessage};
use crate::proxy::accept::{acceptor, plain, tls_handshake};
use crate::proxy::alarm::SWEEP;
use crate::proxy::connection::client::Client;
use crate::proxy::context::{SharedContext, WorkerContext};
use crate::proxy_protocol::Ends;
use crate::routing::Refusal;

/// Sweeps of the alarms in a second.
const SWEEPS_PER_SECOND: u32 = 1000 / SWEEP.as_millis() as u32;

/// Starts the worker at `index`.
///
/// # Errors
/// The thread or its runtime could not be made.
pub fn start(index: usize, shared: SharedContext, limit: Arc<ConnectionLimit>) -> io::Result<WorkerHandle> {
    let (messages, inbox) = unbounded_channel();
    let open = OpenConnections::default();
    let counted = open.clone();
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(error));
                return 0;
            }
        };
        let _ = ready.send(Ok(()));
        let context = Rc::new(WorkerContext::new(index, shared));
        let worker = Rc::new(Worker { context, limit, open: counted, acceptors: RefCell::default() });
        let cut = runtime.block_on(worker.run(inbox));
        // A lookup of a name may still run, which nobody waits for any more.
        runtime.shutdown_background();
        cut
    })?;
    started.recv().map_err(|_| io::Error::other("a worker ended before it began"))??;
    Ok(WorkerHandle::new(messages, open, thread))
}

/// What only the thread itself needs, around the context that its connections use.
struct Worker {
    context: Rc<WorkerContext>,
    limit: Arc<ConnectionLimit>,
    open: OpenConnections,
    /// The tasks that accept connections on this thread.
    acceptors: RefCell<Vec<AbortHandle>>,
}

impl Worker {
    /// Reads messages until a stop has ended the last connection. Returns how many requests and tunnels it cut.
    async fn run(self: Rc<Self>, mut inbox: UnboundedReceiver<WorkerMessage>) -> u64 {
        tokio::task::spawn_local(Rc::clone(&self.context.admission).admit_when_idle());
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweeps: u32 = 0;
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.handle(message),
                    None => break,
                },
                _ = sweep.tick() => {
                    sweeps = sweeps.wrapping_add(1);
                    self.sweep(sweeps);
                }
            }
            if self.context.shutdown.is_stopping() && self.open.count() == 0 {
                break;
            }
        }
        self.context.shutdown.cut()
    }

    fn handle(self: &Rc<Self>, message: WorkerMessage) {
        let WorkerContext { alarms, shutdown, .. } = &*self.context;
        match message {
            WorkerMessage::Accept { listener, workers, connections_max } => {
                let acceptor = acceptor::run(listener, workers, connections_max);
                self.acceptors.borrow_mut().push(tokio::task::spawn_local(acceptor).abort_handle());
            }
            WorkerMessage::Serve(connection) => self.serve(connection),
            WorkerMessage::Wake => alarms.wake_all(),
            // An acceptor cannot run between this and its end: both are on this thread.
            WorkerMessage::StopAccepting(_done) => self.acceptors.take().iter().for_each(AbortHandle::abort),
            WorkerMessage::Stop { idle_until } => {
                shutdown.begin(idle_until);
                alarms.wake_all();
            }
            WorkerMessage::Cut => {
                shutdown.begin_cut();
                alarms.wake_all();
            }
        }
    }

    fn serve(self: &Rc<Self>, connection: NewConnection) {
        let guard = self.open.guard();
        let NewConnection { stream, peer, local, scheme, admission } = connection;
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let client = Client { peer, local, admission, security: None, protocol: ClientProtocol::Http1 };
        if self.context.proxy.is_announced(peer.ip()) {
            let worker = Rc::clone(self);
            tokio::task::spawn_local(async move { worker.serve_behind_header(stream, client, scheme, guard).await });
        } else {
            self.serve_client(stream, client, scheme, guard);
        }
    }

    /// Reads the PROXY header, then serves the connection as the client's that the header names.
    async fn serve_behind_header(
        self: Rc<Self>,
        mut stream: TcpStream,
        mut client: Client,
        scheme: Scheme,
        guard: OpenGuard,
    ) {
        let WorkerContext { alarms, shutdown, proxy, .. } = &*self.context;
        let alarm = alarms.register().await;
        alarm.set(Instant::now() + proxy.header_timeout);
        match proxy_header::read(&mut stream, &alarm, shutdown).await {
            Ok(ends) => {
                if let Some(Ends { client: peer, server: local }) = ends {
                    (client.peer, client.local) = (peer, local);
                }
                self.serve_client(stream, client, scheme, guard);
            }
            Err(HeaderError::Closed) => {}
            Err(HeaderError::TimedOut) => {
                self.close(client.peer, Refusal::ProxyHeader, "no PROXY header within proxy.header_timeout");
            }
            Err(HeaderError::Malformed(why)) => self.close(client.peer, Refusal::ProxyHeader, why),
        }
    }

    /// Counts and logs why a connection is closed before its first request.
    fn close(&self, client: SocketAddr, refusal: Refusal, why: &str) {
        self.context.client_ends.refusals.count(refusal);
        self.context.client_log.connection_closed(client, why);
    }

    fn serve_client(&self, stream: TcpStream, client: Client, scheme: Scheme, guard: OpenGuard) {
        let Ok(slot) = self.limit.take(client.peer.ip()) else {
            let why = "more connections than proxy.max_connections_per_client";
            return self.close(client.peer, Refusal::ClientConnections, why);
        };
        let guards = (guard, slot);
        let context = Rc::clone(&self.context);
        // These are two tasks and not one with a branch in it, because a task takes as much memory as the largest thing
        // that it may come to hold.
        match (scheme, &context.terminator) {
            (Scheme::Http, _) => {
                tokio::task::spawn_local(async move {
                    let _guards = guards;
                    plain::serve(stream, client, context).await;
                });
            }
            (Scheme::Https, Some(terminator)) => {
                let terminator = Arc::clone(terminator);
                tokio::task::spawn_local(async move {
                    let _guards = guards;
                    tls_handshake::serve(stream, client, context, &terminator).await;
                });
            }
            (Scheme::Https, None) => tracing::error!("a TLS connection, and no certificate to serve it with"),
        }
    }

    /// Does what is due at this sweep: time-outs at each of them, the date four times a second, the rest once.
    fn sweep(&self, sweeps: u32) {
        let WorkerContext { alarms, pool, client_log, .. } = &*self.context;
        let now = Instant::now();
        alarms.sweep(now);
        if sweeps.is_multiple_of(SWEEPS_PER_SECOND / 4) {
            self.context.renew_date();
        }
        if sweeps.is_multiple_of(SWEEPS_PER_SECOND) {
            pool.sweep(now);
            client_log.begin_second();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::accept::worker_thread::*;
    use crate::tls::Terminator;

    fn size_of_task<F: Future>(_: impl FnOnce(TcpStream, Client, Rc<WorkerContext>) -> F) -> usize {
        size_of::<F>()
    }

    fn size_of_tls_task<'a, F: Future + 'a>(
        _: impl FnOnce(TcpStream, Client, Rc<WorkerContext>, &'a Terminator) -> F,
    ) -> usize {
        size_of::<F>()
    }

    /// A worker may have ten thousand of them. What a request needs is boxed, and gone when the request is.
    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        let (plain, tls) = (size_of_task(plain::serve), size_of_tls_task(tls_handshake::serve));
        assert!(plain <= 1_280 && tls <= 1_280, "{plain} and {tls} bytes");
    }
}
