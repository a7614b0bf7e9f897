//! Looks at every byte of a database that nobody writes: a backup before it counts as one, a file before it is restored, the
//! database of a node that is stopped.
//!
//! Changes nothing, leaves nothing beside the file, and takes no lock: it is for files that lie still.

use super::disk::{Disk, Entry};
use super::failure::{self, Failure};
use super::header::{self, Kind};
use super::open::{beside, connect};
use super::schema::{self, BACKUP_ID};
use super::space::file_bytes;
use super::state::State;
use super::table::SqlTable;
use super::{Finding, codec, scrub};
use crate::error::{Error, PersistenceKind};
use crate::id::LocalSeq;
use crate::replica::{Knowledge, Table};
use crate::row::RowKey;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags};
use std::format;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

/// Instructions of SQLite between two looks at whether to stop.
const LOOK_AFTER: i32 = 10_000;
/// Faults of structure that are reported.
const FAULTS_MAX: u32 = 10;
const SLICE_BYTES: u64 = 1024 * 1024;

/// What was found in a database that could be read to its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verified {
    pub(super) knowledge: Knowledge,
    /// It is marked as a backup.
    pub(super) is_backup: bool,
    /// It was closed in order: nothing of it stands in a log that may be elsewhere.
    pub(super) clean: bool,
    pub(super) rows: u64,
    pub(super) damage: Findings,
}

/// Everything that is wrong, within bounds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Findings {
    /// Rows.
    pub(super) rows: Vec<Finding>,
    /// What SQLite says of the structure, and what we say of records and sums.
    pub(super) structure: Vec<String>,
}

impl Findings {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.structure.is_empty()
    }
    /// The error that says all of it.
    pub(super) fn error(&self, path: &Path, next: &str) -> Error {
        let rows = match self.rows.len() {
            0 => None,
            1 => Some("1 row is damaged".to_string()),
            n => Some(format!("{n} rows are damaged")),
        };
        let said: Vec<&str> = self.structure.iter().map(String::as_str).chain(rows.as_deref()).collect();
        let message = format!("{} is damaged: {}; {next}", path.display(), said.join("; "));
        Error::DatabaseCorruption { message, source: None }
    }
}

/// Refuses, by its first bytes and by what stands beside it, what cannot be a whole database of ours in one file.
pub(super) fn one_file(disk: &dyn Disk, path: &Path) -> Result<Kind, Error> {
    let at = path.display();
    let refuse = |what: &str| Err(Error::persistence(format!("{at} {what}"), None));
    // A folder can be opened like a file, and fails only when it is read.
    let there = disk.entry(path).and_then(|entry| match entry {
        Some(Entry::File(_)) => Ok(()),
        Some(Entry::Folder) => Err(io::ErrorKind::IsADirectory.into()),
        Some(Entry::Other) | None => Err(io::ErrorKind::NotFound.into()),
    });
    match disk.entry(path) {
        Ok(None) => {
            let next = "check the path; backups are in Persistence.BackupPath, which 'cbddc config show' names";
            return Err(Error::persistence(format!("there is no file {at}: {next}"), None));
        }
        Ok(Some(Entry::Other)) => return Err(failure::no_file(path)),
        _ => {}
    }
    there.map_err(|error| failure::backup_file("reading", path, error))?;
    let kind = match header::kind(disk, path)? {
        None => return refuse("is not there any more"),
        Some(Kind::Empty) => return refuse("is empty: it holds no database"),
        Some(Kind::Other) => return refuse("is not a database"),
        Some(Kind::Foreign) => return refuse("is a database of another program"),
        Some(kind @ (Kind::Database | Kind::Backup)) => kind,
    };
    for log in ["-wal", "-journal"] {
        let log = beside(path, log);
        if file_bytes(disk, &log) > 0 {
            let log = log.display();
            return refuse(&format!(
                "has {log} beside it: it is not whole in one file; a backup never has one, so this is a copy of a database \
                 in use or the log of another one: take a backup with 'cbddc backup', or move that log away"
            ));
        }
    }
    Ok(kind)
}

/// Opens a file that lies still: no lock, no log, nothing is written.
fn open(disk: &dyn Disk, path: &Path, stopping: impl Fn() -> bool + Send + 'static) -> Result<Connection, Failure> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let name = percent_encode(absolute.as_os_str().as_bytes(), NON_ALPHANUMERIC);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{name}?immutable=1");
    let mut connection = connect(disk, Path::new(&uri), flags)?;
    connection.execute_batch(
        "PRAGMA mmap_size = 0; PRAGMA cache_size = -1024; PRAGMA temp_store = 2; PRAGMA trusted_schema = 0;
         PRAGMA cell_size_check = 1; PRAGMA query_only = 1",
    )?;
    connection.progress_handler(LOOK_AFTER, Some(stopping))?;
    Ok(connection)
}

/// Reads all of a database of ours.
///
/// # Errors
/// It cannot be read, is of another program or of a later release, or is damaged beyond reading. Other damage is an answer.
pub(super) fn file(
    disk: &dyn Disk,
    path: &Path,
    stopping: impl Fn() -> bool + Send + 'static,
) -> Result<Verified, Error> {
    one_file(disk, path)?;
    // This file may be what a restore was to be made from: that is no advice here.
    let told = |failure: Failure| match failure.is_corruption() {
        true => {
            let (at, fault) = (path.display(), failure::fault(&failure, path));
            let message = format!("{at} is damaged: {fault}; it is not whole and cannot be used: take another backup");
            Error::DatabaseCorruption { message, source: None }
        }
        false => failure.into_error("reading", path),
    };
    let connection = open(disk, path, stopping).map_err(told)?;
    let record = schema::record(&connection).map_err(|error| told(error.into()))?;
    let Some(record) = record else {
        return Err(Error::persistence(format!("{} is a database of another program", path.display()), None));
    };
    schema::check(&record, path)?;
    content(&connection).map_err(told)
}

/// Reads all that a connection sees, in the transaction that it is in.
pub(super) fn content(connection: &Connection) -> Result<Verified, Failure> {
    let mut state = State::load(connection)?;
    let mut damage = Findings { structure: structure(connection)?, ..Findings::default() };
    let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let knowledge = state.knowledge.clone();
    records(connection, &mut state, &mut damage)?;
    let (mut after, mut tail, mut rows, mut digest, mut tombstones) = (0, 0, 0, 0u128, 0);
    loop {
        let seen = scrub::slice(connection, after, SLICE_BYTES)?;
        rows += seen.rows;
        tail = tail.max(seen.last);
        digest = digest.wrapping_add(seen.digest);
        tombstones += seen.tombstones;
        damage.rows.extend(seen.found);
        damage.rows.truncate(scrub::FINDINGS_MAX);
        match seen.next {
            Some(next) => after = next,
            None => break,
        }
    }
    sums(&knowledge, tail, digest, tombstones, &mut damage);
    let clean = schema::record(connection)?.is_some_and(|record| record.clean);
    Ok(Verified { knowledge, is_backup: id == BACKUP_ID, clean, rows, damage })
}

/// What SQLite says of trees, free pages and indexes; nothing where all is well.
pub(super) fn structure(connection: &Connection) -> Result<Vec<String>, Failure> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({FAULTS_MAX})"))?;
    let said = statement.query_map([], |row| row.get::<_, String>(0))?;
    let said: Vec<String> = said.collect::<Result<_, _>>()?;
    Ok(said.into_iter().filter(|line| line != "ok").collect())
}

/// The records of members, and the rows that still wait for a person to decide on.
pub(super) fn records(connection: &Connection, state: &mut State, damage: &mut Findings) -> Result<(), Failure> {
    match SqlTable::new(connection, state).members() {
        Ok(_) => {}
        Err(failure) if failure.breaks_connection() => return Err(failure),
        Err(_) => damage.structure.push("a member's record does not match its checksum".to_string()),
    }
    if schema::record(connection)?.is_some_and(|record| !record.has_recovered()) {
        return Ok(());
    }
    let mut statement = connection.prepare(
        "SELECT id, stamp, origin, dot, flags, expires_at, hash, scope, collection, key, value FROM recovered
         WHERE NOT settled",
    )?;
    let mut rows = statement.query([])?;
    while let Some(columns) = rows.next()? {
        let whole = || {
            let head = codec::head(columns).ok()?;
            let scope = codec::scope_of(columns.get(7).ok()?)?;
            let key = RowKey { scope, collection: columns.get(8).ok()?, key: columns.get(9).ok()? };
            codec::row(&head, key, columns.get_ref(10).ok()?).ok()
        };
        if whole().is_none() {
            damage.structure.push("a row in the recovered store does not match its checksum".to_string());
            break;
        }
    }
    Ok(())
}

/// What was counted against what the node believes.
pub(super) fn sums(knowledge: &Knowledge, tail: LocalSeq, digest: u128, tombstones: u64, damage: &mut Findings) {
    if tail > knowledge.tail {
        damage.structure.push(format!("a row stands at {tail}, behind the end of the stream at {}", knowledge.tail));
    }
    // A damaged row is told of by itself.
    if damage.rows.is_empty() && digest != knowledge.digest {
        damage.structure.push("the digest of the rows is not the one that is kept".to_string());
    }
    if damage.rows.is_empty() && tombstones != knowledge.tombstones {
        let kept = knowledge.tombstones;
        damage.structure.push(format!("{tombstones} tombstones are there, {kept} are counted"));
    }
}

/// No room for a copy.
pub(super) fn no_room(needed: u64, free: u64, folder: &Path) -> Error {
    // Rounded so that the one is never said to be the other.
    let (needed, free) = (needed.div_ceil(1024 * 1024), free / (1024 * 1024));
    Error::Persistence {
        kind: PersistenceKind::DiskFull,
        message: format!("{needed} MiB are needed in {}, {free} MiB are free; free some space", folder.display()),
        source: None,
    }
}
