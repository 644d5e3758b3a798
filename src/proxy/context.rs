//! What a worker lends to its connections: the configuration, the routes, and what they share on its thread.
//!
//! All of it lives on one thread, so cells do where locks would be needed otherwise, and nothing here is shared with
//! another worker on a request's path. The thread itself, and the messages that it takes, are in
//! [`worker_thread`](crate::proxy::accept::worker_thread), above the connections that use this.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config;
use crate::http1::buffer::Buffers;
use crate::proxy::access_log::AccessLog;
use crate::proxy::admission::AdmissionQueue;
use crate::proxy::alarm::Alarms;
use crate::proxy::fault::Fault;
use crate::proxy::rate_limited_log::RateLimitedLog;
use crate::proxy::shutdown::Shutdown;
use crate::proxy::upstream::pool::Pool;
use crate::routing::{ClientTerminations, HostTable};
use crate::tls::Terminator;

/// What all workers share.
#[derive(Clone)]
pub struct SharedContext {
    /// `[proxy]` of the configuration.
    pub proxy: Arc<config::Proxy>,
    /// Which service a request is for.
    pub table: Arc<ArcSwap<HostTable>>,
    /// Serves TLS on the listeners that speak it.
    pub terminator: Option<Arc<Terminator>>,
    /// Takes a line for every request.
    pub access_log: AccessLog,
    /// Counts what clients were refused and ended for.
    pub client_ends: Arc<ClientTerminations>,
}

/// What the tasks of one worker share.
pub struct WorkerContext {
    /// The worker's position among all workers, which selects its own part of every route.
    pub index: usize,
    /// `[proxy]` of the configuration.
    pub proxy: Arc<config::Proxy>,
    /// Which service a request is for.
    pub table: Arc<ArcSwap<HostTable>>,
    /// Serves TLS on the listeners that speak it.
    pub terminator: Option<Arc<Terminator>>,
    /// Takes a line for every request.
    pub access_log: AccessLog,
    /// Takes a line for what clients do wrong.
    pub client_log: RateLimitedLog,
    /// Counts what clients were refused and ended for.
    pub client_ends: Arc<ClientTerminations>,
    /// Lends memory while there are bytes to hold.
    pub buffers: Rc<Buffers>,
    /// Wakes connections at their time-outs.
    pub alarms: Rc<Alarms>,
    /// Tells connections how far a stop of the proxy has come.
    pub shutdown: Rc<Shutdown>,
    /// Decides which request begins next.
    pub admission: Rc<AdmissionQueue>,
    /// Keeps connections to upstreams.
    pub pool: Pool,
    date: Cell<[u8; 29]>,
}

impl WorkerContext {
    /// The context of the worker at `index`, without connections.
    pub fn new(index: usize, shared: SharedContext) -> Self {
        let SharedContext { proxy, table, terminator, access_log, client_ends } = shared;
        let (buffers, alarms) = (Rc::<Buffers>::default(), Rc::<Alarms>::default());
        let shutdown = Rc::new(Shutdown::new(proxy.shutdown_timeout));
        let pool = Pool::new(Rc::clone(&buffers), Rc::clone(&alarms), Rc::clone(&shutdown));
        WorkerContext {
            index,
            proxy,
            table,
            terminator,
            access_log,
            client_log: RateLimitedLog::default(),
            client_ends,
            buffers,
            alarms,
            shutdown,
            admission: Rc::default(),
            pool,
            date: Cell::new(http_date()),
        }
    }

    /// Counts what a client was refused or ended for.
    pub fn count_refusal(&self, fault: Fault) {
        if let Some(refusal) = fault.refusal() {
            self.client_ends.refusals.count(refusal);
        }
    }

    /// The present time as an HTTP date (RFC 9110 5.6.7), as of the last [`WorkerContext::renew_date`].
    pub fn date(&self) -> [u8; 29] {
        self.date.get()
    }

    /// Formats the date anew: once for many responses, instead of in each of them.
    pub fn renew_date(&self) {
        self.date.set(http_date());
    }
}

fn http_date() -> [u8; 29] {
    let text = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    text.as_bytes().try_into().expect("an HTTP date has 29 bytes until the year 9999")
}
