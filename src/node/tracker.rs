//! The sync tracker: the latest errors, when this node was last in sync, and why addresses are not linked.

use crate::clock;
use crate::limits::RECENT_ERRORS_MAX;
use crate::report::{RecentError, Timestamp};
use crate::time::Millis;
use std::collections::{BTreeMap, VecDeque};
use std::string::String;
use std::vec::Vec;

/// Addresses whose last failure is remembered.
const FAILURES_MAX: usize = 64;
/// A failure that was not repeated for so long is forgotten: some times the longest rest between two dials.
const FAILURE_KEPT_MS: Millis = 300_000;
/// Longest text of an error, in bytes.
const MESSAGE_BYTES_MAX: usize = 512;

/// What happened lately. Bounded: the oldest is forgotten first, and a text is cut.
///
/// ```
/// let mut tracker = cbddc::SyncTracker::default();
/// tracker.record_error("the peer hung up", "gateway-07", "NETWORK_ERROR");
/// tracker.record_error("the disk was rolled back", None, "SYNC_ERROR");
/// assert_eq!(tracker.recent_errors().len(), 2);
/// ```
#[derive(Debug, Default)]
pub struct SyncTracker {
    errors: VecDeque<RecentError>,
    /// By address: the last attempt to link that failed.
    failures: BTreeMap<String, Failure>,
    last_sync: Option<Millis>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    at: Millis,
    /// It stands among the recent errors.
    recorded: bool,
}

impl SyncTracker {
    /// Notes an error that happens now. `peer` is a name or an address, `code` an error code such as `SYNC_ERROR`.
    pub fn record_error<'a>(&mut self, message: &str, peer: impl Into<Option<&'a str>>, code: &str) {
        if self.errors.len() == RECENT_ERRORS_MAX {
            self.errors.pop_front();
        }
        let (time, peer) = (Timestamp(clock::wall_ms()), peer.into().map(bounded));
        self.errors.push_back(RecentError { time, code: bounded(code), peer, message: bounded(message) });
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
    /// An attempt to link has failed; true where that is news of this address. `mono` is the monotonic clock.
    pub(super) fn failed(&mut self, mono: Millis, address: &str, reason: &str) -> bool {
        self.failures.retain(|_, failure| failure.at + FAILURE_KEPT_MS >= mono);
        if self.failures.len() == FAILURES_MAX && !self.failures.contains_key(address) {
            let oldest = self.failures.iter().min_by_key(|(_, failure)| failure.at).map(|(address, _)| address.clone());
            oldest.and_then(|oldest| self.failures.remove(&oldest));
        }
        let (address, reason) = (bounded(address), bounded(reason));
        let before = self.failures.remove(&address);
        let news = before.as_ref().is_none_or(|before| before.reason != reason);
        let recorded = !news && before.is_some_and(|before| before.recorded);
        self.failures.insert(address, Failure { reason, at: mono, recorded });
        news
    }
    /// Whether a failure is to be recorded as an error: once for each reason.
    pub(super) fn is_to_be_recorded(&mut self, address: &str) -> bool {
        self.failures.get_mut(&bounded(address)).is_some_and(|failure| !std::mem::replace(&mut failure.recorded, true))
    }
    pub(super) fn succeeded(&mut self, address: &str) {
        self.failures.remove(address);
    }
    /// Addresses and why the last attempt to link failed.
    pub(super) fn failures(&self, mono: Millis) -> impl Iterator<Item = (&str, &str)> {
        let late = move |at: Millis| at + FAILURE_KEPT_MS >= mono;
        let all = self.failures.iter();
        let recent = all.filter(move |(_, failure)| late(failure.at));
        recent.map(|(address, failure)| (address.as_str(), failure.reason.as_str()))
    }
}

/// The text, cut at its bound between two characters.
fn bounded(text: &str) -> String {
    let fits = |end: usize| end <= MESSAGE_BYTES_MAX;
    text.char_indices().take_while(|(at, c)| fits(at + c.len_utf8())).map(|(_, c)| c).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn errors_are_bounded_in_number_and_in_bytes() {
        let mut tracker = SyncTracker::default();
        for nth in 0..100 {
            tracker.record_error(&format!("{nth} {}", "\u{e4}".repeat(10_000)), "peer", "SYNC_ERROR");
        }
        let errors = tracker.recent_errors();
        assert_eq!(errors.len(), RECENT_ERRORS_MAX);
        assert!(errors[0].message.starts_with("68 ") && errors[31].message.starts_with("99 "), "the oldest go first");
        assert!(errors.iter().all(|error| error.message.len() <= MESSAGE_BYTES_MAX));
    }

    #[test]
    fn a_failure_is_known_until_it_is_over_or_was_not_repeated_for_long() {
        let mut tracker = SyncTracker::default();
        assert!(tracker.failed(0, "10.0.0.2:5000", "refused") && !tracker.failed(500, "10.0.0.2:5000", "refused"));
        assert!(tracker.is_to_be_recorded("10.0.0.2:5000") && !tracker.is_to_be_recorded("10.0.0.2:5000"));
        assert!(tracker.failed(1_000, "10.0.0.2:5000", "filtered"));
        assert!(tracker.is_to_be_recorded("10.0.0.2:5000"), "for another reason");
        assert!(tracker.failed(200_000, "10.0.0.3:5000", "refused"));
        assert_eq!(
            tracker.failures(200_000).collect::<Vec<_>>(),
            [("10.0.0.2:5000", "filtered"), ("10.0.0.3:5000", "refused")]
        );
        assert_eq!(tracker.failures(302_000).collect::<Vec<_>>(), [("10.0.0.3:5000", "refused")]);
        tracker.succeeded("10.0.0.3:5000");
        assert_eq!(tracker.failures(302_000).count(), 0);
        for nth in 0..1_000 {
            tracker.failed(302_000 + nth, &format!("{nth}"), "refused");
        }
        assert_eq!(tracker.failures(303_000).count(), FAILURES_MAX);
        assert!(tracker.failures(303_000).any(|(address, _)| address == "999"));
    }
}
