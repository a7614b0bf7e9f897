//! The thread that owns the writing connection: takes what has gathered, commits it, answers, and tidies when idle.
//!
//! Serves no reads. Knows nothing of rows: that is `commit` and below. What it does after an error is `again`, what it does
//! when idle `tidy`.

mod again;
mod tidy;

use super::commit::{After, Job, Open, Session};
use super::copy::{Desk, May};
use super::counters::Tally;
use super::failure::{self, Failure};
use super::inbox::{Bounds, Inbox, Taken};
use super::keeper::Keeper;
use super::reader::{Gate, report};
use super::scrub::{Damage, Finding};
use super::space::Space;
use super::state::State;
use super::{Options, schema};
use crate::error::Error;
use crate::time::Millis;
use async_channel::Sender;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use std::rc::Rc;
use std::string::String;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use std::vec::Vec;

/// What goes into one transaction: bounds the log, the memory, and how long the last of them waits.
const BATCH: Bounds = Bounds { jobs: 256, bytes: 512 * 1024 };
/// After a commit that several shared, those who were answered are given this long to come again, so that commits do
/// not alternate between many requests and few.
const COME_AGAIN: Duration = Duration::from_micros(200);
const PAGE_BYTES: u64 = 4096;
/// Steps of SQLite's virtual machine from one sign of life to the next: some milliseconds of work.
const STEPS_PER_BEAT: i32 = 100_000;
/// Pages that are copied between two commits while a backup is made: a writer waits that long.
const COPY_PAGES: i32 = 16;
/// While the copy waits for the disk; it is woken.
const WAIT: Duration = Duration::from_millis(500);

/// The thread's own.
pub(super) struct Writer {
    options: Arc<Options>,
    inbox: Arc<Inbox<Job>>,
    gate: Arc<Gate>,
    keeper: Arc<Keeper>,
    tally: Arc<Tally>,
    found: Sender<Finding>,
    /// The clock of the last request: the thread has none of its own.
    last_now: Millis,
    /// None after a disk failure, until it could be opened again.
    connection: Option<Rc<Connection>>,
    /// Damage was met: the next connection looks at all of the structure.
    suspect: bool,
    /// When that last found nothing: who meets the same again soon changes nothing.
    sound_at: Option<Millis>,
    /// Why nothing is written: the database is damaged and nothing can take its place.
    read_only: Option<String>,
    /// The database is another one since: rows that were staged for a bootstrap are gone.
    stage_lost: bool,
    random: fastrand::Rng,
    /// After an I/O error nothing more is done with the connection; what was not carried out waits here for the next one.
    broken: Option<Vec<Job>>,
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
        keeper: Arc<Keeper>,
        tally: Arc<Tally>,
        found: Sender<Finding>,
        state: State,
    ) -> Writer {
        Writer {
            space: Space::new(&options),
            options,
            inbox,
            gate,
            keeper,
            tally,
            found,
            last_now: 0,
            connection: None,
            suspect: false,
            sound_at: None,
            read_only: None,
            stage_lost: false,
            random: fastrand::Rng::with_seed(0),
            broken: None,
            state,
            log_pages: Arc::new(AtomicI32::new(0)),
            checkpoint_at: 0,
            untidy: true,
        }
    }

    /// Until the inbox is closed and empty. The last error of an orderly stop.
    pub(super) fn run(
        mut self,
        connection: Option<Connection>,
        read_only: Option<String>,
        seed: u64,
    ) -> Result<(), Error> {
        let path = self.options.path.clone();
        (self.read_only, self.random) = (read_only, fastrand::Rng::with_seed(seed));
        if let Some(connection) = connection {
            self.adopt(connection).map_err(|failure| failure.into_error("opening", &path))?;
        }
        let mut last = 1;
        loop {
            if let Some(destination) = self.keeper.desk.take_order() {
                self.copy(destination, &mut last);
            }
            if self.gate.take_suspicion() {
                self.suspect();
            }
            if let Some(undone) = self.broken.take() {
                self.mend(undone);
            }
            match self.turn(self.untidy.then_some(self.options.idle), &mut last) {
                Turn::Worked => {}
                Turn::Idle => self.tidy(),
                Turn::Closed => return self.finish(),
            }
        }
    }

    /// Waits for requests, at most `idle`, and commits what has gathered.
    fn turn(&mut self, idle: Option<Duration>, last: &mut usize) -> Turn {
        let delay = Duration::from_millis(self.options.commit_delay_ms);
        let (gather, wanted) = match (delay.is_zero(), *last) {
            (false, _) => (delay, BATCH.jobs),
            (true, 0 | 1) => (Duration::ZERO, 1),
            (true, _) => (COME_AGAIN, *last),
        };
        match self.inbox.take(idle, gather, wanted, BATCH) {
            Taken::Jobs(jobs) => {
                *last = jobs.len();
                self.commit(jobs);
                let met = std::mem::take(&mut self.state.found);
                if std::mem::take(&mut self.state.suspect) || met.iter().any(|finding| finding.damage == Damage::Index)
                {
                    self.suspect();
                }
                report(met, &self.found);
                self.untidy = true;
                if self.broken.is_none() && self.log_bytes() > self.checkpoint_at {
                    self.checkpoint(CheckpointMode::RESTART);
                }
                Turn::Worked
            }
            Taken::Idle => Turn::Idle,
            Taken::Closed => Turn::Closed,
        }
    }

    /// Copies the database a few pages at a time, and serves meanwhile. What is committed goes into the copy too, since it
    /// is made on the connection that writes.
    fn copy(&mut self, mut destination: Connection, last: &mut usize) {
        let keeper = Arc::clone(&self.keeper);
        let copied = match self.connection.clone() {
            None => Err(Failure::from(failure::closed())),
            Some(connection) => self.copy_from(&connection, &mut destination, &keeper.desk, last),
        };
        keeper.desk.end(copied, destination);
    }

    fn copy_from(
        &mut self,
        source: &Connection,
        destination: &mut Connection,
        desk: &Desk,
        last: &mut usize,
    ) -> Result<(), Failure> {
        let backup = Backup::new(source, destination)?;
        loop {
            // A commit goes before a step, and a step waits until the one before has reached the disk.
            let idle = match desk.may_copy() {
                May::Copy => Duration::ZERO,
                May::Wait => WAIT,
                May::GiveUp => return Err(failure::closed().into()),
            };
            if self.turn(Some(idle), last) == Turn::Closed {
                return Err(failure::closed().into());
            }
            if self.broken.is_some() {
                return Err(Error::persistence("the disk failed while the backup was made", None).into());
            }
            if desk.may_copy() == May::Copy {
                let step = backup.step(COPY_PAGES)?;
                let progress = backup.progress();
                desk.copied(u64::try_from(progress.pagecount - progress.remaining).unwrap_or(0));
                if step == StepResult::Done {
                    return Ok(());
                }
            }
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        self.last_now = jobs.last().map_or(self.last_now, |job| job.now.millis);
        let requests = jobs.len() as u64;
        let jobs = self.without_lost_stage(jobs);
        if jobs.is_empty() {
            return;
        }
        let (after, undone) = match self.session() {
            Ok(mut session) => session.run(jobs),
            Err(error) => return refuse(jobs, &error),
        };
        match after {
            // Each turn answers at least the job at the head.
            After::Good => self.tally.count(|counters| {
                counters.commits += 1;
                counters.requests += requests;
            }),
            After::Broken => self.broken = Some(undone),
        }
    }

    /// The connection, opened again if it must be.
    fn session(&mut self) -> Result<Session<'_>, Error> {
        if let Some(why) = &self.read_only {
            return Err(Error::DatabaseCorruption { message: why.clone(), source: None });
        }
        if self.connection.is_none() {
            self.try_reopen().map_err(|failure| failure.into_error("opening again", &self.options.path))?;
        }
        match &self.connection {
            None => Err(failure::closed()),
            Some(connection) => {
                let Writer { state, space, options, .. } = self;
                Ok(Session { connection, state, space, path: &options.path, unsure: false })
            }
        }
    }

    /// A check of the whole file may take minutes: whoever watches over this thread sees that it goes on.
    fn give_pulse(&self, connection: &mut Connection) -> Result<(), Failure> {
        let tally = Arc::clone(&self.tally);
        let at_work = move || {
            tally.beat();
            false
        };
        connection.progress_handler(STEPS_PER_BEAT, Some(at_work))?;
        Ok(())
    }

    fn adopt(&mut self, mut connection: Connection) -> Result<(), Failure> {
        self.give_pulse(&mut connection)?;
        let pages = Arc::clone(&self.log_pages);
        pages.store(0, Ordering::Relaxed);
        connection.wal_hook(Some(move |_: &mut Wal, count| {
            pages.store(count, Ordering::Relaxed);
            Ok(())
        }))?;
        self.checkpoint_at = self.options.log_bytes;
        self.connection = Some(Rc::new(connection));
        Ok(())
    }

    fn log_bytes(&self) -> u64 {
        u64::try_from(self.log_pages.load(Ordering::Relaxed)).unwrap_or(0) * PAGE_BYTES
    }

    /// The orderly stop: marked, copied back, the log removed.
    fn finish(mut self) -> Result<(), Error> {
        self.gate.hold().end();
        let keeper = Arc::clone(&self.keeper);
        let _kept_out = keeper.keep_out();
        let path = self.options.path.clone();
        if self.read_only.is_some() {
            return Ok(());
        }
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
        let Ok(connection) = Rc::try_unwrap(connection) else { return Ok(()) };
        connection.close().map_err(|(_, error)| Failure::from(error).into_error("closing", &path))
    }
}

/// What one turn of the thread came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Worked,
    Idle,
    Closed,
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
