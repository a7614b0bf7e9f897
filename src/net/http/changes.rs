//! The change feed: one page as JSON, waiting for a first change, or all that comes as server-sent events.
//!
//! Who reads slowly is not waited for: the next page is read when the one before has left, and the connection of whoever
//! takes nothing ends. Readers are bounded in number, and each holds at most one page.

use super::Service;
use super::answer::{Answer, common_headers, json_bytes};
use super::documents::json_text;
use super::handle::Shared;
use super::{problem, route};
use crate::document::{Change, Changes, ChangesQuery, Missing, Since};
use crate::error::{Error, RequestKind};
use async_channel::{Receiver, Sender};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response};
use smol::stream;
use smol::{Timer, future};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// How long a reader waits for a first change where it does not say.
const WAIT: Duration = Duration::from_secs(30);
/// A reader that has waited so long gives way where all places are taken: it is answered without a change, and asks
/// again if it is still there. Clients that went away long before their time would keep everybody out otherwise.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(1);

pub(super) async fn get<S: Service>(shared: &Rc<Shared<S>>, head: &Parts) -> Result<Response<Answer>, Error> {
    let mut query = query(head.uri.query())?;
    if head.method == Method::HEAD {
        query.wait = Duration::ZERO;
    } else if wants_events(&head.headers) {
        return events(shared, head, query).await;
    }
    let changes = wait(shared, &query).await?;
    let values: usize = changes.changes.iter().map(change_bytes).sum();
    let share = shared.share(values).await?;
    Ok(json_bytes(hyper::StatusCode::OK, Answer::shared(page_text(changes)?, share)))
}

/// `since=TOKEN&collection=&limit=&timeout=30s`
fn query(query: Option<&str>) -> Result<ChangesQuery, Error> {
    let (mut since, mut collection, mut limit, mut wait) = (None, None, None, None);
    for pair in route::pairs(query) {
        let (name, value) = pair?;
        match name.as_str() {
            // An empty one is what a client has before its first page.
            "since" if value.is_empty() => {}
            "since" => route::set_once(&mut since, value, "since")?,
            "collection" => route::set_once(&mut collection, route::collection(value)?, "collection")?,
            "limit" => route::set_once(&mut limit, route::page_limit(&value)?, "limit")?,
            "timeout" => route::set_once(&mut wait, route::duration("timeout", &value)?, "timeout")?,
            _ => return Err(route::unknown(&name, "since, collection, limit and timeout")),
        }
    }
    Ok(ChangesQuery {
        since: since.map_or(Since::Start, Since::from),
        collection,
        limit: limit.unwrap_or(ChangesQuery::default().limit),
        wait: wait.unwrap_or(WAIT),
    })
}

/// Waits for a page; in the end without a change where the place is needed.
async fn wait<S: Service>(shared: &Rc<Shared<S>>, query: &ChangesQuery) -> Result<Changes, Error> {
    let place = shared.feeds.enter()?;
    let page = async { Some(shared.service.changes(query).await) };
    let gives_way = async {
        Timer::after(GIVES_WAY_AFTER).await;
        place.may_be_taken();
        place.is_taken().await;
        None
    };
    match future::or(page, gives_way).await {
        Some(page) => page,
        None => shared.service.changes(&ChangesQuery { wait: Duration::ZERO, ..query.clone() }).await,
    }
}

fn page_text(page: Changes) -> Result<Vec<u8>, Error> {
    let mut text = Vec::with_capacity(page.changes.iter().map(change_bytes).sum::<usize>() + 128);
    text.extend_from_slice(b"{\"changes\":[");
    for (nth, change) in page.changes.into_iter().enumerate() {
        if nth > 0 {
            text.push(b',');
        }
        change_text(&mut text, &change)?;
    }
    text.extend_from_slice(b"],\"next\":");
    json_text(&mut text, &page.next)?;
    text.extend_from_slice(if page.more { b",\"more\":true" } else { b",\"more\":false" });
    left_out_text(&mut text, page.damaged, page.missing.as_ref())?;
    text.push(b'}');
    Ok(text)
}

/// What is left out of a page, where anything is.
fn left_out_text(text: &mut Vec<u8>, damaged: u64, missing: Option<&Missing>) -> Result<(), Error> {
    if damaged > 0 {
        text.extend_from_slice(b",\"damaged\":");
        json_text(text, &damaged)?;
    }
    if let Some(missing) = missing {
        text.extend_from_slice(b",\"missing\":");
        json_text(text, missing)?;
    }
    Ok(())
}

/// About how many bytes of text a change becomes.
fn change_bytes(change: &Change) -> usize {
    change.value.as_ref().map_or(0, Vec::len) + change.key.len() + change.collection.len() + 120
}

fn change_text(text: &mut Vec<u8>, change: &Change) -> Result<(), Error> {
    text.extend_from_slice(b"{\"collection\":");
    json_text(text, &change.collection)?;
    text.extend_from_slice(b",\"key\":");
    json_text(text, &change.key)?;
    text.extend_from_slice(b",\"version\":");
    json_text(text, &change.version.to_string())?;
    match &change.value {
        Some(value) => {
            text.extend_from_slice(b",\"value\":");
            text.extend_from_slice(value);
        }
        None => text.extend_from_slice(b",\"deleted\":true"),
    }
    text.push(b'}');
    Ok(())
}

// ---- server-sent events (WHATWG HTML, section 9.2) ----

const EVENT_STREAM: &str = "text/event-stream";

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|range| range.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(EVENT_STREAM)))
}

async fn events<S: Service>(
    shared: &Rc<Shared<S>>,
    head: &Parts,
    mut query: ChangesQuery,
) -> Result<Response<Answer>, Error> {
    // What a browser says when it comes back: later than what its address says.
    if let Some(last) = head.headers.get("last-event-id").filter(|last| !last.is_empty()) {
        query.since = Since::from(last.to_str().unwrap_or_default().to_string());
    }
    let place = shared.feeds.enter()?;
    // The first page is read before the answer begins, so that an error has its status.
    query.wait = Duration::ZERO;
    let first = shared.service.changes(&query).await?;
    query.wait = shared.options.feed_keep_alive;
    let feed = Feed { shared: shared.clone(), query, first: Some(first), _place: place };
    let pieces = stream::unfold(Some(feed), |feed| async {
        let mut feed = feed?;
        match feed.next().await? {
            Ok(events) => Some((Bytes::from(events), Some(feed))),
            Err(error) => Some((Bytes::from(error_event(&error)), None)),
        }
    });
    let mut response = Response::new(Answer::feed(pieces));
    common_headers(&mut response);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    Ok(response)
}

/// A stream of events on its way.
struct Feed<S> {
    shared: Rc<Shared<S>>,
    query: ChangesQuery,
    first: Option<Changes>,
    _place: Place,
}

impl<S: Service> Feed<S> {
    /// The events of the next page; `None` when the node stops.
    async fn next(&mut self) -> Option<Result<Vec<u8>, Error>> {
        let page = match self.first.take() {
            Some(page) => Ok(page),
            None => {
                let stopped = async {
                    // Nothing is ever sent: it ends when the sender is dropped.
                    let _ = self.shared.stopped.recv().await;
                    None
                };
                future::or(stopped, async { Some(self.shared.service.changes(&self.query).await) }).await?
            }
        };
        Some(page.and_then(|page| {
            let text = events_text(&page)?;
            self.query.since = Since::Token(page.next);
            Ok(text)
        }))
    }
}

/// Each change as an event with its token, then a comment with the token behind all that was looked at: an event without
/// data, which a browser takes note of and does not show.
fn events_text(page: &Changes) -> Result<Vec<u8>, Error> {
    let mut text = Vec::with_capacity(page.changes.iter().map(change_bytes).sum::<usize>() + 256);
    let mut json = Vec::new();
    for change in &page.changes {
        text.extend_from_slice(b"id: ");
        text.extend_from_slice(change.token.as_bytes());
        json.clear();
        change_text(&mut json, change)?;
        data(&mut text, &json);
    }
    if page.damaged > 0 || page.missing.is_some() {
        text.extend_from_slice(b"event: incomplete");
        json.clear();
        json.extend_from_slice(b"{\"incomplete\":true");
        left_out_text(&mut json, page.damaged, page.missing.as_ref())?;
        json.push(b'}');
        let told = json.as_slice();
        data(&mut text, told);
    }
    if page.changes.last().is_none_or(|last| last.token != page.next) {
        text.extend_from_slice(b": keep-alive\nid: ");
        text.extend_from_slice(page.next.as_bytes());
        text.extend_from_slice(b"\n\n");
    }
    Ok(text)
}

/// JSON as lines of data: line ends within it are white space between its tokens, and stay line ends.
fn data(text: &mut Vec<u8>, json: &[u8]) {
    for line in json.split(|byte| matches!(byte, b'\n' | b'\r')) {
        text.extend_from_slice(b"\ndata: ");
        text.extend_from_slice(line);
    }
    text.extend_from_slice(b"\n\n");
}

/// The last event where the feed cannot go on.
fn error_event(error: &Error) -> Vec<u8> {
    let mut text = b"event: error".to_vec();
    data(&mut text, &serde_json::to_vec(&problem::Problem::of(error)).unwrap_or_default());
    text
}

// ---- places ----

/// The readers of a listener, at most so many.
#[derive(Debug)]
pub(super) struct Feeds {
    max: usize,
    next: Cell<u64>,
    /// The longest there first.
    readers: RefCell<BTreeMap<u64, Reader>>,
}

#[derive(Debug)]
struct Reader {
    /// Dropped to tell it that its place is taken.
    _told: Sender<Infallible>,
    gives_way: bool,
}

/// The place of one reader, given back on drop.
#[derive(Debug)]
struct Place {
    feeds: Rc<Feeds>,
    number: u64,
    taken: Receiver<Infallible>,
}

impl Feeds {
    pub(super) fn new(max: usize) -> Rc<Feeds> {
        Rc::new(Feeds { max, next: Cell::new(0), readers: RefCell::default() })
    }
    /// A place, if need be that of who has waited longest.
    fn enter(self: &Rc<Feeds>) -> Result<Place, Error> {
        let mut readers = self.readers.borrow_mut();
        if readers.len() >= self.max {
            let longest = readers.iter().find(|(_, reader)| reader.gives_way).map(|(number, _)| *number);
            let longest = longest.ok_or_else(|| Error::Request {
                kind: RequestKind::TooManyRequests,
                message: std::format!("{} readers of the change feed are all that this node serves at once", self.max),
            })?;
            readers.remove(&longest);
        }
        let (told, taken) = async_channel::bounded(1);
        let number = self.next.get();
        self.next.set(number + 1);
        readers.insert(number, Reader { _told: told, gives_way: false });
        Ok(Place { feeds: self.clone(), number, taken })
    }
}

impl Place {
    fn may_be_taken(&self) {
        if let Some(reader) = self.feeds.readers.borrow_mut().get_mut(&self.number) {
            reader.gives_way = true;
        }
    }
    async fn is_taken(&self) {
        // Nothing is ever sent: it ends when the sender is dropped.
        let _ = self.taken.recv().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.feeds.readers.borrow_mut().remove(&self.number);
    }
}

impl From<String> for Since {
    /// `now`, or a token.
    fn from(text: String) -> Since {
        if text == "now" { Since::Now } else { Since::Token(text) }
    }
}
