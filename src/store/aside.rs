//! Sets files of the database aside under a name of their own. Nothing is ever deleted here.

use super::disk::{Disk, Entry};
use super::failure;
use super::open::{beside, folder_of, sync_folder};
use super::space::file_bytes;
use crate::error::Error;
use std::format;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

/// What stands beside a database and belongs to its content.
const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// A log that has its header and no page.
const EMPTY_LOG_BYTES: u64 = 32;

/// The first name `DATABASE.old-N` that nothing uses, with no log beside it either. A disk that does not say what is there ends
/// the search: it would go on for ever.
pub(super) fn free_name(disk: &dyn Disk, database: &Path) -> Result<PathBuf, Error> {
    let mut number = 1u32;
    loop {
        let at = beside(database, &format!(".old-{number}"));
        let mut is_free = true;
        for name in std::iter::once(at.clone()).chain(LOGS.map(|log| beside(&at, log))) {
            let there = disk.entry(&name).map_err(|error| failure::file("looking for a free name at", &name, error))?;
            is_free &= there.is_none();
        }
        if is_free {
            return Ok(at);
        }
        number += 1;
    }
}

/// The databases that were set aside beside this one, the newest last, and the bytes that they take with their logs.
pub(super) fn kept(disk: &dyn Disk, database: &Path) -> (Vec<PathBuf>, u64) {
    let Some(prefix) = database.file_name().and_then(|name| name.to_str()).map(|name| format!("{name}.old-")) else {
        return (Vec::new(), 0);
    };
    let names = disk.names(folder_of(database)).unwrap_or_default();
    let number = |name: &String| name.strip_prefix(&prefix)?.parse::<u32>().ok();
    let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    let kept: Vec<PathBuf> = numbers.iter().map(|number| beside(database, &format!(".old-{number}"))).collect();
    let bytes =
        |at: &PathBuf| file_bytes(disk, at) + LOGS.iter().map(|log| file_bytes(disk, &beside(at, log))).sum::<u64>();
    let all = kept.iter().map(bytes).sum();
    (kept, all)
}

/// SQLite opens what stands there, and would wait for somebody to write into a FIFO.
pub(super) fn logs_are_files(disk: &dyn Disk, database: &Path) -> Result<(), Error> {
    for at in LOGS.map(|log| beside(database, log)) {
        if matches!(disk.entry(&at), Ok(Some(Entry::Folder | Entry::Other))) {
            let message = format!("{} is no file, and a log of the database stands there: move it away", at.display());
            return Err(Error::persistence(message, None));
        }
    }
    Ok(())
}

/// A log beside no database, or an empty one, is that of a database which is gone, and may hold what nothing else does. SQLite would
/// delete it; here it gets a name of its own, with an empty database beside it, so that what it holds can be taken out.
pub(super) fn orphans(disk: &dyn Disk, database: &Path) -> Result<(), Error> {
    if file_bytes(disk, &beside(database, "-wal")) <= EMPTY_LOG_BYTES {
        return Ok(());
    }
    let old = free_name(disk, database)?;
    disk.create(&old).map_err(|error| failure::file("setting aside", &old, error))?;
    logs(disk, database, &old)?;
    log::warn!("event=StaleLogSetAside path={} as={}-wal", database.display(), old.display());
    Ok(())
}

/// Moves the logs of `database` to those of `to`, durably. Says whether there was one.
pub(super) fn logs(disk: &dyn Disk, database: &Path, to: &Path) -> Result<bool, Error> {
    let mut moved = false;
    for log in LOGS {
        let from = beside(database, log);
        match disk
            .entry(&from)
            .and_then(|there| there.map_or(Ok(false), |_| disk.rename(&from, &beside(to, log)).map(|()| true)))
        {
            Ok(did) => moved |= did,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failure::file("setting aside", &from, error)),
        }
    }
    if moved {
        sync_folder(disk, folder_of(database))?;
    }
    Ok(moved)
}
