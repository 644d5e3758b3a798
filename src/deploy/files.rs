//! Replaces files whole: temporary file, fsync, rename, fsync of the folder.
//!
//! A crash at any instant leaves the old file or the new one, never a part of either.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::os::group_files::{folder_of, share};

/// Replaces `path` by `content`.
///
/// The new file takes mode, group and (where the process may give files away) owner from `like`. Without `like` its
/// mode is 0600, or 0660 in a folder that a group [shares](share). A symlink stays, and the file that it points to is
/// replaced.
///
/// # Errors
/// An error of the file system; the file is as it was.
pub fn replace(path: &Path, content: &[u8], like: Option<&Path>) -> io::Result<()> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = beside(path, ".new");
    // A crash may have left one behind, perhaps with another mode.
    remove(&temporary)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    match like {
        Some(like) => {
            let like = fs::metadata(like)?;
            // Only root may give files away. A member of the group can at least keep the group, through which the proxy
            // reads the file.
            let _ =
                fchown(&file, Some(like.uid()), Some(like.gid())).or_else(|_| fchown(&file, None, Some(like.gid())));
            file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
        }
        None => share(&file, path),
    }
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder_of(path)
}

/// Removes a file; a missing file is no error.
///
/// # Errors
/// An error of the file system; the file is still there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Syncs the folder of `path`, so that a rename in it survives a power cut.
///
/// # Errors
/// An error of the file system; the rename may be lost.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// Returns `path` with `suffix` appended to its file name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use crate::deploy::files::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_symlink() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real.env"), folder.path().join(".env.blue"));
        fs::write(&file, "before").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        fs::write(folder.path().join("real.env.new"), "left over").unwrap();
        replace(&link, b"after", Some(&link)).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "after");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside it");
    }

    #[test]
    fn a_new_file_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.json");
        replace(&file, b"{}", None).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    }
}
