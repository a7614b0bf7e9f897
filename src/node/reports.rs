//! Status and peers, as callers see them.

use super::events::OTHER_KEY;
use super::shell::Shell;
use crate::proto::{LinkState, PeerView, Standing, Target};
use crate::report::{
    CacheStatus, ClockStatus, HeardAddress, LinksStatus, PeerReport, PeersReport, QueueStatus, Status, StoreStatus,
    Timestamp,
};
use crate::wire::BeaconError;
use std::format;
use std::string::ToString;
use std::vec::Vec;

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
        let linked = engine.peers(now).iter().filter(|peer| peer.is_linked()).count() as u64;
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
            queue: self.queue_status(),
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

    /// The offline queue as it is now.
    pub(super) fn queue_status(&self) -> QueueStatus {
        self.offline.status()
    }

    pub(crate) fn peers_report(&self) -> PeersReport {
        let now = self.now();
        let engine = self.engine.borrow();
        let tracker = self.tracker.borrow();
        let failures: Vec<(&str, &str)> = tracker.failures(now.mono).collect();
        let refusing = engine.refused_by(now);
        let why_not = |peer: &PeerView| {
            if let Some(refusal) = refusing.iter().find(|refusal| refusal.device == peer.device) {
                return Some(self.said_of_refusing(refusal));
            }
            let configured = match peer.target {
                Some(Target::Fixed(_)) => peer.target.map(|target| self.target(target, &[])),
                _ => None,
            };
            let address = peer.address.map(|address| address.to_string());
            let its = |known: &str| Some(known) == configured.as_deref() || Some(known) == address.as_deref();
            failures.iter().find(|(known, _)| its(known)).map(|(_, reason)| (*reason).to_string())
        };
        let stands = |peer: &PeerView| !matches!(peer.standing, Some(Standing::Replaced | Standing::Revoked));
        let mut peers: Vec<PeerReport> = (engine.peers(now).into_iter())
            .filter(stands)
            .map(|peer| {
                let state = match peer.link {
                    LinkState::Open => "open",
                    _ if !peer.tracked => "untracked",
                    LinkState::Connecting => "connecting",
                    LinkState::Backoff => "backoff",
                    LinkState::Closed => "closed",
                };
                let last_error = (peer.link != LinkState::Open).then(|| why_not(&peer)).flatten();
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
                    last_error,
                }
            })
            .collect();
        peers.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        let strangers = engine.strangers().into_iter().map(|(address, reason, count)| {
            let reason = match reason {
                BeaconError::OtherCluster => {
                    format!("{reason} ({count} beacons): {OTHER_KEY}")
                }
                BeaconError::Foreign | BeaconError::Forged => format!("{reason} ({count} datagrams)"),
            };
            HeardAddress { address: address.to_string(), reason }
        });
        let failures = failures
            .iter()
            .map(|(address, reason)| HeardAddress { address: (*address).to_string(), reason: (*reason).to_string() });
        let unlinked = engine.heard().into_iter().filter(|(_, _, linked)| !linked).filter_map(|(addresses, _, _)| {
            let address = addresses.first()?.to_string();
            Some(HeardAddress { address, reason: "a member, not linked yet".to_string() })
        });
        let refused = (engine.refused(now).into_iter()).map(|refusal| HeardAddress {
            address: refusal.address.to_string(),
            reason: self.said_of_refused(&refusal),
        });
        let refused_by = engine.refused_by(now).into_iter().map(|refusal| {
            let reason = format!("this node is refused there: {}", self.said_of_refusing(&refusal));
            HeardAddress { address: refusal.address.to_string(), reason }
        });
        // The best that is known of each address, once.
        let mut heard: Vec<HeardAddress> = Vec::new();
        for one in refused.chain(refused_by).chain(strangers).chain(failures).chain(unlinked) {
            if heard.iter().all(|known| known.address != one.address) {
                heard.push(one);
            }
        }
        PeersReport { peers, heard }
    }
}
