//! Gathers what every part has counted, for monitoring.

use super::shell::Shell;
use crate::net::http::Counters as HttpCounters;
use crate::proto::PeerView;
use crate::report::{HealthStatus, Metrics};
use crate::time::Millis;
use crate::wire::PROTOCOL_VERSION;
use std::cell::Cell;
use std::string::{String, ToString};
use std::vec::Vec;

fn seconds(ms: Millis) -> f64 {
    ms as f64 / 1000.0
}

impl Shell {
    /// Everything that is counted. The names of peers are labels only where `names` says so; there are at most as many
    /// as a cluster has members.
    pub(crate) async fn metrics(&self, names: bool) -> Metrics {
        let mut metrics = Metrics::default();
        let release = [(env!("CARGO_PKG_VERSION").to_string(), true)];
        metrics.gauges("cbddc_build_info", "The release of the program.", "version", release);
        metrics.gauge("cbddc_protocol_version", "The newest protocol that it speaks.", u64::from(PROTOCOL_VERSION));
        let uptime = self.now().mono.saturating_sub(self.started_at);
        metrics.gauge("cbddc_uptime_seconds", "Since the start of the process.", seconds(uptime));
        self.health_metrics(&mut metrics).await;
        self.peer_metrics(&mut metrics, names);
        self.link_metrics(&mut metrics);
        self.queue_metrics(&mut metrics);
        self.cache_metrics(&mut metrics);
        self.store_metrics(&mut metrics).await;
        self.backup_metrics(&mut metrics);
        self.http_metrics(&mut metrics);
        self.clock_metrics(&mut metrics);
        metrics
    }

    async fn health_metrics(&self, metrics: &mut Metrics) {
        let figure = |status| match status {
            HealthStatus::Healthy => 0u64,
            HealthStatus::Degraded => 1,
            HealthStatus::Unhealthy => 2,
        };
        let report = self.health().await;
        let help = "The worst of the entries: 0 Healthy, 1 Degraded, 2 Unhealthy.";
        metrics.gauge("cbddc_health_status", help, figure(report.status));
        let entries = report.entries.into_iter().map(|(name, entry)| (name, figure(entry.status)));
        let help = "Each entry of the health report: 0 Healthy, 1 Degraded, 2 Unhealthy.";
        metrics.gauges("cbddc_health_entry_status", help, "entry", entries);
    }

    fn peer_metrics(&self, metrics: &mut Metrics, names: bool) {
        let peers = self.engine.borrow().peers(self.now());
        let tracked: Vec<&PeerView> = peers.iter().filter(|peer| peer.tracked).collect();
        let count = |which: &dyn Fn(&PeerView) -> bool| tracked.iter().filter(|peer| which(peer)).count();
        let threshold = self.in_force.borrow().cluster.lag_threshold_ms;
        metrics.gauge("cbddc_peers_tracked", "Members that are tracked.", tracked.len());
        metrics.gauge("cbddc_peers_linked", "Of these, linked now.", count(&|peer| peer.is_linked()));
        metrics.gauge(
            "cbddc_peers_unconfirmed",
            "Tracked members that have never confirmed anything.",
            count(&|peer| !peer.has_confirmed),
        );
        let help = "Tracked members that lag more than the threshold.";
        metrics.gauge("cbddc_peers_lagging", help, count(&|peer| peer.lag_ms > threshold));
        let most = |of: &dyn Fn(&PeerView) -> u64| tracked.iter().map(|peer| of(peer)).max().unwrap_or(0);
        let help = "Changes that the tracked member which lacks most has not confirmed.";
        metrics.gauge("cbddc_unconfirmed_changes", help, most(&|peer| peer.unconfirmed_changes));
        let help = "Age of the oldest change that a tracked member has not confirmed.";
        metrics.gauge("cbddc_unconfirmed_oldest_age_seconds", help, seconds(most(&|peer| peer.lag_ms)));
        if names {
            let each = |of: &dyn Fn(&PeerView) -> f64| -> Vec<(String, f64)> {
                tracked.iter().map(|peer| (peer.node_id.to_string(), of(peer))).collect()
            };
            let help = "1 while the tracked member is linked.";
            metrics.gauges("cbddc_peer_linked", help, "peer", each(&|peer| f64::from(u8::from(peer.is_linked()))));
            let help = "Age of the oldest change that the tracked member has not confirmed.";
            metrics.gauges("cbddc_peer_lag_seconds", help, "peer", each(&|peer| seconds(peer.lag_ms)));
            let help = "Changes that the tracked member has not confirmed.";
            let lacks = each(&|peer| peer.unconfirmed_changes as f64);
            metrics.gauges("cbddc_peer_unconfirmed_changes", help, "peer", lacks);
        }
        let counters = self.engine.borrow().counters();
        metrics.counter("cbddc_digest_alarms_total", "Equal vectors with different documents.", counters.alarms);
        metrics.counter("cbddc_rows_sent_total", "Rows sent to peers.", counters.rows_sent);
        metrics.counter("cbddc_rows_received_total", "Rows received from peers.", counters.rows_received);
        metrics.counter("cbddc_documents_expired_total", "Documents whose time was over.", counters.expired);
        let help = "Tombstones that nobody needs any more.";
        metrics.counter("cbddc_tombstones_dropped_total", help, counters.tombstones_dropped);
    }

    fn link_metrics(&self, metrics: &mut Metrics) {
        let (links, counters) = (&self.links, self.engine.borrow().counters());
        metrics.gauge("cbddc_links_open", "Links to peers.", links.count());
        metrics.counter("cbddc_links_opened_total", "Links that became sessions.", counters.sessions);
        let help = "Links given up for another member, where there are more members than slots.";
        metrics.counter("cbddc_links_rotated_total", help, counters.rotations);
        let help = "Connections refused: another cluster key, garbage, or no answer in time.";
        metrics.counter("cbddc_strangers_refused_total", help, links.refused.get());
        let beacons = [
            ("accepted".to_string(), counters.beacons),
            ("other_cluster".to_string(), counters.other_cluster),
            ("foreign".to_string(), counters.foreign),
        ];
        metrics.counters("cbddc_beacons_total", "Datagrams received, by what they were.", "kind", beacons);
        let retries =
            [("dial".to_string(), links.dials_failed.get()), ("queue".to_string(), self.offline.status().retries)];
        metrics.counters("cbddc_retries_total", "Attempts that failed and are made again.", "operation", retries);
        let help = "Bytes received on links, encryption included.";
        metrics.counter("cbddc_link_received_bytes_total", help, links.bytes_in.get());
        metrics.counter(
            "cbddc_link_sent_bytes_total",
            "Bytes sent on links, encryption included.",
            links.bytes_out.get(),
        );
    }

    fn queue_metrics(&self, metrics: &mut Metrics) {
        let queue = self.queue_status();
        for (name, help, now) in [
            ("cbddc_queue_operations", "Operations that wait in the offline queue.", queue.length),
            ("cbddc_queue_capacity_operations", "Operations that fit.", queue.capacity),
            ("cbddc_queue_bytes", "Bytes that wait in the offline queue.", queue.bytes),
            ("cbddc_queue_capacity_bytes", "Bytes that fit.", queue.capacity_bytes),
        ] {
            metrics.gauge(name, help, now);
        }
        for (name, help, sum) in [
            ("cbddc_queue_accepted_total", "Operations that it has accepted.", queue.accepted),
            ("cbddc_queue_delivered_total", "Of all that waited, carried out.", queue.delivered),
            ("cbddc_queue_refused_total", "Operations refused because it was full.", queue.refused),
            ("cbddc_queue_lost_total", "Operations of the last stop that were damaged in the spill file.", queue.lost),
        ] {
            metrics.counter(name, help, sum);
        }
    }

    fn cache_metrics(&self, metrics: &mut Metrics) {
        let cache = self.reads.statistics();
        metrics.counter("cbddc_cache_hits_total", "Reads that the document cache answered.", cache.hits);
        metrics.counter("cbddc_cache_misses_total", "Reads that went to the store.", cache.misses);
        metrics.counter("cbddc_cache_evictions_total", "Documents that made room for others.", cache.evictions);
        metrics.gauge("cbddc_cache_bytes", "Bytes held by the document cache.", cache.bytes);
        metrics.gauge("cbddc_cache_capacity_bytes", "Bytes that it may hold.", cache.bytes_max);
    }

    async fn store_metrics(&self, metrics: &mut Metrics) {
        // Not known while the disk does not answer; the health entry says why.
        let sizes = self.store.sizes().await.ok();
        metrics.known_gauge(
            "cbddc_store_database_bytes",
            "Bytes of the database file.",
            sizes.map(|sizes| sizes.database_bytes),
        );
        let help = "Bytes of the write-ahead log's file.";
        metrics.known_gauge("cbddc_store_wal_bytes", help, sizes.map(|sizes| sizes.log_bytes));
        let help = "Free bytes of the file system below.";
        metrics.known_gauge("cbddc_store_free_bytes", help, sizes.map(|sizes| sizes.free_bytes));
        let (tombstones, recovered) = {
            let engine = self.engine.borrow();
            (engine.knowledge().tombstones, engine.knowledge().recovered)
        };
        metrics.gauge("cbddc_store_tombstones", "Deleted documents that are remembered.", tombstones);
        let help = "Rows kept aside by a bootstrap, that wait for a decision.";
        metrics.gauge("cbddc_recovered_rows", help, recovered);
        let store = self.store.counters();
        for (name, help, sum) in [
            ("cbddc_store_commits_total", "Groups of requests that went to the disk together.", store.commits),
            ("cbddc_store_requests_total", "Requests in them.", store.requests),
            ("cbddc_store_checkpoints_total", "Times that the write-ahead log was copied back.", store.checkpoints),
            ("cbddc_store_checkpoints_put_off_total", "Times that it could not be.", store.checkpoints_put_off),
            ("cbddc_store_reopened_total", "Times that it was opened again after an I/O error.", store.reopened),
        ] {
            metrics.counter(name, help, sum);
        }
        let help = "When it last was, by the node's clock; no sample before the first time.";
        let last = store.last_checkpoint.map(seconds);
        metrics.known_gauge("cbddc_store_last_checkpoint_timestamp_seconds", help, last);
        let help = "Rows that are damaged on disk, as far as is known.";
        metrics.gauge("cbddc_store_damaged_rows", help, self.damage.rows());
        let help = "Damage found on disk, by the scrub or a check.";
        metrics.counter("cbddc_store_damage_found_total", help, self.damage.found());
        let help = "Rows that the scrub has looked at.";
        metrics.counter("cbddc_store_scrubbed_rows_total", help, self.damage.scrubbed());
    }

    fn http_metrics(&self, metrics: &mut Metrics) {
        let listeners = self.http_counters.borrow();
        let sum =
            |of: fn(&HttpCounters) -> &Cell<u64>| listeners.iter().map(|counters| of(counters).get()).sum::<u64>();
        metrics.counter("cbddc_http_requests_total", "Requests answered.", sum(|counters| &counters.requests));
        let errors = [
            ("4xx".to_string(), sum(|counters| &counters.client_errors)),
            ("5xx".to_string(), sum(|counters| &counters.server_errors)),
        ];
        metrics.counters("cbddc_http_errors_total", "Of these, answered with an error.", "class", errors);
        let connections = sum(|counters| &counters.connections);
        metrics.counter("cbddc_http_connections_total", "Connections accepted.", connections);
        let help = "Connections refused at the bound on their number.";
        metrics.counter("cbddc_http_connections_refused_total", help, sum(|counters| &counters.refused));
        let help = "Connections closed to make room: idle ones, and ones that said nothing.";
        metrics.counter("cbddc_http_connections_evicted_total", help, sum(|counters| &counters.evicted));
        let help = "Connections that moved too little while others waited for them.";
        metrics.counter("cbddc_http_connections_slow_total", help, sum(|counters| &counters.slow));
    }

    fn clock_metrics(&self, metrics: &mut Metrics) {
        let now = self.now();
        let reading = self.engine.borrow().reading(now);
        metrics.gauge("cbddc_clock_seconds", "The node's best time of day, since 1970.", seconds(reading.millis));
        metrics.gauge("cbddc_clock_believed", "1 while that time is believed.", reading.believed);
        let help = "1 while the kernel calls the wall clock synchronised.";
        metrics.gauge("cbddc_clock_synchronised", help, now.synchronised);
        let offset = (now.wall as i64 - reading.millis as i64) as f64 / 1000.0;
        metrics.gauge("cbddc_clock_wall_offset_seconds", "The wall clock minus the node's best time.", offset);
    }
}
