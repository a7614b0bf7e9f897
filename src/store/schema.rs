//! The schema, its numbered steps, and who may open it.
//!
//! A step that has been released never changes; what comes later is a new step. The table `schema` keeps its columns
//! for ever, so that every release can read which release a database needs.

use super::codec;
use super::failure::Failure;
use crate::error::Error;
use crate::replica::Knowledge;
use rusqlite::{Connection, OptionalExtension};
use std::format;
use std::string::String;

/// "CBDC": in the file's header, so that `file` and this node know whose it is.
pub(super) const APPLICATION_ID: i32 = 0x4342_4443;
/// "CBDB": a backup. Whoever opens it as its database takes a new identity.
pub(super) const BACKUP_ID: i32 = 0x4342_4442;
/// "CBDR": a backup that has become the database and has not taken its new identity yet.
pub(super) const RESTORED_ID: i32 = 0x4342_4452;
/// The schema of this release.
const VERSION: i64 = 2;
/// The lowest schema that a release must know to open what this one writes, and that release.
const MIN_READER: (i64, &str) = (1, "0.1");

type Step = fn(&Connection) -> Result<(), rusqlite::Error>;
/// `STEPS[n]` leads from schema `n` to `n + 1`.
const STEPS: [Step; VERSION as usize] = [step_1, step_2];

/// What stands in the table `schema`.
#[derive(Debug)]
pub(super) struct Record {
    version: i64,
    min_reader: i64,
    min_release: String,
    /// The last stop was orderly.
    pub(super) clean: bool,
}

impl Record {
    /// Rows that wait for a person have a table: a file of an earlier schema, a backup say, is read as it is.
    pub(super) fn has_recovered(&self) -> bool {
        self.version >= 2
    }
}

/// The record; `None` of a database without one.
pub(super) fn record(connection: &Connection) -> Result<Option<Record>, rusqlite::Error> {
    let known: bool =
        connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'schema'", [], |row| row.get(0))?;
    if !known {
        return Ok(None);
    }
    connection
        .query_row("SELECT version, min_reader, min_release, clean FROM schema WHERE id = 1", [], |row| {
            Ok(Record { version: row.get(0)?, min_reader: row.get(1)?, min_release: row.get(2)?, clean: row.get(3)? })
        })
        .optional()
}

/// Refuses what a later release has written in a way that this one would not understand.
pub(super) fn check(record: &Record, path: &std::path::Path) -> Result<(), Error> {
    if record.min_reader <= VERSION {
        return Ok(());
    }
    if record.min_reader > record.version {
        // No release writes that.
        return Err(super::failure::damaged("the record of the schema"));
    }
    Err(Error::persistence(
        format!(
            "{} has schema {}, this is cbddc {} with schema {VERSION}; cbddc {} or later opens it",
            path.display(),
            record.version,
            env!("CARGO_PKG_VERSION"),
            record.min_release,
        ),
        None,
    ))
}

/// Creates the first schema of a new database with its first knowledge, and takes the steps from there.
pub(super) fn create(connection: &Connection, random: u64) -> Result<(), Failure> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    step_1(connection)?;
    let (min_reader, min_release) = MIN_READER;
    connection.execute(
        "INSERT INTO schema (id, version, min_reader, min_release, clean) VALUES (1, 1, ?1, ?2, 1)",
        (min_reader, min_release),
    )?;
    let knowledge = Knowledge::new(random);
    connection.execute(
        "INSERT INTO knowledge (id, area, version, state) VALUES (1, 0, 0, ?1)",
        [codec::encode(&knowledge)?],
    )?;
    migrate(connection, 1)?;
    Ok(())
}

/// Takes the steps from `record` on; does nothing to a database of this or a later schema.
pub(super) fn upgrade(connection: &Connection, record: &Record) -> Result<(), Failure> {
    migrate(connection, record.version)
}

fn migrate(connection: &Connection, from: i64) -> Result<(), Failure> {
    let done = usize::try_from(from).unwrap_or(0);
    for step in STEPS.iter().skip(done) {
        step(connection)?;
    }
    if from < VERSION {
        let (min_reader, min_release) = MIN_READER;
        connection.execute(
            "UPDATE schema SET version = ?1, min_reader = ?2, min_release = ?3 WHERE id = 1",
            (VERSION, min_reader, min_release),
        )?;
    }
    Ok(())
}

/// Notes whether the node is running; a database that says so at start was not stopped in order.
pub(super) fn set_clean(connection: &Connection, clean: bool) -> Result<(), rusqlite::Error> {
    connection.execute("UPDATE schema SET clean = ?1 WHERE id = 1", [clean]).map(|_| ())
}

/// The indexes of a table of rows, by the end of their names.
pub(super) const INDEXES: [&str; 3] = ["key", "tombstone", "expiry"];

/// Makes them.
pub(super) fn indexes(row: &str) -> String {
    format!(
        "CREATE UNIQUE INDEX {row}_key ON {row} (scope, collection, key);
             CREATE INDEX {row}_tombstone ON {row} (seq, scope, collection) WHERE flags & 1;
             CREATE INDEX {row}_expiry ON {row} (expires_at) WHERE expires_at IS NOT NULL AND NOT flags & 1;"
    )
}

fn step_1(connection: &Connection) -> Result<(), rusqlite::Error> {
    for row in ["row_0", "row_1"] {
        connection.execute_batch(&format!(
            "CREATE TABLE {row} (
                seq INTEGER PRIMARY KEY,
                stamp INTEGER NOT NULL,
                origin INTEGER NOT NULL,
                dot INTEGER NOT NULL,
                flags INTEGER NOT NULL,
                expires_at INTEGER,
                hash BLOB NOT NULL,
                scope INTEGER NOT NULL,
                collection TEXT NOT NULL,
                key TEXT NOT NULL,
                value BLOB
             );
             {}",
            indexes(row)
        ))?;
    }
    connection.execute_batch(
        "CREATE TABLE schema (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            version INTEGER NOT NULL,
            min_reader INTEGER NOT NULL,
            min_release TEXT NOT NULL,
            clean INTEGER NOT NULL
         );
         CREATE TABLE knowledge (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            area INTEGER NOT NULL,
            version INTEGER NOT NULL,
            state BLOB NOT NULL
         );
         CREATE TABLE member (device BLOB PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;",
    )
}

/// Rows that were set aside for a person. Additive: a release that knows schema 1 alone opens it, too.
fn step_2(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS recovered (
            id INTEGER PRIMARY KEY,
            stamp INTEGER NOT NULL,
            origin INTEGER NOT NULL,
            dot INTEGER NOT NULL,
            flags INTEGER NOT NULL,
            expires_at INTEGER,
            hash BLOB NOT NULL,
            scope INTEGER NOT NULL,
            collection TEXT NOT NULL,
            key TEXT NOT NULL,
            value BLOB,
            settled INTEGER NOT NULL DEFAULT 0
         );
         CREATE UNIQUE INDEX IF NOT EXISTS recovered_key ON recovered (scope, collection, key, origin, dot);",
    )
}
