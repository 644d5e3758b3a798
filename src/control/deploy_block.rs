//! Reads from a deploy's journal whether the deploy is at work on a color, so that nothing may be flipped to it.
//!
//! The journal is written before each step, so the file is a lock that outlives both processes: a flip is refused from
//! wherever it comes, also after the proxy or the deploy was killed. The deploy, for its part, looks at the active
//! color after it has written the journal. Whichever of the two comes second sees the first.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use crate::domain::Color;
use crate::domain::release::state::{Block, ReleaseState};

/// How long the control plane waits for a disk that hangs. It judges releases meanwhile, so it must not wait for long.
const READ_MAX: Duration = Duration::from_millis(250);

/// The part of a journal that the proxy reads.
#[derive(Deserialize)]
struct JournalView {
    tag: String,
    #[serde(flatten)]
    release: ReleaseState,
}

/// Whether the journal could be read.
enum JournalRead {
    None,
    Known(JournalView),
    /// It cannot be read; the text says why.
    Unknown(String),
}

/// Who asks to change the color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskedChange {
    Flip,
    /// Nothing but a known block keeps anybody from the way back.
    Rollback,
}

/// Says why nothing may be flipped to `to`; `None` where no deploy is in the way.
pub(super) fn find(state_dir: &Path, service: &str, to: Color, change: AskedChange) -> Option<String> {
    let folder = state_dir.join("deploy");
    let (path, lock) = (folder.join(format!("{service}.json")), folder.join(format!("{service}.lock")));
    let JournalView { tag, release } = match (read(path), change) {
        (JournalRead::None, _) | (JournalRead::Unknown(_), AskedChange::Rollback) => return None,
        (JournalRead::Unknown(why), AskedChange::Flip) => {
            return Some(format!("whether a deploy is at work on {to} is not known: {why}"));
        }
        (JournalRead::Known(view), _) => view,
    };
    let reached = release.reached;
    match release.blocks(to, true)? {
        Block::Unproven => {
            Some(format!("a deploy of {tag} to {to} is at {reached}; what runs there has not passed its gates"))
        }
        Block::NotUndone => {
            Some(format!("{to} may still run {tag}, which failed or was taken back and is not undone yet"))
        }
        Block::Retiring => is_held(&lock).then(|| format!("a deploy of {tag} is stopping {to} at this moment")),
    }
}

/// Reads a journal in a thread of its own, so that a disk that hangs delays nothing else for long.
fn read(path: PathBuf) -> JournalRead {
    let (sender, receiver) = mpsc::channel();
    let spawned = thread::Builder::new().name("deploy-journal".into()).spawn(move || {
        let journal = match std::fs::read(&path) {
            // Where there is no folder, no deploy has left a journal.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                JournalRead::None
            }
            Err(error) => JournalRead::Unknown(format!("{}: {error}", path.display())),
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(view) => JournalRead::Known(view),
                Err(error) => JournalRead::Unknown(format!("the journal {}: {error}", path.display())),
            },
        };
        // The control plane may have given up.
        let _ = sender.send(journal);
    });
    if let Err(error) = spawned {
        return JournalRead::Unknown(error.to_string());
    }
    receiver.recv_timeout(READ_MAX).unwrap_or_else(|_| JournalRead::Unknown("the state folder does not answer".into()))
}

/// Returns whether a process holds the lock of a deploy.
fn is_held(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use crate::control::deploy_block::*;
    use crate::domain::release::{Step, Strategy};

    /// Writes the journal of a deploy to green.
    fn write(folder: &Path, release: &ReleaseState) {
        std::fs::create_dir_all(folder.join("deploy")).unwrap();
        let mut json = serde_json::to_value(release).unwrap();
        json["tag"] = "sha-2".into();
        std::fs::write(folder.join("deploy/app.json"), json.to_string()).unwrap();
    }

    #[test]
    fn a_color_is_blocked_from_up_until_the_flip() {
        let folder = tempfile::tempdir().unwrap();
        let find = |to, change| find(folder.path(), "app", to, change);
        assert_eq!(find(Color::Green, AskedChange::Flip), None, "there is no journal");
        for (reached, is_blocked) in
            [(Step::Image, false), (Step::Up, true), (Step::EnvFile, true), (Step::Flip, false), (Step::Watch, false)]
        {
            let done = Step::ALL.into_iter().filter(|step| *step < reached).collect();
            let begun = ReleaseState::begin(Strategy::BlueGreen, Color::Green, 4);
            let release = ReleaseState { reached, done, ..begun };
            write(folder.path(), &release);
            assert_eq!(find(Color::Green, AskedChange::Flip).is_some(), is_blocked, "{reached}");
            assert_eq!(find(Color::Green, AskedChange::Rollback).is_some(), is_blocked, "{reached}");
            assert_eq!(find(Color::Blue, AskedChange::Flip), None, "{reached}: the way back is open");
        }
    }

    #[test]
    fn a_color_that_is_being_stopped_is_blocked_while_the_deploy_lives() {
        use crate::domain::release::Decision;
        use crate::domain::release::state::Decided;
        let folder = tempfile::tempdir().unwrap();
        let decided = Some(Decided { decision: Decision::Keep, why: "well".into() });
        let begun = ReleaseState::begin(Strategy::BlueGreen, Color::Green, 4);
        write(folder.path(), &ReleaseState { reached: Step::Retire, flipped: Some(5), decided, ..begun });
        let find = || find(folder.path(), "app", Color::Blue, AskedChange::Rollback);
        assert_eq!(find(), None, "the deploy is dead");
        let lock = File::create(folder.path().join("deploy/app.lock")).unwrap();
        lock.lock().unwrap();
        assert!(find().is_some_and(|why| why.contains("is stopping blue")));
    }

    #[test]
    fn what_cannot_be_read_stops_a_flip_and_no_rollback() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("deploy")).unwrap();
        std::fs::write(folder.path().join("deploy/app.json"), "{").unwrap();
        let find = |change| find(folder.path(), "app", Color::Green, change);
        assert!(find(AskedChange::Flip).is_some_and(|why| why.contains("app.json")));
        assert_eq!(find(AskedChange::Rollback), None);
    }
}
