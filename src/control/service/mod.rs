//! One service as the control plane holds it.
//!
//! [`ServiceState`] has a field for each concern, and each concern is a struct in a file of its own, which alone writes
//! to its fields. What is here connects them: what a publication does to the counts, what a sample is made of, what a
//! changed config touches. Nothing here knows the control task; it calls down, and gets back what is left to be done.

pub mod failures;
pub mod freeze;
pub mod probe;
pub mod rehearsal;
pub mod replies;
pub mod route;
pub mod sampler;
pub mod snapshot;
pub mod status;
pub mod synthetic;
pub mod upstreams;
pub mod watch_record;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::api::{RehearsalReport, SyntheticStatus};
use crate::config;
use crate::control::service::freeze::FreezeState;
use crate::control::service::rehearsal::RehearsalState;
use crate::control::service::replies::PendingReplies;
use crate::control::service::route::{PublishedRoute, RouteContent};
use crate::control::service::sampler::{Sampler, SamplerSnapshot};
use crate::control::service::snapshot::ServiceSnapshot;
use crate::control::service::synthetic::SyntheticState;
use crate::control::service::upstreams::Upstreams;
use crate::control::service::watch_record::{LastVerdict, WatchRecord};
use crate::domain::Color;
use crate::domain::cutover::{Cutover, GateError, Phase, SaveError, Timing};
use crate::domain::verdict::DetectorConfig;
use crate::domain::watch::{WatchConfig, WatchSample};
use crate::os::clock;
use crate::routing::preview_token::PreviewKey;
use crate::routing::{Draining, RouteHandle, Tally};

/// How saving the state of one service goes.
#[derive(Default)]
pub(super) struct SaveStatus {
    /// Nothing of it has been saved yet: neither the color it starts with nor the config's `active`, without which a
    /// later change of it could not be told from none.
    pub(super) is_new: bool,
    /// Why the last save failed, where it has.
    pub(super) problem: Option<SaveError>,
}

/// Everything that the control plane holds of one service.
pub(super) struct ServiceState {
    pub(super) config: config::Service,
    /// Decides about flips and rollbacks.
    pub(super) machine: Cutover,
    pub(super) upstreams: Upstreams,
    pub(super) route: PublishedRoute,
    sampler: Sampler,
    pub(super) watch: WatchRecord,
    pub(super) freeze: FreezeState,
    rehearsal: RehearsalState,
    synthetic: SyntheticState,
    pub(super) replies: PendingReplies,
    pub(super) saving: SaveStatus,
    /// By whom the config's `active` was changed, while that is still to become a flip: the probes do not know its
    /// color yet.
    pub(super) config_flip_due: Option<String>,
    /// The active color could serve nobody when this was last looked at.
    is_out: bool,
}

/// The active color became able to serve, or unable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutageChange {
    Began,
    Ended,
}

/// Why a snapshot of the process before this one is not gone on from.
#[derive(Debug)]
pub(super) struct StandsElsewhere {
    there: (Color, u64),
    saved: (Color, u64),
}

impl fmt::Display for StandsElsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((active, epoch), (saved, at)) = (self.there, self.saved);
        write!(f, "{active} is active there, epoch {epoch}, and {saved} was saved, epoch {at}")
    }
}

impl ServiceState {
    /// A service with its first route published and no probe running yet.
    pub(super) fn new(
        config: config::Service,
        machine: Cutover,
        workers: usize,
        failure_bell: &Arc<Notify>,
        preview_key: Arc<PreviewKey>,
    ) -> Self {
        let upstreams = Upstreams::new(&config);
        let mut watch = WatchRecord::default();
        let content = RouteContent {
            active: machine.active(),
            epoch: machine.epoch(),
            upstreams: Color::BOTH.map(|color| upstreams.shared(color)),
            watch: watch.setup(machine.mode(), None),
            freeze: None,
        };
        let route = PublishedRoute::new(&config, workers, preview_key, Arc::clone(failure_bell), content);
        ServiceState {
            config,
            machine,
            upstreams,
            route,
            sampler: Sampler::default(),
            watch,
            freeze: FreezeState::default(),
            rehearsal: RehearsalState::default(),
            synthetic: SyntheticState::default(),
            replies: PendingReplies::default(),
            saving: SaveStatus::default(),
            config_flip_due: None,
            is_out: false,
        }
    }

    /// Whether a flip to `color` may be made: it is ready, and its rehearsal went well enough.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn flip_gate(&self, color: Color) -> Result<(), GateError> {
        self.upstreams.flip_gate(color).map_err(GateError::NotReady)?;
        if color == self.machine.active() {
            return Ok(());
        }
        self.rehearsal.gate().map_err(GateError::RehearsalFailed)
    }

    /// Whether a rollback may go to the idle color. Its rehearsal is not asked: a way back must not depend on it.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn rollback_gate(&self) -> Result<(), GateError> {
        self.upstreams.rollback_gate(self.machine.active().other()).map_err(GateError::NotReady)
    }

    /// Looks whether the active color can still serve, and says when that has changed.
    pub(super) fn look_for_outage(&mut self) -> Option<OutageChange> {
        let is_out = self.outage().is_some();
        let was_out = std::mem::replace(&mut self.is_out, is_out);
        match (was_out, is_out) {
            (false, true) => Some(OutageChange::Began),
            (true, false) => Some(OutageChange::Ended),
            (true, true) | (false, false) => None,
        }
    }

    /// What is wrong when every upstream of the active color is known to be down, and what could be done about it.
    /// Upstreams that nobody has probed often enough are given the benefit of the doubt.
    pub(super) fn outage(&self) -> Option<String> {
        let (active, idle) = (self.machine.active(), self.machine.active().other());
        if self.upstreams.may_be_up(active) {
            return None;
        }
        let why = self.upstreams.flip_gate(active).err().map_or(String::new(), |why| format!(" ({why})"));
        let name = &self.config.name;
        let way_out = match self.upstreams.has_ready(idle) {
            true => format!("{idle} is ready: `cutover flip {name} {idle}` moves the traffic there"),
            false => format!("start {active} again"),
        };
        Some(format!(
            "{name}: no upstream of {active} is ready{why}, and it has the traffic: clients get 502; {way_out}"
        ))
    }

    /// Reads the counters: adds to the history, and returns what the watch wants to know.
    pub(super) fn sample(&mut self, now: Duration) -> WatchSample {
        let active = self.machine.active();
        let warm_up = timing(&self.config).watch.rule.warm_up;
        let synthetic = self.synthetic.sample();
        let old_is_up = self.rollback_gate().is_ok();
        let sample = self.sampler.read(self.route.handle(), active, warm_up, &synthetic, now);
        WatchSample { old_is_up, ..sample }
    }

    /// Notes how long the responses of both colors took since this was last called; once a second.
    pub(super) fn note_latency(&mut self, now: Duration) {
        self.sampler.note_latency(Color::BOTH.map(|color| self.route.stats(color)), now);
    }

    /// Tells the machine what the active color has shown lately. Takes milliseconds for a service with bursts.
    pub(super) fn refresh_baseline(&mut self, now: Duration) {
        self.sample(now);
        self.note_latency(now);
        let (active, rule) = (self.machine.active(), timing(&self.config).watch.rule);
        let baseline = self.sampler.baseline(active, &rule, self.config.watch.slow_factor, now);
        self.machine.set_baseline(baseline);
    }

    /// Forgets what `color` has shown: a release that was taken back, or never proven, is no yardstick.
    pub(super) fn forget_history(&mut self, color: Color) {
        self.sampler.forget_history(color);
    }

    /// Forgets the failures that were described while a calm watch found nothing in them.
    pub(super) fn forget_failures_when_calm(&mut self) {
        let is_calm = match self.machine.phase() {
            Phase::Watching(watch) => watch.is_calm(),
            Phase::Steady | Phase::RolledBack { .. } => false,
        };
        if is_calm {
            self.watch.forget_failures();
        }
    }

    /// The counts of the epoch before this one.
    pub(super) fn previous_epoch_tally(&self) -> Tally {
        self.sampler.previous_epoch()
    }

    /// What the next route is made of.
    fn content(&mut self, active: Color, epoch: u64) -> RouteContent {
        RouteContent {
            active,
            epoch,
            upstreams: Color::BOTH.map(|color| self.upstreams.shared(color)),
            watch: self.watch.setup(self.machine.mode(), self.sampler.slow_limits()),
            freeze: self.freeze.queue(),
        }
    }

    /// Publishes `color` under `epoch`: **this is the flip**, one atomic store in `routing/service.rs`. Returns the
    /// route that it replaces, and the leases of the color that it leaves.
    pub(super) fn publish(&mut self, color: Color, epoch: u64) -> (RouteHandle, Draining) {
        self.sampler.begin_epoch();
        if self.machine.is_watching() {
            self.watch.begin(self.route.stats(color));
            self.synthetic.begin_epoch();
            self.sampler.set_slow_rules(self.machine.baseline().slow);
        }
        // The new route leads to another generation of leases of the old color, so that draining the present one waits
        // for nobody who comes from now on.
        let left = self.route.renew_tracker(color.other());
        let content = self.content(color, epoch);
        let replaced = self.route.publish(content);
        self.sampler.on_route_replaced();
        (replaced, left.drain(self.config.drain.timeout))
    }

    /// Publishes the present color and epoch anew, and returns the route that this replaces.
    pub(super) fn republish(&mut self, now: Duration) -> RouteHandle {
        self.carry_counts(now);
        let content = self.content(self.machine.active(), self.machine.epoch());
        let replaced = self.route.publish(content);
        self.sampler.on_route_replaced();
        replaced
    }

    /// Leaves the idle color without a flip: who is there may finish, and who comes from now on is not waited for.
    pub(super) fn drain_idle(&mut self, now: Duration) -> (RouteHandle, Draining) {
        let left = self.route.renew_tracker(self.machine.active().other());
        (self.republish(now), left.drain(self.config.drain.timeout))
    }

    /// Keeps what the present route has counted, before another one replaces it under the same epoch.
    fn carry_counts(&mut self, now: Duration) {
        self.sample(now);
        self.sampler.carry();
    }

    /// Lets data plane, rehearsal and synthetic requests follow what the machine has come to.
    pub(super) fn follow_machine(&mut self) {
        let mode = self.machine.mode();
        self.sampler.note_split(self.route.handle(), self.is_split());
        self.route.set_mode(mode);
        self.update_rehearsal();
        self.synthetic.update(&self.config, &self.machine, &self.upstreams, &mut self.watch);
    }

    /// Begins, ends or leaves the rehearsal of the idle color as things are now.
    pub(super) fn update_rehearsal(&mut self) {
        let tap = &self.route.service().info.tap;
        self.rehearsal.update(&self.config, &self.machine, &self.upstreams, tap);
    }

    /// Everything that the rehearsal of the idle color has shown.
    pub(super) fn rehearsal_report(&self) -> RehearsalReport {
        self.rehearsal.report(&self.config, self.machine.active(), &self.upstreams)
    }

    /// How synthetic requests were answered under the present epoch; `None` where none are configured.
    pub(super) fn synthetic_status(&self) -> Option<SyntheticStatus> {
        self.synthetic.status(&self.config)
    }

    /// Whether both colors have their part of the traffic.
    pub(super) fn is_split(&self) -> bool {
        self.machine.mode().is_some_and(|mode| mode.keep_one_in > 0)
    }

    /// Takes a changed configuration in force: counters, color and epoch stay. Returns the route that was replaced,
    /// where one was.
    pub(super) fn reconfigure(&mut self, config: config::Service, now: Duration) -> Option<RouteHandle> {
        let before = std::mem::replace(&mut self.config, config);
        self.upstreams.reconfigure(&before, &self.config);
        self.machine.set_timing(timing(&self.config));
        let is_same_info = before.upstream == self.config.upstream
            && before.replay == self.config.replay
            && before.preview == self.config.preview
            && before.skew_shield == self.config.skew_shield
            && before.path_prefix == self.config.path_prefix;
        if !is_same_info {
            self.carry_counts(now);
            let content = self.content(self.machine.active(), self.machine.epoch());
            let replaced = self.route.publish_reconfigured(&self.config, content);
            self.sampler.on_route_replaced();
            return Some(replaced);
        }
        let upstreams_of = |config: &config::Service| config.colors.each_ref().map(|color| color.upstreams.clone());
        (upstreams_of(&before) != upstreams_of(&self.config)).then(|| self.republish(now))
    }

    /// What another process needs to go on where this one stands.
    pub(super) fn snapshot(&mut self, now: Duration) -> ServiceSnapshot {
        self.sample(now);
        self.note_latency(now);
        let SamplerSnapshot { tally, previous_epoch, history, slow } =
            self.sampler.snapshot(&self.synthetic.sample().seen);
        ServiceSnapshot {
            cutover: self.machine.snapshot(),
            health: self.upstreams.healths(),
            tally,
            previous_epoch,
            history,
            slow,
            replays_before: self.watch.replays_before,
            notes: self.watch.notes.clone(),
            flipped: self.watch.flipped.clone(),
            last_drain: self.replies.last_drain,
            last_verdict: self.watch.last_verdict.as_ref().map(|last| last.sentence.clone()),
            verdict: self.watch.last_verdict.as_ref().and_then(|last| last.word),
        }
    }

    /// Goes on where the process before this one stands, whose counters are taken over. Called before the first
    /// request.
    ///
    /// # Errors
    /// It stands elsewhere than the state folder says.
    pub(super) fn inherit(&mut self, snapshot: ServiceSnapshot) -> Result<(), StandsElsewhere> {
        let machine = Cutover::inherit(snapshot.cutover, timing(&self.config), clock::now());
        let stands = |machine: &Cutover| (machine.active(), machine.epoch());
        if stands(&machine) != stands(&self.machine) {
            return Err(StandsElsewhere { there: stands(&machine), saved: stands(&self.machine) });
        }
        self.machine = machine;
        self.upstreams.inherit(snapshot.health);
        self.sampler.inherit_history(snapshot.history, snapshot.slow);
        self.watch.replays_before = snapshot.replays_before;
        (self.watch.notes, self.watch.flipped) = (snapshot.notes, snapshot.flipped);
        let word = snapshot.verdict;
        self.watch.last_verdict = snapshot.last_verdict.map(|sentence| LastVerdict { sentence, word });
        self.replies.last_drain = snapshot.last_drain;
        let content = self.content(self.machine.active(), self.machine.epoch());
        drop(self.route.publish(content)); // nobody has used the route before it
        self.sampler.on_route_replaced();
        self.sampler.inherit_tallies(snapshot.tally, snapshot.previous_epoch);
        Ok(())
    }
}

/// What the machine needs of the config.
pub(super) fn timing(config: &config::Service) -> Timing {
    let config::Watch { window, max_false_rollbacks, min_effect, min_failures, warm_up, .. } = config.watch;
    let rule = DetectorConfig { max_false_rollbacks, min_effect, min_failures, warm_up, window };
    let config::Watch { split, stay_open, rare_route, .. } = config.watch;
    Timing { watch: WatchConfig { rule, split, stay_open, rare_route }, drain: config.drain.timeout }
}
