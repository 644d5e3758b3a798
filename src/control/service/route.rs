//! The published route of one service, and what counts its leases.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config;
use crate::control::service::upstreams::SharedUpstreams;
use crate::domain::Color;
use crate::domain::watch::WatchMode;
use crate::routing::preview_token::PreviewKey;
use crate::routing::{
    ColorStats, FreezeQueue, LeaseKind, LeaseTracker, PreviewGate, RehearsalTap, RouteHandle, RouteSpec, Service,
    ServiceInfo, SkewShield, WatchSetup,
};

/// What a route leads to and how its requests are treated, apart from who counts them.
pub(in crate::control) struct RouteContent {
    pub(in crate::control) active: Color,
    pub(in crate::control) epoch: u64,
    /// Indexed by [`Color::index`].
    pub(in crate::control) upstreams: [SharedUpstreams; 2],
    /// How the active color is watched from its first request on.
    pub(in crate::control) watch: Option<WatchSetup>,
    /// Where requests wait while a freeze is in force.
    pub(in crate::control) freeze: Option<Arc<FreezeQueue>>,
}

/// The route in force, and the one place from which the control plane publishes another.
pub(in crate::control) struct PublishedRoute {
    service: Arc<Service>,
    handle: RouteHandle,
    /// Indexed by [`Color::index`]. One outlasts the routes to its color, until that color is drained.
    trackers: [LeaseTracker; 2],
    /// Passes to the idle color are signed with it.
    preview_key: Arc<PreviewKey>,
    /// Rung by the data plane when a request of a watched color fails.
    failure_bell: Arc<Notify>,
}

impl PublishedRoute {
    /// Publishes the first route of a service.
    pub(in crate::control) fn new(
        config: &config::Service,
        workers: usize,
        preview_key: Arc<PreviewKey>,
        failure_bell: Arc<Notify>,
        content: RouteContent,
    ) -> Self {
        let stats = Color::BOTH.map(|_| Arc::new(ColorStats::new(workers)));
        let trackers = Color::BOTH.map(|_| LeaseTracker::new(workers));
        let info = info(config, Arc::default(), &preview_key);
        let (service, handle) = Service::new(info, stats, Arc::clone(&failure_bell), spec(content, &trackers));
        PublishedRoute { service, handle, trackers, preview_key, failure_bell }
    }

    /// Publishes another route, and returns the handle of the one that it replaces.
    #[must_use = "a freeze waits for the requests of the replaced route"]
    pub(in crate::control) fn publish(&mut self, content: RouteContent) -> RouteHandle {
        let handle = self.service.publish(spec(content, &self.trackers));
        std::mem::replace(&mut self.handle, handle)
    }

    /// As [`PublishedRoute::publish`], with what the data plane needs of a changed config. Counters go on; the table of
    /// hosts has to be published after it, for it still leads to the service before.
    #[must_use = "a freeze waits for the requests of the replaced route"]
    pub(in crate::control) fn publish_reconfigured(
        &mut self,
        config: &config::Service,
        content: RouteContent,
    ) -> RouteHandle {
        let (stats, tap) = (self.service.stats.clone(), Arc::clone(&self.service.info.tap));
        let info = info(config, tap, &self.preview_key);
        let content = spec(content, &self.trackers);
        let (service, handle) = Service::new(info, stats, Arc::clone(&self.failure_bell), content);
        self.service = service;
        std::mem::replace(&mut self.handle, handle)
    }

    /// Begins another generation of leases of `color`, and returns the present one: it is to be drained once a route
    /// with the new generation is published.
    #[must_use = "the leases of the generation before are to be drained"]
    pub(in crate::control) fn renew_tracker(&mut self, color: Color) -> LeaseTracker {
        let workers = self.stats(color).shards.len();
        std::mem::replace(&mut self.trackers[color.index()], LeaseTracker::new(workers))
    }

    /// The service as the data plane has it.
    pub(in crate::control) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    pub(in crate::control) fn handle(&self) -> &RouteHandle {
        &self.handle
    }

    pub(in crate::control) fn stats(&self, color: Color) -> &ColorStats {
        &self.service.stats[color.index()]
    }

    /// Sends and counts requests as `mode` says from now on.
    pub(in crate::control) fn set_mode(&self, mode: Option<WatchMode>) {
        self.handle.set_mode(mode);
    }

    /// Whether no request is in flight on `color` now.
    pub(in crate::control) fn is_empty(&self, color: Color) -> bool {
        self.trackers[color.index()].in_flight() == 0
    }

    /// Whether something is in flight on `color` that may have no end of its own.
    pub(in crate::control) fn has_long_lived(&self, color: Color) -> bool {
        LeaseKind::ALL.into_iter().any(|kind| self.stats(color).open(kind) > 0)
    }
}

fn spec(content: RouteContent, trackers: &[LeaseTracker; 2]) -> RouteSpec {
    let RouteContent { active, epoch, upstreams, watch, freeze } = content;
    RouteSpec { active, epoch, upstreams, trackers: trackers.each_ref().map(LeaseTracker::handle), watch, freeze }
}

fn info(config: &config::Service, tap: Arc<RehearsalTap>, key: &Arc<PreviewKey>) -> Arc<ServiceInfo> {
    Arc::new(ServiceInfo {
        name: config.name.clone(),
        upstream: config.upstream.clone(),
        replay: config.replay,
        tap,
        preview: PreviewGate::new(config, key),
        shield: SkewShield::new(&config.skew_shield),
    })
}
