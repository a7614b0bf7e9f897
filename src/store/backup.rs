//! One backup, from the look at the folder to the rotation: copied, synced, verified, and only then given a name.
//!
//! Runs on the thread of `keeper`; the pages are copied by the writing thread, see `copy`. Knows no schedule.

use super::disk::Disk;
use super::failure::{self, Failure};
use super::header;
use super::keeper::Keeper;
use super::ledger::{self, BackupLedger, LastBackup};
use super::open::{beside, connect, set, sync_folder};
use super::schema::BACKUP_ID;
use super::space::file_bytes;
use super::{Options, verify};
use crate::error::Error;
use crate::replica::Knowledge;
use crate::time::Millis;
use rusqlite::OpenFlags;
use std::format;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use std::vec::Vec;

/// The name that is always the newest whole backup.
const LATEST: &str = "latest.db";
const PARTIAL: &str = ".partial";
/// Digits of the number in a name, at least.
const DIGITS: usize = 6;

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

/// A backup by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Numbered {
    counter: u64,
    name: String,
}

/// The number in `backup-YYYYMMDD-NNNNNN.db`. Only the number says which is newer: dates lie.
fn counter(name: &str) -> Option<u64> {
    let (date, number) = name.strip_prefix("backup-")?.strip_suffix(".db")?.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (date.len() == 8 && digits(date) && number.len() >= DIGITS && digits(number)).then(|| number.parse().ok()).flatten()
}

fn name(now: Millis, counter: u64) -> String {
    let day = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(now)).to_string();
    let date: String = day.chars().take(10).filter(char::is_ascii_digit).collect();
    format!("backup-{date}-{counter:0DIGITS$}.db")
}

/// The folder of the backups.
struct Shelf<'a> {
    disk: &'a dyn Disk,
    folder: &'a Path,
}

impl Shelf<'_> {
    /// Makes the folder and clears it of what an interrupted backup has left. What it does not know it leaves alone.
    fn open<'a>(disk: &'a dyn Disk, folder: &'a Path) -> Result<Shelf<'a>, Error> {
        let told = |doing: &str, at: &Path| {
            let (doing, at) = (doing.to_string(), at.to_path_buf());
            move |error: std::io::Error| failure::backup_file(&doing, &at, error)
        };
        disk.create_folders(folder).map_err(told("creating the folder", folder))?;
        for name in disk.names(folder).map_err(told("reading the folder", folder))? {
            let whole = name.split_once(PARTIAL).map(|(whole, _)| whole);
            if whole.is_some_and(|whole| counter(whole).is_some() || whole == LATEST) {
                let at = folder.join(name);
                disk.remove(&at).map_err(told("removing", &at))?;
            }
        }
        Ok(Shelf { disk, folder })
    }
    /// Oldest first.
    fn backups(&self) -> Result<Vec<Numbered>, Error> {
        let names = self.disk.names(self.folder);
        let names = names.map_err(|error| failure::backup_file("reading the folder", self.folder, error))?;
        let mut found: Vec<Numbered> =
            names.into_iter().filter_map(|name| Some(Numbered { counter: counter(&name)?, name })).collect();
        found.sort();
        Ok(found)
    }
    /// Removes the oldest until `keep` are left. What only has the name of a backup, or is cut off, counts as none and stays.
    fn rotate(&self, keep: usize) -> Result<u64, Error> {
        let mut backups = self.backups()?;
        backups.retain(|backup| header::is_whole_backup(self.disk, &self.folder.join(&backup.name)));
        let old = backups.len().saturating_sub(keep);
        for backup in &backups[..old] {
            self.remove(&backup.name)?;
        }
        Ok(old as u64)
    }
    fn remove(&self, name: &str) -> Result<(), Error> {
        let at = self.folder.join(name);
        self.disk.remove(&at).map_err(|error| failure::backup_file("removing", &at, error))?;
        log::info!("event=BackupRemoved path={}", at.display());
        Ok(())
    }
    /// Whether there is room for a copy of `bytes` beside the backups that are there and what must stay free. None of them goes
    /// before the new one is in place: it may turn out to be no backup.
    fn has_room(&self, bytes: u64, min_free_bytes: u64) -> Result<(), Error> {
        let free = self.disk.free_bytes(self.folder);
        let free = free.map_err(|error| failure::backup_file("asking for free space in", self.folder, error))?;
        let needed = bytes.saturating_add(min_free_bytes);
        if free >= needed {
            return Ok(());
        }
        let kept = self.backups()?.len();
        let Error::Persistence { kind, message, source } = verify::no_room(needed, free, self.folder) else {
            return Ok(());
        };
        let next = match kept {
            0 => "",
            _ => {
                ", or remove old backups and lower Persistence.BackupKeep: none is removed before a new one is in place"
            }
        };
        Err(Error::Persistence { kind, message: format!("{message}{next}"), source })
    }
    /// Gives a whole backup its name, and the name of the newest one too.
    fn publish(&self, partial: &Path, name: &str) -> Result<PathBuf, Error> {
        let (at, latest) = (self.folder.join(name), self.folder.join(LATEST));
        let next = beside(&latest, PARTIAL);
        let disk = self.disk;
        disk.rename(partial, &at).map_err(|error| failure::backup_file("naming", &at, error))?;
        sync_folder(disk, self.folder)?;
        // File systems of cards that are read elsewhere know no second name.
        let linked = disk.link(&at, &next).or_else(|_| disk.copy(&at, &next));
        let renamed = linked.and_then(|()| disk.rename(&next, &latest));
        renamed.map_err(|error| failure::backup_file("naming", &latest, error))?;
        sync_folder(disk, self.folder)?;
        Ok(at)
    }
}

/// The newest backup in a folder all of which can be read and is whole.
pub(super) fn newest_good(disk: &dyn Disk, folder: &Path) -> Option<PathBuf> {
    let mut backups = Shelf { disk, folder }.backups().unwrap_or_default();
    backups.reverse();
    let names = backups.into_iter().map(|backup| backup.name).chain([LATEST.to_string()]);
    names.map(|name| folder.join(name)).find(|at| is_good(disk, at, || false))
}

fn is_good(disk: &dyn Disk, at: &Path, stopping: impl Fn() -> bool + Send + 'static) -> bool {
    verify::file(disk, at, stopping).is_ok_and(|found| found.damage.is_empty() && found.is_backup)
}

/// Goes unless it became a backup.
struct Partial<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        for at in ["", "-journal", "-wal", "-shm"].map(|suffix| beside(&self.path, suffix)) {
            // Not there any more, or swept by the next backup.
            let _ = self.disk.remove(&at);
        }
    }
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
    let shelf = Shelf::open(disk, &folder)?;
    let ledger = ledger::read(disk, database);
    if let Some(last) = ledger.last.as_ref().filter(|last| last.content == content(knowledge)) {
        let (path, bytes) = (folder.join(&last.name), last.bytes);
        let there = |at: &Path| bytes > 0 && file_bytes(disk, at) == bytes;
        let stopping = Arc::clone(keeper);
        if there(&path) && there(&folder.join(LATEST)) {
            // Read again each time: what rotted since is no backup.
            if is_good(disk, &path, move || stopping.is_stopping()) {
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
    let name = name(order.now, counter);
    let partial = Partial { disk, path: beside(&folder.join(&name), PARTIAL) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_says_which_is_newer_and_the_date_is_decoration() {
        assert_eq!(name(1_768_471_200_000, 7), "backup-20260115-000007.db");
        assert_eq!(name(0, 1_234_567), "backup-19700101-1234567.db");
        assert_eq!(counter("backup-20260115-000007.db"), Some(7));
        assert_eq!(counter("backup-19700101-1234567.db"), Some(1_234_567));
        for other in ["latest.db", "backup-2026-000001.db", "backup-20260115-7.db", "backup-20260115-00000x.db", "x.db"]
        {
            assert_eq!(counter(other), None, "{other}");
        }
    }
}
