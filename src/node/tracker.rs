//! The sync tracker: the latest errors, when this node was last in sync, and why addresses are not linked.

use crate::limits::RECENT_ERRORS_MAX;
use crate::report::{RecentError, Timestamp};
use crate::time::Millis;
use std::collections::{BTreeMap, VecDeque};
use std::string::{String, ToString};
use std::vec::Vec;

/// Addresses whose last failure is remembered.
const FAILURES_MAX: usize = 64;

/// What happened lately. Bounded: the oldest is forgotten first.
#[derive(Debug, Default)]
pub struct SyncTracker {
    errors: VecDeque<RecentError>,
    failures: BTreeMap<String, String>,
    last_sync: Option<Millis>,
}

impl SyncTracker {
    /// Notes an error. `now` is milliseconds since 1970.
    pub fn record_error(&mut self, now: Millis, message: &str, peer: Option<&str>, code: &str) {
        if self.errors.len() == RECENT_ERRORS_MAX {
            self.errors.pop_front();
        }
        let (code, peer, message) = (code.to_string(), peer.map(str::to_string), message.to_string());
        self.errors.push_back(RecentError { time: Timestamp(now), code, peer, message });
    }
    /// The latest errors, oldest first.
    pub fn recent_errors(&self) -> Vec<RecentError> {
        self.errors.iter().cloned().collect()
    }
    /// When this node and a peer last had everything from each other.
    pub fn last_sync(&self) -> Option<Millis> {
        self.last_sync
    }
    pub(super) fn in_sync(&mut self, now: Millis) {
        self.last_sync = Some(now);
    }
    pub(super) fn failed(&mut self, address: String, reason: String) {
        if self.failures.len() == FAILURES_MAX && !self.failures.contains_key(&address) {
            self.failures.pop_first();
        }
        self.failures.insert(address, reason);
    }
    pub(super) fn succeeded(&mut self, address: &str) {
        self.failures.remove(address);
    }
    pub(super) fn failures(&self) -> impl Iterator<Item = (&String, &String)> {
        self.failures.iter()
    }
}
