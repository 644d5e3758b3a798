//! The data plane: listeners, workers, and what happens to a request between a client and an upstream.
//!
//! It reads published routes and writes its own counters. It never waits for the control plane, and what comes from
//! the network never makes it panic.

mod accept;
mod access_log;
mod admission;
mod alarm;
mod buffered_io;
mod connection;
mod context;
mod exchange;
mod fault;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http2;
mod local_reply;
mod rate_limited_log;
mod shutdown;
mod transport;
mod upstream;

pub use accept::listener::{Listener, Scheme, adopt, bind};
pub use access_log::AccessLog;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::config;
use crate::routing::{ClientTerminations, HostTable};
use crate::tls::Terminator;
use accept::connection_limit::ConnectionLimit;
use accept::worker_handle::{WorkerHandle, WorkerMessage};
use accept::worker_thread;
use context::SharedContext;

/// How long a cut may take. A connection that has not ended by then never will, and the process ends all the same.
const CUT_MAX: Duration = Duration::from_secs(2);

/// The pause between two looks at the workers while a stop waits for them.
const STOP_POLL: Duration = Duration::from_millis(10);

/// The running data plane.
pub struct DataPlane {
    workers: Arc<[WorkerHandle]>,
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopReport {
    /// How many requests and tunnels were cut at the deadline.
    pub cut: u64,
}

impl DataPlane {
    /// Starts the workers and serves the bound listeners.
    ///
    /// # Errors
    /// A thread or its runtime could not be made.
    pub fn start(
        config: &config::Proxy,
        table: &Arc<ArcSwap<HostTable>>,
        listeners: Vec<Listener>,
        terminator: Option<&Arc<Terminator>>,
        access_log: &AccessLog,
        client_ends: &Arc<ClientTerminations>,
    ) -> io::Result<Self> {
        crate::http1::buffer::map_buffers();
        let config = Arc::new(config.clone());
        let limit = ConnectionLimit::new(&config);
        let shared = SharedContext {
            proxy: Arc::clone(&config),
            table: Arc::clone(table),
            terminator: terminator.cloned(),
            access_log: access_log.clone(),
            client_ends: Arc::clone(client_ends),
        };
        let start = |index| worker_thread::start(index, shared.clone(), Arc::clone(&limit));
        let workers = (0..config.workers).map(start).collect::<io::Result<Arc<[WorkerHandle]>>>()?;
        let connections_max = config.max_connections;
        for (listener, worker) in listeners.into_iter().zip(workers.iter().cycle()) {
            worker.send(WorkerMessage::Accept { listener, workers: Arc::clone(&workers), connections_max });
        }
        Ok(DataPlane { workers })
    }

    /// A handle that wakes every connection, so that each looks at what may end it; for the control plane after a cut.
    pub fn waker(&self) -> impl Fn() + Send + Sync + use<> {
        let workers = Arc::clone(&self.workers);
        move || workers.iter().for_each(|worker| worker.send(WorkerMessage::Wake))
    }

    /// A handle that counts open client connections.
    pub fn connections(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let workers = Arc::clone(&self.workers);
        move || workers.iter().map(|worker| worker.open() as u64).sum()
    }

    /// Stops accepting, lets requests finish until `limit` has passed or `now` returns true, and cuts the rest.
    ///
    /// A kept connection without a request is closed after `idle`. A request that arrives on one before that is served,
    /// and its response closes the connection. `now` is called every 10 ms.
    pub fn stop(self, limit: Duration, idle: Duration, mut now: impl FnMut() -> bool) -> StopReport {
        // A worker ends once it has no connection: before that, nobody may accept one for it.
        let (stopped, acceptors) = channel();
        self.workers.iter().for_each(|worker| worker.send(WorkerMessage::StopAccepting(stopped.clone())));
        drop(stopped);
        while acceptors.recv().is_ok() {}
        let began = Instant::now();
        self.workers.iter().for_each(|worker| worker.send(WorkerMessage::Stop { idle_until: began + idle }));
        let mut awaits_idle = !idle.is_zero();
        let is_open = |workers: &[WorkerHandle]| workers.iter().any(|worker| worker.open() > 0);
        while is_open(&self.workers) && began.elapsed() < limit && !now() {
            if awaits_idle && began.elapsed() > idle {
                awaits_idle = false;
                (self.waker())();
            }
            std::thread::sleep(STOP_POLL);
        }
        self.workers.iter().for_each(|worker| worker.send(WorkerMessage::Cut));
        let cut = Instant::now();
        while is_open(&self.workers) && cut.elapsed() < CUT_MAX {
            std::thread::sleep(STOP_POLL);
        }
        StopReport { cut: self.workers.iter().map(WorkerHandle::join).sum() }
    }
}
