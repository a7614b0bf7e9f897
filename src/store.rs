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
mod ask;
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
mod shelf;
mod space;
mod spill;
mod sql;
mod start;
mod state;
mod still;
mod table;
mod upkeep;
mod verify;
mod writer;

use crate::error::Error;
use crate::replica::{Knowledge, Members};
pub use backup::{Backup, BackupOrder};
pub use check::Checked;
use commit::Job;
pub use counters::Counters;
use counters::Tally;
pub use disk::{Disk, Entry, FileSystem, Held};
use inbox::Inbox;
use keeper::Keeper;
pub use ledger::{BackupLedger, LastBackup};
use reader::{Ask, Gate};
pub use recover::{Incident, Recovery};
pub use restore::Restored;
pub use scrub::{Damage, Finding, Scrubbed};
pub use spill::{Spill, lend_reserve, said_of_loss};
use std::path::PathBuf;
use std::string::String;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
pub use upkeep::Salvage;

/// Bytes of write-ahead log at which it is copied back; one transaction may carry it beyond.
pub const WAL_BYTES_MAX: u64 = 4 * 1024 * 1024;

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
    /// Bytes of pages within the database that are free: documents may be written there without room on the disk.
    pub reusable_bytes: u64,
    /// Databases that were set aside beside it.
    pub set_aside: u64,
    /// Bytes that they take.
    pub set_aside_bytes: u64,
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
    gate: Arc<Gate>,
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
