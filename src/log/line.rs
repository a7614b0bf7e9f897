//! One record as one line: text for people, JSON for programs.
//!
//! Writes nothing. Whatever a peer or a document brings into a message, it stays one line.

use crate::config::{LogFormat, LogLevel};
use crate::time::Millis;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::Write;
use std::format;
use std::string::{String, ToString};
use std::time::{Duration, UNIX_EPOCH};

/// Longest line in bytes, its end included: what a pipe takes in one piece (PIPE_BUF).
pub(super) const LINE_BYTES_MAX: usize = 4096;
/// Bytes of a message that survive: escaped into JSON a byte can take six.
const TEXT_MESSAGE_BYTES_MAX: usize = LINE_BYTES_MAX - 64;
const JSON_MESSAGE_BYTES_MAX: usize = LINE_BYTES_MAX / 2;

/// The line of a record, with its line feed. `journal`: with the priority that the systemd journal reads.
pub(super) fn render(format: LogFormat, journal: bool, now: Millis, level: LogLevel, message: &str) -> String {
    let mut line = String::new();
    if journal {
        line.push_str(match level {
            LogLevel::Critical => "<2>",
            LogLevel::Error => "<3>",
            LogLevel::Warning => "<4>",
            LogLevel::Information => "<6>",
            LogLevel::Trace | LogLevel::Debug => "<7>",
        });
    }
    match format {
        LogFormat::Text => text(&mut line, now, level, message),
        LogFormat::Json => line.push_str(&json(now, level, message)),
    }
    line.push('\n');
    line
}

fn text(line: &mut String, now: Millis, level: LogLevel, message: &str) {
    let label = match level {
        LogLevel::Trace => "TRACE",
        LogLevel::Debug => "DEBUG",
        LogLevel::Information => "INFO",
        LogLevel::Warning => "WARN",
        LogLevel::Error => "ERROR",
        LogLevel::Critical => "CRIT",
    };
    // Writing into a String does not fail.
    let _ = write!(line, "{} {label:<5} ", timestamp(now));
    for c in message.chars() {
        if line.len() + c.len_utf8() > TEXT_MESSAGE_BYTES_MAX {
            line.push('…');
            return;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
}

/// A record in JSON, in the order in which it is read.
#[derive(Serialize)]
struct Object<'a> {
    time: String,
    level: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
}

fn json(now: Millis, level: LogLevel, message: &str) -> String {
    let mut bytes_max = JSON_MESSAGE_BYTES_MAX;
    loop {
        let (event, fields) = split(cut(message, bytes_max));
        let object = Object { time: timestamp(now), level: level.name(), message: event, fields };
        // Text and maps with text keys always have a form in JSON.
        let line = serde_json::to_string(&object).unwrap_or_default();
        // Control characters grow sixfold; half as much of the message each time ends soon.
        if line.len() < LINE_BYTES_MAX - 8 || bytes_max < 64 {
            return line;
        }
        bytes_max /= 2;
    }
}

/// The beginning of a text, at most so many bytes of it.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// An event and its trailing `key=value` fields; a value reaches to the next ` key=`.
fn split(message: &str) -> (&str, Map<String, Value>) {
    let is_key = |word: &str| {
        let key = word.split_once('=').map(|(key, _)| key)?;
        let legal = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        legal.then_some(key.len())
    };
    // Where each field begins, with the length of its key.
    let words = message.split(' ').scan(0, |at, word| {
        let start = *at;
        *at += word.len() + 1;
        Some((start, is_key(word)))
    });
    let starts: std::vec::Vec<(usize, usize)> = words.filter_map(|(start, key)| key.map(|key| (start, key))).collect();
    let mut fields = Map::new();
    for (at, &(start, key)) in starts.iter().enumerate() {
        let end = starts.get(at + 1).map_or(message.len(), |next| next.0 - 1);
        fields.insert(message[start..start + key].to_string(), Value::from(&message[start + key + 1..end]));
    }
    let event = starts.first().map_or(message, |first| message[..first.0].trim_end());
    (event, fields)
}

/// `2026-01-15T10:20:30.123Z`; a clock beyond the year 9999 shows as its milliseconds.
fn timestamp(now: Millis) -> String {
    let mut text = String::new();
    match write!(text, "{}", humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(now))) {
        Ok(()) => text,
        Err(_) => format!("{now}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_768_472_430_123;

    #[test]
    fn a_text_line_is_time_level_message() {
        let line = render(LogFormat::Text, false, NOW, LogLevel::Information, "peer discovered node=gw7");
        assert_eq!(line, "2026-01-15T10:20:30.123Z INFO  peer discovered node=gw7\n");
    }

    #[test]
    fn the_journal_gets_priorities() {
        let starts = LogLevel::ALL.map(|level| render(LogFormat::Text, true, NOW, level, "m")[..5].to_string());
        assert_eq!(starts, ["<7>20", "<7>20", "<6>20", "<4>20", "<3>20", "<2>20"], "from Trace to Critical");
        assert!(render(LogFormat::Json, true, NOW, LogLevel::Trace, "m").starts_with("<7>{"));
    }

    #[test]
    fn fields_of_a_message_are_fields_of_the_json_object() {
        let line = render(LogFormat::Json, false, NOW, LogLevel::Warning, "link lost node=gw7 error=no route to host");
        let object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["time"], "2026-01-15T10:20:30.123Z");
        assert_eq!(object["level"], "Warning");
        assert_eq!(object["message"], "link lost");
        assert_eq!(object["fields"]["node"], "gw7");
        assert_eq!(object["fields"]["error"], "no route to host");
    }

    #[test]
    fn a_message_without_fields_is_all_message() {
        assert_eq!(split("a = b and C=d").0, "a = b and C=d");
        assert_eq!(split("").0, "");
        assert_eq!(split("key=value").0, "");
    }

    #[test]
    fn a_message_cannot_forge_a_line_or_outgrow_it() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let line = render(format, true, NOW, LogLevel::Error, "key=a\n2026 ERROR forged\u{1b}[2J");
            assert_eq!(line.matches('\n').count(), 1);
            assert!(!line.contains('\u{1b}'));
            for filler in ["x", "ü", "\u{1}", "\"", "a=b "] {
                let line = render(format, true, NOW, LogLevel::Error, &filler.repeat(10_000));
                assert!(line.len() <= LINE_BYTES_MAX, "{format:?} {filler:?}: {}", line.len());
            }
        }
    }

    #[test]
    fn a_clock_gone_mad_does_not_stop_the_log() {
        assert!(render(LogFormat::Text, false, u64::MAX / 1024, LogLevel::Error, "m").ends_with(" m\n"));
    }
}
