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
use std::format;
use std::vec::Vec;

/// Rows in one slice, however small they are.
const SLICE_ROWS_MAX: u64 = 1024;
/// What a row costs to read beside its value.
const ROW_COST_BYTES: u64 = 128;
/// Findings that one slice reports; it ends there.
pub(super) const FINDINGS_MAX: usize = 32;

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
    /// Its checksum is not that of its content, and it can be replaced: another row of that key puts it right.
    Row,
    /// What the indexes say of it and what stands there differ: SQLite would refuse to replace it, only rebuilding puts that
    /// right.
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
    /// The last position that was looked at; 0 where there was none.
    pub last: LocalSeq,
    /// Rows looked at.
    pub rows: u64,
    /// Bytes looked at, about.
    pub bytes: u64,
    /// Sum of what the rows add to the digest.
    pub digest: u128,
    /// Tombstones among them.
    pub tombstones: u64,
    /// What was found.
    pub found: Vec<Finding>,
}

/// Looks at the rows behind `after`, until they are `bytes` or a bound of its own.
pub(super) fn slice(connection: &Connection, after: LocalSeq, bytes: u64) -> Result<Scrubbed, Failure> {
    let area = area_in_force(connection)?;
    let statements = &ROW[area];
    let mut statement = connection.prepare_cached(statements.rows_after)?;
    let mut rows = statement.query([codec::position(after)])?;
    let mut seen = Scrubbed::default();
    while let Some(columns) = rows.next()? {
        let seq = columns.get::<_, i64>(0)?.cast_unsigned();
        seen.rows += 1;
        seen.bytes +=
            ROW_COST_BYTES + columns.get_ref(10)?.as_blob_or_null().ok().flatten().map_or(0, <[u8]>::len) as u64;
        let stored = stored(columns);
        let damage = match &stored {
            Some((head, key)) if is_whole(columns, head, key) => {
                seen.digest = seen.digest.wrapping_add(head.digest_term());
                seen.tombstones += u64::from(head.tombstone);
                (!is_indexed(connection, statements, head, key)?).then_some(Damage::Index)
            }
            // What the row says of itself is what SQLite takes out of the indexes when another one replaces it.
            Some((head, key)) => {
                let replaceable = is_indexed(connection, statements, head, key)?
                    && !is_indexed_otherwise(connection, statements, head)?;
                Some(if replaceable { Damage::Row } else { Damage::Index })
            }
            None => Some(match name_of(connection, statements, seq)? {
                Some(key) if is_taken_out_whole(connection, area, seq, &key)? => Damage::Row,
                _ => Damage::Index,
            }),
        };
        if let Some(damage) = damage {
            let key = match stored {
                Some((_, key)) if damage == Damage::Row => Some(key),
                _ => name_of(connection, statements, seq)?,
            };
            seen.found.push(Finding { seq, key, damage });
        }
        seen.last = seq;
        if seen.rows == SLICE_ROWS_MAX || seen.bytes >= bytes || seen.found.len() == FINDINGS_MAX {
            seen.next = Some(seq);
            break;
        }
    }
    Ok(seen)
}

/// The last position, the digest and the number of tombstones, by what the heads say. `None` where one cannot even be read:
/// then there is no sum, and the row is told of by itself.
pub(super) fn sums(connection: &Connection) -> Result<Option<(LocalSeq, u128, u64)>, Failure> {
    let statements = &ROW[area_in_force(connection)?];
    let mut statement = connection.prepare_cached(statements.heads_after)?;
    let mut rows = statement.query([codec::position(0)])?;
    let (mut tail, mut digest, mut tombstones) = (0, 0u128, 0);
    while let Some(columns) = rows.next()? {
        let head = codec::any_head(columns)?;
        if head.damaged {
            return Ok(None);
        }
        tail = head.local_seq;
        digest = digest.wrapping_add(head.digest_term());
        tombstones += u64::from(head.tombstone);
    }
    Ok(Some((tail, digest, tombstones)))
}

/// The row's head and name as they stand there; `None` where a column cannot even be read.
fn stored(columns: &Columns<'_>) -> Option<(Head, RowKey)> {
    let head = codec::head(columns).ok()?;
    let scope = codec::scope_of(columns.get(7).ok()?)?;
    Some((head, RowKey { scope, collection: columns.get(8).ok()?, key: columns.get(9).ok()? }))
}

/// Whether all of it is as it was written.
fn is_whole(columns: &Columns<'_>, head: &Head, key: &RowKey) -> bool {
    columns.get_ref(10).is_ok_and(|value| codec::row(head, key.clone(), value).is_ok())
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

/// Whether an index has the row that must not have it.
fn is_indexed_otherwise(
    connection: &Connection,
    statements: &Statements,
    head: &Head,
) -> Result<bool, rusqlite::Error> {
    let position = codec::position(head.local_seq);
    let dead = connection.prepare_cached(statements.is_tombstone)?.exists([position])?;
    Ok(dead != head.tombstone)
}

/// Whether SQLite, when another row replaces one that cannot be read, takes it out of the indexes that have it: it goes by
/// what the columns say to it.
fn is_taken_out_whole(
    connection: &Connection,
    area: usize,
    seq: LocalSeq,
    key: &RowKey,
) -> Result<bool, rusqlite::Error> {
    let position = codec::position(seq);
    let own = format!(
        "SELECT scope IS ?2 AND collection IS ?3 AND key IS ?4, coalesce(flags & 1, 0) <> 0 FROM row_{area} NOT INDEXED
         WHERE seq = ?1"
    );
    let own =
        connection.query_row(&own, params![position, codec::scope(key.scope), key.collection, key.key], |row| {
            Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?))
        })?;
    let dead = connection.prepare_cached(ROW[area].is_tombstone)?.exists([position])?;
    Ok(own == (true, dead))
}

/// The name under which the key index has a row. That is the row's own, as a rule; else the whole index is read for it.
pub(super) fn name_of(
    connection: &Connection,
    statements: &Statements,
    seq: LocalSeq,
) -> Result<Option<RowKey>, rusqlite::Error> {
    if let Some(own) = name_by(connection, statements.own_name, seq)? {
        let name = params![codec::scope(own.scope), own.collection, own.key];
        let at =
            connection.prepare_cached(statements.position)?.query_row(name, |row| row.get::<_, i64>(0)).optional()?;
        if at == Some(codec::position(seq)) {
            return Ok(Some(own));
        }
    }
    name_by(connection, statements.name, seq)
}

fn name_by(connection: &Connection, statement: &str, seq: LocalSeq) -> Result<Option<RowKey>, rusqlite::Error> {
    let found = connection.prepare_cached(statement)?.query_row([codec::position(seq)], |row| {
        let scope = codec::scope_of(row.get(0)?);
        let (collection, key) = (row.get(1)?, row.get(2)?);
        Ok(scope.map(|scope| RowKey { scope, collection, key }))
    });
    match found {
        // A name that cannot be read is no name.
        Err(
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..),
        ) => Ok(None),
        found => found.optional().map(Option::flatten),
    }
}
