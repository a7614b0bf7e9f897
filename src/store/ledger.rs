//! What is remembered of backups beside the database: a small file, so that neither a restart nor a restore makes a number
//! be used twice, and a node that restarts every day still comes to its next backup.
//!
//! A file that cannot be read is as good as none: the numbers of the backups that are there say where to go on.

use super::disk::Disk;
use super::failure;
use super::open::{beside, folder_of, sync_folder};
use crate::error::Error;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::string::String;

const BYTES_MAX: usize = 4096;

/// What is known of the backups that were made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackupLedger {
    /// The number of the last backup; rises for ever.
    pub counter: u64,
    /// How long the node has run since the last backup, or since it was new, by the monotonic clock.
    pub elapsed_ms: Millis,
    /// The last backup.
    pub last: Option<LastBackup>,
}

/// The last backup that was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LastBackup {
    /// Its name within the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When, by the node's clock then.
    pub at: Millis,
    /// What was in it, to know whether anything has changed.
    pub content: String,
}

/// `DATABASE.backups`.
pub(super) fn place(database: &Path) -> PathBuf {
    beside(database, ".backups")
}

pub(super) fn read(disk: &dyn Disk, database: &Path) -> BackupLedger {
    let bytes = disk.read_start(&place(database), BYTES_MAX);
    bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Durably, or the one before stays.
pub(super) fn write(disk: &dyn Disk, database: &Path, ledger: &BackupLedger) -> Result<(), Error> {
    let at = place(database);
    let partial = beside(database, ".backups.partial");
    let text = serde_json::to_vec(ledger).map_err(|error| {
        Error::persistence("the record of backups could not be encoded; report this", Some(error.into()))
    })?;
    let written = disk.write(&partial, &text).and_then(|()| disk.rename(&partial, &at));
    written.map_err(|error| failure::file("writing the record of backups", &at, error))?;
    sync_folder(disk, folder_of(database))
}
