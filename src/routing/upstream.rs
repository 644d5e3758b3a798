//! One address of one color, as both planes share it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::config;

/// One address of one color. It outlives reloads that do not change it, and with it the workers' connections to it.
#[derive(Debug)]
pub struct Upstream {
    /// The address as configured.
    pub address: config::Address,
    /// The socket address, where the host needs no name resolution.
    pub socket: Option<SocketAddr>,
    /// Unique in this process: each worker keeps its connections under this number.
    pub id: usize,
    down: AtomicBool,
}

impl Upstream {
    /// Makes an upstream that counts as up until a probe says otherwise.
    pub fn new(address: config::Address) -> Arc<Self> {
        static NEXT_ID: AtomicUsize = AtomicUsize::new(0);
        let socket = address.socket();
        Arc::new(Upstream { address, socket, id: NEXT_ID.fetch_add(1, Relaxed), down: AtomicBool::new(false) })
    }

    /// Whether the probes found it down. A color whose upstreams are all down is tried all the same.
    pub fn is_down(&self) -> bool {
        self.down.load(Relaxed)
    }

    /// The control plane sets this from its probes.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Relaxed);
    }
}
