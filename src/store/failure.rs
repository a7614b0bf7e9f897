//! What SQLite, the file system and the rows themselves report, as the crate's errors with their next step.

use crate::error::{Cause, Error, PersistenceKind};
use crate::mutants::{Mutant, planted};
use crate::row::RowKey;
use rusqlite::ErrorCode;
use std::boxed::Box;
use std::format;
use std::path::Path;
use std::string::String;

/// A failure inside a transaction, before anybody is told of it.
#[derive(Debug)]
pub(super) enum Failure {
    /// SQLite's.
    Sqlite(rusqlite::Error),
    /// Ours: a damaged row or record.
    Error(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sqlite(error)
    }
}
impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

impl Failure {
    /// Whether what is on the disk is not a database of ours any more, as far as this failure tells: SQLite says so, a
    /// record's checksum does, or the schema is not the one that every one of them has.
    pub(super) fn is_corruption(&self) -> bool {
        match self {
            Failure::Error(error) => matches!(error, Error::DatabaseCorruption { .. }),
            Failure::Sqlite(error) if super::codec::is_unreadable(error) => true,
            // Statements are ours and fixed: where one cannot be compiled, the schema is not the one that it was written for.
            Failure::Sqlite(error @ rusqlite::Error::SqlInputError { .. }) => speaks_of_schema(error),
            Failure::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => true,
                Some(ErrorCode::Unknown) => speaks_of_schema(error),
                _ => matches!(error, rusqlite::Error::QueryReturnedNoRows),
            },
        }
    }
    /// Whether a table refuses what was to be written: a constraint, or a column of another type.
    pub(super) fn is_refusal(&self) -> bool {
        let Failure::Sqlite(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch))
    }
    /// Whether the connection may not be used any more: what is on the disk is not what SQLite thinks.
    pub(super) fn breaks_connection(&self) -> bool {
        let Failure::Sqlite(error) = self else { return false };
        if planted(Mutant::BrokenConnectionKept) {
            return false;
        }
        matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        )
    }
    /// The error for the caller who wanted `doing`; nothing was changed.
    pub(super) fn into_error(self, doing: &str, path: &Path) -> Error {
        let corruption = self.is_corruption();
        match self {
            Failure::Error(error) => error,
            Failure::Sqlite(error) if corruption => damaged_database(error, doing, path),
            Failure::Sqlite(error) => sqlite(error, doing, path),
        }
    }
}

fn speaks_of_schema(error: &rusqlite::Error) -> bool {
    let said = format!("{error}");
    ["no such ", "malformed", "no query solution", "unsupported file format", "encoding"]
        .iter()
        .any(|words| said.contains(words))
}

/// The error for a caller whose commit may or may not have happened.
pub(super) fn outcome_unknown(failure: Failure, path: &Path) -> Error {
    let at = path.display();
    let source: Cause = match failure {
        Failure::Sqlite(error) => Box::new(error),
        Failure::Error(error) => Box::new(error),
    };
    Error::persistence(
        format!(
            "the disk failed while {at} was committing; the outcome is unknown, repeating the request is safe; \
             look at the kernel log (dmesg) and the card"
        ),
        source,
    )
}

/// A row whose stored checksum is not that of its content.
pub(super) fn damaged_row(key: &RowKey) -> Error {
    let RowKey { collection, key, .. } = key;
    Error::DatabaseCorruption {
        message: format!(
            "{key} in {collection} is damaged on disk: its checksum does not match; write it again, or restore a backup"
        ),
        source: None,
    }
}

/// A record of the store that cannot be what was written.
pub(super) fn damaged(what: &str) -> Error {
    Error::DatabaseCorruption {
        message: format!("{what} is damaged on disk: restore a backup, or set the database aside and rejoin its peers"),
        source: None,
    }
}

/// A database whose trees are broken.
pub(super) fn broken(path: &Path, faults: &str) -> Error {
    Error::DatabaseCorruption { message: format!("{} is damaged: {faults}", path.display()), source: None }
}

/// A backup, or its folder, that cannot be read or written.
pub(super) fn backup_file(doing: &str, path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{
        IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem, StorageFull,
    };
    let next = match error.kind() {
        PermissionDenied => "give the user the right to it, or set Persistence.BackupPath elsewhere",
        ReadOnlyFilesystem => "remount it writable, or set Persistence.BackupPath elsewhere",
        IsADirectory => "a backup is a file, name that",
        NotADirectory => "Persistence.BackupPath is a folder, the backups are files in it",
        NotFound => "check the path",
        StorageFull => "free some space",
        _ => "check the path and the disk",
    };
    of_file(doing, path, error, next)
}

/// A FIFO, a device or a socket where a file is due.
pub(super) fn no_file(path: &Path) -> Error {
    let at = path.display();
    Error::persistence(format!("{at} is a FIFO, a device or a socket and no file: name a file"), None)
}

/// A file or a folder that cannot be used.
pub(super) fn file(doing: &str, path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{
        AlreadyExists, IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem, StorageFull,
    };
    let next = match error.kind() {
        PermissionDenied => "give the node's user the right to write there, or set Persistence.DatabasePath elsewhere",
        ReadOnlyFilesystem => "remount it writable, or set Persistence.DatabasePath elsewhere",
        IsADirectory | NotADirectory | AlreadyExists => "set Persistence.DatabasePath to a file inside a folder",
        StorageFull => "free some space",
        _ => "check Persistence.DatabasePath and the disk",
    };
    of_file(doing, path, error, next)
}

fn of_file(doing: &str, path: &Path, error: std::io::Error, next: &str) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull => PersistenceKind::DiskFull,
        _ => PersistenceKind::Other,
    };
    let message = format!("{doing} {}: {error}; {next}", path.display());
    Error::Persistence { kind, message, source: Some(Box::new(error)) }
}

/// What a failure says is wrong, without the place and the advice that its message may have.
pub(super) fn fault(failure: &Failure, path: &Path) -> String {
    let said = match failure {
        Failure::Sqlite(error) => format!("{error}"),
        Failure::Error(error) => format!("{error}"),
    };
    let place = format!("{} is damaged: ", path.display());
    let said = said.strip_prefix(&place).unwrap_or(&said);
    let advice = ["; restore a backup", ": restore a backup"].iter().filter_map(|advice| said.find(advice)).min();
    said[..advice.unwrap_or(said.len())].into()
}

/// The store has been closed, or its thread has ended.
pub(super) fn closed() -> Error {
    Error::persistence("the store is closed; nothing was changed", None)
}

/// An index does not lead to the rows that it should; the writing thread builds it anew.
pub(super) fn index_astray() -> Error {
    let message = "an index is damaged on disk and is built anew now; nothing was changed: try again".into();
    Error::DatabaseCorruption { message, source: None }
}

fn damaged_database(error: rusqlite::Error, doing: &str, path: &Path) -> Error {
    let at = path.display();
    Error::DatabaseCorruption {
        message: message(doing, &format!("{at}"), &error, "restore a backup, or set it aside and rejoin its peers"),
        source: Some(Box::new(error)),
    }
}

fn sqlite(error: rusqlite::Error, doing: &str, path: &Path) -> Error {
    let at = path.display();
    let persistence = |kind, next: &str, error: rusqlite::Error| Error::Persistence {
        kind,
        message: message(doing, &format!("{at}"), &error, next),
        source: Some(Box::new(error)),
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            persistence(PersistenceKind::DiskFull, "free some space, or delete documents", error)
        }
        Some(ErrorCode::SystemIoFailure) => {
            persistence(PersistenceKind::Other, "look at the kernel log (dmesg) and the card", error)
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            persistence(PersistenceKind::Other, "give the node's user the right to write there", error)
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => persistence(
            PersistenceKind::Other,
            "another program holds it open in a transaction; end it, nothing was changed",
            error,
        ),
        Some(ErrorCode::OutOfMemory) => {
            persistence(PersistenceKind::Other, "the SQLite heap limit is reached; raise it or lower the load", error)
        }
        _ => persistence(PersistenceKind::Other, "report this with the message", error),
    }
}

fn message(doing: &str, at: &str, error: &rusqlite::Error, next: &str) -> String {
    format!("{doing} ({at}): {error}; {next}")
}
