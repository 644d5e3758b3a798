//! Reading the config again: by HUP, by the API, or because a file changed.
//!
//! What cannot be loaded changes nothing. What can is taken in force service by service; colors and epochs stay, and a
//! flip follows only where `active` differs from the value last loaded, through the same gate as any other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::api::status::{EventKind, Refusal, RefusalCode, Reloaded};
use crate::config::{self, Config};
use crate::control::file_watch::{self, Contents};
use crate::control::saved_state::StateFolder;
use crate::control::service::{ReplacedRoute, ServiceState, timing};
use crate::control::task::Task;
use crate::control::task::commands::unknown;
use crate::control::task::drain::DrainCause;
use crate::domain::Color;
use crate::domain::cutover::{Cutover, SavedState};
use crate::os::clock;
use crate::routing::HostTable;
use crate::tls;

/// Loads a config, or says everything that is wrong with it.
pub type ConfigLoader = Arc<dyn Fn(&Path) -> Result<Config, String> + Send + Sync>;

type Answer = Option<oneshot::Sender<Result<Reloaded, Refusal>>>;

/// A reload that was asked for.
pub(in crate::control) struct ReloadRequest {
    by: String,
    answer: Answer,
    /// The services in force, whose state is not to be read.
    known: BTreeSet<String>,
    /// The files in force.
    files: Vec<PathBuf>,
}

/// What the file said.
pub(in crate::control) struct LoadedConfig {
    request: ReloadRequest,
    outcome: Result<Config, String>,
    /// What was on the disk when it was read.
    contents: Contents,
    /// Of services that are new, what was saved for them when they were here before.
    saved: Vec<(String, Result<Option<SavedState>, String>)>,
}

/// Loads the config at `path` for each request, one after the other, so that the newest content is in force last.
pub(in crate::control) async fn load_each(
    path: PathBuf,
    load: ConfigLoader,
    store: StateFolder,
    mut requests: mpsc::Receiver<ReloadRequest>,
    loaded: mpsc::Sender<LoadedConfig>,
) {
    while let Some(request) = requests.recv().await {
        let (load, path, store) = (Arc::clone(&load), path.clone(), store.clone());
        let (known, files) = (request.known.clone(), request.files.clone());
        let read = move || {
            let (outcome, contents) = load_whole(&load, &path, files);
            let services = outcome.iter().flat_map(|config| &config.services);
            let new = services.filter(|config| !known.contains(&config.name));
            let saved = new.map(|config| (config.name.clone(), store.load(&config.name, clock::now()))).collect();
            (outcome, contents, saved)
        };
        let (outcome, contents, saved) = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| {
            (Err(format!("loading the config failed: {error}")), Contents::default(), Vec::new())
        });
        if loaded.send(LoadedConfig { request, outcome, contents, saved }).await.is_err() {
            return;
        }
    }
}

/// Loads the config, and says what was on the disk *before* it was read: a change in between is then a change to come.
fn load_whole(load: &ConfigLoader, path: &Path, files: Vec<PathBuf>) -> (Result<Config, String>, Contents) {
    let mut contents = file_watch::contents(files);
    loop {
        let outcome = load(path);
        let named = outcome.as_ref().map(files_of).unwrap_or_default();
        let new: Vec<_> = named.iter().filter(|file| !contents.contains_key(*file)).cloned().collect();
        if new.is_empty() {
            // After a refusal all files stay watched: the way out may be in any of them.
            contents.retain(|file, _| outcome.is_err() || named.contains(file));
            return (outcome, contents);
        }
        contents.extend(file_watch::contents(new));
    }
}

/// The files whose content the config comes from.
pub(in crate::control) fn files_of(config: &Config) -> Vec<PathBuf> {
    let env_files =
        config.services.iter().flat_map(|service| &service.colors).filter_map(|color| color.env_file.clone());
    let tls = &config.tls;
    let pairs = tls.identities.iter().flat_map(|identity| [identity.cert.clone(), identity.key.clone()]);
    let authorities = tls.clients.iter().map(|clients| clients.ca.clone());
    // Also those that are not there yet.
    let ordered = tls.acme.iter().flat_map(|acme| acme.domains.iter().map(|domain| acme.files(domain)));
    let pairs = pairs.chain(ordered.flat_map(<[PathBuf; 2]>::from));
    let files: BTreeSet<PathBuf> = env_files.chain(pairs).chain(authorities).chain([config.path.clone()]).collect();
    files.into_iter().collect()
}

/// What the files of `config` hold; nothing if it is not what they say any more, so that they are loaded again.
pub(in crate::control) fn contents_of(config: &Config, load: &ConfigLoader) -> Contents {
    let files = files_of(config);
    let contents = file_watch::contents(files.iter().cloned());
    match load(&config.path) {
        Ok(same) if same == *config => contents,
        Ok(_) | Err(_) => files.into_iter().map(|file| (file, None)).collect(),
    }
}

/// The table of all services, in the order of the config.
pub(in crate::control) fn table_of<'a>(services: impl Iterator<Item = &'a ServiceState>) -> HostTable {
    HostTable::new(services.map(|managed| (&managed.config, Arc::clone(&managed.service))))
}

impl Task {
    /// Asks for a reload; [`Task::on_loaded`] follows.
    pub(in crate::control) fn request_reload(&mut self, by: &str, answer: Answer) {
        if let Some(refusal) = self.held() {
            match answer {
                Some(answer) => self.reply(answer, Err(refusal)),
                None => self.reload_later(),
            }
            return;
        }
        let known = self.services.keys().cloned().collect();
        let files = self.files.borrow().keys().cloned().collect();
        let request = ReloadRequest { by: by.to_owned(), answer, known, files };
        if let Err(refused) = self.reloads.try_send(request)
            && let Some(answer) = refused.into_inner().answer
        {
            let message = "too many reloads are waiting; try again in a moment".into();
            self.reply(answer, Err(Refusal { code: RefusalCode::CutoverUnderWay, message }));
        }
    }

    /// Takes what was loaded in force, or says why not.
    pub(in crate::control) fn on_loaded(&mut self, loaded: LoadedConfig) {
        let LoadedConfig { request: ReloadRequest { by, answer, .. }, outcome, contents, saved } = loaded;
        if !contents.is_empty() {
            self.files.send_replace(contents);
        }
        if let Some(refusal) = self.held() {
            // It was asked for before the upgrade began.
            self.reload_later();
            return answer.into_iter().for_each(|answer| self.reply(answer, Err(refusal.clone())));
        }
        let outcome = match outcome {
            Ok(config) => {
                let reloaded = self.take_in_force(config, saved.into_iter().collect(), &by);
                self.reloads_ok += 1;
                self.reload_problem = None;
                let changes =
                    if reloaded.changes.is_empty() { "nothing changed".into() } else { reloaded.changes.join("; ") };
                self.emit(EventKind::Reload, None, format!("config read again ({by}): {changes}"));
                Ok(reloaded)
            }
            Err(problems) => {
                self.reloads_failed += 1;
                tracing::error!("config not taken in force ({by}), the one before stays: {problems}");
                let path = self.config.path.display();
                self.reload_problem =
                    Some(format!("{path} is not valid, the config before it stays in force: {problems}"));
                self.emit(EventKind::Reload, None, format!("config refused ({by}), nothing changed: {problems}"));
                Err(Refusal { code: RefusalCode::BadConfig, message: problems })
            }
        };
        if let Some(answer) = answer {
            self.reply(answer, outcome);
        }
    }

    fn take_in_force(
        &mut self,
        new: Config,
        mut saved: BTreeMap<String, Result<Option<SavedState>, String>>,
        by: &str,
    ) -> Reloaded {
        let mut changes = needs_restart(&self.config, &new);
        self.publish_tls(&new, &mut changes);
        self.remove_missing(&new, &mut changes);
        let now = clock::now();
        for config in &new.services {
            match self.services.get_mut(&config.name) {
                Some(managed) if managed.config == *config => {}
                Some(managed) => {
                    describe(&managed.config, config, &mut changes);
                    let replaced = managed.reconfigure(config.clone(), &self.bell, now);
                    managed.set_rehearsal();
                    let service = config.name.clone();
                    self.leaving.extend(replaced.map(|route_handle| ReplacedRoute { service, route_handle }));
                }
                None => {
                    let record = saved.remove(&config.name).unwrap_or(Ok(None)).unwrap_or_else(|problem| {
                        changes.push(problem);
                        None
                    });
                    let is_unsaved = record.is_none();
                    let machine = Cutover::restore(record.unwrap_or_else(|| first_record(config)), timing(config), now);
                    changes.push(format!("{}: added, {} is active", config.name, machine.active()));
                    let mut managed =
                        ServiceState::new(config.clone(), machine, self.workers, &self.bell, Arc::clone(&self.key));
                    managed.is_unsaved = is_unsaved;
                    self.services.insert(config.name.clone(), managed);
                }
            }
        }
        self.table.store(Arc::new(table_of(new.services.iter().filter_map(|config| self.services.get(&config.name)))));
        // What needs a restart stays as it is in force, so that the next reload says so again.
        self.config.services = new.services;
        self.save_new();
        self.start_probes();
        self.schedule.is_stale = true;
        for managed in self.services.values_mut() {
            let has_changed = managed.machine.saved_state().config_active != managed.config.active;
            let first = managed.config_flip_due.take();
            managed.config_flip_due = has_changed.then(|| first.unwrap_or_else(|| by.to_owned()));
        }
        for name in self.names_where(|managed| managed.config_flip_due.is_some()) {
            changes.extend(self.flip_by_config(&name));
        }
        Reloaded { changes }
    }

    /// New connections are met with what was loaded; those that are open keep what they have.
    fn publish_tls(&mut self, new: &Config, changes: &mut Vec<String>) {
        let now = &self.config.tls;
        // These two are only read at start.
        let new = tls::Settings { acme: now.acme.clone(), http2: now.http2, ..new.tls.clone() };
        if new == *now {
            return;
        }
        match self.terminator.as_ref().map(|tls| tls.publish(&new)) {
            Some(Ok(())) => {
                describe_tls(now, &new, changes);
                for warning in new.warnings(clock::unix_seconds()) {
                    tracing::warn!("{warning}");
                    changes.push(warning);
                }
                self.config.tls = new;
            }
            Some(Err(error)) => {
                changes.push(format!("tls: stays as it is, there are no keys for its sessions: {error}"))
            }
            None => self.config.tls = new, // nobody is met with it until a restart
        }
    }

    fn remove_missing(&mut self, new: &Config, changes: &mut Vec<String>) {
        let kept: BTreeSet<&str> = new.services.iter().map(|config| config.name.as_str()).collect();
        let gone: Vec<String> = self.services.keys().filter(|name| !kept.contains(name.as_str())).cloned().collect();
        for name in gone {
            // While its route can still be found.
            self.stop_freeze(&name);
            let Some(managed) = self.services.remove(&name) else { continue };
            let waiters = managed.waiters.into_iter().map(|waiter| waiter.answer);
            for answer in waiters.chain(managed.asker.map(|asker| asker.answer)) {
                self.reply(answer, Err(unknown(&name)));
            }
            for answer in managed.drain_waiters {
                self.reply(answer, Err(unknown(&name)));
            }
            // One that comes back under this name has an idle color of its own.
            self.draining.retain(|one| one.service != name || matches!(one.by, DrainCause::Flip { .. }));
            changes.push(format!("{name}: removed; requests in flight finish"));
        }
    }
}

/// What a service begins with that nothing was saved for.
pub(in crate::control) fn first_record(config: &config::Service) -> SavedState {
    let active = config.active;
    SavedState { active, epoch: 1, previous: None, config_active: active, watch_until: None, rolled_back: None }
}

/// A sentence for each setting that differs and is only read at start.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let (a, b) = (&old.proxy, &new.proxy);
    let differs = [
        ("proxy.listen", a.listen != b.listen),
        ("proxy.listen_tls", a.listen_tls != b.listen_tls),
        ("proxy.redirect_to_tls", a.redirect_to_tls != b.redirect_to_tls),
        ("tls.acme", old.tls.acme != new.tls.acme),
        ("proxy.workers", a.workers != b.workers),
        ("proxy.trusted_proxies", a.trusted_proxies != b.trusted_proxies),
        ("proxy.proxy_protocol_from", a.proxy_protocol_from != b.proxy_protocol_from),
        ("proxy.header_timeout", a.header_timeout != b.header_timeout),
        ("proxy.body_timeout", a.body_timeout != b.body_timeout),
        ("proxy.idle_timeout", a.idle_timeout != b.idle_timeout),
        ("proxy.shutdown_timeout", a.shutdown_timeout != b.shutdown_timeout),
        ("proxy.max_connections", a.max_connections != b.max_connections),
        ("proxy.max_connections_per_client", a.max_connections_per_client != b.max_connections_per_client),
        ("proxy.max_requests_per_connection", a.max_requests_per_connection != b.max_requests_per_connection),
        ("proxy.min_body_rate", a.min_body_rate != b.min_body_rate),
        ("proxy.min_read_rate", a.min_read_rate != b.min_read_rate),
        ("proxy.max_header_bytes", a.max_header_bytes != b.max_header_bytes),
        ("proxy.max_body_bytes", a.max_body_bytes != b.max_body_bytes),
        ("proxy.via", a.via != b.via),
        ("proxy.http2", a.http2 != b.http2),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("admin.token_file", old.admin.token != new.admin.token),
        ("admin.socket", old.admin.socket != new.admin.socket),
        ("state.dir", old.state.dir != new.state.dir),
        ("state.ledger", old.state.ledger != new.state.ledger),
        ("log", old.log != new.log),
    ];
    let changed = differs.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(name, _)| format!("{name} changed: needs a restart")).collect()
}

/// A sentence for each certificate that differs, and one for the rest.
fn describe_tls(old: &tls::Settings, new: &tls::Settings, changes: &mut Vec<String>) {
    for identity in &new.identities {
        let cert = identity.cert.display();
        match old.identities.iter().find(|before| before.cert == identity.cert) {
            Some(before) if before == identity => {}
            Some(_) => changes.push(format!("tls: {cert} was renewed, it ends {}", identity.expires())),
            None => changes.push(format!("tls: {cert} added, it ends {}", identity.expires())),
        }
    }
    let stays = |gone: &tls::Identity| new.identities.iter().any(|identity| identity.cert == gone.cert);
    let removed = old.identities.iter().filter(|identity| !stays(identity));
    changes.extend(removed.map(|identity| format!("tls: {} removed", identity.cert.display())));
    let rest = |tls: &tls::Settings| tls::Settings { identities: Vec::new(), ..tls.clone() };
    if rest(old) != rest(new) {
        changes.push("tls: settings changed, for new connections".into());
    }
}

/// A sentence for each part of a service that differs.
fn describe(old: &config::Service, new: &config::Service, changes: &mut Vec<String>) {
    let addresses = |color: &config::ColorConfig| {
        let all: Vec<String> = color.upstreams.iter().map(ToString::to_string).collect();
        all.join(", ")
    };
    for color in Color::BOTH {
        let (before, after) = (addresses(&old.colors[color.index()]), addresses(&new.colors[color.index()]));
        if before != after {
            changes.push(format!("{}: {color} is now {after}, it was {before}", new.name));
        }
    }
    for color in Color::BOTH {
        let (before, after) = (&old.colors[color.index()], &new.colors[color.index()]);
        if (&before.image_tag, &before.project) != (&after.image_tag, &after.project) {
            let tag = after.image_tag.as_deref().unwrap_or("(none)");
            changes.push(format!("{}: {color} has image tag {tag}", new.name));
        }
    }
    let differs = [
        ("routing", (&old.hosts, &old.path_prefix) != (&new.hosts, &new.path_prefix)),
        ("upstream", old.upstream != new.upstream),
        ("health", old.health != new.health),
        ("watch", old.watch != new.watch),
        ("replay", old.replay != new.replay),
        ("rehearse", old.rehearse != new.rehearse),
        ("preview", old.preview != new.preview),
        ("skew_shield", old.skew_shield != new.skew_shield),
        ("drain", old.drain != new.drain),
        ("freeze", old.freeze != new.freeze),
        ("deploy", old.deploy != new.deploy),
        ("monitor", old.monitor != new.monitor),
    ];
    let changed = differs.into_iter().filter(|(_, differs)| *differs);
    changes.extend(changed.map(|(part, _)| format!("{}: {part} changed", new.name)));
}
