//! Requests that wait for peers: confirmations of a write, and being in step.

use super::super::HttpOptions;
use super::bench::{Bench, with_server};
use serde_json::json;
use std::future::Future;

const A: &str = "/v1/collections/c/documents/a";

fn with_places<F: Future<Output = ()>>(awaiting_max: usize, test: impl FnOnce(Bench) -> F) {
    with_server(HttpOptions { awaiting_max, ..HttpOptions::default() }, test);
}

#[test]
fn a_write_that_enough_peers_confirm_is_answered_with_their_names() {
    with_places(4, |bench| async move {
        bench.service.confirming.set(2);
        let put = bench.put(&std::format!("{A}?confirmedBy=2&ttl=60"), "1").await;
        assert_eq!(put.status, 200, "{}", put.text());
        assert_eq!(put.json()["confirmedBy"], json!(["gateway-01", "gateway-02"]));
        assert_eq!(put.headers["etag"], std::format!("\"{}\"", put.json()["version"].as_str().unwrap()));
        let deleted = bench.ask("DELETE", &std::format!("{A}?confirmedBy=1"), &[], b"").await;
        assert_eq!((deleted.status, deleted.json()["confirmedBy"].clone()), (200, json!(["gateway-01", "gateway-02"])));
        let nothing = bench.ask("DELETE", &std::format!("{A}?confirmedBy=9&timeout=1m"), &[], b"").await;
        assert_eq!(nothing.status, 204, "nothing was there, nobody is waited for");
    });
}

#[test]
fn a_write_that_too_few_confirm_is_stored_and_says_so() {
    with_places(4, |bench| async move {
        bench.service.confirming.set(1);
        let late = bench.put(&std::format!("{A}?confirmedBy=2&timeout=20ms"), "1").await;
        late.is(504, "TIMEOUT_ERROR", "");
        let said = late.json();
        assert_eq!((&said["stored"], &said["confirmedBy"]), (&json!(true), &json!(["gateway-01"])), "{said}");
        assert_eq!(bench.get(A).await.headers["etag"], late.headers["etag"]);
        assert!(said["detail"].as_str().unwrap().contains("1 of 2"), "{said}");
    });
}

#[test]
fn what_no_peer_can_confirm_is_refused_before_it_is_written() {
    with_places(4, |bench| async move {
        let path = "/v1/collections/scratch/documents/a";
        bench.put(&std::format!("{path}?confirmedBy=1"), "1").await.is(400, "REQUEST_ERROR", "BadRequest");
        assert_eq!(bench.get(path).await.status, 404);
        bench.put(&std::format!("{A}?confirmedBy=0"), "1").await.is(400, "REQUEST_ERROR", "BadRequest");
        let condition = [("If-None-Match", "*")];
        bench.put(A, "1").await;
        let refused = bench.ask("PUT", &std::format!("{A}?confirmedBy=1"), &condition, b"2").await;
        refused.is(412, "PERSISTENCE_ERROR", "Concurrency");
    });
}

#[test]
fn beyond_the_bound_nobody_waits_and_nothing_is_written() {
    with_places(1, |bench| async move {
        let mut first = bench.client().await;
        let head =
            std::format!("PUT {A}?confirmedBy=1&timeout=1m HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\n1");
        first.send(head).await;
        while bench.get(A).await.status != 200 {}
        let second = bench.put("/v1/collections/c/documents/b?confirmedBy=1&timeout=1m", "1").await;
        second.is(429, "REQUEST_ERROR", "TooManyRequests");
        assert_eq!(bench.get("/v1/collections/c/documents/b").await.status, 404);
        bench.service.not_ready.set(true);
        bench.get("/readyz?sync&timeout=1m").await.is(429, "REQUEST_ERROR", "TooManyRequests");
        assert_eq!(bench.get("/readyz").await.status, 503, "whoever does not wait is answered");
    });
}

#[test]
fn the_site_is_asked_for_and_waited_for_within_bounds() {
    with_places(4, |bench| async move {
        let site = bench.get("/v1/site?timeout=1s").await;
        assert_eq!((site.status, site.json()["members"][0]["nodeId"].clone()), (200, json!("gateway-01")));
        bench.get("/v1/site?timeout=1h").await.is(400, "REQUEST_ERROR", "BadRequest");
        bench.get("/v1/site?wait=1s").await.is(400, "REQUEST_ERROR", "BadRequest");
    });
}

#[test]
fn whoever_waits_for_the_node_to_be_in_step_learns_what_is_missing() {
    with_places(4, |bench| async move {
        assert_eq!(bench.get("/readyz?sync&timeout=1m").await.status, 200);
        bench.service.not_ready.set(true);
        let missing = bench.get("/readyz?sync&timeout=10ms").await;
        assert_eq!((missing.status, missing.json()["reasons"].clone()), (503, json!(["the store is opening"])));
        bench.get("/readyz?timeout=1s").await.is(400, "REQUEST_ERROR", "BadRequest");
    });
}
