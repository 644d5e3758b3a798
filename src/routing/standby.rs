//! The standby of a route: the color that does not serve a request, and may be asked all the same, for replays while a
//! watch runs and for static files that the serving color does not have.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::Color;
use crate::routing::lease_tracker::{LeaseToken, WeakLeaseToken};
use crate::routing::{Counter, Lease, ReplayResult, Shard, Upstream, WorkerRoute};

/// Requests of one worker under one epoch that the standby may be asked at most, beside [`BUDGET_SHARE`] of the
/// worker's requests. The standby carries no traffic, and a release that fails all at once must not bring it down too.
const BUDGET_BURST: u64 = 256;

/// One request for so many begun.
const BUDGET_SHARE: u64 = 10;

/// The color that does not serve a request.
#[derive(Clone)]
pub struct Standby {
    /// The color.
    pub color: Color,
    /// Its addresses; at least one.
    pub upstreams: Arc<[Arc<Upstream>]>,
    pub(super) stats: Arc<Shard>,
    pub(super) token: WeakLeaseToken,
}

impl Standby {
    /// Whether some upstream of it is not known to be down.
    pub fn is_up(&self) -> bool {
        self.upstreams.iter().any(|upstream| !upstream.is_down())
    }

    /// Counts a static file that it had and the serving color had not.
    pub fn count_skew_answer(&self) {
        self.stats.skew_answers.add(1);
    }
}

/// One request in flight on the standby. A drain of that color waits for it.
pub(super) struct StandbyLease {
    pub(super) stats: Arc<Shard>,
    pub(super) token: LeaseToken,
}

impl Drop for StandbyLease {
    fn drop(&mut self) {
        self.stats.ended.add(1);
        self.token.end();
    }
}

impl Lease {
    /// Returns the color that does not serve the request.
    pub fn standby(&self) -> &Standby {
        &self.route.standby
    }

    /// Begins to ask the standby in place of the color that the lease is on; the drain of either waits for the lease
    /// then. Returns `false` if the standby was drained since the lease began: it may have been stopped.
    pub fn begin_standby(&mut self) -> bool {
        let Standby { stats, token, .. } = &self.route.standby;
        let lease = token.upgrade().map(|token| StandbyLease { stats: Arc::clone(stats), token });
        if let Some(lease) = &lease {
            lease.stats.begun.add(1);
            lease.token.begin();
        }
        self.standby = lease;
        self.standby.is_some()
    }

    /// Counts what the standby answered.
    pub fn record_standby(&self, status: Option<u16>, method: usize, duration: Duration) {
        let Some(StandbyLease { stats, .. }) = &self.standby else { return };
        stats.count(status, method, duration);
        if status.is_none_or(|code| code >= 500) {
            stats.errors.add(1);
        }
    }

    /// Ends the request on the standby: the color that the lease is on answers after all.
    pub fn end_standby(&mut self) {
        self.end_kind();
        self.standby = None;
    }

    /// Takes one replay out of the budget of 256 and a tenth of this worker's requests; `false` where nothing is left.
    pub fn take_replay(&self) -> bool {
        self.take_of(&self.route.counts.replays)
    }

    /// Takes one file to look for out of a budget of the same size beside that of replays: whoever looks for files that
    /// are nowhere must not double the load of both colors.
    pub fn take_search(&self) -> bool {
        self.take_of(&self.route.counts.searches)
    }

    fn take_of(&self, taken: &Counter) -> bool {
        let is_left = taken.get() < BUDGET_BURST + self.route.counts.begun.get() / BUDGET_SHARE;
        if is_left {
            taken.add(1);
        }
        is_left
    }
}

impl WorkerRoute {
    /// Counts how a replay ended.
    pub fn count_replay(&self, result: ReplayResult) {
        self.stats.replays[result as usize].add(1);
    }
}
