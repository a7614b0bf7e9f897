//! The body of an answer: bytes that are ready, with their share of the budget, or a feed that goes on.

use super::budget::Share;
use super::connection::Activity;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use serde::Serialize;
use smol::stream::Stream;
use std::boxed::Box;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A body that is sent in one piece, or piece by piece for as long as there are any.
#[derive(Debug, Default)]
pub(super) struct Answer {
    bytes: Bytes,
    share: Option<Share>,
    feed: Option<Feed>,
}

/// Pieces that come in their time. The next one is asked for when the one before has mostly left.
struct Feed {
    pieces: Pin<Box<dyn Stream<Item = Bytes>>>,
    /// Set once a connection serves it: answered when the last piece is made.
    serving: Option<Rc<Activity>>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(activity) = &self.serving {
            activity.answered(None);
        }
    }
}

impl Answer {
    /// Bytes that are small and bounded by themselves.
    pub(super) fn small(bytes: impl Into<Bytes>) -> Answer {
        Answer { bytes: bytes.into(), ..Answer::default() }
    }
    /// Bytes that count against the budget until they were sent.
    pub(super) fn shared(bytes: impl Into<Bytes>, share: Share) -> Answer {
        Answer { bytes: bytes.into(), share: Some(share), feed: None }
    }
    /// Pieces, none of which is empty.
    pub(super) fn feed(pieces: impl Stream<Item = Bytes> + 'static) -> Answer {
        Answer { feed: Some(Feed { pieces: Box::pin(pieces), serving: None }), ..Answer::default() }
    }
    /// The answer goes out now. What was made whole is answered; a feed is when it ends.
    pub(super) fn goes_out(&mut self, activity: &Rc<Activity>) {
        match &mut self.feed {
            Some(feed) => feed.serving = Some(activity.clone()),
            None => activity.answered(self.share.take()),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(feed) = &mut self.feed {
            let piece = feed.pieces.as_mut().poll_next(cx);
            return piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))));
        }
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready(if bytes.is_empty() { None } else { Some(Ok(Frame::data(bytes))) })
    }
    fn is_end_stream(&self) -> bool {
        self.feed.is_none() && self.bytes.is_empty()
    }
    fn size_hint(&self) -> SizeHint {
        if self.feed.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.bytes.len() as u64) }
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

pub(super) fn common_headers(response: &mut Response<Answer>) {
    let headers = response.headers_mut();
    // Documents change under every reader; a version can be asked for with `If-None-Match`.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A document is data, whatever it looks like.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
