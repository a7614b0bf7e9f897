//! What a replica durably knows of itself and of each member.

use crate::id::{DeviceId, Dot, LocalSeq, NodeId, ReplicaId, Seq, VersionVector};
use crate::limits::{LOOSE_MAX, START_TOKENS_MAX};
use crate::row::Head;
use crate::time::{Hlc, Stamp};
use crate::wire::StartToken;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The durable state of a replica beside its rows: small, written with every transaction that changes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knowledge {
    /// Rises with every transaction that changes anything here: of two copies, the higher is the later.
    pub version: u64,
    /// This life of the database.
    pub replica: ReplicaId,
    /// Its last own dot.
    pub seq: Seq,
    /// Own dots up to here may be known to somebody: they are never written again as new.
    pub sent: Seq,
    /// The end of its stream.
    pub tail: LocalSeq,
    /// Every row up to here is covered by the vector.
    pub covered_upto: LocalSeq,
    /// The last stamp made or witnessed.
    pub hlc: Hlc,
    /// Sum of the digest terms of all rows.
    pub digest: u128,
    /// Rows that wait in the recovered store.
    pub recovered: u64,
    /// Tombstones among the rows.
    pub tombstones: u64,
    /// The vector whose sentence is the invariant of this module. Its own entry is `seq`.
    pub vector: VersionVector,
    /// What was forgotten the deletes of: who does not cover it is a newcomer.
    pub floor: VersionVector,
    /// Covered before a bootstrap and not since: a live row of these that left no trace here had been deleted here.
    pub gone: VersionVector,
    /// Live rows that were replaced here before the vector covered them, at most [`LOOSE_MAX`]: as if in `gone`.
    pub loose: Vec<Dot>,
    /// The last starts, oldest first.
    pub tokens: Vec<StartToken>,
    /// The highest position of a tombstone that was dropped: a reader of the change feed who stands before it may have
    /// missed a delete.
    pub dropped_upto: LocalSeq,
    /// The highest stamp of a tombstone that was dropped: a write that was accepted with a lower one, and waited, may have
    /// been deleted since by what nobody here remembers.
    pub dropped_stamp: Stamp,
}

impl Knowledge {
    /// Of a new, empty database. `random` is fresh.
    pub fn new(random: u64) -> Knowledge {
        Knowledge {
            version: 0,
            replica: ReplicaId::mint(&[], random),
            seq: 0,
            sent: 0,
            tail: 0,
            covered_upto: 0,
            hlc: Hlc::default(),
            digest: 0,
            recovered: 0,
            tombstones: 0,
            vector: VersionVector::new(),
            floor: VersionVector::new(),
            gone: VersionVector::new(),
            loose: Vec::new(),
            tokens: Vec::new(),
            dropped_upto: 0,
            dropped_stamp: Stamp::ZERO,
        }
    }
    /// Notes a start of the process. `random` is fresh.
    pub fn start(&mut self, random: u64) {
        if self.tokens.len() == START_TOKENS_MAX {
            self.tokens.remove(0);
        }
        self.tokens.push(StartToken { token: random, seq: self.seq, tail: self.tail });
    }
    /// Whether a write was known here whose row the vector does not account for.
    pub(super) fn was_known(&self, dot: Dot) -> bool {
        self.gone.covers(dot) || self.loose.contains(&dot)
    }
    /// Notes that a row is about to be replaced. If it is not covered, nothing else would remember that it was here
    /// once the tombstone above it is dropped.
    pub(super) fn note_replaced(&mut self, before: &Head, by: Dot) {
        let accounted = before.tombstone || before.local || before.dot == by || self.vector.covers(before.dot);
        if !accounted && !self.loose.contains(&before.dot) && self.loose.len() < LOOSE_MAX {
            self.loose.push(before.dot);
        }
    }
    /// Forgets what the vector accounts for again.
    pub(super) fn prune_known(&mut self) {
        let vector = &self.vector;
        self.loose.retain(|dot| !vector.covers(*dot));
        if !self.gone.is_empty() {
            self.gone = self.gone.iter().filter(|dot| !vector.covers(*dot)).collect();
        }
    }
    /// The next own dot, covered from now on.
    pub(super) fn next_dot(&mut self) -> Dot {
        self.seq += 1;
        let dot = Dot { origin: self.replica, seq: self.seq };
        self.vector.raise(dot);
        dot
    }
    /// The next position of the stream.
    pub(super) fn next_position(&mut self) -> LocalSeq {
        self.tail += 1;
        self.tail
    }
    /// A new life above all of `above`: nothing of the old one's numbers is used again.
    pub(super) fn new_life(&mut self, above: &[ReplicaId], random: u64) {
        let everybody = self.vector.iter().map(|dot| dot.origin);
        let above: Vec<ReplicaId> = above.iter().copied().chain([self.replica]).chain(everybody).collect();
        self.replica = ReplicaId::mint(&above, random);
        self.seq = 0;
        self.sent = 0;
        self.covered_upto = 0;
        self.tokens.clear();
        self.start(random.rotate_left(32));
    }
}

/// What is durably known of another member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// Its name.
    pub node_id: NodeId,
    /// Tracked members hold tombstones back and count for health; others are only remembered.
    pub tracked: bool,
    /// The replica that it was when last heard of.
    pub replica: ReplicaId,
    /// What it is known to have on disk, as that replica.
    pub confirmed: VersionVector,
    /// Whether `confirmed` was ever said by the member or for it.
    pub has_confirmed: bool,
    /// When it last did, milliseconds since 1970 by our clock then.
    pub confirmed_at: Option<u64>,
    /// Up to here its stream is in our rows.
    pub cursor: LocalSeq,
    /// The starts that it last said, oldest first.
    pub tokens: Vec<u64>,
    /// Its highest own dot heard from itself since.
    pub heard: Seq,
}

impl MemberState {
    /// Of a member that was only just heard of.
    pub fn new(node_id: NodeId, replica: ReplicaId) -> MemberState {
        MemberState {
            node_id,
            tracked: false,
            replica,
            confirmed: VersionVector::new(),
            has_confirmed: false,
            confirmed_at: None,
            cursor: 0,
            tokens: Vec::new(),
            heard: 0,
        }
    }
    /// A new replica of the same device replaces what the old one had confirmed, also downwards.
    pub fn become_replica(&mut self, replica: ReplicaId) {
        if self.replica != replica {
            let MemberState { node_id, tracked, .. } = self.clone();
            *self = MemberState { tracked, ..MemberState::new(node_id, replica) };
        }
    }
}

/// The vector that every one of `confirmed` includes: the lowest entry for each replica. `None` of nobody.
pub(crate) fn meet<'a>(mut confirmed: impl Iterator<Item = &'a VersionVector>) -> Option<VersionVector> {
    let first = confirmed.next()?.clone();
    Some(confirmed.fold(first, |met, vector| {
        met.iter()
            .map(|dot| Dot { origin: dot.origin, seq: dot.seq.min(vector.of(dot.origin)) })
            .filter(|dot| dot.seq > 0)
            .collect()
    }))
}

/// Who a member is, for callers that list them.
pub type Members = Vec<(DeviceId, MemberState)>;
