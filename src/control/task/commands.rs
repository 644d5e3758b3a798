//! What operators and config ask of the machines, and what the askers are answered.
//!
//! An answer is sent once the ledger has the lines that led to it; a flip's waits for the drain as well.

use tokio::sync::oneshot;

use crate::api::{Changed, Refusal, RefusalCode};
use crate::control::deploy_block::{self, AskedChange};
use crate::control::handle::{ChangeCommand, Command};
use crate::control::messages::{refusal, unknown};
use crate::control::service::ServiceState;
use crate::control::service::replies::{ChangeReply, ReplyAt};
use crate::control::task::{Task, preview};
use crate::domain::Color;
use crate::domain::cutover::{Change, ChangeError, ChangeRequest, Effect, Event, GateError, Notice, Requested};
use crate::os::clock;

impl Task {
    pub(in crate::control) fn on_command(&mut self, command: Command) {
        let blocked = self.upgrade.blocks_changes();
        match command {
            // A caller that has left is no concern.
            Command::Observe(answer) => drop(answer.send(self.observe())),
            Command::Upgrade { by, answer } => self.begin_upgrade(by, answer),
            Command::HandOver(answer) => drop(answer.send(self.hand_over())),
            Command::UpgradeEnded(outcome) => self.end_upgrade(outcome),
            Command::Judge => self.upgrade.judge_from_now_on(),
            Command::Alone => self.allow_changes(),
            Command::Flip(_, answer) | Command::Rollback(_, answer) if let Some(refusal) = blocked => {
                self.reporter.reply(answer, Err(refusal));
            }
            // A freeze would hold nothing of what goes through the other process.
            Command::Freeze(_, _, answer) if let Some(refusal) = blocked => {
                self.reporter.reply(answer, Err(refusal));
            }
            Command::Drain(_, answer) if let Some(refusal) = blocked => self.reporter.reply(answer, Err(refusal)),
            Command::Flip(change, answer) => self.flip(change, answer),
            Command::Rollback(change, answer) => self.roll_back(change, answer),
            Command::Drain(name, answer) => match self.services.get_mut(&name) {
                None => self.reporter.reply(answer, Err(unknown(&name))),
                Some(service) => {
                    service.replies.await_idle(answer);
                    self.empty_idle(&name);
                }
            },
            Command::Preview(name, lasting, by, answer) => {
                let service = self.services.get(&name).ok_or_else(|| unknown(&name));
                let pass = service.and_then(|service| preview::pass(&name, service, lasting, &by));
                self.reporter.reply(answer, pass);
            }
            Command::Freeze(name, request, answer) => self.freeze(&name, request, answer),
            Command::Thaw(name, request, answer) => self.thaw(&name, request, answer),
            Command::Rehearsal(name, answer) => {
                let report = self.services.get(&name).map(ServiceState::rehearsal_report);
                drop(answer.send(report.ok_or_else(|| unknown(&name))));
            }
            Command::Reload { by, answer } => self.request_reload(&by, Some(answer)),
        }
    }

    fn flip(&mut self, command: ChangeCommand, answer: oneshot::Sender<Result<Changed, Refusal>>) {
        let ChangeCommand { service: name, if_epoch, request } = command;
        let Some(service) = self.services.get_mut(&name) else {
            return self.reporter.reply(answer, Err(unknown(&name)));
        };
        let Some(to) = request.to else {
            let message = "a flip needs `to`: \"blue\" or \"green\"".into();
            return self.reporter.reply(answer, Err(Refusal { code: RefusalCode::BadRequest, message }));
        };
        let by = request.by.unwrap_or_else(|| "api".into());
        let block = deploy_block::find(&self.config.state.dir, &name, to, AskedChange::Flip);
        let gate = block.map_or_else(|| service.flip_gate(to), |why| Err(GateError::UnderDeploy(why)));
        let wanted = ChangeRequest { by, if_epoch, force: request.force, gate };
        if request.dry_run {
            let would = service.machine.check_flip(to, &wanted).map(|()| would_be(&name, service, to));
            return self.reporter.reply(answer, would.map_err(|why| refusal(&name, &why)));
        }
        let effects = service.machine.on(Event::Flip { to, request: wanted }, clock::now());
        let reply = ChangeReply { answer, at: reply_at(request.wait) };
        let refused = refused_of(&effects, Requested::Flip(to)).map(|why| refusal(&name, why));
        if refused.is_none() {
            service.replies.await_change(reply);
            return self.apply_effects(&name, effects);
        }
        self.apply_effects(&name, effects);
        if let Some(refused) = refused {
            self.reporter.reply(reply.answer, Err(refused));
        }
    }

    fn roll_back(&mut self, command: ChangeCommand, answer: oneshot::Sender<Result<Changed, Refusal>>) {
        let ChangeCommand { service: name, if_epoch, request } = command;
        let Some(service) = self.services.get_mut(&name) else {
            return self.reporter.reply(answer, Err(unknown(&name)));
        };
        let by = request.by.unwrap_or_else(|| "api".into());
        let to = service.machine.active().other();
        let block = deploy_block::find(&self.config.state.dir, &name, to, AskedChange::Rollback);
        let gate = block.map_or_else(|| service.rollback_gate(), |why| Err(GateError::UnderDeploy(why)));
        let wanted = ChangeRequest { by, if_epoch, force: request.force, gate };
        if request.dry_run {
            let would = service.machine.check_rollback(&wanted).map(|to| would_be(&name, service, to));
            return self.reporter.reply(answer, would.map_err(|why| refusal(&name, &why)));
        }
        let effects = service.machine.on(Event::RollBack(wanted), clock::now());
        let reply = ChangeReply { answer, at: reply_at(request.wait) };
        let refused = refused_of(&effects, Requested::Rollback).map(|why| refusal(&name, why));
        let change = effects.iter().find_map(|effect| match effect {
            Effect::Report(Notice::RolledBack { change, .. }) => Some(change.clone()),
            Effect::Report(_) | Effect::Save { .. } | Effect::Publish { .. } | Effect::Cut { .. } => None,
        });
        self.apply_effects(&name, effects);
        match (refused, change) {
            (Some(refused), _) => self.reporter.reply(reply.answer, Err(refused)),
            (None, Some(change)) => self.answer_change(&name, reply, &change),
            (None, None) => {}
        }
    }

    /// Lets the machine see a changed `active` of the config, as soon as the probes know its color: before that the
    /// gate would say no whatever is there. Says what comes of it; `None` where nothing has changed.
    pub(in crate::control) fn flip_by_config(&mut self, name: &str) -> Option<String> {
        let service = self.services.get_mut(name)?;
        let by = service.config_flip_due.take()?;
        let active = service.config.active;
        if active != service.machine.active() && !service.upstreams.is_known(active) {
            service.config_flip_due = Some(by);
            return Some(format!("{name}: `active` changed: flipping to {active} as soon as its probes have a result"));
        }
        let block = deploy_block::find(&self.config.state.dir, name, active, AskedChange::Flip);
        let gate = block.map_or_else(|| service.flip_gate(active), |why| Err(GateError::UnderDeploy(why)));
        let request = ChangeRequest { by, if_epoch: None, force: false, gate };
        let effects = service.machine.on(Event::ConfigActive { active, request }, clock::now());
        let refused = refused_of(&effects, Requested::Flip(active)).map(|why| refusal(name, why).message);
        self.apply_effects(name, effects);
        Some(match refused {
            None => format!("{name}: `active` changed to {active}"),
            Some(why) => format!("{name}: `active` changed, and the flip to {active} was refused: {why}"),
        })
    }

    /// Answers a change that was made, now or when the old color is drained.
    pub(in crate::control) fn answer_change(&mut self, name: &str, reply: ChangeReply, change: &Change) {
        let Change { from, to, epoch, .. } = *change;
        let changed = Changed { service: name.to_owned(), from, to, epoch, dry_run: false, drain: None };
        let Some(service) = self.services.get_mut(name) else {
            return self.reporter.reply(reply.answer, Ok(changed));
        };
        if let Some(due) = service.replies.on_change(reply, epoch - 1, changed) {
            self.reporter.reply(due.answer, Ok(due.value));
        }
    }
}

/// When a caller is answered who says so, or does not.
fn reply_at(wait: Option<bool>) -> ReplyAt {
    if wait.unwrap_or(true) { ReplyAt::Drained } else { ReplyAt::Change }
}

fn would_be(name: &str, service: &ServiceState, to: Color) -> Changed {
    let (from, epoch) = (service.machine.active(), service.machine.epoch() + 1);
    Changed { service: name.to_owned(), from, to, epoch, dry_run: true, drain: None }
}

/// Why what was `requested` is refused, where the effects say so.
fn refused_of(effects: &[Effect], requested: Requested) -> Option<&ChangeError> {
    effects.iter().find_map(|effect| match effect {
        Effect::Report(Notice::Refused { requested: refused, error, .. }) if *refused == requested => Some(error),
        Effect::Report(_) | Effect::Save { .. } | Effect::Publish { .. } | Effect::Cut { .. } => None,
    })
}
