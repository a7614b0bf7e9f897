//! Backups, restores and checks as an operator has them: the command line, the API, and databases that are put back next to
//! peers that live on.

use crate::client::documents;
use crate::process::{Node, data, wait};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
fn backup_entry(node: &Node) -> serde_json::Value {
    node.page("/health")["entries"]["backup"].clone()
}
/// Backups by their numbers, oldest first.
fn backups(node: &Node) -> Vec<String> {
    let Ok(entries) = fs::read_dir(node.path("backups")) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "latest.db");
    names.sort_by_key(|name| name.rsplit('-').next().unwrap().to_string());
    names
}
/// A command that needs no running node.
fn offline(node: &Node, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = node.offline(arguments);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}
/// Puts many small documents.
fn bulk(node: &Node, collection: &str, from: usize, to: usize) {
    let line = |n: usize| format!("{{\"key\":\"{n:05}\",\"value\":{{\"n\":{n},\"pad\":\"{}\"}}}}\n", "x".repeat(100));
    for from in (from..to).step_by(500) {
        let body: String = (from..to.min(from + 500)).map(line).collect();
        let headers = [("Content-Type", "application/x-ndjson")];
        let answer = node.ask("POST", &documents(collection), &headers, body.as_bytes()).expect(200).json();
        assert_eq!(answer["failed"], 0, "{answer}");
    }
}

#[test]
fn an_operator_backs_up_checks_and_restores() {
    let mut node = Node::new("operator").set("Persistence__BackupKeep", "2").started();
    assert_eq!(backup_entry(&node)["status"], "Healthy");
    bulk(&node, "c", 0, 1500);
    let made = node.ask("POST", "/v1/backups", &[], b"").expect(201).json();
    let path = PathBuf::from(made["path"].as_str().unwrap());
    assert!(path.is_absolute() && made["durationMs"].is_u64(), "{made}");
    assert_eq!(fs::metadata(&path).unwrap().len(), made["bytes"].as_u64().unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(node.ask("GET", "/v1/backups", &[], b"").header("allow"), Some("POST"));
    assert_eq!(node.ask("POST", "/v1/backups?where=here", &[], b"").status, 400);
    let said = text(&node.says(&["backup"]));
    assert!(said.starts_with("nothing has changed since ") && said.contains("-000001.db"), "{said}");

    node.put("c", "later", "1").expect(201);
    let copy = node.path("copy.db");
    let said = text(&node.says(&["backup", "copy.db"]));
    assert!(said.starts_with(copy.to_str().unwrap()) && said.contains("verified"), "{said}");
    node.put("c", "later", "2").expect(200);
    node.says(&["backup", "copy.db"]);
    fs::write(node.path("mine.txt"), "mine").unwrap();
    for other in ["mine.txt", "data/cbddc.db"] {
        let refused = node.cli(&["backup", other]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("is no backup"), "{}", text(&refused.stderr));
    }
    let kept = backups(&node);
    assert!(kept.len() == 2 && kept[0].ends_with("-000002.db") && kept[1].ends_with("-000003.db"), "{kept:?}");
    let health = backup_entry(&node);
    assert_eq!((&health["data"]["last"], &health["data"]["made"]), (&kept[1].as_str().into(), &3.into()), "{health}");

    let checked = node.ask("POST", "/v1/integrity-check", &[], b"").expect(200).json();
    assert_eq!((&checked["ok"], &checked["complete"], &checked["rows"]), (&true.into(), &true.into(), &1501.into()));
    assert!(text(&node.says(&["check"])).contains("1501 rows"));
    let (code, _, error) = offline(&node, &["restore", "copy.db"]);
    assert!(code == Some(1) && error.contains("already open"), "{error}");

    node.put("c", "after the backup", "1").expect(201);
    let replica = node.status()["replicaId"].clone();
    node.stop_cleanly();
    let (code, said, _) = offline(&node, &["check"]);
    let database = node.path("data/cbddc.db");
    assert!(code == Some(0) && said.contains(database.to_str().unwrap()), "{said}");
    let (code, said, error) = offline(&node, &["restore", "copy.db"]);
    assert_eq!(code, Some(0), "{error}");
    let old = node.path("data/cbddc.db.old-1");
    for path in [&copy, &database, &old] {
        assert!(said.contains(path.to_str().unwrap()), "{said}");
    }
    assert!(old.exists());
    node.start();
    assert_ne!(node.status()["replicaId"], replica);
    assert_eq!(node.value("c", "later").as_deref(), Some("2"));
    assert_eq!(node.value("c", "after the backup"), None);
    assert!(node.log().contains("restored backup"));
    let next = node.ask("POST", "/v1/backups", &[], b"").expect(201).json();
    assert!(next["path"].as_str().unwrap().ends_with("-000004.db"), "no number is used twice: {next}");
}

#[test]
fn a_backup_that_is_due_is_made_and_one_without_room_is_said() {
    let mut node = Node::new("due").set("Persistence__BackupIntervalMinutes", "60");
    fs::write(node.path("data/cbddc.db.backups"), r#"{"counter":41,"elapsedMs":3600000}"#).unwrap();
    node.start();
    wait("the backup that was due before the restart is made", || {
        let made = backups(&node);
        (made.len() == 1 && made[0].ends_with("-000042.db") && node.path("backups/latest.db").exists()).then_some(())
    });
    wait("health says so", || (backup_entry(&node)["data"]["made"] == 1).then_some(()));
    node.put("c", "k", "1").expect(201);
    node.stop_cleanly();
    let ledger: serde_json::Value =
        serde_json::from_slice(&fs::read(node.path("data/cbddc.db.backups")).unwrap()).unwrap();
    assert!(ledger["counter"] == 42 && ledger["elapsedMs"].as_u64().unwrap() < 3_600_000, "{ledger}");
    node.change("Persistence__MinFreeMb", "60000000");
    node.start();
    let refused = node.ask("POST", "/v1/backups", &[], b"").expect(507);
    assert!(refused.problem().contains("DiskFull"), "{}", refused.text());
    let health = backup_entry(&node);
    assert_eq!((&health["status"], &health["data"]["noSpace"]), (&"Degraded".into(), &1.into()), "{health}");
    assert!(node.log().contains("event=BackupSkipped"));
    assert_eq!(backups(&node).len(), 1);
}

#[test]
fn a_row_that_rots_on_disk_is_found_by_the_scrub_and_by_a_check_and_never_backed_up() {
    let mut node = Node::new("rot").set("Cluster__HealthCheckIntervalMs", "1000").started();
    bulk(&node, "c", 0, 200);
    node.put("c", "rotten", "\"precious-cargo\"").expect(201);
    node.stop_cleanly();
    let database = node.path("data/cbddc.db");
    let mut bytes = fs::read(&database).unwrap();
    let at = bytes.windows(14).position(|window| window == b"precious-cargo").unwrap();
    bytes[at] ^= 2;
    fs::write(&database, bytes).unwrap();
    let (code, _, error) = offline(&node, &["check"]);
    assert!(code == Some(1) && error.contains("1 row is damaged"), "{error}");
    node.start();
    wait("the scrub finds it", || node.log().contains("event=RowDamaged").then_some(()));
    let storage = node.page("/health")["entries"]["storage"].clone();
    assert_eq!((&storage["status"], &storage["data"]["damagedRows"]), (&"Degraded".into(), &1.into()), "{storage}");
    // Health names it to whoever may know names, the log to nobody.
    assert_eq!(storage["data"]["damagedDocuments"], json!([{ "collection": "c", "key": "rotten" }]));
    wait("the node's own look at its health is logged", || node.log().contains("storage: 1 row is").then_some(()));
    assert!(!node.log().contains("rotten"), "{}", node.log());
    let checked = node.ask("POST", "/v1/integrity-check", &[], b"");
    assert_eq!(checked.status, 500);
    assert!(checked.problem().contains("DatabaseCorruption"), "{}", checked.text());
    let made = node.ask("POST", "/v1/backups", &[], b"");
    assert_eq!(made.status, 500, "{}", made.text());
    assert!(backups(&node).is_empty());
    node.put("c", "rotten", "\"written again\"").expect(200);
    assert_eq!(node.ask("POST", "/v1/integrity-check", &[], b"").expect(200).json()["rows"], 201);
    node.ask("POST", "/v1/backups", &[], b"").expect(201);
}

/// Every row that was ever on a disk, by dot: one number names one row.
///
/// The one place where a test reads the file of a node: that no number is used twice cannot be seen from outside.
fn collect_dots(file: &Path, dots: &mut BTreeMap<(i64, i64), Vec<u8>>) {
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    for table in ["row_0", "row_1"] {
        let mut statement = database.prepare(&format!("SELECT origin, dot, hash FROM {table}")).unwrap();
        let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get::<_, Vec<u8>>(2)?))).unwrap();
        for (dot, hash) in rows.map(Result::unwrap) {
            let before = dots.entry(dot).or_insert_with(|| hash.clone());
            assert_eq!(*before, hash, "the number {dot:?} names two rows ({})", file.display());
        }
    }
}

#[track_caller]
fn converge(nodes: &[&Node], collection: &str) {
    wait("all nodes hold the same documents", || {
        let first = nodes[0].everything(collection);
        nodes[1..].iter().all(|node| node.everything(collection) == first).then_some(())
    });
    for node in nodes {
        let alarms = node.page("/health")["entries"]["storage"]["data"]["digestAlarms"].clone();
        assert_eq!(alarms, 0, "{}", node.name);
    }
}

/// Restored, rolled back with `cp`, and cloned, next to peers that live on.
#[test]
fn a_database_put_back_next_to_its_live_peers_uses_no_number_twice_and_all_converge() {
    let mut hub = Node::new("put-back-a").started();
    hub.keep_port();
    let mut node = Node::new("put-back-b").peers(&[&hub]).started();
    let mut dots = BTreeMap::new();
    bulk(&node, "c", 0, 3000);
    node.says(&["import", "airports", data("airports.csv").to_str().unwrap(), "--key", "iata"]);
    let backup = node.ask("POST", "/v1/backups", &[], b"").expect(201).json();
    let backup = backup["path"].as_str().unwrap().to_string();
    // What came after the backup is at the peer, and on the disk that is set aside.
    bulk(&node, "c", 2900, 3300);
    node.delete("c", "00000").expect(204);
    hub.put("c", "from the peer", "1").expect(201);
    wait("it arrives", || node.value("c", "from the peer"));
    converge(&[&hub, &node], "c");
    let mut replicas = vec![node.status()["replicaId"].to_string()];

    // Restored.
    node.stop_cleanly();
    let (code, _, error) = offline(&node, &["restore", &backup]);
    assert_eq!(code, Some(0), "{error}");
    node.start();
    bulk(&node, "c", 3300, 3400);
    wait("what came after the backup comes back", || node.value("c", "03299"));
    wait("the delete too", || node.value("c", "00000").is_none().then_some(()));
    wait("what it writes now arrives", || hub.value("c", "03399"));
    converge(&[&hub, &node], "c");
    replicas.push(node.status()["replicaId"].to_string());

    // Rolled back: the backup is copied over the database of a node that was killed.
    bulk(&node, "c", 3400, 3500);
    wait("it arrives", || hub.value("c", "03499"));
    node.kill();
    collect_dots(&node.path("data/cbddc.db.old-1"), &mut dots);
    fs::copy(&backup, node.path("data/cbddc.db")).unwrap();
    node.start();
    bulk(&node, "c", 3500, 3600);
    wait("what it had written comes back", || node.value("c", "03499"));
    wait("what it writes now arrives", || hub.value("c", "03599"));
    converge(&[&hub, &node], "c");
    replicas.push(node.status()["replicaId"].to_string());

    // Cloned: another device starts from the same backup, while the first one runs.
    let mut clone = Node::new("put-back-c").peers(&[&hub]);
    fs::copy(&backup, clone.path("data/cbddc.db")).unwrap();
    clone.start();
    bulk(&clone, "d", 0, 100);
    bulk(&node, "d", 100, 200);
    wait("both arrive", || hub.value("d", "00099").and(hub.value("d", "00199")));
    for collection in ["c", "d", "airports"] {
        converge(&[&hub, &node, &clone], collection);
    }
    replicas.push(clone.status()["replicaId"].to_string());
    replicas.sort();
    replicas.dedup();
    assert_eq!(replicas.len(), 4, "each life has an identity of its own");
    assert!(hub.is_linked_to("put-back-b") && hub.is_linked_to("put-back-c"));
    for node in [&mut hub, &mut node, &mut clone] {
        node.stop_cleanly();
        collect_dots(&node.path("data/cbddc.db"), &mut dots);
    }
    assert!(dots.len() > 6000, "{}", dots.len());
}
