//! The change feed as callers see it: what they ask for, and the changes that they get.

use super::{Missing, Version};
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

/// Where a reader of the feed begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Since {
    /// With nothing: it gets every document that there is, then what changes.
    #[default]
    Start,
    /// With what changes from now on.
    Now,
    /// Behind the change that came with this token, or behind the answer whose [`Changes::next`] it is.
    Token(String),
}

/// What a reader of the feed asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesQuery {
    /// Where it begins.
    pub since: Since,
    /// Changes of this collection alone.
    pub collection: Option<String>,
    /// At most this many changes, 1 to 1000; an answer may hold fewer, since it is bounded in bytes too.
    pub limit: usize,
    /// How long to wait for a first change where there is none yet.
    pub wait: Duration,
}

impl Default for ChangesQuery {
    fn default() -> Self {
        ChangesQuery { since: Since::Start, collection: None, limit: 100, wait: Duration::ZERO }
    }
}

/// One document as it is now. A document that changed several times since comes once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: String,
    /// Its version; of a deleted one, that of the delete.
    pub version: Version,
    /// The JSON, byte for byte as it was written; `None` where it was deleted or has expired.
    pub value: Option<Vec<u8>>,
    /// Goes on behind this change.
    pub token: String,
}

/// Changes in the order in which this node got them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The changes; none where nothing changed while it was waited.
    pub changes: Vec<Change>,
    /// Goes on behind them; to be kept once they were dealt with.
    pub next: String,
    /// More can be had at once.
    pub more: bool,
    /// Changes that are left out since they are damaged on disk; they come once a peer or a write has mended them.
    pub damaged: u64,
    /// The database is damaged in its structure, and this page was put together from what is whole in the file. How many rows are
    /// missing of the whole database.
    pub missing: Option<Missing>,
}
