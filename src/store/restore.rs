//! Puts a backup in the place of the database of a node that is stopped.
//!
//! The file is copied and verified first; then one rename puts the copy in force. What was there before is set aside, with its
//! logs. The new identity is taken at the next start, which knows a backup by its mark.

use super::disk::{Disk, Entry};
use super::header::{self, Kind};
use super::open::{self, beside, folder_of, is_folder, sync_folder};
use super::schema::{BACKUP_ID, RESTORED_ID};
use super::space::file_bytes;
use super::{aside, failure, verify};
use crate::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The database that is in place now.
    pub database: PathBuf,
    /// Where the one before is, with its logs; `None` where there was none.
    pub set_aside: Option<PathBuf>,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// It is no backup but a copy of a database in use, without its log: the last writes before it was copied may be missing.
    pub unclean: bool,
}

/// The copy, until it is verified.
const PARTIAL: &str = ".restoring.partial";
/// The verified copy, until it is in place.
const READY: &str = ".restoring";

/// Restores `file` as the database at `path`.
///
/// # Errors
/// A node holds the database; the file is not a whole database of this or an earlier release; no room. Nothing was touched.
pub(super) fn restore(disk: &dyn Disk, path: &Path, file: &Path) -> Result<Restored, Error> {
    verify::one_file(disk, file)?;
    if path == file {
        let message = std::format!("{} is the database itself; name a backup", file.display());
        return Err(Error::bad_request(message));
    }
    if is_folder(disk, path) {
        let error = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(failure::file("restoring", path, error));
    }
    // Where there is a folder there may be a node: it is asked before the long look.
    let mut lock = if is_folder(disk, folder_of(path)) { Some(open::lock(disk, path)?) } else { None };
    let found = verify::file(disk, file, || false)?;
    if !found.damage.is_empty() {
        return Err(found.damage.error(file, "take another backup"));
    }
    if lock.is_none() {
        open::make_folder(disk, path)?;
        lock = Some(open::lock(disk, path)?);
    }
    sweep(disk, path);
    let bytes = file_bytes(disk, file);
    let free = disk.free_bytes(folder_of(path)).map_err(|error| failure::file("asking for free space", path, error))?;
    if free < bytes {
        return Err(verify::no_room(bytes, free, folder_of(path)));
    }
    let partial = beside(path, PARTIAL);
    let copied = copy(disk, file, &partial).and_then(|()| {
        // What counts is what the disk gives back.
        let copied = verify::file(disk, &partial, || false)?;
        if copied.damage.is_empty() {
            Ok(())
        } else {
            Err(copied.damage.error(&partial, "the disk does not keep what is written"))
        }
    });
    if let Err(error) = copied {
        // Ours, and nothing yet.
        let _ = disk.remove(&partial);
        return Err(error);
    }
    let ready = beside(path, READY);
    rename(disk, &partial, &ready)?;
    let set_aside = put_in_place(disk, path, &ready)?;
    drop(lock);
    let unclean = !found.is_backup && !found.clean;
    if unclean {
        log::warn!(
            "event=RestoredUnclean from={} cause=\"a copy of a database in use, without its log\"",
            file.display()
        );
    }
    Ok(Restored { database: path.to_path_buf(), set_aside, rows: found.rows, bytes, unclean })
}

fn copy(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), Error> {
    let copied = disk.copy(from, to).and_then(|()| disk.forget(to));
    copied.map_err(|error| failure::file("copying the backup to", to, error))?;
    // A plain copy of a database that was stopped is as good, and needs a new identity as much.
    header::mark(disk, to, BACKUP_ID)
}

/// Removes what interrupted work has left beside the database: copies that were never in force. Nobody else is at work there.
pub(super) fn sweep(disk: &dyn Disk, path: &Path) {
    let mut left = std::vec![PARTIAL, ".recovering.partial", ".incident.partial", ".backups.partial"];
    // With no database it is the one that a restore was about to put in place.
    if matches!(disk.entry(path), Ok(Some(Entry::File(bytes))) if bytes > 0) {
        left.push(READY);
    }
    for suffix in left {
        let at = beside(path, suffix);
        if matches!(disk.entry(&at), Ok(Some(Entry::File(_)))) {
            match disk.remove(&at) {
                Ok(()) => log::info!("event=LeftoverRemoved path={}", at.display()),
                Err(error) => log::warn!("event=LeftoverKept path={} error=\"{error}\"", at.display()),
            }
        }
    }
}

/// Copies a verified backup to where there is no database. The next look takes it for a backup.
pub(super) fn copy_in_place(disk: &dyn Disk, file: &Path, path: &Path) -> Result<(), Error> {
    let partial = beside(path, PARTIAL);
    copy(disk, file, &partial)?;
    rename(disk, &partial, path)
}

/// The old database gets its new name first and keeps the old one until the rename: at no instant is there none.
fn put_in_place(disk: &dyn Disk, path: &Path, ready: &Path) -> Result<Option<PathBuf>, Error> {
    let old = aside::free_name(disk, path)?;
    let there = !matches!(disk.entry(path), Ok(None));
    if there && disk.link(path, &old).is_err() {
        // A file system without second names: the start completes what is cut off here.
        rename(disk, path, &old)?;
    }
    sync_folder(disk, folder_of(path))?;
    rename(disk, ready, path)?;
    // A cut before this: the start sets the logs aside, since a backup has none.
    let logs = aside::logs(disk, path, &old)?;
    Ok((there || logs).then_some(old))
}

/// At the start of a node, before SQLite sees anything: completes a restore that was cut off, and notices a backup that was
/// copied over the database by hand. Says whether the database is one.
pub(super) fn notice(disk: &dyn Disk, path: &Path) -> Result<bool, Error> {
    let ready = beside(path, READY);
    if header::kind(disk, path)?.is_none() && matches!(disk.entry(&ready), Ok(Some(Entry::File(_)))) {
        log::warn!("event=RestoreCompleted path={}", path.display());
        rename(disk, &ready, path)?;
    }
    if header::kind(disk, path)? != Some(Kind::Backup) {
        return Ok(false);
    }
    let old = aside::free_name(disk, path)?;
    if aside::logs(disk, path, &old)? {
        log::warn!("event=StaleLogSetAside path={} as={}-wal", path.display(), old.display());
    }
    // From here on what stands beside it belongs to it.
    header::mark(disk, path, RESTORED_ID)?;
    Ok(true)
}

fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), Error> {
    disk.rename(from, to).map_err(|error| failure::file("renaming to", to, error))?;
    sync_folder(disk, folder_of(to))
}
