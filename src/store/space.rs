//! Refuses what would grow the database past its bounds, before SQLite runs out of space.
//!
//! Deletes, and what only moves marks, go on: they are how space comes back.

use super::disk::{Disk, Entry};
use super::{Options, open};
use crate::error::{Error, PersistenceKind};
use crate::replica::Request;
use crate::row::Row;
use rusqlite::Connection;
use std::format;
use std::path::Path;
use std::string::String;
use std::sync::Arc;

/// Bytes that may be written before the disk is looked at again.
const STRIDE: u64 = 4 * 1024 * 1024;
/// What a row takes beside its key and value: columns, index, page headers.
const ROW_OVERHEAD: u64 = 96;

/// The bounds, and how far the last look reaches.
#[derive(Debug)]
pub(super) struct Space {
    max_database_bytes: Option<u64>,
    min_free_bytes: u64,
    log_bytes: u64,
    allowance: u64,
    disk: Arc<dyn Disk>,
}

impl Space {
    pub(super) fn new(options: &Options) -> Space {
        let Options { max_database_bytes, min_free_bytes, log_bytes, .. } = *options;
        Space { max_database_bytes, min_free_bytes, log_bytes, allowance: 0, disk: Arc::clone(&options.disk) }
    }
    /// Whether a request may grow the database by what it brings.
    pub(super) fn admit(&mut self, request: &Request, connection: &Connection, path: &Path) -> Result<(), Error> {
        let growth = growth(request);
        if growth == 0 {
            return Ok(());
        }
        if growth > self.allowance {
            let (room, by_max) = self.room(connection, path)?;
            if room < growth {
                return Err(full(self.bound(path, by_max)));
            }
            self.allowance = (room / 8).min(STRIDE).max(growth);
        }
        self.allowance -= growth;
        Ok(())
    }
    /// Bytes that may be added, and whether it is the bound on the database that says so.
    fn room(&self, connection: &Connection, path: &Path) -> Result<(u64, bool), Error> {
        let asked = self.disk.free_bytes(path);
        let free = asked.map_err(|error| super::failure::file("asking for free space", path, error))?;
        let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        let pages = || Ok((pragma("page_count")?, pragma("freelist_count")?, pragma("page_size")?));
        let (all, unused, page) =
            pages().map_err(|error| super::failure::Failure::Sqlite(error).into_error("measuring", path))?;
        let log = file_bytes(&*self.disk, &open::beside(path, "-wal"));
        // What is in the log will be copied into the database, which may grow by as much: were that room given away, the
        // copy would take the last byte of the disk, and deletes could not be written any more.
        let grow = free.saturating_sub(self.min_free_bytes).saturating_sub(log);
        // What was deleted leaves pages that need no room on the disk, as long as the log has the room that it may take.
        let log_fits = free >= self.log_bytes.saturating_sub(log);
        let room = if log_fits { grow + (unused * page).cast_unsigned() } else { grow };
        let Some(max) = self.max_database_bytes else { return Ok((room, false)) };
        let below_max = max.saturating_sub(((all - unused) * page).cast_unsigned());
        Ok((room.min(below_max), below_max < room))
    }
    /// The bound that is in the way.
    fn bound(&self, path: &Path, by_max: bool) -> String {
        let at = path.display();
        let max = self.max_database_bytes.filter(|_| by_max).map(|max| max / 1024 / 1024);
        match (max, self.min_free_bytes / 1024 / 1024) {
            (Some(max), _) => format!("{at} would pass Persistence.MaxDatabaseMb = {max}"),
            (None, 0) => format!("there is no room on the disk for {at}"),
            (None, free) => format!("less than Persistence.MinFreeMb = {free} would be free beside {at}"),
        }
    }
}

/// Bytes of a file; none where there is no such file.
pub(super) fn file_bytes(disk: &dyn Disk, path: &Path) -> u64 {
    match disk.entry(path) {
        Ok(Some(Entry::File(bytes))) => bytes,
        _ => 0,
    }
}

/// Bytes that a request may add; 0 for what must go on when space is short.
fn growth(request: &Request) -> u64 {
    let rows = |rows: &[Row]| rows.iter().map(|row| live(row.value(), row.encoded_bytes())).sum();
    match request {
        Request::Write { writes, .. } => writes
            .iter()
            .map(|write| match &write.body {
                crate::row::Body::Tombstone => 0,
                crate::row::Body::Live(value) => {
                    live(Some(value), value.len() + write.key.collection.len() + write.key.key.len())
                }
            })
            .sum(),
        Request::Apply(incoming) => rows(&incoming.rows),
        Request::Stage { rows: staged, .. } => rows(staged),
        Request::Bootstrap { .. }
        | Request::MarkSent { .. }
        | Request::Meet(_)
        | Request::Confirmed { .. }
        | Request::Maintain(_)
        | Request::Fork { .. }
        | Request::Records
        // What is mended or written again stands in the database already.
        | Request::Repair(_)
        | Request::Decide { .. } => 0,
    }
}

fn live(value: Option<&[u8]>, bytes: usize) -> u64 {
    value.map_or(0, |_| bytes as u64 + ROW_OVERHEAD)
}

fn full(bound: String) -> Error {
    Error::Persistence {
        kind: PersistenceKind::DiskFull,
        message: format!("{bound}; nothing was changed: delete documents, free space or change the bound"),
        source: None,
    }
}
