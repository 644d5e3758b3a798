//! One owner at each moment: while two processes serve side by side during an upgrade, nothing changes color.
//!
//! The process that is upgraded refuses changes from the moment it starts its successor, and the successor refuses
//! them until its predecessor has ended. So "drained" stays true: no flip runs while a process that cannot be seen
//! from here may hold requests on a color. A watch has its evidence in one process only: an upgrade waits for its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::task::Task;
use super::words::WATCH_ENDS;
use super::{Command, Control, Handle, Observation};
use crate::domain::Color;
use crate::domain::cutover::Reason;
use crate::handover::{PARCEL_VERSION, Parcel};
use crate::ledger::Line;
use crate::status::{EventKind, Refusal, RefusalCode, Upgraded};
use crate::switch::ColorStats;

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

/// What the task knows about an upgrade.
#[derive(Default)]
pub(super) struct Handover {
    begin: Option<Box<dyn Fn() + Send>>,
    hold: Option<Hold>,
    asker: Option<(String, oneshot::Sender<Result<Upgraded, Refusal>>)>,
    reload_due: bool,
}

impl Control {
    /// Calls `begin` when an upgrade is to begin; whoever is called says how it ended by [`Handle::upgrade_ended`].
    pub fn upgrade_by(&mut self, begin: Box<dyn Fn() + Send>) {
        self.task.handover.begin = Some(begin);
    }

    /// Goes on counting where the process before this one is, and changes no color until [`Handle::be_alone`].
    pub fn succeed(&mut self, parcel: &Parcel) -> Successor {
        let task = &mut self.task;
        task.handover.hold = Some(Hold::Predecessor);
        let stats = task.services.iter().map(|(name, managed)| (name.clone(), managed.service.stats.clone())).collect();
        let successor = Successor { stats };
        if parcel.version == PARCEL_VERSION {
            (task.reloads_ok, task.reloads_failed) = (parcel.reloads_ok, parcel.reloads_failed);
            for (service, to, reason, count) in &parcel.flips {
                let reason =
                    [Reason::Operator, Reason::Config, Reason::Verdict].into_iter().find(|r| r.as_str() == reason);
                let to = Color::BOTH.into_iter().find(|color| color.as_str() == to);
                if let (Some(to), Some(reason)) = (to, reason) {
                    task.flips.insert((service.clone(), to, reason), *count);
                }
            }
            for (service, end, count) in &parcel.watch_ends {
                if let Some(end) = WATCH_ENDS.into_iter().find(|known| known == end) {
                    task.watch_ends.insert((service.clone(), end), *count);
                }
            }
        }
        if !successor.take(parcel) {
            let problem = "the process before this one counts in another way: counters of the metrics begin anew";
            tracing::warn!("{problem}");
        }
        successor
    }
}

/// Keeps the counters of the process before this one, as long as that one counts.
pub struct Successor {
    stats: Stats,
}

impl Successor {
    /// Takes in what it has counted by now. False if that is not understood; it is left out then.
    pub fn take(&self, parcel: &Parcel) -> bool {
        parcel.version == PARCEL_VERSION
            && self.stats.iter().all(|(name, colors)| {
                let counted = parcel.counters.get(name);
                counted.is_none_or(|counted| colors.iter().zip(counted).all(|(stats, counted)| stats.import(counted)))
            })
    }

    /// It counts no more.
    pub fn end(&self) {
        self.stats.iter().flat_map(|(_, colors)| colors).for_each(|stats| stats.end_before());
    }
}

/// What a successor goes on from.
pub fn parcel(observed: &Observation) -> Parcel {
    let flips = observed.flips.iter();
    let watch_ends = observed.watch_ends.iter();
    Parcel {
        version: PARCEL_VERSION,
        counters: counters(&observed.stats),
        flips: flips.map(|(name, to, reason, n)| (name.clone(), to.as_str().into(), (*reason).into(), *n)).collect(),
        watch_ends: watch_ends.map(|(name, end, n)| (name.clone(), (*end).into(), *n)).collect(),
        reloads_ok: observed.reloads_ok,
        reloads_failed: observed.reloads_failed,
    }
}

/// What requests have added to by now.
pub fn counters(stats: &[(String, [Arc<ColorStats>; 2])]) -> BTreeMap<String, [Vec<u64>; 2]> {
    stats.iter().map(|(name, colors)| (name.clone(), colors.each_ref().map(|stats| stats.export()))).collect()
}

impl Handle {
    /// As [`Handle::observe`], for a thread without a runtime. `None` when the control task has ended.
    pub fn observe_blocking(&self) -> Option<Observation> {
        let (answer, answered) = oneshot::channel();
        self.commands.blocking_send(Command::Observe(answer)).ok()?;
        answered.blocking_recv().ok()
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
    pub(super) fn held(&self) -> Option<Refusal> {
        let message = match self.handover.hold? {
            Hold::Upgrading => "the proxy is being upgraded in place: the new process decides; try again in a moment",
            Hold::Predecessor => {
                "the process before the upgrade still finishes requests; try again when it has ended, at the latest \
                 after proxy.shutdown_timeout"
            }
        };
        Some(Refusal { code: RefusalCode::CutoverUnderWay, message: message.into() })
    }

    pub(super) fn begin_upgrade(&mut self, by: String, answer: oneshot::Sender<Result<Upgraded, Refusal>>) {
        if let Some(refusal) = self.held().or_else(|| self.busy()) {
            self.ledger.write(Line::new("upgrade refused:").with("why", &refusal.message).with("by", by));
            self.emit(EventKind::Upgrade, None, format!("not upgraded: {refusal}"));
            return self.reply(answer, Err(refusal));
        }
        let Some(begin) = &self.handover.begin else { return };
        begin();
        self.handover.hold = Some(Hold::Upgrading);
        self.handover.asker = Some((by, answer));
    }

    /// What a successor would not know of, or could not judge.
    fn busy(&self) -> Option<Refusal> {
        let what = |name: &str| {
            let managed = &self.services[name];
            let machine = &managed.machine;
            match () {
                () if managed.save_problem.is_some() => {
                    Some("its state is not saved, so a new process would not know it")
                }
                () if managed.frost.freezer.freeze().is_some() => Some("it is frozen; thaw it first"),
                () if machine.is_saving() => Some("a flip is being saved"),
                () if machine.is_watching() => Some("a release is being watched; upgrade after the verdict"),
                () if !machine.drains().is_empty() => Some("the color before still finishes requests"),
                () => None,
            }
        };
        self.services.keys().find_map(|name| {
            let message = format!("{name}: {}; nothing was changed, see `cutover status`", what(name)?);
            Some(Refusal { code: RefusalCode::CutoverUnderWay, message })
        })
    }

    pub(super) fn end_upgrade(&mut self, outcome: Result<Upgraded, String>) {
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
    pub(super) fn reload_later(&mut self) {
        self.handover.reload_due = true;
    }

    /// Changes may be made again, first those that came meanwhile.
    pub(super) fn release(&mut self) {
        self.handover.hold = None;
        if std::mem::take(&mut self.handover.reload_due) {
            self.request_reload("after an upgrade", None);
        }
        for name in self.services_with_flip_due() {
            self.flip_by_config(&name, "config changed before the start");
        }
    }

    fn services_with_flip_due(&self) -> Vec<String> {
        let due = self
            .services
            .iter()
            .filter(|(_, managed)| managed.config_flip_due && managed.is_known(managed.config.active));
        due.map(|(name, _)| name.clone()).collect()
    }
}
