//! `export`: a whole collection as lines of JSON, in byte order of the keys.

use super::api::Api;
use super::args;
use super::documents::{DocumentReply, PageReply, line, page_path};
use super::left_out::{self, LeftOut};
use super::{DONE, absolute, say_bytes, say_on_stderr};
use crate::Error;
use crate::document::PAGE_DOCUMENTS_MAX;
use crate::store::{Salvage, Store};
use std::format;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

/// Writes `{"key":…,"value":…}` lines to stdout, page by page: what is written meanwhile may be in or not.
pub(super) async fn run(api: &Api, wanted: &args::Export, json: bool) -> Result<u8, Error> {
    let (mut after, mut left_out): (Option<String>, LeftOut) = (None, LeftOut::default());
    loop {
        let path = page_path(&wanted.collection, "", after.as_deref(), PAGE_DOCUMENTS_MAX)?;
        let reply = left_out::page(api, &path).await?;
        let page: PageReply<'_> = reply.json()?;
        left_out.add(&page.damaged, page.missing);
        let mut text = Vec::with_capacity(reply.body.len());
        for DocumentReply { key, value, .. } in &page.documents {
            line(&mut text, key, None, value)?;
        }
        if !say_bytes(&text)? {
            return Ok(DONE);
        }
        match page.next {
            // What is missing was named: whoever keeps this as a copy must know.
            None => return Ok(left_out.said("the export", json)),
            // A node that does not move on would be asked for ever.
            Some(next) if after.as_ref().is_some_and(|after| next <= *after) => {
                return Err(Error::network("the node's pages do not move on: the export is not complete", None));
            }
            next => after = next,
        }
    }
}

/// The same of a file, without a node: what is whole in its pages.
pub(super) fn of_file(file: &Path, collection: &str, json: bool) -> Result<u8, Error> {
    let file = absolute(file);
    say_on_stderr(&format!("taking out of {}", file.display()));
    let (mut after, mut salvage, mut left_out) = (String::new(), Salvage::default(), LeftOut::default());
    loop {
        let page = Store::whole_documents(&file, collection, &after, &mut salvage)?;
        let mut text = Vec::new();
        for document in &page.documents {
            let value = std::str::from_utf8(&document.value).ok().and_then(|value| serde_json::from_str(value).ok());
            match value {
                Some(value) => line(&mut text, &document.key, None, value)?,
                None => left_out.add(std::slice::from_ref(&document.key), None),
            }
        }
        if !say_bytes(&text)? {
            return Ok(DONE);
        }
        match page.next {
            Some(next) => after = next,
            None => {
                // One look at the file, however many pages: said once.
                left_out.missing_of_all(page.missing);
                return Ok(left_out.said("the export", json));
            }
        }
    }
}
