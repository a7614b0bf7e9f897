//! A row: the one current version of a document, or the tombstone where it was.
//!
//! Which row wins and what covers what is decided here and in `replica`; nothing here knows of disks or links.

use crate::id::{Dot, ReplicaId};
use crate::limits::{COLLECTION_BYTES_MAX, DOCUMENT_BYTES_MAX, KEY_BYTES_MAX};
use crate::time::{Millis, Stamp};
use alloc::string::String;
use alloc::vec::Vec;
use blake2::digest::{Update, VariableOutput};
use core::cmp::Ordering;
use serde::{Deserialize, Serialize};

/// Where a collection lives. Part of a row's key, so that a local `scratch` here and a replicated one elsewhere are
/// two collections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Scope {
    /// Documents of the cluster.
    Replicated = 0,
    /// Documents that never leave the node.
    Local = 1,
    /// Records of the cluster about itself: members. Replicated like documents, shown by commands of their own.
    System = 2,
}

/// Rows of a whole database, of whatever collection, that could not be read; some of them may be named elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// At least so many.
    pub at_least: u64,
    /// At most so many; none where that cannot be told.
    pub at_most: Option<u64>,
}

/// The full name of a row. Ordered by scope, collection, then key, each by its bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowKey {
    /// Replicated, local or system.
    pub scope: Scope,
    /// 1 to 128 bytes.
    pub collection: String,
    /// 1 to 1024 bytes.
    pub key: String,
}

impl RowKey {
    /// A document of the cluster.
    pub fn replicated(collection: &str, key: &str) -> RowKey {
        RowKey { scope: Scope::Replicated, collection: collection.into(), key: key.into() }
    }
    /// Whether collection and key are not empty and within their limits.
    pub fn is_well_formed(&self) -> bool {
        (1..=COLLECTION_BYTES_MAX).contains(&self.collection.len()) && (1..=KEY_BYTES_MAX).contains(&self.key.len())
    }
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// The document, byte for byte as it was written.
    Live(#[serde(with = "bytes")] Vec<u8>),
    /// Deleted or expired.
    Tombstone,
}

/// One row. `expires_at` is milliseconds since 1970; a tombstone that came from expiry keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub key: RowKey,
    /// When, in the order that all nodes share.
    pub stamp: Stamp,
    /// Which write.
    pub dot: Dot,
    /// Document or tombstone.
    pub body: Body,
    /// Past this it is a tombstone of the same stamp and dot.
    pub expires_at: Option<Millis>,
}

/// The order of versions of one key: the highest wins on every node alike.
///
/// Stamp, then origin replica. The rest only matters where two rows carry the same dot: a tombstone there came from
/// expiry, and two different bodies from a sequence number that was used twice.
pub type Rank = (Stamp, ReplicaId, bool, RowHash);

/// 128 bits of BLAKE2s over everything in a row: its checksum on disk and its term in the digest.
pub type RowHash = u128;

impl Row {
    /// Its place in the order of versions of its key.
    pub fn rank(&self) -> Rank {
        (self.stamp, self.dot.origin, self.is_tombstone(), self.hash())
    }
    /// Whether it stands above another version of its key: the order of [`Row::rank`], hashed only on a tie.
    pub fn outranks(&self, other: &Head) -> bool {
        match (self.stamp, self.dot.origin).cmp(&(other.stamp, other.dot.origin)) {
            Ordering::Equal => self.rank() > other.rank(),
            order => order.is_gt(),
        }
    }
    /// Whether it marks a deletion.
    pub fn is_tombstone(&self) -> bool {
        matches!(self.body, Body::Tombstone)
    }
    /// The document's bytes; none for a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Live(value) => Some(value),
            Body::Tombstone => None,
        }
    }
    /// Whether it never leaves the node.
    pub fn is_local(&self) -> bool {
        self.key.scope == Scope::Local
    }
    /// Whether it is live but its time is over.
    pub fn is_expired(&self, now: Millis) -> bool {
        !self.is_tombstone() && self.expires_at.is_some_and(|at| at <= now)
    }
    /// The tombstone that this row turns into when it expires: same stamp, same dot.
    pub fn expired(self) -> Row {
        Row { body: Body::Tombstone, ..self }
    }
    /// About how many bytes it takes on the wire.
    pub fn encoded_bytes(&self) -> usize {
        self.key.collection.len() + self.key.key.len() + self.value().map_or(0, <[u8]>::len) + 40
    }
    /// Checksum and digest term in one.
    pub fn hash(&self) -> RowHash {
        hash_of(&self.key, self.stamp, self.dot, self.value(), self.expires_at)
    }
    /// What it adds to the digest: live documents that cannot expire, and never what is local.
    pub fn digest_term(&self) -> RowHash {
        if self.is_tombstone() || self.expires_at.is_some() || self.is_local() { 0 } else { self.hash() }
    }
    /// Whether one from the wire is within every limit and belongs on the wire.
    pub fn is_well_formed(&self) -> bool {
        self.key.is_well_formed()
            && !self.is_local()
            && self.stamp.is_well_formed()
            && self.dot.seq > 0
            && self.dot.origin != ReplicaId::NONE
            && self.value().is_none_or(|value| value.len() <= DOCUMENT_BYTES_MAX)
    }
}

/// [`Row::hash`] of a row in parts; `value` is none of a tombstone.
pub(crate) fn hash_of(
    key: &RowKey,
    stamp: Stamp,
    dot: Dot,
    value: Option<&[u8]>,
    expires_at: Option<Millis>,
) -> RowHash {
    let mut hasher = blake2::Blake2sVar::new(16).expect("16 is a valid output size of BLAKE2s");
    hasher.update(&[1, key.scope as u8, u8::from(value.is_none()), u8::from(expires_at.is_some())]);
    hasher.update(&(key.collection.len() as u32).to_le_bytes());
    hasher.update(&(key.key.len() as u32).to_le_bytes());
    hasher.update(&stamp.to_bits().to_le_bytes());
    hasher.update(&dot.origin.to_bits().to_le_bytes());
    hasher.update(&dot.seq.to_le_bytes());
    hasher.update(&expires_at.unwrap_or(0).to_le_bytes());
    hasher.update(key.collection.as_bytes());
    hasher.update(key.key.as_bytes());
    hasher.update(value.unwrap_or(&[]));
    let mut out = [0; 16];
    hasher.finalize_variable(&mut out).expect("the buffer has the size that the hasher was made for");
    u128::from_le_bytes(out)
}

/// What is known of a row without reading its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Head {
    /// Position in this node's stream.
    pub local_seq: u64,
    /// Order.
    pub stamp: Stamp,
    /// Which write.
    pub dot: Dot,
    /// Deleted or expired.
    pub tombstone: bool,
    /// Its expiry, where it has one.
    pub expires_at: Option<Millis>,
    /// Stored checksum.
    pub hash: RowHash,
    /// Never leaves the node.
    pub local: bool,
    /// The stored checksum is known not to be that of the row: nothing of it can be believed. Only where a row is looked
    /// up by its key is that looked at.
    pub damaged: bool,
}

impl Head {
    /// The head of a row that stands at `local_seq`.
    pub fn of(row: &Row, local_seq: u64) -> Head {
        Head {
            local_seq,
            stamp: row.stamp,
            dot: row.dot,
            tombstone: row.is_tombstone(),
            expires_at: row.expires_at,
            hash: row.hash(),
            local: row.is_local(),
            damaged: false,
        }
    }
    /// Its place in the order of versions of its key.
    pub fn rank(&self) -> Rank {
        (self.stamp, self.dot.origin, self.tombstone, self.hash)
    }
    /// What it adds to the digest; see [`Row::digest_term`].
    pub fn digest_term(&self) -> RowHash {
        if self.tombstone || self.expires_at.is_some() || self.local { 0 } else { self.hash }
    }
    /// Whether a reader sees a document there.
    pub fn is_visible(&self, now: Millis) -> bool {
        !self.tombstone && self.expires_at.is_none_or(|at| at > now)
    }
}

mod bytes {
    //! A byte string in postcard: length, then the bytes, copied in one go.
    use alloc::vec::Vec;
    use core::fmt;
    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(value)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Vec<u8>, E> {
                Ok(value.to_vec())
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}
