//! Records of SQLite as they lie in the leaves of a tree: cells, their columns, and which of ours they can be.
//!
//! Whether one is whole is said by our own checksums, so a page that was misread gives nothing.

use super::pages::{PAGE, Pages, number};
use crate::id::{DeviceId, Dot, LocalSeq, ReplicaId};
use crate::replica::{Knowledge, MemberState};
use crate::row::{Body, Row, RowKey};
use crate::store::codec;
use crate::time::Stamp;
use std::string::String;
use std::vec::Vec;

/// The largest payload that can be ours: a row of the longest key and value, with its columns.
const PAYLOAD_MAX: usize = crate::limits::ROW_BYTES_MAX + 1024;
/// Payload bytes within a leaf page of a table, at most and at least (SQLite's file format, section 1.6).
const TABLE_LOCAL_MAX: usize = PAGE - 35;
const INDEX_LOCAL_MAX: usize = (PAGE - 12) * 64 / 255 - 23;
const LOCAL_MIN: usize = (PAGE - 12) * 32 / 255 - 23;

/// What a cell turned out to be.
pub(super) enum Content {
    /// A row of one of the two tables of rows, and where it stands in the stream.
    Row(LocalSeq, Row),
    /// A row that was kept aside; with whether somebody has decided about it.
    Aside(Row, bool),
    /// What the node knew of itself, and which table of rows was in force.
    Knowledge(Knowledge, usize),
    /// What was known of a member.
    Member(DeviceId, MemberState),
    /// A table or an index of the schema, with the root of its tree.
    Schema(String, u32),
    /// It looks like a row and is damaged.
    Damaged,
    /// Nothing of ours.
    Nothing,
}

/// The cells of a leaf page: of a table (type 13) or of an index, as tables without a rowid are (type 10).
pub(super) fn cells(pages: &Pages<'_>, at: u32, page: &[u8], mut each: impl FnMut(Content)) {
    let header = if at == 1 { 100 } else { 0 };
    let kind = page.get(header).copied().unwrap_or(0);
    let count = usize::from(u16::from_be_bytes([page[header + 3], page[header + 4]]));
    for nth in 0..count.min(PAGE / 4) {
        let Some(pointer) = page.get(header + 8 + nth * 2..header + 10 + nth * 2) else { return };
        let start = usize::from(u16::from_be_bytes([pointer[0], pointer[1]]));
        if start > header {
            each(cell(pages, page, start, kind).unwrap_or(Content::Nothing));
        }
    }
}

fn cell(pages: &Pages<'_>, page: &[u8], start: usize, kind: u8) -> Option<Content> {
    let mut rest = page.get(start..)?;
    let bytes = usize::try_from(varint(&mut rest)?).ok().filter(|bytes| *bytes <= PAYLOAD_MAX)?;
    let position = if kind == 13 { varint(&mut rest)? } else { 0 };
    let local = local_bytes(bytes, kind);
    let next = if local < bytes { number(rest, local) } else { 0 };
    let payload = pages.payload(rest.get(..local)?, bytes, next);
    let Some(payload) = payload else { return Some(Content::Damaged) };
    Some(content(position, &columns(&payload)?))
}

/// How much of a payload stands in the page itself.
pub(super) fn local_bytes(bytes: usize, kind: u8) -> usize {
    let most = if kind == 13 { TABLE_LOCAL_MAX } else { INDEX_LOCAL_MAX };
    if bytes <= most {
        return bytes;
    }
    let some = LOCAL_MIN + (bytes - LOCAL_MIN) % (PAGE - 4);
    if some <= most { some } else { LOCAL_MIN }
}

/// A value of a column.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Null,
    Integer(i64),
    Blob(&'a [u8]),
    Text(&'a [u8]),
    Other,
}

fn columns(payload: &[u8]) -> Option<Vec<Value<'_>>> {
    let mut header = payload;
    let bytes = usize::try_from(varint(&mut header)?).ok()?;
    let taken = payload.len() - header.len();
    let mut types = payload.get(taken..bytes)?;
    let mut body = payload.get(bytes..)?;
    let mut values = Vec::new();
    while !types.is_empty() && values.len() < 16 {
        let serial = varint(&mut types)?;
        let (length, value): (usize, fn(&[u8]) -> Value<'_>) = match serial {
            0 => (0, |_| Value::Null),
            1..=6 => ([1, 2, 3, 4, 6, 8][serial as usize - 1], |bytes| Value::Integer(integer(bytes))),
            8 => (0, |_| Value::Integer(0)),
            9 => (0, |_| Value::Integer(1)),
            7 => (8, |_| Value::Other),
            10 | 11 => return None,
            even if even % 2 == 0 => (usize::try_from((even - 12) / 2).ok()?, |bytes| Value::Blob(bytes)),
            odd => (usize::try_from((odd - 13) / 2).ok()?, |bytes| Value::Text(bytes)),
        };
        let (piece, rest) = body.split_at_checked(length)?;
        values.push(value(piece));
        body = rest;
    }
    Some(values)
}

fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    bytes.iter().fold(if negative { -1 } else { 0 }, |value, byte| value << 8 | i64::from(*byte))
}

/// A number of one to nine bytes.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for nth in 0..9 {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        if nth == 8 {
            return Some(value << 8 | u64::from(*first));
        }
        value = value << 7 | u64::from(first & 0x7f);
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn content(position: LocalSeq, columns: &[Value<'_>]) -> Content {
    match columns {
        // A row stands behind its position, one that was kept aside behind its number; both are the rowid, stored as NULL.
        [Value::Null, row @ ..] if row.len() == 10 => {
            row_of(row).map_or(Content::Damaged, |row| Content::Row(position, row))
        }
        [Value::Null, row @ .., Value::Integer(settled)] if row.len() == 10 => {
            row_of(row).map_or(Content::Nothing, |row| Content::Aside(row, *settled != 0))
        }
        [Value::Null, Value::Integer(area), Value::Integer(_), Value::Blob(state)] => {
            match codec::decode("the node's own record", state) {
                Ok(knowledge) => Content::Knowledge(knowledge, usize::from(*area == 1)),
                Err(_) => Content::Nothing,
            }
        }
        [Value::Blob(device), Value::Blob(state)] => {
            let device = <[u8; 32]>::try_from(*device);
            match (device, codec::decode("a member's record", state)) {
                (Ok(device), Ok(member)) => Content::Member(DeviceId(device), member),
                _ => Content::Nothing,
            }
        }
        [Value::Text(_), Value::Text(name), Value::Text(_), Value::Integer(root), Value::Text(_)] => {
            let root = u32::try_from(*root).unwrap_or(0);
            Content::Schema(String::from_utf8_lossy(name).into_owned(), root)
        }
        _ => Content::Nothing,
    }
}

/// stamp, origin, dot, flags, expires_at, hash, scope, collection, key, value.
fn row_of(columns: &[Value<'_>]) -> Option<Row> {
    let integer = |at: usize| match columns.get(at) {
        Some(Value::Integer(value)) => Some(value.cast_unsigned()),
        _ => None,
    };
    let text = |at: usize| match columns.get(at) {
        Some(Value::Text(text)) => String::from_utf8(text.to_vec()).ok(),
        _ => None,
    };
    let expires_at = match columns.get(4)? {
        Value::Null => None,
        Value::Integer(at) => Some(at.cast_unsigned()),
        _ => return None,
    };
    let Value::Blob(hash) = columns.get(5)? else { return None };
    let body = match (integer(3)? & codec::TOMBSTONE.cast_unsigned() != 0, columns.get(9)?) {
        (false, Value::Blob(value)) => Body::Live(value.to_vec()),
        (true, Value::Null) => Body::Tombstone,
        _ => return None,
    };
    let scope = codec::scope_of(integer(6)?.cast_signed())?;
    let row = Row {
        key: RowKey { scope, collection: text(7)?, key: text(8)? },
        stamp: Stamp::from_bits(integer(0)?),
        dot: Dot { origin: ReplicaId::from_bits(integer(1)?), seq: integer(2)? },
        body,
        expires_at,
    };
    (row.hash().to_le_bytes() == **hash).then_some(row)
}
