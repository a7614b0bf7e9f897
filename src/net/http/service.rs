//! What the server asks of a node.

use crate::document::{
    Accepted, Changes, ChangesQuery, CollectionSummary, Confirmed, Document, Page, Query, Queued, RecoveredChoice,
    RecoveredOutcome, RecoveredPage, RecoveredSelection, Stored, WriteOp,
};
use crate::error::Error;
use crate::report::{
    BackupReport, HealthReport, IntegrityReport, Metrics, PeersReport, Readiness, Replacement, SiteReport, Status,
};
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

/// A node, as the HTTP API sees it. Called on one thread; dropping a future means that nobody waits for it any more,
/// not that the operation is undone.
#[allow(async_fn_in_trait, reason = "one thread: no future needs to be Send")]
pub(crate) trait Service: 'static {
    /// Writes in this order, as one group. Each has its own result, in the same order and number; an outer error means
    /// that the outcome of all is that error. A result is given once it is on disk.
    async fn write(&self, ops: Vec<WriteOp>) -> Result<Vec<Result<Stored, Error>>, Error>;
    /// Whether a collection never leaves the node.
    fn is_local(&self, collection: &str) -> bool;
    /// Waits until so many members have a write on disk, at most so long, and less where the node stops.
    async fn confirmed(&self, stored: &Stored, peers: usize, wait: Duration) -> Confirmed;
    /// Writes one operation, or queues it where the store refuses it now and it has no condition.
    async fn accept(&self, op: WriteOp) -> Result<Accepted, Error>;
    /// What waits in the offline queue for this key, which readers see instead of what is stored.
    fn queued(&self, collection: &str, key: &str) -> Option<Queued>;
    /// One live document.
    async fn get(&self, collection: &str, key: &str) -> Result<Option<Document>, Error>;
    /// Those of the keys that exist. The keys come sorted, without doubles, at most 1000. The page is bounded like any
    /// other; where it is cut, `next` is its last key.
    async fn get_many(&self, collection: &str, keys: &[String]) -> Result<Page, Error>;
    /// One page of a collection; empty where there is none.
    async fn list(&self, collection: &str, query: &Query) -> Result<Page, Error>;
    /// The collections, by name.
    async fn collections(&self) -> Result<Vec<CollectionSummary>, Error>;
    /// The next changes; waits for a first one as long as the query says, less where the node stops.
    async fn changes(&self, query: &ChangesQuery) -> Result<Changes, Error>;
    /// The sync tracker.
    async fn status(&self) -> Status;
    /// Members and strangers.
    async fn peers(&self) -> PeersReport;
    /// Every member as it describes itself, waited for at most so long.
    async fn site(&self, wait: Duration) -> SiteReport;
    /// Retires a member on the whole site.
    async fn untrack(&self, node_id: &str) -> Result<(), Error>;
    /// Admits the device that was refused under a known name.
    async fn replace(&self, node_id: &str) -> Result<Replacement, Error>;
    /// Rows that were kept aside, behind a number.
    async fn recovered(&self, after: u64, limit: usize) -> Result<RecoveredPage, Error>;
    /// Writes them again or forgets them.
    async fn decide_recovered(
        &self,
        choice: RecoveredChoice,
        selection: RecoveredSelection,
    ) -> Result<RecoveredOutcome, Error>;
    /// A person knows what happened to the database.
    async fn acknowledge(&self) -> Result<(), Error>;
    /// Makes a backup.
    async fn backup(&self) -> Result<BackupReport, Error>;
    /// Looks at all of the database.
    async fn check_integrity(&self) -> Result<IntegrityReport, Error>;
    /// How well everything is.
    async fn health(&self) -> HealthReport;
    /// What is counted; with the names of peers where `names` says so.
    async fn metrics(&self, names: bool) -> Metrics;
    /// Whether it takes work.
    fn readiness(&self) -> Readiness;
    /// Waits until it has caught up with the peers that it sees, at most so long.
    async fn in_step(&self, wait: Duration) -> Readiness;
}
