//! One service as the control plane holds it: its machine, its probes, and the handle of its route.

pub mod probe;
pub mod rehearsal;
pub mod sampler;
pub mod status;
pub mod synthetic;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};

use crate::api::status::{Changed, Drained, Refusal, Replays, Verdict, WatchNote};
use crate::config;
use crate::control::service::probe::{ProbeReport, Prober};
use crate::control::service::rehearsal::Rehearsal;
use crate::control::service::sampler::{Cohorts, History};
use crate::control::service::synthetic::{Asked, Synthetic};
use crate::control::task::evidence::FailureLog;
use crate::control::task::freeze::FreezeState;
use crate::control::task::upgrade::ServiceSnapshot;
use crate::domain::Color;
use crate::domain::cutover::{Cutover, Phase, Timing};
use crate::domain::health::{Readiness, UpstreamHealth};
use crate::domain::verdict::{DetectorConfig, FailureBaseline};
use crate::domain::watch::{self, Baseline, WatchConfig, WatchSample};
use crate::os::clock;
use crate::routing::preview_token::PreviewKey;
use crate::routing::{
    ColorStats, Draining, LeaseKind, LeaseTracker, PreviewGate, RehearsalTap, RouteHandle, RouteSpec, Service,
    ServiceInfo, SkewShield, SlowLimits, Tally, Upstream, WatchSetup,
};

/// Notes of a watch that are kept.
const NOTES_MAX: usize = 20;

/// One upstream and what its probes say.
pub(super) struct ProbedUpstream {
    pub(super) upstream: Arc<Upstream>,
    pub(super) health: UpstreamHealth,
    /// Runs once the task does, and as long as this lives.
    pub(super) prober: Option<Prober>,
}

/// Somebody who waits for the answer to a flip or rollback.
pub(super) struct ChangeReply {
    pub(super) answer: oneshot::Sender<Result<Changed, Refusal>>,
    /// Whether the answer waits for the drain.
    pub(super) wait: bool,
}

/// A change that is made, and whose drain somebody waits for.
pub(super) struct DrainReply {
    /// Of the color before.
    pub(super) epoch: u64,
    pub(super) answer: oneshot::Sender<Result<Changed, Refusal>>,
    pub(super) changed: Changed,
}

/// A route that was replaced and may still hold leases: a freeze waits for them.
pub(super) struct ReplacedRoute {
    pub(super) service: String,
    pub(super) route_handle: RouteHandle,
}

/// One service.
pub(super) struct ServiceState {
    pub(super) config: config::Service,
    pub(super) service: Arc<Service>,
    pub(super) machine: Cutover,
    /// What passes to the idle color are made with.
    key: Arc<PreviewKey>,
    /// Indexed by [`Color::index`].
    pub(super) upstreams: [Vec<ProbedUpstream>; 2],
    route_handle: RouteHandle,
    /// Indexed by [`Color::index`].
    trackers: [LeaseTracker; 2],
    /// Counts under the present epoch of routes that a reload has replaced.
    carried: Tally,
    /// The last tally of the epoch before this one.
    judged: Tally,
    cohorts: Cohorts,
    /// The last tally of the route, for the difference that goes into the history.
    seen: Tally,
    history: [History; 2],
    /// From when on the watched color's answers are slow, and what that evidence is divided by; by quantile.
    slow: [Option<(Duration, f64)>; 3],
    /// Which requests are held, and where.
    pub(super) frost: FreezeState,
    /// While the idle color is ready and nothing else goes on.
    pub(super) rehearsal: Option<Rehearsal>,
    /// While a color is watched, where that is configured.
    pub(super) synthetic: Option<Synthetic>,
    /// Of the watched epoch.
    pub(super) asked: Arc<Mutex<Asked>>,
    /// While a color is watched.
    pub(super) failures: Option<FailureLog>,
    /// Of the watched color, when it was flipped to.
    replays_before: Replays,
    /// Of the watched epoch.
    pub(super) notes: Vec<WatchNote>,
    /// When the flip to the watched color was made; `None` where that was before our start.
    pub(super) flipped: Option<String>,
    /// The file that says why traffic was taken back, until somebody flips.
    pub(super) evidence_file: Option<String>,
    /// Why the last such file was not written.
    pub(super) evidence_problem: Option<String>,
    /// Who waits for the flip that is being saved.
    pub(super) asker: Option<ChangeReply>,
    pub(super) waiters: Vec<DrainReply>,
    /// Who waits for the idle color to be empty.
    pub(super) drain_waiters: Vec<oneshot::Sender<Result<Drained, Refusal>>>,
    pub(super) last_drain: Drained,
    pub(super) last_verdict: Option<String>,
    pub(super) verdict: Option<Verdict>,
    /// By whom the config's `active` was changed, while that is still to become a flip: the probes do not know its
    /// color yet.
    pub(super) config_flip_due: Option<String>,
    /// Nothing of it has been saved yet: neither the color it starts with nor the config's `active`, without which a
    /// later change of it could not be told from none.
    pub(super) is_unsaved: bool,
    /// The last save failed, and this is why.
    pub(super) save_problem: Option<String>,
}

impl ServiceState {
    /// A service with its first route published and no probe running yet.
    pub(super) fn new(
        config: config::Service,
        machine: Cutover,
        workers: usize,
        bell: &Arc<Notify>,
        key: Arc<PreviewKey>,
    ) -> Self {
        let upstreams = Color::BOTH.map(|color| fresh_upstreams(&config, color));
        let stats = Color::BOTH.map(|_| Arc::new(ColorStats::new(workers)));
        let trackers = Color::BOTH.map(|_| LeaseTracker::new(workers));
        let failures = machine.mode().map(|_| FailureLog::new());
        let watch = machine.mode().zip(failures.as_ref());
        let watch = watch.map(|(mode, failures)| WatchSetup { mode, slow: None, failed: failures.place.clone() });
        let terms = RouteSpec {
            active: machine.active(),
            epoch: machine.epoch(),
            upstreams: upstreams.each_ref().map(|probed| route_of(probed)),
            trackers: trackers.each_ref().map(LeaseTracker::handle),
            watch,
            freeze: None,
        };
        let (service, route_handle) = Service::new(info(&config, Arc::default(), &key), stats, Arc::clone(bell), terms);
        ServiceState {
            config,
            service,
            machine,
            key,
            upstreams,
            route_handle,
            trackers,
            carried: Tally::default(),
            judged: Tally::default(),
            cohorts: Cohorts::default(),
            seen: Tally::default(),
            history: Default::default(),
            slow: [None; 3],
            frost: FreezeState::default(),
            rehearsal: None,
            synthetic: None,
            asked: Arc::default(),
            failures,
            replays_before: Replays::default(),
            notes: Vec::new(),
            flipped: None,
            evidence_file: None,
            evidence_problem: None,
            asker: None,
            waiters: Vec::new(),
            drain_waiters: Vec::new(),
            last_drain: Drained { seconds: 0.0, cut: 0 },
            last_verdict: None,
            verdict: None,
            config_flip_due: None,
            is_unsaved: false,
            save_problem: None,
        }
    }

    /// Goes on where the process before this one stands, whose counters are taken over. Called before the first
    /// request.
    ///
    /// # Errors
    /// A sentence: it stands elsewhere than the state folder says.
    pub(super) fn inherit(&mut self, mut left: ServiceSnapshot) -> Result<(), String> {
        let machine = Cutover::inherit(left.cutover, timing(&self.config), clock::now());
        let stands = |machine: &Cutover| (machine.active(), machine.epoch());
        if stands(&machine) != stands(&self.machine) {
            let ((active, epoch), (saved, at)) = (stands(&machine), stands(&self.machine));
            return Err(format!("{active} is active there, epoch {epoch}, and {saved} was saved, epoch {at}"));
        }
        self.machine = machine;
        for probed in self.upstreams.iter_mut().flatten() {
            if let Some(health) = left.health.remove(&probed.upstream.address.to_string()) {
                probed.upstream.set_down(health.standing() == Readiness::Down);
                probed.health = health;
            }
        }
        (self.history, self.slow) = (left.history, left.slow);
        (self.replays_before, self.notes, self.flipped) = (left.replays_before, left.notes, left.flipped);
        (self.last_drain, self.last_verdict, self.verdict) = (left.last_drain, left.last_verdict, left.verdict);
        let terms = self.terms(self.machine.active(), self.machine.epoch());
        let route_handle = self.service.publish(terms);
        drop(self.replace_handle(route_handle)); // nobody has used it
        (self.carried, self.judged) = (left.tally, left.judged);
        Ok(())
    }

    /// What another process needs to go on where this one stands.
    pub(super) fn leave(&mut self, now: Duration) -> ServiceSnapshot {
        self.sample(now);
        self.note_latency(now);
        // What is in flight here is no evidence there.
        let mut tally = self.tally().without_in_flight();
        let asked = self.asked().0;
        let begun = asked.new_color().all() + asked.of(watch::Stratum::Old).all();
        tally += &Tally { begun, old_begun: asked.of(watch::Stratum::Old).all(), seen: asked, ..Tally::default() };
        let health = |probed: &ProbedUpstream| (probed.upstream.address.to_string(), probed.health.clone());
        ServiceSnapshot {
            cutover: self.machine.snapshot(),
            health: self.upstreams.iter().flatten().map(health).collect(),
            tally,
            judged: self.judged,
            history: self.history.clone(),
            slow: self.slow,
            replays_before: self.replays_before,
            notes: self.notes.clone(),
            flipped: self.flipped.clone(),
            last_drain: self.last_drain,
            last_verdict: self.last_verdict.clone(),
            verdict: self.verdict,
        }
    }

    /// Starts a prober for every upstream that has none; the `n`th of all begins after `delay(n)`.
    pub(super) fn probe(&mut self, found: &mpsc::Sender<ProbeReport>, mut delay: impl FnMut() -> Duration) {
        let name: Arc<str> = self.config.name.as_str().into();
        for probed in self.upstreams.iter_mut().flatten().filter(|probed| probed.prober.is_none()) {
            let (id, address) = (probed.upstream.id, probed.upstream.address.clone());
            let health = self.config.health.clone();
            probed.prober = Some(Prober::start(Arc::clone(&name), id, address, health, delay(), found.clone()));
        }
    }

    /// The upstream with that id, and its color.
    pub(super) fn upstream(&mut self, id: usize) -> Option<&mut ProbedUpstream> {
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
        let ready = |probed: &ProbedUpstream| probed.health.standing() == Readiness::Up;
        if self.upstreams[color.index()].iter().any(ready) { Ok(()) } else { self.flip_gate(color) }
    }

    /// Whether some upstream of `color` is not known to be down.
    pub(super) fn is_up(&self, color: Color) -> bool {
        self.upstreams[color.index()].iter().any(|probed| probed.health.standing() != Readiness::Down)
    }

    /// Whether the probes have made up their mind about every upstream of `color`.
    pub(super) fn is_known(&self, color: Color) -> bool {
        self.upstreams[color.index()].iter().all(|probed| probed.health.standing() != Readiness::Unknown)
    }

    /// Reads the counters: adds to the history, and returns what the watch wants to know.
    pub(super) fn sample(&mut self, now: Duration) -> WatchSample {
        let (active, tally) = (self.machine.active(), self.route_handle.tally());
        let of = |tally: &Tally, color: Color| {
            if color == active { tally.seen.new_color() } else { tally.seen.of(watch::Stratum::Old) }
        };
        for color in Color::BOTH {
            let ended = of(&tally, color) - of(&self.seen, color);
            self.history[color.index()].add(now, ended.good, ended.bad);
        }
        self.seen = tally;
        let (asked, asked_in_flight) = self.asked();
        let mut seen = self.carried.seen;
        seen += &tally.seen;
        seen += &asked;
        let warm_up = timing(&self.config).watch.rule.warm_up;
        let aged = self.cohorts.come_of_age(&self.route_handle, warm_up);
        let in_flight = tally.in_flight_on_new() + asked_in_flight;
        WatchSample { seen, in_flight, aged, old_is_up: self.rollback_gate(active.other()).is_ok() }
    }

    /// How long the answers of both colors took since this was last called; once a second.
    pub(super) fn note_latency(&mut self, now: Duration) {
        for color in Color::BOTH {
            let stats = &self.service.stats[color.index()];
            self.history[color.index()].add_answers(now, |bucket| stats.sum(|shard| shard.answers[bucket].get()));
        }
    }

    /// Tells the machine what the active color has shown lately. Takes milliseconds for a service with bursts.
    pub(super) fn refresh_history(&mut self, now: Duration) {
        self.sample(now);
        self.note_latency(now);
        let rule = timing(&self.config).watch.rule;
        let history = &mut self.history[self.machine.active().index()];
        let slow = history.slow(now, self.config.watch.slow_factor);
        self.machine.set_baseline(Baseline { yardstick: FailureBaseline::new(history.seconds(now), &rule), slow });
    }

    /// How the active color is watched from its first request on.
    fn watch_setup(&mut self) -> Option<WatchSetup> {
        let mode = self.machine.mode()?;
        let failed = self.failures.get_or_insert_with(FailureLog::new).place.clone();
        let limits = self.slow.map(|slow| slow.map(|(limit, _)| limit));
        let slow = limits.iter().any(Option::is_some).then(|| SlowLimits { limits, since: Instant::now() });
        Some(WatchSetup { mode, slow, failed })
    }

    /// What the watch that begins now has seen is nothing.
    fn begin_watch(&mut self, color: Color) {
        (self.notes, self.failures, self.asked) = (Vec::new(), None, Arc::default());
        (self.replays_before, self.slow) = (self.replays_ever(color), self.machine.baseline().slow);
    }

    /// What the watch has told.
    pub(super) fn note(&mut self, (note, message): (&str, String)) {
        if self.notes.len() == NOTES_MAX {
            self.notes.remove(0);
        }
        self.notes.push(WatchNote { at: clock::utc(), note: note.to_owned(), message });
    }

    /// Failures from before all was calm are not those that an operator will ask for.
    pub(super) fn forget_what_was_nothing(&mut self) {
        let is_calm = match self.machine.phase() {
            Phase::Watching(watch) => watch.is_calm(),
            Phase::Steady | Phase::RolledBack { .. } => false,
        };
        if let Some(failures) = self.failures.as_mut().filter(|_| is_calm) {
            failures.forget();
        }
    }

    /// Failures of `color`, the watched one, that the other was asked to answer since the flip.
    pub(super) fn replays(&self, color: Color) -> Replays {
        let (now, before) = (self.replays_ever(color), self.replays_before);
        Replays {
            answered: now.answered.saturating_sub(before.answered),
            failed: now.failed.saturating_sub(before.failed),
            over_budget: now.over_budget.saturating_sub(before.over_budget),
        }
    }

    fn replays_ever(&self, color: Color) -> Replays {
        let stats = &self.service.stats[color.index()];
        let [answered, failed, over_budget] = std::array::from_fn(|at| stats.sum(|shard| shard.replays[at].get()));
        Replays { answered, failed, over_budget }
    }

    /// Counts of the present epoch, as they were read last.
    fn tally(&self) -> Tally {
        let mut tally = self.carried;
        tally += &self.seen;
        tally
    }

    /// Counts of the epoch before this one.
    pub(super) fn judged_tally(&self) -> Tally {
        self.judged
    }

    /// A release that was taken back is no yardstick for the next one.
    pub(super) fn forget_history(&mut self, color: Color) {
        self.history[color.index()] = History::default();
    }

    /// What a route is made of now.
    pub(super) fn terms(&mut self, active: Color, epoch: u64) -> RouteSpec {
        let upstreams = self.upstreams.each_ref().map(|probed| route_of(probed));
        let trackers = self.trackers.each_ref().map(LeaseTracker::handle);
        RouteSpec { active, epoch, upstreams, trackers, watch: self.watch_setup(), freeze: self.frost.hold.clone() }
    }

    /// Keeps what was seen under the present epoch, for the route that is replaced without another epoch.
    pub(super) fn carry(&mut self, now: Duration) {
        self.sample(now);
        // What is in flight on the route that goes is counted no more.
        self.carried = self.tally().without_in_flight();
    }

    /// Publishes `color` under `epoch`, and returns what it replaces and the other color's tracker, which it leaves.
    pub(super) fn publish(&mut self, color: Color, epoch: u64) -> (RouteHandle, Draining) {
        self.judged = self.tally();
        if self.machine.is_watching() {
            self.begin_watch(color);
        }
        let left = self.renew_tracker(color.other());
        let terms = self.terms(color, epoch);
        let route_handle = self.service.publish(terms);
        self.carried = Tally::default();
        (self.replace_handle(route_handle), left.drain(self.config.drain.timeout))
    }

    /// Publishes the present color and epoch anew, and returns what that replaces.
    pub(super) fn republish(&mut self, now: Duration) -> RouteHandle {
        self.carry(now);
        let terms = self.terms(self.machine.active(), self.machine.epoch());
        let route_handle = self.service.publish(terms);
        self.replace_handle(route_handle)
    }

    /// Whether nobody is on `color` now.
    pub(super) fn is_empty(&self, color: Color) -> bool {
        self.trackers[color.index()].in_flight() == 0
    }

    /// Leaves the idle color without a flip: who is there may finish, who comes from now on is not meant.
    pub(super) fn leave_idle(&mut self, now: Duration) -> (RouteHandle, Draining) {
        let left = self.renew_tracker(self.machine.active().other());
        (self.republish(now), left.drain(self.config.drain.timeout))
    }

    /// Begins another generation of leases of `color` and returns the present one, to be drained once a route with the
    /// new one is published.
    fn renew_tracker(&mut self, color: Color) -> LeaseTracker {
        let workers = self.service.stats[color.index()].shards.len();
        std::mem::replace(&mut self.trackers[color.index()], LeaseTracker::new(workers))
    }

    /// Whether something is in flight on `color` that may have no end of its own.
    pub(super) fn has_long_lived(&self, color: Color) -> bool {
        LeaseKind::ALL.into_iter().any(|kind| self.service.stats[color.index()].open(kind) > 0)
    }

    /// Sends and counts requests as the machine wants it now. The other color answers for failures while the active one
    /// is watched, and only then.
    pub(super) fn set_mode(&mut self) {
        let mode = self.machine.mode();
        self.cohorts.note_split(&self.route_handle, mode.is_some_and(|mode| mode.keep_one_in > 0));
        self.route_handle.set_mode(mode);
    }

    pub(super) fn replace_handle(&mut self, route_handle: RouteHandle) -> RouteHandle {
        self.seen = Tally::default();
        self.cohorts = Cohorts::default();
        std::mem::replace(&mut self.route_handle, route_handle)
    }

    /// Takes a changed configuration in force. Upstreams whose address stays keep their health and their connections,
    /// the counters stay, and so do color and epoch. Returns the route that was replaced, where one was.
    pub(super) fn reconfigure(
        &mut self,
        config: config::Service,
        bell: &Arc<Notify>,
        now: Duration,
    ) -> Option<RouteHandle> {
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
        let moved = (0..2).any(|color| before.colors[color].upstreams != self.config.colors[color].upstreams);
        let same_info = before.upstream == self.config.upstream
            && before.replay == self.config.replay
            && before.preview == self.config.preview
            && before.skew_shield == self.config.skew_shield
            && before.path_prefix == self.config.path_prefix;
        if !moved && same_info {
            return None;
        }
        if same_info {
            return Some(self.republish(now));
        }
        self.carry(now);
        let terms = self.terms(self.machine.active(), self.machine.epoch());
        let (stats, tap) = (self.service.stats.clone(), Arc::clone(&self.service.info.tap));
        let (service, route_handle) = Service::new(info(&self.config, tap, &self.key), stats, Arc::clone(bell), terms);
        self.service = service;
        Some(self.replace_handle(route_handle))
    }
}

/// What the machine needs of the config.
pub(super) fn timing(config: &config::Service) -> Timing {
    let config::Watch { window, max_false_rollbacks, min_effect, min_failures, warm_up, .. } = config.watch;
    let rule = DetectorConfig { max_false_rollbacks, min_effect, min_failures, warm_up, window };
    let config::Watch { split, stay_open, rare_route, .. } = config.watch;
    let watch = WatchConfig { rule, split, stay_open, rare_route };
    Timing { watch, drain: config.drain.timeout }
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

fn fresh_upstreams(config: &config::Service, color: Color) -> Vec<ProbedUpstream> {
    let fresh = |address: &config::Address| ProbedUpstream {
        upstream: Upstream::new(address.clone()),
        health: UpstreamHealth::default(),
        prober: None,
    };
    config.colors[color.index()].upstreams.iter().map(fresh).collect()
}

pub(super) fn route_of(upstreams: &[ProbedUpstream]) -> Arc<[Arc<Upstream>]> {
    upstreams.iter().map(|probed| Arc::clone(&probed.upstream)).collect()
}
