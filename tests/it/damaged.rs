//! Nodes whose database is damaged and that have nothing to take its place from.

use crate::process::{Node, wait};
use std::collections::BTreeSet;
use std::path::Path;

const PAGE: usize = 4096;
const COUNT: usize = 2000;

fn value(n: usize) -> String {
    format!("\"document {n} {}\"", "x".repeat(n % 150))
}

fn fill(node: &Node) {
    for from in (0..COUNT).step_by(500) {
        let lines: String =
            (from..from + 500).map(|n| format!("{{\"key\":\"k{n:05}\",\"value\":{}}}\n", value(n))).collect();
        let headers = [("Content-Type", "application/x-ndjson")];
        node.ask("POST", "/v1/collections/c/documents", &headers, lines.as_bytes()).expect(200);
    }
}

/// Keys of the rows in the cells of a leaf. What stands between them is of rows that were moved.
fn keys_of(page: &[u8]) -> BTreeSet<String> {
    let short = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    let cells = (0..short(3)).map(|nth| &page[short(8 + 2 * nth)..]);
    // The collection, then the key.
    let key = |cell: &[u8]| {
        let at = cell.windows(7).position(|text| text.starts_with(b"ck") && text[2..].iter().all(u8::is_ascii_digit));
        String::from_utf8(cell[at.expect("a row") + 1..][..6].to_vec()).unwrap()
    };
    cells.map(key).collect()
}

/// Writes nonsense over one leaf of rows; the keys of the documents that stood there.
fn break_leaf(database: &Path) -> BTreeSet<String> {
    let mut bytes = std::fs::read(database).unwrap();
    let leaves: Vec<usize> = (2..bytes.len() / PAGE).filter(|at| bytes[at * PAGE] == 13).collect();
    let with_it = leaves.into_iter().find(|at| {
        let page = &bytes[at * PAGE..(at + 1) * PAGE];
        page.windows(8).any(|text| text == b"ck01000\"") && keys_of(page).contains("k01000")
    });
    let leaf = with_it.expect("it is somewhere");
    let lost = keys_of(&bytes[leaf * PAGE..(leaf + 1) * PAGE]);
    bytes[leaf * PAGE..leaf * PAGE + 64].fill(0xa5);
    std::fs::write(database, bytes).unwrap();
    lost
}

fn keys(stdout: &[u8]) -> BTreeSet<String> {
    let lines = std::str::from_utf8(stdout).unwrap().lines();
    let keys = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    keys.filter_map(|line| Some(line.get("key")?.as_str()?.to_string())).collect()
}

#[test]
fn everything_that_is_whole_comes_out_of_a_damaged_database_and_what_does_not_is_told() {
    let mut node = Node::new("damaged-alone").started();
    fill(&node);
    node.stop_cleanly();
    let lost = break_leaf(&node.path("data/cbddc.db"));
    assert!(!lost.is_empty() && lost.len() < 100);
    node.start();
    let whole: BTreeSet<String> = (0..COUNT).map(|n| format!("k{n:05}")).filter(|key| !lost.contains(key)).collect();
    for command in [&["export", "c"][..], &["list", "c", "--json"], &["changes", "c"]] {
        let ran = node.cli(command);
        let told = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{command:?}: {told}");
        assert_eq!(keys(&ran.stdout), whole, "{command:?}: {told}");
        let last = told.lines().last().unwrap_or_default();
        assert!(last.starts_with("error[PERSISTENCE_ERROR]: ") || last.starts_with('{'), "{command:?}: {told}");
        assert!(last.contains("not complete") || last.contains("\"complete\":false"), "{command:?}: {told}");
    }
    let ran = node.cli(&["export", "c", "--json"]);
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    let summary: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!((summary["documents"].as_u64(), summary["complete"].as_bool()), (Some(lost.len() as u64), Some(false)));
    // The file by itself, be its header and the node's own record broken, too.
    node.stop_cleanly();
    let mut bytes = std::fs::read(node.path("data/cbddc.db")).unwrap();
    bytes[16..100].fill(0xff);
    std::fs::write(node.path("broken.db"), bytes).unwrap();
    let ran = node.offline(&["export", "c", "--file", "broken.db"]);
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!((ran.status.code(), keys(&ran.stdout)), (Some(1), whole), "{told}");
    assert!(told.contains("not complete"), "{told}");
    node.start();
    wait("it is found again", || {
        node.get("c", lost.first().unwrap());
        (node.page("/health")["entries"]["storage"]["status"] == "Unhealthy").then_some(())
    });
    let health = node.page("/health");
    assert_eq!(health["entries"]["storage"]["status"], "Unhealthy");
    node.put("c", "k00000", "1");
}

#[test]
fn structural_damage_that_is_found_while_it_runs_is_met_as_at_the_start_where_it_is_left_to_a_person() {
    let node = Node::new("damaged-by-hand").set("Persistence__AutoRecover", "false");
    let mut node =
        node.set("Sync__EnableOfflineQueue", "false").set("Persistence__EnableAutoBackup", "false").started();
    let peer = Node::new("damaged-peer").peers(&[&node]).started();
    fill(&node);
    node.wait_linked(&peer);
    wait("the peer has all of it", || (peer.everything("c").len() == COUNT).then_some(()));
    node.keep_port();
    node.stop_cleanly();
    let lost = break_leaf(&node.path("data/cbddc.db"));
    let bytes = std::fs::read(node.path("data/cbddc.db")).unwrap();
    node.start();
    wait("it is found", || {
        node.get("c", lost.first().unwrap());
        (node.page("/health")["entries"]["storage"]["status"] == "Unhealthy").then_some(())
    });
    wait("nobody is linked", || (!node.is_linked_to("damaged-peer")).then_some(()));
    // The queue is off: it can only be tried again.
    let refused = node.put("c", "new", "1").expect(503);
    assert!(refused.text().contains("AutoRecover is off"), "{}", refused.text());
    let said = node.page("/health")["entries"]["storage"]["description"].as_str().unwrap().to_string();
    assert!(said.contains("AutoRecover") && said.contains("cbddc restore") && said.contains("cbddc export"), "{said}");
    peer.put("c", "from-peer", "1").expect(201);
    let ran = node.cli(&["export", "c"]);
    assert_eq!(ran.status.code(), Some(1));
    let exported = keys(&ran.stdout);
    assert!(exported.len() == COUNT - lost.len() && !exported.contains("from-peer"), "{} came out", exported.len());
    let after = std::fs::read(node.path("data/cbddc.db")).unwrap();
    assert_eq!(after.len(), bytes.len(), "nothing is set aside and nothing grows");
}

#[test]
fn places_that_cannot_be_used_are_a_wrong_configuration_and_a_delete_is_told_as_json() {
    let node = Node::new("places").started();
    node.put("c", "k", "1").expect(201);
    let ran = node.cli(&["delete", "c", "k", "--json"]);
    assert_eq!((ran.status.code(), &ran.stdout[..]), (Some(0), &b"{\"deleted\":true}\n"[..]));
    let node = Node::new("places-wrong").set("Persistence__DatabasePath", "data");
    std::fs::create_dir_all(node.path("data")).unwrap();
    let ran = node.offline(&["config", "check"]);
    let told = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(78), "{told}");
    assert!(told.contains("CBDDC.Persistence.DatabasePath") && told.contains("is a folder"), "{told}");
}
