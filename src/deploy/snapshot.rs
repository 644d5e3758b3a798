//! Takes snapshots of the data: a command's standard output, kept in numbered files.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::Backup;
use crate::deploy::command::{Command, CommandError};
use crate::deploy::files;
use crate::os::clock;

/// The end of a snapshot's file name.
const SUFFIX: &str = ".snapshot";

/// Explains why there is no snapshot.
#[derive(Debug)]
pub enum SnapshotError {
    /// The backup command failed or was too slow.
    Command(CommandError),
    /// A file in the backup folder could not be written.
    File(PathBuf, io::Error),
    /// The command succeeded without any output; the text is its command line.
    Empty(String),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Command(error) => error.fmt(f),
            SnapshotError::File(path, error) => write!(f, "{}: {error}", path.display()),
            SnapshotError::Empty(command) => {
                write!(f, "the backup command wrote nothing to its standard output, which is the snapshot: {command}")
            }
        }
    }
}

impl std::error::Error for SnapshotError {}

impl From<CommandError> for SnapshotError {
    fn from(error: CommandError) -> Self {
        SnapshotError::Command(error)
    }
}

/// Takes a snapshot of the data of `service` before `tag`, and removes all but the last `backup.keep` of them.
///
/// # Errors
/// [`SnapshotError`]; no partial file is left.
pub async fn take(backup: &Backup, command: &Command, service: &str, tag: &str) -> Result<PathBuf, SnapshotError> {
    let stamp: String = clock::utc().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let path = backup.folder.join(format!("{service}-{stamp}-{tag}{SUFFIX}"));
    let partial = files::beside(&path, ".part");
    if let Err(error) = write(backup, command, &partial).await {
        let _ = files::remove(&partial);
        return Err(error);
    }
    let file_error = |error: io::Error| SnapshotError::File(path.clone(), error);
    fs::rename(&partial, &path).and_then(|()| files::sync_folder_of(&path)).map_err(file_error)?;
    rotate(&backup.folder, service, backup.keep).map_err(file_error)?;
    Ok(path)
}

async fn write(backup: &Backup, command: &Command, path: &Path) -> Result<(), SnapshotError> {
    let file_error = |error: io::Error| SnapshotError::File(path.to_owned(), error);
    fs::create_dir_all(&backup.folder).map_err(file_error)?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(file_error)?;
    let output = file.try_clone().map_err(file_error)?;
    command.run_to_file(output, backup.timeout).await?;
    file.sync_all().map_err(file_error)?;
    if file.metadata().map_err(file_error)?.len() == 0 {
        return Err(SnapshotError::Empty(command.to_string()));
    }
    Ok(())
}

/// Removes all but the last `keep` snapshots of `service`. The time stamps in their names put them in order.
fn rotate(folder: &Path, service: &str, keep: usize) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| is_snapshot(name, service)) {
            found.push(path);
        }
    }
    found.sort();
    found.truncate(found.len().saturating_sub(keep));
    found.iter().try_for_each(|path| files::remove(path))
}

/// Returns whether `name` is a snapshot of exactly this service: `shop` must not rotate those of `shop-eu`.
fn is_snapshot(name: &str, service: &str) -> bool {
    let rest = name.strip_prefix(service).and_then(|rest| rest.strip_prefix('-'));
    let Some((stamp, tag)) = rest.and_then(|rest| rest.strip_suffix(SUFFIX)).and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    let is_digit_at = |(at, b): (usize, u8)| match at {
        8 => b == b'T',
        15 => b == b'Z',
        _ => b.is_ascii_digit(),
    };
    stamp.len() == 16 && stamp.bytes().enumerate().all(is_digit_at) && !tag.is_empty()
}

#[cfg(test)]
mod tests {
    use crate::deploy::snapshot::*;
    use std::time::Duration;

    fn backup(folder: &Path, keep: usize) -> Backup {
        Backup { command: Vec::new(), folder: folder.join("backups"), keep, timeout: Duration::from_secs(20) }
    }

    fn sh(script: &str) -> Command {
        Command::new("sh", ["-c", script])
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn is_what_the_command_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = take(&backup(folder.path(), 7), &sh("echo rows"), "recall", "sha-2").await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "rows\n");
        assert!(is_snapshot(path.file_name().unwrap().to_str().unwrap(), "recall"), "{}", path.display());
    }

    #[tokio::test]
    async fn that_failed_or_is_empty_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let backup = backup(folder.path(), 7);
        for (case, script, word) in [
            ("failed after half of it", "echo half; echo no space >&2; exit 1", "no space"),
            ("empty", "true", "wrote nothing"),
        ] {
            let why = take(&backup, &sh(script), "recall", "sha-2").await.expect_err(case).to_string();
            assert!(why.contains(word), "{case}: {why}");
            assert_eq!(names(&backup.folder), [""; 0], "{case}: nothing is left of it");
        }
    }

    #[tokio::test]
    async fn only_the_last_ones_are_kept_and_only_ours_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let backup = backup(folder.path(), 2);
        fs::create_dir(&backup.folder).unwrap();
        let others = ["shop-20200101T000000Z.snapshot", "shop-eu-20200101T000000Z-a.snapshot", "shop-notes.snapshot"];
        let old = ["shop-20200101T000000Z-a.snapshot", "shop-20210101T000000Z-b.snapshot"];
        for name in others.iter().chain(&old) {
            fs::write(backup.folder.join(name), "x").unwrap();
        }
        take(&backup, &sh("echo rows"), "shop", "c").await.unwrap();
        let left = names(&backup.folder);
        assert!(others.iter().all(|other| left.iter().any(|name| name == other)), "{left:?}");
        assert!(left.iter().any(|name| name == old[1]) && !left.iter().any(|name| name == old[0]), "{left:?}");
        assert_eq!(left.len(), 5);
    }
}
