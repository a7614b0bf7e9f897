//! `GET /v1/status`: the sync tracker and the figures of the parts below it.

use super::Timestamp;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::string::String;
use std::vec::Vec;

/// The node in one page.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The name that people use.
    pub node_id: String,
    /// The life of its database: 16 hexadecimal digits.
    pub replica_id: String,
    /// The version of the program.
    pub version: String,
    /// Whether at least one peer is linked.
    pub online: bool,
    /// When this node and a peer last had everything from each other.
    pub last_sync_time: Option<Timestamp>,
    /// Peers that are linked now.
    pub active_peers: u64,
    /// The latest errors, oldest first, a bounded number.
    pub recent_errors: Vec<RecentError>,
    /// Links to peers, and attempts at them.
    #[serde(default)]
    pub links: LinksStatus,
    /// The offline queue.
    pub queue: QueueStatus,
    /// The document cache.
    pub cache: CacheStatus,
    /// The database.
    pub store: StoreStatus,
    /// The clock.
    pub clock: ClockStatus,
}

/// An error that was not answered to a caller, or that an operator should know of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecentError {
    /// When.
    pub time: Timestamp,
    /// The error code, such as `NETWORK_ERROR`.
    pub code: String,
    /// The peer that it concerns, by name or address.
    pub peer: Option<String>,
    /// What happened.
    pub message: String,
}

/// Links since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinksStatus {
    /// Connections that were refused: another cluster key, garbage, or no answer in time.
    pub refused: u64,
    /// Bytes received, encryption included.
    pub bytes_in: u64,
    /// Bytes sent, encryption included.
    pub bytes_out: u64,
}

/// The offline queue: writes accepted while the store refuses them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// Whether it is switched on.
    pub enabled: bool,
    /// Operations that wait.
    pub length: u64,
    /// Operations that fit.
    pub capacity: u64,
    /// Bytes that wait.
    pub bytes: u64,
    /// Bytes that fit: the board's share, less where the spill file has less room.
    #[serde(default)]
    pub capacity_bytes: u64,
    /// Operations accepted since the start.
    #[serde(default)]
    pub accepted: u64,
    /// Operations carried out since the start.
    #[serde(default)]
    pub delivered: u64,
    /// Operations refused since the start because it was full.
    #[serde(default)]
    pub refused: u64,
    /// Attempts since the start that the store refused.
    #[serde(default)]
    pub retries: u64,
    /// Operations that the last stop had kept and that were damaged in its spill file.
    #[serde(default)]
    pub lost: u64,
}

/// The document cache since the start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheStatus {
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that went to the store.
    pub misses: u64,
    /// Documents that made room for others.
    pub evictions: u64,
    /// Bytes held now.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub capacity_bytes: u64,
    /// `hits / (hits + misses)`, 0 to 1; 0 before the first read.
    pub hit_rate: f64,
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// Absolute path of the database file.
    pub path: String,
    /// Live documents in all collections.
    pub documents: u64,
    /// Tombstones kept.
    pub tombstones: u64,
    /// Bytes of the database file.
    pub database_bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Free bytes of the file system below it.
    pub free_bytes: u64,
}

/// The clock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClockStatus {
    /// The node's best time of day.
    pub now: Option<Timestamp>,
    /// Whether it is believed: synchronised, or the median of peers that are.
    pub believed: bool,
    /// The highest stamp made or witnessed, as a time of day.
    pub last_stamp: Option<Timestamp>,
    /// The wall clock minus the node's best time, in milliseconds.
    pub wall_offset_ms: i64,
    /// Milliseconds since the node started.
    pub uptime_ms: Millis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_fields_are_those_of_the_api() {
        let json = serde_json::to_value(Status::default()).unwrap();
        for name in
            "nodeId replicaId version online lastSyncTime activePeers recentErrors links queue cache store clock"
                .split(' ')
        {
            assert!(json.get(name).is_some(), "{name}");
        }
        for name in "hits misses evictions bytes hitRate".split(' ') {
            assert!(json["cache"].get(name).is_some(), "{name}");
        }
    }
}
