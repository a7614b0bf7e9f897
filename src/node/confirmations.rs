//! Waiting until enough peers have a write on disk. Who has it, `proto` knows; here it is only waited for.

use super::shell::Shell;
use super::waiters::{Patience, Waiters};
use crate::document::{Confirmed, Stored};
use crate::id::Dot;
use std::cell::Cell;
use std::string::ToString;
use std::time::Duration;

/// The state of what peers have confirmed, as those who wait have last seen it.
#[derive(Debug, Default)]
pub(super) struct Confirmations {
    waiters: Waiters,
    seen: Cell<u64>,
}

impl Confirmations {
    /// Wakes whoever waits, where there is news.
    pub(super) fn are_at(&self, revision: u64) {
        if self.seen.replace(revision) != revision {
            self.waiters.wake();
        }
    }
}

impl Shell {
    /// Waits until `peers` members have a write of this node on disk, at most so long, and less where the node stops.
    pub(crate) async fn confirmed(&self, stored: &Stored, peers: usize, wait: Duration) -> Confirmed {
        let dot = Dot { origin: stored.version.origin, seq: stored.seq };
        let mut patience = Patience::new(wait, self.stopping.clone());
        loop {
            let news = self.confirmations.waiters.next();
            let by = match dot.seq {
                0 => std::vec::Vec::new(),
                _ => self.engine.borrow().confirmed_by(dot).iter().map(ToString::to_string).collect(),
            };
            let confirmed = Confirmed { enough: by.len() >= peers, by };
            if confirmed.enough || dot.seq == 0 {
                return confirmed;
            }
            if !patience.lasts_until(news.recv()).await {
                return confirmed;
            }
        }
    }
}
