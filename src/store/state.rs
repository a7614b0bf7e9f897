//! What the node knows of itself, as the storage threads keep it: decoded between transactions, encoded once for each
//! commit.

use super::codec::{self, bits};
use super::failure::{Failure, damaged};
use super::scrub::Finding;
use super::sql;
use crate::replica::Knowledge;
use rusqlite::{Connection, OptionalExtension, params};
use std::vec::Vec;

/// What stands beside the rows, decoded.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// Which of the two tables of rows is in force.
    pub(super) area: usize,
    /// As of the last request.
    pub(super) knowledge: Knowledge,
    /// It differs from what the database holds.
    pub(super) changed: bool,
    /// Damaged rows that were met since somebody looked.
    pub(super) found: Vec<Finding>,
    /// A record or the structure was met damaged: all of it is to be looked at.
    pub(super) suspect: bool,
    /// Whether there are traces of rows that could not be read; looked up when it is first asked for.
    pub(super) unread: Option<bool>,
}

impl State {
    /// Reads it; the connection is in a transaction, or this is all that is read.
    pub(super) fn load(connection: &Connection) -> Result<State, Failure> {
        let mut statement = connection.prepare_cached(sql::KNOWLEDGE)?;
        let found = statement
            .query_row([], |row| {
                Ok((area(row.get(0)?), codec::decode("the node's own record", row.get_ref(1)?.as_blob()?)))
            })
            .optional()?;
        match found {
            Some((Some(area), knowledge)) => {
                let (found, suspect, unread) = (Vec::new(), false, None);
                Ok(State { area, knowledge: knowledge?, changed: false, found, suspect, unread })
            }
            _ => Err(damaged("the node's own record").into()),
        }
    }
    /// Writes it where it has changed; the last thing before COMMIT.
    pub(super) fn store(&mut self, connection: &Connection) -> Result<(), Failure> {
        if self.changed {
            let state = codec::encode(&self.knowledge)?;
            let (area, version) = (i64::from(self.area == 1), bits(self.knowledge.version));
            connection.prepare_cached(sql::SET_KNOWLEDGE)?.execute(params![area, version, state])?;
            self.changed = false;
        }
        Ok(())
    }
    /// What a request may have changed before it failed: its knowledge is set last, so only these.
    pub(super) fn mark(&self) -> (usize, bool) {
        (self.area, self.changed)
    }
    /// Back to a mark.
    pub(super) fn reset(&mut self, (area, changed): (usize, bool)) {
        (self.area, self.changed) = (area, changed);
    }
    /// Replaces the knowledge; written by the next [`State::store`].
    pub(super) fn set_knowledge(&mut self, knowledge: Knowledge) {
        self.knowledge = knowledge;
        self.changed = true;
    }
}

/// Which table is in force, without decoding anything else.
pub(super) fn area_in_force(connection: &Connection) -> Result<usize, Failure> {
    let found = connection.prepare_cached(sql::AREA)?.query_row([], |row| row.get(0)).optional()?;
    found.and_then(area).ok_or_else(|| damaged("the node's own record").into())
}

fn area(column: i64) -> Option<usize> {
    match column {
        0 => Some(0),
        1 => Some(1),
        _ => None,
    }
}
