//! Reads the config beside the control task, which waits for no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};

use crate::api::{Refusal, Reloaded};
use crate::config::{Config, Problems};
use crate::control::file_watch::{self, Contents};
use crate::control::saved_state::{StateError, StateFolder};
use crate::domain::cutover::SavedState;
use crate::os::clock;

/// Where the answer to a reload goes; `None` where nobody waits for one.
pub(in crate::control) type ReloadReply = Option<oneshot::Sender<Result<Reloaded, Refusal>>>;

/// A reload that was asked for.
pub(in crate::control) struct ReloadRequest {
    /// "HUP", "file change" or "api", for the log.
    pub(super) by: String,
    pub(super) reply: ReloadReply,
    /// The services in force, whose state is not to be read.
    pub(super) known: BTreeSet<String>,
    /// The files in force.
    pub(super) files: Vec<PathBuf>,
}

/// What was saved for a service when it was here before.
pub(super) type SavedBefore = Result<Option<SavedState>, StateError>;

/// What the disk said.
pub(in crate::control) struct Loaded {
    pub(super) request: ReloadRequest,
    pub(super) read: Reading,
}

/// Everything that was read for one reload.
pub(super) struct Reading {
    pub(super) outcome: Result<Config, LoadError>,
    /// What was on the disk when it was read.
    pub(super) contents: Contents,
    /// By name, for services that are new.
    pub(super) saved: BTreeMap<String, SavedBefore>,
}

/// Why there is no config to take in force.
#[derive(Debug)]
pub(super) enum LoadError {
    /// Everything that is wrong with it.
    Invalid(Problems),
    /// The thread that read it has panicked.
    Panicked(tokio::task::JoinError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Invalid(problems) => write!(f, "{problems}"),
            LoadError::Panicked(error) => write!(f, "loading the config failed: {error}"),
        }
    }
}

/// Loads the config at `path` for each request, one after the other, so that the newest content is in force last.
pub(in crate::control) async fn load_each(
    path: PathBuf,
    folder: StateFolder,
    mut requests: mpsc::Receiver<ReloadRequest>,
    loaded: mpsc::Sender<Loaded>,
) {
    while let Some(request) = requests.recv().await {
        let (path, folder) = (path.clone(), folder.clone());
        let (known, files) = (request.known.clone(), request.files.clone());
        let read = tokio::task::spawn_blocking(move || read(&path, &folder, &known, files)).await;
        let read = read.unwrap_or_else(|error| Reading {
            outcome: Err(LoadError::Panicked(error)),
            contents: Contents::default(),
            saved: BTreeMap::new(),
        });
        if loaded.send(Loaded { request, read }).await.is_err() {
            return;
        }
    }
}

/// Loads the config, and says what was on the disk *before* it was read: a change in between is then a change to come.
fn read(path: &Path, folder: &StateFolder, known: &BTreeSet<String>, files: Vec<PathBuf>) -> Reading {
    let mut contents = file_watch::contents(files);
    loop {
        let outcome = Config::load(path).map_err(LoadError::Invalid);
        let named = outcome.as_ref().map(files_of).unwrap_or_default();
        let new: Vec<_> = named.iter().filter(|file| !contents.contains_key(*file)).cloned().collect();
        if new.is_empty() {
            // After a refusal all files stay watched: the way out may be in any of them.
            contents.retain(|file, _| outcome.is_err() || named.contains(file));
            let services = outcome.iter().flat_map(|config| &config.services);
            let new = services.filter(|config| !known.contains(&config.name));
            let saved = new.map(|config| (config.name.clone(), folder.load(&config.name, clock::now()))).collect();
            return Reading { outcome, contents, saved };
        }
        contents.extend(file_watch::contents(new));
    }
}

/// The files whose content the config comes from.
fn files_of(config: &Config) -> Vec<PathBuf> {
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
pub(in crate::control) fn contents_of(config: &Config) -> Contents {
    let files = files_of(config);
    let contents = file_watch::contents(files.iter().cloned());
    match Config::load(&config.path) {
        Ok(same) if same == *config => contents,
        Ok(_) | Err(_) => files.into_iter().map(|file| (file, None)).collect(),
    }
}
