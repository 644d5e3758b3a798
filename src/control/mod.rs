//! The control plane: one task owns every service's cutover machine. Events in, effects out.
//!
//! It never touches a client's bytes, and the data plane never waits for it. [`Handle`] is how the admin API, the
//! signals and the file watch reach it.

mod file_watch;
mod messages;
mod saved_state;
mod service;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use crate::api::status::{
    ChangeRequest, Changed, Drained, Event, FreezeRequest, Frozen, Pass, Refusal, RefusalCode, RehearsalReport,
    Reloaded, Status, ThawRequest, Thawed, Upgraded,
};
use crate::config::Config;
use crate::domain::Color;
use crate::domain::cutover::{Cutover, Phase};
use crate::handover::UpgradeState;
use crate::ledger::{Ledger, Place};
use crate::os::batch_thread;
use crate::os::clock;
use crate::routing::preview_token::PreviewKey;
use crate::routing::{ClientTerminations, ColorStats, HostTable, QueueOutcome, RehearsalResult};
use crate::tls::Terminator;

use saved_state::StateFolder;
#[cfg(fuzzing)]
pub use saved_state::fuzz as fuzz_state;
use service::{ServiceState, timing};
pub use task::reload::ConfigLoader;
use task::upgrade::Handover;
pub use task::upgrade::{InheritedCounters, counters};
use task::{Inbox, Save, Saved, Schedule, Task};

/// Events that a slow reader may fall behind by.
const EVENTS_MAX: usize = 256;
/// Commands, saves and probe results that may wait for the task; more make the sender wait.
const QUEUE_MAX: usize = 1024;

/// What is asked of the control task; each carries where to answer.
pub(crate) enum Command {
    Observe(oneshot::Sender<StatusSnapshot>),
    Flip(ChangeCommand, oneshot::Sender<Result<Changed, Refusal>>),
    Rollback(ChangeCommand, oneshot::Sender<Result<Changed, Refusal>>),
    /// Waits until the idle color holds no lease.
    Drain(String, oneshot::Sender<Result<Drained, Refusal>>),
    Freeze(String, FreezeRequest, oneshot::Sender<Result<Frozen, Refusal>>),
    Thaw(String, ThawRequest, oneshot::Sender<Result<Thawed, Refusal>>),
    Rehearsal(String, oneshot::Sender<Result<RehearsalReport, Refusal>>),
    /// A pass to the idle color of a service, for so long.
    Preview(String, Duration, String, oneshot::Sender<Result<Pass, Refusal>>),
    Reload {
        by: String,
        answer: oneshot::Sender<Result<Reloaded, Refusal>>,
    },
    Upgrade {
        by: String,
        answer: oneshot::Sender<Result<Upgraded, Refusal>>,
    },
    /// Nothing is judged from now on; answers what a successor goes on from.
    HandOver(oneshot::Sender<Result<UpgradeState, String>>),
    /// The upgrade that was asked for has ended, in one way or the other.
    UpgradeEnded(Result<Upgraded, String>),
    /// The process before this one judges no more.
    Judge,
    /// The process before this one has ended.
    Alone,
}

/// A change of one service, as it was asked for.
pub(crate) struct ChangeCommand {
    pub(crate) service: String,
    /// The epoch the asker has seen; another one is refused as stale.
    pub(crate) if_epoch: Option<u64>,
    pub(crate) request: ChangeRequest,
}

/// Everything that status and metrics are made of.
pub struct StatusSnapshot {
    /// As `GET /v1/status` says it.
    pub status: Status,
    /// Counters of the data plane, by service name, indexed by [`Color::index`].
    pub stats: Vec<(String, [Arc<ColorStats>; 2])>,
    /// Copies of requests by service name, then by [`RehearsalResult`].
    pub rehearsals: Vec<(String, [u64; RehearsalResult::ALL.len()])>,
    /// Requests held now, by service name, and how waits have ended, indexed like [`QueueOutcome::ALL`].
    pub held: Vec<(String, u64, [u64; QueueOutcome::ALL.len()])>,
    /// `(service, to, reason, count)`; reasons are "operator", "config", "verdict".
    pub flips: Vec<(String, Color, &'static str, u64)>,
    /// Watches that ended without taking traffic back: `(service, end, count)`, every end of every service; ends are
    /// "keep", "not-enough-traffic", "nowhere-to-go", "superseded".
    pub watch_ends: Vec<(String, &'static str, u64)>,
    /// Whether the ledger's last line got to the disk.
    pub ledger_ok: bool,
    /// `(file, unix time)`: when each certificate ends.
    pub certificates: Vec<(String, i64)>,
    /// `(how, count)`: how TLS handshakes ended; empty without a TLS listener.
    pub handshakes: Vec<(&'static str, u64)>,
    /// `(why, count)`: HTTP/2 connections that were ended for what the client did.
    pub http2_ends: Vec<(&'static str, u64)>,
    /// `(why, count)`: clients that were refused or ended by a limit, or for a mistake of theirs.
    pub refusals: Vec<(&'static str, u64)>,
    /// Reloads that took effect.
    pub reloads_ok: u64,
    /// Reloads that were refused.
    pub reloads_failed: u64,
}

/// The way to the control task; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: broadcast::Sender<Event>,
}

impl Handle {
    /// The present state of everything.
    ///
    /// # Errors
    /// [`RefusalCode::Stopping`] when the control task has ended.
    pub async fn observe(&self) -> Result<StatusSnapshot, Refusal> {
        self.ask(Command::Observe).await
    }

    /// Makes `request.to` the active color. Answers when the old color is drained, unless `request.wait` is false.
    ///
    /// # Errors
    /// Every [`RefusalCode`] about a gate, a conflict or the state folder; nothing has changed then.
    pub async fn flip(
        &self,
        service: String,
        if_epoch: Option<u64>,
        request: ChangeRequest,
    ) -> Result<Changed, Refusal> {
        self.ask(|answer| Command::Flip(ChangeCommand { service, if_epoch, request }, answer)).await?
    }

    /// Back to the color before this one. Answers like [`Handle::flip`].
    ///
    /// # Errors
    /// As for a flip, and [`RefusalCode::NothingToRollBack`].
    pub async fn rollback(
        &self,
        service: String,
        if_epoch: Option<u64>,
        request: ChangeRequest,
    ) -> Result<Changed, Refusal> {
        self.ask(|answer| Command::Rollback(ChangeCommand { service, if_epoch, request }, answer)).await?
    }

    /// Answers when the idle color holds no lease.
    ///
    /// # Errors
    /// [`RefusalCode::UnknownService`], [`RefusalCode::Stopping`].
    pub async fn drain(&self, service: String) -> Result<Drained, Refusal> {
        self.ask(|answer| Command::Drain(service, answer)).await?
    }

    /// Holds requests of a service from now on. Answers when those in flight have ended or `freeze.finish` has passed,
    /// unless `request.wait` is false.
    ///
    /// # Errors
    /// [`RefusalCode::AlreadyFrozen`] by somebody else, [`RefusalCode::NotFrozen`] for a renewal,
    /// [`RefusalCode::BadRequest`], [`RefusalCode::UnknownService`], [`RefusalCode::Stopping`].
    pub async fn freeze(&self, service: String, request: FreezeRequest) -> Result<Frozen, Refusal> {
        self.ask(|answer| Command::Freeze(service, request, answer)).await?
    }

    /// Lets the held requests of a service go. That it was not frozen is said, and is no error.
    ///
    /// # Errors
    /// [`RefusalCode::UnknownService`], [`RefusalCode::Stopping`].
    pub async fn thaw(&self, service: String, request: ThawRequest) -> Result<Thawed, Refusal> {
        self.ask(|answer| Command::Thaw(service, request, answer)).await?
    }

    /// What the rehearsal of the idle color has shown so far.
    ///
    /// # Errors
    /// [`RefusalCode::UnknownService`], [`RefusalCode::Stopping`].
    pub async fn rehearsal(&self, service: String) -> Result<RehearsalReport, Refusal> {
        self.ask(|answer| Command::Rehearsal(service, answer)).await?
    }

    /// A pass to the idle color that is good for `lasting`; `by` says who wants it, for the log.
    ///
    /// # Errors
    /// [`RefusalCode::UnknownService`], [`RefusalCode::PreviewOff`], [`RefusalCode::Stopping`].
    pub async fn preview(&self, service: String, lasting: Duration, by: String) -> Result<Pass, Refusal> {
        self.ask(|answer| Command::Preview(service, lasting, by, answer)).await?
    }

    /// Reads the config again; `by` is "HUP", "file change" or "api", for the log.
    ///
    /// # Errors
    /// [`RefusalCode::BadConfig`] with every problem; the config in force stays.
    pub async fn reload(&self, by: &str) -> Result<Reloaded, Refusal> {
        let by = by.to_owned();
        self.ask(|answer| Command::Reload { by, answer }).await?
    }

    /// Starts the binary anew and hands everything over to it; answers when the new process serves. `by` is for the
    /// ledger.
    ///
    /// # Errors
    /// [`RefusalCode::CutoverUnderWay`] while anything is under way, [`RefusalCode::UpgradeFailed`] with the reason.
    pub async fn upgrade(&self, by: &str) -> Result<Upgraded, Refusal> {
        let by = by.to_owned();
        self.ask(|answer| Command::Upgrade { by, answer }).await?
    }

    /// What happens from now on. A reader that falls behind by 256 events loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Refusal> {
        let stopping = || Refusal { code: RefusalCode::Stopping, message: "the proxy is stopping".into() };
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }
}

/// The control plane could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The state folder cannot be written, so no flip could survive a restart.
    StateFolder {
        /// `state.dir`
        folder: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A thread could not be started.
    Thread(std::io::Error),
    /// The system has no randomness for a key.
    Randomness,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::StateFolder { folder, source } => write!(
                f,
                "the state folder {} cannot be written: {source}. Flips could not survive a restart; \
                 make it writable for this user, or set state.dir",
                folder.display()
            ),
            StartError::Thread(source) => write!(f, "a thread of the control plane could not be started: {source}"),
            StartError::Randomness => {
                f.write_str("the system gives no randomness for keys; is getrandom(2) forbidden?")
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::StateFolder { source, .. } | StartError::Thread(source) => Some(source),
            StartError::Randomness => None,
        }
    }
}

/// Says what is wrong elsewhere in the process; `None` when nothing is.
pub type OtherProblem = Box<dyn Fn() -> Option<String> + Send>;

/// The control plane, restored and ready to [`run`](Control::run).
pub struct Control {
    /// The way to it.
    pub handle: Handle,
    /// Who serves what; the data plane reads it for every request.
    pub table: Arc<ArcSwap<HostTable>>,
    task: Task,
    inbox: Inbox,
    loader: Pin<Box<dyn Future<Output = ()> + Send>>,
    file_watch: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Restores the saved colors and builds the first routes.
///
/// `workers` is the number of workers that each route serves. `wake_workers` makes every connection of the data plane
/// look at its lease again, after a cut. `connections` counts the open client connections. `load` reads the config at a
/// reload. `terminator` is what TLS listeners meet their clients with; `None` where there are none. `client_ends` is
/// what the data plane counts there.
///
/// # Errors
/// When the state folder cannot be written. A state file that cannot be read is only a problem in the status.
pub fn start(
    config: Config,
    workers: usize,
    wake_workers: Arc<dyn Fn() + Send + Sync>,
    connections: Arc<dyn Fn() -> u64 + Send + Sync>,
    load: ConfigLoader,
    terminator: Option<Arc<Terminator>>,
    client_ends: Arc<ClientTerminations>,
) -> Result<Control, StartError> {
    let folder = config.state.dir.clone();
    let store = StateFolder::open(&folder).map_err(|source| StartError::StateFolder { folder, source })?;
    let ledger = Ledger::open(Place::new(&config.state.ledger, &config.state.dir)).map_err(StartError::Thread)?;
    let bell = Arc::new(Notify::new());
    let mut start_problems = Vec::new();
    let key =
        crate::control::task::preview::key(&config, &store, &mut start_problems).map_err(|_| StartError::Randomness)?;
    let services = restore(&config, workers, &store, &bell, &key, &mut start_problems);
    let ordered = config.services.iter().filter_map(|config| services.get(&config.name));
    let table = Arc::new(ArcSwap::from_pointee(crate::control::task::reload::table_of(ordered)));

    let (commands, commands_in) = mpsc::channel(QUEUE_MAX);
    let (found, found_in) = mpsc::channel(QUEUE_MAX);
    let (saved, saved_in) = mpsc::channel(QUEUE_MAX);
    let (kept, kept_in) = mpsc::channel(QUEUE_MAX);
    let (reloads, reloads_in) = mpsc::channel(16);
    let (loaded, loaded_in) = mpsc::channel(1);
    let (changed_files, changed_files_in) = mpsc::channel(1);
    let (files, watched_files) = watch::channel(crate::control::task::reload::contents_of(&config, &load));
    let (events, _) = broadcast::channel(EVENTS_MAX);
    let (saves, saves_in) = sync_channel(QUEUE_MAX);
    let loader =
        Box::pin(crate::control::task::reload::load_each(config.path.clone(), load, store.clone(), reloads_in, loaded));
    let saver = move || save_each(&store, &saves_in, &saved);
    batch_thread::spawn("state", saver).map_err(StartError::Thread)?;

    let handle = Handle { commands, events: events.clone() };
    let file_watch = Box::pin(file_watch::watch_files(watched_files, changed_files));
    let task = Task {
        config,
        workers,
        table: Arc::clone(&table),
        terminator,
        client_ends,
        services,
        key,
        leaving: Vec::new(),
        draining: Vec::new(),
        bell,
        wake_workers,
        connections,
        saves,
        ledger: Arc::new(ledger),
        events,
        found,
        reloads,
        kept,
        files,
        start_problems,
        other_problem: Box::new(|| None),
        reload_problem: None,
        reloads_ok: 0,
        reloads_failed: 0,
        flips: BTreeMap::new(),
        watch_ends: BTreeMap::new(),
        started: clock::utc(),
        schedule: Schedule::default(),
        handover: Handover::default(),
    };
    let inbox = Inbox {
        commands: commands_in,
        found: found_in,
        saved: saved_in,
        kept: kept_in,
        loaded: loaded_in,
        changed_files: changed_files_in,
    };
    Ok(Control { handle, table, task, inbox, loader, file_watch })
}

fn restore(
    config: &Config,
    workers: usize,
    store: &StateFolder,
    bell: &Arc<Notify>,
    key: &Arc<PreviewKey>,
    problems: &mut Vec<String>,
) -> BTreeMap<String, ServiceState> {
    let now = clock::now();
    let folder = crate::control::task::evidence::folder_of(&config.state.ledger);
    let restore_one = |config: &crate::config::Service| {
        let saved = store.load(&config.name, now).unwrap_or_else(|problem| {
            tracing::warn!("{problem}");
            problems.push(problem);
            None
        });
        let is_new = saved.is_none();
        let record = saved.unwrap_or_else(|| crate::control::task::reload::first_record(config));
        // The runtime's last word holds; a config that was changed while nobody ran is a flip, and takes its gate.
        let is_due = record.config_active != config.active;
        let machine = Cutover::restore(record, timing(config), now);
        let mut managed = ServiceState::new(config.clone(), machine, workers, bell, Arc::clone(key));
        managed.config_flip_due = is_due.then(|| "config changed before the start".to_owned());
        managed.is_unsaved = is_new;
        if matches!(managed.machine.phase(), Phase::RolledBack { .. }) {
            managed.evidence_file = crate::control::task::evidence::of_epoch(
                &folder,
                &managed.config.name,
                managed.machine.epoch().saturating_sub(1),
            )
            .map(|file| file.display().to_string());
        }
        (config.name.clone(), managed)
    };
    config.services.iter().map(restore_one).collect()
}

/// The thread that writes state: one save after the other, in the order in which they were decided.
fn save_each(store: &StateFolder, saves: &Receiver<Save>, saved: &mpsc::Sender<Saved>) {
    while let Ok(Save { service, serial, state, now }) = saves.recv() {
        let outcome = store.save(&service, &state, now).map_err(|error| error.to_string());
        // Once the task has ended nobody hears; what it decided is kept all the same.
        drop(saved.blocking_send(Saved { service, serial, outcome }));
    }
}
