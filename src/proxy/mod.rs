//! The data plane: listeners, workers, and what happens to a request between a client and an upstream.
//!
//! It reads published routes and writes its own counters. It never waits for the control plane, and what comes from
//! the network never makes it panic.

mod accept;
mod access_log;
mod admission;
mod alarm;
pub(crate) mod connection;
mod exchange;
pub(crate) mod fault;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http2;
mod upstream;

pub use accept::listener::{Listener, Scheme, adopt, bind};
pub use access_log::AccessLog;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::config;
use crate::routing::{ClientEnds, Table};
use crate::tls::Terminator;
use accept::connection_limit::Clients;
use accept::worker::{Message, Worker};

/// What was told to end now has done so after this, or never will; the process ends all the same.
const CUT_MAX: Duration = Duration::from_secs(2);

/// The running data plane.
pub struct Plane {
    workers: Arc<[Worker]>,
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Requests and tunnels that the deadline cut.
    pub cut: u64,
}

impl Plane {
    /// Starts the workers and serves the bound listeners.
    ///
    /// # Errors
    /// A thread or its runtime could not be made.
    pub fn start(
        config: &config::Proxy,
        table: &Arc<ArcSwap<Table>>,
        listeners: Vec<Listener>,
        terminator: Option<&Arc<Terminator>>,
        log: &AccessLog,
        client_ends: &Arc<ClientEnds>,
    ) -> io::Result<Self> {
        crate::http1::buffer::map_buffers();
        let config = Arc::new(config.clone());
        let shared = crate::proxy::accept::worker::Shared {
            clients: Clients::new(&config),
            proxy: Arc::clone(&config),
            table: Arc::clone(table),
            terminator: terminator.cloned(),
            log: log.clone(),
            client_ends: Arc::clone(client_ends),
        };
        let start = |index| Worker::start(index, shared.clone());
        let workers = (0..config.workers).map(start).collect::<io::Result<Arc<[Worker]>>>()?;
        for (listener, worker) in listeners.into_iter().zip(workers.iter().cycle()) {
            worker.tell(Message::Accept(listener, Arc::clone(&workers), config.max_connections));
        }
        Ok(Plane { workers })
    }

    /// A handle that makes every connection look at its flags, for the control plane after a cut.
    pub fn waker(&self) -> impl Fn() + Send + Sync + use<> {
        let workers = Arc::clone(&self.workers);
        move || workers.iter().for_each(|worker| worker.tell(Message::Wake))
    }

    /// A handle that counts open client connections.
    pub fn connections(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let workers = Arc::clone(&self.workers);
        move || workers.iter().map(|worker| worker.open() as u64).sum()
    }

    /// Accepts no more, lets requests finish within `limit` or until `now` says so, then cuts the rest.
    ///
    /// A kept connection without a request is closed after `idle`; one that asks until then is answered, and closed by
    /// that answer. `now` is asked every 10 ms.
    pub fn stop(self, limit: Duration, idle: Duration, mut now: impl FnMut() -> bool) -> Stopped {
        // A worker ends once it has no connection: before that, nobody may accept one for it.
        let (accepted, accepts) = channel();
        self.workers.iter().for_each(|worker| worker.tell(Message::StopAccepting(accepted.clone())));
        drop(accepted);
        while accepts.recv().is_ok() {}
        let began = Instant::now();
        self.workers.iter().for_each(|worker| worker.tell(Message::Stop { idle_until: began + idle }));
        let mut awaits_idle = !idle.is_zero();
        let open = |workers: &[Worker]| workers.iter().any(|worker| worker.open() > 0);
        while open(&self.workers) && began.elapsed() < limit && !now() {
            if awaits_idle && began.elapsed() > idle {
                awaits_idle = false;
                (self.waker())();
            }
            std::thread::sleep(crate::proxy::accept::worker::STOP_POLL);
        }
        self.workers.iter().for_each(|worker| worker.tell(Message::Cut));
        let cut = Instant::now();
        while open(&self.workers) && cut.elapsed() < CUT_MAX {
            std::thread::sleep(crate::proxy::accept::worker::STOP_POLL);
        }
        Stopped { cut: self.workers.iter().map(Worker::join).sum() }
    }
}
