//! Rows of a file that is imported: NDJSON or CSV, as keys and documents, read in bounded memory.
//!
//! CSV: the first row names the fields, each further row becomes an object of them. A field becomes a number where it
//! is written as JSON writes one, without exponent, and has at most 15 significant digits, which every reader of JSON
//! keeps exactly; it is taken over as it is written. Everything else is a string: `007`, `1E5`, `true`, the empty field.

mod csv;
mod json;

use crate::Error;
use crate::limits::DOCUMENT_BYTES_MAX;
use std::boxed::Box;
use std::format;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::string::String;
use std::vec::Vec;

/// Longest line or record: the node takes none that is longer.
const ROW_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + 8 * 1024;

/// What a row asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row {
    /// A document for a key.
    Put { key: String, document: Vec<u8> },
    /// A line that goes to the node as it is: `{"key":…,"value":…}` or `{"key":…,"delete":true}`.
    Line { key: String, line: Vec<u8> },
}

#[cfg(test)]
impl Row {
    /// The key that it writes.
    pub(super) fn key(&self) -> &str {
        match self {
            Row::Put { key, .. } | Row::Line { key, .. } => key,
        }
    }
}

/// A row with its place, or what is wrong with it.
#[derive(Debug)]
pub(super) struct Numbered {
    /// Line of the file where it begins, from 1.
    pub(super) line: u64,
    /// The row.
    pub(super) row: Result<Row, Error>,
}

/// Rows, one after the other. An outer error ends the file.
pub(super) trait Rows {
    /// The next one; `None` at the end.
    fn next(&mut self) -> Result<Option<Numbered>, Error>;
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Lines,
    Separated(u8),
}

/// The rows of a file or, for `-`, of stdin. `key` is the field that names each document; CSV needs one, lines of
/// `{"key":…,"value":…}` have their own. `on_read` is told how many bytes were read each time.
///
/// # Errors
/// Where it cannot be read, or its first bytes already show that it cannot be imported.
pub(super) fn open(path: &Path, key: Option<&str>, on_read: impl Fn(u64) + 'static) -> Result<Box<dyn Rows>, Error> {
    let shown = path.display();
    let failed =
        |error: io::Error| Error::persistence(format!("{shown} cannot be read ({error}); check the path"), None);
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(failed)?)
    };
    let mut reader = BufReader::with_capacity(64 * 1024, Counted { source, on_read });
    skip_byte_order_mark(&mut reader).map_err(failed)?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match format_of(extension, reader.fill_buf().map_err(failed)?)? {
        Format::Lines => Ok(Box::new(json::Lines::new(reader, key))),
        Format::Separated(delimiter) => Ok(Box::new(csv::Records::new(reader, delimiter, key)?)),
    }
}

struct Counted<R, F> {
    source: R,
    on_read: F,
}

impl<R: Read, F: Fn(u64)> Read for Counted<R, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buf)?;
        (self.on_read)(read as u64);
        Ok(read)
    }
}

fn skip_byte_order_mark(reader: &mut impl BufRead) -> io::Result<()> {
    if reader.fill_buf()?.starts_with("\u{feff}".as_bytes()) {
        reader.consume(3);
    }
    Ok(())
}

/// By the name's ending, else by the first character.
fn format_of(extension: &str, start: &[u8]) -> Result<Format, Error> {
    match extension.to_ascii_lowercase().as_str() {
        "csv" => return Ok(Format::Separated(b',')),
        "tsv" | "tab" => return Ok(Format::Separated(b'\t')),
        "ndjson" | "jsonl" => return Ok(Format::Lines),
        _ => {}
    }
    match start.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Err(Error::bad_request(
            "this is one JSON array: lines of objects are imported; jq -c '.[]' FILE makes them of it",
        )),
        Some(b'{') | None => Ok(Format::Lines),
        Some(_) => Ok(Format::Separated(b',')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name_or_its_first_character() {
        assert_eq!(format_of("CSV", b"{").unwrap(), Format::Separated(b','));
        assert_eq!(format_of("jsonl", b"a,b").unwrap(), Format::Lines);
        assert_eq!(format_of("", b"\n {\"key\"").unwrap(), Format::Lines);
        assert_eq!(format_of("txt", b"a,b").unwrap(), Format::Separated(b','));
        assert_eq!(format_of("", b"").unwrap(), Format::Lines);
        assert!(format_of("json", b" [1]").is_err());
    }
}
