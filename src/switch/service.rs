//! A service as both planes hold it, and how its route is made and published.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};

use super::hold::WriteToken;
use super::{
    ColorStats, Counts, Drain, FailedRequests, Hold, Judging, Lane, Route, ServiceInfo, SlowLimits, Standby, Tenure,
    Upstream,
};
use crate::domain::Color;
use crate::domain::watch::Mode;

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
    /// A service with its first route. `failure_bell` is rung at every [`super::Outcome::Bad`].
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
    /// The tenure of the route before it ends ([`Tenure::drained`]) when its last lease does.
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
    /// In force from the first request on.
    pub trial: Option<Trial>,
    /// Where requests wait instead of being leased, while a freeze is in force.
    pub hold: Option<Arc<Hold>>,
}

/// That a color is watched from its first request on.
#[derive(Clone, Debug)]
pub struct Trial {
    /// How requests are counted.
    pub mode: Mode,
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
    let Terms { active, epoch, upstreams, trial, hold } = terms;
    let idle = active.other();
    let standby = Standby::new(idle, Arc::clone(&upstreams[idle.index()]), trial.is_some());
    let standby = Arc::new(standby);
    let judging = Arc::new(Judging::new(trial.as_ref().map(|trial| trial.mode)));
    let slow = trial.as_ref().and_then(|trial| trial.slow);
    let failed = trial.map(|trial| trial.failed);
    let upstreams = &upstreams[active.index()];
    let (alive, drained) = mpsc::channel(1);
    let drain = Arc::<Drain>::default();
    let ((every, all_ended), (writing, writes_ended)) = (watch::channel(()), watch::channel(()));
    let shards = stats[active.index()].shards.iter().zip(&stats[idle.index()].shards);
    let lanes: Box<[Arc<Lane>]> = shards
        .map(|(shard, standby_shard)| {
            Arc::new(Lane {
                service: Arc::clone(info),
                color: active,
                epoch,
                upstreams: Arc::clone(upstreams),
                stats: Arc::clone(shard),
                standby: Arc::clone(&standby),
                standby_stats: Arc::clone(standby_shard),
                judging: Arc::clone(&judging),
                counts: Arc::new(Counts::new(slow)),
                drain: Arc::clone(&drain),
                failure_bell: Arc::clone(failure_bell),
                failed: failed.clone(),
                _drained: alive.clone(),
                _ended: every.clone(),
            })
        })
        .collect();
    let tenure = Tenure {
        color: active,
        epoch,
        standby,
        counts: lanes.iter().map(|lane| Arc::clone(&lane.counts)).collect(),
        judging,
        slow,
        drain,
        drained,
        all_ended,
        writes_ended,
    };
    let writes = lanes.iter().map(|_| Arc::new(WriteToken(writing.clone()))).collect();
    (Route { active, epoch, lanes, writes, hold }, tenure)
}
