//! Status, peers, health and readiness, as callers see them.

use super::shell::Shell;
use crate::clock;
use crate::proto::Verdict;
use crate::report::{
    CacheStatus, ClockStatus, HealthEntry, HealthReport, HealthStatus, HeardAddress, LinksStatus, PeerReport,
    PeersReport, QueueStatus, Readiness, Status, StoreStatus, Timestamp,
};
use crate::wire::BeaconError;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// Bytes above `MinFreeMb` from which on a store that has refused a document for want of space is thought to take them again.
const ROOM_BYTES: u64 = 4 * 1024 * 1024;

impl Shell {
    pub(crate) async fn status(&self) -> Status {
        let (statistics, sizes) = (self.store.statistics().await, self.store.sizes().await);
        let store = match (statistics, sizes) {
            (Ok(rows), Ok(store)) => StoreStatus {
                path: self.database_path.display().to_string(),
                documents: rows.documents,
                tombstones: rows.tombstones,
                database_bytes: store.database_bytes,
                wal_bytes: store.log_bytes,
                free_bytes: store.free_bytes,
            },
            _ => StoreStatus { path: self.database_path.display().to_string(), ..StoreStatus::default() },
        };
        let now = self.now();
        let engine = self.engine.borrow();
        let reading = engine.reading(now);
        let cache = self.reads.statistics();
        let linked = engine.peers(now).iter().filter(|peer| peer.linked).count() as u64;
        Status {
            node_id: self.node_id().to_string(),
            replica_id: engine.knowledge().replica.to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            online: linked > 0,
            last_sync_time: self.tracker.borrow().last_sync().map(Timestamp),
            active_peers: linked,
            recent_errors: self.tracker.borrow().recent_errors(),
            links: LinksStatus {
                refused: self.links.refused.get(),
                bytes_in: self.links.bytes_in.get(),
                bytes_out: self.links.bytes_out.get(),
            },
            queue: QueueStatus::default(),
            cache: CacheStatus {
                hits: cache.hits,
                misses: cache.misses,
                evictions: cache.evictions,
                bytes: cache.bytes as u64,
                capacity_bytes: cache.bytes_max as u64,
                hit_rate: cache.hit_rate,
            },
            store,
            clock: ClockStatus {
                now: Some(Timestamp(reading.millis)),
                believed: reading.believed,
                last_stamp: Some(Timestamp(engine.knowledge().hlc.last().millis())),
                wall_offset_ms: now.wall as i64 - reading.millis as i64,
                uptime_ms: now.mono.saturating_sub(self.started_at),
            },
        }
    }

    pub(crate) fn peers_report(&self) -> PeersReport {
        let now = self.now();
        let engine = self.engine.borrow();
        let mut peers: Vec<PeerReport> = (engine.peers(now).into_iter())
            .map(|peer| {
                let state = match (peer.linked, peer.tracked) {
                    (true, _) => "open",
                    (false, true) => "closed",
                    (false, false) => "untracked",
                };
                PeerReport {
                    node_id: peer.node_id.to_string(),
                    state: state.to_string(),
                    address: peer.address.map(|address| address.to_string()),
                    confirmed: peer.confirmed,
                    lag_ms: peer.lag_ms,
                    unconfirmed_changes: peer.unconfirmed_changes,
                    last_confirmation: peer.last_confirmation.map(Timestamp),
                    clock_offset_ms: peer.clock_offset_ms,
                    round_trip_ms: peer.round_trip_ms,
                    last_error: None,
                }
            })
            .collect();
        peers.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        let strangers = engine.strangers().into_iter().map(|(address, reason, count)| {
            let reason = match reason {
                BeaconError::OtherCluster => {
                    format!("{reason} ({count} beacons); a member needs the same cluster key file")
                }
                BeaconError::Foreign | BeaconError::Forged => format!("{reason} ({count} datagrams)"),
            };
            HeardAddress { address: address.to_string(), reason }
        });
        let tracker = self.tracker.borrow();
        let failures = tracker
            .failures()
            .map(|(address, reason)| HeardAddress { address: address.clone(), reason: reason.clone() });
        let unlinked = engine.heard().into_iter().filter(|(_, _, linked)| !linked).map(|(address, _, _)| {
            HeardAddress { address: address.to_string(), reason: "a member, not linked yet".to_string() }
        });
        PeersReport { peers, heard: strangers.chain(failures).chain(unlinked).collect() }
    }

    pub(crate) async fn health(&self) -> HealthReport {
        let began = clock::monotonic_us();
        let mut entries = BTreeMap::new();
        let timed = |entry: HealthEntry, began: u64| {
            let took = clock::monotonic_us().saturating_sub(began);
            HealthEntry { duration_ms: Some(took as f64 / 1000.0), ..entry }
        };
        entries.insert("cbddc".to_string(), timed(self.members_entry(), began));
        let at = clock::monotonic_us();
        entries.insert("storage".to_string(), timed(self.storage_entry().await, at));
        let at = clock::monotonic_us();
        entries.insert("clock".to_string(), timed(self.clock_entry(), at));
        let took = clock::monotonic_us().saturating_sub(began);
        HealthReport::new(entries, took as f64 / 1000.0)
    }

    fn members_entry(&self) -> HealthEntry {
        let health = self.engine.borrow().members_health(self.now());
        let status = match health.verdict {
            Verdict::Healthy => HealthStatus::Healthy,
            Verdict::Degraded => HealthStatus::Degraded,
            Verdict::Unhealthy => HealthStatus::Unhealthy,
        };
        let lags = |count: usize| if count == 1 { "peer lags" } else { "peers lag" };
        let description = match (health.lagging.len(), health.unconfirmed.len()) {
            (0, 0) if health.tracked == 0 => "no peers yet".to_string(),
            (0, 0) if health.max_lag_ms > 0 => {
                format!("{} tracked, the last {} ms behind, within the threshold", health.tracked, health.max_lag_ms)
            }
            (0, 0) if health.tracked == 1 => "the one tracked peer is in step".to_string(),
            (0, 0) => format!("{} tracked peers are in step", health.tracked),
            (0, n) => format!("{n} of {} tracked peers have not confirmed yet", health.tracked),
            (n, _) => format!("{n} of {} tracked {}", health.tracked, lags(n)),
        };
        let names = |nodes: &[crate::id::NodeId]| -> Vec<String> { nodes.iter().map(ToString::to_string).collect() };
        let last: Map<String, Value> = (health.last_confirmation.iter())
            .map(|(node, at)| (node.to_string(), at.map_or(Value::Null, |at| json!(Timestamp(at)))))
            .collect();
        let data = json!({
            "trackedPeerCount": health.tracked,
            "peersWithNoConfirmation": names(&health.unconfirmed),
            "maxLagMs": health.max_lag_ms,
            "laggingPeers": names(&health.lagging),
            "lastSuccessfulConfirmationUpdateByPeer": last,
        });
        entry(status, description, data)
    }

    async fn storage_entry(&self) -> HealthEntry {
        let alarms = self.engine.borrow().counters().alarms;
        let recovered = self.engine.borrow().knowledge().recovered;
        match self.store.sizes().await {
            Ok(store) => {
                let data = json!({
                    "databaseBytes": store.database_bytes,
                    "walBytes": store.log_bytes, "freeBytes": store.free_bytes, "recoveredRows": recovered,
                    "digestAlarms": alarms,
                });
                let min_free = self.config.persistence.min_free_mib;
                let room = store.free_bytes.saturating_sub(min_free * 1024 * 1024);
                let short = room == 0;
                // Freed by somebody else: no write needs to be tried for that to be known.
                if room >= ROOM_BYTES && self.config.persistence.max_database_mib.is_none() {
                    self.store_health.has_room();
                }
                let (status, description) = match (recovered, self.store_health.refusal()) {
                    (_, Some(refusal)) => (HealthStatus::Unhealthy, refusal),
                    (_, None) if short => {
                        let free = store.free_bytes / 1024 / 1024;
                        let text = format!(
                            "{free} MiB are free, below Persistence.MinFreeMb = {min_free}: documents are refused"
                        );
                        (HealthStatus::Unhealthy, text)
                    }
                    (0, None) => (HealthStatus::Healthy, "the database answers".to_string()),
                    (n, None) => (HealthStatus::Degraded, format!("{n} rows wait in the recovered store")),
                };
                entry(status, description, data)
            }
            Err(error) => entry(HealthStatus::Unhealthy, error.to_string(), json!({ "code": error.code() })),
        }
    }

    fn clock_entry(&self) -> HealthEntry {
        let now = self.now();
        let engine = self.engine.borrow();
        let reading = engine.reading(now);
        let data = json!({ "believed": reading.believed, "synchronised": now.synchronised });
        match engine.clock_disagreement(now) {
            Some(ms) => {
                let description = format!("this clock is {ms} ms from what the synchronised peers say");
                entry(HealthStatus::Degraded, description, data)
            }
            None => entry(HealthStatus::Healthy, "no disagreement with believed peers".to_string(), data),
        }
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let engine = self.engine.borrow();
        let mut reasons = Vec::new();
        if engine.is_bootstrapping() {
            reasons.push("a bootstrap is under way; reads show the state before it".to_string());
        }
        reasons.extend(engine.catching_up_with().iter().map(|node| format!("catching up with {node}")));
        reasons.extend(self.store_health.refusal());
        Readiness::new(reasons)
    }
}

fn entry(status: HealthStatus, description: String, data: Value) -> HealthEntry {
    let data = match data {
        Value::Object(data) => Some(data),
        _ => None,
    };
    HealthEntry { status, description: Some(description), duration_ms: None, data }
}
