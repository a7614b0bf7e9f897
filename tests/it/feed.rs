//! The change feed as programs on the gateway read it: long polls, server-sent events, the command line.

use crate::client::document;
use crate::process::{Node, copy_folder, patience, wait};
use crate::program::{self, seconds};
use cbddc::replica::{Feed, FeedPage, Precondition, Request, Since, Write as RowWrite};
use cbddc::row::{Body, RowKey};
use cbddc::store::{Options, Store};
use cbddc::time::Reading;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

/// `collection/key=value`, or `collection/key` where it was deleted.
fn shown(change: &Value) -> String {
    let name = format!("{}/{}", change["collection"].as_str().unwrap(), change["key"].as_str().unwrap());
    assert!(change["version"].as_str().is_some_and(|version| !version.is_empty()), "{change}");
    match change.get("value") {
        Some(value) => format!("{name}={value}"),
        None => {
            assert_eq!(change["deleted"], true, "{change}");
            name
        }
    }
}

/// One page: its changes and its token.
fn changes(node: &Node, query: &str) -> (Vec<String>, String) {
    let page = node.ask("GET", &format!("/v1/changes?{query}"), &[], b"").expect(200).json();
    let changes = page["changes"].as_array().unwrap().iter().map(shown).collect();
    (changes, page["next"].as_str().unwrap().to_string())
}

fn problem(node: &Node, token: &str) -> (u16, String) {
    let answer = node.ask("GET", &format!("/v1/changes?timeout=0s&since={token}"), &[], b"");
    (answer.status, answer.problem())
}

/// A stream of server-sent events, without its chunks.
struct Events {
    stream: BufReader<TcpStream>,
    chunk: usize,
}

impl Events {
    fn open(node: &Node, query: &str, last: Option<&str>) -> Events {
        let mut stream = node.dial(node.http());
        stream.set_read_timeout(Some(seconds(40))).unwrap();
        let last = last.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
        let head = format!("GET /v1/changes?{query} HTTP/1.1\r\nHost: {}\r\n", node.http());
        stream.write_all(format!("{head}Accept: text/event-stream\r\n{last}\r\n").as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
        Events { stream, chunk: 0 }
    }
    /// The next line; `None` where the stream has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            if self.chunk == 0 {
                let mut size = String::new();
                self.stream.read_line(&mut size).unwrap();
                self.chunk = usize::from_str_radix(size.trim(), 16).unwrap();
                if self.chunk == 0 {
                    return None;
                }
            }
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
            self.chunk -= 1;
            if self.chunk == 0 {
                self.stream.read_exact(&mut [0; 2]).unwrap();
            }
        }
        line.pop();
        Some(String::from_utf8(line).unwrap())
    }
    /// The next event with data, and its id. What keeps the stream alive is no event, and does not let a test wait for ever.
    fn event(&mut self) -> Option<(String, String)> {
        let (mut id, mut data) = (String::new(), Vec::new());
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < 2 * patience(), "no event came");
            let line = self.line()?;
            match line.split_once(": ").unwrap_or((&line, "")) {
                ("id", value) => id = value.to_string(),
                ("data", value) => data.push(value.to_string()),
                ("", "") if !data.is_empty() => {
                    return Some((shown(&serde_json::from_str(&data.join("\n")).unwrap()), id));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_reader_goes_on_from_any_token_and_sees_what_each_document_is_now() {
    let node = Node::new("feed").set("Collections__scratch__Scope", "local").started();
    assert_eq!(changes(&node, "timeout=0s").0, Vec::<String>::new());
    for (collection, key, value) in [("a", "1", "1"), ("b", "1", "{\"x\":1.5}"), ("a", "2", "2"), ("scratch", "1", "3")]
    {
        node.put(collection, key, value).expect(201);
    }
    let (all, next) = changes(&node, "");
    assert_eq!(all, ["a/1=1", "b/1={\"x\":1.5}", "a/2=2", "scratch/1=3"]);
    node.put("a", "1", "4").expect(200);
    node.delete("a", "2").expect(204);
    node.delete("scratch", "1").expect(204);
    let (news, last) = changes(&node, &format!("since={next}"));
    assert_eq!(news, ["a/1=4", "a/2", "scratch/1"]);
    // In pages of one, from the start: what has changed since has moved, and comes once.
    let (mut pages, mut since) = (Vec::new(), String::new());
    loop {
        let (page, next) = changes(&node, &format!("since={since}&limit=1&timeout=0s"));
        if page.is_empty() {
            break;
        }
        assert_eq!(page.len(), 1);
        pages.extend(page);
        since = next;
    }
    assert_eq!(pages, ["b/1={\"x\":1.5}", "a/1=4", "a/2", "scratch/1"]);
    assert_eq!(changes(&node, "collection=a&timeout=0s").0, ["a/1=4", "a/2"]);
    assert_eq!(changes(&node, &format!("since={last}&timeout=0s")), (Vec::new(), last.clone()));
    // `now` is the end, whatever it is.
    let (none, now) = changes(&node, "since=now&timeout=0s");
    assert!(none.is_empty());
    node.put("a", "3", "5").expect(201);
    assert_eq!(changes(&node, &format!("since={now}")).0, ["a/3=5"]);
    for wrong in
        ["limit=0", "limit=1001", "timeout=30", "timeout=6m", "since=x", "since=1&since=2", "snce=1", "collection="]
    {
        let answer = node.ask("GET", &format!("/v1/changes?{wrong}"), &[], b"").expect(400);
        assert_eq!(answer.problem(), "REQUEST_ERROR/BadRequest", "{wrong}");
    }
}

#[test]
fn a_reader_that_waits_hears_of_a_change_here_and_on_a_peer() {
    let one = Node::new("feed-one").started();
    let two = Node::new("feed-two").peers(&[&one]).started();
    let (_, since) = changes(&one, "since=now&timeout=0s");
    let waits = |since: &str| {
        let (mut connection, path) = (one.connect(), format!("/v1/changes?since={since}&timeout=30s"));
        thread::spawn(move || connection.ask("GET", &path, &[], b"").unwrap().expect(200).json())
    };
    let waiting = waits(&since);
    one.put("c", "here", "1").expect(201);
    let page = waiting.join().unwrap();
    assert_eq!(shown(&page["changes"][0]), "c/here=1");
    let waiting = waits(page["next"].as_str().unwrap());
    two.put("c", "there", "2").expect(201);
    let page = waiting.join().unwrap();
    assert_eq!(shown(&page["changes"][0]), "c/there=2", "the records about members are not in it");
}

#[test]
fn events_come_as_they_happen_and_go_on_after_the_last_one_that_was_seen() {
    let mut node = Node::new("feed-events").started();
    node.put("c", "1", "{\n \"a\": 1,\r\n \"b\": 2 }").expect(201);
    let mut events = Events::open(&node, "", None);
    assert_eq!(events.event().unwrap().0, "c/1={\"a\":1,\"b\":2}");
    node.put("c", "2", "2").expect(201);
    let (second, id) = events.event().unwrap();
    assert_eq!(second, "c/2=2");
    node.put("c", "3", "3").expect(201);
    node.delete("c", "1").expect(204);
    assert_eq!(events.event().unwrap().0, "c/3=3");
    drop(events);
    // The token of the event counts, not the address that the stream was opened with.
    let mut events = Events::open(&node, "since=now", Some(&id));
    let news: BTreeMap<String, String> = (0..2).map(|_| events.event().unwrap()).collect();
    assert_eq!(news.keys().collect::<Vec<_>>(), ["c/1", "c/3=3"]);
    // An open stream and a waiting reader do not hold up the stop of the node.
    let mut waiting = node.connect();
    waiting.send("GET", "/v1/changes?since=now&timeout=5m", &[], b"").unwrap();
    let (code, took) = node.stop();
    assert_eq!(code, Some(0));
    assert!(took < seconds(4), "{took:?}");
    assert_eq!(events.event(), None, "the stream ended whole");
    assert_eq!(waiting.receive(false).unwrap().expect(200).json()["changes"].as_array().unwrap().len(), 0);
}

#[test]
fn a_token_of_another_node_or_from_the_future_is_refused_and_never_silent() {
    let mut node = Node::new("feed-tokens").started();
    let other = Node::new("feed-other").started();
    other.put("c", "1", "1").expect(201);
    let (_, of_other) = changes(&other, "");
    assert_eq!(problem(&node, &of_other), (410, "SYNC_ERROR/TokenExpired".into()));
    node.put("c", "1", "1").expect(201);
    let (_, early) = changes(&node, "");
    node.stop_cleanly();
    let copy = node.path("copy");
    copy_folder(&node.path("data"), &copy);
    node.start();
    assert_eq!(changes(&node, &format!("since={early}&timeout=0s")).0, Vec::<String>::new(), "a restart ends no token");
    node.put("c", "2", "2").expect(201);
    let (_, late) = changes(&node, "");
    let forged = |position: &str| {
        let parts: Vec<&str> = early.split('.').collect();
        format!("{}.{}.{position}.0", parts[0], parts[1])
    };
    assert_eq!(problem(&node, &forged("ffffffffffffffff")), (410, "SYNC_ERROR/TokenExpired".into()));
    for malformed in ["x", "1.2.3", &format!("{early}.1"), &early.replace('.', "-"), "%20", "-1.0.0.0"] {
        assert_eq!(problem(&node, malformed), (400, "REQUEST_ERROR/BadRequest".into()), "{malformed}");
    }
    // The card is set back to the copy: what the reader has is more than there is, and a new write is not missed.
    node.stop_cleanly();
    std::fs::remove_dir_all(node.path("data")).unwrap();
    copy_folder(&copy, &node.path("data"));
    node.start();
    node.put("c", "3", "3").expect(201);
    assert_eq!(problem(&node, &late), (410, "SYNC_ERROR/TokenExpired".into()));
    assert_eq!(changes(&node, &format!("since={early}")).0, ["c/3=3"], "from before the copy it goes on");
}

/// A tombstone is dropped after a day at the earliest, so the database is made as of long ago, when the reader last asked.
#[test]
fn a_reader_that_was_away_until_a_delete_was_forgotten_is_told_to_begin_again() {
    const LONG_AGO: Reading = Reading { millis: 1_600_000_000_000, believed: true };
    let mut node = Node::new("feed-expired");
    let mut random = fastrand::Rng::with_seed(1);
    let options = Options { min_free_bytes: 0, ..Options::new(node.path("data/cbddc.db")) };
    let (store, _) = Store::open(options, &mut || random.u64(..)).unwrap();
    let write = |key: &str, body: Body| {
        let write =
            RowWrite { key: RowKey::replicated("c", key), body, expires_at: None, precondition: Precondition::None };
        smol::block_on(store.submit(LONG_AGO, Request::Write { writes: vec![write], sending: false })).unwrap();
    };
    let token = || {
        let feed = Feed { since: Since::Start, collection: None, limit: 10 };
        let FeedPage::Rows { next, .. } = smol::block_on(store.feed(feed)).unwrap() else { panic!("stale") };
        next.to_string()
    };
    write("kept", Body::Live(b"1".to_vec()));
    write("gone", Body::Live(b"2".to_vec()));
    let before = token();
    write("gone", Body::Tombstone);
    let after = token();
    smol::block_on(store.close()).unwrap();
    node.start();
    let resume = || node.ask("GET", &format!("/v1/changes?timeout=0s&since={before}"), &[], b"");
    wait("the delete is forgotten", || (resume().status == 410).then_some(()));
    assert_eq!(resume().problem(), "SYNC_ERROR/TokenExpired");
    assert!(resume().text().contains("begin again"), "{}", resume().text());
    let refused = node.cli(&["changes", "--since", &before]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).starts_with("error[SYNC_ERROR]: "));
    // Who has seen the delete goes on, and who begins again has what there is.
    assert_eq!(changes(&node, &format!("timeout=0s&since={after}")).0, Vec::<String>::new());
    assert_eq!(changes(&node, "").0, ["c/kept=1"]);
}

#[test]
fn a_reader_that_takes_nothing_costs_nobody_else() {
    let node = Node::new("feed-slow").started();
    let mut asleep: Vec<Events> = (0..8).map(|_| Events::open(&node, "", None)).collect();
    let value = format!("\"{}\"", "x".repeat(200_000));
    let mut awake = Events::open(&node, "", None);
    let began = Instant::now();
    for n in 0..60 {
        node.put("c", &n.to_string(), &value).expect(201);
        assert!(awake.event().unwrap().0.starts_with(&format!("c/{n}=")));
    }
    assert!(began.elapsed() < seconds(20), "{:?}", began.elapsed());
    // Twelve megabytes were written: a sleeper holds a page and the buffers of its connection, not those.
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process().as_raw_nonzero())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(program::emulated() || kib < 110_000, "{kib} KiB");
    // And it gets everything once it wakes.
    let sleeper = asleep.first_mut().unwrap();
    for n in 0..60 {
        assert!(sleeper.event().unwrap().0.starts_with(&format!("c/{n}=")));
    }
    node.still_serves();
}

#[test]
fn more_readers_than_places_are_told_so() {
    let node = Node::new("feed-many").started();
    let held: Vec<Events> = (0..16).map(|_| Events::open(&node, "", None)).collect();
    let refused = node.ask("GET", "/v1/changes", &[], b"").expect(429);
    assert_eq!(refused.problem(), "REQUEST_ERROR/TooManyRequests");
    assert_eq!(refused.header("retry-after"), Some("1"));
    node.put("c", "1", "1").expect(201);
    drop(held);
    // A connection that is gone is noticed when something is written to it.
    wait("a place is free", || {
        node.put("c", "1", "1").expect(200);
        (node.ask("GET", "/v1/changes", &[], b"").status == 200).then_some(())
    });
}

#[test]
fn the_command_line_prints_the_feed_and_goes_on_with_its_last_line() {
    let node = Node::new("feed-cli").started();
    node.put("a", "1", "{\n\"x\": 1 }").expect(201);
    node.put("b", "1", "2").expect(201);
    let lines = |arguments: &[&str]| -> Vec<Value> {
        let said = String::from_utf8(node.says(arguments)).unwrap();
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines(&["changes"]);
    assert_eq!((shown(&all[0]), shown(&all[1]), all.len()), ("a/1={\"x\":1}".into(), "b/1=2".into(), 3));
    let token = all[2]["next"].as_str().unwrap().to_string();
    assert_eq!(lines(&["changes", "--since", &token]).len(), 1);
    node.ask("DELETE", &document("a", "1"), &[], b"").expect(204);
    node.put("b", "2", "3").expect(201);
    let news = lines(&["changes", "a", "--since", &token]);
    assert_eq!((shown(&news[0]), news.len()), ("a/1".into(), 2));
    let wrong = node.cli(&["changes", "--since", "x"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).starts_with("error[REQUEST_ERROR]: since is not a token"));
    // Followed: a change is printed when it comes.
    let mut follow = node.spawned(&["changes", "--follow", "--since", &token]);
    let mut said = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut line = || serde_json::from_str::<Value>(&said.next().unwrap().unwrap()).unwrap();
    assert_eq!((shown(&line()), shown(&line())), ("a/1".into(), "b/2=3".into()));
    assert!(line()["next"].is_string());
    node.put("b", "3", "4").expect(201);
    assert_eq!(shown(&line()), "b/3=4");
    follow.kill().unwrap();
    follow.wait().unwrap();
}
