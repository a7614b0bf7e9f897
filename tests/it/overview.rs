//! The whole site from one box: `/v1/site` and `cbddc status --site`.

use crate::process::{Node, wait};
use serde_json::{Value, json};

fn site(node: &Node, timeout: &str) -> Vec<Value> {
    node.page(&format!("/v1/site?timeout={timeout}"))["members"].as_array().unwrap().clone()
}
#[track_caller]
fn member<'a>(site: &'a [Value], name: &str) -> &'a Value {
    site.iter().find(|member| member["nodeId"] == name).unwrap_or_else(|| panic!("no {name} in {site:?}"))
}

/// A chain: the ends know only the one in the middle, and of each other by its word.
#[test]
fn every_member_is_seen_from_one_box_by_way_of_others_and_with_its_age_when_it_is_gone() {
    let mut middle = Node::new("site-middle");
    middle.change("Network__TcpPort", "0");
    let mut middle = middle.started();
    middle.keep_port();
    let mut left = Node::new("site-left").peers(&[&middle]).started();
    let mut right = Node::new("site-right").peers(&[&middle]).started();
    left.put("c", "k", "1").expect(201);
    wait("it arrives at the other end", || right.value("c", "k"));
    wait("both ends know of each other", || left.peer("site-right").filter(|peer| peer["unconfirmedChanges"] == 0));

    let seen = site(&left, "30s");
    let states: Vec<(&str, &str)> =
        seen.iter().map(|member| (member["nodeId"].as_str().unwrap(), member["state"].as_str().unwrap())).collect();
    assert_eq!(states, [("site-left", "self"), ("site-middle", "linked"), ("site-right", "relayed")]);
    for name in ["site-left", "site-middle", "site-right"] {
        let said = &member(&seen, name)["said"];
        assert_eq!(said["version"], left.status()["version"], "{said}");
        assert!(said["freeBytes"].as_u64().unwrap() > 0 && said["databaseBytes"].as_u64().unwrap() > 0, "{said}");
        assert!(said["clock"].is_string() && said["clockOffsetMs"].is_i64(), "{said}");
        assert_eq!(said["trackedPeers"], 2, "{said}");
        assert!(["Healthy", "Degraded"].contains(&said["health"].as_str().unwrap()), "{said}");
    }
    assert_eq!(member(&seen, "site-right")["said"]["replicaId"], right.status()["replicaId"]);
    assert_eq!(member(&seen, "site-right")["said"]["linkedPeers"], 1);

    let table = String::from_utf8(left.says(&["status", "--site", "--timeout", "30s"])).unwrap();
    let line = table.lines().find(|line| line.starts_with("site-right")).unwrap();
    assert!(line.contains("relayed") && line.contains("now"), "{table}");
    assert_eq!(table.lines().count(), 4, "{table}");

    // One end goes away. What it last said stays known, and gets older.
    right.kill();
    left.put("c", "k2", "1").expect(201);
    let gone = wait("it is silent and lags", || {
        let seen = site(&left, "100ms");
        let gone = member(&seen, "site-right").clone();
        (gone["state"] == "silent" && gone["lagMs"].as_u64() > Some(0)).then_some(gone)
    });
    assert!(gone["said"]["ageMs"].as_u64().unwrap() > 0 && gone["unconfirmedChanges"] == 1, "{gone}");
    // Also to a box that has just started: the one in the middle tells.
    left.stop_cleanly();
    left.start();
    left.wait_linked(&middle);
    let told = wait("the middle tells of who is gone", || {
        let seen = site(&left, "1s");
        Some(member(&seen, "site-right").clone()).filter(|gone| gone["said"] != json!(null))
    });
    assert_eq!((told["state"].as_str(), told["said"]["replicaId"].is_string()), (Some("silent"), true), "{told}");
    middle.stop_cleanly();
}
