//! One backup, from the look at the folder to the rotation: copied, synced, verified, and only then given a name.
//!
//! Runs on the thread of `keeper`; the pages are copied by the writing thread, see `copy`, and the folder is `shelf`'s. Knows
//! no schedule.

use super::disk::Disk;
use super::failure::{self, Failure};
use super::keeper::Keeper;
use super::ledger::{self, BackupLedger, LastBackup};
use super::open::{beside, connect, set};
use super::schema::BACKUP_ID;
use super::shelf::{self, Shelf};
use super::space::file_bytes;
use super::{Options, verify};
use crate::error::Error;
use crate::replica::Knowledge;
use crate::time::Millis;
use rusqlite::OpenFlags;
use std::format;
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::Arc;

/// What kind of backup is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOrder {
    /// Where.
    pub folder: PathBuf,
    /// How many are kept.
    pub keep: u32,
    /// The time, for the name.
    pub now: Millis,
}

/// A backup that is on disk, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Nothing has changed since it was made: no new one was.
    pub unchanged: bool,
    /// Older ones that were removed.
    pub removed: u64,
}

/// What of the knowledge changes when anything does that a backup is for.
pub(super) fn content(knowledge: &Knowledge) -> String {
    let Knowledge { replica, tail, dropped_upto, recovered, .. } = knowledge;
    format!("{replica}-{tail}-{dropped_upto}-{recovered}")
}

/// Makes a backup of what `knowledge` is part of. Everything that was committed before the call is in it.
pub(super) fn make(
    keeper: &Arc<Keeper>,
    options: &Options,
    order: &BackupOrder,
    knowledge: &Knowledge,
    nudge: impl Fn(),
) -> Result<Backup, Error> {
    let (disk, database) = (&*options.disk, &options.path);
    let folder = std::path::absolute(&order.folder).unwrap_or_else(|_| order.folder.clone());
    let stopping = || keeper.is_stopping();
    let shelf = Shelf::open(disk, &folder, &stopping)?;
    let ledger = ledger::read(disk, database);
    if let Some(last) = ledger.last.as_ref().filter(|last| last.content == content(knowledge)) {
        let (path, bytes) = (folder.join(&last.name), last.bytes);
        let stopping = Arc::clone(keeper);
        if shelf.has_both(&last.name, bytes) {
            // Read again each time: what rotted since is no backup.
            if shelf::is_good(disk, &path, move || stopping.is_stopping()) {
                ledger::write(disk, database, &BackupLedger { elapsed_ms: 0, ..ledger })?;
                return Ok(Backup { path, bytes, unchanged: true, removed: 0 });
            }
            log::error!("event=BackupDamaged path={}", path.display());
        }
    }
    let bytes = file_bytes(disk, database) + file_bytes(disk, &beside(database, "-wal"));
    shelf.has_room(bytes, options.min_free_bytes)?;
    let newest = shelf.backups()?.last().map_or(0, |newest| newest.counter);
    let counter = ledger.counter.max(newest) + 1;
    let name = shelf::name(order.now, counter);
    let partial = shelf.partial(&name);
    copy(keeper, disk, &partial.path, nudge)?;
    mark(disk, &partial.path).map_err(|failure| failure.into_error("marking the backup", &partial.path))?;
    let found = verified(keeper, disk, &partial.path)?;
    let bytes = file_bytes(disk, &partial.path);
    let path = shelf.publish(&partial.path, &name)?;
    let removed = shelf.rotate(order.keep.max(1) as usize)?;
    let last = LastBackup { name, bytes, at: order.now, content: content(&found) };
    ledger::write(disk, database, &BackupLedger { counter, elapsed_ms: 0, last: Some(last) })?;
    Ok(Backup { path, bytes, unchanged: false, removed })
}

/// Has the database copied into a new file.
fn copy(keeper: &Arc<Keeper>, disk: &dyn Disk, to: &Path, nudge: impl Fn()) -> Result<(), Error> {
    let told = |error| failure::backup_file("writing", to, error);
    disk.create(to).map_err(told)?;
    let copied = || -> Result<(), Failure> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let destination = connect(disk, to, flags)?;
        // It is nothing until it is whole: no journal, and it is synced here, piece by piece.
        destination.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA cache_size = -256; PRAGMA mmap_size = 0",
        )?;
        let sync = || disk.sync(to).map_err(|error| Failure::from(told(error)));
        drop(keeper.desk.copy(destination, nudge, sync, || keeper.is_stopping())?);
        sync()
    };
    copied().map_err(|failure| failure.into_error("copying the database", to))
}

/// Makes of the copy a backup: one file without a log, that says what it is.
fn mark(disk: &dyn Disk, path: &Path) -> Result<(), Failure> {
    let connection = connect(disk, path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.execute_batch("PRAGMA cache_size = -256; PRAGMA mmap_size = 0; PRAGMA locking_mode = EXCLUSIVE")?;
    set(&connection, "journal_mode", "delete", "delete")?;
    set(&connection, "synchronous", "2", "2")?;
    let id = format!("{BACKUP_ID}");
    set(&connection, "application_id", &id, &id)?;
    connection.close().map_err(|(_, error)| error.into())
}

/// Reads all of it again, from the disk and not from memory.
fn verified(keeper: &Arc<Keeper>, disk: &dyn Disk, path: &Path) -> Result<Knowledge, Error> {
    disk.forget(path).map_err(|error| failure::backup_file("reading", path, error))?;
    let stop = Arc::clone(keeper);
    let found = verify::file(disk, path, move || stop.is_stopping())?;
    if !found.damage.is_empty() {
        let next = "nothing was kept of it: look for damage with 'cbddc check'";
        return Err(found.damage.error(path, next));
    }
    Ok(found.knowledge)
}
