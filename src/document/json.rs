//! Whether bytes are one JSON document that this store takes: UTF-8, one value, not too large, not too deep.
//!
//! Nothing is rebuilt: what is stored is the bytes that were sent, but for white space around them.

use crate::error::{Error, PersistenceKind};
use crate::limits::DOCUMENT_BYTES_MAX;
use serde::de::IgnoredAny;
use std::format;

/// Deepest nesting of arrays and objects in a document. Common parsers stop at 128 levels; a list answer puts three
/// around each document, and must still be readable by them.
pub const DOCUMENT_DEPTH_MAX: usize = 120;

/// The document within `sent`: the same bytes without white space around them.
///
/// # Errors
/// [`PersistenceKind::DocumentTooLarge`] over 256 KiB; a request error where it is not UTF-8, not one JSON value, or
/// nested deeper than [`DOCUMENT_DEPTH_MAX`].
pub fn check(sent: &[u8]) -> Result<&[u8], Error> {
    let document = trim(sent);
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(too_large(document.len()));
    }
    if document.is_empty() {
        return Err(Error::bad_request("the document is empty: send one JSON value, such as null or {\"a\":1}"));
    }
    // The parser skips strings without looking at their bytes, so this comes first.
    std::str::from_utf8(document).map_err(|error| {
        Error::bad_request(format!("the document is not UTF-8: wrong byte at offset {}", error.valid_up_to()))
    })?;
    // Before the parser, which is iterative when it ignores values today; this bound does not depend on that.
    if depth(document) > DOCUMENT_DEPTH_MAX {
        return Err(Error::bad_request(format!(
            "the document is nested too deeply: at most {DOCUMENT_DEPTH_MAX} levels of arrays and objects"
        )));
    }
    serde_json::from_slice::<IgnoredAny>(document)
        .map_err(|error| Error::bad_request(format!("the document is not JSON: {error}")))?;
    Ok(document)
}

/// The error for a document of so many bytes, or of more than that many when it was not read to its end.
pub fn too_large(bytes: usize) -> Error {
    Error::Persistence {
        kind: PersistenceKind::DocumentTooLarge,
        message: format!(
            "the document has {bytes} bytes or more; at most {DOCUMENT_BYTES_MAX} are stored: split it over several keys"
        ),
        source: None,
    }
}

/// Without JSON's white space (RFC 8259, section 2) around it.
fn trim(sent: &[u8]) -> &[u8] {
    let white = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let Some(first) = sent.iter().position(|byte| !white(byte)) else { return &[] };
    let last = sent.iter().rposition(|byte| !white(byte)).unwrap_or(first);
    &sent[first..=last]
}

/// Levels of brackets outside of strings. Right for JSON; for anything else any number will do, the parser refuses it.
fn depth(text: &[u8]) -> usize {
    let (mut level, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                level += 1;
                deepest = deepest.max(level);
            }
            (false, b']' | b'}') => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn any_json_value_is_a_document_and_keeps_its_bytes() {
        for text in ["null", "0", "-1.50e+3", r#""a\u0041\/""#, "[]", "{ \"b\" : 1,\n \"a\":[1 , 2] }", "true"] {
            assert_eq!(check(text.as_bytes()).unwrap(), text.as_bytes());
            let padded = std::format!(" \t\r\n{text}\n\n");
            assert_eq!(check(padded.as_bytes()).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for text in
            ["", " \n", "{", "nul", "1 2", "{'a':1}", "[1,]", "01", "NaN", "\"\n\"", "{\"a\"}", "\u{feff}1", "]["]
        {
            assert_eq!(check(text.as_bytes()).unwrap_err().kind(), Some("BadRequest"), "{text:?}");
        }
        assert!(check(b"\"\xff\"").unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn the_largest_document_is_taken_and_one_byte_more_is_not() {
        let text = std::format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX - 2));
        assert!(check(text.as_bytes()).is_ok());
        let more = std::format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX - 1));
        assert_eq!(check(more.as_bytes()).unwrap_err().kind(), Some("DocumentTooLarge"));
    }

    #[test]
    fn nesting_beyond_the_bound_is_an_error_and_not_a_stack_overflow() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(check(nested(DOCUMENT_DEPTH_MAX).as_bytes()).is_ok());
        assert!(check(nested(DOCUMENT_DEPTH_MAX + 1).as_bytes()).unwrap_err().to_string().contains("nested"));
        assert!(check("[".repeat(DOCUMENT_BYTES_MAX).as_bytes()).is_err());
        let brackets_in_a_string = std::format!("\"\\\"{}\"", "[".repeat(1000));
        assert!(check(brackets_in_a_string.as_bytes()).is_ok());
    }
}
