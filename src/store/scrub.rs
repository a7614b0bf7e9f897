//! Looks at rows that nobody asks for: every checksum, and whether each row is found where its indexes say.
//!
//! A slice at a time, within one short read transaction. Mends nothing: whoever asked is told what was found.

use super::codec;
use super::failure::{Failure, damaged_row};
use super::sql::{ROW, Statements};
use super::state::area_in_force;
use crate::error::Error;
use crate::id::LocalSeq;
use crate::row::{Head, RowKey};
use rusqlite::{Connection, OptionalExtension, Row as Columns, params};
use std::vec::Vec;

/// Rows in one slice, however small they are.
const SLICE_ROWS_MAX: u64 = 1024;
/// What a row costs to read beside its value.
const ROW_COST_BYTES: u64 = 128;
/// Findings that one slice reports; it ends there.
const FINDINGS_MAX: usize = 32;

/// A damaged row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where it stands in the stream.
    pub seq: LocalSeq,
    /// Its name, as the key index has it: the row's own may be what is damaged. `None` where no index knows the row.
    pub key: Option<RowKey>,
    /// In which way.
    pub damage: Damage,
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Its checksum is not that of its content: a newer row of that key puts it right.
    Row,
    /// It is whole, but an index does not lead to it: only rebuilding the index puts it right.
    Index,
}

impl Finding {
    /// The error for whoever asked for the row.
    pub fn error(&self) -> Error {
        match (&self.key, self.damage) {
            (Some(key), Damage::Row) => damaged_row(key),
            (_, Damage::Row) => super::failure::damaged("a row"),
            (_, Damage::Index) => super::failure::damaged("an index"),
        }
    }
}

/// What one slice saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scrubbed {
    /// Go on behind this position; `None` at the end.
    pub next: Option<LocalSeq>,
    /// Rows looked at.
    pub rows: u64,
    /// Bytes looked at, about.
    pub bytes: u64,
    /// What was found.
    pub found: Vec<Finding>,
}

/// Looks at the rows behind `after`, until they are `bytes` or a bound of its own.
pub(super) fn slice(connection: &Connection, after: LocalSeq, bytes: u64) -> Result<Scrubbed, Failure> {
    let statements = &ROW[area_in_force(connection)?];
    let mut statement = connection.prepare_cached(statements.rows_after)?;
    let mut rows = statement.query([codec::position(after)])?;
    let mut seen = Scrubbed::default();
    while let Some(columns) = rows.next()? {
        let seq = columns.get::<_, i64>(0)?.cast_unsigned();
        seen.rows += 1;
        seen.bytes +=
            ROW_COST_BYTES + columns.get_ref(10)?.as_blob_or_null().ok().flatten().map_or(0, <[u8]>::len) as u64;
        match whole(columns) {
            Some((head, key)) if is_indexed(connection, statements, &head, &key)? => {}
            Some((_, key)) => seen.found.push(Finding { seq, key: Some(key), damage: Damage::Index }),
            None => {
                let key = name_of(connection, statements, seq)?;
                seen.found.push(Finding { seq, key, damage: Damage::Row });
            }
        }
        if seen.rows == SLICE_ROWS_MAX || seen.bytes >= bytes || seen.found.len() == FINDINGS_MAX {
            seen.next = Some(seq);
            break;
        }
    }
    Ok(seen)
}

/// The row's head and name, if all of it is as it was written. A column that cannot even be read is damage like any other.
fn whole(columns: &Columns<'_>) -> Option<(Head, RowKey)> {
    let head = codec::head(columns).ok()?;
    let scope = codec::scope_of(columns.get(7).ok()?)?;
    let key = RowKey { scope, collection: columns.get(8).ok()?, key: columns.get(9).ok()? };
    let row = codec::row(&head, key, columns.get_ref(10).ok()?).ok()?;
    Some((head, row.key))
}

/// Whether each index that must have the row leads to it.
fn is_indexed(
    connection: &Connection,
    statements: &Statements,
    head: &Head,
    key: &RowKey,
) -> Result<bool, rusqlite::Error> {
    let position = codec::position(head.local_seq);
    let name = params![codec::scope(key.scope), key.collection, key.key];
    let by_key =
        connection.prepare_cached(statements.position)?.query_row(name, |row| row.get::<_, i64>(0)).optional()?;
    if by_key != Some(position) {
        return Ok(false);
    }
    if head.tombstone {
        return connection.prepare_cached(statements.is_tombstone)?.exists([position]);
    }
    match head.expires_at {
        Some(at) => connection.prepare_cached(statements.is_expiring)?.exists([codec::bits(at), position]),
        None => Ok(true),
    }
}

/// The name under which the key index has a row. Reads the whole index: only for a row that is damaged.
pub(super) fn name_of(
    connection: &Connection,
    statements: &Statements,
    seq: LocalSeq,
) -> Result<Option<RowKey>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(statements.name)?;
    let found = statement.query_row([codec::position(seq)], |row| {
        let scope = codec::scope_of(row.get(0)?);
        let (collection, key) = (row.get(1)?, row.get(2)?);
        Ok(scope.map(|scope| RowKey { scope, collection, key }))
    });
    match found {
        // A name that cannot be read is no name.
        Err(rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..)) => Ok(None),
        found => found.optional().map(Option::flatten),
    }
}
