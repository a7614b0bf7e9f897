//! The health report: what was looked at, one entry each, and whether the node takes work.

use super::shell::Shell;
use crate::clock;
use crate::log::warn;
use crate::proto::Refusal;
use crate::report::{HealthEntry, HealthReport, HealthStatus, PeerConfirmation, QueueStatus, Readiness, Timestamp};
use crate::store::Sizes;
use serde_json::{Value, json};
use smol::Timer;
use std::collections::BTreeMap;
use std::format;
use std::future::Future;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// Bytes above `MinFreeMb` from which on a store that has refused a document for want of space is thought to take them again.
const ROOM_BYTES: u64 = 4 * 1024 * 1024;

/// How often whoever waits for the node to be in step looks whether it is.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How often it is said what of the log was left out.
const SWEEP: Duration = Duration::from_secs(20);

impl Shell {
    pub(crate) async fn health(&self) -> HealthReport {
        let began = clock::monotonic_us();
        let storage = timed(self.storage_entry()).await;
        let failing = storage.description.as_deref().unwrap_or("the store does not do its work").to_string();
        let persistence = if storage.status == HealthStatus::Unhealthy { Err(failing.as_str()) } else { Ok(()) };
        let entries = [
            ("cbddc", timed(async { self.peers_entry(persistence) }).await),
            ("members", timed(async { self.members_entry() }).await),
            ("storage", storage),
            ("queue", timed(async { queue_entry(&self.queue_status()) }).await),
            ("clock", timed(async { self.clock_entry() }).await),
            ("backup", timed(self.backup_entry()).await),
            ("recovered", timed(async { self.recovered_entry() }).await),
        ];
        let entries: BTreeMap<String, HealthEntry> =
            entries.into_iter().map(|(name, entry)| (name.to_string(), entry)).collect();
        HealthReport::new(entries, milliseconds_since(began))
    }

    /// Looks at its health every few minutes and warns where it is not well: somebody may read the log who asks nothing.
    pub(super) async fn watch_health(self: Rc<Self>) {
        loop {
            let interval = Duration::from_millis(self.in_force.borrow().cluster.health_check_interval_ms);
            let reloaded = self.reloads.next();
            let due = async {
                Timer::after(interval).await;
                true
            };
            let earlier = async {
                let _ = reloaded.recv().await;
                false
            };
            if !smol::future::or(due, earlier).await {
                continue;
            }
            if let Some(warning) = warning(&self.health().await) {
                warn!("{}", warning);
            }
        }
    }

    /// Says now and then what of the log was left out.
    pub(super) async fn sweep_log(self: Rc<Self>) {
        loop {
            Timer::after(SWEEP).await;
            crate::log::sweep();
        }
    }

    /// The entry `cbddc`: members and their confirmations.
    fn peers_entry(&self, persistence: Result<(), &str>) -> HealthEntry {
        let peers: Vec<PeerConfirmation> = (self.engine.borrow().peers(self.now()).into_iter())
            .filter(|peer| peer.tracked)
            .map(|peer| PeerConfirmation {
                node_id: peer.node_id.to_string(),
                has_confirmed: peer.has_confirmed,
                lag_ms: peer.lag_ms,
                last_confirmation: peer.last_confirmation.map(Timestamp),
            })
            .collect();
        self.health_check.get().check(&peers, persistence)
    }

    /// The entry `members`: who was refused, and whether this node is.
    fn members_entry(&self) -> HealthEntry {
        let (now, engine) = (self.now(), self.engine.borrow());
        let (refused, refused_by) = (engine.refused(now), engine.refused_by(now));
        let names = |refusals: &[Refusal]| -> Vec<String> {
            let named = refusals.iter().filter_map(|refusal| refusal.node_id.as_ref());
            named.map(ToString::to_string).collect()
        };
        let data = json!({ "refused": names(&refused), "refusedBy": names(&refused_by) });
        let (status, text) = match (refused_by.first(), refused.first()) {
            (Some(by), _) => (HealthStatus::Unhealthy, self.said_of_refusing(by)),
            (None, Some(refusal)) => (HealthStatus::Degraded, self.said_of_refused(refusal)),
            (None, None) => (HealthStatus::Healthy, "nobody is refused".to_string()),
        };
        HealthEntry::new(status, text, data)
    }

    async fn storage_entry(&self) -> HealthEntry {
        let alarms = self.engine.borrow().counters().alarms;
        match self.store.sizes().await {
            Ok(store) => {
                let documents = self.damage.documents().into_iter();
                let documents: Vec<Value> =
                    documents.map(|(collection, key)| json!({ "collection": collection, "key": key })).collect();
                let data = json!({
                    "databaseBytes": store.database_bytes, "walBytes": store.log_bytes, "freeBytes": store.free_bytes,
                    "digestAlarms": alarms, "damagedRows": self.damage.rows(),
                    "damagedDocuments": documents, "reusableBytes": store.reusable_bytes,
                    "setAside": store.set_aside, "setAsideBytes": store.set_aside_bytes,
                });
                let min_free = self.config.persistence.min_free_mib;
                let room = store.free_bytes.saturating_sub(min_free * 1024 * 1024);
                // Freed by somebody else: no write needs to be tried for that to be known.
                let known = room >= ROOM_BYTES && self.config.persistence.max_database_mib.is_none();
                if known && self.store_health.has_room() {
                    self.offline.try_again();
                }
                if let Some(refusal) = self.store_health.refusal() {
                    return HealthEntry::new(HealthStatus::Unhealthy, refusal, data);
                }
                if room == 0 {
                    let (status, text) = said_of_no_room(&store, min_free);
                    return HealthEntry::new(status, text + &said_of_set_aside(&store), data);
                }
                self.damage.indexes_mended(self.store.counters().mended);
                if self.store.counters().recovered > 0 && self.incident.borrow().is_none() {
                    let incident = self.store.incident().await;
                    // What was said of the structure was said of the database that is set aside.
                    self.structure_is_whole();
                    *self.incident.borrow_mut() = incident;
                }
                if let Some(incident) = &*self.incident.borrow() {
                    let next = "look at the documents, then 'cbddc recovered acknowledge'";
                    return HealthEntry::new(HealthStatus::Degraded, format!("{}: {next}", incident.said()), data);
                }
                if let Some(damage) = self.damage.said() {
                    return HealthEntry::new(HealthStatus::Degraded, damage, data);
                }
                let text = format!("the database answers{}", said_of_set_aside(&store));
                HealthEntry::new(HealthStatus::Healthy, text, data)
            }
            Err(error) => HealthEntry::new(HealthStatus::Unhealthy, error.to_string(), json!({ "code": error.code() })),
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
                HealthEntry::new(HealthStatus::Degraded, description, data)
            }
            None => HealthEntry::new(HealthStatus::Healthy, "no disagreement with believed peers", data),
        }
    }

    fn recovered_entry(&self) -> HealthEntry {
        let rows = self.engine.borrow().knowledge().recovered;
        let data = json!({ "rows": rows });
        let text = match rows {
            0 => return HealthEntry::new(HealthStatus::Healthy, "no rows wait for a decision", data),
            1 => "1 row was kept aside when this node took the state of a peer".to_string(),
            n => format!("{n} rows were kept aside when this node took the state of a peer"),
        };
        let next = "look with 'cbddc recovered list', then 'cbddc recovered apply' or 'cbddc recovered drop'";
        HealthEntry::new(HealthStatus::Degraded, format!("{text}: {next}"), data)
    }

    /// Whether it takes work. With `sync` it also is to have met whom it sees.
    pub(crate) fn readiness(&self, sync: bool) -> Readiness {
        let engine = self.engine.borrow();
        let mut reasons = Vec::new();
        if self.stopping.is_closed() {
            reasons.push("the node stops".to_string());
        }
        if sync && engine.is_looking_around(self.now()) {
            reasons.push("it has just started and is still looking for its peers".to_string());
        }
        if sync {
            reasons.extend(
                engine
                    .to_be_met(self.now())
                    .iter()
                    .map(|address| format!("not in session yet with the peer at {address}")),
            );
        }
        if engine.is_bootstrapping() {
            reasons.push("a bootstrap is under way; reads show the state before it".to_string());
        }
        reasons.extend(engine.catching_up_with().iter().map(|node| format!("catching up with {node}")));
        reasons.extend(self.store_health.refusal());
        Readiness::new(reasons)
    }

    /// Waits until the node has caught up with the peers that it sees, at most so long, and less where the node stops.
    pub(crate) async fn in_step(&self, wait: Duration) -> Readiness {
        let until = self.now().mono.saturating_add(wait.as_millis() as u64);
        loop {
            let readiness = self.readiness(true);
            if readiness.ready || self.now().mono >= until || self.stopping.is_closed() {
                return readiness;
            }
            // What it depends on changes in many places, and few ask: it is looked at again and again.
            Timer::after(LOOK_AGAIN).await;
        }
    }
}

/// There is no room on the disk above what must stay free: what that means for documents.
fn said_of_no_room(store: &Sizes, min_free: u64) -> (HealthStatus, String) {
    let free = store.free_bytes / 1024 / 1024;
    let short = match min_free {
        0 => "the disk is full".to_string(),
        _ => format!("{free} MiB are free, not more than Persistence.MinFreeMb = {min_free}"),
    };
    match store.reusable_bytes / 1024 {
        0 => (HealthStatus::Unhealthy, format!("{short}: documents are refused, free some space")),
        kib => {
            let text = format!(
                "{short}: documents are taken as long as the {kib} KiB of free pages within the database last, free some space"
            );
            (HealthStatus::Degraded, text)
        }
    }
}

/// What was set aside is never deleted by the node: it may be the only copy of something.
fn said_of_set_aside(store: &Sizes) -> String {
    let mib = store.set_aside_bytes.div_ceil(1024 * 1024);
    match store.set_aside {
        0 => String::new(),
        1 => format!("; a database that was set aside takes {mib} MiB beside it, remove it when you are sure"),
        n => format!("; {n} databases that were set aside take {mib} MiB beside it, remove them when you are sure"),
    }
}

/// One line about everything that is not well, with the peers that lag or have not confirmed yet.
fn warning(report: &HealthReport) -> Option<String> {
    if report.status == HealthStatus::Healthy {
        return None;
    }
    let peers = report.entries.get("cbddc").and_then(|entry| entry.data.as_ref());
    let names = |field: &str| -> String {
        let list = peers.and_then(|data| data.get(field)).and_then(Value::as_array);
        list.map_or_else(String::new, |list| list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","))
    };
    let unwell = report.entries.iter().filter(|(_, entry)| entry.status > HealthStatus::Healthy);
    let said = unwell.map(|(name, entry)| format!("{name}: {}", entry.description.as_deref().unwrap_or_default()));
    Some(format!(
        "health check status={} lagging=\"{}\" unconfirmed=\"{}\", {}",
        report.status,
        names("laggingPeers"),
        names("peersWithNoConfirmation"),
        said.collect::<Vec<_>>().join("; ")
    ))
}

fn queue_entry(queue: &QueueStatus) -> HealthEntry {
    let data = json!({ "length": queue.length, "capacity": queue.capacity, "bytes": queue.bytes, "lost": queue.lost });
    if queue.lost > 0 {
        let text = format!(
            "{} operations that the last stop had kept were damaged in the spill file and are lost",
            queue.lost
        );
        return HealthEntry::new(HealthStatus::Degraded, text, data);
    }
    if !queue.enabled && queue.length == 0 {
        return HealthEntry::new(HealthStatus::Healthy, "the offline queue is switched off", data);
    }
    let (status, text) = match queue.length {
        0 if queue.capacity_bytes == 0 => {
            let text = "there is no room for the spill file, so nothing can be queued: make room and restart the node";
            (HealthStatus::Degraded, text.to_string())
        }
        0 => (HealthStatus::Healthy, "no operation waits".to_string()),
        n if n >= queue.capacity => (HealthStatus::Degraded, format!("the queue is full, {n} operations wait")),
        n => (HealthStatus::Degraded, format!("{n} operations wait until the store takes them")),
    };
    HealthEntry::new(status, text, data)
}

async fn timed(entry: impl Future<Output = HealthEntry>) -> HealthEntry {
    let began = clock::monotonic_us();
    let entry = entry.await;
    HealthEntry { duration_ms: Some(milliseconds_since(began)), ..entry }
}

fn milliseconds_since(began_us: u64) -> f64 {
    clock::monotonic_us().saturating_sub(began_us) as f64 / 1000.0
}
