//! A look at all of the database: rows in slices, the structure in one go that gives way.
//!
//! Changes nothing. On a running node it has a connection of its own and short transactions; only the walk of the trees needs
//! one long snapshot, and that one ends where the log has grown by its bound or, without a log, where a write waits.

use super::commit::Job;
use super::disk::{Disk, Entry};
use super::failure::Failure;
use super::inbox::Inbox;
use super::keeper::Keeper;
use super::open::{self, beside};
use super::space::file_bytes;
use super::state::State;
use super::verify::{self, Findings};
use super::{Finding, Options, WAL_BYTES_MAX, header, schema, scrub};
use crate::error::Error;
use crate::replica::Knowledge;
use rusqlite::{Connection, ErrorCode};

use std::path::Path;
use std::string::String;
use std::sync::Arc;
use std::time::Duration;
use std::vec::Vec;

/// By how much the log may grow while the structure is looked at.
const LOG_GROWTH_MAX: u64 = 4 * WAL_BYTES_MAX;
/// Times that the structure is tried.
const ATTEMPTS: u32 = 5;
/// Between two of them, and between two slices: others have the disk meanwhile.
const PAUSE: Duration = Duration::from_millis(500);
const SLICE_PAUSE: Duration = Duration::from_millis(1);
const SLICE_BYTES: u64 = 256 * 1024;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// Rows that were looked at.
    pub rows: u64,
    /// Damaged rows, the first of them.
    pub damaged: Vec<Finding>,
    /// Faults of trees, free pages, indexes, records and sums, a sentence each.
    pub structure: Vec<String>,
    /// The structure was looked at to its end. On a node that writes much it may not be: then only the rows were.
    pub complete: bool,
}

impl Checked {
    /// Nothing is damaged, as far as was looked.
    pub fn is_ok(&self) -> bool {
        self.damaged.is_empty() && self.structure.is_empty()
    }
    /// The error that says what is damaged; `None` where nothing is.
    pub fn error(&self, database: &Path) -> Option<Error> {
        let found = Findings { rows: self.damaged.clone(), structure: self.structure.clone() };
        let next = "a row is put right by a peer that has it or by writing it again, anything else by the node while it runs \
                    (Persistence.AutoRecover), or by 'cbddc restore'";
        (!found.is_empty()).then(|| found.error(database, next))
    }
}

/// On a running node.
pub(super) fn running(keeper: &Arc<Keeper>, options: &Options, writes: &Arc<Inbox<Job>>) -> Result<Checked, Error> {
    let told = |failure: Failure| failure.into_error("checking", &options.path);
    let mut checked = Checked::default();
    let mut after = 0;
    loop {
        let slice = |connection: &Connection| {
            connection.execute_batch("BEGIN")?;
            scrub::slice(connection, after, SLICE_BYTES)
        };
        match keeper.with_connection(options, false, || false, slice) {
            Ok(seen) => {
                checked.rows += seen.rows;
                checked.damaged.extend(seen.found);
                checked.damaged.truncate(scrub::FINDINGS_MAX);
                match seen.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
            Err(failure) if is_interrupted(&failure) && !keeper.is_stopping() => {}
            Err(failure) => return Err(told(failure)),
        }
        std::thread::sleep(SLICE_PAUSE);
    }
    for _ in 0..ATTEMPTS {
        let log = beside(&options.path, "-wal");
        let disk = Arc::clone(&options.disk);
        let size = move || file_bytes(&*disk, &log);
        let (began, wal, writes) = (size().max(WAL_BYTES_MAX), options.wal, Arc::clone(writes));
        let enough = move || if wal { size() > began + LOG_GROWTH_MAX } else { writes.has_jobs() };
        match keeper.with_connection(options, true, enough, structure) {
            Ok(found) => {
                checked.structure = found.structure;
                checked.complete = true;
                break;
            }
            Err(failure) if is_interrupted(&failure) && !keeper.is_stopping() => std::thread::sleep(PAUSE),
            Err(failure) => return Err(told(failure)),
        }
    }
    Ok(checked)
}

/// Where no node is: the lock is held meanwhile, and a log that the last process left is read with it.
pub(super) fn offline(disk: &dyn Disk, path: &Path) -> Result<Checked, Error> {
    match disk.entry(path).map_err(|error| super::failure::file("checking", path, error))? {
        Some(Entry::File(_)) => {}
        Some(Entry::Other) => return Err(super::failure::no_file(path)),
        Some(Entry::Folder) => {
            let error = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            return Err(super::failure::file("checking", path, error));
        }
        None => {
            let at = path.display();
            let next = "the first start of the node makes it, or Persistence.DatabasePath names another place";
            return Err(Error::persistence(std::format!("there is no database {at}: {next}"), None));
        }
    }
    let lock = open::lock(disk, path)?;
    let log = ["-wal", "-journal"].iter().any(|log| file_bytes(disk, &beside(path, log)) > 0);
    let checked = if log { with_log(disk, path) } else { verify::file(disk, path, || false).map(of_file) };
    let versions = header::wrong_versions(disk, path);
    drop(lock);
    let mut checked = checked?;
    if versions?.is_some() {
        checked.structure.push("the version of the file's format is none that there is: a start puts it right".into());
    }
    Ok(checked)
}

fn of_file(found: verify::Verified) -> Checked {
    let verify::Verified { rows, damage, .. } = found;
    Checked { rows, damaged: damage.rows, structure: damage.structure, complete: true }
}

/// A database that was not stopped in order is read with its log, which only a connection that could write can do. It writes
/// nothing and copies nothing back.
fn with_log(disk: &dyn Disk, path: &Path) -> Result<Checked, Error> {
    let read = || -> Result<Checked, Failure> {
        use rusqlite::OpenFlags;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = open::connect(disk, path, flags)?;
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.execute_batch("PRAGMA mmap_size = 0; PRAGMA cache_size = -1024; PRAGMA query_only = 1; BEGIN")?;
        if let Some(record) = schema::record(&connection)? {
            schema::check(&record, path)?;
        }
        Ok(of_file(verify::content(&connection)?))
    };
    read().map_err(|failure| failure.into_error("checking", path))
}

/// Trees, indexes, records and sums in one snapshot.
fn structure(connection: &Connection) -> Result<Findings, Failure> {
    connection.execute_batch("BEGIN")?;
    let mut found = Findings { structure: verify::structure(connection)?, ..Findings::default() };
    let mut state = State::load(connection)?;
    let knowledge: Knowledge = state.knowledge.clone();
    verify::records(connection, &mut state, &mut found)?;
    if let Some((tail, digest, tombstones)) = scrub::sums(connection)? {
        verify::sums(&knowledge, tail, digest, tombstones, &mut found);
    }
    Ok(found)
}

fn is_interrupted(failure: &Failure) -> bool {
    matches!(failure, Failure::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
}
