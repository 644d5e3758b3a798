//! The standby of a route: the color that does not serve a request, and may be asked all the same, for replays while a
//! watch runs and for static files that the serving color does not have.

use std::sync::Arc;

use crate::domain::Color;
use crate::routing::lease_tracker::{LeaseToken, WeakLeaseToken};
use crate::routing::{Shard, Upstream};

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
