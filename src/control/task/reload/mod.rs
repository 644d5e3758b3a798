//! Takes a config in force that was read again: by HUP, by the API, or because a file changed.
//!
//! What cannot be loaded changes nothing. What can is taken in force service by service; colors and epochs stay, and a
//! flip follows only where `active` differs from the value last loaded, through the same gate as any other.

mod describe;
mod load;
mod reloads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{EventKind, Refusal, RefusalCode, Reloaded};
use crate::config::{self, Config};
use crate::control::messages::unknown;
use crate::control::service::{ServiceState, timing};
use crate::control::task::Task;
use crate::domain::cutover::{Cutover, SavedState};
use crate::os::clock;
use crate::routing::HostTable;
use crate::tls;
use describe::{describe, describe_tls, needs_restart};
use load::{LoadError, Reading, SavedBefore};
pub(in crate::control) use load::{Loaded, ReloadReply, ReloadRequest, contents_of, load_each};
pub(in crate::control) use reloads::Reloads;

/// The table of all services, in the order of the config.
pub(in crate::control) fn table_of<'a>(services: impl Iterator<Item = &'a ServiceState>) -> HostTable {
    HostTable::new(services.map(|service| (&service.config, Arc::clone(service.route.service()))))
}

/// The state of a service that nothing was saved for.
pub(in crate::control) fn first_state(config: &config::Service) -> SavedState {
    let active = config.active;
    SavedState { active, epoch: 1, previous: None, config_active: active, watch_until: None, rolled_back: None }
}

impl Task {
    /// Asks for a reload; [`Task::on_loaded`] follows.
    pub(in crate::control) fn request_reload(&mut self, by: &str, reply: ReloadReply) {
        if let Some(refusal) = self.upgrade.blocks_changes() {
            match reply {
                Some(answer) => self.reporter.reply(answer, Err(refusal)),
                None => self.upgrade.reload_later(),
            }
            return;
        }
        let known = self.services.keys().cloned().collect();
        let files = self.reloads.files.borrow().keys().cloned().collect();
        let request = ReloadRequest { by: by.to_owned(), reply, known, files };
        if let Err(refused) = self.reloads.requests.try_send(request)
            && let Some(answer) = refused.into_inner().reply
        {
            let message = "too many reloads are waiting; try again in a moment".into();
            self.reporter.reply(answer, Err(Refusal { code: RefusalCode::CutoverUnderWay, message }));
        }
    }

    /// Takes what was loaded in force, or says why not.
    pub(in crate::control) fn on_loaded(&mut self, loaded: Loaded) {
        let Loaded { request: ReloadRequest { by, reply, .. }, read: Reading { outcome, contents, saved } } = loaded;
        if !contents.is_empty() {
            self.reloads.files.send_replace(contents);
        }
        if let Some(refusal) = self.upgrade.blocks_changes() {
            // The reload was asked for before the upgrade began.
            self.upgrade.reload_later();
            return reply.into_iter().for_each(|answer| self.reporter.reply(answer, Err(refusal.clone())));
        }
        let outcome = match outcome {
            Ok(config) => Ok(self.accept(config, saved, &by)),
            Err(error) => Err(self.refuse(&error, &by)),
        };
        if let Some(answer) = reply {
            self.reporter.reply(answer, outcome);
        }
    }

    fn accept(&mut self, config: Config, saved: BTreeMap<String, SavedBefore>, by: &str) -> Reloaded {
        let reloaded = Reloaded { changes: self.take_in_force(config, saved, by) };
        self.reloads.counts.ok += 1;
        self.reloads.problem = None;
        let changes = if reloaded.changes.is_empty() { "nothing changed".into() } else { reloaded.changes.join("; ") };
        self.reporter.emit(EventKind::Reload, None, format!("config read again ({by}): {changes}"));
        reloaded
    }

    fn refuse(&mut self, error: &LoadError, by: &str) -> Refusal {
        self.reloads.counts.failed += 1;
        tracing::error!("config refused ({by}), the previous one stays in force: {error}");
        let path = self.config.path.display();
        self.reloads.problem = Some(format!("{path} is not valid, the previous config stays in force: {error}"));
        self.reporter.emit(EventKind::Reload, None, format!("config refused ({by}), nothing changed: {error}"));
        Refusal { code: RefusalCode::BadConfig, message: error.to_string() }
    }

    /// Returns a sentence for each thing that has changed.
    fn take_in_force(&mut self, new: Config, mut saved: BTreeMap<String, SavedBefore>, by: &str) -> Vec<String> {
        let mut changes = needs_restart(&self.config, &new);
        self.publish_tls(&new, &mut changes);
        self.remove_missing(&new, &mut changes);
        let now = clock::now();
        for config in &new.services {
            match self.services.get_mut(&config.name) {
                Some(service) if service.config == *config => {}
                Some(service) => {
                    describe(&service.config, config, &mut changes);
                    if let Some(replaced) = service.reconfigure(config.clone(), now) {
                        self.drains.add_route(&config.name, replaced);
                    }
                    service.update_rehearsal();
                }
                None => self.add(config, saved.remove(&config.name).unwrap_or(Ok(None)), &mut changes),
            }
        }
        let ordered = new.services.iter().filter_map(|config| self.services.get(&config.name));
        self.data_plane.table.store(Arc::new(table_of(ordered)));
        // What needs a restart stays as it is in force, so that the next reload says so again.
        self.config.services = new.services;
        self.save_new();
        self.start_probes();
        self.schedule.invalidate();
        for service in self.services.values_mut() {
            let has_changed = service.machine.saved_state().config_active != service.config.active;
            let first = service.config_flip_due.take();
            service.config_flip_due = has_changed.then(|| first.unwrap_or_else(|| by.to_owned()));
        }
        for name in self.names_where(|service| service.config_flip_due.is_some()) {
            changes.extend(self.flip_by_config(&name));
        }
        changes
    }

    /// Adds a service that was not in the config before.
    fn add(&mut self, config: &config::Service, saved: SavedBefore, changes: &mut Vec<String>) {
        let saved = saved.unwrap_or_else(|problem| {
            changes.push(problem.to_string());
            None
        });
        let is_new = saved.is_none();
        let saved = saved.unwrap_or_else(|| first_state(config));
        let machine = Cutover::restore(saved, timing(config), clock::now());
        changes.push(format!("{}: added, {} is active", config.name, machine.active()));
        let (plane, key) = (&self.data_plane, Arc::clone(&self.preview_key));
        let mut service = ServiceState::new(config.clone(), machine, plane.workers, &plane.failure_bell, key);
        service.saving.is_new = is_new;
        self.services.insert(config.name.clone(), service);
    }

    /// Meets new connections with the TLS settings that were loaded; those that are open keep what they have.
    fn publish_tls(&mut self, new: &Config, changes: &mut Vec<String>) {
        let now = &self.config.tls;
        // These two are only read at start.
        let new = tls::Settings { acme: now.acme.clone(), http2: now.http2, ..new.tls.clone() };
        if new == *now {
            return;
        }
        match self.data_plane.terminator.as_ref().map(|terminator| terminator.publish(&new)) {
            Some(Ok(())) => {
                describe_tls(now, &new, changes);
                for warning in new.warnings(clock::unix_seconds()) {
                    tracing::warn!("{warning}");
                    changes.push(warning);
                }
                self.config.tls = new;
            }
            Some(Err(error)) => {
                changes.push(format!("tls: not changed, because no session keys could be made: {error}"))
            }
            None => self.config.tls = new, // nobody is met with it until a restart
        }
    }

    fn remove_missing(&mut self, new: &Config, changes: &mut Vec<String>) {
        let kept: BTreeSet<&str> = new.services.iter().map(|config| config.name.as_str()).collect();
        let gone: Vec<String> = self.services.keys().filter(|name| !kept.contains(name.as_str())).cloned().collect();
        for name in gone {
            // The freeze ends while its route can still be found.
            self.stop_freeze(&name);
            let Some(service) = self.services.remove(&name) else { continue };
            let unanswered = service.replies.into_unanswered();
            for answer in unanswered.changes {
                self.reporter.reply(answer, Err(unknown(&name)));
            }
            for answer in unanswered.idle {
                self.reporter.reply(answer, Err(unknown(&name)));
            }
            self.drains.forget_idle(&name);
            changes.push(format!("{name}: removed; requests in flight finish"));
        }
    }
}
