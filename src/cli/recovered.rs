//! `recovered list`, `apply` and `drop`: the rows that were kept aside when this node took the state of a peer.

use super::api::{Api, encode};
use super::args::RecoveredCommand;
use super::{DONE, FAILED, say, say_bytes, say_on_stderr, without_control_characters};
use crate::Error;
use crate::document::PAGE_DOCUMENTS_MAX;
use hyper::Method;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::format;
use std::io::Write;
use std::string::{String, ToString};
use std::vec::Vec;

/// Keys in one request: a path has its bound.
const KEYS_AT_ONCE: usize = 4;
/// Characters of a value in the table.
const SHOWN_MAX: usize = 60;

#[derive(Debug, Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    recovered: Vec<&'a RawValue>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Row<'a> {
    #[serde(borrow, default)]
    collection: Cow<'a, str>,
    #[serde(borrow, default)]
    key: Cow<'a, str>,
    #[serde(default)]
    version: String,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    damaged: bool,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
struct Outcome {
    written: u64,
    settled: u64,
    damaged: u64,
    waiting: u64,
}

/// Does one of them.
pub(super) async fn run(api: &Api, command: &RecoveredCommand, json: bool) -> Result<u8, Error> {
    match command {
        RecoveredCommand::List => list(api, json).await,
        RecoveredCommand::Apply(which) => decide(api, "apply", which.collection.as_deref(), &which.keys, json).await,
        RecoveredCommand::Acknowledge => {
            api.send(Method::POST, "/v1/recovered/acknowledge", None, Bytes::new()).await?.ok()?;
            say(if json { "{}\n" } else { "acknowledged: health says no more of the recovery\n" })?;
            Ok(DONE)
        }
        RecoveredCommand::Drop(which) => decide(api, "drop", which.collection.as_deref(), &which.keys, json).await,
    }
}

async fn list(api: &Api, json: bool) -> Result<u8, Error> {
    let (mut after, mut any) = (String::new(), false);
    loop {
        let reply = api.get(&format!("/v1/recovered?limit={PAGE_DOCUMENTS_MAX}&after={after}")).await?;
        let page: Page<'_> = reply.json()?;
        let mut text = Vec::new();
        for raw in &page.recovered {
            if json {
                text.extend(raw.get().bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
                text.push(b'\n');
            } else {
                any = true;
                line(&mut text, raw)?;
            }
        }
        if !say_bytes(&text)? {
            return Ok(DONE);
        }
        match page.next {
            Some(next) if next != after => after = next,
            _ => break,
        }
    }
    if !json && !any {
        say("no rows wait for a decision\n")?;
    }
    Ok(DONE)
}

fn line(text: &mut Vec<u8>, raw: &RawValue) -> Result<(), Error> {
    let failed = |error: serde_json::Error| Error::network("the answer is not what a node says", Some(error.into()));
    let row: Row<'_> = serde_json::from_str(raw.get()).map_err(failed)?;
    let shown: String = match (row.damaged, row.deleted, row.value) {
        (true, ..) => "(damaged on disk: it can only be dropped)".to_string(),
        (_, true, _) => "(deleted)".to_string(),
        (_, _, Some(value)) => value.get().chars().take(SHOWN_MAX).collect(),
        _ => "(a record about a member)".to_string(),
    };
    let cells = [row.collection.as_ref(), row.key.as_ref(), row.version.as_str(), shown.as_str()];
    let cells: Vec<String> = cells.into_iter().map(without_control_characters).collect();
    writeln!(text, "{}", cells.join("  ")).map_err(|error| Error::persistence("the list", Some(error.into())))
}

async fn decide(api: &Api, what: &str, collection: Option<&str>, keys: &[String], json: bool) -> Result<u8, Error> {
    let mut done = Outcome::default();
    let groups: Vec<&[String]> = if keys.is_empty() { [keys].into() } else { keys.chunks(KEYS_AT_ONCE).collect() };
    for group in groups {
        let mut selects: Vec<String> = group.iter().map(|key| format!("key={}", encode(key))).collect();
        selects.extend(collection.map(|collection| format!("collection={}", encode(collection))));
        let path = format!("/v1/recovered/{what}?{}", selects.join("&"));
        let part: Outcome = api.send(Method::POST, &path, None, Bytes::new()).await?.ok()?.json()?;
        done.written += part.written;
        done.settled += part.settled;
        done.damaged += part.damaged;
        done.waiting = part.waiting;
    }
    let Outcome { written, settled, damaged, waiting } = done;
    if json {
        say(&format!("{{\"written\":{written},\"settled\":{settled},\"damaged\":{damaged},\"waiting\":{waiting}}}\n"))?;
    } else {
        let dropped = settled - written.min(settled);
        say(&format!("{written} rows written again, {dropped} dropped, {waiting} still wait\n"))?;
    }
    if damaged > 0 {
        say_on_stderr(&format!(
            "{damaged} rows are damaged and cannot be written again; 'cbddc recovered drop' drops them"
        ));
        return Ok(FAILED);
    }
    if !keys.is_empty() && settled == 0 {
        say_on_stderr("none of these keys waits: 'cbddc recovered list' shows those that do");
        return Ok(FAILED);
    }
    Ok(DONE)
}
