//! The folder of evidence beside the ledger: whole files, for their owner only, and no more than the last ones.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::domain::Color;

/// So many files of a service are kept; older ones are removed.
const KEPT: usize = 20;

/// The folder `evidence` beside the ledger.
pub(in crate::control) fn folder_of(ledger: &Path) -> PathBuf {
    ledger.parent().unwrap_or(Path::new("")).join("evidence")
}

/// `2026-11-23T05-28-11Z-recall-green-epoch2.json`: names sort by time, and need no quotes in a shell.
pub(super) fn name(utc: &str, service: &str, color: Color, epoch: u64) -> String {
    format!("{}-{service}-{color}-epoch{epoch}.json", utc.replace(':', "-"))
}

/// The service that a file is about; `None` for what is not ours.
fn service_of(name: &str) -> Option<&str> {
    const TIME: usize = "2026-11-23T05-28-11Z-".len();
    let (rest, epoch) = name.strip_suffix(".json")?.get(TIME..)?.rsplit_once("-epoch")?;
    epoch.parse::<u64>().ok()?;
    let (service, color) = rest.rsplit_once('-')?;
    Color::BOTH.iter().any(|known| known.as_str() == color).then_some(service)
}

/// Why an evidence file is not as it should be.
#[derive(Debug)]
pub(in crate::control) enum EvidenceError {
    /// The file was not written.
    NotWritten { path: PathBuf, source: io::Error },
    /// It was written, and one that is too old is still there.
    NotPruned { folder: PathBuf, source: io::Error },
    /// No thread could be started to write it.
    NoThread(io::Error),
    /// The thread that writes it has ended before it was done.
    ThreadEnded,
}

impl fmt::Display for EvidenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EvidenceError::NotWritten { path, source } => {
                write!(f, "evidence {}: {source}; make the folder writable for the proxy's user", path.display())
            }
            EvidenceError::NotPruned { folder, source } => {
                write!(f, "evidence {}: an older file could not be removed: {source}", folder.display())
            }
            EvidenceError::NoThread(source) => write!(f, "evidence: no thread to write it: {source}"),
            EvidenceError::ThreadEnded => f.write_str("evidence: the thread that writes it has ended"),
        }
    }
}

/// Writes a file whole or not at all, mode 0600, and removes those of its service that are too many.
///
/// # Errors
/// The file is not there, or an older one is still there.
pub(super) fn write(path: &Path, service: &str, text: &str) -> Result<(), EvidenceError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    put(folder, path, text).map_err(|source| EvidenceError::NotWritten { path: path.to_owned(), source })?;
    let prune = || -> io::Result<()> {
        let mut all = of_service(folder, service)?;
        all.sort_unstable();
        let too_many = all.len().saturating_sub(KEPT);
        all[..too_many].iter().try_for_each(fs::remove_file)
    };
    prune().map_err(|source| EvidenceError::NotPruned { folder: folder.to_owned(), source })
}

fn put(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let temporary = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

fn of_service(folder: &Path, service: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| service_of(name.to_str()?)) == Some(service) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The one about that epoch of a service, where there is one.
pub(in crate::control) fn of_epoch(folder: &Path, service: &str, epoch: u64) -> Option<PathBuf> {
    let end = format!("-epoch{epoch}.json");
    let is_of_it = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(&end));
    // With a state folder begun anew, epochs come again.
    of_service(folder, service).ok()?.into_iter().filter(is_of_it).max()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use crate::control::task::evidence::file::*;

    #[test]
    fn a_name_says_of_which_service_it_is() {
        let name = name("2026-11-23T05:28:11Z", "re-call", Color::Green, 12);
        assert_eq!(name, "2026-11-23T05-28-11Z-re-call-green-epoch12.json");
        assert_eq!(service_of(&name), Some("re-call"));
        for other in ["", "notes.json", "2026-11-23T05-28-11Z-a-red-epoch1.json", "é-green-epoch1.json"] {
            assert_eq!(service_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_ones_of_each_service_are_kept_and_only_their_owner_reads_them() {
        let parent = tempfile::tempdir().unwrap();
        let folder = folder_of(&parent.path().join("releases.log"));
        let at = |second: usize, service: &str| {
            folder.join(name(&format!("2026-01-01T00:00:{second:02}Z"), service, Color::Blue, 2))
        };
        write(&at(0, "b"), "b", "{}").unwrap();
        for second in 0..KEPT + 3 {
            write(&at(second, "a-b"), "a-b", "{}").unwrap();
        }
        assert_eq!(of_service(&folder, "a-b").unwrap().len(), KEPT);
        assert_eq!(of_epoch(&folder, "a-b", 2), Some(at(KEPT + 2, "a-b")));
        assert_eq!(of_epoch(&folder, "b", 2), Some(at(0, "b")), "another's are left alone");
        assert_eq!(of_epoch(&folder, "b", 12), None);
        let mode = fs::metadata(at(0, "b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        write(&at(0, "b"), "b", "again").unwrap();
        assert_eq!(fs::read_to_string(at(0, "b")).unwrap(), "again");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), KEPT + 1, "nothing half-written is left");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_a_sentence() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("evidence"), "a file").unwrap();
        let path = parent.path().join("evidence/x.json");
        let why = write(&path, "a", "{}").unwrap_err().to_string();
        assert!(why.contains("x.json") && why.contains("writable"), "{why}");
    }
}
