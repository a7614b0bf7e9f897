//! Sets files of the database aside under a name of their own. Nothing is ever deleted here.

use super::failure;
use super::open::{beside, folder_of, sync_folder};
use crate::error::Error;
use std::format;
use std::fs;
use std::path::{Path, PathBuf};

/// What stands beside a database and belongs to its content.
pub(super) const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The first name `DATABASE.old-N` that nothing uses, with no log beside it either.
pub(super) fn free_name(database: &Path) -> PathBuf {
    let taken = |at: &Path| {
        fs::symlink_metadata(at).is_ok() || LOGS.iter().any(|log| fs::symlink_metadata(beside(at, log)).is_ok())
    };
    let mut names = (1u32..).map(|n| beside(database, &format!(".old-{n}")));
    names.find(|at| !taken(at)).unwrap_or_else(|| beside(database, ".old"))
}

/// Moves the logs of `database` to those of `to`, durably. Says whether there was one.
pub(super) fn logs(database: &Path, to: &Path) -> Result<bool, Error> {
    let mut moved = false;
    for log in LOGS {
        let from = beside(database, log);
        match fs::rename(&from, beside(to, log)) {
            Ok(()) => moved = true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failure::file("setting aside", &from, error)),
        }
    }
    if moved {
        sync_folder(folder_of(database))?;
    }
    Ok(moved)
}
