//! Repeated events: so many of each in a minute, then one line that says how many more there were.
//!
//! An event is a place in the program and a collection. Writes nothing, reads no clock, and is bounded whatever is logged.

use super::line::cut;
use crate::config::LogLevel;
use crate::time::Millis;
use std::collections::HashMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// Lines of one event that are written within [`WINDOW_MS`].
pub(super) const WRITTEN_MAX: u32 = 10;
/// The time after which an event is new again.
pub(super) const WINDOW_MS: Millis = 60_000;
/// Events that are counted at once; of one that gives way the count is said at once.
const EVENTS_MAX: usize = 256;
/// Bytes of the last message that are kept to be said with the count.
const KEPT_BYTES_MAX: usize = 512;
/// Bytes of a collection's name that tell it from others.
const COLLECTION_BYTES_MAX: usize = 128;

/// What happened, whatever its fields say.
type Event = (&'static str, u32, String);

/// The events of the last minute.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    events: HashMap<Event, Window>,
    /// No window ends before this.
    next_end: Millis,
}

#[derive(Debug)]
struct Window {
    began: Millis,
    written: u32,
    left_out: u64,
    level: LogLevel,
    last: String,
}

/// A line that says how many were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) level: LogLevel,
    pub(super) message: String,
}

impl Window {
    fn summary(self) -> Option<Summary> {
        // The count stands as a field, behind the last of them.
        let message = format!("{} left_out={}", self.last, self.left_out);
        (self.left_out > 0).then_some(Summary { level: self.level, message })
    }
}

impl Repeats {
    /// Whether this one is to be written. `now` is the monotonic clock, `place` where in the program it is logged.
    pub(super) fn takes(&mut self, now: Millis, place: (&'static str, u32), level: LogLevel, message: &str) -> bool {
        let event = (place.0, place.1, collection_of(message).to_string());
        if let Some(window) = self.events.get_mut(&event) {
            if window.written < WRITTEN_MAX {
                window.written += 1;
                return true;
            }
            window.left_out += 1;
            window.last = cut(message, KEPT_BYTES_MAX).to_string();
            return false;
        }
        let began = now;
        self.next_end = if self.events.is_empty() { began + WINDOW_MS } else { self.next_end.min(began + WINDOW_MS) };
        self.events.insert(event, Window { began, written: 1, left_out: 0, level, last: String::new() });
        true
    }

    /// What is to be said of windows that have ended, or that give way to a new event.
    pub(super) fn ended(&mut self, now: Millis) -> Vec<Summary> {
        let full = self.events.len() >= EVENTS_MAX;
        if now < self.next_end && !full {
            return Vec::new();
        }
        let oldest = self.events.values().map(|window| window.began).min();
        let over = |window: &Window| now >= window.began + WINDOW_MS || (full && Some(window.began) == oldest);
        let mut summaries: Vec<Summary> =
            self.events.extract_if(|_, window| over(window)).filter_map(|(_, window)| window.summary()).collect();
        summaries.sort_by(|a, b| a.message.cmp(&b.message));
        self.next_end = self.events.values().map(|window| window.began + WINDOW_MS).min().unwrap_or(0);
        summaries
    }

    /// All that is left to be said, at the end.
    pub(super) fn all(&mut self) -> Vec<Summary> {
        self.next_end = 0;
        self.events.drain().filter_map(|(_, window)| window.summary()).collect()
    }
}

/// The collection that a message is about; none is one, too.
fn collection_of(message: &str) -> &str {
    let name = message.split_once(" collection=").map_or("", |(_, rest)| rest.split(' ').next().unwrap_or(""));
    cut(name, COLLECTION_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: (&str, u32) = ("src/node.rs", 7);

    fn written(repeats: &mut Repeats, now: Millis, count: usize, message: &str) -> usize {
        (0..count).filter(|_| repeats.takes(now, HERE, LogLevel::Warning, message)).count()
    }

    #[test]
    fn ten_are_written_and_the_rest_is_counted_in_one_line() {
        let mut repeats = Repeats::default();
        assert_eq!(written(&mut repeats, 1_000, 500, "document not found collection=a key=k"), 10);
        assert_eq!(repeats.ended(1_000 + WINDOW_MS - 1), []);
        let message = "document not found collection=a key=k left_out=490".to_string();
        assert_eq!(repeats.ended(1_000 + WINDOW_MS), [Summary { level: LogLevel::Warning, message }]);
        assert_eq!(repeats.ended(1_000 + 2 * WINDOW_MS), []);
        assert_eq!(written(&mut repeats, 1_000 + 2 * WINDOW_MS, 20, "document not found collection=a key=k"), 10);
    }

    #[test]
    fn each_collection_and_each_place_has_its_own_ten_whatever_else_the_message_says() {
        let mut repeats = Repeats::default();
        let other_keys: usize =
            (0..30).map(|n| written(&mut repeats, 0, 1, &format!("not found collection=a key={n}"))).sum();
        assert_eq!(other_keys, 10);
        assert_eq!(written(&mut repeats, 0, 30, "not found collection=b key=1"), 10);
        assert!(repeats.takes(0, ("src/node.rs", 8), LogLevel::Warning, "not found collection=a key=1"));
        assert_eq!(repeats.all().len(), 2);
    }

    #[test]
    fn what_is_counted_is_bounded_and_nothing_is_lost_in_silence() {
        let mut repeats = Repeats::default();
        let mut said = 0;
        for n in 0..5_000u32 {
            for _ in 0..11 {
                repeats.takes(u64::from(n), HERE, LogLevel::Trace, &format!("x collection=c{n} {}", "y".repeat(2_000)));
            }
            let summaries = repeats.ended(u64::from(n));
            assert!(summaries.iter().all(|summary| summary.message.len() < KEPT_BYTES_MAX + 40));
            said += summaries.len();
            assert!(repeats.events.len() <= EVENTS_MAX);
        }
        assert_eq!(said + repeats.all().len(), 5_000);
    }
}
