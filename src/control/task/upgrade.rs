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

use serde::Deserialize;
use tokio::sync::oneshot;

use crate::api::{EventKind, Refusal, RefusalCode, Upgraded};
use crate::control::handle::{HandOverError, UpgradeError};
use crate::control::service::ServiceState;
use crate::control::service::snapshot::ServiceSnapshot;
use crate::control::status_snapshot::{FlipCount, StatusSnapshot, WatchEndCount};
use crate::control::task::Task;
use crate::control::task::upgrade_tracker::{ChangeBlock, Judge, ServiceStats, UpgradeReply};
use crate::domain::Color;
use crate::domain::cutover::{Reason, WatchEndKind};
use crate::handover::{CountedFlip, CountedWatchEnd, UPGRADE_STATE_VERSION, UpgradeState};
use crate::ledger::Line;
use crate::os::clock;

impl Task {
    /// Goes on from what the process before this one has handed over, and changes no color until it has ended.
    pub(in crate::control) fn succeed(&mut self, state: &UpgradeState) -> InheritedCounters {
        self.upgrade.begin_as_successor();
        let counters = InheritedCounters { stats: self.stats() };
        if !counters.take(state) {
            tracing::warn!("the previous process counts in another way: the metrics start from zero");
        }
        if state.version != UPGRADE_STATE_VERSION {
            return counters;
        }
        (self.reloads.counts.ok, self.reloads.counts.failed) = (state.reloads_ok, state.reloads_failed);
        self.counters
            .inherit(state.flips.iter().filter_map(flip_count), state.watch_ends.iter().filter_map(watch_end_count));
        for (name, left) in &state.services {
            let Some(service) = self.services.get_mut(name) else { continue };
            let inherited = ServiceSnapshot::deserialize(left)
                .map_err(|error| error.to_string())
                .and_then(|snapshot| service.inherit(snapshot).map_err(|error| error.to_string()));
            if let Err(why) = inherited {
                tracing::warn!("what the previous process knew of {name} is left out: {why}");
            }
        }
        counters
    }

    pub(in crate::control) fn stats(&self) -> Vec<ServiceStats> {
        let stats = |(name, service): (&String, &ServiceState)| (name.clone(), service.route.service().stats.clone());
        self.services.iter().map(stats).collect()
    }

    pub(in crate::control) fn begin_upgrade(&mut self, by: String, answer: oneshot::Sender<Result<Upgraded, Refusal>>) {
        if let Some(refusal) = self.upgrade.blocks_changes().or_else(|| self.unfinished()) {
            self.reporter.write(Line::new("upgrade refused:").with("why", &refusal.message).with("by", by));
            self.reporter.emit(EventKind::Upgrade, None, format!("not upgraded: {refusal}"));
            return self.reporter.reply(answer, Err(refusal));
        }
        let Some(begin) = &self.upgrade.begin else { return };
        begin();
        self.upgrade.epochs = self.epochs();
        self.upgrade.block = Some(ChangeBlock::Upgrading);
        self.upgrade.reply = Some(UpgradeReply { by, answer });
    }

    pub(in crate::control) fn hand_over(&mut self) -> Result<UpgradeState, HandOverError> {
        if let Some(refusal) = self.unfinished() {
            return Err(HandOverError::Busy(refusal));
        }
        // A rollback by the watch is the only change that nobody has to ask for.
        if self.epochs() != self.upgrade.epochs {
            return Err(HandOverError::TakenBack);
        }
        self.upgrade.judge = Judge::Nobody;
        let now = clock::now();
        let snapshot = |(name, service): (&String, &mut ServiceState)| {
            (name.clone(), serde_json::to_value(service.snapshot(now)).expect("numbers and names"))
        };
        let services = self.services.iter_mut().map(snapshot).collect();
        Ok(UpgradeState { services, ..state_of(&self.observe()) })
    }

    fn epochs(&self) -> Vec<u64> {
        self.services.values().map(|service| service.machine.epoch()).collect()
    }

    /// What is under way that a successor would not know of.
    fn unfinished(&self) -> Option<Refusal> {
        if self.saves.is_busy() {
            let message = "a state is being saved; try again in a moment".into();
            return Some(Refusal { code: RefusalCode::CutoverUnderWay, message });
        }
        let what = |service: &ServiceState| {
            let machine = &service.machine;
            match () {
                () if service.saving.problem.is_some() => {
                    Some("its state is not saved, so a new process could not restore it")
                }
                () if service.freeze.freezer.freeze().is_some() => Some("it is frozen; thaw it first"),
                () if machine.is_saving() => Some("a flip is being saved"),
                () if !machine.drains().is_empty() => Some("the previous color still finishes requests"),
                () if service.replies.wants_idle_empty() => Some("a drain of its idle color is under way"),
                () => None,
            }
        };
        self.services.iter().find_map(|(name, service)| {
            let message = format!("{name}: {}; nothing was changed, see `cutover status`", what(service)?);
            Some(Refusal { code: RefusalCode::CutoverUnderWay, message })
        })
    }

    pub(in crate::control) fn end_upgrade(&mut self, outcome: Result<Upgraded, UpgradeError>) {
        let Some(UpgradeReply { by, answer }) = self.upgrade.reply.take() else { return };
        match &outcome {
            Ok(Upgraded { from_pid, to_pid }) => {
                let line = Line::new("upgrade:").with("from_pid", from_pid).with("to_pid", to_pid).with("by", by);
                self.reporter.write(line);
                let message = format!("process {to_pid} serves in place of {from_pid}");
                self.reporter.emit(EventKind::Upgrade, None, message);
            }
            Err(why) => {
                self.reporter.write(Line::new("upgrade failed:").with("why", why).with("by", by));
                let message = format!("not upgraded, this process goes on: {why}");
                self.reporter.emit(EventKind::Upgrade, None, message);
                self.allow_changes();
            }
        }
        let refusal = |why: UpgradeError| {
            let message = format!("the new binary does not serve, the old one goes on: {why}");
            Refusal { code: RefusalCode::UpgradeFailed, message }
        };
        self.reporter.reply(answer, outcome.map_err(refusal));
    }

    /// Changes may be made again, first those that came meanwhile.
    pub(in crate::control) fn allow_changes(&mut self) {
        (self.upgrade.block, self.upgrade.judge) = (None, Judge::Here);
        self.schedule.invalidate();
        for given_back in std::mem::take(&mut self.upgrade.given_back) {
            self.on_all_given_back(given_back);
        }
        if std::mem::take(&mut self.upgrade.is_reload_due) {
            self.request_reload("after an upgrade", None);
        }
        for name in self.names_where(|service| service.config_flip_due.is_some()) {
            self.flip_by_config(&name);
        }
    }
}

/// Keeps the counters of the process before this one, as long as that one counts.
pub struct InheritedCounters {
    stats: Vec<ServiceStats>,
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

    /// The process before this one counts no more.
    pub fn end(&self) {
        self.stats.iter().flat_map(|(_, colors)| colors).for_each(|stats| stats.end_before());
    }
}

/// What requests have added to by now.
pub fn counters(stats: &[ServiceStats]) -> BTreeMap<String, [Vec<u64>; 2]> {
    stats.iter().map(|(name, colors)| (name.clone(), colors.each_ref().map(|stats| stats.export()))).collect()
}

/// What a successor goes on from, apart from the services' snapshots.
fn state_of(observed: &StatusSnapshot) -> UpgradeState {
    let flip = |flip: &FlipCount| CountedFlip {
        service: flip.service.clone(),
        to: flip.to.as_str().into(),
        reason: flip.reason.as_str().into(),
        count: flip.count,
    };
    let ended = |ended: &WatchEndCount| CountedWatchEnd {
        service: ended.service.clone(),
        end: ended.end.as_str().into(),
        count: ended.count,
    };
    UpgradeState {
        version: UPGRADE_STATE_VERSION,
        counters: counters(&observed.stats),
        flips: observed.flips.iter().map(flip).collect(),
        watch_ends: observed.watch_ends.iter().map(ended).collect(),
        reloads_ok: observed.reloads_ok,
        reloads_failed: observed.reloads_failed,
        services: BTreeMap::new(),
    }
}

/// `None` for words that this version does not know.
fn flip_count(flip: &CountedFlip) -> Option<FlipCount> {
    let to = flip.to.parse::<Color>().ok()?;
    let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == flip.reason)?;
    Some(FlipCount { service: flip.service.clone(), to, reason, count: flip.count })
}

/// `None` for words that this version does not know.
fn watch_end_count(ended: &CountedWatchEnd) -> Option<WatchEndCount> {
    let end = WatchEndKind::ALL.into_iter().find(|end| end.as_str() == ended.end)?;
    Some(WatchEndCount { service: ended.service.clone(), end, count: ended.count })
}
