//! Many documents in one request.

use super::super::HttpOptions;
use super::bench::{Bench, Reply, with_server};
use crate::error::{Error, PersistenceKind};
use crate::limits::DOCUMENT_BYTES_MAX;
use serde_json::json;
use std::format;
use std::string::String;
use std::time::Duration;

const C: &str = "/v1/collections/c/documents";
const LINES: (&str, &str) = ("Content-Type", "application/x-ndjson");

async fn post(bench: &Bench, body: &[u8]) -> Reply {
    bench.ask("POST", C, &[LINES], body).await
}

#[test]
fn lines_are_stored_and_wrong_ones_are_named() {
    with_server(HttpOptions::default(), |bench| async move {
        bench.put(&format!("{C}/gone"), "1").await;
        let mut body =
            String::from("{\"key\":\"a\",\"value\":{ \"x\":1.0 }}\r\n\nnot json\n{\"key\":\"gone\",\"delete\":true}\n");
        body.push_str(&format!("{{\"key\":\"large\",\"value\":\"{}\"}}\n", "x".repeat(DOCUMENT_BYTES_MAX)));
        body.push_str(&format!("{{\"key\":\"longer\",\"value\":\"{}\"}}\n", "x".repeat(4 * DOCUMENT_BYTES_MAX)));
        body.push_str("{\"key\":\"\",\"value\":1}\n{\"key\":\"last\",\"value\":null}");
        let reply = post(&bench, body.as_bytes()).await;
        assert_eq!(reply.status, 200);
        let json = reply.json();
        assert_eq!((json["successful"].as_u64(), json["failed"].as_u64()), (Some(3), Some(4)));
        let told = |at: usize| {
            let error = &json["errors"][at];
            assert!(!error["detail"].as_str().unwrap().is_empty());
            (
                error["line"].as_u64().unwrap(),
                error["code"].as_str().unwrap().into(),
                error["kind"].as_str().unwrap().into(),
            )
        };
        let expected = |line, code, kind| (line, String::from(code), String::from(kind));
        assert_eq!(told(0), expected(3, "REQUEST_ERROR", "BadRequest"));
        assert_eq!(told(1), expected(5, "PERSISTENCE_ERROR", "DocumentTooLarge"));
        assert_eq!(told(2), expected(6, "PERSISTENCE_ERROR", "DocumentTooLarge"));
        assert_eq!(told(3), expected(7, "REQUEST_ERROR", "BadRequest"));
        assert_eq!(bench.get(&format!("{C}/a")).await.text(), "{ \"x\":1.0 }");
        assert_eq!(bench.get(&format!("{C}/last")).await.text(), "null");
        assert_eq!(bench.get(&format!("{C}/gone")).await.status, 404);
    });
}

#[test]
fn an_empty_body_stores_nothing_and_is_no_error() {
    with_server(HttpOptions::default(), |bench| async move {
        assert_eq!(post(&bench, b"\n\n").await.json(), json!({ "successful": 0, "failed": 0, "errors": [] }));
    });
}

#[test]
fn only_lines_of_json_are_taken() {
    with_server(HttpOptions::default(), |bench| async move {
        for headers in [&[][..], &[("Content-Type", "application/json")], &[("Content-Type", "text/plain")]] {
            bench.ask("POST", C, headers, b"").await.is(415, "REQUEST_ERROR", "UnsupportedMediaType");
        }
        bench.ask("POST", C, &[LINES, ("Content-Encoding", "gzip")], b"").await.is(
            415,
            "REQUEST_ERROR",
            "UnsupportedMediaType",
        );
        let with_charset = [("Content-Type", "Application/X-NDJSON; charset=utf-8")];
        assert_eq!(bench.ask("POST", C, &with_charset, b"").await.status, 200);
    });
}

#[test]
fn a_body_of_many_megabytes_goes_through_in_groups() {
    with_server(HttpOptions::default(), |bench| async move {
        const LINES_SENT: usize = 40_000;
        let mut client = bench.client().await;
        let head = format!(
            "POST {C} HTTP/1.1\r\nHost: [::1]\r\n{}: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            LINES.0, LINES.1
        );
        client.send(head).await;
        let padding = "x".repeat(400);
        for thousand in 0..LINES_SENT / 1000 {
            let mut chunk = String::new();
            for nth in 0..1000 {
                chunk.push_str(&format!("{{\"key\":\"{:06}\",\"value\":\"{padding}\"}}\n", thousand * 1000 + nth));
            }
            client.send(format!("{:x}\r\n{chunk}\r\n", chunk.len())).await;
        }
        client.send("0\r\n\r\n").await;
        let reply = client.reply(false).await.unwrap();
        assert_eq!(reply.json(), json!({ "successful": LINES_SENT, "failed": 0, "errors": [] }));
        assert_eq!(bench.service.documents.borrow().len(), LINES_SENT);
        let groups = bench.service.groups.borrow();
        assert!(groups.len() > 20 && groups.iter().all(|size| *size <= 2048), "{groups:?}");
    });
}

#[test]
fn more_errors_than_are_told_are_still_counted() {
    with_server(HttpOptions::default(), |bench| async move {
        let json = post(&bench, "x\n".repeat(5000).as_bytes()).await.json();
        assert_eq!((json["failed"].as_u64(), json["errorsOmitted"].as_u64()), (Some(5000), Some(4000)));
        assert_eq!(json["errors"].as_array().unwrap().len(), 1000);
    });
}

#[test]
fn a_line_that_the_store_refuses_fails_alone() {
    with_server(HttpOptions::default(), |bench| async move {
        bench.service.op_error.set(Some(|| Error::Persistence {
            kind: PersistenceKind::DiskFull,
            message: String::from("no space"),
            source: None,
        }));
        let json = post(&bench, b"{\"key\":\"a\",\"value\":1}\n").await.json();
        assert_eq!((json["failed"].as_u64(), json["errors"][0]["kind"].as_str()), (Some(1), Some("DiskFull")));
    });
}

#[test]
fn a_store_that_gives_up_in_between_ends_the_request_with_what_was_done() {
    with_server(HttpOptions::default(), |bench| async move {
        bench.service.group_error.set(Some((1, || Error::persistence("the disk is gone", None))));
        let line = format!("{{\"key\":\"a\",\"value\":\"{}\"}}\n", "x".repeat(100_000));
        let reply = post(&bench, line.repeat(50).as_bytes()).await;
        reply.is(500, "PERSISTENCE_ERROR", "");
        let json = reply.json();
        let first = bench.service.groups.borrow()[0];
        assert_eq!(json["successful"].as_u64(), Some(first as u64));
        assert!(json["failed"].as_u64().unwrap() > 0 && first < 50);
    });
}

#[test]
fn a_body_that_stops_coming_costs_the_connection_and_keeps_what_came() {
    let options = HttpOptions { transfer_timeout: Duration::from_millis(50), ..HttpOptions::default() };
    with_server(options, |bench| async move {
        let mut client = bench.client().await;
        let head =
            format!("POST {C} HTTP/1.1\r\nHost: localhost\r\n{}: {}\r\nContent-Length: 1000\r\n\r\n", LINES.0, LINES.1);
        client.send(head + "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"val").await;
        let reply = client.reply(false).await.unwrap();
        reply.is(400, "REQUEST_ERROR", "BadRequest");
        assert_eq!(reply.json()["successful"], 1);
        assert!(client.reply(false).await.is_none(), "closed");
        assert_eq!(bench.service.documents.borrow().len(), 1);
    });
}
