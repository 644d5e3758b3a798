//! A service as both planes hold it, and **the one atomic store that a flip is**: [`Service::publish`].
//!
//! A worker that loads a route and *then* counts itself in can be overtaken by a flip and a drain, and its request
//! arrives at a stopped upstream. Here the count *is* the reference. A [`Route`] holds one [`WorkerRoute`] to each
//! color per worker; a lease is a clone of the worker's route, taken while the arc-swap guard still protects what was
//! published; and "drained" is the moment the last clone of the last route that leads to a color is gone. There is no
//! moment in between.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};

use crate::domain::Color;
use crate::domain::watch::WatchMode;
use crate::routing::epoch_counts::EpochCounts;
use crate::routing::freeze_queue::WriteToken;
use crate::routing::{
    ColorStats, FailedRequests, FreezeQueue, ModeCell, Route, RouteHandle, ServiceInfo, Side, SlowLimits, Standby,
    TrackerHandle, Upstream, WorkerRoute,
};

/// A service as the data plane sees it.
pub struct Service {
    /// Name and time-outs.
    pub info: Arc<ServiceInfo>,
    /// The current route. Publish with [`Service::publish`], and never cache what it holds.
    pub route: ArcSwap<Route>,
    /// Indexed by [`Color::index`]; survives reloads.
    pub stats: [Arc<ColorStats>; 2],
    failure_bell: Arc<Notify>,
}

impl Service {
    /// Makes a service with its first route. `failure_bell` is rung at every [`crate::routing::Outcome::Bad`].
    pub fn new(
        info: Arc<ServiceInfo>,
        stats: [Arc<ColorStats>; 2],
        failure_bell: Arc<Notify>,
        spec: RouteSpec,
    ) -> (Arc<Self>, RouteHandle) {
        let (route, handle) = make_route(&info, &stats, &failure_bell, spec);
        (Arc::new(Service { info, route: ArcSwap::from_pointee(route), stats, failure_bell }), handle)
    }

    /// Makes `spec.active` take every request that begins from now on: one atomic store.
    ///
    /// The handle of the route before it is over ([`RouteHandle::poll_over`]) when that route's last lease is.
    pub fn publish(&self, spec: RouteSpec) -> RouteHandle {
        let (route, handle) = make_route(&self.info, &self.stats, &self.failure_bell, spec);
        self.route.store(Arc::new(route));
        handle
    }
}

/// The parts of a route.
pub struct RouteSpec {
    /// The color that takes new requests.
    pub active: Color,
    /// The epoch under which requests are served.
    pub epoch: u64,
    /// Indexed by [`Color::index`].
    pub upstreams: [Arc<[Arc<Upstream>]>; 2],
    /// The lease trackers of the colors, indexed by [`Color::index`].
    pub trackers: [TrackerHandle; 2],
    /// In force from the first request on, where the active color is watched.
    pub watch: Option<WatchSetup>,
    /// The queue in which requests wait instead of being leased, while a freeze is in force.
    pub freeze: Option<Arc<FreezeQueue>>,
}

/// Says how a color is watched from its first request on.
#[derive(Clone, Debug)]
pub struct WatchSetup {
    /// Says how requests are counted.
    pub mode: WatchMode,
    /// From which age on responses are slow.
    pub slow: Option<SlowLimits>,
    /// The list in which the first failures are described.
    pub failed: FailedRequests,
}

fn make_route(
    info: &Arc<ServiceInfo>,
    stats: &[Arc<ColorStats>; 2],
    failure_bell: &Arc<Notify>,
    spec: RouteSpec,
) -> (Route, RouteHandle) {
    let RouteSpec { active, epoch, upstreams, trackers, watch, freeze } = spec;
    let mode = Arc::new(ModeCell::new(watch.as_ref().map(|watch| watch.mode)));
    let slow = watch.as_ref().and_then(|watch| watch.slow);
    let failed = watch.map(|watch| watch.failed);
    let (alive, over) = mpsc::channel(1);
    let ((every, all_ended), (writing, writes_ended)) = (watch::channel(()), watch::channel(()));
    let workers = stats[active.index()].shards.len();
    let counts: Box<[Arc<EpochCounts>]> = (0..workers).map(|_| Arc::new(EpochCounts::new(slow))).collect();
    let worker_route = |worker: usize, side: Side| {
        let color = if side == Side::New { active } else { active.other() };
        let upstreams = |color: Color| Arc::clone(&upstreams[color.index()]);
        let stats = |color: Color| Arc::clone(&stats[color.index()].shards[worker]);
        let other = color.other();
        let token = trackers[other.index()].weak_token(worker);
        Arc::new(WorkerRoute {
            service: Arc::clone(info),
            color,
            epoch,
            upstreams: upstreams(color),
            stats: stats(color),
            side,
            token: trackers[color.index()].token(worker),
            standby: Standby { color: other, upstreams: upstreams(other), stats: stats(other), token },
            mode: Arc::clone(&mode),
            counts: Arc::clone(&counts[worker]),
            failure_bell: Arc::clone(failure_bell),
            failed: failed.clone(),
            _over: alive.clone(),
            _ended: every.clone(),
        })
    };
    let by_worker = (0..workers).map(|worker| [Side::New, Side::Old].map(|side| worker_route(worker, side))).collect();
    let writes = (0..workers).map(|_| Arc::new(WriteToken(writing.clone()))).collect();
    let handle = RouteHandle { color: active, epoch, counts, mode, slow, over, all_ended, writes_ended };
    (Route { active, epoch, workers: by_worker, writes, freeze }, handle)
}
