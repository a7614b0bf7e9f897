//! What an operator sees and decides: who lags, who was refused, who is retired, and which board is the new one.

use crate::lan::{Host, Lan};
use crate::process::{KEY, Node, wait, wait_for};
use crate::program::seconds;
use serde_json::Value;
use std::fs;
use std::time::Duration;

fn soon() -> Duration {
    seconds(30)
}

fn health(node: &Node) -> Value {
    node.page("/health")
}
fn entry(node: &Node, name: &str) -> Value {
    health(node)["entries"][name].clone()
}
fn on(host: &Host, name: &str) -> Node {
    Node::on(host, name, KEY)
        .set("Network__BeaconIntervalMs", "500")
        .set("Network__RetryDelayMs", "100")
        .set("Persistence__MinFreeMb", "1")
}
#[track_caller]
fn wait_healthy(node: &Node, tracked: u64) {
    wait_for(soon(), &format!("{} is healthy with {tracked} peers", node.name), || {
        let health = health(node);
        let peers = &health["entries"]["cbddc"]["data"];
        (health["status"] == "Healthy" && peers["trackedPeerCount"] == tracked && peers["maxLagMs"] == 0).then_some(())
    });
}

#[test]
fn a_peer_that_is_cut_off_turns_health_and_back_and_once_untracked_it_counts_no_more() {
    let test = "a_peer_that_is_cut_off_turns_health_and_back_and_once_untracked_it_counts_no_more";
    let Some(lan) = Lan::new(test, 3) else { return };
    let node = |at: usize, name: &str| {
        on(&lan.hosts[at], name)
            .set("Cluster__PeerConfirmationLagThresholdMs", "3000")
            .set("Cluster__PeerConfirmationCriticalLagThresholdMs", "12000")
            .set("Cluster__HealthCheckIntervalMs", "1000")
            .started()
    };
    let (left, right, cut) = (node(0, "left"), node(1, "right"), node(2, "cut-off"));
    left.put("c", "k0", "0").expect(201);
    [&left, &right, &cut].into_iter().for_each(|node| wait_healthy(node, 2));

    lan.hosts[2].plug("down");
    left.put("c", "k1", "1").expect(201);
    // On a busy machine the one that is there may be late for a moment, too.
    let turns = |status: &str| {
        wait_for(soon(), &format!("health is {status} because of cut-off alone"), || {
            let is_it = |health: &Value| {
                health["status"] == status
                    && health["entries"]["cbddc"]["data"]["laggingPeers"] == serde_json::json!(["cut-off"])
            };
            Some(health(&left)).filter(is_it)
        })
    };
    let degraded = turns("Degraded");
    let data = &degraded["entries"]["cbddc"]["data"];
    assert!((3_001..=12_000).contains(&data["maxLagMs"].as_u64().unwrap()), "{degraded}");
    assert_eq!(left.ask("GET", "/health", &[], b"").status, 200);
    assert_eq!(left.cli(&["health"]).status.code(), Some(1));
    wait("the node's own health check warns", || {
        let warned =
            |line: &str| line.contains("WARN") && line.contains("health check") && line.contains("lagging=\"cut-off\"");
        left.log().lines().any(warned).then_some(())
    });
    turns("Unhealthy");
    assert_eq!(left.ask("GET", "/health", &[], b"").status, 503);
    assert_eq!(left.cli(&["health"]).status.code(), Some(2));

    lan.hosts[2].plug("up");
    wait("it catches up", || cut.value("c", "k1"));
    [&left, &right, &cut].into_iter().for_each(|node| wait_healthy(node, 2));

    // Cut off for good, and untracked on one node for all.
    lan.hosts[2].plug("down");
    right.put("c", "k2", "2").expect(201);
    turns("Unhealthy");
    left.says(&["peers", "untrack", "cut-off"]);
    [&left, &right].into_iter().for_each(|node| wait_healthy(node, 1));
    assert_eq!(right.peer("cut-off").unwrap()["state"], "untracked");
    // It comes back: a member again.
    lan.hosts[2].plug("up");
    wait("it catches up", || cut.value("c", "k2"));
    [&left, &right, &cut].into_iter().for_each(|node| wait_healthy(node, 2));
}

#[test]
fn a_wiped_board_comes_back_under_its_name_and_one_command_takes_it_in() {
    let Some(lan) = Lan::new("a_wiped_board_comes_back_under_its_name_and_one_command_takes_it_in", 5) else { return };
    let mut nodes: Vec<Node> =
        (1..=5).map(|number| on(&lan.hosts[number - 1], &format!("gw-{number}")).started()).collect();
    for node in &nodes {
        node.put("c", &node.name, "1").expect(201);
    }
    let agree = |nodes: &[Node], documents: usize| {
        wait_for(soon(), &format!("all hold the same {documents} documents"), || {
            let first = nodes[0].everything("c");
            (first.len() == documents && nodes[1..].iter().all(|node| node.everything("c") == first)).then_some(())
        });
    };
    agree(&nodes, 5);
    nodes.iter().for_each(|node| wait_healthy(node, 4));
    assert_eq!(nodes[1].cli(&["peers", "replace", "gw-5"]).status.code(), Some(1), "nobody was refused");

    let mut wiped = nodes.pop().unwrap();
    wiped.kill();
    nodes[2].delete("c", "gw-1").expect(204);
    nodes[2].put("c", "meanwhile", "1").expect(201);
    fs::remove_dir_all(wiped.path("data")).unwrap();
    wiped.write_key(KEY);
    wiped.start();
    wiped.put("c", "written-while-refused", "1").expect(201);

    for node in &nodes {
        let said = wait_for(soon(), &format!("{} names the refused device", node.name), || {
            let entry = entry(node, "members");
            (entry["status"] == "Degraded").then_some(entry)
        });
        assert!(said["description"].as_str().unwrap().contains("peers replace gw-5"), "{said}");
        assert_eq!(said["data"]["refused"], serde_json::json!(["gw-5"]));
        let heard = node.page("/v1/peers")["heard"].clone();
        let address = format!("{}:5000", lan.hosts[4].address());
        let named =
            |one: &Value| one["address"] == *address && one["reason"].as_str().unwrap().contains("peers replace");
        assert!(heard.as_array().unwrap().iter().any(named), "{heard}");
        assert!(node.value("c", "written-while-refused").is_none());
    }
    let said = wait_for(soon(), "the refused one says so itself", || {
        Some(entry(&wiped, "members")).filter(|entry| entry["status"] == "Unhealthy")
    });
    assert!(said["description"].as_str().unwrap().contains("peers replace gw-5"), "{said}");
    assert!(
        wiped.log().lines().any(|line| line.contains("this node is refused") && line.contains("peers replace gw-5"))
    );

    let said = String::from_utf8(nodes[1].says(&["peers", "replace", "gw-5"])).unwrap();
    assert!(said.starts_with("gw-5 is the device "), "{said}");
    nodes.push(wiped);
    agree(&nodes, 6);
    nodes.iter().for_each(|node| wait_healthy(node, 4));
    for node in &nodes {
        assert!(node.value("c", "written-while-refused").is_some() && node.value("c", "gw-1").is_none());
        assert_eq!(node.page("/v1/peers")["peers"].as_array().unwrap().len(), 4);
    }
}

#[test]
fn a_peer_that_nobody_knows_is_neither_untracked_nor_replaced() {
    let node = Node::new("alone").started();
    node.ask("DELETE", "/v1/peers/nobody", &[], b"").expect(404);
    let answer = node.ask("POST", "/v1/peers/nobody/replace", &[], b"").expect(404);
    assert_eq!(answer.problem(), "REQUEST_ERROR/NoSuchPeer");
    node.ask("DELETE", "/v1/peers/alone", &[], b"").expect(400);
    let said = node.cli(&["peers", "untrack", "nobody"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stderr).contains("no peer is called nobody"), "{said:?}");
}

#[test]
fn a_visitor_is_served_and_never_tracked() {
    let mut left = Node::new("home-a").started();
    left.keep_port();
    let right = Node::new("home-b").peers(&[&left]).started();
    left.wait_linked(&right);
    let mut laptop = Node::new("laptop").set("Cluster__Visitor", "true").peers(&[&left, &right]).started();
    left.put("c", "k", "1").expect(201);
    wait("the visitor is served", || laptop.value("c", "k"));
    laptop.put("c", "from-laptop", "1").expect(201);
    wait("what it writes arrives", || right.value("c", "from-laptop"));
    laptop.stop_cleanly();
    left.put("c", "k", "2").expect(200);
    for node in [&left, &right] {
        wait_healthy(node, 1);
        assert_eq!(node.peer("laptop").unwrap()["state"], "untracked");
    }
}

const OTHER_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn set_key(node: &Node, key: &str) {
    fs::write(node.path("key.txt"), key).unwrap();
    node.says(&["key", "set", "key.txt"]);
}

#[test]
fn a_key_that_is_set_on_a_running_node_joins_it_without_a_restart() {
    let test = "a_key_that_is_set_on_a_running_node_joins_it_without_a_restart";
    let Some(lan) = Lan::new(test, 2) else { return };
    let member = on(&lan.hosts[0], "member").started();
    // As delivered: it has made a key of its own, and documents.
    let fresh = Node::bare("fresh", Some(lan.hosts[1].clone())).set("Network__BeaconIntervalMs", "500").started();
    member.put("c", "site", "1").expect(201);
    fresh.put("c", "own", "1").expect(201);
    for (node, other) in [(&member, &lan.hosts[1]), (&fresh, &lan.hosts[0])] {
        let address = other.address().to_string();
        let said = wait("the stranger is named with what to do", || {
            let heard = node.page("/v1/peers")["heard"].clone();
            heard.as_array().unwrap().iter().find(|one| one["address"] == *address).cloned()
        });
        assert!(said["reason"].as_str().unwrap().contains("cbddc key set"), "{said}");
        assert!(node.log().lines().any(|line| line.contains("stranger") && line.contains("cbddc key set")));
    }
    let process = fresh.process();
    set_key(&fresh, KEY);
    for node in [&member, &fresh] {
        wait("both hold both documents", || {
            (node.value("c", "site").is_some() && node.value("c", "own").is_some()).then_some(())
        });
        wait_healthy(node, 1);
        assert_eq!(node.page("/v1/peers")["heard"], serde_json::json!([]));
    }
    assert_eq!(fresh.process(), process);
}

#[test]
fn a_site_is_given_another_key_one_node_after_the_other() {
    let mut left = Node::new("key-a").started();
    left.keep_port();
    let mut right = Node::new("key-b").peers(&[&left]).started();
    left.wait_linked(&right);
    set_key(&left, OTHER_KEY);
    wait("it is in force", || left.log().contains("a new cluster key is in force").then_some(()));
    // The other node has the old key alone, and links anew.
    right.stop_cleanly();
    right.start();
    left.wait_linked(&right);
    left.put("c", "k1", "1").expect(201);
    wait("it arrives", || right.value("c", "k1"));
    set_key(&right, OTHER_KEY);
    wait("it is in force", || right.log().contains("a new cluster key is in force").then_some(()));
    // A restart ends the time of the old key: the new one is all that there is.
    left.stop_cleanly();
    left.start();
    left.wait_linked(&right);
    right.put("c", "k2", "2").expect(201);
    wait("it arrives", || left.value("c", "k2"));
}

#[test]
fn a_key_file_that_is_no_key_changes_nothing_and_is_said() {
    let (mut left, key) = (Node::new("no-key-a").started(), "deadbeef");
    left.keep_port();
    let right = Node::new("no-key-b").peers(&[&left]).started();
    left.wait_linked(&right);
    left.write_key(key);
    wait("it is said", || left.log().contains("not taken over, the key before stays in force").then_some(()));
    left.put("c", "k", "1").expect(201);
    wait("the link is as it was", || right.value("c", "k"));
    assert!(!left.log().contains(key));
}

#[test]
fn a_peer_that_is_not_linked_says_where_it_was_and_why_not() {
    let mut left = Node::new("away-a").started();
    left.keep_port();
    let right = Node::new("away-b").peers(&[&left]).started();
    right.wait_linked(&left);
    let address = left.links().to_string();
    assert_eq!(right.peer("away-a").unwrap()["address"], *address);
    assert!(right.peer("away-a").unwrap().get("lastError").is_none());
    left.kill();
    let peer = wait("it is said why not", || {
        right.peer("away-a").filter(|peer| peer["lastError"].as_str().is_some_and(|error| error.contains("refused")))
    });
    assert!(peer["state"] == "backoff" || peer["state"] == "connecting", "{peer}");
    assert_eq!(peer["address"], *address);
    let heard = right.page("/v1/peers")["heard"].clone();
    let named = |one: &Value| one["address"] == *address && one["reason"].as_str().unwrap().contains("no node listens");
    assert!(heard.as_array().unwrap().iter().any(named), "{heard}");
    left.start();
    right.wait_linked(&left);
    assert!(right.peer("away-a").unwrap().get("lastError").is_none());
    assert_eq!(right.page("/v1/peers")["heard"], serde_json::json!([]));
}

#[test]
fn after_a_restart_confirmations_are_known_and_lag_counts_from_the_start() {
    let mut left = Node::new("again-a").set("Cluster__PeerConfirmationLagThresholdMs", "1000").started();
    left.keep_port();
    let mut right = Node::new("again-b").peers(&[&left]).started();
    left.put("c", "k1", "1").expect(201);
    wait_healthy(&left, 1);
    right.stop_cleanly();
    left.put("c", "k2", "2").expect(201);
    wait("it lags", || (entry(&left, "cbddc")["status"] == "Degraded").then_some(()));
    left.stop_cleanly();
    left.start();
    let data = entry(&left, "cbddc")["data"].clone();
    assert_eq!(data["peersWithNoConfirmation"], serde_json::json!([]), "{data}");
    assert!(data["lastSuccessfulConfirmationUpdateByPeer"]["again-b"].is_string(), "{data}");
    // What it has not confirmed is known; for how long it has been waiting is not.
    assert_eq!(left.peer("again-b").unwrap()["unconfirmedChanges"], 1);
    wait("it lags again", || (entry(&left, "cbddc")["status"] == "Degraded").then_some(()));
    right.start();
    wait_healthy(&left, 1);
}
