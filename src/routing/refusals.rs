//! Counts how often a limit, or a mistake of the client, ended a request or a connection.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::http2::SessionEndCounts;

/// The limit or mistake that ended it. TLS and HTTP/2 have counters of their own beside these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `proxy.max_connections`
    Connections,
    /// `proxy.max_connections_per_client`
    ClientConnections,
    /// A PROXY header was required and missing, or it was broken.
    ProxyHeader,
    /// `proxy.header_timeout`
    HeaderTimeout,
    /// `proxy.max_header_bytes`, or too many header fields.
    HeaderSize,
    /// The request was malformed or ambiguous, or of an unknown version.
    Malformed,
    /// `proxy.max_body_bytes`
    BodySize,
    /// `proxy.body_timeout`
    BodyTimeout,
    /// `proxy.min_body_rate`
    BodyRate,
    /// The client did not read for `proxy.idle_timeout`.
    ReadTimeout,
    /// `proxy.min_read_rate`
    ReadRate,
}

impl Refusal {
    /// Every refusal, in the order of declaration.
    pub const ALL: [Refusal; 11] = [
        Refusal::Connections,
        Refusal::ClientConnections,
        Refusal::ProxyHeader,
        Refusal::HeaderTimeout,
        Refusal::HeaderSize,
        Refusal::Malformed,
        Refusal::BodySize,
        Refusal::BodyTimeout,
        Refusal::BodyRate,
        Refusal::ReadTimeout,
        Refusal::ReadRate,
    ];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Connections => "connections",
            Refusal::ClientConnections => "client_connections",
            Refusal::ProxyHeader => "proxy_header",
            Refusal::HeaderTimeout => "header_timeout",
            Refusal::HeaderSize => "header_size",
            Refusal::Malformed => "malformed",
            Refusal::BodySize => "body_size",
            Refusal::BodyTimeout => "body_timeout",
            Refusal::BodyRate => "body_rate",
            Refusal::ReadTimeout => "read_timeout",
            Refusal::ReadRate => "read_rate",
        }
    }
}

/// The counters that all workers share; a refusal is rare enough for that.
#[derive(Default)]
pub struct RefusalCounts([AtomicU64; Refusal::ALL.len()]);

impl RefusalCounts {
    /// Counts one refusal.
    pub fn count(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Relaxed);
    }

    /// Returns how often each refusal happened.
    pub fn counts(&self) -> Vec<(Refusal, u64)> {
        Refusal::ALL.into_iter().map(|refusal| (refusal, self.0[refusal as usize].load(Relaxed))).collect()
    }
}

/// Counts what clients were refused or ended for.
#[derive(Default)]
pub struct ClientTerminations {
    /// HTTP/2 sessions that the proxy ended.
    pub http2: SessionEndCounts,
    /// All other refusals.
    pub refusals: RefusalCounts,
}

#[cfg(test)]
mod tests {
    use crate::routing::refusals::*;

    #[test]
    fn refusals_are_counted_under_their_own_number() {
        assert!(Refusal::ALL.iter().enumerate().all(|(at, refusal)| *refusal as usize == at));
    }
}
