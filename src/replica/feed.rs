//! The change feed: this node's stream as its programs read it, and when a place in it cannot be resumed.
//!
//! Local documents are in it, the site's records about members are not. Current values only: an overwritten row has
//! moved to the tail, as for peers. Nothing durable is kept for a reader; all that there is of it is its bookmark.

use super::knowledge::Knowledge;
use super::table::{Area, Table, Want};
use crate::id::{LocalSeq, ReplicaId};
use crate::limits::{BATCH_SCAN_MAX, FEED_BYTES_TARGET, FEED_SCAN_BYTES_MAX, START_TOKENS_MAX};
use crate::row::{Missing, Row, RowKey, Scope};
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

/// A place in the stream of one replica. Printed as a token that callers keep and do not look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bookmark {
    /// Whose stream.
    pub replica: ReplicaId,
    /// The start of the process that gave it, so that a stream which was rolled back since is noticed.
    pub start: u64,
    /// Everything up to here was given.
    pub after: LocalSeq,
    /// The tail when the reader began with nothing: what was deleted before that it never saw.
    pub began_at: LocalSeq,
}

/// Why a bookmark cannot be resumed: the reader must begin again, with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Stale {
    /// It is of another node, or of this one before a restore, a bootstrap or a fork.
    OtherReplica,
    /// It is from the future: the database is older than the bookmark.
    Ahead,
    /// A tombstone beyond it was dropped: the reader might never hear of that delete.
    Dropped,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// With nothing: it gets every document.
    Start,
    /// With what comes from now on.
    Now,
    /// Where it was.
    Bookmark(Bookmark),
}

/// What a reader asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Where it begins.
    pub since: Since,
    /// Rows of this collection alone.
    pub collection: Option<String>,
    /// At most so many rows.
    pub limit: usize,
}

/// The next rows of the feed, read in one snapshot.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedPage {
    /// Rows.
    Rows {
        /// Oldest position first, each with where the reader is after it.
        rows: Vec<(Bookmark, Row)>,
        /// Where it is after all that was looked at.
        next: Bookmark,
        /// More stands beyond.
        more: bool,
        /// Rows among them that are left out since they are damaged; of another collection where their names are lost.
        damaged: u64,
        /// The rows were put together from what is left of a damaged database: what is missing of all of it.
        missing: Option<Missing>,
    },
    /// The reader must begin again.
    Stale(Stale),
}

impl Bookmark {
    /// Reads what [`Bookmark`] prints.
    pub fn parse(text: &str) -> Option<Bookmark> {
        // No sign, no white space, no second way to write a number.
        let plain = |text: &str| text.len() <= 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let bits = |text: Option<&str>| text.filter(|text| plain(text)).and_then(|t| u64::from_str_radix(t, 16).ok());
        let mut parts = text.split('.');
        let (replica, start) = (bits(parts.next())?, bits(parts.next())?);
        let (after, began_at) = (bits(parts.next())?, bits(parts.next())?);
        let replica = ReplicaId::from_bits(replica);
        parts.next().is_none().then_some(Bookmark { replica, start, after, began_at })
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}.{:x}.{:x}", self.replica, self.start, self.after, self.began_at)
    }
}

impl Knowledge {
    /// A bookmark at a position of this stream.
    pub fn bookmark(&self, after: LocalSeq, began_at: LocalSeq) -> Bookmark {
        let start = self.tokens.last().map_or(0, |start| start.token);
        Bookmark { replica: self.replica, start, after, began_at }
    }

    /// Whether a reader misses nothing that goes on from there.
    ///
    /// # Errors
    /// Why it would.
    pub fn resumes(&self, bookmark: &Bookmark) -> Result<(), Stale> {
        if bookmark.replica != self.replica {
            return Err(Stale::OtherReplica);
        }
        let place = self.tokens.iter().position(|start| start.token == bookmark.start);
        let end = match place.map(|at| self.tokens.get(at + 1)) {
            // Given by this process.
            Some(None) => self.tail,
            // The start that followed must not stand behind what was given in the one before.
            Some(Some(next)) => next.tail,
            // Its start has fallen off the end of a full list.
            None if self.tokens.len() == START_TOKENS_MAX => self.tokens[0].tail,
            None => return Err(Stale::Ahead),
        };
        if bookmark.after > end || bookmark.began_at > end {
            return Err(Stale::Ahead);
        }
        if self.dropped_upto > bookmark.after.max(bookmark.began_at) { Err(Stale::Dropped) } else { Ok(()) }
    }
}

impl Feed {
    /// Reads the next page. [`FEED_BYTES_TARGET`], [`FEED_SCAN_BYTES_MAX`] and [`BATCH_SCAN_MAX`] bound one call.
    ///
    /// # Errors
    /// The store's.
    pub fn next<T: Table>(&self, table: &mut T) -> Result<FeedPage, T::Error> {
        let knowledge = table.knowledge()?;
        let (after, began_at) = match self.begins(&knowledge) {
            Ok(begins) => begins,
            Err(stale) => return Ok(FeedPage::Stale(stale)),
        };
        let (mut rows, mut seen, mut upto, mut more, mut damaged) = (Vec::new(), 0, after, false, 0);
        // Rows and bytes that the reader gets, and bytes that were read for it.
        let (found, given, read) = (Cell::new(0), Cell::new(0), Cell::new(0));
        table.stream(
            Area::Rows,
            after,
            &mut |head| {
                let full = found.get() >= self.limit || given.get() >= FEED_BYTES_TARGET;
                if full || seen == BATCH_SCAN_MAX || read.get() >= FEED_SCAN_BYTES_MAX {
                    more = true;
                    return Want::Stop;
                }
                seen += 1;
                upto = head.local_seq;
                Want::Take
            },
            // A damaged row comes at the tail once it is mended.
            &mut |at, row| {
                let row = match row {
                    Ok(row) => row,
                    Err(row) => return damaged += u64::from(row.key.is_none_or(|key| self.wants(&key))),
                };
                let bytes = row.encoded_bytes();
                read.set(read.get() + bytes);
                if self.wants(&row.key) {
                    found.set(found.get() + 1);
                    given.set(given.get() + bytes);
                    rows.push((knowledge.bookmark(at, began_at), row));
                }
            },
        )?;
        let upto = if more { upto } else { knowledge.tail.max(upto) };
        Ok(FeedPage::Rows { rows, next: knowledge.bookmark(upto, began_at), more, damaged, missing: None })
    }

    /// Behind which position it begins, and what the tail was when the reader began with nothing.
    ///
    /// # Errors
    /// It must begin again.
    pub fn begins(&self, knowledge: &Knowledge) -> Result<(LocalSeq, LocalSeq), Stale> {
        match self.since {
            Since::Start => Ok((0, knowledge.tail)),
            Since::Now => Ok((knowledge.tail, knowledge.tail)),
            Since::Bookmark(bookmark) => knowledge.resumes(&bookmark).map(|()| (bookmark.after, bookmark.began_at)),
        }
    }

    /// Whether rows of this name are in it.
    pub fn wants(&self, key: &RowKey) -> bool {
        key.scope != Scope::System && self.collection.as_ref().is_none_or(|wanted| *wanted == key.collection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::StartToken;

    /// Started three times, at tails 0, 10 and 20; now at 30.
    fn known() -> Knowledge {
        let tokens = [(7, 0), (8, 10), (9, 20)].map(|(token, tail)| StartToken { token, seq: 0, tail });
        Knowledge { tail: 30, tokens: tokens.to_vec(), ..Knowledge::new(1) }
    }

    #[test]
    fn a_bookmark_reads_as_it_prints_and_nothing_else_does() {
        let bookmark = known().bookmark(300, 12);
        assert_eq!(Bookmark::parse(&std::format!("{bookmark}")), Some(bookmark));
        for wrong in
            ["", "1", "1.2.3", "1.2.3.4.5", "1.2.3.", "1.2.3.+4", "1.2.3. 4", "1.2.3.g", "1.2.3.0123456789abcdef0"]
        {
            assert_eq!(Bookmark::parse(wrong), None, "{wrong}");
        }
        assert!(Bookmark::parse("1.2.3.F").is_none());
    }

    #[test]
    fn a_bookmark_resumes_in_the_history_that_gave_it_only() {
        let known = known();
        let of = |start, after| known.resumes(&Bookmark { start, ..known.bookmark(after, 0) });
        for (start, after) in [(9, 30), (9, 20), (8, 20), (7, 0), (7, 10)] {
            assert_eq!(of(start, after), Ok(()), "{start} {after}");
        }
        // Positions that the start never reached, or a start that never was: the database is older than the bookmark.
        for (start, after) in [(9, 31), (8, 21), (7, 11), (6, 0), (6, 30)] {
            assert_eq!(of(start, after), Err(Stale::Ahead), "{start} {after}");
        }
        assert_eq!(known.resumes(&known.bookmark(5, 31)), Err(Stale::Ahead));
        let other = Knowledge { replica: ReplicaId::from_bits(5), ..known.clone() };
        assert_eq!(other.resumes(&known.bookmark(5, 0)), Err(Stale::OtherReplica));
        // A start that has fallen off a full list is believed as far as the oldest one that is left.
        let tokens = (1..=START_TOKENS_MAX as u64).map(|n| StartToken { token: 100 + n, seq: 0, tail: n });
        let full = Knowledge { tokens: tokens.collect(), ..known.clone() };
        assert_eq!(full.resumes(&Bookmark { start: 9, ..full.bookmark(1, 0) }), Ok(()));
        assert_eq!(full.resumes(&Bookmark { start: 9, ..full.bookmark(2, 0) }), Err(Stale::Ahead));
    }

    #[test]
    fn a_tombstone_that_was_dropped_ends_the_bookmarks_before_it() {
        let known = Knowledge { dropped_upto: 15, ..known() };
        assert_eq!(known.resumes(&known.bookmark(14, 0)), Err(Stale::Dropped));
        assert_eq!(known.resumes(&known.bookmark(15, 0)), Ok(()));
        // Who began with nothing after that delete cannot have seen what it deleted.
        assert_eq!(known.resumes(&known.bookmark(3, 20)), Ok(()));
    }
}
