//! The lease of a request: that it is in flight on a color, and what became of it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::Color;
use crate::domain::watch::{Stratum, WatchMode};
use crate::http1::method::Method;
use crate::routing::freeze_queue::WriteToken;
use crate::routing::graceful_close::DrainState;
use crate::routing::lease_tracker::LeaseToken;
use crate::routing::standby::{Standby, StandbyLease};
use crate::routing::worker_route::WorkerRoute;
use crate::routing::{
    Counter, FailedRequests, KindCounts, LeaseKind, Outcome, RequestSource, Side, Upstream, answer_bucket,
};

/// Requests of one worker under one epoch that the standby may be asked at most, beside [`BUDGET_SHARE`] of the
/// worker's requests. The standby carries no traffic, and a release that fails all at once must not bring it down too.
const BUDGET_BURST: u64 = 256;

/// One request for so many begun.
const BUDGET_SHARE: u64 = 10;

/// One request (or tunnel) in flight on one color. It ends when this is dropped, which is after the last byte.
///
/// The lease owns a clone of the worker's route, and with it a token of the color's [`crate::routing::LeaseTracker`].
/// So the count of leases *is* the number of references, and a drain cannot miss one.
pub struct Lease {
    route: Arc<WorkerRoute>,
    _write: Option<Arc<WriteToken>>,
    recorded: bool,
    kind: Cell<LeaseKind>,
    began: Instant,
    /// Whether the head of a response has come.
    answered: Cell<bool>,
    /// Set while a watch runs.
    watched: Option<Watched>,
    audience: Audience,
    /// Set while the standby answers in place of the color that the lease is on.
    standby: Option<StandbyLease>,
}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// Somebody with a preview pass, on the idle color.
    Preview,
    /// Anybody else.
    Public,
}

/// A request that a watch counts.
struct Watched {
    mode: WatchMode,
    source: RequestSource,
    /// The counter of its cohort, until it has a response.
    cohort: Cell<Option<usize>>,
    is_slow: Cell<bool>,
}

impl Lease {
    /// Takes a lease; `sides` are one worker's routes by [`Side`]. While traffic is split, chance decides the side.
    pub(super) fn new(sides: &[Arc<WorkerRoute>; 2], write: Option<Arc<WriteToken>>, began: Instant) -> Self {
        let [new, old] = sides;
        let (counts, mode) = (&new.counts, new.mode.get());
        counts.begun.add(1);
        let route = match mode {
            Some(mode) if mode.keep_one_in > 0 && !counts.keeps(u64::from(mode.keep_one_in)) => {
                counts.old_begun.add(1);
                old
            }
            Some(_) | None => new,
        };
        let watched = mode.map(|mode| {
            let cohort = counts.watch.cohorts.as_ref().map(|cohorts| cohorts.begin(route.side, began));
            Watched { mode, source: RequestSource::default(), cohort: Cell::new(cohort), is_slow: Cell::new(false) }
        });
        Lease::with(Arc::clone(route), write, began, watched, Audience::Public)
    }

    /// Takes a lease on the idle color for somebody with a pass. It is no evidence, whatever comes of it.
    pub(super) fn preview([_, old]: &[Arc<WorkerRoute>; 2], write: Option<Arc<WriteToken>>, began: Instant) -> Self {
        old.counts.begun.add(1);
        old.counts.old_begun.add(1);
        Lease::with(Arc::clone(old), write, began, None, Audience::Preview)
    }

    fn with(
        route: Arc<WorkerRoute>,
        write: Option<Arc<WriteToken>>,
        began: Instant,
        watched: Option<Watched>,
        audience: Audience,
    ) -> Self {
        route.token.begin();
        route.stats.begun.add(1);
        let (kind, answered) = (Cell::default(), Cell::new(false));
        Lease { route, _write: write, recorded: false, kind, began, answered, watched, audience, standby: None }
    }

    /// Returns the worker's route that the lease was taken from.
    pub fn route(&self) -> &WorkerRoute {
        &self.route
    }

    /// Returns the color that serves this request: the active one, or the other one's part of split traffic.
    pub fn color(&self) -> Color {
        self.route.color
    }

    /// Returns where the request goes; at least one.
    pub fn upstreams(&self) -> &Arc<[Arc<Upstream>]> {
        &self.route.upstreams
    }

    /// Whether some upstream of the color that serves it is not known to be down.
    pub fn is_up(&self) -> bool {
        self.upstreams().iter().any(|upstream| !upstream.is_down())
    }

    /// Whether it is the lease of somebody with a pass, on the idle color.
    pub fn is_preview(&self) -> bool {
        self.audience == Audience::Preview
    }

    /// Whether the color that serves it is being judged, so that the standby may answer for it.
    pub fn has_standby(&self) -> bool {
        self.route.side == Side::New && self.route.mode.is_watched()
    }

    /// Whether a watch wants to know who asks for what; then call [`Lease::name_source`].
    pub fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// Tells the watch who asks for what.
    pub fn name_source(&mut self, source: RequestSource) {
        if let Some(watched) = &mut self.watched {
            watched.source = source;
        }
    }

    /// Returns where a failure is described; `None` where nobody wants to know.
    pub fn failed(&self) -> Option<&FailedRequests> {
        let is_evidence = self.watched.is_some() && !matches!(self.phase().0, Stratum::Old | Stratum::Excluded);
        self.route.failed.as_ref().filter(|_| is_evidence)
    }

    /// Whether its response took longer than one of the limits of its watch.
    pub fn is_slow(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.is_slow.get())
    }

    /// Notes that the head of its response came now.
    pub fn answered(&self) {
        if self.is_preview() || self.answered.replace(true) {
            return;
        }
        let age = self.began.elapsed();
        self.route.stats.answers[answer_bucket(age)].add(1);
        if let (Some(watched), Some(cohorts)) = (&self.watched, &self.route.counts.watch.cohorts) {
            watched.is_slow.set(cohorts.is_slow(age));
        }
        self.leave_cohort(age);
    }

    fn leave_cohort(&self, age: Duration) {
        if let Some(cohort) = self.watched.as_ref().and_then(|watched| watched.cohort.take())
            && let Some(cohorts) = &self.route.counts.watch.cohorts
        {
            cohorts.answered(self.route.side, cohort, age);
        }
    }

    /// Whether the drain deadline has passed: the request must end now.
    pub fn is_cut(&self) -> bool {
        self.drains().any(DrainState::is_cut)
    }

    /// Notes what kind of exchange it turned out to be. Call it once.
    pub fn set_kind(&self, kind: LeaseKind) {
        self.kind.set(kind);
        self.kind_counts().begun.add(1);
    }

    /// Notes that what [`Lease::set_kind`] named is over.
    fn end_kind(&self) {
        if self.kind.get() != LeaseKind::Request {
            self.kind_counts().ended.add(1);
            self.kind.set(LeaseKind::Request);
        }
    }

    /// Returns when it should be closed gracefully, while its color is drained. `turn` is its place among all that are
    /// closed so, from 0 (first) to 1 (last).
    pub fn close_at(&self, turn: f64) -> Option<Instant> {
        self.drains().filter_map(|drain| drain.close_at(turn)).min()
    }

    /// Counts that the proxy closed it gracefully.
    pub fn count_closed(&self) {
        self.kind_counts().closed.add(1);
    }

    /// Counts that it was cut at the drain deadline.
    pub fn count_cut(&self) {
        self.kind_counts().cut.add(1);
    }

    fn kind_counts(&self) -> &KindCounts {
        let stats = self.standby.as_ref().map_or(&self.route.stats, |standby| &standby.stats);
        &stats.ends[self.kind.get() as usize]
    }

    /// The drains of each color that it is in flight on.
    fn drains(&self) -> impl Iterator<Item = &DrainState> {
        let standby = self.standby.as_ref().map(|standby| &standby.token);
        [Some(&self.route.token), standby].into_iter().flatten().map(LeaseToken::drain)
    }

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
    pub fn record_standby(&self, status: Option<u16>, method: Method, duration: Duration) {
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

    /// Records how the request ended; `status` is `None` when none was sent.
    pub fn record(&mut self, outcome: Outcome, status: Option<u16>, method: Method, duration: Duration) {
        if std::mem::replace(&mut self.recorded, true) {
            return;
        }
        self.route.stats.count(status, method, duration);
        let counts = &self.route.counts;
        let is_bad = match outcome {
            Outcome::Good => false,
            Outcome::Bad | Outcome::Refused => true,
            Outcome::Void => return self.count_void(),
        };
        if self.is_preview() {
            if is_bad {
                self.route.stats.errors.add(1);
            }
            return self.count_void();
        }
        let (phase, source) = self.phase();
        counts.watch.add(phase, source, is_bad);
        // An ended request is not a slow one, whatever came of it.
        self.leave_cohort(Duration::ZERO);
        if is_bad {
            self.route.stats.errors.add(1);
            if outcome == Outcome::Refused && self.route.side == Side::New {
                self.route.counts.refused.add(1);
            }
            self.route.failure_bell.notify_one();
        }
    }

    fn count_void(&mut self) {
        self.leave_cohort(Duration::ZERO);
        self.route.counts.void.add(1);
        if self.route.side == Side::Old {
            self.route.counts.old_void.add(1);
        }
    }

    /// Returns how the watch counts it, and whose it is where that matters.
    fn phase(&self) -> (Stratum, Option<RequestSource>) {
        let Some(Watched { mode, source, .. }) = &self.watched else { return (Stratum::Calm, None) };
        match self.route.side {
            Side::Old => (Stratum::Old, None),
            Side::New if source.is_excluded(mode) => (Stratum::Excluded, None),
            Side::New => (mode.phase(), Some(*source)),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.recorded {
            self.count_void();
        }
        self.end_kind();
        self.route.stats.ended.add(1);
        self.route.token.end();
    }
}
