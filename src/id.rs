//! Who and what: names, device keys, replicas, sequence numbers, dots and version vectors.
//!
//! No meaning of replication lives here; `replica` gives these their rules.
//! Dots and vectors as in Almeida et al., "Scalable and Accurate Causality Tracking for Eventually Consistent Stores"
//! (DAIS 2014).

use crate::limits::{NODE_ID_BYTES_MAX, REPLICAS_MAX};
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// The name that people use for a node. 1 to 64 bytes of UTF-8 without control characters or white space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(heapless::String<NODE_ID_BYTES_MAX>);

impl NodeId {
    /// Checks and takes a name. `None` where it is empty, too long, or holds white space or control characters.
    pub fn new(name: &str) -> Option<NodeId> {
        let legal = !name.is_empty() && !name.chars().any(|c| c.is_control() || c.is_whitespace());
        if legal { heapless::String::try_from(name).ok().map(NodeId) } else { None }
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether a name from the wire is one that [`NodeId::new`] takes.
    pub fn is_well_formed(&self) -> bool {
        NodeId::new(&self.0).is_some()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device: the public half of its Noise key (X25519, 32 bytes). A peer *is* its device key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DeviceId(pub [u8; 32]);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}

/// One life of one database: 24 bits of a counter that only rises, then 40 random bits.
///
/// Minted with each new database and again after a restore, a bootstrap or a noticed fork, so that a sequence number is
/// never used twice. Encoded as eight bytes: its bits are random, a variable-length form would be longer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[serde(from = "[u8; 8]", into = "[u8; 8]")]
pub struct ReplicaId(u64);

impl ReplicaId {
    /// No replica: the origin of what never leaves the node.
    pub const NONE: ReplicaId = ReplicaId(0);
    const RANDOM_BITS: u32 = 40;

    /// A new identity, ordered above all of `above`; `random` is fresh for each call.
    pub fn mint(above: &[ReplicaId], random: u64) -> ReplicaId {
        let counter = above.iter().map(|id| id.0 >> Self::RANDOM_BITS).max().unwrap_or(0) + 1;
        ReplicaId((counter << Self::RANDOM_BITS) | (random & ((1 << Self::RANDOM_BITS) - 1)))
    }
    /// From its stored integer.
    pub const fn from_bits(bits: u64) -> ReplicaId {
        ReplicaId(bits)
    }
    /// The stored integer.
    pub const fn to_bits(self) -> u64 {
        self.0
    }
}
impl From<[u8; 8]> for ReplicaId {
    fn from(bytes: [u8; 8]) -> Self {
        ReplicaId(u64::from_be_bytes(bytes))
    }
}
impl From<ReplicaId> for [u8; 8] {
    fn from(id: ReplicaId) -> Self {
        id.0.to_be_bytes()
    }
}
impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A replica's own dense sequence: its first write is 1.
pub type Seq = u64;
/// A position in one replica's stream of row changes: the first is 1, 0 is before everything.
pub type LocalSeq = u64;

/// One write: who made it, and which of theirs it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Dot {
    /// The replica that made it.
    pub origin: ReplicaId,
    /// Its number there, from 1.
    pub seq: Seq,
}

/// For each replica, how far its writes are covered. Entries are kept in order, at most [`REPLICAS_MAX`].
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VersionVector(Vec<(ReplicaId, Seq)>);

impl VersionVector {
    /// Covers nothing.
    pub const fn new() -> VersionVector {
        VersionVector(Vec::new())
    }
    /// How far this replica's writes are covered; 0 for none.
    pub fn of(&self, origin: ReplicaId) -> Seq {
        self.0.binary_search_by_key(&origin, |entry| entry.0).map_or(0, |at| self.0[at].1)
    }
    /// Whether it covers a write.
    pub fn covers(&self, dot: Dot) -> bool {
        self.of(dot.origin) >= dot.seq
    }
    /// Whether it covers all that `other` covers.
    pub fn includes(&self, other: &VersionVector) -> bool {
        other.0.iter().all(|&(origin, seq)| self.of(origin) >= seq)
    }
    /// Raises one entry; never lowers it.
    pub fn raise(&mut self, dot: Dot) {
        match self.0.binary_search_by_key(&dot.origin, |entry| entry.0) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(dot.seq),
            Err(at) => self.0.insert(at, (dot.origin, dot.seq)),
        }
    }
    /// Sets one entry, downwards too: only a fork may claim less than before.
    pub fn set(&mut self, origin: ReplicaId, seq: Seq) {
        self.0.retain(|entry| entry.0 != origin);
        if seq > 0 {
            self.raise(Dot { origin, seq });
        }
    }
    /// Joins another vector: the higher entry for each replica.
    pub fn join(&mut self, other: &VersionVector) {
        other.0.iter().for_each(|&(origin, seq)| self.raise(Dot { origin, seq }));
    }
    /// The part of it that `other` covers too: the lower entry for each replica.
    pub fn lowered_to(&self, other: &VersionVector) -> VersionVector {
        let both = self.iter().map(|dot| Dot { origin: dot.origin, seq: dot.seq.min(other.of(dot.origin)) });
        both.filter(|dot| dot.seq > 0).collect()
    }
    /// A total order in which a join stands at or above what it was joined from: entries from the highest replica
    /// down.
    pub fn outranks(&self, other: &VersionVector) -> bool {
        self.0.iter().rev().gt(other.0.iter().rev())
    }
    /// The entries in order of replica.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().map(|&(origin, seq)| Dot { origin, seq })
    }
    /// Number of replicas.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Whether one from the wire is in order, without duplicates or zeros, and within [`REPLICAS_MAX`].
    pub fn is_well_formed(&self) -> bool {
        self.0.len() <= REPLICAS_MAX
            && self.0.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && self.0.iter().all(|&(origin, seq)| seq > 0 && origin != ReplicaId::NONE)
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(origin, seq)| (origin, seq))).finish()
    }
}
impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = VersionVector::new();
        dots.into_iter().for_each(|dot| vector.raise(dot));
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(origin: u64, seq: Seq) -> Dot {
        Dot { origin: ReplicaId::from_bits(origin), seq }
    }

    #[test]
    fn a_minted_replica_is_above_all_that_it_follows() {
        let old = ReplicaId::mint(&[], u64::MAX);
        let other = ReplicaId::mint(&[old], u64::MAX);
        assert!(ReplicaId::mint(&[old, other], 0) > other);
    }

    #[test]
    fn a_join_covers_what_either_covered_and_nothing_else() {
        let mut left: VersionVector = [dot(1, 5), dot(3, 1)].into_iter().collect();
        let right: VersionVector = [dot(1, 2), dot(2, 9)].into_iter().collect();
        left.join(&right);
        assert!(left.includes(&right) && left.covers(dot(1, 5)) && left.covers(dot(2, 9)));
        assert!(!left.covers(dot(1, 6)) && !left.covers(dot(3, 2)) && !right.includes(&left));
        assert!(left.is_well_formed());
    }

    #[test]
    fn a_name_holds_no_white_space() {
        assert!(NodeId::new("gateway-01").is_some());
        assert!(NodeId::new("").is_none() && NodeId::new("a b").is_none() && NodeId::new("a\nb").is_none());
        assert!(NodeId::new(&"x".repeat(65)).is_none());
    }
}
