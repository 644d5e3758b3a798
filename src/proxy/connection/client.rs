//! The client of a connection: who it is, and how it came in.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config;
use crate::http1::upstream_head::ClientIdentity;
use crate::http1::version::ClientProtocol;
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
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    pub admission: Admission,
    /// The TLS settings of its handshake; `None` without TLS.
    pub security: Option<Arc<Current>>,
    pub protocol: ClientProtocol,
}

impl Client {
    /// What the applications are told of the client.
    pub fn identity(&self, proxy: &config::Proxy) -> ClientIdentity {
        let ip = self.peer.ip().to_canonical();
        ClientIdentity {
            ip: ip.to_string(),
            is_trusted: proxy.trusted_proxies.iter().any(|network| network.contains(ip)),
            port: self.local.port(),
            scheme: if self.security.is_some() { "https" } else { "http" },
            local_authority: self.local.to_string(),
            protocol: self.protocol,
        }
    }

    /// The value of `Strict-Transport-Security` in responses to the client.
    pub fn hsts(&self) -> Option<&str> {
        self.security.as_ref().and_then(|tls| tls.hsts.as_deref())
    }
}
