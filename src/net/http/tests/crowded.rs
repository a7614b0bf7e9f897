//! All places taken, all memory held: who still gets through, and who is cut off for it.

use super::super::{Bodies, HttpOptions};
use super::bench::{Bench, Client, with_server};
use crate::limits::DOCUMENT_BYTES_MAX;
use smol::io::AsyncWriteExt;
use std::format;
use std::io::Write;
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

const A: &str = "/v1/collections/c/documents/a";

fn few(places: usize) -> HttpOptions {
    HttpOptions { connections_max: places, grace: Duration::from_millis(20), ..HttpOptions::default() }
}

/// So many connections, each in the middle of a body of which no more comes. Each is being served when this returns.
async fn slow_uploads(bench: &Bench, count: usize, head: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = bench.client().await;
        client.send(format!("{head}\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\n\r\n")).await;
        assert_eq!(client.reply(false).await.unwrap().status, 100);
        client.send("[").await;
        clients.push(client);
    }
    clients
}

/// Asks until it is answered so; the test's own time limit ends what never comes.
async fn until(bench: &Bench, method: &str, path: &str, wanted: u16) {
    loop {
        let body: &[u8] = if method == "PUT" { b"1" } else { b"" };
        let mut client = bench.client().await;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n", body.len());
        // One that was closed meanwhile asks again.
        let _ = client.stream.write_all(&[head.as_bytes(), body].concat()).await;
        if client.reply(false).await.is_some_and(|reply| reply.status == wanted) {
            return;
        }
    }
}

#[test]
fn slow_bodies_in_all_places_keep_neither_monitoring_nor_writers_out() {
    with_server(HttpOptions { grace: Duration::from_secs(1), ..few(4) }, |bench| async move {
        let put = format!("PUT {A} HTTP/1.1\r\nContent-Length: 100");
        let mut slow = slow_uploads(&bench, 4, &put).await;
        for path in ["/health", "/livez", "/readyz", "/metrics"] {
            let reply = bench.get(path).await;
            assert_eq!((reply.status, &*reply.headers["connection"]), (200, "close"), "at once");
        }
        bench.put(A, "1").await.is(429, "REQUEST_ERROR", "TooManyRequests");
        assert_eq!(bench.counters.slow.get(), 0);
        until(&bench, "PUT", A, 201).await;
        assert_eq!(bench.counters.slow.get(), 4, "they were cut off for it");
        for client in &mut slow {
            assert!(client.reply(false).await.is_none());
        }
    });
}

#[test]
fn a_slow_body_that_is_in_nobodys_way_is_left_alone() {
    with_server(few(4), |bench| async move {
        let mut slow = slow_uploads(&bench, 3, &format!("PUT {A} HTTP/1.1\r\nContent-Length: 3")).await;
        smol::Timer::after(Duration::from_millis(200)).await;
        for nth in 0..20 {
            assert_eq!(bench.put(&format!("/v1/collections/c/documents/{nth}"), "1").await.status, 201);
        }
        for client in &mut slow {
            client.send("1]").await;
            assert!(client.reply(false).await.unwrap().status < 300);
        }
        assert_eq!(bench.counters.slow.get(), 0);
    });
}

#[test]
fn slow_bodies_that_hold_all_memory_give_way_to_who_waits_for_it() {
    let options = HttpOptions { bodies: Bodies::new(200_000), ..few(64) };
    with_server(options, |bench| async move {
        let _slow = slow_uploads(&bench, 10, &format!("PUT {A} HTTP/1.1\r\nContent-Length: 10000")).await;
        let large = format!("[{}]", " ".repeat(10_000));
        assert_eq!(bench.put(A, &large).await.status, 201);
        assert!(bench.counters.slow.get() > 0);
    });
}

#[test]
fn answers_that_nobody_takes_give_their_memory_to_who_waits_for_it() {
    let options = HttpOptions { bodies: Bodies::new(4 * DOCUMENT_BYTES_MAX), ..few(64) };
    with_server(options, |bench| async move {
        let large = format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX - 2));
        assert_eq!(bench.put(A, &large).await.status, 201);
        // Each asks for more than the buffers of its socket hold, and reads nothing.
        let mut sleepers = Vec::new();
        for _ in 0..8 {
            let mut client = bench.client().await;
            let ask = format!("GET {A} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
            client.send(ask.repeat(64)).await;
            sleepers.push(client);
        }
        while bench.counters.slow.get() == 0 {
            assert_eq!(bench.get(A).await.status, 200);
        }
        assert_eq!(bench.get(A).await.status, 200);
        drop(sleepers);
    });
}

#[test]
fn uploads_without_an_end_leave_room_for_documents() {
    let options = HttpOptions { bodies: Bodies::new(8 * 1024 * 1024), ..few(64) };
    with_server(options, |bench| async move {
        let lines: String = (0..50).map(|nth| format!("{{\"key\":\"{nth}\",\"value\":{nth}}}\n")).collect();
        let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
        let mut endless = Vec::new();
        for _ in 0..20 {
            let mut client = bench.client().await;
            let head = "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
            let asked = format!("POST /v1/collections/c/documents HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}");
            client.send(asked).await;
            client.send(&chunk).await;
            endless.push(client);
        }
        // More than half of the memory is asked for by uploads that go on; documents still come and go.
        for nth in 0..20 {
            let path = format!("/v1/collections/d/documents/{nth}");
            assert_eq!(bench.put(&path, "1").await.status, 201);
            assert_eq!(bench.get(&path).await.status, 200);
        }
    });
}

#[test]
fn newcomers_that_say_nothing_give_way_to_one_that_asks() {
    // Longer than the test: none of them ever counts as idle.
    let options = HttpOptions { grace: Duration::from_secs(600), ..few(4) };
    with_server(options, |bench| async move {
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(bench.client().await);
            if silent.len() % 10 == 0 {
                until(&bench, "PUT", A, if silent.len() == 10 { 201 } else { 200 }).await;
            }
        }
        assert!(bench.counters.evicted.get() >= 40, "{}", bench.counters.evicted.get());
    });
}

#[test]
fn who_asks_in_the_moment_of_a_flood_is_heard_before_the_flood_takes_the_place() {
    let options = HttpOptions { grace: Duration::from_secs(600), ..few(4) };
    with_server(options, |bench| async move {
        // All of them wait to be accepted at once: nothing here lets the server run meanwhile.
        let asked: Vec<std::net::TcpStream> = (0..100)
            .map(|_| {
                let mut stream = std::net::TcpStream::connect(bench.address).unwrap();
                stream.write_all(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
                stream
            })
            .collect();
        for stream in asked {
            let mut client = Client::over(stream);
            assert_eq!(client.reply(false).await.map(|reply| reply.status), Some(200));
        }
    });
}
