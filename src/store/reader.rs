//! The thread that answers reads on a connection of its own, so that they never wait for a sync.
//!
//! Each answer is one short read transaction; nothing outlives it, so the log can always start over.

use super::failure::{self, Failure};
use super::inbox::{Bounds, Inbox, Taken};
use super::query;
use super::scrub::{Damage, Finding};
use super::state::State;
use super::still::{self, Still};
use super::table::SqlTable;
use super::{Options, Scrubbed, Sizes, Statistics, open, scrub};
use crate::document::{CollectionSummary, Document, Page, Query};
use crate::error::Error;
use crate::id::LocalSeq;
use crate::replica::{self, Batch, Feed, FeedPage, Found, Knowledge, Stream, Table, Waiting};
use crate::row::{RowKey, Scope};
use crate::time::Millis;
use async_channel::Sender;
use rusqlite::Connection;
use std::string::String;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use std::vec::Vec;

/// Who waits for an answer.
pub(super) type Answer<T> = Sender<Result<T, Error>>;

/// A question.
#[derive(Debug)]
pub(super) enum Ask {
    Get(RowKey, Millis, Answer<Option<(Document, Option<Millis>)>>),
    GetMany(Scope, String, Vec<String>, Millis, Answer<Page>),
    List(Scope, String, Query, Millis, Answer<Page>),
    Collections(Millis, Answer<Vec<CollectionSummary>>),
    Stream(Stream, Answer<Batch>),
    Feed(Feed, Answer<FeedPage>),
    Look(Vec<RowKey>, Answer<Found>),
    Recovered(u64, usize, Answer<Vec<Waiting>>),
    Statistics(Answer<Statistics>),
    Sizes(Answer<Sizes>),
    Scrub(LocalSeq, u64, Answer<Scrubbed>),
    Knowledge(Answer<Knowledge>),
}

/// Questions that may wait.
pub(super) const WAITING: Bounds = Bounds { jobs: 1024, bytes: usize::MAX };
const ONE: Bounds = Bounds { jobs: 1, bytes: usize::MAX };

/// The reading connection, which the writer takes away while it opens the database anew.
#[derive(Debug)]
pub(super) struct Gate {
    reading: Mutex<Reading>,
    /// Damage was met that one row does not explain: the writing thread is to look at all of it.
    suspect: AtomicBool,
    /// The database is damaged, and nothing is written any more: what is whole is read past the damage.
    still: OnceLock<String>,
    /// Told once of that.
    told: (Sender<String>, async_channel::Receiver<String>),
}

/// What is behind the gate.
#[derive(Debug)]
pub(super) struct Reading {
    connection: Option<Connection>,
    ended: bool,
    suspect: bool,
    /// The database lies still, and reads go past damage.
    past_damage: bool,
    still: Still,
}

impl Gate {
    pub(super) fn new(connection: Connection) -> Gate {
        let reading = Mutex::new(Reading {
            connection: Some(connection),
            ended: false,
            suspect: false,
            past_damage: false,
            still: Still::default(),
        });
        Gate { reading, suspect: AtomicBool::new(false), still: OnceLock::new(), told: async_channel::bounded(1) }
    }
    /// Says once that damage was met.
    pub(super) fn take_suspicion(&self) -> bool {
        self.suspect.swap(false, Ordering::SeqCst)
    }
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Ordering::SeqCst);
    }
    /// Nothing is written from here on, and why.
    pub(super) fn lie_still(&self, why: &str) {
        if self.still.set(why.into()).is_ok() {
            let _ = self.told.0.try_send(why.into());
        }
    }
    /// Why nothing is written any more.
    pub(super) fn still(&self) -> Option<&str> {
        self.still.get().map(String::as_str)
    }
    /// Waits until nothing is written any more, and says why; once. Never ends otherwise.
    pub(super) fn told(&self) -> async_channel::Receiver<String> {
        self.told.1.clone()
    }
    /// The lock is held for one answer, or while the writer opens the database anew.
    pub(super) fn hold(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    pub(super) fn close(&mut self) {
        self.connection = None;
    }
    /// Closed for good.
    pub(super) fn end(&mut self) {
        self.connection = None;
        self.ended = true;
    }
    pub(super) fn open(&mut self, options: &Options) -> Result<(), Failure> {
        self.connection = Some(open::reader(options)?);
        Ok(())
    }
    /// One read transaction.
    fn snapshot<T>(
        &mut self,
        options: &Options,
        read: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        if self.ended {
            return Err(failure::closed());
        }
        let answer = self.try_snapshot(options, read);
        if answer.as_ref().is_err_and(Failure::breaks_connection) {
            self.connection = None;
        }
        // A damaged row is an answer, for whoever asked for it alone.
        let of_one_row = matches!(&answer, Err(Failure::Error(_)));
        self.suspect |= !of_one_row && answer.as_ref().is_err_and(Failure::is_corruption);
        answer.map_err(|failure| failure.into_error("reading", &options.path))
    }
    /// The same; where it meets damage of a database that lies still, `past` reads the file by itself, past the damage. No connection
    /// has the file open then: a descriptor that is closed beside it would drop SQLite's locks.
    fn past_damage<T>(
        &mut self,
        options: &Options,
        is_still: bool,
        read: impl FnOnce(&Connection) -> Result<T, Failure>,
        past: impl FnOnce(&mut Still) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let answer = self.snapshot(options, read);
        if !is_still || self.ended || !matches!(answer, Err(Error::DatabaseCorruption { .. })) {
            return answer;
        }
        self.connection = None;
        match past(&mut self.still)? {
            Some(past) => Ok(past),
            None => answer,
        }
    }
    /// A page of which the index led nowhere in some places, with what is whole in the file all the same.
    fn completed(
        &mut self,
        options: &Options,
        mut page: Page,
        places: &[LocalSeq],
        reverse: bool,
        now: Millis,
    ) -> Result<Page, Error> {
        // Of a page that was read past the damage all is there already.
        if page.damaged.is_empty() || places.len() != page.damaged.len() {
            return Ok(page);
        }
        self.connection = None;
        self.still.complete(options, &mut page, places, reverse, now)?;
        Ok(page)
    }
    fn try_snapshot<T>(
        &mut self,
        options: &Options,
        read: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.connection.is_none() {
            self.open(options)?;
        }
        let Some(connection) = &self.connection else { return Err(failure::closed().into()) };
        connection.prepare_cached("BEGIN")?.execute([])?;
        let answer = read(connection);
        let ended = connection.prepare_cached("COMMIT").and_then(|mut end| end.execute([]));
        match ended {
            Ok(_) => answer,
            Err(error) => {
                // Never leave a snapshot open: a connection that cannot end one is thrown away.
                self.connection = None;
                // SQLite ends none well in which it met damage. Of a database that lies still what was read is right all the same.
                let failure = Failure::from(error);
                if self.past_damage && failure.is_corruption() { answer } else { answer.and(Err(failure)) }
            }
        }
    }
}

/// The thread: until the inbox is closed and empty.
pub(super) fn run(options: &Arc<Options>, inbox: &Inbox<Ask>, gate: &Gate, found: &Sender<Finding>, nudge: impl Fn()) {
    loop {
        match inbox.take(None, Duration::ZERO, 1, ONE) {
            Taken::Jobs(asks) => {
                asks.into_iter().for_each(|ask| answer(ask, options, gate, found));
                if gate.suspect.load(Ordering::SeqCst) {
                    nudge();
                }
            }
            Taken::Idle => {}
            Taken::Closed => return,
        }
    }
}

/// Each channel holds one answer and gets one; a caller who has gone away is nobody's concern.
fn answer(ask: Ask, options: &Options, gate: &Gate, found: &Sender<Finding>) {
    let mut reading = gate.hold();
    let mut met = Vec::new();
    let is_still = gate.still().is_some();
    reading.past_damage = is_still;
    match ask {
        Ask::Get(key, now, reply) => {
            let found = reading.past_damage(
                options,
                is_still,
                |connection| query::get(connection, &key, now, &mut met),
                |still| still.get(options, &key, now),
            );
            let _ = reply.try_send(found);
        }
        Ask::GetMany(scope, collection, keys, now, reply) => {
            let page = reading
                .snapshot(options, |connection| query::get_many(connection, scope, &collection, keys, now, &mut met));
            let _ = reply.try_send(page);
        }
        Ask::List(scope, collection, query, now, reply) => {
            let mut places = Vec::new();
            let page = reading.past_damage(
                options,
                is_still,
                |connection| match is_still {
                    true => still::list(connection, scope, &collection, &query, now, &mut places),
                    false => query::list(connection, scope, &collection, &query, now, &mut met),
                },
                |still| still.list(options, scope, &collection, &query, now).map(Some),
            );
            let page = page.and_then(|page| reading.completed(options, page, &places, query.reverse, now));
            let _ = reply.try_send(page);
        }
        Ask::Collections(now, reply) => {
            let _ = reply.try_send(reading.past_damage(
                options,
                is_still,
                |connection| query::collections(connection, now),
                |still| still.collections(options, now).map(Some),
            ));
        }
        Ask::Stream(stream, reply) => {
            let batch = reading
                .snapshot(options, |connection| within(connection, &mut met, |table| replica::read(table, &stream)));
            let _ = reply.try_send(batch);
        }
        Ask::Feed(feed, reply) => {
            let page = reading.past_damage(
                options,
                is_still,
                |connection| within(connection, &mut met, |table| feed.next(table)),
                |still| still.feed(options, &feed),
            );
            let _ = reply.try_send(page);
        }
        Ask::Look(keys, reply) => {
            let rows = reading
                .snapshot(options, |connection| within(connection, &mut met, |table| replica::look(table, &keys)));
            let _ = reply.try_send(rows);
        }
        Ask::Recovered(after, limit, reply) => {
            let rows = reading
                .snapshot(options, |connection| within(connection, &mut met, |table| table.recovered(after, limit)));
            let _ = reply.try_send(rows);
        }
        Ask::Statistics(reply) => {
            let statistics = reading.snapshot(options, query::statistics);
            let _ = reply.try_send(statistics);
        }
        Ask::Sizes(reply) => {
            let sizes = reading.snapshot(options, |connection| query::sizes(connection, options));
            let _ = reply.try_send(sizes);
        }
        Ask::Knowledge(reply) => {
            let known = reading.snapshot(options, |connection| Ok(State::load(connection)?.knowledge));
            let _ = reply.try_send(known);
        }
        Ask::Scrub(after, bytes, reply) => {
            let seen = reading.snapshot(options, |connection| scrub::slice(connection, after, bytes));
            if let Ok(seen) = &seen {
                met.extend(seen.found.iter().filter(|finding| finding.damage == Damage::Index).cloned());
            }
            let _ = reply.try_send(seen);
        }
    }
    if std::mem::take(&mut reading.suspect) || met.iter().any(|finding| finding.damage == Damage::Index) {
        gate.suspect();
    }
    drop(reading);
    report(met, found);
}

/// Reads by the rules, and brings what was met on the way.
fn within<T>(
    connection: &Connection,
    met: &mut Vec<Finding>,
    read: impl FnOnce(&mut SqlTable<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut state = State::load(connection)?;
    let answer = read(&mut SqlTable::new(connection, &mut state));
    met.append(&mut state.found);
    answer
}

/// Tells the node of damaged rows. What it has no room for is met again.
pub(super) fn report(met: Vec<Finding>, found: &Sender<Finding>) {
    for finding in met {
        let _ = found.try_send(finding);
    }
}
