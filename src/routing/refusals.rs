//! How often clients were refused or ended by a limit, by which one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::http2::Ends;

/// Which limit, or which mistake of theirs. TLS and HTTP/2 have ends of their own beside these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `proxy.max_connections`
    Connections,
    /// `proxy.max_connections_per_client`
    ClientConnections,
    /// No header of the PROXY protocol where one is required, or a broken one.
    ProxyHeader,
    /// `proxy.header_timeout`
    HeaderTimeout,
    /// `proxy.max_header_bytes`, or too many fields.
    HeaderSize,
    /// A request that is malformed or ambiguous, or of an unknown version.
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
    /// Each of them, in the order of their numbers.
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

    /// The word in metrics.
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

/// Counters of all workers.
#[derive(Default)]
pub struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    /// Counts one.
    pub fn count(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Relaxed);
    }

    /// How often each of them happened.
    pub fn counts(&self) -> Vec<(Refusal, u64)> {
        Refusal::ALL.into_iter().map(|refusal| (refusal, self.0[refusal as usize].load(Relaxed))).collect()
    }
}

/// What clients were ended for.
#[derive(Default)]
pub struct ClientEnds {
    /// Sessions of HTTP/2.
    pub http2: Ends,
    /// Anything else.
    pub refusals: Refusals,
}

#[cfg(test)]
mod tests {
    use crate::routing::refusals::*;

    #[test]
    fn refusals_are_counted_under_their_own_number() {
        assert!(Refusal::ALL.iter().enumerate().all(|(at, refusal)| *refusal as usize == at));
    }
}
