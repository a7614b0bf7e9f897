//! Documents as callers see them: what is asked of a node, and what it answers.

mod changes;
pub mod json;
mod recovered;

pub use changes::{Change, Changes, ChangesQuery, Since};
pub use recovered::{
    RecoveredChoice, RecoveredContent, RecoveredOutcome, RecoveredPage, RecoveredRow, RecoveredSelection,
};

use crate::error::Error;
use crate::id::{ReplicaId, Seq};
pub use crate::row::Missing;
use crate::time::{Millis, Stamp};
use serde::de::DeserializeOwned;
use std::fmt;
use std::format;
use std::string::String;
use std::vec::Vec;

/// A document's version: its stamp and the replica that wrote it. Opaque to callers; `ETag` in HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// When.
    pub stamp: Stamp,
    /// By whom.
    pub origin: ReplicaId,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.stamp.to_bits(), self.origin)
    }
}

impl Version {
    /// Reads what [`Version`] prints.
    pub fn parse(text: &str) -> Option<Version> {
        let (stamp, origin) = text.split_once('-')?;
        let bits = |hex: &str| {
            if hex.len() == 16 { u64::from_str_radix(hex, 16).ok() } else { None }
        };
        Some(Version { stamp: Stamp::from_bits(bits(stamp)?), origin: ReplicaId::from_bits(bits(origin)?) })
    }
}

/// What a node's document cache knows of a document beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedVersion {
    /// Its version.
    pub version: Version,
    /// When it expires, in milliseconds since 1970; `None` is never.
    pub expires_at: Option<Millis>,
}

/// What must hold of this node's copy for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// There is no document (`If-None-Match: *`).
    Absent,
    /// There is one (`If-Match: *`).
    Present,
    /// It is at this version (`If-Match: "…"`).
    At(Version),
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOp {
    /// 1 to 128 bytes.
    pub collection: String,
    /// 1 to 1024 bytes.
    pub key: String,
    /// The document, one JSON value; `None` deletes.
    pub value: Option<Vec<u8>>,
    /// Milliseconds that it is to live, from now.
    pub ttl: Option<Millis>,
    /// What must hold.
    pub condition: Condition,
}

/// A write that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The document's version now.
    pub version: Version,
    /// Whether there was a document before.
    pub existed: bool,
    /// Its number at its origin, by which peers confirm it; 0 where none ever will: of a collection of scope `local`, and of
    /// a delete that found nothing.
    pub seq: Seq,
}

/// Who has a write on disk beside this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confirmed {
    /// The names of the members that have said so, or of whom others have.
    pub by: Vec<String>,
    /// Whether they are as many as were asked for.
    pub enough: bool,
}

/// What became of a write that may be queued where the store refuses it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is on disk.
    Stored(Stored),
    /// It waits in the offline queue: it is carried out once the store can, survives an orderly stop, and does not survive
    /// a power cut.
    Queued,
}

/// A write that waits in the offline queue, as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Queued {
    /// This is to be the document.
    Put(Vec<u8>),
    /// The document is to be deleted.
    Delete,
}

/// A document that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its key.
    pub key: String,
    /// Its version.
    pub version: Version,
    /// The JSON, byte for byte as it was written.
    pub value: Vec<u8>,
}

impl Document {
    /// The value as a type of the caller's.
    ///
    /// # Errors
    /// [`Error::Request`] where it is not of that type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.value)
            .map_err(|cause| Error::bad_request(format!("{} is not of that type: {cause}", self.key)))
    }
}

/// Which documents of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Only keys that start with this.
    pub prefix: String,
    /// Only keys beyond this one, in the direction of the listing.
    pub after: Option<String>,
    /// At most this many, 1 to 1000.
    pub limit: usize,
    /// From the highest key down.
    pub reverse: bool,
}

impl Default for Query {
    fn default() -> Self {
        Query { prefix: String::new(), after: None, limit: 100, reverse: false }
    }
}

/// Documents in byte order of their keys, at most [`PAGE_BYTES_MAX`] of values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The documents.
    pub documents: Vec<Document>,
    /// Pass it as [`Query::after`] for the next page; none when this was the last.
    pub next: Option<String>,
    /// Keys whose rows are damaged on disk, in the order of the page: what they held is not known.
    pub damaged: Vec<String>,
    /// The database is damaged in its structure, and this page was put together from what is whole in the file: documents whose very
    /// names are lost are not in `damaged`. How many rows are missing of the whole database.
    pub missing: Option<Missing>,
}

/// Documents in one page.
pub const PAGE_DOCUMENTS_MAX: usize = 1000;
/// Value bytes in one page; a single larger document still comes whole.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// A collection and how many documents it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionSummary {
    /// Its name.
    pub name: String,
    /// Live documents.
    pub documents: u64,
}
