//! The log of a node: its levels, what is not said again and again, and what is never said.

use crate::client::document;
use crate::process::{KEY, Node, field, wait};
use std::fs;

fn count(node: &Node, level: &str, event: &str) -> usize {
    node.log().lines().filter(|line| line.contains(level) && line.contains(event)).count()
}

#[test]
fn the_levels_mean_what_the_guide_says() {
    let left = Node::new("levels-a").set("Logging__Level", "Trace").started();
    let right = Node::new("levels-b").set("Logging__Level", "Trace").set("Persistence__AutoRecover", "false");
    let mut right = right.peers(&[&left]).started();
    left.wait_linked(&right);
    left.put("c", "k", "1").expect(201);
    wait("it arrives", || right.value("c", "k"));
    // What is read while something is written is not kept in the cache: the first read that is comes when it comes.
    wait("it is read from the cache", || {
        right.get("c", "k").expect(200);
        (count(&right, " TRACE ", "cache hit collection=c") > 0).then_some(())
    });
    right.get("d", "none").expect(404);
    let said = |node: &Node, level: &'static str, event: &'static str| {
        wait(&format!("{} says {level} {event}", node.name), || (count(node, level, event) > 0).then_some(()));
    };
    said(&right, " TRACE ", "cache miss collection=c");
    said(&right, " DEBUG ", "sync ");
    said(&right, " INFO ", "node started");
    said(&right, " INFO ", "peer linked node=levels-a");
    said(&right, " WARN ", "document not found collection=d");
    right.stop_cleanly();
    assert!(fs::read_to_string(right.path("node.log")).unwrap().contains(" INFO  stopped"));
    // A database that is no database: it cannot be opened.
    fs::write(right.path("data/cbddc.db"), vec![b'x'; 8192]).unwrap();
    let (status, log) = right.run_to_end();
    assert!(!status.success() && log.contains(" CRIT "), "{log}");
}

#[test]
fn a_repeated_event_is_written_ten_times_a_minute_for_each_collection_and_then_counted() {
    let mut node = Node::new("repeated").started();
    let mut connection = node.connect();
    for n in 0..50 {
        for collection in ["a", "b"] {
            connection.ask("GET", &document(collection, &format!("none-{n}")), &[], b"").unwrap().expect(404);
        }
    }
    for collection in ["a", "b"] {
        let event = format!("document not found collection={collection}");
        wait("all that is written is there", || (count(&node, "WARN", &event) >= 10).then_some(()));
        assert_eq!(count(&node, "WARN", &event), 10, "{}", node.tail());
    }
    // What was left out is said, at the latest when the node stops.
    node.stop_cleanly();
    let log = fs::read_to_string(node.path("node.log")).unwrap();
    for collection in ["a", "b"] {
        let counted: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&format!("collection={collection} ")) && line.contains("left_out="))
            .collect();
        assert_eq!(counted.len(), 1, "{log}");
        assert_eq!(field(counted[0], "left_out"), "40");
    }
}

#[test]
fn neither_keys_nor_tokens_nor_values_are_ever_logged() {
    let secret = "a-value-that-nobody-may-read";
    let token = "the-token-of-this-node-0123456789";
    let node = Node::new("secrets-a").set("Logging__Level", "Trace").set("Api__TokenFile", "token");
    fs::write(node.path("token"), token).unwrap();
    let left = node.started();
    let right = Node::new("secrets-b").set("Logging__Level", "Trace").peers(&[&left]).started();
    let bearer = format!("Bearer {token}");
    let personal = "somebody@example";
    let path = document("c", personal);
    let value = format!("{{\"password\":\"{secret}\"}}");
    let with_token = [("Authorization", bearer.as_str())];
    left.ask("PUT", &path, &with_token, value.as_bytes()).expect(201);
    wait("it arrives", || right.value("c", personal));
    right.get("c", personal).expect(200);
    right.get("d", personal).expect(404);
    right.delete("c", personal).expect(204);
    // Wrong ones of each kind.
    left.ask("PUT", &path, &with_token, format!("{{\"password\":{secret}").as_bytes()).expect(400);
    left.ask("PUT", &path, &[("Authorization", "Bearer wrong-token-but-secret")], b"1").expect(401);
    let stranger_key = "0f".repeat(32);
    let stranger = Node::new("secrets-c").set("Logging__Level", "Trace");
    stranger.write_key(&stranger_key);
    let stranger = stranger.peers(&[&left]).started();
    wait("the stranger is refused", || left.log().contains("link refused").then_some(()));
    right.write_key(&format!("{}zz", "e1".repeat(31)));
    wait("the broken key is seen", || right.log().contains("is not taken over").then_some(()));
    let device = |node: &Node| fs::read_to_string(node.path("data/device.key")).unwrap().trim().to_string();
    let devices = [device(&left), device(&right), device(&stranger)];
    for node in [&left, &right, &stranger] {
        let log = node.log();
        for never in [secret, personal, token, "wrong-token-but-secret", KEY, &stranger_key, &"e1".repeat(31)] {
            assert!(!log.contains(never), "{} has logged {never}", node.name);
        }
        assert!(devices.iter().all(|key| !log.contains(key.as_str())), "{} has logged a device key", node.name);
    }
}
