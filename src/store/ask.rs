//! What the node asks of the open database: requests for the writing thread, questions for the reading one.
//!
//! Each call takes its place in a bounded queue at once and answers a future; nothing is carried out here.

use super::commit::{Job, Outcome};
use super::inbox::{Bounds, Rejected};
use super::reader::{self, Ask};
use super::{Finding, Scrubbed, Sizes, Statistics, Store, failure};
use crate::document::{CollectionSummary, Document, Page, Query};
use crate::error::{Error, PersistenceKind};
use crate::id::LocalSeq;
use crate::replica::{Batch, Feed, FeedPage, Found, Knowledge, Request, Stream, Waiting};
use crate::row::{Row, RowKey, Scope};
use crate::time::{Millis, Reading};
use std::future::Future;
use std::string::String;
use std::vec::Vec;

/// Requests of callers that may wait.
const WRITES: Bounds = Bounds { jobs: 1024, bytes: 8 * 1024 * 1024 };
/// Requests in all: those of links are bounded by their windows and pass where callers' do not.
const REQUESTS: Bounds = Bounds { jobs: 2048, bytes: 16 * 1024 * 1024 };

impl Store {
    /// Carries a request out, durably. Takes its place in the order now, at the call.
    ///
    /// # Errors
    /// `QueueFull`, and nothing was changed, where too much waits already; the disk's errors; where a commit fails on
    /// the disk, an error that says that the outcome is unknown.
    pub fn submit(&self, now: Reading, request: Request) -> impl Future<Output = Outcome> + use<> {
        let bytes = request_bytes(&request);
        let bounds = if matches!(request, Request::Write { .. }) { WRITES } else { REQUESTS };
        let (reply, answer) = async_channel::bounded(1);
        let pushed = self.0.writes.push(Job { now, request, reply }, bytes, bounds);
        answered(pushed, answer)
    }
    /// The next rows of the stream for a peer.
    ///
    /// # Errors
    /// The disk's; a damaged row.
    pub fn read(&self, stream: Stream) -> impl Future<Output = Result<Batch, Error>> + use<> {
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::Stream(stream, reply), answer)
    }
    /// The next page of the change feed.
    ///
    /// # Errors
    /// The disk's; a damaged row.
    pub fn feed(&self, feed: Feed) -> impl Future<Output = Result<FeedPage, Error>> + use<> {
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::Feed(feed, reply), answer)
    }
    /// One document, and when it expires.
    ///
    /// # Errors
    /// The disk's; a damaged row.
    pub fn get(
        &self,
        scope: Scope,
        collection: &str,
        key: &str,
        now: Millis,
    ) -> impl Future<Output = Result<Option<(Document, Option<Millis>)>, Error>> + use<> {
        let key = RowKey { scope, collection: collection.into(), key: key.into() };
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::Get(key, now, reply), answer)
    }
    /// Those of `keys` that exist, in byte order, within the bounds of a page; `next` is the last key of a page that
    /// was cut.
    ///
    /// # Errors
    /// The disk's; a damaged row.
    pub fn get_many(
        &self,
        scope: Scope,
        collection: &str,
        keys: Vec<String>,
        now: Millis,
    ) -> impl Future<Output = Result<Page, Error>> + use<> {
        let collection = collection.into();
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::GetMany(scope, collection, keys, now, reply), answer)
    }
    /// A page of a collection.
    ///
    /// # Errors
    /// The disk's; a damaged row.
    pub fn list(
        &self,
        scope: Scope,
        collection: &str,
        query: &Query,
        now: Millis,
    ) -> impl Future<Output = Result<Page, Error>> + use<> {
        let (collection, query) = (collection.into(), query.clone());
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::List(scope, collection, query, now, reply), answer)
    }
    /// What this node has at some keys, for a peer whose rows there are damaged.
    ///
    /// # Errors
    /// The disk's.
    pub fn look(&self, keys: Vec<RowKey>) -> impl Future<Output = Result<Found, Error>> + use<> {
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::Look(keys, reply), answer)
    }
    /// The next damaged row that somebody met, in whatever was asked; none once the store is closed. What nobody takes is
    /// met again.
    pub async fn met_damage(&self) -> Option<Finding> {
        self.0.found.recv().await.ok()
    }
    /// The rows that wait for a person's decision, behind a number. `None` where one is damaged.
    ///
    /// # Errors
    /// The disk's.
    pub fn recovered(&self, after: u64, limit: usize) -> impl Future<Output = Result<Vec<Waiting>, Error>> + use<> {
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::Recovered(after, limit, reply), answer)
    }
    /// Replicated and local collections with their live documents. Reads the whole key index.
    ///
    /// # Errors
    /// The disk's.
    pub fn collections(&self, now: Millis) -> impl Future<Output = Result<Vec<CollectionSummary>, Error>> + use<> {
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::Collections(now, reply), answer)
    }
    /// Bytes of the database and of the file system below; cheap.
    ///
    /// # Errors
    /// The disk's.
    pub fn sizes(&self) -> impl Future<Output = Result<Sizes, Error>> + use<> {
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::Sizes(reply), answer)
    }
    /// How many rows there are; counts them.
    ///
    /// # Errors
    /// The disk's.
    pub fn statistics(&self) -> impl Future<Output = Result<Statistics, Error>> + use<> {
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::Statistics(reply), answer)
    }
    /// Looks at the rows behind `after` that nobody asks for, about `bytes` of them: checksums and indexes. What is
    /// damaged is an answer, not an error.
    ///
    /// # Errors
    /// The disk's; structural damage.
    pub fn scrub(&self, after: LocalSeq, bytes: u64) -> impl Future<Output = Result<Scrubbed, Error>> + use<> {
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::Scrub(after, bytes, reply), answer)
    }
    /// What the node knows of itself, as it is on disk.
    ///
    /// # Errors
    /// The disk's; the record is damaged.
    pub fn knowledge(&self) -> impl Future<Output = Result<Knowledge, Error>> + use<> {
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::Knowledge(reply), answer)
    }

    fn ask<T>(
        &self,
        ask: Ask,
        answer: async_channel::Receiver<Result<T, Error>>,
    ) -> impl Future<Output = Result<T, Error>> + use<T> {
        answered(self.0.reads.push(ask, 0, reader::WAITING), answer)
    }
}

async fn answered<T>(
    pushed: Result<(), Rejected>,
    answer: async_channel::Receiver<Result<T, Error>>,
) -> Result<T, Error> {
    match pushed {
        Ok(()) => answer.recv().await.unwrap_or_else(|_| Err(failure::closed())),
        Err(Rejected::Closed) => Err(failure::closed()),
        Err(Rejected::Full) => Err(Error::Persistence {
            kind: PersistenceKind::QueueFull,
            message: "too many requests wait for the disk; nothing was changed, try again shortly".into(),
            source: None,
        }),
    }
}

/// About what a request holds in memory while it waits.
fn request_bytes(request: &Request) -> usize {
    let rows = |rows: &[Row]| rows.iter().map(Row::encoded_bytes).sum::<usize>();
    let body = match request {
        Request::Write { writes, .. } => writes
            .iter()
            .map(|write| {
                let value = match &write.body {
                    crate::row::Body::Live(value) => value.len(),
                    crate::row::Body::Tombstone => 0,
                };
                value + write.key.collection.len() + write.key.key.len() + 64
            })
            .sum(),
        Request::Apply(incoming) => rows(&incoming.rows) + incoming.announced.len() * 16,
        Request::Stage { rows: staged, .. } => rows(staged),
        Request::Confirmed { vectors } => vectors.iter().map(|(_, _, vector)| vector.len() * 16).sum(),
        Request::Bootstrap { .. }
        | Request::MarkSent { .. }
        | Request::Meet(_)
        | Request::Maintain(_)
        | Request::Fork { .. }
        | Request::Records => 0,
        Request::Repair(offer) => rows(&offer.rows) + offer.vector.len() * 16,
        Request::Decide { decision, .. } => decision.keys.iter().map(|key| key.len() + 32).sum(),
    };
    body + 256
}
