//! Reads of a database that is damaged and lies still, since nothing can take its place: what is whole is given, whatever led to it.
//!
//! A listing goes by the key index, which names what it leads to even where the row is lost; where the index itself is broken, and for
//! the feed, the pages of the file are gone over without SQLite. That costs a look at the whole file for each such page. Nothing is
//! written.

use super::Options;
use super::codec::{self, scope as number_of};
use super::failure::{self, Failure};
use super::query::{self, PAGE_SCAN_MAX, add, range};
use super::salvage::{self, Remains};
use super::sql::ROW;
use super::state::area_in_force;
use crate::document::{CollectionSummary, Document, PAGE_BYTES_MAX, PAGE_DOCUMENTS_MAX, Page, Query, Version};
use crate::error::Error;
use crate::id::LocalSeq;
use crate::limits::FEED_BYTES_TARGET;
use crate::replica::{Feed, FeedPage};
use crate::row::{Body, Missing, Row, RowKey, Scope};
use crate::time::Millis;
use rusqlite::{Connection, params};
use std::borrow::ToOwned;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

/// Collections that are counted; the rest is left out of the list.
const COLLECTIONS_MAX: usize = 4096;

/// A page by the key index. Each row is looked up by itself: one that is not found is named in `damaged`, and its position in
/// `places`.
///
/// # Errors
/// The index is broken where the page begins.
pub(super) fn list(
    connection: &Connection,
    scope: Scope,
    collection: &str,
    query: &Query,
    now: Millis,
    places: &mut Vec<LocalSeq>,
) -> Result<Page, Failure> {
    let area = area_in_force(connection)?;
    let limit = query.limit.clamp(1, PAGE_DOCUMENTS_MAX);
    let (low, high) = range(query);
    let mut names = connection.prepare(if query.reverse { ROW[area].names_down } else { ROW[area].names_up })?;
    let mut names = names.query(params![number_of(scope), collection, low, high])?;
    let (mut page, mut bytes) = (Page::default(), 0);
    for seen in 0.. {
        let name = names.next().and_then(|columns| match columns {
            Some(columns) => Ok(Some((columns.get::<_, i64>(0)?, columns.get::<_, String>(1)?))),
            None => Ok(None),
        });
        let (seq, key) = match name.map_err(Failure::from) {
            Ok(Some(name)) => name,
            Ok(None) => {
                page.next = None;
                return Ok(page);
            }
            // What was found before the damage is given; the next page begins there.
            Err(failure) if page.next.is_some() && failure.is_corruption() => return Ok(page),
            Err(failure) => return Err(failure),
        };
        let last = page.next.replace(key.clone());
        match at(connection, area, seq, RowKey { scope, collection: collection.to_owned(), key: key.clone() }, now)? {
            Looked::Hidden => {}
            Looked::Damaged => {
                page.damaged.push(key);
                places.push(u64::try_from(seq).unwrap_or_default());
            }
            Looked::Shown(document) => {
                if !add(&mut page, &mut bytes, document, limit) {
                    page.next = last;
                    return Ok(page);
                }
            }
        }
        if page.damaged.len() == PAGE_DOCUMENTS_MAX || seen == PAGE_SCAN_MAX {
            return Ok(page);
        }
    }
    Ok(page)
}

/// What a command that takes out everything holds at a time: each page costs a look at the whole file.
const EXPORTED_ROWS: usize = 65_536;
const EXPORTED_BYTES: usize = 32 * 1024 * 1024;

/// What stands at a position that the key index gives.
enum Looked {
    Shown(Document),
    /// Deleted or expired.
    Hidden,
    Damaged,
}

fn at(connection: &Connection, area: usize, seq: i64, key: RowKey, now: Millis) -> Result<Looked, Failure> {
    let read = || -> Result<Looked, Failure> {
        let mut statement = connection.prepare_cached(ROW[area].at)?;
        let mut rows = statement.query([seq])?;
        let Some(columns) = rows.next()? else { return Ok(Looked::Damaged) };
        let head = codec::any_head(columns)?;
        if !codec::is_whole(&head, &key, columns.get_ref(8)?) {
            return Ok(Looked::Damaged);
        }
        let shown = query::document(&head, &key, columns.get_ref(8)?).filter(|_| head.is_visible(now));
        Ok(shown.map_or(Looked::Hidden, Looked::Shown))
    };
    let found = match read() {
        Err(failure) if failure.is_corruption() => Looked::Damaged,
        found => found?,
    };
    if !matches!(found, Looked::Damaged) {
        return Ok(found);
    }
    // An index of their own knows what was deleted: that is no document.
    let dead = connection.prepare_cached(ROW[area].is_tombstone).and_then(|mut dead| dead.exists([seq]));
    Ok(if matches!(dead, Ok(true)) { Looked::Hidden } else { Looked::Damaged })
}

/// The lowest rows by some order, as many as make a page.
struct Lowest<K> {
    kept: BTreeMap<K, (LocalSeq, Row)>,
    bytes: usize,
    rows_max: usize,
    bytes_max: usize,
    /// From here on rows were turned away.
    end: Option<K>,
}

impl<K: Ord> Lowest<K> {
    fn new(rows_max: usize, bytes_max: usize) -> Lowest<K> {
        Lowest { kept: BTreeMap::new(), bytes: 0, rows_max, bytes_max, end: None }
    }
    fn offer(&mut self, at: K, seq: LocalSeq, row: Row) {
        if self.end.as_ref().is_some_and(|end| at >= *end) {
            return;
        }
        let rank = |row: &Row| (row.stamp, row.dot.origin);
        if let Some((_, before)) = self.kept.get(&at) {
            if rank(before) >= rank(&row) {
                return;
            }
            self.bytes -= before.encoded_bytes();
        }
        self.bytes += row.encoded_bytes();
        self.kept.insert(at, (seq, row));
        while self.kept.len() > 1 && (self.kept.len() > self.rows_max || self.bytes > self.bytes_max) {
            let Some((at, (_, row))) = self.kept.pop_last() else { return };
            self.bytes -= row.encoded_bytes();
            self.end = Some(at);
        }
    }
}

/// A document and when it expires.
type Expiring = (Document, Option<Millis>);

/// What was found out about the file once; it does not change any more.
#[derive(Debug, Default)]
pub(super) struct Still(Option<Remains>);

impl Still {
    fn remains(&mut self, options: &Options) -> Result<&Remains, Error> {
        if self.0.is_none() {
            let surveyed = salvage::survey(&*options.disk, &options.path);
            self.0 = Some(surveyed.map_err(|error| failure::file("reading", &options.path, error))?);
        }
        self.0.as_ref().ok_or_else(failure::closed)
    }
    fn each(&mut self, options: &Options, each: impl FnMut(LocalSeq, Row)) -> Result<Missing, Error> {
        let remains = self.remains(options)?;
        salvage::each_row(&*options.disk, &options.path, remains, each)
            .map_err(|error| failure::file("reading", &options.path, error))?;
        Ok(Missing { at_least: remains.missing_at_least, at_most: remains.missing_at_most })
    }

    /// One document; `None` where no whole row of that name is in the file.
    pub(super) fn get(
        &mut self,
        options: &Options,
        key: &RowKey,
        now: Millis,
    ) -> Result<Option<Option<Expiring>>, Error> {
        let mut found = Lowest::new(1, usize::MAX);
        self.each(options, |seq, row| {
            if row.key == *key {
                found.offer((), seq, row);
            }
        })?;
        Ok(found.kept.into_values().next().map(|(_, row)| {
            let expires_at = row.expires_at;
            shown(row, now).map(|document| (document, expires_at))
        }))
    }

    /// Adds to a page by the key index what it calls damaged and what is whole elsewhere in the file, as far as there is room in it:
    /// the tree above it leads astray.
    pub(super) fn complete(
        &mut self,
        options: &Options,
        page: &mut Page,
        places: &[LocalSeq],
        reverse: bool,
        now: Millis,
    ) -> Result<(), Error> {
        let mut bytes: usize = page.documents.iter().map(|document| document.value.len()).sum();
        let mut found = BTreeMap::new();
        let wanted: BTreeMap<LocalSeq, &String> = places.iter().copied().zip(&page.damaged).collect();
        self.each(options, |seq, row| {
            let is_it = wanted.get(&seq).is_some_and(|key| **key == row.key.key);
            let more = bytes + row.encoded_bytes();
            if is_it && more <= PAGE_BYTES_MAX {
                bytes = more;
                found.insert(row.key.key.clone(), shown(row, now));
            }
        })?;
        page.damaged.retain(|key| !found.contains_key(key));
        page.documents.extend(found.into_values().flatten());
        page.documents.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        if reverse {
            page.documents.reverse();
        }
        Ok(())
    }

    /// A page of whole rows.
    pub(super) fn list(
        &mut self,
        options: &Options,
        scope: Scope,
        collection: &str,
        query: &Query,
        now: Millis,
    ) -> Result<Page, Error> {
        let bounds = (query.limit.clamp(1, PAGE_DOCUMENTS_MAX), PAGE_BYTES_MAX);
        let (low, high) = range(query);
        let wanted = |key: &RowKey| {
            key.scope == scope && key.collection == collection && key.key >= low && high.is_above(&key.key)
        };
        match query.reverse {
            false => self.page(options, bounds, wanted, now, |key| key, |key| key),
            true => self.page(options, bounds, wanted, now, Reverse, |Reverse(key)| key),
        }
    }

    /// The same of a whole collection, of either scope, in long pages.
    pub(super) fn export(&mut self, options: &Options, collection: &str, after: &str) -> Result<Page, Error> {
        let wanted = |key: &RowKey| {
            key.scope != Scope::System && key.collection == collection && (after.is_empty() || key.key.as_str() > after)
        };
        // Who takes out what is left does not want to lose what has expired meanwhile.
        self.page(options, (EXPORTED_ROWS, EXPORTED_BYTES), wanted, 0, |key| key, |key| key)
    }

    fn page<K: Ord>(
        &mut self,
        options: &Options,
        (rows_max, bytes_max): (usize, usize),
        wanted: impl Fn(&RowKey) -> bool,
        now: Millis,
        order: impl Fn(String) -> K,
        name: impl Fn(K) -> String,
    ) -> Result<Page, Error> {
        let mut lowest = Lowest::new(rows_max, bytes_max);
        let missing = self.each(options, |seq, row| {
            if wanted(&row.key) {
                lowest.offer(order(row.key.key.clone()), seq, row);
            }
        })?;
        let Lowest { kept, end, .. } = lowest;
        let (mut page, mut last) = (Page { missing: Some(missing), ..Page::default() }, None);
        for (at, (_, row)) in kept {
            page.documents.extend(shown(row, now));
            last = Some(name(at));
        }
        page.next = last.filter(|_| end.is_some());
        Ok(page)
    }

    /// The collections with their whole documents.
    pub(super) fn collections(&mut self, options: &Options, now: Millis) -> Result<Vec<CollectionSummary>, Error> {
        let mut counts = BTreeMap::<String, u64>::new();
        self.each(options, |_, row| {
            let is_document = row.key.scope != Scope::System && !row.is_tombstone() && !row.is_expired(now);
            if is_document && (counts.len() < COLLECTIONS_MAX || counts.contains_key(&row.key.collection)) {
                *counts.entry(row.key.collection).or_default() += 1;
            }
        })?;
        Ok(counts.into_iter().map(|(name, documents)| CollectionSummary { name, documents }).collect())
    }

    /// A page of the feed, of whole rows; `None` where even the node's own record is lost.
    pub(super) fn feed(&mut self, options: &Options, feed: &Feed) -> Result<Option<FeedPage>, Error> {
        let Some(knowledge) = self.remains(options)?.knowledge.clone() else { return Ok(None) };
        let (after, began_at) = match feed.begins(&knowledge) {
            Ok(begins) => begins,
            Err(stale) => return Ok(Some(FeedPage::Stale(stale))),
        };
        let mut lowest = Lowest::new(feed.limit.max(1), FEED_BYTES_TARGET);
        let missing = self.each(options, |seq, row| {
            if seq > after && feed.wants(&row.key) {
                lowest.offer(seq, seq, row);
            }
        })?;
        let more = lowest.end.is_some();
        let rows: Vec<_> =
            lowest.kept.into_values().map(|(seq, row)| (knowledge.bookmark(seq, began_at), row)).collect();
        let next = match rows.last() {
            Some((last, _)) if more => *last,
            _ => knowledge.bookmark(knowledge.tail.max(after), began_at),
        };
        Ok(Some(FeedPage::Rows { rows, next, more, damaged: 0, missing: Some(missing) }))
    }
}

fn shown(row: Row, now: Millis) -> Option<Document> {
    if row.is_expired(now) {
        return None;
    }
    let Row { key, stamp, dot, body, .. } = row;
    let Body::Live(value) = body else { return None };
    Some(Document { key: key.key, version: Version { stamp, origin: dot.origin }, value })
}
