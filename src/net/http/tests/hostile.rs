//! Clients that are slow, greedy, many, or not HTTP at all.

use super::super::{Bodies, HttpOptions, Listener, serve};
use super::bench::{Bench, with_server};
use super::memory::Memory;
use crate::limits::DOCUMENT_BYTES_MAX;
use crate::net::PortSetting;
use smol::LocalExecutor;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use std::format;
use std::rc::Rc;
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

const A: &str = "/v1/collections/c/documents/a";
const LIVE: &str = "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn is_alive(bench: &Bench) {
    assert_eq!(bench.get("/livez").await.status, 200);
}

#[test]
fn bytes_that_are_not_http_cost_their_connection() {
    with_server(HttpOptions::default(), |bench| async move {
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01"[..],
            b"\0\0\0\0\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET\r\n\r\n",
        ] {
            let mut client = bench.client().await;
            client.send(bytes).await;
            let _ = client.stream.shutdown(std::net::Shutdown::Write);
            while let Some(reply) = client.reply(false).await {
                assert!(reply.status >= 400, "{reply:?}");
            }
        }
        is_alive(&bench).await;
        assert!(bench.counters.broken.get() >= 3);
    });
}

#[test]
fn headers_that_come_too_slowly_cost_their_connection() {
    let options = HttpOptions { header_timeout: ms(50), ..HttpOptions::default() };
    with_server(options, |bench| async move {
        let mut silent = bench.client().await;
        let mut slow = bench.client().await;
        slow.send("GET /livez HTTP/1.1\r\nHost: ").await;
        assert!(slow.reply(false).await.is_none_or(|reply| reply.status == 408));
        assert!(silent.reply(false).await.is_none_or(|reply| reply.status == 408));
        is_alive(&bench).await;
    });
}

#[test]
fn headers_beyond_their_bound_are_refused() {
    with_server(HttpOptions::default(), |bench| async move {
        let mut client = bench.client().await;
        client.send(format!("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n", "x".repeat(40_000))).await;
        assert_eq!(client.reply(false).await.unwrap().status, 431);
        let mut client = bench.client().await;
        client.send(format!("GET /{} HTTP/1.1\r\n", "x".repeat(70_000))).await;
        assert!(client.reply(false).await.unwrap().status >= 400);
        let mut client = bench.client().await;
        client.send(format!("GET /livez HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(300))).await;
        assert!(client.reply(false).await.unwrap().status >= 400);
        is_alive(&bench).await;
    });
}

#[test]
fn a_document_that_stops_coming_is_not_waited_for() {
    let options = HttpOptions { transfer_timeout: ms(50), ..HttpOptions::default() };
    with_server(options, |bench| async move {
        let mut client = bench.client().await;
        client.send(format!("PUT {A} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n[1,")).await;
        client.reply(false).await.unwrap().is(400, "REQUEST_ERROR", "BadRequest");
        assert!(client.reply(false).await.is_none());
        assert!(bench.service.documents.borrow().is_empty());
    });
}

#[test]
fn an_answer_that_nobody_takes_is_given_up() {
    let options = HttpOptions { transfer_timeout: ms(50), ..HttpOptions::default() };
    with_server(options, |bench| async move {
        let large = format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX - 2));
        for key in 0..4 {
            bench.put(&format!("/v1/collections/c/documents/{key}"), &large).await;
        }
        let mut greedy = bench.client().await;
        let request = "GET /v1/collections/c/documents HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        // More answers than the socket buffers of both sides hold, and none is read.
        for _ in 0..64 {
            if greedy.stream.write_all(request.as_bytes()).await.is_err() {
                break;
            }
        }
        while bench.counters.broken.get() == 0 {
            is_alive(&bench).await;
        }
        let mut rest = Vec::new();
        let _ = greedy.stream.read_to_end(&mut rest).await;
        assert!(rest.len() < 64 * 4 * DOCUMENT_BYTES_MAX, "cut");
    });
}

#[test]
fn requests_sent_ahead_are_answered_in_their_order() {
    with_server(HttpOptions::default(), |bench| async move {
        let mut client = bench.client().await;
        let mut sent = String::new();
        for nth in 0..50 {
            let body = format!("{nth}");
            sent.push_str(&format!(
                "PUT {A} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            sent.push_str(&format!("GET {A} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"));
        }
        client.send(sent).await;
        for nth in 0..50 {
            assert!(client.reply(false).await.unwrap().status < 300);
            assert_eq!(client.reply(false).await.unwrap().text(), format!("{nth}"));
        }
    });
}

#[test]
fn two_hundred_connections_are_all_answered_or_told_to_wait() {
    with_server(HttpOptions::default(), |bench| async move {
        let mut clients = Vec::new();
        for _ in 0..200 {
            clients.push(bench.client().await);
        }
        for client in &mut clients {
            // One that was refused and dropped cannot be written to.
            let _ = client.stream.write_all(LIVE.as_bytes()).await;
        }
        let mut served = 0;
        for client in &mut clients {
            match client.reply(false).await {
                Some(reply) if reply.status == 200 => served += 1,
                Some(reply) => {
                    reply.is(429, "REQUEST_ERROR", "TooManyRequests");
                    assert_eq!(reply.headers["connection"], "close");
                }
                None => {}
            }
        }
        assert!(served >= 64, "{served}");
        drop(clients);
        is_alive(&bench).await;
    });
}

#[test]
fn an_idle_connection_makes_room_and_a_busy_one_does_not() {
    let options = HttpOptions { connections_max: 2, ..HttpOptions::default() };
    with_server(options, |bench| async move {
        let (mut first, mut second) = (bench.client().await, bench.client().await);
        for client in [&mut first, &mut second] {
            assert_eq!(client.ask("GET", "/livez", &[], b"").await.status, 200);
        }
        let mut third = bench.client().await;
        assert_eq!(third.ask("GET", "/livez", &[], b"").await.status, 200);
        assert!(first.reply(false).await.is_none(), "idle longest, so closed");
        assert_eq!(bench.counters.evicted.get(), 1);

        let put = format!("PUT {A} HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
        for client in [&mut second, &mut third] {
            client.send(&put).await;
            assert_eq!(client.reply(false).await.unwrap().status, 100, "busy");
        }
        bench.put(A, "1").await.is(429, "REQUEST_ERROR", "TooManyRequests");
        for client in [&mut second, &mut third] {
            client.send("1").await;
            assert!(client.reply(false).await.unwrap().status < 300);
        }
    });
}

#[test]
fn connections_that_say_nothing_do_not_keep_others_out() {
    let options = HttpOptions { connections_max: 4, grace: ms(10), ..HttpOptions::default() };
    with_server(options, |bench| async move {
        let mut silent = Vec::new();
        for _ in 0..4 {
            let mut client = bench.client().await;
            client.send("GET /livez HT").await;
            silent.push(client);
        }
        loop {
            let mut honest = bench.client().await;
            let _ = honest.stream.write_all(LIVE.as_bytes()).await;
            if honest.reply(false).await.is_some_and(|reply| reply.status == 200) {
                break;
            }
        }
        assert!(bench.counters.evicted.get() >= 1);
    });
}

#[test]
fn bodies_wait_for_their_share_of_memory() {
    let options = HttpOptions { bodies: Bodies::new(40_000), request_timeout: ms(30), ..HttpOptions::default() };
    with_server(options, |bench| async move {
        let mut holds = bench.client().await;
        holds.send(format!("PUT {A} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 20000\r\n\r\n[")).await;
        // Until the first request holds its share, this one may be quicker.
        let large = format!("[{}]", " ".repeat(10_000));
        while bench.put(A, &large).await.status != 429 {}
        is_alive(&bench).await;
        assert!(bench.put(A, "1").await.status < 300, "a small one waits for nobody");
        assert_eq!(bench.get(A).await.status, 200, "answers have a half of their own");
        holds.send(format!("{}]", " ".repeat(19_998))).await;
        assert!(holds.reply(false).await.unwrap().status < 300);
        assert_eq!(bench.put(A, &large).await.status, 200);
    });
}

#[test]
fn a_refused_upload_hears_why() {
    with_server(HttpOptions::default(), |bench| async move {
        let mut client = bench.client().await;
        let head = "Host: 127.0.0.1\r\nContent-Length: 3000000\r\n\r\n";
        client.send(format!("POST /v1/collections/c/documents HTTP/1.1\r\n{head}")).await;
        client.send("x".repeat(3_000_000)).await;
        client.reply(false).await.unwrap().is(415, "REQUEST_ERROR", "UnsupportedMediaType");
        let mut polite = bench.client().await;
        polite.send(format!("PUT {A} HTTP/1.1\r\nExpect: 100-continue\r\n{head}")).await;
        polite.reply(false).await.unwrap().is(413, "PERSISTENCE_ERROR", "DocumentTooLarge");
    });
}

#[test]
fn requests_under_way_end_before_the_server_does() {
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), PortSetting::Http).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = async_channel::bounded::<()>(1);
        let options = HttpOptions { shutdown_timeout: Duration::from_secs(20), ..HttpOptions::default() };
        let counters = options.counters.clone();
        let service = Rc::new(Memory::default());
        let server = executor.spawn(serve(listener, service.clone(), options, async move {
            let _ = stopped.recv().await;
        }));
        let bench = Bench { address, service, counters };
        let mut idle = bench.client().await;
        assert_eq!(idle.ask("GET", "/livez", &[], b"").await.status, 200);
        let mut busy = bench.client().await;
        busy.send(format!("PUT {A} HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"))
            .await;
        assert_eq!(busy.reply(false).await.unwrap().status, 100, "under way");
        drop(stop);
        assert!(idle.reply(false).await.is_none(), "closed");
        busy.send("[1]").await;
        assert_eq!(busy.reply(false).await.unwrap().status, 201);
        assert!(busy.reply(false).await.is_none());
        server.await;
        assert!(async_net::TcpStream::connect(address).await.is_err());
    }));
}
