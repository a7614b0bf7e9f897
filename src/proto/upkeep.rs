//! What is done for the database from time to time: tombstones that everybody has are dropped, documents expire, and what
//! members have confirmed is written down.

use super::engine::Engine;
use super::io::{Now, Output};
use super::session::Session;
use super::storage::Pending;
use crate::id::LocalSeq;
use crate::limits::{TOMBSTONE_BYTES_MAX, TOMBSTONES_MAX};
use crate::replica::{Maintained, Request, Retention};
use crate::time::Millis;
use alloc::vec::Vec;

/// Confirmed vectors are written down this often: after a restart they are only a little behind.
const CONFIRMED_NOTED_MS: Millis = 30_000;
/// Rows of one slice of maintenance.
const MAINTAIN_SLICE: usize = 256;

/// When the next of it is due, and how far the round over all tombstones is.
pub(super) struct Upkeep {
    maintain_at: Millis,
    pub(super) maintaining: bool,
    position: LocalSeq,
    /// Bytes of tombstones in the last round over all of them, and in this one so far.
    tombstone_bytes: u64,
    tombstone_bytes_seen: u64,
    note_confirmed_at: Millis,
}

impl Upkeep {
    pub(super) fn new(now: Now, interval: Millis) -> Upkeep {
        Upkeep {
            maintain_at: now.mono + interval,
            maintaining: false,
            position: 0,
            tombstone_bytes: 0,
            tombstone_bytes_seen: 0,
            note_confirmed_at: now.mono + CONFIRMED_NOTED_MS,
        }
    }
    pub(super) fn deadline(&self) -> Millis {
        self.maintain_at.min(self.note_confirmed_at)
    }
}

impl Engine {
    pub(super) fn upkeep_timers(&mut self, now: Now) {
        if now.mono >= self.upkeep.maintain_at
            && !self.upkeep.maintaining
            && !self.forking
            && self.bootstrapping.is_none()
        {
            self.upkeep.maintain_at = now.mono + self.settings.maintain_interval;
            self.upkeep.maintaining = true;
            let served = self.sessions.values().filter_map(Session::serving_bootstrap).min();
            let retention = Retention {
                confirmed_by_all: self.members.confirmed_by_all(),
                min_age: self.settings.tombstone_min_age,
                keep: self.settings.tombstone_keep,
                tombstones_max: TOMBSTONES_MAX,
                bytes_over: self.upkeep.tombstone_bytes.saturating_sub(TOMBSTONE_BYTES_MAX),
                upto: served.unwrap_or(LocalSeq::MAX),
                after: self.upkeep.position,
                slice: MAINTAIN_SLICE,
            };
            self.store(now, Pending::Maintain, Request::Maintain(retention));
        }
        if now.mono >= self.upkeep.note_confirmed_at {
            self.note_confirmed(now);
        }
    }

    pub(super) fn maintained(&mut self, now: Now, done: Maintained) {
        self.upkeep.maintaining = false;
        self.upkeep.position = done.next;
        self.upkeep.tombstone_bytes_seen += done.bytes;
        if done.next == 0 {
            self.upkeep.tombstone_bytes = core::mem::take(&mut self.upkeep.tombstone_bytes_seen);
        }
        self.counters.tombstones_dropped += done.dropped;
        self.counters.expired += done.expired.len() as u64;
        if done.more || done.next > 0 {
            self.upkeep.maintain_at = now.mono + self.settings.maintain_interval / 10;
        }
        if !done.expired.is_empty() {
            self.outputs.push_back(Output::Changed { keys: done.expired });
            self.rows_relayed(now);
        }
    }

    /// Writes down what members are known to have on disk, where that has changed.
    pub(super) fn note_confirmed(&mut self, now: Now) {
        self.upkeep.note_confirmed_at = now.mono + CONFIRMED_NOTED_MS;
        let dirty = self.members.by_device.iter_mut().filter(|(_, member)| member.dirty);
        let vectors: Vec<_> = dirty
            .map(|(device, member)| {
                member.dirty = false;
                (*device, member.state.replica, member.state.confirmed.clone())
            })
            .collect();
        if !vectors.is_empty() {
            self.store(now, Pending::Noted, Request::Confirmed { vectors });
        }
    }
}
