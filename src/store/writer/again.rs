//! After an I/O error, or where damage was met: the database is opened anew, mended or recovered, and what was left undone
//! is carried out.

use super::{Writer, refuse};
use crate::error::Error;
use crate::replica::Request;
use crate::store::commit::{After, Job};
use crate::store::failure::{self, Failure};
use crate::store::mend::{self, Examined};
use crate::store::state::State;
use crate::store::{open, recover, start};
use crate::time::Millis;
use rusqlite::config::DbConfig;
use rusqlite::wal::CheckpointMode;
use std::string::ToString;
use std::sync::Arc;
use std::vec::Vec;

/// What was found sound is not looked at again before this, milliseconds.
const EXAMINED_MS: Millis = 60_000;

impl Writer {
    /// After an I/O error: opens the database anew and carries out what was left undone.
    pub(super) fn mend(&mut self, mut undone: Vec<Job>) {
        loop {
            let before = self.tally.read().recovered;
            self.reopen();
            if undone.is_empty() {
                return;
            }
            if self.tally.read().recovered > before {
                // They were meant for another database.
                let message = "the database was damaged and has been rebuilt, nothing of this was stored: try again";
                return refuse(undone, &Error::persistence(message, None));
            }
            let after;
            (after, undone) = match self.session() {
                Ok(mut session) => session.one_by_one(undone),
                Err(error) => return refuse(undone, &error),
            };
            if after == After::Good {
                return;
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

    pub(super) fn try_reopen(&mut self) -> Result<(), Failure> {
        // No other connection may keep the old index of the log alive.
        let (gate, keeper) = (Arc::clone(&self.gate), Arc::clone(&self.keeper));
        let mut reading = gate.hold();
        reading.close();
        let _kept_out = keeper.keep_out();
        if let Some(connection) = self.connection.take() {
            // What follows reads the log as it is on disk; this connection writes nothing more.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            drop(connection);
        }
        match self.open_again() {
            Err(failure) if failure.is_corruption() => self.recover(failure)?,
            opened => opened?,
        }
        reading.open(&self.options)?;
        self.tally.count(|counters| counters.reopened += 1);
        log::warn!("event=StoreReopened path={}", self.options.path.display());
        Ok(())
    }

    fn open_again(&mut self) -> Result<(), Failure> {
        let path = self.options.path.clone();
        open::settle_log(&*self.options.disk, &path)?;
        let mut connection = open::writer(&self.options)?;
        open::sync_folder(&*self.options.disk, open::folder_of(&path))?;
        self.give_pulse(&mut connection)?;
        if std::mem::take(&mut self.suspect) {
            match mend::examine(&connection)? {
                Examined::Sound => self.sound_at = Some(self.last_now),
                Examined::Mended(faults) => {
                    self.tally.count(|counters| counters.mended += 1);
                    log::error!("event=DatabaseMended cause=\"{faults}\"");
                }
                Examined::Broken(faults) => return Err(failure::broken(&path, &faults).into()),
            }
        } else if let Err(failure) = open::quick_check(&connection, &path) {
            start::mend_in_place(&connection, failure)?;
        }
        if self.options.wal {
            connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE)?;
        }
        self.state = State::load(&connection)?;
        self.adopt(connection)
    }

    /// Sets the damaged database aside and goes on with what takes its place. Where nothing can, nothing is written from
    /// here on.
    fn recover(&mut self, failure: Failure) -> Result<(), Failure> {
        let options = Arc::clone(&self.options);
        let cause = failure::fault(&failure, &options.path);
        if let Err(error) = recover::begin(&options, &cause) {
            if matches!(error, Error::DatabaseCorruption { .. }) {
                log::error!("event=DatabaseReadOnly cause=\"{error}\"");
                self.read_only = Some(error.to_string());
                self.gate.lie_still(&error.to_string());
                return Ok(());
            }
            return Err(error.into());
        }
        recover::make_way(&options)?;
        let mut random = || self.random.u64(..);
        let connection = open::writer(&options)?;
        open::schema(&connection, &options.path, true, &mut random)?;
        let (mut state, _, _) = start::start(&connection, &mut random)?;
        recover::carry_over(&connection, &options, &mut state, self.state.knowledge.version, &mut random)?;
        self.state = state;
        self.stage_lost = true;
        self.tally.count(|counters| counters.recovered += 1);
        self.adopt(connection)
    }

    /// Damage was met: everything is looked at, unless that was just done and found nothing.
    pub(super) fn suspect(&mut self) {
        let lately = self.sound_at.is_some_and(|at| self.last_now < at + EXAMINED_MS);
        if self.read_only.is_none() && !lately {
            self.suspect = true;
            self.broken.get_or_insert_default();
        }
    }

    /// Takes out what would put in force rows that were staged in a database that is no more.
    pub(super) fn without_lost_stage(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        if !self.stage_lost {
            return jobs;
        }
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for job in jobs {
            match &job.request {
                Request::Stage { first: true, .. } => self.stage_lost = false,
                Request::Stage { .. } | Request::Bootstrap { .. } if self.stage_lost => {
                    lost.push(job);
                    continue;
                }
                _ => {}
            }
            kept.push(job);
        }
        refuse(lost, &Error::persistence("the database was rebuilt: the bootstrap begins again", None));
        kept
    }
}
