//! One batch of requests, one transaction, one sync; and what becomes of each caller when something fails.
//!
//! Invariant: no reply leaves before the COMMIT that holds its request has returned.

use super::failure::{self, Failure};
use super::space::Space;
use super::state::State;
use super::table::SqlTable;
use crate::error::Error;
use crate::mutants::{Mutant, planted};
use crate::replica::{self, Knowledge, Reply, Request};
use crate::time::Reading;
use async_channel::Sender;
use rusqlite::Connection;
use std::path::Path;
use std::vec::Vec;

/// What a caller waits for.
pub(super) type Outcome = Result<(Reply, Knowledge), Error>;

/// A request with who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) now: Reading,
    pub(super) request: Request,
    pub(super) reply: Sender<Outcome>,
}

impl Job {
    /// The channel holds one answer and gets one; a caller who has gone away is nobody's concern.
    pub(super) fn answer(self, outcome: Outcome) {
        let _ = self.reply.try_send(outcome);
    }
}

/// A transaction that is rolled back unless it is committed.
pub(super) struct Open<'c>(&'c Connection);

impl<'c> Open<'c> {
    pub(super) fn begin(connection: &'c Connection) -> Result<Open<'c>, rusqlite::Error> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(Open(connection))
    }
    pub(super) fn commit(self) -> Result<(), rusqlite::Error> {
        self.0.prepare_cached("COMMIT")?.execute([]).map(|_| ())
    }
}
impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            // Where even this fails the connection is in a transaction still, and the next BEGIN says so.
            let _ = self.0.execute_batch("ROLLBACK");
        }
    }
}

/// Whether the connection can be used for the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum After {
    Good,
    /// An I/O error: nothing more may be answered on it.
    Broken,
}

/// The writing connection with what is known of its database.
pub(super) struct Session<'a> {
    pub(super) connection: &'a Connection,
    pub(super) state: &'a mut State,
    pub(super) space: &'a mut Space,
    pub(super) path: &'a Path,
    /// What is known may not be what is in the database.
    pub(super) unsure: bool,
}

/// What keeps a failure in one request from the others of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Nothing: a failure undoes all, and they are carried out again.
    None,
    /// A savepoint each: what fails in one touches no other.
    Savepoints,
}

/// How a transaction ended for all that was in it.
enum Ended {
    /// Before COMMIT, or COMMIT itself was refused: nothing is in the database.
    Undone(Failure),
    /// COMMIT failed on the disk.
    Unknown(Failure),
}

impl Session<'_> {
    /// Carries out a batch. A broken connection may leave jobs undone: they come back, in order, to be tried again one
    /// by one on the next connection.
    pub(super) fn run(&mut self, mut jobs: Vec<Job>) -> (After, Vec<Job>) {
        if jobs.len() == 1 {
            let after = jobs.pop().map_or(After::Good, |job| self.alone(job));
            return (after, Vec::new());
        }
        let mut outcomes = Vec::with_capacity(jobs.len());
        // Requests hardly ever fail, and a savepoint copies every page that it touches: first without.
        let mut ended = self.together(&jobs, &mut outcomes, Guard::None);
        if matches!(&ended, Err(Ended::Undone(failure)) if !self.is_broken_by(failure)) {
            outcomes.clear();
            ended = self.together(&jobs, &mut outcomes, Guard::Savepoints);
        }
        match ended {
            Ok(()) => {
                for (job, outcome) in jobs.into_iter().zip(outcomes) {
                    job.answer(outcome);
                }
                (After::Good, Vec::new())
            }
            Err(Ended::Unknown(failure)) => {
                let mut failure = Some(failure);
                for job in jobs {
                    let cause = failure.take().unwrap_or_else(|| Failure::Sqlite(rusqlite::Error::UnwindingPanic));
                    job.answer(Err(failure::outcome_unknown(cause, self.path)));
                }
                (After::Broken, Vec::new())
            }
            Err(Ended::Undone(failure)) if self.is_broken_by(&failure) => (After::Broken, jobs),
            // No space for all of them, or somebody else's lock: whoever can go through, does.
            Err(Ended::Undone(_)) => self.one_by_one(jobs),
        }
    }

    /// Carries out requests each in its own transaction.
    pub(super) fn one_by_one(&mut self, jobs: Vec<Job>) -> (After, Vec<Job>) {
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            if self.alone(job) == After::Broken {
                return (After::Broken, jobs.collect());
            }
        }
        (After::Good, Vec::new())
    }

    /// Several requests in one transaction.
    fn together(&mut self, jobs: &[Job], outcomes: &mut Vec<Outcome>, guard: Guard) -> Result<(), Ended> {
        let ended = self.fill(jobs, outcomes, guard);
        self.end(ended)
    }

    fn fill(&mut self, jobs: &[Job], outcomes: &mut Vec<Outcome>, guard: Guard) -> Result<(), Ended> {
        let connection = self.connection;
        let undone = |error: rusqlite::Error| Ended::Undone(error.into());
        let open = Open::begin(connection).map_err(undone)?;
        for job in jobs {
            if let Err(refused) = self.space.admit(&job.request, connection, self.path) {
                outcomes.push(Err(refused));
                continue;
            }
            if guard == Guard::Savepoints {
                connection.prepare_cached("SAVEPOINT one").and_then(|mut s| s.execute([])).map_err(undone)?;
            }
            let mark = self.state.mark();
            let done = replica::execute(&mut SqlTable::new(connection, self.state), job.now, job.request.clone());
            match done {
                Ok(answer) => outcomes.push(Ok(answer)),
                // SQLite has rolled everything back by itself, or must not be used any more, or this one alone cannot
                // be undone.
                Err(failure) if failure.breaks_connection() || connection.is_autocommit() || guard == Guard::None => {
                    return Err(Ended::Undone(failure));
                }
                Err(failure) => {
                    self.state.suspect |= failure.is_corruption();
                    self.state.reset(mark);
                    let undo = connection.prepare_cached("ROLLBACK TO one").and_then(|mut s| s.execute([]));
                    undo.map_err(undone)?;
                    outcomes.push(Err(failure.into_error("writing", self.path)));
                }
            }
            if guard == Guard::Savepoints {
                connection.prepare_cached("RELEASE one").and_then(|mut s| s.execute([])).map_err(undone)?;
            }
        }
        for (job, outcome) in jobs.iter().zip(outcomes.iter()).filter(|(job, _)| planted_early(&job.request)) {
            say_early(outcome, &job.reply);
        }
        self.finish(open)
    }

    /// One request, which needs no savepoint: its transaction is rolled back.
    fn alone(&mut self, job: Job) -> After {
        let Job { now, request, reply } = job;
        let mut answer = None;
        let ended = self.fill_alone(now, request, &mut answer, &reply);
        let (outcome, after) = match (self.end(ended), answer) {
            (Ok(()), Some(answer)) => (answer, After::Good),
            (Ok(()), None) => (Err(failure::closed()), After::Good),
            (Err(Ended::Unknown(failure)), _) => (Err(failure::outcome_unknown(failure, self.path)), After::Broken),
            (Err(Ended::Undone(failure)), _) => {
                let after = if self.is_broken_by(&failure) { After::Broken } else { After::Good };
                (Err(failure.into_error("writing", self.path)), after)
            }
        };
        let _ = reply.try_send(outcome);
        after
    }

    fn fill_alone(
        &mut self,
        now: Reading,
        request: Request,
        answer: &mut Option<Outcome>,
        reply: &Sender<Outcome>,
    ) -> Result<(), Ended> {
        let open = Open::begin(self.connection).map_err(|error| Ended::Undone(error.into()))?;
        if let Err(refused) = self.space.admit(&request, self.connection, self.path) {
            *answer = Some(Err(refused));
            return Ok(());
        }
        let early = planted_early(&request);
        let done = replica::execute(&mut SqlTable::new(self.connection, self.state), now, request);
        let done = Ok(done.map_err(Ended::Undone)?);
        if early {
            say_early(&done, reply);
        }
        *answer = Some(done);
        self.finish(open)
    }

    fn finish(&mut self, open: Open<'_>) -> Result<(), Ended> {
        self.state.store(self.connection).map_err(Ended::Undone)?;
        open.commit().map_err(|error| {
            let failure = Failure::from(error);
            if failure.breaks_connection() { Ended::Unknown(failure) } else { Ended::Undone(failure) }
        })
    }

    /// After a transaction that did not happen, what is known is read again. Where even that fails, what is known is
    /// known no more, whatever the failure was: it holds what was undone.
    fn end(&mut self, ended: Result<(), Ended>) -> Result<(), Ended> {
        if let Err(Ended::Undone(failure) | Ended::Unknown(failure)) = &ended
            && failure.breaks_connection()
        {
            self.state.suspect |= failure.is_corruption();
        }
        if let Err(Ended::Undone(failure)) = &ended
            && !failure.breaks_connection()
        {
            let suspect = failure.is_corruption();
            match State::load(self.connection) {
                Ok(state) => *self.state = State { suspect, ..state },
                Err(failure) => {
                    self.unsure = true;
                    self.state.suspect |= failure.is_corruption();
                    return Err(Ended::Undone(failure));
                }
            }
        }
        ended
    }

    /// Whether the connection and what is known of its database must be had anew.
    fn is_broken_by(&self, failure: &Failure) -> bool {
        self.unsure || failure.breaks_connection()
    }
}

/// Planted bugs: a request whose answer does not wait for its COMMIT.
fn planted_early(request: &Request) -> bool {
    match request {
        Request::Apply(_) => planted(Mutant::ConfirmBeforeSync),
        Request::Write { .. } => planted(Mutant::AnswerBeforeSync),
        _ => false,
    }
}
fn say_early(outcome: &Outcome, reply: &Sender<Outcome>) {
    if let Ok(answer) = outcome {
        let _ = reply.try_send(Ok(answer.clone()));
    }
}
