//! SIGHUP: a node reads its configuration again while it runs.

use crate::process::{Node, field, wait};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The lines of the log with this text.
fn lines(node: &Node, text: &str) -> Vec<String> {
    node.log().lines().filter(|line| line.contains(text)).map(String::from).collect()
}
/// Reloads, and gives the line that says what came of it.
fn reloaded(node: &Node, outcome: &str) -> String {
    let before = lines(node, outcome).len();
    node.reload();
    wait(&format!("{} says: {outcome}", node.name), || lines(node, outcome).get(before).cloned())
}

#[test]
fn a_running_node_takes_over_what_may_change_and_names_what_waits() {
    let other = Node::new("reload-other").started();
    let node = Node::new("reload-node");
    node.configure(&json!({
        "Cluster": { "PeerConfirmationLagThresholdMs": 3_600_000, "PeerConfirmationCriticalLagThresholdMs": 7_200_000 },
        "Persistence": { "CacheSizeMb": 8 },
    }));
    let node = node.started();
    node.put("c", "k", "1").expect(201);
    assert_eq!(node.status()["cache"]["capacityBytes"], 8 * 1024 * 1024);
    assert!(node.get("c", "k").status == 200 && lines(&node, "cache hit").is_empty());

    node.configure(&json!({
        "Cluster": {
            "Peers": [other.links().to_string()],
            "PeerConfirmationLagThresholdMs": 100, "PeerConfirmationCriticalLagThresholdMs": 300,
        },
        "Persistence": { "CacheSizeMb": 2, "BackupKeep": 3 },
        "Collections": { "short": { "TtlSeconds": 1 } },
        "Logging": { "Level": "Trace" },
    }));
    let said = reloaded(&node, "configuration reloaded");
    for key in [
        "CBDDC.Cluster.Peers",
        "CBDDC.Cluster.PeerConfirmationLagThresholdMs",
        "CBDDC.Persistence.CacheSizeMb",
        "CBDDC.Logging.Level",
        "CBDDC.Collections.short.TtlSeconds",
    ] {
        assert!(said.contains(key), "{key} is not in {said}");
    }
    let waits = wait("what waits is named", || lines(&node, "take effect at the next start").pop());
    assert!(waits.contains("WARN") && field(&waits, "keys") == "\"CBDDC.Persistence.BackupKeep\"", "{waits}");
    assert_eq!(node.status()["cache"]["capacityBytes"], 2 * 1024 * 1024);
    node.get("c", "k").expect(200);
    wait("hits of the cache are traced", || lines(&node, "cache hit").pop());
    node.put("short", "k", "1").expect(201);
    wait("a document of that collection expires", || node.value("short", "k").is_none().then_some(()));
    node.wait_linked(&other);
    wait("it has everything", || node.peer("reload-other").filter(|peer| peer["confirmed"] == true));
    other.freeze();
    node.put("c", "k2", "1").expect(201);
    wait("the new thresholds hold", || (node.ask("GET", "/health", &[], b"").status == 503).then_some(()));
    other.thaw();

    // The peer is taken out again, as JSON from here on.
    node.configure(&json!({ "Logging": { "Format": "json" } }));
    let said = reloaded(&node, "configuration reloaded");
    let line: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(line["level"], "Information", "{said}");
    assert!(line["fields"]["changed"].as_str().unwrap().contains("Cluster.Peers"), "{said}");
}

#[test]
fn a_wrong_file_changes_nothing_and_is_said() {
    let node = Node::new("reload-wrong");
    node.configure(&json!({ "Persistence": { "CacheSizeMb": 4 } }));
    let mut node = node.started();
    let stays = "not reloaded, the one before stays in force: error[CONFIG_ERROR]";
    let refused = |node: &Node, why: &str| {
        let said = reloaded(node, stays);
        assert!(said.contains("ERROR") && said.contains(why), "{said}");
        assert_eq!(node.status()["cache"]["capacityBytes"], 4 * 1024 * 1024);
        node.still_serves();
    };
    node.configure(&json!({ "Persistence": { "CacheSizeMb": 1 }, "Logging": { "Level": "Chatty" } }));
    refused(&node, "CBDDC.Logging.Level");
    node.configure(&json!({ "Persistence": { "CacheSizeMb": 1 }, "Logging": { "Path": "/dev/null/log" } }));
    refused(&node, "CBDDC.Logging.Path");
    fs::write(node.path("appsettings.json"), "{").unwrap();
    refused(&node, "not JSON");
    fs::remove_file(node.path("appsettings.json")).unwrap();
    refused(&node, "is gone");
    node.configure(&json!({ "Persistence": { "CacheSizeMb": 1 } }));
    fs::set_permissions(node.path("data/cluster.key"), fs::Permissions::from_mode(0o644)).unwrap();
    refused(&node, "chmod 600");
    node.write_key("not a key");
    refused(&node, "is not a key");
    node.write_key(&"ab".repeat(32));
    let said = reloaded(&node, "configuration reloaded");
    // The file may have been noticed before the signal was.
    assert!(
        said.contains("new_cluster_key=true") || !lines(&node, "a new cluster key is in force").is_empty(),
        "{said}"
    );
    assert!(!node.log().contains(&"ab".repeat(32)), "a key is never logged");
    assert_eq!(node.status()["cache"]["capacityBytes"], 1024 * 1024);
    node.stop_cleanly();
}
