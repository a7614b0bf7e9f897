//! Lines out of a stream of pieces, in bounded memory, and what a line of a bulk request says.

use crate::document::json::{check, too_large};
use crate::document::{Condition, WriteOp};
use crate::error::Error;
use crate::limits::DOCUMENT_BYTES_MAX;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::format;
use std::string::ToString;
use std::vec::Vec;

/// Longest line: the largest document, the longest key with every byte escaped, and the names around them.
pub(super) const LINE_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + 8 * 1024;

/// Cuts pieces into lines. A line beyond its bound is skipped to its end and comes out as too long.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    too_long: bool,
    number: u64,
}

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub number: u64,
    /// Its bytes; `None` where there were more than [`LINE_BYTES_MAX`].
    pub bytes: Option<Vec<u8>>,
}

impl Lines {
    /// Takes from the front of `piece` up to and with a line feed. `None` when the piece is used up.
    pub(super) fn next(&mut self, piece: &mut &[u8]) -> Option<Line> {
        while !piece.is_empty() {
            let end = piece.iter().position(|byte| *byte == b'\n');
            let (part, rest) = piece.split_at(end.unwrap_or(piece.len()));
            *piece = rest.get(1..).unwrap_or_default();
            if self.line.len() + part.len() > LINE_BYTES_MAX {
                self.too_long = true;
                self.line = Vec::new();
            }
            if !self.too_long {
                self.line.extend_from_slice(part);
            }
            if end.is_some()
                && let Some(line) = self.finish_line()
            {
                return Some(line);
            }
        }
        None
    }

    /// The last line, where it has no end.
    pub(super) fn finish(&mut self) -> Option<Line> {
        if self.line.is_empty() && !self.too_long { None } else { self.finish_line() }
    }

    /// `None` for one that is blank.
    fn finish_line(&mut self) -> Option<Line> {
        self.number += 1;
        let (bytes, too_long) = (std::mem::take(&mut self.line), std::mem::take(&mut self.too_long));
        let blank = !too_long && bytes.iter().all(u8::is_ascii_whitespace);
        (!blank).then(|| Line { number: self.number, bytes: (!too_long).then_some(bytes) })
    }
}

/// `{"key":…,"value":…}` or `{"key":…,"delete":true}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    /// `null` is a document too.
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    delete: Option<bool>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Line {
    /// The write that it asks for.
    pub(super) fn write(&self, collection: &str) -> Result<WriteOp, Error> {
        let bytes = self.bytes.as_deref().ok_or_else(|| too_large(LINE_BYTES_MAX))?;
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Error::bad_request(format!("the line is not UTF-8: wrong byte at offset {}", error.valid_up_to()))
        })?;
        // Some programs begin their files with a byte order mark.
        let text = if self.number == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        let written: Written<'_> = serde_json::from_str(text).map_err(|error| {
            // The parser counts lines too, and for it this one is the first.
            let why = format!("{error}").replacen("line 1 column", "column", 1);
            Error::bad_request(format!(
                "the line is not {{\"key\":…,\"value\":…}} or {{\"key\":…,\"delete\":true}}: {why}"
            ))
        })?;
        let value = match (written.value, written.delete) {
            (Some(value), None) => Some(check(value.get().as_bytes())?.to_vec()),
            (None, Some(true)) => None,
            (None, None) => return Err(Error::bad_request("the line has neither \"value\" nor \"delete\"")),
            (Some(_), Some(_)) => return Err(Error::bad_request("the line has both \"value\" and \"delete\"")),
            (None, Some(false)) => return Err(Error::bad_request("\"delete\" takes true alone")),
        };
        let key = super::route::key(written.key.into_owned())?;
        Ok(WriteOp { collection: collection.to_string(), key, value, ttl: None, condition: Condition::Always })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec;

    fn all(pieces: &[&[u8]]) -> Vec<(u64, Option<String>)> {
        let mut lines = Lines::default();
        let mut found = vec![];
        for piece in pieces {
            let mut piece = *piece;
            while let Some(line) = lines.next(&mut piece) {
                found.push(line);
            }
        }
        found.extend(lines.finish());
        found.into_iter().map(|line| (line.number, line.bytes.map(|bytes| String::from_utf8(bytes).unwrap()))).collect()
    }

    fn some(number: u64, text: &str) -> (u64, Option<String>) {
        (number, Some(text.to_string()))
    }

    #[test]
    fn lines_come_out_however_the_pieces_are_cut() {
        let text = b"one\n\r\n\ntwo\r\nthree";
        let expected = vec![some(1, "one"), some(4, "two\r"), some(5, "three")];
        assert_eq!(all(&[text]), expected);
        for cut in 0..text.len() {
            assert_eq!(all(&[&text[..cut], &text[cut..]]), expected);
        }
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(all(&single), expected);
    }

    #[test]
    fn a_line_without_end_is_skipped_in_bounded_memory() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..100 {
            assert_eq!(lines.next(&mut piece.as_slice()), None);
            assert!(lines.line.capacity() <= 2 * LINE_BYTES_MAX);
        }
        let mut rest: &[u8] = b"\nnext\n";
        assert_eq!(lines.next(&mut rest), Some(Line { number: 1, bytes: None }));
        assert_eq!(lines.next(&mut rest), Some(Line { number: 2, bytes: Some(b"next".to_vec()) }));
    }

    fn write(text: &str) -> Result<WriteOp, Error> {
        Line { number: 1, bytes: Some(text.as_bytes().to_vec()) }.write("c")
    }

    #[test]
    fn a_line_is_a_put_or_a_delete_and_keeps_the_bytes_of_its_value() {
        let op = write(" {\"key\":\"a\\u0041\", \"value\" : {\"x\" : 1.50, \"y\":[ ]} }\r").unwrap();
        assert_eq!((op.key.as_str(), op.value.unwrap().as_slice()), ("aA", b"{\"x\" : 1.50, \"y\":[ ]}".as_slice()));
        assert_eq!(write(r#"{"key":"a","value":null}"#).unwrap().value.unwrap(), b"null");
        assert_eq!(write(r#"{"key":"a","delete":true}"#).unwrap().value, None);
        assert!(write("\u{feff}{\"key\":\"a\",\"value\":1}").is_ok());
    }

    #[test]
    fn anything_else_is_said_to_be_wrong() {
        for wrong in [
            "x",
            "[]",
            "{}",
            r#"{"key":"a"}"#,
            r#"{"value":1}"#,
            r#"{"key":1,"value":1}"#,
            r#"{"key":"","value":1}"#,
            r#"{"key":"a","value":1,"delete":true}"#,
            r#"{"key":"a","delete":false}"#,
            r#"{"key":"a","value":1,"ttl":3}"#,
            r#"{"key":"a","value":1} x"#,
            r#"{"key":"a","key":"b","value":1}"#,
            r#"{"key":"a","value":}"#,
        ] {
            assert_eq!(write(wrong).unwrap_err().kind(), Some("BadRequest"), "{wrong}");
        }
        let deep = format!("{{\"key\":\"a\",\"value\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(write(&deep).is_err());
        let large = format!("{{\"key\":\"a\",\"value\":\"{}\"}}", "x".repeat(DOCUMENT_BYTES_MAX));
        assert_eq!(write(&large).unwrap_err().kind(), Some("DocumentTooLarge"));
        let not_utf8 = Line { number: 1, bytes: Some(b"{\"key\":\"\xff\",\"value\":1}".to_vec()) };
        assert_eq!(not_utf8.write("c").unwrap_err().kind(), Some("BadRequest"));
    }
}
