//! What can wait until the answers have left: the log is copied back, free pages are given back.

use super::Writer;
use crate::store::failure::Failure;
use crate::store::open;
use rusqlite::wal::CheckpointMode;
use std::string::ToString;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A log shorter than this share of its bound is left alone when idle: its pages will change again, and each copy wears
/// the card.
const IDLE_LOG_SHARE: u64 = 4;
/// Free pages given back to the file system in one step.
const VACUUM_PAGES: u32 = 64;
/// Fewer free pages are kept: they will be used again.
const FREE_PAGES_KEPT: i64 = 256;
/// How long a checkpoint waits for readers of another program.
const CHECKPOINT_BUSY: Duration = Duration::from_secs(1);
const BUSY: Duration = Duration::from_secs(10);

impl Writer {
    /// Copies the log back into the database, so that it starts over.
    pub(super) fn checkpoint(&mut self, mode: CheckpointMode) {
        let Some(connection) = self.connection.clone().filter(|_| self.options.wal) else { return };
        // A check holds a snapshot for seconds, and nobody waits for that here.
        let checked = self.keeper.is_reading();
        let mode = if checked { CheckpointMode::PASSIVE } else { mode };
        let waited = connection.busy_timeout(CHECKPOINT_BUSY);
        let done = waited.and_then(|()| connection.wal_checkpoint_v2(None::<&str>, mode));
        let done = done.and_then(|done| connection.busy_timeout(BUSY).map(|()| done)).map_err(Failure::from);
        match done {
            Ok((log, copied)) if log == copied => {
                self.log_pages.store(0, Ordering::Relaxed);
                self.checkpoint_at = self.options.log_bytes;
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
                self.broken.get_or_insert_default();
            }
            // Another program reads an old state, or there is no room: the log grows until that ends. Tried again a step
            // later.
            Ok(_) if checked => self.checkpoint_at = self.log_bytes() + self.options.log_bytes / 4,
            not_done => {
                let error = not_done.err().map(|failure| failure.into_error("copying the log", &self.options.path));
                let why = error.map_or_else(|| "another program reads it".to_string(), |error| error.to_string());
                self.checkpoint_at = self.log_bytes() + self.options.log_bytes / 4;
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
    pub(super) fn tidy(&mut self) {
        self.untidy = false;
        if self.log_bytes() >= self.options.log_bytes / IDLE_LOG_SHARE {
            self.checkpoint(CheckpointMode::PASSIVE);
        }
        match self.vacuum() {
            Ok(more) => self.untidy = more,
            Err(failure) if failure.breaks_connection() => drop(self.broken.get_or_insert_default()),
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
        let Some(connection) = self.connection.clone() else { return Ok(false) };
        let count = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
        let (free, pages) = (count("PRAGMA freelist_count")?, count("PRAGMA page_count")?);
        if free <= FREE_PAGES_KEPT || free < pages / 4 {
            return Ok(false);
        }
        open::to_the_end(&connection, &std::format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        if self.log_bytes() > self.checkpoint_at {
            self.checkpoint(CheckpointMode::RESTART);
        }
        Ok(true)
    }
}
