//! The node: storage, sockets and state machines, wired together on one executor.
//!
//! Nothing is decided here. `proto` decides, `store` keeps, `net` carries; this room takes each output of the engine
//! to whoever does it and brings back what came of it.
//!
//! Invariant: one input, then drain the outputs, then the next input, all on one thread; nothing in the loop waits for
//! a disk or a peer.

mod backups;
mod confirmations;
mod damage;
mod documents;
mod events;
mod feed;
mod health;
mod keys;
mod links;
mod members;
mod metrics;
mod offline;
mod parts;
mod progress;
mod recovered;
mod reload;
mod reports;
mod service;
mod shell;
mod site;
mod start;
mod store_health;
mod tracker;
mod waiters;

use crate::config::{Config, Reloaded};
use crate::document::{
    Accepted, Changes, ChangesQuery, CollectionSummary, Condition, Confirmed, Document, Page, Query, Queued,
    RecoveredChoice, RecoveredOutcome, RecoveredPage, RecoveredSelection, Stored, WriteOp, json,
};
use crate::error::Error;
use crate::id::NodeId;
use crate::report::{
    BackupReport, HealthReport, IntegrityReport, Metrics, PeersReport, Readiness, Replacement, SiteReport, Status,
};
use crate::time::Millis;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::Service;
use shell::Shell;
use smol::LocalExecutor;
use std::boxed::Box;
use std::format;
use std::net::SocketAddr;
use std::rc::Rc;
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

pub use parts::Parts;
pub use tracker::SyncTracker;

/// A running node. Cheap to clone; all clones are the same node. Lives on the thread of its executor.
///
/// The executor's thread does sockets, HTTP and decisions; two more threads own the database connections.
#[derive(Clone)]
pub struct Node {
    shell: Rc<Shell>,
}

impl Node {
    /// Starts a node on `executor`, which the caller runs.
    ///
    /// ```no_run
    /// # use std::rc::Rc;
    /// let executor = Rc::new(smol::LocalExecutor::new());
    /// smol::block_on(executor.run(async {
    ///     let config = cbddc::Config::builder().node_id("gateway-01").build()?;
    ///     let node = cbddc::Node::start(executor.clone(), config).await?;
    ///     node.collection("users").put("alice", &"Alice").await?;
    ///     node.shutdown().await
    /// }))?;
    /// # Ok::<(), cbddc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Configuration`] for keys and paths, [`Error::Network`] for ports in use, [`Error::Persistence`] and
    /// [`Error::DatabaseCorruption`] for the database.
    pub async fn start(executor: Rc<LocalExecutor<'static>>, config: Config) -> Result<Node, Error> {
        Node::start_with(executor, config, Parts::default()).await
    }
    /// As [`Node::start`], on parts that the caller made: the queue, with what it holds, the cache, the retry policy, the
    /// sync tracker, the health check.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_with(executor: Rc<LocalExecutor<'static>>, config: Config, parts: Parts) -> Result<Node, Error> {
        Ok(Node { shell: start::start(executor, config, parts).await? })
    }
    /// Its name.
    pub fn node_id(&self) -> NodeId {
        self.shell.node_id()
    }
    /// Where it accepts links, with the port that was chosen for port 0.
    pub fn link_address(&self) -> SocketAddr {
        self.shell.addresses.links
    }
    /// Where its HTTP API is, if it has one on TCP.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.shell.addresses.http.get()
    }
    /// A collection; it exists as soon as it holds a document.
    pub fn collection(&self, name: impl Into<String>) -> Collection {
        Collection { shell: self.shell.clone(), name: name.into() }
    }
    /// All collections, by name.
    ///
    /// # Errors
    /// The store's.
    pub async fn collections(&self) -> Result<Vec<CollectionSummary>, Error> {
        self.shell.collections().await
    }
    /// Writes several documents as one group; each has its own result, given once it is on disk.
    ///
    /// # Errors
    /// [`Error::Request`] where a value is not JSON, and none was written; else where nothing is known of any of them.
    pub async fn write(&self, ops: Vec<WriteOp>) -> Result<Vec<Result<Stored, Error>>, Error> {
        ops.iter().try_for_each(|op| op.value.as_deref().map_or(Ok(()), |value| json::check(value).map(drop)))?;
        self.shell.write(ops).await
    }
    /// Waits until `peers` members have a write of this node on their disks too, or until `wait` is over. It is stored here
    /// either way. Visitors do not count; members without a link of their own do, once others tell of them.
    ///
    /// ```no_run
    /// # async fn store(node: cbddc::Node) -> Result<(), cbddc::Error> {
    /// let stored = node.collection("orders").put("o-17", &"paid").await?;
    /// let confirmed = node.confirmed(&stored, 2, std::time::Duration::from_secs(5)).await;
    /// if !confirmed.enough {
    ///     println!("only {:?} and this node have it so far", confirmed.by);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn confirmed(&self, stored: &Stored, peers: usize, wait: Duration) -> Confirmed {
        self.shell.confirmed(stored, peers, wait).await
    }
    /// The next changes of documents on this node, by whomever they were made. At least once, current values only.
    ///
    /// Waits for a first change as long as the query says, less where the node stops.
    ///
    /// ```no_run
    /// # async fn follow(node: cbddc::Node) -> Result<(), cbddc::Error> {
    /// use cbddc::document::{ChangesQuery, Since};
    /// let mut query = ChangesQuery { wait: std::time::Duration::from_secs(30), ..ChangesQuery::default() };
    /// loop {
    ///     let changes = node.changes(&query).await?;
    ///     for change in &changes.changes {
    ///         println!("{} {}", change.key, if change.value.is_some() { "is there" } else { "is gone" });
    ///     }
    ///     // Kept where it survives this program, it lets the next one go on from here.
    ///     query.since = Since::Token(changes.next);
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::TokenExpired`] where something would be missed: begin again with [`Since::Start`](crate::document::Since).
    /// [`Error::Request`] for what is no token; the store's.
    pub async fn changes(&self, query: &ChangesQuery) -> Result<Changes, Error> {
        self.shell.changes(query).await
    }
    /// The sync tracker and the figures of the parts.
    pub async fn status(&self) -> Status {
        self.shell.status().await
    }
    /// Members, and addresses that were heard without becoming a link.
    pub async fn peers(&self) -> PeersReport {
        self.shell.peers_report()
    }
    /// Every member as it describes itself: all are asked, those that are not linked by way of others, and waited for at most
    /// so long. Of whoever does not answer it is shown what was last heard, and how long ago.
    pub async fn site(&self, wait: Duration) -> SiteReport {
        self.shell.site(wait).await
    }
    /// Retires a member, on the whole site: it holds no tombstones back and counts no more for health. One that comes
    /// back is a member again.
    ///
    /// # Errors
    /// [`Error::Request`] where no peer has that name; the store's.
    pub async fn untrack(&self, node_id: &str) -> Result<(), Error> {
        self.shell.untrack(node_id).await
    }
    /// Admits the device that was refused under a known name, on the whole site; the one that had it is refused.
    ///
    /// # Errors
    /// [`Error::Request`] where no peer has that name, or no device was refused under it lately; the store's.
    pub async fn replace(&self, node_id: &str) -> Result<Replacement, Error> {
        self.shell.replace(node_id).await
    }
    /// Rows that were kept aside when this node took the state of a peer, behind a number: 0 is from the first.
    ///
    /// # Errors
    /// The store's.
    pub async fn recovered(&self, after: u64, limit: usize) -> Result<RecoveredPage, Error> {
        self.shell.recovered(after, limit).await
    }
    /// Writes rows that were kept aside again as new, above whatever stands at their keys; all that are selected.
    ///
    /// # Errors
    /// The store's; what was decided before stays decided.
    pub async fn apply_recovered(&self, selection: RecoveredSelection) -> Result<RecoveredOutcome, Error> {
        self.shell.decide_recovered(RecoveredChoice::Apply, selection).await
    }
    /// Says that a person knows what happened to a database that was recovered from damage: health says no more of it.
    ///
    /// # Errors
    /// The disk's.
    pub async fn acknowledge_recovery(&self) -> Result<(), Error> {
        self.shell.acknowledge().await
    }
    /// Forgets rows that were kept aside; all that are selected.
    ///
    /// # Errors
    /// The store's; what was decided before stays decided.
    pub async fn drop_recovered(&self, selection: RecoveredSelection) -> Result<RecoveredOutcome, Error> {
        self.shell.decide_recovered(RecoveredChoice::Drop, selection).await
    }
    /// How well everything is.
    pub async fn health(&self) -> HealthReport {
        self.shell.health().await
    }
    /// What every part has counted, as `GET /metrics` shows it.
    pub async fn metrics(&self) -> Metrics {
        self.shell.metrics(true).await
    }
    /// Makes a backup in the configured folder: whole, verified, rotated. Writes and reads go on meanwhile.
    ///
    /// # Errors
    /// `DiskFull` where space is short, the folder's and the disk's, [`Error::DatabaseCorruption`] where what was copied is
    /// damaged; `TooManyRequests` while a backup or check is under way.
    pub async fn backup(&self) -> Result<BackupReport, Error> {
        self.shell.backup().await
    }
    /// Looks at all of the database: checksums of all rows, trees, indexes, sums. Writes and reads go on meanwhile.
    ///
    /// # Errors
    /// [`Error::DatabaseCorruption`] says what is damaged; `TooManyRequests` while a backup or check is under way.
    pub async fn check_integrity(&self) -> Result<IntegrityReport, Error> {
        self.shell.check_integrity().await
    }
    /// Whether it takes work, and if not, why.
    pub fn readiness(&self) -> Readiness {
        self.shell.readiness(false)
    }
    /// Waits until it has caught up with every peer that it sees, at most so long; says what is missing.
    pub async fn in_step(&self, wait: Duration) -> Readiness {
        self.shell.in_step(wait).await
    }
    /// Takes over what may change while it runs: fixed peers, thresholds, the size of the cache, times to live, and a new key in
    /// the key file. Says which keys changed, and which wait for the next start. The log is not the node's: where it goes is
    /// for the program to change.
    ///
    /// # Errors
    /// [`Error::Configuration`] where the key file is not one; then nothing was changed.
    pub fn reload(&self, config: &Config) -> Result<Reloaded, Error> {
        self.shell.reload(config)
    }
    /// Whether the node moves: both storage threads answer and connections are accepted, each within `patience`. For
    /// whoever feeds a watchdog; a disk that refuses and a network that is away are for [`Node::health`].
    ///
    /// # Errors
    /// [`Error::Timeout`] that names what did not move.
    pub async fn check_progress(&self, patience: Duration) -> Result<(), Error> {
        self.shell.check_progress(patience).await
    }
    /// Takes nothing more, finishes what was accepted, says goodbye to the peers, keeps what is queued in the spill file
    /// and closes the database. Within ten seconds, whatever disk and peers do: a database that cannot be closed in time
    /// is looked after at the next start, and all that was acknowledged is on disk.
    ///
    /// # Errors
    /// [`Error::Persistence`] or [`Error::Timeout`] where queued operations could be neither carried out nor kept.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.shell.shutdown().await
    }
    /// Gives the disk up, for a process that ends at once. What was acknowledged is on it.
    pub(crate) fn abandon(&self) {
        self.shell.abandon();
    }
}

/// The documents of one collection.
#[derive(Clone)]
pub struct Collection {
    shell: Rc<Shell>,
    name: String,
}

impl Collection {
    /// Stores a document; it is on disk when this returns.
    ///
    /// # Errors
    /// [`Error::Request`] where it is not JSON or a name is out of bounds, [`Error::Persistence`], [`Error::Timeout`].
    pub async fn put<T: Serialize + ?Sized>(&self, key: &str, document: &T) -> Result<Stored, Error> {
        self.put_if(key, document, Condition::Always).await
    }
    /// Stores a document if the condition holds of this node's copy, checked in the same transaction.
    ///
    /// # Errors
    /// As [`Collection::put`]; [`Error::Concurrency`] where the condition does not hold.
    pub async fn put_if<T: Serialize + ?Sized>(
        &self,
        key: &str,
        document: &T,
        condition: Condition,
    ) -> Result<Stored, Error> {
        self.write(key, Some(to_json(document)?), None, condition).await
    }
    /// The document, if there is one.
    ///
    /// # Errors
    /// [`Error::Persistence`], [`Error::DatabaseCorruption`]; [`Error::Request`] where it is not of that type.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.get_bytes(key).await?.map(|document| document.parse()).transpose()
    }
    /// The document's version and bytes, as they were written.
    ///
    /// # Errors
    /// As [`Collection::get`].
    pub async fn get_bytes(&self, key: &str) -> Result<Option<Document>, Error> {
        self.shell.get(&self.name, key).await
    }
    /// Deletes a document; says whether there was one.
    ///
    /// # Errors
    /// As [`Collection::put`].
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        Ok(self.write(key, None, None, Condition::Always).await?.existed)
    }
    /// Stores or deletes with a condition and a time to live in milliseconds. `value` is JSON, `None` deletes.
    ///
    /// # Errors
    /// As [`Collection::put`]; [`Error::Concurrency`] where the condition does not hold.
    pub async fn write(
        &self,
        key: &str,
        value: Option<Vec<u8>>,
        ttl: Option<Millis>,
        condition: Condition,
    ) -> Result<Stored, Error> {
        let value = match value.as_deref().map(json::check) {
            Some(checked) => Some(checked?.to_vec()),
            None => None,
        };
        let op = WriteOp { collection: self.name.clone(), key: key.into(), value, ttl, condition };
        let mut written = self.shell.write(Vec::from([op])).await?;
        written.pop().unwrap_or_else(|| Err(Error::persistence("the store answered nothing", None::<Box<_>>)))
    }
    /// As [`Collection::write`] without a condition, but queued where the store refuses it now: the node carries it out once
    /// it can, and it competes by the time of this call. What is queued survives an orderly stop, not a power cut; the other
    /// methods read and list what is stored, and refuse to write to a key that waits.
    ///
    /// # Errors
    /// As [`Collection::put`]; `QueueFull` where the queue is full, or off.
    pub async fn accept(&self, key: &str, value: Option<Vec<u8>>, ttl: Option<Millis>) -> Result<Accepted, Error> {
        let value = match value.as_deref().map(json::check) {
            Some(checked) => Some(checked?.to_vec()),
            None => None,
        };
        let condition = Condition::Always;
        self.shell.accept(WriteOp { collection: self.name.clone(), key: key.into(), value, ttl, condition }).await
    }
    /// What waits in the offline queue for a key, the newest of it.
    pub fn queued(&self, key: &str) -> Option<Queued> {
        self.shell.offline.latest(&self.name, key)
    }
    /// One page of documents, in byte order of their keys.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, query: &Query) -> Result<Page, Error> {
        self.shell.list(&self.name, query).await
    }
}

fn to_json<T: Serialize + ?Sized>(document: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(document)
        .map_err(|cause| Error::bad_request(format!("the document does not become JSON: {cause}")))
}
