//! Notices that the config file, or an env file it names, has new content.
//!
//! The *folders* are watched: a file that is replaced by a rename, or bind-mounted, does not tell of it itself. Where no
//! notice comes at all, a slow poll finds the change. Content is compared, so that touching a file does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

/// An editor writes in several steps; this much quiet makes one change of them.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// A file that never comes to rest is looked at anyway.
const DEBOUNCE_MAX: Duration = Duration::from_secs(2);
/// The poll behind the notices.
const POLL: Duration = Duration::from_secs(5);

/// Sends `()` whenever the content of one of `files` has changed; ends when either end is dropped.
pub(super) async fn watch_files(mut files: watch::Receiver<Vec<PathBuf>>, changed: mpsc::Sender<()>) {
    let (notice, mut notices) = mpsc::channel(1);
    let mut watched = files.borrow_and_update().clone();
    let mut seen = fingerprint(watched.clone()).await;
    let mut watcher = watch_folders(&watched, notice.clone());
    loop {
        tokio::select! {
            renewed = files.changed() => {
                if renewed.is_err() {
                    return;
                }
                watched = files.borrow_and_update().clone();
                drop(watcher);
                watcher = watch_folders(&watched, notice.clone());
                // Only of files that are new here is the present content the one that was loaded.
                let known = std::mem::replace(&mut seen, fingerprint(watched.clone()).await);
                seen.extend(known.into_iter().filter(|(file, _)| watched.contains(file)));
            }
            _ = notices.recv() => settle(&mut notices).await,
            () = tokio::time::sleep(POLL) => {}
        }
        let now = fingerprint(watched.clone()).await;
        if std::mem::replace(&mut seen, now.clone()) != now && changed.send(()).await.is_err() {
            return;
        }
    }
}

/// Waits until no notice has come for a while.
async fn settle(notices: &mut mpsc::Receiver<()>) {
    let quiet = async { while let Ok(Some(())) = tokio::time::timeout(DEBOUNCE, notices.recv()).await {} };
    // At the limit whatever is there is looked at; the rest is one more notice.
    let _ = tokio::time::timeout(DEBOUNCE_MAX, quiet).await;
}

fn watch_folders(files: &[PathBuf], notice: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too, and comparing means reading.
        if event.is_ok_and(|event| !event.kind.is_access()) {
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

/// A hash of each file's content; `None` for one that cannot be read.
async fn fingerprint(files: Vec<PathBuf>) -> BTreeMap<PathBuf, Option<u64>> {
    let hash = |file: &Path| {
        let mut hasher = DefaultHasher::new();
        std::fs::read(file).ok()?.hash(&mut hasher);
        Some(hasher.finish())
    };
    let read = move || files.into_iter().map(|file| (file.clone(), hash(&file))).collect();
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(changes: &mut mpsc::Receiver<()>, within: Duration) -> bool {
        tokio::time::timeout(within, changes.recv()).await.is_ok()
    }

    #[tokio::test]
    async fn hears_of_new_content_once_and_not_of_a_touch() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cutover.toml");
        std::fs::write(&file, "one").unwrap();
        let (_files, watched) = watch::channel(vec![file.clone()]);
        let (changed, mut changes) = mpsc::channel(1);
        tokio::spawn(watch_files(watched, changed));
        tokio::time::sleep(Duration::from_millis(100)).await;

        std::fs::write(&file, "two").unwrap();
        assert!(heard(&mut changes, POLL).await, "written in place");
        std::fs::write(folder.path().join("new"), "three").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        assert!(heard(&mut changes, POLL).await, "replaced by a rename");
        std::fs::write(&file, "three").unwrap();
        std::fs::write(folder.path().join("other"), "x").unwrap();
        assert!(!heard(&mut changes, Duration::from_millis(700)).await, "the same content, and another file");
        std::fs::remove_file(&file).unwrap();
        assert!(heard(&mut changes, POLL).await, "deleted");
    }
}
