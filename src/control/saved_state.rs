//! What survives a restart: one JSON file per service in the state folder, and the key of preview passes.
//!
//! A file is replaced whole (temporary file, fsync, rename, fsync of the folder), so that a crash at any instant leaves
//! the old or the new one. One that cannot be read costs only its own service, and is moved aside, never overwritten.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::Color;
use crate::domain::cutover::SavedState;
use crate::os::clock;
use crate::routing::preview_token::{KEY_BYTES, from_hex, to_hex};

/// The form written now; a file with a newer one is not understood.
const VERSION: u32 = 1;
/// Locked by the process that works on the folder.
const LOCK_FILE: &str = "lock";
/// The key of preview passes, in hexadecimal digits. No service's file has this ending.
const KEY_FILE: &str = "preview.key";

/// A state as it is on the disk, with wall time instead of monotonic time.
#[derive(Debug, Serialize, Deserialize)]
struct StateFile {
    version: u32,
    active: Color,
    epoch: u64,
    previous: Option<Color>,
    config_active: Color,
    watch_until_unix_ms: Option<u64>,
    rolled_back: Option<String>,
}

/// Why a state file is not understood.
#[derive(Debug)]
enum Unreadable {
    Io(io::Error),
    Json(serde_json::Error),
    /// A newer version of the program has written it.
    Newer {
        version: u32,
    },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Io(error) => write!(f, "{error}"),
            Unreadable::Json(error) => write!(f, "{error}"),
            Unreadable::Newer { version } => {
                write!(f, "written by a newer cutover (version {version}, this one knows {VERSION})")
            }
        }
    }
}

/// A state file that is not gone on from.
#[derive(Debug)]
pub(super) struct StateError {
    service: String,
    path: PathBuf,
    why: Unreadable,
    /// Where it was moved to.
    aside: io::Result<PathBuf>,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StateError { service, path, why, aside } = self;
        write!(f, "state of {service}: {}: {why}; ", path.display())?;
        match aside {
            Ok(aside) => write!(f, "kept as {}", aside.display())?,
            Err(error) => write!(f, "and it could not be moved aside: {error}")?,
        }
        f.write_str("; the config's `active` decides")
    }
}

impl std::error::Error for StateError {}

/// Why a process cannot work on a state folder.
#[derive(Debug)]
pub(super) enum OpenError {
    /// It cannot be written, so no flip could survive a restart.
    Unwritable(io::Error),
    /// Another process works on it; the text is what that process has left in the lock file.
    InUse { holder: String },
}

/// The state folder, and the lock that keeps a second process from it.
#[derive(Clone, Debug)]
pub(super) struct StateFolder {
    folder: PathBuf,
    /// `None` where the file system has no locks.
    lock: Option<Arc<File>>,
}

/// A state folder that was opened.
pub(super) struct Opened {
    pub(super) folder: StateFolder,
    /// What is wrong with it and keeps nobody from serving.
    pub(super) problem: Option<String>,
}

impl StateFolder {
    /// Creates the folder where needed, locks it, and tries whether it can be written.
    ///
    /// On a full disk, or on one that the kernel has made read-only, what was saved is still there to be gone on from:
    /// then that is a problem and no error. Flips are refused until they can be saved, and rollbacks are made. An
    /// upgrade in place hands on its lock (`inherited`): there is no moment in which the folder is nobody's.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(super) fn open(folder: &Path, inherited: Option<OwnedFd>) -> Result<Opened, OpenError> {
        fs::create_dir_all(folder).map_err(OpenError::Unwritable)?;
        let lock = lock(folder, inherited)?;
        let problem = match try_writing(folder) {
            Ok(()) => None,
            Err(error) if is_of_the_disk(&error) => Some(format!(
                "the state folder {} cannot be written: {error}. The proxy goes on with what was saved; flips are \
                 refused until there is room, rollbacks are made at once and saved later",
                folder.display()
            )),
            Err(error) => return Err(OpenError::Unwritable(error)),
        };
        Ok(Opened { folder: StateFolder { folder: folder.into(), lock }, problem })
    }

    /// The lock once more, for a successor.
    pub(super) fn lock(&self) -> Option<OwnedFd> {
        let file = self.lock.as_ref()?.try_clone();
        file.inspect_err(|error| tracing::warn!("the lock on the state folder cannot be handed on: {error}"))
            .ok()
            .map(OwnedFd::from)
    }

    /// What was saved for `service`; `None` when nothing was.
    ///
    /// # Errors
    /// There is a file that cannot be read. It has been moved aside, so that no save overwrites it.
    pub(super) fn load(&self, service: &str, now: Duration) -> Result<Option<SavedState>, StateError> {
        let path = self.folder.join(format!("{service}.json"));
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(Unreadable::Io(error)),
            Ok(bytes) => parse(&bytes),
        };
        read.map(|file| Some(to_state(file, now))).map_err(|why| {
            let aside = self.move_aside(&path);
            StateError { service: service.to_owned(), path, why, aside }
        })
    }

    /// Saves `state`; when this returns it survives a power cut.
    pub(super) fn save(&self, service: &str, state: &SavedState, now: Duration) -> io::Result<()> {
        let temporary = self.folder.join(format!(".{service}.json.new"));
        let mut text = serde_json::to_vec_pretty(&to_file(state, now))?;
        text.push(b'\n');
        let mut file = File::create(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, self.folder.join(format!("{service}.json")))?;
        File::open(&self.folder)?.sync_all()
    }

    /// The bytes of the key of preview passes. Where none was kept, or what was kept is no key, `fresh` is kept from
    /// now on, readable by nobody else.
    pub(super) fn preview_key(&self, fresh: [u8; KEY_BYTES]) -> io::Result<[u8; KEY_BYTES]> {
        let path = self.folder.join(KEY_FILE);
        match fs::read(&path) {
            Ok(text) => match from_hex(text.trim_ascii()) {
                Some(key) => return Ok(key),
                None => {
                    tracing::warn!("{} is not a key: a new one is made, and existing passes are void", path.display())
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let temporary = self.folder.join(format!(".{KEY_FILE}.new"));
        // One that was left by a crash could have another mode.
        drop(fs::remove_file(&temporary));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(to_hex(&fresh).as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(fresh)
    }

    fn move_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let aside = |n: u32| match n {
            0 => path.with_extension("json.unreadable"),
            n => path.with_extension(format!("json.unreadable.{n}")),
        };
        let free = (0..100).map(aside).find(|aside| !aside.exists());
        let free = free.ok_or_else(|| io::Error::other("there are a hundred unreadable ones already"))?;
        fs::rename(path, &free)?;
        Ok(free)
    }
}

/// Takes the lock on the folder, or goes on with the one that the process before this one has handed over.
///
/// The file is held open for reading only: held for writing it would keep the operator from making the disk read-only,
/// and one that another user's proxy has left could not be locked. What stands in it is for people.
fn lock(folder: &Path, inherited: Option<OwnedFd>) -> Result<Option<Arc<File>>, OpenError> {
    let path = folder.join(LOCK_FILE);
    let file = match open_or_create(&path) {
        Ok(file) => file,
        // A read-only disk has no writer to be kept away.
        Err(error) if is_of_the_disk(&error) => return Ok(None),
        Err(error) => return Err(OpenError::Unwritable(error)),
    };
    let is_same = |one: &File, other: &File| {
        let id = |file: &File| file.metadata().map(|found| (found.dev(), found.ino())).ok();
        id(one).is_some() && id(one) == id(other)
    };
    let inherited = inherited.map(File::from).filter(|handed| is_same(handed, &file));
    let file = match inherited {
        Some(handed) => handed,
        None => match file.try_lock() {
            Ok(()) => file,
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                return Err(OpenError::InUse { holder });
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!("{} cannot be locked, a second proxy would not be noticed: {error}", path.display());
                return Ok(None);
            }
        },
    };
    let program = std::env::args().next().unwrap_or_default();
    let written = fs::write(&path, format!("process {} ({program})\n", std::process::id()));
    // On a full disk the file says nothing, and is locked all the same.
    drop(written);
    Ok(Some(Arc::new(file)))
}

fn open_or_create(path: &Path) -> io::Result<File> {
    File::open(path).or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(error);
        }
        OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        File::open(path)
    })
}

fn try_writing(folder: &Path) -> io::Result<()> {
    let proof = folder.join(".writable");
    let written = File::create(&proof).and_then(|mut file| file.write_all(b"?"));
    let removed = fs::remove_file(proof);
    written.and(removed)
}

/// Whether it is the disk that fails, and not the operator who has named a wrong folder.
fn is_of_the_disk(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
    ) || error.raw_os_error() == Some(libc::EIO)
}

fn parse(bytes: &[u8]) -> Result<StateFile, Unreadable> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(bytes).map_err(Unreadable::Json)?;
    if version > VERSION {
        return Err(Unreadable::Newer { version });
    }
    serde_json::from_slice(bytes).map_err(Unreadable::Json)
}

fn to_state(file: StateFile, now: Duration) -> SavedState {
    let StateFile { active, epoch, previous, config_active, watch_until_unix_ms, rolled_back, .. } = file;
    // A watch that ended while nobody was there ends now, with a word about it.
    let left = |until: u64| Duration::from_millis(until.saturating_sub(clock::unix_ms()));
    let watch_until = watch_until_unix_ms.map(|until| now + left(until));
    // A watch needs a way back; a file that says otherwise was not written by us.
    let previous = previous.filter(|previous| *previous != active).or(watch_until.map(|_| active.other()));
    SavedState { active, epoch, previous, config_active, watch_until, rolled_back }
}

fn to_file(state: &SavedState, now: Duration) -> StateFile {
    let SavedState { active, epoch, previous, config_active, watch_until, rolled_back } = state.clone();
    let in_unix_ms = |until: Duration| {
        clock::unix_ms() + u64::try_from(until.saturating_sub(now).as_millis()).unwrap_or(u64::MAX / 2)
    };
    let watch_until_unix_ms = watch_until.map(in_unix_ms);
    StateFile { version: VERSION, active, epoch, previous, config_active, watch_until_unix_ms, rolled_back }
}

/// Lets the fuzzer in: whatever a file holds, it is a state that comes back as it is saved, or an error.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let Ok(file) = parse(bytes) else { return };
    let now = Duration::from_secs(1_000);
    let state = to_state(file, now);
    assert_ne!(state.previous, Some(state.active), "a way back leads somewhere");
    let saved = serde_json::to_vec(&to_file(&state, now)).expect("numbers and words");
    let again = to_state(parse(&saved).expect("it reads what it writes"), now);
    let without_times = |state: &SavedState| SavedState { watch_until: None, ..state.clone() };
    assert_eq!(without_times(&again), without_times(&state));
}

#[cfg(test)]
mod tests {
    use crate::control::saved_state::*;

    fn record() -> SavedState {
        SavedState {
            active: Color::Green,
            epoch: 7,
            previous: Some(Color::Blue),
            config_active: Color::Blue,
            watch_until: Some(Duration::from_secs(100)),
            rolled_back: None,
        }
    }

    #[test]
    fn comes_back_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateFolder::open(&folder.path().join("deep/state"), None).unwrap().folder;
        assert_eq!(store.load("recall", Duration::ZERO).unwrap(), None);
        store.save("recall", &record(), Duration::from_secs(40)).unwrap();
        // Another process, whose clock begins at 0: 60 s of the watch are left.
        let again = store.load("recall", Duration::ZERO).unwrap().unwrap();
        let left = again.watch_until.unwrap();
        assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(50), "{left:?}");
        assert_eq!(SavedState { watch_until: record().watch_until, ..again }, record());
    }

    #[test]
    fn an_unreadable_entry_is_kept_and_said() {
        let whole = r#"{"version":1,"active":"green","epoch":7,"previous":null,"config_active":"blue","watch_until_unix_ms":null,"rolled_back":null}"#;
        let newer = whole.replace("\"version\":1", "\"version\":2");
        let mut cases = vec![("empty", ""), ("not JSON", "\0\0\0\0"), ("newer", &newer), ("half", "{\"version\":1}")];
        cases.extend((1..whole.len()).step_by(7).map(|n| ("torn", &whole[..n])));
        for (case, content) in cases {
            let folder = tempfile::tempdir().unwrap();
            let store = StateFolder::open(folder.path(), None).unwrap().folder;
            let path = folder.path().join("recall.json");
            fs::write(&path, content).unwrap();
            fs::write(folder.path().join("recall.json.unreadable"), "an earlier one").unwrap();
            let problem = store.load("recall", Duration::ZERO).unwrap_err().to_string();
            assert!(problem.contains("recall.json") && problem.contains("kept as"), "{case}: {problem}");
            assert_eq!(fs::read_to_string(folder.path().join("recall.json.unreadable.1")).unwrap(), content, "{case}");
            assert_eq!(fs::read_to_string(folder.path().join("recall.json.unreadable")).unwrap(), "an earlier one");
            assert_eq!(store.load("recall", Duration::ZERO).unwrap(), None, "{case}");
        }
    }

    #[test]
    fn the_key_of_passes_is_kept_and_nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let store = StateFolder::open(folder.path(), None).unwrap().folder;
        let path = folder.path().join(KEY_FILE);
        assert_eq!(store.preview_key([1; KEY_BYTES]).unwrap(), [1; KEY_BYTES], "none was there");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(store.preview_key([2; KEY_BYTES]).unwrap(), [1; KEY_BYTES], "it is kept");
        fs::write(&path, "torn").unwrap();
        fs::write(folder.path().join(".preview.key.new"), "of a crash").unwrap();
        assert_eq!(store.preview_key([3; KEY_BYTES]).unwrap(), [3; KEY_BYTES], "what was there is no key");
        assert_eq!(store.preview_key([4; KEY_BYTES]).unwrap(), [3; KEY_BYTES]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_unwritable_folder_is_found_at_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("state"), "a file").unwrap();
        assert!(StateFolder::open(&folder.path().join("state"), None).is_err());
    }

    #[test]
    fn one_process_at_a_time_works_on_it_and_hands_its_lock_on() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateFolder::open(folder.path(), None).unwrap().folder;
        let Err(OpenError::InUse { holder }) = StateFolder::open(folder.path(), None) else { panic!("two at a time") };
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        let successor = StateFolder::open(folder.path(), first.lock()).unwrap().folder;
        drop(first);
        assert!(StateFolder::open(folder.path(), None).is_err(), "the successor holds it");
        drop(successor);
        assert!(StateFolder::open(folder.path(), None).is_ok());
    }

    #[test]
    fn a_crash_before_the_rename_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateFolder::open(folder.path(), None).unwrap().folder;
        store.save("recall", &record(), Duration::ZERO).unwrap();
        fs::write(folder.path().join(".recall.json.new"), "{\"vers").unwrap();
        assert_eq!(store.load("recall", Duration::ZERO).unwrap().unwrap().epoch, 7);
        store.save("recall", &SavedState { epoch: 8, ..record() }, Duration::ZERO).unwrap();
        assert_eq!(store.load("recall", Duration::ZERO).unwrap().unwrap().epoch, 8);
    }
}
