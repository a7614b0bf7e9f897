//! Requests that wait for peers: `?confirmedBy=N` and `/readyz?sync`.

use crate::client::document;
use crate::process::{Node, wait};
use serde_json::json;
use std::thread;

fn confirmed(node: &Node, method: &str, key: &str, query: &str) -> crate::client::Answer {
    let body: &[u8] = if method == "PUT" { b"1" } else { b"" };
    node.ask(method, &format!("{}?{query}", document("c", key)), &[], body)
}
fn names(answer: &crate::client::Answer) -> Vec<String> {
    let json = answer.json();
    let mut names: Vec<String> =
        json["confirmedBy"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string()).collect();
    names.sort();
    names
}

/// A chain: the ends know only the one in the middle.
#[test]
fn a_write_is_confirmed_by_peers_and_by_peers_of_peers_or_says_that_it_is_stored() {
    let middle = Node::new("confirm-middle").started();
    let left = Node::new("confirm-left").peers(&[&middle]).started();
    let mut right = Node::new("confirm-right").peers(&[&middle]).started();
    left.wait_linked(&middle);
    right.wait_linked(&middle);
    wait("both ends know of each other", || left.peer("confirm-right"));

    let both = confirmed(&left, "PUT", "k", "confirmedBy=2&timeout=30s").expect(200);
    assert_eq!(names(&both), ["confirm-middle", "confirm-right"]);
    assert_eq!(right.get("c", "k").expect(200).version(), both.version(), "it is there already");
    let version = left.get("c", "k");
    assert_eq!(both.json()["version"], version.version().trim_matches('"'));

    // More than there are: stored, and that is said.
    let late = confirmed(&left, "PUT", "late", "confirmedBy=3&timeout=2s");
    assert_eq!((late.status, late.problem().as_str()), (504, "TIMEOUT_ERROR/-"));
    assert_eq!(late.json()["stored"], json!(true));
    assert!(left.value("c", "late").is_some());

    // The one at the other end is away: the middle alone confirms.
    right.freeze();
    let one = confirmed(&left, "DELETE", "k", "confirmedBy=1&timeout=30s").expect(200);
    assert_eq!(names(&one), ["confirm-middle"]);
    let late = confirmed(&left, "PUT", "away", "confirmedBy=2&timeout=500ms");
    assert_eq!((late.status, names(&late)), (504, vec!["confirm-middle".to_string()]));
    // Whoever waits is answered as soon as it is back.
    let answer = thread::scope(|scope| {
        let waiting = scope.spawn(|| confirmed(&left, "PUT", "back", "confirmedBy=2&timeout=60s"));
        wait("it is stored", || left.value("c", "back"));
        right.thaw();
        waiting.join().unwrap()
    });
    assert_eq!(names(&answer.expect(200)), ["confirm-middle", "confirm-right"]);
    right.stop_cleanly();

    let local = Node::new("confirm-local").set("Collections__c__Scope", "local").started();
    assert_eq!(confirmed(&local, "PUT", "k", "confirmedBy=1").problem(), "REQUEST_ERROR/BadRequest");
}

#[test]
fn the_command_line_waits_for_confirmations() {
    let left = Node::new("confirm-cli-a").started();
    let said = left.cli(&["put", "c", "k", "1", "--confirmed-by", "1", "--timeout", "200ms"]);
    assert_eq!(said.status.code(), Some(1));
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.starts_with("error[TIMEOUT_ERROR]: it is on this node's disk"), "{said}");
    let right = Node::new("confirm-cli-b").peers(&[&left]).started();
    left.wait_linked(&right);
    let said = left.says(&["put", "c", "k", "2", "--confirmed-by", "1", "--timeout", "30s"]);
    assert!(String::from_utf8(said).unwrap().trim_end().ends_with("on disk at confirm-cli-b too"));
    left.says(&["delete", "c", "k", "--confirmed-by", "1", "--timeout", "30s"]);
    assert_eq!(right.value("c", "k"), None);
}

/// A node that stops does not keep those who wait for peers, nor do they keep it.
#[test]
fn a_node_that_stops_answers_whoever_waits_for_peers() {
    let mut alone = Node::new("confirm-stop").started();
    let address = alone.http();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let stream = std::net::TcpStream::connect(address).unwrap();
            let path = format!("{}?confirmedBy=1&timeout=5m", document("c", "k"));
            crate::client::Connection::new(stream, address).ask("PUT", &path, &[], b"1").unwrap()
        });
        wait("it is stored", || alone.value("c", "k"));
        alone.stop_cleanly();
        let answer = waiting.join().unwrap();
        assert_eq!((answer.status, answer.json()["stored"].clone()), (504, json!(true)));
    });
}

#[test]
fn ready_in_step_waits_for_the_peers_that_are_seen() {
    let mut left = Node::new("sync-a").started();
    left.keep_port();
    let alone = left.ask("GET", "/readyz?sync&timeout=20s", &[], b"");
    assert_eq!((alone.status, alone.json()["reasons"].clone()), (200, json!([])), "nobody is there to be waited for");
    for n in 0..200 {
        left.put("c", &format!("k{n}"), "1").expect(201);
    }
    let right = Node::new("sync-b").peers(&[&left]).started();
    right.ask("GET", "/readyz?sync&timeout=30s", &[], b"").expect(200);
    assert_eq!(right.everything("c").len(), 200, "what it says is so");
    // A peer that accepts and says nothing is seen, and cannot be caught up with.
    left.freeze();
    let mut third = Node::new("sync-c").peers(&[&left]);
    third.start();
    let waiting = third.ask("GET", "/readyz?sync&timeout=300ms", &[], b"");
    assert_eq!(waiting.status, 503, "{}", waiting.text());
    assert_eq!(waiting.json()["ready"], json!(false));
    assert!(!waiting.json()["reasons"].as_array().unwrap().is_empty());
    third.ask("GET", "/readyz", &[], b"").expect(200);
    left.thaw();
    third.ask("GET", "/readyz?sync&timeout=60s", &[], b"").expect(200);
    assert_eq!(third.everything("c").len(), 200);
    third.ask("GET", "/livez", &[], b"").expect(200);
}
