//! Errors as HTTP answers: the status of each kind, and `application/problem+json` (RFC 9457).

use super::answer::{Answer, json_response};
use crate::error::{Error, PersistenceKind, RequestKind};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::error::Error as _;
use std::format;
use std::string::{String, ToString};

/// Media type of an error.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// The body of an error answer.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    pub kind_uri: String,
    pub title: &'static str,
    pub status: u16,
    pub detail: String,
    pub code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
}

impl Problem {
    pub(super) fn of(error: &Error) -> Problem {
        Problem {
            kind_uri: format!("urn:cbddc:error:{}", error.kind().unwrap_or(error.code())),
            title: title(error),
            status: status_of(error).as_u16(),
            detail: detail(error),
            code: error.code(),
            kind: error.kind(),
        }
    }
}

/// The error and its causes in one line.
pub(super) fn detail(error: &Error) -> String {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        if !detail.contains(&text) {
            detail.push_str(": ");
            detail.push_str(&text);
        }
        cause = next.source();
    }
    detail
}

/// The HTTP status of each code and kind.
pub(super) fn status_of(error: &Error) -> StatusCode {
    match error {
        Error::Network { .. } => StatusCode::BAD_GATEWAY,
        Error::DocumentNotFound { .. } => StatusCode::NOT_FOUND,
        Error::TokenExpired { .. } => StatusCode::GONE,
        Error::Concurrency { .. } => StatusCode::PRECONDITION_FAILED,
        Error::Persistence { kind: PersistenceKind::DiskFull, .. } => StatusCode::INSUFFICIENT_STORAGE,
        Error::Persistence { kind: PersistenceKind::QueueFull, .. } => StatusCode::SERVICE_UNAVAILABLE,
        Error::Persistence { kind: PersistenceKind::DocumentTooLarge, .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        Error::Request { kind, .. } => match kind {
            RequestKind::BadRequest => StatusCode::BAD_REQUEST,
            RequestKind::Unauthorized => StatusCode::UNAUTHORIZED,
            RequestKind::NoSuchRoute | RequestKind::NoSuchPeer => StatusCode::NOT_FOUND,
            RequestKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            RequestKind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            RequestKind::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        },
        Error::Persistence { kind: PersistenceKind::Other, .. }
        | Error::DatabaseCorruption { .. }
        | Error::Sync { .. }
        | Error::Configuration { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn title(error: &Error) -> &'static str {
    match error {
        Error::Network { .. } => "A peer or socket could not be reached",
        Error::DocumentNotFound { .. } => "No such document",
        Error::Concurrency { .. } => "The document is not at the version asked for",
        Error::Persistence { kind: PersistenceKind::DiskFull, .. } => "No space left to store it",
        Error::Persistence { kind: PersistenceKind::QueueFull, .. } => "The offline queue is full",
        Error::Persistence { kind: PersistenceKind::DocumentTooLarge, .. } => "The document is too large",
        Error::Persistence { kind: PersistenceKind::Other, .. } => "The store failed",
        Error::DatabaseCorruption { .. } => "The database is damaged",
        Error::Timeout { .. } => "No answer in time, the outcome is unknown",
        Error::Sync { .. } => "Replication failed",
        Error::TokenExpired { .. } => "The change feed cannot go on from this token",
        Error::Configuration { .. } => "The configuration is wrong",
        Error::Request { kind, .. } => match kind {
            RequestKind::BadRequest => "The request is malformed",
            RequestKind::Unauthorized => "The token is missing or wrong",
            RequestKind::NoSuchRoute => "No such route",
            RequestKind::NoSuchPeer => "No such peer",
            RequestKind::MethodNotAllowed => "The route does not take this method",
            RequestKind::UnsupportedMediaType => "The route does not take this media type",
            RequestKind::TooManyRequests => "Too many requests at once",
        },
    }
}

/// The answer to a request that failed.
pub(super) fn response(error: &Error) -> Response<Answer> {
    let problem = Problem::of(error);
    let mut response = json_response(status_of(error), &problem);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    match error {
        Error::Persistence { kind: PersistenceKind::QueueFull, .. }
        | Error::Request { kind: RequestKind::TooManyRequests, .. } => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Error::Request { kind: RequestKind::Unauthorized, .. } => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    response
}

/// The answer to a method that the route does not take.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response<Answer> {
    let mut response = response(&Error::Request {
        kind: RequestKind::MethodNotAllowed,
        message: format!("this route takes {allowed}"),
    });
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
