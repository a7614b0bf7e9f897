//! Rows that were kept aside for a person to decide about, as callers see them.

use super::Version;
use crate::row::{Row, Scope};
use crate::time::Millis;
use std::string::String;
use std::vec::Vec;

/// One row that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredRow {
    /// Its number, by which pages go on.
    pub number: u64,
    /// What it is; `None` where it is damaged on disk and can only be dropped.
    pub content: Option<RecoveredContent>,
}

/// What a waiting row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredContent {
    /// `replicated`, `local` or `system`.
    pub scope: &'static str,
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: String,
    /// The version that it was.
    pub version: Version,
    /// The JSON; `None` of a delete.
    pub value: Option<Vec<u8>>,
    /// When it expires, milliseconds since 1970.
    pub expires_at: Option<Millis>,
}

/// Rows in the order in which they were put aside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveredPage {
    /// The rows.
    pub rows: Vec<RecoveredRow>,
    /// Where the next page goes on; none when this was the last.
    pub next: Option<u64>,
}

/// What is to become of rows that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveredChoice {
    /// Each is written again as new.
    Apply,
    /// They are forgotten.
    Drop,
}

/// Which of the rows that wait.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveredSelection {
    /// Those of one collection.
    pub collection: Option<String>,
    /// Those of these keys; all where there are none.
    pub keys: Vec<String>,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoveredOutcome {
    /// Written again as new.
    pub written: u64,
    /// Rows that wait no longer, the written ones among them.
    pub settled: u64,
    /// Rows that are damaged and could not be written; they still wait.
    pub damaged: u64,
    /// Rows that still wait, whatever they are.
    pub waiting: u64,
}

impl RecoveredRow {
    /// A row as the store gives it.
    pub(crate) fn of(number: u64, row: Option<Row>) -> RecoveredRow {
        let content = row.map(|row| RecoveredContent {
            scope: match row.key.scope {
                Scope::Replicated => "replicated",
                Scope::Local => "local",
                Scope::System => "system",
            },
            version: Version { stamp: row.stamp, origin: row.dot.origin },
            expires_at: row.expires_at,
            value: match row.body {
                crate::row::Body::Live(value) => Some(value),
                crate::row::Body::Tombstone => None,
            },
            collection: row.key.collection,
            key: row.key.key,
        });
        RecoveredRow { number, content }
    }
}
