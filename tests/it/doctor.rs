//! `cbddc doctor`: the deployment checklist on the spot.

use crate::lan::Lan;
use crate::process::{KEY, Node, wait};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The exit code and the points by name.
fn doctor(node: &Node) -> (Option<i32>, Vec<Value>) {
    let output = node.alone(&["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let points = report["points"].as_array().unwrap().clone();
    assert_eq!(report["ok"], output.status.code() == Some(0), "{report}");
    (output.status.code(), points)
}
#[track_caller]
fn point<'a>(points: &'a [Value], name: &str) -> &'a Value {
    points.iter().find(|point| point["point"] == name).unwrap_or_else(|| panic!("no {name} in {points:?}"))
}
/// A node whose file says where everything is, so that each command finds the same.
fn configured(name: &str) -> Node {
    let node = Node::new(name);
    node.configure(&serde_json::json!({ "Network": { "RetryAttempts": 3 } }));
    node
}

#[test]
fn each_point_says_what_was_found_and_a_healthy_place_passes() {
    let node = configured("doctor-well");
    let (code, points) = doctor(&node);
    assert_eq!(code, Some(0), "{points:?}");
    for name in [
        "configuration",
        "board",
        "clock",
        "database",
        "file system",
        "free space",
        "sync",
        "backup folder",
        "cluster key",
        "device key",
        "interfaces",
        "port of links",
        "port of the API",
        "name",
        "running node",
    ] {
        let found = point(&points, name)["found"].as_str().unwrap();
        assert!(!found.is_empty(), "{name}");
    }
    assert!(point(&points, "sync")["found"].as_str().unwrap().contains(" ms"));
    let unwell = points.iter().filter(|point| point["state"] != "ok");
    unwell.for_each(|point| assert_ne!(point["todo"], "", "{point}"));
    let left: Vec<_> = fs::read_dir(node.path("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["cluster.key"], "nothing is left where it was tried, and nothing is made");
    // For people.
    let table = String::from_utf8(node.alone(&["doctor"]).stdout).unwrap();
    assert!(table.contains("free space") && table.lines().all(|line| !line.contains('{')), "{table}");
}

#[test]
fn a_point_that_fails_is_named_with_what_to_do_and_the_exit_code_says_so() {
    let mut node = configured("doctor-ill");
    let failing = |node: &Node, name: &str, todo: &str| {
        let (code, points) = doctor(node);
        let point = point(&points, name);
        assert!(code == Some(1) && point["state"] == "fail", "{points:?}");
        assert!(point["todo"].as_str().unwrap().contains(todo), "{point}");
        point["found"].as_str().unwrap().to_string()
    };
    fs::set_permissions(node.path("data/cluster.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(failing(&node, "cluster key", "mend").contains("chmod 600"));
    node.write_key(KEY);
    node.change("Persistence__MinFreeMb", "60000000");
    failing(&node, "free space", "make room");
    node.change("Persistence__MinFreeMb", "1");
    fs::write(node.path("a-file"), "").unwrap();
    node.change("Persistence__BackupPath", "a-file/backups");
    failing(&node, "backup folder", "BackupPath");
    node.change("Persistence__BackupPath", "backups");
    node.change("Persistence__DatabasePath", "data");
    failing(&node, "database", "DatabasePath");
    node.change("Persistence__DatabasePath", "data/cbddc.db");
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    node.change("Api__HttpAddress", &held.local_addr().unwrap().to_string());
    assert!(failing(&node, "port of the API", "stop").contains(&format!("process {}", std::process::id())));
    // A wrong configuration is the end of it, as for every command.
    node.change("Network__TcpPort", "70000");
    assert_eq!(node.alone(&["doctor"]).status.code(), Some(78));
}

#[test]
fn a_node_that_runs_is_asked_for_its_health() {
    let mut node = configured("doctor-running").started();
    node.change("CBDDC_API", &node.http().to_string());
    node.keep_port();
    let address = node.http().to_string();
    node.change("Api__HttpAddress", &address);
    let (code, points) = doctor(&node);
    assert_eq!(code, Some(0), "{points:?}");
    assert!(point(&points, "running node")["found"].as_str().unwrap().starts_with("Healthy at"), "{points:?}");
    assert_eq!(point(&points, "port of links")["state"], "ok", "{points:?}");
    assert!(point(&points, "port of links")["found"].as_str().unwrap().contains("running node"), "{points:?}");
}

#[test]
fn a_name_that_another_device_has_is_found_without_joining_the_site() {
    let Some(lan) = Lan::new("a_name_that_another_device_has_is_found_without_joining_the_site", 3) else { return };
    let first = Node::on(&lan.hosts[0], "gateway-07", KEY).set("Network__BeaconIntervalMs", "500").started();
    let second = Node::on(&lan.hosts[1], "gateway-07", KEY);
    let (code, points) = doctor(&second);
    let name = point(&points, "name");
    assert!(code == Some(1) && name["state"] == "fail", "{points:?}");
    assert!(name["todo"].as_str().unwrap().contains("peers replace gateway-07"), "{name}");
    assert_eq!(point(&points, "interfaces")["state"], "ok", "{points:?}");
    wait("nobody was taken note of", || {
        let peers = first.page("/v1/peers");
        (peers["peers"] == serde_json::json!([])).then_some(())
    });
    let third = Node::on(&lan.hosts[2], "gateway-08", &"ab".repeat(32));
    let (_, points) = doctor(&third);
    let name = point(&points, "name");
    assert!(name["state"] == "warn" && name["todo"].as_str().unwrap().contains("key set"), "{name}");
}
