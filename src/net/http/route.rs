//! Paths and queries as values: percent-decoded, checked once, unknown ones refused.

use crate::document::{PAGE_DOCUMENTS_MAX, Query, RecoveredChoice};
use crate::error::{Error, RequestKind};
use crate::limits::{COLLECTION_BYTES_MAX, KEY_BYTES_MAX, MEMBERS_MAX, NODE_ID_BYTES_MAX};
use crate::time::Millis;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::format;
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v1/collections/{c}/documents/{key}`
    Document { collection: String, key: String },
    /// `/v1/collections/{c}/documents`
    Documents { collection: String },
    /// `/v1/collections`
    Collections,
    /// `/v1/changes`
    Changes,
    /// `/v1/status`
    Status,
    /// `/v1/site`
    Site,
    /// `/v1/peers`
    Peers,
    /// `/v1/peers/{nodeId}`
    Peer { node_id: String },
    /// `/v1/peers/{nodeId}/replace`
    ReplacePeer { node_id: String },
    /// `/v1/recovered`, `/v1/recovered/apply`, `/v1/recovered/drop`
    Recovered { decision: Option<RecoveredChoice> },
    /// `/v1/recovered/acknowledge`
    Acknowledge,
    /// `/v1/backups`
    Backups,
    /// `/v1/integrity-check`
    IntegrityCheck,
    /// `/health`
    Health,
    /// `/livez`
    Live,
    /// `/readyz`
    Ready,
    /// `/metrics`
    Metrics,
}

impl Route {
    /// From the path as it came.
    ///
    /// # Errors
    /// `NoSuchRoute`, or `BadRequest` where a collection or key is malformed.
    pub(super) fn parse(path: &str) -> Result<Route, Error> {
        let segments: Vec<&str> = path.split('/').skip(1).take(7).collect();
        Ok(match segments.as_slice() {
            ["v1", "collections", collection, "documents", key] => {
                Route::Document { collection: collection_name(collection)?, key: key_name(key)? }
            }
            ["v1", "collections", collection, "documents"] => {
                Route::Documents { collection: collection_name(collection)? }
            }
            ["v1", "collections", _, "documents", _, ..] => {
                return Err(no_such_route(path, "write a / within a key as %2F"));
            }
            ["v1", "collections"] => Route::Collections,
            ["v1", "changes"] => Route::Changes,
            ["v1", "status"] => Route::Status,
            ["v1", "site"] => Route::Site,
            ["v1", "peers"] => Route::Peers,
            ["v1", "peers", node_id] => Route::Peer { node_id: node_name(node_id)? },
            ["v1", "peers", node_id, "replace"] => Route::ReplacePeer { node_id: node_name(node_id)? },
            ["v1", "recovered"] => Route::Recovered { decision: None },
            ["v1", "recovered", "apply"] => Route::Recovered { decision: Some(RecoveredChoice::Apply) },
            ["v1", "recovered", "drop"] => Route::Recovered { decision: Some(RecoveredChoice::Drop) },
            ["v1", "recovered", "acknowledge"] => Route::Acknowledge,
            ["v1", "backups"] => Route::Backups,
            ["v1", "integrity-check"] => Route::IntegrityCheck,
            ["health"] => Route::Health,
            ["livez"] => Route::Live,
            ["readyz"] => Route::Ready,
            ["metrics"] => Route::Metrics,
            _ => return Err(no_such_route(path, "the routes are in the documentation of the HTTP API")),
        })
    }

    /// Whether it is one that monitoring asks, open without a token.
    pub(super) fn is_health(&self) -> bool {
        matches!(self, Route::Health | Route::Live | Route::Ready | Route::Metrics)
    }
}

fn no_such_route(path: &str, next: &str) -> Error {
    let shown: String = path.chars().take(100).collect();
    Error::Request { kind: RequestKind::NoSuchRoute, message: format!("there is no {shown}: {next}") }
}

fn collection_name(segment: &str) -> Result<String, Error> {
    collection(decode(segment, "the collection")?.into_owned())
}

/// A collection's name within its limits.
pub(super) fn collection(name: String) -> Result<String, Error> {
    bounded(name, "the collection", COLLECTION_BYTES_MAX)
}

fn node_name(segment: &str) -> Result<String, Error> {
    let name = decode(segment, "the name of the node")?.into_owned();
    bounded(name, "the name of the node", NODE_ID_BYTES_MAX)
}

fn key_name(segment: &str) -> Result<String, Error> {
    key(decode(segment, "the key")?.into_owned())
}

/// A key within its limits.
pub(super) fn key(key: String) -> Result<String, Error> {
    bounded(key, "the key", KEY_BYTES_MAX)
}

fn bounded(name: String, what: &str, max: usize) -> Result<String, Error> {
    match name.len() {
        0 => Err(Error::bad_request(format!("{what} is empty: give it 1 to {max} bytes"))),
        bytes if bytes > max => Err(Error::bad_request(format!("{what} has {bytes} bytes: at most {max}"))),
        _ => Ok(name),
    }
}

/// Percent-decodes; what is not two hexadecimal digits behind a `%`, or not UTF-8 afterwards, is refused.
fn decode<'a>(text: &'a str, what: &str) -> Result<Cow<'a, str>, Error> {
    let hex = |at: Option<&u8>| at.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let broken =
        bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !(hex(bytes.get(at + 1)) && hex(bytes.get(at + 2))));
    if broken {
        return Err(Error::bad_request(format!("{what} is not percent-encoded: write % as %25")));
    }
    percent_decode_str(text).decode_utf8().map_err(|_| Error::bad_request(format!("{what} is not UTF-8 once decoded")))
}

/// The query as pairs, decoded as forms are: `+` is a space.
pub(super) fn pairs(query: Option<&str>) -> impl Iterator<Item = Result<(String, String), Error>> + '_ {
    query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |text: &str| decode(&text.replace('+', " "), "the query").map(Cow::into_owned);
        Ok((plain(name)?, plain(value)?))
    })
}

pub(super) fn unknown(name: &str, allowed: &str) -> Error {
    let shown: String = name.chars().take(40).collect();
    Error::bad_request(format!("there is no parameter {shown:?} here: this request takes {allowed}"))
}

pub(super) fn set_once<T>(slot: &mut Option<T>, value: T, name: &str) -> Result<(), Error> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::bad_request(format!("the parameter {name} is given twice"))),
    }
}

/// Refuses a query where none is taken.
pub(super) fn no_query(query: Option<&str>) -> Result<(), Error> {
    match pairs(query).next() {
        None => Ok(()),
        Some(pair) => Err(unknown(&pair?.0, "none")),
    }
}

/// Longest time to live: a century, so that no sum of times overflows.
const TTL_SECONDS_MAX: u64 = 100 * 365 * 86_400;

/// What the query of a write asks for beside the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    /// How long the document is to live.
    pub ttl: Option<Millis>,
    /// How many peers are to have it on disk before it is answered, and how long that is waited for.
    pub confirmed_by: Option<(usize, Duration)>,
}

/// How long confirmations are waited for where the caller does not say.
const CONFIRMATION_WAIT: Duration = Duration::from_secs(5);

/// `?ttl=SECONDS` of a put alone, `?confirmedBy=N&timeout=5s` of a put or a delete.
pub(super) fn wanted(query: Option<&str>, is_put: bool) -> Result<Wanted, Error> {
    let (mut life, mut peers, mut wait) = (None, None, None);
    for pair in pairs(query) {
        let (name, value) = pair?;
        match name.as_str() {
            "ttl" if is_put => set_once(&mut life, ttl(&value)?, "ttl")?,
            "confirmedBy" => set_once(&mut peers, peer_count(&value)?, "confirmedBy")?,
            "timeout" => set_once(&mut wait, duration("timeout", &value)?, "timeout")?,
            _ if is_put => return Err(unknown(&name, "ttl, confirmedBy and timeout")),
            _ => return Err(unknown(&name, "confirmedBy and timeout")),
        }
    }
    match (peers, wait) {
        (None, Some(_)) => {
            Err(Error::bad_request("timeout goes with confirmedBy alone: it is how long peers are waited for"))
        }
        (peers, wait) => {
            let confirmed_by = peers.map(|peers| (peers, wait.unwrap_or(CONFIRMATION_WAIT)));
            Ok(Wanted { ttl: life, confirmed_by })
        }
    }
}

/// How long members are waited for where the caller does not say.
const SITE_WAIT: Duration = Duration::from_secs(2);

/// `?timeout=2s` of `/v1/site`.
pub(super) fn site(query: Option<&str>) -> Result<Duration, Error> {
    let mut wait = None;
    for pair in pairs(query) {
        let (name, value) = pair?;
        match name.as_str() {
            "timeout" => set_once(&mut wait, duration("timeout", &value)?, "timeout")?,
            _ => return Err(unknown(&name, "timeout")),
        }
    }
    Ok(wait.unwrap_or(SITE_WAIT))
}

/// How long being in step is waited for where the caller does not say.
const IN_STEP_WAIT: Duration = Duration::from_secs(5);

/// `?sync&timeout=5s` of `/readyz`: how long to wait until the node has caught up with its peers, if at all.
pub(super) fn in_step(query: Option<&str>) -> Result<Option<Duration>, Error> {
    let (mut sync, mut wait) = (None, None);
    for pair in pairs(query) {
        let (name, value) = pair?;
        match name.as_str() {
            "sync" => set_once(&mut sync, flag("sync", &value)?, "sync")?,
            "timeout" => set_once(&mut wait, duration("timeout", &value)?, "timeout")?,
            _ => return Err(unknown(&name, "sync and timeout")),
        }
    }
    match (sync.unwrap_or(false), wait) {
        (false, Some(_)) => {
            Err(Error::bad_request("timeout goes with sync alone: it is how long peers are waited for"))
        }
        (sync, wait) => Ok(sync.then(|| wait.unwrap_or(IN_STEP_WAIT))),
    }
}

fn ttl(value: &str) -> Result<Millis, Error> {
    let seconds = value.parse().ok().filter(|seconds| (1..=TTL_SECONDS_MAX).contains(seconds));
    seconds.map(|seconds: u64| seconds * 1000).ok_or_else(|| {
        Error::bad_request(format!("ttl={value}: seconds to live, a whole number from 1 to {TTL_SECONDS_MAX}"))
    })
}

fn peer_count(value: &str) -> Result<usize, Error> {
    let peers = value.parse().ok().filter(|peers| (1..=MEMBERS_MAX).contains(peers));
    peers.ok_or_else(|| {
        Error::bad_request(format!("confirmedBy={value}: how many peers, a whole number from 1 to {MEMBERS_MAX}"))
    })
}

/// Longest time that a caller may ask to be kept waiting.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// A parameter such as `timeout=5s`: a number with its unit.
pub(super) fn duration(name: &str, value: &str) -> Result<Duration, Error> {
    let duration = humantime::parse_duration(value).ok().filter(|duration| *duration <= TIMEOUT_MAX);
    duration.ok_or_else(|| {
        Error::bad_request(format!("{name}={value}: a time with its unit, as 500ms, 30s or 2m, at most 5m"))
    })
}

/// What a listing asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listing {
    /// A range of keys.
    Range(Query),
    /// These keys, sorted, without doubles, at most [`PAGE_DOCUMENTS_MAX`].
    Keys(Vec<String>),
}

/// `?prefix=&after=&limit=&reverse=` or `?key=a&key=b`.
pub(super) fn listing(query: Option<&str>) -> Result<Listing, Error> {
    const TAKES: &str = "prefix, after, limit and reverse, or key and after";
    let (mut prefix, mut after, mut limit, mut reverse) = (None, None, None, None);
    let mut keys = Vec::new();
    for pair in pairs(query) {
        let (name, value) = pair?;
        match name.as_str() {
            "prefix" if value.len() > KEY_BYTES_MAX => {
                return Err(Error::bad_request(format!("prefix is longer than a key may be ({KEY_BYTES_MAX} bytes)")));
            }
            "prefix" => set_once(&mut prefix, value, "prefix")?,
            // An empty one is what a client has before its first page.
            "after" if value.is_empty() => {}
            "after" => set_once(&mut after, key(value)?, "after")?,
            "limit" => set_once(&mut limit, page_limit(&value)?, "limit")?,
            "reverse" => set_once(&mut reverse, flag("reverse", &value)?, "reverse")?,
            "key" => keys.push(key(value)?),
            _ => return Err(unknown(&name, TAKES)),
        }
    }
    if keys.is_empty() {
        let defaults = Query::default();
        return Ok(Listing::Range(Query {
            prefix: prefix.unwrap_or_default(),
            after,
            limit: limit.unwrap_or(defaults.limit),
            reverse: reverse.unwrap_or(defaults.reverse),
        }));
    }
    if prefix.is_some() || limit.is_some() || reverse.is_some() {
        return Err(Error::bad_request("key does not go with prefix, limit or reverse"));
    }
    keys.sort_unstable();
    keys.dedup();
    if keys.len() > PAGE_DOCUMENTS_MAX {
        return Err(Error::bad_request(format!("{} keys: at most {PAGE_DOCUMENTS_MAX} in one request", keys.len())));
    }
    keys.retain(|key| after.as_ref().is_none_or(|after| key > after));
    Ok(Listing::Keys(keys))
}

pub(super) fn page_limit(value: &str) -> Result<usize, Error> {
    let limit = value.parse().ok().filter(|limit| (1..=PAGE_DOCUMENTS_MAX).contains(limit));
    limit.ok_or_else(|| Error::bad_request(format!("limit={value}: a whole number from 1 to {PAGE_DOCUMENTS_MAX}")))
}

fn flag(name: &str, value: &str) -> Result<bool, Error> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(Error::bad_request(format!("{name}={other}: true or false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn document(path: &str) -> Result<(String, String), Option<&'static str>> {
        match Route::parse(path) {
            Ok(Route::Document { collection, key }) => Ok((collection, key)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.kind()),
        }
    }

    #[test]
    fn collections_and_keys_are_percent_decoded() {
        let path = |key: &str| document(&format!("/v1/collections/c/documents/{key}")).map(|(_, key)| key);
        assert_eq!(path("a%20b%2Fc+d").unwrap(), "a b/c+d", "a plus is a plus in a path");
        assert_eq!(path("%E2%82%ac").unwrap(), "€");
        assert_eq!(path("%25").unwrap(), "%");
        assert_eq!(path("%00").unwrap(), "\0");
        assert_eq!(path("%2E%2E").unwrap(), "..");
        assert_eq!(path("2010%2F01%2F01%2000:00:00").unwrap(), "2010/01/01 00:00:00");
        for broken in ["%", "%2", "%zz", "a%", "%FF", "%C3", "%ed%a0%80", ""] {
            assert_eq!(path(broken), Err(Some("BadRequest")), "{broken}");
        }
        assert_eq!(path("a/b"), Err(Some("NoSuchRoute")));
    }

    #[test]
    fn names_are_bounded_in_bytes() {
        let of = |collection: usize, key: usize| {
            document(&format!("/v1/collections/{}/documents/{}", "c".repeat(collection), "k".repeat(key)))
        };
        assert!(of(COLLECTION_BYTES_MAX, KEY_BYTES_MAX).is_ok());
        assert_eq!(of(COLLECTION_BYTES_MAX + 1, 1), Err(Some("BadRequest")));
        assert_eq!(of(1, KEY_BYTES_MAX + 1), Err(Some("BadRequest")));
        assert_eq!(of(0, 1), Err(Some("BadRequest")));
    }

    #[test]
    fn what_is_no_route_is_said_to_be_none() {
        for path in [
            "/",
            "",
            "*",
            "/v1",
            "/v2/status",
            "/v1/status/",
            "/V1/status",
            "/health/x",
            "//health",
            "/v1/collections/",
        ] {
            assert_eq!(Route::parse(path).unwrap_err().kind(), Some("NoSuchRoute"), "{path}");
        }
    }

    #[test]
    fn a_listing_says_what_it_wants_once() {
        let query = |text| listing(Some(text));
        let Ok(Listing::Range(range)) = query("prefix=a%2F&after=a%2Fb+c&limit=1000&reverse") else { panic!() };
        let expected = Query { prefix: "a/".into(), after: Some("a/b c".into()), limit: 1000, reverse: true };
        assert_eq!(range, expected);
        assert_eq!(query("key=b&key=a&key=b").unwrap(), Listing::Keys(vec!["a".into(), "b".into()]));
        assert_eq!(query("key=b&key=a&after=a").unwrap(), Listing::Keys(vec!["b".into()]));
        assert_eq!(query("after=").unwrap(), Listing::Range(Query::default()));
        for wrong in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "limit=-1",
            "reverse=maybe",
            "limt=3",
            "prefix=a&prefix=b",
            "key=",
            "key=a&limit=1",
            "prefix=%zz",
            "limit=18446744073709551617",
        ] {
            assert_eq!(query(wrong).unwrap_err().kind(), Some("BadRequest"), "{wrong}");
        }
    }

    #[test]
    fn a_time_to_live_is_a_positive_number_of_seconds() {
        let ttl = |query: &str| wanted(Some(query), true).map(|wanted| wanted.ttl);
        assert_eq!(wanted(None, true).unwrap(), Wanted::default());
        assert_eq!(ttl("ttl=60").unwrap(), Some(60_000));
        for wrong in ["ttl=0", "ttl=", "ttl=1.5", "ttl=-1", "ttl=99999999999", "ttl=1&ttl=2", "tll=1"] {
            assert!(ttl(wrong).is_err(), "{wrong}");
        }
        assert!(wanted(Some("ttl=60"), false).is_err(), "what is deleted does not live");
    }

    #[test]
    fn being_in_step_is_waited_for_where_it_is_asked() {
        assert_eq!(in_step(None).unwrap(), None);
        assert_eq!(in_step(Some("sync=false")).unwrap(), None);
        assert_eq!(in_step(Some("sync")).unwrap(), Some(IN_STEP_WAIT));
        assert_eq!(in_step(Some("sync=true&timeout=1m")).unwrap(), Some(Duration::from_secs(60)));
        for wrong in ["sync=maybe", "timeout=1s", "sync&timeout=soon", "sync&sync", "synced"] {
            assert_eq!(in_step(Some(wrong)).unwrap_err().kind(), Some("BadRequest"), "{wrong}");
        }
    }

    #[test]
    fn confirmations_are_asked_for_by_number_and_bounded_in_time() {
        let asked = |query: &str| wanted(Some(query), false).map(|wanted| wanted.confirmed_by);
        assert_eq!(asked("confirmedBy=2").unwrap(), Some((2, CONFIRMATION_WAIT)));
        assert_eq!(asked("timeout=250ms&confirmedBy=256").unwrap(), Some((256, Duration::from_millis(250))));
        for wrong in [
            "confirmedBy=0",
            "confirmedBy=257",
            "confirmedBy=",
            "confirmedBy=all",
            "confirmedBy=-1",
            "confirmedBy=1&confirmedBy=1",
            "confirmedBy=1&timeout=5",
            "confirmedBy=1&timeout=6m",
            "timeout=5s",
            "confirmedby=1",
        ] {
            assert_eq!(asked(wrong).unwrap_err().kind(), Some("BadRequest"), "{wrong}");
        }
    }
}
