//! A disk that is full, a configured bound, and the rollback journal.

use crate::client::document;
use crate::process::{Node, wait};
use crate::small_disk::Disk;

#[test]
fn a_full_disk_refuses_documents_and_nothing_else_and_everything_goes_on_when_there_is_room() {
    let test = "a_full_disk_refuses_documents_and_nothing_else_and_everything_goes_on_when_there_is_room";
    let node = Node::new("full").set("Persistence__DatabasePath", "disk/cbddc.db").set("Persistence__MinFreeMb", "3");
    let node = node.set("Sync__EnableOfflineQueue", "false");
    let Some(disk) = Disk::new(test, &node.path("disk"), 24) else { return };
    let node = node.started();
    let peer = Node::new("full-peer").peers(&[&node]).started();
    node.wait_linked(&peer);
    let value = format!("\"{}\"", "x".repeat(100_000));
    let mut connection = node.connect();
    let mut stored = 0;
    let refused = loop {
        let path = document("c", &format!("k{stored}"));
        let answer = connection.ask("PUT", &path, &[], value.as_bytes()).unwrap();
        if answer.status != 201 {
            break answer;
        }
        stored += 1;
        assert!(stored < 1000, "it never fills");
    };
    assert_eq!(refused.expect(507).problem(), "PERSISTENCE_ERROR/DiskFull");
    assert!(stored > 20, "{stored}");
    let storage = |node: &Node| node.page("/health")["entries"]["storage"]["status"].as_str().unwrap().to_string();
    assert_eq!(storage(&node), "Unhealthy");
    assert!(node.log().contains("the store refuses"), "{}", node.log());
    // Reads, deletes and replication out go on.
    node.get("c", "k0").expect(200);
    node.delete("c", "k1").expect(204);
    assert_eq!(storage(&node), "Unhealthy", "that a delete was stored says nothing of documents");
    wait("everything that was accepted is at the peer", || {
        (peer.value("c", "k1").is_none() && peer.everything("c") == node.everything("c")).then_some(())
    });
    // What the peer writes waits there, and neither node falls over.
    peer.put("c", "from-peer", &value).expect(201);
    // Not a byte is left for anybody.
    disk.fill();
    for n in 0..5 {
        // The log may have a place for a few that are small: then they are stored, and no answer says so falsely.
        let answer = node.put("c", &format!("small{n}"), "1");
        match answer.status {
            201 => assert_eq!(node.value("c", &format!("small{n}")).as_deref(), Some("1")),
            _ => assert_eq!(answer.expect(507).problem(), "PERSISTENCE_ERROR/DiskFull"),
        }
    }
    let answer = node.put("c", "none", &value);
    assert_eq!(answer.expect(507).problem(), "PERSISTENCE_ERROR/DiskFull");
    assert!(matches!(node.delete("c", "k2").status, 204 | 507));
    node.get("c", "k3").expect(200);
    disk.free();
    for n in 4..stored {
        let answer = node.delete("c", &format!("k{n}"));
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    wait("there is room again", || (node.put("c", "again", "1").status / 100 == 2).then_some(()));
    wait("health says so", || (storage(&node) == "Healthy").then_some(()));
    wait("what the peer wrote arrives", || node.value("c", "from-peer"));
    wait("both hold the same", || (peer.everything("c") == node.everything("c")).then_some(()));
}

#[test]
fn the_configured_bound_of_the_database_holds() {
    let node = Node::new("bound").set("Persistence__MaxDatabaseMb", "4");
    let node = node.set("Sync__EnableOfflineQueue", "false").started();
    let value = format!("\"{}\"", "x".repeat(200_000));
    let mut connection = node.connect();
    let statuses: Vec<u16> = (0..40)
        .map(|n| connection.ask("PUT", &document("c", &format!("k{n}")), &[], value.as_bytes()).unwrap().status)
        .collect();
    let stored = statuses.iter().take_while(|status| **status == 201).count();
    assert!((12..=20).contains(&stored), "{statuses:?}");
    assert!(statuses[stored..].iter().all(|status| *status == 507), "{statuses:?}");
    let bytes = node.status()["store"]["databaseBytes"].as_u64().unwrap();
    assert!(bytes <= 5 << 20, "{bytes}");
    for n in 0..stored {
        node.delete("c", &format!("k{n}")).expect(204);
    }
    node.put("c", "again", &value).expect(201);
}

#[test]
fn without_a_write_ahead_log_an_acknowledged_write_survives_too() {
    let mut node = Node::new("journal").set("Persistence__EnableWalMode", "false").started();
    for round in 0..3 {
        for n in 0..20 {
            node.put("c", &format!("{round}-{n}"), "1").expect(201);
        }
        node.kill();
        assert!(!node.path("data/cbddc.db-wal").exists());
        node.start();
        assert_eq!(node.everything("c").len(), (round + 1) * 20);
    }
    // The other way and back: what is there stays.
    node.stop_cleanly();
    node.change("Persistence__EnableWalMode", "true");
    node.start();
    node.put("c", "wal", "1").expect(201);
    node.kill();
    node.change("Persistence__EnableWalMode", "false");
    node.start();
    assert_eq!(node.everything("c").len(), 61);
}
