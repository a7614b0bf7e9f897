//! Requests about documents: put, get, delete, list, and the names of collections.

use super::Service;
use super::answer::{Answer, empty_response, json_bytes, json_response};
use super::body::BodyReader;
use super::confirmed;
use super::handle::Shared;
use super::route::{self, Listing};
use crate::document::json::{check, too_large};
use crate::document::{Accepted, Condition, Document, PAGE_BYTES_MAX, Page, Queued, Version, WriteOp};
use crate::error::{Error, RequestKind};
use crate::limits::DOCUMENT_BYTES_MAX;
use hyper::header::{CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::json;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// Says that what is shown waits in the offline queue.
const QUEUED: HeaderName = HeaderName::from_static("cbddc-queued");
/// White space that may stand around the largest document.
const PADDING_BYTES_MAX: usize = 1024;

pub(super) async fn put<S: Service>(
    shared: &Shared<S>,
    head: &Parts,
    body: &mut BodyReader,
    collection: String,
    key: String,
) -> Result<Response<Answer>, Error> {
    let wanted = route::wanted(head.uri.query(), true)?;
    let condition = write_condition(&head.headers)?;
    not_encoded(&head.headers)?;
    let (sent, _share) = whole(shared, body).await?;
    let value = check(&sent)?;
    let value = if value.len() == sent.len() { sent } else { value.to_vec() };
    let op = WriteOp { collection, key, value: Some(value), ttl: wanted.ttl, condition };
    if let Some((peers, wait)) = wanted.confirmed_by {
        return confirmed::write(shared, "store the document", op, peers, wait).await;
    }
    let stored = match shared.timed("store the document", shared.service.accept(op)).await? {
        Accepted::Stored(stored) => stored,
        Accepted::Queued => return Ok(queued()),
    };
    let status = if stored.existed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = json_response(status, &json!({ "version": stored.version.to_string() }));
    response.headers_mut().insert(ETAG, etag(&stored.version));
    Ok(response)
}

pub(super) async fn delete<S: Service>(
    shared: &Shared<S>,
    head: &Parts,
    collection: String,
    key: String,
) -> Result<Response<Answer>, Error> {
    let wanted = route::wanted(head.uri.query(), false)?;
    let condition = write_condition(&head.headers)?;
    let op = WriteOp { collection, key, value: None, ttl: None, condition };
    if let Some((peers, wait)) = wanted.confirmed_by {
        return confirmed::write(shared, "delete the document", op, peers, wait).await;
    }
    match shared.timed("delete the document", shared.service.accept(op)).await? {
        Accepted::Stored(_) => Ok(empty_response(StatusCode::NO_CONTENT)),
        Accepted::Queued => Ok(queued()),
    }
}

/// The answer to a write that waits: not on disk, and nothing that says so.
pub(super) fn queued() -> Response<Answer> {
    json_response(StatusCode::ACCEPTED, &json!({ "queued": true }))
}

/// What waits in the offline queue, to who reads it. It has no version yet, so it is at none that could be asked for.
fn waiting(
    waits: Queued,
    headers: &HeaderMap,
    mut share: super::budget::Share,
    collection: &str,
    key: &str,
) -> Result<Response<Answer>, Error> {
    if tags(headers, IF_MATCH)?.is_some_and(|wanted| wanted != Tags::Any || waits == Queued::Delete) {
        return Err(Error::Concurrency { collection: collection.to_string(), key: key.to_string() });
    }
    let mut response = match waits {
        Queued::Put(value) => {
            share.shrink_to(value.len());
            json_bytes(StatusCode::OK, Answer::shared(value, share))
        }
        Queued::Delete => {
            let (collection, key) = (collection.to_string(), key.to_string());
            super::problem::response(&Error::DocumentNotFound { collection, key })
        }
    };
    response.headers_mut().insert(QUEUED, HeaderValue::from_static("true"));
    Ok(response)
}

pub(super) async fn get<S: Service>(
    shared: &Shared<S>,
    head: &Parts,
    collection: &str,
    key: &str,
) -> Result<Response<Answer>, Error> {
    route::no_query(head.uri.query())?;
    let mut share = shared.share(DOCUMENT_BYTES_MAX).await?;
    if let Some(waits) = shared.service.queued(collection, key) {
        return waiting(waits, &head.headers, share, collection, key);
    }
    let found = shared.timed("read the document", shared.service.get(collection, key)).await?;
    if let Some(wanted) = tags(&head.headers, IF_MATCH)? {
        let holds = found.as_ref().is_some_and(|document| wanted.includes(&document.version));
        if !holds {
            return Err(Error::Concurrency { collection: collection.to_string(), key: key.to_string() });
        }
    }
    let document =
        found.ok_or_else(|| Error::DocumentNotFound { collection: collection.to_string(), key: key.to_string() })?;
    let unchanged = tags(&head.headers, IF_NONE_MATCH)?.is_some_and(|known| known.includes(&document.version));
    let mut response = if unchanged {
        empty_response(StatusCode::NOT_MODIFIED)
    } else {
        share.shrink_to(document.value.len());
        json_bytes(StatusCode::OK, Answer::shared(document.value, share))
    };
    response.headers_mut().insert(ETAG, etag(&document.version));
    Ok(response)
}

pub(super) async fn list<S: Service>(
    shared: &Shared<S>,
    query: Option<&str>,
    collection: &str,
) -> Result<Response<Answer>, Error> {
    let listing = route::listing(query)?;
    // The page and its text at once, and a document beyond the bound.
    let mut share = shared.page_share(2 * (PAGE_BYTES_MAX + DOCUMENT_BYTES_MAX)).await?;
    let page = match &listing {
        Listing::Range(query) => shared.timed("list", shared.service.list(collection, query)).await?,
        Listing::Keys(keys) if keys.is_empty() => Page::default(),
        Listing::Keys(keys) => shared.timed("read the documents", shared.service.get_many(collection, keys)).await?,
    };
    let text = page_text(page)?;
    share.shrink_to(text.len());
    Ok(json_bytes(StatusCode::OK, Answer::shared(text, share)))
}

pub(super) async fn collections<S: Service>(shared: &Shared<S>) -> Result<Response<Answer>, Error> {
    let found = shared.timed("list the collections", shared.service.collections()).await?;
    let listed: Vec<_> =
        found.into_iter().map(|summary| json!({ "name": summary.name, "documents": summary.documents })).collect();
    Ok(json_response(StatusCode::OK, &json!({ "collections": listed })))
}

/// `{"documents":[…],"next":…}` with each value as it was sent. Each document is dropped once it is written.
fn page_text(page: Page) -> Result<Vec<u8>, Error> {
    let values: usize = page.documents.iter().map(|document| document.value.len() + document.key.len() + 80).sum();
    let mut text = Vec::with_capacity(values + 64);
    text.extend_from_slice(b"{\"documents\":[");
    for (nth, Document { key, version, value }) in page.documents.into_iter().enumerate() {
        if nth > 0 {
            text.push(b',');
        }
        text.extend_from_slice(b"{\"key\":");
        json_text(&mut text, &key)?;
        text.extend_from_slice(format!(",\"version\":\"{version}\",\"value\":").as_bytes());
        text.extend_from_slice(&value);
        text.push(b'}');
    }
    text.extend_from_slice(b"],\"next\":");
    json_text(&mut text, &page.next)?;
    if !page.damaged.is_empty() {
        text.extend_from_slice(b",\"damaged\":");
        json_text(&mut text, &page.damaged)?;
    }
    if let Some(missing) = &page.missing {
        text.extend_from_slice(b",\"missing\":");
        json_text(&mut text, missing)?;
    }
    text.push(b'}');
    Ok(text)
}

pub(super) fn json_text(text: &mut Vec<u8>, value: &impl serde::Serialize) -> Result<(), Error> {
    serde_json::to_writer(text, value).map_err(|error| Error::persistence("writing the answer", Some(error.into())))
}

/// A body of at most one document, and its share of the memory.
async fn whole<S: Service>(
    shared: &Shared<S>,
    body: &mut BodyReader,
) -> Result<(Vec<u8>, Option<super::budget::Share>), Error> {
    let bound = DOCUMENT_BYTES_MAX + PADDING_BYTES_MAX;
    let announced = body.announced().unwrap_or(bound);
    if announced > bound {
        return Err(too_large(announced));
    }
    let share = shared.upload_share(announced).await?;
    let mut sent = Vec::with_capacity(announced.min(4096));
    while let Some(piece) = body.next().await? {
        if sent.len() + piece.len() > bound {
            return Err(too_large(sent.len() + piece.len()));
        }
        sent.extend_from_slice(&piece);
    }
    Ok((sent, share))
}

/// Refuses compressed bodies, which would be stored as they are or not at all.
pub(super) fn not_encoded(headers: &HeaderMap) -> Result<(), Error> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(Error::Request {
            kind: RequestKind::UnsupportedMediaType,
            message: "Content-Encoding is not taken here: send the body as it is".to_string(),
        }),
        _ => Ok(()),
    }
}

/// The version as an entity tag. Printed as hexadecimal digits and a dash, so always a legal header.
pub(super) fn etag(version: &Version) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// `*`, or a tag. `None` in it: a tag that no version of ours has.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    One(Option<Version>),
}

impl Tags {
    fn includes(&self, version: &Version) -> bool {
        match self {
            Tags::Any => true,
            Tags::One(tag) => tag.as_ref() == Some(version),
        }
    }
}

fn tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>, Error> {
    let mut values = headers.get_all(&name).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().unwrap_or_default().trim(),
        (Some(_), Some(_)) => return Err(Error::bad_request(format!("{name} is given twice: one version, or *"))),
    };
    if value == "*" {
        return Ok(Some(Tags::Any));
    }
    if let Some(version) = Version::parse(value) {
        return Ok(Some(Tags::One(Some(version))));
    }
    let tag = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|tag| !tag.contains('"'));
    let tag =
        tag.ok_or_else(|| Error::bad_request(format!("{name} takes one version in quotes, as ETag says it, or *")))?;
    Ok(Some(Tags::One(Version::parse(tag))))
}

fn write_condition(headers: &HeaderMap) -> Result<Condition, Error> {
    // A version that this store cannot have made; no row is at it, so the condition fails where it is judged.
    const NOWHERE: Version = Version { stamp: crate::time::Stamp::ZERO, origin: crate::id::ReplicaId::NONE };
    match (tags(headers, IF_MATCH)?, tags(headers, IF_NONE_MATCH)?) {
        (None, None) => Ok(Condition::Always),
        (Some(Tags::Any), None) => Ok(Condition::Present),
        (Some(Tags::One(version)), None) => Ok(Condition::At(version.unwrap_or(NOWHERE))),
        (None, Some(Tags::Any)) => Ok(Condition::Absent),
        (None, Some(Tags::One(_))) => Err(Error::bad_request("If-None-Match of a write takes * alone")),
        (Some(_), Some(_)) => Err(Error::bad_request("If-Match and If-None-Match do not go together")),
    }
}
