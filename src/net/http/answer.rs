//! The body of an answer: bytes that are ready, and their share of the budget.

use super::budget::Share;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body that is sent in one piece.
#[derive(Debug, Default)]
pub(super) struct Answer {
    bytes: Bytes,
    share: Option<Share>,
}

impl Answer {
    /// Bytes that are small and bounded by themselves.
    pub(super) fn small(bytes: impl Into<Bytes>) -> Answer {
        Answer { bytes: bytes.into(), share: None }
    }
    /// Bytes that count against the budget until they were sent.
    pub(super) fn shared(bytes: impl Into<Bytes>, share: Share) -> Answer {
        Answer { bytes: bytes.into(), share: Some(share) }
    }
    /// The share, for whoever knows when the bytes have left.
    pub(super) fn take_share(&mut self) -> Option<Share> {
        self.share.take()
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready(if bytes.is_empty() { None } else { Some(Ok(Frame::data(bytes))) })
    }
    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// An answer without a body.
pub(super) fn empty_response(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Answer::default());
    *response.status_mut() = status;
    common_headers(&mut response);
    response
}

/// An answer of JSON that is small.
pub(super) fn json_response(status: StatusCode, value: &impl Serialize) -> Response<Answer> {
    // Our own shapes: string keys and finite numbers, which cannot fail. An empty object is said rather than nothing.
    let bytes = serde_json::to_vec(value).unwrap_or_else(|_| b"{}".to_vec());
    json_bytes(status, Answer::small(bytes))
}

/// An answer of JSON text.
pub(super) fn json_bytes(status: StatusCode, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    common_headers(&mut response);
    response
}

fn common_headers(response: &mut Response<Answer>) {
    let headers = response.headers_mut();
    // Documents change under every reader; a version can be asked for with `If-None-Match`.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A document is data, whatever it looks like.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
