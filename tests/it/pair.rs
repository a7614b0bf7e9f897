//! Two nodes that know each other by address.

use crate::client::{document, documents};
use crate::process::{KEY, Node, copy_folder, wait};
use crate::program::seconds;
use crate::speaker::Speaker;
use cbddc::wire::Message;
use std::fs;
use std::time::Instant;

/// Two nodes in session.
fn pair(name: &str) -> (Node, Node) {
    let mut left = Node::new(&format!("{name}-a")).started();
    left.keep_port();
    let right = Node::new(&format!("{name}-b")).peers(&[&left]).started();
    left.wait_linked(&right);
    right.wait_linked(&left);
    (left, right)
}

#[track_caller]
fn equal(left: &Node, right: &Node, collection: &str) {
    wait(&format!("{} and {} hold the same", left.name, right.name), || {
        (left.everything(collection) == right.everything(collection)).then_some(())
    });
}

#[test]
fn writes_updates_and_deletes_reach_the_other_node() {
    let (left, right) = pair("reach");
    left.put("c", "k", "{\"a\": 1}").expect(201);
    wait("a put arrives", || right.value("c", "k").filter(|value| value == "{\"a\": 1}"));
    assert_eq!(right.get("c", "k").version(), left.get("c", "k").version());
    right.put("c", "k", "2").expect(200);
    // Read before, so that a stale cache would show.
    wait("an update arrives", || left.value("c", "k").filter(|value| value == "2"));
    left.delete("c", "k").expect(204);
    wait("a delete arrives", || right.value("c", "k").is_none().then_some(()));
    let path = document("c", "k");
    right.ask("PUT", &path, &[("If-None-Match", "*")], b"3").expect(201);
    wait("a document comes again after its delete", || left.value("c", "k").filter(|value| value == "3"));
    let version = left.get("c", "k");
    left.ask("PUT", &path, &[("If-Match", version.version())], b"4").expect(200);
    wait("a conditional update arrives", || right.value("c", "k").filter(|value| value == "4"));
    let confirmed = wait("everything is confirmed", || {
        left.peer(&right.name).filter(|peer| peer["confirmed"] == true && peer["unconfirmedChanges"] == 0)
    });
    assert_eq!(confirmed["lagMs"], 0, "{confirmed}");
    let health = left.page("/health");
    assert_eq!(health["entries"]["cbddc"]["data"]["trackedPeerCount"], 1, "{health}");
    assert_eq!(health["status"], "Healthy", "{health}");
    left.ask("GET", "/readyz", &[], b"").expect(200);
}

#[test]
fn both_write_at_once_and_agree() {
    let (left, right) = pair("at-once");
    std::thread::scope(|scope| {
        for node in [&left, &right] {
            scope.spawn(move || {
                let mut connection = node.connect();
                for n in 0..150 {
                    let value = format!("\"{} {n}\"", node.name);
                    let key = format!("k{}", n % 20);
                    let (method, value) = if n % 7 == 3 { ("DELETE", "") } else { ("PUT", value.as_str()) };
                    connection.ask(method, &document("c", &key), &[], value.as_bytes()).unwrap();
                }
            });
        }
    });
    equal(&left, &right, "c");
    let alarms = |node: &Node| node.page("/health")["entries"]["storage"]["data"]["digestAlarms"].clone();
    assert_eq!((alarms(&left), alarms(&right)), (0.into(), 0.into()));
}

#[test]
fn a_document_that_expires_is_gone_on_both_nodes() {
    let (left, right) = pair("expires");
    left.ask("PUT", &format!("{}?ttl=2", document("c", "short")), &[], b"1").expect(201);
    left.put("c", "long", "1").expect(201);
    wait("it arrives", || right.value("c", "long"));
    wait("it is gone here", || left.value("c", "short").is_none().then_some(()));
    wait("it is gone there", || right.value("c", "short").is_none().then_some(()));
    assert!(left.value("c", "long").is_some() && right.value("c", "long").is_some());
    left.put("c", "short", "2").expect(201);
    wait("the key can be used again", || right.value("c", "short").filter(|value| value == "2"));
    assert_eq!(left.ask("PUT", &format!("{}?ttl=0", document("c", "k")), &[], b"1").status / 100, 4);
    assert_eq!(left.ask("PUT", &format!("{}?ttl=soon", document("c", "k")), &[], b"1").status, 400);
}

#[test]
fn a_local_collection_stays_where_it_is() {
    let left = Node::new("local-a").set("Collections__scratch__Scope", "local").started();
    let right = Node::new("local-b").set("Collections__scratch__Scope", "local").peers(&[&left]).started();
    left.wait_linked(&right);
    left.put("scratch", "k", "\"mine\"").expect(201);
    left.put("shared", "k", "\"ours\"").expect(201);
    wait("what is shared arrives", || right.value("shared", "k"));
    wait("it is confirmed", || left.peer("local-b").filter(|peer| peer["unconfirmedChanges"] == 0));
    assert_eq!(right.value("scratch", "k"), None);
    assert_eq!(left.value("scratch", "k").as_deref(), Some("\"mine\""));
    right.put("scratch", "k", "\"also mine\"").expect(201);
    right.put("shared", "k2", "1").expect(201);
    wait("what is shared arrives", || left.value("shared", "k2"));
    assert_eq!(left.value("scratch", "k").as_deref(), Some("\"mine\""));
}

#[test]
fn a_node_that_was_away_catches_up_and_gives_what_it_wrote_meanwhile() {
    let (mut left, mut right) = pair("away");
    left.put("c", "both", "1").expect(201);
    left.put("c", "deleted", "1").expect(201);
    wait("it arrives", || right.value("c", "deleted"));
    right.stop_cleanly();
    wait("it is seen to be gone", || left.peer("away-b").filter(|peer| peer["state"] == "closed"));
    left.delete("c", "deleted").expect(204);
    for n in 0..300 {
        left.put("c", &format!("k{n:03}"), &format!("{n}"));
    }
    left.kill();
    right.start();
    right.put("c", "there", "2").expect(201);
    right.put("c", "both", "2").expect(200);
    left.start();
    wait("they have found each other", || left.value("c", "there"));
    equal(&left, &right, "c");
    assert_eq!(left.value("c", "both").as_deref(), Some("2"));
    assert_eq!(right.value("c", "deleted"), None);
    assert_eq!(right.everything("c").len(), 302);
}

/// A card is cloned, and both write before either meets anybody: both use the same sequence numbers for other rows.
///
/// Once, the clone that was told to take a new identity noted the number of its own row as one that had been replaced
/// here, took the other's row of that number for a document that it had deleted, and deleted it on the whole site.
#[test]
fn clones_that_both_wrote_alone_keep_both_writes_and_become_two_members() {
    let (left, mut right) = pair("clone");
    left.put("c", "before", "1").expect(201);
    wait("it arrives", || right.value("c", "before"));
    right.stop_cleanly();
    // The card with everything on it, keys included; its owner changes the name, as labels do.
    let mut twin = Node::new("clone-c");
    fs::remove_dir_all(twin.path("data")).unwrap();
    copy_folder(&right.path("data"), &twin.path("data"));
    twin.start();
    twin.put("c", "from-c", "1").expect(201);
    twin.put("c", "before", "\"changed on c\"").expect(200);
    twin.stop_cleanly();
    right.start();
    right.put("c", "from-b", "1").expect(201);
    right.put("c", "also-from-b", "1").expect(201);
    wait("the first that comes is taken for the original", || left.value("c", "also-from-b"));
    let mut twin = twin.peers(&[&left]);
    twin.start();
    left.put("c", "from-a", "1").expect(201);
    for key in ["from-a", "from-b", "also-from-b", "from-c"] {
        for node in [&left, &right, &twin] {
            wait(&format!("{key} reaches {}", node.name), || node.value("c", key));
        }
    }
    equal(&left, &right, "c");
    equal(&left, &twin, "c");
    assert_eq!(left.value("c", "before").as_deref(), Some("\"changed on c\""));
    let replica = |node: &Node| node.status()["replicaId"].clone();
    assert_ne!(replica(&right), replica(&twin));
    // They never meet each other, only the hub that both dial: it tells one of them that there are two.
    wait("both are linked", || (left.is_linked_to("clone-b") && left.is_linked_to("clone-c")).then_some(()));
}

#[test]
fn a_card_that_was_rolled_back_loses_nothing_that_others_have() {
    let (left, mut right) = pair("rollback");
    right.put("c", "old", "1").expect(201);
    wait("it arrives", || left.value("c", "old"));
    right.stop_cleanly();
    copy_folder(&right.path("data"), &right.path("copy"));
    right.start();
    for n in 0..20 {
        right.put("c", &format!("new{n}"), "1").expect(201);
    }
    wait("they arrive", || left.value("c", "new19"));
    let replica = right.status()["replicaId"].clone();
    right.kill();
    fs::remove_dir_all(right.path("data")).unwrap();
    copy_folder(&right.path("copy"), &right.path("data"));
    right.start();
    // It uses sequence numbers that it has used before, and does not know it.
    right.put("c", "after", "1").expect(201);
    wait("what it had written comes back", || right.value("c", "new19"));
    wait("what it writes now arrives", || left.value("c", "after"));
    equal(&left, &right, "c");
    assert_eq!(right.everything("c").len(), 22);
    assert_ne!(right.status()["replicaId"], replica);
}

#[test]
fn a_known_name_with_another_key_is_refused_and_said() {
    let (left, right) = pair("name");
    let impostor = Node::new("name-b").peers(&[&left]).started();
    wait("the refusal is said", || {
        let errors = left.status()["recentErrors"].to_string();
        errors.contains("belongs to another device").then_some(())
    });
    impostor.put("c", "forged", "1").expect(201);
    left.put("c", "k", "1").expect(201);
    wait("the one who had the name is served", || right.value("c", "k"));
    assert_eq!(left.value("c", "forged"), None);
    assert_eq!(impostor.value("c", "k"), None);
    assert!(!impostor.is_linked_to("name-a"));
}

#[test]
fn a_peer_that_stands_still_does_not_hold_back_the_others() {
    let (left, right) = pair("still");
    let frozen = Node::new("still-c").peers(&[&left]).started();
    left.wait_linked(&frozen);
    frozen.freeze();
    let mut connection = left.connect();
    let value = format!("\"{}\"", "x".repeat(60_000));
    // More than its window and its socket take.
    for n in 0..80 {
        connection.ask("PUT", &document("c", &format!("k{n}")), &[], value.as_bytes()).unwrap().expect(201);
    }
    wait("the other has everything", || right.value("c", "k79"));
    let lag = wait("it is seen to lag", || left.peer("still-c").filter(|peer| peer["unconfirmedChanges"] != 0));
    assert_eq!(lag["confirmed"], false, "{lag}");
    frozen.thaw();
    equal(&left, &frozen, "c");
}

#[test]
fn a_link_is_pinged_and_the_round_trip_is_shown() {
    let (left, right) = pair("ping");
    let mut speaker = Speaker::dial("visitor", left.links(), KEY).unwrap();
    let hello = speaker.hello();
    speaker.say(&Message::Hello(hello)).unwrap();
    assert!(matches!(speaker.hear().unwrap(), Message::Hello(hello) if hello.node_id.as_str() == "ping-a"));
    wait("a visitor is a peer that is not tracked", || left.peer("visitor").filter(|peer| peer["state"] == "open"));
    let health = left.page("/health");
    assert_eq!(health["entries"]["cbddc"]["data"]["trackedPeerCount"], 1, "{health}");
    let asked = Instant::now();
    let shown = wait("the round trip is shown", || left.peer(&right.name).filter(|peer| peer["roundTripMs"].is_u64()));
    assert!(
        shown["roundTripMs"].as_u64().unwrap() < seconds(1).as_millis() as u64,
        "{shown} after {:?}",
        asked.elapsed()
    );
}

#[test]
fn a_bulk_of_the_largest_documents_arrives_whole() {
    let (left, right) = pair("large");
    let value = format!("\"{}\"", "x".repeat(256 * 1024 - 2));
    let ndjson = [("Content-Type", "application/x-ndjson")];
    let line = |n: usize| format!("{{\"key\":\"k{n}\",\"value\":{value}}}\n");
    let body: String = (0..12).map(line).collect();
    let bulk = left.ask("POST", &documents("c"), &ndjson, body.as_bytes()).expect(200).json();
    assert_eq!(bulk["successful"], 12, "{bulk}");
    wait("all of them arrive", || (0..12).all(|n| right.get("c", &format!("k{n}")).status == 200).then_some(()));
    assert_eq!(right.get("c", "k11").body, value.as_bytes());
}
