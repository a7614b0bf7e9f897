//! Who belongs to the cluster, what each is known to have on disk, and since when it lacks something.

use super::io::{Now, Target};
use crate::id::{DeviceId, LocalSeq, NodeId, ReplicaId, VersionVector};
use crate::limits::MEMBERS_MAX;
use crate::replica::{MemberState, Members as Remembered, meet};
use crate::row::{Row, RowKey, Scope};
use crate::time::Millis;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// The collection of the records about members.
pub(super) const RECORDS: &str = "members";
/// Points in time that lag is measured from.
const CHECKPOINTS_MAX: usize = 128;
/// Apart at least this far.
const CHECKPOINT_MS: Millis = 250;

/// What the site has decided about a device: a document of the system scope, keyed by the device key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its name when that was decided.
    pub node_id: NodeId,
    /// The decision.
    pub standing: Standing,
}

/// Where a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Standing {
    /// A member: again, after it had been retired.
    Tracked,
    /// Retired; welcome if it comes back.
    Untracked,
    /// Its name belongs to another device now; it is refused.
    Replaced,
    /// Refused.
    Revoked,
}

impl MemberRecord {
    /// Where the record of a device stands.
    pub fn key(device: &DeviceId) -> RowKey {
        let mut key = String::with_capacity(64);
        device.0.iter().for_each(|byte| {
            let _ = write!(key, "{byte:02x}");
        });
        RowKey { scope: Scope::System, collection: RECORDS.into(), key }
    }
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("encoding a name and a tag into memory cannot fail")
    }
    /// Reads a row; `None` where it is none of these records, or of a later version.
    pub fn decode(row: &Row) -> Option<(DeviceId, MemberRecord)> {
        let hex = row.key.key.as_bytes();
        if row.key.collection != RECORDS || hex.len() != 64 {
            return None;
        }
        let mut device = [0u8; 32];
        for (at, byte) in device.iter_mut().enumerate() {
            *byte = u8::from_str_radix(core::str::from_utf8(&hex[at * 2..at * 2 + 2]).ok()?, 16).ok()?;
        }
        Some((DeviceId(device), postcard::take_from_bytes(row.value()?).ok()?.0))
    }
}

/// One member as this node sees it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) state: MemberState,
    pub(super) standing: Option<Standing>,
    /// Rises when `confirmed` does: what is to be relayed.
    pub(super) changed: u64,
    /// `confirmed` is newer than on disk.
    pub(super) dirty: bool,
    pub(super) clock_offset_ms: Option<i64>,
    /// Where it was last reached, and as which target of a dial.
    pub(super) address: Option<SocketAddr>,
    pub(super) target: Option<Target>,
    /// The process that was last met. One process has one history, whatever order its Hellos come in on two links.
    pub(super) instance: Option<u64>,
}

/// All of them.
pub(super) struct Members {
    pub(super) by_device: BTreeMap<DeviceId, Member>,
    checkpoints: VecDeque<(Millis, VersionVector)>,
    changes: u64,
}

impl Members {
    pub(super) fn new(remembered: Remembered) -> Members {
        let member = |(device, state)| (device, Member::new(state, 0));
        Members { by_device: remembered.into_iter().map(member).collect(), checkpoints: VecDeque::new(), changes: 0 }
    }
    pub(super) fn tracked(&self) -> impl Iterator<Item = (&DeviceId, &Member)> {
        self.by_device.iter().filter(|(_, member)| member.is_tracked())
    }
    /// A device whose name this is, other than `device`, and that still stands.
    pub(super) fn holder_of(&self, name: &NodeId, device: &DeviceId) -> Option<DeviceId> {
        let holds = |(other, member): &(&DeviceId, &Member)| {
            *other != device
                && member.state.node_id == *name
                && member.state.tracked
                && !matches!(member.standing, Some(Standing::Replaced | Standing::Revoked | Standing::Untracked))
        };
        self.by_device.iter().find(holds).map(|(other, _)| *other)
    }
    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.by_device.len() < MEMBERS_MAX
    }
    /// Takes what storage remembers now.
    pub(super) fn remember(&mut self, device: DeviceId, state: MemberState) {
        self.changes += 1;
        let changed = self.changes;
        match self.by_device.get_mut(&device) {
            Some(member) => {
                let known = core::mem::replace(&mut member.state, state);
                member.changed = changed;
                if known.replica == member.state.replica {
                    member.state.confirmed.join(&known.confirmed);
                    member.state.confirmed_at = member.state.confirmed_at.max(known.confirmed_at);
                    // The cursor is what the disk says: a new life of this node starts over.
                    member.state.heard = member.state.heard.max(known.heard);
                }
            }
            None => {
                self.by_device.insert(device, Member::new(state, changed));
            }
        }
    }
    /// A member says, or is said, to have this on disk.
    pub(super) fn confirm(&mut self, device: &DeviceId, replica: ReplicaId, vector: &VersionVector, wall: Millis) {
        let Some(member) = self.by_device.get_mut(device) else { return };
        if replica > member.state.replica {
            // The counter of a replica only rises: this is a later life of the same device.
            member.state.become_replica(replica);
        }
        if replica != member.state.replica {
            return;
        }
        let news = !member.state.confirmed.includes(vector) || !member.state.has_confirmed;
        member.state.has_confirmed = true;
        member.state.confirmed_at = Some(wall);
        if news {
            member.state.confirmed.join(vector);
            self.changes += 1;
            member.changed = self.changes;
            member.dirty = true;
        }
    }
    /// What a member has said of itself since its Hello: its own writes, and how far its stream has come. A disk that is
    /// rolled back is noticed by these.
    pub(super) fn heard(&mut self, device: &DeviceId, replica: ReplicaId, vector: &VersionVector, cursor: LocalSeq) {
        if let Some(member) = self.by_device.get_mut(device).filter(|member| member.state.replica == replica) {
            member.state.heard = member.state.heard.max(vector.of(replica));
            member.state.cursor = member.state.cursor.max(cursor);
        }
    }
    /// Takes the site's records, but for what they say of this node itself. Says who stands
    /// elsewhere now.
    pub(super) fn apply_records(&mut self, rows: &[Row], own: &DeviceId) -> Vec<DeviceId> {
        let mut records: BTreeMap<DeviceId, MemberRecord> = rows.iter().filter_map(MemberRecord::decode).collect();
        records.remove(own);
        for (device, record) in &records {
            if !self.by_device.contains_key(device) && self.has_room() {
                self.remember(*device, MemberState::new(record.node_id.clone(), ReplicaId::NONE));
            }
        }
        let mut changed = Vec::new();
        for (device, member) in &mut self.by_device {
            let standing = records.get(device).map(|record| record.standing);
            if standing != member.standing {
                member.standing = standing;
                self.changes += 1;
                changed.push(*device);
            }
        }
        changed
    }
    /// Rises whenever anybody is known to have more on disk, or stands elsewhere.
    pub(super) fn revision(&self) -> u64 {
        self.changes
    }
    /// What every tracked member has on disk; `None` of nobody.
    pub(super) fn confirmed_by_all(&self) -> Option<VersionVector> {
        meet(self.tracked().map(|(_, member)| &member.state.confirmed))
    }
    /// Notes what this node has now, so that lag can be measured from here.
    pub(super) fn checkpoint(&mut self, now: Now, vector: &VersionVector) {
        if self.checkpoints.back().is_some_and(|(_, last)| last == vector) {
            return;
        }
        match self.checkpoints.back_mut() {
            Some((at, last)) if *at + CHECKPOINT_MS > now.mono => *last = vector.clone(),
            _ => self.checkpoints.push_back((now.mono, vector.clone())),
        }
        if self.checkpoints.len() > CHECKPOINTS_MAX {
            // Thin out the older half: lag that is minutes long needs no quarter seconds. Of each pair the earlier
            // time stays with the later vector, so lag is never measured too short.
            let half: Vec<_> = self.checkpoints.drain(..CHECKPOINTS_MAX / 2).collect();
            for pair in half.chunks(2).rev() {
                let (at, vector) = (pair[0].0, pair[pair.len() - 1].1.clone());
                self.checkpoints.push_front((at, vector));
            }
        }
        let everybody: Vec<&VersionVector> =
            self.by_device.values().filter(|member| member.is_tracked()).map(|m| &m.state.confirmed).collect();
        while self.checkpoints.len() > 1
            && self.checkpoints.front().is_some_and(|(_, v)| everybody.iter().all(|confirmed| confirmed.includes(v)))
        {
            self.checkpoints.pop_front();
        }
    }
    /// Milliseconds since this node stored the oldest change that the member has not confirmed.
    pub(super) fn lag_ms(&self, now: Now, member: &Member) -> Millis {
        let lacks = |(_, vector): &&(Millis, VersionVector)| !member.state.confirmed.includes(vector);
        self.checkpoints.iter().find(lacks).map_or(0, |(at, _)| now.mono.saturating_sub(*at))
    }
}

impl Member {
    fn new(state: MemberState, changed: u64) -> Member {
        let (standing, clock_offset_ms, address, target, instance) = (None, None, None, None, None);
        Member { state, standing, changed, dirty: false, clock_offset_ms, address, target, instance }
    }
    pub(super) fn is_tracked(&self) -> bool {
        self.state.tracked
            && !matches!(self.standing, Some(Standing::Untracked | Standing::Replaced | Standing::Revoked))
    }
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.standing, Some(Standing::Replaced | Standing::Revoked))
    }
}
