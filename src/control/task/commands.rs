//! What operators ask, and what they are answered.
//!
//! An answer is sent once the ledger has the lines that led to it; a flip's waits for the drain as well.

use tokio::sync::oneshot;

use crate::api::status::{Changed, Refusal, RefusalCode, Status};
use crate::control::messages::{WATCH_ENDS, refusal};
use crate::control::service::status;
use crate::control::service::{ChangeReply, DrainReply, ServiceState};
use crate::control::task::upgrade::Stage;
use crate::control::task::{LEDGER_WAIT, Task};
use crate::control::{ChangeCommand, Command, StatusSnapshot};
use crate::domain::Color;
use crate::domain::cutover::{Change, ChangeError, ChangeRequest, Effect, Event, GateError, Notice, Reason, Requested};
use crate::os::clock;

impl Task {
    pub(in crate::control) fn on_command(&mut self, command: Command) {
        let held = self.held();
        match command {
            // A caller that has left is no concern.
            Command::Observe(answer) => drop(answer.send(self.observe())),
            Command::Upgrade { by, answer } => self.begin_upgrade(by, answer),
            Command::HandOver(answer) => drop(answer.send(self.hand_over())),
            Command::UpgradeEnded(outcome) => self.end_upgrade(outcome),
            Command::Judge => self.handover.stage = Stage::Judging,
            Command::Alone => self.release(),
            Command::Flip(_, answer) | Command::Rollback(_, answer) if let Some(refusal) = held => {
                self.reply(answer, Err(refusal));
            }
            // It would hold nothing of what goes through the other process.
            Command::Freeze(_, _, answer) if let Some(refusal) = held => self.reply(answer, Err(refusal)),
            Command::Drain(_, answer) if let Some(refusal) = held => self.reply(answer, Err(refusal)),
            Command::Flip(change, answer) => self.flip(change, answer),
            Command::Rollback(change, answer) => self.roll_back(change, answer),
            Command::Drain(name, answer) => match self.services.get_mut(&name) {
                None => self.reply(answer, Err(unknown(&name))),
                Some(managed) => {
                    managed.drain_waiters.push(answer);
                    self.empty_idle(&name);
                }
            },
            Command::Preview(name, lasting, by, answer) => {
                let pass = self.pass(&name, lasting, &by);
                self.reply(answer, pass);
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

    fn flip(&mut self, change: ChangeCommand, answer: oneshot::Sender<Result<Changed, Refusal>>) {
        let ChangeCommand { service: name, if_epoch, request } = change;
        let Some(managed) = self.services.get_mut(&name) else { return self.reply(answer, Err(unknown(&name))) };
        let Some(to) = request.to else {
            let message = "a flip needs `to`: \"blue\" or \"green\"".into();
            return self.reply(answer, Err(Refusal { code: RefusalCode::BadRequest, message }));
        };
        let by = request.by.unwrap_or_else(|| "api".into());
        let wanted = ChangeRequest { by, if_epoch, force: request.force, gate: managed.gate(to) };
        if request.dry_run {
            let would = managed.machine.check_flip(to, &wanted).map(|()| would_be(&name, managed, to));
            return self.reply(answer, would.map_err(|why| refusal(&name, &why)));
        }
        let effects = managed.machine.on(Event::Flip { to, request: wanted }, clock::now());
        let asker = ChangeReply { answer, wait: request.wait.unwrap_or(true) };
        let refused = refused_of(&effects, Requested::Flip(to)).map(|why| refusal(&name, why));
        if refused.is_none() {
            managed.asker = Some(asker);
            return self.apply_effects(&name, effects);
        }
        self.apply_effects(&name, effects);
        if let Some(refused) = refused {
            self.reply(asker.answer, Err(refused));
        }
    }

    fn roll_back(&mut self, change: ChangeCommand, answer: oneshot::Sender<Result<Changed, Refusal>>) {
        let ChangeCommand { service: name, if_epoch, request } = change;
        let Some(managed) = self.services.get_mut(&name) else { return self.reply(answer, Err(unknown(&name))) };
        let by = request.by.unwrap_or_else(|| "api".into());
        let gate = managed.rollback_gate(managed.machine.active().other()).map_err(GateError::NotReady);
        let wanted = ChangeRequest { by, if_epoch, force: request.force, gate };
        if request.dry_run {
            let would = managed.machine.check_rollback(&wanted).map(|to| would_be(&name, managed, to));
            return self.reply(answer, would.map_err(|why| refusal(&name, &why)));
        }
        let effects = managed.machine.on(Event::RollBack(wanted), clock::now());
        let asker = ChangeReply { answer, wait: request.wait.unwrap_or(true) };
        let refused = refused_of(&effects, Requested::Rollback).map(|why| refusal(&name, why));
        let made = effects.iter().find_map(|effect| match effect {
            Effect::Report(Notice::RolledBack { change, .. }) => Some(change.clone()),
            Effect::Report(_) | Effect::Save { .. } | Effect::Publish { .. } | Effect::Cut { .. } => None,
        });
        self.apply_effects(&name, effects);
        match (refused, made) {
            (Some(refused), _) => self.reply(asker.answer, Err(refused)),
            (None, Some(made)) => self.answer_made(&name, asker, &made),
            (None, None) => {}
        }
    }

    pub(in crate::control) fn observe(&self) -> StatusSnapshot {
        let now = clock::now();
        let mut problems = self.start_problems.clone();
        problems.extend(self.reload_problem.clone());
        problems.extend(self.services.iter().filter_map(|(name, managed)| {
            let why = managed.save_problem.as_ref()?;
            Some(format!("state of {name} is not saved ({why}): a restart would restore an older one; trying again"))
        }));
        problems.extend(self.services.values().filter_map(ServiceState::evidence_problem));
        let ledger_problem = self.ledger.problem();
        let ledger_ok = ledger_problem.is_none();
        problems.extend(ledger_problem);
        problems.extend((self.other_problem)());
        problems.extend(self.config.tls.warnings(clock::unix_seconds()));
        problems.extend(self.terminator.iter().flat_map(|terminator| terminator.problems()));
        let status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: self.started.clone(),
            config: self.config.path.display().to_string(),
            connections: (self.connections)(),
            problems,
            services: self
                .services
                .iter()
                .map(|(name, managed)| (name.clone(), status::service_status(managed, now)))
                .collect(),
            certificates: self.config.tls.identities.iter().map(status::certificate_status).collect(),
            ledger: self.ledger.tail(5),
        };
        let stats = |(name, managed): (&String, &ServiceState)| (name.clone(), managed.service.stats.clone());
        let rehearsals = |(name, managed): (&String, &ServiceState)| (name.clone(), managed.service.info.tap.counts());
        let held = |(name, managed): (&String, &ServiceState)| {
            let held = &managed.frost.held;
            (name.clone(), held.now(), held.ends())
        };
        let flips = |((name, to, reason), count): (&(String, Color, Reason), &u64)| {
            (name.clone(), *to, reason.as_str(), *count)
        };
        let watch_ends = self.services.keys().flat_map(|name| {
            WATCH_ENDS.map(|end| {
                let count = self.watch_ends.get(&(name.clone(), end)).copied().unwrap_or(0);
                (name.clone(), end, count)
            })
        });
        let ends = &self.client_ends;
        StatusSnapshot {
            status,
            stats: self.services.iter().map(stats).collect(),
            rehearsals: self.services.iter().map(rehearsals).collect(),
            held: self.services.iter().map(held).collect(),
            flips: self.flips.iter().map(flips).collect(),
            watch_ends: watch_ends.collect(),
            ledger_ok,
            certificates: self.config.tls.identities.iter().map(status::certificate_end).collect(),
            handshakes: self.terminator.iter().flat_map(|tls| tls.handshakes()).map(status::handshake).collect(),
            http2_ends: ends.http2.counts().into_iter().map(|(end, count)| (end.as_str(), count)).collect(),
            refusals: ends.refusals.counts().into_iter().map(|(why, count)| (why.as_str(), count)).collect(),
            reloads_ok: self.reloads_ok,
            reloads_failed: self.reloads_failed,
        }
    }

    pub(in crate::control) fn answer_made(&mut self, name: &str, asker: ChangeReply, made: &Change) {
        let Change { from, to, epoch, .. } = *made;
        let changed = Changed { service: name.to_owned(), from, to, epoch, dry_run: false, drain: None };
        match self.services.get_mut(name) {
            Some(managed) if asker.wait => {
                managed.waiters.push(DrainReply { epoch: epoch - 1, answer: asker.answer, changed });
            }
            Some(_) | None => self.reply(asker.answer, Ok(changed)),
        }
    }

    pub(in crate::control) fn answer_drained(&mut self, name: &str, epoch: u64) {
        let Some(managed) = self.services.get_mut(name) else { return };
        let drained = managed.last_drain;
        let (done, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut managed.waiters).into_iter().partition(|waiter| waiter.epoch == epoch);
        managed.waiters = waiting;
        for DrainReply { answer, changed, .. } in done {
            self.reply(answer, Ok(Changed { drain: Some(drained), ..changed }));
        }
    }

    /// Answers once the ledger has the lines that led to the answer.
    pub(in crate::control) fn reply<T: Send + 'static>(&self, answer: oneshot::Sender<T>, value: T) {
        let reached = self.ledger.reached();
        tokio::spawn(async move {
            drop(tokio::time::timeout(LEDGER_WAIT, reached).await);
            // An asker that has left does not care any more.
            drop(answer.send(value));
        });
    }
}

fn would_be(name: &str, managed: &ServiceState, to: Color) -> Changed {
    let (from, epoch) = (managed.machine.active(), managed.machine.epoch() + 1);
    Changed { service: name.to_owned(), from, to, epoch, dry_run: true, drain: None }
}

/// Why what was `requested` is refused, where the effects say so.
pub(in crate::control) fn refused_of(effects: &[Effect], requested: Requested) -> Option<&ChangeError> {
    effects.iter().find_map(|effect| match effect {
        Effect::Report(Notice::Refused { requested: refused, error, .. }) if *refused == requested => Some(error),
        Effect::Report(_) | Effect::Save { .. } | Effect::Publish { .. } | Effect::Cut { .. } => None,
    })
}

pub(in crate::control) fn unknown(name: &str) -> Refusal {
    Refusal {
        code: RefusalCode::UnknownService,
        message: format!("no service is called {name:?}; see `cutover status`"),
    }
}
