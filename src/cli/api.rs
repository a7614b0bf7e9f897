//! The HTTP client of the command line: one connection at a time, bounded answers, errors that say the next step.

use super::target::{Address, Target};
use crate::error::{Error, PersistenceKind, RequestKind};
use async_net::TcpStream;
use async_net::unix::UnixStream;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use smol::io::{AsyncRead, AsyncWrite};
use smol::{LocalExecutor, Timer};
use smol_hyper::rt::FuturesIo;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::format;
use std::future::Future;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// Largest answer that is read: a page is 1 MiB of values, its keys and escapes come on top.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Everything but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One part of a path or query, percent-encoded. A name of dots alone is encoded too, or it would walk up the path.
pub(super) fn encode(text: &str) -> String {
    if text.bytes().all(|byte| byte == b'.') {
        return "%2E".repeat(text.len());
    }
    utf8_percent_encode(text, ENCODED).to_string()
}

/// A node's API.
#[derive(Debug)]
pub(super) struct Api {
    address: Address,
    token: Option<String>,
    timeout: Cell<Duration>,
    executor: Rc<LocalExecutor<'static>>,
    /// Connections that wait for their next request.
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its whole body.
    pub body: Bytes,
}

impl Api {
    pub(super) fn new(target: Target, timeout: Duration, executor: Rc<LocalExecutor<'static>>) -> Api {
        Api {
            address: target.address,
            token: target.token,
            timeout: Cell::new(timeout),
            executor,
            idle: RefCell::default(),
        }
    }

    /// The next answers may take so much longer.
    pub(super) fn be_patient(&self, time: Duration) {
        self.timeout.set(self.timeout.get().saturating_add(time));
    }

    /// The address, as a person reads it.
    pub(super) fn shown(&self) -> String {
        match &self.address {
            Address::Tcp(address) => address.clone(),
            Address::Unix(path) => path.display().to_string(),
        }
    }

    /// A `GET` whose answer is 200.
    pub(super) async fn get(&self, path: &str) -> Result<Reply, Error> {
        self.send(Method::GET, path, None, Bytes::new()).await?.ok()
    }

    /// Any request, any answer. A kept connection that the node has closed meanwhile is replaced once.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: Option<&str>,
        body: Bytes,
    ) -> Result<Reply, Error> {
        let what = format!("{method} {path} at {}", self.shown());
        let exchange = async {
            let kept = self.idle.borrow_mut().pop().filter(|sender| !sender.is_closed());
            if let Some(sender) = kept {
                let request = self.request(&method, path, media_type, body.clone())?;
                match self.exchange(sender, request).await {
                    // Closed before it was sent, or before it was read: each request here may be repeated.
                    Err(error) if error.is_canceled() || error.is_incomplete_message() || error.is_closed() => {}
                    other => return other.map_err(|error| self.failed(&error)),
                }
            }
            let sender = self.connect().await?;
            let request = self.request(&method, path, media_type, body)?;
            self.exchange(sender, request).await.map_err(|error| self.failed(&error))
        };
        let (sender, response) = self.in_time(&what, exchange).await?;
        let (head, incoming) = response.into_parts();
        let collect = async {
            Limited::new(incoming, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
                let next = if error.is::<LengthLimitError>() { "it is too long" } else { "the node went away" };
                Error::network(format!("the answer of {} could not be read: {next}", self.shown()), Some(error))
            })
        };
        let body = self.in_time(&what, collect).await?.to_bytes();
        self.idle.borrow_mut().push(sender);
        Ok(Reply { status: head.status, body })
    }

    async fn in_time<T>(&self, what: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = async {
            Timer::after(self.timeout.get()).await;
            Err(Error::Timeout { operation: what.to_string(), after_ms: self.timeout.get().as_millis() as u64 })
        };
        smol::future::or(work, late).await
    }

    async fn exchange(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<(SendRequest<Full<Bytes>>, hyper::Response<hyper::body::Incoming>)> {
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        Ok((sender, response))
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        media_type: Option<&str>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let host = match &self.address {
            Address::Tcp(address) => address,
            Address::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host).header(ACCEPT, "*/*");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        request.body(Full::new(body)).map_err(|error| {
            Error::bad_request(format!("the request cannot be written: {error}; is the token one line?"))
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let failed = |error: std::io::Error| {
            let message = format!(
                "no answer at {}: is a node running? start one with `cbddc run`, or name its API with --api",
                self.shown()
            );
            Error::network(message, Some(Box::from(error)))
        };
        match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                self.speak_http(stream).await
            }
            Address::Unix(path) => self.speak_http(UnixStream::connect(path).await.map_err(failed)?).await,
        }
    }

    async fn speak_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    ) -> Result<SendRequest<Full<Bytes>>, Error> {
        let (sender, connection) = handshake(FuturesIo::new(stream)).await.map_err(|error| self.failed(&error))?;
        // Its errors come out of the requests, too.
        self.executor.spawn(async { drop(connection.await) }).detach();
        Ok(sender)
    }

    fn failed(&self, error: &hyper::Error) -> Error {
        let why = if error.is_parse() { "what answers there is not HTTP" } else { "the connection broke off" };
        let mut causes = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            causes = format!("{causes}: {cause}");
        }
        Error::network(format!("{}: {why} ({causes}); is a node running there?", self.shown()), None)
    }
}

impl Reply {
    /// The reply, where its status says success.
    pub(super) fn ok(self) -> Result<Reply, Error> {
        if self.status.is_success() { Ok(self) } else { Err(self.error()) }
    }

    /// The error that the node answered with.
    pub(super) fn error(&self) -> Error {
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => problem.into_error(),
            Err(_) => Error::network(format!("the answer is {}, and not from a node of CBDDC", self.status), None),
        }
    }

    /// The body as a value.
    pub(super) fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::network("the answer is not what a node of this version says", Some(Box::from(error)))
        })
    }
}

/// An error as the node says it.
#[derive(Debug, Deserialize)]
struct Problem {
    detail: String,
    code: String,
    kind: Option<String>,
}

impl Problem {
    fn into_error(self) -> Error {
        let Problem { detail: message, code, kind } = self;
        let persistence = |kind| Error::Persistence { kind, message: message.clone(), source: None };
        let request = |kind| Error::Request { kind, message: message.clone() };
        match (code.as_str(), kind.as_deref()) {
            ("PERSISTENCE_ERROR", Some("DiskFull")) => persistence(PersistenceKind::DiskFull),
            ("PERSISTENCE_ERROR", Some("QueueFull")) => persistence(PersistenceKind::QueueFull),
            ("PERSISTENCE_ERROR", Some("DocumentTooLarge")) => persistence(PersistenceKind::DocumentTooLarge),
            ("PERSISTENCE_ERROR", Some("DatabaseCorruption")) => Error::DatabaseCorruption { message, source: None },
            ("PERSISTENCE_ERROR", _) => persistence(PersistenceKind::Other),
            ("SYNC_ERROR", Some("TokenExpired")) => Error::TokenExpired { message },
            ("SYNC_ERROR", _) => Error::Sync { message, source: None },
            ("CONFIG_ERROR", _) => Error::configuration(message),
            ("REQUEST_ERROR", Some("Unauthorized")) => request(RequestKind::Unauthorized),
            ("REQUEST_ERROR", Some("NoSuchRoute")) => request(RequestKind::NoSuchRoute),
            ("REQUEST_ERROR", Some("MethodNotAllowed")) => request(RequestKind::MethodNotAllowed),
            ("REQUEST_ERROR", Some("UnsupportedMediaType")) => request(RequestKind::UnsupportedMediaType),
            ("REQUEST_ERROR", Some("TooManyRequests")) => request(RequestKind::TooManyRequests),
            ("REQUEST_ERROR", _) => request(RequestKind::BadRequest),
            ("TIMEOUT_ERROR", _) => timeout(&message),
            _ => Error::network(message, None),
        }
    }
}

/// A timeout out of its own words: what the node was doing, and how long it waited.
fn timeout(message: &str) -> Error {
    let (operation, rest) = message.split_once(": no answer after ").unwrap_or((message, ""));
    let after_ms = rest.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    Error::Timeout { operation: operation.to_string(), after_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_of_the_node_keeps_its_words() {
        let said = Error::Timeout { operation: "store the document".to_string(), after_ms: 30_000 };
        assert_eq!(timeout(&said.to_string()).to_string(), said.to_string());
    }

    #[test]
    fn a_key_is_encoded_so_that_no_path_is_changed_by_it() {
        assert_eq!(encode("2010/01/01 00:00:00"), "2010%2F01%2F01%2000%3A00%3A00");
        assert_eq!(encode("a-b_c.d~é"), "a-b_c.d~%C3%A9");
        assert_eq!((encode("."), encode("..")), ("%2E".to_string(), "%2E%2E".to_string()));
    }
}
