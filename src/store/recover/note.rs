//! The notes beside a database: that a recovery is under way, and what one has come to until a person has acknowledged it.
//!
//! Each is written to a file of its own and renamed, so it is whole or not there; one that rotted all the same stops nothing.

use super::super::disk::{Disk, Entry};
use super::super::open::{beside, folder_of, sync_folder};
use super::super::space::file_bytes;
use super::super::{Options, aside, failure, salvage};
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::format;
use std::io;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// The note of a recovery that is under way, beside the database.
pub(super) const UNDER_WAY: &str = ".recovering";
/// The note of one that is over, until a person has acknowledged it.
pub(super) const INCIDENT: &str = ".incident";
/// Incidents that nobody acknowledged are remembered as far as this.
const EARLIER_MAX: usize = 8;

/// What happened to the database, for a person who has not acknowledged it yet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Incident {
    /// What was found.
    pub found: String,
    /// Where the damaged database is.
    pub set_aside: PathBuf,
    /// The backup that was brought back; none where the database began empty.
    pub backup: Option<PathBuf>,
    /// Rows that were carried over from the damaged database.
    pub carried: u64,
    /// Rows in it that could not be read.
    pub damaged: u64,
    /// Pages in it that could not be read.
    pub unreadable_pages: u64,
    /// Rows that are missing of it, whole or in part: at least so many.
    #[serde(default)]
    pub missing_at_least: u64,
    /// And at most so many; none where that cannot be told.
    #[serde(default)]
    pub missing_at_most: Option<u64>,
    /// Where databases are that were set aside before it, in incidents that nobody had acknowledged.
    #[serde(default)]
    pub earlier: Vec<PathBuf>,
}

impl Incident {
    /// What may be missing, in a sentence.
    pub fn said(&self) -> String {
        let from = match &self.backup {
            Some(backup) => format!("the backup {} was brought back", backup.display()),
            None => "no good backup was found, so it began empty".to_string(),
        };
        let earlier: Vec<String> = self.earlier.iter().map(|at| at.display().to_string()).collect();
        let earlier = match earlier.is_empty() {
            true => String::new(),
            false => format!("; so were {} before it", earlier.join(", ")),
        };
        format!(
            "the database was damaged and is set aside as {}: {from}, and {} whole rows were carried over; {}. What only they held, and \
             no peer and no backup has, is missing{earlier}",
            self.set_aside.display(),
            self.carried,
            salvage::said(self.damaged, self.unreadable_pages, self.missing_at_least, self.missing_at_most)
        )
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct UnderWay {
    pub(super) found: String,
    pub(super) set_aside: PathBuf,
    #[serde(default)]
    pub(super) backup: Option<PathBuf>,
}

/// What the note says. The damaged database stands beside the one that takes its place, wherever that folder is now.
pub(super) fn under_way(disk: &dyn Disk, path: &Path) -> Result<UnderWay, Error> {
    let noted: UnderWay = read(disk, path, UNDER_WAY)?;
    let set_aside =
        noted.set_aside.file_name().map_or_else(|| noted.set_aside.clone(), |name| folder_of(path).join(name));
    Ok(UnderWay { set_aside, ..noted })
}

/// Takes up a recovery that a power cut has interrupted. Before SQLite sees the database.
pub(in crate::store) fn is_under_way(disk: &dyn Disk, path: &Path) -> bool {
    matches!(disk.entry(&beside(path, UNDER_WAY)), Ok(Some(Entry::File(_))))
}

/// A note that cannot be read says that a recovery was cut off and not how far it was. With no database in place it goes on from the
/// one that was set aside last; else what is in place is what counts, and a person is told where the rest may be.
pub(in crate::store) fn put_note_right(options: &Options) -> Result<(), Error> {
    let (disk, path) = (&*options.disk, &options.path);
    let at = beside(path, UNDER_WAY);
    if !is_under_way(disk, path) {
        return Ok(());
    }
    let bytes = disk.read_start(&at, NOTE_BYTES_MAX).map_err(|error| failure::file("reading", &at, error))?;
    if serde_json::from_slice::<UnderWay>(&bytes).is_ok() {
        return Ok(());
    }
    let found = "the note of a recovery that was cut off cannot be read".to_string();
    let newest = aside::kept(disk, path).0.pop();
    log::error!("event=RecoveryNoteDamaged path={} bytes={}", at.display(), bytes.len());
    match newest {
        Some(set_aside) if file_bytes(disk, path) == 0 => {
            return note(disk, path, UNDER_WAY, &UnderWay { found, set_aside, backup: None });
        }
        Some(set_aside) => note(
            disk,
            path,
            INCIDENT,
            &with_those_before(disk, path, Incident { found, set_aside, ..Incident::default() }),
        )?,
        None => {}
    }
    disk.remove(&at).map_err(|error| failure::file("removing", &at, error))?;
    sync_folder(disk, folder_of(path))
}

/// Names the incidents that nobody has acknowledged, too.
pub(super) fn with_those_before(disk: &dyn Disk, path: &Path, incident: Incident) -> Incident {
    let before = self::incident(disk, path).filter(|before| before.set_aside != incident.set_aside);
    let mut earlier: Vec<PathBuf> =
        before.into_iter().flat_map(|before| before.earlier.into_iter().chain([before.set_aside])).collect();
    earlier.drain(..earlier.len().saturating_sub(EARLIER_MAX));
    Incident { earlier, ..incident }
}

/// The incident that nobody has acknowledged yet.
pub(in crate::store) fn incident(disk: &dyn Disk, path: &Path) -> Option<Incident> {
    read(disk, path, INCIDENT).ok()
}

/// A person knows of it.
pub(in crate::store) fn acknowledge(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    let at = beside(path, INCIDENT);
    match disk.remove(&at) {
        Ok(()) => sync_folder(disk, folder_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failure::file("removing", &at, error)),
    }
}

pub(super) fn note<T: Serialize>(disk: &dyn Disk, path: &Path, suffix: &str, what: &T) -> Result<(), Error> {
    let (at, partial) = (beside(path, suffix), beside(path, &format!("{suffix}.partial")));
    let bytes = serde_json::to_vec(what)
        .map_err(|error| Error::persistence("a note could not be written; report this", Some(error.into())))?;
    let written = disk.write(&partial, &bytes).and_then(|()| disk.rename(&partial, &at));
    written.map_err(|error| failure::file("writing", &at, error))?;
    sync_folder(disk, folder_of(path))
}

/// Longest note that is read.
const NOTE_BYTES_MAX: usize = 64 * 1024;

fn read<T: for<'de> Deserialize<'de>>(disk: &dyn Disk, path: &Path, suffix: &str) -> Result<T, Error> {
    let at = beside(path, suffix);
    let bytes = disk.read_start(&at, NOTE_BYTES_MAX).map_err(|error| failure::file("reading", &at, error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::persistence(format!("{} is not a note of this node; move it away", at.display()), Some(error.into()))
    })
}
