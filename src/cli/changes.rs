//! `changes`: the change feed as lines of JSON, to its end or for ever.

use super::api::{Api, encode};
use super::args;
use super::left_out::{self, LeftOut, Missing};
use super::{DONE, say_bytes};
use crate::Error;
use crate::document::PAGE_DOCUMENTS_MAX;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::format;
use std::string::String;
use std::vec::Vec;

/// How long the node is to wait for a first change; below this command's own bound for an answer.
const WAIT: &str = "30s";

/// One page as the node sends it.
#[derive(Deserialize)]
struct PageReply<'a> {
    #[serde(borrow)]
    changes: Vec<&'a RawValue>,
    next: String,
    more: bool,
    /// Changes that are left out since they are damaged on the node's disk.
    #[serde(default)]
    damaged: u64,
    #[serde(default)]
    missing: Option<Missing>,
}

/// Writes each change as a line, and behind the changes of a page `{"next":TOKEN}`: whoever has dealt with the lines
/// before it goes on from there with `--since`.
pub(super) async fn run(api: &Api, wanted: &args::Changes, json: bool) -> Result<u8, Error> {
    let mut since = wanted.since.clone();
    let (mut ended, mut left_out) = (false, LeftOut::default());
    loop {
        // The first page of what is there is not waited for, nor is anything without --follow.
        let reply = left_out::page(api, &path(wanted, since.as_deref(), if ended { WAIT } else { "0s" })).await?;
        let page: PageReply<'_> = reply.json()?;
        if page.more && since.as_ref() == Some(&page.next) {
            return Err(Error::network("the node's pages do not move on: the feed is not complete", None));
        }
        ended = !page.more;
        let last = ended && !wanted.follow;
        left_out.count(page.damaged, page.missing);
        if !say_bytes(&lines(&page, last))? {
            return Ok(DONE);
        }
        // Whoever follows for ever hears of it at once, and again only where there is more of it.
        if last || (wanted.follow && (page.damaged > 0 || page.missing.is_some())) {
            let code = left_out.said("the feed", json);
            if last {
                return Ok(code);
            }
        }
        since = Some(page.next);
    }
}

fn path(wanted: &args::Changes, since: Option<&str>, wait: &str) -> String {
    let mut path = format!("/v1/changes?limit={PAGE_DOCUMENTS_MAX}&timeout={wait}");
    for (name, value) in [("since", since), ("collection", wanted.collection.as_deref())] {
        if let Some(value) = value {
            path = format!("{path}&{name}={}", encode(value));
        }
    }
    path
}

fn lines(page: &PageReply<'_>, last: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for change in &page.changes {
        // Line ends stand between tokens only: within strings JSON has none.
        text.extend(change.get().bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        text.push(b'\n');
    }
    if last || !page.changes.is_empty() {
        text.extend_from_slice(format!("{{\"next\":\"{}\"}}\n", page.next).as_bytes());
    }
    text
}
