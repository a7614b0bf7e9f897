//! The change feed: waits for changes and reads them from the stream that peers read.
//!
//! Holds nothing for a reader but the channel that wakes it; where the reader is, its token says.
//!
//! Invariant: no read of the store is open while anybody waits.

use super::shell::Shell;
use super::waiters::Patience;
use crate::document::{Change, Changes, ChangesQuery, PAGE_DOCUMENTS_MAX, Since, Version};
use crate::error::Error;
use crate::replica::{self, Bookmark, Feed, FeedPage, Stale};
use crate::row::Row;
use smol::Timer;
use std::string::ToString;
use std::time::Duration;
use std::vec::Vec;

/// What changes within so long of a first change comes in the same answer: one writer in a hurry does not make every
/// reader ask the store for each of its writes.
const GATHER: Duration = Duration::from_millis(10);

impl Shell {
    /// The next changes, waiting for a first one.
    pub(crate) async fn changes(&self, query: &ChangesQuery) -> Result<Changes, Error> {
        if !(1..=PAGE_DOCUMENTS_MAX).contains(&query.limit) {
            return Err(Error::bad_request(std::format!("limit={}: 1 to {PAGE_DOCUMENTS_MAX}", query.limit)));
        }
        let since = match &query.since {
            Since::Start => replica::Since::Start,
            Since::Now => replica::Since::Now,
            Since::Token(token) => replica::Since::Bookmark(Bookmark::parse(token).ok_or_else(not_a_token)?),
        };
        let mut feed = Feed { since, collection: query.collection.clone(), limit: query.limit };
        let mut patience = Patience::new(query.wait, self.stopping.clone());
        loop {
            let changed = self.readers.next();
            let (rows, next, more, damaged, missing) = match self.store.feed(feed.clone()).await? {
                FeedPage::Rows { rows, next, more, damaged, missing } => (rows, next, more, damaged, missing),
                FeedPage::Stale(stale) => return Err(expired(stale)),
            };
            let changes = self.shown(rows);
            let answer = |changes| Changes { changes, next: next.to_string(), more, damaged, missing };
            // What is left out is told before its place is passed.
            if !changes.is_empty() || damaged > 0 || missing.is_some() {
                return Ok(answer(changes));
            }
            let another = async {
                if more {
                    // Nothing of the wanted collection so far. Others have their turn between two reads.
                    smol::future::yield_now().await;
                } else {
                    let _ = changed.recv().await;
                    Timer::after(GATHER).await;
                }
            };
            if !patience.lasts_until(another).await {
                return Ok(answer(changes));
            }
            feed.since = replica::Since::Bookmark(next);
        }
    }

    /// Rows as documents: of two rows of one name in two scopes, the one that a read would see.
    fn shown(&self, rows: Vec<(Bookmark, Row)>) -> Vec<Change> {
        let now = self.engine.borrow().reading(self.now()).millis;
        let mut changes = Vec::with_capacity(rows.len());
        for (bookmark, row) in rows {
            if row.key.scope != self.scope(&row.key.collection) {
                continue;
            }
            let version = Version { stamp: row.stamp, origin: row.dot.origin };
            let gone = row.is_expired(now);
            let value = match row.body {
                crate::row::Body::Live(value) if !gone => Some(value),
                _ => None,
            };
            let (collection, key) = (row.key.collection, row.key.key);
            changes.push(Change { collection, key, version, value, token: bookmark.to_string() });
        }
        changes
    }
}

fn not_a_token() -> Error {
    Error::bad_request("since is not a token of the change feed: take \"next\" of an answer, \"now\", or leave it out")
}

fn expired(stale: Stale) -> Error {
    let why = match stale {
        Stale::OtherReplica => "the token is of another node, or of this one before its database was taken anew",
        Stale::Ahead => "the token is from the future of this database, which was set back since",
        Stale::Dropped => "the token is too old: a document that was deleted since is forgotten here by now",
    };
    Error::TokenExpired { message: std::format!("{why}; begin again without since, and with nothing of what you hold") }
}
