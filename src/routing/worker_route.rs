//! What one worker needs to send a request to one color: addresses, counters, and the token that a drain waits for.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};

use crate::config;
use crate::domain::Color;
use crate::routing::epoch_counts::EpochCounts;
use crate::routing::lease_tracker::LeaseToken;
use crate::routing::{
    FailedRequests, ModeCell, PreviewGate, RehearsalTap, ReplayResult, Shard, Side, SkewShield, Standby, Upstream,
};

/// The settings of a service that do not change until the next reload.
#[derive(Debug)]
pub struct ServiceInfo {
    /// The service's name in config, API and metrics.
    pub name: String,
    /// Time-outs towards its upstreams.
    pub upstream: config::Upstream,
    /// Selects the requests that may be replayed.
    pub replay: config::Replay,
    /// The queue for copies of its requests, for a rehearsal.
    pub tap: Arc<RehearsalTap>,
    /// Selects the clients that may reach the idle color; `None` lets nobody through.
    pub preview: Option<PreviewGate>,
    /// Selects the files that are requested from the other color when one does not have them; `None` selects none.
    pub shield: Option<SkewShield>,
}

/// One worker's route to one color: upstreams and counters, and the token that its leases hold.
#[repr(align(128))]
pub struct WorkerRoute {
    /// The service this route belongs to.
    pub service: Arc<ServiceInfo>,
    /// The color that serves: the active one, or ([`Side::Old`]) the other.
    pub color: Color,
    /// The epoch under which a request is served.
    pub epoch: u64,
    /// The upstreams of the requests; there is at least one.
    pub upstreams: Arc<[Arc<Upstream>]>,
    /// This worker's lasting counters for the color.
    pub stats: Arc<Shard>,
    pub(super) side: Side,
    pub(super) token: LeaseToken,
    pub(super) standby: Standby,
    pub(super) mode: Arc<ModeCell>,
    pub(super) counts: Arc<EpochCounts>,
    pub(super) failure_bell: Arc<Notify>,
    /// Set while a watch runs.
    pub(super) failed: Option<FailedRequests>,
    pub(super) _over: mpsc::Sender<Infallible>,
    pub(super) _ended: watch::Sender<()>,
}

impl WorkerRoute {
    /// Counts how a replay ended.
    pub fn count_replay(&self, result: ReplayResult) {
        self.stats.replays[result as usize].add(1);
    }
}
