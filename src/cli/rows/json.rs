//! Lines of JSON: as `export` writes them, or whole documents with a field that is the key.

use super::{Numbered, ROW_BYTES_MAX, Row, Rows};
use crate::Error;
use crate::document::json::{check, too_large};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::{Cow, ToOwned};
use std::collections::HashMap;
use std::format;
use std::io::{BufRead, Read};
use std::string::String;
use std::vec::Vec;

/// Lines of a file.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    key: Option<String>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// With a `key`, each line is a document and that field of it is its key.
    pub(super) fn new(reader: R, key: Option<&str>) -> Lines<R> {
        Lines { reader, key: key.map(ToOwned::to_owned), number: 0 }
    }

    fn row(&self, line: &[u8]) -> Result<Row, Error> {
        if line.len() > ROW_BYTES_MAX {
            return Err(too_large(line.len()));
        }
        match &self.key {
            Some(field) => {
                let document = check(line)?;
                Ok(Row::Put { key: key_in(document, field)?, document: document.to_vec() })
            }
            None => {
                let WithKey { key } = serde_json::from_slice(line).map_err(|error| {
                    Error::bad_request(format!(
                        "the line is not {{\"key\":…,\"value\":…}}: {error}; --key FIELD imports objects by one of their fields"
                    ))
                })?;
                Ok(Row::Line { key: key.into_owned(), line: line.to_vec() })
            }
        }
    }
}

#[derive(Deserialize)]
struct WithKey<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
}

/// A string is a key as it is, a number as it is written.
fn key_in(document: &[u8], field: &str) -> Result<String, Error> {
    let fields: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(document)
        .map_err(|_| Error::bad_request("the line is not an object: there is no field to take as the key"))?;
    let value = fields.get(field).ok_or_else(|| Error::bad_request(format!("there is no field {field:?}")))?.get();
    match value.as_bytes().first() {
        Some(b'"') => serde_json::from_str(value)
            .map_err(|error| Error::bad_request(format!("the field {field:?} is not a text: {error}"))),
        Some(b'-' | b'0'..=b'9') => Ok(value.to_owned()),
        _ => Err(Error::bad_request(format!("the field {field:?} is neither a text nor a number: it cannot be a key"))),
    }
}

impl<R: BufRead> Rows for Lines<R> {
    fn next(&mut self) -> Result<Option<Numbered>, Error> {
        let failed = |error: std::io::Error| Error::persistence("the file cannot be read on", Some(error.into()));
        loop {
            let mut line = Vec::new();
            let bound = ROW_BYTES_MAX as u64 + 2;
            let read = self.reader.by_ref().take(bound).read_until(b'\n', &mut line).map_err(failed)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read as u64 == bound && line.last() != Some(&b'\n') {
                self.reader.skip_until(b'\n').map_err(failed)?;
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                let line = line.trim_ascii();
                return Ok(Some(Numbered { line: self.number, row: self.row(line) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn rows(text: &[u8], key: Option<&str>) -> Vec<(u64, Result<Row, Error>)> {
        let mut lines = Lines::new(text, key);
        let mut found = vec![];
        while let Some(Numbered { line, row }) = lines.next().unwrap() {
            found.push((line, row));
        }
        found
    }

    #[test]
    fn an_exported_line_goes_to_the_node_as_it_is() {
        let found = rows(b"{\"key\":\"a\\u0041\",\"value\":1.50}\r\n\n{\"key\":\"b\",\"delete\":true}", None);
        let [(1, Ok(first)), (3, Ok(second))] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(*first, Row::Line { key: "aA".into(), line: b"{\"key\":\"a\\u0041\",\"value\":1.50}".into() });
        assert_eq!(second.key(), "b");
    }

    #[test]
    fn a_field_of_each_object_is_its_key() {
        let found = rows(b"{\"id\":7.0,\"x\" : [1]}\n{\"id\":\"b\"}\n{\"id\":null}\n{\"x\":1}\n[1]\nx\n", Some("id"));
        assert_eq!(
            *found[0].1.as_ref().unwrap(),
            Row::Put { key: "7.0".into(), document: b"{\"id\":7.0,\"x\" : [1]}".into() }
        );
        assert_eq!(found[1].1.as_ref().unwrap().key(), "b");
        for (line, row) in &found[2..] {
            assert_eq!(row.as_ref().unwrap_err().kind(), Some("BadRequest"), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_one_is_read() {
        let mut text = vec![b'x'; 3 * ROW_BYTES_MAX];
        text.extend_from_slice(b"\n{\"key\":\"a\",\"value\":1}\n");
        let found = rows(&text, None);
        assert_eq!((found[0].0, found[0].1.as_ref().unwrap_err().kind()), (1, Some("DocumentTooLarge")));
        assert_eq!((found[1].0, found[1].1.as_ref().unwrap().key()), (2, "a"));
    }
}
