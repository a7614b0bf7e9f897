//! Records of a CSV file (RFC 4180) as objects.

use super::{Numbered, ROW_BYTES_MAX, Row, Rows};
use crate::Error;
use ::csv::{ByteRecord, Reader, ReaderBuilder, Trim};
use std::cell::Cell;
use std::collections::HashSet;
use std::format;
use std::io::{self, Read};
use std::rc::Rc;
use std::string::ToString;
use std::vec::Vec;

/// Records of a file.
pub(super) struct Records<R> {
    reader: Reader<Bounded<R>>,
    since_record: Rc<Cell<usize>>,
    quotes: Rc<Quotes>,
    /// Names of the fields, as JSON texts.
    names: Vec<Vec<u8>>,
    key: usize,
}

impl<R: Read> Records<R> {
    /// Reads the first record: the names.
    pub(super) fn new(source: R, delimiter: u8, key: Option<&str>) -> Result<Records<R>, Error> {
        let since_record = Rc::<Cell<usize>>::default();
        let quotes = Rc::new(Quotes::new(delimiter));
        let bounded = Bounded { source, since_record: since_record.clone(), quotes: quotes.clone() };
        let mut reader =
            ReaderBuilder::new().delimiter(delimiter).flexible(true).trim(Trim::Headers).from_reader(bounded);
        let head = reader.headers().map_err(|error| unreadable(&error))?;
        let listed = head.iter().collect::<Vec<_>>().join(", ");
        if head.is_empty() {
            return Err(Error::bad_request("it is empty: the first line names the fields"));
        }
        let Some(key) = key else {
            return Err(Error::bad_request(format!("--key FIELD says which field is the key: one of {listed}")));
        };
        let mut seen = HashSet::new();
        if let Some(twice) = head.iter().find(|name| !seen.insert(*name)) {
            return Err(Error::bad_request(format!("two fields have the same name, {twice:?}: rename one")));
        }
        let at = head.iter().position(|name| name == key);
        let key =
            at.ok_or_else(|| Error::bad_request(format!("there is no field {key:?}: the fields are {listed}")))?;
        let names = head.iter().map(text).collect::<Result<_, _>>()?;
        Ok(Records { reader, since_record, quotes, names, key })
    }

    fn row(&self, record: &ByteRecord) -> Result<Row, Error> {
        if record.len() != self.names.len() {
            return Err(Error::bad_request(format!(
                "the record has {} fields, the first line names {}",
                record.len(),
                self.names.len()
            )));
        }
        let mut document = Vec::with_capacity(record.as_slice().len() * 2);
        let mut key = "";
        document.push(b'{');
        for (at, (name, field)) in self.names.iter().zip(record).enumerate() {
            let field = std::str::from_utf8(field).map_err(|_| {
                Error::bad_request(format!("field {} is not UTF-8: convert the file, for example with iconv", at + 1))
            })?;
            if at > 0 {
                document.push(b',');
            }
            if at == self.key {
                key = field;
            }
            document.extend_from_slice(name);
            document.push(b':');
            if is_plain_number(field) {
                document.extend_from_slice(field.as_bytes());
            } else {
                document.extend_from_slice(&text(field)?);
            }
        }
        document.push(b'}');
        if key.is_empty() {
            return Err(Error::bad_request("the key is empty"));
        }
        Ok(Row::Put { key: key.to_string(), document })
    }
}

impl<R: Read> Rows for Records<R> {
    fn next(&mut self) -> Result<Option<Numbered>, Error> {
        let mut record = ByteRecord::new();
        self.since_record.set(0);
        let more = self.reader.read_byte_record(&mut record).map_err(|error| unreadable(&error))?;
        let line = record.position().map_or(0, ::csv::Position::line);
        // A quote that is still open at the end has taken all that follows it into one field.
        if let Some(opened) = self.quotes.open_at_end()
            && more
        {
            let message = format!(
                "the quote that opens in line {opened} is never closed: close it; nothing from line {line} on is stored"
            );
            return Ok(Some(Numbered { line, row: Err(Error::bad_request(message)) }));
        }
        Ok(more.then(|| Numbered { line, row: self.row(&record) }))
    }
}

fn unreadable(error: &::csv::Error) -> Error {
    Error::bad_request(format!("the file cannot be read on: {error}"))
}

fn text(plain: &str) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(plain).map_err(|error| Error::persistence("a field cannot be written", Some(error.into())))
}

/// Whether a field is a JSON number (RFC 8259, section 6) that every reader keeps exactly: no exponent, at most 15
/// significant digits.
fn is_plain_number(field: &str) -> bool {
    let unsigned = field.strip_prefix('-').unwrap_or(field);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((_, "")) => return false,
        Some((whole, fraction)) => (whole, fraction),
        None => (unsigned, ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    let significant = if whole == "0" { fraction.trim_start_matches('0').len() } else { whole.len() + fraction.len() };
    !whole.is_empty() && !leading_zero && digits(whole) && digits(fraction) && significant <= 15 && field.len() <= 30
}

/// Fails where one record takes too many bytes: a quote that is never closed would take the whole file.
struct Bounded<R> {
    source: R,
    since_record: Rc<Cell<usize>>,
    quotes: Rc<Quotes>,
}

/// Whether a quote is open (RFC 4180): a quote opens a field where it is its first character, and two within one are one.
struct Quotes {
    delimiter: u8,
    line: Cell<u64>,
    state: Cell<Within>,
    /// The line of the last quote that opened a field.
    opened: Cell<u64>,
    ended: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Before the first character of a field.
    Start,
    Plain,
    Quoted,
    /// Behind a quote that closes the field, or is the first of two.
    Closed,
}

impl Quotes {
    fn new(delimiter: u8) -> Quotes {
        let (line, opened, ended) = (Cell::new(1), Cell::new(0), Cell::new(false));
        Quotes { delimiter, line, state: Cell::new(Within::Start), opened, ended }
    }
    fn see(&self, bytes: &[u8]) {
        self.ended.set(bytes.is_empty());
        for byte in bytes {
            let next = match (self.state.get(), *byte) {
                (Within::Quoted, b'"') => Within::Closed,
                (Within::Quoted, _) | (Within::Closed, b'"') => Within::Quoted,
                (Within::Start, b'"') => {
                    self.opened.set(self.line.get());
                    Within::Quoted
                }
                (_, b'\n' | b'\r') => Within::Start,
                (_, byte) if byte == self.delimiter => Within::Start,
                // The mark of the byte order before the first field.
                (Within::Start, 0xef | 0xbb | 0xbf) if self.line.get() == 1 => Within::Start,
                _ => Within::Plain,
            };
            self.state.set(next);
            self.line.set(self.line.get() + u64::from(*byte == b'\n'));
        }
    }
    /// The line of a quote that is open where the file ends.
    fn open_at_end(&self) -> Option<u64> {
        (self.ended.get() && self.state.get() == Within::Quoted).then(|| self.opened.get())
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.since_record.get() > ROW_BYTES_MAX {
            return Err(io::Error::other(format!(
                "a record is longer than {ROW_BYTES_MAX} bytes; is a quote not closed?"
            )));
        }
        let read = self.source.read(buf)?;
        self.quotes.see(&buf[..read]);
        self.since_record.set(self.since_record.get() + read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::string::String;
    use std::vec;

    fn rows(text: &[u8], key: &str) -> Vec<(u64, Result<Row, Error>)> {
        let mut records = Records::new(text, b',', Some(key)).unwrap();
        let mut found = vec![];
        while let Some(Numbered { line, row }) = records.next().unwrap() {
            found.push((line, row));
        }
        found
    }

    fn documents(text: &[u8], key: &str) -> BTreeMap<String, String> {
        let parts = |row| match row {
            Row::Put { key, document } => (key, String::from_utf8(document).unwrap()),
            Row::Line { .. } => unreachable!(),
        };
        rows(text, key).into_iter().map(|(_, row)| parts(row.unwrap())).collect()
    }

    #[test]
    fn airports_keep_their_quoted_commas_and_quotes() {
        let text = include_bytes!("../../../tests/data/airports.csv");
        let airports = documents(text, "iata");
        assert_eq!(airports.len(), 3376);
        assert_eq!(
            airports["00M"],
            r#"{"iata":"00M","name":"Thigpen","city":"Bay Springs","state":"MS","country":"USA","latitude":31.95376472,"longitude":-89.23450472}"#
        );
        let quoted: Vec<&String> = airports.values().filter(|document| document.contains(", ")).collect();
        assert!(!quoted.is_empty());
        for document in airports.values() {
            let value: serde_json::Value = serde_json::from_str(document).unwrap();
            assert_eq!(value.as_object().unwrap().len(), 7);
            assert!(value["latitude"].is_number() && value["name"].is_string(), "{document}");
        }
    }

    #[test]
    fn temperatures_stay_numbers_as_they_are_written() {
        let temps = documents(include_bytes!("../../../tests/data/sf-temps.csv"), "date");
        assert_eq!(temps.len(), 8759);
        assert_eq!(temps["2010/01/01 00:00:00"], r#"{"temp":47.8,"date":"2010/01/01 00:00:00"}"#);
    }

    #[test]
    fn only_what_survives_every_reader_is_a_number() {
        for number in ["0", "-0", "47.80", "5.0", "-89.23450472", "123456789012345", "0.00000123456789012345"] {
            assert!(is_plain_number(number), "{number}");
            assert!(serde_json::from_str::<f64>(number).is_ok(), "{number}");
        }
        for text in [
            "",
            "-",
            "007",
            "1E5",
            "1e5",
            "+1",
            ".5",
            "5.",
            "1234567890123456",
            "NaN",
            "1 ",
            "0x1",
            "1.2.3",
            "--1",
            "١",
        ] {
            assert!(!is_plain_number(text), "{text}");
        }
    }

    #[test]
    fn a_wrong_record_is_named_by_its_line_and_the_next_one_is_read() {
        let found = rows(b"id,text\n1,\"two\nlines\"\n2\n3,a,b\n4,\xff\n,x\n6,\"a \"\"b\"\"\"\n", "id");
        let lines: Vec<(u64, bool)> = found.iter().map(|(line, row)| (*line, row.is_ok())).collect();
        assert_eq!(lines, [(2, true), (4, false), (5, false), (6, false), (7, false), (8, true)]);
        let Ok(Row::Put { document, .. }) = &found[5].1 else { panic!() };
        assert_eq!(document, br#"{"id":6,"text":"a \"b\""}"#);
    }

    #[test]
    fn a_quote_that_is_never_closed_ends_the_file_in_bounded_memory() {
        let mut text = b"id,text\n1,\"".to_vec();
        text.resize(4 * ROW_BYTES_MAX, b'x');
        let mut records = Records::new(text.as_slice(), b',', Some("id")).unwrap();
        let said = records.next().unwrap_err().to_string();
        assert!(said.contains("quote"), "{said}");
    }

    #[test]
    fn a_quote_that_is_open_at_the_end_of_the_file_is_an_error_with_its_line() {
        let found = rows(b"id,text\n1,a\n2,\"two\"\n3,\"never closed\n4,b\n5,c\n", "id");
        let lines: Vec<(u64, bool)> = found.iter().map(|(line, row)| (*line, row.is_ok())).collect();
        assert_eq!(lines, [(2, true), (3, true), (4, false)]);
        let said = found[2].1.as_ref().err().unwrap().to_string();
        assert!(said.contains("line 4") && said.contains("never closed"), "{said}");
        // Quotes within plain fields are plain, and a closed one at the very end is closed.
        for whole in
            [&b"id,text\n1,5\" pipe\n"[..], b"id,text\n1,\"a \"\"b\"\"\"", b"\xef\xbb\xbf\"id\",text\n1,\"\"\n"]
        {
            assert!(rows(whole, "id").iter().all(|(_, row)| row.is_ok()), "{whole:?}");
        }
    }

    #[test]
    fn the_key_must_be_one_of_the_fields() {
        let said = |text: &[u8], key| Records::new(text, b',', key).err().unwrap().to_string();
        assert!(said(b"temp,date\n", None).contains("temp, date"));
        assert!(said(b"temp,date\n", Some("time")).contains("temp, date"));
        assert!(said(b"a,a\n", Some("a")).contains("same name"));
        assert!(said(b"", Some("a")).contains("empty"));
    }
}
