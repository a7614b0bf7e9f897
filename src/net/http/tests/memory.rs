//! A service in memory, that can be told to fail.

use super::super::Service;
use crate::document::{
    Accepted, Change, Changes, ChangesQuery, CollectionSummary, Condition, Confirmed, Document, PAGE_BYTES_MAX, Page,
    Query, Queued, RecoveredChoice, RecoveredContent, RecoveredOutcome, RecoveredPage, RecoveredRow,
    RecoveredSelection, Since, Stored, Version, WriteOp,
};
use crate::error::{Error, RequestKind};
use crate::id::ReplicaId;
use crate::report::{
    BackupReport, HealthEntry, HealthReport, HealthStatus, HeardAddress, IntegrityReport, MemberStatus, Metrics,
    PeersReport, Readiness, Replacement, SiteReport, Status,
};
use crate::time::{Millis, Stamp};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) version: Version,
    pub(crate) value: Vec<u8>,
    pub(crate) ttl: Option<Millis>,
}

type MakeError = fn() -> Error;

/// Documents in a map, and switches.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) documents: RefCell<BTreeMap<(String, String), Held>>,
    pub(crate) stamp: Cell<u64>,
    /// Sizes of the groups that were written.
    pub(crate) groups: RefCell<Vec<usize>>,
    /// Writes never end.
    pub(crate) stuck: Cell<bool>,
    /// Each operation fails so.
    pub(crate) op_error: Cell<Option<MakeError>>,
    /// Whole groups fail so, once so many have been written.
    pub(crate) group_error: Cell<Option<(usize, MakeError)>>,
    pub(crate) health: Cell<HealthStatus>,
    pub(crate) not_ready: Cell<bool>,
    /// Peers that confirm at once whatever is written.
    pub(crate) confirming: Cell<usize>,
    /// The store refuses, and what is written waits here.
    pub(crate) queues: Cell<bool>,
    pub(crate) waiting: RefCell<BTreeMap<(String, String), Queued>>,
    /// The change feed fails.
    pub(crate) feed_error: Cell<bool>,
}

impl Memory {
    fn apply(&self, op: WriteOp) -> Result<Stored, Error> {
        if let Some(error) = self.op_error.get() {
            return Err(error());
        }
        let mut documents = self.documents.borrow_mut();
        let at = (op.collection, op.key);
        let found = documents.get(&at).map(|held| held.version);
        let holds = match op.condition {
            Condition::Always => true,
            Condition::Absent => found.is_none(),
            Condition::Present => found.is_some(),
            Condition::At(version) => found == Some(version),
        };
        if !holds {
            return Err(Error::Concurrency { collection: at.0, key: at.1 });
        }
        self.stamp.set(self.stamp.get() + 1);
        let version = Version { stamp: Stamp::from_bits(self.stamp.get()), origin: ReplicaId::from_bits(7) };
        let seq = if op.value.is_some() || found.is_some() { self.stamp.get() } else { 0 };
        match op.value {
            Some(value) => documents.insert(at, Held { version, value, ttl: op.ttl }),
            None => documents.remove(&at),
        };
        Ok(Stored { version, existed: found.is_some(), seq })
    }

    fn page<'a>(&self, found: impl Iterator<Item = (&'a (String, String), &'a Held)>, limit: usize) -> Page {
        let mut page = Page::default();
        let mut bytes = 0;
        for ((_, key), held) in found {
            if page.documents.len() == limit || (bytes > 0 && bytes + held.value.len() > PAGE_BYTES_MAX) {
                page.next = page.documents.last().map(|document: &Document| document.key.clone());
                break;
            }
            bytes += held.value.len();
            page.documents.push(Document { key: key.clone(), version: held.version, value: held.value.clone() });
        }
        page
    }
}

impl Service for Memory {
    async fn write(&self, ops: Vec<WriteOp>) -> Result<Vec<Result<Stored, Error>>, Error> {
        if self.stuck.get() {
            return smol::future::pending().await;
        }
        if let Some((after, error)) = self.group_error.get()
            && self.groups.borrow().len() >= after
        {
            return Err(error());
        }
        self.groups.borrow_mut().push(ops.len());
        smol::future::yield_now().await;
        Ok(ops.into_iter().map(|op| self.apply(op)).collect())
    }
    fn is_local(&self, collection: &str) -> bool {
        collection == "scratch"
    }
    async fn confirmed(&self, _: &Stored, peers: usize, wait: Duration) -> Confirmed {
        let by: Vec<String> = (1..=self.confirming.get()).map(|number| std::format!("gateway-{number:02}")).collect();
        if by.len() < peers {
            smol::Timer::after(wait).await;
        }
        Confirmed { enough: by.len() >= peers, by }
    }
    async fn accept(&self, op: WriteOp) -> Result<Accepted, Error> {
        if self.queues.get() {
            let queued = op.value.map_or(Queued::Delete, Queued::Put);
            self.waiting.borrow_mut().insert((op.collection, op.key), queued);
            return Ok(Accepted::Queued);
        }
        let stored = self.write(Vec::from([op])).await?.pop();
        stored.unwrap_or_else(|| Err(Error::persistence("nothing", None))).map(Accepted::Stored)
    }
    fn queued(&self, collection: &str, key: &str) -> Option<Queued> {
        self.waiting.borrow().get(&(collection.to_string(), key.to_string())).cloned()
    }
    async fn get(&self, collection: &str, key: &str) -> Result<Option<Document>, Error> {
        let documents = self.documents.borrow();
        let held = documents.get(&(collection.to_string(), key.to_string()));
        Ok(held.map(|held| Document { key: key.to_string(), version: held.version, value: held.value.clone() }))
    }
    async fn get_many(&self, collection: &str, keys: &[String]) -> Result<Page, Error> {
        let documents = self.documents.borrow();
        let found = documents.iter().filter(|((c, key), _)| c == collection && keys.contains(key));
        Ok(self.page(found, usize::MAX))
    }
    async fn list(&self, collection: &str, query: &Query) -> Result<Page, Error> {
        let documents = self.documents.borrow();
        let wanted = |(at, _): &(&(String, String), &Held)| {
            let beyond = |after: &String| if query.reverse { at.1 < *after } else { at.1 > *after };
            at.0 == collection && at.1.starts_with(&query.prefix) && query.after.as_ref().is_none_or(beyond)
        };
        let found = documents.iter().filter(wanted);
        Ok(if query.reverse { self.page(found.rev(), query.limit) } else { self.page(found, query.limit) })
    }
    async fn collections(&self) -> Result<Vec<CollectionSummary>, Error> {
        let mut counts = BTreeMap::<String, u64>::new();
        self.documents.borrow().keys().for_each(|(name, _)| *counts.entry(name.clone()).or_default() += 1);
        Ok(counts.into_iter().map(|(name, documents)| CollectionSummary { name, documents }).collect())
    }
    /// The documents of this moment once, with their place as token; then it waits.
    async fn changes(&self, query: &ChangesQuery) -> Result<Changes, Error> {
        let after = match &query.since {
            Since::Start => 0,
            Since::Now => usize::MAX,
            Since::Token(token) => {
                token.parse().map_err(|_| Error::TokenExpired { message: "not one of ours".to_string() })?
            }
        };
        let count = self.documents.borrow().len();
        let found: Vec<Change> = (self.documents.borrow().iter().enumerate().skip(after).take(query.limit))
            .map(|(at, ((collection, key), held))| Change {
                collection: collection.clone(),
                key: key.clone(),
                version: held.version,
                value: (held.value != b"null").then(|| held.value.clone()),
                token: (at + 1).to_string(),
            })
            .collect();
        let (next, more) = (after.min(count) + found.len(), after.saturating_add(found.len()) < count);
        if self.feed_error.get() {
            return Err(Error::persistence("the disk is gone", None));
        }
        if found.is_empty() {
            smol::Timer::after(query.wait).await;
        }
        Ok(Changes { changes: found, next: next.to_string(), more, damaged: 0, missing: None })
    }
    async fn status(&self) -> Status {
        Status { node_id: "gateway-01".to_string(), ..Status::default() }
    }
    async fn peers(&self) -> PeersReport {
        let heard = HeardAddress { address: "10.0.0.9:5000".to_string(), reason: "another cluster key".to_string() };
        PeersReport { peers: Vec::new(), heard: Vec::from([heard]) }
    }
    async fn site(&self, _: Duration) -> SiteReport {
        let member = MemberStatus { node_id: "gateway-01".to_string(), ..MemberStatus::default() };
        SiteReport { members: Vec::from([member]) }
    }
    async fn untrack(&self, node_id: &str) -> Result<(), Error> {
        if node_id == "gateway 07" { Ok(()) } else { Err(no_such_peer()) }
    }
    async fn replace(&self, node_id: &str) -> Result<Replacement, Error> {
        let (device, address) = ("ab12".to_string(), "10.0.0.7:5000".to_string());
        let node_id = node_id.to_string();
        if node_id == "gateway 07" { Ok(Replacement { node_id, device, address }) } else { Err(no_such_peer()) }
    }
    /// One row waits, `x` of `users`.
    async fn recovered(&self, after: u64, _: usize) -> Result<RecoveredPage, Error> {
        if after > 0 {
            return Ok(RecoveredPage::default());
        }
        let content = RecoveredContent {
            scope: "replicated",
            collection: "users".to_string(),
            key: "x".to_string(),
            version: Version { stamp: Stamp::from_bits(1), origin: ReplicaId::from_bits(7) },
            value: Some(b"{\"kept\":1.50}".to_vec()),
            expires_at: None,
        };
        let damaged = RecoveredRow { number: 2, content: None };
        let rows = Vec::from([RecoveredRow { number: 1, content: Some(content) }, damaged]);
        Ok(RecoveredPage { rows, next: Some(2) })
    }
    async fn decide_recovered(
        &self,
        choice: RecoveredChoice,
        selection: RecoveredSelection,
    ) -> Result<RecoveredOutcome, Error> {
        let all = selection.keys.is_empty();
        let settled = u64::from(all || selection.keys.contains(&"x".to_string()));
        let written = if choice == RecoveredChoice::Apply { settled } else { 0 };
        Ok(RecoveredOutcome { written, settled, damaged: 0, waiting: 2 - settled })
    }
    async fn acknowledge(&self) -> Result<(), Error> {
        Ok(())
    }
    async fn backup(&self) -> Result<BackupReport, Error> {
        Ok(BackupReport {
            path: "/b/backup-20260115-000001.db".to_string(),
            bytes: 4096,
            duration_ms: 7,
            unchanged: false,
        })
    }
    async fn check_integrity(&self) -> Result<IntegrityReport, Error> {
        if let Some(error) = self.op_error.get() {
            return Err(error());
        }
        Ok(IntegrityReport { ok: true, rows: 3, complete: true, duration_ms: 7 })
    }
    async fn health(&self) -> HealthReport {
        let mut entry = HealthEntry::of(self.health.get());
        entry.description = Some("gateway-07 lags".to_string());
        HealthReport::new([("cbddc".to_string(), entry)].into(), 0.5)
    }
    async fn metrics(&self, names: bool) -> Metrics {
        let mut metrics = Metrics::default();
        metrics.gauge("cbddc_names", "Whether names are shown.", names);
        metrics
    }
    async fn in_step(&self, wait: Duration) -> Readiness {
        if self.not_ready.get() {
            smol::Timer::after(wait).await;
        }
        self.readiness()
    }
    fn readiness(&self) -> Readiness {
        Readiness::new(if self.not_ready.get() { Vec::from(["the store is opening".to_string()]) } else { Vec::new() })
    }
}

fn no_such_peer() -> Error {
    Error::Request { kind: RequestKind::NoSuchPeer, message: "no peer has that name".to_string() }
}
