//! `put`, `get`, `delete` and `list`.

use super::api::{Api, encode};
use super::args;
use super::left_out::{self, LeftOut, Missing};
use super::{DONE, say, say_bytes};
use crate::Error;
use crate::document::PAGE_DOCUMENTS_MAX;
use crate::document::json::{check, too_large};
use crate::limits::DOCUMENT_BYTES_MAX;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::format;
use std::io::{self, Read, Write};
use std::string::String;
use std::vec::Vec;

/// The path of a document.
fn document_path(collection: &str, key: &str) -> Result<String, Error> {
    if key.is_empty() {
        return Err(Error::bad_request("the key is empty"));
    }
    Ok(format!("{}/{}", documents_path(collection)?, encode(key)))
}

/// The path of a collection's documents.
pub(super) fn documents_path(collection: &str) -> Result<String, Error> {
    if collection.is_empty() {
        return Err(Error::bad_request("the collection is empty"));
    }
    Ok(format!("/v1/collections/{}/documents", encode(collection)))
}

/// Stores one document, and says its version.
pub(super) async fn put(api: &Api, put: &args::Put, json: bool) -> Result<u8, Error> {
    let path = document_path(&put.collection, &put.key)?;
    let sent = if put.document == "-" { from_stdin()? } else { put.document.clone().into_bytes() };
    // Said here already, with what a shell often does to it.
    let document = check(&sent).map_err(|error| match error {
        Error::Request { message, .. } if put.document != "-" => {
            Error::bad_request(format!("{message}; a text needs its quotes, as in '\"text\"'"))
        }
        other => other,
    })?;
    let body = Bytes::copy_from_slice(document);
    let path = path + &confirmation(api, &put.confirmation);
    let reply = api.send(Method::PUT, &path, Some("application/json"), body).await?.ok()?;
    if json {
        say(&format!("{}\n", String::from_utf8_lossy(&reply.body)))?;
        return Ok(DONE);
    }
    let said = reply.json::<Version>().unwrap_or_default();
    let done = match reply.status {
        _ if !said.confirmed_by.is_empty() => {
            let (version, peers) = (said.version.unwrap_or_default(), said.confirmed_by.join(", "));
            say(&format!("stored {version}, on disk at {peers} too\n"))?;
            return Ok(DONE);
        }
        StatusCode::CREATED => "created",
        StatusCode::ACCEPTED => {
            say("queued, not on disk yet\n")?;
            return Ok(DONE);
        }
        _ => "replaced",
    };
    say(&format!("{done} {}\n", said.version.unwrap_or_default()))?;
    Ok(DONE)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Version {
    version: Option<String>,
    confirmed_by: Vec<String>,
}

/// The query that asks the node to wait for peers; the answer is waited for so much longer.
fn confirmation(api: &Api, wanted: &args::Confirmation) -> String {
    let Some(peers) = wanted.confirmed_by else { return String::new() };
    let Some(time) = wanted.timeout else { return format!("?confirmedBy={peers}") };
    api.be_patient(time);
    format!("?confirmedBy={peers}&timeout={}ms", time.as_millis())
}

fn from_stdin() -> Result<Vec<u8>, Error> {
    let bound = DOCUMENT_BYTES_MAX as u64 + 1024;
    let mut sent = Vec::new();
    let read = io::stdin().lock().take(bound + 1).read_to_end(&mut sent);
    read.map_err(|error| Error::persistence("stdin cannot be read", Some(error.into())))?;
    if sent.len() as u64 > bound { Err(too_large(sent.len())) } else { Ok(sent) }
}

/// Prints one document as it was stored, and a line feed.
pub(super) async fn get(api: &Api, document: &args::Document) -> Result<u8, Error> {
    let path = document_path(&document.collection, &document.key)?;
    let reply = api.get(&path).await?;
    let mut text = reply.body.to_vec();
    text.push(b'\n');
    say_bytes(&text)?;
    Ok(DONE)
}

/// Deletes one document; one that is absent is deleted already.
pub(super) async fn delete(api: &Api, delete: &args::Delete, json: bool) -> Result<u8, Error> {
    let path = document_path(&delete.document.collection, &delete.document.key)?;
    let path = path + &confirmation(api, &delete.confirmation);
    let reply = api.send(Method::DELETE, &path, None, Bytes::new()).await?.ok()?;
    if json {
        // Where peers were waited for, the node says which.
        let said = match reply.body.is_empty() {
            true => "{\"deleted\":true}".into(),
            false => String::from_utf8_lossy(&reply.body),
        };
        say(&format!("{said}\n"))?;
    } else if reply.status == StatusCode::ACCEPTED {
        say("queued, not on disk yet\n")?;
    }
    Ok(DONE)
}

/// One page as the node sends it.
#[derive(Deserialize)]
pub(super) struct PageReply<'a> {
    /// In byte order of their keys.
    #[serde(borrow)]
    pub(super) documents: Vec<DocumentReply<'a>>,
    /// Where the next page goes on.
    pub(super) next: Option<String>,
    /// Documents that are damaged on disk: not in the page.
    #[serde(default)]
    pub(super) damaged: Vec<String>,
    /// The page was put together past broken pages of the database: what is missing of all of it.
    #[serde(default)]
    pub(super) missing: Option<Missing>,
}

/// One document of it.
#[derive(Deserialize)]
pub(super) struct DocumentReply<'a> {
    /// Its key.
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
    /// Its version.
    #[serde(borrow)]
    pub(super) version: Cow<'a, str>,
    /// Its JSON, byte for byte.
    #[serde(borrow)]
    pub(super) value: &'a RawValue,
}

/// The path of one page.
pub(super) fn page_path(collection: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<String, Error> {
    let mut path = format!("{}?limit={limit}", documents_path(collection)?);
    for (name, value) in [("prefix", prefix), ("after", after.unwrap_or_default())] {
        if !value.is_empty() {
            path = format!("{path}&{name}={}", encode(value));
        }
    }
    Ok(path)
}

/// Prints documents page by page: a table, cut to the width of a line, or NDJSON.
pub(super) async fn list(api: &Api, list: &args::List, json: bool) -> Result<u8, Error> {
    let mut left = list.limit.unwrap_or(u64::MAX);
    let mut after = list.after.clone();
    let prefix = list.prefix.as_deref().unwrap_or_default();
    let mut left_out = LeftOut::default();
    while left > 0 {
        let limit = left.min(PAGE_DOCUMENTS_MAX as u64) as usize;
        let reply = left_out::page(api, &page_path(&list.collection, prefix, after.as_deref(), limit)?).await?;
        let page: PageReply<'_> = reply.json()?;
        left = left.saturating_sub(page.documents.len() as u64);
        left_out.add(&page.damaged, page.missing);
        let text = if json { lines(&page)? } else { table(&page)? };
        if !say_bytes(&text)? {
            return Ok(DONE);
        }
        match page.next {
            Some(next) if after.as_ref().is_none_or(|after| next > *after) => after = Some(next),
            // A node that does not move on would be asked for ever.
            Some(_) => return Err(Error::network("the node's pages do not move on: the list is not complete", None)),
            None => break,
        }
    }
    Ok(left_out.said("the list", json))
}

fn lines(page: &PageReply<'_>) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    for DocumentReply { key, version, value } in &page.documents {
        line(&mut text, key, Some(version), value)?;
    }
    Ok(text)
}

/// `{"key":…,"value":…}` and a line feed. The value keeps its bytes, but line feeds between its tokens become spaces:
/// within strings JSON has none.
pub(super) fn line(text: &mut Vec<u8>, key: &str, version: Option<&str>, value: &RawValue) -> Result<(), Error> {
    let failed = |error: serde_json::Error| Error::persistence("a key cannot be written", Some(error.into()));
    text.extend_from_slice(b"{\"key\":");
    serde_json::to_writer(&mut *text, key).map_err(failed)?;
    if let Some(version) = version {
        text.extend_from_slice(b",\"version\":");
        serde_json::to_writer(&mut *text, version).map_err(failed)?;
    }
    text.extend_from_slice(b",\"value\":");
    text.extend(value.get().bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    text.extend_from_slice(b"}\n");
    Ok(())
}

/// Characters of a value in a table.
const SHOWN_MAX: usize = 100;

fn table(page: &PageReply<'_>) -> Result<Vec<u8>, Error> {
    let mut table = tabwriter::TabWriter::new(Vec::new()).minwidth(0).padding(2);
    for DocumentReply { key, value, .. } in &page.documents {
        // Control characters could move the cursor of a terminal.
        let shown: String = value.get().chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect();
        let more = if value.get().chars().count() > SHOWN_MAX { "…" } else { "" };
        let key = super::without_control_characters(key);
        writeln!(table, "{key}\t{shown}{more}").map_err(|error| Error::persistence("the table", Some(error.into())))?;
    }
    table.into_inner().map_err(|_| Error::persistence("the table cannot be written", None))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"{"documents":[{"key":"a\u0041\n","version":"v","value":{ "x":
 1.50}}],"next":null}"#;

    #[test]
    fn a_listed_document_is_one_line_and_keeps_its_numbers() {
        let page: PageReply<'_> = serde_json::from_str(PAGE).unwrap();
        let text = String::from_utf8(lines(&page).unwrap()).unwrap();
        assert_eq!(text, "{\"key\":\"aA\\n\",\"version\":\"v\",\"value\":{ \"x\":  1.50}}\n");
        let shown = String::from_utf8(table(&page).unwrap()).unwrap();
        assert_eq!(shown, "aA\\n  { \"x\": 1.50}\n");
    }

    #[test]
    fn a_page_is_asked_for_with_its_names_encoded() {
        let path = page_path("a b", "x/", Some("x/&y"), 10).unwrap();
        assert_eq!(path, "/v1/collections/a%20b/documents?limit=10&prefix=x%2F&after=x%2F%26y");
        assert!(page_path("", "", None, 1).is_err() && document_path("c", "").is_err());
    }
}
