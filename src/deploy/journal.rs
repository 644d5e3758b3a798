//! Keeps the journal of a deploy on the disk, and the lock that lets only one deploy of a service run.
//!
//! The state folder has one folder, `deploy/`, with three files per service: `NAME.lock`, `NAME.json` while a deploy is
//! not over, and `NAME.env`, the env file as it was before the deploy changed it. The journal is written before and
//! after each step, so that a crash at any instant leaves a journal that is at most one step ahead of what was done.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::deploy::files;
use crate::domain::release::HookPoint;
use crate::domain::release::state::ReleaseState;
use crate::os::group_files;

/// The version of the format; a file with a newer version is rejected.
const VERSION: u32 = 1;

/// Records which release is brought into production, and how far it got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    version: u32,
    pub service: String,
    pub intent: Intent,
    /// The image tag of the release.
    pub tag: String,
    /// The color's image tag when the deploy began.
    pub tag_before: Option<String>,
    /// Whether the color's containers ran when the deploy began.
    pub ran_before: bool,
    /// The singletons that ran in the color when the deploy began. There are some where a retirement was not finished.
    #[serde(default)]
    pub singletons_before: Vec<String>,
    /// The time at which the deploy began, in UTC.
    pub began: String,
    /// The operator, as the ledger names them.
    pub by: String,
    /// Whether a migration ran, with whose result the old color has to live.
    pub migrated: bool,
    /// Whether the old color was ready when the migration began for the first time. A color that the migration has hurt
    /// is not ready afterwards, so a later run must not ask again.
    #[serde(default)]
    pub old_was_ready: Option<bool>,
    /// The snapshot of the data, once there is one.
    pub snapshot: Option<PathBuf>,
    /// The hooks that were run successfully.
    #[serde(default)]
    pub hooks: Vec<HookPoint>,
    /// How far the release got. The proxy reads this part as well.
    #[serde(flatten)]
    pub release: ReleaseState,
}

/// The verb that brings a tag into production.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// `cutover deploy`
    Deploy,
    /// `cutover rollback --to-tag`. Nothing is migrated: the code goes back and the data stay.
    Rollback,
}

impl Intent {
    /// Returns the word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Intent::Deploy => "deploy",
            Intent::Rollback => "rollback",
        }
    }
}

/// The first values of a [`Journal`]; the fields are the journal's own.
pub struct JournalStart {
    pub service: String,
    pub intent: Intent,
    pub tag: String,
    pub tag_before: Option<String>,
    pub ran_before: bool,
    pub singletons_before: Vec<String>,
    pub by: String,
    pub release: ReleaseState,
}

impl Journal {
    /// Creates the journal of a deploy of which nothing is done. Nothing is written to the disk.
    pub fn begin(with: JournalStart) -> Self {
        let JournalStart { service, intent, tag, tag_before, ran_before, singletons_before, by, release } = with;
        Journal {
            version: VERSION,
            service,
            intent,
            tag,
            tag_before,
            ran_before,
            singletons_before,
            began: crate::os::clock::utc(),
            by,
            migrated: false,
            old_was_ready: None,
            snapshot: None,
            hooks: Vec::new(),
            release,
        }
    }

    /// Reads the journal of `service` under `state_dir` without the lock; `None` means that no deploy is under way.
    ///
    /// # Errors
    /// [`JournalError::File`], [`JournalError::Unparsed`]: it is not known whether a deploy is under way.
    pub fn peek(state_dir: &Path, service: &str) -> Result<Option<Journal>, JournalError> {
        read(&folder_of(state_dir).join(format!("{service}.json")))
    }
}

fn folder_of(state_dir: &Path) -> PathBuf {
    state_dir.join("deploy")
}

/// Creates the folder where it is missing, with the permissions of the folder around it.
fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(group_files::folder_of(folder))?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    // An existing folder may be older than the permissions of the folder around it.
    group_files::share(&File::open(folder)?, folder);
    Ok(())
}

/// Opens a lock file, and creates it where it is missing.
fn open_lock(path: &Path) -> io::Result<File> {
    let file = match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().read(true).write(true).open(path)?
        }
        made => made?,
    };
    group_files::share(&file, path);
    Ok(file)
}

/// Reads a journal; only a missing file means that there is none.
fn read(path: &Path) -> Result<Option<Journal>, JournalError> {
    #[derive(Deserialize)]
    struct VersionOnly {
        version: u32,
    }
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| JournalError::File(path.to_owned(), error))?,
    };
    let unparsed = |why: String| JournalError::Unparsed(path.to_owned(), why);
    let VersionOnly { version } = serde_json::from_slice(&bytes).map_err(|error| unparsed(error.to_string()))?;
    if version > VERSION {
        return Err(unparsed(format!("written by a newer cutover (version {version}, this one knows {VERSION})")));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| unparsed(error.to_string()))
}

/// Holds the exclusive right to deploy one service. The lock is released on drop, and by the kernel when the process
/// ends.
pub struct Lock {
    folder: PathBuf,
    service: String,
    _file: File,
}

/// Explains why the lock or the journal is not available.
#[derive(Debug)]
pub enum JournalError {
    /// Another process holds the lock; its id is there if it could be read.
    Held(PathBuf, Option<u32>),
    /// A file could not be read or written.
    File(PathBuf, io::Error),
    /// The journal is torn, or of a newer version.
    Unparsed(PathBuf, String),
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Held(path, pid) => {
                let who = pid.map_or("another process".into(), |pid| format!("process {pid}"));
                write!(f, "another deploy is under way: {who} holds {}; wait for it, or stop it", path.display())
            }
            JournalError::File(path, error) => {
                write!(
                    f,
                    "{}: {error}; whoever deploys reads and writes state.dir and the env files: is this user in their \
                     group, and may it write them?",
                    path.display()
                )
            }
            JournalError::Unparsed(path, why) => write!(
                f,
                "the journal {} is not understood: {why}. Look with `cutover status` and `docker compose ls` at what \
                 runs, and move the file away",
                path.display()
            ),
        }
    }
}

impl std::error::Error for JournalError {}

impl Lock {
    /// Takes the lock of `service` under `state_dir`, creating the folder where needed. It never waits.
    ///
    /// # Errors
    /// [`JournalError::Held`], [`JournalError::File`].
    pub fn take(state_dir: &Path, service: &str) -> Result<Lock, JournalError> {
        let folder = folder_of(state_dir);
        let path = folder.join(format!("{service}.lock"));
        let file_error = |error| JournalError::File(path.clone(), error);
        make_folder(&folder).map_err(file_error)?;
        let mut file = open_lock(&path).map_err(file_error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                return Err(JournalError::Held(path, text.trim().parse().ok()));
            }
            Err(TryLockError::Error(error)) => return Err(file_error(error)),
        }
        let write = |mut file: &File| {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())
        };
        write(&file).map_err(file_error)?;
        Ok(Lock { folder, service: service.to_owned(), _file: file })
    }

    fn journal(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.service))
    }

    /// Returns where the env file is kept as it was before the deploy.
    pub fn kept_env(&self) -> PathBuf {
        self.folder.join(format!("{}.env", self.service))
    }

    /// Reads the journal of a deploy that was interrupted, if there is one.
    ///
    /// # Errors
    /// [`JournalError::File`], [`JournalError::Unparsed`].
    pub fn load(&self) -> Result<Option<Journal>, JournalError> {
        read(&self.journal())
    }

    /// Writes the journal to the disk; once this returns, it survives a power cut.
    ///
    /// # Errors
    /// [`JournalError::File`]; the previous version is still there.
    pub fn save(&self, journal: &Journal) -> Result<(), JournalError> {
        let text = serde_json::to_string_pretty(journal).expect("our own types have a JSON form");
        files::replace(&self.journal(), text.as_bytes(), None)
            .map_err(|error| JournalError::File(self.journal(), error))
    }

    /// Removes the files of a deploy that is over.
    ///
    /// # Errors
    /// [`JournalError::File`]
    pub fn forget(&self) -> Result<(), JournalError> {
        // The journal goes first, because the other file is only used together with it.
        for path in [self.journal(), self.kept_env()] {
            let removed = files::remove(&path).and_then(|()| files::sync_folder_of(&path));
            removed.map_err(|error| JournalError::File(path, error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::deploy::journal::*;
    use crate::domain::Color;
    use crate::domain::release::state::Decided;
    use crate::domain::release::{Decision, Step, Strategy};

    fn journal() -> Journal {
        Journal::begin(JournalStart {
            service: "recall".into(),
            intent: Intent::Deploy,
            tag: "sha-2".into(),
            tag_before: Some("sha-1".into()),
            ran_before: true,
            singletons_before: Vec::new(),
            by: "cli:ann".into(),
            release: ReleaseState::begin(Strategy::BlueGreen, Color::Green, 4),
        })
    }

    #[test]
    fn comes_back_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(&folder.path().join("state"), "recall").unwrap();
        assert_eq!(lock.load().unwrap(), None);
        let mut journal = journal();
        for step in Step::ALL {
            journal.release.reached = step;
            journal.release.done.push(step);
            journal.release.decided = Some(Decided { decision: Decision::Keep, why: "well".into() });
            lock.save(&journal).unwrap();
            assert_eq!(lock.load().unwrap().as_ref(), Some(&journal));
        }
        fs::write(lock.kept_env(), "IMAGE_TAG=sha-1\n").unwrap();
        lock.forget().unwrap();
        assert_eq!((lock.load().unwrap(), lock.kept_env().exists()), (None, false));
    }

    #[test]
    fn a_second_lock_says_who_holds_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path(), "recall").unwrap();
        let Err(JournalError::Held(_, pid)) = Lock::take(folder.path(), "recall") else { panic!("it is held") };
        assert_eq!(pid, Some(std::process::id()));
        assert!(Lock::take(folder.path(), "shop").is_ok(), "another service has its own");
        drop(first);
        assert!(Lock::take(folder.path(), "recall").is_ok());
    }

    #[test]
    fn a_journal_that_is_not_understood_stops_everything() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path(), "recall").unwrap();
        lock.save(&journal()).unwrap();
        let whole = fs::read_to_string(lock.journal()).unwrap();
        for (case, text) in [
            ("torn", whole[..whole.len() / 2].to_owned()),
            ("newer", whole.replace("\"version\": 1", "\"version\": 2")),
            ("of another kind", "{\"version\": 1}".to_owned()),
            ("empty", String::new()),
        ] {
            fs::write(lock.journal(), text).unwrap();
            let trouble = lock.load().expect_err(case).to_string();
            assert!(trouble.contains("recall.json") && trouble.contains("move the file away"), "{case}: {trouble}");
        }
    }
}
