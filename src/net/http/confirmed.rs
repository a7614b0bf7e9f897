//! `?confirmedBy=N`: a write that is answered once N peers have it on disk too, or when the time for that is over.

use super::Service;
use super::answer::{Answer, json_response};
use super::documents::{etag, queued};
use super::handle::Shared;
use super::problem::{PROBLEM_JSON, Problem};
use crate::document::{Accepted, Confirmed, Stored, WriteOp};
use crate::error::{Error, RequestKind};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use std::cell::Cell;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;

/// Writes, then waits for so many peers.
pub(super) async fn write<S: Service>(
    shared: &Shared<S>,
    what: &str,
    op: WriteOp,
    peers: usize,
    wait: Duration,
) -> Result<Response<Answer>, Error> {
    // Before the write: whoever is told that there is no place has changed nothing.
    let _place = Place::take(shared)?;
    let (deletes, collection) = (op.value.is_none(), op.collection.clone());
    if shared.service.is_local(&collection) {
        return Err(Error::bad_request(format!(
            "{collection} has the scope local, no peer will ever have its documents: leave confirmedBy out"
        )));
    }
    let stored = match shared.timed(what, shared.service.accept(op)).await? {
        Accepted::Stored(stored) => stored,
        // It is on no disk yet, not even here.
        Accepted::Queued => return Ok(queued()),
    };
    if deletes && stored.seq == 0 {
        // Nothing was there, nothing was written, and nobody has anything to confirm.
        return Ok(super::answer::empty_response(StatusCode::NO_CONTENT));
    }
    let confirmed = shared.service.confirmed(&stored, peers, wait).await;
    let mut response = match confirmed.enough {
        true => json_response(
            StatusCode::OK,
            &json!({ "version": stored.version.to_string(), "confirmedBy": confirmed.by }),
        ),
        false => too_late(&stored, &confirmed, peers, wait),
    };
    response.headers_mut().insert(ETAG, etag(&stored.version));
    Ok(response)
}

/// The error of the time being over, with what is certain all the same.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TooLate<'a> {
    #[serde(flatten)]
    problem: Problem,
    stored: bool,
    version: String,
    confirmed_by: &'a [String],
}

fn too_late(stored: &Stored, confirmed: &Confirmed, peers: usize, wait: Duration) -> Response<Answer> {
    let after_ms = wait.as_millis() as u64;
    let mut problem = Problem::of(&Error::Timeout { operation: "wait for confirmations".to_string(), after_ms });
    problem.title = "Stored here, and not confirmed by enough peers in time";
    problem.detail = format!(
        "it is on this node's disk and reaches the peers as soon as they are linked; {} of {peers} had confirmed it after \
         {after_ms} ms, see /v1/peers for those that lag",
        confirmed.by.len()
    );
    let version = stored.version.to_string();
    let body = TooLate { problem, stored: true, version, confirmed_by: &confirmed.by };
    let mut response = json_response(StatusCode::GATEWAY_TIMEOUT, &body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    response
}

/// The place of one who waits for peers, given back on drop.
pub(super) struct Place(Rc<Cell<usize>>);

impl Place {
    pub(super) fn take<S: Service>(shared: &Shared<S>) -> Result<Place, Error> {
        let (taken, max) = (shared.awaiting.get(), shared.options.awaiting_max);
        if taken >= max {
            return Err(Error::Request {
                kind: RequestKind::TooManyRequests,
                message: format!("{max} requests that wait for peers are all that this node serves at once"),
            });
        }
        shared.awaiting.set(taken + 1);
        Ok(Place(shared.awaiting.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
