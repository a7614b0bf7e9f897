//! The change feed of a service in memory: pages, events, and who has a place.

use super::super::HttpOptions;
use super::bench::{Bench, Client, with_server};
use smol::Timer;
use smol::io::AsyncReadExt;
use std::future::Future;
use std::string::String;
use std::time::Duration;

fn with_places<F: Future<Output = ()>>(feeds_max: usize, test: impl FnOnce(Bench) -> F) {
    let feed_keep_alive = Duration::from_millis(50);
    with_server(HttpOptions { feeds_max, feed_keep_alive, ..HttpOptions::default() }, test);
}

async fn put(bench: &Bench, key: &str, value: &str) {
    let path = std::format!("/v1/collections/c/documents/{key}");
    assert_eq!(bench.put(&path, value).await.status, 201);
}

async fn open(bench: &Bench, headers: &str) -> Client {
    let mut client = bench.client().await;
    let head = "GET /v1/changes HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/html, Text/Event-Stream;q=0.9\r\n";
    client.send(std::format!("{head}{headers}\r\n")).await;
    client
}

/// What has come when `until` has come.
async fn text(client: &mut Client, until: &str) -> String {
    let mut text = String::new();
    while !text.contains(until) {
        let mut piece = [0; 4096];
        let read = client.stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "{text}");
        text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    text
}

#[test]
fn events_keep_their_lines_their_ids_and_the_connection_alive() {
    with_places(2, |bench| async move {
        put(&bench, "a", "{\n \"x\":\r1}").await;
        put(&bench, "b", "null").await;
        let mut client = open(&bench, "").await;
        let text = text(&mut client, "keep-alive").await;
        assert!(text.contains("content-type: text/event-stream\r\n") && text.contains("transfer-encoding: chunked"));
        let version = "\"version\":\"0000000000000001-0000000000000007\"";
        let first = std::format!(
            "id: 1\ndata: {{\"collection\":\"c\",\"key\":\"a\",{version},\"value\":{{\ndata:  \"x\":\ndata: 1}}}}\n\n"
        );
        assert!(text.contains(&first), "{text}");
        assert!(text.contains("id: 2\ndata: {") && text.contains(",\"deleted\":true}\n\n"), "{text}");
        assert!(text.contains(": keep-alive\nid: 2\n\n"), "{text}");
    });
}

#[test]
fn an_error_has_its_status_first_and_is_the_last_event_later() {
    with_places(2, |bench| async move {
        let refused = open(&bench, "Last-Event-ID: nonsense\r\n").await.reply(false).await.unwrap();
        refused.is(410, "SYNC_ERROR", "TokenExpired");
        let mut client = open(&bench, "").await;
        text(&mut client, "keep-alive").await;
        bench.service.feed_error.set(true);
        let said = text(&mut client, "0\r\n\r\n").await;
        assert!(said.contains("event: error\ndata: {") && said.contains("\"code\":\"PERSISTENCE_ERROR\""), "{said}");
    });
}

#[test]
fn a_reader_that_has_waited_gives_way_and_a_stream_does_not() {
    with_places(2, |bench| async move {
        let mut stream = open(&bench, "").await;
        text(&mut stream, "keep-alive").await;
        let mut waiting = bench.client().await;
        waiting.send("GET /v1/changes?timeout=1m HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        // Nobody has waited long enough yet.
        while bench.get("/v1/changes?timeout=0s").await.status != 429 {
            Timer::after(Duration::from_millis(1)).await;
        }
        let late = async {
            while bench.get("/v1/changes?timeout=0s").await.status == 429 {
                Timer::after(Duration::from_millis(20)).await;
            }
        };
        late.await;
        let told = waiting.reply(false).await.unwrap();
        assert_eq!((told.status, &told.json()["changes"]), (200, &serde_json::json!([])));
        text(&mut stream, "keep-alive").await;
    });
}
