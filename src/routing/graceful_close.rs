//! How the leases of a color that was left come to their end: by themselves, by a goodbye at a moment of their
//! own before the deadline, or cut at it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::routing::Counter;

/// Goodbyes are spread over so much of the time until the deadline: the clients come back, and not all at once. What is
/// left is for messages that end late, and for the clients' answers.
const SPREAD: f64 = 0.7;

/// Kinds of leases that end in different ways; labels of the metrics. A request ends by itself.
pub const KINDS: [&str; 4] = ["request", "event_stream", "websocket", "tunnel"];

/// What a lease turned out to be, an index into [`KINDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A request and its answer.
    #[default]
    Request,
    /// An answer that is `text/event-stream`.
    EventStream,
    /// An upgrade to `websocket`.
    WebSocket,
    /// An upgrade to anything else.
    Tunnel,
}

/// What one worker counted of one kind.
#[derive(Debug, Default)]
pub struct Ends {
    /// Known to be of this kind; not counted for requests.
    pub begun: Counter,
    /// Of those, over.
    pub ended: Counter,
    /// Ended by the proxy with a goodbye.
    pub closed: Counter,
    /// Cut at the drain deadline.
    pub cut: Counter,
}

impl Ends {
    /// All of them, `ended` before `begun`.
    pub(super) fn counters(&self) -> [&Counter; 4] {
        [&self.ended, &self.begun, &self.closed, &self.cut]
    }
}

/// Whether a color was left, and until when those who are there may stay.
#[derive(Debug, Default)]
pub(super) struct Drain {
    begun: OnceLock<(Instant, Duration)>,
    cut: AtomicBool,
}

impl Drain {
    /// What is left is cut after `limit`.
    pub(super) fn begin(&self, limit: Duration) {
        let _ = self.begun.set((Instant::now(), limit)); // a stay is left once
    }

    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// When somebody says goodbye whose turn is `turn`, from 0 (first) to 1 (last).
    pub(super) fn goodbye(&self, turn: f64) -> Option<Instant> {
        self.begun.get().map(|(begun, limit)| goodbye(*begun, *limit, turn))
    }
}

/// When somebody says goodbye whose turn is `turn`, from 0 (first) to 1 (last), if all has to be over in `limit`.
pub fn goodbye(begun: Instant, limit: Duration, turn: f64) -> Instant {
    begun + limit.mul_f64(SPREAD * turn.clamp(0.0, 1.0))
}
