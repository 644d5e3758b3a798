//! The upstreams of both colors of one service: their probers, what the probes say, and the gates made of that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config;
use crate::control::service::probe::{ProbeReport, Prober};
use crate::domain::Color;
use crate::domain::health::{ProbeOutcome, Readiness, UpstreamHealth, UpstreamNotReady};
use crate::routing::Upstream;

/// The upstreams of one color, as a route has them.
pub(in crate::control) type SharedUpstreams = Arc<[Arc<Upstream>]>;

/// One upstream and what its probes say.
pub(in crate::control) struct ProbedUpstream {
    pub(in crate::control) upstream: Arc<Upstream>,
    health: UpstreamHealth,
    /// The prober starts once the control task runs, and ends with this.
    prober: Option<Prober>,
}

impl ProbedUpstream {
    fn unprobed(address: &config::Address) -> Self {
        let upstream = Upstream::new(address.clone());
        ProbedUpstream { upstream, health: UpstreamHealth::default(), prober: None }
    }

    pub(in crate::control) fn health(&self) -> &UpstreamHealth {
        &self.health
    }
}

/// A change of one upstream's readiness, for the event stream.
pub(in crate::control) struct ReadinessChange {
    pub(in crate::control) address: String,
    pub(in crate::control) is_ready: bool,
    /// Why it is not ready.
    pub(in crate::control) why: String,
}

/// The upstreams of a service, indexed by [`Color::index`].
pub(in crate::control) struct Upstreams {
    colors: [Vec<ProbedUpstream>; 2],
    /// So many good probes in a row make an upstream ready.
    rise: u32,
    /// So many failed probes in a row make an upstream not ready.
    fall: u32,
}

impl Upstreams {
    /// The upstreams that the config names, none of them probed yet.
    pub(in crate::control) fn new(config: &config::Service) -> Self {
        let unprobed = |color: &config::ColorConfig| color.upstreams.iter().map(ProbedUpstream::unprobed).collect();
        let colors = config.colors.each_ref().map(unprobed);
        Upstreams { colors, rise: config.health.rise, fall: config.health.fall }
    }

    pub(in crate::control) fn of(&self, color: Color) -> &[ProbedUpstream] {
        &self.colors[color.index()]
    }

    /// The upstreams of `color` as a route has them.
    pub(in crate::control) fn shared(&self, color: Color) -> SharedUpstreams {
        self.of(color).iter().map(|probed| Arc::clone(&probed.upstream)).collect()
    }

    /// Starts a prober for every upstream that has none. The first probe of each begins after `delay()`.
    pub(in crate::control) fn start_probers(
        &mut self,
        config: &config::Service,
        reports: &mpsc::Sender<ProbeReport>,
        mut delay: impl FnMut() -> Duration,
    ) {
        let name: Arc<str> = config.name.as_str().into();
        for probed in self.colors.iter_mut().flatten().filter(|probed| probed.prober.is_none()) {
            let (id, address) = (probed.upstream.id, probed.upstream.address.clone());
            let prober = Prober::start(Arc::clone(&name), id, address, config.health.clone(), delay(), reports.clone());
            probed.prober = Some(prober);
        }
    }

    /// Takes in what one probe found. Says when that has changed whether the upstream is ready; a probe of an upstream
    /// that a reload has removed changes nothing.
    pub(in crate::control) fn on_probe(&mut self, upstream: usize, outcome: ProbeOutcome) -> Option<ReadinessChange> {
        let probed = self.colors.iter_mut().flatten().find(|probed| probed.upstream.id == upstream)?;
        let readiness = probed.health.on(outcome, self.rise, self.fall)?;
        probed.upstream.set_down(readiness == Readiness::Down);
        Some(ReadinessChange {
            address: probed.upstream.address.to_string(),
            is_ready: readiness == Readiness::Up,
            why: probed.health.reason().unwrap_or_default().to_owned(),
        })
    }

    /// Whether a flip to `color` may rely on it: every upstream is ready.
    ///
    /// # Errors
    /// The first upstream that is not ready.
    pub(in crate::control) fn flip_gate(&self, color: Color) -> Result<(), UpstreamNotReady> {
        self.of(color).iter().try_for_each(|probed| {
            let passes = probed.health.passes_gate(self.rise);
            passes.map_err(|why| UpstreamNotReady { address: probed.upstream.address.to_string(), why })
        })
    }

    /// Whether a rollback may go to `color`: one upstream is ready, which is better than none.
    ///
    /// # Errors
    /// The first upstream that is not ready.
    pub(in crate::control) fn rollback_gate(&self, color: Color) -> Result<(), UpstreamNotReady> {
        if self.has_ready(color) { Ok(()) } else { self.flip_gate(color) }
    }

    /// Whether some upstream of `color` is ready.
    pub(in crate::control) fn has_ready(&self, color: Color) -> bool {
        self.of(color).iter().any(|probed| probed.health.readiness() == Readiness::Up)
    }

    /// Whether some upstream of `color` is not known to be down.
    pub(in crate::control) fn may_be_up(&self, color: Color) -> bool {
        self.of(color).iter().any(|probed| probed.health.readiness() != Readiness::Down)
    }

    /// Whether there have been enough probes of every upstream of `color` to know.
    pub(in crate::control) fn is_known(&self, color: Color) -> bool {
        self.of(color).iter().all(|probed| probed.health.readiness() != Readiness::Unknown)
    }

    /// Takes a changed config in force. An upstream whose address stays keeps its health and its connections; its
    /// prober starts anew where the probes themselves have changed.
    pub(in crate::control) fn reconfigure(&mut self, before: &config::Service, config: &config::Service) {
        let probes_anew = before.health != config.health;
        let old = std::mem::replace(self, Upstreams::new(config));
        for (new, mut old) in self.colors.iter_mut().zip(old.colors) {
            for probed in new {
                if let Some(at) = old.iter().position(|old| old.upstream.address == probed.upstream.address) {
                    *probed = old.swap_remove(at);
                    probed.prober.take_if(|_| probes_anew);
                }
            }
        }
    }

    /// What the probes know, by address, for the process that takes this one's place.
    pub(in crate::control) fn healths(&self) -> BTreeMap<String, UpstreamHealth> {
        let health = |probed: &ProbedUpstream| (probed.upstream.address.to_string(), probed.health.clone());
        self.colors.iter().flatten().map(health).collect()
    }

    /// Goes on with what the probes of the process before this one know: without it there would be no way back until
    /// probes of our own have found it out again.
    pub(in crate::control) fn inherit(&mut self, mut healths: BTreeMap<String, UpstreamHealth>) {
        for probed in self.colors.iter_mut().flatten() {
            if let Some(health) = healths.remove(&probed.upstream.address.to_string()) {
                probed.upstream.set_down(health.readiness() == Readiness::Down);
                probed.health = health;
            }
        }
    }
}
