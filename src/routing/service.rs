//! A service as both planes hold it, and how its route is made and published.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};

use crate::domain::Color;
use crate::domain::watch::WatchMode;
use crate::routing::freeze_queue::WriteToken;
use crate::routing::{
    ColorStats, Counts, FailedRequests, Hold, Judging, Lane, Other, Route, ServiceInfo, Side, SlowLimits, Tenure,
    Upstream, WayIn,
};

/// A service as the data plane sees it.
pub struct Service {
    /// Name and time-outs.
    pub info: Arc<ServiceInfo>,
    /// Who takes its requests. Publish with [`Service::publish`], never cache what it holds.
    pub route: ArcSwap<Route>,
    /// Indexed by [`Color::index`]; survives reloads.
    pub stats: [Arc<ColorStats>; 2],
    failure_bell: Arc<Notify>,
}

impl Service {
    /// A service with its first route. `failure_bell` is rung at every [`crate::routing::Outcome::Bad`].
    pub fn new(
        info: Arc<ServiceInfo>,
        stats: [Arc<ColorStats>; 2],
        failure_bell: Arc<Notify>,
        terms: Terms,
    ) -> (Arc<Self>, Tenure) {
        let (route, tenure) = make_route(&info, &stats, &failure_bell, terms);
        (Arc::new(Service { info, route: ArcSwap::from_pointee(route), stats, failure_bell }), tenure)
    }

    /// Makes `terms.active` take every request that begins from now on: one atomic store.
    ///
    /// The tenure of the route before it ends ([`Tenure::poll_over`]) when its last lease does.
    pub fn publish(&self, terms: Terms) -> Tenure {
        let (route, tenure) = make_route(&self.info, &self.stats, &self.failure_bell, terms);
        self.route.store(Arc::new(route));
        tenure
    }
}

/// What a route is made of.
pub struct Terms {
    /// The color that takes new requests.
    pub active: Color,
    /// Names who served a request.
    pub epoch: u64,
    /// Indexed by [`Color::index`].
    pub upstreams: [Arc<[Arc<Upstream>]>; 2],
    /// The stays that it leads to, indexed by [`Color::index`].
    pub stays: [WayIn; 2],
    /// In force from the first request on.
    pub trial: Option<Trial>,
    /// Where requests wait instead of being leased, while a freeze is in force.
    pub hold: Option<Arc<Hold>>,
}

/// That a color is watched from its first request on.
#[derive(Clone, Debug)]
pub struct Trial {
    /// How requests are counted.
    pub mode: WatchMode,
    /// From when on answers are slow.
    pub slow: Option<SlowLimits>,
    /// Where the first failures are described.
    pub failed: FailedRequests,
}

fn make_route(
    info: &Arc<ServiceInfo>,
    stats: &[Arc<ColorStats>; 2],
    failure_bell: &Arc<Notify>,
    terms: Terms,
) -> (Route, Tenure) {
    let Terms { active, epoch, upstreams, stays, trial, hold } = terms;
    let judging = Arc::new(Judging::new(trial.as_ref().map(|trial| trial.mode)));
    let slow = trial.as_ref().and_then(|trial| trial.slow);
    let failed = trial.map(|trial| trial.failed);
    let (alive, over) = mpsc::channel(1);
    let ((every, all_ended), (writing, writes_ended)) = (watch::channel(()), watch::channel(()));
    let workers = stats[active.index()].shards.len();
    let counts: Box<[Arc<Counts>]> = (0..workers).map(|_| Arc::new(Counts::new(slow))).collect();
    let lane = |worker: usize, side: Side| {
        let color = if side == Side::New { active } else { active.other() };
        let upstreams = |color: Color| Arc::clone(&upstreams[color.index()]);
        let stats = |color: Color| Arc::clone(&stats[color.index()].shards[worker]);
        let other = color.other();
        let seat = stays[other.index()].spare_seat(worker);
        Arc::new(Lane {
            service: Arc::clone(info),
            color,
            epoch,
            upstreams: upstreams(color),
            stats: stats(color),
            side,
            seat: stays[color.index()].seat(worker),
            other: Other { color: other, upstreams: upstreams(other), stats: stats(other), seat },
            judging: Arc::clone(&judging),
            counts: Arc::clone(&counts[worker]),
            failure_bell: Arc::clone(failure_bell),
            failed: failed.clone(),
            _over: alive.clone(),
            _ended: every.clone(),
        })
    };
    let lanes = (0..workers).map(|worker| [Side::New, Side::Old].map(|side| lane(worker, side))).collect();
    let writes = (0..workers).map(|_| Arc::new(WriteToken(writing.clone()))).collect();
    let tenure = Tenure { color: active, epoch, counts, judging, slow, over, all_ended, writes_ended };
    (Route { active, epoch, lanes, writes, hold }, tenure)
}
