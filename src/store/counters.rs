//! What the writing thread has done since the start. It counts, anybody may read; the lock is held for neither disk nor
//! wait.

use crate::time::Millis;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Numbers since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Groups of requests that went to the disk together.
    pub commits: u64,
    /// Requests in them.
    pub requests: u64,
    /// Times that the write-ahead log was copied back whole.
    pub checkpoints: u64,
    /// Times that it could not be.
    pub checkpoints_put_off: u64,
    /// When it last was, milliseconds since 1970 by the clock of the requests around it.
    pub last_checkpoint: Option<Millis>,
    /// Times that the database was opened again after an I/O error.
    pub reopened: u64,
    /// Times that indexes or sums were made anew.
    pub mended: u64,
    /// Times that a damaged database gave way to a new one.
    pub recovered: u64,
}

/// Shared by the thread and whoever asks.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counters: Mutex<Counters>,
    pulse: AtomicU64,
}

impl Tally {
    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
    }
    pub(super) fn read(&self) -> Counters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Something was done, be it a slice of something long.
    pub(super) fn beat(&self) {
        self.pulse.fetch_add(1, Ordering::Relaxed);
    }
    /// Another number than before where something was done meanwhile.
    pub(super) fn pulse(&self) -> u64 {
        self.pulse.load(Ordering::Relaxed)
    }
}
