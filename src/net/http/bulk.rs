//! Many writes in one request: lines read as they come, written in groups, answered once all are on disk.
//!
//! Memory is bounded by two groups: one being written, one being read. There is no bound on the body.

use super::answer::{Answer, json_response};
use super::body::BodyReader;
use super::documents::not_encoded;
use super::handle::Shared;
use super::lines::{LINE_BYTES_MAX, Line, Lines};
use super::{Service, problem};
use crate::document::WriteOp;
use crate::error::{Error, RequestKind};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::Serialize;
use smol::future::zip;
use std::string::{String, ToString};
use std::vec::Vec;

/// Lines that failed and are reported one by one; all are counted.
pub(super) const ERRORS_MAX: usize = 1000;
/// Characters of one reported detail.
const DETAIL_CHARS_MAX: usize = 300;
/// Writes in one group: one transaction of the store, which others wait for.
const GROUP_WRITES_MAX: usize = 2048;
/// A group is full at so many bytes; one line may go beyond.
const GROUP_BYTES_TARGET: usize = 512 * 1024;

/// The answer.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    /// Lines that are on disk.
    successful: u64,
    /// Lines that are not.
    failed: u64,
    /// The first of these.
    errors: Vec<LineError>,
    /// How many more there were.
    #[serde(skip_serializing_if = "is_zero")]
    errors_omitted: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Debug, Serialize)]
struct LineError {
    line: u64,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    detail: String,
}

/// The answer where the store gave up in between: the error, and what had been done before.
#[derive(Debug, Serialize)]
struct Stopped<'a> {
    #[serde(flatten)]
    problem: problem::Problem,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

impl Outcome {
    fn fail(&mut self, line: u64, error: &Error) {
        self.failed += 1;
        if self.errors.len() >= ERRORS_MAX {
            self.errors_omitted += 1;
            return;
        }
        let detail = problem::detail(error).chars().take(DETAIL_CHARS_MAX).collect();
        self.errors.push(LineError { line, code: error.code(), kind: error.kind(), detail });
    }
}

/// Writes that wait for their group, and the lines that they came from.
#[derive(Debug, Default)]
struct Group {
    lines: Vec<u64>,
    ops: Vec<WriteOp>,
    bytes: usize,
}

impl Group {
    fn is_full(&self) -> bool {
        self.ops.len() >= GROUP_WRITES_MAX || self.bytes >= GROUP_BYTES_TARGET
    }
}

pub(super) async fn post<S: Service>(
    shared: &Shared<S>,
    head: &Parts,
    body: &mut BodyReader,
    collection: &str,
) -> Result<Response<Answer>, Error> {
    super::route::no_query(head.uri.query())?;
    media_type(head)?;
    not_encoded(&head.headers)?;
    let _share = shared.bulk_share(2 * (GROUP_BYTES_TARGET + LINE_BYTES_MAX)).await?;
    let mut reader = Reader { body, lines: Lines::default(), piece: Bytes::new(), ended: false, broke: None };
    let mut outcome = Outcome::default();
    let result = copy(shared, &mut reader, collection, &mut outcome).await;
    outcome.errors.sort_by_key(|error| error.line);
    Ok(match result {
        Ok(()) => json_response(StatusCode::OK, &outcome),
        Err(error) => stopped(&error, &outcome),
    })
}

fn stopped(error: &Error, outcome: &Outcome) -> Response<Answer> {
    let mut response = problem::response(error);
    let body = Stopped { problem: problem::Problem::of(error), outcome };
    *response.body_mut() = json_response(StatusCode::OK, &body).into_body();
    response
}

/// While one group is being written, the next is read.
async fn copy<S: Service>(
    shared: &Shared<S>,
    reader: &mut Reader<'_>,
    collection: &str,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let mut group = reader.fill(collection, outcome).await;
    loop {
        let Group { lines, ops, .. } = group;
        if ops.is_empty() {
            return reader.broke.take().map_or(Ok(()), Err);
        }
        let write = shared.timed("store the lines", shared.service.write(ops));
        let mut read_errors = Outcome::default();
        let (results, next) = zip(write, reader.fill(collection, &mut read_errors)).await;
        // The client waited for us, not we for it.
        reader.body.restart_timer();
        let written = match results {
            Ok(results) => {
                settle(&lines, results, outcome);
                Ok(())
            }
            Err(error) => {
                lines.iter().for_each(|line| outcome.fail(*line, &error));
                Err(error)
            }
        };
        outcome.absorb(read_errors);
        if let Err(error) = written {
            // What was read meanwhile is not written any more: the store would fail for each group anew.
            next.lines.iter().for_each(|line| outcome.fail(*line, &error));
            return Err(error);
        }
        group = next;
    }
}

fn settle(lines: &[u64], results: Vec<Result<crate::document::Stored, Error>>, outcome: &mut Outcome) {
    let mut results = results.into_iter();
    for line in lines {
        match results.next() {
            Some(Ok(_)) => outcome.successful += 1,
            Some(Err(error)) => outcome.fail(*line, &error),
            None => outcome.fail(*line, &Error::persistence("the store gave no result for this line", None)),
        }
    }
}

impl Outcome {
    fn absorb(&mut self, other: Outcome) {
        self.failed += other.failed;
        self.errors_omitted += other.errors_omitted;
        for error in other.errors {
            if self.errors.len() < ERRORS_MAX { self.errors.push(error) } else { self.errors_omitted += 1 }
        }
    }
}

struct Reader<'a> {
    body: &'a mut BodyReader,
    lines: Lines,
    piece: Bytes,
    ended: bool,
    /// Why the body ended before its time. What came whole is written before that is reported.
    broke: Option<Error>,
}

impl Reader<'_> {
    /// Reads until the group is full or the body ends. Lines that are wrong fail here and go no further.
    async fn fill(&mut self, collection: &str, outcome: &mut Outcome) -> Group {
        let mut group = Group::default();
        while !self.ended && !group.is_full() {
            if self.piece.is_empty() {
                match self.body.next().await {
                    Ok(Some(piece)) => self.piece = piece,
                    Ok(None) => {
                        self.ended = true;
                        if let Some(line) = self.lines.finish() {
                            group.add(&line, collection, outcome);
                        }
                    }
                    Err(error) => {
                        self.ended = true;
                        self.broke = Some(error);
                    }
                }
            }
            let mut rest: &[u8] = &self.piece;
            while !group.is_full()
                && let Some(line) = self.lines.next(&mut rest)
            {
                group.add(&line, collection, outcome);
            }
            let used = self.piece.len() - rest.len();
            self.piece = self.piece.slice(used..);
        }
        group
    }
}

impl Group {
    fn add(&mut self, line: &Line, collection: &str, outcome: &mut Outcome) {
        match line.write(collection) {
            Ok(op) => {
                self.bytes += op.key.len() + op.value.as_ref().map_or(0, Vec::len);
                self.lines.push(line.number);
                self.ops.push(op);
            }
            Err(error) => outcome.fail(line.number, &error),
        }
    }
}

fn media_type(head: &Parts) -> Result<(), Error> {
    let given = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if ["application/x-ndjson", "application/ndjson"].iter().any(|taken| essence.eq_ignore_ascii_case(taken)) {
        return Ok(());
    }
    Err(Error::Request {
        kind: RequestKind::UnsupportedMediaType,
        message: "send lines of JSON as Content-Type: application/x-ndjson".to_string(),
    })
}
