//! One service as the control plane holds it: its machine, its probes, and the tenure of its route.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use super::probe::{Found, Prober};
use super::rehearsal::Rehearsal;
use super::sampler::History;
use crate::config;
use crate::domain::Color;
use crate::domain::cutover::{Cutover, Timing};
use crate::domain::health::{Health, Standing};
use crate::domain::watch::{Counts, Sample};
use crate::status::{Changed, Drained, Refusal, Verdict};
use crate::switch::{ColorStats, Service, ServiceInfo, Tally, Tap, Tenure, Upstream};

/// One upstream and what its probes say.
pub(super) struct Probed {
    pub(super) upstream: Arc<Upstream>,
    pub(super) health: Health,
    /// Runs once the task does, and as long as this lives.
    pub(super) prober: Option<Prober>,
}

/// Somebody who waits for the answer to a flip or rollback.
pub(super) struct Asker {
    pub(super) answer: oneshot::Sender<Result<Changed, Refusal>>,
    /// Whether the answer waits for the drain.
    pub(super) wait: bool,
}

/// A change that is made, and whose drain somebody waits for.
pub(super) struct Waiter {
    /// Of the color before.
    pub(super) epoch: u64,
    pub(super) answer: oneshot::Sender<Result<Changed, Refusal>>,
    pub(super) changed: Changed,
}

/// A route that was replaced and may still hold leases.
pub(super) struct Leaving {
    pub(super) service: String,
    pub(super) tenure: Tenure,
}

/// One service.
pub(super) struct Managed {
    pub(super) config: config::Service,
    pub(super) service: Arc<Service>,
    pub(super) machine: Cutover,
    /// Indexed by [`Color::index`].
    pub(super) upstreams: [Vec<Probed>; 2],
    tenure: Tenure,
    /// Counts under the present epoch of routes that a reload has replaced.
    carried: Tally,
    /// The last tally of `tenure`, for the difference that goes into the history.
    seen: Tally,
    history: [History; 2],
    /// While the idle color is ready and nothing else goes on.
    pub(super) rehearsal: Option<Rehearsal>,
    /// Who waits for the flip that is being saved.
    pub(super) asker: Option<Asker>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) drain_waiters: Vec<oneshot::Sender<Result<Drained, Refusal>>>,
    /// Leases cut, by the epoch they were taken under.
    pub(super) cut: BTreeMap<u64, u64>,
    pub(super) last_drain: Drained,
    pub(super) last_verdict: Option<String>,
    pub(super) verdict: Option<Verdict>,
    /// The config's `active` was changed while nobody was running: it is a flip as soon as its color is known.
    pub(super) config_flip_due: bool,
    /// Nothing of it has been saved yet: neither the color it starts with nor the config's `active`, without which a later
    /// change of it could not be told from none.
    pub(super) is_unsaved: bool,
    /// The last save failed, and this is why.
    pub(super) save_problem: Option<String>,
}

impl Managed {
    /// A service with its first route published and no probe running yet.
    pub(super) fn new(config: config::Service, machine: Cutover, workers: usize, bell: &Arc<Notify>) -> Self {
        let upstreams = Color::BOTH.map(|color| fresh_upstreams(&config, color));
        let stats = Color::BOTH.map(|_| Arc::new(ColorStats::new(workers)));
        let route = upstreams.each_ref().map(|probed| route_of(probed));
        let (service, tenure) = Service::new(
            info(&config, Arc::default()),
            stats,
            Arc::clone(bell),
            machine.active(),
            machine.epoch(),
            route,
            machine.is_watching(),
        );
        Managed {
            config,
            service,
            machine,
            upstreams,
            tenure,
            carried: Tally::default(),
            seen: Tally::default(),
            history: Default::default(),
            rehearsal: None,
            asker: None,
            waiters: Vec::new(),
            drain_waiters: Vec::new(),
            cut: BTreeMap::new(),
            last_drain: Drained { seconds: 0.0, cut: 0 },
            last_verdict: None,
            verdict: None,
            config_flip_due: false,
            is_unsaved: false,
            save_problem: None,
        }
    }

    /// Starts a prober for every upstream that has none; the `n`th of all begins after `delay(n)`.
    pub(super) fn probe(&mut self, found: &mpsc::Sender<Found>, mut delay: impl FnMut() -> Duration) {
        let name: Arc<str> = self.config.name.as_str().into();
        for probed in self.upstreams.iter_mut().flatten().filter(|probed| probed.prober.is_none()) {
            let (id, address) = (probed.upstream.id, probed.upstream.address.clone());
            let health = self.config.health.clone();
            probed.prober = Some(Prober::start(Arc::clone(&name), id, address, health, delay(), found.clone()));
        }
    }

    /// The upstream with that id, and its color.
    pub(super) fn upstream(&mut self, id: usize) -> Option<&mut Probed> {
        self.upstreams.iter_mut().flatten().find(|probed| probed.upstream.id == id)
    }

    /// Whether a flip to `color` may be made: every upstream is ready. The error names the first that is not, and why.
    pub(super) fn flip_gate(&self, color: Color) -> Result<(), String> {
        self.upstreams[color.index()].iter().try_for_each(|probed| {
            let passes = probed.health.passes_gate(self.config.health.rise);
            passes.map_err(|why| format!("{}: {why}", probed.upstream.address))
        })
    }

    /// Whether a rollback to `color` may be made: one upstream is ready, which is better than none.
    pub(super) fn rollback_gate(&self, color: Color) -> Result<(), String> {
        let ready = |probed: &Probed| probed.health.standing() == Standing::Up;
        if self.upstreams[color.index()].iter().any(ready) { Ok(()) } else { self.flip_gate(color) }
    }

    /// Whether `color` could take the traffic back: not every upstream is known to be down.
    pub(super) fn is_up(&self, color: Color) -> bool {
        self.upstreams[color.index()].iter().any(|probed| probed.health.standing() != Standing::Down)
    }

    /// Whether the probes have made up their mind about every upstream of `color`.
    pub(super) fn is_known(&self, color: Color) -> bool {
        self.upstreams[color.index()].iter().all(|probed| probed.health.standing() != Standing::Unknown)
    }

    /// Reads the counters: adds to the history, and returns what the watch wants to know.
    pub(super) fn sample(&mut self, now: Duration) -> Sample {
        let active = self.machine.active();
        let tally = self.tenure.tally();
        let (good, bad) = (tally.good.saturating_sub(self.seen.good), tally.bad.saturating_sub(self.seen.bad));
        self.history[active.index()].add(now, good, bad);
        self.seen = tally;
        let in_flight = tally.begun.saturating_sub(tally.good + tally.bad + tally.void);
        let counts = Counts { good: self.carried.good + tally.good, bad: self.carried.bad + tally.bad, in_flight };
        Sample { counts, old_is_up: self.is_up(active.other()) }
    }

    /// Tells the machine what the active color has shown lately.
    pub(super) fn refresh_history(&mut self, now: Duration) {
        self.sample(now);
        let lately = self.history[self.machine.active().index()].total(now);
        self.machine.set_history(lately);
    }

    /// A release that was taken back is no yardstick for the next one.
    pub(super) fn forget_history(&mut self, color: Color) {
        self.history[color.index()] = History::default();
    }

    /// Publishes `color` under `epoch`, and returns what it replaces.
    pub(super) fn publish(&mut self, color: Color, epoch: u64) -> Tenure {
        let tenure = self.service.publish(
            color,
            epoch,
            self.upstreams.each_ref().map(|probed| route_of(probed)),
            self.machine.is_watching(),
        );
        self.carried = Tally::default();
        self.take_tenure(tenure)
    }

    /// Lets the other color answer for failures while the active one is watched, and only then.
    pub(super) fn set_standby(&self) {
        self.tenure.standby.set_open(self.machine.is_watching());
    }

    fn take_tenure(&mut self, tenure: Tenure) -> Tenure {
        self.seen = Tally::default();
        std::mem::replace(&mut self.tenure, tenure)
    }

    /// Takes a changed configuration in force. Upstreams whose address stays keep their health and their connections,
    /// the counters stay, and so do color and epoch. Returns the route that was replaced, where one was.
    pub(super) fn reconfigure(&mut self, config: config::Service, bell: &Arc<Notify>, now: Duration) -> Option<Tenure> {
        let before = std::mem::replace(&mut self.config, config);
        let probes_anew = before.health != self.config.health;
        for color in Color::BOTH {
            let mut old = std::mem::take(&mut self.upstreams[color.index()]);
            self.upstreams[color.index()] = fresh_upstreams(&self.config, color);
            for probed in &mut self.upstreams[color.index()] {
                if let Some(at) = old.iter().position(|old| old.upstream.address == probed.upstream.address) {
                    *probed = old.swap_remove(at);
                    probed.prober.take_if(|_| probes_anew);
                }
            }
        }
        self.machine.set_timing(timing(&self.config));
        let (active, epoch) = (self.machine.active(), self.machine.epoch());
        let moved = (0..2).any(|color| before.colors[color].upstreams != self.config.colors[color].upstreams);
        let same_info = before.upstream == self.config.upstream && before.replay == self.config.replay;
        if !moved && same_info {
            return None;
        }
        let last = self.sample(now).counts;
        (self.carried.good, self.carried.bad) = (last.good, last.bad);
        let route = self.upstreams.each_ref().map(|probed| route_of(probed));
        let watched = self.machine.is_watching();
        let tenure = if same_info {
            self.service.publish(active, epoch, route, watched)
        } else {
            let (stats, tap) = (self.service.stats.clone(), Arc::clone(&self.service.info.tap));
            let (service, tenure) =
                Service::new(info(&self.config, tap), stats, Arc::clone(bell), active, epoch, route, watched);
            self.service = service;
            tenure
        };
        Some(self.take_tenure(tenure))
    }
}

/// What the machine needs of the config.
pub(super) fn timing(config: &config::Service) -> Timing {
    Timing { watch: config.watch.window, drain: config.drain.timeout }
}

fn info(config: &config::Service, tap: Arc<Tap>) -> Arc<ServiceInfo> {
    Arc::new(ServiceInfo { name: config.name.clone(), upstream: config.upstream.clone(), replay: config.replay, tap })
}

fn fresh_upstreams(config: &config::Service, color: Color) -> Vec<Probed> {
    let fresh = |address: &config::Address| Probed {
        upstream: Upstream::new(address.clone()),
        health: Health::default(),
        prober: None,
    };
    config.colors[color.index()].upstreams.iter().map(fresh).collect()
}

pub(super) fn route_of(upstreams: &[Probed]) -> Arc<[Arc<Upstream>]> {
    upstreams.iter().map(|probed| Arc::clone(&probed.upstream)).collect()
}
