//! Notices that the config file, or an env file it names, has new content.
//!
//! The *folders* are watched: a file that is replaced by a rename, or bind-mounted, does not tell of it itself. Where
//! no notice comes at all, a slow poll finds the change. Content is compared, so that touching a file does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::ModifyKind;
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

/// An editor writes in several steps; this much quiet makes one change of them.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// A file that never comes to rest is looked at anyway.
const DEBOUNCE_MAX: Duration = Duration::from_secs(2);
/// The poll behind the notices.
const POLL: Duration = Duration::from_secs(5);

/// Files and a hash of what each held; `None` for one that could not be read.
pub(super) type Contents = BTreeMap<PathBuf, Option<u64>>;

/// What `files` hold now.
pub(super) fn contents(files: impl IntoIterator<Item = PathBuf>) -> Contents {
    let hash = |file: &Path| {
        let mut hasher = DefaultHasher::new();
        std::fs::read(file).ok()?.hash(&mut hasher);
        Some(hasher.finish())
    };
    files.into_iter().map(|file| (file.clone(), hash(&file))).collect()
}

/// Sends `()` whenever the files hold something else than what was `loaded` last; ends when either end is dropped.
///
/// What was loaded, and not what was last seen here: a change that HUP has loaded and that is then undone at once is
/// no change to whoever only looks now and then.
pub(super) async fn watch_files(mut loaded: watch::Receiver<Contents>, changed: mpsc::Sender<()>) {
    let (notice, mut notices) = mpsc::channel(1);
    let mut watched = files_of(&loaded);
    let mut watcher = watch_folders(&watched, notice.clone());
    loop {
        let read = watched.clone();
        let now = tokio::task::spawn_blocking(move || contents(read)).await.unwrap_or_default();
        if now != *loaded.borrow_and_update() && changed.send(()).await.is_err() {
            return;
        }
        tokio::select! {
            renewed = loaded.changed() => {
                if renewed.is_err() {
                    return;
                }
                let files = files_of(&loaded);
                if files != watched {
                    watched = files;
                    drop(watcher);
                    watcher = watch_folders(&watched, notice.clone());
                }
            }
            _ = notices.recv() => settle(&mut notices).await,
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

fn files_of(loaded: &watch::Receiver<Contents>) -> Vec<PathBuf> {
    loaded.borrow().keys().cloned().collect()
}

/// Waits until no notice has come for a while.
async fn settle(notices: &mut mpsc::Receiver<()>) {
    let quiet = async { while let Ok(Some(())) = tokio::time::timeout(DEBOUNCE, notices.recv()).await {} };
    // At the limit whatever is there is looked at; the rest is one more notice.
    let _ = tokio::time::timeout(DEBOUNCE_MAX, quiet).await;
}

/// What the files are called, and what they are links to.
fn names_of(files: &[PathBuf]) -> BTreeSet<OsString> {
    let targets = files.iter().filter_map(|file| file.canonicalize().ok());
    files.iter().cloned().chain(targets).filter_map(|file| file.file_name().map(OsStr::to_owned)).collect()
}

/// Whether one of our files may be another one after it. Reading is an event too, and comparing means reading; and a
/// log that is written beside them must not keep us busy.
fn may_change(event: &notify::Event, ours: &BTreeSet<OsString>) -> bool {
    let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| ours.contains(name));
    match event.kind {
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_)) => event.paths.iter().any(is_ours),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

fn watch_folders(files: &[PathBuf], notice: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let ours = names_of(files);
    let tell = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| may_change(&event, &ours)) {
            // A full queue holds a notice already.
            let _ = notice.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(tell)
        .inspect_err(|error| tracing::warn!("files are only polled every {POLL:?}: {error}"))
        .ok()?;
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    for folder in folders {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::warn!("{} is only polled every {POLL:?}: {error}", folder.display());
        }
    }
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use crate::control::file_watch::*;

    async fn heard(changes: &mut mpsc::Receiver<()>, within: Duration) -> bool {
        tokio::time::timeout(within, changes.recv()).await.is_ok()
    }

    #[test]
    fn a_neighbour_that_is_written_is_no_notice_and_one_that_moves_is() {
        let ours = names_of(&[PathBuf::from("/etc/cutover/cutover.toml")]);
        let may_change = |kind, name: &str| {
            may_change(&notify::Event::new(kind).add_path(Path::new("/etc/cutover").join(name)), &ours)
        };
        let data = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        assert!(may_change(data, "cutover.toml") && !may_change(data, "access.log"));
        let moved = EventKind::Modify(ModifyKind::Name(notify::event::RenameMode::Any));
        assert!(may_change(moved, "..data"), "a link to a folder, as Kubernetes mounts a config");
        assert!(!may_change(EventKind::Access(notify::event::AccessKind::Any), "cutover.toml"));
    }

    #[tokio::test]
    async fn hears_of_what_was_not_loaded_and_not_of_a_touch() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cutover.toml");
        let on_disk = || contents([file.clone()]);
        std::fs::write(&file, "one").unwrap();
        let (loaded, watched) = watch::channel(on_disk());
        let (changed, mut changes) = mpsc::channel(1);
        tokio::spawn(watch_files(watched, changed));
        tokio::time::sleep(Duration::from_millis(100)).await;

        let one = on_disk();
        std::fs::write(&file, "two").unwrap();
        assert!(heard(&mut changes, POLL).await, "written in place");
        loaded.send_replace(on_disk());
        std::fs::write(folder.path().join("new"), "three").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        assert!(heard(&mut changes, POLL).await, "replaced by a rename");
        loaded.send_replace(on_disk());
        std::fs::write(&file, "three").unwrap();
        std::fs::write(folder.path().join("other"), "x").unwrap();
        assert!(!heard(&mut changes, Duration::from_millis(700)).await, "the same content, and another file");
        loaded.send_replace(one);
        assert!(heard(&mut changes, POLL).await, "what was loaded is not what is there");
        loaded.send_replace(on_disk());
        std::fs::remove_file(&file).unwrap();
        assert!(heard(&mut changes, POLL).await, "deleted");
    }
}
