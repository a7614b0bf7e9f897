//! The database: one SQLite file, a thread that writes it, a thread that reads it.
//!
//! The only place that names SQLite. Decides nothing about replication: the rules are `replica`, run here over tables.
//! `docs/storage.md` draws the file and says what an acknowledgement means.
//!
//! # What really happens
//! [`Store::submit`] puts a request in a bounded queue at the moment of the call; the writing thread carries requests
//! out in that order, as many as have gathered in one transaction, syncs once, and only then answers. Reads go to the
//! other thread and see what was committed when they began.

mod aside;
mod backup;
mod check;
mod codec;
mod commit;
mod copy;
mod counters;
mod disk;
mod failure;
mod header;
mod inbox;
mod keeper;
mod ledger;
mod mend;
mod open;
mod query;
mod reader;
mod recover;
mod restore;
mod salvage;
mod schema;
mod scrub;
mod space;
mod spill;
mod sql;
mod state;
mod table;
mod verify;
mod writer;

use crate::document::{CollectionSummary, Document, Page, Query};
use crate::error::{Error, PersistenceKind};
use crate::id::LocalSeq;
use crate::replica::{Batch, Feed, FeedPage, Found, Knowledge, Members, Request, Stream, Table, Waiting};
use crate::row::{Row, RowKey, Scope};
use crate::time::{Millis, Reading};
pub use backup::{Backup, BackupOrder};
pub use check::Checked;
use commit::{Job, Outcome};
pub use counters::Counters;
use counters::Tally;
pub use disk::{Disk, Entry, FileSystem, Held};
use inbox::{Bounds, Inbox, Rejected};
use keeper::Keeper;
pub use ledger::{BackupLedger, LastBackup};
use reader::{Ask, Gate};
pub use recover::{Incident, Recovery};
pub use restore::Restored;
pub use scrub::{Damage, Finding, Scrubbed};
pub use spill::{Spill, lend_reserve, said_of_loss};
use std::format;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
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
#[derive(Debug, Clone)]
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
    /// How a damaged database is recovered; none where it is left to a person.
    pub recovery: Option<Recovery>,
    /// Bytes of write-ahead log at which it is copied back: [`WAL_BYTES_MAX`] or less.
    pub log_bytes: u64,
    /// Without a request for this long, the writing thread tidies.
    pub idle: Duration,
    /// The disk below.
    pub disk: Arc<dyn Disk>,
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
            recovery: None,
            log_bytes: WAL_BYTES_MAX,
            idle: Duration::from_millis(500),
            disk: FileSystem::shared(),
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
    /// The database cannot be written: it is damaged, and nothing is there to take its place from. Why.
    pub read_only: Option<String>,
    /// It was a backup, restored or copied there: the node has a new identity.
    pub restored: bool,
    /// What is remembered of backups.
    pub backups: BackupLedger,
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
    options: Arc<Options>,
    keeper: Arc<Keeper>,
    tally: Arc<Tally>,
    found: async_channel::Receiver<Finding>,
    stopped: async_channel::Receiver<()>,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    writer: JoinHandle<Result<(), Error>>,
    reader: JoinHandle<()>,
}

impl Store {
    /// Opens or creates the database and starts its threads. Blocks: the disk is synced, and checked after an unclean
    /// stop. `random` gives fresh numbers for the identity and the start token.
    ///
    /// # Errors
    /// Another process holds it; it cannot be read or written; it is damaged, of a later release, or not a database.
    pub fn open(options: Options, random: &mut dyn FnMut() -> u64) -> Result<(Store, Opened), Error> {
        let path = options.path.clone();
        let place = open::place(&*options.disk, &path)?;
        let told = |failure: failure::Failure| failure.into_error("opening", &path);
        let mut recovering = recover::is_under_way(&*options.disk, &path);
        let mut refused = None;
        let ready = loop {
            if recovering {
                recover::make_way(&options)?;
            }
            match ready(&options, place.new, recovering, random) {
                Ok(ready) => break ready,
                Err(failure) if failure.is_corruption() && !recovering => {
                    let cause = told(failure);
                    match recover::begin(&options, &format!("{cause}")) {
                        Ok(()) => recovering = true,
                        Err(error @ Error::DatabaseCorruption { .. }) if options.recovery.is_some() => {
                            // Nothing to take its place from: what can be read is read, and nothing is written.
                            refused = Some(format!("{error}"));
                            break readable(&options).map_err(|_| error)?;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Err(failure) => return Err(told(failure)),
            }
        };
        let Ready { connection, state, members, created, clean, restored } = ready;
        if refused.is_none() {
            // SQLite syncs the folder of a new log too, and does not look at what becomes of it.
            open::sync_folder(&*options.disk, open::folder_of(&path))?;
        }
        let gate = Arc::new(Gate::new(open::reader(&options).map_err(told)?));
        let opened = Opened {
            knowledge: state.knowledge.clone(),
            members,
            created,
            unclean: !clean,
            read_only: refused.clone(),
            restored,
            backups: ledger::read(&*options.disk, &path),
            path: path.clone(),
        };

        let options = Arc::new(options);
        let (writes, reads) = (Arc::new(Inbox::new()), Arc::new(Inbox::new()));
        // Closed once both threads have ended: each drops its side.
        let (stopping, stopped) = async_channel::bounded::<()>(1);
        let tally = Arc::<Tally>::default();
        let (finder, found) = async_channel::bounded(FINDINGS);
        let keeper = Arc::<Keeper>::default();
        let writer = {
            let (options, writes, gate) = (Arc::clone(&options), Arc::clone(&writes), Arc::clone(&gate));
            let (keeper, tally, finder) = (Arc::clone(&keeper), Arc::clone(&tally), finder.clone());
            let (lock, stopping, seed) = (place.lock, stopping.clone(), random());
            thread("cbddc-write", move || {
                let _stopping = stopping;
                // Lets the next process in when it goes, and that is when nothing more is written.
                let _lock: Held = lock;
                let writer = writer::Writer::new(options, writes, gate, keeper, tally, finder, state);
                writer.run(connection, refused, seed)
            })?
        };
        let reader = {
            let (reads, writes, options) = (Arc::clone(&reads), Arc::clone(&writes), Arc::clone(&options));
            thread("cbddc-read", move || {
                let _stopping = stopping;
                reader::run(&options, &reads, &gate, &finder, || writes.nudge());
            })
        };
        let reader = reader.inspect_err(|_| writes.close())?;
        let threads = Mutex::new(Some(Threads { writer, reader }));
        Ok((Store(Arc::new(Shared { writes, reads, options, keeper, tally, found, stopped, threads })), opened))
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
    /// What the node knows of itself, as it is on disk.
    ///
    /// # Errors
    /// The disk's; the record is damaged.
    pub fn knowledge(&self) -> impl Future<Output = Result<Knowledge, Error>> + use<> {
        let (reply, answer) = async_channel::bounded(1);
        self.ask(Ask::Knowledge(reply), answer)
    }
    /// Makes a backup: whole, verified, under a name of its own and as `latest.db`. Everything that was answered before
    /// the call is in it. One backup or check at a time; nobody waits for it.
    ///
    /// # Errors
    /// `DiskFull` where space is short; the folder's and the disk's; `DatabaseCorruption` where what was copied is damaged;
    /// `TooManyRequests` while another one is under way. The backups before stay.
    pub async fn backup(&self, order: BackupOrder) -> Result<Backup, Error> {
        let knowledge = self.knowledge().await?;
        let (keeper, options, writes) = (self.0.keeper.clone(), self.0.options.clone(), self.0.writes.clone());
        let doing = move || backup::make(&keeper, &options, &order, &knowledge, || writes.nudge());
        self.keep(doing).await
    }
    /// Looks at all of the database: structure, checksums, sums. What is damaged is an answer, not an error.
    ///
    /// # Errors
    /// The disk's; the database cannot be read at all; `TooManyRequests` while a backup or check is under way.
    pub async fn check(&self) -> Result<Checked, Error> {
        let (keeper, options, writes) = (self.0.keeper.clone(), self.0.options.clone(), self.0.writes.clone());
        self.keep(move || check::running(&keeper, &options, &writes)).await
    }
    /// Remembers how long the node has run since its last backup, durably.
    ///
    /// # Errors
    /// The disk's; `TooManyRequests` while a backup or check is under way.
    pub async fn note_backup_clock(&self, elapsed_ms: Millis) -> Result<(), Error> {
        let options = Arc::clone(&self.0.options);
        self.keep(move || {
            let (disk, path) = (&*options.disk, &options.path);
            ledger::write(disk, path, &BackupLedger { elapsed_ms, ..ledger::read(disk, path) })
        })
        .await
    }
    /// Restores a backup as the database at `database`, where no node is running. It is verified before anything is touched;
    /// the database that was there is set aside. The next start takes a new identity.
    ///
    /// # Errors
    /// A node holds the database; the file is not a whole database of this or an earlier release; no room.
    pub fn restore(database: &Path, file: &Path) -> Result<Restored, Error> {
        Store::restore_on(&FileSystem, database, file)
    }
    /// The same on a disk that is not the machine's own.
    ///
    /// # Errors
    /// As [`Store::restore`].
    pub fn restore_on(disk: &dyn Disk, database: &Path, file: &Path) -> Result<Restored, Error> {
        restore::restore(disk, database, file)
    }
    /// Looks at all of a database that no node has open.
    ///
    /// # Errors
    /// A node holds it; it cannot be read at all.
    pub fn check_offline(database: &Path) -> Result<Checked, Error> {
        check::offline(&FileSystem, database)
    }
    /// Whether a file says that it is a backup.
    pub fn is_backup(file: &Path) -> bool {
        matches!(header::kind(&FileSystem, file), Ok(Some(header::Kind::Backup)))
    }
    /// Reads all of a backup; answers how many rows are in it.
    ///
    /// # Errors
    /// It is no whole database of this or an earlier release, or damaged.
    pub fn verify_backup(file: &Path) -> Result<u64, Error> {
        let found = verify::file(&FileSystem, file, || false)?;
        if found.damage.is_empty() { Ok(found.rows) } else { Err(found.damage.error(file, "take another backup")) }
    }
    /// Whether a node has the database open.
    pub fn is_held(database: &Path) -> bool {
        disk::is_held(&open::beside(database, ".lock"))
    }
    /// What happened to the database, until a person has acknowledged it.
    pub async fn incident(&self) -> Option<Incident> {
        let options = Arc::clone(&self.0.options);
        self.keep(move || Ok(recover::incident(&*options.disk, &options.path))).await.ok().flatten()
    }
    /// A person knows what happened to the database.
    ///
    /// # Errors
    /// The disk's; `TooManyRequests` while a backup or check is under way.
    pub async fn acknowledge(&self) -> Result<(), Error> {
        let options = Arc::clone(&self.0.options);
        self.keep(move || recover::acknowledge(&*options.disk, &options.path)).await
    }
    /// What the writing thread has done since the start.
    pub fn counters(&self) -> Counters {
        self.0.tally.read()
    }
    /// Another number than before where the writing thread has done something meanwhile, be it a slice of a long check.
    pub fn pulse(&self) -> u64 {
        self.0.tally.pulse()
    }
    /// Closes in order: what waits is done, the log is copied back, the database is marked as clean. Further requests
    /// are refused. Done once; a second call waits for nothing.
    ///
    /// # Errors
    /// The disk's. Everything that was answered is durable all the same.
    pub async fn close(&self) -> Result<(), Error> {
        self.0.keeper.stop();
        self.0.writes.close();
        self.0.reads.close();
        self.0.keeper.ended().await;
        // Ends when both threads have dropped their sides; nothing is ever sent.
        let _ = self.0.stopped.recv().await;
        self.0.join()
    }

    /// Waits for nothing any more: the threads end by themselves once the disk answers, and the database stays locked until
    /// then. For a stop that has no more time; what was answered is durable, and the next start looks after the rest.
    pub fn abandon(&self) {
        self.0.keeper.stop();
        self.0.writes.close();
        self.0.reads.close();
        drop(self.0.threads.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Does a job on a thread of its own.
    async fn keep<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = async_channel::bounded(1);
        let keeper = Arc::clone(&self.0.keeper);
        self.0.keeper.start(move || {
            let done = job();
            keeper.done();
            // Whoever has gone away does not want to know.
            let _ = reply.try_send(done);
        })?;
        answer.recv().await.unwrap_or_else(|_| Err(failure::closed()))
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
        let Some(Threads { writer, reader }) = threads else { return Ok(()) };
        let died = || Error::persistence("a storage thread died; report this with the log", None);
        let read = reader.join().and_then(|()| self.keeper.join()).map_err(|_| died());
        writer.join().unwrap_or_else(|_| Err(died())).and(read)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keeper.stop();
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

/// A database that can be used.
struct Ready {
    connection: Option<rusqlite::Connection>,
    state: state::State,
    members: Members,
    created: bool,
    clean: bool,
    restored: bool,
}

/// From the file to a database that can be used, in one go; with `recovering`, what is whole in the one that was set aside
/// is carried over.
fn ready(
    options: &Options,
    new: bool,
    recovering: bool,
    random: &mut dyn FnMut() -> u64,
) -> Result<Ready, failure::Failure> {
    let path = &options.path;
    open::settle_log(&*options.disk, path)?;
    let connection = open::writer(options)?;
    let (created, clean) = open::schema(&connection, path, new, random)?;
    if !clean && let Err(failure) = open::quick_check(&connection, path) {
        mend_in_place(&connection, failure)?;
    }
    let (mut state, mut members, restored) = start(&connection, random)?;
    if recovering {
        recover::carry_over(&connection, options, &mut state, 0, random)?;
        members = table::SqlTable::new(&connection, &mut state).members()?;
    }
    Ok(Ready { connection: Some(connection), state, members, created, clean, restored })
}

/// Mends in place what can be; the failure where that is not enough.
fn mend_in_place(connection: &rusqlite::Connection, failure: failure::Failure) -> Result<(), failure::Failure> {
    match mend::examine(connection)? {
        mend::Examined::Sound => Ok(()),
        mend::Examined::Mended(faults) => {
            log::error!("event=IndexesRebuilt cause=\"{faults}\"");
            Ok(())
        }
        mend::Examined::Broken(_) => Err(failure),
    }
}

/// A damaged database of which nothing is written: its own record must be whole, the rest is read as far as it goes.
fn readable(options: &Options) -> Result<Ready, failure::Failure> {
    let connection = open::reader(options)?;
    let mut state = state::State::load(&connection)?;
    let members = table::SqlTable::new(&connection, &mut state).members().unwrap_or_default();
    Ok(Ready { connection: None, state, members, created: false, clean: false, restored: false })
}

/// Notes the start, durably, and that the node runs from here on. A backup takes a new identity in the same transaction:
/// whatever its own writes were, they may be known to somebody, and so may others that it does not know.
fn start(
    connection: &rusqlite::Connection,
    random: &mut dyn FnMut() -> u64,
) -> Result<(state::State, Members, bool), failure::Failure> {
    let open = commit::Open::begin(connection)?;
    let mut state = state::State::load(connection)?;
    let mut knowledge = state.knowledge.clone();
    let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let restored = id == schema::RESTORED_ID;
    if restored {
        let now = Reading { millis: 0, believed: false };
        let shared = knowledge.seq;
        knowledge.fork(&mut table::SqlTable::new(connection, &mut state), now, shared, random())?;
        connection.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    } else {
        knowledge.start(random());
    }
    knowledge.version += 1;
    state.set_knowledge(knowledge);
    state.store(connection)?;
    schema::set_clean(connection, false)?;
    let members = table::SqlTable::new(connection, &mut state).members()?;
    open.commit()?;
    Ok((state, members, restored))
}

fn thread<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Error> {
    let started =
        std::thread::Builder::new().name(name.into()).stack_size(512 * 1024).spawn(crate::mutants::inherited(run));
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
