//! How values of the node stand in columns: integers as their bits, records as postcard with a checksum.

use super::failure::damaged;
use crate::error::Error;
use crate::id::{Dot, LocalSeq, ReplicaId};
use crate::row::{Body, Head, Row, RowKey, Scope};
use crate::time::{Millis, Stamp};
use blake2::digest::{Update, VariableOutput};
use rusqlite::types::ValueRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::vec::Vec;

/// Bit 0 of `flags`: deleted or expired.
pub(super) const TOMBSTONE: i64 = 1;
const CHECKSUM_BYTES: usize = 8;

/// SQLite has no unsigned integers: 64 bits are stored as they are.
pub(super) fn bits(value: u64) -> i64 {
    value.cast_signed()
}
/// A position to compare with: positions themselves never reach the sign bit, what a peer asks for may.
pub(super) fn position(value: LocalSeq) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
/// A time to compare with.
pub(super) fn moment(value: Millis) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
pub(super) fn scope(value: Scope) -> i64 {
    value as i64
}

/// The head in the first seven columns of a row: seq, stamp, origin, dot, flags, expires_at, hash, then scope.
pub(super) fn head(columns: &rusqlite::Row<'_>) -> Result<Head, rusqlite::Error> {
    Ok(Head {
        local_seq: columns.get::<_, i64>(0)?.cast_unsigned(),
        stamp: Stamp::from_bits(columns.get::<_, i64>(1)?.cast_unsigned()),
        dot: Dot {
            origin: ReplicaId::from_bits(columns.get::<_, i64>(2)?.cast_unsigned()),
            seq: columns.get::<_, i64>(3)?.cast_unsigned(),
        },
        tombstone: columns.get::<_, i64>(4)? & TOMBSTONE != 0,
        expires_at: columns.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned),
        hash: u128::from_le_bytes(columns.get(6)?),
        local: columns.get::<_, i64>(7)? == Scope::Local as i64,
        damaged: false,
    })
}

/// The head, or where a column cannot even be read one that says so: covered by nobody, older than everything.
pub(super) fn any_head(columns: &rusqlite::Row<'_>) -> Result<Head, rusqlite::Error> {
    match head(columns) {
        Err(error) if is_unreadable(&error) => Ok(Head {
            local_seq: columns.get::<_, i64>(0)?.cast_unsigned(),
            stamp: Stamp::ZERO,
            dot: Dot { origin: ReplicaId::NONE, seq: u64::MAX },
            tombstone: false,
            expires_at: None,
            hash: 0,
            local: false,
            damaged: true,
        }),
        head => head,
    }
}

/// A column holds what was never written there: damage like any other.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    matches!(error, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..))
}

/// Whether a head and a value are what was written at this key.
pub(super) fn is_whole(head: &Head, key: &RowKey, value: ValueRef<'_>) -> bool {
    let value = match (head.tombstone, value) {
        (false, ValueRef::Blob(value)) => Some(value),
        (true, ValueRef::Null) => None,
        _ => return false,
    };
    !head.damaged && crate::row::hash_of(key, head.stamp, head.dot, value, head.expires_at) == head.hash
}

/// The row of a head, its key and its value column; an error where the checksum says otherwise.
pub(super) fn row(head: &Head, key: RowKey, value: ValueRef<'_>) -> Result<Row, Error> {
    let body = match (head.tombstone, value) {
        (false, ValueRef::Blob(value)) => Body::Live(value.to_vec()),
        (true, ValueRef::Null) => Body::Tombstone,
        _ => return Err(super::failure::damaged_row(&key)),
    };
    let row = Row { key, stamp: head.stamp, dot: head.dot, body, expires_at: head.expires_at };
    if row.hash() == head.hash { Ok(row) } else { Err(super::failure::damaged_row(&row.key)) }
}

/// The row of eleven columns: a head, its scope among it, then collection, key and value. None where the checksum says
/// otherwise, or a column cannot even be read.
pub(super) fn whole_row(columns: &rusqlite::Row<'_>) -> Option<Row> {
    let head = head(columns).ok()?;
    let scope = scope_of(columns.get(7).ok()?)?;
    let key = RowKey { scope, collection: columns.get(8).ok()?, key: columns.get(9).ok()? };
    row(&head, key, columns.get_ref(10).ok()?).ok()
}

/// The name in the first three columns; none where it cannot be read.
pub(super) fn named(columns: &rusqlite::Row<'_>) -> Option<RowKey> {
    let scope = scope_of(columns.get(0).ok()?)?;
    Some(RowKey { scope, collection: columns.get(1).ok()?, key: columns.get(2).ok()? })
}

pub(super) fn scope_of(column: i64) -> Option<Scope> {
    [Scope::Replicated, Scope::Local, Scope::System].into_iter().find(|scope| *scope as i64 == column)
}

/// A record: postcard, then eight bytes of BLAKE2s over it. Rows have their own checksum; this is theirs.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = postcard::to_allocvec(record)
        .map_err(|error| Error::persistence("a record could not be encoded; report this", Some(error.into())))?;
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}
pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    let (bytes, stored) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged(what))?;
    if checksum(bytes) != *stored {
        return Err(damaged(what));
    }
    match postcard::take_from_bytes(bytes) {
        Ok((record, [])) => Ok(record),
        _ => Err(damaged(what)),
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake2::Blake2sVar::new(CHECKSUM_BYTES).expect("8 is a valid output size of BLAKE2s");
    hasher.update(bytes);
    let mut out = [0; CHECKSUM_BYTES];
    hasher.finalize_variable(&mut out).expect("the buffer has the size that the hasher was made for");
    out
}
