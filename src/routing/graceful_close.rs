//! How the leases of a drained color end: by themselves, closed gracefully at a moment of their own, or cut at the
//! deadline.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::routing::Counter;

/// Graceful closes are spread over this part of the time until the deadline, so that the clients do not come back all
/// at once. The rest is left for messages that end late, and for the clients' own closing words.
const SPREAD: f64 = 0.7;

/// The kind of exchange that a lease turned out to be: each kind ends in its own way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaseKind {
    /// A request and its response. It ends by itself.
    #[default]
    Request,
    /// A response that is `text/event-stream`.
    EventStream,
    /// An upgrade to `websocket`.
    WebSocket,
    /// An upgrade to anything else.
    Tunnel,
}

impl LeaseKind {
    /// Every kind, in the order of declaration.
    pub const ALL: [LeaseKind; 4] =
        [LeaseKind::Request, LeaseKind::EventStream, LeaseKind::WebSocket, LeaseKind::Tunnel];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            LeaseKind::Request => "request",
            LeaseKind::EventStream => "event_stream",
            LeaseKind::WebSocket => "websocket",
            LeaseKind::Tunnel => "tunnel",
        }
    }
}

/// Counts the leases of one kind for one worker.
#[derive(Debug, Default)]
pub struct KindCounts {
    /// Leases known to be of this kind; not counted for requests.
    pub begun: Counter,
    /// Counts those that have begun and ended.
    pub ended: Counter,
    /// Leases that the proxy closed gracefully.
    pub closed: Counter,
    /// Leases that were cut at the drain deadline.
    pub cut: Counter,
}

impl KindCounts {
    /// Returns all of them, `ended` before `begun`.
    pub(super) fn counters(&self) -> [&Counter; 4] {
        [&self.ended, &self.begun, &self.closed, &self.cut]
    }
}

/// Whether a color is being drained, and until when its leases may stay.
#[derive(Debug, Default)]
pub(super) struct DrainState {
    begun: OnceLock<(Instant, Duration)>,
    cut: AtomicBool,
}

impl DrainState {
    /// Begins the drain; what is left after `limit` is cut.
    pub(super) fn begin(&self, limit: Duration) {
        let _ = self.begun.set((Instant::now(), limit)); // one generation of leases is drained once
    }

    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// Returns when the lease whose place is `turn`, from 0 (first) to 1 (last), is closed gracefully.
    pub(super) fn close_at(&self, turn: f64) -> Option<Instant> {
        self.begun.get().map(|(begun, limit)| close_at(*begun, *limit, turn))
    }
}

/// Returns when the exchange whose place is `turn`, from 0 (first) to 1 (last), is closed gracefully if all has to be
/// over within `limit` of `begun`.
pub fn close_at(begun: Instant, limit: Duration, turn: f64) -> Instant {
    begun + limit.mul_f64(SPREAD * turn.clamp(0.0, 1.0))
}
