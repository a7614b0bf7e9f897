//! The folder of the backups: their names and numbers, room for another one, and how old ones go.
//!
//! What it does not know it leaves alone. Nothing goes in one piece: some file systems hold up every sync of every file while
//! they free a large one, or tell the card of it.

use super::disk::Disk;
use super::failure;
use super::header;
use super::open::{beside, sync_folder};
use super::space::file_bytes;
use super::verify;
use crate::error::Error;
use crate::time::Millis;
use std::format;
use std::io;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::time::{Duration, UNIX_EPOCH};
use std::vec::Vec;

/// The name that is always the newest whole backup.
const LATEST: &str = "latest.db";
const PARTIAL: &str = ".partial";
/// What is freed of a file at a time.
const SLICE_BYTES: u64 = 1024 * 1024;
/// The disk is left to others for so long after each slice.
const PAUSE: Duration = Duration::from_millis(5);
/// Digits of the number in a name, at least.
const DIGITS: usize = 6;

/// A backup by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Numbered {
    pub(super) counter: u64,
    name: String,
}

/// The number in `backup-YYYYMMDD-NNNNNN.db`. Only the number says which is newer: dates lie.
fn counter(name: &str) -> Option<u64> {
    let (date, number) = name.strip_prefix("backup-")?.strip_suffix(".db")?.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (date.len() == 8 && digits(date) && number.len() >= DIGITS && digits(number)).then(|| number.parse().ok()).flatten()
}

pub(super) fn name(now: Millis, counter: u64) -> String {
    let day = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(now)).to_string();
    let date: String = day.chars().take(10).filter(char::is_ascii_digit).collect();
    format!("backup-{date}-{counter:0DIGITS$}.db")
}

/// The folder of the backups.
#[derive(Clone, Copy)]
pub(super) struct Shelf<'a> {
    disk: &'a dyn Disk,
    folder: &'a Path,
    /// Whether the node stops: then nothing takes its time.
    stopping: &'a dyn Fn() -> bool,
}

impl<'a> Shelf<'a> {
    /// Makes the folder and clears it of what an interrupted backup has left. What it does not know it leaves alone.
    pub(super) fn open(
        disk: &'a dyn Disk,
        folder: &'a Path,
        stopping: &'a dyn Fn() -> bool,
    ) -> Result<Shelf<'a>, Error> {
        let shelf = Shelf { disk, folder, stopping };
        let told = |doing: &str, at: &Path| {
            let (doing, at) = (doing.to_string(), at.to_path_buf());
            move |error: io::Error| failure::backup_file(&doing, &at, error)
        };
        disk.create_folders(folder).map_err(told("creating the folder", folder))?;
        for name in disk.names(folder).map_err(told("reading the folder", folder))? {
            let whole = name.split_once(PARTIAL).map(|(whole, _)| whole);
            if whole.is_some_and(|whole| counter(whole).is_some() || whole == LATEST) {
                let at = folder.join(name);
                shelf.free(&at).map_err(told("removing", &at))?;
            }
        }
        Ok(shelf)
    }
    /// Where a backup of that name is made.
    pub(super) fn partial(&self, name: &str) -> Partial<'a> {
        Partial { shelf: *self, path: beside(&self.folder.join(name), PARTIAL) }
    }
    /// Whether there are so many bytes under a name and under that of the newest.
    pub(super) fn has_both(&self, name: &str, bytes: u64) -> bool {
        bytes > 0 && [name, LATEST].iter().all(|name| file_bytes(self.disk, &self.folder.join(name)) == bytes)
    }
    /// Oldest first.
    pub(super) fn backups(&self) -> Result<Vec<Numbered>, Error> {
        let names = self.disk.names(self.folder);
        let names = names.map_err(|error| failure::backup_file("reading the folder", self.folder, error))?;
        let mut found: Vec<Numbered> =
            names.into_iter().filter_map(|name| Some(Numbered { counter: counter(&name)?, name })).collect();
        found.sort();
        Ok(found)
    }
    /// Removes the oldest until `keep` are left. What only has the name of a backup, or is cut off, counts as none and stays.
    pub(super) fn rotate(&self, keep: usize) -> Result<u64, Error> {
        let mut backups = self.backups()?;
        backups.retain(|backup| header::is_whole_backup(self.disk, &self.folder.join(&backup.name)));
        let old = backups.len().saturating_sub(keep);
        for backup in &backups[..old] {
            self.remove(&backup.name)?;
        }
        Ok(old as u64)
    }
    /// Under a name that says that it is no backup any more, before the first of its bytes goes.
    fn remove(&self, name: &str) -> Result<(), Error> {
        let at = self.folder.join(name);
        let partial = beside(&at, PARTIAL);
        let told = |error| failure::backup_file("removing", &at, error);
        self.disk.rename(&at, &partial).map_err(told)?;
        sync_folder(self.disk, self.folder)?;
        self.free(&partial).map_err(told)?;
        log::info!("event=BackupRemoved path={}", at.display());
        Ok(())
    }
    /// Removes a file, a slice at a time. One that has a second name goes at once: nothing is freed by that, and under the
    /// other name it stays whole.
    fn free(&self, at: &Path) -> io::Result<()> {
        let mut left = file_bytes(self.disk, at);
        while left > 0 && !(self.stopping)() {
            left = left.saturating_sub(SLICE_BYTES);
            // What cannot be cut off is removed whole.
            if !self.disk.cut_off(at, left).unwrap_or(false) {
                break;
            }
            if left > 0 {
                std::thread::sleep(PAUSE);
            }
        }
        self.disk.remove(at)
    }
    /// Whether there is room for a copy of `bytes` beside the backups that are there and what must stay free. None of them goes
    /// before the new one is in place: it may turn out to be no backup.
    pub(super) fn has_room(&self, bytes: u64, min_free_bytes: u64) -> Result<(), Error> {
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
    pub(super) fn publish(&self, partial: &Path, name: &str) -> Result<PathBuf, Error> {
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

/// Goes unless it became a backup.
pub(super) struct Partial<'a> {
    shelf: Shelf<'a>,
    pub(super) path: PathBuf,
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        for at in ["", "-journal", "-wal", "-shm"].map(|suffix| beside(&self.path, suffix)) {
            // Not there any more, or swept by the next backup.
            let _ = self.shelf.free(&at);
        }
    }
}

/// The newest backup in a folder all of which can be read and is whole.
pub(super) fn newest_good(disk: &dyn Disk, folder: &Path) -> Option<PathBuf> {
    let mut backups = Shelf { disk, folder, stopping: &|| false }.backups().unwrap_or_default();
    backups.reverse();
    let names = backups.into_iter().map(|backup| backup.name).chain([LATEST.to_string()]);
    names.map(|name| folder.join(name)).find(|at| is_good(disk, at, || false))
}

pub(super) fn is_good(disk: &dyn Disk, at: &Path, stopping: impl Fn() -> bool + Send + 'static) -> bool {
    verify::file(disk, at, stopping).is_ok_and(|found| found.damage.is_empty() && found.is_backup)
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
