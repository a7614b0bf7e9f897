//! Requests about rows that were kept aside: list, apply, drop.

use super::Service;
use super::answer::{Answer, json_bytes, json_response};
use super::documents::json_text;
use super::handle::Shared;
use super::route::{self, pairs, set_once, unknown};
use crate::document::{
    PAGE_BYTES_MAX, PAGE_DOCUMENTS_MAX, RecoveredChoice, RecoveredContent, RecoveredPage, RecoveredSelection,
};
use crate::error::Error;
use crate::limits::DOCUMENT_BYTES_MAX;
use hyper::{Response, StatusCode};
use serde_json::json;
use std::format;
use std::string::ToString;
use std::vec::Vec;

pub(super) async fn list<S: Service>(shared: &Shared<S>, query: Option<&str>) -> Result<Response<Answer>, Error> {
    let (mut after, mut limit) = (None, None);
    for pair in pairs(query) {
        let (name, value) = pair?;
        match name.as_str() {
            "after" if value.is_empty() => {}
            "after" => {
                let number = value.parse().map_err(|_| Error::bad_request(format!("after={value}: a row's number")))?;
                set_once(&mut after, number, "after")?;
            }
            "limit" => set_once(&mut limit, route::page_limit(&value)?, "limit")?,
            _ => return Err(unknown(&name, "after and limit")),
        }
    }
    let mut share = shared.page_share(2 * (PAGE_BYTES_MAX + DOCUMENT_BYTES_MAX)).await?;
    let asked = shared.service.recovered(after.unwrap_or(0), limit.unwrap_or(100));
    let text = page_text(shared.timed("list the recovered rows", asked).await?)?;
    share.shrink_to(text.len());
    Ok(json_bytes(StatusCode::OK, Answer::shared(text, share)))
}

/// Applies or drops what the query selects: all where it selects nothing.
pub(super) async fn decide<S: Service>(
    shared: &Shared<S>,
    query: Option<&str>,
    choice: RecoveredChoice,
) -> Result<Response<Answer>, Error> {
    let (mut collection, mut keys) = (None, Vec::new());
    for pair in pairs(query) {
        let (name, value) = pair?;
        match name.as_str() {
            "collection" => set_once(&mut collection, route::collection(value)?, "collection")?,
            "key" => keys.push(route::key(value)?),
            _ => return Err(unknown(&name, "collection and key")),
        }
    }
    if keys.len() > PAGE_DOCUMENTS_MAX {
        return Err(Error::bad_request(format!("{} keys: at most {PAGE_DOCUMENTS_MAX} in one request", keys.len())));
    }
    let selection = RecoveredSelection { collection, keys };
    let done = shared.timed("decide about the rows", shared.service.decide_recovered(choice, selection)).await?;
    let said = json!({
        "written": done.written, "settled": done.settled, "damaged": done.damaged, "waiting": done.waiting,
    });
    Ok(json_response(StatusCode::OK, &said))
}

/// `{"recovered":[…],"next":…}` with each value as it was sent.
fn page_text(page: RecoveredPage) -> Result<Vec<u8>, Error> {
    let mut text = Vec::with_capacity(4096);
    text.extend_from_slice(b"{\"recovered\":[");
    for (nth, row) in page.rows.into_iter().enumerate() {
        if nth > 0 {
            text.push(b',');
        }
        text.extend_from_slice(format!("{{\"number\":{}", row.number).as_bytes());
        match row.content {
            None => text.extend_from_slice(b",\"damaged\":true"),
            Some(RecoveredContent { scope, collection, key, version, value, expires_at }) => {
                text.extend_from_slice(format!(",\"scope\":\"{scope}\",\"collection\":").as_bytes());
                json_text(&mut text, &collection)?;
                text.extend_from_slice(b",\"key\":");
                json_text(&mut text, &key)?;
                text.extend_from_slice(format!(",\"version\":\"{version}\"").as_bytes());
                if let Some(at) = expires_at {
                    text.extend_from_slice(b",\"expiresAt\":");
                    json_text(&mut text, &crate::report::Timestamp(at).to_string())?;
                }
                match value {
                    None => text.extend_from_slice(b",\"deleted\":true"),
                    // Records about members are not JSON; they are counted and decided about, not shown.
                    Some(_) if scope == "system" => {}
                    Some(value) => {
                        text.extend_from_slice(b",\"value\":");
                        text.extend_from_slice(&value);
                    }
                }
            }
        }
        text.push(b'}');
    }
    text.extend_from_slice(b"],\"next\":");
    json_text(&mut text, &page.next.map(|next| next.to_string()))?;
    text.push(b'}');
    Ok(text)
}
