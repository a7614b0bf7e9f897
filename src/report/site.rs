//! `GET /v1/site`: every member of the site as it last described itself, seen from one node.

use super::{HealthStatus, Timestamp};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::string::String;
use std::vec::Vec;

/// The whole site.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteReport {
    /// This node first, then the others by name.
    pub members: Vec<MemberStatus>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// The name that people use.
    pub node_id: String,
    /// One word: `self`, `linked`, `relayed` (it has answered by way of others), `silent`.
    pub state: String,
    /// How long our oldest change that it has not confirmed has been waiting, in milliseconds; 0 when none waits.
    pub lag_ms: Millis,
    /// Our changes that it has not confirmed.
    pub unconfirmed_changes: u64,
    /// What it said of itself last; `null` where nothing was heard of it since this node started, or it runs a release that
    /// does not say it.
    pub said: Option<Said>,
}

/// What a member said of itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// How long ago, in milliseconds.
    pub age_ms: Millis,
    /// The worst entry of its health.
    pub health: HealthStatus,
    /// The version of the program.
    pub version: String,
    /// The life of its database: 16 hexadecimal digits.
    pub replica_id: String,
    /// Its clock, when it said this.
    pub clock: Option<Timestamp>,
    /// Its clock minus ours then, in milliseconds.
    pub clock_offset_ms: i64,
    /// Whether its kernel calls that clock synchronised.
    pub clock_synchronised: bool,
    /// Milliseconds since it started.
    pub uptime_ms: Millis,
    /// Free bytes of the file system below its database.
    pub free_bytes: u64,
    /// Bytes of its database.
    pub database_bytes: u64,
    /// Members that it tracks.
    pub tracked_peers: u64,
    /// Of these, linked to it.
    pub linked_peers: u64,
    /// Of these, behind it by more than its threshold.
    pub lagging_peers: u64,
    /// How far the one that is furthest behind it is, in milliseconds.
    pub max_lag_ms: Millis,
    /// Operations in its offline queue.
    pub queued: u64,
    /// Rows that wait for a decision.
    pub recovered: u64,
}
