//! Folders that a group shares: what is made in one is for the group as well.
//!
//! The proxy and whoever deploys write the same ledger and the same state, as users of their own. An operator says so
//! by `install -m 2775` (setgid, and the group may write). With the usual umask of 022 whoever came first would shut
//! out the others all the same.

use std::fs::{File, Permissions, metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Setgid, and the group may write.
const SHARED: u32 = 0o2020;
const FILE: u32 = 0o060;
const FOLDER: u32 = 0o2070;

/// The folder that `path` is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens what we have just made at `path`, a file or a folder, to the group, if the folder it is in is shared.
///
/// A file system that knows no modes leaves it as it is.
pub fn share(made: &File, path: &Path) {
    let is_shared = metadata(folder_of(path)).is_ok_and(|folder| folder.mode() & SHARED == SHARED);
    let Ok(about) = made.metadata() else { return };
    if is_shared {
        let more = if about.is_dir() { FOLDER } else { FILE };
        let _ = made.set_permissions(Permissions::from_mode(about.mode() & 0o7777 | more));
    }
}

#[cfg(test)]
mod tests {
    use crate::os::group_files::*;

    #[test]
    fn what_is_made_is_the_group_s_where_the_folder_is() {
        for (case, folder_mode, file, folder) in [
            ("nobody else's", 0o700, 0o600, 0o700),
            ("setgid, and not to be written", 0o2755, 0o600, 0o700),
            ("to be written, by whatever group", 0o775, 0o600, 0o700),
            ("shared", 0o2775, 0o660, 0o2770),
        ] {
            let root = tempfile::tempdir().unwrap();
            std::fs::set_permissions(root.path(), Permissions::from_mode(folder_mode)).unwrap();
            let (inner, path) = (root.path().join("folder"), root.path().join("file"));
            std::fs::create_dir(&inner).unwrap();
            std::fs::set_permissions(&inner, Permissions::from_mode(0o700)).unwrap();
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            for (path, want) in [(path, file), (inner, folder)] {
                share(&File::open(&path).unwrap(), &path);
                assert_eq!(metadata(&path).unwrap().mode() & 0o7777, want, "{case}: {}", path.display());
            }
        }
    }
}
