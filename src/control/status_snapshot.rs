//! Everything that the control plane shows of itself at one moment.

use std::sync::Arc;

use crate::api::Status;
use crate::domain::Color;
use crate::domain::cutover::{Reason, WatchEndKind};
use crate::routing::{ColorStats, QueueOutcome, RehearsalResult};

/// Everything that status and metrics are made of.
pub struct StatusSnapshot {
    /// As `GET /v1/status` says it.
    pub status: Status,
    /// Counters of the data plane, by service name, indexed by [`Color::index`].
    pub stats: Vec<(String, [Arc<ColorStats>; 2])>,
    /// Copies of requests by service name, then by [`RehearsalResult`].
    pub rehearsals: Vec<(String, [u64; RehearsalResult::ALL.len()])>,
    /// Requests that freezes hold and held.
    pub held: Vec<HeldCount>,
    /// Flips and rollbacks that were made.
    pub flips: Vec<FlipCount>,
    /// Watches that ended without taking traffic back: every end of every service.
    pub watch_ends: Vec<WatchEndCount>,
    /// Whether the ledger's last line got to the disk.
    pub ledger_ok: bool,
    /// `(file, unix time)`: when each certificate ends.
    pub certificates: Vec<(String, i64)>,
    /// `(how, count)`: how TLS handshakes ended; empty without a TLS listener.
    pub handshakes: Vec<(&'static str, u64)>,
    /// `(why, count)`: HTTP/2 connections that were ended for what the client did.
    pub http2_ends: Vec<(&'static str, u64)>,
    /// `(why, count)`: clients that were refused or ended by a limit, or for a mistake of theirs.
    pub refusals: Vec<(&'static str, u64)>,
    /// Reloads that took effect.
    pub reloads_ok: u64,
    /// Reloads that were refused.
    pub reloads_failed: u64,
}

/// Flips and rollbacks of one service to one color, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlipCount {
    /// The service.
    pub service: String,
    /// The color that took the traffic.
    pub to: Color,
    /// Where the change came from.
    pub reason: Reason,
    /// How many there were.
    pub count: u64,
}

/// Watches of one service that ended in one way without taking traffic back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEndCount {
    /// The service.
    pub service: String,
    /// How the watches ended.
    pub end: WatchEndKind,
    /// How many there were.
    pub count: u64,
}

/// Requests of one service that freezes hold and held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCount {
    /// The service.
    pub service: String,
    /// Requests that are held now.
    pub now: u64,
    /// How waits have ended, indexed like [`QueueOutcome::ALL`].
    pub ends: [u64; QueueOutcome::ALL.len()],
}
