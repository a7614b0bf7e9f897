//! One node and its clients: documents, conditions, bad requests, restarts.

use crate::client::{document, documents};
use crate::process::{Node, wait};
use crate::program::seconds;
use std::time::Instant;

#[test]
fn a_document_comes_back_byte_for_byte_and_survives_kill_and_restart() {
    let mut node = Node::new("bytes").started();
    let value = "{\"b\" : 1.50,\t\"a\":[ 1e2, \"\\u00e9\", \"é\" ],\"b\":2}";
    let created = node.put("säle/1", "key with spaces/ü?#%", &format!(" \n{value}\r\n ")).expect(201);
    let read = node.get("säle/1", "key with spaces/ü?#%").expect(200);
    assert_eq!((read.text().as_str(), read.version()), (value, created.version()));
    assert_eq!(created.json()["version"].as_str().unwrap(), created.version().trim_matches('"'));
    let replaced = node.put("säle/1", "key with spaces/ü?#%", "null").expect(200);
    assert_ne!(replaced.version(), created.version());
    let head = node.ask("HEAD", &document("säle/1", "key with spaces/ü?#%"), &[], b"").expect(200);
    assert_eq!(head.version(), replaced.version());
    node.delete("säle/1", "nothing").expect(204);
    node.put("c", "gone", "1").expect(201);
    node.delete("c", "gone").expect(204);
    node.kill();
    node.start();
    let read = node.get("säle/1", "key with spaces/ü?#%").expect(200);
    assert_eq!((read.text().as_str(), read.version()), ("null", replaced.version()));
    assert_eq!(node.get("c", "gone").expect(404).problem(), "PERSISTENCE_ERROR/DocumentNotFound");
    assert_eq!(node.put("c", "gone", "2").expect(201).status, 201);
    node.stop_cleanly();
    node.start();
    assert_eq!(node.value("c", "gone").as_deref(), Some("2"));
    let names = node.page("/v1/collections");
    assert_eq!(names["collections"].as_array().unwrap().len(), 2, "{names}");
}

#[test]
fn conditions_hold_or_the_write_is_refused() {
    let node = Node::new("conditions").started();
    let path = document("c", "k");
    let put = |headers: &[(&str, &str)], value: &str| node.ask("PUT", &path, headers, value.as_bytes());
    let first = put(&[("If-None-Match", "*")], "1").expect(201);
    assert_eq!(put(&[("If-None-Match", "*")], "2").expect(412).problem(), "PERSISTENCE_ERROR/Concurrency");
    let second = put(&[("If-Match", first.version())], "2").expect(200);
    put(&[("If-Match", first.version())], "3").expect(412);
    assert_eq!(node.get("c", "k").text(), "2");
    assert_eq!(node.ask("DELETE", &path, &[("If-Match", first.version())], b"").expect(412).status, 412);
    node.ask("DELETE", &path, &[("If-Match", second.version())], b"").expect(204);
    put(&[("If-Match", second.version())], "3").expect(412);
    put(&[("If-None-Match", "*")], "4").expect(201);
    assert_eq!(put(&[("If-Match", "\"nonsense\"")], "5").status / 100, 4);
    assert_eq!(node.get("c", "k").text(), "4");
}

#[test]
fn a_bad_request_is_told_why_and_costs_nobody_else() {
    let node = Node::new("bad-requests").started();
    let ndjson = [("Content-Type", "application/x-ndjson")];
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    for wrong in ["", " ", "{", "{\"a\":}", "nul", "1 2", "'a'", "\u{feff}1", "[1,]", "\"\u{1}\"", "01", "{\"a\":1}}"] {
        assert_eq!(node.put("c", "k", wrong).expect(400).problem(), "REQUEST_ERROR/BadRequest", "{wrong:?}");
    }
    assert_eq!(node.ask("PUT", &document("c", "k"), &[], b"\"\xff\"").expect(400).status, 400);
    // Nesting is either stored or refused, and never costs the node its stack.
    for levels in [100, 1_000, 100_000, 131_000] {
        let answer = node.put("c", "deep", &deep(levels));
        assert!(matches!(answer.status, 200 | 201 | 400), "{levels}: {}", answer.text());
    }
    // At the bound, and one beyond.
    let of_bytes = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    node.put("c", "large", &of_bytes(256 * 1024)).expect(201);
    assert_eq!(node.get("c", "large").body.len(), 256 * 1024);
    let too_large = node.put("c", "too-large", &of_bytes(256 * 1024 + 1)).expect(413);
    assert_eq!(too_large.problem(), "PERSISTENCE_ERROR/DocumentTooLarge");
    node.put("c", "too-large", &of_bytes(3_000_000)).expect(413);
    node.put("c", &"k".repeat(1024), "1").expect(201);
    node.put("c", &"k".repeat(1025), "1").expect(400);
    node.put(&"c".repeat(129), "k", "1").expect(400);
    for (method, path, status, problem) in [
        ("GET", "/v1/nothing", 404, "REQUEST_ERROR/NoSuchRoute"),
        ("PATCH", "/v1/collections/c/documents/k", 405, "REQUEST_ERROR/MethodNotAllowed"),
        ("GET", "/v1/collections/c/documents?limit=many", 400, "REQUEST_ERROR/BadRequest"),
        ("GET", "/v1/collections//documents/k", 400, "REQUEST_ERROR/BadRequest"),
        ("GET", "/v1/collections/c/documents/%ff", 400, "REQUEST_ERROR/BadRequest"),
        ("GET", "/v1/collections/c/documents/%zz", 400, "REQUEST_ERROR/BadRequest"),
    ] {
        let answer = node.ask(method, path, &[], b"");
        assert_eq!((answer.status, answer.problem().as_str()), (status, problem), "{method} {path}");
    }
    let plain = node.ask("POST", &documents("c"), &[("Content-Type", "text/plain")], b"{}\n");
    assert_eq!(plain.expect(415).problem(), "REQUEST_ERROR/UnsupportedMediaType");
    assert_eq!(node.ask("GET", "/v1/status", &[("Origin", "http://evil.example")], b"").status, 400);
    // A bulk write says line for line what was not stored.
    let lines = format!(
        "{{\"key\":\"a\",\"value\":1}}\nnonsense\n{{\"key\":\"\",\"value\":1}}\n{{\"key\":\"b\",\"value\":{}}}\n\
         {{\"key\":\"c\",\"delete\":true}}\n{{\"key\":\"d\",\"value\":{{\"x\":[1, 2]}}}}",
        of_bytes(256 * 1024 + 1)
    );
    let bulk = node.ask("POST", &documents("bulk"), &ndjson, lines.as_bytes()).expect(200).json();
    assert_eq!((bulk["successful"].as_u64(), bulk["failed"].as_u64()), (Some(3), Some(3)), "{bulk}");
    let lines: Vec<u64> =
        bulk["errors"].as_array().unwrap().iter().map(|error| error["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3, 4], "{bulk}");
    assert_eq!(node.value("bulk", "d").as_deref(), Some("{\"x\":[1, 2]}"));
    node.still_serves();
}

#[test]
fn whoever_speaks_no_http_or_says_nothing_costs_nobody_else() {
    let node = Node::new("no-http").started();
    let mut random = fastrand::Rng::with_seed(7);
    let mut held = Vec::new();
    for at in 0..40 {
        let mut connection = node.connect();
        let garbage: Vec<u8> = (0..random.usize(1..4000)).map(|_| random.u8(..)).collect();
        match at % 4 {
            0 => drop(connection.raw(&garbage)),
            1 => drop(connection.raw(b"GET /livez HTTP/1.1\r\nHost: ")),
            2 => drop(connection.raw(format!("GET /{} HTTP/1.1\r\n", "x".repeat(100_000)).as_bytes())),
            _ => {}
        }
        held.push(connection);
    }
    let began = Instant::now();
    // Connections are bounded; whoever comes is served or told to come again, and soon is served.
    wait("a connection is served again", || {
        let answer = node.connect().ask("GET", "/livez", &[], b"").ok()?;
        (answer.status == 200).then_some(())
    });
    assert!(began.elapsed() < seconds(20));
    drop(held);
    node.still_serves();
}

#[test]
fn a_list_is_in_byte_order_and_can_be_continued() {
    let node = Node::new("list").started();
    let mut keys: Vec<String> = (0..250).map(|n| format!("k{}", n * 7 % 250)).collect();
    keys.extend(["ä", "Z", "~", "k 1"].map(String::from));
    let body: Vec<String> = keys.iter().map(|key| format!("{{\"key\":\"{key}\",\"value\":\"{key}\"}}")).collect();
    let ndjson = [("Content-Type", "application/x-ndjson")];
    node.ask("POST", &documents("c"), &ndjson, body.join("\n").as_bytes()).expect(200);
    keys.sort();
    let listed: Vec<String> = node.everything("c").into_iter().map(|(key, ..)| key).collect();
    assert_eq!(listed, keys);
    let page = node.page(&format!("{}?prefix=k1&limit=3&after=k10", documents("c")));
    let part: Vec<&str> = page["documents"].as_array().unwrap().iter().map(|d| d["key"].as_str().unwrap()).collect();
    assert_eq!(part, ["k100", "k101", "k102"]);
    let page = node.page(&format!("{}?limit=2&reverse=true", documents("c")));
    assert_eq!(page["documents"][0]["key"], "ä");
    let some = node.page(&format!("{}?key=Z&key=nothing&key=k5", documents("c")));
    assert_eq!(some["documents"].as_array().unwrap().len(), 2, "{some}");
}
