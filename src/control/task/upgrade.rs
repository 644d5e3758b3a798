//! One owner at each moment: while two processes serve side by side during an upgrade, nothing changes color.
//!
//! The process that is upgraded refuses changes from the moment it starts its successor, and the successor refuses
//! them until its predecessor has ended. So "drained" stays true: no flip runs while a process that cannot be seen
//! from here may hold requests on a color.
//!
//! A running watch goes over whole. The predecessor judges up to the moment in which it says what it knows, the
//! successor from the moment in which it hears that the predecessor leaves; what the predecessor answers after that is
//! no evidence. If the successor takes a release back meanwhile, that is drained when the predecessor has ended as
//! well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::api::status::{Drained, EventKind, Refusal, RefusalCode, Replays, Upgraded, Verdict, WatchNote};
use crate::control::messages::WATCH_ENDS;
use crate::control::service::ServiceState;
use crate::control::service::sampler::History;
use crate::control::task::Task;
use crate::control::{Command, Control, Handle, OtherProblem, StatusSnapshot};
use crate::domain::Color;
use crate::domain::cutover::{CutoverSnapshot, Reason};
use crate::domain::health::UpstreamHealth;
use crate::handover::{UPGRADE_STATE_VERSION, UpgradeState};
use crate::ledger::Line;
use crate::os::clock;
use crate::routing::{ColorStats, Tally};

/// Lasting counters by service.
type Stats = Vec<(String, [Arc<ColorStats>; 2])>;

/// Why nothing may change color now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// A successor is being started, or serves already.
    Upgrading,
    /// The process before this one finishes what it has in flight.
    Predecessor,
}

/// Who judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::control) enum Stage {
    /// This process.
    #[default]
    Judging,
    /// Nobody: what this process knows is on its way to another one, or from there to here.
    HandingOver,
}

/// What the task knows about an upgrade.
#[derive(Default)]
pub(in crate::control) struct Handover {
    pub(in crate::control) stage: Stage,
    /// Records on their way to the disk.
    pub(in crate::control) saving: usize,
    /// Services, epochs and leases cut, of which this process holds none any more, and its predecessor may.
    pub(in crate::control) given_back: Vec<(String, u64, u64)>,
    begin: Option<Box<dyn Fn() + Send>>,
    /// Of every service, when the upgrade began: the successor reads the state folder after that.
    epochs: Vec<u64>,
    hold: Option<Hold>,
    asker: Option<(String, oneshot::Sender<Result<Upgraded, Refusal>>)>,
    reload_due: bool,
}

impl Handover {
    pub(in crate::control) fn judges(&self) -> bool {
        self.stage == Stage::Judging
    }

    pub(in crate::control) fn waits_for_predecessor(&self) -> bool {
        self.hold == Some(Hold::Predecessor)
    }
}

impl Control {
    /// Calls `begin` when an upgrade is to begin; whoever is called says how it ended by [`Handle::upgrade_ended`].
    pub fn upgrade_by(&mut self, begin: Box<dyn Fn() + Send>) {
        self.task.handover.begin = Some(begin);
    }

    /// Calls `tell` for what is wrong where the control plane does not look, as a sentence for `problems`.
    pub fn other_problem_by(&mut self, tell: OtherProblem) {
        self.task.other_problem = tell;
    }

    /// Goes on counting where the process before this one is, and changes no color until [`Handle::be_alone`].
    pub fn succeed(&mut self, state: &UpgradeState) -> InheritedCounters {
        let task = &mut self.task;
        task.handover.hold = Some(Hold::Predecessor);
        task.handover.stage = Stage::HandingOver;
        let stats = task.services.iter().map(|(name, managed)| (name.clone(), managed.service.stats.clone())).collect();
        let successor = InheritedCounters { stats };
        if state.version == UPGRADE_STATE_VERSION {
            (task.reloads_ok, task.reloads_failed) = (state.reloads_ok, state.reloads_failed);
            for (service, to, reason, count) in &state.flips {
                let reason =
                    [Reason::Operator, Reason::Config, Reason::Verdict].into_iter().find(|r| r.as_str() == reason);
                let to = Color::BOTH.into_iter().find(|color| color.as_str() == to);
                if let (Some(to), Some(reason)) = (to, reason) {
                    task.flips.insert((service.clone(), to, reason), *count);
                }
            }
            for (service, end, count) in &state.watch_ends {
                if let Some(end) = WATCH_ENDS.into_iter().find(|known| known == end) {
                    task.watch_ends.insert((service.clone(), end), *count);
                }
            }
        }
        let is_counted = successor.take(state);
        if state.version == UPGRADE_STATE_VERSION {
            for (name, left) in &state.left {
                let Some(managed) = task.services.get_mut(name) else { continue };
                if let Err(why) =
                    ServiceSnapshot::deserialize(left).map_err(|e| e.to_string()).and_then(|left| managed.inherit(left))
                {
                    tracing::warn!("what the process before this one knew of {name} is left out: {why}");
                }
            }
        }
        if !is_counted {
            let problem = "the process before this one counts in another way: counters of the metrics begin anew";
            tracing::warn!("{problem}");
        }
        successor
    }
}

/// Keeps the counters of the process before this one, as long as that one counts.
pub struct InheritedCounters {
    stats: Stats,
}

impl InheritedCounters {
    /// Takes in what it has counted by now. False if that is not understood; it is left out then.
    pub fn take(&self, state: &UpgradeState) -> bool {
        state.version == UPGRADE_STATE_VERSION
            && self.stats.iter().all(|(name, colors)| {
                let counted = state.counters.get(name);
                counted.is_none_or(|counted| colors.iter().zip(counted).all(|(stats, counted)| stats.import(counted)))
            })
    }

    /// It counts no more.
    pub fn end(&self) {
        self.stats.iter().flat_map(|(_, colors)| colors).for_each(|stats| stats.end_before());
    }
}

/// What is known of one service and goes over beside its counters.
#[derive(Serialize, Deserialize)]
pub(in crate::control) struct ServiceSnapshot {
    #[serde(rename = "estate")]
    pub(in crate::control) cutover: CutoverSnapshot,
    /// What the probes know, by address: without it there would be no way back until they know it again.
    #[serde(default)]
    pub(in crate::control) health: BTreeMap<String, UpstreamHealth>,
    /// Counts under the present epoch.
    pub(in crate::control) tally: Tally,
    /// Of the epoch before.
    pub(in crate::control) judged: Tally,
    pub(in crate::control) history: [History; 2],
    pub(in crate::control) slow: [Option<(Duration, f64)>; 3],
    pub(in crate::control) replays_before: Replays,
    pub(in crate::control) notes: Vec<WatchNote>,
    pub(in crate::control) flipped: Option<String>,
    pub(in crate::control) last_drain: Drained,
    pub(in crate::control) last_verdict: Option<String>,
    pub(in crate::control) verdict: Option<Verdict>,
}

/// What a successor goes on from.
fn state_of(observed: &StatusSnapshot) -> UpgradeState {
    let flips = observed.flips.iter();
    let watch_ends = observed.watch_ends.iter();
    UpgradeState {
        version: UPGRADE_STATE_VERSION,
        counters: counters(&observed.stats),
        flips: flips.map(|(name, to, reason, n)| (name.clone(), to.as_str().into(), (*reason).into(), *n)).collect(),
        watch_ends: watch_ends.map(|(name, end, n)| (name.clone(), (*end).into(), *n)).collect(),
        reloads_ok: observed.reloads_ok,
        reloads_failed: observed.reloads_failed,
        left: BTreeMap::new(),
    }
}

/// What requests have added to by now.
pub fn counters(stats: &[(String, [Arc<ColorStats>; 2])]) -> BTreeMap<String, [Vec<u64>; 2]> {
    stats.iter().map(|(name, colors)| (name.clone(), colors.each_ref().map(|stats| stats.export()))).collect()
}

impl Handle {
    /// As [`Handle::observe`], for a thread without a runtime. `None` when the control task has ended.
    pub fn observe_blocking(&self) -> Option<StatusSnapshot> {
        let (answer, answered) = oneshot::channel();
        self.commands.blocking_send(Command::Observe(answer)).ok()?;
        answered.blocking_recv().ok()
    }

    /// Judges nothing from now on, until an upgrade has failed, and says what a successor goes on from; for a thread
    /// without a runtime.
    ///
    /// # Errors
    /// A sentence: what has begun since the upgrade was asked for.
    pub fn hand_over_blocking(&self) -> Result<UpgradeState, String> {
        let (answer, answered) = oneshot::channel();
        let asked = self.commands.blocking_send(Command::HandOver(answer)).ok();
        asked.and_then(|()| answered.blocking_recv().ok()).unwrap_or_else(|| Err("the proxy is stopping".into()))
    }

    /// Says that the process before this one judges no more, for a thread without a runtime.
    pub fn judge(&self) {
        let _ = self.commands.blocking_send(Command::Judge);
    }

    /// Says how an upgrade ended, for a thread without a runtime: with a new process, or with a sentence.
    pub fn upgrade_ended(&self, outcome: Result<Upgraded, String>) {
        // A task that has ended needs no telling.
        let _ = self.commands.blocking_send(Command::UpgradeEnded(outcome));
    }

    /// Says that the process before this one has ended, for a thread without a runtime.
    pub fn be_alone(&self) {
        let _ = self.commands.blocking_send(Command::Alone);
    }
}

impl Task {
    /// Why nothing may change now; `None` when it may.
    pub(in crate::control) fn held(&self) -> Option<Refusal> {
        let message = match self.handover.hold? {
            Hold::Upgrading => "the proxy is being upgraded in place: the new process decides; try again in a moment",
            Hold::Predecessor => {
                "the process before the upgrade still finishes requests; try again when it has ended, at the latest \
                 after proxy.shutdown_timeout"
            }
        };
        Some(Refusal { code: RefusalCode::CutoverUnderWay, message: message.into() })
    }

    pub(in crate::control) fn begin_upgrade(&mut self, by: String, answer: oneshot::Sender<Result<Upgraded, Refusal>>) {
        if let Some(refusal) = self.held().or_else(|| self.busy()) {
            self.ledger.write(Line::new("upgrade refused:").with("why", &refusal.message).with("by", by));
            self.emit(EventKind::Upgrade, None, format!("not upgraded: {refusal}"));
            return self.reply(answer, Err(refusal));
        }
        let Some(begin) = &self.handover.begin else { return };
        begin();
        self.handover.epochs = self.epochs();
        self.handover.hold = Some(Hold::Upgrading);
        self.handover.asker = Some((by, answer));
    }

    pub(in crate::control) fn hand_over(&mut self) -> Result<UpgradeState, String> {
        if let Some(refusal) = self.busy() {
            return Err(refusal.message);
        }
        // The only change that nobody has to ask for.
        if self.epochs() != self.handover.epochs {
            return Err("a release was taken back meanwhile; upgrade again".into());
        }
        self.handover.stage = Stage::HandingOver;
        let now = clock::now();
        let left = |(name, managed): (&String, &mut ServiceState)| {
            (name.clone(), serde_json::to_value(managed.leave(now)).expect("numbers and names"))
        };
        let left = self.services.iter_mut().map(left).collect();
        Ok(UpgradeState { left, ..state_of(&self.observe()) })
    }

    fn epochs(&self) -> Vec<u64> {
        self.services.values().map(|managed| managed.machine.epoch()).collect()
    }

    /// What a successor would not know of.
    fn busy(&self) -> Option<Refusal> {
        if self.handover.saving > 0 {
            let message = "a state is being saved; try again in a moment".into();
            return Some(Refusal { code: RefusalCode::CutoverUnderWay, message });
        }
        let what = |name: &str| {
            let managed = &self.services[name];
            let machine = &managed.machine;
            match () {
                () if managed.save_problem.is_some() => {
                    Some("its state is not saved, so a new process would not know it")
                }
                () if managed.frost.freezer.freeze().is_some() => Some("it is frozen; thaw it first"),
                () if machine.is_saving() => Some("a flip is being saved"),
                () if !machine.drains().is_empty() => Some("the color before still finishes requests"),
                () if self.empties(name) => Some("somebody waits for its idle color to be empty"),
                () => None,
            }
        };
        self.services.keys().find_map(|name| {
            let message = format!("{name}: {}; nothing was changed, see `cutover status`", what(name)?);
            Some(Refusal { code: RefusalCode::CutoverUnderWay, message })
        })
    }

    pub(in crate::control) fn end_upgrade(&mut self, outcome: Result<Upgraded, String>) {
        let Some((by, answer)) = self.handover.asker.take() else { return };
        match &outcome {
            Ok(Upgraded { from_pid, to_pid }) => {
                let line = Line::new("upgrade:").with("from_pid", from_pid).with("to_pid", to_pid).with("by", by);
                self.ledger.write(line);
                self.emit(EventKind::Upgrade, None, format!("process {to_pid} serves in place of {from_pid}"));
            }
            Err(why) => {
                self.ledger.write(Line::new("upgrade failed:").with("why", why).with("by", by));
                self.emit(EventKind::Upgrade, None, format!("not upgraded, this process goes on: {why}"));
                self.release();
            }
        }
        let refusal = |why| {
            let message = format!("the new binary does not serve, the old one goes on: {why}");
            Refusal { code: RefusalCode::UpgradeFailed, message }
        };
        self.reply(answer, outcome.map_err(refusal));
    }

    /// Notes that the config is to be read once it may be.
    pub(in crate::control) fn reload_later(&mut self) {
        self.handover.reload_due = true;
    }

    /// Changes may be made again, first those that came meanwhile.
    pub(in crate::control) fn release(&mut self) {
        self.handover.hold = None;
        self.handover.stage = Stage::Judging;
        self.schedule.is_stale = true;
        for (service, epoch, cut) in std::mem::take(&mut self.handover.given_back) {
            self.on_all_given_back(service, epoch, cut);
        }
        if std::mem::take(&mut self.handover.reload_due) {
            self.request_reload("after an upgrade", None);
        }
        for name in self.names_where(|managed| managed.config_flip_due.is_some()) {
            self.flip_by_config(&name);
        }
    }
}
