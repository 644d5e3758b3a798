//! Feeds events to the machines, and carries out what they want done.

use crate::api::Drained;
use crate::control::messages::{announcement, api_verdict, noted, refusal, seconds};
use crate::control::task::Task;
use crate::control::task::evidence;
use crate::control::task::saves::Saved;
use crate::domain::cutover::{ChangeError, Effect, Event, Notice, UnderWay, WatchEnd};
use crate::os::clock;

impl Task {
    /// Tells one machine what happened, and does what it says.
    pub(super) fn handle_event(&mut self, name: &str, event: Event) {
        let Some(service) = self.services.get_mut(name) else { return };
        let effects = service.machine.on(event, clock::now());
        self.apply_effects(name, effects);
    }

    /// Carries out the effects in their order, and lets everything that depends on the machine follow it.
    pub(super) fn apply_effects(&mut self, name: &str, effects: Vec<Effect>) {
        self.schedule.invalidate();
        for effect in effects {
            match effect {
                Effect::Save { serial, state } => {
                    if let Some(refused) = self.saves.push(name, serial, state) {
                        self.on_saved(refused);
                    }
                }
                Effect::Publish { color, epoch } => {
                    let Some(service) = self.services.get_mut(name) else { return };
                    let lives_long = service.route.has_long_lived(color.other());
                    let (replaced, left) = service.publish(color, epoch);
                    self.drains.add_route(name, replaced);
                    self.drains.add_left(name, left, epoch - 1);
                    if lives_long {
                        self.drains.wake_workers();
                    }
                }
                Effect::Cut { epoch } => self.drains.cut(name, epoch),
                Effect::Report(notice) => self.report(name, &notice),
            }
        }
        if let Some(service) = self.services.get_mut(name) {
            service.follow_machine();
            // A forced change may lead to a color that is down, and a rollback away from one.
            let outage = service.look_for_outage();
            self.report_outage(name, outage);
        }
        self.empty_idle(name);
    }

    pub(super) fn on_saved(&mut self, Saved { service: name, serial, outcome }: Saved) {
        self.saves.on_saved();
        let Some(service) = self.services.get_mut(&name) else { return };
        let now = clock::now();
        if outcome.is_ok() {
            self.disk_problem = None;
        }
        if let Err(why) = &outcome {
            tracing::error!(service = name, "state not saved: {why}");
            self.schedule.on_save_failed(now);
        }
        service.saving.problem = outcome.as_ref().err().cloned();
        service.refresh_baseline(now);
        self.handle_event(&name, Event::Saved { serial, outcome });
    }

    /// Saves the first state of services that are new. On a disk that was full at the start every state is saved: that
    /// fails until there is room, is tried again until then, and so tells when the problem is over.
    pub(super) fn save_new(&mut self) {
        let is_disk_full = self.disk_problem.is_some();
        for name in self.names_where(|service| service.saving.is_new || is_disk_full) {
            let Some(service) = self.services.get_mut(&name) else { continue };
            service.saving.is_new = false;
            let effects = service.machine.save_present();
            self.apply_effects(&name, effects);
        }
    }

    /// Saves again what could not be saved.
    pub(super) fn save_failed_again(&mut self) {
        for name in self.names_where(|service| service.saving.problem.is_some()) {
            let Some(service) = self.services.get_mut(&name) else { continue };
            let effects = service.machine.save_present();
            self.apply_effects(&name, effects);
        }
    }

    /// Puts a notice into ledger, event stream and status, and answers whoever waited for it.
    fn report(&mut self, name: &str, notice: &Notice) {
        let mut announcement = announcement(name, notice);
        let Some(service) = self.services.get_mut(name) else { return };
        if let Notice::RolledBack { change, evidence: Some(found), .. } = notice {
            let folder = evidence::folder_of(&self.config.state.ledger);
            let what = announcement.sentence.clone();
            if let Some(file) = evidence::begin(service, change, found, what, &folder, &self.evidence_results) {
                announcement = announcement.with_evidence(&file);
            }
        }
        let sentence = announcement.sentence.clone();
        self.reporter.announce(name, announcement);
        match notice {
            Notice::Flipped { change, .. } => {
                service.watch.on_flip();
                self.counters.count_change(name, change);
                if let Some(reply) = service.replies.take_change() {
                    self.answer_change(name, reply, change);
                }
            }
            Notice::RolledBack { change, evidence, .. } => {
                if evidence.is_some() {
                    service.watch.on_verdict(sentence, None);
                }
                service.forget_history(change.from);
                self.counters.count_change(name, change);
            }
            // A flip that was being saved was given up; the other refusals are answered where they are asked.
            Notice::Refused {
                error: error @ (ChangeError::Unsaved { .. } | ChangeError::UnderWay { what: UnderWay::Overtaken }),
                ..
            } => {
                if let Some(reply) = service.replies.take_change() {
                    self.reporter.reply(reply.answer, Err(refusal(name, error)));
                }
            }
            Notice::Refused { .. } => {}
            Notice::Noted { color, note, .. } => {
                let (word, message) = noted(*color, note);
                service.watch.note(word, message);
            }
            Notice::WatchEnded { color, end, .. } => {
                if matches!(end, WatchEnd::Superseded) {
                    // The color was left unproven, so it is no yardstick.
                    service.forget_history(*color);
                }
                service.watch.on_verdict(sentence, Some(api_verdict(end)));
                drop(service.watch.take_failures());
                self.counters.count_watch_end(name, end.kind());
            }
            Notice::Drained { epoch, took, cut, .. } => {
                let drained = Drained { seconds: seconds(*took), cut: *cut };
                for reply in service.replies.on_drained(*epoch, drained) {
                    self.reporter.reply(reply.answer, Ok(reply.value));
                }
            }
        }
    }
}
