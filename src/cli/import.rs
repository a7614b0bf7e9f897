//! `import`: a file into a collection, in groups, with a progress bar, and an account of every line at the end.
//!
//! Several groups are under way at once, but never two that hold the same key: of two lines for one key the later wins,
//! as in the file.

mod account;

use super::api::Api;
use super::args;
use super::documents::documents_path;
use super::rows::{self, Numbered, Row, Rows};
use super::{DONE, FAILED, say};
use crate::Error;
use account::{Account, Told};
use hyper::Method;
use hyper::body::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use smol::Timer;
use std::boxed::Box;
use std::collections::{HashSet, VecDeque};
use std::format;
use std::future::{Future, poll_fn};
use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::string::String;
use std::task::Poll;
use std::time::Duration;
use std::vec::Vec;

/// Lines in one request. Each request is acknowledged by itself.
const GROUP_LINES_MAX: usize = 1000;
/// Bytes in one request; one line may go beyond.
const GROUP_BYTES_TARGET: usize = 512 * 1024;
/// Requests under way at once.
const UNDER_WAY_MAX: usize = 4;
/// Times that a group is sent again when the node is too busy to begin with it.
const BUSY_RETRIES: u32 = 10;
const BUSY_DELAY: Duration = Duration::from_secs(1);

/// Imports a file and says what became of its lines: exit code 1 where one was not stored.
pub(super) async fn run(api: &Api, wanted: &args::Import, json: bool) -> Result<u8, Error> {
    let path = documents_path(&wanted.collection)?;
    let bar = progress_bar(wanted);
    let rows = rows::open(&wanted.file, wanted.key.as_deref(), {
        let bar = bar.clone();
        move |bytes| bar.inc(bytes)
    })?;
    // While stdin makes us wait, nothing else moves, so nothing else is under way then.
    let under_way_max = if wanted.file.as_os_str() == "-" { 1 } else { UNDER_WAY_MAX };
    let mut account = Account::default();
    let result = copy(api, &path, rows, under_way_max, &mut account).await;
    bar.finish_and_clear();
    if json {
        say(&format!("{}\n", account.json()))?;
    } else {
        account.say_failures();
        say(&account.summary())?;
    }
    result.map_err(|error| account.explain(error))?;
    Ok(if account.failed == 0 { DONE } else { FAILED })
}

fn progress_bar(wanted: &args::Import) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let length = std::fs::metadata(&wanted.file).ok().filter(|file| file.is_file()).map(|file| file.len());
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    if let (Ok(style), Some(_)) = (style, length) { bar.with_style(style) } else { bar }
}

/// Lines that travel in one request.
#[derive(Debug, Default)]
struct Group {
    /// Where each line of the body is in the file.
    lines: Vec<u64>,
    keys: HashSet<String>,
    body: Vec<u8>,
}

impl Group {
    fn is_full(&self) -> bool {
        self.lines.len() >= GROUP_LINES_MAX || self.body.len() >= GROUP_BYTES_TARGET
    }

    fn add(&mut self, line: u64, row: Row) -> Result<(), Error> {
        self.lines.push(line);
        match row {
            Row::Line { key, line } => {
                self.body.extend_from_slice(&line);
                self.keys.insert(key);
            }
            Row::Put { key, document } => {
                self.body.extend_from_slice(b"{\"key\":");
                serde_json::to_writer(&mut self.body, &key)
                    .map_err(|error| Error::persistence("a key cannot be written", Some(error.into())))?;
                self.body.extend_from_slice(b",\"value\":");
                self.body.extend_from_slice(&document);
                self.body.push(b'}');
                self.keys.insert(key);
            }
        }
        self.body.push(b'\n');
        Ok(())
    }

    /// Reads until it is full or the file ends. A file that breaks off keeps what was read before.
    fn fill(rows: &mut dyn Rows, account: &mut Account) -> (Group, Result<bool, Error>) {
        let mut group = Group::default();
        while !group.is_full() {
            match rows.next() {
                Ok(None) => return (group, Ok(false)),
                Ok(Some(Numbered { line, row })) => {
                    if let Err(error) = row.and_then(|row| group.add(line, row)) {
                        account.fail(line, &error);
                    }
                }
                Err(error) => return (group, Err(error)),
            }
        }
        (group, Ok(true))
    }
}

type Answer = Result<Told, Error>;

struct Flight<'a> {
    lines: Vec<u64>,
    keys: HashSet<String>,
    sending: Pin<Box<dyn Future<Output = Answer> + 'a>>,
    answer: Option<Answer>,
}

async fn copy(
    api: &Api,
    path: &str,
    mut rows: Box<dyn Rows>,
    under_way_max: usize,
    account: &mut Account,
) -> Result<(), Error> {
    let mut under_way: VecDeque<Flight<'_>> = VecDeque::new();
    let mut result = Ok(());
    let mut more = true;
    while more && result.is_ok() {
        while under_way.len() >= under_way_max && result.is_ok() {
            result = land(&mut under_way, account).await;
        }
        let (group, read) = Group::fill(&mut *rows, account);
        let shares_a_key = |flight: &Flight<'_>| !flight.keys.is_disjoint(&group.keys);
        while result.is_ok() && under_way.iter().any(shares_a_key) {
            result = land(&mut under_way, account).await;
        }
        if !group.lines.is_empty() && result.is_ok() {
            let Group { lines, keys, body } = group;
            under_way.push_back(Flight { lines, keys, sending: Box::pin(send(api, path, body.into())), answer: None });
            start(&mut under_way).await;
        }
        match read {
            Ok(another) => more = another,
            Err(error) => {
                more = false;
                result = result.and(Err(error));
            }
        }
    }
    // Those under way are waited for after a failure, too: what they stored is stored.
    while !under_way.is_empty() {
        let landed = land(&mut under_way, account).await;
        result = result.and(landed);
    }
    result
}

/// Lets all that is under way move once, so that a new request is on its way while the file is read on.
async fn start(under_way: &mut VecDeque<Flight<'_>>) {
    poll_fn(|cx| {
        poll_all(under_way, cx);
        Poll::Ready(())
    })
    .await;
    smol::future::yield_now().await;
}

fn poll_all(under_way: &mut VecDeque<Flight<'_>>, cx: &mut std::task::Context<'_>) {
    for flight in under_way {
        if flight.answer.is_none()
            && let Poll::Ready(answer) = flight.sending.as_mut().poll(cx)
        {
            flight.answer = Some(answer);
        }
    }
}

/// Waits for the oldest request and books its lines.
async fn land(under_way: &mut VecDeque<Flight<'_>>, account: &mut Account) -> Result<(), Error> {
    let answer = poll_fn(|cx| {
        poll_all(under_way, cx);
        match under_way.front_mut().map(|flight| flight.answer.take()) {
            Some(Some(answer)) => Poll::Ready(Some(answer)),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        }
    })
    .await;
    let (Some(answer), Some(flight)) = (answer, under_way.pop_front()) else { return Ok(()) };
    account.book(&flight.lines, answer)
}

async fn send(api: &Api, path: &str, body: Bytes) -> Answer {
    let mut retries = BUSY_RETRIES;
    loop {
        let reply = api.send(Method::POST, path, Some("application/x-ndjson"), body.clone()).await?;
        if reply.status == hyper::StatusCode::TOO_MANY_REQUESTS && retries > 0 {
            retries -= 1;
            Timer::after(BUSY_DELAY).await;
            continue;
        }
        // An error answer holds an account too, where some lines were stored before it.
        let told = reply.json::<Told>();
        return match (reply.status.is_success(), told) {
            (true, told) => told,
            (false, Ok(told)) => Ok(told.stopped_by(reply.error())),
            (false, Err(_)) => Ok(Told::refused(reply.error())),
        };
    }
}

/// What a line that failed is called in a report.
fn shown(line: u64, code: &str, detail: &str) -> String {
    format!("line {line}: {code}: {}", super::without_control_characters(detail))
}
