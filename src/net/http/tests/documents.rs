//! Documents, one at a time and in pages; collections, status, peers, health.

use super::super::HttpOptions;
use super::bench::{Bench, with_server};
use crate::document::PAGE_BYTES_MAX;
use crate::document::json::DOCUMENT_DEPTH_MAX;
use crate::error::{Error, PersistenceKind};
use crate::limits::DOCUMENT_BYTES_MAX;
use crate::report::HealthStatus;
use serde_json::json;
use std::format;
use std::future::Future;
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

const A: &str = "/v1/collections/c/documents/a";

fn serving<F: Future<Output = ()>>(test: impl FnOnce(Bench) -> F) {
    with_server(HttpOptions::default(), test);
}

#[test]
fn what_waits_in_the_offline_queue_is_202_and_is_shown_as_waiting() {
    serving(|bench| async move {
        let version = String::from(bench.put(A, "1").await.json()["version"].as_str().unwrap());
        bench.service.queues.set(true);
        let queued = bench.put(A, "2").await;
        assert_eq!((queued.status, queued.json()), (202, json!({ "queued": true })));
        assert!(!queued.headers.contains_key("etag"));
        let read = bench.get(A).await;
        assert_eq!((read.status, read.text(), read.headers["cbddc-queued"].as_str()), (200, "2", "true"));
        assert!(!read.headers.contains_key("etag"), "it has no version yet");
        let quoted = format!("\"{version}\"");
        let matched = bench.ask("GET", A, &[("If-Match", quoted.as_str())], b"").await;
        assert_eq!(matched.status, 412, "what is shown is not at that version");
        assert_eq!(bench.ask("DELETE", A, &[], b"").await.status, 202);
        let gone = bench.get(A).await;
        assert_eq!((gone.status, gone.headers["cbddc-queued"].as_str()), (404, "true"));
    });
}

#[test]
fn a_document_is_created_replaced_read_and_deleted() {
    serving(|bench| async move {
        let created = bench.put(A, " {\"x\" : 1.50}\n").await;
        assert_eq!(created.status, 201);
        let version = String::from(created.json()["version"].as_str().unwrap());
        assert_eq!(created.headers["etag"], format!("\"{version}\""));

        let read = bench.get(A).await;
        assert_eq!((read.status, read.text()), (200, "{\"x\" : 1.50}"));
        assert_eq!(read.headers["etag"], created.headers["etag"]);
        assert_eq!(read.headers["content-type"], "application/json");

        let head = bench.ask("HEAD", A, &[], b"").await;
        assert_eq!((head.status, head.headers["content-length"].as_str()), (200, "12"));
        assert_eq!(head.headers["etag"], created.headers["etag"]);

        let replaced = bench.put(A, "null").await;
        assert_eq!(replaced.status, 200);
        assert_ne!(replaced.headers["etag"], created.headers["etag"]);

        for _ in 0..2 {
            let deleted = bench.ask("DELETE", A, &[], b"").await;
            assert_eq!((deleted.status, deleted.body.len()), (204, 0));
        }
        bench.get(A).await.is(404, "PERSISTENCE_ERROR", "DocumentNotFound");
        assert_eq!(bench.ask("HEAD", A, &[], b"").await.status, 404);
    });
}

#[test]
fn writes_hold_to_their_conditions() {
    serving(|bench| async move {
        let ask = |method: &'static str, name: &'static str, value: String| {
            let bench = bench.clone();
            async move { bench.ask(method, A, &[(name, value.as_str())], b"1").await }
        };
        let any = || String::from("*");
        ask("PUT", "If-Match", any()).await.is(412, "PERSISTENCE_ERROR", "Concurrency");
        let first = ask("PUT", "If-None-Match", any()).await;
        assert_eq!(first.status, 201);
        ask("PUT", "If-None-Match", any()).await.is(412, "PERSISTENCE_ERROR", "Concurrency");
        let etag = first.headers["etag"].clone();
        let second = ask("PUT", "If-Match", etag.clone()).await;
        assert_eq!(second.status, 200);
        ask("PUT", "If-Match", etag.clone()).await.is(412, "PERSISTENCE_ERROR", "Concurrency");
        ask("DELETE", "If-Match", etag).await.is(412, "PERSISTENCE_ERROR", "Concurrency");
        for foreign in ["\"abc\"", "W/\"abc\"", "\"\""] {
            let reply = ask("PUT", "If-Match", String::from(foreign)).await;
            assert!(reply.status == 412 || reply.status == 400, "{foreign}");
        }
        ask("PUT", "If-None-Match", second.headers["etag"].clone()).await.is(400, "REQUEST_ERROR", "BadRequest");
        ask("PUT", "If-Match", String::from("\"a\", \"b\"")).await.is(400, "REQUEST_ERROR", "BadRequest");
        let both = [("If-Match", "*"), ("If-None-Match", "*")];
        bench.ask("PUT", A, &both, b"1").await.is(400, "REQUEST_ERROR", "BadRequest");
        let unquoted = String::from(second.headers["etag"].trim_matches('"'));
        assert_eq!(ask("DELETE", "If-Match", unquoted).await.status, 204);
    });
}

#[test]
fn a_reader_that_has_the_version_is_told_so() {
    serving(|bench| async move {
        let etag = bench.put(A, "[1]").await.headers["etag"].clone();
        let known = bench.ask("GET", A, &[("If-None-Match", &etag)], b"").await;
        assert_eq!((known.status, known.body.len()), (304, 0));
        bench.put(A, "[2]").await;
        assert_eq!(bench.ask("GET", A, &[("If-None-Match", &etag)], b"").await.text(), "[2]");
        bench.ask("GET", A, &[("If-Match", &etag)], b"").await.is(412, "PERSISTENCE_ERROR", "Concurrency");
    });
}

#[test]
fn a_time_to_live_reaches_the_store() {
    serving(|bench| async move {
        assert_eq!(bench.put(&format!("{A}?ttl=60"), "1").await.status, 201);
        assert_eq!(bench.service.documents.borrow().values().next().unwrap().ttl, Some(60_000));
        for query in ["ttl=0", "ttl=x", "tll=60", "confirmedBy=0"] {
            bench.put(&format!("{A}?{query}"), "1").await.is(400, "REQUEST_ERROR", "BadRequest");
        }
        bench.get(&format!("{A}?x=1")).await.is(400, "REQUEST_ERROR", "BadRequest");
    });
}

#[test]
fn what_is_no_document_is_refused_and_changes_nothing() {
    serving(|bench| async move {
        for body in ["", " ", "{", "{'a':1}", "1 2", "\u{1}"] {
            bench.put(A, body).await.is(400, "REQUEST_ERROR", "BadRequest");
        }
        bench.ask("PUT", A, &[], b"\"\xff\"").await.is(400, "REQUEST_ERROR", "BadRequest");
        let deep = "[".repeat(DOCUMENT_DEPTH_MAX + 1) + &"]".repeat(DOCUMENT_DEPTH_MAX + 1);
        let reply = bench.put(A, &deep).await;
        reply.is(400, "REQUEST_ERROR", "BadRequest");
        assert!(reply.text().contains("nested"), "{}", reply.text());
        bench.put(A, &"[".repeat(DOCUMENT_BYTES_MAX)).await.is(400, "REQUEST_ERROR", "BadRequest");
        bench.ask("PUT", A, &[("Content-Encoding", "gzip")], b"1").await.is(
            415,
            "REQUEST_ERROR",
            "UnsupportedMediaType",
        );
        assert!(bench.service.documents.borrow().is_empty());
    });
}

#[test]
fn a_document_is_at_most_256_kib_with_and_without_a_length() {
    serving(|bench| async move {
        let largest = format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX - 2));
        assert_eq!(bench.put(A, &format!("  {largest}\n")).await.status, 201);
        assert_eq!(bench.get(A).await.text(), largest);
        let more = format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX - 1));
        bench.put(A, &more).await.is(413, "PERSISTENCE_ERROR", "DocumentTooLarge");
        bench.put(A, &"x".repeat(3 * DOCUMENT_BYTES_MAX)).await.is(413, "PERSISTENCE_ERROR", "DocumentTooLarge");
        let chunked = format!("{:x}\r\n{}\r\n0\r\n\r\n", 2 * more.len(), more.repeat(2));
        let headers = [("Transfer-Encoding", "chunked")];
        let reply = bench.ask("PUT", A, &headers, chunked.as_bytes()).await;
        reply.is(413, "PERSISTENCE_ERROR", "DocumentTooLarge");
        let good = bench.ask("PUT", A, &headers, b"3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n").await;
        assert_eq!((good.status, bench.get(A).await.text()), (200, "[1,2]"));
    });
}

#[test]
fn keys_and_collections_of_any_text_make_the_round_trip() {
    serving(|bench| async move {
        for (path, key) in [
            ("2010%2F01%2F01%2000%3A00%3A00", "2010/01/01 00:00:00"),
            ("%E2%82%AC", "€"),
            ("a+b", "a+b"),
            ("%2e%2e", ".."),
            ("%22%5C%0A%00", "\"\\\n\0"),
        ] {
            let path = format!("/v1/collections/%F0%9F%A6%80%2F/documents/{path}");
            assert_eq!(bench.put(&path, "1").await.status, 201, "{path}");
            assert_eq!(bench.get(&path).await.status, 200, "{path}");
            let listed = bench.get("/v1/collections/%F0%9F%A6%80%2F/documents").await.json();
            assert_eq!(listed["documents"][0]["key"], key);
            assert_eq!(bench.ask("DELETE", &path, &[], b"").await.status, 204);
        }
        for path in ["%", "%f", "%FF", "", &"k".repeat(1025)] {
            let path = format!("/v1/collections/c/documents/{path}");
            bench.put(&path, "1").await.is(400, "REQUEST_ERROR", "BadRequest");
        }
        bench.put("/v1/collections//documents/a", "1").await.is(400, "REQUEST_ERROR", "BadRequest");
        bench.put("/v1/collections/c/documents/a/b", "1").await.is(404, "REQUEST_ERROR", "NoSuchRoute");
    });
}

#[test]
fn pages_go_through_a_collection_in_byte_order_both_ways() {
    serving(|bench| async move {
        for key in ["b", "a", "aa", "%C3%A9", "B"] {
            bench.put(&format!("/v1/collections/c/documents/{key}"), "[ 1 ]").await;
        }
        bench.put("/v1/collections/d/documents/other", "1").await;
        let keys = |query: &'static str| {
            let bench = bench.clone();
            async move {
                let page = bench.get(&format!("/v1/collections/c/documents{query}")).await.json();
                let documents = page["documents"].as_array().unwrap().clone();
                let keys: Vec<String> =
                    documents.iter().map(|document| String::from(document["key"].as_str().unwrap())).collect();
                (keys.join(" "), page["next"].as_str().map(String::from))
            }
        };
        assert_eq!(keys("").await, (String::from("B a aa b é"), None));
        assert_eq!(keys("?limit=2").await, (String::from("B a"), Some(String::from("a"))));
        assert_eq!(keys("?limit=2&after=a").await, (String::from("aa b"), Some(String::from("b"))));
        assert_eq!(keys("?prefix=a").await.0, "a aa");
        assert_eq!(keys("?reverse=true&after=b").await.0, "aa a B");
        assert_eq!(keys("?key=b&key=a&key=none").await.0, "a b");
        assert_eq!(keys("?key=b&key=a&after=a").await.0, "b");
        let raw = bench.get("/v1/collections/c/documents?key=a").await;
        assert!(raw.text().ends_with("\"value\":[ 1 ]}],\"next\":null}"), "{}", raw.text());
        let none = bench.get("/v1/collections/none/documents").await;
        assert_eq!(none.text(), r#"{"documents":[],"next":null}"#);
        for query in ["limit=0", "limit=1001", "limt=1", "key=a&limit=1", "prefix=%zz"] {
            let path = format!("/v1/collections/c/documents?{query}");
            bench.get(&path).await.is(400, "REQUEST_ERROR", "BadRequest");
        }
    });
}

#[test]
fn a_page_of_large_documents_is_cut_and_goes_on() {
    serving(|bench| async move {
        let large = format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX - 2));
        for key in 0..9 {
            bench.put(&format!("/v1/collections/c/documents/{key}"), &large).await;
        }
        let (mut after, mut seen) = (String::new(), 0);
        loop {
            let reply = bench.get(&format!("/v1/collections/c/documents?after={after}")).await;
            assert!(reply.body.len() <= PAGE_BYTES_MAX + DOCUMENT_BYTES_MAX + 4096);
            let page = reply.json();
            seen += page["documents"].as_array().unwrap().len();
            match page["next"].as_str() {
                Some(next) => after = String::from(next),
                None => break,
            }
        }
        assert_eq!(seen, 9);
    });
}

#[test]
fn collections_status_and_peers_are_said() {
    serving(|bench| async move {
        bench.put(A, "1").await;
        let collections = bench.get("/v1/collections").await;
        assert_eq!(collections.json(), json!({ "collections": [{ "name": "c", "documents": 1 }] }));
        assert_eq!(bench.get("/v1/status").await.json()["nodeId"], "gateway-01");
        assert_eq!(bench.get("/v1/peers").await.json()["heard"][0]["reason"], "another cluster key");
        assert_eq!(bench.ask("HEAD", "/v1/status", &[], b"").await.status, 200);
    });
}

#[test]
fn peers_are_untracked_and_replaced_by_name() {
    serving(|bench| async move {
        assert_eq!(bench.ask("DELETE", "/v1/peers/gateway%2007", &[], b"").await.status, 204);
        let made = bench.ask("POST", "/v1/backups", &[], b"").await;
        assert_eq!((made.status, made.json()["bytes"].as_u64()), (201, Some(4096)));
        let checked = bench.ask("POST", "/v1/integrity-check", &[], b"").await;
        assert_eq!((checked.status, &checked.json()["ok"]), (200, &true.into()));
        assert_eq!(bench.get("/v1/integrity-check").await.headers["allow"], "POST");
        let replaced = bench.ask("POST", "/v1/peers/gateway%2007/replace", &[], b"").await;
        let expected = json!({ "nodeId": "gateway 07", "device": "ab12", "address": "10.0.0.7:5000" });
        assert_eq!((replaced.status, replaced.json()), (200, expected));
        bench.ask("DELETE", "/v1/peers/nobody", &[], b"").await.is(404, "REQUEST_ERROR", "NoSuchPeer");
        bench.ask("POST", "/v1/peers/nobody/replace", &[], b"").await.is(404, "REQUEST_ERROR", "NoSuchPeer");
        bench.ask("DELETE", "/v1/peers/", &[], b"").await.is(400, "REQUEST_ERROR", "BadRequest");
        assert_eq!(bench.get("/v1/peers/gateway%2007").await.headers["allow"], "DELETE");
        assert_eq!(bench.get("/v1/peers/gateway%2007/replace").await.headers["allow"], "POST");
    });
}

#[test]
fn health_readiness_and_life_have_their_status() {
    serving(|bench| async move {
        for (health, status) in
            [(HealthStatus::Healthy, 200), (HealthStatus::Degraded, 200), (HealthStatus::Unhealthy, 503)]
        {
            bench.service.health.set(health);
            let reply = bench.get("/health").await;
            assert_eq!((reply.status, reply.json()["status"].as_str()), (status, Some(format!("{health}").as_str())));
            assert_eq!(reply.headers["content-type"], "application/json");
        }
        assert_eq!(bench.get("/livez").await.status, 200);
        assert_eq!(bench.get("/readyz").await.status, 200);
        bench.service.not_ready.set(true);
        let reply = bench.get("/readyz").await;
        assert_eq!((reply.status, reply.json()["reasons"][0].as_str()), (503, Some("the store is opening")));
    });
}

#[test]
fn what_is_no_route_or_no_method_is_said() {
    serving(|bench| async move {
        for path in ["/", "/v1/nothing", "/metrics/x", "/v1/status/"] {
            bench.get(path).await.is(404, "REQUEST_ERROR", "NoSuchRoute");
        }
        for (method, path, allowed) in [
            ("PATCH", A, "GET, HEAD, PUT, DELETE"),
            ("DELETE", "/v1/collections/c/documents", "GET, HEAD, POST"),
            ("PUT", "/v1/status", "GET, HEAD"),
            ("POST", "/health", "GET, HEAD"),
            ("OPTIONS", A, "GET, HEAD, PUT, DELETE"),
        ] {
            let reply = bench.ask(method, path, &[], b"").await;
            reply.is(405, "REQUEST_ERROR", "MethodNotAllowed");
            assert_eq!(reply.headers["allow"], allowed);
        }
    });
}

#[test]
fn each_error_of_the_store_has_its_status() {
    serving(|bench| async move {
        fn full(kind: PersistenceKind) -> Error {
            Error::Persistence { kind, message: String::from("x"), source: None }
        }
        type Case = (fn() -> Error, u16, &'static str, &'static str);
        let cases: [Case; 8] = [
            (|| Error::network("x", None), 502, "NETWORK_ERROR", ""),
            (|| full(PersistenceKind::DiskFull), 507, "PERSISTENCE_ERROR", "DiskFull"),
            (|| full(PersistenceKind::QueueFull), 503, "PERSISTENCE_ERROR", "QueueFull"),
            (|| full(PersistenceKind::Other), 500, "PERSISTENCE_ERROR", ""),
            (
                || Error::DatabaseCorruption { message: "x".into(), source: None },
                500,
                "PERSISTENCE_ERROR",
                "DatabaseCorruption",
            ),
            (|| Error::Sync { message: "x".into(), source: None }, 500, "SYNC_ERROR", ""),
            (|| Error::configuration("x"), 500, "CONFIG_ERROR", ""),
            (|| Error::Timeout { operation: "x".into(), after_ms: 1 }, 504, "TIMEOUT_ERROR", ""),
        ];
        for (error, status, code, kind) in cases {
            bench.service.op_error.set(Some(error));
            let reply = bench.put(A, "1").await;
            reply.is(status, code, kind);
            assert_eq!(reply.headers.contains_key("retry-after"), kind == "QueueFull");
        }
    });
}

#[test]
fn a_store_that_does_not_answer_is_a_timeout() {
    let options = HttpOptions { request_timeout: Duration::from_millis(20), ..HttpOptions::default() };
    with_server(options, |bench| async move {
        bench.service.stuck.set(true);
        bench.put(A, "1").await.is(504, "TIMEOUT_ERROR", "");
        assert_eq!(bench.get("/livez").await.status, 200);
    });
}

#[test]
fn rows_that_were_kept_aside_are_listed_and_decided_about() {
    with_server(HttpOptions::default(), |bench| async move {
        let page = bench.get("/v1/recovered?limit=10").await;
        let text = String::from_utf8(page.body.clone()).unwrap();
        assert!(text.contains(r#""key":"x""#) && text.contains(r#""value":{"kept":1.50}"#), "{text}");
        assert!(text.contains(r#"{"number":2,"damaged":true}"#) && text.ends_with(r#""next":"2"}"#), "{text}");
        let applied = bench.ask("POST", "/v1/recovered/apply?key=x&collection=users", &[], b"").await;
        let expected = serde_json::json!({ "written": 1, "settled": 1, "damaged": 0, "waiting": 1 });
        assert_eq!((applied.status, applied.json()), (200, expected));
        let dropped = bench.ask("POST", "/v1/recovered/drop", &[], b"").await;
        assert_eq!(dropped.json()["written"], 0);
        bench.ask("POST", "/v1/recovered/drop?all=1", &[], b"").await.is(400, "REQUEST_ERROR", "BadRequest");
        assert_eq!(bench.get("/v1/recovered/apply").await.headers["allow"], "POST");
        assert_eq!(bench.ask("POST", "/v1/recovered", &[], b"").await.status, 405);
    });
}
