//! What members say of themselves to whoever asks: two messages. Bounds as in `message`, whose kinds they are.

use super::message::ClockSample;
use crate::id::{DeviceId, NodeId, ReplicaId};
use crate::limits::RELEASE_BYTES_MAX;
use crate::time::Millis;
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// How are you, and how are those behind you? Each node answers with its own [`Report`], and asks its other peers once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Random; comes back in each report. One that was seen before is not answered again.
    #[serde(with = "postcard::fixint::le")]
    pub nonce: u64,
    /// How many more nodes may pass it on.
    pub hops: u8,
}

/// What one member said of itself, on its way to whoever asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of the [`Ask`]; 0 where nobody asked.
    #[serde(with = "postcard::fixint::le")]
    pub nonce: u64,
    /// How long ago it was said, milliseconds.
    pub age_ms: Millis,
    /// What was said.
    pub member: MemberReport,
}

/// One member about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its key.
    pub device: DeviceId,
    /// Its name.
    pub node_id: NodeId,
    /// The release that it runs.
    pub release: String,
    /// Its replica.
    pub replica: ReplicaId,
    /// The worst entry of its health: 0 Healthy, 1 Degraded, 2 Unhealthy.
    pub health: u8,
    /// Its clock.
    pub clock: ClockSample,
    /// Milliseconds since it started.
    pub uptime_ms: Millis,
    /// Free bytes of the file system below its database.
    pub free_bytes: u64,
    /// Bytes of its database.
    pub database_bytes: u64,
    /// Members that it tracks.
    pub tracked: u32,
    /// Of these, linked to it.
    pub linked: u32,
    /// Of these, behind it by more than its threshold.
    pub lagging: u32,
    /// How far the one that is furthest behind it is, milliseconds.
    pub lag_ms: Millis,
    /// Operations in its offline queue.
    pub queued: u64,
    /// Rows that wait for a decision.
    pub recovered: u64,
}

impl MemberReport {
    /// Whether it is within its bounds.
    pub(super) fn is_well_formed(&self) -> bool {
        self.node_id.is_well_formed() && self.release.len() <= RELEASE_BYTES_MAX
    }
}
