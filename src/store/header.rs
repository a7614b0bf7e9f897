//! The first hundred bytes of a file: whose it is, before SQLite sees it.
//!
//! Reads and, for one mark, writes four bytes; knows nothing of what follows them.

use super::disk::{Disk, Entry};
use super::failure;
use super::open::{beside, is_folder};
use super::schema::{APPLICATION_ID, BACKUP_ID, RESTORED_ID};
use crate::error::Error;
use std::io;
use std::path::Path;

const HEADER_BYTES: usize = 100;
/// Where the application id stands (SQLite's file format, section 1.3).
const ID_AT: usize = 68;
/// Where the versions of the format stand, for writing and for reading.
const VERSIONS_AT: usize = 18;

/// A rollback journal begins with this; the number of pages before the transaction stands in bytes 16 to 19 (section 3).
const JOURNAL: &[u8] = &[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
const JOURNAL_HEADER_BYTES: usize = 28;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not a byte in it.
    Empty,
    /// A database of this node, or one whose creation was interrupted.
    Database,
    /// A backup: whoever opens it takes a new identity.
    Backup,
    /// A database of another program.
    Foreign,
    /// No database.
    Other,
}

/// What the file is; `None` where there is none.
pub(super) fn kind(disk: &dyn Disk, path: &Path) -> Result<Option<Kind>, Error> {
    if is_folder(disk, path) {
        let error = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(failure::file("opening the database", path, error));
    }
    // It would be waited for until somebody writes into it.
    if matches!(disk.entry(path), Ok(Some(Entry::Other))) {
        return Err(failure::no_file(path));
    }
    match disk.read_start(path, HEADER_BYTES) {
        Ok(header) => Ok(Some(of(&header))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failure::file("opening the database", path, error)),
    }
}

fn of(header: &[u8]) -> Kind {
    if header.is_empty() {
        return Kind::Empty;
    }
    if header.len() < HEADER_BYTES {
        return Kind::Other;
    }
    let id: [u8; 4] = core::array::from_fn(|at| header[ID_AT + at]);
    let magic = b"SQLite format 3\0";
    let wrong = |is: &[u8], should: &[u8]| is.iter().zip(should).filter(|(is, should)| is != should).count();
    let kind = match i32::from_be_bytes(id) {
        BACKUP_ID => Kind::Backup,
        APPLICATION_ID | RESTORED_ID => Kind::Database,
        // An interrupted creation leaves a header without an id; whether it has tables is seen later.
        0 => Kind::Database,
        // Ours, with a byte that rotted.
        _ if wrong(&id, &APPLICATION_ID.to_be_bytes()) == 1 => Kind::Database,
        _ => Kind::Foreign,
    };
    match wrong(&header[..16], magic) {
        0 => kind,
        // Here, too: SQLite will say so, and what is whole in it is not lost.
        1 if [APPLICATION_ID, BACKUP_ID, RESTORED_ID].contains(&i32::from_be_bytes(id)) => kind,
        _ => Kind::Other,
    }
}

/// Whether a file looks like a whole backup by its first bytes and its length: what is cut off or only called one does not.
pub(super) fn is_whole_backup(disk: &dyn Disk, path: &Path) -> bool {
    let Ok(Some(Entry::File(bytes))) = disk.entry(path) else { return false };
    let Ok(header) = disk.read_start(path, HEADER_BYTES) else { return false };
    let number = |at: usize| header.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes);
    let page = header.get(16..18).map_or(0, |two| u64::from(u16::from_be_bytes([two[0], two[1]])));
    of(&header) == Kind::Backup && number(28).is_some_and(|pages| pages > 0 && u64::from(pages) * page == bytes)
}

/// Whether a journal beside it says that there was nothing before what stands in the file now: its creation was cut off,
/// perhaps in the middle of its first page, and SQLite will undo it.
pub(super) fn is_being_created(disk: &dyn Disk, path: &Path) -> Result<bool, Error> {
    let journal = beside(path, "-journal");
    match disk.read_start(&journal, JOURNAL_HEADER_BYTES) {
        Ok(header) => {
            Ok(header.len() == JOURNAL_HEADER_BYTES && header.starts_with(JOURNAL) && header[16..20] == [0; 4])
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failure::file("reading", &journal, error)),
    }
}

/// Puts the two bytes right that say how the file is read and written (section 1.3: 1 or 2): with another one in the second place
/// SQLite does not open it, with one in the first it would never write. Says whether one was wrong.
pub(super) fn mend_versions(disk: &dyn Disk, path: &Path) -> Result<bool, Error> {
    let versions = wrong_versions(disk, path)?;
    let right = versions.and_then(|both| both.into_iter().find(|version| matches!(version, 1 | 2)));
    // Where both are wrong more than a byte is.
    let Some(right) = right else { return Ok(false) };
    let written = disk.write_at(path, VERSIONS_AT as u64, &[right, right]);
    written.map(|()| true).map_err(|error| failure::file("mending", path, error))
}

/// These two bytes, where one of them is none that there can be, in a file that is ours otherwise.
pub(super) fn wrong_versions(disk: &dyn Disk, path: &Path) -> Result<Option<[u8; 2]>, Error> {
    let header = match disk.read_start(path, HEADER_BYTES) {
        Ok(header) => header,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failure::file("reading", path, error)),
    };
    if !matches!(of(&header), Kind::Database | Kind::Backup) {
        return Ok(None);
    }
    let versions = [header[VERSIONS_AT], header[VERSIONS_AT + 1]];
    Ok(Some(versions).filter(|both| both.iter().any(|version| !matches!(version, 1 | 2))))
}

/// Writes an application id over the one that is there: four bytes of one sector.
pub(super) fn mark(disk: &dyn Disk, path: &Path, id: i32) -> Result<(), Error> {
    let marked = disk.write_at(path, ID_AT as u64, &id.to_be_bytes());
    marked.map_err(|error| failure::file("marking", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_first_bytes() {
        let with = |id: i32| {
            let mut header = [0; HEADER_BYTES];
            header[..16].copy_from_slice(b"SQLite format 3\0");
            header[ID_AT..ID_AT + 4].copy_from_slice(&id.to_be_bytes());
            of(&header)
        };
        assert_eq!(with(APPLICATION_ID), Kind::Database);
        assert_eq!(with(RESTORED_ID), Kind::Database);
        assert_eq!(with(BACKUP_ID), Kind::Backup);
        assert_eq!(with(77), Kind::Foreign);
        assert_eq!(with(0x7265_6462), Kind::Foreign);
        assert_eq!(of(b""), Kind::Empty);
        assert_eq!(of(b"SQLite format 3\0"), Kind::Other, "cut off");
        assert_eq!(of(&[7; HEADER_BYTES]), Kind::Other);
    }

    #[test]
    fn a_byte_that_rotted_makes_no_stranger_of_a_database() {
        let mut header = [0; HEADER_BYTES];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[ID_AT..ID_AT + 4].copy_from_slice(&APPLICATION_ID.to_be_bytes());
        for (at, bit) in (0..HEADER_BYTES).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            header[at] ^= 1 << bit;
            assert!(matches!(of(&header), Kind::Database | Kind::Backup), "byte {at}, bit {bit}: {:?}", of(&header));
            header[at] ^= 1 << bit;
        }
    }
}
