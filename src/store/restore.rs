//! Puts a backup in the place of the database of a node that is stopped.
//!
//! The file is copied and verified first; then one rename puts the copy in force. What was there before is set aside, with its
//! logs. The new identity is taken at the next start, which knows a backup by its mark.

use super::aside;
use super::failure;
use super::header::{self, Kind};
use super::open::{self, beside, folder_of, sync_folder};
use super::schema::{BACKUP_ID, RESTORED_ID};
use super::{space, verify};
use crate::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
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
}

/// The copy, until it is verified.
const PARTIAL: &str = ".restoring.partial";
/// The verified copy, until it is in place.
const READY: &str = ".restoring";

/// Restores `file` as the database at `path`.
///
/// # Errors
/// A node holds the database; the file is not a whole database of this or an earlier release; no room. Nothing was touched.
pub(super) fn restore(path: &Path, file: &Path) -> Result<Restored, Error> {
    verify::one_file(file)?;
    if same_file(path, file) {
        let message = std::format!("{} is the database itself; name a backup", file.display());
        return Err(Error::bad_request(message));
    }
    if path.is_dir() {
        let error = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(failure::file("restoring", path, error));
    }
    // Where there is a folder there may be a node: it is asked before the long look.
    let mut lock = if folder_of(path).is_dir() { Some(open::lock(path)?) } else { None };
    let found = verify::file(file, || false)?;
    if !found.damage.is_empty() {
        return Err(found.damage.error(file, "take another backup"));
    }
    if lock.is_none() {
        open::make_folder(path)?;
        lock = Some(open::lock(path)?);
    }
    let bytes = fs::metadata(file).map_or(0, |file| file.len());
    let free =
        space::free_bytes(folder_of(path)).map_err(|error| failure::file("asking for free space", path, error))?;
    if free < bytes {
        return Err(verify::no_room(bytes, free, folder_of(path)));
    }
    let partial = beside(path, PARTIAL);
    let copied = copy(file, &partial).and_then(|()| {
        // What counts is what the disk gives back.
        let copied = verify::file(&partial, || false)?;
        if copied.damage.is_empty() {
            Ok(())
        } else {
            Err(copied.damage.error(&partial, "the disk does not keep what is written"))
        }
    });
    if let Err(error) = copied {
        // Ours, and nothing yet.
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    let ready = beside(path, READY);
    rename(&partial, &ready)?;
    let set_aside = put_in_place(path, &ready)?;
    drop(lock);
    Ok(Restored { database: path.to_path_buf(), set_aside, rows: found.rows, bytes })
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let copied = || -> io::Result<()> {
        let mut source = File::open(from)?;
        let mut copy = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(to)?;
        io::copy(&mut source, &mut copy)?;
        copy.sync_all()?;
        Ok(rustix::fs::fadvise(&copy, 0, None, rustix::fs::Advice::DontNeed)?)
    };
    copied().map_err(|error| failure::file("copying the backup to", to, error))?;
    // A plain copy of a database that was stopped is as good, and needs a new identity as much.
    header::mark(to, BACKUP_ID)
}

/// The old database gets its new name first and keeps the old one until the rename: at no instant is there none.
fn put_in_place(path: &Path, ready: &Path) -> Result<Option<PathBuf>, Error> {
    let old = aside::free_name(path);
    let there = fs::symlink_metadata(path).is_ok();
    if there && fs::hard_link(path, &old).is_err() {
        // A file system without second names: the start completes what is cut off here.
        rename(path, &old)?;
    }
    sync_folder(folder_of(path))?;
    rename(ready, path)?;
    // A cut before this: the start sets the logs aside, since a backup has none.
    let logs = aside::logs(path, &old)?;
    Ok((there || logs).then_some(old))
}

/// At the start of a node, before SQLite sees anything: completes a restore that was cut off, and notices a backup that was
/// copied over the database by hand. Says whether the database is one.
pub(super) fn notice(path: &Path) -> Result<bool, Error> {
    let ready = beside(path, READY);
    if header::kind(path)?.is_none() && ready.is_file() {
        log::warn!("event=RestoreCompleted path={}", path.display());
        rename(&ready, path)?;
    }
    if header::kind(path)? != Some(Kind::Backup) {
        return Ok(false);
    }
    let old = aside::free_name(path);
    if aside::logs(path, &old)? {
        log::warn!("event=StaleLogSetAside path={} as={}-wal", path.display(), old.display());
    }
    // From here on what stands beside it belongs to it.
    header::mark(path, RESTORED_ID)?;
    Ok(true)
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|error| failure::file("renaming to", to, error))?;
    sync_folder(folder_of(to))
}

fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    id(a).is_some() && id(a) == id(b)
}
