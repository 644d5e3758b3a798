//! The color that does not serve a request, as the data plane may ask it all the same: for replays while a watch runs,
//! and for static files that the color that serves does not have.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::Color;
use crate::routing::lease_tracker::{Seat, SpareSeat};
use crate::routing::{Counter, Kind, Lane, Lease, Shard, Upstream};

/// Requests of one worker under one epoch that may be asked again at most, beside [`AGAIN_SHARE`] of its requests: the
/// idle color carries no traffic, and a release that fails all at once must not bring it down with it.
const AGAIN_BURST: u64 = 256;

/// One of them for so many requests begun.
const AGAIN_SHARE: u64 = 10;

/// The color that does not serve a request.
#[derive(Clone)]
pub struct Other {
    /// Which.
    pub color: Color,
    /// Where it is; at least one.
    pub upstreams: Arc<[Arc<Upstream>]>,
    pub(super) stats: Arc<Shard>,
    pub(super) seat: SpareSeat,
}

impl Other {
    /// Whether some upstream of it is not known to be down.
    pub fn is_up(&self) -> bool {
        self.upstreams.iter().any(|upstream| !upstream.is_down())
    }

    /// Counts a static file that it had and the other color had not.
    pub fn count_skew_answer(&self) {
        self.stats.skew_answers.add(1);
    }
}

/// One request in flight on a color that answers in place of the other one. A drain of that color waits for it.
pub(super) struct Visit {
    pub(super) stats: Arc<Shard>,
    pub(super) seat: Seat,
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.stats.ended.add(1);
        self.seat.end();
    }
}

impl Lease {
    /// The color that does not serve it.
    pub fn other(&self) -> &Other {
        &self.lane.other
    }

    /// Counts it in with the other color, which is asked in place of the one that it is on: it ends with the drain of
    /// either. `false`: the other one was drained since it began, and may have been stopped.
    pub fn begin_visit(&mut self) -> bool {
        let Other { stats, seat, .. } = &self.lane.other;
        let visit = seat.take().map(|seat| Visit { stats: Arc::clone(stats), seat });
        if let Some(visit) = &visit {
            visit.stats.begun.add(1);
            visit.seat.begin();
        }
        self.visit = visit;
        self.visit.is_some()
    }

    /// Counts what the other color answered.
    pub fn record_visit(&self, status: Option<u16>, method: usize, duration: Duration) {
        let Some(Visit { stats, .. }) = &self.visit else { return };
        stats.count(status, method, duration);
        if status.is_none_or(|code| code >= 500) {
            stats.errors.add(1);
        }
    }

    /// The color that it is on answers after all.
    pub fn end_visit(&mut self) {
        self.end_kind();
        self.visit = None;
    }

    /// What it turned out to be is over.
    pub(super) fn end_kind(&self) {
        if self.kind.get() != Kind::Request {
            self.ends().ended.add(1);
            self.kind.set(Kind::Request);
        }
    }

    /// Takes one replay out of the budget of 256 and a tenth of this worker's requests; false where nothing is left.
    pub fn take_replay(&self) -> bool {
        self.take_of(&self.lane.counts.replays)
    }

    /// Takes one file to look for out of a budget of the same size beside that of replays: whoever looks for files that
    /// are nowhere must not double the load of both colors.
    pub fn take_search(&self) -> bool {
        self.take_of(&self.lane.counts.searches)
    }

    fn take_of(&self, taken: &Counter) -> bool {
        let is_left = taken.get() < AGAIN_BURST + self.lane.counts.begun.get() / AGAIN_SHARE;
        if is_left {
            taken.add(1);
        }
        is_left
    }
}

impl Lane {
    /// Counts how a replay ended, by index into [`crate::routing::REPLAY_RESULTS`].
    pub fn count_replay(&self, result: usize) {
        self.stats.replays[result].add(1);
    }
}
