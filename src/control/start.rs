//! Puts the control plane together: state is restored, the first routes are published, and whatever runs beside the
//! control task is started.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, broadcast, mpsc, watch};

use crate::config::{self, Config};
use crate::control::file_watch::watch_files;
use crate::control::handle::Handle;
use crate::control::saved_state::{OpenError, Opened, StateFolder};
use crate::control::service::{ServiceState, timing};
use crate::control::task::counters::ChangeCounters;
use crate::control::task::drains::Drains;
use crate::control::task::reload::{Reloads, contents_of, first_state, load_each, table_of};
use crate::control::task::reporter::Reporter;
use crate::control::task::saves::{QUEUE_MAX, SaveQueue};
use crate::control::task::schedule::Schedule;
use crate::control::task::upgrade::InheritedCounters;
use crate::control::task::upgrade_tracker::UpgradeTracker;
use crate::control::task::{DataPlane, Inbox, OtherProblem, Task, evidence, preview};
use crate::domain::cutover::{Cutover, Phase};
use crate::handover::UpgradeState;
use crate::ledger::{Ledger, Place};
use crate::os::clock;
use crate::routing::{ClientTerminations, HostTable};
use crate::tls::Terminator;

/// A slow reader of the event stream may fall behind by so many events.
const EVENTS_MAX: usize = 256;
/// So many reloads may wait to be read.
const RELOADS_MAX: usize = 16;

/// The control plane could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The state folder cannot be written, so no flip could survive a restart.
    StateFolder {
        /// The folder that `state.dir` names.
        folder: PathBuf,
        /// The error of the attempt to write there.
        source: std::io::Error,
    },
    /// Another process works on the state folder.
    StateInUse {
        /// The folder that `state.dir` names.
        folder: PathBuf,
        /// What that process says of itself.
        holder: String,
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
            StartError::StateInUse { folder, holder } => write!(
                f,
                "the state folder {} is in use by another cutover: {holder}. Two would overwrite each other's color; \
                 stop that one, or give this one a state.dir of its own",
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
            StartError::StateInUse { .. } | StartError::Randomness => None,
        }
    }
}

/// What the control plane is given of the data plane.
pub struct DataPlaneLinks {
    /// The number of worker threads: each route has a part for each.
    pub workers: usize,
    /// Makes every connection of the data plane look at its lease again, after a cut.
    pub wake_workers: Arc<dyn Fn() + Send + Sync>,
    /// Counts the open client connections.
    pub connections: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// What TLS listeners meet their clients with; `None` where there are none.
    pub terminator: Option<Arc<Terminator>>,
    /// What the data plane counts there.
    pub client_ends: Arc<ClientTerminations>,
}

/// The control plane, restored and ready to [`run`](Control::run).
pub struct Control {
    /// The way to it.
    pub handle: Handle,
    /// Who serves what; the data plane reads it for every request.
    pub table: Arc<ArcSwap<HostTable>>,
    folder: StateFolder,
    task: Task,
    inbox: Inbox,
    loader: Pin<Box<dyn Future<Output = ()> + Send>>,
    file_watch: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Control {
    /// Calls `begin` when an upgrade is to begin; whoever is called says how it ended by [`Handle::upgrade_ended`].
    pub fn upgrade_by(&mut self, begin: Box<dyn Fn() + Send>) {
        self.task.upgrade.set_begin(begin);
    }

    /// Asks `problem` for what is wrong where the control plane does not look, as a sentence for `problems`.
    pub fn other_problem_by(&mut self, problem: OtherProblem) {
        self.task.other_problem = problem;
    }

    /// The lock on the state folder once more, for a successor; `None` where there is none.
    pub fn state_lock(&self) -> Option<OwnedFd> {
        self.folder.lock()
    }

    /// Goes on counting where the process before this one is, and changes no color until [`Handle::be_alone`].
    pub fn succeed(&mut self, state: &UpgradeState) -> InheritedCounters {
        self.task.succeed(state)
    }

    /// Probes, watches and changes color until `stop` turns true, or its sender is gone.
    ///
    /// Call it on a current-thread runtime with time and io. At the end ledger and state have been written, or had 2 s
    /// each for it.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let Control { task, inbox, loader, file_watch, .. } = self;
        let (loader, file_watch) = (tokio::spawn(loader), tokio::spawn(file_watch));
        task.run(inbox, stop).await;
        loader.abort();
        file_watch.abort();
    }
}

/// Restores the saved colors and builds the first routes.
///
/// # Errors
/// When the state folder cannot be written for another reason than the disk, or another process works on it. A state
/// file that cannot be read is only a problem in the status.
pub fn start(config: Config, links: DataPlaneLinks, inherited_lock: Option<OwnedFd>) -> Result<Control, StartError> {
    let dir = config.state.dir.clone();
    let Opened { folder, problem } = StateFolder::open(&dir, inherited_lock).map_err(|error| match error {
        OpenError::Unwritable(source) => StartError::StateFolder { folder: dir, source },
        OpenError::InUse { holder } => StartError::StateInUse { folder: dir, holder },
    })?;
    let ledger = Ledger::open(Place::new(&config.state.ledger, &config.state.dir)).map_err(StartError::Thread)?;
    let mut start_problems = Vec::new();
    if let Some(problem) = &problem {
        tracing::error!("{problem}");
    }
    let preview_key = preview::key(&config, &folder, &mut start_problems).map_err(|_| StartError::Randomness)?;
    let DataPlaneLinks { workers, wake_workers, connections, terminator, client_ends } = links;
    let failure_bell = Arc::new(Notify::new());
    let make = |config: &config::Service, machine: Cutover| {
        ServiceState::new(config.clone(), machine, workers, &failure_bell, Arc::clone(&preview_key))
    };
    let services = restore(&config, &folder, make, &mut start_problems);
    let ordered = config.services.iter().filter_map(|config| services.get(&config.name));
    let table = Arc::new(ArcSwap::from_pointee(table_of(ordered)));

    let (commands, commands_in) = mpsc::channel(QUEUE_MAX);
    let (probe_reports, probes) = mpsc::channel(QUEUE_MAX);
    let (evidence_results, evidence) = mpsc::channel(QUEUE_MAX);
    let (saves, saved) = SaveQueue::start(folder.clone()).map_err(StartError::Thread)?;
    let (reloads, reloads_in) = mpsc::channel(RELOADS_MAX);
    let (loaded, loaded_in) = mpsc::channel(1);
    let (changed_files, changed_files_in) = mpsc::channel(1);
    let (files, watched_files) = watch::channel(contents_of(&config));
    let (events, _) = broadcast::channel(EVENTS_MAX);
    let loader = Box::pin(load_each(config.path.clone(), folder.clone(), reloads_in, loaded));
    let file_watch = Box::pin(watch_files(watched_files, changed_files));
    let data_plane =
        DataPlane { table: Arc::clone(&table), workers, failure_bell, connections, terminator, client_ends };
    let task = Task {
        config,
        services,
        data_plane,
        preview_key,
        drains: Drains::new(wake_workers),
        saves,
        reporter: Reporter::new(ledger, events.clone()),
        counters: ChangeCounters::default(),
        reloads: Reloads::new(reloads, files),
        upgrade: UpgradeTracker::default(),
        schedule: Schedule::default(),
        probe_reports,
        evidence_results,
        start_problems,
        disk_problem: problem,
        other_problem: Box::new(|| None),
        started: clock::utc(),
    };
    let inbox =
        Inbox { commands: commands_in, probes, saved, evidence, loaded: loaded_in, changed_files: changed_files_in };
    Ok(Control { handle: Handle { commands, events }, table, folder, task, inbox, loader, file_watch })
}

/// Every service in the state that was saved for it, or else in the one that the config says. What cannot be read is
/// added to `problems`.
fn restore(
    config: &Config,
    folder: &StateFolder,
    make: impl Fn(&config::Service, Cutover) -> ServiceState,
    problems: &mut Vec<String>,
) -> BTreeMap<String, ServiceState> {
    let now = clock::now();
    let evidence_folder = evidence::folder_of(&config.state.ledger);
    let restore_one = |config: &config::Service| {
        let saved = folder.load(&config.name, now).unwrap_or_else(|problem| {
            tracing::warn!("{problem}");
            problems.push(problem.to_string());
            None
        });
        let is_new = saved.is_none();
        let saved = saved.unwrap_or_else(|| first_state(config));
        // The runtime's last word holds; a config that was changed while nobody ran is a flip, and takes its gate.
        let is_flip_due = saved.config_active != config.active;
        let machine = Cutover::restore(saved, timing(config), now);
        let mut service = make(config, machine);
        service.config_flip_due = is_flip_due.then(|| "config changed before the start".to_owned());
        service.saving.is_new = is_new;
        if matches!(service.machine.phase(), Phase::RolledBack { .. }) {
            let epoch = service.machine.epoch().saturating_sub(1);
            let file = evidence::of_epoch(&evidence_folder, &config.name, epoch);
            service.watch.evidence_file = file.map(|file| file.display().to_string());
        }
        (config.name.clone(), service)
    };
    config.services.iter().map(restore_one).collect()
}
