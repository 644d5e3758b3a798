//! One worker: a thread with a single-threaded runtime, its own connections, buffers and counters. Nothing here is
//! shared with another worker on the way of a request.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::config;
use crate::http1::buffer::Buffers;
use crate::proxy::accept::connection_limit::Clients;
use crate::proxy::accept::listener::Scheme;
use crate::proxy::accept::proxy_header::{self, Nameless};
use crate::proxy::accept::{listener, tls_handshake};
use crate::proxy::access_log::AccessLog;
use crate::proxy::admission::Intake;
use crate::proxy::alarm::{Alarms, SWEEP};
use crate::proxy::connection::{self, Client, Version};
use crate::proxy::fault::Fault;
use crate::proxy::upstream::pool::Pool;
use crate::proxy_protocol::Ends;
use crate::routing::{ClientEnds, Lease, Refusal, Table, goodbye};
use crate::tls::Terminator;

/// What a worker is told.
pub enum Message {
    /// Accept from this listener and hand the connections to these workers, of which there may be so many.
    Accept(listener::Listener, Arc<[Worker]>, usize),
    /// Serve this connection.
    Serve(Accepted),
    /// Make every connection look at its flags.
    Wake,
    /// Accept no more, and drop this when that is so.
    StopAccepting(std::sync::mpsc::Sender<()>),
    /// Serve what is in flight, then end; connections without a request are closed from that moment on.
    Stop { idle_until: Instant },
    /// End what is in flight.
    Cut,
}

/// A connection just accepted.
pub struct Accepted {
    /// The connection.
    pub stream: StdStream,
    /// The client.
    pub peer: SocketAddr,
    /// The listener's address.
    pub local: SocketAddr,
    /// What is spoken there.
    pub scheme: Scheme,
    /// Whether it is served.
    pub admission: Admission,
}

/// Whether a connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Welcome,
    /// There are too many: it is told so, and closed.
    Refused,
}

/// What all workers have.
#[derive(Clone)]
pub struct Shared {
    /// `[proxy]`
    pub proxy: Arc<config::Proxy>,
    /// Which service a request is for.
    pub table: Arc<ArcSwap<Table>>,
    /// Of listeners for TLS.
    pub terminator: Option<Arc<Terminator>>,
    /// The access log.
    pub log: AccessLog,
    /// What clients were refused and ended for.
    pub client_ends: Arc<ClientEnds>,
    /// How many connections each has.
    pub clients: Arc<Clients>,
}

/// The rest of the program's view of a worker.
pub struct Worker {
    messages: UnboundedSender<Message>,
    open: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<u64>>>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread or its runtime could not be made.
    pub fn start(index: usize, shared: Shared) -> io::Result<Self> {
        let (messages, inbox) = unbounded_channel();
        let open = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&open);
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
            let Shared { proxy, table, terminator, log, client_ends, clients } = shared;
            let context = Rc::new(Context {
                index,
                proxy,
                table,
                terminator,
                log,
                client_ends,
                clients,
                open: counted,
                intake: Rc::default(),
                buffers: Buffers::default(),
                pool: Pool::default(),
                alarms: Alarms::default(),
                accepting: RefCell::default(),
                stopping: Cell::default(),
                idle_until: Cell::default(),
                cutting: Cell::new(false),
                cut: Cell::new(0),
                date: RefCell::new(http_date()),
                complaints: Complaints::default(),
            });
            let cut = runtime.block_on(run(context, inbox));
            // A lookup of a name may still run, which nobody waits for any more.
            runtime.shutdown_background();
            cut
        })?;
        started.recv().map_err(|_| io::Error::other("a worker ended before it began"))??;
        Ok(Worker { messages, open, thread: Mutex::new(Some(thread)) })
    }

    /// Client connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Hands over a connection; it counts as open from now on.
    pub fn serve(&self, accepted: Accepted) {
        self.open.fetch_add(1, Relaxed);
        if self.messages.send(Message::Serve(accepted)).is_err() {
            self.open.fetch_sub(1, Relaxed);
        }
    }

    /// Tells the worker something.
    pub fn tell(&self, message: Message) {
        // A worker that has ended needs no telling.
        let _ = self.messages.send(message);
    }

    /// Waits until it has ended; how many exchanges were cut. It is left behind where a connection does not end.
    pub fn join(&self) -> u64 {
        let stuck = self.open();
        if stuck > 0 {
            tracing::error!(connections = stuck, "connections did not end when they were told to");
            return stuck as u64;
        }
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        thread.and_then(|thread| thread.join().ok()).unwrap_or(0)
    }
}

/// What the tasks of one worker share.
pub struct Context {
    /// Its position among the workers: which lane of a route is its own.
    pub index: usize,
    /// `[proxy]`
    pub proxy: Arc<config::Proxy>,
    /// Which service a request is for.
    pub table: Arc<ArcSwap<Table>>,
    /// Of listeners for TLS.
    pub terminator: Option<Arc<Terminator>>,
    /// The access log.
    pub log: AccessLog,
    /// Free buffers.
    pub buffers: Buffers,
    /// Which request begins next.
    pub intake: Rc<Intake>,
    /// Connections to upstreams.
    pub pool: Pool,
    /// Time-outs.
    pub alarms: Alarms,
    /// What clients did wrong, said seldom.
    pub complaints: Complaints,
    /// What clients were refused and ended for.
    pub client_ends: Arc<ClientEnds>,
    clients: Arc<Clients>,
    open: Arc<AtomicUsize>,
    accepting: RefCell<Vec<AbortHandle>>,
    stopping: Cell<Option<Instant>>,
    idle_until: Cell<Option<Instant>>,
    cutting: Cell<bool>,
    cut: Cell<u64>,
    date: RefCell<[u8; 29]>,
}

impl Context {
    /// Whether connections end with the exchange they are in.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get().is_some()
    }

    /// Whether connections without a request are closed.
    pub fn closes_idle(&self) -> bool {
        self.idle_until.get().is_some_and(|until| until <= Instant::now())
    }

    /// When a lease without an end of its own should say goodbye if its turn is `turn`, from 0 (first) to 1 (last):
    /// its color is left, or the proxy stops.
    pub fn goodbye(&self, lease: &Lease, turn: f64) -> Option<Instant> {
        let stop = self.stopping.get().map(|began| goodbye(began, self.proxy.shutdown_timeout, turn));
        lease.goodbye(turn).into_iter().chain(stop).min()
    }

    /// Counts what a client was refused or ended for.
    pub fn count_refusal(&self, fault: Fault) {
        if let Some(refusal) = fault.refusal() {
            self.client_ends.refusals.count(refusal);
        }
    }

    /// Whether exchanges end now.
    pub fn is_cutting(&self) -> bool {
        self.cutting.get()
    }

    /// Counts an exchange that was cut by the stop.
    pub fn count_cut(&self) {
        self.cut.set(self.cut.get() + 1);
    }

    /// The present time as an HTTP date (RFC 9110 5.6.7), at most one sweep old.
    pub fn date(&self) -> [u8; 29] {
        *self.date.borrow()
    }
}

/// One log line for what clients do wrong, at most ten a second and worker: whoever floods us must not flood the log.
#[derive(Default)]
pub struct Complaints {
    said: Cell<u32>,
    unsaid: Cell<u32>,
}

impl Complaints {
    const PER_SECOND: u32 = 10;

    /// Logs a refused request.
    pub fn say(&self, client: SocketAddr, status: u16, why: &str) {
        if self.may_say() {
            tracing::info!(%client, status, why, "request refused");
        }
    }

    /// Logs a connection that was ended.
    pub fn end(&self, client: SocketAddr, why: &str) {
        if self.may_say() {
            tracing::info!(%client, why, "HTTP/2 connection ended");
        }
    }

    /// Logs a connection that was closed before a request.
    pub fn close(&self, client: SocketAddr, why: &str) {
        if self.may_say() {
            tracing::info!(%client, why, "connection closed");
        }
    }

    fn may_say(&self) -> bool {
        let may = self.said.get() < Self::PER_SECOND;
        let count = if may { &self.said } else { &self.unsaid };
        count.set(count.get() + 1);
        may
    }

    fn next_second(&self) {
        self.said.set(0);
        let unsaid = self.unsaid.take();
        if unsaid > 0 {
            tracing::info!(unsaid, "more refused");
        }
    }
}

async fn run(context: Rc<Context>, mut inbox: UnboundedReceiver<Message>) -> u64 {
    tokio::task::spawn_local(Rc::clone(&context.intake).usher());
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sweeps: u32 = 0;
    loop {
        tokio::select! {
            message = inbox.recv() => match message {
                Some(message) => context.hear(message),
                None => break,
            },
            _ = sweep.tick() => {
                sweeps = sweeps.wrapping_add(1);
                context.sweep(sweeps);
            }
        }
        if context.is_stopping() && context.open.load(Relaxed) == 0 {
            break;
        }
    }
    context.cut.get()
}

impl Context {
    fn hear(self: &Rc<Self>, message: Message) {
        match message {
            Message::Accept(listener, workers, connections_max) => {
                let accept = listener::accept(listener, workers, connections_max);
                self.accepting.borrow_mut().push(tokio::task::spawn_local(accept).abort_handle());
            }
            Message::Serve(accepted) => self.serve(accepted),
            Message::Wake => self.alarms.wake_all(),
            // The task cannot run between this and its end: both are on this thread.
            Message::StopAccepting(_done) => self.accepting.take().iter().for_each(AbortHandle::abort),
            Message::Stop { idle_until } => {
                self.stopping.set(Some(Instant::now()));
                self.idle_until.set(Some(idle_until));
                self.alarms.wake_all();
            }
            Message::Cut => {
                self.cutting.set(true);
                self.alarms.wake_all();
            }
        }
    }

    fn serve(self: &Rc<Self>, accepted: Accepted) {
        let guard = Open(Arc::clone(&self.open));
        let Accepted { stream, peer, local, scheme, admission } = accepted;
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let client = Client { stream, peer, local, admission, security: None, version: Version::Http1 };
        if self.proxy.is_announced(peer.ip()) {
            let context = Rc::clone(self);
            tokio::task::spawn_local(async move { context.serve_announced(client, scheme, guard).await });
        } else {
            self.serve_client(client, scheme, guard);
        }
    }

    /// Serves a connection as whose it says it is.
    async fn serve_announced(self: Rc<Self>, mut client: Client<TcpStream>, scheme: Scheme, guard: Open) {
        match proxy_header::read(&mut client.stream, &self).await {
            Ok(ends) => {
                if let Some(Ends { client: peer, server: local }) = ends {
                    (client.peer, client.local) = (peer, local);
                }
                self.serve_client(client, scheme, guard);
            }
            Err(Nameless::Gone) => {}
            Err(Nameless::Late) => {
                self.close(client.peer, Refusal::ProxyHeader, "no PROXY header within proxy.header_timeout");
            }
            Err(Nameless::Malformed(why)) => self.close(client.peer, Refusal::ProxyHeader, why),
        }
    }

    /// Says why a connection is closed before a request.
    fn close(&self, client: SocketAddr, refusal: Refusal, why: &str) {
        self.client_ends.refusals.count(refusal);
        self.complaints.close(client, why);
    }

    fn serve_client(self: &Rc<Self>, client: Client<TcpStream>, scheme: Scheme, guard: Open) {
        let Ok(place) = self.clients.enter(client.peer.ip()) else {
            let why = "more connections than proxy.max_connections_per_client";
            return self.close(client.peer, Refusal::ClientConnections, why);
        };
        let guard = (guard, place);
        let context = Rc::clone(self);
        // Two kinds of tasks, because each takes as much memory as the larger thing it may come to hold.
        match (scheme, &self.terminator) {
            (Scheme::Http, _) => {
                tokio::task::spawn_local(async move {
                    let _guard = guard;
                    let alarm = connection::alarm(&context).await;
                    connection::serve_plain(client, alarm, context).await;
                });
            }
            (Scheme::Https, Some(terminator)) => {
                let terminator = Arc::clone(terminator);
                tokio::task::spawn_local(async move {
                    let _guard = guard;
                    tls_handshake::serve(client, context, &terminator).await;
                });
            }
            (Scheme::Https, None) => tracing::error!("a connection for TLS, and nothing to meet it with"),
        }
    }

    fn sweep(&self, sweeps: u32) {
        const PER_SECOND: u32 = 1000 / SWEEP.as_millis() as u32;
        let now = Instant::now();
        self.alarms.sweep(now);
        if sweeps.is_multiple_of(PER_SECOND / 4) {
            *self.date.borrow_mut() = http_date();
        }
        if sweeps.is_multiple_of(PER_SECOND) {
            self.pool.sweep(now);
            self.complaints.next_second();
        }
    }
}

/// Counts a connection as open until it is dropped.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn http_date() -> [u8; 29] {
    let text = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    text.as_bytes().try_into().expect("an HTTP date has 29 bytes until the year 9999")
}

/// How long a stop waits between two looks at the workers.
pub const STOP_POLL: Duration = Duration::from_millis(10);
