//! What a deploy has begun and done, on the disk before and after each step, and the lock that keeps it alone.
//!
//! One folder per state folder, `deploy/`, with three files per service: `NAME.lock`, `NAME.json` while a deploy is not
//! over, and `NAME.env`, the env file as it was before the deploy changed it. A crash at any instant leaves a journal
//! that says at most one step too many.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::deploy::files;
use crate::domain::Color;
use crate::domain::release::{Decided, Interrupted, Moment, Step, Strategy};
use crate::os::group_files;

/// The form written now; a file with a newer one is not understood.
const VERSION: u32 = 1;

/// What is being brought into production, and how far it got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    version: u32,
    /// The service.
    pub service: String,
    /// Why: a new release, or the one before.
    pub intent: Intent,
    /// How.
    pub strategy: Strategy,
    /// The image tag.
    pub tag: String,
    /// The color it is brought up in.
    pub color: Color,
    /// The service's epoch before.
    pub epoch: u64,
    /// The color's image tag before.
    pub tag_before: Option<String>,
    /// Whether the color's containers ran before.
    pub ran_before: bool,
    /// When it was begun, UTC.
    pub began: String,
    /// By whom.
    pub by: String,
    /// The last step that was begun.
    pub reached: Step,
    /// The steps that were done.
    pub done: Vec<Step>,
    /// The migration ran, so that the old color has to live with what it did.
    pub migrated: bool,
    /// Whether the old color was ready when the migration began, the first time: what it hurts is not ready after it.
    #[serde(default)]
    pub old_was_ready: Option<bool>,
    /// The snapshot that was made.
    pub snapshot: Option<PathBuf>,
    /// The epoch that the flip made.
    pub flipped: Option<u64>,
    /// What was decided about it, and why.
    pub decided: Option<(Decided, String)>,
    /// The hooks that were run.
    #[serde(default)]
    pub hooks: Vec<Moment>,
}

/// Why a tag is brought into production.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// `cutover deploy`
    Deploy,
    /// `cutover rollback --to-tag`: nothing is migrated, the code goes back and the data stay.
    Rollback,
}

impl Intent {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Intent::Deploy => "deploy",
            Intent::Rollback => "rollback",
        }
    }
}

/// What a journal begins with.
pub struct Beginning {
    /// As in [`Journal`], like all of these.
    pub service: String,
    /// Why.
    pub intent: Intent,
    /// How.
    pub strategy: Strategy,
    /// The image tag.
    pub tag: String,
    /// The color it is brought up in.
    pub color: Color,
    /// The service's epoch before.
    pub epoch: u64,
    /// The color's image tag before.
    pub tag_before: Option<String>,
    /// Whether the color's containers ran before.
    pub ran_before: bool,
    /// By whom.
    pub by: String,
}

impl Journal {
    /// A journal of which nothing is done yet, and nothing on the disk.
    pub fn begin(with: Beginning) -> Self {
        let Beginning { service, intent, strategy, tag, color, epoch, tag_before, ran_before, by } = with;
        let (began, reached, done) = (crate::os::clock::utc(), strategy.steps()[0], Vec::new());
        let (migrated, snapshot, flipped, decided) = (false, None, None, None);
        Journal {
            version: VERSION,
            service,
            intent,
            strategy,
            tag,
            color,
            epoch,
            tag_before,
            ran_before,
            began,
            by,
            reached,
            done,
            migrated,
            old_was_ready: None,
            snapshot,
            flipped,
            decided,
            hooks: Vec::new(),
        }
    }

    /// The journal of `service` under `state_dir`, whoever holds the lock; `None` when no deploy is under way.
    ///
    /// # Errors
    /// [`Trouble::File`], [`Trouble::Journal`]: nobody can tell.
    pub fn peek(state_dir: &Path, service: &str) -> Result<Option<Journal>, Trouble> {
        read(&folder_of(state_dir).join(format!("{service}.json")))
    }

    /// Whether its color runs a release that has not passed the gates.
    pub fn is_unproven(&self) -> bool {
        match self.strategy {
            Strategy::BlueGreen => !self.strategy.has_begun(self.reached, Step::Flip),
            Strategy::Recreate => false,
        }
    }

    /// How far it got, for [`crate::domain::release::next`].
    pub fn interrupted(&self) -> Interrupted {
        let decided = self.decided.as_ref().map(|(decided, _)| *decided);
        Interrupted { strategy: self.strategy, color: self.color, epoch: self.epoch, reached: self.reached, decided }
    }
}

fn folder_of(state_dir: &Path) -> PathBuf {
    state_dir.join("deploy")
}

/// Makes the folder, where there is none, as open to others as the one it is in.
fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(group_files::folder_of(folder))?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    // One that is there may be older than the sharing of the folder it is in.
    group_files::share(&File::open(folder)?, folder);
    Ok(())
}

/// Opens a lock file, and makes it where there is none.
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

/// Reads a journal; only one that is not there is none.
fn read(path: &Path) -> Result<Option<Journal>, Trouble> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| Trouble::File(path.to_owned(), error))?,
    };
    let strange = |why: String| Trouble::Journal(path.to_owned(), why);
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(|error| strange(error.to_string()))?;
    if version > VERSION {
        return Err(strange(format!("written by a newer cutover (version {version}, this one knows {VERSION})")));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| strange(error.to_string()))
}

/// The right to deploy one service, held until dropped. It ends with the process, however that ends.
pub struct Lock {
    folder: PathBuf,
    service: String,
    _file: File,
}

/// Why there is no lock, or no journal.
#[derive(Debug)]
pub enum Trouble {
    /// Another process deploys the service; with its id, if it wrote it.
    Held(PathBuf, Option<u32>),
    /// A file could not be read or written.
    File(PathBuf, io::Error),
    /// The journal is not understood.
    Journal(PathBuf, String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Held(path, pid) => {
                let who = pid.map_or("another process".into(), |pid| format!("process {pid}"));
                write!(f, "another deploy is under way: {who} holds {}; wait for it, or stop it", path.display())
            }
            Trouble::File(path, error) => {
                write!(
                    f,
                    "{}: {error}; whoever deploys reads and writes state.dir and the env files: is this user in their \
                     group, and may it write them?",
                    path.display()
                )
            }
            Trouble::Journal(path, why) => write!(
                f,
                "the journal {} is not understood: {why}. Look with `cutover status` and `docker compose ls` at what \
                 runs, and move the file away",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Trouble {}

impl Lock {
    /// Takes the lock of `service` under `state_dir`, which is created where needed. Never waits.
    ///
    /// # Errors
    /// [`Trouble::Held`], [`Trouble::File`].
    pub fn take(state_dir: &Path, service: &str) -> Result<Lock, Trouble> {
        let folder = folder_of(state_dir);
        let path = folder.join(format!("{service}.lock"));
        let trouble = |error| Trouble::File(path.clone(), error);
        make_folder(&folder).map_err(trouble)?;
        let mut file = open_lock(&path).map_err(trouble)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                return Err(Trouble::Held(path, text.trim().parse().ok()));
            }
            Err(TryLockError::Error(error)) => return Err(trouble(error)),
        }
        let write = |mut file: &File| {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())
        };
        write(&file).map_err(trouble)?;
        Ok(Lock { folder, service: service.to_owned(), _file: file })
    }

    fn journal(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.service))
    }

    /// Where the env file is kept as it was before the deploy.
    pub fn kept_env(&self) -> PathBuf {
        self.folder.join(format!("{}.env", self.service))
    }

    /// The journal of a deploy that was not over when its process ended.
    ///
    /// # Errors
    /// [`Trouble::File`], [`Trouble::Journal`].
    pub fn load(&self) -> Result<Option<Journal>, Trouble> {
        read(&self.journal())
    }

    /// Puts the journal on the disk; when this returns it survives a power cut.
    ///
    /// # Errors
    /// [`Trouble::File`]; the one before is still there.
    pub fn save(&self, journal: &Journal) -> Result<(), Trouble> {
        let text = serde_json::to_string_pretty(journal).expect("our own types have a JSON form");
        files::replace(&self.journal(), text.as_bytes(), None).map_err(|error| Trouble::File(self.journal(), error))
    }

    /// Removes what a deploy left that is over.
    ///
    /// # Errors
    /// [`Trouble::File`]
    pub fn forget(&self) -> Result<(), Trouble> {
        // The journal first: without it nobody looks at the other one.
        for path in [self.journal(), self.kept_env()] {
            let removed = files::remove(&path).and_then(|()| files::sync_folder_of(&path));
            removed.map_err(|error| Trouble::File(path, error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::deploy::journal::*;

    fn journal() -> Journal {
        Journal::begin(Beginning {
            service: "recall".into(),
            intent: Intent::Deploy,
            strategy: Strategy::BlueGreen,
            tag: "sha-2".into(),
            color: Color::Green,
            epoch: 4,
            tag_before: Some("sha-1".into()),
            ran_before: true,
            by: "cli:ann".into(),
        })
    }

    #[test]
    fn comes_back_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(&folder.path().join("state"), "recall").unwrap();
        assert_eq!(lock.load().unwrap(), None);
        let mut journal = journal();
        for step in Step::ALL {
            journal.reached = step;
            journal.done.push(step);
            journal.decided = Some((Decided::Keep, "well".into()));
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
        let Err(Trouble::Held(_, pid)) = Lock::take(folder.path(), "recall") else { panic!("it is held") };
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
