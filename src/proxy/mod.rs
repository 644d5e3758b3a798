//! The data plane: listeners, workers, and what happens to a request between a client and an upstream.
//!
//! It reads published routes and writes its own counters. It never waits for the control plane, and what comes from
//! the network never makes it panic.

mod access_log;
mod alarm;
mod answer;
mod body;
mod boundary;
mod buffer;
mod connection;
mod exchange;
mod fault;
mod field;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handshake;
mod hold;
mod listener;
mod preview;
mod pump;
mod rehearse;
mod request;
mod skew;
mod tunnel;
mod upstream;
mod worker;

pub use access_log::AccessLog;
pub use listener::{Listener, Scheme, bind};

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::config;
use crate::switch::Table;
use crate::tls::Terminator;
use worker::{Message, Worker};

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
    ) -> io::Result<Self> {
        buffer::map_buffers();
        let config = Arc::new(config.clone());
        let workers = (0..config.workers)
            .map(|index| Worker::start(index, Arc::clone(&config), Arc::clone(table), terminator.cloned(), log.clone()))
            .collect::<io::Result<Arc<[Worker]>>>()?;
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
    pub fn stop(self, limit: Duration, now: impl Fn() -> bool) -> Stopped {
        self.workers.iter().for_each(|worker| worker.tell(Message::Stop));
        let deadline = Instant::now() + limit;
        let open = |workers: &[Worker]| workers.iter().any(|worker| worker.open() > 0);
        while open(&self.workers) && Instant::now() < deadline && !now() {
            std::thread::sleep(worker::STOP_POLL);
        }
        self.workers.iter().for_each(|worker| worker.tell(Message::Cut));
        Stopped { cut: self.workers.iter().map(Worker::join).sum() }
    }
}
