//! From a path to a connection that is known to be what it should be: lock, header, pragmas read back, check.
//!
//! Files are looked at before SQLite opens them and never while it has them open: closing any descriptor of the
//! database would drop SQLite's POSIX locks on it.

use super::Options;
use super::aside;
use super::disk::{Disk, Entry, Held};
use super::failure::{self, Failure};
use super::header::{self, Kind};
use super::ledger;
use super::recover;
use super::restore;
use super::salvage;
use super::schema;
use crate::error::Error;
use crate::mutants::{Mutant, planted};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::ffi::OsString;
use std::format;
use std::io;
use std::path::{Path, PathBuf};
use std::string::String;
use std::time::Duration;

/// How long a connection waits for another program that holds the database.
const BUSY: Duration = Duration::from_secs(10);

/// The folder, the lock, and whether there is a database of ours.
#[derive(Debug)]
pub(super) struct Place {
    /// Held until the store is closed.
    pub(super) lock: Held,
    /// There was none, or an empty file.
    pub(super) new: bool,
    /// It is empty, or holds nothing that can be told, and was a database: backups of it were made.
    pub(super) lost: bool,
    /// There was no file, and backups of one were made: it was lost, or a person has moved it away.
    pub(super) missing: bool,
}

/// A file that stands beside the database: `-wal`, `-shm`, `-journal`, `.lock`.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(database);
    path.push(suffix);
    path.into()
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

pub(super) fn is_folder(disk: &dyn Disk, path: &Path) -> bool {
    matches!(disk.entry(path), Ok(Some(Entry::Folder)))
}

/// Makes the folder of a database where there is none.
pub(super) fn make_folder(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    let folder = folder_of(path);
    if !is_folder(disk, folder) {
        disk.create_folders(folder).map_err(|error| failure::file("creating the folder", folder, error))?;
        sync_folder(disk, folder_of(folder))?;
    }
    Ok(())
}

/// Makes the folder, takes the lock and looks at the file, before SQLite does.
pub(super) fn place(disk: &dyn Disk, path: &Path) -> Result<Place, Error> {
    if is_folder(disk, path) {
        let error = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(failure::file("opening the database", path, error));
    }
    make_folder(disk, path)?;
    let lock = lock(disk, path)?;
    aside::logs_are_files(disk, path)?;
    restore::notice(disk, path)?;
    restore::sweep(disk, path);
    let at = path.display();
    let next = "set Persistence.DatabasePath to another file, or put a backup in its place with 'cbddc restore FILE'";
    let (mut lost, mut missing) = (false, false);
    let new = match header::kind(disk, path)? {
        // A recovery was cut off behind the first of its steps: an empty file here would be taken for the last.
        None if recover::is_under_way(disk, path) => true,
        None => {
            missing = ledger::read(disk, path).last.is_some();
            disk.create(path).map_err(|error| failure::file("creating the database", path, error))?;
            true
        }
        Some(Kind::Empty) => {
            lost = ledger::read(disk, path).last.is_some();
            true
        }
        Some(Kind::Database | Kind::Backup) => false,
        Some(Kind::Other) if header::is_being_created(disk, path)? => true,
        // Its first sector is lost, and rows or records of ours are in it: SQLite will refuse it, and it is recovered.
        Some(Kind::Other | Kind::Foreign) if holds_rows(disk, path)? => false,
        // As a power cut leaves it on some cards: zeros, where a database was.
        Some(Kind::Other) if ledger::read(disk, path).last.is_some() => {
            lost = true;
            true
        }
        Some(Kind::Other) => return Err(Error::persistence(format!("{at} is not a database; {next}"), None)),
        Some(Kind::Foreign) => {
            return Err(Error::persistence(format!("{at} is a database of another program; {next}"), None));
        }
    };
    Ok(Place { lock, new, lost, missing })
}

fn holds_rows(disk: &dyn Disk, path: &Path) -> Result<bool, Error> {
    let remains = salvage::survey(disk, path).map_err(|error| failure::file("reading", path, error))?;
    Ok(remains.whole > 0 || remains.knowledge.is_some())
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(disk: &dyn Disk, folder: &Path) -> Result<(), Error> {
    disk.sync_folder(folder).map_err(|error| failure::file("syncing the folder", folder, error))
}

/// One process holds a database. The lock goes with the process, whatever ends it.
pub(super) fn lock(disk: &dyn Disk, path: &Path) -> Result<Held, Error> {
    let at = beside(path, ".lock");
    disk.lock(&at).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let at = path.display();
            let next = "stop it, or set Persistence.DatabasePath elsewhere";
            Error::persistence(format!("{at} is already open in {error}; {next}"), None)
        }
        _ => failure::file("locking", &at, error),
    })
}

/// Makes sure that what the last process left in the log is on the disk and not only in the page cache.
///
/// After a sync that failed, the kernel holds pages as clean that never reached the disk; a log that is continued behind
/// such a hole would lose what is committed later. Written again, they are dirty again, and this sync is honest.
pub(super) fn settle_log(disk: &dyn Disk, path: &Path) -> Result<bool, Error> {
    if planted(Mutant::LogNotSettled) {
        return Ok(false);
    }
    for suffix in ["-wal", "-journal"] {
        let at = beside(path, suffix);
        let settled = disk.rewrite(&at).map_err(|error| failure::file("settling", &at, error))?;
        if settled.is_some_and(|bytes| bytes > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A connection through the VFS of the disk.
pub(super) fn connect(disk: &dyn Disk, path: &Path, flags: OpenFlags) -> Result<Connection, rusqlite::Error> {
    match disk.vfs() {
        None => Connection::open_with_flags(path, flags),
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs),
    }
}

/// Opens the writing connection.
pub(super) fn writer(options: &Options) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = connect(&*options.disk, &options.path, flags)?;
    common(&connection, options)?;
    // Takes effect only while the file is empty, before anything else is written.
    connection.pragma_update(None, "auto_vacuum", 2)?;
    let mode = if options.wal { "wal" } else { "truncate" };
    set(&connection, "journal_mode", mode, mode)?;
    // 2 is FULL, 3 is EXTRA: without a log the folder must be synced too when the journal is emptied.
    let synchronous = match options.wal {
        _ if planted(Mutant::SynchronousOff) => "0",
        _ if planted(Mutant::SynchronousNormal) => "1",
        true => "2",
        false => "3",
    };
    set(&connection, "synchronous", synchronous, synchronous)?;
    set(&connection, "wal_autocheckpoint", "0", "0")?;
    let limit = format!("{}", options.log_bytes);
    set(&connection, "journal_size_limit", &limit, &limit)?;
    set(&connection, "secure_delete", "0", "0")?;
    if let Some(limit) = options.heap_limit_bytes {
        let limit = format!("{limit}");
        set(&connection, "soft_heap_limit", &limit, &limit)?;
    }
    Ok(connection)
}

/// Opens the reading connection; the writing one is open.
pub(super) fn reader(options: &Options) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = connect(&*options.disk, &options.path, flags)?;
    common(&connection, options)?;
    set(&connection, "query_only", "1", "1")?;
    Ok(connection)
}

fn common(connection: &Connection, options: &Options) -> Result<(), Failure> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    set(connection, "mmap_size", "0", "0")?;
    let kibibytes = format!("-{}", (options.page_cache_bytes / 2 / 1024).max(64));
    set(connection, "cache_size", &kibibytes, &kibibytes)?;
    set(connection, "temp_store", "2", "2")?;
    set(connection, "foreign_keys", "0", "0")?;
    set(connection, "trusted_schema", "0", "0")?;
    set(connection, "cell_size_check", "1", "1")?;
    Ok(())
}

/// Runs a statement that gives rows, all of them. What it writes is committed behind the last one, and whether that was
/// done is not known before; `execute_batch` leaves at the first, and what fails behind it nobody hears of.
pub(super) fn to_the_end(connection: &Connection, sql: &str) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Sets a pragma and reads it back: SQLite ignores what it does not know or cannot do.
pub(super) fn set(connection: &Connection, pragma: &str, value: &str, expected: &str) -> Result<(), Failure> {
    to_the_end(connection, &format!("PRAGMA {pragma} = {value}"))?;
    let read = connection.query_row(&format!("PRAGMA {pragma}"), [], |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => format!("{number}"),
            other => String::from_utf8_lossy(other.as_str().unwrap_or("").as_bytes()).into_owned(),
        })
    })?;
    if read == expected {
        return Ok(());
    }
    let message = format!(
        "the database does not take {pragma} = {value}, it stays at {read}; another program may hold it open: end that"
    );
    Err(Error::persistence(message, None).into())
}

/// Looks at the structure of the whole database.
pub(super) fn quick_check(connection: &Connection, path: &Path) -> Result<(), Failure> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    let at = path.display();
    let message = format!("{at} is damaged: {found}; restore a backup, or set it aside and rejoin its peers");
    Err(Error::DatabaseCorruption { message, source: None }.into())
}

/// Brings the schema of an open database up to date. Says whether it was created, and whether the last stop was orderly.
pub(super) fn schema(
    connection: &Connection,
    path: &Path,
    new: bool,
    random: &mut dyn FnMut() -> u64,
) -> Result<(bool, bool), Failure> {
    let transaction = super::commit::Open::begin(connection)?;
    let record = schema::record(connection)?;
    let answer = match record {
        None => {
            let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if !new && tables > 0 {
                let at = path.display();
                let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
                if id == schema::APPLICATION_ID || id == schema::RESTORED_ID {
                    return Err(failure::damaged("the schema").into());
                }
                let next = "set Persistence.DatabasePath to another file";
                let message = format!("{at} is a database of another program; {next}");
                return Err(Error::persistence(message, None).into());
            }
            schema::create(connection, random())?;
            (true, true)
        }
        Some(record) => {
            schema::check(&record, path)?;
            schema::upgrade(connection, &record)?;
            (false, record.clean)
        }
    };
    transaction.commit()?;
    Ok(answer)
}
