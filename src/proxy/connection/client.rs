//! The client of a connection: who it is, and how it came in.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::proxy::connection::Version;
use crate::tls::Current;

/// Whether a new connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Its requests are served.
    Served,
    /// There are more than `proxy.max_connections`: it gets a 503 and is closed.
    Refused,
}

/// The client of one connection, or of one stream of it.
#[derive(Clone)]
pub struct Client {
    /// Its address.
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// Whether it is served.
    pub admission: Admission,
    /// The TLS settings of its handshake; `None` without TLS.
    pub security: Option<Arc<Current>>,
    /// The protocol that it speaks.
    pub version: Version,
}
