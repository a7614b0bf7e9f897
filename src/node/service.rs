//! The node as the HTTP API sees it.

use super::shell::Shell;
use crate::document::{
    Accepted, Changes, ChangesQuery, CollectionSummary, Confirmed, Document, Page, Query, Queued, RecoveredChoice,
    RecoveredOutcome, RecoveredPage, RecoveredSelection, Stored, WriteOp,
};
use crate::error::Error;
use crate::net::http;
use crate::report::{
    BackupReport, HealthReport, IntegrityReport, Metrics, PeersReport, Readiness, Replacement, SiteReport, Status,
};
use crate::row::Scope;
use std::rc::Rc;
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

/// Takes each call to the shell.
pub(super) struct Service(pub(super) Rc<Shell>);

impl http::Service for Service {
    async fn write(&self, ops: Vec<WriteOp>) -> Result<Vec<Result<Stored, Error>>, Error> {
        self.0.write(ops).await
    }
    fn is_local(&self, collection: &str) -> bool {
        self.0.scope(collection) == Scope::Local
    }
    async fn confirmed(&self, stored: &Stored, peers: usize, wait: Duration) -> Confirmed {
        self.0.confirmed(stored, peers, wait).await
    }
    async fn accept(&self, op: WriteOp) -> Result<Accepted, Error> {
        self.0.accept(op).await
    }
    fn queued(&self, collection: &str, key: &str) -> Option<Queued> {
        self.0.offline.latest(collection, key)
    }
    async fn get(&self, collection: &str, key: &str) -> Result<Option<Document>, Error> {
        self.0.get(collection, key).await
    }
    async fn get_many(&self, collection: &str, keys: &[String]) -> Result<Page, Error> {
        self.0.get_many(collection, keys).await
    }
    async fn list(&self, collection: &str, query: &Query) -> Result<Page, Error> {
        self.0.list(collection, query).await
    }
    async fn collections(&self) -> Result<Vec<CollectionSummary>, Error> {
        self.0.collections().await
    }
    async fn changes(&self, query: &ChangesQuery) -> Result<Changes, Error> {
        self.0.changes(query).await
    }
    async fn status(&self) -> Status {
        self.0.status().await
    }
    async fn peers(&self) -> PeersReport {
        self.0.peers_report()
    }
    async fn site(&self, wait: Duration) -> SiteReport {
        self.0.site(wait).await
    }
    async fn untrack(&self, node_id: &str) -> Result<(), Error> {
        self.0.untrack(node_id).await
    }
    async fn replace(&self, node_id: &str) -> Result<Replacement, Error> {
        self.0.replace(node_id).await
    }
    async fn recovered(&self, after: u64, limit: usize) -> Result<RecoveredPage, Error> {
        self.0.recovered(after, limit).await
    }
    async fn decide_recovered(
        &self,
        choice: RecoveredChoice,
        selection: RecoveredSelection,
    ) -> Result<RecoveredOutcome, Error> {
        self.0.decide_recovered(choice, selection).await
    }
    async fn acknowledge(&self) -> Result<(), Error> {
        self.0.acknowledge().await
    }
    async fn backup(&self) -> Result<BackupReport, Error> {
        self.0.backup().await
    }
    async fn check_integrity(&self) -> Result<IntegrityReport, Error> {
        self.0.check_integrity().await
    }
    async fn health(&self) -> HealthReport {
        self.0.health().await
    }
    async fn metrics(&self, names: bool) -> Metrics {
        self.0.metrics(names).await
    }
    fn readiness(&self) -> Readiness {
        self.0.readiness(false)
    }
    async fn in_step(&self, wait: Duration) -> Readiness {
        self.0.in_step(wait).await
    }
}
