//! The database: one SQLite file, a thread that writes it, a thread that reads it.
//!
//! The only place that names SQLite. Decides nothing about replication: the rules are `replica`, run here over tables.
//! `docs/storage.md` draws the file and says what an acknowledgement means.
//!
//! # What really happens
//! [`Store::submit`] puts a request in a bounded queue at the moment of the call; the writing thread carries requests
//! out in that order, as many as have gathered in one transaction, syncs once, and only then answers. Reads go to the
//! other thread and see what was committed when they began.

mod codec;
mod commit;
mod counters;
mod failure;
mod inbox;
mod open;
mod query;
mod reader;
mod schema;
mod scrub;
mod space;
mod sql;
mod state;
mod table;
mod writer;

use crate::document::{CollectionSummary, Document, Page, Query};
use crate::error::{Error, PersistenceKind};
use crate::id::LocalSeq;
use crate::replica::{Batch, Feed, FeedPage, Found, Knowledge, Members, Request, Stream, Table, Waiting};
use crate::row::{Row, RowKey, Scope};
use crate::time::{Millis, Reading};
use commit::{Job, Outcome};
pub use counters::Counters;
use counters::Tally;
use inbox::{Bounds, Inbox, Rejected};
use reader::{Ask, Gate};
pub use scrub::{Damage, Finding, Scrubbed};
use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::string::String;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::vec::Vec;

/// Bytes of write-ahead log at which it is copied back; one transaction may carry it beyond.
pub const WAL_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Requests of callers that may wait.
const WRITES: Bounds = Bounds { jobs: 1024, bytes: 8 * 1024 * 1024 };
/// Requests in all: those of links are bounded by their windows and pass where callers' do not.
const REQUESTS: Bounds = Bounds { jobs: 2048, bytes: 16 * 1024 * 1024 };

/// Findings that wait to be taken note of.
const FINDINGS: usize = 256;

/// How the database is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The file. `-wal`, `-shm` and `.lock` stand beside it.
    pub path: PathBuf,
    /// Write-ahead log; without it a rollback journal, as durable, and reads wait for commits.
    pub wal: bool,
    /// How long a commit waits for others to join it.
    pub commit_delay_ms: u64,
    /// SQLite's page caches, writing and reading connection together.
    pub page_cache_bytes: usize,
    /// Above this SQLite gives cached pages back. Holds for the process.
    pub heap_limit_bytes: Option<usize>,
    /// Documents are refused where the database would pass this.
    pub max_database_bytes: Option<u64>,
    /// Documents are refused where less would be free on the file system.
    pub min_free_bytes: u64,
}

impl Options {
    /// The defaults of the configuration, for a database at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Options {
        Options {
            path: path.into(),
            wal: true,
            commit_delay_ms: 0,
            page_cache_bytes: 4 * 1024 * 1024,
            heap_limit_bytes: None,
            max_database_bytes: None,
            min_free_bytes: 64 * 1024 * 1024,
        }
    }
}

/// What was found at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// With this start noted in it, durably.
    pub knowledge: Knowledge,
    /// What is remembered of other members.
    pub members: Members,
    /// There was no database before.
    pub created: bool,
    /// The last process did not stop in order; the structure has been checked.
    pub unclean: bool,
    /// The file.
    pub path: PathBuf,
}

/// Bytes of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Bytes of the database file.
    pub database_bytes: u64,
    /// Bytes of the write-ahead log's file.
    pub log_bytes: u64,
    /// Free bytes of the file system below.
    pub free_bytes: u64,
}

/// Rows of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Documents, replicated and local.
    pub documents: u64,
    /// Tombstones.
    pub tombstones: u64,
}

/// The open database. Clones share it; the last one that goes closes it in order.
#[derive(Debug, Clone)]
pub struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    writes: Arc<Inbox<Job>>,
    reads: Arc<Inbox<Ask>>,
    tally: Arc<Tally>,
    found: async_channel::Receiver<Finding>,
    stopped: async_channel::Receiver<()>,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    writer: JoinHandle<Result<(), Error>>,
    reader: JoinHandle<()>,
    /// Lets the next one in when it goes.
    _lock: File,
}

impl Store {
    /// Opens or creates the database and starts its threads. Blocks: the disk is synced, and checked after an unclean
    /// stop. `random` gives fresh numbers for the identity and the start token.
    ///
    /// # Errors
    /// Another process holds it; it cannot be read or written; it is damaged, of a later release, or not a database.
    pub fn open(options: Options, random: &mut dyn FnMut() -> u64) -> Result<(Store, Opened), Error> {
        let path = options.path.clone();
        let place = open::place(&path)?;
        open::settle_log(&path)?;
        let told = |failure: failure::Failure| failure.into_error("opening", &path);
        let connection = open::writer(&options).map_err(told)?;
        let (created, clean) = open::schema(&connection, &path, place.new, random).map_err(told)?;
        if !clean {
            open::quick_check(&connection, &path).map_err(told)?;
        }
        let (state, members) = start(&connection, random()).map_err(told)?;
        let gate = Arc::new(Gate::new(open::reader(&options).map_err(told)?));
        let opened =
            Opened { knowledge: state.knowledge.clone(), members, created, unclean: !clean, path: path.clone() };

        let options = Arc::new(options);
        let (writes, reads) = (Arc::new(Inbox::new()), Arc::new(Inbox::new()));
        let (stopping, stopped) = async_channel::bounded(1);
        let tally = Arc::<Tally>::default();
        let (finder, found) = async_channel::bounded(FINDINGS);
        let writer = writer::Writer::new(
            Arc::clone(&options),
            Arc::clone(&writes),
            Arc::clone(&gate),
            Arc::clone(&tally),
            finder.clone(),
            connection,
            state,
        )
        .map_err(told)?;
        let writer = thread("cbddc-write", move || {
            let _stopping = stopping;
            writer.run()
        })?;
        let reader = {
            let reads = Arc::clone(&reads);
            thread("cbddc-read", move || reader::run(&options, &reads, &gate, &finder))
        };
        let reader = reader.inspect_err(|_| writes.close())?;
        let threads = Mutex::new(Some(Threads { writer, reader, _lock: place.lock }));
        Ok((Store(Arc::new(Shared { writes, reads, tally, found, stopped, threads })), opened))
    }

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
    /// What the writing thread has done since the start.
    pub fn counters(&self) -> Counters {
        self.0.tally.read()
    }
    /// Closes in order: what waits is done, the log is copied back, the database is marked as clean. Further requests
    /// are refused. Done once; a second call waits for nothing.
    ///
    /// # Errors
    /// The disk's. Everything that was answered is durable all the same.
    pub async fn close(&self) -> Result<(), Error> {
        self.0.writes.close();
        self.0.reads.close();
        // Ends when the writing thread drops its side; nothing is ever sent.
        let _ = self.0.stopped.recv().await;
        self.0.join()
    }

    fn ask<T>(
        &self,
        ask: Ask,
        answer: async_channel::Receiver<Result<T, Error>>,
    ) -> impl Future<Output = Result<T, Error>> + use<T> {
        answered(self.0.reads.push(ask, 0, reader::WAITING), answer)
    }
}

impl Shared {
    fn join(&self) -> Result<(), Error> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Threads { writer, reader, _lock }) = threads else { return Ok(()) };
        let died = || Error::persistence("a storage thread died; report this with the log", None);
        let read = reader.join().map_err(|_| died());
        writer.join().unwrap_or_else(|_| Err(died())).and(read)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.writes.close();
        self.reads.close();
        if let Err(error) = self.join() {
            log::error!("event=StoreClose error=\"{error}\"");
        }
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

/// Notes the start, durably, and that the node runs from here on.
fn start(connection: &rusqlite::Connection, token: u64) -> Result<(state::State, Members), failure::Failure> {
    let open = commit::Open::begin(connection)?;
    let mut state = state::State::load(connection)?;
    let mut knowledge = state.knowledge.clone();
    knowledge.start(token);
    knowledge.version += 1;
    state.set_knowledge(knowledge);
    state.store(connection)?;
    schema::set_clean(connection, false)?;
    let members = table::SqlTable::new(connection, &mut state).members()?;
    open.commit()?;
    Ok((state, members))
}

fn thread<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Error> {
    let started = std::thread::Builder::new().name(name.into()).stack_size(512 * 1024).spawn(run);
    started.map_err(|error| Error::persistence("a storage thread could not be started", Some(error.into())))
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
