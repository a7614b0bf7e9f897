//! Whether the places that a configuration names can be what they are to be: a file where a file is due, a folder where a folder is
//! due, and what is missing can be made. Leaves nothing behind; whether the node's own user may do it is for `cbddc doctor`.

use crate::cli::absolute;
use crate::config::Config;
use crate::error::Error;
use std::format;
use std::fs;
use std::path::{Path, PathBuf};

/// What is due at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    File,
    Folder,
}

/// All of them.
///
/// # Errors
/// The first that cannot be used: a wrong configuration.
pub(super) fn usable(config: &Config) -> Result<(), Error> {
    let (persistence, cluster) = (&config.persistence, &config.cluster);
    place("Persistence.DatabasePath", &persistence.database_path, Due::File)?;
    if persistence.auto_backup {
        place("Persistence.BackupPath", &persistence.backup_path, Due::Folder)?;
    }
    place("Cluster.KeyFile", &cluster.key_file, Due::File)?;
    if let Some(log) = &config.logging.path {
        place("Logging.Path", log, Due::File)?;
    }
    Ok(())
}

fn place(key: &str, path: &Path, due: Due) -> Result<(), Error> {
    let path = absolute(path);
    let wrong = |what: &str| Err(Error::configuration(format!("CBDDC.{key}: {} {what}", path.display())));
    match (fs::metadata(&path), due) {
        (Ok(found), Due::File) if found.is_dir() => return wrong("is a folder: name a file in it"),
        (Ok(found), Due::File) if !found.is_file() => return wrong("is a FIFO, a device or a socket: name a file"),
        (Ok(found), Due::Folder) if !found.is_dir() => return wrong("is no folder: name one"),
        (Ok(_), _) => return Ok(()),
        // Not there, or something above it is no folder.
        (Err(_), _) => {}
    }
    let folder = if due == Due::Folder { path.clone() } else { folder_of(&path) };
    let Some(there) = folder.ancestors().find(|above| fs::symlink_metadata(above).is_ok()) else { return Ok(()) };
    if !there.is_dir() {
        return wrong(&format!("cannot be made: {} is no folder", there.display()));
    }
    if there == folder {
        return Ok(());
    }
    // Whether a folder can be made there only trying shows: not on every file system, and not by every user.
    let probe = there.join(format!(".cbddc-check-{}", std::process::id()));
    match fs::create_dir(&probe) {
        Ok(()) => {
            // It was made a moment ago, and is empty.
            let _ = fs::remove_dir(&probe);
            Ok(())
        }
        Err(error) => wrong(&format!("cannot be made: no folder can be made in {}: {error}", there.display())),
    }
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named_with_its_key_and_nothing_is_left_behind() {
        let folder = std::env::temp_dir().join(format!("cbddc-config-paths-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), "").unwrap();
        let said = |at: &str, due| place("K", &folder.join(at), due).map_err(|error| format!("{error}"));
        assert_eq!(said("new/deeper/db", Due::File), Ok(()));
        assert_eq!(said("file", Due::File), Ok(()));
        assert_eq!(said("backups", Due::Folder), Ok(()));
        assert!(said("", Due::File).unwrap_err().contains("is a folder"));
        assert!(said("file", Due::Folder).unwrap_err().contains("no folder"));
        assert!(said("file/db", Due::File).unwrap_err().contains("file is no folder"));
        assert!(said("file/deeper/db", Due::File).unwrap_err().contains("CBDDC.K: "));
        assert!(place("K", Path::new("/proc/none/db"), Due::File).is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
