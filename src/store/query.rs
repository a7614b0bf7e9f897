//! What callers ask of the documents: by key, by page, by count. Within one read transaction.
//!
//! Checks every row that it gives out; judges by the caller's clock what has expired.

use super::codec::{self, moment, scope};
use super::failure::Failure;
use super::scrub::{self, Damage, Finding};
use super::space::file_bytes;
use super::sql::ROW;
use super::state::area_in_force;
use super::{Options, Sizes, Statistics, aside, open};
use crate::document::{CollectionSummary, Document, PAGE_BYTES_MAX, PAGE_DOCUMENTS_MAX, Page, Query, Version};
use crate::id::LocalSeq;
use crate::row::{Body, Head, Row, RowKey, Scope};
use crate::time::Millis;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ToSql, params};
use std::borrow::ToOwned;
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

/// Rows that one page looks at: a long run of tombstones must not hold the reading thread. A page that is cut by this
/// may hold fewer documents than asked for, or none, and still has a `next`.
pub(super) const PAGE_SCAN_MAX: usize = 8192;

pub(super) fn get(
    connection: &Connection,
    key: &RowKey,
    now: Millis,
    met: &mut Vec<Finding>,
) -> Result<Option<(Document, Option<Millis>)>, Failure> {
    let area = area_in_force(connection)?;
    match find(connection, area, key, now)? {
        Looked::Nothing => match scrub::leads_astray(connection, &ROW[area], key)? {
            None => Ok(None),
            Some(seq) => {
                met.push(Finding { seq, key: None, damage: Damage::Index });
                Err(super::failure::index_astray().into())
            }
        },
        Looked::Found(document, expires_at) => Ok(Some((document, expires_at))),
        Looked::Damaged(seq) => {
            met.push(Finding { seq, key: Some(key.clone()), damage: Damage::Row });
            Err(super::failure::damaged_row(key).into())
        }
    }
}

/// Those of `keys` that exist, in byte order; `next` where the bound on bytes cut it.
pub(super) fn get_many(
    connection: &Connection,
    scope: Scope,
    collection: &str,
    mut keys: Vec<String>,
    now: Millis,
    met: &mut Vec<Finding>,
) -> Result<Page, Failure> {
    let area = area_in_force(connection)?;
    keys.sort_unstable();
    keys.dedup();
    let (mut page, mut bytes) = (Page::default(), 0);
    for key in keys {
        let key = RowKey { scope, collection: collection.to_owned(), key };
        let document = match find(connection, area, &key, now)? {
            Looked::Nothing => continue,
            Looked::Found(document, _) => document,
            Looked::Damaged(seq) => {
                page.damaged.push(key.key.clone());
                met.push(Finding { seq, key: Some(key), damage: Damage::Row });
                continue;
            }
        };
        if !add(&mut page, &mut bytes, document, PAGE_DOCUMENTS_MAX) {
            break;
        }
    }
    Ok(page)
}

pub(super) fn list(
    connection: &Connection,
    scope: Scope,
    collection: &str,
    query: &Query,
    now: Millis,
    met: &mut Vec<Finding>,
) -> Result<Page, Failure> {
    let statements = &ROW[area_in_force(connection)?];
    let limit = query.limit.clamp(1, PAGE_DOCUMENTS_MAX);
    let (low, high) = range(query);
    let statement = if query.reverse { statements.list_down } else { statements.list_up };
    let mut statement = connection.prepare_cached(statement)?;
    let mut rows = statement.query(params![codec::scope(scope), collection, low, high])?;
    let (mut page, mut bytes, mut seen) = (Page::default(), 0, 0);
    while let Some(columns) = rows.next()? {
        let head = codec::any_head(columns)?;
        seen += 1;
        let key = RowKey { scope, collection: collection.to_owned(), key: columns.get(8)? };
        // What cannot be read may be a document: it is named, and the others are listed. What hides a row is believed of a whole
        // one only.
        if head.is_visible(now) || !codec::is_whole(&head, &key, columns.get_ref(9)?) {
            match document(&head, &key, columns.get_ref(9)?) {
                Some(document) => {
                    if !add(&mut page, &mut bytes, document, limit) {
                        // A damaged one behind the last document was named already.
                        let named = page
                            .damaged
                            .last()
                            .filter(|named| page.next.as_ref().is_some_and(|next| (*named > next) != query.reverse));
                        page.next = named.cloned().or(page.next);
                        return Ok(page);
                    }
                }
                None => {
                    page.damaged.push(key.key.clone());
                    met.push(Finding { seq: head.local_seq, key: Some(key), damage: Damage::Row });
                    if page.damaged.len() == PAGE_DOCUMENTS_MAX {
                        page.next = Some(columns.get(8)?);
                        return Ok(page);
                    }
                }
            }
        }
        if seen == PAGE_SCAN_MAX {
            page.next = Some(columns.get(8)?);
            return Ok(page);
        }
    }
    Ok(page)
}

/// The first key that a query may give, and where it ends.
pub(super) fn range(query: &Query) -> (String, Bound) {
    let mut low = query.prefix.clone();
    let mut high = after_prefix(&query.prefix).map_or(Bound::Top, Bound::Below);
    match &query.after {
        Some(after) if query.reverse && high.is_above(after) => high = Bound::Below(after.clone()),
        // The first string behind `after` in byte order.
        Some(after) if !query.reverse && *after >= low => low = std::format!("{after}\0"),
        _ => {}
    }
    (low, high)
}

/// Replicated and local collections with their live documents. Two of one name count as one.
///
/// Counts the entries of the key index and takes away what the partial indexes say is dead: no write ever pays for it.
pub(super) fn collections(connection: &Connection, now: Millis) -> Result<Vec<CollectionSummary>, Failure> {
    let statements = &ROW[area_in_force(connection)?];
    let mut counts = BTreeMap::<String, i64>::new();
    for of in [Scope::Replicated, Scope::Local] {
        let mut add = |statement: &str, parameters: &[&dyn ToSql], sign: i64| -> Result<(), Failure> {
            let mut statement = connection.prepare_cached(statement)?;
            let mut rows = statement.query(parameters)?;
            while let Some(row) = rows.next()? {
                *counts.entry(row.get(0)?).or_default() += sign * row.get::<_, i64>(1)?;
            }
            Ok(())
        };
        add(statements.counts, &[&scope(of)], 1)?;
        add(statements.dead_counts, &[&scope(of)], -1)?;
        add(statements.past_counts, &[&scope(of), &moment(now)], -1)?;
    }
    let live = counts.into_iter().filter(|(_, count)| *count > 0);
    Ok(live.map(|(name, count)| CollectionSummary { name, documents: count.unsigned_abs() }).collect())
}

/// Asks the file system alone, and a row of the database, so that a database that does not answer is noticed.
pub(super) fn sizes(connection: &Connection, options: &Options) -> Result<Sizes, Failure> {
    area_in_force(connection)?;
    let (disk, path) = (&*options.disk, &options.path);
    let log_bytes = file_bytes(disk, &open::beside(path, "-wal"));
    let free_bytes = disk.free_bytes(path).unwrap_or(0);
    let pragma = |name: &str| connection.query_row(&std::format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    // As the writing thread reckons: free pages are of use only where the log has the room that it may take.
    let reusable_bytes = match free_bytes >= options.log_bytes.saturating_sub(log_bytes) {
        true => (pragma("freelist_count")? * pragma("page_size")?).unsigned_abs(),
        false => 0,
    };
    let (set_aside, set_aside_bytes) = aside::kept(disk, path);
    let (database_bytes, set_aside) = (file_bytes(disk, path), set_aside.len() as u64);
    Ok(Sizes { database_bytes, log_bytes, free_bytes, reusable_bytes, set_aside, set_aside_bytes })
}

pub(super) fn statistics(connection: &Connection) -> Result<Statistics, Failure> {
    let statements = &ROW[area_in_force(connection)?];
    let count = |statement: &str| connection.prepare_cached(statement)?.query_row([], |row| row.get::<_, i64>(0));
    let tombstones = count(statements.count_dead)?.unsigned_abs();
    let rows = count(statements.count)?.unsigned_abs();
    let system = count(statements.count_system)?.unsigned_abs();
    Ok(Statistics { documents: rows.saturating_sub(tombstones).saturating_sub(system), tombstones })
}

/// What stands at a key.
enum Looked {
    Nothing,
    Found(Document, Option<Millis>),
    Damaged(LocalSeq),
}

fn find(connection: &Connection, area: usize, key: &RowKey, now: Millis) -> Result<Looked, Failure> {
    let mut statement = connection.prepare_cached(ROW[area].get)?;
    let mut rows = statement.query(params![scope(key.scope), key.collection, key.key])?;
    let Some(columns) = rows.next()? else { return Ok(Looked::Nothing) };
    let head = codec::any_head(columns)?;
    // A flag or an expiry may be what is damaged: what hides a row is believed of a whole one only.
    if !codec::is_whole(&head, key, columns.get_ref(8)?) {
        return Ok(Looked::Damaged(head.local_seq));
    }
    Ok(match document(&head, key, columns.get_ref(8)?) {
        Some(document) if head.is_visible(now) => Looked::Found(document, head.expires_at),
        _ => Looked::Nothing,
    })
}

/// None where the row is no document or not what was written.
pub(super) fn document(head: &Head, key: &RowKey, value: ValueRef<'_>) -> Option<Document> {
    let Row { key, stamp, dot, body, .. } = codec::row(head, key.clone(), value).ok()?;
    let Body::Live(value) = body else { return None };
    Some(Document { key: key.key, version: Version { stamp, origin: dot.origin }, value })
}

/// Adds a document unless the page is full; a full page gets its `next`. Says whether it was added.
pub(super) fn add(page: &mut Page, bytes: &mut usize, document: Document, limit: usize) -> bool {
    let more = bytes.saturating_add(document.value.len());
    if let Some(last) = page.documents.last()
        && (page.documents.len() >= limit || more > PAGE_BYTES_MAX)
    {
        page.next = Some(last.key.clone());
        return false;
    }
    *bytes = more;
    page.documents.push(document);
    true
}

/// The first string behind all that start with `prefix`; none where there is no such string.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        // UTF-8 sorts like code points; the gap of the surrogates is no character.
        let next = if last == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

/// Where a listing ends. SQLite sorts every blob behind every text.
pub(super) enum Bound {
    Below(String),
    Top,
}

impl Bound {
    pub(super) fn is_above(&self, key: &str) -> bool {
        match self {
            Bound::Below(bound) => bound.as_str() > key,
            Bound::Top => true,
        }
    }
}

impl ToSql for Bound {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Bound::Below(key) => ToSqlOutput::Borrowed(ValueRef::Text(key.as_bytes())),
            Bound::Top => ToSqlOutput::Owned(Value::Blob(Vec::new())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::after_prefix;

    #[test]
    fn the_end_of_a_prefix_is_the_next_string_that_does_not_have_it() {
        assert_eq!(after_prefix("ab").as_deref(), Some("ac"));
        assert_eq!(after_prefix("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{D7FF}").as_deref(), Some("\u{E000}"));
        assert_eq!(after_prefix("\u{10FFFF}"), None);
        assert_eq!(after_prefix(""), None);
    }
}
