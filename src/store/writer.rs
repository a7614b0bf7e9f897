//! The thread that owns the writing connection: takes what has gathered, commits it, answers, and tidies when idle.
//!
//! Serves no reads. Knows nothing of rows: that is `commit` and below.

use super::commit::{After, Job, Open, Session};
use super::counters::Tally;
use super::failure::{self, Failure};
use super::inbox::{Bounds, Inbox, Taken};
use super::reader::{Gate, report};
use super::scrub::Finding;
use super::space::Space;
use super::state::State;
use super::{Options, WAL_BYTES_MAX, open, schema};
use crate::error::Error;
use crate::time::Millis;
use async_channel::Sender;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use std::string::ToString;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use std::vec::Vec;

/// What goes into one transaction: bounds the log, the memory, and how long the last of them waits.
const BATCH: Bounds = Bounds { jobs: 256, bytes: 512 * 1024 };
/// After a commit that several shared, those who were answered are given this long to come again, so that commits do
/// not alternate between many requests and few.
const COME_AGAIN: Duration = Duration::from_micros(200);
/// Without a request for this long, the thread tidies.
const IDLE: Duration = Duration::from_millis(500);
/// A log shorter than this is left alone when idle: its pages will change again, and each copy wears the card.
const IDLE_LOG_BYTES: u64 = 1024 * 1024;
/// Free pages given back to the file system in one step.
const VACUUM_PAGES: u32 = 64;
/// Fewer free pages are kept: they will be used again.
const FREE_PAGES_KEPT: i64 = 256;
const PAGE_BYTES: u64 = 4096;
/// How long a checkpoint waits for readers of another program.
const CHECKPOINT_BUSY: Duration = Duration::from_secs(1);
const BUSY: Duration = Duration::from_secs(10);

/// The thread's own.
pub(super) struct Writer {
    options: Arc<Options>,
    inbox: Arc<Inbox<Job>>,
    gate: Arc<Gate>,
    tally: Arc<Tally>,
    found: Sender<Finding>,
    /// The clock of the last request: the thread has none of its own.
    last_now: Millis,
    /// None after a disk failure, until it could be opened again.
    connection: Option<Connection>,
    state: State,
    space: Space,
    /// Pages in the log after the last commit.
    log_pages: Arc<AtomicI32>,
    /// The log is copied back when it is longer than this.
    checkpoint_at: u64,
    /// Something was written since the last tidying.
    untidy: bool,
}

impl Writer {
    pub(super) fn new(
        options: Arc<Options>,
        inbox: Arc<Inbox<Job>>,
        gate: Arc<Gate>,
        tally: Arc<Tally>,
        found: Sender<Finding>,
        connection: Connection,
        state: State,
    ) -> Result<Writer, Failure> {
        let space = Space::new(options.max_database_bytes, options.min_free_bytes);
        let log_pages = Arc::new(AtomicI32::new(0));
        let mut writer = Writer {
            options,
            inbox,
            gate,
            tally,
            found,
            last_now: 0,
            connection: None,
            state,
            space,
            log_pages,
            checkpoint_at: WAL_BYTES_MAX,
            untidy: true,
        };
        writer.adopt(connection)?;
        Ok(writer)
    }

    /// Until the inbox is closed and empty. The last error of an orderly stop.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let delay = Duration::from_millis(self.options.commit_delay_ms);
        let mut last = 1;
        loop {
            let (gather, wanted) = match (delay.is_zero(), last) {
                (false, _) => (delay, BATCH.jobs),
                (true, 0 | 1) => (Duration::ZERO, 1),
                (true, _) => (COME_AGAIN, last),
            };
            match self.inbox.take(self.untidy.then_some(IDLE), gather, wanted, BATCH) {
                Taken::Jobs(jobs) => {
                    last = jobs.len();
                    self.commit(jobs);
                    report(std::mem::take(&mut self.state.found), &self.found);
                    self.untidy = true;
                    if self.log_bytes() > self.checkpoint_at {
                        self.checkpoint(CheckpointMode::RESTART);
                    }
                }
                Taken::Idle => self.tidy(),
                Taken::Closed => return self.finish(),
            }
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        self.last_now = jobs.last().map_or(self.last_now, |job| job.now.millis);
        let requests = jobs.len() as u64;
        let (mut after, mut undone) = match self.session() {
            Ok(mut session) => session.run(jobs),
            Err(error) => return refuse(jobs, &error),
        };
        // Each turn answers at least the job at the head.
        if after == After::Good {
            self.tally.count(|counters| {
                counters.commits += 1;
                counters.requests += requests;
            });
        }
        while after == After::Broken {
            self.reopen();
            if undone.is_empty() {
                return;
            }
            (after, undone) = match self.session() {
                Ok(mut session) => session.one_by_one(undone),
                Err(error) => return refuse(undone, &error),
            };
        }
    }

    /// The connection, opened again if it must be.
    fn session(&mut self) -> Result<Session<'_>, Error> {
        if self.connection.is_none() {
            self.try_reopen().map_err(|failure| failure.into_error("opening again", &self.options.path))?;
        }
        match &self.connection {
            None => Err(failure::closed()),
            Some(connection) => {
                Ok(Session { connection, state: &mut self.state, space: &mut self.space, path: &self.options.path })
            }
        }
    }

    /// After an I/O error: nothing that the old connection believes is believed any more.
    fn reopen(&mut self) {
        if let Err(failure) = self.try_reopen() {
            let error = failure.into_error("opening again after a disk error", &self.options.path);
            log::error!("event=StoreReopen error=\"{error}\"");
        }
    }

    fn try_reopen(&mut self) -> Result<(), Failure> {
        // No other connection may keep the old index of the log alive.
        let gate = Arc::clone(&self.gate);
        let mut reading = gate.hold();
        reading.close();
        if let Some(connection) = self.connection.take() {
            // What follows reads the log as it is on disk; this connection writes nothing more.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            drop(connection);
        }
        let path = &self.options.path;
        open::settle_log(path)?;
        let connection = open::writer(&self.options)?;
        open::quick_check(&connection, path)?;
        if self.options.wal {
            connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE)?;
        }
        self.state = State::load(&connection)?;
        self.adopt(connection)?;
        reading.open(&self.options)?;
        self.tally.count(|counters| counters.reopened += 1);
        log::warn!("event=StoreReopened path={}", self.options.path.display());
        Ok(())
    }

    fn adopt(&mut self, mut connection: Connection) -> Result<(), Failure> {
        let pages = Arc::clone(&self.log_pages);
        pages.store(0, Ordering::Relaxed);
        connection.wal_hook(Some(move |_: &mut Wal, count| {
            pages.store(count, Ordering::Relaxed);
            Ok(())
        }))?;
        self.checkpoint_at = WAL_BYTES_MAX;
        self.connection = Some(connection);
        Ok(())
    }

    fn log_bytes(&self) -> u64 {
        u64::try_from(self.log_pages.load(Ordering::Relaxed)).unwrap_or(0) * PAGE_BYTES
    }

    /// Copies the log back into the database, so that it starts over.
    fn checkpoint(&mut self, mode: CheckpointMode) {
        let Some(connection) = self.connection.as_ref().filter(|_| self.options.wal) else { return };
        let waited = connection.busy_timeout(CHECKPOINT_BUSY);
        let done = waited.and_then(|()| connection.wal_checkpoint_v2(None::<&str>, mode));
        let done = done.and_then(|done| connection.busy_timeout(BUSY).map(|()| done)).map_err(Failure::from);
        match done {
            Ok((log, copied)) if log == copied => {
                self.log_pages.store(0, Ordering::Relaxed);
                self.checkpoint_at = WAL_BYTES_MAX;
                let now = self.last_now;
                self.tally.count(|counters| {
                    counters.checkpoints += 1;
                    counters.last_checkpoint = Some(now);
                });
            }
            Err(failure) if failure.breaks_connection() => {
                log::error!(
                    "event=CheckpointFailed error=\"{}\"",
                    failure.into_error("copying the log", &self.options.path)
                );
                self.reopen();
            }
            // Another program reads an old state, or there is no room: the log grows until that ends. Tried again a step
            // later.
            not_done => {
                let error = not_done.err().map(|failure| failure.into_error("copying the log", &self.options.path));
                let why = error.map_or_else(|| "another program reads it".to_string(), |error| error.to_string());
                self.checkpoint_at = self.log_bytes() + WAL_BYTES_MAX / 4;
                self.tally.count(|counters| counters.checkpoints_put_off += 1);
                if let Some(connection) = &self.connection {
                    // Only the waiting time of foreign locks is at stake.
                    let _ = connection.busy_timeout(BUSY);
                }
                log::warn!("event=CheckpointPutOff logBytes={} reason=\"{why}\"", self.log_bytes());
            }
        }
    }

    /// One step of what can wait: the log first, then free pages.
    fn tidy(&mut self) {
        self.untidy = false;
        if self.log_bytes() >= IDLE_LOG_BYTES {
            self.checkpoint(CheckpointMode::PASSIVE);
        }
        match self.vacuum() {
            Ok(more) => self.untidy = more,
            Err(failure) if failure.breaks_connection() => self.reopen(),
            Err(failure) => {
                log::warn!(
                    "event=VacuumFailed error=\"{}\"",
                    failure.into_error("giving pages back", &self.options.path)
                );
            }
        }
    }

    /// Gives some free pages back where a quarter of the file is free. Says whether there are more.
    fn vacuum(&mut self) -> Result<bool, Failure> {
        let Some(connection) = &self.connection else { return Ok(false) };
        let count = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
        let (free, pages) = (count("PRAGMA freelist_count")?, count("PRAGMA page_count")?);
        if free <= FREE_PAGES_KEPT || free < pages / 4 {
            return Ok(false);
        }
        connection.execute_batch(&std::format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        if self.log_bytes() > self.checkpoint_at {
            self.checkpoint(CheckpointMode::RESTART);
        }
        Ok(true)
    }

    /// The orderly stop: marked, copied back, the log removed.
    fn finish(mut self) -> Result<(), Error> {
        self.gate.hold().end();
        let path = self.options.path.clone();
        let Some(connection) = self.connection.take() else {
            let message = "the database could not be opened again after a disk error; what was answered is on disk";
            return Err(Error::persistence(message, None));
        };
        let close = || -> Result<(), Failure> {
            let open = Open::begin(&connection)?;
            schema::set_clean(&connection, true)?;
            open.commit()?;
            if self.options.wal {
                connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE)?;
            }
            Ok(())
        };
        close().map_err(|failure| failure.into_error("closing", &path))?;
        connection.close().map_err(|(_, error)| Failure::from(error).into_error("closing", &path))
    }
}

/// The store cannot be opened now: all of them learn why, nothing was changed.
fn refuse(jobs: Vec<Job>, error: &Error) {
    for job in jobs {
        let message = std::format!("nothing was changed: {error}");
        job.answer(Err(match error {
            Error::DatabaseCorruption { .. } => Error::DatabaseCorruption { message, source: None },
            Error::Persistence { kind, .. } => Error::Persistence { kind: *kind, message, source: None },
            _ => Error::persistence(message, None),
        }));
    }
}
